//! Several pull requests of one session.

use super::*;
use crate::error::Code;
use crate::lifecycle::command::{Context, Read, Write};
use crate::lifecycle::owners::Fixed;

/// A world in which the worst counts.
fn worst() -> World {
    let mut world = World::with(SessionState::Working);
    world.policy = Some(json!({ "severalPrs": "worst" }));
    world
}

impl World {
    /// A look at the pull request `name`, a minute later.
    fn look(&mut self, name: &str, mut fields: Json) -> Outcome {
        self.now += MINUTE;
        fields["url"] = json!(name);
        self.poll(fields)
    }

    fn status(&mut self) -> String {
        let several = self.policy.as_ref().map(|policy| policy["severalPrs"].clone());
        let one = json!({ "do": "view", "id": "mer-1", "severalPrs": several }).to_string();
        let all = json!({ "do": "views", "projectId": "mer", "severalPrs": several }).to_string();
        let [one, all] = [one, all].map(|command| {
            let text = Read::parse(&command).unwrap().run(&mut Sqlite(&self.db)).unwrap().unwrap();
            serde_json::from_str::<Json>(&text).unwrap()
        });
        assert_eq!(one["status"], all[0]["status"]);
        one["status"].as_str().unwrap().to_owned()
    }

    pub(super) fn command(&mut self, command: Json) -> Result<String> {
        let owners = Fixed::new("me", &[]);
        let context = Context { owners: &owners, harnesses: &[] };
        let text = command.to_string();
        self.write(|sql| Write::parse(&text)?.run(sql, &context))
    }
}

fn reviewed(id: &str) -> Json {
    json!({ "comments": [{ "commentId": id, "body": format!("fix {id}") }] })
}

#[test]
fn a_failing_one_is_not_hidden_by_a_newer_one_that_passes() {
    for (policy, status, told) in [
        (None, "mergeable", vec!["reaction.ci-failed", "reaction.approved-and-green"]),
        (Some(json!({ "severalPrs": "worst" })), "ci_failed", vec!["reaction.ci-failed"]),
    ] {
        let mut world = World::with(SessionState::Working);
        world.policy = policy;
        world.look("a", failing("c1"));
        world.look("b", json!({ "ci": "passing", "mergeability": "mergeable" }));
        assert_eq!((world.status().as_str(), world.types()), (status, told.iter().map(ToString::to_string).collect()));
    }
}

#[test]
fn all_are_told_once_in_whatever_order_they_are_looked_at() {
    let mut world = worst();
    world.look("a", failing("a1"));
    world.look("b", failing("b1"));
    world.look("c", reviewed("c1"));
    assert_eq!(world.types(), ["reaction.ci-failed", "reaction.ci-failed", "reaction.review-comments"]);
    for round in 0..8 {
        // Each of them is written last once in a while.
        let turn = if round % 2 == 0 { "unknown" } else { "blocked" };
        for (name, mut seen) in [("a", failing("a1")), ("b", failing("b1")), ("c", reviewed("c1"))] {
            seen["mergeability"] = json!(turn);
            world.look(name, seen);
            world.tick();
        }
        world.hook(if round % 2 == 0 { "ready" } else { "active" });
    }
    let news = world.types();
    assert!(news.iter().all(|told| told == "reaction.agent-idle"), "{news:?}");
    // News of one of them is told, and says of which.
    world.look("a", failing("a2"));
    let news = world.news();
    assert!(news.len() == 1 && news[0].contains("Pull request: a\n\nFailing output:\npanic"), "{news:?}");
    world.look("b", failing("b1"));
    assert!(world.news().is_empty());
}

#[test]
fn a_review_is_not_told_again_because_another_one_failed_in_between() {
    let mut world = worst();
    world.look("b", reviewed("c1"));
    world.look("a", failing("a1"));
    assert_eq!(world.status(), "ci_failed");
    world.look("a", json!({ "ci": "passing" }));
    world.look("b", reviewed("c1"));
    assert_eq!(world.status(), "changes_requested");
    assert_eq!(world.types(), ["reaction.review-comments", "reaction.ci-failed"]);
    // Settled, and asked again: that is news.
    world.look("b", json!({}));
    world.look("b", reviewed("c1"));
    assert_eq!(world.types(), ["reaction.review-comments"]);
}

#[test]
fn one_that_recovers_while_another_fails_may_be_told_anew() {
    let mut world = worst();
    world.look("a", failing("a1"));
    world.look("b", failing("b1"));
    world.news();
    world.look("a", json!({ "ci": "passing" }));
    world.look("a", failing("a1"));
    assert_eq!(world.types(), ["reaction.ci-failed"]);
}

