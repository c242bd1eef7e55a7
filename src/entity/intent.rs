//! What the journal keeps of the state before a change, without keeping secrets.
//!
//! An intent lives in the database until its change is appended, so it holds no secret: not those of the run, and not those that
//! the history has masked before. After a crash nobody knows any more whether a masked value is still the same. For each masked
//! member the intent therefore carries a *mark*: one byte of BLAKE3 over change, name and value. A byte tells an attacker next to
//! nothing about a secret, and lets 255 of 256 rotations be seen.

use std::borrow::Cow;

use super::continuity::hide;
use super::derive::object_text;
use super::event::state;
use super::field_text::canonical;
use super::mask::SecretSet;
use crate::error::Result;
use crate::json::Member;

/// The mark of a member that is kept in clear.
const CLEAR: &str = "--";

/// The state before a change, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concealed<'a> {
    /// JSON text, masked.
    pub prev: Cow<'a, str>,
    /// Two characters for each member; `None` where nothing was masked.
    pub marks: Option<String>,
}

/// Masks the state before a change, for the run and where the history of a field ends with a masked value (`hidden`: field and
/// recorded text).
///
/// # Errors
/// Where `prev` is no JSON object.
pub fn conceal<'a>(
    change_id: &str,
    prev: &'a str,
    secrets: Option<&SecretSet>,
    hidden: &[(String, String)],
) -> Result<Concealed<'a>> {
    let mut masked = secrets.map_or(Cow::Borrowed(prev), |secrets| secrets.mask(prev));
    if !hidden.is_empty() {
        masked = Cow::Owned(hide(&masked, hidden)?.into_owned());
    }
    if masked == prev {
        return Ok(Concealed { prev: masked, marks: None });
    }
    // Masking keeps every member in its place.
    let (before, after) = (state(prev)?, state(&masked)?);
    let mut marks = String::new();
    for (clear, shown) in before.members().iter().zip(after.members()) {
        if clear.raw_key == shown.raw_key && clear.raw == shown.raw {
            marks.push_str(CLEAR);
        } else {
            marks.push_str(&mark(change_id, clear));
        }
    }
    Ok(Concealed { prev: masked, marks: Some(marks) })
}

/// Puts the masked members of `prev` into the state after, where the marks say that they are unchanged: neither a change is made
/// up, nor a value shown that was hidden.
///
/// # Errors
/// Where a state is no JSON object.
pub fn restore<'a>(change_id: &str, prev: &str, marks: &str, next: &'a str) -> Result<Cow<'a, str>> {
    let (before, after) = (state(prev)?, state(next)?);
    let mut members: Vec<(&str, &str)> = after.members().iter().map(|member| (member.raw_key, member.raw)).collect();
    let mut restored = false;
    for (shown, expected) in before.members().iter().zip(marks.as_bytes().chunks(CLEAR.len())) {
        let is_same = |member: &Member<'_>| mark(change_id, member).as_bytes() == expected;
        let found = match after.members().iter().position(|member| member.key == shown.key) {
            Some(place) => Some(place),
            // A masked name: any new member may be it.
            None => after
                .members()
                .iter()
                .position(|member| is_same(member) && !before.members().iter().any(|other| other.key == member.key)),
        };
        let Some(place) = found.filter(|_| expected != CLEAR.as_bytes()) else { continue };
        if let (Some(member), Some(slot)) = (after.members().get(place), members.get_mut(place))
            && is_same(member)
        {
            *slot = (shown.raw_key, shown.raw);
            restored = true;
        }
    }
    Ok(if restored { Cow::Owned(object_text(members.into_iter())) } else { Cow::Borrowed(next) })
}

fn mark(change_id: &str, member: &Member<'_>) -> String {
    let mut hasher = blake3::Hasher::new();
    // No name and no change id holds this byte.
    for part in [change_id, &member.key, &canonical(member.raw)] {
        hasher.update(part.as_bytes()).update(&[0xff]);
    }
    hasher.finalize().to_hex().chars().take(CLEAR.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAR_STATE: &str = r#"{"n":1,"token":"s3cr3t","deep":{"list":["a s3cr3t"]},"key-s3cr3t":true,"name":"old"}"#;

    fn secrets() -> SecretSet {
        SecretSet::new(r#"["s3cr3t"]"#, "****").unwrap()
    }

    fn concealed(hidden: &[(String, String)]) -> (String, String) {
        let concealed = conceal("c1", CLEAR_STATE, Some(&secrets()), hidden).unwrap();
        (concealed.prev.into_owned(), concealed.marks.unwrap())
    }

    #[test]
    fn keeps_no_secret_and_marks_what_it_masked() {
        let (prev, marks) = concealed(&[("name".into(), "****".into())]);
        assert_eq!(prev, r#"{"n":1,"token":"****","deep":{"list":["a ****"]},"key-****":true,"name":"****"}"#);
        assert_eq!((marks.len(), &marks[..2]), (10, "--"));
        assert!(!marks[2..].contains('-'));
        let plain = conceal("c1", CLEAR_STATE, None, &[]).unwrap();
        assert_eq!((plain.prev, plain.marks), (Cow::Borrowed(CLEAR_STATE), None));
    }

    #[test]
    fn what_is_unchanged_stays_hidden_and_what_changed_shows() {
        let (prev, marks) = concealed(&[]);
        assert_eq!(restore("c1", &prev, &marks, CLEAR_STATE).unwrap(), CLEAR_STATE.replace("s3cr3t", "****"));
        // Written in another order and way, it is the same.
        let reordered = r#"{"name":"old","key-s3cr3t":true,"deep":{"list":["a s3cr3t"]},"token":"s3cr3t","n":1}"#;
        assert_eq!(restore("c1", &prev, &marks, reordered).unwrap(), reordered.replace("s3cr3t", "****"));
        let rotated = CLEAR_STATE.replacen("s3cr3t", "rotated", 1).replace("\"n\":1", "\"n\":2");
        let restored = restore("c1", &prev, &marks, &rotated).unwrap();
        assert_eq!(restored, r#"{"n":2,"token":"rotated","deep":{"list":["a ****"]},"key-****":true,"name":"old"}"#);
        assert_eq!(restore("c1", &prev, &marks, "{}").unwrap(), "{}");
    }

    #[test]
    fn marks_differ_between_changes() {
        let marks_of = |id: &str| conceal(id, CLEAR_STATE, Some(&secrets()), &[]).unwrap().marks.unwrap();
        assert!((0..8).map(|i| marks_of(&format!("c{i}"))).collect::<std::collections::HashSet<_>>().len() > 1);
    }

    #[test]
    fn a_bad_state_is_refused_without_showing_it() {
        let hidden = [("a".to_owned(), "****".to_owned())];
        let error = conceal("c1", "[\"s3cr3t\"]", None, &hidden).unwrap_err();
        assert!(!error.message().contains("s3cr3t"));
    }
}
