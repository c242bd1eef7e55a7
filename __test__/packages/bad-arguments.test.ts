// A bad argument, and a store or a package that is not as it must be: the error names it, and says what was expected.
import {
  atomicSymlinkSwap,
  buildDependencies,
  computeLockfileHash,
  computeMissingBlobs,
  createBlobStoreRegistry,
  createFileBlobStore,
  createReconcileFsDeps,
  createS3BlobStore,
  evaluateSizeCap,
  performInstall,
  planTree,
  reconcileToHash,
  repairTree,
  resolveDataDir,
  resolveResolutionRoot,
  rollbackTo,
  runBlobGc,
  runStorageMigration,
  snapshotResolutionRoot,
  storeStats,
  sweepTreeGc,
  unpackInto,
  verifyBlobSha256,
  verifyTree,
  type ReconcileDeps,
} from 'holdfast';
import * as packages from 'holdfast/packages';
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { makeHost, makePackage, names, rejection, somePackages, tempDir } from './support';

const storeRoot = '/tmp/holdfast-there-is-no-such-store';
const fetchBlob = async (): Promise<Uint8Array> => new Uint8Array();
const fine = (over: Partial<ReconcileDeps> = {}): ReconcileDeps => ({
  localCacheIntegrities: async () => [],
  fetchBlob,
  seedBlob: async () => {},
  materializeAndFlip: async () => {},
  currentLockfileHash: async () => undefined,
  ...over,
});

/** What `run` throws or rejects with. */
const failure = (run: () => unknown): Promise<{ code: string; hfCode: string; message: string } & Error> =>
  rejection((async () => run())()) as never;

/** These need no argument; marking a tree never rejects. */
const SPARING = ['createBlobStoreRegistry', 'resolveDataDir', 'resolveScriptPackagesDir', 'markTreeRetired', 'PackageStoreError'];
const functions = Object.entries(packages).filter(([name, value]) => typeof value === 'function' && !SPARING.includes(name));

test.each(functions)('%s without an argument, and with nothing in it', async (_, run) => {
  for (const args of [[], [null], [5], [{}]]) {
    const error = await failure(() => (run as (...args: unknown[]) => unknown)(...args));
    expect([args, error.code, error.name]).toEqual([args, 'HF_INVALID_ARGUMENT', 'HoldfastError']);
    expect(error.message).toMatch(/^[\w.]+ must be .+, got (undefined|null|an object|the number 5)$/);
  }
});

const entry = { name: 'a', version: '1.0.0', integrity: 'sha-a' };
const half = 'sha-\ud800';
const migration = {
  blobIndex: { listNotOnBackend: async () => [], setBackend: async () => {} },
  storage: { beginMigration: async () => {}, setMigratedCount: async () => {}, completeMigration: async () => {}, failMigration: async () => {} },
  getStore: () => createFileBlobStore({ root: storeRoot }),
  activeBackend: 'a',
  target: 'b',
};
const reconcile = (over: object) => reconcileToHash({ lockfileHash: 'h', manifest: [entry], deps: fine(), ...over });
const gc = (over: object) =>
  runBlobGc({ deps: { isBusy: async () => false, retainedManifests: async () => [[]], listBlobs: async () => [], deleteBlob: async () => {}, ...over } });

