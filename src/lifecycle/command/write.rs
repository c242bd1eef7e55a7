//! Commands that write.

use serde::Deserialize;

use super::{ByConsumer, ByUrl, Context, Nothing, answer, nothing, read};
use crate::error::{Code, HfError, Result};
use crate::lifecycle::check::{self, CheckInput, CommentInput, PrInput, ProjectInput, SessionInput};
use crate::lifecycle::manager::policy::PolicyInput;
use crate::lifecycle::manager::{activity, deliver, escalate, killed, operations, pr as pr_manager, runtime, spawned};
use crate::lifecycle::model::{Metadata, Millis, SessionRecord};
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::decisions::{self, Cause};
use crate::lifecycle::tables::{
    checks, comments, consumers, features, notifications, policies, projects, prs, prune, sessions,
};
use crate::lifecycle::words::MergeEnds;

super::commands! {
    /// A command that may write. It may be run again after its transaction was rolled back.
    Write {
        /// Stores a project.
        "upsertProject" => UpsertProject(UpsertProject),
        /// Marks a project as archived.
        "archiveProject" => ArchiveProject(ArchiveProject),
        /// Makes a session.
        "createSession" => CreateSession(CreateSession),
        /// Writes all of a session.
        "updateSession" => UpdateSession(UpdateSession),
        /// Merges handles into a session.
        "patchMetadata" => PatchMetadata(PatchMetadata),
        /// Removes a session.
        "deleteSession" => DeleteSession(DeleteSession),
        /// Stores a pull request.
        "upsertPr" => UpsertPr(UpsertPr),
        /// Removes a pull request.
        "deletePr" => DeletePr(ByUrl),
        /// Stores a pull request with its checks and comments.
        "writePrObservation" => WritePrObservation(WritePrObservation),
        /// Stores a run of a check.
        "recordCheck" => RecordCheck(RecordCheck),
        /// Replaces the comments of a pull request.
        "replacePrComments" => ReplacePrComments(ReplacePrComments),
        /// Removes old changes; one batch of them, the back end goes on.
        "prune" => Prune(Prune),
        /// Confirms changes.
        "ack" => Ack(Ack),
        /// Forgets a consumer.
        "deleteConsumer" => DeleteConsumer(ByConsumer),
        /// Makes a consumer known and reads what is there for it.
        "register" => Register(read::Consume),
        /// A probe's result.
        "observeRuntime" => ObserveRuntime(runtime::Observe),
        /// What an agent does.
        "observeActivity" => ObserveActivity(activity::Observe),
        /// What a pull request looks like.
        "observePr" => ObservePr(pr_manager::Observe),
        /// A session came up.
        "spawned" => Spawned(spawned::Spawned),
        /// A session is to end.
        "kill" => Kill(killed::Kill),
        /// Time has passed.
        "tick" => Tick(escalate::Tick),
        /// How a delivery went.
        "settle" => Settle(deliver::Settle),
        /// An operation begins.
        "begin" => Begin(operations::Begin),
        /// An operation goes on.
        "advance" => Advance(operations::Advance),
        /// An operation is over.
        "end" => End(operations::End),
        /// Takes over what dead stores left.
        "abandoned" => Abandoned(operations::Abandoned),
        /// Sets what people see of a session.
        "setDisplay" => SetDisplay(SetDisplay),
        /// Somebody saw notifications.
        "seeNotifications" => SeeNotifications(SeeNotifications),
        /// Somebody settled a notification.
        "resolveNotification" => ResolveNotification(ResolveNotification),
        /// Makes the log tell of more, for good.
        "invalidate" => Invalidate(Nothing),
        /// A workspace came back late.
        "workspaceBack" => WorkspaceBack(operations::WorkspaceBack),
        /// What a project wants otherwise about reactions.
        "setReactionPolicy" => SetReactionPolicy(SetReactionPolicy),
        /// Which merge ends a session.
        "setMergeEnds" => SetMergeEnds(SetMergeEnds),
    }
}

/// `upsertProject`
#[derive(Debug, Deserialize)]
pub struct UpsertProject {
    project: ProjectInput,
    now: Millis,
}

/// `archiveProject`
#[derive(Debug, Deserialize)]
pub struct ArchiveProject {
    id: String,
    at: Millis,
}

