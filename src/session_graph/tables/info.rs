//! Counters.

use crate::error::Result;
use crate::session_graph::error::record_decode;
use crate::session_graph::sql::{Sql, Value, all, first};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) live_nodes: i64,
    pub(crate) tombstoned_nodes: i64,
    pub(crate) blob_bytes: i64,
}

/// Reads the counters.
pub(crate) fn get(sql: &mut dyn Sql) -> Result<Info> {
    let found = first(
        sql,
        "read the counters",
        "SELECT live_nodes, tombstoned_nodes, blob_bytes FROM store_info",
        &[],
        |row| Ok(Info { live_nodes: row.int(0)?, tombstoned_nodes: row.int(1)?, blob_bytes: row.int(2)? }),
    )?;
    found.ok_or_else(|| record_decode("store_info", "1", "it is missing"))
}

/// Counts what a commit adds.
pub(crate) fn add(sql: &mut dyn Sql, live_nodes: i64, blob_bytes: i64) -> Result<()> {
    if live_nodes == 0 && blob_bytes == 0 {
        return Ok(());
    }
    let statement = "UPDATE store_info SET live_nodes = live_nodes + ?1, blob_bytes = blob_bytes + ?2";
    sql.post("count nodes and bytes", statement, &[Value::Int(live_nodes), Value::Int(blob_bytes)])
}

/// Counts nodes.
pub(crate) fn add_nodes(sql: &mut dyn Sql, live: i64, tombstoned: i64) -> Result<()> {
    let statement = "UPDATE store_info SET live_nodes = live_nodes + ?1, tombstoned_nodes = tombstoned_nodes + ?2";
    sql.post("count nodes", statement, &[Value::Int(live), Value::Int(tombstoned)])
}

/// Sets how many nodes there are.
pub(crate) fn set_nodes(sql: &mut dyn Sql, live: i64, tombstoned: i64) -> Result<()> {
    let statement = "UPDATE store_info SET live_nodes = ?1, tombstoned_nodes = ?2";
    sql.post("count nodes", statement, &[Value::Int(live), Value::Int(tombstoned)])
}

/// Counts the bytes of blobs.
pub(crate) fn add_bytes(sql: &mut dyn Sql, bytes: i64) -> Result<()> {
    let statement = "UPDATE store_info SET blob_bytes = blob_bytes + ?1";
    sql.post("count bytes", statement, &[Value::Int(bytes)])
}

/// Returns the next fencing token: larger than all before.
pub(crate) fn next_fencing(sql: &mut dyn Sql) -> Result<i64> {
    let statement = "UPDATE store_info SET next_fencing = next_fencing + 1 RETURNING next_fencing";
    let found = all(sql, "fence a claim", statement, &[], |row| row.int(0))?;
    found.first().copied().ok_or_else(|| record_decode("store_info", "1", "it is missing"))
}
