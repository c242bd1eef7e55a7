// Mutations that meet: lanes per entity, nesting, async context, bulk, waiting, and what many at once cost (A34 to A36, C1, C2, C4, F4, F5).
import { AsyncLocalStorage } from 'node:async_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

import { getEntityFailure, type EntityStore } from 'holdfast';
import { describe, expect, test, vi } from 'vitest';
import * as z from 'zod';

import { deferred, historyOf, jsStore, openStore, rejection, tempDir, until, world, type State } from './support';

const STORES: { name: string; make: () => EntityStore }[] = [
  { name: 'a JavaScript store', make: () => jsStore().store },
  { name: 'memory', make: () => openStore({ memory: true }) },
  { name: 'a file', make: () => openStore({ path: `${tempDir()}/e.db` }) },
];

describe.each(STORES)('on $name', ({ make }) => {
  test('A34: 50 concurrent increments of one entity are one chain', async () => {
    const { handle, owner, events } = world({ store: make() });
    const increment = () =>
      handle.mutate({
        id: '1',
        apply: async () => {
          const n = ((owner.get('1')?.n as number | undefined) ?? 0) + 1;
          await sleep(Math.random() * 2);
          owner.set('1', { n });
          return { n };
        },
      });
    const results = await Promise.all(Array.from({ length: 50 }, increment));
    expect(results.map(({ n }) => n)).toEqual(Array.from({ length: 50 }, (_, n) => n + 1));
    expect(events.map(({ prev, next }) => [prev?.n ?? 0, next?.n])).toEqual(Array.from({ length: 50 }, (_, n) => [n, n + 1]));
  });

  test('A35, C2: a subscriber that sets 2 on seeing 1', async () => {
    const { handle, write, events, emitter, target } = world({ store: make(), wired: false });
    await emitter.wire(async (event) => {
      await target(event);
      if (event.next?.n === 1) await handle.mutate({ id: '1', apply: write('1', { n: 2 }) });
    });
    await handle.mutate({ id: '1', apply: write('1', { n: 1 }) });
    expect(events.map(({ prev, next }) => [prev, next])).toEqual([[null, { n: 1 }], [{ n: 1 }, { n: 2 }]]);
  });

  test('A35, C2: a mutation inside apply comes first, and the outer one still starts from what it had read', async () => {
    const { handle, write, events } = world({ store: make() });
    await handle.mutate({
      id: '1',
      apply: async () => {
        await handle.mutate({ id: '1', apply: write('1', { n: 5 }) });
        return write('1', { n: 6 })();
      },
    });
    expect(events.map(({ prev, next }) => [prev, next])).toEqual([[null, { n: 5 }], [null, { n: 6 }]]);
  });

  test.each(['apply', 'subscriber'])('mutations that start each other crosswise in %s do not wait for each other for ever', async (where) => {
    const { handle, write, emitter, events, target } = world({ store: make(), wired: false });
    const other: Record<string, string> = { a: 'b', b: 'a' };
    const both = [deferred(), deferred()];
    const inside = async (id: string): Promise<void> => {
      both[id === 'a' ? 0 : 1]!.resolve();
      await Promise.all(both.map(({ promise }) => promise));
      await handle.mutate({ id: other[id]!, apply: write(other[id]!, { by: id }) });
    };
    await emitter.wire(async (event) => {
      await target(event);
      if (where === 'subscriber' && event.next?.outer) await inside(event.id);
    });
    const outer = (id: string) =>
      handle.mutate({
        id,
        apply: async () => {
          if (where === 'apply') await inside(id);
          return write(id, { outer: true })();
        },
      });
    const outcome = await Promise.race([Promise.all([outer('a'), outer('b')]), sleep(5000, 'deadlock')]);
    expect(outcome).not.toBe('deadlock');
    expect(events).toHaveLength(4);
  });

  test('a circle over three entities, and over two kinds, does not deadlock', async () => {
    const store = make();
    const { registry } = world({ store });
    const kinds = ['x', 'y', 'z'].map((kind) => registry.defineEntity<State>({ kind, state: z.looseObject({}), read: async () => ({}) }));
    const started = kinds.map(() => deferred());
    const turn = (index: number) =>
      kinds[index]!.mutate({
        id: '1',
        apply: async () => {
          started[index]!.resolve();
          await Promise.all(started.map(({ promise }) => promise));
          await kinds[(index + 1) % 3]!.mutate({ id: '1', apply: async () => ({ n: index }) });
          return { done: index };
        },
      });
    expect(await Promise.race([Promise.all([0, 1, 2].map(turn)), sleep(5000, 'deadlock')])).toEqual([0, 1, 2].map((done) => ({ done })));
  });

  test('A36, C1: read, apply, schema and subscriber run in the context of the call, also when it had to wait', async () => {
    const context = new AsyncLocalStorage<number>();
    const seen: [string, number | undefined][] = [];
    const note = (step: string): void => void seen.push([step, context.getStore()]);
    const schema = { '~standard': { version: 1 as const, vendor: 'x', validate: (value: unknown) => (note('schema'), { value: value as State }) } };
    const { registry, emitter } = world({ store: make(), wired: false });
    await emitter.wire(async () => note('emit'));
    const handle = registry.defineEntity<State>({ kind: 'k', state: schema, read: async () => (note('read'), {}) });
    const call = (x: number) => context.run(x, () => handle.mutate({ id: '1', apply: async () => (await sleep(1), note('apply'), { x }) }));
    await Promise.all([call(1), call(2), call(3)]);
    for (const x of [1, 2, 3]) expect(seen.filter(([, y]) => y === x).map(([step]) => step)).toEqual(['read', 'apply', 'schema', 'emit']);
    expect(seen).toHaveLength(12);
  });

  test('an apply that never settles holds up its own entity only', async () => {
    const { handle, put, owner } = world({ store: make() });
    const stuck = handle.mutate({ id: 'stuck', apply: () => new Promise<never>(() => {}) });
    const behind = vi.fn(async () => ({}));
    void handle.mutate({ id: 'stuck', apply: behind });
    await Promise.all([put('1', { a: 1 }), put('2', { a: 1 })]);
    expect([...owner.keys()]).toEqual(['1', '2']);
    expect(behind).not.toHaveBeenCalled();
    expect(await Promise.race([stuck, sleep(20, 'pending')])).toBe('pending');
  });

  test('F5: mutateMany reads once, keeps the order of inputs, takes an id twice, and rejects when all have settled', async () => {
    const { handle, write, calls, owner, events } = world({ store: make() });
    owner.set('3', { old: true });
    expect(await handle.mutateMany(['1', '2', '3', '2'].map((id, n) => ({ id, apply: write(id, { n }) })))).toEqual([0, 1, 2, 3].map((n) => ({ n })));
    expect(calls.filter((call) => call.startsWith('read'))).toEqual(['read 1,2,3', 'read 2']);
    expect(events.filter(({ id }) => id === '2').map(({ prev, next }) => [prev, next])).toEqual([[null, { n: 1 }], [{ n: 1 }, { n: 3 }]]);
    expect(events.find(({ id }) => id === '3')!.prev).toEqual({ old: true });
    const [first, second] = [new Error('first'), new Error('second')];
    const slow = { id: '1', apply: () => sleep(20).then(() => Promise.reject(first)) };
    const failed = await rejection(handle.mutateMany([{ id: '4', apply: write('4', {}) }, slow, { id: '5', apply: () => Promise.reject(second) }]));
    expect(failed).toBe(first);
    expect(getEntityFailure(second)).toMatchObject({ stage: 'apply' });
    expect(owner.has('4')).toBe(true);
    expect(await handle.mutateMany([])).toEqual([]);
  });
});

