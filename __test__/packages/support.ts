/** What the tests of the packages module share: packages that are made on the spot, hosts, hostile archives, child processes. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

import {
  blobSha256,
  createReconcileFsDeps,
  packDir,
  reconcileToHash,
  storePaths,
  type ManifestEntry,
  type ReconcileDeps,
  type ReconcileFsInput,
  type ReconcileInput,
  type ReconcileResult,
} from 'holdfast';
import { afterEach } from 'vitest';

const folders: string[] = [];
const children: ChildProcess[] = [];

/** A new empty folder, removed after the test. */
export function tempDir(): string {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-packages-'));
  folders.push(folder);
  return folder;
}

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
});

// ── packages ──

export interface MadePackage {
  entry: ManifestEntry;
  blob: Uint8Array;
}

export interface PackageText {
  /** Files besides `package.json`, by path. Default: an `index.js` that exports name and version. */
  files?: Record<string, string | Uint8Array>;
  /** Modes of files, by path. */
  modes?: Record<string, number>;
  /** More members of `package.json`. */
  json?: Record<string, unknown>;
  /** The folder's name in the archive. Default `name@version`, as Bun's cache has it. */
  folder?: string;
}

/** The integrity that the tests give to a package: of the right form, and a function of name and version. */
export function integrityOf(name: string, version: string): string {
  return `sha512-${createHash('sha512').update(`${name}@${version}`).digest('base64')}`;
}

/** Makes a package, packed by the module itself. */
export async function makePackage(name: string, version: string, text: PackageText = {}): Promise<MadePackage> {
  const { files = { 'index.js': `module.exports = ${JSON.stringify(`${name}@${version}`)};\n` }, modes = {}, json, folder } = text;
  const parentDir = mkdtempSync(join(tmpdir(), 'holdfast-packing-'));
  try {
    const entryName = folder ?? `${name}@${version}`;
    const all = { 'package.json': `${JSON.stringify({ name, version, main: 'index.js', ...json }, null, 2)}\n`, ...files };
    for (const [path, content] of Object.entries(all)) {
      const file = join(parentDir, entryName, path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, content, { mode: modes[path] ?? 0o644 });
    }
    const blob = await packDir({ parentDir, entryName });
    return { entry: { name, version, integrity: integrityOf(name, version), blobSha256: blobSha256(blob) }, blob };
  } finally {
    rmSync(parentDir, { recursive: true, force: true });
  }
}

/** Several packages without dependencies: `p0@1.0.0`, `p1@1.0.0` … */
export async function somePackages(count: number, filesEach = 1): Promise<MadePackage[]> {
  const made: MadePackage[] = [];
  for (let at = 0; at < count; at++) {
    const names = Array.from({ length: filesEach }, (_, file): [string, string] => [
      file === 0 ? 'index.js' : `lib/file${file}.js`,
      `module.exports = 'p${at} ${file}';\n`,
    ]);
    made.push(await makePackage(`p${at}`, '1.0.0', { files: Object.fromEntries(names) }));
  }
  return made;
}

// ── hosts ──

export interface Host {
  storeRoot: string;
  manifest: ManifestEntry[];
  blobs: Map<string, Uint8Array>;
  /** The integrities that were asked for. */
  fetched: string[];
  lines: string[];
  errors: string[];
  deps: ReconcileDeps;
  /** Reconciles to a hash, by default with all packages. */
  to(lockfileHash: string, more?: Partial<ReconcileInput>): Promise<ReconcileResult>;
  path(...names: string[]): string;
}

/** A host with a store of its own (or in `storeRoot`), which can fetch these packages. */
export function makeHost(packages: readonly MadePackage[], options: Partial<ReconcileFsInput> = {}): Host {
  const storeRoot = options.storeRoot ?? join(tempDir(), 'store');
  const blobs = new Map(packages.map(({ entry, blob }) => [entry.integrity, blob]));
  const manifest = packages.map(({ entry }) => entry);
  const [fetched, lines, errors]: string[][] = [[], [], []];
  const deps = createReconcileFsDeps({
    fetchBlob: async ({ integrity }) => {
      fetched!.push(integrity);
      const blob = blobs.get(integrity);
      if (blob === undefined) throw new Error(`nobody has ${integrity}`);
      return blob;
    },
    logger: { debug: (line) => void lines!.push(line), error: (line) => void errors!.push(line) },
    durability: 'none',
    ...options,
    storeRoot,
  });
  return {
    storeRoot,
    manifest,
    blobs,
    fetched: fetched!,
    lines: lines!,
    errors: errors!,
    deps,
    to: (lockfileHash, more = {}) => reconcileToHash({ lockfileHash, manifest, deps, ...more }),
    path: (...names) => join(storeRoot, ...names),
  };
}

/** What `current` points to. */
export function currentOf(storeRoot: string): string | undefined {
  try {
    return readlinkSync(storePaths(storeRoot).current).replaceAll('\\', '/');
  } catch {
    return undefined;
  }
}

/** The names below `folder`, sorted; none if there is no such folder. */
export function names(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).sort() : [];
}

/** What must not be left when nobody works in a store: staging, trash, temporary links. */
export function leftovers(storeRoot: string): string[] {
  return [
    ...names(join(storeRoot, '.hf/staging')).map((name) => `staging/${name}`),
    ...names(join(storeRoot, '.hf/trash')).map((name) => `trash/${name}`),
    ...names(storeRoot).filter((name) => name.startsWith('.current-')),
  ];
}

