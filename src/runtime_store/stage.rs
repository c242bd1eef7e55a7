//! The redo folder of a batch: everything that is needed to finish it, or to undo it.
//!
//! `.holdfast/stage/<batch>/` holds `next-<i>` (final bytes of target i), `prior-<i>` (a link to the file that it replaces)
//! and `intent.json`, written last. From the moment when the folder is on the disk the batch is committed; `aborted.json`
//! in its place says that an undo has begun.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::format::{SIDECAR, STAGE};
use crate::durable::{Disk, IoContext, OutFile, optional};
use crate::error::Result;
use crate::hash::{content_hash, sha256_hex};
use crate::json::Object;

/// Name of the intent of a committed batch.
pub const INTENT: &str = "intent.json";
/// Name of the intent of a batch that is being undone.
pub const ABORTED: &str = "aborted.json";
/// Marks a folder whose publication may have missed the disk: recovery publishes again, from fresh files.
pub const REPUBLISH: &str = "republish";

/// Three ids, as the intent keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ids {
    /// `runId`
    pub run_id: Option<String>,
    /// `capabilitySnapshotId`
    pub capability_snapshot_id: Option<String>,
    /// `behaviorFingerprint`
    pub behavior_fingerprint: Option<String>,
}

impl From<&super::manifest::Identity> for Ids {
    fn from(identity: &super::manifest::Identity) -> Self {
        Self {
            run_id: identity.run_id.clone(),
            capability_snapshot_id: identity.capability_snapshot_id.clone(),
            behavior_fingerprint: identity.behavior_fingerprint.clone(),
        }
    }
}

/// One file that the batch replaces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Where, relative to the folder of the sidecar, with forward slashes; absolute where it lies outside.
    pub path: String,
    /// Hash of the bytes before; `None` when there was no file.
    pub prior_hash: Option<String>,
    /// Hash of the staged bytes.
    pub next_hash: String,
    /// Name of the temporary link beside the target.
    pub temp: String,
    /// Modification time of the staged file in milliseconds.
    pub mtime_ms: f64,
}

/// What the batch does to one manifest entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntryChange {
    /// Which store.
    pub schema_name: String,
    /// Index of its target.
    pub target: usize,
    /// Version of the file.
    pub schema_version: f64,
    /// `relativePath` as the descriptor has it.
    pub relative_path: String,
    /// The receipt of this batch.
    pub receipt_id: String,
    /// Receipt and hash of the entry before; both `None` when there was none.
    pub prior_receipt_id: Option<String>,
    /// Hash in the entry before.
    pub prior_content_hash: Option<String>,
}

/// All that recovery must know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intent {
    /// The batch.
    pub batch_id: String,
    /// Whose.
    pub team_name: String,
    /// Stores in order, then receipts, then manifest.
    pub targets: Vec<Target>,
    /// What it does to the manifest.
    pub entries: Vec<EntryChange>,
    /// The record of the committed batch, as JSON text.
    pub record: String,
    /// `highWatermark` before.
    pub prior_watermark: f64,
    /// Active ids before.
    pub prior_active: Ids,
    /// Active ids after.
    pub active: Ids,
    /// The manifest's `updatedAt` after.
    pub updated_at: String,
    /// How many committed batches the receipts keep; `None` keeps all.
    pub retention: Option<usize>,
}

impl Intent {
    /// Number of stores among the targets.
    #[must_use]
    pub fn stores(&self) -> usize {
        self.targets.len().saturating_sub(2)
    }

    /// Index of the receipts file.
    #[must_use]
    pub fn receipts(&self) -> usize {
        self.targets.len().saturating_sub(2)
    }

    /// Index of the manifest.
    #[must_use]
    pub fn manifest(&self) -> usize {
        self.targets.len().saturating_sub(1)
    }

