/** Types of blob stores, of collecting blobs, and of moving them. */
import type { HeldLock, InstallerLock, ManifestEntry, PackagesLogger } from './types';

/** Where blobs are kept. */
export interface BlobStore {
  /** Names the store in the blob index. */
  readonly id: string;
  /** Keeps a blob; what is there already under this key stays. Durable when it resolves. */
  put(input: { integrity: string; bytes: Uint8Array }): Promise<void>;
  /** A blob, whole; `undefined` if it is not there. */
  get(input: { integrity: string }): Promise<Uint8Array | undefined>;
  /** Whether a blob is there. */
  has(input: { integrity: string }): Promise<boolean>;
  /** Removes a blob, if it is there. */
  delete(input: { integrity: string }): Promise<void>;
  /** All keys. */
  list(): Promise<string[]>;
}

/** The blob stores of a program. */
export interface BlobStoreRegistry {
  /** Adds a store; one of the same id takes the place of the other. */
  register(store: BlobStore): void;
  /** The ids, in the order of registration. */
  ids(): string[];
  /** Whether there is a store of this id. */
  has(id: string): boolean;
  /**
   * The store of this id.
   *
   * @throws {PackageStoreError} `HF_PKG_NO_BACKEND`
   */
  get(id: string): BlobStore;
  /**
   * Reads a blob from the active store, else from the others in order. A store that throws, or whose bytes do not have `blobSha256`,
   * is skipped.
   *
   * @throws the first error of a store, if none had the blob
   */
  readWithFallback(input: {
    integrity: string;
    activeBackendId: string;
    blobSha256?: string;
  }): Promise<{ bytes: Uint8Array; servedBy: string } | undefined>;
}

/** A row of the blob index. */
export interface GcBlob {
  integrity: string;
  backend: string;
  sizeBytes: number;
  createdAt: Date;
}

/** What a blob GC did. */
export interface BlobGcSummary {
  /** Whether it ran at all. */
  ran: boolean;
  /** Why it did not. */
  reason?: string;
  /** Blobs that no retained manifest needs. */
  candidates: number;
  /** Those that are gone. */
  deleted: number;
  /** Those that are too young. */
  keptWithinGrace: number;
  /** Bytes of those that are gone. */
  bytesReclaimed: number;
}

/** What `runBlobGc` works with. */
export interface BlobGcDeps {
  /** The manifests that must stay complete. An empty list means "not known", and nothing is deleted; `[[]]` is an empty set. */
  retainedManifests(): Promise<ManifestEntry[][]>;
  /** The blob index. */
  listBlobs(): Promise<GcBlob[]>;
  /** Removes a blob: its bytes, then its index row. */
  deleteBlob(input: { integrity: string; backend: string }): Promise<void>;
  /** Whether an install or a migration is in flight. */
  isBusy(): Promise<boolean>;
  /** Is told what was done. Its errors are ignored. */
  recordRun?(input: { deleted: number; bytesReclaimed: number }): Promise<void>;
  /** The clock, in milliseconds. Default `Date.now`. */
  now?(): number;
  /** How old a blob must be, in milliseconds. Default {@link DEFAULT_BLOB_GC_GRACE_MS}. */
  graceMs?: number;
  /** Gets lines about what is done. */
  logger?: PackagesLogger;
}

/** The blob index, as a migration needs it. */
export interface BlobIndex {
  /** Rows whose bytes are elsewhere. */
  listNotOnBackend(target: string): Promise<{ integrity: string; backend: string; blobSha256?: string }[]>;
  /** Notes where a blob's bytes are from now on. */
  setBackend(integrity: string, backend: string): Promise<void>;
}

/** The state of a migration, as the program keeps it. */
export interface StorageMigrationConfig {
  beginMigration(target: string): Promise<void>;
  setMigratedCount(count: number): Promise<void>;
  completeMigration(target: string): Promise<void>;
  failMigration(message: string): Promise<void>;
}

