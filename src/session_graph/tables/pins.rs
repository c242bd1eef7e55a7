//! Checkpoints that are kept by a name, each with the node it belongs to: what the head leaves behind can be gone back to.

use serde::Deserialize;

use super::{blobs, head};
use crate::error::{Code, HfError, Result};
use crate::json;
use crate::session_graph::error::{missing_blob, record_decode};
use crate::session_graph::graph;
use crate::session_graph::manifest::Manifest;
use crate::session_graph::sql::{Row, Sql, Value, all, first};

/// What is to be pinned: the head as it is, or a checkpoint that is stored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    name: String,
    node_id: Option<String>,
    /// `None` = the head's.
    checkpoint_ref: Option<String>,
    /// Blobs that are kept with it; those of the head come by themselves.
    retained: Vec<String>,
}

/// A pin.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) name: String,
    pub(crate) checkpoint_ref: String,
    pub(crate) node: Option<String>,
    /// Of the head that was pinned; `None` for a checkpoint that was named.
    pub(crate) revision: Option<i64>,
    pub(crate) pinned_at_ms: i64,
    /// The contents of the head that was pinned.
    pub(crate) head_text: Option<String>,
    retained: String,
}

impl Pin {
    fn read(row: &dyn Row) -> Result<Self> {
        Ok(Self {
            name: row.string(0)?,
            checkpoint_ref: row.string(1)?,
            node: row.opt_string(2)?,
            revision: row.opt_int(3)?,
            pinned_at_ms: row.int(4)?,
            retained: row.string(5)?,
            head_text: row.opt_string(6)?,
        })
    }

    /// The blobs that are kept with it.
    pub(crate) fn retained(&self) -> Result<Vec<String>> {
        serde_json::from_str(&self.retained)
            .map_err(|_| record_decode("checkpoint_pins", &self.name, "retained_json is no list of references"))
    }

    /// As JSON.
    fn text(&self) -> Result<String> {
        self.retained()?;
        Ok(format!(
            "{{\"name\":{},\"checkpointRef\":{},\"nodeId\":{},\"headRevision\":{},\"pinnedAtEpochMs\":{},\"retainedBlobRefs\":{}}}",
            json::quote(&self.name),
            json::quote(&self.checkpoint_ref),
            self.node.as_deref().map_or_else(|| "null".to_owned(), json::quote),
            self.revision.map_or_else(|| "null".to_owned(), |revision| revision.to_string()),
            self.pinned_at_ms,
            self.retained
        ))
    }
}

/// The columns of [`Pin`].
macro_rules! columns {
    () => {
        "pin_name, checkpoint_ref, node_id, head_revision, pinned_at_ms, retained_json, head_json"
    };
}

fn refused(argument: &str, why: &str) -> HfError {
    HfError::new(Code::InvalidArgument, format!("{argument}: {why}")).with_field("argument", argument)
}

/// Pins a checkpoint; what had the name before loses it. Returns the pin as JSON.
pub(crate) fn pin(sql: &mut dyn Sql, request: &Request) -> Result<String> {
    let now = sql.now()?;
    let list = |references: &[String]| {
        let quoted: Vec<String> = references.iter().map(|reference| json::quote(reference)).collect();
        format!("[{}]", quoted.join(","))
    };
    if let Some(node) = &request.node_id {
        graph::require_leaf(sql, Some(node))?;
    }
    let pin = match &request.checkpoint_ref {
        Some(reference) => {
            let bytes = blobs::get(sql, reference, "checkpointRef")?;
            let bytes = bytes.ok_or_else(|| missing_blob(reference, "checkpointRef"))?;
            let manifest = Manifest::decode(reference, &bytes)?;
            for (name, part) in manifest.components() {
                blobs::require(sql, part, name)?;
            }
            Pin {
                name: request.name.clone(),
                checkpoint_ref: reference.clone(),
                node: request.node_id.clone(),
                revision: None,
                pinned_at_ms: now,
                head_text: None,
                retained: list(&request.retained),
            }
        }
        None => {
            let nothing =
                || refused("checkpointRef", "there was no commit yet, so there is no head to pin; commit first");
            let head = head::get(sql)?.ok_or_else(nothing)?;
            if request.node_id.is_some() && request.node_id != head.leaf {
                let why = "it is not the head's leaf, to which the head's checkpoint belongs; say which checkpoint in checkpointRef";
                return Err(refused("nodeId", why));
            }
            // A leaf that `vacuum` removed is nothing to come back to.
            let node = match head.leaf.clone() {
                Some(leaf) if graph::seq_of(sql, &leaf)?.is_none() => None,
                leaf => leaf,
            };
            let mut retained = head.contents()?.retained_blob_refs;
            retained.extend(request.retained.iter().cloned());
            Pin {
                name: request.name.clone(),
                checkpoint_ref: head.checkpoint_ref.clone(),
                node,
                revision: Some(head.revision),
                pinned_at_ms: now,
                retained: list(&retained),
                head_text: Some(head.text),
            }
        }
    };
    for reference in &request.retained {
        blobs::require(sql, reference, "retainedBlobRefs")?;
    }
    unpin(sql, &request.name)?;
    sql.run(
        "pin a checkpoint",
        concat!("INSERT INTO checkpoint_pins (", columns!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"),
        &[
            Value::Text(&pin.name),
            Value::Text(&pin.checkpoint_ref),
            Value::OptText(pin.node.as_deref()),
            Value::OptInt(pin.revision),
            Value::Int(pin.pinned_at_ms),
            Value::Text(&pin.retained),
            Value::OptText(pin.head_text.as_deref()),
        ],
    )?;
    pin.text()
}

/// Removes a pin; tells whether there was one.
pub(crate) fn unpin(sql: &mut dyn Sql, name: &str) -> Result<bool> {
    let statement = "DELETE FROM checkpoint_pins WHERE pin_name = ?1";
    Ok(sql.run("unpin a checkpoint", statement, &[Value::Text(name)])? > 0)
}

/// Reads a pin.
pub(crate) fn get(sql: &mut dyn Sql, name: &str) -> Result<Option<Pin>> {
    let statement = concat!("SELECT ", columns!(), " FROM checkpoint_pins WHERE pin_name = ?1");
    first(sql, "look for a pin", statement, &[Value::Text(name)], Pin::read)
}

/// All pins, by name.
pub(crate) fn every(sql: &mut dyn Sql) -> Result<Vec<Pin>> {
    let statement = concat!("SELECT ", columns!(), " FROM checkpoint_pins ORDER BY pin_name");
    all(sql, "list pins", statement, &[], Pin::read)
}

/// All pins by name, those whose rows are damaged as errors.
pub(crate) fn readable(sql: &mut dyn Sql) -> Result<Vec<(String, Result<Pin>)>> {
    let statement = concat!("SELECT ", columns!(), " FROM checkpoint_pins ORDER BY pin_name");
    all(sql, "list pins", statement, &[], |row| Ok((row.string(0).unwrap_or_default(), Pin::read(row))))
}

/// All pins by name, or one of them, as a JSON array.
pub(crate) fn list(sql: &mut dyn Sql, name: Option<&str>) -> Result<String> {
    let found = match name {
        Some(name) => get(sql, name)?.into_iter().collect(),
        None => every(sql)?,
    };
    let texts: Vec<String> = found.iter().map(Pin::text).collect::<Result<_>>()?;
    Ok(format!("[{}]", texts.join(",")))
}
