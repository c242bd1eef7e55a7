//! Trees made by Bun, from a lockfile that says what holdfast would have done.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::folder::{Folder, walk};
use super::layout::TREE_NAME;
use super::leftovers::Staging;
use super::paths::NODE_MODULES;
use super::rows::Row;
use super::survey;
use super::tree::{self, Inputs, Staged};
use super::{Context, LinkMode, Store};
use crate::durable::sync::{self, Target};
use crate::durable::{IoContext, OutFile};
use crate::error::{Code, HfError, Result};
use crate::packages::bun_cache::version_in_name;
use crate::packages::lockfile::BUNFIG;
use crate::packages::names::CacheName;

/// How much of what Bun says goes into an error.
const SAID_CHARS_MAX: usize = 800;

/// Builds a tree by `bun install --offline`; what comes out is recorded and synced like a tree of holdfast's own.
///
/// # Errors
/// [`Code::PkgBun`] if Bun cannot be started or fails; any I/O failure, the caller's abort. Staging is removed.
pub(super) fn build(store: &Store, inputs: Inputs<'_>, bun: Option<&Path>, context: &Context<'_>) -> Result<Staged> {
    let disk = store.disk();
    let staging = Staging::create(disk, store.paths()).at("mkdir", &store.paths().staging())?;
    let (tree, cache) = (staging.path().join("tree"), staging.path().join("cache"));
    disk.create_dirs(&tree.join(NODE_MODULES)).at("mkdir", &tree)?;
    let lock = inputs.layout.placement.bun_lock(TREE_NAME, inputs.manifest);
    for (name, text) in
        [("package.json", inputs.layout.package_json.as_str()), ("bunfig.toml", BUNFIG), ("bun.lock", lock.as_str())]
    {
        let path = tree.join(name);
        disk.create_with(&path, text.as_bytes(), Some(0o644)).at("write", &path)?;
    }
    present_cache(store, inputs, &cache)?;
    run(store, inputs.hash, bun.unwrap_or(Path::new("bun")), &tree, &cache, context)?;
    let mut rows = node_modules_rows(&tree)?;
    rows.push(Row::file("bun.lock".to_owned(), &fs::read(tree.join("bun.lock")).at("read", &tree)?, 0o644));
    let (files, folders) = walk(&tree).at("scandir", &tree)?;
    if store.options().durability_full {
        sync_files(store, &tree, &files)?;
    }
    let folders = folders.into_iter().chain([String::new()]).collect();
    tree::finish(store, inputs, &tree, rows, folders, ("bun", backend(store)))?;
    Ok(Staged { staging, tree })
}

/// Hashes what Bun made.
fn node_modules_rows(tree: &Path) -> Result<Vec<Row>> {
    let modules = tree.join(NODE_MODULES);
    let mut rows = survey::scan(&modules).at("read", &modules)?;
    for row in &mut rows {
        *row = row.plain();
        row.path = format!("{NODE_MODULES}/{}", row.path);
    }
    Ok(rows)
}

/// Syncs every file, a bounded number of them open at a time.
fn sync_files(store: &Store, tree: &Path, files: &[String]) -> Result<()> {
    let root = Folder::open(tree).at("open", tree)?;
    for chunk in files.chunks(128) {
        let mut targets = Vec::with_capacity(chunk.len());
        for name in chunk {
            let path = tree.join(name);
            if root.status(name).at("stat", &path)?.is_file {
                // Windows flushes only through handles that may write.
                let file = if cfg!(windows) { File::options().write(true).open(&path) } else { root.read(name) };
                targets.push(Target::File(OutFile { file: file.at("open", &path)?, path }));
            }
        }
        sync::barrier(store.disk(), targets)?;
    }
    Ok(())
}

/// Shows the cache to Bun under the names that it gives to packages of the default registry: the lockfile names no other.
fn present_cache(store: &Store, inputs: Inputs<'_>, cache: &Path) -> Result<()> {
    let disk = store.disk();
    disk.create_dir(cache).at("mkdir", cache)?;
    for (position, source) in inputs.sources {
        let (scope, folder) = source.dir.rsplit_once('/').map_or((None, source.dir.as_str()), |(s, f)| (Some(s), f));
        let parent = scope.map_or_else(|| cache.to_owned(), |scope| cache.join(scope));
        disk.create_dirs(&parent).at("mkdir", &parent)?;
        let name = match (CacheName::parse(folder), inputs.manifest.get(*position)) {
            (Some(name), Some(entry)) => {
                format!("{}@{}@@@{}", name.bare, version_in_name(&entry.version), name.number.unwrap_or(1))
            }
            _ => folder.to_owned(),
        };
        let (from, to) = (store.paths().cache.join(&source.dir), parent.join(name));
        if !to.exists() {
            let files: Vec<String> =
                source.rows.iter().filter(|row| !row.is_link()).map(|row| row.path.clone()).collect();
            let commands = match (&source.package, inputs.manifest.get(*position)) {
                (Some(package), Some(entry)) => package.command_files(&entry.name, &files),
                _ => BTreeSet::new(),
            };
            copy_folder(store, &from, &to, &source.rows, &commands)?;
        }
    }
    Ok(())
}

