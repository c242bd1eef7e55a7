//! What the observers of sessions cause: each function here runs in one immediate transaction, loads, decides, and stores
//! what differs. Messages are only chosen here; the caller sends them after the commit and tells how that went
//! ([`deliver::settle`]).

pub mod activity;
pub mod deliver;
pub mod escalate;
mod feedback;
pub mod killed;
mod memory;
pub mod operations;
pub mod policy;
pub mod pr;
mod react;
pub mod runtime;
mod signature;
pub mod spawned;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::decide::reaction::{Audience, Priority};
use super::model::SessionRecord;
use super::words::ReactionKey;

/// A message that is to be sent now, by whoever got it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// About which session.
    pub session_id: String,
    /// Of which project.
    pub project_id: String,
    /// Which reaction it belongs to.
    pub reaction: ReactionKey,
    /// Names this very hand-out, for [`deliver::settle`].
    pub token: String,
    /// Who is told.
    pub to: Audience,
    /// `reaction.<key>` or `reaction.escalated`
    #[serde(rename = "type")]
    pub event_type: String,
    /// How much it presses.
    pub priority: Priority,
    /// What is said.
    pub message: String,
}

/// What a command of the managers answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// What is to be sent, in this order. Nobody else sends it during the next 30 s.
    pub deliveries: Vec<Delivery>,
    /// For a kill: whether it is what ended the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub killed: Option<bool>,
}

impl Outcome {
    /// With messages to send.
    #[must_use]
    pub fn of(deliveries: Vec<Delivery>) -> Self {
        Self { deliveries, killed: None }
    }
}

/// Whether what is said is about another start of the session's runtime than the one that counts. Who names none means that one.
fn is_of_other_launch(session: &SessionRecord, launch_id: Option<&str>) -> bool {
    launch_id.is_some_and(|launch_id| launch_id != session.launch_id)
}
