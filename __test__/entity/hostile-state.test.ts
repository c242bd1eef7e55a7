// @pool forks: it waits long, for stores and not for threads of JavaScript.
// Bad input and bad luck, over holdfast's own stores: states that no text can hold, owners and subscribers that misbehave, a store that
// is closed or a pool that is ended in the middle.
import { setTimeout as sleep } from 'node:timers/promises';

import { createChangeEmitter, createEntityRegistry, createEntityStore, createRunSecretRegistry, getEntityFailure, type EntityChanged } from 'holdfast';
import { drizzle } from 'drizzle-orm/node-postgres';
import { Pool } from 'pg';
import { describe, expect, onTestFinished, test, vi } from 'vitest';

import { freshSchema, query } from '../support/postgres';
import { EVERY, OWN, rowsOf } from './every-store';
import { closeAfterTest, logBook, rejection, until, world, type State } from './support';

const UNREADABLE = '[unserializable]';
const ANY = { '~standard': { version: 1 as const, vendor: 'test', validate: (value: unknown) => ({ value: value as State }) } };

function cycle(): State {
  const state: State = { good: 1 };
  state.self = { inner: [state] };
  return state;
}

function nested(levels: number): unknown {
  let value: unknown = 'end';
  for (let n = 0; n < levels; n++) value = n % 2 ? [value] : { a: value };
  return value;
}

function nestedText(levels: number): string {
  let text = '"end"';
  for (let n = 0; n < levels; n++) text = n % 2 ? `[${text}]` : `{"a":${text}}`;
  return text;
}

const own = <V>(entries: [string, V][]): Record<string, V> => Object.fromEntries(entries);
/** 8 MB, of which each kind of character needs another treatment. */
const HUGE = 'ä"\\x'.repeat(1_600_000);

/** `text`: the row of a field; without one the field gets no row. */
const STATES: { name: string; make: () => State; rows: Record<string, string>; next?: (next: State) => void; warns?: boolean }[] = [
  { name: 'a cycle', make: cycle, rows: { good: '1', self: UNREADABLE }, next: (next) => expect(next).toEqual({ good: 1, self: UNREADABLE }), warns: true },
  {
    name: 'functions and symbols',
    make: () => ({ f: () => 1, s: Symbol('s'), nested: { f: () => 1, s: Symbol('s'), n: 1 }, list: [() => 1, 1] }),
    rows: { list: '[null,1]', nested: '{"n":1}' },
  },
  { name: 'bigints', make: () => ({ big: 2n ** 70n, nested: { big: 1n } }), rows: { big: '1180591620717411303424', nested: '{"big":"1"}' } },
  { name: 'a string of 8 MB', make: () => ({ huge: HUGE }), rows: { huge: HUGE }, next: (next) => expect(next.huge === HUGE).toBe(true) },
  {
    name: '__proto__ and other names of Object.prototype',
    make: () => own<unknown>([['__proto__', { polluted: 1 }], ['constructor', 'c'], ['toString', 't'], ['hasOwnProperty', 1], ['', 'empty']]),
    rows: own([['', 'empty'], ['__proto__', '{"polluted":1}'], ['constructor', 'c'], ['hasOwnProperty', '1'], ['toString', 't']]),
    next: (next) => expect(Object.keys(next).sort()).toEqual(['', '__proto__', 'constructor', 'hasOwnProperty', 'toString']),
  },
  {
    name: '10,000 fields',
    make: () => own(Array.from({ length: 10_000 }, (_, n) => [`f${n}`, n])),
    rows: Object.fromEntries(Array.from({ length: 10_000 }, (_, n) => [`f${n}`, String(n)])),
    next: (next) => expect(Object.keys(next)).toHaveLength(10_000),
  },
  { name: '9,000 levels', make: () => ({ deep: nested(9_000), n: 1 }), rows: { deep: nestedText(9_000), n: '1' } },
  { name: '100,000 levels', make: () => ({ deep: nested(100_000), n: 1 }), rows: { deep: UNREADABLE, n: '1' }, warns: true },
  {
    name: 'dates, maps, sets, typed arrays and numbers without JSON',
    make: () => ({ at: new Date(0), map: new Map([['a', 1]]), set: new Set([1]), bytes: new Uint8Array([1, 2]), nan: Number.NaN, inf: Infinity, zero: -0 }),
    rows: { at: '"1970-01-01T00:00:00.000Z"', bytes: '{"0":1,"1":2}', map: '{}', set: '{}', zero: '0' },
  },
  {
    name: 'getters and toJSON',
    make: () => {
      let looks = 0;
      return { get n() { return ++looks; }, json: { toJSON: () => 'said' } };
    },
    rows: { json: '"said"', n: expect.stringMatching(/^\d+$/) as never },
  },
];

