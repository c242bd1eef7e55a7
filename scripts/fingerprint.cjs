// Says whether something was built from exactly these files: a hash over names and contents.
'use strict';

const { createHash } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const root = path.resolve(__dirname, '..');

function* filesUnder(name) {
  const stat = fs.statSync(path.join(root, name), { throwIfNoEntry: false });
  if (!stat) return;
  if (!stat.isDirectory()) yield name;
  else for (const child of fs.readdirSync(path.join(root, name)).sort()) yield* filesUnder(path.join(name, child));
}

/** SHA-256 over the given files of the project; folders are taken whole, missing names are skipped. */
function fingerprint(names) {
  const hash = createHash('sha256');
  for (const name of names.flatMap((each) => [...filesUnder(each)])) {
    const bytes = fs.readFileSync(path.join(root, name));
    hash.update(`${name}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest('hex');
}

/** The object kept in a stamp file, or null when it is missing or half-written. */
function readStamp(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch {
    return null;
  }
}

module.exports = { root, fingerprint, readStamp };
