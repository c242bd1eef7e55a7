//! What checks and reviewers say.

use super::*;
use crate::lifecycle::tables::checks;
use crate::lifecycle::words::CheckStatus;

#[test]
fn ci_fails_and_recovers() {
    let mut world = World::with(SessionState::Working);
    world.poll(failing("c1"));
    assert_eq!(
        world.news(),
        [
            "reaction.ci-failed: CI is failing on your PR. Review the output below and push a fix.\n\nFailing output:\npanic: nil map"
        ]
    );
    let recent = checks::recent(&mut Sqlite(&world.db), URL, "build", 3).unwrap();
    assert_eq!(recent, [CheckStatus::Failed]);
    world.poll(json!({ "ci": "passing", "mergeability": "mergeable", "checks": [check("c2", "passed", "")] }));
    assert_eq!(world.news(), ["reaction.approved-and-green: PR is approved and green — ready to merge."]);
}

#[test]
fn the_same_commit_is_told_once_and_the_third_is_for_a_person() {
    let mut world = World::with(SessionState::Working);
    for _ in 0..5 {
        world.now += MINUTE;
        world.poll(failing("c1"));
    }
    assert_eq!(world.types(), ["reaction.ci-failed"]);
    for commit in ["c2", "c3", "c3", "c3", "c3"] {
        world.now += MINUTE;
        world.poll(failing(commit));
    }
    let news = world.news();
    assert_eq!(news.len(), 2);
    assert_eq!(news[1], "reaction.escalated: Automatic handling of \"ci-failed\" is exhausted — needs a human.");
    world.now += MINUTE;
    world.poll(failing("c4"));
    assert!(world.news().is_empty());
    // Green, and then red again: it begins anew.
    world.now += MINUTE;
    world.poll(json!({ "ci": "passing", "checks": [check("c5", "passed", "")] }));
    world.now += MINUTE;
    world.poll(failing("c6"));
    assert_eq!(world.types(), ["reaction.ci-failed"]);
}

fn reviews(ids: &[&str]) -> Json {
    let comments: Vec<Json> =
        ids.iter().map(|id| json!({ "commentId": id, "body": format!("fix {id}"), "author": "ann" })).collect();
    json!({ "review": "changes_requested", "comments": comments })
}

#[test]
fn three_reviews_are_told_and_the_fourth_is_for_a_person() {
    let mut world = World::with(SessionState::Working);
    for ids in [["b", "a"], ["a", "c"], ["a", "d"], ["a", "e"]] {
        world.now += MINUTE;
        world.poll(reviews(&ids));
        // The same, in another order.
        world.poll(reviews(&[ids[1], ids[0]]));
        for activity in ["ready", "active"] {
            world.now += 1000;
            world.hook(activity);
        }
    }
    let news = world.news();
    assert_eq!(news.len(), 4);
    let base = "reaction.review-comments: A reviewer left feedback on your PR. Address it and push.";
    assert_eq!(news[0], format!("{base}\n\nfix b\n\nfix a"));
    assert!(news[3].starts_with("reaction.escalated: Automatic handling of \"review-comments\""));
    let resolved = json!({ "comments": [{ "commentId": "a", "body": "fix a", "resolved": true }] });
    world.poll(resolved);
    world.poll(json!({ "comments": [{ "commentId": "f", "body": "new" }] }));
    assert_eq!(world.news(), [format!("{base}\n\nnew")]);
}

#[test]
fn a_review_without_words_is_told_once() {
    let mut world = World::with(SessionState::Working);
    for _ in 0..3 {
        world.poll(json!({ "review": "changes_requested", "comments": [] }));
        world.hook("active");
        world.now += 1000;
    }
    assert_eq!(world.types(), ["reaction.review-comments"]);
}

#[test]
fn of_two_comments_with_one_id_the_last_counts() {
    let mut world = World::with(SessionState::Working);
    let comment = |id: &str, body: &str, resolved: bool| json!({ "commentId": id, "body": body, "resolved": resolved });
    world.poll(json!({ "comments": [comment("a", "1", false), comment("b", "2", false), comment("a", "3", false)] }));
    assert!(world.news()[0].ends_with("push.\n\n3\n\n2"));
    world.poll(json!({ "comments": [comment("b", "2", false), comment("a", "3", false)] }));
    world.poll(json!({ "comments": [comment("a", "1", false), comment("a", "3", true)] }));
    assert!(world.news().is_empty());
    assert_eq!(world.rows("reaction_state"), 0);
}

#[test]
fn both_feedbacks_come_in_one_run_before_the_entry() {
    let mut world = World::with(SessionState::Working);
    let mut both = failing("c1");
    both["comments"] = json!([{ "commentId": "a", "body": "x" }]);
    let outcome = world.poll(both);
    let keys: Vec<_> = outcome.deliveries.iter().map(|delivery| delivery.reaction.as_str()).collect();
    assert_eq!(keys, ["ci-failed", "review-comments"]);
}

#[test]
fn nothing_is_told_to_an_agent_that_waits_for_a_person() {
    for (activity, page) in [("waiting_input", "reaction.agent-needs-input"), ("blocked", "reaction.agent-stuck")] {
        let mut world = World::with(SessionState::Working);
        world.hook(activity);
        world.poll(failing("c1"));
        assert_eq!(world.types(), [page]);
        world.now += 1000;
        world.hook("active");
        assert!(world.news().is_empty());
        world.poll(failing("c1"));
        assert_eq!(world.types(), ["reaction.ci-failed"]);
    }
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let mut world = World::with(SessionState::Working);
    let log = "a\tb\nc\r\u{1b}[31mred\u{7}\u{0}\u{9b}2J\u{7f}é";
    world.poll(json!({ "ci": "failing", "checks": [check("c1", "failed", log)] }));
    assert!(world.news()[0].ends_with("Failing output:\na\tb\nc[31mred2Jé"));
    // The signature is that of what was told.
    world.poll(json!({ "ci": "failing", "checks": [check("c1\u{7}", "failed", log)] }));
    assert_eq!(world.types(), ["reaction.ci-failed"]);
}

#[test]
fn all_failed_checks_in_one_message_if_the_caller_wants() {
    let mut world = World::with(SessionState::Working);
    world.policy = Some(json!({ "allFailedChecks": true, "messages": { "ci-failed": "Red." } }));
    let failed = |name: &str, log: &str| json!({ "name": name, "commitHash": "c1", "status": "failed", "logTail": log, "url": "u" });
    world.poll(
        json!({ "ci": "failing", "checks": [failed("lint", "x"), check("c1", "passed", ""), failed("unit", "```")] }),
    );
    assert_eq!(world.news(), ["reaction.ci-failed: Red.\n\nlint (u):\n```\nx\n```\n\nunit (u):\n````\n```\n````"]);
    world.poll(json!({ "ci": "failing", "checks": [failed("unit", "y"), failed("lint", "x")] }));
    assert!(world.news().is_empty());
    world.poll(json!({ "ci": "failing", "checks": [failed("unit", "y")] }));
    assert_eq!(world.types(), ["reaction.ci-failed"]);
}

#[test]
fn reactions_can_be_switched_off() {
    let mut world = World::with(SessionState::Working);
    world.policy = Some(json!({ "off": ["ci-failed", "agent-idle", "pr-merged"], "escalateAfterMs": 1000 }));
    world.poll(failing("c1"));
    world.poll(json!({ "ci": "pending" }));
    world.hook("idle");
    world.now += 5000;
    world.tick();
    world.poll(json!({ "merged": true }));
    assert!(world.news().is_empty());
    assert_eq!(world.rows("reaction_state"), 0);
}
