// @pool forks: it waits long, for stores and not for threads of JavaScript.
// What is kept of the change log, for whom, and what who comes too late is told (check 38); and what is left of a session that is removed
// (check 39).
import { ChangeLogTruncatedError } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, rejection, until, world } from './support';

/** Two events each: `count` in all. */
async function makeEvents(store: Awaited<ReturnType<typeof world>>['store'], count: number): Promise<void> {
  for (let made = 0; made < count; ) {
    const few = Math.min(500, (count - made) / 2);
    const records = await Promise.all(Array.from({ length: few }, () => store.createSession({ projectId: 'mer' })));
    await Promise.all(records.map((record) => store.updateSession({ ...record, lifecycle: { ...record.lifecycle, isAlive: true } })));
    made += few * 2;
  }
}

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('38: the oldest go, but none that a consumer has not confirmed', async () => {
    const place = await make();
    const { store, clock } = await world(place);
    const slow = store.consumer('slow');
    expect(await slow.read(10)).toEqual([]);
    await makeEvents(store, 3000);
    expect(await store.maxChangeLogSeq()).toBe(3000);
    expect((await slow.read(200)).map(({ seq }) => seq)).toEqual(Array.from({ length: 200 }, (_, at) => at + 1));
    await slow.ack(200);

    // To the consumer's place, and not further.
    expect(await store.pruneChangeLog({ maxRows: 2000 })).toBe(200);
    expect(await store.oldestChangeLogSeq()).toBe(201);
    expect(await store.pruneChangeLog({ maxRows: 2000 })).toBe(0);
    expect((await slow.read(1))[0]!.seq).toBe(201);
    await slow.ack(1500);
    expect(await store.pruneChangeLog({ maxRows: 2000 })).toBe(800);
    expect([await store.oldestChangeLogSeq(), await store.maxChangeLogSeq()]).toEqual([1001, 3000]);
    expect(await store.readChangeLogAfter(1000, 5000)).toHaveLength(2000);

    // Who is behind that is told, with both ends of the gap.
    const error = await rejection(store.readChangeLogAfter(999, 10));
    expect(error).toBeInstanceOf(ChangeLogTruncatedError);
    expect(error).toMatchObject({ hfCode: 'HF_LIFECYCLE_CHANGE_LOG_TRUNCATED', after: 999, oldestSeq: 1001 });
    expect((await rejection(store.readChangeLogAfterForProject('mer', 1))).hfCode).toBe('HF_LIFECYCLE_CHANGE_LOG_TRUNCATED');
    expect((await rejection(store.changes({ after: 5 }).next())).hfCode).toBe('HF_LIFECYCLE_CHANGE_LOG_TRUNCATED');
    expect((await store.readChangeLogAfter(0, 1))[0]!.seq).toBe(1001);

    // By age, with the clock of the store; all of it, and the head stays.
    await slow.ack(3000);
    clock.add(1000);
    expect(await store.pruneChangeLog({ maxAgeMs: 2000 })).toBe(0);
    expect(await store.pruneChangeLog({ maxAgeMs: 500 })).toBe(2000);
    expect([await store.oldestChangeLogSeq(), await store.maxChangeLogSeq()]).toEqual([0, 3000]);
    await store.createSession({ projectId: 'mer' });
    expect((await store.readChangeLogAfter(3000)).map(({ seq }) => seq)).toEqual([3001]);
    await store.close();
    const again = await place.open({ clock: clock.read });
    expect([await again.maxChangeLogSeq(), await again.consumer('slow').offset()]).toEqual([3001, 3000]);
    expect((await again.consumer('slow').read()).map(({ seq }) => seq)).toEqual([3001]);
  });

  test('38: with a hard limit a consumer loses what it was too slow for, and is told', async () => {
    const { store } = await world(await make());
    const slow = store.consumer('slow');
    await slow.read();
    await makeEvents(store, 100);
    await slow.ack(10);
    expect(await store.pruneChangeLog({ maxRows: 20, hard: true })).toBe(80);
    const error = await rejection(slow.read());
    expect(error).toMatchObject({ hfCode: 'HF_LIFECYCLE_CHANGE_LOG_TRUNCATED', after: 10, oldestSeq: 81 });
    expect(await slow.offset()).toBe(10);
    await slow.ack(80);
    expect((await slow.read(1))[0]!.seq).toBe(81);
    // A consumer that is gone keeps nothing.
    await slow.delete();
    expect(await store.pruneChangeLog({ maxRows: 5 })).toBe(15);
  });

  test('38: limits that were given when opening hold without anybody asking', async () => {
    const place = await make();
    const { store } = await world({ open: (options) => place.open({ ...options, retention: { maxRows: 300 } }) });
    await makeEvents(store, 2400);
    await until(async () => (await store.oldestChangeLogSeq()) > 1000, 10_000);
    const [oldest, head] = [await store.oldestChangeLogSeq(), await store.maxChangeLogSeq()];
    expect(head).toBe(2400);
    expect(head - oldest).toBeGreaterThanOrEqual(299);
  });

  test('38: acknowledging never goes back, nor beyond the head; many at once end at the highest', async () => {
    const { store } = await world(await make());
    const consumer = store.consumer('c');
    await makeEvents(store, 100);
    await Promise.all(Array.from({ length: 100 }, (_, at) => consumer.ack(((at * 37) % 100) + 1)));
    expect(await consumer.offset()).toBe(100);
    await consumer.ack(3);
    expect(await consumer.offset()).toBe(100);
    expect((await rejection(consumer.ack(101))).hfCode).toBe('HF_INVALID_ARGUMENT');
    for (const bad of [-1, 1.5, NaN, Infinity, '5' as never]) expect((await rejection(consumer.ack(bad))).hfCode, String(bad)).toBe('HF_INVALID_ARGUMENT');
    expect(await consumer.read()).toEqual([]);
  });

  test('39: a session that is removed takes everything along but its events', async () => {
    const { store, sessions, lifecycle } = await world(await make());
    await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    const url = 'https://x/2';
    await lifecycle.applyPrObservation('mer-2', {
      fetched: true,
      url,
      number: 2,
      ci: 'failing',
      checks: [{ name: 'unit', commitHash: 'c', status: 'failed' }],
      comments: [{ commentId: '1', body: 'no' }],
    });
    const before = await store.readChangeLogAfter(0);
    expect(await store.deleteSession('mer-2')).toBe(true);
    expect(await store.deleteSession('mer-2')).toBe(false);
    expect(await store.getSession('mer-2')).toBeNull();
    expect([await store.getPr(url), await store.listChecks(url), await store.listPrComments(url)]).toEqual([null, [], []]);
    expect(await store.listPrsBySession('mer-2')).toEqual([]);
    const after = await store.readChangeLogAfter(0);
    expect(after.slice(0, -1)).toEqual(before);
    expect(after.at(-1)).toMatchObject({ type: 'session_deleted', projectId: 'mer', sessionId: 'mer-2', payload: { id: 'mer-2' } });
    expect((await sessions.spawn({ projectId: 'mer' })).id).toBe('mer-3');
    expect(await store.check()).toEqual({ sound: true, problems: [] });
  });

  test('39: a session that is removed while it is spawned, killed and observed', async () => {
    const { store, sessions, lifecycle, fail } = await world(await make());
    fail['runtime.create'] = async () => {
      await store.deleteSession('mer-1');
      return { id: 'h', runtimeName: 'tmux' };
    };
    expect((await rejection(sessions.spawn({ projectId: 'mer' }))).message).toMatch(/^spawn mer-1: completed: /);
    delete fail['runtime.create'];
    await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    fail['runtime.destroy'] = () => store.deleteSession('mer-2');
    // What there was is torn down all the same.
    expect(await sessions.kill('mer-2').catch((error) => error.hfCode)).toSatisfy((outcome) => outcome === true || typeof outcome === 'string');
    await lifecycle.applyActivitySignal('mer-2', { valid: true, state: 'active' });
    expect(await store.listAllSessions()).toEqual([]);
    expect(await sessions.kill('mer-2')).toBe(false);
  });
});
