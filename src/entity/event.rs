//! The text of a change event: what subscribers get and the outbox stores.

use super::derive::{Derived, object_text};
use crate::error::{Code, HfError, Result};
use crate::json::{self, Kind, Object};

/// Prints an `EntityChanged` as JSON, its properties in the order of the documented interface.
///
/// `actor_json` is the JSON text of the actor, copied as it stands; `occurred_at` an ISO 8601 time.
#[must_use]
pub fn event_text(
    kind: &str,
    id: &str,
    derived: &Derived,
    actor_json: &str,
    occurred_at: &str,
    change_id: &str,
) -> String {
    let state = |text: &Option<String>| text.as_deref().map_or(4, str::len);
    let length = 160 + kind.len() + id.len() + actor_json.len() + derived.changed_fields_json.len();
    let mut out = String::with_capacity(length + state(&derived.prev) + state(&derived.next) + derived.delta.len());
    out.push_str("{\"kind\":");
    json::quote_into(kind, &mut out);
    out.push_str(",\"id\":");
    json::quote_into(id, &mut out);
    for (name, text) in [
        (",\"prev\":", derived.prev.as_deref().unwrap_or("null")),
        (",\"next\":", derived.next.as_deref().unwrap_or("null")),
        (",\"delta\":", &derived.delta),
        (",\"changedFields\":", &derived.changed_fields_json),
        (",\"actor\":", actor_json),
    ] {
        out.push_str(name);
        out.push_str(text);
    }
    out.push_str(",\"occurredAt\":");
    json::quote_into(occurred_at, &mut out);
    out.push_str(",\"changeId\":");
    json::quote_into(change_id, &mut out);
    out.push('}');
    out
}

/// Puts the `text` that the log has for a masked `field` in place of that field's value in `prev`, the JSON text of a
/// state, so that a later event does not show what an earlier one hid.
///
/// The value keeps its shape: a masked array or object is taken as JSON again, anything else becomes a string. Without
/// such a field the state comes back as it is.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` when `prev` is not a JSON object. The message names the place, no part of the state.
pub fn masked_field_prev(prev: &str, field: &str, text: &str) -> Result<String> {
    let object = state(prev)?;
    if !object.members().iter().any(|member| member.key == field) {
        return Ok(prev.to_owned());
    }
    let quoted = json::quote(text);
    let shown = |raw: &str| match json::kind(raw) {
        Kind::Array if json::array(text).is_ok() => text,
        Kind::Object if Object::parse(text).is_ok() => text,
        _ => &*quoted,
    };
    Ok(object_text(object.members().iter().map(|member| {
        let value = if member.key == field { shown(member.raw) } else { member.raw };
        (member.raw_key, value)
    })))
}

/// Parses the state of an entity, which a program handed in.
///
/// # Errors
/// `HF_INVALID_ARGUMENT`; the message names the place, no part of the state.
pub(super) fn state(text: &str) -> Result<Object<'_>> {
    Object::parse(text).map_err(|error| {
        HfError::new(Code::InvalidArgument, format!("The state of an entity is not a JSON object: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::derive::{Change, derive};

    #[test]
    fn prints_the_event_of_the_documentation() {
        let change = Change {
            kind: "incident",
            id: "7\"",
            prev: Some(r#"{"status":"open","owner":null}"#),
            next: Some(r#"{"status":"resolved","note":"fixed \ud800"}"#),
            known: None,
            secrets: None,
            mask_all_changed: false,
        };
        let actor = r#"{"type":"user","id":"u-1"}"#;
        let print = |change: &Change| {
            let derived = derive(change).unwrap().unwrap();
            event_text(change.kind, change.id, &derived, actor, "2026-11-21T01:52:40.441Z", "3f0c")
        };
        assert_eq!(
            print(&change),
            concat!(
                r#"{"kind":"incident","id":"7\"","prev":{"status":"open","owner":null},"#,
                r#""next":{"status":"resolved","note":"fixed \ud800"},"delta":{"status":"resolved","#,
                r#""note":"fixed \ud800"},"changedFields":["note","status"],"actor":{"type":"user","id":"u-1"},"#,
                r#""occurredAt":"2026-11-21T01:52:40.441Z","changeId":"3f0c"}"#
            )
        );
        assert_eq!(
            print(&Change { next: None, ..change }),
            concat!(
                r#"{"kind":"incident","id":"7\"","prev":{"status":"open","owner":null},"next":null,"delta":{},"#,
                r#""changedFields":["status"],"actor":{"type":"user","id":"u-1"},"#,
                r#""occurredAt":"2026-11-21T01:52:40.441Z","changeId":"3f0c"}"#
            )
        );
    }

    #[test]
    fn a_hidden_value_stays_hidden() {
        let prev = r#"{"a":"s3cr3t","b":{"c":"s3cr3t"},"d":["s3cr3t"],"e":1}"#;
        for (field, text, expected) in [
            ("a", "<\"****\">", r#"{"a":"<\"****\">","b":{"c":"s3cr3t"},"d":["s3cr3t"],"e":1}"#),
            ("a", r#"{"x":1}"#, r#"{"a":"{\"x\":1}","b":{"c":"s3cr3t"},"d":["s3cr3t"],"e":1}"#),
            ("b", r#"{"c":"****"}"#, r#"{"a":"s3cr3t","b":{"c":"****"},"d":["s3cr3t"],"e":1}"#),
            ("b", "****", r#"{"a":"s3cr3t","b":"****","d":["s3cr3t"],"e":1}"#),
            ("d", r#"["****"]"#, r#"{"a":"s3cr3t","b":{"c":"s3cr3t"},"d":["****"],"e":1}"#),
            ("d", r#"{"c":"****"}"#, r#"{"a":"s3cr3t","b":{"c":"s3cr3t"},"d":"{\"c\":\"****\"}","e":1}"#),
            ("e", "****", r#"{"a":"s3cr3t","b":{"c":"s3cr3t"},"d":["s3cr3t"],"e":"****"}"#),
            ("f", "****", prev),
        ] {
            assert_eq!(masked_field_prev(prev, field, text).as_deref().ok(), Some(expected), "{field} {text}");
        }
        let error = masked_field_prev("[\"s3cr3t\"]", "a", "").unwrap_err();
        assert!(!error.message().contains("s3cr3t"));
    }
}
