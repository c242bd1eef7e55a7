//! Rules of effects, over a connection in memory.

use rusqlite::Connection;
use serde_json::{Value, json};

use super::{MIGRATIONS, read, write};
use crate::error::{Code, Result};
use crate::session_graph::sql::sqlite::Sqlite;

struct Db(Connection);

impl Db {
    fn new() -> Self {
        let db = Connection::open_in_memory().unwrap();
        for migration in MIGRATIONS {
            db.execute_batch(migration.sql).unwrap();
        }
        Self(db)
    }

    fn write(&self, name: &str, command: &Value) -> Result<Value> {
        write(&mut Sqlite(&self.0), name, &command.to_string()).map(|text| serde_json::from_str(&text).unwrap())
    }

    fn look(&self, asked: &Value) -> Result<Value> {
        read(&mut Sqlite(&self.0), "lookEffect", &asked.to_string()).map(|text| serde_json::from_str(&text).unwrap())
    }

    fn claim(&self, asked: &Value, ttl: i64) -> Result<Value> {
        self.write("claimEffect", &json!({ "asked": asked, "ownerId": "o", "leaseTtlMs": ttl, "sleepMs": null }))
    }
}

fn key(session: Option<&str>, id: &str) -> Value {
    json!({ "scope": { "type": "turn", "sessionId": session, "id": id }, "replayKey": "k" })
}

fn asked(key: &Value, command: i64, strict: bool) -> Value {
    json!({ "key": key, "envelope": { "effectId": "e", "kind": "tool", "replayKey": "k", "command": command }, "strict": strict })
}

fn held(key: &Value, claimed: &Value) -> Value {
    json!({ "key": key, "leaseToken": claimed["leaseToken"] })
}

#[test]
fn it_is_done_once_and_answered_for_ever() {
    let db = Db::new();
    let key = key(Some("s"), "t");
    let asked_it = asked(&key, 1, false);
    let strict = asked(&key, 1, true);
    assert_eq!(db.claim(&strict, 10_000).unwrap_err().code(), Code::GraphEffectReplayMissing);
    assert_eq!(db.look(&strict).unwrap_err().code(), Code::GraphEffectReplayMissing);
    assert_eq!(db.look(&asked_it).unwrap()["state"], "free");
    let claimed = db.claim(&asked_it, 10_000).unwrap();
    assert_eq!(claimed["state"], "claimed");
    for other in [db.claim(&asked_it, 10_000), db.look(&strict)] {
        assert_eq!(other.unwrap()["state"], "busy");
    }
    db.write("completeEffect", &json!({ "held": held(&key, &claimed), "result": { "a": [1.0, null] } })).unwrap();
    for answer in [db.claim(&asked_it, 0), db.look(&strict), db.claim(&strict, 0)] {
        assert_eq!(answer.unwrap(), json!({ "state": "completed", "outcome": { "a": [1.0, null] } }));
    }
    let other = asked(&key, 2, false);
    for conflict in [db.claim(&other, 0), db.look(&other)] {
        let error = conflict.unwrap_err();
        assert_eq!(error.code(), Code::GraphEffectReplayHashConflict);
        assert!(error.message().starts_with("effect_replay_hash_conflict: effect `k` of turn `t` of session `s` "));
    }
}

#[test]
fn scopes_do_not_meet() {
    let db = Db::new();
    let scopes = [key(Some("a"), "t"), key(Some("b"), "t"), key(None, "t"), key(Some("a"), "u")];
    for scope in &scopes {
        assert_eq!(db.claim(&asked(scope, 1, false), 10_000).unwrap()["state"], "claimed");
    }
    let mut process = scopes[0].clone();
    process["scope"]["type"] = json!("process");
    assert_eq!(db.claim(&asked(&process, 1, false), 10_000).unwrap()["state"], "claimed");
}

#[test]
fn who_was_taken_over_can_do_nothing_more() {
    let db = Db::new();
    let key = key(None, "t");
    let it = asked(&key, 1, false);
    let first = db.claim(&it, 0).unwrap();
    // Lapsed, and nobody came: it is renewed.
    db.write("renewEffect", &json!({ "held": held(&key, &first), "leaseTtlMs": 0 })).unwrap();
    let second = db.claim(&asked(&key, 1, true), 10_000).unwrap();
    assert_eq!(second["state"], "claimed");
    let stale = held(&key, &first);
    for (name, command) in [
        ("renewEffect", json!({ "held": stale, "leaseTtlMs": 0 })),
        ("completeEffect", json!({ "held": stale, "result": 1 })),
        ("failEffect", json!({ "held": stale, "result": {} })),
        ("releaseEffect", stale.clone()),
    ] {
        assert_eq!(db.write(name, &command).unwrap_err().code(), Code::GraphEffectReplayLeaseLost, "{name}");
    }
    db.write("failEffect", &json!({ "held": held(&key, &second), "result": { "message": "no" } })).unwrap();
    assert_eq!(db.look(&it).unwrap(), json!({ "state": "failed", "error": { "message": "no" } }));
}

