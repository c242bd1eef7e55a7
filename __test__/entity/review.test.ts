// @pool forks: it waits long, for stores and not for threads of JavaScript.
// What a review of the module found, each as a test: rare failures that lose, leak or block (a throwing clock, a closed store, too many).
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
import { runInNewContext } from 'node:vm';

import {
  backfillEntity,
  createChangeEmitter,
  createEntityChangeBus,
  createEntityHandle,
  createEntityStore,
  ENTITY_CHANGED_HOOK,
  createRunSecretRegistry,
  getEntityFailure,
  type EntityChanged,
} from 'holdfast';
import { afterEach, describe, expect, test } from 'vitest';
import * as z from 'zod';

import { Backlog, BACKLOG_LIMIT } from '../../src-js/entity/backlog';
import { EntityChangeStream } from '../../src-js/entity/change-stream';
import { LateInternals } from '../../src-js/entity/late-internals';
import { messageOf } from '../../src-js/entity/logging';
import { OutgoingChanges } from '../../src-js/entity/outgoing';
import { UnfinishedChanges } from '../../src-js/entity/unfinished';
import { Lanes } from '../../src-js/entity/lanes';
import { freshSchema } from '../support/postgres';
import { postgresSubject } from './every-store';
import { deferred, historyOf, jsStore, logBook, openStore, rejection, tempDir, until, world, type State } from './support';

/** The engine, as the package under test has it. */
const addon = () => createRequire(import.meta.url)('../../native.cjs') as typeof import('../../native');

const ended = Symbol('ended');
const soon = async <T>(promise: Promise<T>): Promise<T | typeof ended> => Promise.race([promise, sleep(2000, ended)]);

describe('what the history hides stays hidden', () => {
  test.each([
    ['a bigint', { t: 'other', n: 2n }],
    ['a Date', { t: 'other', n: 1, d: new Date(0) }],
    ['a Map', { t: 'other', n: new Map([['a', 1]]) }],
    ['nothing, plain', { t: 'other', n: 2 }],
  ])('in the event and on the stream, when the state after holds %s and the run is not named', async (_, next) => {
    const store = openStore({ path: `${tempDir()}/e.db` });
    const { put, events, secrets } = world({ store });
    const heard: EntityChanged[] = [];
    store.onChange((change) => void heard.push(change));
    secrets.register('r', ['hunter2-token']);
    await put('1', { t: 'hunter2-token', n: 1, m: { deep: 1 } }, { runId: 'r' });
    await put('1', { m: { deep: 1 }, ...next });
    expect(events[1]!.prev).toEqual({ t: '****', n: 1, m: { deep: 1 } });
    expect(heard[1]!.prev).toEqual({ t: '****', n: 1, m: { deep: 1 } });
    expect(events[1]!.next).toEqual({ m: { deep: 1 }, ...next });
  });

});

test('two calls inside one that wait for the same entity are both seen: nobody waits for ever', async () => {
  const { handle, owner } = world({ store: openStore({ memory: true }) });
  const mutate = (id: string, inside?: () => Promise<unknown>) =>
    handle.mutate({ id, apply: async () => (await inside?.(), owner.set(id, { n: owner.size }), { n: Math.random() }) });
  const [holding, gate] = [deferred(), deferred()];
  const first = mutate('B', () => holding.promise);
  await sleep(20);
  const outer = mutate('A', async () => {
    const one = mutate('B');
    await gate.promise;
    await Promise.all([one, mutate('B')]);
  });
  await sleep(20);
  const between = mutate('B', async () => (await sleep(50), mutate('A')));
  await sleep(20);
  gate.resolve();
  await sleep(20);
  holding.resolve();
  expect(await soon(Promise.all([first, outer, between]).then(() => 'fine'))).toBe('fine');
});

