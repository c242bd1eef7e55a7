// npm run demo [-- --seconds N] [-- --seed N]
//
// A process writes batches of four files as fast as it can, and is killed with SIGKILL: mostly at a random moment, now and then at
// a named step of a batch, or while it recovers. After every kill this process recovers the directory and compares it with its own
// memory of what was acknowledged. Ends with 1 if anything was lost or does not fit together; the directory is kept then.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { computeRuntimeStoreContentHash } from 'holdfast';
import { batch, content, descriptors, expectation, open } from './demo-stores.mjs';
import { bold, count, dim, endProgress, green, progress, quantile, red, table } from './demo-screen.mjs';

const victim = path.join(path.dirname(fileURLToPath(import.meta.url)), 'demo-victim.mjs');

/** The steps of a batch at which a kill is due now and then, and how often a batch passes each. */
const STEPS = [
  ['after_stage_files', 1],
  ['after_commit_point', 1],
  ['between_publish', descriptors.length + 2],
  ['after_publish', 1],
  ['before_cleanup', 1],
  ['in_undo', descriptors.length + 2],
];

const { seconds, seed } = options();
const random = generator(seed);
const between = (low, high) => low + Math.floor(random() * (high - low + 1));

const dir = mkdtempSync(path.join(tmpdir(), 'holdfast-demo-'));
const score = { kills: { random: 0, named: 0, recovering: 0 }, forwards: 0, cleared: 0, discards: 0, undone: 0, recoveryMs: [] };
/** The truth: how many batches were acknowledged, and the highest number among them. */
const truth = { acknowledged: 0, last: 0 };
let found = 0;
const problems = [];
let lost = 0;
let event = '';
let stopped = false;
process.once('SIGINT', () => (stopped = true));

console.log(bold('holdfast demo: write, kill, recover, compare'));
console.log(`  A process writes batches of ${descriptors.length} files, each batch on the disk before it is acknowledged, and is killed by SIGKILL`);
console.log('  again and again. After each kill the directory is recovered and compared with what was acknowledged.');
console.log('  Some kills come at a named step of a batch, or during recovery, so that there is something to finish or undo.');
console.log(dim(`  ${seconds} s, --seed ${seed}, in ${dir}`));
console.log('');

const started = performance.now();
const elapsedMs = () => performance.now() - started;
await open(dir, { batchIdFactory: () => 'first' }).writer.writeBatch(batch(1));
Object.assign(truth, { acknowledged: 1, last: 1 });
await compare();

// Three rounds at least, so that even on a slow machine one kill comes at a named step.
for (let round = 1; (elapsedMs() < seconds * 1000 || round <= 3) && problems.length === 0 && !stopped; round += 1) {
  const step = round % 3 === 0 ? STEPS[between(0, STEPS.length - 1)] : null;
  await kill('write', round, step === null ? [] : faultsAt(step), step === null ? between(30, 400) : null);
  // What the victim left may be an open batch; now and then another one dies while it repairs that.
  if (step !== null && random() < 0.5) await kill('recover', round, [{ point: 'in_recovery', nth: between(1, 3), action: 'kill' }], null);
  await compare();
  progress({ elapsedMs: elapsedMs(), totalMs: seconds * 1000, kills: kills(), acknowledged: truth.acknowledged, forwards: score.forwards, backs: backs(), lost, event });
}
endProgress();
if (truth.acknowledged === 1 && !stopped) problems.push('the writer never acknowledged a batch, so nothing was shown');
report();

/** Rules that kill the victim at a step, in one of its first batches. */
function faultsAt([point, passes]) {
  const nth = between(1, 12 * passes);
  if (point !== 'in_undo') return [{ point, nth, action: 'kill' }];
  // An undo begins when publishing fails: the disk refuses there (EIO), and the kill comes in the undo.
  return [{ point: 'between_publish', nth, action: { errno: 5 } }, { point, nth: 1, action: 'kill' }];
}

/** Runs a victim until it is dead: by `faults`, or after `delayMs`. Counts what it acknowledged. */
function kill(job, round, faults, delayMs) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [victim, job, dir, String(found + 1), String(round), JSON.stringify(faults)], { stdio: ['ignore', 'pipe', 'pipe'] });
    let acknowledged = '';
    let complaint = '';
    let byTimer = false;
    const timer = setTimeout(() => (byTimer = child.kill('SIGKILL')), delayMs ?? 5000);
    child.stdout.setEncoding('latin1').on('data', (text) => (acknowledged += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (complaint += text));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      // A line without its end was cut off by the kill: nobody was told.
      const numbers = acknowledged.split('\n').slice(0, -1).map(Number);
      truth.acknowledged += numbers.length;
      truth.last = numbers.at(-1) ?? truth.last;
      if (signal === null && !(job === 'recover' && code === 0)) problems.push(`the ${job} process ended by itself (${code}): ${complaint.trim()}`);
      if (signal !== null) {
        score.kills[job === 'recover' ? 'recovering' : byTimer ? 'random' : 'named'] += 1;
        event = byTimer ? 'killed at a random moment' : `killed at ${faults.at(-1).point}`;
      }
      resolve();
    });
  });
}