/// Links the files of an entry under another name: whatever Bun does to its cache, ours stays as it is. Commands are copied,
/// because Bun makes them executable and mends their first lines where they lie, through all links to them.
fn copy_folder(store: &Store, from: &Path, to: &Path, rows: &[Row], commands: &BTreeSet<String>) -> Result<()> {
    let disk = store.disk();
    for row in rows {
        let path = to.join(&row.path);
        let parent = path.parent().unwrap_or(to);
        disk.create_dirs(parent).at("mkdir", parent)?;
        let source = from.join(&row.path);
        if commands.contains(&row.path) || disk.hard_link(&source, &path).is_err() {
            fs::copy(&source, &path).at("copy", &path)?;
        }
    }
    disk.create_dirs(to).at("mkdir", to).map(drop)
}

fn backend(store: &Store) -> &'static str {
    match store.options().link_mode {
        LinkMode::Copy => "copy",
        LinkMode::Auto | LinkMode::Hardlink => "hardlink",
        LinkMode::Reflink => "reflink",
    }
}

fn run(store: &Store, hash: &str, bun: &Path, tree: &Path, cache: &Path, context: &Context<'_>) -> Result<()> {
    let backend = match store.options().link_mode {
        LinkMode::Copy => "copyfile",
        LinkMode::Reflink if cfg!(target_os = "macos") => "clonefile",
        LinkMode::Auto | LinkMode::Hardlink | LinkMode::Reflink => "hardlink",
    };
    // Into a file, because a pipe that nobody reads fills up.
    let said = tree.with_file_name("bun.stderr");
    let stderr = File::create(&said).at("open", &said)?;
    let mut command = Command::new(bun);
    command
        .args(["install", "--offline", "--frozen-lockfile", "--ignore-scripts", "--backend", backend])
        .current_dir(tree)
        .env("BUN_INSTALL_CACHE_DIR", cache)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    // Settings of the caller's own installs must not lead this one elsewhere.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(name)) {
        command.env_remove(name);
    }
    let mut child =
        command.spawn().map_err(|error| failed(hash, "none", &format!("{} did not start: {error}", bun.display())))?;
    let status = wait(&mut child, context)?;
    if status.success() {
        let _ = store.disk().remove_file(&said);
        return Ok(());
    }
    let text = fs::read(&said).unwrap_or_default();
    let exit = status.code().map_or_else(|| "signal".to_owned(), |code| code.to_string());
    Err(failed(hash, &exit, &String::from_utf8_lossy(&text)))
}

fn is_setting(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name.to_ascii_lowercase().starts_with("npm_config_") || (name.starts_with("BUN_CONFIG_"))
}

fn wait(child: &mut Child, context: &Context<'_>) -> Result<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().at("wait", Path::new("bun"))? {
            return Ok(status);
        }
        if let Err(error) = (context.cancel)() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn failed(hash: &str, exit: &str, said: &str) -> HfError {
    let said: String = said.trim().chars().take(SAID_CHARS_MAX).collect();
    HfError::new(Code::PkgBun, format!("bun install --offline failed for {hash} (exit {exit}): {said}"))
        .with_field("lockfileHash", hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_package_managers_are_kept_away() {
        for name in ["npm_config_registry", "NPM_CONFIG_REGISTRY", "BUN_CONFIG_REGISTRY"] {
            assert!(is_setting(&name.into()), "{name}");
        }
        for name in ["PATH", "HOME", "BUN_INSTALL"] {
            assert!(!is_setting(&name.into()), "{name}");
        }
    }

    #[test]
    fn errors_are_bounded() {
        let error = failed("h1", "1", &"x".repeat(5000));
        assert_eq!(error.message().len(), "bun install --offline failed for h1 (exit 1): ".len() + SAID_CHARS_MAX);
    }
}
