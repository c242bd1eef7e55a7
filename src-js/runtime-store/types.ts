/** The shapes of the runtime store: what is on disk, what a plan says, and what the options take. */
import type { VersionedJsonStoreFailureReason } from '../errors';

// ── versioned JSON file ──

/** What a versioned JSON file holds. */
export interface VersionedJsonStoreEnvelope<T> {
  /** The version of `data`'s shape: an integer of 1 or more. */
  schemaVersion: number;
  /** When the file was written: the store's clock as `Date#toISOString()`. */
  updatedAt: string;
  /** The caller's data. */
  data: T;
}

/** `missing`: there is no such file, and the data is the default; `loaded`: the data is the file's. */
export type VersionedJsonStoreReadStatus = 'missing' | 'loaded';

/** What a read found. Bad content is a result, not a throw; only I/O errors reject. */
export type VersionedJsonStoreReadResult<T> =
  | {
      /** The data can be used. */
      ok: true;
      /** Whether the data comes from the file. */
      status: VersionedJsonStoreReadStatus;
      /** The validated data. */
      data: T;
      /** The envelope, with the version that the file has; `null` when the file is missing. */
      envelope: VersionedJsonStoreEnvelope<T> | null;
    }
  | {
      /** The content was refused. */
      ok: false;
      /** Why. */
      reason: VersionedJsonStoreFailureReason;
      /** The same in words, with the path. */
      message: string;
      /** Where a copy of the bad bytes was put; `null` if that copy could not be made. The bad file stays where it is. */
      quarantinePath: string | null;
    };

/** What an update did. */
export interface VersionedJsonStoreUpdateResult<T> {
  /** Whether the file was written. Data that is equal as JSON is not written again. */
  changed: boolean;
  /** The validated data that the file now holds. */
  data: T;
  /** The envelope that belongs to `data`. */
  envelope: VersionedJsonStoreEnvelope<T>;
}

/** How to take a file lock. All times in milliseconds, all 0 or more. */
export interface FileLockOptions {
  /** How long to try; at least one attempt is made, with 0 exactly one. Default 5000. */
  acquireTimeoutMs?: number;
  /** From what age on somebody else's lock may be broken. Default 30000. */
  staleTimeoutMs?: number;
  /** Longest pause between two attempts. Default 20. */
  retryIntervalMs?: number;
  /**
   * Write process id 0 into the lock file, for folders that are shared between containers or machines, where a process id means
   * nothing. Programs with the original protocol then go by age alone. Default `false`.
   */
  sharedVolume?: boolean;
}

// ── atomic files ──

/** How to replace a file in one step. */
export interface AtomicWriteOptions {
  /** Permission bits of the new file. Default: those of the file that is replaced, else what the process's umask leaves. */
  mode?: number;
  /** Whether to sync the folder afterwards, so that the new name survives a power cut. Default `false`. */
  syncDirectory?: boolean;
  /** `best-effort` goes on when a sync fails, `strict` rejects. Default `best-effort`. */
  durability?: 'best-effort' | 'strict';
  /** Awaited before every attempt to publish, when the new bytes are complete; a rejection leaves the target as it was. */
  beforeCommit?: () => Promise<void>;
}

/** The identity of a file that was created. */
export interface AtomicCreateResult {
  /** Device number, as in `fs.Stats`. */
  dev: number;
  /** Inode number, as in `fs.Stats`. */
  ino: number;
}

// ── names and descriptors ──

/** The schema names that are always legal. */
export type RuntimeStoreBuiltInSchemaName =
  | 'opencode.launchState'
  | 'opencode.sessionStore'
  | 'opencode.launchTransaction'
  | 'opencode.deliveryJournal'
  | 'opencode.promptDeliveryLedger'
  | 'opencode.permissionRequests'
  | 'opencode.hostLeases'
  | 'opencode.compatibilitySnapshot'
  | 'opencode.runtimeRevision'
  | 'opencode.runtimeDiagnostics'
  | 'opencode.e2eEvidence';

