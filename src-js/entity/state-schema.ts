/** One way to validate states, whatever library made their schema. No such library is imported: schemas are told apart by their marks. */
import { EntityValidationError } from '../errors';
import type { StandardSchemaV1 } from './standard-schema';
import type { EntityCompat } from './types';

/** A schema that was accepted. */
export interface CompiledSchema {
  /**
   * Returns the validated state: unknown keys stripped, defaults and transforms applied; or a promise of it, where the schema has
   * asynchronous parts. Throws, or rejects with, the schema's own error.
   */
  validate(value: unknown): unknown;
  /**
   * The fields that the schema can return, or `null` if it lets others through. A field of the state before that is not among them,
   * and not in the state after, is none of the schema's business: that it is "gone" is no change.
   */
  readonly known: ReadonlySet<string> | null;
  /** Whether the schema fills in the field when it is missing. Always `false` for schemas that do not tell. */
  hasDefault(field: string): boolean;
}

/** Why a schema was refused. */
export interface RejectedSchema {
  /** What came instead of an object schema, in a word, for the message. */
  rejected: string;
}

/** Accepts the object schemas of zod 4, zod-mini and zod 3, and any other library's Standard Schema; `original` only those of zod 4. */
export function compileStateSchema(schema: unknown, compat: EntityCompat = 'holdfast'): CompiledSchema | RejectedSchema {
  // A function can be a schema, too: those of arktype are.
  const parts = (schema ?? {}) as SchemaParts;
  if (hasTrait(parts, 'ZodObject')) return compileZod(parts, knownToZod4(parts), hasDefaultInZod4);
  if (compat === 'original') return { rejected: describe(schema) };
  if (hasTrait(parts, '$ZodObject')) return compileZod(parts, knownToZod4(parts), hasDefaultInZod4);
  if (parts._def?.typeName === 'ZodObject' && typeof parts.parse === 'function') {
    return compileZod(parts, knownToZod3(parts), hasDefaultInZod3);
  }
  const standard = parts['~standard'];
  // zod's scalars and unions implement the standard as well, but are no object schemas.
  if (standard?.version === 1 && typeof standard.validate === 'function' && standard.vendor !== 'zod') return compileStandard(standard);
  return { rejected: describe(schema) };
}

/** Tells whether a value can be a state: an object, of any prototype, but no array, `Date`, `Map` and the like. */
export function isStateObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && Object.prototype.toString.call(value) === '[object Object]';
}

/** What may be found on a schema. */
interface SchemaParts {
  parse?: (value: unknown) => unknown;
  parseAsync?: (value: unknown) => Promise<unknown>;
  shape?: Record<string, unknown>;
  _zod?: {
    traits?: { has?: (trait: string) => boolean };
    def?: { type?: string; shape?: object; catchall?: SchemaParts; innerType?: SchemaParts; in?: SchemaParts };
  };
  _def?: { typeName?: string; unknownKeys?: string; catchall?: SchemaParts; innerType?: SchemaParts; schema?: SchemaParts };
  '~standard'?: StandardSchemaV1.Props<unknown, unknown>;
}

// ── zod ──

function hasTrait({ _zod }: SchemaParts, trait: string): boolean {
  return typeof _zod?.traits?.has === 'function' && _zod.traits.has(trait) === true;
}

function compileZod(
  schema: SchemaParts,
  known: ReadonlySet<string> | null,
  hasDefault: (field: SchemaParts | undefined) => boolean,
): CompiledSchema | RejectedSchema {
  const described = { known, hasDefault: (field: string) => hasDefault(fieldOf(schema, field)) };
  if (typeof schema.parse === 'function') return { validate: zodValidator(schema as Required<SchemaParts>), ...described };
  // The bare classes of zod 4's core have no methods.
  const standard = schema['~standard'];
  return standard === undefined ? { rejected: describe(schema) } : { ...compileStandard(standard), ...described };
}

