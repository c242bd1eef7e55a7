/** Every argument of every function is checked before anything is touched: `HF_INVALID_ARGUMENT`, naming the argument. */
import { join } from 'node:path';

import * as holdfast from 'holdfast';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { EXPECTED, fixedClock, IDENTITY, LAUNCH, NOW, openRuntime, tempDir, tree } from './support';

let dir: string;
beforeEach(() => {
  dir = tempDir();
});

/** What is wrong wherever a string, an object, a function or a number is wanted. */
const notString = [undefined, null, 0, 1n, true, {}, [], () => '', Symbol('s')];
const notPath = [...notString, '', 'a\0b'];
const notText = [...notString, '', ' \n'];
const notFunction = [null, 0, 'x', {}, []];
const notObject = [undefined, null, 0, 'x', true, [], () => {}];
const notCount = [0, -1, 1.5, NaN, Infinity, '1', 1n, null];
const notMs = [-1, NaN, Infinity, '1', 1n, null];
const notBoolean = [null, 0, 'yes', {}];
const notIdentity = [undefined, 0, {}, true];

type Attempt = (value: never) => unknown;
const cases: [string, readonly unknown[], Attempt][] = [];
const add = (name: string, bad: readonly unknown[], attempt: (value: any) => unknown) => cases.push([name, bad, attempt]);

// ── versioned JSON store ──
const storeOptions = (more: object) => ({ filePath: join(dir, 'store.json'), schemaVersion: 1, defaultData: () => 0, validate: Number, ...more });
const store = (more: object) => new holdfast.VersionedJsonStore<number>(storeOptions(more) as never);
add('VersionedJsonStore options', notObject, (value) => new holdfast.VersionedJsonStore(value));
add('VersionedJsonStore filePath', notPath, (filePath) => store({ filePath }));
add('VersionedJsonStore schemaVersion', [undefined, ...notCount], (schemaVersion) => store({ schemaVersion }));
add('VersionedJsonStore defaultData', [undefined, ...notFunction], (defaultData) => store({ defaultData }));
add('VersionedJsonStore validate', [undefined, ...notFunction], (validate) => store({ validate }));
add('VersionedJsonStore clock', notFunction, (clock) => store({ clock }));
add('VersionedJsonStore quarantineDir', notPath.slice(1), (quarantineDir) => store({ quarantineDir }));
add('VersionedJsonStore maxFileBytes', notCount, (maxFileBytes) => store({ maxFileBytes }));
add('VersionedJsonStore durability', [null, 0, 'none', 'FULL'], (durability) => store({ durability }));
add('VersionedJsonStore manifest', notObject.slice(1), (manifest) => store({ manifest }));
add('updateLocked', [undefined, ...notFunction], (updater) => store({}).updateLocked(updater));
for (const key of ['acquireTimeoutMs', 'staleTimeoutMs', 'retryIntervalMs']) {
  add(`lockOptions.${key} of a store`, notMs, (value) => store({ lockOptions: { [key]: value } }));
  add(`withFileLock ${key}`, notMs, (value) => holdfast.withFileLock(join(dir, 'x'), async () => {}, { [key]: value }));
  add(`withFileLockSync ${key}`, notMs, (value) => holdfast.withFileLockSync(join(dir, 'x'), () => {}, { [key]: value }));
}
add('lockOptions', notObject.slice(1), (lockOptions) => store({ lockOptions }));
add('lockOptions.sharedVolume', notBoolean, (sharedVolume) => store({ lockOptions: { sharedVolume } }));
const rules = [null, {}, 'x', [null], [{}], [{ point: 'after_lock' }], [{ point: 'nowhere', action: 'kill' }], [{ op: 'read', point: 'after_lock', action: 'kill' }],
  [{ op: 'dance', action: 'kill' }], [{ op: 'read', action: 'maybe' }], [{ op: 'read', action: { errno: 'ENOSPC' } }], [{ op: 'read', nth: -1, action: 'kill' }], [{ op: 'read', nth: 'x', action: 'kill' }]];
