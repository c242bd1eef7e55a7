// Compiles the facade: src-js/*.ts to CommonJS in dist/, with the ESM wrappers and subpath types beside it.
//
//   node scripts/build-js.cjs [--if-stale]
//
// dist/ is exchanged whole, so nothing of a renamed file stays behind and nobody loads a half-written folder.
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { root, fingerprint, readStamp } = require('./fingerprint.cjs');

const dist = path.join(root, 'dist');
const fresh = path.join(root, 'dist.new');
const stampFile = path.join(dist, '.stamp');
const sources = ['src-js', 'native.d.ts', 'tsconfig.json', 'package.json', 'scripts'];

function run(...args) {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

function main(argv) {
  const wanted = fingerprint(sources);
  if (argv.includes('--if-stale') && readStamp(stampFile)?.sources === wanted) {
    console.log('facade: up to date');
    return;
  }
  const started = Date.now();
  fs.rmSync(fresh, { recursive: true, force: true });
  run(require.resolve('typescript/bin/tsc'), '-p', 'tsconfig.json', '--outDir', fresh);
  run(path.join(__dirname, 'esm-wrappers.cjs'), fresh);
  fs.writeFileSync(path.join(fresh, '.stamp'), `${JSON.stringify({ sources: wanted })}\n`);
  fs.rmSync(dist, { recursive: true, force: true });
  fs.renameSync(fresh, dist);
  console.log(`facade: built in ${((Date.now() - started) / 1000).toFixed(1)} s`);
}

main(process.argv.slice(2));
