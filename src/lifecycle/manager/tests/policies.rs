//! Policies of projects, stored beside those of managers.

use super::*;
use crate::error::Code;
use crate::lifecycle::command::{Context, Write};
use crate::lifecycle::owners::Fixed;
use crate::lifecycle::tables::policies;

impl World {
    /// Stores a policy as the facade does.
    fn store(&mut self, project: &str, policy: Json) -> Result<String> {
        let command = json!({ "do": "setReactionPolicy", "projectId": project, "policy": policy }).to_string();
        let owners = Fixed::new("me", &[]);
        let context = Context { owners: &owners, harnesses: &[] };
        self.write(|sql| Write::parse(&command)?.run(sql, &context))
    }

    /// What a newer version, or somebody by hand, has stored.
    fn store_raw(&mut self, project: &str, text: &str) {
        self.write(|sql| policies::put(sql, project, text, None)).unwrap();
    }

    /// An idle session of a project of its own.
    fn idle(&mut self, project: &str) -> String {
        self.project(project);
        let id = self.session_of(project, SessionState::Working);
        self.signal(json!({ "id": id, "valid": true, "state": "idle" }));
        id
    }

    /// Who is told of now that nobody answered a nudge.
    fn escalated(&mut self) -> Vec<String> {
        let told = self.tick().deliveries.into_iter().filter(|one| one.event_type == "reaction.escalated");
        told.map(|one| one.session_id).collect()
    }
}

#[test]
fn each_session_is_ticked_by_the_policy_of_its_project() {
    let mut world = World::new();
    for (project, policy) in
        [("quick", json!({ "escalateAfterMs": MINUTE })), ("slow", json!({ "escalateAfterMs": 30 * MINUTE }))]
    {
        world.idle(project);
        world.store(project, policy).unwrap();
    }
    // With a policy that does not say how long, and without any: as the manager has it.
    world.idle("silent");
    world.store("silent", json!({ "ciBrakeRuns": 2 })).unwrap();
    world.idle("none");
    world.idle("quiet");
    world.store("quiet", json!({ "escalateAfterMs": MINUTE, "off": ["agent-idle"] })).unwrap();
    world.policy = Some(json!({ "escalateAfterMs": 5 * MINUTE }));
    let at = |world: &mut World, minutes: i64| {
        world.now = NOW + minutes * MINUTE;
        world.escalated()
    };
    assert!(at(&mut world, 0).is_empty());
    assert_eq!(at(&mut world, 1), ["quick-1"]);
    assert!(at(&mut world, 4).is_empty());
    assert_eq!(at(&mut world, 5), ["none-1", "silent-1"]);
    assert!(at(&mut world, 29).is_empty());
    assert_eq!(at(&mut world, 30), ["slow-1"]);
    assert!(at(&mut world, 300).is_empty());
}

#[test]
fn the_many_of_a_patient_project_do_not_hold_up_the_few_of_another() {
    let mut world = World::new();
    for project in ["patient", "eager"] {
        world.project(project);
    }
    world.store("patient", json!({ "escalateAfterMs": 600 * MINUTE })).unwrap();
    world.store("eager", json!({ "escalateAfterMs": MINUTE })).unwrap();
    // More than one tick looks at, and all of them older.
    let nudged = "INSERT INTO reaction_state (session_id, reaction, attempts, first_at, is_current)
      SELECT id, 'agent-idle', 1, '2026-05-28T00:00:00.000Z', 1 FROM sessions WHERE project_id = 'patient'";
    world
        .db
        .execute_batch(&format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1500)
             INSERT INTO sessions (id, project_id, num, session_state, created_at, updated_at)
             SELECT 'patient-' || n, 'patient', n, 'idle', '2026-05-28T00:00:00.000Z', '2026-05-28T00:00:00.000Z' FROM n;
             {nudged};"
        ))
        .unwrap();
    world.now = crate::lifecycle::time::millis("2026-05-28T00:00:00.000Z").unwrap();
    let id = world.session_of("eager", SessionState::Working);
    world.signal(json!({ "id": id, "valid": true, "state": "idle" }));
    let merely = world.session(SessionState::Working);
    world.signal(json!({ "id": merely, "valid": true, "state": "idle" }));
    world.now += 16 * MINUTE;
    assert_eq!(world.escalated(), ["eager-1", "mer-1"]);
    // When they are due they come, a batch at a time.
    world.now += 600 * MINUTE;
    assert_eq!(world.escalated().len(), 1000);
    assert_eq!(world.escalated().len(), 500);
}

