//! What holds for the layout of any manifest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::packages::lockfile::Entry;

/// Entries of few names and versions with dependencies among them, so that conflicts and cycles are common.
#[derive(Debug, Clone)]
struct World {
    entries: Vec<Entry>,
    packages: Vec<PackageJson>,
}

const NAMES: [&str; 5] = ["a", "b", "@s/c", "d", "e"];
const SPECS: [&str; 8] = ["*", "^1.0.0", "2", "1.0.0", ">=1.1.0", "latest", "npm:b@^2.0.0", "^3.0.0-0"];
const VERSIONS: [&str; 5] = ["1.0.0", "1.1.0", "2.0.0", "3.0.0-rc.1", "odd"];

fn world() -> impl Strategy<Value = World> {
    let edge = (0..NAMES.len(), 0..SPECS.len(), 0..6_u8);
    let row = (0..NAMES.len(), 0..VERSIONS.len(), prop::collection::vec(edge, 0..4));
    prop::collection::vec(row, 1..10).prop_map(|rows| {
        let mut entries = Vec::new();
        let mut packages = Vec::new();
        for (index, (name, version, edges)) in rows.into_iter().enumerate() {
            let mut package = PackageJson::default();
            for (key, spec, kind) in edges {
                let kind = match kind {
                    0..=2 => Kind::Optional,
                    3 => Kind::Peer,
                    _ => Kind::Required,
                };
                package.dependencies.insert(NAMES[key].to_owned(), Dependency { spec: SPECS[spec].to_owned(), kind });
            }
            let (name, version) = (NAMES[name].to_owned(), VERSIONS[version].to_owned());
            entries.push(Entry { name, version, integrity: index.to_string(), blob_sha256: None });
            packages.push(package);
        }
        // Required dependencies on names that are not there are errors; tables.rs has those.
        let names: HashSet<String> = entries.iter().map(|entry: &Entry| entry.name.clone()).collect();
        for package in &mut packages {
            package
                .dependencies
                .retain(|key, one| one.kind != Kind::Required || names.contains(Wish::parse(key, &one.spec).name));
        }
        World { entries, packages }
    })
}

fn lay_out(world: &World) -> Placement {
    let packages =
        |entry: &Entry| Ok(world.packages.get(entry.integrity.parse::<usize>().expect("a position")).cloned());
    plan(&world.entries, &packages, &Roots::new(), &Host::current()).expect("a plan")
}

/// Resolves a key from a path as Node does.
fn node_resolve<'a>(by_path: &HashMap<&'a str, &'a Placed>, from: &str, key: &str) -> Option<&'a Placed> {
    let mut at = from;
    loop {
        let candidate = if at.is_empty() { format!("node_modules/{key}") } else { format!("{at}/node_modules/{key}") };
        if let Some(found) = by_path.get(candidate.as_str()) {
            return Some(found);
        }
        if at.is_empty() {
            return None;
        }
        at = at.rsplit_once("/node_modules/").map_or("", |(above, _)| above);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_dependency_is_satisfied_or_reported(world in world()) {
        let placement = lay_out(&world);
        let by_path: HashMap<&str, &Placed> = placement.placed.iter().map(|one| (one.path.as_str(), one)).collect();
        prop_assert_eq!(by_path.len(), placement.placed.len(), "no path twice");
        let reported: HashSet<(&str, &str)> = placement.findings.iter().map(|one| (one.path.as_str(), one.key.as_str())).collect();
        for one in &placement.placed {
            for (key, dependency) in &placement.packages[one.entry].as_ref().expect("a package").dependencies {
                let wish = Wish::parse(key, &dependency.spec);
                let known = world.entries.iter().any(|entry| entry.name == wish.name);
                let satisfied = node_resolve(&by_path, &one.path, key).is_some_and(|found| {
                    let entry = &world.entries[found.entry];
                    entry.name == wish.name && wish.versions.contain(Version::parse(&entry.version).as_ref())
                });
                let skipped = dependency.kind == Kind::Optional && !known;
                prop_assert!(satisfied || skipped || reported.contains(&(one.path.as_str(), key.as_str())), "{} {key}", one.path);
            }
        }
    }

    #[test]
    fn each_name_is_at_the_root_and_nothing_else_is_there_unasked(world in world()) {
        let placement = lay_out(&world);
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, entry) in world.entries.iter().enumerate() {
            first.entry(&entry.name).or_insert(index);
        }
        for (&name, &index) in &first {
            let path = format!("node_modules/{name}");
            let at_root: Vec<_> = placement.placed.iter().filter(|one| one.path == path).map(|one| one.entry).collect();
            prop_assert_eq!(at_root, vec![index]);
        }
        for one in &placement.placed {
            match one.parent {
                Some(parent) => {
                    let parent = &placement.placed[parent];
                    prop_assert_eq!(&one.path, &format!("{}/node_modules/{}", parent.path, one.key));
                    let asked = placement.packages[parent.entry].as_ref().expect("a package").dependencies.get(&one.key);
                    prop_assert!(asked.is_some_and(|asked| asked.kind != Kind::Peer), "only what the package itself asks for is nested");
                }
                None => prop_assert_eq!(&one.path, &format!("node_modules/{}", one.key)),
            }
        }
    }

    #[test]
    fn the_same_manifest_has_the_same_layout(world in world()) {
        prop_assert_eq!(lay_out(&world), lay_out(&world));
    }
}

/// A thousand entries, five dependencies each, some on versions that are not at the root.
#[test]
fn a_thousand_entries_are_quick() {
    let mut entries = Vec::new();
    let mut packages = Vec::new();
    for index in 0..1000_usize {
        let (name, version) = (format!("package-{}", index % 800), format!("{}.{}.0", index / 800 + 1, index % 7));
        let mut package = PackageJson::default();
        for step in 1..=5_usize {
            let spec = if step == 3 && index % 800 > 600 { "^2.0.0" } else { ">=1.0.0 <2 || ^4.0.0-rc.1" };
            let key = format!("package-{}", (index * 7 + step * 13) % 200);
            package.dependencies.insert(key, Dependency { spec: spec.to_owned(), kind: Kind::Required });
        }
        entries.push(Entry { name, version, integrity: index.to_string(), blob_sha256: None });
        packages.push(package);
    }
    let world = World { entries, packages };
    let quickest = (0..20).map(|_| {
        let started = Instant::now();
        let placement = lay_out(&world);
        assert!(placement.placed.len() > 900, "{}", placement.placed.len());
        started.elapsed()
    });
    let quickest = quickest.min().unwrap_or_default();
    println!("{quickest:?}");
    // The promise is for the optimized build; the other one only has to notice work that grows with the square.
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 50 });
    assert!(quickest < limit, "{quickest:?}");
}
