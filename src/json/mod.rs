//! Lossless JSON: checks, takes apart and re-lays JSON texts without turning them into values.
//!
//! The text is the value here: numbers and strings that pass through keep every byte (`1e400`, `1.0`, `"\ud800"`),
//! which no parse-and-print round trip can promise. What counts as JSON, what a text means and how values are printed
//! follow `JSON.parse` and `JSON.stringify` of V8.
//!
//! - [`validate`]: is this JSON?
//! - [`Object`], [`array()`], [`kind`], [`string`], [`number`], [`integer`]: take one level apart, leave the rest raw text.
//! - [`pretty`], [`compact`]: change the whitespace only.
//! - [`quote`], [`number_text`]: print a string, a number.
//! - [`equal`], [`canonical()`]: compare as data.
//!
//! Nothing here recurses and nothing panics, whatever the input; nesting is bounded by [`DEPTH_MAX`].
//! Offsets and positions count bytes of UTF-8, from 0.

mod canonical;
mod layout;
mod number;
mod object;
mod probe;
mod scan;
mod text;
mod token;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tables;

use std::fmt;

pub use canonical::{canonical, equal};
pub use layout::{compact, pretty};
pub use number::{integer, number, number_text};
pub use object::{Kind, Member, Object, array, kind};
pub use scan::{DEPTH_MAX, validate};
pub use text::{quote, quote_into, string};

/// Why a text is not JSON, and where.
///
/// Displays as, for example, `Unexpected token at position 12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    /// Where the text stops being JSON: bytes from its start. The text's length when the text ends too early.
    pub offset: usize,
    /// What is wrong there.
    pub what: JsonFault,
}

/// What is wrong with a text that is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonFault {
    /// A byte that cannot stand there; also a byte order mark, a comment, or text after the value.
    UnexpectedToken,
    /// The text ends inside a value, or holds none.
    UnexpectedEnd,
    /// A raw control character (below U+0020) inside a string.
    ControlCharacter,
    /// A backslash followed by something that is no escape.
    BadEscape,
    /// Arrays and objects nested deeper than [`DEPTH_MAX`].
    TooDeep,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            JsonFault::UnexpectedToken => f.write_str("Unexpected token")?,
            JsonFault::UnexpectedEnd => f.write_str("Unexpected end of JSON")?,
            JsonFault::ControlCharacter => f.write_str("Control character in a string")?,
            JsonFault::BadEscape => f.write_str("Bad escape in a string")?,
            JsonFault::TooDeep => write!(f, "More than {DEPTH_MAX} levels of nesting")?,
        }
        write!(f, " at position {}", self.offset)
    }
}

impl std::error::Error for JsonError {}
