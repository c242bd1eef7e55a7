/**
 * Canonical JSON text: one text for each value, whatever the order of its keys; and whether two values have the same one.
 *
 * Both functions recurse over plain objects and arrays, and leave what is deep or unusual to the printer in `json-text.ts`,
 * which needs no stack. So they agree on every value, and no value overflows the stack.
 */
import { types } from 'node:util';
import { bufferText, isBuffer, sameBytes, sameNumbers } from './binary';
import { CANONICAL_RULES, numberText, ORIGINAL_RULES, printText } from './json-text';

/** Where recursion ends and the printer takes over: a fraction of what Node's default stack holds. */
const RECURSION_MAX = 200;

/** Above this length the engine's own quoting is faster than looking for what must be escaped. */
const SHORT_MAX = 500;

/** Above this many elements joining their texts leaves less garbage than adding them up. */
const SHORT_ARRAY_MAX = 100;

/** Up to this many keys insertion sort is faster than the engine's. */
const INSERTION_SORT_MAX = 24;

// eslint-disable-next-line no-control-regex -- these are the characters that JSON escapes
const ESCAPED = /[\u0000-\u001f"\\\ud800-\udfff]/;

/**
 * Returns the canonical JSON text of a value: no white space, the keys of every object sorted by UTF-16 code unit.
 *
 * Two values have the same text exactly when they mean the same as JSON. Beyond JSON:
 * `undefined`, functions, symbols, NaN and the infinities print `null`, except that a property with the value `undefined` is left
 * out; a bigint prints as a string of its digits; what has a `toJSON` prints what that returns (so a `Date` is its ISO text);
 * a Map prints `{"$map":[[key,value],…]}` and a Set `{"$set":[…]}`, sorted by their texts; a typed array prints its numbers;
 * any other object prints its own enumerable string keys.
 *
 * @param value any value; it is not changed
 * @throws {RangeError} when the value contains itself, or has more than 10,000 levels of arrays and objects
 *
 * @example
 * ```ts
 * stableStringify({ b: 1, a: [undefined, new Date(0)] }); // '{"a":[null,"1970-01-01T00:00:00.000Z"],"b":1}'
 * ```
 */
export function stableStringify(value: unknown): string {
  const text = write(value, '', 0);
  return text === '' ? 'null' : text;
}

/**
 * Tells whether two values have the same canonical text ({@link stableStringify}), without building the texts: it stops at the
 * first difference.
 *
 * @throws {RangeError} as `stableStringify` does, unless a difference is found first, or both are the same object
 */
export function structurallyEqual(a: unknown, b: unknown): boolean {
  return same(a, b, 0, '', 'null');
}

/**
 * The canonical text of the original: as {@link stableStringify}, but every object is its own enumerable keys (so all dates are
 * `{}`), `toJSON` is not called, and a hole in an array prints nothing.
 */
export function stableStringifyOriginal(value: unknown): string {
  const text = printText(value, ORIGINAL_RULES);
  return text === '' ? 'null' : text;
}

/** Compares two values by {@link stableStringifyOriginal}. */
export function structurallyEqualOriginal(a: unknown, b: unknown): boolean {
  return (a === b && typeof a !== 'object') || stableStringifyOriginal(a) === stableStringifyOriginal(b);
}

/** Returns the text of a value, or `''` for what JSON leaves out. */
function write(value: unknown, key: string, depth: number): string {
  switch (typeof value) {
    case 'string':
      return quote(value);
    case 'number':
      return numberText(value);
    case 'boolean':
      return value ? 'true' : 'false';
    case 'object':
      return value === null ? 'null' : writeObject(value, key, depth);
    case 'undefined':
      return '';
    case 'bigint':
      return `"${value}"`;
    default:
      return 'null';
  }
}

function writeObject(source: object, key: string, depth: number): string {
  if (hasToJson(source)) {
    if (isBuffer(source)) {
      return bufferText(source, true);
    }
    const meant = source.toJSON(key);
    return typeof meant === 'object' && meant !== null ? printText(meant, CANONICAL_RULES, depth, key, true) : write(meant, key, depth);
  }
  if (Array.isArray(source) && depth < RECURSION_MAX) {
    return writeArray(source, depth);
  }
  if (depth === RECURSION_MAX || !isKeyed(source)) {
    return printText(source, CANONICAL_RULES, depth, key, true);
  }
  const keys = sortKeys(Object.keys(source));
  let text = '';
  for (let i = 0; i < keys.length; i++) {
    const name = keys[i] as string;
    const item = write((source as Record<string, unknown>)[name], name, depth + 1);
    if (item !== '') {
      text += `${text === '' ? '{' : ','}${keyText(name)}${item}`;
    }
  }
  return text === '' ? '{}' : `${text}}`;
}

function writeArray(source: readonly unknown[], depth: number): string {
  if (source.length > SHORT_ARRAY_MAX) {
    const items = Array.from(source, (item, i) => write(item, typeof item === 'object' ? String(i) : '', depth + 1) || 'null');
    return `[${items.join(',')}]`;
  }
  let text = '[';
  for (let i = 0; i < source.length; i++) {
    const item = source[i];
    // Only what has a toJSON looks at its index.
    const itemText = write(item, typeof item === 'object' ? String(i) : '', depth + 1);
    text += i === 0 ? '' : ',';
    text += itemText === '' ? 'null' : itemText;
  }
  return `${text}]`;
}

/** The texts of keys printed before: the same few come again and again. Bounded, so that keys that are data cannot fill it. */
const keyTexts = new Map<string, string>();
const KEY_TEXTS_MAX = 1000;
const CACHED_KEY_MAX = 64;

/** Returns a key as it stands before its value: quoted, and with the colon. */
function keyText(key: string): string {
  const known = keyTexts.get(key);
  if (known !== undefined) {
    return known;
  }
  const text = `${quote(key)}:`;
  if (key.length <= CACHED_KEY_MAX) {
    if (keyTexts.size >= KEY_TEXTS_MAX) {
      keyTexts.clear();
    }
    keyTexts.set(key, text);
  }
  return text;
}

function quote(text: string): string {
  return text.length > SHORT_MAX || ESCAPED.test(text) ? JSON.stringify(text) : `"${text}"`;
}

/** Sorts keys in place by UTF-16 code unit. Keys that are sorted already, or few, are common. */
function sortKeys(keys: string[]): string[] {
  if (keys.length > INSERTION_SORT_MAX) {
    return keys.sort();
  }
  for (let i = 1; i < keys.length; i++) {
    const key = keys[i] as string;
    let at = i;
    for (; at > 0 && (keys[at - 1] as string) > key; at--) {
      keys[at] = keys[at - 1] as string;
    }
    keys[at] = key;
  }
  return keys;
}

/** Whether an object without `toJSON` that is no array means its own enumerable string keys, and nothing else. */
export function isKeyed(source: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(source);
  return prototype === Object.prototype || prototype === null
    ? true
    : !(types.isMap(source) || types.isSet(source) || types.isTypedArray(source) || types.isBoxedPrimitive(source));
}

/**
 * Compares the texts of two values.
 *
 * @param absent the text of what JSON leaves out: `''` for a property, else `null`
 */
function same(a: unknown, b: unknown, depth: number, key: string, absent: '' | 'null'): boolean {
  if (a === b) {
    return true;
  }
  const kind = typeof a;
  if (kind === typeof b) {
    if (kind === 'object' && a !== null && b !== null) {
      return sameObjects(a as object, b as object, depth, key, absent);
    }
    if (kind === 'string' || kind === 'boolean') {
      return false;
    }
  }
  return sameTexts(a, b, depth, key, absent);
}

/** Compares what the walk has no rule for. */
function sameTexts(a: unknown, b: unknown, depth: number, key: string, absent: '' | 'null'): boolean {
  return (write(a, key, depth) || absent) === (write(b, key, depth) || absent);
}

function sameObjects(a: object, b: object, depth: number, key: string, absent: '' | 'null'): boolean {
  if (depth === RECURSION_MAX || hasToJson(a) || hasToJson(b)) {
    return isBuffer(a) && isBuffer(b) ? sameBytes(a, b) : sameTexts(a, b, depth, key, absent);
  }
  if (Array.isArray(a) && Array.isArray(b)) {
    return sameArrays(a, b, depth);
  }
  if (Array.isArray(a) || Array.isArray(b) || !isKeyed(a) || !isKeyed(b)) {
    return types.isTypedArray(a) && types.isTypedArray(b) ? sameNumbers(a, b) : sameTexts(a, b, depth, key, absent);
  }
  const names = Object.keys(a);
  const others = Object.keys(b);
  if (names.length !== others.length) {
    return sameMembers(a as Members, b as Members, names, others, depth);
  }
  for (let i = 0; i < names.length; i++) {
    const name = names[i] as string;
    if (name !== others[i]) {
      return sameMembers(a as Members, b as Members, names, others, depth);
    }
    if (!same((a as Members)[name], (b as Members)[name], depth + 1, name, '')) {
      return false;
    }
  }
  return true;
}

type Members = Readonly<Record<string, unknown>>;

function sameArrays(a: readonly unknown[], b: readonly unknown[], depth: number): boolean {
  if (a.length !== b.length) {
    return false;
  }
  for (let i = 0; i < a.length; i++) {
    const x = a[i];
    const y = b[i];
    if (x !== y && !same(x, y, depth + 1, typeof x === 'object' ? String(i) : '', 'null')) {
      return false;
    }
  }
  return true;
}

/** Compares objects whose keys are not the same in the same order. */
function sameMembers(a: Members, b: Members, names: readonly string[], others: readonly string[], depth: number): boolean {
  let unmatched = 0;
  for (const name of names) {
    const x = a[name];
    if (!isLeftOut(x, name)) {
      if (!isEnumerable.call(b, name) || !same(x, b[name], depth + 1, name, '')) {
        return false;
      }
      unmatched++;
    }
  }
  for (const name of others) {
    unmatched -= isLeftOut(b[name], name) ? 0 : 1;
  }
  return unmatched === 0;
}

const isEnumerable = Object.prototype.propertyIsEnumerable;

/** Whether JSON asks an object what it means. */
export function hasToJson(source: object): source is { toJSON(key: string): unknown } {
  return typeof (source as { toJSON?: unknown }).toJSON === 'function';
}

/** Whether JSON leaves out a property with this value. */
function isLeftOut(value: unknown, key: string): boolean {
  return value === undefined || (typeof value === 'object' && value !== null && hasToJson(value) && value.toJSON(key) === undefined);
}
