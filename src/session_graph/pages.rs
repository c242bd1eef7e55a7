//! Reading nodes page by page, for graphs that do not fit into memory.

use serde::Deserialize;

use super::load::{Reply, Slabs};
use super::sql::{Sql, Value};
use crate::error::Result;

/// A page ends with the node that makes it so long.
const PAGE_BYTES: usize = 1024 * 1024;

/// Which nodes.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    /// Those behind this place.
    after: i64,
    /// Most of them.
    limit: i64,
}

/// Nodes that are not hidden, in the order in which they were stored. `{"seqs":[…],"slabs":[…],"more":…}`.
pub(crate) fn page(sql: &mut dyn Sql, page: &Page) -> Result<Reply> {
    let mut nodes = Slabs::new(true);
    let mut seqs: Vec<String> = Vec::new();
    sql.rows(
        "read nodes",
        "SELECT n.seq, b.node_json FROM graph_nodes n LEFT JOIN graph_bodies b ON b.seq = n.seq
         WHERE n.tombstoned = 0 AND n.seq > ?1 ORDER BY n.seq LIMIT ?2",
        &[Value::Int(page.after), Value::Int(page.limit)],
        &mut |row| {
            let seq = row.int(0)?;
            nodes.add(seq, row.opt_text(1), &mut super::load::Problems::default())?;
            seqs.push(seq.to_string());
            Ok(nodes.len() < PAGE_BYTES)
        },
    )?;
    let more = seqs.len() as i64 == page.limit || nodes.len() >= PAGE_BYTES;
    let (slab, lengths) = nodes.finish();
    let lengths: Vec<String> = lengths.iter().map(usize::to_string).collect();
    let text = format!("{{\"seqs\":[{}],\"slabs\":[{}],\"more\":{more}}}", seqs.join(","), lengths.join(","));
    Ok(Reply { text, parts: vec![slab] })
}
