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
}

/// Stores it; `replaces` what is there, or leaves that alone.
pub(crate) fn put(sql: &mut dyn Sql, meta: &Meta, replaces: bool) -> Result<()> {
    if replaces {
        sql.run("replace the description", "DELETE FROM session_meta", &[])?;
    }
    sql.run(
        "store the description",
        "INSERT INTO session_meta (singleton, session_id, session_name, created_at, model, cwd, relation_json)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        &[
            Value::Text(&meta.session_id),
            Value::Text(&meta.session_name),
            Value::Text(&meta.created_at),
            Value::Text(&meta.model),
            Value::OptText(meta.cwd.as_deref()),
            Value::Text(meta.relation.as_deref().map_or(ROOT, RawValue::get)),
        ],
    )
    .map(drop)
}

/// Reads it, as JSON.
pub(crate) fn get(sql: &mut dyn Sql) -> Result<Option<String>> {
    first(
        sql,
        "read the description",
        "SELECT session_id, session_name, created_at, model, cwd, relation_json FROM session_meta",
        &[],
        |row| {
            Ok(format!(
                "{{\"sessionId\":{},\"sessionName\":{},\"createdAt\":{},\"model\":{},\"cwd\":{},\"relation\":{}}}",
                json::quote(row.text(0)?),
                json::quote(row.text(1)?),
                json::quote(row.text(2)?),
                json::quote(row.text(3)?),
                row.opt_text(4)?.map_or_else(|| "null".to_owned(), json::quote),
                row.opt_text(5)?.unwrap_or(ROOT)
            ))
        },
    )
}
