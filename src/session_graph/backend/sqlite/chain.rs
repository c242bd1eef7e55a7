//! Long work in short transactions, so that others can write in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::Shared;
use crate::error::Result;
use crate::session_graph::sql::sqlite::Sqlite;
use crate::session_graph::tables::gc::{self, Progress};
use crate::sqlite::{WriteJob, sql_error};

/// Pages that one transaction gives back.
const PAGES: u32 = 1000;

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
    left: u32,
    finish: Option<Finish<()>>,
}

impl Reclaim {
    pub(super) fn begin(shared: &Arc<Shared>, finish: Finish<()>) {
        shared.pending.fetch_add(1, Ordering::AcqRel);
        shared.database.write(Box::new(Self { shared: Arc::clone(shared), left: 0, finish: Some(finish) }));
    }
}

impl WriteJob for Reclaim {
    fn run(&mut self, db: &Connection) -> Result<()> {
        let run = || -> rusqlite::Result<u32> {
            let mut statement = db.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            db.query_row("PRAGMA freelist_count", [], |row| row.get(0))
        };
        let before = self.left;
        self.left = run().map_err(|error| sql_error("give pages back", error))?;
        // Where nothing comes back (a file that somebody made without it) it would go on for ever.
        if before != 0 && self.left >= before {
            self.left = 0;
        }
        Ok(())
    }

    fn done(mut self: Box<Self>, outcome: Result<()>) {
        if outcome.is_ok() && self.left > 0 {
            let database = self.shared.database.clone();
            return database.write(self);
        }
        self.shared.pending.fetch_sub(1, Ordering::AcqRel);
        if let Some(finish) = self.finish.take() {
            finish(outcome);
        }
    }
}
