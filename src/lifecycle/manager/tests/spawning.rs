//! Coming up, for the first time and again.

use super::*;
use crate::error::Code;
use crate::lifecycle::sql::Sql as _;
use crate::lifecycle::words::ActivityState;

fn outcome() -> Json {
    json!({ "branch": "b", "workspacePath": "/w", "runtimeHandle": { "id": "h1", "runtimeName": "tmux" }, "prompt": "" })
}

#[test]
fn it_stores_the_handles_and_keeps_what_is_not_told() {
    let mut world = World::with(SessionState::NotStarted);
    world.now += 1000;
    world.spawned(json!({ "outcome": outcome(), "expect": "spawning" })).unwrap();
    let record = world.record();
    assert_eq!((record.lifecycle.state, record.lifecycle.is_alive), (SessionState::NotStarted, true));
    assert_eq!(record.metadata.runtime_handle_id, "h1");
    assert_eq!((record.metadata.prompt.as_str(), record.metadata.branch.as_str()), ("ship it", "b"));
    assert_eq!((record.revision, record.updated_at), (1, NOW + 1000));
    // It always writes.
    world.now += 1000;
    world.spawned(json!({ "outcome": outcome() })).unwrap();
    assert_eq!((world.record().revision, world.record().updated_at), (2, NOW + 2000));
    assert!(world.heard.is_empty());
}

#[test]
fn a_kill_on_the_way_up_wins() {
    let mut world = World::with(SessionState::NotStarted);
    world.kill("");
    let before = world.record();
    let error = world.spawned(json!({ "outcome": outcome(), "expect": "spawning" })).unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::LifecycleSessionTerminated, "session: terminated"));
    assert_eq!(world.record(), before);
}

#[test]
fn what_lives_is_not_started_again() {
    let mut world = World::with(SessionState::Idle);
    let error = world.spawned(json!({ "expect": "terminal" })).unwrap_err();
    assert_eq!(error.code(), Code::LifecycleSessionBusy);
    assert_eq!(error.message(), "session: another operation is in progress");
    assert_eq!(world.record().revision, 0);
    world.spawned(json!({})).unwrap();
    assert_eq!(world.state(), SessionState::NotStarted);
}

#[test]
fn a_faster_hook_is_kept_on_the_first_way_up_only() {
    for (activity, state) in [
        ("active", SessionState::Working),
        ("ready", SessionState::Idle),
        ("waiting_input", SessionState::NeedsInput),
        // As urgent as a question: a person was told of it.
        ("blocked", SessionState::Stuck),
    ] {
        let mut world = World::with(SessionState::NotStarted);
        world.hook(activity);
        let heard = world.record().lifecycle.activity;
        world.spawned(json!({ "outcome": outcome(), "expect": "spawning" })).unwrap();
        let lifecycle = world.record().lifecycle;
        assert_eq!(lifecycle.state, state);
        assert_eq!((lifecycle.activity, lifecycle.is_alive), (heard, true));
        world.spawned(json!({})).unwrap();
        assert_eq!(world.state(), SessionState::NotStarted);
    }
}

#[test]
fn a_new_life_knows_nothing_of_the_old_one() {
    let mut world = World::with(SessionState::Working);
    world.hook("waiting_input");
    world.kill("");
    world.write(|sql| sessions::set_workspace_freed(sql, "mer-1", Some(NOW))).unwrap();
    world.spawned(json!({ "outcome": outcome(), "expect": "terminal" })).unwrap();
    let lifecycle = world.record().lifecycle;
    assert_eq!((lifecycle.state, lifecycle.termination_reason), (SessionState::NotStarted, TerminationReason::None));
    assert_eq!((lifecycle.activity, lifecycle.is_alive), (Activity::default(), true));
    assert_eq!(lifecycle.activity.state, ActivityState::Idle);
    let mut freed = None;
    let text = "SELECT workspace_freed_at FROM sessions";
    let mut sql = Sqlite(&world.db);
    sql.rows("t", text, &[], &mut |row| {
        freed = row.opt_text(0)?.map(str::to_owned);
        Ok(())
    })
    .unwrap();
    assert_eq!(freed, None);
    // The old question would have made this death look unclear.
    world.now += MINUTE;
    world.probe("dead", "dead");
    assert_eq!(world.state(), SessionState::Terminated);
}

#[test]
fn an_unknown_session_is_an_error() {
    let mut world = World::new();
    let error = world.spawned(json!({})).unwrap_err();
    assert_eq!(error.code(), Code::LifecycleSessionNotFound);
    assert_eq!(error.message(), "lifecycle: onSpawnCompleted for unknown session \"mer-1\"");
}
