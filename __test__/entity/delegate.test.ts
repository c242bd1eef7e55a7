// The delegate against a real server: the application's own table, in its own schema, through its own drizzle object.
import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { createChangeEmitter, createEntityRegistry, createEntityStore, createRunSecretRegistry, getEntityFailure, type EntityChanged, type EntityStore } from 'holdfast';
import { connect, createServer, type AddressInfo } from 'node:net';
import { Client, Pool } from 'pg';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import * as z from 'zod';

import { createDelegate, type Delegate } from '../../src-js/entity/delegate-store';
import type { DrizzleDatabase } from '../../src-js/entity/drizzle-target';
import { TransitionSql } from '../../src-js/entity/transition-sql';
import { freshSchema, query, restartablePostgres, type FreshSchema } from '../support/postgres';

/** The table of the original's integration test: seven columns, no index. */
const SEVEN = `CREATE TABLE entity_transitions (id text PRIMARY KEY, kind text NOT NULL, entity_id text NOT NULL, field text NOT NULL,
  from_value text, to_value text NOT NULL, transitioned_at timestamp NOT NULL DEFAULT now())`;
const KEY = { kind: 'incident', entityId: '7', field: 'status' };
const logger = () => ({ debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() });

const pools: Pool[] = [];
afterEach(async () => {
  for (const pool of pools.splice(0)) if (!pool.ending) await pool.end();
});

function poolOf(config: ConstructorParameters<typeof Pool>[0]): Pool {
  const pool = new Pool(config);
  pool.on('error', () => {});
  pools.push(pool);
  return pool;
}

/** drizzle's own types say more than is looked at. */
const asDatabase = (db: unknown): DrizzleDatabase => db as DrizzleDatabase;

async function setUp(table: string | null = SEVEN): Promise<{ place: FreshSchema; pool: Pool; store: Delegate }> {
  const place = await freshSchema();
  if (table !== null) await query(table, [], place.url);
  const pool = poolOf({ connectionString: place.url });
  return { place, pool, store: createDelegate(asDatabase(drizzle({ client: pool }))) };
}

/** Appends one row per [field, from, to]. */
function append(store: Pick<Delegate, 'runInTransaction' | 'appendTransitions'>, ...rows: [string, string | null, string][]): Promise<void> {
  const transitions = rows.map(([field, fromValue, toValue]) => ({ field, fromValue, toValue }));
  return store.runInTransaction((tx) => store.appendTransitions({ tx, kind: 'incident', entityId: '7', transitions }));
}

const rowsIn = (place: FreshSchema) => query<Record<string, unknown>>('SELECT * FROM entity_transitions ORDER BY transitioned_at, id', [], place.url);

