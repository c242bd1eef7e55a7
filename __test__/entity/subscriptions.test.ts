// Subscriptions: when they connect, what they hear, and that one bad handler harms nobody else (R40, R41, A32).
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { createEntityChangedSubscriptions, ENTITY_CHANGED_HOOK } from '../../src-js/entity/subscriptions';
import type { EntityChanged, OnHookFn } from '../../src-js/entity/types';

function change(kind: string): EntityChanged {
  const actor = { type: 'system' as const, id: 'system' };
  const occurredAt = '2026-01-01T00:00:00.000Z';
  return { kind, id: '1', prev: null, next: { a: 1 }, delta: { a: 1 }, changedFields: ['a'], actor, occurredAt };
}

/** A host's bus, which remembers what it is asked and delivers on demand. */
function host() {
  const hooks: { hook: unknown; options: unknown; listener: (payload: unknown) => Promise<void> }[] = [];
  const lines: string[] = [];
  const ended: number[] = [];
  let failOnEnd: unknown;
  const onHook = ((hook: unknown, listener: (payload: unknown) => Promise<void>, options: unknown) => {
    const index = hooks.push({ hook, options, listener }) - 1;
    return async () => {
      ended.push(index);
      if (failOnEnd !== undefined) throw failOnEnd;
    };
  }) as OnHookFn;
  const log = (level: string) => (message: string, ...args: unknown[]) => void lines.push([level, message, ...args].join(' '));
  const logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };
  return {
    hooks,
    lines,
    ended,
    onHook,
    logger,
    refuseToEnd: (error: unknown) => (failOnEnd = error),
    deliver: (payload: unknown) => Promise.allSettled(hooks.map(({ listener }) => listener(payload))),
  };
}

const heard: string[] = [];
const handler = ({ id }: EntityChanged) => void heard.push(id);

describe('checks its arguments at once', () => {
  const { onEntityChanged } = createEntityChangedSubscriptions();
  test.each([['', ' '], [undefined as never], [7 as never]])('a kind that is %j', (...kinds: string[]) => {
    for (const kind of kinds) {
      const message = 'onEntityChanged: `kind` must be a non-empty string';
      expect(() => onEntityChanged({ kind, handler })).toThrow(
        expect.objectContaining({ message, hfCode: 'HF_ENTITY_SUBSCRIBE_INVALID' }) as Error,
      );
    }
  });

  test.each(['', '\t', undefined as never, 7 as never])('a work queue whose group is %j', (workerGroup: string) => {
    const message = 'onEntityChanged: work-queue delivery requires a non-empty `workerGroup`';
    expect(() => onEntityChanged({ kind: 'pod', handler, delivery: { mode: 'work-queue', workerGroup } })).toThrow(
      expect.objectContaining({ message, hfCode: 'HF_ENTITY_SUBSCRIBE_INVALID' }) as Error,
    );
  });

  test('a handler that is no function', () => {
    expect(() => onEntityChanged({ kind: 'pod', handler: undefined as never })).toThrow(/^handler must be a function/);
  });
});

describe('connects', () => {
  test('to the one hook, as a broadcast by default', () => {
    const bus = host();
    const subscriptions = createEntityChangedSubscriptions();
    expect(Object.keys(subscriptions)).toEqual(['onEntityChanged', 'wire', 'disposeAll']);
    const { onEntityChanged, wire } = subscriptions;
    onEntityChanged({ kind: 'pod', handler });
    onEntityChanged({ kind: 'pod', handler, delivery: {} });
    expect(bus.hooks).toEqual([]);
    wire(bus);
    onEntityChanged({ kind: 'pod', handler, delivery: { mode: 'broadcast' } });
    expect(ENTITY_CHANGED_HOOK).toEqual({ id: 'automation.entity.changed' });
    for (const { hook, options } of bus.hooks) {
      expect(hook).toBe(ENTITY_CHANGED_HOOK);
      expect(options).toStrictEqual({ mode: 'broadcast' });
    }
    expect(bus.hooks).toHaveLength(3);
  });

  test('as a work queue, with `maxRetries` also when it is undefined', () => {
    const bus = host();
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    onEntityChanged({ kind: 'pod', handler, delivery: { mode: 'work-queue', workerGroup: 'g' } });
    onEntityChanged({ kind: 'pod', handler, delivery: { mode: 'work-queue', workerGroup: 'g', maxRetries: 3 } });
    wire(bus);
    expect(bus.hooks.map(({ options }) => options)).toStrictEqual([
      { mode: 'work-queue', workerGroup: 'g', maxRetries: undefined },
      { mode: 'work-queue', workerGroup: 'g', maxRetries: 3 },
    ]);
  });

  test('once, however often it is wired', () => {
    const [bus, other] = [host(), host()];
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    onEntityChanged({ kind: 'pod', handler });
    wire(bus);
    wire(bus);
    wire(other);
    expect([bus.hooks.length, other.hooks.length]).toEqual([1, 0]);
  });

  test('what a bus refused is connected by the next wire', () => {
    const bus = host();
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    for (let i = 0; i < 3; i++) onEntityChanged({ kind: 'pod', handler });
    let calls = 0;
    const flaky: OnHookFn = (...args) => {
      if (++calls === 2) throw new Error('down');
      return bus.onHook(...args);
    };
    expect(() => wire({ onHook: flaky, logger: bus.logger })).toThrow('down');
    wire(bus);
    expect(bus.hooks).toHaveLength(3);
  });

  test('a subscription that the bus refuses does not exist', () => {
    const bus = host();
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    const refuse: OnHookFn = () => {
      throw new Error('down');
    };
    wire({ onHook: refuse, logger: bus.logger });
    expect(() => onEntityChanged({ kind: 'pod', handler })).toThrow('down');
    wire(bus);
    expect(bus.hooks).toEqual([]);
  });
});

