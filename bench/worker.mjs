// The child processes of the benchmarks:  node worker.mjs JOB MODULE ...
//
//   locked MODULE FILE CALLERS UPDATES   callers that update one locked JSON file; prints their times
//   plan   MODULE DIR COUNT              recovery plans over DIR; prints times, blocking and memory
//   batch  MODULE COUNT STORES BYTES     COUNT batches in a fresh folder, for counting system calls
//   graph  MODULE COUNT WHAT             COUNT commits, enqueues, claims or renewals of a session graph, for the same
//   crash  MODULE DIR STORES BYTES       batches until killed; prints the number of each acknowledged one
import fs from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { pathToFileURL } from 'node:url';
import { open } from './contenders.mjs';
import { now, payload, scratch, wipe } from './lib.mjs';
import { Session } from './session-graph-lib.mjs';

const [job, file, ...rest] = process.argv.slice(2);
const module = await import(pathToFileURL(file).href);
const print = (value) => fs.writeSync(1, `${JSON.stringify(value)}\n`);

const jobs = {
  async locked(target, callers, updates) {
    const times = [];
    let failed = 0;
    const started = now();
    const caller = async () => {
      const store = new module.VersionedJsonStore({
        filePath: target,
        schemaVersion: 1,
        defaultData: () => ({ n: 0, pad: 'x'.repeat(900) }),
        validate: (value) => value,
      });
      for (let i = 0; i < Number(updates); i++) {
        const before = now();
        try {
          await store.updateLocked((data) => ({ ...data, n: data.n + 1 }));
          times.push(now() - before);
        } catch {
          failed++; // counted and shown: a lock that is not granted in time
        }
      }
      await store.close?.();
    };
    await Promise.all(Array.from({ length: Number(callers) }, caller));
    print({ times, failed, ms: now() - started });
  },

  async plan(dir, count) {
    const store = open(module, dir);
    const before = process.memoryUsage().rss;
    const delay = monitorEventLoopDelay({ resolution: 1 });
    const times = [];
    for (let i = 0; i < Number(count); i++) {
      delay.enable();
      const started = now();
      const plan = await store.plan();
      times.push(now() - started);
      delay.disable();
      if (!plan.manifestHealthy) throw new Error(`plan not healthy: ${plan.diagnostics[0]}`);
    }
    const extraMb = (process.resourceUsage().maxRSS * 1024 - before) / 1048576;
    print({ times, blockedMs: Math.max(0, delay.max / 1e6 - 1), extraMb: Math.max(0, extraMb) });
    await store.close();
  },

  async batch(count, stores, bytes) {
    const dir = scratch(process.env.BENCH_DIR, 'op');
    const store = open(module, dir);
    for (let i = 0; i < Number(count); i++) await store.writeBatch(Number(stores), payload(Number(bytes), i));
    await store.close();
    wipe(dir);
  },

  async graph(count, what) {
    const dir = scratch(process.env.BENCH_DIR, 'graph');
    const store = await module.openGraph(dir);
    const session = new Session(store);
    await session.grow(10);
    const claims = [];
    if (what === 'claim' || what === 'renew') await store.enqueueMany(50);
    if (what === 'renew') for (let i = 0; i < 50; i++) claims.push(await store.claim());
    const calls = {
      commit: () => session.append(1),
      enqueue: (i) => store.enqueue(i),
      claim: () => store.claim(),
      renew: (i) => store.renew(claims[i]),
    };
    for (let i = 0; i < Number(count); i++) await calls[what](i);
    await store.close();
    wipe(dir);
  },

  async crash(dir, stores, bytes) {
    const store = open(module, dir);
    print('go');
    for (let i = 1; ; i++) {
      await store.writeBatch(Number(stores), payload(Number(bytes), i));
      print(i);
    }
  },
};

await jobs[job](...rest);
