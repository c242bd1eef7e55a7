//! Derivations that the facade made itself, for states that JSON text cannot carry (bigint, Map, functions …).

use serde::Deserialize;
use serde_json::value::RawValue;

use super::derive::{Derived, Row};
use super::field_text::key_of_canonical;
use crate::error::{Code, HfError, Result};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HandedIn<'a> {
    #[serde(borrow)]
    changed_fields: &'a RawValue,
    rows: Vec<HandedInRow>,
    prev: Option<String>,
    next: Option<String>,
    delta: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HandedInRow {
    field: String,
    from_value: Option<String>,
    to_value: String,
    canonical: String,
    masked: bool,
}

/// Takes the facade's message apart.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` where it is none, which is a bug of the facade. The message holds no part of it.
pub fn derived(text: &str) -> Result<Derived> {
    let parsed: HandedIn<'_> = serde_json::from_str(text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        HfError::new(Code::InvalidArgument, format!("a derived change cannot be read at {place}; please report it"))
    })?;
    let changed_fields_json = parsed.changed_fields.get().to_owned();
    let changed_fields = serde_json::from_str(&changed_fields_json).unwrap_or_default();
    let rows = parsed.rows.into_iter().map(|row| Row {
        field: row.field,
        from_value: row.from_value,
        to_value: row.to_value,
        to_key: key_of_canonical(&row.canonical),
        from_key: None,
        masked: row.masked,
    });
    let rows = rows.collect();
    let (prev, next, delta) = (parsed.prev, parsed.next, parsed.delta);
    Ok(Derived { changed_fields, changed_fields_json, rows, prev, next, delta })
}
