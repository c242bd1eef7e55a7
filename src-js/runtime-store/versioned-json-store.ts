/** One JSON file with a version, read without a lock and changed under one. */
import { dirname, resolve } from 'node:path';

import { checkFunction, checkFunctionOrUndefined, checkOneOf, checkPath, checkPlainObject, checkPositiveInteger } from '../check';
import { breathe } from '../breathe';
import { VersionedJsonStoreError } from '../errors';
import { HandleState } from '../handle-state';
import { call, native } from '../native';
import { bindStore, type BoundStore, type RuntimeStoreBinding } from './bound-store';
import { openEnvelope } from './envelope';
import { loadFaults, type RuntimeStoreFault } from './faults';
import { copyTargetOf, isoTime, registerStore, type FaultRules } from './internals';
import { checkLockOptions, holding, refuseNested } from './locks';
import type { FileLockOptions, VersionedJsonStoreEnvelope, VersionedJsonStoreReadResult, VersionedJsonStoreUpdateResult } from './types';

/** Options of a {@link VersionedJsonStore}. */
export interface VersionedJsonStoreOptions<T> {
  /** The file. Missing folders are made by the first write. */
  filePath: string;
  /** The highest version that is understood, and the one that is written; an integer of 1 or more. */
  schemaVersion: number;
  /** Makes the data that stands for a missing file. */
  defaultData: () => T;
  /** Returns the data, normalised if it likes, or throws to reject it. Gets data of older versions, too. */
  validate: (value: unknown) => T;
  /** Gives the time for `updatedAt` and for names of quarantine files. Default: the wall clock. */
  clock?: () => Date;
  /** Where copies of bad files go. Default: the folder of `filePath`. */
  quarantineDir?: string;
  /** How the lock of the file is taken. Defaults: 5000, 30000 and 20 ms. */
  lockOptions?: FileLockOptions;
  /**
   * `'full'` (default): bytes and name are on the disk when an update resolves. `'process'`: nothing is synced; an update survives
   * the process, and may be lost (never torn) in a power cut. For tests.
   */
  durability?: 'full' | 'process';
  /** Largest file that may be written, in bytes. Default: no limit. */
  maxFileBytes?: number;
  /** Makes updates commit through a runtime store, so that they leave receipts. Default: none. */
  manifest?: RuntimeStoreBinding;
  /** Faults to inject, for tests of one's own recovery. Default: none. */
  faults?: RuntimeStoreFault[];
}

/** What stands in the file, checked. */
type Loaded<T> = { data: T; envelope: VersionedJsonStoreEnvelope<T> | null };

/**
 * A JSON file in an envelope `{ schemaVersion, updatedAt, data }`.
 *
 * Reading takes no lock and never throws for bad content: it says what is wrong, and copies the bad bytes to a quarantine file.
 * Updating holds a lock that other processes honour, and replaces the file whole.
 */
export class VersionedJsonStore<T> {
  readonly #options: VersionedJsonStoreOptions<T>;
  readonly #filePath: string;
  readonly #lock: FileLockOptions;
  readonly #clock: () => Date;
  readonly #faults: FaultRules;
  readonly #lifecycle: HandleState;
  readonly #bound: BoundStore | undefined;

