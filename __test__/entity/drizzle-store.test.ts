// Which way a store over a drizzle object goes: its own connections where they provably lead to the same table, else the object.
import { drizzle } from 'drizzle-orm/node-postgres';
import { sql } from 'drizzle-orm';
import { Pool } from 'pg';
import { afterEach, expect, test, vi } from 'vitest';

import { createDelegate } from '../../src-js/entity/delegate-store';
import { parseFacts, placeDifference, probeText } from '../../src-js/entity/drizzle-probe';
import { drizzleStore, type OpenNative } from '../../src-js/entity/drizzle-store';
import type { DerivedConnection, DrizzleDatabase } from '../../src-js/entity/drizzle-target';
import type { EntityStoreOptions, NativeEntityStore } from '../../src-js/entity/types';
import { freshSchema, query, type FreshSchema } from '../support/postgres';

const SEVEN = `CREATE TABLE entity_transitions (id text PRIMARY KEY, kind text NOT NULL, entity_id text NOT NULL, field text NOT NULL,
  from_value text, to_value text NOT NULL, transitioned_at timestamp NOT NULL DEFAULT now())`;
const KEY = { kind: 'incident', entityId: '7', field: 'status' };
const pools: Pool[] = [];
afterEach(async () => {
  for (const pool of pools.splice(0)) if (!pool.ending) await pool.end();
});

/** A stand-in for the native engine that connects for itself with what was derived, asks the probe, and works over that connection. */
function engine(): { open: OpenNative; opened: DerivedConnection[]; closed: () => number } {
  const opened: DerivedConnection[] = [];
  const close = vi.fn(async () => {});
  const open: OpenNative = async (connection, place) => {
    opened.push(connection);
    const { host, port, user, database, options } = connection;
    const pool = new Pool({ host, port, user, database, options, password: connection.password ?? undefined });
    pools.push(pool);
    const { rows } = await pool.query<{ facts: string }>(probeText(place.schema));
    const differs = placeDifference(place, parseFacts(rows[0]!.facts));
    if (differs !== null) return { differs };
    const delegate = createDelegate(drizzle(pool) as unknown as DrizzleDatabase, { facts: place });
    return { store: { ...delegate, ready: async () => {}, close } as unknown as NativeEntityStore };
  };
  return { open, opened, closed: () => close.mock.calls.length };
}

async function setUp(options: EntityStoreOptions = {}, wrap = (db: DrizzleDatabase, _own: FreshSchema): DrizzleDatabase => db) {
  const place = await freshSchema();
  const own = await freshSchema();
  for (const { url } of [place, own]) await query(SEVEN, [], url);
  const pool = new Pool({ connectionString: place.url });
  pools.push(pool);
  const connects = vi.spyOn(pool, 'connect');
  const native = engine();
  const warn = vi.fn();
  const logger = { debug: () => {}, info: () => {}, warn, error: () => {} };
  const db = wrap(drizzle({ client: pool }) as unknown as DrizzleDatabase, own);
  return { place, own, pool, connects, native, warn, store: drizzleStore(db, { logger, ...options }, native.open) };
}

const append = (store: NativeEntityStore, toValue = 'open'): Promise<void> =>
  store.runInTransaction((tx) => store.appendTransitions({ tx, kind: 'incident', entityId: '7', transitions: [{ field: 'status', fromValue: null, toValue }] }));
const rowsIn = (place: FreshSchema) => query('SELECT to_value FROM entity_transitions ORDER BY transitioned_at', [], place.url);

/** Its transactions, and nothing else of it, look at another schema. */
const elsewhere = (db: DrizzleDatabase, own: FreshSchema): DrizzleDatabase => ({
  $client: db.$client,
  execute: (text) => db.execute(text),
  transaction: (work) =>
    db.transaction(async (tx) => {
      await tx.execute(sql.raw(`SET LOCAL search_path = ${own.schema}`) as unknown as string);
      return work(tx);
    }),
});

test('the derived connection leads to the same table: from then on the object is not asked again', async () => {
  const { place, connects, native, warn, store } = await setUp();
  expect(connects).not.toHaveBeenCalled();
  await Promise.all([append(store), append(store)]);
  expect(await store.inStateSince({ ...KEY, currentValue: 'open' })).toBeInstanceOf(Date);
  expect(connects).toHaveBeenCalledOnce();
  expect(native.opened).toHaveLength(1);
  expect(native.opened[0]).toMatchObject({ options: `-c search_path=${place.schema}`, poolSize: 2 });
  expect(warn).not.toHaveBeenCalled();
  expect(await rowsIn(place)).toHaveLength(2);
});

test('a wrapper whose transactions alone set search_path: own connections are pinned to the schema of the wrapper', async () => {
  const { place, own, native, warn, store } = await setUp({}, elsewhere);
  await append(store);
  await append(store, 'done');
  expect(await store.transitionCount({ ...KEY, windowMs: 60_000, now: new Date() })).toBe(2);
  expect(await store.stats()).toMatchObject({ appended: 2, batches: 2, clockSkewMs: null });
  expect([await rowsIn(own), await rowsIn(place)]).toEqual([[{ to_value: 'open' }, { to_value: 'done' }], []]);
  expect(native.opened).toHaveLength(1);
  expect(warn).not.toHaveBeenCalled();
});

