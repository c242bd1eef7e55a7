//! What is looked for again and again is found through its index.

use rusqlite::{Connection, params_from_iter};

use super::{reactions, sessions};
use crate::error::Result;
use crate::lifecycle::sql::sqlite::Sqlite;
use crate::lifecycle::sql::{Row, Sql, Value};

/// Asks how each statement would be run instead of running it.
struct Planning<'a> {
    db: &'a Connection,
    plan: String,
}

impl Sql for Planning<'_> {
    fn run(&mut self, doing: &'static str, sql: &'static str, params: &[Value<'_>]) -> Result<u64> {
        Sqlite(self.db).run(doing, sql, params)
    }

    fn rows(
        &mut self,
        _doing: &'static str,
        sql: &'static str,
        params: &[Value<'_>],
        _each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.query_map(params_from_iter(params), |row| row.get::<_, String>(3)).unwrap();
        self.plan = steps.map(|step| step.unwrap() + "\n").collect();
        Ok(())
    }

    fn lock_session(&mut self, _id: &str) -> Result<()> {
        Ok(())
    }

    fn lock_pr(&mut self, _url: &str) -> Result<()> {
        Ok(())
    }

    fn lock_retention(&mut self) -> Result<()> {
        Ok(())
    }
}

fn plan(ask: impl FnOnce(&mut Planning<'_>)) -> String {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(include_str!("../../../migrations/sqlite/lifecycle/0001_sessions.sql")).unwrap();
    let mut planning = Planning { db: &db, plan: String::new() };
    ask(&mut planning);
    planning.plan
}

#[test]
fn what_is_due_is_found_without_a_walk_through_all_reactions() {
    let due = reactions::Due { now: 1, lease_max: 2, nudged_before: 0, limit: 10 };
    let plan = plan(|sql| drop(reactions::due(sql, &due).unwrap()));
    assert!(plan.contains("INDEX reaction_state_due_idx"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}

#[test]
fn what_has_a_workspace_left_is_found_without_a_walk_through_all_sessions() {
    let plan = plan(|sql| drop(sessions::reclaimable(sql, "p").unwrap()));
    assert!(plan.contains("INDEX sessions_reclaimable_idx (project_id=?)"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}

#[test]
fn notifications_are_found_in_order_whatever_is_asked_for() {
    use super::notifications::{self, Filter};
    let whole = Filter::default();
    for (filter, index) in [
        (whole, "PRIMARY KEY (rowid<?)"),
        (Filter { unresolved: true, ..whole }, "notification_resolved_idx (resolved_at=? AND id<?)"),
        (Filter { unseen: true, ..whole }, "notification_seen_idx (seen_at=? AND id<?)"),
        (Filter { project_id: Some("p"), ..whole }, "notification_project_idx (project_id=? AND id<?)"),
        (
            Filter { project_id: Some("p"), unresolved: true, ..whole },
            "notification_resolved_idx (resolved_at=? AND id<?)",
        ),
        (Filter { session_id: Some("p-1"), unseen: true, ..whole }, "notification_seen_idx (seen_at=? AND id<?)"),
        (Filter { session_id: Some("p-1"), ..whole }, "notification_session_idx (session_id=? AND id<?)"),
    ] {
        let plan = plan(|sql| drop(notifications::find(sql, filter, 100).unwrap()));
        assert!(plan.contains(index), "{filter:?}: {plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
    }
    // What is open is looked for without a walk through what was.
    for project in [None, Some("p")] {
        let counts = plan(|sql| {
            notifications::counts(sql, project).unwrap();
        });
        assert_eq!(counts.matches("notification_resolved_idx (resolved_at=?)").count(), 2, "{counts}");
        assert_eq!(counts.matches("notification_seen_idx (seen_at=?)").count(), 1, "{counts}");
    }
}
