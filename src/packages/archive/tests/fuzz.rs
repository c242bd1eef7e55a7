//! Whatever the bytes: no panic, nothing outside of the target, and nothing at all after a refusal.

use proptest::prelude::*;

use super::made::{Made, gzip};
use super::*;

/// One part of an archive, honest or not.
#[derive(Debug, Clone)]
struct Part {
    name: Vec<u8>,
    kind: u8,
    mode: u32,
    lie: u64,
    content: Vec<u8>,
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::sample::select(vec![
        "a", "b", "A", "lib", "..", ".", "", " ", "...", "é", "e\u{301}", "link", "secret", "C:", "\\", "..\\", "x\\y",
        "nul",
    ]);
    prop_oneof![
        8 => prop::collection::vec(parts, 1..5).prop_map(|parts| parts.join("/").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let kinds = prop_oneof![
        6 => prop::sample::select(vec![b'0', b'5', 0]),
        2 => prop::sample::select(vec![b'x', b'g', b'L', b'K']),
        1 => any::<u8>(),
    ];
    let lies = prop_oneof![12 => Just(0), 1 => 0..2000u64, 1 => any::<u64>()];
    let part = (names(), kinds, any::<u32>(), lies, prop::collection::vec(any::<u8>(), 0..600));
    prop::collection::vec(
        part.prop_map(|(name, kind, mode, lie, content)| Part { name, kind, mode: mode & 0o7777, lie, content }),
        0..8,
    )
}

fn build(parts: &[Part]) -> Vec<u8> {
    let mut made = Made::new();
    for part in parts {
        let record;
        let content = match part.kind {
            b'x' | b'g' => {
                let key = ["path", "linkpath", "size", "comment", "GNU.sparse.size"][part.content.len() % 5];
                record = super::made::pax(key, &part.name);
                &record
            }
            b'L' | b'K' => &part.name,
            b'5' => &Vec::new(),
            _ => &part.content,
        };
        let name = &part.name[..part.name.len().min(99)];
        made =
            made.raw(name, part.kind, part.mode, (content.len() as u64).wrapping_add(part.lie), b"../secret", content);
    }
    made.end()
}

/// Unpacks into a target with links planted in it, and looks at everything around it.
fn survives(bytes: &[u8], fold_case: bool) -> bool {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::create_dir(home.path().join("secret")).unwrap();
    fs::write(home.path().join("secret/a"), "secret").unwrap();
    #[cfg(unix)]
    for name in ["link", "a", "lib"] {
        std::os::unix::fs::symlink("../secret", target.join(name)).unwrap();
    }
    let before = listing(home.path());
    let limits = Limits { max_total_bytes: 1 << 20, ..Limits::default() };
    let checked = check(bytes, &limits, fold_case);
    assert_eq!(listing(home.path()), before, "checking writes nothing");
    let Ok(plan) = checked else { return false };
    let result = unpack(bytes, &plan, &target, &options());
    let mut after = listing(home.path());
    let written: Vec<_> = after.keys().filter(|path| path.starts_with("target/")).cloned().collect();
    if let Ok(files) = &result {
        for file in files {
            let content = after.get(&format!("target/{}", file.path)).and_then(Option::as_ref);
            assert_eq!(content.map(|bytes| *blake3::hash(bytes).as_bytes()), file.blake3, "{}", file.path);
        }
    }
    after.retain(|path, _| !written.contains(path));
    let mut expected = before;
    expected.retain(|path, _| !path.starts_with("target/"));
    assert_eq!(after, expected, "nothing beside the target changed");
    result.is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn archives_of_strange_parts(parts in parts(), fold_case: bool) {
        survives(&gzip(&build(&parts)), fold_case);
    }

    #[test]
    fn archives_with_bytes_changed(
        parts in parts(),
        tar_changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        gzip_changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut tar = build(&parts);
        for (at, byte) in tar_changes {
            let at = at.index(tar.len());
            tar[at] = byte;
        }
        let mut bytes = gzip(&tar);
        for (at, byte) in gzip_changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        survives(&bytes, false);
    }

    #[test]
    fn bytes_without_sense(bytes in prop::collection::vec(any::<u8>(), 0..2000), framed: bool) {
        survives(&if framed { gzip(&bytes) } else { bytes }, false);
    }
}

/// The strategies above are worth something only if they also make archives that are accepted.
#[test]
fn some_strange_archives_are_accepted() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let accepted =
        (0..300).filter(|_| survives(&gzip(&build(&parts().new_tree(&mut runner).unwrap().current())), false)).count();
    assert!((20..290).contains(&accepted), "{accepted} of 300");
}
