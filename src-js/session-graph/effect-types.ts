/** Effects: what a runtime does besides thinking, recorded so that it is not done twice. */
import type { SideStoreOptions } from './side-types';
import type { JsonValue } from './value-types';

/** How an {@link EffectReplayStore} is opened. */
export interface EffectReplayStoreOptions extends SideStoreOptions {
  /**
   * How long an effect belongs to a process that no longer says that it is at it: so long others wait after it was killed. The lease is
   * renewed every third of that while the effect runs. Milliseconds of 1 or more; default 30 000.
   */
  leaseTtlMs?: number;
}

/** What effects belong to. Effects of two scopes never meet, also where their ids are equal. */
export interface EffectScope {
  /** What it is. */
  type: 'turn' | 'process' | 'queueDrain' | 'sessionDelete' | 'runtimeOperation';
  /** The session, where there is one. */
  sessionId?: string | null;
  /** Its id, such as that of the turn. */
  id: string;
}

/** One effect. All of it is the same each time that the effect is asked for, `effectId` too. */
export interface EffectEnvelope {
  /** What it is called. */
  effectId: string;
  /** What kind of effect it is. `'sleep'` is done by the store itself: `command` is `{ durationMs }`. */
  kind: string;
  /** Which effect of its scope it is. */
  replayKey: string;
  /** What is to be done. */
  command: JsonValue;
}

/**
 * Does an effect. Its outcome is JSON or nothing; what it throws is recorded as well, unless that has `transient: true`.
 *
 * @param envelope The effect as it was when it was asked for: a copy. Of a sleep, `durationMs` is 0: it is over.
 * @param signal Aborted when the effect belongs to somebody else by now, or when the store is closed.
 */
export type RunEffect<T extends JsonValue | void = JsonValue> = (envelope: EffectEnvelope, signal: AbortSignal) => T | Promise<T>;

/** Effects of one scope. */
export interface ScopedEffects {
  /**
   * Does an effect that was never done, or returns what it came to. Whoever asks while somebody is at it waits, and gets the same.
   *
   * @param envelope The effect.
   * @param run Does it.
   * @returns The outcome as it is stored: a copy of what `run` returned.
   * @throws {EffectReplayError} `hfCode` says which: `HF_GRAPH_EFFECT_REPLAY_HASH_CONFLICT`, `_MISSING` (in a replay), `_LEASE_LOST`,
   *   `_STORE` (it was done, and could not be recorded), `_CORRUPT_ROW`, `_KEY_MISSING`.
   * @throws {InvalidArgumentError} It is asked for inside its own `run`, where it would wait for itself. Others may be.
   * @throws What the effect threw, when it was done; afterwards an `Error` with the same name, message and code.
   */
  execute<T extends JsonValue | void = JsonValue>(envelope: EffectEnvelope, run: RunEffect<T>): Promise<T>;
}
