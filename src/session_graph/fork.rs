//! A session that begins where another one is: the path to a leaf, a checkpoint, names, and sums, in a store of its own.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::blob;
use super::command;
use super::commit::message;
use super::error::{hidden_leaf, missing_blob, record_decode, unknown_leaf};
use super::graph;
use super::manifest::Manifest;
use super::sql::{Sql, Value, all};
use super::tables::head::{self, Head};
use super::tables::usage::{self, Usage};
use super::tables::{blobs, gc, info, meta, pins};
use crate::error::{Code, HfError, Result};
use crate::json;

/// Nodes that are held in memory at the same time.
const CHUNK: usize = 256;

/// What becomes the new session.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fork {
    /// `None` = that of the old one.
    session_id: Option<String>,
    /// `None` = that of the pin, or the head's.
    leaf_node_id: Option<String>,
    /// `None` = that of the pin, or the head's.
    checkpoint_ref: Option<String>,
    pin: Option<String>,
    /// Whether the sums of the ledger go along.
    ledger: bool,
    created_at: String,
    relation: Option<Box<RawValue>>,
}

fn refused(argument: &str, why: &str) -> HfError {
    HfError::new(Code::InvalidArgument, format!("{argument}: {why}")).with_field("argument", argument)
}

/// Copies from one snapshot into an empty store. Returns what the new session is, as JSON.
pub(crate) fn fork(from: &mut dyn Sql, to: &mut dyn Sql, fork: &Fork) -> Result<String> {
    let nothing = || refused("toPath", "there was no commit yet, so there is nothing to fork; commit first");
    let mut head = head::get(from)?.ok_or_else(nothing)?;
    let parent = (head.session_id.clone(), head.revision);
    if let Some(name) = &fork.pin {
        let pin = pins::get(from, name)?
            .ok_or_else(|| refused("opts.pin", "there is no pin of that name; see listPins()"))?;
        head.leaf.clone_from(&pin.node);
        head.checkpoint_ref.clone_from(&pin.checkpoint_ref);
        if let Some(text) = &pin.head_text {
            head.text.clone_from(text);
        }
        // Those of the head that was pinned are among them.
        head.text = retaining(&head, &pin.retained()?)?;
    }
    if let Some(leaf) = &fork.leaf_node_id {
        head.leaf = Some(leaf.clone());
    }
    if let Some(reference) = &fork.checkpoint_ref {
        head.checkpoint_ref.clone_from(reference);
    }
    if let Some(session) = &fork.session_id {
        head.session_id.clone_from(session);
    }
    head.revision = 1;
    let now = to.now()?;
    let is_named = fork.leaf_node_id.is_some() || fork.pin.is_some();
    let count = match nodes(from, to, head.leaf.as_deref()) {
        // The head's own leaf may be hidden, or removed since: its path is empty, and that is what goes along.
        Err(error) if !is_named && error.code() == Code::GraphUnknownLeaf => {
            head.leaf = None;
            0
        }
        counted => counted?,
    };
    let mut copied = HashSet::new();
    checkpoint(from, to, &head.checkpoint_ref, now, &mut copied)?;
    for reference in head.contents()?.retained_blob_refs {
        root(from, to, &reference, now, &mut copied)?;
    }
    let names = all(
        from,
        "list names",
        "SELECT artifact_ref, blob_ref FROM artifact_refs ORDER BY artifact_ref",
        &[],
        |row| Ok((row.string(0)?, row.string(1)?)),
    )?;
    for (name, reference) in &names {
        root(from, to, reference, now, &mut copied)?;
        let statement = "INSERT INTO artifact_refs (artifact_ref, blob_ref) VALUES (?1, ?2)";
        to.run("name a blob", statement, &[Value::Text(name), Value::Text(reference)])?;
    }
    if fork.ledger {
        let sums: Vec<Usage> = usage::sums(from)?;
        usage::append(to, &sums)?;
    }
    let relation = match &fork.relation {
        Some(relation) => relation.get().to_owned(),
        None => format!(
            "{{\"type\":\"fork\",\"sessionId\":{},\"headRevision\":{},\"leafNodeId\":{}}}",
            json::quote(&parent.0),
            parent.1,
            head.leaf.as_deref().map_or_else(|| "null".to_owned(), json::quote)
        ),
    };
    meta::copy(from, to, &head.session_id, &fork.created_at, &relation)?;
    head::put(to, None, &head)?;
    Ok(format!(
        "{{\"sessionId\":{},\"headRevision\":1,\"checkpointRef\":{},\"leafNodeId\":{},\"nodeCount\":{count}}}",
        json::quote(&head.session_id),
        json::quote(&head.checkpoint_ref),
        head.leaf.as_deref().map_or_else(|| "null".to_owned(), json::quote)
    ))
}

