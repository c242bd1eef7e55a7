/** The pure deciders: no clock, no database, the same answer for the same facts. The managers decide with these very functions. */
import { checkOneOf, checkPlainObject, checkString } from '../check';
import { checkMillis, guarded } from './arguments';
import { NO_SIGNAL_AFTER_MS } from './constants';
import { detectingInput, factsInput, lifecycleInput, probeInput } from './inputs';
import { pure } from './native-store';
import type { LifecycleDecision, ProbeInput, SilenceInput } from './observation-types';
import type { DetectingInput, Lifecycle, LifecycleInput, PrFacts } from './record-types';
import { reviveDecision } from './revive';
import { checkTime } from './time';
import type { ReactionKey, SessionStatus, TimeInput } from './word-types';
import { TERMINATION_REASONS } from './words';

/**
 * Decides what a probe says about a session. Only one combination of facts is death: runtime and process both dead, and the agent not heard for
 * a while. What is not clear leads into quarantine, see {@link createDetectingDecision}.
 */
export function resolveProbeDecision(input: ProbeInput): LifecycleDecision {
  const checked = guarded(() => {
    const plain = probeInput(input);
    if (plain.process !== undefined) checkOneOf(plain.process, 'input.process', ['alive', 'dead', 'indeterminate']);
    if (plain.killReason !== undefined) checkOneOf(plain.killReason, 'input.killReason', TERMINATION_REASONS);
    return plain;
  });
  return reviveDecision(pure<LifecycleDecision>('resolveProbeDecision', checked));
}

/**
 * Decides about evidence that is not clear: quarantine, or `stuck` after {@link DETECTING_MAX_ATTEMPTS} probes that said the same, or
 * after {@link DETECTING_MAX_DURATION_MS}.
 */
export function createDetectingDecision(input: { evidence: string; prior?: DetectingInput | null; now: TimeInput }): LifecycleDecision {
  const checked = guarded(() => {
    const { evidence, prior = null, now } = checkPlainObject(input, 'input');
    return {
      evidence: checkString(evidence, 'input.evidence').toWellFormed(),
      prior: detectingInput(prior, 'input.prior'),
      now: checkTime(now, 'input.now'),
    };
  });
  return reviveDecision(pure<LifecycleDecision>('createDetectingDecision', checked));
}

/** SHA-256 of a text without times and with white space evened out, as 64 lower-case hex digits: the same evidence at another time has the same. */
export function hashEvidence(evidence: string): string {
  return pure('hashEvidence', guarded(() => checkString(evidence, 'evidence')).toWellFormed());
}

/**
 * What a person is shown of a session with such a pull request ({@link NO_PR} if it has none).
 *
 * @param silence With it, `no_signal` is shown in place of `spawning`, `working` and `idle` of a live session whose agent was never heard since the start
 *   of its runtime, which is some time ago: hooks that do not work look like a calm agent otherwise.
 */
export function deriveStatus(lifecycle: Lifecycle | LifecycleInput, pr: PrFacts, silence?: SilenceInput): SessionStatus {
  return pure('deriveStatus', { ...about(lifecycle, pr), ...(silence !== undefined && { silence: guarded(() => silenceInput(silence)) }) });
}

function silenceInput(silence: SilenceInput): object {
  const { launchedAt, now, noSignalAfterMs = NO_SIGNAL_AFTER_MS } = checkPlainObject(silence, 'silence');
  return {
    launchedAt: launchedAt === null ? null : checkTime(launchedAt, 'silence.launchedAt'),
    now: checkTime(now, 'silence.now'),
    noSignalAfterMs: checkMillis(noSignalAfterMs, 'silence.noSignalAfterMs'),
  };
}

/** What is to be done about a session with such a pull request when it comes to this; `null` = nothing. */
export function reactionFor(lifecycle: Lifecycle | LifecycleInput, pr: PrFacts): ReactionKey | null {
  return pure('reactionFor', about(lifecycle, pr));
}

function about(lifecycle: unknown, pr: unknown): object {
  return guarded(() => ({ lifecycle: lifecycleInput(lifecycle, 'lifecycle'), pr: factsInput(pr, 'pr') }));
}
