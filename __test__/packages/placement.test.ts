// @pool forks: what counts happens in processes of its own.
// Trees: which copy of a package is where, what its programs are, and what `require` finds. Numbers: acceptance checks.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { packDir, blobSha256, parseBunLock, planTree, verifyTree, type ManifestEntry } from 'holdfast';
import { beforeAll, describe, expect, test } from 'vitest';

import { contents, currentOf, leftovers, makeHost, makePackage, mode, names, rejection, tempDir, type Host, type MadePackage } from './support';

const root = resolve(__dirname, '../..');
const { bunPath } = createRequire(__filename)('../../scripts/bun.cjs') as { bunPath(): string | null };
const bun = bunPath();

/** Runs a script in a folder with Node's resolution; what it prints. */
function run(folder: string, script: string): string {
  const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', script], { cwd: folder, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return stdout.trim();
}

/** Where the packages of a tree are, with their versions. */
function versions(host: Host, paths: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    paths.map((path) => {
      const { name, version } = JSON.parse(readFileSync(host.path('current', path, 'package.json'), 'utf8')) as ManifestEntry;
      return [path, `${name}@${version}`];
    }),
  );
}

function versionsIn(host: Host): Record<string, string> {
  return versions(
    host,
    copies(host).map((path) => `node_modules/${path}`),
  );
}

function copies(host: Host): string[] {
  return Object.keys(contents(host.path('current/node_modules')))
    .filter((path) => path.endsWith('package.json'))
    .map((path) => path.replace(/\/package\.json$/, ''))
    .sort();
}

