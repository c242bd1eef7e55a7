/** What the tests of session lifecycles share: stores of each kind, ports that keep a list of their calls, events, loggers. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  LifecycleManager,
  SessionManager,
  openSessionStore,
  type Agent,
  type ChangeEvent,
  type LifecycleManagerOptions,
  type Logger,
  type NotificationEvent,
  type OpenSessionStoreOptions,
  type Runtime,
  type SessionStore,
  type Workspace,
} from 'holdfast';
import { afterEach } from 'vitest';

import { freshSchema } from '../support/postgres';

const folders: string[] = [];
const stores: SessionStore[] = [];

/** A new empty folder, removed after the test. */
export function tempDir(): string {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-lifecycle-'));
  folders.push(folder);
  return folder;
}

afterEach(async () => {
  await Promise.all(stores.splice(0).map((store) => store.close()));
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A database under test. */
export interface Place {
  /** Opens it (again). It is closed after the test. */
  open(options?: OpenSessionStoreOptions): Promise<SessionStore>;
}

async function opened(options: OpenSessionStoreOptions): Promise<SessionStore> {
  const store = await openSessionStore(options);
  stores.push(store);
  return store;
}

/** Every back end; each test of behaviour runs over all of them. */
export const BACKENDS: { name: string; make: () => Promise<Place> }[] = [
  {
    name: 'SQLite',
    make: async () => {
      const dataDir = tempDir();
      return { open: (options) => opened({ dataDir, ...options }) };
    },
  },
  {
    name: 'PostgreSQL',
    make: async () => {
      const { url, schema } = await freshSchema();
      return { open: (options) => opened({ connectionString: url, schema, ...options }) };
    },
  },
];

/** A clock that stands still until it is set. */
export class TestClock {
  ms = Date.parse('2026-05-31T12:00:00.000Z');
  readonly read = (): Date => new Date(this.ms);
  add(ms: number): Date {
    this.ms += ms;
    return this.read();
  }
}

/** Ports that note every call in `calls`; a function in `fail` under the port's name runs instead of it. */
export function testPorts() {
  const calls: string[] = [];
  const fail: Record<string, (...args: never[]) => unknown> = {};
  const configs: { launchCommand: string; env: Record<string, string> }[] = [];
  const notified: NotificationEvent[] = [];
  const sent: { sessionId: string; message: string }[] = [];
  let runtimes = 0;
  async function run<T>(name: string, note: string, otherwise: () => T, ...args: unknown[]): Promise<T> {
    calls.push(`${name}${note && ` ${note}`}`);
    const instead = fail[name];
    return (instead === undefined ? otherwise() : await instead(...(args as never[]))) as T;
  }
  const runtime: Runtime = {
    create: (config) =>
      run('runtime.create', config.sessionId, () => {
        configs.push(config);
        return { id: `h${++runtimes}`, runtimeName: 'tmux' };
      }, config),
    destroy: (handle) => run('runtime.destroy', handle.id, () => {}, handle),
    isAlive: (handle) => run('runtime.isAlive', handle.id, () => true, handle),
  };
  const workspace: Workspace = {
    create: (config) => run('workspace.create', config.sessionId, () => ({ ...config, branch: config.branch || 'b', path: `/w/${config.sessionId}` }), config),
    restore: (config) => run('workspace.restore', config.sessionId, () => ({ ...config, path: `/w/${config.sessionId}` }), config),
    destroy: (info) => run('workspace.destroy', info.path, () => {}, info),
  };
  const agent: Agent = {
    getLaunchCommand: ({ prompt }) => run('agent.getLaunchCommand', '', () => `launch ${prompt}`),
    getRestoreCommand: (id) => run('agent.getRestoreCommand', id, () => `resume ${id}`),
    getEnvironment: () => run('agent.getEnvironment', '', () => ({ HOME: '/h', AO_PROJECT_ID: 'overlaid' })),
  };
  const messenger = {
    send: (sessionId: string, message: string) => run('messenger.send', sessionId, () => void sent.push({ sessionId, message }), sessionId, message),
  };
  const notifier = { notify: (event: NotificationEvent) => run('notifier.notify', event.type, () => void notified.push(event), event) };
  return { calls, fail, configs, notified, sent, runtime, workspace, agent, messenger, notifier };
}

/** A store with the project `mer`, managers over it, and their ports. */
export async function world(
  place: Place,
  options: { ports?: ReturnType<typeof testPorts>; clock?: TestClock; noSignalAfterMs?: number } & Partial<Omit<LifecycleManagerOptions, 'clock'>> = {},
) {
  const { ports = testPorts(), clock = new TestClock(), noSignalAfterMs, ...rest } = options;
  const { lines, logger } = logBook();
  const store = await place.open({ clock: clock.read, logger });
  if ((await store.getProject('mer')) === null) await store.upsertProject({ id: 'mer', path: '/src/mer' });
  const { messenger, notifier, runtime, agent, workspace } = ports;
  const lifecycle = new LifecycleManager({ store, messenger, notifier, clock: clock.read, ...rest });
  const sessions = new SessionManager({ store, lifecycle, runtime, agent, workspace, messenger, clock: clock.read, noSignalAfterMs });
  return { ...ports, ports, clock, lines, store, lifecycle, sessions };
}

/** The event types of the log, oldest first. */
export async function typesOf(store: SessionStore): Promise<string[]> {
  return (await store.readChangeLogAfter(0, 10_000)).map(({ type }) => type);
}

/** An event of a session. */
export function eventOf(seq: number, projectId = 'a'): ChangeEvent {
  return { seq, projectId, sessionId: `${projectId}-1`, createdAt: new Date(seq), type: 'session_deleted', payload: { id: `${projectId}-1` } };
}

/** A logger that keeps its lines, without their fields. */
export function logBook() {
  const lines: string[] = [];
  const log = (level: string) => (message: string) => void lines.push(`${level} ${message}`);
  const logger: Logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };
  return { lines, logger };
}

/** Runs `promise` and returns what it rejects with; fails the test when it resolves. */
export async function rejection(promise: Promise<unknown>): Promise<any> {
  let resolved = true;
  const result = await promise.catch((error: unknown) => {
    resolved = false;
    return error;
  });
  if (resolved) throw new Error('expected a rejection');
  return result;
}

/** Waits until `condition` holds, at most `ms` milliseconds; fails the test if it never does. */
export async function until(condition: () => boolean | Promise<boolean>, ms = 5000): Promise<void> {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(2)) if (await condition()) return;
  throw new Error(`waited ${ms} ms in vain for ${condition.toString()}`);
}

/** A promise to be settled from outside. */
export function deferred<T = void>() {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
}
