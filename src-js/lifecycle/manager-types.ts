/** What the managers are made of, and what they answer. */
import type { Logger } from '../logging';
import type { LifecycleManager } from './lifecycle-manager';
import type { Agent, Messenger, Notifier, Runtime, Workspace } from './port-types';
import type { AnyChangeEvent } from './change-types';
import type { ReactionPolicy } from './policy-types';
import type { SessionStore } from './store-types';
import type { AgentHarness, MergeEnds, ProjectId, SessionId, SessionKind } from './word-types';

/** Options of {@link LifecycleManager}. */
export interface LifecycleManagerOptions {
  store: SessionStore<AnyChangeEvent>;
  /** Tells a person. Without one, what it would tell counts as told. */
  notifier?: Notifier;
  /** Types into agents. Without one, what it would type counts as typed. */
  messenger?: Messenger;
  /** Where "now" comes from. Default: the system. */
  clock?: () => Date;
  /** How long, in milliseconds, an agent that was heard counts as living even though its runtime seems gone. Default 60,000. */
  recentActivityWindowMs?: number;
  /** How to react, and how patiently, to sessions whose project has stored nothing else ({@link SessionStore.setReactionPolicy}). */
  policy?: ReactionPolicy;
  /**
   * Whether a session is looked at again right before a message is typed into it: nothing is typed into one that has ended, whose agent has
   * exited, or that shows a question, because Enter would answer it. The message waits for a better moment. Default `true`.
   */
  guardMessages?: boolean;
  /** Gets lines about what nobody waits for. Default: the store's. */
  logger?: Logger;
}

/** The environment variables in which an agent finds who it is. */
export interface EnvironmentNames {
  /** Default `AO_SESSION_ID`. */
  sessionId?: string;
  /** Default `AO_PROJECT_ID`. */
  projectId?: string;
  /** Default `AO_ISSUE_ID`. It is set even if there is no issue, to `''`. */
  issueId?: string;
  /** Default `AO_LAUNCH_ID`. What hooks of the agent pass on as {@link ActivitySignal.launchId}. */
  launchId?: string;
}

/** Options of {@link SessionManager}. */
export interface SessionManagerOptions {
  store: SessionStore<AnyChangeEvent>;
  lifecycle: LifecycleManager;
  runtime: Runtime;
  agent: Agent;
  workspace: Workspace;
  messenger: Messenger;
  /** Where "now" comes from. Default: the system. */
  clock?: () => Date;
  /** Names of environment variables. */
  environmentNames?: EnvironmentNames;
  /**
   * How many milliseconds after the start of its runtime a live session whose agent was never heard is shown as `no_signal`, instead of `spawning`,
   * `working` or `idle`. Default 90,000; `false` = never, for agents without hooks.
   */
  noSignalAfterMs?: number | false;
  /** Gets lines about what was done as well as it could be: undoing, tearing down. Default: the store's. */
  logger?: Logger;
}

/** A session to be started. Texts that are left out are `''`. */
export interface SpawnConfig {
  projectId: ProjectId;
  issueId?: string;
  /** Default `worker`. */
  kind?: SessionKind;
  harness?: AgentHarness;
  branch?: string;
  prompt?: string;
  /** Rules that are added to the prompt, after an empty line. */
  agentRules?: string;
  /** Which merged pull request ends this session. Default: as the policy says. */
  mergeEnds?: MergeEnds;
}

/** Options of {@link SessionManager.spawn}. */
export interface SpawnOptions {
  /** Gives up when it aborts: the running step counts as failed, and what was done is undone. */
  signal?: AbortSignal;
  /** Makes a repeated call return the session of the first one with this key, instead of starting another. */
  key?: string;
}

/** Options of {@link SessionManager.kill}. */
export interface KillOptions {
  /** Whether a session whose handles are missing is ended too; what there is of it is torn down. Default `false`. */
  force?: boolean;
}

/** What {@link SessionManager.cleanupReport} did. */
export interface CleanupReport {
  /** The sessions whose workspace is gone now. */
  cleaned: SessionId[];
  /** Those whose workspace stays, and why. */
  skipped: { id: SessionId; reason: string }[];
}

/** Options of {@link SessionManager.cleanupReport}. */
export interface CleanupOptions {
  /** How often what was skipped is tried again. Default 0. */
  retries?: number;
  /** How many milliseconds to wait before that; each time twice as long as before, up to a minute. Default 1000. */
  backoffMs?: number;
  /** Ends it: what is not through is skipped. */
  signal?: AbortSignal;
}

/** Options of {@link SessionManager.stopAll}. */
export interface StopOptions {
  /** Default: of all projects. */
  projectId?: ProjectId;
  /** Ends it: what is not through has failed. */
  signal?: AbortSignal;
}

/** Options of {@link SessionManager.resumeAll}. */
export interface ResumeOptions extends StopOptions {
  /** How many sessions are brought back at a time. Default 4. */
  concurrency?: number;
}

/** What {@link SessionManager.stopAll} did. */
export interface StopReport {
  /** The sessions that are stopped now, and whose runtime is gone. */
  stopped: SessionId[];
  /** What could not be done, and why: another operation is at the session, or a port failed. If the runtime did, the session is stopped all the same. */
  failed: { id: SessionId; reason: string }[];
}

/** What {@link SessionManager.resumeAll} did. */
export interface ResumeReport {
  /** The sessions that run again. */
  resumed: SessionId[];
  /** What could not be done, and why; another call tries again. */
  failed: { id: SessionId; reason: string }[];
}

/** What {@link SessionManager.recover} did. */
export interface RecoverReport {
  /** Sessions whose interrupted operation was finished: a spawn or restore that was through, a kill or stop that was decided. */
  finished: SessionId[];
  /** Sessions whose interrupted spawn was undone: they are `errored`. */
  parked: SessionId[];
  /** Running sessions whose runtime is alive. */
  adopted: SessionId[];
  /** Running sessions whose runtime is gone: they have ended, or are in quarantine until it is certain. */
  lost: SessionId[];
  /** Running sessions whose runtime cannot be asked: they are in quarantine. */
  unclear: SessionId[];
  /** What could not be done, and why. */
  failed: { id: SessionId; reason: string }[];
}

/** Options of {@link Reaper}. */
export interface ReaperOptions {
  lifecycle: LifecycleManager;
  /** The runtimes by name. */
  runtimes: Record<string, Runtime>;
  /** How often to look, in milliseconds. Default 5000. */
  intervalMs?: number;
  /** How long a probe may take, in milliseconds; one that takes longer has failed. Default 5000. */
  probeTimeoutMs?: number;
  /** How many probes run at a time. Default 8. */
  concurrency?: number;
  /** Where "now" comes from. Default: the system. */
  clock?: () => Date;
  /** Gets lines about sessions that cannot be probed. */
  logger?: Logger;
}

/** Options of a `start()`. */
export interface StartOptions {
  /** Whether the timer keeps the process alive. Default `false`. */
  keepAlive?: boolean;
}
