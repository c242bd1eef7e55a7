/** What effects come to, as text and back. */
import { InvalidArgumentError } from './errors';

/** How an error is stored. */
export interface StoredError {
  /** Something else than an error was thrown: this. */
  value?: unknown;
  name?: string;
  message?: string;
  code?: string | number;
}

/** Prints an outcome; `undefined` has no text. What JSON would change is refused: a replay would see something else than the first run. */
export function printOutcome(outcome: unknown): string | undefined {
  if (outcome === undefined) return undefined;
  let text: string | undefined;
  try {
    text = JSON.stringify(outcome);
    checkJson(outcome, 'the outcome');
  } catch (error) {
    if (error instanceof InvalidArgumentError || !(error instanceof TypeError || error instanceof RangeError)) throw error;
    throw refusal(`the outcome of an effect must be what JSON can say: ${error.message}`);
  }
  return text;
}

/** Requires what JSON says and reads back unchanged. Members that are `undefined` are left out, as everywhere. */
function checkJson(value: unknown, place: string): void {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return;
    case 'number':
      if (!Number.isFinite(value)) throw refusal(`${place} is ${value}, which JSON cannot say`);
      return;
    case 'object':
      break;
    default:
      throw refusal(`${place} is ${typeof value === 'undefined' ? 'undefined' : `a ${typeof value}`}, which JSON cannot say`);
  }
  if (value === null) return;
  if (Array.isArray(value)) {
    // Not `forEach`, which passes over holes.
    for (let index = 0; index < value.length; index++) checkJson(value[index], `${place}[${index}]`);
    return;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  // The second: an object of another realm.
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    throw refusal(`${place} is a ${constructorOf(value)}, which JSON cannot say; return plain objects`);
  }
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function') throw refusal(`${place} has a toJSON method; return plain objects`);
  for (const [name, member] of Object.entries(value)) {
    if (member !== undefined) checkJson(member, `${place}.${name}`);
  }
}

function constructorOf(value: object): string {
  const name: unknown = (value as { constructor?: { name?: unknown } }).constructor?.name;
  return typeof name === 'string' && name !== '' ? name : 'class instance';
}

function refusal(message: string): InvalidArgumentError {
  return new InvalidArgumentError(message, { fields: { argument: 'run' } });
}

/** Tells whether an effect may be tried again. */
export function isTransient(error: unknown): boolean {
  return typeof error === 'object' && error !== null && (error as { transient?: unknown }).transient === true;
}

/** Prints what an effect threw: of an error its name, message and code, of another value the value if JSON can say it. */
export function printError(error: unknown): string {
  const { name, message, code } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>;
  if (typeof message === 'string') {
    const stored: StoredError = { message };
    if (typeof name === 'string') stored.name = name;
    if (typeof code === 'string' || typeof code === 'number') stored.code = code;
    return JSON.stringify(stored);
  }
  try {
    return JSON.stringify({ value: JSON.parse(printOutcome(error) ?? 'null') as unknown });
  } catch {
    return JSON.stringify({ name: 'Error', message: `an effect threw ${typeof error}` });
  }
}

/** Makes what is thrown again. */
export function reviveError(stored: StoredError): unknown {
  if ('value' in stored) return stored.value;
  const error = new Error(stored.message);
  // As with the classes of the language: not enumerable.
  if (stored.name !== undefined && stored.name !== error.name) {
    Object.defineProperty(error, 'name', { value: stored.name, configurable: true, writable: true });
  }
  if (stored.code !== undefined) Object.assign(error, { code: stored.code });
  return error;
}
