// Publishing, collecting blobs, and moving them between stores. Numbers: acceptance checks.
import {
  PackageStoreError,
  blobSha256,
  computeLockfileHash,
  createBlobGcTrigger,
  createBlobStoreRegistry,
  performInstall,
  resumeCrashedMigration,
  runBlobGc,
  runInstallNow,
  runStorageMigration,
  sortManifest,
  type BlobGcDeps,
  type BlobGcRunnerDeps,
  type BlobStore,
  type GcBlob,
  type InstallControllerDeps,
  type ManifestEntry,
  type StorageMigrationDeps,
} from 'holdfast';
import { describe, expect, test } from 'vitest';

import { rejection } from './support';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const NOW = 1_700_000_000_000;
const DAY = 86_400_000;

/** A blob store as a program writes one. */
function memoryStore(id: string, blobs: Record<string, string> = {}): BlobStore & { blobs: Map<string, Uint8Array> } {
  const held = new Map(Object.entries(blobs).map(([key, text]) => [key, bytes(text)]));
  return {
    id,
    blobs: held,
    put: async (input) => void (held.has(input.integrity) || held.set(input.integrity, input.bytes)),
    get: async ({ integrity }) => held.get(integrity),
    has: async ({ integrity }) => held.has(integrity),
    delete: async ({ integrity }) => void held.delete(integrity),
    list: async () => [...held.keys()],
  };
}

const entry = (name: string): ManifestEntry => ({ name, version: '1.0.0', integrity: `sha-${name}` });

