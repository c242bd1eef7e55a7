// Records what Bun really installs, for tests/placement.rs:  node scripts/placement-fixtures.mjs [SET...]
//
// For each set of dependencies it runs `bun install --ignore-scripts` against the npm registry in a temporary folder, and
// writes __test__/packages/fixtures/placement/<set>.json with
//   direct      the dependencies that were asked for
//   lock        the text of the bun.lock that Bun wrote: manifest order, and where each package belongs on any platform
//   packages    "name@version" -> those fields of its own package.json that decide placement and bins; `bundled` lists the
//               packages in its own node_modules. Bun does not download packages of other platforms: of those, the fields are the lock's
//   installed   "path name@version" of each package that is in node_modules on `host`, bundled ones left out
//   bins        "path -> target" of each link in a `.bin`
// The npm registry moves on, so a second run may differ from the first; what counts is that each file is one real install.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const { bunPath } = createRequire(import.meta.url)('./bun.cjs');
const target = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../__test__/packages/fixtures/placement');

const sets = {
  // Two versions of a name, the older one nested; aliases; bins that clash.
  small: { chalk: '4.1.2', 'ansi-styles': '6.2.1', '@isaacs/cliui': '8.0.2', 'node-uuid': '1.4.8', uuid: '8.3.2', rimraf: '5.0.10' },
  express: { express: '4.21.2', 'body-parser': '2.0.2', morgan: '1.10.0', pino: '9.6.0', knex: '3.1.0' },
  // Optional packages per platform, optional peers.
  vite: { vite: '6.3.5', vitest: '3.1.4', '@vitejs/plugin-react': '4.4.1', typescript: '5.8.3', tailwindcss: '4.1.7', '@tailwindcss/vite': '4.1.7' },
  // Peers that must not be nested, many of them.
  eslint: {
    eslint: '8.57.1', '@typescript-eslint/eslint-plugin': '7.18.0', '@typescript-eslint/parser': '7.18.0', 'eslint-plugin-import': '2.31.0',
    'eslint-plugin-react': '7.37.5', 'eslint-config-airbnb': '19.0.4', prettier: '2.8.8', 'eslint-plugin-prettier': '4.2.1', typescript: '5.5.4',
  },
  webpack: { webpack: '5.99.9', 'webpack-cli': '6.0.1', 'webpack-dev-server': '5.2.1', 'html-webpack-plugin': '5.6.3', 'css-loader': '7.1.2', 'style-loader': '4.0.0' },
  jest: { jest: '29.7.0', 'ts-jest': '29.3.4', '@babel/core': '7.27.1', '@babel/preset-env': '7.27.2', typescript: '5.8.3' },
  // A package that brings its dependencies along.
  bundled: { npm: '10.9.2', semver: '6.3.1', chalk: '5.4.1' },
};

const FIELDS = ['dependencies', 'optionalDependencies', 'peerDependencies', 'peerDependenciesMeta', 'bundleDependencies', 'bundledDependencies', 'os', 'cpu',
  'libc', 'bin', 'bundled'];

const chosen = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(sets);
mkdirSync(target, { recursive: true });
for (const name of chosen) {
  const text = `${JSON.stringify(record(sets[name]), null, 1)}\n`;
  const file = path.join(target, `${name}.json`);
  writeFileSync(file, text);
  console.log(`${path.relative(process.cwd(), file)}: ${(text.length / 1024).toFixed(0)} KiB`);
}

