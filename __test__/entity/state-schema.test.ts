// Which schemas are taken for states (R5, R6), how they validate (R12, R13), and what they say of their fields (R16).
import { HoldfastError } from '../../src-js/errors';
import { describe, expect, test } from 'vitest';
import * as z from 'zod';
import * as mini from 'zod/mini';
import * as core from 'zod/v4/core';
import * as z3 from 'zod3';
import { EntityValidationError } from '../../src-js/errors';
import { compileStateSchema, type CompiledSchema } from '../../src-js/entity/state-schema';

function compiled(schema: unknown): CompiledSchema {
  const result = compileStateSchema(schema);
  if ('rejected' in result) throw new Error(`rejected: ${result.rejected}`);
  return result;
}

/** A Standard Schema by hand. */
function standard(validate: (value: unknown) => unknown, vendor = 'by-hand') {
  return { '~standard': { version: 1, vendor, validate } };
}

const async = { check: async () => true, shout: async (text: string) => text.toUpperCase() };

describe('accepts', () => {
  const shape = { a: z.string() };
  test.each([
    ['object', z.object(shape)],
    ['strictObject', z.strictObject(shape)],
    ['looseObject', z.looseObject(shape)],
    ['refine', z.object(shape).refine(() => true)],
    ['superRefine', z.object(shape).superRefine(() => undefined)],
    ['brand', z.object(shape).brand('x')],
    ['partial', z.object(shape).partial()],
    ['extend', z.object(shape).extend({ b: z.number().optional() })],
    ['catchall', z.object(shape).catchall(z.number())],
    ['describe', z.object(shape).describe('x')],
    ['meta', z.object(shape).meta({ x: 1 })],
  ])('zod 4 %s, also where only the original counts', (_name, schema) => {
    expect(compiled(schema).validate({ a: 'x' })).toEqual({ a: 'x' });
    expect(compileStateSchema(schema, 'original')).toHaveProperty('validate');
  });

  test.each([
    ['zod-mini', mini.object({ a: mini.string() }), 'ZodMiniObject'],
    ['zod-mini, loose', mini.looseObject({ a: mini.string() }), 'ZodMiniObject'],
    ['zod 4 core', new core.$ZodObject({ type: 'object', shape: { a: z.string() } }), '$ZodObject'],
    ['zod 3', z3.object({ a: z3.string() }), 'ZodObject'],
    ['zod 3, strict', z3.object({ a: z3.string() }).strict(), 'ZodObject'],
    ['a Standard Schema', standard((value) => ({ value })), 'Object'],
    ['a Standard Schema that is a function', Object.assign(() => undefined, standard((value) => ({ value }))), 'Function'],
  ])('%s, which the original refuses', (_name, schema, named) => {
    expect(compiled(schema).validate({ a: 'x' })).toEqual({ a: 'x' });
    expect(compileStateSchema(schema, 'original')).toEqual({ rejected: named });
  });
});

describe('rejects', () => {
  const object = z.object({ a: z.string() });
  test.each([
    ['ZodOptional', object.optional()],
    ['ZodNullable', object.nullable()],
    ['ZodDefault', object.default({ a: 'x' })],
    ['ZodReadonly', object.readonly()],
    ['ZodPipe', object.transform((value) => value)],
    ['ZodLazy', z.lazy(() => object)],
    ['ZodUnion', z.union([object, object])],
    ['ZodIntersection', z.intersection(object, object)],
    ['ZodRecord', z.record(z.string(), z.string())],
    ['ZodString', z.string()],
    ['ZodOptional', z3.object({}).optional()],
    ['ZodEffects', z3.object({}).refine(() => true)],
    ['ZodString', z3.string()],
    ['null', null],
    ['undefined', undefined],
    ['String', 'ZodObject'],
    ['Number', 7],
    ['Array', []],
    ['object', Object.create(null)],
    ['object', { constructor: { name: '' } }],
    ['object', { constructor: { name: 7 } }],
    ['object', { constructor: undefined }],
    ['Object', { parse: () => ({}), shape: {} }],
    ['Object', { _zod: {} }],
    ['Object', { _zod: { traits: { has: 'no function' } } }],
    ['Object', { _def: { typeName: 'ZodObject' } }],
    ['Object', { '~standard': { version: 2, vendor: 'x', validate: () => ({}) } }],
    ['Object', { '~standard': { version: 1, vendor: 'x' } }],
    ['Object', standard((value) => ({ value }), 'zod')],
    ['Function', () => undefined],
  ])('%s', (named, schema) => {
    expect(compileStateSchema(schema)).toEqual({ rejected: named });
  });
});

