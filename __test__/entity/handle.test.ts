// What a handle does, rule by rule: A4 to A19 and R8 to R26, on a store written in JavaScript and on the embedded one.
import { createEntityHandle, getEntityFailure, SYSTEM_ACTOR, type EntityStore, type NativeEntityStore } from 'holdfast';
import { describe, expect, test, vi } from 'vitest';
import * as z from 'zod';
import * as z3 from 'zod3';
import * as mini from 'zod/mini';

import { historyOf, jsStore, openStore, rejection, tempDir, until, world, type State } from './support';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** Each kind of store, and its rows as `field: from -> to`. */
const STORES: { name: string; make: () => { store: EntityStore; rows: (id: string) => Promise<string[]> } }[] = [
  {
    name: 'a JavaScript store',
    make: () => {
      const { store, rows } = jsStore();
      return { store, rows: async (id) => rows.filter((row) => row.entityId === id).map((row) => `${row.field}: ${row.fromValue} -> ${row.toValue}`) };
    },
  },
  { name: 'memory', make: () => overNative(openStore({ memory: true })) },
  { name: 'a file', make: () => overNative(openStore({ path: `${tempDir()}/e.db` })) },
];
function overNative(store: NativeEntityStore) {
  return { store, rows: (id: string) => historyOf(store, id) };
}

