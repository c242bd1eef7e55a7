/** The errors that every store in a database has, whichever module it belongs to. Each has one `hfCode`. */
import { HoldfastError, markClass, type HoldfastErrorOptions } from './errors';

/** Details of a new error: as of {@link HoldfastError}, but its code is known. */
export type StoreErrorOptions = Omit<HoldfastErrorOptions, 'hfCode'>;

/** An argument is not what it must be; nothing was touched. */
export class InvalidArgumentError extends HoldfastError {
  /** Which one. */
  declare readonly argument?: string;
  /** What it must be. */
  declare readonly expected?: string;
  /** What came instead. */
  declare readonly received?: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_INVALID_ARGUMENT' });
  }
}
markClass(InvalidArgumentError, 'InvalidArgumentError');

/** Others held the database for longer than `busyTimeoutMs`; nothing was written, the same call can be made again. */
export class StoreBusyError extends HoldfastError {
  /** The call can be made again as it was. */
  readonly retryable = true;
  /** How long it waited, where that is known. */
  declare readonly waitedMs?: number;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_BUSY' });
  }
}
markClass(StoreBusyError, 'StoreBusyError');

/** The disk is full; nothing was written. */
export class StoreFullError extends HoldfastError {
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_DISK_FULL' });
  }
}
markClass(StoreFullError, 'StoreFullError');

/** The database is damaged. */
export class StoreCorruptError extends HoldfastError {
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_CORRUPT' });
  }
}
markClass(StoreCorruptError, 'StoreCorruptError');

/** The store is closed, or was closed while the call waited. */
export class StoreClosedError extends HoldfastError {
  /** The operation of a session that was under way, if one was. */
  declare readonly op?: string;
  /** The session that it was about. */
  declare readonly sessionId?: string;
  /** The part of the operation. */
  declare readonly step?: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_CLOSED' });
  }
}
markClass(StoreClosedError, 'StoreClosedError');

/** A step that brings the tables to the version of this program failed; they are as they were. */
export class MigrationError extends HoldfastError {
  /** The file; of PostgreSQL there is `schema` instead. */
  declare readonly path?: string;
  declare readonly schema?: string;
  /** The version of the tables. */
  declare readonly found?: number;
  /** The newest that this program knows. */
  declare readonly expected?: number;
  /** The step that failed: its number and name. */
  declare readonly step?: string;
  constructor(message: string, options?: StoreErrorOptions) {
    super(message, { ...options, hfCode: 'HF_MIGRATION_FAILED' });
  }
}
markClass(MigrationError, 'MigrationError');