describe('a clock that throws', () => {
  test.each([
    ['plain states', { n: 2 }],
    ['others', { n: 2n }],
  ])('while a change is appended blocks nobody, and the change follows (%s)', async (_, state) => {
    let bad = false;
    const store = openStore({ memory: true }, { clock: () => { if (bad) throw new Error('clock'); return new Date(); } });
    const { put, events, handle, owner } = world({ store });
    await put('1', { n: 1 });
    const error = await rejection(handle.mutate({ id: '1', apply: async () => ((bad = true), owner.set('1', state), state) }));
    expect([error.message, getEntityFailure(error)]).toEqual(['clock', { stage: 'append', applied: true, pending: true }]);
    bad = false;
    await put('1', { n: 3 });
    expect(events.map(({ next }) => Number(next!.n))).toEqual([1, 2, 3]);
    expect(await historyOf(store, '1')).toEqual(['n: null -> 1', 'n: 1 -> 2', 'n: 2 -> 3']);
  });
});

test('an append that failed in the engine is tried with the same time, which the stored event has, too', async () => {
  const { store, place } = await postgresSubject({ durability: 'outbox' });
  const { put, events } = world({ store });
  await store.ready();
  const { query } = await import('../support/postgres');
  await query(`ALTER TABLE ${place.schema}.entity_transitions RENAME TO away`);
  const error = await rejection(put('1', { n: 1 }));
  const failed = Date.now();
  expect(getEntityFailure(error)).toMatchObject({ stage: 'append', pending: true });
  await sleep(50);
  await query(`ALTER TABLE ${place.schema}.away RENAME TO entity_transitions`);
  await until(() => events.length === 1);
  expect(Date.parse(events[0]!.occurredAt)).toBeLessThanOrEqual(failed);
});

describe('a closed store', () => {
  const stores = [
    { name: 'a file', make: () => openStore({ path: `${tempDir()}/e.db` }) },
    { name: 'memory', make: () => openStore({ memory: true }, { durability: 'outbox' }) },
    { name: 'Postgres', make: async () => (await postgresSubject()).store },
  ];

  test.each(stores)('$name: has no changes any more, and says so', async ({ make }) => {
    const store = await make();
    const { put } = world({ store });
    const before = store.changes();
    await put('1', { n: 1 });
    await store.close();
    expect((await before.next()).value).toMatchObject({ id: '1' });
    expect(await soon(before.next())).toEqual({ done: true, value: undefined });
    const closed = expect.objectContaining({ hfCode: 'HF_CLOSED' });
    expect(() => store.changes()).toThrow(closed);
    expect(() => store.onChange(() => {})).toThrow(closed);
  });

  test('ends a wait', async () => {
    const store = openStore({ path: `${tempDir()}/e.db` });
    const { handle } = world({ store });
    const waiting = rejection(handle.waitUntil('1', (state) => state !== undefined));
    await sleep(20);
    await store.close();
    expect(await soon(waiting)).toMatchObject({ hfCode: 'HF_CLOSED' });
    expect(await soon(rejection(handle.waitUntil('1', (state) => state !== undefined)))).toMatchObject({ hfCode: 'HF_CLOSED' });
  });

  test('is said to complete a change only if it has an intent on record', async () => {
    for (const [options, pending] of [[{ durability: 'outbox' }, false], [{ durability: 'journal' }, true]] as const) {
      const path = `${tempDir()}/e.db`;
      const store = openStore({ path }, options);
      const { handle, owner } = world({ store });
      const error = await rejection(handle.mutate({ id: '1', apply: async () => (await store.close(), owner.set('1', { n: 1 }), { n: 1 }) }));
      expect(error).toMatchObject({ hfCode: 'HF_CLOSED' });
      expect(getEntityFailure(error)).toEqual({ stage: 'append', applied: true, pending });
      const next = openStore({ path }, options);
      const after = world({ store: next });
      after.owner.set('1', { n: 1 });
      await next.ready();
      expect(after.events).toHaveLength(pending ? 1 : 0);
    }
  });
});

