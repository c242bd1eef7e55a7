//! Damage that is seen and mended, and files that several things share.

use super::*;
use crate::error::HfError;

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[cfg(unix)]
#[test]
fn a_mode_that_changed_through_a_link_is_mended() {
    let store = with(Options { link_mode: LinkMode::Hardlink, ..options() });
    let packages = two_packages();
    let manifest = store.seed(&packages);
    store.build("h1", &manifest);
    set_mode(&store.path("trees/h1/node_modules/a/lib/deep/x.js"), 0o755);
    let report = store.store.verify_tree("h1", &Context::quiet()).unwrap();
    assert_eq!(report.damaged, ["node_modules/a/lib/deep/x.js"]);
    let repair = || store.store.repair_tree("h1", &Context::quiet()).unwrap();
    assert_eq!(repair(), RepairReport::Missing(vec![packages[0].0.clone()]), "the cache has it, too");
    store.store.seed(&packages[0].0, &packages[0].1, false, &Context::quiet()).unwrap();
    assert_eq!(repair(), RepairReport::Sound { rebuilt: true });
    assert!(store.store.verify_tree("h1", &Context::quiet()).unwrap().is_sound());
}

#[test]
fn a_repair_says_if_it_was_in_vain() {
    let store = with(Options { link_mode: LinkMode::Copy, ..options() });
    let manifest = store.seed(&two_packages());
    store.build("h1", &manifest);
    let file = store.path("trees/h1/node_modules/@s/b/index.js");
    let damage = |_: Level, _: &str| fs::write(&file, "X").unwrap();
    damage(Level::Debug, "");
    // What is logged once the tree is built is the moment for somebody else to write there.
    let error = store.store.repair_tree("h1", &Context { log: &damage, ..Context::quiet() }).unwrap_err();
    assert_eq!(error.code(), Code::Io);
    assert!(error.message().contains("(node_modules/@s/b/index.js)"), "{error}");
    let repaired = store.store.repair_tree("h1", &Context::quiet()).unwrap();
    assert_eq!(repaired, RepairReport::Sound { rebuilt: true });
}

#[test]
fn a_manifest_that_is_not_the_trees_own_is_not_built_from() {
    let store = with(Options { link_mode: LinkMode::Copy, ..options() });
    let manifest = store.seed(&two_packages());
    store.build("h1", &manifest);
    let kept = store.path("trees/h1").join(paths::MANIFEST);
    fs::write(&kept, serde_json::to_vec(&manifest[1..]).unwrap()).unwrap();
    fs::write(store.path("trees/h1/node_modules/@s/b/index.js"), "X").unwrap();
    let error = store.store.repair_tree("h1", &Context::quiet()).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(store.path("trees/h1/node_modules/a/cli.js").exists());
    let swept = store.store.sweep_cache_gc(&[], 0.0, Now::Given(f64::MAX), &Context::quiet()).unwrap();
    assert!(!swept.ran && store.store.local_integrities().unwrap().len() == 2);
}

#[test]
fn full_verification_looks_at_the_cache_before_a_first_build() {
    let store = with(Options { verify_full: true, link_mode: LinkMode::Copy, ..options() });
    let manifest = store.seed(&two_packages());
    // With the time put back a glance would not see it.
    let file = store.path("cache/@s/b@2.1.0@@@1/index.js");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "X").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    assert_eq!(store.build("h1", &manifest), Materialized::Missing(vec![1]));
}

#[test]
fn a_folder_of_two_integrities_goes_with_the_last() {
    let store = fixture();
    let (first, bytes) = blob("a", "1.0.0", &[]);
    let second = Entry { integrity: "sha512-other".into(), ..first.clone() };
    store.seed(&[(first.clone(), bytes.clone()), (second.clone(), bytes)]);
    let sweep = |keep: &[Entry], grace| {
        let now = Now::Given(crate::clock::epoch_ms() as f64 + 5000.0);
        store.store.sweep_cache_gc(&[keep.to_vec()], grace, now, &Context::quiet()).unwrap()
    };
    let swept = sweep(std::slice::from_ref(&second), 1000.0);
    assert_eq!((swept.deleted, swept.bytes_reclaimed), (vec![first.integrity], 0));
    assert_eq!(store.build("h1", std::slice::from_ref(&second)), Materialized::Flipped { built: true });
    assert_eq!(store.store.local_integrities().unwrap(), ["sha512-other"]);
    store.build("h2", &[]);
    fs::remove_dir_all(store.path("trees/h1")).unwrap();
    assert_eq!(sweep(&[], 1000.0).deleted, ["sha512-other"]);
    assert!(!store.path("cache/a@1.0.0@@@1").exists());
}

