/** Reconciling: bring a host to a manifest, pulling only what it lacks. */
import { checkArray, checkFunctionOrUndefined, checkString } from '../check';
import { attempt } from '../logging';
import { checkInput, checkIterable, checkKeyed, checkLogger, checkMethods, checkSignal } from './arguments';
import { pullOnce } from './pulls';
import { messageOf, quietLogger, throwIfAborted, untilAborted } from './support';
import type { LinkProgress } from './native-store';
import type { ManifestEntry, PackagesLogger, ReconcileDeps, ReconcileInput, ReconcileProgress, ReconcileResult } from './types';

/**
 * The entries of a manifest whose blobs are not on this host: the first of each integrity, in the order of the manifest.
 *
 * @returns the caller's own objects
 */
export function computeMissingBlobs(input: { manifest: ManifestEntry[]; localIntegrities: Iterable<string> }): ManifestEntry[] {
  const { manifest, localIntegrities } = checkInput(input);
  return lacking(manifest, localIntegrities, 'localIntegrities');
}

function lacking(manifest: ManifestEntry[], local: Iterable<string>, what: string): ManifestEntry[] {
  checkKeyed(manifest, 'manifest');
  const known = new Set(checkIterable(local, what));
  return manifest.filter(({ integrity }) => !known.has(integrity) && known.add(integrity));
}

const STEPS = ['localCacheIntegrities', 'fetchBlob', 'seedBlob', 'materializeAndFlip', 'currentLockfileHash'] as const;

/**
 * Brings a host to `lockfileHash`: fetches and seeds the blobs that it lacks, then builds the tree and makes it current. Where that is
 * the current tree already, nothing is called.
 *
 * Any rejection of a step rejects the call with the same error; the current tree stays as it was, and blobs that were seeded stay seeded,
 * so that the next attempt pulls only the rest.
 */
export async function reconcileToHash(input: ReconcileInput): Promise<ReconcileResult> {
  const { lockfileHash, manifest, deps, onProgress } = checkInput(input);
  checkString(lockfileHash, 'lockfileHash');
  checkArray(manifest, 'manifest');
  checkMethods(deps, 'deps', STEPS);
  const signal = checkSignal(input.signal);
  const logger = quietLogger(checkLogger(deps.logger, 'deps.logger'));
  const tell = teller(checkFunctionOrUndefined(onProgress ?? undefined, 'onProgress'), logger);
  throwIfAborted(signal);
  if ((await deps.currentLockfileHash()) === lockfileHash) {
    logger?.debug(`Script packages already at ${lockfileHash}; reconcile is a no-op.`);
    return { alreadyConverged: true, pulledIntegrities: [] };
  }
  throwIfAborted(signal);
  const missing = lacking(manifest, await deps.localCacheIntegrities(), 'the result of localCacheIntegrities');
  tell({ phase: 'delta', missing: missing.length, total: manifest.length });
  await pullAll(missing, deps, signal, tell);
  throwIfAborted(signal);
  tell({ phase: 'materializing', lockfileHash });
  const onLink = (progress: LinkProgress): void => tell({ phase: 'linked', ...progress });
  await deps.materializeAndFlip(withSignal({ lockfileHash, manifest }, signal, onLink));
  tell({ phase: 'materialized', lockfileHash });
  tell({ phase: 'flipped', lockfileHash });
  logger?.debug(`Reconciled script packages to ${lockfileHash} (pulled ${missing.length} blob(s)).`);
  return { alreadyConverged: false, pulledIntegrities: missing.map(({ integrity }) => integrity) };
}

/** Fetches and seeds, `concurrency` entries at a time; the first error in time ends it, after what is running has settled. */
export async function pullAll(
  missing: readonly ManifestEntry[],
  deps: Pick<ReconcileDeps, 'fetchBlob' | 'seedBlob' | 'concurrency'>,
  signal: AbortSignal | undefined,
  tell: (progress: ReconcileProgress) => void,
): Promise<void> {
  const done = { fetched: 0, seeded: 0 };
  let next = 0;
  let failed: { error: unknown } | undefined;
  const pullNext = async (): Promise<void> => {
    for (let entry = missing[next++]; entry !== undefined && failed === undefined; entry = missing[next++]) {
      try {
        await pull(entry);
      } catch (error) {
        failed ??= { error };
      }
    }
  };
  const pull = async (entry: ManifestEntry): Promise<void> => {
    throwIfAborted(signal);
    const { integrity, name, version } = entry;
    const step = (phase: 'fetched' | 'seeded', bytes: number): void =>
      tell({ phase, integrity, name, version, bytes, done: ++done[phase], of: missing.length });
    const own = async (): Promise<number> => {
      const bytes = await untilAborted(deps.fetchBlob({ integrity }), signal);
      // What is not bytes at all is refused by whoever seeds it.
      const length = (bytes as Uint8Array | undefined)?.byteLength ?? 0;
      step('fetched', length);
      throwIfAborted(signal);
      await deps.seedBlob(withSignal({ entry, bytes }, signal));
      step('seeded', length);
      return length;
    };
    const others = (length: number): void => {
      step('fetched', length);
      step('seeded', length);
    };
    await pullOnce(deps.seedBlob, entry, own, others, signal);
  };
  const workers = Math.max(1, Math.min(Math.floor(deps.concurrency ?? 1) || 1, missing.length));
  const running = Promise.all(Array.from({ length: workers }, pullNext));
  // Fetches that hang are given up when the signal aborts; seedings end by themselves then, and leave nothing half-made.
  await running;
  if (failed !== undefined) throw failed.error;
}

interface Company {
  signal: AbortSignal | undefined;
  onLink: ((progress: LinkProgress) => void) | undefined;
}

/** What belongs to the inputs of steps: the members of `deps` have no parameter for it, and callers wrap them. */
const company = new WeakMap<object, Company>();

/** The signal of the reconcile that made the call with this very `input`. */
export function signalOf(input: object): AbortSignal | undefined {
  return company.get(input)?.signal;
}

/** Who wants to know how far the building of a tree is. */
export function progressOf(input: object): Company['onLink'] {
  return company.get(input)?.onLink;
}

function withSignal<T extends object>(input: T, signal: AbortSignal | undefined, onLink?: Company['onLink']): T {
  company.set(input, { signal, onLink });
  return input;
}

function teller(onProgress: ReconcileInput['onProgress'], logger: PackagesLogger | undefined): (progress: ReconcileProgress) => void {
  return (progress) =>
    attempt(
      () => onProgress?.(progress),
      (error) => logger?.error(`onProgress threw: ${messageOf(error)}`),
    );
}
