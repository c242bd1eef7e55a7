//! Completeness records: what says that a tree was built to its end.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::paths::{NODE_MODULES, RECORD, RECORD_FILES};
use super::rows::{self, Row};

/// The record of a tree, `.hf-tree.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TreeRecord {
    /// Format version, 1.
    pub v: u32,
    /// The hash that the tree is named by.
    pub lockfile_hash: String,
    /// The computed hash of the manifest that it was built from.
    pub manifest_hash: String,
    /// When, in milliseconds since the epoch.
    pub built_at: u64,
    /// `native` or `bun`.
    pub materializer: String,
    /// `reflink`, `hardlink` or `copy`: the cheapest that was used for a file.
    pub link_mode: String,
    /// How many lines `.hf-tree.files` has.
    pub files: u64,
    /// BLAKE3 of `.hf-tree.files`.
    pub files_blake3: String,
}

/// What a look at a tree's record finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordState {
    /// There is none: the tree was made by the original, by hand, or not at all.
    Absent,
    /// One that cannot be trusted.
    Invalid,
    /// A sound one.
    Valid(TreeRecord),
}

/// Reads the record of a tree. Only the record is looked at, and that its list of files exists: this is asked at each
/// reconcile.
#[must_use]
pub fn read(tree: &Path, hash: &str) -> RecordState {
    match read_file(&tree.join(RECORD)) {
        Ok(text) => match serde_json::from_slice::<TreeRecord>(&text) {
            Ok(record) if record.v == 1 && record.lockfile_hash == hash && has_files(tree) => {
                RecordState::Valid(record)
            }
            _ => RecordState::Invalid,
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => RecordState::Absent,
        Err(_) => RecordState::Invalid,
    }
}

/// Reads a file of a tree. Programs may write there, so it is not opened where that could block: what is no regular file is an error.
pub(super) fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed());
    }
    let mut file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut text)?;
    Ok(text)
}

fn has_files(tree: &Path) -> bool {
    fs::symlink_metadata(tree.join(RECORD_FILES)).is_ok_and(|metadata| metadata.is_file())
}

/// Tells whether `tree` has a folder `node_modules`.
#[must_use]
pub fn has_modules(tree: &Path) -> bool {
    fs::metadata(tree.join(NODE_MODULES)).is_ok_and(|metadata| metadata.is_dir())
}

/// Tells whether a tree is built: it has a valid record for its hash, and `node_modules`.
#[must_use]
pub fn is_built(tree: &Path, hash: &str) -> bool {
    matches!(read(tree, hash), RecordState::Valid(_)) && has_modules(tree)
}

/// Reads the list of a tree's files; `None` if it is not the one that the record was written for.
#[must_use]
pub fn read_files(tree: &Path, record: &TreeRecord) -> Option<Vec<Row>> {
    let text = read_file(&tree.join(RECORD_FILES)).ok()?;
    let rows = (blake3::hash(&text).to_hex().as_str() == record.files_blake3).then(|| rows::from_lines(&text))?.ok()?;
    (rows.len() as u64 == record.files).then_some(rows)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        for name in [RECORD, crate::packages::store::retire::RETIRED_AT_MARKER] {
            let fifo = dir.path().join(name);
            rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }
        assert_eq!(read(dir.path(), "h"), RecordState::Invalid);
        assert!(crate::packages::store::retire::read(dir.path()).is_none());
    }

    #[test]
    fn a_record_counts_only_whole_and_for_its_own_hash() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        assert_eq!(read(tree, "h"), RecordState::Absent);
        let rows = vec![Row::file("package.json".into(), b"{}", 0o644)];
        let text = rows::to_lines(&rows);
        fs::write(tree.join(RECORD_FILES), &text).unwrap();
        let record = TreeRecord {
            v: 1,
            lockfile_hash: "h".into(),
            manifest_hash: "m".into(),
            built_at: 1_700_000_000_000,
            materializer: "native".into(),
            link_mode: "hardlink".into(),
            files: 1,
            files_blake3: blake3::hash(&text).to_hex().to_string(),
        };
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.starts_with(r#"{"v":1,"lockfileHash":"h","manifestHash":"m","builtAt":1700000000000,"#), "{json}");
        fs::write(tree.join(RECORD), &json).unwrap();
        assert_eq!(read(tree, "h"), RecordState::Valid(record.clone()));
        assert!(!is_built(tree, "h"), "without node_modules");
        fs::create_dir(tree.join(NODE_MODULES)).unwrap();
        assert!(is_built(tree, "h"));
        assert_eq!(read_files(tree, &record), Some(rows));
        assert_eq!(read(tree, "g"), RecordState::Invalid);
        fs::write(tree.join(RECORD), &json[..json.len() - 3]).unwrap();
        assert_eq!(read(tree, "h"), RecordState::Invalid);
        fs::write(tree.join(RECORD), &json).unwrap();
        fs::write(tree.join(RECORD_FILES), "[]").unwrap();
        assert_eq!(read_files(tree, &record), None);
        fs::remove_file(tree.join(RECORD_FILES)).unwrap();
        assert_eq!(read(tree, "h"), RecordState::Invalid);
    }
}
