//! Takes the secrets of a run out of JSON texts: in one pass, by UTF-16 code unit as JavaScript matches strings, and
//! without building trees.

use std::borrow::Cow;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{AhoCorasick, Anchored, BuildError, MatchError, MatchKind};

use super::rewrite::rewrite;
use super::units;
use crate::error::{Code, HfError, Result};
use crate::json;

/// What a secret is replaced by, unless the caller has a token of its own.
pub const TOKEN: &str = "****";

/// Values shorter than this are not masked: they would be found everywhere. UTF-16 code units.
pub const LENGTH_MIN: usize = 4;

/// The secrets of a run, ready to be found.
///
/// Build it once for a run's values and share it between threads. It shows the values to nobody: there is no `Debug`.
pub struct SecretSet {
    finder: Option<Finder>,
    token: Vec<u16>,
}

struct Finder {
    /// The secrets as UTF-16LE. Each is an even number of bytes, so a match that ends between two code units also
    /// begins between two.
    secrets: NFA,
    start: StateID,
    /// Finds every text that holds a secret, and some that do not. `None` when only the exact search will do.
    hint: Option<AhoCorasick>,
}

impl SecretSet {
    /// Reads the secrets from `values_json`, a JSON array of strings (escapes such as `\ud800` are fine). Values below
    /// [`LENGTH_MIN`] are left out. `token` replaces what is found: mostly [`TOKEN`]; it may be empty.
    ///
    /// # Errors
    /// `HF_INVALID_ARGUMENT` when `values_json` is no such array, or when the values together are too large to be
    /// searched for (hundreds of MB). The message holds none of them.
    pub fn new(values_json: &str, token: &str) -> Result<Self> {
        let refuse = |why: &str| HfError::new(Code::InvalidArgument, format!("The secrets of a run {why}"));
        let raws = json::array(values_json).map_err(|_| refuse("must be a JSON array of strings"))?;
        if raws.iter().any(|raw| json::kind(raw) != json::Kind::String) {
            return Err(refuse("must be strings"));
        }
        let mut values: Vec<Vec<u16>> = raws.iter().map(|raw| units::decode(raw)).collect();
        values.retain(|value| value.len() >= LENGTH_MIN);
        values.sort_unstable();
        values.dedup();
        let finder = match &*values {
            [] => None,
            values => Some(
                Finder::new(values)
                    .map_err(|_| refuse("are too large together; register the secret parts of large values instead"))?,
            ),
        };
        Ok(Self { finder, token: token.encode_utf16().collect() })
    }

    /// Whether there is nothing to mask: no value, or only short ones.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.finder.is_none()
    }

    /// Masks all strings and all names of members in `json`, a valid JSON text; the rest keeps every byte. Members whose
    /// names become equal get `#2`, `#3` … after the name. Without a secret in it the text comes back as it is.
    #[must_use]
    pub fn mask<'a>(&self, json: &'a str) -> Cow<'a, str> {
        self.masked(json).map_or(Cow::Borrowed(json), Cow::Owned)
    }

    /// As [`SecretSet::mask`]; `None` when there is no secret in the text.
    pub(super) fn masked(&self, json: &str) -> Option<String> {
        if self.may_be_in(json) { rewrite(json, &|string| self.masked_string(string)) } else { None }
    }

    /// `false` when no string in this JSON text holds a secret; cheap.
    pub(super) fn may_be_in(&self, json: &str) -> bool {
        self.finder.as_ref().is_some_and(|finder| finder.hint.as_ref().is_none_or(|hint| hint.is_match(json)))
    }

    /// The JSON string `raw` without its secrets; `None` when that is the same.
    pub(super) fn masked_string(&self, raw: &str) -> Option<String> {
        let finder = self.finder.as_ref().filter(|_| self.may_be_in(raw))?;
        let text = units::decode(raw);
        let spans = finder.spans(&text);
        if spans.is_empty() {
            return None;
        }
        let mut masked = Vec::with_capacity(text.len());
        let mut copied = 0;
        for (start, end) in spans {
            masked.extend_from_slice(text.get(copied..start).unwrap_or_default());
            masked.extend_from_slice(&self.token);
            copied = end;
        }
        masked.extend_from_slice(text.get(copied..).unwrap_or_default());
        // A secret made of the token's characters stays as it is.
        Some(units::quote(&masked)).filter(|masked| masked != raw)
    }
}

