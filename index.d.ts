// Types of holdfast. Generated from src-js/ by `npm run dts`: edit the sources, not this file.

/** The public interface of Standard Schema, version 1 (https://standardschema.dev), which asks to be copied instead of depended on. */
/** A schema of any library that implements Standard Schema v1: valibot, arktype, effect, a hand-written one … */
export interface StandardSchemaV1<Input = unknown, Output = Input> {
  /** What the standard defines. */
  readonly "~standard": StandardSchemaV1.Props<Input, Output>;
}

/** The parts of the interface. */
export declare namespace StandardSchemaV1 {
  /** What the standard defines. */
  interface Props<Input = unknown, Output = Input> {
    /** The version of the standard. */
    readonly version: 1;
    /** The name of the schema library. */
    readonly vendor: string;
    /** Validates an unknown value. */
    readonly validate: (value: unknown) => Result<Output> | Promise<Result<Output>>;
    /** Types only; never there at run time. */
    readonly types?: Types<Input, Output> | undefined;
  }
  /** What a validation found. */
  type Result<Output> = SuccessResult<Output> | FailureResult;
  /** The value was accepted. */
  interface SuccessResult<Output> {
    /** The value, with defaults and transforms applied. */
    readonly value: Output;
    /** Absent: that is what tells the two results apart. */
    readonly issues?: undefined;
  }
  /** The value was refused. */
  interface FailureResult {
    /** Why. */
    readonly issues: ReadonlyArray<Issue>;
  }
  /** One reason why a value was refused. */
  interface Issue {
    /** The reason in words. */
    readonly message: string;
    /** Where in the value, from the outside in. */
    readonly path?: ReadonlyArray<PropertyKey | PathSegment> | undefined;
  }
  /** One step of an issue's path. */
  interface PathSegment {
    /** The key of the step. */
    readonly key: PropertyKey;
  }
  /** What goes into a schema and what comes out. */
  interface Types<Input = unknown, Output = Input> {
    /** The type of what goes in. */
    readonly input: Input;
    /** The type of what comes out. */
    readonly output: Output;
  }
  /** The type that goes into a schema. */
  type InferInput<Schema extends StandardSchemaV1> = NonNullable<Schema["~standard"]["types"]>["input"];
  /** The type that comes out of a schema. */
  type InferOutput<Schema extends StandardSchemaV1> = NonNullable<Schema["~standard"]["types"]>["output"];
}

/**
 * Every stable error code, in the order of the engine's own list (`src/error.rs`); a test compares the two.
 * `docs/errors.md` has a section for each, with cause and remedy.
 */
export declare const ERROR_CODES: readonly [
  "HF_CLOSED",
  "HF_POISONED",
  "HF_DISK_FULL",
  "HF_IO",
  "HF_BUSY",
  "HF_LOCK_TIMEOUT",
  "HF_INVALID_ARGUMENT",
  "HF_FORMAT_TOO_NEW",
  "HF_PANIC",
  "HF_CORRUPT",
  "HF_UNAVAILABLE",
  "HF_DATABASE",
  "HF_MIGRATION_FAILED",
  "HF_RUNTIME_INVALID_JSON",
  "HF_RUNTIME_INVALID_ENVELOPE",
  "HF_RUNTIME_INVALID_DATA",
  "HF_RUNTIME_FILE_TOO_LARGE",
  "HF_RUNTIME_PATH_ESCAPES",
  "HF_RUNTIME_TEAM_MISMATCH",
  "HF_RUNTIME_BATCH_STALE",
  "HF_RUNTIME_BATCH_EXISTS",
  "HF_RUNTIME_BATCH_NOT_FOUND",
  "HF_RUNTIME_BATCH_PENDING",
  "HF_RUNTIME_LOCK_LOST",
  "HF_RUNTIME_INVALID_MANIFEST",
  "HF_RUNTIME_INVALID_RECEIPTS",
  "HF_RUNTIME_INVALID_TRANSACTIONS",
  "HF_RUNTIME_TRANSACTION_NOT_ACTIVE",
  "HF_RUNTIME_TRANSACTION_NOT_FOUND",
  "HF_RUNTIME_TRANSACTION_STALE",
  "HF_RUNTIME_INVALID_TOMBSTONES",
  "HF_RUNTIME_STALE_EVIDENCE",
  "HF_ENTITY_KIND_INVALID",
  "HF_ENTITY_KIND_DUPLICATE",
  "HF_ENTITY_READ_INVALID",
  "HF_ENTITY_STATE_SCHEMA_INVALID",
  "HF_ENTITY_STORE_UNBOUND",
  "HF_ENTITY_NO_STATE",
  "HF_ENTITY_SUBSCRIBE_INVALID",
  "HF_ENTITY_DERIVER_INVALID",
  "HF_ENTITY_DERIVER_CONFLICT",
  "HF_ENTITY_VALIDATION",
  "HF_ENTITY_STORE_INPUT_INVALID",
  "HF_ENTITY_TABLE_MISSING",
  "HF_ENTITY_APPEND_FAILED",
  "HF_ENTITY_WINDOW_INVALID",
  "HF_PKG_INTEGRITY",
  "HF_PKG_UNSAFE_ENTRY",
  "HF_PKG_ARCHIVE",
  "HF_PKG_PACK",
  "HF_PKG_LAYOUT",
  "HF_PKG_BUN",
  "HF_PKG_DEP_MISSING",
  "HF_PKG_ENTRY_MISSING",
  "HF_PKG_BAD_HASH",
  "HF_PKG_BAD_NAME",
  "HF_PKG_LOCK_TIMEOUT",
  "HF_PKG_NO_BACKEND",
  "HF_PKG_LOCKFILE",
  "HF_LIFECYCLE_SESSION_NOT_FOUND",
  "HF_LIFECYCLE_SESSION_NOT_RESTORABLE",
  "HF_LIFECYCLE_NOTHING_TO_RESUME",
  "HF_LIFECYCLE_INCOMPLETE_HANDLE",
  "HF_LIFECYCLE_SESSION_TERMINATED",
  "HF_LIFECYCLE_SESSION_BUSY",
  "HF_LIFECYCLE_PORT_FAILED",
  "HF_LIFECYCLE_REACTION_DELIVERY_FAILED",
  "HF_LIFECYCLE_CONSTRAINT",
  "HF_LIFECYCLE_STALE_RECORD",
  "HF_LIFECYCLE_CHANGE_LOG_TRUNCATED",
  "HF_LIFECYCLE_SUBSCRIBER_OVERFLOW",
  "HF_GRAPH_SESSION_BINDING_MISMATCH",
  "HF_GRAPH_HEAD_REVISION_CONFLICT",
  "HF_GRAPH_RUNTIME_TURN_COMMIT_CONFLICT",
  "HF_GRAPH_QUEUED_WORK_CLAIM_EXPIRED",
  "HF_GRAPH_UNSUPPORTED_READ_SCOPE",
  "HF_GRAPH_UNSUPPORTED_RECORD_SCHEMA_VERSION",
  "HF_GRAPH_UNSUPPORTED_SCHEMA",
  "HF_GRAPH_NODE_ID_COLLISION",
  "HF_GRAPH_UNKNOWN_LEAF",
  "HF_GRAPH_CYCLE",
  "HF_GRAPH_CORRUPT",
  "HF_GRAPH_MISSING_BLOB",
  "HF_GRAPH_BLOB_CORRUPT",
  "HF_GRAPH_RECORD_DECODE",
  "HF_GRAPH_QUEUE_ROW_CORRUPT",
  "HF_GRAPH_COMMIT_TOO_LARGE",
  "HF_GRAPH_READ_ONLY",
  "HF_GRAPH_STORE_NOT_FOUND",
  "HF_GRAPH_PROCESS_REGISTRY",
  "HF_GRAPH_EFFECT_REPLAY_MISSING",
  "HF_GRAPH_EFFECT_REPLAY_HASH_CONFLICT",
  "HF_GRAPH_EFFECT_REPLAY_LEASE_LOST",
  "HF_GRAPH_EFFECT_REPLAY_KEY_MISSING",
  "HF_GRAPH_EFFECT_REPLAY_CORRUPT_ROW",
  "HF_GRAPH_EFFECT_REPLAY_STORE",
  "HF_GRAPH_HOST_EVENT"
];

/** A stable error code: what {@link HoldfastError.hfCode} holds. */
export type HoldfastErrorCode = (typeof ERROR_CODES)[number];

/** Details of a new {@link HoldfastError}. */
export interface HoldfastErrorOptions {
  /** The stable code. */
  hfCode: HoldfastErrorCode;
  /** Node's own code of an I/O failure (`ENOSPC`). Default: `hfCode`. */
  code?: string;
  /** The error that led to this one. */
  cause?: unknown;
  /** Facts about the failure, which become own properties of the error. They never replace a property that it has already. */
  fields?: Readonly<Record<string, unknown>>;
}

/**
 * The class of every error that holdfast itself raises; the more specific ones extend it. Errors that a caller's own callback
 * throws are not wrapped: they arrive as the same object.
 */
export declare class HoldfastError extends Error {
  /** Node's own code where the operating system refused (`EACCES`, `ENOSPC`), else the same as `hfCode`. */
  readonly code: string;
  /** The stable code of holdfast, the same on every platform. Programs decide by it. */
  readonly hfCode: HoldfastErrorCode;
  /** The file or folder of an I/O failure. */
  readonly path?: string;
  /** The operation that failed, of an I/O failure (`rename`). */
  readonly syscall?: string;
  /** The operating system's error number, negative as in Node's own errors, of an I/O failure. */
  readonly errno?: number;
  /**
   * @param message What happened, to what, and what to do.
   * @param options The stable code, and further details.
   */
  constructor(message: string, options: HoldfastErrorOptions);
}

/** Why the content of a versioned JSON file was refused; the checks run in this order, except that `future_schema` comes before `invalid_data`. */
export type VersionedJsonStoreFailureReason = "invalid_json" | "invalid_envelope" | "invalid_data" | "future_schema";

/** The content of a versioned JSON file cannot be used. The file itself is left as it is. */
export declare class VersionedJsonStoreError extends HoldfastError {
  /** Why the content was refused. */
  readonly reason: VersionedJsonStoreFailureReason;
  /** Where a copy of the bad bytes was put, or `null` if that copy could not be made. */
  readonly quarantinePath: string | null;
  /**
   * @param message What is wrong with which file.
   * @param reason Why the content was refused; it decides the `hfCode`.
   * @param quarantinePath The copy of the bad bytes, or `null`.
   */
  constructor(message: string, reason: VersionedJsonStoreFailureReason, quarantinePath: string | null);
}

/** Why evidence of a run was refused. */
export type RuntimeStaleEvidenceReason = "missing_run_id" | "current_run_missing" | "run_mismatch" | "run_tombstoned";

/** What a piece of evidence about a run is. */
export type RuntimeEvidenceKind = "sse_event" | "permission_reply" | "delivery_call" | "prompt_error" | "bootstrap_checkin" | "launch_checkpoint" | "heartbeat" | "bridge_result" | "recovery_result";

/** Evidence was refused because its run is not, or no longer, the current one. Its `hfCode` is `HF_RUNTIME_STALE_EVIDENCE`. */
export declare class RuntimeStaleEvidenceError extends HoldfastError {
  /** Why the evidence was refused. */
  readonly reason: RuntimeStaleEvidenceReason;
  /** What the evidence was. */
  readonly evidenceKind: RuntimeEvidenceKind;
  /** The run that the evidence named, or `null` if it named none. */
  readonly runId: string | null;
  /**
   * @param message What was refused.
   * @param reason Why.
   * @param evidenceKind What the evidence was.
   * @param runId The run that it named.
   */
  constructor(message: string, reason: RuntimeStaleEvidenceReason, evidenceKind: RuntimeEvidenceKind, runId: string | null);
}

/** A `relativePath` leaves the runtime directory or names a control file. Nothing was touched. Its `hfCode` is `HF_RUNTIME_PATH_ESCAPES`. */
export declare class RuntimeStorePathError extends HoldfastError {
  /** The path as the descriptor has it. */
  readonly relativePath: string;
  /**
   * @param message What is wrong with the path.
   * @param relativePath The path as the descriptor has it.
   */
  constructor(message: string, relativePath: string);
}

/**
 * What is known of a batch whose publication did not finish: `committed` = it stands and will be published; `rolled_back` = it is
 * being undone; `unknown` = what is on disk decides.
 */
export type RuntimeStoreBatchOutcome = "committed" | "rolled_back" | "unknown";

/**
 * A batch has left its mark on disk but its publication, or its undoing, is not finished. The next `writeBatch` or `recover()`
 * on the directory finishes it; do not write the same data again before that. Its `hfCode` is `HF_RUNTIME_BATCH_PENDING`.
 */
export declare class RuntimeStoreBatchPendingError extends HoldfastError {
  /** The batch, as it stands (or will stand) in the receipts. */
  readonly batchId: string;
  /** What is known of the outcome; `undefined` if nothing was said. */
  readonly outcome: RuntimeStoreBatchOutcome | undefined;
  /** What went wrong, and who finishes or undoes the batch. */
  readonly detail?: string;
  /**
   * @param message What is pending.
   * @param batchId The batch.
   * @param outcome What is known of its outcome.
   */
  constructor(message: string, batchId: string, outcome?: RuntimeStoreBatchOutcome);
}

/**
 * A schema without an error class of its own refused a value: a Standard Schema the state that `apply` resolved to, or
 * `EntityChangedSchema` a payload. Its message is that of the first issue, its `hfCode` is `HF_ENTITY_VALIDATION`.
 */
export declare class EntityValidationError extends HoldfastError {
  /** Everything that is wrong with the value. */
  readonly issues: ReadonlyArray<StandardSchemaV1.Issue>;
  /** @param issues What the schema found. */
  constructor(issues: ReadonlyArray<StandardSchemaV1.Issue>);
}

/** The packages module refused something; its `hfCode` begins with `HF_PKG_` and says what. */
export declare class PackageStoreError extends HoldfastError {
}

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
export type VersionedJsonStoreReadStatus = "missing" | "loaded";

/** What a read found. Bad content is a result, not a throw; only I/O errors reject. */
export type VersionedJsonStoreReadResult<T> = {
  /** The data can be used. */
  ok: true;
  /** Whether the data comes from the file. */
  status: VersionedJsonStoreReadStatus;
  /** The validated data. */
  data: T;
  /** The envelope, with the version that the file has; `null` when the file is missing. */
  envelope: VersionedJsonStoreEnvelope<T> | null;
} | {
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

/** How to replace a file in one step. */
export interface AtomicWriteOptions {
  /** Permission bits of the new file. Default: those of the file that is replaced, else what the process's umask leaves. */
  mode?: number;
  /** Whether to sync the folder afterwards, so that the new name survives a power cut. Default `false`. */
  syncDirectory?: boolean;
  /** `best-effort` goes on when a sync fails, `strict` rejects. Default `best-effort`. */
  durability?: "best-effort" | "strict";
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

/** The schema names that are always legal. */
export type RuntimeStoreBuiltInSchemaName = "opencode.launchState" | "opencode.sessionStore" | "opencode.launchTransaction" | "opencode.deliveryJournal" | "opencode.promptDeliveryLedger" | "opencode.permissionRequests" | "opencode.hostLeases" | "opencode.compatibilitySnapshot" | "opencode.runtimeRevision" | "opencode.runtimeDiagnostics" | "opencode.e2eEvidence";

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
export interface RuntimeStoreOwnSchemaNames {
}

/** The name of a store: a built-in one, or one that the application added to {@link RuntimeStoreOwnSchemaNames}. */
export type RuntimeStoreSchemaName = RuntimeStoreBuiltInSchemaName | Extract<keyof RuntimeStoreOwnSchemaNames, string>;

/**
 * What a store is worth when it is damaged. `readiness_blocking`: the application must not start without it;
 * `rebuildable_from_provider`, `rebuildable_from_canonical_destination`: it can be made again, until then readiness is degraded;
 * `diagnostic_only`: readiness does not depend on it.
 */
export type RuntimeStoreCriticality = "readiness_blocking" | "rebuildable_from_provider" | "rebuildable_from_canonical_destination" | "diagnostic_only";

/** The part of the application that a store belongs to. Kept for people; nothing is decided by it. */
export type RuntimeStoreOwner = "launch" | "session" | "delivery" | "permission" | "host" | "compatibility" | "ui" | "diagnostics" | "e2e";

/** How a damaged store gets new content; {@link buildRecoveryAction} turns it into an action. */
export type RuntimeStoreRebuildStrategy = "none" | "poll_opencode_provider" | "verify_canonical_destinations" | "rerun_capability_discovery" | "rebuild_from_launch_state" | "drop_after_quarantine";

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
export type RuntimeStoreManifestEntryState = "healthy" | "missing" | "quarantined" | "future_schema" | "hash_mismatch" | "stale_run" | "rebuild_required" | "uncommitted_write";

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
export type RuntimeStoreWriteBatchReason = "launch_checkpoint" | "permission_reconcile" | "delivery_commit" | "host_lease_update" | "compatibility_discovery" | "stop_tombstone" | "migration" | "recovery";

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
export type RuntimeStoreWriteBatchState = "preparing" | "committing" | "committed" | "failed";

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
  kind: "roll_forward";
  /** The store that it is about. */
  schemaName: RuntimeStoreSchemaName;
  /** The batch to complete. */
  batchId: string;
  /** `committed_batch_not_applied`: the manifest lacks it; `batch_publish_interrupted`: its files are not all in place. */
  reason: "committed_batch_not_applied" | "batch_publish_interrupted";
}

/** An action that a finding asks for. */
export interface RuntimeStoreRepairAction {
  /**
   * `quarantine`: move the file aside; `rebuild_from_provider`, `rebuild_from_canonical_destination`, `rerun_capability_discovery`:
   * make the content again; `block_readiness`: do not start, somebody must look.
   */
  kind: "quarantine" | "rebuild_from_provider" | "rebuild_from_canonical_destination" | "rerun_capability_discovery" | "block_readiness";
  /** The store that it is about. */
  schemaName: RuntimeStoreSchemaName;
  /** The state that was found, or the diagnostic text. */
  reason: string;
}

/** What is to be done about one store. */
export type RuntimeStoreRecoveryAction = {
  /** The store is healthy. */
  kind: "none";
  /** The store that it is about. */
  schemaName: RuntimeStoreSchemaName;
} | RuntimeStoreRepairAction | RuntimeStoreRollForwardAction;

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
  readinessImpact: "none" | "degraded" | "blocked";
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
  reason: "runtime_store_manifest_valid" | "runtime_store_recovery_required" | "runtime_store_rebuild_in_progress";
}

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
    members?: {
      name: string;
      launchState?: string;
    }[];
  };
  /** The sessions that are known. Default: none. */
  sessionStore: {
    sessions?: {
      teamName: string;
      memberName: string;
      runId: string | null;
    }[];
  };
  /** The launch transaction of the run, or `null`. */
  transaction: {
    status?: string;
  } | null;
  /** The capability snapshot that is in force. */
  compatibilitySnapshot: {
    snapshotId: string | null;
  };
  /** The manifest of the directory. */
  manifest: RuntimeStoreManifest;
  /** The deliveries that were begun. Default: none. */
  deliveryJournal: {
    records?: {
      idempotencyKey: string;
      runId: string | null;
      status: string;
    }[];
  };
  /** The permissions that were asked for. Default: none. */
  permissionStore: {
    requests?: RuntimeStorePermissionRequestRecord[];
  };
}

/** The version of the manifest's envelope and data. */
export declare const OPENCODE_RUNTIME_STORE_MANIFEST_SCHEMA_VERSION = 1;

/** The version of the envelope of the receipts. */
export declare const OPENCODE_RUNTIME_STORE_RECEIPT_SCHEMA_VERSION = 1;

/** The ten stores of the original format, in the order in which plans list them. `opencode.e2eEvidence` is a legal name without a descriptor. */
export declare const OPENCODE_RUNTIME_STORE_DESCRIPTORS: RuntimeStoreDescriptor[];

