//! JSON strings: decoding and quoting.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::token::{skip_plain, skip_string};

/// A decoded JSON string. JavaScript's strings are UTF-16 and may hold lone surrogates, which no Rust string can.
pub(super) enum Text<'a> {
    /// Well-formed; borrowed when the text has no escapes.
    Exact(Cow<'a, str>),
    /// UTF-16 code units with a lone surrogate among them.
    Lone(Vec<u16>),
}

impl<'a> Text<'a> {
    /// Decodes a string text, quotes included, that is known to be valid.
    pub(super) fn decode(raw: &'a str) -> Self {
        let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
        if first_escape(inner).is_none() {
            return Self::Exact(Cow::Borrowed(inner));
        }
        let mut decoded = Decoded::Exact(String::with_capacity(inner.len()));
        let mut rest = inner;
        while let Some((plain, escape)) = first_escape(rest).and_then(|at| rest.split_at_checked(at)) {
            decoded.push_str(plain);
            let (unit, length) = read_escape(escape);
            let after = escape.get(length..).unwrap_or_default();
            // A high surrogate and the low one right after it are one character.
            let low = (0xd800..0xdc00).contains(&unit).then(|| read_low_surrogate(after)).flatten();
            decoded.push(unit, low);
            rest = if low.is_some() { after.get(6..).unwrap_or_default() } else { after };
        }
        decoded.push_str(rest);
        match decoded {
            Decoded::Exact(exact) => Self::Exact(Cow::Owned(exact)),
            Decoded::Units(units) => Self::Lone(units),
        }
    }

    /// The string; each lone surrogate becomes U+FFFD, as it does when JavaScript writes UTF-8.
    pub(super) fn into_lossy(self) -> Cow<'a, str> {
        match self {
            Self::Exact(text) => text,
            Self::Lone(units) => Cow::Owned(String::from_utf16_lossy(&units)),
        }
    }

    /// Appends the string as `JSON.stringify` prints it: lone surrogates as `\udXXX`.
    pub(super) fn quote_into(&self, out: &mut String) {
        match self {
            Self::Exact(text) => quote_into(text, out),
            Self::Lone(units) => {
                out.push('"');
                for unit in char::decode_utf16(units.iter().copied()) {
                    match unit {
                        Ok(character) => escape_into(character.encode_utf8(&mut [0; 4]), out),
                        Err(lone) => push_hex(lone.unpaired_surrogate(), out),
                    }
                }
                out.push('"');
            }
        }
    }

    /// Order by UTF-16 code units, as JavaScript's `<` on strings.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => compare_utf16(a, b),
            (Self::Lone(a), Self::Lone(b)) => a.cmp(b),
            (Self::Exact(a), Self::Lone(b)) => a.encode_utf16().cmp(b.iter().copied()),
            (Self::Lone(a), Self::Exact(b)) => a.iter().copied().cmp(b.encode_utf16()),
        }
    }
}

/// UTF-8 sorts as UTF-16 does, but for one thing: the surrogates (characters from U+10000 on, first byte 0xf0 and up)
/// come before U+E000..U+FFFF (first byte 0xee or 0xef).
fn compare_utf16(a: &str, b: &str) -> Ordering {
    match a.bytes().zip(b.bytes()).find(|(a, b)| a != b) {
        Some((a, b)) if (a >= 0xf0) != (b >= 0xf0) && a.min(b) >= 0xee => b.cmp(&a),
        Some((a, b)) => a.cmp(&b),
        None => a.len().cmp(&b.len()),
    }
}

/// A string being decoded: turns to code units at the first lone surrogate.
enum Decoded {
    Exact(String),
    Units(Vec<u16>),
}

impl Decoded {
    fn push_str(&mut self, text: &str) {
        match self {
            Self::Exact(exact) => exact.push_str(text),
            Self::Units(units) => units.extend(text.encode_utf16()),
        }
    }

    /// Adds the code unit of an escape, and the low surrogate that belongs to it.
    fn push(&mut self, unit: u16, low: Option<u16>) {
        match self {
            Self::Exact(exact) => match char::decode_utf16(std::iter::once(unit).chain(low)).next() {
                Some(Ok(character)) => exact.push(character),
                _ => {
                    let mut units: Vec<u16> = exact.encode_utf16().collect();
                    units.push(unit);
                    *self = Self::Units(units);
                }
            },
            Self::Units(units) => units.extend(std::iter::once(unit).chain(low)),
        }
    }
}

fn first_escape(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = skip_plain(bytes, 0);
    while at < bytes.len() && bytes.get(at) != Some(&b'\\') {
        at = skip_plain(bytes, at + 1);
    }
    (at < bytes.len()).then_some(at)
}

