//! Effects as the facade names them.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::json;
use crate::session_graph::command::present;
use crate::session_graph::side::hash::canonical_hash;

/// What effects belong to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scope {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) session_id: Option<String>,
    pub(super) id: String,
}

impl Scope {
    /// One text for each scope: equal ids of two sessions, or of two types, do not meet.
    pub(super) fn text(&self) -> String {
        let session = self.session_id.as_deref().map_or_else(|| "null".to_owned(), json::quote);
        format!("[{},{session},{}]", json::quote(&self.kind), json::quote(&self.id))
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match &self.session_id {
            Some(session) => format!("{} `{}` of session `{session}`", self.kind, self.id),
            None => format!("{} `{}`", self.kind, self.id),
        }
    }
}

/// Which effect.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Key {
    pub(super) scope: Scope,
    pub(super) replay_key: String,
}

/// Asks for an effect, with all that makes it what it is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked<'a> {
    pub(super) key: Key,
    /// `{ effectId, kind, replayKey, command }`
    #[serde(borrow)]
    pub(super) envelope: &'a RawValue,
    /// Whether what never happened must not happen now.
    pub(super) strict: bool,
}

impl Asked<'_> {
    /// The hash of the envelope, in hex.
    pub(super) fn hash(&self) -> Result<String> {
        canonical_hash(self.envelope.get())
    }
}

/// Asks to do it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Claim<'a> {
    #[serde(borrow)]
    pub(super) asked: Asked<'a>,
    pub(super) owner_id: String,
    pub(super) lease_ttl_ms: i64,
    /// How long a sleep lasts.
    pub(super) sleep_ms: Option<i64>,
}

/// What was claimed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Held {
    pub(super) key: Key,
    pub(super) lease_token: String,
}

/// A longer lease.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Renewal {
    pub(super) held: Held,
    pub(super) lease_ttl_ms: i64,
}

/// How it ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct End<'a> {
    pub(super) held: Held,
    /// The outcome or the error; absent where there is none.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) result: Option<&'a RawValue>,
}

/// What is not needed any more.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Prune {
    pub(super) older_than_ms: i64,
    pub(super) scope: Option<Scope>,
    pub(super) limit: i64,
}
