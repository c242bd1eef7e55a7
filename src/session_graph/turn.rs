//! What two sendings of one turn have in common: a hash over everything that the caller decides anew for each turn, and nothing that
//! differs between two sendings.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::commit::message::{Message, ReadyCheckpoint};
use super::graph::NewNode;
use crate::error::{Code, HfError, Result};
use crate::json;

/// Stands first in what is hashed.
const VERSION: u32 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeContents<'a> {
    #[serde(borrow)]
    agent_frame_id: Option<&'a RawValue>,
    #[serde(borrow)]
    caused_by: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// Returns the hash of a commit, in hex.
pub(crate) fn hash(message: &Message<'_>, nodes: &[NewNode], checkpoint: &ReadyCheckpoint) -> Result<String> {
    let places: HashMap<&str, usize> =
        nodes.iter().enumerate().map(|(index, node)| (node.id.as_str(), index)).collect();
    let text_of = |value: Option<&RawValue>| value.map_or_else(|| "null".to_owned(), |value| value.get().to_owned());
    let mut graph = Vec::with_capacity(nodes.len());
    for node in nodes {
        let contents: NodeContents<'_> =
            serde_json::from_str(&node.text).map_err(|error| super::command::refused("a node", &error))?;
        let parent = match &node.parent {
            None => "null".to_owned(),
            Some(parent) => places.get(parent.as_str()).map_or_else(|| "\"^\"".to_owned(), usize::to_string),
        };
        graph.push(format!(
            "{{\"parent\":{parent},\"agentFrameId\":{},\"causedBy\":{},\"payload\":{}}}",
            text_of(contents.agent_frame_id),
            text_of(contents.caused_by),
            text_of(contents.payload)
        ));
    }
    let usage: Vec<String> = message.usage.iter().map(super::tables::usage::Usage::text).collect();
    let batches = message.completions.iter().flat_map(|completion| &completion.batch_ids);
    let text = format!(
        "{{\"v\":{VERSION},\"sessionId\":{},\"config\":{},\"agentFrames\":{},\"currentAgentFrameId\":{},\"delta\":\"{}\",\
         \"nodes\":[{}],\"checkpoint\":{},\"usageDeltas\":[{}],\"completedBatchIds\":{},\"attachmentIds\":{},\"retainedBlobRefs\":{}}}",
        json::quote(&message.session_id),
        message.config.get(),
        message.agent_frames.get(),
        message.current_agent_frame_id.get(),
        message.delta.name(),
        graph.join(","),
        checkpoint.manifest.public(),
        usage.join(","),
        sorted(batches),
        sorted(message.attachments.iter()),
        // What is kept is decided with the turn: one that keeps another blob must not be answered with the first one's result.
        sorted(message.retained.iter()),
    );
    let canonical = json::canonical(&text).map_err(|error| {
        HfError::new(Code::InvalidArgument, format!("the commit is no JSON that can be hashed: {error}"))
    })?;
    Ok(blake3::hash(canonical.as_bytes()).to_hex().to_string())
}

fn sorted<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    let mut texts: Vec<&String> = texts.collect();
    texts.sort_unstable();
    let quoted: Vec<String> = texts.into_iter().map(|text| json::quote(text)).collect();
    format!("[{}]", quoted.join(","))
}
