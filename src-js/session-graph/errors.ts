/** The error classes of the module; `asGraphError` finds the class of a failure by its `hfCode`. */
import { ERROR_CODES, HoldfastError, markClass, type HoldfastErrorCode, type HoldfastErrorOptions } from '../errors';
import { InvalidArgumentError, MigrationError, StoreBusyError, StoreClosedError, StoreCorruptError, StoreFullError, type StoreErrorOptions } from '../store-errors';

export { InvalidArgumentError, MigrationError, StoreBusyError, StoreClosedError, StoreCorruptError, StoreFullError } from '../store-errors';

/** The store belongs to another session; nothing was written. */
export class SessionBindingMismatchError extends HoldfastError {
  /** The session that the first commit named. */
  declare readonly boundSessionId: string;
  /** The session of this commit. */
  declare readonly attemptedSessionId: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_SESSION_BINDING_MISMATCH' });
  }
}

/** Somebody else committed first; nothing was written. Load the session, and decide anew. */
export class HeadRevisionConflictError extends HoldfastError {
  /** The revision that the commit builds on. */
  declare readonly expected: number;
  /** The revision that is stored. */
  declare readonly actual: number;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_HEAD_REVISION_CONFLICT' });
  }
}

/** The turn was committed with other contents; nothing was written. */
export class RuntimeTurnCommitConflictError extends HoldfastError {
  /** The session of the stamp. */
  declare readonly sessionId: string;
  /** The turn of the stamp. */
  declare readonly turnId: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_RUNTIME_TURN_COMMIT_CONFLICT' });
  }
}

/** The claim no longer owns its batches; nothing was written. */
export class QueuedWorkClaimExpiredError extends HoldfastError {
  /** The session of the claim. */
  declare readonly sessionId: string;
  /** The claim. */
  declare readonly claimId: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_QUEUED_WORK_CLAIM_EXPIRED' });
  }
}

/** `loadSession` does not know the scope. */
export class UnsupportedReadScopeError extends HoldfastError {
  /** What was asked for. */
  declare readonly scope: unknown;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_UNSUPPORTED_READ_SCOPE' });
  }
}

/** A stored record has a format that this version does not know. */
export class UnsupportedRecordSchemaVersionError extends HoldfastError {
  /** What it is. */
  declare readonly recordKind: string;
  /** Its version. */
  declare readonly actual: number;
  /** The version that is known. */
  declare readonly expected: number;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_UNSUPPORTED_RECORD_SCHEMA_VERSION' });
  }
}

/** A node of that id is stored already, or comes twice; nothing was written. */
export class NodeIdCollisionError extends HoldfastError {
  /** The id. */
  declare readonly nodeId: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_NODE_ID_COLLISION' });
  }
}

/** The new leaf is no stored node; nothing was written. */
export class UnknownLeafError extends HoldfastError {
  /** The leaf. */
  declare readonly nodeId: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_UNKNOWN_LEAF' });
  }
}

/** A node would be its own ancestor; nothing was written. */
export class GraphCycleError extends HoldfastError {
  /** A node of the circle. */
  declare readonly nodeId: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_CYCLE' });
  }
}

/** The stored links of nodes are damaged. */
export class GraphCorruptError extends HoldfastError {
  /** Where it was noticed. */
  declare readonly nodeId: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_CORRUPT' });
  }
}

/** A reference leads to no stored blob; if it was a write, nothing was written. */
export class MissingBlobError extends HoldfastError {
  /** The reference. */
  declare readonly ref: string;
  /** What it stands for. */
  declare readonly component: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_MISSING_BLOB' });
  }
}

/** A blob is not what its reference says. */
export class BlobCorruptError extends HoldfastError {
  /** The reference. */
  declare readonly ref: string;
  /** What it was read for. */
  declare readonly component: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_BLOB_CORRUPT' });
  }
}

/** A stored row cannot be read. */
export class RecordDecodeError extends HoldfastError {
  /** The table. */
  declare readonly table: string;
  /** Which row. */
  declare readonly key: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_RECORD_DECODE' });
  }
}

/** A queued batch is damaged; it can be cancelled. */
export class QueueRowCorruptError extends HoldfastError {
  /** The batch. */
  declare readonly batchId: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_QUEUE_ROW_CORRUPT' });
  }
}

/** An effect cannot be done or replayed; `hfCode` says why, and so does the first word of the message. */
export class EffectReplayError extends HoldfastError {
  /** The scope, as it is stored. */
  declare readonly scope?: unknown;
  /** Which effect of it. */
  declare readonly replayKey?: string;
  /** What the effect threw, where that could not be recorded. */
  declare readonly thrown?: unknown;
  constructor(message: string, options?: StoreErrorOptions & { hfCode?: HoldfastErrorCode }) {
    super(message, { ...options, hfCode: options?.hfCode ?? 'HF_GRAPH_EFFECT_REPLAY_STORE' });
  }
}

/** An event of the host, or what belongs to it, cannot be recorded; nothing was written. */
export class HostEventError extends HoldfastError {
  /** The key of the occurrence. */
  declare readonly idempotencyKey?: string;
  /** The occurrence that there is none of. */
  declare readonly occurrenceId?: string;
  /** The process of the delivery that there is none of. */
  declare readonly processId?: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_HOST_EVENT' });
  }
}

