/**
 * Deep copies of state values: by value, without changing what their canonical text says, and masked if wanted.
 *
 * Plain data is copied by recursion. What is deep, or a Map or Set, is copied again from the top by {@link DeepCopier}, which needs
 * no stack and finds cycles.
 */
import { types } from 'node:util';
import { hasToJson, isKeyed } from './canonical';
import { LEVELS_MAX } from './json-text';

/** Where recursion ends: a fraction of what Node's default stack holds. */
const RECURSION_MAX = 100;

/** How a copy differs from the value. */
export interface CopyRules {
  /** Replaces a string, or the name of a property. `null`: all stay. */
  readonly text: ((text: string) => string) | null;
  /** Returns what stands for an object inside itself, and for what is below 10,000 levels. It may throw instead. */
  readonly endless: (cyclic: boolean) => unknown;
}

/**
 * Copies a value.
 *
 * The copy shares nothing with the value except functions and symbols. Dates, Maps, Sets and typed arrays are copied as such; what
 * has a `toJSON` is replaced by what that returns, a boxed primitive by the primitive, any other object by a plain one with its own
 * enumerable string keys. Keys of a Map, or elements of a Set, whose copies are the same scalar become one.
 */
export function copyValue(value: unknown, rules: CopyRules): unknown {
  if (typeof value !== 'object' || value === null) {
    return copyScalar(value, rules);
  }
  try {
    return copyObject(value, '', rules, 0);
  } catch (error) {
    if (error !== NOT_RECURSIVE) {
      throw error;
    }
    return new DeepCopier(rules).copy(value);
  }
}

/**
 * Gives each key its masked name. A name that is taken gets the suffix `#2`, `#3` …, the first that is free.
 *
 * @returns `null` when no name changes, else the names, in the order of the keys
 */
export function maskedNames(keys: readonly string[], text: (text: string) => string): string[] | null {
  const names = keys.map(text);
  if (names.every((name, i) => name === keys[i])) {
    return null;
  }
  const taken = new Set<string>();
  const nextSuffix = new Map<string, number>();
  return names.map((name) => {
    let free = name;
    let suffix = nextSuffix.get(name) ?? 2;
    while (taken.has(free)) {
      free = `${name}#${suffix++}`;
    }
    nextSuffix.set(name, suffix);
    taken.add(free);
    return free;
  });
}

/** Sets an own property; `__proto__` too becomes one, instead of the prototype. */
export function define(target: object, key: string, value: unknown): void {
  if (key === '__proto__') {
    Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true });
  } else {
    (target as Record<string, unknown>)[key] = value;
  }
}

/** Thrown by the recursive copy to have the value copied without recursion; never seen by a caller. */
const NOT_RECURSIVE = new Error('not copied by recursion');

function copyScalar(value: unknown, rules: CopyRules): unknown {
  return typeof value === 'string' && rules.text !== null ? rules.text(value) : value;
}

function copyObject(source: object, key: string, rules: CopyRules, depth: number): unknown {
  if (depth === RECURSION_MAX) {
    throw NOT_RECURSIVE;
  }
  if (hasToJson(source)) {
    return isLeaf(source) ? copyLeaf(source) : copyOpened(source.toJSON(key), rules, depth);
  }
  return copyOpened(source, rules, depth);
}

/** Copies what `toJSON`, if there is one, has returned. */
function copyOpened(source: unknown, rules: CopyRules, depth: number): unknown {
  if (typeof source !== 'object' || source === null) {
    return copyScalar(source, rules);
  }
  if (Array.isArray(source)) {
    return copyArray(source, rules, depth);
  }
  if (!isKeyed(source)) {
    if (types.isMap(source) || types.isSet(source)) {
      throw NOT_RECURSIVE;
    }
    return types.isTypedArray(source) ? copyNumbers(source) : copyScalar(source.valueOf(), rules);
  }
  return copyKeyed(source, rules, depth);
}

function copyArray(source: readonly unknown[], rules: CopyRules, depth: number): unknown[] {
  const copy = new Array<unknown>(source.length);
  for (let i = 0; i < source.length; i++) {
    const item = source[i];
    if (typeof item === 'object' && item !== null) {
      copy[i] = copyObject(item, String(i), rules, depth + 1);
    } else if (item !== undefined || i in source) {
      copy[i] = copyScalar(item, rules);
    }
  }
  return copy;
}

/**
 * Copies an object's own properties. A `toJSON` method among them is not called again: the object was what it, or another one,
 * returned. Its text has a `null` there.
 */
function copyKeyed(source: object, rules: CopyRules, depth: number): object {
  // A spread copies the layout of the source, which is far cheaper than adding key by key, and defines `__proto__`.
  const copy: Record<string, unknown> = { ...source };
  // A list of the keys of each of many small objects would be as much garbage again as the copies themselves.
  for (const key in copy) {
    if (!Object.hasOwn(copy, key)) {
      continue;
    }
    const item = copy[key];
    let made = item;
    if (typeof item === 'object' && item !== null) {
      made = copyObject(item, key, rules, depth + 1);
    } else if (typeof item === 'string' && rules.text !== null) {
      made = rules.text(item);
    }
    if (made !== item || typeof made === 'function') {
      copy[key] = isToJson(key, made) ? null : made;
    }
  }
  dropSymbols(copy);
  return rules.text === null ? copy : rename(copy, Object.keys(copy), rules.text);
}

function isToJson(key: unknown, value: unknown): boolean {
  return key === 'toJSON' && typeof value === 'function';
}

/** Removes the properties that JSON does not see, and whose values are still the source's. */
function dropSymbols(copy: object): void {
  for (const symbol of Object.getOwnPropertySymbols(copy)) {
    Reflect.deleteProperty(copy, symbol);
  }
}

