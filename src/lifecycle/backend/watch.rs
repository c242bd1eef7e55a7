//! Hearing of the commits of other processes.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use rusqlite::Connection;

use super::hub::{Foreign, Hub};
use crate::sqlite::Watch;

impl Foreign for Watch {
    fn leave(&mut self) {
        Watch::leave(self);
    }

    fn end(self: Box<Self>) {
        Watch::end(*self);
    }
}

/// Begins to look at the database at `path`; `told` is the newest change that the hub was told of already. Without a thread or a
/// connection nobody hears of other processes' commits but by reading: hints are all that is lost.
pub(super) fn begin(path: &Path, hub: Weak<Hub>, told: &Arc<AtomicI64>) -> Option<Box<dyn Foreign>> {
    let told = Arc::clone(told);
    let mut known = None;
    let watch = Watch::begin(path, move |db| {
        let Some(head) = head_of(db) else { return ControlFlow::Continue(false) };
        // What the log holds at the beginning is no news.
        if known.replace(head).is_none_or(|known| head <= known) {
            return ControlFlow::Continue(false);
        }
        // Own commits were told already, or are about to be. Of those that did not touch the log nobody needs to hear.
        if head > told.load(Ordering::Relaxed) {
            let Some(hub) = hub.upgrade() else { return ControlFlow::Break(()) };
            hub.tell();
        }
        ControlFlow::Continue(true)
    })?;
    Some(Box::new(watch))
}

/// The head of the change log. A look that fails is made up for by the next.
fn head_of(db: &Connection) -> Option<i64> {
    let question = "SELECT coalesce(max(seq), 0) FROM change_log";
    db.prepare_cached(question).and_then(|mut ask| ask.query_row([], |row| row.get(0))).ok()
}
