// Which fields changed (A26, A27), and the text of a field in the log (A25).
import { describe, expect, it } from 'vitest';
import { structurallyEqual } from '../../src-js/entity/canonical';
import { diffEntityState, diffStates, type State } from '../../src-js/entity/diff';
import { serializeFieldValue } from '../../src-js/entity/field-text';

const proto = (value: unknown): State => JSON.parse(`{"__proto__":${JSON.stringify(value)}}`) as State;

describe('diffEntityState', () => {
  it.each<[string, State | null, State | null, string[], State]>([
    ['null against absent', { a: null }, {}, [], {}],
    ['undefined against absent', {}, { a: undefined }, [], {}],
    ['both null', null, null, [], {}],
    ['a null-only state against null', null, { a: null }, [], {}],
    ['null against a null-only state', { a: null }, null, [], {}],
    ['a dropped field', { a: 1, b: 2 }, { a: 1 }, ['b'], { b: null }],
    ['a field that is there, as undefined', { a: 1 }, { a: undefined }, ['a'], { a: undefined }],
    ['a removal', { b: 1, a: 2, c: null }, null, ['a', 'b'], { b: null, a: null }],
    ['a creation', null, { b: 1, a: 2 }, ['a', 'b'], { b: 1, a: 2 }],
    ['nested key order', { a: { x: 1, y: 2 } }, { a: { y: 2, x: 1 } }, [], {}],
    ['array order', { a: [1, 2] }, { a: [2, 1] }, ['a'], { a: [2, 1] }],
    ['nested null against absent', { a: { b: null } }, { a: {} }, ['a'], { a: {} }],
    ['keys in another order', { a: 1, b: 2, c: 3 }, { c: 3, a: 1, b: 9 }, ['b'], { b: 9 }],
    ['the names of Object.prototype', {}, { constructor: 1 }, ['constructor'], { constructor: 1 }],
    ['sorting by code unit', {}, { '\uff21': 1, '😀': 1, '9': 1, '10': 1 }, ['10', '9', '😀', '\uff21'], { '\uff21': 1, '😀': 1, '9': 1, '10': 1 }],
  ])('%s', (_, prev, next, changedFields, delta) => {
    expect(diffEntityState({ prev, next })).toStrictEqual({ changedFields, delta });
  });

  it('finds in the order of prev, then of next', () => {
    const { delta } = diffEntityState({ prev: { z: 1, y: 1, x: 1 }, next: { w: 1, x: 2, z: 2, b: 1 } });
    expect(Object.keys(delta)).toEqual(['z', 'y', 'x', 'w', 'b']);
  });

  it('defines __proto__ instead of assigning it', () => {
    const { changedFields, delta } = diffEntityState({ prev: proto(1), next: proto({ polluted: true }) });
    expect(changedFields).toEqual(['__proto__']);
    expect(Object.keys(delta)).toEqual(['__proto__']);
    expect(Object.getPrototypeOf(delta)).toBe(Object.prototype);
    expect(diffEntityState({ prev: proto(1), next: {} }).changedFields).toEqual(['__proto__']);
  });

  it('sees a Date change by a millisecond, and takes it for its own text', () => {
    const at = new Date('2026-01-01T00:00:00.000Z');
    expect(diffEntityState({ prev: { at }, next: { at: new Date(at.getTime() + 1) } }).changedFields).toEqual(['at']);
    expect(diffEntityState({ prev: { at }, next: { at: '2026-01-01T00:00:00.000Z' } }).changedFields).toEqual([]);
  });

  it('ignores fields of prev that the schema does not know, unless next has them', () => {
    const diff = (prev: State, next: State | null, known: string[] | null): string[] =>
      diffStates(prev, next, { known: known && new Set(known), equal: structurallyEqual }).changedFields;
    expect(diff({ a: 1, updatedAt: 1 }, { a: 1 }, ['a'])).toEqual([]);
    expect(diff({ updatedAt: 1, a: 1 }, { a: 2 }, ['a'])).toEqual(['a']);
    expect(diff({ a: 1, updatedAt: 1 }, { a: 1 }, null)).toEqual(['updatedAt']);
    expect(diff({ a: 1, b: 1 }, { a: 1 }, ['a', 'b'])).toEqual(['b']);
    expect(diff({ x: 1 }, { x: 2 }, [])).toEqual(['x']);
    expect(diff({ a: 1, updatedAt: 1 }, null, ['a'])).toEqual(['a']);
  });

  it('finds one change among 10,000 fields in another order', () => {
    const keys = Array.from({ length: 10_000 }, (_, i) => `field-${i}`);
    const prev = Object.fromEntries(keys.map((key) => [key, [key]]));
    const next = { ...Object.fromEntries(keys.reverse().map((key) => [key, [key]])), 'field-7': 'x' };
    expect(diffEntityState({ prev, next })).toEqual({ changedFields: ['field-7'], delta: { 'field-7': 'x' } });
  });
});

describe('serializeFieldValue', () => {
  it.each<[unknown, string]>([
    ['open', 'open'],
    ['say "hi"', 'say "hi"'],
    ['', ''],
    [null, 'null'],
    [undefined, 'null'],
    [42, '42'],
    [-0, '0'],
    [NaN, 'null'],
    [1e21, '1e+21'],
    [true, 'true'],
    [['a', 'b'], '["a","b"]'],
    [{ x: 1 }, '{"x":1}'],
    [{ b: 1, a: undefined, f: () => 1 }, '{"b":1}'],
    [new Date(0), '"1970-01-01T00:00:00.000Z"'],
    [new Date(NaN), 'null'],
    [{ toJSON: () => undefined }, 'null'],
    [10n, '10'],
    [{ z: [10n, 'x'], a: new Date(0), f: () => 1, m: new Map([[1, 2]]) }, '{"z":["10","x"],"a":"1970-01-01T00:00:00.000Z","m":{}}'],
    [() => 1, 'null'],
    [Symbol('x'), 'null'],
  ])('%o is %s', (value, text) => {
    expect(serializeFieldValue(value)).toBe(text);
  });

  it('has a text for 10,000 levels', () => {
    expect(serializeFieldValue(deep(10_000))).toBe('['.repeat(10_000) + ']'.repeat(10_000));
  });

  it('has a text for cycles and for more levels, and says so without showing the value', () => {
    const cycle: State = { password: 'hunter2' };
    cycle['self'] = { back: cycle };
    for (const value of [cycle, deep(200_000)]) {
      const warnings: string[] = [];
      expect(serializeFieldValue(value, (message) => warnings.push(message))).toBe('[unserializable]');
      expect(serializeFieldValue(value)).toBe('[unserializable]');
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).not.toContain('hunter2');
    }
  });

  it('lets the errors of a getter and of toJSON through, as the same object', () => {
    const error = new Error('mine');
    const fail = (): never => {
      throw error;
    };
    expect(() => serializeFieldValue({ toJSON: fail })).toThrow(error);
    expect(() => serializeFieldValue(Object.defineProperty({}, 'a', { get: fail, enumerable: true }))).toThrow(error);
  });
});

function deep(levels: number): unknown {
  let value: unknown = [];
  for (let i = 1; i < levels; i++) {
    value = [value];
  }
  return value;
}
