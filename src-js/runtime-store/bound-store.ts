/** Single-file updates that commit through a runtime store: they leave a receipt, and never look like corruption. */
import { resolve } from 'node:path';

import { checkOneOf, checkPath, checkPlainObject, invalidArgument } from '../check';
import { call, native } from '../native';
import { defaultManifestText, newBatchId, newReceiptId, placeOf, RECEIPT_RETENTION, type EngineBatch } from './batch-input';
import { checkRuntimeStoreDescriptor, RUNTIME_STORE_BATCH_REASONS } from './descriptors';
import { openEnvelope } from './envelope';
import { partsOfManifest, partsOfReceipts, type FaultRules } from './internals';
import { checkLockOptions, heldFiles, refuseNested, sidecarLockOf } from './locks';
import type { RuntimeStoreManifestStore } from './manifest-store';
import type { RuntimeStoreReceiptStore } from './receipt-store';
import type { FileLockOptions, RuntimeStoreDescriptor, RuntimeStoreManifest, RuntimeStoreWriteBatchReason } from './types';

/** Ties a versioned JSON store to a runtime store. */
export interface RuntimeStoreBinding {
  /** The manifest that will know the file. */
  manifestStore: RuntimeStoreManifestStore;
  /** Where the receipts of updates go. */
  receiptStore: RuntimeStoreReceiptStore;
  /** Which store the file is. `relativePath` must lead to the store's `filePath`. */
  descriptor: RuntimeStoreDescriptor;
  /** The runtime directory. Default: the folder of the manifest. */
  directory?: string;
  /** What the receipts give as the reason. Default `'delivery_commit'`. */
  reason?: RuntimeStoreWriteBatchReason;
}

/** The locks of one update. */
export interface BoundLocks {
  /** The files that are locked. */
  files: string[];
  /** Commits the data (JSON text) as a batch of one store, and gives the locks back. */
  commit(updatedAt: string, data: string | undefined): Promise<void>;
  /** Gives the locks back if `commit` did not. */
  release(): void;
}

/** What a bound store needs of its binding. */
export interface BoundStore {
  lock(): Promise<BoundLocks>;
}

interface StoreOptions {
  schemaVersion: number;
  durability?: 'full' | 'process';
  maxFileBytes?: number;
  lockOptions?: FileLockOptions;
}

/** Checks a binding and returns what carries it out. */
export function bindStore(binding: RuntimeStoreBinding, filePath: string, store: StoreOptions, faults: FaultRules): BoundStore {
  checkPlainObject(binding, 'options.manifest');
  const manifest = partsOfManifest(binding.manifestStore, 'options.manifest.manifestStore');
  const receipts = partsOfReceipts(binding.receiptStore, manifest, 'options.manifest.receiptStore');
  const descriptor = checkRuntimeStoreDescriptor(binding.descriptor, 'options.manifest.descriptor');
  const reason = checkOneOf(binding.reason ?? 'delivery_commit', 'options.manifest.reason', RUNTIME_STORE_BATCH_REASONS);
  const dir = resolve(binding.directory === undefined ? resolve(manifest.store.filePath, '..') : checkPath(binding.directory, 'options.manifest.directory'));
  if (resolve(dir, `./${descriptor.relativePath}`) !== filePath) {
    throw invalidArgument('options.manifest.descriptor.relativePath', `a path that leads from ${dir} to ${filePath}`, descriptor.relativePath);
  }
  const lockOptions = checkLockOptions(store.lockOptions ?? manifest.store.lockOptions, 'options.lockOptions');
  const place = placeOf(dir, manifest, receipts, store.durability === 'process', [descriptor], lockOptions);

  const sidecarLock = sidecarLockOf(manifest.store.filePath);
  return {
    async lock() {
      refuseNested(sidecarLock);
      const guard = await call(native.lockBatch(JSON.stringify({ ...place, held: heldFiles() }), JSON.stringify([filePath]), faults));
      let held = true;
      return {
        files: [filePath, receipts.store.filePath, manifest.store.filePath, sidecarLock],
        async commit(updatedAt, data) {
          const defaultManifest = defaultManifestText(manifest);
          const active = activeIds((await call(native.readText(manifest.store.filePath))) ?? null, manifest.store.filePath, defaultManifest);
          const batch: EngineBatch = {
            batchId: newBatchId(),
            ...active,
            reason,
            startedAt: updatedAt,
            completedAt: updatedAt,
            recordedAt: updatedAt,
            receiptsUpdatedAt: updatedAt,
            manifestUpdatedAt: updatedAt,
            manifestEnvelopeUpdatedAt: updatedAt,
            defaultManifest,
            retention: RECEIPT_RETENTION,
            maxFileBytes: store.maxFileBytes,
            writes: [
              {
                schemaName: descriptor.schemaName,
                schemaVersion: store.schemaVersion,
                relativePath: descriptor.relativePath,
                writtenAt: updatedAt,
                receiptId: newReceiptId(),
              },
            ],
          };
          held = false;
          await call(native.writeBatch(JSON.stringify(place), JSON.stringify(batch), [data], guard, faults));
        },
        release() {
          if (held) native.unlockBatch(guard);
        },
      };
    },
  };
}

/** The batch takes over whose directory it is and which run is active. */
function activeIds(text: string | null, filePath: string, defaultManifest: string): Pick<EngineBatch, 'teamName' | 'runId' | 'capabilitySnapshotId' | 'behaviorFingerprint'> {
  // What cannot be read here is refused by the engine, which checks the manifest again.
  const opened = openEnvelope(text ?? '', filePath, 1);
  const manifest = (opened.ok ? opened.data : JSON.parse(defaultManifest)) as RuntimeStoreManifest;
  return {
    teamName: manifest.teamName,
    runId: manifest.activeRunId,
    capabilitySnapshotId: manifest.activeCapabilitySnapshotId,
    behaviorFingerprint: manifest.activeBehaviorFingerprint,
  };
}
