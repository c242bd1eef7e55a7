/**
 * What a mutation changed: the diff, the event's states and the transition rows, masked for the run.
 *
 * This is the derivation for stores written in JavaScript, and for states that are not plain JSON. For the others the engine derives
 * the same from two JSON texts (`src/entity/derive.rs`); `__test__/vectors/entity-derive.json` holds both to the same answers.
 */
import { stableStringify, structurallyEqual, structurallyEqualOriginal } from './canonical';
import { define, maskedNames } from './copy';
import { diffStates, type State } from './diff';
import { serializeFieldValue } from './field-text';
import { standsForObject } from './snapshot';
import type { EntityCompat } from './types';

/** What a change is derived from. */
export interface ChangeInput {
  /** The state before, or `null` if the entity did not exist. The change keeps it: hand over a snapshot (`snapshotState`). */
  readonly prev: State | null;
  /** The state after, or `null` if the entity is gone. The change keeps it, as `prev`. */
  readonly next: State | null;
  /** The fields that the schema can return; see `DiffOptions.known`. */
  readonly known?: ReadonlySet<string> | null | undefined;
  readonly compat: EntityCompat;
  /** Masks a value with the run's secrets. Absent: nothing is masked. */
  readonly mask?: ((value: unknown) => unknown) | undefined;
  /** Masks a field's name with the run's secrets. Absent: nothing is masked. */
  readonly maskText?: ((text: string) => string) | undefined;
  /** Is told of values that have no text. */
  readonly warn?: ((message: string) => void) | undefined;
}

/** What a mutation changed, masked. Nothing in it is the caller's, if `prev` and `next` were not. */
export interface DerivedChange {
  readonly changedFields: string[];
  readonly delta: Record<string, unknown>;
  readonly prev: State | null;
  readonly next: State | null;
  /** One for each changed field, in the order of `changedFields`; none when the entity is gone. */
  readonly rows: DerivedRow[];
}

/** A transition of one field. */
export interface DerivedRow {
  readonly field: string;
  /** `null` if the entity did not exist. */
  fromValue: string | null;
  toValue: string;
  /** The canonical text of the new value, by which it is found again. */
  readonly canonical: string;
  /** Whether masking changed `toValue`. */
  readonly masked: boolean;
}

/**
 * Derives what a mutation changed.
 *
 * The diff is made on the states themselves and masked afterwards, so that a field going from one secret to another is a change
 * (`'original'`: of masked states, which hides it). That an entity comes to exist, or ceases to, is a change even if no field is
 * (`'original'`: only fields count).
 *
 * @returns `null` when nothing changed
 * @throws {RangeError} when a value contains itself, which no snapshot does
 */
export function deriveChange(input: ChangeInput): DerivedChange | null {
  return input.compat === 'original' ? deriveOriginal(input) : deriveHoldfast(input);
}

function deriveHoldfast({ prev, next, known, mask, maskText, warn }: ChangeInput): DerivedChange | null {
  const diff = diffStates(prev, next, { known, equal: structurallyEqual });
  if (diff.changedFields.length === 0 && (prev === null) === (next === null)) {
    return null;
  }
  const names = maskText === undefined ? NO_NAMES : namesOf(prev, next, maskText);
  const masked = { prev: maskState(prev, names, mask), next: maskState(next, names, mask) };
  const nameOf = (field: string): string => names.get(field) ?? field;
  const delta: Record<string, unknown> = {};
  for (const field of next === null ? [] : Object.keys(diff.delta)) {
    define(delta, nameOf(field), Object.hasOwn(next as State, field) ? own(masked.next, nameOf(field)) : null);
  }
  const fields = diff.changedFields.map((field) => ({ field, name: nameOf(field) }));
  if (names.size > 0) {
    fields.sort((a, b) => (a.name < b.name ? -1 : 1));
  }
  const rows = next === null ? [] : fields.map(({ field, name }) => rowOf(name, masked.prev, masked.next, own(next, field), warn));
  rows.forEach((row, i) => quote(row, prev, next, (fields[i] as { field: string }).field));
  return { changedFields: fields.map(({ name }) => name), delta, ...masked, rows };
}

/** The original masks the states, and then looks for differences in what is left. */
function deriveOriginal({ prev, next, mask, warn }: ChangeInput): DerivedChange | null {
  const masked = { prev: maskWhole(prev, mask), next: maskWhole(next, mask) };
  const { changedFields, delta } = diffStates(masked.prev, masked.next, { equal: structurallyEqualOriginal });
  if (changedFields.length === 0) {
    return null;
  }
  if (next === null) {
    return { changedFields, delta: {}, ...masked, rows: [] };
  }
  // Masking keeps the order of the fields, if not their names.
  const values = Object.values(next);
  const raw = new Map(Object.keys(masked.next ?? {}).map((name, i) => [name, values[i]]));
  return { changedFields, delta, ...masked, rows: changedFields.map((name) => rowOf(name, masked.prev, masked.next, raw.get(name), warn)) };
}

/** @param raw the new value before masking */
function rowOf(name: string, prev: State | null, next: State | null, raw: unknown, warn: ChangeInput['warn']): DerivedRow {
  const value = own(next, name);
  const toValue = serializeFieldValue(value, warn);
  return {
    field: name,
    fromValue: prev === null ? null : serializeFieldValue(own(prev, name), warn),
    toValue,
    // A store written in JavaScript has no use for it, and of a large value it takes long.
    get canonical() {
      return stableStringify(value);
    },
    masked: value !== raw && toValue !== serializeFieldValue(raw),
  };
}

/** A string that stands for an object is recorded as JSON, as every object is. */
function quote(row: DerivedRow, prev: State | null, next: State | null, field: string): void {
  if (standsForObject(prev, field)) row.fromValue = JSON.stringify(row.fromValue);
  if (standsForObject(next, field)) row.toValue = JSON.stringify(row.toValue);
}

const NO_NAMES: ReadonlyMap<string, string> = new Map();

/** Returns the names that masking changes. One name for each field in both states, so that an event calls it the same everywhere. */
function namesOf(prev: State | null, next: State | null, maskText: (text: string) => string): ReadonlyMap<string, string> {
  const fields = [...new Set([...Object.keys(prev ?? {}), ...Object.keys(next ?? {})])];
  const names = maskedNames(fields, maskText);
  return names === null ? NO_NAMES : new Map(names.map((name, i) => [fields[i] as string, name]));
}

function maskState(state: State | null, names: ReadonlyMap<string, string>, mask: ChangeInput['mask']): State | null {
  if (state === null || (mask === undefined && names.size === 0)) {
    return state;
  }
  const masked: State = {};
  for (const field of Object.keys(state)) {
    define(masked, names.get(field) ?? field, mask === undefined ? state[field] : mask(state[field]));
  }
  return masked;
}

function maskWhole(state: State | null, mask: ChangeInput['mask']): State | null {
  return state === null || mask === undefined ? state : (mask(state) as State);
}

function own(state: State | null, field: string): unknown {
  return state !== null && Object.hasOwn(state, field) ? state[field] : undefined;
}
