// A backend publishes npm packages as blobs, a host brings itself to exactly that set, a program runs from the tree, and then one
// package is updated: one blob goes over the wire. No registry, no `npm install` on the host.
//
//   node examples/packages/install.mjs [FOLDER]     in a checkout, or
//   npm install holdfast yargs zod zod3@npm:zod@3 && node node_modules/holdfast/examples/packages/install.mjs [FOLDER]
//
// The packages are those of the checkout's or the app's node_modules.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  createFileBlobStore,
  createReconcileFsDeps,
  packDir,
  performInstall,
  reconcileToHash,
  rollbackTo,
  snapshotResolutionRoot,
} from 'holdfast/packages';

const given = process.argv[2];
const folder = path.resolve(given ?? mkdtempSync(path.join(tmpdir(), 'holdfast-packages-')));
const here = path.dirname(fileURLToPath(import.meta.url));
const modules = ['../../node_modules', '../../..'].map((place) => path.resolve(here, place)).find((place) => ['yargs', 'zod', 'zod3'].every((name) => existsSync(path.join(place, name))));
if (modules === undefined) {
  console.error('This example publishes packages that are installed beside holdfast. Install them first: npm install yargs zod zod3@npm:zod@3');
  process.exit(1);
}

// ── the backend: what is wanted, found in a node_modules folder, packed, and put into a blob store ──

const lock = JSON.parse(readFileSync(path.join(modules, '../package-lock.json'), 'utf8')).packages;
const blobStore = createFileBlobStore({ root: path.join(folder, 'blobs') });
const index = new Map(); // a table, in a real backend

/** Where Node finds a dependency of the package at `place`: below it, or below a folder above. */
function nearest(place, dependency) {
  for (let at = place; ; at = at.slice(0, Math.max(0, at.lastIndexOf('/node_modules/')))) {
    const below = at === '' ? dependency : `${at}/node_modules/${dependency}`;
    if (at === '' || `node_modules/${below}` in lock) return below;
  }
}

/** Finds packages and all that they depend on. A real resolver asks a registry; this one looks at what is installed here. */
async function resolve({ packages }) {
  const found = new Map();
  const visit = async (place) => {
    const { version, integrity, name = place.split('node_modules/').at(-1), dependencies = {} } = lock[`node_modules/${place}`];
    if (found.has(`${name}@${version}`)) return;
    const staging = mkdtempSync(path.join(tmpdir(), 'holdfast-pack-'));
    const entryName = `${name}@${version}`;
    cpSync(realpathSync(path.join(modules, place)), path.join(staging, entryName), { recursive: true });
    const blob = await packDir({ parentDir: staging, entryName, links: 'reject' });
    rmSync(staging, { recursive: true });
    found.set(entryName, { entry: { name, version, integrity }, blob });
    for (const dependency of Object.keys(dependencies)) await visit(nearest(place, dependency));
  };
  for (const { name } of packages) await visit(name);
  return [...found.values()];
}

const publish = (...names) =>
  performInstall({
    packages: names.map((name) => ({ name, version: '*' })),
    ignoreScripts: true,
    resolver: { resolve },
    blobStore,
    blobIndex: { record: async (row) => void index.set(row.integrity, row) },
  });

// ── the host ──

const storeRoot = path.join(folder, 'host');
let wire = 0;
const deps = createReconcileFsDeps({
  storeRoot,
  fetchBlob: async ({ integrity }) => {
    const blob = await blobStore.get({ integrity }); // over HTTP, in a real host
    wire += blob.byteLength;
    return blob;
  },
});

async function bring({ lockfileHash, manifest }) {
  wire = 0;
  const onProgress = ({ phase, missing, total }) => phase === 'delta' && console.log(`delta     ${missing} of ${total} packages are missing`);
  const { pulledIntegrities, alreadyConverged } = await reconcileToHash({ lockfileHash, manifest, deps, onProgress });
  const pulled = manifest.filter(({ integrity }) => pulledIntegrities.includes(integrity)).map(({ name, version }) => `${name}@${version}`);
  console.log(alreadyConverged ? 'nothing to do' : `pulled    ${pulled.join(', ')}${wire > 0 ? ` (${Math.ceil(wire / 1024)} KB)` : ''}`);
}

/** Runs a program with the packages of the current tree, which no update can take away while it runs. */
async function run() {
  const snapshot = await snapshotResolutionRoot({ storeRoot });
  try {
    // The tree stays as it is: the program lies elsewhere, and resolves from there.
    const program = path.join(snapshot.root, '..', '..', 'program.cjs');
    writeFileSync(
      program,
      `const inTree = require('node:module').createRequire(${JSON.stringify(path.join(snapshot.root, 'any.cjs'))});
       const yargs = inTree('yargs'), z = inTree('zod');
       const args = yargs(['--port', '8080']).option('port', { type: 'number' }).parse();
       console.log('program  ', JSON.stringify(z.object({ port: z.number() }).parse(args)), 'by zod', inTree('zod/package.json').version);`,
    );
    const { stdout, stderr } = spawnSync(process.execPath, [program], { encoding: 'utf8' });
    process.stdout.write(stdout + stderr);
  } finally {
    await snapshot.release();
  }
}

mkdirSync(folder, { recursive: true });
const first = await publish('yargs', 'zod3'); // zod3 is npm:zod@3
console.log(`published ${first.publishedIntegrities.length} blobs`);
await bring(first);
await run();

const second = await publish('yargs', 'zod');
console.log(`published ${second.publishedIntegrities.length} blob`);
await bring(second);
await run();
await bring(second);

await rollbackTo({ storeRoot, lockfileHash: first.lockfileHash });
console.log('rolled back');
await run();

await blobStore.close();
if (given === undefined) rmSync(folder, { recursive: true, force: true });