describe('appending', () => {
  test('writes one row per field, with ids of one change and one time', async () => {
    const { place, store } = await setUp();
    await append(store, ['note', 'null', 'fixed'], ['status', 'open', 'resolved'], ['who', null, 'x']);
    const rows = await rowsIn(place);
    expect(rows.map(({ field, from_value, to_value }) => [field, from_value, to_value])).toEqual([
      ['note', 'null', 'fixed'],
      ['status', 'open', 'resolved'],
      ['who', null, 'x'],
    ]);
    const changeId = (rows[0]!.id as string).slice(0, -2);
    expect(changeId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-/);
    expect(rows.map(({ id }) => id)).toEqual([`${changeId}.0`, `${changeId}.1`, `${changeId}.2`]);
    expect(new Set(rows.map(({ transitioned_at }) => (transitioned_at as Date).getTime())).size).toBe(1);
    expect(store.counts).toEqual({ appended: 3, batches: 1 });
  });

  test('a second append of one change adds nothing, with and without a unique id', async () => {
    for (const table of [SEVEN, SEVEN.replace('PRIMARY KEY', '')]) {
      const { place, store } = await setUp(table);
      const args = { kind: 'k', entityId: 'e', changeId: 'c-1', transitions: [{ field: 'f', fromValue: null, toValue: 'a' }] };
      for (const _ of [1, 2]) await store.runInTransaction((tx) => store.appendTransitions({ tx, ...args }));
      expect((await rowsIn(place)).map(({ id }) => id)).toEqual(['c-1.0']);
    }
  });

  test('is undone when the transaction rejects, and the error is the same object', async () => {
    const { place, store } = await setUp();
    const error = new Error('no');
    const run = store.runInTransaction(async (tx) => {
      await store.appendTransitions({ tx, kind: 'k', entityId: 'e', transitions: [{ field: 'f', fromValue: null, toValue: 'a' }] });
      throw error;
    });
    await expect(run).rejects.toBe(error);
    expect(await rowsIn(place)).toEqual([]);
  });

  test('takes 20,000 fields, U+0000 and lone surrogates, and finds them again', async () => {
    const { place, store } = await setUp();
    const transitions = Array.from({ length: 20_000 }, (_, n) => ({ field: `f${n}`, fromValue: null, toValue: `${n}` }));
    transitions.push({ field: 'nul', fromValue: null, toValue: 'a\0b' }, { field: 'lone', fromValue: null, toValue: '\ud800' });
    await store.runInTransaction((tx) => store.appendTransitions({ tx, kind: 'k', entityId: 'e\0', transitions }));
    expect(await query('SELECT count(*)::int AS n FROM entity_transitions', [], place.url)).toEqual([{ n: 20_002 }]);
    const since = (field: string, currentValue: unknown) => store.inStateSince({ kind: 'k', entityId: 'e\0', field, currentValue });
    expect(await since('nul', 'a\0b')).toBeInstanceOf(Date);
    expect(await since('lone', '\ud800')).toBeInstanceOf(Date);
    expect(await since('nul', 'ab')).toBeNull();
    const [row] = await query<{ v: string }>(`SELECT to_value AS v FROM entity_transitions WHERE field = 'nul'`, [], place.url);
    expect(row!.v).toBe('a\ufffdb');
  });

  test('says what the driver said, but no value of a row', async () => {
    const { store } = await setUp(SEVEN.replace('to_value text NOT NULL', `to_value text NOT NULL CHECK (to_value <> 'hush-hush')`));
    const error = await append(store, ['status', null, 'hush-hush']).catch((thrown: unknown) => thrown as Error & Record<string, unknown>);
    expect(error).toMatchObject({ code: 'HF_ENTITY_APPEND_FAILED', hfCode: 'HF_ENTITY_APPEND_FAILED', cause: { code: '23514' } });
    expect((error as Error).message).toMatch(/violates check constraint/);
    const { inspect } = await import('node:util');
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('hush-hush');
  });
});

