//! Texts that JavaScript cut in the middle of a character.

use std::borrow::Cow;

/// Replaces lone surrogates in a JSON text by U+FFFD. What a program cuts by length (the end of a log) has them, `JSON.stringify`
/// writes them as escapes, and no UTF-8 can hold them; to refuse an observation for one would be worse.
pub(super) fn mended(text: &str) -> Cow<'_, str> {
    // Pairs are not escaped, so that hardly any text has these at all.
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let length = match unit(escape) {
            Some(0xd800..0xdc00) if matches!(escape.get(6..).and_then(unit), Some(0xdc00..0xe000)) => 12,
            Some(0xd800..0xe000) => {
                out.push('\u{fffd}');
                rest = escape.get(6..).unwrap_or_default();
                continue;
            }
            // A backslash, and what it escapes.
            _ => 1 + escape.get(1..).and_then(|after| after.chars().next()).map_or(0, char::len_utf8),
        };
        let (kept, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        out.push_str(kept);
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The code unit of a `\uXXXX` at the beginning.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}