describe('check 35: blob GC', () => {
  function gc(blobs: [string, number][], manifests: ManifestEntry[][], more: Partial<BlobGcDeps> = {}) {
    const calls: string[] = [];
    const rows: GcBlob[] = blobs.map(([name, age]) => ({ integrity: `sha-${name}`, backend: 'fs', sizeBytes: 10, createdAt: new Date(NOW - age) }));
    const deps: BlobGcDeps = {
      isBusy: async () => (calls.push('busy'), false),
      retainedManifests: async () => (calls.push('retained'), manifests),
      listBlobs: async () => (calls.push('list'), rows),
      deleteBlob: async ({ integrity, backend }) => {
        calls.push(`delete ${integrity} ${backend}`);
        rows.splice(
          rows.findIndex((row) => row.integrity === integrity),
          1,
        );
      },
      recordRun: async (run) => void calls.push(`record ${run.deleted} ${run.bytesReclaimed}`),
      now: () => NOW,
      ...more,
    };
    return { deps, calls };
  }

  test('what any retained manifest needs stays, fresh orphans stay, the rest goes in order; a second pass finds nothing', async () => {
    const { deps, calls } = gc([['a', 9 * DAY], ['fresh', DAY - 1], ['old', DAY], ['older', 2 * DAY], ['b', 9 * DAY]], [[entry('a')], [entry('b')]]);
    expect(await runBlobGc({ deps })).toEqual({ ran: true, candidates: 3, deleted: 2, keptWithinGrace: 1, bytesReclaimed: 20 });
    expect(calls).toEqual(['busy', 'retained', 'list', 'delete sha-old fs', 'delete sha-older fs', 'record 2 20']);
    expect(await runBlobGc({ deps })).toMatchObject({ deleted: 0, candidates: 1 });
  });

  test('busy is a refusal before anything is asked', async () => {
    const { deps, calls } = gc([['old', DAY]], [[]], { isBusy: async () => true });
    expect(await runBlobGc({ deps })).toEqual({
      ran: false,
      reason: 'An install or storage migration is in flight; skipping blob GC.',
      candidates: 0,
      deleted: 0,
      keptWithinGrace: 0,
      bytesReclaimed: 0,
    });
    expect(calls).toEqual([]);
  });

  test('no manifest at all is a missing signal, an empty one an empty set', async () => {
    const unknown = gc([['old', DAY]], []);
    expect(await runBlobGc(unknown)).toMatchObject({ ran: false, reason: 'No retained manifest is known; refusing blob GC.' });
    expect(unknown.calls).toEqual(['busy', 'retained']);
    expect(await runBlobGc(gc([['old', DAY]], [[]]))).toMatchObject({ ran: true, deleted: 1 });
  });

  test('one that cannot be deleted is logged and counted nowhere, and the others go', async () => {
    const errors: string[] = [];
    const { deps } = gc([['x', DAY], ['y', DAY]], [[]], {
      logger: { debug: () => {}, error: (line) => void errors.push(line) },
      recordRun: async () => Promise.reject(new Error('nobody cares')),
    });
    const real = deps.deleteBlob;
    deps.deleteBlob = async (input) => {
      if (input.integrity === 'sha-x') throw new Error('locked');
      return real(input);
    };
    expect(await runBlobGc({ deps })).toEqual({ ran: true, candidates: 2, deleted: 1, keptWithinGrace: 0, bytesReclaimed: 10 });
    expect(errors).toHaveLength(1);
    expect(errors[0]).toContain('sha-x');
  });

  test('an install that begins meanwhile ends the pass at the next fifty', async () => {
    let asked = 0;
    const many = Array.from({ length: 120 }, (_, at): [string, number] => [`b${at}`, DAY]);
    const { deps } = gc(many, [[]], { isBusy: async () => ++asked > 2 });
    expect(await runBlobGc({ deps })).toMatchObject({ ran: true, deleted: 100 });
  });

  test('a blob whose age is no number stays', async () => {
    const listBlobs = async () => [{ integrity: 'sha-x', backend: 'fs', sizeBytes: 1, createdAt: new Date('no date') }];
    const { deps, calls } = gc([], [[entry('a')]], { listBlobs });
    expect(await runBlobGc({ deps })).toMatchObject({ ran: true, candidates: 1, deleted: 0, keptWithinGrace: 1 });
    expect(await runBlobGc({ deps: { ...deps, now: () => Number.NaN } })).toMatchObject({ deleted: 0 });
    expect(calls.filter((call) => call.startsWith('delete'))).toEqual([]);
  });

  test('the trigger retains the newest and the current one, and always prunes and releases', async () => {
    const calls: string[] = [];
    const store = memoryStore('fs', { 'sha-a': 'a', 'sha-b': 'b', 'sha-c': 'c', 'sha-d': 'd' });
    const blobStores = createBlobStoreRegistry();
    blobStores.register(store);
    const row = (name: string, backend = 'fs'): GcBlob => ({ integrity: `sha-${name}`, backend, sizeBytes: 5, createdAt: new Date(0) });
    let held = false;
    const deps: BlobGcRunnerDeps = {
      installerLock: { tryInstallerLock: async () => (held ? null : { release: async () => void calls.push('release') }) },
      blobStores,
      listBlobs: async () => [row('a'), row('b'), row('c'), row('d', 'gone')],
      isBusy: async () => false,
      pruneHistory: async (keep) => {
        calls.push(`prune ${keep}`);
        throw new Error('pruning failed');
      },
      removeBlobRow: async (integrity) => void calls.push(`row ${integrity}`),
      loadCurrent: async () => ({ lockfileHash: 'h', manifest: [entry('a')] }),
      recentHistory: async (limit) => (calls.push(`history ${limit}`), [[entry('b')]]),
      logger: { debug: () => {}, error: (line) => void calls.push(line.slice(0, 30)) },
    };
    const trigger = createBlobGcTrigger(deps);
    expect(await trigger()).toEqual({ ran: true, candidates: 2, deleted: 1, keptWithinGrace: 0, bytesReclaimed: 5 });
    // The row of the unknown backend stays: it is all that tells where the bytes are.
    expect(calls).toEqual(['history 2', 'row sha-c', 'Blob GC could not delete sha-d', 'prune 2', 'Pruning the install history fa', 'release']);
    expect([...store.blobs.keys()]).toEqual(['sha-a', 'sha-b', 'sha-d']);

    held = true;
    calls.length = 0;
    expect(await trigger()).toMatchObject({ ran: false, reason: 'An install or storage migration holds the installer lock; skipping blob GC.' });
    expect(calls).toEqual([]);
    held = false;
    deps.recentHistory = async () => Promise.reject(new Error('database away'));
    expect(await createBlobGcTrigger(deps)()).toMatchObject({ ran: false, reason: 'database away' });
    expect(calls).toContain('release');
  });
});

