// Trees after they were built: the link, retirement and its clock, sweeps, pins, resolution, and hands that edit. Numbers: acceptance checks.
import { appendFileSync, chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, realpathSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  DEFAULT_TREE_GC_GRACE_MS,
  RETIRED_AT_MARKER,
  atomicSymlinkSwap,
  hasRetirementMarker,
  markTreeRetired,
  readCurrentTarget,
  readTreeRetiredAt,
  repairTree,
  resolveDataDir,
  resolveResolutionRoot,
  resolveResolutionRootFromStore,
  resolveScriptPackagesDir,
  rollbackTo,
  snapshotResolutionRoot,
  storePaths,
  storeStats,
  sweepTreeGc,
  verifyTree,
} from 'holdfast';
import { describe, expect, test } from 'vitest';

import { currentOf, leftovers, makeHost, names, rejection, somePackages, start, tempDir } from './support';

const HOUR = 3_600_000;

/** Trees without packages, the last one current. */
async function treesOf(...hashes: string[]) {
  const host = makeHost([]);
  for (const hash of hashes) await host.to(hash);
  return host;
}

describe('retirement and sweeps', () => {
  test('check 29: age counts from retirement, not from the tree', async () => {
    const host = await treesOf('A', 'B');
    const ancient = new Date(0);
    utimesSync(host.path('trees/A'), ancient, ancient);
    const { storeRoot } = host;
    expect(await sweepTreeGc({ storeRoot })).toEqual({ deleted: [], keptWithinGrace: ['A'], currentHash: 'B' });
    const later = await sweepTreeGc({ storeRoot, now: Date.now() + 10 * HOUR });
    expect(later).toEqual({ deleted: ['A'], keptWithinGrace: [], currentHash: 'B' });
    expect(names(host.path('trees'))).toEqual(['B']);
    expect(leftovers(storeRoot)).toEqual([]);
    expect(await sweepTreeGc({ storeRoot, now: Date.now() + 1000 * HOUR })).toEqual({ deleted: [], keptWithinGrace: [], currentHash: 'B' });
  });

  test.each([
    ['none', undefined],
    ['a torn one', '17'],
    ['an empty one', ''],
    ['one that is no number', 'soon\n'],
  ])('check 30: a tree with %s for a marker is kept, marked, and goes a grace later', async (_, marker) => {
    const host = await treesOf('old', 'cur');
    const { storeRoot } = host;
    const file = host.path('trees/old', RETIRED_AT_MARKER);
    rmSync(file, { force: true });
    if (marker !== undefined) writeFileSync(file, marker);
    const now = 1_900_000_000_000;
    expect(await sweepTreeGc({ storeRoot, now })).toEqual({ deleted: [], keptWithinGrace: ['old'], currentHash: 'cur' });
    expect(await readTreeRetiredAt({ treeDir: host.path('trees/old') })).toBe(now);
    expect((await sweepTreeGc({ storeRoot, now: now + DEFAULT_TREE_GC_GRACE_MS - 1 })).deleted).toEqual([]);
    expect((await sweepTreeGc({ storeRoot, now: now + DEFAULT_TREE_GC_GRACE_MS })).deleted).toEqual(['old']);
  });

  test('check 31: without a readable link nothing goes, however old', async () => {
    for (const spoil of [(link: string) => rmSync(link), (link: string) => (rmSync(link), writeFileSync(link, 'trees/cur'))]) {
      const host = await treesOf('old', 'cur');
      spoil(host.path('current'));
      const swept = await sweepTreeGc({ storeRoot: host.storeRoot, now: Date.now() + 1000 * HOUR, graceMs: 0 });
      expect(swept).toEqual({ deleted: [], keptWithinGrace: ['cur', 'old'] });
      expect(names(host.path('trees'))).toEqual(['cur', 'old']);
    }
    expect(await sweepTreeGc({ storeRoot: tempDir() })).toEqual({ deleted: [], keptWithinGrace: [] });
  });

  test('a clock that was set back or forth costs no tree', async () => {
    const host = await treesOf('old', 'cur');
    const { storeRoot } = host;
    const treeDir = host.path('trees/old');
    // Marked while the clock was two hours ahead: the marker lies in the future, and is written anew.
    const now = Date.now();
    await markTreeRetired({ treeDir, at: now + 2 * HOUR });
    expect((await sweepTreeGc({ storeRoot, now })).keptWithinGrace).toEqual(['old']);
    expect(await readTreeRetiredAt({ treeDir })).toBe(now);
    // Marked just now by the clock of this boot, which then jumps: the time that has really passed counts.
    await atomicSymlinkSwap({ linkPath: host.path('current'), target: 'trees/old' });
    await atomicSymlinkSwap({ linkPath: host.path('current'), target: 'trees/cur' });
    const [stamp, rest] = readFileSync(join(treeDir, RETIRED_AT_MARKER), 'utf8').split('\n');
    expect(Number(stamp)).toBeGreaterThanOrEqual(now);
    if (rest !== undefined && rest !== '') {
      writeFileSync(join(treeDir, RETIRED_AT_MARKER), `${Number(stamp) - 5 * HOUR}\n${rest}\n`);
      expect((await sweepTreeGc({ storeRoot })).deleted).toEqual([]);
    }
    expect((await sweepTreeGc({ storeRoot, graceMs: 0, now: Date.now() + HOUR })).deleted).toEqual(['old']);
  });

  test('markers are what the original reads, and marking never rejects', async () => {
    const treeDir = tempDir();
    expect(await hasRetirementMarker({ treeDir })).toBe(false);
    expect(await readTreeRetiredAt({ treeDir })).toBeUndefined();
    await markTreeRetired({ treeDir, at: 1_700_000_000_000 });
    expect(readFileSync(join(treeDir, RETIRED_AT_MARKER), 'utf8').split('\n')[0]).toBe('1700000000000');
    expect(Number.parseInt(readFileSync(join(treeDir, RETIRED_AT_MARKER), 'utf8'), 10)).toBe(1_700_000_000_000);
    expect(await readTreeRetiredAt({ treeDir })).toBe(1_700_000_000_000);
    await markTreeRetired({ treeDir, at: 5 });
    expect(await readTreeRetiredAt({ treeDir })).toBe(5);
    expect(await hasRetirementMarker({ treeDir })).toBe(true);
    await expect(markTreeRetired({ treeDir: join(treeDir, 'none/at/all'), at: 1 })).resolves.toBeUndefined();
    writeFileSync(join(treeDir, RETIRED_AT_MARKER), '1700000000000\n');
    expect(await readTreeRetiredAt({ treeDir })).toBe(1_700_000_000_000);
  });

  test('strangers among the trees are let be', async () => {
    const host = await treesOf('cur');
    mkdirSync(host.path('trees/.hidden'));
    writeFileSync(host.path('trees/file'), '');
    symlinkSync('cur', host.path('trees/link'));
    expect(await sweepTreeGc({ storeRoot: host.storeRoot, graceMs: 0 })).toEqual({ deleted: [], keptWithinGrace: [], currentHash: 'cur' });
    expect(names(host.path('trees'))).toEqual(['.hidden', 'cur', 'file', 'link']);
  });
});

