//! What unpacking writes, and what it never writes through.

use std::cell::Cell;

use super::made::Made;
use super::*;
use crate::error::Code;

fn package() -> Made {
    Made::new().dir("p@1/").file("p@1/package.json", b"{}").file("p@1/lib/deep/a.js", b"a").file("p@1/b.js", b"b")
}

#[test]
fn files_folders_sizes_and_hashes() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("not/there/yet");
    let files = unpack_into(&package().raw(b"p@1/run", b'0', 0o111, 1, b"", b"r").gz(), &target).unwrap();
    let names: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.size, file.mode)).collect();
    assert_eq!(
        names,
        [
            ("p@1/package.json", 2, 0o644),
            ("p@1/lib/deep/a.js", 1, 0o644),
            ("p@1/b.js", 1, 0o644),
            ("p@1/run", 1, 0o755)
        ]
    );
    for file in &files {
        let bytes = fs::read(target.join(&file.path)).unwrap();
        assert_eq!(file.blake3, Some(*blake3::hash(&bytes).as_bytes()));
        #[cfg(unix)]
        assert_eq!(mode(&target.join(&file.path)), file.mode);
    }
}

#[cfg(unix)]
#[test]
fn special_bits_and_owners_are_dropped() {
    use std::os::unix::fs::MetadataExt;
    let home = tempfile::tempdir().unwrap();
    let made = Made::new()
        .raw(b"d", b'5', 0o7777, 0, b"", b"")
        .raw(b"d/setuid", b'0', 0o4755, 1, b"", b"x")
        .raw(b"d/secret", b'0', 0o7600, 1, b"", b"x")
        .raw(b"d/none", b'0', 0, 1, b"", b"x");
    unpack_into(&made.gz(), home.path()).unwrap();
    let own = fs::metadata(home.path()).unwrap().uid();
    for (name, expected) in [("d", 0o755), ("d/setuid", 0o755), ("d/secret", 0o644), ("d/none", 0o644)] {
        assert_eq!(mode(&home.path().join(name)), expected, "{name}");
        assert_eq!(fs::metadata(home.path().join(name)).unwrap().uid(), own);
    }
}

#[test]
fn harmless_forms_are_accepted() {
    let home = tempfile::tempdir().unwrap();
    let long = format!("{}/x", "n".repeat(200));
    let made = Made::new()
        .dir("./")
        .dir("a/")
        .dir("a")
        .raw(b"old/", b'0', 0o755, 0, b"", b"")
        .file("./a/./b", b"1")
        .file("..x/...", b"")
        .record(b'g', b"16 comment=git!\n")
        .pax("path", long.as_bytes())
        .file("short", b"2")
        .record(b'L', b"gnu/name\0")
        .raw(b"short", 0, 0o644, 1, b"", b"3")
        .pax("mtime", b"1.5")
        .file("\u{fc}/\u{1f4e6}", b"4");
    unpack_into(&made.gz(), home.path()).unwrap();
    let found = listing(home.path());
    for (path, content) in [("a/b", "1"), ("..x/...", ""), (&long, "2"), ("gnu/name", "3"), ("\u{fc}/\u{1f4e6}", "4")] {
        assert_eq!(found.get(path), Some(&Some(content.into())), "{path}");
    }
    assert_eq!(found.get("old"), Some(&None));
}

#[test]
fn members_of_one_stream_are_joined() {
    let tar = package().end();
    let (a, b) = tar.split_at(700);
    let bytes = [super::made::gzip(a), super::made::gzip(b)].concat();
    let home = tempfile::tempdir().unwrap();
    assert_eq!(unpack_into(&bytes, home.path()).unwrap().len(), 3);
}

#[test]
fn existing_folders_are_merged_into_and_files_replaced() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path();
    fs::create_dir_all(root.join("p@1/lib")).unwrap();
    fs::write(root.join("p@1/lib/kept"), "kept").unwrap();
    fs::write(root.join("p@1/b.js"), "much longer than the new content").unwrap();
    fs::hard_link(root.join("p@1/b.js"), root.join("other-name")).unwrap();
    fs::write(root.join("p@1/lib/deep"), "a file where a folder belongs").unwrap();
    unpack_into(&package().gz(), root).unwrap();
    let found = listing(root);
    assert_eq!(found["p@1/lib/kept"], Some(b"kept".to_vec()));
    assert_eq!(found["p@1/b.js"], Some(b"b".to_vec()));
    assert_eq!(found["other-name"], Some(b"much longer than the new content".to_vec()), "other names keep their bytes");
    assert_eq!(found["p@1/lib/deep/a.js"], Some(b"a".to_vec()));
}

#[test]
fn a_folder_is_not_replaced_by_a_file() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join("p@1/b.js/full")).unwrap();
    let error = unpack_into(&package().gz(), home.path()).unwrap_err();
    assert_eq!(error.code(), Code::Io);
    assert!(home.path().join("p@1/b.js/full").is_dir());
}

