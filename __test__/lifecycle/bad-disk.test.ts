// A disk that is full, or that cannot be written (section 6; T4): the failing call rejects, the rest stays usable, nothing is half there, and
// it works again once there is room.
import { execFileSync } from 'node:child_process';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';

import { openSessionStore, type SessionStore } from 'holdfast';
import { afterEach, describe, expect, test } from 'vitest';

import { canMount, empty, fill, isRoot, mount, smallDisk, unmountDisks } from '../support/disk';
import { soon } from './hostile';
import { rejection, tempDir, world } from './support';

const open = new Set<SessionStore>();
afterEach(async () => {
  for (const store of open) await store.close().catch(() => {});
  open.clear();
  unmountDisks();
});

async function openAt(dataDir: string): Promise<SessionStore> {
  const store = await openSessionStore({ dataDir, busyTimeoutMs: 500 });
  open.add(store);
  return store;
}

/** What a reader sees of one session. */
async function seenOf(store: SessionStore, id: string) {
  const url = `https://x/${id}`;
  const pr = await store.getPr(url);
  return { pr: pr?.ciState ?? null, checks: (await store.listChecks(url)).length, comments: (await store.listPrComments(url)).length };
}

describe.runIf(canMount)('a full disk', () => {
  test.each([0, 1, 2, 3, 5, 8, 13, 21])('with %i pages left: what fails leaves nothing behind, and with room it goes on without opening again', async (pages) => {
    const disk = smallDisk();
    const { store, lifecycle } = await world({ open: (options) => openSessionStore({ dataDir: join(disk, 'data'), busyTimeoutMs: 500, ...options }) });
    open.add(store);
    await store.createSession({ projectId: 'mer' });
    fill(disk, 64);
    fill(disk, pages);
    const observe = (n: number) =>
      lifecycle.applyPrObservation('mer-1', {
        fetched: true,
        url: 'https://x/mer-1',
        number: n,
        ci: 'pending',
        checks: Array.from({ length: 6 }, (_, at) => ({ name: `c${at}`, commitHash: `h${n}`, status: 'queued', logTail: 'x'.repeat(3000) })),
        comments: Array.from({ length: n }, (_, at) => ({ commentId: `${n} ${at}`, body: 'y'.repeat(3000) })),
      });
    const acknowledged: number[] = [];
    const refused: string[] = [];
    for (let n = 1; n <= 8; n++) {
      await soon(observe(n), 'an observation').then(
        () => void acknowledged.push(n),
        (error) => void refused.push(error.hfCode),
      );
      // Whatever happened, it happened whole, and reading works.
      const last = acknowledged.at(-1) ?? 0;
      expect(await soon(seenOf(store, 'mer-1'), 'reading')).toEqual({ pr: last === 0 ? null : 'pending', checks: last === 0 ? 0 : 6 * acknowledged.length, comments: last });
    }
    expect(refused.length).toBeGreaterThan(0);
    for (const code of refused) expect(code).toBe('HF_DISK_FULL');
    const events = await store.readChangeLogAfter(0, 1000);
    expect(events.filter(({ type }) => type === 'pr_check_recorded')).toHaveLength(6 * acknowledged.length);

    empty(disk);
    await soon(observe(9), 'an observation with room');
    expect(await seenOf(store, 'mer-1')).toEqual({ pr: 'pending', checks: 6 * (acknowledged.length + 1), comments: 9 });
    expect(await store.check()).toEqual({ sound: true, problems: [] });
    await soon(store.close(), 'close()');
    const again = await openAt(join(disk, 'data'));
    expect(await seenOf(again, 'mer-1')).toEqual({ pr: 'pending', checks: 6 * (acknowledged.length + 1), comments: 9 });
  });

  test('a store cannot be made there, and can once there is room', async () => {
    const disk = smallDisk();
    fill(disk, 2);
    const error = await soon(rejection(openSessionStore(join(disk, 'data'))), 'opening');
    expect(error.hfCode).toBe('HF_DISK_FULL');
    empty(disk);
    const store = await openAt(join(disk, 'data'));
    expect(await store.listAllSessions()).toEqual([]);
  });

  test('a backup for which there is no room is refused, and leaves no file', async () => {
    const disk = smallDisk();
    const store = await openAt(join(tempDir(), 'data'));
    await store.upsertProject({ id: 'mer', path: '/' });
    fill(disk, 3);
    const error = await soon(rejection(store.backup(join(disk, 'copy.db'))), 'backup()');
    expect(error.hfCode).toBe('HF_DISK_FULL');
    expect(execFileSync('ls', ['-A', disk]).toString()).toBe('filler\n');
    await store.createSession({ projectId: 'mer' });
  });

  test('a disk that becomes read-only under an open store: writing fails, reading works', async () => {
    const disk = smallDisk();
    const store = await openAt(join(disk, 'data'));
    await store.upsertProject({ id: 'mer', path: '/' });
    await store.createSession({ projectId: 'mer' });
    // Files that are open stay writable, as with a disk that the kernel gave up on only from its next error on.
    await store.close();
    mount('-o', 'remount,ro', disk);
    const error = await soon(
      rejection(
        (async () => {
          const readOnly = await openAt(join(disk, 'data'));
          expect(await readOnly.listAllSessions()).toHaveLength(1);
          await readOnly.createSession({ projectId: 'mer' });
        })(),
      ),
      'using it',
    );
    expect(['HF_IO', 'HF_PERMISSION', 'HF_READ_ONLY']).toContain(error.hfCode);
    mount('-o', 'remount,rw', disk);
    const again = await openAt(join(disk, 'data'));
    expect((await again.createSession({ projectId: 'mer' })).id).toBe('mer-2');
  });
});

// Root may write anywhere.
test.skipIf(isRoot || process.platform === 'win32')('a folder that may not be written: opening says so', async () => {
  const dir = tempDir();
  chmodSync(dir, 0o500);
  const error = await rejection(openSessionStore(join(dir, 'data')));
  expect(['HF_IO', 'HF_PERMISSION']).toContain(error.hfCode);
  chmodSync(dir, 0o700);
});
