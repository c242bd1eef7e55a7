//! Escalation by time.

use super::*;
use crate::lifecycle::tables::sessions;

fn conflicting() -> Json {
    json!({ "mergeability": "conflicting" })
}

#[test]
fn a_conflict_escalates_after_a_quarter_of_an_hour_once() {
    let mut world = World::with(SessionState::Working);
    world.poll(conflicting());
    assert_eq!(
        world.news(),
        ["reaction.merge-conflicts: Your PR has merge conflicts. Rebase onto the base branch and resolve them."]
    );
    world.now = NOW + 15 * MINUTE - 1;
    world.tick();
    assert!(world.news().is_empty());
    world.now = NOW + 15 * MINUTE;
    world.tick();
    assert_eq!(
        world.news(),
        ["reaction.escalated: Automatic handling of \"merge-conflicts\" is exhausted — needs a human."]
    );
    for minutes in [16, 30, 60] {
        world.now = NOW + minutes * MINUTE;
        world.tick();
        world.poll(conflicting());
    }
    assert!(world.news().is_empty());
    assert_eq!(world.changes(), ["session_created", "pr_created"]);
}

#[test]
fn a_conflict_that_was_left_does_not_escalate() {
    let mut world = World::with(SessionState::Working);
    world.poll(conflicting());
    world.now += MINUTE;
    world.poll(failing("c1"));
    world.now += MINUTE;
    world.poll(json!({ "ci": "passing", "mergeability": "mergeable" }));
    world.news();
    world.now = NOW + 16 * MINUTE;
    world.tick();
    assert!(world.news().is_empty());
}

#[test]
fn coming_back_fires_again_with_a_fresh_clock() {
    let mut world = World::with(SessionState::Working);
    world.hook("idle");
    world.now += 10 * MINUTE;
    world.hook("active");
    world.now += MINUTE;
    world.hook("idle");
    assert_eq!(world.types(), ["reaction.agent-idle", "reaction.agent-idle"]);
    world.now = NOW + 16 * MINUTE;
    world.tick();
    assert!(world.news().is_empty());
    world.now = NOW + 26 * MINUTE;
    world.tick();
    assert_eq!(world.types(), ["reaction.escalated"]);
    // Idle again without having been anything else: still the same stay.
    world.now += MINUTE;
    world.hook("ready");
    assert!(world.news().is_empty());
}

#[test]
fn the_oldest_comes_first() {
    let mut world = World::new();
    for _ in 0..3 {
        world.session(SessionState::Working);
    }
    for (offset, id) in [(0, "mer-3"), (1000, "mer-1"), (2000, "mer-2")] {
        world.now = NOW + offset;
        world.signal(json!({ "id": id, "valid": true, "state": "idle" }));
    }
    world.now = NOW + 20 * MINUTE;
    let ids: Vec<_> = world.tick().deliveries.into_iter().map(|delivery| delivery.session_id).collect();
    assert_eq!(ids, ["mer-3", "mer-1", "mer-2"]);
}

#[test]
fn a_session_that_somebody_finished_directly_is_not_escalated() {
    let mut world = World::with(SessionState::Working);
    world.hook("idle");
    world.news();
    let before = world.record();
    let mut after = before.clone();
    after.lifecycle.state = SessionState::Done;
    world.write(|sql| sessions::save(sql, &before, &after)).unwrap();
    world.now += 20 * MINUTE;
    world.tick();
    assert!(world.news().is_empty());
    assert_eq!(world.rows("reaction_state"), 0);
}

#[test]
fn times_at_the_edge_of_the_calendar_do_not_break_a_tick() {
    let mut world = World::with(SessionState::Working);
    for now in [0, -62_167_219_200_000, 253_402_300_799_999] {
        world.now = now;
        assert!(world.tick().deliveries.is_empty());
    }
}