describe('placement', () => {
  test('check 19: the first version of a name is at the root, the other where it is needed, and nowhere else', async () => {
    const packages = [
      await makePackage('ansi-styles', '6.2.1'),
      await makePackage('chalk', '4.1.2', { json: { dependencies: { 'ansi-styles': '^4.1.0', 'supports-color': '^7.1.0' } } }),
      await makePackage('supports-color', '7.2.0'),
      await makePackage('ansi-styles', '4.3.0'),
    ];
    const host = makeHost(packages);
    await host.to('h');
    expect(copies(host)).toEqual(['ansi-styles', 'chalk', 'chalk/node_modules/ansi-styles', 'supports-color']);
    expect(versions(host, ['node_modules/ansi-styles', 'node_modules/chalk/node_modules/ansi-styles'])).toEqual({
      'node_modules/ansi-styles': 'ansi-styles@6.2.1',
      'node_modules/chalk/node_modules/ansi-styles': 'ansi-styles@4.3.0',
    });
    expect(run(host.path('current'), "console.log(require('ansi-styles'))")).toBe('ansi-styles@6.2.1');
    expect(JSON.parse(readFileSync(host.path('current/package.json'), 'utf8')).dependencies).toEqual({
      'ansi-styles': '6.2.1',
      chalk: '4.1.2',
      'supports-color': '7.2.0',
    });
    expect(readFileSync(host.path('current/bunfig.toml'), 'utf8')).toBe('[install]\nauto = "disable"\n');
  });

  test('`roots` decides which version is at the root', async () => {
    const packages = [await makePackage('a', '1.0.0'), await makePackage('a', '2.0.0'), await makePackage('b', '1.0.0', { json: { dependencies: { a: '1' } } })];
    const host = makeHost(packages, { roots: { a: '2.0.0', gone: '1.0.0' } });
    await host.to('h');
    expect(versions(host, ['node_modules/a', 'node_modules/b/node_modules/a'])).toEqual({
      'node_modules/a': 'a@2.0.0',
      'node_modules/b/node_modules/a': 'a@1.0.0',
    });
  });

  test('check 20: aliases stand under their own names, each with what it needs', async () => {
    const packages = [
      await makePackage('@isaacs/cliui', '8.0.2', {
        json: { dependencies: { 'string-width': '^5.1.2', 'string-width-cjs': 'npm:string-width@^4.2.0', 'strip-ansi': '^7.0.1' } },
      }),
      await makePackage('string-width', '5.1.2', { json: { dependencies: { 'strip-ansi': '^7.0.1' } } }),
      await makePackage('string-width', '4.2.3', { json: { dependencies: { 'strip-ansi': '^6.0.1' } } }),
      await makePackage('strip-ansi', '7.1.0', { json: { dependencies: { 'ansi-regex': '^6.0.1' } } }),
      await makePackage('strip-ansi', '6.0.1', { json: { dependencies: { 'ansi-regex': '^5.0.1' } } }),
      await makePackage('ansi-regex', '6.0.1'),
      await makePackage('ansi-regex', '5.0.1'),
    ];
    const host = makeHost(packages);
    await host.to('h');
    const nested = 'node_modules/string-width-cjs/node_modules/strip-ansi';
    expect(versions(host, ['node_modules/string-width', 'node_modules/string-width-cjs', nested, `${nested}/node_modules/ansi-regex`])).toEqual({
      'node_modules/string-width': 'string-width@5.1.2',
      'node_modules/string-width-cjs': 'string-width@4.2.3',
      [nested]: 'strip-ansi@6.0.1',
      [`${nested}/node_modules/ansi-regex`]: 'ansi-regex@5.0.1',
    });
    expect(run(host.path('current'), "console.log(require('string-width-cjs'))")).toBe('string-width@4.2.3');
  });

  const recorded = join(__dirname, 'fixtures/placement');
  test.each(readdirSync(recorded).sort())('check 21: what Bun installed for %s is what the plan says, copy for copy', async (file) => {
    const fixture = JSON.parse(readFileSync(join(recorded, file), 'utf8')) as {
      host: { os: string; cpu: string; libc: string };
      packages: Record<string, Record<string, unknown> & { bundled?: string[] }>;
      installed: string[];
      lock: string;
    };
    const { os, cpu } = fixture.host;
    if (os !== process.platform || cpu !== process.arch) return;
    const entries = parseBunLock(fixture.lock);
    const storeRoot = tempDir();
    // The folders of a cache that Bun itself filled: only what they depend on matters.
    const { blobs, manifest } = await bareEntries(entries, fixture.packages);
    const host = makeHost([], { storeRoot });
    for (const entry of manifest) await host.deps.seedBlob({ entry, bytes: blobs.get(entry.integrity)! });
    const { placements, missing } = await planTree({ storeRoot, manifest });
    expect(missing).toEqual([]);
    const planned = placements.map(({ path, entry }) => `${path} ${entry.name}@${entry.version}`);
    expect(planned.sort()).toEqual([...fixture.installed].sort());
  });

  test('check 24: a required dependency without entry is an error, an optional one is not', async () => {
    const needs = (field: string) => makePackage('a', '1.0.0', { json: { [field]: { gone: '^2.0.0' } } });
    const host = makeHost([await needs('dependencies')]);
    const error = await rejection(host.to('h'));
    expect([error.code, error.message]).toEqual(['HF_PKG_DEP_MISSING', 'a@1.0.0 requires gone@^2.0.0, which is not in the manifest']);
    expect([names(host.path('trees')), leftovers(host.storeRoot), currentOf(host.storeRoot)]).toEqual([[], [], undefined]);
    await makeHost([await needs('optionalDependencies')]).to('h');
    const peer = makeHost([await needs('peerDependencies')]);
    await peer.to('h');
    const { warnings } = await planTree({ storeRoot: peer.storeRoot, manifest: peer.manifest });
    expect(warnings.join()).toContain('gone');
  });

  test('what is for other systems is left out, silently', async () => {
    const host = makeHost([
      await makePackage('here', '1.0.0', { json: { os: [process.platform], cpu: ['!mips'], optionalDependencies: { there: '1' } } }),
      await makePackage('there', '1.0.0', { json: { os: ['plan9'] } }),
      await makePackage('cpu', '1.0.0', { json: { cpu: ['mips'] } }),
      await makePackage('not', '1.0.0', { json: { os: [`!${process.platform}`] } }),
    ]);
    await host.to('h');
    expect(copies(host)).toEqual(['here']);
    expect(host.errors).toEqual([]);
  });

  test('planTree changes nothing, and says what is missing', async () => {
    const packages = [await makePackage('a', '1.0.0'), await makePackage('b', '1.0.0')];
    const host = makeHost(packages);
    await host.deps.seedBlob({ entry: packages[0]!.entry, bytes: packages[0]!.blob });
    const before = contents(host.storeRoot);
    const plan = await planTree({ storeRoot: host.storeRoot, manifest: host.manifest });
    expect(plan.missing).toEqual([packages[1]!.entry]);
    expect(contents(host.storeRoot)).toEqual(before);
  });
});

