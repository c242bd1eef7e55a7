/**
 * The error classes of holdfast, and the way back from the addon's failure objects to them.
 *
 * `instanceof` goes by a registered symbol, not by the prototype chain: a test runner's other realm, or a second copy of the
 * package, has other class objects for the same error.
 */

import type { StandardSchemaV1 } from './entity/standard-schema';

/**
 * Every stable error code, in the order of the engine's own list (`src/error.rs`); a test compares the two.
 * `docs/errors.md` has a section for each, with cause and remedy.
 */
export const ERROR_CODES = [
  'HF_CLOSED',
  'HF_POISONED',
  'HF_DISK_FULL',
  'HF_IO',
  'HF_BUSY',
  'HF_LOCK_TIMEOUT',
  'HF_INVALID_ARGUMENT',
  'HF_FORMAT_TOO_NEW',
  'HF_PANIC',
  'HF_CORRUPT',
  'HF_UNAVAILABLE',
  'HF_DATABASE',
  'HF_MIGRATION_FAILED',
  'HF_RUNTIME_INVALID_JSON',
  'HF_RUNTIME_INVALID_ENVELOPE',
  'HF_RUNTIME_INVALID_DATA',
  'HF_RUNTIME_FILE_TOO_LARGE',
  'HF_RUNTIME_PATH_ESCAPES',
  'HF_RUNTIME_TEAM_MISMATCH',
  'HF_RUNTIME_BATCH_STALE',
  'HF_RUNTIME_BATCH_EXISTS',
  'HF_RUNTIME_BATCH_NOT_FOUND',
  'HF_RUNTIME_BATCH_PENDING',
  'HF_RUNTIME_LOCK_LOST',
  'HF_RUNTIME_INVALID_MANIFEST',
  'HF_RUNTIME_INVALID_RECEIPTS',
  'HF_RUNTIME_INVALID_TRANSACTIONS',
  'HF_RUNTIME_TRANSACTION_NOT_ACTIVE',
  'HF_RUNTIME_TRANSACTION_NOT_FOUND',
  'HF_RUNTIME_TRANSACTION_STALE',
  'HF_RUNTIME_INVALID_TOMBSTONES',
  'HF_RUNTIME_STALE_EVIDENCE',
  'HF_ENTITY_KIND_INVALID',
  'HF_ENTITY_KIND_DUPLICATE',
  'HF_ENTITY_READ_INVALID',
  'HF_ENTITY_STATE_SCHEMA_INVALID',
  'HF_ENTITY_STORE_UNBOUND',
  'HF_ENTITY_NO_STATE',
  'HF_ENTITY_SUBSCRIBE_INVALID',
  'HF_ENTITY_DERIVER_INVALID',
  'HF_ENTITY_DERIVER_CONFLICT',
  'HF_ENTITY_VALIDATION',
  'HF_ENTITY_STORE_INPUT_INVALID',
  'HF_ENTITY_TABLE_MISSING',
  'HF_ENTITY_APPEND_FAILED',
  'HF_ENTITY_WINDOW_INVALID',
  'HF_PKG_INTEGRITY',
  'HF_PKG_UNSAFE_ENTRY',
  'HF_PKG_ARCHIVE',
  'HF_PKG_PACK',
  'HF_PKG_LAYOUT',
  'HF_PKG_BUN',
  'HF_PKG_DEP_MISSING',
  'HF_PKG_ENTRY_MISSING',
  'HF_PKG_BAD_HASH',
  'HF_PKG_BAD_NAME',
  'HF_PKG_LOCK_TIMEOUT',
  'HF_PKG_NO_BACKEND',
  'HF_PKG_LOCKFILE',
  'HF_LIFECYCLE_SESSION_NOT_FOUND',
  'HF_LIFECYCLE_SESSION_NOT_RESTORABLE',
  'HF_LIFECYCLE_NOTHING_TO_RESUME',
  'HF_LIFECYCLE_INCOMPLETE_HANDLE',
  'HF_LIFECYCLE_SESSION_TERMINATED',
  'HF_LIFECYCLE_SESSION_BUSY',
  'HF_LIFECYCLE_PORT_FAILED',
  'HF_LIFECYCLE_REACTION_DELIVERY_FAILED',
  'HF_LIFECYCLE_CONSTRAINT',
  'HF_LIFECYCLE_STALE_RECORD',
  'HF_LIFECYCLE_CHANGE_LOG_TRUNCATED',
  'HF_LIFECYCLE_SUBSCRIBER_OVERFLOW',
  'HF_GRAPH_SESSION_BINDING_MISMATCH',
  'HF_GRAPH_HEAD_REVISION_CONFLICT',
  'HF_GRAPH_RUNTIME_TURN_COMMIT_CONFLICT',
  'HF_GRAPH_QUEUED_WORK_CLAIM_EXPIRED',
  'HF_GRAPH_UNSUPPORTED_READ_SCOPE',
  'HF_GRAPH_UNSUPPORTED_RECORD_SCHEMA_VERSION',
  'HF_GRAPH_UNSUPPORTED_SCHEMA',
  'HF_GRAPH_NODE_ID_COLLISION',
  'HF_GRAPH_UNKNOWN_LEAF',
  'HF_GRAPH_CYCLE',
  'HF_GRAPH_CORRUPT',
  'HF_GRAPH_MISSING_BLOB',
  'HF_GRAPH_BLOB_CORRUPT',
  'HF_GRAPH_RECORD_DECODE',
  'HF_GRAPH_QUEUE_ROW_CORRUPT',
  'HF_GRAPH_COMMIT_TOO_LARGE',
  'HF_GRAPH_READ_ONLY',
  'HF_GRAPH_STORE_NOT_FOUND',
  'HF_GRAPH_PROCESS_REGISTRY',
  'HF_GRAPH_EFFECT_REPLAY_MISSING',
  'HF_GRAPH_EFFECT_REPLAY_HASH_CONFLICT',
  'HF_GRAPH_EFFECT_REPLAY_LEASE_LOST',
  'HF_GRAPH_EFFECT_REPLAY_KEY_MISSING',
  'HF_GRAPH_EFFECT_REPLAY_CORRUPT_ROW',
  'HF_GRAPH_EFFECT_REPLAY_STORE',
  'HF_GRAPH_HOST_EVENT',
] as const;

