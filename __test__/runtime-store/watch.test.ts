import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import {
  createRuntimeStoreManifestStore,
  VersionedJsonStoreError,
  watchRuntimeStoreManifest,
  type RuntimeStoreManifestChange,
  type RuntimeStoreManifestStore,
  type RuntimeStoreManifestWatcher,
  type RuntimeStoreWriteBatch,
} from 'holdfast';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

let root: string;
let folder: string;
let filePath: string;
let store: RuntimeStoreManifestStore;
const running: RuntimeStoreManifestWatcher[] = [];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'holdfast-watch-'));
  folder = join(root, 'runtime');
  filePath = join(folder, 'manifest.json');
  store = createRuntimeStoreManifestStore({ filePath, teamName: 'team-a' });
});
afterEach(async () => {
  for (const one of running.splice(0)) await one.close();
  rmSync(root, { recursive: true, force: true });
});

const batch = (batchId: string): RuntimeStoreWriteBatch => ({
  batchId, teamName: 'team-a', runId: 'run-1', capabilitySnapshotId: null, behaviorFingerprint: null, reason: 'launch_checkpoint',
  startedAt: '2026-04-21T12:00:00.000Z', completedAt: null, receipts: [], lastError: null, state: 'committed',
});
const commit = (batchId: string) => store.applyCommittedBatch(batch(batchId));
/** Starts a watch with a callback, and collects what it reports. */
const collect = (options: { signal?: AbortSignal; onError?: (error: unknown) => void } = {}) => {
  const seen: RuntimeStoreManifestChange[] = [];
  const watcher = watchRuntimeStoreManifest(store, (change) => void seen.push(change), options);
  running.push(watcher);
  return { seen, watcher, last: () => seen.at(-1)?.batchId ?? null };
};
const iterate = (options: { signal?: AbortSignal } = {}) => {
  const changes = watchRuntimeStoreManifest(store, options);
  running.push(changes);
  return changes;
};
const until = (check: () => unknown) => vi.waitFor(() => expect(check()).toBeTruthy(), { timeout: 20_000, interval: 5 });
/** Longer than the watch's own interval, so that it has had its chance to report what it must not. */
const settle = () => sleep(1200);

describe('the callback form', () => {
  it('reports a commit, with the manifest', async () => {
    await commit('batch-1');
    const { seen } = collect();
    await commit('batch-2');
    await until(() => seen.length > 0);
    expect(seen).toEqual([{ highWatermark: 2, batchId: 'batch-2', manifest: await store.read() }]);
  });

  it('reports a commit that begins in the same turn as the watch, and none from before', async () => {
    for (let round = 1; round <= 30; round++) {
      await commit(`before-${round}`);
      const { seen, watcher } = collect();
      await commit(`after-${round}`);
      await until(() => seen.length > 0);
      expect(seen.map(({ batchId }) => batchId)).toEqual([`after-${round}`]);
      await watcher.close();
    }
  });

  it('takes the manifest at the call for its start, not what it reads a moment later', async () => {
    await commit('batch-1');
    const json = JSON.parse(await readFile(filePath, 'utf8')) as { data: object };
    Object.assign(json.data, { highWatermark: 2, lastCommittedBatchId: 'at-once' });
    const { last } = collect();
    writeFileSync(filePath, JSON.stringify(json));
    await until(() => last() === 'at-once');
  });

  it('reports nothing when neither watermark nor last batch has changed', async () => {
    await commit('batch-1');
    const { seen } = collect();
    await store.markBatchPreparing({ ...batch('batch-2'), state: 'preparing' });
    // The same bytes under a new name, and neighbours that come and go.
    await writeFile(join(folder, 'copy'), await readFile(filePath));
    await rename(join(folder, 'copy'), filePath);
    await writeFile(join(folder, 'manifest.json.lock'), '1\n1\n');
    await rm(join(folder, 'manifest.json.lock'));
    await settle();
    expect(seen).toEqual([]);
  });

  it('ends with the newest manifest after a burst, with rising watermarks and fewer reports than commits at most', async () => {
    const { seen, last } = collect();
    for (let i = 1; i <= 100; i++) await commit(`batch-${i}`);
    await until(() => last() === 'batch-100');
    const watermarks = seen.map(({ highWatermark }) => highWatermark);
    expect(watermarks).toEqual([...new Set(watermarks)].sort((a, b) => a - b));
    expect(watermarks.length).toBeLessThanOrEqual(100);
  });

  it('sees the commits of another process', async () => {
    await commit('batch-1');
    const { last } = collect();
    const script = `
      const fs = require('node:fs');
      const [, file] = process.argv;
      const json = JSON.parse(fs.readFileSync(file, 'utf8'));
      Object.assign(json.data, { highWatermark: 2, lastCommittedBatchId: 'from-outside' });
      fs.writeFileSync(file + '.new', JSON.stringify(json));
      fs.renameSync(file + '.new', file);`;
    const child = spawn(process.execPath, ['-e', script, filePath], { stdio: 'inherit' });
    expect(await new Promise((done) => child.on('exit', done))).toBe(0);
    await until(() => last() === 'from-outside');
  });

  it('says nothing any more once close() was called, also from within the callback', async () => {
    const seen: RuntimeStoreManifestChange[] = [];
    const watcher = watchRuntimeStoreManifest(store, (change) => {
      seen.push(change);
      void watcher.close();
    });
    running.push(watcher);
    await commit('batch-1');
    await until(() => seen.length > 0);
    await commit('batch-2');
    await settle();
    expect(seen).toHaveLength(1);
    await watcher.close();
    await watcher[Symbol.asyncDispose]();
  });

  it('ends on abort, also when aborted before it began', async () => {
    const controller = new AbortController();
    const { seen } = collect({ signal: controller.signal });
    const late = collect({ signal: AbortSignal.abort() });
    controller.abort();
    await commit('batch-1');
    await settle();
    expect([...seen, ...late.seen]).toEqual([]);
  });
});

