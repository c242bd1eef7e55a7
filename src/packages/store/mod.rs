//! The store of one host: cache, trees and the link to the tree in use.
//!
//! What a kill or a power cut leaves is always one of: nothing, the old tree, a complete tree. Everything is made in
//! `.hf/staging`, synced there, and comes into place by one rename; a marker, a completeness record or the link is written only
//! when what it speaks of is on the disk. Writers hold the root's lock ([`lock`]), readers none.
//!
//! All methods block; call them on a pool thread.

mod bun;
mod cache_gc;
mod files;
mod folder;
mod gc;
pub mod index;
mod layout;
mod leftovers;
pub mod link;
mod lock;
mod markers;
mod materialize;
mod obstacles;
pub mod paths;
pub mod pins;
mod publish;
pub mod record;
mod repair;
pub mod resolve;
pub mod retire;
pub mod rows;
mod seed;
mod settled;
mod stats;
mod survey;
mod tree;
mod verify;
mod work;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::lock::{RootLock, Shared};
use self::paths::Paths;
use self::retire::Now;
use self::settled::Settled;
use crate::durable::Disk;
use crate::durable::pool::Pool;
use crate::error::Result;
use crate::packages::archive::Limits;

pub use self::cache_gc::{CacheGcResult, DEFAULT_CACHE_GC_GRACE_MS};
pub use self::gc::TreeGcResult;
pub use self::layout::TreePlan;
pub use self::materialize::{Materialized, entry_missing};
pub use self::repair::RepairReport;
pub use self::seed::Seeded;
pub use self::stats::{StoreStats, TreeStats};
pub use self::verify::VerifyReport;

/// The threads for calls that take a root's lock: however many wait for one that another process holds, no thread of the shared
/// pool is among them, on which every other call of the process depends.
pub static LOCKED: Pool = Pool::new();

/// Default grace before a retired tree is taken away: an hour.
pub const DEFAULT_TREE_GC_GRACE_MS: f64 = 3_600_000.0;

/// How files come from the cache into a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkMode {
    /// Copy-on-write copies where the file system has them, else hard links, else copies.
    #[default]
    Auto,
    /// Copy-on-write copies; files that cannot be cloned are copied.
    Reflink,
    /// Hard links; files that cannot be linked are copied.
    Hardlink,
    /// Copies.
    Copy,
}

/// Who makes `node_modules`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Materializer {
    /// holdfast itself.
    #[default]
    Native,
    /// `bun install --offline`, with a lockfile that says what holdfast would have done.
    Bun {
        /// The program; default: `bun` of the search path.
        path: Option<PathBuf>,
    },
}

/// The settings of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// How files come into trees.
    pub link_mode: LinkMode,
    /// Who makes `node_modules`.
    pub materializer: Materializer,
    /// Direct dependencies: name to the version that stands at the root of the tree.
    pub roots: BTreeMap<String, String>,
    /// Refuse entries without `blobSha256`. Default false.
    pub require_blob_sha256: bool,
    /// Refuse a hash that is not the manifest's. Default false: it is an opaque label.
    pub verify_lockfile_hash: bool,
    /// Hash a tree again before flipping to it. Default false.
    pub verify_full: bool,
    /// Sync everything. Default true; without it what is written survives the process, not a power cut.
    pub durability_full: bool,
    /// Bounds of archives.
    pub limits: Limits,
    /// How long to wait for the root's lock. Default ten minutes.
    pub lock_timeout: Duration,
    /// Grace of the sweep after each flip. Default an hour.
    pub tree_gc_grace_ms: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            link_mode: LinkMode::default(),
            materializer: Materializer::default(),
            roots: BTreeMap::new(),
            require_blob_sha256: false,
            verify_lockfile_hash: false,
            verify_full: false,
            durability_full: true,
            limits: Limits::default(),
            lock_timeout: Duration::from_secs(600),
            tree_gc_grace_ms: DEFAULT_TREE_GC_GRACE_MS,
        }
    }
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For those who look.
    Debug,
    /// Something failed, and the call went on.
    Error,
}

