/** `SessionGraphStoreFactory`: one file per session in one folder. */
import { mkdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { checkPath } from '../check';
import { HoldfastError } from '../errors';
import { checkId, checkObject, checkText } from './arguments';
import { asGraphError } from './errors';
import { fileNameOf } from './native-store';
import { configOf } from './options';
import { listingOf } from './listing';
import { SessionGraphStore } from './store';
import type { SessionGraphStoreOptions } from './store-types';
import type { SessionListing } from './upkeep-types';
import type { JsonValue } from './value-types';

/** Makes, finds and removes the files of sessions. */
export class SessionGraphStoreFactory {
  readonly #root: string;
  readonly #options: SessionGraphStoreOptions;

  /**
   * @param root The folder; made with the first store.
   * @param options What every store is opened with.
   */
  constructor(root: string, options: SessionGraphStoreOptions = {}) {
    try {
      this.#root = resolve(checkPath(root, 'root'));
    } catch (error) {
      throw asGraphError(error);
    }
    configOf('file', this.#root, options);
    this.#options = { ...options };
  }

  /** Where the file of a session is: always in `root`, whatever the id. */
  pathForSession(sessionId: string): string {
    return join(this.#root, fileNameOf(checkId(sessionId, 'sessionId')));
  }

  /**
   * Opens the store of a session, and makes it when it is missing, with a description (name = id) that later calls leave alone.
   *
   * @throws As `SessionGraphStore.open`.
   */
  async createStore(req: { sessionId: string; model?: string; relation?: JsonValue }): Promise<SessionGraphStore> {
    checkObject(req, 'req');
    const { sessionId, model = '', relation } = req;
    const path = this.pathForSession(sessionId);
    checkText(model, 'req.model');
    await mkdir(this.#root, { recursive: true }).catch((error: unknown) => refused(error, 'mkdir', this.#root));
    const store = await SessionGraphStore.open(path, this.#options);
    try {
      const meta = { sessionId, sessionName: sessionId, createdAt: new Date().toISOString(), model, cwd: process.cwd() };
      await SessionGraphStore.saveFirstMeta(store, relation === undefined ? meta : { ...meta, relation });
    } catch (error) {
      await store.close().catch(() => {});
      throw error;
    }
    return store;
  }

  /**
   * The sessions of the folder, newest first, without loading them: each file is opened for reading, asked for its description and closed.
   * Files that are none of ours are left out; one that cannot be read is listed with its `problem`. No folder is no sessions.
   *
   * @param opts How many files are read at the same time, default 8; an abort of `signal` rejects with its reason.
   */
  async listSessions(opts: { concurrency?: number; signal?: AbortSignal } = {}): Promise<SessionListing[]> {
    return listingOf(this.#root, checkObject(opts, 'opts'));
  }

  /** Removes the file of a session and what SQLite keeps beside it; none is fine. Close its stores first. */
  async deleteSession(sessionId: string): Promise<void> {
    const path = this.pathForSession(sessionId);
    // The log first: one that outlived its file would be taken for the next one's.
    for (const name of [`${path}-wal`, `${path}-shm`, `${path}-turn`, path]) {
      await rm(name, { force: true }).catch((error: unknown) => refused(error, 'rm', name));
    }
  }
}

function refused(cause: unknown, syscall: string, path: string): never {
  const { code = 'EIO', message } = cause as NodeJS.ErrnoException;
  throw asGraphError(new HoldfastError(message, { hfCode: 'HF_IO', code, cause, fields: { syscall, path } }));
}