impl Finder {
    fn new(values: &[Vec<u16>]) -> std::result::Result<Self, SearchError> {
        let bytes = values.iter().map(|value| value.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<u8>>());
        let secrets = NFA::new(bytes)?;
        let start = secrets.start_state(Anchored::No)?;
        Ok(Self { secrets, start, hint: hint(values)? })
    }

    /// Where the secrets are, in code units: overlapping places as one, touching ones apart.
    fn spans(&self, text: &[u16]) -> Vec<(usize, usize)> {
        let mut spans: Vec<(usize, usize)> = Vec::new();
        let mut state = self.start;
        for (at, unit) in text.iter().enumerate() {
            for byte in unit.to_le_bytes() {
                state = self.secrets.next_state(Anchored::No, state, byte);
            }
            if !self.secrets.is_match(state) {
                continue;
            }
            // The first of the patterns that end here is the longest; the others are inside it.
            let longest = self.secrets.pattern_len(self.secrets.match_pattern(state, 0)) / 2;
            let end = at + 1;
            let mut start = end.saturating_sub(longest);
            while let Some(before) = spans.pop_if(|before| before.1 > start) {
                start = start.min(before.0);
            }
            spans.push((start, end));
        }
        spans
    }
}

/// A search of the raw text that misses no secret.
///
/// A JSON string can write a character in several ways, but without `\u` and `\/` there is one way each: so a text that
/// holds a secret holds the way `JSON.stringify` writes it, or one of those two. That takes secrets made of whole
/// characters: half a surrogate pair has no bytes of its own in UTF-8.
fn hint(values: &[Vec<u16>]) -> std::result::Result<Option<AhoCorasick>, BuildError> {
    let mut patterns = Vec::with_capacity(values.len() + 2);
    for value in values {
        let Ok(text) = String::from_utf16(value) else { return Ok(None) };
        let quoted = json::quote(&text);
        patterns.push(quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned());
    }
    patterns.extend(["\\u".to_owned(), "\\/".to_owned()]);
    // Only leftmost searches skip ahead with vector instructions.
    AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(patterns).map(Some)
}