describe('the table that the application owns', () => {
  test('a missing one rejects, and is found when it is there', async () => {
    const { place, store } = await setUp(null);
    for (const _ of [1, 2]) {
      await expect(append(store, ['status', null, 'open'])).rejects.toMatchObject({
        message: 'relation "entity_transitions" does not exist',
        code: 'HF_ENTITY_TABLE_MISSING',
        cause: { code: '42P01' },
      });
    }
    await query(SEVEN, [], place.url);
    await append(store, ['status', null, 'open']);
    expect(await rowsIn(place)).toHaveLength(1);
    await query('DROP TABLE entity_transitions', [], place.url);
    await expect(store.inStateSince({ ...KEY, currentValue: 'open' })).rejects.toMatchObject({ hfCode: 'HF_ENTITY_TABLE_MISSING' });
    await query(SEVEN.replace('timestamp', 'timestamptz'), [], place.url);
    await append(store, ['status', null, 'open']);
    expect(await store.inStateSince({ ...KEY, currentValue: 'open' })).toBeInstanceOf(Date);
  });

  test('one without a column that is needed is named', async () => {
    const { store } = await setUp(SEVEN.replace('from_value text,', ''));
    await expect(store.ready()).rejects.toMatchObject({ hfCode: 'HF_ENTITY_TABLE_MISSING', message: expect.stringContaining('"from_value"') });
  });

  test('uuid ids, varchar columns, a precision and further columns are used as they are', async () => {
    const { place, store } = await setUp(`CREATE TABLE entity_transitions (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), kind varchar(40) NOT NULL,
      entity_id varchar(40) NOT NULL, field text NOT NULL, from_value text, to_value text NOT NULL, transitioned_at timestamptz(3) NOT NULL,
      change_id text, masked boolean NOT NULL DEFAULT false, extra int)`);
    const args = { kind: 'incident', entityId: '7', changeId: 'c-1', transitions: [{ field: 'status', fromValue: null, toValue: '****', masked: true }] };
    for (const _ of [1, 2]) await store.runInTransaction((tx) => store.appendTransitions({ tx, ...args }));
    expect(await rowsIn(place)).toMatchObject([{ change_id: 'c-1', masked: true, to_value: '****', extra: null }]);
    // The newest row is masked: since when it is so, is since when the value is what it is.
    expect(await store.inStateSince({ ...KEY, currentValue: 'the secret' })).toBeInstanceOf(Date);
    expect(await store.inStateSince({ ...KEY, currentValue: { a: 'secret' } })).toBeInstanceOf(Date);
    expect((await store.history({ kind: 'incident', entityId: '7' })).rows).toMatchObject([{ masked: true, changeId: 'c-1' }]);
  });

  test('an index on md5(to_value) is used, and nothing is found by it that is not there', async () => {
    const { place, store } = await setUp();
    await query('CREATE INDEX ON entity_transitions (kind, entity_id, field, md5(to_value), transitioned_at)', [], place.url);
    const facts = await store.ready();
    expect(facts.md5Index).toBe(true);
    await append(store, ['status', null, 'open']);
    expect(await store.inStateSince({ ...KEY, currentValue: 'open' })).toBeInstanceOf(Date);
    expect(await store.inStateSince({ ...KEY, currentValue: 'closed' })).toBeNull();
    for (const texts of [['open'], ['open', 'done']]) {
      const [text, values] = new TransitionSql({ ...facts, schema: place.schema }).since(KEY, texts);
      const literals = values.map((value) => (Array.isArray(value) ? `'{${value.join(',')}}'` : `'${String(value)}'`));
      const explained = `EXPLAIN (FORMAT JSON) ${text.replaceAll(/\$(\d)/g, (_, n: string) => literals[Number(n) - 1]!)}`;
      const [plan] = await query(explained, undefined, `${place.url}%20-c%20enable_seqscan%3Doff`);
      expect(JSON.stringify(plan)).toMatch(/"Index Cond":[^}]*md5\(/);
    }
  });
});

