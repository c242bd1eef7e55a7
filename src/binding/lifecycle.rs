//! The lifecycle module for the facade: commands as JSON text, answers as JSON text, and hints that the log has grown.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;

use super::durable::message;
use super::entity::lock;
use super::{failure, settle};
use crate::error::Result;
use crate::lifecycle::backend::{Config, MIGRATIONS, Store, Watch};
use crate::lifecycle::decide;

/// Hints on their way to JavaScript: any number of them are one.
#[derive(Default)]
struct Hints {
    watch: Option<Watch>,
    /// A hint that nobody asked for yet.
    due: bool,
    asked: Option<settle::Ticket<bool>>,
}

impl Hints {
    fn came(&mut self) {
        match self.asked.take() {
            Some(ticket) => ticket.settle(Ok(true)),
            None => self.due = true,
        }
    }

    /// Ends watching, and tells who asks. What is returned must be dropped outside of the lock.
    fn end(&mut self) -> Option<Watch> {
        self.due = false;
        if let Some(ticket) = self.asked.take() {
            ticket.settle(Ok(false));
        }
        self.watch.take()
    }
}

/// A session store.
#[napi]
pub struct LifecycleStore {
    store: Store,
    /// What stands for the path of a store that is no file.
    place: String,
    hints: Arc<Mutex<Hints>>,
}

#[napi]
impl LifecycleStore {
    /// Describes a store; nothing is opened yet.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, config: String) -> napi::Result<Self> {
        failure::sync(env, || {
            let config: Config = message(&config)?;
            Ok(Self { place: place_of(&config), store: Store::new(config), hints: Arc::default() })
        })
    }

    /// Opens the database; resolves to `{"path":…,"schemaVersion":…}`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn open<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        let (store, place) = (self.store.clone(), self.place.clone());
        let opened = move |outcome: Result<()>| {
            let told = outcome.and_then(|()| {
                let path = store.path()?.map_or(place, |path| path.to_string_lossy().into_owned());
                Ok(serde_json::json!({ "path": path, "schemaVersion": MIGRATIONS.len() }).to_string())
            });
            ticket.settle(told);
        };
        self.store.open(Box::new(opened));
        Ok(promise)
    }

    /// Runs a command that may write, as one transaction.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn write<'e>(&self, env: &'e Env, command: String) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        self.store.write(command, Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }

    /// Runs a command that only reads, on one snapshot.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn read<'e>(&self, env: &'e Env, command: String) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        self.store.read(command, Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }

    /// Begins to look out for changes, until `unwatch` or `close`.
    #[napi(catch_unwind)]
    pub fn watch(&self, env: &Env) -> napi::Result<()> {
        failure::sync(env, || {
            let hints = Arc::clone(&self.hints);
            let watch = self.store.watch(move || lock(&hints).came())?;
            let before = lock(&self.hints).watch.replace(watch);
            drop(before);
            Ok(())
        })
    }

    /// The next hint: true = the change log may have grown since the last one, false = nobody looks out any more. Does not keep
    /// the process alive. One at a time.
    #[napi(ts_return_type = "Promise<boolean>")]
    pub fn hint<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, bool>> {
        let (promise, ticket) = settle::background_promise(env)?;
        let mut hints = lock(&self.hints);
        if hints.watch.is_none() {
            ticket.settle(Ok(false));
        } else if std::mem::take(&mut hints.due) {
            ticket.settle(Ok(true));
        } else {
            hints.asked = Some(ticket);
        }
        Ok(promise)
    }

    /// Ends what `watch` began.
    #[napi(catch_unwind)]
    pub fn unwatch(&self, env: &Env) -> napi::Result<()> {
        failure::sync(env, || {
            let ended = lock(&self.hints).end();
            drop(ended);
            Ok(())
        })
    }

    /// Copies the database to a file; resolves to the text of `{ path, bytes, milliseconds }`.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn backup<'e>(&self, env: &'e Env, path: String) -> napi::Result<PromiseRaw<'e, String>> {
        let (promise, ticket) = settle::promise(env)?;
        self.store.backup(PathBuf::from(path), Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }

    /// Finishes what is queued, then lets go of everything.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, ()>> {
        let (promise, ticket) = settle::promise(env)?;
        let ended = lock(&self.hints).end();
        drop(ended);
        self.store.close(Box::new(move |outcome| ticket.settle(outcome)));
        Ok(promise)
    }
}

fn place_of(config: &Config) -> String {
    match config {
        Config::Sqlite(_) => ":memory:".to_owned(),
        Config::Postgres(config) => config.schema.clone(),
    }
}

/// Computes a pure function of the module: `name` as JSON text to JSON text.
#[napi(catch_unwind)]
pub fn lifecycle_pure(env: &Env, name: String, input: String) -> napi::Result<String> {
    failure::sync(env, || decide::call(&name, &input))
}
