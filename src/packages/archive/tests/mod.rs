#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, clippy::print_stdout)]

mod bench;
mod fuzz;
mod hostile;
mod limits;
pub(super) mod made;
mod packing;
mod unpacking;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Extracted, Limits, UnpackOptions, check, pack, unpack};
use crate::error::{HfError, Result};

fn never() -> Result<()> {
    Ok(())
}

fn options() -> UnpackOptions<'static> {
    UnpackOptions { durability_full: false, hash: true, cancel: &never, progress: &|_| () }
}

/// For tests with archives of more than 8 MiB: which of those are kept depends on what others do at the time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks and unpacks, as every caller does.
fn unpack_into(bytes: &[u8], target: &Path) -> Result<Vec<Extracted>> {
    unpack_with(bytes, target, &Limits::default(), false)
}

fn unpack_with(bytes: &[u8], target: &Path, limits: &Limits, fold_case: bool) -> Result<Vec<Extracted>> {
    let plan = check(bytes, limits, fold_case)?;
    unpack(bytes, &plan, target, &options())
}

/// Everything below `root`: path to content, `None` for a folder, `->target` for a link.
fn listing(root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    fn walk(root: &Path, below: &str, found: &mut BTreeMap<String, Option<Vec<u8>>>) {
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            let full = root.join(&path);
            let metadata = fs::symlink_metadata(&full).unwrap();
            if metadata.is_symlink() {
                found.insert(path, Some(format!("->{}", fs::read_link(full).unwrap().display()).into_bytes()));
            } else if metadata.is_dir() {
                found.insert(path.clone(), None);
                walk(root, &path, found);
            } else {
                found.insert(path, Some(fs::read(full).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, "", &mut found);
    found
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::symlink_metadata(path).unwrap().permissions()) & 0o7777
}

fn message(error: &HfError) -> String {
    format!("{} {}", error.code().as_str(), error.message())
}
