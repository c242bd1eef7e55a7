//! One transaction for everything that waits: intents, rows, events, ends of intents, stamps.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::layout::{Layout, storable};
use super::look::{Before, FieldKey, Known, New, ask, hidden, recorded};
use crate::entity::continuity::{self, Last};
use crate::entity::derive::{Derived, Row};
use crate::entity::event::event_text;
use crate::entity::field_text::plain_key;
use crate::entity::model::{Appended, Durability, Outcome, PlainRow, Staged};
use crate::error::Result;
use crate::postgres::types::{ToSql, Type};
use crate::postgres::{Client, Step};

/// Something to be written.
pub enum Job {
    /// An intent.
    Begin { staged: Arc<Staged> },
    /// A change; derived already, and `None` if nothing had changed.
    Append { staged: Arc<Staged>, outcome: Outcome, derived: Option<Arc<Derived>> },
    /// Rows of a caller.
    Rows { rows: Vec<PlainRow> },
}

impl Job {
    /// The entities whose history it continues or whose intents it adds, as hashes.
    pub fn entities(&self) -> Vec<u64> {
        match self {
            Job::Begin { staged } | Job::Append { staged, .. } => vec![entity_of(&staged.kind.name, &staged.id)],
            Job::Rows { rows } => rows.iter().map(|row| entity_of(&row.kind, &row.entity_id)).collect(),
        }
    }

    /// How many rows it adds, for the bound of a batch.
    pub fn weight(&self) -> usize {
        match self {
            Job::Begin { .. } => 1,
            Job::Append { derived, .. } => 1 + derived.as_ref().map_or(0, |derived| derived.rows.len()),
            Job::Rows { rows, .. } => rows.len(),
        }
    }
}

/// An entity, as a hash.
pub fn entity_of(kind: &str, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    // As they are stored: what the database cannot tell apart is one.
    (storable(kind), storable(id)).hash(&mut hasher);
    hasher.finish()
}

/// Writes that nobody waits for.
#[derive(Default)]
pub struct Later {
    /// Changes that will not be appended, each with its [entity](entity_of).
    pub forgotten: Vec<(u64, String)>,
    /// Events that were taken.
    pub delivered: Vec<String>,
    /// Since when the oldest of them waits.
    pub since: Option<Instant>,
}

impl Later {
    /// The changes whose intents end.
    pub fn ended(&self) -> Vec<String> {
        self.forgotten.iter().map(|(_, change_id)| change_id.clone()).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.forgotten.is_empty() && self.delivered.is_empty()
    }
}

/// What became of the jobs of a batch, in their order; `None` for those without a result.
pub type Results = Vec<Option<Appended>>;

/// The columns of the new rows of `entity_transitions`.
#[derive(Default)]
struct Transitions {
    id: Vec<String>,
    kind: Vec<String>,
    entity_id: Vec<String>,
    field: Vec<String>,
    from_value: Vec<Option<String>>,
    to_value: Vec<String>,
    to_key: Vec<Vec<u8>>,
    masked: Vec<bool>,
    change_id: Vec<String>,
    at: Vec<i64>,
    ordinal: Vec<i64>,
}

/// The columns of the new rows of `entity_changes`.
#[derive(Default)]
struct Events {
    change_id: Vec<String>,
    kind: Vec<String>,
    entity_id: Vec<String>,
    op: Vec<String>,
    actor: Vec<String>,
    payload: Vec<String>,
    at: Vec<i64>,
}

/// The columns of the new rows of `entity_intents`.
#[derive(Default)]
struct Intents {
    change_id: Vec<String>,
    kind: Vec<String>,
    entity_id: Vec<String>,
    op: Vec<String>,
    prev: Vec<Option<String>>,
    marks: Vec<Option<String>>,
    actor: Vec<String>,
    run_id: Vec<Option<String>>,
}

