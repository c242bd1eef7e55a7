//! What people are told is in the inbox, whether anybody carries it to them or not.

use super::*;
use crate::lifecycle::tables::notifications::{self, Counts, Filter, Notification};
use crate::lifecycle::tables::{features, prune};

impl World {
    /// All notifications, oldest first.
    fn inbox(&self) -> Vec<Notification> {
        let mut found = notifications::find(&mut Sqlite(&self.db), Filter::default(), 1000).unwrap();
        found.reverse();
        found
    }

    /// The same as `<type> <count>`, with `!` as long as it is open.
    fn notes(&self) -> Vec<String> {
        let of = |one: Notification| {
            format!("{} {}{}", one.event_type, one.count, if one.resolved_at.is_none() { "!" } else { "" })
        };
        self.inbox().into_iter().map(of).collect()
    }

    fn tell(&mut self, text: &str) -> String {
        self.command(serde_json::from_str(text).unwrap()).unwrap()
    }

    fn counts(&self) -> Counts {
        notifications::counts(&mut Sqlite(&self.db), Some("mer")).unwrap()
    }
}

#[test]
fn a_page_is_there_even_if_nobody_can_be_reached_and_goes_with_its_cause() {
    let mut world = World::with(SessionState::Working);
    world.is_down = true;
    world.hook("blocked");
    assert!(world.news().is_empty());
    let [note] = world.inbox().try_into().unwrap();
    assert_eq!((note.project_id.as_str(), note.session_id.as_str()), ("mer", "mer-1"));
    assert_eq!((note.reaction.as_str(), note.event_type.as_str()), ("agent-stuck", "reaction.agent-stuck"));
    assert_eq!((note.priority.as_str(), note.message.as_str()), ("urgent", "Agent is stuck and needs attention."));
    assert_eq!((note.count, note.first_at, note.last_at, note.seen_at, note.resolved_at), (1, NOW, NOW, None, None));
    // Trying again is no second notification.
    for _ in 0..3 {
        world.now += MINUTE;
        world.tick();
    }
    world.is_down = false;
    world.now += MINUTE;
    world.tick();
    assert_eq!(world.types(), ["reaction.agent-stuck"]);
    assert_eq!(world.notes(), ["reaction.agent-stuck 1!"]);
    world.now += MINUTE;
    world.hook("active");
    assert_eq!(world.inbox()[0].resolved_at, Some(world.now));
    assert_eq!(world.inbox()[0].seen_at, None);
    assert_eq!(world.counts(), Counts { unseen: 1, unresolved: 0, urgent: 0 });
}

#[test]
fn one_that_flaps_has_one_open_at_a_time() {
    let mut world = World::with(SessionState::Working);
    for round in 1..=20 {
        world.now += 1000;
        world.hook("waiting_input");
        world.hook("waiting_input");
        assert_eq!(world.counts(), Counts { unseen: round, unresolved: 1, urgent: 1 });
        world.hook("active");
        assert_eq!(world.counts().unresolved, 0);
    }
    assert_eq!(world.inbox().len(), 20);
    // From one cause to the other.
    world.hook("waiting_input");
    world.hook("blocked");
    assert_eq!(world.notes()[20..], ["reaction.agent-needs-input 1", "reaction.agent-stuck 1!"]);
}

#[test]
fn an_end_resolves_what_was_open_and_a_restore_resolves_the_end() {
    let mut world = World::with(SessionState::Working);
    world.poll(json!({ "ci": "passing", "mergeability": "mergeable" }));
    assert_eq!(world.notes(), ["reaction.approved-and-green 1!"]);
    world.probe("dead", "dead");
    assert_eq!(world.notes(), ["reaction.approved-and-green 1", "reaction.agent-exited 1!"]);
    world.poll(json!({ "ci": "failing" }));
    world.tick();
    assert_eq!(world.notes()[1], "reaction.agent-exited 1!");
    world.spawned(json!({ "expect": "terminal" })).unwrap();
    assert_eq!(world.counts().unresolved, 0);
    // Undelivered from now on: what is still to be said of the first end does not hide the second.
    world.is_down = true;
    world.probe("dead", "dead");
    world.spawned(json!({})).unwrap();
    world.probe("dead", "dead");
    assert_eq!(world.notes()[2..], ["reaction.agent-exited 1", "reaction.agent-exited 1!"]);
    world.kill("");
    assert_eq!(world.counts().unresolved, 0);
}

