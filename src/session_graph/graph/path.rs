//! Reading nodes.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::session_graph::error::{graph_corrupt, record_decode};
use crate::session_graph::sql::{EachBody, Sql, Value, first};

const WALK: &str = "WITH RECURSIVE walk (seq, parent_seq) AS (
       SELECT seq, parent_seq FROM graph_nodes WHERE node_id = ?1 AND tombstoned = 0
       UNION SELECT n.seq, n.parent_seq FROM walk w JOIN graph_nodes n ON n.seq = w.parent_seq WHERE n.tombstoned = 0)
     SELECT seq, parent_seq FROM walk";
/// A server that has not counted a table yet takes it for a small one, and would read all of the session for each node of the path. Where
/// `OFFSET 0` stands, it has to look each one up.
const WALK_LOOKING_UP: &str = "WITH RECURSIVE walk (seq, parent_seq) AS (
       SELECT seq, parent_seq FROM graph_nodes WHERE node_id = ?1 AND tombstoned = 0
       UNION SELECT n.seq, n.parent_seq FROM walk w CROSS JOIN LATERAL (
         SELECT n.seq, n.parent_seq FROM graph_nodes n WHERE n.seq = w.parent_seq AND n.tombstoned = 0 OFFSET 0) AS n)
     SELECT seq, parent_seq FROM walk";
const FULL: &str = "SELECT n.seq, b.node_json FROM graph_nodes n LEFT JOIN graph_bodies b ON b.seq = n.seq
     WHERE n.tombstoned = 0 ORDER BY n.seq";
const FULL_LOOKING_UP: &str = "SELECT n.seq, b.node_json FROM graph_nodes n
     LEFT JOIN LATERAL (SELECT b.node_json FROM graph_bodies b WHERE b.seq = n.seq OFFSET 0) AS b ON true
     WHERE n.tombstoned = 0 ORDER BY n.seq";

/// The nodes from the root to `leaf`, by `seq`: up to the first parent that is missing or hidden. None where the leaf itself is.
pub(crate) fn path(sql: &mut dyn Sql, leaf: &str) -> Result<Vec<i64>> {
    let mut links = HashMap::new();
    let mut start = None;
    sql.rows(
        "walk to the root",
        if sql.is_embedded() { WALK } else { WALK_LOOKING_UP },
        &[Value::Text(leaf)],
        &mut |row| {
            let seq = row.int(0)?;
            start.get_or_insert(seq);
            links.insert(seq, row.opt_int(1)?);
            Ok(true)
        },
    )?;
    let Some(start) = start else { return Ok(Vec::new()) };
    let mut path = Vec::with_capacity(links.len());
    let mut at = Some(start);
    while let Some(seq) = at {
        // Each node is taken out: who comes back to one finds it gone.
        let Some(parent) = links.remove(&seq) else {
            if path.contains(&seq) {
                return Err(graph_corrupt(leaf, "has a circle among its ancestors"));
            }
            break;
        };
        path.push(seq);
        at = parent;
    }
    path.reverse();
    Ok(path)
}

/// Hands all nodes that are not hidden to `each`, in the order in which they were stored.
pub(crate) fn full(sql: &mut dyn Sql, each: EachBody<'_>) -> Result<()> {
    sql.rows("read nodes", if sql.is_embedded() { FULL } else { FULL_LOOKING_UP }, &[], &mut |row| {
        each(row.int(0)?, row.opt_text(1))?;
        Ok(true)
    })
}

/// The JSON of one node; `None` for an unknown and a hidden one.
pub(crate) fn stored_node(sql: &mut dyn Sql, id: &str) -> Result<Option<String>> {
    first(
        sql,
        "read a node",
        "SELECT b.node_json FROM graph_nodes n LEFT JOIN graph_bodies b ON b.seq = n.seq
         WHERE n.node_id = ?1 AND n.tombstoned = 0",
        &[Value::Text(id)],
        |row| match row.opt_string(0) {
            Ok(Some(text)) if crate::json::validate(text.as_bytes()).is_ok() => Ok(text),
            Ok(Some(_)) => Err(record_decode("graph_bodies", id, "it is no JSON")),
            Ok(None) => Err(record_decode("graph_bodies", id, "it is missing")),
            Err(_) => Err(record_decode("graph_bodies", id, "it is no text")),
        },
    )
}

/// Nodes whose links go round in a circle, at most one of each.
pub(crate) fn circles(sql: &mut dyn Sql) -> Result<Vec<String>> {
    let mut links: HashMap<i64, (String, Option<i64>)> = HashMap::new();
    let statement = "SELECT seq, node_id, parent_seq FROM graph_nodes";
    sql.rows("look for circles", statement, &[], &mut |row| {
        links.insert(row.int(0)?, (row.string(1)?, row.opt_int(2)?));
        Ok(true)
    })?;
    let mut done = HashSet::new();
    let mut found = Vec::new();
    for start in links.keys() {
        let mut walk = HashSet::new();
        let mut at = Some(*start);
        while let Some(seq) = at {
            if done.contains(&seq) {
                break;
            }
            let Some((id, parent)) = links.get(&seq) else { break };
            if !walk.insert(seq) {
                found.push(id.clone());
                break;
            }
            at = *parent;
        }
        done.extend(walk);
    }
    found.sort_unstable();
    Ok(found)
}
