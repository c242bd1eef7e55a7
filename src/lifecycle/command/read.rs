//! Commands that read.

use serde::{Deserialize, Serialize};

use super::views::{View, Views};
use super::{ByConsumer, ById, ByUrl, Nothing, answer, answers, limit, lines};
use crate::error::{Code, HfError, Result};
use crate::json;
use crate::lifecycle::manager::policy::PolicyInput;
use crate::lifecycle::model::SessionRecord;
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::{
    changes, checks, comments, consumers, decisions, list, notifications, number, policies, projects, prs, sessions,
};
use crate::lifecycle::words::SeveralPrs;

super::commands! {
    /// A command that writes nothing.
    Read {
        /// A project, archived or not.
        "project" => Project(ById),
        /// The active projects.
        "projects" => Projects(Nothing),
        /// A session.
        "session" => Session(ById),
        /// The sessions of a project.
        "sessions" => Sessions(OfProject),
        /// All sessions.
        "allSessions" => AllSessions(Nothing),
        /// The sessions that have not ended.
        "running" => Running(Running),
        /// The sessions of a project that have ended and still have a workspace.
        "reclaimable" => Reclaimable(OfProject),
        /// A session with its status.
        "view" => View(View),
        /// The sessions of a project with their status.
        "views" => Views(Views),
        /// A pull request.
        "pr" => Pr(ByUrl),
        /// The pull requests of a session.
        "prsOfSession" => PrsOfSession(ById),
        /// What is known of the pull request that counts for a session.
        "prFacts" => Facts(ById),
        /// How the last runs of a check went.
        "recentChecks" => RecentChecks(RecentChecks),
        /// All runs of the checks of a pull request.
        "checks" => Checks(ByUrl),
        /// The comments of a pull request.
        "comments" => Comments(ByUrl),
        /// Changes after a number.
        "changes" => Changes(Changes),
        /// The highest number of a change.
        "head" => Head(Nothing),
        /// The number of the oldest change that is still there.
        "oldest" => Oldest(Nothing),
        /// Changes that a consumer has not confirmed.
        "consume" => Consume(Consume),
        /// How far a consumer has come.
        "offset" => Offset(ByConsumer),
        /// Figures.
        "stats" => Stats(Nothing),
        /// What is wrong with the stored data.
        "check" => Check(Nothing),
        /// The changes of a session, and the decisions about it.
        "timeline" => Timeline(ById),
        /// Notifications, newest first.
        "notifications" => Notifications(Notifications),
        /// How many notifications wait for somebody.
        "notificationCounts" => NotificationCounts(NotificationCounts),
        /// A session with what operations need to know of it.
        "found" => Found(ById),
        /// The sessions that can be stopped: those that run, and stopped ones whose runtime may be there.
        "stoppable" => Stoppable(OfSome),
        /// The sessions that were stopped in order to be resumed.
        "stopped" => Stopped(OfSome),
        /// What a project wants otherwise about reactions.
        "reactionPolicy" => ReactionPolicy(OfProject),
        /// Which merge ends a session.
        "mergeEnds" => MergeEnds(ById),
    }
}

/// Of which project.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfProject {
    project_id: String,
}

/// Of one project, or of all.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfSome {
    project_id: Option<String>,
}

impl OfSome {
    fn has(&self, session: &SessionRecord) -> bool {
        self.project_id.as_ref().is_none_or(|project_id| *project_id == session.project_id)
    }
}

/// `running`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Leave prompts empty, and unread.
    #[serde(default)]
    without_prompts: bool,
}

/// `found`
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    runtime_freed: bool,
    stopped: bool,
    #[serde(flatten)]
    session: SessionRecord,
}

/// `recentChecks`
#[derive(Debug, Deserialize)]
pub struct RecentChecks {
    url: String,
    name: String,
    limit: Option<i64>,
}

/// `changes`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    after: i64,
    limit: Option<i64>,
    project_id: Option<String>,
}

/// `consume`
#[derive(Debug, Clone, Deserialize)]
pub struct Consume {
    /// The consumer.
    pub consumer: String,
    /// At most so many; 512.
    pub limit: Option<i64>,
}