/// `createSession`
#[derive(Debug, Deserialize)]
pub struct CreateSession {
    session: SessionInput,
    now: Millis,
    /// Of two creations with the same one, the second answers with the session of the first.
    key: Option<String>,
    /// Also begins the operation `spawn`, whose token is `operationToken` of the answer.
    #[serde(default)]
    operation: bool,
    /// Which merge ends it; `None` = as the policy says.
    #[serde(rename = "mergeEnds")]
    merge_ends: Option<MergeEnds>,
}

/// `updateSession`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateSession {
    session: SessionInput,
    expected_revision: Option<i64>,
    now: Millis,
}

/// `patchMetadata`
#[derive(Debug, Deserialize)]
pub struct PatchMetadata {
    id: String,
    patch: Metadata,
    now: Millis,
}

/// `deleteSession`
#[derive(Debug, Deserialize)]
pub struct DeleteSession {
    id: String,
}

/// `upsertPr`
#[derive(Debug, Deserialize)]
pub struct UpsertPr {
    pr: PrInput,
    now: Millis,
}

/// `writePrObservation`
#[derive(Debug, Deserialize)]
pub struct WritePrObservation {
    pr: PrInput,
    #[serde(default)]
    checks: Vec<CheckInput>,
    #[serde(default)]
    comments: Vec<CommentInput>,
    now: Millis,
}

/// `recordCheck`
#[derive(Debug, Deserialize)]
pub struct RecordCheck {
    check: CheckInput,
    now: Millis,
}

/// `replacePrComments`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplacePrComments {
    pr_url: String,
    comments: Vec<CommentInput>,
    now: Millis,
}

/// `prune`
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Prune {
    /// What may go.
    #[serde(flatten)]
    pub limits: prune::Limits,
    /// The time.
    pub now: Millis,
}

/// `ack`
#[derive(Debug, Deserialize)]
pub struct Ack {
    consumer: String,
    seq: i64,
    now: Millis,
}

/// `setDisplay`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetDisplay {
    id: String,
    display_name: Option<String>,
    pinned: Option<bool>,
    now: Millis,
}

/// `seeNotifications`
#[derive(Debug, Deserialize)]
pub struct SeeNotifications {
    ids: Vec<i64>,
    at: Millis,
}

/// `resolveNotification`
#[derive(Debug, Deserialize)]
pub struct ResolveNotification {
    id: i64,
    now: Millis,
}

/// `setReactionPolicy`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetReactionPolicy {
    project_id: String,
    /// `None` = nothing.
    policy: Option<PolicyInput>,
}

/// `setMergeEnds`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetMergeEnds {
    id: String,
    /// `None` = as the policy says.
    merge_ends: Option<MergeEnds>,
}

impl Write {
    /// The time that the caller gave, if any.
    #[must_use]
    pub fn now(&self) -> Option<Millis> {
        match self {
            Write::UpsertProject(UpsertProject { now, .. })
            | Write::CreateSession(CreateSession { now, .. })
            | Write::UpdateSession(UpdateSession { now, .. })
            | Write::PatchMetadata(PatchMetadata { now, .. })
            | Write::UpsertPr(UpsertPr { now, .. })
            | Write::WritePrObservation(WritePrObservation { now, .. })
            | Write::RecordCheck(RecordCheck { now, .. })
            | Write::ReplacePrComments(ReplacePrComments { now, .. }) => Some(*now),
            Write::ObserveRuntime(observe) => Some(observe.now),
            Write::ObserveActivity(observe) => Some(observe.now),
            Write::ObservePr(observe) => Some(observe.now),
            Write::Spawned(spawned) => Some(spawned.now),
            Write::Kill(kill) => Some(kill.now),
            Write::Tick(tick) => Some(tick.now),
            _ => None,
        }
    }

