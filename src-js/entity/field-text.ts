/** The text of one field in a transition row. */
import { FIELD_RULES, printText } from './json-text';

/** The text of a field whose value has none: one that contains itself, or is nested too deep. */
export const UNSERIALIZABLE = '[unserializable]';

/**
 * Returns the text under which a field's value is kept in the transition log.
 *
 * A string is kept as it is, without quotes; `null` and `undefined` as `null`; anything else as `JSON.stringify` prints it, keys in
 * their own order. Different values can share a text: `null` and `'null'`, `42` and `'42'`.
 *
 * It has a text for every value, so that a change that has happened can always be recorded: a bigint is its digits, a function or
 * symbol is `null`, and what contains itself or has more than 10,000 levels is `[unserializable]`.
 *
 * @param value any value; it is not changed
 * @param warn is told when a value became `[unserializable]`; the message does not show the value
 * @throws only what a getter or `toJSON` of the value throws
 */
export function serializeFieldValue(value: unknown, warn?: (message: string) => void): string {
  switch (typeof value) {
    case 'string':
      return value;
    case 'undefined':
    case 'function':
    case 'symbol':
      return 'null';
    case 'bigint':
      return String(value);
    case 'object':
      return value === null ? 'null' : objectText(value, warn);
    default:
      return JSON.stringify(value);
  }
}

function objectText(value: object, warn: ((message: string) => void) | undefined): string {
  try {
    return JSON.stringify(value) ?? 'null';
  } catch {
    // A bigint, a cycle, or more levels than the engine's stack holds: the printer tells which.
  }
  try {
    return printText(value, FIELD_RULES) || 'null';
  } catch (error) {
    if (!(error instanceof RangeError)) {
      throw error;
    }
    warn?.(`a field's value was recorded as ${UNSERIALIZABLE}: ${error.message}`);
    return UNSERIALIZABLE;
  }
}
