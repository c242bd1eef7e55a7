//! The commit: all of a turn, or nothing of it.

pub(crate) mod message;

use self::message::{Completion, Delta, Message, ReadyCheckpoint, Stamp};
use super::blob::Profile;
use super::command;
use super::error::{binding_mismatch, head_conflict, turn_conflict};
use super::graph::{self, NewNode};
use super::sql::Sql;
use super::tables::head::{self, Head};
use super::tables::usage::{self, Usage};
use super::tables::{attachments, blobs, info, turns};
use super::{queue, turn};
use crate::error::{Code, Result};

/// A commit, ready to be carried out: all that needs no database is done.
#[derive(Debug)]
pub(crate) struct Commit {
    session_id: String,
    expected: Option<i64>,
    head_text: String,
    delta: Delta,
    leaf: Option<String>,
    nodes: Vec<NewNode>,
    checkpoint: ReadyCheckpoint,
    /// With its hash.
    stamp: Option<(Stamp, String)>,
    usage: Vec<Usage>,
    completions: Vec<Completion>,
    attachments: Vec<String>,
    retained: Vec<String>,
}

/// How a commit ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// `{ headRevision, checkpointRef, manifest }`
    pub(crate) result: String,
    /// Whether anything was written; not for one that was committed before.
    pub(crate) is_new: bool,
}

impl Commit {
    /// Reads the facade's JSON; hashes and packs.
    pub(crate) fn prepare(text: &str, execution_state: Option<Vec<u8>>, profile: Profile) -> Result<Self> {
        let message: Message<'_> = command::arguments(text, "commit")?;
        let nodes = message::nodes(&message.nodes)?;
        let head_text = message::head_text(&message);
        let mut message = message;
        let checkpoint =
            std::mem::replace(&mut message.checkpoint, command::arguments("{\"turnState\":null}", "commit")?);
        let checkpoint = checkpoint.ready(profile, execution_state)?;
        let stamp = match message.turn.take() {
            None => None,
            Some(stamp) => {
                let hash = match &stamp.hash {
                    Some(hash) => hash.clone(),
                    None => turn::hash(&message, &nodes, &checkpoint)?,
                };
                Some((stamp, hash))
            }
        };
        Ok(Self {
            session_id: message.session_id,
            expected: message.expected_head_revision,
            head_text,
            delta: message.delta,
            leaf: message.leaf_node_id,
            nodes,
            checkpoint,
            stamp,
            usage: message.usage,
            completions: message.completions,
            attachments: message.attachments,
            retained: message.retained,
        })
    }

    /// Carries it out in a transaction that is undone if it fails.
    pub(crate) fn run(&self, sql: &mut dyn Sql) -> Result<Applied> {
        sql.ahead(&mut |sql| {
            // Nothing is found here.
            let _ = self.reads(sql);
        })?;
        let before = head::get(sql)?;
        if let Some(before) = before.as_ref().filter(|before| before.session_id != self.session_id) {
            return Err(binding_mismatch(&before.session_id, &self.session_id));
        }
        if let Some(result) = self.committed_before(sql)? {
            return Ok(Applied { result, is_new: false });
        }
        let actual = before.as_ref().map_or(0, |head| head.revision);
        if let Some(expected) = self.expected.filter(|expected| *expected != actual) {
            return Err(head_conflict(expected, actual));
        }
        for completion in &self.completions {
            queue::check_completion(sql, &self.session_id, completion)?;
        }
        let nodes = self.graph(sql, before.as_ref())?;
        let now = sql.now()?;
        let bytes = add_checkpoint(sql, &self.checkpoint, now)?;
        info::add(sql, nodes, bytes)?;
        for reference in &self.retained {
            blobs::require(sql, reference, "retainedBlobRefs")?;
        }
        usage::append(sql, &self.usage)?;
        let head = Head {
            session_id: self.session_id.clone(),
            revision: actual + 1,
            leaf: self.leaf.clone(),
            checkpoint_ref: self.checkpoint.reference.clone(),
            text: self.head_text.clone(),
        };
        head::put(sql, before.as_ref(), &head)?;
        for (place, completion) in self.completions.iter().enumerate() {
            let is_same =
                |one: &Completion| (&one.claim_id, &one.lease_token) == (&completion.claim_id, &completion.lease_token);
            if !self.completions.iter().take(place).any(is_same) {
                queue::complete(sql, completion, now)?;
            }
        }
        attachments::commit(sql, &self.session_id, &self.attachments, now)?;
        let result = self.result(head.revision);
        if let Some((stamp, hash)) = &self.stamp {
            turns::put(sql, &stamp.session_id, &stamp.turn_id, hash, &result, now)?;
        }
        Ok(Applied { result, is_new: true })
    }

