// @pool forks: what counts happens in processes of its own.
// Processes that are killed, and processes that meet: `current` is the old tree or the new one, complete, and what was acknowledged stays.
// Numbers: acceptance checks.
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { sweepCacheGc, sweepTreeGc, verifyTree } from 'holdfast';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { currentOf, leftovers, makeHost, makePackage, names, publish, rejection, somePackages, start, tempDir, type MadePackage } from './support';

let packages: MadePackage[];
beforeAll(async () => {
  packages = await somePackages(12, 8);
});

const ROUNDS = Number(process.env.HOLDFAST_KILLS ?? 50);

describe('kills', () => {
  test('check 25: at any moment, current is absent, old, or complete, and the next reconcile converges', async () => {
    const published = publish(packages);
    const storeRoot = join(tempDir(), 'store');
    const host = makeHost(packages, { storeRoot });
    const phases = ['ready', 'delta', 'fetched 1', 'seeded 1', 'seeded 6', 'seeded 12', 'materializing', 'debug Built', 'materialized', 'flipped', 'done'];
    const seen = new Set<string>();
    let before: string | undefined;
    for (let round = 0; round < ROUNDS; round++) {
      // Every few rounds from nothing; else over what the last one left.
      if (round % 5 === 0) rmSync(storeRoot, { recursive: true, force: true });
      before = currentOf(storeRoot);
      const hash = `h${round}`;
      const child = start('reconcile-child.mjs', storeRoot, published, hash, JSON.stringify({ entries: 6 + (round % 7), concurrency: 2 }));
      const phase = phases[round % phases.length]!;
      await child.line(phase).catch(() => undefined);
      // A little later than a step is within the next one.
      if (round % 2 === 1) await sleep(round % 13);
      await child.kill();
      const current = currentOf(storeRoot);
      expect([undefined, before, `trees/${hash}`]).toContain(current);
      if (before !== undefined) expect(current).toBeDefined();
      const acknowledged = child.lines.some((line) => line.startsWith('done'));
      if (acknowledged) expect(current).toBe(`trees/${hash}`);
      if (current !== undefined) {
        expect(existsSync(join(storeRoot, 'current/node_modules'))).toBe(true);
        expect(await verifyTree({ storeRoot, lockfileHash: current.slice('trees/'.length) })).toMatchObject({ sound: true, missing: [], damaged: [] });
      }
      seen.add(current === `trees/${hash}` ? 'new' : current === undefined ? 'absent' : 'old');
      // What a seeding acknowledged is there.
      const local = await host.deps.localCacheIntegrities();
      for (const line of child.lines.filter((each) => each.startsWith('seeded '))) expect(local).toContain(line.split(' ')[2]);
      if (round % 3 === 2) {
        await host.to(`all${round}`);
        expect(currentOf(storeRoot)).toBe(`trees/all${round}`);
        expect((await verifyTree({ storeRoot, lockfileHash: `all${round}` })).sound).toBe(true);
      }
    }
    expect([...seen].sort()).toEqual(['absent', 'new', 'old']);
  }, 240_000);

  test('what killed processes left is removed once it is old, and not before', async () => {
    const published = publish(packages);
    const storeRoot = join(tempDir(), 'store');
    for (let round = 0; round < 12 && leftovers(storeRoot).length === 0; round++) {
      const child = start('reconcile-child.mjs', storeRoot, published, `h${round}`, JSON.stringify({ concurrency: 8 }));
      await child.line(round % 2 === 0 ? 'materializing' : 'fetched 1').catch(() => undefined);
      await sleep(round);
      await child.kill();
    }
    const left = leftovers(storeRoot);
    expect(left.length).toBeGreaterThan(0);
    const host = makeHost(packages, { storeRoot });
    await host.to('now');
    expect(leftovers(storeRoot)).toEqual(left);
    const old = new Date(Date.now() - 2 * 3_600_000);
    for (const name of left) utimesSync(join(storeRoot, '.hf', name), old, old);
    await host.to('later');
    expect(leftovers(storeRoot)).toEqual([]);
    expect((await verifyTree({ storeRoot, lockfileHash: 'later' })).sound).toBe(true);
  });
});

