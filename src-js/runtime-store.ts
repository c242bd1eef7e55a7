/** The runtime store: JSON files of one directory that stay trustworthy after a crash. */
export * from './runtime-store/types';
export {
  OPENCODE_RUNTIME_STORE_DESCRIPTORS,
  OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION,
  OPENCODE_RUNTIME_STORE_RECEIPT_SCHEMA_VERSION,
  defineRuntimeStoreDescriptors,
  type RuntimeStoreDescriptorInput,
} from './runtime-store/descriptors';
export { VersionedJsonStore, type VersionedJsonStoreOptions } from './runtime-store/versioned-json-store';
export type { RuntimeStoreBinding } from './runtime-store/bound-store';
export type { RuntimeStoreFault } from './runtime-store/faults';
export { withFileLock, withFileLockSync } from './runtime-store/locks';
export {
  atomicCreateAsync,
  atomicWriteAsync,
  atomicWriteSync,
  cleanupAtomicCreateTempLinks,
  renamePathWithRetry,
  renamePathWithRetrySync,
  syncDirectoryDurably,
  unlinkPathDurably,
} from './runtime-store/atomic-files';
export { RuntimeStoreManifestStore, createRuntimeStoreManifestStore, type RuntimeStoreManifestStoreOptions } from './runtime-store/manifest-store';
export { RuntimeStoreReceiptStore, createRuntimeStoreReceiptStore, type RuntimeStoreReceiptStoreOptions } from './runtime-store/receipt-store';
export { RuntimeStoreBatchWriter, type RuntimeStoreBatchInput, type RuntimeStoreBatchWriterOptions } from './runtime-store/batch-writer';
export { RuntimeStoreFileInspector } from './runtime-store/inspector';
export { RuntimeStoreRecoveryPlanner, type RuntimeStoreRecoveryPlanInput, type RuntimeStoreRecoveryPlannerOptions } from './runtime-store/planner';
export {
  RuntimeStoreRecoveryExecutor,
  type RuntimeStoreRebuild,
  type RuntimeStoreRebuildContext,
  type RuntimeStoreRecoveryExecutorOptions,
  type RuntimeStoreRecoveryReport,
  type RuntimeStoreRecoveryStep,
  type RuntimeStoreVerification,
} from './runtime-store/executor';
export { buildRecoveryAction } from './runtime-store/recovery-action';
export { buildRuntimeStoreReadiness } from './runtime-store/readiness';
export { validateOpenCodeRuntimeStoreInvariants } from './runtime-store/invariants';
export {
  createDefaultRuntimeStoreManifest,
  validateRuntimeStoreManifest,
  validateRuntimeStoreWriteBatches,
  type RuntimeStoreValidationOptions,
} from './runtime-store/validators';
export { contentHash as computeRuntimeStoreContentHash } from './hash';
export * from './runtime-store/launch-transactions';
export { createOpenCodeLaunchEvidenceHash, redactOpenCodeLaunchEvidence } from './runtime-store/evidence-hash';
export * from './runtime-store/tombstones';
export {
  watchRuntimeStoreManifest,
  type RuntimeStoreManifestChange,
  type RuntimeStoreManifestChanges,
  type RuntimeStoreManifestWatcher,
  type RuntimeStoreManifestWatchOptions,
} from './runtime-store/watch';
export {
  RuntimeStaleEvidenceError,
  RuntimeStoreBatchPendingError,
  RuntimeStorePathError,
  VersionedJsonStoreError,
  type RuntimeStaleEvidenceReason,
  type RuntimeStoreBatchOutcome,
  type VersionedJsonStoreFailureReason,
} from './errors';