const cases: [string, () => unknown][] = [
  ['manifest[0] must be an object with name, version and integrity, got null', () => reconcile({ manifest: [null] })],
  ['manifest[0].integrity must be a string, got undefined', () => reconcile({ manifest: [{}] })],
  ['signal must be an AbortSignal', () => reconcile({ signal: 5 })],
  ['signal must be an AbortSignal', () => reconcile({ signal: {} })],
  ['signal must be an AbortSignal', () => unpackInto({ targetDir: storeRoot, bytes: new Uint8Array(), signal: {} as never })],
  ['signal must be an AbortSignal', () => verifyTree({ storeRoot, lockfileHash: 'h', signal: {} as never })],
  ['fetchBlob must be a function', () => repairTree({ storeRoot, lockfileHash: 'h', fetchBlob: 5 as never })],
  ['lockfileHash must be a string, got undefined', () => reconcileToHash({} as never)],
  ['deps must be an object, got undefined', () => reconcile({ deps: undefined })],
  ['deps.seedBlob must be a function, got undefined', () => reconcile({ deps: { ...fine(), seedBlob: undefined } })],
  ['deps.logger must be an object with the functions debug and error', () => reconcile({ deps: fine({ logger: 5 as never }) })],
  ['onProgress must be a function', () => reconcile({ onProgress: 5 })],
  ['the result of localCacheIntegrities must be an array', () => reconcile({ deps: fine({ localCacheIntegrities: async () => 'sha-a' as never }) })],
  ['localIntegrities must be an array, a Set or another iterable', () => computeMissingBlobs({ manifest: [], localIntegrities: 'sha-a' })],
  ['logger must be an object with the functions debug and error, got the number 5', () => createReconcileFsDeps({ storeRoot, fetchBlob, logger: 5 as never })],
  ['logger.error must be a function', () => sweepTreeGc({ storeRoot, logger: { debug() {}, error: 5 as never } })],
  ['logger must be an object', () => createBlobStoreRegistry({ logger: 5 as never })],
  ['store.id must be a string', () => createBlobStoreRegistry().register({} as never)],
  ['input must be an object', () => createBlobStoreRegistry().readWithFallback(undefined as never)],
  ['input must be an object', () => createFileBlobStore({ root: storeRoot }).put(undefined as never)],
  ['root must be a path', () => createFileBlobStore({ root: 'a\0b' })],
  ['integrity must be a string without lone surrogates', () => createFileBlobStore({ root: storeRoot }).has({ integrity: half })],
  ['region must be a string, got the number 5', () => createS3BlobStore({ bucket: 'b', accessKeyId: 'k', secretAccessKey: 's', region: 5 as never })],
  ['entries[0].integrity must be a string without lone surrogates', () => computeLockfileHash([{ ...entry, integrity: half }])],
  ['entries[1] must be an object with name', () => computeLockfileHash([entry, , entry] as never)],
  ['packages[0].version must be a string, got undefined', () => buildDependencies([{ name: 'a' } as never])],
  ['packages[0].enabled must be a boolean', () => buildDependencies([{ name: 'a', version: '1', enabled: 'no' as never }])],
  ['roots["a"] must be a string, got the number 5', () => createReconcileFsDeps({ storeRoot, fetchBlob, roots: { a: 5 as never } })],
  ['roots["a"] must be a string', () => planTree({ storeRoot, manifest: [], roots: { a: null as never } })],
  ['desiredLockfileHash must be a string without lone', () => resolveResolutionRoot({ storeRoot, desiredLockfileHash: half })],
  ['env.HOLDFAST_DATA_DIR must be a string', () => resolveDataDir({ HOLDFAST_DATA_DIR: 5 as never })],
  ['entry.blobSha256 must be a string', () => verifyBlobSha256({ entry: { blobSha256: 5 as never }, bytes: new Uint8Array() })],
  ['cap.warnBytes must be a number of bytes', () => evaluateSizeCap({ totalSizeBytes: 1, cap: {} as never })],
  ['totalSizeBytes must be a number of bytes', () => evaluateSizeCap({ totalSizeBytes: Number.NaN, cap: { warnBytes: 1, blockBytes: 2 } })],
  ['deps.target must be a string that is not blank', () => runStorageMigration({ ...migration, target: undefined as never })],
  ['deps.activeBackend must be a string that is not blank', () => runStorageMigration({ ...migration, activeBackend: '' })],
  ['deps.storage.failMigration must be a function', () => runStorageMigration({ ...migration, storage: { ...migration.storage, failMigration: 5 as never } })],
  ['deps.getStore must be a function', () => runStorageMigration({} as never)],
  // Read wrongly, either would delete every blob of that manifest.
  ['the result of retainedManifests[0] must be an array, got an object', () => gc({ retainedManifests: async () => [{ manifest: [entry] }] })],
  ['the result of retainedManifests[0][0].integrity must be a string', () => gc({ retainedManifests: async () => [[{ key: 'sha-a' }]] })],
];

test.each(cases)('%s', async (start, run) => {
  const error = await failure(run);
  expect([error.code, error.message.slice(0, start.length)]).toEqual(['HF_INVALID_ARGUMENT', start]);
});

test('of what a resolver found wrongly nothing is published', async () => {
  const put: string[] = [];
  const run = (last: unknown) =>
    performInstall({
      packages: [],
      ignoreScripts: true,
      resolver: { resolve: async () => [{ entry, blob: new Uint8Array(1) }, last] as never },
      blobStore: { id: 'x', has: async () => false, put: async ({ integrity }) => void put.push(integrity) },
      blobIndex: { record: async () => {} },
    });
  expect((await failure(() => run(null))).message).toBe('the result of resolver.resolve[1] must be an object, got null');
  expect((await failure(() => run({ entry }))).message).toContain('the result of resolver.resolve[1].blob must be a Uint8Array');
  expect(put).toEqual([]);
});

