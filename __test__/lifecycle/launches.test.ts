// Every start of a runtime has a name that probes and hooks carry: what is told of an earlier one is ignored (F9).
import { InvalidArgumentError, Reaper } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, deferred, rejection, until, world } from './support';

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('a launch is named and stored before its runtime is created, and the runtime and the agent are told', async () => {
    const { sessions, store, fail, configs } = await world(await make());
    expect((await store.createSession({ projectId: 'mer' })).launchId).toBe('');
    const seen: string[] = [];
    fail['runtime.create'] = async (config: (typeof configs)[number] & { launchId: string; sessionId: string }) => {
      const record = (await store.getSession(config.sessionId))!;
      seen.push(record.launchId, config.launchId, config.env.AO_LAUNCH_ID!);
      return { id: 'h', runtimeName: 'tmux' };
    };
    const session = await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    expect(session.launchId).toMatch(/^[0-9a-f-]{36}$/);
    expect(seen).toEqual([session.launchId, session.launchId, session.launchId]);
    await sessions.kill(session.id);
    const restored = await sessions.restore(session.id);
    expect(restored.launchId).not.toBe(session.launchId);
    // Until a restore is through the session has ended, and keeps the name of the launch that it had.
    expect(seen.slice(3)).toEqual([session.launchId, restored.launchId, restored.launchId]);
  });

  test('facts of an earlier launch change nothing, also of one whose kill left the runtime running', async () => {
    const { sessions, lifecycle, store, fail, notified, clock } = await world(await make());
    const { id, launchId: old } = await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    fail['runtime.destroy'] = () => Promise.reject(new Error('no socket'));
    await rejection(sessions.kill(id));
    const { launchId } = await sessions.restore(id);
    const before = await store.getSession(id);
    clock.add(120_000);
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'waiting_input', source: 'hook', launchId: old });
    await lifecycle.applyRuntimeObservation(id, { runtime: 'dead', process: 'dead', launchId: old });
    await lifecycle.applyRuntimeObservation(id, { runtime: 'dead', process: 'dead', launchId: 'never heard of' });
    expect(await store.getSession(id)).toEqual(before);
    expect(notified).toEqual([]);
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'active', source: 'hook', launchId });
    expect((await sessions.get(id)).lifecycle.state).toBe('working');
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'idle', source: 'hook' });
    expect((await sessions.get(id)).lifecycle.state).toBe('idle');
    expect(await rejection(lifecycle.applyActivitySignal(id, { valid: true, state: 'idle', launchId: 7 as never }))).toBeInstanceOf(InvalidArgumentError);
    expect(await rejection(lifecycle.applyRuntimeObservation(id, { runtime: 'dead', process: 'dead', launchId: null as never }))).toBeInstanceOf(InvalidArgumentError);
  });

  test.each(['reaper', 'recover'])('a probe of the %s that began before a restore does not touch the new life', async (who) => {
    const { sessions, lifecycle, runtime, fail, calls, clock } = await world(await make());
    const { id } = await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    const asked = deferred<boolean>();
    fail['runtime.isAlive'] = () => asked.promise;
    const reaper = new Reaper({ lifecycle, runtimes: { tmux: runtime }, clock: clock.read });
    const probing = who === 'reaper' ? reaper.tick() : sessions.recover();
    await until(() => calls.includes('runtime.isAlive h1'));
    await sessions.kill(id);
    const restored = await sessions.restore(id);
    asked.resolve(false);
    await probing;
    expect(await sessions.get(id)).toEqual(restored);
    // Of this life it says something.
    fail['runtime.isAlive'] = () => false;
    await reaper.tick();
    expect((await sessions.get(id)).status).toBe('killed');
  });

  test('a hook between runtime.create and the end of the spawn carries the new name, and is kept', async () => {
    const { sessions, lifecycle, fail } = await world(await make());
    fail['runtime.create'] = async ({ sessionId, launchId }: { sessionId: string; launchId: string }) => {
      await lifecycle.applyActivitySignal(sessionId, { valid: true, state: 'waiting_input', source: 'hook', launchId });
      return { id: 'h', runtimeName: 'tmux' };
    };
    expect((await sessions.spawn({ projectId: 'mer' })).status).toBe('needs_input');
  });

  test.each([
    { state: 'waiting_input', status: 'needs_input', told: ['reaction.agent-needs-input'] },
    { state: 'active', status: 'working', told: [] },
    { state: 'exited', status: 'spawning', told: [] },
  ] as const)('a hook ($state) before the end of a restore counts when that is through', async ({ state, status, told }) => {
    const { sessions, lifecycle, store, fail, notified, clock } = await world(await make());
    const { id } = await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    await sessions.kill(id);
    const at = clock.read();
    fail['runtime.create'] = async ({ launchId }: { launchId: string }) => {
      const before = await store.getSession(id);
      await lifecycle.applyActivitySignal(id, { valid: true, state, source: 'hook', launchId });
      await lifecycle.applyActivitySignal(id, { valid: true, state: 'ready', timestamp: new Date(+at - 1000), source: 'hook', launchId });
      await lifecycle.applyActivitySignal(id, { valid: true, state: 'idle', source: 'hook' });
      expect(await store.getSession(id)).toEqual(before);
      return { id: 'h', runtimeName: 'tmux' };
    };
    const session = await sessions.restore(id);
    expect(session).toMatchObject({ status, lifecycle: { isAlive: true, activity: { state, lastActivityAt: at, source: 'hook' } } });
    expect(notified.map(({ type }) => type)).toEqual(told);
  });

  test('a restore that fails leaves the session ended, whatever its runtime still tells', async () => {
    const { sessions, lifecycle, store, fail } = await world(await make());
    const { id } = await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    await sessions.kill(id);
    const before = await store.getSession(id);
    const tried: string[] = [];
    fail['runtime.create'] = async ({ launchId }: { launchId: string }) => {
      tried.push(launchId);
      await lifecycle.applyActivitySignal(id, { valid: true, state: 'active', source: 'hook', launchId });
      throw new Error('no tmux');
    };
    await rejection(sessions.restore(id));
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'active', source: 'hook', launchId: tried[0] });
    expect(await store.getSession(id)).toEqual(before);
    delete fail['runtime.create'];
    const restored = await sessions.restore(id);
    await lifecycle.applyActivitySignal(id, { valid: true, state: 'waiting_input', source: 'hook', launchId: tried[0] });
    expect(await sessions.get(id)).toEqual(restored);
  });

  test('a launch that somebody else has overtaken ends its runtime, and leaves the other one alone', async () => {
    const { sessions, lifecycle, store, fail, calls } = await world(await make());
    const { id } = await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    await sessions.kill(id);
    // As a store does that took this one for dead: its recover() ends the operation, and it restores.
    const stolen = deferred<{ id: string; runtimeName: string }>();
    fail['runtime.create'] = () => stolen.promise;
    const slow = rejection(sessions.restore(id));
    await until(() => calls.filter((call) => call === `runtime.create ${id}`).length === 2);
    const outcome = { runtimeHandle: { id: 'theirs', runtimeName: 'tmux' }, expect: 'terminal' as const };
    await lifecycle.onSpawnCompleted(id, outcome);
    stolen.resolve({ id: 'ours', runtimeName: 'tmux' });
    expect((await slow).hfCode).toBe('HF_LIFECYCLE_SESSION_BUSY');
    expect(calls.at(-1)).toBe('runtime.destroy ours');
    expect((await store.getSession(id))!.metadata.runtimeHandleId).toBe('theirs');
    const other = await rejection(lifecycle.onSpawnCompleted(id, { launchId: 'of long ago' }));
    expect(other.hfCode).toBe('HF_LIFECYCLE_SESSION_BUSY');
  });

  test('updateSession leaves the launch as it is', async () => {
    const { sessions, store } = await world(await make());
    const { id, launchId } = await sessions.spawn({ projectId: 'mer' });
    const record = (await store.getSession(id))!;
    await store.updateSession({ ...record, issueId: 'i-9', launchId: 'mine', launchedAt: new Date(0) });
    expect(await store.getSession(id)).toMatchObject({ issueId: 'i-9', launchId, launchedAt: record.launchedAt });
  });
});
