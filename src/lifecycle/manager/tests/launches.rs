//! Starts of a runtime have names: what is reported of an earlier one changes nothing.

use super::*;
use crate::error::Code;
use crate::lifecycle::manager::operations::{Advance, Begin, advance, begin};
use crate::lifecycle::owners::Fixed;
use crate::lifecycle::words::ActivityState;

/// Begins an operation, and notes that it starts the runtime next.
fn launch(world: &mut World, kind: &str, launch_id: &str) {
    let me = Fixed::new("me", &[]);
    let input = Begin { id: "mer-1".into(), kind: kind.into(), now: world.now };
    let token = world.write(|sql| begin(sql, &me, &input)).unwrap().token;
    let launch_id = Some(launch_id.into());
    let step = Advance { token, step: "runtime".into(), launch_id, runtime_freed: false, now: world.now };
    world.write(|sql| advance(sql, &me, &step)).unwrap();
}

/// The operation is over, however it went.
fn over(world: &World) {
    world.db.execute_batch("DELETE FROM session_operation").unwrap();
}

#[test]
fn what_is_reported_of_an_earlier_launch_writes_nothing() {
    let mut world = World::with(SessionState::NotStarted);
    launch(&mut world, "spawn", "a");
    world.spawned(json!({ "expect": "spawning", "outcome": { "launchId": "a" } })).unwrap();
    over(&world);
    world.kill("");
    let ended = world.record();
    launch(&mut world, "restore", "b");
    assert_eq!(world.record(), ended, "a restore that is not through leaves the session as it was");
    world.now += 1000;
    world.spawned(json!({ "expect": "terminal", "outcome": { "launchId": "b" } })).unwrap();
    over(&world);
    let before = world.record();
    assert_eq!((before.launch_id.as_str(), before.launched_at), ("b", Some(NOW + 1000)));
    for launch_id in ["a", ""] {
        let dead: runtime::Observe =
            world.input(json!({ "runtime": "dead", "process": "dead", "launchId": launch_id }));
        world.act(|sql| runtime::observe(sql, &dead)).unwrap();
        assert_eq!(world.writes, 0, "probe of {launch_id:?}");
        world.signal(json!({ "valid": true, "state": "waiting_input", "source": "hook", "launchId": launch_id }));
        assert_eq!(world.writes, 0, "hook of {launch_id:?}");
    }
    assert_eq!((world.record(), world.heard.len()), (before, 0));
    world.signal(json!({ "valid": true, "state": "active", "launchId": "b" }));
    assert_eq!(world.state(), SessionState::Working);
    // Who names none means the one that counts.
    world.hook("idle");
    assert_eq!(world.state(), SessionState::Idle);
    world.now += 2 * MINUTE;
    let dead: runtime::Observe = world.input(json!({ "runtime": "dead", "process": "dead", "launchId": "b" }));
    world.act(|sql| runtime::observe(sql, &dead)).unwrap();
    assert_eq!(world.state(), SessionState::Terminated);
}

#[test]
fn a_launch_that_was_overtaken_does_not_come_up() {
    let mut world = World::with(SessionState::NotStarted);
    world.kill("");
    launch(&mut world, "restore", "a");
    over(&world);
    launch(&mut world, "restore", "b");
    let before = world.record();
    let error = world.spawned(json!({ "expect": "terminal", "outcome": { "launchId": "a" } })).unwrap_err();
    assert_eq!(error.code(), Code::LifecycleSessionBusy);
    assert_eq!(world.record(), before);
    world.spawned(json!({ "expect": "terminal", "outcome": { "launchId": "b" } })).unwrap();
    assert_eq!(world.record().launch_id, "b");
}

#[test]
fn what_is_heard_before_a_restore_is_through_waits_for_that() {
    let mut world = World::with(SessionState::Working);
    world.kill("");
    let ended = world.record();
    launch(&mut world, "restore", "b");
    let hook = |state: &str, at: Millis| json!({ "valid": true, "state": state, "source": "hook", "launchId": "b", "timestamp": at });
    world.signal(hook("active", NOW));
    world.signal(hook("waiting_input", NOW));
    world.signal(hook("idle", NOW - 1));
    assert_eq!((world.record(), world.heard.len()), (ended.clone(), 0));
    world.spawned(json!({ "expect": "terminal", "outcome": { "launchId": "b" } })).unwrap();
    assert_eq!(
        (world.state(), world.record().lifecycle.activity.state),
        (SessionState::NeedsInput, ActivityState::WaitingInput)
    );
    assert_eq!(world.types(), ["reaction.agent-needs-input"]);
    // Of a start that failed nothing is left.
    over(&world);
    world.kill("");
    launch(&mut world, "restore", "c");
    world.signal(json!({ "valid": true, "state": "active", "launchId": "c" }));
    over(&world);
    world.signal(json!({ "valid": true, "state": "active", "launchId": "c" }));
    launch(&mut world, "restore", "d");
    world.spawned(json!({ "expect": "terminal", "outcome": { "launchId": "d" } })).unwrap();
    assert_eq!((world.state(), world.record().lifecycle.activity), (SessionState::NotStarted, Activity::default()));
}

#[test]
fn writing_a_record_leaves_its_launch_alone() {
    let mut world = World::with(SessionState::NotStarted);
    launch(&mut world, "spawn", "a");
    let before = world.record();
    let mut after = before.clone();
    after.launch_id = "mine".into();
    after.launched_at = Some(1);
    after.metadata.branch = "other".into();
    world.write(|sql| sessions::save_always(sql, &before, &after)).unwrap();
    let found = world.record();
    assert_eq!((found.launch_id.as_str(), found.launched_at, found.metadata.branch.as_str()), ("a", None, "other"));
}
