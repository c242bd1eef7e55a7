//! Rules of host events, over a connection in memory.

use rusqlite::Connection;
use serde_json::{Value, json};

use super::{MIGRATIONS, read, source_key, write};
use crate::error::{Code, Result};
use crate::session_graph::sql::sqlite::Sqlite;

struct Db(Connection);

impl Db {
    fn new() -> Self {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        for migration in MIGRATIONS {
            db.execute_batch(migration.sql).unwrap();
        }
        Self(db)
    }

    fn write(&self, name: &str, command: &Value) -> Result<Value> {
        write(&mut Sqlite(&self.0), name, &command.to_string()).map(|text| serde_json::from_str(&text).unwrap())
    }

    fn read(&self, name: &str, command: &Value) -> Value {
        let text = read(&mut Sqlite(&self.0), name, &command.to_string()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn subscribe(&self, session: &str, source_key: &str) -> Value {
        let draft = json!({ "sessionId": session, "name": null, "sourceType": "cron", "sourceKey": source_key,
            "source": { "at": 1 }, "target": null });
        self.write("subscribe", &draft).unwrap()
    }

    fn occur(&self, key: &str, source_key: &str, payload: i64) -> Result<Value> {
        let request =
            json!({ "sourceType": "cron", "sourceKey": source_key, "idempotencyKey": key, "payload": payload });
        self.write("occur", &request)
    }

    fn reserve(&self, occurrence: &Value) -> Vec<Value> {
        let reserved = self.write("reserve", &json!({ "occurrenceId": occurrence["occurrenceId"] })).unwrap();
        reserved.as_array().unwrap().clone()
    }

    fn handles(&self, filter: &Value) -> Vec<String> {
        let found = self.read("subscriptions", filter);
        found.as_array().unwrap().iter().map(|each| each["handle"].as_str().unwrap().to_owned()).collect()
    }

    fn prune(&self, what: &str) -> Value {
        self.write(what, &json!({ "olderThanMs": 0, "limit": 100 })).unwrap()
    }
}

#[test]
fn numbers_count_over_all_sessions_and_never_come_back() {
    let db = Db::new();
    for n in 1..=11 {
        let made = db.subscribe(if n % 2 == 0 { "a" } else { "b" }, "k");
        assert_eq!(made["handle"], format!("trigger:{n}"));
        assert_eq!(made["subscriptionId"], format!("subscription:{n}"));
        assert!(made.get("name").is_none());
    }
    let of_a: Vec<String> = [2, 4, 6, 8, 10].iter().map(|n| format!("trigger:{n}")).collect();
    assert_eq!(db.handles(&json!({ "sessionId": "a" })), of_a);
    assert_eq!(db.handles(&json!({})).last().unwrap(), "trigger:11");
    let cancel = |session: &str, n: i64| {
        db.write("unsubscribe", &json!({ "sessionId": session, "handle": format!("trigger:{n}") })).unwrap()
    };
    assert_eq!([cancel("a", 11), cancel("b", 11), cancel("b", 11)], [json!(false), json!(true), json!(false)]);
    assert_eq!(db.handles(&json!({ "enabled": false, "sourceKey": "k" })), ["trigger:11"]);
    assert_eq!(db.prune("pruneSubscriptions"), 1);
    assert_eq!(db.handles(&json!({ "enabled": false })), Vec::<String>::new());
    assert_eq!(db.subscribe("a", "k")["handle"], "trigger:12");
}

#[test]
fn an_occurrence_is_recorded_once() {
    let db = Db::new();
    let first = db.occur("x", "k", 1).unwrap();
    assert_eq!(first["payload"], 1);
    assert_eq!(db.occur("x", "k", 1).unwrap(), first);
    for error in [db.occur("x", "k", 2), db.occur("x", "other", 1)].map(Result::unwrap_err) {
        assert_eq!(error.code(), Code::GraphHostEvent);
        assert_eq!(error.message(), "host event occurrence idempotency conflict for `x`");
    }
    // `null` is a payload, and none is none.
    let bare = |key: &str| json!({ "sourceType": "cron", "sourceKey": "k", "idempotencyKey": key });
    let mut nothing = bare("n");
    nothing["payload"] = Value::Null;
    let stored = db.write("occur", &nothing).unwrap();
    assert!(stored.as_object().unwrap().contains_key("payload") && !stored.as_object().unwrap().contains_key("source"));
    assert_eq!(db.write("occur", &bare("n")).unwrap_err().code(), Code::GraphHostEvent);
    assert!(!db.write("occur", &bare("m")).unwrap().as_object().unwrap().contains_key("payload"));
    assert_ne!(db.occur("y", "k", 1).unwrap()["occurrenceId"], first["occurrenceId"]);
}

#[test]
fn each_pair_is_reserved_once() {
    let db = Db::new();
    let subscriptions = [db.subscribe("b", "k"), db.subscribe("a", "k")];
    db.subscribe("a", "other");
    let off = db.subscribe("a", "k");
    db.write("unsubscribe", &json!({ "sessionId": "a", "handle": off["handle"] })).unwrap();
    let occurrence = db.occur("x", "k", 1).unwrap();
    let reserved = db.reserve(&occurrence);
    let whom: Vec<&Value> = reserved.iter().map(|each| &each["subscription"]).collect();
    assert_eq!(whom, [&subscriptions[1], &subscriptions[0]]);
    assert_eq!(reserved[0]["occurrence"], occurrence);
    assert!(reserved[0]["processId"].as_str().unwrap().starts_with("process:host-event:"));
    assert_ne!(reserved[0]["processId"], reserved[1]["processId"]);
    assert!(db.reserve(&occurrence).is_empty());
    // Who comes later gets it, too, once.
    db.subscribe("c", "k");
    assert_eq!(db.reserve(&occurrence).len(), 1);
    assert!(db.reserve(&occurrence).is_empty());
    let error = db.write("reserve", &json!({ "occurrenceId": "no" })).unwrap_err();
    assert_eq!(error.message(), "unknown host event occurrence `no`");
}

#[test]
fn what_was_not_started_is_listed_and_kept() {
    let db = Db::new();
    let subscription = db.subscribe("a", "k");
    let occurrence = db.occur("x", "k", 1).unwrap();
    assert_eq!(db.prune("pruneOccurrences"), 0, "nobody has looked for its subscriptions yet");
    let reserved = db.reserve(&occurrence);
    assert_eq!(db.read("unstarted", &json!({})), json!(reserved));
    db.write("unsubscribe", &json!({ "sessionId": "a", "handle": subscription["handle"] })).unwrap();
    assert_eq!([db.prune("pruneOccurrences"), db.prune("pruneSubscriptions")], [0, 0]);
    let started = json!({ "processId": reserved[0]["processId"] });
    assert_eq!([db.write("started", &started).unwrap(), db.write("started", &started).unwrap()], [true, false]);
    assert_eq!(db.read("unstarted", &json!({})), json!([]));
    let error = db.write("started", &json!({ "processId": "p" })).unwrap_err();
    assert_eq!(error.message(), "unknown host event delivery of process `p`");
    assert_eq!([db.prune("pruneOccurrences"), db.prune("pruneSubscriptions")], [1, 1]);
    // Told again after it was forgotten: the same id, hence the same processes.
    assert_eq!(db.occur("x", "k", 2).unwrap()["occurrenceId"], occurrence["occurrenceId"]);
}

#[test]
fn sources_are_keyed_by_what_they_are() {
    let key = source_key("cron", "{\"b\":1,\"a\":[1.0]}").unwrap();
    assert_eq!(key, source_key("cron", " { \"a\": [1], \"b\": 1 } ").unwrap());
    assert!(key.starts_with("source:cron:"));
    assert_ne!(key, source_key("cron2", "{\"a\":[1],\"b\":1}").unwrap());
    assert_eq!(source_key("cron", "{").unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn a_damaged_row_is_told() {
    let db = Db::new();
    db.subscribe("a", "k");
    db.0.execute_batch("UPDATE subscriptions SET record_json = '{'").unwrap();
    let error = read(&mut Sqlite(&db.0), "subscriptions", "{}").unwrap_err();
    assert_eq!(error.code(), Code::GraphRecordDecode);
}

#[test]
fn what_is_too_young_to_be_forgotten_is_not_looked_at() {
    let db = Db::new();
    for (statement, index) in
        [(super::occurrences::PRUNE, "occurrences_age"), (super::subscriptions::PRUNE, "subscriptions_cancelled")]
    {
        let mut plan = db.0.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
        let params = vec![rusqlite::types::Value::Integer(1); plan.parameter_count()];
        let steps = plan.query_map(rusqlite::params_from_iter(params), |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.map(std::result::Result::unwrap).collect();
        assert!(steps.iter().any(|step| step.contains(index)), "{steps:?}");
    }
}
