/** 38: what has been stored does not slow the next commit or the next load down. */
import type { SessionGraphStore } from 'holdfast';
import { expect, test } from 'vitest';

import { append, node, open } from './support';

/** What a call costs when nothing else on the machine is in its way. */
const usual = (times: number[]): number => times.sort((a, b) => a - b)[times.length >> 2]!;

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
  // What grows with the number of nodes would be many times as much.
  expect(usual(times[1])).toBeLessThan(3 * usual(times[0]));
});

test('38: a long ledger costs a load nothing', { timeout: 60_000 }, async () => {
  const [short, long] = await Promise.all([open(undefined, { durability: 'normal' }), open(undefined, { durability: 'normal' })]);
  for (const store of [short, long]) await grow(store, 10);
  const entry = { source: 'turn', model: 'm', usage: { inputTokens: 1, outputTokens: 1, cachedInputTokens: 0, reasoningTokens: 0 } };
  await short.appendUsageDeltas([entry]);
  await long.appendUsageDeltas(Array.from({ length: 100_000 }, () => entry));
  const times: [number[], number[]] = [[], []];
  for (let round = 0; round < 100; round++) {
    for (const [index, store] of [short, long].entries()) {
      const begun = performance.now();
      await store.loadSession({ scope: 'activePath' });
      times[index]!.push(performance.now() - begun);
    }
  }
  expect(usual(times[1])).toBeLessThan(3 * usual(times[0]));
  expect((await long.tokenLedger())[0]?.usage.inputTokens).toBe(100_000);
});
