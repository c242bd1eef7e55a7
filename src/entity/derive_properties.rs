//! Properties over generated states, with serde_json as the second opinion.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::derive::{Change, Derived, derive};
use super::event::{event_text, masked_field_prev};
use super::field_text::value_key;
use super::mask::{LENGTH_MIN, SecretSet, TOKEN};
use crate::json::canonical;

/// Texts made of few characters, so that secrets, names and values meet; no `*`, which the token is made of.
fn word() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,9}", "[ab😀é\"\\\\/\n\u{1}\u{e000}]{0,8}", "(ab|ba|😀|u0061|n){0,6}",]
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn state() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((word(), value()), 0..8).prop_map(|members| members.into_iter().collect())
}

/// Two states that have much in common.
fn states() -> impl Strategy<Value = (Map<String, Value>, Map<String, Value>)> {
    (state(), state(), any::<u8>()).prop_map(|(prev, other, kept)| {
        let common = prev.iter().enumerate().filter(|(i, _)| kept >> (i % 8) & 1 == 1);
        let mut next = other;
        next.extend(common.map(|(_, (name, value))| (name.clone(), value.clone())));
        (prev, next)
    })
}

fn change<'a>(prev: Option<&'a str>, next: Option<&'a str>) -> Change<'a> {
    Change { kind: "k", id: "i", prev, next, known: None, secrets: None, mask_all_changed: false }
}

fn text(state: &Map<String, Value>) -> String {
    serde_json::to_string(state).unwrap()
}

fn without_nulls(state: &Map<String, Value>) -> Map<String, Value> {
    state.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Writes all characters of all strings as escapes.
fn escaped(json: &str) -> String {
    let mut in_string = false;
    let mut out = String::new();
    let mut rest = json.chars();
    while let Some(character) = rest.next() {
        match character {
            '"' => {
                in_string = !in_string;
                out.push('"');
            }
            '\\' if in_string => {
                out.push('\\');
                let kind = rest.next().unwrap();
                out.push(kind);
                if kind == 'u' {
                    out.extend(rest.by_ref().take(4));
                }
            }
            _ if in_string => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04X}"));
                }
            }
            _ => out.push(character),
        }
    }
    out
}

/// All strings and names in a text, and the texts that are no JSON themselves.
fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(elements) => elements.iter().for_each(|element| strings(element, found)),
        Value::Object(members) => {
            for (name, member) in members {
                found.push(name.clone());
                strings(member, found);
            }
        }
        _ => {}
    }
}

