/** Tells when another process, or this one, has committed a batch, so that nobody has to poll. */
import { readFileSync, watch as watchFolder, type FSWatcher } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';

import { checkFunction, checkFunctionOrUndefined, checkPlainObject, invalidArgument, isRecord } from '../check';
import { HoldfastError, VersionedJsonStoreError } from '../errors';
import { manifestFilePath } from './internals';
import type { RuntimeStoreManifestStore } from './manifest-store';
import type { RuntimeStoreManifest } from './types';

/** The manifest after a commit. */
export interface RuntimeStoreManifestChange {
  /** Batches applied so far. It falls back to 0 when the runtime directory was reset. */
  highWatermark: number;
  /** The batch that was committed last, or `null` if there is none. */
  batchId: string | null;
  /** The whole manifest. */
  manifest: RuntimeStoreManifest;
}

/** Options of {@link watchRuntimeStoreManifest}. */
export interface RuntimeStoreManifestWatchOptions {
  /** Ends the watch when it aborts. */
  signal?: AbortSignal;
  /**
   * Called when the manifest cannot be read, with the error; the watch goes on. A bad content is reported once, an I/O error at
   * each retry. Default: nobody is told.
   */
  onError?: (error: unknown) => void;
}

/** A running watch with a callback. */
export interface RuntimeStoreManifestWatcher {
  /** Ends the watch. No callback comes after the call; the promise resolves when no file is read any more. Twice is harmless. */
  close(): Promise<void>;
  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A running watch to iterate over. It is for one reader, and is ended by `break`, `return()`, `close()` or its signal. */
export interface RuntimeStoreManifestChanges extends RuntimeStoreManifestWatcher, AsyncIterableIterator<RuntimeStoreManifestChange> {
  return(): Promise<IteratorResult<RuntimeStoreManifestChange, undefined>>;
}

/**
 * How often, in milliseconds, to look at the manifest's stamp without having been told to. It finds a folder that appears only
 * later, and commits on file systems that tell nobody about changes, such as network drives.
 */
const POLL_MS = 500;

/**
 * Watches a manifest for commits, of any process.
 *
 * The watch begins with the call: every commit that lands after it is reported, so that `watch`, then `read`, misses nothing.
 * Only changes of `highWatermark` or `lastCommittedBatchId` are reported. Commits in quick succession may come as one, with the
 * newest manifest; so may those that come while an iterating reader is busy.
 *
 * The folder need not exist yet. While the manifest cannot be read, nothing is reported and it is tried again. A manifest that
 * was deleted reads as the default one, watermark 0. Closing the manifest store ends the watch at its next look. The watch never
 * keeps Node alive by itself. What a callback throws becomes an uncaught exception, as in an `EventEmitter` of Node.
 *
 * @param manifestStore the manifest to watch
 * @param options signal and `onError`
 * @returns the changes, to iterate over; aborting the signal ends the iteration without an error
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 *
 * @example
 * ```ts
 * for await (const { highWatermark, batchId } of watchRuntimeStoreManifest(manifestStore, { signal })) show(highWatermark, batchId);
 * ```
 */
export function watchRuntimeStoreManifest(
  manifestStore: RuntimeStoreManifestStore,
  options?: RuntimeStoreManifestWatchOptions,
): RuntimeStoreManifestChanges;
/**
 * Watches a manifest for commits, and calls `listener` for each change; see the other form for what is reported.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export function watchRuntimeStoreManifest(
  manifestStore: RuntimeStoreManifestStore,
  listener: (change: RuntimeStoreManifestChange) => void,
  options?: RuntimeStoreManifestWatchOptions,
): RuntimeStoreManifestWatcher;
export function watchRuntimeStoreManifest(
  manifestStore: RuntimeStoreManifestStore,
  first: RuntimeStoreManifestWatchOptions | ((change: RuntimeStoreManifestChange) => void) = {},
  second: RuntimeStoreManifestWatchOptions = {},
): RuntimeStoreManifestChanges | RuntimeStoreManifestWatcher {
  checkFunction(checkPlainObject(manifestStore, 'manifestStore').read, 'manifestStore.read');
  if (typeof first === 'function') return new ManifestWatch(manifestStore, first, checkedOptions(second));
  return new ManifestChanges(manifestStore, checkedOptions(first));
}

function checkedOptions(options: RuntimeStoreManifestWatchOptions): RuntimeStoreManifestWatchOptions {
  const { signal, onError } = checkPlainObject(options, 'options');
  // Not instanceof: an AbortSignal of another realm, or of a polyfill, will do.
  if (signal !== undefined && typeof signal?.addEventListener !== 'function') {
    throw invalidArgument('signal', 'an AbortSignal or undefined', signal);
  }
  checkFunctionOrUndefined(onError, 'onError');
  return options;
}

/** What tells one commit from the next. */
interface Mark {
  highWatermark: number;
  batchId: string | null;
}

class ManifestWatch implements RuntimeStoreManifestWatcher {
  private readonly filePath: string;
  private readonly timer: NodeJS.Timeout;
  private watcher: FSWatcher | null = null;
  /** The folder that `watcher` watches: a folder that was deleted and made again has another stamp. */
  private watchedFolder: string | null = null;
  /** The stamp of the manifest that was read last. */
  private readStamp: string | null = null;
  /** What was reported last; `null` as long as no manifest could be read. */
  private mark: Mark | null;
  private working: Promise<void> | null = null;
  private again: 'no' | 'if-changed' | 'surely' = 'no';
  private closed = false;

