// The end: what waits is told, what is refused is refused, and nothing keeps the process (37, R66; `close()` in section 6).
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Broadcaster, CdcPoller, Reaper, StoreClosedError, openSessionStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { BACKENDS, rejection, tempDir, until, world } from './support';

const never = (): Promise<never> => new Promise(() => {});

describe.each(BACKENDS)('on $name', ({ make }) => {
  test('close() refuses what comes after it; twice is harmless', async () => {
    const { store, lifecycle, sessions } = await world(await make());
    await Promise.all([store.close(), store.close()]);
    await store[Symbol.asyncDispose]();
    const calls = [
      () => store.listAllSessions(),
      () => store.createSession({ projectId: 'mer' }),
      () => store.consumer('c').read(),
      () => lifecycle.runningSessions(),
      () => lifecycle.tickEscalations(),
      () => sessions.get('mer-1'),
      () => sessions.spawn({ projectId: 'mer' }),
      () => sessions.recover(),
    ];
    for (const call of calls) {
      const error = await rejection(call());
      expect(error, String(call)).toBeInstanceOf(StoreClosedError);
      expect(error.hfCode).toBe('HF_CLOSED');
    }
  });

  test.each(['workspace.create', 'agent.getEnvironment', 'runtime.create'])('close() ends a spawn that waits for %s', async (port) => {
    const { store, sessions, calls, fail } = await world(await make());
    fail[port] = never;
    const spawning = rejection(sessions.spawn({ projectId: 'mer' }));
    await until(() => calls.some((call) => call.startsWith(port)));
    await store.close();
    const error = await spawning;
    expect(error).toBeInstanceOf(StoreClosedError);
    expect(error.message).toMatch(new RegExp(`^spawn mer-1: ${port.split('.')[0]}: `));
  });

  test('close() ends a message that hangs, a kill, a restore and a cleanup', async () => {
    const { store, sessions, lifecycle, calls, fail } = await world(await make());
    for (let i = 0; i < 5; i++) await sessions.spawn({ projectId: 'mer', prompt: 'p' });
    await sessions.kill('mer-3');
    await lifecycle.onKillRequested('mer-4');
    for (const port of ['notifier.notify', 'messenger.send', 'runtime.destroy', 'workspace.restore', 'workspace.destroy']) fail[port] = never;
    calls.length = 0;
    const hanging = [
      lifecycle.applyActivitySignal('mer-1', { valid: true, state: 'waiting_input' }),
      sessions.kill('mer-2'),
      sessions.restore('mer-3'),
      sessions.cleanup('mer'),
      sessions.send('mer-5', 'hello'),
    ].map(rejection);
    await until(() => calls.length === 5);
    await store.close();
    for (const error of await Promise.all(hanging)) expect(error).toBeInstanceOf(StoreClosedError);
  });

  test('close() ends pollers and reapers', async () => {
    const { store, lifecycle, lines } = await world(await make());
    const { logger } = { logger: { debug() {}, info() {}, warn() {}, error: (message: string) => void lines.push(message) } };
    const poller = new CdcPoller(store, new Broadcaster(), { logger, intervalMs: 5 });
    const reaper = new Reaper({ lifecycle, runtimes: {}, intervalMs: 5, logger });
    poller.start();
    reaper.start();
    await store.close();
    await poller.stop();
    await new Promise((resolve) => setTimeout(resolve, 30));
    await reaper.stop();
    expect(lines.filter((line) => line.startsWith('cdc poller'))).toEqual([]);
  });

  test('37: what is committed here reaches a listener at once, what is committed elsewhere soon after', async () => {
    const place = await make();
    const [here, elsewhere] = [await world(place), await world(place)];
    const broadcaster = new Broadcaster();
    const poller = new CdcPoller(here.store, broadcaster);
    const at: number[] = [];
    broadcaster.subscribe(() => void at.push(performance.now()));
    poller.start();
    const median = async (store: typeof here.store): Promise<number> => {
      const waits: number[] = [];
      for (let i = 0; i < 15; i++) {
        const before = at.length;
        await store.createSession({ projectId: 'mer' });
        const committed = performance.now();
        await until(() => at.length > before);
        waits.push(at[before]! - committed);
      }
      return waits.sort((a, b) => a - b)[7]!;
    };
    expect(await median(here.store)).toBeLessThan(10);
    expect(await median(elsewhere.store)).toBeLessThan(150);
    await poller.stop();
  });
});

test('a started poller, reaper and iterator that nobody reads do not keep the process', async () => {
  const program = `
    const { openSessionStore, Broadcaster, CdcPoller, LifecycleManager, Reaper } = require('holdfast');
    void (async () => {
      const store = await openSessionStore(process.argv[1]);
      const broadcaster = new Broadcaster();
      const poller = new CdcPoller(store, broadcaster);
      poller.start();
      new Reaper({ lifecycle: new LifecycleManager({ store }), runtimes: {} }).start();
      store.changes();
      await store.upsertProject({ id: 'mer', path: '/' });
      await store.createSession({ projectId: 'mer' });
      console.log('done');
    })();`;
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const child = spawn(process.execPath, ['-e', program, tempDir()], { cwd: root, timeout: 20_000, killSignal: 'SIGKILL' });
  let out = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (out += chunk));
  const ended = await new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));
  expect({ out, ended }).toEqual({ out: 'done\n', ended: { code: 0, signal: null } });
});

test('a failed opening says why, and touches nothing', async () => {
  const dataDir = tempDir();
  for (const bad of [5, '', {}, { dataDir, path: 'x' }, { dataDir, durability: 'fast' }, { dataDir, schema: 's' }, { dataDir, colour: 'red' }, { dataDir, harnesses: 'x' }, { path: 'file:x' }] as never[]) {
    expect((await rejection(openSessionStore(bad))).hfCode, JSON.stringify(bad)).toBe('HF_INVALID_ARGUMENT');
  }
  const secret = await rejection(openSessionStore({ connectionString: 'postgres://u:hunter2@127.0.0.1:1/db' }));
  expect(`${secret.message} ${JSON.stringify(secret)}`).not.toContain('hunter2');
});