  /** @throws HoldfastError `HF_INVALID_ARGUMENT` */
  constructor(options: VersionedJsonStoreOptions<T>) {
    checkPlainObject(options, 'options');
    this.#filePath = resolve(checkPath(options.filePath, 'options.filePath'));
    checkPositiveInteger(options.schemaVersion, 'options.schemaVersion');
    checkFunction(options.defaultData, 'options.defaultData');
    checkFunction(options.validate, 'options.validate');
    this.#clock = checkFunctionOrUndefined(options.clock, 'options.clock') ?? (() => new Date());
    if (options.quarantineDir !== undefined) checkPath(options.quarantineDir, 'options.quarantineDir');
    if (options.maxFileBytes !== undefined) checkPositiveInteger(options.maxFileBytes, 'options.maxFileBytes');
    if (options.durability !== undefined) checkOneOf(options.durability, 'options.durability', ['full', 'process']);
    this.#lock = checkLockOptions(options.lockOptions, 'options.lockOptions');
    this.#faults = loadFaults(options.faults, 'options.faults');
    this.#options = { ...options };
    this.#lifecycle = new HandleState(`the store ${this.#filePath}`);
    this.#bound = options.manifest === undefined ? undefined : bindStore(options.manifest, this.#filePath, this.#options, this.#faults);
    registerStore(this, { filePath: this.#filePath, lockOptions: this.#lock, clock: this.#clock, defaultData: options.defaultData });
  }

  /**
   * Reads the file. A missing file gives `validate(defaultData())` and is not created; bad content gives `{ ok: false }` with the
   * path of its quarantine copy.
   *
   * @throws HoldfastError with Node's `code` for I/O errors other than a missing file; what `defaultData` or, for a missing file,
   * `validate` throws; `HF_CLOSED`.
   */
  read(): Promise<VersionedJsonStoreReadResult<T>> {
    return this.#lifecycle.read(async () => {
      const text = (await call(native.readText(this.#filePath))) ?? null;
      try {
        const { data, envelope } = await this.#load(text);
        return { ok: true, status: envelope === null ? 'missing' : 'loaded', data, envelope };
      } catch (error) {
        if (!(error instanceof BadFile)) throw error;
        const { reason, message } = error;
        return { ok: false, reason, message, quarantinePath: await this.#quarantine(reason) };
      }
    });
  }

  /**
   * Changes the data under the lock of the file: reads, calls `updater` with a deep copy that it may change, validates what comes
   * back, and writes it unless it equals the old data as JSON. The lock is held while `updater` runs, however long it takes.
   *
   * @param updater Returns the new data. What it throws or rejects with arrives here unchanged, and nothing is written.
   * @throws VersionedJsonStoreError when the file has bad content, which is never overwritten; what `updater`, `validate` or
   * `defaultData` throw; HoldfastError `HF_LOCK_TIMEOUT`, `HF_RUNTIME_LOCK_LOST`, `HF_RUNTIME_FILE_TOO_LARGE`, `HF_POISONED`,
   * `HF_CLOSED`, or Node's `code` for I/O errors.
   */
  updateLocked(updater: (current: T) => T | Promise<T>): Promise<VersionedJsonStoreUpdateResult<T>> {
    return this.#lifecycle.write(async () => {
      checkFunction(updater, 'updater');
      refuseNested(this.#filePath);
      return this.#bound === undefined ? this.#updateFile(updater) : this.#updateBound(this.#bound, updater);
    });
  }

  async #updateFile(updater: (current: T) => T | Promise<T>): Promise<VersionedJsonStoreUpdateResult<T>> {
    const [turn, text] = await call(native.takeTurn(this.#filePath, JSON.stringify(this.#lock), this.#faults));
    let taken = true;
    try {
      const result = await this.#change(text, updater, [this.#filePath], async (updatedAt, data) => {
        const { schemaVersion, maxFileBytes, durability } = this.#options;
        const order = { schemaVersion, updatedAt, maxFileBytes, processOnly: durability === 'process', copyTo: copyTargetOf(this) };
        taken = false;
        await call(native.writeTurn(turn, JSON.stringify(order), data, this.#faults));
      });
      if (!taken) return result;
      taken = false;
      await call(native.keepTurn(turn));
      return result;
    } finally {
      if (taken) native.dropTurn(turn);
    }
  }

  async #updateBound(bound: BoundStore, updater: (current: T) => T | Promise<T>): Promise<VersionedJsonStoreUpdateResult<T>> {
    const locks = await bound.lock();
    try {
      const text = (await call(native.readText(this.#filePath))) ?? null;
      return await this.#change(text, updater, locks.files, (updatedAt, data) => locks.commit(updatedAt, data));
    } finally {
      locks.release();
    }
  }

  /** Sequences the caller's functions around the write. */
  async #change(
    text: string | null,
    updater: (current: T) => T | Promise<T>,
    files: string[],
    write: (updatedAt: string, data: string | undefined) => Promise<void>,
  ): Promise<VersionedJsonStoreUpdateResult<T>> {
    const { schemaVersion, validate } = this.#options;
    const { data: current, envelope } = await this.#loadOrThrow(text);
    const currentText = JSON.stringify(current) as string | undefined;
    await breathe(currentText?.length ?? 0);
    const copy = (currentText === undefined ? undefined : JSON.parse(currentText)) as T;
    const next = validate.call(this.#options, await holding(files, () => updater(copy)));
    await breathe(currentText?.length ?? 0);
    const nextText = JSON.stringify(next) as string | undefined;
    if (envelope !== null && (await sameJson(currentText, nextText))) {
      return { changed: false, data: current, envelope: { schemaVersion, updatedAt: envelope.updatedAt, data: current } };
    }
    const updatedAt = isoTime(this.#clock, 'clock');
    await write(updatedAt, nextText);
    return { changed: true, data: next, envelope: { schemaVersion, updatedAt, data: next } };
  }

  async #loadOrThrow(text: string | null): Promise<Loaded<T>> {
    try {
      return await this.#load(text);
    } catch (error) {
      if (!(error instanceof BadFile)) throw error;
      throw new VersionedJsonStoreError(error.message, error.reason, await this.#quarantine(error.reason));
    }
  }

  async #load(text: string | null): Promise<Loaded<T>> {
    const { schemaVersion, validate, defaultData } = this.#options;
    if (text === null) return { data: validate.call(this.#options, defaultData.call(this.#options)), envelope: null };
    const opened = openEnvelope(text, this.#filePath, schemaVersion);
    await breathe(text.length);
    if (!opened.ok) throw new BadFile(opened.reason, opened.message);
    let data: T;
    try {
      data = validate.call(this.#options, opened.data);
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      throw new BadFile('invalid_data', `Invalid data in versioned store ${this.#filePath}: ${detail}`);
    }
    return { data, envelope: { schemaVersion: opened.schemaVersion, updatedAt: opened.updatedAt, data } };
  }

  async #quarantine(reason: string): Promise<string | null> {
    const folder = resolve(this.#options.quarantineDir ?? dirname(this.#filePath));
    return (await call(native.quarantineCopy(this.#filePath, reason, isoTime(this.#clock, 'clock'), folder))) ?? null;
  }

  /** Waits for calls in flight; later calls reject with `HF_CLOSED`. Twice is harmless. */
  close(): Promise<void> {
    return this.#lifecycle.close();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Carries a finding through the validator's own errors. Never leaves this file. */
class BadFile {
  constructor(
    readonly reason: VersionedJsonStoreError['reason'],
    readonly message: string,
  ) {}
}

/** Compares what would be written with what is there, as JSON. */
async function sameJson(a: string | undefined, b: string | undefined): Promise<boolean> {
  if (a === b) return true;
  if (a === undefined || b === undefined) return false;
  return a.length + b.length < 64 * 1024 ? native.jsonEqualSync(a, b) : call(native.jsonEqual(a, b));
}