describe('the link', () => {
  test('is replaced in one step, marks the old tree, and takes the mark from the new one', async () => {
    const folder = tempDir();
    const linkPath = join(folder, 'current');
    for (const name of ['a', 'b']) mkdirSync(join(folder, 'trees', name), { recursive: true });
    expect(await readCurrentTarget(linkPath)).toBeUndefined();
    await atomicSymlinkSwap({ linkPath, target: 'trees/a' });
    expect(await readCurrentTarget(linkPath)).toBe('trees/a');
    await atomicSymlinkSwap({ linkPath, target: 'trees/b', now: 7 });
    expect(await readTreeRetiredAt({ treeDir: join(folder, 'trees/a') })).toBe(7);
    await atomicSymlinkSwap({ linkPath, target: 'trees/a', now: 8 });
    expect(await hasRetirementMarker({ treeDir: join(folder, 'trees/a') })).toBe(false);
    expect(await readTreeRetiredAt({ treeDir: join(folder, 'trees/b') })).toBe(8);
    // The same target is no retirement, a dangling one is allowed.
    await atomicSymlinkSwap({ linkPath, target: 'trees/a' });
    expect(await hasRetirementMarker({ treeDir: join(folder, 'trees/a') })).toBe(false);
    await atomicSymlinkSwap({ linkPath, target: 'trees/none' });
    expect(await readCurrentTarget(linkPath)).toBe('trees/none');
    expect(names(folder)).toEqual(['current', 'trees']);
  });

  test('a folder in its place is an error, and stays', async () => {
    const folder = tempDir();
    mkdirSync(join(folder, 'current/mine'), { recursive: true });
    const error = await rejection(atomicSymlinkSwap({ linkPath: join(folder, 'current'), target: 'trees/a' }));
    expect(error.code).toBe('EISDIR');
    expect(names(folder)).toEqual(['current']);
    expect(await readCurrentTarget(join(folder, 'current'))).toBeUndefined();
  });

  test('readers find the old target or the new one, never none', async () => {
    const folder = tempDir();
    const linkPath = join(folder, 'current');
    for (const name of ['a', 'b']) mkdirSync(join(folder, 'trees', name, 'node_modules'), { recursive: true });
    await atomicSymlinkSwap({ linkPath, target: 'trees/a' });
    let over = false;
    let looks = 0;
    const reader = (async () => {
      while (!over) {
        looks++;
        expect(existsSync(join(linkPath, 'node_modules'))).toBe(true);
        expect(['trees/a', 'trees/b']).toContain(await readCurrentTarget(linkPath));
      }
    })();
    for (let round = 0; round < 60; round++) await atomicSymlinkSwap({ linkPath, target: `trees/${round % 2 === 0 ? 'b' : 'a'}` });
    over = true;
    await reader;
    expect(looks).toBeGreaterThan(10);
  });
});

