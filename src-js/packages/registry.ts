/** The blob stores of a program, by id. */
import { PackageStoreError } from '../errors';
import { checkNonEmptyString } from '../check';
import { checkInput, checkLogger, checkText, checkTextOrUndefined } from './arguments';
import { blobSha256 } from './blobs';
import { messageOf, quietLogger } from './support';
import type { BlobStore, BlobStoreRegistry, PackagesLogger } from './types';

/** Makes an empty registry. `logger` gets a line for each store that was skipped in `readWithFallback`. */
export function createBlobStoreRegistry(options: { logger?: PackagesLogger } = {}): BlobStoreRegistry {
  const logger = quietLogger(checkLogger(checkInput(options, 'options').logger));
  const stores = new Map<string, BlobStore>();

  return {
    register(store) {
      // A Map keeps the place of a key that is set again.
      stores.set(checkNonEmptyString(checkInput(store, 'store').id, 'store.id'), store);
    },
    ids: () => [...stores.keys()],
    has: (id) => stores.has(id),
    get(id) {
      const store = stores.get(id);
      if (store !== undefined) return store;
      const available = stores.size === 0 ? '(none)' : [...stores.keys()].join(', ');
      throw new PackageStoreError(`Blob store backend "${id}" is not registered. Available: ${available}`, { hfCode: 'HF_PKG_NO_BACKEND' });
    },
    async readWithFallback(input) {
      const { integrity, activeBackendId } = checkInput(input);
      const expected = checkTextOrUndefined(input.blobSha256 ?? undefined, 'blobSha256');
      checkText(integrity, 'integrity');
      const active = stores.get(activeBackendId);
      const others = [...stores.values()].filter((store) => store !== active);
      let failed: { error: unknown } | undefined;
      for (const store of active === undefined ? others : [active, ...others]) {
        try {
          const bytes = await store.get({ integrity });
          if (bytes === undefined) continue;
          const actual = expected === undefined ? undefined : blobSha256(bytes);
          if (actual === expected?.toLowerCase()) return { bytes, servedBy: store.id };
          throw new PackageStoreError(
            `Blob ${integrity} in store "${store.id}" is damaged: expected sha256 ${String(expected)}, got ${String(actual)}. Put it there again`,
            { hfCode: 'HF_PKG_INTEGRITY' },
          );
        } catch (error) {
          failed ??= { error };
          logger?.error(`Blob store "${store.id}" could not serve ${integrity}: ${messageOf(error)}`);
        }
      }
      if (failed !== undefined) throw failed.error;
      return undefined;
    },
  };
}
