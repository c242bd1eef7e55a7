//! Receipts that retention took out of the receipts file.
//!
//! One compact JSON record per line, for people and for audits: nothing here is read back to decide anything. A batch that
//! fails after archiving leaves its line; the record then stands in both places.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::format::ARCHIVE;
use super::receipts::Batch;
use crate::durable::{Disk, IoContext, OutFile, optional, sync};
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
    // A line that a full disk or a power cut tore stays alone.
    let torn = size > 0 && size <= BYTES_MAX && last_byte(disk, &path).at("read", &path)? != b'\n';
    let mut lines = String::from(if torn { "\n" } else { "" });
    for batch in batches {
        lines.push_str(&json::compact(&batch.raw));
        lines.push('\n');
    }
    disk.append(&path, lines.as_bytes()).at("write", &path).map(Some)
}

/// Appends those of `batches` that the archive lacks, and syncs it unless told otherwise: for recovery, which cannot know
/// whether the lines of a batch before its commit point reached the disk.
///
/// # Errors
/// Any I/O failure.
pub fn append_missing(disk: &Disk, sidecar: &Path, batches: Vec<Batch>, sync: bool) -> Result<()> {
    let path = sidecar.join(ARCHIVE);
    let bytes = optional(disk.read(&path)).at("open", &path)?.unwrap_or_default();
    let known: HashSet<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let missing: Vec<Batch> =
        batches.into_iter().filter(|batch| !known.contains(json::compact(&batch.raw).as_bytes())).collect();
    let out = match append(disk, sidecar, &missing)? {
        Some(out) => Some(out),
        None if bytes.is_empty() => None,
        None => Some(disk.reopen(&path).at("open", &path)?),
    };
    match out.filter(|_| sync) {
        Some(out) => sync::barrier(disk, vec![sync::Target::File(out), sync::Target::Dir(sidecar.to_owned())]),
        None => Ok(()),
    }
}

fn last_byte(disk: &Disk, path: &Path) -> io::Result<u8> {
    let mut byte = [0];
    let mut file = disk.reopen(path)?.file;
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    Ok(u8::from_le_bytes(byte))
}