  constructor(
    private readonly store: RuntimeStoreManifestStore,
    private readonly listener: (change: RuntimeStoreManifestChange) => void,
    private readonly options: RuntimeStoreManifestWatchOptions,
    private readonly onClose: () => void = () => {},
  ) {
    this.filePath = resolve(manifestFilePath(store));
    this.mark = readMarkNow(this.filePath);
    this.timer = setInterval(() => this.look('if-changed'), POLL_MS);
    this.timer.unref();
    options.signal?.addEventListener('abort', this.abort, { once: true });
    if (options.signal?.aborted) this.abort();
    else this.look('surely');
  }

  async close(): Promise<void> {
    if (!this.closed) {
      this.closed = true;
      clearInterval(this.timer);
      this.options.signal?.removeEventListener('abort', this.abort);
      this.closeWatcher();
      this.onClose();
    }
    await this.working;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private readonly abort = (): void => {
    void this.close();
  };

  /** Looks at the manifest now. */
  refresh(): void {
    this.look('surely');
  }

  /** Looks now, or once more after the look that is under way: any number of events in between come to one read. */
  private look(how: 'if-changed' | 'surely'): void {
    if (this.closed) return;
    if (this.again !== 'surely') this.again = how;
    this.working ??= this.work();
  }

  private async work(): Promise<void> {
    while (this.again !== 'no' && !this.closed) {
      // Events say "surely": within one tick of the file system's clock a replaced file can have the stamp of its forerunner.
      const surely = this.again === 'surely';
      this.again = 'no';
      const isNewWatcher = await this.keepWatcher();
      await this.check(surely || isNewWatcher);
    }
    // In the same turn as the last look at `again`, so that no call of look() falls in between.
    this.working = null;
  }

  /** Makes sure that the folder of that name is the one being watched, if there is one. Tells whether it began to watch it. */
  private async keepWatcher(): Promise<boolean> {
    const folder = dirname(this.filePath);
    const found = await stampOf(folder, 'folder').catch(() => null);
    if (this.closed || (this.watcher && found === this.watchedFolder)) return false;
    this.closeWatcher();
    if (found === null) return false;
    try {
      const watcher = watchFolder(folder, { persistent: false }, (_event, name) => {
        if (name === null || isSameName(name, basename(this.filePath)) || isSameName(name, basename(folder))) this.look('surely');
      });
      // A folder that vanishes is an error on some platforms; the timer finds its successor.
      watcher.on('error', () => {
        if (this.watcher === watcher) this.closeWatcher();
      });
      this.watcher = watcher;
      this.watchedFolder = found;
      return true;
    } catch {
      // Gone again, or the system is out of watches: the timer goes on looking, and tries again.
      return false;
    }
  }

  private async check(surely: boolean): Promise<void> {
    let stamp: string | null = null;
    try {
      // The stamp is taken before the content: a change in between leaves an old stamp, and is looked at again.
      stamp = await stampOf(this.filePath, 'file');
      if (this.closed || (stamp === this.readStamp && !surely)) return;
      const manifest = await this.store.read();
      this.readStamp = stamp;
      if (!this.closed) this.report(manifest);
    } catch (error) {
      // A bad content stays bad until the file changes, and each read of it may leave a copy; anything else is worth a retry.
      const wasReported = stamp !== null && stamp === this.readStamp;
      this.readStamp = error instanceof VersionedJsonStoreError ? stamp : null;
      if (!this.closed && !wasReported) callOut(() => this.options.onError?.(error));
      if (error instanceof HoldfastError && error.hfCode === 'HF_CLOSED') this.abort();
    }
  }

  private report(manifest: RuntimeStoreManifest): void {
    const { highWatermark, lastCommittedBatchId: batchId } = manifest;
    const before = this.mark;
    this.mark = { highWatermark, batchId };
    if (before === null || (before.highWatermark === highWatermark && before.batchId === batchId)) return;
    callOut(() => this.listener({ highWatermark, batchId, manifest }));
  }

  private closeWatcher(): void {
    this.watcher?.close();
    this.watcher = null;
    this.watchedFolder = null;
  }
}

/** The iterable form: holds the newest change that nobody has taken yet, never more than one. */
class ManifestChanges implements RuntimeStoreManifestChanges {
  private readonly watch: ManifestWatch;
  private readonly waiting: ((result: IteratorResult<RuntimeStoreManifestChange, undefined>) => void)[] = [];
  private newest: RuntimeStoreManifestChange | null = null;
  private ended = false;

