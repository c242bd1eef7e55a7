/** `createEntityStore`: tells the targets apart and checks the options. */
import { resolve } from 'node:path';
import { checkOneOf, checkPositiveInteger, invalidArgument } from '../check';
import { builtinError } from '../errors';
import { callSync, native } from '../native';
import { storeOver } from './native-store';
import type { EntityStoreOptions, EntityStoreTarget, EntityTx, EntityStore, NativeEntityStore } from './types';

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
  if (typeof known.path === 'string' && known.path !== '') return embedded(resolve(known.path), options, 'journal');
  if (known.memory === true) return embedded(undefined, options, 'after-commit');
  throw inputInvalid('createEntityStore: the target must be { path }, { memory: true }, { connectionString } or a drizzle database over pg');
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
  const appendInside = (_tx: EntityTx): EntityStore => {
    throw inputInvalid('withTransaction: the transaction must be a drizzle transaction or a pg client, and the store one of Postgres');
  };
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

function inputInvalid(message: string): Error {
  return builtinError(TypeError, message, { hfCode: 'HF_ENTITY_STORE_INPUT_INVALID' });
}
