//! Reading a session whole, on one snapshot.

use serde::Deserialize;

use super::error::{bug, missing_blob, record_decode};
use super::graph;
use super::manifest::Manifest;
use super::sql::Sql;
use super::tables::head::{self, Head};
use super::tables::{blobs, usage};
use crate::error::{Code, HfError, Result};
use crate::json;

/// Nodes come in JSON arrays of about so many bytes, so that nobody has to parse all of them at once.
const SLAB: usize = 128 * 1024;

/// A text, and bytes that belong to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// JSON.
    pub text: String,
    /// What the text counts.
    pub parts: Vec<Vec<u8>>,
}

impl Reply {
    /// A reply without bytes.
    pub(crate) fn text(text: String) -> Self {
        Self { text, parts: Vec::new() }
    }

    /// A reply of bytes, or of nothing.
    pub(crate) fn bytes(bytes: Option<Vec<u8>>) -> Self {
        Self { text: "null".to_owned(), parts: bytes.into_iter().collect() }
    }
}

/// What is to be read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Load {
    /// The path to a leaf, not everything.
    path: bool,
    /// Another leaf than the head's.
    leaf_node_id: Option<String>,
    /// Skips what cannot be read, and lists it.
    tolerant: bool,
    /// Looks at each node whether it is JSON, so that a damaged one is named.
    checked: bool,
}

/// What was skipped.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    tolerant: bool,
    found: Vec<String>,
}

