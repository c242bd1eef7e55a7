/**
 * What could not be done and has to be tried again: kept in memory by entity and in order, tried after 100 ms, doubling to 30 s, with one
 * timer for all. Deliveries and appends wait here alike.
 */
import { Frame, Lanes, inFrame } from './lanes';

/** Most changes of one handle that wait for their delivery, and as many that wait for their append. */
export const BACKLOG_LIMIT = 10_000;

const DELAYS_MS = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000];

/** One thing to try again. */
export interface Waiting {
  /** The entity. */
  readonly id: string;
  /** The store that it ends with; `undefined` = it outlives any. */
  readonly store: object | undefined;
}

/** What waits of one handle. */
export class Backlog<Item extends Waiting> {
  private readonly queues = new Map<string, Set<Item>>();
  /** All of them, the oldest first. */
  private readonly all = new Set<Item>();
  private readonly ended = new WeakSet<object>();
  private readonly backoff: Backoff;

  /**
   * @param retry Tries what waits of an entity; whatever it leaves is tried again
   * @param dropped Told of what was given up because too much waits
   */
  constructor(
    private readonly retry: (id: string) => Promise<void>,
    private readonly dropped: (item: Item) => void,
  ) {
    this.backoff = new Backoff(retry);
  }

  get size(): number {
    return this.all.size;
  }

  /** What waits of an entity, in order; `undefined` = nothing. */
  of(id: string): ReadonlySet<Item> | undefined {
    return this.queues.get(id);
  }

  /** All that waits, the oldest first. */
  items(): Iterable<Item> {
    return this.all;
  }

  /** Tries what waits of an entity now, whenever it is due. */
  tryNow(id: string): Promise<void> {
    return this.retry(id);
  }

  /** Keeps an item, behind the others of its entity. `false`: its store has ended, and nobody will try it. */
  keep(item: Item): boolean {
    if (item.store !== undefined && this.ended.has(item.store)) return false;
    const queue = this.queues.get(item.id);
    if (queue === undefined) this.queues.set(item.id, new Set([item]));
    else queue.add(item);
    this.all.add(item);
    this.backoff.begin(item.id);
    if (this.all.size > BACKLOG_LIMIT) this.dropOldest();
    return true;
  }

  /** Takes an item out. */
  done(item: Item): void {
    this.all.delete(item);
    const queue = this.queues.get(item.id);
    queue?.delete(item);
    if (queue?.size !== 0) return;
    this.queues.delete(item.id);
    this.backoff.end(item.id);
  }

  /** Tries everything now. Rejects with the first error; what failed waits on. */
  async flush(): Promise<void> {
    await Promise.all([...this.queues.keys()].map((id) => this.retry(id)));
  }

  /** Forgets what ends with a store, and takes nothing more of it. Another store may be bound by then: what goes there stays. */
  stop(store: object): void {
    this.ended.add(store);
    for (const item of [...this.all]) if (item.store === store) this.done(item);
  }

  private dropOldest(): void {
    const [oldest] = this.all;
    if (oldest === undefined) return;
    this.done(oldest);
    this.dropped(oldest);
  }
}

/** Runs `work` in an entity's lane, outside of any caller's context: a call that failed long ago must not pass for one that still runs. */
export function inLane(lanes: Lanes, handle: object, id: string, work: () => Promise<void> | undefined): Promise<void> {
  const frame = new Frame(handle, id, undefined);
  return inFrame(frame, async () => {
    const entered = lanes.enter(frame);
    const leave = entered instanceof Promise ? await entered : entered;
    try {
      await work();
    } finally {
      frame.active = false;
      leave?.();
    }
  });
}

/** An entity that is tried again and again. */
interface Trial {
  /** Which of the delays is next. */
  level: number;
}

/** When to try which entity again. */
class Backoff {
  private readonly trials = new Map<string, Trial>();
  /** The entities that wait, with the time when they are due, by the delay that they wait for: so each map is in the order of its times. */
  private readonly due: Map<string, number>[] = [];
  private timer: ReturnType<typeof setTimeout> | undefined;
  private firesAt = Infinity;

  constructor(private readonly retry: (id: string) => Promise<void>) {}

  /** Begins to try an entity, unless that is going on. */
  begin(id: string): void {
    if (this.trials.has(id)) return;
    const trial: Trial = { level: 0 };
    this.trials.set(id, trial);
    this.wait(id, trial);
  }

  end(id: string): void {
    const trial = this.trials.get(id);
    if (trial === undefined) return;
    this.trials.delete(id);
    this.due[trial.level]?.delete(id);
    if (this.trials.size === 0) this.disarm();
  }

  private wait(id: string, { level }: Trial): void {
    const at = performance.now() + (DELAYS_MS[level] as number);
    (this.due[level] ??= new Map()).set(id, at);
    this.arm(at);
  }

  private arm(at: number): void {
    if (at >= this.firesAt) return;
    this.disarm();
    this.firesAt = at;
    this.timer = setTimeout(() => this.fire(), Math.max(at - performance.now(), 1));
    this.timer.unref?.();
  }

  private disarm(): void {
    clearTimeout(this.timer);
    this.firesAt = Infinity;
  }

  private fire(): void {
    this.firesAt = Infinity;
    const now = performance.now();
    const ids: string[] = [];
    let next = Infinity;
    for (const waiting of this.due) {
      for (const [id, at] of waiting ?? []) {
        if (at > now) {
          next = Math.min(next, at);
          break;
        }
        waiting?.delete(id);
        ids.push(id);
      }
    }
    this.arm(next);
    for (const id of ids) this.tryNow(id);
  }

  private tryNow(id: string): void {
    const trial = this.trials.get(id);
    if (trial === undefined) return;
    const again = (): void => {
      // It may have ended, and begun anew, meanwhile.
      if (this.trials.get(id) !== trial) return;
      trial.level = Math.min(trial.level + 1, DELAYS_MS.length - 1);
      this.wait(id, trial);
    };
    this.retry(id).then(again, again);
  }
}
