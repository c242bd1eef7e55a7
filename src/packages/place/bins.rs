//! The commands of placed packages.

use std::collections::{BTreeMap, BTreeSet};

use super::package_json::Commands;
use super::{Finding, FindingKind, PackageJson, Placed, Placement};
use crate::error::Result;
use crate::packages::lockfile::Entry;
use crate::packages::names::bare_name;

/// Longest name of a command, in bytes: what file systems take for one file. On Windows a suffix such as `.cmd` is added.
const NAME_MAX: usize = if cfg!(windows) { 251 } else { 255 };

/// The start of a name that is too long, for people.
const SHOWN_CHARS: usize = 40;

/// A link in a `.bin` folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bin {
    /// The folder: `node_modules/.bin`, `node_modules/a/node_modules/.bin`.
    pub folder: String,
    /// Name of the link.
    pub name: String,
    /// Position in `placed` of the package.
    pub package: usize,
    /// The file in that package, with `/`.
    pub file: String,
    /// What a symlink holds: `../@sc/tool/cli.js`.
    pub target: String,
}

/// Returns the paths of an entry's regular files, with `/`, sorted by bytes.
pub type Files<'a> = dyn Fn(usize) -> Result<Vec<String>> + 'a;

impl Placement {
    /// Returns the commands of the layout, ordered by folder and name. `files` is asked once per entry that has commands, by its
    /// position; commands whose file is not among them are left out.
    ///
    /// Of two packages in one folder with a command of the same name, the one with the smaller key has it.
    ///
    /// # Errors
    /// What `files` fails with.
    pub fn bins(&self, entries: &[Entry], files: &Files<'_>) -> Result<Vec<Bin>> {
        let mut commands: BTreeMap<usize, Vec<(String, String)>> = BTreeMap::new();
        let mut order: Vec<usize> = (0..self.placed.len()).collect();
        order.sort_by_key(|&index| self.placed.get(index).map(|one| &one.key));
        let mut links: BTreeMap<(String, String), Bin> = BTreeMap::new();
        for index in order {
            let Some(one) = self.placed.get(index) else { continue };
            let (Some(Some(package)), Some(entry)) = (self.packages.get(one.entry), entries.get(one.entry)) else {
                continue;
            };
            if package.bin == Commands::None {
                continue;
            }
            let found = match commands.get(&one.entry) {
                Some(found) => found,
                None => {
                    let found = list(&package.bin, &entry.name, &files(one.entry)?);
                    commands.entry(one.entry).or_insert(found)
                }
            };
            for (name, file) in found {
                let folder = folder(one);
                let target = format!("../{}/{file}", one.key);
                let bin =
                    Bin { folder: folder.clone(), name: name.clone(), package: index, file: file.clone(), target };
                links.entry((folder, name.clone())).or_insert(bin);
            }
        }
        Ok(links.into_values().collect())
    }

    /// Returns what a person should know of commands that [`Placement::bins`] leaves out because no file can have their name.
    #[must_use]
    pub fn long_bins(&self, entries: &[Entry]) -> Vec<Finding> {
        let mut found = Vec::new();
        for one in &self.placed {
            let (Some(Some(package)), Some(entry)) = (self.packages.get(one.entry), entries.get(one.entry)) else {
                continue;
            };
            let Commands::Named(named) = &package.bin else { continue };
            for (name, file) in named.iter().filter(|(name, _)| link_name(name).len() > NAME_MAX) {
                let (label, path) = (format!("{}@{}", entry.name, entry.version), one.path.clone());
                let (bytes, start) = (link_name(name).len(), name.chars().take(SHOWN_CHARS).collect::<String>());
                let message = format!(
                    "{label} in {path} has a command with a name of {bytes} bytes, \"{start}…\", where a file's may have \
                     {NAME_MAX}: it was not linked"
                );
                let (kind, key, spec) = (FindingKind::LongBin, name.clone(), file.clone());
                found.push(Finding { kind, path, key, spec, message });
            }
        }
        found
    }
}

impl PackageJson {
    /// Returns the files that are commands of a package of this name. `files`: its regular files, sorted by bytes.
    #[must_use]
    pub fn command_files(&self, name: &str, files: &[String]) -> BTreeSet<String> {
        list(&self.bin, name, files).into_iter().map(|(_, file)| file).collect()
    }
}

