//! Undoing a batch whose publication failed in this process.

use std::path::Path;

use super::batch::{Input, Staged, parsed, record_text};
use super::publish::{link_over, write_over};
use super::{Context, stage};
use crate::durable::atomic::{Durability, folder_of};
use crate::durable::{Disk, IoContext, optional, sync};
use crate::error::{HfError, Result};
use crate::hash::content_hash;
use crate::ids;

/// Puts everything back: from `aborted.json` on, a crash in here is continued by recovery.
///
/// # Errors
/// Any failure; the redo folder stays and recovery decides.
pub(super) fn undo(disk: &Disk, context: &Context, input: &Input, folder: &Path, staged: &Staged, cause: &HfError) -> Result<()> {
    let syncs = context.durability == Durability::Full;
    let aborted = folder.join(stage::ABORTED);
    disk.rename(&folder.join(stage::INTENT), &aborted).at("rename", &aborted)?;
    if syncs {
        sync::dirs(disk, [folder.to_owned()])?;
    }
    disk.point("in_undo").at("undo", folder)?;
    for (i, (target, path)) in staged.intent.targets.iter().zip(&staged.paths).enumerate() {
        if i == staged.intent.receipts() {
            continue;
        }
        let current = optional(disk.read(path)).at("open", path)?;
        if current.as_deref().map(content_hash).as_ref() != Some(&target.next_hash) {
            continue;
        }
        match &target.prior_hash {
            Some(prior) if *prior == target.next_hash => {}
            Some(_) => link_over(disk, &folder.join(stage::prior_name(i)), path, &temp_name(), syncs)?,
            None => optional(disk.remove_file(path)).at("unlink", path).map(|_| ())?,
        }
    }
    let record = record_text(input, &[], "failed", Some(&input.recorded_at), Some(cause.message()), Some("rolled_back"));
    let mut batches = staged.prior_batches.clone();
    batches.records.push(parsed(&record, &context.extra_names)?);
    let text = batches.file_text(&input.receipts_updated_at);
    write_over(disk, text.as_bytes(), &context.receipts, &temp_name(), Some(&context.receipts), None, syncs)?;
    if syncs {
        sync::dirs(disk, staged.paths.iter().map(|path| folder_of(path).to_owned()))?;
    }
    stage::remove(disk, folder)?;
    if syncs {
        sync::dirs(disk, [folder_of(folder).to_owned()])?;
    }
    Ok(())
}

fn temp_name() -> String {
    format!(".tmp.{}", ids::uuid())
}