/// Commits a batch. `again`: an earlier attempt may have been committed.
///
/// # Errors
/// Nothing was written, except where the answer was lost; then the same batch may be committed again.
pub async fn commit(
    shared: &Shared,
    client: &Client,
    layout: &Layout,
    jobs: &[&Job],
    later: &Later,
    again: bool,
) -> Result<Results> {
    let recorded = if again { recorded(client, layout, jobs).await? } else { HashMap::new() };
    let mut results: Results = jobs.iter().map(|_| None).collect();
    let (mut news, mut intents, mut ended) = (Vec::new(), Intents::default(), later.ended());
    for (job, each) in jobs.iter().enumerate() {
        match each {
            Job::Begin { .. } => {}
            Job::Append { staged, derived, .. } => {
                if staged.has_intent {
                    ended.push(staged.change_id.clone());
                }
                let Some(derived) = derived else { continue };
                if let Some(slot) = results.get_mut(job) {
                    *slot = Some(appended(derived));
                }
                if recorded.contains_key(&staged.change_id) {
                    continue;
                }
                news.extend(derived.rows.iter().enumerate().map(|(index, row)| New {
                    job,
                    index,
                    staged: Some(staged),
                    change_id: &staged.change_id,
                    kind: storable(&staged.kind.name),
                    entity_id: storable(&staged.id),
                    row: std::borrow::Cow::Borrowed(row),
                }));
            }
            Job::Rows { rows, .. } => news.extend(rows.iter().map(|row| New {
                job,
                index: row.index,
                staged: None,
                change_id: &row.change_id,
                kind: storable(&row.kind),
                entity_id: storable(&row.entity_id),
                row: std::borrow::Cow::Owned(Row {
                    field: row.field.clone(),
                    from_value: row.from_value.clone(),
                    to_value: row.to_value.clone(),
                    to_key: plain_key(&row.to_value),
                    from_key: None,
                    masked: row.masked,
                }),
            })),
        }
    }
    let ((mut known, now), hidden) = tokio::try_join!(ask(client, layout, &news), hidden(client, layout, jobs))?;
    let shrunk = shrink(jobs, &recorded, &known, &mut news, &mut results)?;
    for (job, each) in jobs.iter().enumerate() {
        let hidden = hidden.get(&job).map_or(&[][..], Vec::as_slice);
        match (each, results.get_mut(job).and_then(Option::as_mut)) {
            (Job::Begin { staged, .. }, _) => intents.push(staged, hidden)?,
            (Job::Append { staged, derived: Some(derived), .. }, Some(result))
                if let Some(rows) = recorded.get(&staged.change_id)
                    && derived.next.is_some() =>
            {
                // What the history has hidden of it, it hides from the one who is told now, too.
                if let Some(prev) = result.prev.take() {
                    result.prev = Some(continuity::hide(&prev, &hidden_in(derived, rows))?.into_owned());
                }
            }
            // A removal has no rows that would hide what was hidden.
            (Job::Append { derived: Some(derived), .. }, Some(result)) if derived.next.is_none() => {
                if let Some(prev) = result.prev.take() {
                    result.prev = Some(continuity::hide(&prev, hidden)?.into_owned());
                }
            }
            _ => {}
        }
    }
    let mut transitions = Transitions::default();
    let mut times: HashMap<usize, i64> = HashMap::new();
    for new in &news {
        let field = storable(&new.row.field);
        let key = (new.kind.clone(), new.entity_id.clone(), field.clone());
        let entry = known.entry(key).or_insert(Known { last: None, ordinal: 0 });
        let newest = entry.last.as_ref().map(|last| last.at);
        let at = match times.get(&new.job) {
            Some(at) if newest.is_none_or(|newest| newest < *at) => *at,
            _ => shared.clock.next(&new.kind, &new.entity_id, now, newest),
        };
        times.insert(new.job, at);
        let from = match results.get_mut(new.job).and_then(Option::as_mut) {
            Some(result) => {
                continuity::from_value(new.staged, &new.row, entry.last.as_ref(), &mut result.prev, &mut result.gaps)?
            }
            None => new.row.from_value.clone(),
        };
        entry.ordinal += 1;
        let to_value = storable(&new.row.to_value);
        entry.last = Some(Last {
            to_value: to_value.clone(),
            to_key: Some(new.row.to_key.to_vec()),
            masked: new.row.masked,
            at,
        });
        transitions.id.push(format!("{}.{}", new.change_id, new.index));
        transitions.kind.push(new.kind.clone());
        transitions.entity_id.push(new.entity_id.clone());
        transitions.field.push(field);
        transitions.from_value.push(from.as_deref().map(storable));
        transitions.to_value.push(to_value);
        transitions.to_key.push(new.row.to_key.to_vec());
        transitions.masked.push(new.row.masked);
        transitions.change_id.push(new.change_id.to_owned());
        transitions.at.push(at);
        transitions.ordinal.push(entry.ordinal);
    }
    let mut events = Events::default();
    if shared.durability != Durability::AfterCommit {
        for (job, each) in jobs.iter().enumerate() {
            let Job::Append { staged, outcome, derived: Some(derived), .. } = each else { continue };
            let Some(result) = results.get(job).and_then(Option::as_ref) else { continue };
            if recorded.contains_key(&staged.change_id) {
                continue;
            }
            let at = *times
                .entry(job)
                .or_insert_with(|| shared.clock.next(&storable(&staged.kind.name), &storable(&staged.id), now, None));
            events.push(staged, outcome, shrunk.get(&job).unwrap_or(derived), result, at);
        }
    }
    let mut stamps = later.delivered.clone();
    // In one order everywhere, so that two processes never wait for each other.
    stamps.sort_unstable();
    send(shared, client, layout, jobs.is_empty(), &transitions, &events, &intents, &ended, &stamps).await?;
    Ok(results)
}

