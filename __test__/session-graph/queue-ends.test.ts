/** How queued work ends: attempts, dead letters, remembered ends, cancelling with reasons. */
import { completionOf, type QueuedWorkClaim, type SessionGraphStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { KINDS, commit, draft, failure, newFile, open, raw } from './support';

const claim = (store: SessionGraphStore, leaseTtlMs = 60_000, maxBatches = 10): Promise<QueuedWorkClaim | null> =>
  store.claimReadyQueuedWork({ sessionId: 'root', ownerId: 'a', leaseTtlMs, boundary: 'idle', maxBatches });
const complete = async (store: SessionGraphStore): Promise<unknown> =>
  store.commitRuntimeState(commit({ completedQueueClaims: [completionOf((await claim(store))!)] }));
const hour = 3_600_000;

describe.each(KINDS)('in a $name', ({ make }) => {
  test('a batch that crashes its workers becomes a dead letter, and those behind it go on', async () => {
    const store = await make();
    const poison = await store.enqueueQueuedWork(draft({ maxAttempts: 2, sourceKey: 'k', payloads: ['poison'] }));
    expect(poison).toMatchObject({ maxAttempts: 2, attempts: 0 });
    const next = await store.enqueueQueuedWork(draft({ payloads: ['fine'] }));
    expect((await claim(store, 0))!.batches).toEqual([{ ...poison, attempts: 1 }]);
    expect(await store.listDeadLetters('root')).toEqual([]);
    const last = (await claim(store, 0))!;
    expect(last.batches).toEqual([{ ...poison, attempts: 2 }]);
    const [letter] = await store.listDeadLetters('root');
    expect(letter).toEqual({ batch: { ...poison, attempts: 2 }, ownerId: 'a', claimedAtEpochMs: last.claimedAtEpochMs });
    expect((await claim(store))!.batches).toEqual([next]);
    expect(await claim(store)).toBeNull();
    expect((await store.listQueuedWork('root')).map((batch) => batch.batchId)).toEqual([poison.batchId, next.batchId]);
    expect(await store.listPendingQueuedWork('root')).toEqual([]);
    expect((await store.enqueueQueuedWork(draft({ sourceKey: 'k' }))).batchId).toBe(poison.batchId);
    expect(await store.queuedWorkState('root', poison.batchId)).toEqual({ state: 'dead', attempts: 2 });
  });

  test('while its last claim is live it is none; whoever holds it may still complete it when the lease has lapsed', async () => {
    const store = await make();
    const { batchId } = await store.enqueueQueuedWork(draft({ maxAttempts: 1 }));
    const mine = (await claim(store))!;
    expect(await store.listDeadLetters('root')).toEqual([]);
    expect(await store.requeueDeadLetter('root', batchId)).toBeNull();
    expect(await store.queuedWorkState('root', batchId)).toMatchObject({ state: 'claimed', attempts: 1, ownerId: 'a' });
    await store.renewQueuedWorkClaim(mine, 0);
    expect(await store.listDeadLetters('root')).toHaveLength(1);
    await store.commitRuntimeState(commit({ completedQueueClaims: [completionOf(mine)] }));
    expect(await store.listQueuedWork('root')).toEqual([]);
  });

  test('a dead letter that is requeued waits at its old place, and its last owner is out', async () => {
    const store = await make();
    const dead = await store.enqueueQueuedWork(draft({ maxAttempts: 1 }));
    await store.enqueueQueuedWork(draft());
    const lapsed = (await claim(store, 0))!;
    expect(await store.requeueDeadLetter('other', dead.batchId)).toBeNull();
    expect(await store.requeueDeadLetter('root', dead.batchId, { availableAtMs: Date.now() + hour })).toMatchObject({ attempts: 0 });
    expect(await store.listDeadLetters('root')).toEqual([]);
    expect(await failure(store.renewQueuedWorkClaim(lapsed, 1000))).toMatchObject({ name: 'QueuedWorkClaimExpiredError' });
    expect((await claim(store, 0))!.batches[0]!.batchId).not.toBe(dead.batchId);
    expect(await store.requeueDeadLetter('root', dead.batchId)).toBeNull();
    const again = await store.enqueueQueuedWork(draft({ maxAttempts: 1 }));
    await claim(store, hour);
    await claim(store, 0);
    expect(await store.requeueDeadLetter('root', again.batchId)).toEqual(again);
    expect((await claim(store))!.batches).toEqual([{ ...again, attempts: 1 }]);
  });

  test('a claim that is given back counts, unless its owner says that it was no attempt', async () => {
    const store = await make();
    const batch = await store.enqueueQueuedWork(draft({ maxAttempts: 2 }));
    for (let n = 0; n < 3; n++) await store.abandonQueuedWorkClaim((await claim(store))!, { uncounted: true });
    expect(await store.queuedWorkState('root', batch.batchId)).toEqual({ state: 'waiting', attempts: 0, availableAtMs: 0 });
    for (let n = 0; n < 2; n++) await store.abandonQueuedWorkClaim((await claim(store))!);
    expect(await claim(store)).toBeNull();
    expect(await store.listDeadLetters('root')).toEqual([{ batch: { ...batch, attempts: 2 }, ownerId: null, claimedAtEpochMs: null }]);
    expect(await store.cancelQueuedWorkBatch('root', batch.batchId)).toMatchObject({ batchId: batch.batchId });
    expect(await store.listDeadLetters('root')).toEqual([]);
  });

  test('options of the store hold for drafts that say nothing else', async () => {
    const store = await make({ queue: { maxAttempts: 1, retainFinishedMs: hour } });
    const [limited, free] = [await store.enqueueQueuedWork(draft()), await store.enqueueQueuedWork(draft({ maxAttempts: null, dedupe: null }))];
    expect([limited.maxAttempts, free.maxAttempts, 'attempts' in free]).toEqual([1, undefined, false]);
    for (let n = 0; n < 3; n++) await claim(store, 0);
    expect(await store.listDeadLetters('root')).toHaveLength(1);
    expect(await store.queuedWorkState('root', free.batchId)).toMatchObject({ state: 'waiting', attempts: 2 });
    await store.cancelQueuedWorkBatch('root', limited.batchId);
    await store.cancelQueuedWorkBatch('root', free.batchId);
    expect(await store.queuedWorkState('root', limited.batchId)).toMatchObject({ state: 'cancelled', attempts: 1 });
    expect(await store.queuedWorkState('root', free.batchId)).toEqual({ state: 'notFound' });
  });

  test('a late duplicate of what was done is not enqueued again', async () => {
    const store = await make();
    const key = { sourceKey: 'k', dedupe: { retainMs: hour } };
    const first = await store.enqueueQueuedWork(draft({ ...key, payloads: [1] }));
    await complete(store);
    const late = await store.enqueueQueuedWork(draft({ ...key, payloads: [2] }));
    expect(late).toEqual({ ...first, items: [], finished: { outcome: 'completed', atEpochMs: late.finished!.atEpochMs } });
    expect(await claim(store)).toBeNull();
    const { state, ...rest } = await store.queuedWorkState('root', first.batchId);
    expect([state, rest]).toEqual([
      'completed',
      { attempts: 1, finishedAtEpochMs: late.finished!.atEpochMs, rememberedUntilEpochMs: late.finished!.atEpochMs + hour },
    ]);
    const other = await store.enqueueQueuedWork(draft({ ...key, sessionId: 'other' }));
    expect(other.finished).toBeUndefined();
    // Who does not ask is not told: so the same work can be done again on purpose.
    const again = await store.enqueueQueuedWork(draft({ sourceKey: 'k' }));
    expect([again.finished, again.batchId === first.batchId]).toEqual([undefined, false]);
  });

  test('what is remembered is forgotten in time, and cleared away by those that come after it', async () => {
    const store = await make();
    const key = (n: number) => ({ sourceKey: `k${n}`, dedupe: { retainMs: 0 } });
    const batches = [];
    for (let n = 0; n < 5; n++) batches.push(await store.enqueueQueuedWork(draft(key(n))));
    for (let n = 0; n < 5; n++) await complete(store);
    expect((await store.enqueueQueuedWork(draft(key(0)))).batchId).not.toBe(batches[0]!.batchId);
    expect(await store.queuedWorkState('root', batches[0]!.batchId)).toEqual({ state: 'notFound' });
    if (store.path === null) return;
    await store.close();
    const rows = raw(store.path, 'SELECT count(*) AS n FROM queued_work_finished');
    expect(rows[0]!.n).toBeLessThanOrEqual(1);
  });

  test('cancelling says why it did nothing', async () => {
    const store = await make();
    const [one, two] = [await store.enqueueQueuedWork(draft({ dedupe: { retainMs: hour } })), await store.enqueueQueuedWork(draft())];
    const mine = (await claim(store))!;
    expect(await store.cancelQueuedWork('root', one.batchId)).toEqual({ outcome: 'claimed', ownerId: 'a', expiresAtEpochMs: mine.expiresAtEpochMs });
    const cancelled = { outcome: 'cancelled', batch: two };
    expect(await store.cancelQueuedWork('root', two.batchId, { retainMs: hour })).toEqual(cancelled);
    const again = await store.cancelQueuedWork('root', two.batchId);
    expect(again).toMatchObject({ outcome: 'cancelled', batch: { batchId: two.batchId, items: [], finished: { outcome: 'cancelled' } } });
    await store.commitRuntimeState(commit({ completedQueueClaims: [completionOf(mine)] }));
    expect(await store.cancelQueuedWork('root', one.batchId)).toMatchObject({ outcome: 'completed' });
    for (const id of ['qwb:unknown', two.batchId]) {
      expect(await store.cancelQueuedWork('other', id)).toEqual({ outcome: 'notFound' });
    }
    const forgotten = await store.enqueueQueuedWork(draft());
    expect(await store.cancelQueuedWork('root', forgotten.batchId)).toEqual({ outcome: 'cancelled', batch: forgotten });
    expect(await store.cancelQueuedWork('root', forgotten.batchId)).toEqual({ outcome: 'notFound' });
  });

  test('bad arguments are refused', async () => {
    const store = await make();
    for (const bad of [{ maxAttempts: 0 }, { maxAttempts: 1.5 }, { dedupe: { retainMs: -1 } }, { dedupe: {} }, { dedupe: 5 }]) {
      expect(await failure(store.enqueueQueuedWork(draft(bad as never)))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
    }
    expect(await store.listQueuedWork('root')).toEqual([]);
  });
});

test('batches without limit and memory write and read what they did before', async () => {
  const store = await open(newFile());
  const batch = await store.enqueueQueuedWork(draft({ sourceKey: 'k' }));
  expect(Object.keys(batch).sort()).toEqual(
    'availableAtMs batchId deliveryPolicy enqueueSeq enqueuedAtMs items mergeKey sessionId slotPolicy sourceKey'.split(' '),
  );
  await complete(store);
  await store.close();
  expect(raw(store.path!, 'SELECT count(*) AS n FROM queued_work_finished')).toEqual([{ n: 0 }]);
});
