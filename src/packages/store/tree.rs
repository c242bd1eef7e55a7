//! Building a tree in staging.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::files::{BinContent, Placer, bin_content};
use super::folder::Folder;
use super::layout::{self, Layout};
use super::leftovers::Staging;
use super::lock::guard;
use super::paths::{MANIFEST, NODE_MODULES, RECORD, RECORD_FILES};
use super::record::TreeRecord;
use super::rows::{self, Row};
use super::survey::Source;
use super::{Context, Progress, Store, work};
use crate::clock;
use crate::durable::{IoContext, sync};
use crate::error::{Code, HfError, Result};
use crate::packages::lockfile::{self, BUNFIG, Entry};
use crate::packages::place::{Bin, Placed};

/// A complete tree in staging. Dropping it removes it, unless it was renamed away.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) staging: Staging,
    pub(super) tree: PathBuf,
}

/// What a tree is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) hash: &'a str,
    pub(super) manifest: &'a [Entry],
    pub(super) layout: &'a Layout,
    /// By position in the manifest.
    pub(super) sources: &'a HashMap<usize, Source>,
}

/// The packages below one folder of the root's `node_modules`, the unit of work.
#[derive(Debug)]
struct Group<'a> {
    /// `node_modules/x` or `node_modules/@s/x`.
    path: &'a str,
    packages: Vec<&'a Placed>,
}

struct Builder<'a> {
    store: &'a Store,
    inputs: Inputs<'a>,
    tree: &'a Path,
    placer: Placer<'a>,
    /// Paths of packages in the tree to the files in them that are bins.
    executables: HashMap<&'a str, BTreeSet<&'a str>>,
    progress: Mutex<Progress>,
    context: &'a Context<'a>,
}

/// Builds a tree from the cache, with its records; everything is synced, if the store syncs at all.
///
/// # Errors
/// Any I/O failure, the caller's abort; staging is removed.
pub(super) fn build(store: &Store, inputs: Inputs<'_>, context: &Context<'_>) -> Result<Staged> {
    let (disk, options) = (store.disk(), store.options());
    let staging = Staging::create(disk, store.paths()).at("mkdir", &store.paths().staging())?;
    let tree = staging.path().join("tree");
    let shared = store.shared()?;
    let placer = Placer::new(disk, options.link_mode, options.durability_full, &staging, &shared.no_reflink);
    let builder = Builder {
        store,
        inputs,
        tree: &tree,
        placer,
        executables: executables(inputs.layout),
        progress: Mutex::new(total(&inputs)),
        context,
    };
    let (rows, folders) = builder.run()?;
    builder.placer.finish()?;
    let mode = builder.placer.best();
    drop(builder);
    finish(store, inputs, &tree, rows, folders, ("native", mode))?;
    Ok(Staged { staging, tree })
}

fn executables(layout: &Layout) -> HashMap<&str, BTreeSet<&str>> {
    let mut found: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for bin in &layout.bins {
        if let Some(placed) = layout.placement.placed.get(bin.package) {
            found.entry(placed.path.as_str()).or_default().insert(bin.file.as_str());
        }
    }
    found
}

fn total(inputs: &Inputs<'_>) -> Progress {
    let mut total = Progress { packages: 0, packages_total: 0, files: 0, files_total: 0, bytes: 0, bytes_total: 0 };
    for source in inputs.layout.placement.placed.iter().filter_map(|placed| inputs.sources.get(&placed.entry)) {
        total.packages_total += 1;
        total.files_total += source.rows.len() as u64;
        total.bytes_total += source.rows.iter().map(|row| row.size).sum::<u64>();
    }
    total
}

impl<'a> Builder<'a> {
    /// Returns the rows of `node_modules` and all folders that were made, relative to the tree.
    fn run(&self) -> Result<(Vec<Row>, Vec<String>)> {
        let disk = self.store.disk();
        disk.create_dir(self.tree).at("mkdir", self.tree)?;
        let root = open(self.tree)?;
        let mut folders = vec![String::new(), NODE_MODULES.to_owned()];
        make(disk, &root, NODE_MODULES)?;
        let groups = groups(&self.inputs.layout.placement.placed);
        let scopes: BTreeSet<&str> = groups
            .iter()
            .filter_map(|group| Some(group.path.rsplit_once('/')?.0))
            .filter(|path| *path != NODE_MODULES)
            .collect();
        for scope in scopes {
            make(disk, &root, scope)?;
            folders.push(scope.to_owned());
        }
        let mut rows = Vec::new();
        for (more, made) in work::each(&groups, |group| self.place_group(&root, group))? {
            rows.extend(more);
            folders.extend(made);
        }
        let made: BTreeSet<&str> = folders.iter().map(String::as_str).collect();
        let (links, bin_folders) = self.link_bins(&root, &made)?;
        rows.extend(links);
        folders.extend(bin_folders);
        Ok((rows, folders))
    }

