//! The queue in PostgreSQL, where many claim from one session at once. None of this waits for a commit of the session.
//!
//! Who changes a batch locks its row until its transaction ends; all see what was committed when their statement began (READ COMMITTED),
//! and the newest version of a row that they lock. Why the rules of the queue hold all the same:
//!
//! - **Order.** `enqueue_seq` comes from one sequence of the schema, taken under an advisory lock of the store that is kept until the
//!   commit. So batches become visible in the order of their numbers: who sees one sees, or could have seen, all before it, and the head
//!   of the line is the same for everybody. A row lock would do, at the price of a write; the lock protects no row. Only those who enqueue
//!   wait for each other, for one round trip and the flush; a handle that enqueues much does so in one transaction.
//! - **Source keys.** Both who look and who insert hold that lock, so no two see that a key is free. A batch that is just being
//!   completed or cancelled still counts: the call took place before that. Its end is stored by the transaction that removes it, and
//!   one statement looks for both: it sees the batch, or its end, and never neither.
//! - **Claims** choose under a second advisory lock, which `claim_work` takes and gives back within one statement: a chooser never sees
//!   another one half way, and nobody waits for a round trip or a flush of somebody else. Under it a ready row is free, or locked by one
//!   who has already made up his mind: a claim that has chosen it, a cancellation, a commit that completes it, a renewal of a lease
//!   that had lapsed. `SKIP LOCKED` leaves such a row out, as if that had been committed, and takes all that it chose in one go, or
//!   looks again. So claims happen one after the other in the order of the lock, each of them by the rules. (If the other dies instead
//!   of committing, its row is ready again, as after a claim that was abandoned.) The row lock keeps what was chosen until the
//!   commit; a later chooser sees either the lock or the claim.
//! - **Fencing** tokens come from a sequence, once the rows are locked: who claims a batch later gets a greater one, and no two are equal.
//!   A sequence is not rolled back, so numbers can be left out.
//! - **Renewing, completing and cancelling** lock the rows first (always in the order of their numbers), waiting for a claim of lapsed
//!   work that is about to be committed, and then look at the newest version: whoever lost finds another token. A token is random, so no row
//!   gets one that others have: as many rows as were expected are the expected ones.
//! - **Deadlocks** need two who wait for each other's rows. Claims never wait. The lock of those who enqueue comes before rows, that of the
//!   commits before both, and no commit enqueues. What is left (two transactions of several renewals of the same claims in opposite
//!   orders) the server notices, and it is run again.

use super::batch::{Batch, Draft};
use super::claim::{Boundary, Claim, Renewal};
use super::finished;
use super::rows::{Item, Stored, collect, item, random};
use crate::error::Result;
use crate::json;
use crate::session_graph::error::{bug, claim_expired, queue_corrupt};
use crate::session_graph::sql::postgres::{Pg, PgRow, Statement};
use crate::session_graph::sql::{Row, Sql, Value};

/// Times beyond it are no safe integers of JavaScript.
const TIME_MAX: i64 = (1 << 53) - 1;
/// How often somebody may remove the batch of a source key while it is looked at.
const TRIES: usize = 10;

const ORDER: &str = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' session graph queue', current_setting('holdfast.store')::bigint))";

fn insertion(id: &str, draft: &Draft) -> Statement {
    let payloads = draft.payloads.iter().map(|payload| payload.get().to_owned()).collect();
    Statement::new(
        "enqueue a batch",
        "WITH known AS (
           SELECT 1 FROM queued_work_batches WHERE session_id = ?2 AND source_key = ?3),
         finished AS (
           SELECT batch_json, outcome, finished_at_ms FROM queued_work_finished
           WHERE ?9 IS NOT NULL AND session_id = ?2 AND source_key = ?3
             AND expires_at_ms > (extract(epoch FROM clock_timestamp()) * 1000)::bigint
             AND NOT EXISTS (SELECT FROM known)
           ORDER BY expires_at_ms DESC LIMIT 1),
         made AS (
           INSERT INTO queued_work_batches
           (batch_id, session_id, source_key, delivery_policy, slot_policy, merge_key_json, available_at_ms, enqueued_at_ms,
            max_attempts, retain_ms)
           SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, ?8, ?9
           WHERE NOT EXISTS (SELECT FROM known) AND NOT EXISTS (SELECT FROM finished) RETURNING enqueue_seq, enqueued_at_ms),
         items AS (
           INSERT INTO queued_work_items (batch_id, item_index, item_id, payload_json)
           SELECT ?1, place - 1, ?1 || ':item:' || (place - 1), payload
           FROM made, unnest(?10) WITH ORDINALITY AS w (payload, place))
         SELECT enqueue_seq, enqueued_at_ms, NULL, NULL, NULL::bigint FROM made
         UNION ALL SELECT 0, 0, batch_json, outcome, finished_at_ms FROM finished",
        &[
            Value::Text(id),
            Value::Text(&draft.session_id),
            Value::OptText(draft.source_key.as_deref()),
            Value::Text(draft.delivery_policy.stored()),
            Value::Text(draft.slot_policy.stored()),
            Value::Text(&draft.merge_key.stored()),
            Value::Int(draft.available_at_ms),
            Value::OptInt(draft.max_attempts),
            Value::OptInt(draft.retain_ms),
        ],
    )
    .with_texts(Some(payloads))
}