/// The text of the head, with other blobs that it keeps.
fn retaining(head: &Head, retained: &[String]) -> Result<String> {
    let contents = head.contents()?;
    Ok(message::head_text_of(contents.config, contents.agent_frames, contents.current_agent_frame_id, retained))
}

/// Copies the path to the leaf; tells how long it is.
fn nodes(from: &mut dyn Sql, to: &mut dyn Sql, leaf: Option<&str>) -> Result<usize> {
    let Some(leaf) = leaf else { return Ok(0) };
    let path = graph::path(from, leaf)?;
    if path.is_empty() {
        return Err(if graph::seq_of(from, leaf)?.is_some() { hidden_leaf(leaf) } else { unknown_leaf(leaf) });
    }
    for chunk in path.chunks(CHUNK) {
        let mut texts: Vec<String> = Vec::with_capacity(chunk.len());
        from.bodies(chunk, &mut |seq, text| {
            let wrong = |why| record_decode("graph_bodies", &seq.to_string(), why);
            let text = text.map_err(|_| wrong("it is no text"))?.ok_or_else(|| wrong("it is missing"))?;
            if json::validate(text.as_bytes()).is_err() {
                return Err(wrong("it is no JSON"));
            }
            texts.push(text.to_owned());
            Ok(())
        })?;
        let raw: Vec<&RawValue> = texts.iter().map(|text| command::arguments(text, "fork")).collect::<Result<_>>()?;
        graph::append(to, &message::nodes(&raw)?)?;
    }
    info::add_nodes(to, path.len() as i64, 0)?;
    Ok(path.len())
}

/// Copies a manifest and all that it names.
fn checkpoint(
    from: &mut dyn Sql,
    to: &mut dyn Sql,
    reference: &str,
    now: i64,
    copied: &mut HashSet<String>,
) -> Result<()> {
    let bytes = blobs::get(from, reference, "checkpoint")?.ok_or_else(|| missing_blob(reference, "checkpoint"))?;
    let manifest = Manifest::decode(reference, &bytes)?;
    copy(from, to, reference, "checkpoint", now, copied)?;
    manifest.components().try_for_each(|(name, part)| copy(from, to, part, name, now, copied))
}

/// Copies what a root keeps.
fn root(from: &mut dyn Sql, to: &mut dyn Sql, reference: &str, now: i64, copied: &mut HashSet<String>) -> Result<()> {
    copy(from, to, reference, "reference", now, copied)?;
    let Some(manifest) = gc::expand(from, reference, false)? else { return Ok(()) };
    manifest.components().try_for_each(|(name, part)| copy(from, to, part, name, now, copied))
}

/// Copies a blob as it is stored, once, after its bytes were compared with its name.
fn copy(
    from: &mut dyn Sql,
    to: &mut dyn Sql,
    reference: &str,
    component: &str,
    now: i64,
    copied: &mut HashSet<String>,
) -> Result<()> {
    if !copied.insert(reference.to_owned()) {
        return Ok(());
    }
    let packed = blobs::stored(from, reference)?.ok_or_else(|| missing_blob(reference, component))?;
    blob::unpack(reference, component, packed.codec, packed.raw_len, &packed.content)?;
    blobs::put(to, &packed, now)
}
