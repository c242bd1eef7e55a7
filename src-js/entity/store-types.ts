/** The shapes of the transition store: what a handle needs of any store, and what the stores of holdfast add. */
import type { EntityChanged, EntityChangedUnsubscribe, Logger } from './types';

// ── what a handle needs ──

/** One changed field of one change. */
export interface TransitionAppend {
  /** The field, masked. */
  field: string;
  /** The text of the value before, masked; `null` = the entity did not exist. */
  fromValue: string | null;
  /** The text of the value after, masked. */
  toValue: string;
}

/** A transaction of a store. Only the store knows what it is. */
export type EntityTx = unknown;

/** Where the history of field changes goes. Programs may bring their own, in plain JavaScript. */
export interface EntityStore {
  /** Runs `fn` in a transaction, which is undone if `fn` rejects. */
  runInTransaction<R>(fn: (tx: EntityTx) => Promise<R>): Promise<R>;
  /** Adds one row per changed field; the store gives them their time. */
  appendTransitions(args: { tx: EntityTx; kind: string; entityId: string; transitions: ReadonlyArray<TransitionAppend> }): Promise<void>;
  /** The time of the latest row of the field whose `toValue` is the text of `currentValue`, or `null`. */
  inStateSince(args: { kind: string; entityId: string; field: string; currentValue: unknown }): Promise<Date | null>;
  /** How many rows of the field are of `now - windowMs` (milliseconds) or later. */
  transitionCount(args: { kind: string; entityId: string; field: string; windowMs: number; now: Date }): Promise<number>;
}

// ── making a store ──

/** A drizzle database over `pg`, as far as holdfast looks at it. */
export type SafeDatabase<S = unknown> = {
  transaction: (...args: never[]) => unknown;
  execute: (...args: never[]) => unknown;
  $client?: unknown;
  /** The type of the schema; never looked at. */
  readonly $schema?: S;
};

/** How to encrypt connections to Postgres. */
export interface EntityStoreTls {
  /** Certificates of the authorities to trust, PEM. Default: those of the system. */
  ca?: string | Uint8Array | ReadonlyArray<string | Uint8Array>;
  /** The client's certificate, PEM. */
  cert?: string | Uint8Array;
  /** The client's private key, PEM. */
  key?: string | Uint8Array;
  /** `false` takes any certificate. Default `true`. */
  rejectUnauthorized?: boolean;
  /** The name that the server's certificate must have. Default: the host. */
  servername?: string;
}

/** A file of an embedded database (SQLite), created with its folders if it does not exist. Processes may share it. */
export interface EntityStorePathTarget {
  path: string;
}

/** A database in memory, private to the store and gone with it. */
export interface EntityStoreMemoryTarget {
  memory: true;
}

/** A Postgres database. Its tables are made on first use. */
export interface EntityStorePostgresTarget {
  /** `postgres://user:password@host:port/database`. */
  connectionString: string;
  /** The schema of the tables, created if it does not exist. Default: the first one of the connection's search path. */
  schema?: string;
  /** Most connections at a time. Default 4. */
  poolSize?: number;
  /** `true` = encrypted, verified with the system's authorities. Default: what the connection string says. */
  ssl?: boolean | EntityStoreTls;
}

/** Where `createEntityStore` keeps the history. A value that fits several is taken for the first of: drizzle, path, memory, Postgres. */
export type EntityStoreTarget = SafeDatabase | EntityStorePathTarget | EntityStoreMemoryTarget | EntityStorePostgresTarget;

/**
 * What of a change survives what:
 *
 * - `after-commit`: the history is written after the owner's write, the change is sent after that. A crash in between loses them.
 * - `outbox`: the change is recorded together with its history, and sent again after a crash or a failed delivery: at least once, always
 *   with the same `changeId`. A crash between the owner's write and the record loses both.
 * - `journal`: as `outbox`, and an intent is recorded before the owner's write, from which a crash in between is completed.
 */
export type EntityDurability = 'after-commit' | 'outbox' | 'journal';

