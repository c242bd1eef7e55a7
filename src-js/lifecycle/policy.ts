/** What a caller may have otherwise about reactions. */
import { checkArray, checkBooleanOrUndefined, checkOneOf, checkPlainObject, checkPositiveInteger, checkString } from '../check';
import { checkMillis } from './arguments';
import type { ReactionPolicy } from './manager-types';
import { REACTION_KEYS } from './words';

/** Requires a policy, or nothing; as the engine reads it. */
export function checkPolicy(policy: ReactionPolicy | undefined, argument: string): object | undefined {
  if (policy === undefined) return undefined;
  const { off = [], messages = {}, escalateAfterMs, ciBrakeRuns, reviewMaxNudges, detectingMaxAttempts, detectingMaxDurationMs, allFailedChecks, mergeEnds } =
    checkPlainObject(policy, argument);
  const texts = Object.entries(checkPlainObject(messages, `${argument}.messages`)).map(([key, text]) => [
    checkOneOf(key, `a key of ${argument}.messages`, REACTION_KEYS),
    checkString(text, `${argument}.messages[${JSON.stringify(key)}]`).toWellFormed(),
  ]);
  const millis = (value: number | undefined, name: string): number | undefined => (value === undefined ? undefined : checkMillis(value, `${argument}.${name}`));
  const count = (value: number | undefined, name: string): number | undefined =>
    value === undefined ? undefined : checkPositiveInteger(value, `${argument}.${name}`);
  const checked = {
    off: checkArray(off, `${argument}.off`).map((key, index) => checkOneOf(key, `${argument}.off[${index}]`, REACTION_KEYS)),
    messages: Object.fromEntries(texts),
    escalateAfterMs: millis(escalateAfterMs, 'escalateAfterMs'),
    ciBrakeRuns: count(ciBrakeRuns, 'ciBrakeRuns'),
    reviewMaxNudges: count(reviewMaxNudges, 'reviewMaxNudges'),
    detectingMaxAttempts: count(detectingMaxAttempts, 'detectingMaxAttempts'),
    detectingMaxDurationMs: millis(detectingMaxDurationMs, 'detectingMaxDurationMs'),
    allFailedChecks: checkBooleanOrUndefined(allFailedChecks, `${argument}.allFailedChecks`),
    mergeEnds: mergeEnds === undefined ? undefined : checkOneOf(mergeEnds, `${argument}.mergeEnds`, ['any', 'last']),
  };
  return Object.fromEntries(Object.entries(checked).filter(([, value]) => value !== undefined));
}
