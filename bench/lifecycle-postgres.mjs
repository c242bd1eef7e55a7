// The session lifecycle on PostgreSQL, beside what one writes by hand with `pg`: the same polls, one transaction each.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { startPostgres } from '../scripts/postgres.mjs';
import { loadContenders, now, rounds, sample } from './lib.mjs';
import { company, extents, poll } from './lifecycle-lib.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const peers = { 'pg, by hand': 'lifecycle-pg' };

/** Runs over the server at DATABASE_URL, or over one of its own. */
export async function postgres(all, report, options) {
  const contenders = all.filter(({ name }) => name === 'holdfast');
  for (const [name, file] of options.peers ? Object.entries(peers) : []) {
    contenders.push(...(await loadContenders([`${name}=${path.join(here, 'peers', `${file}.mjs`)}`])));
  }
  const server = process.env.DATABASE_URL ? null : await startPostgres();
  const url = process.env.DATABASE_URL ?? server.url;
  let schemas = 0;
  const opened = (fn) => async ({ module }) => {
    const store = await module.openLifecycle({ connectionString: url, schema: `bench_${process.pid}_${++schemas}` });
    try {
      return await fn(store);
    } finally {
      await store.close();
    }
  };
  const add = async (what, fn) => report.add(`PostgreSQL: ${what}`, await rounds(contenders, opened(fn), options.rounds));
  try {
    await add('spawn a session (records)', (store) => sample(() => store.spawn(), { count: 300, budgetMs: 1500 }));
    for (const [changed, what] of extents) {
      await add(`observe a pull request, ${what}`, async (store) => {
        const id = await store.spawn();
        let turn = 0;
        return sample(() => store.observe(id, poll(turn++, changed)), { count: 300, budgetMs: 1500 });
      });
    }
    for (const [changed, what] of extents) await add(`64 callers observe, ${what}: time per observation`, (store) => company(store, changed, 20));
    await add('a commit resolves -> a listener in the process hears of it', async (store) => {
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
  } finally {
    await server?.stop();
  }
}
