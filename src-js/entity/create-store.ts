/** `createEntityStore`: tells the targets apart and checks the options. */
import { resolve } from 'node:path';
import { checkNonEmptyString, checkOneOf, checkPath, checkPositiveInteger, invalidArgument, isRecord } from '../check';
import { builtinError, HoldfastError } from '../errors';
import { call, callSync, native } from '../native';
import { deriveTls } from '../tls';
import { checkLogger, checkNames, refuse } from './check-input';
import { parseFacts, placeDifference, probeText, type PlaceFacts } from './drizzle-probe';
import { drizzleStore, type OpenedBeside } from './drizzle-store';
import { isDrizzle, type DerivedConnection } from './drizzle-target';
import { storeOver } from './native-store';
import type { EntityRetention, EntityStoreOptions, EntityStorePostgresTarget, EntityStoreTarget, EntityTx, EntityStore, NativeEntityStore } from './types';

const where = 'createEntityStore: ';
const OPTIONS = ['migrate', 'driver', 'durability', 'synchronous', 'networkFileSystem', 'maxBatchRows', 'retention', 'clock', 'logger'] as const satisfies (keyof EntityStoreOptions)[];
const RETENTION = ['maxAgeMs', 'maxRowsPerField', 'everyMs'] as const satisfies (keyof EntityRetention)[];

/**
 * Makes a store for the history of entities. Nothing is opened before the first use, or `ready()`.
 *
 * @throws {TypeError} `HF_ENTITY_STORE_INPUT_INVALID`: the target is of none of the known shapes
 * @throws {Error} `HF_INVALID_ARGUMENT`: an option does not exist or has the wrong type, or `path` is no plain path
 *
 * @example
 * ```ts
 * const store = createEntityStore({ path: 'data/entities.db' });
 * registry.setStore({ store });
 * ```
 */
export function createEntityStore(target: EntityStoreTarget, options: EntityStoreOptions = {}): NativeEntityStore {
  const known = (typeof target === 'object' && target !== null) || typeof target === 'function' ? (target as Record<string, unknown>) : {};
  checkOptions(options);
  if (isDrizzle(target)) return drizzleStore(target, options, (connection, place) => openBeside(connection, place, options));
  checkNoOptions(known);
  if (known.path instanceof URL) throw plainPath(known.path);
  if (typeof known.path === 'string' && known.path !== '') return embedded(resolve(checkFile(known.path)), options, 'journal');
  if (known.memory === true) return embedded(undefined, options, 'after-commit');
  if (typeof known.connectionString === 'string' && known.connectionString !== '') {
    return postgres(known as unknown as EntityStorePostgresTarget, options);
  }
  throw inputInvalid('createEntityStore: the target must be { path }, { memory: true }, { connectionString } or a drizzle database over pg');
}

function postgres(target: EntityStorePostgresTarget, options: EntityStoreOptions): NativeEntityStore {
  const { connectionString, schema, poolSize, ssl } = target;
  if (schema !== undefined) checkNonEmptyString(schema, 'schema');
  if (poolSize !== undefined) checkPositiveInteger(poolSize, 'poolSize');
  const config = {
    target: 'postgres',
    connection: { connectionString, poolSize: poolSize ?? 4, ssl: deriveSsl(ssl) },
    schema,
    migrate: options.migrate ?? 'auto',
    maxBatch: options.maxBatchRows ?? 1000,
    durability: options.durability ?? 'journal',
  };
  const log = callSync(() => new native.EntityLog(JSON.stringify(config)));
  return storeOver({ log, durability: config.durability, isShared: true, appendInside }, options);
}

/** TLS in the engine's terms; what only node-postgres can do is refused. */
function deriveSsl(ssl: EntityStorePostgresTarget['ssl']): unknown {
  if (ssl === undefined) return null;
  const derived = deriveTls(ssl);
  if (typeof derived === 'string') throw inputInvalid(`createEntityStore: \`ssl\` cannot be used: ${derived}`);
  return derived;
}

/** Connects beside a drizzle object, if that leads to the very same table. */
async function openBeside(connection: DerivedConnection, place: PlaceFacts, options: EntityStoreOptions): Promise<OpenedBeside> {
  // It may give another password each time (a token that expires): asked once, it would serve until the first reconnection only.
  if (connection.passwordSource !== null) return { differs: 'its password is a function, which only its own driver can ask' };
  const durability = options.durability ?? 'after-commit';
  const keepsEvents = durability !== 'after-commit';
  const config = {
    target: 'postgres',
    connection: { ...connection, passwordSource: undefined },
    schema: place.schema,
    // The application makes the tables; the further ones are looked for only where they are needed.
    migrate: keepsEvents ? 'check' : 'off',
    maxBatch: options.maxBatchRows ?? 1000,
    durability,
  };
  const log = callSync(() => new native.EntityLog(JSON.stringify(config)));
  let isUsed = false;
  try {
    const found = parseFacts(await call(log.probe(probeText(place.schema))));
    const differs = placeDifference(place, found);
    if (differs !== null) return { differs };
    if (keepsEvents) {
      const lacks = await lackOf(log, durability);
      if (lacks !== null) return { lacks };
    }
    // A table of seven columns has nothing to delete by but the delegate's statement, so only the store with more keeps retention.
    const store = storeOver({ log, durability, isShared: true, appendInside }, keepsEvents ? options : { ...options, retention: undefined });
    isUsed = true;
    return { store };
  } finally {
    // What went wrong before is what counts.
    if (!isUsed) await call(log.close()).catch(() => {});
  }
}