/** A {@link RuntimeStoreDescriptor} whose name the compiler need not know. */
export type RuntimeStoreDescriptorInput = Omit<RuntimeStoreDescriptor, "schemaName"> & {
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
export declare function defineRuntimeStoreDescriptors(descriptors: readonly RuntimeStoreDescriptorInput[]): RuntimeStoreDescriptor[];

/** Options of {@link createRuntimeStoreManifestStore}. */
export interface RuntimeStoreManifestStoreOptions {
  /** The manifest file. The sidecar folder `.holdfast` stands beside it. */
  filePath: string;
  /** The owner of the runtime directory. */
  teamName: string;
  /** Default: the wall clock. */
  clock?: () => Date;
  /** How locks are taken, also those of batches. Defaults: 5000, 30000 and 20 ms. */
  lockOptions?: FileLockOptions;
  /** Descriptors with own schema names, which the manifest may then hold. Default: none. */
  descriptors?: readonly RuntimeStoreDescriptor[];
  /** `'process'` turns syncing off, for tests. Default `'full'`. */
  durability?: "full" | "process";
}

/**
 * Opens the manifest of a runtime directory. Nothing is created before the first write.
 *
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export declare function createRuntimeStoreManifestStore(o: RuntimeStoreManifestStoreOptions): RuntimeStoreManifestStore;

/** Reads and changes a manifest. Batches change it by themselves; see `RuntimeStoreBatchWriter`. */
export declare class RuntimeStoreManifestStore {
  #private;
  /**
   * @param store The file.
   * @param clock Gives the times inside the manifest. Default: the wall clock.
   * @param schemaNames Own schema names that entries may have. Default: none.
   */
  constructor(store: VersionedJsonStore<RuntimeStoreManifest>, clock?: () => Date, schemaNames?: readonly string[]);
  /** Returns the manifest; of a missing file the default one, which is not written. @throws VersionedJsonStoreError */
  read(): Promise<RuntimeStoreManifest>;
  /**
   * Says which run is active. Ids are trimmed, an empty one becomes `null`; of the two optional ids `undefined` keeps what is there.
   * Nothing is written when nothing changes.
   */
  setActiveRun(input: {
    runId: string | null;
    capabilitySnapshotId?: string | null;
    behaviorFingerprint?: string | null;
  }): Promise<RuntimeStoreManifest>;
  /** Notes that a batch has begun, as the original protocol does. holdfast's own batches need no such note. */
  markBatchPreparing(batch: RuntimeStoreWriteBatch): Promise<void>;
  /**
   * Applies a committed batch: an entry per receipt, the active ids, the watermark. Applying the batch that was applied last changes
   * nothing.
   */
  applyCommittedBatch(batch: RuntimeStoreWriteBatch): Promise<RuntimeStoreManifest>;
  /** Notes which recovery plan was acted on. */
  markRecoveryPlan(plan: RuntimeStoreRecoveryPlan): Promise<void>;
  /** Waits for calls in flight; later calls reject with `HF_CLOSED`. Twice is harmless. */
  close(): Promise<void>;
  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Options of {@link createRuntimeStoreReceiptStore}. */
export interface RuntimeStoreReceiptStoreOptions {
  /** The receipts file. */
  filePath: string;
  /** Default: the wall clock. */
  clock?: () => Date;
  /** How its lock is taken. Defaults: 5000, 30000 and 20 ms. */
  lockOptions?: FileLockOptions;
  /** Descriptors with own schema names, which receipts may then hold. Default: none. */
  descriptors?: readonly RuntimeStoreDescriptor[];
  /** `'process'` turns syncing off, for tests. Default `'full'`. */
  durability?: "full" | "process";
}

/**
 * Opens the receipts of a runtime directory. Nothing is created before the first write.
 *
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export declare function createRuntimeStoreReceiptStore(o: RuntimeStoreReceiptStoreOptions): RuntimeStoreReceiptStore;

/** Reads and changes receipts. Batches write them by themselves; see `RuntimeStoreBatchWriter`. */
export declare class RuntimeStoreReceiptStore {
  #private;
  /**
   * @param store The file.
   * @param clock Gives `completedAt`. Default: the wall clock.
   * @param schemaNames Own schema names that receipts may have. Default: none.
   */
  constructor(store: VersionedJsonStore<RuntimeStoreWriteBatch[]>, clock?: () => Date, schemaNames?: readonly string[]);
  /** Appends a batch. @throws HoldfastError `HF_RUNTIME_BATCH_EXISTS` */
  begin(batch: RuntimeStoreWriteBatch): Promise<void>;
  /** Marks a batch as committed. @throws HoldfastError `HF_RUNTIME_BATCH_NOT_FOUND` */
  commit(batch: RuntimeStoreWriteBatch): Promise<void>;
  /** Marks a batch as failed, with the error's message. @throws HoldfastError `HF_RUNTIME_BATCH_NOT_FOUND` */
  fail(batch: RuntimeStoreWriteBatch, error: unknown): Promise<void>;
  /** Returns the batches, oldest first. Old committed ones are moved to an archive; see `receiptRetention` of the writer. */
  list(): Promise<RuntimeStoreWriteBatch[]>;
  /** Returns the team's batches that are not committed, oldest first. */
  listUncommitted(teamName: string): Promise<RuntimeStoreWriteBatch[]>;
  /** Waits for calls in flight; later calls reject with `HF_CLOSED`. Twice is harmless. */
  close(): Promise<void>;
  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Compares store files with what a manifest says of them. It only looks: nothing is moved or written. */
export declare class RuntimeStoreFileInspector {
  #private;
  /** @param teamRuntimeDirectory The runtime directory; it need not exist. */
  constructor(teamRuntimeDirectory: string);
  /**
   * Inspects the file of `descriptor`. The first that applies wins: missing, not JSON, no envelope, written by a newer version, unknown
   * to the manifest, other bytes than committed, healthy.
   *
   * @throws RuntimeStorePathError; HoldfastError with Node's `code` for I/O errors other than a missing file, `HF_INVALID_ARGUMENT`.
   */
  inspect(input: {
    descriptor: RuntimeStoreDescriptor;
    manifest: RuntimeStoreManifest;
  }): Promise<RuntimeStoreFileInspection>;
}

/** Ties a versioned JSON store to a runtime store. */
export interface RuntimeStoreBinding {
  /** The manifest that will know the file. */
  manifestStore: RuntimeStoreManifestStore;
  /** Where the receipts of updates go. */
  receiptStore: RuntimeStoreReceiptStore;
  /** Which store the file is. `relativePath` must lead to the store's `filePath`. */
  descriptor: RuntimeStoreDescriptor;
  /** The runtime directory. Default: the folder of the manifest. */
  directory?: string;
  /** What the receipts give as the reason. Default `'delivery_commit'`. */
  reason?: RuntimeStoreWriteBatchReason;
}

/**
 * One fault to inject into a writer or store. Rules belong to the handle that they are given to and cost nothing where there are
 * none.
 */
export interface RuntimeStoreFault {
  /** A step of the batch protocol, in their order. */
  point?: "after_lock" | "after_stage_files" | "after_commit_point" | "between_publish" | "after_publish" | "before_cleanup" | "in_undo" | "in_recovery";
  /** Or a file operation. */
  op?: "read" | "stat" | "list" | "create" | "write" | "syncFile" | "syncDir" | "rename" | "link" | "remove" | "createDir" | "removeDir";
  /** Only operations on paths that end with this. */
  pathEnds?: string;
  /** Which occurrence, counted from 1; 0 means every one. Default 1. */
  nth?: number;
  /**
   * `'kill'` ends the process at once, as `kill -9` does; `{ errno }` fails with this number of the operating system (28 is "disk
   * full" on Linux); `{ pauseMs }` waits; `{ shortWrite }` lets a write take so many bytes at a time.
   */
  action: "kill" | {
    errno: number;
  } | {
    pauseMs: number;
  } | {
    shortWrite: number;
  };
}

/** Options of a {@link VersionedJsonStore}. */
export interface VersionedJsonStoreOptions<T> {
  /** The file. Missing folders are made by the first write. */
  filePath: string;
  /** The highest version that is understood, and the one that is written; an integer of 1 or more. */
  schemaVersion: number;
  /** Makes the data that stands for a missing file. */
  defaultData: () => T;
  /** Returns the data, normalised if it likes, or throws to reject it. Gets data of older versions, too. */
  validate: (value: unknown) => T;
  /** Gives the time for `updatedAt` and for names of quarantine files. Default: the wall clock. */
  clock?: () => Date;
  /** Where copies of bad files go. Default: the folder of `filePath`. */
  quarantineDir?: string;
  /** How the lock of the file is taken. Defaults: 5000, 30000 and 20 ms. */
  lockOptions?: FileLockOptions;
  /**
   * `'full'` (default): bytes and name are on the disk when an update resolves. `'process'`: nothing is synced; an update survives
   * the process, and may be lost (never torn) in a power cut. For tests.
   */
  durability?: "full" | "process";
  /** Largest file that may be written, in bytes. Default: no limit. */
  maxFileBytes?: number;
  /** Makes updates commit through a runtime store, so that they leave receipts. Default: none. */
  manifest?: RuntimeStoreBinding;
  /** Faults to inject, for tests of one's own recovery. Default: none. */
  faults?: RuntimeStoreFault[];
}

/**
 * A JSON file in an envelope `{ schemaVersion, updatedAt, data }`.
 *
 * Reading takes no lock and never throws for bad content: it says what is wrong, and copies the bad bytes to a quarantine file.
 * Updating holds a lock that other processes honour, and replaces the file whole.
 */
export declare class VersionedJsonStore<T> {
  #private;
  /** @throws HoldfastError `HF_INVALID_ARGUMENT` */
  constructor(options: VersionedJsonStoreOptions<T>);
  /**
   * Reads the file. A missing file gives `validate(defaultData())` and is not created; bad content gives `{ ok: false }` with the
   * path of its quarantine copy.
   *
   * @throws HoldfastError with Node's `code` for I/O errors other than a missing file; what `defaultData` or, for a missing file,
   * `validate` throws; `HF_CLOSED`.
   */
  read(): Promise<VersionedJsonStoreReadResult<T>>;
  /**
   * Changes the data under the lock of the file: reads, calls `updater` with a deep copy that it may change, validates what comes
   * back, and writes it unless it equals the old data as JSON. The lock is held while `updater` runs, however long it takes.
   *
   * @param updater Returns the new data. What it throws or rejects with arrives here unchanged, and nothing is written.
   * @throws VersionedJsonStoreError when the file has bad content, which is never overwritten; what `updater`, `validate` or
   * `defaultData` throw; HoldfastError `HF_LOCK_TIMEOUT`, `HF_RUNTIME_LOCK_LOST`, `HF_RUNTIME_FILE_TOO_LARGE`, `HF_POISONED`,
   * `HF_CLOSED`, or Node's `code` for I/O errors.
   */
  updateLocked(updater: (current: T) => T | Promise<T>): Promise<VersionedJsonStoreUpdateResult<T>>;
  /** Waits for calls in flight; later calls reject with `HF_CLOSED`. Twice is harmless. */
  close(): Promise<void>;
  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Runs `fn` while holding the lock `<filePath>.lock`, which other holdfast processes and programs with the original lock protocol
 * honour. The lock is given back when `fn` settles, also when it throws.
 *
 * Waiters of one process enter in order of arrival. The lock is not re-entrant: taking it again inside `fn` fails at once.
 *
 * @param filePath The file to guard; it need not exist. Missing folders are made.
 * @param fn Runs once, with the lock held.
 * @returns What `fn` returns.
 * @throws HoldfastError `HF_LOCK_TIMEOUT`, message `File lock timeout: <filePath>`, when it is not free within `acquireTimeoutMs`;
 * I/O errors with Node's own `code`.
 */
export declare function withFileLock<T>(filePath: string, fn: () => Promise<T>, options?: FileLockOptions): Promise<T>;

/**
 * As {@link withFileLock}, for synchronous code: it blocks the thread, event loop included, for up to `acquireTimeoutMs`. When this
 * thread's own asynchronous code holds the lock, it fails at once, because that code could never give it back.
 */
export declare function withFileLockSync<T>(filePath: string, fn: () => T, options?: FileLockOptions): T;

/**
 * Replaces a file atomically: a reader sees the old bytes or the new ones, never a mixture. Missing folders are made. Without `mode`
 * the file keeps the mode (and where allowed the owner) of the one it replaces; a symlink is followed.
 *
 * With the default options the file's bytes are synced if the file system can, and its new name is not: after a power cut the old
 * file may be back. For a write that is on the disk when the promise resolves, pass `{ durability: 'strict', syncDirectory: true }`.
 *
 * @throws HoldfastError with Node's `code`. With `strict`, a failed sync of the file leaves the target as it was; a failed sync of the
 * folder rejects after the target was replaced.
 */
export declare function atomicWriteAsync(targetPath: string, data: string | Buffer, options?: AtomicWriteOptions): Promise<void>;

/** As {@link atomicWriteAsync} with the default options and no `beforeCommit`, on the calling thread: it blocks for one file sync. */
export declare function atomicWriteSync(targetPath: string, data: string | Buffer, options?: {
  mode?: number;
}): void;

/**
 * Creates a file that must not exist yet, durably: bytes and name are on the disk when the promise resolves, and the name never
 * stands for less than all bytes.
 *
 * @throws HoldfastError `EEXIST` when the target exists, which then stays as it is; any other I/O error.
 */
export declare function atomicCreateAsync(targetPath: string, data: string | Buffer, options?: {
  mode?: number;
}): Promise<AtomicCreateResult>;

/**
 * Renames, replacing what stands at `dest`. Where a failure may pass by itself (`EBUSY`; on Windows also what virus scanners cause) it
 * is tried again. With `syncDirectories` the folder of `dest` is synced, then that of `src`.
 *
 * @param options.durability `'strict'`: a failed folder sync rejects, after the rename. Default `'best-effort'`.
 */
export declare function renamePathWithRetry(src: string, dest: string, options?: {
  syncDirectories?: boolean;
  durability?: "best-effort" | "strict";
}): Promise<void>;

/** As {@link renamePathWithRetry} without syncs, on the calling thread. */
export declare function renamePathWithRetrySync(src: string, dest: string): void;

/** Forces the names in a folder to the disk. Succeeds where the system cannot sync folders. */
export declare function syncDirectoryDurably(dirPath: string): Promise<void>;

/** Removes a file and forces that to the disk. */
export declare function unlinkPathDurably(filePath: string): Promise<void>;

/**
 * Removes temporary links that an interrupted {@link atomicCreateAsync} left beside its target: files of its naming pattern that are
 * the same inode as the target. Touches nothing else.
 */
export declare function cleanupAtomicCreateTempLinks(targetPath: string): Promise<void>;

/** Options of a {@link RuntimeStoreBatchWriter}. */
export interface RuntimeStoreBatchWriterOptions {
  /** Makes batch ids. Default: `opencode-store-batch-<uuid>`. */
  batchIdFactory?: () => string;
  /** Makes receipt ids. Default: `opencode-store-receipt-<uuid>`. */
  receiptIdFactory?: () => string;
  /** Default: the wall clock. */
  clock?: () => Date;
  /**
   * How many committed batches stay in the receipts file, besides those that own a manifest entry and those that never ended. The
   * rest moves to `.holdfast/receipts.archive.jsonl`. `'all'` keeps every one, and makes each batch cost more than the one before.
   * Default 16.
   */
  receiptRetention?: number | "all";
  /**
   * `'full'` (default): bytes and names are on the disk when `writeBatch` resolves. `'process'`: nothing is synced; a batch survives
   * the process, and a power cut may lose or mix it. For tests.
   */
  durability?: "full" | "process";
  /** Largest store file that may be written, in bytes. Default: no limit. */
  maxFileBytes?: number;
  /** Faults to inject, for tests of one's own recovery. Default: none. */
  faults?: RuntimeStoreFault[];
}

/** What a batch writes. */
export interface RuntimeStoreBatchInput extends RuntimeStoreIdentity {
  /** The owner of the directory; must be the manifest's. */
  teamName: string;
  /** Why it is written. */
  reason: RuntimeStoreWriteBatchReason;
  /** Refuse unless this run is the active one. Default: do not ask. */
  expectedActiveRunId?: string | null;
  /** The stores with their data. Of two writes to one store the last is published. */
  writes: {
    descriptor: RuntimeStoreDescriptor;
    data: unknown;
  }[];
}

/**
 * Writes batches into one runtime directory. Any number of writers, in any number of processes, may work on the same directory; their
 * batches follow one another.
 */
export declare class RuntimeStoreBatchWriter {
  #private;
  /** @throws HoldfastError `HF_INVALID_ARGUMENT` */
  constructor(teamRuntimeDirectory: string, manifestStore: RuntimeStoreManifestStore, receiptStore: RuntimeStoreReceiptStore, options?: RuntimeStoreBatchWriterOptions);
  /**
   * Writes the stores, their receipts and the manifest: all of it or nothing, also when the process is killed or the power fails.
   *
   * Ids, clocks and `JSON.stringify` run first, before any lock, in the order: batch id, start, per write its time and receipt id, end.
   *
   * @returns The committed batch, when all of it is on the disk.
   * @throws What a callback or `JSON.stringify` throws (nothing happened); RuntimeStorePathError; HoldfastError
   * `HF_RUNTIME_TEAM_MISMATCH`, `HF_RUNTIME_BATCH_STALE`, `HF_RUNTIME_BATCH_EXISTS`, `HF_RUNTIME_FILE_TOO_LARGE`, `HF_LOCK_TIMEOUT`,
   * `HF_RUNTIME_LOCK_LOST`, `HF_POISONED`, `HF_CLOSED`, or Node's `code` for I/O errors (the directory is as before);
   * VersionedJsonStoreError for an unreadable manifest or receipts file; RuntimeStoreBatchPendingError when the batch passed its
   * commit point and this process could neither finish nor undo it: the next batch or `recover()` does.
   */
  writeBatch(input: RuntimeStoreBatchInput): Promise<RuntimeStoreWriteBatch>;
  /** Waits for batches in flight; later calls reject with `HF_CLOSED`. Twice is harmless. */
  close(): Promise<void>;
  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What the caller expects to find. */
export interface RuntimeStoreRecoveryPlanInput {
  /** The owner of the directory. */
  teamName: string;
  /** The run that the caller is about to continue, or `null`. */
  expectedRunId: string | null;
  /** Its capability snapshot, or `null`. */
  expectedCapabilitySnapshotId: string | null;
  /** Its behaviour fingerprint, or `null`. */
  expectedBehaviorFingerprint: string | null;
}

/** Options of a {@link RuntimeStoreRecoveryPlanner}. */
export interface RuntimeStoreRecoveryPlannerOptions {
  /** Makes plan ids. Default: `opencode-recovery-plan-<uuid>`. */
  planIdFactory?: () => string;
  /** Default: the wall clock. */
  clock?: () => Date;
  /**
   * Whether a store whose bytes a committed batch wrote, but the manifest does not know yet, is reported as `roll_forward`. `false`
   * classifies as the original did. Default `true`.
   */
  rollForward?: boolean;
}

/** Builds recovery plans. Nothing is written, and no lock is held against writers for longer than one look takes. */
export declare class RuntimeStoreRecoveryPlanner {
  #private;
  /** @throws HoldfastError `HF_INVALID_ARGUMENT` */
  constructor(descriptors: RuntimeStoreDescriptor[], manifestStore: RuntimeStoreManifestStore, receiptStore: RuntimeStoreReceiptStore, inspector: RuntimeStoreFileInspector, options?: RuntimeStoreRecoveryPlannerOptions);
  /**
   * Compares manifest, receipts and files, off the JavaScript thread. While a batch is being published it waits for it, at most 100 ms.
   *
   * @throws VersionedJsonStoreError for an unreadable manifest or receipts file; RuntimeStorePathError; HoldfastError with Node's `code`
   * for I/O errors, `HF_INVALID_ARGUMENT`, `HF_BUSY` when the directory never stood still for two seconds.
   */
  buildPlan(input: RuntimeStoreRecoveryPlanInput): Promise<RuntimeStoreRecoveryPlan>;
}

/** What a rebuild callback gets. */
export interface RuntimeStoreRebuildContext {
  /** The store to make anew. */
  descriptor: RuntimeStoreDescriptor;
  /** Its state: `missing`, `quarantined`, `hash_mismatch` … */
  reason: string;
  /** Where the bad bytes are, or `null` if there were none. */
  quarantinePath: string | null;
}

/** Makes the data of a store anew, or leaves it as it is. */
export type RuntimeStoreRebuild = (context: RuntimeStoreRebuildContext) => Promise<{
  data: unknown;
} | "skip">;

/** Options of a {@link RuntimeStoreRecoveryExecutor}. */
export interface RuntimeStoreRecoveryExecutorOptions {
  /** Callbacks by rebuild strategy. A store whose strategy has none is left to the caller. */
  rebuild?: Partial<Record<RuntimeStoreRebuildStrategy, RuntimeStoreRebuild>>;
  /** Change nothing, and report what would be done. Default `false`. */
  dryRun?: boolean;
  /** Default: the wall clock. */
  clock?: () => Date;
  /** Unfinished records of the original format younger than this are left alone: their writer may live. Milliseconds; default 60000. */
  settleMs?: number;
  /** Faults to inject, for tests of one's own recovery. Default: none. */
  faults?: RuntimeStoreFault[];
}

/** Something that recovery did. */
export interface RuntimeStoreRecoveryStep {
  /** `roll_forward`, `roll_back`, `discard`, `keep_newer`, `supersede`, `quarantine`, `rebuild`, `rebuild_manifest`, `archive`, `remove_leftover`. */
  kind: string;
  /** To which store, where it is about one. */
  schemaName?: string;
  /** For which batch, where it is about one. */
  batchId?: string;
  /** In words. */
  detail: string;
}

/** What `recover()` found, did and left. */
export interface RuntimeStoreRecoveryReport {
  /** The plan before; `null` when a control file could not be read. */
  before: RuntimeStoreRecoveryPlan | null;
  /** What was done, in order; empty when there was nothing to do. */
  steps: RuntimeStoreRecoveryStep[];
  /** The plan after. */
  after: RuntimeStoreRecoveryPlan;
}

/** What {@link RuntimeStoreRecoveryExecutor.verify} found. Times are milliseconds since the epoch, sizes bytes. */
export interface RuntimeStoreVerification {
  /** The plan, or `null` when a control file could not be read. */
  plan: RuntimeStoreRecoveryPlan | null;
  /** The runtime directory. */
  directory: string;
  /** The manifest; `fault` says what is wrong with it. */
  manifest: {
    path: string;
    bytes: number | null;
    fault: string | null;
  };
  /** The receipts; `fault` says what is wrong with them. */
  receipts: {
    path: string;
    bytes: number | null;
    fault: string | null;
  };
  /** Batches applied so far, or `null` when the manifest cannot be read. */
  highWatermark: number | null;
  /** Records in the receipts file. */
  batches: number;
  /** Ids of batches that never ended. */
  unresolved: string[];
  /** Batches that are being written (`alive`) or were interrupted. */
  openBatches: {
    folder: string;
    batchId: string | null;
    state: "incomplete" | "committed" | "aborted";
    alive: boolean;
  }[];
  /** Lock files; `held` by a living holdfast process. */
  locks: {
    path: string;
    content: string;
    held: boolean;
  }[];
  /** Temporary files that somebody left. */
  temporaryFiles: {
    path: string;
    bytes: number;
    modifiedMs: number;
  }[];
  /** Copies of bad files. */
  quarantineFiles: {
    path: string;
    bytes: number;
    modifiedMs: number;
  }[];
  /** Size of the archive of receipts. */
  archiveBytes: number;
  /** The manifest before the newest batch, if it was kept. */
  manifestCopy: string | null;
}

/**
 * Repairs a runtime directory after a crash: settles interrupted batches, moves bad files aside, makes stores anew by the caller's
 * callbacks, and clears away what was left. Bytes are never dropped unreported: they go to quarantine files or the archive.
 */
export declare class RuntimeStoreRecoveryExecutor {
  #private;
  /** @throws HoldfastError `HF_INVALID_ARGUMENT` */
  constructor(teamRuntimeDirectory: string, planner: RuntimeStoreRecoveryPlanner, writer: RuntimeStoreBatchWriter, options?: RuntimeStoreRecoveryExecutorOptions);
  /**
   * Plans, repairs, and plans again. Running it twice does nothing the second time; a crash in the middle is repaired by the next run.
   * The directory is locked during each step, but not while rebuild callbacks run.
   *
   * @throws HoldfastError `HF_FORMAT_TOO_NEW` for control files of a newer version, which stay untouched; what a rebuild callback
   * throws; whatever `writeBatch` throws.
   */
  recover(input: RuntimeStoreRecoveryPlanInput): Promise<RuntimeStoreRecoveryReport>;
  /** Looks at the directory without changing it: plan, open batches, locks, leftovers, quarantine, sizes. For support. */
  verify(input: RuntimeStoreRecoveryPlanInput): Promise<RuntimeStoreVerification>;
}

/**
 * Says what to do about a store in the state that an inspection found. The action's `reason` is the state; a healthy store needs `none`.
 *
 * @param input.descriptor The store; its `rebuildStrategy` decides.
 * @param input.inspected What the inspector found; its `state` decides.
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export declare function buildRecoveryAction(input: {
  descriptor: RuntimeStoreDescriptor;
  inspected: RuntimeStoreFileInspection;
}): RuntimeStoreRecoveryAction;

/**
 * Says whether the application may start. A blocked plan or a broken invariant asks for recovery, a degraded plan for a rebuild;
 * both answers carry the plan's diagnostics and then the broken invariants. A good answer carries none.
 *
 * @param input.recoveryPlan What the planner built.
 * @param input.invariantFailures What {@link validateOpenCodeRuntimeStoreInvariants} returned.
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export declare function buildRuntimeStoreReadiness(input: {
  recoveryPlan: RuntimeStoreRecoveryPlan;
  invariantFailures: string[];
}): RuntimeStoreReadinessCheck;

/**
 * Compares launch state, sessions, deliveries, permissions, transaction and manifest of one run.
 *
 * Permission requests may carry their status as `status` or, as records on disk do, as `state`.
 *
 * @returns One text per contradiction, in a fixed order; none unless `launchState.providerId` is `opencode`.
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export declare function validateOpenCodeRuntimeStoreInvariants(input: RuntimeStoreCrossStoreInvariantInput): string[];

/** Options of the validators. */
export interface RuntimeStoreValidationOptions {
  /** Schema names that are legal besides the built-in ones: an application's own. Default: none. */
  allowedSchemaNames?: Iterable<string>;
}

/**
 * Makes the manifest of a directory in which nothing was written yet: no ids, watermark 0, no entries.
 *
 * @param teamName The owner of the directory; not blank.
 * @param updatedAt The time to put into it, as `Date#toISOString()`; not blank, not parsed.
 * @throws HoldfastError `HF_INVALID_ARGUMENT`
 */
export declare function createDefaultRuntimeStoreManifest(teamName: string, updatedAt: string): RuntimeStoreManifest;

/**
 * Requires the data of a manifest file and returns a manifest with its keys in order and without unknown ones. The entries are
 * the same objects as in `value`, unknown keys included.
 *
 * @param value What `JSON.parse` gave.
 * @throws HoldfastError `HF_RUNTIME_INVALID_MANIFEST`, saying what is wrong first; `HF_INVALID_ARGUMENT` for bad options.
 */
export declare function validateRuntimeStoreManifest(value: unknown, options?: RuntimeStoreValidationOptions): RuntimeStoreManifest;

/**
 * Requires the data of a receipts file and returns it as it is, unknown keys included.
 *
 * @param value What `JSON.parse` gave.
 * @throws HoldfastError `HF_RUNTIME_INVALID_RECEIPTS`, saying what is wrong first. One bad record makes the whole
 *   list invalid. `HF_INVALID_ARGUMENT` for bad options.
 */
export declare function validateRuntimeStoreWriteBatches(value: unknown, options?: RuntimeStoreValidationOptions): RuntimeStoreWriteBatch[];

/** Returns `sha256:` and the lower-case hex of SHA-256 over the UTF-8 bytes of `text`. */
declare function contentHash(text: string): string;

/** The schema version of a file of launch transactions: the highest one understood, and the one written. */
export declare const OPENCODE_LAUNCH_TRANSACTION_SCHEMA_VERSION = 1;
declare const CHECKPOINT_NAMES: readonly [
  "run_created",
  "host_ready",
  "lead_session_recorded",
  "member_session_recorded",
  "mcp_connected",
  "required_tools_proven",
  "prompt_sent",
  "bootstrap_confirmed",
  "permission_blocked",
  "delivery_ready",
  "member_ready",
  "run_ready",
  "run_failed",
  "run_cancelled"
];

/** What a launch has reached. Checkpoints may come in any order and any number. */
export type OpenCodeLaunchCheckpointName = (typeof CHECKPOINT_NAMES)[number];
declare const FINISHED_STATUSES: readonly [
  "ready",
  "failed",
  "cancelled",
  "reconciled"
];

/** How a launch ended. `reconciled` = somebody found it unfinished later, and closed it. */
export type OpenCodeLaunchFinishedStatus = (typeof FINISHED_STATUSES)[number];

/** One proven step of a launch. */
export interface OpenCodeLaunchCheckpoint {
  /** What was reached. */
  name: OpenCodeLaunchCheckpointName;
  /** The team; with `runId` it names the transaction. */
  teamName: string;
  /** The run; with `teamName` it names the transaction. */
  runId: string;
  /** The team member that it is about, or `null` when it is about the whole run. */
  memberName: string | null;
  /** The provider's session, or `null`. */
  runtimeSessionId: string | null;
  /** The host that the session runs on, or `null`. */
  hostKey: string | null;
  /** What proves it, as a hash (`createOpenCodeLaunchEvidenceHash`). A checkpoint with the same name, member and hash is the same one. */
  evidenceHash: string;
  /** When it was reached, as `Date#toISOString()` writes it. Not parsed. */
  createdAt: string;
  /** Notes for people. They are stored as they are: keep secrets out. */
  diagnostics: string[];
}

/** The record of one launch: begun, given checkpoints while it is `active`, then finished once. */
export interface OpenCodeLaunchTransaction {
  /** The team. At most one of its transactions is `active`. */
  teamName: string;
  /** The run. A relaunch may use the id of a finished run again; the newest transaction then stands for it. */
  runId: string;
  /** Always `'opencode'`. */
  providerId: "opencode";
  /** When it began. */
  startedAt: string;
  /** When it last changed: its beginning, its newest checkpoint's `createdAt`, or its end. */
  updatedAt: string;
  /** `active` until it is finished. */
  status: "active" | OpenCodeLaunchFinishedStatus;
  /** What it reached, in the order of recording. */
  checkpoints: OpenCodeLaunchCheckpoint[];
}

/** What {@link canMarkOpenCodeRunReady} looks at. */
export interface OpenCodeRunReadyInput {
  /** The members that must be ready. `launchState: 'confirmed_alive'` means that the member's bootstrap is confirmed. */
  members: {
    name: string;
    launchState?: string;
  }[];
  /** The launch whose checkpoints count. Neither its status nor its run is looked at. */
  transaction: OpenCodeLaunchTransaction;
  /** Whether the tools that the run needs were proven to be there. */
  toolProof: {
    ok: boolean;
  };
  /** Whether messages can be delivered to the run. */
  deliveryReady: boolean;
}

/**
 * Checks the data of a file of launch transactions and returns it as it is, unknown keys included. Time strings are not parsed.
 *
 * @throws {HoldfastError} `HF_RUNTIME_INVALID_TRANSACTIONS`, naming the first bad record
 */
export declare function validateOpenCodeLaunchTransactions(value: unknown): OpenCodeLaunchTransaction[];

/**
 * Tells whether a run may be marked ready, and if not, what is missing.
 *
 * Per member, in order: `<member>:member_session_recorded` and `<member>:required_tools_proven` (missing checkpoints),
 * `<member>:bootstrap_confirmed` (unless the member's `launchState` is `'confirmed_alive'`). Then `required_runtime_tools`
 * (`toolProof.ok`) and `runtime_delivery_service` (`deliveryReady`). `ok` is true when `missing` is empty.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export declare function canMarkOpenCodeRunReady(input: OpenCodeRunReadyInput): {
  ok: boolean;
  missing: string[];
};

/**
 * Tells whether a launch has a checkpoint of that name for that member, whatever its evidence.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export declare function hasMemberCheckpoint(t: OpenCodeLaunchTransaction, memberName: string, name: OpenCodeLaunchCheckpointName): boolean;

/**
 * How long finished launch transactions are kept. By default for ever.
 *
 * Both limits are applied when `beginRun` appends a transaction, so what was just finished can be read until the next launch.
 * An active transaction is never dropped. What was dropped is as if it had never been: `finish` for it says *not found*.
 */
export interface OpenCodeLaunchTransactionRetention {
  /** How many finished transactions to keep per team, the newest ones: an integer, 0 or more. Default: all. */
  maxFinished?: number;
  /**
   * How long to keep a finished transaction after its `updatedAt`, in milliseconds, 0 or more. One whose `updatedAt` is not a
   * time is kept. Default: for ever.
   */
  maxAgeMs?: number;
}

/** Options of {@link createOpenCodeLaunchTransactionStore}. */
export interface OpenCodeLaunchTransactionStoreOptions extends OpenCodeLaunchTransactionRetention {
  /** The file. It and its folder are created by the first `beginRun`. */
  filePath: string;
  /** Where times come from. Default: the wall clock. */
  clock?: () => Date;
  /** Waiting times of the file's lock. */
  lockOptions?: FileLockOptions;
}

/**
 * Opens the launch transactions in a file. Nothing is read or created yet.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export declare function createOpenCodeLaunchTransactionStore(o: OpenCodeLaunchTransactionStoreOptions): OpenCodeLaunchTransactionStore;

/**
 * Launch transactions in one file, shared by any number of processes.
 *
 * Every change is one locked read-modify-write of the file, durable when its promise resolves; nothing is written when it
 * changes nothing or throws. All methods reject with `VersionedJsonStoreError` when the file's content cannot be used, and with
 * `HF_INVALID_ARGUMENT`, before anything is touched, for a bad argument. Where a run id was used again, its *newest*
 * transaction is meant, everywhere.
 */
export declare class OpenCodeLaunchTransactionStore {
  private readonly store;
  private readonly clock;
  private readonly retention;
  /**
   * @param store the file; its `validate` should be {@link validateOpenCodeLaunchTransactions}
   * @param clock where times come from; default: the wall clock
   * @param retention how long finished transactions are kept; default: for ever
   * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
   */
  constructor(store: VersionedJsonStore<OpenCodeLaunchTransaction[]>, clock?: () => Date, retention?: OpenCodeLaunchTransactionRetention);
  /**
   * Begins a launch, unless the team has an active one (of this run or any other): then that one is returned, unchanged.
   *
   * @param i `startedAt` defaults to the clock
   */
  beginRun(i: {
    teamName: string;
    runId: string;
    startedAt?: string;
  }): Promise<{
    state: "created" | "already_active";
    transaction: OpenCodeLaunchTransaction;
  }>;
  /**
   * Records a checkpoint in the launch of `input.teamName` and `input.runId`; `unchanged` when one with the same name, member
   * and evidence hash is there. The transaction's `updatedAt` becomes the checkpoint's `createdAt`.
   *
   * @throws {HoldfastError} `HF_RUNTIME_TRANSACTION_NOT_ACTIVE` when that launch is finished,
   *   `HF_RUNTIME_TRANSACTION_NOT_FOUND` when there is none
   */
  addCheckpoint(input: OpenCodeLaunchCheckpoint): Promise<"created" | "unchanged">;
  /** Tells whether a launch has a checkpoint of that name and member, and, if `evidenceHash` is given, with that evidence. */
  hasCheckpoint(i: {
    teamName: string;
    runId: string;
    memberName: string | null;
    name: OpenCodeLaunchCheckpointName;
    evidenceHash?: string;
  }): Promise<boolean>;
  /** Returns the team's active launch, or `null`. */
  readActive(teamName: string): Promise<OpenCodeLaunchTransaction | null>;
  /** Returns the newest launch of a run, or `null`. */
  read(teamName: string, runId: string): Promise<OpenCodeLaunchTransaction | null>;
  /**
   * Finishes a launch; `unchanged`, with its status kept, when it is finished already.
   *
   * @param i `updatedAt` defaults to the clock
   * @throws {HoldfastError} for an unknown run: `HF_RUNTIME_TRANSACTION_STALE` when another run of the team is active (named in
   *   the message and in the property `activeRunId`), else `HF_RUNTIME_TRANSACTION_NOT_FOUND`
   */
  finish(i: {
    teamName: string;
    runId: string;
    status: OpenCodeLaunchFinishedStatus;
    updatedAt?: string;
  }): Promise<"finished" | "unchanged">;
  /** Returns all transactions of all teams, in the order in which they were begun. */
  list(): Promise<OpenCodeLaunchTransaction[]>;
  /** Waits for calls in flight; later calls reject with `HF_CLOSED`. The file's store is closed with it. Twice is harmless. */
  close(): Promise<void>;
  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Copies launch evidence with every secret replaced by `'[redacted]'`.
 *
 * Arrays and objects are walked to the bottom. The value of every key that matches
 * `/token|secret|password|passwd|api[_-]?key|authorization|cookie|credential/i` is replaced, whatever it holds, without being
 * read. Values are *not* scanned: a secret in a plain text, such as a diagnostic line, stays.
 *
 * Of an object only its own enumerable string keys are taken, in their order, so that a `Date`, `Map` or `Set` becomes `{}`.
 * An own key `__proto__` is copied as a key like any other and never becomes the copy's prototype.
 *
 * @param evidence any value; it is not changed
 * @returns a copy that shares nothing with `evidence`, except functions
 * @throws {TypeError} when `evidence` contains itself
 */
export declare function redactOpenCodeLaunchEvidence(evidence: unknown): unknown;

/**
 * Hashes launch evidence: the `evidenceHash` of a checkpoint.
 *
 * The hash is `sha256:` and the hex SHA-256 of the compact JSON of the redacted evidence
 * ({@link redactOpenCodeLaunchEvidence}) with sorted keys: array indexes (`0` to `4294967294`) first, by number, then the rest
 * by UTF-16 code unit. Keys with the value `undefined` are left out; `NaN`, `Infinity` and `-Infinity` count as strings of
 * their names; everything else is written as `JSON.stringify` writes it. So two pieces of evidence that differ only in the
 * order of keys, or in their secrets, hash alike.
 *
 * @param evidence any value that JSON has a text for
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT` when JSON has no text for `evidence` itself (`undefined`, a function, a symbol)
 * @throws {TypeError} the engine's own, when `evidence` contains itself or a `bigint`
 *
 * @example
 * ```ts
 * createOpenCodeLaunchEvidenceHash({ token: 'a', ok: true }) === createOpenCodeLaunchEvidenceHash({ ok: true, token: 'b' });
 * ```
 */
export declare function createOpenCodeLaunchEvidenceHash(evidence: unknown): string;

/** The schema version of a file of run tombstones: the highest one understood, and the one written. */
export declare const OPENCODE_RUNTIME_RUN_TOMBSTONE_SCHEMA_VERSION = 1;
declare const TOMBSTONE_REASONS: readonly [
  "stop_requested",
  "relaunch_started",
  "run_replaced",
  "provider_session_aborted",
  "recovery_rejected"
];

/** Why a run is over. */
export type RuntimeRunTombstoneReason = (typeof TOMBSTONE_REASONS)[number];

/** The record that evidence of certain kinds is no longer accepted for a run. */
export interface RuntimeRunTombstone {
  /** The record's own id, unique in its file. */
  tombstoneId: string;
  /** The team that the run belonged to. */
  teamName: string;
  /** The run that is over. */
  runId: string;
  /** Why it is over. A run has at most one unexpired tombstone per reason. */
  reason: RuntimeRunTombstoneReason;
  /** The kinds of evidence that are refused, sorted, without repeats. */
  evidenceKinds: RuntimeEvidenceKind[];
  /** When it was added first, as `Date#toISOString()` writes it. */
  createdAt: string;
  /**
   * From when on it counts no longer: it is expired when this is not later than now. `null` = never; a text that is not a time
   * means never, too, so that a damaged record does not let evidence through.
   */
  expiresAt: string | null;
  /** A note for people, or `null`. */
  diagnostic: string | null;
}

/** A piece of evidence that asks to be accepted. */
export interface RuntimeEvidenceAcceptanceInput {
  /** The team. */
  teamName: string;
  /** The run that the evidence names, or `null` if it names none; blank counts as none. */
  runId: string | null;
  /** The run that is current, or `null` if there is none; blank counts as none. */
  currentRunId: string | null;
  /** What the evidence is. */
  evidenceKind: RuntimeEvidenceKind;
}

/**
 * Requires that evidence names the current run. Tombstones are not looked at: that is `assertEvidenceAccepted`.
 *
 * @throws {RuntimeStaleEvidenceError} with the `reason` `missing_run_id`, `current_run_missing` or `run_mismatch`, checked in
 *   this order
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`, also for a kind of evidence that does not exist
 */
export declare function assertRuntimeEvidenceRunMatches(input: RuntimeEvidenceAcceptanceInput): void;

/**
 * Checks the data of a file of run tombstones and returns it as it is, unknown keys included. Time strings are not parsed.
 *
 * @throws {HoldfastError} `HF_RUNTIME_INVALID_TOMBSTONES`, naming the first bad record or repeated id
 */
export declare function validateRuntimeRunTombstones(value: unknown): RuntimeRunTombstone[];

/**
 * Returns the tombstones that are not expired at `now`, in their order. A pure filter: nothing is written or changed.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export declare function compactRuntimeRunTombstones(records: RuntimeRunTombstone[], now: Date): RuntimeRunTombstone[];

/** Options of a {@link RuntimeRunTombstoneStore}. */
export interface RuntimeRunTombstoneOptions {
  /** Where tombstone ids come from. Default: `opencode-run-tombstone-<uuid>`. */
  idFactory?: () => string;
  /** Where times come from. Default: the wall clock. */
  clock?: () => Date;
  /**
   * How long to keep a tombstone that never expires after its `createdAt`, in milliseconds, 0 or more. Default: for ever.
   *
   * `add` and `compact` drop older ones; until then they count. Late evidence of a run whose tombstone was dropped is still
   * refused as long as another run is current. One whose `createdAt` is not a time is kept.
   */
  maxAgeMs?: number;
}

/** Options of {@link createRuntimeRunTombstoneStore}. */
export interface RuntimeRunTombstoneStoreOptions extends RuntimeRunTombstoneOptions {
  /** The file; usually `opencode-run-tombstones.json`. It and its folder are created by the first `add`. */
  filePath: string;
  /** Waiting times of the file's lock. */
  lockOptions?: FileLockOptions;
}

/**
 * Opens the run tombstones in a file. Nothing is read or created yet.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export declare function createRuntimeRunTombstoneStore(o: RuntimeRunTombstoneStoreOptions): RuntimeRunTombstoneStore;

/**
 * Run tombstones in one file, shared by any number of processes.
 *
 * Every change is one locked read-modify-write of the file, durable when its promise resolves. The store fails closed: where its
 * file cannot be used, every method rejects with `VersionedJsonStoreError`, so that no evidence is accepted on the word of a
 * file that nobody can read. Bad arguments reject with `HF_INVALID_ARGUMENT` before anything is touched.
 */
export declare class RuntimeRunTombstoneStore {
  private readonly store;
  private readonly idFactory;
  private readonly clock;
  private readonly maxAgeMs;
  /**
   * @param store the file; its `validate` should be {@link validateRuntimeRunTombstones}
   * @param options ids, clock and retention
   * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
   */
  constructor(store: VersionedJsonStore<RuntimeRunTombstone[]>, options?: RuntimeRunTombstoneOptions);
  /**
   * Adds a tombstone, and drops the expired ones of all teams.
   *
   * Where an unexpired tombstone of the same team, run and reason is there, it is widened instead: it gets the kinds of both and
   * the later expiry of the two (never is the latest). Its id, `createdAt` and `diagnostic` stay. So a second `add` never makes
   * the first one weaker.
   *
   * @param i `evidenceKinds`: what to refuse, default (also for `[]`) all kinds. `ttlMs`: for how long, in milliseconds,
   *   default for ever; 0 or less never takes effect. `diagnostic`: a note for people
   * @returns the tombstone as stored
   */
  add(i: {
    teamName: string;
    runId: string;
    reason: RuntimeRunTombstoneReason;
    evidenceKinds?: RuntimeEvidenceKind[];
    ttlMs?: number;
    diagnostic?: string | null;
  }): Promise<RuntimeRunTombstone>;
  /** Returns the team's unexpired tombstones, in the order in which they were added. Never writes. */
  list(teamName: string): Promise<RuntimeRunTombstone[]>;
  /** Returns the first unexpired tombstone of a run, and, if `evidenceKind` is given, of that kind; else `null`. Never writes. */
  find(i: {
    teamName: string;
    runId: string;
    evidenceKind?: RuntimeEvidenceKind;
  }): Promise<RuntimeRunTombstone | null>;
  /**
   * Resolves when evidence may be accepted. The run ids are checked first, without touching the disk
   * ({@link assertRuntimeEvidenceRunMatches}), then the tombstones of that run and kind. Never writes.
   *
   * @throws {RuntimeStaleEvidenceError} with the `reason` `missing_run_id`, `current_run_missing`, `run_mismatch` or
   *   `run_tombstoned`
   */
  assertEvidenceAccepted(input: RuntimeEvidenceAcceptanceInput): Promise<void>;
  /** Drops the expired tombstones of all teams, and those beyond `maxAgeMs`; returns how many. */
  compact(): Promise<number>;
  /** Waits for calls in flight; later calls reject with `HF_CLOSED`. The file's store is closed with it. Twice is harmless. */
  close(): Promise<void>;
  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
  private now;
  private dropOld;
}

/** The manifest after a commit. */
export interface RuntimeStoreManifestChange {
  /** Batches applied so far. It falls back to 0 when the runtime directory was reset. */
  highWatermark: number;
  /** The batch that was committed last, or `null` if there is none. */
  batchId: string | null;
  /** The whole manifest. */
  manifest: RuntimeStoreManifest;
}

/** Options of {@link watchRuntimeStoreManifest}. */
export interface RuntimeStoreManifestWatchOptions {
  /** Ends the watch when it aborts. */
  signal?: AbortSignal;
  /**
   * Called when the manifest cannot be read, with the error; the watch goes on. A bad content is reported once, an I/O error at
   * each retry. Default: nobody is told.
   */
  onError?: (error: unknown) => void;
}

/** A running watch with a callback. */
export interface RuntimeStoreManifestWatcher {
  /** Ends the watch. No callback comes after the call; the promise resolves when no file is read any more. Twice is harmless. */
  close(): Promise<void>;
  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A running watch to iterate over. It is for one reader, and is ended by `break`, `return()`, `close()` or its signal. */
export interface RuntimeStoreManifestChanges extends RuntimeStoreManifestWatcher, AsyncIterableIterator<RuntimeStoreManifestChange> {
  return(): Promise<IteratorResult<RuntimeStoreManifestChange, undefined>>;
}

/**
 * Watches a manifest for commits, of any process.
 *
 * The watch begins with the call: every commit that lands after it is reported, so that `watch`, then `read`, misses nothing.
 * Only changes of `highWatermark` or `lastCommittedBatchId` are reported. Commits in quick succession may come as one, with the
 * newest manifest; so may those that come while an iterating reader is busy.
 *
 * The folder need not exist yet. While the manifest cannot be read, nothing is reported and it is tried again. A manifest that
 * was deleted reads as the default one, watermark 0. Closing the manifest store ends the watch at its next look. The watch never
 * keeps Node alive by itself. What a callback throws becomes an uncaught exception, as in an `EventEmitter` of Node.
 *
 * @param manifestStore the manifest to watch
 * @param options signal and `onError`
 * @returns the changes, to iterate over; aborting the signal ends the iteration without an error
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 *
 * @example
 * ```ts
 * for await (const { highWatermark, batchId } of watchRuntimeStoreManifest(manifestStore, { signal })) show(highWatermark, batchId);
 * ```
 */
export declare function watchRuntimeStoreManifest(manifestStore: RuntimeStoreManifestStore, options?: RuntimeStoreManifestWatchOptions): RuntimeStoreManifestChanges;

/**
 * Watches a manifest for commits, and calls `listener` for each change; see the other form for what is reported.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`
 */
export declare function watchRuntimeStoreManifest(manifestStore: RuntimeStoreManifestStore, listener: (change: RuntimeStoreManifestChange) => void, options?: RuntimeStoreManifestWatchOptions): RuntimeStoreManifestWatcher;

/** One changed field of one change. */
export interface TransitionAppend {
  /** The field, masked. */
  field: string;
  /** The text of the value before, masked; `null` = the entity did not exist. */
  fromValue: string | null;
  /** The text of the value after, masked. */
  toValue: string;
}

/** A transaction of a store. Only the store knows what it is. */
export type EntityTx = unknown;

/** Where the history of field changes goes. Programs may bring their own, in plain JavaScript. */
export interface EntityStore {
  /** Runs `fn` in a transaction, which is undone if `fn` rejects. */
  runInTransaction<R>(fn: (tx: EntityTx) => Promise<R>): Promise<R>;
  /** Adds one row per changed field; the store gives them their time. */
  appendTransitions(args: {
    tx: EntityTx;
    kind: string;
    entityId: string;
    transitions: ReadonlyArray<TransitionAppend>;
  }): Promise<void>;
  /** The time of the latest row of the field whose `toValue` is the text of `currentValue`, or `null`. */
  inStateSince(args: {
    kind: string;
    entityId: string;
    field: string;
    currentValue: unknown;
  }): Promise<Date | null>;
  /** How many rows of the field are of `now - windowMs` (milliseconds) or later. */
  transitionCount(args: {
    kind: string;
    entityId: string;
    field: string;
    windowMs: number;
    now: Date;
  }): Promise<number>;
}

/** A drizzle database over `pg`, as far as holdfast looks at it. */
export type SafeDatabase<S = unknown> = {
  transaction: (...args: never[]) => unknown;
  execute: (...args: never[]) => unknown;
  $client?: unknown;
  /** The type of the schema; never looked at. */
  readonly $schema?: S;
};

/** How to encrypt connections to Postgres. */
export interface EntityStoreTls {
  /** Certificates of the authorities to trust, PEM. Default: those of the system. */
  ca?: string | Uint8Array | ReadonlyArray<string | Uint8Array>;
  /** The client's certificate, PEM. */
  cert?: string | Uint8Array;
  /** The client's private key, PEM. */
  key?: string | Uint8Array;
  /** `false` takes any certificate. Default `true`. */
  rejectUnauthorized?: boolean;
  /** The name that the server's certificate must have. Default: the host. */
  servername?: string;
}

/** A file of an embedded database (SQLite), created with its folders if it does not exist. Processes may share it. */
export interface EntityStorePathTarget {
  path: string;
}

/** A database in memory, private to the store and gone with it. */
export interface EntityStoreMemoryTarget {
  memory: true;
}

/** A Postgres database. Its tables are made on first use. */
export interface EntityStorePostgresTarget {
  /** `postgres://user:password@host:port/database`. */
  connectionString: string;
  /** The schema of the tables, created if it does not exist. Default: the first one of the connection's search path. */
  schema?: string;
  /** Most connections at a time. Default 4. */
  poolSize?: number;
  /** `true` = encrypted, verified with the system's authorities. Default: what the connection string says. */
  ssl?: boolean | EntityStoreTls;
}

/** Where `createEntityStore` keeps the history. A value that fits several is taken for the first of: drizzle, path, memory, Postgres. */
export type EntityStoreTarget = SafeDatabase | EntityStorePathTarget | EntityStoreMemoryTarget | EntityStorePostgresTarget;

/**
 * What of a change survives what:
 *
 * - `after-commit`: the history is written after the owner's write, the change is sent after that. A crash in between loses them.
 * - `outbox`: the change is recorded together with its history, and sent again after a crash or a failed delivery: at least once, always
 *   with the same `changeId`. A crash between the owner's write and the record loses both.
 * - `journal`: as `outbox`, and an intent is recorded before the owner's write, from which a crash in between is completed.
 */
export type EntityDurability = "after-commit" | "outbox" | "journal";

/** When old rows of the history are deleted. The newest row of every field of every entity always stays. */
export interface EntityRetention {
  /** Rows older than this, in milliseconds. Default: no limit. */
  maxAgeMs?: number;
  /** Rows beyond this number, of each field of each entity. Default: no limit. */
  maxRowsPerField?: number;
  /** How often to look, in milliseconds. Default: only when `prune()` is called. */
  everyMs?: number;
}

/** Options of `createEntityStore`. */
export interface EntityStoreOptions {
  /**
   * What to do about the tables on first use: `auto` creates them and adds what is missing, `check` rejects with a list of what is
   * missing, `off` uses what is there. Default `auto`. With drizzle the application owns the tables, so this option changes nothing: it is
   * `off`, and `check` with `outbox` or `journal`.
   */
  migrate?: "auto" | "check" | "off";
  /**
   * Drizzle only. `native`: holdfast's own connections, or reject; `delegate`: everything through the drizzle object; `auto` (the
   * default): native if that provably leads to the same table.
   */
  driver?: "auto" | "native" | "delegate";
  /** Default: `journal` with `path` and `connectionString`, `after-commit` with `memory` and drizzle. */
  durability?: EntityDurability;
  /**
   * Embedded only. `full` (the default): a promise resolves when its data survives a power cut. `normal`: it survives a crash of the
   * process; a power cut can take the last commits back, never part of one.
   */
  synchronous?: "normal" | "full";
  /**
   * Embedded only. What a file on NFS, SMB and the like leads to, where several hosts that write destroy it: `refuse` (the default) rejects with
   * `HF_INVALID_ARGUMENT`, `allow` takes it, for one host alone.
   */
  networkFileSystem?: "refuse" | "allow";
  /** Most rows in one commit, of changes that were waiting together; 1 or more. Default 1000. */
  maxBatchRows?: number;
  /** When old rows are deleted. Default: never. */
  retention?: EntityRetention;
  /**
   * Embedded only: the time of the rows, and what "now" is for everything that is asked of them. Default: the system's clock. The rows of
   * Postgres have the server's time.
   */
  clock?: () => Date;
  /** Gets warnings. Default: nobody. */
  logger?: Logger;
}

/** Which part of an entity's history to read. */
export interface HistoryQuery {
  /** The kind. */
  kind: string;
  /** The entity. */
  entityId: string;
  /** Only rows of this field. Default: all. */
  field?: string;
  /** Only rows of this time or later. */
  from?: Date;
  /** Only rows before this time. */
  to?: Date;
  /** Most rows of one page: 1 to 10000. Default 100. */
  limit?: number;
  /** Where the page before ended: its `cursor`. */
  cursor?: string;
}

/** One row of the history: a field got a value. */
export interface HistoryRow {
  /** Names the row. */
  id: string;
  /** The field. */
  field: string;
  /** The text of the value before; `null` = the entity did not exist. */
  fromValue: string | null;
  /** The text of the value after. */
  toValue: string;
  /** Whether secrets were masked in it. */
  masked: boolean;
  /** The change that wrote the row; `null` in rows of other programs. */
  changeId: string | null;
  /** When, in whole milliseconds. */
  at: Date;
}

/** A page of the history, newest row first. */
export interface HistoryPage {
  /** The rows. */
  rows: HistoryRow[];
  /** Asks for the next page; `null` = there is none. */
  cursor: string | null;
}

/** Whose field, and when. */
export interface TimeInStateQuery {
  /** The kind. */
  kind: string;
  /** The entity. */
  entityId: string;
  /** The field. */
  field: string;
  /** The beginning of the time. */
  from: Date;
  /** The end of the time. Default: now. */
  to?: Date;
}

/** For how long a field had a value. */
export interface TimeInState {
  /** The text of the value. */
  value: string;
  /** For how long, in milliseconds. */
  ms: number;
}

/** Whose field, and what counts as flapping. */
export interface FlappingQuery {
  /** The kind. */
  kind: string;
  /** The entity. */
  entityId: string;
  /** The field. */
  field: string;
  /** How many changes are flapping; 1 or more. */
  count: number;
  /** In how many of the last milliseconds. */
  windowMs: number;
}

/** Which changes to hear of, and until when. */
export interface EntityChangesOptions {
  /** Only changes of this kind. Default: all. */
  kind?: string;
  /** Ends it when it aborts, without an error. */
  signal?: AbortSignal;
}

/** Changes to iterate over. They are for one reader, and end by `break`, `return()`, their signal, or `close()` of the store. */
export interface EntityChanges extends AsyncIterableIterator<EntityChanged> {
  return(): Promise<IteratorResult<EntityChanged, undefined>>;
  /** The same as `return()`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What a store object has done since it was made, and what it has before it. */
export interface EntityStoreStats {
  /** Rows appended. */
  appended: number;
  /** Commits that took them: `appended / batches` rows each. */
  batches: number;
  /** Changes whose `fromValue` was not the last recorded value: history was lost, or another process wrote at the same time. */
  gaps: number;
  /** Recorded changes that are not delivered yet, of all processes. */
  pending: number;
  /** Changes of this process that could not be recorded yet: they wait in memory, and are tried again. */
  unfinished: number;
  /** Deliveries that were tried again. */
  redelivered: number;
  /** Changes completed after a crash. */
  recovered: number;
  /** Age of the oldest recorded change that is not delivered yet, in milliseconds; 0 without one. */
  lagMs: number;
  /** How far the database server's clock is ahead of this machine's, in milliseconds; `null` where there is no server. */
  clockSkewMs: number | null;
}

/** A store of holdfast. Nothing is opened before the first use. */
export interface NativeEntityStore extends EntityStore, AsyncDisposable {
  /**
   * Connects, makes or checks the tables, and completes what a crash left; on Postgres that takes some seconds where there is any. Every
   * other call does it, too. What cannot be completed now (a `read` that throws) is logged and tried again, see `stats().unfinished`.
   */
  ready(): Promise<void>;
  /**
   * Waits, at most 5 s, for mutations under way and for changes that could not be recorded yet, then lets go of everything. Twice is
   * harmless. Later calls reject with `HF_CLOSED`, before they change anything.
   *
   * @throws {HoldfastError} `HF_ENTITY_APPEND_FAILED`: changes that were made are lost, because they could not be recorded to the end (never
   *   with `journal`, which completes them at the next opening); the message names their entities. The store is closed all the same.
   */
  close(): Promise<void>;
  /** Reads an entity's history page by page, newest row first. */
  history(query: HistoryQuery): Promise<HistoryPage>;
  /** Deletes old rows by `retention`, at most 1000 in one transaction. `now` is the time to count ages from. Default: the clock. */
  prune(now?: Date): Promise<{
    deleted: number;
  }>;
  /** For how long a field had which value in a time, the longest first. A time before the first row counts for its `fromValue`. */
  timeInState(query: TimeInStateQuery): Promise<TimeInState[]>;
  /** Whether a field changed at least `count` times in the last `windowMs` milliseconds. */
  isFlapping(query: FlappingQuery): Promise<boolean>;
  /**
   * A store that appends in a transaction of the caller (a drizzle transaction, or a `pg` client in one), so that state and history
   * are committed together. It is for one transaction: make a handle over it inside, and drop both at its end.
   */
  withTransaction(tx: EntityTx): EntityStore;
  /**
   * The changes that are recorded from now on, to iterate over. Needs `outbox` or `journal`. On Postgres these are the changes of all
   * processes: their own at once, those of others as soon as the server tells of them, and after a broken connection those of the
   * last five minutes that were missed; each once, in the order in which they are heard of. What others record before the first
   * `ready()` after this call may be missed. An SQLite file tells of this process alone. `close()` ends it.
   *
   * @throws {RangeError} `HF_BUSY`, from `next()`: the reader fell 10,000 changes behind
   * @throws {Error} `HF_CLOSED`: the store is closed
   */
  changes(options?: EntityChangesOptions): EntityChanges;
  /** Calls `listener` with each change, as `changes()` yields them, a copy of its own. It does not keep the process alive. */
  onChange(listener: (change: EntityChanged) => void, options?: EntityChangesOptions): EntityChangedUnsubscribe;
  /** Counters. */
  stats(): Promise<EntityStoreStats>;
}

/** Loggers and listeners of callers: what they throw disturbs nobody. */
/** Writes one line of a log. */
export type Log = (message: string, ...args: unknown[]) => void;

/** A logger; `console` is one. */
export interface Logger {
  debug: Log;
  info: Log;
  warn: Log;
  error: Log;
}

/** What kind of party made a change; `ACTOR_TYPES` lists them. */
export type ActorType = "system" | "user" | "application" | "service";

/** Who made a change. */
export interface Actor {
  /** What kind of party. */
  type: ActorType;
  /** Which one. Never masked. */
  id: string;
  /** A name for people. */
  name?: string;
}

/** A change of one entity, as subscribers get it. Known secrets of the run that made it are masked. */
export interface EntityChanged {
  /** The kind of the entity. */
  kind: string;
  /** The entity, unique within its kind. */
  id: string;
  /** The state before; `null` = it did not exist. */
  prev: Record<string, unknown> | null;
  /** The state after; `null` = it was removed. */
  next: Record<string, unknown> | null;
  /** The changed fields with their values in `next`; a field that `next` does not have is `null`. `{}` on a removal. */
  delta: Record<string, unknown>;
  /** The names of the changed fields, sorted by UTF-16 code unit. */
  changedFields: string[];
  /** Who made the change. */
  actor: Actor;
  /** When the change was sent: ISO 8601 with milliseconds and `Z`. A later delivery of the same change keeps it. */
  occurredAt: string;
  /**
   * Names the change, so that a second delivery of it can be recognised. holdfast always sets it; it is optional so that payloads
   * of older senders parse.
   */
  changeId?: string;
}

/** What `EntityChangedSchema` is: a Standard Schema that can also be called directly. */
export interface EntityChangedParser extends StandardSchemaV1<unknown, EntityChanged> {
  /**
   * Returns a copy of the payload without unknown keys.
   *
   * @throws {EntityValidationError} the payload is not a change
   */
  parse(value: unknown): EntityChanged;
  /** The same without throwing. */
  safeParse(value: unknown): {
    success: true;
    data: EntityChanged;
  } | {
    success: false;
    error: Error;
  };
}

/** The current state of entities by id; ids that do not exist are left out. The order and the number of `ids` are the caller's. */
export type EntityRead<T extends Record<string, unknown>> = (ids: ReadonlyArray<string>) => Promise<Record<string, T>>;

/** A schema of object states: an object schema of zod 3, zod 4 or zod-mini, or any other library's Standard Schema. */
export type EntityStateSchema<T> = {
  parse(input: unknown): T;
  readonly shape: Readonly<Record<string, unknown>>;
} | StandardSchemaV1<unknown, T>;

/** What makes a kind of entity. */
export interface DefineEntityInput<T extends Record<string, unknown>> {
  /** The name of the kind: not blank, unique in the registry, kept as given (` a` and `a` are two kinds). */
  kind: string;
  /** The schema that every state is validated with. */
  state: EntityStateSchema<T>;
  /** Reads current states from wherever the owner keeps them. */
  read: EntityRead<T>;
}

/**
 * Registers a kind and returns its handle. A refused kind leaves the registry as it was.
 *
 * @throws {Error} `HF_ENTITY_KIND_INVALID`, `HF_ENTITY_KIND_DUPLICATE`, `HF_ENTITY_STATE_SCHEMA_INVALID`
 * @throws {TypeError} `HF_ENTITY_READ_INVALID`
 */
export type DefineEntity = <T extends Record<string, unknown>>(input: DefineEntityInput<T>) => EntityHandle<T>;

/** Says that a table is not reactive, and why; for lint rules and documentation. */
export interface DeclareNonReactiveStateInput {
  /** The table. */
  table: string;
  /** Why it has no kind. */
  reason: "raw-sample" | "sensitive" | "externally-owned" | "bookkeeping";
  /** The reason in words. */
  note: string;
}

/** A recorded declaration. */
export type NonReactiveDeclaration = DeclareNonReactiveStateInput;

/** The `read` of a kind, without its type. */
export type EntityKindResolver = (ids: ReadonlyArray<string>) => Promise<Record<string, Record<string, unknown>>>;

/** The kinds of one process, and the store that they share. */
export interface EntityRegistry {
  /** Validates a kind, registers it and returns its handle. */
  readonly defineEntity: DefineEntity;
  /** Records a declaration, as a copy. Nothing is checked. */
  declareNonReactiveState(input: DeclareNonReactiveStateInput): void;
  /** Binds the store that all handles use from now on; the last call wins. */
  setStore(args: {
    store: EntityStore;
  }): void;
  /** Whether a store is bound. */
  readonly hasStore: boolean;
  /** The declarations, in order: always the same array, which grows. */
  getNonReactiveDeclarations(): ReadonlyArray<NonReactiveDeclaration>;
  /** The kinds in the order of their registration: always the same array, which grows. */
  getKinds(): ReadonlyArray<string>;
  /** The `read` of a kind, always the same function; `undefined` for an unknown kind. */
  entityResolverFor(kind: string): EntityKindResolver | undefined;
}

/**
 * How a handle behaves where holdfast deviates from the original: `original` keeps the original's results, `holdfast` (the default)
 * its own. `docs/migrating.md` lists the differences.
 */
export type EntityCompat = "holdfast" | "original";

/**
 * How mutations of one entity are kept apart: `id` (the default) = one after the other within the registry; `none` = not at all;
 * `database` = also across processes, by a lock on the server that is held over the whole mutation, on a connection that is reserved for
 * such locks. That needs a store over `{ connectionString }`; with any other, mutations reject. Who waits for more than 60 seconds is
 * rejected with `HF_BUSY`.
 */
export type EntitySerialize = "id" | "none" | "database";

/** Arguments of `createEntityRegistry`. */
export interface EntityRegistryArgs {
  /** Knows the secrets of the runs, which are masked in everything that is sent or stored. */
  secretRegistry: RunSecretRegistry;
  /** Where changes are sent. */
  emitter: ChangeEmitter;
  /** Gets warnings. Default: nobody. */
  logger?: Logger;
  /** Default `holdfast`. */
  compat?: EntityCompat;
  /** Default `id`. */
  serialize?: EntitySerialize;
}

/** Who a mutation is by. */
export interface EntityMutationOpts {
  /** Default: the system actor. */
  actor?: Actor;
  /** The run whose secrets are masked in the event and in the history. Without it nothing is masked. */
  runId?: string;
}

/** A write of one entity. */
export interface MutateInput<T extends Record<string, unknown>> {
  /** The entity. */
  id: string;
  /** Who it is by. */
  opts?: EntityMutationOpts;
  /** The owner's write; resolves to the state after it. */
  apply: () => Promise<T>;
}

/** A removal of one entity. */
export interface RemoveInput {
  /** The entity. */
  id: string;
  /** Who it is by. */
  opts?: EntityMutationOpts;
  /** The owner's removal. What it resolves to is ignored. */
  apply: () => Promise<void>;
}

/** Options of {@link EntityHandle.waitUntil}. */
export interface EntityWaitOptions {
  /** How long to wait, in milliseconds. Default: as long as it takes. */
  timeoutMs?: number;
  /** Gives up when it aborts. */
  signal?: AbortSignal;
}

/** The reactive side of one kind. Errors that `read`, `apply`, the schema, the store or the emitter throw arrive as the same object. */
export interface EntityHandle<T extends Record<string, unknown>> {
  /** The kind, as it was defined. */
  readonly kind: string;
  /**
   * Reads the state, runs `apply`, validates what it resolved to, records one transition per changed field and sends the change.
   * Resolves when all of that is done, with the validated state, unmasked. Without a change nothing is recorded or sent. After a
   * rejection, `getEntityFailure(error)` says whether the owner's write had happened.
   *
   * @throws {Error} `HF_ENTITY_STORE_UNBOUND`: no store yet, nothing was run; `HF_ENTITY_NO_STATE`: `apply` resolved to `null`
   */
  mutate(input: MutateInput<T>): Promise<T>;
  /** The same for a removal: the change has `next: null`, and the history gets no row. An absent entity sends nothing, but `apply` runs. */
  remove(input: RemoveInput): Promise<void>;
  /** The current state as `read` gives it: not cached, validated or masked. */
  get(id: string): Promise<T | undefined>;
  /** The current states as `read` gives them. */
  getMany(ids: ReadonlyArray<string>): Promise<Record<string, T>>;
  /** When the field got the value that it has now, by the history; `null` for an absent entity, or when the history does not say. */
  inStateSince(id: string, field: keyof T & string): Promise<Date | null>;
  /** For how many milliseconds the field has had its value, by the store's clock; 0 when the history does not say. */
  inStateForMs(id: string, field: keyof T & string): Promise<number>;
  /**
   * How often the field changed in the last `windowMs` milliseconds by the store's clock, both ends included.
   *
   * @throws {RangeError} `HF_ENTITY_WINDOW_INVALID`: `windowMs` is not a number
   */
  transitionCount(args: {
    id: string;
    field: keyof T & string;
    windowMs: number;
  }): Promise<number>;
  /**
   * Many mutations with one `read` (with `serialize: 'database'`: one each, under its lock) and shared appends; ids may repeat.
   * Resolves to the states in the order of `inputs`. All are run: if some fail, it rejects with the error of the first of them, when all
   * have settled.
   */
  mutateMany(inputs: ReadonlyArray<MutateInput<T>>): Promise<T[]>;
  /**
   * Resolves with the state (`undefined` = absent) as soon as `predicate` accepts it: now, or after a change that this registry sends
   * or, with a store that holdfast owns, another process.
   *
   * @throws {HoldfastError} `HF_LOCK_TIMEOUT` after `timeoutMs`; `HF_CLOSED` when a store that holdfast owns is closed
   * @throws the signal's reason when it aborts; what `predicate` or `read` throws
   */
  waitUntil(id: string, predicate: (state: T | undefined) => boolean, options?: EntityWaitOptions): Promise<T | undefined>;
}

/** Arguments of `createEntityHandle`: a handle without a registry. */
export interface EntityHandleArgs<T extends Record<string, unknown>> {
  /** The kind. */
  kind: string;
  /** The schema of its states. */
  schema: EntityStateSchema<T>;
  /** Where the history goes. */
  store: EntityStore;
  /** Where changes are sent. */
  emitter: ChangeEmitter;
  /** Knows the secrets of the runs. */
  secretRegistry: RunSecretRegistry;
  /** Reads current states. */
  read: EntityRead<T>;
  /** Gets warnings. Default: nobody. */
  logger?: Logger;
}

/** At which step a rejected `mutate` or `remove` stopped. */
export interface EntityFailure {
  /** The step. */
  stage: "read" | "apply" | "validate" | "append" | "emit";
  /** Whether the owner's write had happened. */
  applied: boolean;
  /**
   * Whether the change is kept and will be completed: before the next mutation of the entity, or by itself, or, if the store was closed
   * meanwhile, when one with `outbox` or `journal` is opened anew.
   */
  pending: boolean;
  /** The change, as far as it was known. */
  change?: EntityChanged;
}

/** Delivers one change; resolves when it was taken. */
export type EmitEntityChanged = (payload: EntityChanged) => Promise<void>;

/** Sends changes to a target that may come later. */
export interface ChangeEmitter {
  /** Delivers a change, or keeps it while there is no target. Rejects with what the target throws. */
  emit(payload: EntityChanged): Promise<void>;
  /**
   * Sets the target and delivers to it what was kept, one change at a time, in order. With nothing kept it is set before the call
   * returns. If a delivery fails it rejects with that error, the change stays first in line, and a new `wire` resumes with it.
   */
  wire(emit: EmitEntityChanged): Promise<void>;
  /** Whether changes go straight to the target. */
  readonly isWired: boolean;
}

/** Arguments of `createChangeEmitter`. */
export interface ChangeEmitterArgs {
  /** Is told of dropped and of late changes. Default: nobody. */
  logger?: Logger;
  /** How many changes are kept while there is no target; above it the oldest is dropped. At least 1; `NaN` = no limit. Default 10000. */
  bufferLimit?: number;
}

/** Handles a change of its kind. */
export type EntityChangedHandler = (change: EntityChanged) => Promise<void> | void;

/** Ends a subscription. Twice is harmless. */
export type EntityChangedUnsubscribe = () => Promise<void>;

/** `broadcast`: every process handles the change; `work-queue`: one process of the group. */
export type EntityChangedDelivery = {
  mode?: "broadcast";
} | {
  mode: "work-queue";
  /** Which group; not blank. */
  workerGroup: string;
  /** How often the queue tries again after a handler has thrown. Default: the queue's. */
  maxRetries?: number;
};

/** A subscription. */
export interface OnEntityChangedInput {
  /** The kind to hear of; not blank. */
  kind: string;
  /** Called with a copy of each change. What it throws is logged and, in a work queue, given to the queue. */
  handler: EntityChangedHandler;
  /** Default `broadcast`. */
  delivery?: EntityChangedDelivery;
}

/**
 * Subscribes to the changes of a kind, before or after `wire`.
 *
 * @throws {Error} `HF_ENTITY_SUBSCRIBE_INVALID`: a blank kind, or a work queue without a group
 */
export type OnEntityChanged = (input: OnEntityChangedInput) => EntityChangedUnsubscribe;

/** How a host's event bus takes a listener; returns what ends it. */
export type OnHookFn = <T>(hook: {
  id: string;
  _type?: T;
}, listener: (payload: T, meta?: unknown) => Promise<void>, options?: {
  mode?: "broadcast";
  maxRetries?: number;
} | {
  mode: "instance-local";
} | {
  mode: "work-queue";
  workerGroup: string;
  maxRetries?: number;
}) => () => Promise<void>;

/** Subscriptions that can be made before the host's bus is there. */
export interface EntityChangedSubscriptions {
  /** Subscribes. */
  readonly onEntityChanged: OnEntityChanged;
  /** Connects the subscriptions, those before and those to come, to a bus. A second call only adds what is not connected yet. */
  wire(args: {
    onHook: OnHookFn;
    logger: Logger;
  }): void;
  /** Ends all subscriptions; errors of ending one are ignored. */
  disposeAll(): Promise<void>;
}

/** What a bus for entity changes is made of. */
export interface EntityChangeBusArgs {
  /** A store whose other processes are heard as well: one over Postgres, with `outbox` or `journal`. Default: this process alone. */
  store?: EntityStore;
  /** Gets warnings. Default: nobody. */
  logger?: Logger;
}

/** A bus for entity changes. */
export interface EntityChangeBus {
  /** Tells the listeners of a change; for `emitter.wire`. Resolves when they are done. */
  readonly emit: EmitEntityChanged;
  /** Subscribes; for `subscriptions.wire`. Returns what ends the subscription. */
  readonly onHook: OnHookFn;
  /** Ends all subscriptions. A work queue tries nothing again after that: `emit` rejects with what it failed with. */
  close(): void;
}

/** The names of the host events that a change stands for. */
export type EntityChangeDeriver = (changed: EntityChanged) => ReadonlyArray<string>;

/** The payload of the host events that a change stands for. */
export type EntityChangePayloadMapper = (changed: EntityChanged) => Record<string, unknown>;

/** Which host events the changes of a kind stand for. */
export interface ChangeDeriverRegistry {
  /**
   * Adds a deriver to a kind, and sets the kind's payload mapper. The same function twice counts once.
   *
   * @throws {Error} `HF_ENTITY_DERIVER_INVALID`: a blank kind; `HF_ENTITY_DERIVER_CONFLICT`: the kind has another mapper. Nothing is added
   */
  register(args: {
    kind: string;
    derive: EntityChangeDeriver;
    toPayload?: EntityChangePayloadMapper;
  }): void;
  /** The names of all derivers of the kind, each once, in order. A deriver that throws, or gives no array, is skipped. */
  derive(changed: EntityChanged): ReadonlyArray<string>;
  /** What the kind's mapper makes of the change; `undefined` without one. What the mapper throws comes through. */
  payload(changed: EntityChanged): Record<string, unknown> | undefined;
  /** The kinds that have a deriver, in order. */
  kinds(): ReadonlyArray<string>;
}

/** What differs between two states. */
export interface EntityDiff {
  /** The names of the changed fields, sorted by UTF-16 code unit. */
  changedFields: string[];
  /** Their values in the later state; `null` for one that it does not have. */
  delta: Record<string, unknown>;
}

/** Knows the secret values of running jobs, in memory only, and masks them. */
export interface RunSecretRegistry {
  /** Adds secret values of a run. Empty values and values that are no strings are skipped. */
  register(runId: string, values: Iterable<string>): void;
  /** Says which run a step belongs to; the last call wins. */
  linkStep(stepId: string, runId: string): void;
  /** Masks the run's secrets in a text. An unknown run changes nothing. */
  maskText(runId: string, text: string): string;
  /** Masks the run's secrets in all strings and keys of a value, in a copy. An unknown run gives the value itself. */
  maskDeep(runId: string, value: unknown): unknown;
  /** `maskText` for the run of a step. */
  maskTextForStep(stepId: string, text: string): string;
  /** `maskDeep` for the run of a step. */
  maskDeepForStep(stepId: string, value: unknown): unknown;
  /** Forgets a run's secrets and the steps that are linked to it. */
  drop(runId: string): void;
}

/** A host's look-up of services. */
export type GetService = <T>(ref: {
  id: string;
  T?: T;
}) => Promise<T>;

/**
 * Makes a registry: the kinds of one process, and the store that they share. The store may be bound later; until then `get`, `getMany`
 * and the resolvers work.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT`: `compat` or `serialize` is none of its values; the emitter, the registry of secrets or
 *   the logger is missing or lacks a function
 */
export declare function createEntityRegistry(args: EntityRegistryArgs): EntityRegistry;
type State = Record<string, unknown>;

/**
 * Makes a handle without a registry. Make it once per kind, and share it: mutations keep their order within one handle only, and a store
 * of holdfast's own knows its handles until it is closed. (One over `withTransaction` is as short-lived as the transaction.)
 *
 * @throws {TypeError} `HF_INVALID_ARGUMENT`: an argument is missing, or has not the functions that it needs
 * @throws {Error} `HF_ENTITY_STATE_SCHEMA_INVALID`
 */
export declare function createEntityHandle<T extends State>(args: EntityHandleArgs<T>): EntityHandle<T>;

/**
 * Tells at which step the `mutate` or `remove` that rejected with `error` stopped, and whether the owner's write had already happened.
 *
 * `undefined` for any other error, and for a thrown string, number or other primitive, to which nothing can be attached: whether the
 * write had happened is not known then. Where one object was thrown by several mutations, it answers for one whose write had happened,
 * if there is one.
 */
export declare function getEntityFailure(error: unknown): EntityFailure | undefined;

/**
 * Makes a store for the history of entities. Nothing is opened before the first use, or `ready()`.
 *
 * @throws {TypeError} `HF_ENTITY_STORE_INPUT_INVALID`: the target is of none of the known shapes
 * @throws {Error} `HF_INVALID_ARGUMENT`: an option does not exist or has the wrong type, or `path` is no plain path
 *
 * @example
 * ```ts
 * const store = createEntityStore({ path: 'data/entities.db' });
 * registry.setStore({ store });
 * ```
 */
export declare function createEntityStore(target: EntityStoreTarget, options?: EntityStoreOptions): NativeEntityStore;

/** Every kind of actor. */
export declare const ACTOR_TYPES: readonly [
  "system",
  "user",
  "application",
  "service"
];

/** The actor of mutations that name none. */
export declare const SYSTEM_ACTOR: Readonly<Actor>;

/**
 * Validates the payload of a change, wherever it came from. The result is a copy without unknown keys. All fields are required
 * except `changeId` and `actor.name`.
 */
export declare const EntityChangedSchema: EntityChangedParser;

/**
 * Makes a bus: `emit` is what `emitter.wire` takes, `onHook` what `subscriptions.wire` takes.
 *
 * - `broadcast` (the default): every listener of every process hears each change. Those of other processes need a store over Postgres
 *   with `outbox` or `journal`; without one, each process hears its own.
 * - `work-queue`: one listener of each group hears a change, in the process that made it. If it fails it is called again, at most
 *   `maxRetries` times (3), after 50 ms, doubling to 5 s; then `emit` rejects, and a store with `outbox` or `journal` delivers the change
 *   again. If the process dies before that, whoever takes its changes over does it.
 * - `instance-local`: hears what its own process made.
 *
 * `close()` ends all of that; what a work queue would have tried again rejects with what it failed with.
 *
 * A listener that throws in one of the other two modes is reported to `logger`, and stops nobody else.
 *
 * @example
 * ```ts
 * const bus = createEntityChangeBus({ store, logger: console });
 * await emitter.wire(bus.emit);
 * subscriptions.wire({ onHook: bus.onHook, logger: console });
 * ```
 */
export declare function createEntityChangeBus(args?: EntityChangeBusArgs): EntityChangeBus;

/**
 * Makes an emitter. Until `wire` is called it keeps the changes in memory, at most `bufferLimit`; above that the oldest is dropped,
 * with a warning. A store that records changes (`outbox`, `journal`) still has it then, and delivers it later.
 *
 * @throws {TypeError} `HF_INVALID_ARGUMENT`: `bufferLimit` is no number, or `logger` no logger
 */
export declare function createChangeEmitter(args?: ChangeEmitterArgs): ChangeEmitter;

/** The host's event that carries changes. */
export declare const ENTITY_CHANGED_HOOK: {
  readonly id: "automation.entity.changed";
};

/** Makes a set of subscriptions. They begin to hear when `wire` has connected them to the host's bus. */
export declare function createEntityChangedSubscriptions(): EntityChangedSubscriptions;

/** Makes a registry of derivers. */
export declare function createChangeDeriverRegistry(): ChangeDeriverRegistry;

/** Mutates through the handle, or just runs `apply` where there is none. */
export declare function withEntityWrite<T extends Record<string, unknown>>(args: {
  handle: Pick<EntityHandle<T>, "mutate"> | undefined;
} & MutateInput<T>): Promise<void>;

/** Removes through the handle, or just runs `apply` where there is none. */
export declare function withEntityRemove<T extends Record<string, unknown>>(args: {
  handle: Pick<EntityHandle<T>, "remove"> | undefined;
} & RemoveInput): Promise<void>;
type State$1 = Record<string, unknown>;

/** Options of {@link backfillEntity}. */
export interface BackfillOptions<T extends State$1> {
  /** Only these fields. Default: all that the kind's schema can return. */
  fields?: ReadonlyArray<keyof T & string>;
}

/**
 * Writes "entered" rows for entities that have no history yet, so that `inStateSince`, `inStateForMs` and `timeInState` answer from now
 * on, and not only after the first change of each field.
 *
 * Every field that has no row gets one: from nothing, to its current value, at the current time. Those are the rows that creating the
 * entity now would write, so a field that is `null` or absent gets none. Fields with any row are left alone, ids that `read` does not
 * know are skipped. No event is sent. Doing it again writes nothing, so it may be run at every start; each entity is filled in its turn
 * among the mutations of it, in a transaction of its own.
 *
 * Nothing is masked: leave out fields that hold secrets, by `fields`.
 *
 * @param handle a handle of `defineEntity` or `createEntityHandle`; rows go to the store that it has now
 * @param ids the entities; one that is named twice counts once
 * @returns how many rows were written
 * @throws what `read` or the store rejects with; entities that were filled by then stay so, and calling it again does the rest
 * @throws {Error} `HF_ENTITY_STORE_UNBOUND`: the registry has no store yet
 * @throws {Error} `HF_INVALID_ARGUMENT`: `handle` is no handle of holdfast, or a copy of one
 *
 * @example
 * ```ts
 * const incident = registry.defineEntity({ kind: 'incident', state, read });
 * await backfillEntity(incident, await allIncidentIds(), { fields: ['status'] });
 * ```
 */
export declare function backfillEntity<T extends State$1>(handle: EntityHandle<T>, ids: Iterable<string>, options?: BackfillOptions<T>): Promise<{
  appended: number;
}>;
type State$2 = Record<string, unknown>;

/**
 * Tells which fields differ between two states.
 *
 * The fields are the own enumerable string keys of both. A field has changed when the canonical texts of its two values differ
 * (see `stableStringify`), so the order of nested keys does not matter, and the order of elements does. At the top level an absent
 * field, `undefined` and `null` are the same; nested, `{ a: null }` and `{}` differ. `null` as a state has no fields.
 *
 * @returns a diff whose `delta` holds values of `next` themselves, not copies
 * @throws {RangeError} when a value to compare contains itself or has more than 10,000 levels
 *
 * @example
 * ```ts
 * diffEntityState({ prev: { status: 'open', note: 'x' }, next: { status: 'done' } });
 * // { changedFields: ['note', 'status'], delta: { status: 'done', note: null } }
 * ```
 */
export declare function diffEntityState({ prev, next }: {
  prev: State$2 | null;
  next: State$2 | null;
}): EntityDiff;

/**
 * Returns the canonical JSON text of a value: no white space, the keys of every object sorted by UTF-16 code unit.
 *
 * Two values have the same text exactly when they mean the same as JSON. Beyond JSON:
 * `undefined`, functions, symbols, NaN and the infinities print `null`, except that a property with the value `undefined` is left
 * out; a bigint prints as a string of its digits; what has a `toJSON` prints what that returns (so a `Date` is its ISO text);
 * a Map prints `{"$map":[[key,value],…]}` and a Set `{"$set":[…]}`, sorted by their texts; a typed array prints its numbers;
 * any other object prints its own enumerable string keys.
 *
 * @param value any value; it is not changed
 * @throws {RangeError} when the value contains itself, or has more than 10,000 levels of arrays and objects
 *
 * @example
 * ```ts
 * stableStringify({ b: 1, a: [undefined, new Date(0)] }); // '{"a":[null,"1970-01-01T00:00:00.000Z"],"b":1}'
 * ```
 */
export declare function stableStringify(value: unknown): string;

/**
 * Tells whether two values have the same canonical text ({@link stableStringify}), without building the texts: it stops at the
 * first difference.
 *
 * @throws {RangeError} as `stableStringify` does, unless a difference is found first, or both are the same object
 */
export declare function structurallyEqual(a: unknown, b: unknown): boolean;

/**
 * Returns the text under which a field's value is kept in the transition log.
 *
 * A string is kept as it is, without quotes; `null` and `undefined` as `null`; anything else as `JSON.stringify` prints it, keys in
 * their own order. Different values can share a text: `null` and `'null'`, `42` and `'42'`.
 *
 * It has a text for every value, so that a change that has happened can always be recorded: a bigint is its digits, a function or
 * symbol is `null`, and what contains itself or has more than 10,000 levels is `[unserializable]`.
 *
 * @param value any value; it is not changed
 * @param warn is told when a value became `[unserializable]`; the message does not show the value
 * @throws only what a getter or `toJSON` of the value throws
 */
export declare function serializeFieldValue(value: unknown, warn?: (message: string) => void): string;

/** What stands for a secret, unless the caller chose something else. */
export declare const DEFAULT_MASK_TOKEN = "****";

/** Shorter values (in UTF-16 code units) are no secrets: replacing them would shred every text. */
export declare const MIN_MASKABLE_LENGTH = 4;

/**
 * Replaces every secret in a text by a token.
 *
 * Secrets are found literally, by UTF-16 code unit; an encoded form (base64, URL encoding) is not. Where found secrets overlap, one
 * token replaces all of them; where they only touch, each gets its own. The token itself is not searched.
 *
 * @param text the text
 * @param values the secrets; those shorter than {@link MIN_MASKABLE_LENGTH} are ignored
 * @param token what replaces a secret, also `''`. Default: {@link DEFAULT_MASK_TOKEN}
 *
 * @example
 * ```ts
 * maskSecrets({ text: 'Bearer s3cr3t', values: ['s3cr3t'] }); // 'Bearer ****'
 * ```
 */
export declare function maskSecrets({ text, values, token }: {
  text: string;
  values: Iterable<string>;
  token?: string;
}): string;

/**
 * Returns a value with every secret in its strings and keys replaced by a token; see {@link maskSecrets}.
 *
 * Without a secret to look for it is the same value. Otherwise it is a copy: Dates and typed arrays are copied as they are, Maps and
 * Sets with masked entries, what has a `toJSON` is replaced by what that returns, other class instances become plain objects.
 * Keys that become the same get a suffix (`****`, `****#2`). A reference of the value to itself becomes the token. Numbers,
 * booleans, bigints, functions and symbols stay.
 */
export declare function maskSecretsDeep({ value, values, token }: {
  value: unknown;
  values: Iterable<string>;
  token?: string;
}): unknown;

/**
 * Creates a registry of run secrets. Every member works without `this`.
 *
 * Secrets stay in memory until {@link RunSecretRegistry.drop}; a run that ends without it keeps its secrets there.
 */
export declare function createRunSecretRegistry(): RunSecretRegistry;

/**
 * Wraps a service lookup for one run: secrets that the run resolves through it are registered before the run gets them.
 *
 * Of the service under `resolverRefId`, if it has `resolveForRun` and `resolveSecret`, the results of `resolveSecret` (the secret
 * itself), `resolveForRun` and `resolveBySchema` (every string in `env` and in `resolved`) are registered; of the one under
 * `connectionStoreRefId`, every string in the `config` of what `getConnectionWithCredentials` resolves with. Results are handed on
 * unchanged, and so are all other members and services.
 */
export declare function wrapGetServiceForRun({ getService, runId, registry, resolverRefId, connectionStoreRefId, }: {
  getService: GetService;
  runId: string;
  registry: RunSecretRegistry;
  resolverRefId: string;
  connectionStoreRefId: string;
}): GetService;

/** How far the building of a tree is. */
export interface LinkProgress {
  packages: number;
  packagesTotal: number;
  files: number;
  filesTotal: number;
  bytes: number;
  bytesTotal: number;
}

/** Where blobs are kept. */
export interface BlobStore {
  /** Names the store in the blob index. */
  readonly id: string;
  /** Keeps a blob; what is there already under this key stays. Durable when it resolves. */
  put(input: {
    integrity: string;
    bytes: Uint8Array;
  }): Promise<void>;
  /** A blob, whole; `undefined` if it is not there. */
  get(input: {
    integrity: string;
  }): Promise<Uint8Array | undefined>;
  /** Whether a blob is there. */
  has(input: {
    integrity: string;
  }): Promise<boolean>;
  /** Removes a blob, if it is there. */
  delete(input: {
    integrity: string;
  }): Promise<void>;
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
  }): Promise<{
    bytes: Uint8Array;
    servedBy: string;
  } | undefined>;
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
  deleteBlob(input: {
    integrity: string;
    backend: string;
  }): Promise<void>;
  /** Whether an install or a migration is in flight. */
  isBusy(): Promise<boolean>;
  /** Is told what was done. Its errors are ignored. */
  recordRun?(input: {
    deleted: number;
    bytesReclaimed: number;
  }): Promise<void>;
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
  listNotOnBackend(target: string): Promise<{
    integrity: string;
    backend: string;
    blobSha256?: string;
  }[]>;
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
export interface BlobGcRunnerDeps extends Pick<BlobGcDeps, "listBlobs" | "isBusy" | "recordRun" | "graceMs" | "logger"> {
  installerLock: InstallerLock;
  blobStores: BlobStoreRegistry;
  /** How many manifests before the newest stay complete. Default {@link DEFAULT_BLOB_GC_RETAIN_PREVIOUS}. */
  retainPrevious?: number;
  pruneHistory(keep: number): Promise<void>;
  removeBlobRow(integrity: string): Promise<void>;
  loadCurrent(): Promise<{
    lockfileHash: string | null;
    manifest: ManifestEntry[];
  }>;
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
  runMigration(input: {
    target: string;
    activeBackend: string;
  }): Promise<unknown>;
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
  networkFileSystem?: "refuse" | "allow";
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
  encoding?: "bytea" | "base64-text";
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
export type LinkMode = "auto" | "reflink" | "hardlink" | "copy";

/** What `createReconcileFsDeps` works with. */
export interface ReconcileFsInput {
  /** The folder of the store; created when missing. */
  storeRoot: string;
  /** Gets a blob from wherever blobs are. */
  fetchBlob: (input: {
    integrity: string;
  }) => Promise<Uint8Array>;
  /** How long a retired tree stays, in milliseconds. Default {@link DEFAULT_TREE_GC_GRACE_MS}. */
  treeGcGraceMs?: number;
  /** Gets lines about what is done. */
  logger?: PackagesLogger;
  /** How many blobs are fetched and seeded at a time. Default 8. */
  concurrency?: number;
  /** Who builds trees: this module, or `bun install --offline`. Default `native`. */
  materializer?: "native" | "bun";
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
  verify?: "marker" | "full";
  /** `none` leaves syncing to the system: for stores that may be lost with the next power cut. Default `full`. */
  durability?: "full" | "none";
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
export type ResolutionRootStatus = {
  mode: "none";
} | {
  mode: "ready";
  root: string;
} | {
  mode: "notReady";
  reason: string;
};

/** A pinned tree. */
export type ResolutionRootSnapshot = {
  mode: "none";
} | {
  mode: "notReady";
  reason: string;
} | {
  mode: "ready";
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
  placements: {
    path: string;
    entry: ManifestEntry;
  }[];
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

/** How big a set of packages may be. */
export interface SizeCapConfig {
  /** Above so many bytes there is a warning. */
  warnBytes: number;
  /** Above so many bytes an install is refused. */
  blockBytes: number;
}

/** A verdict on the size of a set of packages. */
export type SizeCapVerdict = {
  level: "ok";
} | {
  level: "warn";
  message: string;
} | {
  level: "block";
  message: string;
};

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
export type BlobPublisher = Pick<BlobStore, "id" | "has" | "put"> & Partial<Pick<BlobStore, "get">>;

/** Finds packages. */
export interface Resolver {
  resolve(inputs: InstallInputs): Promise<ResolvedPackage[]>;
}

/** How an install publishes. */
export interface Publishing {
  resolver: Resolver;
  blobStore: BlobPublisher;
  blobIndex: {
    record(row: {
      integrity: string;
      name: string;
      version: string;
      backend: string;
      sizeBytes: number;
    }): Promise<void>;
  };
}

/** The state of installs, as the program keeps it. */
export interface InstallStateStore {
  load(): Promise<unknown>;
  setInstalling(): Promise<void>;
  setReady(result: Omit<InstallResult, "publishedIntegrities">): Promise<void>;
  setError(message: string): Promise<void>;
}

/** What `runInstallNow` works with. */
export interface InstallControllerDeps extends Publishing {
  installState: InstallStateStore;
  installerLock: InstallerLock;
  loadInstallInputs(): Promise<InstallInputs>;
  sizeCap(): Promise<SizeCapConfig>;
  isMigrationInFlight(): Promise<boolean>;
  emitChanged(change: {
    lockfileHash: string;
  }): Promise<void>;
  recordHistory?(row: {
    lockfileHash: string;
    manifest: ManifestEntry[];
  }): Promise<void>;
  logger?: PackagesLogger;
}

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
  fetchBlob(input: {
    integrity: string;
  }): Promise<Uint8Array>;
  /** Verifies a blob, extracts it into the cache, and marks it as there. */
  seedBlob(input: {
    entry: ManifestEntry;
    bytes: Uint8Array;
  }): Promise<void>;
  /** Builds the tree of a manifest, and makes it the current one. */
  materializeAndFlip(input: {
    lockfileHash: string;
    manifest: ManifestEntry[];
  }): Promise<void>;
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
export type ReconcileProgress = {
  phase: "delta";
  /** How many blobs this host lacks. */
  missing: number;
  /** How many entries the manifest has. */
  total: number;
} | {
  phase: "fetched" | "seeded";
  integrity: string;
  name: string;
  version: string;
  /** Length of the blob. */
  bytes: number;
  /** How many blobs have come this far. */
  done: number;
  /** Out of how many. */
  of: number;
} | ({
  /** Files are coming into the tree; told about ten times a second. */
  phase: "linked";
} & LinkProgress) | {
  /** `materialized` and `flipped` come together, when the one step that does both is over. */
  phase: "materializing" | "materialized" | "flipped";
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

/**
 * The entries of a manifest whose blobs are not on this host: the first of each integrity, in the order of the manifest.
 *
 * @returns the caller's own objects
 */
export declare function computeMissingBlobs(input: {
  manifest: ManifestEntry[];
  localIntegrities: Iterable<string>;
}): ManifestEntry[];

/**
 * Brings a host to `lockfileHash`: fetches and seeds the blobs that it lacks, then builds the tree and makes it current. Where that is
 * the current tree already, nothing is called.
 *
 * Any rejection of a step rejects the call with the same error; the current tree stays as it was, and blobs that were seeded stay seeded,
 * so that the next attempt pulls only the rest.
 */
export declare function reconcileToHash(input: ReconcileInput): Promise<ReconcileResult>;

/**
 * Makes the steps of a reconcile for a store root on this host. Everything is verified before a byte is extracted, built in a folder of
 * its own, synced, and put in place by one rename: a crash at any moment leaves the old tree current, or the new one, complete.
 *
 * Only one process at a time writes a store; others wait, at most `lockTimeoutMs`.
 *
 * @example
 * ```ts
 * const deps = createReconcileFsDeps({ storeRoot, fetchBlob });
 * await reconcileToHash({ lockfileHash, manifest, deps });
 * ```
 */
export declare function createReconcileFsDeps(input: ReconcileFsInput): ReconcileDeps;

/** The bytes as a `Uint8Array`: the very same one, or a view of the buffer. Nothing is copied. */
export declare function toUint8Array(bytes: BlobBytes): Uint8Array;

/** SHA-256 of the bytes, in lower-case hex. */
export declare function blobSha256(bytes: BlobBytes): string;

/** Compares the bytes of a blob with the hash that the manifest has of them. Without one they are accepted. */
export declare function verifyBlobSha256(input: {
  entry: Pick<ManifestEntry, "blobSha256">;
  bytes: BlobBytes;
}): {
  ok: true;
} | {
  ok: false;
  expected: string;
  actual: string;
};

/**
 * Packs one folder as a gzipped tar archive. Equal content gives equal bytes, whoever packs it and when, with one version of holdfast.
 * Windows has no execute bits, so what is packed there has none. Up to 64 MiB of content are in memory meanwhile, and the archive.
 *
 * @param input.entryName the folder below `parentDir`: a name, or `@scope/name`
 * @param input.links what to do with symbolic links: `store` them (`unpackInto` refuses such an archive), or `reject`. Default `store`
 * @throws {PackageStoreError} `HF_PKG_PACK`
 */
export declare function packDir(input: {
  parentDir: string;
  entryName: string;
  links?: "store" | "reject";
}): Promise<Uint8Array>;

/**
 * Unpacks an archive into a folder, which is made when it is missing. The whole archive is checked before anything is written: links,
 * devices, absolute paths, `..`, names that meet and whatever exceeds the limits are refused. Existing folders are merged into, existing
 * files replaced, and no link is ever followed.
 *
 * The bytes are copied before the call returns, on the calling thread, so that you may change your buffer at once: 0.6 ms per MB, measured
 * with 100 MB on Linux x64.
 *
 * @throws {PackageStoreError} `HF_PKG_UNSAFE_ENTRY`, `HF_PKG_ARCHIVE`
 */
export declare function unpackInto(input: {
  targetDir: string;
  bytes: Uint8Array;
  limits?: UnpackLimits;
  signal?: AbortSignal;
}): Promise<void>;

/** Finds the folder of a package in a cache as Bun keeps it, whatever registry, number or hashed version its name has. */
export declare function findCacheEntry(input: {
  cacheDir: string;
  name: string;
  version: string;
}): Promise<CacheEntryLocation | undefined>;
type Env = Record<string, string | undefined>;

/** The folder of a program's data: `HOLDFAST_DATA_DIR` or `CHECKSTACK_DATA_DIR` of the environment, else `.data` of the working directory. */
export declare function resolveDataDir(env?: Env): string;

/** The default folder of a store: `script-packages` of {@link resolveDataDir}. */
export declare function resolveScriptPackagesDir(env?: Env): string;

/** Where everything of a store is. */
export declare function storePaths(storeRoot: string): {
  root: string;
  cache: string;
  trees: string;
  current: string;
  runs: string;
};

/**
 * Points a link to another target in one step: whoever reads it sees the old target or the new one. The tree that it pointed to is
 * marked as retired before, and a stale mark of the new one is removed. Durable when it resolves.
 *
 * @param input.now the time of retirement, in milliseconds. Default: now
 */
export declare function atomicSymlinkSwap(input: {
  linkPath: string;
  target: string;
  now?: number;
}): Promise<void>;

/** The text of a link; `undefined` if there is none. */
export declare function readCurrentTarget(linkPath: string): Promise<string | undefined>;

/** Marks a tree as out of use since `at`, in milliseconds. Never rejects: a tree without a mark is only kept longer. */
export declare function markTreeRetired(input: {
  treeDir: string;
  at: number;
}): Promise<void>;

/** Since when a tree is out of use, in milliseconds; `undefined` if nobody knows. */
export declare function readTreeRetiredAt(input: {
  treeDir: string;
}): Promise<number | undefined>;

/** Whether a tree has a retirement marker, readable or not. */
export declare function hasRetirementMarker(input: {
  treeDir: string;
}): Promise<boolean>;

/**
 * Removes trees that have been out of use for longer than the grace. The current tree, pinned ones, and all of them when it is not
 * known which one is current, stay.
 */
export declare function sweepTreeGc(input: {
  storeRoot: string;
  graceMs?: number;
  now?: number;
  logger?: PackagesLogger;
}): Promise<TreeGcResult>;

/** Whether the tree of `desiredLockfileHash` is the one that programs find; `null` = no packages are wanted. */
export declare function resolveResolutionRoot(input: {
  desiredLockfileHash: string | null;
  storeRoot: string;
  hostLabel?: string;
}): Promise<ResolutionRootStatus>;

/** Where programs find their packages, whichever tree that is. Never `notReady`. */
export declare function resolveResolutionRootFromStore(storeRoot: string): Promise<ResolutionRootStatus>;

/**
 * Pins the current tree for a program that is about to run from it: `root` is its real path, which no flip moves, and no sweep removes
 * the tree before `release()` is called or the process has ended.
 */
export declare function snapshotResolutionRoot(input: {
  storeRoot: string;
  desiredLockfileHash?: string | null;
  hostLabel?: string;
}): Promise<ResolutionRootSnapshot>;

/**
 * The entries by name, then version, then integrity, in a new array. Names and versions are compared as `Intl.Collator('en')` does, in
 * every locale; versions are texts here (`10.0.0` comes before `9.0.0`).
 */
export declare function sortManifest(entries: ManifestEntry[]): ManifestEntry[];

/** The hash of a manifest, whatever its order: SHA-256, in lower-case hex. `blobSha256` does not count. */
export declare function computeLockfileHash(entries: ManifestEntry[]): string;

/** The enabled packages, name to version; the last of a name counts. */
export declare function buildDependencies(packages: PackageSpec[]): Record<string, string>;

/** The `package.json` of a set of packages. */
export declare function buildStorePackageJson(packages: PackageSpec[]): string;

/** Splits `name@version` at its last `@`; `undefined` if one half would be empty. */
export declare function splitSpec(spec: string): {
  name: string;
  version: string;
} | undefined;

/**
 * The manifest that a `bun.lock` describes: its packages in the order of the lock, each integrity once, bundled ones left out.
 *
 * @throws {PackageStoreError} `HF_PKG_LOCKFILE`
 */
export declare function parseBunLock(text: string): ManifestEntry[];

/** 150 MiB. */
export declare const DEFAULT_WARN_BYTES = 157286400;

/** 300 MiB. */
export declare const DEFAULT_BLOCK_BYTES = 314572800;

/** One hour. */
export declare const DEFAULT_TREE_GC_GRACE_MS = 3600000;

/** One day. */
export declare const DEFAULT_BLOB_GC_GRACE_MS = 86400000;

/** Manifests before the newest whose blobs stay. */
export declare const DEFAULT_BLOB_GC_RETAIN_PREVIOUS = 1;

/** The file in a tree that says since when it is not the current one. */
export declare const RETIRED_AT_MARKER = ".retired-at";

/** Judges the size of a set of packages. Exactly at a bound is not over it. */
export declare function evaluateSizeCap(input: {
  totalSizeBytes: number;
  cap: SizeCapConfig;
}): SizeCapVerdict;

/** Makes an empty registry. `logger` gets a line for each store that was skipped in `readWithFallback`. */
export declare function createBlobStoreRegistry(options?: {
  logger?: PackagesLogger;
}): BlobStoreRegistry;

/** Blobs as files of a folder. `put` is one rename-like step: a killed process leaves the whole blob, or none. */
export declare function createFileBlobStore(options: {
  root: string;
  id?: string;
}): NativeBlobStore;

/** Blobs in one SQLite file, which processes may share. */
export declare function createSqliteBlobStore(options: SqliteBlobStoreOptions): NativeBlobStore;

/** Blobs in a table of PostgreSQL. */
export declare function createPostgresBlobStore(options: PostgresBlobStoreOptions): NativeBlobStore;

/** Blobs as objects of a bucket of S3, or of a service that speaks its protocol. */
export declare function createS3BlobStore(options: S3BlobStoreOptions): NativeBlobStore;

/**
 * Deletes the blobs that no retained manifest needs and that are older than the grace. One that cannot be deleted is logged, and stays
 * for the next pass.
 */
export declare function runBlobGc(input: {
  deps: BlobGcDeps;
}): Promise<BlobGcSummary>;

/**
 * Makes a function that runs a blob GC under the installer lock, with the current manifest and the newest of the history retained. It
 * never rejects.
 */
export declare function createBlobGcTrigger(deps: BlobGcRunnerDeps): () => Promise<BlobGcSummary>;

/**
 * Moves every blob to the target store, one after another: copy, read back, compare, note the new place, and only then delete the old
 * copy (with `gcSource`). What a crash interrupted is continued by the next run. A failure is reported to `storage` and in the result; the
 * active store stays the one it was.
 *
 * @throws what `getStore` or `beginMigration` throw, before anything was moved
 */
export declare function runStorageMigration(deps: StorageMigrationDeps): Promise<StorageMigrationResult>;

/**
 * Continues a migration that a crash interrupted, in the background, if there is one and the lock can be had.
 *
 * @returns `done` resolves when it is over and the lock is released; it never rejects
 */
export declare function resumeCrashedMigration(deps: ResumeMigrationDeps): Promise<{
  resumed: boolean;
  reason?: string;
  done?: Promise<void>;
}>;

/**
 * Resolves packages and publishes their blobs. A blob that the store has already stays, and the manifest carries the hash of the
 * stored bytes, because those are what hosts will get. The manifest has the resolver's order, which says what hosts put at the root.
 */
export declare function performInstall(input: InstallInputs & Publishing): Promise<InstallResult>;

/**
 * Runs one install under the installer lock, and keeps its state. Never rejects for what goes wrong in between: the reason is in the
 * result, and in the state.
 */
export declare function runInstallNow(deps: InstallControllerDeps): Promise<{
  started: boolean;
  reason?: string;
}>;

/** Grace of {@link sweepCacheGc}: a day. What was seeded for a manifest that is not built yet must stay. */
export declare const DEFAULT_CACHE_GC_GRACE_MS = 86400000;
interface Place {
  storeRoot: string;
  logger?: PackagesLogger;
  signal?: AbortSignal;
}

/** Hashes every file of a tree, and compares it with what was built. Changes nothing, and takes no lock. */
export declare function verifyTree(input: Place & {
  lockfileHash: string;
}): Promise<TreeVerification>;

/**
 * Verifies a tree and, if it is damaged, builds it anew: cache entries are hashed too, and those that are bad are fetched again. The damaged
 * tree is exchanged in one step; which one is current does not change.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT` if the tree does not say what it was built from; reconcile to it instead
 * @throws {PackageStoreError} `HF_PKG_ENTRY_MISSING`, with the reason as its `cause`, if a cache entry could not be fetched again
 */
export declare function repairTree(input: Place & {
  lockfileHash: string;
  fetchBlob: ReconcileFsInput["fetchBlob"];
} & Pick<ReconcileFsInput, "linkMode" | "durability" | "limits">): Promise<RepairResult>;

/** Removes cache entries that no manifest of `keepManifests`, and no tree that is still there, needs. */
export declare function sweepCacheGc(input: Place & {
  keepManifests: ManifestEntry[][];
  graceMs?: number;
  now?: number;
}): Promise<CacheGcResult>;

/** What the tree of a manifest would be, without building it: where each package goes, what is missing, what a person should know. */
export declare function planTree(input: Place & {
  manifest: ManifestEntry[];
  roots?: Record<string, string>;
}): Promise<TreePlan>;

/**
 * Makes a tree that is still there the current one again: no network, nothing is built.
 *
 * @throws {HoldfastError} `HF_INVALID_ARGUMENT` if no complete tree of that hash is left
 */
export declare function rollbackTo(input: Place & {
  lockfileHash: string;
} & Pick<ReconcileFsInput, "verify" | "treeGcGraceMs">): Promise<void>;

/** How much room a store takes. Files that trees share with the cache count once in the total. */
export declare function storeStats(storeRoot: string): Promise<PackagesStoreStats>;

/** The words of the format: what is stored in columns and sent in events. */
/** Names a project. The ids of its sessions begin with it. */
export type ProjectId = string;

/** Names a session: `<projectId>-<n>` with n = 1, 2, 3 … per project. A number is never given twice. */
export type SessionId = string;

/**
 * A time that a caller hands in: a `Date`, milliseconds since the epoch, or an RFC 3339 text with an offset (`2026-05-31T12:00:00Z`).
 * It is cut to the millisecond. What is no time, or not in the years 0 to 9999, is refused with `HF_INVALID_ARGUMENT` before
 * anything else happens. Times that come back are always a `Date`.
 */
export type TimeInput = Date | number | string;

/**
 * Where a session stands. `detecting` = in quarantine: a probe did not tell clearly. `done` and `terminated` are terminal: nothing but a
 * restore changes such a session any more.
 */
export type SessionState = "not_started" | "working" | "idle" | "needs_input" | "stuck" | "detecting" | "done" | "terminated";

/** Why a session was terminated; `''` in every other state. */
export type TerminationReason = "" | "manually_killed" | "runtime_lost" | "agent_process_exited" | "probe_failure" | "error_in_process" | "auto_cleanup" | "pr_merged";

/** Which agent runs in a session. Names besides these are those of the store's option `harnesses`. */
export type AgentHarness = "" | "claude-code" | "codex" | "aider" | "opencode" | (string & {});

/** What an agent was last heard to do. `exited` alone ends no session: only a probe does. */
export type ActivityState = "active" | "ready" | "idle" | "waiting_input" | "blocked" | "exited";

/** What a session is for. */
export type SessionKind = "worker" | "orchestrator";

/** Who told of an activity. */
export type ActivitySource = "native" | "terminal" | "hook" | "runtime" | "none";

/** What a probe found. `failed` = the probe itself failed, `unknown` = it cannot tell; neither is ever read as death. */
export type ProbeResult = "alive" | "dead" | "failed" | "unknown";

/** What is known of a process. */
export type ProcessLiveness = "alive" | "dead" | "indeterminate";

/** Where a pull request stands. */
export type PrState = "draft" | "open" | "merged" | "closed";

/** What the checks of a pull request say together. */
export type CiState = "unknown" | "pending" | "passing" | "failing";

/** What the reviewers of a pull request say. */
export type ReviewDecision = "none" | "approved" | "changes_requested" | "review_required";

/** Whether a pull request can be merged. */
export type Mergeability = "unknown" | "mergeable" | "conflicting" | "blocked" | "unstable";

/** How one run of a check went. */
export type CheckStatus = "unknown" | "queued" | "in_progress" | "passed" | "failed" | "skipped" | "cancelled";

/** What a person is shown. Derived from a session and its pull request whenever it is read, never stored. */
export type SessionStatus = "spawning" | "working" | "detecting" | "pr_open" | "draft" | "ci_failed" | "review_pending" | "changes_requested" | "approved" | "mergeable" | "merged" | "cleanup" | "needs_input" | "stuck" | "errored" | "killed" | "idle" | "done" | "terminated" | "no_signal";

/** Which merged pull request ends its session: `any`, the `last` one, which leaves none open, or `never` one. */
export type MergeEnds = "any" | "last" | "never";

/** What the engine does by itself about a change: the first four tell the agent, the others tell a person. */
export type ReactionKey = "ci-failed" | "review-comments" | "merge-conflicts" | "agent-idle" | "approved-and-green" | "agent-stuck" | "agent-needs-input" | "agent-exited" | "pr-closed" | "pr-merged";

/** A project. */
export interface Project {
  id: ProjectId;
  /** Where its repository is checked out. */
  path: string;
  /** Where its repository comes from. */
  repoOriginUrl: string;
  /** For people. */
  displayName: string;
  /** When it was first seen; kept by every later write. */
  registeredAt: Date;
  /** When it was archived; `null` = active. */
  archivedAt: Date | null;
}

/** A project to be stored. What is left out is `''`, or for `registeredAt` now; without `archivedAt` the project is active (again). */
export interface ProjectInput {
  id: ProjectId;
  path: string;
  repoOriginUrl?: string;
  displayName?: string;
  registeredAt?: TimeInput;
  archivedAt?: TimeInput | null;
}

/** What an agent was last heard to do. */
export interface Activity {
  state: ActivityState;
  /** When that was heard; `null` = never. */
  lastActivityAt: Date | null;
  source: ActivitySource;
}

/** The memory of a quarantine: what keeps one bad probe from being taken for death. */
export interface Detecting {
  /** How many probes in a row said the same. */
  attempts: number;
  /** When the quarantine began. */
  startedAt: Date;
  /** What they said, as {@link hashEvidence} of it. */
  evidenceHash: string;
}

/** The truth about a session; everything that is shown is derived from it. */
export interface Lifecycle {
  state: SessionState;
  terminationReason: TerminationReason;
  /** Whether its process was last seen alive. */
  isAlive: boolean;
  harness: AgentHarness;
  activity: Activity;
  /** Set in quarantine only. */
  detecting: Detecting | null;
}

/** What is needed to find, tear down and resume a session. It never gets into the change log, an error message or a log line. */
export interface SessionMetadata {
  /** Git branch. */
  branch: string;
  /** The session's folder. */
  workspacePath: string;
  /** The runtime's name of the session. */
  runtimeHandleId: string;
  /** Which runtime it is in. */
  runtimeName: string;
  /** The agent's own name of the conversation, to resume it by. */
  agentSessionId: string;
  /** What the agent was told first. */
  prompt: string;
}

/** A session as it is stored. */
export interface SessionRecord {
  id: SessionId;
  projectId: ProjectId;
  /** 1, 2, 3 … in its project. */
  num: number;
  /** What it works on. */
  issueId: string;
  kind: SessionKind;
  lifecycle: Lifecycle;
  metadata: SessionMetadata;
  /** Grows by 1 with every write. */
  revision: number;
  createdAt: Date;
  updatedAt: Date;
  /** What people call it; `''` = nothing. No manager reads or writes it. */
  displayName: string;
  /** Whether people want it on top. No manager reads or writes it. */
  pinned: boolean;
  /** Names the start of its runtime that counts; `''` before the first. Made by {@link SessionManager}; `updateSession` leaves it as it is. */
  launchId: string;
  /** When its runtime last came up; `null` = never. `updateSession` leaves it as it is. */
  launchedAt: Date | null;
}

/** What people see of a session and no decision looks at. */
export type SessionDisplay = Partial<Pick<SessionRecord, "displayName" | "pinned">>;

/** A session with what a person is shown. */
export interface Session extends SessionRecord {
  status: SessionStatus;
}

/** An {@link Activity} to be stored. Left out: `idle`, `null`, `none`. */
export interface ActivityInput {
  state?: ActivityState;
  lastActivityAt?: TimeInput | null;
  source?: ActivitySource;
}

/** A {@link Detecting} to be stored, or to go on from. */
export interface DetectingInput {
  attempts: number;
  startedAt: TimeInput;
  evidenceHash: string;
}

/** A {@link Lifecycle} to be stored. Left out: `not_started`, `''`, `false`, `''`, idle and never heard, `null`. */
export interface LifecycleInput {
  state?: SessionState;
  terminationReason?: TerminationReason;
  isAlive?: boolean;
  harness?: AgentHarness;
  activity?: ActivityInput;
  detecting?: DetectingInput | null;
}

/** A {@link SessionRecord} to be stored. Times that are left out are now, metadata that are left out are `''`. */
export interface SessionRecordInput {
  id: SessionId;
  projectId: ProjectId;
  num: number;
  issueId?: string;
  kind?: SessionKind;
  lifecycle?: LifecycleInput;
  metadata?: Partial<SessionMetadata>;
  revision: number;
  createdAt?: TimeInput;
  updatedAt?: TimeInput;
  displayName?: string;
  pinned?: boolean;
}

/** A session that does not exist yet: the store gives it its id. */
export type NewSession = Omit<SessionRecordInput, "id" | "num" | "revision">;

/** What is known of the pull request that counts for a session: its newest open one (or its worst, {@link ReactionPolicy.severalPrs}), else its newest. */
export interface PrFacts {
  /** Whether there is one; if not, the rest says nothing. */
  exists: boolean;
  url: string;
  number: number;
  draft: boolean;
  merged: boolean;
  closed: boolean;
  ci: CiState;
  review: ReviewDecision;
  mergeability: Mergeability;
  /** Whether it has a comment that is not resolved. */
  reviewComments: boolean;
  /** Set if it goes to the branch of another open pull request of the session: its conflicts are not its own then, until that one is merged. */
  stacked?: boolean;
}

/** A pull request. */
export interface PrRow {
  /** Its address, which names it. */
  url: string;
  /** The session that it belongs to. */
  sessionId: SessionId;
  number: number;
  state: PrState;
  reviewDecision: ReviewDecision;
  ciState: CiState;
  mergeability: Mergeability;
  updatedAt: Date;
  /** Its branch; `''` = unknown. */
  headBranch: string;
  /** The branch that it goes to; `''` = unknown. */
  baseBranch: string;
}

/** A pull request to be stored. Left out, or `''`: 0, `open`, `none`, `unknown`, `unknown`, now, `''`, `''`. */
export interface PrRowInput {
  url: string;
  sessionId: SessionId;
  number?: number;
  state?: PrState | "";
  reviewDecision?: ReviewDecision | "";
  ciState?: CiState | "";
  mergeability?: Mergeability | "";
  updatedAt?: TimeInput;
  headBranch?: string;
  baseBranch?: string;
}

/** A run of a check on a commit. Seeing it again changes the row; another commit is another row, which is another attempt. */
export interface PrCheck {
  prUrl: string;
  name: string;
  commitHash: string;
  status: CheckStatus;
  /** Where to read more. */
  url: string;
  /** The end of its output. */
  logTail: string;
  /** When the run was first seen; kept by every later write. */
  createdAt: Date;
}

/** A check to be stored. Left out: `unknown`, `''`, `''`, now. */
export interface PrCheckInput {
  prUrl: string;
  name: string;
  commitHash: string;
  status?: CheckStatus;
  url?: string;
  logTail?: string;
  createdAt?: TimeInput;
}

/** A comment of a reviewer. */
export interface PrComment {
  prUrl: string;
  /** Its name within the pull request. */
  commentId: string;
  author: string;
  file: string;
  line: number;
  body: string;
  /** Whether it is settled. */
  resolved: boolean;
  createdAt: Date;
}

/** A comment to be stored. Left out: `''`, `''`, 0, `''`, `false`, now. */
export interface PrCommentInput {
  prUrl: string;
  commentId: string;
  author?: string;
  file?: string;
  line?: number;
  body?: string;
  resolved?: boolean;
  createdAt?: TimeInput;
}

/** What is told of a session. Never its metadata. */
export interface SessionChange {
  id: string;
  state: SessionState;
  terminationReason: TerminationReason;
  isAlive: 0 | 1;
  activity: ActivityState;
}

/** What is told of a pull request. */
export interface PrChange {
  url: string;
  /** The session that it belongs to. */
  session: string;
  state: PrState;
  ci: CiState;
  review: ReviewDecision;
  mergeability: Mergeability;
}

/** What is told of a check. */
export interface PrCheckChange {
  /** The address of the pull request. */
  pr: string;
  name: string;
  commit: string;
  status: CheckStatus;
}

/** One row of the change log. `seq` grows in the order of the commits, is never given twice, and has gaps: where rows were pruned, and on PostgreSQL after a crash of the server. */
export type ChangeEvent = {
  seq: number;
  projectId: ProjectId;
  sessionId: SessionId | null;
  /** When the change was made, by the clock of who made it. */
  createdAt: Date;
} & ({
  type: "session_created" | "session_updated";
  payload: SessionChange;
} | {
  type: "session_deleted";
  payload: {
    id: string;
  };
} | {
  type: "pr_created" | "pr_updated";
  payload: PrChange;
} | {
  type: "pr_check_recorded";
  payload: PrCheckChange;
});

/** What is told of a pull request that is gone, or whose comments are others now. */
export interface PrReference {
  url: string;
  /** The session that it belongs, or belonged, to. */
  session: string;
}

/** What is told of a notification. */
export interface NotificationChange {
  id: number;
  /** The session that it is about. */
  session: string;
  reaction: string;
  seen: 0 | 1;
  /** Its cause is gone, or all of its session is. */
  resolved: 0 | 1;
}

/**
 * What the log of a store tells besides {@link ChangeEvent} once it was opened with `invalidation: true`. Types of their own, so that a `switch`
 * over the types of `ChangeEvent` stays exhaustive where nobody asked for more.
 */
export type InvalidationEvent = {
  seq: number;
  projectId: ProjectId;
  sessionId: SessionId | null;
  createdAt: Date;
} & ({
  type: "pr_deleted" | "pr_comments_replaced";
  payload: PrReference;
} | {
  type: "notification_changed";
  payload: NotificationChange;
});

/** Whatever may be in a change log. */
export type AnyChangeEvent = ChangeEvent | InvalidationEvent;

/** Where a {@link CdcPoller} reads. A session store is one; so is any object with these two methods. */
export interface ChangeSource<E extends AnyChangeEvent = ChangeEvent> {
  /**
   * Reads at most `limit` (default 512) events with a seq above `after`, ascending.
   *
   * @throws {ChangeLogTruncatedError} `HF_LIFECYCLE_CHANGE_LOG_TRUNCATED`: events after `after` were pruned; the error has `after` and `oldestSeq`
   */
  readChangeLogAfter(after: number, limit?: number): Promise<E[]>;
  /** The highest seq that was ever given; 0 if there was none. Pruning does not lower it. */
  maxChangeLogSeq(): Promise<number>;
}

/**
 * A reader of the log that the store remembers by name, across restarts. It gets every event at least once: what it has not
 * confirmed with `ack` it reads again, and what it has not confirmed is not pruned, unless a hard limit of the caller's says so.
 */
export interface ChangeConsumer<E extends AnyChangeEvent = ChangeEvent> {
  /**
   * Reads at most `limit` (default 512) events after the confirmed one.
   *
   * @throws {ChangeLogTruncatedError} `HF_LIFECYCLE_CHANGE_LOG_TRUNCATED`: a hard limit pruned some of them
   */
  read(limit?: number): Promise<E[]>;
  /** Confirms everything up to `seq`. A lower seq than the confirmed one changes nothing. */
  ack(seq: number): Promise<void>;
  /** The confirmed seq; 0 if nothing was confirmed. */
  offset(): Promise<number>;
  /** Forgets the reader, which no longer holds pruning up. */
  delete(): Promise<void>;
}

/** Options of {@link Broadcaster.subscribe} for a reader that iterates. */
export interface SubscribeOptions {
  /** Only events of this project. Default: of all. */
  projectId?: ProjectId;
  /** How many events may wait for the reader before the subscription ends with an error. Default 1024. */
  buffer?: number;
  /** Ends the subscription when it aborts. */
  signal?: AbortSignal;
}

/**
 * Events as an async iterator, for one reader. It never holds up who publishes and never skips an event in silence: when more than
 * `buffer` events wait, those are still handed out, and then `next()` rejects with `HF_LIFECYCLE_SUBSCRIBER_OVERFLOW`, whose `lastSeq` is the one to
 * read on from. `break`, `return()`, disposing it and its signal end it.
 */
export interface ChangeSubscription<E extends AnyChangeEvent = ChangeEvent> extends AsyncIterableIterator<E>, AsyncDisposable {
  /** The seq of the event that was handed out last; 0 before the first. */
  readonly lastSeq: number;
  return(): Promise<IteratorResult<E, undefined>>;
}

/** Options of {@link SessionStore.changes}. */
export interface FollowChangesOptions {
  /** Begin with what comes after this seq, such as the last one that a client has seen. Default 0: the oldest event that is still there. */
  after?: number;
  /** Only events of this project. Default: of all. */
  projectId?: ProjectId;
  /** Ends the iteration when it aborts. */
  signal?: AbortSignal;
}

/** Names a running runtime. */
export interface RuntimeHandle {
  id: string;
  runtimeName: string;
}

/** What a runtime needs to start. */
export interface RuntimeConfig {
  sessionId: SessionId;
  workspacePath: string;
  launchCommand: string;
  /** What the agent wants, with the session's, the project's, the issue's and the launch's id added (see {@link EnvironmentNames}). */
  env: Record<string, string>;
  /** Names this start: reports that carry it ({@link ActivitySignal}, {@link RuntimeFacts}) are not mistaken for those of an earlier one. */
  launchId: string;
}

/** Where agents run: tmux, containers, child processes. */
export interface Runtime {
  create(config: RuntimeConfig): Promise<RuntimeHandle>;
  /** Must be harmless on a runtime that is gone. */
  destroy(handle: RuntimeHandle): Promise<void>;
  /** Rejecting means "cannot tell", which is never taken for death: reject for a handle whose `runtimeName` is not yours. */
  isAlive(handle: RuntimeHandle): Promise<boolean>;
}

/** What an agent needs to start. */
export interface AgentConfig {
  sessionId: SessionId;
  workspacePath: string;
  prompt: string;
}

/** A coding agent: how it is started and resumed. */
export interface Agent {
  getLaunchCommand(config: AgentConfig): string | Promise<string>;
  /** The command that resumes a conversation. */
  getRestoreCommand(agentSessionId: string): string | Promise<string>;
  getEnvironment(config: AgentConfig): Record<string, string> | Promise<Record<string, string>>;
}

/** Whose workspace. */
export interface WorkspaceConfig {
  projectId: ProjectId;
  sessionId: SessionId;
  branch: string;
}

/** A workspace. */
export interface WorkspaceInfo extends WorkspaceConfig {
  path: string;
}

/** Where agents work: git worktrees, clones. */
export interface Workspace {
  create(config: WorkspaceConfig): Promise<WorkspaceInfo>;
  /** Brings the workspace of an ended session back. */
  restore(config: WorkspaceConfig): Promise<WorkspaceInfo>;
  /** May refuse by rejecting, say because of work that is not committed: it is never forced. Must be harmless on one that is gone. */
  destroy(info: WorkspaceInfo): Promise<void>;
}

/** Types into a running agent. */
export interface Messenger {
  send(sessionId: SessionId, message: string): Promise<void>;
}

/** What a person is told. `type` is `reaction.<key>`, or `reaction.escalated`. */
export interface NotificationEvent {
  type: string;
  priority: "urgent" | "action" | "info";
  sessionId: SessionId;
  projectId: ProjectId;
  message: string;
}

/** Tells a person. */
export interface Notifier {
  notify(event: NotificationEvent): Promise<void>;
}

/** What a probe of a runtime, and of the process in it, found. */
export interface RuntimeFacts {
  runtime: ProbeResult;
  process: ProbeResult;
  /** When. Default: now. */
  observedAt?: TimeInput;
  /** Which start of the runtime was looked at. If another one counts by now, nothing is changed. Default: whichever counts. */
  launchId?: string;
}

/** What an agent was heard to do. */
export interface ActivitySignal {
  /** `false`: the signal says nothing, and changes nothing. */
  valid: boolean;
  state: ActivityState;
  /** When. Default: now. Older than what is stored: dropped; in the future: now. */
  timestamp?: TimeInput;
  /** Who told. Default `none`. */
  source?: ActivitySource;
  /** Which start of the runtime it comes from, as the agent's environment has it. If another one counts by now, nothing is changed. Default: whichever counts. */
  launchId?: string;
}

/** What was found about a pull request. */
export interface PrObservation {
  /** `false`: it could not be looked at, which changes nothing, whatever else is set. */
  fetched: boolean;
  url: string;
  number: number;
  draft?: boolean;
  merged?: boolean;
  closed?: boolean;
  ci?: CiState;
  review?: ReviewDecision;
  mergeability?: Mergeability;
  /** Its branch, and the branch that it goes to; of a fork with its owner (`owner:branch`). Default `''` = unknown. */
  headBranch?: string;
  baseBranch?: string;
  /** The checks as they are now. */
  checks?: Omit<PrCheckInput, "prUrl">[];
  /** All comments as they are now. */
  comments?: Omit<PrCommentInput, "prUrl">[];
}

/** What came out of starting a session. Fields that are left out or empty keep what is stored. */
export interface SpawnOutcome {
  branch?: string;
  workspacePath?: string;
  runtimeHandle?: RuntimeHandle;
  agentSessionId?: string;
  prompt?: string;
  /** Which start this is about; if another one counts by now, `HF_LIFECYCLE_SESSION_BUSY`. Default: whichever counts. */
  launchId?: string;
  /**
   * What the session must be: `spawning` = not ended (a kill meanwhile wins, with `HF_LIFECYCLE_SESSION_TERMINATED`), `terminal` = ended (else
   * `HF_LIFECYCLE_SESSION_BUSY`). Default: either.
   */
  expect?: "spawning" | "terminal";
}

/** What {@link resolveProbeDecision} decides from. Booleans that are left out are `false`. */
export interface ProbeInput {
  runtimeAlive?: boolean;
  /** Whether the runtime could not be probed. */
  runtimeFailed?: boolean;
  /** Default `indeterminate`. */
  process?: ProcessLiveness;
  /** Whether the process could not be probed. */
  processFailed?: boolean;
  /** Whether the agent was heard within the window. */
  recentActivity?: boolean;
  killRequested?: boolean;
  /** Default `manually_killed`. */
  killReason?: TerminationReason;
  /** The memory of a quarantine that goes on. */
  prior?: DetectingInput | null;
  now: TimeInput;
}

/** What tells whether an agent has been silent for too long since the start of its runtime. */
export interface SilenceInput {
  /** `SessionRecord.launchedAt`. */
  launchedAt: TimeInput | null;
  now: TimeInput;
  /** Default {@link NO_SIGNAL_AFTER_MS}. */
  noSignalAfterMs?: number;
}

/** What was decided about a session, and from what. */
export interface LifecycleDecision {
  state: SessionState;
  terminationReason: TerminationReason;
  isAlive: boolean;
  detecting: Detecting | null;
  /** The facts as text; its hash tells whether two probes said the same. */
  evidence: string;
}

/**
 * Something for people: written with the transition that called for it, whether a notifier exists, fails or succeeds. As long as it is not
 * resolved, the same reaction to the same session counts to it.
 */
export interface SessionNotification {
  /** Newer ones have higher ids. */
  id: number;
  projectId: ProjectId;
  sessionId: SessionId;
  /** What it is about; for `reaction.escalated`, what came to nothing. */
  reaction: ReactionKey;
  /** As the notifier gets it: `reaction.<key>` or `reaction.escalated`. */
  type: string;
  priority: NotificationEvent["priority"];
  message: string;
  /** How often it was said. */
  count: number;
  firstAt: Date;
  lastAt: Date;
  /** When somebody saw it; `null` = nobody has, or not since it was said last. */
  seenAt: Date | null;
  /** When its cause went away, or somebody said so. What only informs (`info`) is resolved from the beginning. */
  resolvedAt: Date | null;
}

/** Which notifications are wanted. */
export interface NotificationFilter {
  projectId?: ProjectId;
  sessionId?: SessionId;
  /** Only those whose cause is still there. */
  unresolved?: boolean;
  /** Only those that nobody saw. */
  unseen?: boolean;
  /** At most so many; default 100, at most 1000. */
  limit?: number;
  /** Only those with a lower id: the last one of the page before. */
  before?: number;
}

/** For a badge. */
export interface NotificationCounts {
  /** Nobody saw them, resolved or not. */
  unseen: number;
  /** Their cause is still there, seen or not. */
  unresolved: number;
  /** Of those, the urgent ones. */
  urgent: number;
}

/** What may be otherwise about reactions. What is left out is as it stands here. */
export interface ReactionPolicy {
  /** Reactions that do not happen. Default: none. */
  off?: ReactionKey[];
  /** Other texts. What checks and reviewers say is still added. */
  messages?: Partial<Record<ReactionKey, string>>;
  /** Milliseconds from a nudge that did not help until a person is told. Default 900,000. */
  escalateAfterMs?: number;
  /** After so many failed runs of a check in a row a person is told instead of the agent. Default 3. */
  ciBrakeRuns?: number;
  /** The agent is told of so many different reviews; then a person is. Default 3. */
  reviewMaxNudges?: number;
  /**
   * How many probes in a row that say the same unclear thing make a session stuck. Default 3. With probes every 5 seconds that is
   * sooner than `recentActivityWindowMs`: an active agent that dies suddenly is first reported as stuck. More attempts than
   * window / interval avoid it.
   */
  detectingMaxAttempts?: number;
  /** How long a quarantine lasts at most, in milliseconds. Default 300,000. */
  detectingMaxDurationMs?: number;
  /** Whether one message tells of all failed checks, not of the first alone. Default `false`. */
  allFailedChecks?: boolean;
  /** Which merged pull request ends its session. Default `any`. {@link SessionStore.setMergeEnds} says otherwise of one session. */
  mergeEnds?: MergeEnds;
  /**
   * Which of several open pull requests the status and the reactions follow: the `newest`, or the `worst`, so that one that fails is not hidden by
   * a newer one that passes. With `worst`, checks and reviews of all open ones are told to the agent. Default `newest`.
   */
  severalPrs?: "newest" | "worst";
}

/** What a decision was about. More may come. */
export type DecisionCause = "probe" | "activity" | "pr" | "spawn" | "restore" | "kill" | "update" | (string & {});

/** Why a session became what it is. One per change of state, reason or liveness, and per step of a quarantine. */
export interface SessionDecision {
  type: "decision";
  /** The newest change when it was made: its own, if it made one. */
  seq: number;
  projectId: ProjectId;
  sessionId: SessionId;
  /** By the clock of who made it. */
  createdAt: Date;
  payload: {
    cause: DecisionCause;
    from: SessionState;
    to: SessionState;
    terminationReason: TerminationReason;
    /** Whether it counts as alive after it. */
    isAlive: boolean;
    /** Equal unclear probes so far; `null` outside of a quarantine. */
    detectingAttempts: number | null;
    /** What it was decided on, short and for machines: `hook waiting_input`, `killed: manually_killed`. No prompt, handle or path. */
    evidence: string;
  };
}

/** A row of a session's timeline; `type` tells which. */
export type TimelineEntry<E = ChangeEvent> = E | SessionDecision;

/** How much of the change log is kept. Rows that a named consumer has not confirmed stay, whatever the limits say, unless `hard`. */
export interface ChangeLogRetention {
  /** Milliseconds. Default 7 days. */
  maxAgeMs?: number;
  /** Rows. Default 100,000. */
  maxRows?: number;
  /** Whether the limits hold against consumers that have not confirmed too; those get an error that names what they missed. Default `false`. */
  hard?: boolean;
  /** Milliseconds that a notification is kept after it was resolved. Default 30 days. It goes with a batch of changes, and is not counted. */
  notificationsMaxAgeMs?: number;
}

/** Where a session store is, and how it works. Exactly one of `dataDir`, `path` and `connectionString`. */
export interface OpenSessionStoreOptions {
  /** The folder of `sessions.db`; created when missing. */
  dataDir?: string;
  /** The database file, or `:memory:`. */
  path?: string;
  /** A PostgreSQL database. */
  connectionString?: string;
  /** PostgreSQL only: the schema of the tables, created when missing. Default `holdfast_lifecycle`. */
  schema?: string;
  /** PostgreSQL only: connections at a time. Default 4. */
  poolSize?: number;
  /** PostgreSQL only: TLS, as `pg` takes it. Default: what `connectionString` says. */
  ssl?: boolean | {
    rejectUnauthorized?: boolean;
    ca?: string | string[];
    cert?: string;
    key?: string;
  };
  /**
   * SQLite only. `full` (default): a write is on disk when its promise resolves. `normal`: it survives a crash of the process, but the last
   * ones may be lost in a power cut. PostgreSQL is as durable as its server (`synchronous_commit`).
   */
  durability?: "full" | "normal";
  /** How long to wait for others that write, in milliseconds; then a call rejects with `HF_BUSY`. Default 5000. */
  busyTimeoutMs?: number;
  /** SQLite only: connections that read at a time. Default 8. */
  maxReaders?: number;
  /**
   * SQLite only. What a file on NFS, SMB and the like leads to, where several hosts that write destroy it: `refuse` (the default) rejects with
   * `HF_INVALID_ARGUMENT`, `allow` takes it, for one host alone.
   */
  networkFileSystem?: "refuse" | "allow";
  /** How much of the change log is kept; `false` = all of it. */
  retention?: ChangeLogRetention | false;
  /** Further names of harnesses. */
  harnesses?: string[];
  /** Where "now" comes from. Default: the system. */
  clock?: () => Date;
  /** Gets lines about what nobody waits for. */
  logger?: Logger;
  /**
   * `true` makes the change log tell of more, from now on and whoever writes: {@link InvalidationEvent}, and `session_updated` also when branch,
   * agentSessionId, displayName or pinned change. That is kept in the store: opening it without this option leaves it as it is, and reads the same log.
   * Default: what the store was made to tell.
   */
  invalidation?: boolean;
}

/** What a session store holds. */
export interface SessionStoreStats {
  projects: number;
  sessions: number;
  /** Sessions that have not ended. */
  running: number;
  /** The highest seq that was ever given; 0 if there was none. */
  head: number;
  /** The first seq that is still there; 0 if none is. */
  oldest: number;
  /** How many seqs are from the one to the other. */
  changes: number;
  /** Named consumers, and how many changes each has not confirmed. */
  consumers: {
    name: string;
    ackedSeq: number;
    updatedAt: Date;
    lag: number;
  }[];
  /** Bytes of the write-ahead log. Not with PostgreSQL. */
  walBytes?: number;
  /** Times that a reader kept the log from being written back, so that it grew. Not with PostgreSQL. */
  checkpointsHeld?: number;
  /** How many transactions this store has committed since it was opened. Not with PostgreSQL, as the next three. */
  commits?: number;
  /** How many calls that write it has run: more of them than `commits` shared a transaction. */
  jobs?: number;
  /** The most calls that shared one. */
  largestBatch?: number;
  /** Calls that wait to write now. */
  queued?: number;
}

/** What looking through the database found. */
export interface SessionStoreCheck {
  /** Whether all is well. */
  sound: boolean;
  /** What is not, one line each. */
  problems: string[];
}

/**
 * The durable truth about sessions. Every method that changes something is one transaction: all of it happens with its rows in the
 * change log, or nothing, and it is on disk when the promise resolves (see `durability`). A read that begins after that sees it, from any handle
 * of any process.
 *
 * Every method may reject with `HF_CLOSED`, `HF_BUSY` (others held the database for longer than `busyTimeoutMs`), `HF_DISK_FULL`,
 * `HF_CORRUPT` or `HF_IO`, and with `HF_INVALID_ARGUMENT` before anything was touched. `get…` of what does not exist resolves to `null`, a
 * list of nothing to `[]`.
 */
export interface SessionStore<E extends AnyChangeEvent = ChangeEvent> extends ChangeSource<E>, AsyncDisposable {
  /** The database file, `:memory:`, or for PostgreSQL the schema. */
  readonly path: string;
  readonly schemaVersion: number;
  /**
   * Ends what reads from the store (pollers, {@link changes}), and calls of the managers that wait for a port: those reject with `HF_CLOSED`. Waits
   * for transactions that have begun; a PostgreSQL server that keeps silent is given up after five seconds, and calls under way reject. Twice is
   * harmless.
   */
  close(): Promise<void>;
  /** A project, archived or not. */
  getProject(id: ProjectId): Promise<Project | null>;
  /** The active projects, by id. */
  listProjects(): Promise<Project[]>;
  /** Stores a project. On an id that exists everything but `registeredAt` is replaced. */
  upsertProject(project: ProjectInput): Promise<void>;
  /** Archives a project: it leaves {@link listProjects}; its sessions stay. `at` defaults to now. */
  archiveProject(id: ProjectId, at?: TimeInput): Promise<void>;
  /**
   * Stores how managers react to the sessions of a project, in place of what was stored; `null` = as they please. It counts from the next
   * transaction of any manager on, for what it says: the rest is as the manager's own policy says. Of `messages`, each key counts by itself.
   *
   * @throws {ConstraintError} `HF_LIFECYCLE_CONSTRAINT`: no such project
   */
  setReactionPolicy(projectId: ProjectId, policy: ReactionPolicy | null): Promise<void>;
  /** What {@link setReactionPolicy} has stored, as far as this version knows it; `null` if nothing is stored. */
  reactionPolicy(projectId: ProjectId): Promise<ReactionPolicy | null>;
  /**
   * Stores a new session under the next number of its project.
   *
   * @throws {ConstraintError} `HF_LIFECYCLE_CONSTRAINT`: no such project, or a value that the format does not have
   */
  createSession(session: NewSession): Promise<SessionRecord>;
  /**
   * Writes everything about a session that can change, `updatedAt` included, and counts its revision up.
   *
   * @throws {StaleRecordError} `HF_LIFECYCLE_STALE_RECORD`: the revision is no longer `expectedRevision`; nothing was written
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   */
  updateSession(session: SessionRecord, options?: {
    expectedRevision?: number;
  }): Promise<void>;
  /**
   * Takes over the fields of `patch` that are not empty; emits no event.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   */
  patchSessionMetadata(id: SessionId, patch: Partial<SessionMetadata>): Promise<SessionRecord>;
  /**
   * Sets what people see of a session; what is left out stays. No manager touches it.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   */
  setSessionDisplay(id: SessionId, display: SessionDisplay): Promise<SessionRecord>;
  getSession(id: SessionId): Promise<SessionRecord | null>;
  /** The sessions of a project, by number. */
  listSessions(projectId: ProjectId): Promise<SessionRecord[]>;
  /** All sessions, by project and number. */
  listAllSessions(): Promise<SessionRecord[]>;
  /** Removes a session with its pull requests; its rows in the change log stay. `false` if there was none. Its number is not given again. */
  deleteSession(id: SessionId): Promise<boolean>;
  /**
   * Says which merged pull request ends this session, whatever the policies say; `null` = as they say. It is no part of the record: its revision
   * stays, and so does `updatedAt`.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   */
  setMergeEnds(id: SessionId, mergeEnds: MergeEnds | null): Promise<void>;
  /** What {@link setMergeEnds}, or the spawn, has said; `null` if nothing was said. */
  mergeEnds(id: SessionId): Promise<MergeEnds | null>;
  /** Stores a pull request. On an address that exists everything is replaced, the session too. */
  upsertPr(pr: PrRowInput): Promise<void>;
  getPr(url: string): Promise<PrRow | null>;
  /** The pull requests of a session, newest first. */
  listPrsBySession(id: SessionId): Promise<PrRow[]>;
  /** Removes a pull request with its checks and comments; emits no event. `false` if there was none. */
  deletePr(url: string): Promise<boolean>;
  /** What is known of the pull request that counts: the newest open one, or the worst if the project's policy says so; else the newest. */
  prFactsForSession(id: SessionId): Promise<PrFacts>;
  /** Stores a pull request, adds or changes `checks`, and makes `comments` the whole set of its comments: one transaction. */
  writePrObservation(pr: PrRowInput, checks: PrCheckInput[], comments: PrCommentInput[]): Promise<void>;
  /** How the last runs of a check went, newest first. */
  recentCheckStatuses(prUrl: string, name: string, limit: number): Promise<CheckStatus[]>;
  /** Adds or changes a check. */
  recordCheck(check: PrCheckInput): Promise<void>;
  /** The checks of a pull request, by name and time. */
  listChecks(prUrl: string): Promise<PrCheck[]>;
  /** Makes `comments` the whole set of a pull request's comments. */
  replacePrComments(prUrl: string, comments: PrCommentInput[]): Promise<void>;
  /** The comments of a pull request, by time and id. */
  listPrComments(prUrl: string): Promise<PrComment[]>;
  /** As {@link readChangeLogAfter}, of one project. */
  readChangeLogAfterForProject(projectId: ProjectId, after: number, limit?: number): Promise<E[]>;
  /** The first seq that is still there; 0 if none is. */
  oldestChangeLogSeq(): Promise<number>;
  /** Deletes rows of the change log beyond the limits, but none that a named consumer has not confirmed, unless `hard`. Resolves to how many. */
  pruneChangeLog(limits: ChangeLogRetention): Promise<number>;
  /** A reader of the log whose place the store remembers under `name`. */
  consumer(name: string): ChangeConsumer<E>;
  /**
   * Every event after a seq, from the log first and then as it happens, without gap or duplicate: what an SSE endpoint with `Last-Event-ID`
   * needs. It reads no faster than its reader, so it needs no buffer. It ends with its signal, with `break`, and when the store is closed.
   *
   * @throws {ChangeLogTruncatedError} from `next()`, `HF_LIFECYCLE_CHANGE_LOG_TRUNCATED`: events after `after` were pruned
   *
   * @example
   * ```ts
   * for await (const event of store.changes({ after: lastEventId, projectId, signal })) response.write(toSse(event));
   * ```
   */
  changes(options?: FollowChangesOptions): ChangeSubscription<E>;
  /**
   * What happened to one session, and why: what is kept of it in the change log, and the decisions about it (the newest 256 at least), each after
   * the change that it made. Reads the log of its project: for looking into what happened, not for serving. Decisions go with their session.
   */
  sessionTimeline(id: SessionId): Promise<TimelineEntry<E>[]>;
  /**
   * What people were, or should have been, told: newest first.
   *
   * @example
   * ```ts
   * for (const { sessionId, message } of await store.notifications({ unresolved: true })) console.log(sessionId, message);
   * ```
   */
  notifications(filter?: NotificationFilter): Promise<SessionNotification[]>;
  /** Counts for a badge, of a project or of all. */
  notificationCounts(projectId?: ProjectId): Promise<NotificationCounts>;
  /** Notes that somebody saw them; resolves to how many nobody had seen before. Ids that do not exist are skipped. `at` defaults to now. */
  markNotificationsSeen(ids: readonly number[], at?: TimeInput): Promise<number>;
  /** Notes that somebody settled it, cause or not. `false` if it was resolved already, or does not exist. */
  resolveNotification(id: number): Promise<boolean>;
  /**
   * Copies the database to a new file while it is in use; the file appears whole or not at all. Not with PostgreSQL, which has tools of its own.
   *
   * @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT`: there is a file already; nothing of it was touched
   */
  backup(path: string): Promise<void>;
  /** Looks the whole database through. Takes as long as reading it does. */
  check(): Promise<SessionStoreCheck>;
  /** Counts what is there. */
  stats(): Promise<SessionStoreStats>;
}

/**
 * Turns observations into transitions, and reacts to those: tells the agent, or a person.
 *
 * Each call is one transaction: the session, what it leads to, and the messages to be sent are stored together; then the messages are sent. Any
 * number of managers, in any number of processes, may work on one store. An observation of a session that does not exist, or has ended,
 * changes nothing about it.
 *
 * Every method that may send messages rejects with {@link ReactionDeliveryError} (`HF_LIFECYCLE_REACTION_DELIVERY_FAILED`) when a port fails: the
 * transition *is* stored then, and the message is sent again by the next {@link tickEscalations}.
 */
export declare class LifecycleManager {
  #private;
  /** @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT` */
  constructor(options: LifecycleManagerOptions);
  /** Reports what a probe found. A probe that failed, or cannot tell, never ends a session. */
  applyRuntimeObservation(id: SessionId, facts: RuntimeFacts): Promise<void>;
  /** Reports what an agent was heard to do. A signal that is older than the last one is dropped. */
  applyActivitySignal(id: SessionId, signal: ActivitySignal): Promise<void>;
  /**
   * Reports what was found about a pull request: it is stored with its checks and comments, a merge ends the session, and what the checks and the
   * reviewers say is told to the agent, once per commit or set of comments.
   *
   * @throws {ConstraintError} `HF_LIFECYCLE_CONSTRAINT`: a value that the format does not have; nothing was stored
   */
  applyPrObservation(id: SessionId, observation: PrObservation): Promise<void>;
  /**
   * Reports that a session was started or restored: it is alive and waits to be heard of.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   * @throws {SessionTerminatedError} `HF_LIFECYCLE_SESSION_TERMINATED`: with `expect: 'spawning'`, it was ended meanwhile; nothing was written
   * @throws {SessionBusyError} `HF_LIFECYCLE_SESSION_BUSY`: with `expect: 'terminal'`, it has not ended; or `launchId` was overtaken; nothing was written
   */
  onSpawnCompleted(id: SessionId, outcome: SpawnOutcome): Promise<void>;
  /**
   * Ends a session for a reason, by default `manually_killed`. Nothing is torn down ({@link SessionManager.kill} does), and nobody is told.
   *
   * @param options.resume Whether {@link SessionManager.resumeAll} is to bring it back. Default `false`, which also says so of a session that has
   *   been stopped; `true` says nothing of one that has ended already.
   */
  onKillRequested(id: SessionId, reason?: TerminationReason, options?: {
    resume?: boolean;
  }): Promise<void>;
  /** Tells a person of nudges that did not help for 15 minutes, and sends again what could not be sent. Call it every few seconds; a {@link Reaper} does. */
  tickEscalations(now?: TimeInput): Promise<void>;
  /** Every session that has not ended, by project and number. */
  runningSessions(): Promise<SessionRecord[]>;
}

/** Options of {@link LifecycleManager}. */
export interface LifecycleManagerOptions {
  store: SessionStore<AnyChangeEvent>;
  /** Tells a person. Without one, what it would tell counts as told. */
  notifier?: Notifier;
  /** Types into agents. Without one, what it would type counts as typed. */
  messenger?: Messenger;
  /** Where "now" comes from. Default: the system. */
  clock?: () => Date;
  /** How long, in milliseconds, an agent that was heard counts as living even though its runtime seems gone. Default 60,000. */
  recentActivityWindowMs?: number;
  /** How to react, and how patiently, to sessions whose project has stored nothing else ({@link SessionStore.setReactionPolicy}). */
  policy?: ReactionPolicy;
  /**
   * Whether a session is looked at again right before a message is typed into it: nothing is typed into one that has ended, whose agent has
   * exited, or that shows a question, because Enter would answer it. The message waits for a better moment. Default `true`.
   */
  guardMessages?: boolean;
  /** Gets lines about what nobody waits for. Default: the store's. */
  logger?: Logger;
}

/** The environment variables in which an agent finds who it is. */
export interface EnvironmentNames {
  /** Default `AO_SESSION_ID`. */
  sessionId?: string;
  /** Default `AO_PROJECT_ID`. */
  projectId?: string;
  /** Default `AO_ISSUE_ID`. It is set even if there is no issue, to `''`. */
  issueId?: string;
  /** Default `AO_LAUNCH_ID`. What hooks of the agent pass on as {@link ActivitySignal.launchId}. */
  launchId?: string;
}

/** Options of {@link SessionManager}. */
export interface SessionManagerOptions {
  store: SessionStore<AnyChangeEvent>;
  lifecycle: LifecycleManager;
  runtime: Runtime;
  agent: Agent;
  workspace: Workspace;
  messenger: Messenger;
  /** Where "now" comes from. Default: the system. */
  clock?: () => Date;
  /** Names of environment variables. */
  environmentNames?: EnvironmentNames;
  /**
   * How many milliseconds after the start of its runtime a live session whose agent was never heard is shown as `no_signal`, instead of `spawning`,
   * `working` or `idle`: for agents whose hooks should be heard, {@link NO_SIGNAL_AFTER_MS}. Default `false`: never.
   */
  noSignalAfterMs?: number | false;
  /** Gets lines about what was done as well as it could be: undoing, tearing down. Default: the store's. */
  logger?: Logger;
}

/** A session to be started. Texts that are left out are `''`. */
export interface SpawnConfig {
  projectId: ProjectId;
  issueId?: string;
  /** Default `worker`. */
  kind?: SessionKind;
  harness?: AgentHarness;
  branch?: string;
  prompt?: string;
  /** Rules that are added to the prompt, after an empty line. */
  agentRules?: string;
  /** Which merged pull request ends this session. Default: as the policy says. */
  mergeEnds?: MergeEnds;
}

/** Options of {@link SessionManager.spawn}. */
export interface SpawnOptions {
  /**
   * Gives up when it aborts: the running step counts as failed, and what was done is undone. What a port still brings after that is destroyed, unless
   * the session runs with it by then, or may: in doubt it is left alone, and a warning is logged. After `close()` nobody can tell.
   */
  signal?: AbortSignal;
  /** Makes a repeated call return the session of the first one with this key, instead of starting another. */
  key?: string;
}

/** Options of {@link SessionManager.kill}. */
export interface KillOptions {
  /** Whether a session whose handles are missing is ended too; what there is of it is torn down. Default `false`. */
  force?: boolean;
}

/** What {@link SessionManager.cleanupReport} did. */
export interface CleanupReport {
  /** The sessions whose workspace is gone now. */
  cleaned: SessionId[];
  /** Those whose workspace stays, and why. */
  skipped: {
    id: SessionId;
    reason: string;
  }[];
}

/** Options of {@link SessionManager.cleanupReport}. */
export interface CleanupOptions {
  /** How often what was skipped is tried again. Default 0. */
  retries?: number;
  /** How many milliseconds to wait before that; each time twice as long as before, up to a minute. Default 1000. */
  backoffMs?: number;
  /**
   * Ends it: what is not through is skipped. A port that is destroying something then is not waited for by the call, but its session stays busy
   * (`HF_LIFECYCLE_SESSION_BUSY`) until it settles: one that never does keeps that session, and no other, until the store is closed.
   */
  signal?: AbortSignal;
}

/** Options of {@link SessionManager.stopAll}. */
export interface StopOptions {
  /** Default: of all projects. */
  projectId?: ProjectId;
  /** Ends it: what is not through has failed. As in {@link CleanupOptions.signal}, a session stays busy as long as a port is destroying its runtime. */
  signal?: AbortSignal;
}

/** Options of {@link SessionManager.resumeAll}. */
export interface ResumeOptions extends StopOptions {
  /** How many sessions are brought back at a time. Default 4. */
  concurrency?: number;
}

/** What {@link SessionManager.stopAll} did. */
export interface StopReport {
  /** The sessions that are stopped now, and whose runtime is gone. */
  stopped: SessionId[];
  /** What could not be done, and why: another operation is at the session, or a port failed. If the runtime did, the session is stopped all the same. */
  failed: {
    id: SessionId;
    reason: string;
  }[];
}

/** What {@link SessionManager.resumeAll} did. */
export interface ResumeReport {
  /** The sessions that run again. */
  resumed: SessionId[];
  /** What could not be done, and why; another call tries again. */
  failed: {
    id: SessionId;
    reason: string;
  }[];
}

/** What {@link SessionManager.recover} did. */
export interface RecoverReport {
  /** Sessions whose interrupted operation was finished: a spawn or restore that was through, a kill or stop that was decided. */
  finished: SessionId[];
  /** Sessions whose interrupted spawn was undone: they are `errored`. */
  parked: SessionId[];
  /** Running sessions whose runtime is alive. */
  adopted: SessionId[];
  /** Running sessions whose runtime is gone: they have ended, or are in quarantine until it is certain. */
  lost: SessionId[];
  /** Running sessions whose runtime cannot be asked: they are in quarantine. */
  unclear: SessionId[];
  /** What could not be done, and why. */
  failed: {
    id: SessionId;
    reason: string;
  }[];
}

/** Options of {@link Reaper}. */
export interface ReaperOptions {
  lifecycle: LifecycleManager;
  /** The runtimes by name. */
  runtimes: Record<string, Runtime>;
  /** How often to look, in milliseconds. Default 5000. */
  intervalMs?: number;
  /** How long a probe may take, in milliseconds; one that takes longer has failed. Default 5000. */
  probeTimeoutMs?: number;
  /** How many probes run at a time. Default 8. */
  concurrency?: number;
  /** Where "now" comes from. Default: the system. */
  clock?: () => Date;
  /** Gets lines about sessions that cannot be probed. */
  logger?: Logger;
}

/** Options of a `start()`. */
export interface StartOptions {
  /** Whether the timer keeps the process alive. Default `false`. */
  keepAlive?: boolean;
}

/**
 * Opens a session store, and makes its tables when they are missing; any number of processes may do so at once, and use it together.
 *
 * @param target A folder (its file is `sessions.db`), or options.
 * @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT`: an option does not exist or is not what it must be, or the file is a folder or the database
 *   of another program; nothing was touched
 * @throws {SchemaTooNewError} `HF_FORMAT_TOO_NEW`: a newer version of holdfast wrote it; it was not touched
 * @throws {MigrationError} `HF_MIGRATION_FAILED`: its tables could not be brought to this version; they are as they were
 * @throws {StoreCorruptError} `HF_CORRUPT`: it is damaged, or no database at all
 *
 * @example
 * ```ts
 * await using store = await openSessionStore('data');
 * await store.upsertProject({ id: 'mer', path: '/src/mer' });
 * const session = await store.createSession({ projectId: 'mer' }); // mer-1
 * ```
 */
export declare function openSessionStore(target: OpenSessionStoreOptions & {
  invalidation: true;
}): Promise<SessionStore<AnyChangeEvent>>;

export declare function openSessionStore(target: string | OpenSessionStoreOptions): Promise<SessionStore>;

/**
 * Starts, ends and restores sessions over the ports of the host app, and shows them.
 *
 * A port that fails makes the call reject with {@link PortError} (`HF_LIFECYCLE_PORT_FAILED`), whose message says which operation, session and step, and whose
 * `cause` is what the port threw. Nothing is locked while a port runs. Each operation is noted in the store before its first step, so
 * {@link recover} can finish or undo what a crash interrupts.
 *
 * @example
 * ```ts
 * const sessions = new SessionManager({ store, lifecycle, runtime, agent, workspace, messenger });
 * await sessions.recover();
 * const session = await sessions.spawn({ projectId: 'mer', prompt: 'ship it' });
 * await sessions.kill(session.id);
 * ```
 */
export declare class SessionManager {
  #private;
  /** @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT` */
  constructor(options: SessionManagerOptions);
  /**
   * Starts a session: its row, its workspace, its runtime. If a step fails, what was done is undone as well as it can be; the row stays, `errored`.
   *
   * @throws {PortError} `HF_LIFECYCLE_PORT_FAILED`: a port failed, or the signal aborted
   * @throws {SessionTerminatedError} `HF_LIFECYCLE_SESSION_TERMINATED`: it was ended meanwhile
   * @throws {ConstraintError} `HF_LIFECYCLE_CONSTRAINT`: no such project, or a kind or harness that the format does not have
   * @throws {SessionBusyError} `HF_LIFECYCLE_SESSION_BUSY`: a port of the spawn with the same key calls
   */
  spawn(config: SpawnConfig, options?: SpawnOptions): Promise<Session>;
  /**
   * Ends a session and tears it down: the row, then the runtime, then the workspace. Calling it again tries again what failed.
   *
   * @param reason Default `manually_killed`.
   * @returns Whether there was such a session; its runtime and workspace are gone then.
   * @throws {IncompleteHandleError} `HF_LIFECYCLE_INCOMPLETE_HANDLE`: it has no runtime or no workspace (yet); nothing was done
   * @throws {PortError} `HF_LIFECYCLE_PORT_FAILED`: a port failed, or the workspace refuses; the session has ended all the same
   * @throws {SessionBusyError} `HF_LIFECYCLE_SESSION_BUSY`: it is being restored or cleaned up, another process is at it, or a port of the
   *   same kill calls
   */
  kill(id: SessionId, reason?: TerminationReason, options?: KillOptions): Promise<boolean>;
  /**
   * Brings a session back that has ended: its workspace, and a new runtime that resumes the conversation, or begins with the prompt again. If a
   * step fails, the session stays ended, and its workspace stays.
   *
   * @param options.signal Gives up when it aborts, as {@link SpawnOptions.signal}. If the runtime of the life before is being destroyed then, the session
   *   stays busy until that is through.
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   * @throws {SessionNotRestorableError} `HF_LIFECYCLE_SESSION_NOT_RESTORABLE`: it has not ended
   * @throws {NothingToResumeError} `HF_LIFECYCLE_NOTHING_TO_RESUME`: it has neither a conversation nor a prompt
   * @throws {SessionBusyError} `HF_LIFECYCLE_SESSION_BUSY`: another operation is at it
   * @throws {PortError} `HF_LIFECYCLE_PORT_FAILED`: a port failed, or the signal aborted
   */
  restore(id: SessionId, options?: {
    signal?: AbortSignal;
  }): Promise<Session>;
  /** The sessions of a project with what a person is shown, by number; all from one moment. */
  list(projectId: ProjectId): Promise<Session[]>;
  /**
   * A session with what a person is shown.
   *
   * @throws {SessionNotFoundError} `HF_LIFECYCLE_SESSION_NOT_FOUND`
   */
  get(id: SessionId): Promise<Session>;
  /**
   * Types a message into a session, without looking whether it can take it.
   *
   * @throws {PortError} `HF_LIFECYCLE_PORT_FAILED`
   */
  send(id: SessionId, message: string): Promise<void>;
  /** Reclaims the workspaces of a project's sessions that have ended. Those whose workspace refuses are skipped. Returns the ids of the others. */
  cleanup(projectId: ProjectId): Promise<SessionId[]>;
  /** As {@link cleanup}, but tells what was skipped, and why, and tries that again if it is asked to: what refuses now may be committed in a minute. */
  cleanupReport(projectId: ProjectId, options?: CleanupOptions): Promise<CleanupReport>;
  /**
   * Stops what runs until {@link resumeAll}, say before the host is restarted: each session ends (`auto_cleanup`) and is noted as to be resumed in one
   * transaction; then its runtime is destroyed. Its workspace stays, also from {@link cleanup}. Sessions that another operation is at, a spawn say, are not
   * waited for: they have failed. Calling again goes on with what was not through.
   */
  stopAll(options?: StopOptions): Promise<StopReport>;
  /**
   * Restores the sessions that {@link stopAll} has stopped, and only those: what was killed since, or whose pull request was merged, stays ended. Of
   * several processes that call it, one restores a session. Calling again tries again what has failed.
   */
  resumeAll(options?: ResumeOptions): Promise<ResumeReport>;
  /**
   * Call it when the program starts. What a crash interrupted is brought to an end: a spawn that was not through is undone (`errored`, its workspace
   * reclaimed), a kill or stop that had ended the session is finished. Then the runtime of each running session is asked: living ones go on,
   * dead ones end. Operations of other processes that are alive are left alone. What could not be done is in the report's `failed`, and
   * calling again goes on with it.
   *
   * @param options.runtimes The runtimes by name, where sessions have different ones; a session whose name is not among them is left alone.
   *   Default: the manager's own is asked about all of them.
   */
  recover(options?: {
    runtimes?: Record<string, Runtime>;
  }): Promise<RecoverReport>;
}

/**
 * Asks the runtime of every running session whether it lives, and reports it. A probe that rejects or takes too long has failed, which is
 * never read as death; it holds up nobody else. Ticks never overlap.
 */
export declare class Reaper implements AsyncDisposable {
  #private;
  /** @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT` */
  constructor(options: ReaperOptions);
  /**
   * Looks once: escalations that are due, then every running session. While a tick runs, another call joins it.
   *
   * @throws {Error} what `runningSessions()` throws; everything else is logged
   */
  tick(): Promise<void>;
  /** Looks every `intervalMs`, for the first time after one. Twice is harmless. */
  start(options?: StartOptions): void;
  /** Ends what `start` began; resolves when nothing more is reported by it, without waiting for probes. It can be started again. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Hands each event to everybody who listens in this process, in the order of their subscriptions. A {@link CdcPoller} fills it from a store.
 *
 * Listeners are called synchronously. One that throws, or rejects, is reported to the logger and disturbs nobody. Subscribing and
 * unsubscribing inside a listener is fine: who left gets nothing more, who came begins with the next event.
 *
 * @example
 * ```ts
 * const broadcaster = new Broadcaster();
 * const poller = new CdcPoller(store, broadcaster, { logger: console });
 * const unsubscribe = broadcaster.subscribe((event) => console.log(event.seq, event.type));
 * poller.start();
 * ```
 */
export declare class Broadcaster<in out E extends AnyChangeEvent = ChangeEvent> {
  #private;
  /** @param options `logger` gets a line for each listener that throws. Default: the logger of the poller that publishes. */
  constructor(options?: {
    logger?: Logger;
  });
  /** Calls `listener` with every event from now on. Returns how to end that; calling it twice is harmless. */
  subscribe(listener: (event: E) => void): () => void;
  /** Makes an async iterator of the events from now on. */
  subscribe(options?: SubscribeOptions): ChangeSubscription<E>;
  /** Hands `event` to everybody who listens now. */
  publish(event: E): void;
  /** How many listen, iterators included. */
  get subscriberCount(): number;
}

/** Options of {@link CdcPoller}. */
export interface CdcPollerOptions {
  /** How often to look when nothing tells that something has happened, in milliseconds. Default 100. */
  intervalMs?: number;
  /** How many events to read at a time. Default 512. */
  batch?: number;
  /** Begin with what comes after this seq. Default 0: with the oldest event that is still there. */
  startSeq?: number;
  /** Gets lines about reads that failed, and about listeners that threw if the broadcaster has no logger. */
  logger?: Logger;
}

/**
 * Publishes each event of a source to a broadcaster, once and in order of seq.
 *
 * Its place is in memory: it is for what is going on now. Who must not miss anything across restarts reads from a place of its own
 * ({@link SessionStore.consumer}, {@link SessionStore.changes}).
 */
export declare class CdcPoller<E extends AnyChangeEvent = ChangeEvent> implements AsyncDisposable {
  #private;
  /**
   * @param source Where to read: a session store, or an object of your own.
   * @param broadcaster Where to publish.
   * @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT`
   */
  constructor(source: ChangeSource<E>, broadcaster: Broadcaster<E>, options?: CdcPollerOptions);
  /** The seq of the last event that was published; before that, where it began. */
  get lastSeq(): number;
  /** Skips what is there: only what comes from now on is published. */
  seekToHead(): Promise<void>;
  /**
   * Reads and publishes one batch; resolves to how many events were published. Calls at the same time take turns.
   *
   * @throws {Error} what the source throws, as `cdc poller: read after <seq>: …`; the place stays
   */
  poll(): Promise<number>;
  /**
   * Publishes from now on: at once after each local commit and whenever other processes are heard of, and every `intervalMs`. Errors are logged,
   * and it goes on. Closing the store ends it. Twice is harmless.
   */
  start(options?: StartOptions): void;
  /** Ends what `start` began; resolves when nothing more is published by it. It can be started again. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Decides what a probe says about a session. Only one combination of facts is death: runtime and process both dead, and the agent not heard for
 * a while. What is not clear leads into quarantine, see {@link createDetectingDecision}.
 */
export declare function resolveProbeDecision(input: ProbeInput): LifecycleDecision;

/**
 * Decides about evidence that is not clear: quarantine, or `stuck` after {@link DETECTING_MAX_ATTEMPTS} probes that said the same, or
 * after {@link DETECTING_MAX_DURATION_MS}.
 */
export declare function createDetectingDecision(input: {
  evidence: string;
  prior?: DetectingInput | null;
  now: TimeInput;
}): LifecycleDecision;

/** SHA-256 of a text without times and with white space evened out, as 64 lower-case hex digits: the same evidence at another time has the same. */
export declare function hashEvidence(evidence: string): string;

/**
 * What a person is shown of a session with such a pull request ({@link NO_PR} if it has none).
 *
 * @param silence With it, `no_signal` is shown in place of `spawning`, `working` and `idle` of a live session whose agent was never heard since the start
 *   of its runtime, which is some time ago: hooks that do not work look like a calm agent otherwise.
 */
export declare function deriveStatus(lifecycle: Lifecycle | LifecycleInput, pr: PrFacts, silence?: SilenceInput): SessionStatus;

/** What is to be done about a session with such a pull request when it comes to this; `null` = nothing. */
export declare function reactionFor(lifecycle: Lifecycle | LifecycleInput, pr: PrFacts): ReactionKey | null;

/** The facts of a session without a pull request. */
export declare const NO_PR: PrFacts;

/** After so many probes in a row that say the same unclear thing, a session is stuck. */
export declare const DETECTING_MAX_ATTEMPTS = 3;

/** After so many milliseconds in quarantine, a session is stuck. */
export declare const DETECTING_MAX_DURATION_MS = 300000;

/** An agent that was heard within so many milliseconds is not taken for dead. */
export declare const RECENT_ACTIVITY_WINDOW_MS = 60000;

/** After so many failed runs of a check in a row, a person is told instead of the agent. */
export declare const CI_BRAKE_RUNS = 3;

/** The agent is told of so many different reviews; then a person is. */
export declare const REVIEW_MAX_NUDGES = 3;

/** So many milliseconds after a nudge that did not help, a person is told. */
export declare const ESCALATE_AFTER_MS = 900000;

/** An agent that was not heard for so many milliseconds after the start of its runtime is shown as `no_signal`. */
export declare const NO_SIGNAL_AFTER_MS = 90000;

/** How often a {@link CdcPoller} looks, in milliseconds. */
export declare const DEFAULT_POLL_INTERVAL_MS = 100;

/** How many events a {@link CdcPoller} reads at a time. */
export declare const DEFAULT_POLL_BATCH = 512;
type StoreErrorOptions = Omit<HoldfastErrorOptions, "hfCode">;

/** An argument is not what it must be; nothing was touched. */
export declare class InvalidArgumentError extends HoldfastError {
  /** Which one. */
  readonly argument?: string;
  /** What it must be. */
  readonly expected?: string;
  /** What came instead. */
  readonly received?: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** Others held the database for longer than `busyTimeoutMs`; nothing was written, the same call can be made again. */
export declare class StoreBusyError extends HoldfastError {
  /** The call can be made again as it was. */
  readonly retryable = true;
  /** How long it waited, where that is known. */
  readonly waitedMs?: number;
  constructor(message: string, options?: StoreErrorOptions);
}

/** The disk is full; nothing was written. */
export declare class StoreFullError extends HoldfastError {
  constructor(message: string, options?: StoreErrorOptions);
}

/** The database is damaged. */
export declare class StoreCorruptError extends HoldfastError {
  constructor(message: string, options?: StoreErrorOptions);
}

/** The store is closed, or was closed while the call waited. */
export declare class StoreClosedError extends HoldfastError {
  /** The operation of a session that was under way, if one was. */
  readonly op?: string;
  /** The session that it was about. */
  readonly sessionId?: string;
  /** The part of the operation. */
  readonly step?: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** A step that brings the tables to the version of this program failed; they are as they were. */
export declare class MigrationError extends HoldfastError {
  /** The file; of PostgreSQL there is `schema` instead. */
  readonly path?: string;
  readonly schema?: string;
  /** The version of the tables. */
  readonly found?: number;
  /** The newest that this program knows. */
  readonly expected?: number;
  /** The step that failed: its number and name. */
  readonly step?: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** Details of a new error: as of {@link HoldfastError}, but its code is known. */
export type LifecycleErrorOptions = Omit<HoldfastErrorOptions, "hfCode">;
interface AboutSession {
  /** The operation that failed: `spawn`, `kill`, `restore`, `get`, `send` … */
  readonly op?: string;
  readonly sessionId?: SessionId;
  /** The part of the operation that failed: `workspace`, `agent`, `runtime`, `completed` … */
  readonly step?: string;
}

/** There is no such session. */
export declare class SessionNotFoundError extends HoldfastError implements AboutSession {
  readonly op?: string;
  readonly sessionId?: SessionId;
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** Only a session that has ended can be restored. */
export declare class SessionNotRestorableError extends HoldfastError implements AboutSession {
  readonly op?: string;
  readonly sessionId?: SessionId;
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** The session has neither a conversation nor a prompt to go on from. */
export declare class NothingToResumeError extends HoldfastError implements AboutSession {
  readonly op?: string;
  readonly sessionId?: SessionId;
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** The session has no runtime handle or no workspace yet, so it cannot be torn down; nothing was touched. `force` ends it all the same. */
export declare class IncompleteHandleError extends HoldfastError implements AboutSession {
  readonly op?: string;
  readonly sessionId?: SessionId;
  /** What is empty. */
  readonly missing: ("runtimeHandleId" | "workspacePath")[];
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** The session was ended while it was being started. */
export declare class SessionTerminatedError extends HoldfastError implements AboutSession {
  readonly op?: string;
  readonly sessionId?: SessionId;
  readonly step?: string;
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** Another operation on the session is in progress; try again when it is through. */
export declare class SessionBusyError extends HoldfastError implements AboutSession {
  readonly op?: string;
  readonly sessionId?: SessionId;
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** A port failed, or answered with something else than it promises. `cause` is what it threw, or the reason of the signal that ended the call. */
export declare class PortError extends HoldfastError implements AboutSession {
  readonly op?: string;
  readonly sessionId?: SessionId;
  readonly step?: string;
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** A message that could not be delivered. */
export interface DeliveryFailure {
  sessionId: SessionId;
  reaction: ReactionKey;
  /** Whom it was for. */
  to: "agent" | "human";
  /** What the port threw. */
  cause: unknown;
}

/** Messages could not be delivered. What they are about *is* stored, and so are they: the next tick tries again. */
export declare class ReactionDeliveryError extends HoldfastError implements AboutSession {
  readonly sessionId?: SessionId;
  /** All that could not be delivered in this call. */
  readonly failures: DeliveryFailure[];
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** The format does not allow what was to be stored; nothing was. */
export declare class ConstraintError extends HoldfastError {
  readonly table?: string;
  readonly column?: string;
  /** Which kind of rule was broken. */
  readonly constraint?: "check" | "foreign_key" | "unique" | "not_null";
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** The session was written by somebody else since it was read; nothing was written. Read it again. */
export declare class StaleRecordError extends HoldfastError {
  /** The revision that was expected. */
  readonly expected: number;
  /** The revision that is stored. */
  readonly actual?: number;
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** Events after `after` are no longer in the log. Read the records, and go on after `lostTo`. */
export declare class ChangeLogTruncatedError extends HoldfastError {
  readonly after: number;
  /** The first seq that is still there; 0 if none is. */
  readonly oldestSeq: number;
  /** The first and the last seq of what is gone. */
  readonly lostFrom: number;
  readonly lostTo: number;
  /** The named consumer that it is gone for. */
  readonly consumer?: string;
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** A reader was too slow for what is published. Read on from `lastSeq` in the log, and subscribe anew. */
export declare class SubscriberOverflowError extends HoldfastError {
  /** The seq of the last event that was handed out. */
  readonly lastSeq: number;
  /** How many events could wait. */
  readonly buffer: number;
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** The database was written by a newer version of holdfast; it was not touched. */
export declare class SchemaTooNewError extends HoldfastError {
  /** The version of its tables. */
  readonly found?: number;
  /** The newest that this program knows. */
  readonly expected?: number;
  constructor(message: string, options?: LifecycleErrorOptions);
}

/** What is stored of a session. */
/** Whatever JSON can say. */
export type JsonValue = null | boolean | number | string | JsonValue[] | {
  [key: string]: JsonValue;
};

/** The name of a blob. Opaque; today `blake3:` and 64 hex digits. */
export type BlobRef = string;

/** What a resolved write survives: nothing, a killed process, or a power cut. */
export type DurabilityTier = "inline" | "processCrash" | "durable";

/** A node. Only its id and its parent's are interpreted; all else comes back as it went in. */
export interface SessionNodeRecord {
  /** Unique in the store. */
  nodeId: string;
  /** The parent, which may be missing. None: a root. */
  parentNodeId?: string | null;
  agentFrameId?: string | null;
  causedBy?: JsonValue;
  timestamp: string;
  payload: JsonValue;
}

/** All nodes, and which one the conversation stands at. */
export interface SessionGraph {
  nodes: SessionNodeRecord[];
  leafNodeId: string | null;
}

/** The manifest of a checkpoint: what belongs to it, by reference. */
export interface SessionCheckpoint {
  turnState: JsonValue;
  toolStateRef?: BlobRef;
  pluginSnapshotRef?: BlobRef;
  pluginSnapshotRevision?: number;
  executionStateRef?: BlobRef;
}

/** A manifest with what it names. When it is stored, a value wins over a reference. */
export interface HydratedSessionCheckpoint extends SessionCheckpoint {
  toolState?: JsonValue;
  pluginSnapshot?: JsonValue;
  executionState?: Uint8Array;
}

/** A checkpoint that is stored. */
export interface StoredSessionCheckpoint {
  checkpointRef: BlobRef;
  manifest: SessionCheckpoint;
}

/** Counts of tokens. */
export interface TokenUsage {
  inputTokens: number;
  outputTokens: number;
  cachedInputTokens: number;
  reasoningTokens: number;
}

/** What somebody used of a model. */
export interface TokenLedgerEntry {
  source: string;
  model: string;
  usage: TokenUsage;
}

/** What a list of sessions shows of one. */
export interface SessionMeta {
  sessionId: string;
  sessionName: string;
  createdAt: string;
  model: string;
  cwd?: string | null;
  /** Default `{ type: 'root' }`. */
  relation?: JsonValue;
  /** What else a list of sessions shows, such as the last message; small, because lists read all of them. */
  summary?: JsonValue;
}

/** What a batch joins: nothing, what has no group either, or its group. */
export type MergeKey = "never" | "payloadDefault" | {
  group: string;
};

/** What is to be enqueued. */
export interface QueuedWorkBatchDraft {
  sessionId: string;
  payloads: JsonValue[];
  /** A batch of the session with the same key that still waits or is being worked on is returned instead. */
  sourceKey?: string | null;
  /** When it may be delivered: at the next safe boundary of a running turn, or only after it. */
  deliveryPolicy: "earliestSafeBoundary" | "afterCurrentTurnCommit";
  /** Whether others may share a claim with it. */
  slotPolicy: "join" | "exclusive";
  /** Default `never`. */
  mergeKey?: MergeKey;
  /** Not before that time, in milliseconds since 1970; default 0. */
  availableAtMs?: number;
  /**
   * How often it may be claimed, 1 or more; after that it is a dead letter that nobody gets until it is requeued. `null`: any number of
   * times. Default what `queue.maxAttempts` of the store's options says, and that is any number.
   */
  maxAttempts?: number | null;
  /**
   * Remembers for `retainMs` how it ended: until then a batch with its `sourceKey` that says `dedupe`, too, is not enqueued again, and
   * `queuedWorkState` knows of it. `null`: not at all. Default what `queue.retainFinishedMs` of the store's options says, and that is not at all.
   */
  dedupe?: {
    retainMs: number;
  } | null;
}

/** A batch that waits, or is being worked on. */
export interface QueuedWorkBatch extends Required<Omit<QueuedWorkBatchDraft, "payloads" | "maxAttempts" | "dedupe">> {
  batchId: string;
  /** Its place in the order; never used again. */
  enqueueSeq: number;
  enqueuedAtMs: number;
  /** `itemId` is `<batchId>:item:<index>`. */
  items: {
    itemId: string;
    payload: JsonValue;
  }[];
  /** How often it may be claimed; left out where any number of times. */
  maxAttempts?: number;
  /** How often it was claimed, this time included; left out with `maxAttempts`. */
  attempts?: number;
  /** Only in what enqueueing a batch again answers: it is over, its `items` are forgotten, and nothing was enqueued. */
  finished?: {
    outcome: "completed" | "cancelled";
    atEpochMs: number;
  };
}

/** A batch that nobody gets any more: it was claimed as often as it may be, and never completed. */
export interface QueuedWorkDeadLetter {
  batch: QueuedWorkBatch;
  /** Who claimed it last, and when; `null` if that claim was given back. */
  ownerId: string | null;
  claimedAtEpochMs: number | null;
}

/** What has become of a batch. `attempts` counts claims. */
export type QueuedWorkState = {
  state: "waiting";
  attempts: number;
  availableAtMs: number;
} | {
  state: "claimed";
  attempts: number;
  ownerId: string;
  claimedAtEpochMs: number;
  expiresAtEpochMs: number;
} | {
  state: "dead";
  attempts: number;
} | {
  state: "completed" | "cancelled";
  attempts: number;
  finishedAtEpochMs: number;
  rememberedUntilEpochMs: number;
} | {
  state: "notFound";
};

/** What cancelling a batch did, or why it did nothing. `completed` is known only while it is remembered. */
export type QueuedWorkCancellation = {
  outcome: "cancelled";
  batch: QueuedWorkBatch;
} | {
  outcome: "claimed";
  ownerId: string;
  expiresAtEpochMs: number;
} | {
  outcome: "completed";
  finishedAtEpochMs: number;
} | {
  outcome: "notFound";
};

/** Who asks for work, where, and for how long. */
export interface QueuedWorkClaimRequest {
  sessionId: string;
  /** A label. */
  ownerId: string;
  /** How long nobody else gets it, in milliseconds; see `QUEUED_WORK_CLAIM_TTL_MS`. */
  leaseTtlMs: number;
  boundary: "activeTurnCheckpoint" | "idle";
}

/** Batches that belong to somebody for a while. Plain data: it may be handed to another process. */
export interface QueuedWorkClaim {
  sessionId: string;
  claimId: string;
  ownerId: string;
  leaseToken: string;
  /** Grows with every claim of the store. */
  fencingToken: number;
  claimedAtEpochMs: number;
  expiresAtEpochMs: number;
  batches: QueuedWorkBatch[];
}

/** Claimed work that is done. */
export interface QueuedWorkCompletion {
  sessionId: string;
  claimId: string;
  leaseToken: string;
  /** Exactly the batches of the claim. */
  batchIds: string[];
}

/** What a commit does to the graph. */
export type GraphCommitDelta = 
/** No nodes; the leaf may move. */
{
  type: "unchanged";
  leafNodeId: string | null;
}

/** Adds nodes at the end. */
 | {
  type: "append";
  nodes: SessionNodeRecord[];
  leafNodeId: string | null;
}

/** Makes these nodes all there are. */
 | {
  type: "replaceFull";
  graph: SessionGraph;
};

/** All that one turn changes. It happens whole or not at all. */
export interface RuntimeCommit {
  /** The first commit binds the store to it. */
  sessionId: string;
  /** The revision that the commit builds on; 0 = none yet. `null` or left out: whatever there is. */
  expectedHeadRevision?: number | null;
  /** Stored and returned, never interpreted; so are the next two. */
  config: JsonValue;
  agentFrames: JsonValue[];
  currentAgentFrameId: string;
  graph: GraphCommitDelta;
  checkpoint: HydratedSessionCheckpoint;
  /** Makes the commit one that can be sent again: the second time it answers what it answered the first time. */
  turnCommit?: RuntimeTurnCommitStamp | null;
  usageDeltas?: TokenLedgerEntry[];
  /** Claimed work that is done with this commit. */
  completedQueueClaims?: QueuedWorkCompletion[];
  /** Attachments whose bytes are in place. */
  committedAttachmentIds?: string[];
  /** References that stand in opaque JSON: this head keeps their blobs. */
  retainedBlobRefs?: BlobRef[];
}

/** What identifies a turn. */
export interface RuntimeTurnCommitStamp {
  sessionId: string;
  turnId: string;
  /** What {@link turnCommitHash} computes, unless the caller has a hash of its own. */
  turnCommitHash?: string;
}

/** The answer to a commit. */
export interface RuntimeCommitResult {
  headRevision: number;
  checkpointRef: BlobRef;
  manifest: SessionCheckpoint;
}

/** What is read: everything, or the path from a root to a leaf (default: the head's). */
export type SessionReadScope = {
  scope: "fullGraph";
} | {
  scope: "activePath";
  leafNodeId?: string | null;
};

/** A session, as it is at one moment. */
export interface PersistedSessionRead {
  sessionId: string;
  headRevision: number;
  config: JsonValue;
  agentFrames: JsonValue[];
  currentAgentFrameId: string;
  graph: SessionGraph;
  checkpointRef: BlobRef | null;
  checkpoint: HydratedSessionCheckpoint | null;
  tokenLedger: TokenLedgerEntry[];
  /** What was skipped; only with `tolerant`. */
  problems?: IntegrityProblem[];
}

/** Something that is not as it must be. */
export interface IntegrityProblem {
  kind: "head" | "node" | "blob" | "manifest" | "usage" | "queue";
  /** Which one: an id, a reference, a number. */
  key: string;
  detail: string;
}

/** How a store is opened. */
export interface SessionGraphStoreOptions {
  /** Which blobs are compressed: none, those of 4096 bytes and more, those of 1024 and more. Default `balanced`, in memory `lowLatency`. */
  blobProfile?: "lowLatency" | "balanced" | "compact";
  /** When unreachable blobs are removed by themselves: after every so many commits of this handle. Default never; of any age. */
  gcPolicy?: {
    autoRunEveryCommits?: number | null;
    minBlobAgeMs?: number;
  };
  /** `full` (default): a power cut takes nothing that was resolved. `normal`: it may take the last moments, a killed process nothing. */
  durability?: "full" | "normal";
  /** How long a call waits for other processes; default 15 000, for `openReadOnly` 1 000. */
  busyTimeoutMs?: number;
  /** Most reads at the same time; default 4. */
  maxReaders?: number;
  /** `never`: a file that is missing, or of an older version, is refused. Default `auto`. */
  migrate?: "auto" | "never";
  /** What batches are enqueued with by this handle unless their drafts say something else; default no limit, and nothing is remembered. */
  queue?: {
    maxAttempts?: number | null;
    retainFinishedMs?: number | null;
  };
  /**
   * Commits that are larger are refused before anybody waits for them, with {@link CommitTooLargeError}: `maxBytes` of the commit as JSON and
   * its execution state, `maxNodes` in its graph. Default no limits.
   */
  commitLimits?: {
    maxBytes?: number | null;
    maxNodes?: number | null;
  };
}

/** How a store in PostgreSQL is opened. */
export interface PostgresSessionGraphOptions extends Pick<SessionGraphStoreOptions, "blobProfile" | "gcPolicy" | "busyTimeoutMs" | "migrate" | "queue" | "commitLimits"> {
  /** `postgres://user:password@host:port/database`. Stores of this process with the same connection share their connections. */
  connectionString: string;
  /** Which store of the schema; made when it is missing. One per session. */
  sessionId: string;
  /** The schema of the tables, made when it is missing; default `holdfast_sessions`. */
  schema?: string;
  /** Most connections; default 4. */
  poolSize?: number;
  /** TLS, as `pg` takes it. Default: what `connectionString` says. */
  ssl?: boolean | {
    rejectUnauthorized?: boolean;
    ca?: string | string[];
    cert?: string;
    key?: string;
  };
}

/** What a collection did. */
export interface GcReport {
  rootCount: number;
  retainedBlobCount: number;
  deletedBlobCount: number;
  freedBytes: number;
  /** It could not be told what is alive, so from then on nothing was deleted; what was before is counted. */
  aborted?: {
    reason: string;
    ref?: BlobRef;
  };
}

/** What a blob is. */
export interface BlobArtifactDescriptor {
  kind: "genericBlob" | "checkpointManifest" | "toolState" | "pluginSessionSnapshot" | "executionStateSnapshot" | "module";
  hints?: ("compressible" | "inlinePreferred" | "largePayload")[];
}

/** An attachment whose bytes are about to be written elsewhere. */
export interface AttachmentIntent {
  attachmentId: string;
  sessionId: string;
  canonicalUri: string;
  intentAtEpochMs: number;
}

/** An attachment that was announced. */
export interface AttachmentManifestEntry extends AttachmentIntent {
  committedAtEpochMs: number | null;
}

/** Figures of a store, for those who look after it. */
export interface SessionGraphStats {
  headRevision: number;
  liveNodes: number;
  tombstonedNodes: number;
  /** Bytes of all blobs as stored. */
  blobBytes: number;
  queuedBatches: number;
  /** How long the first batch that nobody claimed has waited; `null` if there is none. */
  oldestWaitingMs: number | null;
  /** Batches that a claim could take now, and how long the first of them could have been taken; `null` if there is none. */
  readyBatches: number;
  oldestReadyMs: number | null;
  /** Batches that somebody works on. */
  claimedBatches: number;
  deadLetters: number;
  /** Sizes of the file and of its write-ahead log; 0 in memory. Like the rest left out for a store that is only read. */
  fileBytes?: number;
  walBytes?: number;
  /** Transactions, and the calls that went with them, since the handle was opened. */
  commits?: number;
  jobs?: number;
  largestBatch?: number;
  /** Calls that wait now. */
  queued?: number;
  /** How often a reader kept the log from being written back. */
  checkpointsHeld?: number;
  /** How long transactions of this handle waited for the write lock, in milliseconds, up to a factor of two; 0 before the first. */
  lockWaitMs?: {
    p50: number;
    p95: number;
    p99: number;
  };
}

/** How a store of processes, of effects, or of host events is opened. */
export type SideStoreOptions = Pick<SessionGraphStoreOptions, "durability" | "busyTimeoutMs" | "maxReaders" | "migrate">;

/** A session, or one agent frame of it. Its id is `session:<s>` or `session:<s>/frame:<f>`. */
export interface ProcessScope {
  /** Not empty; must not contain `/frame:`. */
  sessionId: string;
  agentFrameId?: string;
}

/**
 * What is taken from a payload: all of it, the value that a JSON pointer (RFC 6901) leads to, a constant, whether a pointer leads anywhere, or
 * a text in which each `{name}` is replaced by that field's text. Strings are taken as they are, all else as JSON where text is needed.
 *
 * A template nests 32 deep at most, and its text may be 1 MiB longer than the payload; an event that would make more is refused.
 */
export type Selector = "payload" | {
  pointer: string;
} | {
  const: JsonValue;
} | {
  present: string;
} | {
  template: string;
  fields: Record<string, Selector>;
};

/** How a process ends. */
export type ProcessTerminalState = "completed" | "failed" | "cancelled";

/** A kind of event that a process may append. */
export interface ProcessEventType {
  name: string;
  /** Checked before an event is stored: a JSON Schema, of which type, required, properties, items, enum, const and additionalProperties count. */
  payloadSchema?: JsonValue;
  /** The event ends the process. `awaitOutput` takes an {@link AwaitOutput} of that state from the payload; default `success` with the payload. */
  terminal?: {
    state: ProcessTerminalState;
    awaitOutput?: Selector;
  };
  /** The event wakes somebody. */
  wake?: {
    /** Only if this is something (not null, false, `""`, `[]` or `{}`); default always. */
    when?: Selector;
    /** What he is told. */
    input: Selector;
    /** Wakes of one target with equal keys have one `wakeId`. Default `eventIdentity`: `<process id>:<sequence>`. */
    dedupeKey?: "eventIdentity" | {
      selector: Selector;
    } | {
      const: string;
    };
  };
}

/** A process that is to be known. */
export interface ProcessRegistration {
  id: string;
  input: JsonValue;
  /** `process.cancel_requested`, `process.completed`, `process.failed` and `process.cancelled` are added where they are missing. */
  eventTypes?: ProcessEventType[];
  provenance: {
    ownerScope: ProcessScope;
    hostProfileId: string;
    causedBy?: JsonValue;
  };
}

/** What somebody gets who waits for a process. */
export type AwaitOutput = {
  type: "success";
  value: JsonValue;
} | {
  type: "failure";
  class: string;
  code: string;
  message: string;
  raw?: JsonValue;
} | {
  type: "cancelled";
  message: string;
  raw?: JsonValue;
};

/** A process as it is stored. */
export interface ProcessRecord extends ProcessRegistration {
  eventTypes: ProcessEventType[];
  /** Over id, input, event types and provenance, whatever their order. */
  registrationHash: string;
  createdAtMs: number;
  /** When the reference or the status changed last. */
  updatedAtMs: number;
  /** Where it runs, as `setExternalRef` said. */
  externalRef?: JsonValue;
  status: "running" | ProcessTerminalState;
  /** Of a process that has ended. */
  awaitOutput?: AwaitOutput;
}

/** An event that is to be appended. */
export interface ProcessEventAppend {
  eventType: string;
  payload: JsonValue;
  /** Makes the event one that can be appended again; needed for those that end a process and for `process.cancel_requested`. */
  replayKey?: string;
  /** Whom the event wakes; needed if its type wakes somebody. */
  wakeTargetScope?: ProcessScope;
}

/** An event of a process. */
export interface ProcessEvent {
  processId: string;
  /** 1, 2, 3 … per process. */
  sequence: number;
  eventType: string;
  payload: JsonValue;
  occurredAtMs: number;
  replayKey?: string;
  terminal?: {
    state: ProcessTerminalState;
    awaitOutput: AwaitOutput;
  };
  wake?: {
    input: string;
    dedupeKey: string;
  };
}

/** A wake on its way to its target. */
export interface WakeDelivery {
  /** `wake:` and a hash of target scope and dedupe key. */
  wakeId: string;
  targetSessionId: string;
  targetScopeId: string;
  processId: string;
  sequence: number;
  eventType: string;
  dedupeKey: string;
  input: string;
  createdAtMs: number;
  /** `provenance.causedBy` of the process. */
  processCausedBy?: JsonValue;
}

/** A scope's right to deal with a process. */
export interface HandleGrant {
  sessionId: string;
  /** Only of a grant to a frame. */
  agentFrameId?: string;
  processId: string;
  descriptor: {
    kind?: string;
    label?: string;
  };
}

/** What became of the processes of a session that was deleted. */
export interface SessionProcessStateDeletion {
  sessionId: string;
  revokedHandleCount: number;
  /** Always 0: wakes belong to processes. */
  deletedWakeCount: number;
  /** Running processes that nobody has a handle of any more. Nothing was cancelled: that is the host's to do. */
  cancelProcessIds: string[];
  /** Running processes that somebody else has a handle of. */
  preservedProcessIds: string[];
}

/** The right to run a process until a time. Plain data: it may cross processes. */
export interface ProcessLease {
  schemaVersion: 1;
  processId: string;
  ownerId: string;
  leaseToken: string;
  /** Larger with each claim of the process. */
  fencingToken: number;
  claimedAtEpochMs: number;
  expiresAtEpochMs: number;
}

/** How a process registry is opened. */
export interface ProcessRegistryOptions extends SideStoreOptions {
  /**
   * Replaces the check of payloads against the `payloadSchema` of their type; called before each write of such an event. Says what does not fit, or
   * throws it; returns nothing if all is well. Later events of the same process, and its end, wait until it has answered; nothing else does: leases
   * are renewed meanwhile. It cannot append events or complete processes of the store that asks it: those calls are refused with a
   * {@link ProcessRegistryError} while it is asked.
   */
  validatePayload?: (schema: JsonValue, payload: JsonValue) => string | undefined | void | Promise<string | undefined | void>;
}

/** How a wait may end. */
export interface ProcessWaitOptions {
  /** Ends it with its reason. */
  signal?: AbortSignal;
}

/** How an {@link EffectReplayStore} is opened. */
export interface EffectReplayStoreOptions extends SideStoreOptions {
  /**
   * How long an effect belongs to a process that no longer says that it is at it: so long others wait after it was killed. The lease is
   * renewed every third of that while the effect runs. Milliseconds of 1 or more; default 30 000.
   */
  leaseTtlMs?: number;
}

/** What effects belong to. Effects of two scopes never meet, also where their ids are equal. */
export interface EffectScope {
  /** What it is. */
  type: "turn" | "process" | "queueDrain" | "sessionDelete" | "runtimeOperation";
  /** The session, where there is one. */
  sessionId?: string | null;
  /** Its id, such as that of the turn. */
  id: string;
}

/** One effect. All of it is the same each time that the effect is asked for, `effectId` too. */
export interface EffectEnvelope {
  /** What it is called. */
  effectId: string;
  /** What kind of effect it is. `'sleep'` is done by the store itself: `command` is `{ durationMs }`. */
  kind: string;
  /** Which effect of its scope it is. */
  replayKey: string;
  /** What is to be done. */
  command: JsonValue;
}

/**
 * Does an effect. Its outcome is JSON or nothing; what it throws is recorded as well, unless that has `transient: true`.
 *
 * @param envelope The effect as it was when it was asked for: a copy. Of a sleep, `durationMs` is 0: it is over.
 * @param signal Aborted when the effect belongs to somebody else by now, or when the store is closed.
 */
export type RunEffect<T extends JsonValue | void = JsonValue> = (envelope: EffectEnvelope, signal: AbortSignal) => T | Promise<T>;

/** Effects of one scope. */
export interface ScopedEffects {
  /**
   * Does an effect that was never done, or returns what it came to. Whoever asks while somebody is at it waits, and gets the same.
   *
   * @param envelope The effect.
   * @param run Does it.
   * @returns The outcome as it is stored: a copy of what `run` returned.
   * @throws {EffectReplayError} `hfCode` says which: `HF_GRAPH_EFFECT_REPLAY_HASH_CONFLICT`, `_MISSING` (in a replay), `_LEASE_LOST`,
   *   `_STORE` (it was done, and could not be recorded), `_CORRUPT_ROW`, `_KEY_MISSING`.
   * @throws {InvalidArgumentError} It is asked for inside its own `run`, where it would wait for itself. Others may be.
   * @throws What the effect threw, when it was done; afterwards an `Error` with the same name, message and code.
   */
  execute<T extends JsonValue | void = JsonValue>(envelope: EffectEnvelope, run: RunEffect<T>): Promise<T>;
}

/** What is to be subscribed to. */
export interface HostEventSubscriptionDraft {
  /** Whose it is. */
  sessionId: string;
  /** What people call it. */
  name?: string | null;
  /** What kind of source it has, such as `'cron'`. */
  sourceType: string;
  /** Which source: what {@link HostEventStore.sourceKey} returns, or any other text that occurrences will name. */
  sourceKey: string;
  /** The source, for those who list subscriptions; never interpreted. */
  source: JsonValue;
  /** What is to be started; never interpreted. */
  target: JsonValue;
}

/** A subscription as it is stored. */
export interface HostEventSubscription extends HostEventSubscriptionDraft {
  /** `subscription:<n>`, with a number that no other subscription of the file ever has. */
  subscriptionId: string;
  /** `trigger:<n>`, with the same number: what the session calls it. */
  handle: string;
  /** Whether it was not cancelled. */
  enabled: boolean;
  /** When it was registered, in milliseconds since 1970. */
  createdAtMs: number;
  /** When it was registered or cancelled. */
  updatedAtMs: number;
}

/** Which subscriptions: those that fit all that is given. */
export interface HostEventSubscriptionFilter {
  sessionId?: string | null;
  handle?: string | null;
  name?: string | null;
  sourceType?: string | null;
  sourceKey?: string | null;
  enabled?: boolean | null;
}

/** What happened. */
export interface HostEventOccurrenceRequest {
  /** What kind of source it comes from. */
  sourceType: string;
  /** Which source: subscriptions with the same type and key get it. */
  sourceKey: string;
  /** The same for each telling of the same occurrence, and for no other one. */
  idempotencyKey: string;
  /** What is known of it; never interpreted. */
  payload?: JsonValue;
  /** Where it comes from; never interpreted. */
  source?: JsonValue;
}

/** An occurrence as it is stored. */
export interface HostEventOccurrence extends HostEventOccurrenceRequest {
  /** `occurrence:<hash of the idempotency key>`. */
  occurrenceId: string;
  /** When it was recorded first, in milliseconds since 1970. */
  occurredAtMs: number;
}

/** One occurrence for one subscription: a process that is to be started. */
export interface HostEventDelivery {
  /** What happened. */
  occurrence: HostEventOccurrence;
  /** Who wanted to hear of it, as it is now. */
  subscription: HostEventSubscription;
  /** The id of the process: `process:host-event:<hash of both ids>`, the same whenever it is computed. */
  processId: string;
  /** When it was reserved, in milliseconds since 1970. */
  reservedAtMs: number;
}

/** What is forgotten: what is given. */
export interface HostEventPruneOptions {
  /** Occurrences recorded so long ago whose deliveries were reserved and are all started. */
  occurrencesOlderThanMs?: number | null;
  /** Subscriptions cancelled so long ago without an unstarted delivery. */
  subscriptionsOlderThanMs?: number | null;
}

/** What is cut back; what is not named stays. */
export interface PruneOptions {
  /** Forgets turns that were committed longer ago. A forgotten turn is no longer protected against being sent again. */
  turnCommitsOlderThanMs?: number;
  /** Sums up the entries of the ledger but so many of the newest: one is left of each source and model. The ledger stays as it is. */
  usageDeltasKept?: number;
}

/** What was cut back. */
export interface PruneReport {
  turnCommitCount: number;
  /** Rows of the ledger that are fewer now. */
  usageDeltaCount: number;
  /** Ends of batches that were not to be remembered any longer; they go with every call. */
  finishedBatchCount: number;
}

/** What a fork takes along. */
export interface ForkOptions {
  /** The path to this node; default the node of the pin, or the head's leaf. */
  leafNodeId?: string;
  /** Its checkpoint; default that of the pin, or the head's. */
  checkpointRef?: BlobRef;
  /** Begins where this pin is: its node, checkpoint and retained blobs, and the config and frames of the head that was pinned. */
  pin?: string;
  /** Whose session the new file is; default the same. */
  sessionId?: string;
  /** Whether the sums of the ledger go along, one entry per source and model, or it begins at nothing; default `totals`. */
  ledger?: "totals" | "none";
  /** Default `{ type: 'fork', sessionId, headRevision, leafNodeId }` of where it came from. */
  relation?: JsonValue;
}

/** A session that was forked. */
export interface ForkedSession {
  path: string;
  bytes: number;
  sessionId: string;
  headRevision: 1;
  checkpointRef: BlobRef;
  leafNodeId: string | null;
  nodeCount: number;
}

/** What is pinned; without `checkpointRef` the head as it is. */
export interface PinRequest {
  /** The node that the checkpoint belongs to; must be the head's leaf where no `checkpointRef` is given. */
  nodeId?: string;
  /** Another checkpoint than the head's. */
  checkpointRef?: BlobRef;
  /** Further blobs that are kept with it. Those of the head come by themselves. */
  retainedBlobRefs?: BlobRef[];
}

/** A checkpoint that is kept by a name. */
export interface CheckpointPin {
  name: string;
  checkpointRef: BlobRef;
  /** The node it belongs to. */
  nodeId: string | null;
  /** The revision of the head that was pinned; `null` for a checkpoint that was named. */
  headRevision: number | null;
  pinnedAtEpochMs: number;
  retainedBlobRefs: BlobRef[];
}

/** What has changed since the one before. Changes that come quickly are one. */
export interface SessionGraphChange {
  changed: ("revision" | "queue")[];
  headRevision: number;
  queuedBatches: number;
}

/** How changes are watched. */
export interface WatchOptions {
  /**
   * The revision that the caller knows: any other one, such as the older one of a file that was restored, is told at once. Default the one that is
   * stored when the watch begins, a moment after the call: what is committed meanwhile may or may not be told.
   */
  since?: number;
  /** Ends it, without an error. */
  signal?: AbortSignal;
  /** How often a store in PostgreSQL is asked for the changes of others, in milliseconds; default 250. Files need no asking. */
  pollMs?: number;
}

/** A node, and its place in the order. */
export interface NodeAt {
  seq: number;
  node: SessionNodeRecord;
}

/** Whether a file can be opened by this version. */
export interface PreflightReport {
  /**
   * `ready`; `missing` and `empty`: opening makes a store; `newer`: written by a newer version; `older`: by one from which nothing leads
   * here; `foreign`: no session database; `damaged`: see `problems`, also for a file in the middle of a change that `open` undoes.
   */
  verdict: "ready" | "missing" | "empty" | "newer" | "older" | "foreign" | "damaged";
  /** Whether `open` would succeed. A damaged store may open, too, and fail later. */
  opens: boolean;
  /** The version of the file, and the one that this version of holdfast writes. */
  found: number | null;
  expected: number;
  problems: IntegrityProblem[];
}

/** A session in a folder. */
export interface SessionListing {
  path: string;
  /** As it was saved; `null` if nothing was, or `problem` says why it cannot be read. */
  meta: SessionMeta | null;
  headRevision: number;
  /** Size of the file with its log, and when it was last written, in milliseconds since 1970. */
  bytes: number;
  modifiedAtMs: number;
  /** Why it cannot be read. */
  problem?: {
    code: string;
    message: string;
  };
}

/** Says that all work of a claim is done, for `completedQueueClaims` of a commit. */
export declare function completionOf(claim: QueuedWorkClaim): QueuedWorkCompletion;
interface QueueDefaults {
  maxAttempts: number | null;
  retainMs: number | null;
}
interface Reply {
  text: string;
  parts: Uint8Array[];
}
interface NativeWatch {
  /** `true` once somebody has written since the last call or since it began; `false` when it ends. */
  next(): Promise<boolean>;
  end(): void;
}
interface CoreConfig {
  /** `null`: in memory. */
  path: string | null;
  readOnly: boolean;
  synchronous: "full" | "normal";
  busyTimeoutMs: number;
  maxReaders: number;
  migrates: boolean;
  blobProfile: string;
  gc: {
    everyCommits: number | null;
    minBlobAgeMs: number;
  };
  /** Of the facade alone. */
  queue: QueueDefaults;
  commitLimits: {
    maxBytes: number;
    maxNodes: number;
  };
  /** Leaves nothing beside a file that is looked at. */
  peeks?: boolean;
  postgres?: PostgresConfig;
}
interface PostgresConfig {
  connection: object;
  /** Tells connections apart, without telling a password. */
  connectionKey: string;
  schema: string;
  key: string;
}
declare class GraphCore {
  #private;
  readonly config: CoreConfig;
  path: string | null;
  schemaVersion: number;
  constructor(config: CoreConfig);
  /** Opens the file; must be the first call. */
  open(): Promise<void>;
  /** Refuses what would write to a store that is only read. */
  requireWritable(method: string): void;
  /** Runs a command that may write, as one transaction; its answer as text. */
  write(command: string, bytes?: Uint8Array[]): Promise<string>;
  /** Runs a command that only reads, on one snapshot. An abort rejects at once with the signal's reason; what is read then is dropped. */
  read(command: string, signal?: AbortSignal): Promise<Reply>;
  backup(path: string): Promise<string>;
  /** Makes a new file of what a command says; what it is as text. */
  fork(path: string, command: string): Promise<string>;
  /** Begins to listen for writes; `undefined` when the store is closed. {@link unwatch} must follow. */
  watch(): NativeWatch | undefined;
  unwatch(watch: NativeWatch): void;
  get closed(): boolean;
  close(): Promise<void>;
}
declare abstract class SessionGraphBase implements AsyncDisposable {
  #private;
  /** @internal */
  constructor(core: GraphCore);
  /** Where the file is, with links followed; `null` in memory and in PostgreSQL. */
  get path(): string | null;
  /** Whether it was opened by `openReadOnly`. */
  get readOnly(): boolean;
  /** The version of the file. */
  get schemaVersion(): number;
  /** What a resolved write survives; `inline` for what cannot be written or is in memory. */
  durabilityTier(): DurabilityTier;
  /** Finishes what was called, then closes the file. Later calls reject with {@link StoreClosedError}; closing again is fine. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
declare abstract class SessionGraphQueue extends SessionGraphBase {
  /**
   * Lets work wait for its turn; a batch with the same `sourceKey` that is not done yet is returned instead, and with `dedupe` also one
   * whose end is remembered: then `finished` says how it ended.
   */
  enqueueQueuedWork(draft: QueuedWorkBatchDraft): Promise<QueuedWorkBatch>;
  /** Claims what is next: the first batch that is ready, and those that may go with it. `null` if there is nothing. */
  claimReadyQueuedWork(req: QueuedWorkClaimRequest & {
    maxBatches: number;
  }): Promise<QueuedWorkClaim | null>;
  /** Claims exactly these batches if they are what is next, in this order; else `null`. */
  claimReadyQueuedWorkByBatchIds(req: QueuedWorkClaimRequest & {
    batchIds: string[];
  }): Promise<QueuedWorkClaim | null>;
  /**
   * Lets a lease end `leaseTtlMs` from now, also one that has lapsed as long as nobody else claimed the work.
   *
   * @throws {QueuedWorkClaimExpiredError} Somebody else did.
   */
  renewQueuedWorkClaim(claim: QueuedWorkClaim, leaseTtlMs: number): Promise<QueuedWorkClaim>;
  /**
   * Gives back what still belongs to the claim.
   *
   * @param opts `uncounted`: the claim is no attempt, as when a worker is stopped before it began; without it a batch with `maxAttempts` comes
   *   closer to being a dead letter.
   */
  abandonQueuedWorkClaim(claim: QueuedWorkClaim, opts?: {
    uncounted?: boolean;
  }): Promise<void>;
  /** Removes and returns a batch that nobody works on; `null` for all others. */
  cancelQueuedWorkBatch(sessionId: string, batchId: string): Promise<QueuedWorkBatch | null>;
  /**
   * Removes a batch that nobody works on, and says why not where it does not. Cancelling again says `cancelled` for as long as that is
   * remembered.
   *
   * @param opts `retainMs`: how long it is remembered; default what `dedupe` of its draft said.
   */
  cancelQueuedWork(sessionId: string, batchId: string, opts?: {
    retainMs?: number;
  }): Promise<QueuedWorkCancellation>;
  /** What has become of a batch; how it ended only where that is remembered. */
  queuedWorkState(sessionId: string, batchId: string): Promise<QueuedWorkState>;
  /** Batches whose last allowed claim ended without a commit: nobody gets them until they are requeued. In their order. */
  listDeadLetters(sessionId: string): Promise<QueuedWorkDeadLetter[]>;
  /**
   * Lets a dead letter wait again, at its old place and as if it had never been claimed; `null` if it is none. Whoever claimed it last can
   * no longer complete it.
   *
   * @param opts `availableAtMs`: not before that time; default as before.
   */
  requeueDeadLetter(sessionId: string, batchId: string, opts?: {
    availableAtMs?: number;
  }): Promise<QueuedWorkBatch | null>;
  /** All batches of a session in their order, also those that are claimed and those of the future. */
  listQueuedWork(sessionId: string): Promise<QueuedWorkBatch[]>;
  /** The batches of a session that nobody works on, also those of the future; without dead letters. */
  listPendingQueuedWork(sessionId: string): Promise<QueuedWorkBatch[]>;
}
declare abstract class SessionGraphUpkeep extends SessionGraphQueue {
  /** Removes hidden nodes; `reclaimSpace` also gives free pages of the file back, piece by piece. The file shrinks when its log is written back. */
  vacuum(opts?: {
    reclaimSpace?: boolean;
  }): Promise<{
    removedNodeCount: number;
  }>;
  /**
   * Removes blobs that neither the head nor a name keeps, in slices that let others write in between. Where it cannot be told what is alive,
   * nothing is removed from then on and `aborted` says why.
   */
  gcUnreachable(opts?: {
    minBlobAgeMs?: number;
  }): Promise<GcReport>;
  /**
   * Copies the store, as it is at one moment, to a file, which appears whole or not at all. Others go on writing. Never copy a live file yourself:
   * the copy would be torn.
   */
  backup(toPath: string): Promise<void>;
  /**
   * Makes a new file that begins where this session is: the path to a leaf, a checkpoint, all named artifacts, what the head retains, and
   * the sums of the ledger, at revision 1. It appears whole or not at all, and replaces no other file. Not taken along: other branches, the
   * queue, turns that were committed, attachments, pins.
   *
   * @throws {InvalidArgumentError} There is a file already; nothing was committed yet; there is no such pin.
   * @throws {UnknownLeafError} The leaf is no stored node. {@link MissingBlobError}, {@link BlobCorruptError}: something is damaged.
   */
  fork(toPath: string, opts?: ForkOptions): Promise<ForkedSession>;
  /**
   * Cuts back what only grows, as far as `opts` say so: turns and finished batches in slices that let others write in between, the entries of
   * the ledger at once.
   */
  prune(opts?: PruneOptions): Promise<PruneReport>;
  /**
   * Keeps a checkpoint by a name, so that it can be gone back to when the head has moved on: the head's as it is now, or a stored one. What had
   * the name before loses it. A pin is kept for ever; its node may be removed all the same.
   *
   * @throws {MissingBlobError} The checkpoint or one of its parts is not stored. {@link UnknownLeafError}: the node is not.
   */
  pinCheckpoint(name: string, opts?: PinRequest): Promise<CheckpointPin>;
  /** The pin of a name; `null` if there is none. */
  getPin(name: string): Promise<CheckpointPin | null>;
  /** All pins, by name. */
  listPins(): Promise<CheckpointPin[]>;
  /** Gives a name up; tells whether there was one. The next collection removes what nothing else keeps. */
  unpinCheckpoint(name: string): Promise<boolean>;
  /**
   * Tells of new revisions and of changes of the queue: those of this process and of others, for a file at once, in PostgreSQL within `pollMs`.
   * Ends when the store is closed, when `signal` aborts, and with the iteration. Somebody who watches keeps the process alive.
   *
   * @throws {StoreClosedError} With the first step: the store was closed before.
   */
  watch(opts?: WatchOptions): AsyncIterableIterator<SessionGraphChange>;
  /**
   * All nodes that are not hidden, in the order in which they were stored, page by page: for graphs that do not fit into memory. Each page is a
   * snapshot of its own, so nodes that are appended meanwhile come, too.
   *
   * @param opts Those behind `afterSeq`, at most `limit` of them; default all. An abort of `signal` rejects with its reason.
   */
  iterateNodes(opts?: {
    afterSeq?: number;
    limit?: number;
    signal?: AbortSignal;
  }): AsyncIterableIterator<NodeAt>;
  /** Says what is not as it must be; nothing, if all is well. `deep` also compares each blob with its hash. Reads the whole file. */
  verify(opts?: {
    deep?: boolean;
    signal?: AbortSignal;
  }): Promise<IntegrityProblem[]>;
  /** Figures, for those who look after the store. */
  stats(): Promise<SessionGraphStats>;
}

/**
 * One session: its graph, its checkpoint, what it used, and the work that waits for it, in one file that any number of threads and processes
 * may use. Writes of one store apply in the order of the calls; a read sees every write that was resolved before.
 *
 * @example
 * ```ts
 * await using store = await SessionGraphStore.open('chat.db');
 * await store.commitRuntimeState({
 *   sessionId: 'root', expectedHeadRevision: 0, config: {}, agentFrames: [], currentAgentFrameId: '',
 *   graph: { type: 'append', nodes: [{ nodeId: 'n1', timestamp: new Date().toISOString(), payload: 'hello' }], leafNodeId: 'n1' },
 *   checkpoint: { turnState: { turnIndex: 1 } },
 * });
 * ```
 */
export declare class SessionGraphStore extends SessionGraphUpkeep {
  #private;
  /** @internal */
  constructor(make: symbol, core: GraphCore);
  /**
   * Opens a file, and makes it (not its folder) when it is missing. Any number of processes may do so at once.
   *
   * @throws {UnsupportedSchemaError} It is no session database, or of a version that this build cannot use; it was not touched.
   * @throws {StoreBusyError} Others kept it to themselves for longer than `busyTimeoutMs`.
   */
  static open(path: string, options?: SessionGraphStoreOptions): Promise<SessionGraphStore>;
  /** Makes a private store in memory, gone when it is closed. */
  static memory(options?: SessionGraphStoreOptions): Promise<SessionGraphStore>;
  /**
   * Opens a file that is neither made nor changed; what others commit is seen. Every method that writes rejects with
   * {@link ReadOnlyStoreError}.
   *
   * @throws {StoreNotFoundError} There is none.
   */
  static openReadOnly(path: string, options?: SessionGraphStoreOptions): Promise<SessionGraphStore>;
  /**
   * Says whether a file can be opened by this version, and whether what is in it can be read; opens nothing for writing, and changes nothing.
   * For a look before a start that would otherwise fail again and again.
   *
   * @param opts `deep`: compares each blob with its hash and looks at each node; default yes. Without it, too, SQLite checks all of the file.
   */
  static preflight(path: string, opts?: {
    deep?: boolean;
    signal?: AbortSignal;
  }): Promise<PreflightReport>;
  /** Opens a file for a look that leaves nothing beside it. @internal */
  static peek(path: string): Promise<SessionGraphStore>;
  /**
   * Opens a store in a schema of a PostgreSQL database, for runtimes on several machines: one store per session, any number of them in one
   * schema. A resolved write is as durable as the server's `synchronous_commit` says.
   *
   * @throws {HoldfastError} `HF_UNAVAILABLE`: the server cannot be reached.
   */
  static connect(options: PostgresSessionGraphOptions): Promise<SessionGraphStore>;
  /**
   * Applies all of a turn, or nothing of it. With a `turnCommit` it can be sent again when nobody knows whether it landed.
   *
   * @returns The new revision, and the checkpoint as it was stored.
   * @throws {CommitTooLargeError} It is larger than `commitLimits` of the options allow.
   * @throws {HeadRevisionConflictError} Somebody else committed first.
   * @throws {RuntimeTurnCommitConflictError} The turn was committed with other contents.
   * @throws {QueuedWorkClaimExpiredError} Completed work belongs to somebody else by now.
   * @throws {NodeIdCollisionError} {@link UnknownLeafError}, {@link GraphCycleError}, {@link MissingBlobError},
   *   {@link SessionBindingMismatchError}: the commit does not fit what is stored.
   */
  commitRuntimeState(commit: RuntimeCommit): Promise<RuntimeCommitResult>;
  /**
   * Reads the session as it is at one moment; `null` before the first commit.
   *
   * @param scope Everything, or the path to a leaf.
   * @param opts `tolerant` skips what is damaged, and lists it in `problems`. An abort of `signal` rejects at once with its reason.
   */
  loadSession(scope: SessionReadScope, opts?: {
    tolerant?: boolean;
    signal?: AbortSignal;
  }): Promise<PersistedSessionRead | null>;
  /** Reads one node; `null` for an unknown and a tombstoned one. */
  loadNode(nodeId: string): Promise<SessionNodeRecord | null>;
  /** Replaces what a list of sessions shows of this one. */
  saveSessionMeta(meta: SessionMeta): Promise<void>;
  /** Stores a description unless there is one. @internal */
  static saveFirstMeta(store: SessionGraphStore, meta: SessionMeta): Promise<void>;
  /** Reads what a list of sessions shows of this one; `null` if nothing was saved. */
  loadSessionMeta(): Promise<SessionMeta | null>;
  /** Stores bytes under their hash, never compressed. A collection removes them unless something keeps them. */
  putBlob(content: Uint8Array): Promise<BlobRef>;
  /** Stores bytes whose kind is known; they are compressed where the descriptor, their size and the store's profile allow it. */
  putArtifactBlob(descriptor: BlobArtifactDescriptor, content: Uint8Array): Promise<BlobRef>;
  /** Reads a blob and compares it with its hash; `null` if there is none. */
  getBlob(ref: BlobRef): Promise<Uint8Array | null>;
  /** Stores a checkpoint by itself; a commit or a name must keep it from being collected. */
  putCheckpoint(checkpoint: HydratedSessionCheckpoint): Promise<StoredSessionCheckpoint>;
  /** Reads a checkpoint and all that it names; `null` for an unknown reference. */
  getCheckpoint(ref: BlobRef): Promise<HydratedSessionCheckpoint | null>;
  /** Stores bytes under a name, which keeps them; what had the name before loses it. */
  putNamedArtifact(name: string, content: Uint8Array): Promise<BlobRef>;
  /** Reads the bytes of a name; `null` if there is none. */
  getNamedArtifact(name: string): Promise<Uint8Array | null>;
  /** Adds entries to the ledger. */
  appendUsageDeltas(entries: TokenLedgerEntry[]): Promise<void>;
  /** All entries, in the order in which they were appended. */
  loadUsageDeltas(): Promise<TokenLedgerEntry[]>;
  /** The sums by source and model, in the order of their first entries. Entries that used nothing are left out. */
  tokenLedger(): Promise<TokenLedgerEntry[]>;
  /** Hides nodes from every read; unknown ids are ignored. */
  tombstoneNodes(nodeIds: string[]): Promise<void>;
  /** Announces an attachment, before its bytes are written elsewhere. The first announcement counts. */
  recordIntent(intent: AttachmentIntent): Promise<void>;
  /** Marks attachments of a session as committed; unknown ids are ignored. */
  commitRefs(sessionId: string, attachmentIds: string[]): Promise<void>;
  /** Attachments that were announced until then and never committed: candidates for removal. */
  listUncommitted(olderThanEpochMs: number): Promise<AttachmentManifestEntry[]>;
  /**
   * Forgets an attachment, in all sessions or in one; tells whether there was one. With `onlyIfUncommitted`, remove bytes only after it said
   * true: then they were never committed.
   */
  forget(attachmentId: string, opts?: {
    sessionId?: string;
    onlyIfUncommitted?: boolean;
  }): Promise<boolean>;
}
interface NativeLeases {
  /** Runs a command every third of the time until the token is let go; rejects when the lease is lost. */
  hold(token: string, command: string, ttlMs: number): Promise<void>;
  letGo(token: string): void;
}
type SideKind = "processes" | "effects" | "hostEvents";
interface UntilOptions {
  /** Ends the wait with its reason. */
  signal?: AbortSignal;
  /** Asks again after so many milliseconds also if nothing was written; default never. */
  everyMs?: number;
}
declare class SideCore {
  #private;
  /** Where the file is, with links followed; `null` in memory. */
  path: string | null;
  /** The version of the file. */
  schemaVersion: number;
  private constructor();
  /**
   * Opens a file, or makes a private store in memory where `path` is `null`.
   *
   * @param own Options that the class has besides those of {@link SideStoreOptions}; it checks them itself.
   */
  static open(kind: SideKind, path: string | null, options: SideStoreOptions, own?: readonly string[]): Promise<SideCore>;
  /** What a resolved write survives. */
  durabilityTier(): DurabilityTier;
  /** Runs a command that may write, as one transaction, in the order of the calls; its answer as text. */
  write(command: string): Promise<string>;
  /** Runs a command that only reads, on one snapshot; its answer as text. */
  read(command: string): Promise<string>;
  /**
   * Asks until there is an answer that is not `undefined`: again after each write of anybody, in this process or another. Keeps Node alive
   * meanwhile. Rejects with the reason of an aborted signal, and when the store is closed.
   */
  until<T>(ask: () => Promise<T | undefined>, { signal, everyMs }?: UntilOptions): Promise<T>;
  /** Runs a command that changes so many rows at most and says how many, until there are no more; the sum. Others write in between. */
  writeInSlices(command: string, limit: number): Promise<number>;
  /** Makes who renews leases. */
  leases(): NativeLeases;
  /** Finishes what was called, then closes the file; waits end. Closing again is fine. */
  close(): Promise<void>;
}
type Validate = NonNullable<ProcessRegistryOptions["validatePayload"]>;
interface Checked {
  /** Of the process. */
  id: string;
  eventType: string;
  /** The command that writes it, as text: an object. */
  text: string;
  /** `{ payload }` as text: every validator gets a value of its own. */
  payloadText: string;
}
declare class PayloadCheck {
  #private;
  constructor(core: SideCore, validate: Validate);
  /** Writes an event once the validator has seen its payload, where its type has a schema; the answer as text. */
  write(event: Checked): Promise<string>;
  /** Ends the waits for validators: what they were asked about is not written. */
  close(): void;
}

/**
 * The processes that agents started: what they are, the events that they append, who has a handle of them, and who runs them. One file that any
 * number of threads and processes may use. Writes of one store apply in the order of the calls, but for events that wait for a `validatePayload` of the
 * caller's: those keep their order within a process, and nothing else waits for them. A read sees every write that was resolved before.
 *
 * @example
 * ```ts
 * await using processes = await ProcessRegistryStore.open('processes.db');
 * await processes.registerProcess({ id: 'build', input: { target: 'all' }, provenance: { ownerScope: { sessionId: 'chat' }, hostProfileId: 'local' } });
 * const lease = await processes.claimProcessLease('build', 'worker-1', 30_000);
 * await processes.completeProcess('build', { type: 'success', value: { exitCode: 0 } });
 * await processes.completeProcessLease(lease);
 * ```
 */
export declare class ProcessRegistryStore implements AsyncDisposable {
  #private;
  /** @internal */
  constructor(make: symbol, core: SideCore, check: PayloadCheck | undefined);
  /**
   * Opens a file, and makes it (not its folder) when it is missing. Any number of processes may do so at once.
   *
   * @throws {UnsupportedSchemaError} It is no process registry, or of a version that this build cannot use; it was not touched.
   * @throws {StoreBusyError} Others kept it to themselves for longer than `busyTimeoutMs`.
   */
  static open(path: string, options?: ProcessRegistryOptions): Promise<ProcessRegistryStore>;
  /** Makes a private store in memory, gone when it is closed. */
  static memory(options?: ProcessRegistryOptions): Promise<ProcessRegistryStore>;
  /** Where the file is, with links followed; `null` in memory. */
  get path(): string | null;
  /** The version of the file. */
  get schemaVersion(): number;
  /** What a resolved write survives; `inline` in memory. */
  durabilityTier(): DurabilityTier;
  /**
   * Finishes what was called, then closes the file. Waits, events whose `validatePayload` has not answered yet, and later calls reject with
   * {@link StoreClosedError}; closing again is fine.
   */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
  /**
   * Makes a process known. The same registration again, by anybody, returns the stored record.
   *
   * @throws {ProcessRegistryError} The id is known with other contents, or the registration makes no sense.
   */
  registerProcess(registration: ProcessRegistration): Promise<ProcessRecord>;
  /** Reads a process; `null` if there is none. */
  getProcess(id: string): Promise<ProcessRecord | null>;
  /** The processes that have not ended, the oldest first. */
  listNonTerminal(): Promise<ProcessRecord[]>;
  /** Notes where a process runs, for whoever looks for it after a restart; `null` forgets it. */
  setExternalRef(id: string, ref: JsonValue): Promise<ProcessRecord>;
  /**
   * Appends an event. With a `replayKey` it can be appended again when nobody knows whether it landed: the stored event comes back, with the wake
   * that it made.
   *
   * @returns The event, and whom it wakes.
   * @throws {ProcessRegistryError} The process or the type is unknown, the payload does not fit, the replay key belongs to another event, the
   *   process has ended already, or a wake has no target.
   */
  appendEvent(id: string, req: ProcessEventAppend): Promise<{
    event: ProcessEvent;
    wakeDelivery?: WakeDelivery;
  }>;
  /** The events with a larger sequence, in order. */
  eventsAfter(id: string, seq: number): Promise<ProcessEvent[]>;
  /** Those of them that wake somebody and were not acknowledged. */
  wakeEventsAfter(id: string, seq: number): Promise<ProcessEvent[]>;
  /** Notes that the wake of this one event has arrived; again, or of an event that wakes nobody, changes nothing. */
  ackWake(id: string, seq: number): Promise<void>;
  /**
   * Waits for the first event of a type with a larger sequence, whichever process appends it. Keeps Node alive meanwhile.
   *
   * @throws {InvalidArgumentError} The process declares no such type.
   */
  waitEventAfter(id: string, type: string, seq: number, opts?: ProcessWaitOptions): Promise<ProcessEvent>;
  /** Waits until a process has ended, however; returns its output. Keeps Node alive meanwhile. */
  awaitProcess(id: string, opts?: ProcessWaitOptions): Promise<AwaitOutput>;
  /**
   * Ends a process: appends `process.completed`, `process.failed` or `process.cancelled`. The same output again is fine.
   *
   * @throws {ProcessRegistryError} It has ended in another way.
   */
  completeProcess(id: string, output: AwaitOutput): Promise<ProcessRecord>;
  /** Lets a scope deal with a process; a second grant replaces the descriptor. */
  grantHandle(scope: ProcessScope, id: string, d: {
    kind?: string;
    label?: string;
  }): Promise<HandleGrant>;
  /** Takes a handle back; none is fine. */
  revokeHandle(scope: ProcessScope, id: string): Promise<void>;
  /** Whether exactly this scope has a handle: one of the session is none of its frames. */
  hasHandleGrant(scope: ProcessScope, id: string): Promise<boolean>;
  /**
   * Moves handles to another scope, with their descriptors: all of them or none.
   *
   * @throws {ProcessRegistryError} `from` lacks one of them.
   */
  transferHandleGrants(from: ProcessScope, to: ProcessScope, ids: string[]): Promise<void>;
  /** The handles of a process, by session, then scope id. */
  handleGrantsForProcess(id: string): Promise<HandleGrant[]>;
  /** The handles of a scope with their processes, by process id; with `liveOnly` without those that have ended. */
  listHandleGrants(scope: ProcessScope, opts?: {
    liveOnly?: boolean;
  }): Promise<{
    grant: HandleGrant;
    record: ProcessRecord;
  }[]>;
  /** Takes back all handles of a session and its frames. Says which running processes nobody holds any more; it cancels none. */
  deleteSessionProcessState(sessionId: string): Promise<SessionProcessStateDeletion>;
  /**
   * Claims the running of a process for `leaseTtlMs`: one that is free, whose lease has lapsed, or that is the owner's own.
   *
   * @throws {ProcessRegistryError} Another owner has a lease that has not lapsed.
   */
  claimProcessLease(id: string, ownerId: string, leaseTtlMs: number): Promise<ProcessLease>;
  /**
   * Lets a lease end `leaseTtlMs` from now.
   *
   * @throws {ProcessRegistryError} It has lapsed, or is no longer the current one.
   */
  renewProcessLease(lease: ProcessLease, leaseTtlMs: number): Promise<ProcessLease>;
  /** Gives a lease back; one that is no longer the current one changes nothing. */
  completeProcessLease(c: {
    processId: string;
    leaseToken: string;
  }): Promise<void>;
  /**
   * Forgets processes that ended, and were not changed since, for `olderThanMs`, with their events and wakes, also those that nobody acknowledged;
   * never one that runs, that somebody has a handle of, or whose lease has not lapsed. A forgotten id can be registered anew: sequences and fencing
   * tokens begin again, so choose an age that nobody's retry or lease reaches. Nothing is ever forgotten by itself.
   *
   * @returns How many.
   */
  prune(opts: {
    olderThanMs: number;
  }): Promise<number>;
}

/** Makes, finds and removes the files of sessions. */
export declare class SessionGraphStoreFactory {
  #private;
  /**
   * @param root The folder; made with the first store.
   * @param options What every store is opened with.
   */
  constructor(root: string, options?: SessionGraphStoreOptions);
  /** Where the file of a session is: always in `root`, whatever the id. */
  pathForSession(sessionId: string): string;
  /**
   * Opens the store of a session, and makes it when it is missing, with a description (name = id) that later calls leave alone.
   *
   * @throws As `SessionGraphStore.open`.
   */
  createStore(req: {
    sessionId: string;
    model?: string;
    relation?: JsonValue;
  }): Promise<SessionGraphStore>;
  /**
   * The sessions of the folder, newest first, without loading them: each file is opened for reading, asked for its description and closed.
   * Files that are none of ours are left out; one that cannot be read is listed with its `problem`. No folder is no sessions.
   *
   * @param opts How many files are read at the same time, default 8; an abort of `signal` rejects with its reason.
   */
  listSessions(opts?: {
    concurrency?: number;
    signal?: AbortSignal;
  }): Promise<SessionListing[]>;
  /** Removes the file of a session and what SQLite keeps beside it; none is fine. Close its stores first. */
  deleteSession(sessionId: string): Promise<void>;
}

/** The store belongs to another session; nothing was written. */
export declare class SessionBindingMismatchError extends HoldfastError {
  /** The session that the first commit named. */
  readonly boundSessionId: string;
  /** The session of this commit. */
  readonly attemptedSessionId: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** Somebody else committed first; nothing was written. Load the session, and decide anew. */
export declare class HeadRevisionConflictError extends HoldfastError {
  /** The revision that the commit builds on. */
  readonly expected: number;
  /** The revision that is stored. */
  readonly actual: number;
  constructor(message: string, options?: StoreErrorOptions);
}

/** The turn was committed with other contents; nothing was written. */
export declare class RuntimeTurnCommitConflictError extends HoldfastError {
  /** The session of the stamp. */
  readonly sessionId: string;
  /** The turn of the stamp. */
  readonly turnId: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** The claim no longer owns its batches; nothing was written. */
export declare class QueuedWorkClaimExpiredError extends HoldfastError {
  /** The session of the claim. */
  readonly sessionId: string;
  /** The claim. */
  readonly claimId: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** `loadSession` does not know the scope. */
export declare class UnsupportedReadScopeError extends HoldfastError {
  /** What was asked for. */
  readonly scope: unknown;
  constructor(message: string, options?: StoreErrorOptions);
}

/** A stored record has a format that this version does not know. */
export declare class UnsupportedRecordSchemaVersionError extends HoldfastError {
  /** What it is. */
  readonly recordKind: string;
  /** Its version. */
  readonly actual: number;
  /** The version that is known. */
  readonly expected: number;
  constructor(message: string, options?: StoreErrorOptions);
}

/** A node of that id is stored already, or comes twice; nothing was written. */
export declare class NodeIdCollisionError extends HoldfastError {
  /** The id. */
  readonly nodeId: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** The new leaf is no stored node; nothing was written. */
export declare class UnknownLeafError extends HoldfastError {
  /** The leaf. */
  readonly nodeId: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** A node would be its own ancestor; nothing was written. */
export declare class GraphCycleError extends HoldfastError {
  /** A node of the circle. */
  readonly nodeId: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** The stored links of nodes are damaged. */
export declare class GraphCorruptError extends HoldfastError {
  /** Where it was noticed. */
  readonly nodeId: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** A reference leads to no stored blob; if it was a write, nothing was written. */
export declare class MissingBlobError extends HoldfastError {
  /** The reference. */
  readonly ref: string;
  /** What it stands for. */
  readonly component: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** A blob is not what its reference says. */
export declare class BlobCorruptError extends HoldfastError {
  /** The reference. */
  readonly ref: string;
  /** What it was read for. */
  readonly component: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** A stored row cannot be read. */
export declare class RecordDecodeError extends HoldfastError {
  /** The table. */
  readonly table: string;
  /** Which row. */
  readonly key: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** A queued batch is damaged; it can be cancelled. */
export declare class QueueRowCorruptError extends HoldfastError {
  /** The batch. */
  readonly batchId: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** An effect cannot be done or replayed; `hfCode` says why, and so does the first word of the message. */
export declare class EffectReplayError extends HoldfastError {
  /** The scope, as it is stored. */
  readonly scope?: unknown;
  /** Which effect of it. */
  readonly replayKey?: string;
  /** What the effect threw, where that could not be recorded. */
  readonly thrown?: unknown;
  constructor(message: string, options?: StoreErrorOptions & {
    hfCode?: HoldfastErrorCode;
  });
}

/** An event of the host, or what belongs to it, cannot be recorded; nothing was written. */
export declare class HostEventError extends HoldfastError {
  /** The key of the occurrence. */
  readonly idempotencyKey?: string;
  /** The occurrence that there is none of. */
  readonly occurrenceId?: string;
  /** The process of the delivery that there is none of. */
  readonly processId?: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** The commit is larger than `commitLimits` allow; nothing was sent. */
export declare class CommitTooLargeError extends HoldfastError {
  /** Which limit. */
  readonly limit: "bytes" | "nodes";
  /** How much there may be. */
  readonly max: number;
  /** How much there is. */
  readonly actual: number;
  constructor(message: string, options?: StoreErrorOptions);
}

/** The store was opened for reading. */
export declare class ReadOnlyStoreError extends HoldfastError {
  /** What was called. */
  readonly method: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** There is no store to be read; none was made. */
export declare class StoreNotFoundError extends HoldfastError {
  /** Where. */
  readonly path: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** A process, its events, its handles or its lease are not what a call needs; nothing was written. */
export declare class ProcessRegistryError extends HoldfastError {
  /** The process. */
  readonly processId?: string;
  /** The type of the event. */
  readonly eventType?: string;
  /** The key of the event. */
  readonly replayKey?: string;
  /** The JSON pointer that leads nowhere. */
  readonly pointer?: string;
  /** Whose lease it is. */
  readonly ownerId?: string;
  /** Until when. */
  readonly expiresAtEpochMs?: number;
  /** The session that has no handle. */
  readonly sessionId?: string;
  constructor(message: string, options?: StoreErrorOptions);
}

/** A bug in the engine ended this call; nothing of it was kept, and the store goes on. */
export declare class InternalPanicError extends HoldfastError {
  constructor(message: string, options?: StoreErrorOptions);
}

/** The file is no database of this kind that this version can use; it was not touched. `hfCode` is `HF_FORMAT_TOO_NEW` for a newer one. */
export declare class UnsupportedSchemaError extends HoldfastError {
  /** What was to be opened. */
  readonly kind: string;
  /** Whether a newer build wrote it, an older one without a migration, or something else; `empty`: nothing is in it, and opening it to write makes a store. */
  readonly reason: "newer" | "older" | "foreign" | "empty";
  /** The version that the file has. */
  readonly found: number;
  /** The version that this build writes. */
  readonly expected: number;
  constructor(message: string, options?: StoreErrorOptions & {
    hfCode?: HoldfastErrorCode;
  });
}

/** Any other failure of the disk or of the database. */
export declare class StoreIoError extends HoldfastError {
  constructor(message: string, options?: StoreErrorOptions & {
    hfCode?: HoldfastErrorCode;
  });
}
interface Replaying {
  core: SideCore;
  leases: NativeLeases;
  ownerId: string;
  leaseTtlMs: number;
  /** Whether what is not in the history fails. */
  strict: boolean;
  /** Effects that run, so that closing the store can end them. */
  running: Set<AbortController>;
  /** Why nothing runs any more, once it is closed. */
  ended: StoreClosedError | undefined;
}

/**
 * Effects of a runtime (calls of a model or a tool, sleeps), each done once. The first who asks for an effect does it; whoever asks later, in
 * this process or another, gets its recorded outcome; whoever asks meanwhile waits for it. When a process dies over an effect, the next one
 * who asks takes it over once its lease has lapsed: an effect is done at least once, and its outcome is recorded once.
 *
 * @example
 * ```ts
 * await using effects = await EffectReplayStore.open('effects.db');
 * const turn = effects.scoped({ type: 'turn', sessionId: 'chat', id: 'turn-1' });
 * const answer = await turn.execute({ effectId: 'e1', kind: 'model', replayKey: 'call-1', command: { prompt } }, (_, signal) => ask(prompt, signal));
 * ```
 */
export declare class EffectReplayStore implements AsyncDisposable {
  #private;
  /** @internal */
  constructor(make: symbol, store: Replaying);
  /**
   * Opens a file, and makes it (not its folder) when it is missing. Any number of processes may do so at once.
   *
   * @throws {UnsupportedSchemaError} It is no file of effects, or of a version that this build cannot use; it was not touched.
   */
  static open(path: string, options?: EffectReplayStoreOptions): Promise<EffectReplayStore>;
  /** Makes a private store in memory, gone when it is closed. */
  static memory(options?: EffectReplayStoreOptions): Promise<EffectReplayStore>;
  /** Where the file is, with links followed; `null` in memory. */
  get path(): string | null;
  /** The version of the file. */
  get schemaVersion(): number;
  /** What a recorded outcome survives. */
  durabilityTier(): DurabilityTier;
  /**
   * From now on what is executed through this handle must be in the history: an effect that was never begun fails with
   * `HF_GRAPH_EFFECT_REPLAY_MISSING`, and is not done. One that was begun, and that nobody is at, is taken over.
   */
  startReplay(): void;
  /**
   * Effects of a scope.
   *
   * @throws {EffectReplayError} `HF_GRAPH_EFFECT_REPLAY_KEY_MISSING`: it has no id.
   */
  scoped(scope: EffectScope): ScopedEffects;
  /**
   * Forgets effects that are over, or that nobody is at, for `olderThanMs`; never one that sleeps. What is forgotten is done again when it is
   * asked for, so forget only what no one replays any more, such as a scope whose turn is committed. Nothing is ever forgotten by itself.
   *
   * @param opts `scope`: only of that one.
   * @returns How many.
   */
  prune(opts: {
    olderThanMs: number;
    scope?: EffectScope | null;
  }): Promise<number>;
  /**
   * Ends: waits for what is being recorded, then closes the file. Effects that still run are told by their signals, and reject with
   * {@link StoreClosedError}; what they come to is not recorded, and others may take them over once their leases have lapsed. Closing again
   * is fine.
   */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Subscriptions of sessions to events of their host, and what became of them. An occurrence is recorded once, however often it is told; each
 * pair of an occurrence and a subscription is handed out once, as a process to be started under an id that depends on nothing but the pair;
 * and a pair whose process nobody started, because who was about to do it died, can be found.
 *
 * @example
 * ```ts
 * await using events = await HostEventStore.open('host-events.db');
 * const source = { at: '09:00' };
 * const sourceKey = HostEventStore.sourceKey('cron', source);
 * await events.registerSubscription({ sessionId: 'chat', sourceType: 'cron', sourceKey, source, target: { prompt: 'good morning' } });
 * const { occurrenceId } = await events.recordOccurrence({ sourceType: 'cron', sourceKey, idempotencyKey: '2026-11-22T09:00' });
 * for (const { processId, subscription } of await events.reserveMatchingDeliveries(occurrenceId)) {
 *   await startProcess(processId, subscription.target);
 *   await events.markDeliveryStarted(processId);
 * }
 * ```
 */
export declare class HostEventStore implements AsyncDisposable {
  #private;
  /** @internal */
  constructor(make: symbol, core: SideCore);
  /**
   * Opens a file, and makes it (not its folder) when it is missing. Any number of processes may do so at once.
   *
   * @throws {UnsupportedSchemaError} It is no file of host events, or of a version that this build cannot use; it was not touched.
   */
  static open(path: string, options?: SideStoreOptions): Promise<HostEventStore>;
  /** Makes a private store in memory, gone when it is closed. */
  static memory(options?: SideStoreOptions): Promise<HostEventStore>;
  /** The key of a source: `source:<type>:<hash of type and source>`; the order of members does not matter. */
  static sourceKey(sourceType: string, source: JsonValue): string;
  /** Where the file is, with links followed; `null` in memory. */
  get path(): string | null;
  /** The version of the file. */
  get schemaVersion(): number;
  /** What a resolved write survives. */
  durabilityTier(): DurabilityTier;
  /** Registers a subscription; each call makes a new one, with a number that was never used in this file. */
  registerSubscription(draft: HostEventSubscriptionDraft): Promise<HostEventSubscription>;
  /** Ends a subscription of a session; `true` if it was on. It stays in the lists, and no occurrence is reserved for it any more. */
  cancelSubscription(sessionId: string, handle: string): Promise<boolean>;
  /** Lists subscriptions, also cancelled ones, by session and then by number. */
  listSubscriptions(filter?: HostEventSubscriptionFilter): Promise<HostEventSubscription[]>;
  /**
   * Records that something happened; told again under the same key, it answers what was recorded then.
   *
   * @throws {HostEventError} The key has an occurrence with other contents, or something is missing or blank.
   */
  recordOccurrence(request: HostEventOccurrenceRequest): Promise<HostEventOccurrence>;
  /**
   * Reserves an occurrence for each subscription that is on and has its source, and returns what was not reserved before, by any process: each
   * pair once, ever. Start the processes, and say so with {@link markDeliveryStarted}.
   *
   * @throws {HostEventError} There is no such occurrence.
   */
  reserveMatchingDeliveries(occurrenceId: string): Promise<HostEventDelivery[]>;
  /**
   * Notes that the process of a delivery was started; `false` if that was noted before.
   *
   * @throws {HostEventError} There is no delivery of that process.
   */
  markDeliveryStarted(processId: string): Promise<boolean>;
  /**
   * Deliveries that were reserved and not marked as started, the oldest first: after a crash, start these. Who reserved one a moment ago may
   * be about to start it; starting it twice is harmless where processes are registered by id.
   */
  listUnstartedDeliveries(): Promise<HostEventDelivery[]>;
  /**
   * Forgets what is old, never by itself. An occurrence that is told again after it was forgotten is recorded and reserved again, with the
   * same ids: choose a time that no sender waits for. Numbers of subscriptions do not come back.
   *
   * @returns How many of each.
   */
  prune(opts: HostEventPruneOptions): Promise<{
    occurrences: number;
    subscriptions: number;
  }>;
  /** Finishes what was called, then closes the file. Later calls reject with {@link StoreClosedError}; closing again is fine. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Computes the hash of a commit: over all that it decides, and nothing that may differ between two sendings. Left out are the turn's stamp, the
 * expected revision, ids and times of nodes, the leaf, ids and tokens of claims, and which stored node an appended one hangs from (that it is a
 * stored one counts). Completed batches, attachments and `retainedBlobRefs` count in any order.
 *
 * A part of the checkpoint may be given as a value or by its reference. `toolState` and `pluginSnapshot` are hashed as the text that is stored,
 * so there the order of an object's keys counts, unlike everywhere else: build them the same way in each try.
 *
 * @param commit The commit.
 * @param options `scrubPayload` rewrites each node's payload before it is hashed, for payloads with times or random ids in them.
 * @returns 64 hex digits.
 * @throws {InvalidArgumentError} `HF_INVALID_ARGUMENT`: the commit could not be committed.
 */
export declare function turnCommitHash(commit: RuntimeCommit, options?: {
  scrubPayload?: (payload: JsonValue) => JsonValue;
}): string;

/** The version of the files that this version of holdfast writes. */
export declare const SESSION_SCHEMA_VERSION = 3;

/** A lease that fits most turns: 15 minutes, in milliseconds. */
export declare const QUEUED_WORK_CLAIM_TTL_MS = 900000;

/** What is usually stored. */
export declare const BlobDescriptors: {
  readonly [K in "checkpointManifest" | "toolState" | "pluginSessionSnapshot" | "executionStateSnapshot" | "module"]: BlobArtifactDescriptor;
};

export {
  contentHash as computeRuntimeStoreContentHash,
};
