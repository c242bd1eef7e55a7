/** Directories without permission, read-only and full disks: the error says so, the state stays, and it goes on afterwards. */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { atomicWriteAsync, VersionedJsonStore } from 'holdfast';
import { afterEach, describe, expect, it } from 'vitest';

import { dataOf, leftovers, openRuntime, rejection, run, tempDir, tree, visible } from './support';

const mounted: string[] = [];
const mount = (...args: string[]) => execFileSync('mount', args, { stdio: 'pipe' });
const unmount = (dir: string) => execFileSync('umount', ['-l', dir], { stdio: 'pipe' });
afterEach(() => mounted.splice(0).forEach(unmount));

/** A small disk of its own. */
function smallDisk(options: string): string {
  const dir = join(tempDir(), 'disk');
  mkdirSync(dir);
  mount('-t', 'tmpfs', '-o', options, 'holdfast-test', dir);
  mounted.push(dir);
  return dir;
}
const canMount = (() => {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false;
  const dir = join(process.env.TMPDIR ?? '/tmp', `holdfast-mount-${process.pid}-${Math.random()}`);
  mkdirSync(dir);
  try {
    mount('-t', 'tmpfs', '-o', 'size=64k', 'holdfast-test', dir);
    unmount(dir);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
})();
if (!canMount) console.warn('SKIPPED: tests of full and read-only disks need Linux, root and the right to mount a tmpfs');

/** Fills the disk at `dir` and gives `pages` pages of 4 KiB back. */
function fill(dir: string, pages: number): void {
  const filler = join(dir, 'filler');
  mkdirSync(filler, { recursive: true });
  for (const size of [65536, 4096]) {
    for (let i = 0; ; i++) {
      try {
        writeFileSync(join(filler, `${size}-${i}`), Buffer.alloc(size));
      } catch {
        rmSync(join(filler, `${size}-${i}`), { force: true });
        break;
      }
    }
  }
  for (let i = 0; i < pages; i++) rmSync(join(filler, `4096-${i}`), { force: true });
}
const empty = (dir: string) => rmSync(join(dir, 'filler'), { recursive: true, force: true });
const stores = (dir: string) => Object.fromEntries(Object.entries(visible(dir)).filter(([name]) => !name.startsWith('filler')));

describe.runIf(canMount)('a full disk', () => {
  it.each([...Array(14).keys()])('with %i pages left: a batch is refused whole or committed whole, and works once there is space', async (pages) => {
    const dir = smallDisk('size=1m');
    const store = openRuntime(dir);
    await store.writePair('old'.repeat(2000));
    fill(dir, 64);
    fill(dir, pages);
    const before = stores(dir);
    const next = openRuntime(dir, { idPrefix: 'x-' });
    const written = await next.writePair('new'.repeat(2000)).catch((error: unknown) => error);
    if (written instanceof Error) {
      expect(written).toMatchObject({ code: 'ENOSPC', hfCode: 'HF_DISK_FULL' });
      expect(stores(dir)).toEqual(before);
      expect(leftovers(dir)).toEqual([]);
      expect(await next.plan()).toMatchObject({ manifestHealthy: true });
    }
    empty(dir);
    expect(await next.writePair('newer')).toMatchObject({ state: 'committed' });
    expect(await next.plan()).toMatchObject({ manifestHealthy: true, readinessImpact: 'none' });
    expect((await next.receiptStore.list()).map(({ state }) => state)).toEqual(Array(written instanceof Error ? 2 : 3).fill('committed'));
  });

  it('at least the fullest refuses, so that the test above tests something', async () => {
    const dir = smallDisk('size=1m');
    await openRuntime(dir).writePair('old');
    fill(dir, 0);
    expect(await rejection(openRuntime(dir, { idPrefix: 'x-' }).writePair('new'.repeat(2000)))).toMatchObject({ code: 'ENOSPC', hfCode: 'HF_DISK_FULL' });
  });

  it('without inodes: a batch ends all old or all new, at the latest after recover()', async () => {
    for (let spare = 0; spare < 24; spare++) {
      const dir = smallDisk('size=4m,nr_inodes=80');
      await openRuntime(dir).writePair('old');
      const filler = join(dir, 'filler');
      mkdirSync(filler);
      let made = 0;
      try {
        for (; ; made++) writeFileSync(join(filler, String(made)), '');
      } catch {
        for (let i = 0; i < spare; i++) rmSync(join(filler, String(i)));
      }
      const next = openRuntime(dir, { idPrefix: 'x-' });
      const written = await next.writePair('new').catch((error: unknown) => error);
      if (written instanceof Error && written.name !== 'RuntimeStoreBatchPendingError') expect(written).toMatchObject({ code: 'ENOSPC', hfCode: 'HF_DISK_FULL' });
      empty(dir);
      const { after } = await openRuntime(dir).recover();
      expect(after, `with ${spare} inodes`).toMatchObject({ manifestHealthy: true });
      const versions = [dataOf(dir, 'launch-state.json').version, dataOf(dir, 'opencode-sessions.json').version];
      expect([['old', 'old'], ['new', 'new']]).toContainEqual(versions);
      if (!(written instanceof Error)) expect(versions[0]).toBe('new');
      expect(await openRuntime(dir, { idPrefix: 'y-' }).writePair('newer')).toMatchObject({ state: 'committed' });
      unmount(mounted.pop()!);
    }
  });

  it('single files: an update and an atomic write leave the old bytes and no temporary file', async () => {
    const dir = smallDisk('size=256k');
    const options = { filePath: join(dir, 'store.json'), schemaVersion: 1, defaultData: () => '', validate: String };
    await new VersionedJsonStore(options).updateLocked(() => 'old');
    await atomicWriteAsync(join(dir, 'plain'), 'old');
    fill(dir, 2);
    const before = stores(dir);
    const full = { code: 'ENOSPC', hfCode: 'HF_DISK_FULL' };
    const store = new VersionedJsonStore(options);
    expect(await rejection(store.updateLocked(() => 'x'.repeat(20_000)))).toMatchObject(full);
    expect(await rejection(atomicWriteAsync(join(dir, 'plain'), 'x'.repeat(20_000)))).toMatchObject(full);
    expect(stores(dir)).toEqual(before);
    empty(dir);
    expect(await store.updateLocked(() => 'x'.repeat(20_000))).toMatchObject({ changed: true });
  });
});

describe.runIf(canMount)('a read-only disk', () => {
  it('refuses every change with EROFS, and can still be read and planned', async () => {
    const dir = smallDisk('size=1m');
    const store = openRuntime(dir);
    await store.writePair('old');
    mount('-o', 'remount,ro', dir);
    const before = tree(dir);
    const readOnly = { code: 'EROFS', hfCode: 'HF_IO' };
    const file = new VersionedJsonStore({ filePath: join(dir, 'launch-state.json'), schemaVersion: 1, defaultData: () => 0 as unknown, validate: (value) => value });
    for (const attempt of [() => store.writePair('new'), () => file.updateLocked(() => 1), () => store.manifestStore.setActiveRun({ runId: 'x' }), () => atomicWriteAsync(join(dir, 'x'), 'x')]) {
      expect(await rejection(attempt())).toMatchObject(readOnly);
    }
    expect(await store.plan()).toMatchObject({ manifestHealthy: true });
    expect(await file.read()).toMatchObject({ ok: true, data: { version: 'old' } });
    expect(tree(dir)).toEqual(before);
    mount('-o', 'remount,rw', dir);
    expect(await store.writePair('new')).toMatchObject({ state: 'committed' });
  });
});

describe.runIf(process.platform !== 'win32')('a directory without permission', () => {
  it('refuses every change at once with EACCES, and can still be read and planned', async () => {
    const dir = tempDir();
    await openRuntime(dir).writePair('old');
    // Everybody may look, only the owner (root, or nobody at all) may write.
    chmodSync(dir, process.getuid?.() === 0 ? 0o755 : 0o555);
    if (process.getuid?.() !== 0) chmodSync(join(dir, '.holdfast'), 0o555);
    const before = visible(dir);
    const began = Date.now();
    const { out, err } = await run('as-nobody.mjs', dir);
    const refused = 'EACCES HF_IO';
    expect({ lines: out.trim().split('\n'), err }).toEqual({
      lines: [...['writeBatch', 'updateLocked', 'setActiveRun', 'withFileLock', 'atomicWriteAsync', 'recover'].map((name) => `${name}: ${refused}`), 'read: ok loaded', 'plan: ok none'],
      err: '',
    });
    expect(Date.now() - began).toBeLessThan(10_000);
    expect(visible(dir)).toEqual(before);
    chmodSync(dir, 0o755);
  });
});
