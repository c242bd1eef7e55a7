/** A1, A9, A10, A27 to A29, A32, A33, E2, E3: one batch at a time, good and bad. */
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  computeRuntimeStoreContentHash,
  defineRuntimeStoreDescriptors,
  HoldfastError,
  OPENCODE_RUNTIME_STORE_DESCRIPTORS,
  RuntimeStorePathError,
  type RuntimeStoreDescriptor,
} from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { descriptorOf, EXPECTED, IDENTITY, LAUNCH, leftovers, NOW, openRuntime, readJson, rejection, SESSIONS, tempDir, tree, visible } from './support';

let dir: string;
beforeEach(() => {
  dir = tempDir();
});

describe('a batch', () => {
  it('A1: writes two stores into an empty directory', async () => {
    const store = openRuntime(dir);
    const batch = await store.writePair('new');
    expect(batch).toMatchObject({ batchId: 'batch-1', teamName: 'team-a', ...IDENTITY, reason: 'launch_checkpoint', startedAt: NOW, completedAt: NOW, state: 'committed', lastError: null });
    expect(batch.receipts.map(({ receiptId, schemaName, batchId, runId }) => [receiptId, schemaName, batchId, runId])).toEqual([
      ['receipt-1', 'opencode.launchState', 'batch-1', 'run-1'], ['receipt-2', 'opencode.sessionStore', 'batch-1', 'run-1'],
    ]);
    expect(await store.receiptStore.list()).toEqual([batch]);
    expect(await store.manifestStore.read()).toMatchObject({
      activeRunId: 'run-1', activeCapabilitySnapshotId: 'cap-1', activeBehaviorFingerprint: 'behavior-1', highWatermark: 1, lastCommittedBatchId: 'batch-1', lastPreparingBatchId: null,
      entries: [
        { schemaName: 'opencode.launchState', state: 'healthy', lastWriteReceiptId: 'receipt-1' },
        { schemaName: 'opencode.sessionStore', state: 'healthy', lastWriteReceiptId: 'receipt-2' },
      ],
    });
    expect(Object.keys(visible(dir)).sort()).toEqual(['launch-state.json', 'manifest.json', 'opencode-runtime-receipts.json', 'opencode-sessions.json']);
    expect(leftovers(dir)).toEqual([]);
  });

  it('A9: the file is the vector of the format, and receipt, manifest and inspector agree', async () => {
    const store = openRuntime(dir);
    const { receipts: [receipt] } = await store.write([[LAUNCH, { v: 1 }]]);
    const path = join(dir, 'launch-state.json');
    const text = readFileSync(path, 'utf8');
    const contentHash = 'sha256:10693281d5ac682b3b4876998a4d8d0f4cbed78c9242cb81d658673b4000826a';
    expect(text).toBe('{\n  "schemaVersion": 1,\n  "updatedAt": "2026-04-21T12:00:00.000Z",\n  "data": {\n    "v": 1\n  }\n}\n');
    expect(computeRuntimeStoreContentHash(text)).toBe(contentHash);
    expect(receipt).toMatchObject({ contentHash, fileSize: 96, mtimeMs: statSync(path).mtimeMs, writtenAt: NOW });
    const manifest = await store.manifestStore.read();
    expect(manifest.entries[0]).toMatchObject({ contentHash, fileSize: 96, mtimeMs: receipt!.mtimeMs });
    const inspected = await store.inspector.inspect({ descriptor: LAUNCH, manifest });
    expect(inspected).toMatchObject({ state: 'healthy', message: null, entry: { contentHash, fileSize: 96 }, manifestEntry: { contentHash } });
  });

  it('A10, R27: the manifest lists ten stores by name, whatever the order of the writes', async () => {
    const store = openRuntime(dir, { descriptors: OPENCODE_RUNTIME_STORE_DESCRIPTORS });
    await store.write([...OPENCODE_RUNTIME_STORE_DESCRIPTORS].reverse().map((descriptor) => [descriptor, {}]));
    const names = (await store.manifestStore.read()).entries.map(({ schemaName }) => schemaName as string);
    expect(names).toEqual(
      ['compatibilitySnapshot', 'deliveryJournal', 'hostLeases', 'launchState', 'launchTransaction', 'permissionRequests', 'promptDeliveryLedger',
        'runtimeDiagnostics', 'runtimeRevision', 'sessionStore'].map((name) => `opencode.${name}`),
    );
    expect(await store.plan()).toMatchObject({ manifestHealthy: true });
  });

  it('E2: two writes to one store give two receipts; file and manifest have the last', async () => {
    const store = openRuntime(dir);
    const batch = await store.write([[LAUNCH, 'first'], [SESSIONS, 's'], [LAUNCH, 'last']]);
    expect(batch.receipts.map(({ receiptId }) => receiptId)).toEqual(['receipt-1', 'receipt-2', 'receipt-3']);
    expect(readJson(dir, 'launch-state.json').data).toBe('last');
    expect((await store.manifestStore.read()).entries[0]).toMatchObject({ lastWriteReceiptId: 'receipt-3', contentHash: batch.receipts[2]!.contentHash });
    expect(batch.receipts[0]!.contentHash).not.toBe(batch.receipts[2]!.contentHash);
    expect(await store.plan()).toMatchObject({ manifestHealthy: true });
  });

  it('E3: no writes is legal, commits, and counts', async () => {
    const store = openRuntime(dir);
    expect(await store.write([])).toMatchObject({ state: 'committed', receipts: [] });
    expect(await store.manifestStore.read()).toMatchObject({ highWatermark: 1, lastCommittedBatchId: 'batch-1', activeRunId: 'run-1' });
  });

  it('data: undefined leaves the key out; folders of a path are made; a leading slash is inside', async () => {
    const store = openRuntime(dir);
    const nested = { ...LAUNCH, relativePath: '/deep/er/./launch.json' };
    await store.write([[nested, undefined]]);
    expect(Object.keys(readJson(dir, 'deep/er/launch.json'))).toEqual(['schemaVersion', 'updatedAt']);
  });

  it('the same store again, the same bytes again: new receipt, watermark up, healthy', async () => {
    const store = openRuntime(dir);
    for (let i = 0; i < 3; i++) await store.writePair('same');
    expect(await store.manifestStore.read()).toMatchObject({ highWatermark: 3, lastCommittedBatchId: 'batch-3' });
    expect(await store.plan()).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
  });
});