add('faults of a store', rules, (faults) => store({ faults }));
add('faults of a writer', rules, (faults) => openRuntime(dir, { writer: { faults } }));
add('faults of an executor', rules, (faults) => openRuntime(dir, { executor: { faults } }));

// ── locks and atomic files ──
add('withFileLock filePath', notPath, (path) => holdfast.withFileLock(path, async () => {}));
add('withFileLock fn', [undefined, ...notFunction], (fn) => holdfast.withFileLock(join(dir, 'x'), fn));
add('withFileLock options', notObject.slice(1), (options) => holdfast.withFileLock(join(dir, 'x'), async () => {}, options));
add('withFileLockSync filePath', notPath, (path) => holdfast.withFileLockSync(path, () => {}));
add('withFileLockSync fn', [undefined, ...notFunction], (fn) => holdfast.withFileLockSync(join(dir, 'x'), fn));
const notData = [undefined, null, 0, {}, [], [1, 2], new ArrayBuffer(2)];
const notMode = ['0600', -1, 1.5, 0o10000, NaN, null];
const file = () => join(dir, 'file');
for (const name of ['atomicWriteAsync', 'atomicWriteSync', 'atomicCreateAsync'] as const) {
  const write = holdfast[name] as (path: unknown, data: unknown, options?: unknown) => unknown;
  add(`${name} targetPath`, notPath, (path) => write(path, 'x'));
  add(`${name} data`, notData, (data) => write(file(), data));
  add(`${name} options`, notObject.slice(1), (options) => write(file(), 'x', options));
  add(`${name} mode`, notMode, (mode) => write(file(), 'x', { mode }));
}
add('atomicWriteAsync durability', [null, 'full', 1], (durability) => holdfast.atomicWriteAsync(file(), 'x', { durability }));
add('atomicWriteAsync syncDirectory', notBoolean, (syncDirectory) => holdfast.atomicWriteAsync(file(), 'x', { syncDirectory }));
add('atomicWriteAsync beforeCommit', notFunction, (beforeCommit) => holdfast.atomicWriteAsync(file(), 'x', { beforeCommit }));
add('renamePathWithRetry src', notPath, (src) => holdfast.renamePathWithRetry(src, file()));
add('renamePathWithRetry dest', notPath, (dest) => holdfast.renamePathWithRetry(file(), dest));
add('renamePathWithRetry options', notObject.slice(1), (options) => holdfast.renamePathWithRetry(file(), file(), options));
add('renamePathWithRetrySync src', notPath, (src) => holdfast.renamePathWithRetrySync(src, file()));
add('renamePathWithRetrySync dest', notPath, (dest) => holdfast.renamePathWithRetrySync(file(), dest));
add('syncDirectoryDurably', notPath, (path) => holdfast.syncDirectoryDurably(path));
add('unlinkPathDurably', notPath, (path) => holdfast.unlinkPathDurably(path));
add('cleanupAtomicCreateTempLinks', notPath, (path) => holdfast.cleanupAtomicCreateTempLinks(path));
add('computeRuntimeStoreContentHash', notString, (text) => holdfast.computeRuntimeStoreContentHash(text));