test.each<[string, EntityStoreOptions, string]>([['native', { driver: 'native' }, 'HF_UNAVAILABLE']])('%s rejects instead of falling back', async (_, options, hfCode) => {
  const place = await freshSchema();
  await query(SEVEN, [], place.url);
  const pool = new Pool({ connectionString: place.url, ssl: false, stream: undefined });
  pools.push(pool);
  const db = drizzle(pool) as unknown as DrizzleDatabase;
  const refused: OpenNative = async () => ({ differs: 'it is another server' });
  await expect(drizzleStore(db, options, refused).ready()).rejects.toMatchObject({ hfCode, message: expect.stringContaining('it is another server') });
  const failing: OpenNative = () => Promise.reject(new Error('no route'));
  await expect(drizzleStore(db, options, failing).ready()).rejects.toMatchObject({ hfCode, cause: { message: 'no route' } });
});

test.each(['outbox', 'journal'] as const)('%s rejects where only the object can be used, and says why and what to use', async (durability) => {
  const { pool } = await setUp();
  const db = drizzle(pool) as unknown as DrizzleDatabase;
  const refused: OpenNative = async () => ({ differs: 'it is another server' });
  for (const [options, open, why] of [
    [{ durability }, undefined, "`driver: 'delegate'` was asked for"],
    [{ durability, driver: 'delegate' }, refused, "`driver: 'delegate'` was asked for"],
    [{ durability }, refused, 'it is another server'],
  ] as [EntityStoreOptions, OpenNative | undefined, string][]) {
    const ready = drizzleStore(db, options, open).ready();
    await expect(ready).rejects.toMatchObject({ hfCode: 'HF_UNAVAILABLE', message: expect.stringMatching(/outbox|journal/) });
    await expect(ready).rejects.toThrow(why);
    await expect(ready).rejects.toThrow('{ connectionString }');
  }
});

test('a connection that fails is no reason to fail: the object serves, and the warning says why', async () => {
  const { place, warn, pool } = await setUp();
  const logger = { debug: () => {}, info: () => {}, warn, error: () => {} };
  const store = drizzleStore(drizzle(pool) as unknown as DrizzleDatabase, { logger }, () => Promise.reject(new Error('no route')));
  await append(store);
  await append(store);
  expect(await rowsIn(place)).toHaveLength(2);
  expect(warn.mock.calls).toEqual([["entity store: using the drizzle object's own connections, because a connection of its own could not be made"]]);
});

test("driver: 'delegate' connects nowhere and says nothing", async () => {
  const { place, native, warn, store } = await setUp({ driver: 'delegate' });
  await append(store);
  expect([native.opened, warn.mock.calls]).toEqual([[], []]);
  expect(await rowsIn(place)).toHaveLength(1);
});

test('a table that is not there rejects, and the choice is made when it is', async () => {
  const { place, native, store } = await setUp();
  await query('DROP TABLE entity_transitions', [], place.url);
  await expect(append(store)).rejects.toMatchObject({ code: 'HF_ENTITY_TABLE_MISSING', cause: { code: '42P01' } });
  await expect(store.ready()).rejects.toMatchObject({ message: 'relation "entity_transitions" does not exist' });
  expect(native.opened).toHaveLength(0);
  await query(SEVEN, [], place.url);
  await append(store);
  expect(native.opened).toHaveLength(1);
});

test('an ended pool ends the native connections too, and a closed store refuses', async () => {
  const { pool, native, store, place } = await setUp();
  await append(store);
  await pool.end();
  await expect(append(store)).rejects.toMatchObject({ message: 'Cannot use a pool after calling end on the pool', hfCode: 'HF_CLOSED' });
  expect(native.closed()).toBe(1);
  await store.close();
  await store.close();
  await expect(append(store)).rejects.toMatchObject({ hfCode: 'HF_CLOSED', message: expect.stringContaining('entity store is closed') });
  await query(`SET lock_timeout = 1000; DROP SCHEMA ${place.schema} CASCADE`);
});

test('close waits for the transaction that is open, which can still append', async () => {
  const { place, store } = await setUp({ driver: 'delegate' });
  let go = (): void => {};
  const gate = new Promise<void>((resolve) => (go = resolve));
  const running = store.runInTransaction(async (tx) => {
    await gate;
    await store.appendTransitions({ tx, kind: 'k', entityId: 'e', transitions: [{ field: 'f', fromValue: null, toValue: 'late' }] });
  });
  const closed = vi.fn();
  const closing = store.close().then(closed);
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(closed).not.toHaveBeenCalled();
  go();
  await Promise.all([running, closing]);
  expect(await rowsIn(place)).toEqual([{ to_value: 'late' }]);
});

test('retention runs by itself, and a transaction of the caller can carry the history', async () => {
  const { place, pool, store } = await setUp({ driver: 'delegate', retention: { maxRowsPerField: 1, everyMs: 20 } });
  const db = drizzle(pool);
  await db.transaction(async (tx) => {
    const inside = store.withTransaction(tx);
    for (const toValue of ['a', 'b', 'c']) {
      await inside.appendTransitions({ tx, kind: 'incident', entityId: '7', transitions: [{ field: 'status', fromValue: null, toValue }] });
    }
  });
  await store.ready();
  await vi.waitFor(async () => expect(await rowsIn(place)).toEqual([{ to_value: 'c' }]), { timeout: 5_000 });
  await store.close();
  expect(() => store.changes()).toThrow(/not recorded/);
});
