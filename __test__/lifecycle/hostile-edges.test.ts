// Ports that call what they are part of, that come too late, and that misbehave in cleanup, recover() and send().
import { describe, expect, test } from 'vitest';

import { MEMORY, THROWN, goesOn, goodAnswer, hostileWorld, soon } from './hostile';
import { BACKENDS, rejection, until } from './support';

const [sqlite] = BACKENDS;

test('a spawn whose port spawns with the same key is told so, and does not wait for itself', async () => {
  const w = await hostileWorld(MEMORY);
  const outcomes: string[] = [];
  w.instead['workspace.create'] = async (...args) => {
    delete w.instead['workspace.create'];
    const inner = w.sessions.spawn({ projectId: 'mer' }, { key: 'k' });
    outcomes.push(await soon(inner, 'spawn inside a port', 2000).then(({ id }) => id, (error) => error.hfCode ?? error.message));
    return goodAnswer('workspace.create', args);
  };
  await soon(w.sessions.spawn({ projectId: 'mer' }, { key: 'k' }), 'spawn');
  expect(outcomes).toEqual([expect.stringMatching(/^(mer-1|HF_LIFECYCLE_SESSION_BUSY)$/)]);
  expect(await w.store.listAllSessions()).toHaveLength(1);
});

test('a workspace that comes after its spawn was given up, and refuses to go, is reclaimed by cleanup', async () => {
  const w = await hostileWorld(MEMORY);
  const abort = new AbortController();
  let late: () => void = () => {};
  w.instead['workspace.create'] = (...args) =>
    new Promise((resolve) => {
      late = () => resolve(goodAnswer('workspace.create', args));
      setImmediate(() => abort.abort());
    });
  w.instead['workspace.destroy'] = () => Promise.reject(new Error('in use'));
  await rejection(w.sessions.spawn({ projectId: 'mer' }, { signal: abort.signal }));
  late();
  await until(async () => (await w.store.getSession('mer-1'))!.metadata.workspacePath === '/w/mer-1');
  delete w.instead['workspace.destroy'];
  // Whoever noted it has the session for a moment more.
  await until(async () => (await w.sessions.cleanup('mer')).includes('mer-1'));
  expect(await w.sessions.cleanup('mer')).toEqual([]);
});

describe('cleanup, recover() and send()', () => {
  test.each(['runtime.destroy', 'workspace.destroy'] as const)('cleanup with a %s that misbehaves skips or ends, and goes on afterwards', async (port) => {
    const w = await hostileWorld(MEMORY);
    for (let n = 0; n < 2; n++) await w.lifecycle.onKillRequested((await w.sessions.spawn({ projectId: 'mer' })).id);
    for (const instead of [() => { throw undefined; }, () => Promise.reject(null)]) {
      w.instead[port] = instead;
      const { cleaned, skipped } = await soon(w.sessions.cleanupReport('mer'), 'cleanup');
      expect([cleaned, skipped.map(({ id }) => id)]).toEqual(port === 'runtime.destroy' ? [cleaned, []] : [[], ['mer-1', 'mer-2']]);
    }
    w.instead[port] = async () => {
      delete w.instead[port];
      for (const call of [w.sessions.kill('mer-1'), w.sessions.restore('mer-1')]) expect((await soon(rejection(call), 'inside')).hfCode).toBe('HF_LIFECYCLE_SESSION_BUSY');
      await soon(w.sessions.cleanup('mer'), 'cleanup inside cleanup');
    };
    if (port === 'workspace.destroy') expect(await soon(w.sessions.cleanup('mer'), 'cleanup')).toContain('mer-1');
    await goesOn(w);
  });

  test('recover() inside a port of every operation touches nothing that is under way', async () => {
    const w = await hostileWorld(await sqlite!.make());
    const reports: unknown[] = [];
    for (const port of ['workspace.create', 'runtime.create', 'runtime.destroy', 'workspace.destroy', 'workspace.restore'] as const) {
      w.instead[port] = async (...args) => {
        reports.push(await soon(w.sessions.recover(), `recover() in ${port}`));
        return goodAnswer(port, args);
      };
    }
    await w.sessions.spawn({ projectId: 'mer', prompt: 'p' });
    await w.sessions.kill('mer-1');
    await w.sessions.restore('mer-1');
    expect(reports).toHaveLength(6);
    for (const report of reports) expect(report).toMatchObject({ finished: [], parked: [], lost: [], failed: [] });
    expect((await w.sessions.get('mer-1')).status).toBe('spawning');
  });

  test.each(THROWN)('send() with a messenger that throws $what', async ({ value }) => {
    const w = await hostileWorld(MEMORY);
    for (const instead of [() => { throw value; }, () => Promise.reject(value)]) {
      w.instead['messenger.send'] = instead;
      const error = await rejection(w.sessions.send('mer-1', 'hello'));
      expect(error).toMatchObject({ hfCode: 'HF_LIFECYCLE_PORT_FAILED' });
      expect(error.message).toMatch(/^send mer-1: /);
      expect(error.cause).toBe(value);
    }
  });
});

test('undoing a spawn: a port that hangs there ends with close()', async () => {
  const w = await hostileWorld(MEMORY);
  w.instead['runtime.create'] = () => Promise.reject(new Error('no tmux'));
  const reached = new Promise<void>((resolve) => {
    w.instead['workspace.destroy'] = () => (resolve(), new Promise(() => {}));
  });
  const running = rejection(w.sessions.spawn({ projectId: 'mer' }));
  await reached;
  await soon(w.store.close(), 'close()');
  await soon(running, 'spawn');
});
