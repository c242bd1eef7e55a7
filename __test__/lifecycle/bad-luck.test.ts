// What callers get wrong, and what clocks do: an error that says what is allowed or nothing at all, never a changed row.
import { setMaxListeners } from 'node:events';

import { Broadcaster, CdcPoller, LifecycleManager, SessionManager, type ChangeEvent } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { MEMORY, soon, soundness } from './hostile';
import { BACKENDS, eventOf, rejection, testPorts, tempDir, until, world } from './support';

const DAY = 86_400_000;
const alive = { runtime: 'alive', process: 'alive' } as const;
const dead = { runtime: 'dead', process: 'dead' } as const;
const failed = { runtime: 'failed', process: 'failed' } as const;

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('ids that there are not: null, [], false, or an error; no observation makes a row', async () => {
    const { store, sessions, lifecycle, calls } = await world(await make());
    for (const id of ['mer-1', 'mer-0', 'mer', 'MER-1', '-1', "x' OR 1=1 --", 'é-1', 'a'.repeat(5000), '%', '💥-1', 'mer-9007199254740993']) {
      await lifecycle.applyRuntimeObservation(id, dead);
      await lifecycle.applyActivitySignal(id, { valid: true, state: 'active' });
      await lifecycle.applyPrObservation(id, { fetched: true, url: `u${id}`, number: 1, merged: true });
      await lifecycle.onKillRequested(id);
      expect(await store.getSession(id), id).toBeNull();
      expect(await store.deleteSession(id)).toBe(false);
      expect(await store.listPrsBySession(id)).toEqual([]);
      expect(await store.prFactsForSession(id)).toMatchObject({ exists: false });
      expect(await sessions.kill(id)).toBe(false);
      expect(await sessions.kill(id, '', { force: true })).toBe(false);
      expect(await sessions.list(id)).toEqual([]);
      expect(await sessions.cleanup(id)).toEqual([]);
      expect((await rejection(sessions.get(id))).hfCode).toBe('HF_LIFECYCLE_SESSION_NOT_FOUND');
      expect((await rejection(sessions.restore(id))).message).toBe(`restore ${id}: session: not found`);
      expect((await rejection(store.patchSessionMetadata(id, { branch: 'b' }))).hfCode).toBe('HF_LIFECYCLE_SESSION_NOT_FOUND');
      expect((await rejection(lifecycle.onSpawnCompleted(id, {}))).message).toBe(`lifecycle: onSpawnCompleted for unknown session "${id}"`);
      if (id !== 'mer') expect((await rejection(store.createSession({ projectId: id }))).hfCode).toBe('HF_LIFECYCLE_CONSTRAINT');
    }
    expect(calls).toEqual([]);
    for (const id of ['', 'mer-1\0', 'mer-\ud800', 5, null, undefined, {}] as never[]) {
      const tries = [() => store.getSession(id), () => store.deleteSession(id), () => sessions.get(id), () => sessions.kill(id), () => sessions.restore(id), () => lifecycle.onKillRequested(id), () => store.consumer(id).read()];
      for (const attempt of tries) expect((await rejection((async () => attempt())())).hfCode, String(attempt)).toBe('HF_INVALID_ARGUMENT');
    }
  });

  test('odd names of projects and texts come back as they were', async () => {
    const { store, sessions } = await world(await make());
    for (const projectId of ["o'brien", 'a-1', 'ß€💥', '"; DROP TABLE sessions; --', ' ', '-', 'x'.repeat(300)]) {
      await store.upsertProject({ id: projectId, path: '/' });
      const text = `${projectId}\n\t\r\u2028\u202e"'\\ ${'💥'.repeat(10)}`;
      const { id } = await store.createSession({ projectId, issueId: text, metadata: { prompt: text, branch: text } });
      expect(id).toBe(`${projectId}-1`);
      const [found] = await sessions.list(projectId);
      expect(found).toMatchObject({ id, issueId: text, metadata: { prompt: text, branch: text } });
      const [event] = await store.readChangeLogAfterForProject(projectId, 0);
      expect(event).toMatchObject({ projectId, sessionId: id, payload: { id } });
    }
    expect((await store.check()).sound).toBe(true);
  });

  test('words that there are not are refused before anything is written', async () => {
    const { store, sessions, lifecycle } = await world(await make());
    await store.createSession({ projectId: 'mer', lifecycle: { state: 'working', isAlive: true } });
    const [before, events] = [await store.getSession('mer-1'), await store.maxChangeLogSeq()];
    const bad = ['Alive', 'ALIVE', '', ' alive', 'alive\0', 'dead ', null, undefined, 5, {}, [], true, Symbol('x')] as never[];
    for (const word of bad) {
      const what = String(word as unknown);
      expect((await rejection(lifecycle.applyRuntimeObservation('mer-1', { runtime: word, process: 'alive' }))).hfCode, what).toBe('HF_INVALID_ARGUMENT');
      expect((await rejection(lifecycle.applyRuntimeObservation('mer-1', { runtime: 'alive', process: word }))).hfCode, what).toBe('HF_INVALID_ARGUMENT');
      expect((await rejection(lifecycle.applyActivitySignal('mer-1', { valid: true, state: word }))).hfCode, what).toBe('HF_INVALID_ARGUMENT');
      if (word !== '' && word !== undefined) expect((await rejection(lifecycle.onKillRequested('mer-1', word))).hfCode, what).toBe('HF_INVALID_ARGUMENT');
      if (word !== '' && word !== undefined) expect((await rejection(sessions.kill('mer-1', word))).hfCode, what).toBe('HF_INVALID_ARGUMENT');
      if (typeof word === 'string' && word !== '') {
        const kind = { ...before!, kind: word };
        expect((await rejection(store.updateSession(kind))).hfCode, what).toBe('HF_LIFECYCLE_CONSTRAINT');
        expect((await rejection(store.upsertPr({ url: 'u', sessionId: 'mer-1', state: word }))).hfCode, what).toBe('HF_LIFECYCLE_CONSTRAINT');
      }
    }
    for (const [id, facts] of [[5, alive], ['mer-1', null], ['mer-1', 'alive'], [null, alive], [{}, alive]] as never[][]) {
      expect((await rejection(lifecycle.applyRuntimeObservation(id!, facts!))).hfCode).toBe('HF_INVALID_ARGUMENT');
    }
    expect(await store.getSession('mer-1')).toEqual(before);
    expect(await store.maxChangeLogSeq()).toBe(events);
  });

  test('events after the end change nothing, in any order', async () => {
    const { store, sessions, lifecycle, calls } = await world(await make());
    for (const end of [() => lifecycle.applyRuntimeObservation('mer-1', dead), () => sessions.kill('mer-2'), () => lifecycle.applyPrObservation('mer-3', { fetched: true, url: 'u', number: 1, merged: true })]) {
      const { id } = await sessions.spawn({ projectId: 'mer' });
      await end();
      const [before, head] = [await store.getSession(id), await store.maxChangeLogSeq()];
      calls.length = 0;
      for (const facts of [alive, dead, failed, { runtime: 'unknown', process: 'unknown' }] as const) await lifecycle.applyRuntimeObservation(id, facts);
      for (const state of ['active', 'ready', 'idle', 'waiting_input', 'blocked', 'exited'] as const) await lifecycle.applyActivitySignal(id, { valid: true, state });
      await lifecycle.onKillRequested(id, 'auto_cleanup');
      await lifecycle.tickEscalations();
      expect(await store.getSession(id)).toEqual(before);
      expect(await store.maxChangeLogSeq()).toBe(head);
      // What a pull request becomes is still recorded, and nobody is told.
      await lifecycle.applyPrObservation(id, { fetched: true, url: `late ${id}`, number: 9, ci: 'failing', checks: [{ name: 'c', commitHash: 'h', status: 'failed' }] });
      expect(await store.getPr(`late ${id}`)).toMatchObject({ ciState: 'failing' });
      expect(await store.getSession(id)).toEqual(before);
      expect(calls).toEqual([]);
    }
  });

  test('observations from the future and the past: stored as now, or dropped', async () => {
    const { store, lifecycle, clock } = await world(await make());
    await store.createSession({ projectId: 'mer', lifecycle: { state: 'working', isAlive: true } });
    const activityOf = async () => (await store.getSession('mer-1'))!.lifecycle.activity;
    await lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'active', timestamp: '9999-12-31T23:59:59.999Z' });
    expect(await activityOf()).toMatchObject({ state: 'active', lastActivityAt: clock.read() });
    clock.add(1000);
    await lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'waiting_input', timestamp: clock.ms - 2000 });
    expect(await activityOf()).toMatchObject({ state: 'active' });
    await lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'waiting_input', timestamp: clock.ms });
    expect(await activityOf()).toMatchObject({ state: 'waiting_input' });
    for (const timestamp of [NaN, Infinity, -Infinity, 1e15, -1e15, new Date(NaN), '2026-13-01T00:00:00Z', 'now', '', {}, null, true] as never[]) {
      expect((await rejection(lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'active', timestamp }))).hfCode, String(timestamp as unknown)).toBe('HF_INVALID_ARGUMENT');
      expect((await rejection(lifecycle.applyRuntimeObservation('mer-1', { ...failed, observedAt: timestamp }))).hfCode).toBe('HF_INVALID_ARGUMENT');
      expect((await rejection(lifecycle.tickEscalations(timestamp))).hfCode).toBe('HF_INVALID_ARGUMENT');
    }
    await lifecycle.applyRuntimeObservation('mer-1', { ...failed, observedAt: 0 });
    expect((await store.getSession('mer-1'))!.lifecycle.detecting).toMatchObject({ attempts: 1, startedAt: new Date(0) });
  });

  test('a clock that jumps both ways loses no message, repeats none, and ends nobody', async () => {
    const ports = testPorts();
    const { store, lifecycle, sessions, clock, notified, sent } = await world(await make(), { ports });
    await sessions.spawn({ projectId: 'mer' });
    const start = clock.ms;
    await lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'idle' });
    expect(sent).toHaveLength(1);
    for (const jump of [-30 * 365 * DAY, 1, -1, 14 * 60_000, -DAY, 0]) {
      clock.ms = start + jump;
      await lifecycle.tickEscalations();
      expect(notified, String(jump)).toHaveLength(0);
    }
    // Back in time a new signal still counts, as the stored one is from a clock that was ahead.
    clock.ms = start - 365 * DAY;
    await lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'active' });
    expect((await store.getSession('mer-1'))!.lifecycle.state).toBe('working');
    // Probes of a quarantine that began in what is the future now.
    clock.ms = start + DAY;
    await lifecycle.applyRuntimeObservation('mer-1', failed);
    clock.ms = start - DAY;
    await lifecycle.applyRuntimeObservation('mer-1', failed);
    expect((await store.getSession('mer-1'))!.lifecycle).toMatchObject({ state: 'detecting', isAlive: true, detecting: { attempts: 2 } });
    await lifecycle.applyRuntimeObservation('mer-1', alive);
    expect((await store.getSession('mer-1'))!.lifecycle).toMatchObject({ state: 'working', detecting: null });
    // An undelivered message whose lease was given by a clock far ahead is not lost when that is set right.
    clock.ms = start + 1000 * DAY;
    ports.fail['notifier.notify'] = () => new Promise(() => {});
    const hanging = lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'blocked' }).catch(() => {});
    await until(() => ports.calls.includes('notifier.notify reaction.agent-stuck'));
    delete ports.fail['notifier.notify'];
    clock.ms = start;
    const other = new LifecycleManager({ store, notifier: ports.notifier, messenger: ports.messenger, clock: clock.read });
    await other.tickEscalations();
    expect(notified.map(({ type }) => type)).toEqual(['reaction.agent-stuck']);
    expect(await soundness(store)).toEqual([]);
    await store.close();
    await hanging;
  });

  test('a clock that is no clock is refused by each call, and nothing is stored', async () => {
    const place = await make();
    const { store, sessions } = await world(place);
    await sessions.spawn({ projectId: 'mer' });
    const head = await store.maxChangeLogSeq();
    for (const clock of [() => new Date(NaN), () => NaN, () => undefined, () => 'later', () => { throw new Error('no time'); }, async () => new Date()] as never[]) {
      const lifecycle = new LifecycleManager({ store, clock });
      await rejection(lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'active' }));
      await rejection(lifecycle.tickEscalations());
      const ports = testPorts();
      const broken = new SessionManager({ ...ports, store, lifecycle, clock });
      await rejection(broken.spawn({ projectId: 'mer' }));
      await rejection(broken.kill('mer-1'));
      expect(ports.calls).toEqual([]);
    }
    expect(await store.maxChangeLogSeq()).toBe(head);
    expect(await sessions.kill('mer-1')).toBe(true);
  });
});

