//! Fresh identifiers.

/// Returns a random (version 4) UUID in its hyphenated lower-case form.
#[must_use]
pub fn uuid() -> String {
    uuid::Uuid::new_v4().hyphenated().to_string()
}
