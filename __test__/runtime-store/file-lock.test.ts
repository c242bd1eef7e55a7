// @pool forks: what counts happens in processes of its own.
/** R11 to R15, W11 to W14, A16 to A20: the lock file, among holdfast processes and with programs of the original protocol. */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { HoldfastError, VersionedJsonStore, withFileLock, withFileLockSync } from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { withOriginalLock } from './fixtures/original.mjs';
import { deadPid, rejection, start, tempDir } from './support';

let dir: string;
let target: string;
let lockPath: string;
beforeEach(() => {
  dir = tempDir();
  target = join(dir, 'target.json');
  lockPath = `${target}.lock`;
});

const enter = (options = {}) => withFileLock(target, async () => 'in', { acquireTimeoutMs: 20_000, ...options });
const timeout = { hfCode: 'HF_LOCK_TIMEOUT', message: expect.stringMatching(/^File lock timeout: /) };

describe('taking and giving back', () => {
  it('R11, R15: the file is <file>.lock with pid and time, is gone afterwards, and folders are made', async () => {
    target = join(dir, 'a', 'b.json');
    const result = await withFileLock(target, async () => {
      const [pid, time, third] = readFileSync(`${target}.lock`, 'utf8').split('\n');
      expect(Number(pid)).toBe(process.pid);
      expect(Math.abs(Number(time) - Date.now())).toBeLessThan(60_000);
      expect(third).toMatch(/^holdfast /);
      return 42;
    });
    expect(result).toBe(42);
    expect(readdirSync(join(dir, 'a'))).toEqual([]);
  });

  it('R15: what fn throws passes unchanged, sync or async, and the lock is given back', async () => {
    const bang = { not: 'an Error' };
    expect(await rejection(withFileLock(target, () => Promise.reject(bang)))).toBe(bang);
    expect(await rejection(withFileLock(target, (() => { throw bang; }) as never))).toBe(bang);
    let seen: unknown;
    try {
      withFileLockSync(target, () => { throw bang; });
    } catch (error) {
      seen = error;
    }
    expect(seen).toBe(bang);
    expect(readdirSync(dir)).toEqual([]);
  });

  it('R14: another error of creating the lock comes at once, with its own code', async () => {
    writeFileSync(join(dir, 'file'), '');
    const began = Date.now();
    expect(await rejection(withFileLock(join(dir, 'file', 'x.json'), async () => {}))).toMatchObject({ code: expect.stringMatching(/ENOTDIR|EEXIST/), hfCode: 'HF_IO' });
    expect(Date.now() - began).toBeLessThan(2500);
  });

  it('A20, W14: nested use fails at once, and the outer call completes', async () => {
    const began = Date.now();
    const outer = await withFileLock(target, async () => {
      expect(await rejection(withFileLock(target, async () => {}))).toMatchObject(timeout);
      expect(() => withFileLockSync(target, () => {})).toThrow(/^File lock timeout: /);
      const store = new VersionedJsonStore({ filePath: target, schemaVersion: 1, defaultData: () => 1, validate: Number });
      expect(await rejection(store.updateLocked((n) => n))).toMatchObject(timeout);
      expect(await withFileLock(join(dir, 'other'), async () => 'other files may nest')).toBe('other files may nest');
      return 'done';
    });
    expect(outer).toBe('done');
    expect(Date.now() - began).toBeLessThan(500);
  });

  it('W14: the sync form fails at once where this thread holds the lock, and works otherwise', async () => {
    let release = () => {};
    let entered = () => {};
    const inside = new Promise<void>((resolve) => (entered = resolve));
    const held = withFileLock(target, () => (entered(), new Promise<void>((resolve) => (release = resolve))));
    await inside;
    const began = Date.now();
    expect(() => withFileLockSync(target, () => {})).toThrow(/^File lock timeout: /);
    expect(Date.now() - began).toBeLessThan(500);
    release();
    await held;
    expect(withFileLockSync(target, () => 7)).toBe(7);
    expect(readdirSync(dir)).toEqual([]);
  });

  it('A19, W14: 400 waiters x 20 ms all enter, in order of arrival', async () => {
    const order: number[] = [];
    await Promise.all(
      Array.from({ length: 400 }, (_, index) =>
        withFileLock(target, async () => {
          order.push(index);
          await sleep(20);
        }, { acquireTimeoutMs: 50_000 }),
      ),
    );
    expect(order).toEqual(Array.from({ length: 400 }, (_, index) => index));
  });
});

