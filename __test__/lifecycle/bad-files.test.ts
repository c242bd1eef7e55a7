// The file of a store is damaged, cut, replaced, removed, or of another version, before opening and under an open store (T8): the answer is
// right, or there is an error that says what is wrong; never a wrong answer, never a hang.
import { closeSync, copyFileSync, lstatSync, mkdirSync, openSync, readFileSync, readdirSync, rmSync, symlinkSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { MigrationError, openSessionStore, type SessionStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { soon } from './hostile';
import { rejection, tempDir, until } from './support';

/** What may be said about a file that is not as it was left. */
const DAMAGE = ['HF_CORRUPT', 'HF_IO', 'HF_POISONED', 'HF_FORMAT_TOO_NEW', 'HF_BUSY', 'HF_INVALID_ARGUMENT', 'HF_DATABASE'];

/** A store with some of everything, closed: all of it is in one file. */
async function golden(): Promise<string> {
  const dir = tempDir();
  const store = await openSessionStore(dir);
  await store.upsertProject({ id: 'mer', path: '/src/mer' });
  for (let n = 1; n <= 30; n++) {
    const { id } = await store.createSession({ projectId: 'mer', metadata: { prompt: `prompt ${n} `.repeat(20) } });
    await store.writePrObservation({ url: `https://x/${n}`, sessionId: id, number: n }, [{ prUrl: `https://x/${n}`, name: 'unit', commitHash: 'c', logTail: 'x'.repeat(300) }], []);
  }
  await store.consumer('c').read();
  await store.close();
  expect(readdirSync(dir).filter((name) => name.startsWith('sessions.db')).sort()).toEqual(['sessions.db']);
  return join(dir, 'sessions.db');
}

/** Everything that can be read, as text. */
async function contents(store: SessionStore): Promise<string> {
  const sessions = await store.listAllSessions();
  const changes = await store.readChangeLogAfter(0, 1000);
  const prs = await Promise.all(sessions.map(({ id }) => store.listPrsBySession(id)));
  const checks = await Promise.all(sessions.map(({ num }) => store.listChecks(`https://x/${num}`)));
  return JSON.stringify([await store.listProjects(), sessions, changes, prs, checks]);
}

function overwrite(file: string, at: number, bytes: Buffer): void {
  const fd = openSync(file, 'r+');
  writeSync(fd, bytes, 0, bytes.length, at);
  closeSync(fd);
}

function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

describe('a file that was damaged while nobody had it open', () => {
  /** What came of opening, looking through and reading a copy with a change: never a hang, never an unknown error. */
  async function outcomeOf(file: string, damage: (copy: string) => void, good: string): Promise<string> {
    const copy = join(tempDir(), 'sessions.db');
    copyFileSync(file, copy);
    damage(copy);
    let store: SessionStore | undefined;
    try {
      store = await soon(openSessionStore({ path: copy, busyTimeoutMs: 200 }), 'opening');
      const { sound } = await soon(store.check(), 'check()');
      const is = await soon(contents(store), 'reading');
      if (is === good) return sound ? 'unchanged' : 'reported';
      return sound ? 'silent' : 'reported';
    } catch (error) {
      const { hfCode, message } = error as { hfCode?: string; message: string };
      if (hfCode === undefined || !DAMAGE.includes(hfCode)) throw error;
      expect(message).not.toContain('prompt 1');
      return 'refused';
    } finally {
      if (store !== undefined) await soon(store.close().catch(() => {}), 'close()');
    }
  }

  test('flipped bytes, pages of zeros, cuts: an error or the right answer, or check() tells', async () => {
    const file = await golden();
    const seed = Number(process.env.HOLDFAST_SEED ?? Date.now() % 1e6);
    const pick = random(seed);
    const store = await openSessionStore({ path: file });
    const good = await contents(store);
    await store.close();
    const size = readFileSync(file).length;
    const outcomes: Record<string, number> = {};
    const silent: string[] = [];
    const attempt = async (name: string, damage: (copy: string) => void): Promise<void> => {
      const outcome = await outcomeOf(file, damage, good).catch((error) => {
        throw new Error(`seed ${seed}, ${name}: ${error.message}`, { cause: error });
      });
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      if (outcome === 'silent') silent.push(name);
    };
    for (let at = 0; at < 100; at += 9) await attempt(`header byte ${at}`, (copy) => overwrite(copy, at, Buffer.from([0xff])));
    for (let n = 0; n < 40; n++) {
      const at = 100 + pick(size - 100);
      const flipped = Buffer.from([readFileSync(file)[at]! ^ (1 << pick(8))]);
      await attempt(`bit of byte ${at}`, (copy) => overwrite(copy, at, flipped));
    }
    for (let page = 0; page < size / 4096; page += 2) await attempt(`page ${page} of zeros`, (copy) => overwrite(copy, page * 4096, Buffer.alloc(4096)));
    for (let n = 0; n < 15; n++) {
      const to = pick(size);
      await attempt(`cut to ${to}`, (copy) => truncateSync(copy, to));
    }
    // A bit inside a text or a number is not SQLite's to find. Whole pages and cuts are.
    expect(silent.filter((name) => !name.startsWith('bit of') && !name.startsWith('header')), `seed ${seed}`).toEqual([]);
    expect(outcomes.refused, JSON.stringify(outcomes)).toBeGreaterThan(5);
    expect(outcomes.unchanged, JSON.stringify(outcomes)).toBeGreaterThan(5);
  });

  test.each<[string, (path: string) => void]>([
    ['text', (path) => writeFileSync(path, 'this is no database at all'.repeat(400))],
    ['a folder', (path) => mkdirSync(path)],
    ['a link into nowhere', (path) => symlinkSync(join(path, 'a', 'b'), path)],
  ])('%s in its place is refused, and stays as it is', async (_, make) => {
    const path = join(tempDir(), 'sessions.db');
    make(path);
    const before = lstatSync(path, { throwIfNoEntry: false })?.isFile() ? readFileSync(path) : undefined;
    const error = await soon(rejection(openSessionStore({ path, busyTimeoutMs: 200 })), 'opening');
    expect(['HF_CORRUPT', 'HF_IO', 'HF_INVALID_ARGUMENT']).toContain(error.hfCode);
    if (before !== undefined) expect(readFileSync(path).equals(before)).toBe(true);
  });

  test.each(['a b', 'a?b=c', 'a#b', '%20', 'ä💥', "o'b", 'file', ';', '-x', 'a\\b', '::memory::', 'nul\n'])('a folder called %j is a folder like any other', async (name) => {
    const dir = join(tempDir(), name);
    const store = await openSessionStore(dir);
    await store.upsertProject({ id: 'mer', path: '/' });
    const copy = join(dir, 'copy of it.db');
    await store.backup(copy);
    await store.close();
    expect(readdirSync(dir).filter((file) => !file.startsWith('.')).sort()).toEqual(expect.arrayContaining(['copy of it.db', 'sessions.db']));
    await using again = await openSessionStore({ path: copy });
    expect(await again.listProjects()).toHaveLength(1);
  });

  test('an empty file is a new store', async () => {
    const path = join(tempDir(), 'sessions.db');
    writeFileSync(path, '');
    await using store = await openSessionStore({ path });
    expect(await store.listAllSessions()).toEqual([]);
  });

  test('a database of somebody else is refused, and stays as it is', async () => {
    const file = await golden();
    // Bytes 68 to 71: the application id.
    overwrite(file, 68, Buffer.from('XYZW'));
    const before = readFileSync(file);
    const error = await rejection(openSessionStore({ path: file }));
    expect(error.hfCode).toBe('HF_INVALID_ARGUMENT');
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  test('of a newer version: refused untouched, by a class of its own', async () => {
    const file = await golden();
    // Bytes 60 to 63: user_version.
    overwrite(file, 60, Buffer.from([0, 0, 0x27, 0x0f]));
    const before = readFileSync(file);
    const error = await rejection(openSessionStore({ path: file }));
    expect(error).toMatchObject({ name: 'SchemaTooNewError', hfCode: 'HF_FORMAT_TOO_NEW' });
    expect(error.message).toContain('9999');
    expect(error).toMatchObject({ found: 9999, expected: 1 });
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  test('that a migration cannot bring up to date: an error that names the step, and the tables stay as they are', async () => {
    const file = await golden();
    // An older version without tables of its own, as user_version says, that has them all the same.
    overwrite(file, 60, Buffer.from([0, 0, 0, 0]));
    const error = await rejection(openSessionStore({ path: file }));
    expect(error).toBeInstanceOf(MigrationError);
    expect(error).toMatchObject({ code: 'HF_MIGRATION_FAILED', path: file, found: 0, expected: 1, step: '0001 sessions' });
    overwrite(file, 60, Buffer.from([0, 0, 0, 1]));
    await using store = await openSessionStore({ path: file });
    expect([(await store.check()).sound, (await store.listAllSessions()).length]).toEqual([true, 30]);
  });
});

describe('a file that changes under an open store', () => {
  const opened = async () => {
    const dir = tempDir();
    const store = await openSessionStore({ dataDir: dir, busyTimeoutMs: 200 });
    await store.upsertProject({ id: 'mer', path: '/' });
    for (let n = 0; n < 50; n++) await store.createSession({ projectId: 'mer', metadata: { prompt: 'p'.repeat(2000) } });
    return { dir, file: join(dir, 'sessions.db'), store };
  };
  /** Uses the store in every way; the codes of the errors that came. */
  const use = async (store: SessionStore): Promise<string[]> => {
    const codes: string[] = [];
    const calls = [() => store.createSession({ projectId: 'mer' }), () => store.listAllSessions(), () => store.readChangeLogAfter(0, 1000), () => store.check(), () => store.stats()];
    for (const call of calls) {
      await soon<unknown>(call(), String(call)).catch((error) => {
        if (error.hfCode === undefined) throw error;
        codes.push(error.hfCode);
      });
    }
    return codes;
  };

  test('removed with its log: no hang, no crash; a store that is opened then begins anew', async () => {
    const { dir, store } = await opened();
    for (const name of readdirSync(dir)) rmSync(join(dir, name), { recursive: true });
    for (const code of await use(store)) expect(DAMAGE).toContain(code);
    await using other = await soon(openSessionStore(dir), 'opening');
    expect(await other.listAllSessions()).toEqual([]);
    await soon(store.close().catch(() => {}), 'close()');
    await other.upsertProject({ id: 'mer', path: '/' });
    expect(await other.check()).toEqual({ sound: true, problems: [] });
  });

  test('overwritten with noise: an error of damage, and close() ends', async () => {
    const { file, store } = await opened();
    writeFileSync(file, Buffer.alloc(readFileSync(file).length, 0xa5));
    writeFileSync(`${file}-wal`, Buffer.alloc(8192, 0x5a));
    for (const code of await use(store)) expect(DAMAGE).toContain(code);
    await soon(store.close().catch(() => {}), 'close()');
    expect(DAMAGE).toContain((await rejection(openSessionStore({ path: file, busyTimeoutMs: 200 }))).hfCode);
  });

  test('cut to nothing: an error, or what was there; no crash, and close() ends', async () => {
    const { file, store } = await opened();
    truncateSync(file, 0);
    for (const code of await use(store)) expect(DAMAGE).toContain(code);
    await soon(store.close().catch(() => {}), 'close()');
  });

  test('replaced by another store: what was acknowledged there is not damaged', async () => {
    const { dir, store } = await opened();
    const other = await golden();
    for (const name of readdirSync(dir)) rmSync(join(dir, name), { recursive: true });
    copyFileSync(other, join(dir, 'sessions.db'));
    await use(store);
    await soon(store.close().catch(() => {}), 'close()');
    await using fresh = await openSessionStore(dir);
    expect(await fresh.check()).toEqual({ sound: true, problems: [] });
    expect(await fresh.listAllSessions()).toHaveLength(30);
  });

  test('its version rises under it: a second store is refused, the open one finishes or says so', async () => {
    const { file, store } = await opened();
    await store.close();
    await using first = await openSessionStore({ path: file });
    overwrite(file, 60, Buffer.from([0, 0, 0x27, 0x0f]));
    const error = await rejection(openSessionStore({ path: file, busyTimeoutMs: 200 }));
    expect(error.hfCode).toBe('HF_FORMAT_TOO_NEW');
    for (const code of await use(first)) expect(DAMAGE).toContain(code);
  });
});

test('a backup under load is the store at one moment: whole, and not older than what was acknowledged before', async () => {
  const dir = tempDir();
  await using store = await openSessionStore(dir);
  await store.upsertProject({ id: 'mer', path: '/' });
  let running = true;
  let acknowledged = 0;
  const load = Promise.all(
    Array.from({ length: 4 }, async () => {
      while (running) {
        const { id, num } = await store.createSession({ projectId: 'mer' });
        await store.writePrObservation({ url: id, sessionId: id }, [{ prUrl: id, name: 'c', commitHash: 'h' }], [{ prUrl: id, commentId: '1', body: 'b' }]);
        acknowledged = Math.max(acknowledged, num);
      }
    }),
  );
  for (let round = 0; round < 3; round++) {
    await until(() => acknowledged > round * 50 + 10);
    const [before, path] = [acknowledged, join(dir, `copy${round}.db`)];
    await store.backup(path);
    const taken = await rejection(store.backup(path));
    expect(taken).toMatchObject({ name: 'InvalidArgumentError', code: 'HF_INVALID_ARGUMENT', argument: 'path', path });
    const copy = await openSessionStore({ path });
    const sessions = await copy.listAllSessions();
    expect(sessions.map(({ num }) => num)).toEqual(sessions.map((_, at) => at + 1));
    expect(sessions.length).toBeGreaterThanOrEqual(before);
    expect(await copy.check()).toEqual({ sound: true, problems: [] });
    // An observation is there whole or not at all.
    for (const { id } of sessions.slice(-10)) {
      const pr = await copy.getPr(id);
      expect([(await copy.listChecks(id)).length, (await copy.listPrComments(id)).length]).toEqual(pr === null ? [0, 0] : [1, 1]);
    }
    await copy.close();
  }
  running = false;
  await load;
});
