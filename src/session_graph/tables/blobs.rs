//! Content by its hash.

use super::info;
use crate::error::Result;
use crate::session_graph::blob::{self, Packed};
use crate::session_graph::error::missing_blob;
use crate::session_graph::sql::{Sql, Value, first};

/// Stores a blob. Of one that is stored already only the age begins anew.
pub(crate) fn put(sql: &mut dyn Sql, packed: &Packed, now: i64) -> Result<()> {
    let length = i64::try_from(packed.content.len()).unwrap_or(i64::MAX);
    if sql.pipelines() {
        return sql.post(
            "store a blob",
            "WITH added AS (
               INSERT INTO blobs (hash, kind, codec, raw_len, created_at_ms, content) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT DO NOTHING RETURNING 1),
             aged AS (
               UPDATE blobs SET created_at_ms = ?5
               WHERE hash = ?1 AND created_at_ms <> ?5 AND NOT EXISTS (SELECT FROM added))
             UPDATE store_info SET blob_bytes = blob_bytes + ?7 WHERE EXISTS (SELECT FROM added)",
            &[
                Value::Text(&packed.hash),
                Value::Text(&packed.kind),
                Value::Int(packed.codec),
                Value::Int(packed.raw_len),
                Value::Int(now),
                Value::Bytes(&packed.content),
                Value::Int(length),
            ],
        );
    }
    let added = sql.run(
        "store a blob",
        "INSERT INTO blobs (hash, kind, codec, raw_len, created_at_ms, content) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO NOTHING",
        &[
            Value::Text(&packed.hash),
            Value::Text(&packed.kind),
            Value::Int(packed.codec),
            Value::Int(packed.raw_len),
            Value::Int(now),
            Value::Bytes(&packed.content),
        ],
    )?;
    if added > 0 {
        return info::add_bytes(sql, length);
    }
    sql.run(
        "store a blob",
        "UPDATE blobs SET created_at_ms = ?2 WHERE hash = ?1 AND created_at_ms <> ?2",
        &[Value::Text(&packed.hash), Value::Int(now)],
    )
    .map(drop)
}

/// Reads a blob and compares it with its name; `None` if there is none. `component` says what it is read for.
pub(crate) fn get(sql: &mut dyn Sql, reference: &str, component: &str) -> Result<Option<Vec<u8>>> {
    let found = first(
        sql,
        "read a blob",
        "SELECT codec, raw_len, content FROM blobs WHERE hash = ?1",
        &[Value::Text(reference)],
        |row| Ok(blob::unpack(reference, component, row.int(0)?, row.int(1)?, row.bytes(2)?)),
    )?;
    found.transpose()
}

/// Requires that a blob is stored.
pub(crate) fn require(sql: &mut dyn Sql, reference: &str, component: &str) -> Result<()> {
    let statement = "SELECT codec FROM blobs WHERE hash = ?1";
    match first(sql, "look for a blob", statement, &[Value::Text(reference)], |row| row.int(0))? {
        Some(_) => Ok(()),
        None => Err(missing_blob(reference, component)),
    }
}
