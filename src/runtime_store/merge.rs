//! Working a batch into control files that somebody else wrote after it: pure functions from texts to texts.

use std::path::Path;

use super::decide::owns;
use super::format::{CONTROL_VERSION, ObjectText, decode, open_envelope};
use super::manifest::{EntryParts, Identity, Manifest};
use super::receipts::Batches;
use super::records::parsed;
use super::stage::{Ids, Intent};
use crate::error::{Code, HfError, Result};
use crate::hash::content_hash;
use crate::json::{self, Object};

/// A store that somebody else wrote after the batch, and that stays.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its modification time in milliseconds.
    pub mtime_ms: f64,
}

fn damaged(intent: &Intent) -> HfError {
    HfError::new(
        Code::Io,
        format!(
            "the redo folder of batch {} is damaged; run verify() and keep a copy of the directory",
            intent.batch_id
        ),
    )
    .with_field("batchId", intent.batch_id.clone())
}

fn data_of<T>(staged: Option<&[u8]>, intent: &Intent, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
    let text = decode(staged.ok_or_else(|| damaged(intent))?.to_vec());
    let envelope = open_envelope(&text, Path::new("staged"), CONTROL_VERSION).map_err(|_| damaged(intent))?;
    parse(envelope.data).ok_or_else(|| damaged(intent))
}

fn names(intent: &Intent, extra: &[String]) -> Vec<String> {
    extra.iter().cloned().chain(intent.entries.iter().map(|change| change.schema_name.clone())).collect()
}

/// Parses a receipts file that the batch is about to write.
///
/// # Errors
/// The redo folder is damaged.
pub fn receipts_in(bytes: &[u8], intent: &Intent, extra: &[String]) -> Result<Batches> {
    data_of(Some(bytes), intent, |data| Batches::parse(data, &names(intent, extra)).ok())
}

/// Adds the batch's record to the current receipts if it is not there.
///
/// # Errors
/// The redo folder is damaged.
pub fn receipts(current: Option<Batches>, staged: Option<&[u8]>, intent: &Intent, extra: &[String]) -> Result<String> {
    let extra = names(intent, extra);
    let mut batches = match current {
        Some(batches) => batches,
        None => data_of(staged, intent, |data| Batches::parse(data, &extra).ok())?,
    };
    if batches.get(&intent.batch_id).is_none() {
        batches.records.push(parsed(&intent.record, &extra)?);
    }
    Ok(batches.file_text(&intent.updated_at))
}

/// Applies the batch to the current manifest: its entries where they still are the prior ones, the watermark, and the
/// active ids where they are the prior ones. A store that somebody wrote later is entered as it is now, so that the write
/// which recovery kept does not look like corruption.
///
/// # Errors
/// The redo folder is damaged.
pub fn manifest(
    current: Option<Manifest>,
    staged: Option<&[u8]>,
    intent: &Intent,
    kept: &[(&str, Kept<'_>)],
    extra: &[String],
) -> Result<String> {
    let extra = names(intent, extra);
    let applied = current.is_none();
    let mut manifest = match current {
        Some(manifest) => manifest,
        None => data_of(staged, intent, |data| Manifest::parse(data, &extra).ok())?,
    };
    let record = parsed(&intent.record, &extra)?;
    for change in &intent.entries {
        if !owns(change, Some(&manifest)) {
            continue;
        }
        let Some(receipt) = record.receipts.iter().find(|receipt| receipt.receipt_id == change.receipt_id) else {
            continue;
        };
        let parts = receipt.entry_parts();
        let entry = match kept.iter().find(|(name, _)| *name == change.schema_name) {
            None => parts.entry(),
            Some((_, file)) => {
                let hash = content_hash(decode(file.bytes.to_vec()).as_bytes());
                let size = file.bytes.len() as f64;
                EntryParts { content_hash: &hash, file_size: size, mtime_ms: file.mtime_ms, receipt_id: None, ..parts }
                    .entry()
            }
        };
        manifest.set_entry(entry);
    }
    if !applied {
        manifest.high_watermark += 1.0;
        manifest.last_committed_batch_id = Some(intent.batch_id.clone());
        adopt_ids(&mut manifest.active, &intent.prior_active, &intent.active);
        manifest.updated_at.clone_from(&intent.updated_at);
    }
    Ok(manifest.file_text(&intent.updated_at))
}

fn adopt_ids(active: &mut Identity, prior: &Ids, next: &Ids) {
    let fields = [
        (&mut active.run_id, &prior.run_id, &next.run_id),
        (&mut active.capability_snapshot_id, &prior.capability_snapshot_id, &next.capability_snapshot_id),
        (&mut active.behavior_fingerprint, &prior.behavior_fingerprint, &next.behavior_fingerprint),
    ];
    for (current, prior, next) in fields {
        if current == prior {
            current.clone_from(next);
        }
    }
}

/// Returns the receipts from before an undone batch, with the batch as `failed` and rolled back.
///
/// # Errors
/// The redo folder is damaged.
pub fn failed_receipts(prior: Option<Vec<u8>>, intent: &Intent, extra: &[String], path: &Path) -> Result<String> {
    let extra = names(intent, extra);
    let mut batches = match prior {
        None => Batches::default(),
        Some(bytes) => {
            let text = decode(bytes);
            let envelope = open_envelope(&text, path, CONTROL_VERSION).map_err(|_| damaged(intent))?;
            Batches::parse(envelope.data, &extra).map_err(|_| damaged(intent))?
        }
    };
    let object = Object::parse(&intent.record).map_err(|_| damaged(intent))?;
    let mut text = ObjectText::new();
    for member in object.members() {
        text = match member.key.as_ref() {
            "state" => text.string("state", "failed"),
            "receipts" => text.raw("receipts", "[]"),
            "lastError" => text.string("lastError", "publishing failed and was undone"),
            key => text.raw(key, member.raw),
        };
    }
    let record = text.string("hfResolution", "rolled_back").finish();
    debug_assert!(json::validate(record.as_bytes()).is_ok());
    batches.records.push(parsed(&record, &extra)?);
    Ok(batches.file_text(&intent.updated_at))
}
