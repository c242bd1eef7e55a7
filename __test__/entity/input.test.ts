// What callers may get wrong: refused at once, before anything is asked or run, with a message that says what to do.
import {
  createChangeEmitter,
  createEntityHandle,
  createEntityRegistry,
  createEntityStore,
  createRunSecretRegistry,
  getEntityFailure,
  HoldfastError,
  type EntityHandle,
} from 'holdfast';
import { describe, expect, test, vi } from 'vitest';
import * as z from 'zod';

import { jsStore, logBook, openStore, tempDir, world, type State } from './support';

const emitter = createChangeEmitter();
const secretRegistry = createRunSecretRegistry();
const { logger } = logBook();

function thrownBy(run: () => unknown): HoldfastError {
  try {
    run();
  } catch (error) {
    return error as HoldfastError;
  }
  throw new Error('nothing was thrown');
}

const refused = (message: RegExp) => expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT', message: expect.stringMatching(message) });

/** Calls without types, as JavaScript does. */
type Loose = Record<string, (...args: unknown[]) => Promise<unknown>>;
const loose = (object: unknown): Loose => object as Loose;

describe('createEntityRegistry', () => {
  test.each([
    ['nothing', undefined, /its argument must be an object \{ secretRegistry, emitter \}, got undefined/],
    ['no emitter', { secretRegistry }, /emitter must be a ChangeEmitter, got undefined; make one with createChangeEmitter\(\)/],
    ['an emitter that cannot emit', { secretRegistry, emitter: {} }, /emitter must be a ChangeEmitter, got an object/],
    ['no secrets', { emitter }, /secretRegistry must be a RunSecretRegistry.*createRunSecretRegistry\(\)/],
    ['a logger that lacks functions', { secretRegistry, emitter, logger: { warn() {} } }, /logger must be a logger with the functions debug, info, warn, error/],
    ['a logger that is none', { secretRegistry, emitter, logger: 1 }, /logger must be a logger.*got a number; console is one/],
  ])('refuses %s', (_, args, message) => {
    const error = thrownBy(() => createEntityRegistry(args as never));
    expect(error).toEqual(refused(message));
    expect(error).toBeInstanceOf(TypeError);
  });

  test('takes console, and with compat "original" what the original asks for', () => {
    createEntityRegistry({ secretRegistry, emitter, logger: console });
    const { setStore } = createEntityRegistry({
      secretRegistry: { maskDeep: (_run: string, value: unknown) => value } as never,
      emitter: { emit: async () => {} } as never,
      logger: { warn() {} } as never,
      compat: 'original',
    });
    setStore({ store: { runInTransaction: async () => {} } as never });
  });

  test.each([
    ['nothing', undefined, /setStore: its argument must be an object \{ store \}/],
    ['a store that is not there yet', { store: Promise.resolve(jsStore().store) }, /store must be an EntityStore, got a Promise; did you forget await\?/],
    ['a store that lacks a function', { store: { ...jsStore().store, inStateSince: undefined } }, /store must be an EntityStore, got an object; it lacks inStateSince/],
    ['another object', { store: {} }, /make one with createEntityStore\(\)/],
  ])('setStore refuses %s, and keeps the store', (_, args, message) => {
    const registry = createEntityRegistry({ secretRegistry, emitter });
    expect(thrownBy(() => registry.setStore(args as never))).toEqual(refused(message));
    expect(registry.hasStore).toBe(false);
  });
});

test.each([
  ['kind', 7, /createEntityHandle: kind must be a string/],
  ['read', undefined, /read must be a function/],
  ['store', {}, /createEntityHandle: store must be an EntityStore/],
  ['emitter', undefined, /emitter must be a ChangeEmitter/],
  ['secretRegistry', undefined, /secretRegistry must be a RunSecretRegistry/],
  ['logger', {}, /logger must be a logger/],
])('createEntityHandle refuses a bad %s', (name, value, message) => {
  const good = { kind: 'pod', schema: z.looseObject({}), store: jsStore().store, emitter, secretRegistry, read: async () => ({}), logger };
  expect(createEntityHandle(good).kind).toBe('pod');
  expect(thrownBy(() => createEntityHandle({ ...good, [name]: value } as never))).toEqual(refused(message));
});

