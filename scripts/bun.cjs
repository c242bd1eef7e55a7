// Finds the Bun of the `bun` dev dependency, and runs it:  node scripts/bun.cjs ARGUMENTS...
//
// The dependency's own command works only after its install script, which npm may refuse to run. The binary itself
// comes in a package per platform; the install script, where it ran, has moved it from there into node_modules/bun.
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

/** The path of a Bun binary that starts, or null. */
function bunPath() {
  const modules = path.resolve(__dirname, '../node_modules');
  const binary = process.platform === 'win32' ? 'bun.exe' : 'bun';
  const scope = path.join(modules, '@oven');
  const packages = fs.existsSync(scope) ? fs.readdirSync(scope).sort().map((name) => path.join(scope, name, 'bin', binary)) : [];
  const candidates = [...packages, path.join(modules, 'bun/bin/bun.exe')];
  return candidates.find((file) => fs.existsSync(file) && spawnSync(file, ['--version']).status === 0) ?? null;
}

module.exports = { bunPath };

if (require.main === module) {
  const bun = bunPath();
  if (!bun) {
    console.error('No Bun for this platform in node_modules/@oven. Run `npm ci` (without --omit=optional) first.');
    process.exit(1);
  }
  const { status } = spawnSync(bun, process.argv.slice(2), { stdio: 'inherit' });
  process.exit(status ?? 1);
}
