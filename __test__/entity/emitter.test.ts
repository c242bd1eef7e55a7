// The emitter keeps what comes before its target, in order, and loses nothing when the target fails (R37 to R39, A30, A31).
import { AsyncLocalStorage } from 'node:async_hooks';
import { describe, expect, test } from 'vitest';
import { createChangeEmitter, emitTracked } from '../../src-js/entity/emitter';
import type { ChangeEmitter, EntityChanged } from '../../src-js/entity/types';

function change(id: number | string): EntityChanged {
  const actor = { type: 'system' as const, id: 'system' };
  return { kind: 'pod', id: String(id), prev: null, next: {}, delta: {}, changedFields: [], actor, occurredAt: '2026-01-01T00:00:00.000Z' };
}

function recorder() {
  const lines: string[] = [];
  const log = (level: string) => (message: string, ...args: unknown[]) => void lines.push([level, message, ...args].join(' '));
  return { lines, logger: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') } };
}

/** A target whose deliveries are let through one at a time. */
function gate() {
  const taken: string[] = [];
  const waiting: { resolve: () => void; reject: (error: unknown) => void }[] = [];
  const take = ({ id }: EntityChanged) =>
    new Promise<void>((resolve, reject) => {
      taken.push(id);
      waiting.push({ resolve, reject });
    });
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  return {
    taken,
    take,
    pass: async () => (waiting.shift()!.resolve(), turn()),
    fail: async (error: unknown) => (waiting.shift()!.reject(error), turn()),
  };
}

/** Takes everything, into a list. */
function list() {
  const taken: string[] = [];
  return { taken, take: async ({ id }: EntityChanged) => void taken.push(id) };
}

describe('shape', () => {
  test('has own enumerable members, which work without the object', async () => {
    const emitter = createChangeEmitter();
    expect(Object.keys(emitter)).toEqual(['emit', 'wire', 'isWired']);
    const { emit, wire } = emitter;
    await emit(change(1));
    const { taken, take } = list();
    await wire(take);
    await { ...emitter }.emit(change(2));
    expect(taken).toEqual(['1', '2']);
  });
});

describe('before the target is there', () => {
  test('keeps changes and delivers them in order', async () => {
    const { lines, logger } = recorder();
    const emitter = createChangeEmitter({ logger });
    await emitter.emit(change(1));
    await emitter.emit(change(2));
    expect(emitter.isWired).toBe(false);
    const { taken, take } = list();
    await emitter.wire(take);
    expect(emitter.isWired).toBe(true);
    await emitter.emit(change(3));
    expect(taken).toEqual(['1', '2', '3']);
    expect(lines).toEqual(['debug flushing 2 buffered entity change event(s) on emitter wire']);
  });

  test('drops the oldest above the limit, and names it', async () => {
    const { lines, logger } = recorder();
    const emitter = createChangeEmitter({ logger, bufferLimit: 2 });
    for (const id of [1, 2, 3]) await emitter.emit(change(id));
    expect(lines).toEqual(['warn entity change buffer full (2); dropping the oldest buffered pod:1 change event']);
    const { taken, take } = list();
    await emitter.wire(take);
    expect(taken).toEqual(['2', '3']);
  });

  test.each([
    [0, ['3']],
    [-5, ['3']],
    [-Infinity, ['3']],
    [1, ['3']],
    [NaN, ['1', '2', '3']],
    [Infinity, ['1', '2', '3']],
    [undefined, ['1', '2', '3']],
  ])('a limit of %s keeps %j of three', async (bufferLimit, kept) => {
    const emitter = createChangeEmitter({ bufferLimit });
    for (const id of [1, 2, 3]) await emitter.emit(change(id));
    const { taken, take } = list();
    await emitter.wire(take);
    expect(taken).toEqual(kept);
  });

  test('keeps 10000 by default', async () => {
    const { lines, logger } = recorder();
    const emitter = createChangeEmitter({ logger });
    for (let id = 0; id < 10_000; id++) await emitter.emit(change(id));
    expect(lines).toEqual([]);
    await emitter.emit(change('last'));
    expect(lines).toEqual(['warn entity change buffer full (10000); dropping the oldest buffered pod:0 change event']);
  });
});

describe('wire', () => {
  test('with nothing kept is done before it returns, and logs nothing', async () => {
    const { lines, logger } = recorder();
    const emitter = createChangeEmitter({ logger });
    const { taken, take } = list();
    void emitter.wire(take);
    expect(emitter.isWired).toBe(true);
    await emitter.emit(change(1));
    expect(taken).toEqual(['1']);
    expect(lines).toEqual([]);
  });

  test('delivers one at a time; what comes meanwhile goes behind', async () => {
    const emitter = createChangeEmitter();
    for (const id of [1, 2, 3]) await emitter.emit(change(id));
    const { taken, take, pass } = gate();
    const wiring = emitter.wire(take);
    expect(taken).toEqual(['1']);
    await emitter.emit(change('live'));
    expect(emitter.isWired).toBe(false);
    for (const expected of [['1', '2'], ['1', '2', '3'], ['1', '2', '3', 'live']]) {
      await pass();
      expect(taken).toEqual(expected);
    }
    await pass();
    await wiring;
    expect(emitter.isWired).toBe(true);
  });

  test('a target that emits does not lock itself up', async () => {
    const emitter = createChangeEmitter();
    for (const id of ['1', '2']) await emitter.emit(change(id));
    const taken: string[] = [];
    await emitter.wire(async ({ id }) => {
      taken.push(id);
      if (id === '1') await emitter.emit(change('1re'));
    });
    expect(taken).toEqual(['1', '2', '1re']);
  });

  test('a failure keeps the change first in line, and a new wire resumes', async () => {
    const emitter = createChangeEmitter({ bufferLimit: 3 });
    for (const id of [1, 2, 3]) await emitter.emit(change(id));
    const thrown = new Error('down');
    const first: string[] = [];
    const wiring = emitter.wire(({ id }) => {
      first.push(id);
      if (id === '2') throw thrown;
      return undefined as never;
    });
    await expect(wiring).rejects.toBe(thrown);
    expect(emitter.isWired).toBe(false);
    await emitter.emit(change(4));
    const { taken, take } = list();
    await emitter.wire(take);
    expect({ first, taken }).toEqual({ first: ['1', '2'], taken: ['2', '3', '4'] });
    expect(emitter.isWired).toBe(true);
  });

  test('replaces the target', async () => {
    const emitter = createChangeEmitter();
    const [one, two] = [list(), list()];
    await emitter.wire(one.take);
    await emitter.emit(change(1));
    await emitter.wire(two.take);
    await emitter.emit(change(2));
    expect([one.taken, two.taken]).toEqual([['1'], ['2']]);
  });

  test('replaces the target in the middle of a delivery, without loss or doubles', async () => {
    const emitter = createChangeEmitter();
    for (const id of [1, 2, 3]) await emitter.emit(change(id));
    const [one, two] = [gate(), list()];
    const wirings = [emitter.wire(one.take), emitter.wire(two.take)];
    await one.pass();
    await Promise.all(wirings);
    expect([one.taken, two.taken]).toEqual([['1'], ['2', '3']]);
  });

  test('a replaced target does not let live changes past what the next one has to deliver', async () => {
    const emitter = createChangeEmitter();
    for (const id of [1, 2]) await emitter.emit(change(id));
    const [one, two] = [gate(), gate()];
    const wirings = [emitter.wire(one.take), emitter.wire(two.take)];
    await one.pass();
    expect([two.taken, emitter.isWired]).toEqual([['2'], false]);
    await emitter.emit(change('live'));
    await two.pass();
    await two.pass();
    await Promise.all(wirings);
    expect(two.taken).toEqual(['2', 'live']);
  });

  test('a target that fails with the last change hands it over, too', async () => {
    const emitter = createChangeEmitter();
    await emitter.emit(change(1));
    const [one, two] = [gate(), list()];
    const thrown = new Error('down');
    const first = expect(emitter.wire(one.take)).rejects.toBe(thrown);
    const second = emitter.wire(two.take);
    expect(emitter.isWired).toBe(false);
    await one.fail(thrown);
    await first;
    await second;
    expect(two.taken).toEqual(['1']);
  });

  test('a replaced target that fails hands its change over to the next', async () => {
    const emitter = createChangeEmitter();
    for (const id of [1, 2]) await emitter.emit(change(id));
    const [one, two] = [gate(), list()];
    const thrown = new Error('down');
    const first = expect(emitter.wire(one.take)).rejects.toBe(thrown);
    const second = emitter.wire(two.take);
    await one.fail(thrown);
    await first;
    await second;
    expect(two.taken).toEqual(['1', '2']);
    expect(emitter.isWired).toBe(true);
  });

  test('refuses what is no function, and stays as it was', async () => {
    const emitter = createChangeEmitter();
    await expect(emitter.wire(undefined as never)).rejects.toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', argument: 'emit' });
    expect(emitter.isWired).toBe(false);
  });
});

describe('with a target', () => {
  test('emit waits for it, and rejects with what it throws', async () => {
    const emitter = createChangeEmitter();
    const { take, pass, fail } = gate();
    await emitter.wire(take);
    let done = false;
    const emitting = emitter.emit(change(1)).then(() => (done = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(done).toBe(false);
    await pass();
    await emitting;
    const thrown = new Error('down');
    const refused = expect(emitter.emit(change(2))).rejects.toBe(thrown);
    await fail(thrown);
    await refused;
    expect(emitter.isWired).toBe(true);
  });

  test('a target may throw synchronously or return nothing', async () => {
    const emitter = createChangeEmitter();
    const thrown = new Error('down');
    await emitter.wire((({ id }: EntityChanged) => {
      if (id === '2') throw thrown;
    }) as never);
    await expect(emitter.emit(change(1))).resolves.toBeUndefined();
    await expect(emitter.emit(change(2))).rejects.toBe(thrown);
  });

  test('it runs in the async context of the emit', async () => {
    const emitter = createChangeEmitter();
    const context = new AsyncLocalStorage<string>();
    const seen: unknown[] = [];
    await emitter.wire(async () => void seen.push(context.getStore()));
    await context.run('mine', () => emitter.emit(change(1)));
    expect(seen).toEqual(['mine']);
  });
});

describe('tracking', () => {
  function tracked(emitter: ChangeEmitter, id: string, log: string[]): Promise<boolean> {
    return emitTracked(emitter, change(id), (delivered) => log.push(`${id} ${delivered ? 'delivered' : 'dropped'}`));
  }

  test('a wired target has taken it when it resolves', async () => {
    const emitter = createChangeEmitter();
    const log: string[] = [];
    const thrown = new Error('down');
    await emitter.wire(async ({ id }) => {
      if (id === '2') throw thrown;
    });
    expect(await tracked(emitter, '1', log)).toBe(true);
    await expect(tracked(emitter, '2', log)).rejects.toBe(thrown);
    expect(log).toEqual([]);
  });

  test('a kept change is heard of later: taken, once', async () => {
    const emitter = createChangeEmitter();
    const log: string[] = [];
    expect(await tracked(emitter, '1', log)).toBe(false);
    expect(await tracked({ ...emitter }, '2', log)).toBe(false);
    await expect(emitter.wire(() => Promise.reject(new Error('down')))).rejects.toThrow('down');
    expect(log).toEqual([]);
    const { take, pass } = gate();
    const wiring = emitter.wire(take);
    expect(await tracked(emitter, 'live', log)).toBe(false);
    expect(log).toEqual([]);
    await pass();
    expect(log).toEqual(['1 delivered']);
    await pass();
    await pass();
    await wiring;
    expect(log).toEqual(['1 delivered', '2 delivered', 'live delivered']);
  });

  test('or dropped', async () => {
    const emitter = createChangeEmitter({ bufferLimit: 1 });
    const log: string[] = [];
    await tracked(emitter, '1', log);
    await tracked(emitter, '2', log);
    await emitter.emit(change(3));
    expect(log).toEqual(['1 dropped', '2 dropped']);
  });

  test('emitters of other making are believed', async () => {
    const log: string[] = [];
    const taken: unknown[] = [];
    const own: ChangeEmitter = {
      async emit(payload) {
        // Called as a method: an emitter may be an instance of a class.
        if (this !== own) throw new Error('no this');
        taken.push(payload.id);
      },
      wire: async () => undefined,
      isWired: false,
    };
    expect(await tracked(own, '1', log)).toBe(true);
    expect(await tracked({ ...createChangeEmitter(), emit: async ({ id }) => void taken.push(id) }, '2', log)).toBe(true);
    const thrown = new Error('down');
    const broken = { ...own, emit: () => Promise.reject(thrown) };
    await expect(tracked(broken, '3', log)).rejects.toBe(thrown);
    expect(taken).toEqual(['1', '2']);
    expect(log).toEqual([]);
  });
});