describe('asking', () => {
  const at = (place: FreshSchema, ...rows: [string, string | null, string, string][]) =>
    query(
      rows.map(([id, from, to, when]) => `INSERT INTO entity_transitions VALUES ('${id}', 'incident', '7', 'status', ${from === null ? 'NULL' : `'${from}'`}, '${to}', '${when}')`).join(';'),
      undefined,
      place.url,
    );

  test.each(['UTC', 'America/New_York', 'Asia/Tokyo'])('a session in %s does not shift a zone-less column', async (zone) => {
    const place = await freshSchema();
    await query(SEVEN, [], place.url);
    const pool = poolOf({ connectionString: place.url.replace('search_path', `TimeZone%3D${zone}%20-c%20search_path`) });
    const store = createDelegate(asDatabase(drizzle({ client: pool })));
    expect((await pool.query('SHOW TimeZone')).rows).toEqual([{ TimeZone: zone }]);
    const before = Date.now();
    await append(store, ['status', null, 'open']);
    const since = await store.inStateSince({ ...KEY, currentValue: 'open' });
    expect(Math.abs(since!.getTime() - before)).toBeLessThan(2_000);
    expect(await store.transitionCount({ ...KEY, windowMs: 60_000, now: new Date() })).toBe(1);
    expect((await store.history({ kind: 'incident', entityId: '7' })).rows[0]!.at.getTime()).toBe(since!.getTime());
    expect(await query(`SELECT abs(extract(epoch FROM transitioned_at - now() AT TIME ZONE 'UTC')) < 5 AS utc FROM entity_transitions`, [], place.url)).toEqual([{ utc: true }]);
  });

  test.each(['timestamp', 'timestamptz'])('inStateSince is the latest entry into the value, in whole milliseconds (%s)', async (type) => {
    const { place, store } = await setUp(SEVEN.replace('timestamp ', `${type} `));
    await at(place, ['1', null, 'open', '2026-01-01T00:00:00Z'], ['2', 'open', 'done', '2026-01-01T01:00:00Z'], ['3', 'done', 'open', '2026-01-01T02:00:00.123999Z'], ['4', 'open', 'done', '2026-01-01T03:00:00Z']);
    const since = async (currentValue: unknown) => (await store.inStateSince({ ...KEY, currentValue }))?.toISOString() ?? null;
    expect(await since('open')).toBe('2026-01-01T02:00:00.123Z');
    expect(await since('done')).toBe('2026-01-01T03:00:00.000Z');
    expect(await since('never')).toBeNull();
    expect(await since(undefined)).toBeNull();
  });

  test('an object is found whatever the order of its keys, by its latest entry', async () => {
    const { place, store } = await setUp();
    await at(place, ['1', null, '{"b":[1],"a":1}', '2026-01-01T00:00:00Z'], ['2', 'x', '{"a":1,"b":[1]}', '2026-01-01T01:00:00Z'], ['3', 'x', '[1,2]', '2026-01-01T02:00:00Z']);
    const since = async (currentValue: unknown) => (await store.inStateSince({ ...KEY, currentValue }))?.toISOString() ?? null;
    expect(await since({ b: [1], a: 1 })).toBe('2026-01-01T01:00:00.000Z');
    expect(await since([1, 2])).toBe('2026-01-01T02:00:00.000Z');
    expect(await since([2, 1])).toBeNull();
    await query(`INSERT INTO entity_transitions SELECT 'n' || n, 'incident', '7', 'status', 'x', n::text, '2026-02-01' FROM generate_series(1, 2000) n`, [], place.url);
    expect(await since({ b: [1], a: 1 })).toBe('2026-01-01T00:00:00.000Z'); // too far back to compare: by its text
  });

  test('transitionCount counts from an inclusive bound, and everything without one', async () => {
    const { place, store } = await setUp();
    const now = new Date('2026-01-01T01:00:00Z');
    await at(place, ['1', null, 'a', '2026-01-01T00:00:00Z'], ['2', 'a', 'b', '2026-01-01T00:59:30Z'], ['3', 'b', 'c', '2026-01-01T09:00:00Z']);
    const count = (windowMs: number) => store.transitionCount({ ...KEY, windowMs, now });
    expect(await count(3_600_000)).toBe(3);
    expect(await count(3_599_999)).toBe(2);
    expect(await count(0)).toBe(1);
    expect(await count(Number.POSITIVE_INFINITY)).toBe(3);
    expect(await count(1e17)).toBe(3);
    expect(await count(Number.NEGATIVE_INFINITY)).toBe(0);
    const error = await count(Number.NaN).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RangeError);
    expect(error).toMatchObject({ message: 'transitionCount: windowMs must be a number', code: 'HF_ENTITY_WINDOW_INVALID' });
    expect(await store.isFlapping({ ...KEY, count: 1, windowMs: 1e17 })).toBe(true);
    expect(await store.isFlapping({ ...KEY, count: 4, windowMs: 1e17 })).toBe(false);
  });

  test.each(['timestamp', 'timestamptz'])('history comes newest first, page by page, without holes or repeats (%s)', async (type) => {
    const { place, store } = await setUp(SEVEN.replace('timestamp ', `${type} `));
    // Ten times with five rows each: pages end in the middle of equal times.
    await query(`INSERT INTO entity_transitions SELECT 'id' || lpad(n::text, 3, '0'), 'incident', '7', 'f' || n % 2, NULL, n::text,
      timestamp '2026-01-01' + n / 5 * interval '1.000001 s' FROM generate_series(0, 49) n`, [], place.url);
    const all: string[] = [];
    for (let cursor: string | undefined; ; ) {
      const page = await store.history({ kind: 'incident', entityId: '7', limit: 7, cursor });
      all.push(...page.rows.map((row) => row.toValue));
      if (page.cursor === null) break;
      cursor = page.cursor;
    }
    expect(all).toEqual(Array.from({ length: 50 }, (_, n) => String(49 - n)));
    const from = new Date('2026-01-01T00:00:02Z');
    const to = new Date('2026-01-01T00:00:04Z');
    const part = await store.history({ kind: 'incident', entityId: '7', field: 'f1', from, to });
    expect(part.rows.map((row) => row.toValue)).toEqual(['19', '17', '15', '13', '11']);
    expect(part.rows[0]).toMatchObject({ id: 'id019', field: 'f1', fromValue: null, masked: false, changeId: null, at: new Date('2026-01-01T00:00:03.000Z') });
    await expect(store.history({ kind: 'incident', entityId: '7', cursor: 'nonsense' })).rejects.toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
    await expect(store.history({ kind: 'incident', entityId: '7', limit: 0 })).rejects.toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
    await expect(store.history({ kind: 'incident', entityId: '7', from: new Date('x') })).rejects.toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
  });

  test('timeInState adds up what a field was, also before its first row', async () => {
    const { place, store } = await setUp();
    await at(place, ['1', 'new', 'open', '2026-01-01T01:00:00Z'], ['2', 'open', 'done', '2026-01-01T02:00:00Z'], ['3', 'done', 'open', '2026-01-01T05:00:00Z']);
    const hours = async (from: string, to: string) =>
      (await store.timeInState({ ...KEY, from: new Date(`2026-01-01T${from}Z`), to: new Date(`2026-01-01T${to}Z`) })).map(({ value, ms }) => [value, ms / 3_600_000]);
    expect(await hours('00:00', '06:00')).toEqual([['done', 3], ['open', 2], ['new', 1]]);
    expect(await hours('03:00', '04:00')).toEqual([['done', 1]]);
    expect(await hours('00:00', '00:30')).toEqual([['new', 0.5]]);
    expect(await hours('04:00', '03:00')).toEqual([]);
    expect(await store.timeInState({ kind: 'incident', entityId: 'none', field: 'status', from: new Date(0) })).toEqual([]);
  });

  test('prune deletes by age and by number, and never the newest row of a field', async () => {
    const place = await freshSchema();
    await query(SEVEN, [], place.url);
    await query(`INSERT INTO entity_transitions SELECT f || n, 'incident', '7', f, NULL, n::text, timestamp '2026-01-01' + n * interval '1 min'
      FROM generate_series(1, 1500) n, (VALUES ('a'), ('b')) AS f(f)`, [], place.url);
    await query(`INSERT INTO entity_transitions VALUES ('old', 'incident', '8', 'a', NULL, 'only', '2020-01-01')`, [], place.url);
    const pool = poolOf({ connectionString: place.url });
    const db = asDatabase(drizzle({ client: pool }));
    const keep = createDelegate(db);
    expect(await keep.prune()).toEqual({ deleted: 0 });
    const byNumber = createDelegate(db, { retention: { maxRowsPerField: 100 } });
    expect(await byNumber.prune()).toEqual({ deleted: 2800 });
    const byAge = createDelegate(db, { retention: { maxAgeMs: 1000 } });
    expect(await byAge.prune(new Date('2030-01-01'))).toEqual({ deleted: 198 });
    expect((await rowsIn(place)).map(({ id }) => id).sort()).toEqual(['a1500', 'b1500', 'old']);
  });
});

