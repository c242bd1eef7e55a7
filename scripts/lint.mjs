// Everything that is checked without running it; goes on after a failure, to show all of them at once.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const tsc = ['node', 'node_modules/typescript/bin/tsc'];
const clippy = ['cargo', 'clippy', '--all-targets', ...(process.env.CI ? ['--locked'] : [])];

const checks = [
  ['cargo fmt', ['cargo', 'fmt', '--all', '--check']],
  ['clippy, engine alone', [...clippy, '--no-default-features', '--', '-D', 'warnings']],
  ['clippy, with the binding', [...clippy, '--', '-D', 'warnings']],
  ['tsc, facade', [...tsc, '-p', 'tsconfig.json', '--noEmit']],
  ['tsc, index.d.ts and tests', [...tsc, '-p', 'tsconfig.test.json']],
  ['index.d.ts up to date', ['node', 'scripts/dts.cjs', '--check']],
];

const failed = [];
for (const [name, [command, ...args]] of checks) {
  const started = Date.now();
  const { status } = spawnSync(command === 'node' ? process.execPath : command, args, { cwd: root, stdio: 'inherit' });
  console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  if (status !== 0) failed.push(name);
}
if (failed.length > 0) {
  console.error(`lint: ${failed.length} failed: ${failed.join('; ')}`);
  process.exitCode = 1;
}
