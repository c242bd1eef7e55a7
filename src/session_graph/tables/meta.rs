//! What a list of sessions shows of this one.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::json;
use crate::session_graph::sql::{Sql, Value, first};

const ROOT: &str = "{\"type\":\"root\"}";

/// What is stored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    session_id: String,
    session_name: String,
    created_at: String,
    model: String,
    cwd: Option<String>,
    relation: Option<Box<RawValue>>,
    summary: Option<Box<RawValue>>,
}

/// Stores it; `replaces` what is there, or leaves that alone.
pub(crate) fn put(sql: &mut dyn Sql, meta: &Meta, replaces: bool) -> Result<()> {
    if replaces {
        sql.run("replace the description", "DELETE FROM session_meta", &[])?;
    }
    sql.run(
        "store the description",
        "INSERT INTO session_meta (singleton, session_id, session_name, created_at, model, cwd, relation_json,
          summary_json)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        &[
            Value::Text(&meta.session_id),
            Value::Text(&meta.session_name),
            Value::Text(&meta.created_at),
            Value::Text(&meta.model),
            Value::OptText(meta.cwd.as_deref()),
            Value::Text(meta.relation.as_deref().map_or(ROOT, RawValue::get)),
            Value::OptText(meta.summary.as_deref().map(RawValue::get)),
        ],
    )
    .map(drop)
}

/// Reads it, as JSON.
pub(crate) fn get(sql: &mut dyn Sql) -> Result<Option<String>> {
    first(
        sql,
        "read the description",
        "SELECT session_id, session_name, created_at, model, cwd, relation_json, summary_json FROM session_meta",
        &[],
        |row| {
            Ok(format!(
                "{{\"sessionId\":{},\"sessionName\":{},\"createdAt\":{},\"model\":{},\"cwd\":{},\"relation\":{}{}}}",
                json::quote(row.text(0)?),
                json::quote(row.text(1)?),
                json::quote(row.text(2)?),
                json::quote(row.text(3)?),
                row.opt_text(4)?.map_or_else(|| "null".to_owned(), json::quote),
                row.opt_text(5)?.unwrap_or(ROOT),
                row.opt_text(6)?.map_or_else(String::new, |summary| format!(",\"summary\":{summary}"))
            ))
        },
    )
}

/// Copies it to another store, for another session; none is none.
pub(crate) fn copy(
    from: &mut dyn Sql,
    to: &mut dyn Sql,
    session_id: &str,
    created_at: &str,
    relation: &str,
) -> Result<()> {
    let statement = "SELECT session_name, model, cwd, summary_json FROM session_meta";
    let found = first(from, "read the description", statement, &[], |row| {
        Ok((row.string(0)?, row.string(1)?, row.opt_string(2)?, row.opt_string(3)?))
    })?;
    let Some((name, model, cwd, summary)) = found else { return Ok(()) };
    to.run(
        "store the description",
        "INSERT INTO session_meta (singleton, session_id, session_name, created_at, model, cwd, relation_json,
          summary_json)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        &[
            Value::Text(session_id),
            Value::Text(&name),
            Value::Text(created_at),
            Value::Text(&model),
            Value::OptText(cwd.as_deref()),
            Value::Text(relation),
            Value::OptText(summary.as_deref()),
        ],
    )
    .map(drop)
}