describe('whose connections they are', () => {
  test('a wrapper whose transactions alone set search_path decides the schema', async () => {
    const own = await freshSchema();
    const pooled = await freshSchema();
    for (const place of [own, pooled]) await query(SEVEN, [], place.url);
    const db = drizzle({ client: poolOf({ connectionString: pooled.url }) });
    const wrapped = {
      execute: db.execute.bind(db),
      $client: db.$client,
      transaction: <R>(work: (tx: unknown) => Promise<R>) =>
        db.transaction(async (tx) => {
          await tx.execute(sql.raw(`SET LOCAL search_path = ${own.schema}`));
          return work(tx);
        }),
    };
    const warnings = logger();
    const store = createDelegate(asDatabase(wrapped), { logger: warnings, reason: 'it is another table' });
    expect(warnings.warn).not.toHaveBeenCalled();
    await append(store, ['status', null, 'open']);
    expect(await store.inStateSince({ ...KEY, currentValue: 'open' })).toBeInstanceOf(Date);
    expect(await rowsIn(own)).toHaveLength(1);
    expect(await rowsIn(pooled)).toHaveLength(0);
    expect(warnings.warn.mock.calls).toEqual([[expect.stringContaining('because it is another table')]]);
  });

  test('an ended pool is said to be ended', async () => {
    const { pool, store, place } = await setUp();
    await append(store, ['status', null, 'open']);
    await pool.end();
    const expected = { message: 'Cannot use a pool after calling end on the pool', hfCode: 'HF_CLOSED' };
    await expect(append(store, ['status', 'open', 'done'])).rejects.toMatchObject(expected);
    await expect(store.inStateSince({ ...KEY, currentValue: 'open' })).rejects.toMatchObject(expected);
    // Nothing of the store holds a lock on the schema.
    await query('SET lock_timeout = 1000; DROP SCHEMA ' + place.schema + ' CASCADE');
  });

  test('transactions on a single client do not run into each other', async () => {
    const place = await freshSchema();
    await query(SEVEN, [], place.url);
    const client = new Client({ connectionString: place.url });
    await client.connect();
    onTestFinished(() => client.end());
    const store = createDelegate(asDatabase(drizzle({ client })));
    const failing = store.runInTransaction(async (tx) => {
      await store.appendTransitions({ tx, kind: 'k', entityId: 'bad', transitions: [{ field: 'f', fromValue: null, toValue: 'x' }] });
      await new Promise((resolve) => setTimeout(resolve, 30));
      expect(await store.transitionCount({ kind: 'k', entityId: 'bad', field: 'f', windowMs: 1e12, now: new Date() })).toBe(1);
      throw new Error('undone');
    });
    const good = Array.from({ length: 10 }, (_, n) => append(store, ['status', null, String(n)]));
    await expect(failing).rejects.toThrow('undone');
    await Promise.all(good);
    expect((await rowsIn(place)).map(({ entity_id, to_value }) => [entity_id, to_value])).toEqual(Array.from({ length: 10 }, (_, n) => ['7', String(n)]));
  });

  test('a server that is killed fails what is under way with the true error, and serves again afterwards', async () => {
    const server = await restartablePostgres();
    await query(SEVEN, [], server.url);
    const store = createDelegate(asDatabase(drizzle({ client: poolOf({ connectionString: server.url }) })));
    await append(store, ['status', null, 'open']);
    const cut = store.runInTransaction(async (tx) => {
      await server.kill();
      await store.appendTransitions({ tx, kind: 'k', entityId: 'e', transitions: [{ field: 'f', fromValue: null, toValue: 'x' }] });
    });
    await expect(cut).rejects.toMatchObject({ hfCode: 'HF_ENTITY_APPEND_FAILED', message: expect.stringMatching(/connection|terminat|not queryable|ECONNRESET|EPIPE/i) });
    await server.start();
    await append(store, ['status', 'open', 'done']);
    expect(await query('SELECT count(*)::int AS n FROM entity_transitions', [], server.url)).toEqual([{ n: 2 }]);
  });
});

