//! The one error type and its stable codes.
//!
//! Every failure that leaves the engine is an [`HfError`]. It carries the public class that JavaScript rethrows, a stable
//! [`Code`], Node's own code for I/O failures, a message for people, and named fields for programs.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

/// Result of everything in the engine.
pub type Result<T> = std::result::Result<T, HfError>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Stable error codes, the `hfCode` of every JavaScript error. `docs/errors.md` has a section for each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All codes, in the order of their declaration.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// Returns the text that programs compare with.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// The handle was closed.
    Closed = "HF_CLOSED",
    /// A sync failed earlier; what the handle believes is no longer known to be on disk.
    Poisoned = "HF_POISONED",
    /// The disk or the quota is full.
    DiskFull = "HF_DISK_FULL",
    /// Any other I/O failure; `code` holds Node's own.
    Io = "HF_IO",
    /// The resource is in use and the caller asked not to wait.
    Busy = "HF_BUSY",
    /// A file lock was not obtained in time.
    LockTimeout = "HF_LOCK_TIMEOUT",
    /// An argument has the wrong type or value.
    InvalidArgument = "HF_INVALID_ARGUMENT",
    /// A file was written by a newer version.
    FormatTooNew = "HF_FORMAT_TOO_NEW",
    /// A bug in the engine; nothing was written after it.
    Panic = "HF_PANIC",
    /// A database file is damaged, or is no database.
    Corrupt = "HF_CORRUPT",
    /// The database server cannot be reached, or the connection broke.
    Unavailable = "HF_UNAVAILABLE",
    /// The database refused a statement; `sqlState` or `sqliteCode` say why.
    Database = "HF_DATABASE",
    /// A step that brings tables to the version of this program failed; none was kept.
    MigrationFailed = "HF_MIGRATION_FAILED",
    /// A store file is not JSON.
    RuntimeInvalidJson = "HF_RUNTIME_INVALID_JSON",
    /// A store file lacks a valid envelope.
    RuntimeInvalidEnvelope = "HF_RUNTIME_INVALID_ENVELOPE",
    /// A store's data was refused by its validator.
    RuntimeInvalidData = "HF_RUNTIME_INVALID_DATA",
    /// A store would grow beyond its `maxFileBytes`.
    RuntimeFileTooLarge = "HF_RUNTIME_FILE_TOO_LARGE",
    /// A `relativePath` leaves the runtime directory or names a control file.
    RuntimePathEscapes = "HF_RUNTIME_PATH_ESCAPES",
    /// A batch names another team than the manifest.
    RuntimeTeamMismatch = "HF_RUNTIME_TEAM_MISMATCH",
    /// `expectedActiveRunId` is not the active run.
    RuntimeBatchStale = "HF_RUNTIME_BATCH_STALE",
    /// A batch id is in the receipts already.
    RuntimeBatchExists = "HF_RUNTIME_BATCH_EXISTS",
    /// No such batch in the receipts.
    RuntimeBatchNotFound = "HF_RUNTIME_BATCH_NOT_FOUND",
    /// The outcome of a batch is on disk but its publication is not finished; recovery decides.
    RuntimeBatchPending = "HF_RUNTIME_BATCH_PENDING",
    /// Somebody broke a lock that this process held.
    RuntimeLockLost = "HF_RUNTIME_LOCK_LOST",
    /// A value is not a runtime store manifest.
    RuntimeInvalidManifest = "HF_RUNTIME_INVALID_MANIFEST",
    /// A value is not a list of write batches.
    RuntimeInvalidReceipts = "HF_RUNTIME_INVALID_RECEIPTS",
    /// A value is not a list of launch transactions.
    RuntimeInvalidTransactions = "HF_RUNTIME_INVALID_TRANSACTIONS",
    /// The launch transaction is finished.
    RuntimeTransactionNotActive = "HF_RUNTIME_TRANSACTION_NOT_ACTIVE",
    /// No launch transaction of that run.
    RuntimeTransactionNotFound = "HF_RUNTIME_TRANSACTION_NOT_FOUND",
    /// Another run's launch transaction is active.
    RuntimeTransactionStale = "HF_RUNTIME_TRANSACTION_STALE",
    /// A value is not a list of run tombstones.
    RuntimeInvalidTombstones = "HF_RUNTIME_INVALID_TOMBSTONES",
    /// Evidence of a run that is not (or no longer) the current one.
    RuntimeStaleEvidence = "HF_RUNTIME_STALE_EVIDENCE",
    /// `defineEntity` was given a kind that is no text, or blank.
    EntityKindInvalid = "HF_ENTITY_KIND_INVALID",
    /// `defineEntity` was given a kind that is registered already.
    EntityKindDuplicate = "HF_ENTITY_KIND_DUPLICATE",
    /// `defineEntity` was given no `read` function.
    EntityReadInvalid = "HF_ENTITY_READ_INVALID",
    /// `defineEntity` was given something else than an object schema.
    EntityStateSchemaInvalid = "HF_ENTITY_STATE_SCHEMA_INVALID",
    /// A mutation or a history query came before a store was bound.
    EntityStoreUnbound = "HF_ENTITY_STORE_UNBOUND",
    /// `apply` of a mutation resolved to null.
    EntityNoState = "HF_ENTITY_NO_STATE",
    /// A subscription without a kind, or without a group for its work queue.
    EntitySubscribeInvalid = "HF_ENTITY_SUBSCRIBE_INVALID",
    /// A change deriver without a kind.
    EntityDeriverInvalid = "HF_ENTITY_DERIVER_INVALID",
    /// A second payload mapper for a kind.
    EntityDeriverConflict = "HF_ENTITY_DERIVER_CONFLICT",
    /// A Standard Schema refused the state that `apply` resolved to.
    EntityValidation = "HF_ENTITY_VALIDATION",
    /// `createEntityStore` was given a target that it does not know, or cannot use.
    EntityStoreInputInvalid = "HF_ENTITY_STORE_INPUT_INVALID",
    /// A table of the transition log, or a column that is needed, does not exist.
    EntityTableMissing = "HF_ENTITY_TABLE_MISSING",
    /// The history of a change could not be appended, after `apply` had succeeded.
    EntityAppendFailed = "HF_ENTITY_APPEND_FAILED",
    /// `transitionCount` was given a window that is not a number.
    EntityWindowInvalid = "HF_ENTITY_WINDOW_INVALID",
    /// The bytes of a package's blob do not have the SHA-256 that the manifest names.
    PkgIntegrity = "HF_PKG_INTEGRITY",
    /// An archive holds a path, a link or a size that is never unpacked.
    PkgUnsafeEntry = "HF_PKG_UNSAFE_ENTRY",
    /// An archive is damaged, or is no gzipped tar.
    PkgArchive = "HF_PKG_ARCHIVE",
    /// A directory could not be packed.
    PkgPack = "HF_PKG_PACK",
    /// A package's archive does not hold exactly the one directory that it must.
    PkgLayout = "HF_PKG_LAYOUT",
    /// `bun install` failed.
    PkgBun = "HF_PKG_BUN",
    /// A package requires another one that is not in the manifest.
    PkgDepMissing = "HF_PKG_DEP_MISSING",
    /// A package is not in the cache, or is damaged there, and could not be pulled again.
    PkgEntryMissing = "HF_PKG_ENTRY_MISSING",
    /// A lockfile hash that cannot name a tree.
    PkgBadHash = "HF_PKG_BAD_HASH",
    /// A name that is not an npm package's.
    PkgBadName = "HF_PKG_BAD_NAME",
    /// The lock of a store root was not obtained in time.
    PkgLockTimeout = "HF_PKG_LOCK_TIMEOUT",
    /// No blob store is registered under that id.
    PkgNoBackend = "HF_PKG_NO_BACKEND",
    /// A `bun.lock` could not be read.
    PkgLockfile = "HF_PKG_LOCKFILE",
    /// No such session.
    LifecycleSessionNotFound = "HF_LIFECYCLE_SESSION_NOT_FOUND",
    /// A session that has not ended cannot be restored.
    LifecycleSessionNotRestorable = "HF_LIFECYCLE_SESSION_NOT_RESTORABLE",
    /// A session with neither a conversation nor a prompt cannot be restored.
    LifecycleNothingToResume = "HF_LIFECYCLE_NOTHING_TO_RESUME",
    /// A session without the handles that a teardown needs.
    LifecycleIncompleteHandle = "HF_LIFECYCLE_INCOMPLETE_HANDLE",
    /// The session was ended while it came up.
    LifecycleSessionTerminated = "HF_LIFECYCLE_SESSION_TERMINATED",
    /// Another operation on the session is in progress.
    LifecycleSessionBusy = "HF_LIFECYCLE_SESSION_BUSY",
    /// One of the caller's ports failed.
    LifecyclePortFailed = "HF_LIFECYCLE_PORT_FAILED",
    /// A message could not be delivered; the state is committed and the message is tried again.
    LifecycleReactionDeliveryFailed = "HF_LIFECYCLE_REACTION_DELIVERY_FAILED",
    /// A record breaks a rule of its table.
    LifecycleConstraint = "HF_LIFECYCLE_CONSTRAINT",
    /// Somebody else wrote the record since it was read.
    LifecycleStaleRecord = "HF_LIFECYCLE_STALE_RECORD",
    /// The changes that were asked for are no longer kept.
    LifecycleChangeLogTruncated = "HF_LIFECYCLE_CHANGE_LOG_TRUNCATED",
    /// A subscriber did not keep up.
    LifecycleSubscriberOverflow = "HF_LIFECYCLE_SUBSCRIBER_OVERFLOW",
    /// The store belongs to another session.
    GraphSessionBindingMismatch = "HF_GRAPH_SESSION_BINDING_MISMATCH",
    /// Somebody else committed first.
    GraphHeadRevisionConflict = "HF_GRAPH_HEAD_REVISION_CONFLICT",
    /// The turn was committed with other contents.
    GraphRuntimeTurnCommitConflict = "HF_GRAPH_RUNTIME_TURN_COMMIT_CONFLICT",
    /// The claim no longer owns its batches.
    GraphQueuedWorkClaimExpired = "HF_GRAPH_QUEUED_WORK_CLAIM_EXPIRED",
    /// `loadSession` was given a scope that it does not know.
    GraphUnsupportedReadScope = "HF_GRAPH_UNSUPPORTED_READ_SCOPE",
    /// A stored record has a format that this version does not know.
    GraphUnsupportedRecordSchemaVersion = "HF_GRAPH_UNSUPPORTED_RECORD_SCHEMA_VERSION",
    /// A file is no session database, or too old for one.
    GraphUnsupportedSchema = "HF_GRAPH_UNSUPPORTED_SCHEMA",
    /// A node id is stored already, or comes twice.
    GraphNodeIdCollision = "HF_GRAPH_NODE_ID_COLLISION",
    /// The new leaf is no stored node.
    GraphUnknownLeaf = "HF_GRAPH_UNKNOWN_LEAF",
    /// A delta would make a node its own ancestor.
    GraphCycle = "HF_GRAPH_CYCLE",
    /// The stored links of nodes are damaged.
    GraphCorrupt = "HF_GRAPH_CORRUPT",
    /// A reference leads to no stored blob.
    GraphMissingBlob = "HF_GRAPH_MISSING_BLOB",
    /// A blob is not what its reference says.
    GraphBlobCorrupt = "HF_GRAPH_BLOB_CORRUPT",
    /// A stored row cannot be read.
    GraphRecordDecode = "HF_GRAPH_RECORD_DECODE",
    /// A queued batch is damaged.
    GraphQueueRowCorrupt = "HF_GRAPH_QUEUE_ROW_CORRUPT",
    /// A commit is larger than its store allows.
    GraphCommitTooLarge = "HF_GRAPH_COMMIT_TOO_LARGE",
    /// A write on a store that was opened for reading.
    GraphReadOnly = "HF_GRAPH_READ_ONLY",
    /// A store that was to be read does not exist.
    GraphStoreNotFound = "HF_GRAPH_STORE_NOT_FOUND",
    /// A process, its events, its handles or its lease are not what a call needs.
    GraphProcessRegistry = "HF_GRAPH_PROCESS_REGISTRY",
    /// A replay asks for an effect that never happened.
    GraphEffectReplayMissing = "HF_GRAPH_EFFECT_REPLAY_MISSING",
    /// A replay key belongs to another effect.
    GraphEffectReplayHashConflict = "HF_GRAPH_EFFECT_REPLAY_HASH_CONFLICT",
    /// Somebody else took an effect over.
    GraphEffectReplayLeaseLost = "HF_GRAPH_EFFECT_REPLAY_LEASE_LOST",
    /// An effect without a scope or a replay key.
    GraphEffectReplayKeyMissing = "HF_GRAPH_EFFECT_REPLAY_KEY_MISSING",
    /// The record of an effect is damaged.
    GraphEffectReplayCorruptRow = "HF_GRAPH_EFFECT_REPLAY_CORRUPT_ROW",
    /// An effect was done, and could not be recorded.
    GraphEffectReplayStore = "HF_GRAPH_EFFECT_REPLAY_STORE",
    /// An occurrence of a host event, or a delivery, that cannot be.
    GraphHostEvent = "HF_GRAPH_HOST_EVENT",
}

