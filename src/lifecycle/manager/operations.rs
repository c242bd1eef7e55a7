//! What takes more than one transaction: it is noted before its first step, so that whoever comes after a crash can finish
//! it or undo it.

use serde::{Deserialize, Serialize};

use crate::error::{Code, HfError, Result};
use crate::ids;
use crate::lifecycle::check;
use crate::lifecycle::model::{Metadata, Millis};
use crate::lifecycle::owners::Owners;
use crate::lifecycle::sql::Sql;
use crate::lifecycle::tables::operations::{self, Operation};
use crate::lifecycle::tables::sessions;
use crate::lifecycle::words::Word;

/// What is done with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Spawn,
    Kill,
    Restore,
    Cleanup,
    Stop,
}

impl Word for Kind {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Spawn, "spawn"),
        (Self::Kill, "kill"),
        (Self::Restore, "restore"),
        (Self::Cleanup, "cleanup"),
        (Self::Stop, "stop"),
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Kill => "kill",
            Self::Restore => "restore",
            Self::Cleanup => "cleanup",
            Self::Stop => "stop",
        }
    }
}

/// The command `begin`.
#[derive(Debug, Clone, Deserialize)]
pub struct Begin {
    /// The session.
    pub id: String,
    /// `spawn`, `kill`, `restore`, `cleanup` or `stop`.
    pub kind: String,
    /// The time.
    pub now: Millis,
}

/// What `begin` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// Names the operation.
    pub token: String,
}

/// The command `advance`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Advance {
    /// The operation.
    pub token: String,
    /// What is done next, or was done last: the caller's own word.
    pub step: String,
    /// The next step starts the runtime: names that start. What is reported of an earlier one no longer counts.
    pub launch_id: Option<String>,
    /// The session's runtime is gone.
    #[serde(default)]
    pub runtime_freed: bool,
    /// The time.
    pub now: Millis,
}

/// The command `end`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// The operation.
    pub token: String,
    /// The session's workspace is gone.
    #[serde(default)]
    pub freed: bool,
    /// The session's runtime is gone.
    #[serde(default)]
    pub runtime_freed: bool,
    /// The time.
    pub now: Millis,
}

/// The command `abandoned`.
#[derive(Debug, Clone, Deserialize)]
pub struct Abandoned {
    /// The time.
    pub now: Millis,
}

/// Notes that an operation begins. A kill may begin while a spawn runs; nothing else may meet another one whose owner lives.
///
/// # Errors
/// `HF_LIFECYCLE_SESSION_BUSY` if another one is under way, `HF_LIFECYCLE_SESSION_NOT_FOUND`, `HF_INVALID_ARGUMENT` for an
/// unknown kind.
pub fn begin(sql: &mut dyn Sql, owners: &dyn Owners, input: &Begin) -> Result<Begun> {
    let kind: Kind = check::argument("kind", &input.kind)?;
    if sessions::get_for_update(sql, &input.id)?.is_none() {
        let message = format!("get {}: session: not found", input.id);
        return Err(HfError::new(Code::LifecycleSessionNotFound, message).with_field("sessionId", input.id.as_str()));
    }
    for other in operations::of(sql, &input.id)? {
        let may_meet = kind == Kind::Kill && other.kind == Kind::Spawn.as_str();
        if !may_meet && (other.owner == owners.me() || !owners.is_dead(sql, &other.owner)?) {
            return Err(busy(kind.as_str(), &input.id));
        }
    }
    if kind == Kind::Restore {
        // Before the port brings the workspace back: one that a crash breaks off must still be found by a cleanup.
        sessions::set_workspace_freed(sql, &input.id, None)?;
    }
    let operation = Operation {
        token: ids::uuid(),
        session_id: input.id.clone(),
        kind: kind.as_str().to_owned(),
        step: String::new(),
        owner: owners.me().to_owned(),
    };
    operations::insert(sql, &operation, input.now)?;
    Ok(Begun { token: operation.token })
}

/// Notes how far an operation has come.
///
/// # Errors
/// `HF_LIFECYCLE_SESSION_BUSY` if it is not this store's any more: stop, and touch nothing else of the session.
pub fn advance(sql: &mut dyn Sql, owners: &dyn Owners, input: &Advance) -> Result<()> {
    let (token, me, launch_id) = (input.token.as_str(), owners.me(), input.launch_id.as_deref());
    // The session before the operation, as its deletion has them: in another order, two such transactions could wait for each other.
    if input.runtime_freed {
        sessions::set_runtime_freed_by(sql, token, me, input.now)?;
    }
    if let Some(launch_id) = launch_id {
        sessions::set_launch(sql, token, me, launch_id)?;
    }
    if operations::advance(sql, token, me, &input.step, launch_id, input.now)? {
        return Ok(());
    }
    let message =
        "session: the operation was ended, or taken over by another store; stop, and look at the session again";
    Err(HfError::new(Code::LifecycleSessionBusy, message))
}

/// Notes that an operation is over; nothing if it is not this store's any more.
///
/// # Errors
/// What the database says.
pub fn end(sql: &mut dyn Sql, owners: &dyn Owners, input: &End) -> Result<()> {
    let Some(operation) = operations::get(sql, &input.token, owners.me())? else {
        return Ok(());
    };
    if input.freed {
        sessions::set_workspace_freed(sql, &operation.session_id, Some(input.now))?;
    }
    if input.runtime_freed {
        sessions::set_runtime_freed(sql, &operation.session_id, input.now)?;
    }
    operations::delete(sql, &operation.token)
}

/// The command `workspaceBack`.
#[derive(Debug, Clone, Deserialize)]
pub struct WorkspaceBack {
    /// The session.
    pub id: String,
    /// Where its workspace is.
    pub path: String,
    /// Its branch.
    pub branch: String,
    /// The time.
    pub now: Millis,
}

/// Notes that an ended session has a workspace again, which came after the restore that asked for it; tells whether it was thought to
/// be gone meanwhile. Of a session that lives nothing is noted: it has one.
///
/// # Errors
/// What the database says.
pub fn workspace_back(sql: &mut dyn Sql, input: &WorkspaceBack) -> Result<bool> {
    let Some(before) = sessions::get_for_update(sql, &input.id)? else {
        return Ok(false);
    };
    if !before.lifecycle.state.is_terminal() {
        return Ok(false);
    }
    let mut after = before.clone();
    let (workspace_path, branch) = (input.path.clone(), input.branch.clone());
    if after.metadata.merge(Metadata { workspace_path, branch, ..Metadata::default() }) {
        after.updated_at = input.now;
        sessions::save_always(sql, &before, &after)?;
    }
    sessions::set_workspace_freed(sql, &input.id, None)
}

/// Finds the operations whose owners are gone, and makes them this store's, which has to finish or undo them.
///
/// # Errors
/// What the database and the owners say.
pub fn abandoned(sql: &mut dyn Sql, owners: &dyn Owners, input: &Abandoned) -> Result<Vec<Operation>> {
    let mut found = Vec::new();
    for operation in operations::of_others(sql, owners.me())? {
        if owners.is_dead(sql, &operation.owner)?
            && operations::take_over(sql, &operation.token, &operation.owner, owners.me(), input.now)?
        {
            found.push(operation);
        }
    }
    Ok(found)
}

fn busy(kind: &str, id: &str) -> HfError {
    let message = format!("{kind} {id}: session: another operation is in progress");
    HfError::new(Code::LifecycleSessionBusy, message).with_field("sessionId", id)
}