/// Takes out of orphaned changes what others have recorded since their intents. Returns what is left of those that are not whole.
fn shrink(
    jobs: &[&Job],
    recorded: &HashMap<String, Before>,
    known: &HashMap<FieldKey, Known>,
    news: &mut Vec<New<'_>>,
    results: &mut Results,
) -> Result<HashMap<usize, Arc<Derived>>> {
    let mut shrunk = HashMap::new();
    for (job, each) in jobs.iter().enumerate() {
        let Job::Append { staged, derived: Some(derived), .. } = each else { continue };
        if staged.orphaned_at.is_none() || recorded.contains_key(&staged.change_id) {
            continue;
        }
        let key = |row: &Row| (storable(&staged.kind.name), storable(&staged.id), storable(&row.field));
        let last = |row: &Row| known.get(&key(row)).and_then(|known| known.last.as_ref());
        let told: Vec<bool> = derived.rows.iter().map(|row| continuity::is_told(staged, row, last(row))).collect();
        if !told.contains(&true) {
            continue;
        }
        news.retain(|new| new.job != job || told.get(new.index) == Some(&false));
        let left = derived.without(&told)?;
        if let Some(slot) = results.get_mut(job) {
            *slot = left.as_ref().map(appended);
        }
        shrunk.extend(left.map(|left| (job, Arc::new(left))));
    }
    Ok(shrunk)
}

/// The fields whose recorded value before is not the one that this change was derived from: it was masked by then.
fn hidden_in(derived: &Derived, recorded: &[(String, String)]) -> Vec<(String, String)> {
    let stored = |row: &Row| (storable(&row.field), row.from_value.as_deref().map(storable));
    let before: HashMap<String, Option<String>> = derived.rows.iter().map(stored).collect();
    let shown = |(field, text): &&(String, String)| before.get(field).and_then(Option::as_ref) != Some(text);
    recorded.iter().filter(shown).cloned().collect()
}

/// Only what differs from what the caller has himself is handed back.
pub fn trimmed(mut appended: Appended, staged: &Staged, outcome: &Outcome) -> Appended {
    appended.prev = appended.prev.filter(|text| Some(text) != staged.prev.as_ref());
    appended.next = appended.next.filter(|text| Some(text) != outcome.next.as_ref());
    appended
}

pub fn appended(derived: &Derived) -> Appended {
    Appended {
        changed_fields: derived.changed_fields_json.clone(),
        count: derived.changed_fields.len(),
        delta: derived.delta.clone(),
        prev: derived.prev.clone(),
        next: derived.next.clone(),
        gaps: Vec::new(),
    }
}

