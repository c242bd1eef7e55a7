/** Looks after all running sessions, every few seconds. */
import { performance } from 'node:perf_hooks';
import { checkBooleanOrUndefined, checkPlainObject, checkPositiveInteger, invalidArgument, isRecord } from '../check';
import type { Logger } from '../logging';
import { Alarm } from './alarm';
import { checkInterval, checkPort, guarded } from './arguments';
import { HoldfastError } from '../errors';
import { StoreClosedError } from './errors';
import { runningWithoutPrompts, type LifecycleManager } from './lifecycle-manager';
import { checkLogger, messageOf } from './logging';
import type { ReaperOptions, StartOptions } from './manager-types';
import type { Runtime } from './port-types';
import type { SessionRecord } from './record-types';
import { millisClock } from './time';
import { LATE, pooled, within } from './waiting';
import type { ProbeResult, SessionId } from './word-types';

const INTERVAL_MS = 5000;
const PROBE_TIMEOUT_MS = 5000;
const CONCURRENCY = 8;
/** So many probes of one session may hang; after that no more are sent until one of them answers. */
const HANGING_MAX = 4;

/**
 * Asks the runtime of every running session whether it lives, and reports it. A probe that rejects or takes too long has failed, which is
 * never read as death; it holds up nobody else. Ticks never overlap.
 */
export class Reaper implements AsyncDisposable {
  readonly #lifecycle: LifecycleManager;
  readonly #runtimes: Record<string, Runtime>;
  readonly #intervalMs: number;
  readonly #probeTimeoutMs: number;
  readonly #concurrency: number;
  readonly #now: () => number;
  readonly #logger: Logger | undefined;
  readonly #hanging = new Map<SessionId, number>();
  /** Whether an earlier tick's escalations still wait for a port. */
  #escalates = false;
  #ticking: Promise<void> | undefined;
  #run: Run | undefined;

  /** @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT` */
  constructor(options: ReaperOptions) {
    const checked = guarded(() => {
      const { lifecycle, runtimes, intervalMs = INTERVAL_MS, probeTimeoutMs = PROBE_TIMEOUT_MS, concurrency = CONCURRENCY, clock, logger } =
        checkPlainObject(options, 'options');
      checkPort(lifecycle, 'options.lifecycle', 'tickEscalations', 'runningSessions', 'applyRuntimeObservation');
      checkPlainObject(runtimes, 'options.runtimes');
      for (const [name, runtime] of Object.entries(runtimes)) checkPort(runtime, `options.runtimes[${JSON.stringify(name)}]`, 'isAlive');
      if (clock !== undefined && typeof clock !== 'function') throw invalidArgument('options.clock', 'a function or undefined', clock);
      return {
        intervalMs: checkInterval(intervalMs, 'options.intervalMs'),
        probeTimeoutMs: checkInterval(probeTimeoutMs, 'options.probeTimeoutMs'),
        concurrency: checkPositiveInteger(concurrency, 'options.concurrency'),
        now: millisClock(clock, 'options.clock'),
        logger: checkLogger(logger, 'options.logger'),
      };
    });
    this.#lifecycle = options.lifecycle;
    this.#runtimes = options.runtimes;
    this.#intervalMs = checked.intervalMs;
    this.#probeTimeoutMs = checked.probeTimeoutMs;
    this.#concurrency = checked.concurrency;
    this.#now = checked.now;
    this.#logger = checked.logger;
  }

  /**
   * Looks once: escalations that are due, then every running session. While a tick runs, another call joins it.
   *
   * @throws {Error} what `runningSessions()` throws; everything else is logged
   */
  tick(): Promise<void> {
    return this.#once({ keepAlive: true, isOver: () => false });
  }

