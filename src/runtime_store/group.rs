//! Group commit of single-file updates.
//!
//! Callers of one process that update one file take *turns*: each sees what the one before decided. The first turn's bytes go
//! to the disk at once; turns that end while the disk is busy go out together, with the next write. A lone caller never
//! waits for company. Nobody's promise resolves before the bytes that hold its change are durable, and a failed write
//! fails everyone whose change built on it.
//!
//! The lock file is held from the first turn until nothing is left to write, or until others must get their chance.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::file_too_large;
use super::format::decode;
use super::recovery;
use super::single::replace_locked;
use crate::durable::atomic::{Durability, Temp, folder_of};
use crate::durable::lock::{Continuation, FileLock, Options, timeout_error};
use crate::durable::{Disk, IoContext, optional, pool, timer};
use crate::error::{Code, HfError, Result};

/// So many turns follow each other before other holders in this process get their chance.
const TURNS_MAX: u32 = 64;
/// So many, when another process waits for the lock.
const TURNS_FAIR: u32 = 8;
/// What this process then grants the others: longer than their shortest pause between two tries.
const COURTESY: Duration = Duration::from_millis(1);

/// Called once with the outcome of a write, on a thread of the pool.
pub type Outcome = Box<dyn FnOnce(Result<()>) + Send>;

/// How a file is written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Largest file, in bytes.
    pub max_file_bytes: Option<u64>,
    /// Whether it is synced.
    pub durability: Durability,
    /// Also keep the text here, if the folder exists: the last good copy of a manifest.
    pub copy_to: Option<PathBuf>,
}

struct Waiter {
    id: u64,
    disk: Disk,
    options: Options,
    asked: Instant,
    timer: Option<timer::Key>,
    done: Continuation<Turn>,
}

/// What is known between two turns while the lock is held.
struct Held {
    lock: Arc<FileLock>,
    /// Text after the newest turn; `None` means that the file must be read.
    latest: Option<String>,
    turn_taken: bool,
    turns: u32,
    flushing: bool,
    /// Who waits for the write in flight without having written: they have seen what it writes.
    riders: Vec<Outcome>,
    /// Bytes that wait for the disk, and who waits for them.
    pending: Option<Pending>,
    failed: Option<HfError>,
}

struct Pending {
    disk: Disk,
    text: String,
    options: WriteOptions,
    outcomes: Vec<Outcome>,
}

enum Phase {
    Idle,
    Acquiring,
    Held(Box<Held>),
}

struct State {
    path: PathBuf,
    phase: Phase,
    queue: VecDeque<Waiter>,
    next_id: u64,
    /// Taken out of the table: whoever still has it must look again.
    forgotten: bool,
}

/// All updates of one file in this process.
struct Channel {
    key: PathBuf,
    state: Mutex<State>,
}

static CHANNELS: LazyLock<Mutex<HashMap<PathBuf, Arc<Channel>>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces a copy that only helps when the file itself is damaged: unsynced, and a failure costs nothing.
fn keep_copy(disk: &Disk, copy: &Path, text: &[u8]) {
    if disk.metadata(folder_of(copy)).is_ok_and(|metadata| metadata.is_dir()) {
        let written = Temp::create(disk, copy, text, None).and_then(|mut temp| temp.publish());
        drop(written);
    }
}

/// The right to decide what the file holds next. Dropping it passes it on without a change.
pub struct Turn {
    channel: Arc<Channel>,
    open: bool,
}

/// Asks for a turn at `path` and calls `done` with it and the text to start from (`None`: there is no file). Call it on a
/// pool thread.
pub fn take_turn(disk: Disk, path: &Path, options: Options, done: Continuation<(Turn, Option<String>)>) {
    let key = match std::fs::canonicalize(folder_of(path)) {
        Ok(folder) => folder.join(path.file_name().unwrap_or_default()),
        // The folder is made with the lock; until then this spelling is as good as any.
        Err(_) => path.to_owned(),
    };
    let reading = disk.clone();
    let asked = Instant::now();
    let mut asking = Asking {
        disk,
        options,
        asked,
        done: Box::new(move |turn: Result<Turn>| {
            done(turn.and_then(|turn| {
                let text = turn.text(&reading)?;
                Ok((turn, text))
            }));
        }),
    };
    loop {
        let channel = {
            let mut channels = lock(&CHANNELS);
            Arc::clone(channels.entry(key.clone()).or_insert_with(|| Channel::new(&key, path)))
        };
        match channel.enqueue(asking) {
            Ok(()) => return,
            Err(back) => asking = back,
        }
    }
}

/// A wish for a turn.
struct Asking {
    disk: Disk,
    options: Options,
    asked: Instant,
    done: Continuation<Turn>,
}

impl Channel {
    fn new(key: &Path, path: &Path) -> Arc<Self> {
        let state =
            State { path: path.to_owned(), phase: Phase::Idle, queue: VecDeque::new(), next_id: 0, forgotten: false };
        Arc::new(Self { key: key.to_owned(), state: Mutex::new(state) })
    }

