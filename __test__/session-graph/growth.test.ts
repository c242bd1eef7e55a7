/** 38: what has been stored does not slow the next commit or the next load down. */
import type { SessionGraphStore } from 'holdfast';
import { expect, test } from 'vitest';

import { append, node, open } from './support';

const median = (times: number[]): number => times.sort((a, b) => a - b)[times.length >> 1]!;

/** Appends nodes until there are so many. */
async function grow(store: SessionGraphStore, count: number): Promise<void> {
  for (let from = 1; from <= count; from += 5000) {
    const nodes = Array.from({ length: Math.min(5000, count - from + 1) }, (_, n) => node(`n${from + n}`, from + n > 1 ? `n${from + n - 1}` : null));
    await store.commitRuntimeState(append(nodes));
  }
}

test('38: an append costs the same at 100 and at 20,000 nodes', { timeout: 60_000 }, async () => {
  const [small, large] = await Promise.all([open(undefined, { durability: 'normal' }), open(undefined, { durability: 'normal' })]);
  await grow(small, 100);
  await grow(large, 20_000);
  const times: [number[], number[]] = [[], []];
  // In turns, so that whatever else the machine does falls on both.
  for (let round = 0; round < 200; round++) {
    for (const [index, store] of [small, large].entries()) {
      const begun = performance.now();
      await store.commitRuntimeState(append([node(`x${round}`, 'n100')]));
      times[index]!.push(performance.now() - begun);
    }
  }
  expect(median(times[1])).toBeLessThan(2 * median(times[0]));
});

test('38: a long ledger costs a load nothing', { timeout: 60_000 }, async () => {
  const store = await open(undefined, { durability: 'normal' });
  await grow(store, 10);
  const load = async (): Promise<number> => {
    const begun = performance.now();
    await store.loadSession({ scope: 'activePath' });
    return performance.now() - begun;
  };
  const times = async (): Promise<number> => {
    const all: number[] = [];
    for (let round = 0; round < 100; round++) all.push(await load());
    return median(all);
  };
  const before = await times();
  const entry = { source: 'turn', model: 'm', usage: { inputTokens: 1, outputTokens: 1, cachedInputTokens: 0, reasoningTokens: 0 } };
  await store.appendUsageDeltas(Array.from({ length: 100_000 }, () => entry));
  expect((await times()) - before).toBeLessThan(1);
  expect((await store.tokenLedger())[0]?.usage.inputTokens).toBe(100_000);
});