describe('a store that cannot be opened', () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  afterEach(() => void process.off('unhandledRejection', note));

  test('waitUntil ends by its time, and nothing else rejects', async () => {
    process.on('unhandledRejection', note);
    const late = new LateInternals('outbox', undefined, () => Promise.reject(new Error('no tables')), () => {});
    expect(await late.listening()).toBeUndefined();
    const pool = { options: { host: '127.0.0.1', port: 1 }, ended: false, Client: class {}, query: () => Promise.reject(new Error('down')) };
    const db = { $client: pool, execute: async () => [], transaction: async () => Promise.reject(new Error('down')) };
    const store = createEntityStore(db, { durability: 'outbox' });
    const { handle } = world({ store });
    expect(await rejection(handle.waitUntil('1', (state) => state !== undefined, { timeoutMs: 100 }))).toMatchObject({ hfCode: 'HF_LOCK_TIMEOUT' });
    await sleep(20);
    expect(unhandled).toEqual([]);
    await store.close();
  });

  test('one that was closed before it was opened ends its streams, and takes no more', async () => {
    const late = new LateInternals('outbox', undefined, () => Promise.reject(new Error('no tables')), () => {});
    let isEnded = false;
    late.listen(() => {}, () => (isEnded = true));
    late.end();
    expect(isEnded).toBe(true);
    expect(() => late.listen(() => {})).toThrow(expect.objectContaining({ hfCode: 'HF_CLOSED' }));
  });
});

describe('serialize: "database"', () => {
  /** Two pods over one map of states. */
  async function pods() {
    const place = await freshSchema();
    const states = new Map<string, State>();
    const pod = async () => {
      const store = createEntityStore({ connectionString: place.url, schema: place.schema });
      const { registry } = world({ store, serialize: 'database' });
      const read = async (ids: readonly string[]) => Object.fromEntries(ids.flatMap((id) => (states.has(id) ? [[id, states.get(id)!]] : [])));
      const handle = registry.defineEntity<State>({ kind: 'shared', state: z.looseObject({}), read });
      await store.ready();
      return { store, handle };
    };
    return { states, a: await pod(), b: await pod() };
  }
  const rows = async (store: ReturnType<typeof createEntityStore>) =>
    (await store.history({ kind: 'shared', entityId: '1' })).rows.map(({ fromValue, toValue }) => `${fromValue} -> ${toValue}`).reverse();

  test('mutateMany and backfill read under the lock, not before it', async () => {
    const { states, a, b } = await pods();
    const set = (n: number, ms = 0) => async () => (await sleep(ms), states.set('1', { n }), { n });
    await a.handle.mutate({ id: '1', apply: set(1) });
    const slow = a.handle.mutate({ id: '1', apply: set(2, 300) });
    await sleep(100);
    await b.handle.mutateMany([{ id: '1', apply: set(3) }]);
    await slow;
    expect(await rows(a.store)).toEqual(['null -> 1', '1 -> 2', '2 -> 3']);
    expect((await b.store.stats()).gaps).toBe(0);

    states.set('2', { n: 1 });
    const other = a.handle.mutate({ id: '2', apply: async () => (await sleep(300), states.set('2', { n: 2 }), { n: 2 }) });
    await sleep(100);
    expect(await backfillEntity(b.handle, ['2'])).toEqual({ appended: 0 });
    await other;
    expect((await a.store.history({ kind: 'shared', entityId: '2' })).rows.map(({ toValue }) => toValue)).toEqual(['2']);
    await Promise.all([a.store.close(), b.store.close()]);
  });
});

test('those who listen on a store get states with functions, too, each a copy of his own', async () => {
  const store = openStore({ path: `${tempDir()}/e.db` });
  const { put, lines } = world({ store });
  const heard: EntityChanged[] = [];
  store.onChange((change) => { (change.next as State).spoiled = true; heard.push(change); });
  store.onChange((change) => void heard.push(change));
  const f = (): number => 1;
  await put('1', { n: 1, f, deep: { list: [1] } });
  expect(heard.map(({ next }) => next)).toEqual([{ n: 1, f, deep: { list: [1] }, spoiled: true }, { n: 1, f, deep: { list: [1] } }]);
  expect(lines).toEqual([]);
});