/** Entries that consist of a `package.json` (and of what they bundle). */
async function bareEntries(entries: readonly ManifestEntry[], packages: Record<string, Record<string, unknown> & { bundled?: string[] }>) {
  const blobs = new Map<string, Uint8Array>();
  const manifest: ManifestEntry[] = [];
  const parentDir = tempDir();
  for (const { name, version, integrity } of entries) {
    const { bundled = [], ...fields } = packages[`${name}@${version}`]!;
    const entryName = `${name}@${version}`;
    const folder = join(parentDir, entryName);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ name, version, ...fields }));
    for (const inner of bundled) {
      mkdirSync(join(folder, 'node_modules', inner), { recursive: true });
      writeFileSync(join(folder, 'node_modules', inner, 'package.json'), '{}');
    }
    const blob = await packDir({ parentDir, entryName });
    blobs.set(integrity, blob);
    manifest.push({ name, version, integrity, blobSha256: blobSha256(blob) });
  }
  return { blobs, manifest };
}

describe('bins', () => {
  const crlf = '#!/usr/bin/env node\r\nconsole.log("tool runs");\n';
  const tool = () => makePackage('@sc/tool', '1.0.0', { files: { 'cli.js': crlf, 'index.js': '' }, json: { bin: './cli.js' } });

  test.skipIf(process.platform === 'win32').each(['hardlink', 'copy', 'auto'] as const)(
    'check 22: a program with mode 0644 and a CRLF shebang runs; the cache keeps its bytes and mode (%s)',
    async (linkMode) => {
      const host = makeHost([await tool()], { linkMode });
      await host.to('h');
      expect(readlinkSync(host.path('current/node_modules/.bin/tool'))).toBe('../@sc/tool/cli.js');
      const { stdout, stderr } = spawnSync(host.path('current/node_modules/.bin/tool'), { encoding: 'utf8' });
      expect([stdout, stderr]).toEqual(['tool runs\n', '']);
      expect(readFileSync(host.path('cache/@sc/tool@1.0.0/cli.js'), 'utf8')).toBe(crlf);
      expect(mode(host.path('cache/@sc/tool@1.0.0/cli.js'))).toBe(0o644);
      // Other files are what the link mode says.
      const same = lstatSync(host.path('current/node_modules/@sc/tool/package.json')).ino === lstatSync(host.path('cache/@sc/tool@1.0.0/package.json')).ino;
      if (linkMode !== 'auto') expect(same).toBe(linkMode === 'hardlink');
    },
  );

  test.skipIf(process.platform === 'win32')('check 23: of two with one name the smallest package has it; those that leave or are not there are none', async () => {
    const host = makeHost([
      await makePackage('uuid', '8.0.0', { files: { 'bin/uuid': '' }, json: { bin: { uuid: 'bin/uuid' } } }),
      await makePackage('node-uuid', '1.4.8', { files: { 'bin/uuid': '' }, json: { bin: { uuid: './bin/uuid' } } }),
      await makePackage('evil', '1.0.0', {
        files: { 'ok.js': '', 'dir/x': '' },
        json: { bin: { a: '../node-uuid/bin/uuid', b: '/etc/passwd', c: 'missing.js', d: 'dir', '..': 'ok.js', '': 'ok.js', '.': 'ok.js', '@x/e': 'ok.js', f: '../../x' } },
      }),
      await makePackage('many', '1.0.0', { files: { 'bins/one': '', 'bins/two': '', 'bins/sub/three': '' }, json: { directories: { bin: 'bins' } } }),
      await makePackage('none', '1.0.0', { json: { bin: { gone: 'gone.js' } } }),
    ]);
    await host.to('h');
    const folder = host.path('current/node_modules/.bin');
    expect(Object.fromEntries(names(folder).map((name) => [name, readlinkSync(join(folder, name))]))).toEqual({
      e: '../evil/ok.js',
      one: '../many/bins/one',
      two: '../many/bins/two',
      uuid: '../node-uuid/bin/uuid',
    });
    const bare = makeHost([await makePackage('none', '1.0.0')]);
    await bare.to('h');
    expect(existsSync(bare.path('current/node_modules/.bin'))).toBe(false);
  });

  test.skipIf(process.platform === 'win32')('a nested package has its programs beside it', async () => {
    const host = makeHost([
      await makePackage('x', '2.0.0'),
      await makePackage('dep', '1.0.0', { json: { dependencies: { x: '1' } } }),
      await makePackage('x', '1.0.0', { files: { 'cli.js': '' }, json: { bin: 'cli.js' } }),
    ]);
    await host.to('h');
    expect(readlinkSync(host.path('current/node_modules/dep/node_modules/.bin/x'))).toBe('../x/cli.js');
  });

  test('lifecycle scripts never run', async () => {
    const scripts = Object.fromEntries(['preinstall', 'install', 'postinstall', 'prepare'].map((name) => [name, 'touch ran']));
    const host = makeHost([await makePackage('a', '1.0.0', { json: { scripts } })]);
    await host.to('h');
    expect(Object.keys(contents(host.path('current'))).filter((path) => path.endsWith('ran'))).toEqual([]);
  });
});