/// The code unit an escape stands for, and the escape's length in bytes.
fn read_escape(escape: &str) -> (u16, usize) {
    match escape.as_bytes().get(1) {
        Some(b'u') => {
            let digits = escape.get(2..6).unwrap_or_default();
            (u16::from_str_radix(digits, 16).unwrap_or(0xfffd), 6)
        }
        Some(b'b') => (0x08, 2),
        Some(b'f') => (0x0c, 2),
        Some(b'n') => (0x0a, 2),
        Some(b'r') => (0x0d, 2),
        Some(b't') => (0x09, 2),
        Some(other) => (u16::from(*other), 2),
        None => (0xfffd, 1),
    }
}

fn read_low_surrogate(text: &str) -> Option<u16> {
    let (unit, _) = text.starts_with("\\u").then(|| read_escape(text))?;
    (0xdc00..0xe000).contains(&unit).then_some(unit)
}

/// Decodes `raw`, the text of one JSON string with its quotes; whitespace around it is fine.
///
/// Lone surrogates become U+FFFD. `None` when the text is no JSON string.
pub fn string(raw: &str) -> Option<String> {
    let raw = trim(raw);
    let end = raw.starts_with('"').then(|| skip_string(raw.as_bytes(), 1).ok()).flatten()?;
    (end == raw.len()).then(|| Text::decode(raw).into_lossy().into_owned())
}

/// `raw` without the JSON whitespace around it.
pub(super) fn trim(raw: &str) -> &str {
    raw.trim_matches([' ', '\n', '\t', '\r'])
}

/// Prints a string as `JSON.stringify` does: escapes quotes, backslashes and control characters, and nothing else.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote_into(text, &mut out);
    out
}

/// Appends what [`quote`] gives to `out`.
pub fn quote_into(text: &str, out: &mut String) {
    out.push('"');
    escape_into(text, out);
    out.push('"');
}

fn escape_into(mut text: &str, out: &mut String) {
    while let Some((plain, rest)) = text.split_at_checked(skip_plain(text.as_bytes(), 0)) {
        out.push_str(plain);
        let Some(special) = rest.as_bytes().first() else { return };
        match special {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            0x0c => out.push_str("\\f"),
            b'\r' => out.push_str("\\r"),
            other => push_hex(u16::from(*other), out),
        }
        text = rest.get(1..).unwrap_or_default();
    }
}

fn push_hex(unit: u16, out: &mut String) {
    out.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        out.push(char::from_digit(u32::from(unit >> shift & 0xf), 16).unwrap_or('0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        for (raw, expected) in [
            (r#""""#, Some("")),
            (r#" "a" "#, Some("a")),
            (r#""\"\\\/\b\f\n\r\t""#, Some("\"\\/\u{8}\u{c}\n\r\t")),
            (r#""\u0041\u00e9\u20AC\ud83d\ude00!""#, Some("Aé€😀!")),
            (r#""x\ud800""#, Some("x\u{fffd}")),
            (r#""\ud800\ud83d\ude00""#, Some("\u{fffd}😀")),
            (r#""\ude00\ud83dé\n""#, Some("\u{fffd}\u{fffd}é\n")),
            (r#""\ud800\u0041""#, Some("\u{fffd}A")),
            (r#""\ud800\\udc00""#, Some("\u{fffd}\\udc00")),
            (r#""a"b"#, None),
            (r#""a"#, None),
            (r#""\x""#, None),
            ("\"\t\"", None),
            ("a", None),
            ("", None),
            ("\"", None),
        ] {
            assert_eq!(string(raw).as_deref(), expected, "{raw}");
        }
    }

    #[test]
    fn quotes_like_json_stringify() {
        assert_eq!(
            quote("\u{0}\u{7}\u{8}\t\n\u{b}\u{c}\r\u{1f} \"\\/\u{7f}\u{2028}é😀"),
            "\"\\u0000\\u0007\\b\\t\\n\\u000b\\f\\r\\u001f \\\"\\\\/\u{7f}\u{2028}é😀\""
        );
        assert_eq!(quote(""), "\"\"");
    }

    #[test]
    fn orders_by_code_units() {
        let sorted = [
            r#""""#,
            r#""A""#,
            r#""Z""#,
            r#""a""#,
            r#""é""#,
            r#""\ud7ff""#,
            r#""\ud800""#,
            r#""\ud800a""#,
            r#""\ud800\udc00""#,
            r#""😀""#,
            r#""\ud83e""#,
            r#""\udfff""#,
            r#""\ue000""#,
            r#""ﬀ""#,
            r#""\uffff""#,
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(Text::decode(a).compare(&Text::decode(b)), i.cmp(&j), "{a} {b}");
            }
        }
    }
}
