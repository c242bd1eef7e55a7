// Secrets in texts and values (A28, A29), overlaps, and masking with many secrets against a plain search.
import { describe, expect, it } from 'vitest';
import { compileSecrets, DEFAULT_MASK_TOKEN, MIN_MASKABLE_LENGTH, maskSecrets, maskSecretsDeep } from '../../src-js/entity/mask';
import { newSeed, random } from './random-values';

const mask = (text: string, ...values: string[]): string => maskSecrets({ text, values });
const deep = (value: unknown, ...values: string[]): unknown => maskSecretsDeep({ value, values });

describe('maskSecrets', () => {
  it('has the constants of the original', () => {
    expect([DEFAULT_MASK_TOKEN, MIN_MASKABLE_LENGTH]).toEqual(['****', 4]);
  });

  it.each<[string, string, string[], string]>([
    ['three units are skipped', 'abc abc', ['abc'], 'abc abc'],
    ['four are masked', 'x abcd y', ['abcd'], 'x **** y'],
    ['longer first', 'supersecret secret', ['secret', 'supersecret'], '**** ****'],
    ['adjacent', 'abcdabcd', ['abcd'], '********'],
    ['adjacent, of two secrets', 'abcdwxyz', ['wxyz', 'abcd'], '********'],
    ['two emoji are four units', 'a😀😀b', ['😀😀'], 'a****b'],
    ['one emoji and a letter are three', '😀x', ['😀x'], '😀x'],
    ['the base64 form survives', Buffer.from('hunter22').toString('base64'), ['hunter22'], Buffer.from('hunter22').toString('base64')],
    ['the whole text', 'abcd', ['abcd'], '****'],
    ['at both ends', 'abcd-abcd', ['abcd'], '****-****'],
    ['a text shorter than every secret', 'abcd', ['abcde'], 'abcd'],
    ['no secrets', 'abcd', [], 'abcd'],
    ['the same secret twice', 'abcd', ['abcd', 'abcd'], '****'],
    ['overlapping secrets leave no tail', 'abcdefgh', ['abcd', 'cdefgh'], '****'],
    ['a secret that overlaps itself', 'aaaaaa', ['aaaa'], '****'],
    ['a chain of overlaps', '-abcdefghi-', ['abcdef', 'cdef', 'efghi'], '-****-'],
    ['one within another, to its right', 'abcdefgh', ['abcdefgh', 'efgh'], '****'],
    ['one that begins like another and goes on', 'abcdefg', ['abcdefgh', 'abcde', 'abcd'], '****fg'],
    ['lone surrogates', 'x\ud83d\ude00abc', ['\ude00abc'], 'x\ud83d****'],
    ['no pattern', 'a.c.e', ['a.c.'], '****e'],
    ['line breaks and NUL', 'a\nb\0cd', ['\nb\0c'], 'a****d'],
  ])('%s', (_, text, values, masked) => {
    expect(maskSecrets({ text, values })).toBe(masked);
    expect(maskSecrets({ text, values: new Set([...values].reverse()) })).toBe(masked);
  });

  it('takes any token, and does not search it', () => {
    expect(maskSecrets({ text: 'a hidden b', values: ['hidden'], token: '[[hidden]]' })).toBe('a [[hidden]] b');
    expect(maskSecrets({ text: 'a hidden b', values: ['hidden'], token: '' })).toBe('a  b');
    expect(maskSecrets({ text: 'hidd****enen', values: ['hidden', '****'], token: '' })).toBe('hiddenen');
    expect(maskSecrets({ text: 'a$&b', values: ['a$&b'], token: '$&$1' })).toBe('$&$1');
  });

  it('ignores what is no string', () => {
    expect(maskSecrets({ text: 'null 12345', values: [null, undefined, 12345, {}] as unknown as string[] })).toBe('null 12345');
  });

  it('finds secrets of any length, and nested prefixes of them', () => {
    const long = 'x'.repeat(50_000);
    expect(mask(`a${long}b`, long)).toBe('a****b');
    expect(mask(`a${long.slice(1)}b`, long)).toBe(`a${long.slice(1)}b`);
    const prefixes = Array.from({ length: 5_000 }, (_, i) => `s${'x'.repeat(i + 3)}`);
    expect(mask(`s${'x'.repeat(4_000)}y`, ...prefixes)).toBe('****y');
  });

  it('finds what a plain search finds, in random texts', () => {
    const seed = newSeed();
    console.log(`maskSecrets: HOLDFAST_TEST_SEED=${seed}`);
    const next = random(seed);
    const word = (units: string, length: number): string => Array.from({ length }, () => units[Math.floor(next() * units.length)]).join('');
    let found = 0;
    for (let i = 0; i < 20_000; i++) {
      // Few different units make overlaps common; the last two are no whole characters.
      const units = ['ab', 'abc', 'a\u0100\u0200', 'ab\ud83d\ude00'][i % 4] as string;
      const values = Array.from({ length: 1 + Math.floor(next() * 6) }, () => word(units, 3 + Math.floor(next() * (next() < 0.1 ? 40 : 8))));
      const text = word(units, Math.floor(next() * 60)) + (next() < 0.5 ? values[0] : '') + word(units, Math.floor(next() * 20));
      const expected = plainSearch(text, values, '<>');
      found += expected === text ? 0 : 1;
      if (maskSecrets({ text, values, token: '<>' }) !== expected) {
        expect.fail(`seed ${seed}, round ${i}: ${JSON.stringify({ text, values, expected, got: maskSecrets({ text, values, token: '<>' }) })}`);
      }
    }
    expect(found).toBeGreaterThan(5_000);
    expect(found).toBeLessThan(19_900);
  });

  it('is linear in the text, also when everything nearly matches', () => {
    const text = 'a'.repeat(1_000_000);
    const started = performance.now();
    expect(mask(text, `${'a'.repeat(60)}b`, `b${'a'.repeat(60)}`, 'ccccc')).toBe(text);
    expect(mask(text, 'aaaa')).toBe('****');
    // Seconds, where a search that starts again for each secret and position takes minutes.
    expect(performance.now() - started).toBeLessThan(5_000);
  });
});