describe('waitUntil', () => {
  const open = () => world({ store: jsStore().store });

  test('resolves at once, or after the change that makes it so', async () => {
    const { handle, put, drop } = open();
    expect(await handle.waitUntil('1', (state) => state === undefined)).toBeUndefined();
    const waiting = handle.waitUntil('1', (state) => state?.n === 2);
    await put('1', { n: 1 });
    await put('2', { n: 2 });
    expect(await Promise.race([waiting, sleep(20, 'waits')])).toBe('waits');
    await put('1', { n: 2 });
    expect(await waiting).toEqual({ n: 2 });
    const gone = handle.waitUntil('1', (state) => state === undefined);
    await drop('1');
    expect(await gone).toBeUndefined();
  });

  test('a change between its look and its sleep is not lost', async () => {
    const { registry, owner } = open();
    const looked = deferred();
    let slow = true;
    const handle = registry.defineEntity<State>({
      kind: 'slow',
      state: z.looseObject({}),
      read: async () => {
        const found = Object.fromEntries(owner);
        if (slow) {
          slow = false;
          await looked.promise;
        }
        return found;
      },
    });
    const waiting = handle.waitUntil('1', (state) => state !== undefined, { timeoutMs: 5000 });
    await handle.mutate({ id: '1', apply: async () => (owner.set('1', { n: 1 }), { n: 1 }) });
    looked.resolve();
    expect(await waiting).toEqual({ n: 1 });
  });

  test('ends by time, by signal, and by what predicate and read throw', async () => {
    const { handle, put, registry } = open();
    expect(await rejection(handle.waitUntil('1', () => false, { timeoutMs: 20 }))).toMatchObject({ hfCode: 'HF_LOCK_TIMEOUT', kind: 'pod', id: '1' });
    const reason = new Error('enough');
    const abort = new AbortController();
    const waiting = rejection(handle.waitUntil('1', () => false, { signal: abort.signal }));
    await sleep(5);
    abort.abort(reason);
    expect(await waiting).toBe(reason);
    expect(await rejection(handle.waitUntil('1', () => false, { signal: abort.signal }))).toBe(reason);
    const thrown = new Error('predicate');
    const picky = rejection(handle.waitUntil('1', (state) => { if (state) throw thrown; return false; }));
    await put('1', { n: 1 });
    expect(await picky).toBe(thrown);
    const broken = registry.defineEntity({ kind: 'broken', state: z.looseObject({}), read: () => Promise.reject(thrown) });
    expect(await rejection(broken.waitUntil('1', () => true))).toBe(thrown);
  });

  test('its time also runs while read does not answer', async () => {
    const { registry } = open();
    const handle = registry.defineEntity({ kind: 'silent', state: z.looseObject({}), read: () => new Promise<never>(() => {}) });
    const ended = Promise.race([rejection(handle.waitUntil('1', () => true, { timeoutMs: 20 })), sleep(1000, 'hangs')]);
    expect(await ended).toMatchObject({ hfCode: 'HF_LOCK_TIMEOUT' });
  });
});

