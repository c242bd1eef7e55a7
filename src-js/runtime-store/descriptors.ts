/** The stores that exist: the ten of the original format, legal values, and how an application describes its own. */
import { join, sep } from 'node:path';

import { checkArray, checkNonEmptyString, checkOneOf, checkPath, checkPlainObject, checkPositiveInteger, invalidArgument } from '../check';
import type {
  RuntimeStoreBuiltInSchemaName,
  RuntimeStoreCriticality,
  RuntimeStoreDescriptor,
  RuntimeStoreManifestEntryState,
  RuntimeStoreOwner,
  RuntimeStoreRebuildStrategy,
  RuntimeStoreWriteBatchReason,
  RuntimeStoreWriteBatchState,
} from './types';

/** The version of the manifest's envelope and data. */
export const OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION = 1;

/** The version of the envelope of the receipts. */
export const OPENCODE_RUNTIME_STORE_RECEIPT_SCHEMA_VERSION = 1;

/** Every value of {@link RuntimeStoreBuiltInSchemaName}. @internal */
export const RUNTIME_STORE_SCHEMA_NAMES: ReadonlySet<RuntimeStoreBuiltInSchemaName> = new Set([
  'opencode.launchState',
  'opencode.sessionStore',
  'opencode.launchTransaction',
  'opencode.deliveryJournal',
  'opencode.promptDeliveryLedger',
  'opencode.permissionRequests',
  'opencode.hostLeases',
  'opencode.compatibilitySnapshot',
  'opencode.runtimeRevision',
  'opencode.runtimeDiagnostics',
  'opencode.e2eEvidence',
]);

/** Every value of {@link RuntimeStoreCriticality}. @internal */
export const RUNTIME_STORE_CRITICALITIES: ReadonlySet<RuntimeStoreCriticality> = new Set([
  'readiness_blocking',
  'rebuildable_from_provider',
  'rebuildable_from_canonical_destination',
  'diagnostic_only',
]);

/** Every value of {@link RuntimeStoreOwner}. @internal */
export const RUNTIME_STORE_OWNERS: ReadonlySet<RuntimeStoreOwner> = new Set([
  'launch',
  'session',
  'delivery',
  'permission',
  'host',
  'compatibility',
  'ui',
  'diagnostics',
  'e2e',
]);

/** Every value of {@link RuntimeStoreRebuildStrategy}. @internal */
export const RUNTIME_STORE_REBUILD_STRATEGIES: ReadonlySet<RuntimeStoreRebuildStrategy> = new Set([
  'none',
  'poll_opencode_provider',
  'verify_canonical_destinations',
  'rerun_capability_discovery',
  'rebuild_from_launch_state',
  'drop_after_quarantine',
]);

/** Every value of {@link RuntimeStoreManifestEntryState}. @internal */
export const RUNTIME_STORE_ENTRY_STATES: ReadonlySet<RuntimeStoreManifestEntryState> = new Set([
  'healthy',
  'missing',
  'quarantined',
  'future_schema',
  'hash_mismatch',
  'stale_run',
  'rebuild_required',
  'uncommitted_write',
]);

/** Every value of {@link RuntimeStoreWriteBatchReason}. @internal */
export const RUNTIME_STORE_BATCH_REASONS: ReadonlySet<RuntimeStoreWriteBatchReason> = new Set([
  'launch_checkpoint',
  'permission_reconcile',
  'delivery_commit',
  'host_lease_update',
  'compatibility_discovery',
  'stop_tombstone',
  'migration',
  'recovery',
]);

/** Every value of {@link RuntimeStoreWriteBatchState}. @internal */
export const RUNTIME_STORE_BATCH_STATES: ReadonlySet<RuntimeStoreWriteBatchState> = new Set(['preparing', 'committing', 'committed', 'failed']);

function builtIn(
  name: string,
  relativePath: string,
  criticality: RuntimeStoreCriticality,
  owner: RuntimeStoreOwner,
  rebuildStrategy: RuntimeStoreRebuildStrategy,
): RuntimeStoreDescriptor {
  const schemaName = `opencode.${name}` as RuntimeStoreBuiltInSchemaName;
  return { schemaName, schemaVersion: 1, relativePath, criticality, owner, rebuildStrategy };
}

/** The ten stores of the original format, in the order in which plans list them. `opencode.e2eEvidence` is a legal name without a descriptor. */
export const OPENCODE_RUNTIME_STORE_DESCRIPTORS: RuntimeStoreDescriptor[] = [
  builtIn('launchState', 'launch-state.json', 'readiness_blocking', 'launch', 'none'),
  builtIn('sessionStore', 'opencode-sessions.json', 'rebuildable_from_provider', 'session', 'poll_opencode_provider'),
  builtIn('launchTransaction', 'opencode-launch-transaction.json', 'readiness_blocking', 'launch', 'none'),
  builtIn(
    'deliveryJournal',
    'opencode-delivery-journal.json',
    'rebuildable_from_canonical_destination',
    'delivery',
    'verify_canonical_destinations',
  ),
  builtIn(
    'promptDeliveryLedger',
    'opencode-prompt-delivery-ledger.json',
    'rebuildable_from_canonical_destination',
    'delivery',
    'verify_canonical_destinations',
  ),
  builtIn('permissionRequests', 'opencode-permissions.json', 'rebuildable_from_provider', 'permission', 'poll_opencode_provider'),
  builtIn('hostLeases', 'opencode-host-leases.json', 'rebuildable_from_provider', 'host', 'poll_opencode_provider'),
  builtIn('compatibilitySnapshot', 'opencode-compatibility.json', 'readiness_blocking', 'compatibility', 'rerun_capability_discovery'),
  builtIn('runtimeRevision', 'opencode-runtime-revision.json', 'readiness_blocking', 'ui', 'rebuild_from_launch_state'),
  builtIn('runtimeDiagnostics', 'opencode-diagnostics.json', 'diagnostic_only', 'diagnostics', 'drop_after_quarantine'),
];

