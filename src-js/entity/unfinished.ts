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
  /** Lets go of the change: too many wait, or the store is closed. */
  abandon(): void;
}

/** A change that happened, and that no history has. */
export interface LostChange {
  readonly kind: string;
  readonly id: string;
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

  /**
   * Ends all tries of a store that is being closed; before that it tries, until `until` by `performance.now()`, what no record has.
   * Resolves to what is lost, and why.
   */
  async end(store: object, until: number): Promise<{ lost: LostChange[]; cause?: unknown }> {
    let cause: unknown;
    const onlyHere = (): Unfinished[] => this.of(store).filter(({ isOnRecord }) => !isOnRecord);
    for (let left = onlyHere(); left.length > 0; left = onlyHere()) {
      try {
        await before(until, Promise.all([...new Set(left.map(({ id }) => id))].map((id) => this.backlog.tryNow(id))));
      } catch (error) {
        cause = error;
      }
      if (performance.now() + LAST_TRIES_MS > until || isFinal(cause)) break;
      if (onlyHere().length > 0) await sleep(LAST_TRIES_MS);
    }
    const lost = onlyHere();
    for (const change of this.of(store)) change.abandon();
    this.backlog.stop(store);
    return { lost: lost.map(({ id }) => ({ kind: this.kind, id })), cause };
  }

  private of(store: object): Unfinished[] {
    return [...this.backlog.items()].filter((change) => change.store === store);
  }

  private async run(id: string): Promise<void> {
    for (let queue = this.backlog.of(id); queue !== undefined; queue = this.backlog.of(id)) {
      const [change] = queue as ReadonlySet<Unfinished>;
      await (change as Unfinished).complete();
      this.backlog.done(change as Unfinished);
    }
  }

  private dropped(change: Unfinished): void {
    change.abandon();
    const stays = change.isOnRecord ? 'it is completed when the store is opened anew' : 'its history and its event are lost';
    this.logger?.warn(`more than ${BACKLOG_LIMIT} changes of kind "${this.kind}" wait for their history; giving up the oldest, of ${this.kind}:${change.id}: ${stays}`);
  }
}

/** Whether no further try can succeed. */
function isFinal(error: unknown): boolean {
  const cause = error instanceof HoldfastError && error.cause instanceof HoldfastError ? error.cause : error;
  return cause instanceof HoldfastError && (cause.hfCode === 'HF_POISONED' || cause.hfCode === 'HF_CLOSED');
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
    // Whoever comes too late is told nothing any more.
    work.catch(() => {});
  }
}
