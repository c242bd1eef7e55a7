// @pool forks: it waits long, for stores and not for threads of JavaScript.
// What an earlier life or an aborted call leaves: a runtime that nobody destroyed, what ports bring or destroy late; and cleanups that try again (F12).
import { InvalidArgumentError, LifecycleManager, Reaper, type SessionRecord } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, deferred, rejection, until, world } from './support';

type World = Awaited<ReturnType<typeof world>>;
const refuse = (): never => {
  throw new Error('refused');
};

describe.each(BACKENDS)('on $name', ({ make }) => {
  describe('the runtime of the life before', () => {
    const ENDS: { how: string; end: (w: World) => Promise<unknown>; destroyed: string[] }[] = [
      { how: 'a merge', end: ({ lifecycle }) => lifecycle.applyPrObservation('mer-1', { fetched: true, url: 'https://x/1', number: 1, merged: true }), destroyed: ['h1'] },
      { how: 'onKillRequested', end: ({ lifecycle }) => lifecycle.onKillRequested('mer-1'), destroyed: ['h1'] },
      {
        how: 'done',
        end: async ({ store }) => {
          const record = (await store.getSession('mer-1')) as SessionRecord;
          await store.updateSession({ ...record, lifecycle: { ...record.lifecycle, state: 'done' } });
        },
        destroyed: ['h1'],
      },
      {
        how: 'a kill whose runtime.destroy failed',
        end: async ({ sessions, fail }) => {
          fail['runtime.destroy'] = refuse;
          await rejection(sessions.kill('mer-1'));
          delete fail['runtime.destroy'];
        },
        destroyed: ['h1'],
      },
      { how: 'a kill', end: ({ sessions }) => sessions.kill('mer-1'), destroyed: [] },
      {
        how: 'a kill whose workspace refused',
        end: async ({ sessions, fail }) => {
          fail['workspace.destroy'] = refuse;
          await rejection(sessions.kill('mer-1'));
        },
        destroyed: [],
      },
      {
        how: 'a probe that found it dead',
        end: async ({ lifecycle, runtime, fail, clock }) => {
          fail['runtime.isAlive'] = () => false;
          await new Reaper({ lifecycle, runtimes: { tmux: runtime }, clock: clock.read }).tick();
        },
        destroyed: [],
      },
      {
        how: 'a merge and a cleanup',
        end: async ({ sessions, lifecycle }) => {
          await lifecycle.applyPrObservation('mer-1', { fetched: true, url: 'https://x/1', number: 1, merged: true });
          await sessions.cleanup('mer');
        },
        destroyed: [],
      },
    ];
    test.each(ENDS)('that ended by $how is destroyed once at most', async ({ end, destroyed }) => {
      const w = await world(await make());
      await w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await end(w);
      expect((await w.sessions.get('mer-1')).lifecycle.state).toMatch(/done|terminated/);
      w.calls.length = 0;
      // A restore that fails later has destroyed it as well, and the next one does not do that again.
      w.fail['runtime.create'] = refuse;
      await rejection(w.sessions.restore('mer-1'));
      delete w.fail['runtime.create'];
      await w.sessions.restore('mer-1');
      const runtime = w.calls.filter((call) => call.startsWith('runtime'));
      expect(runtime).toEqual([...destroyed.map((id) => `runtime.destroy ${id}`), 'runtime.create mer-1', 'runtime.create mer-1']);
      // The new one is nobody's of before.
      await w.lifecycle.onKillRequested('mer-1');
      await w.sessions.restore('mer-1');
      expect(w.calls).toContain('runtime.destroy h2');
    });

    test('is no reason not to restore if it cannot be destroyed; while that hangs, the signal counts', async () => {
      const w = await world(await make());
      await w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await w.lifecycle.onKillRequested('mer-1');
      const first = deferred<never>();
      w.fail['runtime.destroy'] = () => first.promise;
      const controller = new AbortController();
      const restoring = rejection(w.sessions.restore('mer-1', { signal: controller.signal }));
      await until(() => w.calls.includes('runtime.destroy h1'));
      controller.abort(new Error('enough'));
      expect((await restoring).message).toBe('restore mer-1: runtime: enough');
      // The next runtime may have the same handle: not before this one is through.
      expect((await rejection(w.sessions.restore('mer-1'))).hfCode).toBe('HF_LIFECYCLE_SESSION_BUSY');
      first.reject(new Error('refused'));
      w.fail['runtime.destroy'] = refuse;
      await until(() => w.sessions.restore('mer-1').then(({ status }) => status === 'spawning', () => false));
      expect(w.lines.filter((line) => line.startsWith('warn'))).toEqual(Array(2).fill('warn restore mer-1: destroying its former runtime failed'));
    });
  });

  describe('a workspace that comes back after its restore was aborted', () => {
    async function aborted(): Promise<{ w: World; arrive: (path?: string) => Promise<void> }> {
      const w = await world(await make());
      await w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await w.sessions.kill('mer-1');
      const late = deferred<object>();
      w.fail['workspace.restore'] = () => late.promise;
      const controller = new AbortController();
      const restoring = rejection(w.sessions.restore('mer-1', { signal: controller.signal }));
      await until(() => w.calls.includes('workspace.restore mer-1'));
      controller.abort(new Error('enough'));
      await restoring;
      delete w.fail['workspace.restore'];
      const arrive = async (path = '/w/mer-1'): Promise<void> => {
        w.calls.length = 0;
        late.resolve({ path, branch: 'b' });
        // What is done about it ends with commands of the store; after two more of those it is through.
        for (let at = 0; at < 20; at++) await w.store.patchSessionMetadata('mer-1', { agentSessionId: `a${at}` });
      };
      return { w, arrive };
    }

    test('and after a cleanup is taken away', async () => {
      const { w, arrive } = await aborted();
      expect(await w.sessions.cleanup('mer')).toEqual(['mer-1']);
      await arrive();
      await until(() => w.calls.includes('workspace.destroy /w/mer-1'));
      await until(async () => (await w.store.stats()).running === 0);
      // Nothing is left of it, and nothing is in the way of the next one.
      await until(async () => (await w.sessions.cleanupReport('mer')).skipped.length === 0);
      expect((await w.sessions.restore('mer-1')).status).toBe('spawning');
    });

    test('and refuses to go is found by the next cleanup', async () => {
      const { w, arrive } = await aborted();
      await w.sessions.cleanup('mer');
      w.fail['workspace.destroy'] = refuse;
      await arrive();
      await until(() => w.calls.includes('workspace.destroy /w/mer-1'));
      delete w.fail['workspace.destroy'];
      await until(async () => (await w.sessions.cleanup('mer')).includes('mer-1'));
    });

    test('without a cleanup stays where the next one finds it, wherever it is', async () => {
      const { w, arrive } = await aborted();
      await arrive('/w/elsewhere');
      expect(w.calls.filter((call) => call.includes('destroy'))).toEqual([]);
      expect(await w.sessions.cleanup('mer')).toEqual(['mer-1']);
      expect(w.calls).toContain('workspace.destroy /w/elsewhere');
    });

    test('is left alone if the session lives again', async () => {
      const { w, arrive } = await aborted();
      await w.sessions.cleanup('mer');
      await w.sessions.restore('mer-1');
      await arrive();
      expect(w.calls.filter((call) => call.includes('destroy'))).toEqual([]);
      expect((await w.sessions.get('mer-1')).lifecycle.isAlive).toBe(true);
    });
  });

  describe('what a port brings after its call was given up, where runtimes are called after their sessions', () => {
    type Asked = { late: ReturnType<typeof deferred<void>>; given: Promise<unknown>; give: () => void };
    const named = (config: { sessionId: string }) => ({ id: `tmux-${config.sessionId}`, runtimeName: 'tmux' });
    const ABORTED: { what: string; before: (w: World) => Promise<unknown>; run: (w: World, signal: AbortSignal) => Promise<unknown>; again: (w: World) => Promise<unknown> }[] = [
      {
        what: 'spawn',
        before: async () => {},
        run: ({ sessions }, signal) => rejection(sessions.spawn({ projectId: 'mer', prompt: 'p' }, { signal })),
        again: ({ sessions }) => sessions.restore('mer-1'),
      },
      {
        what: 'restore',
        before: async ({ sessions }) => (await sessions.spawn({ projectId: 'mer', prompt: 'p' }), sessions.kill('mer-1')),
        run: ({ sessions }, signal) => rejection(sessions.restore('mer-1', { signal })),
        again: ({ sessions }) => sessions.restore('mer-1'),
      },
      {
        what: 'resumeAll',
        before: async ({ sessions }) => (await sessions.spawn({ projectId: 'mer', prompt: 'p' }), sessions.stopAll()),
        run: ({ sessions }, signal) => sessions.resumeAll({ signal }),
        again: ({ sessions }) => sessions.resumeAll(),
      },
    ];
    const [SPAWN, RESTORE] = ABORTED as [(typeof ABORTED)[0], (typeof ABORTED)[0]];

    /** Runs it with a `port` that hangs the first time that it is asked, until `late` says so; the session is `mer-1`. */
    async function hanging(w: World, port: 'runtime.create' | 'workspace.create', { before, run }: (typeof ABORTED)[0]): Promise<Asked> {
      const good = { 'runtime.create': named, 'workspace.create': (config: { sessionId: string }) => ({ path: `/w/${config.sessionId}`, branch: 'b' }) };
      w.fail['runtime.create'] = named;
      await before(w);
      const late = deferred();
      w.calls.length = 0;
      w.fail[port] = async (config: { sessionId: string }) => {
        w.fail[port] = good[port];
        await late.promise;
        return good[port](config);
      };
      const controller = new AbortController();
      const given = run(w, controller.signal);
      await until(() => w.calls.includes(`${port} mer-1`));
      return { late, given, give: () => controller.abort(new Error('enough')) };
    }
    const aborted = async (...[w, port, how]: Parameters<typeof hanging>): Promise<Asked['late']> => {
      const { late, given, give } = await hanging(w, port, how);
      give();
      await given;
      w.calls.length = 0;
      return late;
    };
    /** What is done about something that came late begins with a question to the store. */
    async function seen({ store }: World): Promise<void> {
      for (let at = 0; at < 10; at++) await store.patchSessionMetadata('mer-1', { agentSessionId: `a${at}` });
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const destroyed = ({ calls }: World): string[] => calls.filter((call) => call.includes('.destroy'));

    test.each(ABORTED)('a runtime of an aborted $what is left alone if the session runs with it', async (how) => {
      const w = await world(await make());
      const late = await aborted(w, 'runtime.create', how);
      await how.again(w);
      late.resolve();
      await seen(w);
      expect(destroyed(w)).toEqual([]);
      expect((await w.sessions.get('mer-1')).lifecycle.isAlive).toBe(true);
    });

    test('a runtime of an aborted restore waits for the restore that is under way, and for one in another process is left', async () => {
      const place = await make();
      const w = await world(place);
      const late = await aborted(w, 'runtime.create', RESTORE);
      const gate = deferred();
      w.fail['runtime.create'] = async (config: { sessionId: string }) => (await gate.promise, named(config));
      const restoring = w.sessions.restore('mer-1');
      await until(() => w.calls.includes('runtime.create mer-1'));
      late.resolve();
      await seen(w);
      gate.resolve();
      await restoring;
      await seen(w);
      expect(destroyed(w)).toEqual([]);

      const other = await world(place);
      await w.sessions.kill('mer-1');
      const again = await aborted(w, 'runtime.create', { ...RESTORE, before: async () => {} });
      const { late: second, given } = await hanging(other, 'runtime.create', { ...RESTORE, before: async () => {}, run: ({ sessions }) => sessions.restore('mer-1') });
      again.resolve();
      await until(() => w.lines.includes('warn restore mer-1: its runtime came after the call was given up, and was left alone: the session may need it'));
      expect(w.lines.some((line) => line.startsWith('debug') && line.includes('tmux-mer-1'))).toBe(true);
      second.resolve();
      await given;
      expect([...destroyed(w), ...destroyed(other)]).toEqual([]);
    });

    test('a runtime is destroyed if the session has ended, and nobody brings it back meanwhile; or if it runs with another', async () => {
      const w = await world(await make());
      const late = await aborted(w, 'runtime.create', RESTORE);
      const gate = deferred();
      w.fail['runtime.destroy'] = () => gate.promise;
      late.resolve();
      await until(() => destroyed(w).length === 1);
      expect((await rejection(w.sessions.restore('mer-1'))).hfCode).toBe('HF_LIFECYCLE_SESSION_BUSY');
      gate.resolve();
      await until(() => w.sessions.restore('mer-1').then(() => true, () => false));
      await w.sessions.kill('mer-1');
      const other = await aborted(w, 'runtime.create', { ...RESTORE, before: async () => {} });
      w.fail['runtime.create'] = () => ({ id: 'another', runtimeName: 'tmux' });
      await w.sessions.restore('mer-1');
      other.resolve();
      await until(() => destroyed(w).length === 1);
      expect(destroyed(w)).toEqual(['runtime.destroy tmux-mer-1']);
      expect((await w.sessions.get('mer-1')).lifecycle.isAlive).toBe(true);
    });

    test('what an aborted spawn gets while it is being undone is destroyed after that', async () => {
      const w = await world(await make());
      const undoing = deferred();
      w.fail['workspace.destroy'] = () => undoing.promise;
      const { late, given, give } = await hanging(w, 'runtime.create', SPAWN);
      give();
      await until(() => destroyed(w).length === 1);
      late.resolve();
      await seen(w);
      expect(destroyed(w)).toEqual(['workspace.destroy /w/mer-1']);
      undoing.resolve();
      await given;
      await until(() => destroyed(w).length === 2);
      expect(destroyed(w)).toEqual(['workspace.destroy /w/mer-1', 'runtime.destroy tmux-mer-1']);
    });

    test('a workspace of an aborted spawn is left alone if the session lives in it; if that has ended, or was stopped, it stays for what comes next', async () => {
      const w = await world(await make());
      const late = await aborted(w, 'workspace.create', SPAWN);
      await w.sessions.restore('mer-1');
      late.resolve();
      await seen(w);
      expect(destroyed(w)).toEqual([]);

      const stopped = await world(await make());
      const later = await aborted(stopped, 'workspace.create', SPAWN);
      await stopped.sessions.restore('mer-1');
      await stopped.sessions.stopAll();
      later.resolve();
      await seen(stopped);
      expect(destroyed(stopped)).toEqual(['runtime.destroy tmux-mer-1']);
      expect((await stopped.sessions.resumeAll()).resumed).toEqual(['mer-1']);
    });

    test('a workspace of an aborted spawn is destroyed if nobody wants it; one that refuses, or comes after it was given back, is not lost', async () => {
      const w = await world(await make());
      const late = await aborted(w, 'workspace.create', SPAWN);
      w.fail['workspace.destroy'] = refuse;
      late.resolve();
      await until(() => destroyed(w).length === 1);
      delete w.fail['workspace.destroy'];
      await until(async () => (await w.sessions.cleanup('mer')).length === 1);

      const back = await world(await make());
      const later = await aborted(back, 'workspace.create', SPAWN);
      await back.sessions.restore('mer-1');
      await back.sessions.kill('mer-1');
      back.calls.length = 0;
      later.resolve();
      await until(() => destroyed(back).length === 1);
      expect(destroyed(back)).toEqual(['workspace.destroy /w/mer-1']);
    });

    test.each(['runtime.create', 'workspace.create'] as const)('%s that answers after close() is left alone: the next store may have brought the session back', async (port) => {
      const place = await make();
      const w = await world(place);
      const { late, given } = await hanging(w, port, SPAWN);
      await w.store.close();
      await given;
      const next = await world(place);
      next.fail['runtime.create'] = named;
      await next.sessions.recover();
      await next.sessions.restore('mer-1');
      w.calls.length = 0;
      late.resolve();
      const what = port.split('.')[0];
      await until(() => w.lines.includes(`warn spawn mer-1: its ${what} came after the call was given up, and was left alone: the session may need it`));
      expect(destroyed(w)).toEqual([]);
    });

    test('a restore that was overtaken leaves the runtime that the session runs with alone', async () => {
      const w = await world(await make());
      await RESTORE.before(w);
      w.calls.length = 0;
      w.fail['runtime.create'] = async (config: { sessionId: string }) => {
        await w.lifecycle.onSpawnCompleted('mer-1', { runtimeHandle: named(config) });
        return named(config);
      };
      expect((await rejection(w.sessions.restore('mer-1'))).hfCode).toBe('HF_LIFECYCLE_SESSION_BUSY');
      expect(destroyed(w)).toEqual([]);
    });
  });

  describe('what is being destroyed when the signal aborts keeps its session busy until it is through', () => {
    test('a workspace, by a cleanup', async () => {
      const w = await world(await make());
      for (let at = 0; at < 2; at++) await w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
      for (const id of ['mer-1', 'mer-2']) await w.lifecycle.onKillRequested(id);
      const gate = deferred();
      w.fail['workspace.destroy'] = () => gate.promise;
      const controller = new AbortController();
      const cleaning = w.sessions.cleanupReport('mer', { signal: controller.signal });
      await until(() => w.calls.includes('workspace.destroy /w/mer-1'));
      controller.abort(new Error('enough'));
      expect(await cleaning).toEqual({ cleaned: [], skipped: ['mer-1', 'mer-2'].map((id) => ({ id, reason: 'enough' })) });
      expect((await rejection(w.sessions.restore('mer-1'))).hfCode).toBe('HF_LIFECYCLE_SESSION_BUSY');
      expect((await w.sessions.restore('mer-2')).status).toBe('spawning');
      gate.resolve();
      // It is noted as gone, so nobody destroys it again.
      await until(() => w.sessions.kill('mer-1').then(() => true, () => false));
      expect(await w.sessions.cleanup('mer')).toEqual([]);
      expect((await w.sessions.restore('mer-1')).status).toBe('spawning');
    });

    test('a runtime, by a cleanup, which then does not go on', async () => {
      const w = await world(await make());
      await w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await w.lifecycle.onKillRequested('mer-1');
      const gate = deferred();
      w.fail['runtime.destroy'] = () => gate.promise;
      const controller = new AbortController();
      const cleaning = w.sessions.cleanupReport('mer', { signal: controller.signal });
      await until(() => w.calls.includes('runtime.destroy h1'));
      controller.abort(new Error('enough'));
      expect((await cleaning).skipped).toEqual([{ id: 'mer-1', reason: 'enough' }]);
      gate.resolve();
      await until(() => w.sessions.restore('mer-1').then(() => true, () => false));
      expect(w.calls.filter((call) => call.includes('destroy'))).toEqual(['runtime.destroy h1']);
    });

    test('a runtime, by stopAll; another call, or resumeAll, goes on then', async () => {
      const w = await world(await make());
      await w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
      const gate = deferred();
      w.fail['runtime.destroy'] = () => gate.promise;
      const controller = new AbortController();
      const stopping = w.sessions.stopAll({ signal: controller.signal });
      await until(() => w.calls.includes('runtime.destroy h1'));
      controller.abort(new Error('enough'));
      expect(await stopping).toEqual({ stopped: [], failed: [{ id: 'mer-1', reason: 'stop mer-1: runtime: enough' }] });
      expect((await w.sessions.resumeAll()).failed).toEqual([{ id: 'mer-1', reason: 'restore mer-1: session: another operation is in progress' }]);
      gate.resolve();
      await until(async () => (await w.sessions.resumeAll()).resumed.length === 1);
      expect(w.calls.filter((call) => call.startsWith('runtime'))).toEqual(['runtime.create mer-1', 'runtime.destroy h1', 'runtime.create mer-1']);
    });

    test('the runtime of the life before, by a restore; the next one does not destroy it again', async () => {
      const w = await world(await make());
      await w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await w.lifecycle.onKillRequested('mer-1');
      const gate = deferred();
      w.fail['runtime.destroy'] = () => gate.promise;
      const controller = new AbortController();
      const restoring = rejection(w.sessions.restore('mer-1', { signal: controller.signal }));
      await until(() => w.calls.includes('runtime.destroy h1'));
      controller.abort(new Error('enough'));
      await restoring;
      gate.resolve();
      await until(() => w.sessions.restore('mer-1').then(() => true, () => false));
      expect(w.calls.filter((call) => call.startsWith('runtime'))).toEqual(['runtime.create mer-1', 'runtime.destroy h1', 'runtime.create mer-1']);
    });
  });

  test('recover() does not list as lost what was started anew, or ended, while its runtime was asked', async () => {
    const w = await world(await make());
    for (let at = 0; at < 3; at++) await w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
    const gate = deferred();
    w.fail['runtime.isAlive'] = async () => (await gate.promise, false);
    const recovering = w.sessions.recover();
    await until(() => w.calls.filter((call) => call.startsWith('runtime.isAlive')).length === 3);
    await w.sessions.kill('mer-1');
    await w.sessions.restore('mer-1');
    await w.sessions.kill('mer-2');
    gate.resolve();
    expect(await recovering).toMatchObject({ adopted: [], lost: ['mer-3'], unclear: [], failed: [] });
    expect((await w.sessions.get('mer-1')).status).toBe('spawning');
  });

  describe('12: cleanupReport', () => {
    async function ended(count: number): Promise<World> {
      const w = await world(await make());
      for (let at = 0; at < count; at++) await w.sessions.spawn({ projectId: 'mer' });
      for (let at = 0; at < count; at++) await w.lifecycle.onKillRequested(`mer-${at + 1}`);
      w.calls.length = 0;
      return w;
    }

    test('tries again what refuses, waiting twice as long each time, and only that', async () => {
      const w = await ended(3);
      const tried: Record<string, number[]> = {};
      w.fail['workspace.destroy'] = ({ sessionId }: { sessionId: string }) => {
        (tried[sessionId] ??= []).push(performance.now());
        if (sessionId !== 'mer-1' && tried[sessionId]!.length < (sessionId === 'mer-2' ? 2 : 9)) refuse();
      };
      expect(await w.sessions.cleanupReport('mer', { retries: 2, backoffMs: 40 })).toEqual({ cleaned: ['mer-1', 'mer-2'], skipped: [{ id: 'mer-3', reason: 'refused' }] });
      expect([tried['mer-1']!.length, tried['mer-2']!.length, tried['mer-3']!.length]).toEqual([1, 2, 3]);
      const [first, second, third] = tried['mer-3'] as [number, number, number];
      expect(second - first).toBeGreaterThanOrEqual(38);
      expect(third - second).toBeGreaterThanOrEqual(78);
      // Its runtime was destroyed with the first try, and is not anybody's any more.
      expect(w.calls.filter((call) => call.startsWith('runtime')).sort()).toEqual(['runtime.destroy h1', 'runtime.destroy h2', 'runtime.destroy h3']);
    });

    test('by default tries once', async () => {
      const w = await ended(1);
      w.fail['workspace.destroy'] = refuse;
      expect((await w.sessions.cleanupReport('mer')).skipped).toHaveLength(1);
      expect(w.calls.filter((call) => call.startsWith('workspace'))).toHaveLength(1);
    });

    test('the signal ends the wait, and a port that hangs; a close rejects', async () => {
      const w = await ended(2);
      w.fail['workspace.destroy'] = refuse;
      const controller = new AbortController();
      const waiting = w.sessions.cleanupReport('mer', { retries: 5, backoffMs: 2 ** 31 - 1, signal: controller.signal });
      await until(() => w.calls.includes('workspace.destroy /w/mer-2'));
      controller.abort(new Error('enough'));
      expect((await waiting).skipped.map(({ id }) => id)).toEqual(['mer-1', 'mer-2']);
      w.fail['workspace.destroy'] = () => new Promise(() => {});
      w.calls.length = 0;
      const again = new AbortController();
      const hanging = w.sessions.cleanupReport('mer', { retries: 5, signal: again.signal });
      await until(() => w.calls.includes('workspace.destroy /w/mer-1'));
      again.abort(new Error('enough'));
      expect(await hanging).toEqual({ cleaned: [], skipped: [1, 2].map((num) => ({ id: `mer-${num}`, reason: 'enough' })) });
      expect(w.calls.filter((call) => call.startsWith('workspace'))).toHaveLength(1);
      w.fail['workspace.destroy'] = refuse;
      w.calls.length = 0;
      const closing = rejection(w.sessions.cleanupReport('mer', { retries: 5, backoffMs: 60_000 }));
      await until(() => w.calls.includes('workspace.destroy /w/mer-2'));
      await w.store.close();
      expect((await closing).hfCode).toBe('HF_CLOSED');
    });

    test('what is restored while it waits is left alone, and wrong options are refused', async () => {
      const w = await world(await make());
      await w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await w.lifecycle.onKillRequested('mer-1');
      w.fail['workspace.destroy'] = refuse;
      const cleaning = w.sessions.cleanupReport('mer', { retries: 2, backoffMs: 150 });
      await until(() => w.calls.includes('workspace.destroy /w/mer-1'));
      // As soon as the first round has let go of it.
      await until(() => w.sessions.restore('mer-1').then(() => true, () => false));
      expect(await cleaning).toEqual({ cleaned: [], skipped: [] });
      expect(w.calls.filter((call) => call.startsWith('workspace.destroy'))).toHaveLength(1);
      expect((await w.sessions.get('mer-1')).lifecycle.isAlive).toBe(true);
      for (const bad of [{ retries: -1 }, { retries: 1.5 }, { backoffMs: 0 }, { backoffMs: 2 ** 31 }, { signal: 1 }]) {
        expect(await rejection(w.sessions.cleanupReport('mer', bad as never))).toBeInstanceOf(InvalidArgumentError);
      }
    });
  });

  test('the reaper and recover() read no prompts; whoever answers in his own way is asked', async () => {
    const { store, sessions, runtime, lifecycle, fail } = await world(await make());
    await sessions.spawn({ projectId: 'mer', prompt: 'secret' });
    expect((await lifecycle.runningSessions())[0]!.metadata.prompt).toBe('secret');
    fail['runtime.isAlive'] = () => true;
    const asked: string[] = [];
    class Own extends LifecycleManager {
      override async runningSessions(): Promise<SessionRecord[]> {
        asked.push('own');
        return super.runningSessions();
      }
    }
    await new Reaper({ lifecycle: new Own({ store }), runtimes: { tmux: runtime } }).tick();
    expect(asked).toEqual(['own']);
    await new Reaper({ lifecycle, runtimes: { tmux: runtime } }).tick();
    expect(await sessions.recover()).toMatchObject({ adopted: ['mer-1'] });
    expect((await store.getSession('mer-1'))!.metadata.prompt).toBe('secret');
  });
});
