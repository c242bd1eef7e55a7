/** Loggers that disturb nobody, and what is said to them. */
import { invalidArgument } from '../check';
import { quietLoggers, type Logger } from '../logging';

export { messageOf } from '../logging';

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
