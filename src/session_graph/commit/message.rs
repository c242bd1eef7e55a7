//! A commit as the facade sends it, and the form in which it is carried out.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::json;
use crate::session_graph::blob::{self, Packed, Profile};
use crate::session_graph::command::{self, identifier};
use crate::session_graph::graph::NewNode;
use crate::session_graph::manifest::{Manifest, canonical};
use crate::session_graph::tables::usage::Usage;

/// The JSON of the facade. Opaque values stay texts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message<'a> {
    pub(crate) session_id: String,
    pub(crate) expected_head_revision: Option<i64>,
    #[serde(borrow)]
    pub(crate) config: &'a RawValue,
    #[serde(borrow)]
    pub(crate) agent_frames: &'a RawValue,
    #[serde(borrow)]
    pub(crate) current_agent_frame_id: &'a RawValue,
    pub(crate) delta: Delta,
    pub(crate) leaf_node_id: Option<String>,
    #[serde(borrow, default)]
    pub(crate) nodes: Vec<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) checkpoint: Checkpoint<'a>,
    pub(crate) turn: Option<Stamp>,
    #[serde(default)]
    pub(crate) usage: Vec<Usage>,
    #[serde(default)]
    pub(crate) completions: Vec<Completion>,
    #[serde(default)]
    pub(crate) attachments: Vec<String>,
    #[serde(default)]
    pub(crate) retained: Vec<String>,
}

/// What becomes of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Delta {
    Unchanged,
    Append,
    ReplaceFull,
}

impl Delta {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Append => "append",
            Self::ReplaceFull => "replaceFull",
        }
    }
}

/// A checkpoint; the bytes of its execution state come beside it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Checkpoint<'a> {
    #[serde(borrow)]
    turn_state: &'a RawValue,
    #[serde(borrow)]
    tool_state: Option<&'a RawValue>,
    tool_state_ref: Option<String>,
    #[serde(borrow)]
    plugin_snapshot: Option<&'a RawValue>,
    plugin_snapshot_ref: Option<String>,
    plugin_snapshot_revision: Option<i64>,
    execution_state_ref: Option<String>,
}

/// What makes a commit one that can be sent again.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stamp {
    pub(crate) session_id: String,
    pub(crate) turn_id: String,
    pub(crate) hash: Option<String>,
}

/// Claimed work that is done.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Completion {
    pub(crate) session_id: String,
    pub(crate) claim_id: String,
    pub(crate) lease_token: String,
    pub(crate) batch_ids: Vec<String>,
}

/// A checkpoint that is ready to be stored.
#[derive(Debug)]
pub(crate) struct ReadyCheckpoint {
    /// The values, then the manifest.
    pub(crate) blobs: Vec<Packed>,
    /// References that were given: they must be stored.
    pub(crate) given: Vec<(&'static str, String)>,
    pub(crate) reference: String,
    pub(crate) manifest: Manifest,
}

impl Checkpoint<'_> {
    /// Hashes and packs. A value wins over a reference.
    pub(crate) fn ready(self, profile: Profile, execution_state: Option<Vec<u8>>) -> Result<ReadyCheckpoint> {
        let mut blobs = Vec::new();
        let mut given = Vec::new();
        let mut component = |name: &'static str, kind: &str, value: Option<Vec<u8>>, reference: Option<String>| {
            let Some(value) = value else {
                let Some(reference) = reference else { return Ok(None) };
                identifier(name, &reference)?;
                given.push((name, reference.clone()));
                return Ok(Some(reference));
            };
            let packed = blob::pack(profile, kind, true, value);
            let hash = packed.hash.clone();
            blobs.push(packed);
            Ok(Some(hash))
        };
        let bytes = |value: Option<&RawValue>| value.map(|value| value.get().as_bytes().to_vec());
        let tool_state_ref = component("toolState", "toolState", bytes(self.tool_state), self.tool_state_ref)?;
        let plugin_snapshot_ref = component(
            "pluginSnapshot",
            "pluginSessionSnapshot",
            bytes(self.plugin_snapshot),
            self.plugin_snapshot_ref,
        )?;
        let execution_state_ref =
            component("executionState", "executionStateSnapshot", execution_state, self.execution_state_ref)?;
        let manifest = Manifest {
            turn_state: canonical("checkpoint.turnState", self.turn_state.get())?,
            tool_state_ref,
            plugin_snapshot_ref,
            plugin_snapshot_revision: self.plugin_snapshot_revision,
            execution_state_ref,
        };
        let packed = blob::pack(profile, blob::MANIFEST, true, manifest.stored().into_bytes());
        let reference = packed.hash.clone();
        blobs.push(packed);
        Ok(ReadyCheckpoint { blobs, given, reference, manifest })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeHead {
    node_id: String,
    parent_node_id: Option<String>,
}

/// Reads what is interpreted of the nodes.
pub(crate) fn nodes(given: &[&RawValue]) -> Result<Vec<NewNode>> {
    let mut nodes = Vec::with_capacity(given.len());
    for raw in given {
        let head: NodeHead = serde_json::from_str(raw.get()).map_err(|error| command::refused("a node", &error))?;
        identifier("nodeId", &head.node_id)?;
        if let Some(parent) = &head.parent_node_id {
            identifier("parentNodeId", parent)?;
        }
        nodes.push(NewNode { id: head.node_id, parent: head.parent_node_id, text: raw.get().to_owned() });
    }
    Ok(nodes)
}

/// The text of the head: what is stored and returned, never interpreted.
pub(crate) fn head_text(message: &Message<'_>) -> String {
    head_text_of(message.config, message.agent_frames, message.current_agent_frame_id, &message.retained)
}

/// The text of a head of these parts.
pub(crate) fn head_text_of(config: &RawValue, frames: &RawValue, frame_id: &RawValue, retained: &[String]) -> String {
    let retained: Vec<String> = retained.iter().map(|reference| json::quote(reference)).collect();
    format!(
        "{{\"config\":{},\"agentFrames\":{},\"currentAgentFrameId\":{},\"retainedBlobRefs\":[{}]}}",
        config.get(),
        frames.get(),
        frame_id.get(),
        retained.join(",")
    )
}
