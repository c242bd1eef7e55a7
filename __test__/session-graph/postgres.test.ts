/** What is particular to PostgreSQL: many stores in one schema, many handles on one store. */
import { randomUUID } from 'node:crypto';

import { SessionGraphStore, completionOf, type QueuedWorkBatchDraft, type QueuedWorkClaim } from 'holdfast';
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

test('claims of many at once are as if made one after the other, in the order of their fencing tokens', async () => {
  const id = randomUUID();
  const handles = await Promise.all(Array.from({ length: 6 }, () => connect(id, { poolSize: 6 })));
  let seed = 11;
  const pick = <T>(...of: T[]): T => of[(seed = (seed * 48271) % 2147483647) % of.length]!;
  const batches = await Promise.all(
    Array.from({ length: 160 }, () =>
      handles[0]!.enqueueQueuedWork(
        draft({ slotPolicy: pick('join', 'join', 'exclusive'), mergeKey: pick<QueuedWorkBatchDraft['mergeKey']>('payloadDefault', 'payloadDefault', 'never', { group: 'a' }), deliveryPolicy: pick('earliestSafeBoundary', 'earliestSafeBoundary', 'afterCurrentTurnCommit') }),
      ),
    ),
  );
  expect(batches.map((batch) => batch.enqueueSeq)).toEqual([...batches.map((batch) => batch.enqueueSeq)].sort((a, b) => a - b));
  const claims: (QueuedWorkClaim & { asked: { maxBatches: number; boundary: 'idle' | 'activeTurnCheckpoint' } })[] = [];
  const drain = async (store: SessionGraphStore): Promise<void> => {
    for (;;) {
      const asked = { maxBatches: pick(1, 2, 5), boundary: pick('idle', 'idle', 'activeTurnCheckpoint') } as const;
      const claim = await store.claimReadyQueuedWork({ ...request, ...asked });
      if (claim !== null) claims.push({ ...claim, asked });
      else if (asked.boundary === 'idle') return;
    }
  };
  await Promise.all(handles.map(drain));
  const waiting = [...batches];
  for (const { asked, batches: got } of claims.sort((a, b) => a.fencingToken - b.fencingToken)) {
    const head = waiting[0]!;
    expect(asked.boundary === 'idle' || head.deliveryPolicy === 'earliestSafeBoundary').toBe(true);
    const kin = (batch: (typeof batches)[0]): boolean =>
      [batch, head].every((each) => each.slotPolicy === 'join' && each.mergeKey !== 'never') &&
      JSON.stringify([batch.mergeKey, batch.deliveryPolicy]) === JSON.stringify([head.mergeKey, head.deliveryPolicy]);
    let count = 1;
    while (count < asked.maxBatches && count < waiting.length && kin(waiting[count]!)) count++;
    expect(got).toEqual(waiting.splice(0, count));
  }
  expect(waiting).toEqual([]);
});

test('commits that wait together share a transaction, and each fails alone', async () => {
  const store = await connect(randomUUID(), { gcPolicy: { autoRunEveryCommits: 7 } });
  await store.commitRuntimeState(append([node('n0')]));
  const outcomes = await Promise.allSettled(
    Array.from({ length: 70 }, (_, n) => {
      const [own, more] = [node(`n${n + 1}`, 'n0'), { checkpoint: { turnState: n, toolState: { n } } }];
      if (n % 10 === 3) return store.commitRuntimeState(append([own, node('n0')], more));
      if (n % 10 === 5) return store.commitRuntimeState(append([own], { ...more, retainedBlobRefs: ['blake3:none'] }));
      if (n % 10 === 6) return store.commitRuntimeState(append([own], { ...more, expectedHeadRevision: 0 }));
      if (n % 10 === 8) return store.commitRuntimeState(append([node('n0')], { ...more, retainedBlobRefs: ['blake3:none'] }));
      return store.commitRuntimeState(append([own], { ...more, turnCommit: { sessionId: 'root', turnId: `t${n}` } }));
    }),
  );
  let revision = 1;
  const names: Record<number, string> = { 3: 'NodeIdCollisionError', 5: 'MissingBlobError', 6: 'HeadRevisionConflictError', 8: 'NodeIdCollisionError' };
  for (const [n, outcome] of outcomes.entries()) {
    if (outcome.status === 'fulfilled') expect([n, names[n % 10], outcome.value.headRevision]).toEqual([n, undefined, ++revision]);
    else expect([n, (outcome.reason as Error).name]).toEqual([n, names[n % 10]]);
  }
  expect(revision).toBe(43);
  expect(await ids(store, { scope: 'fullGraph' })).toEqual(['n0', ...outcomes.flatMap((outcome, n) => (outcome.status === 'fulfilled' ? [`n${n + 1}`] : []))]);
  expect(await store.verify({ deep: true })).toEqual([]);
  expect((await store.stats()).headRevision).toBe(43);
});

