// Canonical text and equality: every row of the table in docs/entity.md, for both rule sets (A24), and what overflows a stack.
import { describe, expect, it } from 'vitest';
import {
  stableStringify,
  stableStringifyOriginal,
  structurallyEqual,
  structurallyEqualOriginal,
} from '../../src-js/entity/canonical';
import { CANONICAL_RULES, printText } from '../../src-js/entity/json-text';
import { anyValue, newSeed, random, variantOf } from './random-values';

/** An array or object inside itself `levels` times. */
function nested(levels: number, wrap: (inner: unknown) => unknown = (inner) => [inner]): unknown {
  let value: unknown = wrap(1);
  for (let i = 1; i < levels; i++) {
    value = wrap(value);
  }
  return value;
}

const named = (members: Record<string, unknown>): object => Object.assign(Object.create(null) as object, members);
const hole = [1, , 3];
const extra = Object.assign([1], { more: 2 });
class Money {
  constructor(readonly cents: number) {}
  toJSON(): string {
    return `${this.cents} ct`;
  }
}

// [what, value, original, holdfast]
const TABLE: [string, unknown, string, string][] = [
  ['null', null, 'null', 'null'],
  ['undefined', undefined, 'null', 'null'],
  ['a function', () => 1, 'null', 'null'],
  ['a symbol', Symbol('x'), 'null', 'null'],
  ['a property with undefined', { a: undefined, b: 1 }, '{"b":1}', '{"b":1}'],
  ['properties with a function and a symbol', { f: () => 1, s: Symbol('x') }, '{"f":null,"s":null}', '{"f":null,"s":null}'],
  ['numbers', [1, 1.5, 1e21, 1e-7, 5e-324, -0, 123456789012345680000], '[1,1.5,1e+21,1e-7,5e-324,0,123456789012345680000]', ''],
  ['numbers without a text', [NaN, Infinity, -Infinity], '[null,null,null]', ''],
  ['bigint', { a: 10n }, '{"a":"10"}', ''],
  ['lone surrogates, lower case', ['\ud800', '\uDFFF'], '["\\ud800","\\udfff"]', ''],
  ['what JSON does not escape', ['\u007f\u2028/😀'], '["\u007f\u2028/😀"]', ''],
  ['what JSON escapes', ['"\\\n\u0001'], '["\\"\\\\\\n\\u0001"]', ''],
  ['array with undefined', [1, undefined, 3], '[1,null,3]', ''],
  ['array with a hole', hole, '[1,,3]', '[1,null,3]'],
  ['array that begins with holes', [, , 1], '[,,1]', '[null,null,1]'],
  ['array with more properties', extra, '[1]', ''],
  ['keys by code unit', { '9': 1, '10': 2, b: 3, B: 4 }, '{"10":2,"9":1,"B":4,"b":3}', ''],
  ['U+1F600 before U+FF21', { '\uff21': 1, '😀': 2 }, '{"😀":2,"\uff21":1}', ''],
  ['more keys than insertion sort takes', Object.fromEntries([...'zyxwvutsrqponmlkjihgfedcba'].map((k) => [k, 1])), `{${[...'abcdefghijklmnopqrstuvwxyz'].map((k) => `"${k}":1`).join(',')}}`, ''],
  ['null prototype', named({ b: 1, a: 2 }), '{"a":2,"b":1}', ''],
  ['__proto__ as a key', JSON.parse('{"__proto__":1}'), '{"__proto__":1}', ''],
  ['Date', new Date('2026-01-01T00:00:00Z'), '{}', '"2026-01-01T00:00:00.000Z"'],
  ['invalid Date', { d: new Date(NaN) }, '{"d":{}}', '{"d":null}'],
  ['Map', new Map<unknown, unknown>([['b', 1], [{ y: 1, x: 2 }, new Map()]]), '{}', '{"$map":[["b",1],[{"x":2,"y":1},{"$map":[]}]]}'],
  ['Set, sorted by text', new Set(['b', 'a', 10, 9]), '{}', '{"$set":["a","b",10,9]}'],
  ['RegExp and Error', [/x/, new Error('x')], '[{},{}]', ''],
  ['class with toJSON', { m: new Money(5) }, '{"m":{"cents":5}}', '{"m":"5 ct"}'],
  ['own toJSON', { toJSON: () => 1, a: 2 }, '{"a":2,"toJSON":null}', '1'],
  ['toJSON that leaves out', { k: { toJSON: () => undefined }, a: [{ toJSON: () => undefined }] }, '{"a":[{"toJSON":null}],"k":{"toJSON":null}}', '{"a":[null]}'],
  ['typed array', new Float64Array([1.5, NaN]), '{"0":1.5,"1":null}', '[1.5,null]'],
  ['typed array of bigints', { a: new BigInt64Array([10n]) }, '{"a":{"0":"10"}}', '{"a":["10"]}'],
  ['Buffer', Buffer.from('hi'), '{"0":104,"1":105}', '{"data":[104,105],"type":"Buffer"}'],
  ['symbol and hidden keys', Object.defineProperty({ a: 1, [Symbol('s')]: 2 }, 'h', { value: 3 }), '{"a":1}', ''],
  ['class instance', new (class Point { y = 1; x = 2; })(), '{"x":2,"y":1}', ''],
];

