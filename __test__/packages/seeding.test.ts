// Seeding the cache: verified first, of the right layout, published whole. Numbers: acceptance checks.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { PackageStoreError, blobSha256, findCacheEntry, storePaths, sweepCacheGc, type ManifestEntry } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { contents, integrityOf, leftovers, makeHost, makePackage, names, rejection, somePackages, tempDir, tgz } from './support';

const entryOf = (name: string, version: string, blob: Uint8Array): ManifestEntry => ({
  name,
  version,
  integrity: integrityOf(name, version),
  blobSha256: blobSha256(blob),
});

describe('seedBlob', () => {
  test('check 6: the entry is in the cache, and its integrity is local', async () => {
    const { entry, blob } = await makePackage('pkg', '1.0.0');
    const host = makeHost([]);
    expect(await host.deps.localCacheIntegrities()).toEqual([]);
    await host.deps.seedBlob({ entry, bytes: blob });
    expect(names(host.path('cache/pkg@1.0.0'))).toEqual(['index.js', 'package.json']);
    expect(await host.deps.localCacheIntegrities()).toEqual([entry.integrity]);
    const marker = Buffer.from(entry.integrity).toString('hex');
    expect(readFileSync(host.path('cache/.cs-integrity', marker), 'utf8')).toBe(entry.integrity);
    const record = JSON.parse(readFileSync(host.path('.hf/index', names(host.path('.hf/index'))[0]!), 'utf8'));
    expect(record).toMatchObject({ v: 1, integrity: entry.integrity, name: 'pkg', version: '1.0.0', dir: 'pkg@1.0.0', blobSha256: entry.blobSha256 });
    expect(record.files.map(([path]: [string]) => path)).toEqual(['index.js', 'package.json']);
    expect(leftovers(host.storeRoot)).toEqual([]);
  });

  test('check 7: a flipped byte is refused before anything is made; without a hash, gzip is all that tells', async () => {
    const { entry, blob } = await makePackage('pkg', '1.0.0');
    const flipped = Uint8Array.from(blob, (byte, at) => (at === blob.length - 1 ? byte ^ 1 : byte));
    const host = makeHost([]);
    const error = await rejection(host.deps.seedBlob({ entry, bytes: flipped }));
    expect(error).toBeInstanceOf(PackageStoreError);
    expect(error.code).toBe('HF_PKG_INTEGRITY');
    expect(error.message).toBe(
      `Blob integrity check failed for pkg@1.0.0 (${entry.integrity}): expected sha256 ${entry.blobSha256}, got ${blobSha256(flipped)}. Refusing to seed.`,
    );
    expect(existsSync(host.path('cache'))).toBe(false);

    const { blobSha256: _, ...bare } = entry;
    const torn = await rejection(host.deps.seedBlob({ entry: bare, bytes: flipped }));
    expect(torn.message).toMatch(/tar extract failed/i);
    expect(await host.deps.localCacheIntegrities()).toEqual([]);
    await host.deps.seedBlob({ entry: bare, bytes: blob });
    expect(await host.deps.localCacheIntegrities()).toEqual([entry.integrity]);

    const strict = makeHost([], { requireBlobSha256: true });
    expect((await rejection(strict.deps.seedBlob({ entry: bare, bytes: blob }))).code).toBe('HF_PKG_INTEGRITY');
  });

  test.each<[string, string[]]>([
    ["another package's folder", ['lodash@4.17.21@@@1/index.js']],
    ['the markers', ['.cs-integrity/7368612d61']],
    ['two folders', ['a@1.0.0/index.js', 'b@1.0.0/index.js']],
    ['no folder', ['index.js']],
    ['a folder without a version', ['a/index.js']],
    ['a folder of another version', ['a@1.0.1/index.js']],
    ['a folder of a scope that it is not of', ['@x/a@1.0.0/index.js']],
    ['a folder below a folder', ['x/a@1.0.0/index.js']],
  ])('check 16: an archive of %s', async (_, paths) => {
    const host = makeHost([]);
    const good = await makePackage('good', '1.0.0');
    await host.deps.seedBlob({ entry: good.entry, bytes: good.blob });
    const before = contents(host.path('cache'));
    const blob = tgz(paths.map((path) => ({ path, body: 'x' })));
    const error = await rejection(host.deps.seedBlob({ entry: entryOf('a', '1.0.0', blob), bytes: blob }));
    expect(error.code).toBe('HF_PKG_LAYOUT');
    expect(error.message).toMatch(/^Blob for a@1\.0\.0 has an unexpected layout: /);
    expect(contents(host.path('cache'))).toEqual(before);
    expect(leftovers(host.storeRoot)).toEqual([]);
  });

  test('check 17: a blob of a scoped package that lacks the scope lands below it, and is found by require', async () => {
    const legacy = await makePackage('@acme/x', '1.0.0', { folder: 'x@1.0.0' });
    const bare = await makePackage('x', '1.0.0', { files: { 'index.js': "module.exports = 'the other';" } });
    const host = makeHost([legacy, bare]);
    await host.to('h');
    expect(names(host.path('cache/@acme'))).toEqual(['x@1.0.0']);
    writeFileSync(host.path('trees/h/main.js'), "console.log(require('@acme/x'), require('x'))");
    const { stdout, stderr } = spawnSync(process.execPath, [host.path('current/main.js')], { encoding: 'utf8' });
    expect([stdout, stderr]).toEqual(['@acme/x@1.0.0 the other\n', '']);
  });

  test('what is there is exchanged, never merged into', async () => {
    const host = makeHost([]);
    const { entry, blob } = await makePackage('p', '1.0.0');
    mkdirSync(host.path('cache/p@1.0.0'), { recursive: true });
    writeFileSync(host.path('cache/p@1.0.0/stale.js'), 'stale');
    await host.deps.seedBlob({ entry, bytes: blob });
    expect(names(host.path('cache/p@1.0.0'))).toEqual(['index.js', 'package.json']);
    expect(leftovers(host.storeRoot)).toEqual([]);
  });

  test('markers that lie do not count', async () => {
    const packages = await somePackages(2);
    const host = makeHost(packages);
    for (const { entry, blob } of packages) await host.deps.seedBlob({ entry, bytes: blob });
    const folder = host.path('cache/.cs-integrity');
    writeFileSync(join(folder, 'abc'), 'x');
    writeFileSync(join(folder, '7368612D61'), 'sha-a');
    writeFileSync(join(folder, '7368612d61'), 'sha-b');
    writeFileSync(join(folder, `b3-${'0'.repeat(64)}`), 'sha-c');
    writeFileSync(join(folder, Buffer.from('legacy').toString('hex')), 'legacy');
    rmSync(host.path('cache/p0@1.0.0'), { recursive: true });
    expect(await host.deps.localCacheIntegrities()).toEqual(['legacy', packages[1]!.entry.integrity]);
  });

  test('integrities of any length have markers, and the list is sorted bytewise', async () => {
    const host = makeHost([]);
    const { entry, blob } = await makePackage('p', '1.0.0');
    const integrities = ['sha512-' + 'x'.repeat(5000), 'Zebra', 'sha1-é', 'sha-a', '../../etc/passwd', 'a b/c+d='];
    for (const integrity of integrities) await host.deps.seedBlob({ entry: { ...entry, integrity }, bytes: blob });
    const sorted = [...integrities].sort((x, y) => Buffer.compare(Buffer.from(x), Buffer.from(y)));
    expect(await host.deps.localCacheIntegrities()).toEqual(sorted);
    expect(names(host.path('cache/.cs-integrity')).every((name) => name.length <= 240)).toBe(true);
  });

  test('names that are none, and versions that are none', async () => {
    const host = makeHost([]);
    const blob = tgz([{ path: 'a@1.0.0/index.js', body: 'x' }]);
    for (const name of ['..', '../a', '@s/../a', 'a/b', '', 'a\0b', '@/a', 'x'.repeat(215)]) {
      const error = await rejection(host.deps.seedBlob({ entry: entryOf(name, '1.0.0', blob), bytes: blob }));
      expect([name, error.code, error.message]).toEqual([name, 'HF_PKG_BAD_NAME', `Invalid package name "${name}"`]);
    }
    for (const version of ['../1', '', 'x'.repeat(65), '1/2']) {
      const error = await rejection(host.deps.seedBlob({ entry: entryOf('a', version, blob), bytes: blob }));
      expect(['HF_PKG_BAD_NAME', 'HF_PKG_LAYOUT'], version).toContain(error.code);
    }
    expect(existsSync(host.path('cache'))).toBe(false);
  });
});

