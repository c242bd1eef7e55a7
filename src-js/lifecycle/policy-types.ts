/** What may be otherwise about reactions, for all sessions of a manager or of a project. */
import type { MergeEnds, ReactionKey } from './word-types';

/** What may be otherwise about reactions. What is left out is as it stands here. */
export interface ReactionPolicy {
  /** Reactions that do not happen. Default: none. */
  off?: ReactionKey[];
  /** Other texts. What checks and reviewers say is still added. */
  messages?: Partial<Record<ReactionKey, string>>;
  /** Milliseconds from a nudge that did not help until a person is told. Default 900,000. */
  escalateAfterMs?: number;
  /** After so many failed runs of a check in a row a person is told instead of the agent. Default 3. */
  ciBrakeRuns?: number;
  /** The agent is told of so many different reviews; then a person is. Default 3. */
  reviewMaxNudges?: number;
  /**
   * How many probes in a row that say the same unclear thing make a session stuck. Default 3. With probes every 5 seconds that is
   * sooner than `recentActivityWindowMs`: an active agent that dies suddenly is first reported as stuck. More attempts than
   * window / interval avoid it.
   */
  detectingMaxAttempts?: number;
  /** How long a quarantine lasts at most, in milliseconds. Default 300,000. */
  detectingMaxDurationMs?: number;
  /** Whether one message tells of all failed checks, not of the first alone. Default `false`. */
  allFailedChecks?: boolean;
  /** Which merged pull request ends its session. Default `any`. {@link SessionStore.setMergeEnds} says otherwise of one session. */
  mergeEnds?: MergeEnds;
  /**
   * Which of several open pull requests the status and the reactions follow: the `newest`, or the `worst`, so that one that fails is not hidden by
   * a newer one that passes. With `worst`, checks and reviews of all open ones are told to the agent. Default `newest`.
   */
  severalPrs?: 'newest' | 'worst';
}
