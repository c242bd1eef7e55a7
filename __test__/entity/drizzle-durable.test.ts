// A drizzle object with durability: the engine beside it, over tables that the application made from holdfast/drizzle.
import { drizzle } from 'drizzle-orm/node-postgres';
import { createRequire } from 'node:module';
import { createChangeEmitter, createEntityRegistry, createEntityStore, createRunSecretRegistry, type EntityChanged, type EntityStoreOptions } from 'holdfast';
import { durableEntityTransitions, entityChanges, entityIntents, entityTransitions } from 'holdfast/drizzle';
import { Pool } from 'pg';
import { afterEach, expect, test, vi } from 'vitest';
import * as z from 'zod';
import type * as NativeModule from '../../src-js/native';

import { freshSchema, query, type FreshSchema } from '../support/postgres';
import { createTables } from './drizzle-ddl';

type State = { status: string };
const DURABLE = [durableEntityTransitions, entityChanges, entityIntents];
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  vi.restoreAllMocks();
  for (const end of ends.splice(0).reverse()) await end();
});

/** A process of the application: its pool, its store, its registry. */
function pod(place: FreshSchema, options: EntityStoreOptions, poolConfig: Record<string, unknown> = {}) {
  const pool = new Pool({ connectionString: place.url, ...poolConfig });
  const store = createEntityStore(drizzle(pool), options);
  ends.push(async () => (pool.ended ? undefined : pool.end()));
  ends.push(() => store.close());
  const registry = createEntityRegistry({ secretRegistry: createRunSecretRegistry(), emitter: createChangeEmitter() });
  return { pool, store, registry };
}

function kindOf(registry: ReturnType<typeof pod>['registry'], states = new Map<string, State>()) {
  const handle = registry.defineEntity<State>({
    kind: 'incident',
    state: z.object({ status: z.string() }),
    read: async (ids) => Object.fromEntries(ids.flatMap((id) => (states.has(id) ? [[id, states.get(id)!]] : []))),
  });
  const set = (id: string, status: string) =>
    handle.mutate({
      id,
      apply: async () => {
        states.set(id, { status });
        return { status };
      },
    });
  return { handle, set, states };
}

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const count = async (place: FreshSchema, table: string, where = 'true'): Promise<number> =>
  (await query<{ n: number }>(`SELECT count(*)::int AS n FROM ${table} WHERE ${where}`, [], place.url))[0]!.n;

test.each(['outbox', 'journal'] as const)('%s: handles bound before anything is known record through the engine', async (durability) => {
  const place = await freshSchema();
  await createTables(place, DURABLE);
  const { store, registry, pool } = pod(place, { durability });
  const connects = vi.spyOn(pool, 'connect');
  const heard: EntityChanged[] = [];
  const end = store.onChange((change) => heard.push(change), { kind: 'incident' });
  const stream = store.changes();
  registry.setStore({ store });
  const { handle, set } = kindOf(registry);
  expect(connects).not.toHaveBeenCalled();
  await set('7', 'open');
  await set('7', 'done');
  expect(heard.map(({ next }) => next)).toEqual([{ status: 'open' }, { status: 'done' }]);
  expect((await stream.next()).value).toMatchObject({ id: '7', next: { status: 'open' } });
  await stream.return();
  await end();
  // The probe, and nothing else, went through the pool.
  expect(connects).toHaveBeenCalledOnce();
  expect(await handle.transitionCount({ id: '7', field: 'status', windowMs: 60_000 })).toBe(2);
  expect(await handle.inStateSince('7', 'status')).toBeInstanceOf(Date);
  const { rows } = await store.history({ kind: 'incident', entityId: '7' });
  expect(rows.map(({ toValue, changeId }) => [toValue, changeId])).toEqual([
    ['done', heard[1]!.changeId],
    ['open', heard[0]!.changeId],
  ]);
  expect(await count(place, 'entity_changes')).toBe(2);
  expect(await store.stats()).toMatchObject({ appended: 2, clockSkewMs: expect.any(Number) });
});

