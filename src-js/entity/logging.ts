/** What is said to people: the words of somebody's error, and loggers that disturb nobody. */
import { quietLoggers } from '../logging';
import type { Logger } from './types';

/** What an error says. Values that are no errors are not told: they may be anything. */
export function messageOf(error: unknown): string {
  if (typeof error === 'string') return error;
  // By its tag as well: an error of another realm is no instance of this one's class.
  const isError = error instanceof Error || Object.prototype.toString.call(error) === '[object Error]';
  return isError ? String((error as Error).message) : 'An error occurred';
}

const quiet = quietLoggers(['debug', 'info', 'warn', 'error']);

/**
 * The same logger, but a line that it cannot write is left out: a change that is recorded must reach its subscribers whatever becomes of
 * a warning about it.
 */
export function quietLogger(logger: Logger): Logger;
export function quietLogger(logger: Logger | undefined): Logger | undefined;
export function quietLogger(logger: Logger | undefined): Logger | undefined {
  return quiet(logger);
}
