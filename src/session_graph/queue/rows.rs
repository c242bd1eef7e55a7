//! The rows of batches and of their items.

use std::collections::HashMap;

use super::batch::{Batch, Delivery, Draft, MergeKey, Slot};
use super::finished;
use crate::error::Result;
use crate::ids;
use crate::json;
use crate::session_graph::error::{bug, queue_corrupt};
use crate::session_graph::sql::{Row, Sql, Value, all, first};

/// A row as it stands, and what it means.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) seq: i64,
    pub(super) id: String,
    /// What is wrong with it, if it means nothing.
    pub(super) batch: std::result::Result<Batch, String>,
    pub(super) token: Option<String>,
    pub(super) expires_at_ms: i64,
    pub(super) owner: Option<String>,
    pub(super) claimed_at_ms: i64,
    /// Whether its last claim was made.
    pub(super) is_last: bool,
    /// How long its end is remembered.
    pub(super) retain_ms: Option<i64>,
}

impl Stored {
    /// Whether somebody holds it.
    pub(super) fn is_live(&self, now: i64) -> bool {
        self.token.is_some() && self.expires_at_ms > now
    }

    /// Whether nobody holds it, and nobody gets it any more.
    pub(super) fn is_dead(&self, now: i64) -> bool {
        self.is_last && !self.is_live(now)
    }

    /// The batch; of a damaged one what is certain.
    pub(super) fn or_remains(self, session: &str) -> Batch {
        let (seq, id) = (self.seq, self.id);
        self.batch.unwrap_or_else(|_| Batch {
            seq,
            id,
            session_id: session.to_owned(),
            source_key: None,
            delivery: Delivery::EarliestSafeBoundary,
            slot: Slot::Exclusive,
            merge_key: MergeKey::Never,
            available_at_ms: 0,
            enqueued_at_ms: 0,
            attempts: 0,
            max_attempts: None,
            items: Vec::new(),
        })
    }

    pub(super) fn read(row: &dyn Row) -> Result<Self> {
        let (seq, id) = (row.int(0)?, row.string(1)?);
        Ok(Self {
            seq,
            batch: meaning(row, seq, &id),
            id,
            token: row.opt_string(9)?,
            expires_at_ms: row.int(10)?,
            owner: row.opt_string(11)?,
            claimed_at_ms: row.int(12)?,
            is_last: row.int(13)? == 1,
            retain_ms: row.opt_int(16)?,
        })
    }
}

fn meaning(row: &dyn Row, seq: i64, id: &str) -> std::result::Result<Batch, String> {
    let bad = |what: &'static str| move |_: crate::error::HfError| format!("its {what} cannot be read");
    let text = |column: usize, what: &'static str| row.text(column).map_err(bad(what));
    Ok(Batch {
        seq,
        id: id.to_owned(),
        session_id: text(2, "session_id")?.to_owned(),
        source_key: row.opt_string(3).map_err(bad("source_key"))?,
        delivery: Delivery::read(text(4, "delivery_policy")?).ok_or("its delivery_policy is none of the known ones")?,
        slot: Slot::read(text(5, "slot_policy")?).ok_or("its slot_policy is none of the known ones")?,
        merge_key: MergeKey::read(text(6, "merge_key_json")?).ok_or("its merge_key_json is none of the known ones")?,
        available_at_ms: row.int(7).map_err(bad("available_at_ms"))?,
        enqueued_at_ms: row.int(8).map_err(bad("enqueued_at_ms"))?,
        attempts: row.int(14).map_err(bad("attempts"))?,
        max_attempts: row.opt_int(15).map_err(bad("max_attempts"))?,
        items: Vec::new(),
    })
}

/// The columns of [`Stored`].
macro_rules! columns {
    () => {
        "enqueue_seq, batch_id, session_id, source_key, delivery_policy, slot_policy, merge_key_json, available_at_ms,
         enqueued_at_ms, claim_token, claim_expires_at_ms, claim_owner_id, claim_claimed_at_ms, last_attempt, attempts,
         max_attempts, retain_ms"
    };
}
pub(super) use columns;