#[cfg(unix)]
#[test]
fn planted_links_are_removed_and_never_followed() {
    use std::os::unix::fs::symlink;
    // (where, what it points at): components, the file itself, dangling ones, loops, out and in.
    for (plant, to) in [
        ("p@1", "../outside"),
        ("p@1/lib", "../../outside"),
        ("p@1/lib", "lib"),
        ("p@1/lib/deep", "/etc"),
        ("p@1/lib/deep/a.js", "../../../../outside/secret"),
        ("p@1/b.js", "../../outside/secret"),
        ("p@1/b.js", "nowhere"),
        ("p@1/b.js", "package.json"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        let target = home.path().join("target");
        fs::create_dir_all(target.join(plant).parent().unwrap()).unwrap();
        symlink(to, target.join(plant)).unwrap();
        let before = listing(&outside);
        unpack_into(&package().gz(), &target).unwrap();
        assert_eq!(listing(&outside), before, "{plant} -> {to}");
        let fresh = tempfile::tempdir().unwrap();
        unpack_into(&package().gz(), fresh.path()).unwrap();
        assert_eq!(listing(&target), listing(fresh.path()), "{plant} -> {to}");
    }
}

#[cfg(unix)]
#[test]
fn a_planted_pipe_is_removed_and_not_waited_for() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("p@1")).unwrap();
    for name in ["p@1/b.js", "p@1/lib"] {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            home.path().join(name),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_bits_truncate(0o666),
            0,
        )
        .unwrap();
    }
    unpack_into(&package().gz(), home.path()).unwrap();
    assert_eq!(fs::read(home.path().join("p@1/b.js")).unwrap(), b"b");
}

#[test]
fn folders_that_differ_in_case_are_one_where_case_is_folded() {
    let made =
        Made::new().file("Lib/a", b"1").dir("lib/").file("LIB/b", b"2").file("e\u{301}/x", b"").file("\u{c9}/y", b"");
    let plan = check(&made.clone().gz(), &Limits::default(), true).unwrap();
    let paths: Vec<_> = plan.entries().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["Lib/a", "Lib", "Lib/b", "e\u{301}/x", "e\u{301}/y"]);
    assert_eq!(check(&made.gz(), &Limits::default(), false).unwrap().entries()[2].path, "LIB/b");
}

#[test]
fn the_one_folder_that_holds_everything() {
    let root = |made: Made| {
        check(&made.gz(), &Limits::default(), false)
            .unwrap()
            .single_root()
            .map(str::to_owned)
            .map_err(|e| e.to_string())
    };
    assert_eq!(root(package()), Ok("p@1".into()));
    assert_eq!(root(Made::new().dir("./").file("./p@1/a", b"")), Ok("p@1".into()));
    assert_eq!(root(Made::new().dir("@s").dir("@s/p@1").file("@s/p@1/a", b"")), Ok("@s/p@1".into()));
    for (made, said) in [
        (package().file("lodash@4.17.21@@@1/a", b""), "side by side"),
        (package().dir(".cs-integrity"), "side by side"),
        (Made::new().file("@s/p@1/a", b"").file("@s/q@1/a", b""), "side by side"),
        (package().file("loose", b""), "outside of the folder"),
        (Made::new().file("@s/p@1/a", b"").file("@s/loose", b""), "outside of the folder"),
        (Made::new().file("loose", b""), "no folder"),
        (Made::new().dir("@s/"), "no folder"),
        (Made::new(), "no folder"),
    ] {
        let error = root(made).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn cancelling_stops_between_files_and_within_big_ones() {
    let _alone = alone();
    let home = tempfile::tempdir().unwrap();
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        if asked.get() > 3 { Err(crate::error::HfError::new(Code::Busy, "stopped")) } else { Ok(()) }
    };
    let bytes = package().gz();
    let plan = check(&bytes, &Limits::default(), false).unwrap();
    let error = unpack(&bytes, &plan, home.path(), &UnpackOptions { cancel: &stop, ..options() }).unwrap_err();
    assert_eq!(error.message(), "stopped");
    assert!(home.path().join("p@1/package.json").exists() && !home.path().join("p@1/b.js").exists());

    // Of a target that it made itself nothing stays.
    let new = tempfile::tempdir().unwrap();
    asked.set(0);
    let with = UnpackOptions { cancel: &stop, ..options() };
    unpack(&bytes, &plan, &new.path().join("a/b"), &with).unwrap_err();
    assert!(asked.get() > 3 && listing(new.path()).is_empty());

    let bytes = Made::new().file("big", &vec![7; 9 << 20]).gz();
    let plan = check(&bytes, &Limits::default(), false).unwrap();
    asked.set(0);
    let told = Cell::new(0);
    let progress = |bytes| told.set(told.get() + bytes);
    let with = UnpackOptions { cancel: &stop, progress: &progress, ..options() };
    unpack(&bytes, &plan, home.path(), &with).unwrap_err();
    assert!(told.get() > 0 && told.get() < 1 << 20, "{}", told.get());
}

#[test]
fn everything_is_synced_where_that_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let many = (0..150).fold(package(), |made, i| made.file(&format!("p@1/many/{i}/file"), b"x"));
    let bytes = many.gz();
    let plan = check(&bytes, &Limits::default(), false).unwrap();
    let with = UnpackOptions { durability_full: true, ..options() };
    let files = unpack(&bytes, &plan, &home.path().join("a/b"), &with).unwrap();
    assert_eq!(files.len(), 153);
    unpack_into(&bytes, &home.path().join("c")).unwrap();
    assert_eq!(listing(&home.path().join("a/b")), listing(&home.path().join("c")));
}

#[test]
fn a_plan_for_other_bytes_is_noticed() {
    let _alone = alone();
    let long = Made::new().file("a", &vec![1; 9 << 20]).gz();
    let _kept = check(&long, &Limits::default(), false).unwrap();
    // Not kept: only one large archive is.
    let plan = check(&long, &Limits::default(), false).unwrap();
    let home = tempfile::tempdir().unwrap();
    let error = unpack(&package().gz(), &plan, home.path(), &options()).unwrap_err();
    assert_eq!(error.code(), Code::PkgArchive);
}

#[test]
fn the_case_of_the_target_is_probed_without_a_trace() {
    let home = tempfile::tempdir().unwrap();
    let folds = crate::packages::archive::folds_case(home.path()).unwrap();
    assert!(listing(home.path()).is_empty());
    fs::write(home.path().join("a"), "").unwrap();
    assert_eq!(folds, home.path().join("A").exists());
}
