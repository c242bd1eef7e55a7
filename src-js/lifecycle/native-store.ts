/**
 * The store in the addon: commands as text, hints, and what ends when it is closed. The managers reach it through their store by
 * `storeCore`, so nothing of it is part of the public surface.
 */
import type { Logger } from '../logging';
import { HoldfastError } from '../errors';
import { call, callSync, native } from '../native';
import { StoreClosedError, asLifecycleError } from './errors';
import { messageOf } from './logging';

/** The addon's class, as far as it is used here. */
export interface NativeLifecycleStore {
  /** `{ path, schemaVersion }` */
  open(): Promise<string>;
  write(command: string): Promise<string>;
  read(command: string): Promise<string>;
  /** Begins to look out for changes of the log. */
  watch(): void;
  /** Resolves to true when the log may have grown since the last time, to false after `unwatch`. One at a time; never keeps the process alive. */
  hint(): Promise<boolean>;
  unwatch(): void;
  backup(path: string): Promise<void>;
  close(): Promise<void>;
}

interface LifecycleNative {
  LifecycleStore: new (config: string) => NativeLifecycleStore;
  lifecyclePure(name: string, input: string): string;
}

const addon = native as unknown as LifecycleNative;

/** Computes a pure function of the engine. */
export function pure<T>(name: string, input: object | string): T {
  try {
    return JSON.parse(callSync(() => addon.lifecyclePure(name, JSON.stringify(input)))) as T;
  } catch (error) {
    throw asLifecycleError(error);
  }
}

/** A command: `do` names it. */
export type Command = { do: string } & Record<string, unknown>;

/** One store in the addon. */
export class StoreCore {
  readonly isShared: boolean;
  readonly logger: Logger | undefined;
  /** The time by the caller's clock, in milliseconds. */
  readonly now: () => number;
  path = '';
  schemaVersion = 0;
  readonly #inner: NativeLifecycleStore;
  readonly #hints = new Set<() => void>();
  readonly #ends = new Set<() => void>();
  /** Which watch is running: a loop of an earlier one must not ask any more. */
  #watch = 0;
  #closed: Promise<void> | undefined;

  /** @param isShared Whether others can reach the same database. */
  constructor(config: object, isShared: boolean, now: () => number, logger: Logger | undefined) {
    this.isShared = isShared;
    this.now = now;
    this.logger = logger;
    try {
      this.#inner = callSync(() => new addon.LifecycleStore(JSON.stringify(config)));
    } catch (error) {
      throw asLifecycleError(error);
    }
  }

  /** Opens the database; must be the first call. */
  async open(): Promise<void> {
    const { path, schemaVersion } = JSON.parse(await this.#run(() => this.#inner.open())) as { path: string; schemaVersion: number };
    this.path = this.isShared ? path : ':memory:';
    this.schemaVersion = schemaVersion;
  }

  /** Runs a command that may write, as one transaction; its answer as text. */
  write(command: Command): Promise<string> {
    return this.#run(() => this.#inner.write(JSON.stringify(command)));
  }

  /** Runs a command that only reads, on one snapshot; its answer as text. */
  read(command: Command): Promise<string> {
    return this.#run(() => this.#inner.read(JSON.stringify(command)));
  }

  async backup(path: string): Promise<void> {
    await this.#run(() => this.#inner.backup(path));
  }

  get closed(): boolean {
    return this.#closed !== undefined;
  }

  /** The error of whatever comes after `close()`. */
  closedError(): HoldfastError {
    return new StoreClosedError(`the session store ${this.path} is closed; open it again`);
  }

  /** Calls `hint` whenever the change log may have grown, until the returned function is called. A hint says nothing else. */
  onHint(hint: () => void): () => void {
    if (this.closed) return () => {};
    // An object of its own per listener: the same function twice is two listeners.
    const listener = (): void => hint();
    this.#hints.add(listener);
    if (this.#hints.size === 1) {
      callSync(() => this.#inner.watch());
      void this.#hear(++this.#watch);
    }
    return () => {
      if (this.#hints.delete(listener) && this.#hints.size === 0 && !this.closed) this.#unwatch();
    };
  }

  /** Passes hints on, until the watch is over. */
  async #hear(watch: number): Promise<void> {
    try {
      while (watch === this.#watch && (await call(this.#inner.hint()))) {
        if (watch === this.#watch) for (const each of [...this.#hints]) each();
      }
    } catch (error) {
      // Those who wait look from time to time anyway.
      this.logger?.error(`the session store ${this.path} no longer tells of changes at once: ${messageOf(error)}`);
    }
  }

  #unwatch(): void {
    this.#watch++;
    callSync(() => this.#inner.unwatch());
  }

  /** Calls `end` when the store begins to close (at once if it has), unless the returned function is called before. */
  onClose(end: () => void): () => void {
    if (this.closed) {
      end();
      return () => {};
    }
    const listener = (): void => end();
    this.#ends.add(listener);
    return () => void this.#ends.delete(listener);
  }

  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end(): Promise<void> {
    // Not before `#closed` is set: what ends now must find the store closed.
    await undefined;
    if (this.#hints.size > 0) this.#unwatch();
    this.#hints.clear();
    const ends = [...this.#ends];
    this.#ends.clear();
    for (const end of ends) end();
    await call(this.#inner.close());
  }

  async #run<T>(start: () => Promise<T>): Promise<T> {
    if (this.closed) throw this.closedError();
    try {
      return await call(start());
    } catch (error) {
      throw asLifecycleError(error);
    }
  }
}

const cores = new WeakMap<object, StoreCore>();

/** Notes what is behind a store. */
export function registerCore(store: object, core: StoreCore): void {
  cores.set(store, core);
}

/** What is behind a store; `undefined` for an object that is none of ours. */
export function coreOf(store: unknown): StoreCore | undefined {
  return typeof store === 'object' && store !== null ? cores.get(store) : undefined;
}
