//! Questions to the log.

use super::layout::{Layout, storable};
use crate::entity::field_text::{field_text, keys_to_find};
use crate::entity::log::Question;
use crate::entity::model::{HistoryQuery, HistoryRow, Stats};
use crate::error::{Code, HfError, Result};
use crate::json::{self, Kind};
use crate::postgres::Client;
use crate::postgres::types::{ToSql, Type};

/// How many texts are compared by what they mean.
const MEANINGS_MAX: usize = 1000;

type Params<'a> = Vec<(&'a (dyn ToSql + Sync), Type)>;

/// Answers `inStateSince`.
pub async fn in_state_since(client: &Client, layout: &Layout, question: &Question, value: &str) -> Result<Option<i64>> {
    let (kind, id, field) = (storable(&question.kind), storable(&question.entity_id), storable(&question.field));
    let text = storable(&field_text(value));
    // Programs that write on their own may print an object with its keys in another order.
    let canonical = storable(&json::canonical(value).map_or_else(|_| text.clone(), |canonical| field_text(&canonical)));
    let table = &layout.transitions;
    let mine = "kind = $1 AND entity_id = $2 AND field = $3";
    let mut params: Params<'_> = vec![
        (&kind, Type::TEXT),
        (&id, Type::TEXT),
        (&field, Type::TEXT),
        (&text, Type::TEXT),
        (&canonical, Type::TEXT),
    ];
    let keys = keys_to_find(value).map(|key| key.to_vec());
    let [key, plain, twin] = &keys;
    let sql = if layout.own {
        params.push((key, Type::BYTEA));
        params.push((plain, Type::BYTEA));
        params.push((twin, Type::BYTEA));
        format!(
            "WITH latest AS (SELECT masked, transitioned_at FROM {table} WHERE {mine} \
               ORDER BY transitioned_at DESC, seq DESC LIMIT 1) \
             SELECT {at} FROM (SELECT CASE WHEN latest.masked THEN latest.transitioned_at ELSE greatest( \
               (SELECT max(transitioned_at) FROM {table} WHERE {mine} AND to_key = $6), \
               (SELECT max(transitioned_at) FROM {table} WHERE {mine} AND to_key = $7), \
               (SELECT max(transitioned_at) FROM {table} WHERE {mine} AND to_key = $8), \
               (SELECT max(transitioned_at) FROM {table} WHERE {mine} AND ordinal IS NULL AND to_key IS NULL \
                 AND md5(to_value) IN (md5($4), md5($5)) AND to_value IN ($4, $5))) END AS found FROM latest) AS answer",
            at = layout.micros("found")
        )
    } else {
        format!("SELECT {} FROM {table} WHERE {mine} AND to_value IN ($4, $5)", layout.micros("max(transitioned_at)"))
    };
    let rows = client.fetch("asking since when a field has its value", &sql, &params).await?;
    let found = rows.first().and_then(|row| row.get(0));
    if found.is_some() || !matches!(json::kind(value), Kind::Object | Kind::Array) {
        return Ok(found);
    }
    since_by_meaning(client, layout, [&kind, &id, &field], value).await
}

/// Looks for a value among the newest texts of programs that write objects in an order of their own.
async fn since_by_meaning(client: &Client, layout: &Layout, of: [&String; 3], value: &str) -> Result<Option<i64>> {
    let Ok(wanted) = json::canonical(value) else { return Ok(None) };
    let sql = format!(
        "SELECT to_value, {at} FROM {table} WHERE kind = $1 AND entity_id = $2 AND field = $3 {foreign} \
         ORDER BY transitioned_at DESC LIMIT {MEANINGS_MAX}",
        at = layout.micros("transitioned_at"),
        table = layout.transitions,
        foreign = if layout.own { "AND ordinal IS NULL" } else { "" },
    );
    let params = of.map(|text| (text as &(dyn ToSql + Sync), Type::TEXT));
    let rows = client.fetch("asking since when a field has its value", &sql, &params).await?;
    let same = |text: &str| text.starts_with(['{', '[']) && json::canonical(text).is_ok_and(|text| text == wanted);
    Ok(rows.iter().find(|row| same(row.get(0))).map(|row| row.get(1)))
}