/** A stable error code: what {@link HoldfastError.hfCode} holds. */
export type HoldfastErrorCode = (typeof ERROR_CODES)[number];

/** Details of a new {@link HoldfastError}. */
export interface HoldfastErrorOptions {
  /** The stable code. */
  hfCode: HoldfastErrorCode;
  /** Node's own code of an I/O failure (`ENOSPC`). Default: `hfCode`. */
  code?: string;
  /** The error that led to this one. */
  cause?: unknown;
  /** Facts about the failure, which become own properties of the error. They never replace a property that it has already. */
  fields?: Readonly<Record<string, unknown>>;
}

/**
 * The class of every error that holdfast itself raises; the more specific ones extend it. Errors that a caller's own callback
 * throws are not wrapped: they arrive as the same object.
 */
export class HoldfastError extends Error {
  /** Node's own code where the operating system refused (`EACCES`, `ENOSPC`), else the same as `hfCode`. */
  readonly code: string;
  /** The stable code of holdfast, the same on every platform. Programs decide by it. */
  readonly hfCode: HoldfastErrorCode;
  /** The file or folder of an I/O failure. */
  declare readonly path?: string;
  /** The operation that failed, of an I/O failure (`rename`). */
  declare readonly syscall?: string;
  /** The operating system's error number, negative as in Node's own errors, of an I/O failure. */
  declare readonly errno?: number;

  /**
   * @param message What happened, to what, and what to do.
   * @param options The stable code, and further details.
   */
  constructor(message: string, options: HoldfastErrorOptions) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = options.code ?? options.hfCode;
    this.hfCode = options.hfCode;
    defineFields(this, options.fields);
  }
}
markClass(HoldfastError, 'HoldfastError');

/** Why the content of a versioned JSON file was refused; the checks run in this order, except that `future_schema` comes before `invalid_data`. */
export type VersionedJsonStoreFailureReason = 'invalid_json' | 'invalid_envelope' | 'invalid_data' | 'future_schema';

const STORE_CODES: Readonly<Record<VersionedJsonStoreFailureReason, HoldfastErrorCode>> = {
  invalid_json: 'HF_RUNTIME_INVALID_JSON',
  invalid_envelope: 'HF_RUNTIME_INVALID_ENVELOPE',
  invalid_data: 'HF_RUNTIME_INVALID_DATA',
  future_schema: 'HF_FORMAT_TOO_NEW',
};

/** The content of a versioned JSON file cannot be used. The file itself is left as it is. */
export class VersionedJsonStoreError extends HoldfastError {
  /** Why the content was refused. */
  readonly reason: VersionedJsonStoreFailureReason;
  /** Where a copy of the bad bytes was put, or `null` if that copy could not be made. */
  readonly quarantinePath: string | null;

  /**
   * @param message What is wrong with which file.
   * @param reason Why the content was refused; it decides the `hfCode`.
   * @param quarantinePath The copy of the bad bytes, or `null`.
   */
  constructor(message: string, reason: VersionedJsonStoreFailureReason, quarantinePath: string | null) {
    super(message, { hfCode: STORE_CODES[reason] ?? 'HF_RUNTIME_INVALID_DATA' });
    this.reason = reason;
    this.quarantinePath = quarantinePath;
  }
}
markClass(VersionedJsonStoreError, 'VersionedJsonStoreError');

