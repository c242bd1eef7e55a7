/** A batch inside a file lock reuses that lock, also while another batch wants it. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import {
  createRuntimeStoreManifestStore,
  createRuntimeStoreReceiptStore,
  OPENCODE_RUNTIME_STORE_DESCRIPTORS,
  RuntimeStoreBatchWriter,
  withFileLock,
} from 'holdfast';
import { afterEach, beforeEach, expect, it } from 'vitest';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'holdfast-nested-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

it('neither waits for itself nor for a batch that waits for it', async () => {
  const manifestStore = createRuntimeStoreManifestStore({ filePath: path.join(dir, 'manifest.json'), teamName: 'team-a' });
  const receiptStore = createRuntimeStoreReceiptStore({ filePath: path.join(dir, 'receipts.json') });
  const writer = new RuntimeStoreBatchWriter(dir, manifestStore, receiptStore);
  const descriptor = OPENCODE_RUNTIME_STORE_DESCRIPTORS[0]!;
  const write = (n: number) =>
    writer.writeBatch({
      teamName: 'team-a',
      runId: 'run-1',
      capabilitySnapshotId: null,
      behaviorFingerprint: null,
      reason: 'launch_checkpoint',
      writes: [{ descriptor, data: { n } }],
    });
  let other: Promise<unknown> = Promise.resolve();
  const started = Date.now();
  await withFileLock(path.join(dir, descriptor.relativePath), async () => {
    other = write(1);
    // Long enough for the other batch to hold the directory and wait for our file.
    await new Promise((resolve) => setTimeout(resolve, 30));
    await write(2);
  });
  await other;
  expect(Date.now() - started).toBeLessThan(3000);
  expect((await receiptStore.list()).map((batch) => batch.state)).toEqual(['committed', 'committed']);
  expect((await readdir(dir)).filter((name) => name.endsWith('.lock'))).toEqual([]);
});
