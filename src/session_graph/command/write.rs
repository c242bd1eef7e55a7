//! Commands that write.

use serde::Deserialize;

use super::{arguments, identifier, name_of, unknown};
use crate::error::Result;
use crate::json;
use crate::session_graph::blob::{self, GENERIC, Packed, Profile};
use crate::session_graph::commit::message::{Checkpoint, ReadyCheckpoint};
use crate::session_graph::commit::{Commit, store_checkpoint};
use crate::session_graph::error::bug;
use crate::session_graph::graph;
use crate::session_graph::prune;
use crate::session_graph::queue::{self, Abandonment, Cancel, Claim, Draft, Renewal, Requeue};
use crate::session_graph::sql::Sql;
use crate::session_graph::tables::attachments::{self, Intent};
use crate::session_graph::tables::meta::{self, Meta};
use crate::session_graph::tables::usage::{self, Usage};
use crate::session_graph::tables::{artifacts, blobs, pins};

/// A command that may write, with all done that needs no database. It may be run again after its transaction was rolled back.
#[derive(Debug)]
pub(crate) enum Write {
    Commit(Box<Commit>),
    PutBlob(Packed),
    PutCheckpoint(Box<ReadyCheckpoint>),
    PutArtifact(String, Packed),
    SaveMeta(SaveMeta),
    AppendUsage(Vec<Usage>),
    Enqueue(Draft),
    Claim(Claim),
    Renew(Renewal),
    Abandon(Abandonment),
    Cancel(Cancel),
    Requeue(Requeue),
    Pin(pins::Request),
    Unpin(String),
    PruneTurns(prune::Turns),
    FoldUsage(i64),
    ClearFinished,
    Tombstone(Vec<String>),
    Vacuum,
    RecordIntent(Intent),
    CommitRefs(CommitRefs),
    Forget(Forget),
}

/// What a command answers, and whether it was a commit that wrote something.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) is_commit: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SaveMeta {
    meta: Meta,
    replaces: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommitRefs {
    session_id: String,
    attachment_ids: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Forget {
    attachment_id: String,
    session_id: Option<String>,
    only_if_uncommitted: bool,
}

#[derive(Deserialize)]
struct PutBlob {
    kind: Option<String>,
    compressible: bool,
}

#[derive(Deserialize)]
struct PutCheckpoint<'a> {
    #[serde(borrow)]
    checkpoint: Checkpoint<'a>,
}

#[derive(Deserialize)]
struct ByName {
    name: String,
}

#[derive(Deserialize)]
struct Keep {
    keep: i64,
}

#[derive(Deserialize)]
struct Entries {
    entries: Vec<Usage>,
}

#[derive(Deserialize)]
struct Ids {
    ids: Vec<String>,
}

impl Write {
    /// Reads a command; hashes and packs what is to be stored.
    pub(crate) fn prepare(text: &str, mut bytes: Vec<Vec<u8>>, profile: Profile) -> Result<Self> {
        let name = name_of(text)?;
        let mut content = || bytes.pop();
        let required = |content: Option<Vec<u8>>| content.ok_or_else(|| bug("a blob came without bytes"));
        Ok(match name.as_ref() {
            "commit" => Self::Commit(Box::new(Commit::prepare(text, content(), profile)?)),
            "putBlob" => {
                let PutBlob { kind, compressible } = arguments(text, &name)?;
                let kind = kind.as_deref().unwrap_or(GENERIC);
                Self::PutBlob(blob::pack(profile, kind, compressible, required(content())?))
            }
            "putCheckpoint" => {
                let PutCheckpoint { checkpoint } = arguments(text, &name)?;
                Self::PutCheckpoint(Box::new(checkpoint.ready(profile, content())?))
            }
            "putArtifact" => {
                let ByName { name } = arguments(text, &name)?;
                identifier("name", &name)?;
                Self::PutArtifact(name, blob::pack(profile, GENERIC, false, required(content())?))
            }
            "saveMeta" => Self::SaveMeta(arguments(text, &name)?),
            "appendUsage" => Self::AppendUsage(arguments::<Entries>(text, &name)?.entries),
            "enqueue" => Self::Enqueue(arguments(text, &name)?),
            "claim" => Self::Claim(arguments(text, &name)?),
            "renew" => Self::Renew(arguments(text, &name)?),
            "abandon" => Self::Abandon(arguments(text, &name)?),
            "cancel" => Self::Cancel(arguments(text, &name)?),
            "requeue" => Self::Requeue(arguments(text, &name)?),
            "pin" => Self::Pin(arguments(text, &name)?),
            "unpin" => Self::Unpin(arguments::<ByName>(text, &name)?.name),
            "pruneTurns" => Self::PruneTurns(arguments(text, &name)?),
            "foldUsage" => Self::FoldUsage(arguments::<Keep>(text, &name)?.keep),
            "clearFinished" => Self::ClearFinished,
            "tombstone" => Self::Tombstone(arguments::<Ids>(text, &name)?.ids),
            "vacuum" => Self::Vacuum,
            "recordIntent" => Self::RecordIntent(arguments(text, &name)?),
            "commitRefs" => Self::CommitRefs(arguments(text, &name)?),
            "forget" => Self::Forget(arguments(text, &name)?),
            other => return Err(unknown(other)),
        })
    }

