/** What is known of a rejected mutation, kept beside its error: the error itself is the caller's own object and stays as it is. */
import type { EntityFailure } from './types';

const failures = new WeakMap<object, EntityFailure>();

/**
 * Notes what is known of the mutation that rejects with `error`, and returns the error. Of two mutations that reject with one object, the
 * one whose write had happened counts: who believes that nothing was written would write twice.
 */
export function noteFailure<E>(error: E, failure: EntityFailure): E {
  // A thrown primitive cannot carry anything; its mutation's facts are lost with it.
  if ((typeof error === 'object' && error !== null) || typeof error === 'function') {
    if (failure.applied || failures.get(error)?.applied !== true) failures.set(error, failure);
  }
  return error;
}

/**
 * Tells at which step the `mutate` or `remove` that rejected with `error` stopped, and whether the owner's write had already happened.
 *
 * `undefined` for any other error, and for a thrown string, number or other primitive, to which nothing can be attached: whether the
 * write had happened is not known then. Where one object was thrown by several mutations, it answers for one whose write had happened,
 * if there is one.
 */
export function getEntityFailure(error: unknown): EntityFailure | undefined {
  return (typeof error === 'object' && error !== null) || typeof error === 'function' ? failures.get(error) : undefined;
}
