/** The change log as an async iterator: what is there first, then what comes. */
import { Alarm } from './alarm';
import type { AnyChangeEvent, ChangeSource, ChangeSubscription, FollowChangesOptions } from './change-types';
import { HoldfastError } from '../errors';
import { DEFAULT_POLL_BATCH } from './constants';
import type { StoreCore } from './native-store';

/** How often to look without having been told to, in milliseconds: a hint can be lost with a connection. */
const LOOK_MS = 1000;
/** Pauses between tries to reach a database that is away: the first, and the longest. */
const AWAY_MS = { first: 50, longest: 2000 };

type Result<E> = IteratorResult<E, undefined>;

/** What it reads. */
interface Log<E extends AnyChangeEvent> extends ChangeSource<E> {
  readChangeLogAfterForProject(projectId: string, after: number, limit?: number): Promise<E[]>;
}

/**
 * Every event is read from the log by seq, and hints only say when to look: so there is no seam between what was there and what comes.
 */
export class FollowedChanges<E extends AnyChangeEvent> implements ChangeSubscription<E> {
  readonly #log: Log<E>;
  readonly #projectId: string | undefined;
  readonly #core: StoreCore;
  readonly #alarm: Alarm;
  /** The next pause, while the database is away. */
  #away = 0;
  readonly #enter: () => void;
  readonly #leave: (() => void)[] = [];
  #entered = false;
  /** Where to read on: everything up to here was handed out, or is of other projects. */
  #place: number;
  #lastSeq: number;
  #batch: E[] = [];
  #next = 0;
  #ended = false;
  /** Readers take turns. */
  #tail: Promise<unknown> = Promise.resolve();

  constructor(log: Log<E>, core: StoreCore, { after = 0, projectId, signal }: FollowChangesOptions) {
    this.#log = log;
    this.#core = core;
    this.#projectId = projectId;
    this.#place = this.#lastSeq = after;
    // Who waits for what another process does must not be left alone by the event loop.
    this.#alarm = new Alarm(core.isShared);
    const end = (): void => this.#end();
    this.#enter = () => {};
    if (signal?.aborted || core.closed) {
      this.#ended = true;
      return;
    }
    signal?.addEventListener('abort', end, { once: true });
    this.#leave.push(() => signal?.removeEventListener('abort', end));
    // An iterator that nobody reads holds nothing.
    this.#enter = () =>
      void this.#leave.push(
        core.onHint(() => this.#alarm.ring()),
        core.onClose(end),
      );
  }

  get lastSeq(): number {
    return this.#lastSeq;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Result<E>> {
    const turn = this.#tail.then(() => this.#take());
    this.#tail = turn.catch(() => {});
    return turn;
  }

  async return(): Promise<IteratorResult<E, undefined>> {
    this.#end();
    return { done: true, value: undefined };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end();
  }

  async #take(): Promise<Result<E>> {
    if (!this.#entered && !this.#ended) {
      this.#entered = true;
      this.#enter();
    }
    try {
      while (!this.#ended) {
        const value = this.#batch[this.#next];
        if (value !== undefined) {
          this.#next++;
          this.#lastSeq = value.seq;
          return { done: false, value };
        }
        await this.#alarm.unlessOver(this.#reach(), undefined);
      }
    } catch (error) {
      // A reading that the end cut off has not failed.
      if (!this.#ended) {
        this.#end();
        throw error;
      }
    }
    return { done: true, value: undefined };
  }

  /** Reads the next batch, however long the database is away: nothing is lost by waiting, for the place to read on is known. */
  async #reach(): Promise<void> {
    try {
      await this.#fill();
      this.#away = 0;
    } catch (error) {
      if (this.#ended || !(error instanceof HoldfastError) || error.hfCode !== 'HF_UNAVAILABLE') throw error;
      if (this.#away === 0) {
        this.#core.logger?.warn(`changes of the session store ${this.#core.path} wait until its database can be reached again: ${error.message}`);
      }
      this.#away = Math.min(Math.max(AWAY_MS.first, this.#away * 2), AWAY_MS.longest);
      await this.#alarm.wait(this.#away);
    }
  }

  /** Reads the next batch; if there is none, waits until there may be one. */
  async #fill(): Promise<void> {
    const after = this.#place;
    // What was handed out must not be there again when the reading fails.
    this.#batch = [];
    this.#next = 0;
    if (this.#projectId === undefined) {
      this.#batch = await this.#log.readChangeLogAfter(after, DEFAULT_POLL_BATCH);
      this.#place = this.#batch.at(-1)?.seq ?? after;
    } else {
      // What others did up to here need not be looked at again, nor may it be missed when it is pruned.
      const head = await this.#log.maxChangeLogSeq();
      this.#batch = await this.#log.readChangeLogAfterForProject(this.#projectId, after, DEFAULT_POLL_BATCH);
      const last = this.#batch.at(-1)?.seq ?? after;
      this.#place = this.#batch.length < DEFAULT_POLL_BATCH ? Math.max(last, head) : last;
    }
    if (this.#batch.length === 0 && !this.#ended) await this.#alarm.wait(LOOK_MS);
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#batch = [];
    for (const leave of this.#leave.splice(0)) leave();
    this.#alarm.end();
  }
}
