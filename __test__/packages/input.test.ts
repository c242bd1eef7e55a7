// What callers get wrong is said before anything is touched, by one code.
import {
  atomicSymlinkSwap,
  blobSha256,
  computeLockfileHash,
  createBlobGcTrigger,
  createBlobStoreRegistry,
  createFileBlobStore,
  createReconcileFsDeps,
  findCacheEntry,
  hasRetirementMarker,
  markTreeRetired,
  packDir,
  parseBunLock,
  planTree,
  readCurrentTarget,
  readTreeRetiredAt,
  reconcileToHash,
  resolveResolutionRoot,
  resolveResolutionRootFromStore,
  resumeCrashedMigration,
  rollbackTo,
  runBlobGc,
  runInstallNow,
  runStorageMigration,
  snapshotResolutionRoot,
  splitSpec,
  storeStats,
  sweepCacheGc,
  sweepTreeGc,
  toUint8Array,
  unpackInto,
  verifyTree,
} from 'holdfast';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { makeHost, makePackage, names, rejection, somePackages, start, tempDir } from './support';

const storeRoot = '/tmp/holdfast-there-is-no-such-store';
const fetchBlob = async (): Promise<Uint8Array> => new Uint8Array();
const deps = createReconcileFsDeps({ storeRoot, fetchBlob });

const texts = [undefined, null, 5, {}, [], Number.NaN];
const folders = [...texts, '', ' ', 'a\0b'];
const times = [null, 'x', {}, Number.NaN, -1];

const cases: [string, readonly unknown[], (bad: never) => unknown][] = [
  ['sweepTreeGc, storeRoot', folders, (bad) => sweepTreeGc({ storeRoot: bad })],
  ['sweepTreeGc, graceMs', times, (bad) => sweepTreeGc({ storeRoot, graceMs: bad })],
  ['sweepTreeGc, now', times, (bad) => sweepTreeGc({ storeRoot, now: bad })],
  ['readCurrentTarget', folders, (bad) => readCurrentTarget(bad)],
  ['readTreeRetiredAt', folders, (bad) => readTreeRetiredAt({ treeDir: bad })],
  ['hasRetirementMarker', folders, (bad) => hasRetirementMarker({ treeDir: bad })],
  ['resolveResolutionRoot', folders, (bad) => resolveResolutionRoot({ desiredLockfileHash: 'h', storeRoot: bad })],
  ['resolveResolutionRootFromStore', folders, (bad) => resolveResolutionRootFromStore(bad)],
  ['resolveResolutionRoot, desired', [5, {}, []], (bad) => resolveResolutionRoot({ desiredLockfileHash: bad, storeRoot })],
  ['resolveResolutionRoot, hostLabel', [null, 5, {}], (bad) => resolveResolutionRoot({ desiredLockfileHash: 'h', storeRoot, hostLabel: bad })],
  ['snapshotResolutionRoot, desired', [5, {}, []], (bad) => snapshotResolutionRoot({ storeRoot, desiredLockfileHash: bad })],
  ['snapshotResolutionRoot, hostLabel', [null, 5, {}], (bad) => snapshotResolutionRoot({ storeRoot, hostLabel: bad })],
  ['runBlobGc, graceMs', ['x', {}, Number.NaN, -1], (bad) => runBlobGc({ deps: { graceMs: bad } as never })],
  ['createBlobGcTrigger, graceMs', ['x', {}, Number.NaN, -1], (bad) => createBlobGcTrigger({ graceMs: bad } as never)],
  ['createBlobGcTrigger, retainPrevious', ['x', {}, null, Number.NaN, -1, 0.5], (bad) => createBlobGcTrigger({ retainPrevious: bad } as never)],
  ['snapshotResolutionRoot', folders, (bad) => snapshotResolutionRoot({ storeRoot: bad })],
  ['atomicSymlinkSwap, linkPath', folders, (bad) => atomicSymlinkSwap({ linkPath: bad, target: 'x' })],
  ['atomicSymlinkSwap, target', [...texts, ''], (bad) => atomicSymlinkSwap({ linkPath: `${storeRoot}/x`, target: bad })],
  ['createReconcileFsDeps, requireBlobSha256', [null, 'true', 1, {}], (bad) => createReconcileFsDeps({ storeRoot, fetchBlob, requireBlobSha256: bad })],
  ['createReconcileFsDeps, verifyLockfileHash', [null, 'true', 1, {}], (bad) => createReconcileFsDeps({ storeRoot, fetchBlob, verifyLockfileHash: bad })],
  ['createReconcileFsDeps, limits', [null, 5, { maxEntrys: 1 }, { maxEntries: 'x' }], (bad) => createReconcileFsDeps({ storeRoot, fetchBlob, limits: bad })],
  ['packDir', folders, (bad) => packDir({ parentDir: bad, entryName: 'x' })],
  ['unpackInto, targetDir', folders, (bad) => unpackInto({ targetDir: bad, bytes: new Uint8Array(3) })],
  ['unpackInto, bytes', [...texts, 'x'], (bad) => unpackInto({ targetDir: storeRoot, bytes: bad })],
  ['findCacheEntry', folders, (bad) => findCacheEntry({ cacheDir: bad, name: 'x', version: '1' })],
  ['blobSha256', [...texts, 'x'], (bad) => blobSha256(bad)],
  ['toUint8Array', [...texts, 'x'], (bad) => toUint8Array(bad)],
  ['computeLockfileHash', [undefined, null, 5, {}, 'x'], (bad) => computeLockfileHash(bad)],
  ['computeLockfileHash, an entry', [...texts, 'x'], (bad) => computeLockfileHash([bad])],
  ['computeLockfileHash, a field', texts, (bad) => computeLockfileHash([{ name: 'a', version: bad, integrity: 'i' }])],
  ['parseBunLock', texts, (bad) => parseBunLock(bad)],
  ['splitSpec', texts, (bad) => splitSpec(bad)],
  ['verifyTree', texts, (bad) => verifyTree({ storeRoot, lockfileHash: bad })],
  ['rollbackTo', texts, (bad) => rollbackTo({ storeRoot, lockfileHash: bad })],
  ['storeStats', folders, (bad) => storeStats(bad)],
  ['sweepCacheGc', [undefined, null, 5, {}, [5], [[5]]], (bad) => sweepCacheGc({ storeRoot, keepManifests: bad })],
  ['planTree', [undefined, null, 5, {}, [5], [{}]], (bad) => planTree({ storeRoot, manifest: bad })],
  ['seedBlob, entry', texts, (bad) => deps.seedBlob({ entry: bad, bytes: new Uint8Array(3) })],
  ['seedBlob, integrity', [undefined, ''], (bad) => deps.seedBlob({ entry: { name: 'a', version: '1.0.0', integrity: bad }, bytes: new Uint8Array(3) })],
  ['reconcileToHash, lockfileHash', texts, (bad) => reconcileToHash({ lockfileHash: bad, manifest: [], deps })],
  ['reconcileToHash, manifest', [undefined, null, 5, {}], (bad) => reconcileToHash({ lockfileHash: 'h', manifest: bad, deps })],
  ['BlobStore.get', [...texts, ''], (bad) => createFileBlobStore({ root: storeRoot }).get({ integrity: bad })],
];

