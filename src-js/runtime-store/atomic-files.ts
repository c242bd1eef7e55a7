/** Files that are replaced whole or not at all. */
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { checkBooleanOrUndefined, checkFunctionOrUndefined, checkOneOf, checkPath, checkPlainObject, invalidArgument } from '../check';
import { call, callSync, native } from '../native';
import type { AtomicCreateResult, AtomicWriteOptions } from './types';

const DURABILITIES = ['best-effort', 'strict'] as const;

function checkData(data: string | Buffer): Buffer {
  if (typeof data === 'string') return Buffer.from(data, 'utf8');
  if (data instanceof Uint8Array) return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  throw invalidArgument('data', 'a string or a Buffer', data);
}

function checkMode(mode: number | undefined): number | undefined {
  if (mode === undefined) return undefined;
  if (!Number.isInteger(mode) || mode < 0 || mode > 0o7777) throw invalidArgument('options.mode', 'permission bits from 0 to 0o7777', mode);
  return mode;
}

function isStrict(durability: (typeof DURABILITIES)[number] | undefined): boolean {
  return durability !== undefined && checkOneOf(durability, 'options.durability', DURABILITIES) === 'strict';
}

/**
 * Replaces a file atomically: a reader sees the old bytes or the new ones, never a mixture. Missing folders are made. Without `mode`
 * the file keeps the mode (and where allowed the owner) of the one it replaces; a symlink is followed.
 *
 * With the default options the file's bytes are synced if the file system can, and its new name is not: after a power cut the old
 * file may be back. For a write that is on the disk when the promise resolves, pass `{ durability: 'strict', syncDirectory: true }`.
 *
 * @throws HoldfastError with Node's `code`. With `strict`, a failed sync of the file leaves the target as it was; a failed sync of the
 * folder rejects after the target was replaced.
 */
export async function atomicWriteAsync(targetPath: string, data: string | Buffer, options: AtomicWriteOptions = {}): Promise<void> {
  const target = resolve(checkPath(targetPath, 'targetPath'));
  checkPlainObject(options, 'options');
  const bytes = checkData(data);
  const mode = checkMode(options.mode);
  const strict = isStrict(options.durability);
  const syncDirectory = checkBooleanOrUndefined(options.syncDirectory, 'options.syncDirectory') === true;
  const beforeCommit = checkFunctionOrUndefined(options.beforeCommit, 'options.beforeCommit');

  let temp = await call(native.tempCreate(target, bytes, mode, strict ? 'strict' : 'best-effort'));
  for (let attempt = 1; ; attempt += 1) {
    try {
      await beforeCommit?.call(options);
    } catch (error) {
      native.tempDiscard(temp);
      throw error;
    }
    const again = await call(native.tempPublish(temp, attempt, syncDirectory, strict));
    if (again === null) return;
    const [number, delayMs] = again;
    temp = number;
    await sleep(delayMs);
  }
}

/** As {@link atomicWriteAsync} with the default options and no `beforeCommit`, on the calling thread: it blocks for one file sync. */
export function atomicWriteSync(targetPath: string, data: string | Buffer, options: { mode?: number } = {}): void {
  const target = resolve(checkPath(targetPath, 'targetPath'));
  const bytes = checkData(data);
  const mode = checkMode(checkPlainObject(options, 'options').mode);
  callSync(() => native.atomicWriteSync(target, bytes, mode));
}

/**
 * Creates a file that must not exist yet, durably: bytes and name are on the disk when the promise resolves, and the name never
 * stands for less than all bytes.
 *
 * @throws HoldfastError `EEXIST` when the target exists, which then stays as it is; any other I/O error.
 */
export async function atomicCreateAsync(targetPath: string, data: string | Buffer, options: { mode?: number } = {}): Promise<AtomicCreateResult> {
  const target = resolve(checkPath(targetPath, 'targetPath'));
  const bytes = checkData(data);
  const mode = checkMode(checkPlainObject(options, 'options').mode);
  const [dev, ino] = await call(native.atomicCreate(target, bytes, mode));
  return { dev, ino };
}

/**
 * Renames, replacing what stands at `dest`. Where a failure may pass by itself (`EBUSY`; on Windows also what virus scanners cause) it
 * is tried again. With `syncDirectories` the folder of `dest` is synced, then that of `src`.
 *
 * @param options.durability `'strict'`: a failed folder sync rejects, after the rename. Default `'best-effort'`.
 */
export async function renamePathWithRetry(
  src: string,
  dest: string,
  options: { syncDirectories?: boolean; durability?: 'best-effort' | 'strict' } = {},
): Promise<void> {
  const from = resolve(checkPath(src, 'src'));
  const to = resolve(checkPath(dest, 'dest'));
  checkPlainObject(options, 'options');
  const sync = checkBooleanOrUndefined(options.syncDirectories, 'options.syncDirectories') === true;
  const strict = isStrict(options.durability);
  await call(native.renameWithRetry(from, to, sync, strict));
}

/** As {@link renamePathWithRetry} without syncs, on the calling thread. */
export function renamePathWithRetrySync(src: string, dest: string): void {
  const from = resolve(checkPath(src, 'src'));
  const to = resolve(checkPath(dest, 'dest'));
  callSync(() => native.renameWithRetrySync(from, to));
}

/** Forces the names in a folder to the disk. Succeeds where the system cannot sync folders. */
export async function syncDirectoryDurably(dirPath: string): Promise<void> {
  await call(native.syncDirectory(resolve(checkPath(dirPath, 'dirPath'))));
}

/** Removes a file and forces that to the disk. */
export async function unlinkPathDurably(filePath: string): Promise<void> {
  await call(native.unlinkDurably(resolve(checkPath(filePath, 'filePath'))));
}

/**
 * Removes temporary links that an interrupted {@link atomicCreateAsync} left beside its target: files of its naming pattern that are
 * the same inode as the target. Touches nothing else.
 */
export async function cleanupAtomicCreateTempLinks(targetPath: string): Promise<void> {
  await call(native.cleanupCreateLinks(resolve(checkPath(targetPath, 'targetPath'))));
}
