//! What was called and has not ended: writes one after the other, reads beside them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::session_graph::backend::Done;

/// A write that was called.
pub(super) struct Entry {
    pub(super) command: String,
    pub(super) bytes: Vec<Vec<u8>>,
    /// When it was called.
    pub(super) since: Instant,
    pub(super) done: Done<String>,
}

/// Writes in the order of their calls, and what is under way.
#[derive(Default)]
pub(super) struct Line {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    writes: VecDeque<Entry>,
    writing: bool,
    reading: usize,
    closed: bool,
    left: bool,
    /// Commits of this handle that wrote something.
    commits: u64,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a write; tells whether somebody must begin to work. One that comes too late is given back.
    pub(super) fn push(&self, entry: Entry) -> Result<bool, Entry> {
        let mut state = self.state();
        if state.closed {
            return Err(entry);
        }
        state.writes.push_back(entry);
        Ok(!std::mem::replace(&mut state.writing, true))
    }

    /// The next write that waits.
    pub(super) fn next(&self) -> Option<Entry> {
        self.state().writes.pop_front()
    }

    /// As [`next`](Self::next); without one the work has ended.
    pub(super) fn next_or_end(&self) -> Option<Entry> {
        let mut state = self.state();
        let next = state.writes.pop_front();
        if next.is_none() {
            state.writing = false;
            drop(state);
            self.ended.notify_waiters();
        }
        next
    }

    /// Counts a commit.
    pub(super) fn count_commit(&self) -> u64 {
        let mut state = self.state();
        state.commits += 1;
        state.commits
    }

    /// Takes a read; not when it comes too late.
    pub(super) fn begin_reading(&self) -> bool {
        let mut state = self.state();
        state.reading += usize::from(!state.closed);
        !state.closed
    }

    pub(super) fn end_reading(&self) {
        self.state().reading -= 1;
        self.ended.notify_waiters();
    }

    /// Refuses what comes from now on.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    /// Waits until nothing is under way.
    pub(super) async fn quiet(&self) {
        loop {
            let ended = self.ended.notified();
            {
                let state = self.state();
                if !state.writing && state.reading == 0 {
                    return;
                }
            }
            ended.await;
        }
    }

    /// Tells whether it is the first time that this is called.
    pub(super) fn leave(&self) -> bool {
        !std::mem::replace(&mut self.state().left, true)
    }
}
