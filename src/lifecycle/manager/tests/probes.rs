//! Looks at runtimes and signs of activity.

use super::*;
use crate::error::Code;
use crate::lifecycle::words::ActivityState;

#[test]
fn quarantine_climbs_to_stuck_and_pages_once() {
    let mut world = World::with(SessionState::Working);
    for attempts in [1, 2] {
        world.now += 5000;
        world.probe("failed", "failed");
        let lifecycle = world.record().lifecycle;
        assert_eq!(lifecycle.state, SessionState::Detecting);
        let memory = lifecycle.detecting.unwrap();
        assert_eq!((memory.attempts, memory.started_at), (attempts, NOW + 5000));
        assert_eq!(memory.evidence_hash, "bfc0756271d94f5500fb6962bae744ab2cc5babf903a67887e3b375611a957fd");
    }
    for _ in 0..10 {
        world.now += 5000;
        world.probe("failed", "failed");
        assert_eq!(world.state(), SessionState::Stuck);
        assert!(world.record().lifecycle.is_alive);
    }
    assert_eq!(world.news(), ["reaction.agent-stuck: Agent is stuck and needs attention."]);
    world.probe("alive", "alive");
    assert_eq!(world.state(), SessionState::Stuck);
    world.hook("active");
    assert_eq!(world.state(), SessionState::Working);
    assert_eq!(world.changes(), ["session_created", "session_updated", "session_updated", "session_updated"]);
}

#[test]
fn alternating_evidence_is_stuck_after_five_minutes() {
    let mut world = World::with(SessionState::Working);
    for tick in 0..=30 {
        world.now = NOW + tick * 10_000;
        world.probe("failed", if tick % 2 == 0 { "failed" } else { "alive" });
        assert_eq!(world.state() == SessionState::Stuck, tick == 30, "tick {tick}");
    }
}

#[test]
fn a_question_survives_a_blip() {
    for (activity, state) in [("waiting_input", SessionState::NeedsInput), ("blocked", SessionState::Stuck)] {
        let mut world = World::with(SessionState::Working);
        world.hook(activity);
        assert_eq!(world.state(), state);
        world.now += 5000;
        world.probe("failed", "failed");
        if state == SessionState::NeedsInput {
            assert_eq!(world.state(), SessionState::Detecting);
        }
        world.probe("alive", "alive");
        let lifecycle = world.record().lifecycle;
        assert_eq!((lifecycle.state, lifecycle.detecting), (state, None));
    }
}

#[test]
fn an_old_hook_is_dropped_and_one_from_the_future_is_now() {
    let mut world = World::with(SessionState::Working);
    world.signal(json!({ "valid": true, "state": "waiting_input", "timestamp": NOW - 1000 }));
    world.signal(json!({ "valid": true, "state": "active", "timestamp": NOW - 11_000 }));
    assert_eq!(world.state(), SessionState::NeedsInput);
    world.signal(json!({ "valid": true, "state": "active", "timestamp": NOW + 3_600_000, "source": "hook" }));
    let activity = world.record().lifecycle.activity;
    assert_eq!((activity.state, activity.last_activity_at), (ActivityState::Active, Some(NOW)));
    // The next one is not older than that.
    world.now += 1;
    world.hook("ready");
    assert_eq!(world.state(), SessionState::Idle);
}

#[test]
fn an_exit_is_no_death_but_lets_the_next_probe_conclude_it() {
    let mut world = World::with(SessionState::Working);
    world.hook("active");
    world.probe("dead", "dead");
    assert_eq!(world.state(), SessionState::Detecting);
    world.hook("active");
    world.hook("exited");
    let lifecycle = world.record().lifecycle;
    assert_eq!((lifecycle.state, lifecycle.activity.state), (SessionState::Working, ActivityState::Exited));
    world.news();
    world.probe("dead", "dead");
    let lifecycle = world.record().lifecycle;
    assert_eq!(lifecycle.state, SessionState::Terminated);
    assert_eq!((lifecycle.termination_reason, lifecycle.is_alive), (TerminationReason::RuntimeLost, false));
    assert_eq!(world.news(), ["reaction.agent-exited: Agent process exited unexpectedly."]);
}

#[test]
fn what_cannot_be_understood_is_refused_and_what_says_nothing_is_ignored() {
    let mut world = World::with(SessionState::Working);
    let input: runtime::Observe = world.input(json!({ "runtime": "zombie", "process": "alive" }));
    assert_eq!(world.act(|sql| runtime::observe(sql, &input)).unwrap_err().code(), Code::InvalidArgument);
    for fields in [
        json!({ "valid": true, "state": "asleep" }),
        json!({ "valid": true, "state": "active", "source": "rumour" }),
        json!({ "valid": true }),
    ] {
        let input: activity::Observe = world.input(fields);
        assert_eq!(world.act(|sql| activity::observe(sql, &input)).unwrap_err().code(), Code::InvalidArgument);
    }
    world.signal(json!({ "valid": false, "state": "asleep" }));
    world.signal(json!({ "id": "mer-9", "valid": true, "state": "blocked" }));
    let input: runtime::Observe = world.input(json!({ "id": "mer-9", "runtime": "dead", "process": "dead" }));
    world.act(|sql| runtime::observe(sql, &input)).unwrap();
    assert_eq!((world.record().revision, world.heard.len()), (0, 0));
}

#[test]
fn the_window_and_the_limits_are_the_callers() {
    let mut world = World::with(SessionState::Working);
    world.hook("active");
    world.now += 10_000;
    let fields = json!({ "runtime": "dead", "process": "dead", "windowMs": 9_999 });
    let input: runtime::Observe = world.input(fields);
    world.act(|sql| runtime::observe(sql, &input)).unwrap();
    assert_eq!(world.state(), SessionState::Terminated);
    let mut hasty = World::with(SessionState::Working);
    hasty.policy = Some(json!({ "detectingMaxAttempts": 1 }));
    hasty.probe("failed", "failed");
    let lifecycle = hasty.record().lifecycle;
    assert_eq!((lifecycle.state, lifecycle.detecting), (SessionState::Stuck, None));
}

#[test]
fn silent_changes_make_no_events() {
    let mut world = World::with(SessionState::Working);
    world.probe("failed", "failed");
    world.hook("active");
    let before = world.changes().len();
    world.now += 1000;
    world.hook("active");
    assert_eq!(world.record().lifecycle.activity.last_activity_at, Some(NOW + 1000));
    world.probe("failed", "failed");
    assert_eq!(world.changes().len(), before + 1);
    world.probe("failed", "failed");
    assert_eq!(world.record().lifecycle.detecting.unwrap().attempts, 2);
    assert_eq!(world.changes().len(), before + 1);
}
