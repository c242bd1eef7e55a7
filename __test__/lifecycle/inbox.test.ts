// @pool forks: a process is killed in it.
// The inbox: what people were, or should have been, told (F8).
import { LifecycleManager, openSessionStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { SHARED, start } from './children';
import { BACKENDS, rejection, until, world, type Place } from './support';

async function working(place: Place, options?: Parameters<typeof world>[1]) {
  const all = await world(place, options);
  const { id } = await all.store.createSession({ projectId: 'mer', lifecycle: { state: 'working', isAlive: true } });
  const signal = (state: 'active' | 'blocked' | 'waiting_input', session = id): Promise<void> => all.lifecycle.applyActivitySignal(session, { valid: true, state });
  const die = (): Promise<void> => all.lifecycle.applyRuntimeObservation(id, { runtime: 'dead', process: 'dead', observedAt: all.clock.add(120_000) });
  return { ...all, id, signal, die };
}

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('what is told is in the inbox until its cause is gone; seen is another matter', async () => {
    const { store, id, signal, clock, notified } = await working(await make());
    await signal('blocked');
    const note = {
      id: expect.any(Number),
      projectId: 'mer',
      sessionId: id,
      reaction: 'agent-stuck',
      type: 'reaction.agent-stuck',
      priority: 'urgent',
      message: 'Agent is stuck and needs attention.',
      count: 1,
      firstAt: clock.read(),
      lastAt: clock.read(),
      seenAt: null,
      resolvedAt: null,
    };
    const begun = clock.read();
    expect(await store.notifications()).toEqual([note]);
    expect(await store.notificationCounts()).toEqual({ unseen: 1, unresolved: 1, urgent: 1 });
    const number = (await store.notifications())[0]!.id;
    clock.add(1000);
    expect(await store.markNotificationsSeen([number, 12345])).toBe(1);
    expect(await store.notificationCounts('mer')).toEqual({ unseen: 0, unresolved: 1, urgent: 1 });
    expect(await store.notifications({ unseen: true })).toEqual([]);
    clock.add(1000);
    expect(await store.markNotificationsSeen([number], begun)).toBe(0);
    await signal('active');
    expect(await store.notifications({ sessionId: id })).toEqual([{ ...note, seenAt: new Date(begun.getTime() + 1000), resolvedAt: clock.read() }]);
    expect(await store.notificationCounts()).toEqual({ unseen: 0, unresolved: 0, urgent: 0 });
    expect(notified).toHaveLength(1);
  });

  test('a notifier that fails, or none at all, makes no difference; trying again is no second one', async () => {
    const place = await make();
    const { store, signal, fail, lifecycle, clock, id } = await working(place);
    fail['notifier.notify'] = () => Promise.reject(new Error('no network'));
    await rejection(signal('waiting_input'));
    for (let i = 0; i < 3; i++) {
      clock.add(60_000);
      await rejection(lifecycle.tickEscalations());
    }
    expect(await store.notifications()).toMatchObject([{ type: 'reaction.agent-needs-input', count: 1, resolvedAt: null }]);
    const silent = new LifecycleManager({ store, clock: clock.read });
    await silent.applyActivitySignal(id, { valid: true, state: 'blocked' });
    expect(await store.notifications({ unresolved: true })).toMatchObject([{ type: 'reaction.agent-stuck' }]);
  });

  test('a restore resolves that the agent is gone, a delete takes all of it along', async () => {
    const { store, sessions, lifecycle, clock } = await world(await make());
    const { id } = await sessions.spawn({ projectId: 'mer', prompt: 'go' });
    await lifecycle.applyRuntimeObservation(id, { runtime: 'dead', process: 'dead', observedAt: clock.add(120_000) });
    expect(await store.notifications({ unresolved: true })).toMatchObject([{ type: 'reaction.agent-exited', priority: 'urgent' }]);
    await sessions.restore(id);
    expect(await store.notifications({ unresolved: true })).toEqual([]);
    expect(await store.notifications()).toMatchObject([{ resolvedAt: clock.read() }]);
    await store.deleteSession(id);
    expect(await store.notifications()).toEqual([]);
  });

  test('a cause that comes and goes has one open at a time; what was settled by hand stays settled', async () => {
    const { store, signal, clock, die, id } = await working(await make());
    for (let i = 0; i < 5; i++) {
      clock.add(1000);
      await signal('blocked');
      clock.add(1000);
      await signal('active');
    }
    expect(await store.notifications()).toHaveLength(5);
    expect(await store.notificationCounts()).toEqual({ unseen: 5, unresolved: 0, urgent: 0 });
    await die();
    const [exited] = await store.notifications({ limit: 1 });
    expect(await store.resolveNotification(exited!.id)).toBe(true);
    expect(await store.resolveNotification(exited!.id)).toBe(false);
    expect(await store.resolveNotification(999_999)).toBe(false);
    // A record that is brought back by hand, and dies again.
    const back = async (): Promise<void> => {
      const record = (await store.getSession(id))!;
      await store.updateSession({ ...record, lifecycle: { ...record.lifecycle, state: 'working', terminationReason: '', isAlive: true } });
    };
    await back();
    await die();
    await store.markNotificationsSeen([(await store.notifications({ limit: 1 }))[0]!.id]);
    await back();
    await die();
    expect(await store.notifications({ limit: 2 })).toMatchObject([
      { type: 'reaction.agent-exited', count: 2, seenAt: null, resolvedAt: null },
      { id: exited!.id, count: 1, resolvedAt: expect.any(Date) },
    ]);
  });

  test('pages, filters and refusals', async () => {
    const { store, id, signal } = await working(await make());
    await store.upsertProject({ id: 'two', path: '/two' });
    const other = await store.createSession({ projectId: 'two', lifecycle: { state: 'working' } });
    for (let i = 0; i < 3; i++) {
      await signal('blocked');
      await signal('active');
    }
    await signal('blocked', other.id);
    const all = await store.notifications();
    expect(all.map(({ sessionId }) => sessionId)).toEqual(['two-1', id, id, id]);
    const first = await store.notifications({ limit: 3 });
    expect([...first, ...(await store.notifications({ limit: 3, before: first[2]!.id }))]).toEqual(all);
    expect(await store.notifications({ projectId: 'two', unresolved: true, unseen: true })).toEqual([all[0]]);
    expect(await store.notifications({ projectId: 'two', sessionId: id })).toEqual([]);
    expect(await store.notifications({ limit: 0 })).toEqual([]);
    expect(await store.notificationCounts('two')).toEqual({ unseen: 1, unresolved: 1, urgent: 1 });
    expect(await store.notificationCounts('none')).toEqual({ unseen: 0, unresolved: 0, urgent: 0 });
    for (const bad of [{ unread: true }, { limit: 1001 }, { limit: -1 }, { before: 0.5 }, { unseen: 1 }, { projectId: '' }, null]) {
      expect(await rejection(store.notifications(bad as never)), JSON.stringify(bad)).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
    }
    for (const bad of [['1'], [-1], '1', [NaN]]) expect(await rejection(store.markNotificationsSeen(bad as never))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
  });

  test('two stores that mark the same as seen, while a third resolves, count each once', async () => {
    const place = await make();
    const [one, two, three] = [await working(place), await world(place), await world(place)];
    const ids = await Promise.all(Array.from({ length: 60 }, async () => (await one.store.createSession({ projectId: 'mer', lifecycle: { state: 'working' } })).id));
    await Promise.all(ids.map((id) => one.signal('blocked', id)));
    const notes = (await one.store.notifications()).map(({ id }) => id);
    expect(notes).toHaveLength(60);
    const [a, b] = await Promise.all([
      one.store.markNotificationsSeen(notes),
      two.store.markNotificationsSeen([...notes].reverse()),
      ...ids.map((id) => three.lifecycle.onKillRequested(id)),
    ]);
    expect((a as number) + (b as number)).toBe(60);
    expect(await one.store.notificationCounts()).toEqual({ unseen: 0, unresolved: 0, urgent: 0 });
  });

  test('what was resolved long ago goes with the log, what is open stays', async () => {
    const { store, signal, clock } = await working(await make());
    await signal('blocked');
    await signal('waiting_input');
    clock.add(10_000);
    await store.pruneChangeLog({ notificationsMaxAgeMs: 10_000 });
    expect(await store.notifications()).toHaveLength(2);
    await store.pruneChangeLog({ maxRows: 100_000 });
    clock.add(1);
    await store.pruneChangeLog({ notificationsMaxAgeMs: 10_000 });
    expect(await store.notifications()).toMatchObject([{ type: 'reaction.agent-needs-input', resolvedAt: null }]);
    expect(await rejection(store.pruneChangeLog({ notificationsMaxAgeMs: -1 }))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
  });

  test('retention takes them by itself', async () => {
    const { store, signal, clock } = await working({ open: async (options) => (await make()).open({ ...options, retention: { notificationsMaxAgeMs: 1000 } }) });
    await signal('blocked');
    await signal('active');
    clock.add(5000);
    await Promise.all(Array.from({ length: 520 }, () => store.createSession({ projectId: 'mer' })));
    await until(async () => (await store.notifications()).length === 0);
    expect(await store.maxChangeLogSeq()).toBeGreaterThan(500);
  });
});

test.each(SHARED)('$name: a process that is killed before it could tell has it in the inbox', async ({ make }) => {
  const place = await make();
  const child = start(place, 'tell', 'notifier.notify');
  await child.line('step notifier.notify');
  await child.kill();
  await using store = await openSessionStore(place);
  expect(await store.notifications()).toMatchObject([{ type: 'reaction.agent-needs-input', priority: 'urgent', count: 1, seenAt: null, resolvedAt: null }]);
});