describe('check 36: migration', () => {
  function migration(from: BlobStore, to: BlobStore, rows: { integrity: string; backend: string; blobSha256?: string }[], more: Partial<StorageMigrationDeps> = {}) {
    const calls: string[] = [];
    const deps: StorageMigrationDeps = {
      blobIndex: {
        listNotOnBackend: async (target) => rows.filter(({ backend }) => backend !== target),
        setBackend: async (integrity, backend) => {
          calls.push(`set ${integrity}`);
          rows.find((row) => row.integrity === integrity)!.backend = backend;
        },
      },
      storage: {
        beginMigration: async (target) => void calls.push(`begin ${target}`),
        setMigratedCount: async (count) => void calls.push(`count ${count}`),
        completeMigration: async (target) => void calls.push(`complete ${target}`),
        failMigration: async (message) => void calls.push(`fail ${message}`),
      },
      getStore: (id) => (id === from.id ? from : to),
      activeBackend: from.id,
      target: to.id,
      ...more,
    };
    return { deps, calls, rows };
  }
  const two = () => [
    { integrity: 'sha-a', backend: 'fs' },
    { integrity: 'sha-b', backend: 'fs' },
  ];

  test('both are copied, verified and noted; with `gcSource` the source goes after that', async () => {
    const from = memoryStore('fs', { 'sha-a': 'AAA', 'sha-b': 'BBB' });
    const to = memoryStore('pg');
    const { deps, calls } = migration(from, to, two(), { gcSource: true });
    const remove = from.delete;
    from.delete = async (input) => (calls.push(`delete ${input.integrity}`), remove(input));
    expect(await runStorageMigration(deps)).toEqual({ migrated: 2, completed: true });
    expect(calls).toEqual(['begin pg', 'set sha-a', 'delete sha-a', 'count 1', 'set sha-b', 'delete sha-b', 'count 2', 'complete pg']);
    expect([from.blobs.size, to.blobs.size]).toEqual([0, 2]);
    const same = migration(from, from, []);
    expect(await runStorageMigration(same.deps)).toEqual({ migrated: 0, completed: true });
    expect(same.calls).toEqual([]);
  });

  test('interrupted after one, the next run moves one', async () => {
    const from = memoryStore('fs', { 'sha-a': 'AAA', 'sha-b': 'BBB' });
    const to = memoryStore('pg');
    const { deps, calls, rows } = migration(from, to, two());
    const put = to.put;
    to.put = async (input) => {
      if (input.integrity === 'sha-b') throw new Error('connection lost');
      return put(input);
    };
    expect(await runStorageMigration(deps)).toEqual({ migrated: 1, completed: false, error: 'connection lost' });
    expect(calls.at(-1)).toBe('fail connection lost');
    expect(rows.map(({ backend }) => backend)).toEqual(['pg', 'fs']);
    to.put = put;
    expect(await runStorageMigration(deps)).toEqual({ migrated: 1, completed: true });
  });

  test('a target that corrupts is noticed; a truncated copy that is there already is replaced', async () => {
    const from = memoryStore('fs', { 'sha-a': 'FULL-CONTENT' });
    const bad = memoryStore('pg');
    bad.get = async () => bytes('FU');
    const { deps, rows } = migration(from, bad, [{ integrity: 'sha-a', backend: 'fs' }]);
    const result = await runStorageMigration(deps);
    expect(result.completed).toBe(false);
    expect(result.error).toBe('Integrity verification failed for sha-a: target copy does not match source.');
    expect(rows[0]!.backend).toBe('fs');

    const truncated = memoryStore('pg', { 'sha-a': 'FU' });
    expect(await runStorageMigration(migration(from, truncated, [{ integrity: 'sha-a', backend: 'fs' }]).deps)).toEqual({ migrated: 1, completed: true });
    expect(new TextDecoder().decode(truncated.blobs.get('sha-a'))).toBe('FULL-CONTENT');

    // A store that knows that its copy is damaged says so instead of giving it.
    const knows = memoryStore('pg', { 'sha-a': 'FU' });
    const get = knows.get;
    knows.get = async (input) => {
      if (knows.blobs.get('sha-a')?.length === 2) throw Object.assign(new Error('damaged'), { hfCode: 'HF_CORRUPT' });
      return get(input);
    };
    expect(await runStorageMigration(migration(from, knows, [{ integrity: 'sha-a', backend: 'fs' }]).deps)).toEqual({ migrated: 1, completed: true });
  });

  test('a blob that only the target has is accepted, unless the index knows better; one that nobody has is told', async () => {
    const from = memoryStore('fs');
    const to = memoryStore('pg', { 'sha-a': 'AAA' });
    const row = (blobSha256?: string) => [{ integrity: 'sha-a', backend: 'fs', ...(blobSha256 && { blobSha256 }) }];
    expect(await runStorageMigration(migration(from, to, row()).deps)).toEqual({ migrated: 1, completed: true });
    expect(await runStorageMigration(migration(from, to, row(blobSha256(bytes('AAA')))).deps)).toEqual({ migrated: 1, completed: true });
    expect((await runStorageMigration(migration(from, to, row('0'.repeat(64))).deps)).error).toMatch(/Integrity verification failed/);
    const { error } = await runStorageMigration(migration(from, to, [{ integrity: 'sha-x', backend: 'fs' }]).deps);
    expect(error).toBe('Blob sha-x missing from its source backend "fs"; cannot migrate.');
  });

  test('what is published meanwhile is moved, too', async () => {
    const from = memoryStore('fs', { 'sha-a': 'AAA', 'sha-late': 'LATE' });
    const to = memoryStore('pg');
    const { deps, rows } = migration(from, to, [{ integrity: 'sha-a', backend: 'fs' }]);
    const put = to.put;
    to.put = async (input) => {
      if (input.integrity === 'sha-a') rows.push({ integrity: 'sha-late', backend: 'fs' });
      return put(input);
    };
    expect(await runStorageMigration(deps)).toEqual({ migrated: 2, completed: true });
    expect([...to.blobs.keys()]).toEqual(['sha-a', 'sha-late']);
  });

  test('an index that notes no move is told, not asked for ever', async () => {
    const { deps, calls } = migration(memoryStore('fs', { 'sha-a': 'AAA' }), memoryStore('pg'), [{ integrity: 'sha-a', backend: 'fs' }]);
    deps.blobIndex.setBackend = async () => {};
    const result = await runStorageMigration(deps);
    expect(result).toMatchObject({ migrated: 1, completed: false, error: expect.stringMatching(/sha-a.*setBackend/) });
    expect(calls.at(-1)).toBe(`fail ${result.error}`);
  });

  test('a hash of the index counts in either case', async () => {
    const upper = blobSha256(bytes('AAA')).toUpperCase();
    const rows = [{ integrity: 'sha-a', backend: 'fs', blobSha256: upper }];
    const { deps } = migration(memoryStore('fs'), memoryStore('pg', { 'sha-a': 'AAA' }), rows);
    expect(await runStorageMigration(deps)).toEqual({ migrated: 1, completed: true });
  });

  test('a crashed migration is resumed by who wins the lock, in the background', async () => {
    const calls: string[] = [];
    let finish = (): void => {};
    const state = { migrationStatus: 'migrating', migrationTarget: 'pg' as string | null, activeBackend: 'fs' };
    const deps = {
      loadState: async () => state,
      tryLock: async () => (calls.push('lock'), { release: async () => void calls.push('release') }),
      runMigration: async (input: object) => {
        calls.push(JSON.stringify(input));
        await new Promise<void>((resolve) => (finish = resolve));
        throw new Error('failed');
      },
      logger: { debug: () => {}, error: (line: string) => void calls.push(line) },
    };
    const { resumed, done } = await resumeCrashedMigration(deps);
    expect(resumed).toBe(true);
    finish();
    await done;
    expect(calls).toEqual(['lock', '{"target":"pg","activeBackend":"fs"}', 'Resumed storage migration failed: failed', 'release']);
    calls.length = 0;
    expect(await resumeCrashedMigration({ ...deps, loadState: async () => ({ ...state, migrationStatus: 'idle' }) })).toEqual({
      resumed: false,
      reason: 'no migration in flight',
    });
    expect(calls).toEqual([]);
    expect(await resumeCrashedMigration({ ...deps, tryLock: async () => null })).toEqual({ resumed: false, reason: 'another instance holds the lock' });
  });
});

