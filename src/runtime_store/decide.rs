//! What to do with the redo folder of a dead batch: a pure function from what it and the directory hold.

use super::manifest::Manifest;
use super::receipts::Batches;
use super::stage::{EntryChange, Intent};

/// What stands where a target should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Missing,
    /// The bytes from before the batch.
    Prior,
    /// The bytes of the batch.
    Next,
    /// Not a versioned file.
    Invalid,
    /// A versioned file that somebody wrote later.
    Foreign,
}

/// What to do with one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It is as it should be, or not ours to change.
    Leave,
    /// Write the staged bytes.
    Write,
    /// Put the former bytes back.
    Restore,
    /// Work the batch into what somebody wrote later.
    Merge,
}

/// What to do with a redo folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Carry out one act per target, sync, remove the folder.
    Forward(Vec<Act>),
    /// Put the former bytes back, one act per target; then as `Forward`.
    Back(Vec<Act>),
    /// Everything was overwritten by others: put the folder aside.
    Superseded,
}

/// Decides about a batch that passed its commit point. `manifest` and `receipts` are the current ones, if they can be read;
/// `republish` says that a sync failed while it was published.
#[must_use]
pub fn decide(
    intent: &Intent,
    aborted: bool,
    found: &[Found],
    manifest: Option<&Manifest>,
    receipts: Option<&Batches>,
    republish: bool,
) -> Decision {
    let at = |i: usize| found.get(i).copied().unwrap_or(Found::Missing);
    let count = intent.targets.len();
    if aborted {
        return Decision::Back(
            (0..count).map(|i| if at(i) == Found::Next { Act::Restore } else { Act::Leave }).collect(),
        );
    }
    let applied = manifest.is_some_and(|manifest| is_applied(intent, manifest, receipts));
    let (receipts, manifest_index) = (intent.receipts(), intent.manifest());
    let foreign_control = at(receipts) == Found::Foreign || at(manifest_index) == Found::Foreign;
    let other_team = manifest.is_some_and(|manifest| manifest.team_name != intent.team_name);
    let hopeless = intent.stores() > 0 && (0..intent.stores()).all(|i| at(i) == Found::Foreign);
    if !applied && (other_team || (hopeless && foreign_control)) {
        return Decision::Superseded;
    }
    let any_foreign = (0..count).any(|i| at(i) == Found::Foreign);
    let staged = |i: usize| match at(i) {
        Found::Next if !republish => Act::Leave,
        _ => Act::Write,
    };
    let acts = (0..count).map(|i| {
        if i < intent.stores() {
            let ours = intent.entries.iter().filter(|change| change.target == i).all(|change| owns(change, manifest));
            return match at(i) {
                Found::Foreign => Act::Leave,
                _ if ours => staged(i),
                _ => Act::Leave,
            };
        }
        match (i == receipts, at(i)) {
            // The manifest shows the batch; only a power cut can have lost the receipts' rename.
            (true, Found::Foreign)
                if applied && manifest.is_none_or(|m| m.last_committed_batch_id.as_ref() != Some(&intent.batch_id)) =>
            {
                Act::Leave
            }
            (true, Found::Foreign) => Act::Merge,
            (true, _) => staged(i),
            (false, Found::Next) => staged(i),
            (false, _) if applied => Act::Leave,
            (false, _) if any_foreign => Act::Merge,
            (false, _) => staged(i),
        }
    });
    Decision::Forward(acts.collect())
}

/// Tells whether the manifest shows the batch: by its id, by all of its receipts, or by later batches. The last needs more
/// than a high watermark, because the original counts on without looking at redo folders: no entry is the one from before,
/// and the receipts know the batch, unless retention may have taken it out.
fn is_applied(intent: &Intent, manifest: &Manifest, receipts: Option<&Batches>) -> bool {
    let entry = |change: &EntryChange| {
        manifest
            .entry(&change.schema_name)
            .map(|entry| (entry.last_write_receipt_id.clone(), entry.content_hash.clone()))
    };
    let all_receipts = !intent.entries.is_empty()
        && intent
            .entries
            .iter()
            .all(|change| entry(change).is_some_and(|(receipt_id, _)| receipt_id.as_ref() == Some(&change.receipt_id)));
    if manifest.last_committed_batch_id.as_ref() == Some(&intent.batch_id) || all_receipts {
        return true;
    }
    let later = manifest.high_watermark - intent.prior_watermark - 1.0;
    let untouched = intent.entries.iter().any(|change| {
        entry(change).unwrap_or_default() == (change.prior_receipt_id.clone(), change.prior_content_hash.clone())
    });
    let recorded = receipts.is_none_or(|receipts| receipts.get(&intent.batch_id).is_some());
    let pruned = intent.retention.is_some_and(|kept| later >= kept as f64);
    later > 0.0 && !untouched && (recorded || pruned)
}

/// Tells whether the manifest's entry of a store is still the one from before the batch, or the batch's own: then nobody
/// committed that store since.
pub(super) fn owns(change: &EntryChange, manifest: Option<&Manifest>) -> bool {
    let Some(manifest) = manifest else { return true };
    match manifest.entry(&change.schema_name) {
        None => change.prior_content_hash.is_none() && change.prior_receipt_id.is_none(),
        Some(entry) => {
            let prior = entry.last_write_receipt_id == change.prior_receipt_id
                && entry.content_hash == change.prior_content_hash;
            prior || entry.last_write_receipt_id.as_ref() == Some(&change.receipt_id)
        }
    }
}

/// Tells whether a target holds bytes that only the batch can have put there.
pub(super) fn was_published(intent: &Intent, found: &[Found]) -> bool {
    intent
        .targets
        .iter()
        .zip(found)
        .any(|(target, found)| *found == Found::Next && target.prior_hash.as_ref() != Some(&target.next_hash))
}
