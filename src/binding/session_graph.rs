//! The session graph for the facade: commands as JSON text with bytes beside it, answers likewise.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use napi::Env;
use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi_derive::napi;

use super::durable::message;
use super::session_graph_side::SessionGraphSideWatch;
use super::{failure, settle};
use crate::durable::pool::Pool;
use crate::error::{Code, HfError, Result};
use crate::session_graph::backend::{Config, Reply, SCHEMA_VERSION, Store};
use crate::session_graph::{file_name, turn_commit_hash};

/// Opening waits for other processes.
static OPENERS: Pool = Pool::new();

/// An answer that has bytes.
#[napi(object)]
pub struct SessionGraphReply {
    pub text: String,
    pub parts: Vec<Uint8Array>,
}

impl From<Reply> for SessionGraphReply {
    fn from(reply: Reply) -> Self {
        Self { text: reply.text, parts: reply.parts.into_iter().map(Uint8Array::new).collect() }
    }
}

/// A store of one session.
#[napi]
pub struct SessionGraph {
    config: Config,
    store: Arc<OnceLock<Store>>,
}

impl SessionGraph {
    fn opened(&self) -> Result<Store> {
        let early = || HfError::new(Code::Busy, "the session store is not open yet; wait until it is");
        self.store.get().cloned().ok_or_else(early)
    }
}

#[napi]
impl SessionGraph {
    /// Describes a store; nothing is opened yet.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, config: String) -> napi::Result<Self> {
        failure::sync(env, || Ok(Self { config: message(&config)?, store: Arc::default() }))
    }

    /// Opens the file, once; resolves to `{"path":…,"schemaVersion":…}`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn open<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, String>> {
        let (config, slot) = (self.config.clone(), Arc::clone(&self.store));
        settle::run_on(&OPENERS, env, move || {
            let opened = Store::open(&config)?;
            let path = opened.path().map(|path| path.to_string_lossy().into_owned());
            // A second opening of the same handle would be dropped, which closes it.
            let _ = slot.set(opened);
            Ok(serde_json::json!({ "path": path, "schemaVersion": SCHEMA_VERSION }).to_string())
        })
    }

    /// Runs a command that may write, as one transaction. The bytes are copied before this returns.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn write<'e>(
        &self,
        env: &'e Env,
        command: String,
        bytes: Option<Vec<Uint8Array>>,
    ) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        let bytes = bytes.unwrap_or_default().iter().map(|part| part.to_vec()).collect();
        match self.opened() {
            Ok(store) => store.write(command, bytes, Box::new(move |outcome| ticket.settle(outcome))),
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Runs a command that only reads, on one snapshot.
    #[napi(ts_return_type = "Promise<SessionGraphReply>")]
    pub fn read<'e>(&self, env: &'e Env, command: String) -> napi::Result<PromiseRaw<'e, SessionGraphReply>> {
        let (promise, ticket) = settle::promise(env)?;
        match self.opened() {
            Ok(store) => store.read(command, Box::new(move |reply| ticket.settle(reply.map(SessionGraphReply::from)))),
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Copies the store to a file; resolves to the text of `{ path, bytes, milliseconds }`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn backup<'e>(&self, env: &'e Env, path: String) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        match self.opened() {
            Ok(store) => store.backup(PathBuf::from(path), Box::new(move |outcome| ticket.settle(outcome))),
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Makes a new file that begins where the session is; resolves to the text of what it is.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn fork<'e>(&self, env: &'e Env, path: String, command: String) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        match self.opened() {
            Ok(store) => store.fork(PathBuf::from(path), command, Box::new(move |outcome| ticket.settle(outcome))),
            Err(error) => ticket.settle(Err(error)),
        }
        Ok(promise)
    }

    /// Begins to listen for writes.
    #[napi(catch_unwind)]
    pub fn watch(&self, env: &Env) -> napi::Result<SessionGraphSideWatch> {
        failure::sync(env, || Ok(SessionGraphSideWatch::new(self.opened()?.watch())))
    }

    /// Finishes what is queued, then lets go of the files.
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

/// Computes the hash of a commit, of the same message that `write` would take.
#[napi(catch_unwind)]
pub fn session_graph_turn_hash(
    env: &Env,
    message: String,
    execution_state: Option<Uint8Array>,
) -> napi::Result<String> {
    failure::sync(env, || turn_commit_hash(&message, execution_state.map(|bytes| bytes.to_vec())))
}

/// Returns the name of the file of a session.
#[napi(catch_unwind)]
pub fn session_graph_file_name(session_id: String) -> String {
    file_name(&session_id)
}
