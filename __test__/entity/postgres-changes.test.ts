// @pool forks: what counts happens in processes of its own.
// What pods tell each other: changes through LISTEN/NOTIFY, waits, the bus, and locks per entity (F2, F4, C3, W5).
import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

import { createEntityChangeBus, createEntityChangedSubscriptions, createEntityStore, type EntityChanged, type NativeEntityStore } from 'holdfast';
import { afterEach, describe, expect, test } from 'vitest';

import { freshSchema, query, restartablePostgres } from '../support/postgres';
import { jsStore, logBook, until, world, type State } from './support';

const opened: NativeEntityStore[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((store) => store.close()));
});

/** Two pods on one table of states. */
async function pods(place?: { url: string; schema?: string }, options: { serialize?: 'database' } = {}) {
  const at: { url: string; schema?: string } = place ?? (await freshSchema());
  const states = new Map<string, State>();
  const pod = (schema: string | undefined) => {
    const store = createEntityStore({ connectionString: at.url, schema });
    opened.push(store);
    const made = world({ store, ...options });
    const read = async (ids: readonly string[]) => Object.fromEntries(ids.flatMap((id) => (states.has(id) ? [[id, states.get(id)!]] : [])));
    const handle = made.registry.defineEntity<State>({ kind: 'shared', state: { '~standard': { version: 1, vendor: 'test', validate: (value) => ({ value: value as State }) } }, read });
    const put = (id: string, state: State) => handle.mutate({ id, apply: async () => (states.set(id, state), state) });
    return { ...made, store, handle, put };
  };
  // One names its schema, the other finds it by its search path.
  return { states, a: pod(at.schema), b: pod(undefined) };
}

describe('changes of other pods', () => {
  test('are heard once, in order, whole, as a callback and as an iterator; their own at once', async () => {
    const { a, b } = await pods();
    const heard: EntityChanged[] = [];
    b.store.onChange((change) => void heard.push(change));
    const stream = b.store.changes({ kind: 'shared' });
    await b.store.ready();
    for (let n = 1; n <= 5; n++) await a.put('1', { n, text: 'ü\u0000' });
    await b.put('2', { n: 1 });
    await until(() => heard.length === 6);
    expect(heard.filter(({ id }) => id === '1').map(({ prev, next }) => [prev?.n ?? null, next?.n])).toEqual([[null, 1], [1, 2], [2, 3], [3, 4], [4, 5]]);
    const changeIds = heard.map(({ changeId }) => changeId);
    expect(new Set(changeIds).size).toBe(6);
    const read: EntityChanged[] = [];
    for await (const change of stream) if (read.push(change) === 6) break;
    expect(read).toEqual(heard);
    expect(heard.find(({ id, next }) => id === '1' && next?.n === 1)).toMatchObject({ kind: 'shared', changedFields: ['n', 'text'], next: { n: 1, text: 'ü\u0000' }, actor: { id: 'system' } });
    await sleep(100);
    expect(heard).toHaveLength(6);
  });

  test('500 in one batch are heard, all of them', async () => {
    const { a, b } = await pods();
    const heard = new Set<string>();
    b.store.onChange(({ id }) => void heard.add(id));
    await b.store.ready();
    await Promise.all(Array.from({ length: 500 }, (_, n) => a.put(`${n}`, { n })));
    await until(() => heard.size === 500);
  });

  test('missed while the connection was broken, they are caught up with', async () => {
    const { a, b } = await pods();
    const heard: unknown[] = [];
    b.store.onChange(({ next }) => void heard.push(next?.n));
    await b.store.ready();
    await a.put('1', { n: 1 });
    await until(() => heard.length === 1);
    // All listening connections die, and while they are away more is recorded.
    await query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()");
    for (let n = 2; n <= 4; n++) await a.put('1', { n });
    await until(() => heard.length === 4);
    await sleep(200);
    expect(heard).toEqual([1, 2, 3, 4]);
  });

  test('a server that was killed is listened to again', async () => {
    const server = await restartablePostgres();
    const { a, b } = await pods({ url: server.url });
    const heard: unknown[] = [];
    b.store.onChange(({ next }) => void heard.push(next?.n));
    await b.store.ready();
    await a.put('1', { n: 1 });
    await server.kill();
    await server.start();
    await a.put('1', { n: 2 });
    await until(() => heard.length === 2, 20_000);
    expect(heard).toEqual([1, 2]);
  }, 40_000);

  test('waitUntil ends with what another pod wrote', async () => {
    const { a, b } = await pods();
    const waiting = b.handle.waitUntil('1', (state) => state?.n === 3, { timeoutMs: 10_000 });
    for (let n = 1; n <= 3; n++) await a.put('1', { n });
    expect(await waiting).toEqual({ n: 3 });
  });

  test('listening alone does not keep a process alive, waiting for a change does', async () => {
    const { url } = await freshSchema();
    const run = (wait: string, timeout: number) =>
      spawnSync(
        process.execPath,
        ['-e', `const { createEntityStore } = require('holdfast'); const store = createEntityStore({ connectionString: ${JSON.stringify(url)} });
         store.onChange(() => {}); store.ready().then(() => { console.log('ready'); ${wait} });`],
        { encoding: 'utf8', timeout, cwd: process.cwd() },
      );
    expect(run('', 10_000)).toMatchObject({ status: 0, stdout: 'ready\n' });
    expect(run('store.changes().next();', 2000)).toMatchObject({ status: null, stdout: 'ready\n' });
  }, 20_000);
});

