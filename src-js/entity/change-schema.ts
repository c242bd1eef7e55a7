/** What a change must look like: its actors, and the schema of its payload. */
import { EntityValidationError } from '../errors';
import type { StandardSchemaV1 } from './standard-schema';
import { isStateObject } from './state-schema';
import type { Actor, ActorType, EntityChanged, EntityChangedParser } from './types';

/** Every kind of actor. */
export const ACTOR_TYPES = Object.freeze(['system', 'user', 'application', 'service'] as const) satisfies readonly ActorType[];

/** The actor of mutations that name none. */
export const SYSTEM_ACTOR: Readonly<Actor> = Object.freeze({ type: 'system', id: 'system', name: 'System' });

/**
 * Validates the payload of a change, wherever it came from. The result is a copy without unknown keys. All fields are required
 * except `changeId` and `actor.name`.
 */
export const EntityChangedSchema: EntityChangedParser = Object.freeze({
  parse,
  safeParse,
  '~standard': Object.freeze({ version: 1, vendor: 'holdfast', validate }),
});

function parse(value: unknown): EntityChanged {
  const result = validate(value);
  if (result.issues !== undefined) throw new EntityValidationError(result.issues);
  return result.value;
}

function safeParse(value: unknown): { success: true; data: EntityChanged } | { success: false; error: Error } {
  try {
    return { success: true, data: parse(value) };
  } catch (error) {
    // What a getter of the payload throws, too: this function promises not to.
    return { success: false, error: error as Error };
  }
}

function validate(value: unknown): StandardSchemaV1.Result<EntityChanged> {
  const issues: StandardSchemaV1.Issue[] = [];

  /** Takes a value that passes, or notes what it should have been. A message never has the value: it may be a secret. */
  function take<T>(at: string, found: unknown, passes: (found: unknown) => found is T, expected: string): T {
    if (!passes(found)) {
      const message = `${at === '' ? 'the change' : at} must be ${expected}, got ${typeName(found)}`;
      issues.push({ message, path: at === '' ? [] : at.split('.') });
    }
    return found as T;
  }

  const change = take('', value, isStateObject, 'an object');
  if (issues.length > 0) return { issues };
  const kind = take('kind', change.kind, isString, 'a string');
  const id = take('id', change.id, isString, 'a string');
  const prev = take('prev', change.prev, isStateOrNull, 'an object or null');
  const next = take('next', change.next, isStateOrNull, 'an object or null');
  const delta = take('delta', change.delta, isStateObject, 'an object');
  const changedFields = take('changedFields', change.changedFields, isStrings, 'an array of strings');
  const actor = take('actor', change.actor, isStateObject, 'an object');
  const { type, id: actorId, name } = isStateObject(actor) ? actor : { type: 'system', id: '' };
  const actorType = take('actor.type', type, isActorType, `one of ${ACTOR_TYPES.join(', ')}`);
  take('actor.id', actorId, isString, 'a string');
  take('actor.name', name, isStringOrUndefined, 'a string or undefined');
  const occurredAt = take('occurredAt', change.occurredAt, isString, 'a string');
  const changeId = take('changeId', change.changeId, isStringOrUndefined, 'a string or undefined');
  if (issues.length > 0) return { issues };

  const copy: EntityChanged = {
    kind,
    id,
    prev: prev === null ? null : copyOf(prev),
    next: next === null ? null : copyOf(next),
    delta: copyOf(delta),
    changedFields: [...changedFields],
    actor: { type: actorType, id: actorId as string },
    occurredAt,
  };
  if (name !== undefined) copy.actor.name = name as string;
  if (changeId !== undefined) copy.changeId = changeId;
  return { value: copy };
}

/** Copies the own fields of a state, also one called `__proto__`. */
function copyOf(state: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(state));
}

function isString(value: unknown): value is string {
  return typeof value === 'string';
}

function isStringOrUndefined(value: unknown): value is string | undefined {
  return value === undefined || typeof value === 'string';
}

function isStrings(value: unknown): value is string[] {
  // `Array.from` fills holes, which `every` would pass over.
  return Array.isArray(value) && Array.from(value).every(isString);
}

function isStateOrNull(value: unknown): value is Record<string, unknown> | null {
  return value === null || isStateObject(value);
}

function isActorType(value: unknown): value is ActorType {
  return (ACTOR_TYPES as readonly unknown[]).includes(value);
}

function typeName(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : typeof value;
}
