//! Telling a disk that is full from one that fails.
//!
//! SQLite reports `ENOSPC` as full, but a quota that is used up (`EDQUOT`), and a shared-memory file that cannot grow, as
//! plain I/O errors, and it does not pass the system's reason on. So the question is put to the system directly.

use std::path::Path;

use rusqlite::ffi;

use super::error::sqlite_code;
use super::sql_error;
use crate::durable::{Disk, atomic};
use crate::error::{Code, HfError};
use crate::ids;

/// More than the largest thing that SQLite writes or reserves at once (a page, a piece of shared memory).
const PROBE_BYTES: usize = 128 << 10;

/// Turns the failed write of a database at `path` into [`Code::DiskFull`] if there is no room beside it.
pub(super) fn honest(error: HfError, path: Option<&Path>) -> HfError {
    let may_be_full = matches!(
        sqlite_code(&error),
        Some(ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP)
    );
    match path {
        Some(path) if may_be_full && !has_room(atomic::folder_of(path)) => {
            sql_error("write to the database", rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None))
        }
        _ => error,
    }
}

fn has_room(folder: &Path) -> bool {
    let disk = Disk::real();
    let probe = folder.join(format!(".tmp.{}", ids::uuid()));
    match disk.create_with(&probe, &vec![0; PROBE_BYTES], Some(0o600)) {
        Ok(out) => {
            drop(out);
            let _ = disk.remove_file(&probe);
            true
        }
        Err(error) => HfError::io("write", &probe, &error).code() != Code::DiskFull,
    }
}
