/** Times of callers (`TimeInput`) as milliseconds since the epoch. */
import { types } from 'node:util';
import { invalidArgument } from '../check';

/** The first and the last millisecond that 24 characters can say. */
const FIRST_MS = Date.UTC(2000, 0, 1) - 730_485 * 86_400_000;
const LAST_MS = Date.UTC(9999, 11, 31, 23, 59, 59, 999);

const RFC_3339 = /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))$/;

const EXPECTED = 'a Date, milliseconds since the epoch or an RFC 3339 text with an offset, in the years 0 to 9999';

/**
 * Requires a time; it is cut to the millisecond.
 *
 * @throws {Error} `HF_INVALID_ARGUMENT`
 */
export function checkTime(value: unknown, argument: string): number {
  const ms = millisOf(value);
  if (!(ms >= FIRST_MS && ms <= LAST_MS)) throw invalidArgument(argument, EXPECTED, types.isDate(value) ? 'Invalid Date' : value);
  return ms;
}

/** As {@link checkTime}, but the time may be left out. */
export function checkTimeOrUndefined(value: unknown, argument: string): number | undefined {
  return value === undefined ? undefined : checkTime(value, argument);
}

/** Makes the function that tells the time by a caller's clock, whose answer is checked like any other time. */
export function millisClock(clock: (() => unknown) | undefined, argument: string): () => number {
  return clock === undefined ? Date.now : () => checkTime(clock(), `what ${argument} returns`);
}

/** NaN = no time. */
function millisOf(value: unknown): number {
  // Cutting towards minus infinity: a time before 1970 must not move forward.
  if (typeof value === 'number') return Math.floor(value);
  if (types.isDate(value)) return Date.prototype.getTime.call(value);
  if (typeof value !== 'string') return NaN;
  const match = RFC_3339.exec(value);
  if (match === null) return NaN;
  const [, year, month, day, hour, minute, second, fraction = '', sign, offsetHour, offsetMinute] = match;
  const parts = [year, month, day, hour, minute, second].map(Number) as [number, number, number, number, number, number];
  const date = new Date(0);
  date.setUTCFullYear(parts[0], parts[1] - 1, parts[2]);
  date.setUTCHours(parts[3], parts[4], parts[5], Number(fraction.slice(0, 3).padEnd(3, '0')));
  // A day that the month does not have, or an hour of 24, has moved on.
  const isReal = date.getUTCMonth() === parts[1] - 1 && date.getUTCDate() === parts[2] && date.getUTCHours() === parts[3] && parts[4] < 60 && parts[5] < 60;
  if (!isReal) return NaN;
  if (sign === undefined) return date.getTime();
  const [hours, minutes] = [Number(offsetHour), Number(offsetMinute)];
  if (hours > 23 || minutes > 59) return NaN;
  return date.getTime() - (sign === '-' ? -1 : 1) * (hours * 60 + minutes) * 60_000;
}
