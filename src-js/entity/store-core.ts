/** The life of a store of holdfast's own: opening, taking over what a crash left, closing. The same for every database. */
import { setImmediate as immediate } from 'node:timers/promises';
import { HoldfastError } from '../errors';
import { call, native } from '../native';
import { clockMs } from './check-input';
import { messageOf, quietLogger } from './logging';
import { snapshotChange } from './snapshot';
import type { Loss, LostChange } from './unfinished';
import type { EntityChanged, EntityDurability, EntityRetention, EntityStore, EntityStoreOptions, Logger } from './types';

/** Clocks that differ by more are worth a warning, in milliseconds. */
const SKEW_MS = 1000;

export type Log = InstanceType<typeof native.EntityLog>;

/** How long closing waits for mutations under way, and for changes that only this process knows of, in milliseconds. */
const CLOSE_GRACE_MS = 5000;
/** How long it tries those at least, in milliseconds. */
const LAST_CHANCE_MS = 1000;
/** So many lost changes are named in an error. */
const NAMED_MAX = 10;

/** How often live processes look for what dead ones left, in milliseconds. */
const SWEEP_MS = 15_000;

/** What handles know of a store of holdfast's own. */
export interface StoreInternals {
  readonly log: Log;
  readonly durability: EntityDurability;
  readonly logger: Logger | undefined;
  /** The store's clock, in milliseconds. */
  now(): number;
  /** Resolves when the store is open and the participant knows what it has to finish; `undefined` once that is so. */
  opened(participant: Participant): Promise<void> | undefined;
  /** Whether it waits for no mutation any more, because it is being closed. */
  readonly isEnded: boolean;
  /** A mutation begins; each call is followed by a {@link leave}. Throws `HF_CLOSED` if the store is being closed. */
  enter(): void;
  /** A mutation is recorded, or failed. */
  leave(): void;
  /** Takes a handle in. */
  join(participant: Participant): void;
  /** Tells those who listen on the store of a recorded change. */
  publish(event: () => EntityChanged): void;
  /**
   * Calls `listener` with each change that is recorded here or, where the store hears of those, elsewhere, and `ended` when the store is
   * closed. Returns what ends it. Throws `HF_CLOSED` if the store is closed already.
   */
  listen(listener: Listener, ended?: () => void): () => void;
  /**
   * Resolves when no change of another process can be missed any more, or when it is clear that none can be heard yet; `undefined` where
   * the store hears only its own. Never rejects.
   */
  listening(): Promise<void> | undefined;
  /** Counts. */
  readonly counters: { redelivered: number; recovered: number };
}

/** Hears of a change; `elsewhere`: another process recorded it. */
export type Listener = (event: EntityChanged, elsewhere: boolean) => void;

/** A handle, as its store sees it. */
export interface Participant {
  readonly kindNumber: number;
  /** Takes over what a dead process left of its kind. */
  load(orphans: Orphans): void;
  /** Finishes what it took over; rejects with the first error. */
  drain(): Promise<void>;
  /** How many changes could not be recorded yet, and wait in memory. */
  unfinished(): number;
  /** Tries, until `until` by `performance.now()`, to record what only it knows of. Never rejects. */
  finish(until: number): Promise<void>;
  /** Ends its background work. Tells what is lost, and why. */
  stop(): Loss;
}

/** What a dead process left of a kind. */
export interface Orphans {
  /** Changes between intent and append. */
  intents: OrphanIntent[];
  /** Payloads of events that nobody took, oldest first. */
  events: string[];
}

export interface OrphanIntent {
  changeId: string;
  entityId: string;
  op: 'mutate' | 'remove';
  prev: string | null;
  /** What was masked in `prev`; only the engine reads it. */
  marks: string | null;
  actor: string;
  runId: string | null;
  /** When it was recorded, in microseconds by the store's clock. */
  createdUs: number;
}

const internalsOf = new WeakMap<EntityStore, StoreInternals>();

/** The inside of a store of holdfast's own; `undefined` for any other store, also for a copy of ours with a method replaced. */
export function storeInternals(store: EntityStore): StoreInternals | undefined {
  return internalsOf.get(store);
}

/** What a call on a closed store fails with. */
export function storeClosed(): HoldfastError {
  return new HoldfastError('the entity store is closed; make a new one', { hfCode: 'HF_CLOSED' });
}

/** Says that `store` is the public side of `internals`. */
export function registerStore(store: EntityStore, internals: StoreInternals): void {
  internalsOf.set(store, internals);
}

