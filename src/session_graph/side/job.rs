//! One command in the writer's line.

use std::sync::Arc;

use rusqlite::Connection;

use super::kind::Kind;
use super::signal::Signal;
use crate::error::Result;
use crate::session_graph::backend::Done;
use crate::session_graph::backend::sqlite::open::is_refusal;
use crate::session_graph::command::name_of;
use crate::session_graph::error::bug;
use crate::session_graph::sql::sqlite::Sqlite;
use crate::sqlite::WriteJob;

/// A command on its way.
pub(super) struct Job {
    kind: Kind,
    command: String,
    signal: Arc<Signal>,
    answer: Option<Result<String>>,
    has_changed: bool,
    done: Done<String>,
}

impl Job {
    pub(super) fn new(kind: Kind, command: String, signal: &Arc<Signal>, done: Done<String>) -> Self {
        Self { kind, command, signal: Arc::clone(signal), answer: None, has_changed: false, done }
    }
}

impl WriteJob for Job {
    fn run(&mut self, db: &Connection) -> Result<()> {
        self.answer = None;
        let before = db.total_changes();
        let answer = name_of(&self.command).and_then(|name| self.kind.write(&mut Sqlite(db), &name, &self.command));
        self.has_changed = db.total_changes() != before;
        match answer {
            Err(error) if self.has_changed || !is_refusal(&error) => Err(error),
            // A refusal that changed nothing need not undo what others did in the same transaction.
            answer => {
                self.answer = Some(answer);
                Ok(())
            }
        }
    }

    fn done(self: Box<Self>, outcome: Result<()>) {
        let Self { signal, answer, has_changed, done, .. } = *self;
        if outcome.is_ok() && has_changed {
            signal.tell();
        }
        done(outcome.and_then(|()| answer.unwrap_or_else(|| Err(bug("a command was committed without an answer")))));
    }
}
