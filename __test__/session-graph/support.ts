/** What the tests of session graphs share: stores, commits, another SQLite, and processes. */
import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import {
  SessionGraphStore,
  type PostgresSessionGraphOptions,
  type QueuedWorkBatchDraft,
  type RuntimeCommit,
  type SessionGraphStoreOptions,
  type SessionNodeRecord,
} from 'holdfast';
import { afterEach } from 'vitest';

import { freshSchema, type FreshSchema } from '../support/postgres';

const { bunPath } = createRequire(import.meta.url)('../../scripts/bun.cjs') as { bunPath(): string | null };

const folders: string[] = [];
const stores: SessionGraphStore[] = [];

afterEach(async () => {
  await Promise.all(stores.splice(0).map((store) => store.close()));
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A new empty folder, removed after the test. */
export function tempDir(): string {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-graph-'));
  folders.push(folder);
  return folder;
}

/** A path where no file is yet. */
export function newFile(): string {
  return join(tempDir(), 's.db');
}

/** Opens a file; closed after the test. */
export async function open(path = newFile(), options?: SessionGraphStoreOptions): Promise<SessionGraphStore> {
  const store = await SessionGraphStore.open(path, options);
  stores.push(store);
  return store;
}

/** A store in memory; closed after the test. */
export async function memory(options?: SessionGraphStoreOptions): Promise<SessionGraphStore> {
  const store = await SessionGraphStore.memory(options);
  stores.push(store);
  return store;
}

/** A schema for all stores of a test file, made with the first of them. */
let schema: Promise<FreshSchema> | undefined;

/** A store in PostgreSQL; closed after the test. */
export async function connect(sessionId: string = randomUUID(), options?: Partial<PostgresSessionGraphOptions>): Promise<SessionGraphStore> {
  schema ??= freshSchema();
  const { url, schema: name } = await schema;
  const store = await SessionGraphStore.connect({ connectionString: url, schema: name, sessionId, ...options });
  stores.push(store);
  return store;
}

/** Runs a test over a file, in memory, and in PostgreSQL. */
export const KINDS: { name: string; make: (options?: SessionGraphStoreOptions) => Promise<SessionGraphStore> }[] = [
  { name: 'file', make: (options) => open(newFile(), options) },
  { name: 'memory', make: memory },
  { name: 'schema', make: (options) => connect(randomUUID(), options) },
];

export function node(nodeId: string, parentNodeId: string | null = null, payload: SessionNodeRecord['payload'] = { of: nodeId }): SessionNodeRecord {
  return { nodeId, parentNodeId, timestamp: '2026-05-31T12:00:00Z', payload };
}

/** A commit of session `root` that changes nothing but what is given. */
export function commit(more: Partial<RuntimeCommit> = {}): RuntimeCommit {
  return {
    sessionId: 'root',
    config: {},
    agentFrames: [],
    currentAgentFrameId: '',
    graph: { type: 'unchanged', leafNodeId: null },
    checkpoint: { turnState: { turnIndex: 1 } },
    ...more,
  };
}

/** A commit that appends; the leaf is the last node. */
export function append(nodes: SessionNodeRecord[], more: Partial<RuntimeCommit> = {}): RuntimeCommit {
  return commit({ graph: { type: 'append', nodes, leafNodeId: nodes.at(-1)?.nodeId ?? null }, ...more });
}

export function draft(more: Partial<QueuedWorkBatchDraft> = {}): QueuedWorkBatchDraft {
  return { sessionId: 'root', payloads: [{ text: 'hi' }], deliveryPolicy: 'earliestSafeBoundary', slotPolicy: 'join', ...more };
}

/** The ids that a load returns. */
export async function ids(store: SessionGraphStore, scope: Parameters<SessionGraphStore['loadSession']>[0]): Promise<string[]> {
  return (await store.loadSession(scope))!.graph.nodes.map((each) => each.nodeId);
}

/** What a promise rejects with, as far as it is looked at. */
export async function failure(promise: Promise<unknown>): Promise<Record<string, unknown> & { hfCode: string; message: string; name: string }> {
  const outcome = await promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
  if (!('error' in outcome)) throw new Error(`resolved to ${JSON.stringify(outcome.value)} where a failure was expected`);
  return outcome.error as Record<string, unknown> & { hfCode: string; message: string; name: string };
}

const bun = bunPath();

/** Runs SQL with another SQLite, in another process; no store may have the file open. Returns the rows of the last statement. */
export function raw(path: string, ...statements: string[]): Record<string, unknown>[] {
  if (bun === null) throw new Error('there is no Bun to look at files with; run npm ci');
  const script = `
    import { Database } from 'bun:sqlite';
    const [path, ...statements] = JSON.parse(process.env.RAW);
    const db = new Database(path);
    db.run('PRAGMA busy_timeout = 5000');
    let rows = [];
    for (const text of statements) rows = db.query(text).all();
    db.close();
    console.log(JSON.stringify(rows));`;
  const { status, stdout, stderr } = spawnSync(bun, ['-e', script], {
    encoding: 'utf8',
    env: { ...process.env, RAW: JSON.stringify([path, ...statements]) },
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as Record<string, unknown>[];
}

/** Lets another SQLite, in another process, hold the write lock of a file for so long; resolves when it has it. */
export async function lock(path: string, milliseconds: number): Promise<{ ended: Promise<void> }> {
  if (bun === null) throw new Error('there is no Bun to hold locks with; run npm ci');
  const script = `
    import { Database } from 'bun:sqlite';
    const db = new Database(${JSON.stringify(path)});
    db.run('BEGIN IMMEDIATE');
    console.log('locked');
    await Bun.sleep(${milliseconds});
    db.run('ROLLBACK');
    db.close();`;
  const child = spawn(bun, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'], timeout: 20_000 });
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.on('error', reject);
    child.on('close', () => reject(new Error('the lock was not obtained')));
  });
  return { ended };
}

export interface Child {
  /** Waits for a line that begins with `start`; resolves to the rest of it. */
  line(start: string): Promise<string>;
  lines: string[];
  /** Writes to its stdin. */
  write(text: string): void;
  kill(): Promise<void>;
  /** Exit code and what stands on stderr. */
  ended: Promise<{ code: number | null; err: string }>;
}

/** Starts `fixtures/graph-child.mjs` on the runtime that runs the tests; killed after 45 seconds. */
export function start(...args: string[]): Child {
  return startFixture('graph-child.mjs', ...args);
}

/** Starts a file of `fixtures` likewise. */
export function startFixture(name: string, ...args: string[]): Child {
  const fixture = fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));
  const child = spawn(process.execPath, [fixture, ...args], { timeout: 45_000, killSignal: 'SIGKILL' });
  const lines: string[] = [];
  let [err, rest] = ['', ''];
  const looks = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = (rest + chunk).split('\n');
    rest = parts.pop() ?? '';
    lines.push(...parts);
    for (const look of looks) look();
  });
  child.stderr.on('data', (chunk) => (err += chunk));
  let over = false;
  const ended = new Promise<{ code: number | null; err: string }>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      over = true;
      for (const look of looks) look();
      resolve({ code, err });
    });
  });
  const line = (begin: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const found = lines.find((each) => each.startsWith(begin));
        if (found === undefined && !over) return;
        looks.delete(look);
        if (found === undefined) reject(new Error(`the child ended without ${begin}: ${err}`));
        else resolve(found.slice(begin.length).trim());
      };
      looks.add(look);
      look();
    });
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
  };
  // A child may end, or be killed, before it reads what was written to it.
  child.stdin.on('error', () => {});
  const write = (text: string): void => void child.stdin.write(text);
  return { line, lines, write, kill, ended };
}

/** Lets children that said `ready` go on, all at once, and run to their ends; what they printed after `answer`, as JSON. */
export async function race<T>(children: Child[]): Promise<T[]> {
  await Promise.all(children.map((child) => child.line('ready')));
  for (const child of children) child.write('go\n');
  return Promise.all(children.map(answered<T>));
}

/** Runs the child to its end; what it printed after `answer`, as JSON. */
export async function ask<T>(...args: string[]): Promise<T> {
  return answered(start(...args));
}

async function answered<T>(child: Child): Promise<T> {
  const { code, err } = await child.ended;
  if (code !== 0) throw new Error(`the child ended with ${code}: ${err}`);
  return JSON.parse(await child.line('answer')) as T;
}
