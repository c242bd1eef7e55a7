/**
 * What a manifest and a list of batches must look like. The engine has the same rules for what it reads itself
 * (`src/runtime_store`); `__test__/vectors/runtime-store-validation.json` holds both to the same answers.
 */
import { checkNonEmptyString, invalidArgument, isBlank, isRecord } from '../check';
import { HoldfastError, type HoldfastErrorCode } from '../errors';
import {
  OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION,
  RUNTIME_STORE_BATCH_REASONS,
  RUNTIME_STORE_BATCH_STATES,
  RUNTIME_STORE_ENTRY_STATES,
  RUNTIME_STORE_SCHEMA_NAMES,
} from './descriptors';
import type { RuntimeStoreManifest, RuntimeStoreManifestEntry, RuntimeStoreWriteBatch, RuntimeStoreWriteReceipt } from './types';

/** Options of the validators. */
export interface RuntimeStoreValidationOptions {
  /** Schema names that are legal besides the built-in ones: an application's own. Default: none. */
  allowedSchemaNames?: Iterable<string>;
}

/**
 * Makes the manifest of a directory in which nothing was written yet: no ids, watermark 0, no entries.
 *
 * @param teamName The owner of the directory; not blank.
 * @param updatedAt The time to put into it, as `Date#toISOString()`; not blank, not parsed.
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export function createDefaultRuntimeStoreManifest(teamName: string, updatedAt: string): RuntimeStoreManifest {
  return {
    schemaVersion: OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION,
    teamName: checkNonEmptyString(teamName, 'teamName'),
    activeRunId: null,
    activeCapabilitySnapshotId: null,
    activeBehaviorFingerprint: null,
    highWatermark: 0,
    lastCommittedBatchId: null,
    lastPreparingBatchId: null,
    entries: [],
    lastRecoveryPlanId: null,
    updatedAt: checkNonEmptyString(updatedAt, 'updatedAt'),
  };
}

/**
 * Requires the data of a manifest file and returns a manifest with its keys in order and without unknown ones. The entries are
 * the same objects as in `value`, unknown keys included.
 *
 * @param value What `JSON.parse` gave.
 * @throws HoldfastError `HF_RUNTIME_INVALID_MANIFEST`, saying what is wrong first; `HF_INVALID_ARGUMENT` for bad options.
 */
export function validateRuntimeStoreManifest(value: unknown, options?: RuntimeStoreValidationOptions): RuntimeStoreManifest {
  if (!isRecord(value)) throw invalidManifest('Runtime store manifest must be an object');
  if (value.schemaVersion !== OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION) {
    throw invalidManifest('Runtime store manifest has unsupported schemaVersion');
  }
  if (!hasManifestFields(value)) throw invalidManifest('Runtime store manifest envelope is invalid');
  const isLegalName = schemaNameCheck(options);
  const seen = new Set<string>();
  // `entries()`, not `forEach`: a hole in an array that did not come from JSON is not a legal element.
  for (const [index, entry] of value.entries.entries()) {
    if (!isEntry(entry, isLegalName)) throw invalidManifest(`Invalid runtime store manifest entry at index ${index}`);
    if (seen.has(entry.schemaName)) throw invalidManifest(`Duplicate runtime store manifest entry: ${entry.schemaName}`);
    seen.add(entry.schemaName);
  }
  return {
    schemaVersion: OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION,
    teamName: value.teamName,
    activeRunId: value.activeRunId,
    activeCapabilitySnapshotId: value.activeCapabilitySnapshotId,
    activeBehaviorFingerprint: value.activeBehaviorFingerprint,
    highWatermark: value.highWatermark,
    lastCommittedBatchId: value.lastCommittedBatchId,
    lastPreparingBatchId: value.lastPreparingBatchId,
    entries: value.entries,
    lastRecoveryPlanId: value.lastRecoveryPlanId,
    updatedAt: value.updatedAt,
  };
}

/**
 * Requires the data of a receipts file and returns it as it is, unknown keys included.
 *
 * @param value What `JSON.parse` gave.
 * @throws HoldfastError `HF_RUNTIME_INVALID_RECEIPTS`, saying what is wrong first. One bad record makes the whole
 *   list invalid. `HF_INVALID_ARGUMENT` for bad options.
 */
export function validateRuntimeStoreWriteBatches(value: unknown, options?: RuntimeStoreValidationOptions): RuntimeStoreWriteBatch[] {
  if (!Array.isArray(value)) throw invalidReceipts('Runtime store write batches must be an array');
  const isLegalName = schemaNameCheck(options);
  const seen = new Set<string>();
  for (const [index, batch] of value.entries()) {
    if (!isBatch(batch, isLegalName)) throw invalidReceipts(`Invalid runtime store write batch at index ${index}`);
    if (seen.has(batch.batchId)) throw invalidReceipts(`Duplicate runtime store write batch: ${batch.batchId}`);
    seen.add(batch.batchId);
  }
  return value as RuntimeStoreWriteBatch[];
}

