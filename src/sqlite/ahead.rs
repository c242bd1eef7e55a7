//! Room in the write-ahead log ahead of the commits.
//!
//! Where a commit makes the log longer, its sync has to record the new length and the new blocks as well, which here takes as long
//! again as the bytes do. Over bytes that are there it need not. So zeros are written behind the log's end, in large pieces, after a
//! commit was told of: the next sync takes them along. SQLite stops reading a log where a frame is none, and zeros are none.
//!
//! Nobody else's frames can be hit: the write lock is held meanwhile, and what is there is never written over.

use std::fs::OpenOptions;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::checkpoint::LOG_BYTES_KEPT;
use super::connection::beside;
use super::shared::Shared;
use super::{Synchronous, sql_error};
use crate::error::Result;

/// A page and what stands before it.
const FRAME: u64 = 4096 + 24;
/// Room that there should be: for two usual commits.
const WANTED: u64 = 128 << 10;
/// A piece is as long as the log, within these: a log that stays short is not to cost much.
const PIECE_MIN: u64 = 256 << 10;
const PIECE_MAX: u64 = 1 << 20;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What is known of the log's room.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The length of the file, or less.
    length: u64,
    /// The end of the log after the last commit.
    used: u64,
    /// It failed once: on a full disk the room is needed for better things.
    gave_up: bool,
}

impl Ahead {
    /// Runs after each batch, when its jobs have been told.
    ///
    /// # Errors
    /// Of the database only: room is never worth an error.
    pub(super) fn after_batch(&mut self, db: &Connection, shared: &Shared) -> Result<()> {
        let Some(path) = shared.path.as_deref() else { return Ok(()) };
        let used = u64::from(shared.log_frames.load(Ordering::Relaxed)) * FRAME;
        if used < self.used {
            // It started over, and perhaps was cut.
            self.length = 0;
        }
        let grew = used != self.used;
        self.used = used;
        let pointless = !grew || used + WANTED <= self.length || used + WANTED > LOG_BYTES_KEPT.unsigned_abs();
        if pointless || self.gave_up || shared.options.synchronous != Synchronous::Full || !shared.options.log_ahead {
            return Ok(());
        }
        // Whoever has the lock makes room for himself.
        if shared.begin_at_once(db).is_err() {
            return Ok(());
        }
        match make(&beside(path, "-wal"), used) {
            Ok(length) => self.length = length,
            Err(_) => self.gave_up = true,
        }
        db.execute_batch("ROLLBACK").map_err(|error| sql_error("end a transaction", error))
    }
}

/// Sees to it that the file is longer than `used`; returns its length.
fn make(log: &Path, used: u64) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).open(log)?;
    let mut length = file.seek(SeekFrom::End(0))?;
    let wanted = if length >= used + WANTED { length } else { length.max(used) + used.clamp(PIECE_MIN, PIECE_MAX) };
    while length < wanted {
        let piece = usize::try_from(wanted - length).unwrap_or(ZEROS.len()).min(ZEROS.len());
        let written = file.write(ZEROS.get(..piece).unwrap_or(&ZEROS))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        length += written as u64;
    }
    Ok(length)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_behind_the_end_and_what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, [7; 10_000]).unwrap();
        assert_eq!(make(&path, 10_000).unwrap(), 10_000 + PIECE_MIN);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.iter().take(10_000).all(|byte| *byte == 7));
        assert!(bytes.iter().skip(10_000).all(|byte| *byte == 0));
        // Enough for now.
        assert_eq!(make(&path, 20_000).unwrap(), 10_000 + PIECE_MIN);
        let used = bytes.len() as u64 - 10;
        assert_eq!(make(&path, used).unwrap(), bytes.len() as u64 + used);
        assert!(make(&folder.path().join("none"), 1).is_err());
    }
}
