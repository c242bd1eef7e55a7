/** Looking after a store: reports and requests. */
import type { IntegrityProblem } from './commit-types';
import type { BlobRef, JsonValue, SessionMeta, SessionNodeRecord } from './value-types';

/** What is cut back; what is not named stays. */
export interface PruneOptions {
  /** Forgets turns that were committed longer ago. A forgotten turn is no longer protected against being sent again. */
  turnCommitsOlderThanMs?: number;
  /** Sums up the entries of the ledger but so many of the newest: one is left of each source and model. The ledger stays as it is. */
  usageDeltasKept?: number;
}

/** What was cut back. */
export interface PruneReport {
  turnCommitCount: number;
  /** Rows of the ledger that are fewer now. */
  usageDeltaCount: number;
  /** Ends of batches that were not to be remembered any longer; they go with every call. */
  finishedBatchCount: number;
}

/** What a fork takes along. */
export interface ForkOptions {
  /** The path to this node; default the node of the pin, or the head's leaf. */
  leafNodeId?: string;
  /** Its checkpoint; default that of the pin, or the head's. */
  checkpointRef?: BlobRef;
  /** Begins where this pin is: its node, checkpoint and retained blobs, and the config and frames of the head that was pinned. */
  pin?: string;
  /** Whose session the new file is; default the same. */
  sessionId?: string;
  /** Whether the sums of the ledger go along, one entry per source and model, or it begins at nothing; default `totals`. */
  ledger?: 'totals' | 'none';
  /** Default `{ type: 'fork', sessionId, headRevision, leafNodeId }` of where it came from. */
  relation?: JsonValue;
}

/** A session that was forked. */
export interface ForkedSession {
  path: string;
  bytes: number;
  sessionId: string;
  headRevision: 1;
  checkpointRef: BlobRef;
  leafNodeId: string | null;
  nodeCount: number;
}

/** What is pinned; without `checkpointRef` the head as it is. */
export interface PinRequest {
  /** The node that the checkpoint belongs to; must be the head's leaf where no `checkpointRef` is given. */
  nodeId?: string;
  /** Another checkpoint than the head's. */
  checkpointRef?: BlobRef;
  /** Further blobs that are kept with it. Those of the head come by themselves. */
  retainedBlobRefs?: BlobRef[];
}

/** A checkpoint that is kept by a name. */
export interface CheckpointPin {
  name: string;
  checkpointRef: BlobRef;
  /** The node it belongs to. */
  nodeId: string | null;
  /** The revision of the head that was pinned; `null` for a checkpoint that was named. */
  headRevision: number | null;
  pinnedAtEpochMs: number;
  retainedBlobRefs: BlobRef[];
}

/** What has changed since the one before. Changes that come quickly are one. */
export interface SessionGraphChange {
  changed: ('revision' | 'queue')[];
  headRevision: number;
  queuedBatches: number;
}

/** How changes are watched. */
export interface WatchOptions {
  /**
   * The revision that the caller knows: any other one, such as the older one of a file that was restored, is told at once. Default the one that is
   * stored when the watch begins, a moment after the call: what is committed meanwhile may or may not be told.
   */
  since?: number;
  /** Ends it, without an error. */
  signal?: AbortSignal;
  /** How often a store in PostgreSQL is asked for the changes of others, in milliseconds; default 250. Files need no asking. */
  pollMs?: number;
}

/** A node, and its place in the order. */
export interface NodeAt {
  seq: number;
  node: SessionNodeRecord;
}

/** Whether a file can be opened by this version. */
export interface PreflightReport {
  /**
   * `ready`; `missing` and `empty`: opening makes a store; `newer`: written by a newer version; `older`: by one from which nothing leads
   * here; `foreign`: no session database; `damaged`: see `problems`, also for a file in the middle of a change that `open` undoes.
   */
  verdict: 'ready' | 'missing' | 'empty' | 'newer' | 'older' | 'foreign' | 'damaged';
  /** Whether `open` would succeed. A damaged store may open, too, and fail later. */
  opens: boolean;
  /** The version of the file, and the one that this version of holdfast writes. */
  found: number | null;
  expected: number;
  problems: IntegrityProblem[];
}

/** A session in a folder. */
export interface SessionListing {
  path: string;
  /** As it was saved; `null` if nothing was, or `problem` says why it cannot be read. */
  meta: SessionMeta | null;
  headRevision: number;
  /** Size of the file with its log, and when it was last written, in milliseconds since 1970. */
  bytes: number;
  modifiedAtMs: number;
  /** Why it cannot be read. */
  problem?: { code: string; message: string };
}
