//! How much room a store takes.

use std::collections::HashSet;
use std::path::Path;

use super::folder::{Folder, walk};
use super::link::target_of;
use super::materialize::tree_hashes;
use super::paths::last_component;
use super::{Context, Store, markers};
use crate::error::Result;

/// One tree's room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeStats {
    /// Its hash.
    pub lockfile_hash: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes that would be free if it were gone: those of files that have no other name, in the cache or in another tree.
    pub own_bytes: u64,
    /// How many files it has.
    pub files: u64,
    /// Whether it is the one in use.
    pub current: bool,
}

/// A store's room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of the cache.
    pub cache_bytes: u64,
    /// Entries in the cache, by their markers.
    pub cache_entries: u64,
    /// Trees, by hash.
    pub trees: Vec<TreeStats>,
    /// Bytes of everything, files with several names counted once.
    pub total_bytes: u64,
}

impl Store {
    /// Measures the store. Files that go away meanwhile are not counted; takes no lock.
    ///
    /// # Errors
    /// The caller's abort; markers that cannot be read.
    pub fn stats(&self, context: &Context<'_>) -> Result<StoreStats> {
        let paths = self.paths();
        let mut seen = HashSet::new();
        let cache_entries = markers::local_integrities(self.disk(), paths)?.len() as u64;
        let mut stats = StoreStats { cache_entries, ..StoreStats::default() };
        let cache = measure(&paths.cache, &mut seen);
        stats.cache_bytes = cache.bytes;
        stats.total_bytes = cache.fresh;
        let current = target_of(paths).as_deref().and_then(last_component);
        for hash in tree_hashes(paths) {
            (context.cancel)()?;
            let tree = measure(&paths.tree(&hash), &mut seen);
            stats.total_bytes += tree.fresh;
            stats.trees.push(TreeStats {
                current: current.as_deref() == Some(hash.as_str()),
                lockfile_hash: hash,
                bytes: tree.bytes,
                own_bytes: tree.own,
                files: tree.files,
            });
        }
        Ok(stats)
    }
}

#[derive(Debug, Default)]
struct Measure {
    bytes: u64,
    /// Of files that were not seen before.
    fresh: u64,
    /// Of files with one name.
    own: u64,
    files: u64,
}

fn measure(root: &Path, seen: &mut HashSet<(u64, u64)>) -> Measure {
    let mut measure = Measure::default();
    let (Ok(folder), Ok((files, _))) = (Folder::open(root), walk(root)) else { return measure };
    for path in files {
        let Ok(status) = folder.status(&path) else { continue };
        measure.files += 1;
        measure.bytes += status.size;
        if status.links == 1 {
            measure.own += status.size;
        }
        // Without inode numbers every file is one of its own.
        if status.id == (0, 0) || seen.insert(status.id) {
            measure.fresh += status.size;
        }
    }
    measure
}
