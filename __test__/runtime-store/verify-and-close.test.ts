/** verify(): a read-only look for support; close(): how handles end. */
import { rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { VersionedJsonStore } from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { EXPECTED, fixedClock, LAUNCH, openRuntime, rejection, run, tempDir, tree } from './support';

let dir: string;
beforeEach(() => {
  dir = tempDir();
});

describe('verify()', () => {
  it('of a directory that is not there says so, and creates nothing', async () => {
    rmSync(dir, { recursive: true });
    expect(await openRuntime(dir).executor.verify(EXPECTED)).toMatchObject({
      plan: { readinessImpact: 'blocked' }, directory: dir, manifest: { bytes: null, fault: null }, receipts: { bytes: null, fault: null }, batches: 0, unresolved: [],
      openBatches: [], locks: [], temporaryFiles: [], quarantineFiles: [], archiveBytes: 0, manifestCopy: null,
    });
    expect(tree(dir)).toEqual({});
  });

  it('finds what is there: plan, batches, locks, temporary and quarantine files, archive', async () => {
    const store = openRuntime(dir, { writer: { receiptRetention: 1 } });
    for (let i = 1; i <= 3; i++) await store.writePair(i);
    writeFileSync(join(dir, 'launch-state.json.lock'), `${process.pid}\n1\n`);
    writeFileSync(join(dir, '.tmp.0b6c5f5e-0000-4000-8000-000000000000'), 'left');
    writeFileSync(join(dir, 'launch-state.json.invalid_json.2026-04-21T12-00-00-000Z.quarantine'), 'bad');
    const before = tree(dir);
    const report = await store.executor.verify(EXPECTED);
    expect(report).toMatchObject({
      plan: { manifestHealthy: true }, highWatermark: 3, batches: 1, unresolved: [], openBatches: [],
      manifest: { path: store.manifestPath, fault: null, bytes: expect.any(Number) }, receipts: { path: store.receiptsPath, fault: null },
      locks: [{ path: join(dir, 'launch-state.json.lock'), content: `${process.pid}\n1\n`, held: false }],
      temporaryFiles: [{ path: expect.stringContaining('.tmp.'), bytes: 4 }], quarantineFiles: [{ bytes: 3 }],
    });
    expect(report.archiveBytes).toBeGreaterThan(100);
    expect(tree(dir)).toEqual(before);
  });

  it('tells an interrupted batch from one that is being written', async () => {
    await openRuntime(dir, { idPrefix: 'old-' }).writePair('old');
    const slow = openRuntime(dir, { idPrefix: 'slow-', writer: { faults: [{ point: 'after_commit_point', action: { pauseMs: 1500 } }] } });
    const writing = slow.writePair('slow');
    const look = () => openRuntime(dir).executor.verify(EXPECTED);
    await expect.poll(async () => (await look()).openBatches, { timeout: 1400, interval: 5 }).toMatchObject([{ batchId: 'slow-batch-1', state: 'committed', alive: true }]);
    await writing;
    await run('batch-once.mjs', dir, 'new', '[{"point":"after_commit_point","action":"kill"}]');
    const before = tree(dir);
    expect(await look()).toMatchObject({ openBatches: [{ batchId: 'new-batch-1', state: 'committed', alive: false }], plan: { readinessImpact: 'degraded' } });
    expect(tree(dir)).toEqual(before);
  });

  it('reads through control files that are bad or newer', async () => {
    const store = openRuntime(dir);
    await store.writePair(1);
    writeFileSync(store.manifestPath, '{bad');
    expect(await store.executor.verify(EXPECTED)).toMatchObject({ plan: null, highWatermark: null, manifest: { fault: expect.stringMatching(/invalid_json|Invalid JSON/) } });
    writeFileSync(store.manifestPath, '{"schemaVersion":9,"updatedAt":"x","data":{}}');
    expect(await store.executor.verify(EXPECTED)).toMatchObject({ plan: null, manifest: { fault: expect.stringMatching(/future_schema|Future schema/) } });
  });
});

describe('leftovers (W22)', () => {
  it('recover() removes temporary files older than an hour, of the right name only', async () => {
    const store = openRuntime(dir);
    await store.writePair(1);
    const names = ['.tmp.0b6c5f5e-0000-4000-8000-000000000000', '.tmp.0b6c5f5e-0000-4000-8000-000000000001', '.tmp.mine', 'other.tmp'];
    for (const [i, name] of names.entries()) {
      writeFileSync(join(dir, name), '');
      const age = i === 1 ? 60 : 2 * 3600;
      utimesSync(join(dir, name), Date.now() / 1000 - age, Date.now() / 1000 - age);
    }
    const { steps } = await store.recover();
    expect(steps).toMatchObject([{ kind: 'remove_leftover', detail: join(dir, names[0]!) }]);
    expect(names.filter((name) => name in tree(dir))).toEqual(names.slice(1));
  });
});

describe('close()', () => {
  const file = () => new VersionedJsonStore({ filePath: join(dir, 'store.json'), schemaVersion: 1, defaultData: () => 0, validate: Number, clock: fixedClock });
  const closed = { hfCode: 'HF_CLOSED', code: 'HF_CLOSED', name: 'HoldfastError' };

  it('waits for what is in flight, refuses what comes later, and may be called twice', async () => {
    const store = file();
    let finished = false;
    const updating = store
      .updateLocked(async (n) => {
        await new Promise((resolve) => setTimeout(resolve, 50));
        return n + 1;
      })
      .then(() => (finished = true));
    const closing = store.close();
    expect(await rejection(store.updateLocked((n) => n))).toMatchObject(closed);
    expect(await rejection(store.read())).toMatchObject(closed);
    await closing;
    expect(finished).toBe(true);
    await updating;
    await store.close();
    expect((await file().read()).ok).toBe(true);
  });

  it('of a writer waits for its batches; the stores stay open', async () => {
    const { writer, writePair, manifestStore } = openRuntime(dir);
    const writing = writePair('in flight');
    await writer.close();
    expect(await rejection(writePair('late'))).toMatchObject(closed);
    expect(await writing).toMatchObject({ state: 'committed' });
    expect(await manifestStore.read()).toMatchObject({ highWatermark: 1 });
  });

  it('of manifest and receipt stores refuses their calls', async () => {
    const { manifestStore, receiptStore } = openRuntime(dir);
    await Promise.all([manifestStore.close(), receiptStore.close()]);
    for (const call of [() => manifestStore.read(), () => manifestStore.setActiveRun({ runId: null }), () => receiptStore.list(), () => receiptStore.listUncommitted('team-a')]) {
      expect(await rejection(call())).toMatchObject(closed);
    }
  });

  it('waits also for an update whose callback rejects', async () => {
    const store = file();
    const updating = rejection(store.updateLocked(() => Promise.reject(new Error('bang'))));
    await store.close();
    expect(await updating).toMatchObject({ message: 'bang' });
  });

  it('is what Symbol.asyncDispose does', async () => {
    const { writer, manifestStore, receiptStore, write } = openRuntime(dir);
    for (const handle of [writer, manifestStore, receiptStore, file()]) await handle[Symbol.asyncDispose]();
    expect(await rejection(write([[LAUNCH, 1]]))).toMatchObject(closed);
    expect(await rejection(manifestStore.read())).toMatchObject(closed);
    expect(await rejection(receiptStore.list())).toMatchObject(closed);
  });
});
