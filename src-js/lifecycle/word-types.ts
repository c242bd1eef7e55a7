/** The words of the format: what is stored in columns and sent in events. */

/** Names a project. The ids of its sessions begin with it. */
export type ProjectId = string;

/** Names a session: `<projectId>-<n>` with n = 1, 2, 3 … per project. A number is never given twice. */
export type SessionId = string;

/**
 * A time that a caller hands in: a `Date`, milliseconds since the epoch, or an RFC 3339 text with an offset (`2026-05-31T12:00:00Z`).
 * It is cut to the millisecond. What is no time, or not in the years 0 to 9999, is refused with `HF_INVALID_ARGUMENT` before
 * anything else happens. Times that come back are always a `Date`.
 */
export type TimeInput = Date | number | string;

/**
 * Where a session stands. `detecting` = in quarantine: a probe did not tell clearly. `done` and `terminated` are terminal: nothing but a
 * restore changes such a session any more.
 */
export type SessionState = 'not_started' | 'working' | 'idle' | 'needs_input' | 'stuck' | 'detecting' | 'done' | 'terminated';

/** Why a session was terminated; `''` in every other state. */
export type TerminationReason =
  | ''
  | 'manually_killed'
  | 'runtime_lost'
  | 'agent_process_exited'
  | 'probe_failure'
  | 'error_in_process'
  | 'auto_cleanup'
  | 'pr_merged';

/** Which agent runs in a session. Names besides these are those of the store's option `harnesses`. */
export type AgentHarness = '' | 'claude-code' | 'codex' | 'aider' | 'opencode' | (string & {});

/** What an agent was last heard to do. `exited` alone ends no session: only a probe does. */
export type ActivityState = 'active' | 'ready' | 'idle' | 'waiting_input' | 'blocked' | 'exited';

/** What a session is for. */
export type SessionKind = 'worker' | 'orchestrator';

/** Who told of an activity. */
export type ActivitySource = 'native' | 'terminal' | 'hook' | 'runtime' | 'none';

/** What a probe found. `failed` = the probe itself failed, `unknown` = it cannot tell; neither is ever read as death. */
export type ProbeResult = 'alive' | 'dead' | 'failed' | 'unknown';

/** What is known of a process. */
export type ProcessLiveness = 'alive' | 'dead' | 'indeterminate';

/** Where a pull request stands. */
export type PrState = 'draft' | 'open' | 'merged' | 'closed';

/** What the checks of a pull request say together. */
export type CiState = 'unknown' | 'pending' | 'passing' | 'failing';

/** What the reviewers of a pull request say. */
export type ReviewDecision = 'none' | 'approved' | 'changes_requested' | 'review_required';

/** Whether a pull request can be merged. */
export type Mergeability = 'unknown' | 'mergeable' | 'conflicting' | 'blocked' | 'unstable';

/** How one run of a check went. */
export type CheckStatus = 'unknown' | 'queued' | 'in_progress' | 'passed' | 'failed' | 'skipped' | 'cancelled';

/** What a person is shown. Derived from a session and its pull request whenever it is read, never stored. */
export type SessionStatus =
  | 'spawning'
  | 'working'
  | 'detecting'
  | 'pr_open'
  | 'draft'
  | 'ci_failed'
  | 'review_pending'
  | 'changes_requested'
  | 'approved'
  | 'mergeable'
  | 'merged'
  | 'cleanup'
  | 'needs_input'
  | 'stuck'
  | 'errored'
  | 'killed'
  | 'idle'
  | 'done'
  | 'terminated'
  | 'no_signal';

/** Which merged pull request ends its session: `any`, the `last` one, which leaves none open, or `never` one. */
export type MergeEnds = 'any' | 'last' | 'never';

/** What the engine does by itself about a change: the first four tell the agent, the others tell a person. */
export type ReactionKey =
  | 'ci-failed'
  | 'review-comments'
  | 'merge-conflicts'
  | 'agent-idle'
  | 'approved-and-green'
  | 'agent-stuck'
  | 'agent-needs-input'
  | 'agent-exited'
  | 'pr-closed'
  | 'pr-merged';