/** Every file below a folder with its content, links with their target. */
export function contents(folder: string): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (below: string): void => {
    for (const item of readdirSync(join(folder, below), { withFileTypes: true })) {
      const path = below === '' ? item.name : `${below}/${item.name}`;
      if (item.isDirectory()) walk(path);
      else found[path] = item.isSymbolicLink() ? `-> ${readlinkSync(join(folder, path))}` : readFileSync(join(folder, path), 'latin1');
    }
  };
  if (existsSync(folder)) walk('');
  return found;
}

/** Permission bits. */
export const mode = (file: string): number => statSync(file).mode & 0o7777;

/** What a promise rejects with; fails where it resolves. */
export async function rejection(promise: Promise<unknown>): Promise<Error & { code?: string; hfCode?: string }> {
  let value: unknown;
  try {
    value = await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error(`resolved with ${JSON.stringify(value)}, should have rejected`);
}

// ── archives as an enemy makes them ──

export interface TarEntry {
  path: string;
  /** The type flag. Default `0`, a file, or `5` for a path that ends in a slash. */
  type?: string;
  link?: string;
  body?: string | Uint8Array;
  mode?: number;
  uid?: number;
  /** The size that the header claims. Default: that of the body. */
  size?: number;
}

const octal = (value: number, length: number): string => `${value.toString(8).padStart(length - 1, '0')}\0`;

/** The bytes of a tar archive: headers with right checksums, whatever they say. */
export function tar(entries: readonly TarEntry[], end = true): Buffer {
  const parts: Buffer[] = [];
  for (const { path, type, link = '', body = '', mode: bits = 0o644, uid = 0, size } of entries) {
    const bytes = Buffer.from(body as string);
    const header = Buffer.alloc(512);
    header.write(path, 0, 100, 'utf8');
    header.write(octal(bits, 8), 100);
    header.write(octal(uid, 8), 108);
    header.write(octal(uid, 8), 116);
    header.write(octal(size ?? bytes.length, 12), 124);
    header.write(octal(0, 12), 136);
    header.write('        ', 148);
    header.write(type ?? (path.endsWith('/') ? '5' : '0'), 156);
    header.write(link, 157, 100, 'utf8');
    header.write('ustar\0' + '00', 257, 'latin1');
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    parts.push(header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512));
  }
  if (end) parts.push(Buffer.alloc(1024));
  return Buffer.concat(parts);
}

/** A PAX record. */
export function pax(fields: Record<string, string>, type: 'x' | 'g' = 'x'): TarEntry {
  const lines = Object.entries(fields).map(([key, value]) => {
    const rest = ` ${key}=${value}\n`;
    let length = Buffer.byteLength(rest);
    while (String(length).length + Buffer.byteLength(rest) !== length) length = String(length).length + Buffer.byteLength(rest);
    return `${length}${rest}`;
  });
  return { path: 'PaxHeader', type, body: lines.join('') };
}

export const tgz = (entries: readonly TarEntry[]): Uint8Array => new Uint8Array(gzipSync(tar(entries)));

// ── other processes ──

export interface Child {
  process: ChildProcess;
  lines: string[];
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; err: string }>;
  /** Resolves when the child has printed a line that begins with `start`; rejects when it ends without. */
  line(start: string): Promise<string>;
  kill(): Promise<void>;
}

const fixtures = fileURLToPath(new URL('./fixtures/', import.meta.url));

/** Starts `fixtures/<name>` on the runtime that runs the tests. It is killed after 50 seconds, or at the end of the test. */
export function start(name: string, ...args: string[]): Child {
  const child = spawn(process.execPath, [join(fixtures, name), ...args], { timeout: 50_000, killSignal: 'SIGKILL' });
  children.push(child);
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  let [err, rest, over] = ['', '', false];
  const look = (): void => waiting.forEach((each) => each());
  child.stdout.on('data', (chunk) => {
    const parts = (rest + chunk).split('\n');
    rest = parts.pop() ?? '';
    lines.push(...parts);
    look();
  });
  child.stderr.on('data', (chunk) => (err += chunk));
  const ended = new Promise<Awaited<Child['ended']>>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      over = true;
      resolve({ code, signal, err });
      look();
    });
  });
  return {
    process: child,
    lines,
    ended,
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
    },
    line: (begin) =>
      new Promise((resolve, reject) => {
        const each = (): void => {
          const found = lines.find((line) => line.startsWith(begin));
          if (found === undefined && !over) return;
          waiting.delete(each);
          if (found !== undefined) resolve(found);
          else reject(new Error(`${name} ended without printing ${begin}: ${lines.join('\n')}${err}`));
        };
        waiting.add(each);
        each();
      }),
  };
}

/** Writes a manifest and its blobs where a child finds them: `manifest.json`, and a file per blob. */
export function publish(packages: readonly MadePackage[]): string {
  const folder = tempDir();
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify(packages.map(({ entry }) => entry)));
  for (const { entry, blob } of packages) writeFileSync(join(folder, createHash('sha256').update(entry.integrity).digest('hex')), blob);
  return folder;
}
