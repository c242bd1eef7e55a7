/** The stores beside the sessions in the addon: commands as text, waiting for writes, and what ends when a store is closed. */
import { HandleState } from '../handle-state';
import { call, callSync, native } from '../native';
import { onAbort } from './abort';
import { bad, checkObject } from './arguments';
import { asGraphError } from './errors';
import { configOf } from './options';
import type { SideStoreOptions } from './side-types';
import type { DurabilityTier } from './value-types';

interface NativeWatch {
  next(): Promise<boolean>;
  end(): void;
}

interface NativeSide {
  /** `{ path, schemaVersion }` */
  open(): Promise<string>;
  write(command: string): Promise<string>;
  read(command: string): Promise<string>;
  watch(): NativeWatch;
  leases(): NativeLeases;
  close(): Promise<void>;
}

/** Who renews leases, also while JavaScript is busy. */
export interface NativeLeases {
  /** Runs a command every third of the time until the token is let go; rejects when the lease is lost. */
  hold(token: string, command: string, ttlMs: number): Promise<void>;
  letGo(token: string): void;
}

const addon = native as unknown as { SessionGraphSide: new (config: string) => NativeSide };

const KNOWN = ['durability', 'busyTimeoutMs', 'maxReaders', 'migrate'] as const satisfies (keyof SideStoreOptions)[];

/** What a store holds. */
export type SideKind = 'processes' | 'effects' | 'hostEvents';

/** How a wait ends besides by its answer. */
export interface UntilOptions {
  /** Ends the wait with its reason. */
  signal?: AbortSignal;
  /** Asks again after so many milliseconds also if nothing was written; default never. */
  everyMs?: number;
}

/** One store in the addon. */
export class SideCore {
  /** Where the file is, with links followed; `null` in memory. */
  path: string | null = null;
  /** The version of the file. */
  schemaVersion = 0;
  readonly #isFull: boolean;
  readonly #busyTimeoutMs: number;
  readonly #inner: NativeSide;
  readonly #state: HandleState;
  readonly #watches = new Set<NativeWatch>();
  #closed: Promise<void> | undefined;

  private constructor(kind: SideKind, path: string | null, options: SideStoreOptions, own: readonly string[]) {
    checkObject(options, 'options');
    const known: readonly string[] = [...KNOWN, ...own];
    const unknown = Object.keys(options).find((name) => !known.includes(name));
    if (unknown !== undefined) throw bad('options', `an object with no other properties than ${known.join(', ')}`, unknown);
    const shared = Object.fromEntries(KNOWN.map((name) => [name, options[name]]).filter(([, value]) => value !== undefined));
    const config = configOf(path === null ? 'memory' : 'file', path, shared);
    this.#isFull = config.synchronous === 'full';
    this.#busyTimeoutMs = config.busyTimeoutMs;
    this.#state = new HandleState(`the store ${config.path ?? 'in memory'}`);
    this.#inner = callSync(() => new addon.SessionGraphSide(JSON.stringify({ ...config, kind })));
  }

  /**
   * Opens a file, or makes a private store in memory where `path` is `null`.
   *
   * @param own Options that the class has besides those of {@link SideStoreOptions}; it checks them itself.
   */
  static async open(kind: SideKind, path: string | null, options: SideStoreOptions, own: readonly string[] = []): Promise<SideCore> {
    const core = new SideCore(kind, path, options, own);
    try {
      const opened = JSON.parse(await core.#run(() => core.#inner.open())) as { path: string | null; schemaVersion: number };
      core.path = opened.path;
      core.schemaVersion = opened.schemaVersion;
      return core;
    } catch (error) {
      // What went wrong before is what counts.
      await core.close().catch(() => {});
      throw error;
    }
  }

  /** What a resolved write survives. */
  durabilityTier(): DurabilityTier {
    if (this.path === null) return 'inline';
    return this.#isFull ? 'durable' : 'processCrash';
  }

  /** Runs a command that may write, as one transaction, in the order of the calls; its answer as text. */
  write(command: string): Promise<string> {
    return this.#run(() => this.#inner.write(command));
  }

  /** Runs a command that only reads, on one snapshot; its answer as text. */
  read(command: string): Promise<string> {
    return this.#run(() => this.#inner.read(command));
  }

  /**
   * Asks until there is an answer that is not `undefined`: again after each write of anybody, in this process or another. Keeps Node alive
   * meanwhile. Rejects with the reason of an aborted signal, and when the store is closed.
   */
  async until<T>(ask: () => Promise<T | undefined>, { signal, everyMs }: UntilOptions = {}): Promise<T> {
    signal?.throwIfAborted();
    // The watch begins before the question, so that no write falls between them; a closed store has none to give.
    const watch = this.#closed === undefined ? callSync(() => this.#inner.watch()) : undefined;
    if (watch === undefined) return (await ask()) as T;
    const end = (): void => watch.end();
    this.#watches.add(watch);
    const leave = signal && onAbort(signal, end);
    let next: Promise<boolean> | undefined;
    try {
      for (;;) {
        const answer = await ask();
        signal?.throwIfAborted();
        if (answer !== undefined) return answer;
        next ??= watch.next().finally(() => (next = undefined));
        await (everyMs === undefined ? next : atMost(next, everyMs));
        signal?.throwIfAborted();
      }
    } finally {
      leave?.();
      this.#watches.delete(watch);
      watch.end();
    }
  }

  /** Runs a command that changes so many rows at most and says how many, until there are no more; the sum. Others write in between. */
  async writeInSlices(command: string, limit: number): Promise<number> {
    for (let sum = 0; ; ) {
      const changed = Number(await this.write(command));
      sum += changed;
      if (changed < limit) return sum;
    }
  }

  /** Makes who renews leases. */
  leases(): NativeLeases {
    const inner = callSync(() => this.#inner.leases());
    return {
      hold: async (token, command, ttlMs) => {
        try {
          await call(inner.hold(token, command, ttlMs));
        } catch (error) {
          throw asGraphError(error);
        }
      },
      letGo: (token) => callSync(() => inner.letGo(token)),
    };
  }

  /** Finishes what was called, then closes the file; waits end. Closing again is fine. */
  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end(): Promise<void> {
    const quiet = this.#state.close();
    // From here on every question is refused; those who wait ask theirs now.
    for (const watch of this.#watches) watch.end();
    await quiet;
    try {
      await call(this.#inner.close());
    } catch (error) {
      throw asGraphError(error);
    }
  }

  async #run<T>(start: () => Promise<T>): Promise<T> {
    try {
      return await this.#state.read(() => call(start()));
    } catch (error) {
      throw asGraphError(error, { waitedMs: this.#busyTimeoutMs });
    }
  }
}

/** Waits for `next`, or for so long. */
async function atMost(next: Promise<unknown>, milliseconds: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  try {
    await Promise.race([next, new Promise((resolve) => (timer = setTimeout(resolve, milliseconds)))]);
  } finally {
    clearTimeout(timer);
  }
}