test('a change that no one took is sent by the next process, with the same id', async () => {
  const place = await freshSchema();
  await createTables(place, DURABLE);
  const first = pod(place, { durability: 'journal' });
  first.registry.setStore({ store: first.store });
  // The emitter of the first is never wired: the change stays in the outbox.
  const one = kindOf(first.registry);
  await one.set('7', 'open');
  expect((await first.store.stats()).pending).toBe(1);
  await first.store.close();
  await expect(one.set('7', 'late')).rejects.toMatchObject({ hfCode: 'HF_CLOSED' });

  // A server that has just started takes nobody for dead.
  await vi.waitFor(async () => expect(await query(`SELECT 1 WHERE now() - pg_postmaster_start_time() > interval '6 seconds'`)).toHaveLength(1), { timeout: 20_000, interval: 200 });
  const next = pod(place, { durability: 'journal' });
  const events: EntityChanged[] = [];
  const emitter = createChangeEmitter();
  void emitter.wire(async (event) => void events.push(event));
  const registry = createEntityRegistry({ secretRegistry: createRunSecretRegistry(), emitter });
  registry.setStore({ store: next.store });
  kindOf(registry, one.states);
  await next.store.ready();
  const [row] = await query<{ change_id: string }>('SELECT change_id FROM entity_changes', [], place.url);
  expect(events).toMatchObject([{ id: '7', next: { status: 'open' }, changeId: row!.change_id }]);
});

test("serialize: 'database' holds between processes", async () => {
  const place = await freshSchema();
  await createTables(place, DURABLE);
  const states = new Map([['7', { status: '0' }]]);
  const pods = [1, 2].map(() => {
    const { store } = pod(place, { durability: 'outbox' });
    const registry = createEntityRegistry({ secretRegistry: createRunSecretRegistry(), emitter: createChangeEmitter(), serialize: 'database' });
    registry.setStore({ store });
    return { store, ...kindOf(registry, states) };
  });
  const count = (handle: (typeof pods)[number]['handle']) =>
    handle.mutate({
      id: '7',
      apply: async () => {
        const seen = Number(states.get('7')!.status);
        await new Promise((resolve) => setTimeout(resolve, 5));
        states.set('7', { status: String(seen + 1) });
        return states.get('7')!;
      },
    });
  await Promise.all(Array.from({ length: 10 }, (_, n) => count(pods[n % 2]!.handle)));
  expect(states.get('7')).toEqual({ status: '10' });
  expect(await Promise.all(pods.map(async ({ store }) => (await store.stats()).gaps))).toEqual([0, 0]);
});

test('what the tables lack is named, nothing is left open, and the next call looks again', async () => {
  const place = await freshSchema();
  await createTables(place, [entityTransitions]);
  const { store, registry } = pod(place, { durability: 'journal' });
  registry.setStore({ store });
  const { set, states } = kindOf(registry);
  const failed = await store.ready().catch((error: unknown) => error as Error & { missing?: string[] });
  expect(failed).toMatchObject({ hfCode: 'HF_ENTITY_TABLE_MISSING', message: expect.stringContaining('durableEntityTransitions') });
  expect((failed as Error).message).toContain('table entity_changes');
  expect((failed as Error).message).toContain('entity_transitions.to_key');
  await expect(set('7', 'open')).rejects.toMatchObject({ hfCode: 'HF_ENTITY_TABLE_MISSING' });
  expect(states.size).toBe(0);
  await query('DROP TABLE entity_transitions', [], place.url);
  await createTables(place, DURABLE);
  await set('7', 'open');
  expect(await count(place, 'entity_transitions')).toBe(1);
});

test('an ended pool ends it, a password function forbids it', async () => {
  const place = await freshSchema();
  await createTables(place, DURABLE);
  const { store, registry, pool } = pod(place, { durability: 'outbox' });
  registry.setStore({ store });
  const { set } = kindOf(registry);
  await set('7', 'open');
  await pool.end();
  await expect(set('7', 'done')).rejects.toMatchObject({ message: 'Cannot use a pool after calling end on the pool', hfCode: 'HF_CLOSED' });
  await query(`SET lock_timeout = 2000; DROP SCHEMA ${place.schema} CASCADE`);

  const other = await freshSchema();
  await createTables(other, DURABLE);
  const { hostname: host, port, username: user, password, pathname } = new URL(other.url);
  const asked = vi.fn(async () => decodeURIComponent(password));
  const fields = { connectionString: undefined, host, port: Number(port), user, database: pathname.slice(1), options: `-c search_path=${other.schema}`, password: asked };
  const rotating = pod(other, { durability: 'outbox' }, fields);
  await expect(rotating.store.ready()).rejects.toMatchObject({ hfCode: 'HF_UNAVAILABLE', message: expect.stringContaining('its password is a function') });
  const warn = vi.fn();
  const plain = pod(other, { logger: { ...silent, warn } }, fields);
  await plain.store.ready();
  expect(warn.mock.calls).toEqual([[expect.stringContaining('its password is a function')]]);
  expect(asked).toHaveBeenCalled();
});

