//! The store as a whole: seeding, building, flipping, damage.
#![allow(clippy::disallowed_methods, reason = "tests make and break files at will")]

mod faults;
mod mended;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::durable::fault::{Action, FaultPlan, Rule};
use crate::error::Code;
use crate::packages::archive;
use crate::packages::lockfile::Entry;

struct Fixture {
    _root: tempfile::TempDir,
    store: Store,
}

fn options() -> Options {
    Options { durability_full: false, ..Options::default() }
}

fn fixture() -> Fixture {
    with(options())
}

fn with(options: Options) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("store"), options);
    Fixture { _root: root, store }
}

/// Packs a package of `files`; without a `package.json` among them a plain one is added.
fn blob(name: &str, version: &str, files: &[(&str, &str)]) -> (Entry, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let folder = format!("{name}@{version}@@@1");
    let package = dir.path().join(&folder);
    fs::create_dir_all(&package).unwrap();
    fs::write(package.join("package.json"), format!("{{\"name\":\"{name}\",\"version\":\"{version}\"}}")).unwrap();
    for (path, text) in files {
        fs::create_dir_all(package.join(path).parent().unwrap()).unwrap();
        fs::write(package.join(path), text).unwrap();
    }
    let bytes = archive::pack(dir.path(), &folder, true, &|| Ok(())).unwrap();
    let entry = Entry {
        name: name.into(),
        version: version.into(),
        integrity: format!("sha512-{name}@{version}"),
        blob_sha256: Some(crate::hash::sha256_hex(&bytes)),
    };
    (entry, bytes)
}

impl Fixture {
    fn seed(&self, packages: &[(Entry, Vec<u8>)]) -> Vec<Entry> {
        for (entry, bytes) in packages {
            self.store.seed(entry, bytes, false, &Context::quiet()).unwrap();
        }
        packages.iter().map(|(entry, _)| entry.clone()).collect()
    }

    fn build(&self, hash: &str, manifest: &[Entry]) -> Materialized {
        self.store.materialize_and_flip(hash, manifest, &Context::quiet()).unwrap()
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.store.paths().root.join(path)
    }

    fn staging_is_empty(&self) -> bool {
        fs::read_dir(self.path(".hf/staging")).map_or(0, Iterator::count) == 0
    }
}

fn two_packages() -> Vec<(Entry, Vec<u8>)> {
    let json = r#"{"name":"a","version":"1.0.0","bin":"cli.js","dependencies":{"@s/b":"^2.0.0"}}"#;
    vec![
        blob(
            "a",
            "1.0.0",
            &[("package.json", json), ("cli.js", "#!/usr/bin/env node\r\nx\r\n"), ("lib/deep/x.js", "x")],
        ),
        blob("@s/b", "2.1.0", &[("index.js", "b")]),
    ]
}

#[test]
fn seeds_once_lists_and_builds() {
    let store = with(Options::default());
    let packages = two_packages();
    let manifest = store.seed(&packages);
    assert_eq!(store.store.local_integrities().unwrap(), ["sha512-@s/b@2.1.0", "sha512-a@1.0.0"]);
    assert!(store.path("cache/@s/b@2.1.0@@@1/index.js").is_file());
    let again = store.store.seed(&packages[0].0, &packages[0].1, false, &Context::quiet()).unwrap();
    assert_eq!(again, Seeded::Present);
    assert_eq!(store.build("h1", &manifest), Materialized::Flipped { built: true });
    assert_eq!(store.store.current_lockfile_hash().as_deref(), Some("h1"));
    assert_eq!(fs::read_to_string(store.path("current/node_modules/@s/b/index.js")).unwrap(), "b");
    assert_eq!(fs::read_to_string(store.path("current/bunfig.toml")).unwrap(), "[install]\nauto = \"disable\"\n");
    let json = fs::read_to_string(store.path("current/package.json")).unwrap();
    assert!(
        json.ends_with(
            "\"private\": true,\n  \"dependencies\": {\n    \"@s/b\": \"2.1.0\",\n    \"a\": \"1.0.0\"\n  }\n}\n"
        ),
        "{json}"
    );
    assert!(store.store.verify_tree("h1", &Context::quiet()).unwrap().is_sound());
    assert_eq!(store.build("h1", &manifest), Materialized::Flipped { built: false });
    assert!(store.staging_is_empty());
}