/** When old rows of the history are deleted. The newest row of every field of every entity always stays. */
export interface EntityRetention {
  /** Rows older than this, in milliseconds. Default: no limit. */
  maxAgeMs?: number;
  /** Rows beyond this number, of each field of each entity. Default: no limit. */
  maxRowsPerField?: number;
  /** How often to look, in milliseconds. Default: only when `prune()` is called. */
  everyMs?: number;
}

/** Options of `createEntityStore`. */
export interface EntityStoreOptions {
  /**
   * What to do about the tables on first use: `auto` creates them and adds what is missing, `check` rejects with a list of what is
   * missing, `off` uses what is there. Default `auto`. With drizzle the application owns the tables, so this option changes nothing: it is
   * `off`, and `check` with `outbox` or `journal`.
   */
  migrate?: 'auto' | 'check' | 'off';
  /**
   * Drizzle only. `native`: holdfast's own connections, or reject; `delegate`: everything through the drizzle object; `auto` (the
   * default): native if that provably leads to the same table.
   */
  driver?: 'auto' | 'native' | 'delegate';
  /** Default: `journal` with `path` and `connectionString`, `after-commit` with `memory` and drizzle. */
  durability?: EntityDurability;
  /**
   * Embedded only. `full` (the default): a promise resolves when its data survives a power cut. `normal`: it survives a crash of the
   * process; a power cut can take the last commits back, never part of one.
   */
  synchronous?: 'normal' | 'full';
  /**
   * Embedded only. What a file on NFS, SMB and the like leads to, where several hosts that write destroy it: `refuse` (the default) rejects with
   * `HF_INVALID_ARGUMENT`, `allow` takes it, for one host alone.
   */
  networkFileSystem?: 'refuse' | 'allow';
  /** Most rows in one commit, of changes that were waiting together; 1 or more. Default 1000. */
  maxBatchRows?: number;
  /** When old rows are deleted. Default: never. */
  retention?: EntityRetention;
  /**
   * Embedded only: the time of the rows, and what "now" is for everything that is asked of them. Default: the system's clock. The rows of
   * Postgres have the server's time.
   */
  clock?: () => Date;
  /** Gets warnings. Default: nobody. */
  logger?: Logger;
}

// ── what the stores of holdfast add ──

/** Which part of an entity's history to read. */
export interface HistoryQuery {
  /** The kind. */
  kind: string;
  /** The entity. */
  entityId: string;
  /** Only rows of this field. Default: all. */
  field?: string;
  /** Only rows of this time or later. */
  from?: Date;
  /** Only rows before this time. */
  to?: Date;
  /** Most rows of one page: 1 to 10000. Default 100. */
  limit?: number;
  /** Where the page before ended: its `cursor`. */
  cursor?: string;
}

/** One row of the history: a field got a value. */
export interface HistoryRow {
  /** Names the row. */
  id: string;
  /** The field. */
  field: string;
  /** The text of the value before; `null` = the entity did not exist. */
  fromValue: string | null;
  /** The text of the value after. */
  toValue: string;
  /** Whether secrets were masked in it. */
  masked: boolean;
  /** The change that wrote the row; `null` in rows of other programs. */
  changeId: string | null;
  /** When, in whole milliseconds. */
  at: Date;
}

/** A page of the history, newest row first. */
export interface HistoryPage {
  /** The rows. */
  rows: HistoryRow[];
  /** Asks for the next page; `null` = there is none. */
  cursor: string | null;
}

/** Whose field, and when. */
export interface TimeInStateQuery {
  /** The kind. */
  kind: string;
  /** The entity. */
  entityId: string;
  /** The field. */
  field: string;
  /** The beginning of the time. */
  from: Date;
  /** The end of the time. Default: now. */
  to?: Date;
}

/** For how long a field had a value. */
export interface TimeInState {
  /** The text of the value. */
  value: string;
  /** For how long, in milliseconds. */
  ms: number;
}

/** Whose field, and what counts as flapping. */
export interface FlappingQuery {
  /** The kind. */
  kind: string;
  /** The entity. */
  entityId: string;
  /** The field. */
  field: string;
  /** How many changes are flapping; 1 or more. */
  count: number;
  /** In how many of the last milliseconds. */
  windowMs: number;
}

