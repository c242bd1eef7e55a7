//! Names of blobs; what has a name is kept.

use super::blobs;
use crate::error::Result;
use crate::session_graph::blob::Packed;
use crate::session_graph::error::missing_blob;
use crate::session_graph::sql::{Sql, Value, first};

/// Stores a blob under a name.
pub(crate) fn put(sql: &mut dyn Sql, name: &str, packed: &Packed) -> Result<()> {
    let now = sql.now()?;
    blobs::put(sql, packed, now)?;
    let values = [Value::Text(name), Value::Text(&packed.hash)];
    let changed = sql.run("name a blob", "UPDATE artifact_refs SET blob_ref = ?2 WHERE artifact_ref = ?1", &values)?;
    if changed == 0 {
        sql.run("name a blob", "INSERT INTO artifact_refs (artifact_ref, blob_ref) VALUES (?1, ?2)", &values)?;
    }
    Ok(())
}

/// Reads the blob of a name.
pub(crate) fn get(sql: &mut dyn Sql, name: &str) -> Result<Option<Vec<u8>>> {
    let statement = "SELECT blob_ref FROM artifact_refs WHERE artifact_ref = ?1";
    let Some(reference) = first(sql, "look for a name", statement, &[Value::Text(name)], |row| row.string(0))? else {
        return Ok(None);
    };
    match blobs::get(sql, &reference, "artifact")? {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(missing_blob(&reference, "artifact")),
    }
}
