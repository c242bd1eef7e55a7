//! Promise: native code derives from a change exactly what the TypeScript functions do (`src-js/entity/derive.ts`), which
//! wrote the vectors.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::collections::HashSet;
use std::path::Path;

use holdfast::entity::derive::{Change, Derived, derive};
use holdfast::entity::field_text::value_key;
use holdfast::entity::mask::{SecretSet, TOKEN};
use holdfast::json::{Kind, Object, array, canonical, kind, string};

/// The value of a member, which the vectors promise to have.
fn get<'a>(object: &Object<'a>, name: &str) -> &'a str {
    object.get(name).unwrap_or_else(|| panic!("no {name}"))
}

/// The text of a member that may be null. Lone surrogates are U+FFFD, as they are in the log.
fn text(object: &Object<'_>, name: &str) -> Option<String> {
    string(get(object, name))
}

fn strings(raw: &str) -> Vec<String> {
    array(raw).unwrap().into_iter().map(|raw| string(raw).unwrap()).collect()
}

/// Array indices come first in JavaScript's objects, whatever the text; other names keep their order.
fn same_object(found: &str, expected: &str) -> bool {
    let indexed = Object::parse(expected).unwrap().members().iter().any(|member| member.key.parse::<u32>().is_ok());
    if indexed { canonical(found) == canonical(expected) } else { found == expected }
}

fn differences(found: &Derived, expected: &Object<'_>) -> Vec<String> {
    let mut differences = Vec::new();
    let mut check = |what: &str, same: bool| {
        if !same {
            differences.push(what.to_owned());
        }
    };
    check("changedFields", found.changed_fields == strings(get(expected, "changedFields")));
    check("changedFields as JSON", found.changed_fields_json == get(expected, "changedFields"));
    check("delta", same_object(&found.delta, get(expected, "delta")));
    for (name, state) in [("prev", &found.prev), ("next", &found.next)] {
        let expected = get(expected, name);
        let same = match state {
            Some(state) => kind(expected) == Kind::Object && same_object(state, expected),
            None => kind(expected) == Kind::Null,
        };
        check(name, same);
    }
    let rows = array(get(expected, "rows")).unwrap();
    check("number of rows", rows.len() == found.rows.len());
    for (row, expected) in found.rows.iter().zip(rows) {
        let expected = Object::parse(expected).unwrap();
        check("row.field", Some(&row.field) == text(&expected, "field").as_ref());
        check("row.fromValue", row.from_value == text(&expected, "fromValue"));
        check("row.toValue", Some(&row.to_value) == text(&expected, "toValue").as_ref());
        check("row.masked", row.masked.to_string() == get(&expected, "masked"));
        check("row.canonical", row.to_key == value_key(&text(&expected, "canonical").unwrap()));
    }
    differences
}

#[test]
fn vectors_agree() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("__test__/vectors/entity-derive.json");
    let file = std::fs::read_to_string(path).unwrap();
    let vectors = array(&file).unwrap();
    let mut violations = Vec::new();
    for vector in &vectors {
        let vector = Object::parse(vector).unwrap();
        let (prev, next) = (text(&vector, "prev"), text(&vector, "next"));
        let known = get(&vector, "known");
        let known: Option<HashSet<String>> = (kind(known) == Kind::Array).then(|| strings(known).into_iter().collect());
        let secrets = SecretSet::new(get(&vector, "secrets"), TOKEN).unwrap();
        let found = derive(&Change {
            kind: "kind",
            id: "id",
            prev: prev.as_deref(),
            next: next.as_deref(),
            known: known.as_ref(),
            secrets: Some(&secrets),
            mask_all_changed: false,
        });
        let found = found.unwrap();
        let expected = get(&vector, "expect");
        let differences = match &found {
            None if kind(expected) == Kind::Null => Vec::new(),
            Some(found) if kind(expected) == Kind::Object => differences(found, &Object::parse(expected).unwrap()),
            _ => vec!["whether there is a change".to_owned()],
        };
        if !differences.is_empty() {
            violations.push(format!("{}: {differences:?}\n{expected}\n{found:?}", get(&vector, "name")));
        }
    }
    println!(
        "{{\"test\":\"entity_derive_vectors\",\"vectors\":{},\"violations\":{}}}",
        vectors.len(),
        violations.len()
    );
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    assert!(vectors.len() > 50, "only {} vectors", vectors.len());
}
