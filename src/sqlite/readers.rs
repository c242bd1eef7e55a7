//! Connections that only read.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::connection::open_reader;
use super::shared::Shared;
use crate::error::{HfError, Result};

/// Idle connections that are kept; more are opened when more threads read at once, and closed after it.
const IDLE_MAX: usize = 4;

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    busy: usize,
    shut: bool,
}

/// A few idle connections, and a count of those at work.
#[derive(Default)]
pub(super) struct Readers {
    state: Mutex<State>,
    quiet: Condvar,
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn idle(&self) -> usize {
        self.lock().idle.len()
    }

    /// Closes the idle ones and, for up to `patience`, waits for those at work. No more are given out.
    pub(super) fn shut(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        state.shut = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle);
        let mut state = self.lock();
        while state.busy > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.quiet.wait_timeout(state, left).map_or_else(|e| e.into_inner().0, |woken| woken.0);
        }
    }
}

/// A connection on loan. Comes back when it is dropped, also by a panic.
struct Loan<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
    reusable: bool,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let connection = self.connection.take().filter(|db| self.reusable && db.is_autocommit());
        let mut state = self.readers.lock();
        let surplus = match connection {
            Some(db) if !state.shut && state.idle.len() < IDLE_MAX => {
                state.idle.push(db);
                None
            }
            other => other,
        };
        drop(state);
        // Closed before the count goes down: who waits for quiet wants to see the connection gone.
        drop(surplus);
        self.readers.lock().busy -= 1;
        self.readers.quiet.notify_all();
    }
}

/// Runs `read` on the calling thread.
pub(super) fn read<T>(shared: &Shared, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    shared.usable()?;
    let result = match &shared.path {
        Some(path) => {
            let mut loan = {
                let mut state = shared.readers.lock();
                if state.shut {
                    drop(state);
                    return Err(gone(shared));
                }
                state.busy += 1;
                Loan { readers: &shared.readers, connection: state.idle.pop(), reusable: false }
            };
            if loan.connection.is_none() {
                loan.connection = Some(open_reader(path, &shared.options)?);
            }
            let result = loan.connection.as_ref().map_or_else(|| Err(gone(shared)), read);
            loan.reusable = true;
            result
        }
        None => read_in_memory(shared, read),
    };
    result.map_err(|error| shared.located(error))
}

fn gone(shared: &Shared) -> HfError {
    if shared.is_poisoned() { shared.poisoned_error() } else { shared.closed_error() }
}

/// Gives a connection back to the writer: it may write again, and no transaction is left open.
struct ReadOnly<'a>(&'a Connection);

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            let _ = self.0.execute_batch("ROLLBACK");
        }
        let _ = self.0.execute_batch("PRAGMA query_only = OFF");
    }
}

/// In memory there is one connection, and the writer's turn ends before a read begins.
fn read_in_memory<T>(shared: &Shared, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let connection = shared.connection();
    let Some(db) = connection.as_ref() else { return Err(gone(shared)) };
    db.execute_batch("PRAGMA query_only = ON").map_err(|error| super::sql_error("read", error))?;
    let turn = ReadOnly(db);
    read(turn.0)
}
