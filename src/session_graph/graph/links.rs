//! Circles of parents.

use std::collections::{HashMap, HashSet};

use super::NewNode;
use crate::error::Result;
use crate::session_graph::error::cycle;
use crate::session_graph::sql::{Sql, Value, first};

/// Looks for circles through the nodes `starts`, following the stored links. No node is visited twice.
pub(super) fn check(sql: &mut dyn Sql, starts: &[i64]) -> Result<()> {
    let mut done = HashSet::new();
    for start in starts {
        let mut walk = Vec::new();
        let mut on_walk = HashSet::new();
        let mut at = Some(*start);
        while let Some(seq) = at {
            if done.contains(&seq) {
                break;
            }
            if !on_walk.insert(seq) {
                let statement = "SELECT node_id FROM graph_nodes WHERE seq = ?1";
                let id = first(sql, "look for a node", statement, &[Value::Int(seq)], |row| row.string(0))?;
                return Err(cycle(&id.unwrap_or_default()));
            }
            walk.push(seq);
            let statement = "SELECT parent_seq FROM graph_nodes WHERE seq = ?1";
            at = first(sql, "follow a link", statement, &[Value::Int(seq)], |row| row.opt_int(0))?.flatten();
        }
        done.extend(walk);
    }
    Ok(())
}

/// The places of the parents in `nodes`, `None` where a node has none there. An id that comes twice is found by the caller.
pub(super) fn parents(nodes: &[NewNode]) -> Vec<Option<usize>> {
    let places: HashMap<&str, usize> =
        nodes.iter().enumerate().map(|(index, node)| (node.id.as_str(), index)).collect();
    nodes.iter().map(|node| node.parent.as_deref().and_then(|parent| places.get(parent).copied())).collect()
}

/// Finds a node that is its own ancestor.
pub(super) fn circle(parents: &[Option<usize>]) -> Option<usize> {
    // The number of the walk that came to a node first; 0 = none yet.
    let mut walk_of = vec![0_usize; parents.len()];
    for start in 0..parents.len() {
        let walk = start + 1;
        let mut at = Some(start);
        while let Some(index) = at {
            let mark = walk_of.get_mut(index)?;
            if *mark == walk {
                return Some(index);
            }
            if *mark != 0 {
                break;
            }
            *mark = walk;
            at = parents.get(index).copied().flatten();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_circles_and_nothing_else() {
        assert_eq!(circle(&[None, Some(0), Some(1), Some(0)]), None);
        assert_eq!(circle(&[Some(3), Some(0), None, Some(2)]), None);
        assert!(circle(&[Some(0)]).is_some());
        assert!(circle(&[None, Some(2), Some(3), Some(1)]).is_some());
        assert!(circle(&[Some(1), Some(2), Some(1)]).is_some());
    }
}