/// The public class that the facade rethrows a failure as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `HoldfastError`
    Holdfast,
    /// `VersionedJsonStoreError`, with the fields `reason` and `quarantinePath`.
    VersionedJsonStore,
    /// `RuntimeStorePathError`, with the field `relativePath`.
    RuntimeStorePath,
    /// `RuntimeStoreBatchPendingError`, with the fields `batchId` and `outcome`.
    RuntimeStoreBatchPending,
}

impl Class {
    /// Returns the name of the JavaScript class.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Holdfast => "HoldfastError",
            Class::VersionedJsonStore => "VersionedJsonStoreError",
            Class::RuntimeStorePath => "RuntimeStorePathError",
            Class::RuntimeStoreBatchPending => "RuntimeStoreBatchPendingError",
        }
    }
}

/// A failure on its way to JavaScript.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.message)]
pub struct HfError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    class: Class,
    code: Code,
    node_code: Option<String>,
    message: String,
    fields: Map<String, Value>,
}

impl HfError {
    /// Makes a `HoldfastError` with `code` and `message`.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            class: Class::Holdfast,
            code,
            node_code: None,
            message: message.into(),
            fields: Map::new(),
        }))
    }

    /// Changes the public class.
    #[must_use]
    pub fn with_class(mut self, class: Class) -> Self {
        self.0.class = class;
        self
    }

    /// Changes the code.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.0.code = code;
        self
    }

    /// Adds a field, which becomes a property of the JavaScript error.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Names the argument that is to blame, what it must be, and what it was, as errors of the facade do.
    #[must_use]
    pub fn with_argument(self, argument: &str, expected: impl Into<Value>, received: &Value) -> Self {
        self.with_field("argument", argument)
            .with_field("expected", expected)
            .with_field("received", described(received))
    }

    /// Puts the place that it is about in front of the message.
    #[must_use]
    pub fn at_place(mut self, place: &str) -> Self {
        self.0.message = format!("{place}: {}", self.0.message);
        self
    }

    /// Adds what is behind it, or what to do, to the message.
    #[must_use]
    pub fn with_advice(mut self, advice: &str) -> Self {
        self.0.message = format!("{}; {advice}", self.0.message);
        self
    }

    /// Wraps an I/O failure of `operation` on `path`, keeping Node's code (`ENOSPC` …) and `syscall`-like fields.
    #[must_use]
    pub fn io(operation: &str, path: &Path, source: &io::Error) -> Self {
        let node_code = node_code(source);
        let code = match node_code.as_deref() {
            Some("ENOSPC" | "EDQUOT") => Code::DiskFull,
            _ => Code::Io,
        };
        let shown = path.display();
        let name = node_code.as_deref().unwrap_or("EIO");
        let advice = match name {
            "ENOSPC" | "EDQUOT" => "; free some space and try again",
            "EACCES" | "EPERM" | "EROFS" => "; check the permissions of the file and of its folder",
            _ => "",
        };
        let mut error = Self::new(code, format!("{name}: {operation} failed, {source}: {shown}{advice}"))
            .with_field("path", path.to_string_lossy())
            .with_field("syscall", operation);
        if let Some(errno) = source.raw_os_error() {
            error = error.with_field("errno", -i64::from(errno));
        }
        error.0.node_code = node_code;
        error
    }

    /// Marks that a sync failed, after which the handle must not be trusted until it is reopened.
    #[must_use]
    pub fn sync_failed(self) -> Self {
        self.with_field("syncFailed", true)
    }

    /// Tells whether [`HfError::sync_failed`] marked it.
    #[must_use]
    pub fn is_sync_failure(&self) -> bool {
        self.0.fields.get("syncFailed") == Some(&Value::Bool(true))
    }

    /// Returns the public class.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// Returns the stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Returns Node's code of an I/O failure (`EACCES`).
    #[must_use]
    pub fn node_code(&self) -> Option<&str> {
        self.0.node_code.as_deref()
    }

    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the named fields.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0.fields
    }
}

