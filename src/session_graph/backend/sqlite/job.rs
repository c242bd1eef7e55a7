//! One command in the writer's line.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::Shared;
use super::chain::Collect;
use super::open::is_refusal;
use crate::error::Result;
use crate::session_graph::backend::Done;
use crate::session_graph::command::Write;
use crate::session_graph::error::bug;
use crate::session_graph::sql::sqlite::Sqlite;
use crate::sqlite::WriteJob;

/// A command on its way.
pub(super) struct Job {
    shared: Arc<Shared>,
    given: Option<(String, Vec<Vec<u8>>)>,
    command: Option<Result<Write>>,
    answer: Option<Result<String>>,
    is_commit: bool,
    done: Option<Done<String>>,
}

impl Job {
    pub(super) fn new(shared: &Arc<Shared>, command: String, bytes: Vec<Vec<u8>>, done: Done<String>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared, given: Some((command, bytes)), command: None, answer: None, is_commit: false, done: Some(done) }
    }
}

impl WriteJob for Job {
    fn prepare(&mut self) {
        if let Some((text, bytes)) = self.given.take() {
            self.command = Some(Write::prepare(&text, bytes, self.shared.profile));
        }
    }

    fn run(&mut self, db: &Connection) -> Result<()> {
        self.answer = None;
        self.is_commit = false;
        let command = match &self.command {
            Some(Ok(command)) => command,
            Some(Err(error)) => {
                self.answer = Some(Err(error.clone()));
                return Ok(());
            }
            None => return Err(bug("a command was not read")),
        };
        let before = db.total_changes();
        match command.run(&mut Sqlite(db)) {
            Ok(answer) => {
                self.is_commit = answer.is_commit;
                self.answer = Some(Ok(answer.text));
                Ok(())
            }
            // A refusal that changed nothing need not undo what others did in the same transaction.
            Err(error) if db.total_changes() == before && is_refusal(&error) => {
                self.answer = Some(Err(error));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn done(mut self: Box<Self>, outcome: Result<()>) {
        self.shared.pending.fetch_sub(1, Ordering::AcqRel);
        if outcome.is_ok() {
            self.shared.signal.tell();
        }
        let Some(done) = self.done.take() else { return };
        let answer = self.answer.take();
        let answer =
            outcome.and_then(|()| answer.unwrap_or_else(|| Err(bug("a command was committed without an answer"))));
        if answer.is_ok() && self.is_commit && self.shared.is_gc_due() {
            // What the collection says does not matter: the commit is done.
            let age = self.shared.gc.min_blob_age_ms;
            return Collect::begin(&self.shared, age, Box::new(move |_| done(answer)));
        }
        done(answer);
    }
}
