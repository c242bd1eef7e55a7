/** Ends in mid-call, floods of calls, and how long the event loop waits (A39). */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';

import { VersionedJsonStore } from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { dataOf, leftovers, openRuntime, readJson, run, tempDir } from './support';

let dir: string;
beforeEach(() => {
  dir = tempDir();
});

/** The directory is usable at once, all old or all new, and nothing is left after a recovery. */
async function isSound(): Promise<void> {
  const store = openRuntime(dir, { idPrefix: 'after-' });
  await store.recover();
  if ((await store.manifestStore.read()).highWatermark > 0) {
    expect(await store.plan()).toMatchObject({ manifestHealthy: true });
    expect(dataOf(dir, 'launch-state.json')).toEqual(dataOf(dir, 'opencode-sessions.json'));
  }
  const counter = new VersionedJsonStore({ filePath: join(dir, 'counter.json'), schemaVersion: 1, defaultData: () => 0, validate: Number });
  expect(await counter.updateLocked((n) => n + 1)).toMatchObject({ changed: true });
  expect(await store.writePair('after')).toMatchObject({ state: 'committed' });
  // The temporary file of a single update may stay until recovery finds it an hour old (W22); a batch leaves nothing.
  expect(leftovers(dir).filter((name) => !name.startsWith('.tmp.'))).toEqual([]);
}

describe('ends in mid-call', () => {
  it.each([0, 3, 20, 60])('process.exit after %i ms', async (ms) => {
    for (let round = 0; round < 3; round++) expect(await run('end-in-flight.mjs', 'exit', ms, dir)).toEqual({ code: 7, signal: null, out: '', err: '' });
    await isSound();
  });

  it('an uncaught exception', async () => {
    const { code, signal, err } = await run('end-in-flight.mjs', 'throw', 20, dir);
    expect({ code, signal }).toEqual({ code: 1, signal: null });
    expect(err).toContain('on purpose');
    await isSound();
  });

  it.each([3, 17])('workers that are terminated, after 40 ms and %i ms more each', async (ms) => {
    expect(await run('end-in-flight.mjs', 'terminate', ms, dir)).toEqual({ code: 0, signal: null, out: 'terminated\n', err: '' });
    await isSound();
  });
});

describe('floods', () => {
  it('10,000 calls that nobody awaits settle, and the store works on', async () => {
    const open = (name: string) => new VersionedJsonStore<number>({ filePath: join(dir, name), schemaVersion: 1, defaultData: () => 0, validate: Number, durability: 'process', lockOptions: { acquireTimeoutMs: 55_000 } });
    let settled = 0;
    const count = () => void settled++;
    for (let i = 0; i < 9000; i++) void open(`read-${i % 50}.json`).read().then(count, count);
    const counter = open('counter.json');
    for (let i = 0; i < 1000; i++) void counter.updateLocked((n) => n + 1).then(count);
    await expect.poll(() => settled, { timeout: 50_000, interval: 20 }).toBe(10_000);
    expect(await counter.read()).toMatchObject({ data: 1000 });
  });

  it('500 batches at once all commit, one after the other', async () => {
    const store = openRuntime(dir, { durability: 'process', lockOptions: { acquireTimeoutMs: 50_000 } });
    const batches = await Promise.all(Array.from({ length: 500 }, (_, i) => store.writePair(i)));
    expect(new Set(batches.map(({ batchId }) => batchId)).size).toBe(500);
    expect(await store.manifestStore.read()).toMatchObject({ highWatermark: 500 });
    expect(await store.plan()).toMatchObject({ manifestHealthy: true });
  });

  it('200 plans and inspections of large stores at once', async () => {
    const store = openRuntime(dir);
    await store.writePair('x'.repeat(200_000));
    const plans = await Promise.all(Array.from({ length: 200 }, () => store.plan()));
    expect(plans.every(({ manifestHealthy }) => manifestHealthy)).toBe(true);
  });
});

describe('the event loop', () => {
  const large = { rows: Array.from({ length: 50_000 }, (_, id) => ({ id, text: `row ${id} ${'x'.repeat(160)}` })) };
  /** The longest that one parse and one stringify of the data block this machine, in ms. */
  function ownCost(): number {
    let longest = 0;
    for (let i = 0; i < 3; i++) {
      const began = performance.now();
      JSON.parse(JSON.stringify(large));
      longest = Math.max(longest, performance.now() - began);
    }
    return longest;
  }
  /** The longest pause of the event loop while `work` runs, in ms. */
  async function longestPause(work: () => Promise<unknown>): Promise<number> {
    const monitor = monitorEventLoopDelay({ resolution: 1 });
    monitor.enable();
    await new Promise((resolve) => setTimeout(resolve, 20));
    monitor.reset();
    await work();
    await new Promise((resolve) => setTimeout(resolve, 5));
    monitor.disable();
    return monitor.max / 1e6;
  }

  it('A39: an update of 10 MB blocks it no longer than the callbacks, one parse and one stringify', async () => {
    mkdirSync(dir, { recursive: true });
    const filePath = join(dir, 'large.json');
    writeFileSync(filePath, JSON.stringify({ schemaVersion: 1, updatedAt: 'then', data: large }));
    const store = new VersionedJsonStore({ filePath, schemaVersion: 1, defaultData: () => large, validate: (value) => value as typeof large });
    let n = 0;
    const update = () =>
      store.updateLocked((data) => {
        data.rows[0]!.text = `changed ${n++}`;
        return data;
      });
    await update();
    const cost = ownCost();
    const pauses: number[] = [];
    for (let i = 0; i < 3; i++) pauses.push(await longestPause(update));
    // The best of three: another process of this machine may have had the core.
    expect(Math.min(...pauses)).toBeLessThan(3 * cost + 20);
    expect(readJson(filePath).data.rows[0].text).toBe('changed 3');
  });

  it('plans over large stores leave it free', async () => {
    const store = openRuntime(dir);
    await store.writePair(large);
    const pauses: number[] = [];
    for (let i = 0; i < 3; i++) pauses.push(await longestPause(() => store.plan()));
    expect(Math.min(...pauses)).toBeLessThan(50);
  });
});
