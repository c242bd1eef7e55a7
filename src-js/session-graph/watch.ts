/** Changes of a session, as they come. */
import { checkCount, checkSignal } from './arguments';
import { unlessAborted } from './abort';
import { coreOf, question, type SessionGraphBase } from './base-store';
import type { SessionGraphChange, WatchOptions } from './upkeep-types';

interface Pulse {
  headRevision: number;
  queuedBatches: number;
  /** Differs whenever the queue was changed. */
  queue: string;
}

/** Watches a store until it is closed, the signal aborts, or the iteration ends. */
export function watchOf(store: SessionGraphBase, options: WatchOptions): AsyncIterableIterator<SessionGraphChange> {
  const since = options.since === undefined ? undefined : checkCount(options.since, 'opts.since');
  const pollMs = checkCount(options.pollMs ?? 250, 'opts.pollMs');
  checkSignal(options.signal, 'opts.signal');
  const core = coreOf(store);
  const pulse = (): Promise<Pulse> => question<Pulse>(store, { do: 'pulse' });
  // Asked now, not with the first step: what is changed in between is told.
  const begin = pulse();
  begin.catch(() => {});
  const over = new AbortController();
  const iterator = changes();
  const leave = iterator.return.bind(iterator);
  // A generator that waits for a change would put its end off until there is one.
  iterator.return = (value) => {
    over.abort();
    return leave(value);
  };
  return iterator;

  async function* changes(): AsyncGenerator<SessionGraphChange, void> {
    const { signal } = options;
    // Of a store that was closed before: rejects.
    if (core.closed && signal?.aborted !== true) await begin;
    const watch = signal?.aborted === true ? undefined : core.watch();
    if (watch === undefined) return;
    const end = (): void => over.abort();
    over.signal.addEventListener('abort', () => watch.end(), { once: true });
    signal?.addEventListener('abort', end, { once: true });
    try {
      let known = await begin;
      if (since !== undefined) known = { ...known, headRevision: since };
      let next: Promise<boolean> | undefined;
      while (!over.signal.aborted && !core.closed) {
        const now = await pulse();
        const changed: SessionGraphChange['changed'] = [];
        if (now.headRevision !== known.headRevision) changed.push('revision');
        if (now.queue !== known.queue) changed.push('queue');
        known = now;
        if (changed.length > 0) {
          yield { changed, headRevision: now.headRevision, queuedBatches: now.queuedBatches };
          continue;
        }
        next ??= watch.next().finally(() => (next = undefined));
        await (core.config.postgres === undefined ? next : atMost(next, pollMs, over.signal));
      }
    } catch (error) {
      // Closed while a question was on its way: that is the end, too.
      if (!core.closed && !over.signal.aborted) throw error;
    } finally {
      signal?.removeEventListener('abort', end);
      core.unwatch(watch);
    }
  }
}

/** Waits for `next`, for so long at most. */
async function atMost(next: Promise<unknown>, milliseconds: number, signal: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  try {
    await unlessAborted(signal, () => Promise.race([next, new Promise((resolve) => (timer = setTimeout(resolve, milliseconds)))])).catch(() => {});
  } finally {
    clearTimeout(timer);
  }
}
