//! What the facade asks of a transition log, what it hears of other processes, and locks between them.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;

use super::durable::message;
use super::entity::{EntityLog, lock, text_of};
use super::resources::{self, Kept};
use super::{failure, settle};
use crate::entity::log::{Question, Unlock};
use crate::error::{Code, HfError, Result};

/// Changes of other processes on their way to JavaScript.
#[derive(Default)]
pub(super) struct Inbox {
    payloads: Vec<String>,
    asked: Option<settle::Ticket<Vec<String>>>,
    pub(super) closed: bool,
}

impl Inbox {
    /// Answers who asks, if there is something to say: payloads, or none for ever.
    pub(super) fn answer(&mut self) {
        if (self.closed || !self.payloads.is_empty())
            && let Some(ticket) = self.asked.take()
        {
            ticket.settle(Ok(std::mem::take(&mut self.payloads)));
        }
    }
}

#[napi]
impl EntityLog {
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
