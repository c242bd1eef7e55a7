//! Where programs resolve packages from.

use std::fs;
use std::path::{Path, PathBuf};

use super::link::{self, target_of};
use super::obstacles;
use super::paths::{Paths, last_component};
use super::pins::{self, Pin};
use super::record::has_modules;
use crate::durable::{Disk, IoContext};
use crate::error::Result;
use crate::packages::names::check_hash;

/// The answer to "where do I resolve from".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolutionRoot {
    /// There are no packages, and none are wanted.
    None,
    /// Resolve from this folder.
    Ready(PathBuf),
    /// The wanted packages are not here yet.
    NotReady {
        /// A sentence for people.
        reason: String,
    },
}

/// Label of a host that has none.
pub const DEFAULT_HOST_LABEL: &str = "central backend";

/// Tells whether the tree in use is the desired one. Without a desired hash nothing is wanted, whatever is there.
#[must_use]
pub fn resolve_resolution_root(root: &Path, desired: Option<&str>, host_label: Option<&str>) -> ResolutionRoot {
    let Some(desired) = desired else { return ResolutionRoot::None };
    let paths = Paths::new(root);
    let target = target_of(&paths);
    let current = target.as_deref().and_then(last_component);
    if current.as_deref() == Some(desired) && has_modules(&paths.current) {
        return ResolutionRoot::Ready(paths.current);
    }
    let have = current.map_or_else(|| "none materialized".to_owned(), |hash| format!("have {hash}"));
    let host = host_label.unwrap_or(DEFAULT_HOST_LABEL);
    ResolutionRoot::NotReady {
        reason: format!(
            "npm packages not ready on this {host} (expected {desired}, {have}). The package set is still syncing; retry shortly."
        ),
    }
}

/// Tells whether there is any tree in use; never [`ResolutionRoot::NotReady`].
#[must_use]
pub fn resolve_resolution_root_from_store(root: &Path) -> ResolutionRoot {
    let paths = Paths::new(root);
    if target_of(&paths).is_some() && has_modules(&paths.current) {
        ResolutionRoot::Ready(paths.current)
    } else {
        ResolutionRoot::None
    }
}

/// A tree that stays as long as this lives.
#[derive(Debug)]
pub struct Snapshot {
    /// The tree's real path: no flip moves it.
    pub root: PathBuf,
    /// Its hash.
    pub lockfile_hash: String,
    /// Keeps it; dropping it gives it up.
    pub pin: Pin,
}

/// What [`snapshot_resolution_root`] finds.
#[derive(Debug)]
pub enum SnapshotRoot {
    /// As [`ResolutionRoot::None`].
    None,
    /// The pinned tree.
    Ready(Snapshot),
    /// As [`ResolutionRoot::NotReady`].
    NotReady {
        /// A sentence for people.
        reason: String,
    },
}

/// Pins the tree in use and returns its real path. `desired`: `None` takes whatever is in use; `Some(None)` wants nothing;
/// `Some(hash)` wants that one.
///
/// # Errors
/// Any I/O failure of the pin.
pub fn snapshot_resolution_root(
    disk: &Disk,
    root: &Path,
    desired: Option<Option<&str>>,
    host_label: Option<&str>,
) -> Result<SnapshotRoot> {
    let paths = Paths::new(root);
    loop {
        let status = match desired {
            None => resolve_resolution_root_from_store(root),
            Some(desired) => resolve_resolution_root(root, desired, host_label),
        };
        match status {
            ResolutionRoot::None => return Ok(SnapshotRoot::None),
            ResolutionRoot::NotReady { reason } => return Ok(SnapshotRoot::NotReady { reason }),
            ResolutionRoot::Ready(_) => {}
        }
        let hash_in_use = || link::read_current_target(&paths.current).as_deref().and_then(last_component);
        let Some(hash) = hash_in_use() else { continue };
        check_hash(&hash)?;
        let pin = pins::pin(disk, &paths, &hash).map_err(|error| obstacles::explain(&paths, error))?;
        // While the pin was taken the tree may have gone out of use, and even away: then the one that followed it is pinned.
        // What is pinned is what is answered: by its own name, because the link may lead elsewhere a moment later.
        let tree = paths.tree(&hash);
        if hash_in_use().as_deref() == Some(hash.as_str()) && has_modules(&tree) {
            let root = fs::canonicalize(&tree).at("realpath", &tree)?;
            return Ok(SnapshotRoot::Ready(Snapshot { root, lockfile_hash: hash, pin }));
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn store(hash: &str) -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        fs::create_dir_all(paths.tree(hash).join("node_modules")).unwrap();
        std::os::unix::fs::symlink(format!("trees/{hash}"), &paths.current).unwrap();
        (root, paths)
    }

    fn reason(status: ResolutionRoot) -> String {
        match status {
            ResolutionRoot::NotReady { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tells_none_ready_and_not_ready() {
        let (dir, paths) = store("old-hash");
        let root = dir.path();
        assert_eq!(resolve_resolution_root(root, None, None), ResolutionRoot::None);
        assert_eq!(resolve_resolution_root(root, Some("old-hash"), None), ResolutionRoot::Ready(paths.current.clone()));
        assert_eq!(
            reason(resolve_resolution_root(root, Some("new"), None)),
            "npm packages not ready on this central backend (expected new, have old-hash). The package set is still \
             syncing; retry shortly."
        );
        assert_eq!(resolve_resolution_root_from_store(root), ResolutionRoot::Ready(paths.current.clone()));
        fs::remove_dir(paths.tree("old-hash").join("node_modules")).unwrap();
        assert!(reason(resolve_resolution_root(root, Some("old-hash"), None)).contains("have old-hash"));
        assert_eq!(resolve_resolution_root_from_store(root), ResolutionRoot::None);
        let empty = tempfile::tempdir().unwrap();
        let text = reason(resolve_resolution_root(empty.path(), Some("h"), Some("satellite")));
        assert!(text.contains("not ready on this satellite (expected h, none materialized)"), "{text}");
    }

    #[test]
    fn a_snapshot_is_the_real_path_and_a_pin() {
        let (dir, paths) = store("h1");
        let SnapshotRoot::Ready(snapshot) = snapshot_resolution_root(&Disk::real(), dir.path(), None, None).unwrap()
        else {
            panic!("not ready")
        };
        assert_eq!(snapshot.root, fs::canonicalize(paths.tree("h1")).unwrap());
        assert!(pins::is_pinned(&paths, "h1"));
        drop(snapshot);
        assert!(!pins::is_pinned(&paths, "h1"));
        let wanted = snapshot_resolution_root(&Disk::real(), dir.path(), Some(Some("h2")), None).unwrap();
        assert!(matches!(wanted, SnapshotRoot::NotReady { .. }));
        let nothing = snapshot_resolution_root(&Disk::real(), dir.path(), Some(None), None).unwrap();
        assert!(matches!(nothing, SnapshotRoot::None));
    }
}
