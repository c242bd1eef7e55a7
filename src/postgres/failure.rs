//! What goes wrong, told without telling values.
//!
//! The server quotes row values in DETAIL lines, and in messages about values themselves (`invalid input syntax for type
//! integer: "…"`). Neither goes into an [`HfError`]: only messages that speak about names do.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::{DbError, SqlState};

use super::tls;
use crate::error::{Code, HfError};

/// SQLSTATE classes whose messages name tables, columns, roles and limits, never values: connection, unsupported feature,
/// constraint, transaction state, login, catalog, schema, serialization, name or syntax, resources, limits, object state,
/// operator, system.
const SPOKEN_CLASSES: &[&str] = &["08", "0A", "23", "25", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58"];

/// The server went away, is going away, is not there yet, or has no room: nothing is wrong with the statement.
fn is_connection_state(state: &SqlState) -> bool {
    state.code().starts_with("08")
        || [
            &SqlState::ADMIN_SHUTDOWN,
            &SqlState::CRASH_SHUTDOWN,
            &SqlState::CANNOT_CONNECT_NOW,
            &SqlState::IDLE_SESSION_TIMEOUT,
            &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            &SqlState::TOO_MANY_CONNECTIONS,
        ]
        .contains(&state)
}

/// Tells whether the connection broke, or was never made: the statement may or may not have taken effect, and another
/// attempt may succeed. Refused logins and certificates are no such case.
#[must_use]
pub fn is_connection_error(error: &tokio_postgres::Error) -> bool {
    if error.is_closed() {
        return true;
    }
    if let Some(state) = error.code() {
        return is_connection_state(state);
    }
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match error.to_string().as_str() {
        // The driver keeps the kind of its errors to itself; these are its words for I/O.
        "error communicating with the server" | "error connecting to server" | "timeout waiting for server" => true,
        "error performing TLS handshake" => source.is_some_and(tls::is_network_trouble),
        _ => false,
    }
}

/// Tells whether a statement that failed so may nevertheless have taken effect.
pub(super) fn may_have_happened(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        None => is_connection_error(error),
        // A session that is ended while it answers has perhaps committed already.
        Some(db) => {
            matches!(db.severity(), "FATAL" | "PANIC")
                || *db.code() == SqlState::TRANSACTION_RESOLUTION_UNKNOWN
                || *db.code() == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
        }
    }
}

/// Tells whether a prepared statement is what failed, not what it does: the table changed under it, or it is gone.
pub(super) fn is_stale_statement(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        *db.code() == SqlState::INVALID_SQL_STATEMENT_NAME
            || (*db.code() == SqlState::FEATURE_NOT_SUPPORTED && db.routine() == Some("RevalidateCachedQuery"))
    })
}

/// Makes the error of what was being done (`appending the history of an entity`).
///
/// Connection trouble becomes `HF_UNAVAILABLE`, all else `HF_DATABASE`. Fields: `sqlState`, `severity`, and where the
/// server names them `schema`, `table`, `column`, `constraint`. Never in it: bound values, DETAIL, password, URL.
#[must_use]
pub fn pg_error(doing: &str, error: &tokio_postgres::Error) -> HfError {
    let unavailable = is_connection_error(error);
    let code = if unavailable { Code::Unavailable } else { Code::Database };
    let Some(db) = error.as_db_error() else {
        let advice = if unavailable { "; is the server running and reachable?" } else { "" };
        return HfError::new(code, format!("{doing} failed: {}{advice}", driver_text(error)));
    };
    let state = db.code().code();
    let said = match spoken(db) {
        Some(message) => format!("{message} (SQLSTATE {state})"),
        None => format!("the server refused a value or raised an error, SQLSTATE {state}; its words may quote values"),
    };
    let mut made = HfError::new(code, format!("{doing} failed: {said}{}", advice(db.code())))
        .with_field("sqlState", state)
        .with_field("severity", db.severity());
    let names =
        [("schema", db.schema()), ("table", db.table()), ("column", db.column()), ("constraint", db.constraint())];
    for (field, name) in names {
        if let Some(name) = name {
            made = made.with_field(field, name);
        }
    }
    made
}

/// Returns the server's message if it cannot hold a value.
fn spoken(db: &DbError) -> Option<&str> {
    let class = db.code().code().get(..2)?;
    // RAISE in a trigger may claim any SQLSTATE and say anything.
    let raised = db.routine() == Some("exec_stmt_raise");
    (SPOKEN_CLASSES.contains(&class) && !raised).then(|| db.message())
}

fn advice(state: &SqlState) -> &'static str {
    match *state {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "; check user, password and the server's pg_hba.conf"
        }
        SqlState::INVALID_CATALOG_NAME => "; create the database, or correct its name",
        SqlState::TOO_MANY_CONNECTIONS => "; use a smaller `poolSize`, or raise max_connections",
        SqlState::INSUFFICIENT_PRIVILEGE => "; grant the role what it needs",
        SqlState::CANNOT_CONNECT_NOW => "; the server is starting or stopping, try again",
        _ => "",
    }
}

/// What the driver says about an error of its own. Its words name no values; their source is told only where it is known
/// to speak of network, TLS or login.
fn driver_text(error: &tokio_postgres::Error) -> String {
    let text = error.to_string();
    let tells = matches!(
        text.as_str(),
        "error communicating with the server"
            | "error connecting to server"
            | "error performing TLS handshake"
            | "authentication error"
            | "invalid configuration"
    );
    let advice = match text.as_str() {
        "error performing TLS handshake" => {
            "; check the certificate, or say which one to trust (`sslrootcert` or `ssl.ca`; `sslmode=no-verify` trusts any)"
        }
        _ => "",
    };
    match error.source() {
        Some(source) if source.to_string() == "password missing" => {
            "the server asks for a password; give one (in the URL, PGPASSWORD or ~/.pgpass)".into()
        }
        Some(source) if tells => format!("{text}: {source}{advice}"),
        _ => format!("{text}{advice}"),
    }
}

/// Marks an error after which nobody knows whether the statement took effect.
pub(super) fn unknown_outcome(error: HfError) -> HfError {
    error.with_field("outcomeUnknown", true)
}

/// The error of a call on a closed handle.
pub(super) fn closed() -> HfError {
    HfError::new(Code::Closed, "the PostgreSQL store is closed")
}
