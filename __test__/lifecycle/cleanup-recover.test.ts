// @pool forks: it waits long, for stores and not for threads of JavaScript.
// What is left behind: workspaces of sessions that have ended (check 27), and operations that a crash interrupted (F1).
import { describe, expect, test } from 'vitest';

import { BACKENDS, rejection, until, world } from './support';

const never = (): Promise<never> => new Promise(() => {});

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('27: cleanup reclaims what has ended, skips what refuses, and reports nothing twice', async () => {
    const { sessions, lifecycle, calls, fail } = await world(await make());
    for (let i = 0; i < 5; i++) await sessions.spawn({ projectId: 'mer' });
    await sessions.kill('mer-1');
    await lifecycle.onKillRequested('mer-2', 'auto_cleanup');
    await lifecycle.onKillRequested('mer-3', 'runtime_lost');
    await lifecycle.onKillRequested('mer-4', 'runtime_lost');
    calls.length = 0;
    fail['workspace.destroy'] = ({ sessionId }: { sessionId: string }) => {
      if (sessionId === 'mer-3') throw new Error('uncommitted work');
    };
    fail['runtime.destroy'] = () => Promise.reject(new Error('is gone'));
    expect(await sessions.cleanupReport('mer')).toEqual({ cleaned: ['mer-2', 'mer-4'], skipped: [{ id: 'mer-3', reason: 'uncommitted work' }] });
    expect(calls.filter((call) => call.startsWith('workspace'))).toEqual(['workspace.destroy /w/mer-2', 'workspace.destroy /w/mer-3', 'workspace.destroy /w/mer-4']);
    delete fail['workspace.destroy'];
    expect(await sessions.cleanup('mer')).toEqual(['mer-3']);
    expect(await sessions.cleanup('mer')).toEqual([]);
    expect((await sessions.get('mer-5')).status).toBe('spawning');
  });

  test('27: a restored session that ends again is reclaimed again', async () => {
    const { sessions, lifecycle } = await world(await make());
    await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    await sessions.kill('mer-1');
    await sessions.restore('mer-1');
    await lifecycle.onKillRequested('mer-1');
    expect(await sessions.cleanup('mer')).toEqual(['mer-1']);
  });

  /** Ends a store in the middle of an operation, as a crash would: the ports never answer. */
  async function interrupted(port: string, begin: (w: Awaited<ReturnType<typeof world>>) => Promise<unknown>) {
    const place = await make();
    const first = await world(place);
    first.fail[port] = never;
    const failed = rejection(begin(first));
    await until(() => first.calls.some((call) => call.startsWith(port)));
    await first.store.close();
    expect((await failed).hfCode).toBe('HF_CLOSED');
    const second = await world(place);
    return { ...second, report: await second.sessions.recover() };
  }

  test('an interrupted spawn is parked as errored, and its workspace reclaimed', async () => {
    const { report, sessions, calls } = await interrupted('runtime.create', ({ sessions }) => sessions.spawn({ projectId: 'mer' }));
    expect(report).toEqual({ finished: [], parked: ['mer-1'], adopted: [], lost: [], unclear: [], failed: [] });
    expect((await sessions.get('mer-1')).status).toBe('errored');
    expect(calls).toEqual(['workspace.destroy /w/mer-1']);
    expect(await sessions.cleanup('mer')).toEqual([]);
    expect(await sessions.recover()).toEqual({ finished: [], parked: [], adopted: [], lost: [], unclear: [], failed: [] });
  });

  test('a spawn without a workspace yet is parked too', async () => {
    const { report, sessions, calls } = await interrupted('workspace.create', ({ sessions }) => sessions.spawn({ projectId: 'mer' }));
    expect(report.parked).toEqual(['mer-1']);
    expect(calls).toEqual([]);
    expect((await sessions.get('mer-1')).status).toBe('errored');
  });

  test.each(['runtime.destroy', 'workspace.destroy'])('a kill that was interrupted at %s is finished', async (port) => {
    const { report, sessions, calls } = await interrupted(port, async ({ sessions }) => {
      await sessions.spawn({ projectId: 'mer' });
      return sessions.kill('mer-1');
    });
    expect(report.finished).toEqual(['mer-1']);
    // What is known to be gone is not destroyed again: its handle may be somebody else's by now.
    const rest = ['runtime.destroy h1', 'workspace.destroy /w/mer-1'];
    expect(calls).toEqual(port === 'runtime.destroy' ? rest : rest.slice(1));
    expect((await sessions.get('mer-1')).status).toBe('killed');
    expect(await sessions.cleanup('mer')).toEqual([]);
  });

  test('an interrupted restore leaves the session ended, and can be tried again', async () => {
    const { report, sessions, calls } = await interrupted('workspace.restore', async ({ sessions }) => {
      await sessions.spawn({ projectId: 'mer', prompt: 'p' });
      await sessions.kill('mer-1');
      return sessions.restore('mer-1');
    });
    expect(report.finished).toEqual(['mer-1']);
    expect(calls).toEqual([]);
    expect((await sessions.get('mer-1')).status).toBe('killed');
    expect((await sessions.restore('mer-1')).status).toBe('spawning');
  });

  test('running sessions are asked: the living go on, the dead end, the others wait', async () => {
    const place = await make();
    const first = await world(place);
    for (let i = 0; i < 3; i++) await first.sessions.spawn({ projectId: 'mer' });
    await first.store.close();
    const second = await world(place);
    second.fail['runtime.isAlive'] = ({ id }: { id: string }) => {
      if (id === 'h3') throw new Error('no socket');
      return id === 'h1';
    };
    expect(await second.sessions.recover()).toEqual({ finished: [], parked: [], adopted: ['mer-1'], lost: ['mer-2'], unclear: ['mer-3'], failed: [] });
    expect((await second.sessions.list('mer')).map(({ status }) => status)).toEqual(['spawning', 'killed', 'detecting']);
    expect(second.notified.map(({ type, sessionId }) => `${sessionId} ${type}`)).toEqual(['mer-2 reaction.agent-exited']);
  });

  test('operations of a store that is open are left alone', async () => {
    const place = await make();
    const first = await world(place);
    const second = await world(place);
    first.fail['runtime.create'] = never;
    const spawning = rejection(first.sessions.spawn({ projectId: 'mer' }));
    await until(() => first.calls.includes('runtime.create mer-1'));
    expect((await second.sessions.recover()).parked).toEqual([]);
    expect((await second.sessions.get('mer-1')).status).toBe('spawning');
    await first.store.close();
    await spawning;
  });
});