describe("inside the caller's transaction", () => {
  test('state and history are committed together, or not at all, with drizzle and with a pg client', async () => {
    const { place, pool, store } = await setUp();
    await query('CREATE TABLE incidents (id text PRIMARY KEY, status text)', [], place.url);
    const db = drizzle({ client: pool });
    const write = async (id: string, fail: boolean): Promise<void> => {
      await db.transaction(async (tx) => {
        await tx.execute(sql`INSERT INTO incidents VALUES (${id}, 'open')`);
        const inside = store.withTransaction(tx);
        await append(inside, ['status', null, id]);
        expect(await inside.inStateSince({ ...KEY, currentValue: id })).toBeInstanceOf(Date);
        if (fail) throw new Error('owner');
      });
    };
    await write('kept', false);
    await expect(write('lost', true)).rejects.toThrow('owner');
    const client = await pool.connect();
    await client.query('BEGIN');
    await append(store.withTransaction(client), ['status', null, 'rolled back']);
    await client.query('ROLLBACK');
    await client.query('BEGIN');
    await append(store.withTransaction(client), ['status', null, 'by pg']);
    await client.query('COMMIT');
    client.release();
    expect(await query('SELECT id FROM incidents', [], place.url)).toEqual([{ id: 'kept' }]);
    expect((await rowsIn(place)).map(({ to_value }) => to_value)).toEqual(['kept', 'by pg']);
    for (const wrong of [db, pool, null, 7, {}]) expect(() => store.withTransaction(wrong)).toThrow(TypeError);
  });

  test('works with a pool of one connection, which the transaction holds', async () => {
    const place = await freshSchema();
    await query(SEVEN, [], place.url);
    const db = drizzle({ client: poolOf({ connectionString: place.url, max: 1 }) });
    const store = createDelegate(asDatabase(db));
    await db.transaction((tx) => append(store.withTransaction(tx), ['status', null, 'open']));
    expect(await rowsIn(place)).toHaveLength(1);
  });
});

