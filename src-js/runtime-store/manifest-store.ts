/** The manifest of a runtime directory: which bytes are the committed ones. */
import { dirname, join } from 'node:path';

import { checkArray, checkFunctionOrUndefined, checkNonEmptyString, checkPlainObject, checkStringOrNull, isBlank } from '../check';
import { checkSchemaNames, OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION, schemaNamesOf } from './descriptors';
import { isoTime, keepCopies, partsOfStore, registerManifest } from './internals';
import { readStoreData } from './store-data';
import type {
  FileLockOptions,
  RuntimeStoreDescriptor,
  RuntimeStoreManifest,
  RuntimeStoreManifestEntry,
  RuntimeStoreRecoveryPlan,
  RuntimeStoreWriteBatch,
  RuntimeStoreWriteReceipt,
} from './types';
import { createDefaultRuntimeStoreManifest, validateRuntimeStoreManifest } from './validators';
import { VersionedJsonStore } from './versioned-json-store';

/** Options of {@link createRuntimeStoreManifestStore}. */
export interface RuntimeStoreManifestStoreOptions {
  /** The manifest file. The sidecar folder `.holdfast` stands beside it. */
  filePath: string;
  /** The owner of the runtime directory. */
  teamName: string;
  /** Default: the wall clock. */
  clock?: () => Date;
  /** How locks are taken, also those of batches. Defaults: 5000, 30000 and 20 ms. */
  lockOptions?: FileLockOptions;
  /** Descriptors with own schema names, which the manifest may then hold. Default: none. */
  descriptors?: readonly RuntimeStoreDescriptor[];
  /** `'process'` turns syncing off, for tests. Default `'full'`. */
  durability?: 'full' | 'process';
}

/**
 * Opens the manifest of a runtime directory. Nothing is created before the first write.
 *
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export function createRuntimeStoreManifestStore(o: RuntimeStoreManifestStoreOptions): RuntimeStoreManifestStore {
  checkPlainObject(o, 'options');
  const teamName = checkNonEmptyString(o.teamName, 'options.teamName');
  const clock = checkFunctionOrUndefined(o.clock, 'options.clock') ?? ((): Date => new Date());
  const allowedSchemaNames = schemaNamesOf(o.descriptors, 'options.descriptors');
  const store = new VersionedJsonStore<RuntimeStoreManifest>({
    filePath: o.filePath,
    schemaVersion: OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION,
    defaultData: () => createDefaultRuntimeStoreManifest(teamName, isoTime(clock, 'clock')),
    validate: (value) => validateRuntimeStoreManifest(value, { allowedSchemaNames }),
    clock,
    lockOptions: o.lockOptions,
    durability: o.durability,
  });
  return new RuntimeStoreManifestStore(store, clock, allowedSchemaNames);
}

/** Reads and changes a manifest. Batches change it by themselves; see `RuntimeStoreBatchWriter`. */
export class RuntimeStoreManifestStore {
  readonly #store: VersionedJsonStore<RuntimeStoreManifest>;
  readonly #clock: () => Date;

