//! Index records: what a cache entry must look like, so that damage is seen before a tree is made of it.

use std::io;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::folder::{Folder, Status};
use super::paths::Paths;
use super::rows::{Row, hash_file};
use crate::durable::{Disk, optional};
use crate::ids;

/// The record of one cache entry, `.hf/index/<blake3 of the integrity>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexRecord {
    /// Format version, 1.
    pub v: u32,
    /// The manifest entry's key.
    pub integrity: String,
    /// The package's name, with its scope.
    pub name: String,
    /// Its exact version.
    pub version: String,
    /// The entry's folder, relative to `cache/`.
    pub dir: String,
    /// Hash of the blob that it came from.
    pub blob_sha256: String,
    /// Its files, sorted bytewise by path.
    pub files: Vec<Row>,
}

/// The beginning of a record, which is all that most questions need.
#[derive(Debug, Deserialize)]
struct Head {
    v: u32,
    integrity: String,
    dir: String,
}

/// What a lookup in the index finds.
#[derive(Debug)]
pub(super) enum Found<T> {
    /// No record: the entry was made by the original, or not at all.
    Nothing,
    /// A record that cannot be trusted.
    Damaged,
    /// A sound one.
    Record(T),
}

/// A record and when it was written. The files of its entry were written before that.
#[derive(Debug, Clone)]
pub(super) struct Dated {
    pub(super) record: IndexRecord,
    pub(super) written_ns: i128,
}

/// Reads the record of an integrity.
pub(super) fn read(disk: &Disk, paths: &Paths, integrity: &str) -> io::Result<Found<Dated>> {
    let Some((text, metadata)) = optional(disk.read_with_metadata(&paths.index_record(integrity)))? else {
        return Ok(Found::Nothing);
    };
    let written = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let written_ns = i128::try_from(written.as_nanos()).unwrap_or(0);
    Ok(match serde_json::from_slice::<IndexRecord>(&text) {
        Ok(record) if record.v == 1 && record.integrity == integrity && is_entry_dir(&record.dir) => {
            Found::Record(Dated { record, written_ns })
        }
        _ => Found::Damaged,
    })
}

/// Reads only which folder the record of an integrity names.
pub(super) fn read_dir(disk: &Disk, paths: &Paths, integrity: &str) -> io::Result<Found<String>> {
    let Some(text) = optional(disk.read(&paths.index_record(integrity)))? else { return Ok(Found::Nothing) };
    Ok(match serde_json::from_slice::<Head>(&text) {
        Ok(head) if head.v == 1 && head.integrity == integrity && is_entry_dir(&head.dir) => Found::Record(head.dir),
        _ => Found::Damaged,
    })
}

/// A record that was tampered with must not lead out of the cache.
fn is_entry_dir(dir: &str) -> bool {
    let parts: Vec<&str> = dir.split('/').collect();
    let plain = |part: &&str| !matches!(*part, "" | "." | ".." | ".cs-integrity") && !part.contains(['\\', '\0']);
    match parts.as_slice() {
        [name] => plain(name),
        [scope, name] => scope.starts_with('@') && plain(scope) && plain(name),
        _ => false,
    }
}

/// Tells whether an entry still is what its record says. Every file is looked at: it must be there, with its size; its content
/// is hashed again only if it was written to after the record was. That is what a program does which edits a file through the
/// hard link in a tree.
pub(super) fn is_sound(paths: &Paths, dated: &Dated) -> bool {
    let Ok(folder) = Folder::open(&paths.cache.join(&dated.record.dir)) else { return false };
    let (mut last_parent, modes) = ("", Modes::new(paths));
    dated.record.files.iter().all(|row| {
        // Each folder on the way must be one, and no link to somewhere else. Rows are sorted, so neighbours share it.
        let parent = row.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let placed = parent == last_parent || is_plain_path(&folder, parent);
        last_parent = parent;
        placed
            && folder.status(&row.path).is_ok_and(|status| {
                let same = status.is_file && status.size == row.size;
                same && modes.are_right(&status, row)
                    && (status.modified_ns <= dated.written_ns || has_content(&folder, row))
            })
    })
}

fn is_plain_path(folder: &Folder, path: &str) -> bool {
    if path.is_empty() {
        return true;
    }
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    ends.filter_map(|end| path.get(..end)).all(|part| folder.status(part).is_ok_and(|status| status.is_dir))
}

/// Judges modes: a file must be executable where its row says so, and only there. A hard link in a tree shares its mode with the
/// cache, so what changed there is wrong here. Where the file system has no modes of its own (shares, FAT) nothing is wrong.
#[derive(Debug)]
pub(super) struct Modes<'a> {
    paths: &'a Paths,
    /// Whether files keep the mode that they are given; tried once something looks wrong.
    kept: OnceLock<bool>,
}

impl<'a> Modes<'a> {
    pub(super) fn new(paths: &'a Paths) -> Self {
        Self { paths, kept: OnceLock::new() }
    }

    pub(super) fn are_right(&self, status: &Status, row: &Row) -> bool {
        let right = row.is_link() || cfg!(windows) || (status.mode ^ row.mode) & 0o111 == 0;
        // Where it cannot be tried, the usual is assumed.
        right || !self.kept.get_or_init(|| keeps_modes(&self.paths.private()).unwrap_or(true))
    }
}

