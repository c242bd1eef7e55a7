// Why a session is what it is (F15).
import type { TimelineEntry } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, rejection, world } from './support';

const told = (entry: TimelineEntry): string => {
  if (entry.type !== 'decision') return entry.type;
  const { cause, from, to, evidence } = entry.payload;
  return `${cause} ${from} > ${to}: ${evidence}`;
};

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('a life with its reasons, each after the change that it made, though the clock stands still', async () => {
    const { store, lifecycle, sessions, clock } = await world(await make());
    const { id } = await sessions.spawn({ projectId: 'mer', prompt: 'secret words', branch: 'fix' });
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'active', source: 'hook' });
    for (let i = 0; i < 2; i++) await lifecycle.applyRuntimeObservation(id, { runtime: 'failed', process: 'failed' });
    await lifecycle.applyRuntimeObservation(id, { runtime: 'alive', process: 'alive' });
    await lifecycle.applyRuntimeObservation(id, { runtime: 'alive', process: 'alive' });
    await sessions.kill(id);
    await sessions.restore(id);
    await lifecycle.applyPrObservation(id, { fetched: true, url: 'https://x/pull/1', number: 1, merged: true });
    const timeline = await store.sessionTimeline(id);
    expect(timeline.map(told)).toEqual([
      'session_created',
      'session_updated',
      'spawn not_started > not_started: spawn completed',
      'session_updated',
      'activity not_started > working: hook active',
      'session_updated',
      'probe working > detecting: probe_failed runtimeFailed=true process=indeterminate processFailed=true',
      'probe detecting > detecting: probe_failed runtimeFailed=true process=indeterminate processFailed=true',
      'session_updated',
      'probe detecting > working: alive runtime=alive process=alive',
      'session_updated',
      'kill working > terminated: killed: manually_killed',
      'session_updated',
      'restore terminated > not_started: restore completed',
      'pr_created',
      'session_updated',
      'pr not_started > terminated: pr merged https://x/pull/1',
    ]);
    const seqs = timeline.map(({ seq }) => seq);
    expect(seqs).toEqual([...seqs].sort((a, b) => a - b));
    expect(timeline[11]).toEqual({
      type: 'decision',
      seq: timeline[10]!.seq,
      projectId: 'mer',
      sessionId: id,
      createdAt: clock.read(),
      payload: {
        cause: 'kill',
        from: 'working',
        to: 'terminated',
        terminationReason: 'manually_killed',
        isAlive: false,
        detectingAttempts: null,
        evidence: 'killed: manually_killed',
      },
    });
    expect(timeline[7]!.payload).toMatchObject({ detectingAttempts: 2 });
    expect(JSON.stringify(timeline)).not.toMatch(/secret|\/w\/|"h1"|fix/);
  });

  test('decisions outlive the log, and go with their session', async () => {
    const { store, lifecycle } = await world(await make());
    const { id } = await store.createSession({ projectId: 'mer', lifecycle: { state: 'working', isAlive: true } });
    await lifecycle.onKillRequested(id, 'auto_cleanup');
    await store.pruneChangeLog({ maxRows: 0 });
    expect((await store.sessionTimeline(id)).map(told)).toEqual(['kill working > terminated: killed: auto_cleanup']);
    await store.updateSession({ ...(await store.getSession(id))!, lifecycle: { ...(await store.getSession(id))!.lifecycle, state: 'done', terminationReason: '' } });
    expect((await store.sessionTimeline(id)).map(told)).toEqual([
      'kill working > terminated: killed: auto_cleanup',
      'session_updated',
      'update terminated > done: record written by updateSession',
    ]);
    await store.deleteSession(id);
    expect((await store.sessionTimeline(id)).map(told)).toEqual(['session_updated', 'session_deleted']);
    expect(await store.sessionTimeline('mer-9')).toEqual([]);
  });

  test('two stores that probe one session at once: the decisions are in order, and end in what is stored', async () => {
    const place = await make();
    const [one, two] = [await world(place), await world(place)];
    const { id } = await one.store.createSession({ projectId: 'mer', lifecycle: { state: 'working', isAlive: true } });
    const work = [];
    for (let i = 0; i < 40; i++) {
      const { lifecycle } = i % 2 === 0 ? one : two;
      work.push(lifecycle.applyActivitySignal(id, { valid: true, state: i % 4 < 2 ? 'idle' : 'active', source: 'hook' }));
    }
    await Promise.all(work);
    const entries = await one.store.sessionTimeline(id);
    const decisions = entries.filter((entry) => entry.type === 'decision');
    const states = decisions.map(({ payload }) => payload);
    for (const [index, { from }] of states.entries()) expect(from).toBe(states[index - 1]?.to ?? 'working');
    expect(states.at(-1)!.to).toBe((await one.store.getSession(id))!.lifecycle.state);
    // Each is right behind the change that it made.
    for (const [index, entry] of entries.entries()) {
      if (entry.type === 'decision') expect(entries[index - 1]).toMatchObject({ seq: entry.seq, type: 'session_updated', payload: { state: entry.payload.to } });
    }
    expect(states.length).toBeGreaterThan(0);
    expect(await rejection(one.store.sessionTimeline(''))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
  });
});