#[test]
fn what_could_not_be_told_of_one_is_told_with_the_next() {
    let mut world = worst();
    world.look("b", json!({}));
    world.is_down = true;
    world.look("a", failing("a1"));
    world.look("b", failing("b1"));
    world.is_down = false;
    world.now += MINUTE;
    world.tick();
    let news = world.news();
    assert_eq!(news.len(), 1);
    assert!(news[0].contains("Pull request: a") && news[0].contains("Pull request: b"), "{news:?}");
    world.look("a", failing("a1"));
    world.look("b", failing("b1"));
    assert!(world.news().is_empty());
}

#[test]
fn conflicts_of_several_are_told_once_each_and_escalate_with_the_oldest() {
    let conflicting = || json!({ "mergeability": "conflicting" });
    let mut world = worst();
    world.look("a", conflicting());
    world.now += 5 * MINUTE;
    world.look("b", conflicting());
    let news = world.news();
    assert_eq!(news.len(), 2);
    assert!(news[1].ends_with("Pull request: b"), "{news:?}");
    let second = world.now;
    for _ in 0..3 {
        for name in ["a", "b"] {
            world.look(name, conflicting());
        }
    }
    // The first is settled: from now on the clock is that of the second.
    world.look("a", json!({ "mergeability": "unknown" }));
    assert!(world.news().is_empty());
    world.now = second + 15 * MINUTE - 1;
    world.tick();
    assert!(world.news().is_empty());
    world.now += 1;
    world.tick();
    assert_eq!(world.types(), ["reaction.escalated"]);
    world.look("c", conflicting());
    assert!(world.news().is_empty());
}

#[test]
fn the_way_to_look_can_change_while_something_is_going_on() {
    let mut world = World::with(SessionState::Working);
    world.look("a", failing("a1"));
    world.look("b", json!({ "mergeability": "conflicting" }));
    let began = world.now;
    assert_eq!(world.types(), ["reaction.ci-failed", "reaction.merge-conflicts"]);
    world.look("a", json!({ "ci": "passing", "draft": true }));
    world.look("b", json!({ "mergeability": "conflicting", "ci": "passing" }));
    let entered = world.now;
    world.news();
    assert!(entered > began);
    world.policy = Some(json!({ "severalPrs": "worst" }));
    world.look("b", json!({ "mergeability": "conflicting", "ci": "passing" }));
    world.look("a", failing("a2"));
    assert_eq!(world.types(), ["reaction.ci-failed"]);
    world.policy = None;
    world.look("a", failing("a2"));
    assert!(world.news().is_empty());
}

#[test]
fn a_conflict_that_was_told_before_the_worst_counted_keeps_its_clock() {
    let mut world = World::with(SessionState::Working);
    world.look("a", json!({ "mergeability": "conflicting" }));
    let began = world.now;
    world.news();
    world.policy = Some(json!({ "severalPrs": "worst" }));
    world.look("a", json!({ "mergeability": "conflicting" }));
    assert!(world.news().is_empty());
    world.now = began + 15 * MINUTE;
    world.tick();
    assert_eq!(world.types(), ["reaction.escalated"]);
}

#[test]
fn a_stacked_one_is_not_nudged_to_rebase_until_its_parent_is_merged() {
    for several in ["newest", "worst"] {
        let mut world = World::with(SessionState::Working);
        world.policy = Some(json!({ "severalPrs": several, "mergeEnds": "last" }));
        let child = || json!({ "mergeability": "conflicting", "headBranch": "two", "baseBranch": "one" });
        world.look("one", json!({ "headBranch": "one", "baseBranch": "main" }));
        world.look("two", child());
        assert!(world.news().is_empty(), "{several}");
        // An approved one with conflicts is not ready, wherever they come from.
        let mut approved = child();
        approved["review"] = json!("approved");
        world.look("two", approved);
        assert!(world.news().is_empty(), "{several}");
        world.look("one", json!({ "merged": true, "headBranch": "one", "baseBranch": "main" }));
        world.look("two", child());
        assert_eq!(world.types(), ["reaction.merge-conflicts"], "{several}");
        world.look("two", child());
        assert!(world.news().is_empty());
    }
}

#[test]
fn a_circle_of_branches_is_nudged_like_anything_else() {
    for several in ["newest", "worst"] {
        let mut world = World::with(SessionState::Working);
        world.policy = Some(json!({ "severalPrs": several }));
        world.look("a", json!({ "headBranch": "a", "baseBranch": "b" }));
        world.look("b", json!({ "headBranch": "b", "baseBranch": "a", "mergeability": "conflicting" }));
        assert_eq!(world.types(), ["reaction.merge-conflicts"], "{several}");
    }
}

