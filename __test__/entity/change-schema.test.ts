// The schema of a change: what is required, what is stripped, and that a message never shows a value (R41).
import { describe, expect, test } from 'vitest';
import * as z from 'zod';
import { EntityValidationError } from '../../src-js/errors';
import { ACTOR_TYPES, EntityChangedSchema, SYSTEM_ACTOR } from '../../src-js/entity/change-schema';

const valid = () => ({
  kind: 'pod',
  id: '7',
  prev: { status: 'up' } as unknown,
  next: null as unknown,
  delta: {} as unknown,
  changedFields: ['status'] as unknown,
  actor: { type: 'user', id: 'u-1', name: 'Ada' } as unknown,
  occurredAt: '2026-01-01T00:00:00.000Z',
  changeId: 'c-1' as unknown,
});

test('actors', () => {
  expect(ACTOR_TYPES).toEqual(['system', 'user', 'application', 'service']);
  expect(SYSTEM_ACTOR).toEqual({ type: 'system', id: 'system', name: 'System' });
  for (const type of ACTOR_TYPES) expect(EntityChangedSchema.parse({ ...valid(), actor: { type, id: 'x' } }).actor.type).toBe(type);
});

describe('accepts', () => {
  test('a change, as a copy in the order of the interface', () => {
    const payload = valid();
    const parsed = EntityChangedSchema.parse(payload);
    expect(parsed).toEqual(payload);
    expect(Object.keys(parsed)).toEqual(Object.keys(payload));
    parsed.changedFields.push('x');
    parsed.prev!.x = 1;
    parsed.actor.id = 'x';
    expect(payload).toEqual(valid());
  });

  test('a change without what is optional', () => {
    const { changeId: _changeId, ...rest } = valid();
    const parsed = EntityChangedSchema.parse({ ...rest, actor: { type: 'service', id: 's', name: undefined } });
    expect('changeId' in parsed).toBe(false);
    expect('name' in parsed.actor).toBe(false);
  });

  test('unknown keys, and strips them', () => {
    const payload = { ...valid(), extra: 1, actor: { type: 'user', id: 'u', role: 'root' } };
    expect(EntityChangedSchema.parse(payload)).toEqual({ ...valid(), actor: { type: 'user', id: 'u' } });
  });

  test('states with a field called __proto__', () => {
    const prev: unknown = JSON.parse('{"__proto__":{"polluted":true}}');
    const parsed = EntityChangedSchema.parse({ ...valid(), prev });
    expect(Object.keys(parsed.prev!)).toEqual(['__proto__']);
    expect((parsed.prev as { polluted?: unknown }).polluted).toBeUndefined();
  });

  test('objects without a prototype', () => {
    const prev = Object.assign(Object.create(null) as object, { a: 1 });
    expect(EntityChangedSchema.safeParse(Object.assign(Object.create(null) as object, valid(), { prev })).success).toBe(true);
  });
});

describe('refuses', () => {
  const wrong: [string, unknown][] = [
    ['kind', 7],
    ['id', undefined],
    ['prev', undefined],
    ['prev', ['secret-value']],
    ['prev', new Date()],
    ['next', 'secret-value'],
    ['next', new Map()],
    ['delta', null],
    ['delta', []],
    ['changedFields', 'status'],
    ['changedFields', ['a', 7]],
    ['changedFields', Array(1)],
    ['actor', null],
    ['actor', 'secret-value'],
    ['actor.type', { type: 'robot', id: 'x' }],
    ['actor.type', { id: 'x' }],
    ['actor.id', { type: 'user' }],
    ['actor.name', { type: 'user', id: 'x', name: null }],
    ['occurredAt', new Date()],
    ['changeId', null],
  ];
  test.each(wrong)('%s: %j', (at, value) => {
    const result = EntityChangedSchema.safeParse({ ...valid(), [at.split('.')[0]!]: value });
    if (result.success) throw new Error('it was accepted');
    expect(result.error).toBeInstanceOf(EntityValidationError);
    expect(result.error).toMatchObject({ hfCode: 'HF_ENTITY_VALIDATION', issues: [{ path: at.split('.') }] });
    expect(result.error.message).toMatch(new RegExp(`^${at} must be `));
    expect(result.error.message).not.toContain('secret-value');
  });

  test.each([undefined, null, 7, 'change', [], () => undefined])('%s', (value) => {
    expect(() => EntityChangedSchema.parse(value)).toThrow(EntityValidationError);
    expect(() => EntityChangedSchema.parse(value)).toThrow(/^the change must be an object, got /);
  });

  test('everything that is wrong at once', () => {
    const result = EntityChangedSchema['~standard'].validate({ actor: {} });
    expect(result).toMatchObject({ issues: { length: 9 } });
  });

  test('a payload whose getter throws', () => {
    const thrown = new Error('mine');
    const payload = {
      get kind() {
        throw thrown;
      },
    };
    expect(EntityChangedSchema.safeParse(payload)).toEqual({ success: false, error: thrown });
  });
});

test('works without its object, and as a Standard Schema', async () => {
  const { parse, safeParse } = EntityChangedSchema;
  expect(parse(valid())).toEqual(valid());
  expect(safeParse(valid())).toEqual({ success: true, data: valid() });
  const standard = EntityChangedSchema['~standard'];
  expect([standard.version, standard.vendor]).toEqual([1, 'holdfast']);
  expect(await standard.validate(valid())).toEqual({ value: valid() });
});

test('agrees with the schema of the original, in zod', () => {
  const record = z.record(z.string(), z.unknown());
  const original = z.object({
    kind: z.string(),
    id: z.string(),
    prev: record.nullable(),
    next: record.nullable(),
    delta: record,
    changedFields: z.array(z.string()),
    actor: z.object({ type: z.enum(ACTOR_TYPES), id: z.string(), name: z.string().optional() }),
    occurredAt: z.string(),
    changeId: z.string().optional(),
  });
  const actor = { type: 'user', id: 'x' };
  const values = [undefined, null, 7, '', 'text', [], ['a'], {}, { a: [1] }, actor, { ...actor, name: '' }];
  for (const key of Object.keys(valid())) {
    for (const value of values) {
      const payload = { ...valid(), [key]: value };
      const [expected, found] = [original.safeParse(payload), EntityChangedSchema.safeParse(payload)];
      expect(found.success, `${key}: ${JSON.stringify(value)}`).toBe(expected.success);
      expect(found.success && found.data).toEqual(expected.success && expected.data);
    }
  }
});
