//! The planner against Bun: what `bun install` really did with real packages (scripts/placement-fixtures.mjs) is what the plan
//! says, copy for copy and link for link. The dependencies come from the packages' own `package.json`, not from the lock.
#![allow(clippy::indexing_slicing, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use holdfast::packages::lockfile::{Entry, parse_bun_lock, split_spec, store_package_json};
use holdfast::packages::place::{Commands, Host, PackageJson, Placement, Roots, plan};
use serde_json::Value;

struct Fixture {
    name: String,
    entries: Vec<Entry>,
    packages: BTreeMap<String, PackageJson>,
    /// `path name@version`, of each key of the lock.
    locked: BTreeSet<String>,
    installed: BTreeSet<String>,
    bins: BTreeSet<String>,
    host: Host,
}

fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("__test__/packages/fixtures/placement");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("the fixtures").map(|file| file.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 4);
    files.iter().map(|file| read(file)).collect()
}

fn texts(json: &Value) -> BTreeSet<String> {
    json.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

fn read(file: &Path) -> Fixture {
    let json: Value = serde_json::from_str(&fs::read_to_string(file).expect("read")).expect("JSON");
    let lock = json["lock"].as_str().expect("a text");
    let packages = json["packages"].as_object().expect("an object").iter().map(|(label, fields)| {
        let bundled = fields.get("bundled").map(texts).unwrap_or_default();
        (label.clone(), PackageJson::parse(&fields.to_string(), &|name| bundled.contains(name)).expect("an object"))
    });
    let host = |field: &str| json["host"][field].as_str().map(str::to_owned);
    Fixture {
        name: file.file_stem().expect("a name").to_string_lossy().into_owned(),
        entries: parse_bun_lock(lock).expect("a lock"),
        packages: packages.collect(),
        locked: locked(lock),
        installed: texts(&json["installed"]),
        bins: texts(&json["bins"]),
        host: Host { os: host("os").expect("os"), cpu: host("cpu").expect("cpu"), libc: host("libc") },
    }
}

/// Reads the keys of the lock the simple way: Bun writes one package a line.
fn locked(lock: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let key = |line: &str| line.trim().split('"').nth(1).unwrap_or_default().to_owned();
    let marked = lock.lines().filter(|line| line.contains("\"bundled\": true")).map(key);
    // What is below a package with bundled ones comes with it; in the recorded sets that is all of its dependencies.
    let bringers: BTreeSet<String> = marked.map(|key| format!("{}/", above(&key))).collect();
    for line in lock.lines().filter(|line| !bringers.iter().any(|bringer| key(line).starts_with(bringer.as_str()))) {
        let Some((key, value)) = line.trim().trim_end_matches(',').split_once(": [") else { continue };
        if let (Ok(key), Ok(Value::Array(value))) =
            (serde_json::from_str::<String>(key), serde_json::from_str(&format!("[{value}")))
        {
            let label = value.first().and_then(Value::as_str).expect("name@version");
            found.insert(format!("{} {label}", place(&key)));
        }
    }
    found
}

/// The key of the package that one is nested in.
fn above(key: &str) -> String {
    let path = place(key);
    let (above, _) = path.rsplit_once("/node_modules/").expect("a nested package");
    above.replace("/node_modules/", "/").replacen("node_modules/", "", 1)
}

/// `a/@b/c` is `node_modules/a/node_modules/@b/c`.
fn place(key: &str) -> String {
    let mut path = String::new();
    let mut scoped = false;
    for part in key.split('/') {
        path.push_str(match (scoped, path.is_empty()) {
            (true, _) => "/",
            (false, true) => "node_modules/",
            (false, false) => "/node_modules/",
        });
        path.push_str(part);
        scoped = !scoped && part.starts_with('@');
    }
    path
}

fn lay_out(fixture: &Fixture, every_host: bool) -> Placement {
    let packages = |entry: &Entry| {
        let mut package = fixture.packages[&format!("{}@{}", entry.name, entry.version)].clone();
        if every_host {
            (package.os, package.cpu, package.libc) = (Vec::new(), Vec::new(), Vec::new());
        }
        Ok(Some(package))
    };
    plan(&fixture.entries, &packages, &Roots::new(), &fixture.host).expect("a plan")
}

fn places(fixture: &Fixture, placement: &Placement) -> BTreeSet<String> {
    let label = |index: usize| format!("{}@{}", fixture.entries[index].name, fixture.entries[index].version);
    placement.placed.iter().map(|one| format!("{} {}", one.path, label(one.entry))).collect()
}

fn difference(what: &str, ours: &BTreeSet<String>, buns: &BTreeSet<String>) -> String {
    let mut text = String::new();
    for line in ours.difference(buns) {
        text += &format!("  {what}: only here: {line}\n");
    }
    for line in buns.difference(ours) {
        text += &format!("  {what}: only Bun: {line}\n");
    }
    text
}

#[test]
fn places_packages_where_bun_does() {
    let mut wrong = String::new();
    let mut compared = 0;
    for fixture in fixtures() {
        let everywhere = places(&fixture, &lay_out(&fixture, true));
        let here = places(&fixture, &lay_out(&fixture, false));
        compared += fixture.locked.len();
        let differs = difference("lock", &everywhere, &fixture.locked) + &difference("disk", &here, &fixture.installed);
        println!("{}: {} locked, {} installed", fixture.name, fixture.locked.len(), fixture.installed.len());
        if !differs.is_empty() {
            wrong += &format!("{}:\n{differs}", fixture.name);
        }
    }
    assert!(compared > 700, "{compared} compared");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn links_the_commands_that_bun_links() {
    let mut wrong = String::new();
    for fixture in fixtures() {
        let placement = lay_out(&fixture, false);
        // The fixture has no lists of files: all targets that a package names are there, as they are in published packages.
        let files = |index: usize| {
            let named: Vec<String> = match &placement.packages[index].as_ref().expect("a package").bin {
                Commands::One(file) => vec![file.clone()],
                Commands::Named(named) => named.iter().map(|(_, file)| file.clone()).collect(),
                Commands::None | Commands::Folder(_) => Vec::new(),
            };
            let mut files: Vec<String> = named.iter().map(|file| file.trim_start_matches("./").to_owned()).collect();
            files.sort();
            Ok(files)
        };
        let bins = placement.bins(&fixture.entries, &files).expect("bins");
        let ours = bins.iter().map(|bin| format!("{}/{} -> {}", bin.folder, bin.name, bin.target)).collect();
        // Bun has a list of packages whose command it links past the package, to the binary of an optional dependency that does not
        // declare it. The package's own command finds that binary too.
        let past = |line: &String| line.replace("../@esbuild/linux-x64/bin/esbuild", "../esbuild/bin/esbuild");
        let differs = difference("bin", &ours, &fixture.bins.iter().map(past).collect());
        if !differs.is_empty() {
            wrong += &format!("{}:\n{differs}", fixture.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_label_of_a_lock_can_be_split() {
    for fixture in fixtures() {
        for line in &fixture.locked {
            let label = line.split(' ').nth(1).expect("a label");
            let (name, version) = split_spec(label).expect("name@version");
            assert!(fixture.entries.iter().any(|entry| entry.name == name && entry.version == version), "{label}");
        }
    }
}

/// A lock that is made from a layout has the keys of Bun's own lock, and reads back as the manifest. With HOLDFAST_BUN_LOCKS it also
/// writes each to `<folder>/<fixture>/`, to be tried with `bun install --offline --frozen-lockfile`.
#[test]
fn the_lock_of_a_layout_is_the_lock_it_came_from() {
    for fixture in fixtures() {
        let text = lay_out(&fixture, true).bun_lock("t", &fixture.entries);
        let differs = difference("lock", &locked_of(&text), &fixture.locked);
        assert!(differs.is_empty(), "{}:\n{differs}", fixture.name);
        let mut read: Vec<_> =
            parse_bun_lock(&text).expect("a lock").into_iter().map(|entry| entry.integrity).collect();
        let mut entries: Vec<_> = fixture.entries.iter().map(|entry| entry.integrity.clone()).collect();
        read.sort();
        entries.sort();
        assert_eq!(read, entries, "{}", fixture.name);
        if let Ok(folder) = std::env::var("HOLDFAST_BUN_LOCKS") {
            let folder = Path::new(&folder).join(&fixture.name);
            fs::create_dir_all(&folder).expect("mkdir");
            let here = lay_out(&fixture, false);
            #[allow(clippy::disallowed_methods, reason = "nothing to survive")]
            for (file, text) in [
                ("bun.lock", here.bun_lock("t", &fixture.entries)),
                ("package.json", store_package_json("t", &here.host_dependencies(&fixture.entries))),
                ("expected.txt", places(&fixture, &here).into_iter().collect::<Vec<_>>().join("\n")),
            ] {
                fs::write(folder.join(file), text).expect("write");
            }
        }
    }
}

/// The keys of a lock that is plain JSON.
fn locked_of(text: &str) -> BTreeSet<String> {
    let json: Value = serde_json::from_str(text).expect("JSON");
    let packages = json["packages"].as_object().expect("an object");
    packages.iter().map(|(key, row)| format!("{} {}", place(key), row[0].as_str().expect("a label"))).collect()
}
