// @pool forks: what counts happens in processes of its own.
// What only a server can do: stop, come back, cut connections, be used by several at once (T13).
import { setTimeout as sleep } from 'node:timers/promises';

import { Broadcaster, CdcPoller, MigrationError, openSessionStore, type ChangeEvent, type SessionStore } from 'holdfast';
import { describe, expect, onTestFinished, test } from 'vitest';

import { freshSchema, postgresUrl, query, restartablePostgres } from '../support/postgres';
import { start } from './children';
import { soon, soundness } from './hostile';
import { rejection, until, world } from './support';

async function openAt(connectionString: string, schema = 'lifecycle'): Promise<SessionStore> {
  const store = await openSessionStore({ connectionString, schema });
  onTestFinished(() => store.close().catch(() => {}));
  return store;
}

/** Events that a poller publishes, as they come. */
function heardBy(store: SessionStore): ChangeEvent[] {
  const heard: ChangeEvent[] = [];
  const broadcaster = new Broadcaster();
  broadcaster.subscribe((event) => void heard.push(event));
  const poller = new CdcPoller(store, broadcaster, { intervalMs: 20, logger: { debug() {}, info() {}, warn() {}, error() {} } });
  poller.start();
  onTestFinished(() => poller.stop());
  return heard;
}

/** Creates sessions one after another until it is told to stop; who was acknowledged, and what was refused. */
function writing(store: SessionStore) {
  const [acknowledged, refused]: [string[], string[]] = [[], []];
  let running = true;
  const over = (async () => {
    while (running) {
      await store.createSession({ projectId: 'mer' }).then(
        ({ id }) => void acknowledged.push(id),
        async (error) => {
          refused.push(error.hfCode ?? String(error));
          await sleep(10);
        },
      );
    }
  })();
  return { acknowledged, refused, stop: () => ((running = false), over) };
}

