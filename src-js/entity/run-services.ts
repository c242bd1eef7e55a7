/** Services that hand out secrets, wrapped so that a run's registry knows each secret before the run's code does. */
import type { GetService, RunSecretRegistry } from './types';

/** Picks the secrets out of what a method resolved with. */
type SecretsIn = (result: unknown) => unknown;

const RESOLVER: ReadonlyMap<PropertyKey, SecretsIn> = new Map<PropertyKey, SecretsIn>([
  ['resolveSecret', (result) => result],
  ['resolveForRun', (result) => [member(result, 'env'), member(result, 'resolved')]],
  ['resolveBySchema', (result) => [member(result, 'env'), member(result, 'resolved')]],
]);

const CONNECTION_STORE: ReadonlyMap<PropertyKey, SecretsIn> = new Map<PropertyKey, SecretsIn>([
  ['getConnectionWithCredentials', (result) => member(result, 'config')],
]);

/**
 * Wraps a service lookup for one run: secrets that the run resolves through it are registered before the run gets them.
 *
 * Of the service under `resolverRefId`, if it has `resolveForRun` and `resolveSecret`, the results of `resolveSecret` (the secret
 * itself), `resolveForRun` and `resolveBySchema` (every string in `env` and in `resolved`) are registered; of the one under
 * `connectionStoreRefId`, every string in the `config` of what `getConnectionWithCredentials` resolves with. Results are handed on
 * unchanged, and so are all other members and services.
 */
export function wrapGetServiceForRun({
  getService,
  runId,
  registry,
  resolverRefId,
  connectionStoreRefId,
}: {
  getService: GetService;
  runId: string;
  registry: RunSecretRegistry;
  resolverRefId: string;
  connectionStoreRefId: string;
}): GetService {
  const register = (secrets: unknown): void => registry.register(runId, stringsIn(secrets));
  return async <T>(ref: { id: string; T?: T }): Promise<T> => {
    const service = await getService<T>(ref);
    if (ref.id === resolverRefId && hasMethods(service, ['resolveForRun', 'resolveSecret'])) {
      return watch(service, RESOLVER, register);
    }
    if (ref.id === connectionStoreRefId && hasMethods(service, ['getConnectionWithCredentials'])) {
      return watch(service, CONNECTION_STORE, register);
    }
    return service;
  };
}

function hasMethods<T>(service: T, names: readonly string[]): service is T & object {
  return typeof service === 'object' && service !== null && names.every((name) => typeof Reflect.get(service, name) === 'function');
}

/** Returns a proxy of a service whose named methods register the secrets they resolve with. */
function watch<T extends object>(service: T, methods: ReadonlyMap<PropertyKey, SecretsIn>, register: (secrets: unknown) => void): T {
  // A proxy has to show what its target can never change, such as the methods of a frozen service; an empty heir has nothing of that.
  const target = [...methods.keys()].some((name) => isFixed(service, name)) ? heirOf(service) : service;
  return new Proxy(target, {
    get(_, name) {
      // Getters run on the service itself: a proxy lacks its private members.
      const found: unknown = Reflect.get(service, name, service);
      const secretsIn = methods.get(name);
      if (secretsIn === undefined || typeof found !== 'function') {
        return found;
      }
      return async (...args: unknown[]): Promise<unknown> => {
        const result: unknown = await Reflect.apply(found, service, args);
        register(secretsIn(result));
        return result;
      };
    },
  });
}

function heirOf<T extends object>(service: T): T {
  return Object.create(service) as T;
}

function isFixed(service: object, name: PropertyKey): boolean {
  return Object.getOwnPropertyDescriptor(service, name)?.configurable === false;
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}

/** Collects the strings in a value: elements, property values, entries of Maps and Sets. Keys of objects are none. */
function stringsIn(value: unknown): Set<string> {
  const strings = new Set<string>();
  const seen = new Set<object>();
  const open = [value];
  while (open.length > 0) {
    const item = open.pop();
    if (typeof item === 'string') {
      strings.add(item);
    } else if (typeof item === 'object' && item !== null && !seen.has(item)) {
      seen.add(item);
      const inside: Iterable<unknown> = item instanceof Map || item instanceof Set ? [...item].flat() : Object.values(item);
      for (const child of inside) {
        open.push(child);
      }
    }
  }
  return strings;
}
