//! Ends, and what comes after them.

use super::*;
use crate::error::Code;
use crate::lifecycle::tables::prs;
use crate::lifecycle::words::{CiState, PrState, SeveralPrs};

#[test]
fn nothing_changes_a_session_that_has_ended() {
    let mut world = World::with(SessionState::Working);
    assert_eq!(world.kill("").killed, Some(true));
    let ended = world.record();
    assert_eq!(ended.lifecycle.termination_reason, TerminationReason::ManuallyKilled);
    let events = world.changes().len();
    for (runtime, process) in [("alive", "alive"), ("failed", "failed"), ("dead", "dead")] {
        world.probe(runtime, process);
    }
    for activity in ["active", "waiting_input", "blocked", "exited"] {
        world.hook(activity);
    }
    assert_eq!(world.kill("auto_cleanup").killed, Some(false));
    assert_eq!((world.record(), world.changes().len()), (ended.clone(), events));
    // What is known of its pull request is still recorded.
    world.poll(failing("c1"));
    world.poll(json!({ "merged": true }));
    assert_eq!(world.record(), ended);
    let row = prs::get(&mut Sqlite(&world.db), URL).unwrap().unwrap();
    assert_eq!((row.state, row.ci_state), (PrState::Merged, CiState::Unknown));
    assert!(world.news().is_empty());
}

#[test]
fn a_kill_tells_nobody_and_forgets_what_was_tried() {
    let mut world = World::with(SessionState::Working);
    world.hook("idle");
    world.poll(failing("c1"));
    world.news();
    assert!(world.rows("reaction_state") > 0);
    world.kill("error_in_process");
    assert_eq!(world.rows("reaction_state"), 0);
    world.now += 20 * MINUTE;
    world.tick();
    assert!(world.news().is_empty());
    let input: killed::Kill = world.input(json!({ "reason": "boredom" }));
    assert_eq!(world.act(|sql| killed::kill(sql, &input)).unwrap_err().code(), Code::InvalidArgument);
    let unknown: killed::Kill = world.input(json!({ "id": "mer-9" }));
    assert_eq!(world.act(|sql| killed::kill(sql, &unknown)).unwrap().killed, Some(false));
}

#[test]
fn death_is_told_once_whatever_comes_after_it() {
    let mut world = World::with(SessionState::Working);
    world.probe("dead", "dead");
    for _ in 0..3 {
        world.now += MINUTE;
        world.poll(failing("c1"));
        world.probe("dead", "dead");
        world.tick();
    }
    assert_eq!(world.types(), ["reaction.agent-exited"]);
    assert_eq!(world.rows("reaction_state"), 0);
}

#[test]
fn a_merge_ends_the_session_and_is_told_once() {
    let mut world = World::with(SessionState::Working);
    world.poll(json!({ "mergeability": "conflicting" }));
    world.news();
    world.poll(json!({ "merged": true, "ci": "failing", "checks": [check("c1", "failed", "x")] }));
    let lifecycle = world.record().lifecycle;
    assert_eq!(lifecycle.state, SessionState::Terminated);
    assert_eq!((lifecycle.termination_reason, lifecycle.is_alive), (TerminationReason::PrMerged, false));
    assert_eq!(world.news(), ["reaction.pr-merged: PR merged — work complete."]);
    world.poll(json!({ "merged": true, "ci": "passing" }));
    assert_eq!(prs::get(&mut Sqlite(&world.db), URL).unwrap().unwrap().ci_state, CiState::Passing);
    assert!(world.news().is_empty());
    assert_eq!(
        world.changes(),
        ["session_created", "pr_created", "pr_updated", "pr_check_recorded", "session_updated", "pr_updated"]
    );
}

#[test]
fn each_merge_ends_it_unless_the_caller_wants_the_last_to() {
    for (policy, state) in
        [(None, SessionState::Terminated), (Some(json!({ "mergeEnds": "last" })), SessionState::Working)]
    {
        let mut world = World::with(SessionState::Working);
        world.policy = policy;
        world.poll(json!({ "url": "https://x/pull/2", "number": 2 }));
        world.poll(json!({ "merged": true }));
        assert_eq!(world.state(), state);
        world.poll(json!({ "url": "https://x/pull/2", "number": 2, "merged": true }));
        assert_eq!(world.state(), SessionState::Terminated);
        assert_eq!(world.types(), ["reaction.pr-merged"]);
    }
}

#[test]
fn what_was_not_fetched_says_nothing() {
    let mut world = World::with(SessionState::Working);
    for observation in [
        json!({ "fetched": false, "url": URL, "ci": "failing", "checks": [check("c1", "failed", "x")] }),
        json!({ "fetched": false, "ci": 5, "checks": "none" }),
        json!({}),
        json!(null),
    ] {
        let input: pr::Observe = world.input(json!({ "observation": observation }));
        assert_eq!(world.act(|sql| pr::observe(sql, &input)).unwrap(), Outcome::default());
    }
    let input: pr::Observe = world.input(json!({ "id": "mer-9", "observation": { "fetched": true, "url": URL } }));
    assert_eq!(world.act(|sql| pr::observe(sql, &input)).unwrap(), Outcome::default());
    assert_eq!((world.rows("pr"), world.changes().len(), world.heard.len()), (0, 1, 0));
}

#[test]
fn an_observation_is_stored_whole_or_not_at_all() {
    let mut world = World::with(SessionState::Working);
    world.poll(json!({ "comments": [{ "commentId": "a", "body": "x" }] }));
    let before = (world.changes(), world.rows("pr_comment"));
    for fields in [
        json!({ "ci": "failing", "checks": [check("c1", "failed", "x"), check("c2", "exploded", "x")] }),
        json!({ "ci": "red" }),
        json!({ "review": "maybe" }),
    ] {
        assert_eq!(world.try_poll(fields).unwrap_err().code(), Code::LifecycleConstraint);
        assert_eq!((world.changes(), world.rows("pr_comment")), before);
        assert_eq!(world.rows("pr_checks"), 0);
    }
    assert_eq!(world.try_poll(json!({ "url": 5 })).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn the_open_pull_request_counts_and_a_moved_one_changes_sides() {
    let mut world = World::with(SessionState::Working);
    world.session(SessionState::Working);
    world.poll(json!({ "url": "old", "number": 1 }));
    world.now += MINUTE;
    world.poll(json!({ "url": "new", "number": 2, "closed": true }));
    assert_eq!(world.types(), Vec::<String>::new());
    assert_eq!(prs::facts(&mut Sqlite(&world.db), "mer-1", SeveralPrs::Newest).unwrap().url, "old");
    world.poll(json!({ "url": "old", "number": 1, "closed": true }));
    assert_eq!(world.types(), ["reaction.pr-closed"]);
    let input: pr::Observe =
        world.input(json!({ "id": "mer-2", "observation": { "fetched": true, "url": "old", "closed": true } }));
    world.act(|sql| pr::observe(sql, &input)).unwrap();
    assert_eq!(prs::facts(&mut Sqlite(&world.db), "mer-1", SeveralPrs::Newest).unwrap().url, "new");
    assert_eq!(world.changes().last().unwrap(), "pr_updated");
}
