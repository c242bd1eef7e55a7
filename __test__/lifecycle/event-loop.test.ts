// @pool forks: what counts happens in processes of its own.
// The event loop turns while the store works (check 40), nothing keeps a process whose store is closed, and threads that are ended in the middle
// of a call harm nobody. Bounds are generous: what holds the loop up for a whole answer takes many times as long.
import { readdirSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

import { Broadcaster, CdcPoller, openSessionStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { SHARED, ask, start } from './children';
import { soon } from './hostile';
import { rejection, tempDir } from './support';

/** How long the loop was held up at most, in milliseconds, while `run` ran. */
async function longestStop(run: () => Promise<unknown>): Promise<number> {
  let [longest, last] = [0, performance.now()];
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last - 1);
    last = now;
  }, 1);
  try {
    await sleep(5);
    longest = 0;
    await run();
    // A stop at the very end counts too.
    await sleep(3);
  } finally {
    clearInterval(timer);
  }
  return longest;
}

describe('10,000 sessions', () => {
  test('40: listing them all, and creating 1000 at once, holds nobody up', async () => {
    await using store = await openSessionStore({ dataDir: tempDir(), retention: false });
    await store.upsertProject({ id: 'mer', path: '/' });
    for (let n = 0; n < 9; n++) {
      await Promise.all(Array.from({ length: 1000 }, () => store.createSession({ projectId: 'mer', metadata: { prompt: 'p'.repeat(200), branch: 'b' } })));
    }
    // A neighbour on this machine may stop this process at any time; of three tries one must be free of that.
    const best = async (run: () => Promise<unknown>): Promise<number> => Math.min(await longestStop(run), await longestStop(run), await longestStop(run));
    const creating = await longestStop(() => Promise.all(Array.from({ length: 1000 }, () => store.createSession({ projectId: 'mer', metadata: { prompt: 'p'.repeat(200) } }))));
    let count = 0;
    const listing = await best(async () => (count = (await store.listAllSessions()).length));
    expect(count).toBe(10_000);
    expect(creating).toBeLessThan(150);
    expect(listing).toBeLessThan(60);
    const changes = await best(async () => (count = (await store.readChangeLogAfter(0, 10_000)).length));
    expect(count).toBe(10_000);
    expect(changes).toBeLessThan(60);
  });

  test('10,000 promises that wait at once all settle, and close() waits for those that write', async () => {
    const dataDir = tempDir();
    const store = await openSessionStore({ dataDir });
    await store.upsertProject({ id: 'mer', path: '/' });
    await store.createSession({ projectId: 'mer' });
    const waiting = Array.from({ length: 10_000 }, (_, n) => {
      if (n % 3 === 0) return store.getSession('mer-1');
      return n % 3 === 1 ? store.patchSessionMetadata('mer-1', { branch: `b${n}` }) : store.readChangeLogAfter(0);
    });
    const outcomes = Promise.allSettled(waiting);
    const closing = store.close();
    const settled = await soon(outcomes, 'the calls', 30_000);
    await soon(closing, 'close()', 30_000);
    const failed = settled.flatMap((each) => (each.status === 'rejected' ? [each.reason.hfCode] : []));
    for (const code of new Set(failed)) expect(code).toBe('HF_CLOSED');
    // Every write that was acknowledged is there, no other one.
    const written = settled.filter((each, n) => n % 3 === 1 && each.status === 'fulfilled').length;
    await using again = await openSessionStore(dataDir);
    expect((await again.getSession('mer-1'))!.revision).toBe(written);
  });
});

describe.each(SHARED)('on $name', ({ make }) => {
  test('40: a process whose store is closed ends by itself', async () => {
    const child = start(await make(), 'once');
    await child.line('closed');
    expect(await soon(child.ended, 'the process', 5000)).toEqual({ code: 0, signal: null, err: '' });
  });
});