/** Opens a log that keeps events; says what it lacks for that. */
async function lackOf(log: InstanceType<typeof native.EntityLog>, durability: string): Promise<Error | null> {
  try {
    await call(log.open());
    return null;
  } catch (error) {
    if (!(error instanceof HoldfastError) || error.hfCode !== 'HF_ENTITY_TABLE_MISSING') throw error;
    const tables = '`durableEntityTransitions`, `entityChanges` and `entityIntents` of holdfast/drizzle';
    const { missing } = error as { missing?: unknown };
    const list = Array.isArray(missing) ? `; missing: ${missing.join(', ')}` : '';
    const message = `\`durability: '${durability}'\` through a drizzle object needs ${tables} in the application's migrations${list}`;
    return new HoldfastError(message, { hfCode: 'HF_ENTITY_TABLE_MISSING', fields: missing === undefined ? {} : { missing }, cause: error });
  }
}

function embedded(path: string | undefined, options: EntityStoreOptions, durability: 'journal' | 'after-commit'): NativeEntityStore {
  const config = {
    target: 'sqlite',
    path,
    synchronous: options.synchronous ?? 'full',
    networkFileSystem: options.networkFileSystem ?? 'refuse',
    migrate: options.migrate ?? 'auto',
    maxBatch: options.maxBatchRows ?? 1000,
    durability: options.durability ?? durability,
  };
  const log = callSync(() => new native.EntityLog(JSON.stringify(config)));
  return storeOver({ log, durability: config.durability, isShared: path !== undefined, appendInside }, options);
}

/** What SQLite itself would take for something else than a path. */
function checkFile(path: string): string {
  if (path.trim().toLowerCase() === ':memory:') throw refuse('path', 'the path of a file', path, { where, hint: 'for a database in memory pass { memory: true }' });
  if (/^file:/i.test(path)) throw plainPath(path);
  return checkPath(path, 'path');
}

function plainPath(path: string | URL): HoldfastError {
  return refuse('path', 'a plain path, not a file: URL', path, { where, hint: 'convert it with fileURLToPath() of node:url' });
}

/** An option in the target would do nothing. */
function checkNoOptions(target: Record<string, unknown>): void {
  const name = OPTIONS.find((option) => Object.hasOwn(target, option));
  if (name === undefined) return;
  throw refuse(name, 'in the second argument, the options', target[name], { where, hint: `write createEntityStore(target, { ${name}: … })` });
}

function checkOptions(options: EntityStoreOptions): void {
  if (typeof options !== 'object' || options === null) throw invalidArgument('options', 'an object', options);
  checkNames(options, OPTIONS, 'options');
  const { migrate, driver, durability, synchronous, networkFileSystem, maxBatchRows, retention, clock, logger } = options;
  if (migrate !== undefined) checkOneOf(migrate, 'options.migrate', ['auto', 'check', 'off']);
  if (driver !== undefined) checkOneOf(driver, 'options.driver', ['auto', 'native', 'delegate']);
  if (durability !== undefined) checkOneOf(durability, 'options.durability', ['after-commit', 'outbox', 'journal']);
  if (synchronous !== undefined) checkOneOf(synchronous, 'options.synchronous', ['normal', 'full']);
  if (networkFileSystem !== undefined) checkOneOf(networkFileSystem, 'options.networkFileSystem', ['refuse', 'allow']);
  if (maxBatchRows !== undefined) checkPositiveInteger(maxBatchRows, 'options.maxBatchRows');
  if (clock !== undefined && typeof clock !== 'function') throw invalidArgument('options.clock', 'a function', clock);
  checkLogger(logger, 'options.logger');
  if (retention === undefined) return;
  if (!isRecord(retention)) throw invalidArgument('options.retention', 'an object { maxAgeMs, maxRowsPerField, everyMs }', retention);
  checkNames(retention, RETENTION, 'options.retention');
  for (const name of ['maxAgeMs', 'everyMs'] as const) {
    const ms = retention[name];
    if (ms !== undefined && !(typeof ms === 'number' && ms > 0)) throw invalidArgument(`options.retention.${name}`, 'a positive number of milliseconds', ms);
  }
  if (retention.maxRowsPerField !== undefined) checkPositiveInteger(retention.maxRowsPerField, 'options.retention.maxRowsPerField');
}

/** Only an application's own driver can share its transactions. */
function appendInside(_tx: EntityTx): EntityStore {
  throw inputInvalid('withTransaction: make the store over your drizzle database for that; this store has connections of its own');
}

function inputInvalid(message: string): Error {
  return builtinError(TypeError, message, { hfCode: 'HF_ENTITY_STORE_INPUT_INVALID' });
}
