// @pool forks: what counts happens in processes of its own.
/** Effects: each is done once, and everybody gets the same outcome. */
import { readFileSync } from 'node:fs';

import { EffectReplayStore, HostEventStore, SessionGraphStore, type EffectEnvelope, type EffectScope, type JsonValue } from 'holdfast';
import { afterEach, describe, expect, test } from 'vitest';

import { failure, lock, newFile, race, raw, start } from './support';

const stores: EffectReplayStore[] = [];

afterEach(async () => {
  await Promise.all(stores.splice(0).map((store) => store.close()));
});

async function keep(opening: Promise<EffectReplayStore>): Promise<EffectReplayStore> {
  const store = await opening;
  stores.push(store);
  return store;
}

const open = (path = newFile(), leaseTtlMs?: number) => keep(EffectReplayStore.open(path, leaseTtlMs === undefined ? {} : { leaseTtlMs }));
const TURN: EffectScope = { type: 'turn', id: 't' };
const effect = (more: Partial<EffectEnvelope> = {}): EffectEnvelope => ({ effectId: 'e', kind: 'tool', replayKey: 'k', command: 1, ...more });
const gate = (): { opened: Promise<void>; open: () => void } => {
  let open = (): void => {};
  return { opened: new Promise<void>((resolve) => (open = resolve)), open: () => open() };
};
const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const never = (): never => {
  throw new Error('it must not run');
};

