/** Runs random steps on a store and on the model, and compares answers and contents. */
import type { BlobRef, SessionGraphStore } from 'holdfast';
import { expect } from 'vitest';

import { ARTIFACTS, Steps, random, type Step } from './steps';
import { Model, type View } from './model';

/** The first seed of this run: `HOLDFAST_SEED`, or another one each time. */
export const FIRST_SEED = Number(process.env.HOLDFAST_SEED ?? Date.now() % 1e9);

const base64 = (bytes: Uint8Array | null): string | null => (bytes === null ? null : Buffer.from(bytes).toString('base64'));

/** All that can be seen of a store. */
export async function observe(store: SessionGraphStore, refs: readonly BlobRef[]): Promise<View> {
  const session = async (scope: 'fullGraph' | 'activePath'): Promise<unknown> => {
    const read = await store.loadSession({ scope });
    const state = read?.checkpoint?.executionState;
    return state === undefined ? read : { ...read, checkpoint: { ...read!.checkpoint, executionState: `base64 ${base64(state)}` } };
  };
  const { headRevision, liveNodes, tombstonedNodes, blobBytes, queuedBatches } = await store.stats();
  return {
    full: await session('fullGraph'),
    path: await session('activePath'),
    usage: await store.loadUsageDeltas(),
    ledger: await store.tokenLedger(),
    queue: await Promise.all(['root', 'other'].flatMap((id) => [store.listQueuedWork(id), store.listPendingQueuedWork(id)])),
    uncommitted: await store.listUncommitted(1e6),
    meta: await store.loadSessionMeta(),
    stats: { headRevision, liveNodes, tombstonedNodes, blobBytes, queuedBatches },
    artifacts: await Promise.all(ARTIFACTS.map(async (name) => base64(await store.getNamedArtifact(name)))),
    blobs: await Promise.all(refs.map(async (ref) => base64(await store.getBlob(ref)))),
    problems: (await store.verify({ deep: true })).map(({ key }) => key),
  };
}

/** Expects that a store holds what the model holds. */
export async function compare(store: SessionGraphStore, steps: Steps): Promise<void> {
  const refs = [...steps.refs];
  expect(await observe(store, refs)).toEqual(steps.model.view(refs, ARTIFACTS));
}

export type Answer = { value: unknown } | { error: string };

/** Calls a method of a store. */
export async function callOf(store: SessionGraphStore, { method, args }: Step): Promise<Answer> {
  try {
    return { value: await (store[method] as (...args: unknown[]) => Promise<unknown>).apply(store, args) };
  } catch (error) {
    return { error: (error as Error).name };
  }
}

/** Expects that an answer is the model's; from now on the model is what it is after the call. */
export function settle(steps: Steps, step: Step, answer: Answer): void {
  const { outcome, accept } = step;
  if (outcome.errors !== undefined) expect(outcome.errors.map((error) => ({ error }))).toContainEqual(answer);
  else if (accept === undefined) expect(answer).toEqual({ value: outcome.value });
  else {
    expect(answer).toHaveProperty('value');
    accept((answer as { value: unknown }).value);
  }
  steps.model = outcome.after;
}

/** Runs `run`; what it throws says where, and how to do it again. */
export async function told(seed: number, log: string[], run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    const { message } = error as Error;
    (error as Error).message = `HOLDFAST_SEED=${seed}, after ${log.length} steps, the last ones\n  ${log.slice(-4).join('\n  ')}\n${message}`;
    throw error;
  }
}

export const shown = ({ method, args }: Step): string => `${String(method)}(${JSON.stringify(args).slice(0, 1500)})`;

/** One round: so many steps on a new store, which is closed and opened again now and then where that is possible. */
export async function round(seed: number, count: number, calculator: SessionGraphStore, open: () => Promise<SessionGraphStore>, reopens: boolean): Promise<Steps> {
  const pick = random(seed);
  const steps = new Steps(new Model(), calculator, pick);
  const log: string[] = [];
  let store = await open();
  await told(seed, log, async () => {
    for (let n = 1; n <= count; n++) {
      const step = await steps.next();
      log.push(shown(step));
      settle(steps, step, await callOf(store, step));
      if (reopens && pick(20) === 0) {
        log.push('close and open');
        await store.close();
        store = await open();
      }
      if (pick(8) === 0 || n === count) await compare(store, steps);
    }
  });
  await store.close();
  return steps;
}