describe.each(STORES)('on $name', ({ make }) => {
  test('A4, R18: a creation is one event with null before it, and one row per field from SQL NULL', async () => {
    const { store, rows } = make();
    const { put, events } = world({ store });
    await put('1', { status: 'online', region: 'eu' });
    expect(events).toHaveLength(1);
    expect(Object.keys(events[0]!)).toEqual(['kind', 'id', 'prev', 'next', 'delta', 'changedFields', 'actor', 'occurredAt', 'changeId']);
    expect({ ...events[0]! }).toEqual({
      kind: 'pod',
      id: '1',
      prev: null,
      next: { status: 'online', region: 'eu' },
      delta: { status: 'online', region: 'eu' },
      changedFields: ['region', 'status'],
      actor: SYSTEM_ACTOR,
      occurredAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      changeId: expect.stringMatching(UUID),
    });
    expect(await rows('1')).toEqual(['region: null -> eu', 'status: null -> online']);
  });

  test('A5, A6, A15: only what changed is recorded; another key order is no change; ids of changes differ', async () => {
    const { store, rows } = make();
    const { put, events } = world({ store });
    await put('1', { status: 'online', region: 'eu' });
    await put('1', { status: 'offline', region: 'eu' });
    expect(events[1]!.delta).toEqual({ status: 'offline' });
    const same = { region: 'eu', status: 'offline' };
    expect(await put('1', same)).toEqual(same);
    expect(events).toHaveLength(2);
    expect(await rows('1')).toEqual(['region: null -> eu', 'status: null -> online', 'status: online -> offline']);
    expect(events[0]!.changeId).not.toBe(events[1]!.changeId);
  });

  test('A7, R11: prev is the value before, also when apply edits the object in place', async () => {
    const { store, rows } = make();
    const { owner, handle, events } = world({ store });
    owner.set('1', { status: 'a', tags: ['x'] });
    const apply = async (): Promise<State> => {
      const state = owner.get('1')!;
      state.status = 'b';
      (state.tags as string[]).push('y');
      return state;
    };
    await handle.mutate({ id: '1', apply });
    expect(events[0]!.prev).toEqual({ status: 'a', tags: ['x'] });
    expect(events[0]!.next).toEqual({ status: 'b', tags: ['x', 'y'] });
    expect(await rows('1')).toEqual(['status: a -> b', 'tags: ["x"] -> ["x","y"]']);
  });

  test.each([true, false])('A8, R22: what apply throws (async: %s) rejects as the same object, and nothing is recorded', async (isAsync) => {
    const { store, rows } = make();
    const { handle, events, owner, put } = world({ store });
    const error = Object.freeze(new Error('owner'));
    const apply = isAsync ? () => Promise.reject(error) : () => { throw error; };
    expect(await rejection(handle.mutate({ id: '1', apply }))).toBe(error);
    expect(getEntityFailure(error)).toEqual({ stage: 'apply', applied: false, pending: false });
    expect(await rejection(handle.remove({ id: '1', apply }))).toBe(error);
    expect([events, await rows('1')]).toEqual([[], []]);
    // The lane is free again.
    await put('1', { a: 1 });
    expect(owner.has('1')).toBe(true);
  });

  test('A12, R20, R21: a removal is a tombstone without a row; a removal of nothing only runs apply', async () => {
    const { store, rows } = make();
    const { put, drop, events, handle } = world({ store });
    await put('1', { b: 'x', a: 1, gone: null });
    await drop('1');
    expect({ ...events[1]! }).toMatchObject({ prev: { b: 'x', a: 1, gone: null }, next: null, delta: {}, changedFields: ['a', 'b'] });
    expect(await rows('1')).toEqual(['a: null -> 1', 'b: null -> x']);
    const apply = vi.fn(async () => 'ignored' as never);
    expect(await handle.remove({ id: '1', apply })).toBeUndefined();
    expect(apply).toHaveBeenCalledWith();
    expect(events).toHaveLength(2);
    expect(await handle.inStateSince('1', 'a')).toBeNull();
    // It comes back from SQL NULL.
    await put('1', { a: 1 });
    expect((await rows('1')).at(-1)).toBe('a: null -> 1');
  });

  test('A16, R22, R23: an invalid result rejects with the error of the schema, and is known to be stored', async () => {
    const { store, rows } = make();
    const refused = new Error('no');
    const schema = { '~standard': { version: 1 as const, vendor: 'x', validate: () => { throw refused; } } };
    const { put, events } = world({ store, schema });
    expect(await rejection(put('1', { a: 1 }))).toBe(refused);
    expect(getEntityFailure(refused)).toEqual({ stage: 'validate', applied: true, pending: false });
    const strict = world({ store, schema: z.object({ n: z.number() }) });
    expect(await rejection(strict.put('1', { n: 'x' }))).toBeInstanceOf(z.ZodError);
    expect([events, strict.events, await rows('1')]).toEqual([[], [], []]);
  });

  test('R12: the parsed value is compared and returned; null is a removal that rejects; undefined fails in the schema', async () => {
    const { store, rows } = make();
    const { put, handle, owner, events } = world({ store, schema: z.object({ n: z.number().default(7) }) });
    expect(await put('1', { extra: true })).toEqual({ n: 7 });
    expect(await rows('1')).toEqual(['n: null -> 7']);
    const empty = (id: string) => rejection(handle.mutate({ id, apply: async () => (owner.delete(id), null as never) }));
    owner.set('1', { n: 1 });
    const error = await empty('1');
    expect(error.message).toBe('EntityHandle.mutate: apply for kind "pod" id "1" resolved to no state');
    expect(error.hfCode).toBe('HF_ENTITY_NO_STATE');
    expect(getEntityFailure(error)).toMatchObject({ applied: true });
    expect({ ...events[1]! }).toMatchObject({ prev: { n: 1 }, next: null, delta: {} });
    await empty('absent');
    expect(events).toHaveLength(2);
    const failure = await rejection(handle.mutate({ id: '2', apply: async () => undefined as never }));
    expect(failure).toBeInstanceOf(z.ZodError);
  });

  test('R10, R24, W17: only own properties of what read returns count', async () => {
    const { store } = make();
    const { put, handle, events, owner } = world({ store });
    for (const id of ['constructor', '__proto__', 'toString']) {
      expect(await handle.get(id)).toBeUndefined();
      await put(id, { a: 1 });
      expect(await handle.get(id)).toBe(owner.get(id));
    }
    expect(events.map(({ prev }) => prev)).toEqual([null, null, null]);
    owner.set('null', null as never);
    expect(await handle.get('null')).toBeUndefined();
    expect(await handle.inStateSince('null', 'a')).toBeNull();
    await put('null', { a: 1 });
    expect(events[3]!.prev).toBeNull();
  });

  test('R15, W16: coming and going is a change, also of a state without fields', async () => {
    const { store, rows } = make();
    const { put, drop, events } = world({ store });
    await put('1', {});
    await put('2', { a: null });
    await put('1', {});
    await drop('1');
    await drop('2');
    expect(events.map(({ id, prev, next, changedFields }) => [id, prev, next, changedFields])).toEqual([
      ['1', null, {}, []],
      ['2', null, { a: null }, []],
      ['1', {}, null, []],
      ['2', { a: null }, null, []],
    ]);
    expect([...(await rows('1')), ...(await rows('2'))]).toEqual([]);
  });

  test('R14, R16, W8: fields that the schema cannot return are none of its business, and absent is null', async () => {
    const { store, rows } = make();
    const { put, events, owner } = world({ store, schema: z.object({ a: z.number().nullish(), b: z.number().nullish() }) });
    owner.set('1', { a: 1, updatedAt: 'now' });
    await put('1', { a: 1, b: null });
    expect(events).toEqual([]);
    owner.set('1', { a: 1, b: 2, updatedAt: 'now' });
    await put('1', { b: 3 });
    expect({ ...events[0]! }).toMatchObject({ prev: { a: 1, b: 2, updatedAt: 'now' }, delta: { a: null, b: 3 }, changedFields: ['a', 'b'] });
    expect(await rows('1')).toEqual(['a: 1 -> null', 'b: 2 -> 3']);
  });

  test('R19, C7: mutate waits for the subscriber, and the event is nobody else\'s object', async () => {
    const { store } = make();
    const { handle, emitter, owner } = world({ store, wired: false });
    let heard = false;
    await emitter.wire(async (event) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      (event.next as { tags: string[] }).tags.push('edited');
      event.changedFields.reverse();
      heard = true;
    });
    const written = { tags: ['x'], n: 1 };
    const result = await handle.mutate({ id: '1', apply: async () => (owner.set('1', written), written) });
    expect(heard).toBe(true);
    expect([result.tags, written.tags]).toEqual([['x'], ['x']]);
  });

  test('opts.actor is sent and kept as it is', async () => {
    const { store } = make();
    const { handle, events } = world({ store });
    const actor = { type: 'user' as const, id: 'u-1', name: 'Zoë "x"' };
    await handle.mutate({ id: '1', opts: { actor }, apply: async () => ({ a: 1 }) });
    expect(events[0]!.actor).toEqual(actor);
  });
});

