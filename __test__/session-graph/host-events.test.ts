// @pool forks: what counts happens in processes of its own.
/** Events of the host: what happened is recorded once, and handed out once. */
import { readFileSync } from 'node:fs';

import {
  EffectReplayStore,
  HostEventStore,
  type HostEventOccurrenceRequest,
  type HostEventSubscriptionDraft,
  type HostEventSubscriptionFilter,
  type JsonValue,
} from 'holdfast';
import { afterEach, describe, expect, test } from 'vitest';

import { failure, newFile, raw } from './support';

const stores: HostEventStore[] = [];

afterEach(async () => {
  await Promise.all(stores.splice(0).map((store) => store.close()));
});

async function keep(opening: Promise<HostEventStore>): Promise<HostEventStore> {
  const store = await opening;
  stores.push(store);
  return store;
}

const open = (path = newFile()) => keep(HostEventStore.open(path));
const SOURCE = { at: '09:00' };
const KEY = HostEventStore.sourceKey('cron', SOURCE);
const draft = (more: Partial<HostEventSubscriptionDraft> = {}): HostEventSubscriptionDraft => ({
  sessionId: 's',
  sourceType: 'cron',
  sourceKey: KEY,
  source: SOURCE,
  target: { prompt: 'hello' },
  ...more,
});
const request = (more: Partial<HostEventOccurrenceRequest> = {}): HostEventOccurrenceRequest => ({
  sourceType: 'cron',
  sourceKey: KEY,
  idempotencyKey: 'monday',
  ...more,
});

describe.each([
  { name: 'file', make: () => open() },
  { name: 'memory', make: () => keep(HostEventStore.memory()) },
])('$name', ({ name, make }) => {
  test('a subscription has a number that nobody else ever has', async () => {
    const store = await make();
    const made = [];
    for (let n = 1; n <= 11; n++) made.push(await store.registerSubscription(draft({ sessionId: n % 2 === 1 ? 'b' : 'a', name: `n${n}` })));
    expect(made.map(({ handle }) => handle)).toEqual(Array.from({ length: 11 }, (_, n) => `trigger:${n + 1}`));
    expect(made[0]).toEqual({
      ...draft({ sessionId: 'b', name: 'n1' }),
      subscriptionId: 'subscription:1',
      handle: 'trigger:1',
      enabled: true,
      createdAtMs: expect.any(Number) as number,
      updatedAtMs: expect.any(Number) as number,
    });
    const handles = async (filter?: HostEventSubscriptionFilter) => (await store.listSubscriptions(filter)).map(({ handle }) => Number(handle.slice(8)));
    expect(await handles()).toEqual([2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]);
    // Only of the session that it belongs to, and only once.
    expect(await store.cancelSubscription('a', 'trigger:11')).toBe(false);
    expect(await store.cancelSubscription('b', 'trigger:11')).toBe(true);
    expect(await store.cancelSubscription('b', 'trigger:11')).toBe(false);
    expect(await handles({ enabled: false })).toEqual([11]);
    expect(await handles({ enabled: true, sessionId: 'b', sourceType: 'cron', sourceKey: KEY })).toEqual([1, 3, 5, 7, 9]);
    expect(await handles({ name: 'n4' })).toEqual([4]);
    expect(await handles({ handle: 'trigger:4', sessionId: 'b' })).toEqual([]);
    expect(await store.prune({ subscriptionsOlderThanMs: 0 })).toEqual({ occurrences: 0, subscriptions: 1 });
    expect((await store.registerSubscription(draft())).handle).toBe('trigger:12');
    expect(store.durabilityTier()).toBe(name === 'file' ? 'durable' : 'inline');
  });

  test('an occurrence that is told twice is one', async () => {
    const store = await make();
    const payload: JsonValue = { text: 'a\0é', deep: JSON.parse('['.repeat(500) + ']'.repeat(500)) as JsonValue };
    const first = await store.recordOccurrence(request({ payload, source: null }));
    expect(first).toEqual({
      ...request({ payload, source: null }),
      occurrenceId: expect.stringMatching(/^occurrence:[0-9a-f]{64}$/) as string,
      occurredAtMs: expect.any(Number) as number,
    });
    expect(await store.recordOccurrence(request({ source: null, payload }))).toEqual(first);
    for (const other of [{ payload: 1 }, { payload, source: 1 }, { payload }, { payload, source: null, sourceKey: 'k' }]) {
      expect(await failure(store.recordOccurrence(request(other)))).toMatchObject({
        name: 'HostEventError',
        hfCode: 'HF_GRAPH_HOST_EVENT',
        message: 'host event occurrence idempotency conflict for `monday`',
      });
    }
  });

  test('each pair is handed out once', async () => {
    const store = await make();
    const [b, a] = [await store.registerSubscription(draft({ sessionId: 'b' })), await store.registerSubscription(draft({ sessionId: 'a' }))];
    await store.registerSubscription(draft({ sourceKey: 'other' }));
    await store.registerSubscription(draft({ sourceType: 'other' }));
    const off = await store.registerSubscription(draft());
    await store.cancelSubscription('s', off.handle);
    const occurrence = await store.recordOccurrence(request());
    const { occurrenceId } = occurrence;
    const reserved = await Promise.all([1, 2, 3].map(() => store.reserveMatchingDeliveries(occurrenceId)));
    expect(reserved.map(({ length }) => length).sort()).toEqual([0, 0, 2]);
    const deliveries = reserved.flat();
    expect(deliveries.map(({ subscription }) => subscription)).toEqual([a, b]);
    expect(deliveries.map((each) => each.occurrence)).toEqual([occurrence, occurrence]);
    expect(new Set(deliveries.map(({ processId }) => processId)).size).toBe(2);
    for (const { processId } of deliveries) expect(processId).toMatch(/^process:host-event:[0-9a-f]{64}$/);
    expect(await failure(store.reserveMatchingDeliveries('no'))).toMatchObject({ message: 'unknown host event occurrence `no`' });

    // What nobody started is found, and kept.
    expect(await store.listUnstartedDeliveries()).toEqual(deliveries);
    expect(await store.prune({ occurrencesOlderThanMs: 0 })).toEqual({ occurrences: 0, subscriptions: 0 });
    const [first, second] = deliveries.map(({ processId }) => processId) as [string, string];
    expect([await store.markDeliveryStarted(first), await store.markDeliveryStarted(first)]).toEqual([true, false]);
    expect((await store.listUnstartedDeliveries()).map(({ processId }) => processId)).toEqual([second]);
    expect(await failure(store.markDeliveryStarted('no'))).toMatchObject({ name: 'HostEventError', processId: 'no' });
    await store.markDeliveryStarted(second);
    expect(await store.prune({ occurrencesOlderThanMs: 60_000, subscriptionsOlderThanMs: 60_000 })).toEqual({ occurrences: 0, subscriptions: 0 });
    expect(await store.prune({ occurrencesOlderThanMs: 0, subscriptionsOlderThanMs: 0 })).toEqual({ occurrences: 1, subscriptions: 1 });
    // The same ids as before, so that who knows the processes starts none twice.
    expect((await store.recordOccurrence(request())).occurrenceId).toBe(occurrenceId);
    expect((await store.reserveMatchingDeliveries(occurrenceId)).map(({ processId }) => processId)).toEqual([first, second]);
  });

  test('bad input', async () => {
    const store = await make();
    for (const [name, word] of [['sourceType', 'source_type'], ['sourceKey', 'source_key'], ['idempotencyKey', 'idempotency_key']] as const) {
      for (const value of [undefined, null, '', ' \t']) {
        const told = await failure(store.recordOccurrence({ ...request(), [name]: value } as HostEventOccurrenceRequest));
        expect(told).toMatchObject({ name: 'HostEventError', message: `host event occurrence requires ${word}` });
      }
    }
    const refused: Promise<unknown>[] = [
      store.recordOccurrence(null as never),
      store.recordOccurrence(request({ sourceType: 1 as never })),
      store.recordOccurrence(request({ payload: 1n as never })),
      store.registerSubscription(draft({ sessionId: '' })),
      store.registerSubscription(draft({ name: '\ud800' })),
      store.registerSubscription(draft({ target: undefined as never })),
      store.registerSubscription(draft({ source: (() => 1) as never })),
      store.listSubscriptions({ enabled: 1 as never }),
      store.listSubscriptions({ whatever: 1 } as object),
      store.cancelSubscription('s', ''),
      store.reserveMatchingDeliveries(1 as never),
      store.prune({ subscriptionsOlderThanMs: -1 }),
    ];
    for (const told of await Promise.all(refused.map(failure))) {
      expect(told).toMatchObject({ name: 'InvalidArgumentError', hfCode: 'HF_INVALID_ARGUMENT' });
    }
    await store.close();
    expect(await failure(store.recordOccurrence(request()))).toMatchObject({ name: 'StoreClosedError' });
  });
});

