//! Times, for people: `cargo test --release packages::archive::tests::bench -- --ignored --nocapture`.
//! `HF_ARCHIVE_DIR` names the folder to work in (a tmpfs shows our own share), `HF_ARCHIVE_FULL=1` turns syncing on.

use std::time::{Duration, Instant};

use super::*;

/// Text that compresses about as well as JavaScript does.
fn text(seed: u64, bytes: usize) -> Vec<u8> {
    let words =
        ["function", "return", "const", "module", "exports", "if", "this", "=>", "{\n", "}\n", "value", "index"];
    let (mut state, mut out) = (seed | 1, Vec::with_capacity(bytes + 32));
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(words[(state % 12) as usize].as_bytes());
        if state.is_multiple_of(4) {
            out.extend_from_slice(format!("{:x}", state >> 44).as_bytes());
        }
        out.push(b' ');
    }
    out.truncate(bytes);
    out
}

fn run(what: &str, home: &Path, names: &[String]) {
    let full = std::env::var_os("HF_ARCHIVE_FULL").is_some();
    let started = Instant::now();
    let blobs: Vec<_> = names.iter().map(|name| pack(home, name, true, &never).unwrap()).collect();
    println!("{what}: pack {:?}, {} bytes", started.elapsed(), blobs.iter().map(Vec::len).sum::<usize>());
    for round in 0..3 {
        let target = home.join(format!("out-{what}-{round}"));
        let (mut checking, mut writing) = (Duration::ZERO, Duration::ZERO);
        for blob in &blobs {
            let started = Instant::now();
            let plan = check(blob, &Limits::default(), false).unwrap();
            checking += started.elapsed();
            let started = Instant::now();
            let with = UnpackOptions { durability_full: full, ..options() };
            unpack(blob, &plan, &target, &with).unwrap();
            writing += started.elapsed();
        }
        println!("{what}: unpack {:?} = check {checking:?} + write {writing:?}", checking + writing);
    }
}

#[test]
#[ignore = "prints times, asserts nothing"]
fn times() {
    let home = match std::env::var_os("HF_ARCHIVE_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let small: Vec<String> = (0..191).map(|i| format!("small-{i}@1.0.0")).collect();
    for (i, name) in small.iter().enumerate() {
        for file in 0..20 {
            let path = home.path().join(name).join(if file % 3 == 0 { "lib/inner" } else { "." });
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(format!("file-{file}.js")), text((i * 100 + file) as u64, 5100)).unwrap();
        }
    }
    let big = home.path().join("big@1.0.0");
    fs::create_dir(&big).unwrap();
    for file in 0..116 {
        fs::write(big.join(format!("{file}.js")), text(file, 276_000)).unwrap();
    }
    run("191 small packages", home.path(), &small);
    run("32 MB", home.path(), &["big@1.0.0".to_owned()]);
}
