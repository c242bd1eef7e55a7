/** `EffectReplayStore`: what a runtime did, so that it is not done twice. */
import { randomUUID } from 'node:crypto';

import { checkFunction, checkPositiveInteger } from '../check';
import { checkCount, checkObject, guarded } from './arguments';
import { askedOf, scopeOf } from './effect-command';
import { replay, type Replaying } from './effect-run';
import type { EffectEnvelope, EffectReplayStoreOptions, EffectScope, RunEffect, ScopedEffects } from './effect-types';
import { StoreClosedError } from './errors';
import { SideCore } from './side-core';
import type { DurabilityTier, JsonValue } from './value-types';

/** Rows that one transaction forgets. */
const SLICE = 500;
/** Only the static functions make stores. */
const MAKE = Symbol('make');

/**
 * Effects of a runtime (calls of a model or a tool, sleeps), each done once. The first who asks for an effect does it; whoever asks later, in
 * this process or another, gets its recorded outcome; whoever asks meanwhile waits for it. When a process dies over an effect, the next one
 * who asks takes it over once its lease has lapsed: an effect is done at least once, and its outcome is recorded once.
 *
 * @example
 * ```ts
 * await using effects = await EffectReplayStore.open('effects.db');
 * const turn = effects.scoped({ type: 'turn', sessionId: 'chat', id: 'turn-1' });
 * const answer = await turn.execute({ effectId: 'e1', kind: 'model', replayKey: 'call-1', command: { prompt } }, (_, signal) => ask(prompt, signal));
 * ```
 */
export class EffectReplayStore implements AsyncDisposable {
  readonly #store: Replaying;

  /** @internal */
  constructor(make: symbol, store: Replaying) {
    if (make !== MAKE) throw new TypeError('use EffectReplayStore.open() or .memory()');
    this.#store = store;
  }

  /**
   * Opens a file, and makes it (not its folder) when it is missing. Any number of processes may do so at once.
   *
   * @throws {UnsupportedSchemaError} It is no file of effects, or of a version that this build cannot use; it was not touched.
   */
  static open(path: string, options: EffectReplayStoreOptions = {}): Promise<EffectReplayStore> {
    return EffectReplayStore.#open(path, options);
  }

  /** Makes a private store in memory, gone when it is closed. */
  static memory(options: EffectReplayStoreOptions = {}): Promise<EffectReplayStore> {
    return EffectReplayStore.#open(null, options);
  }

  static async #open(path: string | null, options: EffectReplayStoreOptions): Promise<EffectReplayStore> {
    checkObject(options, 'options');
    const leaseTtlMs = guarded(() => checkPositiveInteger(options.leaseTtlMs ?? 30_000, 'options.leaseTtlMs'));
    const core = await SideCore.open('effects', path, options, ['leaseTtlMs']);
    const ownerId = `${process.pid}:${randomUUID()}`;
    return new EffectReplayStore(MAKE, { core, leases: core.leases(), ownerId, leaseTtlMs, strict: false, running: new Set(), ended: undefined });
  }

  /** Where the file is, with links followed; `null` in memory. */
  get path(): string | null {
    return this.#store.core.path;
  }

  /** The version of the file. */
  get schemaVersion(): number {
    return this.#store.core.schemaVersion;
  }

  /** What a recorded outcome survives. */
  durabilityTier(): DurabilityTier {
    return this.#store.core.durabilityTier();
  }

  /**
   * From now on what is executed through this handle must be in the history: an effect that was never begun fails with
   * `HF_GRAPH_EFFECT_REPLAY_MISSING`, and is not done. One that was begun, and that nobody is at, is taken over.
   */
  startReplay(): void {
    this.#store.strict = true;
  }

  /**
   * Effects of a scope.
   *
   * @throws {EffectReplayError} `HF_GRAPH_EFFECT_REPLAY_KEY_MISSING`: it has no id.
   */
  scoped(scope: EffectScope): ScopedEffects {
    const checked = scopeOf(scope);
    return {
      execute: async <T extends JsonValue | void = JsonValue>(envelope: EffectEnvelope, run: RunEffect<T>): Promise<T> => {
        guarded(() => checkFunction(run, 'run'));
        const asked = askedOf(checked, envelope, this.#store.strict);
        return (await replay(this.#store, asked, run)) as T;
      },
    };
  }

  /**
   * Forgets effects that are over, or that nobody is at, for `olderThanMs`; never one that sleeps. What is forgotten is done again when it is
   * asked for, so forget only what no one replays any more, such as a scope whose turn is committed. Nothing is ever forgotten by itself.
   *
   * @param opts `scope`: only of that one.
   * @returns How many.
   */
  async prune(opts: { olderThanMs: number; scope?: EffectScope | null }): Promise<number> {
    checkObject(opts, 'opts');
    const scope = opts.scope === undefined || opts.scope === null ? null : scopeOf(opts.scope);
    const command = JSON.stringify({ do: 'pruneEffects', olderThanMs: checkCount(opts.olderThanMs, 'opts.olderThanMs'), scope, limit: SLICE });
    return this.#store.core.writeInSlices(command, SLICE);
  }

  /**
   * Ends: waits for what is being recorded, then closes the file. Effects that still run are told by their signals, and reject with
   * {@link StoreClosedError}; what they come to is not recorded, and others may take them over once their leases have lapsed. Closing again
   * is fine.
   */
  close(): Promise<void> {
    const { core, running } = this.#store;
    const ended = new StoreClosedError('the store was closed before the effect was over; wait for effects before closing');
    this.#store.ended ??= ended;
    for (const controller of running) controller.abort(ended);
    return core.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
