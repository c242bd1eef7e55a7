// The runtime store's timed cases: batches, their cost as history grows, recovery plans, locked updates.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { hasRuntimeStore, open } from './contenders.mjs';
import { formatMs, median, now, payload, quantile, rounds, sample, scratch, sizeName, wipe } from './lib.mjs';

const worker = fileURLToPath(new URL('worker.mjs', import.meta.url));

async function inFreshFolder(options, module, fn) {
  const dir = scratch(options.dir, 'rs');
  const store = open(module, dir);
  try {
    return await fn(store, dir);
  } finally {
    await store.close();
    wipe(dir);
  }
}

/** Runs a job of worker.mjs and resolves to what it printed. */
function runWorker(...args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [worker, ...args.map(String)], { stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve(JSON.parse(output)) : reject(new Error(`worker ended with ${code}`))));
  });
}

/** writeBatch of n stores of one size, a lone caller. */
export async function batch(contenders, report, options) {
  for (const size of options.sizes) {
    for (const count of [1, 4, 10]) {
      const measure = ({ name, module }) =>
        inFreshFolder(options, module, async (store) => {
          const data = Array.from({ length: 8 }, (_, i) => payload(size, i));
          const write = (i) => store.writeBatch(count, data[(i + 8) % 8]);
          const syncs = options.syncs[`${name}/${count}`];
          const times = await sample(write, { count: size > 1e5 ? 20 : 40 });
          return { times, extra: syncs === undefined ? {} : { 'syncs per batch': syncs } };
        });
      report.add(`writeBatch ${count} x ${sizeName(size)}`, await rounds(contenders, measure, options.rounds));
    }
  }
}

/** Bytes handed to write calls by this process so far; null where the system does not tell. */
function bytesWritten() {
  try {
    return Number(/wchar: (\d+)/.exec(fs.readFileSync('/proc/self/io', 'utf8'))[1]);
  } catch {
    return null;
  }
}

/** The k-th batch of 1 x 1 KB: the cost of a batch must not depend on how many came before. */
export async function growth(contenders, report, options) {
  const windows = [[1, 9], [100, 200], [900, 1000], [4900, 5000]].filter(([, last]) => last <= options.batches);
  const capMs = 240_000;
  const measured = new Map();
  // Rivals whose history does not grow are left out, but for the two databases.
  const growing = contenders.filter(({ name, module }) => hasRuntimeStore(module) || ['sqlite', 'lmdb'].includes(name));
  for (const contender of growing) {
    await inFreshFolder(options, contender.module, async (store) => {
      const results = [];
      const end = now() + capMs;
      let k = 0;
      const step = async () => {
        k++;
        const data = payload(1024, k);
        const started = now();
        await store.writeBatch(1, data);
        return now() - started;
      };
      for (const [first, last] of windows) {
        while (k < first - 1 && now() < end) await step();
        if (k < first - 1) break;
        const before = bytesWritten();
        const times = [];
        while (k < last) times.push(await step());
        const bytes = before === null ? null : (bytesWritten() - before) / times.length;
        results.push({ times, bytes });
      }
      measured.set(contender.name, { results, k });
    });
  }
  for (const [index, [first, last]] of windows.entries()) {
    const rows = growing.map(({ name }) => {
      const { results, k } = measured.get(name);
      const result = results[index];
      if (!result) return { contender: name, error: `not reached in ${capMs / 1000} s (stopped at batch ${k})` };
      const { times, bytes } = result;
      const extra = bytes === null ? {} : { 'bytes written per batch': Math.round(bytes) };
      if (index === windows.length - 1 && results[1]) extra['times the 100th to 200th'] = median(times) / median(results[1].times);
      const p50 = median(times);
      const base = measured.get(growing[0].name).results[index];
      return {
        contender: name,
        n: times.length,
        p50,
        p99: quantile(times, 0.99),
        low: Math.min(...times),
        high: Math.max(...times),
        perSecond: 1000 / p50,
        ratio: base ? p50 / median(base.times) : undefined,
        extra,
      };
    });
    report.add(`writeBatch, the ${ordinal(first)} to ${ordinal(last)}`, rows);
  }
}

const ordinal = (k) => (k === 1 ? '1st' : `${k}th`);

/** buildPlan over ten healthy stores, with what it blocks the event loop and adds to the memory of a fresh process. */
export async function plan(contenders, report, options) {
  for (const size of [1024, 262144, 4194304]) {
    const measure = async ({ module, file }) => {
      if (!hasRuntimeStore(module)) return null;
      return inFreshFolder(options, module, async (store, dir) => {
        await store.writeBatch(10, payload(size, 1));
        await store.close();
        const { times, blockedMs, extraMb } = await runWorker('plan', file, dir, size > 1e6 ? 6 : 30);
        return { times, extra: { 'event loop blocked, ms': blockedMs, 'extra memory, MB': extraMb } };
      });
    };
    report.add(`buildPlan over 10 stores of ${sizeName(size)}`, await rounds(contenders, measure, options.rounds));
  }
}

/** updateLocked under contention. */
export async function locked(contenders, report, options) {
  const updates = 40;
  for (const [processes, callers] of [[1, 1], [1, 8], [4, 1], [4, 8]]) {
    const measure = async ({ module, file }) => {
      if (typeof module.VersionedJsonStore !== 'function' || module.writerOptions) return null;
      const dir = scratch(options.dir, 'lock');
      const target = path.join(dir, 'counter.json');
      const jobs = Array.from({ length: processes }, () => runWorker('locked', file, target, callers, updates));
      const results = await Promise.all(jobs);
      const times = results.flatMap((result) => result.times);
      if (times.length === 0) throw new Error('no update succeeded');
      const stored = JSON.parse(fs.readFileSync(target, 'utf8')).data.n;
      wipe(dir);
      const extra = {
        'updates/s': (times.length / Math.max(...results.map(({ ms }) => ms))) * 1000,
        'p99/p50': quantile(times, 0.99) / median(times),
        slowest: formatMs(Math.max(...times)),
        timeouts: results.reduce((sum, { failed }) => sum + failed, 0),
        'lost updates': times.length - stored,
      };
      return { times, extra };
    };
    const name = `updateLocked, ${plural(processes, 'process', 'processes')} x ${plural(callers, 'caller', 'callers')}`;
    report.add(name, await rounds(contenders, measure, Math.min(options.rounds, 2)));
  }
}

const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;