describe('under a handle', () => {
  /** A way to the server that can lose the answer of a COMMIT: the server has done it, the client never hears. */
  async function lossyWay(url: string): Promise<{ url: string; loseNextCommit(): void; lost(): number }> {
    const target = new URL(url);
    let [armed, lost] = [false, 0];
    const server = createServer((socket) => {
      const up = connect(Number(target.port || 5432), target.hostname);
      let isLost = false;
      for (const one of [socket, up]) one.on('error', () => {});
      socket.on('data', (data) => {
        if (armed && data.includes('commit')) {
          [armed, isLost] = [false, true];
          lost += 1;
        }
        up.write(data);
      });
      up.on('data', (data) => {
        if (!isLost) return void socket.write(data);
        socket.destroy();
        up.destroy();
      });
      socket.on('close', () => up.destroy());
      up.on('close', () => socket.destroy());
    });
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
    onTestFinished(() => new Promise<void>((closed) => void server.close(() => closed())));
    const way = new URL(url);
    way.hostname = '127.0.0.1';
    way.port = String((server.address() as AddressInfo).port);
    return { url: way.href, loseNextCommit: () => void (armed = true), lost: () => lost };
  }

  function world(store: EntityStore) {
    const events: EntityChanged[] = [];
    const emitter = createChangeEmitter();
    void emitter.wire(async (event) => void events.push(event));
    const secretRegistry = createRunSecretRegistry();
    const registry = createEntityRegistry({ secretRegistry, emitter });
    registry.setStore({ store });
    const states = new Map<string, { status: string; note: string }>();
    const handle = registry.defineEntity<{ status: string; note: string }>({
      kind: 'incident',
      state: z.object({ status: z.string(), note: z.string() }),
      read: async (ids) => Object.fromEntries(ids.flatMap((id) => (states.has(id) ? [[id, states.get(id)!]] : []))),
    });
    const set = (status: string, note: string, runId?: string) =>
      handle.mutate({ id: '7', opts: { runId }, apply: async () => (states.set('7', { status, note }), { status, note }) });
    return { events, handle, set, secretRegistry };
  }

  test.each([
    ['is unique', SEVEN],
    ['is not', SEVEN.replace('PRIMARY KEY', '')],
  ])('the answer of COMMIT is lost: the next try adds nothing, where the id %s', async (_, table) => {
    const place = await freshSchema();
    await query(table, [], place.url);
    const way = await lossyWay(place.url);
    const store = createEntityStore(drizzle(poolOf({ connectionString: way.url })), { driver: 'delegate' });
    onTestFinished(() => store.close());
    const { events, set } = world(store);
    await store.ready();
    way.loseNextCommit();
    const error = await set('open', 'a').then(
      () => expect.unreachable(),
      (thrown: unknown) => thrown,
    );
    expect(way.lost()).toBe(1);
    expect(getEntityFailure(error)).toMatchObject({ stage: 'append', applied: true, pending: true });
    // It was committed all the same.
    const first = await rowsIn(place);
    expect(first).toHaveLength(2);
    await set('done', 'a');
    await vi.waitFor(() => expect(events).toHaveLength(2));
    const rows = await rowsIn(place);
    expect(rows.map(({ field, from_value, to_value }) => [field, from_value, to_value])).toEqual([
      ['note', null, 'a'],
      ['status', null, 'open'],
      ['status', 'open', 'done'],
    ]);
    expect(rows.slice(0, 2)).toEqual(first);
    // A row belongs to the change that subscribers hear of.
    expect(rows.map(({ id }) => id)).toEqual([`${events[0]!.changeId}.0`, `${events[0]!.changeId}.1`, `${events[1]!.changeId}.0`]);
  });

  test('a masked value is known for one where the table has a column for that', async () => {
    const { place, pool } = await setUp(SEVEN.replace('now())', 'now(), masked boolean, change_id text)'));
    const store = createEntityStore(drizzle(pool), { driver: 'delegate' });
    onTestFinished(() => store.close());
    const { events, handle, set, secretRegistry } = world(store);
    secretRegistry.register('run', ['s3cr3t']);
    await set('s3cr3t', 'plain', 'run');
    expect(await query('SELECT field, to_value, masked, change_id FROM entity_transitions ORDER BY field', [], place.url)).toEqual([
      { field: 'note', to_value: 'plain', masked: false, change_id: events[0]!.changeId },
      { field: 'status', to_value: '****', masked: true, change_id: events[0]!.changeId },
    ]);
    expect(await handle.inStateSince('7', 'status')).toBeInstanceOf(Date);
  });

  test('a value without a text is said to be one, before and after, once in a change', async () => {
    const { store } = await setUp();
    const log = logger();
    const loop: Record<string, unknown> = { status: 'open' };
    loop.self = loop;
    const registry = createEntityRegistry({ secretRegistry: createRunSecretRegistry(), emitter: createChangeEmitter(), logger: log });
    registry.setStore({ store });
    const states = new Map<string, Record<string, unknown>>([['7', { status: 'open', loop }]]);
    const handle = registry.defineEntity<Record<string, unknown>>({
      kind: 'incident',
      state: z.looseObject({}),
      read: async () => Object.fromEntries(states),
    });
    await handle.mutate({ id: '7', apply: async () => ({ status: 'done', loop }) });
    await handle.mutate({ id: '7', apply: async () => ({ status: 'done', loop: 'none' }) });
    await handle.mutate({ id: '8', apply: async () => ({ loop }) });
    const said = 'the field "loop" contains itself, so it is recorded as [unserializable]';
    expect(log.warn.mock.calls).toEqual([[said], [said], [said]]);
  });

  test('a store of the program gets what it always got', async () => {
    const { store } = await setUp();
    const spy = vi.fn(store.appendTransitions);
    const { set } = world({ ...store, appendTransitions: spy });
    await set('open', 'a');
    const transitions = [
      { field: 'note', fromValue: null, toValue: 'a' },
      { field: 'status', fromValue: null, toValue: 'open' },
    ];
    expect(spy.mock.calls).toStrictEqual([[{ tx: expect.anything(), kind: 'incident', entityId: '7', transitions }]]);
  });
});
