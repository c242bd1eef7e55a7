/** One effect from the first question to its outcome. */
import { AsyncLocalStorage } from 'node:async_hooks';

import { bad } from './arguments';
import type { AskedEffect } from './effect-command';
import { isTransient, printError, printOutcome, reviveError, type StoredError } from './effect-outcome';
import type { EffectEnvelope } from './effect-types';
import { EffectReplayError, type StoreClosedError } from './errors';
import type { NativeLeases, SideCore } from './side-core';

/** Longest time between two looks at what somebody else does. */
const LOOK_MS = 25;
/** Longest time that a timer of JavaScript can wait. */
const TIMER_MAX_MS = 2_147_483_647;

/** How far an effect is. */
type Answer =
  | { state: 'completed'; outcome?: unknown }
  | { state: 'failed'; error: StoredError }
  | { state: 'busy'; leftMs: number }
  | { state: 'free' }
  | { state: 'claimed'; leaseToken: string; dueAtMs: number | null };

/** What an effect needs of its store. */
export interface Replaying {
  core: SideCore;
  leases: NativeLeases;
  ownerId: string;
  leaseTtlMs: number;
  /** Whether what is not in the history fails. */
  strict: boolean;
  /** Effects that run, so that closing the store can end them. */
  running: Set<AbortController>;
  /** Why nothing runs any more, once it is closed. */
  ended: StoreClosedError | undefined;
}

/** An effect whose `run` is called, and the one in whose `run` it was asked for. */
interface Nested {
  /** Where it is recorded: a path, or a store in memory. */
  place: string | SideCore;
  /** Its scope and replay key. */
  key: string;
  outer: Nested | undefined;
  isOver: boolean;
}

/** What the code that asks is a part of. */
const within = new AsyncLocalStorage<Nested>();

type Run = (envelope: EffectEnvelope, signal: AbortSignal) => unknown;

/** Does an effect, or returns what it came to. */
export async function replay(store: Replaying, asked: AskedEffect, run: Run): Promise<unknown> {
  const { core, ownerId, leaseTtlMs } = store;
  const nested = nestedIn(core, asked);
  const claim = `{"do":"claimEffect","asked":${asked.text},${JSON.stringify({ ownerId, leaseTtlMs, sleepMs: asked.sleepMs }).slice(1)}`;
  const look = `{"do":"lookEffect",${asked.text.slice(1)}`;
  // In a replay nearly everything is there: a look takes no write lock. Else nearly nothing is.
  let looks = store.strict;
  const answer = await core.until(
    async () => {
      let found = JSON.parse(await (looks ? core.read(look) : core.write(claim))) as Answer;
      if (found.state === 'free') found = JSON.parse(await core.write(claim)) as Answer;
      looks = true;
      return found.state === 'busy' ? undefined : found;
    },
    { everyMs: LOOK_MS },
  );
  switch (answer.state) {
    case 'completed':
      return answer.outcome;
    case 'failed':
      throw reviveError(answer.error);
    case 'claimed':
      return perform(store, asked, nested, run, answer);
    default:
      throw new TypeError(`an effect cannot be ${answer.state}`);
  }
}

/** Refuses an effect that is asked for in its own `run`: it would wait for itself. */
function nestedIn(core: SideCore, { key }: AskedEffect): Nested {
  const outer = within.getStore();
  const nested = { place: core.path ?? core, key: JSON.stringify(key), outer, isOver: false };
  for (let at = outer; at !== undefined; at = at.outer) {
    if (at.isOver || at.place !== nested.place || at.key !== nested.key) continue;
    throw bad('envelope.replayKey', 'another one inside the run of that effect, which would wait for itself', key.replayKey);
  }
  return nested;
}

/** Does what was claimed, and records what it comes to. */
async function perform(
  store: Replaying,
  { key, sleepMs, text }: AskedEffect,
  nested: Nested,
  run: Run,
  { leaseToken, dueAtMs }: { leaseToken: string; dueAtMs: number | null },
): Promise<unknown> {
  const { core, leases, leaseTtlMs, running } = store;
  // Closed while it was claimed.
  if (store.ended !== undefined) throw store.ended;
  const held = { key, leaseToken };
  // What was recorded: the caller may have changed his since.
  const { envelope } = JSON.parse(text) as { envelope: EffectEnvelope };
  const controller = new AbortController();
  const { signal } = controller;
  // Rejects as soon as the effect is not ours any more, whether `run` listens to its signal or not.
  const lost = new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true }));
  lost.catch(() => {});
  running.add(controller);
  leases.hold(leaseToken, JSON.stringify({ do: 'renewEffect', held, leaseTtlMs }), leaseTtlMs).catch((error: unknown) => controller.abort(error));
  const record = async (command: string, thrown?: unknown): Promise<void> => {
    // Closing waits for this call, and need not end it.
    running.delete(controller);
    try {
      await core.write(command);
    } catch (error) {
      throw asRecording(error, key, thrown);
    }
  };
  try {
    let ended: { outcome: string | undefined } | { thrown: unknown };
    try {
      const work = async (): Promise<unknown> => {
        if (sleepMs === null) return run(envelope, signal);
        if (dueAtMs !== null) await untilTime(dueAtMs, signal);
        return run({ ...envelope, command: { ...(envelope.command as object), durationMs: 0 } }, signal);
      };
      ended = { outcome: printOutcome(await Promise.race([within.run(nested, work), lost])) };
    } catch (thrown) {
      signal.throwIfAborted();
      ended = { thrown };
    }
    if ('outcome' in ended) {
      const { outcome } = ended;
      const result = outcome === undefined ? '' : `,"result":${outcome}`;
      await record(`{"do":"completeEffect","held":${JSON.stringify(held)}${result}}`);
      // What a replay gets.
      return outcome === undefined ? undefined : (JSON.parse(outcome) as unknown);
    }
    const { thrown } = ended;
    const isOver = !isTransient(thrown);
    const command = isOver ? { do: 'failEffect', held, result: JSON.parse(printError(thrown)) as unknown } : { do: 'releaseEffect', ...held };
    await record(JSON.stringify(command), thrown);
    throw thrown;
  } finally {
    nested.isOver = true;
    running.delete(controller);
    leases.letGo(leaseToken);
  }
}

/** Waits until the clock says so. */
async function untilTime(epochMs: number, signal: AbortSignal): Promise<void> {
  for (let left = epochMs - Date.now(); left > 0; left = epochMs - Date.now()) {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(over, Math.min(left, TIMER_MAX_MS));
      function over(): void {
        clearTimeout(timer);
        signal.removeEventListener('abort', over);
        resolve();
      }
      signal.addEventListener('abort', over, { once: true });
    });
    signal.throwIfAborted();
  }
}

/** The error of an effect that was done and not recorded; `thrown` is what it threw, if it did. */
function asRecording(error: unknown, key: AskedEffect['key'], thrown: unknown): unknown {
  if (error instanceof EffectReplayError) return error;
  const { scope, replayKey } = key;
  const text = `effect \`${replayKey}\` of ${scope.type} \`${scope.id}\` was done, but what it came to could not be recorded; it may be done again`;
  return new EffectReplayError(`effect_replay_store: ${text}`, {
    hfCode: 'HF_GRAPH_EFFECT_REPLAY_STORE',
    cause: error,
    fields: { scope, replayKey, ...(thrown === undefined ? {} : { thrown }) },
  });
}