/**
 * Names of an application's own stores. Empty here; an application adds its names once, and the compiler knows them from then on
 * (the values mean nothing):
 *
 * ```ts
 * declare module 'holdfast' {
 *   interface RuntimeStoreOwnSchemaNames {
 *     'shop.cart': true;
 *   }
 * }
 * ```
 *
 * At run time the names come from the descriptors: see {@link defineRuntimeStoreDescriptors}.
 */
export interface RuntimeStoreOwnSchemaNames {}

/** The name of a store: a built-in one, or one that the application added to {@link RuntimeStoreOwnSchemaNames}. */
export type RuntimeStoreSchemaName = RuntimeStoreBuiltInSchemaName | Extract<keyof RuntimeStoreOwnSchemaNames, string>;

/**
 * What a store is worth when it is damaged. `readiness_blocking`: the application must not start without it;
 * `rebuildable_from_provider`, `rebuildable_from_canonical_destination`: it can be made again, until then readiness is degraded;
 * `diagnostic_only`: readiness does not depend on it.
 */
export type RuntimeStoreCriticality =
  | 'readiness_blocking'
  | 'rebuildable_from_provider'
  | 'rebuildable_from_canonical_destination'
  | 'diagnostic_only';

/** The part of the application that a store belongs to. Kept for people; nothing is decided by it. */
export type RuntimeStoreOwner = 'launch' | 'session' | 'delivery' | 'permission' | 'host' | 'compatibility' | 'ui' | 'diagnostics' | 'e2e';

/** How a damaged store gets new content; {@link buildRecoveryAction} turns it into an action. */
export type RuntimeStoreRebuildStrategy =
  | 'none'
  | 'poll_opencode_provider'
  | 'verify_canonical_destinations'
  | 'rerun_capability_discovery'
  | 'rebuild_from_launch_state'
  | 'drop_after_quarantine';

/** What is fixed about a store: its name, its file, and what its loss means. */
export interface RuntimeStoreDescriptor {
  /** The name, unique within a directory. */
  schemaName: RuntimeStoreSchemaName;
  /** The highest version of the data that is understood, and the one that is written: an integer of 1 or more. */
  schemaVersion: number;
  /** The file, relative to the runtime directory and inside it. A leading slash still means inside. */
  relativePath: string;
  /** What its loss means for readiness. */
  criticality: RuntimeStoreCriticality;
  /** Whose it is. */
  owner: RuntimeStoreOwner;
  /** How it is made again. */
  rebuildStrategy: RuntimeStoreRebuildStrategy;
}

// ── what is on disk ──

/** What a set of bytes belongs to: a run, the capabilities it started with, and a fingerprint of its behaviour. */
export interface RuntimeStoreIdentity {
  /** The launch, or `null` for none. */
  runId: string | null;
  /** The snapshot of the provider's capabilities, or `null`. */
  capabilitySnapshotId: string | null;
  /** The fingerprint of the behaviour, or `null`. */
  behaviorFingerprint: string | null;
}

/**
 * The state of a store file. `uncommitted_write`: the file is there but the manifest does not know it; `hash_mismatch`: its bytes
 * are not the committed ones; `quarantined`: it is not a store file. `stale_run` and `rebuild_required` are legal on disk and never produced.
 */
export type RuntimeStoreManifestEntryState =
  | 'healthy'
  | 'missing'
  | 'quarantined'
  | 'future_schema'
  | 'hash_mismatch'
  | 'stale_run'
  | 'rebuild_required'
  | 'uncommitted_write';

/** Which bytes of one store are the committed ones. */
export interface RuntimeStoreManifestEntry extends RuntimeStoreIdentity {
  /** The store. */
  schemaName: RuntimeStoreSchemaName;
  /** The version of its data. */
  schemaVersion: number;
  /** Its file, relative to the runtime directory. */
  relativePath: string;
  /** `sha256:` and the lower-case hex of the hash over the whole file text, or `null` if unknown. */
  contentHash: string | null;
  /** Size in bytes. Recorded, never compared. */
  fileSize: number | null;
  /** Modification time in milliseconds since 1970, with fractions. Recorded, never compared. */
  mtimeMs: number | null;
  /** The receipt of the write that made these bytes. */
  lastWriteReceiptId: string | null;
  /** The state when the entry was written; `healthy` after every batch. */
  state: RuntimeStoreManifestEntryState;
}