#[test]
fn a_policy_that_nobody_understands_breaks_nothing() {
    let mut world = World::new();
    let odd = r#"{"escalateAfterMs":"soon","off":["agent-asleep"],"mood":{"wild":true},"messages":{"agent-idle":"Wake up."}}"#;
    world.project("odd");
    world.store_raw("odd", odd);
    world.idle("odd");
    world.idle("even");
    assert_eq!(world.news(), ["reaction.agent-idle: Wake up.", &format!("reaction.agent-idle: {}", idle_text())]);
    world.now += 15 * MINUTE;
    assert_eq!(world.escalated(), ["even-1", "odd-1"]);
}

fn idle_text() -> &'static str {
    crate::lifecycle::decide::reaction::reaction(crate::lifecycle::words::ReactionKey::AgentIdle).message
}

#[test]
fn what_waits_is_taken_back_when_it_is_switched_off() {
    let mut world = World::with(SessionState::Working);
    world.is_down = true;
    world.poll(failing("c1"));
    world.hook("waiting_input");
    assert_eq!(world.rows("reaction_state"), 2);
    world.is_down = false;
    world.store("mer", json!({ "off": ["ci-failed", "agent-needs-input"] })).unwrap();
    world.now += MINUTE;
    world.tick();
    world.hook("active");
    world.poll(failing("c1"));
    assert!(world.news().is_empty());
    // Switched on again: the agent has not heard of the failure yet.
    world.store("mer", json!(null)).unwrap();
    world.poll(failing("c1"));
    world.poll(failing("c1"));
    assert_eq!(world.types(), ["reaction.ci-failed"]);
}

#[test]
fn the_notice_of_an_end_is_taken_back_too() {
    let mut world = World::with(SessionState::Working);
    world.is_down = true;
    world.probe("dead", "dead");
    world.is_down = false;
    assert_eq!(world.rows("reaction_state"), 1);
    world.store("mer", json!({ "off": ["agent-exited"] })).unwrap();
    world.now += MINUTE;
    world.tick();
    assert!(world.news().is_empty());
    assert_eq!(world.rows("reaction_state"), 0);
}

#[test]
fn a_policy_that_comes_later_counts_for_what_began_before() {
    let mut world = World::with(SessionState::Working);
    world.hook("idle");
    assert_eq!(world.types(), ["reaction.agent-idle"]);
    world.now += 2 * MINUTE;
    assert!(world.escalated().is_empty());
    world.store("mer", json!({ "escalateAfterMs": MINUTE })).unwrap();
    assert_eq!(world.escalated(), ["mer-1"]);
    world.store("mer", json!({ "escalateAfterMs": 0 })).unwrap();
    assert!(world.escalated().is_empty());
}

#[test]
fn quarantine_brakes_and_merges_follow_the_project() {
    let mut world = World::with(SessionState::Working);
    world.policy = Some(json!({ "detectingMaxAttempts": 9, "ciBrakeRuns": 9, "mergeEnds": "last" }));
    world.store("mer", json!({ "detectingMaxAttempts": 1, "ciBrakeRuns": 1, "mergeEnds": "any" })).unwrap();
    world.poll(failing("c1"));
    assert_eq!(world.types(), ["reaction.escalated"]);
    world.probe("failed", "failed");
    assert_eq!(world.state(), SessionState::Stuck);
    world.poll(json!({ "url": "other" }));
    world.poll(json!({ "merged": true }));
    assert_eq!(world.state(), SessionState::Terminated);
}

#[test]
fn only_known_projects_and_sound_numbers_are_stored() {
    let mut world = World::new();
    let unknown = world.store("nobody", json!({})).unwrap_err();
    assert_eq!((unknown.code(), &unknown.fields()["constraint"]), (Code::LifecycleConstraint, &json!("foreign_key")));
    for (policy, field) in [
        (json!({ "escalateAfterMs": -1 }), "policy.escalateAfterMs"),
        (json!({ "ciBrakeRuns": 0 }), "policy.ciBrakeRuns"),
    ] {
        let refused = world.store("mer", policy).unwrap_err();
        assert_eq!((refused.code(), &refused.fields()["field"]), (Code::InvalidArgument, &json!(field)));
    }
    assert_eq!(world.store("mer", json!({ "of": [] })).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(world.rows("reaction_policy"), 0);
    world.store("mer", json!({ "messages": { "pr-closed": "a", "ci-failed": "b" } })).unwrap();
    // The same again writes nothing, in whatever order it is said; nor does forgetting what is not there.
    world.store("mer", json!({ "messages": { "ci-failed": "b", "pr-closed": "a" } })).unwrap();
    assert_eq!(world.writes, 0);
    world.store("nobody", json!(null)).unwrap();
    assert_eq!(world.rows("reaction_policy"), 1);
}
