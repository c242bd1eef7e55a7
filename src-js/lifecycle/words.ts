/** Words that are refused before anything is asked, where the engine would see them only inside a transaction. */
import type { ActivitySource, ActivityState, MergeEnds, ProbeResult, TerminationReason } from './word-types';

export const PROBE_RESULTS = ['alive', 'dead', 'failed', 'unknown'] as const satisfies ProbeResult[];
export const ACTIVITY_STATES = ['active', 'ready', 'idle', 'waiting_input', 'blocked', 'exited'] as const satisfies ActivityState[];
export const ACTIVITY_SOURCES = ['native', 'terminal', 'hook', 'runtime', 'none'] as const satisfies ActivitySource[];
export const TERMINATION_REASONS = [
  '',
  'manually_killed',
  'runtime_lost',
  'agent_process_exited',
  'probe_failure',
  'error_in_process',
  'auto_cleanup',
  'pr_merged',
] as const satisfies TerminationReason[];
export const MERGE_ENDS = ['any', 'last', 'never'] as const satisfies MergeEnds[];
export const REACTION_KEYS = [
  'ci-failed',
  'review-comments',
  'merge-conflicts',
  'agent-idle',
  'approved-and-green',
  'agent-stuck',
  'agent-needs-input',
  'agent-exited',
  'pr-closed',
  'pr-merged',
] as const;