/** Which bytes of a runtime directory are the committed ones. */
export interface RuntimeStoreManifest {
  /** The version of this shape. */
  schemaVersion: 1;
  /** The owner of the directory. */
  teamName: string;
  /** The current run, or `null`. */
  activeRunId: string | null;
  /** The current capability snapshot, or `null`. */
  activeCapabilitySnapshotId: string | null;
  /** The current behaviour fingerprint, or `null`. */
  activeBehaviorFingerprint: string | null;
  /** How many batches have been applied. */
  highWatermark: number;
  /** The batch that was applied last, or `null`. */
  lastCommittedBatchId: string | null;
  /** A batch that was begun and is not applied, or `null`. */
  lastPreparingBatchId: string | null;
  /** One entry per store, sorted by `schemaName`. */
  entries: RuntimeStoreManifestEntry[];
  /** The recovery plan that was recorded last, or `null`. */
  lastRecoveryPlanId: string | null;
  /** When the manifest was changed last, as `Date#toISOString()`. */
  updatedAt: string;
}

/** Why a batch was written. Kept for people; nothing is decided by it. */
export type RuntimeStoreWriteBatchReason =
  | 'launch_checkpoint'
  | 'permission_reconcile'
  | 'delivery_commit'
  | 'host_lease_update'
  | 'compatibility_discovery'
  | 'stop_tombstone'
  | 'migration'
  | 'recovery';

/** What a batch wrote to one store. Unknown keys on it are kept through every rewrite. */
export interface RuntimeStoreWriteReceipt extends RuntimeStoreIdentity {
  /** Unique id of the receipt. */
  receiptId: string;
  /** The batch that it belongs to. */
  batchId: string;
  /** The store. */
  schemaName: RuntimeStoreSchemaName;
  /** The owner of the directory. */
  teamName: string;
  /** The version of the data. */
  schemaVersion: number;
  /** The file, relative to the runtime directory. */
  relativePath: string;
  /** `sha256:` and the lower-case hex of the hash over the whole file text. */
  contentHash: string;
  /** Size in bytes. */
  fileSize: number;
  /** Modification time in milliseconds since 1970, with fractions. */
  mtimeMs: number;
  /** When the store was written, as `Date#toISOString()`. */
  writtenAt: string;
}

/** The state of a batch. Only `committed` is a success; anything but `committed` counts as unfinished business. */
export type RuntimeStoreWriteBatchState = 'preparing' | 'committing' | 'committed' | 'failed';

/** The record of several stores that were written as one. Unknown keys on it are kept through every rewrite. */
export interface RuntimeStoreWriteBatch extends RuntimeStoreIdentity {
  /** Unique id of the batch. */
  batchId: string;
  /** The owner of the directory. */
  teamName: string;
  /** Why it was written. */
  reason: RuntimeStoreWriteBatchReason;
  /** When it was begun, as `Date#toISOString()`. */
  startedAt: string;
  /** When it was committed or failed, or `null`. */
  completedAt: string | null;
  /** How far it came. */
  state: RuntimeStoreWriteBatchState;
  /** One receipt per write, in the order of the writes. */
  receipts: RuntimeStoreWriteReceipt[];
  /** The message of the error that it failed with, or `null`. */
  lastError: string | null;
}

// ── inspection and recovery ──

/** What an inspection of one store file found. */
export interface RuntimeStoreFileInspection {
  /** The store that was inspected. */
  descriptor: RuntimeStoreDescriptor;
  /** What is the matter with it. */
  state: RuntimeStoreManifestEntryState;
  /** The same in words; `null` when healthy. */
  message: string | null;
  /** What was found on disk; `null` if neither file nor manifest entry can tell. */
  entry: RuntimeStoreManifestEntry | null;
  /** What the manifest says; `null` if it does not know the store. */
  manifestEntry: RuntimeStoreManifestEntry | null;
}

/** A batch was committed and its new content is on disk, but not everything that depends on it; `recover()` completes it. By itself it degrades readiness and never blocks it. */
export interface RuntimeStoreRollForwardAction {
  kind: 'roll_forward';
  /** The store that it is about. */
  schemaName: RuntimeStoreSchemaName;
  /** The batch to complete. */
  batchId: string;
  /** `committed_batch_not_applied`: the manifest lacks it; `batch_publish_interrupted`: its files are not all in place. */
  reason: 'committed_batch_not_applied' | 'batch_publish_interrupted';
}

