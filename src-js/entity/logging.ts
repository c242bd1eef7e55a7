/** What is said to people: the words of somebody's error, and loggers that disturb nobody. */
import type { Log, Logger } from './types';

/** What an error says. Values that are no errors are not told: they may be anything. */
export function messageOf(error: unknown): string {
  if (typeof error === 'string') return error;
  // By its tag as well: an error of another realm is no instance of this one's class.
  const isError = error instanceof Error || Object.prototype.toString.call(error) === '[object Error]';
  return isError ? String((error as Error).message) : 'An error occurred';
}

const quiet = new WeakMap<Logger, Logger>();

/**
 * The same logger, but a line that it cannot write is left out: a change that is recorded must reach its subscribers whatever becomes of
 * a warning about it.
 */
export function quietLogger(logger: Logger): Logger;
export function quietLogger(logger: Logger | undefined): Logger | undefined;
export function quietLogger(logger: Logger | undefined): Logger | undefined {
  if (typeof logger !== 'object' || logger === null) return logger;
  let made = quiet.get(logger);
  if (made === undefined) {
    const write = (level: keyof Logger): Log => (message, ...args) => {
      try {
        logger[level](message, ...args);
      } catch {
        // There is nobody left to tell.
      }
    };
    made = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
    quiet.set(logger, made);
  }
  return made;
}
