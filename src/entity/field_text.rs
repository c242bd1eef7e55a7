//! What the transition log stores of a field's value: its text, and a key to find it by.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::units;
use crate::json::{self, Kind};

/// The key of a value in the transition log: equal for equal values, however they are written.
pub type ValueKey = [u8; 16];

/// The text of a value in the transition log: a string without its quotes, anything else the JSON text as it stands.
///
/// So `null` and `"null"`, `42` and `"42"` have the same text; their keys differ. Lone surrogates of a string become
/// U+FFFD, which is what a database would make of them; U+0000 stays.
pub(super) fn field_text(raw: &str) -> String {
    json::string(raw).unwrap_or_else(|| raw.to_owned())
}

/// The first 16 bytes of BLAKE3 over the canonical text of `json_text`, a valid JSON text.
///
/// Lone surrogates count as U+FFFD, for that is what an owner who keeps its state in a database reads back. On text that
/// is not JSON the answer means nothing.
#[must_use]
pub fn value_key(json_text: &str) -> ValueKey {
    key_of_canonical(&canonical(json_text))
}

/// The key of a value of which only the log's text is known. Objects and arrays have the key of their value; of the text
/// `42` nobody knows whether it was a number or a string, so it has a key of its own, and questions ask for both.
#[must_use]
pub fn plain_key(text: &str) -> ValueKey {
    if text.starts_with(['{', '[']) && json::validate(text.as_bytes()).is_ok() {
        return value_key(text);
    }
    let mut hasher = blake3::Hasher::new();
    // No canonical text begins with this byte.
    hasher.update(&[0xff]).update(text.as_bytes());
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    key
}

/// The keys under which rows that led to `value` (JSON text) can be found: its own, the one of its text, and that of the value of
/// another type that has the same text (`42` and `"42"`), because owners read numbers back as strings and the other way round.
#[must_use]
pub fn keys_to_find(value: &str) -> [ValueKey; 3] {
    let own = value_key(value);
    let [plain, twin] = other_keys_to_find(value, own);
    [own, plain, twin]
}

/// As [`keys_to_find`], without the value's own key, which is `own`. Where no value of another type has the same text, `own`
/// stands in its place.
#[must_use]
pub fn other_keys_to_find(value: &str, own: ValueKey) -> [ValueKey; 2] {
    let text = field_text(value);
    let twin = match json::kind(value) {
        Kind::String if json::validate(text.as_bytes()).is_ok() => value_key(&text),
        Kind::String => own,
        _ => value_key(&json::quote(&text)),
    };
    [plain_key(&text), twin]
}

/// As [`value_key`], given the canonical text.
pub(super) fn key_of_canonical(text: &str) -> ValueKey {
    let mut key = ValueKey::default();
    let mut hasher = blake3::Hasher::new();
    match without_lone_surrogates(text) {
        None => hasher.update(text.as_bytes()),
        // Names may have become equal, or sort elsewhere.
        Some(stored) => hasher.update(canonical(&stored).as_bytes()),
    };
    hasher.finalize_xof().fill(&mut key);
    key
}

/// [`json::canonical`] of a valid text, for free where it is plain to see that the text is canonical already.
pub(super) fn canonical(raw: &str) -> Cow<'_, str> {
    let raw = raw.trim_matches([' ', '\n', '\t', '\r']);
    let plain = match json::kind(raw) {
        Kind::Null | Kind::Bool => true,
        Kind::String => !raw.contains('\\'),
        // Up to fifteen digits print as they are read.
        Kind::Number => raw.len() <= 15 && raw.bytes().all(|byte| byte.is_ascii_digit()),
        Kind::Array | Kind::Object => false,
    };
    if plain { Cow::Borrowed(raw) } else { json::canonical(raw).map_or(Cow::Borrowed(raw), Cow::Owned) }
}

/// A canonical text with U+FFFD for each lone surrogate, the only surrogates that it has as escapes; `None` when there is
/// none.
fn without_lone_surrogates(canonical: &str) -> Option<String> {
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(run) = canonical.get(at..).and_then(|rest| rest.find('\\')) {
        let start = at + run;
        at = start + 2;
        if canonical.get(at - 1..).is_some_and(|escape| escape.starts_with("ud")) {
            out.push_str(canonical.get(copied..start).unwrap_or_default());
            out.push('\u{fffd}');
            at = start + 6;
            copied = at;
        }
    }
    out.push_str(canonical.get(copied..).unwrap_or_default());
    (copied > 0).then_some(out)
}

/// The order of two names, both JSON strings: that of their UTF-16 code units, as JavaScript sorts.
pub(super) fn compare_names(a: &str, b: &str) -> Ordering {
    if a.contains('\\') || b.contains('\\') {
        return units::decode(a).cmp(&units::decode(b));
    }
    let (a, b) = (a.trim_matches('"'), b.trim_matches('"'));
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (raw, expected) in [
            (r#""open""#, "open"),
            (r#""""#, ""),
            (r#""null""#, "null"),
            ("null", "null"),
            ("42", "42"),
            (r#""42""#, "42"),
            ("true", "true"),
            ("1e+21", "1e+21"),
            (r#"["a","b"]"#, r#"["a","b"]"#),
            (r#"{"x":1,"a":"\ud800"}"#, r#"{"x":1,"a":"\ud800"}"#),
            (r#""a\"\n\u0000\ud83d""#, "a\"\n\u{0}\u{fffd}"),
        ] {
            assert_eq!(field_text(raw), expected, "{raw}");
        }
    }

    #[test]
    fn keys_are_those_of_the_canonical_text() {
        let hash = |text: &str| blake3::hash(text.as_bytes()).as_bytes()[..16].to_vec();
        for (raw, canonical) in [
            ("null", "null"),
            (" true\n", "true"),
            ("1.0", "1"),
            ("-0", "0"),
            ("123456789012345", "123456789012345"),
            ("12345678901234567890", "12345678901234567000"),
            (r#"{ "b":1,"a":{"d":1,"c":[]} }"#, r#"{"a":{"c":[],"d":1},"b":1}"#),
            (r#""\u00e9\/""#, r#""é/""#),
            (r#""\ud800""#, "\"\u{fffd}\""),
            ("\"\u{fffd}\"", "\"\u{fffd}\""),
            (r#""\\ud800 \udc00\ud800\ud83d\ude00""#, "\"\\\\ud800 \u{fffd}\u{fffd}😀\""),
            (r#""\u0001\\ud""#, r#""\u0001\\ud""#),
            (r#"{"\ud800":1,"é":2}"#, "{\"é\":2,\"\u{fffd}\":1}"),
        ] {
            assert_eq!(value_key(raw).to_vec(), hash(canonical), "{raw}");
        }
        assert_ne!(value_key("42"), value_key("\"42\""));
    }

    #[test]
    fn names_sort_by_code_unit() {
        let sorted =
            [r#""""#, r#""10""#, r#""9""#, r#""a\"""#, r#""aa""#, r#""é""#, r#""\ud83d""#, r#""😀""#, "\"\u{ff21}\""];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare_names(a, b), i.cmp(&j), "{a} {b}");
            }
        }
    }
}
