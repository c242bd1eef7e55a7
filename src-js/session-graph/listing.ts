/** Which sessions are in a folder. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError } from '../errors';
import { bad, checkCount, checkSignal } from './arguments';
import { question } from './base-store';
import { asGraphError } from './errors';
import { SessionGraphStore } from './store';
import type { SessionListing } from './upkeep-types';

/** As the factory names files: something readable, and the beginning of a hash. */
const NAME = /^[A-Za-z0-9_-]{1,80}-[0-9a-f]{16}\.db$/;

/** Reads the descriptions of all sessions in `root`. */
export async function listingOf(root: string, opts: { concurrency?: number; signal?: AbortSignal }): Promise<SessionListing[]> {
  const { concurrency = 8 } = opts;
  const signal = checkSignal(opts.signal, 'opts.signal');
  if (checkCount(concurrency, 'opts.concurrency') === 0) throw bad('opts.concurrency', 'a safe integer of 1 or more', concurrency);
  signal?.throwIfAborted();
  const names = await readdir(root).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return [];
    const { code = 'EIO', message } = cause;
    throw asGraphError(new HoldfastError(message, { hfCode: 'HF_IO', code, cause, fields: { syscall: 'readdir', path: root } }));
  });
  const waiting = names.filter((name) => NAME.test(name));
  const found: SessionListing[] = [];
  const work = async (): Promise<void> => {
    for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
      signal?.throwIfAborted();
      const listing = await read(join(root, name));
      if (listing !== null) found.push(listing);
    }
  };
  const workers = Array.from({ length: Math.min(concurrency, waiting.length) }, async () => {
    try {
      await work();
    } catch (error) {
      // The others take nothing more.
      waiting.length = 0;
      throw error;
    }
  });
  // When this rejects no file is open any more.
  const failed = (await Promise.allSettled(workers)).find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  signal?.throwIfAborted();
  return found.sort((a, b) => b.modifiedAtMs - a.modifiedAtMs || (a.path < b.path ? -1 : 1));
}

/** `null` for what is no session, or is gone by now. */
async function read(path: string): Promise<SessionListing | null> {
  const [file, log] = await Promise.all([stat(path).catch(() => null), stat(`${path}-wal`).catch(() => null)]);
  if (file === null || !file.isFile()) return null;
  const sizes = { path, bytes: file.size + (log?.size ?? 0), modifiedAtMs: Math.max(file.mtimeMs, log?.mtimeMs ?? 0) };
  try {
    const store = await SessionGraphStore.peek(path);
    try {
      const [meta, { headRevision }] = [await store.loadSessionMeta(), await question<{ headRevision: number }>(store, { do: 'pulse' })];
      return { ...sizes, meta, headRevision };
    } finally {
      await store.close();
    }
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    if (error.hfCode === 'HF_GRAPH_STORE_NOT_FOUND' || (error as { reason?: unknown }).reason === 'foreign') return null;
    return { ...sizes, meta: null, headRevision: 0, problem: { code: error.hfCode, message: error.message } };
  }
}