    /// Runs the command in a transaction that others cannot write beside (of the rows concerned).
    ///
    /// # Errors
    /// Then the transaction must be rolled back.
    pub fn run(&self, sql: &mut dyn Sql, context: &Context<'_>) -> Result<String> {
        let owners = context.owners;
        match self {
            Write::UpsertProject(UpsertProject { project, now }) => {
                projects::upsert(sql, &project.clone().record(*now)?)?;
                Ok(nothing())
            }
            Write::ArchiveProject(ArchiveProject { id, at }) => {
                projects::archive(sql, id, *at)?;
                Ok(nothing())
            }
            Write::CreateSession(input) => input.run(sql, context),
            Write::UpdateSession(input) => input.run(sql, context),
            Write::PatchMetadata(input) => input.run(sql),
            Write::DeleteSession(DeleteSession { id }) => answer(&sessions::delete(sql, id)?),
            Write::UpsertPr(UpsertPr { pr, now }) => {
                prs::put(sql, &check::pr(pr.clone(), *now)?)?;
                Ok(nothing())
            }
            Write::DeletePr(ByUrl { url }) => answer(&prs::delete(sql, url)?),
            Write::WritePrObservation(input) => input.run(sql),
            Write::RecordCheck(RecordCheck { check: input, now }) => {
                let runs = checks::seen(&input.pr_url, vec![input.clone()], *now)?;
                checks::store(sql, &input.pr_url, &runs, *now)?;
                Ok(nothing())
            }
            Write::ReplacePrComments(ReplacePrComments { pr_url, comments, now }) => {
                comments::replace(sql, pr_url, comments, *now)?;
                Ok(nothing())
            }
            Write::Prune(prune) => {
                prune.check()?;
                answer(&prune::prune(sql, prune.limits, prune.now)?)
            }
            Write::Ack(Ack { consumer, seq, now }) => {
                consumers::ack(sql, consumer, *seq, *now)?;
                Ok(nothing())
            }
            Write::DeleteConsumer(ByConsumer { consumer }) => {
                consumers::delete(sql, consumer)?;
                Ok(nothing())
            }
            Write::Register(consume) => {
                consumers::register(sql, &consume.consumer, crate::clock::epoch_ms().cast_signed())?;
                Ok(consume.run(sql)?.unwrap_or_else(|| "[]".to_owned()))
            }
            Write::ObserveRuntime(input) => answer(&runtime::observe(sql, input)?),
            Write::ObserveActivity(input) => answer(&activity::observe(sql, input)?),
            Write::ObservePr(input) => answer(&pr_manager::observe(sql, input)?),
            Write::Spawned(input) => answer(&spawned::complete(sql, input)?),
            Write::Kill(input) => answer(&killed::kill(sql, input)?),
            Write::Tick(input) => answer(&escalate::tick(sql, input)?),
            Write::Settle(input) => {
                deliver::settle(sql, input)?;
                Ok(nothing())
            }
            Write::Begin(input) => answer(&operations::begin(sql, owners, input)?),
            Write::Advance(input) => {
                operations::advance(sql, owners, input)?;
                Ok(nothing())
            }
            Write::End(input) => {
                operations::end(sql, owners, input)?;
                Ok(nothing())
            }
            Write::Abandoned(input) => answer(&operations::abandoned(sql, owners, input)?),
            Write::SetDisplay(input) => input.run(sql),
            Write::SeeNotifications(SeeNotifications { ids, at }) => answer(&notifications::see(sql, ids, *at)?),
            Write::ResolveNotification(ResolveNotification { id, now }) => {
                answer(&notifications::resolve(sql, *id, *now)?)
            }
            Write::Invalidate(_) => {
                features::switch_on(sql, features::INVALIDATION)?;
                Ok(nothing())
            }
            Write::WorkspaceBack(input) => answer(&operations::workspace_back(sql, input)?),
            Write::SetReactionPolicy(input) => input.run(sql),
            Write::SetMergeEnds(SetMergeEnds { id, merge_ends }) => {
                if !sessions::set_merge_ends(sql, id, *merge_ends)? {
                    return Err(sessions::not_found("setMergeEnds", id));
                }
                Ok(nothing())
            }
        }
    }
}

impl CreateSession {
    fn run(&self, sql: &mut dyn Sql, context: &Context<'_>) -> Result<String> {
        let input = self.session.clone();
        if let Some(key) = &self.key
            && let Some(record) = sessions::by_key(sql, &input.project_id, key)?
        {
            return answer(&record);
        }
        let kind = input.kind()?;
        let created_at = input.created_at.unwrap_or(self.now);
        let new = sessions::New {
            kind,
            lifecycle: input.lifecycle.record(context.harnesses)?,
            project_id: input.project_id,
            issue_id: input.issue_id,
            metadata: input.metadata,
            created_at,
            updated_at: input.updated_at.unwrap_or(created_at),
            display_name: input.display_name.unwrap_or_default(),
            pinned: input.pinned.unwrap_or_default(),
        };
        let record = sessions::insert(sql, new)?;
        if let Some(key) = &self.key {
            sessions::set_key(sql, &record.project_id, key, &record.id)?;
        }
        if self.merge_ends.is_some() {
            sessions::set_merge_ends(sql, &record.id, self.merge_ends)?;
        }
        let text = answer(&record)?;
        if !self.operation {
            return Ok(text);
        }
        let begin = operations::Begin { id: record.id, kind: "spawn".to_owned(), now: self.now };
        let begun = operations::begin(sql, context.owners, &begin)?;
        read::with_member(text, "operationToken", &begun.token)
    }
}

