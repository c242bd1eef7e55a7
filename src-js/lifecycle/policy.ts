/** What a caller may have otherwise about reactions. */
import { checkArray, checkBooleanOrUndefined, checkOneOf, checkPlainObject, checkPositiveInteger, checkString } from '../check';
import { checkMillis } from './arguments';
import type { ReactionPolicy } from './policy-types';
import { MERGE_ENDS, REACTION_KEYS } from './words';

const policies = new WeakMap<object, ReactionPolicy>();

/** Notes the policy of a manager, for those who show what it decides. */
export function registerPolicy(manager: object, policy: ReactionPolicy | undefined): void {
  if (policy !== undefined) policies.set(manager, policy);
}

/** The policy of a manager; `undefined` if it has none. */
export function policyOf(manager: object): ReactionPolicy | undefined {
  return policies.get(manager);
}

/** Requires a policy, or nothing; as the engine reads it. */
export function checkPolicy(policy: ReactionPolicy | undefined, argument: string): ReactionPolicy | undefined {
  if (policy === undefined) return undefined;
  const { off, messages, escalateAfterMs, ciBrakeRuns, reviewMaxNudges, detectingMaxAttempts, detectingMaxDurationMs, allFailedChecks, mergeEnds, severalPrs } =
    checkPlainObject(policy, argument);
  const millis = (value: number | undefined, name: string): number | undefined => (value === undefined ? undefined : checkMillis(value, `${argument}.${name}`));
  const count = (value: number | undefined, name: string): number | undefined =>
    value === undefined ? undefined : checkPositiveInteger(value, `${argument}.${name}`);
  const checked = {
    off: off === undefined ? undefined : checkArray(off, `${argument}.off`).map((key, index) => checkOneOf(key, `${argument}.off[${index}]`, REACTION_KEYS)),
    messages: messages === undefined ? undefined : checkTexts(messages, `${argument}.messages`),
    escalateAfterMs: millis(escalateAfterMs, 'escalateAfterMs'),
    ciBrakeRuns: count(ciBrakeRuns, 'ciBrakeRuns'),
    reviewMaxNudges: count(reviewMaxNudges, 'reviewMaxNudges'),
    detectingMaxAttempts: count(detectingMaxAttempts, 'detectingMaxAttempts'),
    detectingMaxDurationMs: millis(detectingMaxDurationMs, 'detectingMaxDurationMs'),
    allFailedChecks: checkBooleanOrUndefined(allFailedChecks, `${argument}.allFailedChecks`),
    mergeEnds: mergeEnds === undefined ? undefined : checkOneOf(mergeEnds, `${argument}.mergeEnds`, MERGE_ENDS),
    severalPrs: severalPrs === undefined ? undefined : checkOneOf(severalPrs, `${argument}.severalPrs`, ['newest', 'worst']),
  };
  return Object.fromEntries(Object.entries(checked).filter(([, value]) => value !== undefined));
}

function checkTexts(messages: object, argument: string): object {
  const texts = Object.entries(checkPlainObject(messages, argument)).map(([key, text]) => [
    checkOneOf(key, `a key of ${argument}`, REACTION_KEYS),
    checkString(text, `${argument}[${JSON.stringify(key)}]`).toWellFormed(),
  ]);
  return Object.fromEntries(texts) as object;
}