    /// Runs it in a transaction that is undone if it fails.
    pub(crate) fn run(&self, sql: &mut dyn Sql) -> Result<Answer> {
        let nothing = |()| "null".to_owned();
        let text = match self {
            Self::Commit(commit) => {
                let applied = commit.run(sql)?;
                return Ok(Answer { text: applied.result, is_commit: applied.is_new });
            }
            Self::PutBlob(packed) => {
                let now = sql.now()?;
                blobs::put(sql, packed, now)?;
                json::quote(&packed.hash)
            }
            Self::PutCheckpoint(checkpoint) => {
                let now = sql.now()?;
                store_checkpoint(sql, checkpoint, now)?;
                let (reference, manifest) = (&checkpoint.reference, checkpoint.manifest.public());
                format!("{{\"checkpointRef\":\"{reference}\",\"manifest\":{manifest}}}")
            }
            Self::PutArtifact(name, packed) => {
                artifacts::put(sql, name, packed)?;
                json::quote(&packed.hash)
            }
            Self::SaveMeta(save) => nothing(meta::put(sql, &save.meta, save.replaces)?),
            Self::AppendUsage(entries) => nothing(usage::append(sql, entries)?),
            Self::Enqueue(draft) => queue::enqueue(sql, draft)?,
            Self::Claim(claim) => queue::claim(sql, claim)?,
            Self::Renew(renewal) => queue::renew(sql, renewal)?,
            Self::Abandon(given_back) => nothing(queue::abandon(sql, given_back)?),
            Self::Cancel(cancel) => queue::cancel(sql, cancel)?,
            Self::Requeue(dead) => queue::requeue(sql, dead)?,
            Self::Pin(request) => pins::pin(sql, request)?,
            Self::Unpin(name) => pins::unpin(sql, name)?.to_string(),
            Self::PruneTurns(turns) => prune::turns(sql, turns)?,
            Self::FoldUsage(keep) => prune::fold_usage(sql, *keep)?.to_string(),
            Self::ClearFinished => prune::finished(sql)?.to_string(),
            Self::Tombstone(ids) => nothing(graph::tombstone(sql, ids)?),
            Self::Vacuum => graph::vacuum(sql)?.to_string(),
            Self::RecordIntent(intent) => nothing(attachments::record(sql, intent)?),
            Self::CommitRefs(refs) => {
                let now = sql.now()?;
                nothing(attachments::commit(sql, &refs.session_id, &refs.attachment_ids, now)?)
            }
            Self::Forget(forget) => {
                let (id, session) = (&forget.attachment_id, forget.session_id.as_deref());
                attachments::forget(sql, id, session, forget.only_if_uncommitted)?.to_string()
            }
        };
        Ok(Answer { text, is_commit: false })
    }
}
