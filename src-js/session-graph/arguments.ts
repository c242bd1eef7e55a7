/** Arguments of this module: what the package's common checks do not know. Their refusals have the class of this module. */
import { checkBooleanOrUndefined, invalidArgument, isRecord } from '../check';
import { asGraphError, InvalidArgumentError } from './errors';

/** Longest id or key, in bytes of UTF-8. */
const ID_MAX = 1024;

/** Makes the error of a bad argument. */
export function bad(argument: string, expected: string, value: unknown): Error {
  return asGraphError(invalidArgument(argument, expected, value)) as Error;
}

/** Requires an id or a key: 1 to 1024 bytes, without U+0000 and lone surrogates. */
export function checkId(value: unknown, argument: string): string {
  const isSound = typeof value === 'string' && value !== '' && !value.includes('\0') && value.isWellFormed();
  // No character has more than three bytes per code unit.
  if (!isSound || (value.length * 3 > ID_MAX && Buffer.byteLength(value) > ID_MAX)) {
    throw bad(argument, `a string of 1 to ${ID_MAX} bytes, without U+0000 and lone surrogates`, value);
  }
  return value;
}

/** Requires a string that the database can hold. */
export function checkText(value: unknown, argument: string): string {
  if (typeof value !== 'string' || !value.isWellFormed()) throw bad(argument, 'a string without lone surrogates', value);
  return value;
}

/** Requires a whole number of 0 or more, such as a revision or a time. */
export function checkCount(value: unknown, argument: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw bad(argument, 'a safe integer of 0 or more', value);
  return value;
}

/** Requires a whole number. */
export function checkInteger(value: unknown, argument: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw bad(argument, 'a safe integer', value);
  return value;
}

/** Requires one of `allowed`. */
export function checkWord<T extends string>(value: unknown, argument: string, allowed: readonly T[]): T {
  const found = allowed.find((word) => word === value);
  if (found === undefined) throw bad(argument, `one of ${allowed.map((word) => `'${word}'`).join(', ')}`, value);
  return found;
}

/** Requires a boolean, or nothing, which is `false`. */
export function checkBooleanOf(value: unknown, argument: string): boolean {
  return guarded(() => checkBooleanOrUndefined(value, argument)) ?? false;
}

/** Requires what must not be left out: JSON would drop it without a word. */
export function given<T>(value: T, argument: string): T {
  if (value === undefined) throw bad(argument, 'given', value);
  return checkPrintable(value, argument);
}

/** Requires an object; with `known` one that has no other members, since a misspelt one would be left out without a word. */
export function checkObject<T extends object>(value: T, argument: string, known?: readonly (keyof T & string)[]): T {
  if (!isRecord(value)) throw bad(argument, 'an object', value);
  const unknown = known && Object.keys(value).find((name) => !known.some((one) => one === name));
  if (unknown !== undefined) throw bad(argument, `an object with no other members than ${known!.join(', ')}`, unknown);
  return value;
}

/** Requires an array. */
export function checkList<T>(value: readonly T[], argument: string): readonly T[] {
  if (!Array.isArray(value)) throw bad(argument, 'an array', value);
  return value;
}

/** Requires an array of ids. */
export function checkIds(value: readonly unknown[], argument: string): string[] {
  return checkList(value, argument).map((id, index) => checkId(id, `${argument}[${index}]`));
}

/** Requires bytes that are there: those of a detached buffer would pass for none, as would a view that is outside of its buffer by now. */
export function checkBytes(value: unknown, argument: string): Uint8Array {
  if (!(value instanceof Uint8Array) && !(ArrayBuffer.isView(value) && Object.prototype.toString.call(value) === '[object Uint8Array]')) {
    throw bad(argument, 'a Uint8Array', value);
  }
  const bytes = value as Uint8Array;
  try {
    // Throws for both, in every runtime; reads nothing.
    if (bytes.byteLength === 0) Uint8Array.prototype.values.call(bytes);
  } catch {
    throw bad(argument, 'a Uint8Array whose buffer is not detached and not shorter than it', value);
  }
  return bytes;
}

/** Requires a signal, or nothing. One of another realm will do. */
export function checkSignal(value: AbortSignal | null | undefined, argument: string): AbortSignal | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'object' || typeof value.aborted !== 'boolean' || typeof value.addEventListener !== 'function') {
    throw bad(argument, 'an AbortSignal or undefined', value);
  }
  return value;
}

/** Runs a common check; its refusals get the class of this module. */
export function guarded<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    throw asGraphError(error);
  }
}

/** Requires what JSON does not leave out without a word. */
export function checkPrintable<T>(value: T, argument: string): T {
  if (['undefined', 'function', 'symbol'].includes(typeof value)) throw bad(argument, 'what JSON can say', value);
  if (typeof (value as { toJSON?: unknown } | null)?.toJSON === 'function') print(value, argument);
  return value;
}

/** Prints a command. What JSON cannot say is a bad argument; what a caller's `toJSON` throws passes unchanged. */
export function print(command: unknown, argument: string): string {
  try {
    const text = JSON.stringify(command) as string | undefined;
    if (text !== undefined) return text;
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) {
      throw new InvalidArgumentError(`${argument} must be what JSON can say: ${error.message}`, { cause: error, fields: { argument } });
    }
    throw error;
  }
  throw bad(argument, 'what JSON can say', command);
}
