//! The tokens of JSON: where each ends, and whether it is one.
//!
//! Places are byte offsets into the text. A place beyond the text is fine: nothing stands there.

use super::probe::{self, WIDTH};
use super::{JsonError, JsonFault};

/// The error for whatever stands at `at`, where something else was needed.
#[cold]
pub(super) fn unexpected(text: &[u8], at: usize) -> JsonError {
    let what = if at < text.len() { JsonFault::UnexpectedToken } else { JsonFault::UnexpectedEnd };
    JsonError { offset: at.min(text.len()), what }
}

/// The first place from `at` on that is no whitespace.
#[inline(always)]
pub(super) fn skip_space(text: &[u8], mut at: usize) -> usize {
    // Compact text has none, and after a colon there is mostly a single space.
    if !matches!(text.get(at), Some(b' ' | b'\n' | b'\t' | b'\r')) {
        return at;
    }
    loop {
        at += 1;
        match text.get(at) {
            Some(b' ') => at = skip_spaces(text, at),
            Some(b'\n' | b'\t' | b'\r') => continue,
            _ => return at,
        }
        if !matches!(text.get(at), Some(b'\n' | b'\t' | b'\r')) {
            return at;
        }
    }
}

/// The first place from `at` on that is no space.
#[inline(always)]
fn skip_spaces(text: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = probe::chunk(text, at) {
        let run = probe::spaces(chunk);
        at += run;
        if run < WIDTH {
            return at;
        }
    }
    while text.get(at) == Some(&b' ') {
        at += 1;
    }
    at
}

/// Checks the string whose opening quote is just before `at`; the place after its closing quote.
#[inline(always)]
pub(super) fn skip_string(text: &[u8], mut at: usize) -> Result<usize, JsonError> {
    loop {
        at = skip_plain(text, at);
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = skip_escape(text, at)?,
            Some(_) => {
                return Err(JsonError { offset: at, what: JsonFault::ControlCharacter });
            }
            None => return Err(unexpected(text, at)),
        }
    }
}

/// The first quote, backslash or control character from `at` on, or the end of the text.
#[inline(always)]
pub(super) fn skip_plain(text: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = probe::chunk(text, at) {
        let run = probe::plain(chunk);
        at += run;
        if run < WIDTH {
            return at;
        }
    }
    while text.get(at).is_some_and(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\') {
        at += 1;
    }
    at
}

/// Checks the escape whose backslash is at `at`; the place after it.
#[inline(always)]
fn skip_escape(text: &[u8], at: usize) -> Result<usize, JsonError> {
    match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => skip_hex(text, at + 2),
        Some(_) => Err(JsonError { offset: at + 1, what: JsonFault::BadEscape }),
        None => Err(unexpected(text, at + 1)),
    }
}

/// Checks the four hex digits of a `\u` escape.
fn skip_hex(text: &[u8], at: usize) -> Result<usize, JsonError> {
    for place in at..at + 4 {
        match text.get(place) {
            Some(byte) if byte.is_ascii_hexdigit() => {}
            Some(_) => {
                return Err(JsonError { offset: place, what: JsonFault::BadEscape });
            }
            None => return Err(unexpected(text, place)),
        }
    }
    Ok(at + 4)
}

/// Checks the number that begins at `at`; the place after it. What may follow is for the caller to check.
#[inline(always)]
pub(super) fn skip_number(text: &[u8], mut at: usize) -> Result<usize, JsonError> {
    if text.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match text.get(at) {
        Some(b'0') => at + 1,
        _ => skip_digits(text, at)?,
    };
    if text.get(at) == Some(&b'.') {
        at = skip_digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at = skip_digits(text, at + 1 + sign)?;
    }
    Ok(at)
}

/// One digit or more.
#[inline(always)]
fn skip_digits(text: &[u8], start: usize) -> Result<usize, JsonError> {
    let mut at = start;
    while let Some(chunk) = probe::chunk(text, at) {
        let run = probe::digits(chunk);
        at += run;
        if run < WIDTH {
            break;
        }
    }
    // The last bytes of the text, where no probe fits.
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    if at == start { Err(unexpected(text, at)) } else { Ok(at) }
}

/// Checks that `word` stands at `at`; the place after it.
pub(super) fn skip_word(text: &[u8], at: usize, word: &[u8]) -> Result<usize, JsonError> {
    if text.get(at..).is_some_and(|rest| rest.starts_with(word)) {
        return Ok(at + word.len());
    }
    let same = text.iter().skip(at).zip(word).take_while(|(have, want)| have == want).count();
    Err(unexpected(text, at + same))
}

/// The end of the token at `at`, for text known to be JSON: of a whole string, number or word, else of the one byte.
/// On other text the answer means little, but it is always beyond `at`.
#[inline(always)]
pub(super) fn token_end(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        Some(b'"') => string_end(text, at + 1),
        Some(b'{' | b'}' | b'[' | b']' | b',' | b':' | b' ' | b'\n' | b'\t' | b'\r') | None => at + 1,
        Some(_) => {
            let mut end = at + 1;
            while !matches!(text.get(end), None | Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r' | b'"')) {
                end += 1;
            }
            end
        }
    }
}

/// The place after the closing quote of a string whose opening quote is just before `at`.
#[inline(always)]
fn string_end(text: &[u8], mut at: usize) -> usize {
    loop {
        at = skip_plain(text, at);
        match text.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return text.len(),
        }
    }
}
