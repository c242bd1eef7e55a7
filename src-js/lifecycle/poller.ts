/** Tails a change source into a broadcaster. */
import { checkBooleanOrUndefined, checkPlainObject, checkPositiveInteger } from '../check';
import type { Logger } from '../logging';
import { HoldfastError } from '../errors';
import { Alarm } from './alarm';
import { checkCount, checkInterval, checkPort, guarded } from './arguments';
import { lendLogger, type Broadcaster } from './broadcaster';
import type { AnyChangeEvent, ChangeEvent, ChangeSource } from './change-types';
import { DEFAULT_POLL_BATCH, DEFAULT_POLL_INTERVAL_MS } from './constants';
import { withMessage } from './errors';
import { checkLogger, messageOf } from './logging';
import type { StartOptions } from './manager-types';
import { coreOf, type StoreCore } from './native-store';

/** How seldom an idle poller looks at a source that tells when something has happened, in milliseconds. */
const IDLE_MS = 1000;

/** Options of {@link CdcPoller}. */
export interface CdcPollerOptions {
  /** How often to look when nothing tells that something has happened, in milliseconds. Default 100. */
  intervalMs?: number;
  /** How many events to read at a time. Default 512. */
  batch?: number;
  /** Begin with what comes after this seq. Default 0: with the oldest event that is still there. */
  startSeq?: number;
  /** Gets lines about reads that failed, and about listeners that threw if the broadcaster has no logger. */
  logger?: Logger;
}

/**
 * Publishes each event of a source to a broadcaster, once and in order of seq.
 *
 * Its place is in memory: it is for what is going on now. Who must not miss anything across restarts reads from a place of its own
 * ({@link SessionStore.consumer}, {@link SessionStore.changes}).
 */
export class CdcPoller<E extends AnyChangeEvent = ChangeEvent> implements AsyncDisposable {
  readonly #source: ChangeSource<E>;
  readonly #core: StoreCore | undefined;
  readonly #broadcaster: Broadcaster<E>;
  readonly #intervalMs: number;
  readonly #batch: number;
  readonly #logger: Logger | undefined;
  #lastSeq: number;
  /** The end of the queue of polls. */
  #tail: Promise<unknown> = Promise.resolve();
  #run: Run | undefined;

  /**
   * @param source Where to read: a session store, or an object of your own.
   * @param broadcaster Where to publish.
   * @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT`
   */
  constructor(source: ChangeSource<E>, broadcaster: Broadcaster<E>, options: CdcPollerOptions = {}) {
    const checked = guarded(() => {
      const { intervalMs = DEFAULT_POLL_INTERVAL_MS, batch = DEFAULT_POLL_BATCH, startSeq = 0, logger } = checkPlainObject(options, 'options');
      checkPort(source, 'source', 'readChangeLogAfter', 'maxChangeLogSeq');
      checkPort(broadcaster, 'broadcaster', 'publish');
      return {
        intervalMs: checkInterval(intervalMs, 'options.intervalMs'),
        batch: checkPositiveInteger(batch, 'options.batch'),
        startSeq: checkCount(startSeq, 'options.startSeq'),
        logger: checkLogger(logger, 'options.logger'),
      };
    });
    this.#source = source;
    this.#core = coreOf(source);
    this.#broadcaster = broadcaster;
    this.#intervalMs = checked.intervalMs;
    this.#batch = checked.batch;
    this.#lastSeq = checked.startSeq;
    this.#logger = checked.logger ?? this.#core?.logger;
    lendLogger(broadcaster, this.#logger);
  }

  /** The seq of the last event that was published; before that, where it began. */
  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** Skips what is there: only what comes from now on is published. */
  seekToHead(): Promise<void> {
    return this.#queued(async () => {
      this.#lastSeq = await this.#source.maxChangeLogSeq();
    });
  }

  /**
   * Reads and publishes one batch; resolves to how many events were published. Calls at the same time take turns.
   *
   * @throws {Error} what the source throws, as `cdc poller: read after <seq>: …`; the place stays
   */
  poll(): Promise<number> {
    return this.#queued(() => this.#pollOnce(() => false));
  }

  /**
   * Publishes from now on: at once after each local commit and whenever other processes are heard of, and every `intervalMs`. Errors are logged,
   * and it goes on. Closing the store ends it. Twice is harmless.
   */
  start(options: StartOptions = {}): void {
    const keepAlive = guarded(() => checkBooleanOrUndefined(checkPlainObject(options, 'options').keepAlive, 'options.keepAlive'));
    if (this.#run !== undefined && !this.#run.stopped) return;
    const run: Run = { stopped: false, alarm: new Alarm(keepAlive === true), over: Promise.resolve() };
    this.#run = run;
    run.over = this.#loop(run);
  }

  /** Ends what `start` began; resolves when nothing more is published by it. It can be started again. */
  async stop(): Promise<void> {
    const run = this.#run;
    if (run === undefined) return;
    end(run);
    await run.over;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #loop(run: Run): Promise<void> {
    const unhint = this.#core?.onHint(() => run.alarm.ring());
    const unclose = this.#core?.onClose(() => end(run));
    let wait = this.#intervalMs;
    try {
      while (!run.stopped) {
        const before = this.#lastSeq;
        const count = await this.#pollOrLog(run);
        const moved = this.#lastSeq > before;
        if (moved && count !== 'failed' && count >= this.#batch) {
          // More is waiting. The event loop turns in between, whatever the source does.
          await run.alarm.breathe();
          continue;
        }
        // Where hints come, the timer only makes up for a lost one; after a failure it gives the source a rest.
        const rests = count === 'failed' || (!moved && unhint !== undefined);
        wait = rests ? Math.min(wait * 2, Math.max(this.#intervalMs, IDLE_MS)) : this.#intervalMs;
        await run.alarm.wait(wait);
      }
    } finally {
      unhint?.();
      unclose?.();
      if (this.#run === run) this.#run = undefined;
    }
  }

  /** A poll of the loop, which a read that never ends must not keep from ending. */
  async #pollOrLog(run: Run): Promise<number | 'failed'> {
    try {
      return await run.alarm.unlessOver(
        this.#queued(() => (run.stopped ? Promise.resolve(0) : this.#pollOnce(() => run.stopped))),
        0,
      );
    } catch (error) {
      if (!run.stopped) this.#logger?.error(messageOf(error));
      return 'failed';
    }
  }

  /** @param isOver Whether nobody wants the events any more. */
  async #pollOnce(isOver: () => boolean): Promise<number> {
    const after = this.#lastSeq;
    let events;
    try {
      events = await this.#source.readChangeLogAfter(after, this.#batch);
    } catch (error) {
      const message = `cdc poller: read after ${after}: ${messageOf(error)}`;
      throw error instanceof HoldfastError ? withMessage(error, message) : new Error(message, { cause: error });
    }
    let published = 0;
    for (const event of events) {
      if (isOver()) break;
      if (event.seq <= this.#lastSeq) continue;
      this.#lastSeq = event.seq;
      this.#broadcaster.publish(event);
      published++;
    }
    return published;
  }

  #queued<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#tail.then(run);
    this.#tail = turn.catch(() => {});
    return turn;
  }
}

/** One `start()` until its `stop()`. */
interface Run {
  stopped: boolean;
  readonly alarm: Alarm;
  over: Promise<void>;
}

function end(run: Run): void {
  run.stopped = true;
  run.alarm.end();
}
