//! From a manifest and the cache to what stands where in a tree.

use std::collections::HashMap;

use super::survey::{self, Depth, Source};
use super::{Context, Level, Store};
use crate::error::Result;
use crate::packages::lockfile::{self, Entry};
use crate::packages::place::{Bin, Finding, FindingKind, Host, Placed, Placement, plan};

/// The `name` in a tree's `package.json`.
pub(super) const TREE_NAME: &str = "script-packages";

/// What stands where.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) placement: Placement,
    pub(super) bins: Vec<Bin>,
    /// Text of the tree's `package.json`.
    pub(super) package_json: String,
}

impl Layout {
    /// Plans the tree of a manifest whose entries are all in `sources`, by position.
    ///
    /// # Errors
    /// As [`plan`].
    pub(super) fn of(store: &Store, manifest: &[Entry], sources: &HashMap<usize, Source>) -> Result<Self> {
        let by_key: HashMap<(&str, &str), &Source> =
            sources.iter().filter_map(|(position, source)| Some((key(manifest.get(*position)?), source))).collect();
        let read = |entry: &Entry| Ok(by_key.get(&key(entry)).and_then(|source| source.package.clone()));
        let mut placement = plan(manifest, &read, &store.options().roots, &Host::current())?;
        placement.findings.extend(unreadable(&placement, manifest, sources));
        placement.findings.extend(placement.long_bins(manifest));
        let files = |position: usize| {
            let rows = sources.get(&position).map_or(&[][..], |source| &source.rows);
            Ok(rows.iter().filter(|row| !row.is_link()).map(|row| row.path.clone()).collect())
        };
        let bins = placement.bins(manifest, &files)?;
        let dependencies = placement.root_dependencies(manifest);
        let package_json = lockfile::store_package_json(TREE_NAME, &dependencies);
        Ok(Self { placement, bins, package_json })
    }

    /// Logs what the planner found worth a word.
    pub(super) fn log(&self, context: &Context<'_>) {
        for finding in &self.placement.findings {
            (context.log)(Level::Debug, &finding.message);
        }
    }
}

/// Findings for packages whose `package.json` is there and says nothing.
fn unreadable(placement: &Placement, manifest: &[Entry], sources: &HashMap<usize, Source>) -> Vec<Finding> {
    let silent = placement.placed.iter().filter(|placed| {
        let source = sources.get(&placed.entry).filter(|source| source.package.is_none());
        source.is_some_and(|source| source.rows.iter().any(|row| row.path == "package.json"))
    });
    let finding = |placed: &Placed| {
        let label =
            manifest.get(placed.entry).map_or(String::new(), |entry| format!("{}@{}", entry.name, entry.version));
        let path = placed.path.clone();
        let message = format!("{label} in {path} has a package.json that is no JSON object: it got no dependencies");
        Finding { kind: FindingKind::Unreadable, path, key: placed.key.clone(), spec: String::new(), message }
    };
    silent.map(finding).collect()
}

fn key(entry: &Entry) -> (&str, &str) {
    (&entry.name, &entry.version)
}

/// What a tree of a manifest would be, without making it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePlan {
    /// Path in the tree and position in the manifest of every copy of every package.
    pub placed: Vec<(String, usize)>,
    /// What a person may want to know about the layout.
    pub findings: Vec<Finding>,
    /// Positions of entries that are not in the cache, or damaged there. Their dependencies are unknown, so if there are any the
    /// rest is preliminary.
    pub missing: Vec<usize>,
}

impl Store {
    /// Plans the tree of a manifest without writing anything.
    ///
    /// # Errors
    /// As [`plan`]; the caller's abort.
    pub fn plan_tree(&self, manifest: &[Entry], context: &Context<'_>) -> Result<TreePlan> {
        let positions = survey::distinct(manifest);
        let (sources, missing) = survey::survey(self, manifest, &positions, Depth::Glance, context)?;
        let layout = Layout::of(self, manifest, &sources)?;
        let placed = layout.placement.placed.into_iter().map(|placed| (placed.path, placed.entry)).collect();
        Ok(TreePlan { placed, findings: layout.placement.findings, missing })
    }
}

