/** What the tests of the runtime store share: directories, a store with fixed clock and ids, and real child processes. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import {
  createRuntimeStoreManifestStore,
  createRuntimeStoreReceiptStore,
  OPENCODE_RUNTIME_STORE_DESCRIPTORS,
  RuntimeStoreBatchWriter,
  RuntimeStoreFileInspector,
  RuntimeStoreRecoveryExecutor,
  RuntimeStoreRecoveryPlanner,
  type FileLockOptions,
  type RuntimeStoreBatchInput,
  type RuntimeStoreBatchWriterOptions,
  type RuntimeStoreDescriptor,
  type RuntimeStoreRecoveryExecutorOptions,
  type RuntimeStoreRecoveryPlannerOptions,
} from 'holdfast';
import { afterEach } from 'vitest';

export const NOW = '2026-04-21T12:00:00.000Z';
export const fixedClock = (): Date => new Date(NOW);
export const IDENTITY = { runId: 'run-1', capabilitySnapshotId: 'cap-1', behaviorFingerprint: 'behavior-1' };
export const EXPECTED = {
  teamName: 'team-a',
  expectedRunId: 'run-1',
  expectedCapabilitySnapshotId: 'cap-1',
  expectedBehaviorFingerprint: 'behavior-1',
};

/** The built-in descriptor of `opencode.<name>`. */
export function descriptorOf(name: string): RuntimeStoreDescriptor {
  const found = OPENCODE_RUNTIME_STORE_DESCRIPTORS.find((each) => each.schemaName === `opencode.${name}`);
  if (found === undefined) throw new Error(`no descriptor opencode.${name}`);
  return found;
}
export const LAUNCH = descriptorOf('launchState');
export const SESSIONS = descriptorOf('sessionStore');

const made: string[] = [];
const started: ChildProcess[] = [];

/** A new empty folder, removed after the test. */
export function tempDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-store-'));
  made.push(dir);
  return dir;
}
afterEach(() => {
  for (const child of started.splice(0)) child.kill('SIGKILL');
  for (const dir of made.splice(0)) rmSync(dir, { recursive: true, force: true });
});

/** How {@link openRuntime} opens a directory. */
export interface RuntimeOptions {
  writer?: RuntimeStoreBatchWriterOptions;
  planner?: RuntimeStoreRecoveryPlannerOptions;
  executor?: RuntimeStoreRecoveryExecutorOptions;
  lockOptions?: FileLockOptions;
  descriptors?: RuntimeStoreDescriptor[];
  /** Ids become `<prefix>batch-1`, `<prefix>receipt-1`. */
  idPrefix?: string;
  teamName?: string;
  durability?: 'full' | 'process';
}

/** Opens everything over one runtime directory, with the fixed clock and counted ids. */
export function openRuntime(dir: string, options: RuntimeOptions = {}) {
  const { lockOptions, descriptors = [LAUNCH, SESSIONS], idPrefix = '', teamName = 'team-a', durability } = options;
  const manifestPath = join(dir, 'manifest.json');
  const receiptsPath = join(dir, 'opencode-runtime-receipts.json');
  const shared = { clock: fixedClock, lockOptions, descriptors, durability };
  const manifestStore = createRuntimeStoreManifestStore({ filePath: manifestPath, teamName, ...shared });
  const receiptStore = createRuntimeStoreReceiptStore({ filePath: receiptsPath, ...shared });
  let batches = 0;
  let receipts = 0;
  const writer = new RuntimeStoreBatchWriter(dir, manifestStore, receiptStore, {
    batchIdFactory: () => `${idPrefix}batch-${++batches}`,
    receiptIdFactory: () => `${idPrefix}receipt-${++receipts}`,
    clock: fixedClock,
    durability,
    ...options.writer,
  });
  const inspector = new RuntimeStoreFileInspector(dir);
  const planner = new RuntimeStoreRecoveryPlanner(descriptors, manifestStore, receiptStore, inspector, {
    planIdFactory: () => 'plan-1',
    clock: fixedClock,
    ...options.planner,
  });
  const executor = new RuntimeStoreRecoveryExecutor(dir, planner, writer, { clock: fixedClock, ...options.executor });
  const write = (stores: [RuntimeStoreDescriptor, unknown][], more: Partial<RuntimeStoreBatchInput> = {}) =>
    writer.writeBatch({
      teamName,
      ...IDENTITY,
      reason: 'launch_checkpoint',
      writes: stores.map(([descriptor, data]) => ({ descriptor, data })),
      ...more,
    });
  return {
    dir, manifestPath, receiptsPath, manifestStore, receiptStore, writer, inspector, planner, executor, write,
    plan: () => planner.buildPlan({ ...EXPECTED, teamName }),
    recover: () => executor.recover({ ...EXPECTED, teamName }),
    /** Writes `version` into launch state and sessions, in one batch. */
    writePair: (version: unknown) => write([[LAUNCH, { version }], [SESSIONS, { version }]]),
  };
}
export type Runtime = ReturnType<typeof openRuntime>;

