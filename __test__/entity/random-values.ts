/** Random values for the tests of the pure functions, from a seed that a failure names. */

/** A small generator of numbers in [0, 1); the same seed gives the same ones. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** The seed of this run: `HOLDFAST_TEST_SEED`, or a new one. */
export function newSeed(): number {
  return Number(process.env.HOLDFAST_TEST_SEED ?? Date.now() >>> 0);
}

const TEXTS = ['', 'a', 'abc', '10', 'null', 'é', '\ud800', '😀', 'say "hi"\n', '\u2028', '1970-01-01T00:00:00.000Z', '\u007f/\\'];
const KEYS = ['a', 'b', 'c', '10', '9', '', '__proto__', 'toJSON', 'constructor', '😀', '\uff21', 'k"\n', '$map'];
const NUMBERS = [0, -0, 1, -1.5, 1e21, 1e-7, 5e-324, NaN, Infinity, -Infinity, 2 ** 53];

/** A value of any kind that a state can hold, to a depth of `levels`. */
export function anyValue(next: () => number, levels: number): unknown {
  const pick = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)] as T;
  const several = <T>(make: () => T): T[] => Array.from({ length: Math.floor(next() * 5) }, make);
  const inner = (): unknown => anyValue(next, levels - 1);
  // In a list, so that two objects that mean the same scalar stay two: a copy by value makes one of them.
  const keyed = (): unknown => (next() < 0.5 ? pick(TEXTS) : [inner()]);
  const kind = Math.floor(next() * (levels > 0 ? 22 : 10));
  switch (kind) {
    case 0:
      return null;
    case 1:
      return undefined;
    case 2:
    case 3:
      return pick(NUMBERS);
    case 4:
    case 5:
      return pick(TEXTS);
    case 6:
      return next() < 0.5;
    case 7:
      return pick<unknown>([10n, -1n, Symbol('s'), () => 1]);
    case 8:
      return new Date(pick([0, 1, NaN, 1767225600000]));
    case 9:
      return pick([
        () => new Uint8Array([1, 2]),
        () => Buffer.from([1, 2]),
        () => new String('abc'),
        () => new Number(1),
        () => /x/,
        () => new Error('x'),
        () => new BigInt64Array([10n]),
      ])();
    case 10:
      return new Map(several(() => [keyed(), inner()]));
    case 11:
      return new Set(several(keyed));
    case 12: {
      const meant = inner();
      return { hidden: 1, toJSON: () => meant };
    }
    case 13: {
      const holed = several(inner);
      holed.length += 1;
      return holed;
    }
    case 14:
    case 15:
    case 16:
      return several(inner);
    default: {
      const made: object = next() < 0.1 ? Object.create(null) : next() < 0.1 ? new (class Point {})() : {};
      for (const key of several(() => pick(KEYS))) {
        Object.defineProperty(made, key, { value: inner(), enumerable: next() < 0.95, writable: true, configurable: true });
      }
      return made;
    }
  }
}

/** Another value that often has the same canonical text, and sometimes a slightly different one. */
export function variantOf(value: unknown, next: () => number): unknown {
  if (next() < 0.02) {
    return anyValue(next, 1);
  }
  if (value instanceof Date && next() < 0.3) {
    return value.toJSON();
  }
  if (typeof value === 'bigint') {
    return String(value);
  }
  if (Array.isArray(value)) {
    return value.map((item) => variantOf(item ?? null, next));
  }
  if (value instanceof Map) {
    return new Map([...value].reverse().map(([key, item]) => [key, variantOf(item, next)]));
  }
  if (typeof value === 'object' && value !== null && [Object.prototype, null].includes(Object.getPrototypeOf(value) as object | null)) {
    const made = {};
    const keys = Object.keys(value);
    for (const key of next() < 0.5 ? keys : keys.reverse()) {
      const item = variantOf((value as Record<string, unknown>)[key], next);
      Object.defineProperty(made, key, { value: item, enumerable: true, writable: true, configurable: true });
    }
    return next() < 0.1 ? { ...made, extra: undefined } : made;
  }
  return value;
}
