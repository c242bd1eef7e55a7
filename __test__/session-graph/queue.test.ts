/** Work that waits: who gets what, and for how long. The numbers are those of the acceptance checks. */
import { completionOf, type QueuedWorkBatchDraft, type QueuedWorkClaim, type QueuedWorkClaimRequest, type SessionGraphStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { KINDS, commit, draft, failure, newFile, open, raw } from './support';

const request: QueuedWorkClaimRequest = { sessionId: 'root', ownerId: 'a', leaseTtlMs: 60_000, boundary: 'idle' };
const claim = (store: SessionGraphStore, maxBatches = 10, more: Partial<QueuedWorkClaimRequest> = {}) =>
  store.claimReadyQueuedWork({ ...request, ...more, maxBatches });
/** Places in the queue; in PostgreSQL the numbers of all stores are one sequence, so they are counted from the first of this one. */
let first = 0;
const seqs = (claimed: QueuedWorkClaim | null) => claimed?.batches.map((batch) => batch.enqueueSeq - first + 1) ?? null;
const begin = async (store: SessionGraphStore, more?: Partial<QueuedWorkBatchDraft>) => (first = (await store.enqueueQueuedWork(draft(more))).enqueueSeq);

test('22: eight handles enqueue at once', { timeout: 30_000 }, async () => {
  const path = newFile();
  const handles = await Promise.all(Array.from({ length: 8 }, () => open(path, { durability: 'normal', busyTimeoutMs: 25_000 })));
  const batches = await Promise.all(handles.flatMap((store) => Array.from({ length: 500 }, () => store.enqueueQueuedWork(draft()))));
  expect(new Set(batches.map((batch) => batch.batchId)).size).toBe(4000);
  expect(new Set(batches.map((batch) => batch.enqueueSeq)).size).toBe(4000);
});

test('7: two handles claim one batch, 200 times', async () => {
  const path = newFile();
  const [first, second] = await Promise.all([open(path, { durability: 'normal' }), open(path, { durability: 'normal' })]);
  for (let round = 0; round < 200; round++) {
    await first.enqueueQueuedWork(draft());
    const claims = await Promise.all([claim(first, 1, { ownerId: 'a' }), claim(second, 1, { ownerId: 'b' })]);
    const winner = claims.filter((each) => each !== null);
    expect(winner).toHaveLength(1);
    const renewed = await second.renewQueuedWorkClaim(winner[0]!, 60_000);
    expect(renewed).toEqual({ ...winner[0], expiresAtEpochMs: renewed.expiresAtEpochMs });
    await first.commitRuntimeState(commit({ completedQueueClaims: [completionOf(winner[0]!)] }));
  }
});

describe.each(KINDS)('in a $name', ({ make }) => {
  test('6: what somebody holds nobody else gets', async () => {
    const store = await make();
    await begin(store, { slotPolicy: 'exclusive' });
    const mine = (await claim(store))!;
    expect(await claim(store, 10, { ownerId: 'b' })).toBeNull();
    expect(await claim(store)).toBeNull();
    expect((await store.renewQueuedWorkClaim(mine, 90_000)).expiresAtEpochMs).toBeGreaterThan(mine.expiresAtEpochMs);
    expect(mine.claimId).toBe(`qwc:${first}:${mine.fencingToken}`);
    expect(mine.leaseToken).toMatch(/^[0-9a-f]{32}$/);
  });

  test('14: only who still owns all of it completes a claim', async () => {
    const store = await make();
    for (let n = 0; n < 2; n++) await store.enqueueQueuedWork(draft({ mergeKey: 'payloadDefault' }));
    const mine = (await claim(store))!;
    const right = completionOf(mine);
    expect(right.batchIds).toHaveLength(2);
    const wrong = [
      { ...right, leaseToken: 'x' },
      { ...right, batchIds: right.batchIds.slice(1) },
      { ...right, batchIds: [...right.batchIds, 'qwb:invented'] },
      { ...right, batchIds: [right.batchIds[0]!, right.batchIds[0]!] },
      { ...right, sessionId: 'other' },
      { sessionId: 'root', claimId: 'qwc:9:9', leaseToken: 'x', batchIds: [] },
    ];
    for (const completion of wrong) {
      const turn = commit({
        completedQueueClaims: [completion],
        checkpoint: { turnState: 1, toolState: 'new' },
        turnCommit: { sessionId: 'root', turnId: 't' },
        usageDeltas: [{ source: 's', model: 'm', usage: { inputTokens: 1, outputTokens: 1, cachedInputTokens: 0, reasoningTokens: 0 } }],
      });
      expect(await failure(store.commitRuntimeState(turn))).toMatchObject({
        name: 'QueuedWorkClaimExpiredError',
        message: `queued work claim \`${completion.claimId}\` for session \`${completion.sessionId}\` is missing or expired`,
      });
    }
    expect(await store.loadSession({ scope: 'fullGraph' })).toBeNull();
    expect(await store.stats()).toMatchObject({ blobBytes: 0, queuedBatches: 2 });
    expect(await store.loadUsageDeltas()).toEqual([]);
    await store.commitRuntimeState(commit({ completedQueueClaims: [right, right] }));
    expect(await store.listQueuedWork('root')).toEqual([]);
  });

  test('15: a lapsed lease holds until somebody else claims', async () => {
    const store = await make();
    await store.enqueueQueuedWork(draft());
    const lapsed = (await claim(store, 1, { leaseTtlMs: 0 }))!;
    await store.renewQueuedWorkClaim(lapsed, 0);
    const next = (await claim(store, 1, { ownerId: 'b' }))!;
    expect(next.fencingToken).toBeGreaterThan(lapsed.fencingToken);
    expect(await failure(store.renewQueuedWorkClaim(lapsed, 1000))).toMatchObject({ name: 'QueuedWorkClaimExpiredError' });
    const late = commit({ completedQueueClaims: [completionOf(lapsed)] });
    expect(await failure(store.commitRuntimeState(late))).toMatchObject({ name: 'QueuedWorkClaimExpiredError' });
    await store.commitRuntimeState(commit({ completedQueueClaims: [completionOf(next)] }));
  });

  test('16: the head of the line decides', async () => {
    const store = await make();
    await begin(store, { deliveryPolicy: 'afterCurrentTurnCommit' });
    await store.enqueueQueuedWork(draft());
    expect(await claim(store, 10, { boundary: 'activeTurnCheckpoint' })).toBeNull();
    expect(seqs(await claim(store))).toEqual([1]);
    expect(seqs(await claim(store, 10, { boundary: 'activeTurnCheckpoint' }))).toEqual([2]);
  });

  test('17: what goes together', async () => {
    const store = await make();
    const [a, b] = [{ group: 'a' }, { group: 'b' }];
    await begin(store, { mergeKey: a });
    for (const mergeKey of [a, b]) await store.enqueueQueuedWork(draft({ mergeKey }));
    await store.enqueueQueuedWork(draft({ mergeKey: a, deliveryPolicy: 'afterCurrentTurnCommit' }));
    expect([seqs(await claim(store)), seqs(await claim(store)), seqs(await claim(store)), await claim(store)]).toEqual([[1, 2], [3], [4], null]);
    for (let n = 0; n < 3; n++) await store.enqueueQueuedWork(draft({ mergeKey: a }));
    expect([seqs(await claim(store, 2)), seqs(await claim(store, 2))]).toEqual([[5, 6], [7]]);
    await store.enqueueQueuedWork(draft({ mergeKey: 'payloadDefault' }));
    await store.enqueueQueuedWork(draft({ mergeKey: 'payloadDefault', availableAtMs: Date.now() + 600_000 }));
    await store.enqueueQueuedWork(draft({ mergeKey: 'payloadDefault', availableAtMs: Date.now() - 1 }));
    expect(seqs(await claim(store))).toEqual([8, 10]);
    expect(await claim(store, 0)).toBeNull();
  });

  test('17: more than a page goes together', async () => {
    const store = await make();
    await Promise.all(Array.from({ length: 40 }, () => store.enqueueQueuedWork(draft({ mergeKey: 'payloadDefault', payloads: [] }))));
    expect((await claim(store, 39))?.batches).toHaveLength(39);
    expect((await claim(store, 39))?.batches).toHaveLength(1);
  });

  test('18: never joins nothing', async () => {
    const store = await make();
    await begin(store);
    for (let n = 0; n < 2; n++) await store.enqueueQueuedWork(draft());
    expect([seqs(await claim(store)), seqs(await claim(store)), seqs(await claim(store))]).toEqual([[1], [2], [3]]);
  });

  test('19: by ids, exactly what is next', async () => {
    const store = await make();
    const one = await store.enqueueQueuedWork(draft({ slotPolicy: 'exclusive' }));
    first = one.enqueueSeq;
    const two = await store.enqueueQueuedWork(draft({ slotPolicy: 'exclusive' }));
    const byIds = (batchIds: string[]) => store.claimReadyQueuedWorkByBatchIds({ ...request, batchIds });
    const before = (await byIds([one.batchId]))!;
    await store.abandonQueuedWorkClaim(before);
    expect(await byIds([two.batchId])).toBeNull();
    expect(await byIds([])).toBeNull();
    expect(await byIds([one.batchId, two.batchId])).toBeNull();
    expect(await store.listPendingQueuedWork('root')).toEqual([one, two]);
    const mine = (await byIds([one.batchId]))!;
    expect([seqs(mine), mine.fencingToken]).toEqual([[1], before.fencingToken + 1]);
  });

  test('20: a source key is one batch until it is done', async () => {
    const store = await make();
    const first = await store.enqueueQueuedWork(draft({ sourceKey: 'k', payloads: ['a', 'b'] }));
    expect(first.items).toEqual([
      { itemId: `${first.batchId}:item:0`, payload: 'a' },
      { itemId: `${first.batchId}:item:1`, payload: 'b' },
    ]);
    expect(await store.enqueueQueuedWork(draft({ sourceKey: 'k', payloads: ['c'] }))).toEqual(first);
    const mine = (await claim(store))!;
    expect(await store.enqueueQueuedWork(draft({ sourceKey: 'k' }))).toEqual(first);
    await store.commitRuntimeState(commit({ completedQueueClaims: [completionOf(mine)] }));
    const next = await store.enqueueQueuedWork(draft({ sourceKey: 'k' }));
    expect(next.enqueueSeq).toBeGreaterThan(first.enqueueSeq);
  });

  test('21: cancel, abandon, lists', async () => {
    const store = await make();
    const batch = await store.enqueueQueuedWork(draft());
    const mine = (await claim(store))!;
    expect(await store.cancelQueuedWorkBatch('root', batch.batchId)).toBeNull();
    expect(await store.listPendingQueuedWork('root')).toEqual([]);
    expect(await store.listQueuedWork('root')).toEqual([batch]);
    await store.abandonQueuedWorkClaim(mine);
    await store.abandonQueuedWorkClaim(mine);
    expect(await failure(store.renewQueuedWorkClaim(mine, 1))).toMatchObject({ name: 'QueuedWorkClaimExpiredError' });
    expect(await store.cancelQueuedWorkBatch('other', batch.batchId)).toBeNull();
    expect(await store.cancelQueuedWorkBatch('root', batch.batchId)).toEqual(batch);
    expect(await store.listQueuedWork('root')).toEqual([]);
    if (store.path === null) return;
    await store.close();
    expect(raw(store.path, 'SELECT count(*) AS n FROM queued_work_items')).toEqual([{ n: 0 }]);
  });
});

test('a damaged batch stops nobody, is named, and can be cancelled', async () => {
  const path = newFile();
  const before = await open(path);
  const bad = await before.enqueueQueuedWork(draft());
  const lost = await before.enqueueQueuedWork(draft({ payloads: [1, 2] }));
  const good = await before.enqueueQueuedWork(draft());
  first = 1;
  await before.close();
  raw(path, `UPDATE queued_work_items SET payload_json = '{' WHERE batch_id = '${bad.batchId}'`);
  raw(path, `DELETE FROM queued_work_items WHERE batch_id = '${lost.batchId}' AND item_index = 0`);
  const store = await open(path);
  expect(seqs(await claim(store))).toEqual([good.enqueueSeq]);
  expect(await failure(store.listQueuedWork('root'))).toMatchObject({ name: 'QueueRowCorruptError', batchId: bad.batchId });
  expect((await store.verify()).map(({ kind, key }) => [kind, key])).toEqual([
    ['queue', bad.batchId],
    ['queue', lost.batchId],
  ]);
  for (const { batchId } of [bad, lost]) {
    expect(await store.cancelQueuedWorkBatch('root', batchId)).toMatchObject({ batchId, items: [] });
  }
  expect(await store.listQueuedWork('root')).toHaveLength(1);
});