// ── manifest and receipts ──
const manifest = (more: object) => holdfast.createRuntimeStoreManifestStore({ filePath: join(dir, 'manifest.json'), teamName: 'team-a', clock: fixedClock, ...more } as never);
const receipts = (more: object) => holdfast.createRuntimeStoreReceiptStore({ filePath: join(dir, 'receipts.json'), clock: fixedClock, ...more } as never);
const batch = (more: object) => ({ batchId: 'b', teamName: 'team-a', ...IDENTITY, reason: 'recovery', startedAt: NOW, completedAt: NOW, state: 'committed', receipts: [], lastError: null, ...more }) as never;
for (const [name, create] of [['createRuntimeStoreManifestStore', manifest], ['createRuntimeStoreReceiptStore', receipts]] as const) {
  add(`${name} options`, notObject, (value) => (holdfast[name] as Attempt)(value as never));
  add(`${name} filePath`, notPath, (filePath) => create({ filePath }));
  add(`${name} clock`, notFunction, (clock) => create({ clock }));
  add(`${name} lockOptions`, notObject.slice(1), (lockOptions) => create({ lockOptions }));
  add(`${name} descriptors`, [null, {}, 'x', [null], [{}], [{ ...LAUNCH, schemaName: '' }]], (descriptors) => create({ descriptors }));
  add(`${name} durability`, [null, 'none'], (durability) => create({ durability }));
}
add('createRuntimeStoreManifestStore teamName', notText, (teamName) => manifest({ teamName }));
add('RuntimeStoreManifestStore store', [...notObject, {}], (value) => new holdfast.RuntimeStoreManifestStore(value));
add('RuntimeStoreReceiptStore store', [...notObject, {}], (value) => new holdfast.RuntimeStoreReceiptStore(value));
add('RuntimeStoreManifestStore schemaNames', [null, 'x', [0], ['']], (names) => new holdfast.RuntimeStoreManifestStore(store({}) as never, fixedClock, names));
add('RuntimeStoreReceiptStore schemaNames', [null, 'x', [0], ['']], (names) => new holdfast.RuntimeStoreReceiptStore(store({}) as never, fixedClock, names));
add('setActiveRun', notObject, (input) => manifest({}).setActiveRun(input));
add('setActiveRun runId', notIdentity, (runId) => manifest({}).setActiveRun({ runId }));
add('setActiveRun capabilitySnapshotId', notIdentity.slice(1), (id) => manifest({}).setActiveRun({ runId: null, capabilitySnapshotId: id }));
add('setActiveRun behaviorFingerprint', notIdentity.slice(1), (id) => manifest({}).setActiveRun({ runId: null, behaviorFingerprint: id }));
add('markBatchPreparing', [...notObject, {}, { batchId: ' ' }], (value) => manifest({}).markBatchPreparing(value));
add('markRecoveryPlan', [...notObject, {}, { planId: '' }], (value) => manifest({}).markRecoveryPlan(value));
add('applyCommittedBatch', [...notObject, {}], (value) => manifest({}).applyCommittedBatch(value));
add('applyCommittedBatch batchId', notText, (batchId) => manifest({}).applyCommittedBatch(batch({ batchId })));
add('applyCommittedBatch runId', notIdentity, (runId) => manifest({}).applyCommittedBatch(batch({ runId })));
add('applyCommittedBatch receipts', [undefined, null, 'x', {}, [null], new Array(1)], (list) => manifest({}).applyCommittedBatch(batch({ receipts: list })));
for (const name of ['begin', 'commit', 'fail'] as const) {
  add(`${name} batch`, [...notObject, {}], (value) => receipts({})[name](value, 'why'));
  add(`${name} batchId`, notText, (batchId) => receipts({})[name](batch({ batchId }), 'why'));
}
add('listUncommitted', notString, (team) => receipts({}).listUncommitted(team));

