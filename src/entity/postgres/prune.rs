//! Retention: deletes what is too old or too many, in short transactions.

use super::layout::Layout;
use crate::entity::clock::micros;
use crate::entity::model::Retention;
use crate::error::Result;
use crate::postgres::types::{ToSql, Type};
use crate::postgres::{Client, Postgres};

/// Rows looked at, or deleted, in one transaction.
const SLICE: i64 = 1000;

/// Deletes what `retention` does not keep; returns how many rows.
///
/// # Errors
/// What was deleted before stays deleted.
pub async fn prune(postgres: &Postgres, layout: &Layout, retention: Retention, now_ms: f64) -> Result<u64> {
    let client = postgres.client().await?;
    let mut deleted = 0;
    if let Some(max_age_ms) = retention.max_age_ms {
        deleted += by_age(&client, layout, micros(now_ms - max_age_ms)).await?;
    }
    if let Some(most) = retention.max_rows_per_field {
        deleted += by_count(&client, layout, i64::from(most.max(1))).await?;
    }
    Ok(deleted)
}

async fn by_age(client: &Client, layout: &Layout, before: i64) -> Result<u64> {
    let table = &layout.transitions;
    let doing = "deleting old transitions";
    let slice = format!(
        "SELECT max(seq), {} FROM (SELECT seq, transitioned_at FROM {table} WHERE seq > $1 ORDER BY seq LIMIT $2) AS s",
        layout.micros("min(transitioned_at)")
    );
    let delete = format!(
        "DELETE FROM {table} AS old WHERE seq > $1 AND seq <= $2 AND transitioned_at < {} \
         AND EXISTS (SELECT 1 FROM {table} AS newer WHERE newer.kind = old.kind AND newer.entity_id = old.entity_id \
           AND newer.field = old.field AND newer.transitioned_at > old.transitioned_at)",
        layout.time("$3::bigint")
    );
    let (mut after, mut deleted) = (i64::MIN, 0);
    loop {
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&after, Type::INT8), (&SLICE, Type::INT8)];
        let rows = client.fetch(doing, &slice, &params).await?;
        let (end, oldest): (Option<i64>, Option<i64>) =
            rows.first().map_or((None, None), |row| (row.get(0), row.get(1)));
        let (Some(end), Some(oldest)) = (end, oldest) else { break };
        // Rows are written in the order of time, or nearly: behind a slice without an old one there is none.
        if oldest >= before {
            break;
        }
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&after, Type::INT8), (&end, Type::INT8), (&before, Type::INT8)];
        deleted += client.run(doing, &delete, &params).await?;
        after = end;
    }
    let changes = format!(
        "DELETE FROM {}.entity_changes WHERE delivered_at IS NOT NULL \
         AND created_at < 'epoch'::timestamptz + $1 * interval '1 microsecond'",
        layout.schema
    );
    client.run(doing, &changes, &[(&before, Type::INT8)]).await?;
    Ok(deleted)
}

async fn by_count(client: &Client, layout: &Layout, most: i64) -> Result<u64> {
    let table = &layout.transitions;
    let doing = "deleting surplus transitions";
    let next = format!(
        "SELECT kind, entity_id, field FROM {table} WHERE (kind, entity_id, field) > ($1, $2, $3) \
         ORDER BY kind, entity_id, field LIMIT 1"
    );
    let delete = format!(
        "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE kind = $1 AND entity_id = $2 AND field = $3 \
         AND ordinal <= (SELECT max(ordinal) FROM {table} WHERE kind = $1 AND entity_id = $2 AND field = $3) - $4 \
         ORDER BY ordinal LIMIT $5)"
    );
    let mut at = (String::new(), String::new(), String::new());
    let mut deleted = 0;
    loop {
        let params: [(&(dyn ToSql + Sync), Type); 3] = [(&at.0, Type::TEXT), (&at.1, Type::TEXT), (&at.2, Type::TEXT)];
        let rows = client.fetch(doing, &next, &params).await?;
        let Some(row) = rows.first() else { return Ok(deleted) };
        at = (row.get(0), row.get(1), row.get(2));
        loop {
            let params: [(&(dyn ToSql + Sync), Type); 5] = [
                (&at.0, Type::TEXT),
                (&at.1, Type::TEXT),
                (&at.2, Type::TEXT),
                (&most, Type::INT8),
                (&SLICE, Type::INT8),
            ];
            let count = client.run(doing, &delete, &params).await?;
            deleted += count;
            if (count as i64) < SLICE {
                break;
            }
        }
    }
}