/** The stores of a migration. */
export interface StorageMigrationStores {
  /** The store of an id; may throw. */
  getStore(id: string): BlobStore;
  /** Where blobs are read from. */
  activeBackend: string;
  /** Where they shall be. */
  target: string;
}

/** What `runStorageMigration` works with. */
export interface StorageMigrationDeps extends StorageMigrationStores {
  blobIndex: BlobIndex;
  storage: StorageMigrationConfig;
  /** Whether a blob is deleted from its source once it is moved. Default `false`. */
  gcSource?: boolean;
  logger?: PackagesLogger;
}

/** What a migration did. */
export interface StorageMigrationResult {
  /** Blobs that were moved by this run. */
  migrated: number;
  /** Whether all are at the target. */
  completed: boolean;
  /** Why not. */
  error?: string;
}

/** What `createBlobGcTrigger` works with. */
export interface BlobGcRunnerDeps extends Pick<BlobGcDeps, 'listBlobs' | 'isBusy' | 'recordRun' | 'graceMs' | 'logger'> {
  installerLock: InstallerLock;
  blobStores: BlobStoreRegistry;
  /** How many manifests before the newest stay complete. Default {@link DEFAULT_BLOB_GC_RETAIN_PREVIOUS}. */
  retainPrevious?: number;
  pruneHistory(keep: number): Promise<void>;
  removeBlobRow(integrity: string): Promise<void>;
  loadCurrent(): Promise<{ lockfileHash: string | null; manifest: ManifestEntry[] }>;
  recentHistory(limit: number): Promise<ManifestEntry[][]>;
}

/** The state of a migration after a restart. */
export interface MigrationStateSnapshot {
  migrationStatus: string;
  migrationTarget: string | null;
  activeBackend: string;
}

/** What `resumeCrashedMigration` works with. */
export interface ResumeMigrationDeps {
  loadState(): Promise<MigrationStateSnapshot>;
  logger?: PackagesLogger;
  tryLock(): Promise<HeldLock | null>;
  runMigration(input: { target: string; activeBackend: string }): Promise<unknown>;
}

/**
 * A blob store of holdfast's own. `put` copies the bytes before it returns, on the calling thread, so that you may change your buffer at
 * once: 0.6 ms per MB, measured with 100 MB on Linux x64.
 */
export interface NativeBlobStore extends BlobStore, AsyncDisposable {
  /**
   * Waits for calls in flight, at most five seconds, then lets go of files and connections. What a network still holds by then rejects
   * with `HF_CLOSED`, as later calls do, and may have been done.
   */
  close(): Promise<void>;
}

/** Where `createSqliteBlobStore` keeps blobs. */
export interface SqliteBlobStoreOptions {
  /** The file; missing folders are made. */
  path: string;
  /** Default `sqlite`. */
  id?: string;
  /** What a file on NFS, SMB and the like leads to: `refuse` (the default) rejects; `allow` takes it, for one host alone. */
  networkFileSystem?: 'refuse' | 'allow';
}

/** Where `createPostgresBlobStore` keeps blobs. */
export interface PostgresBlobStoreOptions {
  connectionString: string;
  /** Default `postgres`. */
  id?: string;
  /**
   * `table` or `schema.table`, made by the first `put`. Default `holdfast_blobs`; with
   * `base64-text` that of the original, `script_package_blob_data`.
   */
  table?: string;
  /** How bytes are stored: `bytea`, or the text that the original wrote. Default `bytea`. */
  encoding?: 'bytea' | 'base64-text';
}

/** Where `createS3BlobStore` keeps blobs. */
export interface S3BlobStoreOptions {
  bucket: string;
  accessKeyId: string;
  secretAccessKey: string;
  /** Default `us-east-1`. */
  region?: string;
  /** The service's URL. Default: AWS. */
  endpoint?: string;
  /** Whether the bucket stands in the path, not in the host's name. Default `false`. */
  forcePathStyle?: boolean;
  /** Default `script-packages/blobs/`. */
  prefix?: string;
  /** Default `s3`. */
  id?: string;
}
