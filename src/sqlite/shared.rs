//! What handles, readers and the writer share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rusqlite::Connection;

use super::queue::Queue;
use super::readers::Readers;
use super::turn::Turn;
use super::waits::Waiting;
use super::{Options, Stats};
use crate::error::{Code, HfError, Result};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub jobs: AtomicU64,
    pub batches: AtomicU64,
    pub commits: AtomicU64,
    pub largest_batch: AtomicU64,
    pub retried: AtomicU64,
    pub checkpoints: AtomicU64,
    pub checkpoints_held: AtomicU64,
    pub waits: Waiting,
}

pub(super) struct Shared {
    pub options: Options,
    /// `None` in memory.
    pub path: Option<PathBuf>,
    pub queue: Queue,
    /// The writing connection; in memory the only one. `None` once it is closed.
    pub connection: Mutex<Option<Connection>>,
    /// For the writer's thread.
    turn: Mutex<Turn>,
    pub readers: Readers,
    pub counters: Counters,
    /// Pages in the write-ahead log after the last commit.
    pub log_frames: Arc<AtomicU32>,
    poisoned: AtomicBool,
    /// Somebody heard that it is.
    told: AtomicBool,
    cause: Mutex<String>,
}

impl Shared {
    pub(super) fn new(options: Options, path: Option<PathBuf>, mut connection: Connection) -> Result<Self> {
        let log_frames = Arc::new(AtomicU32::new(0));
        let frames = Arc::clone(&log_frames);
        let counting = move |_: &mut rusqlite::hooks::Wal, in_log: i32| {
            frames.store(in_log.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        };
        connection.wal_hook(Some(counting)).map_err(|error| super::sql_error("open the database", error))?;
        Ok(Self {
            options,
            turn: Mutex::new(Turn::new(path.as_deref())),
            path,
            queue: Queue::default(),
            connection: Mutex::new(Some(connection)),
            readers: Readers::default(),
            counters: Counters::default(),
            log_frames,
            poisoned: AtomicBool::new(false),
            told: AtomicBool::new(false),
            cause: Mutex::new(String::new()),
        })
    }

    /// Locks the writing connection. A job that panicked was rolled back, so a poisoned mutex still holds a sound one.
    pub(super) fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a transaction that writes, in turn with other processes.
    pub(super) fn begin(&self, db: &Connection) -> rusqlite::Result<()> {
        let asked = Instant::now();
        let begun = self.turn.lock().unwrap_or_else(PoisonError::into_inner).begin(db, self.options.busy_timeout);
        self.counters.waits.add(asked.elapsed());
        begun
    }

    /// As [`Shared::begin`], without waiting, and behind all who wait.
    pub(super) fn begin_at_once(&self, db: &Connection) -> rusqlite::Result<()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).begin_at_once(db, self.options.busy_timeout)
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Ends the trust: from now on every call fails. `told` if a job gets the cause as its own error.
    pub(super) fn poison(&self, cause: &HfError, told: bool) {
        self.told.fetch_or(told, Ordering::AcqRel);
        let mut text = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        if text.is_empty() {
            cause.message().clone_into(&mut text);
        }
        drop(text);
        self.poisoned.store(true, Ordering::Release);
    }

    /// The trust ended after the last job, in a checkpoint, so that nobody knows.
    pub(super) fn poisoned_in_silence(&self) -> bool {
        self.is_poisoned() && !self.told.load(Ordering::Acquire)
    }

    /// The error of every call after [`Shared::poison`].
    pub(super) fn poisoned_error(&self) -> HfError {
        self.told.store(true, Ordering::Release);
        let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let error = HfError::new(
            Code::Poisoned,
            format!(
                "{}: an earlier write failed ({cause}), so what is on the disk is not known; close the handle and open the \
                 database again, what it then holds is the truth",
                self.name()
            ),
        );
        match &self.path {
            Some(path) => error.with_field("path", path.to_string_lossy()),
            None => error,
        }
    }

    pub(super) fn closed_error(&self) -> HfError {
        HfError::new(Code::Closed, format!("{} is closed; open it again", self.name()))
    }

    /// Whether a call makes sense.
    pub(super) fn usable(&self) -> Result<()> {
        if self.is_poisoned() {
            return Err(self.poisoned_error());
        }
        if self.queue.is_open() { Ok(()) } else { Err(self.closed_error()) }
    }

    pub(super) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "the database in memory".into(), |path| path.display().to_string())
    }

    /// Adds the path where it belongs.
    pub(super) fn located(&self, error: HfError) -> HfError {
        super::error::located(error, self.path.as_deref())
    }

    pub(super) fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Stats {
            jobs: get(&counters.jobs),
            batches: get(&counters.batches),
            commits: get(&counters.commits),
            largest_batch: get(&counters.largest_batch),
            retried: get(&counters.retried),
            queued: self.queue.len() as u64,
            checkpoints: get(&counters.checkpoints),
            checkpoints_held: get(&counters.checkpoints_held),
            wal_bytes: self.path.as_ref().map_or(0, |path| {
                std::fs::metadata(super::connection::beside(path, "-wal")).map_or(0, |metadata| metadata.len())
            }),
            readers_idle: self.readers.idle() as u64,
            waits: counters.waits.get(),
        }
    }
}
