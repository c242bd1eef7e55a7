/** Work that waits for a turn. */
import type { JsonValue } from './value-types';

/** What a batch joins: nothing, what has no group either, or its group. */
export type MergeKey = 'never' | 'payloadDefault' | { group: string };

/** What is to be enqueued. */
export interface QueuedWorkBatchDraft {
  sessionId: string;
  payloads: JsonValue[];
  /** A batch of the session with the same key that still waits or is being worked on is returned instead. */
  sourceKey?: string | null;
  /** When it may be delivered: at the next safe boundary of a running turn, or only after it. */
  deliveryPolicy: 'earliestSafeBoundary' | 'afterCurrentTurnCommit';
  /** Whether others may share a claim with it. */
  slotPolicy: 'join' | 'exclusive';
  /** Default `never`. */
  mergeKey?: MergeKey;
  /** Not before that time, in milliseconds since 1970; default 0. */
  availableAtMs?: number;
  /**
   * How often it may be claimed, 1 or more; after that it is a dead letter that nobody gets until it is requeued. `null`: any number of
   * times. Default what `queue.maxAttempts` of the store's options says, and that is any number.
   */
  maxAttempts?: number | null;
  /**
   * Remembers for `retainMs` how it ended: until then a batch with its `sourceKey` that says `dedupe`, too, is not enqueued again, and
   * `queuedWorkState` knows of it. `null`: not at all. Default what `queue.retainFinishedMs` of the store's options says, and that is not at all.
   */
  dedupe?: { retainMs: number } | null;
}

/** A batch that waits, or is being worked on. */
export interface QueuedWorkBatch extends Required<Omit<QueuedWorkBatchDraft, 'payloads' | 'maxAttempts' | 'dedupe'>> {
  batchId: string;
  /** Its place in the order; never used again. */
  enqueueSeq: number;
  enqueuedAtMs: number;
  /** `itemId` is `<batchId>:item:<index>`. */
  items: { itemId: string; payload: JsonValue }[];
  /** How often it may be claimed; left out where any number of times. */
  maxAttempts?: number;
  /** How often it was claimed, this time included; left out with `maxAttempts`. */
  attempts?: number;
  /** Only in what enqueueing a batch again answers: it is over, its `items` are forgotten, and nothing was enqueued. */
  finished?: { outcome: 'completed' | 'cancelled'; atEpochMs: number };
}

/** A batch that nobody gets any more: it was claimed as often as it may be, and never completed. */
export interface QueuedWorkDeadLetter {
  batch: QueuedWorkBatch;
  /** Who claimed it last, and when; `null` if that claim was given back. */
  ownerId: string | null;
  claimedAtEpochMs: number | null;
}

/** What has become of a batch. `attempts` counts claims. */
export type QueuedWorkState =
  | { state: 'waiting'; attempts: number; availableAtMs: number }
  | { state: 'claimed'; attempts: number; ownerId: string; claimedAtEpochMs: number; expiresAtEpochMs: number }
  | { state: 'dead'; attempts: number }
  | { state: 'completed' | 'cancelled'; attempts: number; finishedAtEpochMs: number; rememberedUntilEpochMs: number }
  | { state: 'notFound' };

/** What cancelling a batch did, or why it did nothing. `completed` is known only while it is remembered. */
export type QueuedWorkCancellation =
  | { outcome: 'cancelled'; batch: QueuedWorkBatch }
  | { outcome: 'claimed'; ownerId: string; expiresAtEpochMs: number }
  | { outcome: 'completed'; finishedAtEpochMs: number }
  | { outcome: 'notFound' };

/** Who asks for work, where, and for how long. */
export interface QueuedWorkClaimRequest {
  sessionId: string;
  /** A label. */
  ownerId: string;
  /** How long nobody else gets it, in milliseconds; see `QUEUED_WORK_CLAIM_TTL_MS`. */
  leaseTtlMs: number;
  boundary: 'activeTurnCheckpoint' | 'idle';
}

/** Batches that belong to somebody for a while. Plain data: it may be handed to another process. */
export interface QueuedWorkClaim {
  sessionId: string;
  claimId: string;
  ownerId: string;
  leaseToken: string;
  /** Grows with every claim of the store. */
  fencingToken: number;
  claimedAtEpochMs: number;
  expiresAtEpochMs: number;
  batches: QueuedWorkBatch[];
}

/** Claimed work that is done. */
export interface QueuedWorkCompletion {
  sessionId: string;
  claimId: string;
  leaseToken: string;
  /** Exactly the batches of the claim. */
  batchIds: string[];
}
