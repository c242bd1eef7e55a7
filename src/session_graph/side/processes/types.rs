//! Types of events: what a process may say, and what follows from it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{bad_type, duplicate_type, empty, no_output};
use super::selector::Selector;
use crate::error::Result;
use crate::json;
use crate::session_graph::command::{identifier, refused};

/// Every process may be asked to end.
pub(super) const CANCEL_REQUESTED: &str = "process.cancel_requested";

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    Completed,
    Failed,
    Cancelled,
}

impl State {
    pub(super) const ALL: [Self; 3] = [Self::Completed, Self::Failed, Self::Cancelled];

    /// As it is stored and shown.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The type that every process has for it.
    pub(super) fn event_type(self) -> &'static str {
        match self {
            Self::Completed => "process.completed",
            Self::Failed => "process.failed",
            Self::Cancelled => "process.cancelled",
        }
    }

    /// The type of an output that says so.
    pub(super) fn output_type(self) -> &'static str {
        match self {
            Self::Completed => "success",
            Self::Failed => "failure",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    name: String,
    #[serde(borrow)]
    payload_schema: Option<&'a RawValue>,
    #[serde(borrow)]
    terminal: Option<TerminalMessage<'a>>,
    #[serde(borrow)]
    wake: Option<WakeMessage<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TerminalMessage<'a> {
    state: State,
    #[serde(borrow)]
    await_output: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WakeMessage<'a> {
    #[serde(borrow)]
    when: Option<&'a RawValue>,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(borrow)]
    dedupe_key: Option<&'a RawValue>,
}

/// A type of events.
#[derive(Debug)]
pub(super) struct EventType {
    pub(super) name: String,
    /// JSON.
    pub(super) schema: Option<String>,
    /// How the process ends with it, and what its output is; without a selector the payload.
    pub(super) terminal: Option<(State, Option<Selector>)>,
    pub(super) wake: Option<Wake>,
}

/// Whom an event wakes, and what it tells him.
#[derive(Debug)]
pub(super) struct Wake {
    pub(super) when: Option<Selector>,
    pub(super) input: Selector,
    /// `None`: the event's own identity.
    pub(super) dedupe_key: Option<Selector>,
}

impl EventType {
    /// Reads a declaration.
    pub(super) fn parse(raw: &str) -> Result<Self> {
        let message: Message<'_> = serde_json::from_str(raw).map_err(|error| refused("an event type", &error))?;
        let name = message.name;
        if name.is_empty() {
            return Err(empty("process event type name"));
        }
        identifier("eventTypes.name", &name)?;
        let selector = |what: &str, raw: &RawValue| {
            Selector::parse(raw.get()).map_err(|why| bad_type(&name, &format!("{what}: {why}")))
        };
        let terminal = match message.terminal {
            Some(terminal) => {
                let output = terminal.await_output.map(|raw| selector("terminal.awaitOutput", raw)).transpose()?;
                Some((terminal.state, output))
            }
            None => None,
        };
        let wake = match message.wake {
            Some(wake) => Some(Wake {
                when: wake.when.map(|raw| selector("wake.when", raw)).transpose()?,
                input: selector("wake.input", wake.input)?,
                dedupe_key: match wake.dedupe_key {
                    Some(raw) => dedupe_key(raw.get()).map_err(|why| bad_type(&name, &why))?,
                    None => None,
                },
            }),
            None => None,
        };
        Ok(Self { schema: message.payload_schema.map(|raw| raw.get().to_owned()), terminal, wake, name })
    }
}

/// `'eventIdentity'`, `{ selector }` or `{ const }`.
fn dedupe_key(raw: &str) -> std::result::Result<Option<Selector>, String> {
    if json::string(raw).as_deref() == Some("eventIdentity") {
        return Ok(None);
    }
    let object = json::Object::parse(raw).ok();
    match object.as_ref().map(json::Object::members) {
        Some([member]) if member.key == "selector" => {
            Selector::parse(member.raw).map(Some).map_err(|why| format!("wake.dedupeKey: {why}"))
        }
        Some([member]) if member.key == "const" => Ok(Some(Selector::Const(member.raw.to_owned()))),
        _ => Err("wake.dedupeKey must be 'eventIdentity', or an object with selector or const".to_owned()),
    }
}

/// The declarations of a process: those that were given, then those that every process has, as far as they are missing.
pub(super) fn completed(process: &str, given: &[&RawValue]) -> Result<Vec<(String, String)>> {
    let mut types: Vec<(String, String)> = Vec::with_capacity(given.len() + 4);
    for raw in given {
        let event_type = EventType::parse(raw.get())?;
        let name = event_type.name;
        if types.iter().any(|(known, _)| *known == name) {
            return Err(duplicate_type(process, &name));
        }
        if let Some((state @ (State::Failed | State::Cancelled), None)) = event_type.terminal {
            return Err(no_output(process, &name, state.name()));
        }
        let own = State::ALL.into_iter().find(|state| state.event_type() == name);
        let ends = event_type.terminal.map(|(state, _)| state);
        if own.is_some_and(|own| ends != Some(own)) || (name == CANCEL_REQUESTED && ends.is_some()) {
            return Err(bad_type(&name, "its name says how it ends a process: `terminal` must say the same"));
        }
        types.push((name, raw.get().to_owned()));
    }
    let mut add = |name: &str, text: String| {
        if !types.iter().any(|(known, _)| known == name) {
            types.push((name.to_owned(), text));
        }
    };
    add(CANCEL_REQUESTED, format!("{{\"name\":\"{CANCEL_REQUESTED}\"}}"));
    for state in State::ALL {
        let (name, state) = (state.event_type(), state.name());
        let terminal = format!("{{\"state\":\"{state}\",\"awaitOutput\":{{\"pointer\":\"/awaitOutput\"}}}}");
        add(name, format!("{{\"name\":\"{name}\",\"terminal\":{terminal}}}"));
    }
    Ok(types)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(given: &str) -> Result<Vec<String>> {
        let given: Vec<&RawValue> = serde_json::from_str(given).unwrap();
        completed("p", &given).map(|types| types.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn what_is_missing_is_added() {
        let own = ["process.cancel_requested", "process.completed", "process.failed", "process.cancelled"];
        assert_eq!(all("[]").unwrap(), own);
        let done = r#"{"name":"process.completed","terminal":{"state":"completed"}}"#;
        let wanted = ["process.completed", "a", "process.cancel_requested", "process.failed", "process.cancelled"];
        assert_eq!(all(&format!("[{done},{{\"name\":\"a\"}}]")).unwrap(), wanted);
        for (_, text) in completed("p", &[]).unwrap() {
            EventType::parse(&text).unwrap();
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (given, wanted) in [
            (r#"[{"name":"a"},{"name":"a"}]"#, "process `p` declares duplicate event type `a`"),
            (r#"[{"name":""}]"#, "process event type name must be a non-empty string"),
            (
                r#"[{"name":"a","terminal":{"state":"failed"}}]"#,
                "process `p` event type `a` is failed and requires awaitOutput",
            ),
            (
                r#"[{"name":"process.failed"}]"#,
                "event type `process.failed`: its name says how it ends a process: `terminal` must say the same",
            ),
            (
                r#"[{"name":"a","wake":{"input":"payload","dedupeKey":"x"}}]"#,
                "event type `a`: wake.dedupeKey must be 'eventIdentity', or an object with selector or const",
            ),
        ] {
            assert_eq!(all(given).unwrap_err().message(), wanted);
        }
    }
}
