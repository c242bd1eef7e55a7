// Builds the Node-API addon: holdfast.<platform>.node, its loader native.cjs and the private types native.d.ts.
//
//   node scripts/build-native.cjs [--if-stale] [--debug]
//
// --if-stale does nothing when the addon on disk was built, in release mode, from exactly these sources by this
// compiler: native.stamp says so. A missing, foreign or debug addon counts as stale.
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { root, fingerprint, readStamp } = require('./fingerprint.cjs');

const stampFile = path.join(root, 'native.stamp');
const sources = ['Cargo.toml', 'Cargo.lock', 'build.rs', '.cargo', 'src', 'migrations'];

/** The built addons (normally one) and what `napi build` writes beside them; null when something is missing. */
function outputs() {
  const addons = fs.readdirSync(root).filter((name) => /^holdfast\..*\.node$/.test(name));
  const all = [...addons, 'native.cjs', 'native.d.ts'];
  return addons.length > 0 && all.every((name) => fs.existsSync(path.join(root, name))) ? all : null;
}

function isFresh(wanted) {
  const built = outputs();
  const stamp = readStamp(stampFile);
  if (!built || !stamp || stamp.outputs !== fingerprint(built)) return false;
  return Object.entries(wanted).every(([key, value]) => stamp[key] === value);
}

function compilerVersion() {
  const { status, stdout } = spawnSync('rustc', ['--version'], { cwd: root, encoding: 'utf8' });
  if (status === 0) return stdout.trim();
  console.error(
    'holdfast: no Rust compiler found. The addon is built from source here: install Rust (https://rustup.rs), ' +
      'make sure that `rustc --version` answers, and run this again.',
  );
  process.exit(1);
}

function build(debug) {
  const napi = path.join(path.dirname(require.resolve('@napi-rs/cli/package.json')), 'dist/cli.js');
  const args = [napi, 'build', '--platform', '--js', 'native.cjs', '--dts', 'native.d.ts'];
  if (!debug) args.push('--release');
  // In CI a lock file that does not fit Cargo.toml is an error, not something to repair quietly.
  if (process.env.CI) args.push('--', '--locked');
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) {
    console.error('holdfast: building the addon failed; the messages of cargo are above.');
    process.exit(status ?? 1);
  }
}

function main(argv) {
  const debug = argv.includes('--debug');
  const compiler = compilerVersion();
  const wanted = { sources: fingerprint(sources), compiler, platform: `${process.platform}-${process.arch}` };
  if (argv.includes('--if-stale') && isFresh(wanted)) {
    console.log('addon: up to date');
    return;
  }
  const started = Date.now();
  fs.rmSync(stampFile, { force: true });
  build(debug);
  const built = outputs();
  if (!built) {
    console.error('holdfast: the build left no holdfast.*.node, native.cjs or native.d.ts.');
    process.exit(1);
  }
  // A debug addon gets no stamp, so that the next `npm ci` or `npm test` replaces it.
  if (!debug) fs.writeFileSync(stampFile, `${JSON.stringify({ ...wanted, outputs: fingerprint(built) }, null, 2)}\n`);
  console.log(`addon: built in ${((Date.now() - started) / 1000).toFixed(0)} s`);
}

main(process.argv.slice(2));
