// When the store or a subscriber fails: nothing is lost, nothing comes twice, nothing overtakes (A10, A11, R22, R23, decision 10).
import { setTimeout as sleep } from 'node:timers/promises';

import { createChangeEmitter, createRunSecretRegistry, getEntityFailure, type EntityStoreOptions } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { historyOf, jsStore, openStore, rejection, tempDir, until, world } from './support';

const chain = (events: { prev: unknown; next: unknown }[]): string[] => events.map(({ prev, next }) => `${JSON.stringify(prev)} -> ${JSON.stringify(next)}`);

describe('a store written in JavaScript', () => {
  test('A10: after a failed append the lost row and event come first at the next mutation, once, with their own id', async () => {
    const js = jsStore();
    const { put, events, owner } = world({ store: js.store });
    const error = new Error('append');
    js.failures.push(error);
    expect(await rejection(put('1', { n: 1 }))).toBe(error);
    expect(getEntityFailure(error)).toEqual({ stage: 'append', applied: true, pending: true });
    expect([owner.get('1'), events, js.rows]).toEqual([{ n: 1 }, [], []]);
    await put('1', { n: 2 });
    expect(js.rows.map((row) => `${row.fromValue} -> ${row.toValue}`)).toEqual(['null -> 1', '1 -> 2']);
    expect(chain(events)).toEqual(['null -> {"n":1}', '{"n":1} -> {"n":2}']);
    expect(events[0]!.changeId).not.toBe(events[1]!.changeId);
    await sleep(250);
    expect([js.rows.length, events.length]).toEqual([2, 2]);
  });

  test('R23: without a next mutation it is completed in the background, after 100 ms, then after 200', async () => {
    const js = jsStore();
    const { put, events } = world({ store: js.store });
    js.failures.push(new Error('1'));
    const began = performance.now();
    await rejection(put('1', { n: 1 }));
    await put('2', { n: 1 });
    js.failures.push(new Error('2'));
    await until(() => events.length === 2);
    expect(performance.now() - began).toBeGreaterThan(290);
    expect(js.rows.map((row) => row.entityId)).toEqual(['2', '1']);
  });

  test('what cannot be completed holds up the next mutation of its entity, before apply, and no other entity', async () => {
    const js = jsStore();
    const { put, events, owner } = world({ store: js.store });
    const errors = [1, 2, 3].map((n) => new Error(`append ${n}`));
    js.failures.push(errors[0], errors[1]);
    expect(await rejection(put('1', { n: 1 }))).toBe(errors[0]);
    expect(await rejection(put('1', { n: 2 }))).toBe(errors[1]);
    expect(getEntityFailure(errors[1])).toMatchObject({ stage: 'append', applied: false });
    expect(owner.get('1')).toEqual({ n: 1 });
    await put('1', { n: 3 });
    expect(chain(events)).toEqual(['null -> {"n":1}', '{"n":1} -> {"n":3}']);
  });

  test('A11: after a failed delivery the rows are there, and the event arrives later, once, with its id and time', async () => {
    const js = jsStore();
    const { put, events, emitFailures } = world({ store: js.store });
    const error = new Error('emit');
    emitFailures.push(error);
    expect(await rejection(put('1', { n: 1 }))).toBe(error);
    const failure = getEntityFailure(error)!;
    expect(failure).toMatchObject({ stage: 'emit', applied: true, pending: true, change: { next: { n: 1 } } });
    expect(js.rows).toHaveLength(1);
    expect(events).toEqual([]);
    await until(() => events.length > 0);
    await sleep(250);
    expect(events.map(({ changeId, occurredAt }) => [changeId, occurredAt])).toEqual([[failure.change!.changeId, failure.change!.occurredAt]]);
  });

  test('A11: or with the next mutation, before its own event; a target that throws three times gets them in order', async () => {
    const js = jsStore();
    const { put, events, emitFailures } = world({ store: js.store });
    const errors = [1, 2, 3].map((n) => new Error(`emit ${n}`));
    emitFailures.push(...errors);
    for (const [n, error] of errors.entries()) expect(await rejection(put('1', { n }))).toBe(error);
    expect(js.rows).toHaveLength(3);
    await put('2', { n: 0 });
    await put('1', { n: 3 });
    expect(events.filter(({ id }) => id === '1').map(({ next }) => next!.n)).toEqual([0, 1, 2, 3]);
    await sleep(250);
    expect(events).toHaveLength(5);
  });

  test('a failed removal is completed, too', async () => {
    const { put, drop, events, emitFailures } = world({ store: jsStore().store });
    await put('1', { n: 1 });
    emitFailures.push(new Error('emit'));
    await rejection(drop('1'));
    await put('1', { n: 2 });
    expect(chain(events)).toEqual(['null -> {"n":1}', '{"n":1} -> null', 'null -> {"n":2}']);
  });

  test('a secret registry that throws once: what says that it is pending is completed', async () => {
    const js = jsStore();
    const ours = createRunSecretRegistry();
    const error = new Error('vault');
    const failing = [error];
    const secretRegistry = { ...ours, maskDeep: (runId: string, value: unknown) => { if (failing.length > 0) throw failing.pop(); return ours.maskDeep(runId, value); } };
    const { put, events } = world({ store: js.store, secretRegistry });
    expect(await rejection(put('1', { n: 1 }, { runId: 'r' }))).toBe(error);
    expect(getEntityFailure(error)).toMatchObject({ stage: 'append', applied: true, pending: true });
    await put('1', { n: 2 });
    expect(chain(events)).toEqual(['null -> {"n":1}', '{"n":1} -> {"n":2}']);
  });
});

