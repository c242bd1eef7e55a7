// Ending and restoring: what may overlap, what is retried, what is never touched (checks 25 and 26, R56, R57, R61).
import {
  IncompleteHandleError,
  InvalidArgumentError,
  NothingToResumeError,
  PortError,
  SessionBusyError,
  SessionManager,
  SessionNotFoundError,
  SessionNotRestorableError,
} from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, deferred, rejection, until, world } from './support';

describe.each(BACKENDS)('on $name', ({ make }) => {
  describe('25: kill', () => {
    test('of what has no handles rejects, and changes nothing', async () => {
      const { sessions, store, calls } = await world(await make());
      const before = await store.createSession({ projectId: 'mer' });
      const error = await rejection(sessions.kill('mer-1'));
      expect(error).toBeInstanceOf(IncompleteHandleError);
      expect(error).toMatchObject({ message: 'kill mer-1: session: incomplete teardown handle', op: 'kill', sessionId: 'mer-1', missing: ['runtimeHandleId', 'workspacePath'] });
      expect(await store.getSession('mer-1')).toEqual(before);
      expect(calls).toEqual([]);
    });

    test('by force ends it all the same, and tears down what is there', async () => {
      const { sessions, store, calls } = await world(await make());
      await store.createSession({ projectId: 'mer', metadata: { workspacePath: '/w/x' } });
      expect(await sessions.kill('mer-1', 'auto_cleanup', { force: true })).toBe(true);
      expect((await sessions.get('mer-1')).lifecycle).toMatchObject({ state: 'terminated', terminationReason: 'auto_cleanup' });
      expect(calls).toEqual(['workspace.destroy /w/x']);
    });

    test('of an unknown one is false; a bad reason is refused before anything', async () => {
      const { sessions, calls } = await world(await make());
      expect(await sessions.kill('mer-9')).toBe(false);
      expect(await rejection(sessions.kill('mer-9', 'tired' as never))).toBeInstanceOf(InvalidArgumentError);
      expect(calls).toEqual([]);
    });

    test('whose workspace refuses ends the session, and can be tried again', async () => {
      const { sessions, calls, fail } = await world(await make());
      await sessions.spawn({ projectId: 'mer' });
      fail['workspace.destroy'] = () => Promise.reject(new Error('uncommitted work'));
      const error = await rejection(sessions.kill('mer-1'));
      expect(error).toBeInstanceOf(PortError);
      expect(error).toMatchObject({ message: 'kill mer-1: workspace: uncommitted work', op: 'kill', sessionId: 'mer-1', step: 'workspace' });
      expect((await sessions.get('mer-1')).status).toBe('killed');
      delete fail['workspace.destroy'];
      expect(await sessions.kill('mer-1')).toBe(true);
      expect(calls.filter((call) => call.includes('destroy'))).toEqual(['runtime.destroy h1', 'workspace.destroy /w/mer-1', 'runtime.destroy h1', 'workspace.destroy /w/mer-1']);
    });

    test('whose runtime fails leaves the workspace alone', async () => {
      const { sessions, calls, fail } = await world(await make());
      await sessions.spawn({ projectId: 'mer' });
      fail['runtime.destroy'] = () => Promise.reject(new Error('no socket'));
      expect((await rejection(sessions.kill('mer-1'))).message).toBe('kill mer-1: runtime: no socket');
      expect(calls).not.toContain('workspace.destroy /w/mer-1');
      expect((await sessions.get('mer-1')).status).toBe('killed');
    });

    test('a second one joins the first, of any manager over the store', async () => {
      const { sessions, calls, fail, ports, store, lifecycle } = await world(await make());
      await sessions.spawn({ projectId: 'mer' });
      const gate = deferred();
      fail['runtime.destroy'] = () => gate.promise;
      const other = new SessionManager({ ...ports, store, lifecycle });
      const both = [sessions.kill('mer-1'), other.kill('mer-1')];
      await until(() => calls.includes('runtime.destroy h1'));
      expect(await rejection(other.restore('mer-1'))).toBeInstanceOf(SessionBusyError);
      gate.resolve();
      expect(await Promise.all(both)).toEqual([true, true]);
      expect(calls.filter((call) => call.includes('destroy'))).toHaveLength(2);
    });

    test('during a spawn has no handles yet; by force it wins', async () => {
      const { sessions, calls, fail } = await world(await make());
      const gate = deferred();
      fail['runtime.create'] = async () => {
        await gate.promise;
        return { id: 'h5', runtimeName: 'tmux' };
      };
      const spawning = rejection(sessions.spawn({ projectId: 'mer' }));
      await until(() => calls.includes('runtime.create mer-1'));
      expect((await rejection(sessions.kill('mer-1'))).missing).toEqual(['runtimeHandleId']);
      expect(await sessions.kill('mer-1', '', { force: true })).toBe(true);
      gate.resolve();
      expect((await spawning).message).toBe('spawn mer-1: completed: session: terminated');
      expect(calls).toContain('runtime.destroy h5');
      expect((await sessions.get('mer-1')).lifecycle.terminationReason).toBe('manually_killed');
    });

    test('a port may call back', async () => {
      const { sessions, fail } = await world(await make());
      await sessions.spawn({ projectId: 'mer' });
      fail['runtime.destroy'] = async () => {
        expect((await sessions.get('mer-1')).status).toBe('killed');
        await sessions.spawn({ projectId: 'mer' });
        expect(await sessions.list('mer')).toHaveLength(2);
      };
      expect(await sessions.kill('mer-1')).toBe(true);
    });
  });

  describe('26: restore', () => {
    test('refuses what is unknown, alive, or has nothing to go on from', async () => {
      const { sessions, store, calls } = await world(await make());
      const unknown = await rejection(sessions.restore('mer-9'));
      expect(unknown).toBeInstanceOf(SessionNotFoundError);
      expect(unknown.message).toBe('restore mer-9: session: not found');
      await sessions.spawn({ projectId: 'mer', prompt: 'p' });
      const live = await rejection(sessions.restore('mer-1'));
      expect(live).toBeInstanceOf(SessionNotRestorableError);
      expect(live.message).toBe('restore mer-1: session: not restorable (not terminal)');
      await store.createSession({ projectId: 'mer', lifecycle: { state: 'done' } });
      const empty = await rejection(sessions.restore('mer-2'));
      expect(empty).toBeInstanceOf(NothingToResumeError);
      expect(empty.message).toBe('restore mer-2: nothing to resume from');
      expect(calls.filter((call) => call.includes('restore'))).toEqual([]);
    });

    test('begins with the prompt again when there is no conversation', async () => {
      const { sessions, configs } = await world(await make());
      await sessions.spawn({ projectId: 'mer', prompt: 'again' });
      await sessions.kill('mer-1');
      const session = await sessions.restore('mer-1');
      expect(configs[1]!.launchCommand).toBe('launch again');
      expect(session.metadata.runtimeHandleId).toBe('h2');
      expect(session.lifecycle.activity).toEqual({ state: 'idle', lastActivityAt: null, source: 'none' });
    });

    test.each(['workspace.restore', 'agent.getLaunchCommand', 'runtime.create'])('a failure of %s leaves the session ended and its workspace there', async (port) => {
      const { sessions, store, calls, fail } = await world(await make());
      await sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await sessions.kill('mer-1');
      const before = await store.getSession('mer-1');
      calls.length = 0;
      fail[port] = () => Promise.reject(new Error('boom'));
      const error = await rejection(sessions.restore('mer-1'));
      const step = port === 'agent.getLaunchCommand' ? 'agent' : port.split('.')[0]!;
      expect(error).toMatchObject({ message: `restore mer-1: ${step}: boom`, hfCode: 'HF_LIFECYCLE_PORT_FAILED', op: 'restore', step });
      expect(await store.getSession('mer-1')).toEqual(before);
      expect(calls.filter((call) => call.includes('destroy'))).toEqual([]);
      delete fail[port];
      expect((await sessions.restore('mer-1')).status).toBe('spawning');
    });

    test('of two at once one wins, and the other is told that the session is busy', async () => {
      const { sessions, calls } = await world(await make());
      await sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await sessions.kill('mer-1');
      const outcomes = await Promise.allSettled([sessions.restore('mer-1'), sessions.restore('mer-1')]);
      expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
      const { reason } = outcomes.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
      expect(reason).toBeInstanceOf(SessionBusyError);
      expect(reason).toMatchObject({ message: 'restore mer-1: session: another operation is in progress', op: 'restore', sessionId: 'mer-1' });
      expect(calls.filter((call) => call.startsWith('runtime.create'))).toHaveLength(2);
    });

    test('two stores over one database: one wins as well', async () => {
      const place = await make();
      const first = await world(place);
      const second = await world(place);
      await first.sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await first.sessions.kill('mer-1');
      const gate = deferred();
      first.fail['workspace.restore'] = async (config: object) => {
        await gate.promise;
        return { ...config, path: '/w/mer-1' };
      };
      const winner = first.sessions.restore('mer-1');
      await until(() => first.calls.includes('workspace.restore mer-1'));
      const busy = await rejection(second.sessions.restore('mer-1'));
      expect(busy).toBeInstanceOf(SessionBusyError);
      expect(busy.message).toBe('restore mer-1: session: another operation is in progress');
      expect(await rejection(second.sessions.kill('mer-1'))).toBeInstanceOf(SessionBusyError);
      gate.resolve();
      expect((await winner).status).toBe('spawning');
      expect(second.calls).toEqual([]);
    });

    test('a session that somebody else reopens meanwhile is busy, and the new runtime is destroyed', async () => {
      const { sessions, lifecycle, calls, fail } = await world(await make());
      await sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await sessions.kill('mer-1');
      fail['runtime.create'] = async () => {
        await lifecycle.onSpawnCompleted('mer-1', {});
        return { id: 'h7', runtimeName: 'tmux' };
      };
      expect(await rejection(sessions.restore('mer-1'))).toBeInstanceOf(SessionBusyError);
      expect(calls.at(-1)).toBe('runtime.destroy h7');
      expect(calls.filter((call) => call === 'workspace.destroy /w/mer-1')).toHaveLength(1);
    });
  });

  test('get and send say what is missing', async () => {
    const { sessions, fail, sent } = await world(await make());
    expect((await rejection(sessions.get('mer-9'))).message).toBe('get mer-9: session: not found');
    expect(await sessions.list('nobody')).toEqual([]);
    await sessions.send('mer-9', 'hello');
    expect(sent).toEqual([{ sessionId: 'mer-9', message: 'hello' }]);
    fail['messenger.send'] = () => Promise.reject(new Error('no such pane'));
    const error = await rejection(sessions.send('mer-9', 'hello'));
    expect(error).toBeInstanceOf(PortError);
    expect(error).toMatchObject({ message: 'send mer-9: no such pane', op: 'send', sessionId: 'mer-9' });
  });
});
