/** Ports that misbehave, for tests that put every misbehaviour into every port. */
import { LifecycleManager, SessionManager, openSessionStore, type SessionStore } from 'holdfast';
import { expect } from 'vitest';

import { TestClock, type Place } from './support';

/** A database in memory, where nothing needs to be there afterwards. */
export const MEMORY: Place = { open: (options) => openSessionStore({ path: ':memory:', ...options }) };

/** Instead of a port: exactly what it returns or throws reaches the managers, with nothing in between that would make a promise of it. */
export type Instead = (...args: any[]) => unknown;

export const PORTS = [
  'runtime.create',
  'runtime.destroy',
  'runtime.isAlive',
  'agent.getLaunchCommand',
  'agent.getRestoreCommand',
  'agent.getEnvironment',
  'workspace.create',
  'workspace.restore',
  'workspace.destroy',
  'messenger.send',
  'notifier.notify',
] as const;
export type PortName = (typeof PORTS)[number];

const GOOD: Record<PortName, Instead> = {
  'runtime.create': ({ sessionId }) => ({ id: `h-${sessionId}`, runtimeName: 'tmux' }),
  'runtime.destroy': () => undefined,
  'runtime.isAlive': () => true,
  'agent.getLaunchCommand': () => 'launch',
  'agent.getRestoreCommand': (id) => `resume ${id}`,
  'agent.getEnvironment': () => ({}),
  'workspace.create': (config) => ({ ...config, branch: 'b', path: `/w/${config.sessionId}` }),
  'workspace.restore': (config) => ({ ...config, path: `/w/${config.sessionId}` }),
  'workspace.destroy': () => undefined,
  'messenger.send': () => undefined,
  'notifier.notify': () => undefined,
};

/** A store whose managers have ports that can be replaced at any time. */
export async function hostileWorld(place: Place) {
  const instead: Partial<Record<PortName, Instead>> = {};
  const calls: { port: PortName; args: any[] }[] = [];
  const port = (name: PortName): any => (...args: any[]) => {
    calls.push({ port: name, args });
    const other = instead[name];
    return other === undefined ? Promise.resolve(GOOD[name](...args)) : other(...args);
  };
  const clock = new TestClock();
  const store = await place.open({ clock: clock.read });
  if ((await store.getProject('mer')) === null) await store.upsertProject({ id: 'mer', path: '/' });
  const runtime = { create: port('runtime.create'), destroy: port('runtime.destroy'), isAlive: port('runtime.isAlive') };
  const workspace = { create: port('workspace.create'), restore: port('workspace.restore'), destroy: port('workspace.destroy') };
  const agent = {
    getLaunchCommand: port('agent.getLaunchCommand'),
    getRestoreCommand: port('agent.getRestoreCommand'),
    getEnvironment: port('agent.getEnvironment'),
  };
  const messenger = { send: port('messenger.send') };
  const notifier = { notify: port('notifier.notify') };
  const lifecycle = new LifecycleManager({ store, messenger, notifier, clock: clock.read });
  const sessions = new SessionManager({ store, lifecycle, runtime, agent, workspace, messenger, clock: clock.read });
  return { instead, calls, clock, store, lifecycle, sessions, runtime };
}
export type HostileWorld = Awaited<ReturnType<typeof hostileWorld>>;

/** What a port answers when it is well. */
export function goodAnswer(port: PortName, args: any[]): unknown {
  return GOOD[port](...args);
}

/** Everything that must hold whatever the ports do: rows and events agree, the file is sound, and sessions can be started and ended. */
export async function soundness(store: SessionStore): Promise<string[]> {
  const wrong = (await store.check()).problems;
  const events = await store.readChangeLogAfter(0, 10_000);
  for (const { id, lifecycle } of await store.listAllSessions()) {
    const last = events.filter(({ sessionId, type }) => sessionId === id && type.startsWith('session_')).at(-1);
    const { state, terminationReason, isAlive, activity } = lifecycle;
    const row = JSON.stringify({ id, state, terminationReason, isAlive: Number(isAlive), activity: activity.state });
    if (JSON.stringify(last?.payload) !== row) wrong.push(`${id}: the last event says ${JSON.stringify(last?.payload)}, the row ${row}`);
    if (terminationReason !== '' && state !== 'terminated') wrong.push(`${id}: ${state} with a reason`);
    if (state === 'terminated' && isAlive) wrong.push(`${id}: terminated and alive`);
  }
  return wrong;
}

const hostileError = new Proxy(new Error('trap'), {
  get: (target, key) => {
    if (key === 'message') throw new Error('even its message throws');
    return Reflect.get(target, key);
  },
});

/** What a port may throw, whatever anybody thinks of it. */
export const THROWN: { what: string; value: unknown }[] = [
  { what: 'an error', value: new Error('refused') },
  { what: 'undefined', value: undefined },
  { what: 'null', value: null },
  { what: 'a text', value: 'refused' },
  { what: 'an object without a prototype', value: Object.create(null) },
  { what: 'an error whose message throws', value: hostileError },
  { what: 'a frozen error', value: Object.freeze(new Error('frozen')) },
];

/** After whatever happened the session `mer-1` can be ended, and another one started and ended. */
export async function goesOn(w: HostileWorld): Promise<void> {
  for (const port of PORTS) delete w.instead[port];
  expect(await soundness(w.store)).toEqual([]);
  expect(await soon(w.sessions.kill('mer-1', '', { force: true }), 'killing it afterwards')).toBe(true);
  const next = await w.sessions.spawn({ projectId: 'mer' });
  expect(await w.sessions.kill(next.id)).toBe(true);
}

/** Rejects when `promise` takes longer: what hangs must not pass for a slow test. */
export async function soon<T>(promise: Promise<T>, what: string, ms = 5000): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what} has not ended after ${ms} ms`)), ms);
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}
