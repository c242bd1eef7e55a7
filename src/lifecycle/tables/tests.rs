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
fn what_is_due_of_projects_with_a_delay_of_their_own_is_found_as_well() {
    let due = reactions::Due { now: 1, lease_max: 2, nudged_before: 0, limit: 10 };
    let plan = plan(|sql| drop(reactions::due_with(sql, &due, Some(1)).unwrap()));
    assert!(plan.contains("INDEX reaction_state_due_idx"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN s") && !plan.contains("SCAN p"), "{plan}");
}

#[test]
fn what_has_a_workspace_left_is_found_without_a_walk_through_all_sessions() {
    let plan = plan(|sql| drop(sessions::reclaimable(sql, "p").unwrap()));
    assert!(plan.contains("INDEX sessions_reclaimable_idx (project_id=?)"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}
