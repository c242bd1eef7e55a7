/** The error classes of the module. Each has one `hfCode`, whoever raises it; `asLifecycleError` finds the class of a failure by it. */
import { HoldfastError, markClass, type HoldfastErrorCode, type HoldfastErrorOptions } from '../errors';
import { InvalidArgumentError, MigrationError, StoreBusyError, StoreClosedError, StoreCorruptError, StoreFullError } from '../store-errors';
import type { ReactionKey, SessionId } from './word-types';

export { InvalidArgumentError, MigrationError, StoreBusyError, StoreClosedError, StoreCorruptError, StoreFullError } from '../store-errors';

/** Details of a new error: as of {@link HoldfastError}, but its code is known. */
export type LifecycleErrorOptions = Omit<HoldfastErrorOptions, 'hfCode'>;

/** What the errors about one session have besides. */
interface AboutSession {
  /** The operation that failed: `spawn`, `kill`, `restore`, `get`, `send` … */
  readonly op?: string;
  readonly sessionId?: SessionId;
  /** The part of the operation that failed: `workspace`, `agent`, `runtime`, `completed` … */
  readonly step?: string;
}

/** There is no such session. */
export class SessionNotFoundError extends HoldfastError implements AboutSession {
  declare readonly op?: string;
  declare readonly sessionId?: SessionId;
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_SESSION_NOT_FOUND' });
  }
}

/** Only a session that has ended can be restored. */
export class SessionNotRestorableError extends HoldfastError implements AboutSession {
  declare readonly op?: string;
  declare readonly sessionId?: SessionId;
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_SESSION_NOT_RESTORABLE' });
  }
}

/** The session has neither a conversation nor a prompt to go on from. */
export class NothingToResumeError extends HoldfastError implements AboutSession {
  declare readonly op?: string;
  declare readonly sessionId?: SessionId;
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_NOTHING_TO_RESUME' });
  }
}

/** The session has no runtime handle or no workspace yet, so it cannot be torn down; nothing was touched. `force` ends it all the same. */
export class IncompleteHandleError extends HoldfastError implements AboutSession {
  declare readonly op?: string;
  declare readonly sessionId?: SessionId;
  /** What is empty. */
  declare readonly missing: ('runtimeHandleId' | 'workspacePath')[];
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_INCOMPLETE_HANDLE' });
  }
}

/** The session was ended while it was being started. */
export class SessionTerminatedError extends HoldfastError implements AboutSession {
  declare readonly op?: string;
  declare readonly sessionId?: SessionId;
  declare readonly step?: string;
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_SESSION_TERMINATED' });
  }
}

/** Another operation on the session is in progress; try again when it is through. */
export class SessionBusyError extends HoldfastError implements AboutSession {
  declare readonly op?: string;
  declare readonly sessionId?: SessionId;
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_SESSION_BUSY' });
  }
}

/** A port failed, or answered with something else than it promises. `cause` is what it threw, or the reason of the signal that ended the call. */
export class PortError extends HoldfastError implements AboutSession {
  declare readonly op?: string;
  declare readonly sessionId?: SessionId;
  declare readonly step?: string;
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_PORT_FAILED' });
  }
}

/** A message that could not be delivered. */
export interface DeliveryFailure {
  sessionId: SessionId;
  reaction: ReactionKey;
  /** Whom it was for. */
  to: 'agent' | 'human';
  /** What the port threw. */
  cause: unknown;
}

/** Messages could not be delivered. What they are about *is* stored, and so are they: the next tick tries again. */
export class ReactionDeliveryError extends HoldfastError implements AboutSession {
  declare readonly sessionId?: SessionId;
  /** All that could not be delivered in this call. */
  declare readonly failures: DeliveryFailure[];
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_REACTION_DELIVERY_FAILED' });
  }
}

/** The format does not allow what was to be stored; nothing was. */
export class ConstraintError extends HoldfastError {
  declare readonly table?: string;
  declare readonly column?: string;
  /** Which kind of rule was broken. */
  declare readonly constraint?: 'check' | 'foreign_key' | 'unique' | 'not_null';
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_CONSTRAINT' });
  }
}