export class StoreCore implements StoreInternals {
  readonly counters = { redelivered: 0, recovered: 0 };
  private readonly listeners = new Map<Listener, (() => void) | undefined>();
  private readonly participants = new Map<Participant, { loading: Promise<void> | null; loaded: boolean }>();
  private opening: Promise<void> | null = null;
  private isOpen = false;
  isEnded = false;
  private closing: Promise<void> | null = null;
  private watching: Promise<void> | null = null;
  private underWay = 0;
  private noneUnderWay: (() => void) | null = null;
  private readonly timers: ReturnType<typeof setInterval>[] = [];
  readonly logger: Logger | undefined;

  constructor(
    readonly log: Log,
    readonly durability: EntityDurability,
    logger: Logger | undefined,
    private readonly clock: EntityStoreOptions['clock'],
    private readonly retention: EntityRetention | undefined,
    /** Whether other processes can use the same database. */
    private readonly isShared: boolean,
  ) {
    this.logger = quietLogger(logger);
  }

  now(): number {
    return this.clock === undefined ? Date.now() : clockMs(this.clock());
  }

  /** Opens the database, once; after a failure the next call tries again. */
  open(): Promise<void> {
    if (this.closing !== null) return Promise.reject(storeClosed());
    this.opening ??= this.openNow().catch((error: unknown) => {
      this.opening = null;
      throw error;
    });
    return this.opening;
  }

  opened(participant: Participant): Promise<void> | undefined {
    if (this.closing !== null) return Promise.reject(storeClosed());
    return this.isOpen && this.participants.get(participant)?.loaded === true ? undefined : this.prepare(participant);
  }

  enter(): void {
    if (this.closing !== null) throw storeClosed();
    this.underWay++;
  }

  leave(): void {
    if (--this.underWay === 0) this.noneUnderWay?.();
  }

  /** Changes of this process that could not be recorded yet. */
  unfinished(): number {
    let count = 0;
    for (const participant of this.participants.keys()) count += participant.unfinished();
    return count;
  }

  join(participant: Participant): void {
    this.participants.set(participant, { loading: null, loaded: false });
    // A handle that is defined later still finishes what its kind has open.
    if (this.isOpen && this.keepsEvents) this.recover(participant);
  }

  async ready(): Promise<void> {
    await this.open();
    await this.watching;
    await Promise.all(
      [...this.participants.keys()].map(async (participant) => {
        await this.prepare(participant);
        await participant.drain();
      }),
    );
  }

  close(): Promise<void> {
    this.closing ??= this.closeNow();
    return this.closing;
  }

  listen(listener: Listener, ended?: () => void): () => void {
    if (this.closing !== null) throw storeClosed();
    this.listeners.set(listener, ended);
    void this.listening();
    return () => this.listeners.delete(listener);
  }

  listening(): Promise<void> | undefined {
    if (!this.keepsEvents || this.log.isEmbedded()) return undefined;
    this.watching ??= this.watch();
    return this.watching;
  }

  publish(event: () => EntityChanged, elsewhere = false): void {
    for (const listener of this.listeners.keys()) {
      try {
        listener(snapshotChange(event()), elsewhere);
      } catch (error) {
        this.logger?.warn(`a listener of the entity store threw: ${messageOf(error)}`);
      }
    }
  }

  async prune(now: number): Promise<number> {
    await this.open();
    return call(this.log.prune(JSON.stringify(this.retention ?? {}), now));
  }

  private get keepsEvents(): boolean {
    return this.durability !== 'after-commit';
  }

  private async openNow(): Promise<void> {
    await call(this.log.open());
    // Closed meanwhile: nothing is to be finished here any more.
    if (this.closing !== null) return;
    this.isOpen = true;
    if (!this.log.isEmbedded()) this.warnOfSkew();
    if (this.keepsEvents && this.isShared) this.every(SWEEP_MS, () => this.sweep());
    const every = this.retention?.everyMs;
    if (every !== undefined) {
      this.every(every, () => {
        this.prune(this.now()).catch((error: unknown) => {
          if (this.closing === null) this.logger?.warn(`entity retention failed: ${messageOf(error)}`);
        });
      });
    }
    if (this.keepsEvents) for (const participant of this.participants.keys()) this.recover(participant);
    if (this.listeners.size > 0) void this.listening();
  }

  private async watch(): Promise<void> {
    try {
      await this.open();
    } catch {
      // Whoever uses the store is told; the next listener, or `ready()`, tries again.
      this.watching = null;
      return;
    }
    void this.hear();
    await call(this.log.watch()).catch((error: unknown) => {
      this.logger?.warn(`listening for entity changes of other processes failed, it is tried again: ${messageOf(error)}`);
    });
  }

