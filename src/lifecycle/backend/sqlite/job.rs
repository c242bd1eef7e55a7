//! A command as a job of the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::{Done, Shared};
use crate::error::{Code, HfError, Result};
use crate::lifecycle::command::{Context, Write};
use crate::lifecycle::sql::sqlite::Sqlite;
use crate::lifecycle::tables::{changes, prune};
use crate::sqlite::WriteJob;

/// A command on its way.
pub(super) struct Job {
    shared: Arc<Shared>,
    text: Option<String>,
    command: Option<Result<Write>>,
    answer: Option<Result<String>>,
    wrote: bool,
    /// Changes that earlier batches of a `prune` removed.
    removed: i64,
    done: Option<Done<String>>,
}

impl Job {
    pub(super) fn new(
        shared: &Arc<Shared>,
        text: Option<String>,
        command: Option<Result<Write>>,
        done: Done<String>,
    ) -> Self {
        let shared = Arc::clone(shared);
        Self { shared, text, command, answer: None, wrote: false, removed: 0, done: Some(done) }
    }

    /// A `prune` that was asked for goes on batch after batch: others may write in between. Otherwise returns the answer.
    fn go_on(mut self: Box<Self>, answer: String, done: Done<String>) {
        if !matches!(self.command, Some(Ok(Write::Prune(_)))) {
            return done(Ok(answer));
        }
        let removed = answer.parse().unwrap_or(0);
        self.removed += removed;
        if removed < prune::BATCH {
            self.shared.shrink_later();
            return done(Ok(self.removed.to_string()));
        }
        self.done = Some(done);
        let database = self.shared.database.clone();
        database.write(self);
    }
}

impl WriteJob for Job {
    fn prepare(&mut self) {
        if let Some(text) = self.text.take() {
            self.command = Some(Write::parse(&text));
        }
    }

    fn run(&mut self, db: &Connection) -> Result<()> {
        self.answer = None;
        self.wrote = false;
        let command = match &self.command {
            Some(Ok(command)) => command,
            Some(Err(error)) => {
                self.answer = Some(Err(error.clone()));
                return Ok(());
            }
            None => return Err(HfError::new(Code::Panic, "a command was not read; please report it")),
        };
        let before = db.total_changes();
        let context = Context { owners: &*self.shared, harnesses: &self.shared.harnesses };
        let mut sql = Sqlite(db);
        match command.run(&mut sql, &context) {
            Ok(text) => self.answer = Some(Ok(text)),
            // A refusal that changed nothing need not undo what others did in the same transaction.
            Err(error) if db.total_changes() == before && is_refusal(&error) => {
                self.answer = Some(Err(error));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if let Some(now) = command.now() {
            self.shared.now.store(now, Ordering::Relaxed);
        }
        self.wrote = db.total_changes() != before;
        if self.wrote {
            self.shared.head.store(changes::head(&mut sql)?, Ordering::Relaxed);
        }
        Ok(())
    }

    fn done(mut self: Box<Self>, outcome: Result<()>) {
        match &outcome {
            Ok(()) if self.wrote => self.shared.committed(),
            // The head that was noted may not have come to be: what comes next is told whatever its number.
            Err(_) => self.shared.told.store(0, Ordering::Relaxed),
            Ok(()) => {}
        }
        let answer = self.answer.take();
        let Some(done) = self.done.take() else { return };
        let answer = outcome.and_then(|()| {
            answer.unwrap_or_else(|| {
                Err(HfError::new(Code::Panic, "a command was committed without an answer; please report it"))
            })
        });
        match answer {
            Ok(answer) => self.go_on(answer, done),
            Err(error) => done(Err(error)),
        }
    }
}

/// An error that the tables' contents caused, not the database.
fn is_refusal(error: &HfError) -> bool {
    let from_sqlite = error.fields().contains_key("sqliteCode");
    let broken = matches!(error.code(), Code::Io | Code::DiskFull | Code::Corrupt | Code::Panic | Code::Poisoned);
    !from_sqlite && !broken
}