describe('check 38: the registry', () => {
  test('the active store is asked first, then the others; one that throws or lies is skipped', async () => {
    const errors: string[] = [];
    const registry = createBlobStoreRegistry({ logger: { debug: () => {}, error: (line) => void errors.push(line) } });
    const broken = memoryStore('fs');
    broken.get = async () => Promise.reject(new Error('disk away'));
    const lying = memoryStore('lying', { k: 'other' });
    const good = memoryStore('pg', { k: 'right' });
    for (const store of [lying, broken, good]) registry.register(store);
    const read = (more = {}) => registry.readWithFallback({ integrity: 'k', activeBackendId: 'fs', blobSha256: blobSha256(bytes('right')), ...more });
    expect(await read()).toEqual({ bytes: bytes('right'), servedBy: 'pg' });
    expect(errors).toHaveLength(2);
    expect(await read({ blobSha256: blobSha256(bytes('right')).toUpperCase() })).toEqual({ bytes: bytes('right'), servedBy: 'pg' });
    expect(await read({ activeBackendId: 'unknown', blobSha256: undefined })).toEqual({ bytes: bytes('other'), servedBy: 'lying' });
    expect((await rejection(read({ integrity: 'nobody' }))).message).toBe('disk away');
    expect(registry.ids()).toEqual(['lying', 'fs', 'pg']);
    registry.register(memoryStore('fs'));
    expect(registry.ids()).toEqual(['lying', 'fs', 'pg']);
    expect(await read({ integrity: 'nobody' })).toBeUndefined();
    expect([registry.has('pg'), registry.has('s3')]).toEqual([true, false]);
  });

  test('an unknown id is an error at once', () => {
    const registry = createBlobStoreRegistry();
    const get = () => registry.get('postgres');
    expect(get).toThrow(PackageStoreError);
    expect(get).toThrow('Blob store backend "postgres" is not registered. Available: (none)');
    for (const id of ['fs', 's3']) registry.register(memoryStore(id));
    expect(get).toThrow(/not registered.*postgres|postgres.*not registered/);
    expect(get).toThrow(expect.objectContaining({ code: 'HF_PKG_NO_BACKEND', message: 'Blob store backend "postgres" is not registered. Available: fs, s3' }));
    expect(registry.get('fs').id).toBe('fs');
  });
});

