//! A copy of a running database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup as Copying, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::fresh::NewFile;
use super::shared::Shared;
use super::{readers, sql_error};
use crate::error::Result;

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

pub(super) fn run(shared: &Shared, to: &Path) -> Result<Backup> {
    let copy = NewFile::begin("backup", to, shared.path.as_deref())?;
    readers::read(shared, |source| pages(shared, source, copy.path()))?;
    copy.publish(shared.path.as_deref())
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
