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

#[test]
fn what_is_stopped_is_found_without_a_walk_through_all_sessions() {
    let plan = plan(|sql| drop(sessions::stopped(sql).unwrap()));
    assert!(plan.contains("INDEX sessions_stopped_idx"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}

/// Long prompts lie on pages of their own. With those pages destroyed, who reads them gets an error.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test breaks a file")]
fn who_asks_for_no_prompts_reads_none_of_their_pages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(include_str!("../../../migrations/sqlite/lifecycle/0001_sessions.sql")).unwrap();
    let at = "2026-05-31T12:00:00.000Z";
    db.execute("INSERT INTO projects (id, path, registered_at) VALUES ('mer', '/', ?1)", [at]).unwrap();
    for num in 1..=20 {
        db.execute(
            "INSERT INTO sessions (id, project_id, num, session_state, workspace_path, created_at, updated_at, prompt) \
             VALUES ('mer-' || ?1, 'mer', ?1, 'working', '/w/' || ?1, ?2, ?2, ?3)",
            rusqlite::params![num, at, "x".repeat(50_000)],
        )
        .unwrap();
    }
    let mut asked = db.prepare("SELECT pageno FROM dbstat WHERE name = 'sessions' AND pagetype = 'overflow'").unwrap();
    let pages: Vec<i64> = asked.query_map([], |row| row.get(0)).unwrap().map(|page| page.unwrap()).collect();
    let size: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0)).unwrap();
    drop(asked);
    drop(db);
    assert!(pages.len() >= 20 * 12, "{}", pages.len());
    let mut file = std::fs::read(&path).unwrap();
    for page in pages {
        let from = usize::try_from((page - 1) * size).unwrap();
        file[from..from + usize::try_from(size).unwrap()].fill(0xff);
    }
    std::fs::write(&path, file).unwrap();
    let db = Connection::open(&path).unwrap();
    let found = sessions::running_without_prompts(&mut Sqlite(&db)).unwrap();
    assert_eq!(found.len(), 20);
    assert!(
        found
            .iter()
            .all(|session| session.metadata.prompt.is_empty() && session.metadata.workspace_path.starts_with("/w/"))
    );
    sessions::running(&mut Sqlite(&db)).unwrap_err();
}