/** A {@link RuntimeStoreDescriptor} whose name the compiler need not know. */
export type RuntimeStoreDescriptorInput = Omit<RuntimeStoreDescriptor, 'schemaName'> & {
  /** The name: any string that is not blank. A prefix of your own (`shop.cart`) keeps it apart from other names. */
  schemaName: string;
};

/**
 * Checks the descriptors of one runtime directory and returns copies of them, ready for a writer, a planner and an executor.
 * An application's own names may stand beside the built-in ones:
 *
 * ```ts
 * const descriptors = defineRuntimeStoreDescriptors([
 *   ...OPENCODE_RUNTIME_STORE_DESCRIPTORS,
 *   { schemaName: 'shop.cart', schemaVersion: 1, relativePath: 'cart.json', criticality: 'diagnostic_only', owner: 'ui', rebuildStrategy: 'none' },
 * ]);
 * ```
 *
 * A manifest or receipts file with other names than the built-in ones cannot be read by the JSON-file implementation. Whether
 * `relativePath` stays inside the directory is checked by those who know the directory: the writer and the inspector.
 *
 * @param descriptors At least one. Unknown keys are dropped.
 * @throws HoldfastError `HF_INVALID_ARGUMENT`, if a value is not legal, or two descriptors share a name or a file.
 */
export function defineRuntimeStoreDescriptors(descriptors: readonly RuntimeStoreDescriptorInput[]): RuntimeStoreDescriptor[] {
  if (checkArray(descriptors, 'descriptors').length === 0) {
    throw invalidArgument('descriptors', 'an array with at least one descriptor', descriptors);
  }
  const names = new Map<string, number>();
  const files = new Map<string, number>();
  return Array.from(descriptors, (value, index) => {
    const argument = `descriptors[${index}]`;
    const descriptor = checkRuntimeStoreDescriptor(value, argument);
    requireFirst(names, descriptor.schemaName, `${argument}.schemaName`, descriptor.schemaName, index);
    // `./a.json` and `/a.json` are the same file as `a.json`.
    requireFirst(files, join(sep, descriptor.relativePath), `${argument}.relativePath`, descriptor.relativePath, index);
    return descriptor;
  });
}

/**
 * Checks one descriptor and returns a copy without unknown keys.
 *
 * @internal
 */
export function checkRuntimeStoreDescriptor(value: RuntimeStoreDescriptorInput, argument: string): RuntimeStoreDescriptor {
  checkPlainObject(value, argument);
  checkNonEmptyString(value.relativePath, `${argument}.relativePath`);
  return {
    schemaName: checkNonEmptyString(value.schemaName, `${argument}.schemaName`) as RuntimeStoreDescriptor['schemaName'],
    schemaVersion: checkPositiveInteger(value.schemaVersion, `${argument}.schemaVersion`),
    relativePath: checkPath(value.relativePath, `${argument}.relativePath`),
    criticality: checkOneOf(value.criticality, `${argument}.criticality`, RUNTIME_STORE_CRITICALITIES),
    owner: checkOneOf(value.owner, `${argument}.owner`, RUNTIME_STORE_OWNERS),
    rebuildStrategy: checkOneOf(value.rebuildStrategy, `${argument}.rebuildStrategy`, RUNTIME_STORE_REBUILD_STRATEGIES),
  };
}

/**
 * Returns the schema names of an option `descriptors`, which may be left out.
 *
 * @internal
 */
export function schemaNamesOf(descriptors: readonly RuntimeStoreDescriptor[] | undefined, argument: string): string[] {
  if (descriptors === undefined) return [];
  return Array.from(checkArray(descriptors, argument), (value, index) => checkRuntimeStoreDescriptor(value, `${argument}[${index}]`).schemaName);
}

/**
 * Checks a list of schema names and returns a copy.
 *
 * @internal
 */
export function checkSchemaNames(names: readonly string[], argument: string): string[] {
  return Array.from(checkArray(names, argument), (name, index) => checkNonEmptyString(name, `${argument}[${index}]`));
}

function requireFirst(seen: Map<string, number>, key: string, argument: string, value: string, index: number): void {
  const first = seen.get(key);
  if (first !== undefined) throw invalidArgument(argument, `another one than that of descriptors[${first}]`, value);
  seen.set(key, index);
}