impl Problems {
    /// Notes an error about what is stored; any other passes.
    fn skip<T>(&mut self, kind: &str, key: &str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.tolerant && is_about_a_row(&error) => {
                self.found.push(problem(kind, key, error.message()));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// As JSON.
pub(crate) fn problem(kind: &str, key: &str, detail: &str) -> String {
    format!("{{\"kind\":\"{kind}\",\"key\":{},\"detail\":{}}}", json::quote(key), json::quote(detail))
}

/// An error about what is stored, not about the database.
pub(crate) fn is_about_a_row(error: &HfError) -> bool {
    let about_a_row = matches!(
        error.code(),
        Code::GraphMissingBlob
            | Code::GraphBlobCorrupt
            | Code::GraphRecordDecode
            | Code::GraphQueueRowCorrupt
            | Code::GraphCorrupt
            | Code::GraphUnsupportedRecordSchemaVersion
    );
    about_a_row || (error.code() == Code::Corrupt && !error.fields().contains_key("sqliteCode"))
}

/// Reads a session; `null` before its first commit.
pub(crate) fn load(sql: &mut dyn Sql, load: &Load) -> Result<Reply> {
    let mut problems = Problems { tolerant: load.tolerant, found: Vec::new() };
    sql.ahead(&mut |sql| {
        // Nothing is found here, nor in the others of its kind.
        let _ = (head::get(sql), usage::ledger(sql));
        if !load.path {
            let _ = graph::full(sql, &mut |_, _| Ok(()));
        }
    })?;
    let Some(head) = head::get(sql)? else { return Ok(Reply::text("null".to_owned())) };
    let mut nodes = Slabs::new(load.checked || load.tolerant);
    let leaf = load.leaf_node_id.as_ref().filter(|_| load.path).or(head.leaf.as_ref());
    sql.ahead(&mut |sql| {
        let _ = blobs::get(sql, &head.checkpoint_ref, "");
        if let Some(leaf) = leaf.filter(|_| load.path) {
            let _ = graph::path(sql, leaf);
        }
    })?;
    if load.path {
        if let Some(leaf) = leaf {
            let path = graph::path(sql, leaf);
            let path = problems.skip("node", leaf, path)?.unwrap_or_default();
            sql.bodies(&path, &mut |seq, text| nodes.add(seq, text, &mut problems))?;
        }
    } else {
        graph::full(sql, &mut |seq, text| nodes.add(seq, text, &mut problems))?;
    }
    let (manifest, components, mut parts) = hydrate(sql, &head.checkpoint_ref, &mut problems)?;
    let ledger = problems.skip("usage", "usage_totals", usage::ledger(sql))?.unwrap_or_else(|| "[]".to_owned());
    let contents = contents(&head, &mut problems)?;
    let (slab, lengths) = nodes.finish();
    parts.push(slab);
    let lengths: Vec<String> = lengths.iter().map(usize::to_string).collect();
    let quoted = |text: Option<&String>| text.map_or_else(|| "null".to_owned(), |text| json::quote(text));
    let text = format!(
        "{{\"sessionId\":{},\"headRevision\":{},{contents},\"leafNodeId\":{},\"checkpointRef\":{},\"manifest\":{},\
         \"components\":[{}],\"tokenLedger\":{ledger},\"slabs\":[{}],\"problems\":[{}]}}",
        json::quote(&head.session_id),
        head.revision,
        quoted(leaf),
        json::quote(&head.checkpoint_ref),
        manifest.map_or_else(|| "null".to_owned(), |manifest| manifest.public()),
        components,
        lengths.join(","),
        problems.found.join(",")
    );
    Ok(Reply { text, parts })
}

fn contents(head: &Head, problems: &mut Problems) -> Result<String> {
    Ok(match problems.skip("head", "1", head.contents())? {
        Some(contents) => format!(
            "\"config\":{},\"agentFrames\":{},\"currentAgentFrameId\":{}",
            contents.config.get(),
            contents.agent_frames.get(),
            contents.current_agent_frame_id.get()
        ),
        None => "\"config\":null,\"agentFrames\":[],\"currentAgentFrameId\":\"\"".to_owned(),
    })
}

/// Reads a manifest and all that it names: the manifest, the names of the parts as JSON strings, and the parts.
fn hydrate(
    sql: &mut dyn Sql,
    reference: &str,
    problems: &mut Problems,
) -> Result<(Option<Manifest>, String, Vec<Vec<u8>>)> {
    let manifest = match blobs::get(sql, reference, "checkpoint") {
        Ok(Some(bytes)) => Manifest::decode(reference, &bytes),
        Ok(None) => Err(missing_blob(reference, "checkpoint")),
        Err(error) => Err(error),
    };
    let Some(manifest) = problems.skip("manifest", reference, manifest)? else {
        return Ok((None, String::new(), Vec::new()));
    };
    sql.ahead(&mut |sql| manifest.components().for_each(|(_, part)| drop(blobs::get(sql, part, ""))))?;
    let (mut names, mut parts) = (Vec::new(), Vec::new());
    for (name, part) in manifest.components() {
        let bytes = match blobs::get(sql, part, name) {
            Ok(Some(bytes)) => checked_json(name, part, bytes),
            Ok(None) => Err(missing_blob(part, name)),
            Err(error) => Err(error),
        };
        if let Some(bytes) = problems.skip("blob", part, bytes)? {
            names.push(format!("\"{name}\""));
            parts.push(bytes);
        }
    }
    Ok((Some(manifest), names.join(","), parts))
}

/// A reference that was given may lead to anything; the parts that are values must be JSON.
pub(crate) fn checked_json(name: &str, reference: &str, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if name == "executionState" || json::validate(&bytes).is_ok() {
        return Ok(bytes);
    }
    Err(record_decode("blobs", reference, &format!("it was given as {name}, and is no JSON")))
}

/// Reads a checkpoint; `null` if there is none of that name.
pub(crate) fn checkpoint(sql: &mut dyn Sql, reference: &str) -> Result<Reply> {
    let Some(bytes) = blobs::get(sql, reference, "checkpoint")? else { return Ok(Reply::text("null".to_owned())) };
    Manifest::decode(reference, &bytes)?;
    let (manifest, components, parts) = hydrate(sql, reference, &mut Problems::default())?;
    let manifest = manifest.ok_or_else(|| bug("a checkpoint was read and is gone"))?;
    Ok(Reply { text: format!("{{\"manifest\":{},\"components\":[{components}]}}", manifest.public()), parts })
}

/// Nodes on their way out.
pub(crate) struct Slabs {
    checked: bool,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    /// Where the open slab begins.
    start: usize,
    is_open: bool,
}

impl Slabs {
    pub(crate) fn new(checked: bool) -> Self {
        Self { checked, bytes: Vec::new(), lengths: Vec::new(), start: 0, is_open: false }
    }

    pub(crate) fn add(&mut self, seq: i64, text: Result<Option<&str>>, problems: &mut Problems) -> Result<()> {
        let key = seq.to_string();
        let wrong = |why: &str| record_decode("graph_bodies", &key, why);
        let text = match text {
            Ok(Some(text)) if self.checked && !is_object(text) => Err(wrong("it is no JSON")),
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err(wrong("it is missing")),
            Err(_) => Err(wrong("it is no text")),
        };
        let Some(text) = problems.skip("node", &key, text)? else { return Ok(()) };
        self.bytes.push(if self.is_open { b',' } else { b'[' });
        self.is_open = true;
        self.bytes.extend_from_slice(text.as_bytes());
        if self.bytes.len() - self.start >= SLAB {
            self.close();
        }
        Ok(())
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn close(&mut self) {
        if self.is_open {
            self.bytes.push(b']');
            self.lengths.push(self.bytes.len() - self.start);
            self.start = self.bytes.len();
            self.is_open = false;
        }
    }

    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<usize>) {
        self.close();
        (self.bytes, self.lengths)
    }
}

fn is_object(text: &str) -> bool {
    json::kind(text) == json::Kind::Object && json::validate(text.as_bytes()).is_ok()
}
