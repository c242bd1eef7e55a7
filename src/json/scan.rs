//! Walks over JSON values: one pass, no recursion, no allocation below 65 levels of nesting.

use super::token::{skip_number, skip_space, skip_string, skip_word, unexpected};
use super::{JsonError, JsonFault};

/// How many arrays and objects may be open at once: 100,000.
///
/// The walk itself could go on; the bound keeps a hostile file from costing memory by its depth.
pub const DEPTH_MAX: usize = 100_000;

/// Whether `text` is one JSON text, as `JSON.parse` of V8 has it once the bytes are decoded as UTF-8.
///
/// Any value may stand at the top level; whitespace is space, tab, line feed and carriage return; a byte order mark is
/// an error. Lone surrogate escapes and numbers beyond the doubles are fine. Bytes that are not UTF-8 are fine inside
/// strings, where decoding makes them U+FFFD, and an error elsewhere.
///
/// # Errors
/// Says what is wrong and where, see [`JsonError`]. Nesting beyond [`DEPTH_MAX`] is an error, where V8 goes on.
pub fn validate(text: &[u8]) -> Result<(), JsonError> {
    let at = skip_value(text, skip_space(text, 0), 0)?;
    expect_end(text, at)
}

/// Nothing but whitespace may follow `at`.
pub(super) fn expect_end(text: &[u8], at: usize) -> Result<(), JsonError> {
    let at = skip_space(text, at);
    if at < text.len() { Err(unexpected(text, at)) } else { Ok(()) }
}

/// Checks a member's key, at `at`, and its colon; where the value begins.
#[inline(always)]
pub(super) fn skip_key(text: &[u8], at: usize) -> Result<usize, JsonError> {
    if text.get(at) != Some(&b'"') {
        return Err(unexpected(text, at));
    }
    let after = skip_string(text, at + 1)?;
    skip_colon(text, after)
}

/// Checks the colon after a key that ends at `at`; where the value begins.
#[inline(always)]
pub(super) fn skip_colon(text: &[u8], at: usize) -> Result<usize, JsonError> {
    let at = skip_space(text, at);
    if text.get(at) != Some(&b':') {
        return Err(unexpected(text, at));
    }
    Ok(skip_space(text, at + 1))
}

/// Checks the value that begins at `at`, under `depth` open arrays and objects; the place after it.
pub(super) fn skip_value(text: &[u8], mut at: usize, depth: usize) -> Result<usize, JsonError> {
    let mut open = Nesting::under(depth);
    loop {
        // A value begins here.
        match text.get(at) {
            Some(b'"') => at = skip_string(text, at + 1)?,
            Some(b'{') => {
                open.push(true, at)?;
                at = skip_space(text, at + 1);
                if text.get(at) != Some(&b'}') {
                    at = skip_key(text, at)?;
                    continue;
                }
                open.pop();
                at += 1;
            }
            Some(b'[') => {
                open.push(false, at)?;
                at = skip_space(text, at + 1);
                if text.get(at) != Some(&b']') {
                    continue;
                }
                open.pop();
                at += 1;
            }
            Some(b'-' | b'0'..=b'9') => at = skip_number(text, at)?,
            Some(b't') => at = skip_word(text, at, b"true")?,
            Some(b'f') => at = skip_word(text, at, b"false")?,
            Some(b'n') => at = skip_word(text, at, b"null")?,
            _ => return Err(unexpected(text, at)),
        }
        // A value ended here, and perhaps what holds it.
        loop {
            if open.depth == 0 {
                return Ok(at);
            }
            at = skip_space(text, at);
            match (text.get(at), open.in_object()) {
                (Some(b','), true) => {
                    at = skip_space(text, at + 1);
                    at = skip_key(text, at)?;
                    break;
                }
                (Some(b','), false) => {
                    at = skip_space(text, at + 1);
                    break;
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    open.pop();
                    at += 1;
                }
                _ => return Err(unexpected(text, at)),
            }
        }
    }
}

/// What is open around the walk: one bit a level, set for an object.
struct Nesting {
    /// The innermost levels; bit 0 is the innermost.
    word: u64,
    depth: usize,
    depth_max: usize,
    /// Full words further out.
    outer: Vec<u64>,
}

impl Nesting {
    fn under(depth: usize) -> Self {
        Self { word: 0, depth: 0, depth_max: DEPTH_MAX.saturating_sub(depth), outer: Vec::new() }
    }

    #[inline(always)]
    fn push(&mut self, object: bool, at: usize) -> Result<(), JsonError> {
        if self.depth >= self.depth_max {
            return Err(JsonError { offset: at, what: JsonFault::TooDeep });
        }
        if self.depth.is_multiple_of(64) && self.depth > 0 {
            self.outer.push(self.word);
        }
        self.word = self.word << 1 | u64::from(object);
        self.depth += 1;
        Ok(())
    }

    #[inline(always)]
    fn pop(&mut self) {
        self.depth -= 1;
        self.word >>= 1;
        if self.depth.is_multiple_of(64) && self.depth > 0 {
            self.word = self.outer.pop().unwrap_or_default();
        }
    }

    #[inline(always)]
    fn in_object(&self) -> bool {
        self.word & 1 == 1
    }
}
