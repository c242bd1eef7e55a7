// Manifests and lockfiles: order, hash, texts, sizes. Numbers: acceptance checks.
import { spawnSync } from 'node:child_process';

import {
  DEFAULT_BLOB_GC_GRACE_MS,
  DEFAULT_BLOB_GC_RETAIN_PREVIOUS,
  DEFAULT_BLOCK_BYTES,
  DEFAULT_TREE_GC_GRACE_MS,
  DEFAULT_WARN_BYTES,
  buildDependencies,
  buildStorePackageJson,
  computeLockfileHash,
  evaluateSizeCap,
  parseBunLock,
  sortManifest,
  splitSpec,
  type ManifestEntry,
} from 'holdfast';
import { describe, expect, test } from 'vitest';

const a: ManifestEntry = { name: 'a', version: '1.0.0', integrity: 'sha-a' };
const b: ManifestEntry = { name: 'b', version: '2.0.0', integrity: 'sha-b' };
const VECTOR = '224c4499329406a91ee025138c695f24a298c2012193b127af8284e33c18910b';

describe('order and hash', () => {
  test('check 33: the hash is the same in any order and locale, and changes with what counts', () => {
    expect(computeLockfileHash([a, b])).toBe(VECTOR);
    expect(computeLockfileHash([b, a])).toBe(VECTOR);
    expect(computeLockfileHash([])).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
    expect(computeLockfileHash([{ ...a, blobSha256: 'f'.repeat(64) }, b])).toBe(VECTOR);
    expect(computeLockfileHash([{ ...a, integrity: 'sha-x' }, b])).not.toBe(VECTOR);
    expect(computeLockfileHash([{ ...a, version: '1.0.1' }, b])).not.toBe(VECTOR);
    expect(computeLockfileHash([{ ...a, name: 'aa' }, b])).not.toBe(VECTOR);
    const names = ['z', 'äpfel', 'a-b', 'a_b', 'ab', 'A', 'Ab', '@s/x', 'chalk', 'czech', 'õ', 'v', 'w'];
    const script = `const { computeLockfileHash } = require('holdfast');
      console.log(computeLockfileHash(${JSON.stringify(names)}.map((name) => ({ name, version: '1', integrity: name }))));`;
    const hashes = ['et_EE.UTF-8', 'da_DK.UTF-8', 'cs_CZ.UTF-8', 'C'].map((locale) => {
      const env = { ...process.env, LC_ALL: locale, LANG: locale };
      return spawnSync(process.execPath, ['-e', script], { cwd: process.cwd(), env, encoding: 'utf8' }).stdout;
    });
    expect(hashes[0]).toMatch(/^[0-9a-f]{64}\n$/);
    expect(new Set(hashes).size).toBe(1);
  });

  test('the order is that of the root collation, whatever the versions mean', () => {
    const sorted = (...names: string[]) => sortManifest(names.map((name) => ({ name, version: '1', integrity: 'i' }))).map(({ name }) => name);
    const shuffled = ['zz', 'Ab', 'ab', '@s/a', 'a.b', 'a-b', 'a_b', 'a', 'a1', 'A', 'a/b'];
    const collator = new Intl.Collator('en');
    expect(sorted(...shuffled)).toEqual([...shuffled].sort(collator.compare));
    const versions = sortManifest(['9.0.0', '10.0.0', '1.0.0'].map((version) => ({ name: 'x', version, integrity: 'i' })));
    expect(versions.map(({ version }) => version)).toEqual(['1.0.0', '10.0.0', '9.0.0']);
  });

  test('sorting makes a new array of the same objects', () => {
    const input = [b, a];
    const sorted = sortManifest(input);
    expect(input).toEqual([b, a]);
    expect(sorted[0]).toBe(a);
    expect(sorted[1]).toBe(b);
    const twins = [
      { ...a, integrity: 'z' },
      { ...a, integrity: 'y' },
    ];
    expect(sortManifest(twins).map(({ integrity }) => integrity)).toEqual(['y', 'z']);
    expect(() => sortManifest([{ name: 'a' } as ManifestEntry])).toThrow(expect.objectContaining({ code: 'HF_INVALID_ARGUMENT' }));
  });
});

