// What TypeScript infers for users of the entity module.
import { describe, expectTypeOf, test } from 'vitest';
import * as z from 'zod';
import * as mini from 'zod/mini';
import * as z3 from 'zod3';
import type { DefineEntity, EntityHandle, EntityStateSchema, SafeDatabase, StandardSchemaV1 } from '../../src-js/entity/types';

interface Pod {
  status: 'up' | 'down';
  note?: string | undefined;
}
type State = { status: 'up' | 'down'; note?: string | undefined };

/** Never called: only its type counts. */
declare const defineEntity: DefineEntity;
const never = (): boolean => false;
const define: DefineEntity = (input) => defineEntity(input);
const standard = {} as StandardSchemaV1<unknown, State>;

describe('defineEntity infers the state', () => {
  test('from zod 4, zod-mini, zod 3 and a Standard Schema', () => {
    if (!never()) return;
    const read = async () => ({});
    const zod4 = define({ kind: 'k', state: z.object({ status: z.enum(['up', 'down']), note: z.string().optional() }), read });
    expectTypeOf(zod4).toEqualTypeOf<EntityHandle<State>>();
    const state = mini.object({ status: mini.enum(['up', 'down']), note: mini.optional(mini.string()) });
    const zodMini = define({ kind: 'k', state, read });
    expectTypeOf(zodMini).toEqualTypeOf<EntityHandle<State>>();
    const zod3 = define({ kind: 'k', state: z3.object({ status: z3.enum(['up', 'down']), note: z3.string().optional() }), read });
    expectTypeOf(zod3).toEqualTypeOf<EntityHandle<State>>();
    const any = define({ kind: 'k', state: standard, read });
    expectTypeOf(any).toEqualTypeOf<EntityHandle<State>>();
  });

  test('as what comes out of the schema, not what goes in', () => {
    if (!never()) return;
    const state = z.object({ count: z.coerce.number().default(1), at: z.string().transform((text) => new Date(text)) });
    const handle = define({ kind: 'k', state, read: async () => ({}) });
    expectTypeOf(handle.get).returns.resolves.toEqualTypeOf<{ count: number; at: Date } | undefined>();
  });

  test('and checks what read and apply give, and which fields there are', () => {
    if (!never()) return;
    const state = z.object({ status: z.enum(['up', 'down']) });
    const handle = define({
      kind: 'k',
      state,
      read: async (ids) => {
        expectTypeOf(ids).toEqualTypeOf<ReadonlyArray<string>>();
        return Object.fromEntries(ids.map((id) => [id, { status: 'up' as const, extra: 1 }]));
      },
    });
    expectTypeOf(handle).toEqualTypeOf<EntityHandle<{ status: 'up' | 'down' }>>();
    expectTypeOf(handle.mutate({ id: 'a', apply: async () => ({ status: 'up' }) })).resolves.toEqualTypeOf<{ status: 'up' | 'down' }>();
    expectTypeOf(handle.waitUntil('a', (pod) => pod?.status === 'up')).resolves.toEqualTypeOf<{ status: 'up' | 'down' } | undefined>();
    // @ts-expect-error not a state
    void handle.mutate({ id: 'a', apply: async () => ({ status: 'sideways' }) });
    // @ts-expect-error not a field
    void handle.inStateSince('a', 'statos');
    // @ts-expect-error the schema of a scalar
    define({ kind: 'k', state: z.string(), read: async () => ({}) });
    // @ts-expect-error a read that gives something else
    define({ kind: 'k', state, read: async (_ids: ReadonlyArray<string>) => ({ a: { status: 7 } }) });
  });
});

describe('the shapes fit', () => {
  test('schemas made elsewhere', () => {
    expectTypeOf<StandardSchemaV1<unknown, State>>().toExtend<EntityStateSchema<State>>();
    expectTypeOf<z.ZodObject<{ status: z.ZodString }>>().toExtend<EntityStateSchema<{ status: string }>>();
    expectTypeOf<Pod>().toExtend<State>();
  });

  test('drizzle databases', async () => {
    if (!never()) return;
    const { drizzle } = await import('drizzle-orm/node-postgres');
    expectTypeOf(drizzle.mock()).toExtend<SafeDatabase>();
    expectTypeOf(drizzle.mock({ schema: {} })).toExtend<SafeDatabase>();
  });
});