describe('validates', () => {
  test.each([
    ['zod 4', z.object({ a: z.string(), n: z.number().default(1) })],
    ['zod-mini', mini.object({ a: mini.string(), n: mini._default(mini.number(), 1) })],
    ['zod 3', z3.object({ a: z3.string(), n: z3.number().default(1) })],
  ])('%s: strips, fills in, and throws its own error', (_name, schema) => {
    const { validate } = compiled(schema);
    expect(validate({ a: 'x', extra: 1 })).toEqual({ a: 'x', n: 1 });
    expect(() => validate({ a: 1 })).toThrow(expect.objectContaining({ issues: [expect.objectContaining({ path: ['a'] })] }) as Error);
    expect(() => validate(undefined)).toThrow();
  });

  test('what the schema throws arrives as the same object', () => {
    const thrown = new TypeError('mine');
    const refuse = () => {
      throw thrown;
    };
    expect(catching(() => compiled(z3.object({ a: z3.string().refine(refuse) })).validate({ a: 'x' }))).toBe(thrown);
    expect(catching(() => compiled(standard(refuse)).validate({}))).toBe(thrown);
    const rangeError = new RangeError('mine');
    const schema = z.object({ a: z.string() }).refine(() => {
      throw rangeError;
    });
    expect(catching(() => compiled(schema).validate({ a: 'x' }))).toBe(rangeError);
  });

  test('a TypeError of a callback arrives as the same object, too', async () => {
    const thrown: TypeError[] = [];
    const schema = z.object({ a: z.string() }).refine(() => {
      thrown.push(new TypeError('mine'));
      throw thrown.at(-1)!;
    });
    await expect(compiled(schema).validate({ a: 'x' })).rejects.toSatisfy((error) => error === thrown[0]);
  });

  test.each([
    ['zod 4 refinement', z.object({ a: z.string().refine(async.check) }), { a: 'x' }],
    ['zod 4 transform', z.object({ a: z.string().transform(async.shout) }), { a: 'X' }],
    ['zod-mini refinement', mini.object({ a: mini.string().check(mini.refine(async.check)) }), { a: 'x' }],
    ['zod 3 refinement', z3.object({ a: z3.string().refine(async.check) }), { a: 'x' }],
    ['zod 3 transform', z3.object({ a: z3.string().transform(async.shout) }), { a: 'X' }],
    ['Standard Schema', standard(async (value) => ({ value })), { a: 'x' }],
  ])('asynchronous parts: %s', async (_name, schema, expected) => {
    const { validate } = compiled(schema);
    for (let round = 0; round < 2; round++) {
      const state = validate({ a: 'x' });
      expect(state).toBeInstanceOf(Promise);
      await expect(state).resolves.toEqual(expected);
    }
  });

  test('an asynchronous refusal rejects with the schema\'s own error', async () => {
    const { validate } = compiled(z.object({ a: z.string().refine(async () => false, 'never') }));
    for (let round = 0; round < 2; round++) {
      await expect(validate({ a: 'x' })).rejects.toMatchObject({ name: 'ZodError', issues: [{ message: 'never', path: ['a'] }] });
    }
  });

  test('once known to be asynchronous, a schema runs its callbacks once per state', async () => {
    let calls = 0;
    const { validate } = compiled(z.object({ a: z.string().refine(async () => ++calls > 0) }));
    await validate({ a: 'x' });
    const before = calls;
    await validate({ a: 'x' });
    expect(calls - before).toBe(1);
  });

  test('synchronous schemas stay synchronous after a refusal', () => {
    const { validate } = compiled(z.object({ a: z.string() }));
    expect(() => validate({ a: 1 })).toThrow();
    expect(validate({ a: 'x' })).toEqual({ a: 'x' });
  });

  test('issues of a Standard Schema become an EntityValidationError', async () => {
    const issues = [{ message: 'too small', path: ['a'] }, { message: 'second' }];
    const error = catching(() => compiled(standard(() => ({ issues }))).validate({}));
    expect(error).toBeInstanceOf(EntityValidationError);
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).toMatchObject({ name: 'EntityValidationError', message: 'too small', hfCode: 'HF_ENTITY_VALIDATION' });
    expect((error as EntityValidationError).issues).toBe(issues);
    await expect(compiled(standard(async () => ({ issues }))).validate({})).rejects.toMatchObject({ issues });
  });

  test.each([
    ['an array', ['secret'], 'got Array'],
    ['null', null, 'got null'],
    ['a string', 'secret', 'got String'],
    ['a Date', new Date(), 'got Date'],
    ['a Map', new Map(), 'got Map'],
    ['nothing', undefined, 'got undefined'],
  ])('a Standard Schema that gives %s fails, and the message does not show it', (_name, value, message) => {
    const error = catching(() => compiled(standard(() => ({ value }))).validate({}));
    expect(error).toBeInstanceOf(EntityValidationError);
    expect((error as Error).message).toContain(message);
    expect((error as Error).message).not.toContain('secret');
  });

  test('a Standard Schema that breaks the standard fails', () => {
    for (const result of [undefined, null, 7, {}, { issues: 'all of it' }, { issues: [] }, { issues: [null] }]) {
      expect(catching(() => compiled(standard(() => result)).validate({})), JSON.stringify(result)).toBeInstanceOf(EntityValidationError);
    }
  });
});

