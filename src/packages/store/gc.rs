//! Taking retired trees away.

use std::fs;
use std::path::{Path, PathBuf};

use super::link::target_of;
use super::lock::RootLock;
use super::paths::{Paths, last_component};
use super::pins::Unpinned;
use super::retire::{self, Now};
use super::{Context, Level};
use crate::durable::{Disk, IoContext, optional, sync};
use crate::error::Result;
use crate::ids;

/// How far in the future a marker may lie before it is written anew: clocks of hosts differ a little.
const FUTURE_MS: f64 = 60_000.0;

/// What a sweep did. Hashes are in byte order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeGcResult {
    /// Trees taken away.
    pub deleted: Vec<String>,
    /// Trees out of use that stay for now: within grace, pinned, or because it is not known what is in use.
    pub kept_within_grace: Vec<String>,
    /// The hash that the link names, whether or not its tree exists.
    pub current_hash: Option<String>,
}

/// Sweeps the trees of a root. The caller holds the lock; what is deleted is only moved to trash here, and removed when the
/// lock is given back. With `full` it is on the disk that they are gone once this returns.
///
/// # Errors
/// The folder of trees cannot be listed, or not be synced. Failures of single trees are logged.
pub(super) fn sweep(
    disk: &Disk,
    paths: &Paths,
    lock: &mut RootLock,
    grace_ms: f64,
    now: Now,
    full: bool,
    context: &Context<'_>,
) -> Result<TreeGcResult> {
    let mut result = TreeGcResult { current_hash: current(paths), ..TreeGcResult::default() };
    let Some(names) = optional(disk.list(&paths.trees)).at("scandir", &paths.trees)? else { return Ok(result) };
    for name in names {
        // Names that are not hashes cannot be pinned either, and are none of ours.
        let Ok(name) = name.into_string() else { continue };
        let tree = paths.tree(&name);
        let is_dir = fs::symlink_metadata(&tree).is_ok_and(|metadata| metadata.is_dir());
        if name.starts_with('.') || !is_dir || result.current_hash.as_deref() == Some(name.as_str()) {
            continue;
        }
        if result.current_hash.is_none() || !is_due(disk, &tree, grace_ms, now) {
            result.kept_within_grace.push(name);
            continue;
        }
        match take_away(disk, paths, &name) {
            Ok(Some(trash)) => {
                lock.remove_later(trash);
                result.deleted.push(name);
            }
            Ok(None) => result.kept_within_grace.push(name),
            Err(error) => {
                (context.log)(Level::Error, &format!("Tree {name} could not be deleted: {}", error.message()));
            }
        }
    }
    if full && !result.deleted.is_empty() {
        // Before the lock is free, and before anything of them is removed: a power cut must not bring back a name whose files
        // are gone.
        sync::dirs(disk, [paths.trees.clone()])?;
    }
    Ok(result)
}

fn current(paths: &Paths) -> Option<String> {
    last_component(&target_of(paths)?)
}

/// Tells whether a tree has been out of use for long enough. One that nobody knows the time of, or that claims to have retired
/// in the future, is taken to retire now.
fn is_due(disk: &Disk, tree: &Path, grace_ms: f64, now: Now) -> bool {
    match retire::read(tree) {
        Some(retired) if retired.at_ms <= now.epoch_ms() + FUTURE_MS => {
            let age = retired.age_ms(now);
            age >= grace_ms
        }
        _ => {
            retire::mark(disk, tree, now);
            false
        }
    }
}

/// Moves a tree to trash; `None` if it is pinned or came into use meanwhile.
fn take_away(disk: &Disk, paths: &Paths, name: &str) -> Result<Option<PathBuf>> {
    let tree = paths.tree(name);
    let Some(unpinned) = Unpinned::take(paths, name).at("lock", &paths.pins())? else { return Ok(None) };
    let trash = paths.trash();
    disk.create_dirs(&trash).at("mkdir", &trash)?;
    let aside = trash.join(ids::uuid());
    disk.rename(&tree, &aside).at("rename", &tree)?;
    // Programs that know nothing of the lock may flip the link, too.
    if current(paths).as_deref() == Some(name) {
        disk.rename(&aside, &tree).at("rename", &aside)?;
        return Ok(None);
    }
    unpinned.finish(disk, paths, name);
    Ok(Some(aside))
}

