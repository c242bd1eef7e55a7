/**
 * Cross-process file locks. The engine holds them (`src/durable/lock`); here is what only JavaScript knows: which locks the calling
 * async context holds already.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { dirname, join, resolve } from 'node:path';

import { checkBooleanOrUndefined, checkFiniteNumber, checkFunction, checkPath, checkPlainObject } from '../check';
import { HoldfastError } from '../errors';
import { call, callSync, native } from '../native';
import type { FileLockOptions } from './types';

/** Files that are locked for as long as `active` says so. */
interface Hold {
  readonly files: readonly string[];
  active: boolean;
}

const context = new AsyncLocalStorage<readonly Hold[]>();

/** Returns the files whose locks the calling async context holds now. */
export function heldFiles(): string[] {
  return (context.getStore() ?? []).filter((hold) => hold.active).flatMap((hold) => hold.files);
}

/** Runs `fn` as a holder of the locks of `files`. */
export async function holding<T>(files: readonly string[], fn: () => T | Promise<T>): Promise<T> {
  const hold: Hold = { files, active: true };
  try {
    return await context.run([...(context.getStore() ?? []), hold], fn);
  } finally {
    // What fn started may outlive the lock; it is no holder then.
    hold.active = false;
  }
}

/** The same for synchronous code. */
function holdingSync<T>(files: readonly string[], fn: () => T): T {
  const hold: Hold = { files, active: true };
  try {
    return context.run([...(context.getStore() ?? []), hold], fn);
  } finally {
    hold.active = false;
  }
}

/** Returns the file that is locked while a batch of this manifest's directory is written. */
export function sidecarLockOf(manifestPath: string): string {
  return join(dirname(manifestPath), '.holdfast', 'lock');
}

/** Refuses a lock that the calling context holds: waiting for it would never end. */
export function refuseNested(filePath: string): void {
  if (!heldFiles().includes(filePath)) return;
  const message = `File lock timeout: ${filePath} (the caller holds this lock already; do the nested work inside the outer call)`;
  throw new HoldfastError(message, { hfCode: 'HF_LOCK_TIMEOUT', fields: { path: filePath } });
}

/** Checks lock options and returns what the engine takes. */
export function checkLockOptions(options: FileLockOptions | undefined, argument: string): FileLockOptions {
  if (options === undefined) return {};
  checkPlainObject(options, argument);
  const checked: FileLockOptions = {};
  for (const key of ['acquireTimeoutMs', 'staleTimeoutMs', 'retryIntervalMs'] as const) {
    if (options[key] !== undefined) checked[key] = checkFiniteNumber(options[key], `${argument}.${key}`);
  }
  if (checkBooleanOrUndefined(options.sharedVolume, `${argument}.sharedVolume`) === true) checked.sharedVolume = true;
  return checked;
}

/**
 * Runs `fn` while holding the lock `<filePath>.lock`, which other holdfast processes and programs with the original lock protocol
 * honour. The lock is given back when `fn` settles, also when it throws.
 *
 * Waiters of one process enter in order of arrival. The lock is not re-entrant: taking it again inside `fn` fails at once.
 *
 * @param filePath The file to guard; it need not exist. Missing folders are made.
 * @param fn Runs once, with the lock held.
 * @returns What `fn` returns.
 * @throws HoldfastError `HF_LOCK_TIMEOUT`, message `File lock timeout: <filePath>`, when it is not free within `acquireTimeoutMs`;
 * I/O errors with Node's own `code`.
 */
export async function withFileLock<T>(filePath: string, fn: () => Promise<T>, options?: FileLockOptions): Promise<T> {
  const target = resolve(checkPath(filePath, 'filePath'));
  checkFunction(fn, 'fn');
  const checked = checkLockOptions(options, 'options');
  refuseNested(target);
  const guard = await call(native.lockFile(target, JSON.stringify(checked)));
  try {
    return await holding([target], fn);
  } finally {
    native.unlock(guard);
  }
}

/**
 * As {@link withFileLock}, for synchronous code: it blocks the thread, event loop included, for up to `acquireTimeoutMs`. When this
 * thread's own asynchronous code holds the lock, it fails at once, because that code could never give it back.
 */
export function withFileLockSync<T>(filePath: string, fn: () => T, options?: FileLockOptions): T {
  const target = resolve(checkPath(filePath, 'filePath'));
  checkFunction(fn, 'fn');
  const checked = checkLockOptions(options, 'options');
  refuseNested(target);
  const guard: number | undefined = callSync(() => native.lockFileSync(target, JSON.stringify(checked)));
  if (guard === undefined) throw new HoldfastError('this thread is being terminated', { hfCode: 'HF_CLOSED' });
  try {
    return holdingSync([target], fn);
  } finally {
    native.unlock(guard);
  }
}