describe('locks of others', () => {
  it('A16: a lock of a process that is gone is taken over quickly', async () => {
    writeFileSync(lockPath, `${await deadPid()}\n${Date.now()}\n`);
    const began = Date.now();
    expect(await enter()).toBe('in');
    expect(Date.now() - began).toBeLessThan(500);
    writeFileSync(lockPath, `${await deadPid()}\n${Date.now()}\n`);
    expect(withFileLockSync(target, () => 'in')).toBe('in');
    expect(existsSync(lockPath)).toBe(false);
  });

  it('A16: a fresh two-line lock of a living process holds until the timeout, and stays', async () => {
    const text = `${process.pid}\n${Date.now()}\n`;
    writeFileSync(lockPath, text);
    const began = Date.now();
    const error = await rejection(enter({ acquireTimeoutMs: 200 }));
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).toMatchObject({ ...timeout, message: `File lock timeout: ${target}` });
    expect(Date.now() - began).toBeGreaterThanOrEqual(190);
    expect(Date.now() - began).toBeLessThan(2000);
    expect(() => withFileLockSync(target, () => {}, { acquireTimeoutMs: 50 })).toThrow(`File lock timeout: ${target}`);
    expect(readFileSync(lockPath, 'utf8')).toBe(text);
  });

  it.each([
    ['an old time in line 2', () => `${process.pid}\n${Date.now() - 60_000}\n`, 0],
    ['an old mtime where line 2 is no time', () => `${process.pid}\nx\n`, 60],
    ['an old mtime of an empty file', () => '', 60],
    ['pid 0 and an old time', () => `0\n${Date.now() - 60_000}\n`, 0],
  ])('R12: %s makes a lock stale', async (_, text, age) => {
    writeFileSync(lockPath, text());
    const then = Date.now() / 1000 - age;
    utimesSync(lockPath, then, then);
    expect(await enter()).toBe('in');
  });

  it.each([
    ['pid 0', () => `0\n${Date.now()}\n`],
    ['no pid', () => `x\n${Date.now()}\n`],
    ['an empty file', () => ''],
  ])('R12: a fresh lock with %s is not stale', async (_, text) => {
    writeFileSync(lockPath, text());
    expect(await rejection(enter({ acquireTimeoutMs: 100 }))).toMatchObject(timeout);
  });

  it('A16: an old folder at the lock path is removed, a fresh one is not', async () => {
    mkdirSync(join(lockPath, 'deep'), { recursive: true });
    expect(await rejection(enter({ acquireTimeoutMs: 100 }))).toMatchObject(timeout);
    const old = Date.now() / 1000 - 60;
    utimesSync(lockPath, old, old);
    expect(await enter()).toBe('in');
  });

  it('R13: acquireTimeoutMs 0 is one attempt; a free lock is taken', async () => {
    expect(await enter({ acquireTimeoutMs: 0 })).toBe('in');
    writeFileSync(lockPath, `${process.pid}\n${Date.now()}\n`);
    expect(await rejection(enter({ acquireTimeoutMs: 0 }))).toMatchObject(timeout);
  });

  it('W13: a lock of this very process id from before a restart does not block', async () => {
    const holder = start('lock-hold.mjs', 'holdfast', target, '{}');
    await holder.line('held');
    holder.process.kill('SIGKILL');
    await holder.ended;
    // As a container's pid 1 would find it: everything the dead process wrote, but with the id of a living one.
    writeFileSync(lockPath, readFileSync(lockPath, 'utf8').replace(/^\d+/, String(process.pid)));
    const began = Date.now();
    expect(await enter()).toBe('in');
    expect(Date.now() - began).toBeLessThan(2500);
  });

  it('W13: sharedVolume writes pid 0, by which the original goes by age', async () => {
    await withFileLock(target, async () => {
      expect(readFileSync(lockPath, 'utf8')).toMatch(/^0\n\d+\n/);
      expect(await rejection(withOriginalLock(target, async () => {}, { acquireTimeoutMs: 100 }))).toMatchObject({ message: `File lock timeout: ${target}` });
    }, { sharedVolume: true });
  });
});

