//! Forking: from any place into a new file.

use std::path::Path;

use super::sqlite::{APPLICATION_ID, MIGRATIONS, open};
use crate::error::Result;
use crate::json;
use crate::session_graph::command::arguments;
use crate::session_graph::fork::{Fork, fork};
use crate::session_graph::sql::Sql;
use crate::session_graph::sql::sqlite::Sqlite;
use crate::sqlite::NewFile;

/// What is done on a snapshot of the old session.
type Work<'a> = &'a mut dyn FnMut(&mut dyn Sql) -> Result<(NewFile, String)>;

/// Makes the file; `on_snapshot` runs what it is given on one snapshot of the old session, perhaps again.
pub(super) fn into_file(
    to: &Path,
    command: &str,
    like: Option<&Path>,
    on_snapshot: impl FnOnce(Work<'_>) -> Result<(NewFile, String)>,
) -> Result<String> {
    let what: Fork = arguments(command, "fork")?;
    let options = open::options(APPLICATION_ID, MIGRATIONS);
    let (file, text) =
        on_snapshot(&mut |from| NewFile::fill("fork", to, &options, |db| fork(from, &mut Sqlite(db), &what)))?;
    let made = file.publish(like)?;
    let text = text.strip_suffix('}').unwrap_or(&text);
    Ok(format!("{text},\"path\":{},\"bytes\":{}}}", json::quote(&made.path.to_string_lossy()), made.bytes))
}
