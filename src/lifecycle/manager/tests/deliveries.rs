//! Messages that do not arrive.

use super::*;

#[test]
fn what_did_not_arrive_is_delivered_by_the_next_tick_once() {
    let mut world = World::with(SessionState::Working);
    world.is_down = true;
    world.hook("blocked");
    assert_eq!(world.state(), SessionState::Stuck);
    assert_eq!((world.refused.len(), world.heard.len()), (1, 0));
    world.is_down = false;
    world.tick();
    assert_eq!(world.types(), ["reaction.agent-stuck"]);
    world.now += MINUTE;
    world.tick();
    assert!(world.news().is_empty());
}

#[test]
fn nobody_else_delivers_while_somebody_does() {
    let mut world = World::with(SessionState::Working);
    let input: activity::Observe = world.input(json!({ "valid": true, "state": "blocked" }));
    let taken = world.write(|sql| activity::observe(sql, &input)).unwrap().deliveries;
    assert_eq!(taken.len(), 1);
    world.now = NOW + 29_999;
    assert!(world.tick().deliveries.is_empty());
    // Nor does a run.
    assert!(world.poll(json!({})).deliveries.is_empty());
    world.now = NOW + 30_000;
    let again = world.tick().deliveries;
    assert_eq!((again.len(), world.types()), (1, vec!["reaction.agent-stuck".to_owned()]));
    assert_ne!(again[0].token, taken[0].token);
}

#[test]
fn a_lease_from_the_future_does_not_count() {
    let mut world = World::with(SessionState::Working);
    let input: activity::Observe = world.input(json!({ "valid": true, "state": "blocked" }));
    world.write(|sql| activity::observe(sql, &input)).unwrap();
    world.now = NOW - 60 * MINUTE;
    world.tick();
    assert_eq!(world.types(), ["reaction.agent-stuck"]);
}

#[test]
fn a_late_answer_does_not_clear_what_is_newer() {
    let mut world = World::with(SessionState::Working);
    let poll: pr::Observe = world.input(json!({ "observation": {
        "fetched": true, "url": URL, "ci": "failing", "checks": [check("c1", "failed", "x")] } }));
    let first = world.write(|sql| pr::observe(sql, &poll)).unwrap().deliveries.remove(0);
    world.is_down = true;
    world.poll(failing("c2"));
    assert_eq!(world.refused.len(), 1);
    world.is_down = false;
    world.settle(&first, true);
    world.tick();
    assert_eq!(world.types(), ["reaction.ci-failed"]);
    world.settle(&first, false);
    world.tick();
    assert!(world.news().is_empty());
}

#[test]
fn a_run_retries_what_still_holds_and_drops_what_does_not() {
    let mut world = World::with(SessionState::Working);
    world.is_down = true;
    world.hook("idle");
    world.poll(failing("c1"));
    assert_eq!(world.refused.len(), 2);
    world.is_down = false;
    world.now += 1000;
    // Failing checks have taken the place of idleness; they are still there.
    world.hook("active");
    assert_eq!(world.types(), ["reaction.ci-failed"]);
    world.is_down = true;
    world.poll(json!({ "ci": "passing", "mergeability": "conflicting" }));
    world.poll(json!({ "ci": "passing" }));
    world.is_down = false;
    world.now += MINUTE;
    world.tick();
    assert!(world.news().is_empty());
}

#[test]
fn feedback_that_did_not_arrive_waits_until_the_agent_may_be_told() {
    let mut world = World::with(SessionState::Working);
    world.is_down = true;
    world.poll(failing("c1"));
    world.hook("waiting_input");
    world.is_down = false;
    world.now += MINUTE;
    world.tick();
    assert_eq!(world.types(), ["reaction.agent-needs-input"]);
    world.now += 1000;
    world.hook("active");
    assert_eq!(world.types(), ["reaction.ci-failed"]);
}

#[test]
fn the_notice_of_an_end_survives_until_it_arrives() {
    let mut world = World::with(SessionState::Working);
    world.hook("idle");
    world.news();
    world.is_down = true;
    world.hook("exited");
    world.probe("dead", "dead");
    world.kill("");
    world.tick();
    assert_eq!(world.rows("reaction_state"), 1);
    // Not even a new life stops it.
    world.spawned(json!({ "expect": "terminal" })).unwrap();
    world.is_down = false;
    world.now += 60 * MINUTE;
    world.hook("active");
    assert_eq!(world.types(), ["reaction.agent-exited"]);
    assert_eq!(world.rows("reaction_state"), 0);
    world.tick();
    assert!(world.news().is_empty());
}

#[test]
fn an_escalation_that_did_not_arrive_is_tried_again() {
    let mut world = World::with(SessionState::Working);
    world.hook("idle");
    world.news();
    world.is_down = true;
    world.now += 15 * MINUTE;
    world.tick();
    world.is_down = false;
    world.now += MINUTE;
    world.tick();
    assert_eq!(world.types(), ["reaction.escalated"]);
}

#[test]
fn one_refusal_does_not_stop_the_others() {
    let mut world = World::new();
    for _ in 0..2 {
        world.session(SessionState::Working);
    }
    world.is_down = true;
    for id in ["mer-1", "mer-2"] {
        world.signal(json!({ "id": id, "valid": true, "state": "blocked" }));
    }
    let input: escalate::Tick = world.input(json!({}));
    let both = world.write(|sql| escalate::tick(sql, &input)).unwrap().deliveries;
    assert_eq!(both.len(), 2);
    world.settle(&both[0], false);
    world.settle(&both[1], true);
    world.is_down = false;
    world.tick();
    assert_eq!(world.heard.len(), 1);
}
