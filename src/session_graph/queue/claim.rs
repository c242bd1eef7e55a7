//! Claims: who owns which batches until when. Times decide what may be claimed; the token decides who may renew and complete.

use serde::Deserialize;

use super::batch::{Batch, Delivery};
use super::finished::{self, Outcome};
use super::rows::{Stored, columns, fill, random, ready};
use crate::error::Result;
use crate::json;
use crate::session_graph::commit::message::Completion;
use crate::session_graph::error::claim_expired;
use crate::session_graph::sql::{Row, Sql, Value, all};
use crate::session_graph::tables::info;

/// The SQLSTATE by which `complete_work` refuses.
const NOT_HELD: &str = "HF001";
/// Batches that are looked at together.
const PAGE: i64 = 16;
/// Times beyond it are no safe integers of JavaScript.
const TIME_MAX: i64 = (1 << 53) - 1;

/// Where work is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Boundary {
    ActiveTurnCheckpoint,
    Idle,
}

/// Who asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    pub(crate) session_id: String,
    pub(crate) owner_id: String,
    pub(crate) lease_ttl_ms: i64,
    pub(crate) boundary: Boundary,
}

/// What is asked for: so many batches, or exactly these.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Claim {
    pub(crate) request: Request,
    pub(crate) max_batches: Option<i64>,
    pub(crate) batch_ids: Option<Vec<String>>,
}

/// What identifies a claim.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Held {
    pub(super) session_id: String,
    pub(super) claim_id: String,
    pub(super) lease_token: String,
}

/// A longer (or shorter) lease.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Renewal {
    #[serde(flatten)]
    pub(super) held: Held,
    pub(super) batch_ids: Vec<String>,
    pub(super) lease_ttl_ms: i64,
}

impl Claim {
    /// So many batches, at most.
    fn wanted(&self) -> i64 {
        self.batch_ids.as_ref().map_or(self.max_batches.unwrap_or(0), |ids| ids.len() as i64)
    }
}

/// Whether a claim would find something. Reads only, and no more than tells: the first batch, unless it is to be exactly these.
pub(crate) fn is_something_ready(sql: &mut dyn Sql, claim: &Claim) -> Result<bool> {
    let now = sql.now()?;
    let wanted = if claim.batch_ids.is_some() { claim.wanted() } else { claim.wanted().min(1) };
    Ok(!select(sql, claim, wanted, now)?.is_empty())
}

/// The batches that a claim of `wanted` takes, in their order.
fn select(sql: &mut dyn Sql, claim: &Claim, wanted: i64, now: i64) -> Result<Vec<Batch>> {
    let mut taken: Vec<Batch> = Vec::new();
    let mut after = 0;
    'pages: while (taken.len() as i64) < wanted {
        let limit = PAGE.min(wanted);
        let page = ready(sql, &claim.request.session_id, now, after, limit)?;
        let is_last = (page.len() as i64) < limit;
        for mut stored in page {
            after = stored.seq;
            fill(sql, &mut stored)?;
            // A damaged batch is not there; it does not stop the others.
            let Ok(batch) = stored.batch else { continue };
            match taken.first() {
                None if claim.request.boundary == Boundary::ActiveTurnCheckpoint
                    && batch.delivery != Delivery::EarliestSafeBoundary =>
                {
                    return Ok(taken);
                }
                None => {}
                Some(head) if batch.follows(head) => {}
                Some(_) => break 'pages,
            }
            let goes_on = batch.takes_others();
            taken.push(batch);
            if !goes_on || taken.len() as i64 >= wanted {
                break 'pages;
            }
        }
        if is_last {
            break;
        }
    }
    let fits = claim.batch_ids.as_ref().is_none_or(|ids| ids.iter().eq(taken.iter().map(|batch| &batch.id)));
    Ok(if fits { taken } else { Vec::new() })
}

/// Claims batches; returns the claim as JSON, `null` if there is nothing.
pub(crate) fn claim(sql: &mut dyn Sql, claim: &Claim) -> Result<String> {
    let now = sql.now()?;
    let mut batches = select(sql, claim, claim.wanted(), now)?;
    let Some(head) = batches.first() else { return Ok("null".to_owned()) };
    let request = &claim.request;
    let fencing = info::next_fencing(sql)?;
    let claim_id = format!("qwc:{}:{fencing}", head.seq);
    let token = random();
    let expires = now.saturating_add(request.lease_ttl_ms).min(TIME_MAX);
    for batch in &mut batches {
        batch.attempts += 1;
        sql.run(
            "claim a batch",
            "UPDATE queued_work_batches SET claim_id = ?2, claim_owner_id = ?3, claim_token = ?4, claim_fencing_token = ?5,
             claim_claimed_at_ms = ?6, claim_expires_at_ms = ?7, attempts = attempts + 1,
             last_attempt = CASE WHEN attempts + 1 >= max_attempts THEN 1 ELSE 0 END WHERE enqueue_seq = ?1",
            &[
                Value::Int(batch.seq),
                Value::Text(&claim_id),
                Value::Text(&request.owner_id),
                Value::Text(&token),
                Value::Int(fencing),
                Value::Int(now),
                Value::Int(expires),
            ],
        )?;
    }
    let texts: Vec<String> = batches.iter().map(Batch::text).collect();
    Ok(format!(
        "{{\"sessionId\":{},\"claimId\":{},\"ownerId\":{},\"leaseToken\":\"{token}\",\"fencingToken\":{fencing},\
         \"claimedAtEpochMs\":{now},\"expiresAtEpochMs\":{expires},\"batches\":[{}]}}",
        json::quote(&request.session_id),
        json::quote(&claim_id),
        json::quote(&request.owner_id),
        texts.join(",")
    ))
}