describe('C4: group commit', () => {
  test.each(['after-commit', 'outbox', 'journal'] as const)('1,000 concurrent mutations share their commits (%s)', async (durability) => {
    const store = openStore({ path: `${tempDir()}/e.db` }, { durability });
    const { put, events } = world({ store });
    await put('0', { n: 0 });
    const before = await store.stats();
    await Promise.all(Array.from({ length: 1000 }, (_, n) => put(`e${n}`, { n, status: 'on' })));
    const after = await store.stats();
    expect(after.appended - before.appended).toBe(2000);
    expect(after.batches - before.batches).toBeLessThan(100);
    expect(new Set(events.map(({ changeId }) => changeId)).size).toBe(1001);
    expect(await historyOf(store, 'e999')).toEqual(['n: null -> 999', 'status: null -> on']);
    await until(async () => (await store.stats()).pending === 0);
    expect(await store.stats()).toMatchObject({ pending: 0, lagMs: 0 });
  });

  test('maxBatchRows bounds a commit', async () => {
    const store = openStore({ memory: true }, { maxBatchRows: 10 });
    const { put } = world({ store });
    await Promise.all(Array.from({ length: 200 }, (_, n) => put(`e${n}`, { n })));
    expect((await store.stats()).batches).toBeGreaterThanOrEqual(20);
  });
});

test('serialize: none lets mutations of one entity run side by side', async () => {
  const { handle } = world({ store: jsStore().store, serialize: 'none' });
  const first = deferred();
  const waiting = handle.mutate({ id: '1', apply: () => first.promise.then(() => ({ n: 1 })) });
  expect(await handle.mutate({ id: '1', apply: async () => ({ n: 2 }) })).toEqual({ n: 2 });
  first.resolve();
  await waiting;
});