describe('the order of the steps', () => {
  test('A9, R9, R17: read, write, one transaction with one append, emit; read at once; apply without arguments', async () => {
    const { store, calls } = jsStore();
    const { handle, owner } = world({ store, wired: false });
    const made = createEntityHandle<State>({
      kind: 'pod',
      schema: z.looseObject({}),
      store,
      emitter: { emit: async () => void calls.push('emit'), wire: async () => {}, isWired: true },
      secretRegistry: world().secrets,
      read: async () => (calls.push('read'), Object.fromEntries(owner)),
    });
    expect(Object.keys(made)).toEqual(expect.arrayContaining(Object.keys(handle)));
    const mutation = made.mutate({ id: '1', apply: (async (...args: unknown[]) => (calls.push(`write ${args.length}`), { b: 1, a: [2] })) as never });
    expect(calls).toEqual(['read']);
    await mutation;
    expect(calls).toEqual(['read', 'write 0', 'runInTransaction', 'append tx pod:1 a=[2] b=1', 'emit']);
    calls.length = 0;
    owner.set('1', { a: 1 });
    await made.remove({ id: '1', apply: async () => void calls.push('remove') });
    expect(calls).toEqual(['read', 'remove', 'emit']);
  });

  test('the next mutation of an entity begins after the append of the one before, not after its subscribers', async () => {
    const { store, calls } = jsStore();
    const { handle, emitter, write } = world({ store, wired: false });
    let release!: () => void;
    const held = new Promise<void>((resolve) => (release = resolve));
    const heard: unknown[] = [];
    await emitter.wire(async ({ next }) => {
      heard.push(next);
      if (heard.length === 1) await held;
    });
    const first = handle.mutate({ id: '1', apply: write('1', { n: 1 }) });
    const second = handle.mutate({ id: '1', apply: write('1', { n: 2 }) });
    await until(() => calls.filter((call) => call.startsWith('append')).length === 2);
    expect(heard).toEqual([{ n: 1 }]);
    release();
    await Promise.all([first, second]);
    expect(heard).toEqual([{ n: 1 }, { n: 2 }]);
  });

  test('apply may return a plain value', async () => {
    const { handle, events } = world({ store: jsStore().store });
    expect(await handle.mutate({ id: '1', apply: (() => ({ a: 1 })) as never })).toEqual({ a: 1 });
    expect(events).toHaveLength(1);
  });

  test('read that throws, at once or later, rejects as the same object before apply', async () => {
    const error = new TypeError('read');
    const apply = vi.fn();
    for (const read of [() => { throw error; }, () => Promise.reject(error)]) {
      const { registry } = world({ store: jsStore().store });
      const handle = registry.defineEntity({ kind: 'k', state: z.looseObject({}), read });
      expect(await rejection(handle.mutate({ id: '1', apply }))).toBe(error);
      expect(getEntityFailure(error)).toEqual({ stage: 'read', applied: false, pending: false });
      expect(await rejection(handle.get('1'))).toBe(error);
    }
    expect(apply).not.toHaveBeenCalled();
    expect(getEntityFailure(new Error('another'))).toBeUndefined();
    expect(getEntityFailure('text')).toBeUndefined();
  });
});