    fn place_group(&self, root: &Folder, group: &Group<'_>) -> Result<(Vec<Row>, Vec<String>)> {
        let disk = self.store.disk();
        make(disk, root, group.path)?;
        let target = open(&self.tree.join(group.path))?;
        let mut folders = BTreeSet::new();
        for placed in &group.packages {
            let inside = inside(group.path, &placed.path);
            add_folder(&mut folders, inside);
            for row in self.source(placed)?.rows.iter() {
                if let Some((parent, _)) = row.path.rsplit_once('/') {
                    add_folder(&mut folders, &joined(inside, parent));
                }
            }
        }
        // Parents sort before their children.
        for folder in &folders {
            make(disk, &target, folder)?;
        }
        let mut rows = Vec::new();
        for placed in &group.packages {
            self.place_package(&target, group, placed, &mut rows)?;
        }
        let mut made: Vec<String> = folders.iter().map(|folder| joined(group.path, folder)).collect();
        made.push(group.path.to_owned());
        Ok((rows, made))
    }

    fn source(&self, placed: &Placed) -> Result<&'a Source> {
        self.inputs.sources.get(&placed.entry).ok_or_else(|| {
            HfError::new(Code::Panic, format!("{} was placed but never looked for; please report this", placed.path))
        })
    }

    fn place_package(&self, target: &Folder, group: &Group<'_>, placed: &Placed, rows: &mut Vec<Row>) -> Result<()> {
        let source = self.source(placed)?;
        let cached = self.store.paths().cache.join(&source.dir);
        let from = open(&cached)?;
        let inside = inside(group.path, &placed.path);
        let bins = self.executables.get(placed.path.as_str());
        for (count, row) in source.rows.iter().enumerate() {
            // Asking is cheap, but not as cheap as nothing.
            if count.is_multiple_of(64) {
                (self.context.cancel)()?;
            }
            let name = joined(inside, &row.path);
            let path = joined(&placed.path, &row.path);
            let placed_row = if bins.is_some_and(|bins| bins.contains(row.path.as_str())) {
                self.place_bin(target, &name, &from, row).at("link", &self.tree.join(&path))?
            } else {
                self.placer.place(target, &name, &from, &row.path, row).at("link", &self.tree.join(&path))?;
                row.plain()
            };
            rows.push(Row { path, ..placed_row });
        }
        let done = {
            let mut progress = guard(&self.progress);
            progress.packages += 1;
            progress.files += source.rows.len() as u64;
            progress.bytes += source.rows.iter().map(|row| row.size).sum::<u64>();
            *progress
        };
        (self.context.progress)(done);
        Ok(())
    }

    /// Places the target of a bin: executable, and with a first line that the kernel understands. The cache's file keeps its
    /// bytes and its mode, so one that needs a change is copied.
    fn place_bin(&self, target: &Folder, name: &str, from: &Folder, row: &Row) -> std::io::Result<Row> {
        let mode = row.mode & 0o777 | 0o111;
        match bin_content(from, &row.path)? {
            BinContent::Same if mode == row.mode || cfg!(windows) => {
                self.placer.place(target, name, from, &row.path, row)?;
                Ok(row.clone())
            }
            BinContent::Same => {
                let mut content = Vec::new();
                std::io::Read::read_to_end(&mut from.read(&row.path)?, &mut content)?;
                self.placer.write(target, name, &content, mode)?;
                Ok(Row { mode, ..row.clone() })
            }
            BinContent::Rewritten(content) => {
                self.placer.write(target, name, &content, mode)?;
                Ok(Row::file(String::new(), &content, mode))
            }
        }
    }

    /// Makes the `.bin` folders; returns the rows of what is in them, and those that are new.
    fn link_bins(&self, root: &Folder, made: &BTreeSet<&str>) -> Result<(Vec<Row>, Vec<String>)> {
        let mut rows = Vec::new();
        let mut folders = BTreeSet::new();
        for bin in &self.inputs.layout.bins {
            if !made.contains(bin.folder.as_str()) && folders.insert(bin.folder.clone()) {
                make(self.store.disk(), root, &bin.folder)?;
            }
            let path = format!("{}/{}", bin.folder, bin.name);
            if cfg!(windows) {
                rows.extend(self.write_shims(root, bin)?);
            } else {
                root.symlink(self.store.disk(), &path, &bin.target).at("symlink", &self.tree.join(&path))?;
                rows.push(Row::link(path, &bin.target));
            }
        }
        Ok((rows, folders.into_iter().collect()))
    }

    /// Windows has no links that need no privilege, so three little programs stand for one.
    fn write_shims(&self, root: &Folder, bin: &Bin) -> Result<Vec<Row>> {
        let package = self.inputs.layout.placement.placed.get(bin.package).map_or("", |placed| placed.path.as_str());
        let head = std::fs::read(self.tree.join(package).join(&bin.file)).unwrap_or_default();
        let shims = layout::shims(&bin.target, &head);
        let mut rows = Vec::new();
        for (suffix, text) in shims {
            let path = format!("{}/{}{suffix}", bin.folder, bin.name);
            self.placer.write(root, &path, text.as_bytes(), 0o755).at("write", &self.tree.join(&path))?;
            rows.push(Row::file(path, text.as_bytes(), 0o755));
        }
        Ok(rows)
    }
}

