//! Changes and what they leave behind, by example.

use std::collections::HashSet;

use super::derive::{Change, Derived, Row, derive};
use super::field_text::value_key;
use super::mask::{SecretSet, TOKEN};
use crate::error::Code;

const NOTHING: Change =
    Change { kind: "pod", id: "7", prev: None, next: None, known: None, secrets: None, mask_all_changed: false };

/// `field: from -> to`, with a `*` when masked.
fn print(row: &Row) -> String {
    let from = row.from_value.as_deref().unwrap_or("(none)");
    format!("{}: {from} -> {}{}", row.field, row.to_value, if row.masked { " *" } else { "" })
}

fn changed(change: &Change) -> Derived {
    derive(change).unwrap().expect("a change")
}

#[test]
fn without_the_fields_that_others_have_told() {
    let (prev, next) = (r#"{"z":1,"a":"x","ü\"":{"b":[1]}}"#, r#"{"z":2,"a":"y","ü\"":null}"#);
    let whole = changed(&Change { prev: Some(prev), next: Some(next), ..NOTHING });
    assert_eq!(whole.changed_fields, ["a", "z", "ü\""]);
    let left = whole.without(&[true, false, false]).unwrap().unwrap();
    assert_eq!(left.changed_fields, ["z", "ü\""]);
    assert_eq!(left.changed_fields_json, r#"["z","ü\""]"#);
    assert_eq!(left.delta, r#"{"z":2,"ü\"":null}"#);
    assert_eq!(left.rows.iter().map(print).collect::<Vec<_>>(), ["z: 1 -> 2", r#"ü": {"b":[1]} -> null"#]);
    assert_eq!((left.prev.as_deref(), left.next.as_deref()), (Some(prev), Some(next)));
    assert_eq!(whole.without(&[false; 3]).unwrap().unwrap(), whole);
    assert_eq!(whole.without(&[true; 3]).unwrap(), None);
}

#[test]
fn differences() {
    for (prev, next, expected) in [
        (None, None, None),
        (Some("{}"), Some("{}"), None),
        (Some(r#"{"a":1}"#), Some(r#"{"a":1}"#), None),
        (Some(r#"{"a":{"x":1,"y":2},"b":2}"#), Some(r#"{"b":2,"a":{"y":2,"x":1}}"#), None),
        // At the top level null and absent are one, further down they are not.
        (Some(r#"{"a":null}"#), Some(r#"{"b":null}"#), None),
        (Some(r#"{"a":{"x":null}}"#), Some(r#"{"a":{}}"#), Some((r#"{"a":{}}"#, r#"a: {"x":null} -> {}"#))),
        (Some(r#"{"a":[1,2]}"#), Some(r#"{"a":[2,1]}"#), Some((r#"{"a":[2,1]}"#, "a: [1,2] -> [2,1]"))),
        (Some(r#"{"a":"1"}"#), Some(r#"{"a":1}"#), Some((r#"{"a":1}"#, "a: 1 -> 1"))),
        (Some(r#"{"a":1}"#), Some(r#"{"a":null}"#), Some((r#"{"a":null}"#, "a: 1 -> null"))),
        (Some(r#"{"a":1,"b":2}"#), Some(r#"{"b":2}"#), Some((r#"{"a":null}"#, "a: 1 -> null"))),
        (Some(r#"{"b":2}"#), Some(r#"{"a":"x","b":2}"#), Some((r#"{"a":"x"}"#, "a: null -> x"))),
        // The delta has the order of discovery, the rows that of the code units.
        (
            Some(r#"{"z":1,"ﬀ":1,"😀":1,"10":1,"9":1}"#),
            Some(r#"{"a":2,"9":2,"10":2,"😀":2,"ﬀ":2,"z":2}"#),
            Some((
                r#"{"z":2,"ﬀ":2,"😀":2,"10":2,"9":2,"a":2}"#,
                "10: 1 -> 2, 9: 1 -> 2, a: null -> 2, z: 1 -> 2, 😀: 1 -> 2, ﬀ: 1 -> 2",
            )),
        ),
        // Coming into being, and the field that is null from the beginning.
        (None, Some("{}"), Some(("{}", ""))),
        (None, Some(r#"{"n":null}"#), Some(("{}", ""))),
        (
            None,
            Some(r#"{"status":"online","region":"eu","n":null}"#),
            Some((r#"{"status":"online","region":"eu"}"#, "region: (none) -> eu, status: (none) -> online")),
        ),
        // Names are data.
        (
            Some(r#"{"__proto__":{"a":1},"":0}"#),
            Some(r#"{"__proto__":{"a":2},"":0,"constructor":"\u0000"}"#),
            Some((
                r#"{"__proto__":{"a":2},"constructor":"\u0000"}"#,
                "__proto__: {\"a\":1} -> {\"a\":2}, constructor: null -> \u{0}",
            )),
        ),
        // A name, and a value, that no Rust string can hold.
        (
            Some(r#"{"\ud800":"\ud801","\ud801":1}"#),
            Some(r#"{"\ud801":1,"\ud800":"\ud802"}"#),
            Some((r#"{"\ud800":"\ud802"}"#, "\u{fffd}: \u{fffd} -> \u{fffd}")),
        ),
    ] {
        let found = derive(&Change { prev, next, ..NOTHING }).unwrap();
        let Some((delta, rows)) = expected else {
            assert_eq!(found, None, "{prev:?} {next:?}");
            continue;
        };
        let found = found.expect(delta);
        assert_eq!(found.delta, delta);
        assert_eq!(found.rows.iter().map(print).collect::<Vec<_>>().join(", "), rows);
        assert_eq!((found.prev.as_deref(), found.next.as_deref()), (prev, next));
        assert_eq!(found.changed_fields, found.rows.iter().map(|row| row.field.clone()).collect::<Vec<_>>());
    }
}

#[test]
fn removals() {
    let prev = Some(r#"{"z":1,"n":null,"a":{}}"#);
    let found = changed(&Change { prev, ..NOTHING });
    assert_eq!(found.changed_fields, ["a", "z"]);
    assert_eq!(found.changed_fields_json, r#"["a","z"]"#);
    assert_eq!((found.rows, found.delta.as_str(), found.prev.as_deref(), found.next), (vec![], "{}", prev, None));
    assert_eq!(changed(&Change { prev: Some("{}"), ..NOTHING }).changed_fields_json, "[]");
}

#[test]
fn fields_that_the_schema_does_not_know() {
    let known: HashSet<String> = ["a", "b"].map(str::to_owned).into();
    let prev = r#"{"a":1,"updatedAt":"x"}"#;
    let change = Change { prev: Some(prev), known: Some(&known), ..NOTHING };
    assert_eq!(derive(&Change { next: Some(r#"{"a":1}"#), ..change }).unwrap(), None);
    let found = changed(&Change { next: Some(r#"{"a":1,"b":2}"#), ..change });
    assert_eq!((found.delta.as_str(), found.prev.as_deref()), (r#"{"b":2}"#, Some(prev)));
    assert_eq!(changed(&change).changed_fields, ["a"]);
    // What the next state has counts, whatever the schema says.
    assert_eq!(derive(&Change { next: Some(prev), ..change }).unwrap(), None);
    let found = changed(&Change { next: Some(r#"{"a":1,"updatedAt":"y"}"#), ..change });
    assert_eq!(found.rows.iter().map(print).collect::<Vec<_>>(), ["updatedAt: x -> y"]);
}

#[test]
fn keys_of_rows() {
    let found = changed(&Change {
        prev: Some(r#"{"a":{"y":1,"x":2},"b":"\ud800"}"#),
        next: Some(r#"{"a":{"y":3,"x":2},"c":[1]}"#),
        ..NOTHING
    });
    let keys: Vec<_> = found.rows.iter().map(|row| (row.from_key.unwrap(), row.to_key)).collect();
    let expected = [(r#"{"x":2,"y":1}"#, r#"{"x":2,"y":3}"#), ("\"\u{fffd}\"", "null"), ("null", "[1]")];
    assert_eq!(keys, expected.map(|(from, to)| (value_key(from), value_key(to))));
    let born = changed(&Change { next: Some(r#"{"a":1}"#), ..NOTHING });
    assert_eq!((born.rows[0].from_key, born.rows[0].to_key), (None, value_key("1")));
}

#[test]
fn masks_what_it_gives() {
    let secrets = SecretSet::new(r#"["s3cr3t","hunter22"]"#, TOKEN).unwrap();
    let change = Change { secrets: Some(&secrets), ..NOTHING };
    // From one secret to another is a change.
    let found = changed(&Change { prev: Some(r#"{"a":"s3cr3t"}"#), next: Some(r#"{"a":"hunter22"}"#), ..change });
    assert_eq!(found.rows.iter().map(print).collect::<Vec<_>>(), ["a: **** -> **** *"]);
    assert_eq!(found.rows[0].to_key, value_key("\"****\""));
    assert_eq!(found.rows[0].from_key, Some(value_key("\"****\"")));
    assert_eq!((found.prev.as_deref(), found.delta.as_str()), (Some(r#"{"a":"****"}"#), r#"{"a":"****"}"#));
    // Nested, in names of members, and in a field that did not change.
    let found = changed(&Change {
        prev: Some(r#"{"k":"s3cr3t","o":{"s3cr3t":["x-hunter22"]},"n":1.0}"#),
        next: Some(r#"{"n":2,"o":{"z":0,"hunter22":{"y":"s3cr3t"}},"k":"s3cr3t"}"#),
        ..change
    });
    assert_eq!(
        found.rows.iter().map(print).collect::<Vec<_>>(),
        ["n: 1.0 -> 2", r#"o: {"****":["x-****"]} -> {"z":0,"****":{"y":"****"}} *"#]
    );
    assert_eq!(found.rows[1].to_key, value_key(r#"{"****":{"y":"****"},"z":0}"#));
    assert_eq!(found.prev.as_deref(), Some(r#"{"k":"****","o":{"****":["x-****"]},"n":1.0}"#));
    assert_eq!(found.next.as_deref(), Some(r#"{"n":2,"o":{"z":0,"****":{"y":"****"}},"k":"****"}"#));
    assert_eq!(found.delta, r#"{"o":{"z":0,"****":{"y":"****"}},"n":2}"#);
    // The value is in the clear again.
    let found = changed(&Change { prev: Some(r#"{"a":"s3cr3t"}"#), next: Some(r#"{"a":"open"}"#), ..change });
    assert_eq!(found.rows.iter().map(print).collect::<Vec<_>>(), ["a: **** -> open"]);
}

/// One field has one name in all parts of an event, also when several names become equal.
#[test]
fn masked_names_of_fields() {
    let secrets = SecretSet::new(r#"["secret"]"#, TOKEN).unwrap();
    let found = changed(&Change {
        prev: Some(r#"{"secret1":1,"secret2":2,"****3":3}"#),
        next: Some(r#"{"secret3":4,"secret2":3}"#),
        secrets: Some(&secrets),
        ..NOTHING
    });
    assert_eq!(found.prev.as_deref(), Some(r#"{"****1":1,"****2":2,"****3":3}"#));
    assert_eq!(found.next.as_deref(), Some(r##"{"****3#2":4,"****2":3}"##));
    assert_eq!(found.delta, r##"{"****1":null,"****2":3,"****3":null,"****3#2":4}"##);
    assert_eq!(found.changed_fields_json, r##"["****1","****2","****3","****3#2"]"##);
    assert_eq!(
        found.rows.iter().map(print).collect::<Vec<_>>(),
        ["****1: 1 -> null", "****2: 2 -> 3", "****3: 3 -> null", "****3#2: null -> 4"]
    );
}

/// The secrets of the run died with its process: whatever changed may be one.
#[test]
fn masks_all_that_changed() {
    let known: HashSet<String> = ["a", "b", "c", "d", "n"].map(str::to_owned).into();
    let prev = r#"{"a":"x","b":"same","c":{"x":"y"},"n":1}"#;
    let next = r#"{"a":"secret","b":"same","c":{"secret":[1,"z"]},"n":2,"d":"new"}"#;
    let change = Change { prev: Some(prev), next: Some(next), mask_all_changed: true, ..NOTHING };
    let found = changed(&Change { known: Some(&known), ..change });
    assert_eq!(
        found.rows.iter().map(print).collect::<Vec<_>>(),
        ["a: **** -> **** *", r#"c: {"****":"****"} -> {"****":[1,"****"]} *"#, "d: null -> **** *", "n: 1 -> 2",]
    );
    assert_eq!(found.prev.as_deref(), Some(r#"{"a":"****","b":"same","c":{"****":"****"},"n":1}"#));
    assert_eq!(found.next.as_deref(), Some(r#"{"a":"****","b":"same","c":{"****":[1,"****"]},"n":2,"d":"****"}"#));
    assert_eq!(found.delta, r#"{"a":"****","c":{"****":[1,"****"]},"n":2,"d":"****"}"#);
    // A name that comes from neither the schema nor the state before may be one too.
    assert_eq!(changed(&change).changed_fields, ["****", "a", "c", "n"]);
    let removed = changed(&Change { next: None, ..change });
    assert_eq!(removed.prev.as_deref(), Some(r#"{"a":"****","b":"****","c":{"****":"****"},"n":1}"#));
}

#[test]
fn refuses_what_is_no_state() {
    for (prev, next) in [("[\"s3cr3t\"]", "{}"), ("{}", "{\"s3cr3t\":}"), ("{}", "\"s3cr3t\""), ("", "{}")] {
        let error = derive(&Change { prev: Some(prev), next: Some(next), ..NOTHING }).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("pod:7") && !error.message().contains("s3cr3t"), "{error}");
    }
}

/// Nesting, and in another order at each level.
#[test]
fn deep_states_take_no_stack() {
    let depth = 10_000;
    let nest = |open: &str, close: &str| format!("{{\"a\":{}0{}}}", open.repeat(depth), close.repeat(depth));
    let (prev, next) = (nest("{\"k\":[", "],\"s\":\"s3cr3t\"}"), nest("{\"s\":\"s3cr3t\",\"k\":[", "]}"));
    let secrets = SecretSet::new(r#"["s3cr3t"]"#, TOKEN).unwrap();
    let change = Change { prev: Some(&prev), next: Some(&next), secrets: Some(&secrets), ..NOTHING };
    assert_eq!(derive(&change).unwrap(), None);
    let other = next.replace('0', "1");
    let found = changed(&Change { next: Some(&other), ..change });
    assert_eq!(found.rows[0].to_value, other.replace("s3cr3t", "****")[5..other.len() - depth * 2 - 1]);
}