// ── writer, inspector, planner, executor ──
const runtime = () => openRuntime(dir);
const writer = (more: object) => openRuntime(dir, { writer: more });
add('RuntimeStoreBatchWriter directory', notPath, (value) => new holdfast.RuntimeStoreBatchWriter(value, manifest({}), receipts({})));
add('RuntimeStoreBatchWriter manifestStore', [...notObject, {}], (value) => new holdfast.RuntimeStoreBatchWriter(dir, value, receipts({})));
add('RuntimeStoreBatchWriter receiptStore', [...notObject, {}], (value) => new holdfast.RuntimeStoreBatchWriter(dir, manifest({}), value));
add('RuntimeStoreBatchWriter options', notObject.slice(1), (value) => new holdfast.RuntimeStoreBatchWriter(dir, manifest({}), receipts({}), value));
add('RuntimeStoreBatchWriter stores of one file', [1], () => new holdfast.RuntimeStoreBatchWriter(dir, manifest({}), receipts({ filePath: join(dir, 'manifest.json') })));
add('RuntimeStoreBatchWriter stores exchanged', [1], () => new holdfast.RuntimeStoreBatchWriter(dir, receipts({}) as never, manifest({}) as never));
for (const key of ['batchIdFactory', 'receiptIdFactory', 'clock']) add(`writer ${key}`, notFunction, (value) => writer({ [key]: value }));
add('writer receiptRetention', [...notCount, 'some'], (receiptRetention) => writer({ receiptRetention }));
add('writer maxFileBytes', notCount, (maxFileBytes) => writer({ maxFileBytes }));
add('writer durability', [null, 'none'], (durability) => writer({ durability }));
add('writeBatch', notObject, (input) => runtime().writer.writeBatch(input));
add('writeBatch teamName', notText, (teamName) => runtime().write([], { teamName }));
add('writeBatch reason', [undefined, null, '', 'because'], (reason) => runtime().write([], { reason }));
for (const key of ['runId', 'capabilitySnapshotId', 'behaviorFingerprint']) add(`writeBatch ${key}`, notIdentity, (value) => runtime().write([], { [key]: value }));
add('writeBatch expectedActiveRunId', notIdentity.slice(1), (expectedActiveRunId) => runtime().write([], { expectedActiveRunId }));
add('writeBatch writes', [undefined, null, {}, 'x', [null], [1], [{}], new Array(1)], (writes) => runtime().write([], { writes }));
const badDescriptors = [...notObject, {}, { ...LAUNCH, schemaName: ' ' }, { ...LAUNCH, schemaVersion: 0 }, { ...LAUNCH, relativePath: '' }, { ...LAUNCH, relativePath: 5 }, { ...LAUNCH, criticality: 'x' },
  { ...LAUNCH, owner: 'nobody' }, { ...LAUNCH, rebuildStrategy: 'pray' }];
add('writeBatch descriptor', badDescriptors, (descriptor) => runtime().write([[LAUNCH, 1], [descriptor, 1]]));
add('RuntimeStoreFileInspector', notPath, (value) => new holdfast.RuntimeStoreFileInspector(value));
const emptyManifest = holdfast.createDefaultRuntimeStoreManifest('team-a', NOW);
add('inspect', notObject, (input) => runtime().inspector.inspect(input));
add('inspect descriptor', badDescriptors, (descriptor) => runtime().inspector.inspect({ descriptor, manifest: emptyManifest }));
add('inspect manifest', [...notObject, {}, { ...emptyManifest, entries: 5 }, { ...emptyManifest, entries: [null] }], (value) => runtime().inspector.inspect({ descriptor: LAUNCH, manifest: value }));
const planner = (more: object) => openRuntime(dir, { planner: more });
const plannerOf = (...args: unknown[]) => new (holdfast.RuntimeStoreRecoveryPlanner as unknown as new (...args: unknown[]) => unknown)(...args);
add('planner descriptors', [undefined, null, {}, [null], [{}]], (value) => plannerOf(value, manifest({}), receipts({}), new holdfast.RuntimeStoreFileInspector(dir)));
add('planner manifestStore', [...notObject, {}], (value) => plannerOf([], value, receipts({}), new holdfast.RuntimeStoreFileInspector(dir)));
add('planner receiptStore', [...notObject, {}], (value) => plannerOf([], manifest({}), value, new holdfast.RuntimeStoreFileInspector(dir)));
add('planner inspector', [...notObject, {}], (value) => plannerOf([], manifest({}), receipts({}), value));
add('planner planIdFactory', notFunction, (planIdFactory) => planner({ planIdFactory }));
add('planner clock', notFunction, (clock) => planner({ clock }));
add('planner rollForward', notBoolean, (rollForward) => planner({ rollForward }));
const executor = (more: object) => openRuntime(dir, { executor: more });
add('executor directory', notPath, (value) => new holdfast.RuntimeStoreRecoveryExecutor(value, runtime().planner, runtime().writer));
add('executor directory of another planner', [join('some', 'where')], (value) => new holdfast.RuntimeStoreRecoveryExecutor(value, runtime().planner, runtime().writer));
add('executor planner', [...notObject, {}], (value) => new holdfast.RuntimeStoreRecoveryExecutor(dir, value, runtime().writer));
add('executor writer', [...notObject, {}], (value) => new holdfast.RuntimeStoreRecoveryExecutor(dir, runtime().planner, value));
add('executor options', notObject.slice(1), (value) => new holdfast.RuntimeStoreRecoveryExecutor(dir, runtime().planner, runtime().writer, value));
add('executor dryRun', notBoolean, (dryRun) => executor({ dryRun }));
add('executor settleMs', notMs, (settleMs) => executor({ settleMs }));
add('executor clock', notFunction, (clock) => executor({ clock }));
add('executor rebuild', [null, 'x', 5, [], { whatever: async () => 'skip' }, { none: 'skip' }, { none: null }], (rebuild) => executor({ rebuild }));
for (const call of ['recover', 'verify'] as const) {
  add(call, notObject, (input) => runtime().executor[call](input));
  add(`${call} teamName`, notText, (teamName) => runtime().executor[call]({ ...EXPECTED, teamName }));
  for (const key of ['expectedRunId', 'expectedCapabilitySnapshotId', 'expectedBehaviorFingerprint']) add(`${call} ${key}`, notIdentity, (value) => runtime().executor[call]({ ...EXPECTED, [key]: value }));
}
add('buildPlan', notObject, (input) => runtime().planner.buildPlan(input));
add('buildPlan teamName', notText, (teamName) => runtime().planner.buildPlan({ ...EXPECTED, teamName }));