describe('the iterable form', () => {
  it('yields commits until the loop is left', async () => {
    const changes = iterate();
    const seen: (string | null)[] = [];
    await commit('batch-1');
    for await (const { batchId, highWatermark } of changes) {
      seen.push(batchId);
      if (highWatermark === 3) break;
      await commit(`batch-${highWatermark + 1}`);
    }
    expect(seen).toEqual(['batch-1', 'batch-2', 'batch-3']);
    expect(await changes.next()).toEqual({ done: true, value: undefined });
  });

  it('keeps only the newest for a reader that is busy', async () => {
    await commit('batch-0');
    const changes = iterate();
    const { last } = collect();
    for (let i = 1; i <= 20; i++) await commit(`batch-${i}`);
    await until(() => last() === 'batch-20');
    await settle();
    expect((await changes.next()).value?.batchId).toBe('batch-20');
    const next = changes.next();
    await commit('batch-21');
    expect((await next).value?.batchId).toBe('batch-21');
  });

  it('ends waiting readers on return(), close() and abort, without an error', async () => {
    const controller = new AbortController();
    const ways = [
      { changes: iterate(), end: (changes: ReturnType<typeof iterate>) => changes.return() },
      { changes: iterate(), end: (changes: ReturnType<typeof iterate>) => changes.close() },
      { changes: iterate(), end: (changes: ReturnType<typeof iterate>) => changes[Symbol.asyncDispose]() },
      { changes: iterate({ signal: controller.signal }), end: () => controller.abort() },
    ];
    for (const { changes, end } of ways) {
      const waiting = [changes.next(), changes.next()];
      await end(changes);
      expect(await Promise.all(waiting)).toEqual([{ done: true, value: undefined }, { done: true, value: undefined }]);
      expect(await changes.next()).toEqual({ done: true, value: undefined });
      await changes.return();
    }
  });

  it('ends at once when the signal was aborted before', async () => {
    const seen: unknown[] = [];
    for await (const change of iterate({ signal: AbortSignal.abort() })) seen.push(change);
    expect(seen).toEqual([]);
  });

  it('hands throw() back, and ends', async () => {
    const changes = iterate();
    const failure = new Error('enough');
    await expect(changes.throw?.(failure)).rejects.toBe(failure);
    expect((await changes.next()).done).toBe(true);
  });
});

