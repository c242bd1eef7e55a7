/** R23 to R28, E4, W18, A9's manifest: the manifest by itself. */
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  createRuntimeStoreManifestStore,
  OPENCODE_RUNTIME_STORE_DESCRIPTORS,
  RuntimeStoreManifestStore,
  VersionedJsonStoreError,
  type RuntimeStoreManifest,
  type RuntimeStoreWriteBatch,
  type RuntimeStoreWriteReceipt,
} from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { fixedClock, IDENTITY, mtimeOf, NOW, readJson, rejection, tempDir } from './support';

let dir: string;
let filePath: string;
let now: Date;
beforeEach(() => {
  dir = tempDir();
  filePath = join(dir, 'manifest.json');
  now = new Date(NOW);
});

const open = () => createRuntimeStoreManifestStore({ filePath, teamName: 'team-a', clock: () => now });
const tick = () => {
  now = new Date(now.getTime() + 1000);
};
const receipt = (name: string, more: Partial<RuntimeStoreWriteReceipt> = {}): RuntimeStoreWriteReceipt => ({
  receiptId: `receipt-${name}`, batchId: 'batch-1', schemaName: `opencode.${name}` as never, teamName: 'team-a', ...IDENTITY, schemaVersion: 1,
  relativePath: `${name}.json`, contentHash: `sha256:${name}`, fileSize: 96, mtimeMs: 1795226252503.878, writtenAt: NOW, ...more,
});
const batch = (more: Partial<RuntimeStoreWriteBatch> = {}): RuntimeStoreWriteBatch => ({
  batchId: 'batch-1', teamName: 'team-a', ...IDENTITY, reason: 'launch_checkpoint', startedAt: NOW, completedAt: NOW, state: 'committed', receipts: [], lastError: null, ...more,
});
const empty: RuntimeStoreManifest = {
  schemaVersion: 1, teamName: 'team-a', activeRunId: null, activeCapabilitySnapshotId: null, activeBehaviorFingerprint: null, highWatermark: 0,
  lastCommittedBatchId: null, lastPreparingBatchId: null, entries: [], lastRecoveryPlanId: null, updatedAt: NOW,
};

