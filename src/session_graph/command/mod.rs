//! Everything that reads or writes is a command: the text of a JSON object whose member `do` names it, with bytes beside it where it
//! has some. One command is one transaction, or one snapshot.

mod read;
mod write;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

pub(crate) use read::Read;
pub(crate) use write::{Answer, Write};

use super::blob::{Profile, short_hash};
use super::commit::message::{self, Message};
use super::turn;
use crate::error::{Code, HfError, Result};

/// Longest id or key, in bytes of UTF-8.
const IDENTIFIER_MAX: usize = 1024;
/// Longest readable part of a file name.
const NAME_MAX: usize = 80;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "do", borrow)]
    name: Cow<'a, str>,
}

/// The name of a command.
pub(crate) fn name_of(text: &str) -> Result<Cow<'_, str>> {
    // As the facade writes it, the name is found without reading the rest.
    if let Some((name, _)) = text.strip_prefix("{\"do\":\"").and_then(|rest| rest.split_once('"'))
        && !name.contains('\\')
    {
        return Ok(Cow::Borrowed(name));
    }
    serde_json::from_str::<Head<'_>>(text).map(|head| head.name).map_err(|error| refused("a command", &error))
}

/// Reads the arguments of a command.
pub(crate) fn arguments<'a, T: Deserialize<'a>>(text: &'a str, name: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| refused(name, &error))
}

/// Reads a member that may be left out, and of which `null` is a value: for `deserialize_with`, beside `default`.
pub(crate) fn present<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// What is wrong with arguments, without the values that are in them.
pub(crate) fn refused(name: &str, error: &serde_json::Error) -> HfError {
    let text = error.to_string();
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
    let what = match missing {
        Some((field, _)) => format!("`{field}` is missing"),
        None => format!("a value is not what belongs there (at byte {})", error.column()),
    };
    HfError::new(Code::InvalidArgument, format!("{name}: {what}"))
}

pub(crate) fn unknown(name: &str) -> HfError {
    HfError::new(Code::InvalidArgument, format!("there is no command {name:?} of this kind; please report it"))
}

/// Requires an id or a key that can be stored.
pub(crate) fn identifier(argument: &str, text: &str) -> Result<()> {
    if !text.is_empty() && text.len() <= IDENTIFIER_MAX && !text.contains('\0') {
        return Ok(());
    }
    let message = format!("{argument} must have 1 to {IDENTIFIER_MAX} bytes of UTF-8 and no U+0000");
    Err(HfError::new(Code::InvalidArgument, message).with_field("argument", argument))
}

/// Computes the hash of a commit, as it is computed for one with a stamp; `text` is the facade's message.
///
/// # Errors
/// `HF_INVALID_ARGUMENT`.
pub fn turn_commit_hash(text: &str, execution_state: Option<Vec<u8>>) -> Result<String> {
    let mut message: Message<'_> = arguments(text, "turnCommitHash")?;
    let nodes = message::nodes(&message.nodes)?;
    let empty = arguments("{\"turnState\":null}", "turnCommitHash")?;
    let checkpoint = std::mem::replace(&mut message.checkpoint, empty);
    turn::hash(&message, &nodes, &checkpoint.ready(Profile::LowLatency, execution_state)?)
}

/// The name of the file of a session: what is readable of its id, and a hash of all of it.
#[must_use]
pub fn file_name(session_id: &str) -> String {
    let readable: String =
        session_id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect();
    let readable = readable.trim_matches('_');
    let readable = if readable.is_empty() { "session" } else { readable };
    // All of it is ASCII by now.
    let readable = readable.get(..NAME_MAX).unwrap_or(readable);
    format!("{readable}-{}.db", short_hash(session_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_safe_and_stable() {
        let name = file_name("../weird/session");
        assert!(name.starts_with("weird_session-") && name.ends_with(".db"), "{name}");
        assert_eq!(name, file_name("../weird/session"));
        assert_ne!(name, file_name("..\\weird/session"));
        assert!(file_name("...").starts_with("session-"));
        assert!(file_name("日本").starts_with("session-"));
        assert_eq!(file_name(&"a".repeat(500)).len(), 80 + 1 + 16 + 3);
    }
}