/// How far a tree's making is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Packages in place.
    pub packages: u64,
    /// Packages to place.
    pub packages_total: u64,
    /// Files in place.
    pub files: u64,
    /// Files to place.
    pub files_total: u64,
    /// Bytes of the files in place.
    pub bytes: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
}

/// What a call needs of its caller. The functions are called on any thread.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Asked between files; its error ends the call, which then leaves nothing behind.
    pub cancel: &'a (dyn Fn() -> Result<()> + Sync),
    /// Told after each package.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Takes log lines.
    pub log: &'a (dyn Fn(Level, &str) + Sync),
}

impl Context<'_> {
    /// Returns a context that never cancels and tells nobody.
    #[must_use]
    pub fn quiet() -> Context<'static> {
        Context { cancel: &|| Ok(()), progress: &|_| {}, log: &|_, _| {} }
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

/// The store below one root. Cheap to clone; nothing is made on the disk until something is written.
#[derive(Debug, Clone)]
pub struct Store {
    disk: Disk,
    paths: Paths,
    options: Arc<Options>,
    settled: Settled,
}

impl Store {
    /// Returns the store below `root`, which need not exist.
    #[must_use]
    pub fn open(root: &Path, options: Options) -> Self {
        Self::with_disk(Disk::real(), root, options)
    }

    /// As [`Store::open`], with a disk that tests may disturb.
    #[must_use]
    pub fn with_disk(disk: Disk, root: &Path, options: Options) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Self { disk, paths: Paths::new(&root), options: Arc::new(options), settled: Settled::default() }
    }

    /// Returns where everything stands.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Returns the settings.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn shared(&self) -> Result<Arc<Shared>> {
        lock::shared(&self.disk, &self.paths)
    }

    fn lock(&self, context: &Context<'_>) -> Result<RootLock> {
        let shared = self.shared()?;
        loop {
            let wait = self.options.lock_timeout;
            if let Some(lock) = RootLock::take(&self.disk, &self.paths, &shared, wait, context, || false)? {
                return Ok(lock);
            }
        }
    }

    /// Returns the integrities that are in the cache, sorted bytewise.
    ///
    /// # Errors
    /// Any I/O failure except that something is not there.
    pub fn local_integrities(&self) -> Result<Vec<String>> {
        markers::local_integrities(&self.disk, &self.paths)
    }

    /// Returns the hash of the tree in use; `None` if it is missing or damaged as far as its record tells, or if the link to it
    /// may not be on the disk. Costs three system calls and the reading of one small file; the first call of a process for a
    /// root also syncs its folder.
    #[must_use]
    pub fn current_lockfile_hash(&self) -> Option<String> {
        link::current_hash(&self.paths).filter(|hash| self.is_settled(hash))
    }

    /// Tells whether a link to the tree `hash` survives a power cut, as far as this store cares.
    fn is_settled(&self, hash: &str) -> bool {
        !self.options.durability_full || self.settled.holds(&self.disk, &self.paths.root, hash)
    }

    /// Takes away trees that have been out of use for `grace_ms`; see [`TreeGcResult`].
    ///
    /// # Errors
    /// The root's lock was not obtained, or the trees cannot be listed.
    pub fn sweep_tree_gc(&self, grace_ms: f64, now: Now, context: &Context<'_>) -> Result<TreeGcResult> {
        if !self.paths.trees.is_dir() {
            // Nothing is made on the disk of a store that has no trees.
            let current_hash = link::target_of(&self.paths).as_deref().and_then(paths::last_component);
            return Ok(TreeGcResult { current_hash, ..TreeGcResult::default() });
        }
        let mut lock = self.lock(context)?;
        gc::sweep(&self.disk, &self.paths, &mut lock, grace_ms, now, self.options.durability_full, context)
    }
}
