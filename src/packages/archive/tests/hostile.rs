//! Archives that mean harm: each is refused with the message of the format, and nothing is written.

use super::made::{Made, gzip, pax};
use super::*;

const PREFIX: &str = "HF_PKG_UNSAFE_ENTRY refusing to extract unsafe archive entry: ";

/// Unpacks into a fresh folder and returns the refusal, after looking that nothing was written there or beside it.
#[track_caller]
fn refusal(name: &str, bytes: &[u8], fold_case: bool) -> String {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::write(home.path().join("outside"), "safe").unwrap();
    let before = listing(home.path());
    let error = unpack_with(bytes, &target, &Limits::default(), fold_case).expect_err(name);
    assert_eq!(listing(home.path()), before, "{name}");
    message(&error)
}

fn good() -> Made {
    Made::new().dir("pkg/").file("pkg/package.json", b"{}")
}

#[test]
fn names_that_leave_the_target() {
    let long = "d/".repeat(60) + "../x";
    let table: Vec<(&str, Made, &str)> = vec![
        ("parent", good().file("../escape", b"x"), "parent-directory traversal in \"../escape\""),
        ("inner parent", good().file("pkg/../../e", b"x"), "parent-directory traversal in \"pkg/../../e\""),
        ("parent folder", good().dir("a/.."), "parent-directory traversal in \"a/..\""),
        ("backslash parent", good().file("a\\..\\b", b"x"), "parent-directory traversal in \"a\\..\\b\""),
        ("mixed parent", good().file("a/..\\b", b"x"), "parent-directory traversal in \"a/..\\b\""),
        ("parent behind blanks", good().file(" ../x", b"x"), "parent-directory traversal in \" ../x\""),
        ("parent before blanks", good().file("a/.. ", b"x"), "parent-directory traversal in \"a/.. \""),
        ("absolute", good().file("/tmp/x", b"x"), "absolute path \"/tmp/x\""),
        ("absolute behind blanks", good().file(" \t/tmp/x", b"x"), "absolute path \" \\t/tmp/x\""),
        ("the root itself", good().dir("/"), "absolute path \"/\""),
        ("drive", good().file("C:\\x", b"x"), "absolute path \"C:\\x\""),
        ("drive, slash", good().file("c:/x", b"x"), "absolute path \"c:/x\""),
        ("drive, relative", good().file("C:evil", b"x"), "absolute path \"C:evil\""),
        ("UNC", good().file("\\\\srv\\x", b"x"), "absolute path \"\\\\srv\\x\""),
        ("root-relative", good().file("\\x", b"x"), "absolute path \"\\x\""),
        ("device path", good().file("\\\\?\\C:\\x", b"x"), "absolute path"),
        ("empty", good().file("", b"x"), "invalid name \"\""),
        ("blank", good().file("   ", b"x"), "invalid name \"   \""),
        ("file at the root", good().file(".", b"x"), "invalid name \".\""),
        ("file at the root, longer", good().file("././.", b"x"), "invalid name"),
        ("file with a slash", good().raw(b"a/", b'0', 0o644, 1, b"", b"x"), "invalid name \"a/\""),
        ("not UTF-8", good().raw(b"a/\xff\xfe", b'0', 0o644, 1, b"", b"x"), "invalid name"),
        ("NUL by PAX", good().pax("path", b"a\0b").file("c", b"x"), "invalid name"),
        ("empty by PAX", good().pax("path", b"").file("c", b"x"), "invalid name \"\""),
        ("parent by PAX", good().pax("path", b"../x").file("pkg/c", b"x"), "parent-directory traversal in \"../x\""),
        ("absolute by PAX", good().pax("path", b"/etc/x").file("pkg/c", b"x"), "absolute path \"/etc/x\""),
        ("parent by GNU", good().record(b'L', b"../x\0").file("pkg/c", b"x"), "parent-directory traversal in \"../x\""),
        ("absolute by GNU", good().record(b'L', b"/x").file("pkg/c", b"x"), "absolute path \"/x\""),
        ("PAX wins over GNU", good().record(b'L', b"ok\0").pax("path", b"/x").file("c", b"x"), "absolute path \"/x\""),
        ("deep parent", good().record(b'L', long.as_bytes()).file("c", b"x"), "parent-directory traversal"),
        ("long component", good().pax("path", &[b'n'; 256]).file("c", b"x"), "invalid name"),
    ];
    for (name, made, expected) in table {
        let said = refusal(name, &made.gz(), false);
        assert!(said.starts_with(&format!("{PREFIX}{expected}")), "{name}: {said}");
    }
}

#[test]
fn the_name_of_the_ustar_prefix_counts() {
    let mut made = good().file("x", b"x");
    let start = made.0.len() - 1024;
    made.0[start + 345..start + 347].copy_from_slice(b"..");
    let sum: u32 = (0..512).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(made.0[start + i]) }).sum();
    made.0[start + 148..start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let said = refusal("prefix", &made.gz(), false);
    assert_eq!(said, format!("{PREFIX}parent-directory traversal in \"../x\""));
}

