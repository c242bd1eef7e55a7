// One table of behaviour over stores of every kind, and what programs bring themselves: stores, emitters and secret registries written
// in JavaScript keep working (A39, R1, R17, R19, R22, R35).
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  createRunSecretRegistry,
  getEntityFailure,
  maskSecrets,
  maskSecretsDeep,
  type ChangeEmitter,
  type EmitEntityChanged,
  type EntityChanged,
  type EntityStore,
  type EntityTx,
  type RunSecretRegistry,
} from 'holdfast';
import { describe, expect, test, vi } from 'vitest';
import * as z from 'zod';

import { EVERY, OWN, PlainStore, dumpOf, plainStore, rowsOf, type Row } from './every-store';
import { deferred, openStore, rejection, tempDir, until, world, type State } from './support';

const texts = (rows: Row[]): string[] => rows.map(({ field, fromValue, toValue }) => `${field}: ${fromValue} -> ${toValue}`);
const SYSTEM = { type: 'system', id: 'system', name: 'System' };

describe.each(EVERY)('on $name', ({ keepsEvents, make }) => {
  test('create, change, change nothing, remove and create again: the same rows, events and results', async () => {
    const { store, rows } = await make();
    const { handle, put, drop, write, events } = world({ store, schema: z.object({ status: z.string(), note: z.unknown().optional(), tags: z.array(z.string()).optional() }) as never });
    expect(await put('7', { status: 'open', extra: 'stripped' })).toEqual({ status: 'open' });
    expect(await put('7', { status: 'open', note: { b: 1, a: [2, null] }, tags: ['x'] })).toEqual({ status: 'open', note: { b: 1, a: [2, null] }, tags: ['x'] });
    await put('7', { tags: ['x'], note: { a: [2, null], b: 1 }, status: 'open' });
    await handle.mutate({ id: '7', opts: { actor: { type: 'user', id: 'u1' } }, apply: write('7', { status: 'done', tags: ['x', 'y'] }) });
    await drop('7');
    await drop('never');
    await put('7', { status: 'open' });
    expect(texts(await rows('7'))).toEqual([
      'status: null -> open',
      'note: null -> {"b":1,"a":[2,null]}',
      'tags: null -> ["x"]',
      'note: {"a":[2,null],"b":1} -> null',
      'status: open -> done',
      'tags: ["x"] -> ["x","y"]',
      'status: null -> open',
    ]);
    // Born: SQL NULL. A field that was absent: the text "null".
    expect((await rows('7')).filter(({ fromValue }) => fromValue === null).map(({ field }) => field)).toEqual(['status', 'status']);
    const one = { kind: 'pod', id: '7', occurredAt: expect.any(String), changeId: expect.any(String) };
    expect(events.map((event) => ({ ...event }))).toEqual([
      { ...one, prev: null, next: { status: 'open' }, delta: { status: 'open' }, changedFields: ['status'], actor: SYSTEM },
      {
        ...one,
        prev: { status: 'open', extra: 'stripped' },
        next: { status: 'open', note: { b: 1, a: [2, null] }, tags: ['x'] },
        delta: { note: { b: 1, a: [2, null] }, tags: ['x'] },
        changedFields: ['note', 'tags'],
        actor: SYSTEM,
      },
      {
        ...one,
        prev: { status: 'open', note: { a: [2, null], b: 1 }, tags: ['x'] },
        next: { status: 'done', tags: ['x', 'y'] },
        delta: { status: 'done', note: null, tags: ['x', 'y'] },
        changedFields: ['note', 'status', 'tags'],
        actor: { type: 'user', id: 'u1' },
      },
      { ...one, prev: { status: 'done', tags: ['x', 'y'] }, next: null, delta: {}, changedFields: ['status', 'tags'], actor: SYSTEM },
      { ...one, prev: null, next: { status: 'open' }, delta: { status: 'open' }, changedFields: ['status'], actor: SYSTEM },
    ]);
    expect(new Set(events.map(({ changeId }) => changeId)).size).toBe(5);
    expect(Object.keys(events[0]!)).toEqual(['kind', 'id', 'prev', 'next', 'delta', 'changedFields', 'actor', 'occurredAt', 'changeId']);
  });

  test('since when, how long and how often', async () => {
    const { handle, put, drop } = world({ store: (await make()).store });
    const before = Date.now();
    await put('1', { status: 'open', n: 1 });
    await sleep(30);
    await put('1', { status: 'open', n: 2 });
    await sleep(30);
    await put('1', { status: 'shut', n: 2 });
    const count = (field: string, windowMs: number) => handle.transitionCount({ id: '1', field, windowMs });
    expect([await count('status', 60_000), await count('n', 60_000), await count('status', 1e17), await count('nothing', 60_000)]).toEqual([2, 2, 2, 0]);
    expect(await count('status', -60_000)).toBe(0);
    const [n, status] = [await handle.inStateSince('1', 'n'), await handle.inStateSince('1', 'status')];
    expect(n!.getTime()).toBeGreaterThan(before);
    expect(status!.getTime() - n!.getTime()).toBeGreaterThanOrEqual(25);
    expect(await handle.inStateForMs('1', 'n')).toBeGreaterThanOrEqual(25);
    expect(await handle.inStateSince('1', 'absent')).toBeNull();
    await drop('1');
    expect([await handle.inStateSince('1', 'n'), await handle.inStateForMs('1', 'n')]).toEqual([null, 0]);
  });

  test('A39: the members of registry, handle, store and emitter work detached', async () => {
    const { store, rows } = await make();
    const { registry, read, owner, emitter, events } = world({ store: null });
    const { defineEntity, setStore, getKinds, entityResolverFor } = registry;
    const { emit, wire } = emitter;
    expect([typeof emit, typeof wire]).toEqual(['function', 'function']);
    setStore({ store });
    const { kind, mutate, remove, get, getMany, inStateSince, inStateForMs, transitionCount } = defineEntity<State>({ kind: 'loose', state: z.looseObject({}), read });
    expect(await mutate({ id: '1', apply: async () => (owner.set('1', { a: 1 }), { a: 1 }) })).toEqual({ a: 1 });
    expect([kind, getKinds(), await get('1'), await getMany(['1', '2']), await entityResolverFor('loose')!(['1'])]).toEqual([
      'loose',
      ['pod', 'loose'],
      { a: 1 },
      { 1: { a: 1 } },
      { 1: { a: 1 } },
    ]);
    expect(await inStateSince('1', 'a')).toBeInstanceOf(Date);
    expect(await inStateForMs('1', 'a')).toBeLessThan(20_000);
    expect(await transitionCount({ id: '1', field: 'a', windowMs: 60_000 })).toBe(1);
    await remove({ id: '1', apply: async () => void owner.delete('1') });
    expect(events.map(({ next }) => next)).toEqual([{ a: 1 }, null]);
    expect(texts(await rows('1', 'loose'))).toEqual(['a: null -> 1']);
  });

  test('A34, A35: 30 concurrent increments of one entity, of which each tenth nests another, are one history', async () => {
    const { store, rows } = await make();
    const { handle, owner, events } = world({ store });
    const increment = (nested: boolean): Promise<State> =>
      handle.mutate({
        id: '1',
        apply: async () => {
          if (nested) await increment(false);
          const n = ((owner.get('1')?.n as number | undefined) ?? 0) + 1;
          await sleep(Math.random());
          owner.set('1', { n });
          return { n };
        },
      });
    const results = await Promise.all(Array.from({ length: 30 }, (_, n) => increment(n % 10 === 5)));
    expect(owner.get('1')).toEqual({ n: 33 });
    expect(new Set(results.map(({ n }) => n)).size).toBe(30);
    expect((await rows('1')).map(({ toValue }) => Number(toValue))).toEqual(Array.from({ length: 33 }, (_, n) => n + 1));
    expect(events.map(({ next }) => next!.n)).toEqual(Array.from({ length: 33 }, (_, n) => n + 1));
  });

  test('R19, R22: an emitter written in JavaScript is awaited, and where nothing keeps the event its own error comes back', async () => {
    class Emitter implements ChangeEmitter {
      readonly taken: EntityChanged[] = [];
      readonly failures: unknown[] = [];
      slow: Promise<void> | null = null;
      get isWired(): boolean {
        return true;
      }
      async wire(_emit: EmitEntityChanged): Promise<void> {}
      async emit(payload: EntityChanged): Promise<void> {
        await this.slow;
        if (this.failures.length > 0) throw this.failures.shift();
        this.taken.push(payload);
      }
    }
    const emitter = new Emitter();
    const { store, rows } = await make();
    const { put } = world({ store, emitter, wired: false });
    const gate = deferred();
    emitter.slow = gate.promise;
    const first = put('1', { n: 1 });
    expect(await Promise.race([first, sleep(100, 'waits')])).toBe('waits');
    gate.resolve();
    expect(await first).toEqual({ n: 1 });
    const error = { not: 'an Error' };
    emitter.failures.push(error);
    const second = put('1', { n: 2 });
    if (keepsEvents) {
      expect(await second).toEqual({ n: 2 });
    } else {
      expect(await rejection(second)).toBe(error);
      expect(getEntityFailure(error)).toMatchObject({ stage: 'emit', applied: true, pending: true, change: { next: { n: 2 } } });
    }
    expect(texts(await rows('1'))).toEqual(['n: null -> 1', 'n: 1 -> 2']);
    await until(() => emitter.taken.length === 2);
    await sleep(150);
    expect(emitter.taken.map(({ prev, next }) => [prev, next])).toEqual([[null, { n: 1 }], [{ n: 1 }, { n: 2 }]]);
  });

  test('a secret registry written in JavaScript masks rows, events and field names, and is asked for the run of the call', async () => {
    const { store, rows } = await make();
    const { registry: secretRegistry, asked } = foreignSecrets();
    const { handle, write, put, events } = world({ store, secretRegistry });
    const run = (state: State) => handle.mutate({ id: '1', opts: { runId: 'r' }, apply: write('1', state) });
    expect(await run({ token: 's3cr3t-a', 'key s3cr3t-a': 1, deep: { list: ['x s3cr3t-a'] } })).toEqual({ token: 's3cr3t-a', 'key s3cr3t-a': 1, deep: { list: ['x s3cr3t-a'] } });
    await run({ token: 's3cr3t-b', 'key s3cr3t-a': 1, deep: { list: ['x s3cr3t-a'] } });
    await handle.remove({ id: '1', opts: { runId: 'r' }, apply: async () => {} });
    expect(events.map(({ changedFields, next }) => [changedFields, next])).toEqual([
      [['deep', 'key [gone]', 'token'], { token: '[gone]', 'key [gone]': 1, deep: { list: ['x [gone]'] } }],
      [['token'], { token: '[gone]', 'key [gone]': 1, deep: { list: ['x [gone]'] } }],
      [['deep', 'key [gone]', 'token'], null],
    ]);
    expect(texts(await rows('1'))).toEqual(['deep: null -> {"list":["x [gone]"]}', 'key [gone]: null -> 1', 'token: null -> [gone]', 'token: [gone] -> [gone]']);
    expect(JSON.stringify([events, await rows('1')])).not.toContain('s3cr3t');
    expect(asked.size).toBe(1);
    expect(asked).toContain('r');
    await put('2', { token: 's3cr3t-a' });
    expect(events.at(-1)!.next).toEqual({ token: 's3cr3t-a' });
    expect([...asked]).toEqual(['r']);
  });

  test('a copy of our secret registry with one function replaced is asked, not bypassed', async () => {
    const { store, rows } = await make();
    const ours = createRunSecretRegistry();
    ours.register('r', ['s3cr3t-a']);
    const maskDeep = vi.fn((runId: string, value: unknown) => maskSecretsDeep({ value: ours.maskDeep(runId, value), values: ['also-hidden'] }));
    const maskText = vi.fn((runId: string, text: string) => maskSecrets({ text: ours.maskText(runId, text), values: ['also-hidden'] }));
    const { handle, write, events } = world({ store, secretRegistry: { ...ours, maskDeep, maskText } });
    await handle.mutate({ id: '1', opts: { runId: 'r' }, apply: write('1', { a: 's3cr3t-a also-hidden' }) });
    expect(events[0]!.next).toEqual({ a: '**** ****' });
    expect(texts(await rows('1'))).toEqual(['a: null -> **** ****']);
    expect(maskDeep).toHaveBeenCalled();
  });
});

