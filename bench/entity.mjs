// Entity handles: a mutation end to end, what it costs the main thread, questions to a long log, the pure functions.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { startPostgres } from '../scripts/postgres.mjs';
import { log } from './entity-log.mjs';
import { embedded, inMemory, mainThread, postgres } from './entity-mutate.mjs';
import { pure } from './entity-pure.mjs';
import { Report, loadContenders } from './lib.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const peers = {
  'fast-deep-equal, safe-stable-stringify': 'entity-json',
  'by hand, drizzle and pg': 'entity-by-hand',
  'better-sqlite3': 'entity-sqlite',
};
const parts = { pure, memory: inMemory, embedded, thread: mainThread, log, postgres };

/** holdfast first (the yardstick of all ratios), then the peers that load, and the caller's own. */
async function contenders(extra, withPeers) {
  const found = await loadContenders([`holdfast=${path.join(here, 'entries/entity-holdfast.mjs')}`]);
  for (const [name, file] of withPeers ? Object.entries(peers) : []) {
    try {
      found.push(...(await loadContenders([`${name}=${path.join(here, 'peers', `${file}.mjs`)}`])));
    } catch (error) {
      console.error(`SKIPPED: peer ${name} cannot be loaded: ${String(error.message).split('\n')[0]}`);
    }
  }
  return [...found, ...(await loadContenders(extra))];
}

/** Runs the cases (`options.entity`: which, default all); returns the missed goals. */
export async function entity(extra, options, reference) {
  const wanted = options.entity ?? Object.keys(parts);
  const unknown = wanted.filter((name) => !(name in parts));
  if (unknown.length > 0) throw new Error(`no such entity case: ${unknown.join(', ')}; there are ${Object.keys(parts).join(', ')}`);
  const all = await contenders(extra, options.peers);
  const server = wanted.includes('postgres') && !process.env.DATABASE_URL ? await startPostgres() : null;
  try {
    const report = new Report('entity handles', { out: options.out, reference });
    for (const name of wanted) await parts[name](all, report, { ...options, url: process.env.DATABASE_URL ?? server?.url });
    return report.end();
  } finally {
    await server?.stop();
  }
}