describe('stableStringify', () => {
  it.each(TABLE)('%s', (_, value, original, holdfast) => {
    expect(stableStringifyOriginal(value)).toBe(original);
    expect(stableStringify(value)).toBe(holdfast || original);
    // Inside other values too, and by the printer that takes over where the recursion ends.
    expect(stableStringify([value])).toBe(`[${holdfast || original}]`);
    expect(printText([value], CANONICAL_RULES)).toBe(`[${holdfast || original}]`);
  });

  it('hands toJSON its key', () => {
    const echo = { toJSON: (key: string): string => key };
    expect(stableStringify([echo, { k: echo }])).toBe('["0",{"k":"k"}]');
    expect(stableStringify(echo)).toBe('""');
  });

  it('calls a getter once', () => {
    let calls = 0;
    const value = { get a() { return ++calls; } };
    expect(stableStringify(value)).toBe('{"a":1}');
  });

  it('does not take what only repeats for a cycle', () => {
    const shared = { a: [1] };
    const value = new Map([['k', [shared, shared, { shared }]]]);
    expect(stableStringify(value)).toBe('{"$map":[["k",[{"a":[1]},{"a":[1]},{"shared":{"a":[1]}}]]]}');
    expect(stableStringifyOriginal([shared, shared])).toBe('[{"a":[1]},{"a":[1]}]');
  });

  it('opens boxed primitives, as JSON does', () => {
    expect(stableStringify([new String('a'), new Number(1), Object(1n), new Boolean(false)])).toBe('["a",1,"1",false]');
  });
});

describe('levels', () => {
  const ways: [string, (value: unknown) => unknown][] = [
    ['stableStringify', stableStringify],
    ['stableStringifyOriginal', stableStringifyOriginal],
    ['structurallyEqual', (value) => structurallyEqual(value, structuredCopy(value))],
    ['structurallyEqualOriginal', (value) => structurallyEqualOriginal(value, structuredCopy(value))],
  ];
  /** Another value with the same content, without recursion: both kinds of nesting used here have one child. */
  const structuredCopy = (value: unknown): unknown => (Array.isArray(value) ? nested(depthOf(value)) : value);
  const depthOf = (value: unknown): number => {
    let levels = 0;
    for (let at = value; Array.isArray(at) && levels < 200_000; at = at[0]) {
      levels++;
    }
    return levels;
  };

  it.each(ways)('%s takes 10,000 of them', (_, way) => {
    expect(way(nested(9_000))).toBeTruthy();
    expect(way(nested(10_000))).toBeTruthy();
  });

  it.each(ways)('%s refuses more with an error that can be caught', (_, way) => {
    for (const levels of [10_001, 100_000]) {
      expect(() => way(nested(levels))).toThrow(RangeError);
      expect(() => way(nested(levels))).toThrow('more than 10000 levels');
    }
  });

  it('takes deep objects and Maps too', () => {
    expect(stableStringify(nested(10_000, (inner) => ({ a: inner })))).toHaveLength(10_000 * 6 + 1);
    expect(stableStringify(nested(1_000, (inner) => new Map([['k', inner]])))).toContain('{"$map":[["k",1]]}');
  });

  it('tells a cycle from depth, at once also in a wide object', () => {
    const wideCycle = (): object => {
      const wide: Record<string, unknown> = Object.fromEntries(Array.from({ length: 2_000 }, (_, i) => [`a${i}`, i]));
      return Object.assign(wide, { z: { back: [wide, wide] } });
    };
    const wide = wideCycle();
    const started = performance.now();
    expect(() => stableStringify(wide)).toThrow(RangeError);
    expect(() => stableStringify(wide)).toThrow('contains itself');
    expect(() => stableStringifyOriginal(wide)).toThrow('contains itself');
    expect(() => structurallyEqual(wide, wideCycle())).toThrow('contains itself');
    expect(performance.now() - started).toBeLessThan(5_000);
  });
});

