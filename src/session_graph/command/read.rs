//! Commands that only read.

use serde::Deserialize;

use super::{arguments, name_of, unknown};
use crate::error::Result;
use crate::session_graph::graph;
use crate::session_graph::load::{self, Load, Reply};
use crate::session_graph::pages;
use crate::session_graph::queue;
use crate::session_graph::sql::{Row, Sql, Value, first};
use crate::session_graph::tables::{artifacts, attachments, blobs, head, info, meta, pins, usage};
use crate::session_graph::verify;

/// A command that only reads.
#[derive(Debug)]
pub(crate) enum Read {
    Load(Load),
    Node(String),
    Meta,
    Blob(String),
    Checkpoint(String),
    Artifact(String),
    UsageDeltas,
    Ledger,
    Queue(Queue),
    DeadLetters(String),
    QueueState(QueueState),
    Pins(Option<String>),
    Nodes(pages::Page),
    Pulse,
    Uncommitted(i64),
    /// `deep`; the engine adds its own findings.
    Verify(bool),
    /// The engine adds its own figures.
    Stats,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Queue {
    session_id: String,
    pending: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueueState {
    session_id: String,
    batch_id: String,
}

#[derive(Deserialize)]
struct PinName {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

#[derive(Deserialize)]
struct Until {
    until: i64,
}

#[derive(Deserialize)]
struct Deep {
    deep: bool,
}

impl Read {
    /// Reads a command.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let name = name_of(text)?;
        let key = || arguments::<Key>(text, &name).map(|key| key.key);
        Ok(match name.as_ref() {
            "load" => Self::Load(arguments(text, &name)?),
            "node" => Self::Node(key()?),
            "meta" => Self::Meta,
            "blob" => Self::Blob(key()?),
            "checkpoint" => Self::Checkpoint(key()?),
            "artifact" => Self::Artifact(key()?),
            "usageDeltas" => Self::UsageDeltas,
            "ledger" => Self::Ledger,
            "queue" => Self::Queue(arguments(text, &name)?),
            "deadLetters" => Self::DeadLetters(key()?),
            "pins" => Self::Pins(arguments::<PinName>(text, &name)?.name),
            "pulse" => Self::Pulse,
            "nodes" => Self::Nodes(arguments(text, &name)?),
            "queueState" => Self::QueueState(arguments(text, &name)?),
            "uncommitted" => Self::Uncommitted(arguments::<Until>(text, &name)?.until),
            "verify" => Self::Verify(arguments::<Deep>(text, &name)?.deep),
            "stats" => Self::Stats,
            other => return Err(unknown(other)),
        })
    }

    /// Runs it on one snapshot.
    pub(crate) fn run(&self, sql: &mut dyn Sql) -> Result<Reply> {
        let or_null = |text: Option<String>| Reply::text(text.unwrap_or_else(|| "null".to_owned()));
        Ok(match self {
            Self::Load(load) => load::load(sql, load)?,
            Self::Node(id) => or_null(graph::stored_node(sql, id)?),
            Self::Meta => or_null(meta::get(sql)?),
            Self::Blob(reference) => Reply::bytes(blobs::get(sql, reference, "blob")?),
            Self::Checkpoint(reference) => load::checkpoint(sql, reference)?,
            Self::Artifact(name) => Reply::bytes(artifacts::get(sql, name)?),
            Self::UsageDeltas => Reply::text(usage::deltas(sql)?),
            Self::Ledger => Reply::text(usage::ledger(sql)?),
            Self::Queue(queue) => Reply::text(queue::list(sql, &queue.session_id, queue.pending)?),
            Self::DeadLetters(session) => Reply::text(queue::dead_letters(sql, session)?),
            Self::Pins(name) => Reply::text(pins::list(sql, name.as_deref())?),
            Self::Pulse => Reply::text(pulse(sql)?),
            Self::Nodes(page) => pages::page(sql, page)?,
            Self::QueueState(of) => Reply::text(queue::state(sql, &of.session_id, &of.batch_id)?),
            Self::Uncommitted(until) => Reply::text(attachments::uncommitted(sql, *until)?),
            Self::Verify(deep) => Reply::text(format!("[{}]", verify::problems(sql, *deep)?.join(","))),
            Self::Stats => Reply::text(stats(sql)?),
        })
    }
}

/// The revision, and what differs whenever the queue was changed; leases that lapse change nothing.
fn pulse(sql: &mut dyn Sql) -> Result<String> {
    let statement = "SELECT head_revision FROM session_head";
    let revision = first(sql, "look for changes", statement, &[], |row| row.int(0))?.unwrap_or(0);
    let statement =
        "SELECT count(*), count(claim_token), COALESCE(max(enqueue_seq), 0), COALESCE(max(claim_fencing_token), 0),
                     CAST(COALESCE(sum(attempts + last_attempt), 0) AS BIGINT) FROM queued_work_batches";
    let read = |row: &dyn Row| Ok([row.int(0)?, row.int(1)?, row.int(2)?, row.int(3)?, row.int(4)?]);
    let queue = first(sql, "look for changes", statement, &[], read)?.unwrap_or_default();
    let [queued, ..] = queue;
    let mark = queue.map(|number| number.to_string()).join(":");
    Ok(format!("{{\"headRevision\":{revision},\"queuedBatches\":{queued},\"queue\":\"{mark}\"}}"))
}

fn stats(sql: &mut dyn Sql) -> Result<String> {
    let counted = info::get(sql)?;
    let revision = head::get(sql)?.map_or(0, |head| head.revision);
    let now = sql.now()?;
    let depth = first(sql, "count work", "SELECT count(*) FROM queued_work_batches", &[], |row| row.int(0))?;
    let oldest = first(
        sql,
        "look for work",
        "SELECT enqueued_at_ms FROM queued_work_batches WHERE claim_token IS NULL ORDER BY enqueue_seq LIMIT 1",
        &[],
        |row| row.int(0),
    )?;
    let ready =
        "SELECT count(*), min(CASE WHEN available_at_ms > enqueued_at_ms THEN available_at_ms ELSE enqueued_at_ms END)
                 FROM queued_work_batches WHERE available_at_ms <= ?1 AND last_attempt = 0
                   AND (claim_token IS NULL OR claim_expires_at_ms <= ?1)";
    let ready = first(sql, "look for work", ready, &[Value::Int(now)], |row| Ok((row.int(0)?, row.opt_int(1)?)))?;
    let (ready, ready_since) = ready.unwrap_or_default();
    let held = "SELECT CAST(COALESCE(sum(CASE WHEN claim_expires_at_ms > ?1 THEN 1 ELSE 0 END), 0) AS BIGINT),
                CAST(COALESCE(sum(CASE WHEN last_attempt = 1 AND claim_expires_at_ms <= ?1 THEN 1 ELSE 0 END), 0) AS BIGINT)
                FROM queued_work_batches WHERE claim_token IS NOT NULL OR last_attempt = 1";
    let held = first(sql, "look for work", held, &[Value::Int(now)], |row| Ok((row.int(0)?, row.int(1)?)))?;
    let (claimed, dead) = held.unwrap_or_default();
    let ready_for = ready_since.map_or_else(|| "null".to_owned(), |since| (now - since).max(0).to_string());
    let oldest = oldest.map_or_else(|| "null".to_owned(), |at| (now - at).max(0).to_string());
    Ok(format!(
        "{{\"headRevision\":{revision},\"liveNodes\":{},\"tombstonedNodes\":{},\"blobBytes\":{},\"queuedBatches\":{},\
         \"oldestWaitingMs\":{oldest},\"readyBatches\":{ready},\"oldestReadyMs\":{ready_for},\"claimedBatches\":{claimed},\
         \"deadLetters\":{dead}",
        counted.live_nodes,
        counted.tombstoned_nodes,
        counted.blob_bytes,
        depth.unwrap_or(0)
    ) + "}")
}
