// Real packages to measure with: those of this project's own node_modules, laid out as Bun's cache has them.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { packDir } from '../dist/packages.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const BIG = 10_000_000;

/** The packages below 10 MB (without what only other systems have), and the largest one. */
export async function realPackages(folder) {
  const lock = JSON.parse(fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages;
  const cache = path.join(folder, 'packages');
  const found = [];
  for (const [place, { version, integrity }] of Object.entries(lock)) {
    const from = path.join(root, place);
    const name = place.slice(place.lastIndexOf('node_modules/') + 'node_modules/'.length);
    if (place === '' || !integrity || !fs.existsSync(path.join(from, 'package.json'))) continue;
    if (found.some((one) => one.name === name && one.version === version)) continue;
    const files = fs.readdirSync(from, { recursive: true, withFileTypes: true }).filter((item) => item.isFile() && !inner(item, from));
    if (files.length === 0) continue;
    const bytes = files.reduce((sum, item) => sum + fs.statSync(path.join(item.parentPath ?? item.path, item.name)).size, 0);
    const entryName = `${name}@${version}@@@1`;
    for (const item of files) {
      const file = path.join(item.parentPath ?? item.path, item.name);
      const to = path.join(cache, entryName, path.relative(from, file));
      fs.mkdirSync(path.dirname(to), { recursive: true });
      fs.copyFileSync(file, to);
    }
    found.push({ name, version, integrity, parentDir: cache, entryName, files: files.length, bytes });
  }
  for (const one of found) {
    one.blob = await packDir(one);
    one.entry = { name: one.name, version: one.version, integrity: one.integrity, blobSha256: createHash('sha256').update(one.blob).digest('hex') };
  }
  // Bun has other names for prereleases in its cache, and it shall find all of them.
  const small = closed(found.filter(({ bytes, version }) => bytes < BIG && !/[-+]/.test(version)));
  const big = found.filter(({ bytes }) => bytes >= BIG && bytes < 60_000_000).sort((a, b) => b.bytes - a.bytes)[0];
  return { small, big };
}

/** Files of packages within a package are not its own. */
const inner = (item, from) => path.relative(from, item.parentPath ?? item.path).split(path.sep).includes('node_modules');

/** Those whose required dependencies are among them, so that a tree of them can be built. */
function closed(packages) {
  let rest = packages;
  for (let before = -1; before !== rest.length; ) {
    before = rest.length;
    const names = new Set(rest.map(({ name }) => name));
    rest = rest.filter(({ parentDir, entryName }) => {
      const { dependencies = {} } = JSON.parse(fs.readFileSync(path.join(parentDir, entryName, 'package.json'), 'utf8'));
      return Object.keys(dependencies).every((name) => names.has(name));
    });
  }
  return rest;
}

/** `count` packages of `each` files that are made up, as entries with blobs. */
export async function madePackages(folder, count, each) {
  const made = [];
  for (let at = 0; at < count; at++) {
    const name = `made-${at}`;
    const entryName = `${name}@1.0.0@@@1`;
    const at2 = path.join(folder, 'made', entryName);
    fs.mkdirSync(path.join(at2, 'lib'), { recursive: true });
    fs.writeFileSync(path.join(at2, 'package.json'), JSON.stringify({ name, version: '1.0.0' }));
    for (let file = 1; file < each; file++) fs.writeFileSync(path.join(at2, 'lib', `file${file}.js`), `module.exports = ${at * file};\n`.repeat(40));
    const blob = await packDir({ parentDir: path.join(folder, 'made'), entryName });
    made.push({ blob, entry: { name, version: '1.0.0', integrity: `sha512-${createHash('sha512').update(entryName).digest('base64')}` } });
  }
  return made;
}

export const total = (list, what) => list.reduce((sum, one) => sum + one[what], 0);
