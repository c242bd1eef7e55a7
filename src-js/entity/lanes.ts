/**
 * Keeps mutations of one entity apart: whoever comes first goes first, and nobody waits for itself.
 *
 * A call that is made inside another one (in its `apply`, or in a subscriber that it awaits) must not wait for what the outer one
 * holds. So every call carries a frame in the async context, which knows the frames that it runs inside of, and what they wait for.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

/** One running call. */
export class Frame {
  /** Whether the call is still running; work that it left behind is on its own. */
  active = true;
  /** The lanes that this call, or calls inside of it, wait for: one as often as they do. */
  readonly waits: Lane[] = [];

  constructor(
    readonly handle: object,
    readonly id: string,
    readonly parent: Frame | undefined,
  ) {}

  /** Whether this call runs inside of another one for the same entity. */
  get isNested(): boolean {
    for (let frame = this.parent; frame; frame = frame.parent) {
      if (frame.active && frame.handle === this.handle && frame.id === this.id) return true;
    }
    return false;
  }
}

const context = new AsyncLocalStorage<Frame | undefined>();

/** The call that this code runs in. */
export function currentFrame(): Frame | undefined {
  return context.getStore();
}

/** Runs `call` with `frame` as the current call. */
export function inFrame<T>(frame: Frame | undefined, call: () => T): T {
  return context.run(frame, call);
}

/** One at a time. */
class Lane {
  holder: Frame | null = null;
  readonly waiting: (() => void)[] = [];
}

/** The lanes of one handle, by entity. A lane exists while somebody is in it. */
export class Lanes {
  private readonly lanes = new Map<string, Lane>();

  /**
   * Enters the lane of the frame's entity. Returns what leaves it again, or a promise of that if others are in it;
   * `null` if waiting would never end, because those in it wait for this very call.
   */
  enter(frame: Frame): (() => void) | null | Promise<() => void> {
    const lane = this.lanes.get(frame.id);
    if (lane === undefined) {
      const fresh = new Lane();
      fresh.holder = frame;
      this.lanes.set(frame.id, fresh);
      return () => this.leave(frame.id, fresh);
    }
    if (frame.isNested || waitsForOneOf(lane, frame)) return null;
    return this.wait(lane, frame);
  }

  private async wait(lane: Lane, frame: Frame): Promise<() => void> {
    for (let each: Frame | undefined = frame; each; each = each.parent) each.waits.push(lane);
    await new Promise<void>((go) => lane.waiting.push(go));
    for (let each: Frame | undefined = frame; each; each = each.parent) each.waits.splice(each.waits.indexOf(lane), 1);
    lane.holder = frame;
    return () => this.leave(frame.id, lane);
  }

  private leave(id: string, lane: Lane): void {
    lane.holder = null;
    const next = lane.waiting.shift();
    if (next) next();
    else this.lanes.delete(id);
  }
}

/** Whether the holder of `lane` waits, directly or through others, for a call that `frame` runs inside of. */
function waitsForOneOf(lane: Lane, frame: Frame): boolean {
  if (frame.parent === undefined) return false;
  const seen = new Set<Lane>();
  const open = [lane];
  for (let next = open.pop(); next; next = open.pop()) {
    if (seen.has(next)) continue;
    seen.add(next);
    const holder = next.holder;
    if (holder === null) continue;
    for (let each: Frame | undefined = frame.parent; each; each = each.parent) {
      if (each === holder && each.active) return true;
    }
    open.push(...holder.waits);
  }
  return false;
}
