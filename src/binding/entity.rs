//! The entity module for the facade.
//!
//! A change crosses in two steps: `stage` hands in what is known before the owner's write and stays here, under a number that
//! the facade chose; `append` hands in the state after it. So each state crosses once.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;
use serde::Deserialize;

use super::durable::message;
use super::resources::{self, Kept};
use super::{failure, settle};
use crate::entity::handed_in;
use crate::entity::log::{Log, Question, Unlock};
use crate::entity::mask::SecretSet;
use crate::entity::model::{Appended, Durability, Kind, Op, Outcome, Staged};
use crate::entity::postgres::{Options as PgOptions, PgLog};
use crate::entity::sqlite::{APPLICATION_ID, MIGRATIONS, SqliteLog};
use crate::error::{Code, HfError, Result};
use crate::sqlite::{Migrate, Options, Synchronous, Target};
use crate::{ids, json, postgres};

/// Where a log lives.
#[derive(Debug, Deserialize)]
#[serde(tag = "target", rename_all = "camelCase")]
enum Config {
    #[serde(rename_all = "camelCase")]
    Sqlite {
        /// Missing = a private database in memory.
        path: Option<PathBuf>,
        synchronous: String,
        migrate: String,
        max_batch: usize,
        durability: Durability,
    },
    #[serde(rename_all = "camelCase")]
    Postgres {
        /// How to connect.
        connection: Box<postgres::Config>,
        /// Missing = the first of the connection's search path.
        schema: Option<String>,
        migrate: String,
        max_batch: usize,
        durability: Durability,
    },
}

/// The secrets of one run, compiled for masking.
#[napi]
pub struct EntitySecrets {
    set: Arc<SecretSet>,
}

#[napi]
impl EntitySecrets {
    /// Takes the values as the text of a JSON array of strings.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, values: String, token: String) -> napi::Result<Self> {
        failure::sync(env, || Ok(Self { set: Arc::new(SecretSet::new(&values, &token)?) }))
    }
}

/// A transition log.
#[napi]
pub struct EntityLog {
    log: Arc<dyn Log>,
    kinds: Mutex<Vec<Arc<Kind>>>,
    changes: Arc<Mutex<HashMap<u32, Pending>>>,
    inbox: Arc<Mutex<Inbox>>,
}

/// Changes of other processes on their way to JavaScript.
#[derive(Default)]
struct Inbox {
    payloads: Vec<String>,
    asked: Option<settle::Ticket<Vec<String>>>,
    closed: bool,
}

impl Inbox {
    /// Answers who asks, if there is something to say: payloads, or none for ever.
    fn answer(&mut self) {
        if (self.closed || !self.payloads.is_empty())
            && let Some(ticket) = self.asked.take()
        {
            ticket.settle(Ok(std::mem::take(&mut self.payloads)));
        }
    }
}

/// A change between `stage` and the end of its append.
struct Pending {
    staged: Arc<Staged>,
    /// What a failed append was given.
    outcome: Option<Outcome>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `adopt` is told of a change whose process died.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Adopted {
    change_id: String,
    entity_id: String,
    op: String,
    prev: Option<String>,
    actor: String,
    marks: Option<String>,
    run_id: Option<String>,
}

const SYSTEM_ACTOR: &str = r#"{"type":"system","id":"system","name":"System"}"#;

#[napi]
impl EntityLog {
    /// Describes a log; nothing is opened yet.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, config: String) -> napi::Result<Self> {
        failure::sync(env, || {
            let log: Arc<dyn Log> = match message::<Config>(&config)? {
                Config::Sqlite { path, synchronous, migrate, max_batch, durability } => {
                    let target = path.map_or(Target::Memory, Target::File);
                    let options = Options {
                        synchronous: if synchronous == "normal" { Synchronous::Normal } else { Synchronous::Full },
                        max_batch: max_batch.max(1),
                        migrate: match migrate.as_str() {
                            "check" => Migrate::Check,
                            "off" => Migrate::Off,
                            _ => Migrate::Auto,
                        },
                        ..Options::new(APPLICATION_ID, MIGRATIONS)
                    };
                    Arc::new(SqliteLog::new(target, options, durability))
                }
                Config::Postgres { connection, schema, migrate, max_batch, durability } => {
                    let max_batch = max_batch.max(1);
                    let options = PgOptions { config: *connection, schema, migrate, durability, max_batch };
                    Arc::new(PgLog::new(options)?)
                }
            };
            Ok(Self { log, kinds: Mutex::default(), changes: Arc::default(), inbox: Arc::default() })
        })
    }

    /// Connects, and creates or checks the tables.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn open<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::promise(env)?;
        self.log.open(Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }

