// F8: entities that are older than their history get a row per field, once.
import { drizzle } from 'drizzle-orm/node-postgres';
import {
  backfillEntity,
  createChangeEmitter,
  createEntityRegistry,
  createEntityStore,
  createRunSecretRegistry,
  type EntityChanged,
  type EntityStore,
  type EntityStoreOptions,
  type NativeEntityStore,
} from 'holdfast';
import { entityTransitions } from 'holdfast/drizzle';
import { join } from 'node:path';
import { Pool } from 'pg';
import { describe, expect, onTestFinished, test } from 'vitest';
import * as z from 'zod';

import { freshSchema } from '../support/postgres';
import { createTables } from './drizzle-ddl';
import { jsStore, openStore, tempDir } from './support';

type Pod = { status: string; region?: string | null; tags?: string[] };

function closing(store: NativeEntityStore): NativeEntityStore {
  onTestFinished(() => store.close());
  return store;
}

async function drizzled(driver: 'native' | 'delegate') {
  const place = await freshSchema();
  await createTables(place, [entityTransitions]);
  const pool = new Pool({ connectionString: place.url });
  onTestFinished(() => pool.end());
  return () => closing(createEntityStore(drizzle(pool), { driver } as EntityStoreOptions));
}

/** By name, what opens a store there; every call opens another one at the same place, except in memory. */
const PLACES: Record<string, () => Promise<() => NativeEntityStore>> = {
  memory: async () => () => openStore({ memory: true }),
  file: async () => {
    const path = join(tempDir(), 'entities.db');
    return () => openStore({ path });
  },
  Postgres: async () => {
    const { url, schema } = await freshSchema();
    return () => closing(createEntityStore({ connectionString: url, schema }));
  },
  'drizzle, native': () => drizzled('native'),
  'drizzle, delegate': () => drizzled('delegate'),
};

function world(store: EntityStore | null, states: Record<string, Pod> = {}) {
  const owner = new Map(Object.entries(states));
  const events: EntityChanged[] = [];
  const reads: string[][] = [];
  const emitter = createChangeEmitter();
  void emitter.wire(async (event) => void events.push(event));
  const registry = createEntityRegistry({ secretRegistry: createRunSecretRegistry(), emitter });
  if (store) registry.setStore({ store });
  const handle = registry.defineEntity<Pod>({
    kind: 'pod',
    state: z.object({ status: z.string(), region: z.string().nullish(), tags: z.array(z.string()).optional() }),
    read: async (ids) => {
      reads.push([...ids]);
      return Object.fromEntries(ids.flatMap((id) => (owner.has(id) ? [[id, owner.get(id)!]] : [])));
    },
  });
  const set = (id: string, state: Pod, apply = async () => {}) =>
    handle.mutate({
      id,
      apply: async () => {
        await apply();
        owner.set(id, state);
        return state;
      },
    });
  return { owner, handle, events, reads, set };
}

describe.each(Object.keys(PLACES))('in %s', (name) => {
  test('fields without a row get one, the others none, and a second time nothing happens', async () => {
    const open = await PLACES[name]!();
    const store = open();
    // `extra` is a column beside the state; `region` is null: creating the entity would write no row for either.
    const b = { status: 'off', region: null, extra: 1 } as Pod;
    const { handle, events, set } = world(store, { a: { status: 'on', tags: ['x', 'y'] }, b, c: { status: 'on' } });
    await set('c', { status: 'off' });
    expect(await handle.inStateForMs('a', 'status')).toBe(0);
    const before = Date.now();
    expect(await backfillEntity(handle, ['a', 'b', 'c', 'a', 'gone'])).toEqual({ appended: 3 });
    expect(Math.abs((await handle.inStateSince('a', 'status'))!.getTime() - before)).toBeLessThan(5_000);
    expect(await handle.inStateSince('a', 'tags')).toBeInstanceOf(Date);
    expect(await handle.inStateSince('b', 'status')).toBeInstanceOf(Date);
    const rowsOf = async (entityId: string) =>
      (await store.history({ kind: 'pod', entityId })).rows.map(({ field, fromValue, toValue }) => [field, fromValue, toValue]).sort();
    expect(await rowsOf('a')).toEqual([['status', null, 'on'], ['tags', null, '["x","y"]']]);
    expect(await rowsOf('b')).toEqual([['status', null, 'off']]);
    expect(await rowsOf('c')).toEqual([['status', 'on', 'off']]);
    expect(await rowsOf('gone')).toEqual([]);
    expect(events).toHaveLength(1);

    expect(await backfillEntity(handle, ['a', 'b', 'c'])).toEqual({ appended: 0 });
    await set('a', { status: 'off', tags: ['x', 'y'] });
    expect(await handle.transitionCount({ id: 'a', field: 'status', windowMs: 60_000 })).toBe(2);
    expect((await store.stats()).gaps).toBe(0);
    expect(await backfillEntity(handle, ['a'])).toEqual({ appended: 0 });
  });

  test('only the fields that are named', async () => {
    const open = await PLACES[name]!();
    const { handle } = world(open(), { a: { status: 'on', region: 'eu', tags: [] } });
    expect(await backfillEntity(handle, new Set(['a']), { fields: ['status', 'region'] })).toEqual({ appended: 2 });
    expect(await handle.inStateSince('a', 'tags')).toBeNull();
    expect(await backfillEntity(handle, ['a'])).toEqual({ appended: 1 });
  });
});

