// Every published figure of holdfast, beside its peers, in one interleaved run.
//
//   npm run bench [-- OPTIONS]
//     --only CASES        of batch, growth, plan, locked, crash, trace, slowsync, entity, packages, lifecycle, session-graph
//                         (default: all)
//     --entity CASES      of pure, memory, embedded, thread, log, postgres (default: all); Postgres at DATABASE_URL, or its own
//     --packages CASES    of pack, unpack, seed, materialize, noop, delta, many (default: all); --dir on a tmpfs shows our own share
//     --lifecycle CASES   of spawn, observe, together, latency, stream, history, postgres (default: all)
//     --graph CASES       of commit, together, load, queue, gc, ledger, syncs (default: all)
//     --rounds N          rounds per case (3); the figure is the median of the rounds' medians
//     --contender N=FILE  one more contender (repeatable; see contenders.mjs for what FILE exports)
//     --no-peers          only holdfast and the contenders named here
//     --kills N           SIGKILLs of the crash case (60)
//     --batches N         how far the growth case goes (5000)
//     --sizes A,B         bytes per store in the batch case (1024,262144)
//     --dir FOLDER        on which disk (the system's temporary folder); a tmpfs shows the share of the CPU
//     --out FILE          append every row as a JSON line
//     --strict            exit 1 when a figure misses the goal recorded in reference.json
//
// slowsync runs the timed cases once more with 2 ms added to each fsync: the sync of a virtual disk is often cheaper
// than anybody's own. The reference column is what the JSON-file implementation took on the machine of reference.json.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { allContenders } from './contenders.mjs';
import { crash } from './crash.mjs';
import { entity } from './entity.mjs';
import { Report } from './lib.mjs';
import { lifecycle } from './lifecycle.mjs';
import { packages } from './packages.mjs';
import * as timed from './runtime-store.mjs';
import { sessionGraph } from './session-graph.mjs';
import { trace } from './trace.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const reference = JSON.parse(fs.readFileSync(path.join(here, 'reference.json'), 'utf8'));
const timedCases = ['batch', 'growth', 'plan', 'locked'];
const allCases = [...timedCases, 'crash', 'trace', 'slowsync', 'entity', 'packages', 'lifecycle', 'session-graph'];

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: allCases.join(',') },
    rounds: { type: 'string', default: '3' },
    entity: { type: 'string' },
    packages: { type: 'string' },
    lifecycle: { type: 'string' },
    graph: { type: 'string' },
    contender: { type: 'string', multiple: true, default: [] },
    'no-peers': { type: 'boolean', default: false },
    kills: { type: 'string', default: '60' },
    batches: { type: 'string', default: '5000' },
    sizes: { type: 'string', default: '1024,262144' },
    dir: { type: 'string' },
    out: { type: 'string' },
    strict: { type: 'boolean', default: false },
  },
});
const only = values.only.split(',');
const unknown = only.filter((name) => !allCases.includes(name));
if (unknown.length > 0) {
  console.error(`npm run bench: no such case: ${unknown.join(', ')}; --only takes ${allCases.join(', ')}`);
  process.exit(2);
}
const options = {
  rounds: Number(values.rounds),
  kills: Number(values.kills),
  batches: Number(values.batches),
  sizes: values.sizes.split(',').map(Number),
  dir: values.dir,
  entity: values.entity?.split(','),
  packages: values.packages?.split(','),
  lifecycle: values.lifecycle?.split(','),
  graph: values.graph?.split(','),
  peers: !values['no-peers'],
  out: values.out,
  // Syncs per batch by `<contender>/<stores>`, from the trace case; handed down to the slowsync child.
  syncs: JSON.parse(process.env.HOLDFAST_BENCH_SYNCS ?? '{}'),
};

/** Runs the timed cases again in a child whose syncs are slow. */
function underSlowSync() {
  const cases = only.filter((name) => timedCases.includes(name));
  if (process.platform !== 'linux' || spawnSync('cc', ['--version']).status !== 0) {
    console.log('\nSKIPPED: slowsync needs Linux and a C compiler (cc)');
    return 0;
  }
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdfast-slowsync-'));
  const library = path.join(folder, 'slowsync.so');
  try {
    const cc = ['-O2', '-shared', '-fPIC', '-o', library, path.join(here, 'slowsync.c'), '-ldl'];
    if (spawnSync('cc', cc, { stdio: 'inherit' }).status !== 0) throw new Error('slowsync.c did not compile');
    const flags = process.argv.slice(2).filter((flag, i, all) => !flag.startsWith('--only') && all[i - 1] !== '--only');
    const args = [fileURLToPath(import.meta.url), ...flags, '--only', (cases.length > 0 ? cases : timedCases).join(',')];
    const env = { ...process.env, LD_PRELOAD: library, SLOWSYNC_US: '2000', HOLDFAST_BENCH_SYNCS: JSON.stringify(options.syncs) };
    return spawnSync(process.execPath, args, { stdio: 'inherit', env }).status ?? 1;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

const slow = Number(process.env.SLOWSYNC_US ?? 0) > 0;
// The cases of the other modules have contenders of their own.
const contenders = only.every((name) => ['entity', 'packages', 'lifecycle', 'session-graph'].includes(name)) ? [] : await allContenders(values.contender, { peers: options.peers });
const missed = [];
if (only.includes('trace')) options.syncs = trace(contenders, options, reference['syncs per writeBatch']);
if (timedCases.some((name) => only.includes(name))) {
  const title = slow ? `runtime store, ${process.env.SLOWSYNC_US} µs added to each sync` : 'runtime store';
  const report = new Report(title, { out: options.out, reference: slow ? reference.slow : reference.fast });
  for (const name of timedCases) if (only.includes(name)) await timed[name](contenders, report, options);
  missed.push(...report.end());
}
if (only.includes('crash')) missed.push(...(await crash(contenders, options, reference['crash, 60 kills'])));
if (only.includes('entity')) missed.push(...(await entity(values.contender, options, reference.entity)));
if (only.includes('packages')) missed.push(...(await packages(values.contender, options, reference.packages)));
if (only.includes('lifecycle')) missed.push(...(await lifecycle(values.contender, options, reference.lifecycle)));
if (only.includes('session-graph')) missed.push(...(await sessionGraph(values.contender, options, reference['session-graph'])));
const slowStatus = only.includes('slowsync') ? underSlowSync() : 0;

for (const line of missed) console.log(`MISSED: ${line}`);
if (slowStatus > 0 || (values.strict && missed.length > 0)) process.exitCode = 1;
