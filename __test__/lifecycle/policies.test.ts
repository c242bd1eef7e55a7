// Policies of projects: stored, over that of the manager, and by whomever a session is ticked (F13).
import { ConstraintError, InvalidArgumentError, LifecycleManager, type ReactionPolicy } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, rejection, world } from './support';

const MINUTE = 60_000;

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('a policy is stored whole, comes back as it was given, and outlives the store', async () => {
    const place = await make();
    const { store } = await world(place);
    expect(await store.reactionPolicy('mer')).toBeNull();
    const policy: ReactionPolicy = {
      off: ['agent-idle'],
      messages: { 'ci-failed': 'Red. \u{1f534}', 'pr-closed': '' },
      escalateAfterMs: 0,
      ciBrakeRuns: 2,
      reviewMaxNudges: 1,
      detectingMaxAttempts: 5,
      detectingMaxDurationMs: 1000,
      allFailedChecks: true,
      mergeEnds: 'last',
    };
    await store.setReactionPolicy('mer', policy);
    expect(await store.reactionPolicy('mer')).toEqual(policy);
    await store.close();
    const again = await place.open();
    expect(await again.reactionPolicy('mer')).toEqual(policy);
    await again.setReactionPolicy('mer', { off: [] });
    expect(await again.reactionPolicy('mer')).toEqual({ off: [] });
    await again.setReactionPolicy('mer', null);
    expect(await again.reactionPolicy('mer')).toBeNull();
    // What happens to the project is nothing to its policy, and it makes no event.
    await again.setReactionPolicy('mer', {});
    await again.archiveProject('mer');
    await again.upsertProject({ id: 'mer', path: '/elsewhere' });
    expect(await again.reactionPolicy('mer')).toEqual({});
    expect(await again.maxChangeLogSeq()).toBe(0);
  });

  test('what cannot be stored is refused, and the policy before it stays', async () => {
    const { store } = await world(await make());
    await store.setReactionPolicy('mer', { ciBrakeRuns: 4 });
    const unknown = await rejection(store.setReactionPolicy('nobody', {}));
    expect(unknown).toBeInstanceOf(ConstraintError);
    expect(unknown).toMatchObject({ constraint: 'foreign_key', message: expect.stringContaining('"nobody"') });
    const wrong: unknown[] = [undefined, 'off', { off: ['agent-asleep'] }, { messages: { mood: 'x' } }, { ciBrakeRuns: 0 }, { escalateAfterMs: -1 }, { mergeEnds: 'soon' }];
    for (const policy of wrong) expect(await rejection(store.setReactionPolicy('mer', policy as ReactionPolicy))).toBeInstanceOf(InvalidArgumentError);
    expect(await store.reactionPolicy('mer')).toEqual({ ciBrakeRuns: 4 });
  });

  test('two managers that tick, three projects: each session by the policy of its own', async () => {
    const { store, lifecycle, sessions, clock, notified, sent, ports } = await world(await make(), { policy: { escalateAfterMs: 5 * MINUTE } });
    const ids: string[] = [];
    for (const [id, policy] of [['quick', { escalateAfterMs: MINUTE, messages: { 'agent-idle': 'Quick!' } }], ['slow', { escalateAfterMs: 30 * MINUTE }], ['mute', { off: ['agent-idle'] }]] as const) {
      await store.upsertProject({ id, path: `/src/${id}` });
      await store.setReactionPolicy(id, policy as ReactionPolicy);
      ids.push((await sessions.spawn({ projectId: id })).id);
    }
    ids.push((await sessions.spawn({ projectId: 'mer' })).id);
    for (const id of ids) await lifecycle.applyActivitySignal(id, { valid: true, state: 'idle' });
    expect(sent.map(({ sessionId, message }) => [sessionId, message === 'Quick!'])).toEqual([['quick-1', true], ['slow-1', false], ['mer-1', false]]);
    const other = new LifecycleManager({ store, notifier: ports.notifier, messenger: ports.messenger, clock: clock.read });
    const pagedAt = async (minutes: number, manager = lifecycle) => {
      clock.ms = Date.parse('2026-05-31T12:00:00.000Z') + minutes * MINUTE;
      await manager.tickEscalations();
      return notified.splice(0).map(({ sessionId }) => sessionId);
    };
    expect(await pagedAt(1, other)).toEqual(['quick-1']);
    // A manager without a policy of its own is as patient as the default with what no project says otherwise of.
    expect(await pagedAt(6, other)).toEqual([]);
    expect(await pagedAt(6)).toEqual(['mer-1']);
    expect(await pagedAt(29, other)).toEqual([]);
    expect(await pagedAt(30)).toEqual(['slow-1']);
  });

  test('a message that waits is taken back when its key is switched off', async () => {
    const { store, lifecycle, sessions, fail, notified, clock } = await world(await make());
    const { id } = await sessions.spawn({ projectId: 'mer' });
    fail['notifier.notify'] = () => Promise.reject(new Error('no network'));
    await rejection(lifecycle.applyActivitySignal(id, { valid: true, state: 'blocked' }));
    delete fail['notifier.notify'];
    await store.setReactionPolicy('mer', { off: ['agent-stuck'] });
    clock.add(MINUTE);
    await lifecycle.tickEscalations();
    await store.setReactionPolicy('mer', null);
    clock.add(MINUTE);
    await lifecycle.tickEscalations();
    expect(notified).toEqual([]);
  });
});
