/** Loggers and listeners of callers: what they throw disturbs nobody. */

/** Writes one line of a log. */
export type Log = (message: string, ...args: unknown[]) => void;

/** A logger; `console` is one. */
export interface Logger {
  debug: Log;
  info: Log;
  warn: Log;
  error: Log;
}

/**
 * Makes the function that wraps loggers with these levels: a line that a logger cannot write is left out, because what it reports has
 * happened, and must take its course. The same logger gets the same wrapper.
 */
export function quietLoggers<Level extends string>(levels: readonly Level[]): QuietLogger<Record<Level, Log>> {
  const known = new WeakMap<object, Record<Level, Log>>();
  function quiet(logger: Record<Level, Log> | undefined): Record<Level, Log> | undefined {
    if (typeof logger !== 'object' || logger === null) return undefined;
    const made = known.get(logger);
    if (made !== undefined) return made;
    const write = (level: Level): Log => (message, ...args) => attempt(() => logger[level](message, ...args), () => {});
    const wrapper = Object.fromEntries(levels.map((level) => [level, write(level)])) as Record<Level, Log>;
    known.set(logger, wrapper);
    known.set(wrapper, wrapper);
    return wrapper;
  }
  return quiet as QuietLogger<Record<Level, Log>>;
}

interface QuietLogger<L> {
  (logger: L): L;
  (logger: L | undefined): L | undefined;
}

/** Calls what is the caller's own; `failed` gets what it throws, or rejects with later where it is an async function. */
export function attempt(run: () => unknown, failed: (error: unknown) => void): void {
  try {
    const result = run();
    if (result instanceof Promise) result.catch(failed);
  } catch (error) {
    failed(error);
  }
}

/** What an error says, whatever was thrown. */
export function messageOf(error: unknown): string {
  try {
    // By its tag as well: an error of another realm is no instance of this one's class.
    return error instanceof Error || Object.prototype.toString.call(error) === '[object Error]' ? String((error as Error).message) : String(error);
  } catch {
    // Something without a text, as an object without a prototype.
    return 'something that is no error was thrown';
  }
}
