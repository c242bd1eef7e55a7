//! From a manifest to the tree in use.

use std::time::Instant;

use super::layout::Layout;
use super::link;
use super::lock::RootLock;
use super::paths::{Paths, RECORD, TREES};
use super::publish::put_in_place;
use super::retire::Now;
use super::survey::{self, Depth};
use super::tree::{self, Inputs, Staged};
use super::{Context, Level, Materializer, Store, bun, gc, record, settled};
use crate::durable::{IoContext, sync};
use crate::error::{Code, HfError, Result};
use crate::packages::lockfile::{self, Entry};
use crate::packages::names;

/// What [`Store::materialize_and_flip`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Materialized {
    /// The tree is in use.
    Flipped {
        /// Whether it had to be built; else it was there.
        built: bool,
    },
    /// Nothing was changed: the entries at these positions of the manifest are missing or damaged in the cache. Seed them (with
    /// `force`) and call again; if they are named again, see [`entry_missing`].
    Missing(Vec<usize>),
}

/// The error of an entry that is missing although it was pulled again.
#[must_use]
pub fn entry_missing(entry: &Entry) -> HfError {
    let Entry { name, version, integrity, .. } = entry;
    let message = format!("Cache entry for {name}@{version} is missing or damaged and could not be re-pulled");
    HfError::new(Code::PkgEntryMissing, message)
        .with_field("name", name.as_str())
        .with_field("version", version.as_str())
        .with_field("integrity", integrity.as_str())
}

impl Store {
    /// Builds the tree of a manifest, unless it is there, and makes it the one in use; then sweeps retired trees. A kill at any
    /// point leaves the old tree in use or the new one, complete.
    ///
    /// # Errors
    /// [`Code::PkgBadHash`], [`Code::PkgBadName`], [`Code::PkgDepMissing`], [`Code::PkgBun`], [`Code::PkgLockTimeout`], the
    /// caller's abort, any I/O failure. The tree in use is as before, unless the failure is that of the last sync.
    pub fn materialize_and_flip(&self, hash: &str, manifest: &[Entry], context: &Context<'_>) -> Result<Materialized> {
        names::check_hash(hash)?;
        for entry in manifest {
            names::check_name(&entry.name)?;
            names::check_version(&entry.name, &entry.version)?;
        }
        if self.options().verify_lockfile_hash {
            let actual = lockfile::lockfile_hash(manifest);
            if actual != hash {
                let message = format!("Invalid lockfile hash \"{hash}\": that of the manifest is {actual}");
                return Err(HfError::new(Code::PkgBadHash, message).with_field("lockfileHash", hash));
            }
        }
        let mut lock = self.lock(context)?;
        let built = match self.judge(hash, context)? {
            Judgement::Built => false,
            Judgement::Missing => {
                // Whoever wants trees verified wants no new one made of files that only look right.
                let depth = if self.options().verify_full { Depth::Content } else { Depth::Glance };
                match self.build(hash, manifest, depth, &mut lock, context)? {
                    Some(missing) => return Ok(Materialized::Missing(missing)),
                    None => true,
                }
            }
            // What is wrong with the tree may be wrong with the cache, whose files it shares.
            Judgement::Damaged => match self.build(hash, manifest, Depth::Content, &mut lock, context)? {
                Some(missing) => return Ok(Materialized::Missing(missing)),
                None => true,
            },
        };
        (context.cancel)()?;
        self.flip(hash, &mut lock, context)?;
        Ok(Materialized::Flipped { built })
    }

    /// Builds a tree anew and exchanges it for the one that is there; which one is in use stays as it is.
    pub(super) fn rebuild(&self, hash: &str, manifest: &[Entry], context: &Context<'_>) -> Result<Materialized> {
        let mut lock = self.lock(context)?;
        Ok(match self.build(hash, manifest, Depth::Content, &mut lock, context)? {
            Some(missing) => Materialized::Missing(missing),
            None => Materialized::Flipped { built: true },
        })
    }

    /// Makes a tree that is still there the one in use again, without a network and without building anything.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there is no such tree, or if it is damaged (looked at closely only with
    /// [`super::Options::verify_full`]); else as [`Store::materialize_and_flip`].
    pub fn rollback_to(&self, hash: &str, context: &Context<'_>) -> Result<()> {
        names::check_hash(hash)?;
        let mut lock = self.lock(context)?;
        if self.judge(hash, context)? != Judgement::Built {
            let root = self.paths().root.display();
            let message = format!(
                "No complete tree {hash} is left in {root}; reconcile to it instead, which pulls what is missing"
            );
            return Err(HfError::new(Code::InvalidArgument, message).with_field("lockfileHash", hash));
        }
        self.flip(hash, &mut lock, context)
    }

