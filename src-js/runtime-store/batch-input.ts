/** Turns what a caller wants written into what the engine takes. Every callback is asked here, before any lock. */
import { randomUUID } from 'node:crypto';

import type { ControlParts, Place } from './internals';
import type { FileLockOptions, RuntimeStoreDescriptor, RuntimeStoreIdentity, RuntimeStoreManifest, RuntimeStoreWriteBatchReason } from './types';

/** One store of a batch, its data as JSON text. */
export interface EngineWrite {
  schemaName: string;
  schemaVersion: number;
  relativePath: string;
  writtenAt: string;
  receiptId: string;
}

/** A batch as the engine takes it; `src/runtime_store/batch.rs` has the same shape. */
export interface EngineBatch extends RuntimeStoreIdentity {
  batchId: string;
  teamName: string;
  reason: RuntimeStoreWriteBatchReason;
  startedAt: string;
  completedAt: string;
  recordedAt: string;
  receiptsUpdatedAt: string;
  manifestUpdatedAt: string;
  manifestEnvelopeUpdatedAt: string;
  defaultManifest: string;
  expectedActiveRunId?: [string | null];
  retention: number | null;
  maxFileBytes?: number;
  writes: EngineWrite[];
}

/** How many committed batches the receipts file keeps, besides those that own a manifest entry. */
export const RECEIPT_RETENTION = 16;

export const newBatchId = (): string => `opencode-store-batch-${randomUUID()}`;
export const newReceiptId = (): string => `opencode-store-receipt-${randomUUID()}`;

/** Returns where a store is. */
export function placeOf(
  dir: string,
  manifest: ControlParts<RuntimeStoreManifest>,
  receipts: ControlParts<unknown>,
  processOnly: boolean,
  descriptors: readonly RuntimeStoreDescriptor[] = [],
  lock: FileLockOptions = manifest.store.lockOptions,
): Place {
  const names = new Set([...manifest.extraNames, ...receipts.extraNames, ...descriptors.map((descriptor) => descriptor.schemaName)]);
  return { dir, manifest: manifest.store.filePath, receipts: receipts.store.filePath, extraNames: [...names], processOnly, lock };
}

/** Returns the data of a manifest that does not exist yet, as JSON text. */
export function defaultManifestText(manifest: ControlParts<RuntimeStoreManifest>): string {
  return JSON.stringify(manifest.store.defaultData());
}