  constructor(store: RuntimeStoreManifestStore, options: RuntimeStoreManifestWatchOptions) {
    this.watch = new ManifestWatch(store, (change) => this.put(change), options, () => this.end());
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<RuntimeStoreManifestChange, undefined>> {
    const value = this.newest;
    this.newest = null;
    if (value) return { done: false, value };
    if (this.ended) return { done: true, value: undefined };
    const change = new Promise<IteratorResult<RuntimeStoreManifestChange, undefined>>((take) => this.waiting.push(take));
    // The watch itself does not keep Node alive, but this look does: what was committed before the call is never missed.
    this.watch.refresh();
    return change;
  }

  async return(): Promise<IteratorResult<RuntimeStoreManifestChange, undefined>> {
    await this.watch.close();
    return { done: true, value: undefined };
  }

  async throw(error: unknown): Promise<never> {
    await this.watch.close();
    throw error;
  }

  close(): Promise<void> {
    return this.watch.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.watch.close();
  }

  private put(change: RuntimeStoreManifestChange): void {
    const take = this.waiting.shift();
    if (take) take({ done: false, value: change });
    else this.newest = change;
  }

  private end(): void {
    this.ended = true;
    this.newest = null;
    for (const take of this.waiting.splice(0)) take({ done: true, value: undefined });
  }
}

/**
 * Reads where a manifest stands, at once: an asynchronous read could already see a commit that lands after the call, which would
 * then never be reported. `null` = it cannot be read; the first manifest that can be is then the one to start from.
 */
function readMarkNow(filePath: string): Mark | null {
  try {
    const file: unknown = JSON.parse(readFileSync(filePath, 'utf8'));
    // Some old manifests have no envelope.
    const manifest = isRecord(file) && isRecord(file.data) ? file.data : file;
    if (!isRecord(manifest) || typeof manifest.highWatermark !== 'number') return null;
    const batchId = manifest.lastCommittedBatchId;
    return { highWatermark: manifest.highWatermark, batchId: typeof batchId === 'string' ? batchId : null };
  } catch (error) {
    return isMissing(error) ? { highWatermark: 0, batchId: null } : null;
  }
}

/** Returns what changes when a file or folder is replaced, and, of a file, when it is written; of a missing file, `'missing'`. */
async function stampOf(path: string, what: 'file' | 'folder'): Promise<string> {
  try {
    const { dev, ino, birthtimeNs, size, mtimeNs } = await stat(path, { bigint: true });
    return (what === 'folder' ? [dev, ino, birthtimeNs] : [dev, ino, size, mtimeNs]).join(':');
  } catch (error) {
    if (what === 'file' && isMissing(error)) return 'missing';
    throw error;
  }
}

function isMissing(error: unknown): boolean {
  return isRecord(error) && error.code === 'ENOENT';
}

/** File systems differ in case and in Unicode form from what the caller wrote; a read too many does no harm. */
function isSameName(a: string, b: string): boolean {
  return a.normalize('NFC').toLowerCase() === b.normalize('NFC').toLowerCase();
}

/** Calls the user's function; what it throws must neither end the watch nor get lost. */
function callOut(call: () => void): void {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
