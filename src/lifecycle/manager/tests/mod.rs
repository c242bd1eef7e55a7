//! The managers over the real tables, in memory: each command in a transaction, its messages delivered after the commit.

mod clock;
mod decisions;
mod deliveries;
mod ends;
mod feedback;
mod inbox;
mod launches;
mod operations;
mod policies;
mod probes;
mod quiet;
mod restarts;
mod several;
mod spawning;

use rusqlite::Connection;
use serde_json::{Value as Json, json};

use super::deliver::{Settle, settle};
use super::{Delivery, Outcome, activity, escalate, killed, pr, runtime, spawned};
use crate::error::Result;
use crate::lifecycle::decide::reaction::Audience;
use crate::lifecycle::model::{Activity, Lifecycle, Metadata, Millis, Project, SessionRecord};
use crate::lifecycle::sql::sqlite::Sqlite;
use crate::lifecycle::sql::{Row, Sql, Value};
use crate::lifecycle::tables::{projects, sessions};
use crate::lifecycle::words::{SessionKind, SessionState, TerminationReason, Word as _};

const NOW: Millis = 1_780_000_000_000;
const MINUTE: Millis = 60_000;
const URL: &str = "https://x/pull/1";

/// Counts the statements that write.
struct Counting<'a> {
    sql: Sqlite<'a>,
    writes: usize,
}

