//! Properties over generated texts, with serde_json as the second opinion where it reads JSON as V8 does.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Values with names and strings that collide and need escapes.
fn values() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        "[a-c]{0,2}",
        "[ -~]{0,40}",
        "[\"\\\\/\u{0}-\u{1f}\u{7f}é\u{e000}\u{2028}😀]{0,20}",
        any::<String>(),
    ];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 200, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Texts that are nearly JSON, some of them JSON.
fn near_texts() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"b\":",
        "\\",
        "\\n",
        "\\u",
        "\\ud800",
        "\\u00e9",
        "0",
        "1",
        "-",
        ".",
        "e",
        "E+",
        "9",
        "true",
        "false",
        "null",
        "nul",
        " ",
        "\n",
        "\t",
        "\r",
        "\n    ",
        "\u{c}",
        "é",
        "😀",
        "\u{0}",
        "0123456789abcdef",
        "[[]]",
        "{\"k\":1}",
        "\u{feff}",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// A JSON text with one piece cut out or put in.
fn broken_texts() -> impl Strategy<Value = Vec<u8>> {
    (values(), any::<bool>(), any::<prop::sample::Index>(), 0..3usize, prop::collection::vec(any::<u8>(), 0..3))
        .prop_map(|(value, wide, place, cut, insert)| {
            let text = if wide { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) };
            let mut text = text.unwrap();
            let at = place.index(text.len() + 1);
            text.splice(at..(at + cut).min(text.len()), insert);
            text
        })
}

/// Calls everything on any text: nothing may panic, and no two functions may disagree about what JSON is.
fn exercise(text: &str) {
    let verdict = validate(text.as_bytes());
    assert!(verdict.is_ok() || verdict.is_err_and(|error| error.offset <= text.len()));
    let object = Object::parse(text);
    let elements = array(text);
    let (string, number) = (string(text), number(text));
    let _ = (integer(text), compact(text), quote(text));
    pretty(text, 3, &mut String::new());
    assert_eq!(canonical(text).map(|_| ()), verdict);
    assert_eq!(equal(text, text), verdict.map(|()| true));
    match (verdict, kind(text)) {
        (Ok(()), kind) => {
            let found = (object.is_ok(), elements.is_ok(), string.is_some(), number.is_some());
            let is = |other| kind == other;
            assert_eq!(found, (is(Kind::Object), is(Kind::Array), is(Kind::String), is(Kind::Number)), "{text:?}");
        }
        (Err(error), kind) => {
            assert!(string.is_none() && number.is_none(), "{text:?}");
            assert!(object.is_err_and(|other| kind != Kind::Object || other == error), "{text:?}");
            assert!(elements.is_err_and(|other| kind != Kind::Array || other == error), "{text:?}");
        }
    }
}

/// What serde_json says; its own recursion limit is far beyond these texts.
fn second_opinion(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// Numbers as doubles, to compare as `equal` does.
fn with_doubles(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap() + 0.0),
        Value::Array(elements) => elements.iter().map(with_doubles).collect(),
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), with_doubles(value))).collect(),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_safe(text in any::<String>(), near in near_texts(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        exercise(&text);
        exercise(&near);
        exercise(&String::from_utf8_lossy(&bytes));
        prop_assert_eq!(validate(near.as_bytes()).is_ok(), second_opinion(near.as_bytes()), "{:?}", near);
        prop_assert_eq!(validate(&bytes).is_ok(), second_opinion(&bytes));
    }

    #[test]
    fn broken_texts_are_judged_alike(text in broken_texts()) {
        prop_assert_eq!(validate(&text).is_ok(), second_opinion(&text), "{:?}", String::from_utf8_lossy(&text));
        exercise(&String::from_utf8_lossy(&text));
    }

    #[test]
    fn layouts_agree(value in values()) {
        let (tight, wide) = (serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap());
        exercise(&tight);
        exercise(&wide);
        let mut out = String::new();
        pretty(&tight, 0, &mut out);
        prop_assert_eq!(&out, &wide);
        prop_assert_eq!(compact(&wide), tight);
        out.clear();
        pretty(&wide, 1, &mut out);
        prop_assert_eq!(out, wide.replace('\n', "\n  "));
    }

    #[test]
    fn parts_agree(value in values()) {
        let text = serde_json::to_string_pretty(&value).unwrap();
        let reread = |raw: &str| serde_json::from_str::<Value>(raw).unwrap();
        match &value {
            Value::Object(members) => {
                let object = Object::parse(&text).unwrap();
                prop_assert_eq!(object.members().len(), members.len());
                for (key, member) in members {
                    prop_assert_eq!(with_doubles(&reread(object.get(key).unwrap())), with_doubles(member));
                }
            }
            Value::Array(elements) => {
                let found: Vec<Value> = array(&text).unwrap().into_iter().map(reread).collect();
                prop_assert_eq!(with_doubles(&Value::from(found)), with_doubles(&Value::from(elements.clone())));
            }
            Value::String(content) => prop_assert_eq!(string(&text), Some(content.clone())),
            Value::Number(content) => prop_assert_eq!(number(&text), content.as_f64()),
            _ => {}
        }
    }

    #[test]
    fn strings_round_trip(text in any::<String>(), units in prop::collection::vec(0xd7f0u16..0xe010, 0..6)) {
        prop_assert_eq!(quote(&text), serde_json::to_string(&text).unwrap());
        prop_assert_eq!(string(&quote(&text)), Some(text));
        let escaped: String = units.iter().map(|unit| format!("\\u{unit:04X}")).collect();
        prop_assert_eq!(string(&format!("\"{escaped}\"")), Some(String::from_utf16_lossy(&units)));
    }

    #[test]
    fn numbers_round_trip(bits in any::<u64>(), text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?") {
        let value = f64::from_bits(bits);
        let printed = number_text(value);
        prop_assert_eq!(number(&printed), value.is_finite().then_some(value), "{}", printed);
        prop_assert_eq!(number(&text), text.parse().ok());
        prop_assert_eq!(validate(text.as_bytes()), Ok(()));
    }

    #[test]
    fn equality_agrees(a in values(), b in values()) {
        let (text_a, text_b) = (serde_json::to_string(&a).unwrap(), serde_json::to_string_pretty(&b).unwrap());
        let same = with_doubles(&a) == with_doubles(&b);
        prop_assert_eq!(equal(&text_a, &text_b), Ok(same));
        let (canonical_a, canonical_b) = (canonical(&text_a).unwrap(), canonical(&text_b).unwrap());
        prop_assert_eq!(canonical_a == canonical_b, same);
        prop_assert_eq!(canonical(&canonical_a), Ok(canonical_a.clone()));
        prop_assert_eq!(equal(&text_a, &canonical_a), Ok(true));
        prop_assert_eq!(with_doubles(&serde_json::from_str(&canonical_a).unwrap()), with_doubles(&a));
    }
}
