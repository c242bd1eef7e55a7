//! The fields of a `package.json` that decide where packages go.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// What the planner reads of one package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageJson {
    /// What it needs, by key, sorted: one of each key.
    pub dependencies: BTreeMap<String, Dependency>,
    /// Peers that may be absent. They decide nothing; a `bun.lock` names them.
    pub optional_peers: BTreeMap<String, String>,
    /// `os`, as a list.
    pub os: Vec<String>,
    /// `cpu`, as a list.
    pub cpu: Vec<String>,
    /// `libc`, as a list.
    pub libc: Vec<String>,
    /// Its commands.
    pub bin: Commands,
    /// Keys of the packages that it has in its own `node_modules`. Nothing else is put there under those names: whoever packed
    /// it meant these, declared or not.
    pub brought: BTreeSet<String>,
}

/// One thing that a package needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The range, tag, URL …
    pub spec: String,
    /// How much it is needed.
    pub kind: Kind,
}

/// How much a dependency is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `dependencies`
    Required,
    /// `optionalDependencies`
    Optional,
    /// `peerDependencies`
    Peer,
}

/// The commands of a package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Commands {
    /// None.
    #[default]
    None,
    /// `"bin": "cli.js"`: one, named like the package.
    One(String),
    /// `"bin": { "name": "cli.js" }`, in the order of the text.
    Named(Vec<(String, String)>),
    /// `"directories": { "bin": "bin" }`: one per file in it.
    Folder(String),
}

impl PackageJson {
    /// Reads the text of a `package.json`; `None` when it is no JSON object. Fields of a wrong type count as absent.
    ///
    /// `brought` tells whether the package has a package of that name in its own `node_modules`; it is asked only for those that
    /// `bundleDependencies` names, which then are no dependencies.
    #[must_use]
    pub fn parse(text: &str, brought: &dyn Fn(&str) -> bool) -> Option<Self> {
        let json: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
        Some(Self::from_object(json.as_object()?, brought))
    }

    fn from_object(json: &Map<String, Value>, brought: &dyn Fn(&str) -> bool) -> Self {
        let mut found =
            Self { os: list(json, "os"), cpu: list(json, "cpu"), libc: list(json, "libc"), ..Self::default() };
        let optional = |key: &str| {
            let meta = json.get("peerDependenciesMeta").and_then(|meta| meta.get(key));
            meta.and_then(|meta| meta.get("optional")) == Some(&Value::Bool(true))
        };
        // What comes later takes the place of what came before: a key that is needed anyway is not left to others.
        for (key, spec) in texts(json, "peerDependencies") {
            if optional(key) {
                found.optional_peers.insert(key.to_owned(), spec.to_owned());
            } else {
                found.dependencies.insert(key.to_owned(), Dependency { spec: spec.to_owned(), kind: Kind::Peer });
            }
        }
        for (field, kind) in [("dependencies", Kind::Required), ("optionalDependencies", Kind::Optional)] {
            for (key, spec) in texts(json, field) {
                found.dependencies.insert(key.to_owned(), Dependency { spec: spec.to_owned(), kind });
                found.optional_peers.remove(key);
            }
        }
        let bundle = json.get("bundleDependencies").or_else(|| json.get("bundledDependencies"));
        match bundle {
            Some(Value::Bool(true)) => found.dependencies.retain(|key, _| !brought(key)),
            Some(Value::Array(names)) => {
                for name in names.iter().filter_map(Value::as_str) {
                    if found.dependencies.contains_key(name) && brought(name) {
                        found.dependencies.remove(name);
                    }
                }
            }
            _ => {}
        }
        found.bin = commands(json);
        found
    }
}

fn commands(json: &Map<String, Value>) -> Commands {
    match json.get("bin") {
        Some(Value::String(target)) => Commands::One(target.clone()),
        Some(Value::Object(_)) => {
            Commands::Named(texts(json, "bin").map(|(name, target)| (name.to_owned(), target.to_owned())).collect())
        }
        _ => {
            let folder = json.get("directories").and_then(|directories| directories.get("bin")).and_then(Value::as_str);
            folder.map_or(Commands::None, |folder| Commands::Folder(folder.to_owned()))
        }
    }
}

/// The members of an object whose values are texts.
fn texts<'a>(json: &'a Map<String, Value>, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let members = json.get(field).and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// A list of texts; a single text is a list of one.
fn list(json: &Map<String, Value>, field: &str) -> Vec<String> {
    match json.get(field) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, brought: &[&str]) -> PackageJson {
        PackageJson::parse(text, &|name| brought.contains(&name)).expect("an object")
    }

    fn kinds(json: &PackageJson) -> Vec<(&str, &str, Kind)> {
        json.dependencies.iter().map(|(key, one)| (key.as_str(), one.spec.as_str(), one.kind)).collect()
    }

    #[test]
    fn one_dependency_of_each_key() {
        let json = parse(
            r#"{"dependencies":{"b":"1","a":"1"},"optionalDependencies":{"b":"2"},"peerDependencies":{"a":"3","c":"4","d":"5"},
                "peerDependenciesMeta":{"d":{"optional":true}},"devDependencies":{"e":"6"},"os":"linux","cpu":["x64",1]}"#,
            &[],
        );
        assert_eq!(kinds(&json), [("a", "1", Kind::Required), ("b", "2", Kind::Optional), ("c", "4", Kind::Peer)]);
        assert_eq!(json.optional_peers.get("d").map(String::as_str), Some("5"));
        assert_eq!((json.os, json.cpu), (vec!["linux".to_owned()], vec!["x64".to_owned()]));
    }

    #[test]
    fn what_a_package_brings_is_no_dependency() {
        for field in ["bundleDependencies", "bundledDependencies"] {
            let text = format!(r#"{{"dependencies":{{"a":"1","b":"1","c":"1"}},"{field}":["a","b"]}}"#);
            assert_eq!(kinds(&parse(&text, &["a", "c"])), [("b", "1", Kind::Required), ("c", "1", Kind::Required)]);
        }
        let all = parse(r#"{"dependencies":{"a":"1","b":"1"},"bundleDependencies":true}"#, &["a"]);
        assert_eq!(kinds(&all), [("b", "1", Kind::Required)]);
    }

    #[test]
    fn commands_of_all_kinds() {
        assert_eq!(parse(r#"{"bin":"a.js","directories":{"bin":"b"}}"#, &[]).bin, Commands::One("a.js".into()));
        let named = Commands::Named(vec![("y".into(), "y.js".into()), ("x".into(), "x.js".into())]);
        assert_eq!(parse(r#"{"bin":{"y":"y.js","x":"x.js","z":1}}"#, &[]).bin, named);
        assert_eq!(parse(r#"{"directories":{"bin":"b"}}"#, &[]).bin, Commands::Folder("b".into()));
        assert_eq!(parse(r#"{"bin":7}"#, &[]).bin, Commands::None);
    }

    #[test]
    fn wrong_types_count_as_absent() {
        let text = "\u{feff}{\"dependencies\":[1],\"peerDependencies\":7,\"bundleDependencies\":\"x\",\"os\":{},\"peerDependenciesMeta\":1}";
        assert_eq!(parse(text, &[]), PackageJson::default());
        assert_eq!(PackageJson::parse("[]", &|_| false), None);
        assert_eq!(PackageJson::parse("{", &|_| false), None);
    }
}