describe('refused batches', () => {
  it('A27: data that cannot be serialised gives the engine\'s own TypeError, no record, no change, and no block', async () => {
    const store = openRuntime(dir);
    await store.writePair('old');
    const before = tree(dir);
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    for (const data of [circular, { n: 1n }, { toJSON: () => { throw new TypeError('mine'); } }]) {
      const error = await rejection(store.write([[LAUNCH, { version: 'new' }], [SESSIONS, data]]));
      expect(error).toBeInstanceOf(TypeError);
      expect(error).not.toBeInstanceOf(HoldfastError);
      expect(tree(dir)).toEqual(before);
    }
    expect(await store.plan()).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
  });

  it('A28: a publish that fails on the second file puts the first back, and the record says so', async () => {
    for (const prior of ['old', null]) {
      dir = tempDir();
      const healthy = openRuntime(dir);
      if (prior !== null) await healthy.writePair(prior);
      const before = visible(dir);
      const failing = openRuntime(dir, { idPrefix: 'x-', writer: { faults: [{ op: 'rename', pathEnds: 'opencode-sessions.json', action: { errno: 1 } }] } });
      expect(await rejection(failing.writePair('new'))).toMatchObject({ code: 'EPERM', hfCode: 'HF_IO', path: join(dir, 'opencode-sessions.json') });
      const after = visible(dir);
      for (const name of ['launch-state.json', 'opencode-sessions.json', 'manifest.json']) expect(after[name]).toBe(before[name]);
      expect((await healthy.receiptStore.list()).at(-1)).toMatchObject({ batchId: 'x-batch-1', state: 'failed', hfResolution: 'rolled_back', receipts: [], lastError: expect.stringContaining('EPERM') });
      expect(leftovers(dir)).toEqual([]);
      const plan = await healthy.plan();
      expect(plan.diagnostics.join()).not.toContain('Uncommitted');
      if (prior !== null) expect(plan).toMatchObject({ readinessImpact: 'none', manifestHealthy: true });
      expect(await healthy.write([[LAUNCH, 1], [SESSIONS, 1]])).toMatchObject({ state: 'committed' });
      expect((await healthy.receiptStore.list()).some(({ state }) => state === 'failed')).toBe(false);
    }
  });

  it('A29: paths that leave, or name what is not a store, are refused before anything is touched', async () => {
    const store = openRuntime(dir);
    await store.writePair('old');
    const outside = tempDir();
    symlinkSync(outside, join(dir, 'out'));
    symlinkSync(join(outside, 'victim.json'), join(dir, 'link.json'));
    symlinkSync('manifest.json', join(dir, 'alias.json'));
    const before = tree(dir);
    const manifest = await store.manifestStore.read();
    const bad = ['../x.json', 'a/../../x.json', '..', '.', '/', 'manifest.json', './a/../manifest.json', 'MANIFEST.json', 'opencode-runtime-receipts.json', 'alias.json',
      'x.json.lock', '.tmp.abc', 'x.quarantine', '.holdfast/x.json', '.holdfast', 'out/x.json', 'link.json'];
    for (const relativePath of bad) {
      const error = await rejection(store.write([[SESSIONS, { version: 'new' }], [{ ...LAUNCH, relativePath }, {}]]));
      expect(error, relativePath).toBeInstanceOf(RuntimeStorePathError);
      expect(error).toMatchObject({ message: `Runtime store path escapes its directory: ${relativePath}`, hfCode: 'HF_RUNTIME_PATH_ESCAPES', relativePath });
      // Which files are the control files, the inspector is not told.
      if (/manifest|receipts|alias/i.test(relativePath)) continue;
      expect(await rejection(store.inspector.inspect({ descriptor: { ...LAUNCH, relativePath }, manifest })), relativePath).toBeInstanceOf(RuntimeStorePathError);
    }
    expect(tree(dir)).toEqual(before);
    expect(readdirSync(outside)).toEqual([]);
    expect(existsSync(join(dir, '..', 'x.json'))).toBe(false);
    // Not even an id was asked for.
    expect(await store.writePair('new')).toMatchObject({ batchId: 'batch-2' });
  });

  it('A32: expectedActiveRunId refuses a late run, and without it the batch is applied', async () => {
    const store = openRuntime(dir);
    await store.write([[LAUNCH, 2]], { runId: 'run-2' });
    const before = tree(dir);
    expect(await rejection(store.write([[LAUNCH, 1]], { expectedActiveRunId: 'run-1' }))).toMatchObject({
      message: 'Runtime store batch is stale; active run is run-2', hfCode: 'HF_RUNTIME_BATCH_STALE',
    });
    expect(await rejection(store.write([[LAUNCH, 1]], { expectedActiveRunId: null }))).toMatchObject({ hfCode: 'HF_RUNTIME_BATCH_STALE' });
    expect(tree(dir)).toEqual(before);
    expect(await store.write([[LAUNCH, 3]], { runId: 'run-2', expectedActiveRunId: 'run-2' })).toMatchObject({ state: 'committed' });
    await store.write([[LAUNCH, 1]]);
    expect((await store.manifestStore.read()).activeRunId).toBe('run-1');
  });

  it('a batch for another team is refused (W18)', async () => {
    const store = openRuntime(dir);
    await store.writePair('old');
    const before = tree(dir);
    expect(await rejection(store.write([[LAUNCH, 1]], { teamName: 'team-b' }))).toMatchObject({ message: 'Runtime store batch team mismatch: team-a', hfCode: 'HF_RUNTIME_TEAM_MISMATCH' });
    expect(tree(dir)).toEqual(before);
  });

  it('R29: a batch id that is taken is refused', async () => {
    const store = openRuntime(dir, { writer: { batchIdFactory: () => 'always' } });
    await store.writePair('old');
    const before = tree(dir);
    expect(await rejection(store.writePair('new'))).toMatchObject({ message: 'Runtime store batch already exists: always', hfCode: 'HF_RUNTIME_BATCH_EXISTS' });
    expect(tree(dir)).toEqual(before);
  });

  it.each(['manifest.json', 'opencode-runtime-receipts.json'])('an unreadable or newer %s is refused and stays', async (name) => {
    const store = openRuntime(dir);
    await store.writePair('old');
    for (const [text, reason] of [['{bad', 'invalid_json'], ['{"schemaVersion":2,"updatedAt":"x","data":[]}', 'future_schema']]) {
      writeFileSync(join(dir, name), text!);
      const before = visible(dir);
      expect(await rejection(store.writePair('new'))).toMatchObject({ name: 'VersionedJsonStoreError', reason });
      expect(visible(dir)).toEqual(before);
      expect(leftovers(dir)).toEqual([]);
    }
  });

  it('a folder where a file should be is refused, and nothing changes', async () => {
    const store = openRuntime(dir);
    await store.writePair('old');
    mkdirSync(join(dir, 'opencode-host-leases.json'));
    const before = visible(dir);
    expect(await rejection(store.write([[LAUNCH, 'new'], [descriptorOf('hostLeases'), {}]]))).toMatchObject({ hfCode: 'HF_IO' });
    const after = visible(dir);
    expect(after['launch-state.json']).toBe(before['launch-state.json']);
    expect(after['manifest.json']).toBe(before['manifest.json']);
    expect(await store.plan()).toMatchObject({ readinessImpact: 'none' });
  });
});

