//! The usual batch as one statement: intents of entities without secrets, changes that continue unmasked history. It looks, decides
//! and writes at once, in a transaction of its own, so that a batch costs one round trip and one commit. What it finds to be unusual
//! it leaves out and names.

use std::borrow::Cow;
use std::collections::HashSet;

use super::batch::{Job, Later, appended};
use super::layout::{Layout, micros};
use super::{PER_NOTICE, Shared};
use crate::entity::derive::{Derived, Row};
use crate::entity::event::event_text;
use crate::entity::field_text::plain_key;
use crate::entity::model::{Appended, Durability, Outcome, Staged};
use crate::error::Result;
use crate::postgres::types::{ToSql, Type};
use crate::postgres::{Client, Param};

/// What became of a job: its result, or `None` where the statement left it out.
pub type Swift = Vec<Option<Option<Appended>>>;

/// Intents, by column.
#[derive(Default)]
struct Intents<'a> {
    change_id: Vec<&'a str>,
    kind: Vec<Cow<'a, str>>,
    entity_id: Vec<Cow<'a, str>>,
    op: Vec<&'a str>,
    prev: Vec<Option<Cow<'a, str>>>,
    marks: Vec<Option<String>>,
    actor: Vec<&'a str>,
    run_id: Vec<Option<Cow<'a, str>>>,
    job: Vec<i32>,
}

/// Rows, by column. The first row of a change carries its event and the end of its intent.
#[derive(Default)]
struct Rows<'a> {
    change_id: Vec<&'a str>,
    index: Vec<i32>,
    kind: Vec<Cow<'a, str>>,
    entity_id: Vec<Cow<'a, str>>,
    field: Vec<Cow<'a, str>>,
    from_value: Vec<Option<Cow<'a, str>>>,
    to_value: Vec<Cow<'a, str>>,
    to_key: Vec<&'a [u8]>,
    masked: Vec<bool>,
    from_key: Vec<Option<&'a [u8]>>,
    plain_key: Vec<Option<Vec<u8>>>,
    floor: Vec<Option<i64>>,
    op: Vec<Option<&'a str>>,
    actor: Vec<Option<&'a str>>,
    payload: Vec<Option<String>>,
    ends: Vec<bool>,
    job: Vec<i32>,
}

