/** Writes several stores as one batch: all or nothing. */
import { resolve } from 'node:path';

import {
  checkArray,
  checkFunctionOrUndefined,
  checkNonEmptyString,
  checkOneOf,
  checkPath,
  checkPlainObject,
  checkPositiveInteger,
  checkStringOrNull,
  invalidArgument,
} from '../check';
import { breathe } from '../breathe';
import { HandleState } from '../handle-state';
import { call, callSync, native } from '../native';
import { defaultManifestText, newBatchId, newReceiptId, placeOf, RECEIPT_RETENTION, type EngineBatch, type EngineWrite } from './batch-input';
import { checkRuntimeStoreDescriptor, RUNTIME_STORE_BATCH_REASONS, RUNTIME_STORE_SCHEMA_NAMES } from './descriptors';
import { loadFaults, type RuntimeStoreFault } from './faults';
import { isoTime, partsOfManifest, partsOfReceipts, type ControlParts, type FaultRules, type Place } from './internals';
import { heldFiles, refuseNested, sidecarLockOf } from './locks';
import type { RuntimeStoreManifestStore } from './manifest-store';
import type { RuntimeStoreReceiptStore } from './receipt-store';
import type { RuntimeStoreDescriptor, RuntimeStoreIdentity, RuntimeStoreManifest, RuntimeStoreSchemaName, RuntimeStoreWriteBatch, RuntimeStoreWriteBatchReason } from './types';

/** Where a writer writes. */
export interface WriterParts {
  dir: string;
  manifest: string;
  receipts: string;
}

const writerParts = new WeakMap<object, WriterParts>();

/** Returns where a writer writes, or `undefined` for something else. */
export function partsOfWriter(writer: RuntimeStoreBatchWriter): WriterParts | undefined {
  return writerParts.get(writer);
}

/** Options of a {@link RuntimeStoreBatchWriter}. */
export interface RuntimeStoreBatchWriterOptions {
  /** Makes batch ids. Default: `opencode-store-batch-<uuid>`. */
  batchIdFactory?: () => string;
  /** Makes receipt ids. Default: `opencode-store-receipt-<uuid>`. */
  receiptIdFactory?: () => string;
  /** Default: the wall clock. */
  clock?: () => Date;
  /**
   * How many committed batches stay in the receipts file, besides those that own a manifest entry and those that never ended. The
   * rest moves to `.holdfast/receipts.archive.jsonl`. `'all'` keeps every one, and makes each batch cost more than the one before.
   * Default 16.
   */
  receiptRetention?: number | 'all';
  /**
   * `'full'` (default): bytes and names are on the disk when `writeBatch` resolves. `'process'`: nothing is synced; a batch survives
   * the process, and a power cut may lose or mix it. For tests.
   */
  durability?: 'full' | 'process';
  /** Largest store file that may be written, in bytes. Default: no limit. */
  maxFileBytes?: number;
  /** Faults to inject, for tests of one's own recovery. Default: none. */
  faults?: RuntimeStoreFault[];
}

/** What a batch writes. */
export interface RuntimeStoreBatchInput extends RuntimeStoreIdentity {
  /** The owner of the directory; must be the manifest's. */
  teamName: string;
  /** Why it is written. */
  reason: RuntimeStoreWriteBatchReason;
  /** Refuse unless this run is the active one. Default: do not ask. */
  expectedActiveRunId?: string | null;
  /** The stores with their data. Of two writes to one store the last is published. */
  writes: { descriptor: RuntimeStoreDescriptor; data: unknown }[];
}

/**
 * Writes batches into one runtime directory. Any number of writers, in any number of processes, may work on the same directory; their
 * batches follow one another.
 */
export class RuntimeStoreBatchWriter {
  readonly #dir: string;
  readonly #manifest: ControlParts<RuntimeStoreManifest>;
  readonly #receipts: ControlParts<unknown>;
  readonly #options: RuntimeStoreBatchWriterOptions;
  readonly #clock: () => Date;
  readonly #faults: FaultRules;
  readonly #lifecycle: HandleState;

