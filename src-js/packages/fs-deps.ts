/** A reconcile on this host's own disk. */
import { resolve } from 'node:path';
import { checkFunction, checkNonEmptyString, checkOneOf, checkPositiveInteger, checkString, invalidArgument, isRecord } from '../check';
import { withSignal } from '../signal';
import { checkFolder, checkInput, checkLogger, checkMillis, checkSwitch, checkText, entriesText, plain } from './arguments';
import { checkBytes, checkLimits } from './blobs';
import { NativePackages } from './native-store';
import { seedsInto } from './pulls';
import { progressOf, pullAll, signalOf } from './reconcile';
import { isDiskFailure, quietLogger } from './support';
import type { ManifestEntry, ReconcileDeps, ReconcileFsInput } from './types';

const CONCURRENCY_DEFAULT = 8;

/**
 * Makes the steps of a reconcile for a store root on this host. Everything is verified before a byte is extracted, built in a folder of
 * its own, synced, and put in place by one rename: a crash at any moment leaves the old tree current, or the new one, complete.
 *
 * Only one process at a time writes a store; others wait, at most `lockTimeoutMs`.
 *
 * @example
 * ```ts
 * const deps = createReconcileFsDeps({ storeRoot, fetchBlob });
 * await reconcileToHash({ lockfileHash, manifest, deps });
 * ```
 */
export function createReconcileFsDeps(input: ReconcileFsInput): ReconcileDeps {
  const { fetchBlob, logger, concurrency = CONCURRENCY_DEFAULT } = checkInput(input);
  const quiet = quietLogger(checkLogger(logger));
  const storeRoot = resolve(checkFolder(input.storeRoot, 'storeRoot'));
  checkFunction(fetchBlob, 'fetchBlob');
  checkPositiveInteger(concurrency, 'concurrency');
  const store = new NativePackages(storeRoot, engineOptions(input), logger);

  async function seed(entry: ManifestEntry, bytes: unknown, force: boolean, signal: AbortSignal | undefined): Promise<void> {
    const view = checkBytes(bytes, 'bytes');
    const text = JSON.stringify(plain(entry, 'entry'));
    await withSignal(signal, (token) => store.run((inner) => inner.seed(text, view, force, token)));
  }

  return {
    localCacheIntegrities: () => store.run((inner) => inner.localIntegrities()),
    fetchBlob,
    seedBlob: seedsInto(storeRoot, async (step) => seed(checkInput(step).entry, step.bytes, false, signalOf(step))),
    materializeAndFlip: async (step) => {
      const { lockfileHash, manifest } = checkInput(step);
      const signal = signalOf(step);
      const onProgress = progressOf(step);
      checkString(lockfileHash, 'lockfileHash');
      const text = entriesText(manifest, 'manifest');
      const attempt = (last: boolean): Promise<number[]> =>
        withSignal(signal, (token) => store.run((inner) => inner.materialize(lockfileHash, text, last, token), onProgress));
      const missing = (await attempt(false)).map((index) => manifest[index] as ManifestEntry);
      if (missing.length === 0) return;
      // Damaged or vanished since they were seeded: pulled once more.
      for (const { name, version } of missing) quiet?.debug(`Cache entry for ${name}@${version} is missing or damaged; pulling it again.`);
      let failed: { cause: unknown } | undefined;
      try {
        await pullAll(missing, { fetchBlob, seedBlob: ({ entry, bytes }) => seed(entry, bytes, true, signal), concurrency }, signal, () => {});
      } catch (cause) {
        signal?.throwIfAborted();
        failed = { cause };
      }
      try {
        // Somebody else may have supplied what this call could not: then the tree is there, and that is all that was wanted.
        await attempt(true);
      } catch (error) {
        if (failed === undefined || isDiskFailure(failed.cause)) throw failed?.cause ?? error;
        throw because(error, failed.cause);
      }
    },
    currentLockfileHash: async () => store.inner.currentLockfileHash() ?? undefined,
    ...(logger && { logger }),
    concurrency,
  };
}

/** The same error, with why an entry could not be pulled again, unless it has a cause of its own. */
function because(error: unknown, cause: unknown): unknown {
  if (error instanceof Error && error.cause === undefined) Object.defineProperty(error, 'cause', { value: cause, configurable: true, writable: true });
  return error;
}

/** Checks options, and says them as the engine does. */
export function engineOptions(input: Partial<ReconcileFsInput>): object {
  const { materializer, bunPath, linkMode, roots, requireBlobSha256, verifyLockfileHash, verify, durability, limits, lockTimeoutMs, treeGcGraceMs } = input;
  if (materializer !== undefined) checkOneOf(materializer, 'materializer', ['native', 'bun']);
  if (linkMode !== undefined) checkOneOf(linkMode, 'linkMode', ['auto', 'reflink', 'hardlink', 'copy']);
  if (verify !== undefined) checkOneOf(verify, 'verify', ['marker', 'full']);
  if (durability !== undefined) checkOneOf(durability, 'durability', ['full', 'none']);
  if (bunPath !== undefined) checkNonEmptyString(checkText(bunPath, 'bunPath'), 'bunPath');
  if (roots !== undefined && !isRecord(roots)) throw invalidArgument('roots', 'an object of versions by name', roots);
  for (const [name, version] of Object.entries(roots ?? {})) {
    checkText(name, 'a name in roots');
    checkText(version, `roots[${JSON.stringify(name)}]`);
  }
  return {
    linkMode,
    bun: materializer === 'bun',
    bunPath: bunPath ?? (process.versions.bun === undefined ? undefined : process.execPath),
    roots,
    requireBlobSha256: checkSwitch(requireBlobSha256, 'requireBlobSha256'),
    verifyLockfileHash: checkSwitch(verifyLockfileHash, 'verifyLockfileHash'),
    verifyFull: verify === 'full',
    durabilityNone: durability === 'none',
    limits: checkLimits(limits),
    lockTimeoutMs: checkMillis(lockTimeoutMs, 'lockTimeoutMs'),
    treeGcGraceMs: checkMillis(treeGcGraceMs, 'treeGcGraceMs'),
  };
}
