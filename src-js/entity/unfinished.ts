/**
 * Changes whose owner's write happened, but whose history is not written: kept per entity, in order, and completed before the next
 * mutation of the entity, or in the background.
 */
import { Frame, inFrame } from './lanes';
import type { Lanes } from './lanes';

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 30_000;

/** Completes one change: appends it, and hands it on to be sent. Rejects if it has to be tried again. */
export type Completion = () => Promise<void>;

interface Item {
  readonly complete: Completion;
  /** The store that the change goes to. */
  readonly store: object;
}

interface Queue {
  items: Item[];
  delayMs: number;
  timer: ReturnType<typeof setTimeout> | null;
}

/** The unfinished changes of one handle. */
export class UnfinishedChanges {
  private readonly queues = new Map<string, Queue>();
  private readonly ended = new WeakSet<object>();

  constructor(
    private readonly handle: object,
    private readonly lanes: Lanes,
  ) {}

  /** Keeps a change to complete in `store`, behind the others of its entity. */
  keep(id: string, store: object, complete: Completion): void {
    if (this.ended.has(store)) return;
    let queue = this.queues.get(id);
    if (!queue) this.queues.set(id, (queue = { items: [], delayMs: FIRST_DELAY_MS, timer: null }));
    queue.items.push({ complete, store });
    this.schedule(id, queue);
  }

  /** Completes what is unfinished of an entity; to be called in its lane. `undefined` if there is nothing. */
  complete(id: string): Promise<void> | undefined {
    const queue = this.queues.get(id);
    return queue === undefined ? undefined : this.run(id, queue);
  }

  /** Completes everything. Rejects with the first error. */
  async flush(): Promise<void> {
    await Promise.all([...this.queues.keys()].map((id) => this.retry(id)));
  }

  /** Ends all tries of a store that is being closed. Another one may be bound by then: what goes there stays. */
  stop(store: object): void {
    this.ended.add(store);
    for (const [id, queue] of this.queues) {
      queue.items = queue.items.filter((item) => item.store !== store);
      if (queue.items.length === 0) this.forget(id, queue);
    }
  }

  private async run(id: string, queue: Queue): Promise<void> {
    for (let [item] = queue.items; item !== undefined; [item] = queue.items) {
      await item.complete();
      const done = item;
      queue.items = queue.items.filter((each) => each !== done);
    }
    this.forget(id, queue);
  }

  private forget(id: string, queue: Queue): void {
    if (queue.timer !== null) clearTimeout(queue.timer);
    if (this.queues.get(id) === queue) this.queues.delete(id);
  }

  private schedule(id: string, queue: Queue): void {
    if (queue.timer !== null) return;
    queue.timer = setTimeout(() => {
      queue.timer = null;
      queue.delayMs = Math.min(queue.delayMs * 2, LONGEST_DELAY_MS);
      this.retry(id).catch(() => {
        if (this.queues.get(id) === queue) this.schedule(id, queue);
      });
    }, queue.delayMs);
    queue.timer.unref?.();
  }

  /** In the entity's lane, and outside of any caller's context: the call that failed has ended. */
  private retry(id: string): Promise<void> {
    const frame = new Frame(this.handle, id, undefined);
    return inFrame(frame, async () => {
      const entered = this.lanes.enter(frame);
      const leave = entered instanceof Promise ? await entered : entered;
      try {
        await this.complete(id);
      } finally {
        frame.active = false;
        leave?.();
      }
    });
  }
}