  /** @throws HoldfastError `HF_INVALID_ARGUMENT` */
  constructor(
    teamRuntimeDirectory: string,
    manifestStore: RuntimeStoreManifestStore,
    receiptStore: RuntimeStoreReceiptStore,
    options: RuntimeStoreBatchWriterOptions = {},
  ) {
    this.#dir = resolve(checkPath(teamRuntimeDirectory, 'teamRuntimeDirectory'));
    this.#manifest = partsOfManifest(manifestStore);
    this.#receipts = partsOfReceipts(receiptStore, this.#manifest);
    checkPlainObject(options, 'options');
    checkFunctionOrUndefined(options.batchIdFactory, 'options.batchIdFactory');
    checkFunctionOrUndefined(options.receiptIdFactory, 'options.receiptIdFactory');
    this.#clock = checkFunctionOrUndefined(options.clock, 'options.clock') ?? (() => new Date());
    if (options.receiptRetention !== undefined && options.receiptRetention !== 'all') checkPositiveInteger(options.receiptRetention, 'options.receiptRetention');
    if (options.durability !== undefined) checkOneOf(options.durability, 'options.durability', ['full', 'process']);
    if (options.maxFileBytes !== undefined) checkPositiveInteger(options.maxFileBytes, 'options.maxFileBytes');
    this.#faults = loadFaults(options.faults, 'options.faults');
    this.#options = { ...options };
    this.#lifecycle = new HandleState(`the batch writer of ${this.#dir}`);
    writerParts.set(this, { dir: this.#dir, manifest: this.#manifest.store.filePath, receipts: this.#receipts.store.filePath });
  }

  /**
   * Writes the stores, their receipts and the manifest: all of it or nothing, also when the process is killed or the power fails.
   *
   * Ids, clocks and `JSON.stringify` run first, before any lock, in the order: batch id, start, per write its time and receipt id, end.
   *
   * @returns The committed batch, when all of it is on the disk.
   * @throws What a callback or `JSON.stringify` throws (nothing happened); RuntimeStorePathError; HoldfastError
   * `HF_RUNTIME_TEAM_MISMATCH`, `HF_RUNTIME_BATCH_STALE`, `HF_RUNTIME_BATCH_EXISTS`, `HF_RUNTIME_FILE_TOO_LARGE`, `HF_LOCK_TIMEOUT`,
   * `HF_RUNTIME_LOCK_LOST`, `HF_POISONED`, `HF_CLOSED`, or Node's `code` for I/O errors (the directory is as before);
   * VersionedJsonStoreError for an unreadable manifest or receipts file; RuntimeStoreBatchPendingError when the batch passed its
   * commit point and this process could neither finish nor undo it: the next batch or `recover()` does.
   */
  writeBatch(input: RuntimeStoreBatchInput): Promise<RuntimeStoreWriteBatch> {
    return this.#lifecycle.write(async () => {
      const writes = this.#check(input);
      refuseNested(sidecarLockOf(this.#manifest.store.filePath));
      const { batch, data, large } = this.#ask(input, writes);
      await breathe(large);
      const place: Place = { ...this.#place(writes), held: heldFiles() };
      return JSON.parse(await call(native.writeBatch(JSON.stringify(place), JSON.stringify(batch), data, undefined, this.#faults))) as RuntimeStoreWriteBatch;
    });
  }

  #place(writes: readonly { descriptor: RuntimeStoreDescriptor }[]): Place {
    const descriptors = writes.map((write) => write.descriptor);
    return placeOf(this.#dir, this.#manifest, this.#receipts, this.#options.durability === 'process', descriptors);
  }

  /** Checks everything that the caller gave, before any callback. */
  #check(input: RuntimeStoreBatchInput): { descriptor: RuntimeStoreDescriptor; data: unknown }[] {
    checkPlainObject(input, 'input');
    checkNonEmptyString(input.teamName, 'input.teamName');
    checkOneOf(input.reason, 'input.reason', RUNTIME_STORE_BATCH_REASONS);
    checkStringOrNull(input.runId, 'input.runId');
    checkStringOrNull(input.capabilitySnapshotId, 'input.capabilitySnapshotId');
    checkStringOrNull(input.behaviorFingerprint, 'input.behaviorFingerprint');
    if (input.expectedActiveRunId !== undefined) checkStringOrNull(input.expectedActiveRunId, 'input.expectedActiveRunId');
    const writes = Array.from(checkArray(input.writes, 'input.writes'), (write, index) => {
      checkPlainObject(write, `input.writes[${index}]`);
      return { descriptor: checkRuntimeStoreDescriptor(write.descriptor, `input.writes[${index}].descriptor`), data: write.data };
    });
    for (const [index, { descriptor }] of writes.entries()) this.#checkName(descriptor.schemaName, `input.writes[${index}].descriptor.schemaName`);
    const control = [this.#manifest.store.filePath, this.#receipts.store.filePath];
    const relative = writes.map((write) => write.descriptor.relativePath);
    callSync(() => native.checkPaths(this.#dir, control, relative));
    return writes;
  }

  /** Refuses a name that the manifest or the receipts would not be readable with. */
  #checkName(name: RuntimeStoreSchemaName, argument: string): void {
    const builtIn = (RUNTIME_STORE_SCHEMA_NAMES as ReadonlySet<string>).has(name);
    if (builtIn || (this.#manifest.extraNames.includes(name) && this.#receipts.extraNames.includes(name))) return;
    const expected = 'a built-in schema name, or one whose descriptor was given to the manifest store and to the receipt store (option descriptors)';
    throw invalidArgument(argument, expected, name);
  }

  /** Asks every callback, in the order of the protocol. */
  #ask(input: RuntimeStoreBatchInput, writes: { descriptor: RuntimeStoreDescriptor; data: unknown }[]): { batch: EngineBatch; data: (string | undefined)[]; large: number } {
    const options = this.#options;
    const batchId = checkNonEmptyString(options.batchIdFactory === undefined ? newBatchId() : options.batchIdFactory(), 'batchIdFactory()');
    const startedAt = isoTime(this.#clock, 'clock');
    const data: (string | undefined)[] = [];
    let large = 0;
    const engineWrites = writes.map((write): EngineWrite => {
      const writtenAt = isoTime(this.#clock, 'clock');
      const text = JSON.stringify(write.data) as string | undefined;
      large += text?.length ?? 0;
      data.push(text);
      const receiptId = checkNonEmptyString(options.receiptIdFactory === undefined ? newReceiptId() : options.receiptIdFactory(), 'receiptIdFactory()');
      const { schemaName, schemaVersion, relativePath } = write.descriptor;
      return { schemaName, schemaVersion, relativePath, writtenAt, receiptId };
    });
    const completedAt = isoTime(this.#clock, 'clock');
    const recordedAt = isoTime(this.#receipts.clock, 'clock');
    const receiptsUpdatedAt = isoTime(this.#receipts.store.clock, 'clock');
    const manifestUpdatedAt = isoTime(this.#manifest.clock, 'clock');
    const manifestEnvelopeUpdatedAt = isoTime(this.#manifest.store.clock, 'clock');
    const { teamName, runId, capabilitySnapshotId, behaviorFingerprint, reason, expectedActiveRunId } = input;
    const batch: EngineBatch = {
      batchId,
      teamName,
      runId,
      capabilitySnapshotId,
      behaviorFingerprint,
      reason,
      startedAt,
      completedAt,
      recordedAt,
      receiptsUpdatedAt,
      manifestUpdatedAt,
      manifestEnvelopeUpdatedAt,
      defaultManifest: defaultManifestText(this.#manifest),
      expectedActiveRunId: expectedActiveRunId === undefined ? undefined : [expectedActiveRunId],
      retention: options.receiptRetention === 'all' ? null : (options.receiptRetention ?? RECEIPT_RETENTION),
      maxFileBytes: options.maxFileBytes,
      writes: engineWrites,
    };
    return { batch, data, large };
  }

  /** Waits for batches in flight; later calls reject with `HF_CLOSED`. Twice is harmless. */
  close(): Promise<void> {
    return this.#lifecycle.close();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
