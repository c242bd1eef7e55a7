// Buffers and typed arrays in states: compared by bytes, printed in one pass, with the texts that number by number would give.
import { diffEntityState, serializeFieldValue, stableStringify, structurallyEqual } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { bufferText, isBuffer, numbersText, sameNumbers } from '../../src-js/entity/binary';
import { FIELD_RULES, printText } from '../../src-js/entity/json-text';
import { snapshotState } from '../../src-js/entity/snapshot';
import { jsStore, openStore, world } from './support';

/** All bytes, so every number of digits, and an odd order. */
const BYTES = Uint8Array.from({ length: 600 }, (_, i) => (i * 7 + (i >> 8)) % 256);

const ARRAYS = [
  BYTES,
  new Uint8Array(),
  new Uint8ClampedArray([0, 9, 10, 99, 100, 255]),
  new Int8Array([-128, -1, 0, 127]),
  new Uint16Array([65535, 0]),
  new Int32Array([-(2 ** 31), 7]),
  new Uint32Array([2 ** 32 - 1]),
  new Float32Array([1.5, 0.1]),
  new Float64Array([1e21, 5e-324, -0, NaN, Infinity, -Infinity, 0.1]),
];

describe('texts', () => {
  test.each(ARRAYS.map((array) => [array.constructor.name, array] as const))('%s prints as the array of its numbers', (_, array) => {
    const expected = JSON.stringify(Array.from(array as Iterable<number>));
    expect(numbersText(array)).toBe(expected);
    expect(stableStringify({ nested: [array] })).toBe(`{"nested":[${expected}]}`);
  });

  test('bigints print as strings of digits', () => {
    expect(numbersText(new BigInt64Array([-5n, 2n ** 62n]))).toBe(`["-5","${2n ** 62n}"]`);
    expect(numbersText(new BigUint64Array())).toBe('[]');
  });

  test('a Buffer prints as its toJSON says, by every kind of text', () => {
    const buffer = Buffer.from(BYTES);
    const numbers = JSON.stringify([...BYTES]);
    expect(stableStringify(buffer)).toBe(`{"data":${numbers},"type":"Buffer"}`);
    expect(stableStringify({ deep: [buffer] })).toBe(`{"deep":[{"data":${numbers},"type":"Buffer"}]}`);
    expect(bufferText(buffer, false)).toBe(JSON.stringify(buffer));
    expect(serializeFieldValue(buffer)).toBe(JSON.stringify(buffer));
    // The bigint beside it sends the whole value to the printer that needs no stack.
    expect(printText([buffer, 1n], FIELD_RULES)).toBe(`[${JSON.stringify(buffer)},"1"]`);
    expect(stableStringify(Buffer.alloc(0))).toBe('{"data":[],"type":"Buffer"}');
  });

  test('a Buffer with a toJSON of its own says what that says', () => {
    const odd = Object.assign(Buffer.from('abc'), { toJSON: () => 'odd' as never });
    expect(isBuffer(odd)).toBe(false);
    expect(stableStringify(odd)).toBe('"odd"');
    expect(structurallyEqual(odd, Buffer.from('abc'))).toBe(false);
    expect(structurallyEqual(odd, 'odd')).toBe(true);
  });

  test.each([9_996, 9_997, 9_998, 9_999])('has a text below %i arrays exactly where what its toJSON returns has one', (levels) => {
    const below = (value: unknown): unknown => {
      let nested = value;
      for (let i = 0; i < levels; i++) nested = [nested];
      return nested;
    };
    const textOf = (value: unknown): string => {
      try {
        return stableStringify(value);
      } catch (error) {
        return (error as Error).message;
      }
    };
    const buffer = Buffer.from('a');
    expect(textOf(below(buffer)) === textOf(below(buffer.toJSON()))).toBe(true);
    expect(textOf(below(new Uint8Array(1))) === textOf(below([0]))).toBe(true);
  });
});

describe('comparing', () => {
  const values: unknown[] = [
    ...ARRAYS,
    Buffer.from(BYTES),
    Buffer.from('a'),
    Buffer.from('b'),
    Buffer.from('ab'),
    Buffer.alloc(0),
    new Uint8Array([1, 2]),
    new Uint8Array([1, 3]),
    new Uint16Array([1, 2]),
    new Float64Array([1, 2]),
    new Float64Array([NaN, 0]),
    new Float64Array([Infinity, -0]),
    new BigInt64Array([1n, 2n]),
    new BigUint64Array([1n, 2n]),
    new BigInt64Array(),
    [1, 2],
    ['1', '2'],
    { data: [97], type: 'Buffer' },
  ];

  test('says the same as the texts do, for every pair', () => {
    const expected = values.map((a) => values.map((b) => stableStringify(a) === stableStringify(b)));
    expect(values.map((a) => values.map((b) => structurallyEqual(a, b)))).toEqual(expected);
    expect(values.map((a) => values.map((b) => structurallyEqual([{ a }], [{ a: b }])))).toEqual(expected);
    // Neither all alike nor all different, so that the comparison means something.
    expect(expected.flat().filter(Boolean).length).toBeGreaterThan(values.length);
  });

  test('goes by the part of a shared memory that an array sees', () => {
    const memory = Uint8Array.from([1, 2, 3, 1, 2]).buffer;
    expect(sameNumbers(new Uint8Array(memory, 0, 2), new Uint8Array(memory, 3, 2))).toBe(true);
    expect(sameNumbers(new Uint8Array(memory, 0, 2), new Uint8Array(memory, 1, 2))).toBe(false);
  });
});

test('a snapshot has bytes of its own', () => {
  const state = { buffer: Buffer.from('abc'), numbers: new Uint16Array([1, 2]) };
  const copy = snapshotState(state);
  state.buffer[0] = 0;
  state.numbers[0] = 9;
  expect(copy).toEqual({ buffer: Buffer.from('abc'), numbers: new Uint16Array([1, 2]) });
  expect(Buffer.isBuffer(copy.buffer)).toBe(true);
});

test.each(['sqlite', 'js'])('a Buffer that is edited in place is a change, in a store of %s', async (kind) => {
  const store = kind === 'sqlite' ? openStore({ memory: true }) : jsStore().store;
  const { handle, owner, events } = world({ store });
  owner.set('1', { blob: Buffer.from('abc') });
  await handle.mutate({
    id: '1',
    apply: async () => {
      const state = owner.get('1') as { blob: Buffer };
      state.blob[0] = 0x7a;
      return state;
    },
  });
  expect(events.map((event) => [event.changedFields, String((event.prev as { blob: Buffer }).blob)])).toEqual([[['blob'], 'abc']]);
});
