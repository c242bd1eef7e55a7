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
use super::entity_questions::Inbox;
use super::{failure, settle};
use crate::entity::handed_in;
use crate::entity::log::Log;
use crate::entity::mask::SecretSet;
use crate::entity::model::{Appended, Durability, Kind, Op, Outcome, Staged};
use crate::entity::postgres::{Options as PgOptions, PgLog};
use crate::entity::sqlite::{APPLICATION_ID, MIGRATIONS, SqliteLog};
use crate::error::{Code, HfError, Result};
use crate::sqlite::{Migrate, Network, Options, Synchronous, Target};
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
        network_file_system: Network,
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
    pub(super) log: Arc<dyn Log>,
    kinds: Mutex<Vec<Arc<Kind>>>,
    changes: Arc<Mutex<HashMap<u32, Pending>>>,
    pub(super) inbox: Arc<Mutex<Inbox>>,
}

/// A change between `stage` and the end of its append.
struct Pending {
    staged: Arc<Staged>,
    /// What a failed append was given.
    outcome: Option<Outcome>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
    created_us: i64,
}

const SYSTEM_ACTOR: &str = r#"{"type":"system","id":"system","name":"System"}"#;

#[napi]
impl EntityLog {
    /// Describes a log; nothing is opened yet.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, config: String) -> napi::Result<Self> {
        failure::sync(env, || {
            let log: Arc<dyn Log> = match message::<Config>(&config)? {
                Config::Sqlite { path, synchronous, network_file_system, migrate, max_batch, durability } => {
                    let target = path.map_or(Target::Memory, Target::File);
                    let options = Options {
                        synchronous: if synchronous == "normal" { Synchronous::Normal } else { Synchronous::Full },
                        max_batch: max_batch.max(1),
                        network: network_file_system,
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
            let kind = self.kind(kind)?;
            self.log.accepts(&kind.name, &id)?;
            let staged = Staged {
                change_id: ids::uuid(),
                kind,
                id,
                op: if removal { Op::Remove } else { Op::Mutate },
                prev,
                actor: actor.unwrap_or_else(|| SYSTEM_ACTOR.to_owned()),
                run_id,
                secrets: secrets.map(|secrets| Arc::clone(&secrets.set)),
                mask_all_changed: false,
                marks: None,
                has_intent: journal,
                orphaned_at: None,
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
                orphaned_at: Some(orphan.created_us),
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
            self.log.forget(staged);
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

pub(super) fn text_of<T: serde::Serialize>(value: &T) -> Result<String> {
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