describe('createEntityStore', () => {
  test.each([
    [{ durabilty: 'journal' }, /options has no option "durabilty"; did you mean durability\?/],
    [{ maxBatch: 5 }, /did you mean maxBatchRows\?/],
    [{ frobnicate: 1 }, /options has no option "frobnicate"; it has migrate, driver, durability/],
    [{ retention: 5 }, /options\.retention must be an object/],
    [{ retention: null }, /options\.retention must be an object.*got null/],
    [{ retention: { maxAge: 5 } }, /options\.retention has no option "maxAge"; did you mean maxAgeMs\?/],
    [{ retention: { everyMs: 0 } }, /options\.retention\.everyMs must be a positive number/],
    [{ clock: 5 }, /options\.clock must be a function/],
    [{ logger: { warn() {} } }, /options\.logger must be a logger with the functions/],
  ])('refuses the options %j', (options, message) => {
    expect(thrownBy(() => createEntityStore({ memory: true }, options as never))).toEqual(refused(message));
  });

  test.each([
    [{ path: ':memory:' }, /path must be the path of a file.*pass \{ memory: true \}/],
    [{ path: 'file:data/x.db' }, /path must be a plain path, not a file: URL.*fileURLToPath/],
    [{ path: new URL('file:///data/x.db') }, /path must be a plain path/],
    [{ path: 'a\0b' }, /path must be a path/],
    [{ memory: true, durability: 'journal' }, /durability must be in the second argument.*createEntityStore\(target, \{ durability: … \}\)/],
  ])('refuses the target %j', (target, message) => {
    expect(thrownBy(() => createEntityStore(target as never))).toEqual(refused(message));
  });

  test.each([
    ['no Date', () => 'now', /what options\.clock returns must be a valid Date, got a string; pass a function like/],
    ['an invalid Date', () => new Date(NaN), /got an invalid Date/],
    ['nothing', () => undefined, /got undefined/],
  ])('a clock that returns %s fails the mutation before apply', async (_, clock, message) => {
    const { handle } = world({ store: openStore({ memory: true }, { clock: clock as never }) });
    const apply = vi.fn(async () => ({ a: 1 }));
    const error = await handle.mutate({ id: '1', apply }).catch((thrown: unknown) => thrown);
    expect(error).toEqual(refused(message));
    expect(getEntityFailure(error)).toMatchObject({ applied: false, pending: false });
    expect(apply).not.toHaveBeenCalled();
  });

  test('a time between two prunes that no timer holds does not prune all the time', async () => {
    const spy = vi.spyOn(globalThis, 'setInterval');
    try {
      await openStore({ memory: true }, { retention: { maxRowsPerField: 1, everyMs: 2 ** 40 } }).ready();
      // The store runs in this realm or in another one; what counts is that no interval overflows.
      for (const [, ms] of spy.mock.calls) expect(ms).toBeLessThan(2 ** 31);
      expect(spy).toHaveBeenCalled();
    } finally {
      spy.mockRestore();
    }
  });

  test.each([{ memory: true as const }, 'file'])('ready() of a closed store rejects: %j', async (target) => {
    for (const before of [false, true]) {
      const store = openStore(target === 'file' ? { path: `${tempDir()}/x.db` } : (target as { memory: true }));
      if (before) await store.ready();
      await store.close();
      await expect(store.ready()).rejects.toMatchObject({ hfCode: 'HF_CLOSED' });
      await expect(store.history({ kind: 'a', entityId: '1' })).rejects.toMatchObject({ hfCode: 'HF_CLOSED' });
    }
  });
});

test.each(['5', null, 5n])('createChangeEmitter refuses %s as bufferLimit', (bufferLimit) => {
  expect(thrownBy(() => createChangeEmitter({ bufferLimit: bufferLimit as never }))).toEqual(refused(/bufferLimit must be a number of changes/));
});

test('createChangeEmitter refuses a logger that cannot warn', () => {
  expect(thrownBy(() => createChangeEmitter({ logger: {} as never }))).toEqual(refused(/logger must be a logger with the functions debug, warn/));
});

test.each([
  ['after-commit', 'dropping the oldest buffered pod:1'],
  ['outbox', 'the store keeps, and delivers later, the oldest buffered pod:1'],
] as const)('a full buffer tells what becomes of the oldest change: %s', async (durability, fate) => {
  const { lines, logger } = logBook();
  const emitter = createChangeEmitter({ bufferLimit: 1, logger });
  const { handle } = world({ store: openStore({ memory: true }, { durability }), emitter, wired: false, logger });
  for (const id of ['1', '2']) await handle.mutate({ id, apply: async () => ({ a: 1 }) });
  expect(lines.filter((line) => line.includes('buffer full'))).toEqual([expect.stringContaining(fate)]);
});