#[cfg(unix)]
#[test]
fn bins_run_and_the_cache_keeps_its_bytes() {
    use std::os::unix::fs::PermissionsExt;
    let store = fixture();
    let manifest = store.seed(&two_packages());
    store.build("h1", &manifest);
    let link = store.path("current/node_modules/.bin/a");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("../a/cli.js"));
    assert_eq!(fs::read_to_string(&link).unwrap(), "#!/usr/bin/env node\nx\r\n");
    assert_eq!(fs::metadata(&link).unwrap().permissions().mode() & 0o777, 0o755);
    let cached = store.path("cache/a@1.0.0@@@1/cli.js");
    assert_eq!(fs::read_to_string(&cached).unwrap(), "#!/usr/bin/env node\r\nx\r\n");
    assert_eq!(fs::metadata(&cached).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn an_empty_manifest_makes_an_empty_tree() {
    let store = fixture();
    assert_eq!(store.build("convergehash", &[]), Materialized::Flipped { built: true });
    assert!(store.path("trees/convergehash/node_modules").is_dir());
    assert!(store.path("trees/convergehash/package.json").is_file());
    assert_eq!(store.store.current_lockfile_hash().as_deref(), Some("convergehash"));
}

#[test]
fn a_blob_of_another_hash_leaves_no_trace() {
    let store = fixture();
    let (entry, mut bytes) = blob("pkg", "1.0.0", &[]);
    *bytes.last_mut().unwrap() ^= 1;
    let error = store.store.seed(&entry, &bytes, false, &Context::quiet()).unwrap_err();
    assert_eq!(error.code(), Code::PkgIntegrity);
    assert!(
        error.message().starts_with("Blob integrity check failed for pkg@1.0.0 (sha512-pkg@1.0.0): expected sha256 ")
    );
    assert!(error.message().ends_with(". Refusing to seed."));
    assert!(!store.store.paths().root.exists(), "not even the root");
    let unsigned = Entry { blob_sha256: None, ..entry };
    let error = store.store.seed(&unsigned, &bytes, false, &Context::quiet()).unwrap_err();
    assert_eq!(error.code(), Code::PkgArchive);
    let strict = with(Options { require_blob_sha256: true, ..options() });
    let error = strict.store.seed(&unsigned, &bytes, false, &Context::quiet()).unwrap_err();
    assert_eq!(error.code(), Code::PkgIntegrity);
}

#[test]
fn a_blob_of_another_package_is_refused() {
    let store = fixture();
    let (_, bytes) = blob("lodash", "4.17.21", &[]);
    let (entry, _) = blob("a", "1.0.0", &[]);
    let error = store.store.seed(&Entry { blob_sha256: None, ..entry }, &bytes, false, &Context::quiet()).unwrap_err();
    assert_eq!(error.code(), Code::PkgLayout);
    assert!(!store.path("cache").exists() && store.staging_is_empty());
}

#[test]
fn damaged_entries_are_named_and_the_old_tree_stays() {
    let store = fixture();
    let packages = two_packages();
    let manifest = store.seed(&packages);
    store.build("h1", &manifest[..0]);
    fs::remove_file(store.path("cache/@s/b@2.1.0@@@1/index.js")).unwrap();
    assert_eq!(store.build("h2", &manifest), Materialized::Missing(vec![1]));
    assert_eq!(store.store.current_lockfile_hash().as_deref(), Some("h1"));
    assert!(!store.path("trees/h2").exists());
    let seeded = store.store.seed(&packages[1].0, &packages[1].1, true, &Context::quiet()).unwrap();
    assert_eq!(seeded, Seeded::Unpacked);
    assert_eq!(store.build("h2", &manifest), Materialized::Flipped { built: true });
    assert!(entry_missing(&manifest[1]).message().starts_with("Cache entry for @s/b@2.1.0 is missing or damaged"));
}

#[test]
fn a_folder_without_record_is_no_tree() {
    let store = fixture();
    let manifest = store.seed(&two_packages());
    fs::create_dir_all(store.path("trees/h/node_modules/planted")).unwrap();
    assert_eq!(store.build("h", &manifest), Materialized::Flipped { built: true });
    assert!(!store.path("trees/h/node_modules/planted").exists());
    assert!(store.path("trees/h/node_modules/a/cli.js").is_file());
    fs::remove_dir_all(store.path("trees/h")).unwrap();
    assert_eq!(store.store.current_lockfile_hash(), None);
    assert_eq!(store.build("h", &manifest), Materialized::Flipped { built: true });
    fs::write(store.path("trees/h/.hf-tree.json"), "{").unwrap();
    assert_eq!(store.build("h", &manifest), Materialized::Flipped { built: true });
    assert!(store.staging_is_empty());
}

#[test]
fn hashes_cannot_leave_the_root() {
    let store = fixture();
    let error = store.store.materialize_and_flip("../../x", &[], &Context::quiet()).unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::PkgBadHash, "Invalid lockfile hash \"../../x\""));
    let strict = with(Options { verify_lockfile_hash: true, ..options() });
    assert_eq!(strict.store.materialize_and_flip("h1", &[], &Context::quiet()).unwrap_err().code(), Code::PkgBadHash);
    let right = crate::packages::lockfile::lockfile_hash(&[]);
    assert_eq!(strict.build(&right, &[]), Materialized::Flipped { built: true });
}