describe.each(EVERY.filter(({ name }) => !name.includes('class')))('hostile states on $name', ({ make }) => {
  test.each(STATES)('$name', async ({ make: state, rows: expected, next: check, warns = false }) => {
    const { store, rows } = await make();
    const { put, drop, owner, events, lines, handle } = world({ store, schema: ANY as never });
    const given = state();
    // Born with it, kept, changed away from it and back, removed.
    expect(await put('1', given)).toBe(given);
    const byField = ({ field }: { field: string }, other: { field: string }): number => (field < other.field ? -1 : 1);
    const born = (await rows('1')).sort(byField);
    const names = Object.keys(expected).sort();
    expect(born.map(({ field }) => field)).toEqual(names);
    for (const row of born) {
      expect(row.fromValue).toBeNull();
      const text = Object.getOwnPropertyDescriptor(expected, row.field)!.value as string;
      // A message with 8 MB in it helps nobody.
      if (row.toValue !== text) expect(row.toValue.slice(0, 500)).toEqual(typeof text === 'string' ? text.slice(0, 500) : text);
    }
    expect(events).toHaveLength(1);
    expect(events[0]!.changedFields).toEqual(names);
    check?.(events[0]!.next!);
    expect(lines.some((line) => line.includes(UNREADABLE))).toBe(warns);
    const field = names[0]!;
    if (field in given && expected[field] !== UNREADABLE) expect(await handle.inStateSince('1', field)).toBeInstanceOf(Date);
    await put('1', { plain: true });
    expect(events[1]!.delta).toMatchObject({ plain: true });
    await put('1', state());
    expect(events[2]!.prev).toEqual({ plain: true });
    const before = events.length;
    if (!names.includes('n') || warns) await put('1', state());
    expect(events).toHaveLength(before);
    await drop('1');
    expect(events.at(-1)).toMatchObject({ next: null, delta: {}, changedFields: names });
    await put('1', { plain: true });
    expect(events.at(-1)!.prev).toBeNull();
    expect(({} as State).polluted).toBeUndefined();
  });

  test('a getter and a toJSON that throw reject with their error: nothing is recorded, nothing is promised, and the entity goes on', async () => {
    const { store, rows } = await make();
    const { handle, put, owner, events } = world({ store, schema: ANY as never });
    const error = new Error('getter');
    const bad: State[] = [{ get a() { throw error; } }, { a: { toJSON: () => { throw error; } } }];
    for (const state of bad) {
      expect(await rejection(handle.mutate({ id: '1', apply: async () => state }))).toBe(error);
      expect(getEntityFailure(error)).toMatchObject({ applied: true, pending: false });
    }
    owner.set('2', bad[0]!);
    expect(await rejection(put('2', { a: 1 }))).toBe(error);
    expect([events, await rows('1'), await rows('2')]).toEqual([[], [], []]);
    await put('1', { a: 1 });
    expect(events.map(({ prev, next }) => [prev, next])).toEqual([[null, { a: 1 }]]);
  });
});

