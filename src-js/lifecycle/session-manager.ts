/** What a user does with sessions: start, end, restore, look. */
import { checkBooleanOrUndefined, checkNonEmptyString, checkOneOf, checkPlainObject, checkPositiveInteger, checkString, invalidArgument } from '../check';
import { checkCount, checkId, checkInterval, checkMillis, checkPort, checkSignal, guarded } from './arguments';
import { cleanup } from './cleanup';
import { NO_SIGNAL_AFTER_MS } from './constants';
import { SessionNotFoundError } from './errors';
import { begun, busyError, isInside, runningOn, type Busy, type Kit } from './kit';
import { kill } from './kill';
import { basisOf } from './manager-support';
import type {
  CleanupOptions,
  CleanupReport,
  EnvironmentNames,
  KillOptions,
  RecoverReport,
  ResumeOptions,
  ResumeReport,
  SessionManagerOptions,
  SpawnConfig,
  SpawnOptions,
  StopOptions,
  StopReport,
} from './manager-types';
import { policyOf } from './policy';
import type { ReactionPolicy } from './policy-types';
import type { Runtime } from './port-types';
import { portStep } from './ports';
import type { Session } from './record-types';
import { recover } from './recover';
import { restore } from './restore';
import { many, one, reviveSession } from './revive';
import { spawn } from './spawn';
import { resumeAll, stopAll } from './stop-resume';
import type { ProjectId, SessionId, TerminationReason } from './word-types';
import { MERGE_ENDS, TERMINATION_REASONS } from './words';

/** How many sessions are resumed at a time. */
const RESUME_CONCURRENCY = 4;

const SPAWN_TEXTS = ['issueId', 'kind', 'harness', 'branch', 'prompt', 'agentRules'] as const;

/**
 * Starts, ends and restores sessions over the ports of the host app, and shows them.
 *
 * A port that fails makes the call reject with {@link PortError} (`HF_LIFECYCLE_PORT_FAILED`), whose message says which operation, session and step, and whose
 * `cause` is what the port threw. Nothing is locked while a port runs. Each operation is noted in the store before its first step, so
 * {@link recover} can finish or undo what a crash interrupts.
 *
 * @example
 * ```ts
 * const sessions = new SessionManager({ store, lifecycle, runtime, agent, workspace, messenger });
 * await sessions.recover();
 * const session = await sessions.spawn({ projectId: 'mer', prompt: 'ship it' });
 * await sessions.kill(session.id);
 * ```
 */
export class SessionManager {
  readonly #kit: Kit;
  /** Which pull request counts, unless a project has stored something else. */
  readonly #severalPrs: ReactionPolicy['severalPrs'];