#[test]
fn what_is_given_up_is_free_and_stays_begun() {
    let db = Db::new();
    let key = key(None, "t");
    let claimed = db.claim(&asked(&key, 1, false), 10_000).unwrap();
    db.write("releaseEffect", &held(&key, &claimed)).unwrap();
    assert_eq!(db.look(&asked(&key, 1, true)).unwrap()["state"], "free");
    assert_eq!(db.claim(&asked(&key, 1, true), 10_000).unwrap()["state"], "claimed");
}

#[test]
fn a_sleep_ends_when_it_was_to_end() {
    let db = Db::new();
    let key = key(None, "t");
    let it = asked(&key, 1, false);
    let sleep = |ms: i64| json!({ "asked": it, "ownerId": "o", "leaseTtlMs": 0, "sleepMs": ms });
    let first = db.write("claimEffect", &sleep(60_000)).unwrap();
    let second = db.write("claimEffect", &sleep(90_000)).unwrap();
    assert!(first["dueAtMs"].as_i64().unwrap() > 60_000);
    assert_eq!(first["dueAtMs"], second["dueAtMs"]);
    // Nobody is at it, but it is not over.
    assert_eq!(db.write("pruneEffects", &json!({ "olderThanMs": 0, "scope": null, "limit": 9 })).unwrap(), 0);
}

#[test]
fn what_is_old_and_over_is_forgotten_in_slices() {
    let db = Db::new();
    for n in 0..5 {
        let key = key(Some("s"), &n.to_string());
        let claimed = db.claim(&asked(&key, 1, false), 10_000).unwrap();
        if n > 0 {
            db.write("completeEffect", &json!({ "held": held(&key, &claimed) })).unwrap();
        }
    }
    let prune = |older: i64, scope: Value, limit: i64| {
        db.write("pruneEffects", &json!({ "olderThanMs": older, "scope": scope, "limit": limit })).unwrap()
    };
    assert_eq!(prune(60_000, Value::Null, 9), 0);
    assert_eq!(prune(0, json!({ "type": "turn", "sessionId": "s", "id": "4" }), 9), 1);
    assert_eq!(prune(0, Value::Null, 2), 2);
    assert_eq!(prune(0, Value::Null, 2), 1);
    // The one that is under way.
    assert_eq!(db.look(&asked(&key(Some("s"), "0"), 1, false)).unwrap()["state"], "busy");
}

#[test]
fn a_damaged_row_is_told() {
    let db = Db::new();
    let key = key(None, "t");
    let it = asked(&key, 1, false);
    let claimed = db.claim(&it, 0).unwrap();
    db.write("completeEffect", &json!({ "held": held(&key, &claimed) })).unwrap();
    assert_eq!(db.look(&it).unwrap(), json!({ "state": "completed" }));
    let nothing = json!({ "scope": key["scope"], "replayKey": "null" });
    let claimed = db.claim(&asked(&nothing, 1, false), 0).unwrap();
    db.write("completeEffect", &json!({ "held": held(&nothing, &claimed), "result": null })).unwrap();
    let answer = db.look(&asked(&nothing, 1, false)).unwrap();
    assert_eq!(answer, json!({ "state": "completed", "outcome": null }));
    for damage in ["outcome_json = '{'", "status = 'failed', outcome_json = NULL"] {
        db.0.execute_batch(&format!("UPDATE runtime_effect_replay SET {damage}")).unwrap();
        assert_eq!(db.look(&it).unwrap_err().code(), Code::GraphEffectReplayCorruptRow);
    }
}

#[test]
fn what_is_too_young_to_be_forgotten_is_not_looked_at() {
    let db = Db::new();
    let mut plan = db.0.prepare(&format!("EXPLAIN QUERY PLAN {}", super::rows::PRUNE)).unwrap();
    let params = vec![rusqlite::types::Value::Integer(1); plan.parameter_count()];
    let steps = plan.query_map(rusqlite::params_from_iter(params), |row| row.get::<_, String>(3)).unwrap();
    let steps: Vec<String> = steps.map(std::result::Result::unwrap).collect();
    assert!(steps.iter().any(|step| step.contains("runtime_effect_replay_age")), "{steps:?}");
}