#[test]
fn one_that_moves_to_another_session_is_forgotten_here_and_news_there() {
    let mut world = worst();
    world.session(SessionState::Working);
    world.look("a", failing("a1"));
    world.look("b", failing("b1"));
    world.news();
    let mut seen = failing("b1");
    (seen["fetched"], seen["url"]) = (json!(true), json!("b"));
    let input: pr::Observe = world.input(json!({ "id": "mer-2", "observation": seen }));
    let told = world.act(|sql| pr::observe(sql, &input)).unwrap().deliveries;
    assert_eq!(told.iter().map(|one| one.session_id.as_str()).collect::<Vec<_>>(), ["mer-2"]);
    world.news();
    world.look("a", json!({ "ci": "passing" }));
    assert_eq!((world.status().as_str(), world.news().len()), ("pr_open", 0));
    // And back again.
    world.look("b", failing("b1"));
    assert_eq!(world.types(), ["reaction.ci-failed"]);
}

#[test]
fn all_closed_or_merged_is_as_it_always_was() {
    let mut world = worst();
    world.policy.as_mut().unwrap()["mergeEnds"] = json!("never");
    world.look("a", failing("a1"));
    world.look("b", json!({ "mergeability": "mergeable" }));
    world.news();
    world.look("a", json!({ "closed": true, "ci": "failing" }));
    assert_eq!((world.status().as_str(), world.types()), ("mergeable", vec!["reaction.approved-and-green".to_owned()]));
    world.look("b", json!({ "merged": true }));
    assert_eq!((world.status().as_str(), world.state()), ("merged", SessionState::Working));
    world.look("a", json!({ "closed": true }));
    assert_eq!((world.status().as_str(), world.types()), ("working", vec!["reaction.pr-closed".to_owned()]));
}

#[test]
fn a_session_may_have_its_own_way_to_end() {
    use SessionState::{Terminated, Working};
    for (own, policy, first, last) in [
        (json!("any"), "never", Terminated, Terminated),
        (json!("last"), "any", Working, Terminated),
        (json!("never"), "any", Working, Working),
        (json!(null), "last", Working, Terminated),
    ] {
        let mut world = World::with(Working);
        world.policy = Some(json!({ "mergeEnds": policy }));
        let before = world.record();
        world.command(json!({ "do": "setMergeEnds", "id": "mer-1", "mergeEnds": own })).unwrap();
        assert_eq!((world.record(), world.changes().len()), (before, 1));
        let read = Read::parse(r#"{"do":"mergeEnds","id":"mer-1"}"#).unwrap().run(&mut Sqlite(&world.db));
        assert_eq!(read.unwrap().unwrap(), own.to_string());
        world.look("b", json!({}));
        world.look("a", json!({ "merged": true }));
        assert_eq!(world.state(), first, "{own} {policy}");
        world.look("b", json!({ "merged": true }));
        assert_eq!(world.state(), last, "{own} {policy}");
    }
}

#[test]
fn a_way_to_end_is_set_with_the_session_taken_back_and_refused_without_one() {
    let mut world = World::new();
    let create = json!({ "do": "createSession", "session": { "projectId": "mer" }, "mergeEnds": "never", "now": NOW });
    world.command(create).unwrap();
    assert_eq!(world.changes(), ["session_created"]);
    world.look("a", json!({ "merged": true }));
    assert_eq!(world.state(), SessionState::NotStarted);
    let take_back = json!({ "do": "setMergeEnds", "id": "mer-1", "mergeEnds": null });
    world.command(take_back.clone()).unwrap();
    let changes = world.db.total_changes();
    world.command(take_back).unwrap();
    assert_eq!(world.db.total_changes(), changes);
    let unknown = world.command(json!({ "do": "setMergeEnds", "id": "mer-9", "mergeEnds": "any" }));
    assert_eq!(unknown.unwrap_err().code(), Code::LifecycleSessionNotFound);
    let odd = world.command(json!({ "do": "setMergeEnds", "id": "mer-1", "mergeEnds": "soon" }));
    assert_eq!(odd.unwrap_err().code(), Code::InvalidArgument);
    // A word of a newer version is as if nothing was said.
    world.db.execute_batch("UPDATE sessions SET merge_ends = 'on_tuesdays'").unwrap();
    world.look("a", json!({ "merged": true, "ci": "passing" }));
    assert_eq!(world.state(), SessionState::Terminated);
}
