//! What stands in a lock file, and what it says about its owner.

use std::sync::OnceLock;

use crate::clock;

/// The parsed lines of a lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Leading digits of line 1; `None` if there are none.
    pub pid: Option<u64>,
    /// Line 2, milliseconds since the epoch; `None` if it is not a number.
    pub stamp_ms: Option<i64>,
    /// Whether line 3 marks a holdfast lock, whose owner holds an OS lock.
    pub marked: bool,
}

impl Content {
    /// Parses leniently: whatever another program left there is an answer.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().trim_start();
        let digits: String = first.chars().take_while(char::is_ascii_digit).collect();
        let stamp = lines.next().and_then(|line| line.trim().parse::<f64>().ok()).filter(|ms| ms.is_finite());
        Self {
            pid: digits.parse().ok().filter(|&pid| pid > 0),
            stamp_ms: stamp.map(|ms| ms as i64),
            marked: lines.next().is_some_and(|line| line.starts_with("holdfast ")),
        }
    }

    /// Tells whether the two-line rules call the lock stale: its process is gone, or it is older than `stale_ms`.
    /// `modified_ms` stands in for a missing time.
    pub fn is_stale(&self, stale_ms: u64, modified_ms: i64) -> bool {
        if self.pid.is_some_and(|pid| !process_exists(pid)) {
            return true;
        }
        let age = (clock::epoch_ms() as i64).saturating_sub(self.stamp_ms.unwrap_or(modified_ms));
        age > i64::try_from(stale_ms).unwrap_or(i64::MAX)
    }
}

/// Width of the time in line 2: 13 digits until the year 2286.
pub const STAMP_WIDTH: usize = 13;

/// Returns the content of a lock taken now, and the offset of the time in it. `shared_volume` writes pid 0, which makes
/// the original go by age alone.
pub fn fresh(shared_volume: bool) -> (String, u64) {
    let pid = if shared_volume { 0 } else { std::process::id() };
    let head = format!("{pid}\n");
    let offset = head.len() as u64;
    (format!("{head}{:013}\nholdfast {} {}\n", clock::epoch_ms(), crate::ids::uuid(), process_identity()), offset)
}

/// Boot id and start time of this process: for people who look at a lock that was left behind.
fn process_identity() -> &'static str {
    static IDENTITY: OnceLock<String> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The command in parentheses may hold spaces; the start time is the 20th field behind it.
        let start = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).unwrap_or("-").to_owned();
        let boot = boot.trim();
        format!("{} {start}", if boot.is_empty() { "-" } else { boot })
    })
}

#[cfg(unix)]
fn process_exists(pid: u64) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return true;
    };
    // Only "no such process" means dead: a process that we may not signal is alive.
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn process_exists(_pid: u64) -> bool {
    // Windows reuses pids fast and needs a handle to ask; age decides for locks that holdfast did not write.
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_others_wrote() {
        assert_eq!(
            Content::parse(b"27043\n1795226252656\n"),
            Content { pid: Some(27043), stamp_ms: Some(1_795_226_252_656), marked: false }
        );
        assert_eq!(Content::parse(b""), Content { pid: None, stamp_ms: None, marked: false });
        assert_eq!(Content::parse(b"12abc\nsoon"), Content { pid: Some(12), stamp_ms: None, marked: false });
        assert!(Content::parse(fresh(false).0.as_bytes()).marked);
        assert_eq!(Content::parse(fresh(true).0.as_bytes()).pid, None);
    }

    #[test]
    fn a_dead_pid_is_stale_at_once_and_age_decides_otherwise() {
        let now = clock::epoch_ms() as i64;
        let dead = Content { pid: Some(9_999_999), stamp_ms: Some(now), marked: false };
        assert!(dead.is_stale(30_000, now));
        let mine = Content { pid: Some(u64::from(std::process::id())), stamp_ms: Some(now), marked: false };
        assert!(!mine.is_stale(30_000, now));
        assert!(Content { stamp_ms: Some(now - 40_000), ..mine.clone() }.is_stale(30_000, now));
        assert!(Content { pid: None, stamp_ms: None, marked: false }.is_stale(30_000, now - 30_001));
    }
}