describe('what others wrote', () => {
  it('A33: older batches with unknown keys keep their text to the byte, numbers included', async () => {
    const store = openRuntime(dir);
    await store.writePair('old');
    const path = join(dir, 'opencode-runtime-receipts.json');
    const odd = readFileSync(path, 'utf8')
      .replace('"lastError": null', '"lastError": null,\n      "unknown": [1.0, -0, 1e400, 12345678901234567890, "\\u00e9\\/"]')
      .replace('"receiptId"', '"hfNote": { "b": 1.50, "10": 2 },\n          "receiptId"');
    const lastKey = '"\\u00e9\\/"';
    /** The text of the first record, from its opening brace to the last of the unknown values. */
    const recordOf = (text: string) => text.slice(text.indexOf('{', text.indexOf('"data"')), text.indexOf(lastKey) + lastKey.length);
    writeFileSync(path, odd);
    await store.writePair('new');
    const after = readFileSync(path, 'utf8');
    expect(recordOf(after)).toBe(recordOf(odd));
    expect(recordOf(after)).toContain('1.0, -0, 1e400, 12345678901234567890');
    expect((await store.receiptStore.list()).map(({ batchId }) => batchId)).toEqual(['batch-1', 'batch-2']);
  });

  it('own schema names work from writer to plan, beside the built-in ones', async () => {
    const descriptors = defineRuntimeStoreDescriptors([
      LAUNCH,
      { schemaName: 'shop.cart', schemaVersion: 2, relativePath: 'cart.json', criticality: 'readiness_blocking', owner: 'ui', rebuildStrategy: 'none' },
    ]) as [RuntimeStoreDescriptor, RuntimeStoreDescriptor];
    const store = openRuntime(dir, { descriptors });
    await store.write([[descriptors[1], { items: 1 }], [LAUNCH, {}]]);
    expect((await store.manifestStore.read()).entries.map(({ schemaName, schemaVersion }) => [schemaName, schemaVersion])).toEqual([['opencode.launchState', 1], ['shop.cart', 2]]);
    expect(await store.plan()).toMatchObject({ manifestHealthy: true });
    expect(await store.planner.buildPlan({ ...EXPECTED, expectedRunId: 'other' })).toMatchObject({ readinessImpact: 'blocked' });
    // A reader that was not told of the name refuses the file rather than dropping the entry.
    expect(await rejection(openRuntime(dir, { descriptors: [LAUNCH] }).manifestStore.read())).toMatchObject({ reason: 'invalid_data' });
  });
});
