// Stopping all that runs, and bringing just that back (F11): what a user kills stays dead, and whatever ports do, calling again goes on.
import { InvalidArgumentError, type Session } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, deferred, rejection, until, world } from './support';

type World = Awaited<ReturnType<typeof world>>;
const never = (): Promise<never> => new Promise(() => {});
const refuse = (): never => {
  throw new Error('refused');
};

async function spawned({ sessions }: World, count: number): Promise<Session[]> {
  const all = [];
  for (let at = 0; at < count; at++) all.push(await sessions.spawn({ projectId: 'mer', prompt: `p${at}` }));
  return all;
}
const statuses = async ({ sessions }: World): Promise<string[]> => (await sessions.list('mer')).map(({ status }) => status);

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('what runs is ended with its runtime, keeps its workspace, and comes back after a restart; what has ended before does not', async () => {
    const place = await make();
    const first = await world(place);
    await spawned(first, 3);
    await first.sessions.kill('mer-2');
    await first.store.patchSessionMetadata('mer-3', { agentSessionId: 'talk' });
    first.calls.length = 0;
    expect(await first.sessions.stopAll()).toEqual({ stopped: ['mer-1', 'mer-3'], failed: [] });
    expect([...first.calls].sort()).toEqual(['runtime.destroy h1', 'runtime.destroy h3']);
    expect((await first.store.getSession('mer-1'))!.lifecycle).toMatchObject({ state: 'terminated', terminationReason: 'auto_cleanup', isAlive: false });
    expect(first.notified).toEqual([]);
    // Nothing is left to be done, and no cleanup takes away what it is to be resumed in.
    expect(await first.sessions.stopAll()).toEqual({ stopped: [], failed: [] });
    expect(await first.sessions.cleanup('mer')).toEqual([]);
    expect(first.calls).toHaveLength(2);
    await first.store.close();
    const second = await world(place);
    expect(await second.sessions.recover()).toMatchObject({ adopted: [], lost: [], finished: [] });
    expect(await second.sessions.resumeAll()).toEqual({ resumed: ['mer-1', 'mer-3'], failed: [] });
    expect(await statuses(second)).toEqual(['spawning', 'killed', 'spawning']);
    expect(second.configs.map(({ launchCommand }) => launchCommand).sort()).toEqual(['launch p0', 'resume talk']);
    expect(second.calls.filter((call) => call.includes('destroy'))).toEqual([]);
    expect(await second.sessions.resumeAll()).toEqual({ resumed: [], failed: [] });
  });

  test('one project only', async () => {
    const w = await world(await make());
    await w.store.upsertProject({ id: 'other', path: '/' });
    await spawned(w, 1);
    await w.sessions.spawn({ projectId: 'other', prompt: 'p' });
    expect((await w.sessions.stopAll({ projectId: 'other' })).stopped).toEqual(['other-1']);
    expect((await w.sessions.stopAll()).stopped).toEqual(['mer-1']);
    expect((await w.sessions.resumeAll({ projectId: 'mer' })).resumed).toEqual(['mer-1']);
    expect((await w.sessions.resumeAll({ projectId: 'nobody' })).resumed).toEqual([]);
    expect((await w.sessions.resumeAll()).resumed).toEqual(['other-1']);
  });

  test('what a user kills, whose pull request is merged, or what is deleted meanwhile stays that way; what he restores is not restored twice', async () => {
    const w = await world(await make());
    await spawned(w, 5);
    await w.sessions.stopAll();
    await w.sessions.kill('mer-1');
    await w.lifecycle.applyPrObservation('mer-2', { fetched: true, url: 'https://x/2', number: 2, merged: true });
    await w.store.deleteSession('mer-3');
    await w.sessions.restore('mer-4');
    await w.lifecycle.applyPrObservation('mer-5', { fetched: true, url: 'https://x/5', number: 5, closed: true });
    expect(await w.sessions.resumeAll()).toEqual({ resumed: ['mer-5'], failed: [] });
    expect(await statuses(w)).toEqual(['cleanup', 'cleanup', 'spawning', 'spawning']);
    expect(await w.sessions.cleanup('mer')).toEqual(['mer-2']);
    expect(w.calls.filter((call) => call.startsWith('runtime.create'))).toHaveLength(7);
  });

  test('a runtime that cannot be destroyed: the session is stopped, another call tries again, and so does the restore', async () => {
    const w = await world(await make());
    await spawned(w, 1);
    w.fail['runtime.destroy'] = refuse;
    for (let at = 0; at < 2; at++) expect(await w.sessions.stopAll()).toEqual({ stopped: [], failed: [{ id: 'mer-1', reason: 'stop mer-1: runtime: refused' }] });
    expect(await statuses(w)).toEqual(['cleanup']);
    delete w.fail['runtime.destroy'];
    expect(await w.sessions.stopAll()).toEqual({ stopped: ['mer-1'], failed: [] });
    expect(await w.sessions.stopAll()).toEqual({ stopped: [], failed: [] });
    await w.sessions.resumeAll();
    w.fail['runtime.destroy'] = refuse;
    await w.sessions.stopAll();
    delete w.fail['runtime.destroy'];
    w.calls.length = 0;
    expect((await w.sessions.resumeAll()).resumed).toEqual(['mer-1']);
    expect(w.calls.filter((call) => call.startsWith('runtime'))).toEqual(['runtime.destroy h2', 'runtime.create mer-1']);
  });

  test.each(['workspace.restore', 'agent.getLaunchCommand', 'agent.getEnvironment', 'runtime.create'])('a %s that fails keeps one session from coming back, and it is tried again', async (port) => {
    const w = await world(await make());
    await spawned(w, 2);
    await w.sessions.stopAll();
    let count = 0;
    const good: Record<string, (...args: any[]) => unknown> = {
      'workspace.restore': (config) => ({ ...config, path: `/w/${config.sessionId}` }),
      'agent.getLaunchCommand': () => 'launch',
      'agent.getEnvironment': () => ({}),
      'runtime.create': ({ sessionId }) => ({ id: `n-${sessionId}`, runtimeName: 'tmux' }),
    };
    w.fail[port] = ((...args: unknown[]) => (++count === 1 ? refuse() : good[port]!(...args))) as never;
    const report = await w.sessions.resumeAll({ concurrency: 1 });
    expect(report).toEqual({ resumed: ['mer-2'], failed: [{ id: 'mer-1', reason: `restore mer-1: ${port.split('.')[0]}: refused` }] });
    expect(await w.sessions.resumeAll()).toEqual({ resumed: ['mer-1'], failed: [] });
  });

  test('sessions that somebody is at are not waited for, and say so', async () => {
    const w = await world(await make());
    await spawned(w, 1);
    const gate = deferred();
    w.fail['runtime.create'] = () => gate.promise.then(refuse);
    const spawning = rejection(w.sessions.spawn({ projectId: 'mer' }));
    await until(() => w.calls.includes('runtime.create mer-2'));
    w.fail['runtime.destroy'] = async ({ id }: { id: string }) => {
      // From inside a port: what would wait for itself is told at once.
      if (id === 'h1') inside.push(await w.sessions.stopAll(), await w.sessions.resumeAll(), (await rejection(w.sessions.kill('mer-1'))).hfCode);
    };
    const inside: unknown[] = [];
    const busy = (op: string, id: string) => ({ id, reason: `${op} ${id}: session: another operation is in progress` });
    expect(await w.sessions.stopAll()).toEqual({ stopped: ['mer-1'], failed: [busy('stop', 'mer-2')] });
    expect(inside).toEqual([
      { stopped: [], failed: [busy('stop', 'mer-2'), busy('stop', 'mer-1')] },
      { resumed: [], failed: [busy('restore', 'mer-1')] },
      'HF_LIFECYCLE_SESSION_BUSY',
    ]);
    gate.resolve();
    await spawning;
    expect(await w.sessions.resumeAll()).toEqual({ resumed: [], failed: [{ id: 'mer-1', reason: 'restore mer-1: runtime: refused' }] });
  });

  test('a kill while it is resumed is refused, and one right after it counts', async () => {
    const w = await world(await make());
    await spawned(w, 1);
    await w.sessions.stopAll();
    const gate = deferred<{ id: string; runtimeName: string }>();
    w.fail['runtime.create'] = () => gate.promise;
    const resuming = w.sessions.resumeAll();
    await until(() => w.calls.filter((call) => call === 'runtime.create mer-1').length === 2);
    expect((await rejection(w.sessions.kill('mer-1'))).hfCode).toBe('HF_LIFECYCLE_SESSION_BUSY');
    gate.resolve({ id: 'h9', runtimeName: 'tmux' });
    expect((await resuming).resumed).toEqual(['mer-1']);
    await w.sessions.kill('mer-1');
    expect((await w.sessions.resumeAll()).resumed).toEqual([]);
  });

  test('what has no runtime, or nothing to go on from, says so', async () => {
    const w = await world(await make());
    await w.store.createSession({ projectId: 'mer' });
    await w.sessions.spawn({ projectId: 'mer' });
    expect(await w.sessions.stopAll()).toEqual({ stopped: ['mer-2'], failed: [{ id: 'mer-1', reason: 'stop mer-1: session: incomplete teardown handle' }] });
    expect(await w.sessions.resumeAll()).toEqual({ resumed: [], failed: [{ id: 'mer-2', reason: 'restore mer-2: nothing to resume from' }] });
    expect((await w.store.getSession('mer-1'))!.lifecycle.state).toBe('not_started');
  });

  test('what hangs is given up by the signal, what was not begun is not, and another call goes on', async () => {
    const w = await world(await make());
    await spawned(w, 10);
    w.fail['runtime.destroy'] = never;
    const controller = new AbortController();
    const stopping = w.sessions.stopAll({ signal: controller.signal });
    await until(() => w.calls.filter((call) => call.startsWith('runtime.destroy')).length === 8);
    controller.abort(new Error('enough'));
    const { stopped, failed } = await stopping;
    expect(stopped).toEqual([]);
    expect(failed.map(({ reason }) => reason)).toEqual(Array.from({ length: 10 }, (_, at) => `stop mer-${at + 1}: ${at < 8 ? 'runtime: ' : ''}enough`));
    expect((await w.sessions.list('mer')).filter(({ lifecycle }) => lifecycle.isAlive).map(({ id }) => id)).toEqual(['mer-9', 'mer-10']);
    delete w.fail['runtime.destroy'];
    expect((await w.sessions.stopAll()).stopped).toHaveLength(10);
    w.fail['workspace.restore'] = never;
    const again = new AbortController();
    const resuming = w.sessions.resumeAll({ signal: again.signal, concurrency: 2 });
    await until(() => w.calls.filter((call) => call.startsWith('workspace.restore')).length === 2);
    again.abort(new Error('later'));
    const report = await resuming;
    expect(report.resumed).toEqual([]);
    expect(report.failed.map(({ reason }) => reason)).toEqual(Array.from({ length: 10 }, (_, at) => `restore mer-${at + 1}: ${at < 2 ? 'workspace: ' : ''}later`));
    delete w.fail['workspace.restore'];
    expect((await w.sessions.resumeAll()).resumed).toHaveLength(10);
    const aborted = await w.sessions.stopAll({ signal: AbortSignal.abort(new Error('no')) });
    expect([aborted.stopped, aborted.failed.length, await statuses(w)]).toEqual([[], 10, Array(10).fill('spawning')]);
  });

  test('a close in the middle rejects, and the next store goes on', async () => {
    const place = await make();
    const first = await world(place);
    await spawned(first, 1);
    first.fail['runtime.destroy'] = never;
    const stopping = rejection(first.sessions.stopAll());
    await until(() => first.calls.includes('runtime.destroy h1'));
    await first.store.close();
    expect((await stopping).hfCode).toBe('HF_CLOSED');
    const second = await world(place);
    expect((await second.sessions.recover()).finished).toEqual(['mer-1']);
    expect(second.calls).toEqual(['runtime.destroy h1']);
    second.fail['runtime.create'] = never;
    const resuming = rejection(second.sessions.resumeAll());
    await until(() => second.calls.includes('runtime.create mer-1'));
    await second.store.close();
    expect((await resuming).hfCode).toBe('HF_CLOSED');
    const third = await world(place);
    await third.sessions.recover();
    expect((await third.sessions.resumeAll()).resumed).toEqual(['mer-1']);
    expect(third.calls.filter((call) => call.includes('destroy'))).toEqual([]);
  });

  test('of two stores that resume at once each session comes back once, and none twice', async () => {
    const place = await make();
    const [first, second] = [await world(place), await world(place)];
    await spawned(first, 6);
    await first.sessions.stopAll();
    const reports = await Promise.all([first.sessions.resumeAll(), second.sessions.resumeAll()]);
    const resumed = reports.flatMap((report) => report.resumed).sort();
    expect(resumed).toEqual(['mer-1', 'mer-2', 'mer-3', 'mer-4', 'mer-5', 'mer-6']);
    for (const { reason } of reports.flatMap((report) => report.failed)) expect(reason).toMatch(/another operation is in progress/);
    expect([...first.calls, ...second.calls].filter((call) => call.startsWith('runtime.create'))).toHaveLength(12);
    expect(await statuses(first)).toEqual(Array(6).fill('spawning'));
  });

  test('no more than `concurrency` come back at a time; wrong options are refused', async () => {
    const w = await world(await make());
    await spawned(w, 5);
    await w.sessions.stopAll();
    let [open, most] = [0, 0];
    w.fail['agent.getLaunchCommand'] = async () => {
      most = Math.max(most, ++open);
      await until(() => most > 1);
      open--;
      return 'launch';
    };
    expect((await w.sessions.resumeAll({ concurrency: 2 })).resumed).toHaveLength(5);
    expect(most).toBe(2);
    for (const bad of [{ concurrency: 0 }, { projectId: '' }, { signal: 5 }, 7]) {
      expect(await rejection(w.sessions.resumeAll(bad as never))).toBeInstanceOf(InvalidArgumentError);
    }
    expect(await rejection(w.sessions.stopAll({ projectId: 7 } as never))).toBeInstanceOf(InvalidArgumentError);
  });
});