describe('a store of holdfast\'s own that keeps events', () => {
  const options: { name: string; more: EntityStoreOptions }[] = [
    { name: 'journal', more: {} },
    { name: 'outbox', more: { durability: 'outbox' } },
  ];

  test.each(options)('$name: mutate resolves although the delivery failed; the event stays and is sent again, in order', async ({ more }) => {
    const path = `${tempDir()}/e.db`;
    const store = openStore({ path }, more);
    const { put, events, emitFailures, lines } = world({ store });
    emitFailures.push(new Error('s3cr3t-down'), new Error('still'), new Error('again'));
    await put('1', { n: 1 });
    await put('1', { n: 2 });
    await put('1', { n: 3 });
    await put('2', { n: 1 });
    // Entity 2 waits for nobody. (On a slow machine entity 1 has been sent again by now.)
    expect(events.map(({ id }) => id)).toContain('2');
    expect((await store.stats()).lagMs ?? 0).toBeGreaterThanOrEqual(0);
    await until(() => events.length === 4);
    expect(chain(events.filter(({ id }) => id === '1'))).toEqual(['null -> {"n":1}', '{"n":1} -> {"n":2}', '{"n":2} -> {"n":3}']);
    await until(async () => (await store.stats()).pending === 0);
    expect(await store.stats()).toMatchObject({ pending: 0, redelivered: expect.any(Number) });
    expect((await store.stats()).redelivered).toBeGreaterThanOrEqual(3);
    expect(lines.filter((line) => line.startsWith('warn delivering a change of pod:1 failed'))).toHaveLength(3);
  });

  test.each(options)('$name: a new store object sends what the closed one could not, with the same id', async ({ more }) => {
    const path = `${tempDir()}/e.db`;
    const first = openStore({ path }, more);
    const before = world({ store: first });
    const failed = Array.from({ length: 4 }, (_, n) => new Error(`down ${n}`));
    before.emitFailures.push(...failed);
    const ids: unknown[] = [];
    first.onChange((change) => ids.push(change.changeId));
    await before.put('1', { n: 1 });
    await before.put('1', { n: 2 });
    await before.put('2', { n: 1 });
    await first.close();
    const store = openStore({ path }, more);
    const after = world({ store });
    after.owner.set('1', { n: 2 }).set('2', { n: 1 });
    await store.ready();
    expect(after.events.map(({ changeId }) => changeId).sort()).toEqual(ids.sort());
    expect(chain(after.events.filter(({ id }) => id === '1'))).toEqual(['null -> {"n":1}', '{"n":1} -> {"n":2}']);
    expect(before.events).toEqual([]);
    await until(async () => (await store.stats()).pending === 0);
    expect(await store.stats()).toMatchObject({ pending: 0 });
    await after.put('1', { n: 3 });
    expect(after.events).toHaveLength(4);
  });

  test('the same registry goes on with a new store after close, unfinished changes included', async () => {
    const path = `${tempDir()}/e.db`;
    const first = openStore({ path });
    const { put, registry, events, emitFailures } = world({ store: first });
    emitFailures.push(new Error('down'));
    await put('1', { n: 1 });
    await first.close();
    const store = openStore({ path });
    registry.setStore({ store });
    await store.ready();
    expect(chain(events)).toEqual(['null -> {"n":1}']);
    await put('1', { n: 2 });
    expect(await historyOf(store, '1')).toEqual(['n: null -> 1', 'n: 1 -> 2']);
  });

  test('closing the store before takes nothing from the one that is bound now', async () => {
    const first = openStore({ memory: true });
    const { put, registry, events, emitFailures } = world({ store: first });
    await put('1', { n: 1 });
    const js = jsStore();
    registry.setStore({ store: js.store });
    js.failures.push(new Error('append'));
    await rejection(put('1', { n: 2 }));
    emitFailures.push(new Error('emit'));
    await rejection(put('2', { n: 1 }));
    await first.close();
    await until(() => events.length === 3, 2000);
    js.failures.push(new Error('append'));
    await rejection(put('3', { n: 1 }));
    await until(() => events.length === 4, 2000);
    expect(events.map(({ id, next }) => [id, next!.n]).sort()).toEqual([['1', 1], ['1', 2], ['2', 1], ['3', 1]]);
  });

  test('an emitter that was never wired: everything waits in the outbox for the next store', async () => {
    const path = `${tempDir()}/e.db`;
    const first = openStore({ path });
    const { put } = world({ store: first, wired: false });
    for (let n = 0; n < 5; n++) await put('1', { n });
    expect(await first.stats()).toMatchObject({ pending: 5 });
    await first.close();
    const store = openStore({ path });
    const after = world({ store, wired: false });
    await store.ready();
    expect(await store.stats()).toMatchObject({ pending: 5 });
    await after.emitter.wire(after.target);
    expect(after.events.map(({ next }) => next!.n)).toEqual([0, 1, 2, 3, 4]);
    await until(async () => (await store.stats()).pending === 0);
    expect(await store.stats()).toMatchObject({ pending: 0 });
  });

  test.each(['one entity', 'six entities'])('what a small buffer drops is not lost, only late, and keeps nobody busy (%s)', async (which) => {
    const store = openStore({ path: `${tempDir()}/e.db` });
    const emitter = createChangeEmitter({ bufferLimit: 2 });
    const { put, events, target, lines } = world({ store, emitter, wired: false });
    for (let n = 0; n < 6; n++) await put(which === 'one entity' ? 'e' : `e${n}`, { n });
    await sleep(700);
    const busy = lines.length;
    await emitter.wire(target);
    const heard = (): unknown[] => [...new Set(events.map(({ next }) => next!.n))].sort();
    await until(() => heard().length === 6);
    expect(heard()).toEqual([0, 1, 2, 3, 4, 5]);
    await until(async () => (await store.stats()).pending === 0);
    expect(await store.stats()).toMatchObject({ pending: 0 });
    expect(busy).toBeLessThan(40);
  });

  test('subscribers of one entity hear in order, although an earlier change fails while a later one is under way', async () => {
    const store = openStore({ path: `${tempDir()}/e.db` });
    const { put, emitter, events } = world({ store, wired: false });
    let failing = 7;
    await emitter.wire(async (event) => {
      await sleep(2);
      if (failing-- > 0) throw new Error('down');
      events.push(event);
    });
    await Promise.all(Array.from({ length: 20 }, (_, n) => put('1', { n })));
    await until(() => events.length === 20);
    expect(events.map(({ next }) => next!.n)).toEqual(Array.from({ length: 20 }, (_, n) => n));
  });

  test('ready() resolves although a subscriber refuses what is sent again', async () => {
    const path = `${tempDir()}/e.db`;
    const first = openStore({ path });
    const before = world({ store: first });
    before.emitFailures.push(new Error('down'));
    await before.put('1', { n: 1 });
    await first.close();
    const store = openStore({ path });
    const { events, emitFailures } = world({ store });
    emitFailures.push(new Error('still down'), new Error('still down'));
    await store.ready();
    await until(() => events.length === 1);
    expect(chain(events)).toEqual(['null -> {"n":1}']);
  });
});