describe('createEntityChangeBus', () => {
  const subscribed = (store?: NativeEntityStore, logger = logBook().logger) => {
    const bus = createEntityChangeBus({ store, logger });
    const subscriptions = createEntityChangedSubscriptions();
    subscriptions.wire({ onHook: bus.onHook, logger });
    return { bus, subscriptions };
  };

  test('broadcast reaches every pod, once; a work queue one member of the group, in the pod that made the change', async () => {
    const { a, b } = await pods();
    const heard: string[] = [];
    for (const [name, pod] of Object.entries({ a, b })) {
      const { bus, subscriptions } = subscribed(pod.store);
      await pod.emitter.wire(bus.emit);
      subscriptions.onEntityChanged({ kind: 'shared', handler: async ({ id }) => void heard.push(`${name} ${id}`) });
      for (const member of ['x', 'y']) {
        subscriptions.onEntityChanged({ kind: 'shared', delivery: { mode: 'work-queue', workerGroup: 'g' }, handler: async ({ id }) => void heard.push(`${name}${member} ${id}`) });
      }
    }
    await Promise.all([a.store.ready(), b.store.ready()]);
    await a.put('1', { n: 1 });
    await a.put('2', { n: 1 });
    await until(() => heard.length >= 6);
    await sleep(200);
    expect(heard.sort()).toEqual(['a 1', 'a 2', 'ax 1', 'ay 2', 'b 1', 'b 2']);
  });

  test('without a store it is a bus of this process; listeners come and go, and a bad one stops nobody', async () => {
    const { lines, logger } = logBook();
    const { bus, subscriptions } = subscribed(undefined, logger);
    const { put, emitter } = world({ store: jsStore().store, wired: false });
    await emitter.wire(bus.emit);
    const heard: string[] = [];
    bus.onHook({ id: 'automation.entity.changed' }, async () => Promise.reject(new Error('bad listener')));
    bus.onHook<EntityChanged>({ id: 'automation.entity.changed' }, async ({ id }) => void heard.push(`local ${id}`), { mode: 'instance-local' });
    const end = subscriptions.onEntityChanged({ kind: 'pod', handler: async ({ id }) => void heard.push(id) });
    await put('1', { n: 1 });
    await end();
    await put('2', { n: 1 });
    expect(heard.sort()).toEqual(['1', 'local 1', 'local 2']);
    expect(lines.filter((line) => line.includes('bad listener'))).toHaveLength(2);
    expect(() => bus.onHook({ id: 'other' }, async () => {})).toThrow(expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT' }));
    bus.close();
    await put('3', { n: 1 });
    expect(heard).toHaveLength(3);
  });

  test('W18: a work queue tries again, with another member, and gives up after maxRetries', async () => {
    const { bus, subscriptions } = subscribed();
    const { put, emitter } = world({ store: jsStore().store, wired: false });
    await emitter.wire(bus.emit);
    const tried: string[] = [];
    for (const member of ['x', 'y']) {
      subscriptions.onEntityChanged({
        kind: 'pod',
        delivery: { mode: 'work-queue', workerGroup: 'g', maxRetries: 2 },
        handler: async ({ id }) => {
          tried.push(`${member} ${id}`);
          if (id === 'never' || tried.length === 1) throw new Error('no');
        },
      });
    }
    await put('1', { n: 1 });
    expect(tried.splice(0)).toEqual(['x 1', 'y 1']);
    await expect(put('never', { n: 1 })).rejects.toThrow('no');
    expect(tried).toHaveLength(3);
  });
});

describe('serialize: "database"', () => {
  /** Read and written in two steps, as careless owners do. */
  function counters(a: Awaited<ReturnType<typeof pods>>['a'], states: Map<string, State>) {
    return (id: string) =>
      a.handle.mutate({
        id,
        apply: async () => {
          const n = ((states.get(id)?.n as number) ?? 0) + 1;
          await sleep(1);
          states.set(id, { n });
          return { n };
        },
      });
  }

  test('W5: mutations of one entity by two pods run one after the other; others are not held up', async () => {
    const { a, b, states } = await pods(undefined, { serialize: 'database' });
    const [first, second] = [counters(a, states), counters(b, states)];
    // More at a time than there are connections.
    await Promise.all(Array.from({ length: 60 }, (_, i) => (i % 2 ? first : second)(`${i % 3}`)));
    expect([...states.values()].map(({ n }) => n)).toEqual([20, 20, 20]);
    const rows = (await a.store.history({ kind: 'shared', entityId: '0', limit: 100 })).rows.reverse();
    expect(rows.map(({ fromValue, toValue }) => [fromValue, toValue])).toEqual(Array.from({ length: 20 }, (_, i) => [i === 0 ? null : `${i}`, `${i + 1}`]));
    expect((await a.store.stats()).gaps + (await b.store.stats()).gaps).toBe(0);
  });

  test('a mutation inside another one of the same entity does not wait for itself; a failed one gives its lock back', async () => {
    const { a, b, states } = await pods(undefined, { serialize: 'database' });
    await a.handle.mutate({ id: '1', apply: async () => (await a.put('1', { n: 1 }), states.set('1', { n: 2 }), { n: 2 }) });
    await expect(a.handle.mutate({ id: '1', apply: () => Promise.reject(new Error('no')) })).rejects.toThrow('no');
    await b.put('1', { n: 3 });
    expect(states.get('1')).toEqual({ n: 3 });
  });

  test('a pod that is cut off loses its locks', async () => {
    const { a, b } = await pods(undefined, { serialize: 'database' });
    let go: (() => void) | undefined;
    const held = a.handle.mutate({ id: '1', apply: () => new Promise<State>((resolve) => (go = () => resolve({ n: 1 }))) });
    await until(() => go !== undefined);
    const waiting = b.put('1', { n: 2 });
    expect(await Promise.race([waiting, sleep(300, 'waits')])).toBe('waits');
    // The one who waits is cut off as well, sometimes while asking: it asks again, the other's lock is gone.
    await query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory_lock%' AND pid <> pg_backend_pid()");
    await waiting;
    go!();
    await held;
  });

  test('a store without such locks says so', async () => {
    const message = /serialize: "database" needs a store/;
    const plain = world({ store: jsStore().store, serialize: 'database' });
    await expect(plain.put('1', { n: 1 })).rejects.toThrow(message);
    expect(plain.owner.size).toBe(0);
    const store = createEntityStore({ memory: true });
    opened.push(store);
    await expect(world({ store, serialize: 'database' }).put('1', { n: 1 })).rejects.toThrow(message);
  });
});

test('after a broken connection nothing is told that is older than the subscription', async () => {
  const server = await restartablePostgres();
  const { a, b } = await pods({ url: server.url });
  await b.put('1', { n: 1 });
  await b.put('1', { n: 2 });
  const heard: unknown[] = [];
  a.store.onChange(({ next }) => void heard.push(next?.n));
  await a.store.ready();
  await b.put('1', { n: 3 });
  await until(() => heard.length === 1);
  const [ended] = await query<{ n: number }>("SELECT count(pg_terminate_backend(pid))::int AS n FROM pg_stat_activity WHERE query LIKE 'LISTEN%'", [], server.url);
  expect(ended!.n).toBeGreaterThan(0);
  await b.put('1', { n: 4 });
  await until(() => heard.includes(4), 10_000);
  expect(heard).toEqual([3, 4]);
}, 30_000);

test.each(['journal', 'outbox', 'after-commit'] as const)('fields, and ids, that Postgres cannot tell apart are recorded all the same, %s', async (durability) => {
  const { url, schema } = await freshSchema();
  const store = createEntityStore({ connectionString: url, schema }, { durability });
  opened.push(store);
  const { put } = world({ store });
  await put('1', { 'a\u0000': 1, 'a\ufffd': 2 });
  await put('2', { '\ud800': 1, '\ud801': 2 });
  await Promise.all([put('x\u0000', { n: 1 }), put('x\ufffd', { n: 2 })]);
  const values = async (entityId: string) => (await store.history({ kind: 'pod', entityId })).rows.map(({ toValue }) => toValue).sort();
  expect([await values('1'), await values('2'), await values('x\ufffd')]).toEqual([['1', '2'], ['1', '2'], ['1', '2']]);
  // Not again and again until time is up.
  expect((await store.stats()).batches).toBeLessThan(60);
});

test('an id that no index has room for is refused before the owner writes; a shorter one is not', async () => {
  const { a, states } = await pods();
  const longest = 'ü'.repeat((2000 - 'shared'.length) / 2);
  await a.put(longest, { n: 1 });
  expect((await a.store.history({ kind: 'shared', entityId: longest })).rows).toHaveLength(1);
  await expect(a.put(`${longest}x`, { n: 1 })).rejects.toMatchObject({ name: 'HoldfastError', hfCode: 'HF_INVALID_ARGUMENT', kind: 'shared' });
  expect([...states.keys()]).toEqual([longest]);
});
