//! JSON strings as UTF-16 code units: what JavaScript's strings are made of, lone surrogates included.

use crate::json;

/// The code units of `raw`, the text of one JSON string with its quotes.
pub(super) fn decode(raw: &str) -> Vec<u16> {
    let mut rest = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    let mut units = Vec::with_capacity(rest.len());
    while let Some((plain, escape)) = rest.split_once('\\') {
        units.extend(plain.encode_utf16());
        let (unit, length) = match escape.as_bytes().first() {
            Some(b'u') => (escape.get(1..5).and_then(|hex| u16::from_str_radix(hex, 16).ok()).unwrap_or(0xfffd), 5),
            Some(b'b') => (0x08, 1),
            Some(b'f') => (0x0c, 1),
            Some(b'n') => (0x0a, 1),
            Some(b'r') => (0x0d, 1),
            Some(b't') => (0x09, 1),
            Some(other) => (u16::from(*other), 1),
            None => (0xfffd, 0),
        };
        units.push(unit);
        rest = escape.get(length..).unwrap_or_default();
    }
    units.extend(rest.encode_utf16());
    units
}

/// The JSON string of `units`, as `JSON.stringify` prints it: lone surrogates as `\udXXX`.
pub(super) fn quote(units: &[u16]) -> String {
    let mut out = String::with_capacity(units.len() + 2);
    let mut run = String::with_capacity(units.len());
    out.push('"');
    for part in char::decode_utf16(units.iter().copied()) {
        match part {
            Ok(character) => run.push(character),
            Err(lone) => {
                push_escaped(&run, &mut out);
                run.clear();
                out.push_str(&format!("\\u{:04x}", lone.unpaired_surrogate()));
            }
        }
    }
    push_escaped(&run, &mut out);
    out.push('"');
    out
}

fn push_escaped(run: &str, out: &mut String) {
    let quoted = json::quote(run);
    out.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
}

/// The place after the closing quote of the JSON string whose opening quote is at `at`.
pub(super) fn string_end(text: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        match rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            Some(run) if rest.get(run) == Some(&b'"') => return at + run + 1,
            Some(run) => at += run + 2,
            None => return text.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_and_quotes() {
        for (raw, units, printed) in [
            (r#""""#, vec![], r#""""#),
            (r#""a\"\\\/\b\f\n\r\té""#, "a\"\\/\u{8}\u{c}\n\r\té".encode_utf16().collect(), r#""a\"\\/\b\f\n\r\té""#),
            (r#""😀\ud83d\uDE00""#, vec![0xd83d, 0xde00, 0xd83d, 0xde00], r#""😀😀""#),
            (r#""x\uDE00\ud83dy\u0001""#, vec![0x78, 0xde00, 0xd83d, 0x79, 1], r#""x\ude00\ud83dy\u0001""#),
        ] {
            assert_eq!(decode(raw), units, "{raw}");
            assert_eq!(quote(&units), printed, "{raw}");
        }
    }

    #[test]
    fn finds_the_end_of_a_string() {
        for (text, end) in [(r#""" "#, 2), (r#""a\"b\\" ""#, 8), (r#""a"#, 2), ("\"a\\", 3)] {
            assert_eq!(string_end(text.as_bytes(), 0), end, "{text}");
        }
    }
}