/// What PostgreSQL can hold of a text, see [`super::layout::storable`].
fn kept(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// States of so many bytes are not worth a statement that looks first: it would hold them several times over.
const LARGE: usize = 1 << 20;

/// Whether a batch can be tried as one statement: no rows of a caller, no removal, of each entity one change at most, and no large
/// states.
pub fn suits(layout: &Layout, jobs: &[&Job]) -> bool {
    let size = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let mut changed = HashSet::new();
    for job in jobs {
        let usual = match job {
            Job::Begin { staged } => size(&staged.prev) < LARGE,
            Job::Append { derived: None, .. } => true,
            Job::Append { staged, derived: Some(derived), .. } => {
                derived.next.is_some()
                    && staged.orphaned_at.is_none()
                    && size(&derived.prev) + size(&derived.next) < LARGE
                    && !derived.rows.is_empty()
                    && changed.insert((kept(&staged.kind.name), kept(&staged.id)))
            }
            Job::Rows { .. } => false,
        };
        if !usual {
            return false;
        }
    }
    layout.own && !jobs.is_empty() && changed.len() <= PER_NOTICE
}

/// Commits a batch that [`suits`], but for the jobs that it leaves out.
///
/// # Errors
/// As [`super::batch::commit`].
pub async fn commit(shared: &Shared, client: &Client, layout: &Layout, jobs: &[&Job], later: &Later) -> Result<Swift> {
    let with_events = shared.durability != Durability::AfterCommit;
    let mut results: Swift = jobs.iter().map(|_| Some(None)).collect();
    let (mut intents, mut rows) = (Intents::default(), Rows::default());
    let mut ended: Vec<&str> = later.forgotten.iter().map(|(_, change_id)| change_id.as_str()).collect();
    for ((job, each), number) in jobs.iter().enumerate().zip(0..) {
        match each {
            Job::Begin { staged } => intents.push(staged, number)?,
            Job::Append { staged, derived: None, .. } if staged.has_intent => ended.push(&staged.change_id),
            Job::Append { staged, outcome, derived: Some(derived) } => {
                // Asking for a time takes it: the next one is later than all that were told so far.
                let floor = shared.clock.next(&kept(&staged.kind.name), &kept(&staged.id), i64::MIN, None);
                rows.push(staged, outcome, derived, with_events, floor, number);
                if let Some(slot) = results.get_mut(job) {
                    *slot = Some(Some(appended(derived)));
                }
            }
            _ => {}
        }
    }
    let mut stamps: Vec<&str> = later.delivered.iter().map(String::as_str).collect();
    // In one order everywhere, so that two processes never wait for each other.
    stamps.sort_unstable();
    if intents.job.is_empty() && rows.job.is_empty() && ended.is_empty() && stamps.is_empty() {
        return Ok(results);
    }

    let owner = shared.owner.as_str();
    let channel = layout.channel();
    let mut statement = Statement::default();
    if !rows.job.is_empty() {
        statement.append(layout, &rows, with_events.then_some((&owner, &channel)));
    }
    if !intents.job.is_empty() {
        statement.begin(layout, &intents, &owner);
    }
    statement.end_intents(layout, &ended, !rows.job.is_empty());
    statement.stamp(layout, &stamps);
    let answer = client.fetch("recording entity changes", &statement.sql(), &statement.params).await?;

    for row in &answer {
        let (Ok(job), left_out): (_, bool) = (usize::try_from(row.get::<_, i32>(0)), row.get(1)) else { continue };
        let (Some(Job::Append { staged, derived: Some(derived), .. }), Some(slot)) =
            (jobs.get(job), results.get_mut(job))
        else {
            if left_out && let Some(slot) = results.get_mut(job) {
                *slot = None;
            }
            continue;
        };
        if left_out {
            *slot = None;
            continue;
        }
        if let Some(at) = row.get::<_, Option<i64>>(4) {
            shared.clock.next(&kept(&staged.kind.name), &kept(&staged.id), at, None);
        }
        let index = row.get::<_, Option<i32>>(2).and_then(|index| usize::try_from(index).ok());
        if row.get::<_, Option<bool>>(3) == Some(true)
            && let Some(field) = index.and_then(|index| derived.rows.get(index))
            && let Some(Some(result)) = slot
        {
            result.gaps.push(field.field.clone());
        }
    }
    Ok(results)
}

impl<'a> Intents<'a> {
    fn push(&mut self, staged: &'a Staged, job: i32) -> Result<()> {
        let (prev, marks) = match staged.concealed(&[])? {
            Some(concealed) => (Some(concealed.prev), concealed.marks),
            None => (None, None),
        };
        self.prev.push(prev);
        self.marks.push(marks);
        self.change_id.push(&staged.change_id);
        self.kind.push(kept(&staged.kind.name));
        self.entity_id.push(kept(&staged.id));
        self.op.push(staged.op.as_str());
        self.actor.push(&staged.actor);
        self.run_id.push(staged.run_id.as_deref().map(kept));
        self.job.push(job);
        Ok(())
    }
}

impl<'a> Rows<'a> {
    fn push(
        &mut self,
        staged: &'a Staged,
        outcome: &'a Outcome,
        derived: &'a Derived,
        with_events: bool,
        floor: i64,
        job: i32,
    ) {
        for (row, index) in derived.rows.iter().zip(0..) {
            let first = index == 0;
            let tells = first && with_events;
            self.change_id.push(&staged.change_id);
            self.index.push(index);
            self.kind.push(kept(&staged.kind.name));
            self.entity_id.push(kept(&staged.id));
            self.values(row);
            // What no database can hold as a time: nothing was told of this entity so far.
            self.floor.push((floor > -9_000_000_000_000_000).then_some(floor));
            self.op.push(tells.then(|| staged.op.as_str()));
            self.actor.push(tells.then_some(&staged.actor));
            self.payload.push(tells.then(|| {
                let (kind, id) = (&staged.kind.name, &staged.id);
                event_text(kind, id, derived, &staged.actor, &outcome.occurred_at, &staged.change_id)
            }));
            self.ends.push(first && staged.has_intent);
            self.job.push(job);
        }
    }

    fn values(&mut self, row: &'a Row) {
        self.field.push(kept(&row.field));
        self.from_value.push(row.from_value.as_deref().map(kept));
        self.to_value.push(kept(&row.to_value));
        self.to_key.push(&row.to_key);
        self.masked.push(row.masked);
        self.from_key.push(row.from_key.as_ref().map(|key| &key[..]));
        self.plain_key.push(row.from_value.as_deref().map(|text| plain_key(text).to_vec()));
    }
}

/// A statement in the making.
#[derive(Default)]
struct Statement<'a> {
    params: Vec<Param<'a>>,
    /// Its common table expressions.
    tables: Vec<String>,
    /// What it answers: job, left out, index of the row, gap, time, and nothing.
    answers: Vec<String>,
}

