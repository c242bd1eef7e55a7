/** Paths of a store, its link, its trees, and where programs resolve from. */
import { join, resolve } from 'node:path';
import { checkNonEmptyString, checkString, checkStringOrNull } from '../check';
import { call, callSync, native } from '../native';
import { checkFolder, checkInput, checkMillis, checkText, checkTextOrUndefined } from './arguments';
import { DEFAULT_TREE_GC_GRACE_MS } from './sizes';
import { NativePackages } from './native-store';
import type { PackagesLogger, ResolutionRootSnapshot, ResolutionRootStatus, TreeGcResult } from './types';

type Env = Record<string, string | undefined>;

/** The folder of a program's data: `HOLDFAST_DATA_DIR` or `CHECKSTACK_DATA_DIR` of the environment, else `.data` of the working directory. */
export function resolveDataDir(env: Env = process.env): string {
  const { HOLDFAST_DATA_DIR, CHECKSTACK_DATA_DIR } = checkInput(env, 'env');
  for (const [name, value] of Object.entries({ HOLDFAST_DATA_DIR, CHECKSTACK_DATA_DIR })) checkTextOrUndefined(value, `env.${name}`);
  return callSync(() => native.packagesDataDir(JSON.stringify({ HOLDFAST_DATA_DIR, CHECKSTACK_DATA_DIR }), process.cwd()));
}

/** The default folder of a store: `script-packages` of {@link resolveDataDir}. */
export function resolveScriptPackagesDir(env: Env = process.env): string {
  return join(resolveDataDir(env), 'script-packages');
}

/** Where everything of a store is. */
export function storePaths(storeRoot: string): { root: string; cache: string; trees: string; current: string; runs: string } {
  checkString(storeRoot, 'storeRoot');
  const at = (name: string): string => join(storeRoot, name);
  return { root: storeRoot, cache: at('cache'), trees: at('trees'), current: at('current'), runs: at('.runs') };
}

/**
 * Points a link to another target in one step: whoever reads it sees the old target or the new one. The tree that it pointed to is
 * marked as retired before, and a stale mark of the new one is removed. Durable when it resolves.
 *
 * @param input.now the time of retirement, in milliseconds. Default: now
 */
export async function atomicSymlinkSwap(input: { linkPath: string; target: string; now?: number }): Promise<void> {
  const { linkPath, target, now } = checkInput(input);
  checkFolder(linkPath, 'linkPath');
  checkNonEmptyString(target, 'target');
  await call(native.packagesSwapLink(resolve(linkPath), target, checkMillis(now, 'now')));
}

/** The text of a link; `undefined` if there is none. */
export async function readCurrentTarget(linkPath: string): Promise<string | undefined> {
  return (await call(native.packagesReadLink(checkFolder(linkPath, 'linkPath')))) ?? undefined;
}

/** Marks a tree as out of use since `at`, in milliseconds. Never rejects: a tree without a mark is only kept longer. */
export async function markTreeRetired(input: { treeDir: string; at: number }): Promise<void> {
  try {
    await call(native.packagesMarkRetired(resolve(checkFolder(input.treeDir, 'treeDir')), input.at));
  } catch {
    // It goes a grace after the first sweep that sees it without a mark.
  }
}

/** Since when a tree is out of use, in milliseconds; `undefined` if nobody knows. */
export async function readTreeRetiredAt(input: { treeDir: string }): Promise<number | undefined> {
  return (await call(native.packagesRetiredAt(checkFolder(checkInput(input).treeDir, 'treeDir')))) ?? undefined;
}

/** Whether a tree has a retirement marker, readable or not. */
export async function hasRetirementMarker(input: { treeDir: string }): Promise<boolean> {
  return call(native.packagesHasRetirementMarker(checkFolder(checkInput(input).treeDir, 'treeDir')));
}

/**
 * Removes trees that have been out of use for longer than the grace. The current tree, pinned ones, and all of them when it is not
 * known which one is current, stay.
 */
export async function sweepTreeGc(input: { storeRoot: string; graceMs?: number; now?: number; logger?: PackagesLogger }): Promise<TreeGcResult> {
  const { storeRoot, graceMs = DEFAULT_TREE_GC_GRACE_MS, now, logger } = checkInput(input);
  const store = new NativePackages(storeRoot, {}, logger);
  return JSON.parse(await store.run((log) => log.sweepTrees(checkMillis(graceMs, 'graceMs'), checkMillis(now, 'now')))) as TreeGcResult;
}

/** Whether the tree of `desiredLockfileHash` is the one that programs find; `null` = no packages are wanted. */
export async function resolveResolutionRoot(input: {
  desiredLockfileHash: string | null;
  storeRoot: string;
  hostLabel?: string;
}): Promise<ResolutionRootStatus> {
  const { storeRoot, hostLabel } = checkInput(input);
  const desired = checkDesired(input.desiredLockfileHash ?? null);
  checkLabel(hostLabel);
  return JSON.parse(await call(native.packagesResolveRoot(checkFolder(storeRoot, 'storeRoot'), JSON.stringify({ desired }), hostLabel))) as ResolutionRootStatus;
}

/** Where programs find their packages, whichever tree that is. Never `notReady`. */
export async function resolveResolutionRootFromStore(storeRoot: string): Promise<ResolutionRootStatus> {
  return JSON.parse(await call(native.packagesResolveRoot(checkFolder(storeRoot, 'storeRoot'), '{}', undefined))) as ResolutionRootStatus;
}

/**
 * Pins the current tree for a program that is about to run from it: `root` is its real path, which no flip moves, and no sweep removes
 * the tree before `release()` is called or the process has ended.
 */
export async function snapshotResolutionRoot(input: {
  storeRoot: string;
  desiredLockfileHash?: string | null;
  hostLabel?: string;
}): Promise<ResolutionRootSnapshot> {
  const { storeRoot, desiredLockfileHash: desired, hostLabel } = checkInput(input);
  if (desired !== undefined) checkDesired(desired);
  checkLabel(hostLabel);
  const text = await call(native.packagesSnapshot(checkFolder(storeRoot, 'storeRoot'), JSON.stringify({ desired }), hostLabel));
  const found = JSON.parse(text as unknown as string) as ResolutionRootSnapshot & { guard?: number };
  if (found.mode !== 'ready') return found;
  const { root, lockfileHash, guard } = found as { root: string; lockfileHash: string; guard: number };
  let pinned = true;
  const release = async (): Promise<void> => {
    if (!pinned) return;
    pinned = false;
    callSync(() => native.packagesUnpin(guard));
  };
  return { mode: 'ready', root, lockfileHash, release };
}

function checkDesired(hash: string | null): string | null {
  checkStringOrNull(hash, 'desiredLockfileHash');
  return hash === null ? null : checkText(hash, 'desiredLockfileHash');
}

function checkLabel(hostLabel: string | undefined): void {
  if (hostLabel !== undefined) checkString(hostLabel, 'hostLabel');
}
