// Packages: archives, seeding a host, building trees, doing nothing, and pulling one package among a thousand.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Report, loadContenders, now, rounds, sample, scratch, wipe } from './lib.mjs';
import { madePackages, realPackages, total } from './packages-lib.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const peers = { 'zlib and tar by hand': 'packages-by-hand', "the system's tar": 'packages-system-tar' };
const bun = createRequire(import.meta.url)('../scripts/bun.cjs').bunPath();

const cases = { pack, unpack, seed, materialize, noop, delta, many };

/** Runs the cases (`options.packages`: which, default all); returns the missed goals. Files are made in `options.dir`. */
export async function packages(extra, options, reference) {
  const wanted = options.packages ?? Object.keys(cases);
  const unknown = wanted.filter((name) => !(name in cases));
  if (unknown.length > 0) throw new Error(`no such packages case: ${unknown.join(', ')}; there are ${Object.keys(cases).join(', ')}`);
  const contenders = await loadContenders([`holdfast=${path.join(here, 'entries/packages-holdfast.mjs')}`]);
  for (const [name, file] of options.peers ? Object.entries(peers) : []) contenders.push(...(await loadContenders([`${name}=${path.join(here, 'peers', `${file}.mjs`)}`])));
  contenders.push(...(await loadContenders(extra)));
  const folder = scratch(options.dir, 'packages');
  try {
    const set = await realPackages(folder);
    const { small, big } = set;
    const report = new Report('packages', { out: options.out, reference });
    console.error(
      `set: ${small.length} packages, ${total(small, 'files')} files, ${(total(small, 'bytes') / 1e6).toFixed(1)} MB; ` +
        `big: ${big ? `${big.name}, ${big.files} files, ${(big.bytes / 1e6).toFixed(1)} MB` : 'none'}; in ${folder}`,
    );
    for (const name of wanted) await cases[name]({ ...set, all: contenders, report, folder, rounds: options.rounds, peers: options.peers });
    return report.end();
  } finally {
    wipe(folder);
  }
}

/** Runs `fn` in a folder of its own; only what `fn` times counts. */
async function fresh(folder, fn) {
  const own = fs.mkdtempSync(path.join(folder, 'case-'));
  try {
    return await fn(own);
  } finally {
    wipe(own);
  }
}

async function once(fn) {
  const started = now();
  await fn();
  return [now() - started];
}

async function pack({ small, big, all, report, rounds: count }) {
  const time = (list) => (contender) => {
    if (!contender.module.packDir) return null;
    let packed = 0;
    return once(async () => {
      for (const one of list) packed += (await contender.module.packDir(one)).length;
    }).then((times) => ({ times, extra: { 'MB packed': packed / 1e6 } }));
  };
  report.add('packDir, the whole set', await rounds(all, time(small), count));
  if (big) report.add('packDir, one large package', await rounds(all, time([big]), count));
}

async function unpack({ small, big, all, report, folder, rounds: count }) {
  const time = (list) => (contender) =>
    contender.module.unpackInto
      ? fresh(folder, async (targetDir) => {
          const times = await once(async () => {
            for (const { blob } of list) await contender.module.unpackInto({ targetDir, bytes: blob });
          });
          for (const { entryName } of list) if (!fs.existsSync(path.join(targetDir, entryName, 'package.json'))) throw new Error(`${entryName} is missing`);
          return times;
        })
      : null;
  report.add('unpackInto, the whole set', await rounds(all, time(small), count));
  if (big) report.add('unpackInto, one large package', await rounds(all, time([big]), count));
}

/** A store, and what reconciles it. */
function host({ module }, storeRoot, list, more = {}) {
  const blobs = new Map(list.map(({ entry, blob }) => [entry.integrity, blob]));
  const manifest = list.map(({ entry }) => entry);
  let fetched = 0;
  const fetchBlob = async ({ integrity }) => (fetched++, blobs.get(integrity));
  const deps = module.createReconcileFsDeps({ storeRoot, fetchBlob, ...more });
  const to = (lockfileHash, entries = manifest, other = {}) => module.reconcileToHash({ lockfileHash, manifest: entries, deps: { ...deps, ...other } });
  return { deps, manifest, to, fetched: () => fetched };
}

async function seed({ small, all, report, folder, rounds: count }) {
  for (const durability of ['full', 'none']) {
    const time = (contender) =>
      contender.module.createReconcileFsDeps
        ? fresh(folder, (own) => {
            const { to } = host(contender, path.join(own, 'store'), small, { durability });
            return once(() => to('h', undefined, { materializeAndFlip: async () => {} }));
          })
        : null;
    report.add(`seeding an empty host, blobs from memory, durability ${durability}`, await rounds(all, time, count));
  }
}

