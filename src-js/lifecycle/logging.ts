/** Loggers that disturb nobody, and what is said to them. */
import { invalidArgument } from '../check';
import { quietLoggers } from '../logging';
import type { Logger } from '../entity/types';

const LEVELS = ['debug', 'info', 'warn', 'error'] as const;

const quiet = quietLoggers(LEVELS);

/** Requires a logger, or nothing. What comes back is the same logger, but a line that it cannot write is left out. */
export function checkLogger(logger: unknown, argument: string): Logger | undefined {
  if (logger === undefined) return undefined;
  const methods = logger as Record<string, unknown> | null;
  if (methods === null || LEVELS.some((level) => typeof methods[level] !== 'function')) {
    throw invalidArgument(argument, 'an object with the methods debug, info, warn and error', logger);
  }
  return quiet(logger as Logger);
}

/** What an error says, whatever was thrown. */
export function messageOf(error: unknown): string {
  try {
    return error instanceof Error || Object.prototype.toString.call(error) === '[object Error]' ? String((error as Error).message) : String(error);
  } catch {
    // Something without a text, as an object without a prototype.
    return 'something that is no error was thrown';
  }
}