impl Events {
    fn push(&mut self, staged: &Staged, outcome: &Outcome, derived: &Derived, result: &Appended, at: i64) {
        let event = Derived { prev: result.prev.clone(), ..derived.clone() };
        let (kind, id) = (&staged.kind.name, &staged.id);
        self.payload.push(event_text(kind, id, &event, &staged.actor, &outcome.occurred_at, &staged.change_id));
        self.change_id.push(staged.change_id.clone());
        self.kind.push(storable(kind));
        self.entity_id.push(storable(id));
        self.op.push(staged.op.as_str().to_owned());
        self.actor.push(staged.actor.clone());
        self.at.push(at);
    }
}

impl Intents {
    fn push(&mut self, staged: &Staged, hidden: &[(String, String)]) -> Result<()> {
        let concealed = staged.concealed(hidden)?;
        self.marks.push(concealed.as_ref().and_then(|concealed| concealed.marks.clone()));
        self.prev.push(concealed.map(|concealed| concealed.prev.into_owned()));
        self.change_id.push(staged.change_id.clone());
        self.kind.push(storable(&staged.kind.name));
        self.entity_id.push(storable(&staged.id));
        self.op.push(staged.op.as_str().to_owned());
        self.actor.push(staged.actor.clone());
        self.run_id.push(staged.run_id.as_deref().map(storable));
        Ok(())
    }
}

#[expect(clippy::too_many_arguments, reason = "one per kind of row")]
async fn send(
    shared: &Shared,
    client: &Client,
    layout: &Layout,
    nobody_waits: bool,
    transitions: &Transitions,
    events: &Events,
    intents: &Intents,
    ended: &[String],
    stamps: &[String],
) -> Result<()> {
    let owner = shared.owner.as_str();
    let schema = &layout.schema;
    let ended = ended.to_vec();
    let stamps = stamps.to_vec();
    let add_rows = add_rows_sql(layout);
    let add_events = format!(
        "INSERT INTO {schema}.entity_changes (change_id, kind, entity_id, op, actor, payload, owner, created_at) \
         SELECT c, k, i, o, a::json, p::json, $8, 'epoch'::timestamptz + t * interval '1 microsecond' \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[]) \
           AS n(c, k, i, o, a, p, t) ON CONFLICT (change_id) DO NOTHING"
    );
    let add_intents = format!(
        "INSERT INTO {schema}.entity_intents (change_id, kind, entity_id, op, prev, marks, actor, run_id, owner, created_at) \
         SELECT c, k, i, o, p::json, m, a::json, r, $9, clock_timestamp() \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[]) \
           AS n(c, k, i, o, p, m, a, r) ON CONFLICT (change_id) DO NOTHING"
    );
    let end_intents = format!("DELETE FROM {schema}.entity_intents WHERE change_id = ANY($1)");
    let stamp = format!(
        "UPDATE {schema}.entity_changes SET delivered_at = clock_timestamp() WHERE change_id = ANY($1) \
         AND delivered_at IS NULL"
    );
    let notices = shared.notices(&events.change_id);
    let channel = layout.channel();
    let notify = "SELECT pg_notify($1, n) FROM unnest($2::text[]) AS n";

    let own_rows: [(&(dyn ToSql + Sync), Type); 11] = [
        (&transitions.id, Type::TEXT_ARRAY),
        (&transitions.kind, Type::TEXT_ARRAY),
        (&transitions.entity_id, Type::TEXT_ARRAY),
        (&transitions.field, Type::TEXT_ARRAY),
        (&transitions.from_value, Type::TEXT_ARRAY),
        (&transitions.to_value, Type::TEXT_ARRAY),
        (&transitions.to_key, Type::BYTEA_ARRAY),
        (&transitions.masked, Type::BOOL_ARRAY),
        (&transitions.change_id, Type::TEXT_ARRAY),
        (&transitions.at, Type::INT8_ARRAY),
        (&transitions.ordinal, Type::INT8_ARRAY),
    ];
    let event_rows: [(&(dyn ToSql + Sync), Type); 8] = [
        (&events.change_id, Type::TEXT_ARRAY),
        (&events.kind, Type::TEXT_ARRAY),
        (&events.entity_id, Type::TEXT_ARRAY),
        (&events.op, Type::TEXT_ARRAY),
        (&events.actor, Type::TEXT_ARRAY),
        (&events.payload, Type::TEXT_ARRAY),
        (&events.at, Type::INT8_ARRAY),
        (&owner, Type::TEXT),
    ];
    let intent_rows: [(&(dyn ToSql + Sync), Type); 9] = [
        (&intents.change_id, Type::TEXT_ARRAY),
        (&intents.kind, Type::TEXT_ARRAY),
        (&intents.entity_id, Type::TEXT_ARRAY),
        (&intents.op, Type::TEXT_ARRAY),
        (&intents.prev, Type::TEXT_ARRAY),
        (&intents.marks, Type::TEXT_ARRAY),
        (&intents.actor, Type::TEXT_ARRAY),
        (&intents.run_id, Type::TEXT_ARRAY),
        (&owner, Type::TEXT),
    ];
    let ended_ids: [(&(dyn ToSql + Sync), Type); 1] = [(&ended, Type::TEXT_ARRAY)];
    let stamped_ids: [(&(dyn ToSql + Sync), Type); 1] = [(&stamps, Type::TEXT_ARRAY)];
    let notified: [(&(dyn ToSql + Sync), Type); 2] = [(&channel, Type::TEXT), (&notices, Type::TEXT_ARRAY)];

    let mut steps: Vec<Step<'_>> = Vec::new();
    if nobody_waits {
        // A crash of the server soon after does what a crash of ours just before would have done.
        steps.push(Step { sql: "SELECT set_config('synchronous_commit', 'off', true)", params: &[] });
    }
    if !transitions.id.is_empty() {
        let params = if layout.own { &own_rows[..] } else { own_rows.get(..6).unwrap_or_default() };
        steps.push(Step { sql: &add_rows, params });
    }
    if !events.change_id.is_empty() {
        steps.push(Step { sql: &add_events, params: &event_rows });
        steps.push(Step { sql: notify, params: &notified });
    }
    if !intents.change_id.is_empty() {
        steps.push(Step { sql: &add_intents, params: &intent_rows });
    }
    if !ended.is_empty() {
        steps.push(Step { sql: &end_intents, params: &ended_ids });
    }
    if !stamps.is_empty() {
        steps.push(Step { sql: &stamp, params: &stamped_ids });
    }
    if steps.len() > usize::from(nobody_waits) {
        client.pipelined_transaction("recording entity changes", &steps).await?;
    }
    Ok(())
}

