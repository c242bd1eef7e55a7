// What the demo and the process that it kills both know: which stores there are, and what batch number n writes into them.
import { createHash } from 'node:crypto';
import path from 'node:path';
import {
  OPENCODE_RUNTIME_STORE_DESCRIPTORS,
  RuntimeStoreBatchWriter,
  RuntimeStoreFileInspector,
  RuntimeStoreRecoveryExecutor,
  RuntimeStoreRecoveryPlanner,
  createRuntimeStoreManifestStore,
  createRuntimeStoreReceiptStore,
} from 'holdfast';

const teamName = 'demo';

/** The stores of every batch: four files of the built-in set. */
export const descriptors = OPENCODE_RUNTIME_STORE_DESCRIPTORS.slice(0, 4);

/** Opens everything for one runtime directory, with the defaults; only tests and demos pass `faults`. */
export function open(dir, { faults, batchIdFactory } = {}) {
  const manifest = createRuntimeStoreManifestStore({ filePath: path.join(dir, 'manifest.json'), teamName });
  const receipts = createRuntimeStoreReceiptStore({ filePath: path.join(dir, 'receipts.json') });
  const writer = new RuntimeStoreBatchWriter(dir, manifest, receipts, { faults, batchIdFactory });
  const planner = new RuntimeStoreRecoveryPlanner(descriptors, manifest, receipts, new RuntimeStoreFileInspector(dir));
  const executor = new RuntimeStoreRecoveryExecutor(dir, planner, writer, { faults });
  return { manifest, receipts, writer, executor };
}

/** What a plan expects to find; the ids are those that every batch carries. */
export const expectation = { teamName, expectedRunId: 'run-1', expectedCapabilitySnapshotId: null, expectedBehaviorFingerprint: null };

/** What store `index` holds after batch `number`: the number, and a text of 0 to 4 KB that follows from it. */
export function content(index, number) {
  const piece = createHash('sha256').update(`${index}/${number}`).digest('hex');
  return { number, text: piece.repeat((number * 7 + index * 13) % 64) };
}

/** Batch `number`: all stores carry the same number. */
export function batch(number) {
  return {
    teamName,
    runId: 'run-1',
    capabilitySnapshotId: null,
    behaviorFingerprint: null,
    reason: 'launch_checkpoint',
    writes: descriptors.map((descriptor, index) => ({ descriptor, data: content(index, number) })),
  };
}
