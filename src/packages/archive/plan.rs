//! What an archive holds, after it was judged.

use std::collections::HashSet;

use super::confined::Folder;
use super::inflate::Kept;
use super::names;
use crate::error::{Code, HfError, Result};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Dir,
    /// A regular file.
    File,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the target, with `/`, without `.` and empty components; where case is folded, folders have the spelling
    /// of their first use.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file, 0 for a folder.
    pub size: u64,
    /// Tells whether a file has any execute bit.
    pub exec: bool,
    /// Where the bytes begin in the inflated archive.
    pub(super) offset: u64,
    /// The folder itself, or that of the file.
    pub(super) dir: usize,
}

/// A whole archive that was found to be safe: what [`super::unpack`] writes. It belongs to the bytes it was made from.
#[derive(Debug)]
pub struct Plan {
    pub(super) entries: Vec<Entry>,
    /// The folders that entries name or need; the first is the target.
    pub(super) dirs: Vec<Folder>,
    /// The inflated archive, when it is kept.
    pub(super) inflated: Option<Kept>,
}

impl Plan {
    /// Returns the entries in the order of the archive. A folder that is named twice, and the archive's root, are left out.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Tells whether two of its paths are one where case is folded.
    pub(super) fn collides_when_folded(&self) -> bool {
        let files = self.entries.iter().filter(|entry| entry.kind == Kind::File).map(|entry| entry.path.as_str());
        let mut seen = HashSet::new();
        let mut paths = files.chain(self.dirs.iter().map(|dir| dir.path.as_str()));
        paths.any(|path| !seen.insert(names::folded(path)))
    }

    /// Returns the one folder that holds everything: the top-level one, or, where that is a scope (`@acme`), the only one in
    /// it (`@acme/x@1.0.0`).
    ///
    /// # Errors
    /// `HF_PKG_LAYOUT`, with a message that says only what is wrong; the caller puts the package's name before it.
    pub fn single_root(&self) -> Result<&str> {
        let wrong = |what: String| Err(HfError::new(Code::PkgLayout, what));
        let top = self.only_dir(1).or_else(wrong)?;
        let (depth, root) = if top.starts_with('@') { (2, self.only_dir(2).or_else(wrong)?) } else { (1, top) };
        match self.entries.iter().find(|entry| entry.kind == Kind::File && self.depth(entry.dir) < depth) {
            Some(file) => {
                wrong(format!("the file \"{}\" is outside of the folder \"{root}\"", super::shown(&file.path)))
            }
            None => Ok(root),
        }
    }

    fn only_dir(&self, depth: usize) -> std::result::Result<&str, String> {
        let mut found = self.dirs.iter().filter(|dir| dir.depth == depth);
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(&only.path),
            (None, _) => Err("it holds no folder".to_owned()),
            (Some(a), Some(b)) => {
                Err(format!("it holds \"{}\" and \"{}\" side by side", super::shown(&a.path), super::shown(&b.path)))
            }
        }
    }

    pub(super) fn depth(&self, dir: usize) -> usize {
        self.dirs.get(dir).map_or(0, |dir| dir.depth)
    }
}