/** Which changes to hear of, and until when. */
export interface EntityChangesOptions {
  /** Only changes of this kind. Default: all. */
  kind?: string;
  /** Ends it when it aborts, without an error. */
  signal?: AbortSignal;
}

/** Changes to iterate over. They are for one reader, and end by `break`, `return()`, their signal, or `close()` of the store. */
export interface EntityChanges extends AsyncIterableIterator<EntityChanged> {
  return(): Promise<IteratorResult<EntityChanged, undefined>>;
  /** The same as `return()`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What a store object has done since it was made, and what it has before it. */
export interface EntityStoreStats {
  /** Rows appended. */
  appended: number;
  /** Commits that took them: `appended / batches` rows each. */
  batches: number;
  /** Changes whose `fromValue` was not the last recorded value: history was lost, or another process wrote at the same time. */
  gaps: number;
  /** Recorded changes that are not delivered yet, of all processes. */
  pending: number;
  /** Changes of this process that could not be recorded yet: they wait in memory, and are tried again. */
  unfinished: number;
  /** Deliveries that were tried again. */
  redelivered: number;
  /** Changes completed after a crash. */
  recovered: number;
  /** Age of the oldest recorded change that is not delivered yet, in milliseconds; 0 without one. */
  lagMs: number;
  /** How far the database server's clock is ahead of this machine's, in milliseconds; `null` where there is no server. */
  clockSkewMs: number | null;
}

/** A store of holdfast. Nothing is opened before the first use. */
export interface NativeEntityStore extends EntityStore, AsyncDisposable {
  /**
   * Connects, makes or checks the tables, and completes what a crash left; on Postgres that takes some seconds where there is any. Every
   * other call does it, too. What cannot be completed now (a `read` that throws) is logged and tried again, see `stats().unfinished`.
   */
  ready(): Promise<void>;
  /**
   * Waits, at most 5 s, for mutations under way and for changes that could not be recorded yet, then lets go of everything. Twice is
   * harmless. Later calls reject with `HF_CLOSED`, before they change anything.
   *
   * @throws {HoldfastError} `HF_ENTITY_APPEND_FAILED`: changes that were made are lost, because they could not be recorded to the end (never
   *   with `journal`, which completes them at the next opening); the message names their entities. The store is closed all the same.
   */
  close(): Promise<void>;
  /** Reads an entity's history page by page, newest row first. */
  history(query: HistoryQuery): Promise<HistoryPage>;
  /** Deletes old rows by `retention`, at most 1000 in one transaction. `now` is the time to count ages from. Default: the clock. */
  prune(now?: Date): Promise<{ deleted: number }>;
  /** For how long a field had which value in a time, the longest first. A time before the first row counts for its `fromValue`. */
  timeInState(query: TimeInStateQuery): Promise<TimeInState[]>;
  /** Whether a field changed at least `count` times in the last `windowMs` milliseconds. */
  isFlapping(query: FlappingQuery): Promise<boolean>;
  /**
   * A store that appends in a transaction of the caller (a drizzle transaction, or a `pg` client in one), so that state and history
   * are committed together. It is for one transaction: make a handle over it inside, and drop both at its end.
   */
  withTransaction(tx: EntityTx): EntityStore;
  /**
   * The changes that are recorded from now on, to iterate over. Needs `outbox` or `journal`. On Postgres these are the changes of all
   * processes: their own at once, those of others as soon as the server tells of them, and after a broken connection those of the
   * last five minutes that were missed; each once, in the order in which they are heard of. What others record before the first
   * `ready()` after this call may be missed. An SQLite file tells of this process alone. `close()` ends it.
   *
   * @throws {RangeError} `HF_BUSY`, from `next()`: the reader fell 10,000 changes behind
   * @throws {Error} `HF_CLOSED`: the store is closed
   */
  changes(options?: EntityChangesOptions): EntityChanges;
  /** Calls `listener` with each change, as `changes()` yields them, a copy of its own. It does not keep the process alive. */
  onChange(listener: (change: EntityChanged) => void, options?: EntityChangesOptions): EntityChangedUnsubscribe;
  /** Counters. */
  stats(): Promise<EntityStoreStats>;
}
