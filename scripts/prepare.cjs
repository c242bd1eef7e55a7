// npm's "prepare" step: runs after `npm ci` in a clone, before `npm pack`, and when holdfast is installed from git.
// It never runs for those who install the packed tarball, which brings the built files and has no scripts folder.
// Needs Node 20+ and cargo; each part is built only when its sources changed.
'use strict';

const { spawnSync } = require('node:child_process');
const path = require('node:path');

try {
  require.resolve('@napi-rs/cli/package.json');
  require.resolve('typescript');
} catch {
  console.error('holdfast: building from a checkout needs the dev dependencies; run `npm ci` without --omit=dev.');
  process.exit(1);
}

for (const [script, ...args] of [['build-native.cjs', '--if-stale'], ['build-js.cjs', '--if-stale']]) {
  const { status } = spawnSync(process.execPath, [path.join(__dirname, script), ...args], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}