#[cfg(unix)]
#[test]
fn a_backslash_is_a_letter() {
    let store = fixture();
    let manifest = store.seed(&[blob("a", "1.0.0", &[("lib/b\\c.js", "x")])]);
    assert_eq!(store.build("h1", &manifest), Materialized::Flipped { built: true });
    assert!(store.path("current/node_modules/a/lib/b\\c.js").is_file());
    assert!(store.store.verify_tree("h1", &Context::quiet()).unwrap().is_sound());
}

#[test]
fn what_a_package_brings_along_is_not_put_there_again() {
    let json = r#"{"name":"p","version":"1.0.0","dependencies":{"x":"^1.0.0","@t/z":"*"}}"#;
    let brought = [
        ("package.json", json),
        ("node_modules/x/package.json", r#"{"name":"x","version":"1.5.0"}"#),
        ("node_modules/@t/z/index.js", "brought"),
    ];
    let store = fixture();
    // Without what it brought, x@1 would have to be nested, and z would be missing.
    let manifest = store.seed(&[blob("p", "1.0.0", &brought), blob("x", "2.0.0", &[]), blob("x", "1.0.0", &[])]);
    assert_eq!(store.build("h1", &manifest), Materialized::Flipped { built: true });
    let text = |path: &str| fs::read_to_string(store.path("current/node_modules").join(path)).unwrap();
    assert!(text("p/node_modules/x/package.json").contains("1.5.0"));
    assert!(text("x/package.json").contains("2.0.0"));
    assert_eq!(text("p/node_modules/@t/z/index.js"), "brought");
}

#[test]
fn a_package_json_that_says_nothing_is_told() {
    let store = fixture();
    let manifest = store.seed(&[blob("a", "1.0.0", &[("package.json", "not JSON")]), blob("b", "1.0.0", &[])]);
    let plan = store.store.plan_tree(&manifest, &Context::quiet()).unwrap();
    let messages: Vec<_> = plan.findings.into_iter().map(|finding| finding.message).collect();
    let told = "a@1.0.0 in node_modules/a has a package.json that is no JSON object: it got no dependencies";
    assert_eq!(messages, [told]);
}

#[cfg(unix)]
#[test]
fn special_bits_of_foreign_entries_stay_in_the_cache() {
    let store = with(Options { link_mode: LinkMode::Hardlink, ..options() });
    let manifest = store.seed(&two_packages());
    // As the original's, which keeps no records.
    fs::remove_dir_all(store.path(".hf/index")).unwrap();
    for file in ["a@1.0.0@@@1/lib/deep/x.js", "a@1.0.0@@@1/cli.js"] {
        set_mode(&store.path("cache").join(file), 0o4755);
    }
    store.build("h1", &manifest);
    for file in ["a/lib/deep/x.js", "a/cli.js"] {
        assert_eq!(mode(&store.path("current/node_modules").join(file)), 0o755, "{file}");
    }
    assert!(store.store.verify_tree("h1", &Context::quiet()).unwrap().is_sound());
}

#[cfg(unix)]
#[test]
fn a_snapshot_answers_the_tree_that_it_pins() {
    let store = fixture();
    for hash in ["h1", "h2"] {
        store.build(hash, &[]);
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (disk, paths) = (Disk::real(), store.store.paths());
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for hash in ["h1", "h2"] {
                    link::flip(&disk, paths, hash, Now::Clock, false).unwrap();
                }
            }
        });
        let mut wrong = 0;
        for _ in 0..3000 {
            let found = resolve::snapshot_resolution_root(&Disk::real(), &store.store.paths().root, None, None);
            let resolve::SnapshotRoot::Ready(snapshot) = found.unwrap() else { continue };
            wrong += usize::from(!snapshot.root.ends_with(&snapshot.lockfile_hash));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(wrong, 0);
    });
}

#[test]
fn a_publication_without_a_word_is_no_success() {
    // The holder of the lock took the entry out of the queue, panicked, and left no outcome.
    let store = fixture();
    let (entry, bytes) = blob("a", "1.0.0", &[]);
    store.store.seed(&entry, &bytes, false, &Context::quiet()).unwrap();
    let shared = store.store.shared().unwrap();
    let waiting = std::thread::scope(|scope| {
        let turn = store.store.lock(&Context::quiet()).unwrap();
        let seeding = scope.spawn(|| store.store.seed(&entry, &bytes, true, &Context::quiet()));
        while lock::guard(&shared.waiting).is_empty() {
            std::thread::yield_now();
        }
        lock::guard(&shared.waiting).clear();
        drop(turn);
        seeding.join().unwrap()
    });
    assert_eq!(waiting.map_err(|error: HfError| error.code()), Err(Code::Panic));
}
