/** The kinds of one process, and the store that they share. */
import { checkOneOf, isBlank } from '../check';
import { HoldfastError, builtinError } from '../errors';
import { checkEmitter, checkLogger, checkNamed, checkSecretRegistry, checkStore } from './check-input';
import type { HandleContext, HandleMaker } from './handle-context';
import { quietLogger } from './logging';
import { compileStateSchema, type CompiledSchema } from './state-schema';
import type {
  DefineEntityInput,
  EntityCompat,
  EntityHandle,
  EntityKindResolver,
  EntityRegistry,
  EntityRegistryArgs,
  EntityStore,
  NonReactiveDeclaration,
} from './types';

/** Makes a registry whose handles come from `maker`. */
export function registryOver(maker: HandleMaker, args: EntityRegistryArgs): EntityRegistry {
  checkNamed(args, '{ secretRegistry, emitter }', 'createEntityRegistry');
  const { secretRegistry: secrets, emitter } = args;
  const compat = checkOneOf(args.compat ?? 'holdfast', 'compat', ['holdfast', 'original']);
  const serialize = checkOneOf(args.serialize ?? 'id', 'serialize', ['id', 'none', 'database']);
  checkEmitter(emitter, 'createEntityRegistry');
  checkSecretRegistry(secrets, 'createEntityRegistry', compat);
  // The original's callers pass what they have; a level that is missing there is not written.
  checkLogger(args.logger, 'logger', 'createEntityRegistry: ', compat === 'original' ? [] : undefined);
  const logger = quietLogger(args.logger);
  let store: EntityStore | null = null;
  const kinds: string[] = [];
  const declarations: NonReactiveDeclaration[] = [];
  const resolvers = new Map<string, EntityKindResolver>();
  /** One per kind: binds the handle, whose type only its own closure knows. */
  const binders: ((store: EntityStore) => void)[] = [];

  function defineEntity<T extends Record<string, unknown>>(input: DefineEntityInput<T>): EntityHandle<T> {
    const { kind, read, schema } = checkKind(input, resolvers, compat);
    const context: HandleContext<T> = { kind, schema, read, store: () => store, emitter, secrets, logger, compat, serialize };
    const handle = maker.makeHandle(context);
    kinds.push(kind);
    resolvers.set(kind, (ids) => read(ids));
    binders.push((bound) => maker.bindStore(handle, bound));
    if (store !== null) maker.bindStore(handle, store);
    return handle;
  }

  return {
    defineEntity,
    declareNonReactiveState(input) {
      declarations.push({ ...input });
    },
    setStore(input) {
      checkNamed(input, '{ store }', 'setStore');
      const { store: bound } = input;
      checkStore(bound, '', compat);
      store = bound;
      for (const bind of binders) bind(bound);
    },
    get hasStore() {
      return store !== null;
    },
    getNonReactiveDeclarations: () => declarations,
    getKinds: () => kinds,
    entityResolverFor: (kind) => resolvers.get(kind),
  };
}

/** Checks what makes a kind, in this order: its name, that it is new, `read`, `state`. */
function checkKind<T extends Record<string, unknown>>(
  input: DefineEntityInput<T>,
  taken: ReadonlyMap<string, unknown>,
  compat: EntityCompat,
): Pick<HandleContext<T>, 'kind' | 'read'> & { schema: CompiledSchema } {
  const { kind, read, state } = (input ?? {}) as Partial<DefineEntityInput<T>>;
  if (typeof kind !== 'string' || isBlank(kind)) {
    throw new HoldfastError('defineEntity: `kind` must be a non-empty string', { hfCode: 'HF_ENTITY_KIND_INVALID' });
  }
  const fields = { kind };
  if (taken.has(kind)) {
    const message = `defineEntity: duplicate kind "${kind}" — entity kinds must be globally unique`;
    throw new HoldfastError(message, { hfCode: 'HF_ENTITY_KIND_DUPLICATE', fields });
  }
  if (typeof read !== 'function') {
    const message = `defineEntity: kind "${kind}" — \`read\` must be a function`;
    throw builtinError(TypeError, message, { hfCode: 'HF_ENTITY_READ_INVALID', fields });
  }
  const schema = compileStateSchema(state, compat);
  if ('rejected' in schema) {
    const message = `defineEntity: kind "${kind}" — \`state\` must be a z.object (got ${schema.rejected})`;
    throw new HoldfastError(message, { hfCode: 'HF_ENTITY_STATE_SCHEMA_INVALID', fields });
  }
  return { kind, read, schema };
}