describe('bad luck', () => {
  it('waits for a folder that is not there yet', async () => {
    const { last } = collect();
    await settle();
    await commit('batch-1');
    await until(() => last() === 'batch-1');
  });

  it('outlives the folder: a reset is a change to watermark 0, and later commits are seen', async () => {
    await commit('batch-1');
    await commit('batch-2');
    const { seen, last } = collect();
    await rm(folder, { recursive: true });
    await until(() => seen.at(-1)?.highWatermark === 0);
    expect(last()).toBeNull();
    await mkdir(folder);
    await commit('batch-3');
    await until(() => last() === 'batch-3');
    await commit('batch-4');
    await until(() => last() === 'batch-4');
  });

  it('follows the name when another folder takes its place', async () => {
    await commit('batch-1');
    const { last } = collect();
    await rename(folder, join(root, 'aside'));
    await commit('batch-2');
    await until(() => last() === 'batch-2');
    await commit('batch-3');
    await until(() => last() === 'batch-3');
  });

  it('outlives a manifest that cannot be read, reports it once, and does not take it for a commit', async () => {
    await commit('batch-1');
    const good = await readFile(filePath);
    const errors: unknown[] = [];
    const { seen, last } = collect({ onError: (error) => errors.push(error) });
    await writeFile(filePath, '{bad');
    await until(() => errors.length > 0);
    await settle();
    expect(errors.length).toBeLessThanOrEqual(2); // A write in place may be seen empty, too.
    expect(errors[0]).toBeInstanceOf(VersionedJsonStoreError);

    await writeFile(join(folder, 'good'), good);
    await rename(join(folder, 'good'), filePath);
    await settle();
    expect(seen).toEqual([]);
    await commit('batch-2');
    await until(() => last() === 'batch-2');
  });

  it('starts from the first readable manifest when the first one is not', async () => {
    await mkdir(folder);
    await writeFile(filePath, '{bad');
    const errors: unknown[] = [];
    const { seen, last } = collect({ onError: (error) => errors.push(error) });
    await until(() => errors.length > 0);
    await rm(filePath);
    await settle();
    expect(seen).toEqual([]);
    await commit('batch-1');
    await until(() => last() === 'batch-1');
  });

  it('outlives a manifest that is no file for a while', async () => {
    await commit('batch-1');
    const errors: unknown[] = [];
    const { seen, last } = collect({ onError: (error) => errors.push(error) });
    await rename(filePath, join(folder, 'aside'));
    await mkdir(filePath);
    await until(() => errors.length > 1);
    expect(errors.at(-1)).toMatchObject({ code: 'EISDIR' });
    await rm(filePath, { recursive: true });
    await rename(join(folder, 'aside'), filePath);
    await commit('batch-2');
    await until(() => last() === 'batch-2');
    // The moments without any manifest may have been seen, as a reset; nothing else may.
    expect(seen.map(({ highWatermark }) => highWatermark).filter((watermark) => watermark > 0).at(-1)).toBe(2);
  });

  it('ends when the manifest store is closed', async () => {
    const errors: unknown[] = [];
    const changes = iterate();
    collect({ onError: (error) => errors.push(error) });
    await commit('batch-1');
    expect((await changes.next()).value?.batchId).toBe('batch-1');
    await store.close();
    const other = createRuntimeStoreManifestStore({ filePath, teamName: 'team-a' });
    await other.applyCommittedBatch(batch('batch-2'));
    expect(await changes.next()).toEqual({ done: true, value: undefined });
    await until(() => errors.length > 0);
    expect(errors).toEqual([expect.objectContaining({ hfCode: 'HF_CLOSED' })]);
  });

  it('goes on after a callback that throws, which becomes an uncaught exception', async () => {
    const uncaught: unknown[] = [];
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (error) => uncaught.push(error));
    try {
      const failure = new Error('the listener fails');
      let calls = 0;
      running.push(
        watchRuntimeStoreManifest(store, () => {
          if (++calls === 1) throw failure;
        }),
      );
      await commit('batch-1');
      await until(() => uncaught.length > 0);
      expect(uncaught).toEqual([failure]);
      await commit('batch-2');
      await until(() => calls === 2);
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of listeners) process.on('uncaughtException', listener);
    }
  });
});

describe('Node', () => {
  it('is not kept alive by a watch, in either form', async () => {
    const script = `
      const [, testFile, filePath] = process.argv;
      const holdfast = require('node:module').createRequire(testFile)('holdfast');
      const store = holdfast.createRuntimeStoreManifestStore({ filePath, teamName: 'team-a' });
      holdfast.watchRuntimeStoreManifest(store, () => {});
      holdfast.watchRuntimeStoreManifest(store).next().then(() => console.log('a change out of nowhere'));
      // Long enough for the watches to be set up.
      setTimeout(() => console.log('done'), 300);`;
    await commit('batch-1');
    const child = spawn(process.execPath, ['-e', script, fileURLToPath(import.meta.url), filePath], {
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 20_000,
    });
    let printed = '';
    child.stdout.on('data', (text) => (printed += String(text)));
    expect(await new Promise((done) => child.on('close', done))).toBe(0);
    expect(printed).toBe('done\n');
  });
});

describe('bad arguments', () => {
  it.each<[string, unknown[]]>([
    ['manifestStore', [null]],
    ['manifestStore.read', [{}]],
    ['options', [undefined, 7]],
    ['options', [undefined, () => {}, null]],
    ['signal', [undefined, { signal: {} }]],
    ['onError', [undefined, () => {}, { onError: 'x' }]],
  ])('%s is named', (argument, args) => {
    const [first = store, ...rest] = args;
    const call = () => watchRuntimeStoreManifest(first as never, ...(rest as [never]));
    expect(call).toThrow(expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT', argument }));
  });
});
