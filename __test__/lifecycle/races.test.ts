// What meets in the wrong moment: an end and a start, an abort and a commit, two stores and one message, two sets of comments.
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { Broadcaster, CdcPoller } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, TestClock, testPorts, until, world } from './support';

/** Runs an operation as soon as the session is free: the one that was given up may still be taking something away. */
function onceFree(run: () => Promise<unknown>): Promise<void> {
  return until(async () => {
    const error = await run().then(() => undefined, (reason: unknown) => reason);
    if (error !== undefined) expect(error).toMatchObject({ hfCode: 'HF_LIFECYCLE_SESSION_BUSY' });
    return error === undefined;
  });
}

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('a forced kill that meets a spawn leaves no runtime behind', async () => {
    const { sessions, store, calls } = await world(await make());
    for (let round = 1; round <= 20; round++) {
      const id = `mer-${round}`;
      const spawned = sessions.spawn({ projectId: 'mer' }).catch(() => undefined);
      await until(async () => (await store.getSession(id)) !== null);
      for (let turns = 0; turns < round % 7; turns++) await turn();
      await sessions.kill(id, 'manually_killed', { force: true }).catch(() => false);
      await spawned;
      expect((await sessions.get(id)).lifecycle.state).toBe('terminated');
      // What a kill left because the spawn had not come to it is the spawn's, or a second kill's, to tear down.
      await sessions.kill(id, 'manually_killed', { force: true });
    }
    const made = calls.filter((call) => call.startsWith('runtime.create')).length;
    const destroyed = new Set(calls.filter((call) => call.startsWith('runtime.destroy')));
    expect(destroyed.size).toBe(made);
  });

  test('an abort in the last step of a restore: the session has ended, or it lives and so does its runtime', async () => {
    const { sessions, store, calls, runtime } = await world(await make());
    await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    const create = runtime.create.bind(runtime);
    for (let round = 0; round < 12; round++) {
      await onceFree(() => sessions.kill('mer-1'));
      const abort = new AbortController();
      runtime.create = async (config) => {
        const handle = await create(config);
        void (async () => {
          for (let turns = 0; turns < round % 5; turns++) await turn();
          abort.abort(new Error('changed my mind'));
        })();
        return handle;
      };
      await sessions.restore('mer-1', { signal: abort.signal }).catch(() => undefined);
      const record = await store.getSession('mer-1');
      const isDestroyed = calls.includes(`runtime.destroy ${record!.metadata.runtimeHandleId}`);
      expect(record!.lifecycle.isAlive, `round ${round}`).toBe(!isDestroyed);
      if (!record!.lifecycle.isAlive) await onceFree(() => sessions.restore('mer-1'));
    }
  });

  test('a message that one store delivers is not delivered by another, also where its clock is behind', async () => {
    const place = await make();
    const ports = testPorts();
    ports.fail['notifier.notify'] = () => sleep(30);
    const clock = new TestClock();
    const behind = new TestClock();
    behind.add(-60_000);
    const one = await world(place, { ports, clock });
    const two = await world(place, { ports, clock: behind });
    await one.store.createSession({ projectId: 'mer', lifecycle: { isAlive: true } });
    const told = one.lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'blocked' });
    await until(() => ports.calls.some((call) => call.startsWith('notifier.notify')));
    await two.lifecycle.tickEscalations();
    await told;
    await two.lifecycle.tickEscalations();
    expect(ports.calls.filter((call) => call.startsWith('notifier.notify'))).toHaveLength(1);
  });

  test('of two sets of comments that are stored at once, one stays', async () => {
    const place = await make();
    const one = await world(place);
    const two = await world(place);
    await one.store.createSession({ projectId: 'mer' });
    await one.store.upsertPr({ url: 'u', sessionId: 'mer-1' });
    for (let round = 0; round < 20; round++) {
      const set = (name: string) => [1, 2, 3].map((number) => ({ prUrl: 'u', commentId: `${name}${round}-${number}`, author: 'a', body: 'b' }));
      await Promise.all([one.store.replacePrComments('u', set('x')), two.store.replacePrComments('u', set('y'))]);
      const names = (await one.store.listPrComments('u')).map(({ commentId }) => commentId.slice(0, 1));
      expect(['xxx', 'yyy']).toContain(names.join(''));
    }
  });

  test('runtimes of other names are not asked about a session', async () => {
    const { sessions, store, runtime } = await world(await make());
    await sessions.spawn({ projectId: 'mer' });
    const docker = { ...runtime, isAlive: async () => false };
    const report = await sessions.recover({ runtimes: { docker } });
    expect(report).toMatchObject({ lost: [], adopted: [], failed: [{ id: 'mer-1', reason: 'no runtime of the name "tmux" was given' }] });
    expect((await store.getSession('mer-1'))!.lifecycle.isAlive).toBe(true);
    expect((await sessions.recover({ runtimes: { docker, tmux: runtime } })).adopted).toEqual(['mer-1']);
  });

  test('a poller that is started while it stops goes on', async () => {
    const { store } = await world(await make());
    const broadcaster = new Broadcaster();
    const seen: number[] = [];
    broadcaster.subscribe(({ seq }) => void seen.push(seq));
    await using poller = new CdcPoller(store, broadcaster, { intervalMs: 5 });
    poller.start();
    const stopped = poller.stop();
    poller.start();
    await stopped;
    await store.createSession({ projectId: 'mer' });
    await until(() => seen.length === 1);
  });
});