/** Why evidence of a run was refused. */
export type RuntimeStaleEvidenceReason = 'missing_run_id' | 'current_run_missing' | 'run_mismatch' | 'run_tombstoned';

/** What a piece of evidence about a run is. */
export type RuntimeEvidenceKind =
  | 'sse_event'
  | 'permission_reply'
  | 'delivery_call'
  | 'prompt_error'
  | 'bootstrap_checkin'
  | 'launch_checkpoint'
  | 'heartbeat'
  | 'bridge_result'
  | 'recovery_result';

/** Evidence was refused because its run is not, or no longer, the current one. Its `hfCode` is `HF_RUNTIME_STALE_EVIDENCE`. */
export class RuntimeStaleEvidenceError extends HoldfastError {
  /** Why the evidence was refused. */
  readonly reason: RuntimeStaleEvidenceReason;
  /** What the evidence was. */
  readonly evidenceKind: RuntimeEvidenceKind;
  /** The run that the evidence named, or `null` if it named none. */
  readonly runId: string | null;

  /**
   * @param message What was refused.
   * @param reason Why.
   * @param evidenceKind What the evidence was.
   * @param runId The run that it named.
   */
  constructor(message: string, reason: RuntimeStaleEvidenceReason, evidenceKind: RuntimeEvidenceKind, runId: string | null) {
    super(message, { hfCode: 'HF_RUNTIME_STALE_EVIDENCE' });
    this.reason = reason;
    this.evidenceKind = evidenceKind;
    this.runId = runId;
  }
}
markClass(RuntimeStaleEvidenceError, 'RuntimeStaleEvidenceError');

/** A `relativePath` leaves the runtime directory or names a control file. Nothing was touched. Its `hfCode` is `HF_RUNTIME_PATH_ESCAPES`. */
export class RuntimeStorePathError extends HoldfastError {
  /** The path as the descriptor has it. */
  readonly relativePath: string;

  /**
   * @param message What is wrong with the path.
   * @param relativePath The path as the descriptor has it.
   */
  constructor(message: string, relativePath: string) {
    super(message, { hfCode: 'HF_RUNTIME_PATH_ESCAPES' });
    this.relativePath = relativePath;
  }
}
markClass(RuntimeStorePathError, 'RuntimeStorePathError');

/**
 * What is known of a batch whose publication did not finish: `committed` = it stands and will be published; `rolled_back` = it is
 * being undone; `unknown` = what is on disk decides.
 */
export type RuntimeStoreBatchOutcome = 'committed' | 'rolled_back' | 'unknown';

/**
 * A batch has left its mark on disk but its publication, or its undoing, is not finished. The next `writeBatch` or `recover()`
 * on the directory finishes it; do not write the same data again before that. Its `hfCode` is `HF_RUNTIME_BATCH_PENDING`.
 */
export class RuntimeStoreBatchPendingError extends HoldfastError {
  /** The batch, as it stands (or will stand) in the receipts. */
  readonly batchId: string;
  /** What is known of the outcome; `undefined` if nothing was said. */
  readonly outcome: RuntimeStoreBatchOutcome | undefined;
  /** What went wrong, and who finishes or undoes the batch. */
  declare readonly detail?: string;

  /**
   * @param message What is pending.
   * @param batchId The batch.
   * @param outcome What is known of its outcome.
   */
  constructor(message: string, batchId: string, outcome?: RuntimeStoreBatchOutcome) {
    super(message, { hfCode: 'HF_RUNTIME_BATCH_PENDING' });
    this.batchId = batchId;
    this.outcome = outcome;
  }
}
markClass(RuntimeStoreBatchPendingError, 'RuntimeStoreBatchPendingError');

/**
 * A schema without an error class of its own refused a value: a Standard Schema the state that `apply` resolved to, or
 * `EntityChangedSchema` a payload. Its message is that of the first issue, its `hfCode` is `HF_ENTITY_VALIDATION`.
 */
export class EntityValidationError extends HoldfastError {
  /** Everything that is wrong with the value. */
  readonly issues: ReadonlyArray<StandardSchemaV1.Issue>;

  /** @param issues What the schema found. */
  constructor(issues: ReadonlyArray<StandardSchemaV1.Issue>) {
    const first: unknown = issues[0]?.message;
    super(typeof first === 'string' && first !== '' ? first : 'the schema refused the value', { hfCode: 'HF_ENTITY_VALIDATION' });
    this.issues = issues;
  }
}
markClass(EntityValidationError, 'EntityValidationError');

