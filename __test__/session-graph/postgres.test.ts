/** What is particular to PostgreSQL: many stores in one schema, many handles on one store. */
import { randomUUID } from 'node:crypto';

import { SessionGraphStore, completionOf, type QueuedWorkClaim } from 'holdfast';
import { expect, test } from 'vitest';

import { freshSchema, query } from '../support/postgres';
import { append, commit, connect, draft, failure, ids, node } from './support';

const request = { sessionId: 'root', ownerId: 'o', leaseTtlMs: 60_000, boundary: 'idle', maxBatches: 3 } as const;

test('1: of handles that commit with the same expectation one wins', async () => {
  const id = randomUUID();
  const handles = await Promise.all([connect(id), connect(id), connect(id)]);
  const outcomes = await Promise.allSettled(
    handles.map((store, index) => store.commitRuntimeState(append([node(`n${index}`)], { expectedHeadRevision: 0 }))),
  );
  expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1);
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ name: 'HeadRevisionConflictError', expected: 0, actual: 1 });
  }
  expect(await ids(handles[0]!, { scope: 'fullGraph' })).toHaveLength(1);
});

test('7: handles drain a queue, each batch once', async () => {
  const id = randomUUID();
  const handles = await Promise.all([connect(id), connect(id), connect(id)]);
  await Promise.all(Array.from({ length: 20 }, (_, n) => handles[0]!.enqueueQueuedWork(draft({ payloads: [n], mergeKey: 'payloadDefault' }))));
  const done: unknown[] = [];
  const drain = async (store: SessionGraphStore): Promise<void> => {
    for (let claim: QueuedWorkClaim | null; (claim = await store.claimReadyQueuedWork(request)) !== null; ) {
      await store.commitRuntimeState(commit({ completedQueueClaims: [completionOf(claim)] }));
      done.push(...claim.batches.map((batch) => batch.items[0]!.payload));
    }
  };
  await Promise.all(handles.map(drain));
  expect(done.sort((a, b) => Number(a) - Number(b))).toEqual(Array.from({ length: 20 }, (_, n) => n));
});

test('stores of one schema do not see each other', async () => {
  const [one, two] = await Promise.all([connect(), connect()]);
  await one.commitRuntimeState(append([node('a')], { checkpoint: { turnState: 1, toolState: 'one' } }));
  await two.commitRuntimeState(append([node('a')], { sessionId: 'other', checkpoint: { turnState: 1, toolState: 'two' } }));
  await two.enqueueQueuedWork(draft());
  await two.putBlob(new Uint8Array([1]));
  expect(await one.listQueuedWork('root')).toEqual([]);
  expect(await one.gcUnreachable()).toMatchObject({ deletedBlobCount: 0 });
  await one.tombstoneNodes(['a']);
  expect(await one.vacuum({ reclaimSpace: true })).toEqual({ removedNodeCount: 1 });
  expect(await ids(two, { scope: 'fullGraph' })).toEqual(['a']);
  expect(await two.stats()).toMatchObject({ liveNodes: 1, queuedBatches: 1, headRevision: 1 });
  expect([one.path, one.durabilityTier(), one.schemaVersion]).toEqual([null, 'durable', 3]);
  expect([...(await one.verify({ deep: true })), ...(await two.verify({ deep: true }))]).toEqual([]);
});

test('many open an empty schema at once, and a store that was closed can be opened again', async () => {
  const { url, schema } = await freshSchema();
  const options = { connectionString: url, schema, sessionId: 's' };
  const stores = await Promise.all(Array.from({ length: 8 }, () => SessionGraphStore.connect(options)));
  await stores[7]!.commitRuntimeState(append([node('a')]));
  const late = stores.map((store) => store.enqueueQueuedWork(draft()));
  await Promise.all(stores.map((store) => store.close()));
  expect(new Set((await Promise.all(late)).map((batch) => batch.enqueueSeq)).size).toBe(8);
  expect(await failure(stores[0]!.stats())).toMatchObject({ name: 'StoreClosedError' });
  const again = await SessionGraphStore.connect(options);
  expect(await ids(again, { scope: 'activePath' })).toEqual(['a']);
  await again.close();
  expect(await query(`SELECT count(*)::int AS n FROM ${schema}.stores`)).toEqual([{ n: 1 }]);
});

test('a lock that stays is an error that can be tried again', async () => {
  const { url, schema } = await freshSchema();
  const store = await SessionGraphStore.connect({ connectionString: url, schema, sessionId: 's', busyTimeoutMs: 200 });
  await store.commitRuntimeState(append([node('a')]));
  // Holds what the store writes for a second.
  const holding = query(`BEGIN; LOCK TABLE ${schema}.all_session_head; SELECT pg_sleep(1); COMMIT`);
  await new Promise((resolve) => setTimeout(resolve, 300));
  const error = await failure(store.commitRuntimeState(append([node('b', 'a')])));
  expect(error).toMatchObject({ name: 'StoreBusyError', retryable: true });
  await holding;
  expect((await store.commitRuntimeState(append([node('b', 'a')]))).headRevision).toBe(2);
  await store.close();
});

test('what cannot be a store in PostgreSQL is refused', async () => {
  const bad = { name: 'InvalidArgumentError' };
  for (const options of [{}, { connectionString: '' }, { connectionString: 'x', sessionId: '' }, { connectionString: 'x', sessionId: 's', path: 'p' }]) {
    expect(await failure(SessionGraphStore.connect(options as never))).toMatchObject(bad);
  }
  const secret = 'postgres://user:secret@127.0.0.1:1/db';
  const error = await failure(SessionGraphStore.connect({ connectionString: secret, sessionId: 's' }));
  expect(error).toMatchObject({ hfCode: 'HF_UNAVAILABLE' });
  expect(error.message).not.toContain('secret');
});

test('who watches hears of other handles', async () => {
  const id = randomUUID();
  const [store, other] = [await connect(id), await connect(id)];
  const changes = store.watch({ since: 0, pollMs: 10 });
  await other.commitRuntimeState(append([node('a')]));
  expect((await changes.next()).value).toMatchObject({ changed: ['revision'], headRevision: 1 });
  const next = changes.next();
  await other.enqueueQueuedWork(draft());
  expect((await next).value).toMatchObject({ changed: ['queue'], queuedBatches: 1 });
  await changes.return!();
});
