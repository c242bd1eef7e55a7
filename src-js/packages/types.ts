/** The types of the packages module: manifests and reconciling here, the rest by what it is about. */
import type { LinkProgress } from './native-store';

export type * from './blob-types';
export type * from './host-types';
export type * from './install-types';

/** One package that a host must have. */
export interface ManifestEntry {
  /** Its npm name, `name` or `@scope/name`; at most 214 characters. */
  name: string;
  /** Its exact version; at most 64 characters. */
  version: string;
  /** Its SRI string (`sha512-…`): the key of its blob. It is the hash of the npm tarball, not of the blob, and opaque here. */
  integrity: string;
  /** SHA-256 of the blob's bytes, in lower-case hex. Entries of old publishers have none, and their blobs go unverified. */
  blobSha256?: string;
}

/** A package as an administrator wants it. */
export interface PackageSpec {
  /** Its npm name. */
  name: string;
  /** Its version or range. */
  version: string;
  /** `false` leaves it out. Default `true`. */
  enabled?: boolean;
  /** Who added it. */
  addedBy?: string | null;
  /** When it was added. */
  addedAt?: Date;
  /** When it was last changed. */
  updatedAt?: Date;
}

/** Gets lines of this module. Methods are called as functions of their object. */
export interface PackagesLogger {
  /** What is going on. */
  debug(message: string): void;
  /** What went wrong and was survived. */
  error(message: string): void;
}

/** Bytes of a blob. */
export type BlobBytes = Uint8Array | ArrayBuffer;

/** What a reconcile does, step by step. Every member may be replaced. */
export interface ReconcileDeps {
  /** The integrities whose packages are on this host. */
  localCacheIntegrities(): Promise<string[]>;
  /** Gets a blob from wherever blobs are; rejects when it cannot. */
  fetchBlob(input: { integrity: string }): Promise<Uint8Array>;
  /** Verifies a blob, extracts it into the cache, and marks it as there. */
  seedBlob(input: { entry: ManifestEntry; bytes: Uint8Array }): Promise<void>;
  /** Builds the tree of a manifest, and makes it the current one. */
  materializeAndFlip(input: { lockfileHash: string; manifest: ManifestEntry[] }): Promise<void>;
  /** The lockfile hash of the current tree; `undefined` if there is none that works. */
  currentLockfileHash(): Promise<string | undefined>;
  /** Gets lines about what is done. */
  logger?: PackagesLogger;
  /** How many blobs are fetched and seeded at a time. Default 1. */
  concurrency?: number;
}

/** What a reconcile did. */
export interface ReconcileResult {
  /** Whether there was nothing to do. */
  alreadyConverged: boolean;
  /** The integrities that were fetched, in the order of the manifest. */
  pulledIntegrities: string[];
}

/** How far a reconcile is. */
export type ReconcileProgress =
  | {
      phase: 'delta';
      /** How many blobs this host lacks. */
      missing: number;
      /** How many entries the manifest has. */
      total: number;
    }
  | {
      phase: 'fetched' | 'seeded';
      integrity: string;
      name: string;
      version: string;
      /** Length of the blob. */
      bytes: number;
      /** How many blobs have come this far. */
      done: number;
      /** Out of how many. */
      of: number;
    }
  | ({
      /** Files are coming into the tree; told about ten times a second. */
      phase: 'linked';
    } & LinkProgress)
  | {
      /** `materialized` and `flipped` come together, when the one step that does both is over. */
      phase: 'materializing' | 'materialized' | 'flipped';
      lockfileHash: string;
    };

/** What to reconcile. */
export interface ReconcileInput {
  /** Names the tree. Opaque here, but for what may be a folder's name. */
  lockfileHash: string;
  /** The packages. */
  manifest: ManifestEntry[];
  /** How. */
  deps: ReconcileDeps;
  /** Stops between steps and between files; the call rejects with its reason, and nothing half-built stays. */
  signal?: AbortSignal;
  /** Is told how far it is. What it throws is logged. */
  onProgress?: (progress: ReconcileProgress) => void;
}

/** A lock that has been won. */
export interface HeldLock {
  release(): Promise<void>;
}

/** The lock that one installer at a time holds. */
export interface InstallerLock {
  /** The lock, or `null` if somebody else has it. */
  tryInstallerLock(): Promise<HeldLock | null>;
}