describe('the server', () => {
  test('is killed under load and comes back: nothing acknowledged is lost, and who listens hears all of it once', async () => {
    const server = await restartablePostgres();
    const store = await openAt(server.url);
    await store.upsertProject({ id: 'mer', path: '/' });
    const heard = heardBy(store);
    const load = writing(store);
    await sleep(300);
    const before = load.acknowledged.length;
    await server.kill();
    await sleep(200);
    await server.start();
    await until(() => load.acknowledged.length > before + 20, 20_000);
    await soon(load.stop(), 'the load', 10_000);
    const there = (await store.listAllSessions()).map(({ id }) => id);
    expect(load.acknowledged.filter((id) => !there.includes(id))).toEqual([]);
    expect(new Set(load.acknowledged).size).toBe(load.acknowledged.length);
    for (const code of load.refused) expect(code).toMatch(/^HF_/);
    await until(() => heard.length >= there.length, 10_000);
    expect(heard.map(({ sessionId }) => sessionId)).toEqual(there);
    expect(await soundness(store)).toEqual([]);
  });

  test('stands still: calls wait or are refused, and go on; close() ends', async () => {
    const server = await restartablePostgres();
    const store = await openAt(server.url);
    await store.upsertProject({ id: 'mer', path: '/' });
    const heard = heardBy(store);
    const stopped = await sessionsOf(server.url);
    for (const pid of [server.pid()!, ...stopped]) process.kill(pid, 'SIGSTOP');
    const waiting = Array.from({ length: 30 }, () => store.createSession({ projectId: 'mer' }).then(({ id }) => id, (error) => error.hfCode as string));
    await sleep(700);
    for (const pid of [...stopped, server.pid()!]) process.kill(pid, 'SIGCONT');
    const outcomes = await soon(Promise.all(waiting), 'the calls', 20_000);
    const there = (await store.listAllSessions()).map(({ id }) => id);
    expect(outcomes.filter((outcome) => outcome.startsWith('mer-')).sort()).toEqual([...there].sort());
    expect(outcomes.filter((outcome) => !/^(mer-\d+|HF_\w+)$/.test(outcome))).toEqual([]);
    await until(() => heard.length === there.length, 10_000);
    // Once more, and this time nobody waits for it to go on.
    const again = await sessionsOf(server.url);
    for (const pid of [server.pid()!, ...again]) process.kill(pid, 'SIGSTOP');
    const hanging = store.createSession({ projectId: 'mer' }).catch((error) => error.hfCode);
    try {
      const begun = performance.now();
      await soon(store.close(), 'close()', 20_000);
      // It waits for 5 seconds once, not once for each of its connections.
      expect(performance.now() - begun).toBeLessThan(8000);
    } finally {
      for (const pid of [...again, server.pid()!]) process.kill(pid, 'SIGCONT');
    }
    expect(await soon(hanging, 'the call', 10_000)).toMatch(/^HF_(UNAVAILABLE|CLOSED)$/);
  });

  test('is away for longer than a call is tried: changes() goes on where it was, without a gap, and ends with its signal meanwhile', async () => {
    const server = await restartablePostgres();
    const warned: string[] = [];
    const logger = { debug() {}, info() {}, error() {}, warn: (message: string) => void warned.push(message) };
    const store = await openSessionStore({ connectionString: server.url, schema: 'lifecycle', logger });
    onTestFinished(() => store.close());
    await store.upsertProject({ id: 'mer', path: '/' });
    await store.createSession({ projectId: 'mer' });
    const aborting = new AbortController();
    const [followed, ended] = [store.changes(), store.changes({ after: 1, projectId: 'mer', signal: aborting.signal })];
    expect((await followed.next()).value?.seq).toBe(1);
    const [second, end] = [followed.next(), ended.next()];
    await server.kill();
    const outages = (): number => warned.filter((message) => message.includes('can be reached again')).length;
    await until(() => outages() === 2, 20_000);
    aborting.abort();
    expect((await soon(end, 'the aborted one')).done).toBe(true);
    await server.start();
    await store.createSession({ projectId: 'mer' });
    await store.createSession({ projectId: 'mer' });
    // A server that was killed leaves numbers out.
    const there = (await store.readChangeLogAfter(1)).map(({ seq }) => seq);
    expect([(await soon(second, 'the next change', 10_000)).value?.seq, (await followed.next()).value?.seq]).toEqual(there);
    expect(outages()).toBe(2);
  });

  test('cuts every connection again and again: nothing acknowledged is lost', async () => {
    const { url, schema } = await freshSchema();
    const store = await openAt(url, schema);
    await store.upsertProject({ id: 'mer', path: '/' });
    const heard = heardBy(store);
    const load = writing(store);
    for (let round = 0; round < 8; round++) {
      await sleep(60);
      // Those of this schema alone: the server is everybody's.
      await query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%${schema}%'`);
    }
    const cut = load.acknowledged.length;
    await until(() => load.acknowledged.length > cut + 5, 10_000);
    await load.stop();
    const there = (await store.listAllSessions()).map(({ id }) => id);
    expect(load.acknowledged.filter((id) => !there.includes(id))).toEqual([]);
    await until(() => heard.length >= there.length, 10_000);
    expect(heard.map(({ sessionId }) => sessionId).sort()).toEqual([...there].sort());
    const seqs = heard.map(({ seq }) => seq);
    expect(seqs).toEqual([...seqs].sort((a, b) => a - b));
  });

  test('is away when a store is opened: it says so, without the password', async () => {
    const server = await restartablePostgres();
    await server.kill();
    const error = await soon(rejection(openSessionStore({ connectionString: server.url.replace('postgres:postgres', 'postgres:hunter2') })), 'opening', 30_000);
    expect(error.hfCode).toMatch(/^HF_/);
    expect(`${error.message} ${error.stack} ${JSON.stringify(error)}`).not.toContain('hunter2');
  });
});

/** The processes of the server's sessions. */
async function sessionsOf(url: string): Promise<number[]> {
  return (await query<{ pid: number }>(`SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`, [], url)).map(({ pid }) => pid);
}

