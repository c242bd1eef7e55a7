// Random spawns, kills, restores, cleanups and observations over two stores of one database, with ports that fail, are slow and are given up:
// nothing hangs, rows and events agree, and no workspace or runtime is left that no running session owns.
import { setTimeout as sleep } from 'node:timers/promises';

import { LifecycleManager, SessionManager, type Agent, type Runtime, type SessionStore, type Workspace } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { soon, soundness } from './hostile';
import { BACKENDS } from './support';

function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What is out there: which runtimes and workspaces live. Ports fail and dawdle while `isRough`. */
function outside(pick: (below: number) => number) {
  const runtimes = new Map<string, string>();
  const workspaces = new Set<string>();
  const wrong: string[] = [];
  let made = 0;
  const rough = { on: true };
  const trouble = async (percent: number, dawdles = true): Promise<void> => {
    if (!rough.on) return;
    if (dawdles && pick(3) === 0) await sleep(pick(4));
    if (pick(100) < percent) throw new Error('trouble');
  };
  const runtime: Runtime = {
    create: async ({ sessionId }) => {
      await trouble(15);
      const id = `h${++made}`;
      runtimes.set(id, sessionId);
      return { id, runtimeName: 'tmux' };
    },
    destroy: async ({ id }) => {
      await trouble(0);
      runtimes.delete(id);
    },
    isAlive: async ({ id }) => (await trouble(20), runtimes.has(id)),
  };
  const workspace: Workspace = {
    create: async (config) => {
      await trouble(15);
      const path = `/w/${config.sessionId}`;
      if (workspaces.has(path)) wrong.push(`${path} was made twice`);
      workspaces.add(path);
      return { ...config, path };
    },
    restore: async (config) => {
      // Never late: what a restore brought back is not taken away when the restore is given up.
      await trouble(15, false);
      workspaces.add(`/w/${config.sessionId}`);
      return { ...config, path: `/w/${config.sessionId}` };
    },
    destroy: async ({ path }) => {
      await trouble(20);
      workspaces.delete(path);
    },
  };
  const agent: Agent = {
    getLaunchCommand: async () => (await trouble(5), 'launch'),
    getRestoreCommand: async () => (await trouble(5), 'resume'),
    getEnvironment: async () => (await trouble(5), {}),
  };
  return { runtimes, workspaces, wrong, rough, runtime, workspace, agent };
}

const ERRORS = /^(HF_LIFECYCLE_(PORT_FAILED|SESSION_BUSY|SESSION_TERMINATED|SESSION_NOT_RESTORABLE|SESSION_NOT_FOUND|NOTHING_TO_RESUME|INCOMPLETE_HANDLE|REACTION_DELIVERY_FAILED))$/;

describe.each(BACKENDS)('on $name', ({ name, make }) => {
  test('nothing leaks, hangs or disagrees', async () => {
    const seed = Number(process.env.HOLDFAST_SEED ?? Date.now() % 1e6);
    const pick = random(seed);
    const world = outside(pick);
    const place = await make();
    const messenger = { send: async () => { if (world.rough.on && pick(5) === 0) throw new Error('no'); } };
    const notifier = { notify: async () => { if (world.rough.on && pick(5) === 0) throw new Error('no'); } };
    const sides = await Promise.all(
      [0, 1].map(async () => {
        const store: SessionStore = await place.open();
        const lifecycle = new LifecycleManager({ store, messenger, notifier });
        return { store, lifecycle, sessions: new SessionManager({ store, lifecycle, messenger, runtime: world.runtime, workspace: world.workspace, agent: world.agent }) };
      }),
    );
    const [{ store, sessions }] = sides as [(typeof sides)[number], ...typeof sides];
    await store.upsertProject({ id: 'mer', path: '/' });
    const codes: Record<string, number> = {};
    const step = async (): Promise<unknown> => {
      const side = sides[pick(2)]!;
      const id = `mer-${1 + pick(12)}`;
      const signal = pick(4) === 0 ? AbortSignal.timeout(pick(6)) : undefined;
      switch (pick(8)) {
        case 0:
        case 1:
          return side.sessions.spawn({ projectId: 'mer', prompt: 'p' }, { signal });
        case 2:
          return side.sessions.kill(id, '', { force: pick(2) === 0 });
        case 3:
          return side.sessions.restore(id, { signal });
        case 4:
          return side.sessions.cleanup('mer');
        case 5:
          return side.lifecycle.applyActivitySignal(id, { valid: true, state: (['active', 'idle', 'waiting_input', 'blocked'] as const)[pick(4)]! });
        case 6:
          // Not merged: that ends a session without tearing it down, and a restore then forgets the old runtime.
          return side.lifecycle.applyPrObservation(id, { fetched: true, url: `u${id}`, number: 1, ci: 'failing' });
        default:
          return side.sessions.recover();
      }
    };
    const worker = async (): Promise<void> => {
      for (let n = 0; n < (name === 'SQLite' ? 60 : 15); n++) {
        await soon(step(), `a step (seed ${seed})`, 20_000).catch((error) => {
          const code = error.hfCode ?? error.message;
          codes[code] = (codes[code] ?? 0) + 1;
        });
      }
    };
    await Promise.all(Array.from({ length: 8 }, worker));
    expect(Object.keys(codes).filter((code) => !ERRORS.test(code)), `seed ${seed}`).toEqual([]);
    expect(world.wrong, `seed ${seed}`).toEqual([]);

    // What was given up may still come in.
    world.rough.on = false;
    await sleep(60);
    const report = await sessions.cleanupReport('mer');
    expect(report.skipped, `seed ${seed}`).toEqual([]);
    expect(await soundness(store), `seed ${seed}`).toEqual([]);
    const running = (await store.listAllSessions()).filter(({ lifecycle }) => lifecycle.state !== 'terminated');
    const owned = running.map(({ metadata }) => metadata.workspacePath).filter((path) => path !== '');
    expect([...world.workspaces].filter((path) => !owned.includes(path)), `workspaces that nobody owns, seed ${seed}`).toEqual([]);
    const handles = running.map(({ metadata }) => metadata.runtimeHandleId).filter((id) => id !== '');
    expect([...world.runtimes.keys()].filter((id) => !handles.includes(id)), `runtimes that nobody owns, seed ${seed}`).toEqual([]);
    // Nothing is busy for ever.
    for (const { id } of await store.listAllSessions()) expect(await sessions.kill(id, '', { force: true })).toBe(true);
    expect([...world.runtimes, ...world.workspaces]).toEqual([]);
  });
});