describe('too much that waits', () => {
  const many = BACKLOG_LIMIT + 5;

  test('deliveries: of that many entities the oldest are dropped, with a warning each where only memory has them', async () => {
    for (const [store, warnings] of [[undefined, 5], [{}, 1]] as const) {
      const { lines, logger } = logBook();
      const outgoing = new OutgoingChanges({}, 'pod', logger);
      const taken: number[] = [];
      for (let n = 0; n < many; n++) {
        outgoing.keep({ id: `${n}`, store, event: () => ({}) as EntityChanged, deliver: async () => void taken.push(n), retried: () => {} });
      }
      expect(outgoing.size).toBe(BACKLOG_LIMIT);
      expect(lines).toHaveLength(warnings);
      expect(lines[0]).toContain(store === undefined ? 'dropping the oldest, of pod:0' : 'stay recorded');
      await outgoing.flush();
      expect([outgoing.size, taken.length, Math.min(...taken)]).toEqual([0, BACKLOG_LIMIT, 5]);
    }
  });

  test('appends: as deliveries, and the change is let go of', () => {
    const { lines, logger } = logBook();
    const unfinished = new UnfinishedChanges({}, 'pod', new Lanes(), logger);
    const store = {};
    const abandoned: number[] = [];
    for (let n = 0; n < many; n++) {
      unfinished.keep({ id: `${n}`, store, complete: () => Promise.reject(new Error('no')), cause: null, isOnRecord: n === 0, abandon: () => void abandoned.push(n) });
    }
    expect(abandoned).toEqual([0, 1, 2, 3, 4]);
    expect(lines[0]).toContain('pod:0: it is completed when the store is opened anew');
    expect(lines[1]).toContain('pod:1: its history and its event are lost');
    const { lost } = unfinished.stop(store);
    expect(lost).toHaveLength(BACKLOG_LIMIT);
    expect(unfinished.keep({ id: '1', store, complete: async () => {}, cause: null, isOnRecord: true, abandon: () => {} })).toBe(false);
  });

  test('one timer tries all of them: after 100 ms, then after 200, each entity by its own time', async () => {
    const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const tried = new Map<string, number[]>();
    const began = performance.now();
    const backlog: Backlog<{ id: string; store: undefined }> = new Backlog(async (id) => {
      tried.set(id, [...(tried.get(id) ?? []), performance.now() - began]);
      if (tried.get(id)!.length === 2) for (const item of [...backlog.of(id)!]) backlog.done(item);
    }, () => {});
    const before = timers();
    for (let n = 0; n < 500; n++) backlog.keep({ id: `${n}`, store: undefined });
    expect(timers() - before).toBeLessThanOrEqual(1);
    await sleep(60);
    backlog.keep({ id: 'later', store: undefined });
    await until(() => backlog.size === 0);
    const [first, second] = tried.get('0')!;
    expect(first).toBeGreaterThanOrEqual(100);
    expect(second! - first!).toBeGreaterThanOrEqual(200);
    expect(tried.get('later')![0]).toBeGreaterThanOrEqual(160);
    expect(tried.size).toBe(501);
    await sleep(300);
    expect([...tried.values()].every((times) => times.length === 2)).toBe(true);
  });
});

test('handles of one kind share its number in the engine, those with other fields do not', async () => {
  const defined: string[] = [];
  const store = openStore({ memory: true });
  const log = addon().EntityLog.prototype;
  const before = log.defineKind;
  log.defineKind = function (name, known) {
    defined.push(name);
    return before.call(this, name, known);
  };
  try {
    const args = { store, emitter: createChangeEmitter(), secretRegistry: createRunSecretRegistry(), read: async () => ({}) };
    for (let n = 0; n < 20; n++) createEntityHandle<State>({ ...args, kind: 'pod', schema: z.object({ a: z.number(), b: z.number() }) });
    createEntityHandle<State>({ ...args, kind: 'pod', schema: z.object({ b: z.number(), a: z.number() }) });
    createEntityHandle<State>({ ...args, kind: 'pod', schema: z.object({ a: z.number() }) });
    createEntityHandle<State>({ ...args, kind: 'pod2', schema: z.object({ a: z.number() }) });
  } finally {
    log.defineKind = before;
  }
  expect(defined).toEqual(['pod', 'pod', 'pod2']);
});

test('closing a bus ends the tries of its work queues: what was under way rejects with its own error', async () => {
  const bus = createEntityChangeBus();
  let calls = 0;
  const error = new Error('no');
  bus.onHook(ENTITY_CHANGED_HOOK, async () => { calls++; throw error; }, { mode: 'work-queue', workerGroup: 'g' });
  const emitting = rejection(bus.emit({ kind: 'pod', id: '1' } as EntityChanged));
  await sleep(10);
  bus.close();
  expect(await emitting).toBe(error);
  await sleep(100);
  expect(calls).toBe(1);
});

