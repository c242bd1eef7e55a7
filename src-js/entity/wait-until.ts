/** Waiting for a state: look, and look again after each change. */
import { checkFunction } from '../check';
import { HoldfastError } from '../errors';
import { checkId, refuse } from './check-input';
import { keepAlive } from './change-stream';
import { storeClosed, storeInternals } from './store-core';
import type { EntityStore, EntityWaitOptions } from './types';

/** What waiting needs of a handle. */
export interface Watched<T> {
  readonly listeners: Set<(id: string) => void>;
  readonly context: { readonly kind: string; store(): EntityStore | null };
  get(id: string): Promise<T | undefined>;
}

/** The most that a timer of Node waits, in milliseconds; with more it would not wait at all. */
const TIMER_MAX = 2 ** 31 - 1;

/** Resolves with the state as soon as `predicate` accepts it. */
export async function waitForState<T>(
  handle: Watched<T>,
  id: string,
  predicate: (state: T | undefined) => boolean,
  options: EntityWaitOptions = {},
): Promise<T | undefined> {
  checkId(id, 'waitUntil', { kind: handle.context.kind });
  checkFunction(predicate, 'predicate');
  const { timeoutMs, signal } = checkOptions(options);
  if (signal?.aborted) throw signal.reason;
  const { kind } = handle.context;
  let wake: () => void = () => {};
  let changed = false;
  const heard = (changedId: string): void => {
    if (changedId !== id) return;
    changed = true;
    wake();
  };
  let end: (error: unknown) => void = () => {};
  const ended = new Promise<never>((_, reject) => (end = reject));
  // It may end when nobody waits for it.
  ended.catch(() => {});
  const abort = (): void => end(signal?.reason);
  const expire = (): void =>
    end(
      new HoldfastError(`waited ${timeoutMs} ms for ${kind}:${id}, but its state was not accepted; raise timeoutMs, or look at what should change it`, {
        hfCode: 'HF_LOCK_TIMEOUT',
        fields: { kind, id, timeoutMs },
      }),
    );

  // Before the first look: a change in between would be lost otherwise.
  handle.listeners.add(heard);
  const store = handle.context.store();
  const internals = store === null ? undefined : storeInternals(store);
  let unlisten: (() => void) | undefined;
  try {
    unlisten = internals?.listen(
      (change) => {
        if (change.kind === kind) heard(change.id);
      },
      () => end(storeClosed()),
    );
  } catch (error) {
    handle.listeners.delete(heard);
    throw error;
  }
  // What changed elsewhere before this process could hear of it is found by looking again. Whoever uses the store is told why it cannot.
  const listening = internals?.listening();
  listening?.then(
    () => heard(id),
    () => {},
  );
  const stay = keepAlive(listening !== undefined && timeoutMs === undefined);
  signal?.addEventListener('abort', abort, { once: true });
  const stopTimer = timeoutMs === undefined ? undefined : after(timeoutMs, expire);
  try {
    for (;;) {
      changed = false;
      // A `read` that never answers must not outlast the time.
      const state = await Promise.race([handle.get(id), ended]);
      if (predicate(state)) return state;
      if (!changed) await Promise.race([new Promise<void>((resume) => (wake = resume)), ended]);
    }
  } finally {
    stopTimer?.();
    stay();
    signal?.removeEventListener('abort', abort);
    handle.listeners.delete(heard);
    unlisten?.();
  }
}

/** The options, with a time without end as no time. */
function checkOptions(options: EntityWaitOptions): EntityWaitOptions {
  const where = { where: 'waitUntil: ' };
  if (typeof options !== 'object' || options === null) throw refuse('its options', 'an object { timeoutMs, signal }', options, where);
  const { timeoutMs, signal } = options;
  if (timeoutMs !== undefined && !(typeof timeoutMs === 'number' && timeoutMs >= 0)) {
    throw refuse('timeoutMs', 'a number of milliseconds, 0 or more', timeoutMs, where);
  }
  if (signal !== undefined && !isSignal(signal)) throw refuse('signal', 'an AbortSignal', signal, { ...where, hint: 'pass controller.signal' });
  return { timeoutMs: timeoutMs === Infinity ? undefined : timeoutMs, signal };
}

/** By what is used of it: signals of other realms and of libraries are no instances of this one's class. */
function isSignal(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { aborted, addEventListener, removeEventListener } = value as Partial<AbortSignal>;
  return typeof aborted === 'boolean' && typeof addEventListener === 'function' && typeof removeEventListener === 'function';
}

/** Calls `run` after any time; returns what prevents it. */
function after(ms: number, run: () => void): () => void {
  let left = ms;
  let timer: ReturnType<typeof setTimeout>;
  const wait = (): void => {
    const part = Math.min(left, TIMER_MAX);
    left -= part;
    timer = setTimeout(left > 0 ? wait : run, part);
  };
  wait();
  return () => clearTimeout(timer);
}
