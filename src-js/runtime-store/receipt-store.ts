/** The receipts of a runtime directory: which batch wrote what. */
import { checkFunctionOrUndefined, checkNonEmptyString, checkPlainObject, checkString } from '../check';
import { HoldfastError } from '../errors';
import { checkSchemaNames, OPENCODE_RUNTIME_STORE_RECEIPT_SCHEMA_VERSION, schemaNamesOf } from './descriptors';
import { isoTime, partsOfStore, registerReceipts } from './internals';
import { readStoreData } from './store-data';
import type { FileLockOptions, RuntimeStoreDescriptor, RuntimeStoreWriteBatch } from './types';
import { validateRuntimeStoreWriteBatches } from './validators';
import { VersionedJsonStore } from './versioned-json-store';

/** Options of {@link createRuntimeStoreReceiptStore}. */
export interface RuntimeStoreReceiptStoreOptions {
  /** The receipts file. */
  filePath: string;
  /** Default: the wall clock. */
  clock?: () => Date;
  /** How its lock is taken. Defaults: 5000, 30000 and 20 ms. */
  lockOptions?: FileLockOptions;
  /** Descriptors with own schema names, which receipts may then hold. Default: none. */
  descriptors?: readonly RuntimeStoreDescriptor[];
  /** `'process'` turns syncing off, for tests. Default `'full'`. */
  durability?: 'full' | 'process';
}

/**
 * Opens the receipts of a runtime directory. Nothing is created before the first write.
 *
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export function createRuntimeStoreReceiptStore(o: RuntimeStoreReceiptStoreOptions): RuntimeStoreReceiptStore {
  checkPlainObject(o, 'options');
  const allowedSchemaNames = schemaNamesOf(o.descriptors, 'options.descriptors');
  const store = new VersionedJsonStore<RuntimeStoreWriteBatch[]>({
    filePath: o.filePath,
    schemaVersion: OPENCODE_RUNTIME_STORE_RECEIPT_SCHEMA_VERSION,
    defaultData: () => [],
    validate: (value) => validateRuntimeStoreWriteBatches(value, { allowedSchemaNames }),
    clock: o.clock,
    lockOptions: o.lockOptions,
    durability: o.durability,
  });
  return new RuntimeStoreReceiptStore(store, o.clock, allowedSchemaNames);
}

/** Reads and changes receipts. Batches write them by themselves; see `RuntimeStoreBatchWriter`. */
export class RuntimeStoreReceiptStore {
  readonly #store: VersionedJsonStore<RuntimeStoreWriteBatch[]>;
  readonly #clock: () => Date;

  /**
   * @param store The file.
   * @param clock Gives `completedAt`. Default: the wall clock.
   * @param schemaNames Own schema names that receipts may have. Default: none.
   */
  constructor(store: VersionedJsonStore<RuntimeStoreWriteBatch[]>, clock?: () => Date, schemaNames: readonly string[] = []) {
    const parts = partsOfStore<RuntimeStoreWriteBatch[]>(store, 'store');
    this.#store = store;
    this.#clock = checkFunctionOrUndefined(clock, 'clock') ?? (() => new Date());
    registerReceipts(this, { store: parts, clock: this.#clock, extraNames: checkSchemaNames(schemaNames, 'schemaNames') });
  }

  /** Appends a batch. @throws HoldfastError `HF_RUNTIME_BATCH_EXISTS` */
  async begin(batch: RuntimeStoreWriteBatch): Promise<void> {
    const batchId = checkNonEmptyString(checkPlainObject(batch, 'batch').batchId, 'batch.batchId');
    await this.#store.updateLocked((batches) => {
      if (batches.some((existing) => existing.batchId === batchId)) {
        throw new HoldfastError(`Runtime store batch already exists: ${batchId}`, { hfCode: 'HF_RUNTIME_BATCH_EXISTS', fields: { batchId } });
      }
      return [...batches, batch];
    });
  }

  /** Marks a batch as committed. @throws HoldfastError `HF_RUNTIME_BATCH_NOT_FOUND` */
  async commit(batch: RuntimeStoreWriteBatch): Promise<void> {
    await this.#finish(batch, 'committed', null);
  }

  /** Marks a batch as failed, with the error's message. @throws HoldfastError `HF_RUNTIME_BATCH_NOT_FOUND` */
  async fail(batch: RuntimeStoreWriteBatch, error: unknown): Promise<void> {
    await this.#finish(batch, 'failed', error instanceof Error ? error.message : String(error));
  }

  async #finish(batch: RuntimeStoreWriteBatch, state: 'committed' | 'failed', lastError: string | null): Promise<void> {
    const batchId = checkNonEmptyString(checkPlainObject(batch, 'batch').batchId, 'batch.batchId');
    let found = false;
    await this.#store.updateLocked((batches) =>
      batches.map((existing) => {
        if (existing.batchId !== batchId) return existing;
        found = true;
        return { ...batch, state, completedAt: isoTime(this.#clock, 'clock'), lastError };
      }),
    );
    // After the update: the original creates an empty file here, and callers may rely on it.
    if (!found) throw new HoldfastError(`Runtime store batch not found: ${batchId}`, { hfCode: 'HF_RUNTIME_BATCH_NOT_FOUND', fields: { batchId } });
  }

  /** Returns the batches, oldest first. Old committed ones are moved to an archive; see `receiptRetention` of the writer. */
  async list(): Promise<RuntimeStoreWriteBatch[]> {
    return readStoreData(this.#store);
  }

  /** Returns the team's batches that are not committed, oldest first. */
  async listUncommitted(teamName: string): Promise<RuntimeStoreWriteBatch[]> {
    checkString(teamName, 'teamName');
    return (await this.list()).filter((batch) => batch.state !== 'committed' && batch.teamName === teamName);
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
