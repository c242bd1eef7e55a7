//! What somebody gets who waits for a process.

use super::types::State;
use crate::json::{self, Kind, Object};

/// Which end an output tells of; says what is wrong with it.
pub(super) fn state_of(raw: &str) -> Result<State, String> {
    let wrong = |what: &str| format!("must be {what}");
    let object = Object::parse(raw).map_err(|_| wrong("an object with a type"))?;
    let name = object.get("type").and_then(json::string);
    let state = State::ALL.into_iter().find(|state| name.as_deref() == Some(state.output_type()));
    let state = state.ok_or_else(|| wrong("of type success, failure or cancelled"))?;
    let texts: &[&str] = match state {
        State::Completed => &[],
        State::Failed => &["class", "code", "message"],
        State::Cancelled => &["message"],
    };
    let is_text = |name: &&str| object.get(name).is_some_and(|value| json::kind(value) == Kind::String);
    if !texts.iter().all(is_text) {
        return Err(wrong(&format!("one with the strings {}", texts.join(", "))));
    }
    if state == State::Completed && object.get("value").is_none() {
        return Err(wrong("one with a value"));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_told_by_their_type() {
        for (raw, wanted) in [
            (r#"{"type":"success","value":null}"#, Ok(State::Completed)),
            (r#"{"type":"failure","class":"c","code":"","message":"m","raw":1}"#, Ok(State::Failed)),
            (r#"{"type":"cancelled","message":"m"}"#, Ok(State::Cancelled)),
            (r#"{"type":"success"}"#, Err("must be one with a value")),
            (
                r#"{"type":"failure","class":"c","message":"m"}"#,
                Err("must be one with the strings class, code, message"),
            ),
            (r#"{"type":"cancelled","message":1}"#, Err("must be one with the strings message")),
            (r#"{"type":"ok","value":1}"#, Err("must be of type success, failure or cancelled")),
            ("[]", Err("must be an object with a type")),
        ] {
            assert_eq!(state_of(raw), wanted.map_err(str::to_owned), "{raw}");
        }
    }
}
