// The registry: what it takes for a kind, in which order it checks, and whom it tells of the store (R1 to R7, A17, A18, A39).
import { beforeEach, describe, expect, test } from 'vitest';
import * as z from 'zod';
import * as mini from 'zod/mini';
import * as z3 from 'zod3';
import { HoldfastError } from '../../src-js/errors';
import type { HandleContext, HandleMaker } from '../../src-js/entity/handle-context';
import { registryOver } from '../../src-js/entity/kind-registry';
import { quietLogger } from '../../src-js/entity/logging';
import { createRunSecretRegistry } from '../../src-js/entity/run-secrets';
import type { EntityHandle, EntityRegistryArgs, EntityStore } from '../../src-js/entity/types';

type AnyContext = HandleContext<Record<string, unknown>>;

/** Makes handles that only remember what they were made of. */
class Maker implements HandleMaker {
  readonly contexts: AnyContext[] = [];
  readonly bound: string[] = [];
  failure: Error | undefined;

  makeHandle<T extends Record<string, unknown>>(context: HandleContext<T>): EntityHandle<T> {
    if (this.failure !== undefined) throw this.failure;
    this.contexts.push(context as unknown as AnyContext);
    return { kind: context.kind } as EntityHandle<T>;
  }

  bindStore<T extends Record<string, unknown>>(handle: EntityHandle<T>, store: EntityStore): void {
    this.bound.push(`${handle.kind} ${(store as unknown as { name: string }).name}`);
  }
}

let maker: Maker;
beforeEach(() => (maker = new Maker()));

const emitter = { emit: async () => undefined, wire: async () => undefined, isWired: true };
const secretRegistry = createRunSecretRegistry();
const registry = (args: Partial<EntityRegistryArgs> = {}) => registryOver(maker, { secretRegistry, emitter, ...args });
const none = async () => undefined;
const store = (name: string) => ({ name, runInTransaction: none, appendTransitions: none, inStateSince: none, transitionCount: none }) as unknown as EntityStore;
const state = z.object({ status: z.string() });
const read = async () => ({});