#[test]
fn types_that_are_neither_file_nor_folder() {
    let link = |kind: u8| good().raw(b"evil", kind, 0o777, 0, b"/etc", b"");
    let sparse = good().record(b'x', &pax("GNU.sparse.major", b"1")).file("s", b"x");
    let table: Vec<(&str, Made, &str)> = vec![
        ("symlink", link(b'2'), "link entry (type \"l\") in \"evil -> /etc\""),
        ("hard link", link(b'1'), "link entry (type \"h\") in \"evil -> /etc\""),
        (
            "long link",
            good().record(b'K', b"/far/away\0").typed("evil", b'2'),
            "link entry (type \"l\") in \"evil -> /far/away\"",
        ),
        (
            "PAX link",
            good().pax("linkpath", b"/pax").typed("evil", b'2'),
            "link entry (type \"l\") in \"evil -> /pax\"",
        ),
        ("character device", good().typed("d", b'3'), "non-regular entry (type \"c\") in \"d\""),
        ("block device", good().typed("d", b'4'), "non-regular entry (type \"b\") in \"d\""),
        ("FIFO", good().typed("d", b'6'), "non-regular entry (type \"p\") in \"d\""),
        ("contiguous", good().typed("d", b'7'), "non-regular entry (type \"C\") in \"d\""),
        ("GNU sparse", good().typed("d", b'S'), "non-regular entry (type \"S\") in \"d\""),
        ("PAX sparse", sparse, "non-regular entry (type \"S\") in \"s\""),
        ("volume label", good().typed("d", b'V'), "non-regular entry (type \"V\") in \"d\""),
        ("multi-volume", good().typed("d", b'M'), "non-regular entry (type \"M\") in \"d\""),
        ("unknown", good().typed("d", b'Z'), "non-regular entry (type \"Z\") in \"d\""),
        ("absurd", good().typed("d", 0xff), "non-regular entry"),
    ];
    for (name, made, expected) in table {
        let said = refusal(name, &made.file("pkg/after", b"x").gz(), false);
        assert!(said.starts_with(&format!("{PREFIX}{expected}")), "{name}: {said}");
    }
}

#[test]
fn one_name_twice() {
    let table: Vec<(&str, Made, bool, &str)> = vec![
        ("file twice", good().file("pkg/a", b"1").file("pkg/a", b"2"), false, "duplicate path \"pkg/a\""),
        ("by dots", good().file("pkg/a", b"1").file("./pkg//./a", b"2"), false, "duplicate path \"pkg/a\""),
        ("by PAX", good().file("pkg/a", b"1").pax("path", b"pkg/a").file("b", b"2"), false, "duplicate path \"pkg/a\""),
        ("file, then folder", good().file("pkg/a", b"1").dir("pkg/a/"), false, "duplicate path \"pkg/a\""),
        ("folder, then file", good().dir("pkg/a/").file("pkg/a", b"1"), false, "duplicate path \"pkg/a\""),
        ("file, then below it", good().file("pkg/a", b"1").file("pkg/a/b", b"1"), false, "duplicate path \"pkg/a\""),
        ("needed folder, then file", good().file("p/a/b", b"1").file("p/a", b"1"), false, "duplicate path \"p/a\""),
        (
            "case",
            good().file("pkg/README", b"1").file("pkg/readme", b"2"),
            true,
            "case collision \"pkg/readme\" / \"pkg/README\"",
        ),
        ("case of a folder", good().file("A/x", b"1").file("a/X", b"2"), true, "case collision \"A/X\" / \"A/x\""),
        ("composition", good().file("\u{e9}", b"1").file("e\u{301}", b"2"), true, "case collision"),
        ("sharp s", good().file("stra\u{df}e", b"1").file("STRASSE", b"2"), true, "case collision"),
        ("Kelvin", good().file("k", b"1").file("\u{212a}", b"2"), true, "case collision"),
        (
            "file and folder by case",
            good().file("pkg/a", b"1").file("pkg/A/b", b"2"),
            true,
            "case collision \"pkg/A\" / \"pkg/a\"",
        ),
    ];
    for (name, made, fold_case, expected) in table {
        let said = refusal(name, &made.gz(), fold_case);
        assert!(said.starts_with(&format!("{PREFIX}{expected}")), "{name}: {said}");
    }
}

