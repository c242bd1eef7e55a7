/** What callers hand over, checked, and as the engine reads it. */
import { checkArray, checkFunctionOrUndefined, checkPath, checkPlainObject, invalidArgument, isRecord } from '../check';
import type { ManifestEntry, PackagesLogger } from './types';

/** Half a character of two: it has no UTF-8 form, so no file and no database has such a text. */
const LONE_SURROGATE = /\p{Surrogate}/u;

/** Requires an object, which `name` says of the arguments. Without it the first look at a member would throw something of its own. */
export function checkInput<T extends object>(value: T, name = 'input'): T {
  return checkPlainObject(value, name);
}

/** Requires a string that has a UTF-8 form; it may be empty. */
export function checkText(value: unknown, argument: string): string {
  if (typeof value !== 'string') throw invalidArgument(argument, 'a string', value);
  if (LONE_SURROGATE.test(value)) throw invalidArgument(argument, 'a string without lone surrogates (half characters)', value);
  return value;
}

/** As {@link checkText}, or nothing. */
export function checkTextOrUndefined(value: unknown, argument: string): string | undefined {
  return value === undefined ? undefined : checkText(value, argument);
}

/** Requires a folder: a string, and no blank one, because `''` as a folder is never meant. */
export function checkFolder(value: unknown, argument: string): string {
  const path = checkPath(value, argument);
  if (path.trim() === '') throw invalidArgument(argument, 'a path that is not blank', value);
  return path;
}

/** Requires milliseconds of 0 or more, `Infinity` included, or nothing; what is too large for the engine is cut. */
export function checkMillis<T extends number | undefined>(value: T, argument: string): T {
  if (value === undefined) return value;
  if (!(typeof value === 'number' && value >= 0)) throw invalidArgument(argument, 'a number of milliseconds, 0 or more', value);
  return Math.min(value, Number.MAX_SAFE_INTEGER) as T;
}

/** Requires a boolean, or nothing. A check that `'true'` would leave off is no check. */
export function checkSwitch(value: unknown, argument: string): boolean {
  if (value !== undefined && typeof value !== 'boolean') throw invalidArgument(argument, 'a boolean', value);
  return value === true;
}

/** Requires an `AbortSignal`, or nothing. By what is used of it: those of other realms are no instances of this one's class. */
export function checkSignal(value: AbortSignal | null | undefined, argument = 'signal'): AbortSignal | undefined {
  if (value === undefined || value === null) return undefined;
  const { aborted, addEventListener, removeEventListener, throwIfAborted } = value as Partial<AbortSignal>;
  const methods = [addEventListener, removeEventListener, throwIfAborted];
  if (typeof aborted === 'boolean' && methods.every((method) => typeof method === 'function')) return value;
  throw invalidArgument(argument, 'an AbortSignal, as the signal of an AbortController is', value);
}

/** Requires an object with the functions `debug` and `error`, or nothing. One that lacks a function says nothing at that level. */
export function checkLogger(value: PackagesLogger | null | undefined, argument = 'logger'): PackagesLogger | undefined {
  if (value === undefined || value === null) return undefined;
  if (!isRecord(value)) throw invalidArgument(argument, 'an object with the functions debug and error', value);
  for (const level of ['debug', 'error'] as const) checkFunctionOrUndefined(value[level] ?? undefined, `${argument}.${level}`);
  return value;
}

/** Requires an object that has these functions; those of `optional` may be absent. */
export function checkMethods<T extends object>(
  value: T,
  argument: string,
  required: readonly (keyof T & string)[],
  optional: readonly (keyof T & string)[] = [],
): T {
  checkPlainObject(value, argument);
  for (const name of required) {
    if (typeof value[name] !== 'function') throw invalidArgument(`${argument}.${name}`, 'a function', value[name]);
  }
  for (const name of optional) checkFunctionOrUndefined((value[name] ?? undefined) as (() => unknown) | undefined, `${argument}.${name}`);
  return value;
}

/** Requires something to iterate that is no string: the characters of an integrity are never meant. */
export function checkIterable<T>(value: Iterable<T>, argument: string): Iterable<T> {
  if (typeof value === 'object' && value !== null && typeof value[Symbol.iterator] === 'function') return value;
  throw invalidArgument(argument, 'an array, a Set or another iterable of integrities', value);
}

/** Requires entries of which at least the key is one: what they are compared by. */
export function checkKeyed<T extends { integrity: string }>(entries: readonly T[], argument: string): readonly T[] {
  Array.from(checkArray(entries, argument)).forEach((entry, index) => {
    if (!isRecord(entry)) throw invalidArgument(`${argument}[${index}]`, 'an object with name, version and integrity', entry);
    checkKey(entry.integrity, `${argument}[${index}].integrity`);
  });
  return entries;
}

function checkKey(value: unknown, argument: string): string {
  const key = checkText(value, argument);
  if (key === '') throw invalidArgument(argument, 'a string that is not empty', key);
  return key;
}

/** One entry without what else callers keep in it. */
export function plain(entry: ManifestEntry, argument: string): ManifestEntry {
  if (!isRecord(entry)) throw invalidArgument(argument, 'an object with name, version and integrity', entry);
  const { name, version, integrity, blobSha256 } = entry;
  for (const [field, value] of Object.entries({ name, version })) checkText(value, `${argument}.${field}`);
  checkKey(integrity, `${argument}.integrity`);
  if (blobSha256 === undefined || blobSha256 === null) return { name, version, integrity };
  return { name, version, integrity, blobSha256: checkText(blobSha256, `${argument}.blobSha256`) };
}

/** Entries as text for the engine. */
export function entriesText(entries: readonly ManifestEntry[], argument: string): string {
  // Not `map`, which passes over the holes of an array.
  return JSON.stringify(Array.from(checkArray(entries, argument), (entry, index) => plain(entry, `${argument}[${index}]`)));
}
