//! A new database file that appears whole or not at all: a backup, or one that is filled from elsewhere.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};

use super::connection::{beside, immutable, set};
use super::turn::Turn;
use super::{Backup, Options, check, migrate, shrink, sql_error};
use crate::durable::{Disk, IoContext, atomic, optional};
use crate::error::{Code, HfError, Result};
use crate::ids;

/// A file under another name, until it is [published](Self::publish); it goes away when this is dropped.
#[derive(Debug)]
pub struct NewFile {
    disk: Disk,
    /// What it is for messages: "backup".
    word: &'static str,
    path: PathBuf,
    to: PathBuf,
    begun: Instant,
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let _ = self.disk.remove_file(&self.path);
        for suffix in ["-journal", "-wal", "-shm"] {
            let _ = self.disk.remove_file(&beside(&self.path, suffix));
        }
    }
}

impl NewFile {
    /// Makes an empty file beside `to`, which must not exist; `own` is a database that it must not be.
    pub(super) fn begin(word: &'static str, to: &Path, own: Option<&Path>) -> Result<Self> {
        let begun = Instant::now();
        let disk = Disk::real();
        let to = place(&disk, word, own, to)?;
        let path = atomic::folder_of(&to).join(format!(".tmp.{}", ids::uuid()));
        // Nobody but us may read it until it is complete; then whoever may read the database.
        drop(disk.create(&path, Some(0o600)).at("create", &path)?);
        Ok(Self { disk, word, path, to, begun })
    }

    /// Makes a database with our tables, which is to be called `to`, and fills it in one transaction. `word` says what it is, for messages.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if `to` exists already, or files of a database in use stand beside it; what `fill` returns; any I/O
    /// failure. Nothing is left of it then.
    pub fn fill<T>(
        word: &'static str,
        to: &Path,
        options: &Options,
        fill: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<(Self, T)> {
        let this = Self::begin(word, to, None)?;
        let sql = |error| sql_error("make the database", error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&this.path, flags).map_err(sql)?;
        set(&db, options).map_err(sql)?;
        if options.shrinks {
            shrink::prepare(&db).map_err(sql)?;
        }
        // A half-made file is thrown away, and a whole one is synced by us.
        db.pragma_update(None, "journal_mode", "MEMORY").map_err(sql)?;
        db.pragma_update(None, "synchronous", "OFF").map_err(sql)?;
        migrate::migrate(&db, options, &this.path, &mut Turn::new(None))?;
        db.execute_batch("BEGIN IMMEDIATE").map_err(sql)?;
        let filled = fill(&db)?;
        db.execute_batch("COMMIT").map_err(sql)?;
        // As every file of ours is left behind.
        db.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
        db.close().map_err(|(_, error)| sql(error))?;
        Ok((this, filled))
    }

    /// Where it is until it is published.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks it, brings it to the disk, and gives it its name. `like`: the file whose rights it gets.
    ///
    /// # Errors
    /// [`Code::Corrupt`] if it is not sound, [`Code::InvalidArgument`] if the name was taken meanwhile, any I/O failure.
    pub fn publish(self, like: Option<&Path>) -> Result<Backup> {
        let Self { disk, word, path, to, .. } = &self;
        let folder = atomic::folder_of(to);
        let out = disk.reopen(path).at("open", path)?;
        disk.sync_file(&out).at("fsync", path).map_err(HfError::sync_failed)?;
        if let Some(metadata) = like.and_then(|like| disk.metadata(like).ok()) {
            atomic::inherit(&out, &metadata);
        }
        let bytes = out.file.metadata().at("stat", path)?.len();
        drop(out);
        let problems = check::everything(&immutable(path)?)?;
        if let Some(first) = problems.first() {
            let source = like.map_or_else(|| "the database".to_owned(), |like| like.display().to_string());
            let text = format!(
                "the {word} of {source} is not sound ({first}), so it was thrown away: check the database itself"
            );
            return Err(HfError::new(Code::Corrupt, text).with_field("problems", problems.clone()));
        }
        name(disk, word, path, to)?;
        let forgotten = disk.remove_file(path).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error).at("unlink", path),
        });
        let kept = forgotten.and_then(|()| disk.sync_dir(folder).at("fsync", folder).map_err(HfError::sync_failed));
        kept.inspect_err(|_| {
            // Who is told that it failed finds nothing, and can try again.
            let _ = disk.remove_file(to);
        })?;
        Ok(Backup { path: to.clone(), bytes, elapsed: self.begun.elapsed() })
    }
}

fn taken(word: &str) -> String {
    format!("there is a file already, and a {word} replaces none")
}

/// Gives the file its name, unless somebody else took it meanwhile.
fn name(disk: &Disk, word: &str, from: &Path, to: &Path) -> Result<()> {
    match disk.hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(refused(to, word, &taken(word))),
        // Without hard links the name is taken by an empty file of ours, which the new one then replaces.
        Err(_) => match disk.create(to, Some(0o600)) {
            Ok(_) => disk.rename(from, to).at("rename", to).inspect_err(|_| {
                // An empty file would keep the next try out. If it stays, that one says so.
                let _ = disk.remove_file(to);
            }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(refused(to, word, &taken(word))),
            Err(error) => Err(error).at("create", to),
        },
    }
}

fn refused(to: &Path, word: &str, why: &str) -> HfError {
    let doing = if word == "backup" { "back up" } else { word };
    let message = format!("cannot {doing} to {}: {why}; choose another path", to.display());
    HfError::new(Code::InvalidArgument, message)
        .with_argument("path", "the path of a new file", &to.to_string_lossy().into())
        .with_field("path", to.to_string_lossy())
}

/// Checks that a file may be put at `to`, and makes its folder.
fn place(disk: &Disk, word: &str, own: Option<&Path>, to: &Path) -> Result<PathBuf> {
    let refuse = |why: &str| Err(refused(to, word, why));
    let to = std::path::absolute(to).at("resolve", to)?;
    let folder = atomic::folder_of(&to);
    let made = disk.create_dirs(folder).at("mkdir", folder)?;
    crate::durable::sync::dirs(disk, made)?;
    let to = atomic::resolve(disk, &to).at("readlink", &to)?;
    if disk.metadata(&to).is_ok_and(|metadata| !metadata.is_file()) {
        return refuse("there is something else than a file");
    }
    let same = |own: &Path| to == own || to.canonicalize().is_ok_and(|to| to == own);
    if own.is_some_and(same) {
        return refuse("it is the database itself");
    }
    // The log of another database would be taken for the log of the new one.
    if [beside(&to, "-wal"), beside(&to, "-journal")].iter().any(|file| disk.metadata(file).is_ok()) {
        return refuse("a database there is open, or was not closed cleanly");
    }
    if optional(disk.symlink_metadata(&to)).at("stat", &to)?.is_some() {
        return refuse(&taken(word));
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::durable::fault::{Action, FaultPlan, Rule};

    #[test]
    fn what_could_not_be_brought_to_the_disk_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("new.db");
        for op in ["remove", "syncDir"] {
            let mut file = NewFile::begin("fork", &to, None).unwrap();
            let (op, action) = (Some(op.to_owned()), Action::Errno(5));
            let rule = Rule { point: None, op: op.clone(), path_ends: None, nth: 1, action };
            file.disk = Disk::intercepted(Arc::new(FaultPlan::new(vec![rule])));
            assert_eq!(file.publish(None).unwrap_err().code(), Code::Io, "{op:?}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{op:?}");
        }
        NewFile::begin("fork", &to, None).unwrap().publish(None).unwrap();
        assert!(to.exists());
    }
}
