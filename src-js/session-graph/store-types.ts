/** Options and reports of a store. */
import type { BlobRef } from './value-types';

/** How a store is opened. */
export interface SessionGraphStoreOptions {
  /** Which blobs are compressed: none, those of 4096 bytes and more, those of 1024 and more. Default `balanced`, in memory `lowLatency`. */
  blobProfile?: 'lowLatency' | 'balanced' | 'compact';
  /** When unreachable blobs are removed by themselves: after every so many commits of this handle. Default never; of any age. */
  gcPolicy?: { autoRunEveryCommits?: number | null; minBlobAgeMs?: number };
  /** `full` (default): a power cut takes nothing that was resolved. `normal`: it may take the last moments, a killed process nothing. */
  durability?: 'full' | 'normal';
  /** How long a call waits for other processes; default 15 000, for `openReadOnly` 1 000. */
  busyTimeoutMs?: number;
  /** Most reads at the same time; default 4. */
  maxReaders?: number;
  /** `never`: a file that is missing, or of an older version, is refused. Default `auto`. */
  migrate?: 'auto' | 'never';
  /** What batches are enqueued with by this handle unless their drafts say something else; default no limit, and nothing is remembered. */
  queue?: { maxAttempts?: number | null; retainFinishedMs?: number | null };
  /**
   * Commits that are larger are refused before anybody waits for them, with {@link CommitTooLargeError}: `maxBytes` of the commit as JSON and
   * its execution state, `maxNodes` in its graph. Default no limits.
   */
  commitLimits?: { maxBytes?: number | null; maxNodes?: number | null };
}

/** How a store in PostgreSQL is opened. */
export interface PostgresSessionGraphOptions extends Pick<SessionGraphStoreOptions, 'blobProfile' | 'gcPolicy' | 'busyTimeoutMs' | 'migrate' | 'queue' | 'commitLimits'> {
  /** `postgres://user:password@host:port/database`. Stores of this process with the same connection share their connections. */
  connectionString: string;
  /** Which store of the schema; made when it is missing. One per session. */
  sessionId: string;
  /** The schema of the tables, made when it is missing; default `holdfast_sessions`. */
  schema?: string;
  /** Most connections; default 4. */
  poolSize?: number;
  /** TLS, as `pg` takes it. Default: what `connectionString` says. */
  ssl?: boolean | { rejectUnauthorized?: boolean; ca?: string | string[]; cert?: string; key?: string };
}

/** What a collection did. */
export interface GcReport {
  rootCount: number;
  retainedBlobCount: number;
  deletedBlobCount: number;
  freedBytes: number;
  /** It could not be told what is alive, so from then on nothing was deleted; what was before is counted. */
  aborted?: { reason: string; ref?: BlobRef };
}

/** What a blob is. */
export interface BlobArtifactDescriptor {
  kind: 'genericBlob' | 'checkpointManifest' | 'toolState' | 'pluginSessionSnapshot' | 'executionStateSnapshot' | 'module';
  hints?: ('compressible' | 'inlinePreferred' | 'largePayload')[];
}

/** An attachment whose bytes are about to be written elsewhere. */
export interface AttachmentIntent {
  attachmentId: string;
  sessionId: string;
  canonicalUri: string;
  intentAtEpochMs: number;
}

/** An attachment that was announced. */
export interface AttachmentManifestEntry extends AttachmentIntent {
  committedAtEpochMs: number | null;
}

/** Figures of a store, for those who look after it. */
export interface SessionGraphStats {
  headRevision: number;
  liveNodes: number;
  tombstonedNodes: number;
  /** Bytes of all blobs as stored. */
  blobBytes: number;
  queuedBatches: number;
  /** How long the first batch that nobody claimed has waited; `null` if there is none. */
  oldestWaitingMs: number | null;
  /** Batches that a claim could take now, and how long the first of them could have been taken; `null` if there is none. */
  readyBatches: number;
  oldestReadyMs: number | null;
  /** Batches that somebody works on. */
  claimedBatches: number;
  deadLetters: number;
  /** Sizes of the file and of its write-ahead log; 0 in memory. Like the rest left out for a store that is only read. */
  fileBytes?: number;
  walBytes?: number;
  /** Transactions, and the calls that went with them, since the handle was opened. */
  commits?: number;
  jobs?: number;
  largestBatch?: number;
  /** Calls that wait now. */
  queued?: number;
  /** How often a reader kept the log from being written back. */
  checkpointsHeld?: number;
  /** How long transactions of this handle waited for the write lock, in milliseconds, up to a factor of two; 0 before the first. */
  lockWaitMs?: { p50: number; p95: number; p99: number };
}