/// All strings that anybody can read from what was derived.
fn shown(derived: &Derived) -> Vec<String> {
    let event = event_text("k", "i", derived, "null", "", "");
    let mut found = derived.changed_fields.clone();
    strings(&serde_json::from_str(&event).unwrap(), &mut found);
    for row in &derived.rows {
        found.push(row.field.clone());
        for text in row.from_value.iter().chain([&row.to_value]) {
            match serde_json::from_str::<Value>(text) {
                Ok(value @ (Value::Array(_) | Value::Object(_))) => strings(&value, &mut found),
                // A number or a word is no string, but a string may look like one.
                _ => found.push(text.clone()),
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_state_does_not_differ_from_itself(state in state()) {
        let state = text(&state);
        prop_assert_eq!(derive(&change(Some(&state), Some(&state))).unwrap(), None);
        let rewritten = escaped(&state);
        prop_assert_eq!(derive(&change(Some(&state), Some(&rewritten))).unwrap(), None);
        let sorted = canonical(&state).unwrap();
        prop_assert_eq!(derive(&change(Some(&sorted), Some(&rewritten))).unwrap(), None);
    }

    #[test]
    fn the_delta_makes_next_of_prev((prev, next) in states()) {
        let (prev_text, next_text) = (text(&prev), escaped(&text(&next)));
        let found = derive(&change(Some(&prev_text), Some(&next_text))).unwrap();
        prop_assert_eq!(found.is_none(), without_nulls(&prev) == without_nulls(&next));
        let Some(found) = found else { return Ok(()) };
        let delta: Map<String, Value> = serde_json::from_str(&found.delta).unwrap();
        let mut applied = prev.clone();
        applied.extend(delta.clone());
        prop_assert_eq!(without_nulls(&applied), without_nulls(&next));
        prop_assert_eq!(&found.prev, &Some(prev_text));
        prop_assert_eq!(&found.next, &Some(next_text));
        let null = Value::Null;
        let mut names: Vec<&String> = delta.keys().collect();
        names.sort_by_key(|name| name.encode_utf16().collect::<Vec<_>>());
        prop_assert_eq!(names, found.changed_fields.iter().collect::<Vec<_>>());
        prop_assert_eq!(&serde_json::from_str::<Vec<String>>(&found.changed_fields_json).unwrap(), &found.changed_fields);
        for row in &found.rows {
            let (before, after) = (prev.get(&row.field).unwrap_or(&null), next.get(&row.field).unwrap_or(&null));
            prop_assert_ne!(before, after);
            prop_assert_eq!(row.to_key, value_key(&after.to_string()));
            prop_assert_eq!(row.from_key, Some(value_key(&before.to_string())));
            prop_assert!(!row.masked);
            match before {
                Value::String(text) => prop_assert_eq!(row.from_value.as_ref(), Some(text)),
                other => prop_assert_eq!(row.from_value.clone(), Some(other.to_string())),
            }
        }
    }

    #[test]
    fn no_secret_is_shown(
        (prev, next) in states(),
        values in prop::collection::vec(prop_oneof![word(), "[ab]{4,6}"], 0..6),
        missing in 0..4,
        write_escaped in any::<bool>(),
    ) {
        let write = |state| if write_escaped { escaped(&text(state)) } else { text(state) };
        let (prev, next) = (write(&prev), write(&next));
        let secrets = SecretSet::new(&json!(values).to_string(), TOKEN).unwrap();
        let values: Vec<&String> = values.iter().filter(|value| value.encode_utf16().count() >= LENGTH_MIN).collect();
        prop_assert_eq!(secrets.is_empty(), values.is_empty());
        let clear = change((missing != 1).then_some(&*prev), (missing != 2).then_some(&*next));
        let masked = derive(&Change { secrets: Some(&secrets), ..clear }).unwrap();
        let clear = derive(&clear).unwrap();
        // What changed is decided before anything is masked.
        prop_assert_eq!(masked.is_some(), clear.is_some());
        let (Some(masked), Some(clear)) = (masked, clear) else { return Ok(()) };
        prop_assert_eq!(masked.changed_fields.len(), clear.changed_fields.len());
        let names: HashSet<&String> = masked.changed_fields.iter().collect();
        prop_assert_eq!(names.len(), masked.changed_fields.len());
        let found = shown(&masked);
        for value in &values {
            prop_assert!(!found.iter().any(|text| text.contains(*value)), "{value:?} in {found:?}");
        }
        if !shown(&clear).iter().any(|text| values.iter().any(|value| text.contains(*value))) {
            prop_assert_eq!(masked, clear);
        }
    }

    #[test]
    fn nothing_that_changed_is_shown_when_secrets_are_lost((prev, next) in states()) {
        let (prev, next) = (text(&prev), text(&next));
        let change = change(None, Some(&next));
        let Some(found) = derive(&Change { mask_all_changed: true, ..change }).unwrap() else { return Ok(()) };
        let clear = derive(&change).unwrap().unwrap();
        prop_assert_eq!(found.rows.len(), clear.rows.len());
        let found = derive(&Change { prev: Some(&prev), next: None, mask_all_changed: true, ..change }).unwrap().unwrap();
        let shown: Map<String, Value> = serde_json::from_str(&found.prev.unwrap()).unwrap();
        let mut texts = Vec::new();
        shown.values().for_each(|value| strings(value, &mut texts));
        prop_assert!(texts.iter().all(|text| text.starts_with(TOKEN)), "{texts:?}");
    }

    #[test]
    fn an_old_mask_replaces_one_value(state in state(), text_of_log in word()) {
        let name = state.keys().next().cloned().unwrap_or_default();
        let shown = masked_field_prev(&text(&state), &name, &text_of_log).unwrap();
        let mut shown: Map<String, Value> = serde_json::from_str(&shown).unwrap();
        let mut rest = state.clone();
        prop_assert_eq!(shown.remove(&name), rest.remove(&name).map(|_| Value::from(text_of_log)));
        prop_assert_eq!(shown, rest);
    }

    #[test]
    fn never_panics(prev in any::<String>(), next in ".{0,60}", values in any::<String>()) {
        let secrets = SecretSet::new(&values, "").ok();
        let (prev, next) = (format!("{{{prev}"), format!("{{{next}"));
        let change = Change { secrets: secrets.as_ref(), ..change(Some(&prev), Some(&next)) };
        prop_assert!(derive(&change).is_err());
        let abcd = SecretSet::new(r#"["\ud800abc","\"\\\"\\"]"#, "t").unwrap();
        let _ = (abcd.mask(&prev), value_key(&prev), masked_field_prev(&next, "a", "b"));
    }
}
