/**
 * The ports: what the host app does for the managers. Plain objects with async methods. A port may call back into the managers: nothing
 * is locked while it runs. One that never settles holds up its own call only.
 */
import type { ProjectId, SessionId } from './word-types';

/** Names a running runtime. */
export interface RuntimeHandle {
  id: string;
  runtimeName: string;
}

/** What a runtime needs to start. */
export interface RuntimeConfig {
  sessionId: SessionId;
  workspacePath: string;
  launchCommand: string;
  /** What the agent wants, with the session's, the project's, the and the launch's id added (see {@link EnvironmentNames}). */
  env: Record<string, string>;
  /** Names this start: reports that carry it ({@link ActivitySignal}, {@link RuntimeFacts}) are not mistaken for those of an earlier one. */
  launchId: string;
}

/** Where agents run: tmux, containers, child processes. */
export interface Runtime {
  create(config: RuntimeConfig): Promise<RuntimeHandle>;
  /** Must be harmless on a runtime that is gone. */
  destroy(handle: RuntimeHandle): Promise<void>;
  /** Rejecting means "cannot tell", which is never taken for death: reject for a handle whose `runtimeName` is not yours. */
  isAlive(handle: RuntimeHandle): Promise<boolean>;
}

/** What an agent needs to start. */
export interface AgentConfig {
  sessionId: SessionId;
  workspacePath: string;
  prompt: string;
}

/** A coding agent: how it is started and resumed. */
export interface Agent {
  getLaunchCommand(config: AgentConfig): string | Promise<string>;
  /** The command that resumes a conversation. */
  getRestoreCommand(agentSessionId: string): string | Promise<string>;
  getEnvironment(config: AgentConfig): Record<string, string> | Promise<Record<string, string>>;
}

/** Whose workspace. */
export interface WorkspaceConfig {
  projectId: ProjectId;
  sessionId: SessionId;
  branch: string;
}

/** A workspace. */
export interface WorkspaceInfo extends WorkspaceConfig {
  path: string;
}

/** Where agents work: git worktrees, clones. */
export interface Workspace {
  create(config: WorkspaceConfig): Promise<WorkspaceInfo>;
  /** Brings the workspace of an ended session back. */
  restore(config: WorkspaceConfig): Promise<WorkspaceInfo>;
  /** May refuse by rejecting, say because of work that is not committed: it is never forced. Must be harmless on one that is gone. */
  destroy(info: WorkspaceInfo): Promise<void>;
}

/** Types into a running agent. */
export interface Messenger {
  send(sessionId: SessionId, message: string): Promise<void>;
}

/** What a person is told. `type` is `reaction.<key>`, or `reaction.escalated`. */
export interface NotificationEvent {
  type: string;
  priority: 'urgent' | 'action' | 'info';
  sessionId: SessionId;
  projectId: ProjectId;
  message: string;
}

/** Tells a person. */
export interface Notifier {
  notify(event: NotificationEvent): Promise<void>;
}
