/** Moving blobs from one store to another. */
import { checkNonEmptyString } from '../check';
import { checkInput, checkLogger, checkMethods, checkSwitch } from './arguments';
import { blobSha256 } from './blobs';
import { messageOf, quietLogger, survive } from './support';
import type { BlobStore, PackagesLogger, ResumeMigrationDeps, StorageMigrationDeps, StorageMigrationResult } from './types';

/**
 * Moves every blob to the target store, one after another: copy, read back, compare, note the new place, and only then delete the old
 * copy (with `gcSource`). What a crash interrupted is continued by the next run. A failure is reported to `storage` and in the result; the
 * active store stays the one it was.
 *
 * @throws what `getStore` or `beginMigration` throw, before anything was moved
 */
export async function runStorageMigration(deps: StorageMigrationDeps): Promise<StorageMigrationResult> {
  const { blobIndex, storage, activeBackend, target } = checkMethods(deps, 'deps', ['getStore']);
  checkNonEmptyString(target, 'deps.target');
  checkNonEmptyString(activeBackend, 'deps.activeBackend');
  checkMethods(blobIndex, 'deps.blobIndex', ['listNotOnBackend', 'setBackend']);
  checkMethods(storage, 'deps.storage', ['beginMigration', 'setMigratedCount', 'completeMigration', 'failMigration']);
  checkSwitch(deps.gcSource ?? undefined, 'deps.gcSource');
  const logger = quietLogger(checkLogger(deps.logger));
  if (target === activeBackend) return { migrated: 0, completed: true };
  const to = checkInput(deps.getStore(target), 'the result of getStore');
  await storage.beginMigration(target);
  let migrated = 0;
  const moved = new Set<string>();
  try {
    // What was published meanwhile is found by looking again.
    for (let rows = await blobIndex.listNotOnBackend(target); rows.length > 0; rows = await blobIndex.listNotOnBackend(target)) {
      const back = rows.find((row) => moved.has(keyOf(row)));
      if (back !== undefined) {
        throw new Error(`Blob ${back.integrity} is still listed as on "${back.backend}" after it was moved: setBackend did not note its new place.`);
      }
      for (const row of [...rows]) {
        await move(row, { ...deps, logger }, to);
        moved.add(keyOf(row));
        migrated++;
        await storage.setMigratedCount(migrated);
      }
    }
    await storage.completeMigration(target);
    logger?.debug(`Moved ${migrated} blob(s) to "${target}".`);
    return { migrated, completed: true };
  } catch (thrown) {
    const error = messageOf(thrown);
    logger?.error(`Storage migration to "${target}" failed: ${error}`);
    await survive(() => storage.failMigration(error), 'Recording that', logger);
    return { migrated, completed: false, error };
  }
}

/** A blob in one place. */
function keyOf({ integrity, backend }: { integrity: string; backend: string }): string {
  return JSON.stringify([integrity, backend]);
}

async function move(
  { integrity, backend, blobSha256: indexed }: { integrity: string; backend: string; blobSha256?: string },
  { blobIndex, getStore, target, gcSource, logger }: Omit<StorageMigrationDeps, 'logger'> & { logger: PackagesLogger | undefined },
  to: BlobStore,
): Promise<void> {
  const from = getStore(backend);
  const source = await from.get({ integrity });
  if (source === undefined) {
    // A crash after an earlier run had deleted the source; or nobody has it.
    const there = await to.get({ integrity });
    if (there === undefined) throw new Error(`Blob ${integrity} missing from its source backend "${backend}"; cannot migrate.`);
    if (indexed !== undefined && blobSha256(there) !== indexed.toLowerCase()) throw new Error(mismatch(integrity));
  } else {
    const expected = blobSha256(source);
    if (await to.has({ integrity })) {
      const there = await readable(to, integrity);
      // A store keeps what it has: a bad copy must go first.
      if (there === undefined || blobSha256(there) !== expected) {
        await to.delete({ integrity });
        await copy(integrity, source, expected, to);
      }
    } else {
      await copy(integrity, source, expected, to);
    }
  }
  await blobIndex.setBackend(integrity, target);
  if (gcSource === true && source !== undefined) {
    await survive(() => from.delete({ integrity }), `Deleting ${integrity} from "${backend}"`, logger);
  }
}

/** What a store has; a copy that it knows to be damaged is as good as none. */
async function readable(store: BlobStore, integrity: string): Promise<Uint8Array | undefined> {
  try {
    return await store.get({ integrity });
  } catch (error) {
    if ((error as { hfCode?: unknown } | null)?.hfCode === 'HF_CORRUPT') return undefined;
    throw error;
  }
}

async function copy(integrity: string, bytes: Uint8Array, expected: string, to: BlobStore): Promise<void> {
  await to.put({ integrity, bytes });
  const there = await to.get({ integrity });
  if (there === undefined || blobSha256(there) !== expected) throw new Error(mismatch(integrity));
}

function mismatch(integrity: string): string {
  return `Integrity verification failed for ${integrity}: target copy does not match source.`;
}

/**
 * Continues a migration that a crash interrupted, in the background, if there is one and the lock can be had.
 *
 * @returns `done` resolves when it is over and the lock is released; it never rejects
 */
export async function resumeCrashedMigration(
  deps: ResumeMigrationDeps,
): Promise<{ resumed: boolean; reason?: string; done?: Promise<void> }> {
  checkMethods(deps, 'deps', ['loadState', 'tryLock', 'runMigration']);
  const logger = quietLogger(checkLogger(deps.logger));
  const { migrationStatus, migrationTarget, activeBackend } = checkInput(await deps.loadState(), 'the result of loadState');
  if (migrationStatus !== 'migrating' || migrationTarget === null || migrationTarget === '') {
    return { resumed: false, reason: 'no migration in flight' };
  }
  const lock = await deps.tryLock();
  if (lock === null) return { resumed: false, reason: 'another instance holds the lock' };
  const run = async (): Promise<void> => {
    await survive(() => deps.runMigration({ target: migrationTarget, activeBackend }), 'Resumed storage migration', logger);
    await survive(() => lock.release(), 'Releasing the migration lock', logger);
  };
  return { resumed: true, done: run() };
}
