//! What a batch asks before it writes: where histories end, what of them is masked, what is committed already.

use std::borrow::Cow;
use std::collections::HashMap;

use super::batch::Job;
use super::layout::{Layout, micros, storable};
use crate::entity::continuity::Last;
use crate::entity::derive::Row;
use crate::entity::event::state;
use crate::entity::model::Staged;
use crate::error::Result;
use crate::postgres::Client;
use crate::postgres::types::{ToSql, Type};

/// A row to be added, before the history is asked what it joins.
pub struct New<'a> {
    pub job: usize,
    pub index: usize,
    /// The change, unless a program made the row itself.
    pub staged: Option<&'a Staged>,
    pub change_id: &'a str,
    pub kind: String,
    pub entity_id: String,
    pub row: Cow<'a, Row>,
}

pub type FieldKey = (String, String, String);

/// What the history says of a field.
pub struct Known {
    pub last: Option<Last>,
    pub ordinal: i64,
}

/// Fields of a recorded change, and the texts of their values before.
pub type Before = Vec<(String, String)>;

/// Finds out which changes of a repeated batch are committed.
pub async fn recorded(client: &Client, layout: &Layout, jobs: &[&Job]) -> Result<HashMap<String, Before>> {
    let mut rows_of = Vec::new();
    let mut ids = Vec::new();
    for job in jobs {
        let Job::Append { staged, derived, .. } = job else { continue };
        let count = derived.as_ref().map_or(0, |derived| derived.rows.len());
        rows_of.extend((0..count).map(|index| format!("{}.{index}", staged.change_id)));
        ids.push(staged.change_id.clone());
    }
    let mut sql =
        format!("SELECT split_part(id, '.', 1), field, from_value FROM {} WHERE id = ANY($1)", layout.transitions);
    if layout.own {
        sql.push_str(&format!(
            " UNION ALL SELECT change_id, NULL, NULL FROM {}.entity_changes WHERE change_id = ANY($2)",
            layout.schema
        ));
    } else {
        sql.push_str(" AND $2::text[] IS NOT NULL");
    }
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&rows_of, Type::TEXT_ARRAY), (&ids, Type::TEXT_ARRAY)];
    let rows = client.fetch("looking for changes that were recorded", &sql, &params).await?;
    let mut found: HashMap<String, Before> = HashMap::new();
    for row in rows {
        let (field, text): (Option<String>, Option<String>) = (row.get(1), row.get(2));
        found.entry(row.get(0)).or_default().extend(field.zip(text));
    }
    Ok(found)
}

/// Of the fields with a gap before a change, those that had none before the entity was removed and made anew: what it was then is
/// nobody's concern.
pub async fn true_gaps(client: &Client, layout: &Layout, staged: &Staged, gaps: &[String]) -> Result<Vec<String>> {
    let table = &layout.transitions;
    let mine = "t.kind = $1 AND t.entity_id = $2 AND t.change_id IS DISTINCT FROM $3";
    let sql = format!(
        "SELECT g.field FROM unnest($4::text[]) AS g(field) WHERE NOT EXISTS \
           (SELECT 1 FROM {table} t WHERE {mine} AND t.from_value IS NULL AND t.transitioned_at > \
             (SELECT max(t.transitioned_at) FROM {table} t WHERE {mine} AND t.field = g.field))"
    );
    let (kind, id) = (storable(&staged.kind.name), storable(&staged.id));
    let fields: Vec<String> = gaps.iter().map(|field| storable(field)).collect();
    let params: [(&(dyn ToSql + Sync), Type); 4] =
        [(&kind, Type::TEXT), (&id, Type::TEXT), (&staged.change_id, Type::TEXT), (&fields, Type::TEXT_ARRAY)];
    let rows = client.fetch("looking whether history was lost", &sql, &params).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Asks for the latest row of each field, and the server's time in microseconds.
pub async fn ask(client: &Client, layout: &Layout, news: &[New<'_>]) -> Result<(HashMap<FieldKey, Known>, i64)> {
    if !layout.own {
        // The times come from the statement that adds the rows.
        return Ok((HashMap::new(), 0));
    }
    let (mut kinds, mut ids, mut fields) = (Vec::new(), Vec::new(), Vec::new());
    for new in news {
        kinds.push(new.kind.as_str());
        ids.push(new.entity_id.as_str());
        fields.push(storable(&new.row.field));
    }
    let sql = format!(
        "SELECT i.kind, i.entity_id, i.field, l.to_value, l.to_key, l.masked, {at}, o.ordinal, {now} \
         FROM (SELECT 1) AS one LEFT JOIN unnest($1::text[], $2::text[], $3::text[]) AS i(kind, entity_id, field) ON true \
         LEFT JOIN LATERAL (SELECT to_value, to_key, masked, transitioned_at FROM {table} t \
           WHERE t.kind = i.kind AND t.entity_id = i.entity_id AND t.field = i.field \
           ORDER BY t.transitioned_at DESC, t.seq DESC LIMIT 1) l ON true \
         LEFT JOIN LATERAL (SELECT ordinal FROM {table} t \
           WHERE t.kind = i.kind AND t.entity_id = i.entity_id AND t.field = i.field AND t.ordinal IS NOT NULL \
           ORDER BY t.ordinal DESC LIMIT 1) o ON true",
        at = layout.micros("l.transitioned_at"),
        now = micros("clock_timestamp()"),
        table = layout.transitions,
    );
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&kinds, Type::TEXT_ARRAY), (&ids, Type::TEXT_ARRAY), (&fields, Type::TEXT_ARRAY)];
    let rows = client.fetch("reading the latest entity transitions", &sql, &params).await?;
    let mut known = HashMap::new();
    let mut now = 0;
    for row in &rows {
        now = now.max(row.get::<_, i64>(8));
        let (Some(kind), Some(id), Some(field)) = (row.get(0), row.get(1), row.get(2)) else { continue };
        let last = row.get::<_, Option<String>>(3).map(|to_value| Last {
            to_value,
            to_key: row.get(4),
            masked: row.get::<_, Option<bool>>(5).unwrap_or(false),
            at: row.get::<_, Option<i64>>(6).unwrap_or(i64::MIN),
        });
        known.insert((kind, id, field), Known { last, ordinal: row.get::<_, Option<i64>>(7).unwrap_or(0) });
    }
    Ok((known, now))
}