impl UpdateSession {
    fn run(&self, sql: &mut dyn Sql, context: &Context<'_>) -> Result<String> {
        let input = self.session.clone();
        let Some(before) = sessions::get_for_update(sql, &input.id)? else {
            return Err(sessions::not_found("update", &input.id));
        };
        if let Some(expected) = self.expected_revision
            && expected != before.revision
        {
            return Err(sessions::stale(&before.id, expected, Some(before.revision)));
        }
        let after = SessionRecord {
            kind: input.kind()?,
            issue_id: input.issue_id,
            lifecycle: input.lifecycle.record(context.harnesses)?,
            metadata: input.metadata,
            updated_at: input.updated_at.unwrap_or(self.now),
            display_name: input.display_name.unwrap_or_else(|| before.display_name.clone()),
            pinned: input.pinned.unwrap_or(before.pinned),
            ..before.clone()
        };
        sessions::save_always(sql, &before, &after)?;
        decisions::note(sql, &before, &after, Cause::Update, || "record written by updateSession".to_owned())?;
        Ok(nothing())
    }
}

impl PatchMetadata {
    fn run(&self, sql: &mut dyn Sql) -> Result<String> {
        let Some(before) = sessions::get_for_update(sql, &self.id)? else {
            return Err(sessions::not_found("patch", &self.id));
        };
        let mut after = before.clone();
        if !after.metadata.merge(self.patch.clone()) {
            return answer(&before);
        }
        after.updated_at = self.now;
        sessions::save_always(sql, &before, &after)?;
        after.revision = before.revision + 1;
        answer(&after)
    }
}

impl SetDisplay {
    fn run(&self, sql: &mut dyn Sql) -> Result<String> {
        let Some(before) = sessions::get_for_update(sql, &self.id)? else {
            return Err(sessions::not_found("display", &self.id));
        };
        let mut after = before.clone();
        if let Some(name) = &self.display_name {
            after.display_name.clone_from(name);
        }
        after.pinned = self.pinned.unwrap_or(before.pinned);
        if after == before {
            return answer(&before);
        }
        after.updated_at = self.now;
        sessions::save_always(sql, &before, &after)?;
        after.revision = before.revision + 1;
        answer(&after)
    }
}

impl WritePrObservation {
    fn run(&self, sql: &mut dyn Sql) -> Result<String> {
        let dated = self.pr.updated_at.is_some();
        let pr = check::pr(self.pr.clone(), self.now)?;
        if dated {
            prs::put(sql, &pr)?
        } else {
            prs::upsert(sql, &pr)?
        }
        let runs = checks::seen(&pr.url, self.checks.clone(), self.now)?;
        checks::store(sql, &pr.url, &runs, self.now)?;
        comments::replace(sql, &pr.url, &self.comments, self.now)?;
        Ok(nothing())
    }
}

impl SetReactionPolicy {
    fn run(&self, sql: &mut dyn Sql) -> Result<String> {
        match &self.policy {
            None => policies::delete(sql, &self.project_id)?,
            Some(policy) => {
                policy.check()?;
                policies::put(sql, &self.project_id, &answer(policy)?, policy.escalate_after_ms)?;
            }
        }
        Ok(nothing())
    }
}

impl Prune {
    /// Refuses limits that mean nothing.
    fn check(&self) -> Result<()> {
        for (name, value) in [
            ("maxAgeMs", self.limits.max_age_ms),
            ("maxRows", self.limits.max_rows),
            ("notificationsMaxAgeMs", self.limits.notifications_max_age_ms),
        ] {
            if let Some(value) = value.filter(|value| *value < 0) {
                return Err(HfError::new(Code::InvalidArgument, format!("{name} must be 0 or more")).with_argument(
                    name,
                    "an integer of 0 or more",
                    &value.into(),
                ));
            }
        }
        Ok(())
    }
}