/** A vault of another making, which tells for which runs it was asked. */
function foreignSecrets() {
  const asked = new Set<string>();
  const values = ['s3cr3t-a', 's3cr3t-b'];
  class Vault implements RunSecretRegistry {
    register(): void {}
    linkStep(): void {}
    drop(): void {}
    maskText(runId: string, text: string): string {
      asked.add(runId);
      return maskSecrets({ text, values, token: '[gone]' });
    }
    maskDeep(runId: string, value: unknown): unknown {
      asked.add(runId);
      return maskSecretsDeep({ value, values, token: '[gone]' });
    }
    maskTextForStep(): never {
      throw new Error('no handle asks for a step');
    }
    maskDeepForStep(): never {
      throw new Error('no handle asks for a step');
    }
  }
  return { registry: new Vault(), asked };
}

describe.each(OWN)('over $name, whose place another store takes', ({ make }) => {
  type Replaced = Pick<EntityStore, 'runInTransaction' | 'appendTransitions'>;
  const FORMS: { name: string; wrap: (store: EntityStore, by: Replaced) => EntityStore }[] = [
    { name: 'a spread copy', wrap: (store, by) => ({ ...store, ...by }) },
    { name: 'an object that inherits', wrap: (store, by) => Object.assign(Object.create(store) as EntityStore, by) },
    { name: 'a Proxy', wrap: (store, by) => new Proxy(store, { get: (target, key) => Reflect.get(Object.hasOwn(by, key) ? by : target, key) as unknown }) },
  ];

  test.each(FORMS)('A39, R17: $name sees exactly one transaction with one append, and its rows arrive', async ({ wrap }) => {
    const { store, rows } = await make();
    const transactions: unknown[][] = [];
    const spy = vi.fn(store.appendTransitions);
    const runInTransaction: EntityStore['runInTransaction'] = (...args) => {
      transactions.push(args);
      return store.runInTransaction(...args);
    };
    const { put, drop, handle } = world({ store: wrap(store, { runInTransaction, appendTransitions: spy }) });
    await put('1', { z: 1, a: 'x' });
    await put('1', { z: 1, a: 'x' });
    await drop('1');
    expect(transactions.map((args) => args.map((each) => typeof each))).toEqual([['function']]);
    expect(spy).toHaveBeenCalledOnce();
    expect(spy.mock.calls[0]).toHaveLength(1);
    expect(spy.mock.calls[0]![0]).toEqual({
      tx: expect.anything(),
      kind: 'pod',
      entityId: '1',
      transitions: [
        { field: 'a', fromValue: null, toValue: 'x' },
        { field: 'z', fromValue: null, toValue: '1' },
      ],
    });
    expect(Object.keys(spy.mock.calls[0]![0])).toEqual(['tx', 'kind', 'entityId', 'transitions']);
    expect(texts(await rows('1'))).toEqual(['a: null -> x', 'z: null -> 1']);
    expect(await handle.transitionCount({ id: '1', field: 'a', windowMs: 60_000 })).toBe(1);
  });

  test('what the replaced append throws undoes the transaction and comes back as it is; the change is completed once', async () => {
    const { store, rows } = await make();
    const error = new Error('spy');
    const failures = [error];
    const { put, events, owner } = world({
      store: {
        ...store,
        appendTransitions: async (args) => {
          await store.appendTransitions(args);
          if (failures.length > 0) throw failures.shift();
        },
      },
    });
    expect(await rejection(put('1', { n: 1 }))).toBe(error);
    expect(await rows('1')).toEqual([]);
    expect(owner.get('1')).toEqual({ n: 1 });
    await put('1', { n: 2 });
    expect(texts(await rows('1'))).toEqual(['n: null -> 1', 'n: 1 -> 2']);
    expect(events.map(({ next }) => next)).toEqual([{ n: 1 }, { n: 2 }]);
  });

  test('a transaction serves a program directly, and ends with its callback', async () => {
    const { store, rows } = await make();
    const { runInTransaction, appendTransitions } = store;
    let kept: EntityTx;
    const row = (toValue: string) => ({ kind: 'pod', entityId: '1', transitions: [{ field: 'a', fromValue: null, toValue }] });
    const result = await runInTransaction(async (tx) => {
      kept = tx;
      await appendTransitions({ tx, ...row('x') });
      await appendTransitions({ tx, ...row('y') });
      return 'result';
    });
    expect(result).toBe('result');
    for (const tx of [kept, undefined, null, {}, 'tx']) expect(await rejection(appendTransitions({ tx, ...row('late') }))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
    expect(texts(await rows('1'))).toEqual(['a: null -> x', 'a: null -> y']);
  });
});

describe('a store written in JavaScript', () => {
  test('R9, R17: the order of its two calls, their arguments, and the transaction it is given back', async () => {
    const order: unknown[] = [];
    const tx = { mine: true };
    const made = new PlainStore();
    made.runInTransaction = async (fn) => {
      order.push('begin');
      const result = await fn(tx);
      order.push('commit');
      return result;
    };
    made.appendTransitions = async (args) => {
      order.push(args.tx === tx ? 'append' : 'append elsewhere', args.transitions.length);
    };
    const { handle, emitter } = world({ store: made, wired: false });
    await emitter.wire(async () => void order.push('emit'));
    await handle.mutate({ id: '1', apply: async () => (order.push('write'), { b: 1, a: 1 }) });
    expect(order).toEqual(['write', 'begin', 'append', 2, 'commit', 'emit']);
  });

  test('may do without promises, and may throw at once', async () => {
    const rows: unknown[] = [];
    const failures = { begin: [] as Error[], append: [] as Error[] };
    const store = {
      runInTransaction: (fn: (tx: EntityTx) => unknown) => {
        if (failures.begin.length > 0) throw failures.begin.shift();
        return fn(undefined);
      },
      appendTransitions: ({ tx, transitions }: { tx: EntityTx; transitions: readonly unknown[] }) => {
        if (failures.append.length > 0) throw failures.append.shift();
        rows.push(tx, transitions.length);
      },
      inStateSince: () => null,
      transitionCount: () => 3,
    } as unknown as EntityStore;
    const { put, handle, events } = world({ store: Object.freeze(store) });
    await put('1', { n: 1 });
    expect(rows).toEqual([undefined, 1]);
    expect([await handle.inStateSince('1', 'n'), await handle.transitionCount({ id: '1', field: 'n', windowMs: 1 })]).toEqual([null, 3]);
    for (const step of ['begin', 'append'] as const) {
      const error = new Error(step);
      failures[step].push(error);
      expect(await rejection(put('1', { n: step }))).toBe(error);
      expect(getEntityFailure(error)).toEqual({ stage: 'append', applied: true, pending: true });
      await put('1', { n: `after ${step}` });
    }
    expect(events.map(({ next }) => next!.n)).toEqual([1, 'begin', 'after begin', 'append', 'after append']);
  });

  test('may run its callback again, as databases want it after a conflict: the rows are offered whole each time', async () => {
    const { store, rows } = plainStore();
    const runs: number[] = [];
    const { put } = world({
      store: {
        ...store,
        runInTransaction: async (fn) => {
          await store.runInTransaction(async (tx) => (await fn(tx), Promise.reject(new Error('40001')))).catch(() => runs.push(1));
          return store.runInTransaction(fn);
        },
      },
    });
    await put('1', { b: 1, a: 1 });
    expect(runs).toEqual([1]);
    expect(rows.map(({ field }) => field)).toEqual(['a', 'b']);
  });

  test('R23: one that commits and then fails gets the same rows again, and the event comes once', async () => {
    const { store, rows } = plainStore();
    let failing = true;
    const { put, events } = world({
      store: {
        ...store,
        runInTransaction: async (fn) => {
          const result = await store.runInTransaction(fn);
          if (!failing) return result;
          failing = false;
          throw new Error('the answer was lost');
        },
      },
    });
    await rejection(put('1', { n: 1 }));
    await until(() => events.length > 0);
    await sleep(150);
    expect(rows.map(({ fromValue, toValue }) => [fromValue, toValue])).toEqual([[null, '1'], [null, '1']]);
    expect(events).toHaveLength(1);
  });

  test('one whose transaction never ends holds up its entity only', async () => {
    const { store } = plainStore();
    let stuck = true;
    const { put } = world({ store: { ...store, runInTransaction: (fn) => (stuck ? ((stuck = false), new Promise<never>(() => {})) : store.runInTransaction(fn)) } });
    const first = put('1', { n: 1 });
    expect(await put('2', { n: 1 })).toEqual({ n: 1 });
    expect(await Promise.race([first, sleep(30, 'waits')])).toBe('waits');
  });
});

describe('a secret registry written in JavaScript, over stores that record an intent', () => {
  test('no secret is in the file, not even while apply runs', async () => {
    const folder = tempDir();
    const grep = (): string[] => readdirSync(folder).filter((name) => readFileSync(join(folder, name)).includes('s3cr3t'));
    const store = openStore({ path: join(folder, 'entities.db') });
    await withForeignSecrets(store, async () => expect(grep()).toEqual([]));
    expect(await rowsOf(store, '1')).toHaveLength(3);
    await store.close();
    expect(grep()).toEqual([]);
    expect(readdirSync(folder)).toContain('entities.db');
  });

  test('no secret is in Postgres, not even while apply runs', async () => {
    const { store, place } = await OWN.find(({ name }) => name === 'Postgres')!.make();
    let intents = 0;
    await withForeignSecrets(store, async () => {
      const dump = await dumpOf(place!);
      expect(dump).not.toContain('s3cr3t');
      intents += Number(dump.includes('[gone]'));
    });
    expect(intents).toBe(3);
    expect(await dumpOf(place!)).not.toContain('s3cr3t');
  });

  async function withForeignSecrets(store: EntityStore, look: () => Promise<void>): Promise<void> {
    const { handle, owner } = world({ store, secretRegistry: foreignSecrets().registry });
    for (const state of [{ token: 's3cr3t-a', n: 1 }, { token: 's3cr3t-b', n: 1 }, null]) {
      const opts = { runId: 'r' };
      if (state === null) await handle.remove({ id: '1', opts, apply: async () => (await look(), void owner.delete('1')) });
      else await handle.mutate({ id: '1', opts, apply: async () => (await look(), owner.set('1', state), state) });
    }
    // The state before has a secret that no history tells of.
    owner.set('2', { token: 's3cr3t-a' });
    await handle.mutate({ id: '2', opts: { runId: 'r' }, apply: async () => (await look(), { token: 's3cr3t-b' }) });
  }
});
