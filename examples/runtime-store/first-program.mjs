import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import * as holdfast from 'holdfast/runtime-store';

const dir = await mkdtemp(path.join(tmpdir(), 'team-'));
const manifest = holdfast.createRuntimeStoreManifestStore({ filePath: path.join(dir, 'manifest.json'), teamName: 'crew' });
const receipts = holdfast.createRuntimeStoreReceiptStore({ filePath: path.join(dir, 'receipts.json') });
const writer = new holdfast.RuntimeStoreBatchWriter(dir, manifest, receipts);
const [launch, sessions] = holdfast.OPENCODE_RUNTIME_STORE_DESCRIPTORS;

const identity = { teamName: 'crew', runId: 'run-1', capabilitySnapshotId: null, behaviorFingerprint: null };
const writes = [{ descriptor: launch, data: { members: ['Ada'] } }, { descriptor: sessions, data: { sessions: [] } }];
const batch = await writer.writeBatch({ ...identity, reason: 'launch_checkpoint', writes });
console.log(batch.state, batch.receipts.map((receipt) => receipt.relativePath)); // both files are on the disk now