// The packages of this project's own node_modules: real ones, without a network.
describe.skipIf(bun === null || process.platform === 'win32')('against Bun, with real packages', () => {
  let packages: MadePackage[];

  beforeAll(async () => {
    const lock = (JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as { packages: Record<string, { version: string; integrity: string; dependencies?: Record<string, string> }> }).packages;
    const wanted = new Set<string>();
    const visit = (name: string): void => {
      if (wanted.has(name)) return;
      wanted.add(name);
      Object.keys(lock[`node_modules/${name}`]!.dependencies ?? {}).forEach(visit);
    };
    ['pg', 'yargs'].forEach(visit);
    const parentDir = mkdtempSync(join(tmpdir(), 'holdfast-real-'));
    packages = [];
    for (const name of wanted) {
      const { version, integrity } = lock[`node_modules/${name}`]!;
      const entryName = `${name}@${version}@@@1`;
      cpSync(join(root, 'node_modules', name), join(parentDir, entryName), { recursive: true });
      const blob = await packDir({ parentDir, entryName, links: 'reject' });
      packages.push({ entry: { name, version, integrity, blobSha256: blobSha256(blob) }, blob });
    }
    rmSync(parentDir, { recursive: true });
  });

  /** Every file of node_modules with a hash of it; what Bun and npm keep for themselves is left out. */
  function files(host: Host): Record<string, string> {
    const all = Object.entries(contents(host.path('current/node_modules')));
    const hash = (text: string): string => (text.startsWith('-> ') ? text : createHash('sha1').update(text, 'latin1').digest('hex'));
    return Object.fromEntries(all.filter(([path]) => !/(^|\/)\.(bun-tag|cache)/.test(path)).map(([path, text]) => [path, hash(text)]));
  }

  test.each(['hardlink', 'copy'] as const)('both materializers make the same tree, and programs find the same files (%s)', async (linkMode) => {
    const native = makeHost(packages, { linkMode });
    const other = makeHost(packages, { linkMode, materializer: 'bun', bunPath: bun! });
    await native.to('h');
    await other.to('h');
    expect(files(other)).toEqual(files(native));
    expect(Object.keys(files(native)).length).toBeGreaterThan(200);
    const resolveAll = `const path = require('node:path');
      for (const name of ${JSON.stringify(packages.map(({ entry }) => entry.name))})
        try { console.log(name, path.relative(process.cwd(), require.resolve(name))); } catch (error) { console.log(name, error.code); }`;
    expect(run(other.path('trees/h'), resolveAll)).toBe(run(native.path('trees/h'), resolveAll));
    const use = "const y = require('yargs'); const { Pool } = require('pg'); console.log(typeof y, typeof Pool, require('pg-types').getTypeParser(20)('7'))";
    expect(run(native.path('current'), use)).toBe('function function 7');
    const imported = `import('yargs').then((m) => console.log(typeof m.default, Object.keys(m).sort().join()))`;
    expect(run(other.path('current'), imported)).toBe(run(native.path('current'), imported));
    for (const host of [native, other]) expect((await verifyTree({ storeRoot: host.storeRoot, lockfileHash: 'h' })).sound).toBe(true);
    // Bun makes programs executable; the cache must not learn of it.
    const cached = contents(other.path('cache'));
    expect(cached).toEqual(contents(native.path('cache')));
    for (const path of Object.keys(cached).filter((name) => !name.startsWith('.'))) {
      expect([path, statSync(other.path('cache', path)).mode]).toEqual([path, statSync(native.path('cache', path)).mode]);
    }
    expect(leftovers(other.storeRoot)).toEqual([]);
  });

  test('Bun leaves the bytes and modes of the cache alone when it repairs a program', async () => {
    const crlf = '#!/usr/bin/env node\r\nconsole.log("tool runs");\n';
    const tool = await makePackage('tool', '1.0.0', { files: { 'cli.js': crlf, 'index.js': '' }, json: { bin: './cli.js' } });
    const host = makeHost([tool], { materializer: 'bun', bunPath: bun!, linkMode: 'hardlink' });
    await host.to('h');
    expect(readFileSync(host.path('cache/tool@1.0.0/cli.js'), 'utf8')).toBe(crlf);
    expect(mode(host.path('cache/tool@1.0.0/cli.js'))).toBe(0o644);
    const { stdout, stderr } = spawnSync(host.path('current/node_modules/.bin/tool'), { encoding: 'utf8' });
    expect([stdout, stderr]).toEqual(['tool runs\n', '']);
  });

  test('Bun finds packages whatever their versions look like', async () => {
    const versions = ['1.0.0-a', '1.0.0-rc.4', '1.0.0-canary.1', '1.0.0-beta.123', '1.0.0-alpha.20240102.abc', '1.0.0-0.experimental.20240102.abcdef0123456', '1.0.0+b', '1.0.0-rc.1+build.5'];
    for (const length of [2, 3, 5, 6, 7, 9, 11, 12, 13, 15, 16, 17, 20, 24, 25, 31, 32, 33, 40, 48, 49]) versions.push(`1.0.0-${'abcdefghij'.repeat(5).slice(0, length)}`);
    const packages = await Promise.all(versions.map((version, at) => makePackage(at === 2 ? '@scope/pre' : `pre-${at}`, version)));
    const host = makeHost(packages, { materializer: 'bun', bunPath: bun! });
    await host.to('h');
    expect(Object.values(versionsIn(host)).sort()).toEqual(packages.map(({ entry }) => `${entry.name}@${entry.version}`).sort());
  });

  test('a Bun that fails is told, and leaves nothing', async () => {
    const host = makeHost(packages.slice(0, 1), { materializer: 'bun', bunPath: '/nonexistent/bun' });
    expect((await rejection(host.to('h', { manifest: [] }))).code).toBe('HF_PKG_BUN');
    const alone = makeHost([await makePackage('a', '1.0.0')], { materializer: 'bun', bunPath: process.platform === 'win32' ? 'nope' : '/bin/false' });
    const failed = await rejection(alone.to('h'));
    expect([failed.code, failed.message.startsWith('bun install --offline failed for h (exit 1): ')]).toEqual(['HF_PKG_BUN', true]);
    expect([names(alone.path('trees')), leftovers(alone.storeRoot)]).toEqual([[], []]);
  });
});