/// Tells whether a file in `dir` gets and loses the right to be executed.
fn keeps_modes(dir: &std::path::Path) -> io::Result<bool> {
    let folder = Folder::open(dir)?;
    let disk = Disk::real();
    let mut kept = true;
    for mode in [0o755, 0o644] {
        let name = format!("mode-{}", ids::uuid());
        drop(folder.create(&disk, &name, mode)?);
        let found = folder.status(&name);
        disk.remove_file(&dir.join(&name))?;
        kept &= (found?.mode ^ mode) & 0o111 == 0;
    }
    Ok(kept)
}

/// Tells whether a file has the size and hash of its row.
pub(super) fn has_content(folder: &Folder, row: &Row) -> bool {
    if row.is_link() {
        return folder.read_link(&row.path).is_ok_and(|text| Row::link(row.path.clone(), &text) == *row);
    }
    let read = folder.read(&row.path).and_then(|mut file| {
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        hash_file(&mut file)
    });
    read.is_ok_and(|(size, hash)| size == row.size && hash == row.hash)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn entry(root: &std::path::Path) -> (Paths, Dated) {
        let paths = Paths::new(root);
        let dir = paths.cache.join("@s/a@1.0.0@@@1");
        fs::create_dir_all(dir.join("lib/deep")).unwrap();
        fs::create_dir_all(paths.index()).unwrap();
        let mut files = Vec::new();
        for (path, text) in [("lib/deep/x.js", "x"), ("lib/y.js", "yy"), ("package.json", "{}")] {
            fs::write(dir.join(path), text).unwrap();
            files.push(Row::file(path.into(), text.as_bytes(), 0o644));
        }
        let record = IndexRecord {
            v: 1,
            integrity: "sha-a".into(),
            name: "@s/a".into(),
            version: "1.0.0".into(),
            dir: "@s/a@1.0.0@@@1".into(),
            blob_sha256: "00".into(),
            files,
        };
        fs::write(paths.index_record("sha-a"), serde_json::to_vec(&record).unwrap()).unwrap();
        let Found::Record(dated) = read(&Disk::real(), &paths, "sha-a").unwrap() else { panic!("no record") };
        assert_eq!(dated.record, record);
        (paths, dated)
    }

    #[test]
    fn every_kind_of_damage_is_seen() {
        type Damage = fn(&std::path::Path);
        let damages: Vec<(&str, Damage)> = vec![
            #[cfg(unix)]
            ("no longer as executable as it was", |dir| {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(dir.join("lib/y.js"), fs::Permissions::from_mode(0o755)).unwrap();
            }),
            ("removed", |dir| fs::remove_file(dir.join("package.json")).unwrap()),
            ("longer", |dir| fs::write(dir.join("lib/y.js"), "yyy").unwrap()),
            ("edited to the same size", |dir| {
                std::thread::sleep(Duration::from_millis(20));
                fs::write(dir.join("lib/y.js"), "zz").unwrap();
            }),
            ("all gone", |dir| fs::remove_dir_all(dir).unwrap()),
            #[cfg(unix)]
            ("a folder that became a link", |dir| {
                fs::rename(dir.join("lib/deep"), dir.join("elsewhere")).unwrap();
                std::os::unix::fs::symlink("../elsewhere", dir.join("lib/deep")).unwrap();
            }),
        ];
        for (what, damage) in damages {
            let root = tempfile::tempdir().unwrap();
            let (paths, dated) = entry(root.path());
            assert!(is_sound(&paths, &dated), "before: {what}");
            damage(&paths.cache.join(&dated.record.dir));
            assert!(!is_sound(&paths, &dated), "{what}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn modes_count_where_files_keep_them() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let (paths, dated) = entry(root.path());
        let dir = paths.cache.join(&dated.record.dir);
        fs::set_permissions(dir.join("lib/y.js"), fs::Permissions::from_mode(0o755)).unwrap();
        let status = Folder::open(&dir).unwrap().status("lib/y.js").unwrap();
        let row = dated.record.files.iter().find(|row| row.path == "lib/y.js").unwrap();
        let before = fs::read_dir(paths.private()).unwrap().count();
        assert!(!Modes::new(&paths).are_right(&status, row));
        assert_eq!(fs::read_dir(paths.private()).unwrap().count(), before, "the file that it was tried with is gone");
        assert!(Modes { paths: &paths, kept: OnceLock::from(false) }.are_right(&status, row));
    }

    #[test]
    fn a_file_touched_but_equal_is_sound() {
        let root = tempfile::tempdir().unwrap();
        let (paths, dated) = entry(root.path());
        std::thread::sleep(Duration::from_millis(20));
        fs::write(paths.cache.join(&dated.record.dir).join("lib/y.js"), "yy").unwrap();
        assert!(is_sound(&paths, &dated));
    }

    #[test]
    fn records_that_lead_out_of_the_cache_are_damaged() {
        let root = tempfile::tempdir().unwrap();
        let (paths, dated) = entry(root.path());
        for dir in ["..", "../x", "/etc", "a/b", "@s/../..", ".cs-integrity", "", "@s/a/b"] {
            let record = IndexRecord { dir: dir.into(), ..dated.record.clone() };
            fs::write(paths.index_record("sha-a"), serde_json::to_vec(&record).unwrap()).unwrap();
            assert!(matches!(read(&Disk::real(), &paths, "sha-a").unwrap(), Found::Damaged), "{dir:?}");
            assert!(matches!(read_dir(&Disk::real(), &paths, "sha-a").unwrap(), Found::Damaged), "{dir:?}");
        }
        assert!(matches!(read(&Disk::real(), &paths, "other").unwrap(), Found::Nothing));
    }
}