    /// The answer of an earlier sending of the same turn.
    fn committed_before(&self, sql: &mut dyn Sql) -> Result<Option<String>> {
        let Some((stamp, hash)) = &self.stamp else { return Ok(None) };
        let conflict = || turn_conflict(&stamp.session_id, &stamp.turn_id);
        if stamp.session_id != self.session_id {
            return Err(conflict());
        }
        match turns::get(sql, &stamp.session_id, &stamp.turn_id)? {
            None => Ok(None),
            Some((known, result)) if known == *hash => Ok(Some(result)),
            Some(_) => Err(conflict()),
        }
    }

    /// Whether the leaf is one of the commit's own nodes; most are the last.
    fn brings_leaf(&self) -> bool {
        self.leaf.as_ref().is_some_and(|leaf| self.nodes.iter().rev().any(|node| node.id == *leaf))
    }

    /// Reads what [`run`](Self::run) reads before it writes, to ask for it ahead.
    fn reads(&self, sql: &mut dyn Sql) -> Result<()> {
        head::get(sql)?;
        self.committed_before(sql)?;
        for completion in &self.completions {
            // Says that nobody holds it, as nothing is found.
            let _ = queue::check_completion(sql, &self.session_id, completion);
        }
        if matches!(self.delta, Delta::Append) {
            graph::reads_of_append(sql, &self.nodes)?;
        }
        if !matches!(self.delta, Delta::ReplaceFull) && !self.brings_leaf() {
            let _ = graph::require_leaf(sql, self.leaf.as_deref());
        }
        let given = self.checkpoint.given.iter().map(|(_, reference)| reference);
        for reference in given.chain(&self.retained) {
            let _ = blobs::require(sql, reference, "");
        }
        if !self.usage.is_empty() {
            usage::last(sql)?;
        }
        sql.now().map(drop)
    }

    /// Changes the graph; returns how many nodes are still to be counted.
    fn graph(&self, sql: &mut dyn Sql, before: Option<&Head>) -> Result<i64> {
        let added = match self.delta {
            Delta::Unchanged => 0,
            Delta::Append => {
                graph::append(sql, &self.nodes)?;
                self.nodes.len() as i64
            }
            Delta::ReplaceFull => {
                graph::replace(sql, &self.nodes)?;
                0
            }
        };
        if !self.brings_leaf() {
            // The rule that a leaf is stored is about moving it. One that was hidden and removed by `vacuum` stays the head's leaf, and who
            // loads a session and commits what it says must not fail for ever.
            let stays = matches!(self.delta, Delta::Unchanged) && before.is_some_and(|before| before.leaf == self.leaf);
            match graph::require_leaf(sql, self.leaf.as_deref()) {
                Err(error) if stays && error.code() == Code::GraphUnknownLeaf => {}
                outcome => outcome?,
            }
        }
        Ok(added)
    }

    fn result(&self, revision: i64) -> String {
        format!(
            "{{\"headRevision\":{revision},\"checkpointRef\":\"{}\",\"manifest\":{}}}",
            self.checkpoint.reference,
            self.checkpoint.manifest.public()
        )
    }
}

/// Stores the parts of a checkpoint and its manifest.
pub(crate) fn store_checkpoint(sql: &mut dyn Sql, checkpoint: &ReadyCheckpoint, now: i64) -> Result<()> {
    let bytes = add_checkpoint(sql, checkpoint, now)?;
    info::add(sql, 0, bytes)
}

/// Stores the parts of a checkpoint and its manifest; returns the bytes that are to be counted.
fn add_checkpoint(sql: &mut dyn Sql, checkpoint: &ReadyCheckpoint, now: i64) -> Result<i64> {
    for (component, reference) in &checkpoint.given {
        blobs::require(sql, reference, component)?;
    }
    checkpoint.blobs.iter().try_fold(0, |bytes, packed| Ok(bytes + blobs::add(sql, packed, now)?))
}