    /// Queues a wish; gives it back if the channel is no longer the one in the table.
    fn enqueue(self: &Arc<Self>, asking: Asking) -> std::result::Result<(), Asking> {
        let mut state = lock(&self.state);
        if state.forgotten {
            return Err(asking);
        }
        let Asking { disk, options, asked, done } = asking;
        let id = state.next_id;
        state.next_id += 1;
        let busy = !matches!(state.phase, Phase::Idle) || !state.queue.is_empty();
        if busy && options.acquire_timeout.is_zero() {
            let error = timeout_error(&state.path, asked);
            drop(state);
            done(Err(error));
            return Ok(());
        }
        let timer = busy.then(|| {
            let channel = Arc::clone(self);
            timer::schedule(asked + options.acquire_timeout, move || channel.expire(id))
        });
        state.queue.push_back(Waiter { id, disk, options, asked, timer, done });
        drop(state);
        self.pump();
        Ok(())
    }

    fn expire(self: &Arc<Self>, id: u64) {
        let mut state = lock(&self.state);
        let Some(index) = state.queue.iter().position(|waiter| waiter.id == id) else {
            return;
        };
        let path = state.path.clone();
        let waiter = state.queue.remove(index);
        drop(state);
        if let Some(waiter) = waiter {
            (waiter.done)(Err(timeout_error(&path, waiter.asked)));
        }
    }

    /// Does the next thing that can be done: take the lock, pass the turn on, write, or give the lock back. Nothing of the
    /// caller's runs while the state is locked.
    fn pump(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        let asked_for = !state.queue.is_empty();
        match &mut state.phase {
            Phase::Acquiring => {}
            Phase::Idle => match state.queue.pop_front() {
                None => {
                    drop(state);
                    self.forget();
                }
                Some(waiter) => {
                    state.phase = Phase::Acquiring;
                    let path = state.path.clone();
                    drop(state);
                    self.acquire(path, waiter);
                }
            },
            Phase::Held(held) => {
                if !held.flushing && held.failed.is_none() && held.pending.is_some() {
                    held.flushing = true;
                    if let Some(pending) = held.pending.take() {
                        let (channel, lock, path) = (Arc::clone(self), Arc::clone(&held.lock), state.path.clone());
                        drop(state);
                        pool::spawn(move || channel.flush(&path, lock, pending));
                        return self.pump();
                    }
                }
                let few = held.turns < TURNS_FAIR || (held.turns < TURNS_MAX && !held.lock.is_contended());
                let passes = !held.turn_taken && held.failed.is_none() && few;
                if passes && asked_for {
                    return self.pass_turn(state);
                }
                if !held.turn_taken && !held.flushing && held.pending.is_none() {
                    self.release(state);
                }
            }
        }
    }

    fn pass_turn(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let Some(waiter) = state.queue.pop_front() else { return };
        if let Phase::Held(held) = &mut state.phase {
            held.turn_taken = true;
            held.turns += 1;
        }
        drop(state);
        if let Some(key) = waiter.timer {
            timer::cancel(key);
        }
        let turn = Turn { channel: Arc::clone(self), open: true };
        pool::spawn(move || (waiter.done)(Ok(turn)));
    }

    fn release(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let Phase::Held(held) = std::mem::replace(&mut state.phase, Phase::Acquiring) else {
            return;
        };
        let contended = held.lock.is_contended();
        drop(state);
        // The file goes before anybody is told, so that whoever was told finds no lock.
        drop(held);
        let again = {
            let channel = Arc::clone(self);
            move || {
                lock(&channel.state).phase = Phase::Idle;
                channel.pump();
            }
        };
        if contended {
            timer::schedule(Instant::now() + COURTESY, again);
        } else {
            again();
        }
    }

    fn acquire(self: &Arc<Self>, path: PathBuf, mut waiter: Waiter) {
        if let Some(key) = waiter.timer.take() {
            timer::cancel(key);
        }
        let channel = Arc::clone(self);
        let mut options = waiter.options.clone();
        if !options.acquire_timeout.is_zero() {
            options.acquire_timeout =
                options.acquire_timeout.saturating_sub(waiter.asked.elapsed()).max(Duration::from_millis(1));
        }
        let disk = waiter.disk.clone();
        let got: Continuation<FileLock> = Box::new(move |taken| {
            let mut state = lock(&channel.state);
            match taken {
                Ok(file_lock) => {
                    state.phase = Phase::Held(Box::new(Held {
                        lock: Arc::new(file_lock),
                        latest: None,
                        turn_taken: true,
                        turns: 1,
                        flushing: false,
                        riders: Vec::new(),
                        pending: None,
                        failed: None,
                    }));
                    drop(state);
                    (waiter.done)(Ok(Turn { channel: Arc::clone(&channel), open: true }));
                }
                Err(error) => {
                    state.phase = Phase::Idle;
                    drop(state);
                    (waiter.done)(Err(error));
                    channel.pump();
                }
            }
        });
        // Not here: this may be a JavaScript thread that gave a turn back.
        pool::spawn(move || recovery::lock_file(disk, path, options, got));
    }

