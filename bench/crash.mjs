// Kills a writer with SIGKILL at random moments and looks at what is left: process death, not a power cut.
//
//   acked lost       a batch whose writeBatch had resolved is not what the stores hold (nor a newer one)
//   torn             after recover(), the stores do not all come from one batch
//   unhealthy        before recover(), the plan wants quarantine, rebuild or a blocked start
//   blocked          the same plan blocks the start; `after` = still so after recover() and one more batch
//   leftovers        temporary or lock files are still there at the end
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { hasRuntimeStore, open } from './contenders.mjs';
import { formatMs, now, payload, quantile, scratch, wipe } from './lib.mjs';

const worker = fileURLToPath(new URL('worker.mjs', import.meta.url));
const stores = 10;
const bytes = 4096;

/** Starts a writer on `dir`, kills it 5 to 65 ms after its first sign; resolves to the last acknowledged batch. */
function writeUntilKilled(file, dir) {
  return new Promise((resolve, reject) => {
    const args = [worker, 'crash', file, dir, String(stores), String(bytes)];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let acknowledged = 0;
    let partial = '';
    child.stdout.on('data', (chunk) => {
      const lines = (partial + chunk).split('\n');
      partial = lines.pop();
      for (const line of lines.map((text) => JSON.parse(text))) {
        if (line === 'go') setTimeout(() => child.kill('SIGKILL'), 5 + Math.random() * 60);
        else acknowledged = line;
      }
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (signal === 'SIGKILL') resolve(acknowledged);
      else reject(new Error(`the writer stopped by itself: ${code}`));
    });
  });
}

/** Which batch each store holds; -1 for a store that cannot be read. */
function saltsIn(module, dir) {
  return module.OPENCODE_RUNTIME_STORE_DESCRIPTORS.slice(0, stores).map(({ relativePath }) => {
    try {
      return JSON.parse(fs.readFileSync(path.join(dir, relativePath), 'utf8')).data.salt;
    } catch {
      return -1;
    }
  });
}

async function killOnce({ module, file }, seen, options) {
  const dir = scratch(options.dir, 'crash');
  const first = open(module, dir);
  await first.writeBatch(stores, payload(bytes, 0));
  await first.close();
  const acknowledged = await writeUntilKilled(file, dir);

  const store = open(module, dir);
  const plan = await store.plan().catch(() => ({ manifestHealthy: false, readinessImpact: 'blocked' }));
  if (!plan.manifestHealthy) seen.unhealthy++;
  if (plan.readinessImpact === 'blocked') seen.blocked++;
  if (store.recover) {
    const started = now();
    await store.recover();
    seen.recovery.push(now() - started);
  }
  const salts = saltsIn(module, dir);
  if (new Set(salts).size > 1) seen.torn++;
  if (Math.min(...salts) < acknowledged) seen.lost++;
  await store.writeBatch(stores, payload(bytes, 1e6)).catch(() => seen.refused++);
  const after = await store.plan().catch(() => ({ readinessImpact: 'blocked' }));
  if (after.readinessImpact === 'blocked') seen.after++;
  await store.close();
  if (fs.readdirSync(dir).some((name) => /tmp|\.lock$/i.test(name))) seen.leftovers++;
  wipe(dir);
}

/** Prints the table; resolves to what went wrong for the first contender. */
export async function crash(contenders, options, reference) {
  console.log(`\n# crash: ${options.kills} SIGKILLs at random moments while writing ${stores} stores of ${bytes} bytes\n`);
  console.log('| contender | acked lost | torn | unhealthy | blocked | next batch refused | blocked after | leftovers | recover() p50, p99 |');
  console.log('|---|---|---|---|---|---|---|---|---|');
  const wrong = [];
  const able = contenders.filter(({ module }) => hasRuntimeStore(module));
  for (const contender of able) {
    const seen = { lost: 0, torn: 0, unhealthy: 0, blocked: 0, refused: 0, after: 0, leftovers: 0, recovery: [] };
    for (let i = 0; i < options.kills; i++) await killOnce(contender, seen, options);
    const { recovery, ...counts } = seen;
    const times = recovery.length > 0 ? [0.5, 0.99].map((q) => formatMs(quantile(recovery, q))).join(', ') : '';
    console.log(`| ${[contender.name, ...Object.values(counts), times].join(' | ')} |`);
    if (options.out) fs.appendFileSync(path.resolve(options.out), `${JSON.stringify({ bench: 'crash', contender: contender.name, ...seen })}\n`);
    if (contender !== able[0]) continue;
    for (const what of ['lost', 'torn', 'refused', 'after', 'leftovers']) if (counts[what] > 0) wrong.push(`crash, ${what}: ${counts[what]}`);
  }
  console.log(`\nreference, 60 kills: ${reference}`);
  return wrong;
}
