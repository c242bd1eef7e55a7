//! Room in the write-ahead log ahead of the commits.
//!
//! Where a commit makes the log longer, its sync has to record the new length and the new blocks as well, which here takes as long
//! again as the bytes do. Over bytes that are there it need not. So zeros are written behind the log's end, in large pieces, after a
//! commit was told of: the next sync takes them along. SQLite stops reading a log where a frame is none, and zeros are none.
//!
//! Nobody else's frames can be hit: the write lock is held meanwhile, what is there is never written over, and the file must be the
//! one that SQLite opened: at that name may stand the log of another database by now, whose lock we do not have.
//!
//! Only on Linux: elsewhere nobody has measured what it brings.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::checkpoint::LOG_BYTES_KEPT;
use super::connection::beside;
use super::shared::Shared;
use super::writer::moved;
use super::{Synchronous, sql_error};
use crate::error::Result;

/// A page and what stands before it.
const FRAME: u64 = 4096 + 24;
/// A log that has not grown by that much since the database was opened gets no room: who opens, commits and closes would pay for it.
const BEGIN: u64 = 32 * FRAME;
/// Room that there should be: for two usual commits.
const WANTED: u64 = 128 << 10;
/// A piece is as long as the log, within these: a log that stays short is not to cost much.
const PIECE_MIN: u64 = 256 << 10;
const PIECE_MAX: u64 = 1 << 20;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Device and inode.
type Identity = (u64, u64);

/// What is known of the log's room.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The log that SQLite has open; `None` where no room is made.
    log: Option<(PathBuf, Identity)>,
    /// The end of the log after the first commit, or where it started over.
    begun: Option<u64>,
    /// The length of the file, or less.
    length: u64,
    /// The end of the log after the last commit.
    used: u64,
    /// It failed since the log started over: on a full disk the room is needed for better things.
    gave_up: bool,
}

impl Ahead {
    /// Begins with a database that was opened a moment ago: what is its log now stays it as long as it is open.
    pub(super) fn new(shared: &Shared) -> Self {
        let is_wanted = shared.options.log_ahead && shared.options.synchronous == Synchronous::Full;
        let found = |path: &Path| {
            let log = beside(path, "-wal");
            let identity = identity(&std::fs::metadata(&log).ok()?)?;
            // Looked at after the log: the file is still ours, so that was its log.
            let connection = shared.connection();
            moved(connection.as_ref()?, shared).is_ok().then_some((log, identity))
        };
        Self { log: shared.path.as_deref().filter(|_| is_wanted).and_then(found), ..Self::default() }
    }

    /// Runs after each batch, when its jobs have been told.
    ///
    /// # Errors
    /// Of the database only: room is never worth an error.
    pub(super) fn after_batch(&mut self, db: &Connection, shared: &Shared) -> Result<()> {
        let Some((log, identity)) = &self.log else { return Ok(()) };
        let used = u64::from(shared.log_frames.load(Ordering::Relaxed)) * FRAME;
        if used == 0 {
            return Ok(());
        }
        if used < self.used {
            // It started over, and perhaps was cut; perhaps there is room on the disk again.
            self.begun = Some(0);
            self.length = 0;
            self.gave_up = false;
        }
        let grew = used != self.used;
        self.used = used;
        let is_short = used < *self.begun.get_or_insert(used) + BEGIN;
        let pointless = !grew || used + WANTED <= self.length || used + WANTED > LOG_BYTES_KEPT.unsigned_abs();
        if pointless || is_short || self.gave_up {
            return Ok(());
        }
        // Whoever has the lock makes room for himself.
        if shared.begin_at_once(db).is_err() {
            return Ok(());
        }
        // The next batch says that the file was moved.
        let made = moved(db, shared).ok().and_then(|()| make(log, *identity, used).ok());
        match made {
            Some(length) => self.length = length,
            None => self.gave_up = true,
        }
        db.execute_batch("ROLLBACK").map_err(|error| sql_error("end a transaction", error))
    }
}

#[cfg(target_os = "linux")]
fn identity(metadata: &Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(target_os = "linux"))]
fn identity(_metadata: &Metadata) -> Option<Identity> {
    None
}

/// Sees to it that the file is longer than `used`, if it still is so long; returns its length.
fn make(log: &Path, expected: Identity, used: u64) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).open(log)?;
    if identity(&file.metadata()?) != Some(expected) {
        return Err(io::Error::other("another file has taken the place of the log"));
    }
    let mut length = file.seek(SeekFrom::End(0))?;
    // One that is shorter was cut by another process since our commit, and begins anew: there is nothing to make room behind.
    let wanted =
        if length < used || length >= used + WANTED { length } else { used + used.clamp(PIECE_MIN, PIECE_MAX) };
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

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use super::*;

    fn of(path: &Path) -> Option<Identity> {
        identity(&std::fs::metadata(path).ok()?)
    }

    #[test]
    fn room_is_made_behind_the_end_and_what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, [7; 10_000]).unwrap();
        let log = of(&path).unwrap();
        assert_eq!(make(&path, log, 10_000).unwrap(), 10_000 + PIECE_MIN);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.iter().take(10_000).all(|byte| *byte == 7));
        assert!(bytes.iter().skip(10_000).all(|byte| *byte == 0));
        // Enough for now.
        assert_eq!(make(&path, log, 20_000).unwrap(), 10_000 + PIECE_MIN);
        let used = bytes.len() as u64 - 10;
        assert_eq!(make(&path, log, used).unwrap(), used + used);
        assert!(make(&folder.path().join("none"), log, 1).is_err());
    }

    #[test]
    fn a_log_that_was_cut_or_is_another_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("log"), folder.path().join("other"));
        std::fs::write(&path, [7; 1000]).unwrap();
        let log = of(&path).unwrap();
        assert_eq!(make(&path, log, 16 << 20).unwrap(), 1000, "somebody cut it");
        std::fs::write(&other, [8; 10_000]).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(make(&path, log, 10_000).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), [8; 10_000]);
    }
}
