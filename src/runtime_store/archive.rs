//! Receipts that retention took out of the receipts file.
//!
//! One compact JSON record per line, for people and for audits: nothing here is read back to decide anything. A batch that
//! fails after archiving leaves its line; the record then stands in both places.

use std::path::Path;

use super::format::ARCHIVE;
use super::receipts::Batch;
use crate::durable::{Disk, IoContext, OutFile, optional};
use crate::error::Result;
use crate::json;

/// Size at which the archive becomes `receipts.archive.1.jsonl` (replacing the one before) and a new one begins.
pub const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Appends `batches` and returns the file for the caller's sync barrier.
///
/// # Errors
/// Any I/O failure.
pub fn append(disk: &Disk, sidecar: &Path, batches: &[Batch]) -> Result<Option<OutFile>> {
    if batches.is_empty() {
        return Ok(None);
    }
    let path = sidecar.join(ARCHIVE);
    let size = optional(disk.metadata(&path)).at("stat", &path)?.map_or(0, |metadata| metadata.len());
    if size > BYTES_MAX {
        disk.rename(&path, &sidecar.join("receipts.archive.1.jsonl")).at("rename", &path)?;
    }
    let mut lines = String::new();
    for batch in batches {
        lines.push_str(&json::compact(&batch.raw));
        lines.push('\n');
    }
    disk.append(&path, lines.as_bytes()).at("write", &path).map(Some)
}
