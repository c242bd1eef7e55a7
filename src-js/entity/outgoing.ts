/**
 * Sends changes, in order per entity, each in the async context of the call that made it. A change that could not be delivered stays
 * first in line: it goes before the next change of its entity, or is tried again in the background.
 */
import { BACKLOG_LIMIT, Backlog, inLane, type Waiting } from './backlog';
import { Lanes, type Frame } from './lanes';
import type { EntityChanged, Logger } from './types';

/** A change on its way to the emitter. */
export interface Outgoing extends Waiting {
  /** The store that keeps the change until it is delivered; `undefined` = only memory does. */
  readonly store: object | undefined;
  /** The change. Made when it is sent for the first time; it stays the same from then on. */
  event(): EntityChanged;
  /** Hands the change to the emitter. Resolves when it was taken. */
  deliver(): Promise<void>;
  /** Counts another try. */
  retried(): void;
}

/** The outgoing changes of one handle. */
export class OutgoingChanges {
  private readonly lanes = new Lanes();
  private readonly backlog: Backlog<Outgoing>;
  private saidWhatStays = false;

  constructor(
    handle: object,
    private readonly kind: string,
    private readonly logger: Logger | undefined,
  ) {
    this.backlog = new Backlog((id) => inLane(this.lanes, handle, id, () => this.catchUp(id)), (change) => this.dropped(change));
  }

  /** How many changes wait. */
  get size(): number {
    return this.backlog.size;
  }

  /** Sends a change, after those of its entity that wait. Rejects with what the emitter throws; the change is kept then. */
  async send(change: Outgoing, frame: Frame, inOrder: boolean): Promise<void> {
    const entered = inOrder ? this.lanes.enter(frame) : null;
    const leave = entered instanceof Promise ? await entered : entered;
    try {
      if (this.backlog.size > 0 && leave !== null) await this.catchUp(change.id);
      await change.deliver();
    } catch (error) {
      this.keep(change);
      throw error;
    } finally {
      leave?.();
    }
  }

  /** Adds a change that was found undelivered, behind those that wait already. */
  keep(change: Outgoing): void {
    this.backlog.keep(change);
  }

  /** Sends everything that waits, now. Rejects with the first error; what failed waits on. */
  flush(): Promise<void> {
    return this.backlog.flush();
  }

  /** Ends all tries of what `store` keeps: it is being closed, and whoever opens it again sends them. */
  stop(store: object): void {
    this.backlog.stop(store);
  }

  private async catchUp(id: string): Promise<void> {
    // Those that wait now: an emitter with a full buffer gives one back for each that it takes, for ever.
    for (const change of [...(this.backlog.of(id) ?? [])]) {
      if (this.backlog.of(id)?.has(change) !== true) continue;
      change.retried();
      await change.deliver();
      this.backlog.done(change);
    }
  }

  private dropped({ id, store }: Outgoing): void {
    const many = `more than ${BACKLOG_LIMIT} changes of kind "${this.kind}" cannot be delivered`;
    if (store === undefined) {
      this.logger?.warn(`${many}; dropping the oldest, of ${this.kind}:${id}: nobody will hear of it`);
    } else if (!this.saidWhatStays) {
      // Each of them is still on record, so once says it all.
      this.saidWhatStays = true;
      this.logger?.warn(`${many}; the oldest are no longer tried: they stay recorded, and are sent when the store is opened anew`);
    }
  }
}
