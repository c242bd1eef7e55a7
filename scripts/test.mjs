// Runs every test, one step after the other, and stops at the first step that fails.
//
//   npm test [-- --only rust,forks,threads,bun] [-- FILE-NAME-FILTER...]
//
//   build    brings addon and facade up to date (does nothing after `npm ci`)
//   rust     the engine without Node, by cargo-nextest where it is installed, and the examples in its docs
//   forks    the vitest suite, each file in a process of its own
//   threads  the vitest suite, each file in a worker thread; files that begin with `// @pool forks` start processes of their own, to
//            which the pool makes no difference
//   bun      the vitest suite on Bun; files that begin with `// @pool forks @runtime node` wait for servers most of the time, and what
//            they are about is not JavaScript
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { s3Program } from './s3.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);
const { bunPath } = require('./bun.cjs');
const names = ['rust', 'forks', 'threads', 'bun'];
const { values: options, positionals: filters } = parseArgs({
  options: { only: { type: 'string' } },
  allowPositionals: true,
});
const wanted = options.only?.split(',') ?? names;
const unknown = wanted.filter((name) => !names.includes(name));
if (unknown.length > 0) {
  console.error(`npm test: no such step: ${unknown.join(', ')}; --only takes ${names.join(', ')}`);
  process.exit(2);
}

const scratch = mkdtempSync(path.join(tmpdir(), 'holdfast-test-'));
const counts = { passed: 0, failed: 0, skipped: 0 };
const finished = [];

/** Runs a program, showing its output; resolves to exit code and output without colours. */
function run(command, args) {
  return new Promise((resolve, reject) => {
    const colours = process.stdout.isTTY ? { FORCE_COLOR: '1', CARGO_TERM_COLOR: 'always' } : { FORCE_COLOR: undefined, NO_COLOR: '1' };
    const env = { ...process.env, ...colours };
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], env });
    let output = '';
    for (const [from, to] of [[child.stdout, process.stdout], [child.stderr, process.stderr]]) {
      from.on('data', (chunk) => {
        output += chunk;
        to.write(chunk);
      });
    }
    child.on('error', reject);
    child.on('close', (code) => resolve({ code: code ?? 1, output: output.replace(/\x1b\[[0-9;]*m/g, '') }));
  });
}

function count(pattern, output) {
  for (const [, number, what] of output.matchAll(pattern)) counts[what === 'ignored' ? 'skipped' : what] += Number(number);
}

/** Tells the tests of the engine where an S3 server is. Where there is none they skip what needs it, and `s3Program` says so. */
function findS3() {
  const program = s3Program();
  if (program === null) delete process.env.HOLDFAST_S3_SERVER;
  else process.env.HOLDFAST_S3_SERVER = program;
}

async function rust() {
  findS3();
  const locked = process.env.CI ? ['--locked'] : [];
  const nextest = spawnSync('cargo', ['nextest', '--version'], { cwd: root }).status === 0;
  const unit = nextest
    ? ['nextest', 'run', '--no-default-features', '--features', 's3', '--no-tests', 'fail', ...locked]
    : ['test', '--no-default-features', '--features', 's3', '--lib', '--tests', ...locked];
  const tests = await run('cargo', unit);
  const summary = nextest ? tests.output.split('\n').filter((line) => /^\s*Summary \[/.test(line)).join('\n') : tests.output;
  count(/(\d+) (passed|failed|skipped|ignored)/g, summary);
  if (tests.code !== 0) return tests.code;
  const docs = await run('cargo', ['test', '--no-default-features', '--features', 's3', '--doc', '--quiet', ...locked]);
  count(/(\d+) (passed|failed|ignored);/g, docs.output);
  return docs.code;
}

async function vitest(runtime, pool, marker) {
  const report = path.join(scratch, 'report.json');
  rmSync(report, { force: true });
  const cli = path.join(path.dirname(require.resolve('vitest/package.json')), 'vitest.mjs');
  const apart = filesApart(marker).flatMap((file) => ['--exclude', file]);
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const { code } = await run(runtime[0], [...runtime.slice(1), cli, 'run', '--pool', pool, ...apart, ...reporters, ...filters]);
  try {
    const result = JSON.parse(readFileSync(report, 'utf8'));
    counts.passed += result.numPassedTests;
    counts.failed += result.numFailedTests;
    counts.skipped += result.numPendingTests + result.numTodoTests;
  } catch {
    console.error(`vitest left no report (exit code ${code})`);
    return code || 1;
  }
  return code;
}

/** The test files that begin with a marker: they are left out. */
function filesApart(marker) {
  if (marker === undefined) return [];
  const files = readdirSync(path.join(root, '__test__'), { recursive: true }).map((file) => file.replaceAll(path.sep, '/'));
  const marked = (file) => readFileSync(path.join(root, '__test__', file), 'utf8').startsWith(marker);
  return files.filter((file) => file.endsWith('.test.ts') && marked(file)).map((file) => `__test__/${file}`);
}

async function bun() {
  const binary = bunPath();
  if (binary) return vitest([binary, '--bun'], 'forks', '// @pool forks @runtime node');
  console.error('SKIPPED: no Bun for this platform in node_modules (run `npm ci` without --omit=optional)');
  return process.env.CI ? 1 : 0;
}

const steps = {
  build: async () => (await run(process.execPath, ['scripts/prepare.cjs'])).code,
  rust,
  forks: () => vitest([process.execPath], 'forks'),
  threads: () => vitest([process.execPath], 'threads', '// @pool forks'),
  bun,
};

let failure = null;
for (const name of Object.keys(steps)) {
  if (name === 'build' ? wanted.every((each) => each === 'rust') : !wanted.includes(name)) continue;
  console.log(`\n== ${name}`);
  const started = Date.now();
  const code = await steps[name]();
  finished.push(`${name} ${((Date.now() - started) / 1000).toFixed(1)} s${code === 0 ? '' : ' FAILED'}`);
  console.log(`== ${finished.at(-1)}`);
  if (code !== 0) {
    failure = name;
    break;
  }
}
rmSync(scratch, { recursive: true, force: true });

console.log(`\ntime: ${finished.join(', ')}`);
if (failure) {
  // A step can fail outside any test (a compiler error, say); the summary must not read as a success then.
  console.log(`stopped: step "${failure}" failed`);
  counts.failed ||= 1;
}
console.log(`total: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = failure ? 1 : 0;
