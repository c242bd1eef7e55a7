//! What can go wrong with a process, in the words of its users.

use crate::error::{Code, HfError};

fn refusal(message: String) -> HfError {
    HfError::new(Code::GraphProcessRegistry, message)
}

fn about(id: &str, message: String) -> HfError {
    refusal(message).with_field("processId", id)
}

pub(super) fn unknown(id: &str) -> HfError {
    about(id, format!("unknown process `{id}`"))
}

pub(super) fn registration_conflict(id: &str, existing: &str, new: &str) -> HfError {
    about(id, format!("process `{id}` registration hash conflict: existing {existing}, new {new}"))
}

pub(super) fn replay_conflict(id: &str, key: &str) -> HfError {
    about(id, format!("process `{id}` event replay key `{key}` conflicts with an existing event"))
        .with_field("replayKey", key)
}

pub(super) fn undeclared(id: &str, event_type: &str) -> HfError {
    about(id, format!("process `{id}` emitted undeclared event type `{event_type}`"))
        .with_field("eventType", event_type)
}

pub(super) fn needs_key(id: &str, event_type: &str) -> HfError {
    about(id, format!("process `{id}` event `{event_type}` requires a deterministic replay key"))
        .with_field("eventType", event_type)
}

pub(super) fn invalid_payload(id: &str, event_type: &str, why: &str) -> HfError {
    about(id, format!("invalid `{event_type}` payload: {why}")).with_field("eventType", event_type)
}

pub(super) fn terminal(id: &str) -> HfError {
    about(id, format!("process `{id}` is already terminal"))
}

pub(super) fn no_wake_target(id: &str, event_type: &str) -> HfError {
    about(id, format!("process `{id}` emitted wake event `{event_type}` without a wake target scope"))
        .with_field("eventType", event_type)
}

pub(super) fn no_match(pointer: &str) -> HfError {
    refusal(format!("payload pointer `{pointer}` did not match")).with_field("pointer", pointer)
}

pub(super) fn too_long(limit: usize) -> HfError {
    refusal(format!(
        "a template makes more than {limit} bytes of the payload of a process event: take less of it, or make the template shorter"
    ))
    .with_field("limit", limit as u64)
}

pub(super) fn leased(id: &str, owner: &str, until: i64) -> HfError {
    about(id, format!("process `{id}` is already leased by `{owner}` until {until}"))
        .with_field("ownerId", owner)
        .with_field("expiresAtEpochMs", until)
}

pub(super) fn lease_lost(id: &str) -> HfError {
    about(id, format!("process lease for `{id}` is missing or expired"))
}

pub(super) fn not_granted(id: &str, session: &str) -> HfError {
    about(id, format!("process handle `{id}` is not granted to session `{session}`")).with_field("sessionId", session)
}

pub(super) fn empty(what: &str) -> HfError {
    refusal(format!("{what} must be a non-empty string"))
}

pub(super) fn duplicate_type(id: &str, event_type: &str) -> HfError {
    about(id, format!("process `{id}` declares duplicate event type `{event_type}`"))
        .with_field("eventType", event_type)
}

pub(super) fn no_output(id: &str, event_type: &str, state: &str) -> HfError {
    about(id, format!("process `{id}` event type `{event_type}` is {state} and requires awaitOutput"))
        .with_field("eventType", event_type)
}

/// A part of an event type is not what it must be.
pub(super) fn bad_type(event_type: &str, what: &str) -> HfError {
    HfError::new(Code::InvalidArgument, format!("event type `{event_type}`: {what}"))
        .with_field("argument", "registration.eventTypes")
}
