/** Effects as commands of the addon. */
import { bad, checkCount, checkId, checkObject, checkWord, print } from './arguments';
import type { EffectEnvelope, EffectScope } from './effect-types';
import { EffectReplayError } from './errors';

const TYPES = ['turn', 'process', 'queueDrain', 'sessionDelete', 'runtimeOperation'] as const;

/** Requires a scope; one without an id is an error of its own. */
export function scopeOf(scope: EffectScope): EffectScope {
  checkObject(scope, 'scope', ['type', 'sessionId', 'id']);
  const type = checkWord(scope.type, 'scope.type', TYPES);
  const { sessionId, id } = scope;
  if (isMissing(id)) throw keyMissing(`a scope of type ${type} has no id`);
  if (sessionId === '') throw keyMissing(`the session of the scope ${type} \`${String(id)}\` is empty`);
  const session = sessionId === undefined || sessionId === null ? null : checkId(sessionId, 'scope.sessionId');
  return { type, sessionId: session, id: checkId(id, 'scope.id') };
}

/** An effect that was asked for. */
export interface AskedEffect {
  /** For commands about what was claimed. */
  key: { scope: EffectScope; replayKey: string };
  /** The same as JSON, with the envelope. */
  text: string;
  /** How long a sleep lasts; `null` for all else. */
  sleepMs: number | null;
}

/** Prints an effect. */
export function askedOf(scope: EffectScope, envelope: EffectEnvelope, strict: boolean): AskedEffect {
  checkObject(envelope, 'envelope', ['effectId', 'kind', 'replayKey', 'command']);
  const { effectId, kind, replayKey, command } = envelope;
  if (isMissing(replayKey)) {
    const session = typeof scope.sessionId === 'string' ? ` of session \`${scope.sessionId}\`` : '';
    throw keyMissing(`an effect of ${scope.type} \`${scope.id}\`${session} has no replay key`);
  }
  const checked = {
    effectId: checkId(effectId, 'envelope.effectId'),
    kind: checkId(kind, 'envelope.kind'),
    replayKey: checkId(replayKey, 'envelope.replayKey'),
    command,
  };
  // What JSON would leave out without a word.
  if (['undefined', 'function', 'symbol'].includes(typeof command)) throw bad('envelope.command', 'what JSON can say', command);
  const sleepMs = kind === 'sleep' ? checkCount((command as { durationMs?: unknown } | null)?.durationMs, 'envelope.command.durationMs') : null;
  const key = { scope, replayKey };
  const text = print({ key, envelope: checked, strict }, 'envelope');
  return { key, text, sleepMs };
}

function isMissing(text: unknown): boolean {
  return text === undefined || text === null || text === '';
}

function keyMissing(text: string): EffectReplayError {
  return new EffectReplayError(`effect_replay_key_missing: ${text}`, { hfCode: 'HF_GRAPH_EFFECT_REPLAY_KEY_MISSING' });
}
