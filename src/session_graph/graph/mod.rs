//! Nodes and their links. A node's place in the order is its `seq`; `parent_seq` repeats the link to the parent as a number, so that a
//! walk reads small rows only. The payloads are in a table of their own.

mod links;
mod path;
mod replace;

use std::collections::{HashMap, HashSet};

pub(crate) use path::{circles, full, path, stored_node};
pub(crate) use replace::replace;

use super::error::{cycle, node_collision, unknown_leaf};
use super::sql::{Sql, Value, first};
use super::tables::info;
use crate::error::Result;

/// A node to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewNode {
    pub(crate) id: String,
    pub(crate) parent: Option<String>,
    /// The JSON of all of it.
    pub(crate) text: String,
}

/// Returns the `seq` of a stored node, also of a tombstoned one.
pub(crate) fn seq_of(sql: &mut dyn Sql, id: &str) -> Result<Option<i64>> {
    let statement = "SELECT seq FROM graph_nodes WHERE node_id = ?1";
    first(sql, "look for a node", statement, &[Value::Text(id)], |row| row.int(0))
}

/// Requires that the leaf is a stored node.
pub(crate) fn require_leaf(sql: &mut dyn Sql, leaf: Option<&str>) -> Result<()> {
    match leaf {
        Some(leaf) if seq_of(sql, leaf)?.is_none() => Err(unknown_leaf(leaf)),
        _ => Ok(()),
    }
}

fn last_seq(sql: &mut dyn Sql) -> Result<i64> {
    let statement = "SELECT COALESCE(max(seq), 0) FROM graph_nodes";
    Ok(first(sql, "append nodes", statement, &[], |row| row.int(0))?.unwrap_or(0))
}

/// Whether a stored node names a parent that is not stored.
fn has_dangling(sql: &mut dyn Sql) -> Result<bool> {
    let statement = "SELECT 1 FROM graph_nodes WHERE parent_seq IS NULL AND parent_node_id IS NOT NULL LIMIT 1";
    Ok(first(sql, "append nodes", statement, &[], |row| row.int(0))?.is_some())
}

/// Reads what [`append`] depends on, to ask for it ahead.
pub(crate) fn reads_of_append(sql: &mut dyn Sql, nodes: &[NewNode]) -> Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    last_seq(sql)?;
    has_dangling(sql)?;
    let mut known = HashSet::with_capacity(nodes.len());
    for node in nodes {
        if let Some(parent) = node.parent.as_deref().filter(|parent| known.insert(*parent)) {
            seq_of(sql, parent)?;
        }
        known.insert(&node.id);
    }
    Ok(())
}

/// Appends nodes in this order. Counts none of them.
pub(crate) fn append(sql: &mut dyn Sql, nodes: &[NewNode]) -> Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let last = last_seq(sql)?;
    // Whether somebody may have named one of them as a parent before it was there. Where asking costs more than looking, all may.
    let mut may_adopt = sql.is_embedded() || has_dangling(sql)?;
    let mut known: HashMap<&str, i64> = HashMap::with_capacity(nodes.len());
    let mut adopters = Vec::new();
    for (seq, node) in (last + 1..).zip(nodes) {
        let parent_seq = match node.parent.as_deref() {
            None => None,
            Some(parent) if parent == node.id => return Err(cycle(parent)),
            Some(parent) => match known.get(parent) {
                Some(seq) => Some(*seq),
                None => seq_of(sql, parent)?,
            },
        };
        may_adopt |= node.parent.is_some() && parent_seq.is_none();
        insert(sql, seq, node, parent_seq)?;
        known.insert(&node.id, seq);
        if !may_adopt {
            continue;
        }
        // Who named this one as a parent before it was there.
        let adopted = sql.run(
            "link nodes",
            "UPDATE graph_nodes SET parent_seq = ?1 WHERE parent_node_id = ?2 AND parent_seq IS NULL",
            &[Value::Int(seq), Value::Text(&node.id)],
        )?;
        if adopted > 0 {
            adopters.push(seq);
        }
    }
    // Every circle has a link from an earlier node to a later one, and those are made by adoption only.
    links::check(sql, &adopters)
}

fn insert(sql: &mut dyn Sql, seq: i64, node: &NewNode, parent_seq: Option<i64>) -> Result<()> {
    sql.store_new(
        "store a node",
        "INSERT INTO graph_nodes (seq, node_id, parent_node_id, parent_seq) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO NOTHING",
        &[Value::Int(seq), Value::Text(&node.id), Value::OptText(node.parent.as_deref()), Value::OptInt(parent_seq)],
        &|| node_collision(&node.id),
    )?;
    #[cfg(test)]
    assert_ne!(node.id, "panic after insert");
    let statement = "INSERT INTO graph_bodies (seq, node_json) VALUES (?1, ?2)";
    sql.post("store a node", statement, &[Value::Int(seq), Value::Text(&node.text)])
}

/// Hides nodes from every read.
pub(crate) fn tombstone(sql: &mut dyn Sql, ids: &[String]) -> Result<()> {
    let mut hidden = 0;
    for id in ids {
        let statement = "UPDATE graph_nodes SET tombstoned = 1 WHERE node_id = ?1 AND tombstoned = 0";
        hidden += sql.run("hide a node", statement, &[Value::Text(id)])? as i64;
    }
    if hidden > 0 { info::add_nodes(sql, -hidden, hidden) } else { Ok(()) }
}

/// Removes hidden nodes; tells how many.
pub(crate) fn vacuum(sql: &mut dyn Sql) -> Result<i64> {
    if info::get(sql)?.tombstoned_nodes == 0 {
        return Ok(0);
    }
    sql.run(
        "remove nodes",
        "DELETE FROM graph_bodies WHERE seq IN (SELECT seq FROM graph_nodes WHERE tombstoned = 1)",
        &[],
    )?;
    sql.run(
        "unlink nodes",
        "UPDATE graph_nodes SET parent_seq = NULL
         WHERE parent_seq IN (SELECT seq FROM graph_nodes WHERE tombstoned = 1)",
        &[],
    )?;
    let removed = sql.run("remove nodes", "DELETE FROM graph_nodes WHERE tombstoned = 1", &[])? as i64;
    info::add_nodes(sql, 0, -removed)?;
    Ok(removed)
}