describe.each(OWN)('on $name', ({ name, keepsEvents, make }) => {
  test('C5: NUL and lone surrogates in values, fields and ids: subscribers get them, the database what it can hold, and both are found again', async () => {
    const { store, rows } = await make();
    const { put, events, handle } = world({ store });
    const id = 'e\0\ud800';
    const state = { value: 'a\0b\ud800c', 'field\0\udfff': 1, deep: { 'k\0': ['\ud800'] } };
    expect(await put(id, state)).toEqual(state);
    expect(events[0]).toMatchObject({ id, next: state, delta: state });
    expect(events[0]!.changedFields).toEqual(['deep', 'field\0\udfff', 'value']);
    const nul = name === 'Postgres' ? '\ufffd' : '\0';
    expect((await rows(id)).map(({ field, toValue }) => [field, toValue])).toEqual([
      ['deep', '{"k\\u0000":["\\ud800"]}'],
      [`field${nul}\ufffd`, '1'],
      ['value', `a${nul}b\ufffdc`],
    ]);
    for (const field of Object.keys(state) as (keyof State & string)[]) {
      expect(await handle.inStateSince(id, field)).toBeInstanceOf(Date);
      expect(await handle.transitionCount({ id, field, windowMs: 60_000 })).toBe(1);
    }
    await put(id, { ...state, value: 'a\0b\udfffc' });
    expect(events[1]).toMatchObject({ delta: { value: 'a\0b\udfffc' }, prev: state });
  });

  test('an event that was refused comes again with what the state was, whatever was in it', async () => {
    const { store } = await make();
    const { put, events, emitFailures } = world({ store, schema: ANY as never });
    const state = own<unknown>([['__proto__', { a: 1 }], ['nul', 'a\0b'], ['big', 'x'.repeat(100_000)], ['n', 1.5e300]]);
    emitFailures.push(new Error('down'));
    await put('1', state).catch(() => {});
    await until(() => events.length === 1);
    expect(events[0]!.next).toEqual(state);
    expect(Object.keys(events[0]!.next!)).toEqual(['__proto__', 'nul', 'big', 'n']);
  });

  test('what is no state is told before anything is recorded', async () => {
    const { store, rows } = await make();
    const { handle, events } = world({ store });
    for (const result of [undefined, 7, 'text', [], () => 1]) {
      expect(await rejection(handle.mutate({ id: '1', apply: async () => result as never }))).toHaveProperty('issues');
    }
    expect(await rejection(handle.mutate({ id: '1', apply: async () => null as never }))).toMatchObject({ hfCode: 'HF_ENTITY_NO_STATE' });
    expect([events, await rows('1')]).toEqual([[], []]);
  });

  describe('read', () => {
    const over = async (read: (ids: ReadonlyArray<string>) => unknown) => {
      const subject = await make();
      const { registry, events } = world({ store: subject.store });
      return { ...subject, events, handle: registry.defineEntity<State>({ kind: 'k', state: ANY, read: read as never }) };
    };

    test('that throws, at once or later, comes back as it is, with no trace', async () => {
      const error = new Error('read');
      const apply = vi.fn(async () => ({ a: 1 }));
      for (const read of [() => { throw error; }, () => Promise.reject(error)]) {
        const { handle, events, rows } = await over(read);
        for (const call of [handle.mutate({ id: '1', apply }), handle.remove({ id: '1', apply: apply as never })]) expect(await rejection(call)).toBe(error);
        expect(getEntityFailure(error)).toEqual({ stage: 'read', applied: false, pending: false });
        expect([events, await rows('1', 'k')]).toEqual([[], []]);
      }
      expect(apply).not.toHaveBeenCalled();
    });

    test('that returns more ids than it was asked for, other ids, or inherited ones: only its own entry counts', async () => {
      const prototype = { inherited: { a: 0 } };
      const { handle, events } = await over(async () => Object.assign(Object.create(prototype) as State, { 1: { a: 1 }, 2: { a: 2 }, other: 'text', none: null, undef: undefined }));
      await handle.mutate({ id: '1', apply: async () => ({ a: 3 }) });
      for (const id of ['inherited', 'constructor', '__proto__', 'none', 'undef']) await handle.mutate({ id, apply: async () => ({ a: 3 }) });
      expect(events.map(({ id, prev }) => [id, prev])).toEqual([['1', { a: 1 }], ...['inherited', 'constructor', '__proto__', 'none', 'undef'].map((id) => [id, null])]);
      expect([await handle.get('constructor'), await handle.get('none'), await handle.inStateSince('none', 'a')]).toEqual([undefined, undefined, null]);
    });

    test.each([undefined, null, 7, 'text'])('that returns %j instead of states is told so before apply', async (nothing) => {
      const { handle, rows } = await over(async () => nothing);
      const apply = vi.fn(async () => ({ a: 1 }));
      const error = await rejection(handle.mutate({ id: '1', apply }));
      expect(error).toBeInstanceOf(TypeError);
      expect(error).toMatchObject({ hfCode: 'HF_ENTITY_READ_INVALID', message: expect.stringContaining('"k"') });
      expect(getEntityFailure(error)).toMatchObject({ stage: 'read', applied: false });
      expect(apply).not.toHaveBeenCalled();
      expect(await rows('1', 'k')).toEqual([]);
    });
  });

  describe('apply', () => {
    test('that throws at once, or a thing that is no error, leaves no trace and blocks nobody', async () => {
      const { store, rows } = await make();
      const { handle, put, events } = world({ store });
      const thrown: unknown[] = [new Error('apply'), 'text', undefined, null, 0, { then: 1 }];
      for (const value of thrown) {
        for (const apply of [() => { throw value; }, () => Promise.reject(value)]) {
          expect(await rejection(handle.mutate({ id: '1', apply }))).toBe(value);
          expect(await rejection(handle.remove({ id: '1', apply }))).toBe(value);
        }
      }
      expect(getEntityFailure(thrown[0])).toEqual({ stage: 'apply', applied: false, pending: false });
      expect([events, await rows('1')]).toEqual([[], []]);
      await put('1', { a: 1 });
      expect(events).toHaveLength(1);
    });

    test('C2: that mutates and removes the same entity, three deep, without waiting for itself', async () => {
      const { store, rows } = await make();
      const { handle, write, put, drop, events } = world({ store });
      const deep = (levels: number): Promise<State> =>
        handle.mutate({
          id: '1',
          apply: async () => {
            if (levels > 0) await deep(levels - 1);
            return write('1', { n: levels })();
          },
        });
      expect(await Promise.race([deep(3), sleep(10_000, 'deadlock')])).toEqual({ n: 3 });
      expect(events.map(({ next }) => next!.n)).toEqual([0, 1, 2, 3]);
      await handle.remove({ id: '1', apply: async () => (await put('1', { n: 9 }), await drop('1')) });
      await put('1', { n: 10 });
      expect(events.slice(4).map(({ next }) => next?.n ?? null)).toEqual([9, null, null, 10]);
      expect((await rows('1')).map(({ toValue }) => toValue)).toEqual(['0', '1', '2', '3', '9', '10']);
    });

    test('that runs for a while and edits its own state in place: what was before is what was before', async () => {
      const { store } = await make();
      const { handle, put, owner, events } = world({ store });
      await put('1', { list: [1], n: 1 });
      await handle.mutate({
        id: '1',
        apply: async () => {
          const state = owner.get('1')!;
          (state.list as number[]).push(2);
          await sleep(5);
          state.n = 2;
          return state;
        },
      });
      expect(events[1]).toMatchObject({ prev: { list: [1], n: 1 }, next: { list: [1, 2], n: 2 }, changedFields: ['list', 'n'] });
    });
  });

  describe('a subscriber', () => {
    test('that throws anything costs nothing that is recorded, and hears it again', async () => {
      const { store, rows } = await make();
      const { put, events, emitFailures } = world({ store });
      for (const thrown of [new Error('down'), 'text', undefined, null]) {
        emitFailures.push(thrown);
        const outcome = put('1', { n: String(thrown) });
        if (keepsEvents) await outcome;
        else expect(await rejection(outcome)).toBe(thrown);
      }
      await until(() => events.length === 4);
      expect(events.map(({ next }) => next!.n)).toEqual(['Error: down', 'text', 'undefined', 'null']);
      expect((await rows('1')).map(({ toValue }) => toValue)).toEqual(['Error: down', 'text', 'undefined', 'null']);
    });

    test('that mutates the same entity, another one, and removes, hears everything in order', async () => {
      const { store } = await make();
      const { handle, write, put, drop, events, emitter, target } = world({ store, wired: false });
      await emitter.wire(async (event) => {
        await target(event);
        if (event.id === '1' && event.next?.n === 1) await put('1', { n: 2 });
        if (event.id === '1' && event.next?.n === 2) await put('2', { n: 1 });
        if (event.id === '2' && event.next) await drop('2');
      });
      await Promise.race([handle.mutate({ id: '1', apply: write('1', { n: 1 }) }), sleep(10_000).then(() => Promise.reject(new Error('deadlock')))]);
      expect(events.map(({ id, next }) => [id, next?.n ?? null])).toEqual([['1', 1], ['1', 2], ['2', 1], ['2', null]]);
    });

    test('C7: that edits the event touches neither the owner nor the next event nor what mutate returns', async () => {
      const { store } = await make();
      const { put, owner, emitter } = world({ store, wired: false });
      const heard: unknown[] = [];
      await emitter.wire(async (event) => {
        heard.push(structuredClone({ prev: event.prev, next: event.next }));
        (event.next!.list as number[]).push(99);
        if (event.prev) (event.prev.list as number[]).length = 0;
        event.changedFields.sort().length = 0;
        event.next = null;
      });
      const first = { list: [1] };
      const result = await put('1', first);
      expect([result, first, owner.get('1')]).toEqual([{ list: [1] }, { list: [1] }, { list: [1] }]);
      await put('1', { list: [1, 2] });
      expect(heard).toEqual([{ prev: null, next: { list: [1] } }, { prev: { list: [1] }, next: { list: [1, 2] } }]);
    });
  });

  test('closed in the middle of 200 mutations: each settles, and each that resolved is in the history once', async () => {
    const { store, reopen } = await make();
    const { put, owner, events } = world({ store });
    await store.ready();
    const all = Array.from({ length: 200 }, async (_, n) => {
      if (n > 40) await sleep(n / 20);
      return put(`e${n % 50}`, { n });
    });
    await sleep(4);
    const closing = store.close();
    const outcomes = await Promise.race([Promise.allSettled(all), sleep(20_000).then(() => Promise.reject(new Error('hangs')))]);
    await closing;
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected').map(({ reason }) => reason as Error);
    expect(refused.length).toBeGreaterThan(0);
    for (const error of refused) expect(error).toMatchObject({ hfCode: 'HF_CLOSED', message: expect.stringContaining('entity store is closed') });
    await store.close();
    if (reopen === null) return;
    const later = reopen();
    const after = world({ store: later });
    owner.forEach((state, id) => after.owner.set(id, state));
    await later.ready();
    await until(async () => (await later.stats()).pending === 0);
    for (let entity = 0; entity < 50; entity++) {
      const values = (await rowsOf(later, `e${entity}`)).map(({ toValue }) => Number(toValue));
      const acknowledged = outcomes.flatMap((outcome, n) => (outcome.status === 'fulfilled' && n % 50 === entity ? [n] : []));
      expect(values.filter((n) => acknowledged.includes(n))).toEqual(acknowledged);
      // Whatever the owner was left with is the last that is known of it, told once for each row.
      if (owner.has(`e${entity}`) || values.length > 0) expect(values.at(-1)).toBe(owner.get(`e${entity}`)!.n);
      const told = [...events, ...after.events].filter(({ id }) => id === `e${entity}`);
      expect([...new Map(told.map((event) => [event.changeId, event.next!.n])).values()]).toEqual(values);
    }
  });
});