impl<'a> Statement<'a> {
    /// Adds a value and returns how the statement names it. Behind a subquery the planner never sees how long an array is: it makes
    /// one plan for all lengths, and keeps it.
    fn value(&mut self, value: &'a (dyn ToSql + Sync), kind: Type) -> String {
        let name = kind.name().trim_start_matches('_').to_owned();
        let array = if kind.name().starts_with('_') { "[]" } else { "" };
        self.params.push((value, kind));
        format!("(SELECT ${}::{name}{array})", self.params.len())
    }

    fn append(&mut self, layout: &Layout, rows: &'a Rows<'a>, told: Option<(&'a &'a str, &'a String)>) {
        let columns: [(&'a (dyn ToSql + Sync), Type); 17] = [
            (&rows.change_id, Type::TEXT_ARRAY),
            (&rows.index, Type::INT4_ARRAY),
            (&rows.kind, Type::TEXT_ARRAY),
            (&rows.entity_id, Type::TEXT_ARRAY),
            (&rows.field, Type::TEXT_ARRAY),
            (&rows.from_value, Type::TEXT_ARRAY),
            (&rows.to_value, Type::TEXT_ARRAY),
            (&rows.to_key, Type::BYTEA_ARRAY),
            (&rows.masked, Type::BOOL_ARRAY),
            (&rows.from_key, Type::BYTEA_ARRAY),
            (&rows.plain_key, Type::BYTEA_ARRAY),
            (&rows.floor, Type::INT8_ARRAY),
            (&rows.op, Type::TEXT_ARRAY),
            (&rows.actor, Type::TEXT_ARRAY),
            (&rows.payload, Type::TEXT_ARRAY),
            (&rows.ends, Type::BOOL_ARRAY),
            (&rows.job, Type::INT4_ARRAY),
        ];
        let arrays: Vec<String> = columns.into_iter().map(|(value, kind)| self.value(value, kind)).collect();
        let table = &layout.transitions;
        let mine = "t.kind = a.kind AND t.entity_id = a.entity_id AND t.field = a.field";
        // A masked last text that is not the one before this change takes its place there and in the event: not for a statement.
        self.tables.push(format!(
            "a AS MATERIALIZED (SELECT a.*, {last} AS last_at, coalesce(o.ordinal, 0) + 1 AS ordinal, \
               coalesce(l.masked AND l.to_value <> a.from_value, false) AS hidden, \
               coalesce(NOT l.masked AND NOT CASE WHEN l.to_key IS NULL OR a.from_key IS NULL THEN l.to_value = a.from_value \
                 ELSE l.to_key = a.from_key OR l.to_key = a.plain_key END, false) AND a.from_value IS NOT NULL AS gap \
             FROM unnest({arrays}) AS a(change_id, index, kind, entity_id, field, from_value, to_value, to_key, masked, from_key, \
               plain_key, floor, op, actor, payload, ends, job) \
             LEFT JOIN LATERAL (SELECT to_value, to_key, masked, transitioned_at FROM {table} t WHERE {mine} \
               ORDER BY t.transitioned_at DESC, t.seq DESC LIMIT 1) l ON true \
             LEFT JOIN LATERAL (SELECT ordinal FROM {table} t WHERE {mine} AND t.ordinal IS NOT NULL \
               ORDER BY t.ordinal DESC LIMIT 1) o ON true)",
            last = layout.zoned("l.transitioned_at"),
            arrays = arrays.join(", "),
        ));
        self.tables.push(
            "r AS MATERIALIZED (SELECT a.*, bool_or(hidden) OVER change AS left_out, \
               greatest((SELECT clock_timestamp()), max(last_at) OVER change + interval '1 microsecond', \
                 'epoch'::timestamptz + floor * interval '1 microsecond') AS at \
             FROM a WINDOW change AS (PARTITION BY job) ORDER BY job, index)"
                .to_owned(),
        );
        self.tables.push(format!(
            "added AS (INSERT INTO {table} (id, kind, entity_id, field, from_value, to_value, to_key, masked, change_id, \
               transitioned_at, ordinal) \
             SELECT change_id || '.' || index, kind, entity_id, field, from_value, to_value, to_key, masked, change_id, {at}, \
               ordinal FROM r WHERE NOT left_out ORDER BY kind, entity_id, field ON CONFLICT (id) DO NOTHING)",
            at = layout.unzoned("at"),
        ));
        let mut notified = "NULL::text".to_owned();
        if let Some((owner, channel)) = told {
            let (owner, channel) = (self.value(owner, Type::TEXT), self.value(channel, Type::TEXT));
            self.tables.push(format!(
                "told AS (INSERT INTO {}.entity_changes (change_id, kind, entity_id, op, actor, payload, owner, created_at) \
                 SELECT change_id, kind, entity_id, op, actor::json, payload::json, {owner}, at FROM r \
                 WHERE payload IS NOT NULL AND NOT left_out ORDER BY job ON CONFLICT (change_id) DO NOTHING)",
                layout.schema
            ));
            notified = format!(
                "(SELECT pg_notify({channel}, {owner} || ':' || ids)::text FROM (SELECT string_agg(change_id, ',') AS ids FROM r \
                 WHERE payload IS NOT NULL AND NOT left_out) AS n WHERE ids IS NOT NULL)"
            );
        }
        self.answers.push(format!("SELECT job, left_out, index, gap, {}, {notified} FROM r", micros("at")));
    }

    fn begin(&mut self, layout: &Layout, intents: &'a Intents<'a>, owner: &'a &'a str) {
        let columns: [(&'a (dyn ToSql + Sync), Type); 9] = [
            (&intents.change_id, Type::TEXT_ARRAY),
            (&intents.kind, Type::TEXT_ARRAY),
            (&intents.entity_id, Type::TEXT_ARRAY),
            (&intents.op, Type::TEXT_ARRAY),
            (&intents.prev, Type::TEXT_ARRAY),
            (&intents.marks, Type::TEXT_ARRAY),
            (&intents.actor, Type::TEXT_ARRAY),
            (&intents.run_id, Type::TEXT_ARRAY),
            (&intents.job, Type::INT4_ARRAY),
        ];
        let arrays: Vec<String> = columns.into_iter().map(|(value, kind)| self.value(value, kind)).collect();
        let owner = self.value(owner, Type::TEXT);
        // A subquery of one row is looked up; EXISTS could become a table of all that was ever masked.
        self.tables.push(format!(
            "i AS MATERIALIZED (SELECT i.*, i.prev IS NOT NULL AND (SELECT true FROM {} t \
               WHERE t.kind = i.kind AND t.entity_id = i.entity_id AND t.masked LIMIT 1) IS NOT NULL AS left_out \
             FROM unnest({}) AS i(change_id, kind, entity_id, op, prev, marks, actor, run_id, job))",
            layout.transitions,
            arrays.join(", "),
        ));
        self.tables.push(format!(
            "begun AS (INSERT INTO {}.entity_intents (change_id, kind, entity_id, op, prev, marks, actor, run_id, owner, created_at) \
             SELECT change_id, kind, entity_id, op, prev::json, marks, actor::json, run_id, {owner}, clock_timestamp() FROM i \
             WHERE NOT left_out ON CONFLICT (change_id) DO NOTHING)",
            layout.schema
        ));
        self.answers
            .push("SELECT job, true, NULL::int4, NULL::bool, NULL::int8, NULL::text FROM i WHERE left_out".to_owned());
    }

    fn end_intents(&mut self, layout: &Layout, ended: &'a Vec<&'a str>, with_rows: bool) {
        let mut ids = Vec::new();
        if with_rows {
            ids.push("ARRAY(SELECT change_id FROM r WHERE ends AND NOT left_out)".to_owned());
        }
        if !ended.is_empty() {
            ids.push(self.value(ended, Type::TEXT_ARRAY));
        }
        if !ids.is_empty() {
            let (schema, ids) = (&layout.schema, ids.join(" || "));
            self.tables.push(format!(
                "ended AS (DELETE FROM {schema}.entity_intents WHERE change_id = ANY (({ids})::text[]))"
            ));
        }
    }

    fn stamp(&mut self, layout: &Layout, stamps: &'a Vec<&'a str>) {
        if !stamps.is_empty() {
            let ids = self.value(stamps, Type::TEXT_ARRAY);
            self.tables.push(format!(
                "stamped AS (UPDATE {}.entity_changes SET delivered_at = clock_timestamp() \
                 WHERE change_id = ANY (({ids})::text[]) AND delivered_at IS NULL)",
                layout.schema
            ));
        }
    }

    fn sql(&self) -> String {
        let none = "SELECT 0, false, NULL::int4, NULL::bool, NULL::int8, NULL::text WHERE false";
        let answers = if self.answers.is_empty() { none.to_owned() } else { self.answers.join(" UNION ALL ") };
        format!("WITH {} {answers}", self.tables.join(", "))
    }
}
