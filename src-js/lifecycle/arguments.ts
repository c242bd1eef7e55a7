/** Arguments of this module: what the package's common checks do not know. */
import { invalidArgument, isRecord } from '../check';
import { asLifecycleError } from './errors';

/** Runs checks; their refusals get the class of this module. */
export function guarded<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    throw asLifecycleError(error);
  }
}

/** Requires an id: a string that is not empty and that every database can hold. */
export function checkId(value: unknown, argument: string): string {
  if (typeof value !== 'string' || value === '' || value.includes('\0') || !value.isWellFormed()) {
    throw invalidArgument(argument, 'a string that is not empty, without NUL characters and lone surrogates', value);
  }
  return value;
}

/** Requires a whole number of 0 or more, such as a seq or a limit. */
export function checkCount(value: unknown, argument: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw invalidArgument(argument, 'an integer of 0 or more', value);
  return value;
}

/** Requires milliseconds that a timer can wait, above 0. */
export function checkInterval(value: unknown, argument: string): number {
  if (typeof value !== 'number' || !(value > 0 && value < 2 ** 31)) throw invalidArgument(argument, 'a number of milliseconds above 0 and below 2^31', value);
  return value;
}

/** Requires milliseconds of 0 or more; `Infinity` is cut to what the engine can hold. */
export function checkMillis(value: unknown, argument: string): number {
  if (typeof value !== 'number' || !(value >= 0)) throw invalidArgument(argument, 'a number of milliseconds, 0 or more', value);
  return Math.min(Math.floor(value), Number.MAX_SAFE_INTEGER);
}

/** Requires an AbortSignal, of whatever realm, or nothing. */
export function checkSignal(value: unknown, argument: string): AbortSignal | undefined {
  if (value === undefined) return undefined;
  const signal = value as Partial<AbortSignal> | null;
  if (typeof signal?.aborted === 'boolean' && typeof signal.addEventListener === 'function') return value as AbortSignal;
  throw invalidArgument(argument, 'an AbortSignal', value);
}

/** Requires an object with these methods; `T` is what a caller who writes TypeScript has handed in. */
export function checkPort<T extends object>(port: T, argument: string, ...methods: (keyof T & string)[]): T {
  const found = port as Record<string, unknown> | null | undefined;
  const isObject = isRecord(port) || typeof port === 'function';
  const missing = isObject ? methods.find((method) => typeof found?.[method] !== 'function') : methods[0];
  if (missing !== undefined) throw invalidArgument(argument, `an object with the method${methods.length > 1 ? 's' : ''} ${methods.join(', ')}`, port);
  return port;
}

/** Requires an object that has no other properties: a misspelt one would be left out without a word. */
export function checkOnly<T extends object>(value: T, argument: string, known: readonly string[]): T {
  const unknown = Object.keys(value).find((name) => !known.includes(name));
  if (unknown !== undefined) throw invalidArgument(argument, `an object with no other properties than ${known.join(', ')}`, unknown);
  return value;
}
