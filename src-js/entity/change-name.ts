/**
 * Which change an append is of: what the stores of holdfast know about the transitions that a handle gives them, without another word
 * in what a store written by the program gets. It follows the array, so a program may wrap `appendTransitions` and pass it on.
 */
import type { TransitionAppend } from './types';

/** What is known of the transitions of one change. */
export interface ChangeName {
  /** Names the change; the same at every try, so that a store can skip what an earlier one wrote although its answer was lost. */
  readonly changeId: string;
  /** Whether masking changed the value of each, in their order. Default: none. */
  readonly masked?: readonly boolean[];
}

const names = new WeakMap<ReadonlyArray<TransitionAppend>, ChangeName>();

/** Says which change `transitions` are of. */
export function nameChange(transitions: ReadonlyArray<TransitionAppend>, name: ChangeName): void {
  names.set(transitions, name);
}

/** Which change `transitions` are of; `undefined` for those that a program made. */
export function changeNameOf(transitions: ReadonlyArray<TransitionAppend>): ChangeName | undefined {
  return names.get(transitions);
}