/// A value in the words of the facade (`describe` in `src-js/check.ts`): enough to recognise it.
fn described(value: &Value) -> String {
    const SHOWN: usize = 40;
    match value {
        Value::Null => "null".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(text) => {
            let shown: String = text.chars().take(SHOWN).collect();
            let cut = if shown.len() < text.len() { "…" } else { "" };
            format!("the string {}", Value::String(shown + cut))
        }
    }
}

/// Returns Node's name of an OS error, `None` where the OS gave none.
fn node_code(error: &io::Error) -> Option<String> {
    let name = match error.kind() {
        io::ErrorKind::NotFound => "ENOENT",
        io::ErrorKind::PermissionDenied => match error.raw_os_error() {
            Some(1) => "EPERM",
            _ => "EACCES",
        },
        io::ErrorKind::AlreadyExists => "EEXIST",
        io::ErrorKind::StorageFull => "ENOSPC",
        io::ErrorKind::QuotaExceeded => "EDQUOT",
        io::ErrorKind::ReadOnlyFilesystem => "EROFS",
        io::ErrorKind::IsADirectory => "EISDIR",
        io::ErrorKind::NotADirectory => "ENOTDIR",
        io::ErrorKind::DirectoryNotEmpty => "ENOTEMPTY",
        io::ErrorKind::CrossesDevices => "EXDEV",
        io::ErrorKind::ResourceBusy => "EBUSY",
        io::ErrorKind::TooManyLinks => "EMLINK",
        io::ErrorKind::InvalidFilename => "ENAMETOOLONG",
        io::ErrorKind::InvalidInput => "EINVAL",
        io::ErrorKind::FileTooLarge => "EFBIG",
        io::ErrorKind::Interrupted => "EINTR",
        io::ErrorKind::Unsupported => "ENOTSUP",
        _ => match error.raw_os_error() {
            Some(5) => "EIO",
            Some(23) => "ENFILE",
            Some(24) => "EMFILE",
            Some(40) => "ELOOP",
            Some(_) => "EIO",
            None => return None,
        },
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_prefixed() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(code.as_str().starts_with("HF_"));
            assert!(seen.insert(code.as_str()), "{} twice", code.as_str());
        }
    }

    #[test]
    fn a_full_disk_keeps_nodes_code() {
        let error = HfError::io("write", Path::new("/x"), &io::Error::from_raw_os_error(28));
        assert_eq!(error.node_code(), Some("ENOSPC"));
        assert_eq!(error.code(), Code::DiskFull);
    }
}