  /** @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT` */
  constructor(options: SessionManagerOptions) {
    this.#kit = guarded(() => {
      const basis = basisOf(options);
      const { store, lifecycle, runtime, agent, workspace, messenger, environmentNames, noSignalAfterMs = NO_SIGNAL_AFTER_MS } = options;
      return {
        ...basis,
        store,
        lifecycle: checkPort(lifecycle, 'options.lifecycle', 'onSpawnCompleted', 'onKillRequested', 'runningSessions', 'applyRuntimeObservation'),
        runtime: checkPort(runtime, 'options.runtime', 'create', 'destroy', 'isAlive'),
        agent: checkPort(agent, 'options.agent', 'getLaunchCommand', 'getRestoreCommand', 'getEnvironment'),
        workspace: checkPort(workspace, 'options.workspace', 'create', 'restore', 'destroy'),
        messenger: checkPort(messenger, 'options.messenger', 'send'),
        names: namesOf(environmentNames),
        noSignalAfterMs: noSignalAfterMs === false ? undefined : checkMillis(noSignalAfterMs, 'options.noSignalAfterMs'),
        running: runningOn(basis.core),
      };
    });
    this.#severalPrs = policyOf(this.#kit.lifecycle)?.severalPrs;
  }

  /**
   * Starts a session: its row, its workspace, its runtime. If a step fails, what was done is undone as well as it can be; the row stays, `errored`.
   *
   * @throws {PortError} `HF_LIFECYCLE_PORT_FAILED`: a port failed, or the signal aborted
   * @throws {SessionTerminatedError} `HF_LIFECYCLE_SESSION_TERMINATED`: it was ended meanwhile
   * @throws {ConstraintError} `HF_LIFECYCLE_CONSTRAINT`: no such project, or a kind or harness that the format does not have
   * @throws {SessionBusyError} `HF_LIFECYCLE_SESSION_BUSY`: a port of the spawn with the same key calls
   */
  async spawn(config: SpawnConfig, options: SpawnOptions = {}): Promise<Session> {
    const { signal, key } = guarded(() => {
      checkId(checkPlainObject(config, 'config').projectId, 'config.projectId');
      for (const name of SPAWN_TEXTS) if (config[name] !== undefined) checkString(config[name], `config.${name}`);
      if (config.mergeEnds !== undefined) checkOneOf(config.mergeEnds, 'config.mergeEnds', MERGE_ENDS);
      const asked = checkPlainObject(options, 'options');
      if (asked.key !== undefined) checkId(checkNonEmptyString(asked.key, 'options.key'), 'options.key');
      return { signal: checkSignal(asked.signal, 'options.signal'), key: asked.key };
    });
    const kit = this.#kit;
    const run = (): Promise<Session> => spawn(kit, { ...config }, key, { core: kit.core, signal }, (id) => this.get(id));
    if (key === undefined) return run();
    const { spawns } = kit.running;
    const name = JSON.stringify([config.projectId, key]);
    const first = spawns.get(name);
    if (first !== undefined) {
      if (isInside(first)) throw busyError('spawn');
      return first.promise;
    }
    const call = begun(run);
    spawns.set(name, call);
    try {
      return await call.promise;
    } finally {
      spawns.delete(name);
    }
  }

  /**
   * Ends a session and tears it down: the row, then the runtime, then the workspace. Calling it again tries again what failed.
   *
   * @param reason Default `manually_killed`.
   * @returns Whether there was such a session; its runtime and workspace are gone then.
   * @throws {IncompleteHandleError} `HF_LIFECYCLE_INCOMPLETE_HANDLE`: it has no runtime or no workspace (yet); nothing was done
   * @throws {PortError} `HF_LIFECYCLE_PORT_FAILED`: a port failed, or the workspace refuses; the session has ended all the same
   * @throws {SessionBusyError} `HF_LIFECYCLE_SESSION_BUSY`: it is being restored or cleaned up, another process is at it, or a port of the
   *   same kill calls
   */
  async kill(id: SessionId, reason: TerminationReason = '', options: KillOptions = {}): Promise<boolean> {
    const force = guarded(() => {
      checkId(id, 'id');
      checkOneOf(reason, 'reason', TERMINATION_REASONS);
      return checkBooleanOrUndefined(checkPlainObject(options, 'options').force, 'options.force') === true;
    });
    const other = this.#kit.running.busy.get(id);
    if (other === undefined) return this.#alone(id, { kind: 'kill', force }, () => kill(this.#kit, id, reason, force));
    if (other.kind !== 'kill' || isInside(other)) throw busyError('kill', id);
    if (other.force || !force) return other.promise as Promise<boolean>;
    // One that must not fail on missing handles does not join one that may.
    await other.promise.catch(() => {});
    return this.kill(id, reason, options);
  }

  /**
   * Brings a session back that has ended: its workspace, and a new runtime that resumes the conversation, or begins with the prompt again. If a
   * step fails, the session stays ended, and its workspace stays.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   * @throws {SessionNotRestorableError} `HF_LIFECYCLE_SESSION_NOT_RESTORABLE`: it has not ended
   * @throws {NothingToResumeError} `HF_LIFECYCLE_NOTHING_TO_RESUME`: it has neither a conversation nor a prompt
   * @throws {SessionBusyError} `HF_LIFECYCLE_SESSION_BUSY`: another operation is at it
   * @throws {PortError} `HF_LIFECYCLE_PORT_FAILED`: a port failed, or the signal aborted
   */
  async restore(id: SessionId, options: { signal?: AbortSignal } = {}): Promise<Session> {
    const signal = guarded(() => {
      checkId(id, 'id');
      return checkSignal(checkPlainObject(options, 'options').signal, 'options.signal');
    });
    if (this.#kit.running.busy.has(id)) throw busyError('restore', id);
    const run = (): Promise<Session> => restore(this.#kit, id, { core: this.#kit.core, signal }, (each) => this.get(each));
    return this.#alone(id, { kind: 'restore', force: false }, run);
  }

  /** The sessions of a project with what a person is shown, by number; all from one moment. */
  async list(projectId: ProjectId): Promise<Session[]> {
    guarded(() => checkId(projectId, 'projectId'));
    return many<Session>(await this.#kit.core.read({ do: 'views', projectId, severalPrs: this.#severalPrs, ...this.#patience() }), reviveSession);
  }

  /**
   * A session with what a person is shown.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   */
  async get(id: SessionId): Promise<Session> {
    guarded(() => checkId(id, 'id'));
    const session = one<Session>(await this.#kit.core.read({ do: 'view', id, severalPrs: this.#severalPrs, ...this.#patience() }), reviveSession);
    if (session !== null) return session;
    throw new SessionNotFoundError(`get ${id}: session: not found`, { fields: { op: 'get', sessionId: id } });
  }

  /**
   * Types a message into a session, without looking whether it can take it.
   *
   * @throws {PortError} `HF_LIFECYCLE_PORT_FAILED`
   */
  async send(id: SessionId, message: string): Promise<void> {
    guarded(() => [checkId(id, 'id'), checkString(message, 'message')]);
    await portStep({ op: 'send', id }, () => this.#kit.messenger.send(id, message), { core: this.#kit.core });
  }

  /** Reclaims the workspaces of a project's sessions that have ended. Those whose workspace refuses are skipped. Returns the ids of the others. */
  async cleanup(projectId: ProjectId): Promise<SessionId[]> {
    return (await this.cleanupReport(projectId)).cleaned;
  }

  /** As {@link cleanup}, but tells what was skipped, and why, and tries that again if it is asked to: what refuses now may be committed in a minute. */
  async cleanupReport(projectId: ProjectId, options: CleanupOptions = {}): Promise<CleanupReport> {
    const { patience, signal } = guarded(() => {
      checkId(projectId, 'projectId');
      const { retries = 0, backoffMs = 1000, signal: given } = checkPlainObject(options, 'options');
      const checked = { retries: checkCount(retries, 'options.retries'), backoffMs: checkInterval(backoffMs, 'options.backoffMs') };
      return { patience: checked, signal: checkSignal(given, 'options.signal') };
    });
    return cleanup(this.#kit, projectId, patience, { core: this.#kit.core, signal });
  }

  /**
   * Stops what runs until {@link resumeAll}, say before the host is restarted: each session ends (`auto_cleanup`) and is noted as to be resumed in one
   * transaction; then its runtime is destroyed. Its workspace stays, also from {@link cleanup}. Sessions that another operation is at, a spawn say, are not
   * waited for: they have failed. Calling again goes on with what was not through.
   */
  async stopAll(options: StopOptions = {}): Promise<StopReport> {
    const { projectId, signal } = guarded(() => someOf(options));
    return stopAll(this.#kit, projectId, { core: this.#kit.core, signal });
  }

  /**
   * Restores the sessions that {@link stopAll} has stopped, and only those: what was killed since, or whose pull request was merged, stays ended. Of
   * several processes that call it, one restores a session. Calling again tries again what has failed.
   */
  async resumeAll(options: ResumeOptions = {}): Promise<ResumeReport> {
    const { projectId, signal, concurrency } = guarded(() => {
      const { concurrency: atATime = RESUME_CONCURRENCY } = checkPlainObject(options, 'options');
      return { ...someOf(options), concurrency: checkPositiveInteger(atATime, 'options.concurrency') };
    });
    return resumeAll(this.#kit, projectId, concurrency, { core: this.#kit.core, signal });
  }

  /**
   * Call it when the program starts. What a crash interrupted is brought to an end: a spawn that was not through is undone (`errored`, its workspace
   * reclaimed), a kill or stop that had ended the session is finished. Then the runtime of each running session is asked: living ones go on,
   * dead ones end. Operations of other processes that are alive are left alone. What could not be done is in the report's `failed`, and
   * calling again goes on with it.
   *
   * @param options.runtimes The runtimes by name, where sessions have different ones; a session whose name is not among them is left alone.
   *   Default: the manager's own is asked about all of them.
   */
  async recover(options: { runtimes?: Record<string, Runtime> } = {}): Promise<RecoverReport> {
    const runtimes = guarded(() => {
      const given = checkPlainObject(options, 'options').runtimes;
      if (given === undefined) return undefined;
      for (const [name, runtime] of Object.entries(checkPlainObject(given, 'options.runtimes'))) checkPort(runtime, `options.runtimes[${JSON.stringify(name)}]`, 'isAlive');
      return given;
    });
    return recover(this.#kit, runtimes);
  }

  /** From when on a silent agent is shown as such. */
  #patience(): { now: number; noSignalAfterMs: number | undefined } {
    return { now: this.#kit.now(), noSignalAfterMs: this.#kit.noSignalAfterMs };
  }

  /** Runs an operation that others can see, until it is through. */
  async #alone<T>(id: SessionId, what: Pick<Busy, 'kind' | 'force'>, run: () => Promise<T>): Promise<T> {
    const { busy } = this.#kit.running;
    const call = begun(run);
    busy.set(id, { ...what, ...call });
    try {
      return await call.promise;
    } finally {
      busy.delete(id);
    }
  }
}

function someOf(options: StopOptions): StopOptions {
  const { projectId, signal } = checkPlainObject(options, 'options');
  if (projectId !== undefined) checkId(projectId, 'options.projectId');
  return { projectId, signal: checkSignal(signal, 'options.signal') };
}

function namesOf(names: EnvironmentNames | undefined): Required<EnvironmentNames> {
  const { sessionId = 'AO_SESSION_ID', projectId = 'AO_PROJECT_ID', issueId = 'AO_ISSUE_ID', launchId = 'AO_LAUNCH_ID' } =
    names === undefined ? {} : checkPlainObject(names, 'options.environmentNames');
  const all = { sessionId, projectId, issueId, launchId };
  for (const [field, name] of Object.entries(all)) {
    if (typeof name !== 'string' || !/^[^=\0]+$/.test(name)) throw invalidArgument(`options.environmentNames.${field}`, 'a name of an environment variable', name);
  }
  return all;
}
