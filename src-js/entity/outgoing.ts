/**
 * Sends changes, in order per entity, each in the async context of the call that made it. A change that could not be delivered stays
 * first in line: it goes before the next change of its entity, or is tried again in the background.
 */
import { Frame, Lanes, inFrame } from './lanes';
import type { EntityChanged, Logger } from './types';

/** A change on its way to the emitter. */
export interface Outgoing {
  readonly id: string;
  /** The store that keeps the change until it is delivered; `undefined` = only memory does. */
  readonly store: object | undefined;
  /** The change. Made when it is sent for the first time; it stays the same from then on. */
  event(): EntityChanged;
  /** Hands the change to the emitter. Resolves when it was taken. */
  deliver(): Promise<void>;
  /** Counts another try. */
  retried(): void;
}

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 30_000;
/** Changes kept in memory, of one handle, while the emitter refuses them. */
const BACKLOG_LIMIT = 10_000;

interface Backlog {
  items: Outgoing[];
  delayMs: number;
  timer: ReturnType<typeof setTimeout> | null;
}

/** The outgoing changes of one handle. */
export class OutgoingChanges {
  private readonly lanes = new Lanes();
  private readonly backlogs = new Map<string, Backlog>();
  private readonly ended = new WeakSet<object>();
  private kept = 0;

  constructor(
    private readonly handle: object,
    private readonly kind: string,
    private readonly logger: Logger | undefined,
  ) {}

  /** Sends a change, after those of its entity that wait. Rejects with what the emitter throws; the change is kept then. */
  async send(change: Outgoing, frame: Frame, inOrder: boolean): Promise<void> {
    const entered = inOrder ? this.lanes.enter(frame) : null;
    const leave = entered instanceof Promise ? await entered : entered;
    try {
      if (this.backlogs.size > 0 && leave !== null) await this.catchUp(change.id);
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
    if (change.store !== undefined && this.ended.has(change.store)) return;
    let backlog = this.backlogs.get(change.id);
    if (!backlog) this.backlogs.set(change.id, (backlog = { items: [], delayMs: FIRST_DELAY_MS, timer: null }));
    backlog.items.push(change);
    if (++this.kept > BACKLOG_LIMIT) this.dropOldest();
    this.schedule(change.id, backlog);
  }

  /** Sends everything that waits, now. Rejects with the first error; what failed waits on. */
  async flush(): Promise<void> {
    await Promise.all([...this.backlogs.keys()].map((id) => this.retry(id)));
  }

  /** Ends all tries of what `store` keeps: it is being closed, and whoever opens it again sends them. */
  stop(store: object): void {
    this.ended.add(store);
    for (const [id, backlog] of this.backlogs) this.drop(id, backlog, (change) => change.store === store);
  }

  private async catchUp(id: string): Promise<void> {
    const backlog = this.backlogs.get(id);
    if (backlog === undefined) return;
    // Those that wait now: an emitter with a full buffer gives one back for each that it takes, for ever.
    for (const change of [...backlog.items]) {
      if (!backlog.items.includes(change)) continue;
      change.retried();
      await change.deliver();
      this.drop(id, backlog, (each) => each === change);
    }
  }

  private drop(id: string, backlog: Backlog, isDone: (change: Outgoing) => boolean): void {
    const before = backlog.items.length;
    backlog.items = backlog.items.filter((change) => !isDone(change));
    this.kept -= before - backlog.items.length;
    if (backlog.items.length > 0) return;
    if (backlog.timer !== null) clearTimeout(backlog.timer);
    if (this.backlogs.get(id) === backlog) this.backlogs.delete(id);
  }

  private schedule(id: string, backlog: Backlog): void {
    if (backlog.timer !== null) return;
    backlog.timer = setTimeout(() => {
      backlog.timer = null;
      backlog.delayMs = Math.min(backlog.delayMs * 2, LONGEST_DELAY_MS);
      const again = (): void => {
        if (this.backlogs.get(id) === backlog) this.schedule(id, backlog);
      };
      this.retry(id).then(again, again);
    }, backlog.delayMs);
    backlog.timer.unref?.();
  }

  /** Outside of any caller's context: a call that failed long ago must not pass for one that is still running. */
  private retry(id: string): Promise<void> {
    const frame = new Frame(this.handle, id, undefined);
    return inFrame(frame, async () => {
      const entered = this.lanes.enter(frame);
      const leave = entered instanceof Promise ? await entered : entered;
      try {
        await this.catchUp(id);
      } finally {
        frame.active = false;
        leave?.();
      }
    });
  }

  private dropOldest(): void {
    for (const [id, backlog] of this.backlogs) {
      const dropped = backlog.items.length > 1 ? backlog.items.splice(1, 1)[0] : undefined;
      if (!dropped) continue;
      this.kept--;
      this.logger?.warn(`entity changes that cannot be delivered exceed ${BACKLOG_LIMIT}; dropping one of ${this.kind}:${id} from memory`);
      return;
    }
  }
}