function record(direct) {
  const folder = mkdtempSync(path.join(tmpdir(), 'placement-'));
  try {
    writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ name: 't', private: true, dependencies: direct }));
    const run = spawnSync(bunPath(), ['install', '--ignore-scripts', '--linker=hoisted'], {
      cwd: folder, encoding: 'utf8', env: { ...process.env, BUN_INSTALL_CACHE_DIR: path.join(folder, '.cache') },
    });
    if (run.status !== 0) throw new Error(`bun install failed: ${run.stderr}`);
    const lock = readFileSync(path.join(folder, 'bun.lock'), 'utf8');
    return { host: host(), bun: version(), direct, ...read(folder, lock), lock };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function read(folder, lock) {
  // Bun's commas: none of the recorded strings holds ",}" or ",]".
  const keys = JSON.parse(lock.replace(/,(\s*[}\]])/g, '$1')).packages;
  // Bun resolves what bundled packages need anew, and lists it inside the package that brings them.
  const bringers = Object.entries(keys).flatMap(([key, value]) => (value[2]?.bundled ? [key.replace(/\/(@[^/]+\/)?[^/]+$/, '/')] : []));
  const skipped = (key) => bringers.some((bringer) => key.startsWith(bringer));
  const packages = {};
  const installed = [];
  const bins = [];
  for (const [key, value] of Object.entries(keys)) {
    if (skipped(key)) continue;
    const place = location(key);
    const file = path.join(folder, place, 'package.json');
    if (existsSync(file)) {
      const json = JSON.parse(readFileSync(file, 'utf8'));
      if (`${json.name}@${json.version}` !== value[0]) throw new Error(`${place} holds ${json.name}@${json.version}, the lock says ${value[0]}`);
      installed.push(`${place} ${value[0]}`);
      packages[value[0]] ??= fields(json, path.join(folder, place));
    }
  }
  for (const [key, value] of Object.entries(keys)) {
    if (skipped(key) || packages[value[0]]) continue;
    const { optionalPeers, ...meta } = value[2] ?? {};
    const bundled = Object.keys(keys).filter((other) => other.startsWith(`${key}/`) && keys[other][2]?.bundled).map((other) => other.slice(key.length + 1));
    if (bundled.length > 0) Object.assign(meta, { bundleDependencies: bundled, bundled });
    packages[value[0]] = fields({ ...meta, peerDependenciesMeta: Object.fromEntries((optionalPeers ?? []).map((peer) => [peer, { optional: true }])) });
  }
  for (const place of ['', ...installed.map((line) => line.split(' ')[0])]) {
    const binFolder = path.join(folder, place, 'node_modules/.bin');
    // What a package brings along in its own node_modules is part of its files.
    if (place !== '' && packages[installed.find((line) => line.startsWith(`${place} `)).split(' ')[1]].bundled) continue;
    for (const bin of existsSync(binFolder) ? readdirSync(binFolder).sort() : []) {
      bins.push(`${path.posix.join(place, 'node_modules/.bin', bin)} -> ${readlinkSync(path.join(binFolder, bin))}`);
    }
  }
  return { packages: Object.fromEntries(Object.entries(packages).sort(([a], [b]) => (a < b ? -1 : 1))), installed: installed.sort(), bins };
}

function fields(json, folder) {
  const kept = Object.fromEntries(FIELDS.filter((field) => json[field] !== undefined).map((field) => [field, json[field]]));
  if (json.directories?.bin) kept.directories = { bin: json.directories.bin };
  const listed = kept.bundleDependencies ?? kept.bundledDependencies;
  if (listed && folder) {
    const names = listed === true ? Object.keys(json.dependencies ?? {}) : listed;
    const present = names.filter((name) => existsSync(path.join(folder, 'node_modules', name)));
    if (present.length > 0) kept.bundled = present;
    if (names.length < Object.keys(json.dependencies ?? {}).length) throw new Error(`${json.name} brings a part of its dependencies only`);
  }
  return kept;
}

/** `a/@b/c` -> `node_modules/a/node_modules/@b/c` */
function location(key) {
  return key.split('/').reduce((done, part, index, parts) => {
    if (index > 0 && parts[index - 1].startsWith('@')) return `${done}/${part}`;
    return `${done === '' ? '' : `${done}/`}node_modules/${part}`;
  }, '');
}

function version() {
  return spawnSync(bunPath(), ['--version'], { encoding: 'utf8' }).stdout.trim();
}

function host() {
  const glibc = process.platform === 'linux' ? process.report.getReport().header.glibcVersionRuntime : undefined;
  const libc = process.platform === 'linux' ? (glibc ? 'glibc' : 'musl') : null;
  return { os: process.platform, cpu: process.arch, libc };
}