#[cfg(test)]
#[cfg(unix)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::packages::store::{lock, pins};

    const HOUR: f64 = 3_600_000.0;
    const NOW: f64 = 1_700_000_000_000.0;

    struct Fixture {
        _root: tempfile::TempDir,
        paths: Paths,
    }

    fn fixture(trees: &[&str], current: Option<&str>) -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        for tree in trees {
            fs::create_dir_all(paths.tree(tree).join("node_modules")).unwrap();
        }
        if let Some(hash) = current {
            std::os::unix::fs::symlink(format!("trees/{hash}"), &paths.current).unwrap();
        }
        Fixture { _root: root, paths }
    }

    impl Fixture {
        fn sweep(&self, now: f64) -> TreeGcResult {
            let disk = Disk::real();
            let shared = lock::shared(&disk, &self.paths).unwrap();
            let wait = Duration::from_secs(5);
            let mut lock =
                RootLock::take(&disk, &self.paths, &shared, wait, &Context::quiet(), || false).unwrap().unwrap();
            sweep(&disk, &self.paths, &mut lock, HOUR, Now::Given(now), true, &Context::quiet()).unwrap()
        }

        fn retire(&self, tree: &str, at: f64) {
            retire::mark(&Disk::real(), &self.paths.tree(tree), Now::Given(at));
        }
    }

    #[test]
    fn age_counts_from_retirement_and_the_current_tree_never_goes() {
        let store = fixture(&["a", "b", "c"], Some("b"));
        for tree in ["a", "b"] {
            store.retire(tree, NOW - 1.0);
        }
        let first = store.sweep(NOW);
        assert_eq!(first.kept_within_grace, ["a", "c"]);
        assert!(first.deleted.is_empty());
        assert_eq!(retire::read(&store.paths.tree("c")).unwrap().at_ms, NOW, "back-filled");
        let second = store.sweep(NOW + HOUR - 1.0);
        assert_eq!((second.deleted, second.kept_within_grace), (vec!["a".into()], vec!["c".into()]));
        assert_eq!(store.sweep(NOW + 10.0 * HOUR).deleted, ["c"]);
        assert!(store.paths.tree("b").exists() && !store.paths.tree("a").exists());
        assert_eq!(fs::read_dir(store.paths.trash()).unwrap().count(), 0);
    }

    #[test]
    fn torn_and_future_markers_are_written_anew() {
        let store = fixture(&["cur", "torn", "future"], Some("cur"));
        fs::write(store.paths.tree("torn").join(".retired-at"), "17").unwrap();
        store.retire("future", NOW + 2.0 * 60_000.0);
        assert_eq!(store.sweep(NOW).kept_within_grace, ["future", "torn"]);
        for tree in ["torn", "future"] {
            assert_eq!(retire::read(&store.paths.tree(tree)).unwrap().at_ms, NOW);
        }
    }

    #[test]
    fn without_a_link_everything_stays() {
        let store = fixture(&["a"], None);
        store.retire("a", 0.0);
        let result = store.sweep(NOW);
        assert_eq!((result.kept_within_grace, result.current_hash), (vec!["a".into()], None));
    }

    #[test]
    fn a_pinned_tree_stays_until_it_is_given_up() {
        let store = fixture(&["a", "b"], Some("b"));
        store.retire("a", 0.0);
        let pin = pins::pin(&Disk::real(), &store.paths, "a").unwrap();
        assert_eq!(store.sweep(NOW).kept_within_grace, ["a"]);
        drop(pin);
        assert_eq!(store.sweep(NOW).deleted, ["a"]);
    }

    #[test]
    fn strangers_among_the_trees_are_passed_over() {
        let store = fixture(&["b", ".hidden"], Some("b"));
        fs::write(store.paths.trees.join("file"), "").unwrap();
        std::os::unix::fs::symlink("b", store.paths.trees.join("link")).unwrap();
        let result = store.sweep(NOW);
        assert_eq!(result, TreeGcResult { current_hash: Some("b".into()), ..TreeGcResult::default() });
    }
}