#[test]
fn a_missing_required_dependency_is_an_error_and_an_abort_leaves_nothing() {
    let store = fixture();
    let manifest = store.seed(&two_packages());
    let error = store.store.materialize_and_flip("h1", &manifest[..1], &Context::quiet()).unwrap_err();
    assert_eq!(error.code(), Code::PkgDepMissing);
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let mut stopped = 0;
    for limit in 0..40 {
        calls.store(0, std::sync::atomic::Ordering::Relaxed);
        let cancel = || match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < limit {
            true => Ok(()),
            false => Err(crate::error::HfError::new(Code::Busy, "stop")),
        };
        let context = Context { cancel: &cancel, ..Context::quiet() };
        match store.store.materialize_and_flip("h1", &manifest, &context) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.message(), "stop"),
        }
        stopped += 1;
        assert!(store.staging_is_empty(), "after {limit}");
        assert_eq!(store.store.current_lockfile_hash(), None);
    }
    assert!(stopped > 3, "{stopped}");
    assert_eq!(store.store.current_lockfile_hash().as_deref(), Some("h1"));
}

#[test]
fn back_and_forth_needs_no_building_and_a_rollback_no_manifest() {
    let store = fixture();
    let manifest = store.seed(&two_packages());
    for (hash, built) in [("h1", true), ("h2", true), ("h1", false), ("h2", false)] {
        assert_eq!(store.build(hash, &manifest), Materialized::Flipped { built });
        assert!(!retire::has_marker(&store.path("current")));
    }
    assert!(retire::has_marker(&store.path("trees/h1")));
    store.store.rollback_to("h1", &Context::quiet()).unwrap();
    assert_eq!(store.store.current_lockfile_hash().as_deref(), Some("h1"));
    assert_eq!(store.store.rollback_to("h3", &Context::quiet()).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(store.store.current_lockfile_hash().as_deref(), Some("h1"));
}

#[test]
fn many_at_once_build_once() {
    let store = fixture();
    let packages = two_packages();
    let built = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let manifest = store.seed(&packages);
                if store.build("h1", &manifest) == (Materialized::Flipped { built: true }) {
                    built.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(built.into_inner(), 1);
    assert!(store.staging_is_empty());
    assert!(store.store.verify_tree("h1", &Context::quiet()).unwrap().is_sound());
}

#[test]
fn verification_names_what_is_wrong_and_repair_mends_it() {
    let store = with(Options { link_mode: LinkMode::Hardlink, ..options() });
    let packages = two_packages();
    let manifest = store.seed(&packages);
    store.build("h1", &manifest);
    fs::create_dir(store.path("trees/h1/scratch")).unwrap();
    fs::write(store.path("trees/h1/node_modules/.cache"), "x").unwrap();
    // Through the hard link this damages the cache, too; with the time put back a glance would not see it.
    let file = store.path("trees/h1/node_modules/a/lib/deep/x.js");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "y").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    fs::remove_file(store.path("trees/h1/node_modules/@s/b/index.js")).unwrap();
    let report = store.store.verify_tree("h1", &Context::quiet()).unwrap();
    assert_eq!(report.damaged, ["node_modules/a/lib/deep/x.js"]);
    assert_eq!(report.missing, ["node_modules/@s/b/index.js"]);
    assert_eq!(report.unexpected, ["node_modules/.cache"]);
    assert!(report.has_record && !report.is_sound());
    let repair = || store.store.repair_tree("h1", &Context::quiet()).unwrap();
    assert_eq!(repair(), RepairReport::Missing(vec![packages[0].0.clone()]));
    store.store.seed(&packages[0].0, &packages[0].1, true, &Context::quiet()).unwrap();
    assert_eq!(repair(), RepairReport::Sound { rebuilt: true });
    assert_eq!(repair(), RepairReport::Sound { rebuilt: false });
    assert_eq!(store.store.current_lockfile_hash().as_deref(), Some("h1"));
}

#[test]
fn full_verification_rebuilds_before_the_flip() {
    let store = with(Options { verify_full: true, link_mode: LinkMode::Copy, ..options() });
    let manifest = store.seed(&two_packages());
    store.build("h1", &manifest);
    store.build("h2", &manifest);
    fs::write(store.path("trees/h1/node_modules/@s/b/index.js"), "X").unwrap();
    assert_eq!(store.build("h1", &manifest), Materialized::Flipped { built: true });
    assert_eq!(fs::read_to_string(store.path("current/node_modules/@s/b/index.js")).unwrap(), "b");
}

#[test]
fn the_cache_is_swept_of_what_nothing_needs() {
    let store = fixture();
    let mut packages = two_packages();
    packages.push(blob("old", "1.0.0", &[]));
    packages.push(blob("kept", "1.0.0", &[]));
    let manifest = store.seed(&packages);
    store.build("h1", &manifest[..2]);
    let keep = [manifest[3..].to_vec()];
    let now = crate::clock::epoch_ms() as f64;
    let sweep = |now| store.store.sweep_cache_gc(&keep, 1000.0, Now::Given(now), &Context::quiet()).unwrap();
    assert_eq!(sweep(now).kept_within_grace, ["sha512-old@1.0.0"]);
    let swept = sweep(now + 5000.0);
    assert_eq!(swept.deleted, ["sha512-old@1.0.0"]);
    assert!(swept.bytes_reclaimed > 0 && !store.path("cache/old@1.0.0@@@1").exists());
    assert_eq!(store.store.local_integrities().unwrap().len(), 3);
    fs::create_dir_all(store.path("trees/foreign/node_modules")).unwrap();
    assert!(!sweep(now + 5000.0).ran);
}

#[test]
fn shared_files_are_counted_once() {
    let store = with(Options { link_mode: LinkMode::Hardlink, ..options() });
    let manifest = store.seed(&two_packages());
    store.build("h1", &manifest);
    let stats = store.store.stats(&Context::quiet()).unwrap();
    let [tree] = stats.trees.as_slice() else { panic!("one tree") };
    assert!(tree.current && stats.cache_entries == 2);
    if cfg!(unix) {
        assert_eq!(stats.total_bytes, stats.cache_bytes + tree.own_bytes);
        assert!(tree.own_bytes < tree.bytes);
    }
}

#[test]
fn entries_of_the_original_are_taken_as_they_are() {
    let store = fixture();
    let manifest = store.seed(&two_packages());
    fs::remove_dir_all(store.path(".hf/index")).unwrap();
    assert_eq!(store.store.local_integrities().unwrap().len(), 2);
    assert_eq!(store.build("h1", &manifest), Materialized::Flipped { built: true });
    assert!(store.store.verify_tree("h1", &Context::quiet()).unwrap().is_sound());
}

#[test]
fn roots_decide_which_version_is_at_the_top() {
    let roots = BTreeMap::from([("c".to_owned(), "1.0.0".to_owned())]);
    let store = with(Options { roots, ..options() });
    let manifest = store.seed(&[blob("c", "2.0.0", &[]), blob("c", "1.0.0", &[])]);
    store.build("h1", &manifest);
    assert!(fs::read_to_string(store.path("current/node_modules/c/package.json")).unwrap().contains("1.0.0"));
    assert!(fs::read_to_string(store.path("current/package.json")).unwrap().contains("\"c\": \"1.0.0\""));
    let plan = store.store.plan_tree(&manifest, &Context::quiet()).unwrap();
    assert_eq!((plan.placed, plan.missing), (vec![("node_modules/c".to_owned(), 1)], vec![]));
}

/// With the `bun` of the development dependencies.
#[cfg(unix)]
#[test]
fn bun_makes_the_same_tree() {
    // The program itself: the script of that name in `.bin` is made only when install scripts run.
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("node_modules/@oven");
    let found = fs::read_dir(&packages).into_iter().flatten().flatten().map(|one| one.path().join("bin/bun"));
    let runs = |bun: &std::path::PathBuf| std::process::Command::new(bun).arg("--version").output().is_ok();
    let Some(bun) = found.into_iter().find(runs) else {
        println!("skipped: no bun in {}", packages.display());
        return;
    };
    let store = with(Options { materializer: Materializer::Bun { path: Some(bun) }, ..options() });
    let manifest = store.seed(&two_packages());
    assert_eq!(store.build("h1", &manifest), Materialized::Flipped { built: true });
    assert!(store.store.verify_tree("h1", &Context::quiet()).unwrap().is_sound());
    for path in ["@s/b/index.js", "a/lib/deep/x.js", ".bin/a"] {
        assert!(store.path("current/node_modules").join(path).exists(), "{path}");
    }
    let broken = Options { materializer: Materializer::Bun { path: Some("/nowhere/bun".into()) }, ..options() };
    let other = Store::open(&store.store.paths().root, broken);
    let error = other.materialize_and_flip("h2", &manifest, &Context::quiet()).unwrap_err();
    assert_eq!(error.code(), Code::PkgBun);
    assert!(error.message().starts_with("bun install --offline failed for h2 (exit none): "), "{error}");
    assert!(store.staging_is_empty() && !store.path("trees/h2").exists());
}

/// A folder whose syncs cost nothing, where there is one.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Every operation that changes the disk is failed once, in turn: what is in use stays whole, the call that is repeated
/// succeeds, nothing is left in staging.
#[test]
fn no_failure_leaves_half_a_tree() {
    let packages = two_packages();
    let mut failures = 0;
    for op in ["create", "write", "syncFile", "syncDir", "rename", "link", "createDir"] {
        for nth in 1..200 {
            let root = in_memory();
            let calm = Store::open(root.path(), options());
            calm.materialize_and_flip("old", &[], &Context::quiet()).unwrap();
            let rule = Rule { point: None, op: Some(op.into()), path_ends: None, nth, action: Action::Errno(5) };
            let disk = Disk::intercepted(Arc::new(FaultPlan::new(vec![rule])));
            let store =
                Store::with_disk(disk, root.path(), Options { link_mode: LinkMode::Hardlink, ..Options::default() });
            let manifest: Vec<Entry> = packages.iter().map(|(entry, _)| entry.clone()).collect();
            let run = |store: &Store| -> Result<Materialized> {
                for (entry, bytes) in &packages {
                    store.seed(entry, bytes, false, &Context::quiet())?;
                }
                store.materialize_and_flip("new", &manifest, &Context::quiet())
            };
            let result = run(&store);
            let current = calm.current_lockfile_hash().unwrap();
            if current == "new" {
                assert!(calm.verify_tree("new", &Context::quiet()).unwrap().is_sound(), "{op} {nth}");
            }
            for integrity in calm.local_integrities().unwrap() {
                let entry = manifest.iter().find(|entry| entry.integrity == integrity).unwrap();
                let looked =
                    survey::survey(&calm, std::slice::from_ref(entry), &[0], survey::Depth::Content, &Context::quiet());
                assert_eq!(looked.unwrap().1, Vec::<usize>::new(), "{op} {nth}");
            }
            assert_eq!(fs::read_dir(root.path().join(".hf/staging")).map_or(0, Iterator::count), 0, "{op} {nth}");
            if result.is_err() {
                failures += 1;
                run(&calm).unwrap();
                assert_eq!(calm.current_lockfile_hash().as_deref(), Some("new"));
            } else if nth > 30 {
                break;
            }
        }
    }
    assert!(failures > 40, "{failures}");
}

/// Figures for `cargo test -- --ignored --nocapture`: the set of 191 packages and 3,840 files of the benchmark.
#[test]
#[ignore = "a measurement"]
fn figures() {
    use std::time::Instant;
    let dir = std::env::var_os("HOLDFAST_FIGURES").map_or_else(|| "/var/tmp".into(), std::path::PathBuf::from);
    let root = tempfile::tempdir_in(dir).unwrap();
    let body = "x".repeat(4000);
    let names: Vec<String> = (0..20).map(|file| format!("lib{}/f{file}.js", file % 3)).collect();
    let packages: Vec<(Entry, Vec<u8>)> = (0..191)
        .map(|index| {
            let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), body.as_str())).collect();
            blob(&format!("p{index}"), "1.0.0", &files)
        })
        .collect();
    let manifest: Vec<Entry> = packages.iter().map(|(entry, _)| entry.clone()).collect();
    let begun = Instant::now();
    let seeding = Store::open(root.path(), Options::default());
    let left = std::sync::Mutex::new(packages.iter());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().next();
                    let Some((entry, bytes)) = next else { break };
                    seeding.seed(entry, bytes, false, &Context::quiet()).unwrap();
                }
            });
        }
    });
    println!("seed, full: {:?}", begun.elapsed());
    for (mode, full) in [
        (LinkMode::Hardlink, false),
        (LinkMode::Hardlink, true),
        (LinkMode::Auto, false),
        (LinkMode::Auto, true),
        (LinkMode::Copy, false),
        (LinkMode::Copy, true),
    ] {
        let store = Store::open(root.path(), Options { link_mode: mode, durability_full: full, ..Options::default() });
        let mut times = Vec::new();
        for round in 0..5 {
            let begun = Instant::now();
            let result = store
                .materialize_and_flip(&format!("h-{mode:?}-{full}-{round}"), &manifest, &Context::quiet())
                .unwrap();
            times.push(begun.elapsed());
            assert_eq!(result, Materialized::Flipped { built: true });
        }
        println!("materialize {mode:?} full={full}: {times:?}");
    }
    let begun = Instant::now();
    for _ in 0..100 {
        seeding.current_lockfile_hash().unwrap();
    }
    println!("no-op: {:?}", begun.elapsed() / 100);
    let begun = Instant::now();
    assert_eq!(seeding.local_integrities().unwrap().len(), 191);
    println!("local integrities: {:?}", begun.elapsed());
    let begun = Instant::now();
    assert!(seeding.verify_tree("h-Copy-true-0", &Context::quiet()).unwrap().is_sound());
    println!("verify: {:?}", begun.elapsed());
}