    /// Returns the text of the intent file: readable, with a checksum over the intent's own text.
    #[must_use]
    pub fn file_text(&self) -> String {
        // Strings, numbers and lists always serialize.
        let intent = serde_json::to_string(self).unwrap_or_default();
        format!("{{\"holdfast\":1,\"checksum\":\"{}\",\"intent\":{intent}}}\n", content_hash(intent.as_bytes()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let object = Object::parse(text).ok()?;
        let raw = object.get("intent")?;
        let checksum = object.get("checksum").and_then(crate::json::string)?;
        let sound = object.get("holdfast") == Some("1") && checksum == content_hash(raw.as_bytes());
        let intent: Self = serde_json::from_str(raw).ok().filter(|_| sound)?;
        let consistent = intent.targets.len() >= 2 && intent.entries.iter().all(|entry| entry.target < intent.stores());
        consistent.then_some(intent)
    }
}

/// A redo folder found on the disk.
#[derive(Debug, Clone)]
pub struct Redo {
    /// The folder.
    pub folder: PathBuf,
    /// What it holds.
    pub content: Content,
}

/// What a redo folder holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// No valid intent: the batch never reached its commit point.
    Incomplete,
    /// A committed batch.
    Committed(Box<Intent>),
    /// A batch whose undo began.
    Aborted(Box<Intent>),
}

impl Redo {
    /// Returns the intent, committed or aborted.
    #[must_use]
    pub fn intent(&self) -> Option<&Intent> {
        match &self.content {
            Content::Incomplete => None,
            Content::Committed(intent) | Content::Aborted(intent) => Some(intent),
        }
    }

    /// Returns the final bytes of target `i`.
    #[must_use]
    pub fn next_file(&self, i: usize) -> PathBuf {
        self.folder.join(next_name(i))
    }

    /// Returns the former file of target `i`.
    #[must_use]
    pub fn prior_file(&self, i: usize) -> PathBuf {
        self.folder.join(prior_name(i))
    }
}

/// Name of the final bytes of target `i`.
#[must_use]
pub fn next_name(i: usize) -> String {
    format!("next-{i}")
}

/// Name of the former file of target `i`.
#[must_use]
pub fn prior_name(i: usize) -> String {
    format!("prior-{i}")
}

/// Returns the folder name of a batch: its id where that is a harmless name, else a hash of it.
#[must_use]
pub fn folder_name(batch_id: &str) -> String {
    let harmless = batch_id.len() <= 100
        && batch_id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && batch_id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if harmless {
        batch_id.to_owned()
    } else {
        format!("batch-{}", sha256_hex(batch_id.as_bytes()).get(..32).unwrap_or_default())
    }
}

/// Returns how the intent names `path`, seen from the folder of the sidecar.
#[must_use]
pub fn name_of(base: &Path, path: &Path) -> String {
    match path.strip_prefix(base) {
        Ok(inside) => inside.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/"),
        Err(_) => path.to_string_lossy().into_owned(),
    }
}

/// Returns the path that an intent names, if it may be touched: inside `base`, or one of the `known` paths that the caller
/// works with anyway.
#[must_use]
pub fn path_of(base: &Path, name: &str, known: &[PathBuf]) -> Option<PathBuf> {
    let path = Path::new(name);
    let inside = !name.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)));
    if inside {
        let reserved = path.components().any(|part| part.as_os_str() == SIDECAR);
        return (!reserved).then(|| base.join(path));
    }
    known.iter().find(|known| known.as_path() == path).cloned()
}

/// Lists the redo folders of a sidecar. Makes and changes nothing.
///
/// # Errors
/// I/O failures other than "there is none".
pub fn find(disk: &Disk, sidecar: &Path) -> Result<Vec<Redo>> {
    let stage = sidecar.join(STAGE);
    let Some(names) = optional(disk.list(&stage)).at("scandir", &stage)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for name in names {
        let folder = stage.join(name);
        // One that cannot be looked at may explain everything: better no answer than a wrong one.
        if !optional(disk.symlink_metadata(&folder)).at("lstat", &folder)?.is_some_and(|metadata| metadata.is_dir()) {
            continue;
        }
        let read = |name: &str| -> Result<Option<Box<Intent>>> {
            let path = folder.join(name);
            let bytes = optional(disk.read(&path)).at("read", &path)?;
            Ok(bytes.as_deref().and_then(Intent::parse).map(Box::new))
        };
        let content = match read(ABORTED)? {
            Some(intent) => Content::Aborted(intent),
            None => read(INTENT)?.map_or(Content::Incomplete, Content::Committed),
        };
        found.push(Redo { folder, content });
    }
    Ok(found)
}