function zodValidator(schema: Required<SchemaParts>): (value: unknown) => unknown {
  let asynchronous = false;
  return (value) => {
    if (asynchronous) return schema.parseAsync(value);
    try {
      return schema.parse(value);
    } catch (error) {
      if (typeof schema.parseAsync !== 'function') throw error;
      if (needsAsync(error)) {
        // From now on at once, so that no refinement runs twice.
        asynchronous = true;
        return schema.parseAsync(value);
      }
      if (schema._zod !== undefined && error instanceof TypeError) return retryAfterTypeError(schema, value, error);
      throw error;
    }
  };
}

/** An asynchronous transform of a field trips zod 4's compiled parser: it throws a `TypeError` instead of its own error. */
async function retryAfterTypeError(schema: Required<SchemaParts>, value: unknown, first: TypeError): Promise<unknown> {
  try {
    return await schema.parseAsync(value);
  } catch (error) {
    // A `TypeError` again: it is one of the schema's own callbacks, and the first one is what `parse` said.
    throw error instanceof TypeError ? first : error;
  }
}

function needsAsync(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return false;
  if ((error.constructor as { name?: unknown } | undefined)?.name === '$ZodAsyncError') return true;
  return /^(Async refinement|Asynchronous transform|Encountered Promise) /.test(String((error as Error).message));
}

function knownToZod4({ _zod, shape }: SchemaParts): ReadonlySet<string> | null {
  const catchall = _zod?.def?.catchall;
  if (catchall !== undefined && catchall._zod?.def?.type !== 'never') return null;
  return new Set(Object.keys(shape ?? _zod?.def?.shape ?? {}));
}

function knownToZod3({ _def, shape }: SchemaParts): ReadonlySet<string> | null {
  const strips = _def?.unknownKeys === 'strip' || _def?.unknownKeys === 'strict';
  return strips && _def?.catchall?._def?.typeName === 'ZodNever' ? new Set(Object.keys(shape ?? {})) : null;
}

function fieldOf({ shape, _zod }: SchemaParts, field: string): SchemaParts | undefined {
  // What `Object.prototype` has under the name is no schema, and tells of no default.
  return ((shape ?? _zod?.def?.shape ?? {}) as Record<string, SchemaParts | undefined>)[field];
}

function hasDefaultInZod4(field: SchemaParts | undefined): boolean {
  for (let at = field; at !== undefined; at = at._zod?.def?.innerType ?? at._zod?.def?.in) {
    if (['default', 'prefault', 'catch'].includes(at._zod?.def?.type ?? '')) return true;
  }
  return false;
}

function hasDefaultInZod3(field: SchemaParts | undefined): boolean {
  for (let at = field; at !== undefined; at = at._def?.innerType ?? at._def?.schema) {
    if (['ZodDefault', 'ZodCatch'].includes(at._def?.typeName ?? '')) return true;
  }
  return false;
}

// ── Standard Schema ──

function compileStandard(standard: StandardSchemaV1.Props<unknown, unknown>): CompiledSchema {
  return {
    validate(value) {
      const result: unknown = standard.validate(value);
      return isThenable(result) ? result.then(stateOf) : stateOf(result);
    },
    known: null,
    hasDefault: () => false,
  };
}

function stateOf(result: unknown): Record<string, unknown> {
  const { issues, value } = (result ?? {}) as { issues?: unknown; value?: unknown };
  if (issues) throw new EntityValidationError(Array.isArray(issues) ? (issues as StandardSchemaV1.Issue[]) : []);
  if (!isStateObject(value)) throw new EntityValidationError([{ message: `the state must be an object, got ${describe(value)}` }]);
  return value;
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function';
}

/** Names a value by its class, never by its content. */
function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  const name: unknown = (value as { constructor?: { name?: unknown } }).constructor?.name;
  return typeof name === 'string' && name !== '' ? name : typeof value;
}