describe('knows its fields', () => {
  const fields = (schema: unknown) => {
    const { known } = compiled(schema);
    return known && [...known];
  };

  test('where unknown keys cannot come through', () => {
    expect(fields(z.object({ a: z.string(), b: z.string() }))).toEqual(['a', 'b']);
    expect(fields(z.strictObject({ a: z.string() }))).toEqual(['a']);
    expect(fields(z.object({}).catchall(z.never()))).toEqual([]);
    expect(fields(mini.object({ a: mini.string() }))).toEqual(['a']);
    expect(fields(new core.$ZodObject({ type: 'object', shape: { a: z.string() } }))).toEqual(['a']);
    expect(fields(z3.object({ a: z3.string() }))).toEqual(['a']);
    expect(fields(z3.object({ a: z3.string() }).strict())).toEqual(['a']);
  });

  test('and says so where they can', () => {
    expect(fields(z.looseObject({ a: z.string() }))).toBeNull();
    expect(fields(z.object({}).catchall(z.number()))).toBeNull();
    expect(fields(mini.looseObject({}))).toBeNull();
    expect(fields(z3.object({}).passthrough())).toBeNull();
    expect(fields(z3.object({}).catchall(z3.number()))).toBeNull();
    expect(fields(standard((value) => ({ value })))).toBeNull();
  });

  test('without touching recursive ones', () => {
    const node: z.ZodType = z.object({
      name: z.string(),
      get child() {
        return z.optional(node);
      },
    });
    expect(fields(node)).toEqual(['name', 'child']);
  });

  test.each([
    ['zod 4', z.object],
    ['zod 3', z3.object],
  ])('and which have a default: %s', (name, object) => {
    const { string, number } = (name === 'zod 4' ? z : z3) as typeof z;
    const deep = number().default(1).nullable().readonly();
    const fields = { plain: string(), filled: number().default(1), deep, caught: string().catch('') };
    const { hasDefault } = compiled((object as typeof z.object)(fields));
    const names = ['plain', 'filled', 'deep', 'caught', 'absent', 'constructor', '__proto__'];
    expect(names.filter(hasDefault)).toEqual(['filled', 'deep', 'caught']);
  });
});

function catching(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}