/// Answers `transitionCount`: a difference of two positions, and what other programs wrote.
pub async fn transition_count(client: &Client, layout: &Layout, question: &Question, since_us: i64) -> Result<i64> {
    let (kind, id, field) = (storable(&question.kind), storable(&question.entity_id), storable(&question.field));
    let table = &layout.transitions;
    let mine = "kind = $1 AND entity_id = $2 AND field = $3";
    let since = layout.time("$4::bigint");
    let sql = if layout.own {
        format!(
            "SELECT coalesce((SELECT ordinal FROM {table} WHERE {mine} AND ordinal IS NOT NULL ORDER BY ordinal DESC LIMIT 1) \
               - (SELECT ordinal FROM {table} WHERE {mine} AND ordinal IS NOT NULL AND transitioned_at >= {since} \
                  ORDER BY transitioned_at LIMIT 1) + 1, 0) \
             + (SELECT count(*) FROM {table} WHERE {mine} AND ordinal IS NULL AND transitioned_at >= {since})"
        )
    } else {
        format!("SELECT count(*) FROM {table} WHERE {mine} AND transitioned_at >= {since}")
    };
    let params: Params<'_> =
        vec![(&kind, Type::TEXT), (&id, Type::TEXT), (&field, Type::TEXT), (&since_us, Type::INT8)];
    let rows = client.fetch("counting transitions", &sql, &params).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// Reads a page of the history.
pub async fn history(client: &Client, layout: &Layout, query: &HistoryQuery) -> Result<Vec<HistoryRow>> {
    if !layout.own {
        return Err(HfError::new(Code::InvalidArgument, "this table has no positions to page by; please report it"));
    }
    let (kind, id, field) = (storable(&query.kind), storable(&query.entity_id), query.field.as_deref().map(storable));
    let bound = |ms: Option<f64>, open: i64| ms.map_or(open, crate::entity::clock::micros);
    let (from, to) = (bound(query.from_ms, -9_000_000_000_000_000), bound(query.to_ms, 9_000_000_000_000_000));
    let (order, beyond) = if query.ascending { ("ASC", ">") } else { ("DESC", "<") };
    let limit = i64::from(query.limit);
    let (at, seq) = query.after.unwrap_or_default();
    let mut params: Params<'_> = vec![
        (&kind, Type::TEXT),
        (&id, Type::TEXT),
        (&field, Type::TEXT),
        (&from, Type::INT8),
        (&to, Type::INT8),
        (&limit, Type::INT8),
    ];
    let mut page = String::new();
    if query.after.is_some() {
        page = format!("AND (transitioned_at, seq) {beyond} ({}, $8::bigint)", layout.time("$7::bigint"));
        params.push((&at, Type::INT8));
        params.push((&seq, Type::INT8));
    }
    let sql = format!(
        "SELECT id, field, from_value, to_value, masked, change_id, {micros}, seq FROM {table} \
         WHERE kind = $1 AND entity_id = $2 AND ($3::text IS NULL OR field = $3) \
         AND transitioned_at >= {from} AND transitioned_at < {to} {page} \
         ORDER BY transitioned_at {order}, seq {order} LIMIT $6",
        micros = layout.micros("transitioned_at"),
        table = layout.transitions,
        from = layout.time("$4::bigint"),
        to = layout.time("$5::bigint"),
    );
    let rows = client.fetch("reading the history", &sql, &params).await?;
    Ok(rows
        .iter()
        .map(|row| HistoryRow {
            id: row.get(0),
            field: row.get(1),
            from_value: row.get(2),
            to_value: row.get(3),
            masked: row.get(4),
            change_id: row.get(5),
            at_us: row.get(6),
            seq: row.get(7),
        })
        .collect())
}

/// Counts what is waiting.
pub async fn waiting(client: &Client, layout: &Layout, keeps_events: bool) -> Result<Stats> {
    if !keeps_events {
        return Ok(Stats::default());
    }
    let sql = format!(
        "SELECT (SELECT count(*) FROM {s}.entity_changes WHERE delivered_at IS NULL), \
         (SELECT count(*) FROM {s}.entity_intents), \
         (SELECT (extract(epoch FROM min(created_at)) * 1000)::float8 FROM {s}.entity_changes WHERE delivered_at IS NULL)",
        s = layout.schema
    );
    let rows = client.fetch("reading the counters", &sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(Stats::default()) };
    let count = |index| row.get::<_, i64>(index).cast_unsigned();
    Ok(Stats { undelivered: count(0), intents: count(1), oldest_undelivered_ms: row.get(2), ..Stats::default() })
}