describe('mutate and remove', () => {
  const cyclic: State = { type: 'user', id: 'u' };
  cyclic.me = cyclic;
  const apply = async () => ({ a: 1 });
  const bad: [string, unknown, RegExp][] = [
    ['nothing', undefined, /its argument must be an object \{ id, apply \}, got undefined/],
    ['no id', { apply }, /id must be a string, got undefined/],
    ['a number as id', { id: 4711, apply }, /id must be a string, got a number/],
    ['no apply', { id: 's3cr3t' }, /apply must be a function, got undefined/],
    ['the result of apply', { id: 's3cr3t', apply: Promise.resolve({}) }, /apply must be a function, got a Promise; pass the write itself/],
    ['opts that are none', { id: 's3cr3t', apply, opts: 5 }, /opts must be an object/],
    ['a number as runId', { id: 's3cr3t', apply, opts: { runId: 5 } }, /opts\.runId must be a string, got a number/],
    ['no actor', { id: 's3cr3t', apply, opts: { actor: null } }, /opts\.actor must be an object.*got null/],
    ['an actor that contains itself', { id: 's3cr3t', apply, opts: { actor: cyclic } }, /opts\.actor must be an object.*that JSON can hold/],
    ['an actor with a bigint', { id: 's3cr3t', apply, opts: { actor: { type: 'user', id: 5n } } }, /opts\.actor/],
  ];

  test.each(bad)('reject, and run nothing, with %s', async (_, input, message) => {
    const { handle, calls } = world({ store: jsStore().store });
    for (const method of ['mutate', 'remove']) {
      // It must not throw where the caller has no promise yet.
      const promise = loose(handle)[method]!(input);
      const error = (await promise.catch((thrown: unknown) => thrown)) as HoldfastError & { kind?: string };
      expect(error).toEqual(refused(message));
      expect(error).toBeInstanceOf(TypeError);
      expect(error.message).toContain(`${method} of kind "pod"`);
      expect(error.message).not.toMatch(/s3cr3t|4711/);
      expect(error.kind).toBe('pod');
      expect(getEntityFailure(error)).toEqual({ stage: 'read', applied: false, pending: false });
    }
    expect(calls).toEqual([]);
  });

  test('mutateMany runs none when one input is bad', async () => {
    const { handle, calls } = world({ store: jsStore().store });
    const inputs = [{ id: '1', apply }, { id: 2, apply }];
    await expect(loose(handle).mutateMany!(inputs)).rejects.toEqual(refused(/mutateMany, input 1, of kind "pod": id must be a string/));
    await expect(loose(handle).mutateMany!('x')).rejects.toEqual(refused(/its argument must be an array/));
    expect(calls).toEqual([]);
  });

  test('take every actor that JSON can hold, and no run', async () => {
    const { handle, events } = world({ store: openStore({ memory: true }) });
    const actors = [{ type: 'user', id: 'u', name: undefined }, { type: 'user', id: 'u', since: new Date(0) }];
    for (const actor of actors) await handle.mutate({ id: 'x', opts: { actor: actor as never, runId: null as never }, apply: async () => ({ n: events.length }) });
    expect(events.map((event) => event.actor)).toEqual(actors);
  });

  test('with compat "original" take an id of any type, and still do not throw at the call', async () => {
    const { handle, events } = world({ store: jsStore().store, compat: 'original' });
    await loose(handle).mutate!({ id: 7, apply });
    expect(events[0]!.id).toBe(7);
    await expect(loose(handle).mutate!()).rejects.toBeInstanceOf(TypeError);
    await expect(loose(handle).mutate!({ id: '7' })).rejects.toBeInstanceOf(TypeError);
  });
});