/** The session was written by somebody else since it was read; nothing was written. Read it again. */
export class StaleRecordError extends HoldfastError {
  /** The revision that was expected. */
  declare readonly expected: number;
  /** The revision that is stored. */
  declare readonly actual?: number;
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_STALE_RECORD' });
  }
}

/** Events after `after` are no longer in the log. Read the records, and go on after `lostTo`. */
export class ChangeLogTruncatedError extends HoldfastError {
  declare readonly after: number;
  /** The first seq that is still there; 0 if none is. */
  declare readonly oldestSeq: number;
  /** The first and the last seq of what is gone. */
  declare readonly lostFrom: number;
  declare readonly lostTo: number;
  /** The named consumer that it is gone for. */
  declare readonly consumer?: string;
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_CHANGE_LOG_TRUNCATED' });
  }
}

/** A reader was too slow for what is published. Read on from `lastSeq` in the log, and subscribe anew. */
export class SubscriberOverflowError extends HoldfastError {
  /** The seq of the last event that was handed out. */
  declare readonly lastSeq: number;
  /** How many events could wait. */
  declare readonly buffer: number;
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_LIFECYCLE_SUBSCRIBER_OVERFLOW' });
  }
}

/** The database was written by a newer version of holdfast; it was not touched. */
export class SchemaTooNewError extends HoldfastError {
  /** The version of its tables. */
  declare readonly found?: number;
  /** The newest that this program knows. */
  declare readonly expected?: number;
  constructor(message: string, options?: LifecycleErrorOptions) {
    super(message, { ...options, hfCode: 'HF_FORMAT_TOO_NEW' });
  }
}

const CLASSES = {
  SessionNotFoundError,
  SessionNotRestorableError,
  NothingToResumeError,
  IncompleteHandleError,
  SessionTerminatedError,
  SessionBusyError,
  PortError,
  ReactionDeliveryError,
  ConstraintError,
  StaleRecordError,
  ChangeLogTruncatedError,
  SubscriberOverflowError,
  SchemaTooNewError,
};
const SHARED = [InvalidArgumentError, MigrationError, StoreBusyError, StoreFullError, StoreCorruptError, StoreClosedError];
type LifecycleErrorClass = new (message: string, options?: LifecycleErrorOptions) => HoldfastError;
const byCode = new Map<HoldfastErrorCode, LifecycleErrorClass>();
for (const [name, errorClass] of Object.entries<LifecycleErrorClass>(CLASSES)) {
  markClass(errorClass, name);
  byCode.set(new errorClass('').hfCode, errorClass);
}
for (const errorClass of SHARED) byCode.set(new errorClass('').hfCode, errorClass);

/**
 * The same failure as the class of its code. What is no error of holdfast, or has a code without a class here, passes unchanged.
 *
 * @internal
 */
export function asLifecycleError(error: unknown): unknown {
  if (!(error instanceof HoldfastError)) return error;
  const errorClass = byCode.get(error.hfCode);
  const isDone = errorClass === undefined || (error as object) instanceof errorClass;
  return isDone ? error : withMessage(error, error.message);
}

/**
 * The same failure with another message, and more about it; what it was is its `cause` if the message differs.
 *
 * @internal
 */
export function withMessage(error: HoldfastError, message: string, fields: Readonly<Record<string, unknown>> = {}): HoldfastError {
  const ErrorClass = byCode.get(error.hfCode);
  const own = Object.fromEntries(Object.entries(error).filter(([name]) => name !== 'code' && name !== 'hfCode'));
  const options: LifecycleErrorOptions = { code: error.code, fields: { ...own, ...fields } };
  if (message !== error.message) options.cause = error;
  else if ('cause' in error) options.cause = error.cause;
  const made = ErrorClass === undefined ? new HoldfastError(message, { ...options, hfCode: error.hfCode }) : new ErrorClass(message, options);
  if (message === error.message && error.stack !== undefined) made.stack = error.stack;
  return made;
}