#[derive(Debug, thiserror::Error)]
enum SearchError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Start(#[from] MatchError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[&str]) -> SecretSet {
        SecretSet::new(&format!("[{}]", values.join(",")), TOKEN).unwrap()
    }

    #[test]
    fn masks_strings() {
        for (secrets, text, expected) in [
            (&[r#""s3cr3t""#][..], r#""a s3cr3t, s3cr3ts3cr3t""#, r#""a ****, ********""#),
            (&[r#""abc""#, r#""""#], r#""abc""#, r#""abc""#),
            (&[r#""abcd""#], r#""ABCD abc d""#, r#""ABCD abc d""#),
            // Overlapping and nested ones are one, touching ones are not.
            (&[r#""aaaa""#], r#""aaaaaa""#, r#""****""#),
            (&[r#""aaaa""#], r#""aaaabaaaa""#, r#""****b****""#),
            (&[r#""abcd""#, r#""cdefgh""#], r#""abcdefgh!""#, r#""****!""#),
            (&[r#""abcd""#, r#""efgh""#, r#""defgh""#], r#""abcdefgh!""#, r#""****!""#),
            (&[r#""abcd""#, r#""efgh""#], r#""abcdefgh!""#, r#""********!""#),
            (&[r#""abcd""#, r#""efgh""#, r#""abcdefghi""#], r#""abcdefghi""#, r#""****""#),
            (&[r#""cret""#, r#""supersecret""#, r#""secret""#], r#""supersecret secret cret""#, r#""**** **** ****""#),
            (&[r#""bcde""#, r#""defg""#, r#""xxabcdefgyy""#], r#""xxabcdefgyy""#, r#""****""#),
            // One character, several ways to write it.
            (&[r#""a\"\n\\/\u0001é""#], r#""<a\"\n\\/\u0001é>""#, r#""<****>""#),
            (&[r#""a\"\n\\/\u0001é""#], r#""<\u0061\u0022\u000a\u005c\/\u0001\u00e9>""#, r#""<****>""#),
            (&[r#""a/bc""#], r#""<a\/bc>""#, r#""<****>""#),
            (&[r#""nabc""#], r#""\nabc""#, r#""\nabc""#),
            (&[r#""uabcd""#], r#""\\uabcd""#, r#""\\****""#),
            (&[r#""😀😀""#], r#""x😀😀y\ud83d\ude00😀""#, r#""x****y****""#),
            (&[r#""pass\u0000""#], r#""pass\u0000""#, r#""****""#),
            // By code unit: half a pair is found, and the other half stays.
            (&[r#""\ude00abc""#], r#""😀abc""#, r#""\ud83d****""#),
            (&[r#""abc\ud83d""#], r#""abc😀""#, r#""****\ude00""#),
            (&[r#""ab\ud800c""#], r#""-ab\ud800c-""#, r#""-****-""#),
            (&[r#""abcd""#], r#""\ud800abcd\udc00""#, r#""\ud800****\udc00""#),
            // The bytes of the secret in UTF-16 are there, but one byte off.
            (&[r#""\u0100\u0900\u0100\u0900""#], r#""x\u0001\t\u0001\t""#, r#""x\u0001\t\u0001\t""#),
        ] {
            assert_eq!(set(secrets).mask(text), expected, "{secrets:?} {text}");
        }
    }

    #[test]
    fn masks_names_and_nested_values_and_nothing_else() {
        let secrets = set(&[r#""12345678""#, r#""true""#, r#""secret""#]);
        for (text, expected) in [
            (r#"{"a":12345678,"b":true,"c":["12345678"]}"#, r#"{"a":12345678,"b":true,"c":["****"]}"#),
            (
                r#"{"secret":{"x-secret":[{"y":"secret"}]}, "z" : 1e400}"#,
                r#"{"****":{"x-****":[{"y":"****"}]}, "z" : 1e400}"#,
            ),
            // Names that become equal.
            (
                r#"{"secret":1,"12345678":2,"a":{"secret":3},"true":4}"#,
                r##"{"****":1,"****#2":2,"a":{"****":3},"****#3":4}"##,
            ),
            (r##"{"****":1,"secret":2,"****#2":3,"b":4}"##, r##"{"****":1,"****#2":2,"****#2#2":3,"b":4}"##),
            (r#"{"secret":1,"****":2}"#, r##"{"****":1,"****#2":2}"##),
            (r#"[{"secret":1},{"secret":1}]"#, r#"[{"****":1},{"****":1}]"#),
            (r#"{"a":12345678,"true ":[true]}"#, r#"{"a":12345678,"**** ":[true]}"#),
            ("12345678", "12345678"),
            (r#""SECRET""#, r#""SECRET""#),
            (r#"["{\"secret\":1}"]"#, r#"["{\"****\":1}"]"#),
        ] {
            assert_eq!(secrets.mask(text), expected, "{text}");
        }
    }

    #[test]
    fn takes_any_token() {
        for (token, expected) in [("", r#""ab""#), ("[\"secret\"]", r#""a[\"secret\"]b""#)] {
            assert_eq!(SecretSet::new(r#"["secret"]"#, token).unwrap().mask(r#""asecretb""#), expected);
        }
    }

    #[test]
    fn refuses_without_naming_values() {
        for values in ["", "{}", "[\"hunter22\"", "[\"hunter22\", 5]", "\"hunter22\""] {
            let error = SecretSet::new(values, TOKEN).err().unwrap();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(!error.message().contains("hunter22"));
        }
        assert!(SecretSet::new("[]", TOKEN).unwrap().is_empty());
        assert!(SecretSet::new(r#"["abc","\ud83d\ude00x"]"#, TOKEN).unwrap().is_empty());
        assert!(!SecretSet::new(r#"["😀😀"]"#, TOKEN).unwrap().is_empty());
    }

    /// Secrets inside secrets, in whatever order they come: the longest counts.
    #[test]
    fn the_longest_match_counts_in_any_order() {
        let nested: Vec<String> = (4..60).map(|length| format!("\"{}\"", "z".repeat(length))).collect();
        let mut values: Vec<&str> = nested.iter().map(String::as_str).collect();
        for _ in 0..values.len() {
            values.rotate_left(1);
            let text = format!("\"y{}y\"", "z".repeat(59));
            assert_eq!(set(&values).mask(&text), "\"y****y\"");
        }
    }

    #[test]
    fn is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<SecretSet>();
    }
}
