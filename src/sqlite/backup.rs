//! A copy of a running database.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup as Copying, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::connection::{beside, immutable};
use super::shared::Shared;
use super::{check, readers, sql_error};
use crate::durable::{Disk, IoContext, atomic, optional};
use crate::error::{Code, HfError, Result};
use crate::ids;

/// Why a copy is not put over another file.
const TAKEN: &str = "there is a file already, and a backup replaces none";
/// Pages copied between two looks at whether the database was closed meanwhile.
const PAGES_AT_ONCE: i32 = 1_000;

/// A finished backup: copied, checked, and on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// A temporary file. It goes away, also when the copy has its own name.
struct Unfinished<'a> {
    disk: &'a Disk,
    path: PathBuf,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let _ = self.disk.remove_file(&self.path);
        let _ = self.disk.remove_file(&beside(&self.path, "-journal"));
    }
}

pub(super) fn run(shared: &Shared, to: &Path) -> Result<Backup> {
    let begun = Instant::now();
    let disk = Disk::real();
    let to = place(&disk, shared, to)?;
    let folder = atomic::folder_of(&to);
    let copy = Unfinished { disk: &disk, path: folder.join(format!(".tmp.{}", ids::uuid())) };
    // Nobody but us may read it until it is complete; then whoever may read the database.
    drop(disk.create(&copy.path, Some(0o600)).at("create", &copy.path)?);
    readers::read(shared, |source| pages(shared, source, &copy.path))?;
    let out = disk.reopen(&copy.path).at("open", &copy.path)?;
    disk.sync_file(&out).at("fsync", &copy.path).map_err(HfError::sync_failed)?;
    if let Some(metadata) = shared.path.as_ref().and_then(|own| disk.metadata(own).ok()) {
        atomic::inherit(&out, &metadata);
    }
    let bytes = out.file.metadata().at("stat", &copy.path)?.len();
    drop(out);
    let problems = check::everything(&immutable(&copy.path)?)?;
    if let Some(first) = problems.first() {
        return Err(HfError::new(
            Code::Corrupt,
            format!(
                "the copy of {} is not sound ({first}), so it was thrown away: check the database itself",
                shared.name()
            ),
        )
        .with_field("problems", problems.clone()));
    }
    publish(&disk, &copy.path, &to)?;
    drop(copy);
    disk.sync_dir(folder).at("fsync", folder).map_err(HfError::sync_failed)?;
    Ok(Backup { path: to.clone(), bytes, elapsed: begun.elapsed() })
}

/// Gives the copy its name, unless somebody else took it meanwhile.
fn publish(disk: &Disk, copy: &Path, to: &Path) -> Result<()> {
    match disk.hard_link(copy, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(refused(to, TAKEN)),
        // Without hard links the name is taken by an empty file of ours, which the copy then replaces.
        Err(_) => match disk.create(to, Some(0o600)) {
            Ok(_) => disk.rename(copy, to).at("rename", to),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(refused(to, TAKEN)),
            Err(error) => Err(error).at("create", to),
        },
    }
}

fn refused(to: &Path, why: &str) -> HfError {
    let message = format!("cannot back up to {}: {why}; choose another path", to.display());
    HfError::new(Code::InvalidArgument, message)
        .with_argument("path", "the path of a new file", &to.to_string_lossy().into())
        .with_field("path", to.to_string_lossy())
}

/// Checks that a file may be put at `to`, and makes its folder.
fn place(disk: &Disk, shared: &Shared, to: &Path) -> Result<PathBuf> {
    let refuse = |why: &str| Err(refused(to, why));
    let to = std::path::absolute(to).at("resolve", to)?;
    let folder = atomic::folder_of(&to);
    let made = disk.create_dirs(folder).at("mkdir", folder)?;
    crate::durable::sync::dirs(disk, made)?;
    let to = atomic::resolve(disk, &to).at("readlink", &to)?;
    if disk.metadata(&to).is_ok_and(|metadata| !metadata.is_file()) {
        return refuse("there is something else than a file");
    }
    let same = |own: &PathBuf| to == *own || to.canonicalize().is_ok_and(|to| to == *own);
    if shared.path.as_ref().is_some_and(same) {
        return refuse("it is the database itself");
    }
    // The log of another database would be taken for the log of the copy.
    if [beside(&to, "-wal"), beside(&to, "-journal")].iter().any(|file| disk.metadata(file).is_ok()) {
        return refuse("a database there is open, or was not closed cleanly");
    }
    if optional(disk.symlink_metadata(&to)).at("stat", &to)?.is_some() {
        return refuse(TAKEN);
    }
    Ok(to)
}

/// Copies all pages as they are at one moment. The writer is not held up; only its log grows until this is done.
fn pages(shared: &Shared, source: &Connection, to: &Path) -> Result<()> {
    let sql = |error| sql_error("back up the database", error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags(to, flags).map_err(sql)?;
    // A half-made copy is thrown away, and a whole one is synced by us.
    target.pragma_update(None, "journal_mode", "OFF").map_err(sql)?;
    target.pragma_update(None, "synchronous", "OFF").map_err(sql)?;
    // One snapshot for the whole copy: otherwise every commit would begin it anew.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").map_err(sql)?;
    let copied = (|| {
        let copying = Copying::new(source, &mut target).map_err(sql)?;
        loop {
            match copying.step(PAGES_AT_ONCE).map_err(sql)? {
                StepResult::Done => return Ok(()),
                StepResult::More => {}
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
            shared.usable()?;
        }
    })();
    source.execute_batch("ROLLBACK").map_err(sql)?;
    copied?;
    target.close().map_err(|(_, error)| sql(error))
}
