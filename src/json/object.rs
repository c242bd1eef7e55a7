//! Takes one level of a JSON text apart; the values stay raw text, byte for byte.

use std::borrow::Cow;

use super::JsonError;
use super::scan::{expect_end, skip_colon, skip_value};
use super::text::Text;
use super::token::{skip_space, skip_string, unexpected};

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// What the value of `raw` is, by its first character after whitespace; `raw` must be valid JSON.
/// On other text the answer means nothing.
pub fn kind(raw: &str) -> Kind {
    match raw.as_bytes().get(skip_space(raw.as_bytes(), 0)) {
        Some(b'n') => Kind::Null,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'"') => Kind::String,
        Some(b'[') => Kind::Array,
        Some(b'{') => Kind::Object,
        _ => Kind::Number,
    }
}

/// An object taken apart into its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<'a> {
    members: Vec<Member<'a>>,
}

/// A member of an [`Object`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// The name, decoded; lone surrogates are U+FFFD here, see [`Member::key_exact`].
    pub key: Cow<'a, str>,
    /// Whether `key` is the whole truth; `false` when the name holds a lone surrogate.
    pub key_exact: bool,
    /// The name's text as it stands, quotes included.
    pub raw_key: &'a str,
    /// The value's text as it stands, without whitespace around it.
    pub raw: &'a str,
}

impl<'a> Object<'a> {
    /// Takes the object `text` apart, checking all of it on the way; whitespace around it is fine.
    ///
    /// # Errors
    /// When `text` is not valid JSON, as [`validate`](super::validate) has it, or not an object: then at the position
    /// of the value's first character.
    pub fn parse(text: &'a str) -> Result<Self, JsonError> {
        let bytes = text.as_bytes();
        let mut members = Vec::new();
        let mut at = open(bytes, b'{')?;
        if bytes.get(at) == Some(&b'}') {
            expect_end(bytes, at + 1)?;
            return Ok(Self { members });
        }
        loop {
            if bytes.get(at) != Some(&b'"') {
                return Err(unexpected(bytes, at));
            }
            let key_end = skip_string(bytes, at + 1)?;
            let raw_key = text.get(at..key_end).unwrap_or_default();
            let start = skip_colon(bytes, key_end)?;
            let end = skip_value(bytes, start, 1)?;
            let decoded = Text::decode(raw_key);
            members.push(Member {
                key_exact: matches!(decoded, Text::Exact(_)),
                key: decoded.into_lossy(),
                raw_key,
                raw: text.get(start..end).unwrap_or_default(),
            });
            match next(bytes, end, b'}')? {
                Some(after) => at = after,
                None => return Ok(Self { members }),
            }
        }
    }

    /// The raw text of the member `key`: of the last one, as in JavaScript, when there are several.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.members.iter().rev().find(|member| member.key_exact && member.key == key).map(|member| member.raw)
    }

    /// All members as the text has them: in its order, repeated names included.
    ///
    /// JavaScript's own order differs where names look like array indices: those come first there, in ascending order.
    pub fn members(&self) -> &[Member<'a>] {
        &self.members
    }
}

/// The raw texts of the elements of the array `text`, checking all of it on the way; whitespace around it is fine.
///
/// # Errors
/// When `text` is not valid JSON, as [`validate`](super::validate) has it, or not an array: then at the position of the
/// value's first character.
pub fn array(text: &str) -> Result<Vec<&str>, JsonError> {
    let bytes = text.as_bytes();
    let mut elements = Vec::new();
    let mut at = open(bytes, b'[')?;
    if bytes.get(at) == Some(&b']') {
        expect_end(bytes, at + 1)?;
        return Ok(elements);
    }
    loop {
        let end = skip_value(bytes, at, 1)?;
        elements.push(text.get(at..end).unwrap_or_default());
        match next(bytes, end, b']')? {
            Some(after) => at = after,
            None => return Ok(elements),
        }
    }
}

