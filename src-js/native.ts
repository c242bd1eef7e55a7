/**
 * Loads the native addon, and turns its failures into errors. The only file that touches `native.cjs`.
 */
import { fromFailure, isFailure } from './errors';

/** The addon's exports, as the build declares them in `native.d.ts`. */
export type Native = typeof import('../native');

/** The addon. */
export const native: Native = load();

/**
 * Awaits a promise of the addon. A failure is rethrown as its public class, with the frames of the functions that await
 * this one in its stack; any other rejection passes unchanged.
 *
 * Callers `await` (or return from an `async` function), because V8 finds them through their `await`.
 */
export async function call<T>(promise: Promise<T>): Promise<T> {
  // Node makes calls of an addon return undefined in a worker that is being terminated, and may forget the termination on the way.
  // A promise that never settles gives the thread back to the event loop, which then ends the worker.
  if ((promise as Promise<T> | undefined) === undefined) return new Promise<never>(() => {});
  try {
    return await promise;
  } catch (thrown) {
    throw revive(thrown, call);
  }
}

/** Runs a synchronous call of the addon. A failure is rethrown as its public class; anything else passes unchanged. */
export function callSync<T>(run: () => T): T {
  try {
    return run();
  } catch (thrown) {
    throw revive(thrown, callSync);
  }
}

function revive(thrown: unknown, from: (...args: never[]) => unknown): unknown {
  if (!isFailure(thrown)) return thrown;
  const error = fromFailure(thrown);
  // The stack begins at the method that the user called, not in this file.
  Error.captureStackTrace(error, from);
  return error;
}

function load(): Native {
  let loaded: Native;
  try {
    loaded = require('../native.cjs') as Native;
  } catch (cause) {
    throw Object.assign(cannotLoad(attempts(cause)), { cause });
  }
  const expected = (require('../package.json') as { version: string }).version;
  const found = loaded.version();
  if (found !== expected) {
    throw cannotLoad([`a binary of version ${found} was found, but this package is version ${expected}`]);
  }
  return loaded;
}

function cannotLoad(tried: string[]): Error {
  const lines = [
    'holdfast could not load its native addon.',
    `This is ${process.platform} ${process.arch}${libc()}, ${runtime()}.`,
    'Tried:',
    ...tried.map((line) => `  - ${line}`),
    'To fix it:',
    '  - node_modules came from another machine, or optional dependencies were left out: remove node_modules, then run',
    '    npm install --include=optional',
    '  - you work in the repository of holdfast, or there is no binary for this platform: with Rust installed, run',
    '    npm run build',
    '  - an Electron app: keep the binary out of the archive, "asarUnpack": ["**/*.node"]',
    '  - a bundler (webpack, esbuild, vite): mark "holdfast" as external',
  ];
  return Object.assign(new Error(lines.join('\n')), { code: 'ERR_DLOPEN_FAILED' });
}

/** Collects what the generated loader tried, in order, from the chain of causes that it throws. */
function attempts(thrown: unknown): string[] {
  const tried: string[] = [];
  // The chain goes from the last attempt to the first; its head only says that all of them failed.
  let error = thrown instanceof Error && thrown.cause instanceof Error ? thrown.cause : thrown;
  for (; error instanceof Error && tried.length < 16; error = error.cause) {
    const [line = ''] = error.message.split('\n', 1);
    // The generated loader also looks for WebAssembly builds, which do not exist.
    if (!line.includes('wasi')) tried.unshift(line);
  }
  return tried.length > 0 ? tried : [String(thrown)];
}

/** Says which C library Linux runs on, because binaries exist for each. */
function libc(): string {
  if (process.platform !== 'linux' || process.report === undefined) return '';
  // Without this, the report looks up the names of open connections, which can take seconds.
  const report = process.report as typeof process.report & { excludeNetwork?: boolean };
  const before = report.excludeNetwork;
  report.excludeNetwork = true;
  try {
    const { header } = report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
    return header.glibcVersionRuntime === undefined ? ' (musl)' : ` (glibc ${header.glibcVersionRuntime})`;
  } catch {
    return '';
  } finally {
    if (before !== undefined) report.excludeNetwork = before;
  }
}

function runtime(): string {
  const { electron, bun } = process.versions;
  const extra = electron !== undefined ? `, Electron ${electron}` : bun !== undefined ? `, Bun ${bun}` : '';
  return `Node.js ${process.version}${extra}`;
}