describe('queries', () => {
  const when = new Date(0);
  const whose = { kind: 'pod', entityId: '1' };
  test.each([
    ['get', [7], /get of kind "pod": id must be a string, got a number/],
    ['getMany', ['abc'], /ids must be an array of strings, got a string/],
    ['getMany', [['1', 2]], /ids\[1\] must be a string, got a number/],
    ['inStateSince', [7, 'a'], /inStateSince of kind "pod": id must be a string/],
    ['inStateForMs', ['7'], /inStateForMs of kind "pod": field must be a string, got undefined/],
    ['transitionCount', [], /transitionCount: its argument must be an object/],
    ['transitionCount', [{ id: '1', windowMs: 5 }], /field must be a string/],
    ['waitUntil', [7, () => true], /waitUntil of kind "pod": id must be a string/],
  ] as [keyof EntityHandle<State>, unknown[], RegExp][])('%s(%j) of a handle rejects before anything is asked', async (method, args, message) => {
    const { handle, calls } = world({ store: jsStore().store });
    await expect(loose(handle)[method]!(...args)).rejects.toEqual(refused(message));
    expect(calls).toEqual([]);
  });

  test.each([
    ['history', undefined, /history: its argument must be an object/],
    ['history', { kind: 'pod' }, /history: entityId must be a string, got undefined/],
    ['history', { ...whose, field: 5 }, /field must be a string/],
    ['history', { ...whose, from: '2020-01-01' }, /from must be a valid Date, got a string; use new Date/],
    ['history', { ...whose, to: new Date(NaN) }, /to must be a valid Date, got an invalid Date/],
    ['history', { ...whose, cursor: 5 }, /cursor must be the cursor of an earlier page/],
    ['timeInState', { ...whose, field: 'a' }, /timeInState: from must be a valid Date, got undefined/],
    ['timeInState', { ...whose, from: when }, /field must be a string/],
    ['timeInState', { ...whose, field: 'a', from: when, to: 5 }, /to must be a valid Date/],
    ['isFlapping', { ...whose, field: 'a', count: 'x', windowMs: 5 }, /count must be a whole number/],
    ['isFlapping', { ...whose, field: 'a', count: 1 }, /windowMs must be a number/],
    ['isFlapping', { ...whose, count: 1, windowMs: 1 }, /field must be a string/],
    ['prune', 'yesterday', /prune: now must be a valid Date, got a string/],
    ['prune', new Date(NaN), /prune: now must be a valid Date/],
  ])('%s of a store refuses %j', async (method, query, message) => {
    const store = openStore({ memory: true });
    await expect(loose(store)[method]!(query)).rejects.toEqual(refused(message));
  });
});

describe('waitUntil', () => {
  test.each([-1, NaN, '5', null])('refuses timeoutMs %s', async (timeoutMs) => {
    const { handle } = world({ store: jsStore().store });
    const waiting = handle.waitUntil('1', () => false, { timeoutMs: timeoutMs as never });
    await expect(waiting).rejects.toEqual(refused(/timeoutMs must be a number of milliseconds, 0 or more/));
  });

  test.each([[{}], [new AbortController()], ['x']])('refuses the signal %s', async (signal) => {
    const { handle } = world({ store: jsStore().store });
    const waiting = handle.waitUntil('1', () => false, { signal: signal as never, timeoutMs: 5 });
    await expect(waiting).rejects.toEqual(refused(/signal must be an AbortSignal.*pass controller\.signal/));
  });

  test('takes 0 as "look once", and a time without end', async () => {
    const { handle } = world({ store: jsStore().store });
    await expect(handle.waitUntil('1', () => false, { timeoutMs: 0 })).rejects.toMatchObject({ hfCode: 'HF_LOCK_TIMEOUT' });
    for (const timeoutMs of [Infinity, 2 ** 31, 2 ** 40]) {
      const signal = AbortSignal.timeout(60);
      // A timer of Node that is given more than it holds fires after 1 ms.
      const error = await handle.waitUntil('1', () => false, { timeoutMs, signal }).catch((thrown: unknown) => thrown);
      expect(signal.aborted).toBe(true);
      expect(error).toBe(signal.reason);
    }
  });

  test('takes a signal of a library', async () => {
    const { handle } = world({ store: jsStore().store });
    const [inner, { aborted }] = [new AbortController(), AbortSignal.abort()];
    expect(aborted).toBe(true);
    const { signal } = inner;
    const foreign = {
      get aborted() {
        return signal.aborted;
      },
      get reason() {
        return signal.reason;
      },
      addEventListener: signal.addEventListener.bind(signal),
      removeEventListener: signal.removeEventListener.bind(signal),
    };
    const waiting = handle.waitUntil('1', () => false, { signal: foreign as never });
    inner.abort(new Error('mine'));
    await expect(waiting).rejects.toThrow('mine');
  });
});

describe('getEntityFailure', () => {
  test('of one error for two mutations tells of the one whose write had happened, in either order', async () => {
    for (const order of [['before', 'after'], ['after', 'before']]) {
      const error = new Error('always the same object');
      const schema = z.looseObject({}).refine((state) => {
        if (state.refuse === true) throw error;
        return true;
      });
      const { handle } = world({ store: jsStore().store, schema });
      for (const when of order) {
        const apply = async (): Promise<State> => {
          if (when === 'before') throw error;
          return { refuse: true };
        };
        await expect(handle.mutate({ id: '1', apply })).rejects.toBe(error);
      }
      expect(getEntityFailure(error)).toMatchObject({ stage: 'validate', applied: true });
    }
  });

  test('says nothing of a thrown primitive', async () => {
    const { handle } = world({ store: jsStore().store });
    const thrown = await handle.mutate({ id: '1', apply: () => Promise.reject('no') }).catch((error: unknown) => error);
    expect([thrown, getEntityFailure(thrown)]).toEqual(['no', undefined]);
  });
});