describe('the order of changes', () => {
  test('a transaction that is slow to commit is not overtaken: who polls never misses a seq', async () => {
    const { url, schema } = await freshSchema();
    const [a, b, reader] = [await openAt(url, schema), await openAt(url, schema), await openAt(url, schema)];
    for (let n = 0; n < 8; n++) await a.upsertProject({ id: `p${n}`, path: '/' });
    const seen: ChangeEvent[] = [];
    let over = false;
    const reading = (async () => {
      while (!over) seen.push(...(await reader.readChangeLogAfter(seen.at(-1)?.seq ?? 0, 50)));
    })();
    // Writers of all sizes beside each other, on sessions of their own: what could commit out of order does.
    const writer = async (store: SessionStore, projectId: string): Promise<void> => {
      for (let n = 0; n < 12; n++) {
        const { id } = await store.createSession({ projectId });
        const url = `${id}/pr`;
        const checks = Array.from({ length: (n * 7) % 40 }, (_, at) => ({ prUrl: url, name: `c${at}`, commitHash: 'h' }));
        await store.writePrObservation({ url, sessionId: id }, checks, []);
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, n) => writer(n % 2 === 0 ? a : b, `p${n}`)));
    const head = await reader.maxChangeLogSeq();
    await until(() => seen.at(-1)?.seq === head, 10_000);
    over = true;
    await reading;
    const all: ChangeEvent[] = await reader.readChangeLogAfter(0, 100_000);
    expect(seen.map(({ seq }) => seq)).toEqual(all.map(({ seq }) => seq));
    // Within each session: first itself, then its pull request, then the checks in their order.
    for (let n = 0; n < 8; n++) {
      const own = seen.filter(({ sessionId }) => sessionId === `p${n}-12`);
      expect(own.map(({ type }) => type).slice(0, 2)).toEqual(['session_created', 'pr_created']);
      const names = own.flatMap((event) => (event.type === 'pr_check_recorded' ? [event.payload.name] : []));
      expect(names).toEqual(Array.from({ length: 77 % 40 }, (_, at) => `c${at}`));
    }
  });

  test('somebody else’s transaction in the tables, open for long, holds no seq back that is lower than one that was read', async () => {
    const { url, schema } = await freshSchema();
    const store = await openAt(url, schema);
    await store.upsertProject({ id: 'mer', path: '/' });
    await store.createSession({ projectId: 'mer' });
    await store.createSession({ projectId: 'mer' });
    // A direct writer, as psql is one: it changes a row, waits, and commits late.
    const direct = query(
      `BEGIN; SET LOCAL search_path TO ${schema}; UPDATE sessions SET is_alive = 1 WHERE id = 'mer-1'; SELECT pg_sleep(0.6); COMMIT`,
      undefined,
      url,
    );
    await sleep(150);
    await soon(store.createSession({ projectId: 'mer' }), 'a write beside it', 2000);
    const before = await store.readChangeLogAfter(0);
    await direct;
    const after = await store.readChangeLogAfter(0);
    expect(after.slice(0, before.length)).toEqual(before);
    expect(after.at(-1)).toMatchObject({ type: 'session_updated', payload: { id: 'mer-1', isAlive: 1 } });
    expect(await store.readChangeLogAfter(before.at(-1)!.seq)).toHaveLength(1);
  });
});

