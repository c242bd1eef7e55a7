//! What was switched on for a store.

use crate::error::Result;
use crate::lifecycle::sql::{Sql, Value};

use super::number;

/// The change log tells of more: see the triggers that look at it.
pub const INVALIDATION: &str = "invalidation";

/// Switches a feature on, for good and for everybody who uses the store. Nothing is written where it is on.
///
/// # Errors
/// As [`Sql::run`].
pub fn switch_on(sql: &mut dyn Sql, name: &str) -> Result<()> {
    let known = "SELECT count(*) FROM store_feature WHERE name = ?1";
    if number(sql, "read what is switched on", known, &[Value::Text(name)])? > 0 {
        return Ok(());
    }
    sql.run(
        "switch a feature on",
        "INSERT INTO store_feature (name) VALUES (?1) ON CONFLICT (name) DO NOTHING",
        &[Value::Text(name)],
    )?;
    Ok(())
}