describe('reads', () => {
  test('R24, R25: get and getMany hand on, and an absent entity never asks the store', async () => {
    const { store, calls } = jsStore();
    const { handle, owner, registry } = world({ store });
    const read = vi.fn(async () => ({ 1: { a: 5 } }));
    const other = registry.defineEntity<State>({ kind: 'k', state: z.looseObject({}), read });
    const ids: string[] = [];
    expect(await other.getMany(ids)).toEqual({ 1: { a: 5 } });
    expect(read.mock.calls[0]![0 as never]).toBe(ids);
    expect(await handle.inStateSince('1', 'a')).toBeNull();
    expect(await handle.inStateForMs('1', 'a')).toBe(0);
    expect(calls).toEqual([]);
    owner.set('1', { a: 5 });
    expect(await handle.inStateSince('1', 'a')).toEqual(new Date(0));
    await handle.inStateSince('1', 'toString');
    expect(calls).toEqual(['inStateSince 5', 'inStateSince undefined']);
    expect(await handle.inStateForMs('1', 'a')).toBeGreaterThan(1.7e12);
  });
});

describe('without a store', () => {
  test('A19, R8: mutate rejects before apply, everything that needs no history works, and a store makes it work', async () => {
    const { handle, owner, events, put, registry } = world();
    owner.set('old', { a: 1 });
    const apply = vi.fn();
    const error = await rejection(handle.mutate({ id: '1', apply }));
    expect(error.message).toBe('entity store not initialized yet — defineEntity handles can only mutate from init() onward');
    expect(error.hfCode).toBe('HF_ENTITY_STORE_UNBOUND');
    expect(apply).not.toHaveBeenCalled();
    expect(await handle.get('old')).toEqual({ a: 1 });
    expect(await handle.getMany(['old', 'x'])).toEqual({ old: { a: 1 } });
    expect(await handle.inStateSince('absent', 'a')).toBeNull();
    expect(await rejection(handle.inStateSince('old', 'a'))).toMatchObject({ hfCode: 'HF_ENTITY_STORE_UNBOUND' });
    expect(await rejection(handle.transitionCount({ id: 'old', field: 'a', windowMs: 1 }))).toMatchObject({ hfCode: 'HF_ENTITY_STORE_UNBOUND' });
    await handle.remove({ id: 'old', apply: async () => void owner.delete('old') });
    expect(events.map(({ next }) => next)).toEqual([null]);
    registry.setStore({ store: jsStore().store });
    await put('1', { a: 1 });
    expect(events).toHaveLength(2);
  });
});

test('A18, R13: schemas of zod 4, zod-mini, zod 3 and by hand validate; asynchronous parts are awaited', async () => {
  const standard = { '~standard': { version: 1 as const, vendor: 'hand', validate: async (value: unknown) => ({ value: value as State }) } };
  const slow = z.object({ a: z.number().refine(async (n) => n < 10) });
  for (const schema of [z.object({ a: z.number() }), z3.object({ a: z3.number() }), mini.object({ a: mini.number() }), standard, slow]) {
    const { put, events } = world({ store: jsStore().store, schema: schema as never });
    expect(await put('1', { a: 1 })).toEqual({ a: 1 });
    expect(events).toHaveLength(1);
  }
  expect(await rejection(world({ store: jsStore().store, schema: slow }).put('1', { a: 11 }))).toBeInstanceOf(z.ZodError);
});
