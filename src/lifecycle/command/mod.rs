//! Everything that reads or writes is a command: the text of a JSON object whose member `do` names it. One command is one
//! transaction; the answer is JSON text too.

mod mended;
mod read;
#[cfg(test)]
mod tests;
mod views;
mod write;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use read::Read;
pub use write::Write;

use super::owners::Owners;
use crate::error::{Code, HfError, Result};

/// What commands need besides a transaction.
pub struct Context<'a> {
    /// Who is alive.
    pub owners: &'a dyn Owners,
    /// Agents that were named when the store was opened.
    pub harnesses: &'a [String],
}

/// Makes the enum of some commands: each has a name and the type of its arguments.
macro_rules! commands {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $command:literal => $variant:ident($arguments:ty),)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name { $($(#[$vdoc])* $variant($arguments),)* }

        impl $name {
            /// Reads a command.
            ///
            /// # Errors
            /// `HF_INVALID_ARGUMENT` for an unknown one, or wrong arguments; no value is quoted.
            pub fn parse(text: &str) -> Result<Self> {
                let text = &*super::mended::mended(text);
                match super::name_of(text)?.as_ref() {
                    $($command => super::arguments(text, $command).map(Self::$variant),)*
                    other => Err(super::unknown(other)),
                }
            }
        }
    };
}
use commands;

/// Nothing is needed to know.
#[derive(Debug, Deserialize)]
pub struct Nothing {}

/// Which one.
#[derive(Debug, Deserialize)]
pub struct ById {
    /// Its id.
    pub id: String,
}

/// Which pull request.
#[derive(Debug, Deserialize)]
pub struct ByUrl {
    /// Its address.
    pub url: String,
}

/// Which consumer.
#[derive(Debug, Deserialize)]
pub struct ByConsumer {
    /// Its name.
    pub consumer: String,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "do", borrow)]
    name: Cow<'a, str>,
}

fn name_of(text: &str) -> Result<Cow<'_, str>> {
    // As the facade writes it, the name is found without reading the rest.
    if let Some((name, _)) = text.strip_prefix("{\"do\":\"").and_then(|rest| rest.split_once('"'))
        && !name.contains('\\')
    {
        return Ok(Cow::Borrowed(name));
    }
    serde_json::from_str::<Head<'_>>(text).map(|head| head.name).map_err(|error| refused("a command", &error))
}

fn arguments<'a, T: Deserialize<'a>>(text: &'a str, name: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| refused(name, &error))
}

fn unknown(name: &str) -> HfError {
    HfError::new(Code::InvalidArgument, format!("there is no command {name:?} of this kind; please report it"))
}

/// What is wrong with arguments, without the values that are in them.
fn refused(name: &str, error: &serde_json::Error) -> HfError {
    let text = error.to_string();
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
    let what = match missing {
        Some((field, _)) => format!("`{field}` is missing"),
        None if error.is_data() => match text.rsplit_once(", expected ") {
            Some((_, expected)) => {
                let expected = expected.split(" at line ").next().unwrap_or_default();
                format!("a value has the wrong type, expected {expected} (at byte {})", error.column())
            }
            None => format!("a value is out of range (at byte {})", error.column()),
        },
        None => format!(
            "the text is no JSON that can be read (at byte {}); lone surrogates are not allowed",
            error.column()
        ),
    };
    HfError::new(Code::InvalidArgument, format!("{name}: {what}"))
}

fn answer<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| HfError::new(Code::Panic, format!("an answer has no text: {error}")))
}

/// Makes an array of the texts of its elements, each on a line of its own, so that a long one can be read piece by piece: no text
/// of an element has a line break.
fn lines(elements: impl Iterator<Item = Result<String>>) -> Result<String> {
    let mut out = String::from("[");
    for element in elements {
        if out.len() > 1 {
            out.push_str(",\n");
        }
        out.push_str(&element?);
    }
    out.push(']');
    Ok(out)
}

fn answers<T: Serialize>(values: &[T]) -> Result<String> {
    lines(values.iter().map(answer))
}

fn nothing() -> String {
    "null".to_owned()
}

fn limit(limit: Option<i64>, default: i64) -> Result<i64> {
    let limit = limit.unwrap_or(default);
    if limit >= 0 {
        return Ok(limit);
    }
    Err(HfError::new(Code::InvalidArgument, "limit must be 0 or more").with_argument(
        "limit",
        "an integer of 0 or more",
        &limit.into(),
    ))
}
