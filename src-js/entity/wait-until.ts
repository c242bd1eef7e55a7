/** Waiting for a state: look, and look again after each change. */
import { checkFunction } from '../check';
import { HoldfastError } from '../errors';
import { keepAlive } from './change-stream';
import { storeInternals } from './store-core';
import type { EntityStore, EntityWaitOptions } from './types';

/** What waiting needs of a handle. */
export interface Watched<T> {
  readonly listeners: Set<(id: string) => void>;
  readonly context: { readonly kind: string; store(): EntityStore | null };
  get(id: string): Promise<T | undefined>;
}

/** Resolves with the state as soon as `predicate` accepts it. */
export async function waitForState<T>(
  handle: Watched<T>,
  id: string,
  predicate: (state: T | undefined) => boolean,
  { timeoutMs, signal }: EntityWaitOptions = {},
): Promise<T | undefined> {
  checkFunction(predicate, 'predicate');
  signal?.throwIfAborted();
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
  const unlisten = internals?.listen((change) => {
    if (change.kind === kind) heard(change.id);
  });
  // What changed elsewhere before this process could hear of it is found by looking again.
  const listening = internals?.listening();
  void listening?.then(() => heard(id));
  const stay = keepAlive(listening !== undefined && timeoutMs === undefined);
  signal?.addEventListener('abort', abort, { once: true });
  const timer = timeoutMs === undefined ? undefined : setTimeout(expire, timeoutMs);
  try {
    for (;;) {
      changed = false;
      // A `read` that never answers must not outlast the time.
      const state = await Promise.race([handle.get(id), ended]);
      if (predicate(state)) return state;
      if (!changed) await Promise.race([new Promise<void>((resume) => (wake = resume)), ended]);
    }
  } finally {
    clearTimeout(timer);
    stay();
    signal?.removeEventListener('abort', abort);
    handle.listeners.delete(heard);
    unlisten?.();
  }
}