describe.each([
  { name: 'file', make: (leaseTtlMs?: number) => open(newFile(), leaseTtlMs) },
  { name: 'memory', make: (leaseTtlMs?: number) => keep(EffectReplayStore.memory(leaseTtlMs === undefined ? {} : { leaseTtlMs })) },
])('$name', ({ name, make }) => {
  test('40: one run for all who ask, one outcome for ever, and no other effect under its key', async () => {
    // It runs for twice as long as its lease: that is renewed.
    const store = await make(500);
    const turn = store.scoped(TURN);
    let runs = 0;
    const run = async (): Promise<JsonValue> => {
      const nth = ++runs;
      await wait(1000);
      return { nth };
    };
    const first = turn.execute(effect(), run);
    await wait(20);
    expect(await Promise.all([first, turn.execute(effect(), run)])).toEqual([{ nth: 1 }, { nth: 1 }]);
    store.startReplay();
    expect(await turn.execute(effect(), never)).toEqual({ nth: 1 });
    expect(await failure(turn.execute(effect({ command: 2 }), never))).toMatchObject({
      name: 'EffectReplayError',
      hfCode: 'HF_GRAPH_EFFECT_REPLAY_HASH_CONFLICT',
      message: expect.stringMatching(/^effect_replay_hash_conflict: effect `k` of turn `t` /) as string,
      replayKey: 'k',
    });
    expect(await failure(turn.execute(effect({ replayKey: 'new' }), never))).toMatchObject({ hfCode: 'HF_GRAPH_EFFECT_REPLAY_MISSING' });
    expect(runs).toBe(1);
    expect(store.durabilityTier()).toBe(name === 'file' ? 'durable' : 'inline');
  });

  test('what it came to comes back as it was', async () => {
    const turn = (await make()).scoped({ type: 'process', sessionId: 's', id: 'p' });
    const nested = JSON.parse('['.repeat(1000) + ']'.repeat(1000)) as JsonValue;
    const outcomes: (JsonValue | undefined)[] = [undefined, null, false, 0, '', 'a\0\ud800é', { a: [1, { b: null }], c: 2 ** 53 - 1 }, nested];
    for (const [index, outcome] of outcomes.entries()) {
      const it = effect({ replayKey: `k${index}` });
      expect(await turn.execute<JsonValue | void>(it, () => outcome)).toEqual(outcome);
      expect(await turn.execute<JsonValue | void>(it, never)).toEqual(outcome);
    }
    // What is left out by JSON is left out for the first caller, too.
    expect(Object.keys((await turn.execute(effect(), () => ({ a: undefined, b: 1 }) as unknown as JsonValue)) as object)).toEqual(['b']);
  });

  test('what JSON would change is refused, and the effect counts as done', async () => {
    const turn = (await make()).scoped(TURN);
    const circle: { of?: unknown } = {};
    circle.of = circle;
    const outcomes = { NaN, bigint: 1n, date: new Date(0), map: { a: new Map() }, function: never, symbol: Symbol('s'), hole: [, 1], circle };
    for (const [name, outcome] of Object.entries(outcomes)) {
      const it = effect({ replayKey: name });
      const told = await failure(turn.execute(it, () => outcome as unknown as JsonValue));
      expect(told).toMatchObject({ name: 'InvalidArgumentError', hfCode: 'HF_INVALID_ARGUMENT', message: expect.stringContaining('JSON') as string });
      expect(await failure(turn.execute(it, never))).toMatchObject({ name: 'InvalidArgumentError', message: told.message });
    }
  });

  test('what it threw is thrown again', async () => {
    const turn = (await make()).scoped(TURN);
    const thrown = Object.assign(new RangeError('too much'), { code: 'E_MUCH' });
    expect(await failure(turn.execute(effect(), () => Promise.reject(thrown)))).toBe(thrown);
    const again = await failure(turn.execute(effect(), never));
    expect(again).toBeInstanceOf(Error);
    expect(again).toMatchObject({ name: 'RangeError', message: 'too much', code: 'E_MUCH' });
    const values: unknown[] = ['text', null, { a: 1 }, 7];
    for (const [index, value] of values.entries()) {
      const it = effect({ replayKey: `k${index}` });
      const run = (): never => {
        throw value;
      };
      for (const each of [run, never]) expect(await failure(turn.execute(it, each))).toEqual(value);
    }
  });

  test('what is transient is not recorded', async () => {
    const store = await make();
    const turn = store.scoped(TURN);
    const thrown = Object.assign(new Error('try later'), { transient: true });
    expect(await failure(turn.execute(effect(), () => Promise.reject(thrown)))).toBe(thrown);
    // It was begun, so a replay may do it.
    store.startReplay();
    expect(await turn.execute(effect(), () => 'done')).toBe('done');
    expect(await turn.execute(effect(), never)).toBe('done');
  });

  test('scopes do not meet', async () => {
    const store = await make();
    const scopes: EffectScope[] = [TURN, { ...TURN, type: 'process' }, { ...TURN, sessionId: 'a' }, { ...TURN, sessionId: 'b' }];
    for (const [index, scope] of scopes.entries()) expect(await store.scoped(scope).execute(effect(), () => index)).toBe(index);
    for (const [index, scope] of scopes.entries()) expect(await store.scoped(scope).execute(effect(), never)).toBe(index);
  });

  test('what is over can be forgotten', async () => {
    const store = await make();
    const [a, b] = [store.scoped(TURN), store.scoped({ ...TURN, id: 'u' })];
    await Promise.all([a.execute(effect(), () => 1), b.execute(effect(), () => 1), b.execute(effect({ replayKey: 'l' }), () => 1)]);
    let end = (): void => {};
    const running = a.execute(effect({ replayKey: 'long' }), () => new Promise<JsonValue>((resolve) => (end = () => resolve(1))));
    await expect.poll(() => end.name).not.toBe('');
    expect(await store.prune({ olderThanMs: 60_000 })).toBe(0);
    expect(await store.prune({ olderThanMs: 0, scope: { ...TURN, id: 'u' } })).toBe(2);
    expect(await store.prune({ olderThanMs: 0 })).toBe(1);
    end();
    expect(await running).toBe(1);
    expect(await a.execute(effect(), () => 2)).toBe(2);
    expect(await failure(store.prune({ olderThanMs: -1 }))).toMatchObject({ name: 'InvalidArgumentError' });
  });

  test('bad input', async () => {
    const store = await make();
    for (const scope of [{ type: 'turn', id: '' }, { type: 'turn' }, { type: 'turn', id: 't', sessionId: '' }]) {
      expect(() => store.scoped(scope as EffectScope)).toThrow(/^effect_replay_key_missing: /);
    }
    for (const scope of [null, { type: 'x', id: 't' }, { type: 'turn', id: 1 }, { type: 'turn', id: 'a\0' }]) {
      expect(() => store.scoped(scope as EffectScope)).toThrow(expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT' }));
    }
    const turn = store.scoped(TURN);
    expect(await failure(turn.execute(effect({ replayKey: '' }), never))).toMatchObject({ hfCode: 'HF_GRAPH_EFFECT_REPLAY_KEY_MISSING' });
    const envelopes = [null, effect({ effectId: '' }), { ...effect(), command: undefined }, effect({ command: 1n as never }), effect({ kind: 'sleep' })];
    for (const bad of [...envelopes, effect({ kind: 'sleep', command: { durationMs: -1 } })]) {
      expect(await failure(turn.execute(bad as EffectEnvelope, never))).toMatchObject({ name: 'InvalidArgumentError' });
    }
    expect(await failure(turn.execute(effect(), 1 as never))).toMatchObject({ name: 'InvalidArgumentError' });
    for (const leaseTtlMs of [0, -1, 1.5, '1']) {
      expect(await failure(EffectReplayStore.memory({ leaseTtlMs: leaseTtlMs as number }))).toMatchObject({ name: 'InvalidArgumentError' });
    }
    expect(await failure(EffectReplayStore.memory({ other: 1 } as object))).toMatchObject({ name: 'InvalidArgumentError' });
  });

  test('closing ends what runs', async () => {
    const store = await make(1000);
    const turn = store.scoped(TURN);
    let aborted: unknown;
    const begun = gate();
    const running = turn.execute(effect(), (_, signal) => {
      signal.addEventListener('abort', () => (aborted = signal.reason));
      begun.open();
      return new Promise<JsonValue>(() => {});
    });
    const waiting = failure(turn.execute(effect(), never));
    await begun.opened;
    const closed = store.close();
    expect(await failure(running)).toMatchObject({ name: 'StoreClosedError' });
    expect(aborted).toMatchObject({ name: 'StoreClosedError' });
    expect(await waiting).toMatchObject({ name: 'StoreClosedError' });
    await closed;
    expect(await failure(turn.execute(effect(), never))).toMatchObject({ name: 'StoreClosedError' });
    if (store.path === null) return;
    // Nobody is at it once its lease has lapsed.
    expect(await (await open(store.path)).scoped(TURN).execute(effect(), () => 'next')).toBe('next');
  });
});

test('a sleep ends when it was to end, whoever waits for it', async () => {
  const path = newFile();
  const sleep = effect({ kind: 'sleep', command: { durationMs: 1600 } });
  const first = await open(path, 50);
  const begun = Date.now();
  const interrupted = failure(first.scoped(TURN).execute(sleep, never));
  await wait(800);
  await first.close();
  expect(await interrupted).toMatchObject({ name: 'StoreClosedError' });
  const second = await open(path, 50);
  second.startReplay();
  const resumed = Date.now();
  // What is asked to sleep need not sleep any more.
  expect(await second.scoped(TURN).execute(sleep, ({ command }) => command)).toEqual({ durationMs: 0 });
  expect(Date.now() - begun).toBeGreaterThanOrEqual(1600);
  // One that began anew would take all of it.
  expect(Date.now() - resumed).toBeLessThan(1600);
  const again = Date.now();
  expect(await second.scoped(TURN).execute(sleep, never)).toEqual({ durationMs: 0 });
  expect(Date.now() - again).toBeLessThan(1600);
});

test('two handles and who waits in vain', async () => {
  const path = newFile();
  const [a, b] = [await open(path), await open(path)];
  const begun = gate();
  const thrown = Object.assign(new Error('later'), { transient: true });
  const first = failure(
    a.scoped(TURN).execute(effect(), async () => {
      begun.open();
      await wait(50);
      throw thrown;
    }),
  );
  await begun.opened;
  // Given up by the one, done by the other, long before the lease would have lapsed.
  expect(await b.scoped(TURN).execute(effect(), () => 'b')).toBe('b');
  expect(await first).toBe(thrown);
});

test('who loses an effect is told, and records nothing', async () => {
  const path = newFile();
  const store = await open(path, 60);
  let reason: unknown;
  const told = await failure(
    store.scoped(TURN).execute(effect(), (_, signal) => {
      signal.addEventListener('abort', () => (reason = signal.reason));
      // As if somebody had taken it over while this process was stopped. The thread waits; the lease is renewed all the same, and found lost.
      raw(path, 'PRAGMA busy_timeout = 5000', "UPDATE runtime_effect_replay SET lease_token = 'other', lease_expires_at_ms = 9000000000000");
      return new Promise<JsonValue>(() => {});
    }),
  );
  expect(told).toMatchObject({ name: 'EffectReplayError', hfCode: 'HF_GRAPH_EFFECT_REPLAY_LEASE_LOST' });
  expect(told.message).toMatch(/^effect_replay_lease_lost: effect `k` of turn `t` /);
  expect(reason).toBe(told);
  await store.close();
  expect(raw(path, 'SELECT status, lease_token FROM runtime_effect_replay')).toEqual([{ status: 'in_progress', lease_token: 'other' }]);
});

test('what was done and cannot be recorded is told', async () => {
  const path = newFile();
  const store = await keep(EffectReplayStore.open(path, { busyTimeoutMs: 100 }));
  let locker: { ended: Promise<void> } | undefined;
  const told = await failure(
    store.scoped(TURN).execute(effect(), async () => {
      locker = await lock(path, 1500);
      return 1;
    }),
  );
  expect(told).toMatchObject({ hfCode: 'HF_GRAPH_EFFECT_REPLAY_STORE', replayKey: 'k', cause: { name: 'StoreBusyError' } });
  expect(told.message).toMatch(/^effect_replay_store: effect `k` of turn `t` was done/);
  await locker?.ended;
});

test('a damaged row is told', async () => {
  const path = newFile();
  const first = await open(path);
  await first.scoped(TURN).execute(effect(), () => 1);
  await first.close();
  raw(path, "UPDATE runtime_effect_replay SET outcome_json = '{'");
  const told = await failure((await open(path)).scoped(TURN).execute(effect(), never));
  expect(told).toMatchObject({ name: 'EffectReplayError', hfCode: 'HF_GRAPH_EFFECT_REPLAY_CORRUPT_ROW' });
});

test('a file of effects is nothing else', async () => {
  const path = newFile();
  await (await open(path)).close();
  const before = readFileSync(path);
  expect(raw(path, 'PRAGMA application_id')).toEqual([{ application_id: 0x48464546 }]);
  const told = await failure(HostEventStore.open(path));
  expect(told).toMatchObject({ name: 'UnsupportedSchemaError', kind: 'host event', reason: 'foreign', found: 1, expected: 1 });
  expect(told.message).toContain('It is not a holdfast host event database. The file was not changed.');
  expect(await failure(SessionGraphStore.open(path))).toMatchObject({ name: 'UnsupportedSchemaError', kind: 'session' });
  expect(readFileSync(path).equals(before)).toBe(true);
});

test('two processes that ask at once: one run', async () => {
  const path = newFile();
  const answers = await race<{ ran: number; outcome: number }>([1, 2].map(() => start(path, 'effect')));
  expect(answers.map(({ ran }) => ran).sort()).toEqual([0, 1]);
  expect(answers[0]?.outcome).toBe(answers[1]?.outcome);
});

test('a process whose thread is blocked keeps its effect', async () => {
  const path = newFile();
  const child = start(path, 'occupied', '1000', '2000');
  await child.line('running');
  const store = await open(path, 1000);
  expect(await store.scoped(TURN).execute(effect(), never)).toBe('child');
  expect((await child.ended).code).toBe(0);
});

test('a killed process loses its effect once the lease has lapsed', async () => {
  const path = newFile();
  const child = start(path, 'occupied', '1200');
  await child.line('running');
  const store = await open(path);
  const begun = Date.now();
  let ran = 0;
  const taken = store.scoped(TURN).execute(effect(), () => {
    ran = Date.now() - begun;
    return 'parent';
  });
  await wait(1800);
  // It lives, and has renewed.
  expect(ran).toBe(0);
  const killed = Date.now() - begun;
  await child.kill();
  expect(await taken).toBe('parent');
  // At least what a renewal leaves at any moment, also one that came late.
  expect(ran - killed).toBeGreaterThan(150);
});
