// What an earlier life or an aborted restore leaves: a runtime that nobody destroyed, a workspace that came late; and cleanups that try again (F12).
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
      w.fail['runtime.destroy'] = () => new Promise(() => {});
      const controller = new AbortController();
      const restoring = rejection(w.sessions.restore('mer-1', { signal: controller.signal }));
      await until(() => w.calls.includes('runtime.destroy h1'));
      controller.abort(new Error('enough'));
      expect((await restoring).message).toBe('restore mer-1: runtime: enough');
      w.fail['runtime.destroy'] = refuse;
      expect((await w.sessions.restore('mer-1')).status).toBe('spawning');
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
      expect(await cleaning).toEqual({ cleaned: [], skipped: [{ id: 'mer-1', reason: 'refused' }] });
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