describe('packages', () => {
  test.each(['__proto__', '../../x'])('a dependency named %s is told with the package that asks for it', async (key) => {
    const bad = await makePackage('bad', '1.2.3', { files: { 'package.json': `{"name":"bad","version":"1.2.3","dependencies":{"${key}":"1"}}` } });
    const error = await rejection(makeHost([bad]).to('h'));
    expect(error).toMatchObject({ code: 'HF_PKG_BAD_NAME', name: 'PackageStoreError', dependent: 'bad@1.2.3' });
    expect(error.message).toContain(`Invalid package name "${key}"; the package.json of bad@1.2.3 requires it`);
  });

  test('a command whose name no file can have is skipped, and told', async () => {
    const long = 'x'.repeat(300);
    const host = makeHost([await makePackage('a', '1.0.0', { json: { bin: { [long]: 'index.js', short: 'index.js' } } })]);
    await host.to('h');
    expect(names(host.path('current/node_modules/.bin')).filter((name) => !name.includes('.'))).toEqual(['short']);
    const { warnings } = await planTree({ storeRoot: host.storeRoot, manifest: host.manifest });
    expect(warnings).toEqual([expect.stringMatching(/^a@1\.0\.0 in node_modules\/a has a command with a name of 300 bytes, "x{40}…", .* was not linked$/)]);
    expect(host.lines).toContain(warnings[0]);
  });
});

describe('a store with something else where a folder must be', () => {
  const made = async () => {
    const host = makeHost(await somePackages(1));
    await host.to('h');
    return host;
  };
  const told = async (run: () => unknown, ...parts: string[]) => {
    const { message, hfCode } = await failure(run);
    expect(hfCode).toBe('HF_IO');
    for (const part of parts) expect(message).toContain(part);
    // Not the bare words of the system, and each thing said once.
    expect(message.split('; ')).toHaveLength(2);
  };

  test.skipIf(process.platform === 'win32')('the root, or something above it', async () => {
    const one = await somePackages(1);
    const file = join(tempDir(), 'file');
    writeFileSync(file, 'x');
    for (const root of [file, join(file, 'x')]) {
      const host = makeHost(one, { storeRoot: root });
      await told(() => host.to('h'), `${file} is a file, but the store root ${root} needs a folder there`, 'name another root');
      await told(() => rollbackTo({ storeRoot: root, lockfileHash: 'h' }), `${file} is a file`);
    }
    const nowhere = join(tempDir(), 'link');
    symlinkSync('nowhere', nowhere);
    await told(() => makeHost(one, { storeRoot: nowhere }).to('h'), `${nowhere} is a link that leads nowhere`);
  });

  test.skipIf(process.platform === 'win32').each(['trees', 'cache', '.hf'])('%s', async (name) => {
    const host = await made();
    rmSync(host.path(name), { recursive: true });
    writeFileSync(host.path(name), 'x');
    await told(() => host.to('i'), `${host.path(name)} is a file, but must be a folder of the store: move it away`);
    expect(readFileSync(host.path(name), 'utf8')).toBe('x');
    rmSync(host.path(name));
    await host.to('i');
    expect(names(host.path('current/node_modules'))).toEqual(['p0']);
    await storeStats(host.storeRoot);
  });

  test.skipIf(process.platform === 'win32')('current, the lock, and the pins', async () => {
    const host = await made();
    rmSync(host.path('current'));
    mkdirSync(host.path('current/x'), { recursive: true });
    await told(() => host.to('h'), host.path('current'), 'a folder stands where the link must be: move it away');
    await told(() => atomicSymlinkSwap({ linkPath: host.path('current'), target: 'x' }), 'a folder stands where the link must be');
    rmSync(host.path('current'), { recursive: true });
    rmSync(host.path('.hf/lock'));
    mkdirSync(host.path('.hf/lock'));
    await told(() => host.to('h'), `${host.path('.hf/lock')} is a folder, but must be a file: remove it`);
    rmSync(host.path('.hf/lock'), { recursive: true });
    await host.to('h');
    rmSync(host.path('.hf/pins'), { recursive: true, force: true });
    writeFileSync(host.path('.hf/pins'), 'x');
    await told(() => snapshotResolutionRoot({ storeRoot: host.storeRoot }), `${host.path('.hf/pins')} is a file`);
  });
});