describe('installing', () => {
  const resolved = [
    { entry: entry('b'), blob: bytes('blob of b') },
    { entry: entry('a'), blob: bytes('blob of a, packed anew') },
  ];

  test('puts what the store lacks, and takes the hash of what it has', async () => {
    const records: object[] = [];
    const blobStore = memoryStore('fs', { 'sha-a': 'blob of a' });
    const result = await performInstall({
      packages: [],
      ignoreScripts: true,
      resolver: { resolve: async () => resolved },
      blobStore,
      blobIndex: { record: async (row) => void records.push(row) },
    });
    // In the resolver's order, which says what belongs at the root; the hash is the same in any order.
    const manifest = [
      { ...entry('b'), blobSha256: blobSha256(bytes('blob of b')) },
      { ...entry('a'), blobSha256: blobSha256(bytes('blob of a')) },
    ];
    expect(computeLockfileHash(manifest)).toBe(computeLockfileHash(sortManifest(manifest)));
    expect(result).toEqual({ lockfileHash: computeLockfileHash(manifest), manifest, totalSizeBytes: 31, publishedIntegrities: ['sha-b'] });
    expect(records).toEqual([{ integrity: 'sha-b', name: 'b', version: '1.0.0', backend: 'fs', sizeBytes: 9 }]);
    const blind = { id: 'x', has: async () => true, put: async () => {} };
    const { manifest: own } = await performInstall({ packages: [], ignoreScripts: true, resolver: { resolve: async () => resolved }, blobStore: blind, blobIndex: { record: async () => {} } });
    expect(own[1]!.blobSha256).toBe(blobSha256(resolved[1]!.blob));
  });

  function controller(more: Partial<InstallControllerDeps> = {}) {
    const calls: string[] = [];
    const deps: InstallControllerDeps = {
      installState: {
        load: async () => undefined,
        setInstalling: async () => void calls.push('installing'),
        setReady: async ({ lockfileHash, totalSizeBytes }) => void calls.push(`ready ${lockfileHash.slice(0, 4)} ${totalSizeBytes}`),
        setError: async (message) => void calls.push(`error ${message}`),
      },
      installerLock: { tryInstallerLock: async () => ({ release: async () => void calls.push('release') }) },
      loadInstallInputs: async () => ({ packages: [], ignoreScripts: true }),
      resolver: { resolve: async () => resolved },
      blobStore: memoryStore('fs'),
      blobIndex: { record: async () => {} },
      sizeCap: async () => ({ warnBytes: 100, blockBytes: 200 }),
      isMigrationInFlight: async () => false,
      recordHistory: async () => {
        calls.push('history');
        throw new Error('history away');
      },
      emitChanged: async () => void calls.push('emit'),
      logger: { debug: () => {}, error: (line) => void calls.push(line.split('\n')[0]!) },
      ...more,
    };
    return { deps, calls };
  }

  test('goes through its states; a history that fails is only logged', async () => {
    const { deps, calls } = controller();
    expect(await runInstallNow(deps)).toEqual({ started: true });
    expect(calls.map((line) => line.split(' ')[0])).toEqual(['installing', 'ready', 'history', 'Recording', 'emit', 'release']);
  });

  test('refuses with the reason, and releases what it holds', async () => {
    const migrating = controller({ isMigrationInFlight: async () => true });
    expect(await runInstallNow(migrating.deps)).toEqual({ started: false, reason: 'A storage migration is in progress; try again once it completes.' });
    expect(migrating.calls).toEqual([]);
    const locked = controller({ installerLock: { tryInstallerLock: async () => null } });
    expect(await runInstallNow(locked.deps)).toEqual({ started: false, reason: 'Another instance is currently installing.' });
    expect(locked.calls).toEqual([]);
    const large = controller({ sizeCap: async () => ({ warnBytes: 1, blockBytes: 2 }) });
    const reason = 'Resolved package size 0.0MB exceeds the 0.0MB block threshold. Remove packages or raise the cap.';
    expect(await runInstallNow(large.deps)).toEqual({ started: false, reason });
    expect(large.calls).toEqual(['installing', `error ${reason}`, 'release']);
    const failing = controller({ resolver: { resolve: async () => Promise.reject(new Error('registry away')) } });
    expect(await runInstallNow(failing.deps)).toEqual({ started: false, reason: 'registry away' });
    expect(failing.calls).toEqual(['installing', 'Script package install failed: Error: registry away', 'error registry away', 'release']);
  });
});