describe('several processes', () => {
  it.each(['holdfast', 'original'])('A17, W11: an owner that holds for three stale periods keeps a %s process out, and then lets it in', async (kind) => {
    const options = { acquireTimeoutMs: 20_000, staleTimeoutMs: 600, retryIntervalMs: 10 };
    const second = await withFileLock(target, async () => {
      const child = start('lock-hold.mjs', kind, target, JSON.stringify(options));
      await child.line('waiting');
      await sleep(3 * options.staleTimeoutMs + 200);
      expect(child.lines).toEqual(['waiting']);
      return child;
    }, options);
    await second.line('held');
    second.send('release');
    expect(await second.line('released')).toBe('released');
  });

  it('A17: the original keeps holdfast out while it lives', async () => {
    const owner = start('lock-hold.mjs', 'original', target, '{}');
    await owner.line('held');
    let entered = false;
    const waiting = enter().then(() => (entered = true));
    await sleep(300);
    expect(entered).toBe(false);
    owner.send('release');
    await waiting;
  });

  it('W11: giving back removes only the own lock file', async () => {
    await withFileLock(target, async () => {
      // Somebody broke the lock and made one of his own.
      rmSync(lockPath);
      writeFileSync(lockPath, `${process.pid}\n${Date.now()}\nnot ours\n`);
    });
    expect(readFileSync(lockPath, 'utf8')).toContain('not ours');
  });

  it('W11: an update whose lock was lost writes nothing', async () => {
    const store = new VersionedJsonStore({ filePath: target, schemaVersion: 1, defaultData: () => ({ n: 0 }), validate: (value) => value as { n: number } });
    await store.updateLocked(() => ({ n: 1 }));
    const before = readFileSync(target, 'utf8');
    const error = await rejection(
      store.updateLocked(({ n }) => {
        rmSync(lockPath);
        writeFileSync(lockPath, `${process.pid}\n${Date.now()}\n`);
        return { n: n + 1 };
      }),
    );
    expect(error).toMatchObject({ hfCode: 'HF_RUNTIME_LOCK_LOST' });
    expect(readFileSync(target, 'utf8')).toBe(before);
    expect(readdirSync(dir).sort()).toEqual(['target.json', 'target.json.lock']);
  });

  it('A18, W12: six processes meet one dead lock in 500 rounds, and never two are inside', async () => {
    const pid = await deadPid();
    const racers = Array.from({ length: 6 }, () => start('lock-race.mjs', target));
    await Promise.all(racers.map((racer) => racer.line('ready')));
    for (let round = 1; round <= 500; round++) {
      writeFileSync(lockPath, `${pid}\n${Date.now()}\n`);
      for (const racer of racers) racer.send(String(round));
      const answers = await Promise.all(racers.map((racer) => racer.line(new RegExp(`^\\w+ ${round}\\b`))));
      expect(answers).toEqual(Array(6).fill(`done ${round}`));
      for (const racer of racers) racer.lines.length = 0;
    }
    expect(readdirSync(dir)).toEqual([]);
  });

  it('a killed owner, holdfast or original, does not block the next', async () => {
    for (const [kind, by] of [['holdfast', 'original'], ['original', 'holdfast'], ['holdfast', 'holdfast']] as const) {
      const owner = start('lock-hold.mjs', kind, target, '{}');
      await owner.line('held');
      owner.process.kill('SIGKILL');
      await owner.ended;
      expect(existsSync(lockPath)).toBe(true);
      expect(await (by === 'holdfast' ? enter() : withOriginalLock(target, async () => 'in'))).toBe('in');
    }
  });
});