/// The `.bin` beside a package.
fn folder(one: &Placed) -> String {
    format!("{}.bin", one.path.strip_suffix(&one.key).unwrap_or_default())
}

/// The name of a command's link: the last segment of what the package calls it.
fn link_name(name: &str) -> &str {
    name.rsplit(['/', '\\', ':']).next().unwrap_or_default()
}

/// The commands that a package really has: link name and file, one of each name.
fn list(commands: &Commands, package: &str, files: &[String]) -> Vec<(String, String)> {
    let exists = |file: &String| files.binary_search(file).is_ok();
    let mut found: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, file: String| {
        let name = link_name(name);
        let good = !matches!(name, "" | "." | "..") && !name.contains('\0') && name.len() <= NAME_MAX;
        if good && exists(&file) && found.iter().all(|(other, _)| other != name) {
            found.push((name.to_owned(), file));
        }
    };
    match commands {
        Commands::None => {}
        Commands::One(file) => {
            if let Some(file) = inside(file) {
                add(bare_name(package), file);
            }
        }
        Commands::Named(named) => {
            for (name, file) in named {
                if let Some(file) = inside(file) {
                    add(name, file);
                }
            }
        }
        Commands::Folder(folder) => {
            let Some(folder) = inside(folder) else { return found };
            let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            for file in files {
                if let Some(name) = file.strip_prefix(&prefix).filter(|name| !name.contains('/')) {
                    add(name, file.clone());
                }
            }
        }
    }
    found
}

/// Normalizes a path inside of a package; `None` if it leads out of it.
fn inside(path: &str) -> Option<String> {
    let path = path.replace('\\', "/");
    if path.starts_with('/') || path.contains(['\0', ':']) {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(commands: Commands, files: &[&str]) -> Vec<(String, String)> {
        list(&commands, "@s/tool", &files.iter().map(|&file| file.to_owned()).collect::<Vec<_>>())
    }

    fn pair(name: &str, file: &str) -> (String, String) {
        (name.to_owned(), file.to_owned())
    }

    #[test]
    fn a_single_command_is_named_like_the_package() {
        assert_eq!(names(Commands::One("./bin//cli.js".into()), &["bin/cli.js"]), [pair("tool", "bin/cli.js")]);
        assert_eq!(names(Commands::One("bin\\cli.js".into()), &["bin/cli.js"]), [pair("tool", "bin/cli.js")]);
        assert_eq!(names(Commands::One("x/../cli.js".into()), &["cli.js"]), [pair("tool", "cli.js")]);
    }

    #[test]
    fn what_leads_out_or_is_absent_is_skipped() {
        for file in ["../x", "a/../../x", "/cli.js", "C:/x", "", ".", "bin", "absent.js", "cli.js\0"] {
            assert_eq!(names(Commands::One(file.into()), &["bin/cli.js", "cli.js", "x"]), [], "{file}");
        }
    }

    #[test]
    fn names_are_one_segment() {
        let named =
            ["@s/a", "../b", "", ".", "..", "c/..", "d\\e", "@t/a"].map(|name| (name.to_owned(), "cli.js".to_owned()));
        let expected = [pair("a", "cli.js"), pair("b", "cli.js"), pair("e", "cli.js")];
        assert_eq!(names(Commands::Named(named.to_vec()), &["cli.js"]), expected);
    }

    #[test]
    fn names_that_no_file_can_have_are_skipped() {
        let named = [NAME_MAX, NAME_MAX + 1].map(|length| (format!("@s/{}", "a".repeat(length)), "cli.js".to_owned()));
        assert_eq!(names(Commands::Named(named.to_vec()), &["cli.js"]), [pair(&"a".repeat(NAME_MAX), "cli.js")]);
    }

    #[test]
    fn a_folder_of_commands() {
        let files = ["bin/a", "bin/b.js", "bin/sub/c", "index.js"];
        assert_eq!(names(Commands::Folder("./bin/".into()), &files), [pair("a", "bin/a"), pair("b.js", "bin/b.js")]);
        assert_eq!(names(Commands::Folder("..".into()), &files), []);
        assert_eq!(names(Commands::Folder("absent".into()), &files), []);
    }
}