describe('structurallyEqual', () => {
  it.each([
    ['another key order', { a: 1, b: { c: 2, d: 3 } }, { b: { d: 3, c: 2 }, a: 1 }, true],
    ['undefined and absent properties', { a: 1, b: undefined }, { a: 1 }, true],
    ['null and absent properties', { a: null }, {}, false],
    ['undefined and function properties', { a: undefined }, { a: () => 1 }, false],
    ['null and undefined at the top', null, undefined, true],
    ['NaN and null', [NaN], [null], true],
    ['NaN and Infinity', NaN, Infinity, true],
    ['bigint and its digits', 10n, '10', true],
    ['bigint and number', 10n, 10, false],
    ['Date and its text', new Date(0), '1970-01-01T00:00:00.000Z', true],
    ['dates', new Date(0), new Date(1), false],
    ['-0 and 0', -0, 0, true],
    ['hole and undefined', [, 1], [undefined, 1], true],
    ['array and object', [], {}, false],
    ['array and its object', ['a'], { 0: 'a' }, false],
    ['longer array', [1], [1, undefined], false],
    ['array and Set', ['a'], new Set(['a']), false],
    ['Map and what it prints', new Map([['a', 1]]), { $map: [['a', 1]] }, true],
    ['Maps in another order', new Map([['a', 1], ['b', 2]]), new Map([['b', 2], ['a', 1]]), true],
    ['typed array and array', new Uint8Array([1]), [1], true],
    ['class instance and object', new (class { a = 1; })(), { a: 1 }, true],
    ['hidden and enumerable key', { x: 1 }, Object.defineProperty({ y: 2 }, 'x', { value: 1 }), false],
    ['inherited and own key', { constructor: Object }, { other: 1 }, false],
    ['__proto__ and absent', JSON.parse('{"__proto__":{"a":1},"b":1}'), { b: 1, a: 1 }, false],
    ['what toJSON leaves out', { a: { toJSON: (): unknown => undefined }, b: 1 }, { b: 1 }, true],
    ['left out and null', { a: { toJSON: (): unknown => undefined } }, { a: { toJSON: (): unknown => null } }, false],
  ])('%s', (_, a, b, equal) => {
    expect(structurallyEqual(a, b)).toBe(equal);
    expect(structurallyEqual(b, a)).toBe(equal);
    expect(stableStringify(a) === stableStringify(b)).toBe(equal);
  });

  it('stops at the first difference, and does not read the same object', () => {
    const cycle: unknown[] = [];
    cycle.push(cycle);
    expect(structurallyEqual([1, cycle], [2, nested(100_000)])).toBe(false);
    expect(structurallyEqual(cycle, cycle)).toBe(true);
  });

  it('takes all dates for equal under the rules of the original', () => {
    expect(structurallyEqualOriginal({ d: new Date(0) }, { d: new Date(1) })).toBe(true);
    expect(structurallyEqualOriginal([, 1], [null, 1])).toBe(false);
    expect(structurallyEqualOriginal(undefined, null)).toBe(true);
  });

  it('says of random values what comparing their texts says', () => {
    const seed = newSeed();
    console.log(`structurallyEqual: HOLDFAST_TEST_SEED=${seed}`);
    const next = random(seed);
    let equals = 0;
    for (let i = 0; i < 20_000; i++) {
      const a = anyValue(next, 4);
      const b = variantOf(a, next);
      const equal = stableStringify(a) === stableStringify(b);
      equals += equal ? 1 : 0;
      if (structurallyEqual(a, b) !== equal || structurallyEqual(b, a) !== equal) {
        expect.fail(`seed ${seed}, round ${i}: ${stableStringify(a)} against ${stableStringify(b)}`);
      }
      // The recursion and the printer are two ways to one text.
      expect(printText(a, CANONICAL_RULES) || 'null', `seed ${seed}, round ${i}`).toBe(stableStringify(a));
    }
    // Both answers have to occur, or the comparison shows nothing.
    expect(equals).toBeGreaterThan(2_000);
    expect(equals).toBeLessThan(19_500);
  });
});
