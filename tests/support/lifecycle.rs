//! Session stores for tests: one command, one answer.
#![allow(dead_code, reason = "each test uses a part")]

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use holdfast::error::{HfError, Result};
use holdfast::lifecycle::backend::{Config, Store};
use serde_json::{Value, json};

/// 2026-05-31T12:00:00.000Z
pub const T: i64 = 1_780_228_800_000;

const PATIENCE: Duration = Duration::from_secs(60);

pub fn wait<T: Send + 'static>(call: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |value| _ = sender.send(value)));
    receiver.recv_timeout(PATIENCE).expect("the store answers")
}

/// A store, waited for.
#[derive(Clone)]
pub struct Waited(pub Store);

impl Waited {
    pub fn open(config: &Value) -> Result<Self> {
        let store = Store::new(serde_json::from_value::<Config>(config.clone()).unwrap());
        wait(|done| store.open(done)).map(|()| Self(store))
    }

    /// In a file.
    pub fn file(path: &Path) -> Self {
        Self::open(&json!({ "target": "sqlite", "path": path })).unwrap()
    }

    pub fn try_write(&self, command: &Value) -> Result<Value> {
        wait(|done| self.0.write(command.to_string(), done)).map(|text| serde_json::from_str(&text).unwrap())
    }

    pub fn write(&self, command: Value) -> Value {
        self.try_write(&command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub fn refused(&self, command: Value) -> HfError {
        self.try_write(&command).expect_err("the command is refused")
    }

    pub fn try_read(&self, command: &Value) -> Result<Value> {
        wait(|done| self.0.read(command.to_string(), done)).map(|text| serde_json::from_str(&text).unwrap())
    }

    pub fn read(&self, command: Value) -> Value {
        self.try_read(&command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub fn project(&self, id: &str) {
        self.write(json!({ "do": "upsertProject", "project": { "id": id, "path": "/p" }, "now": T }));
    }

    /// Makes a session and returns its id.
    pub fn session(&self, project: &str) -> String {
        let made = self.write(json!({ "do": "createSession", "session": { "projectId": project }, "now": T }));
        made["id"].as_str().unwrap().to_owned()
    }

    /// Makes so many changes.
    pub fn changes(&self, session: &str, count: i64) {
        // Later than all before: older signals are dropped.
        let first = self.head();
        for index in first..first + count {
            let state = if index % 2 == 0 { "active" } else { "idle" };
            self.write(json!({ "do": "observeActivity", "id": session, "valid": true, "state": state,
                "timestamp": T + index, "now": T + index }));
        }
    }

    pub fn head(&self) -> i64 {
        self.read(json!({ "do": "head" })).as_i64().unwrap()
    }

    /// The log after `after`, without the times.
    pub fn log(&self, after: i64) -> Vec<Value> {
        self.read(json!({ "do": "changes", "after": after, "limit": 100_000 })).as_array().unwrap().clone()
    }

    pub fn close(&self) {
        wait(|done| self.0.close(done)).unwrap();
    }
}

/// A named field of an error, as text.
pub fn field(error: &HfError, name: &str) -> String {
    match error.fields().get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