test('the key of a source depends on what it is, not on how it is written', () => {
  expect(KEY).toMatch(/^source:cron:[0-9a-f]{64}$/);
  expect(HostEventStore.sourceKey('t', { a: 1, b: [1.0] })).toBe(HostEventStore.sourceKey('t', { b: [1], a: 1 }));
  expect(HostEventStore.sourceKey('u', SOURCE)).not.toBe(HostEventStore.sourceKey('t', SOURCE));
  for (const source of [undefined, () => 1, 1n]) {
    expect(() => HostEventStore.sourceKey('t', source as never)).toThrow(expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT' }));
  }
});

test('two handles number and reserve together', async () => {
  const path = newFile();
  const [one, two] = [await open(path), await open(path)];
  const made = await Promise.all(Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? one : two).registerSubscription(draft({ sessionId: `s${n % 3}` }))));
  expect(new Set(made.map(({ handle }) => handle)).size).toBe(20);
  const [{ occurrenceId }, again] = await Promise.all([one.recordOccurrence(request()), two.recordOccurrence(request())]);
  expect(again.occurrenceId).toBe(occurrenceId);
  const reserved = await Promise.all([one, two, one, two].map((store) => store.reserveMatchingDeliveries(occurrenceId)));
  expect(reserved.flat()).toHaveLength(20);
});

test('a file of host events is nothing else', async () => {
  const path = newFile();
  const first = await open(path);
  await first.registerSubscription(draft());
  await first.close();
  expect(raw(path, 'PRAGMA application_id')).toEqual([{ application_id: 0x48464556 }]);
  const before = readFileSync(path);
  expect(await failure(EffectReplayStore.open(path))).toMatchObject({ name: 'UnsupportedSchemaError', kind: 'effect replay', reason: 'foreign' });
  expect(readFileSync(path).equals(before)).toBe(true);
  // A row that cannot be read is told, not passed over.
  raw(path, "UPDATE subscriptions SET record_json = '{'");
  expect(await failure((await open(path)).listSubscriptions())).toMatchObject({ name: 'RecordDecodeError', table: 'subscriptions', key: 'subscription:1' });
});
