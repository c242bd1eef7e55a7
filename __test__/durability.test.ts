// @pool forks: what counts happens in processes of its own.
// Promises of docs/durability.md that need no power cut: full disks, failing disks, changed bytes, jumping clocks, newer files.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  OPENCODE_RUNTIME_STORE_DESCRIPTORS,
  RuntimeStoreBatchWriter,
  RuntimeStoreFileInspector,
  RuntimeStoreRecoveryExecutor,
  RuntimeStoreRecoveryPlanner,
  VersionedJsonStore,
  createRuntimeStoreManifestStore,
  createRuntimeStoreReceiptStore,
  type HoldfastError,
  type RuntimeStoreBatchWriterOptions,
  type RuntimeStoreFault,
} from 'holdfast';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const root = path.resolve(__dirname, '..');
const descriptors = OPENCODE_RUNTIME_STORE_DESCRIPTORS.slice(0, 2);
const expected = { teamName: 'crew', expectedRunId: 'run-1', expectedCapabilitySnapshotId: null, expectedBehaviorFingerprint: null };
let dir: string;

beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'holdfast-durability-'));
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

function open(options: RuntimeStoreBatchWriterOptions = {}) {
  const manifest = createRuntimeStoreManifestStore({ filePath: path.join(dir, 'manifest.json'), teamName: 'crew' });
  const receipts = createRuntimeStoreReceiptStore({ filePath: path.join(dir, 'receipts.json') });
  const writer = new RuntimeStoreBatchWriter(dir, manifest, receipts, options);
  const planner = new RuntimeStoreRecoveryPlanner(descriptors, manifest, receipts, new RuntimeStoreFileInspector(dir));
  const executor = new RuntimeStoreRecoveryExecutor(dir, planner, writer);
  const write = (number: number) =>
    writer.writeBatch({
      teamName: 'crew',
      runId: 'run-1',
      capabilitySnapshotId: null,
      behaviorFingerprint: null,
      reason: 'launch_checkpoint',
      writes: descriptors.map((descriptor) => ({ descriptor, data: { number } })),
    });
  return { manifest, receipts, planner, executor, write };
}

const onDisk = (name: string): string => readFileSync(path.join(dir, name), 'utf8');
const numbers = (): number[] => descriptors.map(({ relativePath }) => JSON.parse(onDisk(relativePath)).data.number);
const fileNames = (): string[] => readdirSync(dir).sort();
const failure = (promise: Promise<unknown>): Promise<HoldfastError> =>
  promise.then(
    () => expect.fail('it should have failed'),
    (error: HoldfastError) => error,
  );

/** Lets the first, the second, the third … operation of a kind fail, until a batch has no such operation any more. */
async function eachOf(op: NonNullable<RuntimeStoreFault['op']>, errno: number, check: (error: HoldfastError, store: ReturnType<typeof open>) => Promise<void>): Promise<number> {
  for (let nth = 1; ; nth += 1) {
    rmSync(dir, { recursive: true, force: true });
    await open().write(1);
    const store = open({ faults: [{ op, nth, action: { errno } }] });
    const error = await store.write(2).then(
      () => null,
      (thrown: HoldfastError) => thrown,
    );
    if (error === null) {
      // Either there is no nth operation, or it was one that costs nothing: then the batch is complete.
      expect(numbers()).toEqual([2, 2]);
      if (nth > 24) return nth;
      continue;
    }
    await check(error, store);
  }
}

describe('a disk that refuses', () => {
  const ENOSPC = 28;
  const EIO = 5;

  test.each(['create', 'write', 'createDir', 'link', 'rename'] as const)('full at any %s: everything is as before, and it works again when there is room', async (op) => {
    let refused = 0;
    await eachOf(op, ENOSPC, async (error, store) => {
      refused += 1;
      expect(error).toMatchObject({ code: 'ENOSPC', hfCode: 'HF_DISK_FULL' });
      expect(numbers()).toEqual([1, 1]);
      expect(await store.planner.buildPlan(expected)).toMatchObject({ manifestHealthy: true });
      expect(fileNames()).toEqual(['.holdfast', 'launch-state.json', 'manifest.json', 'opencode-sessions.json', 'receipts.json']);
      await store.write(3);
      expect(numbers()).toEqual([3, 3]);
    });
    expect(refused).toBeGreaterThan(0);
  });

  test('full for good: nothing is half visible, and reading goes on', async () => {
    await open().write(1);
    const store = open({ faults: [{ op: 'write', nth: 0, action: { errno: ENOSPC } }] });
    for (const number of [2, 3]) expect(await failure(store.write(number))).toMatchObject({ hfCode: 'HF_DISK_FULL' });
    expect(numbers()).toEqual([1, 1]);
    expect((await store.manifest.read()).highWatermark).toBe(1);
    expect(readdirSync(path.join(dir, '.holdfast/stage'))).toEqual([]);
  });

  test.each(['syncFile', 'syncDir'] as const)('EIO at any %s: not acknowledged, poisoned, and new handles find all or nothing', async (op) => {
    let refused = 0;
    await eachOf(op, EIO, async (error, store) => {
      refused += 1;
      expect(['HF_IO', 'HF_RUNTIME_BATCH_PENDING']).toContain(error.hfCode);
      expect(error).toMatchObject({ syncFailed: true });
      const next = await failure(store.write(3));
      expect(next).toMatchObject({ hfCode: 'HF_POISONED' });
      expect(next.cause).toBe(error);
      const { executor } = open();
      const { after } = await executor.recover(expected);
      expect(after).toMatchObject({ manifestHealthy: true });
      expect([
        [1, 1],
        [2, 2],
      ]).toContainEqual(numbers());
      await open().write(4);
      expect(numbers()).toEqual([4, 4]);
    });
    expect(refused).toBeGreaterThan(0);
  });

  test('a single file is as before when its bytes cannot be written or synced', async () => {
    const filePath = path.join(dir, 'one.json');
    const make = (faults?: RuntimeStoreFault[]) =>
      new VersionedJsonStore({ filePath, schemaVersion: 1, defaultData: () => 0, validate: (value) => value as number, faults });
    await make().updateLocked(() => 1);
    const before = readFileSync(filePath);
    const full = make([{ op: 'write', action: { errno: ENOSPC } }]);
    expect(await failure(full.updateLocked(() => 2))).toMatchObject({ hfCode: 'HF_DISK_FULL' });
    expect(readFileSync(filePath)).toEqual(before);
    expect((await full.updateLocked(() => 2)).changed).toBe(true);
    const failing = make([{ op: 'syncFile', action: { errno: EIO } }]);
    expect(await failure(failing.updateLocked(() => 3))).toMatchObject({ code: 'EIO', hfCode: 'HF_IO' });
    expect(await failure(failing.updateLocked(() => 3))).toMatchObject({ hfCode: 'HF_POISONED' });
    expect(await make().read()).toMatchObject({ ok: true, data: 2 });
    expect(fileNames()).toEqual(['one.json']);
  });
});