/// Ready batches behind `after`, at most `limit`, in their order. Three streams, each found by an index of its own: what can go at
/// once, what had to wait for a time that has come, and what somebody held for too long.
pub(super) fn ready(sql: &mut dyn Sql, session: &str, now: i64, after: i64, limit: i64) -> Result<Vec<Stored>> {
    all(
        sql,
        "look for work",
        concat!(
            "SELECT ",
            columns!(),
            " FROM queued_work_batches WHERE enqueue_seq IN (
               SELECT a.enqueue_seq FROM (
                 SELECT b.enqueue_seq FROM (SELECT enqueue_seq FROM queued_work_batches
                   WHERE session_id = ?1 AND claim_token IS NULL AND available_at_ms = 0 AND last_attempt = 0
                     AND enqueue_seq > ?3
                   ORDER BY enqueue_seq LIMIT ?4) AS b
                 UNION ALL
                 SELECT c.enqueue_seq FROM (SELECT enqueue_seq FROM queued_work_batches
                   WHERE session_id = ?1 AND claim_token IS NULL AND available_at_ms > 0 AND available_at_ms <= ?2
                     AND last_attempt = 0 AND enqueue_seq > ?3
                   ORDER BY enqueue_seq LIMIT ?4) AS c
                 UNION ALL
                 SELECT d.enqueue_seq FROM (SELECT enqueue_seq FROM queued_work_batches
                   WHERE session_id = ?1 AND claim_token IS NOT NULL AND claim_expires_at_ms <= ?2
                     AND available_at_ms <= ?2 AND last_attempt = 0 AND enqueue_seq > ?3
                   ORDER BY enqueue_seq LIMIT ?4) AS d
               ) AS a ORDER BY a.enqueue_seq LIMIT ?4)
             ORDER BY enqueue_seq"
        ),
        &[Value::Text(session), Value::Int(now), Value::Int(after), Value::Int(limit)],
        Stored::read,
    )
}

/// Reads the items of a batch into it.
pub(super) fn fill(sql: &mut dyn Sql, stored: &mut Stored) -> Result<()> {
    let Ok(batch) = &mut stored.batch else { return Ok(()) };
    let items = all(
        sql,
        "read a batch",
        "SELECT item_index, item_id, payload_json FROM queued_work_items WHERE batch_id = ?1 ORDER BY item_index",
        &[Value::Text(&stored.id)],
        |row| Ok(item(row, 0)),
    )?;
    match collect(items) {
        Ok(items) => batch.items = items,
        Err(why) => stored.batch = Err(why),
    }
    Ok(())
}

pub(super) type Item = std::result::Result<(i64, String, String), String>;

pub(super) fn item(row: &dyn Row, first: usize) -> Item {
    let read =
        || -> Result<(i64, String, String)> { Ok((row.int(first)?, row.string(first + 1)?, row.string(first + 2)?)) };
    let item = read().map_err(|_| "an item cannot be read".to_owned())?;
    if json::validate(item.2.as_bytes()).is_err() {
        return Err(format!("the payload of item {} is no JSON", item.0));
    }
    Ok(item)
}

pub(super) fn collect(items: Vec<Item>) -> std::result::Result<Vec<(String, String)>, String> {
    let mut out = Vec::with_capacity(items.len());
    for (place, item) in (0_i64..).zip(items) {
        let (index, id, payload) = item?;
        if index != place {
            return Err(format!("item {place} is missing"));
        }
        out.push((id, payload));
    }
    Ok(out)
}

/// The batch that is stored with the same source key.
pub(super) fn known(sql: &mut dyn Sql, draft: &Draft) -> Result<Option<Stored>> {
    let Some(key) = &draft.source_key else { return Ok(None) };
    let mut known = first(
        sql,
        "look for a source key",
        concat!("SELECT ", columns!(), " FROM queued_work_batches WHERE session_id = ?1 AND source_key = ?2"),
        &[Value::Text(&draft.session_id), Value::Text(key)],
        Stored::read,
    )?;
    if let Some(known) = &mut known {
        fill(sql, known)?;
    }
    Ok(known)
}

