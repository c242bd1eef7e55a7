/** Types of a host's store: archives, trees, the cache. */
import type { ManifestEntry, PackagesLogger } from './types';

/** Bounds of an archive that is unpacked, enforced on the real bytes. */
export interface UnpackLimits {
  /** Entries. Default 100,000. */
  maxEntries?: number;
  /** Bytes of all files together. Default 1 GiB. */
  maxTotalBytes?: number;
  /** Bytes of one file. Default 512 MiB. */
  maxEntryBytes?: number;
  /** Bytes of one path. Default 4096. */
  maxPathBytes?: number;
  /** Components of one path. Default 64. */
  maxDepth?: number;
}

/** How files get into a tree: `auto` = a copy-on-write copy, else a hard link, else a copy. */
export type LinkMode = 'auto' | 'reflink' | 'hardlink' | 'copy';

/** What `createReconcileFsDeps` works with. */
export interface ReconcileFsInput {
  /** The folder of the store; created when missing. */
  storeRoot: string;
  /** Gets a blob from wherever blobs are. */
  fetchBlob: (input: { integrity: string }) => Promise<Uint8Array>;
  /** How long a retired tree stays, in milliseconds. Default {@link DEFAULT_TREE_GC_GRACE_MS}. */
  treeGcGraceMs?: number;
  /** Gets lines about what is done. */
  logger?: PackagesLogger;
  /** How many blobs are fetched and seeded at a time. Default 8. */
  concurrency?: number;
  /** Who builds trees: this module, or `bun install --offline`. Default `native`. */
  materializer?: 'native' | 'bun';
  /** The Bun to run. Default: the one that runs this, else `bun` of the PATH. */
  bunPath?: string;
  /** Default `auto`. */
  linkMode?: LinkMode;
  /** Direct dependencies, name to version: this version is the one at the root. Default: the first entry of each name. */
  roots?: Record<string, string>;
  /** Whether blobs without `blobSha256` are refused. Default `false`. */
  requireBlobSha256?: boolean;
  /** Whether `lockfileHash` must be {@link computeLockfileHash} of the manifest. Default `false`. */
  verifyLockfileHash?: boolean;
  /** How a tree is checked before it is made current: by its record, or by hashing all its files. Default `marker`. */
  verify?: 'marker' | 'full';
  /** `none` leaves syncing to the system: for stores that may be lost with the next power cut. Default `full`. */
  durability?: 'full' | 'none';
  /** Bounds of archives. */
  limits?: UnpackLimits;
  /** How long another process may hold the store, in milliseconds. Default 600,000. */
  lockTimeoutMs?: number;
}

/** Where a package is in a cache. */
export interface CacheEntryLocation {
  /** A folder. */
  parentDir: string;
  /** The package, relative to that. */
  entryName: string;
}

/** What a sweep of retired trees did. */
export interface TreeGcResult {
  /** Trees that are gone. */
  deleted: string[];
  /** Trees that stay for now. */
  keptWithinGrace: string[];
  /** The current tree. */
  currentHash?: string;
}

/** Where programs find their packages. */
export type ResolutionRootStatus = { mode: 'none' } | { mode: 'ready'; root: string } | { mode: 'notReady'; reason: string };

/** A pinned tree. */
export type ResolutionRootSnapshot =
  | { mode: 'none' }
  | { mode: 'notReady'; reason: string }
  | {
      mode: 'ready';
      /** The tree's real path: no flip moves it, and no sweep removes it until `release()`, or the end of the process. */
      root: string;
      lockfileHash: string;
      /** Lets the tree go. Twice is harmless. */
      release(): Promise<void>;
    };

/** What comparing a tree with its record found. Paths are relative to the tree. */
export interface TreeVerification {
  /** Whether the tree is what was built. */
  sound: boolean;
  /** Whether it says what was built; without that nothing else is known. */
  hasRecord: boolean;
  /** Files that were compared. */
  checked: number;
  /** Files with another content, or of another kind. */
  damaged: string[];
  /** Files that are gone. */
  missing: string[];
  /** Files in `node_modules` that nobody put there while building: caches of programs, so no damage. */
  unexpected: string[];
}

/** What a repair did. */
export interface RepairResult {
  /** Whether the tree had to be built anew. */
  rebuilt: boolean;
  /** The integrities that were fetched again. */
  refetched: string[];
}

/** What a sweep of the cache did. */
export interface CacheGcResult {
  /** Whether it ran. */
  ran: boolean;
  /** Why it did not. */
  reason?: string;
  /** Integrities whose entries are gone. */
  deleted: string[];
  /** Those that nobody needs, seeded less than the grace ago. */
  keptWithinGrace: string[];
  /** Bytes of the entries that are gone. What trees share with them stays on the disk as long as those trees. */
  bytesReclaimed: number;
}

/** What a tree would be. */
export interface TreePlan {
  /** Every copy of every package, with its path in the tree. */
  placements: { path: string; entry: ManifestEntry }[];
  /** Entries that are not in the cache; if there are any, the rest is preliminary, because their dependencies are unknown. */
  missing: ManifestEntry[];
  /** What a person may want to know. */
  warnings: string[];
}

/** How much room a store takes, in bytes. */
export interface PackagesStoreStats {
  cacheBytes: number;
  cacheEntries: number;
  trees: {
    lockfileHash: string;
    bytes: number;
    /** What would be free if it were gone. */
    ownBytes: number;
    files: number;
    current: boolean;
  }[];
  totalBytes: number;
}