    fn judge(&self, hash: &str, context: &Context<'_>) -> Result<Judgement> {
        if !record::is_built(&self.paths().tree(hash), hash) {
            return Ok(Judgement::Missing);
        }
        if self.options().verify_full && !self.verify_tree(hash, context)?.is_sound() {
            return Ok(Judgement::Damaged);
        }
        Ok(Judgement::Built)
    }

    /// Builds a tree and brings it into place. Returns the positions of entries without which it cannot be built.
    fn build(
        &self,
        hash: &str,
        manifest: &[Entry],
        depth: Depth,
        lock: &mut RootLock,
        context: &Context<'_>,
    ) -> Result<Option<Vec<usize>>> {
        let started = Instant::now();
        let positions = survey::distinct(manifest);
        let (sources, missing) = survey::survey(self, manifest, &positions, depth, context)?;
        if !missing.is_empty() {
            return Ok(Some(missing));
        }
        let layout = Layout::of(self, manifest, &sources)?;
        layout.log(context);
        let inputs = Inputs { hash, manifest, layout: &layout, sources: &sources };
        let staged = match &self.options().materializer {
            Materializer::Native => tree::build(self, inputs, context)?,
            Materializer::Bun { path } => bun::build(self, inputs, path.as_deref(), context)?,
        };
        (context.cancel)()?;
        self.install(hash, staged, lock)?;
        let (count, elapsed) = (layout.placement.placed.len(), started.elapsed().as_millis());
        (context.log)(Level::Debug, &format!("Built the tree {hash} of {count} package(s) in {elapsed} ms."));
        Ok(None)
    }

    /// Renames a staged tree to its place.
    fn install(&self, hash: &str, staged: Staged, lock: &mut RootLock) -> Result<()> {
        let (disk, paths) = (self.disk(), self.paths());
        let made = disk.create_dirs(&paths.trees).at("mkdir", &paths.trees)?;
        let tree = paths.tree(hash);
        put_in_place(disk, staged.staging.path(), &staged.tree, &tree).at("rename", &tree)?;
        // Here, too, and not only before a flip: a tree that is rebuilt may be the one in use, and then nothing is flipped.
        if self.options().durability_full
            && let Err(error) = sync::dirs(disk, made.into_iter().chain([paths.trees.clone()]))
        {
            // The system may say yes the next time without having written anything. Without record it is built anew.
            let _ = disk.remove_file(&tree.join(RECORD));
            return Err(error);
        }
        // What was exchanged for it goes when nobody has to wait for that.
        lock.remove_staging_later(staged.staging);
        Ok(())
    }

    fn flip(&self, hash: &str, lock: &mut RootLock, context: &Context<'_>) -> Result<()> {
        let (disk, paths, options) = (self.disk(), self.paths(), self.options());
        if link::target_of(paths) != Some(link_text(hash)) || !self.is_settled(hash) {
            // Here and not when a tree is built: whoever built this one may have been killed before its name was on the disk.
            if options.durability_full
                && let Err(error) = sync::dirs(disk, [paths.trees.clone()])
            {
                // The system may say yes the next time without having written anything. Without record it is built anew.
                let _ = disk.remove_file(&paths.tree(hash).join(RECORD));
                return Err(error);
            }
            if options.durability_full {
                settled::begin(&paths.root, hash);
            }
            link::flip(disk, paths, hash, Now::Clock, options.durability_full)?;
            if options.durability_full {
                settled::done(&paths.root);
            }
        }
        if let Err(error) =
            gc::sweep(disk, paths, lock, options.tree_gc_grace_ms, Now::Clock, options.durability_full, context)
        {
            (context.log)(Level::Error, &format!("Tree GC after flip to {hash} failed: {}", error.message()));
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Built,
    Missing,
    Damaged,
}

fn link_text(hash: &str) -> String {
    format!("{TREES}/{hash}")
}

/// Returns the hashes of all trees of a root.
pub(super) fn tree_hashes(paths: &Paths) -> Vec<String> {
    let children = std::fs::read_dir(&paths.trees).into_iter().flatten().flatten();
    let mut hashes: Vec<String> = children
        .filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|child| child.file_name().into_string().ok())
        .filter(|name| names::check_hash(name).is_ok())
        .collect();
    hashes.sort_unstable();
    hashes
}
