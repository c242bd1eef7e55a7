// A store is damaged on disk; at the next start recovery puts the bad bytes aside and asks the application for new data.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import * as holdfast from 'holdfast';

const dir = await mkdtemp(path.join(tmpdir(), 'holdfast-rebuild-'));
const manifest = holdfast.createRuntimeStoreManifestStore({ filePath: path.join(dir, 'manifest.json'), teamName: 'crew' });
const receipts = holdfast.createRuntimeStoreReceiptStore({ filePath: path.join(dir, 'receipts.json') });
const writer = new holdfast.RuntimeStoreBatchWriter(dir, manifest, receipts);
const descriptors = holdfast.OPENCODE_RUNTIME_STORE_DESCRIPTORS.slice(0, 2);
const [launch, sessions] = descriptors;

// Yesterday: a batch, and then something that should not happen.
const identity = { teamName: 'crew', runId: 'run-1', capabilitySnapshotId: null, behaviorFingerprint: null };
const writes = [{ descriptor: launch, data: { members: ['Ada'] } }, { descriptor: sessions, data: { sessions: ['s-1'] } }];
await writer.writeBatch({ ...identity, reason: 'launch_checkpoint', writes });
await writeFile(path.join(dir, sessions.relativePath), '{ "sessions": [ "s-');

// Today: the provider still knows its sessions, and the descriptor says that they are to be asked for there.
const planner = new holdfast.RuntimeStoreRecoveryPlanner(descriptors, manifest, receipts, new holdfast.RuntimeStoreFileInspector(dir));
const executor = new holdfast.RuntimeStoreRecoveryExecutor(dir, planner, writer, {
  rebuild: {
    poll_opencode_provider: async ({ descriptor, reason, quarantinePath }) => {
      console.log(`asked for ${descriptor.schemaName}: ${reason}, the bad bytes are in ${path.basename(quarantinePath).replace(/\d.*Z/, '<time>')}`);
      return { data: { sessions: ['s-1'] } };
    },
  },
});
const expected = { teamName: 'crew', expectedRunId: 'run-1', expectedCapabilitySnapshotId: null, expectedBehaviorFingerprint: null };
const { before, steps, after } = await executor.recover(expected);
console.log(`before: ${before.readinessImpact}, ${before.actions.map(({ kind }) => kind).join(', ')}`);
console.log(`steps:  ${steps.map(({ kind }) => kind).join(', ')}`);
console.log(`after:  ${after.readinessImpact}, ${after.actions.map(({ kind }) => kind).join(', ')}`);

await rm(dir, { recursive: true });
