//! Attachments: announced before their bytes are written elsewhere, so that orphans can be found.

use serde::Deserialize;

use crate::error::Result;
use crate::json;
use crate::session_graph::sql::{Sql, Value, all};

/// What is announced.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Intent {
    attachment_id: String,
    session_id: String,
    canonical_uri: String,
    intent_at_epoch_ms: i64,
}

/// Announces an attachment; the first announcement counts.
pub(crate) fn record(sql: &mut dyn Sql, intent: &Intent) -> Result<()> {
    sql.post(
        "announce an attachment",
        "INSERT INTO attachment_manifest (session_id, attachment_id, canonical_uri, intent_at_ms)
         VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        &[
            Value::Text(&intent.session_id),
            Value::Text(&intent.attachment_id),
            Value::Text(&intent.canonical_uri),
            Value::Int(intent.intent_at_epoch_ms),
        ],
    )
}

/// Marks attachments of a session as committed; those that are keep their time.
pub(crate) fn commit(sql: &mut dyn Sql, session_id: &str, ids: &[String], now: i64) -> Result<()> {
    for id in ids {
        sql.post(
            "commit an attachment",
            "UPDATE attachment_manifest SET committed_at_ms = ?3
             WHERE session_id = ?1 AND attachment_id = ?2 AND committed_at_ms IS NULL",
            &[Value::Text(session_id), Value::Text(id), Value::Int(now)],
        )?;
    }
    Ok(())
}

/// Attachments that were announced until then and never committed, as a JSON array.
pub(crate) fn uncommitted(sql: &mut dyn Sql, until: i64) -> Result<String> {
    let entries = all(
        sql,
        "list attachments",
        "SELECT attachment_id, session_id, canonical_uri, intent_at_ms FROM attachment_manifest
         WHERE committed_at_ms IS NULL AND intent_at_ms <= ?1 ORDER BY intent_at_ms, attachment_id, session_id",
        &[Value::Int(until)],
        |row| {
            Ok(format!(
                "{{\"attachmentId\":{},\"sessionId\":{},\"canonicalUri\":{},\"intentAtEpochMs\":{},\"committedAtEpochMs\":null}}",
                json::quote(row.text(0)?),
                json::quote(row.text(1)?),
                json::quote(row.text(2)?),
                row.int(3)?
            ))
        },
    )?;
    Ok(format!("[{}]", entries.join(",")))
}

/// Forgets an attachment, in one session or in all; tells whether there was one.
pub(crate) fn forget(sql: &mut dyn Sql, id: &str, session_id: Option<&str>, only_uncommitted: bool) -> Result<bool> {
    let removed = sql.run(
        "forget an attachment",
        "DELETE FROM attachment_manifest WHERE attachment_id = ?1 AND (?2 IS NULL OR session_id = ?2)
         AND (?3 = 0 OR committed_at_ms IS NULL)",
        &[Value::Text(id), Value::OptText(session_id), Value::Int(i64::from(only_uncommitted))],
    )?;
    Ok(removed > 0)
}