/// Returns the programs that stand for a link on Windows, with the suffixes of their names: for `cmd`, for PowerShell, and for
/// POSIX shells. `target` is relative to the folder of bins, with `/`; `head` is the beginning of the target, whose first line
/// says what interprets it.
pub(super) fn shims(target: &str, head: &[u8]) -> [(&'static str, String); 3] {
    let back = target.replace('/', "\\");
    let (program, arguments) = interpreter(target, head);
    let (cmd, shell, power) = match &program {
        None => (
            format!("@\"%~dp0\\{back}\" %*\r\n"),
            format!("exec \"$basedir/{target}\" \"$@\"\n"),
            format!("& \"$basedir/{target}\" $args\n"),
        ),
        Some(program) => {
            let spaced = if arguments.is_empty() { String::new() } else { format!(" {arguments}") };
            (
                format!(
                    "@IF EXIST \"%~dp0\\{program}.exe\" (\r\n  \"%~dp0\\{program}.exe\"{spaced} \"%~dp0\\{back}\" %*\r\n) ELSE (\r\n  \
                     {program}{spaced} \"%~dp0\\{back}\" %*\r\n)\r\n"
                ),
                format!("exec {program}{spaced} \"$basedir/{target}\" \"$@\"\n"),
                format!("& \"{program}\"{spaced} \"$basedir/{target}\" $args\n"),
            )
        }
    };
    let base = "#!/bin/sh\nbasedir=$(dirname \"$(echo \"$0\" | sed -e 's,\\\\,/,g')\")\n";
    let power_base = "#!/usr/bin/env pwsh\n$basedir = Split-Path $MyInvocation.MyCommand.Definition -Parent\n";
    [(".cmd", cmd), (".ps1", format!("{power_base}{power}exit $LASTEXITCODE\n")), ("", format!("{base}{shell}"))]
}

/// The program of a script's first line and its arguments; without one, that of its suffix. Anything that is not a plain word
/// is not put into a program text.
fn interpreter(target: &str, head: &[u8]) -> (Option<String>, String) {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default().trim_end();
    let words: Vec<&str> = line.strip_prefix("#!").map(|rest| rest.split_whitespace().collect()).unwrap_or_default();
    let is_plain = |word: &&str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=:@+,".contains(&b));
    let mut words = words.into_iter();
    let program = match words.next() {
        Some(first) if first.ends_with("/env") => {
            let mut rest = words.by_ref().skip_while(|word| *word == "-S" || word.contains('='));
            rest.next().map(str::to_owned)
        }
        Some(first) => first.rsplit('/').next().map(str::to_owned),
        None if [".js", ".cjs", ".mjs"].iter().any(|suffix| target.ends_with(suffix)) => Some("node".to_owned()),
        None => None,
    };
    let program = program.filter(|program| is_plain(&program.as_str()) && !program.contains('/'));
    let arguments: Vec<&str> = words.collect();
    let sound = program.is_some() && arguments.iter().all(is_plain);
    (program, if sound { arguments.join(" ") } else { String::new() })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_plain_words() {
        let program = |target: &str, head: &str| interpreter(target, head.as_bytes());
        assert_eq!(program("../a/x", "#!/usr/bin/env node\r\n"), (Some("node".into()), String::new()));
        assert_eq!(
            program("../a/x", "#!/usr/bin/env -S node --no-warnings\n"),
            (Some("node".into()), "--no-warnings".into())
        );
        assert_eq!(program("../a/x", "#!/bin/sh -e\n"), (Some("sh".into()), "-e".into()));
        assert_eq!(program("../a/x.mjs", "import 'x'"), (Some("node".into()), String::new()));
        assert_eq!(program("../a/x", ""), (None, String::new()));
        assert_eq!(program("../a/x", "#!/usr/bin/env node & del *\n"), (Some("node".into()), String::new()));
        assert_eq!(program("../a/x", "#!/bin/a&b\n").0, None);
    }

    #[test]
    fn shims_call_the_target() {
        let [(cmd, cmd_text), (ps1, _), (plain, sh_text)] = shims("../@s/a/cli.js", b"#!/usr/bin/env node\n");
        assert_eq!((cmd, ps1, plain), (".cmd", ".ps1", ""));
        assert!(cmd_text.contains("node \"%~dp0\\..\\@s\\a\\cli.js\" %*"), "{cmd_text}");
        assert!(sh_text.contains("exec node \"$basedir/../@s/a/cli.js\" \"$@\""), "{sh_text}");
    }

    #[cfg(unix)]
    #[test]
    fn the_posix_shim_runs() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a b/.bin")).unwrap();
        std::fs::create_dir_all(dir.path().join("a b/p")).unwrap();
        let text = "#!/bin/sh\necho \"got $1\"\n";
        std::fs::write(dir.path().join("a b/p/cli"), text).unwrap();
        let [.., (_, shim)] = shims("../p/cli", text.as_bytes());
        let path = dir.path().join("a b/.bin/cli");
        std::fs::write(&path, shim).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let done = std::process::Command::new("sh").arg(&path).arg("x y").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout), "got x y\n");
    }
}
