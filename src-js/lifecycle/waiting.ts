/** Waiting with bounds. */

/** What {@link within} gives when time is up. */
export const LATE = Symbol('late');

/** Settles as `running` does, or resolves to {@link LATE} after `ms` milliseconds. */
export async function within<T>(running: Promise<T>, ms: number, keepAlive = true): Promise<T | typeof LATE> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<typeof LATE>((resolve) => {
    timer = setTimeout(() => resolve(LATE), ms);
    if (!keepAlive) timer.unref();
  });
  // Nobody hears a failure that comes late.
  running.catch(() => {});
  try {
    return await Promise.race([running, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Runs `each` for all items, at most `concurrency` at a time, in order. The first failure ends it, when those under way are through. */
export async function pooled<T>(items: readonly T[], concurrency: number, each: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  let failed: { error: unknown } | undefined;
  const work = async (): Promise<void> => {
    while (next < items.length && failed === undefined) {
      try {
        await each(items[next++] as T);
      } catch (error) {
        failed ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, items.length) }, work));
  if (failed !== undefined) throw failed.error;
}
