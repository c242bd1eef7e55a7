/** A state as it is now: copied for an event, or checked for the way through the engine. */
import { hasToJson, isKeyed } from './canonical';
import { copyValue, define, type CopyRules } from './copy';
import type { State } from './diff';
import { UNSERIALIZABLE } from './field-text';
import type { EntityChanged } from './types';

/** How many levels a state may have for {@link isPlainJson}: a fraction of what Node's default stack holds. */
const PLAIN_LEVELS_MAX = 500;

/**
 * Copies a state by value, so that later edits of the original do not reach the copy.
 *
 * Every field keeps its canonical text: Dates, Maps, Sets and typed arrays are copied as such, what has a `toJSON` is replaced by
 * what that returns, `__proto__` stays a field, and other class instances become plain objects. Functions and symbols stay what
 * they are. A field whose value contains itself, or has more than 10,000 levels, has no text: it becomes the string
 * `[unserializable]`, so that everything that is made from the copy is finite.
 *
 * @param state a state, or `null` for an entity that does not exist; it is not changed
 * @param warn is told when a field became `[unserializable]`; the message names the field, and does not show the value
 * @throws only what a getter or `toJSON` of the state throws
 */
export function snapshotState<T extends State | null>(state: T, warn?: (message: string) => void): T;
export function snapshotState(state: State | null, warn?: (message: string) => void): State | null {
  if (state === null) {
    return null;
  }
  const copy: State = {};
  const keys = Object.keys(state);
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i] as string;
    const value = state[key];
    define(copy, key, typeof value === 'object' && value !== null ? snapshotField(copy, key, value, warn) : value);
  }
  return copy;
}

/** Copies a change by value, for one more reader. Functions, which no event that comes over a wire has, stay what they are. */
export function snapshotChange(change: EntityChanged): EntityChanged {
  const { prev, next, delta, changedFields, actor } = change;
  return {
    ...change,
    prev: snapshotState(prev),
    next: snapshotState(next),
    delta: snapshotState(delta),
    changedFields: [...changedFields],
    actor: snapshotState(actor as unknown as State) as unknown as EntityChanged['actor'],
  };
}

/** The fields whose copies are strings, though their values were objects that JSON makes a string of. */
const objects = new WeakMap<State, Set<string>>();

/** Whether the string in a field of a snapshot stands for an object: its field text is in quotes then, as that of the object is. */
export function standsForObject(snapshot: State | null, field: string): boolean {
  return snapshot !== null && objects.get(snapshot)?.has(field) === true;
}

function snapshotField(copy: State, field: string, value: object, warn: ((message: string) => void) | undefined): unknown {
  try {
    const made = copyValue(value, BY_VALUE);
    if (typeof made === 'string') objects.set(copy, (objects.get(copy) ?? new Set()).add(field));
    return made;
  } catch (error) {
    if (!(error instanceof Endless)) {
      throw error;
    }
    warn?.(`the field ${JSON.stringify(field)} ${error.message}, so it is recorded as ${UNSERIALIZABLE}`);
    return UNSERIALIZABLE;
  }
}

class Endless extends Error {}

const BY_VALUE: CopyRules = {
  text: null,
  endless: (cyclic) => {
    throw new Endless(cyclic ? 'contains itself' : 'has more than 10,000 levels');
  },
};

/**
 * Tells whether a state is data that `JSON.stringify` takes over whole: whether the text says of every field the same as its
 * canonical text and its field text do. So the engine can derive changes from the text.
 *
 * `false` is always safe. It is the answer for a state with a bigint, function, symbol, Map, Set, typed array or cycle anywhere, for
 * an `undefined` field, for what has a `toJSON`, and for more than 500 levels. So also for a Date: its field text is in quotes, that of
 * the string which JSON makes of it is not.
 */
export function isPlainJson(state: State | null): boolean {
  return state === null || (!Array.isArray(state) && isPlainObject(state, 1, false));
}

function isPlainObject(source: object, level: number, nested: boolean): boolean {
  const prototype: unknown = Object.getPrototypeOf(source);
  if (prototype !== Object.prototype && prototype !== null && !isKeyed(source)) {
    return false;
  }
  if (level > PLAIN_LEVELS_MAX || hasToJson(source)) {
    return false;
  }
  // Inherited enumerable properties are looked at too: this is the fastest loop there is, and one too many does no harm.
  for (const key in source) {
    const item = (source as State)[key];
    if (typeof item === 'object') {
      if (item !== null && !(Array.isArray(item) ? isPlainArray(item, level + 1) : isPlainObject(item, level + 1, true))) {
        return false;
      }
    } else if (typeof item !== 'string' && typeof item !== 'number' && typeof item !== 'boolean') {
      if (item !== undefined || !nested) {
        return false;
      }
    }
  }
  return true;
}

function isPlainArray(source: readonly unknown[], level: number): boolean {
  if (level > PLAIN_LEVELS_MAX || hasToJson(source)) {
    return false;
  }
  for (let i = 0; i < source.length; i++) {
    const item = source[i];
    if (typeof item === 'object') {
      if (item !== null && !(Array.isArray(item) ? isPlainArray(item, level + 1) : isPlainObject(item, level + 1, true))) {
        return false;
      }
    } else if (typeof item !== 'string' && typeof item !== 'number' && typeof item !== 'boolean' && item !== undefined) {
      return false;
    }
  }
  return true;
}
