/** The store in the addon: commands as text with bytes beside it, and what ends when it is closed. */
import { HandleState } from '../handle-state';
import { unlessAborted } from './abort';
import { checkSignal } from './arguments';
import { call, callSync, native } from '../native';
import { ReadOnlyStoreError, asGraphError } from './errors';
import type { QueueDefaults } from './queue';

/** A text, and bytes that belong to it. */
export interface Reply {
  text: string;
  parts: Uint8Array[];
}

/** Somebody who waits for writes. */
export interface NativeWatch {
  /** `true` once somebody has written since the last call or since it began; `false` when it ends. */
  next(): Promise<boolean>;
  end(): void;
}

interface NativeSessionGraph {
  /** `{ path, schemaVersion }` */
  open(): Promise<string>;
  write(command: string, bytes?: Uint8Array[]): Promise<string>;
  read(command: string): Promise<Reply>;
  backup(path: string): Promise<string>;
  fork(path: string, command: string): Promise<string>;
  watch(): NativeWatch;
  close(): Promise<void>;
}

interface GraphNative {
  SessionGraph: new (config: string) => NativeSessionGraph;
  sessionGraphTurnHash(message: string, executionState?: Uint8Array): string;
  sessionGraphFileName(sessionId: string): string;
}

const addon = native as unknown as GraphNative;

/** Computes the hash of a commit's message. */
export function hashOf(message: string, executionState: Uint8Array | undefined): string {
  try {
    return callSync(() => addon.sessionGraphTurnHash(message, executionState));
  } catch (error) {
    throw asGraphError(error);
  }
}

/** The name of the file of a session. */
export function fileNameOf(sessionId: string): string {
  return callSync(() => addon.sessionGraphFileName(sessionId));
}

/** How a store is opened, for the addon. */
export interface CoreConfig {
  /** `null`: in memory. */
  path: string | null;
  readOnly: boolean;
  synchronous: 'full' | 'normal';
  busyTimeoutMs: number;
  maxReaders: number;
  migrates: boolean;
  blobProfile: string;
  gc: { everyCommits: number | null; minBlobAgeMs: number };
  /** Of the facade alone. */
  queue: QueueDefaults;
  commitLimits: { maxBytes: number; maxNodes: number };
  /** Leaves nothing beside a file that is looked at. */
  peeks?: boolean;
  postgres?: PostgresConfig;
}

/** Where a store in PostgreSQL is, for the addon. */
export interface PostgresConfig {
  connection: object;
  /** Tells connections apart, without telling a password. */
  connectionKey: string;
  schema: string;
  key: string;
}

/** One store in the addon. */
export class GraphCore {
  readonly config: CoreConfig;
  path: string | null = null;
  schemaVersion = 0;
  readonly #inner: NativeSessionGraph;
  readonly #state: HandleState;
  readonly #watches = new Set<NativeWatch>();
  #closed: Promise<void> | undefined;

  constructor(config: CoreConfig) {
    this.config = config;
    const place = config.postgres === undefined ? (config.path ?? 'in memory') : `${config.postgres.key} in PostgreSQL`;
    this.#state = new HandleState(`the session store ${place}`);
    this.#inner = callSync(() => new addon.SessionGraph(JSON.stringify(config)));
  }

  /** Opens the file; must be the first call. */
  async open(): Promise<void> {
    const { path, schemaVersion } = JSON.parse(await this.#run(() => this.#inner.open())) as { path: string | null; schemaVersion: number };
    this.path = path;
    this.schemaVersion = schemaVersion;
  }

  /** Refuses what would write to a store that is only read. */
  requireWritable(method: string): void {
    if (!this.config.readOnly) return;
    const message = `${method} writes, and ${this.path ?? 'the store'} was opened for reading; open it with SessionGraphStore.open`;
    throw new ReadOnlyStoreError(message, { fields: { method } });
  }

  /** Runs a command that may write, as one transaction; its answer as text. */
  write(command: string, bytes?: Uint8Array[]): Promise<string> {
    return this.#run(() => this.#inner.write(command, bytes));
  }

  /** Runs a command that only reads, on one snapshot. An abort rejects at once with the signal's reason; what is read then is dropped. */
  async read(command: string, signal?: AbortSignal): Promise<Reply> {
    return unlessAborted(checkSignal(signal, 'opts.signal'), () => this.#run(() => this.#inner.read(command)));
  }

  backup(path: string): Promise<string> {
    return this.#run(() => this.#inner.backup(path));
  }

  /** Makes a new file of what a command says; what it is as text. */
  fork(path: string, command: string): Promise<string> {
    return this.#run(() => this.#inner.fork(path, command));
  }

  /** Begins to listen for writes; `undefined` when the store is closed. {@link unwatch} must follow. */
  watch(): NativeWatch | undefined {
    if (this.#closed !== undefined) return undefined;
    const watch = callSync(() => this.#inner.watch());
    this.#watches.add(watch);
    return watch;
  }

  unwatch(watch: NativeWatch): void {
    this.#watches.delete(watch);
    watch.end();
  }

  get closed(): boolean {
    return this.#closed !== undefined;
  }

  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end(): Promise<void> {
    const quiet = this.#state.close();
    for (const watch of this.#watches) watch.end();
    // A server that does not answer is waited for no longer than the addon does, which then ends what is in flight.
    const ended = this.config.postgres !== undefined && this.schemaVersion !== 0 ? call(this.#inner.close()) : undefined;
    ended?.catch(() => undefined);
    await quiet;
    try {
      await (ended ?? call(this.#inner.close()));
    } catch (error) {
      throw asGraphError(error);
    }
  }

  async #run<T>(start: () => Promise<T>): Promise<T> {
    try {
      return await this.#state.read(() => call(start()));
    } catch (error) {
      throw asGraphError(error, { waitedMs: this.config.busyTimeoutMs });
    }
  }
}
