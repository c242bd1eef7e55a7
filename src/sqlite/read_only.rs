//! A database that this process only looks at.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags};

use super::connection::{beside, explained, immutable, set};
use super::error::sqlite_code;
use super::migrate::Identity;
use super::{Options, migrate, sql_error};
use crate::durable::{IoContext, atomic};
use crate::error::{Code, HfError, Result};

/// Connections that are kept while nobody reads.
const IDLE_MAX: usize = 4;

/// A file that is opened to be read: it is neither made, nor migrated, nor changed. What other processes commit is seen by the next
/// read. SQLite may make its `-wal` and `-shm` beside it; where it cannot, and there is no log with something in it, the file is
/// taken for one that never changes.
pub struct ReadOnly {
    path: PathBuf,
    options: Options,
    /// What the file looked like when it was taken for one that does not change.
    frozen: Option<Seen>,
    idle: Mutex<Option<Vec<Connection>>>,
}

/// What tells whether somebody wrote to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    length: u64,
    written: Option<SystemTime>,
}

impl Seen {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { length: metadata.len(), written: metadata.modified().ok() })
    }
}

impl std::fmt::Debug for ReadOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ReadOnly").field(&self.path).finish()
    }
}

impl ReadOnly {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Code::Io`] with Node's `ENOENT` where there is none; [`Code::InvalidArgument`] for a folder, or the file of another
    /// application; [`Code::FormatTooNew`]; [`Code::Corrupt`]; [`Code::Database`] if migrations are missing; [`Code::Busy`].
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        Self::open_as(path, options, false)
    }

    /// As [`ReadOnly::open`], and leaves nothing beside the file where nothing is: then nobody has it open, and it is taken for one
    /// that does not change. Should somebody
    /// begin to write all the same, a read notices and is done again, as [`ReadOnly::open`] would.
    ///
    /// # Errors
    /// As [`ReadOnly::open`].
    pub fn peek(path: &Path, options: Options) -> Result<Self> {
        Self::open_as(path, options, true)
    }

    fn open_as(path: &Path, options: Options, peeks: bool) -> Result<Self> {
        let path = std::path::absolute(path).at("resolve", path)?;
        let path = path.canonicalize().at("open", &path)?;
        if !std::fs::metadata(&path).at("stat", &path)?.is_file() {
            return Err(HfError::new(
                Code::InvalidArgument,
                format!("cannot open {} as a database: it is no file; choose the path of one", path.display()),
            )
            .with_field("path", path.to_string_lossy()));
        }
        let seen = Seen::of(&path).at("stat", &path)?;
        let log = std::fs::metadata(beside(&path, "-wal")).is_ok_and(|metadata| metadata.len() > 0);
        let is_frozen = !log && (!writable(atomic::folder_of(&path)) || (peeks && is_alone(&path)));
        let frozen = is_frozen.then_some(seen);
        let this = Self { path, options, frozen, idle: Mutex::new(Some(Vec::new())) };
        let looked = this.read(|db| {
            let found = migrate::identify(db)?;
            migrate::verify(found, &this.options, &this.path)?;
            let complete = found.application_id == this.options.application_id
                && found.user_version == this.options.migrations.last().map_or(0, |last| last.version);
            if complete { Ok(()) } else { Err(migrate::missing(found, &this.options, &this.path)) }
        });
        match looked {
            Ok(()) => Ok(this),
            // A process was killed in the middle of a change that has no log yet, and SQLite lets only a writer undo it.
            Err(error) if sqlite_code(&error) == Some(rusqlite::ffi::SQLITE_READONLY_ROLLBACK) => {
                Err(if undoes_everything(&this.path) {
                    migrate::missing(Identity::EMPTY, &this.options, &this.path)
                } else {
                    unfinished(&error, &this.path)
                })
            }
            Err(error) => Err(error),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<Connection>>> {
        // Nothing that can panic runs under this lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, is_frozen: bool) -> Result<Connection> {
        let db = if is_frozen {
            immutable(&self.path)?
        } else {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Connection::open_with_flags(&self.path, flags)
                .map_err(|error| explained(sql_error("open the database for reading", error), &self.path))?
        };
        let patience = if is_frozen { Duration::ZERO } else { self.options.busy_timeout };
        db.busy_timeout(patience)
            .and_then(|()| set(&db, &self.options))
            .map_err(|error| explained(sql_error("open the database for reading", error), &self.path))?;
        Ok(db)
    }

    /// Reads on the calling thread. For several statements that must see the same, begin with `unchecked_transaction`. `f` is called
    /// again where the file was taken for one that does not change, and changed.
    ///
    /// # Errors
    /// What `f` returns, [`Code::Closed`], or a connection that cannot be opened.
    pub fn read<T>(&self, mut f: impl FnMut(&Connection) -> Result<T>) -> Result<T> {
        let outcome = self.read_once(&mut f);
        let Some(seen) = self.frozen else { return outcome };
        let has_changed = Seen::of(&self.path).ok() != Some(seen);
        // Beside a writer even a file that looks the same may have been half written when it was read.
        let may_be_torn = match &outcome {
            Ok(_) => has_changed,
            Err(error) => error.code() != Code::Closed && (has_changed || !is_alone(&self.path)),
        };
        if !may_be_torn {
            return outcome;
        }
        // Who wrote is gone again: nothing need be left beside the file.
        if is_alone(&self.path)
            && let Ok(seen) = Seen::of(&self.path)
        {
            let again = self.connect(true).and_then(|db| f(&db));
            if is_alone(&self.path) && Seen::of(&self.path).ok() == Some(seen) {
                return again.map_err(|error| super::error::located(error, Some(&self.path)));
            }
        }
        let again = self.connect(false).and_then(|db| f(&db));
        let again = again.map_err(|error| super::error::located(error, Some(&self.path)));
        // Where SQLite cannot make the files that it needs beside one that changes, the first answer is all there is.
        if again.as_ref().is_err_and(|error| error.code() == Code::Io) { outcome } else { again }
    }

    fn read_once<T>(&self, f: &mut impl FnMut(&Connection) -> Result<T>) -> Result<T> {
        let kept = match &mut *self.idle() {
            Some(idle) => idle.pop(),
            None => {
                return Err(HfError::new(Code::Closed, format!("{} is closed; open it again", self.path.display())));
            }
        };
        let db = kept.map_or_else(|| self.connect(self.frozen.is_some()), Ok)?;
        let result = f(&db).map_err(|error| super::error::located(error, Some(&self.path)));
        let mut idle = self.idle();
        match &mut *idle {
            // What a frozen one has in memory may be of before a change.
            Some(idle) if self.frozen.is_none() && idle.len() < IDLE_MAX && db.is_autocommit() => idle.push(db),
            // Closed after the lock is given back.
            _ => {
                drop(idle);
                drop(db);
            }
        }
        result
    }

    /// Closes all connections that nobody uses, and the others when their read is over. Later reads fail.
    pub fn close(&self) {
        let idle = self.idle().take();
        drop(idle);
    }

    /// Returns where the file is, with links followed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks the whole file, as [`Database::check`](super::Database::check).
    ///
    /// # Errors
    /// As [`ReadOnly::read`].
    pub fn check(&self) -> Result<Vec<String>> {
        self.read(super::check::everything)
    }
}

/// Whether nobody has the file open, and nobody left a log or a journal.
fn is_alone(path: &Path) -> bool {
    ["-wal", "-shm", "-journal"].iter().all(|suffix| !beside(path, suffix).exists())
}

/// Whether the journal beside a file says that the file was empty before the change: that is how SQLite makes one.
fn undoes_everything(path: &Path) -> bool {
    const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let mut header = [0; 20];
    let read = std::fs::File::open(beside(path, "-journal")).and_then(|mut file| file.read_exact(&mut header));
    // Behind the magic: how many pages follow, a nonce, and how many pages the file had.
    read.is_ok() && header.starts_with(&MAGIC) && header.ends_with(&[0; 4])
}

/// Says who can undo a change that was cut short.
fn unfinished(error: &HfError, path: &Path) -> HfError {
    let shown = path.display();
    let text = format!(
        "a change of {shown} was cut short, and only a writer can undo it; open it once to write, then read it"
    );
    HfError::new(Code::Io, text)
        .with_field("path", path.to_string_lossy())
        .with_field("reason", "unfinished")
        .with_field("sqliteCode", sqlite_code(error))
}

/// Whether SQLite can make files in `folder`.
fn writable(folder: &Path) -> bool {
    #[cfg(unix)]
    {
        use rustix::fs::{Access, access};
        access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
    }
    #[cfg(not(unix))]
    {
        !std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().readonly())
    }
}
