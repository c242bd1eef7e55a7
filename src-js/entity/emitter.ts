/** Sends changes to a target that is wired later: what comes before is kept, in order. */
import { checkFunction } from '../check';
import { checkLogger, checkNamed, refuse } from './check-input';
import { quietLogger } from './logging';
import type { ChangeEmitter, ChangeEmitterArgs, EmitEntityChanged, EntityChanged } from './types';

const BUFFER_LIMIT_DEFAULT = 10_000;

/** Hears what became of a change that was kept: `true` = the target took it, `false` = it was dropped. Must not throw. */
export type Settled = (delivered: boolean) => void;

interface Kept {
  payload: EntityChanged;
  settled: Settled | undefined;
}

/** Delivers a change (`true`), or keeps it (`false`). */
type Deliver = (payload: EntityChanged, settled: Settled) => Promise<boolean>;

/**
 * The tracking side of the emitters of this module, by their `emit`: it goes along when an emitter is spread, and an `emit` that a
 * program has put in its place is rightly not found.
 */
const delivers = new WeakMap<EmitEntityChanged, Deliver>();

/**
 * Emits a change, and tells whether the target has taken it.
 *
 * @param settled called once, later, if the change was only kept
 * @returns `true` = the target took it; `false` = it is kept. Emitters of other making are believed: when `emit` resolves, it is taken
 * @throws what the target throws
 */
export async function emitTracked(emitter: ChangeEmitter, payload: EntityChanged, settled: Settled): Promise<boolean> {
  const deliver = delivers.get(emitter.emit);
  if (deliver !== undefined) return deliver(payload, settled);
  await emitter.emit(payload);
  return true;
}

/**
 * Makes an emitter. Until `wire` is called it keeps the changes in memory, at most `bufferLimit`; above that the oldest is dropped,
 * with a warning. A store that records changes (`outbox`, `journal`) still has it then, and delivers it later.
 *
 * @throws {TypeError} `HF_INVALID_ARGUMENT`: `bufferLimit` is no number, or `logger` no logger
 */
export function createChangeEmitter(args: ChangeEmitterArgs = {}): ChangeEmitter {
  checkNamed(args, '{ logger, bufferLimit }', 'createChangeEmitter');
  const { bufferLimit = BUFFER_LIMIT_DEFAULT } = args;
  if (typeof bufferLimit !== 'number') throw refuse('bufferLimit', 'a number of changes', bufferLimit, { where: 'createChangeEmitter: ' });
  checkLogger(args.logger, 'logger', 'createChangeEmitter: ', ['debug', 'warn']);
  const logger = quietLogger(args.logger);
  // A limit of 0 would lose every change. No length is greater than NaN.
  const limit = Math.max(bufferLimit, 1);
  const buffer: Kept[] = [];
  /** Who gets the changes; an object of its own per `wire`, so that the same function twice is two targets. */
  let target: { take: EmitEntityChanged } | null = null;
  let wired = false;
  /** The last delivery of the buffer; `null` = there was none yet. */
  let drain: Promise<void> | null = null;

  function keep(payload: EntityChanged, settled?: Settled): void {
    buffer.push({ payload, settled });
    while (buffer.length > limit) {
      const dropped = buffer.shift() as Kept;
      dropped.settled?.(false);
      const { kind, id } = dropped.payload;
      // Who tracks it has it on record.
      const fate = dropped.settled === undefined ? 'dropping' : 'the store keeps, and delivers later,';
      logger?.warn(`entity change buffer full (${bufferLimit}); ${fate} the oldest buffered ${kind}:${id} change event`);
    }
  }

  async function emit(payload: EntityChanged): Promise<void> {
    if (wired) await target?.take(payload);
    else keep(payload);
  }

  delivers.set(emit, async (payload, settled) => {
    if (wired) await target?.take(payload);
    else keep(payload, settled);
    // Once wired, always wired: it is still what it was at the start.
    return wired;
  });

  async function drainInto(mine: { take: EmitEntityChanged }, before: Promise<void> | null): Promise<void> {
    // Whatever the target before has in its hands comes back to the buffer or is delivered; two at a time would mix the order.
    if (before !== null) await before.catch(() => undefined);
    let kept: Kept | undefined;
    while (target === mine && (kept = buffer.shift()) !== undefined) {
      try {
        await mine.take(kept.payload);
      } catch (error) {
        buffer.unshift(kept);
        if (target === mine) target = null;
        throw error;
      }
      kept.settled?.(true);
    }
    if (target === mine) wired = true;
  }

  return {
    emit,
    async wire(take) {
      checkFunction(take, 'emit');
      const mine = { take };
      target = mine;
      if (wired || (buffer.length === 0 && drain === null)) {
        wired = true;
        return;
      }
      if (buffer.length > 0) logger?.debug(`flushing ${buffer.length} buffered entity change event(s) on emitter wire`);
      drain = drainInto(mine, drain);
      await drain;
    },
    get isWired() {
      return wired;
    },
  };
}
