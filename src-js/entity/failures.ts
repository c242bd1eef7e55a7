/** What is known of a rejected mutation, kept beside its error: the error itself is the caller's own object and stays as it is. */
import type { EntityFailure } from './types';

const failures = new WeakMap<object, EntityFailure>();

/** Notes what is known of the mutation that rejects with `error`, and returns the error. */
export function noteFailure<E>(error: E, failure: EntityFailure): E {
  // A thrown primitive cannot carry anything; its mutation's facts are lost with it.
  if ((typeof error === 'object' && error !== null) || typeof error === 'function') failures.set(error, failure);
  return error;
}

/**
 * Tells at which step the `mutate` or `remove` that rejected with `error` stopped, and whether the owner's write had already happened.
 * `undefined` for any other error.
 */
export function getEntityFailure(error: unknown): EntityFailure | undefined {
  return (typeof error === 'object' && error !== null) || typeof error === 'function' ? failures.get(error) : undefined;
}
