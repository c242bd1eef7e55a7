// Session lifecycle: spawning, observing pull requests alone and in company, telling of changes, and a long history.
import { spawn as start } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Report, loadContenders, now, quantile, rounds, sample, scratch, wipe } from './lib.mjs';
import { company, extents, opened, poll } from './lifecycle-lib.mjs';
import { postgres } from './lifecycle-postgres.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const peers = { 'better-sqlite3, lean': 'lifecycle-sqlite' };
const cases = { spawn, observe, together, latency, stream, history, postgres };

/** Runs the cases (`options.lifecycle`: which, default all); returns the missed goals. Files are made in `options.dir`. */
export async function lifecycle(extra, options, reference) {
  const wanted = options.lifecycle ?? Object.keys(cases);
  const unknown = wanted.filter((name) => !(name in cases));
  if (unknown.length > 0) throw new Error(`no such lifecycle case: ${unknown.join(', ')}; there are ${Object.keys(cases).join(', ')}`);
  const all = await loadContenders([`holdfast=${path.join(here, 'entries/lifecycle-holdfast.mjs')}`]);
  for (const [name, file] of options.peers ? Object.entries(peers) : []) all.push(...(await loadContenders([`${name}=${path.join(here, 'peers', `${file}.mjs`)}`])));
  all.push(...(await loadContenders(extra)));
  const report = new Report('lifecycle', { out: options.out, reference });
  for (const name of wanted) await cases[name](all, report, options);
  return report.end();
}

async function spawn(all, report, options) {
  for (const before of [0, 10_000]) {
    const time = opened(options, async (store) => {
      for (let i = 0; i < before; i += 100) await Promise.all(Array.from({ length: 100 }, () => store.spawn()));
      return sample(() => store.spawn(), { count: 300, budgetMs: 1500 });
    });
    report.add(`spawn a session (records), ${before} there`, await rounds(all, time, options.rounds));
  }
  const time = opened(options, async (store) => {
    const ids = [];
    for (let i = 0; i < 60; i++) ids.push(await store.spawn());
    return sample((i) => store.remove(ids.at(i)), { count: 50, warmup: 0 });
  });
  report.add('delete a session', await rounds(all, time, options.rounds));
}

async function observe(all, report, options) {
  for (const [changed, what] of extents) {
    const time = opened(options, async (store) => {
      const id = await store.spawn();
      let turn = 0;
      return sample(() => store.observe(id, poll(turn++, changed)), { count: 300, budgetMs: 1500 });
    });
    report.add(`observe a pull request, ${what}`, await rounds(all, time, options.rounds));
  }
}

/** 64 callers, each with a session of its own. */
async function together(all, report, options) {
  for (const [changed, what] of extents.slice(1)) {
    const time = opened(options, (store) => company(store, changed, 60));
    report.add(`64 callers observe, ${what}: time per observation`, await rounds(all, time, options.rounds));
  }
}