describe('a bad argument', () => {
  afterEach(() => expect(tree(dir)).toEqual({}));

  it.each(cases)('%s', async (_, bad, attempt) => {
    for (const value of bad) {
      const shown = typeof value === 'symbol' || typeof value === 'bigint' ? typeof value : (JSON.stringify(value) ?? String(value));
      let error: unknown;
      try {
        await attempt(value as never);
        error = 'nothing was thrown';
      } catch (thrown) {
        error = thrown;
      }
      expect(error, `for ${shown}`).toBeInstanceOf(holdfast.HoldfastError);
      expect(error, `for ${shown}`).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', code: 'HF_INVALID_ARGUMENT', message: expect.stringMatching(/./) });
    }
  });

  it('of a batch record is the error of the file\'s validation, and nothing is written', async () => {
    for (const more of [{ reason: 'why not' }, { state: 'done' }, { receipts: {} }, { teamName: '' }, { startedAt: 5 }]) {
      await expect(receipts({}).begin(batch(more))).rejects.toMatchObject({ hfCode: 'HF_RUNTIME_INVALID_RECEIPTS', message: 'Invalid runtime store write batch at index 0' });
    }
    await expect(manifest({}).applyCommittedBatch(batch({ receipts: [{}] }))).rejects.toMatchObject({ hfCode: 'HF_RUNTIME_INVALID_MANIFEST' });
  });

  it('of an async function rejects, and does not throw in the caller\'s face', () => {
    const calls: (() => Promise<unknown>)[] = [
      () => holdfast.withFileLock(null as never, null as never), () => holdfast.atomicWriteAsync(5 as never, 5 as never), () => store({}).updateLocked(5 as never),
      () => runtime().writer.writeBatch(null as never), () => runtime().planner.buildPlan(null as never), () => runtime().executor.recover(null as never),
      () => manifest({}).setActiveRun(null as never), () => receipts({}).begin(null as never), () => runtime().inspector.inspect(null as never),
    ];
    for (const call of calls) {
      let promise: Promise<unknown> | undefined;
      expect(() => (promise = call())).not.toThrow();
      promise?.catch(() => {});
      expect(promise).toBeInstanceOf(Promise);
    }
  });
});
