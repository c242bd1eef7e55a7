//! Hearing of commits, also those of other processes.
//!
//! SQLite has no way to be told. What a commit does first is to write the log beside the database, which Linux tells of; a moment
//! later the commit is visible, which `PRAGMA data_version` tells without reading a table. So a thread sleeps until the log is
//! written, then looks a few times with growing pauses, and looks once a second besides. Elsewhere it looks every few
//! milliseconds while something happens, and less and less while nothing does.

use std::ops::ControlFlow;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use sleeper::{Sleeper, Stop};

/// Longest sleep without looking.
const IDLE: Duration = Duration::from_secs(1);
/// Pauses before the looks that follow when the log was written, until the commit is seen: a sync may lie in between.
const PAUSES_MS: [u64; 8] = [1, 1, 2, 4, 8, 16, 16, 16];

/// A thread that looks whether somebody has committed. It ends when this is dropped, soon after.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Stop>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Begins to look at the database at `path`. `seen` is called with the connection that looks: once before this returns, then on the
    /// thread whenever somebody has committed since the last look. It says whether that was of interest (then the looks come more
    /// often), or breaks off. `None` without a thread or a connection.
    pub fn begin(
        path: &Path,
        mut seen: impl FnMut(&Connection) -> ControlFlow<(), bool> + Send + 'static,
    ) -> Option<Self> {
        let (stop, sleeper) = sleeper::new(path)?;
        // Opened here, so that all that is committed from now on is seen.
        let eye = Eye::open(path)?;
        // How it answers counts from the next time on.
        let _ = seen(&eye.db);
        let run = move || run(eye, sleeper, seen);
        let thread = std::thread::Builder::new().name("holdfast-watch".into()).spawn(run).ok()?;
        Some(Self { stop: Some(stop), thread })
    }

    /// Asks the thread to end.
    pub fn leave(&mut self) {
        drop(self.stop.take());
    }

    /// Asks the thread to end, and waits until it has.
    pub fn end(mut self) {
        self.leave();
        if self.thread.thread().id() != std::thread::current().id() {
            // It was asked to end; how it ended is of no interest.
            let _ = self.thread.join();
        }
    }
}

fn run(mut eye: Eye, mut sleeper: Sleeper, mut seen: impl FnMut(&Connection) -> ControlFlow<(), bool>) {
    let mut step = PAUSES_MS.len();
    loop {
        let pause = PAUSES_MS.get(step).map(|ms| Duration::from_millis(*ms));
        let Some(written) = sleeper.sleep(pause) else { return };
        if eye.has_changed() {
            match seen(&eye.db) {
                ControlFlow::Continue(true) => sleeper.perk_up(),
                ControlFlow::Continue(false) => {}
                ControlFlow::Break(()) => return,
            }
        }
        // Also after something was seen: what was written just now may be a commit that comes after that one.
        step = if written { 0 } else { (step + 1).min(PAUSES_MS.len()) };
    }
}

/// A connection that only asks whether somebody has committed.
struct Eye {
    db: Connection,
    version: i64,
}

impl Eye {
    fn open(path: &Path) -> Option<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).ok()?;
        db.busy_timeout(Duration::from_millis(100)).ok()?;
        let mut eye = Self { db, version: 0 };
        eye.has_changed();
        Some(eye)
    }

    fn has_changed(&mut self) -> bool {
        let asked =
            self.db.prepare_cached("PRAGMA data_version").and_then(|mut ask| ask.query_row([], |row| row.get(0)));
        // A look that fails is made up for by the next.
        asked.is_ok_and(|version| std::mem::replace(&mut self.version, version) != version)
    }
}

#[cfg(target_os = "linux")]
mod sleeper {
    use std::io::{PipeReader, PipeWriter};
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::inotify;
    use rustix::io::Errno;
    use rustix::time::Timespec;

    use super::IDLE;

    /// Its end wakes the sleeper.
    pub type Stop = PipeWriter;

    /// Sleeps until the log is written.
    pub struct Sleeper {
        stopped: PipeReader,
        events: Option<OwnedFd>,
        /// How long it sleeps where the system does not tell.
        patience: Duration,
    }

    const SHORTEST: Duration = Duration::from_millis(8);

    pub fn new(database: &Path) -> Option<(Stop, Sleeper)> {
        let (stopped, stop) = std::io::pipe().ok()?;
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok();
        // There may be no more watches to be had (`fs.inotify.max_user_watches`).
        let events =
            events.filter(|events| inotify::add_watch(events, Path::new(&log), inotify::WatchFlags::MODIFY).is_ok());
        Some((stop, Sleeper { stopped, events, patience: SHORTEST }))
    }

    impl Sleeper {
        /// Sleeps for `pause`, or without one until the log is written or a second has passed. Tells whether the log was
        /// written meanwhile; `None` at the end.
        pub fn sleep(&mut self, pause: Option<Duration>) -> Option<bool> {
            let limit = match pause {
                Some(pause) => pause,
                None if self.events.is_some() => IDLE,
                None => self.lose_patience(),
            };
            let timeout = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
            let mut polled = vec![PollFd::new(&self.stopped, PollFlags::IN)];
            // Within a pause it is not woken: whoever writes much would wake it all the time.
            if pause.is_none() {
                polled.extend(self.events.iter().map(|events| PollFd::new(events, PollFlags::IN)));
            }
            match poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return None,
            }
            if polled.first().is_some_and(|stopped| !stopped.revents().is_empty()) {
                return None;
            }
            drop(polled);
            Some(self.drain())
        }

        /// Something happens: where the system does not tell, it looks more often again.
        pub fn perk_up(&mut self) {
            self.patience = SHORTEST;
        }

        fn lose_patience(&mut self) -> Duration {
            let longer = (self.patience * 2).min(IDLE);
            std::mem::replace(&mut self.patience, longer)
        }

        fn drain(&self) -> bool {
            let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
            let Some(events) = &self.events else { return false };
            let mut reader = inotify::Reader::new(events, &mut buffer);
            let mut any = false;
            while reader.next().is_ok() {
                any = true;
            }
            any
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod sleeper {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
    use std::time::Duration;

    use super::IDLE;

    /// Its end wakes the sleeper.
    pub type Stop = Sender<()>;

    /// Sleeps for a while, less and less often woken while nothing happens.
    pub struct Sleeper {
        stopped: Receiver<()>,
        patience: Duration,
    }

    const SHORTEST: Duration = Duration::from_millis(8);

    #[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
    pub fn new(_database: &Path) -> Option<(Stop, Sleeper)> {
        let (stop, stopped) = channel();
        Some((stop, Sleeper { stopped, patience: SHORTEST }))
    }

    impl Sleeper {
        /// Sleeps; `None` at the end.
        pub fn sleep(&mut self, pause: Option<Duration>) -> Option<bool> {
            let limit = pause.unwrap_or(self.patience);
            self.patience = (self.patience * 2).min(IDLE);
            match self.stopped.recv_timeout(limit) {
                Err(RecvTimeoutError::Timeout) => Some(false),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => None,
            }
        }

        /// Something happens: it looks more often again.
        pub fn perk_up(&mut self) {
            self.patience = SHORTEST;
        }
    }
}
