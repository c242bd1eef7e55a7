//! Words and names that are stored: which there are, and the errors of those that are none.

use crate::error::{Code, HfError, Result};
use crate::lifecycle::words::Word;

/// Agents that are known without being named when the store is opened.
pub const HARNESSES: &[&str] = &["", "claude-code", "codex", "aider", "opencode"];

/// The error of a record that breaks a rule; `rule` is `check`, `foreign_key`, `unique` or `not_null`.
#[must_use]
pub fn constraint(table: &str, column: &str, rule: &str, message: impl Into<String>) -> HfError {
    HfError::new(Code::LifecycleConstraint, message)
        .with_field("table", table)
        .with_field("column", column)
        .with_field("constraint", rule)
}

/// Looks a word up that is to be stored.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` that says what is allowed.
pub fn word<W: Word>(table: &str, column: &str, text: &str) -> Result<W> {
    W::parse(text).ok_or_else(|| {
        let message = format!("{table}.{column} must be one of {}; nothing was changed", allowed::<W>());
        constraint(table, column, "check", message)
    })
}

/// Looks a word up that somebody passed as an argument.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` that says what is allowed.
pub fn argument<W: Word>(name: &str, text: &str) -> Result<W> {
    W::parse(text).ok_or_else(|| {
        let expected = format!("one of {}", allowed::<W>());
        HfError::new(Code::InvalidArgument, format!("{name} must be {expected}")).with_argument(
            name,
            expected,
            &text.into(),
        )
    })
}

fn allowed<W: Word>() -> String {
    let quoted: Vec<String> = W::ALL.iter().map(|(_, text)| format!("'{text}'")).collect();
    quoted.join(", ")
}

/// Checks the name of an agent; `more` are those that the store was opened with.
///
/// # Errors
/// `HF_LIFECYCLE_CONSTRAINT` for one that nobody named.
pub fn harness(text: &str, more: &[String]) -> Result<()> {
    if HARNESSES.contains(&text) || more.iter().any(|known| known == text) {
        return Ok(());
    }
    let mut known: Vec<String> = HARNESSES.iter().map(|known| format!("'{known}'")).collect();
    known.extend(more.iter().map(|known| format!("'{known}'")));
    let message = format!(
        "sessions.harness must be one of {}; name further ones with `harnesses` when the store is opened",
        known.join(", ")
    );
    Err(constraint("sessions", "harness", "check", message))
}

/// An empty text and a missing one mean the same.
pub(super) fn word_or<W: Word>(table: &str, column: &str, text: Option<&str>, default: W) -> Result<W> {
    match text {
        None | Some("") => Ok(default),
        Some(text) => word(table, column, text),
    }
}

/// Requires a text that is not empty.
pub(super) fn named(message: &str, field: &str, value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(HfError::new(Code::InvalidArgument, message).with_argument(
            field,
            "a string that is not empty",
            &value.into(),
        ));
    }
    Ok(())
}