test.each(cases)('%s', async (_, bads, run) => {
  for (const bad of bads) {
    const error = await rejection((async () => run(bad as never))());
    expect([bad, error.code]).toEqual([bad, 'HF_INVALID_ARGUMENT']);
  }
});

test('marking a tree never rejects, whatever it is given', async () => {
  for (const bad of folders) await expect(markTreeRetired({ treeDir: bad as never, at: 1 })).resolves.toBeUndefined();
  await expect(markTreeRetired({ treeDir: storeRoot, at: 'x' as never })).resolves.toBeUndefined();
});

test('relative folders are those of the moment of the call, wherever the process goes then, and a blank one is not the working directory', async () => {
  const { blob } = await makePackage('a', '1.0.0');
  const [here, there] = [tempDir(), tempDir()];
  writeFileSync(join(here, 'blob'), blob);
  const child = start('chdir-child.mjs', here, there);
  expect(await child.ended).toMatchObject({ code: 0, err: '' });
  expect(names(there)).toEqual([]);
  expect(names(here)).toHaveLength(41);
  expect(child.lines).toEqual(['done']);
});

const throwing = {
  debug: (): void => {
    throw new Error('debug');
  },
  error: (): void => {
    throw new Error('error');
  },
};

describe('callbacks that throw', () => {
  test('a logger that throws changes no outcome', async () => {
    const host = makeHost(await somePackages(2), { logger: throwing });
    expect(host.deps.logger).toBe(throwing);
    const reconcile = () => reconcileToHash({ lockfileHash: 'h', manifest: host.manifest, deps: host.deps });
    expect((await reconcile()).alreadyConverged).toBe(false);
    expect(names(host.path('current/node_modules'))).toEqual(['p0', 'p1']);
    expect((await reconcile()).alreadyConverged).toBe(true);
    rmSync(host.path('cache/p1@1.0.0/index.js'));
    await host.to('again');
    expect(names(host.path('current/node_modules'))).toEqual(['p0', 'p1']);
  });

  test('a listener and a logger that throw, at once or later, end neither the call nor the process', async () => {
    const host = makeHost(await somePackages(30, 60), { logger: throwing });
    // Some lines and counts are told by a timer, where nobody could catch what is thrown.
    await host.to('h', { onProgress: throwing.debug });
    await host.to('i', { onProgress: async () => throwing.debug() });
    const later = { debug: async () => throwing.debug(), error: async () => throwing.error() };
    await reconcileToHash({ lockfileHash: 'j', manifest: host.manifest, deps: { ...host.deps, logger: later } });
    expect(names(host.path('current/node_modules'))).toHaveLength(30);
  });

  test('publishing, collecting and moving go through, and locks come back, whatever a logger does', async () => {
    const released: string[] = [];
    const lock = (name: string) => async () => ({ release: async () => void released.push(name) });
    const failing = async (): Promise<never> => Promise.reject(new Error('away'));
    const store = createFileBlobStore({ root: tempDir() });
    const registry = createBlobStoreRegistry({ logger: throwing });
    registry.register({ ...store, id: 'broken', get: failing });
    registry.register(store);
    await store.put({ integrity: 'k', bytes: new Uint8Array([1]) });
    expect((await registry.readWithFallback({ integrity: 'k', activeBackendId: 'broken' }))?.servedBy).toBe('fs');

    const { resumed, done } = await resumeCrashedMigration({
      loadState: async () => ({ migrationStatus: 'migrating', migrationTarget: 'x', activeBackend: 'fs' }),
      tryLock: lock('migration'),
      // Not even an error, and without a text.
      runMigration: () => Promise.reject(Object.create(null)),
      logger: throwing,
    });
    await done;
    expect([resumed, released]).toEqual([true, ['migration']]);

    const states: string[] = [];
    const migrated = await runStorageMigration({
      blobIndex: { listNotOnBackend: async () => [], setBackend: async () => {} },
      storage: {
        beginMigration: async () => void states.push('begin'),
        setMigratedCount: async () => {},
        completeMigration: async () => void states.push('complete'),
        failMigration: async () => void states.push('fail'),
      },
      getStore: () => store,
      activeBackend: 'fs',
      target: 'other',
      logger: throwing,
    });
    expect([migrated, states]).toEqual([{ migrated: 0, completed: true }, ['begin', 'complete']]);

    const collected = await createBlobGcTrigger({
      installerLock: { tryInstallerLock: lock('gc') },
      blobStores: registry,
      listBlobs: async () => ['nowhere', 'fs'].map((backend) => ({ integrity: 'k', backend, sizeBytes: 1, createdAt: new Date(0) })),
      isBusy: async () => false,
      pruneHistory: failing,
      removeBlobRow: async () => {},
      loadCurrent: async () => ({ lockfileHash: null, manifest: [] }),
      recentHistory: async () => [[]],
      logger: throwing,
    })();
    expect(collected).toMatchObject({ ran: true, candidates: 2, deleted: 1 });

    const install = await runInstallNow({
      installState: { load: async () => undefined, setInstalling: async () => {}, setReady: async () => {}, setError: async () => {} },
      installerLock: { tryInstallerLock: lock('install') },
      loadInstallInputs: async () => ({ packages: [], ignoreScripts: true }),
      resolver: { resolve: failing },
      blobStore: store,
      blobIndex: { record: async () => {} },
      sizeCap: async () => ({ warnBytes: 1, blockBytes: 2 }),
      isMigrationInFlight: async () => false,
      emitChanged: async () => {},
      logger: throwing,
    });
    expect(install).toEqual({ started: false, reason: 'away' });
    expect(released).toEqual(['migration', 'gc', 'install']);
  });

  test('callers that are synchronous where promises are wanted are understood', async () => {
    const summary = await runBlobGc({
      deps: {
        isBusy: (() => false) as never,
        retainedManifests: (() => [[]]) as never,
        listBlobs: (() => [{ integrity: 'i', backend: 'fs', sizeBytes: 1, createdAt: new Date(0) }]) as never,
        deleteBlob: (() => undefined) as never,
        recordRun: (() => undefined) as never,
      },
    });
    expect(summary).toMatchObject({ ran: true, deleted: 1 });
    const registry = createBlobStoreRegistry();
    registry.register({ ...createFileBlobStore({ root: tempDir() }), id: 'sync', get: (() => new Uint8Array([1])) as never });
    expect((await registry.readWithFallback({ integrity: 'k', activeBackendId: 'sync' }))?.servedBy).toBe('sync');
  });

  test('entries of a manifest may carry whatever callers keep in them', async () => {
    const { entry, blob } = await makePackage('a', '1.0.0');
    const host = makeHost([{ entry: { ...entry, addedAt: new Date(), size: 5n, self: {} } as never, blob }]);
    await host.to('h');
    expect(names(host.path('current/node_modules'))).toEqual(['a']);
  });
});
