//! Whether the link to the tree in use is known to be on the disk.
//!
//! A flip renames the link and syncs its folder. Where the sync fails the link leads to the new tree in memory only, and asking
//! for the sync once more is no help: the system may say yes without having written anything. So the flip counts as not done
//! until it was done again. A process that starts knows nothing of those before it, and syncs each root once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::lock::guard;
use crate::durable::Disk;

/// The hashes of flips that have begun and whose end is not on the disk, by real path of the root.
static ROOTS: Mutex<BTreeMap<PathBuf, BTreeSet<String>>> = Mutex::new(BTreeMap::new());
/// Counts the flips that have begun, of all roots.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Says that the link is about to lead to the tree `hash`.
pub(super) fn begin(root: &Path, hash: &str) {
    if let Ok(root) = std::fs::canonicalize(root) {
        guard(&ROOTS).entry(root).or_default().insert(hash.to_owned());
    }
    BEGUN.fetch_add(1, Ordering::AcqRel);
}

/// Says that the link, wherever it leads, is on the disk.
pub(super) fn done(root: &Path) {
    if let Ok(root) = std::fs::canonicalize(root) {
        guard(&ROOTS).entry(root).or_default().clear();
    }
}

/// What one handle remembers, so that asking costs nothing while nobody flips.
#[derive(Debug, Clone)]
pub(super) struct Settled(Arc<AtomicU64>);

impl Default for Settled {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl Settled {
    /// Tells whether a link that leads to the tree `hash` is on the disk.
    pub(super) fn holds(&self, disk: &Disk, root: &Path, hash: &str) -> bool {
        // Before looking: a flip that begins meanwhile makes what is found here old.
        let begun = BEGUN.load(Ordering::Acquire);
        if self.0.load(Ordering::Acquire) == begun {
            return true;
        }
        // Without a real path there is no tree either.
        let Ok(real) = std::fs::canonicalize(root) else { return true };
        let known = guard(&ROOTS).get(&real).map(|hashes| (hashes.is_empty(), hashes.contains(hash)));
        let (quiet, open) = match known {
            Some(known) => known,
            None => {
                if !sync(disk, root) {
                    return false;
                }
                let mut roots = guard(&ROOTS);
                let hashes = roots.entry(real).or_default();
                (hashes.is_empty(), hashes.contains(hash))
            }
        };
        if quiet {
            self.0.store(begun, Ordering::Release);
        }
        !open
    }
}

fn sync(disk: &Disk, root: &Path) -> bool {
    match disk.sync_dir(root) {
        Ok(()) => true,
        // Who may only read has nothing to bring to the disk.
        Err(error) => matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem),
    }
}