impl Consume {
    /// Reads what the consumer has not confirmed; `None` if nobody knows it.
    ///
    /// # Errors
    /// `HF_LIFECYCLE_CHANGE_LOG_TRUNCATED`, and what the database says.
    pub fn run(&self, sql: &mut dyn Sql) -> Result<Option<String>> {
        consumers::read(sql, &self.consumer, limit(self.limit, changes::LIMIT)?)
    }
}

/// `notifications`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notifications {
    project_id: Option<String>,
    session_id: Option<String>,
    #[serde(default)]
    unresolved: bool,
    #[serde(default)]
    unseen: bool,
    limit: Option<i64>,
    before: Option<i64>,
}

impl Notifications {
    /// At most so many at a time, whatever is asked for.
    const MOST: i64 = 1000;

    fn run(&self, sql: &mut dyn Sql) -> Result<Vec<notifications::Notification>> {
        let filter = notifications::Filter {
            project_id: self.project_id.as_deref(),
            session_id: self.session_id.as_deref(),
            unresolved: self.unresolved,
            unseen: self.unseen,
            before: self.before,
        };
        notifications::find(sql, filter, limit(self.limit, 100)?.min(Self::MOST))
    }
}

/// `notificationCounts`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationCounts {
    project_id: Option<String>,
}

/// Figures that the tables tell.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    projects: i64,
    sessions: i64,
    running: i64,
    head: i64,
    oldest: i64,
    /// Between the oldest and the head; not counted one by one.
    changes: i64,
    consumers: Vec<Lag>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lag {
    #[serde(flatten)]
    consumer: consumers::Consumer,
    /// Changes that it has not confirmed.
    lag: i64,
}

impl Read {
    /// Runs the command in a snapshot. `None` only of `consume`, for a consumer that has to be made known first.
    ///
    /// # Errors
    /// What the database says.
    pub fn run(&self, sql: &mut dyn Sql) -> Result<Option<String>> {
        let text = match self {
            Read::Project(ById { id }) => answer(&projects::get(sql, id)?),
            Read::Projects(_) => answers(&projects::active(sql)?),
            Read::Session(ById { id }) => answer(&sessions::get(sql, id)?),
            Read::Sessions(OfProject { project_id }) => answers(&sessions::of_project(sql, project_id)?),
            Read::AllSessions(_) => answers(&sessions::all(sql)?),
            Read::Running(Running { without_prompts: false }) => answers(&sessions::running(sql)?),
            Read::Running(_) => answers(&sessions::running_without_prompts(sql)?),
            Read::Reclaimable(OfProject { project_id }) => answers(&sessions::reclaimable(sql, project_id)?),
            Read::View(view) => view.run(sql),
            Read::Views(views) => views.run(sql),
            Read::Pr(ByUrl { url }) => answer(&prs::get(sql, url)?),
            Read::PrsOfSession(ById { id }) => answers(&prs::of_session(sql, id)?),
            Read::Facts(ById { id }) => {
                let policy = policies::of_session(sql, id)?;
                answer(&prs::facts(sql, id, several(policy.as_deref(), None))?)
            }
            Read::RecentChecks(input) => {
                answer(&checks::recent(sql, &input.url, &input.name, limit(input.limit, changes::LIMIT)?)?)
            }
            Read::Checks(ByUrl { url }) => answers(&checks::of(sql, url)?),
            Read::Comments(ByUrl { url }) => answers(&comments::of(sql, url)?),
            Read::Changes(input) => {
                changes::after(sql, input.after, limit(input.limit, changes::LIMIT)?, input.project_id.as_deref())
            }
            Read::Head(_) => answer(&changes::head(sql)?),
            Read::Oldest(_) => answer(&changes::oldest(sql)?),
            Read::Consume(consume) => return consume.run(sql),
            Read::Offset(ByConsumer { consumer }) => answer(&consumers::offset(sql, consumer)?.unwrap_or(0)),
            Read::Stats(_) => stats(sql),
            Read::Check(_) => answer(&check(sql)?),
            Read::Timeline(ById { id }) => {
                let project = id.rsplit_once('-').map_or(id.as_str(), |(project, _)| project);
                timeline(sql, project, id)
            }
            Read::Notifications(input) => answers(&input.run(sql)?),
            Read::NotificationCounts(NotificationCounts { project_id }) => {
                answer(&notifications::counts(sql, project_id.as_deref())?)
            }
            Read::Found(ById { id }) => answer(&sessions::get(sql, id)?.map(|session| Found {
                runtime_freed: session.runtime_freed,
                stopped: session.stopped,
                session,
            })),
            Read::Stoppable(some) => {
                let mut all = sessions::running_without_prompts(sql)?;
                let stopped = sessions::stopped(sql)?;
                all.extend(
                    stopped
                        .into_iter()
                        .filter(|session| !session.runtime_freed && !session.metadata.runtime_handle_id.is_empty()),
                );
                all.retain(|session| some.has(session));
                answers(&all)
            }
            Read::Stopped(some) => {
                let mut all = sessions::stopped(sql)?;
                all.retain(|session| some.has(session));
                answers(&all)
            }
            Read::ReactionPolicy(OfProject { project_id }) => {
                answer(&policies::get(sql, project_id)?.as_deref().map(PolicyInput::stored))
            }
            Read::MergeEnds(ById { id }) => answer(&sessions::merge_ends(sql, id)?),
        };
        text.map(Some)
    }
}