describe('resolution', () => {
  test('check 32: none, ready, or why not', async () => {
    const host = await treesOf('hash');
    const { storeRoot } = host;
    const ask = (desiredLockfileHash: string | null, hostLabel?: string) =>
      resolveResolutionRoot({ desiredLockfileHash, storeRoot, ...(hostLabel && { hostLabel }) });
    expect(await ask(null)).toEqual({ mode: 'none' });
    expect(await ask('hash')).toEqual({ mode: 'ready', root: storePaths(storeRoot).current });
    expect(await ask('new')).toEqual({
      mode: 'notReady',
      reason: 'npm packages not ready on this central backend (expected new, have hash). The package set is still syncing; retry shortly.',
    });
    expect(await resolveResolutionRootFromStore(storeRoot)).toEqual({ mode: 'ready', root: storePaths(storeRoot).current });
    rmSync(host.path('trees/hash/node_modules'), { recursive: true });
    expect((await ask('hash')).mode).toBe('notReady');
    expect(await resolveResolutionRootFromStore(storeRoot)).toEqual({ mode: 'none' });

    const empty = tempDir();
    expect(await resolveResolutionRoot({ desiredLockfileHash: 'h', storeRoot: empty, hostLabel: 'satellite' })).toEqual({
      mode: 'notReady',
      reason: 'npm packages not ready on this satellite (expected h, none materialized). The package set is still syncing; retry shortly.',
    });
    expect(await resolveResolutionRootFromStore(empty)).toEqual({ mode: 'none' });
  });

  test('folders of data come from the environment', () => {
    expect(resolveDataDir({ HOLDFAST_DATA_DIR: '/one', CHECKSTACK_DATA_DIR: '/two' })).toBe('/one');
    expect(resolveDataDir({ HOLDFAST_DATA_DIR: ' ', CHECKSTACK_DATA_DIR: '/two' })).toBe('/two');
    expect(resolveDataDir({ CHECKSTACK_DATA_DIR: 'rel' })).toBe(join(process.cwd(), 'rel'));
    expect(resolveDataDir({})).toBe(join(process.cwd(), '.data'));
    expect(resolveScriptPackagesDir({ CHECKSTACK_DATA_DIR: '/two' })).toBe(join('/two', 'script-packages'));
    expect(storePaths('/r')).toEqual({ root: '/r', cache: '/r/cache', trees: '/r/trees', current: '/r/current', runs: '/r/.runs' });
  });
});

