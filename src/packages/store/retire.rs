//! Retirement markers: since when a tree has been out of use.
//!
//! A marker that a power cut loses or leaves empty is written anew by the next sweep, with that sweep's time. So markers are
//! never synced: what can go wrong only makes a tree live longer.

use std::fs;
use std::path::Path;

use crate::clock;
use crate::durable::{Disk, atomic};
use crate::ids;

/// Name of the marker in a tree.
pub const RETIRED_AT_MARKER: &str = ".retired-at";

/// What a marker says.
#[derive(Debug, Clone, PartialEq)]
pub struct Retired {
    /// Milliseconds since the epoch.
    pub at_ms: f64,
    /// Boot id, and milliseconds since that boot, if the second line has them.
    pub since_boot: Option<(String, f64)>,
}

impl Retired {
    /// Returns how long ago that was: by the wall clock, or, within the same boot, by whichever of the two clocks says less, so
    /// that a clock set forward makes nothing look old.
    #[must_use]
    pub fn age_ms(&self, now: Now) -> f64 {
        match now {
            Now::Given(now) => now - self.at_ms,
            Now::Clock => {
                let wall = clock::epoch_ms() as f64 - self.at_ms;
                match (&self.since_boot, since_boot()) {
                    (Some((boot, then)), Some((same, now))) if *boot == same => wall.min(now - then),
                    _ => wall,
                }
            }
        }
    }
}

/// Which time it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Now {
    /// What the caller says, in milliseconds since the epoch.
    Given(f64),
    /// What the clocks say.
    Clock,
}

impl Now {
    /// Returns milliseconds since the epoch.
    #[must_use]
    pub fn epoch_ms(self) -> f64 {
        match self {
            Now::Given(now) => now,
            Now::Clock => clock::epoch_ms() as f64,
        }
    }
}

/// Marks a tree as out of use since `at`, replacing an older marker. Best effort: a tree without a marker is only kept longer.
pub fn mark(disk: &Disk, tree: &Path, at: Now) {
    let mut text = format!("{}\n", at.epoch_ms());
    if let (Now::Clock, Some((boot, ms))) = (at, since_boot()) {
        text.push_str(&format!("{boot} {ms}\n"));
    }
    let temp = tree.join(format!("{RETIRED_AT_MARKER}.{}.tmp", ids::uuid()));
    let written = disk.create_with(&temp, text.as_bytes(), Some(0o644)).map(drop);
    if written.and_then(|()| rename(disk, &temp, &tree.join(RETIRED_AT_MARKER))).is_err() {
        let _ = disk.remove_file(&temp);
    }
}

fn rename(disk: &Disk, from: &Path, to: &Path) -> std::io::Result<()> {
    let mut attempt = 1;
    while let Err(error) = disk.rename(from, to) {
        match atomic::retry_delay(&error, attempt) {
            Some(delay) => std::thread::sleep(delay),
            None => return Err(error),
        }
        attempt += 1;
    }
    Ok(())
}

/// Removes the marker of a tree that comes into use. Best effort: the marker is written anew when the tree goes out of use.
pub fn unmark(disk: &Disk, tree: &Path) {
    let marker = tree.join(RETIRED_AT_MARKER);
    if has_marker(tree) {
        let _ = disk.remove_file(&marker);
    }
}

/// Tells whether there is a marker, whatever it says.
#[must_use]
pub fn has_marker(tree: &Path) -> bool {
    fs::symlink_metadata(tree.join(RETIRED_AT_MARKER)).is_ok()
}

/// Reads a tree's marker. `None` if there is none, or if it does not say a time: a line that does not end is the rest of a torn
/// write, and a torn `1700000000000` must not read as 1970.
#[must_use]
pub fn read(tree: &Path) -> Option<Retired> {
    let text = String::from_utf8(super::record::read_file(&tree.join(RETIRED_AT_MARKER)).ok()?).ok()?;
    let (first, rest) = text.split_once('\n')?;
    let at_ms = first.trim().parse::<f64>().ok().filter(|at| at.is_finite())?;
    let since_boot = rest.split_once('\n').and_then(|(second, _)| {
        let (boot, ms) = second.split_once(' ')?;
        Some((boot.to_owned(), ms.parse::<f64>().ok().filter(|ms| ms.is_finite())?))
    });
    Some(Retired { at_ms, since_boot })
}

/// Returns the id of this boot and the milliseconds since it, sleep included; `None` where the system does not tell.
fn since_boot() -> Option<(String, f64)> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let seconds = uptime.split_whitespace().next()?.parse::<f64>().ok()?;
    Some((boot.trim().to_owned(), (seconds * 1000.0).round()))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn markers_are_read_leniently_but_never_torn() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        let disk = Disk::real();
        assert!(read(tree).is_none() && !has_marker(tree));
        mark(&disk, tree, Now::Given(1_700_000_000_000.0));
        assert_eq!(fs::read_to_string(tree.join(RETIRED_AT_MARKER)).unwrap(), "1700000000000\n");
        assert_eq!(read(tree).unwrap(), Retired { at_ms: 1_700_000_000_000.0, since_boot: None });
        assert_eq!(fs::read_dir(tree).unwrap().count(), 1, "no temporary file stays");
        for torn in ["17", "", "soon\n", "NaN\n", "inf\n"] {
            fs::write(tree.join(RETIRED_AT_MARKER), torn).unwrap();
            assert!(read(tree).is_none() && has_marker(tree), "{torn:?}");
        }
        unmark(&disk, tree);
        assert!(!has_marker(tree));
        // Best effort: not even a missing tree is an error.
        mark(&disk, &tree.join("gone"), Now::Clock);
        unmark(&disk, &tree.join("gone"));
    }

    #[test]
    fn a_clock_set_forward_makes_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        mark(&Disk::real(), dir.path(), Now::Clock);
        let mut retired = read(dir.path()).unwrap();
        assert!(retired.age_ms(Now::Clock) < 5000.0);
        retired.at_ms -= 10.0 * 3_600_000.0;
        assert!(retired.age_ms(Now::Given(clock::epoch_ms() as f64)) > 3_600_000.0);
        if cfg!(target_os = "linux") {
            assert!(retired.age_ms(Now::Clock) < 5000.0);
            retired.since_boot = Some(("another boot".into(), 0.0));
            assert!(retired.age_ms(Now::Clock) > 3_600_000.0);
        }
    }
}