describe('processes that meet', () => {
  test('check 28: eight reconcile one empty root to one hash: all succeed, one builds, nothing is left', async () => {
    const published = publish(packages);
    const storeRoot = join(tempDir(), 'store');
    const signal = join(tempDir(), 'go');
    const children = Array.from({ length: 8 }, () => start('reconcile-child.mjs', storeRoot, published, 'h', JSON.stringify({ waitFor: signal })));
    await Promise.all(children.map((child) => child.line('ready')));
    writeFileSync(signal, '');
    const ends = await Promise.all(children.map((child) => child.ended));
    expect(ends).toEqual(Array(8).fill({ code: 0, signal: null, err: '' }));
    const built = children.filter((child) => child.lines.some((line) => line.startsWith('debug Built the tree')));
    expect(built).toHaveLength(1);
    expect(leftovers(storeRoot)).toEqual([]);
    expect(await verifyTree({ storeRoot, lockfileHash: 'h' })).toMatchObject({ sound: true, unexpected: [] });
    expect(names(join(storeRoot, 'cache')).filter((name) => !name.startsWith('.'))).toHaveLength(packages.length);
  });

  test('two that want different trees both succeed, while a third one sweeps: the last to finish is current, and complete', async () => {
    const published = publish(packages);
    const storeRoot = join(tempDir(), 'store');
    const results: string[] = [];
    for (let round = 0; round < 4; round++) {
      const signal = join(tempDir(), 'go');
      const children = ['A', 'B'].map((name, at) =>
        start('reconcile-child.mjs', storeRoot, published, `${name}${round}`, JSON.stringify({ waitFor: signal, entries: 6 * (at + 1), treeGcGraceMs: 0 })),
      );
      await Promise.all(children.map((child) => child.line('ready')));
      writeFileSync(signal, '');
      let over = false;
      const sweeping = (async () => {
        while (!over) await sweepTreeGc({ storeRoot, graceMs: 0, now: Date.now() + 3_600_000 });
      })();
      const ends = await Promise.all(children.map((child) => child.ended));
      over = true;
      await sweeping;
      expect(ends.map(({ code, err }) => [code, err])).toEqual([
        [0, ''],
        [0, ''],
      ]);
      const current = currentOf(storeRoot)!.slice('trees/'.length);
      expect([`A${round}`, `B${round}`]).toContain(current);
      expect((await verifyTree({ storeRoot, lockfileHash: current })).sound).toBe(true);
      results.push(current);
    }
    expect(results).toHaveLength(4);
  });

  test('a store that another process holds is told after the time that was given', async () => {
    const big = await makePackage('big', '1.0.0', {
      files: Object.fromEntries(Array.from({ length: 5000 }, (_, at) => [`f${at}.js`, `module.exports = ${at};`])),
    });
    const published = publish([big]);
    const storeRoot = join(tempDir(), 'store');
    const host = makeHost([big], { storeRoot });
    await host.deps.seedBlob({ entry: big.entry, bytes: big.blob });
    const child = start('reconcile-child.mjs', storeRoot, published, 'h', JSON.stringify({ linkMode: 'copy' }));
    await child.line('materializing');
    // Stopped in the middle of its work, it holds the lock for as long as it is stopped.
    let error: Error & { code?: string } = new Error('not yet');
    for (let round = 0; round < 40 && error.code === undefined; round++) {
      child.process.kill('SIGSTOP');
      const impatient = makeHost([big], { storeRoot, lockTimeoutMs: 150 });
      error = await impatient.to(`mine${round}`, { manifest: [] }).then(
        () => new Error('it was free'),
        (reason: Error) => reason,
      );
      if (error.code === undefined) {
        child.process.kill('SIGCONT');
        await sleep(5);
      }
    }
    expect([error.code, error.message]).toEqual(['HF_PKG_LOCK_TIMEOUT', `Store ${storeRoot} is locked by another process`]);
    child.process.kill('SIGCONT');
    expect((await child.ended).code).toBe(0);
    await host.to('mine');
    expect(currentOf(storeRoot)).toBe('trees/mine');
  });
});

describe('bad disks', () => {
  test('a cache that cannot be written is told, and nothing is acknowledged', async () => {
    const host = makeHost(packages.slice(0, 1));
    const storeRoot = host.storeRoot;
    // A file where the folder should be, which stops root, too.
    mkdirSync(storeRoot);
    writeFileSync(join(storeRoot, 'cache'), 'in the way');
    const error = await rejection(host.to('h'));
    expect(error.code).toMatch(/^E[A-Z]+$/);
    expect(readFileSync(join(storeRoot, 'cache'), 'utf8')).toBe('in the way');
    expect(currentOf(storeRoot)).toBeUndefined();
    expect(leftovers(storeRoot)).toEqual([]);
  });

  // A file system of 3 MB, where this process may mount one.
  const small = mkdtempSync(join(tmpdir(), 'holdfast-small-disk-'));
  const mounted = process.platform === 'linux' && spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', small], { stdio: 'ignore' }).status === 0;
  if (!mounted) console.error('SKIPPED: a disk that is full in the middle (needs Linux and the right to mount a tmpfs, as root has it)');
  afterAll(() => {
    if (mounted) spawnSync('umount', ['-l', small]);
    rmSync(small, { recursive: true, force: true });
  });

  test.skipIf(!mounted)('a disk that is full in the middle: current stays, nothing is left, and with room it goes on', async () => {
    const noise = (seed: number): Uint8Array => randomBytes(700_000).fill(seed, 0, 10);
    const large = await Promise.all([1, 2, 3, 4, 5].map((at) => makePackage(`large${at}`, '1.0.0', { files: { 'data.bin': noise(at) } })));
    const storeRoot = join(small, 'store');
    for (const linkMode of ['copy', 'hardlink'] as const) {
      const host = makeHost(large, { storeRoot, linkMode, durability: 'full' });
      await host.to('old', { manifest: [] });
      const two = host.manifest.slice(0, 2);
      const error = await rejection(linkMode === 'copy' ? host.to('new', { manifest: host.manifest.slice(0, 3) }) : host.to('new'));
      expect([error.code, error.hfCode]).toEqual(['ENOSPC', 'HF_DISK_FULL']);
      expect(currentOf(storeRoot)).toBe('trees/old');
      expect(names(join(storeRoot, 'trees'))).toEqual(['old']);
      expect(leftovers(storeRoot)).toEqual([]);
      // What is there is whole.
      for (const integrity of await host.deps.localCacheIntegrities()) {
        const at = host.manifest.findIndex((entry) => entry.integrity === integrity);
        expect(statSync(join(storeRoot, `cache/large${at + 1}@1.0.0/data.bin`)).size).toBe(700_000);
      }
      await sweepCacheGc({ storeRoot, keepManifests: [two], graceMs: 0 });
      await makeHost(large, { storeRoot, linkMode: 'hardlink' }).to('fits', { manifest: two });
      expect((await verifyTree({ storeRoot, lockfileHash: 'fits' })).sound).toBe(true);
      rmSync(storeRoot, { recursive: true });
    }
  });
});
