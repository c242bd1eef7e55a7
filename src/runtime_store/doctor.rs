//! A read-only look at a runtime directory, for support staff who see the disk and not the process.

use std::path::Path;

use serde::Serialize;

use super::executor::{is_temporary, stage_folder};
use super::format::{self, LOCK};
use super::stores::{read_manifest, read_receipts};
use super::{Context, stage};
use crate::clock;
use crate::durable::atomic::folder_of;
use crate::durable::{Disk, IoContext, lock, optional};
use crate::error::Result;
use crate::runtime_store::manifest::Manifest;

/// A lock file.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockFacts {
    /// Where.
    pub path: String,
    /// Its text.
    pub content: String,
    /// Whether a living holdfast process holds its OS lock. A lock of the original never does.
    pub held: bool,
}

/// A file that somebody left.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// Where.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// Modification time in milliseconds since the epoch.
    pub modified_ms: f64,
}

/// A control file.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlFacts {
    /// Where.
    pub path: String,
    /// Bytes; `null` when missing.
    pub bytes: Option<u64>,
    /// What is wrong with it; `null` when nothing.
    pub fault: Option<String>,
}

/// An open batch.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenBatch {
    /// Its redo folder.
    pub folder: String,
    /// Its id, where the intent can be read.
    pub batch_id: Option<String>,
    /// `incomplete`, `committed` or `aborted`.
    pub state: &'static str,
    /// Whether its owner lives.
    pub alive: bool,
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The runtime directory.
    pub directory: String,
    /// The manifest.
    pub manifest: ControlFacts,
    /// The receipts.
    pub receipts: ControlFacts,
    /// `highWatermark`, where the manifest can be read.
    pub high_watermark: Option<f64>,
    /// Records in the receipts file.
    pub batches: usize,
    /// Batches that never ended.
    pub unresolved: Vec<String>,
    /// Redo folders.
    pub open_batches: Vec<OpenBatch>,
    /// Lock files.
    pub locks: Vec<LockFacts>,
    /// Temporary files.
    pub temporary_files: Vec<Leftover>,
    /// Copies of bad files.
    pub quarantine_files: Vec<Leftover>,
    /// Bytes of the archive of receipts.
    pub archive_bytes: u64,
    /// Last good copy of the manifest, if there is one.
    pub manifest_copy: Option<String>,
}

/// Looks at everything and changes nothing.
///
/// # Errors
/// I/O failures other than missing files.
pub fn examine(disk: &Disk, context: &Context) -> Result<Report> {
    let manifest = read_manifest(disk, context, || Manifest::empty("", ""))?;
    let receipts = read_receipts(disk, context)?;
    let mut report = Report {
        directory: shown(&context.dir),
        high_watermark: manifest.value.as_ref().ok().map(|manifest| manifest.high_watermark),
        manifest: ControlFacts {
            path: shown(&context.manifest),
            bytes: manifest.bytes.map(|bytes| bytes.len() as u64),
            fault: manifest.value.err().map(|fault| fault.message),
        },
        batches: receipts.value.as_ref().map_or(0, |batches| batches.records.len()),
        unresolved: receipts
            .value
            .as_ref()
            .map(|batches| {
                batches
                    .records
                    .iter()
                    .filter(|batch| batch.is_unresolved())
                    .map(|batch| batch.batch_id.clone())
                    .collect()
            })
            .unwrap_or_default(),
        receipts: ControlFacts {
            path: shown(&context.receipts),
            bytes: receipts.bytes.map(|bytes| bytes.len() as u64),
            fault: receipts.value.err().map(|fault| fault.message),
        },
        open_batches: Vec::new(),
        locks: Vec::new(),
        temporary_files: Vec::new(),
        quarantine_files: Vec::new(),
        archive_bytes: 0,
        manifest_copy: None,
    };
    let alive = !lock::is_free(&context.sidecar().join(LOCK));
    for redo in stage::find(disk, &context.sidecar())? {
        let state = match redo.content {
            stage::Content::Incomplete => "incomplete",
            stage::Content::Committed(_) => "committed",
            stage::Content::Aborted(_) => "aborted",
        };
        report.open_batches.push(OpenBatch {
            folder: shown(&redo.folder),
            batch_id: redo.intent().map(|intent| intent.batch_id.clone()),
            state,
            alive,
        });
    }
    let mut folders = vec![
        context.dir.clone(),
        context.base().to_owned(),
        folder_of(&context.receipts).to_owned(),
        stage_folder(context),
    ];
    folders.sort();
    folders.dedup();
    for folder in folders {
        for name in optional(disk.list(&folder)).at("scandir", &folder)?.into_iter().flatten() {
            sort_in(disk, &mut report, &folder.join(&name), &name.to_string_lossy());
        }
    }
    let archive = context.sidecar().join(format::ARCHIVE);
    report.archive_bytes = optional(disk.metadata(&archive)).at("stat", &archive)?.map_or(0, |metadata| metadata.len());
    let copy = context.sidecar().join(format::MANIFEST_PREVIOUS);
    report.manifest_copy = disk.metadata(&copy).is_ok().then(|| shown(&copy));
    Ok(report)
}

fn sort_in(disk: &Disk, report: &mut Report, path: &Path, name: &str) {
    let Ok(metadata) = disk.symlink_metadata(path) else {
        return;
    };
    let leftover = || Leftover {
        path: shown(path),
        bytes: metadata.len(),
        modified_ms: metadata.modified().map_or(0.0, clock::millis_since_epoch),
    };
    if name.ends_with(".lock") {
        let content = disk
            .read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).chars().take(400).collect())
            .unwrap_or_default();
        report.locks.push(LockFacts { path: shown(path), content, held: !lock::is_free(path) });
    } else if is_temporary(name) || (name.starts_with(".review-create.") && name.ends_with(".tmp")) {
        report.temporary_files.push(leftover());
    } else if name.ends_with(".quarantine") {
        report.quarantine_files.push(leftover());
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
