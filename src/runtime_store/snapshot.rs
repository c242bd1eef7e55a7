//! A consistent look at a directory without locking it.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use super::format::LOCK;
use super::manifest::Manifest;
use super::planner::pending_names;
use super::receipts::Batches;
use super::stores::{read_manifest, read_receipts};
use super::{Context, stage};
use crate::durable::{Disk, lock};
use crate::error::Result;

/// A batch whose redo folder is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its id.
    pub batch_id: String,
    /// The stores that it changes.
    pub schema_names: Vec<String>,
    /// Whether its owner lives.
    pub alive: bool,
}

impl Open {
    /// Tells whether the batch changes a store.
    #[must_use]
    pub fn names(&self, schema_name: &str) -> bool {
        self.schema_names.iter().any(|name| name == schema_name)
    }
}

/// The control files, as they were at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The manifest.
    pub manifest: Manifest,
    /// The receipts.
    pub batches: Batches,
    /// Batches that are open.
    pub open: Vec<Open>,
    manifest_bytes: Option<Vec<u8>>,
    receipts_bytes: Option<Vec<u8>>,
}

impl Snapshot {
    /// Reads the control files and the names of open batches.
    ///
    /// # Errors
    /// An unreadable control file, or any I/O failure.
    pub fn read(disk: &Disk, context: &Context, default_manifest: &str) -> Result<Self> {
        let missing =
            || Manifest::parse(default_manifest, &context.extra_names).unwrap_or_else(|_| Manifest::empty("", ""));
        let manifest = read_manifest(disk, context, missing)?;
        let receipts = read_receipts(disk, context)?;
        Ok(Self {
            manifest: manifest.value.map_err(|fault| fault.into_error(None))?,
            batches: receipts.value.map_err(|fault| fault.into_error(None))?,
            open: open_batches(disk, context)?,
            manifest_bytes: manifest.bytes,
            receipts_bytes: receipts.bytes,
        })
    }

    /// Tells whether the control files are still the same bytes.
    ///
    /// # Errors
    /// Any I/O failure.
    pub fn is_still_true(&self, disk: &Disk, context: &Context) -> Result<bool> {
        use crate::durable::{IoContext, optional};
        let now = |path: &std::path::Path| optional(disk.read(path)).at("open", path);
        Ok(now(&context.manifest)? == self.manifest_bytes
            && now(&context.receipts)? == self.receipts_bytes
            && open_batches(disk, context)? == self.open)
    }
}

fn open_batches(disk: &Disk, context: &Context) -> Result<Vec<Open>> {
    let sidecar = context.sidecar();
    let redos = stage::find(disk, &sidecar)?;
    if redos.is_empty() || !stage::is_trusted(&sidecar) {
        return Ok(Vec::new());
    }
    let alive = !lock::is_free(&sidecar.join(LOCK));
    let mut open = Vec::new();
    for redo in &redos {
        if alive {
            let names =
                redo.intent().map(|intent| intent.entries.iter().map(|change| change.schema_name.clone()).collect());
            open.push(Open { batch_id: String::new(), schema_names: names.unwrap_or_default(), alive });
        } else {
            open.extend(pending_names(disk, context, redo)?);
        }
    }
    Ok(open)
}

/// Keeps batches of other holdfast writers out for as long as the returned file is open: a shared OS lock on the
/// directory's lock. `None` if there is no such lock, or no luck within `patience`.
pub(super) fn hold_off_writers(context: &Context, patience: Duration) -> Option<File> {
    let file = Disk::real().keep_inode(&context.sidecar().join(LOCK))?;
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if file.try_lock_shared().is_ok() {
            return Some(file);
        }
        thread::sleep(Duration::from_micros(200));
    }
    None
}
