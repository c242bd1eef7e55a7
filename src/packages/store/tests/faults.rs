//! Syncs that fail: nothing counts as done that a power cut could undo.

use super::*;

/// A disk on which syncs of one folder fail: the `nth` of them, 0 for all.
fn failing(folder: &Path, nth: u32) -> Disk {
    let path_ends = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let rule = Rule { point: None, op: Some("syncDir".into()), path_ends, nth, action: Action::Errno(5) };
    Disk::intercepted(Arc::new(FaultPlan::new(vec![rule])))
}

fn full(disk: Disk, root: &Path) -> Store {
    Store::with_disk(disk, root, Options::default())
}

#[test]
fn a_tree_rebuilt_in_use_is_synced_and_counts_for_nothing_if_that_fails() {
    let root = in_memory();
    let calm = full(Disk::real(), root.path());
    calm.materialize_and_flip("h1", &[], &Context::quiet()).unwrap();
    let record = calm.paths().tree("h1").join(".hf-tree.json");
    fs::write(&record, "{").unwrap();
    let error = full(failing(Path::new("trees"), 1), root.path())
        .materialize_and_flip("h1", &[], &Context::quiet())
        .unwrap_err();
    assert!(error.is_sync_failure(), "{error}");
    assert!(!record.exists());
    assert_eq!(
        calm.materialize_and_flip("h1", &[], &Context::quiet()).unwrap(),
        Materialized::Flipped { built: true },
        "built anew, because the next sync says nothing about the last one"
    );
}

#[test]
fn a_flip_whose_sync_failed_is_done_again() {
    let root = in_memory();
    let calm = full(Disk::real(), root.path());
    calm.materialize_and_flip("h1", &[], &Context::quiet()).unwrap();
    for _ in 0..2 {
        // The second time the link leads to h2 already.
        let error =
            full(failing(root.path(), 0), root.path()).materialize_and_flip("h2", &[], &Context::quiet()).unwrap_err();
        assert!(error.is_sync_failure(), "{error}");
        assert_eq!(link::target_of(calm.paths()).as_deref(), Some("trees/h2"));
        assert_eq!(calm.current_lockfile_hash(), None);
    }
    let before = fs::symlink_metadata(&calm.paths().current).unwrap();
    calm.materialize_and_flip("h2", &[], &Context::quiet()).unwrap();
    assert_eq!(calm.current_lockfile_hash().as_deref(), Some("h2"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let after = fs::symlink_metadata(&calm.paths().current).unwrap();
        assert_ne!(before.ino(), after.ino(), "a new link: a second sync of the old one would prove nothing");
    }
    // And then it is left alone.
    let before = fs::symlink_metadata(&calm.paths().current).unwrap().modified().unwrap();
    calm.materialize_and_flip("h2", &[], &Context::quiet()).unwrap();
    assert_eq!(fs::symlink_metadata(&calm.paths().current).unwrap().modified().unwrap(), before);
}

#[test]
fn a_process_syncs_the_link_that_it_finds_once() {
    let root = in_memory();
    // By somebody who was killed before the sync.
    let other = Store::open(root.path(), options());
    other.materialize_and_flip("h1", &[], &Context::quiet()).unwrap();
    assert_eq!(other.current_lockfile_hash().as_deref(), Some("h1"));
    assert_eq!(full(failing(root.path(), 1), root.path()).current_lockfile_hash(), None);
    assert_eq!(full(Disk::real(), root.path()).current_lockfile_hash().as_deref(), Some("h1"));
    let later = full(failing(root.path(), 0), root.path());
    assert_eq!(later.current_lockfile_hash().as_deref(), Some("h1"), "not asked again");
}

#[test]
fn a_sweep_ends_with_its_renames_on_the_disk() {
    let root = in_memory();
    let calm = full(Disk::real(), root.path());
    for hash in ["h1", "h2"] {
        calm.materialize_and_flip(hash, &[], &Context::quiet()).unwrap();
    }
    let later = Now::Given(crate::clock::epoch_ms() as f64 + 7_200_000.0);
    let unlucky = full(failing(Path::new("trees"), 1), root.path());
    let error = unlucky.sweep_tree_gc(1.0, later, &Context::quiet()).unwrap_err();
    assert!(error.is_sync_failure(), "{error}");
    // One that deletes nothing has nothing to sync.
    let unlucky = full(failing(Path::new("trees"), 1), root.path());
    assert_eq!(unlucky.sweep_tree_gc(1.0, later, &Context::quiet()).unwrap().deleted, Vec::<String>::new());
}

#[test]
fn jobs_that_wait_for_a_lock_hold_up_nobody_else() {
    let root = in_memory();
    let store = Store::open(root.path(), Options { lock_timeout: Duration::from_secs(2), ..options() });
    let (entry, bytes) = blob("a", "1.0.0", &[]);
    store.seed(&entry, &bytes, false, &Context::quiet()).unwrap();
    let held = fs::File::options().write(true).open(store.paths().lock()).unwrap();
    held.lock().unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    let jobs = 2 * crate::durable::pool::THREADS_MAX;
    for _ in 0..jobs {
        let (store, entry, bytes, done) = (store.clone(), entry.clone(), bytes.clone(), done.clone());
        LOCKED.spawn(move || done.send(store.seed(&entry, &bytes, true, &Context::quiet()).is_ok()).unwrap());
    }
    let (answer, answered) = std::sync::mpsc::channel();
    crate::durable::pool::spawn(move || answer.send(()).unwrap());
    answered.recv_timeout(Duration::from_secs(1)).unwrap();
    assert!(ended.try_recv().is_err(), "they still wait");
    held.unlock().unwrap();
    for _ in 0..jobs {
        assert!(ended.recv_timeout(Duration::from_secs(20)).unwrap());
    }
}
