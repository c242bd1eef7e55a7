//! Making a damaged tree whole again.

use super::materialize::Materialized;
use super::paths::MANIFEST;
use super::record::{self, RecordState};
use super::seed::read_small;
use super::{Context, Store};
use crate::error::{Code, HfError, Result};
use crate::packages::lockfile::{self, Entry};
use crate::packages::names;

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairReport {
    /// The tree is what was built.
    Sound {
        /// Whether it had to be built anew.
        rebuilt: bool,
    },
    /// These entries are damaged in the cache, too. Seed them (with `force`) and call again.
    Missing(Vec<Entry>),
}

impl Store {
    /// Verifies a tree and, if it is damaged, builds it anew from the manifest that is kept in it, after every cache entry that it
    /// needs was hashed, too. The damaged tree is exchanged in one step; which tree is in use does not change. What programs
    /// wrote into the tree is lost with it.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the tree keeps no manifest (the original's do not); [`Code::Io`] if it is damaged again once
    /// it was rebuilt; else as [`Store::materialize_and_flip`].
    pub fn repair_tree(&self, hash: &str, context: &Context<'_>) -> Result<RepairReport> {
        names::check_hash(hash)?;
        if self.verify_tree(hash, context)?.is_sound() {
            return Ok(RepairReport::Sound { rebuilt: false });
        }
        let manifest = self.manifest_of(hash)?.ok_or_else(|| {
            let message = format!(
                "The tree {hash} in {} keeps no manifest that could be read, so it cannot be repaired; reconcile to it instead",
                self.paths().root.display()
            );
            HfError::new(Code::InvalidArgument, message).with_field("lockfileHash", hash)
        })?;
        Ok(match self.rebuild(hash, &manifest, context)? {
            Materialized::Flipped { built } => {
                let report = self.verify_tree(hash, context)?;
                if !report.is_sound() {
                    return Err(self.still_damaged(hash, report.damaged.iter().chain(&report.missing).next()));
                }
                RepairReport::Sound { rebuilt: built }
            }
            Materialized::Missing(positions) => {
                RepairReport::Missing(positions.into_iter().filter_map(|at| manifest.get(at).cloned()).collect())
            }
        })
    }

    fn still_damaged(&self, hash: &str, path: Option<&String>) -> HfError {
        let (root, path) = (self.paths().root.display(), path.map_or("its record", String::as_str));
        let message = format!(
            "The tree {hash} in {root} is damaged again right after it was rebuilt ({path}); is another program writing there, \
             or is the disk failing?"
        );
        HfError::new(Code::Io, message).with_field("lockfileHash", hash)
    }

    /// Returns the manifest that a tree was built from; `None` if the tree keeps none, or not the one that its record speaks of.
    ///
    /// # Errors
    /// An I/O failure.
    pub(super) fn manifest_of(&self, hash: &str) -> Result<Option<Vec<Entry>>> {
        let tree = self.paths().tree(hash);
        let text = read_small(self.disk(), &tree.join(MANIFEST))?;
        let manifest: Option<Vec<Entry>> = text.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(manifest.filter(|manifest| match record::read(&tree, hash) {
            RecordState::Valid(record) => record.manifest_hash == lockfile::lockfile_hash(manifest),
            _ => true,
        }))
    }
}