test('a row that somebody else holds: writers of it are told after busyTimeoutMs, and keep neither readers nor other writers', async () => {
  const { url, schema } = await freshSchema();
  const store = await openSessionStore({ connectionString: url, schema, busyTimeoutMs: 600 });
  onTestFinished(() => store.close().catch(() => {}));
  await store.upsertProject({ id: 'mer', path: '/' });
  for (let n = 0; n < 2; n++) await store.createSession({ projectId: 'mer' });
  const holding = query(`BEGIN; SET LOCAL search_path TO ${schema}; UPDATE sessions SET is_alive = 1 WHERE id = 'mer-1'; SELECT pg_sleep(4); ROLLBACK`, undefined, url);
  await sleep(200);
  // More than there are connections.
  const waiting = Array.from({ length: 8 }, (_, n) => store.patchSessionMetadata('mer-1', { branch: `b${n}` }).then(() => 'done', (error) => error.hfCode));
  try {
    await soon(store.listAllSessions(), 'reading', 1000);
    await soon(store.patchSessionMetadata('mer-2', { branch: 'b' }), 'writing another session', 2500);
    expect(await soon(Promise.all(waiting), 'the writers', 2500)).toEqual(waiting.map(() => 'HF_BUSY'));
  } finally {
    await holding;
    await Promise.all(waiting);
  }
  expect((await store.getSession('mer-1'))!.lifecycle.isAlive).toBe(false);
});

describe('two processes on one database', () => {
  test('one that stands still keeps what it has begun; once it is dead, the other ends it', async () => {
    const { url, schema } = await freshSchema();
    const place = { connectionString: url, schema };
    const { store, sessions } = await world({ open: (options) => openSessionStore({ ...place, ...options }) });
    onTestFinished(() => store.close());
    const child = start(place, 'step', 'spawn', 'runtime.create');
    await child.line('step');
    // Its operation is its own as long as it lives, however still it stands.
    child.process.kill('SIGSTOP');
    await sleep(300);
    expect((await sessions.recover()).parked).toEqual([]);
    expect((await sessions.get('mer-1')).status).toBe('spawning');
    child.process.kill('SIGCONT');
    await child.kill();
    // The server needs a moment to notice.
    await until(async () => (await sessions.recover()).parked.length === 1, 10_000);
    expect((await sessions.get('mer-1')).status).toBe('errored');
  });

  test('two schemas of one database know nothing of each other', async () => {
    const [one, two] = [await freshSchema(), await freshSchema()];
    const [a, b] = [await openAt(postgresUrl(), one.schema), await openAt(postgresUrl(), two.schema)];
    const [heardA, heardB] = [heardBy(a), heardBy(b)];
    for (const store of [a, b]) await store.upsertProject({ id: 'mer', path: '/' });
    await a.createSession({ projectId: 'mer' });
    await until(() => heardA.length === 1);
    expect([heardB, await b.listAllSessions(), await b.maxChangeLogSeq()]).toEqual([[], [], 0]);
    expect((await b.createSession({ projectId: 'mer' })).id).toBe('mer-1');
    expect((await b.readChangeLogAfter(0)).map(({ seq }) => seq)).toEqual([1]);
  });

  test('a schema of a newer version is refused, and of another program too', async () => {
    const { url, schema } = await freshSchema();
    const store = await openAt(url, schema);
    await store.close();
    const [table] = await query<{ name: string }>(
      `SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) AS name FROM information_schema.columns WHERE table_schema = $1 AND column_name = 'version'`,
      [schema],
    );
    await query(`UPDATE ${table!.name} SET version = 9999 WHERE version = (SELECT max(version) FROM ${table!.name})`);
    const error = await rejection(openSessionStore({ connectionString: url, schema }));
    expect(error).toMatchObject({ name: 'SchemaTooNewError', hfCode: 'HF_FORMAT_TOO_NEW', found: 9999, expected: 1 });
  });

  test('a schema with tables of somebody else: an error that names the step, and nothing is made', async () => {
    const { url, schema } = await freshSchema();
    await query(`CREATE TABLE ${schema}.sessions (id text)`);
    const error = await rejection(openSessionStore({ connectionString: url, schema }));
    expect(error).toBeInstanceOf(MigrationError);
    expect(error).toMatchObject({ code: 'HF_MIGRATION_FAILED', schema, found: 0, expected: 1, step: '0001 sessions', sqlState: '42P07' });
    expect(await query('SELECT table_name::text FROM information_schema.tables WHERE table_schema = $1', [schema])).toEqual([{ table_name: 'sessions' }]);
  });
});
