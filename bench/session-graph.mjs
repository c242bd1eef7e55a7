// Session graphs: commits on a graph that grows, many at once, loading, waiting work, and collecting what nobody reaches.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Report, loadContenders, median, now, quantile, rounds, sample, scratch, wipe } from './lib.mjs';
import { Session, beside, blocked, leafOf, withStores } from './session-graph-lib.mjs';
import { callsPer } from './trace.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const peers = { 'better-sqlite3, by hand': 'session-graph-sqlite', 'the disk alone': 'session-graph-floor' };
const cases = { commit, together, load, queue, gc, ledger, syncs };

/** Runs the cases (`options.graph`: which, default all); returns the missed goals. Files are made in `options.dir`. */
export async function sessionGraph(extra, options, reference) {
  const wanted = options.graph ?? Object.keys(cases);
  const unknown = wanted.filter((name) => !(name in cases));
  if (unknown.length > 0) throw new Error(`no such session graph case: ${unknown.join(', ')}; there are ${Object.keys(cases).join(', ')}`);
  const all = await loadContenders([`holdfast=${path.join(here, 'entries/session-graph-holdfast.mjs')}`]);
  for (const [name, file] of options.peers ? Object.entries(peers) : []) all.push(...(await loadContenders([`${name}=${path.join(here, 'peers', `${file}.mjs`)}`])));
  all.push(...(await loadContenders(extra)));
  const report = new Report('session graph', { out: options.out, reference });
  for (const name of wanted) await cases[name](all, report, options);
  return report.end();
}

/** Times that were taken already, as a row like those of `rounds`. */
function row(contender, times, extra = null) {
  const p50 = median(times);
  return { contender, n: times.length, p50, p99: quantile(times, 0.99), low: p50, high: p50, perSecond: 1000 / p50, extra };
}

/** One node and a checkpoint, onto 1, 1,000 and 50,000 nodes, in turns of 30, so that whatever else the machine does falls on all of them. */
async function commit(all, report, options) {
  const sizes = [1, 1000, 50_000];
  const prepare = (first, open) =>
    Promise.all(
      sizes.map(async (size, i) => {
        const session = new Session(i === 0 ? first : await open());
        await session.grow(size);
        return session;
      }),
    );
  await withStores(all, options, 'commit', prepare, async (stores) => {
    const taken = stores.map(() => sizes.map(() => []));
    const medians = stores.map(() => sizes.map(() => []));
    for (let round = 0; round < options.rounds; round++) {
      for (const [c, { prepared }] of stores.entries()) {
        const times = sizes.map(() => []);
        for (let i = 0; i < 150; i += 30) {
          for (const [s, session] of prepared.entries()) {
            for (let k = 0; k < 30; k++) {
              const started = now();
              await session.append(1);
              times[s].push(now() - started);
            }
          }
        }
        times.forEach((list, s) => (taken[c][s].push(...list), medians[c][s].push(median(list))));
      }
    }
    await floor(all, report, options, 'one durable write of 4 KB');
    for (const [s, size] of sizes.entries()) {
      const rows = stores.map(({ name }, c) => ({
        ...row(name, taken[c][s], { 'times that onto 1 node': median(medians[c][s]) / median(medians[c][0]) }),
        low: Math.min(...medians[c][s]),
        high: Math.max(...medians[c][s]),
        ratio: median(medians[c][s].map((value, i) => value / medians[0][s][i])),
      }));
      report.add(`commit one node and a checkpoint onto ${size} nodes`, rows);
    }
  });
}

/** What the disk takes for one flush, beside those who flush. */
async function floor(all, report, options, title) {
  const own = all.filter(({ module }) => module.isFloor);
  await withStores(own, options, 'floor', async (store) => store, async (stores) => {
    for (const { name, prepared } of stores) report.add(title, [row(name, await sample(() => prepared.floor(), { count: 400, budgetMs: 1500 }))]);
  });
}

/** 32 commits at once: queued on one session, and one for each of 32 sessions. */
async function together(all, report, options) {
  const perCommit = (fn, one) => async ({ prepared }) => {
    const alone = median(await sample(() => one(prepared), { count: 60, budgetMs: 800 }));
    const times = (await sample(() => fn(prepared), { count: 30, budgetMs: 1200 })).map((time) => time / 32);
    return { times, extra: { 'time, of one by one': median(times) / alone } };
  };
  const few = async (first) => {
    const session = new Session(first);
    await session.grow(1000);
    return session;
  };
  await withStores(all, options, 'commit', few, async (stores) => {
    const measure = perCommit((session) => session.appendAtOnce(32), (session) => session.append(1));
    report.add('32 commits queued on one session: time per commit', await rounds(stores, measure, options.rounds));
  });
  const many = async (first, open) => {
    const sessions = [new Session(first)];
    while (sessions.length < 32) sessions.push(new Session(await open()));
    for (const session of sessions) await session.grow(100);
    return sessions;
  };
  await withStores(all, options, 'commit', many, async (stores) => {
    const measure = perCommit((sessions) => Promise.all(sessions.map((session) => session.append(1))), ([session]) => session.append(1));
    report.add('32 sessions commit at once: time per commit', await rounds(stores, measure, options.rounds));
  });
}