/** Recovers the directory in fresh handles, and compares everything in it with the truth. */
async function compare() {
  const { executor, manifest, receipts } = open(dir);
  const before = performance.now();
  const { before: planBefore, steps, after } = await executor.recover(expectation);
  score.recoveryMs.push(performance.now() - before);
  tally(planBefore, steps);

  const must = (holds, text) => holds || problems.push(text);
  must(after.manifestHealthy && after.readinessImpact === 'none', `the plan is not healthy after recovery: ${after.diagnostics.join('; ')}`);
  const stores = descriptors.map(({ relativePath }) => readFileSync(path.join(dir, relativePath), 'utf8'));
  const numbers = stores.map((text) => JSON.parse(text).data.number);
  found = Math.min(...numbers);
  must(numbers.every((number) => number === found), `the stores are of different batches: ${numbers.join(', ')}`);
  stores.forEach((text, index) => must(JSON.stringify(JSON.parse(text).data) === JSON.stringify(content(index, found)), `${descriptors[index].relativePath} has other content than batch ${found} wrote`));

  lost += Math.max(0, truth.last - found);
  must(found >= truth.last, `batch ${truth.last} was acknowledged, but the stores are at ${found}`);
  // The victim has one batch under way at a time, so at most one can stand without having been acknowledged.
  must(found <= truth.last + 1, `batch ${found} was never written; the last acknowledged one is ${truth.last}`);
  // What was found stands from now on, and the next victim goes on from there.
  truth.last = found;

  const { entries, highWatermark, lastCommittedBatchId } = await manifest.read();
  const records = await receipts.list();
  const newest = records.at(-1);
  must(highWatermark === found, `the manifest counts ${highWatermark} batches, the stores ${found}`);
  must(newest?.batchId === lastCommittedBatchId, `the newest receipt is of ${newest?.batchId}, the manifest's of ${lastCommittedBatchId}`);
  must(records.every(({ state }) => state === 'committed'), 'a batch in the receipts is not committed');
  descriptors.forEach(({ schemaName }, index) => {
    const entry = entries.find((candidate) => candidate.schemaName === schemaName);
    const receipt = newest?.receipts.find((candidate) => candidate.schemaName === schemaName);
    must(entry?.contentHash === computeRuntimeStoreContentHash(stores[index]), `the manifest has another hash of ${schemaName} than its file`);
    must(entry?.lastWriteReceiptId === receipt?.receiptId && entry?.contentHash === receipt?.contentHash, `manifest and receipts differ on ${schemaName}`);
  });
  const { openBatches, locks, temporaryFiles, quarantineFiles } = await executor.verify(expectation);
  const leftovers = [...openBatches.map(({ folder }) => folder), ...[...locks, ...temporaryFiles, ...quarantineFiles].map((file) => file.path)];
  must(leftovers.length === 0, `recovery left ${leftovers.join(', ')}`);
}

/** Counts what recovery did. */
function tally(planBefore, steps) {
  // A batch whose files are all in place leaves a folder to clear away, and a healthy plan.
  const unfinished = planBefore?.actions.some(({ kind }) => kind === 'roll_forward') === true;
  const doneTo = (kind) => steps.filter((step) => step.kind === kind).length;
  score[unfinished ? 'forwards' : 'cleared'] += doneTo('roll_forward');
  score.discards += doneTo('discard');
  score.undone += doneTo('roll_back');
  if (steps.length > 0) event += `: ${steps[0].kind.replace('_', ' ')}`;
}

function report() {
  const { random: atRandom, named, recovering } = score.kills;
  const ms = (q) => `${quantile(score.recoveryMs, q).toFixed(1)} ms`;
  const bad = problems.length > 0 ? red : green;
  table([
    ['kills', count(kills()), `${atRandom} at a random moment, ${named} at a named step, ${recovering} during recovery`],
    ['batches acknowledged', count(truth.acknowledged), 'the writer said: on the disk'],
    ['batches found', count(found), `${count(found - truth.acknowledged + lost)} stood already when the kill kept the writer from saying so`],
    ['lost', count(lost), 'acknowledged, and not found', bad],
    ['inconsistent', count(problems.length), 'stores of different batches, wrong hashes, unhealthy plans, leftovers', bad],
    ['roll-forwards', count(score.forwards), `committed, finished by recovery; ${score.cleared} more were in place and only cleared away`],
    ['roll-backs', count(backs()), `${score.discards} discarded before their commit point, ${score.undone} undos finished`],
    ['recovery time p50', ms(0.5), 'recover(), both plans included'],
    ['recovery time p99', ms(0.99)],
  ]);
  console.log('');
  if (problems.length === 0) {
    rmSync(dir, { recursive: true, force: true });
    console.log(green(bold('Nothing was lost: every acknowledged batch was there after every kill, whole.')));
    return;
  }
  for (const problem of problems) console.log(red(`  ${problem}`));
  console.log(`The directory is kept for a look: ${dir}`);
  process.exitCode = 1;
}

function kills() {
  return score.kills.random + score.kills.named + score.kills.recovering;
}

function backs() {
  return score.discards + score.undone;
}

function options() {
  const { values } = parseArgs({ options: { seconds: { type: 'string', default: '10' }, seed: { type: 'string' } } });
  const seconds = Number(values.seconds);
  const seed = values.seed === undefined ? Date.now() % 1_000_000 : Number(values.seed);
  if (!(seconds > 0) || !Number.isInteger(seed) || seed < 0) {
    console.error('usage: demo.mjs [--seconds N] [--seed N]     N > 0 seconds, default 10; a seed of 0 or more, default from the clock');
    process.exit(2);
  }
  return { seconds, seed };
}

/** Numbers from 0 to below 1 that follow from the seed (mulberry32). The kills then come at the same delays and steps. */
function generator(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