describe('the manifest', () => {
  it('R23: a missing file reads as the default one of now, and is not created', async () => {
    tick();
    expect(await open().read()).toEqual({ ...empty, updatedAt: '2026-04-21T12:00:01.000Z' });
    expect(readdirSync(dir)).toEqual([]);
  });

  it('R23: a bad file throws VersionedJsonStoreError', async () => {
    writeFileSync(filePath, '{bad');
    expect(await rejection(open().read())).toBeInstanceOf(VersionedJsonStoreError);
    writeFileSync(filePath, JSON.stringify(empty));
    expect(await rejection(open().read())).toMatchObject({ reason: 'invalid_envelope' });
    expect(await rejection(open().setActiveRun({ runId: 'run-1' }))).toBeInstanceOf(VersionedJsonStoreError);
    expect(readJson(filePath)).toEqual(empty);
  });

  it('R24: setActiveRun trims, empties to null, keeps on undefined, clears on null', async () => {
    const store = open();
    expect(await store.setActiveRun({ runId: ' run-1 ', capabilitySnapshotId: 'cap-1', behaviorFingerprint: ' fp ' })).toEqual({
      ...empty, activeRunId: 'run-1', activeCapabilitySnapshotId: 'cap-1', activeBehaviorFingerprint: 'fp',
    });
    expect(await store.setActiveRun({ runId: 'run-2' })).toMatchObject({ activeRunId: 'run-2', activeCapabilitySnapshotId: 'cap-1', activeBehaviorFingerprint: 'fp' });
    expect(await store.setActiveRun({ runId: '  ', capabilitySnapshotId: null, behaviorFingerprint: ' ' })).toEqual(empty);
    expect(readdirSync(dir)).toEqual(['manifest.json']);
  });

  it('R24, R9: no change writes nothing, except into a missing file', async () => {
    const store = open();
    await store.setActiveRun({ runId: null });
    expect(existsSync(filePath)).toBe(true);
    const before = { text: readFileSync(filePath, 'utf8'), mtime: mtimeOf(filePath) };
    tick();
    await store.setActiveRun({ runId: null });
    expect({ text: readFileSync(filePath, 'utf8'), mtime: mtimeOf(filePath) }).toEqual(before);
  });

  it('R24: a watermark without entries and without a last batch is reset, and counts as a change', async () => {
    const write = (more: object) => writeFileSync(filePath, JSON.stringify({ schemaVersion: 1, updatedAt: NOW, data: { ...empty, highWatermark: 7, ...more } }));
    write({});
    tick();
    expect(await open().setActiveRun({ runId: null })).toMatchObject({ highWatermark: 0, updatedAt: '2026-04-21T12:00:01.000Z' });
    expect(readJson(filePath).data.highWatermark).toBe(0);
    write({ lastCommittedBatchId: 'b' });
    expect(await open().setActiveRun({ runId: null })).toMatchObject({ highWatermark: 7 });
  });

  it('R25, E4: markBatchPreparing and markRecoveryPlan set one id and updatedAt; repeated with a frozen clock they write nothing', async () => {
    const store = open();
    await store.markBatchPreparing(batch());
    expect(await store.read()).toEqual({ ...empty, lastPreparingBatchId: 'batch-1' });
    const mtime = mtimeOf(filePath);
    await store.markBatchPreparing(batch());
    expect(mtimeOf(filePath)).toBe(mtime);
    tick();
    await store.markRecoveryPlan({ planId: 'plan-1', teamName: 'team-a', runId: null, createdAt: NOW, manifestHealthy: true, readinessImpact: 'none', actions: [], diagnostics: [] });
    expect(await store.read()).toEqual({ ...empty, lastPreparingBatchId: 'batch-1', lastRecoveryPlanId: 'plan-1', updatedAt: '2026-04-21T12:00:01.000Z' });
  });

  it('R26: applyCommittedBatch takes the last receipt per name, the ids also when null, and counts', async () => {
    const store = open();
    await store.markBatchPreparing(batch({ batchId: 'other' }));
    const applied = await store.applyCommittedBatch(batch({ receipts: [receipt('launchState', { receiptId: 'first' }), receipt('sessionStore'), receipt('launchState', { receiptId: 'last' })] }));
    expect(applied).toMatchObject({ highWatermark: 1, lastCommittedBatchId: 'batch-1', lastPreparingBatchId: 'other', activeRunId: 'run-1' });
    expect(applied.entries.map((entry) => [entry.schemaName, entry.lastWriteReceiptId, entry.state])).toEqual([
      ['opencode.launchState', 'last', 'healthy'], ['opencode.sessionStore', 'receipt-sessionStore', 'healthy'],
    ]);
    await store.markBatchPreparing(batch({ batchId: 'batch-2' }));
    const next = await store.applyCommittedBatch(batch({ batchId: 'batch-2', runId: null, capabilitySnapshotId: null, behaviorFingerprint: null }));
    expect(next).toMatchObject({ highWatermark: 2, lastPreparingBatchId: null, activeRunId: null, activeCapabilitySnapshotId: null, activeBehaviorFingerprint: null });
    expect(next.entries).toEqual(applied.entries);
  });

  it('W18: applying a batch twice counts once', async () => {
    const store = open();
    await store.applyCommittedBatch(batch({ receipts: [receipt('launchState')] }));
    expect(await store.applyCommittedBatch(batch({ receipts: [receipt('launchState')] }))).toMatchObject({ highWatermark: 1 });
  });

  it('R27: entries are sorted by name', async () => {
    const names = [...OPENCODE_RUNTIME_STORE_DESCRIPTORS.map((descriptor) => descriptor.schemaName.slice('opencode.'.length)), 'e2eEvidence'].reverse();
    const applied = await open().applyCommittedBatch(batch({ receipts: names.map((name) => receipt(name)) }));
    expect(applied.entries.map((entry) => entry.schemaName)).toEqual(
      ['compatibilitySnapshot', 'deliveryJournal', 'e2eEvidence', 'hostLeases', 'launchState', 'launchTransaction', 'permissionRequests',
        'promptDeliveryLedger', 'runtimeDiagnostics', 'runtimeRevision', 'sessionStore'].map((name) => `opencode.${name}`),
    );
  });

  it('R28, §4.2: key order on disk; unknown keys of the manifest go, those of entries stay', async () => {
    await open().applyCommittedBatch(batch({ receipts: [receipt('launchState')] }));
    const json = readJson(filePath);
    expect(Object.keys(json.data)).toEqual(Object.keys(empty));
    expect(Object.keys(json.data.entries[0])).toEqual([
      'schemaName', 'schemaVersion', 'relativePath', 'contentHash', 'fileSize', 'mtimeMs', 'runId', 'capabilitySnapshotId', 'behaviorFingerprint', 'lastWriteReceiptId', 'state',
    ]);
    json.data.unknown = 1;
    json.data.entries[0].unknown = { kept: [1.5, '-0'] };
    writeFileSync(filePath, JSON.stringify(json));
    await open().setActiveRun({ runId: 'run-9' });
    expect(readJson(filePath).data.unknown).toBeUndefined();
    expect(readJson(filePath).data.entries[0].unknown).toEqual({ kept: [1.5, '-0'] });
  });

  it('loses no batch: 40 applied at once by several stores', async () => {
    await Promise.all(Array.from({ length: 40 }, (_, i) => open().applyCommittedBatch(batch({ batchId: `batch-${i}` }))));
    expect((await open().read()).highWatermark).toBe(40);
  });

  it('takes only a VersionedJsonStore of this package', () => {
    expect(() => new RuntimeStoreManifestStore({ read: () => {} } as never, fixedClock)).toThrow(expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT' }));
  });
});
