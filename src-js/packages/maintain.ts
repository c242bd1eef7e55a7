/** What an administrator does with a store: look, verify, repair, roll back, clean up. */
import { PackageStoreError } from '../errors';
import { checkArray, checkFunction, checkString } from '../check';
import { withSignal } from '../signal';
import { isDiskFailure, untilAborted } from './support';
import { checkBytes } from './blobs';
import { checkInput, checkMillis, checkSignal, entriesText } from './arguments';
import { engineOptions } from './fs-deps';
import { NativePackages } from './native-store';
import type { CacheGcResult, ManifestEntry, PackagesLogger, PackagesStoreStats, ReconcileFsInput, RepairResult, TreePlan, TreeVerification } from './types';

/** Grace of {@link sweepCacheGc}: a day. What was seeded for a manifest that is not built yet must stay. */
export const DEFAULT_CACHE_GC_GRACE_MS = 86_400_000;

interface Place {
  storeRoot: string;
  logger?: PackagesLogger;
  signal?: AbortSignal;
}

/** Hashes every file of a tree, and compares it with what was built. Changes nothing, and takes no lock. */
export async function verifyTree(input: Place & { lockfileHash: string }): Promise<TreeVerification> {
  const { storeRoot, lockfileHash, logger } = checkInput(input);
  const signal = checkSignal(input.signal);
  const store = new NativePackages(storeRoot, {}, logger);
  const text = await withSignal(signal, (token) => store.run((inner) => inner.verify(checkString(lockfileHash, 'lockfileHash'), token)));
  return JSON.parse(text) as TreeVerification;
}

/**
 * Verifies a tree and, if it is damaged, builds it anew: cache entries are hashed too, and those that are bad are fetched again. The damaged
 * tree is exchanged in one step; which one is current does not change.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT` if the tree does not say what it was built from; reconcile to it instead
 * @throws {PackageStoreError} `HF_PKG_ENTRY_MISSING`, with the reason as its `cause`, if a cache entry could not be fetched again
 */
export async function repairTree(
  input: Place & { lockfileHash: string; fetchBlob: ReconcileFsInput['fetchBlob'] } & Pick<ReconcileFsInput, 'linkMode' | 'durability' | 'limits'>,
): Promise<RepairResult> {
  const { storeRoot, lockfileHash, fetchBlob, logger } = checkInput(input);
  const signal = checkSignal(input.signal);
  checkFunction(fetchBlob, 'fetchBlob');
  const store = new NativePackages(storeRoot, engineOptions(input), logger);
  const refetched: string[] = [];
  for (;;) {
    const text = await withSignal(signal, (token) => store.run((inner) => inner.repair(checkString(lockfileHash, 'lockfileHash'), token)));
    const report = JSON.parse(text) as { rebuilt?: boolean; missing?: ManifestEntry[] };
    if (report.missing === undefined) return { rebuilt: report.rebuilt === true, refetched };
    for (const entry of report.missing) {
      // Seeded once already: what was fetched is no better than what was there.
      if (refetched.includes(entry.integrity)) throw entryMissing(entry);
      try {
        const bytes = checkBytes(await untilAborted(fetchBlob({ integrity: entry.integrity }), signal), 'the result of fetchBlob');
        await withSignal(signal, (token) => store.run((inner) => inner.seed(JSON.stringify(entry), bytes, true, token)));
      } catch (cause) {
        signal?.throwIfAborted();
        if (isDiskFailure(cause)) throw cause;
        throw entryMissing(entry, { cause });
      }
      refetched.push(entry.integrity);
    }
  }
}

function entryMissing({ name, version, integrity }: ManifestEntry, why: { cause?: unknown } = {}): PackageStoreError {
  const message = `Cache entry for ${name}@${version} is missing or damaged and could not be re-pulled`;
  return new PackageStoreError(message, { hfCode: 'HF_PKG_ENTRY_MISSING', fields: { name, version, integrity }, ...why });
}

/** Removes cache entries that no manifest of `keepManifests`, and no tree that is still there, needs. */
export async function sweepCacheGc(input: Place & { keepManifests: ManifestEntry[][]; graceMs?: number; now?: number }): Promise<CacheGcResult> {
  const { storeRoot, keepManifests, graceMs = DEFAULT_CACHE_GC_GRACE_MS, now, logger } = checkInput(input);
  const store = new NativePackages(storeRoot, {}, logger);
  const keep = `[${checkArray(keepManifests, 'keepManifests').map((manifest, index) => entriesText(manifest, `keepManifests[${index}]`)).join()}]`;
  return JSON.parse(await store.run((inner) => inner.sweepCache(keep, checkMillis(graceMs, 'graceMs'), checkMillis(now, 'now')))) as CacheGcResult;
}

/** What the tree of a manifest would be, without building it: where each package goes, what is missing, what a person should know. */
export async function planTree(input: Place & { manifest: ManifestEntry[]; roots?: Record<string, string> }): Promise<TreePlan> {
  const { storeRoot, manifest, roots, logger } = checkInput(input);
  const store = new NativePackages(storeRoot, engineOptions({ roots }), logger);
  const plan = JSON.parse(await store.run((inner) => inner.plan(entriesText(manifest, 'manifest')))) as {
    placements: { path: string; entry: number }[];
    missing: number[];
    warnings: string[];
  };
  const at = (index: number): ManifestEntry => manifest[index] as ManifestEntry;
  return {
    placements: plan.placements.map(({ path, entry }) => ({ path, entry: at(entry) })),
    missing: plan.missing.map(at),
    warnings: plan.warnings,
  };
}

/**
 * Makes a tree that is still there the current one again: no network, nothing is built.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT` if no complete tree of that hash is left
 */
export async function rollbackTo(input: Place & { lockfileHash: string } & Pick<ReconcileFsInput, 'verify' | 'treeGcGraceMs'>): Promise<void> {
  const { storeRoot, lockfileHash, logger } = checkInput(input);
  await new NativePackages(storeRoot, engineOptions(input), logger).run((inner) => inner.rollback(checkString(lockfileHash, 'lockfileHash')));
}

/** How much room a store takes. Files that trees share with the cache count once in the total. */
export async function storeStats(storeRoot: string): Promise<PackagesStoreStats> {
  return JSON.parse(await new NativePackages(storeRoot, {}, undefined).run((inner) => inner.stats())) as PackagesStoreStats;
}