export const readJson = (...path: string[]) => JSON.parse(readFileSync(join(...path), 'utf8'));
/** The `data` of an envelope file; `undefined` when there is no such file. */
export const dataOf = (...path: string[]) => (existsSync(join(...path)) ? readJson(...path).data : undefined);

/** Every file below `dir` with its bytes, and every folder: equal before and after means that nothing was touched. */
export function tree(dir: string, skip: (path: string) => boolean = () => false): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (folder: string, prefix: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = prefix + entry.name;
      if (skip(path)) continue;
      if (entry.isDirectory()) {
        found[`${path}/`] = '';
        walk(join(folder, entry.name), `${path}/`);
      } else {
        // The sidecar's lock file says who locked last; taking the lock and giving it back is no change.
        const plain = !entry.isSymbolicLink() && path !== '.holdfast/lock';
        found[path] = plain ? readFileSync(join(folder, entry.name), 'latin1') : 'not looked at';
      }
    }
  };
  if (existsSync(dir)) walk(dir, '');
  return found;
}
/** The files that users know of: without the sidecar. */
export const visible = (dir: string) => tree(dir, (path) => path === '.holdfast');
/** Names of what a finished call must not leave behind. */
export function leftovers(dir: string): string[] {
  return Object.keys(tree(dir)).filter((path) => /\.lock$|\.tmp\.|\.review-create\.|^\.holdfast\/stage\/.+/.test(path) && path !== '.holdfast/lock');
}
export const mtimeOf = (path: string) => statSync(path, { bigint: true }).mtimeNs;

/** Runs `promise` and returns what it rejects with; fails the test when it resolves. */
export async function rejection(promise: Promise<unknown>): Promise<any> {
  let resolved = true;
  const result = await promise.catch((error: unknown) => {
    resolved = false;
    return error;
  });
  if (resolved) throw new Error(`expected a rejection, got the result ${JSON.stringify(result)?.slice(0, 200)}`);
  return result;
}

/** A child process of a fixture; `lines` collects what it prints. */
export interface Child {
  process: ChildProcess;
  lines: string[];
  /** Resolves when the child has printed a line that `matches`; rejects when it ends without. */
  line(matches: string | RegExp): Promise<string>;
  send(text: string): void;
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; out: string; err: string }>;
}

const fixtures = fileURLToPath(new URL('./fixtures/', import.meta.url));

/** Starts `fixtures/<name>` on the runtime that runs the tests. One that hangs is killed after 45 seconds. */
export function start(name: string, ...args: (string | number)[]): Child {
  const child = spawn(process.execPath, [join(fixtures, name), ...args.map(String)], { timeout: 45_000, killSignal: 'SIGKILL' });
  started.push(child);
  const lines: string[] = [];
  let out = '';
  let err = '';
  let rest = '';
  const changed = new Set<() => void>();
  const notify = () => changed.forEach((each) => each());
  child.stdout.on('data', (chunk) => {
    out += chunk;
    const parts = (rest + chunk).split('\n');
    rest = parts.pop() ?? '';
    lines.push(...parts);
    notify();
  });
  child.stderr.on('data', (chunk) => (err += chunk));
  child.stdin.on('error', () => {});
  let over = false;
  const ended = new Promise<Awaited<Child['ended']>>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      over = true;
      resolve({ code, signal, out, err });
      notify();
    });
  });
  return {
    process: child,
    lines,
    ended,
    send: (text) => void child.stdin.write(`${text}\n`),
    line: (matches) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = lines.find((line) => (typeof matches === 'string' ? line === matches : matches.test(line)));
          if (found === undefined && !over) return;
          changed.delete(look);
          if (found !== undefined) resolve(found);
          else reject(new Error(`${name} ended without printing ${matches}: ${out}${err}`));
        };
        changed.add(look);
        look();
      }),
  };
}

/** Runs a fixture to its end. */
export const run = (name: string, ...args: (string | number)[]) => start(name, ...args).ended;

let dead: number | undefined;
/** The id of a process that is gone. */
export async function deadPid(): Promise<number> {
  if (dead === undefined) {
    const child = spawn(process.execPath, ['-e', ''], { stdio: 'ignore' });
    await new Promise((resolve) => child.on('close', resolve));
    dead = child.pid as number;
  }
  return dead;
}
