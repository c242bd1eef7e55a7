//! Packing: the same bytes for the same content, and only what can be unpacked again.

use std::io::Read;

use flate2::read::GzDecoder;

use super::*;
use crate::error::Code;

fn tar_of(bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut tar).unwrap();
    tar
}

fn write(root: &Path, path: &str, content: &[u8]) {
    fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    fs::write(root.join(path), content).unwrap();
}

#[test]
fn equal_content_gives_equal_bytes() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let names = ["p@1/b", "p@1/a/x", "p@1/a-b", "p@1/a.b", "p@1/package.json", "p@1/\u{fc}"];
    for name in names {
        write(homes[0].path(), name, name.as_bytes());
    }
    for name in names.iter().rev() {
        write(homes[1].path(), name, name.as_bytes());
    }
    fs::create_dir(homes[0].path().join("p@1/empty")).unwrap();
    fs::create_dir(homes[1].path().join("p@1/empty")).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::options().write(true).open(homes[1].path().join("p@1/b")).unwrap().set_modified(old).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(homes[1].path().join("p@1/b"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let [a, b] = homes.each_ref().map(|home| pack(home.path(), "p@1", true, &never).unwrap());
    assert!(a == b);
    let mut archive = tar::Archive::new(GzDecoder::new(a.as_slice()));
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (499_162_500, 0, 0));
        assert_eq!((header.username().unwrap(), header.groupname().unwrap()), (Some(""), Some("")));
        seen.push((entry.path().unwrap().to_string_lossy().into_owned(), header.mode().unwrap()));
    }
    let expected = [
        ("p@1/", 0o755),
        ("p@1/a/", 0o755),
        ("p@1/a-b", 0o644),
        ("p@1/a.b", 0o644),
        ("p@1/a/x", 0o644),
        ("p@1/b", 0o644),
        ("p@1/empty/", 0o755),
        ("p@1/package.json", 0o644),
        ("p@1/\u{fc}", 0o644),
    ];
    assert_eq!(seen, expected.map(|(name, mode)| (name.to_owned(), mode)));
    assert_eq!(a[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
}

#[test]
fn what_is_packed_is_unpacked_the_same() {
    let home = tempfile::tempdir().unwrap();
    let deep = format!("@s/p@1/{}{}.js", "deep/".repeat(30), "n".repeat(90));
    let long = format!("@s/p@1/{}", "l".repeat(240));
    let noise: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, content) in [
        ("@s/p@1/package.json", &b"{}"[..]),
        ("@s/p@1/empty", b""),
        ("@s/p@1/block", &[7; 512]),
        ("@s/p@1/noise", &noise),
        (&deep, b"deep"),
        (&long, b"long"),
        ("@s/other@1/no", b"not packed"),
    ] {
        write(home.path(), name, content);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(home.path().join("@s/p@1/empty"), fs::Permissions::from_mode(0o701)).unwrap();
    }
    let bytes = pack(home.path(), "@s/p@1", true, &never).unwrap();
    let target = home.path().join("target");
    assert_eq!(check(&bytes, &Limits::default(), true).unwrap().single_root().unwrap(), "@s/p@1");
    let files = unpack_into(&bytes, &target).unwrap();
    assert_eq!(listing(&home.path().join("@s/p@1")), listing(&target.join("@s/p@1")));
    assert!(!target.join("@s/other@1").exists());
    #[cfg(unix)]
    assert_eq!(files.iter().find(|file| file.path.ends_with("empty")).unwrap().mode, 0o755);
    assert_eq!(pack(&target, "@s/p@1", true, &never).unwrap(), bytes);
    // Another reader sees the same.
    let mut archive = tar::Archive::new(tar_of(&bytes).leak() as &[u8]);
    let names: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert!(names.contains(&deep) && names.contains(&long), "{names:?}");
}

#[cfg(unix)]
#[test]
fn links_are_stored_or_refused_but_never_followed() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "p@1/a", b"a");
    write(home.path(), "secret/s", b"secret");
    std::os::unix::fs::symlink("../secret", home.path().join("p@1/link")).unwrap();
    let long = format!("/{}", "t/".repeat(80));
    std::os::unix::fs::symlink(&long, home.path().join("p@1/long")).unwrap();
    let error = pack(home.path(), "p@1", true, &never).unwrap_err();
    assert!(error.code() == Code::PkgPack && error.message().contains("is a symbolic link"), "{error}");
    let bytes = pack(home.path(), "p@1", false, &never).unwrap();
    let tar = tar_of(&bytes);
    let mut archive = tar::Archive::new(tar.as_slice());
    let links: Vec<_> = archive
        .entries()
        .unwrap()
        .filter_map(|entry| entry.unwrap().link_name().unwrap().map(|target| target.display().to_string()))
        .collect();
    assert_eq!(links, ["../secret", &long]);
    assert!(!String::from_utf8_lossy(&tar).contains("p@1/link/"));
    let error = check(&bytes, &Limits::default(), false).unwrap_err();
    assert!(error.message().ends_with("link entry (type \"l\") in \"p@1/link -> ../secret\""), "{error}");
    // Not even when the packed folder itself is a link.
    std::os::unix::fs::symlink("secret", home.path().join("q@1")).unwrap();
    assert_eq!(pack(home.path(), "q@1", false, &never).unwrap_err().code(), Code::PkgPack);
}

#[cfg(unix)]
#[test]
fn what_could_not_be_unpacked_is_not_packed() {
    use std::os::unix::ffi::OsStrExt;
    let fails = |make: &dyn Fn(&Path)| {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "p@1/a", b"a");
        make(&home.path().join("p@1"));
        let error = pack(home.path(), "p@1", false, &never).unwrap_err();
        assert!(error.code() == Code::PkgPack && error.message().starts_with("tar failed: "), "{error}");
        error.message().to_owned()
    };
    let pipe = fails(&|root| {
        let mode = rustix::fs::Mode::from_bits_truncate(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    });
    assert!(pipe.contains("\"p@1/pipe\" is neither a file nor a folder"), "{pipe}");
    let name = fails(&|root| fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap());
    assert!(name.contains("is not UTF-8"), "{name}");
    fails(&|root| fs::write(root.join("a\\..\\b"), "").unwrap());
}

#[test]
fn names_of_the_folder_to_pack() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "p@1/sub/deeper/a", b"a");
    for name in [
        "",
        ".",
        "..",
        "../p@1",
        "/p@1",
        "p@1/",
        "p@1/../p@1",
        "p@1/sub/deeper",
        "./p@1",
        "missing",
        "p@1/sub/deeper/a",
    ] {
        let error = pack(home.path(), name, false, &never).unwrap_err();
        assert!(error.code() == Code::PkgPack && error.message().starts_with("tar failed: "), "{name}: {error}");
    }
    pack(home.path(), "p@1/sub", false, &never).unwrap();
}

#[test]
fn cancelling_ends_packing() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "p@1/a", b"a");
    let stop = || Err(HfError::new(Code::Busy, "stopped"));
    assert_eq!(pack(home.path(), "p@1", false, &stop).unwrap_err().message(), "stopped");
}
