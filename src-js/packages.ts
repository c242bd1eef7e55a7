/** Packages: a host has exactly the npm packages of a manifest, without a registry. */
export type * from './packages/types';
export type { LinkProgress } from './packages/native-store';
export { PackageStoreError } from './errors';
export { computeMissingBlobs, reconcileToHash } from './packages/reconcile';
export { createReconcileFsDeps } from './packages/fs-deps';
export { blobSha256, findCacheEntry, packDir, toUint8Array, unpackInto, verifyBlobSha256 } from './packages/blobs';
export {
  atomicSymlinkSwap,
  hasRetirementMarker,
  markTreeRetired,
  readCurrentTarget,
  readTreeRetiredAt,
  resolveDataDir,
  resolveResolutionRoot,
  resolveResolutionRootFromStore,
  resolveScriptPackagesDir,
  snapshotResolutionRoot,
  storePaths,
  sweepTreeGc,
} from './packages/trees';
export { buildDependencies, buildStorePackageJson, computeLockfileHash, parseBunLock, sortManifest, splitSpec } from './packages/lockfile';
export {
  DEFAULT_BLOB_GC_GRACE_MS,
  DEFAULT_BLOB_GC_RETAIN_PREVIOUS,
  DEFAULT_BLOCK_BYTES,
  DEFAULT_TREE_GC_GRACE_MS,
  DEFAULT_WARN_BYTES,
  RETIRED_AT_MARKER,
  evaluateSizeCap,
} from './packages/sizes';
export { createBlobStoreRegistry } from './packages/registry';
export { createFileBlobStore, createPostgresBlobStore, createS3BlobStore, createSqliteBlobStore } from './packages/blob-stores';
export { createBlobGcTrigger, runBlobGc } from './packages/blob-gc';
export { resumeCrashedMigration, runStorageMigration } from './packages/migration';
export { performInstall, runInstallNow } from './packages/install';
export { DEFAULT_CACHE_GC_GRACE_MS, planTree, repairTree, rollbackTo, storeStats, sweepCacheGc, verifyTree } from './packages/maintain';