test('retention of a store that keeps events deletes rows and what is left of events', async () => {
  const place = await freshSchema();
  await createTables(place, DURABLE);
  const { store, registry } = pod(place, { durability: 'outbox', retention: { maxRowsPerField: 1 } });
  registry.setStore({ store });
  const { set } = kindOf(registry);
  for (const status of ['a', 'b', 'c']) await set('7', status);
  expect(await store.prune()).toEqual({ deleted: 2 });
  expect(await query('SELECT to_value FROM entity_transitions', [], place.url)).toEqual([{ to_value: 'c' }]);
});

test('a store that nobody used ends its listeners', async () => {
  const { store } = pod(await freshSchema(), { durability: 'outbox' });
  const stream = store.changes();
  const next = stream.next();
  await store.close();
  expect(await next).toEqual({ done: true, value: undefined });
});

test.each(['it differs', 'the probe fails', 'the tables lack'] as const)('a log that is not used is closed: %s', async (why) => {
  // The very copy that `holdfast` uses.
  const { native } = createRequire(import.meta.url)('../../dist/native.js') as typeof NativeModule;
  const place = await freshSchema();
  await createTables(place, why === 'the tables lack' ? [entityTransitions] : DURABLE);
  const log = native.EntityLog.prototype;
  const close = vi.spyOn(log, 'close');
  if (why === 'the probe fails') vi.spyOn(log, 'probe').mockRejectedValue(new Error('no answer'));
  if (why === 'it differs') {
    const probe = log.probe;
    vi.spyOn(log, 'probe').mockImplementation(async function (this: typeof log, sql: string) {
      return JSON.stringify({ ...(JSON.parse(await probe.call(this, sql)) as object), user: 'somebody else' });
    });
  }
  const { store } = pod(place, { durability: 'outbox' });
  await expect(store.ready()).rejects.toThrow();
  expect(close).toHaveBeenCalledOnce();
});

test.each([
  ['is a uuid', 'id uuid PRIMARY KEY', 'is a uuid'],
  ['is not unique', 'id text', 'is not unique'],
])('a table whose id %s is left to the delegate, which can write to it', async (_, id, why) => {
  const place = await freshSchema();
  await query(
    `CREATE TABLE entity_transitions (${id}, kind text NOT NULL, entity_id text NOT NULL, field text NOT NULL, from_value text, to_value text NOT NULL, transitioned_at timestamp NOT NULL)`,
    [],
    place.url,
  );
  const warn = vi.fn();
  const { store, registry } = pod(place, { logger: { ...silent, warn } });
  registry.setStore({ store });
  await kindOf(registry).set('7', 'open');
  expect(await count(place, 'entity_transitions')).toBe(1);
  expect(warn.mock.calls).toEqual([[expect.stringContaining(why)]]);
});

test('through the engine, too, a second append of one change of a handle adds nothing', async () => {
  const place = await freshSchema();
  await createTables(place, [entityTransitions]);
  const { store, registry } = pod(place, { driver: 'native' });
  let lost = 0;
  registry.setStore({
    store: {
      ...store,
      runInTransaction: async (fn) => {
        const result = await store.runInTransaction(fn);
        if (lost++ === 0) throw new Error('the answer is lost');
        return result;
      },
    },
  });
  const { set } = kindOf(registry);
  await expect(set('7', 'open')).rejects.toThrow('the answer is lost');
  await set('7', 'done');
  expect(lost).toBe(3);
  expect(await query('SELECT from_value, to_value FROM entity_transitions ORDER BY transitioned_at', [], place.url)).toEqual([
    { from_value: null, to_value: 'open' },
    { from_value: 'open', to_value: 'done' },
  ]);
});
