// Copies of states by value (R11, C7), and which states the engine can derive changes from.
import { describe, expect, it } from 'vitest';
import { stableStringify } from '../../src-js/entity/canonical';
import { serializeFieldValue } from '../../src-js/entity/field-text';
import { isPlainJson, snapshotState } from '../../src-js/entity/snapshot';
import { anyValue, newSeed, random } from './random-values';

type State = Record<string, unknown>;

describe('snapshotState', () => {
  it('shares nothing that can be edited', () => {
    const state = {
      list: [{ a: 1 }],
      object: { b: { c: [2] } },
      at: new Date(5),
      map: new Map<unknown, unknown>([[{ k: 1 }, [1]]]),
      set: new Set<unknown>([[1]]),
      bytes: new Uint8Array([1, 2]),
      buffer: Buffer.from([3]),
    };
    const before = structuredClone(state);
    const snapshot = snapshotState(state);
    state.list[0] = { a: 9 };
    state.object.b.c.push(9);
    state.at.setTime(9);
    (state.map.values().next().value as number[]).push(9);
    (state.map.keys().next().value as { k: number }).k = 9;
    (state.set.values().next().value as number[]).push(9);
    state.bytes[0] = 9;
    state.buffer[0] = 9;
    expect(snapshot).toEqual({ ...before, buffer: Buffer.from([3]) });
    expect(snapshot.at).toBeInstanceOf(Date);
    expect(Buffer.isBuffer(snapshot.buffer)).toBe(true);
  });

  it('keeps null, undefined fields and functions', () => {
    const f = (): number => 1;
    expect(snapshotState(null)).toBeNull();
    const snapshot = snapshotState({ a: undefined, f, list: [undefined, f] });
    expect(snapshot).toStrictEqual({ a: undefined, f, list: [undefined, f] });
  });

  it('replaces what has a toJSON by what it means, and classes by plain objects', () => {
    class Point { x = 1; norm(): number { return 1; } }
    class Day extends Date { override toJSON(): string { return 'a day'; } }
    const snapshot = snapshotState({ url: new URL('https://x.org/'), point: new Point(), day: new Day(), boxed: new String('s') });
    expect(snapshot).toEqual({ url: 'https://x.org/', point: { x: 1 }, day: 'a day', boxed: 's' });
    expect(Object.getPrototypeOf(snapshot.point)).toBe(Object.prototype);
  });

  it('defines __proto__ at the top and inside', () => {
    const snapshot = snapshotState(JSON.parse('{"__proto__":{"a":1},"b":{"__proto__":{"c":[1]}}}') as State);
    expect(Object.getPrototypeOf(snapshot)).toBe(Object.prototype);
    expect(JSON.stringify(snapshot)).toBe('{"__proto__":{"a":1},"b":{"__proto__":{"c":[1]}}}');
  });

  it('replaces a field that contains itself, and only that one, and warns without its value', () => {
    const state: State = { fine: [1], password: 'hunter2' };
    state['self'] = state;
    state['deep'] = levels(20_000);
    const list: unknown[] = [new Map()];
    (list[0] as Map<string, unknown>).set('list', list);
    state['list'] = list;
    const warnings: string[] = [];
    expect(snapshotState(state, (message) => warnings.push(message))).toEqual({
      fine: [1],
      password: 'hunter2',
      self: '[unserializable]',
      deep: '[unserializable]',
      list: '[unserializable]',
    });
    expect(warnings).toEqual([
      'the field "self" contains itself, so it is recorded as [unserializable]',
      'the field "deep" has more than 10,000 levels, so it is recorded as [unserializable]',
      'the field "list" contains itself, so it is recorded as [unserializable]',
    ]);
  });

  it('copies what only repeats, and ends for what branches into itself', () => {
    const shared = { a: 1 };
    const snapshot = snapshotState({ x: shared, y: [shared, shared] });
    expect(snapshot).toEqual({ x: { a: 1 }, y: [{ a: 1 }, { a: 1 }] });
    const both: unknown[] = [];
    both.push(both, both);
    expect(snapshotState({ both })).toEqual({ both: '[unserializable]' });
  });

  it('copies 10,000 levels', () => {
    const snapshot = snapshotState({ deep: levels(10_000) });
    expect(stableStringify(snapshot.deep)).toBe('['.repeat(10_000) + ']'.repeat(10_000));
  });

  it('calls getters once, and lets their errors through', () => {
    let calls = 0;
    expect(snapshotState({ a: { get b() { return ++calls; } } })).toEqual({ a: { b: 1 } });
    const error = new Error('mine');
    expect(() => snapshotState({ get a(): never { throw error; } })).toThrow(error);
  });

  it('keeps the canonical text of random values', () => {
    const seed = newSeed();
    console.log(`snapshotState: HOLDFAST_TEST_SEED=${seed}`);
    const next = random(seed);
    for (let i = 0; i < 10_000; i++) {
      const value = anyValue(next, 4);
      expect(stableStringify(snapshotState({ value }).value), `seed ${seed}, round ${i}`).toBe(stableStringify(value));
    }
  });
});