test.each(['Postgres', 'drizzle, native', 'drizzle, delegate'])('two processes at once write each row once: %s', async (name) => {
  const open = await PLACES[name]!();
  const ids = Array.from({ length: 150 }, (_, n) => `p${n}`);
  const states = Object.fromEntries(ids.map((id) => [id, { status: 'on', region: 'eu' }]));
  const pods = [world(open(), states), world(open(), states)];
  await Promise.all(pods.map(({ handle }) => backfillEntity(handle, ids)));
  const counts = await Promise.all(ids.map((id) => pods[0]!.handle.transitionCount({ id, field: 'status', windowMs: 60_000 })));
  expect(new Set(counts)).toEqual(new Set([1]));
  // One read for each hundred.
  expect(pods[0]!.reads.map(({ length }) => length)).toEqual([100, 50]);
});

test('waits for the mutation that runs, and then sees what it left', async () => {
  const { store, rows } = jsStore();
  const counting: EntityStore = { ...store, transitionCount: async ({ entityId, field }) => rows.filter((row) => row.entityId === entityId && row.field === field).length };
  const { handle, set } = world(counting, { a: { status: 'on', region: 'eu' } });
  let go = (): void => {};
  const gate = new Promise<void>((resolve) => (go = resolve));
  const running = set('a', { status: 'off', region: 'eu' }, () => gate);
  const filling = backfillEntity(handle, ['a']);
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(rows).toEqual([]);
  go();
  await running;
  expect(await filling).toEqual({ appended: 1 });
  expect(rows.map(({ field, fromValue, toValue }) => [field, fromValue, toValue])).toEqual([['status', 'on', 'off'], ['region', null, 'eu']]);
});

test('does not bring back what is removed meanwhile', async () => {
  const { store, rows } = jsStore();
  const { handle, owner } = world({ ...store, transitionCount: async () => 0 }, { a: { status: 'on' }, b: { status: 'on' } });
  let go = (): void => {};
  const gate = new Promise<void>((resolve) => (go = resolve));
  const removing = handle.remove({ id: 'a', apply: () => gate.then(() => void owner.delete('a')) });
  const filling = backfillEntity(handle, ['a', 'b']);
  await new Promise((resolve) => setTimeout(resolve, 20));
  go();
  await removing;
  expect(await filling).toEqual({ appended: 1 });
  expect(rows.map(({ entityId }) => entityId)).toEqual(['b']);
});

test('failures reach the caller as they are, and calling again does the rest', async () => {
  const { store, rows, failures } = jsStore();
  const counting: EntityStore = { ...store, transitionCount: async ({ entityId }) => rows.filter((row) => row.entityId === entityId).length };
  const { handle } = world(counting, { a: { status: 'on' }, b: { status: 'on' } });
  const error = new Error('full');
  failures.push(error);
  await expect(backfillEntity(handle, ['a', 'b'])).rejects.toBe(error);
  // The store's own undoing took what others had added at the same time.
  expect(await backfillEntity(handle, ['a', 'b'])).toEqual({ appended: 2 });
  expect(rows.map(({ entityId }) => entityId).sort()).toEqual(['a', 'b']);
  await expect(backfillEntity(world(null, { a: { status: 'on' } }).handle, ['a'])).rejects.toMatchObject({ hfCode: 'HF_ENTITY_STORE_UNBOUND' });
  await expect(backfillEntity({ ...handle }, ['a'])).rejects.toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
});
