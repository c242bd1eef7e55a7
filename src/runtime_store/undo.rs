//! Undoing a batch whose publication failed in this process.

use std::path::Path;

use super::batch::{Input, Staged};
use super::publish::{link_over, write_over};
use super::records::{parsed, record_text};
use super::{Context, stage};
use crate::durable::atomic::{Durability, folder_of, resolve};
use crate::durable::{Disk, IoContext, optional, sync};
use crate::error::{HfError, Result};
use crate::hash::content_hash;

/// Puts everything back: from `aborted.json` on, a crash in here is continued by recovery.
///
/// # Errors
/// Any failure; the redo folder stays and recovery decides.
pub(super) fn undo(
    disk: &Disk,
    context: &Context,
    input: &Input,
    folder: &Path,
    staged: &Staged,
    cause: &HfError,
) -> Result<()> {
    let syncs = context.durability == Durability::Full;
    let aborted = folder.join(stage::ABORTED);
    disk.rename(&folder.join(stage::INTENT), &aborted).at("rename", &aborted)?;
    if syncs {
        sync::dirs(disk, [folder.to_owned()])?;
    }
    disk.point("in_undo").at("undo", folder)?;
    let mut folders = Vec::new();
    for (i, (target, path)) in staged.intent.targets.iter().zip(&staged.paths).enumerate() {
        let real = resolve(disk, path).at("readlink", path)?;
        folders.push(folder_of(&real).to_owned());
        // What a failed publication could not remove would be in the way of the next link.
        let leftover = folder_of(&real).join(&target.temp);
        optional(disk.remove_file(&leftover)).at("unlink", &leftover)?;
        if i == staged.intent.receipts() {
            continue;
        }
        let current = optional(disk.read(path)).at("open", path)?;
        if current.as_deref().map(content_hash).as_ref() != Some(&target.next_hash) {
            continue;
        }
        match &target.prior_hash {
            Some(prior) if *prior == target.next_hash => {}
            Some(_) => link_over(disk, &folder.join(stage::prior_name(i)), path, &target.temp, syncs)?,
            None => optional(disk.remove_file(path)).at("unlink", path).map(|_| ())?,
        }
    }
    let record =
        record_text(input, &[], "failed", Some(&input.recorded_at), Some(cause.message()), Some("rolled_back"));
    let mut batches = staged.prior_batches.clone();
    batches.records.push(parsed(&record, &context.extra_names)?);
    let text = batches.file_text(&input.receipts_updated_at);
    // Names that recovery knows, so that a crash leaves no temporary file for good.
    let temp =
        staged.intent.targets.get(staged.intent.receipts()).map(|target| target.temp.as_str()).unwrap_or_default();
    write_over(disk, text.as_bytes(), &context.receipts, temp, Some(&context.receipts), None, syncs)?;
    if syncs {
        sync::dirs(disk, folders)?;
    }
    stage::remove(disk, folder)?;
    if syncs {
        sync::dirs(disk, [folder_of(folder).to_owned()])?;
    }
    Ok(())
}