/// Writes what a tree has besides `node_modules`, its completeness record last, and syncs the folders.
pub(super) fn finish(
    store: &Store,
    inputs: Inputs<'_>,
    tree: &Path,
    mut rows: Vec<Row>,
    folders: Vec<String>,
    (materializer, link_mode): (&str, &str),
) -> Result<()> {
    let (disk, full) = (store.disk(), store.options().durability_full);
    let mut written = Vec::new();
    let mut write = |name: &str, content: &[u8]| -> Result<()> {
        let path = tree.join(name);
        written.push(disk.create_with(&path, content, Some(0o644)).at("write", &path)?);
        Ok(())
    };
    let package_json = inputs.layout.package_json.as_bytes();
    for (name, content) in [("package.json", package_json), ("bunfig.toml", BUNFIG.as_bytes())] {
        // Bun needed them earlier.
        if materializer == "native" {
            write(name, content)?;
        }
        rows.push(Row::file(name.to_owned(), content, 0o644));
    }
    rows.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let lines = rows::to_lines(&rows);
    let record = TreeRecord {
        v: 1,
        lockfile_hash: inputs.hash.to_owned(),
        manifest_hash: lockfile::lockfile_hash(inputs.manifest),
        built_at: clock::epoch_ms(),
        materializer: materializer.to_owned(),
        link_mode: link_mode.to_owned(),
        files: rows.len() as u64,
        files_blake3: blake3::hash(&lines).to_hex().to_string(),
    };
    write(RECORD_FILES, &lines)?;
    write(MANIFEST, &to_json(&inputs.manifest)?)?;
    write(RECORD, &to_json(&record)?)?;
    if full {
        let files = written.into_iter().map(sync::Target::File);
        let folders = folders.into_iter().map(|folder| sync::Target::Dir(tree.join(folder)));
        sync::barrier(disk, files.chain(folders).collect())?;
    }
    Ok(())
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| HfError::new(Code::Panic, format!("a record is no JSON: {error}")))
}

fn open(path: &Path) -> Result<Folder> {
    Folder::open(path).at("open", path)
}

/// Makes a folder; that it is there already is fine: nested packages may stand in a folder that the package brought along.
fn make(disk: &crate::durable::Disk, parent: &Folder, name: &str) -> Result<()> {
    match parent.make(disk, name) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        result => result.at("mkdir", &parent.path().join(name)),
    }
}

/// Groups packages by the folder of the root's `node_modules` that they are in.
fn groups(packages: &[Placed]) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<&str, Vec<&Placed>> = BTreeMap::new();
    for placed in packages {
        let end = placed.path.find("/node_modules/").unwrap_or(placed.path.len());
        groups.entry(placed.path.get(..end).unwrap_or_default()).or_default().push(placed);
    }
    groups.into_iter().map(|(path, packages)| Group { path, packages }).collect()
}

/// Returns what is left of `path` below `folder`, empty for the folder itself.
fn inside<'a>(folder: &str, path: &'a str) -> &'a str {
    path.strip_prefix(folder).map_or(path, |rest| rest.trim_start_matches('/'))
}

fn joined(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// Adds a folder and those above it.
fn add_folder(folders: &mut BTreeSet<String>, folder: &str) {
    let mut path = folder;
    while !path.is_empty() && !folders.contains(path) {
        folders.insert(path.to_owned());
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_grouped_by_what_stands_at_the_root() {
        let placed = |path: &str| Placed { path: path.into(), entry: 0, parent: None, key: String::new() };
        let all = [
            placed("node_modules/a"),
            placed("node_modules/@s/b"),
            placed("node_modules/a/node_modules/c"),
            placed("node_modules/@s/b/node_modules/@t/d/node_modules/e"),
        ];
        let found: Vec<_> = groups(&all).iter().map(|group| (group.path.to_owned(), group.packages.len())).collect();
        assert_eq!(found, [("node_modules/@s/b".to_owned(), 2), ("node_modules/a".to_owned(), 2)]);
        assert_eq!(inside("node_modules/a", "node_modules/a/node_modules/c"), "node_modules/c");
        assert_eq!(inside("node_modules/a", "node_modules/a"), "");
    }

    #[test]
    fn folders_come_with_their_parents() {
        let mut folders = BTreeSet::new();
        add_folder(&mut folders, "a/b/c");
        add_folder(&mut folders, "a/b/d");
        add_folder(&mut folders, "");
        assert_eq!(folders.into_iter().collect::<Vec<_>>(), ["a", "a/b", "a/b/c", "a/b/d"]);
    }
}