describe.each(SHARED)('worker threads on $name', ({ make }) => {
  test('ended in the middle of their calls: what they were told is there, and the others go on', async () => {
    const place = await make();
    await using store = await openSessionStore(place);
    await store.upsertProject({ id: 'mer', path: '/' });
    const program = `
      const { parentPort, workerData } = require('node:worker_threads');
      const { openSessionStore, LifecycleManager, Broadcaster, CdcPoller } = require(workerData.holdfast);
      void (async () => {
        const store = await openSessionStore(workerData.place);
        new CdcPoller(store, new Broadcaster()).start();
        const lifecycle = new LifecycleManager({ store });
        parentPort.postMessage('ready');
        const work = async () => {
          for (;;) {
            const { id } = await store.createSession({ projectId: 'mer' });
            parentPort.postMessage(id);
            await lifecycle.applyActivitySignal(id, { valid: true, state: 'active' });
            await store.listAllSessions();
          }
        };
        await Promise.all([work(), work(), work()]);
      })();`;
    const holdfast = fileURLToPath(new URL('../../dist/index.js', import.meta.url));
    const acknowledged: string[] = [];
    for (let round = 0; round < 6; round++) {
      const worker = new Worker(program, { eval: true, workerData: { place, holdfast } });
      const ready = new Promise<void>((resolve, reject) => {
        worker.on('message', (message: string) => (message === 'ready' ? resolve() : void acknowledged.push(message)));
        worker.on('error', reject);
      });
      await ready;
      await sleep(5 + round * 7);
      await soon(worker.terminate(), 'terminate()');
      await soon(store.createSession({ projectId: 'mer' }), 'a call of the main thread');
    }
    const there = new Set((await store.listAllSessions()).map(({ id }) => id));
    expect(acknowledged.filter((id) => !there.has(id))).toEqual([]);
    expect(acknowledged.length).toBeGreaterThan(0);
    expect(new Set(acknowledged).size).toBe(acknowledged.length);
    expect(await store.check()).toEqual({ sound: true, problems: [] });
  });

  test('a process that exits with calls in flight leaves a whole store', async () => {
    const place = await make();
    const child = start(place, 'exit');
    expect(await soon(child.ended, 'the process', 20_000)).toEqual({ code: 7, signal: null, err: '' });
    const acknowledged = child.lines.filter((line) => line.startsWith('ack ')).map((line) => line.slice(4));
    const { check, sessions } = await ask<{ check: unknown; sessions: { id: string }[] }>(place, 'found', 'verify');
    expect(check).toEqual({ sound: true, problems: [] });
    const there = sessions.map(({ id }) => id);
    expect(acknowledged.length).toBeGreaterThan(0);
    expect(acknowledged.filter((id) => !there.includes(id))).toEqual([]);
  });
});

test('close() lets go of everything: no file is left beside the database, no thread and no descriptor', async () => {
  const dir = tempDir();
  const left = new Set<string>();
  const counts: number[] = [];
  for (let round = 0; round < 30; round++) {
    const store = await openSessionStore(dir);
    await store.upsertProject({ id: 'mer', path: '/' });
    const poller = new CdcPoller(store, new Broadcaster());
    poller.start();
    const iterator = store.changes();
    await store.createSession({ projectId: 'mer' });
    await iterator.next();
    if (round % 2 === 0) await poller.stop();
    await store.close();
    for (const name of readdirSync(dir)) left.add(name);
    if (process.platform === 'linux' && round % 10 === 9) counts.push(readdirSync('/proc/self/fd').length + readdirSync('/proc/self/task').length);
  }
  expect([...left]).toEqual(['sessions.db']);
  // Some come and go with the runtime's own pools; one per round would be twenty.
  if (counts.length > 0) expect(counts.at(-1)! - counts[0]!).toBeLessThan(10);
});

test('calls on a store that is closing are refused or done, in any order', async () => {
  for (let round = 0; round < 20; round++) {
    const store = await openSessionStore({ path: ':memory:' });
    await store.upsertProject({ id: 'mer', path: '/' });
    const calls = [
      () => store.createSession({ projectId: 'mer' }),
      () => store.listAllSessions(),
      () => store.close(),
      () => store.consumer('c').read(),
      () => store.changes().next(),
      () => store.pruneChangeLog({ maxRows: 1 }),
      () => store.close(),
      () => store.stats(),
    ];
    const turned = [...calls.slice(round % 8), ...calls.slice(0, round % 8)];
    for (const each of await soon(Promise.allSettled(turned.map((call) => call())), `round ${round}`)) {
      if (each.status === 'rejected') expect(each.reason.hfCode).toBe('HF_CLOSED');
    }
    expect((await rejection(store.listAllSessions())).hfCode).toBe('HF_CLOSED');
  }
});