/// Stores a batch, or finds the one with the same source key. Returns its JSON.
pub(crate) fn enqueue(sql: &mut dyn Sql, draft: &Draft) -> Result<String> {
    if let Some(known) = known(sql, draft)? {
        return match known.batch {
            Ok(batch) => Ok(batch.text()),
            Err(why) => Err(queue_corrupt(&known.id, &why)),
        };
    }
    let now = sql.now()?;
    if let (Some(key), Some(_)) = (&draft.source_key, draft.retain_ms)
        && let Some(known) = finished::by_key(sql, &draft.session_id, key, now)?
    {
        return Ok(known);
    }
    let id = format!("qwb:{}", random());
    let seqs = all(
        sql,
        "enqueue a batch",
        "INSERT INTO queued_work_batches
         (batch_id, session_id, source_key, delivery_policy, slot_policy, merge_key_json, available_at_ms, enqueued_at_ms,
          max_attempts, retain_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING enqueue_seq",
        &[
            Value::Text(&id),
            Value::Text(&draft.session_id),
            Value::OptText(draft.source_key.as_deref()),
            Value::Text(draft.delivery_policy.stored()),
            Value::Text(draft.slot_policy.stored()),
            Value::Text(&draft.merge_key.stored()),
            Value::Int(draft.available_at_ms),
            Value::Int(now),
            Value::OptInt(draft.max_attempts),
            Value::OptInt(draft.retain_ms),
        ],
        |row| row.int(0),
    )?;
    let seq = seqs.first().copied().ok_or_else(|| bug("a batch was stored without a number"))?;
    let mut items = Vec::with_capacity(draft.payloads.len());
    for (index, payload) in (0_i64..).zip(&draft.payloads) {
        let item_id = format!("{id}:item:{index}");
        sql.run(
            "enqueue an item",
            "INSERT INTO queued_work_items (batch_id, item_index, item_id, payload_json) VALUES (?1, ?2, ?3, ?4)",
            &[Value::Text(&id), Value::Int(index), Value::Text(&item_id), Value::Text(payload.get())],
        )?;
        items.push((item_id, payload.get().to_owned()));
    }
    let batch = Batch {
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
    };
    Ok(batch.text())
}

/// 32 random hex digits.
pub(super) fn random() -> String {
    ids::uuid().replace('-', "")
}

fn every(sql: &mut dyn Sql, session: Option<&str>) -> Result<Vec<Stored>> {
    let mut rows = all(
        sql,
        "list work",
        concat!(
            "SELECT ",
            columns!(),
            " FROM queued_work_batches WHERE (?1 IS NULL OR session_id = ?1) ORDER BY enqueue_seq"
        ),
        &[Value::OptText(session)],
        Stored::read,
    )?;
    let mut items: HashMap<String, Vec<Item>> = HashMap::new();
    sql.rows(
        "list work",
        "SELECT i.batch_id, i.item_index, i.item_id, i.payload_json FROM queued_work_items i
         JOIN queued_work_batches b ON b.batch_id = i.batch_id WHERE (?1 IS NULL OR b.session_id = ?1)
         ORDER BY i.batch_id, i.item_index",
        &[Value::OptText(session)],
        &mut |row| {
            items.entry(row.string(0)?).or_default().push(item(row, 1));
            Ok(true)
        },
    )?;
    for stored in &mut rows {
        let Ok(batch) = &mut stored.batch else { continue };
        match collect(items.remove(&stored.id).unwrap_or_default()) {
            Ok(items) => batch.items = items,
            Err(why) => stored.batch = Err(why),
        }
    }
    Ok(rows)
}

/// All batches of a session as a JSON array; `pending`: without those that somebody holds, and those that nobody gets any more.
pub(crate) fn list(sql: &mut dyn Sql, session: &str, pending: bool) -> Result<String> {
    let now = sql.now()?;
    let mut out = String::from("[");
    for stored in every(sql, Some(session))? {
        if pending && (stored.is_live(now) || stored.is_dead(now)) {
            continue;
        }
        let batch = stored.batch.map_err(|why| queue_corrupt(&stored.id, &why))?;
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&batch.text());
    }
    out.push(']');
    Ok(out)
}

/// Damaged batches of all sessions: their ids, and what is wrong.
pub(crate) fn problems(sql: &mut dyn Sql) -> Result<Vec<(String, String)>> {
    let damaged = |stored: Stored| stored.batch.err().map(|why| (stored.id, why));
    Ok(every(sql, None)?.into_iter().filter_map(damaged).collect())
}