describe('many subscribers', () => {
  test('10,000 of a poller, of which one is slow, one throws, and every hundredth leaves or comes inside: each event once, in order', async () => {
    const { store } = await world(MEMORY);
    const broadcaster = new Broadcaster();
    const poller = new CdcPoller(store, broadcaster, { intervalMs: 5, logger: { debug() {}, info() {}, warn() {}, error() {} } });
    const heard: number[][] = Array.from({ length: 10_000 }, () => []);
    const leave: (() => void)[] = [];
    const late: number[] = [];
    heard.forEach((own, at) => {
      leave[at] = broadcaster.subscribe((event: ChangeEvent) => {
        own.push(event.seq);
        if (at === 0) for (const end = performance.now() + 20; performance.now() < end; );
        if (at === 1) throw new Error('a listener');
        if (at === 2) return Promise.reject(new Error('a listener later')) as never;
        if (at % 100 === 3 && event.seq === 2) {
          leave[at]!();
          leave[at + 1]!();
          if (at === 3) broadcaster.subscribe(({ seq }) => void late.push(seq));
        }
      });
    });
    poller.start();
    for (let n = 0; n < 5; n++) await store.createSession({ projectId: 'mer' });
    await until(() => heard[9999]!.length === 5, 20_000);
    await poller.stop();
    const all = [1, 2, 3, 4, 5];
    heard.forEach((own, at) => {
      const left = at % 100 === 3 ? 2 : at % 100 === 4 ? 1 : 5;
      expect(own, `listener ${at}`).toEqual(all.slice(0, left));
    });
    expect(late).toEqual([3, 4, 5]);
    expect(broadcaster.subscriberCount).toBe(10_000 - 200 + 1);
  });

  test('of which a thousand iterate, and one never reads, end with a signal; nothing is left of them', async () => {
    const broadcaster = new Broadcaster();
    const abort = new AbortController();
    setMaxListeners(0, abort.signal);
    const iterators = Array.from({ length: 1000 }, () => broadcaster.subscribe({ buffer: 8, signal: abort.signal }));
    const reading = iterators.slice(1).map(async (iterator) => {
      const seqs: number[] = [];
      for await (const { seq } of iterator) seqs.push(seq);
      return seqs;
    });
    for (let seq = 1; seq <= 20; seq++) {
      broadcaster.publish(eventOf(seq));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => iterators.slice(1).every(({ lastSeq }) => lastSeq === 20));
    const slow: unknown[] = [];
    const overflow = await rejection((async () => { for await (const { seq } of iterators[0]!) slow.push(seq); })());
    expect(overflow).toMatchObject({ hfCode: 'HF_LIFECYCLE_SUBSCRIBER_OVERFLOW', lastSeq: 8, buffer: 8 });
    expect(slow).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    abort.abort();
    for (const seqs of await soon(Promise.all(reading), 'the readers')) expect(seqs).toHaveLength(20);
    expect(broadcaster.subscriberCount).toBe(0);
  });
});

test('a hundred followers of one store, with projects of their own, each hear all of it', async () => {
  const { store } = await world({ open: async (options) => (await import('holdfast')).openSessionStore({ dataDir: tempDir(), ...options }) });
  for (let n = 0; n < 10; n++) await store.upsertProject({ id: `p${n}`, path: '/' });
  const followers = Array.from({ length: 100 }, async (_, at) => {
    const ids: string[] = [];
    for await (const { sessionId } of store.changes({ projectId: `p${at % 10}` })) if (ids.push(sessionId!) === 20) break;
    return ids;
  });
  for (let n = 0; n < 20; n++) await Promise.all(Array.from({ length: 10 }, (_, at) => store.createSession({ projectId: `p${at}` })));
  const heard = await soon(Promise.all(followers), 'the followers', 20_000);
  heard.forEach((ids, at) => expect(ids).toEqual(Array.from({ length: 20 }, (_, n) => `p${at % 10}-${n + 1}`)));
  await store.close();
});
