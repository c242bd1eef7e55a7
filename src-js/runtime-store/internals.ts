/** What the parts of the runtime store know of each other, and users do not see. */
import { invalidArgument } from '../check';
import type { Faults } from '../../native';
import type { FileLockOptions, RuntimeStoreManifest } from './types';
import type { RuntimeStoreManifestStore } from './manifest-store';
import type { RuntimeStoreReceiptStore } from './receipt-store';
import type { RuntimeStoreFileInspector } from './inspector';

/** What the batch protocol needs of a versioned JSON store. */
export interface StoreParts<T> {
  /** Absolute. */
  filePath: string;
  lockOptions: FileLockOptions;
  clock: () => Date;
  defaultData: () => T;
}

/** What it needs of a manifest or receipt store. */
export interface ControlParts<T> {
  store: StoreParts<T>;
  /** The clock for times inside the data. */
  clock: () => Date;
  /** Schema names besides the built-in ones. */
  extraNames: string[];
}

const storeParts = new WeakMap<object, StoreParts<unknown>>();
const manifestParts = new WeakMap<object, ControlParts<RuntimeStoreManifest>>();
const receiptParts = new WeakMap<object, ControlParts<unknown>>();
const inspectorDirs = new WeakMap<object, string>();

export function registerStore<T>(store: object, parts: StoreParts<T>): void {
  storeParts.set(store, parts);
}

export function registerManifest(owner: object, parts: ControlParts<RuntimeStoreManifest>): void {
  manifestParts.set(owner, parts);
}

export function registerReceipts(owner: object, parts: ControlParts<unknown>): void {
  receiptParts.set(owner, parts);
}

/** Stores whose sidecar keeps a copy of the file after each write: manifests. */
const copyTargets = new WeakMap<object, string>();

export function keepCopies(store: object, filePath: string): void {
  copyTargets.set(store, filePath);
}

export function copyTargetOf(store: object): string | undefined {
  return copyTargets.get(store);
}

export function registerInspector(inspector: object, dir: string): void {
  inspectorDirs.set(inspector, dir);
}

export function partsOfStore<T>(store: unknown, argument: string): StoreParts<T> {
  const parts = storeParts.get(store as object);
  if (parts === undefined) throw invalidArgument(argument, 'a VersionedJsonStore of this package', store);
  return parts as StoreParts<T>;
}

export function partsOfManifest(store: RuntimeStoreManifestStore, argument = 'manifestStore'): ControlParts<RuntimeStoreManifest> {
  const parts = manifestParts.get(store);
  if (parts === undefined) throw invalidArgument(argument, 'a RuntimeStoreManifestStore of this package', store);
  return parts;
}

/** `manifest` is the one that the receipts belong to: the two never share a file. */
export function partsOfReceipts(
  store: RuntimeStoreReceiptStore,
  manifest: ControlParts<RuntimeStoreManifest>,
  argument = 'receiptStore',
): ControlParts<unknown> {
  const parts = receiptParts.get(store);
  if (parts === undefined) throw invalidArgument(argument, 'a RuntimeStoreReceiptStore of this package', store);
  if (parts.store.filePath === manifest.store.filePath) throw invalidArgument(argument, 'a store of another file than the manifest', parts.store.filePath);
  return parts;
}

export function directoryOf(inspector: RuntimeStoreFileInspector): string {
  const dir = inspectorDirs.get(inspector);
  if (dir === undefined) throw invalidArgument('inspector', 'a RuntimeStoreFileInspector of this package', inspector);
  return dir;
}

/** Returns the file of a manifest store. */
export function manifestFilePath(store: RuntimeStoreManifestStore): string {
  return partsOfManifest(store).store.filePath;
}

/** Reads a caller's clock. */
export function isoTime(clock: () => Date, argument: string): string {
  const date = clock();
  const ms = date instanceof Date ? date.getTime() : Object.prototype.toString.call(date) === '[object Date]' ? Number(date) : NaN;
  if (Number.isNaN(ms)) throw invalidArgument(argument, 'a function that returns a valid Date', date);
  return new Date(ms).toISOString();
}

/** Where a runtime store is, as the engine wants it. */
export interface Place {
  dir: string;
  manifest: string;
  receipts: string;
  extraNames: string[];
  processOnly: boolean;
  lock: FileLockOptions;
  held?: string[];
}

/** Fault rules of a handle; `undefined` in production. */
export type FaultRules = Faults | undefined;