describe('texts', () => {
  test('dependencies are those that are enabled, the last of a name, in order', () => {
    const packages = [
      { name: 'zod', version: '3.0.0' },
      { name: 'off', version: '1.0.0', enabled: false },
      { name: 'a', version: '1.0.0', enabled: true, addedBy: null, addedAt: new Date(0) },
      { name: 'zod', version: '4.0.0' },
    ];
    expect(Object.entries(buildDependencies(packages))).toEqual([
      ['a', '1.0.0'],
      ['zod', '4.0.0'],
    ]);
    expect(buildStorePackageJson(packages)).toBe(
      `${JSON.stringify({ name: 'checkstack-script-packages', private: true, dependencies: { a: '1.0.0', zod: '4.0.0' } }, null, 2)}\n`,
    );
    expect(buildStorePackageJson([])).toBe(`${JSON.stringify({ name: 'checkstack-script-packages', private: true, dependencies: {} }, null, 2)}\n`);
    expect(Object.keys(buildDependencies([{ name: '__proto__', version: '1' }]))).toEqual(['__proto__']);
  });

  test.each([
    ['a@1.0.0', { name: 'a', version: '1.0.0' }],
    ['@s/a@1.0.0', { name: '@s/a', version: '1.0.0' }],
    ['a@npm:b@2', { name: 'a@npm:b', version: '2' }],
    ['@s/a', undefined],
    ['a', undefined],
    ['a@', undefined],
    ['@1', undefined],
    ['', undefined],
  ])('%j splits into %j', (spec, expected) => {
    expect(splitSpec(spec)).toEqual(expected);
  });

  test('a bun.lock gives its packages in its order, once each', () => {
    const text = `{
      "lockfileVersion": 1,
      "workspaces": { "": { "name": "t", "dependencies": { "b": "1,}" , }, }, },
      "packages": {
        "b": ["b@2.0.0", "", { "dependencies": { "a": "^1.0.0" } }, "sha512-bb,]"],
        "a": ["@s/a@1.0.0", "", {}, "sha512-aa",],
        "twin": ["b@2.0.0", "", {}, "sha512-bb,]"],
        "in": ["in@1.0.0", "", { "bundled": true }, "sha512-in"],
        "work": ["work@workspace:x"],
        "short": ["short@1.0.0", "", {}, "nohash"],
      },
    }`;
    expect(parseBunLock(text)).toEqual([
      { name: 'b', version: '2.0.0', integrity: 'sha512-bb,]' },
      { name: '@s/a', version: '1.0.0', integrity: 'sha512-aa' },
    ]);
    for (const bad of ['', 'nonsense', '[]', '{"packages":[]}', '{"packages":{}']) {
      expect(() => parseBunLock(bad), bad).toThrow(expect.objectContaining({ code: 'HF_PKG_LOCKFILE', message: 'Failed to parse bun.lock: invalid lockfile format' }));
    }
  });
});

describe('sizes', () => {
  test('check 34: at a bound is not over it', () => {
    const cap = { warnBytes: 150 * 1_048_576, blockBytes: 300 * 1_048_576 };
    const level = (totalSizeBytes: number) => evaluateSizeCap({ totalSizeBytes, cap });
    expect(level(cap.warnBytes)).toEqual({ level: 'ok' });
    expect(level(cap.blockBytes).level).toBe('warn');
    expect(level(cap.warnBytes + 1).level).toBe('warn');
    const warned = level(200 * 1_048_576);
    expect(warned).toEqual({ level: 'warn', message: 'Resolved package size 200.0MB exceeds the 150.0MB warning threshold.' });
    expect(level(cap.blockBytes + 1)).toEqual({
      level: 'block',
      message: 'Resolved package size 300.0MB exceeds the 300.0MB block threshold. Remove packages or raise the cap.',
    });
  });

  test('the defaults are those of the original', () => {
    expect([DEFAULT_WARN_BYTES, DEFAULT_BLOCK_BYTES, DEFAULT_TREE_GC_GRACE_MS, DEFAULT_BLOB_GC_GRACE_MS, DEFAULT_BLOB_GC_RETAIN_PREVIOUS]).toEqual([
      157_286_400, 314_572_800, 3_600_000, 86_400_000, 1,
    ]);
  });
});
