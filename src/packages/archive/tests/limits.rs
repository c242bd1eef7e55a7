//! Bombs: refused while they are inflated, at the limit and not below it.

use std::io::{Read as _, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::made::{Made, gzip};
use super::*;

const WIDE: Limits = Limits {
    max_entries: 1000,
    max_total_bytes: 1 << 20,
    max_entry_bytes: 1 << 20,
    max_path_bytes: 1000,
    max_depth: 100,
};

#[track_caller]
fn refused(made: Made, limits: &Limits, which: &str) {
    let error = check(&made.gz(), limits, false).unwrap_err();
    assert!(message(&error).contains(&format!("limit {which} exceeded at")), "{error}");
    assert_eq!(error.fields()["limit"], which);
}

#[test]
fn every_limit_holds_exactly() {
    let files = |count: usize| (0..count).fold(Made::new(), |made, i| made.file(&format!("f{i}"), b"12345678"));
    let limits = Limits { max_entries: 3, ..WIDE };
    assert_eq!(check(&files(3).gz(), &limits, false).unwrap().entries().len(), 3);
    refused(files(4), &limits, "maxEntries");

    let limits = Limits { max_total_bytes: 24 + 10_240, ..WIDE };
    check(&files(3).gz(), &limits, false).unwrap();
    let limits = Limits { max_total_bytes: 24, ..WIDE };
    refused(files(4), &limits, "maxTotalBytes");

    let limits = Limits { max_entry_bytes: 8, ..WIDE };
    check(&files(3).gz(), &limits, false).unwrap();
    refused(Made::new().file("big", b"123456789"), &limits, "maxEntryBytes");

    let limits = Limits { max_path_bytes: 5, ..WIDE };
    check(&Made::new().file("a/b/c", b"").gz(), &limits, false).unwrap();
    refused(Made::new().file("a/b/cd", b""), &limits, "maxPathBytes");
    refused(Made::new().pax("path", b"a/b/cd").file("a", b""), &limits, "maxPathBytes");

    let limits = Limits { max_depth: 3, ..WIDE };
    check(&Made::new().file("a/./b//c", b"").gz(), &limits, false).unwrap();
    refused(Made::new().file("a/b/c/d", b""), &limits, "maxDepth");
    refused(Made::new().dir("a/b/c/d/"), &limits, "maxDepth");
}

#[test]
fn folders_that_only_paths_name_are_bounded_too() {
    let deep = (0..60).fold(Made::new(), |made, i| made.file(&format!("{i}/{}x", "d/".repeat(30)), b""));
    refused(deep, &Limits { max_entries: 100, ..WIDE }, "maxEntries");
}

#[test]
fn long_names_are_bounded_together() {
    let long =
        |i: usize| format!("{}/{i}", ["x".repeat(200), "y".repeat(200), "z".repeat(200), "w".repeat(200)].join("/"));
    let limits = Limits { max_path_bytes: 4096, max_entries: 1_000_000, max_total_bytes: 1 << 30, ..WIDE };
    let many = |count| (0..count).fold(Made::new(), |made, i| made.pax("path", long(i).as_bytes()).file("a", b""));
    check(&many(1000).gz(), &limits, false).unwrap();
    refused(many(22_000), &limits, "16 MiB of paths");
}

#[test]
fn metadata_without_end_is_bounded() {
    let records = (0..200).fold(Made::new(), |made, _| made.record(b'g', b"13 comment=x\n"));
    refused(records.file("a", b""), &Limits { max_entries: 100, ..WIDE }, "maxEntries");
    let names = (0..40).fold(Made::new(), |made, i| made.pax("comment", &[b'c'; 30_000]).file(&format!("{i}"), b""));
    refused(names, &WIDE, "maxTotalBytes");
    let mut padded = Made::new().file("a", b"").0;
    padded.resize(padded.len() + (2 << 20), 0);
    let error = check(&gzip(&padded), &WIDE, false).unwrap_err();
    assert!(error.message().contains("limit maxTotalBytes exceeded"), "{error}");
}

/// A tar of `files` files of zeros, gzipped as it is made.
fn zeros(files: usize, bytes_each: u64) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let block = vec![0; 1 << 20];
    for index in 0..files {
        encoder
            .write_all(&Made::new().raw(format!("z{index}").as_bytes(), b'0', 0o644, bytes_each, b"", b"").0)
            .unwrap();
        for _ in 0..bytes_each >> 20 {
            encoder.write_all(&block).unwrap();
        }
    }
    encoder.write_all(&[0; 1024]).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_bomb_leaves_nothing_behind() {
    let _alone = alone();
    let bomb = zeros(20, 10 << 20);
    assert!(bomb.len() < 300_000);
    let home = tempfile::tempdir().unwrap();
    let limits = Limits { max_total_bytes: 64 << 20, ..Limits::default() };
    let error = unpack_with(&bomb, &home.path().join("target"), &limits, false).unwrap_err();
    assert!(error.message().contains("limit maxTotalBytes exceeded at \"z6\""), "{error}");
    assert!(listing(home.path()).is_empty(), "the target was not even made");
}

#[test]
fn what_is_not_kept_inflated_is_unpacked_all_the_same() {
    let _alone = alone();
    let big = zeros(3, 5 << 20);
    let first = check(&big, &Limits::default(), false).unwrap();
    assert!(first.inflated.is_some(), "one large archive at a time is kept");
    let second = check(&big, &Limits::default(), false).unwrap();
    assert!(second.inflated.is_none());
    let hash = *blake3::hash(&vec![0; 5 << 20]).as_bytes();
    for plan in [&first, &second] {
        let home = tempfile::tempdir().unwrap();
        for file in unpack(&big, plan, home.path(), &options()).unwrap() {
            assert_eq!((file.size, file.blake3), (5 << 20, Some(hash)));
            assert_eq!(fs::metadata(home.path().join(&file.path)).unwrap().len(), 5 << 20);
        }
    }
    // Nobody keeps one beyond the bound, also where it claims to be shorter, and who was done gives the right back.
    drop(first);
    let huge = zeros(8, 9 << 20);
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(huge.as_slice()).read_to_end(&mut tar).unwrap();
    let (most, end) = tar.split_at(tar.len() - 512);
    let lying = [gzip(most), gzip(end)].concat();
    for bytes in [&huge, &lying] {
        let plan = check(bytes, &Limits::default(), false).unwrap();
        assert!(plan.inflated.is_none() && plan.entries().len() == 8);
    }
    assert!(check(&big, &Limits::default(), false).unwrap().inflated.is_some());
}
