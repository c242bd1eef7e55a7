/** `createEntityStore`: tells the targets apart and checks the options. */
import { resolve } from 'node:path';
import { checkNonEmptyString, checkOneOf, checkPositiveInteger, invalidArgument } from '../check';
import { builtinError } from '../errors';
import { call, callSync, native } from '../native';
import { parseFacts, placeDifference, probeText, type PlaceFacts } from './drizzle-probe';
import { drizzleStore } from './drizzle-store';
import { deriveTls, isDrizzle, type DerivedConnection } from './drizzle-target';
import { storeOver } from './native-store';
import type { EntityStoreOptions, EntityStorePostgresTarget, EntityStoreTarget, EntityTx, EntityStore, NativeEntityStore } from './types';

/**
 * Makes a store for the history of entities. Nothing is opened before the first use, or `ready()`.
 *
 * @throws {TypeError} `HF_ENTITY_STORE_INPUT_INVALID`: the target is of none of the known shapes
 * @throws {Error} `HF_INVALID_ARGUMENT`: an option has the wrong type
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
  if (typeof known.path === 'string' && known.path !== '') return embedded(resolve(known.path), options, 'journal');
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
async function openBeside(connection: DerivedConnection, place: PlaceFacts, options: EntityStoreOptions): Promise<{ store: NativeEntityStore } | { differs: string }> {
  if (connection.passwordSource !== null) return { differs: 'its password is a function, which only its own driver can ask' };
  const config = {
    target: 'postgres',
    connection: { ...connection, passwordSource: undefined },
    schema: place.schema,
    migrate: 'off',
    maxBatch: options.maxBatchRows ?? 1000,
    durability: 'after-commit',
  };
  const log = callSync(() => new native.EntityLog(JSON.stringify(config)));
  const found = parseFacts(await call(log.probe(probeText(place.schema))));
  const differs = placeDifference(place, found);
  if (differs !== null) {
    await call(log.close());
    return { differs };
  }
  return { store: storeOver({ log, durability: 'after-commit', isShared: true, appendInside }, options) };
}

function embedded(path: string | undefined, options: EntityStoreOptions, durability: 'journal' | 'after-commit'): NativeEntityStore {
  const config = {
    target: 'sqlite',
    path,
    synchronous: options.synchronous ?? 'full',
    migrate: options.migrate ?? 'auto',
    maxBatch: options.maxBatchRows ?? 1000,
    durability: options.durability ?? durability,
  };
  const log = callSync(() => new native.EntityLog(JSON.stringify(config)));
  return storeOver({ log, durability: config.durability, isShared: path !== undefined, appendInside }, options);
}

function checkOptions(options: EntityStoreOptions): void {
  if (typeof options !== 'object' || options === null) throw invalidArgument('options', 'an object', options);
  const { migrate, driver, durability, synchronous, maxBatchRows, retention, clock } = options;
  if (migrate !== undefined) checkOneOf(migrate, 'options.migrate', ['auto', 'check', 'off']);
  if (driver !== undefined) checkOneOf(driver, 'options.driver', ['auto', 'native', 'delegate']);
  if (durability !== undefined) checkOneOf(durability, 'options.durability', ['after-commit', 'outbox', 'journal']);
  if (synchronous !== undefined) checkOneOf(synchronous, 'options.synchronous', ['normal', 'full']);
  if (maxBatchRows !== undefined) checkPositiveInteger(maxBatchRows, 'options.maxBatchRows');
  if (clock !== undefined && typeof clock !== 'function') throw invalidArgument('options.clock', 'a function', clock);
  for (const name of ['maxAgeMs', 'everyMs'] as const) {
    const ms = retention?.[name];
    if (ms !== undefined && !(typeof ms === 'number' && ms > 0)) throw invalidArgument(`options.retention.${name}`, 'a positive number of milliseconds', ms);
  }
  if (retention?.maxRowsPerField !== undefined) checkPositiveInteger(retention.maxRowsPerField, 'options.retention.maxRowsPerField');
}

/** Only an application's own driver can share its transactions. */
function appendInside(_tx: EntityTx): EntityStore {
  throw inputInvalid('withTransaction: make the store over your drizzle database for that; this store has connections of its own');
}

function inputInvalid(message: string): Error {
  return builtinError(TypeError, message, { hfCode: 'HF_ENTITY_STORE_INPUT_INVALID' });
}
