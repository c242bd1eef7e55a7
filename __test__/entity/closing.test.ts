// @pool forks @runtime node: it waits long, for stores and not for JavaScript.
// Closing a store while something is under way or could not be recorded yet: what can be saved is saved, and what is lost is named.
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { createEntityStore, getEntityFailure, HoldfastError, type EntityStoreOptions, type NativeEntityStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { restartablePostgres } from '../support/postgres';
import { deferred, historyOf, logBook, openStore, rejection, tempDir, until, world, type State } from './support';

/** A store whose clock fails while `clock.broken`: no append gets through then. */
function withClock(path: string, options: EntityStoreOptions = {}) {
  const clock = { broken: false };
  const now = (): Date => {
    if (clock.broken) throw new Error('no time');
    return new Date();
  };
  const { lines, logger } = logBook();
  const store = createEntityStore({ path }, { ...options, logger, clock: now });
  return { store, clock, lines };
}

/** A mutation of entity 1 whose append fails, after its owner's write. */
async function stuck(store: NativeEntityStore, clock: { broken: boolean }) {
  const it = world({ store });
  await it.put('1', { n: 0 });
  const failed = await rejection(
    it.handle.mutate({
      id: '1',
      apply: async () => {
        it.owner.set('1', { n: 1 });
        clock.broken = true;
        return { n: 1 };
      },
    }),
  );
  expect(getEntityFailure(failed)).toMatchObject({ stage: 'append', applied: true, pending: true });
  return it;
}

async function reopened(path: string, durability: 'journal' | 'outbox' | 'after-commit'): Promise<string[]> {
  const store = openStore({ path }, { durability });
  const { owner } = world({ store });
  owner.set('1', { n: 1 });
  await store.ready();
  return historyOf(store, '1');
}

describe.each(['journal', 'outbox', 'after-commit'] as const)('changes that could not be recorded, %s', (durability) => {
  test('are counted, and recorded while the store closes', async () => {
    const path = `${tempDir()}/e.db`;
    const { store, clock } = withClock(path, { durability });
    await stuck(store, clock);
    // (Its age is told by the clock, until the delivery of the one before is noted.)
    await until(async () => (await store.stats().catch(() => null))?.unfinished === 1);
    const closed = store.close();
    clock.broken = false;
    await closed;
    expect(await reopened(path, durability)).toEqual(['n: null -> 0', 'n: 0 -> 1']);
  });

  test('are named when that fails to the end; those of a journal are completed by the next opening', async () => {
    const path = `${tempDir()}/e.db`;
    const { store, clock, lines } = withClock(path, { durability });
    await stuck(store, clock);
    const began = performance.now();
    if (durability === 'journal') {
      await store.close();
      expect(performance.now() - began).toBeLessThan(4000);
      expect(await reopened(path, durability)).toEqual(['n: null -> 0', 'n: 0 -> 1']);
      return;
    }
    const error = await rejection(store.close());
    expect(error).toMatchObject({ hfCode: 'HF_ENTITY_APPEND_FAILED', lost: 1, cause: { message: 'no time' } });
    expect(error.message).toContain('of 1 changes are lost, of pod:1;');
    expect(lines.filter((line) => line.startsWith('error'))).toEqual([expect.stringContaining('of pod:1;')]);
    expect(performance.now() - began).toBeLessThan(20_000);
    expect(await reopened(path, durability)).toEqual(['n: null -> 0']);
  }, 30_000);

  test('a mutation that was just begun is waited for, also while it reads', async () => {
    const path = `${tempDir()}/e.db`;
    const store = createEntityStore({ path }, { durability });
    const { owner, registry, calls } = world({ store });
    const [reading, go] = [deferred(), deferred()];
    const slow = registry.defineEntity<State>({
      kind: 'slow',
      state: { '~standard': { version: 1, vendor: 'test', validate: (value) => ({ value: value as State }) } },
      read: async () => (reading.resolve(), await go.promise, {}),
    });
    const put = slow.mutate({ id: '1', apply: async () => (calls.push('slow'), owner.set('1', { n: 1 }), { n: 1 }) });
    await reading.promise;
    const { put: quick } = world({ store, kind: 'quick' });
    await quick('1', { n: 0 });
    const atOnce = quick('1', { n: 1 });
    const closed = store.close();
    setTimeout(() => go.resolve(), 50);
    expect(await Promise.all([put, atOnce])).toEqual([{ n: 1 }, { n: 1 }]);
    await closed;
    const again = openStore({ path }, { durability });
    expect(await historyOf(again, '1', 'slow')).toEqual(['n: null -> 1']);
    expect(await historyOf(again, '1', 'quick')).toEqual(['n: null -> 0', 'n: 0 -> 1']);
  });

  test('a mutation under way is waited for; one that comes later does not begin', async () => {
    const path = `${tempDir()}/e.db`;
    const { store } = withClock(path, { durability });
    const { handle, put, calls } = world({ store });
    await put('1', { n: 0 });
    const [applying, go] = [deferred(), deferred<State>()];
    const underWay = handle.mutate({ id: '1', apply: () => (applying.resolve(), go.promise) });
    await applying.promise;
    const behind = rejection(put('1', { n: 2 }));
    const closed = store.close();
    const late = rejection(put('2', { n: 2 }));
    expect(await Promise.race([closed, sleep(100, 'waits')])).toBe('waits');
    go.resolve({ n: 1 });
    expect(await underWay).toEqual({ n: 1 });
    await closed;
    for (const error of [await behind, await late]) expect(error).toMatchObject({ hfCode: 'HF_CLOSED' });
    expect(calls.filter((call) => call.startsWith('write'))).toEqual(['write 1']);
    expect(await reopened(path, durability)).toEqual(['n: null -> 0', 'n: 0 -> 1']);
  });
});

test('an apply that hangs takes no other change its chance to be recorded', async () => {
  const path = `${tempDir()}/e.db`;
  const { store, clock } = withClock(path, { durability: 'outbox' });
  const { handle } = await stuck(store, clock);
  clock.broken = false;
  const applying = deferred();
  void handle.mutate({ id: '2', apply: () => (applying.resolve(), new Promise<State>(() => {})) });
  // (Its beginning needs the time.)
  await applying.promise;
  clock.broken = true;
  setTimeout(() => (clock.broken = false), 5300);
  await store.close();
  expect(await reopened(path, 'outbox')).toEqual(['n: null -> 0', 'n: 0 -> 1']);
}, 20_000);

test('where the server is away, the error says so', async () => {
  const server = await restartablePostgres();
  const store = createEntityStore({ connectionString: server.url }, { durability: 'outbox' });
  const { put } = world({ store });
  await put('1', { n: 0 });
  await server.kill();
  expect(getEntityFailure(await rejection(put('1', { n: 1 })))).toMatchObject({ stage: 'append', pending: true });
  const error = await rejection(store.close());
  expect(error).toMatchObject({ hfCode: 'HF_ENTITY_APPEND_FAILED', lost: 1, cause: { message: expect.stringContaining('refused') } });
  expect(error.message).toMatch(/of pod:1;.*could not be recorded: .*refused/);
}, 60_000);

test('an apply that hangs does not keep the store open for ever', async () => {
  const store = openStore({ memory: true });
  const { handle } = world({ store });
  const applying = deferred();
  void handle.mutate({ id: '1', apply: () => (applying.resolve(), new Promise<State>(() => {})) });
  await applying.promise;
  await store.close();
}, 20_000);

test.each(['journal', 'outbox', 'after-commit'] as const)('a store that can record nothing any more refuses before the owner writes, %s', async (durability) => {
  const path = `${tempDir()}/e.db`;
  const store = createEntityStore({ path }, { durability });
  const { put, calls } = world({ store });
  await put('1', { n: 0 });
  rmSync(path);
  // The first one finds out.
  await rejection(put('1', { n: 1 }));
  calls.length = 0;
  const refused = await rejection(put('2', { n: 1 }));
  expect(refused).toBeInstanceOf(HoldfastError);
  expect(refused).toMatchObject({ hfCode: 'HF_POISONED', path: expect.stringContaining('e.db') });
  expect(calls).toEqual(['read 2']);
  if (durability === 'journal') await store.close();
  else expect(await rejection(store.close())).toMatchObject({ hfCode: 'HF_ENTITY_APPEND_FAILED', lost: 1 });
});
