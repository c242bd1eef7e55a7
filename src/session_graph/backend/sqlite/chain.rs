//! Long work in short transactions, so that others can write in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::Shared;
use crate::error::Result;
use crate::session_graph::sql::sqlite::Sqlite;
use crate::session_graph::tables::gc::{self, Progress};
use crate::sqlite::{WriteJob, give_back};

type Finish<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// A collection of blobs that nobody can reach: one slice.
pub(super) struct Collect {
    shared: Arc<Shared>,
    age_ms: i64,
    before: Progress,
    after: Option<Progress>,
    finish: Option<Finish<Progress>>,
}

impl Collect {
    pub(super) fn begin(shared: &Arc<Shared>, age_ms: i64, finish: Finish<Progress>) {
        shared.pending.fetch_add(1, Ordering::AcqRel);
        let job =
            Self { shared: Arc::clone(shared), age_ms, before: Progress::default(), after: None, finish: Some(finish) };
        shared.database.write(Box::new(job));
    }
}

impl WriteJob for Collect {
    fn is_a_piece(&self) -> bool {
        true
    }

    fn run(&mut self, db: &Connection) -> Result<()> {
        self.after = Some(gc::slice(&mut Sqlite(db), self.age_ms, self.before.clone())?);
        Ok(())
    }

    fn done(mut self: Box<Self>, outcome: Result<()>) {
        let after = self.after.take().unwrap_or_default();
        if outcome.is_ok() && !after.is_over() {
            self.before = after;
            let database = self.shared.database.clone();
            return database.write(self);
        }
        self.shared.pending.fetch_sub(1, Ordering::AcqRel);
        if let Some(finish) = self.finish.take() {
            finish(outcome.map(|()| after));
        }
    }
}

/// Gives free pages back: some of them.
pub(super) struct Reclaim {
    shared: Arc<Shared>,
    is_more: bool,
    finish: Option<Finish<()>>,
}

impl Reclaim {
    pub(super) fn begin(shared: &Arc<Shared>, finish: Finish<()>) {
        shared.pending.fetch_add(1, Ordering::AcqRel);
        shared.database.write(Box::new(Self { shared: Arc::clone(shared), is_more: false, finish: Some(finish) }));
    }
}

impl WriteJob for Reclaim {
    fn is_a_piece(&self) -> bool {
        true
    }

    fn run(&mut self, db: &Connection) -> Result<()> {
        self.is_more = give_back(db, 0)?;
        Ok(())
    }

    fn done(mut self: Box<Self>, outcome: Result<()>) {
        if outcome.is_ok() && self.is_more {
            let database = self.shared.database.clone();
            return database.write(self);
        }
        self.shared.pending.fetch_sub(1, Ordering::AcqRel);
        if let Some(finish) = self.finish.take() {
            finish(outcome);
        }
    }
}