describe('isPlainJson', () => {
  const nullPrototype = Object.assign(Object.create(null) as State, { a: 1 });
  class Point { x = 1; }

  it.each<[string, State | null, boolean]>([
    ['null', null, true],
    ['nothing', {}, true],
    ['data', { s: 'x', n: 1.5, nan: NaN, b: true, z: null, list: [1, [2], {}], o: { a: { b: 'c' } } }, true],
    ['lone surrogates and odd keys', { '\ud800': '\udfff', '': 1, '10': 2, constructor: 3 }, true],
    ['__proto__', JSON.parse('{"__proto__":1,"a":{"__proto__":[]}}') as State, true],
    ['nested undefined and holes', { a: { b: undefined }, list: [undefined, , 1] }, true],
    ['null prototypes and class instances', { n: nullPrototype, p: new Point(), e: new Error('x') }, true],
    ['a class instance as state', new Point() as unknown as State, true],
    ['an undefined field', { a: undefined }, false],
    ['a bigint', { a: [1n] }, false],
    ['a function', { a: { f: () => 1 } }, false],
    ['a function in a list', { a: [() => 1] }, false],
    ['a symbol', { a: Symbol('x') }, false],
    ['a Map', { a: new Map() }, false],
    ['a Set in a list', { a: [new Set()] }, false],
    ['a subclass of Map', { a: new (class Named extends Map {})() }, false],
    ['a typed array', { a: new Uint8Array(1) }, false],
    ['a Buffer', { a: Buffer.from('x') }, false],
    ['a toJSON', { a: { toJSON: () => 1 } }, false],
    ['an array with a toJSON', { a: Object.assign([], { toJSON: () => 1 }) }, false],
    ['a state with a toJSON', { toJSON: () => 1, a: 1 }, false],
    ['a Date', { a: new Date(0) }, false],
    ['a Date inside', { a: [{ at: new Date(0) }] }, false],
    ['an array as state', [1] as unknown as State, false],
    ['a Date as state', new Date(0) as unknown as State, false],
    ['a Map as state', new Map() as unknown as State, false],
    ['a boxed primitive', { a: new Number(1) }, false],
    ['499 levels below a field', { a: levels(499) }, true],
    ['500 levels below a field', { a: levels(500) }, false],
    ['very many levels', { a: levels(200_000) }, false],
  ])('%s', (_, state, plain) => {
    expect(isPlainJson(state)).toBe(plain);
  });

  it('says no to cycles, also to branching ones, at once', () => {
    const state: State = { a: 1 };
    state['x'] = [state, state];
    expect(isPlainJson(state)).toBe(false);
  });

  it('says yes only where the JSON text means the same, for random states', () => {
    const seed = newSeed();
    console.log(`isPlainJson: HOLDFAST_TEST_SEED=${seed}`);
    const next = random(seed);
    let plain = 0;
    for (let i = 0; i < 30_000; i++) {
      const state: State = { a: anyValue(next, 3), b: anyValue(next, 2) };
      if (isPlainJson(state)) {
        plain++;
        const read = JSON.parse(JSON.stringify(state)) as State;
        const where = `seed ${seed}, round ${i}: ${stableStringify(state)}`;
        expect(Object.keys(read), where).toEqual(Object.keys(state));
        for (const field of Object.keys(state)) {
          expect(stableStringify(read[field]), where).toBe(stableStringify(state[field]));
          expect(serializeFieldValue(read[field]), where).toBe(serializeFieldValue(state[field]));
        }
      }
    }
    expect(plain).toBeGreaterThan(2_000);
  });
});

function levels(count: number): unknown {
  let value: unknown = [];
  for (let i = 1; i < count; i++) {
    value = [value];
  }
  return value;
}
