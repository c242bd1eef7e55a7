// The testing kit, as a program's tests use it.
import { createFakeEntityStore, FAKE_TX, type FakeEntityStore } from 'holdfast/testing';
import { beforeEach, describe, expect, test, vi } from 'vitest';

const KEY = { kind: 'incident', entityId: '7', field: 'status' };
let store: FakeEntityStore;
let now: Date;
beforeEach(() => {
  store = createFakeEntityStore();
  now = new Date('2026-01-01T00:00:00.000Z');
  store.setClock(() => now);
});

const append = (fromValue: string | null, toValue: string): Promise<void> =>
  store.runInTransaction((tx) => store.appendTransitions({ tx, kind: 'incident', entityId: '7', transitions: [{ field: 'status', fromValue, toValue }] }));

describe('createFakeEntityStore', () => {
  test('records rows with the time of its clock', async () => {
    await append(null, 'open');
    now = new Date('2026-01-01T01:00:00.000Z');
    await append('open', 'done');
    expect(store.transitions).toEqual([
      { ...KEY, fromValue: null, toValue: 'open', transitionedAt: new Date('2026-01-01T00:00:00.000Z') },
      { ...KEY, fromValue: 'open', toValue: 'done', transitionedAt: new Date('2026-01-01T01:00:00.000Z') },
    ]);
  });

  test('inStateSince is the latest entry into a value, by its field text', async () => {
    await append(null, 'open');
    now = new Date('2026-01-01T01:00:00.000Z');
    await append('open', 'done');
    now = new Date('2026-01-01T02:00:00.000Z');
    await append('done', '42');
    expect(await store.inStateSince({ ...KEY, currentValue: 'open' })).toEqual(new Date('2026-01-01T00:00:00.000Z'));
    expect(await store.inStateSince({ ...KEY, currentValue: 42 })).toEqual(now);
    expect(await store.inStateSince({ ...KEY, currentValue: 'never' })).toBeNull();
    expect(await store.inStateSince({ ...KEY, entityId: '8', currentValue: 'open' })).toBeNull();
  });

  test('transitionCount has an inclusive bound and no upper one', async () => {
    await append(null, 'open');
    const count = (windowMs: number) => store.transitionCount({ ...KEY, windowMs, now: new Date('2026-01-01T01:00:00.000Z') });
    expect(await count(3_600_000)).toBe(1);
    expect(await count(3_599_999)).toBe(0);
    expect(await count(Number.POSITIVE_INFINITY)).toBe(1);
    now = new Date('2027-01-01');
    await append('open', 'done');
    expect(await count(0)).toBe(1);
    await expect(count(Number.NaN)).rejects.toThrow(RangeError);
  });

  test('readFor answers from rows, own ids only', async () => {
    store.rows.set('incident:7', { status: 'open' });
    store.rows.set('incident:__proto__', { status: 'odd' });
    const read = store.readFor('incident');
    const found = await read(['7', '8', 'constructor', '__proto__']);
    expect(Object.entries(found)).toEqual([['7', { status: 'open' }], ['__proto__', { status: 'odd' }]]);
    expect(await store.readFor('other')(['7'])).toEqual({});
  });

  test('hands out FAKE_TX, after telling the listener', async () => {
    const order: unknown[] = [];
    store.onTransaction(() => order.push('began'));
    await store.runInTransaction(async (tx) => order.push(tx));
    expect(order).toEqual(['began', FAKE_TX]);
  });

  test('takes the rows of a rejected transaction back, and no others', async () => {
    await append(null, 'open');
    const error = new Error('no');
    const failing = store.runInTransaction(async (tx) => {
      await store.appendTransitions({ tx, kind: 'incident', entityId: '7', transitions: [{ field: 'status', fromValue: 'open', toValue: 'lost' }] });
      await append('open', 'beside');
      throw error;
    });
    await append('open', 'done');
    await expect(failing).rejects.toBe(error);
    expect(store.transitions.map((row) => row.toValue).sort()).toEqual(['beside', 'done', 'open']);
  });

  test('fails each step as often as asked, with the same error', async () => {
    const error = new Error('planned');
    store.failNext('runInTransaction', error);
    await expect(append(null, 'a')).rejects.toBe(error);
    store.failNext('appendTransitions', error);
    await expect(append(null, 'b')).rejects.toBe(error);
    store.failNext('commit', error, 2);
    await expect(append(null, 'c')).rejects.toBe(error);
    await expect(append(null, 'd')).rejects.toBe(error);
    expect(store.transitions).toEqual([]);
    await append(null, 'e');
    expect(store.transitions).toHaveLength(1);
    store.failNext('inStateSince', error);
    await expect(store.inStateSince({ ...KEY, currentValue: 'e' })).rejects.toBe(error);
    store.failNext('transitionCount', error);
    await expect(store.transitionCount({ ...KEY, windowMs: 1, now })).rejects.toBe(error);
    store.failNext('read', error);
    await expect(store.readFor('incident')(['7'])).rejects.toBe(error);
    expect(() => store.failNext('emit' as never, error)).toThrow(/there is no step "emit"; the steps are read, runInTransaction/);
  });

  test('works detached and spread', async () => {
    const spy = vi.fn(store.appendTransitions);
    const bound = { ...store, appendTransitions: spy };
    const { runInTransaction } = bound;
    await runInTransaction((tx) => spy({ tx, kind: 'incident', entityId: '7', transitions: [] }));
    expect(spy).toHaveBeenCalledOnce();
  });
});