function rename(copy: Record<string, unknown>, keys: readonly string[], text: (text: string) => string): Record<string, unknown> {
  const names = maskedNames(keys, text);
  if (names === null) {
    return copy;
  }
  const renamed = {};
  names.forEach((name, i) => define(renamed, name, copy[keys[i] as string]));
  return renamed;
}

/** Copies a typed array that is not asked for its `toJSON`, if it has one, because another object's returned it. */
function copyNumbers(source: NodeJS.TypedArray): object {
  return hasToJson(source) ? Array.from<number | bigint>(source) : source.slice();
}

/** Whether an object is copied with its class, although it has a `toJSON`. */
function isLeaf(source: object): source is Date | Buffer {
  return Buffer.isBuffer(source) || isOrdinaryDate(source);
}

/** Whether an object is a Date whose `toJSON` is the one of all dates; that of a subclass may say something else. */
function isOrdinaryDate(source: object): source is Date {
  return types.isDate(source) && Object.hasOwn(Object.getPrototypeOf(source) as object, 'getTime') && !Object.hasOwn(source, 'toJSON');
}

function copyLeaf(source: Date | Buffer): object {
  return types.isDate(source) ? new Date(source.getTime()) : Buffer.from(source);
}

/** A container that is being copied. */
interface Frame {
  readonly source: object;
  /** What is left to copy. */
  readonly items: Iterator<readonly [place: unknown, item: unknown]>;
  /** Puts the copy of an item to its place. */
  readonly put: (place: unknown, copy: unknown) => void;
}

/** Stands as the place of a Map's key that is copied like a value. */
const MAP_KEY = Symbol('key');

class DeepCopier {
  /** The containers around the current one, outermost first. */
  private readonly frames: Frame[] = [];
  /** Their sources: meeting one of them again is a cycle. */
  private readonly around = new Set<object>();

  constructor(private readonly rules: CopyRules) {}

  copy(value: object): unknown {
    const copy = this.start(value, '');
    for (let frame = this.frames.at(-1); frame !== undefined; frame = this.frames.at(-1)) {
      const item = frame.items.next();
      if (item.done === true) {
        this.around.delete(frame.source);
        this.frames.pop();
      } else {
        const [place, child] = item.value;
        frame.put(place, this.start(child, typeof place === 'string' || typeof place === 'number' ? String(place) : ''));
      }
    }
    return copy;
  }

  /** Copies a scalar or a leaf; of a container returns a copy that a new frame will fill. */
  private start(value: unknown, key: string): unknown {
    let source = value;
    if (typeof source === 'object' && source !== null && hasToJson(source)) {
      if (isLeaf(source)) {
        return copyLeaf(source);
      }
      source = source.toJSON(key);
    }
    if (types.isBoxedPrimitive(source)) {
      source = source.valueOf();
    }
    if (typeof source !== 'object' || source === null) {
      return copyScalar(source, this.rules);
    }
    if (types.isTypedArray(source)) {
      return copyNumbers(source);
    }
    const cyclic = this.around.has(source);
    if (cyclic || this.frames.length === LEVELS_MAX) {
      return this.rules.endless(cyclic);
    }
    this.around.add(source);
    return this.open(source);
  }

  private open(source: object): object {
    if (types.isSet(source)) {
      const copy = new Set();
      this.frames.push({ source, items: elements([...source]), put: (_, item) => copy.add(item) });
      return copy;
    }
    if (types.isMap(source)) {
      return this.openMap(source);
    }
    if (Array.isArray(source)) {
      const copy = new Array<unknown>(source.length);
      this.frames.push({ source, items: elements(source), put: (place, item) => (copy[place as number] = item) });
      return copy;
    }
    const copy = {};
    const keys = Object.keys(source);
    const names = this.names(keys);
    const put = (place: unknown, item: unknown): void => {
      define(copy, names.get(place) ?? (place as string), isToJson(place, item) ? null : item);
    };
    this.frames.push({ source, items: members(source as Record<string, unknown>, keys), put });
    return copy;
  }

  private openMap(source: ReadonlyMap<unknown, unknown>): object {
    const copy = new Map();
    const names = this.names([...source.keys()].filter((key) => typeof key === 'string'));
    let copiedKey: unknown;
    const put = (place: unknown, item: unknown): void => {
      if (place === MAP_KEY) {
        copiedKey = item;
      } else {
        copy.set(typeof place === 'object' ? copiedKey : (names.get(place) ?? place), item);
      }
    };
    this.frames.push({ source, items: entries([...source]), put });
    return copy;
  }

  /** Returns the new names of those keys that get one. */
  private names(keys: readonly string[]): ReadonlyMap<unknown, string> {
    const names = this.rules.text === null ? null : maskedNames(keys, this.rules.text);
    return new Map(names?.map((name, i) => [keys[i], name]));
  }
}

/** The elements of an array, without its holes. */
function* elements(source: readonly unknown[]): Generator<[number, unknown]> {
  for (let i = 0; i < source.length; i++) {
    if (i in source) {
      yield [i, source[i]];
    }
  }
}

function* members(source: Readonly<Record<string, unknown>>, keys: readonly string[]): Generator<[string, unknown]> {
  for (const key of keys) {
    yield [key, source[key]];
  }
}

/** The entries of a Map; a key that is an object comes before its entry, to be copied. */
function* entries(source: readonly (readonly [unknown, unknown])[]): Generator<readonly [unknown, unknown]> {
  for (const entry of source) {
    if (typeof entry[0] === 'object') {
      yield [MAP_KEY, entry[0]];
    }
    yield entry;
  }
}
