/**
 * Changes whose owner's write happened, but whose history is not written: kept per entity, in order, and completed before the next
 * mutation of the entity, or in the background.
 */
import { BACKLOG_LIMIT, Backlog, inLane, type Waiting } from './backlog';
import type { Lanes } from './lanes';
import type { Logger } from './types';

/** A change to complete. */
export interface Unfinished extends Waiting {
  /** The store that the change goes to. */
  readonly store: object;
  /** Appends the change, and hands it on to be sent. Rejects if it has to be tried again. */
  complete(): Promise<void>;
  /** Lets go of the change, because too many wait. `true`: the store knows of it, and whoever opens that next completes it. */
  abandon(): boolean;
}

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

  /** Ends all tries of a store that is being closed. */
  stop(store: object): void {
    this.backlog.stop(store);
  }

  private async run(id: string): Promise<void> {
    for (let queue = this.backlog.of(id); queue !== undefined; queue = this.backlog.of(id)) {
      const [change] = queue as ReadonlySet<Unfinished>;
      await (change as Unfinished).complete();
      this.backlog.done(change as Unfinished);
    }
  }

  private dropped(change: Unfinished): void {
    const stays = change.abandon() ? 'it is completed when the store is opened anew' : 'its history and its event are lost';
    this.logger?.warn(`more than ${BACKLOG_LIMIT} changes of kind "${this.kind}" wait for their history; giving up the oldest, of ${this.kind}:${change.id}: ${stays}`);
  }
}
