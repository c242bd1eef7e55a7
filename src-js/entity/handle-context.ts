/** What the registry gives the maker of a handle. */
import type { CompiledSchema } from './state-schema';
import type {
  ChangeEmitter,
  EntityCompat,
  EntityHandle,
  EntityRead,
  EntitySerialize,
  EntityStore,
  Logger,
  RunSecretRegistry,
} from './types';

/** Everything that a handle works with. */
export interface HandleContext<T extends Record<string, unknown>> {
  kind: string;
  schema: CompiledSchema;
  read: EntityRead<T>;
  /** The bound store, looked up at every call; `null` = none yet. */
  store: () => EntityStore | null;
  emitter: ChangeEmitter;
  secrets: RunSecretRegistry;
  logger: Logger | undefined;
  compat: EntityCompat;
  serialize: EntitySerialize;
}

/** How the registry makes handles; `handle` has the one implementation. */
export interface HandleMaker {
  makeHandle<T extends Record<string, unknown>>(context: HandleContext<T>): EntityHandle<T>;
  /** Told of every pair of a handle and the store that it now uses, so that the store can complete what a crash left of the kind. */
  bindStore<T extends Record<string, unknown>>(handle: EntityHandle<T>, store: EntityStore): void;
}