/// Checks that the text begins with `bracket`; the first place after it that is no whitespace.
fn open(text: &[u8], bracket: u8) -> Result<usize, JsonError> {
    let at = skip_space(text, 0);
    if text.get(at) != Some(&bracket) {
        return Err(unexpected(text, at));
    }
    Ok(skip_space(text, at + 1))
}

/// After a value that ended at `at`: where the next one begins, or `None` after the closing `bracket` and the end.
fn next(text: &[u8], at: usize, bracket: u8) -> Result<Option<usize>, JsonError> {
    let at = skip_space(text, at);
    match text.get(at) {
        Some(b',') => Ok(Some(skip_space(text, at + 1))),
        Some(byte) if *byte == bracket => expect_end(text, at + 1).map(|()| None),
        _ => Err(unexpected(text, at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{DEPTH_MAX, JsonFault};

    #[test]
    fn takes_objects_apart() {
        let text = " {\"a\" : [1, {\"b\":2} ] ,\n\"\\u0062\":1.0,\"a\":\"é\\ud800\",\"\\ud800\":null}\n";
        let object = Object::parse(text).unwrap();
        let seen: Vec<_> = object.members().iter().map(|m| (&*m.key, m.key_exact, m.raw_key, m.raw)).collect();
        assert_eq!(
            seen,
            [
                ("a", true, "\"a\"", "[1, {\"b\":2} ]"),
                ("b", true, "\"\\u0062\"", "1.0"),
                ("a", true, "\"a\"", "\"é\\ud800\""),
                ("\u{fffd}", false, "\"\\ud800\"", "null"),
            ]
        );
        assert_eq!(object.get("a"), Some("\"é\\ud800\""));
        assert_eq!(object.get("b"), Some("1.0"));
        assert_eq!(object.get("c"), None);
        assert_eq!(object.get("\u{fffd}"), None, "a lone surrogate is not U+FFFD");
        assert_eq!(Object::parse(" { } ").unwrap().members(), []);
    }

    #[test]
    fn takes_arrays_apart() {
        assert_eq!(array(" [1.0 , \"]\",[ ],{\"a\":[]} ] ").unwrap(), ["1.0", "\"]\"", "[ ]", "{\"a\":[]}"]);
        assert_eq!(array("[ ]").unwrap(), Vec::<&str>::new());
    }

    #[test]
    fn says_where_it_fails() {
        use JsonFault::{TooDeep, UnexpectedEnd, UnexpectedToken};
        for (text, what, offset) in [
            (" []", UnexpectedToken, 1),
            ("", UnexpectedEnd, 0),
            ("{\"a\":1,}", UnexpectedToken, 7),
            ("{\"a\":1} x", UnexpectedToken, 8),
            ("{} x", UnexpectedToken, 3),
            ("{\"a\"1}", UnexpectedToken, 4),
            ("{\"a\":1]", UnexpectedToken, 6),
            ("{\"a\":tru}", UnexpectedToken, 8),
            ("{\"a\":1", UnexpectedEnd, 6),
        ] {
            assert_eq!(Object::parse(text), Err(JsonError { offset, what }), "{text}");
        }
        assert_eq!(array("{}"), Err(JsonError { offset: 0, what: UnexpectedToken }));
        assert_eq!(array("[1,]"), Err(JsonError { offset: 3, what: UnexpectedToken }));
        assert_eq!(array("[1]]"), Err(JsonError { offset: 3, what: UnexpectedToken }));
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert_eq!(array(&deep), Err(JsonError { offset: DEPTH_MAX, what: TooDeep }));
    }

    #[test]
    fn tells_kinds() {
        for (text, expected) in [
            ("null", Kind::Null),
            (" true", Kind::Bool),
            ("false", Kind::Bool),
            ("-1", Kind::Number),
            ("\t7", Kind::Number),
            ("\"\"", Kind::String),
            ("[]", Kind::Array),
            ("\n {}", Kind::Object),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }
}
