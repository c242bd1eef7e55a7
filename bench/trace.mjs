// What a batch asks of the system: runs 4 and then 24 batches under strace and divides the difference by 20, so that
// start-up and set-up drop out.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const worker = fileURLToPath(new URL('worker.mjs', import.meta.url));

/** Counts per kind of call in a run of the worker with these arguments. */
function countCalls(args, options) {
  const log = path.join(os.tmpdir(), `holdfast-trace-${process.pid}`);
  const command = [process.execPath, worker, ...args.map(String)];
  const { status } = spawnSync('strace', ['-f', '-y', '-qq', '-e', 'signal=none', '-o', log, ...command], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, ...(options.dir && { BENCH_DIR: options.dir }) },
  });
  const text = status === 0 ? fs.readFileSync(log, 'utf8') : null;
  fs.rmSync(log, { force: true });
  if (text === null) throw new Error(`the traced command ended with ${status}`);

  const folders = new Set([...text.matchAll(/ mkdir\("([^"]+)"/g)].map(([, name]) => name));
  for (const [, parent, name] of text.matchAll(/ mkdirat\([^<]*<([^>]+)>, "([^"]+)"/g)) folders.add(path.resolve(parent, name));
  const counts = { calls: 0, 'synced files': 0, 'synced folders': 0, renames: 0, links: 0 };
  for (const [, call, , target] of text.matchAll(/^\d+\s+([a-z0-9_]+)\(([^<\n]*<([^>\n]*)>)?/gm)) {
    counts.calls++;
    if (/^f(data)?sync$/.test(call)) counts[folders.has(target) ? 'synced folders' : 'synced files']++;
    else if (/^rename/.test(call)) counts.renames++;
    else if (/^link/.test(call)) counts.links++;
  }
  return counts;
}

/** System calls per repetition of `job` (`node worker.mjs JOB FILE COUNT WHAT`); `null` where they cannot be counted. */
export function callsPer(job, file, what, options) {
  if (process.platform !== 'linux' || spawnSync('strace', ['-V']).status !== 0) return null;
  const few = countCalls([job, file, 4, what], options);
  const many = countCalls([job, file, 24, what], options);
  return { 'synced files': (many['synced files'] - few['synced files']) / 20, calls: (many.calls - few.calls) / 20 };
}

/** Prints the table; returns the syncs per batch by `<contender>/<stores>`. */
export function trace(contenders, options, reference) {
  console.log('\n# trace: system calls per writeBatch of 1 KB stores\n');
  if (process.platform !== 'linux' || spawnSync('strace', ['-V']).status !== 0) {
    console.log('SKIPPED: strace is not installed, so syncs are not counted');
    return {};
  }
  const syncs = {};
  const kinds = ['synced files', 'synced folders', 'renames', 'links', 'calls'];
  console.log(`| contender | stores | ${kinds.join(' | ')} |\n|---|---|${'---|'.repeat(kinds.length)}`);
  for (const { name, file } of contenders) {
    for (const stores of [1, 4, 10]) {
      try {
        const few = countCalls(['batch', file, 4, stores, 1024], options);
        const many = countCalls(['batch', file, 24, stores, 1024], options);
        const per = kinds.map((kind) => ((many[kind] - few[kind]) / 20).toFixed(1));
        syncs[`${name}/${stores}`] = Number(per[0]) + Number(per[1]);
        console.log(`| ${[name, stores, ...per].join(' | ')} |`);
        if (options.out) fs.appendFileSync(path.resolve(options.out), `${JSON.stringify({ bench: 'trace', contender: name, stores, kinds, per })}\n`);
      } catch (error) {
        console.log(`| ${name} | ${stores} | FAILED: ${error.message} |`);
      }
    }
  }
  console.log(`\nreference, syncs per batch: ${reference}`);
  return syncs;
}
