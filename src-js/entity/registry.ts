import { bindStore, makeHandle } from './handle';
import { registryOver } from './kind-registry';
import type { EntityRegistry, EntityRegistryArgs } from './types';

/**
 * Makes a registry: the kinds of one process, and the store that they share. The store may be bound later; until then `get`, `getMany`
 * and the resolvers work.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`: `compat` or `serialize` is none of its values; the emitter, the registry of secrets or
 *   the logger is missing or lacks a function
 */
export function createEntityRegistry(args: EntityRegistryArgs): EntityRegistry {
  return registryOver({ makeHandle, bindStore }, args);
}
