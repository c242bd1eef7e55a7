//! The runtime store: the JSON files of one directory that stay trustworthy after a crash.
//!
//! Writers commit several files as one *batch* ([`batch`]): a complete redo folder is made durable, then everything is
//! renamed into place. A *manifest* ([`manifest`]) says which bytes are the committed ones, *receipts* ([`receipts`]) say
//! which batch wrote them. After a restart a *planner* ([`planner`]) compares the three, and [`executor`] acts on it.

pub mod archive;
pub mod batch;
pub mod decide;
pub mod doctor;
pub mod error;
pub mod executor;
pub mod format;
pub mod group;
pub mod inspector;
pub mod manifest;
pub mod merge;
pub mod paths;
pub mod planner;
pub mod publish;
pub mod receipts;
mod records;
pub mod recovery;
pub mod settle;
mod sidecars;
pub mod single;
pub mod snapshot;
pub mod stage;
pub mod stores;
mod undo;

use std::path::{Path, PathBuf};

use crate::durable::atomic::{Durability, folder_of};
use crate::durable::lock;

/// Where a runtime store lives and how it is treated: everything that all operations share.
#[derive(Debug, Clone)]
pub struct Context {
    /// The runtime directory, absolute.
    pub dir: PathBuf,
    /// The manifest file, absolute.
    pub manifest: PathBuf,
    /// The receipts file, absolute.
    pub receipts: PathBuf,
    /// Schema names that are legal besides the built-in ones.
    pub extra_names: Vec<String>,
    /// Whether barriers are synced.
    pub durability: Durability,
    /// Waiting for locks.
    pub lock_options: lock::Options,
}

impl Context {
    /// Returns the folder that holds the manifest and the sidecar.
    #[must_use]
    pub fn base(&self) -> &Path {
        folder_of(&self.manifest)
    }

    /// Returns the border of the runtime directory.
    #[must_use]
    pub fn fence(&self) -> paths::Fence {
        paths::Fence::around(&self.dir, &[&self.manifest, &self.receipts])
    }

    /// Returns the sidecar folder.
    #[must_use]
    pub fn sidecar(&self) -> PathBuf {
        self.base().join(format::SIDECAR)
    }
}
