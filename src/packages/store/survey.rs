//! Looking at the cache before a tree is made of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use super::folder::{Folder, walk};
use super::index::{self, Found};
use super::rows::{Row, hash_file};
use super::{Context, Store, work};
use crate::durable::IoContext;
use crate::error::Result;
use crate::packages::lockfile::Entry;
use crate::packages::names::find_cache_entry;
use crate::packages::place::PackageJson;

/// A cache entry that is as it should be.
#[derive(Debug)]
pub(super) struct Source {
    /// Its folder, relative to the cache.
    pub(super) dir: String,
    /// Its files, sorted by path.
    pub(super) rows: Vec<Row>,
    /// What its `package.json` says, if it has one.
    pub(super) package: Option<PackageJson>,
}

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Names, kinds and sizes; content only of files that were written to after their record.
    Glance,
    /// The content of every file.
    Content,
}

/// Returns the positions of the entries that count: of those with one name and version the first.
pub(super) fn distinct(manifest: &[Entry]) -> Vec<usize> {
    let mut seen = HashSet::with_capacity(manifest.len());
    let fresh = |entry: &'_ Entry| seen.insert((entry.name.clone(), entry.version.clone()));
    let kept: Vec<bool> = manifest.iter().map(fresh).collect();
    kept.into_iter().enumerate().filter_map(|(position, kept)| kept.then_some(position)).collect()
}

/// Looks for the entries at `positions`. Returns those that are sound, by position, and the positions of the others.
///
/// # Errors
/// The caller's abort, or an I/O failure that says nothing about one entry.
pub(super) fn survey(
    store: &Store,
    manifest: &[Entry],
    positions: &[usize],
    depth: Depth,
    context: &Context<'_>,
) -> Result<(HashMap<usize, Source>, Vec<usize>)> {
    let found = work::each(positions, |position| {
        (context.cancel)()?;
        match manifest.get(*position) {
            Some(entry) => find(store, entry, depth),
            None => Ok(None),
        }
    })?;
    let (mut sources, mut missing) = (HashMap::with_capacity(positions.len()), Vec::new());
    for (position, source) in positions.iter().zip(found) {
        match source {
            Some(source) => drop(sources.insert(*position, source)),
            None => missing.push(*position),
        }
    }
    Ok((sources, missing))
}

fn find(store: &Store, entry: &Entry, depth: Depth) -> Result<Option<Source>> {
    let paths = store.paths();
    let record_path = paths.index_record(&entry.integrity);
    let (dir, rows) = match index::read(store.disk(), paths, &entry.integrity).at("read", &record_path)? {
        Found::Damaged => return Ok(None),
        Found::Record(dated) => {
            let record = &dated.record;
            let sound = record.name == entry.name && record.version == entry.version && index::is_sound(paths, &dated);
            if !sound || (depth == Depth::Content && !has_all_content(&paths.cache.join(&record.dir), &record.files)) {
                return Ok(None);
            }
            (dated.record.dir, dated.record.files)
        }
        // Made by the original, which kept no records: what is there is taken as it is.
        Found::Nothing => {
            let Some((_, dir)) = find_cache_entry(&paths.cache, &entry.name, &entry.version) else { return Ok(None) };
            let Ok(rows) = scan(&paths.cache.join(&dir)) else { return Ok(None) };
            (dir, rows)
        }
    };
    let package = read_package(&paths.cache.join(&dir), &rows);
    Ok(Some(Source { dir, rows, package }))
}

fn read_package(dir: &Path, rows: &[Row]) -> Option<PackageJson> {
    let text = fs::read(dir.join("package.json")).ok()?;
    let brought = |name: &str| {
        let prefix = format!("node_modules/{name}/");
        let next = rows.partition_point(|row| row.path < prefix);
        rows.get(next).is_some_and(|row| row.path.starts_with(&prefix))
    };
    let package = PackageJson::parse(&String::from_utf8_lossy(&text), &brought)?;
    Some(PackageJson { brought: brought_along(rows), ..package })
}

/// Returns the keys of the packages in a package's own `node_modules`.
fn brought_along(rows: &[Row]) -> BTreeSet<String> {
    const PREFIX: &str = "node_modules/";
    let first = rows.partition_point(|row| row.path.as_str() < PREFIX);
    let inside = rows.iter().skip(first).map_while(|row| row.path.strip_prefix(PREFIX));
    let keys = inside.filter_map(|path| {
        let (first, rest) = path.split_once('/')?;
        if !first.starts_with('@') {
            return Some(first);
        }
        let (second, _) = rest.split_once('/')?;
        path.get(..first.len() + 1 + second.len())
    });
    keys.map(str::to_owned).collect()
}

/// Hashes every file of a folder. Modes are kept with their special bits, so that whoever makes a tree of it can leave them out.
///
/// # Errors
/// Any I/O failure, or something that is neither a file nor a folder.
pub(super) fn scan(dir: &Path) -> std::io::Result<Vec<Row>> {
    let folder = Folder::open(dir)?;
    let (files, _) = walk(dir)?;
    files
        .into_iter()
        .map(|path| {
            let status = folder.status(&path)?;
            if !status.is_file {
                let text = folder.read_link(&path)?;
                return Ok(Row::link(path, &text));
            }
            let (size, hash) = hash_file(&mut folder.read(&path)?)?;
            Ok(Row { path, size, mode: status.mode & 0o7777, hash })
        })
        .collect()
}

fn has_all_content(dir: &Path, rows: &[Row]) -> bool {
    Folder::open(dir).is_ok_and(|folder| rows.iter().all(|row| index::has_content(&folder, row)))
}