/** 50,000 nodes, 25 MB as JSON; the paths end far from most of them. */
async function load(all, report, options) {
  const total = 50_000;
  const prepare = async (first) => {
    const session = new Session(first, 40);
    await session.grow(total - 400);
    await session.append(400, 0);
    return first;
  };
  await withStores(all, options, 'full', prepare, async (stores) => {
    for (const length of [100, 200, 400]) {
      // The path goes up the branch, then to the root.
      const leaf = leafOf(total - 400 + length - 2);
      const time = async ({ prepared }) => {
        const times = await sample(async () => {
          const nodes = await prepared.path(leaf);
          if (nodes !== length) throw new Error(`the path has ${nodes} nodes`);
        });
        return { times, extra: { 'p50, ms': median(times) } };
      };
      report.add(`active path of ${length} of ${total} nodes`, await rounds(stores, time, options.rounds));
    }
    for (const [name, title] of [['full', 'as objects'], ['text', 'as the addon hands it over, text']]) {
      const able = stores.filter(({ prepared }) => prepared[name]);
      if (able.length === 0) continue;
      const time = async ({ prepared }) => {
        const [times, holds] = [[], []];
        let size = 0;
        for (let i = 0; i < 6; i++) {
          const { result, took, blockedMs } = await blocked(() => prepared[name]());
          if (name === 'full' && result !== total) throw new Error(`${result} nodes`);
          size = name === 'text' ? result / 1e6 : 0;
          if (i === 0) continue;
          times.push(took);
          holds.push(blockedMs);
        }
        const extra = { 'p50, ms': median(times), 'event loop blocked, ms': median(holds), 'at most': Math.max(...holds), ...(size > 0 && { MB: size }) };
        return { times, extra };
      };
      report.add(`the full graph of ${total} nodes ${title}`, await rounds(able, time, options.rounds));
    }
  });
}

/** 100,000 batches wait. */
async function queue(all, report, options) {
  const waiting = 100_000;
  const prepare = async (store) => {
    await store.enqueueMany(waiting);
    return store;
  };
  await withStores(all, options, 'claim', prepare, async (stores) => {
    const claims = new Map(stores.map(({ name }) => [name, []]));
    const claim = async ({ name, prepared }) => {
      const one = async () => {
        const claimed = await prepared.claim();
        if (!claimed) throw new Error('nothing was claimed');
        claims.get(name).push(claimed);
      };
      const times = await sample(one, { count: 600, budgetMs: 2000 });
      return { times, extra: { 'p99, ms': quantile(times, 0.99) } };
    };
    report.add(`claim 1 of ${waiting} waiting`, await rounds(stores, claim, options.rounds));
    const renew = ({ name, prepared }) => sample((i) => prepared.renew(claims.get(name).at(i)), { count: 200, budgetMs: 1000 });
    report.add(`renew 1 of ${waiting}`, await rounds(stores, renew, options.rounds));
    const enqueue = ({ prepared }) => sample((i) => prepared.enqueue(waiting + i), { count: 200, budgetMs: 1000 });
    report.add(`enqueue onto ${waiting}`, await rounds(stores, enqueue, options.rounds));
  });
}

/** 50,000 orphans of 1.5 KB are removed while somebody commits. */
async function gc(all, report, options) {
  const orphans = 50_000;
  const able = all.filter(({ module }) => !module.isFloor);
  const quiet = [];
  const busy = [];
  for (const contender of able) {
    for (const list of [quiet, busy]) {
      const dir = scratch(options.dir, 'graph-gc');
      const store = await contender.module.openGraph(dir);
      try {
        const session = new Session(store);
        await session.grow(100);
        await store.orphan(orphans);
        const collect = () => store.gc();
        const { result, took, times } = list === busy ? await beside(collect, () => session.append(1)) : await plain(collect);
        if (result < orphans) throw new Error(`${result} of ${orphans} were removed`);
        const alone = median(await sample(() => session.append(1), { count: 60 }));
        const extra = list === busy ? { 'longest commit beside it, ms': Math.max(...times), commits: times.length, 'a commit alone, ms': alone } : {};
        if (list === quiet) {
          const bytes = () => fs.statSync(store.file).size / 1e6;
          const started = now();
          await store.shrink();
          extra['shrink, ms'] = now() - started;
          await store.close();
          extra['MB after'] = bytes();
        }
        if (list === quiet) extra['p50, ms'] = took;
        list.push(row(contender.name, [took], extra));
        if (list === busy) await store.close();
      } finally {
        wipe(dir);
      }
    }
  }
  report.add(`collect ${orphans} orphans of 1.5 KB`, withRatios(quiet));
  report.add(`collect ${orphans} orphans beside a session that commits`, withRatios(busy));
}

async function plain(fn) {
  const started = now();
  const result = await fn();
  return { result, took: now() - started, times: [] };
}

const withRatios = (rows) => rows.map((one) => ({ ...one, ratio: one.p50 / rows[0].p50 }));

/** What 100,000 rows of usage add to a load. */
async function ledger(all, report, options) {
  const prepare = async (first, open) => {
    const stores = [first, await open()];
    for (const store of stores) await new Session(store).grow(10);
    await stores[1].usage(100_000);
    return stores;
  };
  await withStores(all, options, 'usage', prepare, async (stores) => {
    const time = async ({ prepared }) => {
      const [none, some] = [[], []];
      for (let i = 0; i < 60; i++) {
        for (const [index, list] of [none, some].entries()) {
          const started = now();
          await prepared[index].path();
          list.push(now() - started);
        }
      }
      return { times: some, extra: { 'added, ms': Math.max(0, median(some) - median(none)) } };
    };
    report.add('load ten nodes beside 100000 rows of usage', await rounds(stores, time, options.rounds));
  });
}

/** How often each call syncs. */
function syncs(all, report, options) {
  for (const what of ['commit', 'enqueue', 'claim', 'renew']) {
    const rows = [];
    for (const { name, file, module } of all) {
      if (module.isFloor) continue;
      const counts = callsPer('graph', file, what, options);
      if (counts !== null) rows.push({ contender: name, n: 20, extra: counts });
    }
    report.add(`system calls per ${what}`, rows);
  }
}