test('a change of a dead process whose state cannot be taken is staged once, keeps its intent, and is completed', async () => {
  const path = `${tempDir()}/e.db`;
  const first = openStore({ path });
  const dying = world({ store: first });
  await rejection(dying.handle.mutate({ id: '1', apply: async () => (await first.close(), { n: 1 }) }));
  const store = openStore({ path });
  const { registry, events } = world({ store, kind: 'other' });
  const log = addon().EntityLog.prototype;
  const adopt = log.adopt;
  let adopted = 0;
  log.adopt = function (...args) {
    adopted++;
    return adopt.apply(this, args);
  };
  let bad = 3;
  const state = { n: 1, get g() { if (bad-- > 0) throw new Error('getter'); return 1; } };
  registry.defineEntity<State>({ kind: 'pod', state: z.looseObject({}), read: async () => ({ 1: state }) });
  await store.ready();
  await until(() => events.length === 1);
  expect(events[0]).toMatchObject({ kind: 'pod', id: '1', prev: null, next: { n: 1, g: 1 } });
  log.adopt = adopt;
  expect((await store.stats()).recovered).toBe(1);
  expect(adopted).toBe(1);
});

test('a logger that throws disturbs no change', async () => {
  const broken = (): never => { throw new Error('logger'); };
  const logger = { debug: broken, info: broken, warn: broken, error: broken };
  const store = openStore({ path: `${tempDir()}/e.db` }, { logger });
  const schema = z.looseObject({ a: z.number().default(1), n: z.unknown() });
  const { put, events, owner, emitFailures } = world({ store, schema, logger });
  store.onChange(broken);
  await put('1', { n: 1 });
  // A default, a gap and a refused delivery: each is worth a warning.
  owner.set('1', { n: 5 });
  emitFailures.push(new Error('down'));
  await put('1', { n: 6 });
  await put('1', { n: 7 });
  expect(events.map(({ next }) => next!.n)).toEqual([1, 6, 7]);
});

test('the default of a schema is told of after the change was sent', async () => {
  const order: string[] = [];
  const { logger } = logBook();
  const schema = z.looseObject({ a: z.number().default(1) });
  const emitter = createChangeEmitter();
  await emitter.wire(async () => void order.push('sent'));
  const { handle, owner } = world({ store: jsStore().store, schema, emitter, wired: false, logger: { ...logger, warn: () => void order.push('warned') } });
  owner.set('1', { n: 1 });
  await handle.mutate({ id: '1', apply: async () => ({ n: 2 }) });
  expect(order).toEqual(['sent', 'warned']);
});

test('what an error of another realm says is told', () => {
  expect(messageOf(runInNewContext('new TypeError("from afar")'))).toBe('from afar');
  expect(['text', 42, null, { message: 'secret' }].map(messageOf)).toEqual(['text', ...Array<string>(3).fill('An error occurred')]);
});

test('a handle asks by the clock of its store', async () => {
  let now = Date.parse('2020-01-01T00:00:00Z');
  const store = openStore({ memory: true }, { clock: () => new Date(now) });
  const { put, handle } = world({ store });
  await put('1', { n: 1 });
  now += 60_000;
  expect(await handle.inStateForMs('1', 'n')).toBe(60_000);
  expect(await handle.transitionCount({ id: '1', field: 'n', windowMs: 60_000 })).toBe(1);
  expect(await handle.transitionCount({ id: '1', field: 'n', windowMs: 59_999 })).toBe(0);
});

test('a reader that is too far behind gets an error with a code, after what it has', async () => {
  let tell: (change: EntityChanged) => void = () => {};
  let isStopped = false;
  const stream = new EntityChangeStream((listener) => { tell = listener; return () => (isStopped = true); }, {}, false);
  for (let n = 0; n <= 10_000; n++) tell({ kind: 'pod', id: `${n}` } as EntityChanged);
  for (let n = 0; n < 10_000; n++) expect((await stream.next()).value).toMatchObject({ id: `${n}` });
  const error = await rejection(stream.next());
  expect(error).toBeInstanceOf(RangeError);
  expect([error.hfCode, isStopped]).toEqual(['HF_BUSY', true]);
});
