// What the log tells besides, where that was asked for (F4).
import { Broadcaster, CdcPoller, LifecycleManager, type AnyChangeEvent, type ChangeEvent, type OpenSessionStoreOptions, type SessionStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, rejection, world, type Place } from './support';

const URL = 'https://x/pull/1';

/** A store that tells of more, as one that was opened so. */
async function telling(place: Place) {
  const all = await world({ open: (options?: OpenSessionStoreOptions) => place.open({ ...options, invalidation: true }) });
  const { store } = all;
  const news = async (): Promise<string[]> => {
    const events: AnyChangeEvent[] = await store.readChangeLogAfter(seen);
    seen = events.at(-1)?.seq ?? seen;
    return events.map(({ type, projectId, sessionId }) => `${type} ${projectId} ${sessionId}`);
  };
  let seen = 0;
  const last = async (): Promise<AnyChangeEvent> => (await store.readChangeLogAfter((await store.maxChangeLogSeq()) - 1))[0]!;
  return { ...all, news, last };
}

/** Everything that is silent without the option. */
async function silentThings({ store, lifecycle }: { store: SessionStore; lifecycle: LifecycleManager }): Promise<void> {
  const { id } = await store.createSession({ projectId: 'mer', lifecycle: { state: 'working', isAlive: true } });
  await store.patchSessionMetadata(id, { branch: 'fix', agentSessionId: 'agent-1' });
  await store.setSessionDisplay(id, { displayName: 'Fix it', pinned: true });
  await store.writePrObservation({ url: URL, sessionId: id }, [], [{ prUrl: URL, commentId: 'a' }]);
  await store.replacePrComments(URL, []);
  await lifecycle.applyActivitySignal(id, { valid: true, state: 'blocked' });
  await store.markNotificationsSeen([(await store.notifications())[0]!.id]);
  await store.deletePr(URL);
  await store.upsertPr({ url: URL, sessionId: id });
  await store.deleteSession(id);
}

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('without the option the log is as it always was', async () => {
    const all = await world(await make());
    await silentThings(all);
    const events = await all.store.readChangeLogAfter(0);
    expect(events.map(({ type }) => type)).toEqual(['session_created', 'pr_created', 'session_updated', 'pr_created', 'session_deleted']);
    expect(JSON.stringify(events[2]!.payload)).toBe('{"id":"mer-1","state":"stuck","terminationReason":"","isAlive":1,"activity":"blocked"}');
  });

  test('with it everything is told, in order, with the right project', async () => {
    const all = await telling(await make());
    await silentThings(all);
    const own = (type: string): string => `${type} mer mer-1`;
    expect(await all.news()).toEqual(
      [
        'session_created',
        'session_updated',
        'session_updated',
        'pr_created',
        'pr_comments_replaced',
        'pr_comments_replaced',
        'session_updated',
        'notification_changed',
        'notification_changed',
        'pr_deleted',
        'pr_created',
        'pr_deleted',
        'notification_changed',
        'session_deleted',
      ].map(own),
    );
  });

  test('branch, agent session, name and pin: one event each time they differ, and none beside the one of a transition', async () => {
    const { store, lifecycle, news, last, clock } = await telling(await make());
    const { id, displayName, pinned } = await store.createSession({ projectId: 'mer' });
    expect([displayName, pinned]).toEqual(['', false]);
    await news();
    clock.add(1000);
    expect(await store.setSessionDisplay(id, { displayName: 'Fix 7' })).toMatchObject({ displayName: 'Fix 7', pinned: false, revision: 1, updatedAt: clock.read() });
    expect(await last()).toMatchObject({ type: 'session_updated', createdAt: clock.read(), payload: { id, state: 'not_started' } });
    expect(JSON.stringify((await last()).payload)).not.toContain('Fix');
    await store.setSessionDisplay(id, { displayName: 'Fix 7' });
    await store.setSessionDisplay(id, {});
    await store.setSessionDisplay(id, { pinned: true });
    await store.patchSessionMetadata(id, { workspacePath: '/w', prompt: 'p', runtimeHandleId: 'h', runtimeName: 'tmux' });
    expect(await news()).toEqual(['session_updated mer mer-1', 'session_updated mer mer-1']);
    await lifecycle.onSpawnCompleted(id, { branch: 'b', agentSessionId: 'a' });
    expect(await news()).toEqual(['session_updated mer mer-1']);
    await lifecycle.onSpawnCompleted(id, { branch: 'c' });
    expect(await news()).toEqual(['session_updated mer mer-1']);
    await lifecycle.onSpawnCompleted(id, { branch: 'c' });
    expect(await news()).toEqual([]);
    // No manager has touched it, and who writes the record writes it too.
    const record = (await store.getSession(id))!;
    expect([record.displayName, record.pinned]).toEqual(['Fix 7', true]);
    await store.updateSession({ ...record, displayName: 'Fix 8' });
    expect(await news()).toEqual(['session_updated mer mer-1']);
    expect(await store.listSessions('mer')).toMatchObject([{ displayName: 'Fix 8', pinned: true }]);
    expect(await store.createSession({ projectId: 'mer', displayName: 'n', pinned: true })).toMatchObject({ displayName: 'n', pinned: true });
    expect(await rejection(store.setSessionDisplay('mer-9', { pinned: true }))).toMatchObject({ hfCode: 'HF_LIFECYCLE_SESSION_NOT_FOUND', message: expect.stringContaining('mer-9') });
    for (const bad of [{ pinned: 1 }, { displayName: null }, { name: 'x' }]) expect(await rejection(store.setSessionDisplay(id, bad as never))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
  });

  test('comments: one event per replacement that changed anything', async () => {
    const { store, news, last, clock } = await telling(await make());
    const { id } = await store.createSession({ projectId: 'mer' });
    await store.upsertPr({ url: URL, sessionId: id });
    await news();
    const comments = ['a', 'b', 'c'].map((commentId) => ({ prUrl: URL, commentId, body: commentId }));
    clock.add(1000);
    const { updatedAt } = (await store.getPr(URL))!;
    await store.replacePrComments(URL, comments);
    expect(await last()).toEqual({ seq: expect.any(Number), projectId: 'mer', sessionId: id, type: 'pr_comments_replaced', createdAt: clock.read(), payload: { url: URL, session: id } });
    await store.replacePrComments(URL, comments);
    await store.replacePrComments(URL, [...comments].reverse());
    await store.replacePrComments(URL, [{ ...comments[0]!, resolved: true }]);
    await store.replacePrComments(URL, []);
    await store.replacePrComments(URL, []);
    expect(await news()).toEqual(['pr_comments_replaced mer mer-1', 'pr_comments_replaced mer mer-1', 'pr_comments_replaced mer mer-1']);
    // The order of pull requests is by this, and is no business of their comments.
    expect((await store.getPr(URL))!.updatedAt).toEqual(updatedAt);
  });

  test('a notification tells what it is now', async () => {
    const { store, lifecycle, last, clock } = await telling(await make());
    const { id } = await store.createSession({ projectId: 'mer', lifecycle: { state: 'working', isAlive: true } });
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'blocked' });
    const [note] = await store.notifications();
    const payload = { id: note!.id, session: id, reaction: 'agent-stuck', seen: 0, resolved: 0 };
    expect(await last()).toMatchObject({ type: 'notification_changed', projectId: 'mer', sessionId: id, createdAt: clock.read() });
    expect((await last()).payload).toEqual(payload);
    clock.add(1000);
    await store.markNotificationsSeen([note!.id]);
    expect(await last()).toMatchObject({ createdAt: clock.read(), payload: { ...payload, seen: 1 } });
    clock.add(1000);
    await store.resolveNotification(note!.id);
    expect(await last()).toMatchObject({ createdAt: clock.read(), payload: { ...payload, seen: 1, resolved: 1 } });
    const head = await store.maxChangeLogSeq();
    await store.pruneChangeLog({ notificationsMaxAgeMs: 0 });
    clock.add(1);
    await store.pruneChangeLog({ notificationsMaxAgeMs: 0 });
    expect(await store.notifications()).toEqual([]);
    expect(await store.maxChangeLogSeq(), 'what was over long ago ends in silence').toBe(head);
  });

  test('a session with everything goes: what was its own first, of the right project', async () => {
    const { store, lifecycle, news } = await telling(await make());
    await store.upsertProject({ id: 'a-1-b', path: '/x' });
    const { id } = await store.createSession({ projectId: 'a-1-b', lifecycle: { state: 'working', isAlive: true } });
    for (const url of ['u1', 'u2']) await store.writePrObservation({ url, sessionId: id }, [{ prUrl: url, name: 'n', commitHash: 'c' }], [{ prUrl: url, commentId: 'x' }]);
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'waiting_input' });
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'blocked' });
    await news();
    await store.deleteSession(id);
    expect(await news()).toEqual(['pr_deleted', 'pr_deleted', 'notification_changed', 'session_deleted'].map((type) => `${type} a-1-b a-1-b-1`));
    const events: AnyChangeEvent[] = await store.readChangeLogAfter((await store.maxChangeLogSeq()) - 2);
    expect(events.map(({ payload }) => payload)).toEqual([{ id: expect.any(Number), session: id, reaction: 'agent-stuck', seen: 0, resolved: 1 }, { id }]);
    expect(await store.deletePr('u1')).toBe(false);
    expect(await news()).toEqual([]);
  });

  test('the store keeps it: for who opens it without asking, and for who had it open before', async () => {
    const place = await make();
    const before = await world(place);
    await before.store.createSession({ projectId: 'mer' });
    await before.store.setSessionDisplay('mer-1', { pinned: true });
    const head = await before.store.maxChangeLogSeq();
    const asking = await telling(place);
    expect(await asking.store.maxChangeLogSeq()).toBe(head);
    await before.store.setSessionDisplay('mer-1', { pinned: false });
    await asking.store.close();
    const again = await world({ open: (options) => place.open({ ...options, invalidation: false }) });
    await again.store.setSessionDisplay('mer-1', { pinned: true });
    expect(await again.store.maxChangeLogSeq()).toBe(head + 2);
    expect(await rejection(place.open({ invalidation: 'yes' as never }))).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT' });
  });

  test('who listens gets them, typed as what they are', async () => {
    const place = await make();
    const { store } = await telling(place);
    await store.createSession({ projectId: 'mer' });
    await store.upsertPr({ url: URL, sessionId: 'mer-1' });
    // The store that was asked is typed so.
    const wide: SessionStore<AnyChangeEvent> = store;
    const broadcaster = new Broadcaster<AnyChangeEvent>();
    const heard: string[] = [];
    broadcaster.subscribe((event) => heard.push(event.type === 'pr_deleted' ? event.payload.url : exhaustive(event)));
    await store.deletePr(URL);
    await new CdcPoller(wide, broadcaster).poll();
    expect(heard).toEqual(['session', 'pull request', URL]);
    const consumer = wide.consumer('c');
    expect((await consumer.read()).map(({ type }) => type)).toEqual(['session_created', 'pr_created', 'pr_deleted']);
    const changes = wide.changes({ after: 2 });
    const { value } = await changes.next();
    expect(value?.type === 'pr_deleted' && value.payload.session).toBe('mer-1');
    await changes.return();
  });
});

/** As programs have it that were written for a log that tells less. */
function old(event: ChangeEvent): string {
  switch (event.type) {
    case 'session_created':
    case 'session_updated':
    case 'session_deleted':
      return 'session';
    case 'pr_created':
    case 'pr_updated':
      return 'pull request';
    case 'pr_check_recorded':
      return 'check';
    default: {
      const never: never = event;
      return never;
    }
  }
}

function exhaustive(event: AnyChangeEvent): string {
  switch (event.type) {
    case 'pr_deleted':
    case 'pr_comments_replaced':
      return event.payload.url;
    case 'notification_changed':
      return event.payload.reaction;
    default:
      return old(event);
  }
}
