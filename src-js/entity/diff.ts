/** Which fields of an entity differ between two states. */
import { structurallyEqual } from './canonical';
import { define } from './copy';
import type { EntityDiff } from './types';

/** The state of an entity: its fields. */
export type State = Record<string, unknown>;

/** How {@link diffStates} compares. */
export interface DiffOptions {
  /**
   * The fields that the entity's schema can return. A field of `prev` that is neither among them nor in `next` is ignored: it is
   * a column that `read` returned beside the state. Default: every field counts.
   */
  readonly known?: ReadonlySet<string> | null | undefined;
  /** Compares two values of a field; an absent one is `undefined`. */
  readonly equal: (a: unknown, b: unknown) => boolean;
}

/**
 * Tells which fields differ between two states.
 *
 * The fields are the own enumerable string keys of both. A field has changed when the canonical texts of its two values differ
 * (see `stableStringify`), so the order of nested keys does not matter, and the order of elements does. At the top level an absent
 * field, `undefined` and `null` are the same; nested, `{ a: null }` and `{}` differ. `null` as a state has no fields.
 *
 * @returns a diff whose `delta` holds values of `next` themselves, not copies
 * @throws {RangeError} when a value to compare contains itself or has more than 10,000 levels
 *
 * @example
 * ```ts
 * diffEntityState({ prev: { status: 'open', note: 'x' }, next: { status: 'done' } });
 * // { changedFields: ['note', 'status'], delta: { status: 'done', note: null } }
 * ```
 */
export function diffEntityState({ prev, next }: { prev: State | null; next: State | null }): EntityDiff {
  return diffStates(prev, next, HOLDFAST);
}

const HOLDFAST: DiffOptions = { equal: structurallyEqual };

/** {@link diffEntityState} with the comparison and the fields of a handle. */
export function diffStates(prev: State | null, next: State | null, { known, equal }: DiffOptions): EntityDiff {
  const changedFields: string[] = [];
  const delta: Record<string, unknown> = {};
  const change = (field: string, value: unknown): void => {
    changedFields.push(field);
    define(delta, field, value);
  };
  const before = prev === null ? [] : Object.keys(prev);
  const after = next === null ? [] : Object.keys(next);
  // Two states of one entity mostly have the same keys in the same order.
  let i = 0;
  for (; i < before.length && before[i] === after[i]; i++) {
    const field = before[i] as string;
    const value = (next as State)[field];
    const old = (prev as State)[field];
    if (old !== value && !equal(old, value)) {
      change(field, value);
    }
  }
  if (i < before.length || i < after.length) {
    diffRest(before.slice(i), after.slice(i));
  }
  if (changedFields.length > 1) {
    changedFields.sort();
  }
  return { changedFields, delta };

  function diffRest(beforeRest: readonly string[], afterRest: readonly string[]): void {
    const unseen = new Set(afterRest);
    for (const field of beforeRest) {
      const kept = unseen.delete(field);
      if (kept || (known?.has(field) ?? true)) {
        const value = kept ? (next as State)[field] : undefined;
        if (!equal((prev as State)[field], value)) {
          change(field, kept ? value : null);
        }
      }
    }
    for (const field of unseen) {
      const value = (next as State)[field];
      if (!equal(undefined, value)) {
        change(field, value);
      }
    }
  }
}
