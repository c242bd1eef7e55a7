//! An observation that changes nothing writes nothing: it costs no flush.

use super::*;

#[test]
fn what_changes_nothing_executes_no_writing_statement() {
    let mut world = World::with(SessionState::Working);
    let mut seen = failing("c1");
    seen["review"] = json!("changes_requested");
    seen["comments"] = json!([{ "commentId": "a", "body": "x" }, { "commentId": "b", "body": "y", "resolved": true }]);
    world.poll(seen.clone());
    assert!(world.writes > 0);
    world.hook("active");
    world.probe("alive", "alive");
    let before = (world.record(), world.changes());
    for _ in 0..3 {
        world.now += 5000;
        world.poll(seen.clone());
        assert_eq!(world.writes, 0, "poll");
        world.probe("alive", "alive");
        assert_eq!(world.writes, 0, "probe");
        world.signal(json!({ "valid": true, "state": "idle", "timestamp": NOW - 1 }));
        assert_eq!(world.writes, 0, "old signal");
        world.signal(json!({ "valid": true, "state": "active", "source": "hook", "timestamp": NOW }));
        assert_eq!(world.writes, 0, "same signal");
        world.tick();
        assert_eq!(world.writes, 0, "tick");
    }
    assert_eq!((world.record(), world.changes()), before);
    world.now += 1;
    world.hook("active");
    assert_eq!(world.writes, 1, "a later time is one statement, and no run of reactions");
    assert_eq!(world.record().revision, before.0.revision + 1);
}

#[test]
fn a_later_time_alone_is_no_reason_to_react() {
    let mut world = World::with(SessionState::Working);
    world.hook("active");
    world.is_down = true;
    world.poll(failing("c1"));
    world.is_down = false;
    world.now += 1000;
    assert!(world.hook("active").deliveries.is_empty());
    world.signal(json!({ "valid": true, "state": "active", "source": "native" }));
    assert_eq!(world.types(), ["reaction.ci-failed"]);
}

#[test]
fn an_ended_session_costs_nothing_either() {
    let mut world = World::with(SessionState::Terminated);
    world.poll(json!({ "closed": true }));
    for _ in 0..2 {
        world.poll(json!({ "closed": true }));
        assert_eq!(world.writes, 0);
        world.kill("");
        assert_eq!(world.writes, 0);
        world.probe("failed", "failed");
        assert_eq!(world.writes, 0);
    }
}