function thrownBy(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

test('has its members in the promised order, and they work without it', () => {
  const made = registry();
  const members = 'defineEntity declareNonReactiveState setStore hasStore getNonReactiveDeclarations getKinds entityResolverFor';
  expect(Object.keys(made)).toEqual(members.split(' '));
  const { defineEntity, setStore, getKinds } = made;
  defineEntity({ kind: 'pod', state, read });
  setStore({ store: store('one') });
  expect(getKinds()).toEqual(['pod']);
  expect(made.hasStore).toBe(true);
  expect({ ...made }.hasStore).toBe(true);
});

describe('defineEntity', () => {
  const kindMessage = 'defineEntity: `kind` must be a non-empty string';
  const readMessage = 'defineEntity: kind "K" — `read` must be a function';
  const schemas = { ZodString: z.string(), ZodOptional: state.optional(), null: null, undefined, object: Object.create(null) as unknown };

  test.each<[string, unknown, ErrorConstructor, string, string]>([
    ['kind', { kind: '', state, read }, Error, 'HF_ENTITY_KIND_INVALID', kindMessage],
    ['kind', { kind: ' \n', state: null, read: null }, Error, 'HF_ENTITY_KIND_INVALID', kindMessage],
    ['kind', { kind: 7, state, read }, Error, 'HF_ENTITY_KIND_INVALID', kindMessage],
    ['kind', undefined, Error, 'HF_ENTITY_KIND_INVALID', kindMessage],
    [
      'kind: taken',
      { kind: 'taken', state: null, read: null },
      Error,
      'HF_ENTITY_KIND_DUPLICATE',
      'defineEntity: duplicate kind "taken" — entity kinds must be globally unique',
    ],
    ['read', { kind: 'K', state: null }, TypeError, 'HF_ENTITY_READ_INVALID', readMessage],
    ['read', { kind: 'K', state, read: {} }, TypeError, 'HF_ENTITY_READ_INVALID', readMessage],
    ...Object.entries(schemas).map(([got, schema]): [string, unknown, ErrorConstructor, string, string] => [
      `state: ${got}`,
      { kind: 'K', state: schema, read },
      Error,
      'HF_ENTITY_STATE_SCHEMA_INVALID',
      `defineEntity: kind "K" — \`state\` must be a z.object (got ${got})`,
    ]),
  ])('refuses a bad %s, and registers nothing', (_what, input, errorClass, code, message) => {
    const { defineEntity, getKinds, entityResolverFor } = registry();
    defineEntity({ kind: 'taken', state, read });
    const error = thrownBy(() => defineEntity(input as never));
    expect(error).toBeInstanceOf(errorClass);
    expect(error).toBeInstanceOf(HoldfastError);
    expect(error).toMatchObject({ message, code, hfCode: code, name: errorClass === TypeError ? 'TypeError' : 'HoldfastError' });
    expect(getKinds()).toEqual(['taken']);
    expect(entityResolverFor('K')).toBeUndefined();
    expect(maker.contexts).toHaveLength(1);
  });

  test('a maker that fails registers nothing', () => {
    const { defineEntity, getKinds } = registry();
    maker.failure = new Error('mine');
    expect(thrownBy(() => defineEntity({ kind: 'pod', state, read }))).toBe(maker.failure);
    maker.failure = undefined;
    defineEntity({ kind: 'pod', state, read });
    expect(getKinds()).toEqual(['pod']);
  });

  test('takes every kind of object schema; the original only its own', () => {
    const validate = (value: unknown) => ({ value: value as { status: string } });
    const standard = { '~standard': { version: 1 as const, vendor: 'mine', validate } };
    const schemas = [state, mini.object({ status: mini.string() }), z3.object({ status: z3.string() }), standard];
    const [here, there] = [registry(), registry({ compat: 'original' })];
    const taken = schemas.map((schema, index) => {
      here.defineEntity({ kind: `${index}`, state: schema, read });
      expect(maker.contexts.at(-1)!.schema.validate({ status: 'up' })).toEqual({ status: 'up' });
      try {
        there.defineEntity({ kind: `${index}`, state: schema, read });
        return true;
      } catch {
        return false;
      }
    });
    expect(taken).toEqual([true, false, false, false]);
  });

  test('keeps the kind as it is', () => {
    const { defineEntity, getKinds, entityResolverFor } = registry();
    for (const kind of ['a', ' a', '__proto__', 'constructor']) {
      expect(entityResolverFor(kind)).toBeUndefined();
      expect(defineEntity({ kind, state, read }).kind).toBe(kind);
    }
    expect(getKinds()).toEqual(['a', ' a', '__proto__', 'constructor']);
  });

  test('gives the maker everything, with defaults', () => {
    const logger = console;
    registry().defineEntity({ kind: 'pod', state, read });
    registry({ logger, compat: 'original', serialize: 'none' }).defineEntity({ kind: 'pod', state, read });
    expect(maker.contexts[0]).toMatchObject({ kind: 'pod', read, emitter, logger: undefined, compat: 'holdfast', serialize: 'id' });
    expect(maker.contexts[0]!.secrets).toBe(secretRegistry);
    // A logger that throws disturbs nobody, so it is not handed on as it is.
    expect(maker.contexts[1]).toMatchObject({ logger: quietLogger(logger), compat: 'original', serialize: 'none' });
  });

  test('its registry refuses options that it does not know', () => {
    expect(() => registry({ compat: 'other' as never })).toThrow(/^compat must be one of "holdfast", "original"/);
    expect(() => registry({ serialize: 'other' as never })).toThrow(/^serialize must be one of "id", "none", "database"/);
  });
});

describe('setStore', () => {
  test('is seen by all handles at call time; the last one wins', () => {
    const made = registry();
    made.defineEntity({ kind: 'a', state, read });
    const [{ store: current }] = maker.contexts as [AnyContext];
    expect([made.hasStore, current()]).toEqual([false, null]);
    const [one, two] = [store('one'), store('two')];
    made.setStore({ store: one });
    expect(current()).toBe(one);
    made.defineEntity({ kind: 'b', state, read });
    made.setStore({ store: two });
    expect(maker.contexts.map((context) => context.store())).toEqual([two, two]);
    expect(made.hasStore).toBe(true);
    expect(maker.bound).toEqual(['a one', 'b one', 'a two', 'b two']);
  });

  test('takes a spread store as the object that it is', () => {
    const made = registry();
    const spread = { ...store('one'), appendTransitions: async () => undefined };
    made.setStore({ store: spread });
    made.defineEntity({ kind: 'a', state, read });
    expect(maker.contexts[0]!.store()).toBe(spread);
  });

  test.each([undefined, null, 7, []])('refuses %j, and keeps the store', (bad) => {
    const made = registry();
    expect(() => made.setStore({ store: bad as never })).toThrow(/^store must be an EntityStore/);
    expect(made.hasStore).toBe(false);
  });
});

describe('entityResolverFor', () => {
  test('gives one function per kind, which hands the ids on as they are', async () => {
    const { defineEntity, entityResolverFor } = registry();
    const calls: unknown[][] = [];
    const answer = { a: { status: 'up' } };
    defineEntity({ kind: 'pod', state, read: async (...args: unknown[]) => (calls.push(args), answer) });
    const resolve = entityResolverFor('pod')!;
    expect(entityResolverFor('pod')).toBe(resolve);
    expect(entityResolverFor('other')).toBeUndefined();
    const ids = ['a', 'b'];
    expect(await (resolve as (...args: unknown[]) => unknown)(ids, 'more')).toBe(answer);
    expect(calls).toEqual([[ids]]);
    expect(calls[0]![0]).toBe(ids);
  });
});

describe('lists', () => {
  test('are the same arrays, which grow', () => {
    const { defineEntity, getKinds } = registry();
    const kinds = getKinds();
    defineEntity({ kind: 'pod', state, read });
    expect(getKinds()).toBe(kinds);
    expect(kinds).toEqual(['pod']);
  });

  test('declarations are copied, not checked, and not compared', () => {
    const { declareNonReactiveState, getNonReactiveDeclarations } = registry();
    const declarations = getNonReactiveDeclarations();
    const input = { table: 't', reason: 'sensitive' as const, note: 'n', extra: 1 };
    declareNonReactiveState(input);
    declareNonReactiveState(input);
    declareNonReactiveState({} as never);
    input.note = 'changed';
    expect(getNonReactiveDeclarations()).toBe(declarations);
    const copy = { table: 't', reason: 'sensitive', note: 'n', extra: 1 };
    expect(declarations).toEqual([copy, copy, {}]);
  });
});