/** From the moment a commit resolves, or is told, whichever is first, to the listener. */
async function latency(all, report, options) {
  const time = opened(options, async (store) => {
    let heard;
    const off = await store.onChange(({ kind }) => kind === 'session_deleted' && heard?.(now()));
    const times = [];
    for (let i = 0; i < 60; i++) {
      const id = await store.spawn();
      await sleep(3 + ((i * 37) % 61) / 4);
      const told = new Promise((resolve) => (heard = resolve));
      await store.remove(id);
      const committed = now();
      times.push(Math.max(0, (await told) - committed));
    }
    await off();
    return times;
  });
  report.add('a commit resolves -> a listener in the process hears of it', await rounds(all, time, options.rounds));
  const other = opened(options, async (store, dir) => {
    if (!store.store) return null;
    // Clocks of two processes on one machine agree.
    const heard = [];
    const off = await store.onChange(({ kind }) => kind === 'session_created' && heard.push(Date.now()));
    const child = start(process.execPath, [path.join(here, 'lifecycle-child.mjs'), dir, '60'], { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (part) => (text += part));
    await once(child, 'close');
    const committed = JSON.parse(text);
    for (let i = 0; i < 100 && heard.length < committed.length; i++) await sleep(20);
    await off();
    if (heard.length !== committed.length) throw new Error(`${heard.length} of ${committed.length} were heard`);
    return committed.map((at, i) => Math.max(0, heard[i] - at));
  });
  report.add('a commit of another process resolves -> a listener here', await rounds(all, other, options.rounds));
  const idle = opened(options, async (store) => {
    if (!store.store) return null;
    const off = await store.onChange(() => {});
    await sleep(1500);
    const before = process.cpuUsage();
    await sleep(5000);
    const { user, system } = process.cpuUsage(before);
    await off();
    return { times: [(user + system) / 1000], extra: { '% of a core': (user + system) / 50_000 } };
  });
  report.add('five idle seconds with a subscriber, CPU time', await rounds(all, idle, 1));
}

async function stream(all, report, options) {
  const time = opened(options, async (store) => {
    const count = 3000;
    const seen = new Set();
    let [last, disorder, done] = [0, 0, undefined];
    const complete = new Promise((resolve) => (done = resolve));
    const off = await store.onChange(({ seq, kind }) => {
      if (seq <= last) disorder++;
      last = seq;
      if (kind === 'session_created') seen.add(seq);
      if (seen.size >= count) done();
    });
    const started = now();
    for (let i = 0; i < count; i++) await store.spawn();
    const written = now() - started;
    await Promise.race([complete, sleep(20_000)]);
    const took = now() - started;
    await off();
    return { times: [took / count], extra: { 'written after, ms': written, missing: count - seen.size, 'out of order': disorder } };
  });
  report.add('3,000 spawns in a row -> the last event: time per spawn', await rounds(all, time, options.rounds));
}

/** 10,000 sessions, few of them alive, and a million changes. Holdfast alone: the peer has no such questions. */
async function history(all, report, options) {
  const own = all.filter(({ name }) => name === 'holdfast');
  const [contender] = own;
  if (!contender) return;
  const dir = scratch(options.dir, 'lifecycle-history');
  const times = {};
  try {
    const { openSessionStore } = await import('../dist/lifecycle.mjs');
    let store = await openSessionStore({ dataDir: dir, retention: false });
    await store.upsertProject({ id: 'bench', path: '/bench' });
    await store.upsertProject({ id: 'small', path: '/small' });
    const few = await store.createSession({ projectId: 'small' });
    for (let i = 0; i < 10_000; i += 200) await Promise.all(Array.from({ length: 200 }, () => store.createSession({ projectId: 'bench', metadata: { prompt: 'p'.repeat(2000) } })));
    const measure = async (label) => {
      await store.close();
      const started = now();
      store = await openSessionStore({ dataDir: dir, retention: false });
      (times.open ??= {})[label] = [now() - started];
      (times.get ??= {})[label] = await sample(() => store.getSession(few.id), { count: 500 });
      (times['list of a project with one session'] ??= {})[label] = await sample(() => store.listSessions('small'), { count: 300 });
      const { LifecycleManager } = await import('../dist/lifecycle.mjs');
      const manager = new LifecycleManager({ store });
      (times.runningSessions ??= {})[label] = await sample(() => manager.runningSessions(), { count: 200 });
      const head = await store.maxChangeLogSeq();
      const consumer = store.consumer(`c-${label}`);
      await consumer.ack(Math.max(0, head - 100));
      (times['resume a consumer'] ??= {})[label] = await sample(() => consumer.read(100), { count: 200 });
      await consumer.delete();
    };
    const all = await store.listSessions('bench');
    for (const [i, record] of all.entries()) {
      const promise = store.updateSession({ ...record, lifecycle: { ...record.lifecycle, state: 'terminated', terminationReason: 'manually_killed' } });
      if (i % 200 === 199) await promise;
    }
    await measure('20 thousand changes');
    await store.close();
    await fill(path.join(dir, 'sessions.db'), 1_000_000);
    store = await openSessionStore({ dataDir: dir, retention: false });
    await measure('a million changes');
    const head = await store.maxChangeLogSeq();
    let at = 0;
    let rows = 0;
    const started = now();
    for (;;) {
      const events = await store.readChangeLogAfter(at, 5000);
      if (events.length === 0) break;
      rows += events.length;
      at = events.at(-1).seq;
    }
    const took = now() - started;
    if (at !== head) throw new Error(`the log ends at ${head}, reading it at ${at}`);
    await store.close();
    for (const [what, labels] of Object.entries(times)) {
      for (const [label, list] of Object.entries(labels)) report.add(`${what}, ${label}`, [row('holdfast', list)]);
    }
    report.add('read a million changes, time per row', [{ ...row('holdfast', [took / rows]), extra: { 'rows/s': Math.round((rows / took) * 1000) } }]);
  } finally {
    wipe(dir);
  }
}

const row = (contender, list) => {
  const p50 = quantile(list, 0.5);
  return { contender, n: list.length, p50, p99: quantile(list, 0.99), low: p50, high: p50, perSecond: 1000 / p50, ratio: 1 };
};

/** Adds rows to the log as fast as the file takes them: what the triggers would have written, without what led to it. */
async function fill(file, count) {
  const { default: Database } = await import('better-sqlite3');
  const db = new Database(file);
  db.pragma('synchronous = OFF');
  const insert = db.prepare(
    `INSERT INTO change_log(project_id, session_id, event_type, payload, created_at)
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
     SELECT 'bench', 'bench-' || (1 + i % 10000), 'session_updated',
            '{"id":"bench-1","state":"working","terminationReason":"","isAlive":1,"activity":"active"}', '2026-05-31T12:00:00.000Z' FROM n`,
  );
  insert.run(count);
  db.close();
  if (!fs.existsSync(file)) throw new Error(`${file} is gone`);
}
