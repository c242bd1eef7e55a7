//! What an earlier process left in the write-ahead log.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::connection::beside;
use super::sql_error;
use super::turn::Turn;
use crate::durable::{IoContext, optional};
use crate::error::{Code, HfError, Result};

/// Puts a log that was found at opening on the disk once more.
///
/// The process before us may have died after a sync that failed. The system then still shows the bytes, calls them clean, and
/// says "ok" to the next sync, although they are not on the disk. Building on them, a power cut could take later commits
/// along, or tear a checkpoint. Written again, the same bytes are dirty again, and the sync tells the truth. Nobody can be in
/// the way: the write lock is held, and readers find what they found before. If the lock is not free, somebody is at work
/// with this log and has done the same when he came. It costs the writing of the log, at most some 16 MB unless a reader
/// kept it from being written back, and only after a crash or beside another process.
pub(super) fn renew(db: &Connection, path: &Path, turn: &mut Turn, timeout: Duration) -> Result<()> {
    let log = beside(path, "-wal");
    let length = optional(std::fs::metadata(&log)).at("stat", &log)?.map_or(0, |metadata| metadata.len());
    if length == 0 {
        return Ok(());
    }
    let sql = |error| sql_error("look at the write-ahead log", error);
    match turn.begin(db, timeout).map_err(sql) {
        Err(error) if error.code() == Code::Busy => return Ok(()),
        result => result?,
    }
    let written = write_again(&log);
    db.execute_batch("ROLLBACK").map_err(sql)?;
    match written {
        // Where even the same bytes need new room (copy-on-write), a full disk must not keep anybody from reading.
        Err(error) if error.code() == Code::DiskFull && !error.is_sync_failure() => Ok(()),
        result => result,
    }
}

fn write_again(log: &Path) -> Result<()> {
    // No lock is ever taken on this file, so closing it gives none up (closing the database file would).
    let mut file = match optional(OpenOptions::new().read(true).write(true).open(log)).at("open", log)? {
        Some(file) => file,
        None => return Ok(()),
    };
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        file.seek(SeekFrom::Start(at)).at("lseek", log)?;
        let count = file.read(&mut buffer).at("read", log)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        file.seek(SeekFrom::Start(at)).at("lseek", log)?;
        file.write_all(bytes).at("write", log)?;
        at += count as u64;
    }
    file.sync_all().at("fsync", log).map_err(HfError::sync_failed)
}