  /** Until the store is closed. */
  private async hear(): Promise<void> {
    for (;;) {
      const payloads = await call(this.log.heard());
      if (payloads.length === 0) return;
      for (const payload of payloads) {
        let change: EntityChanged | undefined;
        this.publish(() => (change ??= JSON.parse(payload) as EntityChanged), true);
      }
    }
  }

  /** Dwell and windows mix the server's clock with this machine's. */
  private warnOfSkew(): void {
    const told = call(this.log.stats()).then((stats) => {
      const { clockSkewMs } = JSON.parse(stats) as { clockSkewMs: number | null };
      if (clockSkewMs === null || Math.abs(clockSkewMs) < SKEW_MS) return;
      const seconds = (Math.abs(clockSkewMs) / 1000).toFixed(1);
      const direction = clockSkewMs > 0 ? 'ahead of' : 'behind';
      this.logger?.warn(`the clock of the entity store's server is ${seconds} s ${direction} this machine's: ages of states are off by as much; synchronize them`);
    });
    // Whoever uses the store is told what is wrong with it.
    told.catch(() => {});
  }

  private every(ms: number, run: () => void): void {
    if (this.closing) return;
    // With more, a timer of Node would not wait at all.
    const timer = setInterval(run, Math.min(ms, 2 ** 31 - 1));
    timer.unref?.();
    this.timers.push(timer);
  }

  private prepare(participant: Participant): Promise<void> {
    const state = this.participants.get(participant) ?? { loading: null, loaded: false };
    this.participants.set(participant, state);
    state.loading ??= this.load(participant).then(
      () => {
        state.loaded = true;
      },
      (error: unknown) => {
        state.loading = null;
        throw error;
      },
    );
    return state.loading;
  }

  private async load(participant: Participant): Promise<void> {
    await this.open();
    if (!this.keepsEvents) return;
    const orphans = JSON.parse(await call(this.log.claim(participant.kindNumber))) as Orphans;
    participant.load(orphans);
  }

  private recover(participant: Participant): void {
    this.prepare(participant)
      .then(() => participant.drain())
      .catch((error: unknown) => this.logger?.warn(`finishing entity changes that a crash interrupted failed, it is tried again: ${messageOf(error)}`));
  }

  private sweep(): void {
    for (const participant of this.participants.keys()) {
      this.load(participant)
        .then(() => participant.drain())
        .catch((error: unknown) => this.logger?.warn(`looking for interrupted entity changes failed: ${messageOf(error)}`));
    }
  }

  private async closeNow(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    const until = performance.now() + CLOSE_GRACE_MS;
    if (this.underWay > 0) await this.waitForThose(until);
    this.isEnded = true;
    const all = [...this.participants.keys()];
    // However long the others took, each gets a chance.
    const last = Math.max(until, performance.now() + LAST_CHANCE_MS);
    await Promise.all(all.map((participant) => participant.finish(last)));
    for (const ended of this.listeners.values()) ended?.();
    this.listeners.clear();
    const closed = await call(this.log.close()).then(
      () => null,
      (error: unknown) => ({ error }),
    );
    // The log has answered every append before; what waits for those answers comes first.
    await immediate();
    const losses = all.map((participant) => participant.stop()).filter(({ lost }) => lost.length > 0);
    if (losses.length > 0) throw this.lossOf(losses.flatMap(({ lost }) => lost), losses[0]?.cause);
    if (closed !== null) throw closed.error;
  }

  private async waitForThose(until: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.noneUnderWay = resolve;
      timer = setTimeout(resolve, until - performance.now());
    });
    clearTimeout(timer);
  }

  private lossOf(lost: readonly LostChange[], cause: unknown): HoldfastError {
    const named = lost.slice(0, NAMED_MAX).map(({ kind, id }) => `${kind}:${id}`);
    const rest = lost.length > named.length ? ` and ${lost.length - named.length} more` : '';
    const message =
      `the entity store is closed, and the history and events of ${lost.length} changes are lost, of ${named.join(', ')}${rest}; what their ` +
      `owners wrote stands. They could not be recorded: ${messageOf(cause)}. With durability "journal" the next opening would complete them`;
    this.logger?.error(message);
    return new HoldfastError(message, { hfCode: 'HF_ENTITY_APPEND_FAILED', cause, fields: { lost: lost.length } });
  }
}
