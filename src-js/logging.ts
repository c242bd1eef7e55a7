/** Loggers and listeners of callers: what they throw disturbs nobody. */

type Write = (message: string, ...args: unknown[]) => void;

/**
 * Makes the function that wraps loggers with these levels: a line that a logger cannot write is left out, because what it reports has
 * happened, and must take its course. The same logger gets the same wrapper.
 */
export function quietLoggers<Level extends string>(levels: readonly Level[]): QuietLogger<Record<Level, Write>> {
  const known = new WeakMap<object, Record<Level, Write>>();
  function quiet(logger: Record<Level, Write> | undefined): Record<Level, Write> | undefined {
    if (typeof logger !== 'object' || logger === null) return undefined;
    const made = known.get(logger);
    if (made !== undefined) return made;
    const write = (level: Level): Write => (message, ...args) => attempt(() => logger[level](message, ...args), () => {});
    const wrapper = Object.fromEntries(levels.map((level) => [level, write(level)])) as Record<Level, Write>;
    known.set(logger, wrapper);
    known.set(wrapper, wrapper);
    return wrapper;
  }
  return quiet as QuietLogger<Record<Level, Write>>;
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
