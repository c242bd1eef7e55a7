/** The only writer of what happens to sessions by observation. */
import { checkBooleanOrUndefined, checkOneOf, checkPlainObject, checkString } from '../check';
import { HoldfastError } from '../errors';
import { checkId, checkMillis, checkPort, guarded } from './arguments';
import { RECENT_ACTIVITY_WINDOW_MS } from './constants';
import { Deliveries, type Delivery } from './deliveries';
import { withMessage } from './errors';
import { observationInput, outcomeInput } from './inputs';
import { basisOf, type Basis } from './manager-support';
import type { LifecycleManagerOptions } from './manager-types';
import type { Command } from './native-store';
import type { ActivitySignal, PrObservation, RuntimeFacts, SpawnOutcome } from './observation-types';
import { checkPolicy, registerPolicy } from './policy';
import type { ReactionPolicy } from './policy-types';
import type { SessionRecord } from './record-types';
import { many, reviveSession } from './revive';
import { checkTime, checkTimeOrUndefined } from './time';
import type { SessionId, TerminationReason, TimeInput } from './word-types';
import { ACTIVITY_SOURCES, ACTIVITY_STATES, PROBE_RESULTS, TERMINATION_REASONS } from './words';

/**
 * Turns observations into transitions, and reacts to those: tells the agent, or a person.
 *
 * Each call is one transaction: the session, what it leads to, and the messages to be sent are stored together; then the messages are sent. Any
 * number of managers, in any number of processes, may work on one store. An observation of a session that does not exist, or has ended,
 * changes nothing about it.
 *
 * Every method that may send messages rejects with {@link ReactionDeliveryError} (`HF_LIFECYCLE_REACTION_DELIVERY_FAILED`) when a port fails: the
 * transition *is* stored then, and the message is sent again by the next {@link tickEscalations}.
 */
export class LifecycleManager {
  readonly #basis: Basis;
  readonly #deliveries: Deliveries;
  readonly #windowMs: number;
  readonly #policy: ReactionPolicy | undefined;

  /** @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT` */
  constructor(options: LifecycleManagerOptions) {
    const checked = guarded(() => {
      const basis = basisOf(options);
      const { notifier, messenger, recentActivityWindowMs = RECENT_ACTIVITY_WINDOW_MS, guardMessages, policy } = options;
      if (notifier !== undefined) checkPort(notifier, 'options.notifier', 'notify');
      if (messenger !== undefined) checkPort(messenger, 'options.messenger', 'send');
      return {
        basis,
        notifier,
        messenger,
        windowMs: checkMillis(recentActivityWindowMs, 'options.recentActivityWindowMs'),
        guard: checkBooleanOrUndefined(guardMessages, 'options.guardMessages') ?? true,
        policy: checkPolicy(policy, 'options.policy'),
      };
    });
    const { basis, messenger, notifier, guard } = checked;
    this.#basis = basis;
    bases.set(this, basis);
    this.#windowMs = checked.windowMs;
    this.#policy = checked.policy;
    registerPolicy(this, checked.policy);
    this.#deliveries = new Deliveries({ ...basis, messenger, notifier, guard });
  }

