//! A layout as a `bun.lock`, so that Bun installs it without asking a registry.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::lockfile::{Entry, compare};
use super::place::{Commands, Kind, PackageJson, Placement};

impl Placement {
    /// Returns what the root's `package.json` pins, in sorted order: every distinct name of the manifest in the version that stands
    /// for it, that for another host included.
    #[must_use]
    pub fn root_dependencies(&self, entries: &[Entry]) -> Vec<(String, String)> {
        let pinned =
            self.root.iter().filter_map(|(name, &index)| Some((name.clone(), entries.get(index)?.version.clone())));
        let mut pinned: Vec<_> = pinned.collect();
        pinned.sort_by(|a, b| compare(&a.0, &b.0));
        pinned
    }

    /// The same without the names that have no package for this host: what goes with [`Placement::bun_lock`].
    #[must_use]
    pub fn host_dependencies(&self, entries: &[Entry]) -> Vec<(String, String)> {
        let here: HashSet<&str> =
            self.placed.iter().filter(|one| one.parent.is_none()).map(|one| one.key.as_str()).collect();
        let mut pinned = self.root_dependencies(entries);
        pinned.retain(|(name, _)| here.contains(name.as_str()));
        pinned
    }

    /// Returns the text of a `bun.lock` that has this layout. `name` is that of the root's `package.json`, whose dependencies must
    /// be [`Placement::host_dependencies`].
    ///
    /// It holds nothing but what is placed. A frozen lock that promises more than the cache has makes Bun ask the registry, or fail:
    /// Bun 1.4.5 wants even a direct dependency whose `libc` is another one.
    #[must_use]
    pub fn bun_lock(&self, name: &str, entries: &[Entry]) -> String {
        let paths: HashSet<&str> = self.placed.iter().map(|one| one.path.as_str()).collect();
        let mut packages = Map::new();
        for one in &self.placed {
            self.add(&mut packages, entries, &paths, &one.path, one.entry);
        }
        let dependencies: Map<String, Value> =
            self.host_dependencies(entries).into_iter().map(|(name, version)| (name, Value::from(version))).collect();
        let workspace = json!({ "name": name, "dependencies": dependencies });
        let lock = json!({ "lockfileVersion": 1, "workspaces": { "": workspace }, "packages": packages });
        format!("{lock:#}\n")
    }

    fn add(
        &self,
        packages: &mut Map<String, Value>,
        entries: &[Entry],
        paths: &HashSet<&str>,
        path: &str,
        index: usize,
    ) {
        let Some(entry) = entries.get(index) else { return };
        let package = self.packages.get(index).and_then(Option::as_ref);
        let facts = package.map(|package| facts(package, &|key| resolves(paths, path, key))).unwrap_or_default();
        let row = json!([format!("{}@{}", entry.name, entry.version), "", facts, entry.integrity]);
        packages.insert(key(path), row);
    }
}

/// `a/@b/c` of `node_modules/a/node_modules/@b/c`.
fn key(path: &str) -> String {
    path.strip_prefix("node_modules/").unwrap_or(path).replace("/node_modules/", "/")
}

/// Whether `require(key)` from the package at `path` finds one in the layout.
fn resolves(paths: &HashSet<&str>, path: &str, key: &str) -> bool {
    let folders = std::iter::successors(Some(path), |at| at.rsplit_once("/node_modules/").map(|(above, _)| above));
    let mut candidates =
        folders.map(|folder| format!("{folder}/node_modules/{key}")).chain([format!("node_modules/{key}")]);
    candidates.any(|candidate| paths.contains(candidate.as_str()))
}

