//! Comparing a tree with its record, byte by byte.

use std::collections::HashSet;

use super::folder::{Folder, walk};
use super::index::{Modes, has_content};
use super::paths::NODE_MODULES;
use super::record::{self, RecordState};
use super::rows::Row;
use super::{Context, Store, work};
use crate::error::Result;
use crate::packages::names;

/// What comparing a tree with its record found. Paths are relative to the tree, in byte order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// The tree has a valid record and `node_modules`; without that nothing else can be said.
    pub has_record: bool,
    /// Files that were compared.
    pub checked: u64,
    /// Files with another content, or of another kind.
    pub damaged: Vec<String>,
    /// Files that are not there.
    pub missing: Vec<String>,
    /// Files in `node_modules` that nobody put there while building. Programs may keep caches there, so they are no damage.
    pub unexpected: Vec<String>,
}

impl VerifyReport {
    /// Tells whether the tree is what was built.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.has_record && self.damaged.is_empty() && self.missing.is_empty()
    }
}

/// How many files a thread compares between two questions whether to go on.
const CHUNK: usize = 32;

impl Store {
    /// Hashes every file of a tree and compares it with the tree's record. Takes no lock.
    ///
    /// # Errors
    /// [`crate::error::Code::PkgBadHash`]; the caller's abort. A tree that is not there, or has no record, is no error but a
    /// report that says so.
    pub fn verify_tree(&self, hash: &str, context: &Context<'_>) -> Result<VerifyReport> {
        names::check_hash(hash)?;
        let tree = self.paths().tree(hash);
        let RecordState::Valid(record) = record::read(&tree, hash) else { return Ok(VerifyReport::default()) };
        let (Some(rows), true, Ok(folder)) =
            (record::read_files(&tree, &record), record::has_modules(&tree), Folder::open(&tree))
        else {
            return Ok(VerifyReport::default());
        };
        let mut report = VerifyReport { has_record: true, checked: rows.len() as u64, ..VerifyReport::default() };
        let modes = Modes::new(self.paths());
        let chunks: Vec<&[Row]> = rows.chunks(CHUNK).collect();
        let found = work::each(&chunks, |chunk| {
            (context.cancel)()?;
            Ok(chunk
                .iter()
                .filter_map(|row| Some((judge(&folder, &modes, row)?, row.path.clone())))
                .collect::<Vec<_>>())
        })?;
        for (wrong, path) in found.into_iter().flatten() {
            match wrong {
                Wrong::Missing => report.missing.push(path),
                Wrong::Damaged => report.damaged.push(path),
            }
        }
        report.unexpected = unexpected(&tree, &rows);
        Ok(report)
    }
}

#[derive(Debug, Clone, Copy)]
enum Wrong {
    Missing,
    Damaged,
}

fn judge(folder: &Folder, modes: &Modes<'_>, row: &Row) -> Option<Wrong> {
    match folder.status(&row.path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Wrong::Missing),
        Err(_) => Some(Wrong::Damaged),
        Ok(status) => {
            let sound = status.is_file != row.is_link() && modes.are_right(&status, row) && has_content(folder, row);
            (!sound).then_some(Wrong::Damaged)
        }
    }
}

fn unexpected(tree: &std::path::Path, rows: &[Row]) -> Vec<String> {
    let known: HashSet<&str> = rows.iter().map(|row| row.path.as_str()).collect();
    let (files, _) = walk(&tree.join(NODE_MODULES)).unwrap_or_default();
    files
        .into_iter()
        .map(|path| format!("{NODE_MODULES}/{path}"))
        .filter(|path| !known.contains(path.as_str()))
        .collect()
}