describe('pins', () => {
  test('a pinned tree outlives every sweep until it is released', async () => {
    const host = makeHost(await somePackages(1));
    const { storeRoot } = host;
    await host.to('A');
    const snapshot = await snapshotResolutionRoot({ storeRoot, desiredLockfileHash: 'A' });
    if (snapshot.mode !== 'ready') throw new Error(snapshot.mode);
    expect(snapshot.lockfileHash).toBe('A');
    expect(snapshot.root).toBe(realpathSync(host.path('trees/A')));
    await host.to('B', { manifest: [] });
    const sweep = () => sweepTreeGc({ storeRoot, graceMs: 0, now: Date.now() + HOUR });
    expect(await sweep()).toEqual({ deleted: [], keptWithinGrace: ['A'], currentHash: 'B' });
    expect(existsSync(join(snapshot.root, 'node_modules/p0/index.js'))).toBe(true);
    await snapshot.release();
    await snapshot.release();
    expect((await sweep()).deleted).toEqual(['A']);
    expect((await snapshotResolutionRoot({ storeRoot, desiredLockfileHash: 'A', hostLabel: 'pod' })).mode).toBe('notReady');
    expect(await snapshotResolutionRoot({ storeRoot, desiredLockfileHash: null })).toEqual({ mode: 'none' });
    expect(await snapshotResolutionRoot({ storeRoot: tempDir() })).toEqual({ mode: 'none' });
  });

  test('check 31: the pin of a process that is killed is gone with it', async () => {
    const host = await treesOf('A');
    const { storeRoot } = host;
    const child = start('pin-child.mjs', storeRoot);
    await child.line('pinned ');
    await host.to('B');
    const sweep = () => sweepTreeGc({ storeRoot, graceMs: 0, now: Date.now() + HOUR });
    expect((await sweep()).keptWithinGrace).toEqual(['A']);
    await child.kill();
    expect((await sweep()).deleted).toEqual(['A']);
  });
});

describe('hands that edit', () => {
  test('what was changed, added and removed is found; a repair brings it back, from the network where the cache is spoiled, too', async () => {
    const host = makeHost(await somePackages(3, 3), { linkMode: 'hardlink' });
    const { storeRoot } = host;
    await host.to('h');
    const verify = () => verifyTree({ storeRoot, lockfileHash: 'h' });
    expect(await verify()).toMatchObject({ sound: true, hasRecord: true, damaged: [], missing: [], unexpected: [] });
    // A file of a hard-linked tree is the cache's file: both are damaged at once.
    const shared = host.path('trees/h/node_modules/p0/index.js');
    expect(lstatSync(shared).ino).toBe(lstatSync(host.path('cache/p0@1.0.0/index.js')).ino);
    appendFileSync(shared, '// patched by hand\n');
    rmSync(host.path('trees/h/node_modules/p1/lib/file1.js'));
    writeFileSync(host.path('trees/h/node_modules/p2/.cache'), 'a program may');
    mkdirSync(host.path('trees/h/scratch'));
    expect(await verify()).toMatchObject({
      sound: false,
      damaged: ['node_modules/p0/index.js'],
      missing: ['node_modules/p1/lib/file1.js'],
      unexpected: ['node_modules/p2/.cache'],
    });
    host.fetched.length = 0;
    const repaired = await repairTree({ storeRoot, lockfileHash: 'h', fetchBlob: host.deps.fetchBlob, durability: 'none' });
    expect(repaired).toEqual({ rebuilt: true, refetched: [host.manifest[0]!.integrity] });
    expect(host.fetched).toEqual(repaired.refetched);
    expect((await verify()).sound).toBe(true);
    expect(readFileSync(shared, 'utf8')).not.toContain('patched');
    expect(currentOf(storeRoot)).toBe('trees/h');
    expect(await repairTree({ storeRoot, lockfileHash: 'h', fetchBlob: host.deps.fetchBlob })).toEqual({ rebuilt: false, refetched: [] });
    expect(leftovers(storeRoot)).toEqual([]);
  });

  test('a repair that nobody can supply says what is missing, and leaves the tree as it is', async () => {
    const host = makeHost(await somePackages(1), { linkMode: 'hardlink' });
    await host.to('h');
    appendFileSync(host.path('trees/h/node_modules/p0/index.js'), '// patched\n');
    const repair = (fetchBlob: typeof host.deps.fetchBlob) => repairTree({ storeRoot: host.storeRoot, lockfileHash: 'h', fetchBlob });
    const failing = await rejection(repair(async () => Promise.reject(new Error('no network'))));
    const { integrity } = host.manifest[0]!;
    expect(failing).toMatchObject({ code: 'HF_PKG_ENTRY_MISSING', version: '1.0.0', integrity, cause: { message: 'no network' } });
    expect(failing.message).toBe('Cache entry for p0@1.0.0 is missing or damaged and could not be re-pulled');
    const abort = new AbortController();
    const stopped = repairTree({ storeRoot: host.storeRoot, lockfileHash: 'h', signal: abort.signal, fetchBlob: () => (abort.abort('enough'), new Promise(() => {})) });
    expect(await stopped.catch((reason: unknown) => reason)).toBe('enough');
    expect(existsSync(host.path('current/node_modules/p0/index.js'))).toBe(true);
    const unknown = await rejection(repairTree({ storeRoot: host.storeRoot, lockfileHash: 'other', fetchBlob: host.deps.fetchBlob }));
    expect(unknown.code).toBe('HF_INVALID_ARGUMENT');
  });

  test('with `verify: full` an edited tree is built anew before it is made current again', async () => {
    const host = makeHost(await somePackages(2), { linkMode: 'copy', verify: 'full' });
    await host.to('A');
    await host.to('B', { manifest: [] });
    writeFileSync(host.path('trees/A/node_modules/p1/index.js'), 'evil()');
    await host.to('A');
    expect(readFileSync(host.path('current/node_modules/p1/index.js'), 'utf8')).not.toContain('evil');
    expect((await verifyTree({ storeRoot: host.storeRoot, lockfileHash: 'A' })).sound).toBe(true);
  });

  test('a record that does not fit its tree is none', async () => {
    const host = makeHost(await somePackages(1));
    const { storeRoot } = host;
    const isSound = async (): Promise<boolean> => (await verifyTree({ storeRoot, lockfileHash: 'h' })).sound;
    for (const text of ['{"v":1}', 'nonsense', '']) {
      await host.to('h');
      writeFileSync(host.path('trees/h/.hf-tree.json'), text);
      expect(await host.deps.currentLockfileHash()).toBeUndefined();
      await host.to('h');
      expect(await isSound(), text).toBe(true);
    }
    // The list of files is read when files are compared.
    writeFileSync(host.path('trees/h/.hf-tree.files'), '[]');
    expect(await isSound()).toBe(false);
    expect((await repairTree({ storeRoot, lockfileHash: 'h', fetchBlob: host.deps.fetchBlob })).rebuilt).toBe(true);
    expect(await isSound()).toBe(true);
  });

  test('files that may not be written still go', async () => {
    const host = makeHost(await somePackages(1));
    await host.to('A');
    chmodSync(host.path('trees/A/node_modules/p0'), 0o555);
    await host.to('B', { manifest: [] });
    expect((await sweepTreeGc({ storeRoot: host.storeRoot, graceMs: 0, now: Date.now() + HOUR })).deleted).toEqual(['A']);
  });
});