  /** Looks every `intervalMs`, for the first time after one. Twice is harmless. */
  start(options: StartOptions = {}): void {
    const keepAlive = guarded(() => checkBooleanOrUndefined(checkPlainObject(options, 'options').keepAlive, 'options.keepAlive')) === true;
    if (this.#run !== undefined && !this.#run.stopped) return;
    const run: Run = { stopped: false, keepAlive, alarm: new Alarm(keepAlive), over: Promise.resolve() };
    this.#run = run;
    run.over = this.#loop(run);
  }

  /** Ends what `start` began; resolves when nothing more is reported by it, without waiting for probes. It can be started again. */
  async stop(): Promise<void> {
    const run = this.#run;
    if (run === undefined) return;
    run.stopped = true;
    run.alarm.end();
    await run.over;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #loop(run: Run): Promise<void> {
    let wait = this.#intervalMs;
    for (;;) {
      await run.alarm.wait(wait);
      if (run.stopped) break;
      const begun = performance.now();
      try {
        await run.alarm.unlessOver(this.#once({ keepAlive: run.keepAlive, isOver: () => run.stopped }), undefined);
      } catch (error) {
        // Nothing more comes of a store that is closed.
        if (error instanceof StoreClosedError) break;
        this.#logger?.error(`reaper: ${messageOf(error)}`);
      }
      wait = Math.max(1, this.#intervalMs - (performance.now() - begun));
    }
    if (this.#run === run) this.#run = undefined;
  }

  #once(mode: Mode): Promise<void> {
    this.#ticking ??= this.#tick(mode).finally(() => (this.#ticking = undefined));
    return this.#ticking;
  }

  async #tick(mode: Mode): Promise<void> {
    const now = new Date(this.#now());
    await this.#escalate(now, mode);
    if (mode.isOver()) return;
    const sessions = await runningWithoutPrompts(this.#lifecycle);
    await pooled(sessions, this.#concurrency, async (session) => {
      if (!mode.isOver()) await this.#look(session, now, mode);
    });
  }

  async #escalate(now: Date, mode: Mode): Promise<void> {
    if (this.#escalates) return;
    this.#escalates = true;
    const running = this.#heard('escalations', () => this.#lifecycle.tickEscalations(now)).finally(() => (this.#escalates = false));
    await within(running, this.#probeTimeoutMs, mode.keepAlive);
  }

  async #look({ id, metadata, launchId }: SessionRecord, now: Date, mode: Mode): Promise<void> {
    const { runtimeHandleId, runtimeName } = metadata;
    const runtime = Object.hasOwn(this.#runtimes, runtimeName) ? this.#runtimes[runtimeName] : undefined;
    if (runtimeHandleId === '' || runtimeName === '' || !isRecord(runtime)) {
      const why = runtimeHandleId === '' || runtimeName === '' ? 'it has no runtime' : 'no runtime of its name is known';
      this.#logger?.warn(`reaper: ${id} is not probed: ${why}`, { sessionId: id });
      return;
    }
    const found = await this.#probe(id, async () => runtime.isAlive({ id: runtimeHandleId, runtimeName }), mode);
    if (mode.isOver()) return;
    // With the launch that was asked: of one that came up since, it says nothing.
    const facts = { runtime: found, process: found, observedAt: now, launchId };
    // A message that a port does not take must not hold up the others.
    const report = this.#heard(id, () => this.#lifecycle.applyRuntimeObservation(id, facts));
    const outcome = await within(report, this.#probeTimeoutMs, mode.keepAlive);
    if (outcome === LATE) this.#logger?.warn(`reaper: ${id}: a port takes its time with a message`, { sessionId: id });
  }

  async #probe(id: SessionId, ask: () => Promise<unknown>, mode: Mode): Promise<ProbeResult> {
    const hanging = this.#hanging.get(id) ?? 0;
    if (hanging >= HANGING_MAX) return 'failed';
    this.#hanging.set(id, hanging + 1);
    const probe = ask().finally(() => {
      const left = (this.#hanging.get(id) ?? 1) - 1;
      if (left > 0) this.#hanging.set(id, left);
      else this.#hanging.delete(id);
    });
    try {
      const isAlive = await within(probe, this.#probeTimeoutMs, mode.keepAlive);
      if (typeof isAlive === 'boolean') return isAlive ? 'alive' : 'dead';
    } catch (error) {
      this.#logger?.debug(`reaper: ${id}: the probe failed: ${messageOf(error)}`, { sessionId: id });
    }
    return 'failed';
  }

  /** Runs what only the logger hears the failure of. */
  async #heard(what: string, run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      // What a port says may name paths and handles, which are for debugging only.
      this.#logger?.error(`reaper: ${what}: ${error instanceof HoldfastError ? error.hfCode : 'an error of a port'}`);
      this.#logger?.debug(`reaper: ${what}: ${messageOf(error)}`);
    }
  }
}

/** How a tick waits, and what ends it early. */
interface Mode {
  readonly keepAlive: boolean;
  readonly isOver: () => boolean;
}

/** One `start()` until its `stop()`. */
interface Run {
  stopped: boolean;
  readonly keepAlive: boolean;
  readonly alarm: Alarm;
  over: Promise<void>;
}
