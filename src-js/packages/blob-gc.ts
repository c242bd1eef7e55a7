/** Collecting blobs that no manifest needs any more. */
import { checkArray, invalidArgument } from '../check';
import { checkInput, checkKeyed, checkLogger, checkMethods, checkMillis } from './arguments';
import { DEFAULT_BLOB_GC_GRACE_MS, DEFAULT_BLOB_GC_RETAIN_PREVIOUS } from './sizes';
import { messageOf, quietLogger, survive } from './support';
import type { BlobGcDeps, BlobGcRunnerDeps, BlobGcSummary, ManifestEntry } from './types';

/** An install that begins in the middle of a long pass is noticed after so many deletions. */
const ASK_EVERY = 50;

/**
 * Deletes the blobs that no retained manifest needs and that are older than the grace. One that cannot be deleted is logged, and stays
 * for the next pass.
 */
export async function runBlobGc(input: { deps: BlobGcDeps }): Promise<BlobGcSummary> {
  const deps = checkInput(checkInput(input).deps, 'deps');
  const graceMs = checkMillis(deps.graceMs ?? DEFAULT_BLOB_GC_GRACE_MS, 'graceMs');
  checkMethods(deps, 'deps', ['isBusy', 'retainedManifests', 'listBlobs', 'deleteBlob'], ['recordRun', 'now']);
  const logger = quietLogger(checkLogger(deps.logger));
  if (await deps.isBusy()) return refused('An install or storage migration is in flight; skipping blob GC.');
  const what = 'the result of retainedManifests';
  const manifests = checkArray(await deps.retainedManifests(), what);
  // An entry that is read wrongly is a blob that is deleted.
  manifests.forEach((manifest, index) => checkKeyed(manifest, `${what}[${index}]`));
  // A missing signal, not an empty set: deleting everything on it could not be undone.
  if (manifests.length === 0) return refused('No retained manifest is known; refusing blob GC.');
  const needed = new Set(manifests.flat().map(({ integrity }) => integrity));
  const now = deps.now?.() ?? Date.now();
  const summary: BlobGcSummary = { ran: true, candidates: 0, deleted: 0, keptWithinGrace: 0, bytesReclaimed: 0 };
  let tried = 0;
  // A copy: the list may be the caller's own, which shrinks with every deletion.
  for (const { integrity, backend, sizeBytes, createdAt } of [...checkArray(await deps.listBlobs(), 'the result of listBlobs')]) {
    if (needed.has(integrity)) continue;
    summary.candidates++;
    // Kept as well where the age is no number: of an invalid date nobody knows how old the blob is.
    if (!(now - createdAt.getTime() >= graceMs)) {
      summary.keptWithinGrace++;
      continue;
    }
    if (tried > 0 && tried % ASK_EVERY === 0 && (await deps.isBusy())) break;
    tried++;
    try {
      await deps.deleteBlob({ integrity, backend });
      summary.deleted++;
      summary.bytesReclaimed += sizeBytes;
    } catch (error) {
      logger?.error(`Blob GC could not delete ${integrity} from "${backend}": ${messageOf(error)}`);
    }
  }
  const { deleted, bytesReclaimed } = summary;
  // Only statistics: nobody needs to hear that they failed.
  await survive(() => deps.recordRun?.({ deleted, bytesReclaimed }), 'Recording the blob GC', undefined);
  logger?.debug(`Blob GC deleted ${deleted} blob(s), ${bytesReclaimed} bytes.`);
  return summary;
}

/**
 * Makes a function that runs a blob GC under the installer lock, with the current manifest and the newest of the history retained. It
 * never rejects.
 */
export function createBlobGcTrigger(deps: BlobGcRunnerDeps): () => Promise<BlobGcSummary> {
  const { retainPrevious = DEFAULT_BLOB_GC_RETAIN_PREVIOUS } = checkInput(deps, 'deps');
  if (!Number.isSafeInteger(retainPrevious) || retainPrevious < 0) throw invalidArgument('retainPrevious', 'an integer of 0 or more', retainPrevious);
  checkMillis(deps.graceMs, 'graceMs');
  checkMethods(deps, 'deps', ['listBlobs', 'isBusy', 'pruneHistory', 'removeBlobRow', 'loadCurrent', 'recentHistory'], ['recordRun']);
  checkMethods(deps.installerLock, 'deps.installerLock', ['tryInstallerLock']);
  checkMethods(deps.blobStores, 'deps.blobStores', ['get']);
  const logger = quietLogger(checkLogger(deps.logger));
  const keep = retainPrevious + 1;

  async function retainedManifests(): Promise<ManifestEntry[][]> {
    const history = (await deps.recentHistory(keep)).slice(0, keep);
    const { lockfileHash, manifest } = await deps.loadCurrent();
    return lockfileHash !== null && manifest.length > 0 ? [manifest, ...history] : history;
  }

  async function deleteBlob({ integrity, backend }: { integrity: string; backend: string }): Promise<void> {
    // Throws where nobody knows the backend: the row is all that tells where the bytes are.
    await deps.blobStores.get(backend).delete({ integrity });
    await deps.removeBlobRow(integrity);
  }

  return async () => {
    let lock;
    try {
      lock = await deps.installerLock.tryInstallerLock();
    } catch (error) {
      return refused(messageOf(error));
    }
    if (lock === null) return refused('An install or storage migration holds the installer lock; skipping blob GC.');
    try {
      const { listBlobs, isBusy, recordRun, graceMs } = deps;
      return await runBlobGc({ deps: { retainedManifests, deleteBlob, listBlobs, isBusy, recordRun, graceMs, ...(logger && { logger }) } });
    } catch (error) {
      return refused(messageOf(error));
    } finally {
      await survive(() => deps.pruneHistory(keep), 'Pruning the install history', logger);
      await survive(() => lock.release(), 'Releasing the installer lock', logger);
    }
  };
}

function refused(reason: string): BlobGcSummary {
  return { ran: false, reason, candidates: 0, deleted: 0, keptWithinGrace: 0, bytesReclaimed: 0 };
}