describe.each(['native', 'delegate'] as const)('a drizzle pool that is ended in the middle (%s)', (driver) => {
  test('each mutation settles, what resolved is there once, and nothing keeps the schema', async () => {
    const place = await freshSchema();
    await query(
      `CREATE TABLE entity_transitions (id text PRIMARY KEY, kind text NOT NULL, entity_id text NOT NULL, field text NOT NULL,
        from_value text, to_value text NOT NULL, transitioned_at timestamp NOT NULL DEFAULT now())`,
      [],
      place.url,
    );
    const pool = new Pool({ connectionString: place.url, max: 4 });
    onTestFinished(() => (pool.ending ? undefined : pool.end()));
    const store = closeAfterTest(createEntityStore(drizzle(pool), { driver }));
    const events: EntityChanged[] = [];
    const emitter = createChangeEmitter();
    await emitter.wire(async (event) => void events.push(event));
    const { lines, logger } = logBook();
    const registry = createEntityRegistry({ emitter, secretRegistry: createRunSecretRegistry(), logger });
    const handle = registry.defineEntity<State>({ kind: 'pod', state: ANY, read: async () => ({}) });
    registry.setStore({ store });
    await store.ready();
    const all = Array.from({ length: 100 }, async (_, n) => {
      await sleep(n / 10);
      return handle.mutate({ id: `e${n}`, apply: async () => ({ n }) });
    });
    await sleep(5);
    const ended = pool.end();
    const outcomes = await Promise.race([Promise.allSettled(all), sleep(20_000).then(() => Promise.reject(new Error('hangs')))]);
    await ended;
    const resolved = outcomes.flatMap((outcome, n) => (outcome.status === 'fulfilled' ? [n] : []));
    const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as Error] : []));
    expect([resolved.length > 0, refused.length > 0]).toEqual([true, true]);
    for (const error of refused) {
      expect(error).toMatchObject({ message: 'Cannot use a pool after calling end on the pool', hfCode: 'HF_CLOSED' });
      expect(getEntityFailure(error)).toMatchObject({ stage: 'append', applied: true });
    }
    const rows = await query<{ n: string }>('SELECT to_value AS n FROM entity_transitions ORDER BY to_value::int', [], place.url);
    const stored = rows.map(({ n }) => Number(n));
    expect(new Set(stored).size).toBe(stored.length);
    expect(stored.filter((n) => resolved.includes(n))).toEqual(resolved);
    expect([...new Set(events.map(({ next }) => next!.n as number))].sort((a, b) => a - b)).toEqual(resolved);
    expect(await Promise.race([store.close(), sleep(5000, 'hangs')])).toBeUndefined();
    await query(`SET lock_timeout = 1000; DROP SCHEMA ${place.schema} CASCADE`);
    expect(lines.filter((line) => line.startsWith('error'))).toEqual([]);
  });
});