/// A batch that carries a claim.
struct Carrier {
    id: String,
    /// Whether its end is to be remembered.
    is_remembered: bool,
}

/// The batches that carry a claim.
fn carriers(sql: &mut dyn Sql, session: &str, claim: &str, token: &str) -> Result<Vec<Carrier>> {
    all(
        sql,
        "look for a claim",
        "SELECT batch_id, retain_ms FROM queued_work_batches
         WHERE session_id = ?1 AND claim_id = ?2 AND claim_token = ?3",
        &[Value::Text(session), Value::Text(claim), Value::Text(token)],
        |row| Ok(Carrier { id: row.string(0)?, is_remembered: row.opt_int(1)?.is_some() }),
    )
}

/// Whether the batches that carry a claim are exactly these, each once.
fn holds(sql: &mut dyn Sql, session: &str, claim: &str, token: &str, ids: &[String]) -> Result<bool> {
    let carried = carriers(sql, session, claim, token)?;
    let mut carried: Vec<&String> = carried.iter().map(|carrier| &carrier.id).collect();
    let mut ids: Vec<&String> = ids.iter().collect();
    carried.sort_unstable();
    ids.sort_unstable();
    Ok(!ids.is_empty() && carried == ids)
}

/// Moves the end of a lease; returns it.
pub(crate) fn renew(sql: &mut dyn Sql, renewal: &Renewal) -> Result<String> {
    let Held { session_id, claim_id, lease_token } = &renewal.held;
    if !holds(sql, session_id, claim_id, lease_token, &renewal.batch_ids)? {
        return Err(claim_expired(session_id, claim_id));
    }
    let expires = sql.now()?.saturating_add(renewal.lease_ttl_ms).min(TIME_MAX);
    sql.run(
        "renew a claim",
        "UPDATE queued_work_batches SET claim_expires_at_ms = ?4
         WHERE session_id = ?1 AND claim_id = ?2 AND claim_token = ?3",
        &[Value::Text(session_id), Value::Text(claim_id), Value::Text(lease_token), Value::Int(expires)],
    )?;
    Ok(expires.to_string())
}

/// A claim that is given back.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Abandonment {
    #[serde(flatten)]
    held: Held,
    /// As if the claim had not been made.
    #[serde(default)]
    uncounted: bool,
}

/// Frees what still carries the claim.
pub(crate) fn abandon(sql: &mut dyn Sql, Abandonment { held, uncounted }: &Abandonment) -> Result<()> {
    sql.post(
        "abandon a claim",
        "UPDATE queued_work_batches SET claim_id = NULL, claim_owner_id = NULL, claim_token = NULL,
         claim_fencing_token = 0, claim_claimed_at_ms = 0, claim_expires_at_ms = 0, attempts = attempts - ?4,
         last_attempt = CASE WHEN ?4 = 1 THEN 0 ELSE last_attempt END
         WHERE session_id = ?1 AND claim_id = ?2 AND claim_token = ?3",
        &[
            Value::Text(&held.session_id),
            Value::Text(&held.claim_id),
            Value::Text(&held.lease_token),
            Value::Int((*uncounted).into()),
        ],
    )
}

/// Requires that completed work is still owned: in the session of the commit, and exactly what the claim took.
pub(crate) fn check_completion(sql: &mut dyn Sql, session: &str, completion: &Completion) -> Result<()> {
    let Completion { session_id, claim_id, lease_token, batch_ids } = completion;
    if session_id == session && holds(sql, session_id, claim_id, lease_token, batch_ids)? {
        return Ok(());
    }
    Err(claim_expired(session_id, claim_id))
}

/// Removes completed work, and remembers the end of what asked for it.
pub(crate) fn complete(sql: &mut dyn Sql, completion: &Completion, now: i64) -> Result<()> {
    let Completion { session_id, claim_id, lease_token, batch_ids } = completion;
    let held = [Value::Text(session_id), Value::Text(claim_id), Value::Text(lease_token)];
    let mut remembered = Vec::new();
    let mut remember = |row: &dyn Row| {
        let done = Stored::read(row)?;
        if done.retain_ms.is_some() {
            remembered.push(done);
        }
        Ok(true)
    };
    if sql.is_embedded() {
        let remove = concat!(
            "DELETE FROM queued_work_batches WHERE session_id = ?1 AND claim_id = ?2 AND claim_token = ?3 RETURNING ",
            columns!()
        );
        sql.rows("complete a claim", remove, &held, &mut remember)?;
    } else {
        if carriers(sql, session_id, claim_id, lease_token)?.iter().any(|carrier| carrier.is_remembered) {
            let read = concat!(
                "SELECT ",
                columns!(),
                " FROM queued_work_batches WHERE session_id = ?1 AND claim_id = ?2 AND claim_token = ?3"
            );
            sql.rows("complete a claim", read, &held, &mut remember)?;
        }
        // Others may claim what has lapsed since it was looked at: this locks, compares, and refuses by itself. As long as a batch carries
        // the token, nothing else of it changes.
        let [session, claim, token] = held;
        sql.post_or(
            "complete a claim",
            "SELECT complete_work(?1, ?2, ?3, ?4)",
            &[session, claim, token, Value::Int(batch_ids.len() as i64)],
            NOT_HELD,
            claim_expired(session_id, claim_id),
        )?;
    }
    for done in remembered {
        let retain_ms = done.retain_ms.unwrap_or(0);
        finished::remember(sql, &done.or_remains(session_id), Outcome::Completed, retain_ms, now)?;
    }
    Ok(())
}
