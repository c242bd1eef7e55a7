// @pool forks: what counts happens in processes of its own.
// Many pods over one Postgres, as their programs make them: drizzle over a pool each, and holdfast's own store (A1, A2, A3, A23, A38,
// A40, W5).
import { createChangeEmitter, createEntityRegistry, createEntityStore, createRunSecretRegistry, getEntityFailure, type EntityChanged, type EntityStoreOptions, type NativeEntityStore } from 'holdfast';
import { sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { Pool } from 'pg';
import { afterEach, describe, expect, test } from 'vitest';
import * as z from 'zod';

import { freshSchema, postgresUrl, query, type FreshSchema } from '../support/postgres';
import { rowsOf } from './every-store';
import { closeAfterTest, logBook, rejection, start, until, type State } from './support';

/** The table of the original's integration test: seven columns, no index. */
const SEVEN = `CREATE TABLE entity_transitions (id text PRIMARY KEY NOT NULL, kind text NOT NULL, entity_id text NOT NULL, field text NOT NULL,
  from_value text, to_value text NOT NULL, transitioned_at timestamp DEFAULT now() NOT NULL)`;

const pools: Pool[] = [];
afterEach(async () => {
  for (const pool of pools.splice(0)) if (!pool.ending) await pool.end();
});

async function sharedSchema(): Promise<FreshSchema> {
  const place = await freshSchema();
  await query(`${SEVEN}; CREATE TABLE incidents (id text PRIMARY KEY, state jsonb NOT NULL)`, undefined, place.url);
  return place;
}

/** How a pod reaches the history. */
type Way = (pool: Pool, place: FreshSchema) => NativeEntityStore;
const WAYS: { name: string; way: Way }[] = [
  ...(['auto', 'native', 'delegate'] as const).map((driver) => ({ name: `drizzle, driver ${driver}`, way: (pool: Pool) => createEntityStore(drizzle(pool), { driver }) })),
  { name: 'a connection string', way: (_, place) => createEntityStore({ connectionString: place.url, schema: place.schema }) },
];

/** A registry, a store and a pool of its own; `incident` lives in the shared table, `local` in a Map of the pod. */
function podOf(place: FreshSchema, way: Way, options: { zone?: string } = {}) {
  const pool = new Pool({ connectionString: postgresUrl(), options: `-c search_path=${place.schema}${options.zone ? ` -c TimeZone=${options.zone}` : ''}`, max: 4 });
  pools.push(pool);
  const events: EntityChanged[] = [];
  const { lines, logger } = logBook();
  const emitter = createChangeEmitter();
  void emitter.wire(async (event) => void events.push(event));
  const registry = createEntityRegistry({ emitter, secretRegistry: createRunSecretRegistry(), logger });
  const store = closeAfterTest(way(pool, place));
  registry.setStore({ store });
  const incident = registry.defineEntity<State>({
    kind: 'incident',
    state: z.looseObject({ status: z.string() }) as never,
    read: async (ids) => {
      const { rows } = await pool.query<{ id: string; state: State }>('SELECT id, state FROM incidents WHERE id = ANY($1)', [ids]);
      return Object.fromEntries(rows.map(({ id, state }) => [id, state]));
    },
  });
  const map = new Map<string, State>();
  const local = registry.defineEntity<State>({ kind: 'local', state: z.looseObject({}), read: async (ids) => Object.fromEntries(ids.flatMap((id) => (map.has(id) ? [[id, map.get(id)!]] : []))) });
  const set = (id: string, state: State) =>
    incident.mutate({
      id,
      apply: async () => {
        await pool.query('INSERT INTO incidents VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET state = $2', [id, state]);
        return state;
      },
    });
  const setLocal = (id: string, state: State) => local.mutate({ id, apply: async () => (map.set(id, state), state) });
  return { pool, store, events, lines, incident, local, set, setLocal };
}

describe.each(WAYS)('two pods over $name', ({ way }) => {
  test('A1: what one pod writes, both read, and both know its history', async () => {
    const place = await sharedSchema();
    const [a, b] = [podOf(place, way), podOf(place, way)];
    await a.set('7', { status: 'open' });
    for (const pod of [a, b]) expect(await pod.incident.get('7')).toEqual({ status: 'open' });
    expect(await b.incident.getMany(['7', '8'])).toEqual({ 7: { status: 'open' } });
    await a.set('7', { status: 'resolved' });
    expect(await b.incident.get('7')).toEqual({ status: 'resolved' });
    for (const pod of [a, b]) {
      expect(await pod.incident.transitionCount({ id: '7', field: 'status', windowMs: 60_000 })).toBe(2);
      expect(await pod.incident.inStateForMs('7', 'status')).toBeLessThan(20_000);
    }
    expect(await b.incident.inStateSince('7', 'status')).toEqual(await a.incident.inStateSince('7', 'status'));
    // A pod goes on where the other one left off.
    await b.set('7', { status: 'open' });
    expect(b.events.map(({ prev, next }) => [prev, next])).toEqual([[{ status: 'resolved' }, { status: 'open' }]]);
    expect((await rowsOf(b.store, '7', 'incident')).map(({ fromValue, toValue }) => [fromValue, toValue])).toEqual([[null, 'open'], ['open', 'resolved'], ['resolved', 'open']]);
    expect([...a.lines, ...b.lines]).toEqual([]);
  });

  test('A2: a kind that lives in one pod is not seen by the other, though a durable one is', async () => {
    const place = await sharedSchema();
    const [a, b] = [podOf(place, way), podOf(place, way)];
    await a.setLocal('x', { status: 'open' });
    await a.set('7', { status: 'open' });
    expect(await a.local.get('x')).toEqual({ status: 'open' });
    expect(await b.local.get('x')).toBeUndefined();
    expect(await b.local.getMany(['x'])).toEqual({});
    expect(await b.local.inStateSince('x', 'status')).toBeNull();
    expect(await b.incident.get('7')).toEqual({ status: 'open' });
  });

  test('fields whose order the database changes keep their dwell on every pod', async () => {
    const place = await sharedSchema();
    const [a, b] = [podOf(place, way), podOf(place, way)];
    // `jsonb` gives shorter keys first.
    await a.set('7', { status: 'open', where: { region: 'eu', az: [1, { zone: 2, id: 1 }] } });
    expect(JSON.stringify((await b.incident.get('7'))!.where)).not.toBe('{"region":"eu","az":[1,{"zone":2,"id":1}]}');
    const since = await b.incident.inStateSince('7', 'where');
    expect(since).toBeInstanceOf(Date);
    await b.set('7', { status: 'open', where: { az: [1, { id: 1, zone: 2 }], region: 'eu' } });
    expect(b.events).toEqual([]);
  });

  test('W5: pods that write one entity at the same time: no row is lost, none comes twice, each says its own once', async () => {
    const place = await sharedSchema();
    const pods = [podOf(place, way), podOf(place, way), podOf(place, way)];
    const results = await Promise.all(Array.from({ length: 45 }, (_, n) => pods[n % 3]!.set('7', { status: `s${n}` })));
    expect(results.map(({ status }) => status)).toEqual(Array.from({ length: 45 }, (_, n) => `s${n}`));
    const rows = await query<{ id: string; to_value: string }>('SELECT id, to_value FROM entity_transitions', [], place.url);
    expect(rows.map(({ to_value: value }) => value).sort()).toEqual(results.map(({ status }) => status).sort());
    expect(new Set(rows.map(({ id }) => id)).size).toBe(45);
    expect(pods.flatMap(({ events }) => events.map(({ changeId }) => changeId)).length).toBe(45);
    for (const pod of pods) expect(await pod.incident.transitionCount({ id: '7', field: 'status', windowMs: 60_000 })).toBe(45);
  });
});

test.each(['auto', 'delegate'])('A3: both pools ended, the schema dropped at once, and the process ends by itself (driver %s)', async (driver) => {
  const began = Date.now();
  const child = start('pods-child.mjs', postgresUrl(), `hf_pods_${crypto.randomUUID().replaceAll('-', '')}`, driver);
  const { code, err } = await child.ended;
  expect({ code, err, took: Date.now() - began < 15_000 }).toEqual({ code: 0, err: '', took: true });
  expect(child.lines).toEqual(['used 2,2 resolved', expect.stringMatching(/^dropped \d{1,3}$/), 'refused Cannot use a pool after calling end on the pool']);
});

describe.each(['America/New_York', 'Asia/Tokyo'])('A23: sessions in %s over a column without zone', (zone) => {
  test.each(WAYS)('$name: a fresh change is fresh', async ({ name, way }) => {
    const place = await sharedSchema();
    const inZone: Way = name === 'a connection string' ? () => createEntityStore({ connectionString: `${place.url}%20-c%20TimeZone%3D${zone}`, schema: place.schema }, { migrate: 'auto' }) : way;
    const pod = podOf(place, inZone, { zone });
    expect((await pod.pool.query('SHOW TimeZone')).rows).toEqual([{ TimeZone: zone }]);
    await pod.set('7', { status: 'open' });
    const ms = await pod.incident.inStateForMs('7', 'status');
    expect(ms).toBeLessThan(2000);
    expect(await pod.incident.inStateSince('7', 'status')).toBeInstanceOf(Date);
    expect(await pod.incident.transitionCount({ id: '7', field: 'status', windowMs: 60_000 })).toBe(1);
    expect(await pod.incident.transitionCount({ id: '7', field: 'status', windowMs: -60_000 })).toBe(0);
    const stored = await query<{ off: number; type: string }>(
      `SELECT abs(extract(epoch FROM transitioned_at - clock_timestamp() AT TIME ZONE 'UTC'))::float8 AS off, pg_typeof(transitioned_at)::text AS type FROM entity_transitions`,
      [],
      place.url,
    );
    expect(stored).toEqual([{ off: expect.any(Number), type: 'timestamp without time zone' }]);
    expect(stored[0]!.off).toBeLessThan(60);
    // A pod whose sessions are elsewhere reads the same.
    const other = podOf(place, WAYS[0]!.way, { zone: 'UTC' });
    expect(await other.incident.inStateSince('7', 'status')).toEqual(await pod.incident.inStateSince('7', 'status'));
  });
});

test.each(['auto', 'native', 'delegate'] as const)('A38: a drizzle object whose transactions alone set search_path decides where the rows are (driver %s)', async (driver) => {
  const [own, pooled] = [await sharedSchema(), await sharedSchema()];
  const way: Way = (pool) => {
    const db = drizzle(pool);
    const wrapped = {
      $client: db.$client,
      execute: db.execute.bind(db),
      transaction: <R>(work: (tx: unknown) => Promise<R>) =>
        db.transaction(async (tx) => {
          await tx.execute(sql.raw(`SET LOCAL search_path = ${own.schema}`));
          return work(tx);
        }),
    };
    return createEntityStore(wrapped as never, { driver });
  };
  const pod = podOf(pooled, way);
  await pod.set('7', { status: 'open' });
  await pod.set('7', { status: 'done' });
  expect(await pod.incident.transitionCount({ id: '7', field: 'status', windowMs: 60_000 })).toBe(2);
  expect(await pod.incident.inStateSince('7', 'status')).toBeInstanceOf(Date);
  expect((await rowsOf(pod.store, '7', 'incident')).map(({ toValue }) => toValue)).toEqual(['open', 'done']);
  const rows = (place: FreshSchema) => query('SELECT to_value FROM entity_transitions ORDER BY transitioned_at', [], place.url);
  expect([await rows(own), await rows(pooled)]).toEqual([[{ to_value: 'open' }, { to_value: 'done' }], []]);
});

describe('A40: 1,000 concurrent mutations of distinct entities', () => {
  /** Counts transactions by the id of the one that wrote each row. */
  const transactionsOf = async (place: FreshSchema, table = 'entity_transitions'): Promise<number> => {
    const [row] = await query<{ n: number }>(`SELECT count(DISTINCT xmin::text)::int AS n FROM ${place.schema}.${table}`);
    return row!.n;
  };
  const OPTIONS: { name: string; options: EntityStoreOptions | null }[] = [
    { name: 'journal', options: {} },
    { name: 'outbox', options: { durability: 'outbox' } },
    { name: 'after-commit', options: { durability: 'after-commit' } },
    { name: 'drizzle', options: null },
  ];

  const podFor = async (options: EntityStoreOptions | null) => {
    const place = options === null ? await sharedSchema() : await freshSchema();
    const way: Way = (pool) => (options === null ? createEntityStore(drizzle(pool)) : createEntityStore({ connectionString: place.url, schema: place.schema }, options));
    const pod = podOf(place, way);
    await pod.store.ready();
    return { ...pod, place };
  };

  test.each(OPTIONS)('$name: all rows are there, in few transactions', async ({ options }) => {
    const { place, store, events, setLocal } = await podFor(options);
    await Promise.all(Array.from({ length: 1000 }, (_, n) => setLocal(`e${n}`, { status: `s${n}`, n })));
    const rows = await query<{ n: number; of: number }>('SELECT count(*)::int AS n, count(DISTINCT entity_id)::int AS of FROM entity_transitions', [], place.url);
    expect(rows).toEqual([{ n: 2000, of: 1000 }]);
    expect(new Set(events.map(({ changeId }) => changeId)).size).toBe(1000);
    expect(await transactionsOf(place)).toBeLessThan(100);
    expect((await store.stats()).batches).toBeLessThan(200);
  });

  test.each(OPTIONS)('$name: those that fail fail alone', async ({ options }) => {
    const { place, store, local, events, setLocal } = await podFor(options);
    const { batches: before } = await store.stats();
    // What one of them writes is refused by the database: by a rule that concerns no other.
    await query(`ALTER TABLE entity_transitions ADD CONSTRAINT no_poison CHECK (to_value <> 'poison')`, [], place.url);
    const apply = new Error('the owner refuses');
    const outcomes = await Promise.allSettled(
      Array.from({ length: 1000 }, (_, n) => {
        if (n === 500) return local.mutate({ id: 'e500', apply: () => Promise.reject(apply) });
        return setLocal(`e${n}`, { status: n === 700 ? 'poison' : `s${n}`, n });
      }),
    );
    const failed = outcomes.flatMap((outcome, n) => (outcome.status === 'rejected' ? [[n, outcome.reason as Error] as const] : []));
    expect(failed.map(([n]) => n)).toEqual([500, 700]);
    expect(failed[0]![1]).toBe(apply);
    expect(failed[1]![1]).toMatchObject({ hfCode: 'HF_ENTITY_APPEND_FAILED' });
    expect(failed[1]![1].message).not.toContain('s700');
    expect(getEntityFailure(failed[1]![1])).toMatchObject({ stage: 'append', applied: true, pending: true });
    const rows = await query<{ n: number }>(`SELECT count(*)::int AS n FROM entity_transitions`, [], place.url);
    expect(rows).toEqual([{ n: 998 * 2 }]);
    expect(new Set(events.map(({ changeId }) => changeId)).size).toBe(998);
    const { batches } = await store.stats();
    // The batch with the bad one is tried again one by one; the others stay whole.
    expect(await transactionsOf(place)).toBeLessThan(600);
    expect(batches - before).toBeLessThan(700);
    // Once the database takes it, so does the history.
    await query('ALTER TABLE entity_transitions DROP CONSTRAINT no_poison', [], place.url);
    await until(() => events.length === 999, 10_000);
    expect(events.filter(({ id }) => id === 'e700').map(({ next }) => next)).toEqual([{ status: 'poison', n: 700 }]);
  });

  test('four pods at once on one schema: their first use makes the tables once, and nobody loses anything', async () => {
    const place = await freshSchema();
    const pods = Array.from({ length: 4 }, () => podOf(place, WAYS.at(-1)!.way));
    await Promise.all(Array.from({ length: 1000 }, (_, n) => pods[n % 4]!.setLocal(`e${n}`, { n })));
    const [{ n }] = (await query<{ n: number }>(`SELECT count(DISTINCT entity_id)::int AS n FROM ${place.schema}.entity_transitions`)) as [{ n: number }];
    expect(n).toBe(1000);
    expect(await transactionsOf(place)).toBeLessThan(400);
    for (const pod of pods) expect(pod.events).toHaveLength(250);
    await until(async () => (await pods[0]!.store.stats()).pending === 0);
    expect(await pods[0]!.store.stats()).toMatchObject({ pending: 0, gaps: 0, recovered: 0 });
    expect(pods.flatMap(({ lines }) => lines)).toEqual([]);
  });
});

test('a pod that is gone does not keep its neighbours from closing, and none of them from being refused afterwards', async () => {
  const place = await freshSchema();
  const pods = [podOf(place, WAYS.at(-1)!.way), podOf(place, WAYS.at(-1)!.way)];
  await Promise.all(pods.map((pod) => pod.setLocal('1', { n: 1 })));
  await pods[0]!.store.close();
  expect(await rejection(pods[0]!.setLocal('1', { n: 2 }))).toMatchObject({ hfCode: 'HF_CLOSED' });
  await pods[1]!.setLocal('1', { n: 2 });
  await pods[1]!.store.close();
  await query(`SET lock_timeout = 1000; DROP SCHEMA ${place.schema} CASCADE; CREATE SCHEMA ${place.schema}`);
});