describe('what others do', () => {
  test('changed bytes are noticed, and kept when recovery puts the file aside', async () => {
    const { write, planner, executor } = open();
    await write(1);
    const file = path.join(dir, 'launch-state.json');
    const changed = onDisk('launch-state.json').replace('1\n  }', '7\n  }');
    writeFileSync(file, changed);
    expect((await planner.buildPlan(expected)).actions[0]).toMatchObject({ kind: 'quarantine', reason: 'hash_mismatch' });
    const { steps } = await executor.recover(expected);
    expect(steps).toMatchObject([{ kind: 'quarantine', schemaName: 'opencode.launchState' }]);
    const [copy] = fileNames().filter((name) => name.endsWith('.quarantine'));
    expect(copy).toContain('launch-state.json.hash_mismatch.');
    expect(onDisk(copy!)).toBe(changed);
  });

  test('a write between crash and recovery stays, and the rest of the batch is there', async () => {
    await open().write(1);
    const script = `
      const { writer, batch } = require(${JSON.stringify(path.join(__dirname, 'fixtures/two-stores.cjs'))})(${JSON.stringify(dir)}, [{ point: 'after_commit_point', action: 'kill' }]);
      writer.writeBatch(batch(2));
    `;
    const { signal, stderr } = spawnSync(process.execPath, ['-e', script], { cwd: root, encoding: 'utf8' });
    expect({ signal, stderr }).toEqual({ signal: 'SIGKILL', stderr: '' });
    const later = onDisk('launch-state.json').replace('"number": 1', '"number": 100');
    writeFileSync(path.join(dir, 'launch-state.json'), later);
    const { steps, after } = await open().executor.recover(expected);
    expect(onDisk('launch-state.json')).toBe(later);
    expect(numbers()).toEqual([100, 2]);
    expect(steps).toMatchObject([{ kind: 'keep_newer', schemaName: 'opencode.launchState' }, { kind: 'roll_forward' }]);
    expect(after.manifestHealthy).toBe(true);
  });

  test('files of a newer version are refused and stay to the byte', async () => {
    const { write, executor } = open();
    await write(1);
    for (const name of ['manifest.json', 'receipts.json']) {
      const before = onDisk(name);
      const newer = before.replace('"schemaVersion": 1', '"schemaVersion": 2');
      writeFileSync(path.join(dir, name), newer);
      const stores = fileNames();
      expect(await failure(write(2))).toMatchObject({ hfCode: 'HF_FORMAT_TOO_NEW' });
      expect(await failure(executor.recover(expected))).toMatchObject({ hfCode: 'HF_FORMAT_TOO_NEW' });
      expect(onDisk(name)).toBe(newer);
      expect(numbers()).toEqual([1, 1]);
      expect(fileNames().filter((file) => !file.endsWith('.quarantine'))).toEqual(stores.filter((file) => !file.endsWith('.quarantine')));
      writeFileSync(path.join(dir, name), before);
    }
    expect(await executor.recover(expected)).toMatchObject({ steps: [], after: { manifestHealthy: true } });
  });

  test('clocks may jump: no order depends on them', async () => {
    for (const [index, time] of ['2026-04-21T12:00:00.000Z', '1999-01-01T00:00:00.000Z', '2100-01-01T00:00:00.000Z', '2026-04-21T12:00:01.000Z'].entries()) {
      await open({ clock: () => new Date(time) }).write(index + 1);
    }
    const { manifest, receipts, executor } = open();
    expect(numbers()).toEqual([4, 4]);
    expect((await manifest.read()).highWatermark).toBe(4);
    expect((await receipts.list()).map(({ startedAt }) => startedAt.slice(0, 4))).toEqual(['2026', '1999', '2100', '2026']);
    expect(await executor.recover(expected)).toMatchObject({ steps: [], after: { manifestHealthy: true } });
  });
});