#[test]
fn a_kill_resolves_and_good_news_asks_for_nothing() {
    let mut world = World::with(SessionState::Working);
    world.poll(json!({ "closed": true }));
    world.kill("");
    assert_eq!(world.notes(), ["reaction.pr-closed 1"]);
    world.spawned(json!({})).unwrap();
    world.poll(json!({ "merged": true }));
    assert_eq!(world.notes()[1], "reaction.pr-merged 1");
    assert_eq!(world.inbox()[1].resolved_at, Some(NOW));
    assert_eq!(world.counts(), Counts { unseen: 2, unresolved: 0, urgent: 0 });
}

#[test]
fn what_is_told_again_before_its_cause_is_gone_counts_up_and_is_unseen_again() {
    let mut world = World::with(SessionState::Working);
    world.probe("dead", "dead");
    let id = world.inbox()[0].id;
    assert_eq!(world.tell(&format!(r#"{{"do":"seeNotifications","ids":[{id},{id},999],"at":{NOW}}}"#)), "1");
    assert_eq!(world.tell(&format!(r#"{{"do":"seeNotifications","ids":[{id}],"at":{NOW}}}"#)), "0");
    // Brought back behind the managers' back.
    world.tell(
        r#"{"do":"updateSession","session":{"id":"mer-1","lifecycle":{"state":"working","isAlive":true}},"now":1780000000000}"#,
    );
    world.now += MINUTE;
    world.probe("dead", "dead");
    let [note] = world.inbox().try_into().unwrap();
    assert_eq!((note.count, note.first_at, note.last_at, note.seen_at), (2, NOW, NOW + MINUTE, None));
}

#[test]
fn an_escalation_is_for_people_a_nudge_is_not() {
    let mut world = World::with(SessionState::Working);
    world.poll(json!({ "mergeability": "conflicting" }));
    assert!(world.inbox().is_empty());
    world.now += 15 * MINUTE;
    world.tick();
    let [note] = world.inbox().try_into().unwrap();
    assert_eq!((note.reaction.as_str(), note.event_type.as_str()), ("merge-conflicts", "reaction.escalated"));
    assert_eq!(note.message, "Automatic handling of \"merge-conflicts\" is exhausted — needs a human.");
    world.poll(json!({ "mergeability": "mergeable" }));
    assert_eq!(world.notes(), ["reaction.escalated 1", "reaction.approved-and-green 1!"]);
    for commit in ["a", "b", "c"] {
        world.poll(failing(commit));
    }
    assert_eq!(world.notes()[1..], ["reaction.approved-and-green 1", "reaction.escalated 1!"]);
    world.poll(json!({ "ci": "passing" }));
    assert_eq!(world.counts().unresolved, 0);
}

#[test]
fn what_a_person_settled_stays_settled_until_the_cause_comes_back() {
    let mut world = World::with(SessionState::Working);
    world.hook("blocked");
    let id = world.inbox()[0].id;
    assert_eq!(world.tell(&format!(r#"{{"do":"resolveNotification","id":{id},"now":{NOW}}}"#)), "true");
    assert_eq!(world.tell(&format!(r#"{{"do":"resolveNotification","id":{id},"now":{NOW}}}"#)), "false");
    world.now += MINUTE;
    world.hook("blocked");
    world.hook("active");
    assert_eq!(world.inbox()[0].resolved_at, Some(NOW));
    world.hook("blocked");
    assert_eq!(world.notes(), ["reaction.agent-stuck 1", "reaction.agent-stuck 1!"]);
}

#[test]
fn what_is_switched_off_or_for_the_agent_costs_no_statement() {
    let mut world = World::with(SessionState::Working);
    world.policy = Some(json!({ "off": ["agent-stuck"] }));
    world.hook("blocked");
    // The session, the slot.
    assert_eq!(world.writes, 2);
    world.hook("active");
    assert_eq!(world.writes, 2);
    world.hook("idle");
    assert_eq!(world.writes, 2);
    world.hook("active");
    assert_eq!(world.writes, 2);
    assert!(world.inbox().is_empty());
}

#[test]
fn only_what_was_resolved_long_ago_is_removed() {
    let mut world = World::with(SessionState::Working);
    world.hook("blocked");
    world.now += MINUTE;
    world.hook("waiting_input");
    let limits = prune::Limits { notifications_max_age_ms: Some(MINUTE), ..prune::Limits::default() };
    let now = world.now;
    assert_eq!(world.write(|sql| prune::prune(sql, limits, now + MINUTE)).unwrap(), 0);
    assert_eq!(world.inbox().len(), 2);
    world.write(|sql| prune::prune(sql, limits, now + MINUTE + 1)).unwrap();
    assert_eq!(world.notes(), ["reaction.agent-needs-input 1!"]);
    let (limits, _) = prune::by_clock(limits, Millis::MAX);
    assert_eq!(limits.notifications_max_age_ms, None, "nobody has told the time yet");
}

#[test]
fn filters_and_pages() {
    let mut world = World::with(SessionState::Working);
    world.session(SessionState::Working);
    for _ in 0..3 {
        world.hook("blocked");
        world.hook("active");
    }
    world.signal(json!({ "id": "mer-2", "valid": true, "state": "blocked" }));
    let all = world.inbox();
    let ids = |filter| -> Vec<i64> {
        notifications::find(&mut Sqlite(&world.db), filter, 2).unwrap().into_iter().map(|note| note.id).collect()
    };
    let whole = Filter::default();
    assert_eq!(ids(whole), [all[3].id, all[2].id]);
    assert_eq!(ids(Filter { before: Some(all[2].id), ..whole }), [all[1].id, all[0].id]);
    assert_eq!(ids(Filter { unresolved: true, ..whole }), [all[3].id]);
    assert_eq!(ids(Filter { unseen: true, session_id: Some("mer-1"), ..whole }), [all[2].id, all[1].id]);
    assert_eq!(ids(Filter { unseen: true, unresolved: true, project_id: Some("mer"), ..whole }), [all[3].id]);
    assert!(ids(Filter { session_id: Some("mer-1"), project_id: Some("other"), ..whole }).is_empty());
    assert!(ids(Filter { project_id: Some("me"), ..whole }).is_empty());
}

#[test]
fn the_log_tells_of_it_only_where_that_was_asked_for() {
    let life = |world: &mut World| {
        world.poll(json!({ "comments": [{ "commentId": "a", "body": "x" }] }));
        world.poll(json!({ "comments": [{ "commentId": "a", "body": "x" }] }));
        world.poll(json!({ "comments": [] }));
        world.hook("blocked");
        world.tell(r#"{"do":"seeNotifications","ids":[1],"at":1780000000000}"#);
        world.tell(r#"{"do":"setDisplay","id":"mer-1","displayName":"fix","now":1780000000000}"#);
        world.tell(r#"{"do":"setDisplay","id":"mer-1","displayName":"fix","now":1780000000000}"#);
        world.write(|sql| sessions::delete(sql, "mer-1")).unwrap();
        world.changes()
    };
    let quiet = life(&mut World::with(SessionState::Working));
    assert_eq!(quiet, ["session_created", "pr_created", "session_updated", "session_deleted"]);
    let mut world = World::with(SessionState::Working);
    for _ in 0..2 {
        world.write(|sql| features::switch_on(sql, features::INVALIDATION)).unwrap();
    }
    assert_eq!(world.writes, 0);
    assert_eq!(
        life(&mut world),
        [
            "session_created",
            "pr_created",
            "pr_comments_replaced",
            "pr_comments_replaced",
            "session_updated",
            "notification_changed",
            "notification_changed",
            "session_updated",
            "pr_deleted",
            "notification_changed",
            "session_deleted",
        ]
    );
}
