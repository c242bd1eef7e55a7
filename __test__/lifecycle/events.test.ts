// The change log: what is told, what is silent, and how it is followed (checks 28 and 31, R17, R62, R64, F3).
import { setTimeout as sleep } from 'node:timers/promises';
import { ChangeLogTruncatedError, InvalidArgumentError, type ChangeEvent } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, rejection, typesOf, world } from './support';

const URL = 'https://x/pull/1';

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('28: a check that is polled again is one row; its status tells twice, with the time of each', async () => {
    const { store, clock } = await world(await make());
    await store.createSession({ projectId: 'mer' });
    await store.upsertPr({ url: URL, sessionId: 'mer-1' });
    const begun = await store.maxChangeLogSeq();
    const first = clock.read();
    for (const status of ['in_progress', 'failed', 'failed'] as const) {
      await store.recordCheck({ prUrl: URL, name: 'build', commitHash: 'c1', status, logTail: status });
      clock.add(1000);
    }
    expect(await store.listChecks(URL)).toEqual([{ prUrl: URL, name: 'build', commitHash: 'c1', status: 'failed', url: '', logTail: 'failed', createdAt: first }]);
    const events = await store.readChangeLogAfter(begun);
    expect(events.map(({ type, payload }) => [type, payload])).toEqual([
      ['pr_check_recorded', { pr: URL, name: 'build', commit: 'c1', status: 'in_progress' }],
      ['pr_check_recorded', { pr: URL, name: 'build', commit: 'c1', status: 'failed' }],
    ]);
    expect(events[1]!.createdAt.getTime()).toBe(first.getTime() + 1000);
    expect(events.every(({ sessionId, projectId }) => sessionId === 'mer-1' && projectId === 'mer')).toBe(true);
  });

  test('31: metadata, a quarantine that goes on and a newer activity are silent', async () => {
    const { store, lifecycle, clock } = await world(await make());
    const { id } = await store.createSession({ projectId: 'mer', lifecycle: { state: 'working', isAlive: true } });
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'active' });
    await lifecycle.applyRuntimeObservation(id, { runtime: 'failed', process: 'failed' });
    const before = await store.maxChangeLogSeq();
    const { revision } = (await store.getSession(id))!;
    await store.patchSessionMetadata(id, { branch: 'other', prompt: '' });
    clock.add(1000);
    await lifecycle.applyRuntimeObservation(id, { runtime: 'failed', process: 'failed' });
    const after = (await store.getSession(id))!;
    expect(after.lifecycle.detecting!.attempts).toBe(2);
    expect(after.metadata.branch).toBe('other');
    expect(after.revision).toBe(revision + 2);
    expect(await store.maxChangeLogSeq()).toBe(before);
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'active' });
    const moved = await store.maxChangeLogSeq();
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'active', timestamp: clock.add(1000) });
    expect((await store.getSession(id))!.lifecycle.activity.lastActivityAt).toEqual(clock.read());
    expect(await store.maxChangeLogSeq()).toBe(moved);
  });

  test('reads by seq and project; bad seqs and limits are refused', async () => {
    const { store } = await world(await make());
    await store.upsertProject({ id: 'two', path: '/two' });
    for (const projectId of ['mer', 'two', 'mer']) await store.createSession({ projectId });
    const all = await store.readChangeLogAfter(0);
    expect(all.map(({ sessionId }) => sessionId)).toEqual(['mer-1', 'two-1', 'mer-2']);
    expect(all[0]).toEqual({
      seq: all[0]!.seq,
      projectId: 'mer',
      sessionId: 'mer-1',
      type: 'session_created',
      payload: { id: 'mer-1', state: 'not_started', terminationReason: '', isAlive: 0, activity: 'idle' },
      createdAt: expect.any(Date),
    });
    expect(await store.readChangeLogAfter(all[0]!.seq, 1)).toEqual([all[1]]);
    expect(await store.readChangeLogAfter(0, 0)).toEqual([]);
    expect(await store.readChangeLogAfterForProject('two', 0)).toEqual([all[1]]);
    for (const [after, limit] of [[-1, 1], [0, -1], [0.5, 1], ['0' as never, 1], [0, NaN]] as [number, number][]) {
      expect(await rejection(store.readChangeLogAfter(after, limit))).toBeInstanceOf(InvalidArgumentError);
    }
  });

  test('a named consumer goes on where it stopped, across restarts', async () => {
    const place = await make();
    const first = await world(place);
    for (let i = 0; i < 3; i++) await first.store.createSession({ projectId: 'mer' });
    const consumer = first.store.consumer('dashboard');
    expect(await consumer.offset()).toBe(0);
    const [one, two] = await consumer.read(2);
    await consumer.ack(two!.seq);
    await consumer.ack(one!.seq);
    expect(await consumer.offset()).toBe(two!.seq);
    await first.store.close();
    const second = await world(place);
    const again = second.store.consumer('dashboard');
    expect((await again.read()).map(({ sessionId }) => sessionId)).toEqual(['mer-3']);
    expect((await second.store.stats()).consumers).toMatchObject([{ name: 'dashboard', ackedSeq: two!.seq, lag: 1 }]);
    // What it has not confirmed is not pruned, unless that is asked for.
    expect(await second.store.pruneChangeLog({ maxRows: 0 })).toBe(2);
    expect(await second.store.pruneChangeLog({ maxRows: 0, hard: true })).toBe(1);
    const error = await rejection(again.read());
    expect(error).toBeInstanceOf(ChangeLogTruncatedError);
    expect(error).toMatchObject({ hfCode: 'HF_LIFECYCLE_CHANGE_LOG_TRUNCATED', after: two!.seq });
    await again.delete();
    expect(await again.offset()).toBe(0);
  });

  describe('changes()', () => {
    test('brings what is there, then what comes, without gap or duplicate', async () => {
      const { store } = await world(await make());
      for (let i = 0; i < 20; i++) await store.createSession({ projectId: 'mer' });
      const changes = store.changes();
      const seen: ChangeEvent[] = [];
      const reading = (async () => {
        for await (const event of changes) {
          seen.push(event);
          if (seen.length === 120) break;
        }
      })();
      await Promise.all(Array.from({ length: 100 }, () => store.createSession({ projectId: 'mer' })));
      await reading;
      const seqs = seen.map(({ seq }) => seq);
      expect(new Set(seqs).size).toBe(120);
      expect(seqs).toEqual([...seqs].sort((a, b) => a - b));
      expect(new Set(seen.map(({ sessionId }) => sessionId)).size).toBe(120);
      expect(changes.lastSeq).toBe(seqs.at(-1));
    });

    test('begins after a seq, and stays within its project', async () => {
      const { store } = await world(await make());
      await store.upsertProject({ id: 'two', path: '/two' });
      await store.createSession({ projectId: 'two' });
      const after = await store.maxChangeLogSeq();
      const changes = store.changes({ after, projectId: 'two' });
      const next = changes.next();
      for (let i = 0; i < 3; i++) await store.createSession({ projectId: 'mer' });
      await store.createSession({ projectId: 'two' });
      expect((await next).value).toMatchObject({ sessionId: 'two-2', type: 'session_created' });
      await changes.return();
    });

    test('a follower of one project is not cut off by what was pruned of others', async () => {
      const { store } = await world(await make());
      await store.upsertProject({ id: 'two', path: '/two' });
      await store.createSession({ projectId: 'two' });
      const changes = store.changes({ projectId: 'two' });
      await changes.next();
      const next = changes.next();
      for (let i = 0; i < 5; i++) {
        await store.createSession({ projectId: 'mer' });
        await sleep(20);
      }
      await store.pruneChangeLog({ maxRows: 0 });
      await store.createSession({ projectId: 'two' });
      expect((await next).value).toMatchObject({ sessionId: 'two-2' });
      await changes.return();
    });

    test('hears of another store over the same database', async () => {
      const place = await make();
      const [reader, writer] = [await world(place), await world(place)];
      const changes = reader.store.changes({ after: await reader.store.maxChangeLogSeq() });
      const next = changes.next();
      await sleep(20);
      await writer.store.createSession({ projectId: 'mer' });
      const begun = performance.now();
      expect((await next).value).toMatchObject({ sessionId: 'mer-1' });
      expect(performance.now() - begun).toBeLessThan(150);
      await changes.return();
    });

    test('what was pruned is an error, not a gap', async () => {
      const { store } = await world(await make());
      for (let i = 0; i < 5; i++) await store.createSession({ projectId: 'mer' });
      const [first] = await store.readChangeLogAfter(0, 1);
      await store.pruneChangeLog({ maxRows: 2 });
      const changes = store.changes({ after: first!.seq });
      expect(await rejection(changes.next())).toBeInstanceOf(ChangeLogTruncatedError);
      expect((await changes.next()).done).toBe(true);
    });

    test.each(['signal', 'close', 'return'])('%s ends it while it waits', async (how) => {
      const { store } = await world(await make());
      const controller = new AbortController();
      const changes = store.changes({ signal: controller.signal });
      const next = changes.next();
      await sleep(10);
      if (how === 'signal') controller.abort();
      else if (how === 'close') await store.close();
      else await changes.return();
      expect(await next).toEqual({ done: true, value: undefined });
    });
  });

  test('a deleted session leaves its events', async () => {
    const { store } = await world(await make());
    await store.createSession({ projectId: 'mer' });
    await store.deleteSession('mer-1');
    expect(await typesOf(store)).toEqual(['session_created', 'session_deleted']);
  });
});
