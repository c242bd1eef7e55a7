/** Types of publishing. */
import type { BlobStore } from './blob-types';
import type { InstallerLock, ManifestEntry, PackageSpec, PackagesLogger } from './types';

/** How big a set of packages may be. */
export interface SizeCapConfig {
  /** Above so many bytes there is a warning. */
  warnBytes: number;
  /** Above so many bytes an install is refused. */
  blockBytes: number;
}

/** A verdict on the size of a set of packages. */
export type SizeCapVerdict = { level: 'ok' } | { level: 'warn'; message: string } | { level: 'block'; message: string };

/** A package that a resolver found, with its blob. */
export interface ResolvedPackage {
  entry: ManifestEntry;
  blob: Uint8Array;
}

/** What to install. */
export interface InstallInputs {
  packages: PackageSpec[];
  ignoreScripts: boolean;
}

/** What an install published. */
export interface InstallResult {
  lockfileHash: string;
  manifest: ManifestEntry[];
  totalSizeBytes: number;
  /** The integrities that the store did not have before. */
  publishedIntegrities: string[];
}

/** Where an install publishes. With `get`, the hash of a blob that is there already is that of the stored bytes. */
export type BlobPublisher = Pick<BlobStore, 'id' | 'has' | 'put'> & Partial<Pick<BlobStore, 'get'>>;

/** Finds packages. */
export interface Resolver {
  resolve(inputs: InstallInputs): Promise<ResolvedPackage[]>;
}

/** How an install publishes. */
export interface Publishing {
  resolver: Resolver;
  blobStore: BlobPublisher;
  blobIndex: { record(row: { integrity: string; name: string; version: string; backend: string; sizeBytes: number }): Promise<void> };
}

/** The state of installs, as the program keeps it. */
export interface InstallStateStore {
  load(): Promise<unknown>;
  setInstalling(): Promise<void>;
  setReady(result: Omit<InstallResult, 'publishedIntegrities'>): Promise<void>;
  setError(message: string): Promise<void>;
}

/** What `runInstallNow` works with. */
export interface InstallControllerDeps extends Publishing {
  installState: InstallStateStore;
  installerLock: InstallerLock;
  loadInstallInputs(): Promise<InstallInputs>;
  sizeCap(): Promise<SizeCapConfig>;
  isMigrationInFlight(): Promise<boolean>;
  emitChanged(change: { lockfileHash: string }): Promise<void>;
  recordHistory?(row: { lockfileHash: string; manifest: ManifestEntry[] }): Promise<void>;
  logger?: PackagesLogger;
}