    /// Registers a kind and returns its number. `known`: the fields of its schema, where that drops all others.
    #[napi(catch_unwind)]
    pub fn define_kind(&self, name: String, known: Option<Vec<String>>) -> u32 {
        let mut kinds = lock(&self.kinds);
        kinds.push(Arc::new(Kind { name, known: known.map(HashSet::from_iter) }));
        kinds.len() as u32 - 1
    }

    /// Hands in what is known before the owner's write, under the number `token`.
    #[napi(catch_unwind)]
    #[allow(clippy::too_many_arguments, reason = "one call instead of an object, which costs more than the call")]
    pub fn stage(
        &self,
        env: &Env,
        token: u32,
        kind: u32,
        id: String,
        removal: bool,
        prev: Option<String>,
        actor: Option<String>,
        run_id: Option<String>,
        secrets: Option<&EntitySecrets>,
        now_ms: f64,
        journal: bool,
    ) -> napi::Result<()> {
        failure::sync(env, || {
            self.log.usable()?;
            let staged = Staged {
                change_id: ids::uuid(),
                kind: self.kind(kind)?,
                id,
                op: if removal { Op::Remove } else { Op::Mutate },
                prev,
                actor: actor.unwrap_or_else(|| SYSTEM_ACTOR.to_owned()),
                run_id,
                secrets: secrets.map(|secrets| Arc::clone(&secrets.set)),
                mask_all_changed: false,
                marks: None,
                has_intent: journal,
                began_ms: now_ms,
            };
            lock(&self.changes).insert(token, Pending { staged: Arc::new(staged), outcome: None });
            Ok(())
        })
    }

    /// Stages a change whose process died, as `claim` returned it.
    #[napi(catch_unwind)]
    pub fn adopt(&self, env: &Env, token: u32, kind: u32, orphan: String, now_ms: f64) -> napi::Result<()> {
        failure::sync(env, || {
            let orphan: Adopted = message(&orphan)?;
            let staged = Staged {
                change_id: orphan.change_id,
                kind: self.kind(kind)?,
                id: orphan.entity_id,
                op: if orphan.op == "remove" { Op::Remove } else { Op::Mutate },
                prev: orphan.prev,
                actor: orphan.actor,
                mask_all_changed: orphan.run_id.is_some(),
                marks: orphan.marks,
                run_id: orphan.run_id,
                secrets: None,
                has_intent: true,
                began_ms: now_ms,
            };
            lock(&self.changes).insert(token, Pending { staged: Arc::new(staged), outcome: None });
            Ok(())
        })
    }

