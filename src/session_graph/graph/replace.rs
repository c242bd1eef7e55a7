//! Replacing all nodes. Runtimes do that often with nearly the same graph, so what is equal at the beginning stays where it is.

use std::collections::HashSet;

use super::{NewNode, insert, links};
use crate::error::Result;
use crate::session_graph::error::{cycle, node_collision};
use crate::session_graph::sql::{Sql, Value};
use crate::session_graph::tables::info;

/// Makes `nodes` all that is stored, in this order.
pub(crate) fn replace(sql: &mut dyn Sql, nodes: &[NewNode]) -> Result<()> {
    let mut ids = HashSet::with_capacity(nodes.len());
    if let Some(twice) = nodes.iter().find(|node| !ids.insert(node.id.as_str())) {
        return Err(node_collision(&twice.id));
    }
    let parents = links::parents(nodes);
    if let Some(node) = links::circle(&parents).and_then(|index| nodes.get(index)) {
        return Err(cycle(&node.id));
    }
    let kept = equal_prefix(sql, nodes)?;
    let last = kept.last().copied().unwrap_or(0);
    remove_after(sql, last)?;
    // Where each node is, or will be.
    let seq = |index: usize| match kept.get(index) {
        Some(seq) => *seq,
        None => last + 1 + (index - kept.len()) as i64,
    };
    for (index, node) in nodes.iter().enumerate() {
        let parent_seq = parents.get(index).copied().flatten();
        if index >= kept.len() {
            insert(sql, seq(index), node, parent_seq.map(seq))?;
        } else if let Some(parent) = parent_seq.filter(|parent| *parent >= kept.len()) {
            let values = [Value::Int(seq(index)), Value::Int(seq(parent))];
            sql.run("link nodes", "UPDATE graph_nodes SET parent_seq = ?2 WHERE seq = ?1", &values)?;
        }
    }
    info::set_nodes(sql, nodes.len() as i64, 0)
}

/// The places of the stored nodes that are equal to the first ones of `nodes`, up to the first difference.
fn equal_prefix(sql: &mut dyn Sql, nodes: &[NewNode]) -> Result<Vec<i64>> {
    let mut kept = Vec::new();
    sql.rows(
        "compare nodes",
        "SELECT n.seq, n.node_id, n.tombstoned, n.parent_node_id, b.node_json
         FROM graph_nodes n LEFT JOIN graph_bodies b ON b.seq = n.seq ORDER BY n.seq",
        &[],
        &mut |row| {
            let Some(node) = nodes.get(kept.len()) else { return Ok(false) };
            // A row that cannot be read is a difference.
            let equal = row.opt_text(4).is_ok_and(|text| text == Some(&node.text))
                && row.text(1).is_ok_and(|id| id == node.id)
                && row.opt_text(3).is_ok_and(|parent| parent == node.parent.as_deref())
                && row.int(2)? == 0;
            if equal {
                kept.push(row.int(0)?);
            }
            Ok(equal)
        },
    )?;
    Ok(kept)
}

fn remove_after(sql: &mut dyn Sql, last: i64) -> Result<()> {
    if last == 0 {
        // Whole tables are dropped at once.
        sql.run("remove nodes", "DELETE FROM graph_bodies", &[])?;
        return sql.run("remove nodes", "DELETE FROM graph_nodes", &[]).map(drop);
    }
    let after = [Value::Int(last)];
    sql.run("remove nodes", "DELETE FROM graph_bodies WHERE seq > ?1", &after)?;
    let removed = sql.run("remove nodes", "DELETE FROM graph_nodes WHERE seq > ?1", &after)?;
    if removed > 0 {
        sql.run("unlink nodes", "UPDATE graph_nodes SET parent_seq = NULL WHERE parent_seq > ?1", &after)?;
    }
    Ok(())
}