/// The third element of a package in the lock.
fn facts(package: &PackageJson, resolves: &dyn Fn(&str) -> bool) -> Map<String, Value> {
    let mut facts = Map::new();
    let of_kind = |wanted: Kind| {
        let found = package.dependencies.iter().filter(move |(key, one)| one.kind == wanted && resolves(key));
        found.map(|(key, one)| (key.clone(), Value::from(one.spec.as_str()))).collect::<Map<_, _>>()
    };
    let mut peers = of_kind(Kind::Peer);
    for (key, spec) in &package.optional_peers {
        peers.insert(key.clone(), Value::from(spec.as_str()));
    }
    let fields = [
        ("dependencies", of_kind(Kind::Required)),
        ("optionalDependencies", of_kind(Kind::Optional)),
        ("peerDependencies", peers),
    ];
    facts.extend(
        fields
            .into_iter()
            .filter(|(_, found)| !found.is_empty())
            .map(|(field, found)| (field.to_owned(), Value::from(found))),
    );
    if !package.optional_peers.is_empty() {
        facts.insert("optionalPeers".to_owned(), package.optional_peers.keys().map(String::as_str).collect());
    }
    for (field, list) in [("os", &package.os), ("cpu", &package.cpu), ("libc", &package.libc)] {
        if !list.is_empty() {
            facts.insert(field.to_owned(), json!(list));
        }
    }
    match &package.bin {
        Commands::None => {}
        Commands::One(file) => {
            facts.insert("bin".to_owned(), json!(file));
        }
        Commands::Named(named) => {
            let named: Map<String, Value> =
                named.iter().map(|(name, file)| (name.clone(), Value::from(file.as_str()))).collect();
            facts.insert("bin".to_owned(), Value::from(named));
        }
        Commands::Folder(folder) => {
            facts.insert("binDir".to_owned(), json!(folder));
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::lockfile::parse_bun_lock;
    use crate::packages::place::{Host, Roots, plan};

    #[test]
    fn the_lock_of_a_small_layout() {
        let row = |name: &str, version: &str| Entry {
            name: name.to_owned(),
            version: version.to_owned(),
            integrity: format!("sha512-{name}{version}"),
            blob_sha256: None,
        };
        let entries = [row("a", "1.0.0"), row("@s/b", "2.0.0"), row("@s/b", "1.0.0"), row("mac", "1.0.0")];
        let packages = |entry: &Entry| {
            let text = match (entry.name.as_str(), entry.version.as_str()) {
                ("a", _) => {
                    r#"{"dependencies":{"@s/b":"1"},"optionalDependencies":{"mac":"1","gone":"1"},"peerDependencies":{"p":"1","q":"1"},
                        "peerDependenciesMeta":{"p":{"optional":true}},"bin":{"x":"x.js"}}"#
                }
                ("@s/b", "1.0.0") => r#"{"dependencies":{"a":"*"},"bin":"b.js"}"#,
                ("mac", _) => r#"{"os":["darwin"]}"#,
                _ => "{}",
            };
            Ok(PackageJson::parse(text, &|_| false))
        };
        let host = Host { os: "linux".into(), cpu: "x64".into(), libc: Some("glibc".into()) };
        let placement = plan(&entries, &packages, &Roots::new(), &host).expect("a plan");
        let text = placement.bun_lock("t", &entries);
        let lock: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({
            "lockfileVersion": 1,
            "workspaces": { "": { "name": "t", "dependencies": { "@s/b": "2.0.0", "a": "1.0.0" } } },
            "packages": {
                "@s/b": ["@s/b@2.0.0", "", {}, "sha512-@s/b2.0.0"],
                "a": ["a@1.0.0", "", {
                    "dependencies": { "@s/b": "1" }, "peerDependencies": { "p": "1" }, "optionalPeers": ["p"], "bin": { "x": "x.js" },
                }, "sha512-a1.0.0"],
                "a/@s/b": ["@s/b@1.0.0", "", { "dependencies": { "a": "*" }, "bin": "b.js" }, "sha512-@s/b1.0.0"],
            },
        });
        assert_eq!(lock, expected);
        assert_eq!(parse_bun_lock(&text).expect("a lock").len(), 3);
        let pinned: Vec<_> = placement.root_dependencies(&entries).into_iter().map(|(name, _)| name).collect();
        assert_eq!(pinned, ["@s/b", "a", "mac"], "the same on all hosts");
    }
}