/** An action that a finding asks for. */
export interface RuntimeStoreRepairAction {
  /**
   * `quarantine`: move the file aside; `rebuild_from_provider`, `rebuild_from_canonical_destination`, `rerun_capability_discovery`:
   * make the content again; `block_readiness`: do not start, somebody must look.
   */
  kind: 'quarantine' | 'rebuild_from_provider' | 'rebuild_from_canonical_destination' | 'rerun_capability_discovery' | 'block_readiness';
  /** The store that it is about. */
  schemaName: RuntimeStoreSchemaName;
  /** The state that was found, or the diagnostic text. */
  reason: string;
}

/** What is to be done about one store. */
export type RuntimeStoreRecoveryAction =
  | {
      /** The store is healthy. */
      kind: 'none';
      /** The store that it is about. */
      schemaName: RuntimeStoreSchemaName;
    }
  | RuntimeStoreRepairAction
  | RuntimeStoreRollForwardAction;

/** What is to be done about a runtime directory before the application may start. */
export interface RuntimeStoreRecoveryPlan {
  /** Unique id of the plan. */
  planId: string;
  /** The owner of the directory that was expected. */
  teamName: string;
  /** The run that was expected. */
  runId: string | null;
  /** When the plan was made, as `Date#toISOString()`. */
  createdAt: string;
  /** Whether every action is `none`. It can be `false` while `readinessImpact` is `none`: diagnostic stores do not count. */
  manifestHealthy: boolean;
  /** `blocked`: do not start; `degraded`: a rebuild is needed first; `none`: go. */
  readinessImpact: 'none' | 'degraded' | 'blocked';
  /** One action per descriptor in their order, then one per unfinished batch. */
  actions: RuntimeStoreRecoveryAction[];
  /** The findings in words, in the order of the actions. */
  diagnostics: string[];
}

/** Whether the application may start. */
export interface RuntimeStoreReadinessCheck {
  /** Whether it may. */
  ok: boolean;
  /** The plan's diagnostics and the broken invariants; empty when `ok`. */
  diagnostics: string[];
  /** The answer as a name. */
  reason: 'runtime_store_manifest_valid' | 'runtime_store_recovery_required' | 'runtime_store_rebuild_in_progress';
}

// ── invariants ──

/** A request for a permission, as far as the invariants look at it. */
export interface RuntimeStorePermissionRequestRecord {
  /** Unique id of the request. */
  appRequestId: string;
  /** The run that asked. */
  runId: string | null;
  /** `pending` until it was answered. */
  status?: string;
  /** What `status` is called in records on disk; looked at when there is no `status`. */
  state?: string;
}

/** The data of several stores, whose agreement {@link validateOpenCodeRuntimeStoreInvariants} checks. */
export interface RuntimeStoreCrossStoreInvariantInput {
  /** The launch as a whole. Nothing is checked unless `providerId` is `opencode`. */
  launchState: {
    providerId?: string;
    teamName: string;
    runId: string | null;
    capabilitySnapshotId: string | null;
    /** `ready` once the launch is complete. */
    aggregateState?: string;
    /** The members; `launchState` is `confirmed_alive` once a member has answered. Default: none. */
    members?: { name: string; launchState?: string }[];
  };
  /** The sessions that are known. Default: none. */
  sessionStore: { sessions?: { teamName: string; memberName: string; runId: string | null }[] };
  /** The launch transaction of the run, or `null`. */
  transaction: { status?: string } | null;
  /** The capability snapshot that is in force. */
  compatibilitySnapshot: { snapshotId: string | null };
  /** The manifest of the directory. */
  manifest: RuntimeStoreManifest;
  /** The deliveries that were begun. Default: none. */
  deliveryJournal: { records?: { idempotencyKey: string; runId: string | null; status: string }[] };
  /** The permissions that were asked for. Default: none. */
  permissionStore: { requests?: RuntimeStorePermissionRequestRecord[] };
}