/// Stores batches, or finds those with the same source keys; returns their JSON. All go out together.
pub(crate) fn enqueue(pg: &mut Pg<'_>, drafts: &[&Draft]) -> Result<Vec<Result<String>>> {
    if !pg.orders {
        pg.orders = true;
        pg.push(Statement::new("wait for a turn to enqueue", ORDER, &[]));
    }
    let ids: Vec<String> = drafts.iter().map(|_| format!("qwb:{}", random())).collect();
    let asked: Vec<Statement> = ids.iter().zip(drafts).map(|(id, draft)| insertion(id, draft)).collect();
    let replies = pg.exchange(&asked, false)?;
    let mut out = Vec::with_capacity(drafts.len());
    for ((id, draft), reply) in ids.into_iter().zip(drafts).zip(replies) {
        let made = reply.rows.first().map(PgRow);
        out.push(match made {
            Some(row) => Ok(inserted(id, draft, &row)?),
            None => known(pg, draft)?,
        });
    }
    Ok(out)
}

/// The JSON of what [`insertion`] stored, or of the batch whose end is remembered.
fn inserted(id: String, draft: &Draft, row: &PgRow<'_>) -> Result<String> {
    if row.opt_text(2)?.is_some() {
        finished::ended(row, 2)
    } else {
        Ok(made_of(id, draft, row.int(0)?, row.int(1)?).text())
    }
}

fn made_of(id: String, draft: &Draft, seq: i64, now: i64) -> Batch {
    let items = draft.payloads.iter().enumerate();
    let items = items.map(|(index, payload)| (format!("{id}:item:{index}"), payload.get().to_owned())).collect();
    Batch {
        seq,
        id,
        session_id: draft.session_id.clone(),
        source_key: draft.source_key.clone(),
        delivery: draft.delivery_policy,
        slot: draft.slot_policy,
        merge_key: draft.merge_key.clone(),
        available_at_ms: draft.available_at_ms,
        enqueued_at_ms: now,
        attempts: 0,
        max_attempts: draft.max_attempts,
        items,
    }
}

/// The batch that has the source key of `draft` already. One that vanishes meanwhile frees the key.
fn known(pg: &mut Pg<'_>, draft: &Draft) -> Result<Result<String>> {
    for _ in 0..TRIES {
        if let Some(known) = super::rows::known(pg, draft)? {
            return Ok(match known.batch {
                Ok(batch) => Ok(batch.text()),
                Err(why) => Err(queue_corrupt(&known.id, &why)),
            });
        }
        let id = format!("qwb:{}", random());
        let replies = pg.exchange(&[insertion(&id, draft)], false)?;
        if let Some(row) = replies.first().and_then(|reply| reply.rows.first()).map(PgRow) {
            return Ok(Ok(inserted(id, draft, &row)?));
        }
    }
    Err(bug("a source key is there and is not"))
}

const CLAIM: &str = concat!(
    "SELECT ",
    super::rows::columns!(),
    ", claim_id, claim_fencing_token FROM claim_work(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
);
const ITEMS: &str = "SELECT i.batch_id, i.item_index, i.item_id, i.payload_json
     FROM queued_work_batches b JOIN queued_work_items i ON i.batch_id = b.batch_id
     WHERE b.enqueue_seq = ANY (current_setting('holdfast.looked')::bigint[]) ORDER BY i.batch_id, i.item_index";

