/** Calls that somebody stops waiting for. */

/** Who is to be told when a signal aborts. */
const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `told` when the signal aborts, until the returned function is called. However many there are, the signal has one listener: Node
 * takes more than ten for a leak, and says so.
 */
export function onAbort(signal: AbortSignal, told: () => void): () => void {
  let all = waiting.get(signal);
  if (all === undefined) {
    waiting.set(signal, (all = new Set()));
    signal.addEventListener('abort', tellAll, { once: true });
  }
  // So that one who is there twice is told twice, and goes once.
  const one = (): void => told();
  all.add(one);
  return () => {
    const left = waiting.get(signal);
    if (left === undefined || !left.delete(one) || left.size > 0) return;
    waiting.delete(signal);
    signal.removeEventListener('abort', tellAll);
  };
}

function tellAll(event: Event): void {
  const signal = event.currentTarget as AbortSignal;
  const all = waiting.get(signal) ?? [];
  waiting.delete(signal);
  for (const tell of all) tell();
}

/** Runs `start`; an abort before it ends rejects at once with the signal's own reason. What `start` yields then is dropped. */
export async function unlessAborted<T>(signal: AbortSignal | undefined, start: () => Promise<T>): Promise<T> {
  if (signal === undefined) return start();
  signal.throwIfAborted();
  let leave: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    leave = onAbort(signal, () => reject(signal.reason as Error));
  });
  try {
    return await Promise.race([start(), aborted]);
  } finally {
    leave?.();
  }
}
