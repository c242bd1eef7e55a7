//! Reading the two control files.

use std::path::Path;

use super::Context;
use super::error::FileFault;
use super::format::{CONTROL_VERSION, decode, open_envelope};
use super::manifest::Manifest;
use super::receipts::Batches;
use crate::durable::{Disk, IoContext, optional};
use crate::error::Result;

/// A control file as it was found.
#[derive(Debug, Clone)]
pub struct Control<T> {
    /// Its bytes; `None` when there is no file.
    pub bytes: Option<Vec<u8>>,
    /// What they mean, or what is wrong with them.
    pub value: std::result::Result<T, FileFault>,
}

/// Reads the manifest. A missing file is `missing()`.
///
/// # Errors
/// I/O failures only: what is wrong with the content is in the result.
pub fn read_manifest(disk: &Disk, context: &Context, missing: impl FnOnce() -> Manifest) -> Result<Control<Manifest>> {
    read(disk, &context.manifest, missing, |data| Manifest::parse(data, &context.extra_names))
}

/// Reads the receipts. A missing file holds none.
///
/// # Errors
/// As [`read_manifest`].
pub fn read_receipts(disk: &Disk, context: &Context) -> Result<Control<Batches>> {
    read(disk, &context.receipts, Batches::default, |data| Batches::parse(data, &context.extra_names))
}

fn read<T>(
    disk: &Disk,
    path: &Path,
    missing: impl FnOnce() -> T,
    parse: impl FnOnce(&str) -> std::result::Result<T, String>,
) -> Result<Control<T>> {
    let Some(bytes) = optional(disk.read(path)).at("open", path)? else {
        return Ok(Control { bytes: None, value: Ok(missing()) });
    };
    let text = decode(bytes.clone());
    let value = open_envelope(&text, path, CONTROL_VERSION).and_then(|envelope| {
        parse(envelope.data).map_err(|message| FileFault {
            reason: "invalid_data",
            message: format!("Invalid data in versioned store {}: {message}", path.display()),
        })
    });
    Ok(Control { bytes: Some(bytes), value })
}