describe('findCacheEntry', () => {
  function cache(...folders: [string, string?][]): string {
    const cacheDir = tempDir();
    for (const [folder, version] of folders) {
      mkdirSync(join(cacheDir, folder), { recursive: true });
      if (version !== undefined) writeFileSync(join(cacheDir, folder, 'package.json'), JSON.stringify({ version }));
    }
    return cacheDir;
  }

  test('takes the highest number, and the form without a registry before others', async () => {
    const cacheDir = cache(['lodash@4.17.21@@@1'], ['lodash@4.17.21@@@10'], ['lodash@4.17.21@@@9'], ['lodash@4.17.21@@localhost__0123456789abcdef@@@99'], ['lodash@4.17.2@@@1']);
    expect(await findCacheEntry({ cacheDir, name: 'lodash', version: '4.17.21' })).toEqual({ parentDir: cacheDir, entryName: 'lodash@4.17.21@@@10' });
    expect(await findCacheEntry({ cacheDir, name: 'lodash', version: '4.17' })).toBeUndefined();
    expect(await findCacheEntry({ cacheDir: join(cacheDir, 'none'), name: 'lodash', version: '4.17.21' })).toBeUndefined();
  });

  test('keeps the scope in the name, and believes hashed versions only if the package says so', async () => {
    const cacheDir = cache(
      ['@babel/core@7.0.0@@@1'],
      ['core@7.0.0@@@5'],
      ['ms@3.0.0-684001923c4f8651@@@1', '3.0.0-canary.1'],
      ['ms@3.0.0-0000001923c4f8651@@@2', '3.0.0-canary.2'],
      ['x@1.0.2+9DA996C7494E08F5@@@1', '1.0.2+build.5'],
      ['plain@1.0.0'],
      ['reg@1.0.0@@localhost__0123456789abcdef@@@1'],
    );
    const found = async (name: string, version: string) => (await findCacheEntry({ cacheDir, name, version }))?.entryName;
    expect(await found('@babel/core', '7.0.0')).toBe('@babel/core@7.0.0@@@1');
    expect(await found('ms', '3.0.0-canary.1')).toBe('ms@3.0.0-684001923c4f8651@@@1');
    expect(await found('ms', '3.0.0-canary.9')).toBeUndefined();
    expect(await found('x', '1.0.2+build.5')).toBe('x@1.0.2+9DA996C7494E08F5@@@1');
    expect(await found('plain', '1.0.0')).toBe('plain@1.0.0');
    expect(await found('reg', '1.0.0')).toBe('reg@1.0.0@@localhost__0123456789abcdef@@@1');
  });
});

