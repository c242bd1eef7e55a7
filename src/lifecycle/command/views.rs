//! Sessions with what a person is shown of them.

use serde::Deserialize;

use super::read::{several, with_member};
use super::{answer, lines};
use crate::error::Result;
use crate::lifecycle::decide::status::{Silence, derive_status, derive_status_at};
use crate::lifecycle::model::{Millis, PrFacts, SessionRecord};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::sessions::Watched;
use crate::lifecycle::tables::{policies, prs, sessions};
use crate::lifecycle::words::{SeveralPrs, Word as _};

/// `view`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    id: String,
    /// Which pull request counts, unless the project says otherwise.
    several_prs: Option<SeveralPrs>,
    #[serde(flatten)]
    patience: Patience,
}

/// `views`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Views {
    project_id: String,
    /// As that of [`View`].
    several_prs: Option<SeveralPrs>,
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
        let Some(Watched { session, policy, .. }) = sessions::with_policy(sql, &self.id)? else {
            return Ok("null".to_owned());
        };
        let facts = prs::facts(sql, &self.id, several(policy.as_deref(), self.several_prs))?;
        view(&session, &facts, self.patience)
    }
}

impl Views {
    /// Reads the sessions of a project with their status, by number.
    ///
    /// # Errors
    /// What the database says.
    pub fn run(&self, sql: &mut dyn Sql) -> Result<String> {
        let none = PrFacts::default();
        let policy = policies::get(sql, &self.project_id)?;
        let facts = prs::facts_of_project(sql, &self.project_id, several(policy.as_deref(), self.several_prs))?;
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