test('calls of one handle take effect in their order, whatever they are', async () => {
  const store = await connect();
  const [first, , claim, , renewed, second] = await Promise.all([
    store.enqueueQueuedWork(draft({ sourceKey: 'k' })),
    store.commitRuntimeState(append([node('a')])),
    store.claimReadyQueuedWork({ ...request, leaseTtlMs: 0 }),
    store.recordIntent({ attachmentId: 'x', sessionId: 'root', canonicalUri: 'u', intentAtEpochMs: 1 }),
    store.claimReadyQueuedWork({ ...request, ownerId: 'p' }),
    store.enqueueQueuedWork(draft({ sourceKey: 'k', payloads: ['other'] })),
    store.commitRuntimeState(append([node('b', 'a')], { expectedHeadRevision: 1, committedAttachmentIds: ['x'] })),
  ]);
  expect([claim?.batches[0]?.batchId, renewed?.batches[0]?.batchId]).toEqual([first.batchId, first.batchId]);
  expect(renewed!.fencingToken).toBeGreaterThan(claim!.fencingToken);
  expect(second).toEqual(first);
  expect(await failure(store.renewQueuedWorkClaim(claim!, 1))).toMatchObject({ name: 'QueuedWorkClaimExpiredError' });
  expect(await store.listUncommitted(9)).toEqual([]);
});

test('a damaged batch stops nobody, is named, and can be cancelled', async () => {
  const { url, schema } = await freshSchema();
  const store = await SessionGraphStore.connect({ connectionString: url, schema, sessionId: 's' });
  const batches = await Promise.all(Array.from({ length: 6 }, (_, n) => store.enqueueQueuedWork(draft({ payloads: [n], mergeKey: 'payloadDefault' }))));
  const damage = (set: string, n: number): Promise<unknown> => query(`UPDATE ${schema}.${set} WHERE batch_id = '${batches[n]!.batchId}'`);
  await damage("all_queued_work_items SET payload_json = '{'", 0);
  await damage("all_queued_work_batches SET delivery_policy = 'after_current_turn_commit'", 0);
  await damage('all_queued_work_items SET item_index = 4', 2);
  await damage("all_queued_work_batches SET merge_key_json = 'x'", 4);
  // Neither does one at the head, nor one that would end the run, nor one between those that are asked for by name.
  expect((await store.claimReadyQueuedWork({ ...request, boundary: 'activeTurnCheckpoint', leaseTtlMs: 0 }))?.batches).toHaveLength(3);
  const byIds = await store.claimReadyQueuedWorkByBatchIds({ ...request, leaseTtlMs: 0, batchIds: [batches[1]!.batchId, batches[3]!.batchId] });
  expect(byIds?.batches).toEqual([batches[1], batches[3]]);
  const claim = (await store.claimReadyQueuedWork(request))!;
  expect(claim.batches).toEqual([batches[1], batches[3], batches[5]]);
  expect(await store.claimReadyQueuedWork(request)).toBeNull();
  expect(await failure(store.listQueuedWork('root'))).toMatchObject({ name: 'QueueRowCorruptError', batchId: batches[0]!.batchId });
  for (const n of [0, 2, 4]) expect(await store.cancelQueuedWorkBatch('root', batches[n]!.batchId)).toMatchObject({ items: [], batchId: batches[n]!.batchId });
  await store.renewQueuedWorkClaim(claim, 1000);
  await store.commitRuntimeState(commit({ completedQueueClaims: [completionOf(claim)] }));
  expect(await store.listQueuedWork('root')).toEqual([]);
  // Nobody keeps the turn to choose.
  const key = "((classid::bigint << 32) | objid::bigint) = hashtextextended($1 || ' session graph claims', 1)";
  expect(await query(`SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND ${key}`, [schema])).toEqual([]);
  await store.close();
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

test('a key whose end is remembered is enqueued once, however many ask for it while it is claimed, completed and cancelled', async () => {
  const id = randomUUID();
  const options = { poolSize: 6 };
  const [worker, canceller, ...askers] = await Promise.all(Array.from({ length: 5 }, () => connect(id, options)));
  const keys = Array.from({ length: 12 }, (_, n) => `k${n}`);
  // What others leave behind is over at once: all clear it away together.
  const brief = { dedupe: { retainMs: 0 }, availableAtMs: Date.now() + 3_600_000 };
  const seen = new Map<string, Set<string>>(keys.map((key) => [key, new Set()]));
  const ended = new Set<string>();
  const deadline = Date.now() + 4000;
  const goesOn = (): boolean => ended.size < keys.length && Date.now() < deadline;
  const asking = askers.map(async (store) => {
    while (goesOn()) {
      for (const sourceKey of keys) {
        const batch = await store.enqueueQueuedWork(draft({ sourceKey, dedupe: { retainMs: 3_600_000 } }));
        seen.get(sourceKey)!.add(batch.batchId);
        if (batch.finished !== undefined) ended.add(sourceKey);
      }
      const { batchId } = await store.enqueueQueuedWork(draft(brief));
      expect(await store.cancelQueuedWork('root', batchId)).toMatchObject({ outcome: 'cancelled' });
    }
  });
  const working = (async () => {
    while (goesOn()) {
      const claim = await worker!.claimReadyQueuedWork({ ...request, maxBatches: 1 });
      if (claim !== null) await worker!.commitRuntimeState(commit({ completedQueueClaims: [completionOf(claim)] }));
    }
  })();
  const cancelling = (async () => {
    while (goesOn()) {
      const last = (await canceller!.listPendingQueuedWork('root')).filter((batch) => batch.sourceKey !== null).at(-1);
      if (last !== undefined) await canceller!.cancelQueuedWork('root', last.batchId);
    }
  })();
  await Promise.all([...asking, working, cancelling]);
  expect(keys.map((key) => [ended.has(key), seen.get(key)!.size])).toEqual(keys.map(() => [true, 1]));
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