/// Asks, for intents and removals, which fields' history ends with a masked value, and with which text; by job.
pub async fn hidden(client: &Client, layout: &Layout, jobs: &[&Job]) -> Result<HashMap<usize, Vec<(String, String)>>> {
    let mut found = HashMap::new();
    let states: Vec<(usize, &Staged, &str)> = jobs
        .iter()
        .enumerate()
        .filter_map(|(job, each)| match each {
            Job::Begin { staged } => Some((job, &**staged, staged.prev.as_deref()?)),
            Job::Append { staged, derived: Some(derived), .. } if derived.next.is_none() => {
                Some((job, &**staged, derived.prev.as_deref()?))
            }
            _ => None,
        })
        .collect();
    if states.is_empty() || !layout.own {
        return Ok(found);
    }
    let table = &layout.transitions;
    let (mut kinds, mut ids) = (Vec::new(), Vec::new());
    for (_, staged, _) in &states {
        kinds.push(storable(&staged.kind.name));
        ids.push(storable(&staged.id));
    }
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM {table} t WHERE t.kind = i.kind AND t.entity_id = i.entity_id AND t.masked) \
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS i(kind, entity_id, n) ORDER BY i.n"
    );
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&kinds, Type::TEXT_ARRAY), (&ids, Type::TEXT_ARRAY)];
    let any = client.fetch("looking for masked entity transitions", &sql, &params).await?;
    for ((job, staged, prev), _) in states.iter().zip(any).filter(|(_, row)| row.get(0)) {
        let members = state(prev)?;
        let fields: Vec<&str> = members.members().iter().map(|member| &*member.key).collect();
        let stored: Vec<String> = fields.iter().map(|field| storable(field)).collect();
        let (kind, id) = (storable(&staged.kind.name), storable(&staged.id));
        let sql = format!(
            "SELECT i.n, l.to_value FROM unnest($3::text[]) WITH ORDINALITY AS i(field, n) \
             CROSS JOIN LATERAL (SELECT to_value, masked FROM {table} t \
               WHERE t.kind = $1 AND t.entity_id = $2 AND t.field = i.field \
               ORDER BY t.transitioned_at DESC, t.seq DESC LIMIT 1) l WHERE l.masked"
        );
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&kind, Type::TEXT), (&id, Type::TEXT), (&stored, Type::TEXT_ARRAY)];
        let rows = client.fetch("reading masked entity transitions", &sql, &params).await?;
        let texts = rows.iter().filter_map(|row| {
            let place = usize::try_from(row.get::<_, i64>(0) - 1).ok()?;
            Some(((*fields.get(place)?).to_owned(), row.get(1)))
        });
        found.insert(*job, texts.collect());
    }
    Ok(found)
}
