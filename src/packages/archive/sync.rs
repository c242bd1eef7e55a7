//! Getting many small new files onto the disk.

use std::fs::File;
use std::path::PathBuf;

use crate::durable::{IoContext, pool};
use crate::error::{Code, HfError, Result};

/// Files that are kept open for one round of syncs, which bounds the descriptors in use.
pub const ROUND: usize = 64;

/// Syncs `files` side by side and closes them: the file system then shares the commits of its journal among them.
///
/// # Errors
/// The first failure, marked as a failed sync.
pub fn all(files: Vec<(File, PathBuf)>) -> Result<()> {
    let jobs = files
        .into_iter()
        .map(|(file, path)| {
            Box::new(move || file.sync_all().at("fsync", &path).map_err(HfError::sync_failed)) as pool::Task<Result<()>>
        })
        .collect();
    for result in pool::parallel(pool::THREADS_MAX, jobs) {
        result.unwrap_or_else(|| Err(HfError::new(Code::Panic, "a sync panicked; please report this")))?;
    }
    Ok(())
}
