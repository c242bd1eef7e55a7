// Packing and unpacking by hand: zlib, and a tar reader and writer of fifty lines. Checks nothing, syncs nothing.
import fs from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import zlib from 'node:zlib';

const gzip = promisify(zlib.gzip);
const gunzip = promisify(zlib.gunzip);

export async function packDir({ parentDir, entryName }) {
  const parts = [];
  const add = async (name) => {
    const full = path.join(parentDir, name);
    const stat = await fs.stat(full);
    if (stat.isDirectory()) {
      parts.push(header(`${name}/`, 0, '5', 0o755));
      for (const child of (await fs.readdir(full)).sort()) await add(`${name}/${child}`);
      return;
    }
    const body = await fs.readFile(full);
    parts.push(header(name, body.length, '0', stat.mode & 0o111 ? 0o755 : 0o644), body, Buffer.alloc((512 - (body.length % 512)) % 512));
  };
  await add(entryName);
  parts.push(Buffer.alloc(1024));
  return gzip(Buffer.concat(parts));
}

function header(name, size, type, mode) {
  const block = Buffer.alloc(512);
  // A path that is too long for one field goes on in the other.
  const cut = Buffer.byteLength(name) > 100 ? name.indexOf('/', Buffer.byteLength(name) - 101) : -1;
  block.write(cut < 0 ? name : name.slice(cut + 1), 0, 100);
  if (cut > 0) block.write(name.slice(0, cut), 345, 155);
  for (const [value, at, length] of [[mode, 100, 8], [0, 108, 8], [0, 116, 8], [size, 124, 12], [499162500, 136, 12]]) {
    block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at);
  }
  block.write('        ', 148);
  block.write(type, 156);
  block.write('ustar\x0000', 257);
  block.write(`${block.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

export async function unpackInto({ targetDir, bytes }) {
  const tar = await gunzip(bytes);
  const text = (at, length) => tar.toString('utf8', at, at + length).replace(/\0[\s\S]*$/, '');
  const made = new Set();
  let long;
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const size = parseInt(text(at + 124, 12), 8);
    const type = String.fromCharCode(tar[at + 156]);
    const body = tar.subarray(at + 512, at + 512 + size);
    const prefix = text(at + 345, 155);
    const name = long ?? (prefix ? `${prefix}/${text(at, 100)}` : text(at, 100));
    long = undefined;
    at += 512 + Math.ceil(size / 512) * 512;
    if (type === 'x') long = /\d+ path=(.*)\n/.exec(body.toString())?.[1];
    if (type === 'L') long = body.toString().replace(/\0[\s\S]*$/, '');
    if (type !== '0') continue;
    const file = path.join(targetDir, name);
    if (!made.has(path.dirname(file))) await fs.mkdir(path.dirname(file), { recursive: true });
    made.add(path.dirname(file));
    await fs.writeFile(file, body);
  }
}