#[test]
fn archives_that_readers_would_understand_differently() {
    let mut lying = good().file("a", b"x");
    let at = lying.0.len() - 1024;
    lying.0[at + 148] ^= 1;
    let two_members = |made: Made| {
        let mut bytes = gzip(&made.clone().end());
        bytes.extend(gzip(&made.end()));
        bytes
    };
    let with_tail = |tail: &[u8]| {
        let mut bytes = good().gz();
        bytes.extend_from_slice(tail);
        bytes
    };
    let after_end = |tail: &[u8]| {
        let mut bytes = good().end();
        bytes.extend_from_slice(tail);
        gzip(&bytes)
    };
    let mut bad_crc = good().gz();
    let crc = bad_crc.len() - 8;
    bad_crc[crc] ^= 1;
    let mut bad_size = good().gz();
    let size = bad_size.len() - 4;
    bad_size[size] ^= 1;
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("no gzip", vec![1, 2, 3, 4]),
        ("only a gzip header", good().gz()[..10].to_vec()),
        ("empty tar", gzip(&[])),
        ("not a tar", gzip(&[7; 4096])),
        ("bad checksum of a header", lying.gz()),
        ("bad CRC", bad_crc),
        ("bad length", bad_size),
        ("garbage behind", with_tail(b"garbage")),
        ("zeros behind", with_tail(&[0; 512])),
        ("half a member behind", with_tail(&gzip(b"x")[..12])),
        ("two archives", two_members(good())),
        ("an entry after the end", after_end(&Made::new().file("evil", b"x").0)),
        ("no end mark", gzip(&good().0)),
        ("cut within a file", gzip(&good().file("a", &[1; 600]).0[..2560])),
        ("cut within a header", gzip(&good().0[..700])),
        ("folder with content", good().raw(b"d/", b'5', 0o755, 3, b"", b"abc").gz()),
        ("PAX size too small", good().pax("size", b"0").file("a", b"abc").gz()),
        ("PAX size too big", good().pax("size", b"1024").file("a", b"abc").file("b", &[0; 512]).gz()),
        ("PAX size no number", good().pax("size", b"1e3").file("a", b"abc").gz()),
        ("PAX size negative", good().pax("size", b"-1").file("a", b"abc").gz()),
        ("PAX length lies", good().record(b'x', b"99 path=x\n").file("a", b"").gz()),
        ("PAX length short", good().record(b'x', b"8 path=xy\n").file("a", b"").gz()),
        ("PAX without length", good().record(b'x', b"path=x\n").file("a", b"").gz()),
        ("PAX without equals", good().record(b'x', b"8 pathx\n").file("a", b"").gz()),
        ("PAX hidden behind an empty line", good().record(b'x', b"\n12 path=../x\n").file("a", b"").gz()),
        ("PAX path twice", good().record(b'x', &[pax("path", b"a"), pax("path", b"b")].concat()).file("a", b"").gz()),
        ("global path", good().record(b'g', &pax("path", b"x")).file("a", b"").gz()),
        ("global size", good().record(b'g', &pax("size", b"0")).file("a", b"x").gz()),
        ("global link", good().record(b'g', &pax("linkpath", b"0")).file("a", b"x").gz()),
        ("two long names", good().record(b'L', b"a\0").record(b'L', b"b\0").file("c", b"x").gz()),
        ("two PAX records", good().pax("path", b"a").pax("path", b"b").file("c", b"x").gz()),
        ("long name, NUL within", good().record(b'L', b"ok\0/../../x\0").file("c", b"x").gz()),
        ("long name, empty", good().record(b'L', b"\0").file("c", b"x").gz()),
        ("long name of nothing", good().record(b'L', b"a\0").gz()),
        ("PAX of nothing", good().pax("path", b"a").gz()),
        ("record of two mebibytes", good().record(b'x', &vec![b'1'; 2 << 20]).file("c", b"").gz()),
    ];
    for (name, bytes) in table {
        let said = refusal(name, &bytes, false);
        assert!(said.starts_with("HF_PKG_ARCHIVE tar extract failed: "), "{name}: {said}");
    }
}

#[test]
fn sizes_that_overflow() {
    for size in [u64::MAX, u64::MAX - 511, 1 << 63, 8 << 30] {
        let said = refusal("size", &good().raw(b"a", b'0', 0o644, size, b"", b"x").gz(), false);
        assert!(said.contains("limit maxEntryBytes exceeded at \"a\""), "{size}: {said}");
        let limits = Limits { max_entry_bytes: u64::MAX, max_total_bytes: u64::MAX, ..Limits::default() };
        let error = check(&good().raw(b"a", b'0', 0o644, size, b"", b"x").gz(), &limits, false).unwrap_err();
        assert!(message(&error).starts_with("HF_PKG_ARCHIVE"), "{}", message(&error));
    }
}

#[test]
fn an_archive_cut_anywhere() {
    let whole = good().file("pkg/index.js", b"module.exports = 1;\n").gz();
    let home = tempfile::tempdir().unwrap();
    for length in 0..whole.len() {
        let error = unpack_into(&whole[..length], home.path()).expect_err("cut");
        assert!(message(&error).starts_with("HF_PKG_ARCHIVE tar extract failed: "), "{length}: {error}");
    }
    assert!(listing(home.path()).is_empty());
    unpack_into(&whole, home.path()).unwrap();
}

#[test]
fn names_in_messages_are_short_and_plain() {
    let name = format!("../{}\u{1b}[31m", "x".repeat(2000));
    let error =
        check(&good().pax("path", name.as_bytes()).file("c", b"x").gz(), &Limits::default(), false).unwrap_err();
    assert!(error.message().len() < 500 && !error.message().contains('\u{1b}'), "{error}");
    let error = check(&good().file("../\u{1b}[31m", b"x").gz(), &Limits::default(), false).unwrap_err();
    assert!(error.message().contains("\\u{1b}[31m"), "{error}");
}