/// Empties the payloads of delivered events. Others have read them by now. Whole states are not kept for ever; who changed what is.
pub async fn empty(client: &Client, layout: &Layout) -> Result<()> {
    let sql = format!(
        "UPDATE {}.entity_changes SET payload = '{{}}', held = false WHERE held AND delivered_at IS NOT NULL \
         AND created_at < clock_timestamp() - interval '5 minutes'",
        layout.schema
    );
    client.run("emptying delivered events", &sql, &[]).await.map(drop)
}

/// Adds rows: with the times and positions that were worked out, or, to a table of the seven columns, with the server's time.
fn add_rows_sql(layout: &Layout) -> String {
    let table = &layout.transitions;
    if layout.own {
        let at = layout.time("t");
        return format!(
            "INSERT INTO {table} (id, kind, entity_id, field, from_value, to_value, to_key, masked, change_id, \
             transitioned_at, ordinal) SELECT n, k, i, f, v, w, y, m, c, {at}, o \
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bool[], \
               $9::text[], $10::bigint[], $11::bigint[]) AS r(n, k, i, f, v, w, y, m, c, t, o) \
             ORDER BY k, i, f, o ON CONFLICT (id) DO NOTHING"
        );
    }
    format!(
        "WITH now AS MATERIALIZED (SELECT {} AS at) \
         INSERT INTO {table} (id, kind, entity_id, field, from_value, to_value, transitioned_at) \
         SELECT n, k, i, f, v, w, now.at FROM now, \
         unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) AS r(n, k, i, f, v, w) \
         ON CONFLICT (id) DO NOTHING",
        layout.now()
    )
}
