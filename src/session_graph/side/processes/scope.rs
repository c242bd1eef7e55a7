//! Whose a process is: a session's, or a frame's of it.

use serde::Deserialize;

use super::error::empty;
use crate::error::{Code, HfError, Result};
use crate::json;

/// What stands between session and frame in an id.
const FRAME: &str = "/frame:";

/// A session, or a frame of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scope {
    pub(super) session_id: String,
    pub(super) agent_frame_id: Option<String>,
}

impl Scope {
    /// The id that is stored. Different scopes have different ones.
    pub(super) fn id(&self) -> Result<String> {
        if self.session_id.is_empty() || self.agent_frame_id.as_ref().is_some_and(String::is_empty) {
            return Err(empty("process scope"));
        }
        if self.session_id.contains(FRAME) {
            let message =
                format!("sessionId must not contain {FRAME}: it would be taken for a frame of another session");
            return Err(HfError::new(Code::InvalidArgument, message).with_field("argument", "sessionId"));
        }
        let session = &self.session_id;
        Ok(match &self.agent_frame_id {
            Some(frame) => format!("session:{session}{FRAME}{frame}"),
            None => format!("session:{session}"),
        })
    }

    /// As the facade writes it.
    pub(super) fn text(&self) -> String {
        format!("{{{}}}", members(&self.session_id, self.agent_frame_id.as_deref()))
    }
}

/// The members that tell a scope.
fn members(session: &str, frame: Option<&str>) -> String {
    let session = format!("\"sessionId\":{}", json::quote(session));
    frame.map_or(session.clone(), |frame| format!("{session},\"agentFrameId\":{}", json::quote(frame)))
}

/// The same of a stored id, whose session is known.
pub(super) fn stored_members(session: &str, scope_id: &str) -> String {
    let frame = scope_id
        .strip_prefix("session:")
        .and_then(|rest| rest.strip_prefix(session))
        .and_then(|rest| rest.strip_prefix(FRAME));
    members(session, frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(session: &str, frame: Option<&str>) -> Scope {
        Scope { session_id: session.to_owned(), agent_frame_id: frame.map(str::to_owned) }
    }

    #[test]
    fn ids_tell_scopes_apart_and_lead_back() {
        for (session, frame, wanted) in [
            ("s", None, "session:s"),
            ("s", Some("f"), "session:s/frame:f"),
            ("s", Some("a/frame:b"), "session:s/frame:a/frame:b"),
        ] {
            let scope = scope(session, frame);
            let id = scope.id().unwrap();
            assert_eq!(id, wanted);
            assert_eq!(format!("{{{}}}", stored_members(session, &id)), scope.text());
        }
        assert_eq!(scope("s/frame:a", Some("b")).id().unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(scope("", None).id().unwrap_err().code(), Code::GraphProcessRegistry);
        assert_eq!(scope("s", Some("")).id().unwrap_err().code(), Code::GraphProcessRegistry);
    }
}
