/** `openSessionStore`: tells the targets apart and checks the options. */
import { join, resolve } from 'node:path';
import { checkArray, checkBooleanOrUndefined, checkFunctionOrUndefined, checkNonEmptyString, checkOneOf, checkPath, checkPlainObject, checkPositiveInteger, invalidArgument } from '../check';
import { deriveTls } from '../tls';
import { checkId, checkMillis, guarded } from './arguments';
import type { AnyChangeEvent } from './change-types';
import { checkLogger } from './logging';
import { StoreCore } from './native-store';
import { checkRetention } from './retention';
import { NativeSessionStore } from './store';
import type { OpenSessionStoreOptions, SessionStore } from './store-types';
import { millisClock } from './time';

const FILE = 'sessions.db';
const MEMORY = ':memory:';
const WEEK_MS = 604_800_000;
const RETENTION = { maxAgeMs: WEEK_MS, maxRows: 100_000, hard: false };
const POSTGRES_ONLY = ['schema', 'poolSize', 'ssl'] as const;
const SQLITE_ONLY = ['durability', 'maxReaders', 'networkFileSystem'] as const;
const OPTIONS = [
  'dataDir',
  'path',
  'connectionString',
  ...POSTGRES_ONLY,
  ...SQLITE_ONLY,
  'busyTimeoutMs',
  'retention',
  'harnesses',
  'clock',
  'logger',
  'invalidation',
] as const satisfies (keyof OpenSessionStoreOptions)[];

/**
 * Opens a session store, and makes its tables when they are missing; any number of processes may do so at once, and use it together.
 *
 * @param target A folder (its file is `sessions.db`), or options.
 * @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT`: an option does not exist or is not what it must be, or the file is a folder or the database
 *   of another program; nothing was touched
 * @throws {SchemaTooNewError} `HF_FORMAT_TOO_NEW`: a newer version of holdfast wrote it; it was not touched
 * @throws {MigrationError} `HF_MIGRATION_FAILED`: its tables could not be brought to this version; they are as they were
 * @throws {StoreCorruptError} `HF_CORRUPT`: it is damaged, or no database at all
 *
 * @example
 * ```ts
 * await using store = await openSessionStore('data');
 * await store.upsertProject({ id: 'mer', path: '/src/mer' });
 * const session = await store.createSession({ projectId: 'mer' }); // mer-1
 * ```
 */
export function openSessionStore(target: OpenSessionStoreOptions & { invalidation: true }): Promise<SessionStore<AnyChangeEvent>>;
export function openSessionStore(target: string | OpenSessionStoreOptions): Promise<SessionStore>;
export async function openSessionStore(target: string | OpenSessionStoreOptions): Promise<SessionStore<AnyChangeEvent>> {
  const core = guarded(() => {
    const options = typeof target === 'string' ? { dataDir: target } : target;
    const config = configOf(options);
    return new StoreCore(config, options.path !== MEMORY, millisClock(options.clock, 'options.clock'), checkLogger(options.logger, 'options.logger'));
  });
  try {
    await core.open();
    if (typeof target === 'object' && target.invalidation) await core.write({ do: 'invalidate' });
  } catch (error) {
    // What went wrong before is what counts.
    await core.close().catch(() => {});
    throw error;
  }
  return new NativeSessionStore(core);
}

function configOf(options: OpenSessionStoreOptions): object {
  checkPlainObject(options, 'target');
  const unknown = Object.keys(options).find((name) => !OPTIONS.some((known) => known === name));
  if (unknown !== undefined) throw invalidArgument('options', `an object with no other properties than ${OPTIONS.join(', ')}`, unknown);
  const { durability = 'full', busyTimeoutMs = 5000, maxReaders = 8, networkFileSystem = 'refuse', retention, harnesses = [], clock } = options;
  checkFunctionOrUndefined(clock, 'options.clock');
  checkBooleanOrUndefined(options.invalidation, 'options.invalidation');
  if (retention !== undefined && retention !== false) checkRetention(retention, 'options.retention');
  return {
    ...placeOf(options),
    synchronous: checkOneOf(durability, 'options.durability', ['full', 'normal']),
    busyTimeoutMs: checkMillis(busyTimeoutMs, 'options.busyTimeoutMs'),
    maxReaders: checkPositiveInteger(maxReaders, 'options.maxReaders'),
    networkFileSystem: checkOneOf(networkFileSystem, 'options.networkFileSystem', ['refuse', 'allow']),
    retention: retention === false ? false : { ...RETENTION, ...(retention && checkRetention(retention, 'options.retention')) },
    harnesses: checkArray(harnesses, 'options.harnesses').map((name, index) => checkId(name, `options.harnesses[${index}]`)),
  };
}

function placeOf(options: OpenSessionStoreOptions): object {
  const { dataDir, path, connectionString } = options;
  const named = [dataDir, path, connectionString].filter((value) => value !== undefined).length;
  if (named !== 1) throw invalidArgument('options', 'an object with exactly one of dataDir, path and connectionString', options);
  if (connectionString !== undefined) {
    const foreign = SQLITE_ONLY.find((name) => options[name] !== undefined);
    if (foreign !== undefined) throw invalidArgument(`options.${foreign}`, 'left out: it is for SQLite, not for a connectionString', options[foreign]);
    return postgres(options);
  }
  const misplaced = POSTGRES_ONLY.find((name) => options[name] !== undefined);
  if (misplaced !== undefined) throw invalidArgument(`options.${misplaced}`, 'left out: it is for PostgreSQL, with connectionString', options[misplaced]);
  if (dataDir === MEMORY) throw invalidArgument('dataDir', `a folder; for a store in memory use { path: '${MEMORY}' }`, dataDir);
  if (dataDir !== undefined) return { target: 'sqlite', path: join(resolve(checkFile(dataDir, 'dataDir')), FILE) };
  const file = checkFile(path, 'options.path');
  return file === MEMORY ? { target: 'sqlite' } : { target: 'sqlite', path: resolve(file) };
}

function checkFile(value: unknown, argument: string): string {
  const path = checkPath(value, argument);
  if (path.trim() === '') throw invalidArgument(argument, 'a path that is not blank', value);
  // SQLite would open something else than a file of that name.
  if (/^file:/i.test(path)) throw invalidArgument(argument, 'a plain path, not a file: URL; convert it with fileURLToPath() of node:url', value);
  return path;
}

function postgres({ connectionString, schema, poolSize = 4, ssl }: OpenSessionStoreOptions): object {
  // Never shown in an error: it has a password in it.
  if (typeof connectionString !== 'string' || connectionString === '') {
    throw invalidArgument('options.connectionString', 'a string that is not empty', typeof connectionString === 'string' ? '' : connectionString);
  }
  if (schema !== undefined) checkNonEmptyString(schema, 'options.schema');
  const tls = ssl === undefined ? null : deriveTls(ssl);
  if (typeof tls === 'string') throw invalidArgument('options.ssl', `what can be used; ${tls}`, ssl);
  return {
    target: 'postgres',
    connection: { connectionString, poolSize: checkPositiveInteger(poolSize, 'options.poolSize'), ssl: tls },
    schema: schema ?? 'holdfast_lifecycle',
  };
}