/** Marks every unit that an occurrence covers, occurrence by occurrence. */
function plainSearch(text: string, values: string[], token: string): string {
  const spans: { from: number; to: number }[] = [];
  for (let from = 0; from < text.length; from++) {
    const lengths = values.filter((value) => value.length >= 4 && text.startsWith(value, from)).map((value) => value.length);
    if (lengths.length > 0) {
      const to = from + Math.max(...lengths);
      const last = spans.at(-1);
      if (last !== undefined && from < last.to) {
        last.to = Math.max(last.to, to);
      } else {
        spans.push({ from, to });
      }
    }
  }
  let at = 0;
  let masked = '';
  for (const { from, to } of spans) {
    masked += text.slice(at, from) + token;
    at = to;
  }
  return masked + text.slice(at);
}

describe('maskSecretsDeep', () => {
  it('masks strings, elements and keys at every level, and passes the rest', () => {
    const f = (): number => 1;
    const s = Symbol('s3cr3t');
    const value = { a: 's3cr3t', list: ['x s3cr3t', 1, null, undefined, 2n, true, f, s], 'key-s3cr3t': { deep: { s3cr3t: 's3cr3t' } } };
    const before = structuredClone({ ...value, list: [] });
    expect(deep(value, 's3cr3t')).toStrictEqual({
      a: '****',
      list: ['x ****', 1, null, undefined, 2n, true, f, s],
      'key-****': { deep: { '****': '****' } },
    });
    expect({ ...value, list: [] }).toEqual(before);
  });

  it('gives the same reference without a maskable value, else a copy', () => {
    const value = { a: { b: 'abc' } };
    expect(deep(value)).toBe(value);
    expect(deep(value, 'abc', '')).toBe(value);
    const copy = deep(value, 'wxyz') as typeof value;
    expect(copy).toEqual(value);
    expect(copy).not.toBe(value);
    expect(copy.a).not.toBe(value.a);
  });

  it('keeps holes', () => {
    const copy = deep([, 's3cr3t', ,], 's3cr3t') as unknown[];
    expect(copy).toHaveLength(3);
    expect(Object.keys(copy)).toEqual(['1']);
  });

  it('masks plain values', () => {
    expect(deep('a s3cr3t', 's3cr3t')).toBe('a ****');
    expect(deep(123456, '123456')).toBe(123456);
    expect(deep(null, 's3cr3t')).toBe(null);
  });

  it('gives keys that mask alike a suffix, in their order', () => {
    const value = { first1: 1, '****': 2, second2: 3, '****#2': 4, plain: 5 };
    const copy = deep(value, 'first1', 'second2') as object;
    expect(copy).toEqual({ '****': 1, '****#2': 2, '****#3': 3, '****#2#2': 4, plain: 5 });
    expect(Object.keys(copy)).toEqual(['****', '****#2', '****#3', '****#2#2', 'plain']);
  });

  it('copies Dates, Maps, Sets and binary data as such', () => {
    const date = new Date(5);
    const bytes = Buffer.from('s3cr3t');
    const value = {
      date,
      map: new Map<unknown, unknown>([['s3cr3t', 's3cr3t'], ['hunter22', 1], [{ k: 's3cr3t' }, ['s3cr3t']], [1, 2]]),
      set: new Set<unknown>(['s3cr3t', { s3cr3t: 1 }]),
      bytes,
    };
    const copy = deep(value, 's3cr3t', 'hunter22') as typeof value;
    expect(copy.date).toEqual(date);
    expect(copy.date).not.toBe(date);
    expect([...copy.map]).toEqual([['****', '****'], ['****#2', 1], [{ k: '****' }, ['****']], [1, 2]]);
    expect([...copy.set]).toEqual(['****', { '****': 1 }]);
    expect(copy.bytes).toEqual(bytes);
    expect(copy.bytes).not.toBe(bytes);
  });

  it('masks what an object means, not what it hides', () => {
    expect(deep({ url: new URL('https://user:s3cr3t@example.org/') }, 's3cr3t')).toEqual({ url: 'https://user:****@example.org/' });
    expect(deep(new String('s3cr3t'), 's3cr3t')).toBe('****');
    class Login { token = 's3cr3t'; hide(): void {} }
    const copy = deep({ login: new Login() }, 's3cr3t') as { login: object };
    expect(copy.login).toEqual({ token: '****' });
    expect(Object.getPrototypeOf(copy.login)).toBe(Object.prototype);
  });

  it('makes __proto__ an own property', () => {
    const copy = deep(JSON.parse('{"__proto__":{"s3cr3t":"s3cr3t"},"a":1}'), 's3cr3t') as object;
    expect(Object.getPrototypeOf(copy)).toBe(Object.prototype);
    expect(JSON.stringify(copy)).toBe('{"__proto__":{"****":"****"},"a":1}');
    const renamed = deep(JSON.parse('{"__proto__":1,"s3cr3t":2}'), 's3cr3t') as object;
    expect(JSON.stringify(renamed)).toBe('{"__proto__":1,"****":2}');
  });

  it('replaces a cycle by the token, and keeps what only repeats', () => {
    const shared = { s: 's3cr3t' };
    const value: Record<string, unknown> = { a: shared, b: [shared, shared] };
    value['self'] = value;
    value['map'] = new Map([['back', value]]);
    const copy = deep(value, 's3cr3t') as Record<string, unknown>;
    expect(copy).toEqual({ a: { s: '****' }, b: [{ s: '****' }, { s: '****' }], self: '****', map: new Map([['back', '****']]) });
    const list: unknown[] = [];
    list.push(list, list);
    expect(maskSecretsDeep({ value: list, values: ['s3cr3t'], token: '-' })).toEqual(['-', '-']);
  });

  it('masks 10,000 levels, and ends at more', () => {
    let value: unknown = 's3cr3t';
    for (let i = 0; i < 10_000; i++) {
      value = [value];
    }
    let inner = deep(value, 's3cr3t');
    let levels = 0;
    for (; Array.isArray(inner); inner = inner[0]) {
      levels++;
    }
    expect([levels, inner]).toEqual([10_000, '****']);
    expect(deep([value], 's3cr3t')).toBeInstanceOf(Array);
  });

  it('does not copy properties that JSON does not see', () => {
    const copy = deep({ a: 1, [Symbol('s')]: 's3cr3t' }, 's3cr3t') as object;
    expect(Reflect.ownKeys(copy)).toEqual(['a']);
  });
});

describe('compileSecrets', () => {
  it('knows whether there is anything to look for', () => {
    expect(compileSecrets(['abc', '']).isEmpty).toBe(true);
    expect(compileSecrets(['abcd']).isEmpty).toBe(false);
  });
});