/// Claims batches; returns the claim as JSON, `null` if there is nothing. What is `damaged` is not there for a claim; only here it can be
/// told whether what the server decided by is.
/// Answers with what else turned out to be damaged: then nothing may be committed, and it must be called again.
pub(crate) fn claim(pg: &mut Pg<'_>, claim: &Claim, damaged: &[i64]) -> Result<std::result::Result<String, Vec<i64>>> {
    let request = &claim.request;
    let wanted = claim.batch_ids.as_ref().map_or(claim.max_batches.unwrap_or(0), |ids| ids.len() as i64);
    if wanted == 0 {
        return Ok(Ok("null".to_owned()));
    }
    let token = random();
    let ask = Statement::new(
        "claim work",
        CLAIM,
        &[
            Value::Text(&request.session_id),
            Value::Int(i64::from(request.boundary == Boundary::ActiveTurnCheckpoint)),
            Value::Int(wanted),
            Value::Text(&request.owner_id),
            Value::Text(&token),
            Value::Int(request.lease_ttl_ms.min(TIME_MAX)),
        ],
    )
    .with_texts(claim.batch_ids.clone())
    .with_ints(damaged.to_vec());
    let items = Statement::new("read a batch", ITEMS, &[]);
    let replies = pg.exchange(&[ask, items], false)?;
    let [looked, items] = replies.as_slice() else { return Err(bug("an answer is missing")) };
    let mut found: Vec<(String, Item)> = Vec::with_capacity(items.rows.len());
    for row in items.rows.iter().map(PgRow) {
        found.push((row.string(0)?, item(&row, 1)));
    }
    let (mut texts, mut bad) = (Vec::new(), Vec::new());
    let mut lease = None;
    for row in looked.rows.iter().map(PgRow) {
        let stored = Stored::read(&row)?;
        let is_mine = stored.token.as_ref() == Some(&token);
        if is_mine && lease.is_none() {
            lease = Some((row.string(17)?, row.int(18)?, row.int(12)?, stored.expires_at_ms));
        }
        let (own, rest) = found.into_iter().partition(|(id, _)| *id == stored.id);
        found = rest;
        let filled = stored.batch.and_then(|mut batch| {
            batch.items = collect(own.into_iter().map(|(_, item)| item).collect())?;
            Ok(batch)
        });
        match filled {
            Ok(batch) if is_mine => texts.push(batch.text()),
            Ok(_) => {}
            Err(_) => bad.push(stored.seq),
        }
    }
    if !bad.is_empty() {
        return Ok(Err(bad));
    }
    let Some((claim_id, fencing, now, expires)) = lease else { return Ok(Ok("null".to_owned())) };
    Ok(Ok(format!(
        "{{\"sessionId\":{},\"claimId\":{},\"ownerId\":{},\"leaseToken\":\"{token}\",\"fencingToken\":{fencing},\
         \"claimedAtEpochMs\":{now},\"expiresAtEpochMs\":{expires},\"batches\":[{}]}}",
        json::quote(&request.session_id),
        json::quote(&claim_id),
        json::quote(&request.owner_id),
        texts.join(",")
    )))
}

/// Moves the end of a lease; returns it.
pub(crate) fn renew(pg: &mut Pg<'_>, renewal: &Renewal) -> Result<String> {
    let Renewal { held, batch_ids, lease_ttl_ms } = renewal;
    let keys = [Value::Text(&held.session_id), Value::Text(&held.claim_id), Value::Text(&held.lease_token)];
    let lock = Statement::new(
        "look for a claim",
        "SELECT batch_id FROM queued_work_batches WHERE session_id = ?1 AND claim_id = ?2 AND claim_token = ?3
         ORDER BY enqueue_seq FOR UPDATE",
        &keys,
    );
    let replies = pg.exchange(&[lock, Pg::clock()], false)?;
    let [carriers, clock] = replies.as_slice() else { return Err(bug("an answer is missing")) };
    let mut carried = carriers.rows.iter().map(|row| PgRow(row).string(0)).collect::<Result<Vec<_>>>()?;
    let mut ids = batch_ids.clone();
    carried.sort_unstable();
    ids.sort_unstable();
    if ids.is_empty() || carried != ids {
        return Err(claim_expired(&held.session_id, &held.claim_id));
    }
    let expires = Pg::read_now(&clock.rows)?.saturating_add(*lease_ttl_ms).min(TIME_MAX);
    let [session, claim, token] = keys;
    pg.post(
        "renew a claim",
        "UPDATE queued_work_batches SET claim_expires_at_ms = ?4
         WHERE session_id = ?1 AND claim_id = ?2 AND claim_token = ?3",
        &[session, claim, token, Value::Int(expires)],
    )?;
    Ok(expires.to_string())
}
