/**
 * Changes whose owner's write happened, but whose history is not written: kept per entity, in order, and completed before the next
 * mutation of the entity, or in the background.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../errors';
import { BACKLOG_LIMIT, Backlog, inLane, type Waiting } from './backlog';
import type { Lanes } from './lanes';
import type { Logger } from './types';

/** A change to complete. */
export interface Unfinished extends Waiting {
  /** The store that the change goes to. */
  readonly store: object;
  /** Appends the change, and hands it on to be sent. Rejects if it has to be tried again. */
  complete(): Promise<void>;
  /** Whether the store knows of it: whoever opens that next completes it, if nobody does here. */
  readonly isOnRecord: boolean;
  /** Why the last try failed. */
  cause: unknown;
  /** Lets go of the change: too many wait, or the store is closed. */
  abandon(): void;
}

/** A change that happened, and that no history has. */
export interface LostChange {
  readonly kind: string;
  readonly id: string;
}

/** What is lost of a store that is closed, and why. */
export interface Loss {
  readonly lost: readonly LostChange[];
  readonly cause: unknown;
}

/** How long to wait between two tries before the end, in milliseconds. */
const LAST_TRIES_MS = 100;

/** The unfinished changes of one handle. */
export class UnfinishedChanges {
  private readonly backlog: Backlog<Unfinished>;

  constructor(
    handle: object,
    private readonly kind: string,
    lanes: Lanes,
    private readonly logger: Logger | undefined,
  ) {
    this.backlog = new Backlog((id) => inLane(lanes, handle, id, () => this.complete(id)), (item) => this.dropped(item));
  }

  /** Keeps a change to complete, behind the others of its entity. `false`: its store is closed, and nobody here will. */
  keep(change: Unfinished): boolean {
    return this.backlog.keep(change);
  }

  /** Completes what is unfinished of an entity; to be called in its lane. `undefined` if there is nothing. */
  complete(id: string): Promise<void> | undefined {
    return this.backlog.of(id) === undefined ? undefined : this.run(id);
  }

  /** Completes everything. Rejects with the first error. */
  flush(): Promise<void> {
    return this.backlog.flush();
  }

  /** How many changes wait for a store. */
  count(store: object): number {
    return this.of(store).length;
  }

  /** Tries, until `until` by `performance.now()`, to record what only this process knows of a store that is being closed. */
  async finish(store: object, until: number): Promise<void> {
    for (let left = this.onlyHere(store); left.length > 0; left = this.onlyHere(store)) {
      const tries = [...new Set(left.map(({ id }) => id))].map((id) => this.backlog.tryNow(id));
      await before(until, Promise.allSettled(tries));
      if (performance.now() + LAST_TRIES_MS > until || this.onlyHere(store).every(({ cause }) => isFinal(cause))) return;
      await sleep(LAST_TRIES_MS);
    }
  }

  /** Lets go of everything of a store that is closed. Tells what is lost, and why. */
  stop(store: object): Loss {
    const lost = this.onlyHere(store);
    for (const change of this.of(store)) change.abandon();
    this.backlog.stop(store);
    return { lost: lost.map(({ id }) => ({ kind: this.kind, id })), cause: lost[0]?.cause };
  }

  /** What no record has. */
  private onlyHere(store: object): Unfinished[] {
    return this.of(store).filter(({ isOnRecord }) => !isOnRecord);
  }

  private of(store: object): Unfinished[] {
    return [...this.backlog.items()].filter((change) => change.store === store);
  }

  private async run(id: string): Promise<void> {
    for (let queue = this.backlog.of(id); queue !== undefined; queue = this.backlog.of(id)) {
      const [change] = queue as ReadonlySet<Unfinished>;
      await this.tryOnce(change as Unfinished);
    }
  }

  private async tryOnce(change: Unfinished): Promise<void> {
    try {
      await change.complete();
    } catch (error) {
      // Of a store that is being closed the reason is what went wrong before.
      if (!isClosed(error)) change.cause = error;
      throw error;
    }
    this.backlog.done(change);
  }

  private dropped(change: Unfinished): void {
    change.abandon();
    const stays = change.isOnRecord ? 'it is completed when the store is opened anew' : 'its history and its event are lost';
    this.logger?.warn(`more than ${BACKLOG_LIMIT} changes of kind "${this.kind}" wait for their history; giving up the oldest, of ${this.kind}:${change.id}: ${stays}`);
  }
}

/** Whether no further try can succeed. */
function isFinal(error: unknown): boolean {
  return codeOf(error) === 'HF_POISONED' || isClosed(error);
}

function isClosed(error: unknown): boolean {
  return codeOf(error) === 'HF_CLOSED';
}

function codeOf(error: unknown): string | undefined {
  const inner = error instanceof HoldfastError && error.hfCode === 'HF_ENTITY_APPEND_FAILED' ? error.cause : error;
  return inner instanceof HoldfastError ? inner.hfCode : undefined;
}

/** Awaits `work`, but not longer than until `until`. */
async function before(until: number, work: Promise<unknown>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const end = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, Math.max(until - performance.now(), 0));
  });
  try {
    await Promise.race([work, end]);
  } finally {
    clearTimeout(timer);
  }
}
