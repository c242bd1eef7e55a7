//! Markers: which integrities are in the cache.

use std::io;
use std::path::Path;

use super::index::{self, Found};
use super::paths::{Paths, marker_name};
use super::work;
use crate::durable::{Disk, IoContext, optional};
use crate::error::Result;

/// Returns the integrities that are in the cache, sorted bytewise. A marker counts if its content is what its name says and,
/// where there is an index record, the folder that it names exists. Strange names are passed over.
///
/// # Errors
/// Any I/O failure except that something is not there.
pub(super) fn local_integrities(disk: &Disk, paths: &Paths) -> Result<Vec<String>> {
    let folder = paths.markers();
    let Some(names) = optional(disk.list(&folder)).at("scandir", &folder)? else { return Ok(Vec::new()) };
    let names: Vec<String> =
        names.into_iter().filter_map(|name| name.into_string().ok()).filter(|name| is_marker(name)).collect();
    let found = work::each(&names, |name| {
        let path = folder.join(name);
        read(disk, paths, &path, name).at("read", &path)
    })?;
    let mut found: Vec<String> = found.into_iter().flatten().collect();
    found.sort_unstable();
    Ok(found)
}

/// Tells whether an integrity counts as being in the cache.
pub(super) fn is_local(disk: &Disk, paths: &Paths, integrity: &str) -> bool {
    let name = marker_name(integrity);
    read(disk, paths, &paths.markers().join(&name), &name).is_ok_and(|found| found.is_some())
}

fn read(disk: &Disk, paths: &Paths, path: &Path, name: &str) -> io::Result<Option<String>> {
    let text = match optional(disk.read(path)) {
        Ok(Some(text)) => text,
        // A folder of that name is a stranger's.
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(integrity) = String::from_utf8(text) else { return Ok(None) };
    if marker_name(&integrity) != name {
        return Ok(None);
    }
    Ok(match index::read_dir(disk, paths, &integrity)? {
        Found::Nothing => Some(integrity),
        Found::Damaged => None,
        Found::Record(dir) => {
            let there = disk.symlink_metadata(&paths.cache.join(dir)).is_ok_and(|metadata| metadata.is_dir());
            there.then_some(integrity)
        }
    })
}

/// Even-length lower-case hex, or the form for long ones.
fn is_marker(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match name.strip_prefix("b3-") {
        Some(rest) => rest.len() == 64 && hex(rest),
        None => !name.is_empty() && name.len().is_multiple_of(2) && hex(name),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_sound_markers_count() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let disk = Disk::real();
        assert!(local_integrities(&disk, &paths).unwrap().is_empty());
        fs::create_dir_all(paths.markers()).unwrap();
        let long = "sha512-".repeat(40);
        for integrity in ["sha-b", "sha-a", long.as_str()] {
            fs::write(paths.marker(integrity), integrity).unwrap();
        }
        // Content of another one, a torn one, strangers, upper case, odd length, a folder.
        fs::write(paths.marker("sha-c"), "sha-d").unwrap();
        fs::write(paths.marker("sha-e"), "sha-").unwrap();
        for name in [".DS_Store", "7368612D61", "736", ".tmp.x", "b3-00"] {
            fs::write(paths.markers().join(name), "sha-a").unwrap();
        }
        fs::create_dir(paths.marker("sha-f")).unwrap();
        assert_eq!(local_integrities(&disk, &paths).unwrap(), ["sha-a", "sha-b", &long]);
        assert!(is_local(&disk, &paths, "sha-a") && !is_local(&disk, &paths, "sha-c"));
    }

    #[test]
    fn a_marker_whose_entry_is_gone_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        fs::create_dir_all(paths.markers()).unwrap();
        fs::create_dir_all(paths.index()).unwrap();
        fs::create_dir_all(paths.cache.join("a@1")).unwrap();
        fs::write(paths.marker("sha-a"), "sha-a").unwrap();
        let record = r#"{"v":1,"integrity":"sha-a","name":"a","version":"1","dir":"a@1","blobSha256":"","files":[]}"#;
        fs::write(paths.index_record("sha-a"), record).unwrap();
        assert!(is_local(&Disk::real(), &paths, "sha-a"));
        fs::remove_dir(paths.cache.join("a@1")).unwrap();
        assert!(!is_local(&Disk::real(), &paths, "sha-a"));
        fs::write(paths.index_record("sha-a"), "{").unwrap();
        assert!(!is_local(&Disk::real(), &paths, "sha-a"), "a damaged record");
    }
}