  /** Reports what a probe found. A probe that failed, or cannot tell, never ends a session. */
  async applyRuntimeObservation(id: SessionId, facts: RuntimeFacts): Promise<void> {
    await this.#apply((now) => {
      const { runtime, process, observedAt, launchId } = checkPlainObject(facts, 'facts');
      return {
        do: 'observeRuntime',
        id: checkId(id, 'id'),
        runtime: checkOneOf(runtime, 'facts.runtime', PROBE_RESULTS),
        process: checkOneOf(process, 'facts.process', PROBE_RESULTS),
        observedAt: checkTimeOrUndefined(observedAt, 'facts.observedAt'),
        launchId: launchId === undefined ? undefined : checkString(launchId, 'facts.launchId').toWellFormed(),
        now,
        windowMs: this.#windowMs,
        policy: this.#policy,
      };
    });
  }

  /** Reports what an agent was heard to do. A signal that is older than the last one is dropped. */
  async applyActivitySignal(id: SessionId, signal: ActivitySignal): Promise<void> {
    const { valid, state, timestamp, source, launchId } = guarded(() => checkPlainObject(signal, 'signal'));
    if (guarded(() => checkBooleanOrUndefined(valid, 'signal.valid')) !== true) return;
    await this.#apply((now) => ({
      do: 'observeActivity',
      id: checkId(id, 'id'),
      valid: true,
      state: checkOneOf(state, 'signal.state', ACTIVITY_STATES),
      timestamp: checkTimeOrUndefined(timestamp, 'signal.timestamp'),
      source: source === undefined ? undefined : checkOneOf(source, 'signal.source', ACTIVITY_SOURCES),
      launchId: launchId === undefined ? undefined : checkString(launchId, 'signal.launchId').toWellFormed(),
      now,
      policy: this.#policy,
    }));
  }

  /**
   * Reports what was found about a pull request: it is stored with its checks and comments, a merge ends the session, and what the checks and the
   * reviewers say is told to the agent, once per commit or set of comments.
   *
   * @throws {ConstraintError} `HF_LIFECYCLE_CONSTRAINT`: a value that the format does not have; nothing was stored
   */
  async applyPrObservation(id: SessionId, observation: PrObservation): Promise<void> {
    const { fetched } = guarded(() => checkPlainObject(observation, 'observation'));
    if (guarded(() => checkBooleanOrUndefined(fetched, 'observation.fetched')) !== true) return;
    await this.#apply((now) => ({
      do: 'observePr',
      id: checkId(id, 'id'),
      observation: observationInput(observation),
      now,
      policy: this.#policy,
    }));
  }

  /**
   * Reports that a session was started or restored: it is alive and waits to be heard of.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   * @throws {SessionTerminatedError} `HF_LIFECYCLE_SESSION_TERMINATED`: with `expect: 'spawning'`, it was ended meanwhile; nothing was written
   * @throws {SessionBusyError} `HF_LIFECYCLE_SESSION_BUSY`: with `expect: 'terminal'`, it has not ended; or `launchId` was overtaken; nothing was written
   */
  async onSpawnCompleted(id: SessionId, outcome: SpawnOutcome): Promise<void> {
    try {
      await this.#apply((now) => {
        const { expect, ...rest } = outcomeInput(outcome);
        return { do: 'spawned', id: checkId(id, 'id'), outcome: rest, expect, now, policy: this.#policy };
      });
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.hfCode !== 'HF_LIFECYCLE_SESSION_NOT_FOUND') throw error;
      throw withMessage(error, `lifecycle: onSpawnCompleted for unknown session "${id}"`, { op: 'onSpawnCompleted', sessionId: id });
    }
  }

  /**
   * Ends a session for a reason, by default `manually_killed`. Nothing is torn down ({@link SessionManager.kill} does), and nobody is told.
   *
   * @param options.resume Whether {@link SessionManager.resumeAll} is to bring it back. Default `false`, which also says so of a session that has
   *   been stopped; `true` says nothing of one that has ended already.
   */
  async onKillRequested(id: SessionId, reason: TerminationReason = '', options: { resume?: boolean } = {}): Promise<void> {
    await this.#apply((now) => ({
      do: 'kill',
      id: checkId(id, 'id'),
      reason: checkOneOf(checkString(reason, 'reason'), 'reason', TERMINATION_REASONS),
      resume: checkBooleanOrUndefined(checkPlainObject(options, 'options').resume, 'options.resume') === true,
      now,
    }));
  }

  /** Tells a person of nudges that did not help for 15 minutes, and sends again what could not be sent. Call it every few seconds; a {@link Reaper} does. */
  async tickEscalations(now?: TimeInput): Promise<void> {
    await this.#apply((clock) => ({ do: 'tick', now: now === undefined ? clock : checkTime(now, 'now'), policy: this.#policy }));
  }

  /** Every session that has not ended, by project and number. */
  async runningSessions(): Promise<SessionRecord[]> {
    return many<SessionRecord>(await this.#basis.core.read({ do: 'running' }), reviveSession);
  }

  async #apply(build: (now: number) => Command): Promise<void> {
    const { core, now } = this.#basis;
    const answer = await core.write(guarded(() => build(now())));
    const { deliveries } = JSON.parse(answer) as { deliveries: Delivery[] };
    await this.#deliveries.deliver(deliveries);
  }
}

const bases = new WeakMap<LifecycleManager, Basis>();

/**
 * What {@link LifecycleManager.runningSessions} gives, for those who look at no prompt: prompts are `''`, so that long ones are not read every
 * few seconds. A manager of the caller's own, or one that answers in its own way, is asked as it is.
 */
export async function runningWithoutPrompts(lifecycle: LifecycleManager): Promise<SessionRecord[]> {
  const basis = bases.get(lifecycle);
  if (basis === undefined || lifecycle.runningSessions !== LifecycleManager.prototype.runningSessions) return lifecycle.runningSessions();
  return many<SessionRecord>(await basis.core.read({ do: 'running', withoutPrompts: true }), reviveSession);
}
