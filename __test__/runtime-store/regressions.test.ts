/** Bugs that were found by attacking the package from outside; each test opens with what went wrong. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import {
  createRuntimeStoreManifestStore,
  createRuntimeStoreReceiptStore,
  defineRuntimeStoreDescriptors,
  OPENCODE_RUNTIME_STORE_DESCRIPTORS,
  RuntimeStoreBatchWriter,
  VersionedJsonStore,
  withFileLock,
  type RuntimeStoreDescriptor,
} from 'holdfast';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const launch = OPENCODE_RUNTIME_STORE_DESCRIPTORS[0]!;
let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'holdfast-regressions-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

function open(descriptors: RuntimeStoreDescriptor[] = []) {
  const manifest = createRuntimeStoreManifestStore({ filePath: path.join(dir, 'manifest.json'), teamName: 'team-a', descriptors });
  const receipts = createRuntimeStoreReceiptStore({ filePath: path.join(dir, 'receipts.json'), descriptors });
  const writer = new RuntimeStoreBatchWriter(dir, manifest, receipts);
  const write = (used: RuntimeStoreDescriptor[], data: unknown = {}) =>
    writer.writeBatch({
      teamName: 'team-a',
      runId: 'run-1',
      capabilitySnapshotId: null,
      behaviorFingerprint: null,
      reason: 'launch_checkpoint',
      writes: used.map((descriptor) => ({ descriptor, data })),
    });
  return { manifest, receipts, write };
}

function own(count: number) {
  const { criticality, owner, rebuildStrategy } = launch;
  const make = (_: unknown, i: number) => ({ schemaName: `own.store${i}`, schemaVersion: 1, relativePath: `own/${i}.json`, criticality, owner, rebuildStrategy });
  return defineRuntimeStoreDescriptors(Array.from({ length: count }, make));
}

it('a schema name that the stores do not know is refused before anything is written (it made the directory unreadable)', async () => {
  const { write, manifest, receipts } = open();
  await write([launch]);
  for (const schemaName of ['own.store', 'opencode.launchstate', '__proto__', 'constructor']) {
    await expect(write([{ ...launch, schemaName: schemaName as never, relativePath: 'typo.json' }])).rejects.toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
  }
  expect(existsSync(path.join(dir, 'typo.json'))).toBe(false);
  expect((await manifest.read()).highWatermark).toBe(1);
  expect(await receipts.list()).toHaveLength(1);
});

it('a batch of 2,000 stores is written (taking its locks overflowed the stack)', async () => {
  const descriptors = own(2000);
  const { write, manifest } = open(descriptors);
  expect((await write(descriptors)).receipts).toHaveLength(2000);
  expect((await manifest.read()).entries).toHaveLength(2000);
});

describe('what was started under a lock and outlives it', () => {
  it('is no holder any more (its batches took no lock, and its own locks were refused)', async () => {
    const { write } = open();
    const target = path.join(dir, launch.relativePath);
    let later: (() => Promise<void>) | undefined;
    const done = new Promise<void>((resolve, reject) => {
      void withFileLock(target, async () => {
        later = async () => {
          await withFileLock(target, async () => {});
          const order: string[] = [];
          const other = withFileLock(target, async () => {
            await new Promise((wake) => setTimeout(wake, 50));
            order.push('other');
          });
          await write([launch]);
          order.push('batch');
          await other;
          expect(order).toEqual(['other', 'batch']);
        };
        setTimeout(() => later!().then(resolve, reject), 20);
      });
    });
    await done;
  });
});

it.runIf(process.platform === 'linux')('a FIFO where a file should be is an error (opening it never ended)', async () => {
  for (const name of [launch.relativePath, 'manifest.json', 'receipts.json']) {
    const { write } = open();
    await rm(path.join(dir, name), { force: true });
    execFileSync('mkfifo', [path.join(dir, name)]);
    await expect(write([launch])).rejects.toMatchObject({ code: 'EINVAL' });
    await rm(path.join(dir, name));
    await write([launch]);
  }
});

it('an update that asked for a sync never resolves by a write without one (a later store on the same file took the sync away)', async () => {
  const filePath = path.join(dir, 'shared.json');
  // Every sync fails: whoever resolves was written without one.
  const make = (durability: 'full' | 'process', index: number) =>
    new VersionedJsonStore<{ n: number }>({
      filePath,
      schemaVersion: 1,
      defaultData: () => ({ n: 0 }),
      validate: (value) => value as { n: number },
      durability,
      faults: [
        { op: 'syncFile', nth: 0, action: { errno: 5 } },
        // The first write takes its time, so that all the others go out together with the next one.
        ...(index === 0 ? [{ op: 'rename' as const, action: { pauseMs: 300 } }] : []),
      ],
    });
  const kinds = Array.from({ length: 41 }, (_, i) => (i % 2 === 0 ? ('process' as const) : ('full' as const)));
  const results = await Promise.allSettled(kinds.map((kind, i) => make(kind, i).updateLocked(({ n }) => ({ n: n + 1 }))));
  expect(results[0]?.status, 'the first one needs no sync and waits for nobody').toBe('fulfilled');
  expect(results.filter((result, i) => kinds[i] === 'full' && result.status === 'fulfilled')).toEqual([]);
});
