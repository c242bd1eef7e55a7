//! What a transition log can do, whatever database it lives in.

use std::sync::Arc;

use super::model::{
    Appended, Done, HistoryQuery, HistoryRow, Kind, Orphans, Outcome, PlainRow, Retention, Staged, Stats,
};
use crate::error::{Code, HfError, Result};

/// Gives a lock back.
pub type Unlock = Box<dyn FnOnce() + Send>;

/// Gets payloads of events, in order.
pub type Heard = Box<dyn Fn(Vec<String>) + Send + Sync>;

/// A transition log. Calls return at once; continuations run on a thread of the database engine.
pub trait Log: Send + Sync {
    /// Connects, and creates or checks the tables. Idempotent; a failed attempt can be repeated.
    fn open(&self, done: Done<()>);

    /// Whether a change of an entity that begins now can be recorded; to be asked before the owner writes.
    ///
    /// # Errors
    /// `HF_POISONED`, `HF_CLOSED`: nothing can be recorded any more. `HF_INVALID_ARGUMENT`: nothing of that entity.
    fn accepts(&self, kind: &str, entity_id: &str) -> Result<()>;

    /// Records the intent of a change, durably.
    fn begin(&self, staged: Arc<Staged>, done: Done<()>);

    /// Appends the rows of a change, durably; `None` if nothing had changed. Ends its intent either way.
    fn append(&self, staged: Arc<Staged>, outcome: Outcome, done: Done<Option<Appended>>);

    /// Ends the intent of a change that will not be appended, some time soon.
    fn forget(&self, staged: Arc<Staged>);

    /// Notes that events were taken, some time soon: after a crash in between they are delivered again.
    fn delivered(&self, change_ids: Vec<String>);

    /// Appends rows as they are, all or none, durably.
    fn append_rows(&self, rows: Vec<PlainRow>, now_ms: f64, done: Done<()>);

    /// Takes over what dead processes left of a kind.
    fn claim(&self, kind: Arc<Kind>, done: Done<Orphans>);

    /// When the latest row that leads to the value of `value` (JSON text) was written, in microseconds.
    fn in_state_since(&self, question: Question, value: String, done: Done<Option<i64>>);

    /// How many rows were written at or after `since_us`.
    fn transition_count(&self, question: Question, since_us: i64, done: Done<i64>);

    /// A page of the history.
    fn history(&self, query: HistoryQuery, done: Done<Vec<HistoryRow>>);

    /// Deletes what `retention` does not keep; the newest row of each field always stays.
    fn prune(&self, retention: Retention, now_ms: f64, done: Done<u64>);

    /// Counters.
    fn stats(&self, done: Done<Stats>);

    /// Keeps other processes from changing an entity until the result is called.
    fn lock_entity(&self, _kind: String, _entity_id: String, done: Done<Unlock>) {
        done(Err(HfError::new(
            Code::EntityStoreInputInvalid,
            "serialize: \"database\" needs a store of Postgres; an embedded store has no locks per entity",
        )));
    }

    /// Runs a query with one row of one text, before or after the log is open.
    fn probe(&self, _sql: String, done: Done<String>) {
        done(Err(HfError::new(Code::InvalidArgument, "an embedded log has no server to ask; please report it")));
    }

    /// Tells `heard` of changes that other processes record after `done`, as event payloads. An embedded log hears nothing.
    /// The log must be open. Where `done` gets an error, attempts go on.
    fn watch(&self, _heard: Heard, done: Done<()>) {
        done(Ok(()));
    }

    /// Finishes what is queued, then lets go of everything. Idempotent.
    fn close(&self, done: Done<()>);

    /// The same log for questions that are answered at once on the caller's thread, if its database is embedded.
    fn here(&self) -> Option<&dyn Here> {
        None
    }
}

/// Questions that take microseconds.
pub trait Here {
    /// As [`Log::in_state_since`].
    ///
    /// # Errors
    /// Where the database cannot be read.
    fn in_state_since(&self, question: &Question, value: &str) -> Result<Option<i64>>;

    /// As [`Log::transition_count`].
    ///
    /// # Errors
    /// Where the database cannot be read.
    fn transition_count(&self, question: &Question, since_us: i64) -> Result<i64>;
}

/// Which field of which entity.
#[derive(Debug, Clone)]
pub struct Question {
    /// The kind.
    pub kind: String,
    /// The entity.
    pub entity_id: String,
    /// The field.
    pub field: String,
}
