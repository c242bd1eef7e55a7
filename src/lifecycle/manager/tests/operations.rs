//! What takes several transactions.

use super::*;
use crate::error::Code;
use crate::lifecycle::manager::operations::{Abandoned, Advance, Begin, End, abandoned, advance, begin, end};
use crate::lifecycle::owners::Fixed;

fn start(world: &mut World, owners: &Fixed, kind: &str) -> Result<String> {
    let input = Begin { id: "mer-1".into(), kind: kind.into(), now: world.now };
    Ok(world.write(|sql| begin(sql, owners, &input))?.token)
}

#[test]
fn one_operation_at_a_time_but_a_kill_may_meet_a_spawn() {
    let mut world = World::with(SessionState::NotStarted);
    let me = Fixed::new("me", &[]);
    let spawn = start(&mut world, &me, "spawn").unwrap();
    for (kind, message) in [("restore", "restore mer-1"), ("cleanup", "cleanup mer-1")] {
        let error = start(&mut world, &me, kind).unwrap_err();
        assert_eq!(error.code(), Code::LifecycleSessionBusy);
        assert_eq!(error.message(), format!("{message}: session: another operation is in progress"));
    }
    let kill = start(&mut world, &me, "kill").unwrap();
    assert_eq!(start(&mut world, &Fixed::new("you", &[]), "kill").unwrap_err().code(), Code::LifecycleSessionBusy);
    for token in [spawn, kill] {
        world.write(|sql| end(sql, &me, &End { token, freed: false, runtime_freed: false, now: NOW })).unwrap();
    }
    start(&mut world, &me, "restore").unwrap();
    assert_eq!(start(&mut world, &me, "dance").unwrap_err().code(), Code::InvalidArgument);
    let unknown = Begin { id: "mer-9".into(), kind: "kill".into(), now: NOW };
    assert_eq!(world.write(|sql| begin(sql, &me, &unknown)).unwrap_err().code(), Code::LifecycleSessionNotFound);
}

#[test]
fn what_a_dead_store_left_is_taken_over_by_one() {
    let mut world = World::with(SessionState::NotStarted);
    let gone = Fixed::new("gone", &[]);
    let token = start(&mut world, &gone, "spawn").unwrap();
    let step =
        Advance { token: token.clone(), step: "runtime".into(), launch_id: None, runtime_freed: false, now: NOW };
    world.write(|sql| advance(sql, &gone, &step)).unwrap();
    let alive = Fixed::new("a", &[]);
    assert!(world.write(|sql| abandoned(sql, &alive, &Abandoned { now: NOW })).unwrap().is_empty());
    let heir = Fixed::new("b", &["gone"]);
    let found = world.write(|sql| abandoned(sql, &heir, &Abandoned { now: NOW })).unwrap();
    let told = serde_json::to_value(&found).unwrap();
    assert_eq!(told, json!([{ "token": token, "sessionId": "mer-1", "kind": "spawn", "step": "runtime" }]));
    let second = Fixed::new("c", &["gone"]);
    assert!(world.write(|sql| abandoned(sql, &second, &Abandoned { now: NOW })).unwrap().is_empty());
    // Should it live after all, it learns that it has to stop, and its end changes nothing.
    assert_eq!(world.write(|sql| advance(sql, &gone, &step)).unwrap_err().code(), Code::LifecycleSessionBusy);
    world
        .write(|sql| end(sql, &gone, &End { token: token.clone(), freed: true, runtime_freed: false, now: NOW }))
        .unwrap();
    assert_eq!(world.rows("session_operation"), 1);
    world.write(|sql| end(sql, &heir, &End { token, freed: true, runtime_freed: false, now: NOW })).unwrap();
    assert_eq!(world.rows("session_operation"), 0);
    let freed = "sessions WHERE workspace_freed_at IS NOT NULL";
    assert_eq!(world.rows(freed), 1);
}

#[test]
fn what_a_dead_store_left_keeps_nobody_from_working() {
    let mut world = World::with(SessionState::NotStarted);
    start(&mut world, &Fixed::new("gone", &[]), "restore").unwrap();
    start(&mut world, &Fixed::new("me", &["gone"]), "kill").unwrap();
    assert_eq!(world.rows("session_operation"), 2);
}

/// `(runtime_freed, stopped)`
fn marks(world: &mut World) -> (bool, bool) {
    let record = world.record();
    (record.runtime_freed, record.stopped)
}

#[test]
fn a_runtime_is_gone_once_it_was_destroyed_or_found_dead_until_another_comes() {
    let mut world = World::with(SessionState::Working);
    let me = Fixed::new("me", &[]);
    let token = start(&mut world, &me, "kill").unwrap();
    let step =
        Advance { token: token.clone(), step: "workspace".into(), launch_id: None, runtime_freed: true, now: NOW };
    world.write(|sql| advance(sql, &me, &step)).unwrap();
    assert_eq!(marks(&mut world), (false, false), "the runtime of one that lives is there");
    world.kill("");
    world.write(|sql| advance(sql, &me, &step)).unwrap();
    assert_eq!(marks(&mut world), (true, false));
    world.write(|sql| end(sql, &me, &End { token, freed: false, runtime_freed: false, now: NOW })).unwrap();
    world.spawned(json!({ "expect": "terminal" })).unwrap();
    assert_eq!(marks(&mut world), (false, false));
    world.probe("dead", "dead");
    assert_eq!((world.state(), marks(&mut world)), (SessionState::Terminated, (true, false)));
    // Another handle is that of another runtime.
    let before = world.record();
    let mut after = before.clone();
    after.metadata.branch = "b".into();
    world.write(|sql| sessions::save_always(sql, &before, &after)).unwrap();
    assert!(world.record().runtime_freed);
    let before = world.record();
    after.metadata.runtime_handle_id = "h9".into();
    world.write(|sql| sessions::save_always(sql, &before, &after)).unwrap();
    assert!(!world.record().runtime_freed);
}

#[test]
fn what_was_stopped_is_to_be_resumed_until_it_is_killed_merged_or_up_again() {
    let stop = |world: &mut World| {
        let input: killed::Kill = world.input(json!({ "reason": "auto_cleanup", "resume": true }));
        world.act(|sql| killed::kill(sql, &input)).unwrap();
        world.record().stopped
    };
    let mut world = World::with(SessionState::Working);
    assert!(stop(&mut world));
    assert!(stop(&mut world), "again");
    world.kill("");
    assert!(!world.record().stopped);
    assert!(!stop(&mut world), "whoever was killed stays dead");
    world.spawned(json!({ "expect": "terminal" })).unwrap();
    assert!(stop(&mut world));
    world.poll(json!({ "closed": true }));
    assert!(world.record().stopped);
    world.poll(json!({ "merged": true }));
    assert!(!world.record().stopped);
    world.spawned(json!({ "expect": "terminal" })).unwrap();
    stop(&mut world);
    world.spawned(json!({ "expect": "terminal" })).unwrap();
    assert!(!world.record().stopped);
    world.now += 2 * MINUTE;
    world.probe("dead", "dead");
    assert!(!stop(&mut world), "what ended by itself is not resumed");
}
