//! Sessions with what a person is shown of them.

use serde::Deserialize;

use super::read::with_member;
use super::{answer, lines};
use crate::error::Result;
use crate::lifecycle::decide::status::{Silence, derive_status, derive_status_at};
use crate::lifecycle::model::{Millis, PrFacts, SessionRecord};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::{prs, sessions};
use crate::lifecycle::words::Word as _;

/// `view`
#[derive(Debug, Deserialize)]
pub struct View {
    id: String,
    #[serde(flatten)]
    patience: Patience,
}

/// `views`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Views {
    project_id: String,
    #[serde(flatten)]
    patience: Patience,
}

/// How long agents may be silent; missing = for ever.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Patience {
    now: Option<Millis>,
    no_signal_after_ms: Option<Millis>,
}

impl View {
    /// Reads a session with its status; `null` if there is none.
    ///
    /// # Errors
    /// What the database says.
    pub fn run(&self, sql: &mut dyn Sql) -> Result<String> {
        match sessions::get(sql, &self.id)? {
            Some(session) => view(&session, &prs::facts(sql, &self.id)?, self.patience),
            None => Ok("null".to_owned()),
        }
    }
}

impl Views {
    /// Reads the sessions of a project with their status, by number.
    ///
    /// # Errors
    /// What the database says.
    pub fn run(&self, sql: &mut dyn Sql) -> Result<String> {
        let none = PrFacts::default();
        let facts = prs::facts_of_project(sql, &self.project_id)?;
        let sessions = sessions::of_project(sql, &self.project_id)?;
        lines(sessions.iter().map(|session| view(session, facts.get(&session.id).unwrap_or(&none), self.patience)))
    }
}

fn view(session: &SessionRecord, facts: &PrFacts, patience: Patience) -> Result<String> {
    let status = match (patience.now, patience.no_signal_after_ms) {
        (Some(now), Some(after_ms)) => {
            let silence = Silence { launched_at: session.launched_at, now, after_ms };
            derive_status_at(&session.lifecycle, facts, silence)
        }
        _ => derive_status(&session.lifecycle, facts),
    };
    with_member(answer(session)?, "status", status.as_str())
}