describe('sweepCacheGc', () => {
  test('removes what neither a kept manifest nor a tree needs, after the grace', async () => {
    const packages = await somePackages(3);
    const host = makeHost(packages);
    for (const { entry, blob } of packages) await host.deps.seedBlob({ entry, bytes: blob });
    const [first, second, third] = host.manifest;
    await host.to('h', { manifest: [first!] });
    const sweep = (graceMs: number) => sweepCacheGc({ storeRoot: host.storeRoot, keepManifests: [[second!]], graceMs });
    expect(await sweep(3_600_000)).toMatchObject({ ran: true, deleted: [], keptWithinGrace: [third!.integrity] });
    const swept = await sweep(0);
    expect(swept.deleted).toEqual([third!.integrity]);
    expect(swept.bytesReclaimed).toBeGreaterThan(0);
    expect(names(storePaths(host.storeRoot).cache).filter((name) => !name.startsWith('.'))).toEqual(['p0@1.0.0', 'p1@1.0.0']);
    expect(await host.deps.localCacheIntegrities()).toEqual([first!.integrity, second!.integrity].sort());
    expect((await sweep(0)).deleted).toEqual([]);
    // What was removed is a blob like any other that this host lacks.
    host.fetched.length = 0;
    await host.to('all');
    expect(host.fetched).toEqual([third!.integrity]);
  });
});
