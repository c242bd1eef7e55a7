/** Publishing: resolve packages, put their blobs where hosts find them, say what the manifest is. */
import { checkArray } from '../check';
import { checkInput, checkLogger, checkMethods, plain } from './arguments';
import { blobSha256, checkBytes } from './blobs';
import { computeLockfileHash } from './lockfile';
import { evaluateSizeCap } from './sizes';
import { messageOf, quietLogger, survive } from './support';
import type { BlobPublisher, InstallControllerDeps, InstallInputs, InstallResult, ManifestEntry, Publishing, ResolvedPackage } from './types';

/**
 * Resolves packages and publishes their blobs. A blob that the store has already stays, and the manifest carries the hash of the
 * stored bytes, because those are what hosts will get. The manifest has the resolver's order, which says what hosts put at the root.
 */
export async function performInstall(input: InstallInputs & Publishing): Promise<InstallResult> {
  const { packages, ignoreScripts, resolver, blobStore, blobIndex } = checkInput(input);
  checkArray(packages, 'packages');
  checkPublishing(input);
  const publishedIntegrities: string[] = [];
  const entries: ManifestEntry[] = [];
  let totalSizeBytes = 0;
  const what = 'the result of resolver.resolve';
  const resolved = checkArray(await resolver.resolve({ packages, ignoreScripts }), what);
  // Before the first is published: what is wrong with the last should not leave half of them in the store.
  for (const [index, one] of resolved.entries()) {
    plain(checkInput(one, `${what}[${index}]`).entry, `${what}[${index}].entry`);
    checkBytes(one.blob, `${what}[${index}].blob`);
  }
  for (const { entry, blob } of resolved) {
    totalSizeBytes += blob.byteLength;
    const { integrity, name, version } = entry;
    if (await blobStore.has({ integrity })) {
      entries.push({ ...entry, blobSha256: await storedHash(blobStore, { entry, blob }) });
      continue;
    }
    await blobStore.put({ integrity, bytes: blob });
    await blobIndex.record({ integrity, name, version, backend: blobStore.id, sizeBytes: blob.byteLength });
    publishedIntegrities.push(integrity);
    entries.push({ ...entry, blobSha256: blobSha256(blob) });
  }
  // In the resolver's order: the first version of a name is the one that hosts put at the root.
  return { lockfileHash: computeLockfileHash(entries), manifest: entries, totalSizeBytes, publishedIntegrities };
}

function checkPublishing({ resolver, blobStore, blobIndex }: Publishing, of = ''): void {
  checkMethods(resolver, `${of}resolver`, ['resolve']);
  checkMethods(blobStore, `${of}blobStore`, ['has', 'put'], ['get']);
  checkMethods(blobIndex, `${of}blobIndex`, ['record']);
}

async function storedHash(blobStore: BlobPublisher, { entry, blob }: ResolvedPackage): Promise<string> {
  const stored = await blobStore.get?.({ integrity: entry.integrity });
  return blobSha256(stored ?? blob);
}

/**
 * Runs one install under the installer lock, and keeps its state. Never rejects for what goes wrong in between: the reason is in the
 * result, and in the state.
 */
export async function runInstallNow(deps: InstallControllerDeps): Promise<{ started: boolean; reason?: string }> {
  const own = ['loadInstallInputs', 'sizeCap', 'isMigrationInFlight', 'emitChanged'] as const;
  const { installState, installerLock } = checkMethods(deps, 'deps', own, ['recordHistory']);
  checkMethods(installState, 'deps.installState', ['setInstalling', 'setReady', 'setError']);
  checkMethods(installerLock, 'deps.installerLock', ['tryInstallerLock']);
  checkPublishing(deps, 'deps.');
  const logger = quietLogger(checkLogger(deps.logger));
  const refuse = (reason: string) => ({ started: false, reason });
  if (await deps.isMigrationInFlight()) return refuse('A storage migration is in progress; try again once it completes.');
  const lock = await deps.installerLock.tryInstallerLock();
  if (lock === null) return refuse('Another instance is currently installing.');
  try {
    await installState.setInstalling();
    const inputs = checkInput(await deps.loadInstallInputs(), 'the result of loadInstallInputs');
    const { resolver, blobStore, blobIndex } = deps;
    const { lockfileHash, manifest, totalSizeBytes } = await performInstall({ ...inputs, resolver, blobStore, blobIndex });
    const verdict = evaluateSizeCap({ totalSizeBytes, cap: await deps.sizeCap() });
    if (verdict.level === 'block') {
      await installState.setError(verdict.message);
      return refuse(verdict.message);
    }
    if (verdict.level === 'warn') logger?.debug(verdict.message);
    await installState.setReady({ lockfileHash, manifest, totalSizeBytes });
    await survive(() => deps.recordHistory?.({ lockfileHash, manifest }), 'Recording the install history', logger);
    await deps.emitChanged({ lockfileHash });
    return { started: true };
  } catch (thrown) {
    const message = messageOf(thrown);
    logger?.error(`Script package install failed: ${thrown instanceof Error ? (thrown.stack ?? message) : message}`);
    await survive(() => installState.setError(message), 'Recording that', logger);
    return refuse(message);
  } finally {
    await survive(() => lock.release(), 'Releasing the installer lock', logger);
  }
}
