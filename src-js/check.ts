/**
 * Checks of arguments. Each returns the value with its type, or throws `HF_INVALID_ARGUMENT` naming the argument, what it must be
 * and what came instead. They run before anything is touched.
 */
import { HoldfastError } from './errors';

/** Requires a string; it may be empty. */
export function checkString(value: unknown, argument: string): string {
  if (typeof value !== 'string') throw invalidArgument(argument, 'a string', value);
  return value;
}

/** Requires a string with something other than white space in it. */
export function checkNonEmptyString(value: unknown, argument: string): string {
  if (typeof value !== 'string' || isBlank(value)) throw invalidArgument(argument, 'a string that is not blank', value);
  return value;
}

/** Requires a string or `null`, as run ids are. */
export function checkStringOrNull(value: unknown, argument: string): string | null {
  if (value !== null && typeof value !== 'string') throw invalidArgument(argument, 'a string or null', value);
  return value;
}

/** Requires a path of a file or folder: a string that is not empty and has no NUL character, which no file system takes. */
export function checkPath(value: unknown, argument: string): string {
  if (typeof value !== 'string' || value === '' || value.includes('\0')) {
    throw invalidArgument(argument, 'a path: a string that is not empty and has no NUL character', value);
  }
  return value;
}

/** Requires a function. */
export function checkFunction<F extends (...args: never[]) => unknown>(value: F, argument: string): F {
  if (typeof value !== 'function') throw invalidArgument(argument, 'a function', value);
  return value;
}

/** Requires a function, or `undefined` for an option that was left out. */
export function checkFunctionOrUndefined<F extends (...args: never[]) => unknown>(value: F | undefined, argument: string): F | undefined {
  if (value !== undefined && typeof value !== 'function') throw invalidArgument(argument, 'a function or undefined', value);
  return value;
}

/** Requires a finite number of 0 or more. */
export function checkFiniteNumber(value: unknown, argument: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) {
    throw invalidArgument(argument, 'a finite number of 0 or more', value);
  }
  return value;
}

/** Requires an integer of 1 or more that a double holds exactly. */
export function checkPositiveInteger(value: unknown, argument: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1) {
    throw invalidArgument(argument, 'an integer of 1 or more', value);
  }
  return value;
}

/** Requires a boolean, or `undefined` for an option that was left out. */
export function checkBooleanOrUndefined(value: unknown, argument: string): boolean | undefined {
  if (value !== undefined && typeof value !== 'boolean') throw invalidArgument(argument, 'a boolean or undefined', value);
  return value;
}

/**
 * Requires an object that is neither `null` nor an array. The prototype is not looked at: objects of another realm have another
 * one, and a class instance with the right properties is as good as a literal.
 */
export function checkPlainObject<T extends object>(value: T, argument: string): T {
  if (!isRecord(value)) throw invalidArgument(argument, 'an object', value);
  return value;
}

/** Requires an array; its elements are the caller's to check. */
export function checkArray<T>(value: readonly T[], argument: string): readonly T[] {
  if (!Array.isArray(value)) throw invalidArgument(argument, 'an array', value);
  return value;
}

/** Requires one of `allowed`. */
export function checkOneOf<T extends string>(value: unknown, argument: string, allowed: readonly T[] | ReadonlySet<T>): T {
  for (const candidate of allowed) if (value === candidate) return candidate;
  throw invalidArgument(argument, `one of ${Array.from(allowed, (text) => JSON.stringify(text)).join(', ')}`, value);
}

/** Tells whether `value` is an object that is neither `null` nor an array. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Tells whether `text` is empty or all white space in the sense of `String.prototype.trim`. */
export function isBlank(text: string): boolean {
  return text.trim() === '';
}

/** Makes the error of a bad argument, with the properties `argument`, `expected` and `received`. */
export function invalidArgument(argument: string, expected: string, value: unknown): HoldfastError {
  const received = describe(value);
  return new HoldfastError(`${argument} must be ${expected}, got ${received}`, {
    hfCode: 'HF_INVALID_ARGUMENT',
    fields: { argument, expected, received },
  });
}

/** Characters of a bad string that a message shows: enough to recognise it, and no megabytes in a log. */
const SHOWN_CHARACTERS = 40;

function describe(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  switch (typeof value) {
    case 'undefined':
      return 'undefined';
    case 'string':
      return `the string ${JSON.stringify(value.length > SHOWN_CHARACTERS ? `${value.slice(0, SHOWN_CHARACTERS)}…` : value)}`;
    case 'number':
      return `the number ${value}`;
    case 'boolean':
      return `the boolean ${value}`;
    case 'object':
      return 'an object';
    default:
      return `a ${typeof value}`;
  }
}
