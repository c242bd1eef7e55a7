//! Why a session is what it is: one row per transition, and none for what changes nothing.

use super::*;
use crate::lifecycle::command::{Context, Read, Write};
use crate::lifecycle::owners::Fixed;
use crate::lifecycle::tables::decisions::KEPT;

impl World {
    /// The decisions about `mer-1`, as `<cause> <from>-><to> <reason> <attempts>: <evidence>`.
    fn decisions(&self) -> Vec<String> {
        let text = "SELECT cause, from_state, to_state, termination_reason, detecting_attempts, evidence FROM session_decision \
                    WHERE session_id = 'mer-1' ORDER BY seq";
        let mut asked = self.db.prepare(text).unwrap();
        let found = asked.query_map([], |row| {
            let texts: Vec<String> = [0, 1, 2, 3, 5].iter().map(|column| row.get(*column).unwrap()).collect();
            let attempts: Option<i64> = row.get(4)?;
            let attempts = attempts.map_or_else(String::new, |count| format!(" #{count}"));
            let [cause, from, to, reason, evidence] = texts.try_into().unwrap();
            let reason = if reason.is_empty() { reason } else { format!(" {reason}") };
            Ok(format!("{cause} {from}->{to}{reason}{attempts}: {evidence}"))
        });
        found.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    fn timeline(&self) -> Vec<Json> {
        let text =
            Read::parse(r#"{"do":"timeline","id":"mer-1"}"#).unwrap().run(&mut Sqlite(&self.db)).unwrap().unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn a_life_is_told_with_its_reasons() {
    let mut world = World::with(SessionState::NotStarted);
    world.db.execute("UPDATE sessions SET is_alive = 0", []).unwrap();
    world
        .spawned(json!({ "outcome": { "prompt": "secret", "workspacePath": "/hidden" }, "expect": "spawning" }))
        .unwrap();
    world.hook("active");
    world.probe("failed", "failed");
    world.now += 5000;
    world.probe("failed", "failed");
    world.hook("waiting_input");
    world.hook("exited");
    world.now += 10 * MINUTE;
    world.probe("dead", "dead");
    let probe_failed = "probe_failed runtimeFailed=true process=indeterminate processFailed=true";
    assert_eq!(
        world.decisions(),
        [
            "spawn not_started->not_started: spawn completed".to_owned(),
            "activity not_started->working: hook active".to_owned(),
            format!("probe working->detecting #1: {probe_failed}"),
            format!("probe detecting->detecting #2: {probe_failed}"),
            "activity detecting->needs_input: hook waiting_input".to_owned(),
            "probe needs_input->terminated runtime_lost: dead runtime=down process=dead recentActivity=false"
                .to_owned(),
        ]
    );
    world.spawned(json!({ "expect": "terminal" })).unwrap();
    world.poll(json!({ "merged": true }));
    world.spawned(json!({})).unwrap();
    world.kill("");
    let decisions = world.decisions();
    assert_eq!(
        decisions[6..],
        [
            "restore terminated->not_started: restore completed",
            "pr not_started->terminated pr_merged: pr merged https://x/pull/1",
            "restore terminated->not_started: restore completed",
            "kill not_started->terminated manually_killed: killed: manually_killed",
        ]
    );
    assert!(!format!("{:?}", world.timeline()).contains("secret"));
    assert!(!format!("{:?}", world.timeline()).contains("hidden"));
}

#[test]
fn what_changes_nothing_is_not_noted() {
    let mut world = World::with(SessionState::Working);
    world.probe("alive", "alive");
    world.hook("active");
    world.now += 1000;
    world.hook("active");
    world.signal(json!({ "valid": true, "state": "active", "source": "native" }));
    world.poll(failing("c1"));
    world.hook("exited");
    assert_eq!(world.decisions(), Vec::<String>::new());
    world.kill("");
    world.kill("");
    world.probe("dead", "dead");
    world.hook("active");
    assert_eq!(world.decisions().len(), 1);
}

#[test]
fn a_transition_that_is_rolled_back_leaves_no_decision() {
    let mut world = World::with(SessionState::Working);
    let input: killed::Kill = world.input(json!({}));
    let failed: Result<()> = world.write(|sql| {
        killed::kill(sql, &input)?;
        Err(crate::error::HfError::new(crate::error::Code::Io, "the disk is gone"))
    });
    assert!(failed.is_err());
    assert_eq!((world.decisions().len(), world.state()), (0, SessionState::Working));
}

#[test]
fn each_decision_follows_the_changes_that_it_made() {
    let mut world = World::with(SessionState::NotStarted);
    // All at the same time: only the order of the commits tells.
    world.hook("active");
    world.hook("idle");
    world.probe("failed", "failed");
    world.probe("failed", "failed");
    world.poll(json!({ "merged": true }));
    let told: Vec<String> = world
        .timeline()
        .iter()
        .map(|entry| match entry["type"].as_str().unwrap() {
            "decision" => {
                format!("{}>{}", entry["payload"]["from"].as_str().unwrap(), entry["payload"]["to"].as_str().unwrap())
            }
            kind => kind.to_owned(),
        })
        .collect();
    assert_eq!(
        told,
        [
            "session_created",
            "session_updated",
            "not_started>working",
            "session_updated",
            "working>idle",
            "session_updated",
            "idle>detecting",
            "detecting>detecting",
            "pr_created",
            "session_updated",
            "detecting>terminated",
        ]
    );
    let entry = &world.timeline()[10];
    let payload = json!({
        "cause": "pr", "from": "detecting", "to": "terminated", "terminationReason": "pr_merged", "isAlive": false,
        "detectingAttempts": null, "evidence": "pr merged https://x/pull/1",
    });
    let expected = json!({
        "seq": 6, "projectId": "mer", "sessionId": "mer-1", "type": "decision", "payload": payload, "createdAt": NOW,
    });
    assert_eq!(*entry, expected);
}

#[test]
fn decisions_outlive_the_log_and_end_with_the_session() {
    let mut world = World::with(SessionState::Working);
    world.kill("");
    world.db.execute("DELETE FROM change_log", []).unwrap();
    world.db.execute("UPDATE change_log_floor SET pruned_seq = 2", []).unwrap();
    world.spawned(json!({})).unwrap();
    assert_eq!(world.timeline().iter().map(|entry| entry["seq"].as_i64().unwrap()).collect::<Vec<_>>(), [2, 3, 3]);
    world.write(|sql| sessions::delete(sql, "mer-1")).unwrap();
    assert_eq!(world.rows("session_decision"), 0);
    assert_eq!(world.timeline().last().unwrap()["type"], "session_deleted");
}

#[test]
fn a_session_that_never_rests_keeps_the_newest() {
    let mut world = World::with(SessionState::Working);
    for round in 0..KEPT + 100 {
        world.now += 1000;
        world.hook(if round % 2 == 0 { "idle" } else { "active" });
        assert!(world.rows("session_decision") <= KEPT + 64);
    }
    let seqs: (i64, i64) = world
        .db
        .query_row("SELECT min(seq), max(seq) FROM session_decision", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(seqs, (65, KEPT + 100));
    assert_eq!(world.rows("notification"), 0);
}

#[test]
fn a_record_written_directly_says_so_and_an_endless_address_is_cut() {
    let mut world = World::with(SessionState::Working);
    let owners = Fixed::new("me", &[]);
    let context = Context { owners: &owners, harnesses: &[] };
    let text = r#"{"do":"updateSession","session":{"id":"mer-1","lifecycle":{"state":"done"}},"now":1780000000000}"#;
    world.write(|sql| Write::parse(text)?.run(sql, &context)).unwrap();
    assert_eq!(world.decisions(), ["update working->done: record written by updateSession"]);
    let mut world = World::with(SessionState::Working);
    let url = "ü".repeat(5000);
    world.poll(json!({ "merged": true, "url": url }));
    assert_eq!(world.decisions()[0].split(": ").nth(1).unwrap().chars().count(), 1000);
}