describe('hears', () => {
  test('its kind only, each with a copy of its own', async () => {
    const bus = host();
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    const seen: EntityChanged[] = [];
    onEntityChanged({ kind: 'pod', handler: (payload) => void seen.push(payload) });
    onEntityChanged({ kind: 'pod', handler: (payload) => void seen.push(payload) });
    onEntityChanged({ kind: 'other', handler: (payload) => void seen.push(payload) });
    wire(bus);
    const payload = { ...change('pod'), extra: true };
    await bus.deliver(payload);
    expect(seen).toEqual([change('pod'), change('pod')]);
    expect(seen[0]).not.toBe(seen[1]);
    expect(seen[0]!.next).not.toBe(payload.next);
    expect(bus.lines).toEqual([]);
  });

  test('nothing of a malformed payload, but says so', async () => {
    const bus = host();
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    let calls = 0;
    onEntityChanged({ kind: 'pod', handler: () => void calls++ });
    wire(bus);
    const hostile = {
      get kind() {
        throw new Error('mine');
      },
    };
    const payloads = [undefined, null, {}, { ...change('pod'), actor: undefined }, hostile];
    for (const payload of payloads) expect(await bus.deliver(payload)).toEqual([{ status: 'fulfilled', value: undefined }]);
    expect(calls).toBe(0);
    expect(bus.lines).toEqual(payloads.map(() => 'warn onEntityChanged(pod): dropping malformed ENTITY_CHANGED payload'));
  });

  test.each([
    ['an error', new TypeError('broken'), 'broken'],
    ['a text', 'broken', 'broken'],
    ['an error of another realm', crossRealmError('broken'), 'broken'],
    ['an object', { message: 'broken' }, 'An error occurred'],
    ['nothing', undefined, 'An error occurred'],
  ])('and a handler that throws %s does not stop the others', async (_name, thrown, text) => {
    const bus = host();
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    let calls = 0;
    onEntityChanged({
      kind: 'pod',
      handler: () => {
        throw thrown;
      },
    });
    onEntityChanged({ kind: 'pod', handler: () => Promise.reject(thrown) });
    onEntityChanged({ kind: 'pod', handler: () => void calls++ });
    wire(bus);
    expect(await bus.deliver(change('pod'))).toEqual(Array(3).fill({ status: 'fulfilled', value: undefined }));
    expect(calls).toBe(1);
    expect(bus.lines).toEqual(Array(2).fill(`warn onEntityChanged(pod) handler threw: ${text}`));
  });

  test('in a work queue the error goes on to the queue, so that it tries again', async () => {
    const bus = host();
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    const thrown = new Error('broken');
    onEntityChanged({ kind: 'pod', handler: () => Promise.reject(thrown), delivery: { mode: 'work-queue', workerGroup: 'g' } });
    wire(bus);
    const [result] = await bus.deliver(change('pod'));
    expect(result).toEqual({ status: 'rejected', reason: thrown });
    expect(bus.lines).toEqual(['warn onEntityChanged(pod) handler threw: broken']);
    expect(await bus.deliver({})).toEqual([{ status: 'fulfilled', value: undefined }]);
  });
});

describe('ends', () => {
  test('before it was wired: it never connects', async () => {
    const bus = host();
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    await onEntityChanged({ kind: 'pod', handler })();
    wire(bus);
    expect(bus.hooks).toEqual([]);
  });

  test('at once, and twice is harmless', async () => {
    const bus = host();
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    wire(bus);
    let calls = 0;
    const end = onEntityChanged({ kind: 'pod', handler: () => void calls++ });
    const ending = end();
    await bus.deliver(change('pod'));
    await ending;
    await end();
    expect(calls).toBe(0);
    expect(bus.ended).toEqual([0]);
    wire(host());
    expect(bus.hooks).toHaveLength(1);
  });

  test('a job that the queue still hands out is handled, not swallowed', async () => {
    const bus = host();
    const { onEntityChanged, wire } = createEntityChangedSubscriptions();
    wire(bus);
    let calls = 0;
    const end = onEntityChanged({ kind: 'pod', handler: () => void calls++, delivery: { mode: 'work-queue', workerGroup: 'g' } });
    const ending = end();
    await bus.deliver(change('pod'));
    await ending;
    expect(calls).toBe(1);
  });

  test('all of them, whatever the bus says', async () => {
    const bus = host();
    const { onEntityChanged, wire, disposeAll } = createEntityChangedSubscriptions();
    wire(bus);
    const end = onEntityChanged({ kind: 'pod', handler });
    onEntityChanged({ kind: 'pod', handler });
    bus.refuseToEnd(new Error('down'));
    await expect(disposeAll()).resolves.toBeUndefined();
    expect(bus.ended).toEqual([0, 1]);
    await disposeAll();
    await expect(end()).rejects.toThrow('down');
    expect(bus.ended).toEqual([0, 1]);
  });
});

function crossRealmError(message: string): unknown {
  return runInNewContext(`new Error(${JSON.stringify(message)})`);
}
