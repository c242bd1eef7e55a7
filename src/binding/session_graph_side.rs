//! The stores beside the sessions for the facade: commands as JSON text, answers likewise, and waiting for writes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;
use serde::Deserialize;

use super::durable::message;
use super::{failure, settle};
use crate::durable::pool::Pool;
use crate::error::{Code, HfError, Result};
use crate::session_graph::backend::Config;
use crate::session_graph::side::{Keeper, Kind, SideStore, Watcher, source_key};

/// Opening waits for other processes.
static OPENERS: Pool = Pool::new();

#[derive(Deserialize)]
struct Of {
    kind: Kind,
}

/// A store of processes, of effects, or of host events.
#[napi]
pub struct SessionGraphSide {
    kind: Kind,
    config: Config,
    store: Arc<OnceLock<SideStore>>,
}

impl SessionGraphSide {
    fn opened(&self) -> Result<SideStore> {
        let early = || HfError::new(Code::Busy, "the store is not open yet; wait until it is");
        self.store.get().cloned().ok_or_else(early)
    }
}

#[napi]
impl SessionGraphSide {
    /// Describes a store; nothing is opened yet.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, config: String) -> napi::Result<Self> {
        failure::sync(env, || {
            let Of { kind } = message(&config)?;
            Ok(Self { kind, config: message(&config)?, store: Arc::default() })
        })
    }

    /// Opens the file, once; resolves to `{"path":…,"schemaVersion":…}`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn open<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, String>> {
        let (kind, config, slot) = (self.kind, self.config.clone(), Arc::clone(&self.store));
        settle::run_on(&OPENERS, env, move || {
            let opened = SideStore::open(kind, &config)?;
            let path = opened.path().map(|path| path.to_string_lossy().into_owned());
            // A second opening of the same handle would be dropped, which closes it.
            let _ = slot.set(opened);
            Ok(serde_json::json!({ "path": path, "schemaVersion": kind.schema_version() }).to_string())
        })
    }

    /// Runs a command that may write, as one transaction.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn write<'e>(&self, env: &'e Env, command: String) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        match self.opened() {
            Ok(store) => store.write(command, Box::new(move |outcome| ticket.settle(outcome))),
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Runs a command that only reads, on one snapshot.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn read<'e>(&self, env: &'e Env, command: String) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        match self.opened() {
            Ok(store) => store.read(command, Box::new(move |outcome| ticket.settle(outcome))),
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Begins to listen for writes, of this process and of others.
    #[napi(catch_unwind)]
    pub fn watch(&self, env: &Env) -> napi::Result<SessionGraphSideWatch> {
        failure::sync(env, || Ok(SessionGraphSideWatch::new(self.opened()?.watch())))
    }

    /// Makes who renews the leases of effects.
    #[napi(catch_unwind)]
    pub fn leases(&self, env: &Env) -> napi::Result<SessionGraphLeases> {
        failure::sync(env, || Ok(SessionGraphLeases { keeper: self.opened()?.lease_keeper() }))
    }

    /// Finishes what is queued, then lets go of the file.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::promise(env)?;
        match self.store.get() {
            Some(store) => store.close(Box::new(move |outcome| ticket.settle(outcome))),
            None => ticket.settle(Ok(())),
        }
        Ok(promise)
    }
}

/// Somebody who waits for writes.
#[napi]
pub struct SessionGraphSideWatch {
    watcher: Watcher,
}

impl SessionGraphSideWatch {
    pub(super) fn new(watcher: Watcher) -> Self {
        Self { watcher }
    }
}

#[napi]
impl SessionGraphSideWatch {
    /// Resolves to `true` once somebody has written since the last call, or since the watch began; to `false` when the watch ends.
    /// Keeps the event loop alive while it is pending. One call at a time.
    #[napi(ts_return_type = "Promise<boolean>")]
    pub fn next<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, bool>> {
        let (promise, ticket) = settle::promise(env)?;
        self.watcher.next(Box::new(move |again| ticket.settle(Ok(again))));
        Ok(promise)
    }

    /// Ends it. Again is harmless.
    #[napi(catch_unwind)]
    pub fn end(&self) {
        self.watcher.end();
    }
}

/// Who renews the leases of effects, on threads of the engine: also while JavaScript is busy.
#[napi]
pub struct SessionGraphLeases {
    keeper: Keeper,
}

#[napi]
impl SessionGraphLeases {
    /// Runs `command` every third of `ttl_ms` until `token` is let go; resolves then. Rejects when the lease is lost. Does not keep
    /// the event loop alive.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn hold<'e>(
        &self,
        env: &'e Env,
        token: String,
        command: String,
        ttl_ms: f64,
    ) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::background_promise(env)?;
        let ttl = Duration::try_from_secs_f64(ttl_ms / 1000.0).unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
        self.keeper.hold(token, command, ttl, Box::new(move |lost| ticket.settle(lost.map_or(Ok(()), Err))));
        Ok(promise)
    }

    /// Renews it no more. Again is harmless.
    #[napi(catch_unwind)]
    pub fn let_go(&self, token: String) {
        self.keeper.let_go(&token);
    }
}

/// Computes the key of a source of host events; `source` is JSON.
#[napi(catch_unwind)]
pub fn session_graph_source_key(env: &Env, source_type: String, source: String) -> napi::Result<String> {
    failure::sync(env, || source_key(&source_type, &source))
}