describe('rolling back', () => {
  test('flips to a tree that is left, without a fetch; to none that is gone or broken', async () => {
    const host = makeHost(await somePackages(1));
    const { storeRoot } = host;
    await host.to('A');
    await host.to('B', { manifest: [] });
    host.fetched.length = 0;
    await rollbackTo({ storeRoot, lockfileHash: 'A' });
    expect([currentOf(storeRoot), host.fetched]).toEqual(['trees/A', []]);
    expect((await rejection(rollbackTo({ storeRoot, lockfileHash: 'gone' }))).code).toBe('HF_INVALID_ARGUMENT');
    expect((await rejection(rollbackTo({ storeRoot, lockfileHash: '../x' }))).code).toBe('HF_PKG_BAD_HASH');
    rmSync(host.path('trees/B/.hf-tree.json'));
    expect((await rejection(rollbackTo({ storeRoot, lockfileHash: 'B' }))).code).toBe('HF_INVALID_ARGUMENT');
    expect(currentOf(storeRoot)).toBe('trees/A');
  });

  test('what a store takes counts shared files once', async () => {
    const host = makeHost(await somePackages(2, 5), { linkMode: 'hardlink' });
    await host.to('A');
    const stats = await storeStats(host.storeRoot);
    expect(stats).toMatchObject({ cacheEntries: 2, trees: [{ lockfileHash: 'A', current: true }] });
    const [tree] = stats.trees;
    expect(tree!.files).toBeGreaterThanOrEqual(12);
    expect(stats.totalBytes).toBeLessThan(stats.cacheBytes + tree!.bytes);
    expect(tree!.ownBytes).toBeLessThan(tree!.bytes);
  });
});
