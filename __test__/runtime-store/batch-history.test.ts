/** A30, A31, retention, size limits, failed syncs, bound stores: many batches, and writers with options. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { createRuntimeStoreManifestStore, VersionedJsonStore } from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { dataOf, descriptorOf, EXPECTED, IDENTITY, LAUNCH, leftovers, NOW, openRuntime, readJson, rejection, SESSIONS, tempDir, tree, visible } from './support';

let dir: string;
beforeEach(() => {
  dir = tempDir();
});

const PROCESS = { durability: 'process' } as const;
const archived = () => readFileSync(join(dir, '.holdfast', 'receipts.archive.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line).batchId as string);

describe('retention', () => {
  it('A30, W1: 5000 two-store batches keep the receipts small and flat, with every entry\'s batch', async () => {
    const store = openRuntime(dir, PROCESS);
    await store.write([[descriptorOf('hostLeases'), 'once']]);
    const sizes: number[] = [];
    for (let i = 1; i <= 5000; i++) {
      await store.write([[LAUNCH, { i }], [SESSIONS, { i }]]);
      if (i === 100 || i % 1000 === 0) sizes.push(statSync(store.receiptsPath).size);
    }
    expect(Math.max(...sizes)).toBeLessThan(200_000);
    expect(Math.max(...sizes)).toBeLessThan(1.05 * Math.min(...sizes));
    const ids = (await store.receiptStore.list()).map(({ batchId }) => batchId);
    const { entries, highWatermark } = await store.manifestStore.read();
    expect(highWatermark).toBe(5001);
    expect(ids[0]).toBe('batch-1');
    expect(ids.at(-1)).toBe('batch-5001');
    const owners = (await store.receiptStore.list()).flatMap(({ receipts }) => receipts.map(({ receiptId }) => receiptId));
    for (const entry of entries) expect(owners).toContain(entry.lastWriteReceiptId);
    expect(await store.plan()).toMatchObject({ manifestHealthy: true });
  });

  it('keeps so many committed batches, archives the rest in order, and keeps all with "all"', async () => {
    const store = openRuntime(dir, { ...PROCESS, writer: { receiptRetention: 3 } });
    for (let i = 1; i <= 10; i++) await store.writePair(i);
    expect((await store.receiptStore.list()).map(({ batchId }) => batchId)).toEqual(['batch-8', 'batch-9', 'batch-10']);
    expect(archived()).toEqual(['batch-1', 'batch-2', 'batch-3', 'batch-4', 'batch-5', 'batch-6', 'batch-7']);
    dir = tempDir();
    const all = openRuntime(dir, { ...PROCESS, writer: { receiptRetention: 'all' } });
    for (let i = 1; i <= 25; i++) await all.writePair(i);
    expect(await all.receiptStore.list()).toHaveLength(25);
    expect(existsSync(join(dir, '.holdfast', 'receipts.archive.jsonl'))).toBe(false);
  });

  it('never drops an unresolved batch of the original', async () => {
    const store = openRuntime(dir, { ...PROCESS, writer: { receiptRetention: 1 } });
    await store.receiptStore.begin({ batchId: 'theirs', teamName: 'team-a', ...IDENTITY, reason: 'migration', startedAt: NOW, completedAt: null, receipts: [], lastError: null, state: 'preparing' });
    for (let i = 1; i <= 5; i++) await store.writePair(i);
    expect((await store.receiptStore.list()).map(({ batchId }) => batchId)).toEqual(['theirs', 'batch-5']);
    expect(await store.plan()).toMatchObject({ readinessImpact: 'blocked', diagnostics: ['Uncommitted runtime store batch detected: theirs'] });
  });
});

describe('several writers', () => {
  it('A31, W7, W8: four at once, 100 rounds: all committed, healthy, and a planner alongside never asks for quarantine', async () => {
    const writers = Array.from({ length: 4 }, (_, i) => openRuntime(dir, { ...PROCESS, idPrefix: `w${i}-` }));
    let over = false;
    let plans = 0;
    const planning = (async () => {
      for (; !over; plans++) {
        const plan = await writers[0]!.planner.buildPlan({ ...EXPECTED });
        // Before the first batch the stores are missing; nothing may ever look damaged.
        expect(plan.actions.filter(({ kind }) => kind === 'quarantine')).toEqual([]);
        if (plans > 0 && existsSync(join(dir, 'manifest.json'))) expect(JSON.stringify(plan.diagnostics)).not.toMatch(/mismatch|failed/);
      }
    })();
    for (let round = 0; round < 100; round++) {
      const batches = await Promise.all(writers.map((writer, i) => writer.writePair(`${round}/${i}`)));
      expect(batches.map(({ state }) => state)).toEqual(Array(4).fill('committed'));
      expect(await writers[1]!.plan()).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
      expect(dataOf(dir, 'launch-state.json')).toEqual(dataOf(dir, 'opencode-sessions.json'));
    }
    over = true;
    await planning;
    expect(plans).toBeGreaterThan(0);
    expect(await writers[0]!.manifestStore.read()).toMatchObject({ highWatermark: 400 });
    expect(leftovers(dir)).toEqual([]);
  });

  it('W7: updates of a store file and batches over it lose nothing of each other\'s', async () => {
    const store = openRuntime(dir, PROCESS);
    await store.write([[LAUNCH, { n: 0 }]]);
    const file = new VersionedJsonStore({ filePath: join(dir, 'launch-state.json'), schemaVersion: 1, defaultData: () => ({ n: 0 }), validate: (value) => value as { n: number }, ...PROCESS });
    let updates = 0;
    await Promise.all([
      (async () => {
        for (let i = 0; i < 50; i++) updates += Number((await file.updateLocked(({ n }) => ({ n: n + 1 }))).changed);
      })(),
      (async () => {
        for (let i = 0; i < 20; i++) await store.write([[SESSIONS, { i }]]);
      })(),
    ]);
    expect(updates).toBe(50);
    expect(dataOf(dir, 'launch-state.json')).toEqual({ n: 50 });
  });
});

describe('limits and failures', () => {
  it('maxFileBytes refuses the whole batch, naming the store, and nothing changes', async () => {
    const store = openRuntime(dir, { writer: { maxFileBytes: 500 } });
    await store.writePair('old');
    const before = tree(dir);
    expect(await rejection(store.write([[LAUNCH, 'new'], [SESSIONS, 'x'.repeat(500)]]))).toMatchObject({ hfCode: 'HF_RUNTIME_FILE_TOO_LARGE', message: expect.stringContaining('opencode-sessions.json') });
    expect(tree(dir)).toEqual(before);
    expect(await store.writePair('new')).toMatchObject({ state: 'committed' });
  });

  it('a failed sync leaves the directory as before, and poisons the writer, not the directory', async () => {
    const healthy = openRuntime(dir);
    await healthy.writePair('old');
    const before = visible(dir);
    const failing = openRuntime(dir, { idPrefix: 'x-', writer: { faults: [{ op: 'syncFile', action: { errno: 5 } }] } });
    expect(await rejection(failing.writePair('new'))).toMatchObject({ code: 'EIO', hfCode: 'HF_IO' });
    expect(visible(dir)).toEqual(before);
    expect(leftovers(dir)).toEqual([]);
    expect(await rejection(failing.writePair('new'))).toMatchObject({ hfCode: 'HF_POISONED', cause: expect.objectContaining({ code: 'EIO' }) });
    expect(visible(dir)).toEqual(before);
    expect(await openRuntime(dir, { idPrefix: 'y-' }).writePair('newer')).toMatchObject({ state: 'committed' });
  });

  it('a failed sync poisons a store, too; reading goes on', async () => {
    const filePath = join(dir, 'store.json');
    const options = { filePath, schemaVersion: 1, defaultData: () => 0, validate: Number };
    const store = new VersionedJsonStore({ ...options, faults: [{ op: 'syncFile', action: { errno: 5 } }] });
    expect(await rejection(store.updateLocked(() => 1))).toMatchObject({ code: 'EIO' });
    expect(tree(dir)).toEqual({});
    expect(await rejection(store.updateLocked(() => 1))).toMatchObject({ hfCode: 'HF_POISONED' });
    expect(await store.read()).toMatchObject({ status: 'missing' });
    expect(await new VersionedJsonStore(options).updateLocked(() => 1)).toMatchObject({ changed: true });
  });

  it('an ordinary I/O error poisons nothing', async () => {
    const store = openRuntime(dir, { writer: { faults: [{ op: 'create', action: { errno: 13 } }] } });
    expect(await rejection(store.writePair('new'))).toMatchObject({ code: 'EACCES', hfCode: 'HF_IO' });
    expect(visible(dir)).toEqual({});
    expect(await store.writePair('new')).toMatchObject({ state: 'committed' });
  });

  it('a failed last barrier is pending; the next batch settles it', async () => {
    const healthy = openRuntime(dir);
    await healthy.writePair('old');
    const pending = openRuntime(dir, { idPrefix: 'x-', writer: { faults: [{ op: 'syncDir', pathEnds: dir.split('/').at(-1), nth: 1, action: { errno: 5 } }] } });
    const error = await rejection(pending.writePair('new'));
    expect(error).toMatchObject({ name: 'RuntimeStoreBatchPendingError', hfCode: 'HF_RUNTIME_BATCH_PENDING', batchId: 'x-batch-1', outcome: 'unknown' });
    await openRuntime(dir, { idPrefix: 'y-' }).write([[descriptorOf('hostLeases'), 1]]);
    expect(dataOf(dir, 'launch-state.json')).toEqual({ version: 'new' });
    expect(await healthy.plan()).toMatchObject({ manifestHealthy: true });
    expect((await healthy.receiptStore.list()).map(({ batchId, state }) => [batchId, state])).toEqual([['batch-1', 'committed'], ['x-batch-1', 'committed'], ['y-batch-1', 'committed']]);
    expect(leftovers(dir)).toEqual([]);
  });
});

describe('a bound store', () => {
  const bind = (more: object = {}) => {
    const store = openRuntime(dir);
    const file = new VersionedJsonStore<{ n: number }>({
      filePath: join(dir, 'launch-state.json'), schemaVersion: 1, defaultData: () => ({ n: 0 }), validate: (value) => value as { n: number }, clock: () => new Date(NOW),
      manifest: { manifestStore: store.manifestStore, receiptStore: store.receiptStore, descriptor: LAUNCH }, ...more,
    });
    return { store, file };
  };

  it('leaves a receipt per update and stays healthy, in the active run', async () => {
    const { store, file } = bind();
    await store.write([[SESSIONS, {}]]);
    expect(await file.updateLocked(({ n }) => ({ n: n + 1 }))).toEqual({ changed: true, data: { n: 1 }, envelope: { schemaVersion: 1, updatedAt: NOW, data: { n: 1 } } });
    expect(await store.plan()).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
    expect((await store.receiptStore.list()).at(-1)).toMatchObject({ reason: 'delivery_commit', state: 'committed', ...IDENTITY });
    expect(await file.updateLocked((data) => data)).toMatchObject({ changed: false });
    expect((await store.manifestStore.read()).highWatermark).toBe(2);
    const bang = new Error('bang');
    expect(await rejection(file.updateLocked(() => Promise.reject(bang)))).toBe(bang);
    expect(leftovers(dir)).toEqual([]);
    expect(readJson(dir, 'launch-state.json').data).toEqual({ n: 1 });
  });

  it('loses no update among many, beside batches', async () => {
    const { store, file } = bind({ durability: 'process' });
    await store.manifestStore.setActiveRun(IDENTITY);
    await Promise.all([...Array.from({ length: 30 }, () => file.updateLocked(({ n }) => ({ n: n + 1 }))), ...Array.from({ length: 5 }, (_, i) => store.write([[SESSIONS, { i }]]))]);
    expect(dataOf(dir, 'launch-state.json')).toEqual({ n: 30 });
    expect(await store.manifestStore.read()).toMatchObject({ highWatermark: 35 });
    expect((await store.plan()).actions.map(({ kind }) => kind)).toEqual(['none', 'none']);
  });

  it('checks its binding', () => {
    expect(() => bind({ filePath: join(dir, 'other.json') })).toThrow(expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT' }));
    const other = createRuntimeStoreManifestStore({ filePath: join(dir, 'manifest.json'), teamName: 'team-a' });
    for (const manifest of [null, {}, { manifestStore: other }, { manifestStore: other, receiptStore: other, descriptor: LAUNCH }]) {
      expect(() => bind({ manifest })).toThrow(expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT' }));
    }
    writeFileSync(join(dir, 'untouched'), '');
    expect(Object.keys(tree(dir))).toEqual(['untouched']);
  });
});