impl Sql for Counting<'_> {
    fn run(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<u64> {
        self.writes += 1;
        self.sql.run(doing, sql, params)
    }

    fn rows(
        &mut self,
        doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<()> {
        self.sql.rows(doing, sql, params, each)
    }

    fn lock_session(&mut self, id: &str) -> Result<()> {
        self.sql.lock_session(id)
    }

    fn lock_pr(&mut self, url: &str) -> Result<()> {
        self.sql.lock_pr(url)
    }

    fn lock_retention(&mut self) -> Result<()> {
        self.sql.lock_retention()
    }
}

/// A store with the project `mer`, a clock, and somebody who delivers.
struct World {
    db: Connection,
    now: Millis,
    /// What arrived, as `<type>: <message>`.
    heard: Vec<String>,
    /// What was handed out and refused.
    refused: Vec<Delivery>,
    /// Nobody can be reached.
    is_down: bool,
    policy: Option<Json>,
    /// Statements that wrote, in the last command alone.
    writes: usize,
}

impl World {
    fn new() -> Self {
        Self::on(Connection::open_in_memory().unwrap())
    }

    fn on(db: Connection) -> Self {
        db.execute_batch(include_str!("../../../../migrations/sqlite/lifecycle/0001_sessions.sql")).unwrap();
        db.pragma_update(None, "foreign_keys", true).unwrap();
        let mut world = Self { db, now: NOW, heard: vec![], refused: vec![], is_down: false, policy: None, writes: 0 };
        world.project("mer");
        world
    }

    fn project(&mut self, id: &str) {
        let project = Project {
            id: id.into(),
            path: format!("/{id}"),
            repo_origin_url: String::new(),
            display_name: String::new(),
            registered_at: NOW,
            archived_at: None,
        };
        self.write(|sql| projects::upsert(sql, &project)).unwrap();
    }

    /// With one session `mer-1` in `state`.
    fn with(state: SessionState) -> Self {
        let mut world = Self::new();
        world.session(state);
        world
    }

    fn session(&mut self, state: SessionState) -> String {
        self.session_of("mer", state)
    }

    fn session_of(&mut self, project: &str, state: SessionState) -> String {
        let new = sessions::New {
            project_id: project.into(),
            issue_id: String::new(),
            kind: SessionKind::Worker,
            lifecycle: Lifecycle {
                state,
                termination_reason: TerminationReason::None,
                is_alive: !state.is_terminal(),
                harness: String::new(),
                activity: Activity::default(),
                detecting: None,
            },
            metadata: Metadata { prompt: "ship it".into(), ..Metadata::default() },
            created_at: self.now,
            updated_at: self.now,
            display_name: String::new(),
            pinned: false,
        };
        self.write(|sql| sessions::insert(sql, new)).unwrap().id
    }

    /// Runs one command in a transaction of its own.
    fn write<T>(&mut self, command: impl FnOnce(&mut dyn Sql) -> Result<T>) -> Result<T> {
        self.db.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut sql = Counting { sql: Sqlite(&self.db), writes: 0 };
        let answer = command(&mut sql);
        self.writes = sql.writes;
        self.db.execute_batch(if answer.is_ok() { "COMMIT" } else { "ROLLBACK" }).unwrap();
        answer
    }

    /// Runs a command of the managers, and delivers.
    fn act(&mut self, command: impl FnOnce(&mut dyn Sql) -> Result<Outcome>) -> Result<Outcome> {
        let outcome = self.write(command)?;
        let writes = self.writes;
        for delivery in &outcome.deliveries {
            self.deliver(delivery);
        }
        self.writes = writes;
        Ok(outcome)
    }

    fn deliver(&mut self, delivery: &Delivery) {
        if self.is_down {
            self.refused.push(delivery.clone());
        } else {
            assert_eq!(delivery.to == Audience::Agent, is_for_agent(delivery), "{delivery:?}");
            self.heard.push(format!("{}: {}", delivery.event_type, delivery.message));
        }
        self.settle(delivery, !self.is_down);
    }

    fn settle(&mut self, delivery: &Delivery, ok: bool) {
        let input = Settle {
            session_id: delivery.session_id.clone(),
            reaction: delivery.reaction.as_str().to_owned(),
            token: delivery.token.clone(),
            ok,
            now: self.now,
        };
        self.write(|sql| settle(sql, &input)).unwrap();
    }

    /// A command out of JSON, as the store gets it.
    fn input<T: serde::de::DeserializeOwned>(&self, mut fields: Json) -> T {
        fields["now"] = json!(self.now);
        if fields.get("id").is_none() {
            fields["id"] = json!("mer-1");
        }
        fields["policy"] = json!(self.policy);
        serde_json::from_str(&fields.to_string()).unwrap()
    }

    fn probe(&mut self, runtime: &str, process: &str) -> Outcome {
        let input: runtime::Observe = self.input(json!({ "runtime": runtime, "process": process }));
        self.act(|sql| runtime::observe(sql, &input)).unwrap()
    }

    fn signal(&mut self, fields: Json) -> Outcome {
        let input: activity::Observe = self.input(fields);
        self.act(|sql| activity::observe(sql, &input)).unwrap()
    }

    /// A signal of a hook, now.
    fn hook(&mut self, state: &str) -> Outcome {
        self.signal(json!({ "valid": true, "state": state, "source": "hook" }))
    }

    fn try_poll(&mut self, fields: Json) -> Result<Outcome> {
        let mut observation = json!({ "fetched": true, "url": URL, "number": 1 });
        observation.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let input: pr::Observe = self.input(json!({ "observation": observation }));
        self.act(|sql| pr::observe(sql, &input))
    }

    fn poll(&mut self, fields: Json) -> Outcome {
        self.try_poll(fields).unwrap()
    }

    fn kill(&mut self, reason: &str) -> Outcome {
        let input: killed::Kill = self.input(json!({ "reason": reason }));
        self.act(|sql| killed::kill(sql, &input)).unwrap()
    }

    fn spawned(&mut self, fields: Json) -> Result<Outcome> {
        let input: spawned::Spawned = self.input(fields);
        self.act(|sql| spawned::complete(sql, &input))
    }

    fn tick(&mut self) -> Outcome {
        let input: escalate::Tick = self.input(json!({}));
        self.act(|sql| escalate::tick(sql, &input)).unwrap()
    }

    fn record(&mut self) -> SessionRecord {
        sessions::get(&mut Sqlite(&self.db), "mer-1").unwrap().unwrap()
    }

    fn state(&mut self) -> SessionState {
        self.record().lifecycle.state
    }

    /// The types of all changes.
    fn changes(&self) -> Vec<String> {
        let mut asked = self.db.prepare("SELECT event_type FROM change_log ORDER BY seq").unwrap();
        let found = asked.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>();
        found.unwrap()
    }

    fn rows(&self, table: &str) -> i64 {
        self.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    /// What was heard since the last call.
    fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.heard)
    }

    /// The types of what was heard since the last call.
    fn types(&mut self) -> Vec<String> {
        self.news().iter().map(|heard| heard.split(": ").next().unwrap().to_owned()).collect()
    }
}

fn is_for_agent(delivery: &Delivery) -> bool {
    let nudges = ["reaction.ci-failed", "reaction.review-comments", "reaction.merge-conflicts", "reaction.agent-idle"];
    nudges.contains(&delivery.event_type.as_str())
}

fn check(commit: &str, status: &str, log: &str) -> Json {
    json!({ "name": "build", "commitHash": commit, "status": status, "logTail": log })
}

fn failing(commit: &str) -> Json {
    json!({ "ci": "failing", "checks": [check(commit, "failed", "panic: nil map")] })
}
