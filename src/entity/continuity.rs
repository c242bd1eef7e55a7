//! How a change joins the history that is there already.

use std::borrow::Cow;

use super::derive::Row;
use super::event::masked_field_prev;
use super::model::Staged;
use crate::error::Result;

/// The latest recorded row of a field.
pub struct Last {
    /// The text of the value that it led to.
    pub to_value: String,
    /// That value's key; rows of other writers have none.
    pub to_key: Option<Vec<u8>>,
    /// Whether secrets were masked in it.
    pub masked: bool,
    /// When, in microseconds since the epoch.
    pub at: i64,
}

/// Of an orphaned change: whether others have recorded since its intent what `row` would say. What they left is what the entity is now,
/// whoever wrote it; to say it again would blame the dead process for it.
pub fn is_told(staged: &Staged, row: &Row, last: Option<&Last>) -> bool {
    let Some(last) = last.filter(|last| is_newer(staged, last)) else { return false };
    // A value that is hidden for want of its run's secrets cannot be compared.
    staged.mask_all_changed || last.to_key.as_deref() == Some(&row.to_key[..])
}

fn is_newer(staged: &Staged, last: &Last) -> bool {
    staged.orphaned_at.is_some_and(|began| last.at > began)
}

/// Returns the `from_value` of `row`, given the field's latest row.
///
/// What was recorded as a secret is not told now, only because this writer does not know the secret: the recorded text is
/// taken, in `prev` (the event's state before, JSON text) too. Where the latest row did not lead to the value that this change
/// starts from, the field is added to `gaps`: history was lost, or somebody wrote at the same time. An orphaned change (`staged`)
/// begins where others have left the field since.
///
/// # Errors
/// Where `prev` is no JSON object.
pub fn from_value(
    staged: Option<&Staged>,
    row: &Row,
    last: Option<&Last>,
    prev: &mut Option<String>,
    gaps: &mut Vec<String>,
) -> Result<Option<String>> {
    if let Some(last) = last.filter(|last| staged.is_some_and(|staged| is_newer(staged, last))) {
        return Ok(Some(last.to_value.clone()));
    }
    let Some(before) = row.from_value.as_deref() else { return Ok(None) };
    let Some(last) = last else { return Ok(Some(before.to_owned())) };
    if last.masked {
        if last.to_value != before {
            if let Some(text) = prev.take() {
                *prev = Some(masked_field_prev(&text, &row.field, &last.to_value)?);
            }
            return Ok(Some(last.to_value.clone()));
        }
        return Ok(Some(before.to_owned()));
    }
    let continues = match (&last.to_key, &row.from_key) {
        (Some(to), Some(from)) => to[..] == from[..] || to[..] == super::field_text::plain_key(before)[..],
        _ => last.to_value == before,
    };
    if !continues {
        gaps.push(row.field.clone());
    }
    Ok(Some(before.to_owned()))
}

/// Puts recorded texts in the place of the values of `prev` (JSON text) that were masked when they were recorded.
///
/// # Errors
/// Where `prev` is no JSON object.
pub fn hide<'a>(prev: &'a str, hidden: &[(String, String)]) -> Result<Cow<'a, str>> {
    let mut shown = Cow::Borrowed(prev);
    for (field, text) in hidden {
        shown = Cow::Owned(masked_field_prev(&shown, field, text)?);
    }
    Ok(shown)
}