    fn flush(self: &Arc<Self>, path: &Path, file_lock: Arc<FileLock>, pending: Pending) {
        let Pending { disk, text, options, mut outcomes } = pending;
        let write =
            || replace_locked(&disk, path, text.as_bytes(), &file_lock, options.max_file_bytes, options.durability);
        // A panic must not leave the lock held and the callers waiting.
        let result = catch_unwind(AssertUnwindSafe(write))
            .unwrap_or_else(|_| Err(HfError::new(Code::Panic, "writing a store panicked; please report this")));
        if let (Ok(()), Some(copy)) = (&result, &options.copy_to) {
            keep_copy(&disk, copy, text.as_bytes());
        }
        // Else the lock would outlive its release below.
        drop(file_lock);
        let mut state = lock(&self.state);
        if let Phase::Held(held) = &mut state.phase {
            held.flushing = false;
            outcomes.append(&mut held.riders);
            if let Err(error) = &result {
                // What came after was decided on bytes that never were.
                held.failed = Some(error.clone());
                held.latest = None;
                outcomes.extend(held.pending.take().into_iter().flat_map(|pending| pending.outcomes));
            }
        }
        drop(state);
        self.pump();
        for outcome in outcomes {
            outcome(result.clone());
        }
    }

    /// Takes the channel out of the table when nobody waits and nothing is held.
    fn forget(self: &Arc<Self>) {
        let mut channels = lock(&CHANNELS);
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Idle) && state.queue.is_empty() && !state.forgotten {
            state.forgotten = true;
            channels.remove(&self.key);
        }
    }
}

impl Turn {
    /// Returns the text that this turn starts from.
    fn text(&self, disk: &Disk) -> Result<Option<String>> {
        let (latest, path) = {
            let state = lock(&self.channel.state);
            let latest = match &state.phase {
                Phase::Held(held) => held.latest.clone(),
                _ => None,
            };
            (latest, state.path.clone())
        };
        match latest {
            Some(text) => Ok(Some(text)),
            None => Ok(optional(disk.read(&path)).at("open", &path)?.map(decode)),
        }
    }

    /// Ends the turn with new content. `outcome` is called when it is durable, or could not be made so.
    pub fn write(mut self, disk: Disk, text: String, mut options: WriteOptions, outcome: Outcome) {
        self.open = false;
        let channel = Arc::clone(&self.channel);
        let mut state = lock(&channel.state);
        let path = state.path.clone();
        let refused = match &mut state.phase {
            Phase::Held(held) => {
                held.turn_taken = false;
                if let Some(error) = &held.failed {
                    Some(error.clone())
                } else if let Some(max) = options.max_file_bytes.filter(|&max| text.len() as u64 > max) {
                    Some(file_too_large(&path, text.len(), max))
                } else {
                    held.latest = Some(text.clone());
                    let earlier = held.pending.take();
                    if let Some(earlier) = &earlier {
                        // One write serves all who wait for it, so it keeps the strictest promise among them.
                        if earlier.options.durability == Durability::Full {
                            options.durability = Durability::Full;
                        }
                        options.copy_to = options.copy_to.or_else(|| earlier.options.copy_to.clone());
                    }
                    let mut outcomes = earlier.map(|pending| pending.outcomes).unwrap_or_default();
                    outcomes.push(outcome);
                    held.pending = Some(Pending { disk, text, options, outcomes });
                    drop(state);
                    return channel.pump();
                }
            }
            _ => None,
        };
        drop(state);
        channel.pump();
        if let Some(error) = refused {
            outcome(Err(error));
        }
    }

    /// Ends the turn without a change. `outcome` is called when everything that the turn saw is durable.
    pub fn keep(mut self, outcome: Outcome) {
        self.open = false;
        let channel = Arc::clone(&self.channel);
        let mut state = lock(&channel.state);
        let mut waiting = Some(outcome);
        let mut result = Ok(());
        if let Phase::Held(held) = &mut state.phase {
            held.turn_taken = false;
            if let Some(error) = &held.failed {
                result = Err(error.clone());
            } else if let Some(pending) = &mut held.pending {
                pending.outcomes.extend(waiting.take());
            } else if held.flushing {
                held.riders.extend(waiting.take());
            }
        }
        drop(state);
        channel.pump();
        if let Some(outcome) = waiting {
            outcome(result);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.open {
            let mut state = lock(&self.channel.state);
            if let Phase::Held(held) = &mut state.phase {
                held.turn_taken = false;
            }
            drop(state);
            self.channel.pump();
        }
    }
}