/// Tells whether `sidecar` belongs to us: what it says will be written over files beside it, so a folder that another user
/// planted in a shared place counts for nothing.
#[must_use]
pub fn is_trusted(sidecar: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let Ok(metadata) = std::fs::symlink_metadata(sidecar) else {
            return false;
        };
        let me = rustix::process::geteuid().as_raw();
        let owned = metadata.uid() == me
            || std::fs::metadata(super::folder_of(sidecar))
                .is_ok_and(|base| base.uid() == metadata.uid() && (me == 0 || base.uid() == me));
        metadata.is_dir() && owned && metadata.mode() & 0o002 == 0
    }
    #[cfg(not(unix))]
    sidecar.is_dir()
}

/// Removes a redo folder: the intent first, so that a half-removed folder is one that never was committed.
///
/// # Errors
/// Any I/O failure; the rest stays for the next recovery.
pub fn remove(disk: &Disk, folder: &Path) -> Result<()> {
    for name in [INTENT, ABORTED] {
        let path = folder.join(name);
        optional(disk.remove_file(&path)).at("unlink", &path)?;
    }
    let names = optional(disk.list(folder)).at("scandir", folder)?;
    for name in names.into_iter().flatten() {
        let path = folder.join(name);
        optional(disk.remove_file(&path)).at("unlink", &path)?;
    }
    optional(disk.remove_dir(folder)).at("rmdir", folder)?;
    Ok(())
}

/// Writes `bytes` as a staged file.
///
/// # Errors
/// Any I/O failure.
pub fn put(disk: &Disk, folder: &Path, name: &str, bytes: &[u8]) -> Result<OutFile> {
    let path = folder.join(name);
    disk.create_with(&path, bytes, None).at("write", &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent() -> Intent {
        let target = |path: &str| Target {
            path: path.into(),
            prior_hash: None,
            next_hash: "sha256:0".into(),
            temp: ".tmp.1".into(),
            mtime_ms: 1.5,
        };
        Intent {
            batch_id: "b".into(),
            team_name: "t".into(),
            targets: vec![target("a.json"), target("r.json"), target("m.json")],
            entries: Vec::new(),
            record: "{}".into(),
            prior_watermark: 0.0,
            prior_active: Ids::default(),
            active: Ids::default(),
            updated_at: "now".into(),
            retention: Some(16),
        }
    }

    #[test]
    fn every_flipped_byte_of_an_intent_is_noticed() {
        let text = intent().file_text();
        assert_eq!(Intent::parse(text.as_bytes()), Some(intent()));
        for i in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[i] ^= 0x10;
            let parsed = Intent::parse(&bytes);
            assert!(parsed.is_none() || parsed == Some(intent()), "byte {i}");
            assert!(Intent::parse(&text.as_bytes()[..i]).is_none_or(|_| i == text.len() - 1), "cut at {i}");
        }
    }

    #[test]
    fn names_stay_inside() {
        let base = Path::new("/base");
        assert_eq!(path_of(base, "sub/a.json", &[]), Some("/base/sub/a.json".into()));
        for bad in ["", "../x", "a/../../x", "/etc/passwd", ".holdfast/lock", "./a"] {
            assert_eq!(path_of(base, bad, &[]), None, "{bad}");
        }
        assert_eq!(path_of(base, "/other/m.json", &["/other/m.json".into()]), Some("/other/m.json".into()));
        assert_eq!(name_of(base, Path::new("/base/sub/a.json")), "sub/a.json");
        assert_eq!(folder_name("batch-1"), "batch-1");
        assert!(folder_name("../x").starts_with("batch-"));
        assert_ne!(folder_name("a/b"), folder_name("a/c"));
    }
}