  /**
   * @param store The file.
   * @param clock Gives the times inside the manifest. Default: the wall clock.
   * @param schemaNames Own schema names that entries may have. Default: none.
   */
  constructor(store: VersionedJsonStore<RuntimeStoreManifest>, clock?: () => Date, schemaNames: readonly string[] = []) {
    const parts = partsOfStore<RuntimeStoreManifest>(store, 'store');
    this.#store = store;
    this.#clock = checkFunctionOrUndefined(clock, 'clock') ?? (() => new Date());
    keepCopies(store, join(dirname(parts.filePath), '.holdfast', 'manifest.prev.json'));
    registerManifest(this, { store: parts, clock: this.#clock, extraNames: checkSchemaNames(schemaNames, 'schemaNames') });
  }

  /** Returns the manifest; of a missing file the default one, which is not written. @throws VersionedJsonStoreError */
  async read(): Promise<RuntimeStoreManifest> {
    return readStoreData(this.#store);
  }

  /**
   * Says which run is active. Ids are trimmed, an empty one becomes `null`; of the two optional ids `undefined` keeps what is there.
   * Nothing is written when nothing changes.
   */
  async setActiveRun(input: { runId: string | null; capabilitySnapshotId?: string | null; behaviorFingerprint?: string | null }): Promise<RuntimeStoreManifest> {
    checkPlainObject(input, 'input');
    const trimmed = (value: unknown, argument: string): string | null => {
      const text = checkStringOrNull(value, argument);
      return text === null || isBlank(text) ? null : text.trim();
    };
    const kept = (value: string | null | undefined, current: string | null, argument: string): string | null =>
      value === undefined ? current : trimmed(value, argument);
    const runId = trimmed(input.runId, 'input.runId');
    return this.#update((current) => {
      // A directory that an early version left: a count of batches, and no trace of them.
      const hollow = current.highWatermark > 0 && current.entries.length === 0 && current.lastCommittedBatchId === null;
      const next = {
        ...current,
        activeRunId: runId,
        activeCapabilitySnapshotId: kept(input.capabilitySnapshotId, current.activeCapabilitySnapshotId, 'input.capabilitySnapshotId'),
        activeBehaviorFingerprint: kept(input.behaviorFingerprint, current.activeBehaviorFingerprint, 'input.behaviorFingerprint'),
        highWatermark: hollow ? 0 : current.highWatermark,
      };
      const same =
        next.activeRunId === current.activeRunId &&
        next.activeCapabilitySnapshotId === current.activeCapabilitySnapshotId &&
        next.activeBehaviorFingerprint === current.activeBehaviorFingerprint &&
        next.highWatermark === current.highWatermark;
      return same ? current : { ...next, updatedAt: isoTime(this.#clock, 'clock') };
    });
  }

  /** Notes that a batch has begun, as the original protocol does. holdfast's own batches need no such note. */
  async markBatchPreparing(batch: RuntimeStoreWriteBatch): Promise<void> {
    const batchId = checkNonEmptyString(checkPlainObject(batch, 'batch').batchId, 'batch.batchId');
    await this.#update((current) => ({ ...current, lastPreparingBatchId: batchId, updatedAt: isoTime(this.#clock, 'clock') }));
  }

  /**
   * Applies a committed batch: an entry per receipt, the active ids, the watermark. Applying the batch that was applied last changes
   * nothing.
   */
  async applyCommittedBatch(batch: RuntimeStoreWriteBatch): Promise<RuntimeStoreManifest> {
    const batchId = checkNonEmptyString(checkPlainObject(batch, 'batch').batchId, 'batch.batchId');
    for (const key of ['runId', 'capabilitySnapshotId', 'behaviorFingerprint'] as const) checkStringOrNull(batch[key], `batch.${key}`);
    const receipts = Array.from(checkArray(batch.receipts, 'batch.receipts'), (receipt, index) => checkPlainObject(receipt, `batch.receipts[${index}]`));
    return this.#update((current) => {
      if (current.lastCommittedBatchId === batchId) return current;
      const entries = new Map(current.entries.map((entry) => [entry.schemaName, entry]));
      for (const receipt of receipts) entries.set(receipt.schemaName, entryOf(receipt));
      return {
        ...current,
        activeRunId: batch.runId,
        activeCapabilitySnapshotId: batch.capabilitySnapshotId,
        activeBehaviorFingerprint: batch.behaviorFingerprint,
        highWatermark: current.highWatermark + 1,
        lastCommittedBatchId: batchId,
        lastPreparingBatchId: current.lastPreparingBatchId === batchId ? null : current.lastPreparingBatchId,
        entries: [...entries.values()].sort((a, b) => (a.schemaName < b.schemaName ? -1 : a.schemaName > b.schemaName ? 1 : 0)),
        updatedAt: isoTime(this.#clock, 'clock'),
      };
    });
  }

  /** Notes which recovery plan was acted on. */
  async markRecoveryPlan(plan: RuntimeStoreRecoveryPlan): Promise<void> {
    const planId = checkNonEmptyString(checkPlainObject(plan, 'plan').planId, 'plan.planId');
    await this.#update((current) => ({ ...current, lastRecoveryPlanId: planId, updatedAt: isoTime(this.#clock, 'clock') }));
  }

  async #update(change: (current: RuntimeStoreManifest) => RuntimeStoreManifest): Promise<RuntimeStoreManifest> {
    return (await this.#store.updateLocked(change)).data;
  }

  /** Waits for calls in flight; later calls reject with `HF_CLOSED`. Twice is harmless. */
  close(): Promise<void> {
    return this.#store.close();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function entryOf(receipt: RuntimeStoreWriteReceipt): RuntimeStoreManifestEntry {
  return {
    schemaName: receipt.schemaName,
    schemaVersion: receipt.schemaVersion,
    relativePath: receipt.relativePath,
    contentHash: receipt.contentHash,
    fileSize: receipt.fileSize,
    mtimeMs: receipt.mtimeMs,
    runId: receipt.runId,
    capabilitySnapshotId: receipt.capabilitySnapshotId,
    behaviorFingerprint: receipt.behaviorFingerprint,
    lastWriteReceiptId: receipt.receiptId,
    state: 'healthy',
  };
}