type NameCheck = (value: unknown) => boolean;

function schemaNameCheck(options: RuntimeStoreValidationOptions | undefined): NameCheck {
  const legal = new Set<unknown>(RUNTIME_STORE_SCHEMA_NAMES);
  const allowed = options?.allowedSchemaNames ?? [];
  // A string is iterable too, but its characters are not what its author meant.
  if (typeof allowed !== 'object' || !(Symbol.iterator in allowed)) {
    throw invalidArgument('options.allowedSchemaNames', 'an iterable of strings', allowed);
  }
  for (const name of allowed) legal.add(checkNonEmptyString(name, 'options.allowedSchemaNames[]'));
  return (value) => legal.has(value);
}

function hasManifestFields(value: Record<string, unknown>): value is Record<string, unknown> & RuntimeStoreManifest {
  return (
    isText(value.teamName) &&
    isStringOrNull(value.activeRunId) &&
    isStringOrNull(value.activeCapabilitySnapshotId) &&
    isStringOrNull(value.activeBehaviorFingerprint) &&
    isIntegerFrom(0, value.highWatermark) &&
    isStringOrNull(value.lastCommittedBatchId) &&
    isStringOrNull(value.lastPreparingBatchId) &&
    Array.isArray(value.entries) &&
    isStringOrNull(value.lastRecoveryPlanId) &&
    isText(value.updatedAt)
  );
}

function isEntry(value: unknown, isLegalName: NameCheck): value is RuntimeStoreManifestEntry {
  return (
    isRecord(value) &&
    isLegalName(value.schemaName) &&
    isIntegerFrom(1, value.schemaVersion) &&
    isText(value.relativePath) &&
    isStringOrNull(value.contentHash) &&
    (value.fileSize === null || Number.isFinite(value.fileSize)) &&
    (value.mtimeMs === null || Number.isFinite(value.mtimeMs)) &&
    hasIdentity(value) &&
    isStringOrNull(value.lastWriteReceiptId) &&
    isMember(RUNTIME_STORE_ENTRY_STATES, value.state)
  );
}

function isBatch(value: unknown, isLegalName: NameCheck): value is RuntimeStoreWriteBatch {
  return (
    isRecord(value) &&
    isText(value.batchId) &&
    isText(value.teamName) &&
    hasIdentity(value) &&
    isMember(RUNTIME_STORE_BATCH_REASONS, value.reason) &&
    isText(value.startedAt) &&
    isStringOrNull(value.completedAt) &&
    isMember(RUNTIME_STORE_BATCH_STATES, value.state) &&
    Array.isArray(value.receipts) &&
    Array.from<unknown>(value.receipts).every((receipt) => isReceipt(receipt, isLegalName)) &&
    isStringOrNull(value.lastError)
  );
}

function isReceipt(value: unknown, isLegalName: NameCheck): value is RuntimeStoreWriteReceipt {
  return (
    isRecord(value) &&
    isText(value.receiptId) &&
    isText(value.batchId) &&
    isLegalName(value.schemaName) &&
    isText(value.teamName) &&
    hasIdentity(value) &&
    isIntegerFrom(1, value.schemaVersion) &&
    isText(value.relativePath) &&
    isText(value.contentHash) &&
    Number.isFinite(value.fileSize) &&
    Number.isFinite(value.mtimeMs) &&
    isText(value.writtenAt)
  );
}

function hasIdentity(value: Record<string, unknown>): boolean {
  return isStringOrNull(value.runId) && isStringOrNull(value.capabilitySnapshotId) && isStringOrNull(value.behaviorFingerprint);
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && !isBlank(value);
}

function isStringOrNull(value: unknown): value is string | null {
  return value === null || typeof value === 'string';
}

function isIntegerFrom(lowest: number, value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= lowest;
}

function isMember(legal: ReadonlySet<string>, value: unknown): boolean {
  return legal.has(value as string);
}

function invalidManifest(message: string): HoldfastError {
  return invalid(message, 'HF_RUNTIME_INVALID_MANIFEST');
}

function invalidReceipts(message: string): HoldfastError {
  return invalid(message, 'HF_RUNTIME_INVALID_RECEIPTS');
}

function invalid(message: string, hfCode: HoldfastErrorCode): HoldfastError {
  return new HoldfastError(message, { hfCode });
}
