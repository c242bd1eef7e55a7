//! What can go wrong in a runtime store, each as the error that users see.

use std::path::Path;

use crate::error::{Class, Code, HfError};

/// Why a versioned file could not be used, with the text of its message.
#[derive(Debug, Clone)]
pub struct FileFault {
    /// `invalid_json`, `invalid_envelope`, `invalid_data` or `future_schema`.
    pub reason: &'static str,
    /// The full message.
    pub message: String,
}

impl FileFault {
    /// Returns the error that JavaScript sees as `VersionedJsonStoreError`.
    #[must_use]
    pub fn into_error(self, quarantine_path: Option<&Path>) -> HfError {
        let code = match self.reason {
            "invalid_json" => Code::RuntimeInvalidJson,
            "invalid_envelope" => Code::RuntimeInvalidEnvelope,
            "future_schema" => Code::FormatTooNew,
            _ => Code::RuntimeInvalidData,
        };
        let path = quarantine_path.map(|path| path.to_string_lossy().into_owned());
        HfError::new(code, self.message)
            .with_class(Class::VersionedJsonStore)
            .with_field("reason", self.reason)
            .with_field("quarantinePath", path)
    }
}

/// A `relativePath` that must not be used.
#[must_use]
pub fn path_escapes(relative_path: &str) -> HfError {
    HfError::new(Code::RuntimePathEscapes, format!("Runtime store path escapes its directory: {relative_path}"))
        .with_class(Class::RuntimeStorePath)
        .with_field("relativePath", relative_path)
}

/// A batch for another team than the manifest's.
#[must_use]
pub fn team_mismatch(manifest_team: &str) -> HfError {
    HfError::new(Code::RuntimeTeamMismatch, format!("Runtime store batch team mismatch: {manifest_team}"))
        .with_field("manifestTeamName", manifest_team)
}

/// A batch of a run that is not the active one any more.
#[must_use]
pub fn batch_stale(active_run: Option<&str>) -> HfError {
    HfError::new(
        Code::RuntimeBatchStale,
        format!("Runtime store batch is stale; active run is {}", active_run.unwrap_or("null")),
    )
    .with_field("activeRunId", active_run.map(str::to_owned))
}

/// A batch id that the receipts hold already.
#[must_use]
pub fn batch_exists(batch_id: &str) -> HfError {
    HfError::new(Code::RuntimeBatchExists, format!("Runtime store batch already exists: {batch_id}"))
        .with_field("batchId", batch_id)
}

/// The batch passed its commit point, but this process could not finish publishing it. `outcome` is `committed` or `unknown`.
#[must_use]
pub fn batch_pending(batch_id: &str, outcome: &str, cause: &HfError) -> HfError {
    let mut error =
        HfError::new(Code::RuntimeBatchPending, format!("Runtime store batch committed but not applied: {batch_id}"))
            .with_class(Class::RuntimeStoreBatchPending)
            .with_field("batchId", batch_id)
            .with_field("outcome", outcome)
            .with_field(
                "detail",
                format!("{}; the next writeBatch or recover() finishes or undoes it", cause.message()),
            );
    if cause.is_sync_failure() {
        error = error.sync_failed();
    }
    error
}

/// A lock that this process held was broken before anything was published.
#[must_use]
pub fn lock_lost(path: &Path) -> HfError {
    HfError::new(
        Code::RuntimeLockLost,
        format!(
            "the lock of {} was broken by another process before anything was written; nothing changed, try again",
            path.display()
        ),
    )
    .with_field("path", path.to_string_lossy())
}

/// A file that would grow beyond its limit.
#[must_use]
pub fn file_too_large(path: &Path, bytes: usize, max: u64) -> HfError {
    HfError::new(
        Code::RuntimeFileTooLarge,
        format!("{} would be {bytes} bytes, over its limit of {max}; nothing was written. Store less, or raise maxFileBytes", path.display()),
    )
    .with_field("path", path.to_string_lossy())
    .with_field("bytes", bytes)
    .with_field("maxFileBytes", max)
}
