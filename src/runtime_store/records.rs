//! The texts of receipts and batch records.

use super::batch::{Input, Write};
use super::format::{self, ObjectText};
use super::manifest::EntryParts;
use super::receipts::Batch;
use crate::error::{Code, HfError, Result};
use crate::json;

/// Returns a receipt as compact JSON.
pub(super) fn receipt_text(input: &Input, write: &Write, parts: &EntryParts<'_>) -> String {
    ObjectText::new()
        .string("receiptId", &write.receipt_id)
        .string("batchId", &input.batch_id)
        .string("schemaName", &write.schema_name)
        .string("teamName", &input.team_name)
        .nullable("runId", input.run_id.as_deref())
        .nullable("capabilitySnapshotId", input.capability_snapshot_id.as_deref())
        .nullable("behaviorFingerprint", input.behavior_fingerprint.as_deref())
        .number("schemaVersion", write.schema_version)
        .string("relativePath", &write.relative_path)
        .string("contentHash", parts.content_hash)
        .number("fileSize", parts.file_size)
        .number("mtimeMs", parts.mtime_ms)
        .string("writtenAt", &write.written_at)
        .finish()
}

/// Returns a batch record as compact JSON.
pub(super) fn record_text(
    input: &Input,
    receipts: &[String],
    state: &str,
    completed_at: Option<&str>,
    last_error: Option<&str>,
    resolution: Option<&str>,
) -> String {
    let text = ObjectText::new()
        .string("batchId", &input.batch_id)
        .string("teamName", &input.team_name)
        .nullable("runId", input.run_id.as_deref())
        .nullable("capabilitySnapshotId", input.capability_snapshot_id.as_deref())
        .nullable("behaviorFingerprint", input.behavior_fingerprint.as_deref())
        .string("reason", &input.reason)
        .string("startedAt", &input.started_at)
        .nullable("completedAt", completed_at)
        .string("state", state)
        .raw("receipts", &format::array_text(receipts.iter().map(String::as_str)))
        .nullable("lastError", last_error);
    match resolution {
        Some(resolution) => text.string("hfResolution", resolution),
        None => text,
    }
    .finish()
}

/// Parses a record that we made ourselves, laid out for its place in the file.
pub(super) fn parsed(record: &str, extra: &[String]) -> Result<Batch> {
    let mut pretty = String::with_capacity(record.len() * 2);
    json::pretty(record, 2, &mut pretty);
    Batch::parse(&pretty, extra).ok_or_else(|| {
        HfError::new(
            Code::InvalidArgument,
            "the batch would make the receipts unreadable: check that ids, team name, reason, times, schema names and relative paths are non-empty strings of legal values; nothing was written",
        )
    })
}
