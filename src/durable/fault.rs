//! Faults on demand: the hook behind the public `faults` option and the crash tests.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;

use super::disk::{Interceptor, Op};

/// The named steps of the batch protocol, in their order.
pub const POINTS: &[&str] = &[
    "after_lock",
    "after_stage_files",
    "after_commit_point",
    "between_publish",
    "after_publish",
    "before_cleanup",
    "in_undo",
    "in_recovery",
];

/// One rule: when, and what happens then.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// A name of [`POINTS`].
    #[serde(default)]
    pub point: Option<String>,
    /// Or the kind of an operation (`create`, `write`, `syncFile`, `syncDir`, `rename`, `link`, `remove` …).
    #[serde(default)]
    pub op: Option<String>,
    /// Only operations whose path ends with this text.
    #[serde(default)]
    pub path_ends: Option<String>,
    /// Which occurrence, counted from 1; default 1. 0 means every one.
    #[serde(default = "one")]
    pub nth: u32,
    /// What happens.
    pub action: Action,
}

fn one() -> u32 {
    1
}

/// What a rule does.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Ends the process at once, as `kill -9` does.
    Kill,
    /// Fails with this errno.
    Errno(i32),
    /// Waits this many milliseconds, for a race to be staged.
    PauseMs(u64),
    /// Lets a write take only this many bytes at a time.
    ShortWrite(usize),
}

/// A list of rules with their counters.
#[derive(Debug)]
pub struct FaultPlan {
    rules: Vec<(Rule, Mutex<u32>)>,
}

impl FaultPlan {
    /// Makes a plan from rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules: rules.into_iter().map(|rule| (rule, Mutex::new(0))).collect() }
    }

    fn path_of<'a>(op: &Op<'a>) -> Option<&'a Path> {
        match *op {
            Op::Read(p)
            | Op::Stat(p)
            | Op::List(p)
            | Op::Create(p)
            | Op::SyncFile(p)
            | Op::SyncDir(p)
            | Op::Remove(p) => Some(p),
            Op::CreateDir(p) | Op::RemoveDir(p) | Op::Write { path: p, .. } | Op::Rename(_, p) | Op::Link(_, p) => {
                Some(p)
            }
            Op::Point(_) => None,
        }
    }

    fn hits(rule: &Rule, count: &Mutex<u32>, op: &Op<'_>) -> bool {
        let named = match op {
            Op::Point(name) => rule.point.as_deref() == Some(name),
            other => rule.op.as_deref() == Some(other.kind()),
        };
        let path = Self::path_of(op).map(Path::to_string_lossy);
        let placed =
            rule.path_ends.as_deref().is_none_or(|end| path.as_deref().is_some_and(|path| path.ends_with(end)));
        if !(named && placed) {
            return false;
        }
        let mut count = count.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *count += 1;
        rule.nth == 0 || *count == rule.nth
    }
}

impl Interceptor for FaultPlan {
    fn before(&self, op: &Op<'_>) -> io::Result<()> {
        for (rule, count) in &self.rules {
            if matches!(rule.action, Action::ShortWrite(_)) || !Self::hits(rule, count, op) {
                continue;
            }
            match rule.action {
                Action::Kill => kill_self(),
                Action::Errno(errno) => return Err(io::Error::from_raw_os_error(errno)),
                Action::PauseMs(ms) => std::thread::sleep(Duration::from_millis(ms)),
                Action::ShortWrite(_) => {}
            }
        }
        Ok(())
    }

    fn write_limit(&self, path: &Path, wanted: usize) -> usize {
        let op = Op::Write { path, offset: 0, bytes: &[] };
        self.rules
            .iter()
            .filter_map(|(rule, count)| match rule.action {
                Action::ShortWrite(limit) if Self::hits(rule, count, &op) => Some(limit),
                _ => None,
            })
            .fold(wanted, usize::min)
    }
}

#[cfg(unix)]
fn kill_self() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // The signal is delivered before the call returns to user code of this thread, at the latest on its next step.
    std::thread::sleep(Duration::from_secs(5));
    std::process::abort();
}

#[cfg(not(unix))]
fn kill_self() {
    std::process::abort();
}
