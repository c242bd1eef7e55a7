//! The head: what the last commit left.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::session_graph::error::record_decode;
use crate::session_graph::sql::{Sql, Value, first};

/// The row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) session_id: String,
    pub(crate) revision: i64,
    pub(crate) leaf: Option<String>,
    pub(crate) checkpoint_ref: String,
    /// `{ config, agentFrames, currentAgentFrameId, retainedBlobRefs }`
    pub(crate) text: String,
}

/// What stands in the text of a head.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Contents<'a> {
    #[serde(borrow)]
    pub(crate) config: &'a RawValue,
    #[serde(borrow)]
    pub(crate) agent_frames: &'a RawValue,
    #[serde(borrow)]
    pub(crate) current_agent_frame_id: &'a RawValue,
    pub(crate) retained_blob_refs: Vec<String>,
}

impl Head {
    /// Takes the text apart.
    pub(crate) fn contents(&self) -> Result<Contents<'_>> {
        serde_json::from_str(&self.text)
            .map_err(|_| record_decode("session_head", "1", "head_json does not hold what belongs there"))
    }
}

/// Reads the head; `None` before the first commit.
pub(crate) fn get(sql: &mut dyn Sql) -> Result<Option<Head>> {
    first(
        sql,
        "read the head",
        "SELECT session_id, head_revision, leaf_node_id, checkpoint_ref, head_json FROM session_head",
        &[],
        |row| {
            Ok(Head {
                session_id: row.string(0)?,
                revision: row.int(1)?,
                leaf: row.opt_string(2)?,
                checkpoint_ref: row.string(3)?,
                text: row.string(4)?,
            })
        },
    )
}

/// Replaces the head. A text that is the one stored is not written again.
pub(crate) fn put(sql: &mut dyn Sql, before: Option<&Head>, head: &Head) -> Result<()> {
    let links = [Value::Int(head.revision), Value::OptText(head.leaf.as_deref()), Value::Text(&head.checkpoint_ref)];
    let [revision, leaf, checkpoint] = links;
    match before {
        None => sql.post(
            "make the head",
            "INSERT INTO session_head (singleton, session_id, head_revision, leaf_node_id, checkpoint_ref, head_json)
             VALUES (1, ?1, ?2, ?3, ?4, ?5)",
            &[Value::Text(&head.session_id), revision, leaf, checkpoint, Value::Text(&head.text)],
        ),
        Some(before) if before.text == head.text => sql.post(
            "move the head",
            "UPDATE session_head SET head_revision = ?1, leaf_node_id = ?2, checkpoint_ref = ?3",
            &links,
        ),
        Some(_) => sql.post(
            "replace the head",
            "UPDATE session_head SET head_revision = ?1, leaf_node_id = ?2, checkpoint_ref = ?3, head_json = ?4",
            &[revision, leaf, checkpoint, Value::Text(&head.text)],
        ),
    }
}