async function materialize({ small, all, report, folder, rounds: count, peers: withPeers }) {
  const builders = all.filter(({ module }) => module.createReconcileFsDeps);
  for (const linkMode of ['hardlink', 'copy']) {
    const lock = path.join(folder, `lock-${linkMode}`);
    const contenders = builders.flatMap((contender) => ['none', 'full'].map((durability) => ({ ...contender, name: `${contender.name}, durability ${durability}`, durability })));
    if (bun && withPeers) {
      // Bun's own lock, and a cache under its names, made by letting it build the tree once.
      const { to } = host(builders[0], lock, small, { materializer: 'bun', bunPath: bun, linkMode, durability: 'none' });
      await to('h');
      contenders.push({ name: 'bun install --offline, frozen lock', bun: true });
    }
    const time = (contender) =>
      fresh(folder, async (own) => {
        if (contender.bun) {
          for (const file of ['package.json', 'bun.lock', 'bunfig.toml']) fs.copyFileSync(path.join(lock, 'trees/h', file), path.join(own, file));
          const env = { ...process.env, BUN_INSTALL_CACHE_DIR: path.join(lock, 'cache') };
          const args = ['install', '--offline', '--frozen-lockfile', '--ignore-scripts', '--backend', linkMode === 'copy' ? 'copyfile' : 'hardlink'];
          const times = await once(() => {
            const { status, stderr } = spawnSync(bun, args, { cwd: own, env });
            if (status !== 0) throw new Error(`bun: ${String(stderr).slice(0, 120)}`);
          });
          return { times, extra: { files: filesOf(own) } };
        }
        const storeRoot = path.join(own, 'store');
        const { deps, manifest, to } = host(contender, storeRoot, small, { durability: contender.durability, linkMode });
        await to('seeded', undefined, { materializeAndFlip: async () => {} });
        const times = await once(() => deps.materializeAndFlip({ lockfileHash: 'h', manifest }));
        return { times, extra: { files: filesOf(path.join(storeRoot, 'trees/h')) } };
      });
    report.add(`materializing from a warm cache, ${linkMode}`, await rounds(contenders, time, count));
  }
}

const filesOf = (folder) => fs.readdirSync(path.join(folder, 'node_modules'), { recursive: true, withFileTypes: true }).filter((item) => item.isFile()).length;

async function noop({ small, all, report, folder, rounds: count }) {
  const time = (contender) =>
    contender.module.createReconcileFsDeps
      ? fresh(folder, async (own) => {
          const { to } = host(contender, path.join(own, 'store'), small, { durability: 'none' });
          await to('h');
          return sample(() => to('h'), { count: 300 });
        })
      : null;
  report.add('reconcile, nothing to do', await rounds(all, time, count));
}

async function delta({ all, report, folder, rounds: count }) {
  const list = await madePackages(folder, 1001, 5);
  for (const size of [100, 1000]) {
    const time = (contender) =>
      contender.module.createReconcileFsDeps
        ? fresh(folder, async (own) => {
            const { to, manifest, fetched } = host(contender, path.join(own, 'store'), list);
            const before = manifest.slice(0, size);
            await to('before', before);
            const had = fetched();
            const pulled = await once(() => to('after', [...before, manifest[1000]], { materializeAndFlip: async () => {} }));
            const tree = await once(() => to('after', [...before, manifest[1000]]));
            return { times: pulled, extra: { fetched: fetched() - had, 'then the tree, ms': tree[0] } };
          })
        : null;
    report.add(`one new package among ${size}: fetch and seed`, await rounds(all, time, count));
  }
}

/** A thousand entries of twenty files: how long it takes, and how long the event loop is kept from turning. */
async function many({ all, report, folder, rounds: count }) {
  const list = await madePackages(folder, 1000, 20);
  for (const durability of ['none', 'full']) {
    const time = (contender) =>
      contender.module.createReconcileFsDeps
        ? fresh(folder, async (own) => {
            const { deps, manifest, to } = host(contender, path.join(own, 'store'), list, { durability });
            await to('seeded', undefined, { materializeAndFlip: async () => {} });
            let longest = 0;
            let last = now();
            const timer = setInterval(() => {
              longest = Math.max(longest, now() - last);
              last = now();
            }, 1);
            const times = await once(() => deps.materializeAndFlip({ lockfileHash: 'h', manifest }));
            clearInterval(timer);
            return { times, extra: { 'event loop kept, ms': longest } };
          })
        : null;
    report.add(`materializing 1,000 entries of 20 files, durability ${durability}`, await rounds(all, time, count));
  }
}