/// Adds a member to the text of an object.
pub(super) fn with_member(mut object: String, name: &str, value: &str) -> Result<String> {
    if object.pop() != Some('}') {
        return Err(HfError::new(Code::Panic, "an answer is no object; please report it"));
    }
    object.push(',');
    json::quote_into(name, &mut object);
    object.push(':');
    json::quote_into(value, &mut object);
    object.push('}');
    Ok(object)
}

/// Which pull request counts: as the project has stored, else as whoever asks wants it.
pub(super) fn several(stored: Option<&str>, asked: Option<SeveralPrs>) -> SeveralPrs {
    stored.and_then(|text| PolicyInput::stored(text).several_prs).or(asked).unwrap_or_default()
}

fn stats(sql: &mut dyn Sql) -> Result<String> {
    const DOING: &str = "count";
    let (head, oldest) = (changes::head(sql)?, changes::oldest(sql)?);
    let consumers = consumers::all(sql)?;
    answer(&Figures {
        projects: number(sql, DOING, "SELECT count(*) FROM projects", &[])?,
        sessions: number(sql, DOING, "SELECT count(*) FROM sessions", &[])?,
        running: number(
            sql,
            DOING,
            "SELECT count(*) FROM sessions WHERE session_state NOT IN ('done', 'terminated')",
            &[],
        )?,
        head,
        oldest,
        changes: if oldest == 0 { 0 } else { head - oldest + 1 },
        consumers: consumers.into_iter().map(|consumer| Lag { lag: head - consumer.acked_seq, consumer }).collect(),
    })
}

/// Puts each decision after the changes that were there when it was made: its own is the last of them.
fn timeline(sql: &mut dyn Sql, project_id: &str, session_id: &str) -> Result<String> {
    let mut decisions = decisions::of_session(sql, project_id, session_id)?.into_iter().peekable();
    let mut entries = Vec::new();
    for change in changes::of_session(sql, project_id, session_id)? {
        while let Some(decision) = decisions.next_if(|(log_seq, _)| *log_seq < change.0) {
            entries.push(decision);
        }
        entries.push(change);
    }
    entries.extend(decisions);
    lines(entries.into_iter().map(|(_, text)| Ok(text)))
}

/// What the tables' own rules cannot see.
fn check(sql: &mut dyn Sql) -> Result<Vec<String>> {
    list(
        sql,
        "check the numbers of sessions",
        "SELECT p.id FROM projects p WHERE p.last_session_num < (SELECT max(s.num) FROM sessions s WHERE s.project_id = p.id) \
         ORDER BY p.id LIMIT 100",
        &[],
        |row| Ok(format!("project {}: its last number is smaller than that of a session", row.text(0)?)),
    )
}
