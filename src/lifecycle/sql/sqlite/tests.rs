//! Rules of the tables, as they come out of SQLite.

use rusqlite::Connection;

use super::Sqlite;
use crate::error::Code;
use crate::lifecycle::sql::{Sql as _, Value};

/// A database with our tables in memory.
pub(crate) fn memory() -> Connection {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(include_str!("../../../../migrations/sqlite/lifecycle/0001_sessions.sql")).unwrap();
    db.pragma_update(None, "foreign_keys", true).unwrap();
    db
}

const NOW: &str = "2026-05-31T12:00:00.000Z";

#[test]
fn broken_rules_name_table_column_and_rule() {
    let db = memory();
    let mut sql = Sqlite(&db);
    sql.run("t", "INSERT INTO projects (id, path, registered_at) VALUES ('p', '/', ?1)", &[Value::Text(NOW)]).unwrap();
    for (text, table, column, rule) in [
        (
            "INSERT INTO projects (id, path, registered_at) VALUES ('q', '/', 'yesterday')",
            "projects",
            "registered_at",
            "check",
        ),
        ("INSERT INTO projects (id, path, registered_at) VALUES ('p', '/', ?1)", "projects", "id", "unique"),
        ("INSERT INTO projects (id, registered_at) VALUES ('q', ?1)", "projects", "path", "not_null"),
        (
            "INSERT INTO sessions (id, project_id, num, session_state, created_at, updated_at) VALUES ('x-1', 'x', 1, 'idle', ?1, ?1)",
            "sessions",
            "project_id",
            "foreign_key",
        ),
        (
            "INSERT INTO sessions (id, project_id, num, session_state, created_at, updated_at) VALUES ('p-1', 'p', 1, 'gone', ?1, ?1)",
            "sessions",
            "session_state",
            "check",
        ),
        ("INSERT INTO pr (url, session_id, updated_at) VALUES ('u', 'nobody', ?1)", "pr", "session_id", "foreign_key"),
    ] {
        let error = sql.run("t", text, if text.contains("?1") { &[Value::Text(NOW)] } else { &[] }).unwrap_err();
        assert_eq!(error.code(), Code::LifecycleConstraint, "{error}");
        let field = |name: &str| error.fields().get(name).and_then(|value| value.as_str()).unwrap().to_owned();
        assert_eq!(
            (field("table"), field("column"), field("constraint")),
            (table.into(), column.into(), rule.into()),
            "{text}"
        );
        assert!(error.message().contains(column), "{error}");
    }
}