/** The packages module refused something; its `hfCode` begins with `HF_PKG_` and says what. */
export class PackageStoreError extends HoldfastError {}
markClass(PackageStoreError, 'PackageStoreError');

/**
 * Makes a real `TypeError` or `RangeError` that is a {@link HoldfastError} too: it has the codes, and the `instanceof` of both holds.
 *
 * @internal
 */
export function builtinError(
  errorClass: TypeErrorConstructor | RangeErrorConstructor,
  message: string,
  options: HoldfastErrorOptions,
): HoldfastError {
  const error = new errorClass(message, 'cause' in options ? { cause: options.cause } : undefined) as Error & HoldfastError;
  Object.defineProperty(error, Symbol.for('holdfast.error.HoldfastError'), { value: true });
  Object.assign(error, { code: options.code ?? options.hfCode, hfCode: options.hfCode });
  defineFields(error, options.fields);
  Error.captureStackTrace(error, builtinError);
  return error;
}

/**
 * How a failure crosses from the addon: a plain object, because an asynchronous call of the addon cannot reject with one of the classes.
 *
 * @internal
 */
export interface Failure {
  /** The name of the class to make. */
  class: string;
  /** Node's own code, or the same as `hfCode`. */
  code: string;
  /** The stable code. */
  hfCode: string;
  /** The message for people. */
  message: string;
  /** Further properties of the error. */
  fields: Record<string, unknown>;
}

/**
 * Tells whether what a call of the addon returned is a {@link Failure} instead of its result.
 *
 * @internal
 */
export function isFailure(value: unknown): value is Failure {
  if (typeof value !== 'object' || value === null) return false;
  const { class: className, code, hfCode, message, fields } = value as Record<string, unknown>;
  return (
    typeof className === 'string' &&
    typeof code === 'string' &&
    typeof hfCode === 'string' &&
    typeof message === 'string' &&
    typeof fields === 'object' &&
    fields !== null
  );
}

/**
 * Makes the error that `failure` stands for. A class name that this version does not know gives a {@link HoldfastError}.
 *
 * @internal
 */
export function fromFailure(failure: Failure): HoldfastError {
  const error = construct(failure);
  // The addon has the last word on the codes: it alone knows Node's code of an I/O failure.
  Object.assign(error, { code: failure.code, hfCode: failure.hfCode });
  defineFields(error, failure.fields);
  return error;
}

function construct({ class: className, message, hfCode, fields }: Failure): HoldfastError {
  switch (className) {
    case 'VersionedJsonStoreError':
      return new VersionedJsonStoreError(
        message,
        fields.reason as VersionedJsonStoreFailureReason,
        (fields.quarantinePath ?? null) as string | null,
      );
    case 'RuntimeStorePathError':
      return new RuntimeStorePathError(message, fields.relativePath as string);
    case 'RuntimeStoreBatchPendingError':
      return new RuntimeStoreBatchPendingError(
        message,
        fields.batchId as string,
        (fields.outcome ?? undefined) as RuntimeStoreBatchOutcome | undefined,
      );
    case 'TypeError':
    case 'RangeError':
      return builtinError(className === 'TypeError' ? TypeError : RangeError, message, { hfCode: hfCode as HoldfastErrorCode });
    default: {
      const ErrorClass = hfCode.startsWith('HF_PKG_') ? PackageStoreError : HoldfastError;
      return new ErrorClass(message, { hfCode: hfCode as HoldfastErrorCode });
    }
  }
}

function defineFields(error: Error, fields: Readonly<Record<string, unknown>> | undefined): void {
  for (const [name, value] of Object.entries(fields ?? {})) {
    // `in`, not own: a field called `name` or `toString` must not hide the class's.
    if (name in error) continue;
    Object.defineProperty(error, name, { value, enumerable: true, configurable: true, writable: true });
  }
}

/**
 * Gives a class its `name`, its marker, and an `instanceof` that goes by the marker.
 *
 * @internal
 */
export function markClass(errorClass: { readonly prototype: Error }, name: string): void {
  const marker = Symbol.for(`holdfast.error.${name}`);
  Object.defineProperty(errorClass.prototype, 'name', { value: name, configurable: true, writable: true });
  Object.defineProperty(errorClass.prototype, marker, { value: true });
  Object.defineProperty(errorClass, Symbol.hasInstance, {
    value(this: unknown, value: unknown): boolean {
      // A caller's own subclass inherits this method but not a marker of its own: the ordinary rule is the right one for it.
      if (this !== errorClass) return Function.prototype[Symbol.hasInstance].call(this as () => void, value);
      return typeof value === 'object' && value !== null && marker in value;
    },
  });
}