    /// Records the intent of a staged change.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn begin<'e>(&self, env: &'e Env, token: u32) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::promise(env)?;
        match self.staged(token) {
            Ok(staged) => self.log.begin(staged, Box::new(move |outcome| ticket.settle(outcome))),
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Appends a staged change. Resolves to null if nothing had changed, else to lines: change id, changed fields (JSON),
    /// delta (JSON), and, or empty, masked state before, masked state after, fields with a gap before this change (JSON).
    /// After a failure the change stays staged for `appendAgain`.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn append<'e>(
        &self,
        env: &'e Env,
        token: u32,
        next: Option<String>,
        occurred_at: String,
        now_ms: f64,
    ) -> napi::Result<PromiseRaw<'e, Option<String>>> {
        self.finish(env, token, Some(Outcome { next, occurred_at, now_ms, derived: None, again: false }))
    }

    /// Appends a staged change that the facade derived.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn append_derived<'e>(
        &self,
        env: &'e Env,
        token: u32,
        derived: String,
        occurred_at: String,
        now_ms: f64,
    ) -> napi::Result<PromiseRaw<'e, Option<String>>> {
        let derived = failure::sync(env, || handed_in::derived(&derived).map(Arc::new))?;
        let outcome = Outcome { next: None, occurred_at, now_ms, derived: Some(derived), again: false };
        self.finish(env, token, Some(outcome))
    }

    /// Appends a change whose append failed.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn append_again<'e>(&self, env: &'e Env, token: u32) -> napi::Result<PromiseRaw<'e, Option<String>>> {
        self.finish(env, token, None)
    }

    /// Forgets a staged change; its intent ends soon.
    #[napi(catch_unwind)]
    pub fn forget(&self, token: u32) {
        let found = lock(&self.changes).remove(&token);
        if let Some(Pending { staged, .. }) = found
            && staged.has_intent
        {
            self.log.forget(staged.change_id.clone());
        }
    }

    /// Notes that events were taken.
    #[napi(catch_unwind)]
    pub fn delivered(&self, change_id: String) {
        self.log.delivered(vec![change_id]);
    }

    /// Appends rows as they are: the text of a JSON array.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn append_rows<'e>(&self, env: &'e Env, rows: String, now_ms: f64) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::promise(env)?;
        match message(&rows) {
            Ok(rows) => self.log.append_rows(rows, now_ms, Box::new(move |outcome| ticket.settle(outcome))),
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Takes over what dead processes left of a kind: JSON text of intents and event payloads.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn claim<'e>(&self, env: &'e Env, kind: u32) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        match self.kind(kind) {
            Ok(kind) => {
                self.log.claim(kind, Box::new(move |orphans| ticket.settle(orphans.and_then(|found| text_of(&found)))));
            }
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Whether questions can be answered on this thread.
    #[napi(catch_unwind)]
    pub fn is_embedded(&self) -> bool {
        self.log.here().is_some()
    }

    /// Answers at once, in microseconds since the epoch. Only where `isEmbedded`.
    #[napi(catch_unwind)]
    pub fn in_state_since_here(
        &self,
        env: &Env,
        kind: String,
        entity_id: String,
        field: String,
        value: String,
    ) -> napi::Result<Option<f64>> {
        failure::sync(env, || {
            let here = self.log.here().ok_or_else(not_embedded)?;
            let question = Question { kind, entity_id, field };
            Ok(here.in_state_since(&question, &value)?.map(|us| us as f64))
        })
    }

    /// Answers at once. Only where `isEmbedded`.
    #[napi(catch_unwind)]
    pub fn transition_count_here(
        &self,
        env: &Env,
        kind: String,
        entity_id: String,
        field: String,
        since_us: f64,
    ) -> napi::Result<f64> {
        failure::sync(env, || {
            let here = self.log.here().ok_or_else(not_embedded)?;
            Ok(here.transition_count(&Question { kind, entity_id, field }, since_us as i64)? as f64)
        })
    }

    /// When the latest row that leads to `value` (JSON text) was written, in microseconds since the epoch.
    #[napi(ts_return_type = "Promise<number | null>")]
    pub fn in_state_since<'e>(
        &self,
        env: &'e Env,
        kind: String,
        entity_id: String,
        field: String,
        value: String,
    ) -> napi::Result<PromiseRaw<'e, Option<f64>>> {
        let (promise, ticket) = settle::promise(env)?;
        let done = move |at: Result<Option<i64>>| ticket.settle(at.map(|at| at.map(|us| us as f64)));
        self.log.in_state_since(Question { kind, entity_id, field }, value, Box::new(done));
        Ok(promise)
    }

    /// How many rows were written at or after `sinceUs`.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn transition_count<'e>(
        &self,
        env: &'e Env,
        kind: String,
        entity_id: String,
        field: String,
        since_us: f64,
    ) -> napi::Result<PromiseRaw<'e, f64>> {
        let (promise, ticket) = settle::promise(env)?;
        let done = move |count: Result<i64>| ticket.settle(count.map(|count| count as f64));
        self.log.transition_count(Question { kind, entity_id, field }, since_us as i64, Box::new(done));
        Ok(promise)
    }

    /// A page of the history, as JSON text.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn history<'e>(&self, env: &'e Env, query: String) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        match message(&query) {
            Ok(query) => {
                self.log.history(query, Box::new(move |rows| ticket.settle(rows.and_then(|rows| text_of(&rows)))))
            }
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Deletes what the retention does not keep; resolves to the number of deleted rows.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn prune<'e>(&self, env: &'e Env, retention: String, now_ms: f64) -> napi::Result<PromiseRaw<'e, f64>> {
        let (promise, ticket) = settle::promise(env)?;
        match message(&retention) {
            Ok(retention) => {
                let done = move |deleted: Result<u64>| ticket.settle(deleted.map(|deleted| deleted as f64));
                self.log.prune(retention, now_ms, Box::new(done));
            }
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Counters, as JSON text.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn stats<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        self.log.stats(Box::new(move |stats| ticket.settle(stats.and_then(|stats| text_of(&stats)))));
        Ok(promise)
    }

    /// Begins to listen for changes of other processes; resolves when none that comes can be missed.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn watch<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::promise(env)?;
        let inbox = Arc::clone(&self.inbox);
        let heard = move |payloads: Vec<String>| {
            let mut inbox = lock(&inbox);
            inbox.payloads.extend(payloads);
            inbox.answer();
        };
        self.log.watch(Box::new(heard), Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }

    /// The next changes of other processes, as event payloads; none = the log was closed. Does not keep the process alive. One at
    /// a time.
    #[napi(ts_return_type = "Promise<string[]>")]
    pub fn heard<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, Vec<String>>> {
        let (promise, ticket) = settle::background_promise(env)?;
        let mut inbox = lock(&self.inbox);
        inbox.asked = Some(ticket);
        inbox.answer();
        Ok(promise)
    }

    /// Keeps other processes from changing an entity; resolves to the number of a guard for `releaseEntity`.
    #[napi(ts_return_type = "Promise<number>")]
    #[allow(private_interfaces, reason = "napi wants exports public; nothing outside of this crate sees them")]
    pub fn lock_entity<'e>(
        &self,
        env: &'e Env,
        kind: String,
        entity_id: String,
    ) -> napi::Result<PromiseRaw<'e, Kept<EntityGuard>>> {
        let (promise, ticket) = settle::promise(env)?;
        let done = move |unlock: Result<Unlock>| ticket.settle(unlock.map(|unlock| Kept(EntityGuard(Some(unlock)))));
        self.log.lock_entity(kind, entity_id, Box::new(done));
        Ok(promise)
    }

    /// Gives back what `lockEntity` took.
    #[napi(catch_unwind)]
    pub fn release_entity(&self, env: &Env, guard: u32) -> napi::Result<()> {
        drop(resources::take::<EntityGuard>(env, guard));
        Ok(())
    }

    /// Runs a query of the facade that has one row with one text.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn probe<'e>(&self, env: &'e Env, sql: String) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        self.log.probe(sql, Box::new(move |text| ticket.settle(text)));
        Ok(promise)
    }

    /// Finishes what is queued, then lets go of everything.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::promise(env)?;
        let mut inbox = lock(&self.inbox);
        inbox.closed = true;
        inbox.answer();
        drop(inbox);
        self.log.close(Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }

    fn kind(&self, number: u32) -> Result<Arc<Kind>> {
        let found = lock(&self.kinds).get(number as usize).map(Arc::clone);
        found.ok_or_else(|| HfError::new(Code::InvalidArgument, "no such kind; please report it"))
    }

    fn staged(&self, token: u32) -> Result<Arc<Staged>> {
        let found = lock(&self.changes).get(&token).map(|pending| Arc::clone(&pending.staged));
        found.ok_or_else(|| HfError::new(Code::InvalidArgument, "no such change; please report it"))
    }

    fn finish<'e>(
        &self,
        env: &'e Env,
        token: u32,
        outcome: Option<Outcome>,
    ) -> napi::Result<PromiseRaw<'e, Option<String>>> {
        let (promise, ticket) = settle::promise(env)?;
        let begun = {
            let mut changes = lock(&self.changes);
            changes.get_mut(&token).and_then(|pending| {
                let outcome = outcome.or_else(|| pending.outcome.take())?;
                Some((Arc::clone(&pending.staged), outcome))
            })
        };
        let Some((staged, outcome)) = begun else {
            ticket.settle(Err(HfError::new(Code::InvalidArgument, "no such change; please report it")));
            return Ok(promise);
        };
        let changes = Arc::clone(&self.changes);
        let kept = Outcome { again: true, ..outcome.clone() };
        let change = Arc::clone(&staged);
        self.log.append(
            staged,
            outcome,
            Box::new(move |appended| {
                match &appended {
                    Ok(_) => drop(lock(&changes).remove(&token)),
                    Err(_) => {
                        if let Some(pending) = lock(&changes).get_mut(&token) {
                            pending.outcome = Some(kept);
                        }
                    }
                }
                ticket.settle(appended.map(|appended| appended.map(|appended| lines(&change.change_id, &appended))));
            }),
        );
        Ok(promise)
    }
}

/// A lock of an entity, which dropping gives back.
pub struct EntityGuard(Option<Unlock>);

impl Drop for EntityGuard {
    fn drop(&mut self) {
        if let Some(unlock) = self.0.take() {
            unlock();
        }
    }
}

fn not_embedded() -> HfError {
    HfError::new(Code::InvalidArgument, "this log is not embedded; please report it")
}

fn text_of<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| HfError::new(Code::Panic, format!("a result has no text: {error}")))
}

/// None of the texts holds a raw line break, because they are compact JSON.
fn lines(change_id: &str, appended: &Appended) -> String {
    let (prev, next) = (appended.prev.as_deref().unwrap_or_default(), appended.next.as_deref().unwrap_or_default());
    let gaps = if appended.gaps.is_empty() { String::new() } else { quoted(&appended.gaps) };
    [change_id, &appended.changed_fields, &appended.delta, prev, next, &gaps].join("\n")
}

fn quoted(names: &[String]) -> String {
    let mut text = String::from("[");
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        json::quote_into(name, &mut text);
    }
    text.push(']');
    text
}
