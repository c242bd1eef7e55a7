// `compat: 'original'` gives back what holdfast otherwise does differently: R8, R11, R15, R16, R24, R29, R36, C2, C7. On both kinds of store.
import { getEntityFailure, type EntityStore } from 'holdfast';
import { describe, expect, test, vi } from 'vitest';
import * as z from 'zod';

import { deferred, jsStore, openStore, rejection, world, type State } from './support';

const STORES: { name: string; make: () => EntityStore }[] = [
  { name: 'a JavaScript store', make: () => jsStore().store },
  { name: 'memory', make: () => openStore({ memory: true }) },
];
const original = (store: EntityStore | null, more: Parameters<typeof world>[0] = {}) => world({ store, compat: 'original', ...more });

test('R8: without a store the owner writes, and only a change that has to be appended rejects', async () => {
  const { put, owner, events, drop } = original(null);
  const error = await rejection(put('1', { a: 1 }));
  expect(error.message).toBe('entity store not initialized yet — defineEntity handles can only mutate from init() onward');
  expect(getEntityFailure(error)).toMatchObject({ stage: 'append', applied: true, pending: false });
  expect(owner.get('1')).toEqual({ a: 1 });
  expect(await put('1', { a: 1 })).toEqual({ a: 1 });
  await drop('1');
  expect(events.map(({ next }) => next)).toEqual([null]);
});

test('R24: get looks up the prototype, and null comes through', async () => {
  const { handle, owner } = original(jsStore().store);
  expect(await handle.get('constructor')).toBe(Object);
  owner.set('1', null as never);
  expect(await handle.get('1')).toBeNull();
  await expect(handle.inStateSince('1', 'a')).rejects.toThrow(TypeError);
});

test('R5: only the object schemas of zod 4 are accepted', () => {
  const { registry } = original(null);
  const state = { '~standard': { version: 1 as const, vendor: 'x', validate: (value: unknown) => ({ value: value as State }) } };
  expect(() => registry.defineEntity({ kind: 'k', state, read: async () => ({}) })).toThrow('`state` must be a z.object (got Object)');
  expect(registry.getKinds()).toEqual(['pod']);
});

describe.each(STORES)('on $name', ({ make }) => {
  test('R11: an object that its owner edits in place has not changed', async () => {
    const { handle, owner, events } = original(make());
    owner.set('1', { a: 1 });
    await handle.mutate({ id: '1', apply: async () => Object.assign(owner.get('1')!, { a: 2 }) });
    // zod copied the result, so the state before is the edited one, too.
    expect(events).toEqual([]);
  });

  test('R15: an entity without fields comes and goes unseen', async () => {
    const { put, drop, events } = original(make());
    await put('1', {});
    await drop('1');
    expect(events).toEqual([]);
  });

  test('R16: a field that the schema strips is a change each time', async () => {
    const { put, owner, events } = original(make(), { schema: z.object({ a: z.number() }) });
    owner.set('1', { a: 1, updatedAt: 'x' });
    await put('1', { a: 1 });
    expect(events.map(({ changedFields, delta }) => [changedFields, delta])).toEqual([[['updatedAt'], { updatedAt: null }]]);
  });

  test('R29: all dates are equal', async () => {
    const { put, events } = original(make());
    await put('1', { at: new Date(0), a: 1 });
    await put('1', { at: new Date(1), a: 1 });
    expect(events).toHaveLength(1);
  });

  test('R36: a field that goes from one secret to another has not changed', async () => {
    const { put, events, secrets } = original(make());
    secrets.register('r', ['secret-one', 'secret-two']);
    await put('1', { a: 'secret-one' }, { runId: 'r' });
    await put('1', { a: 'secret-two' }, { runId: 'r' });
    expect(events.map(({ delta }) => delta)).toEqual([{ a: '****' }]);
  });

  test('C2: mutations of one entity are not kept apart', async () => {
    const { handle, owner } = original(make());
    const first = deferred();
    const apply = vi.fn(async () => ({ n: 2 }));
    const waiting = handle.mutate({ id: '1', apply: () => first.promise.then(() => ({ n: 1 })) });
    await handle.mutate({ id: '1', apply });
    expect(apply).toHaveBeenCalled();
    first.resolve();
    await waiting;
    expect(owner.size).toBe(0);
  });

  test('C7: the event holds the very objects that read and the schema returned', async () => {
    const { handle, owner, events } = original(make());
    const before = { a: 1 };
    owner.set('1', before);
    const after = await handle.mutate({ id: '1', apply: async () => ({ a: 2 }) });
    expect(events[0]!.prev).toBe(before);
    expect(events[0]!.next).toBe(after);
  });
});