/** The commit is larger than `commitLimits` allow; nothing was sent. */
export class CommitTooLargeError extends HoldfastError {
  /** Which limit. */
  declare readonly limit: 'bytes' | 'nodes';
  /** How much there may be. */
  declare readonly max: number;
  /** How much there is. */
  declare readonly actual: number;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_COMMIT_TOO_LARGE' });
  }
}

/** The store was opened for reading. */
export class ReadOnlyStoreError extends HoldfastError {
  /** What was called. */
  declare readonly method: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_READ_ONLY' });
  }
}

/** There is no store to be read; none was made. */
export class StoreNotFoundError extends HoldfastError {
  /** Where. */
  declare readonly path: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_STORE_NOT_FOUND' });
  }
}

/** A process, its events, its handles or its lease are not what a call needs; nothing was written. */
export class ProcessRegistryError extends HoldfastError {
  /** The process. */
  declare readonly processId?: string;
  /** The type of the event. */
  declare readonly eventType?: string;
  /** The key of the event. */
  declare readonly replayKey?: string;
  /** The JSON pointer that leads nowhere. */
  declare readonly pointer?: string;
  /** Whose lease it is. */
  declare readonly ownerId?: string;
  /** Until when. */
  declare readonly expiresAtEpochMs?: number;
  /** The session that has no handle. */
  declare readonly sessionId?: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_GRAPH_PROCESS_REGISTRY' });
  }
}

/** A bug in the engine ended this call; nothing of it was kept, and the store goes on. */
export class InternalPanicError extends HoldfastError {
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_PANIC' });
  }
}

/** The file is no database of this kind that this version can use; it was not touched. `hfCode` is `HF_FORMAT_TOO_NEW` for a newer one. */
export class UnsupportedSchemaError extends HoldfastError {
  /** What was to be opened. */
  declare readonly kind: string;
  /** Whether a newer build wrote it, an older one without a migration, or something else; `empty`: nothing is in it, and opening it to write makes a store. */
  declare readonly reason: 'newer' | 'older' | 'foreign' | 'empty';
  /** The version that the file has. */
  declare readonly found: number;
  /** The version that this build writes. */
  declare readonly expected: number;
  constructor(message: string, options?: StoreErrorOptions & { hfCode?: HoldfastErrorCode }) {
    super(message, { ...options, hfCode: options?.hfCode ?? 'HF_GRAPH_UNSUPPORTED_SCHEMA' });
  }
}

/** Any other failure of the disk or of the database. */
export class StoreIoError extends HoldfastError {
  constructor(message: string, options?: StoreErrorOptions & { hfCode?: HoldfastErrorCode }) {
    super(message, { ...options, hfCode: options?.hfCode ?? 'HF_IO' });
  }
}

type GraphErrorClass = new (message: string, options?: HoldfastErrorOptions) => HoldfastError;
const OWN: Readonly<Record<string, GraphErrorClass>> = {
  SessionBindingMismatchError,
  HeadRevisionConflictError,
  RuntimeTurnCommitConflictError,
  QueuedWorkClaimExpiredError,
  UnsupportedReadScopeError,
  UnsupportedRecordSchemaVersionError,
  NodeIdCollisionError,
  UnknownLeafError,
  GraphCycleError,
  GraphCorruptError,
  MissingBlobError,
  BlobCorruptError,
  RecordDecodeError,
  QueueRowCorruptError,
  EffectReplayError,
  HostEventError,
  CommitTooLargeError,
  ReadOnlyStoreError,
  StoreNotFoundError,
  ProcessRegistryError,
  InternalPanicError,
  UnsupportedSchemaError,
  StoreIoError,
};
const EFFECT_CODES = ERROR_CODES.filter((code) => code.startsWith('HF_GRAPH_EFFECT_REPLAY_'));
const byCode = new Map<HoldfastErrorCode, GraphErrorClass>([
  ['HF_FORMAT_TOO_NEW', UnsupportedSchemaError],
  ['HF_DATABASE', StoreIoError],
  ...EFFECT_CODES.map((code) => [code, EffectReplayError] as const),
]);
for (const errorClass of [InvalidArgumentError, MigrationError, StoreBusyError, StoreFullError, StoreCorruptError, StoreClosedError]) {
  byCode.set(new errorClass('').hfCode, errorClass);
}
for (const [name, errorClass] of Object.entries(OWN)) {
  markClass(errorClass, name);
  byCode.set(new (errorClass as new (message: string) => HoldfastError)('').hfCode, errorClass);
}

/**
 * The same failure as the class of its code, with `more` about it. What is no error of holdfast, or has a code without a class here, passes
 * unchanged.
 *
 * @internal
 */
export function asGraphError(error: unknown, more: Readonly<Record<string, unknown>> = {}): unknown {
  if (!(error instanceof HoldfastError)) return error;
  const ErrorClass = byCode.get(error.hfCode);
  if (ErrorClass === undefined || (error as object) instanceof ErrorClass) return error;
  const { code, hfCode, ...own } = error;
  const message = 'sqliteCode' in own && hfCode !== 'HF_BUSY' ? `store backend error: ${error.message}` : error.message;
  const options: HoldfastErrorOptions = { code, hfCode, fields: { ...own, ...more } };
  if ('cause' in error) options.cause = error.cause;
  const made = new ErrorClass(message, options);
  if (error.stack !== undefined) made.stack = error.stack.replace(error.message, message);
  return made;
}
