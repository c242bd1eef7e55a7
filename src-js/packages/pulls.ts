/** Fetching and seeding a blob once, when several reconciles of one store want it at the same time. */
import { untilAborted } from './support';
import type { ManifestEntry, ReconcileDeps } from './types';

type Seed = ReconcileDeps['seedBlob'];

/** The pulls that are under way in this process: by store root, by package. They resolve to the length of the blob. */
const underWay = new Map<string, Map<string, Promise<number>>>();

/** Which store a step seeds. Steps that callers wrote or wrapped are not known here, and share nothing. */
const roots = new WeakMap<Seed, string>();

/** Says that `seed` seeds this store. */
export function seedsInto(storeRoot: string, seed: Seed): Seed {
  roots.set(seed, storeRoot);
  return seed;
}

/**
 * Runs `pull`, unless the same package is on its way into the same store already: then it waits for that. If that fails, the caller's
 * own `pull` runs, because its transport is another one.
 *
 * @param pull resolves to the length of the blob
 * @param told is called with the length where somebody else pulled
 */
export async function pullOnce(
  seed: Seed,
  { integrity, name, version }: ManifestEntry,
  pull: () => Promise<number>,
  told: (length: number) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const root = roots.get(seed);
  if (root === undefined) return void (await pull());
  const key = JSON.stringify([integrity, name, version]);
  for (let other = underWay.get(root)?.get(key); other !== undefined; other = underWay.get(root)?.get(key)) {
    const length = await untilAborted(
      other.catch(() => undefined),
      signal,
    );
    if (length !== undefined) return told(length);
  }
  const pulls = underWay.get(root) ?? new Map<string, Promise<number>>();
  underWay.set(root, pulls);
  const mine = pull();
  pulls.set(key, mine);
  try {
    await mine;
  } finally {
    pulls.delete(key);
    if (pulls.size === 0 && underWay.get(root) === pulls) underWay.delete(root);
  }
}
