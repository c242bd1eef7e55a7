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
}

/** A batch that waits, or is being worked on. */
export interface QueuedWorkBatch extends Required<Omit<QueuedWorkBatchDraft, 'payloads'>> {
  batchId: string;
  /** Its place in the order; never used again. */
  enqueueSeq: number;
  enqueuedAtMs: number;
  /** `itemId` is `<batchId>:item:<index>`. */
  items: { itemId: string; payload: JsonValue }[];
}

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
