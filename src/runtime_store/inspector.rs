//! Looking at one store file. Nothing is moved or written.

use std::path::Path;

use serde::Deserialize;

use super::format::{ObjectText, decode};
use super::manifest::Entry;
use crate::clock;
use crate::durable::{Disk, IoContext, optional};
use crate::error::Result;
use crate::hash::content_hash;
use crate::json::{self, Kind, Object};

/// What a store is, as far as inspection and planning need it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Which store.
    pub schema_name: String,
    /// Highest version understood.
    pub schema_version: f64,
    /// Where it stands in the runtime directory.
    pub relative_path: String,
    /// How much depends on it.
    pub criticality: String,
    /// How it can be made anew.
    pub rebuild_strategy: String,
}

/// State of a store file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The committed bytes.
    Healthy,
    /// No file.
    Missing,
    /// Not JSON, or no envelope.
    Quarantined,
    /// Written by a newer version.
    FutureSchema,
    /// Not the committed bytes.
    HashMismatch,
    /// A file that no batch committed.
    UncommittedWrite,
}

impl State {
    /// Returns the name that the format uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Healthy => "healthy",
            State::Missing => "missing",
            State::Quarantined => "quarantined",
            State::FutureSchema => "future_schema",
            State::HashMismatch => "hash_mismatch",
            State::UncommittedWrite => "uncommitted_write",
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// State of the file.
    pub state: State,
    /// In words; `None` when healthy.
    pub message: Option<String>,
    /// Why it is quarantined: `invalid_json`, `invalid_envelope`.
    pub fault: Option<&'static str>,
    /// Version, hash, size and mtime, where the file could be understood.
    pub file: Option<FileFacts>,
}

/// Facts of a readable store file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileFacts {
    /// Version in the envelope.
    pub schema_version: f64,
    /// Hash of the text.
    pub content_hash: String,
    /// Bytes.
    pub file_size: f64,
    /// Modification time in milliseconds.
    pub mtime_ms: f64,
}

/// Inspects the file of `descriptor` against its manifest entry; the first rule that matches wins.
///
/// # Errors
/// I/O failures other than "no such file".
pub fn inspect(disk: &Disk, path: &Path, descriptor: &Descriptor, entry: Option<&Entry>) -> Result<Inspection> {
    let name = &descriptor.schema_name;
    let bad = |state, message: String, fault| Inspection { state, message: Some(message), fault, file: None };
    let failed = |state, fault: &'static str| {
        bad(state, format!("Runtime store {name} failed inspection: {fault}"), Some(fault))
    };
    let Some((bytes, metadata)) = optional(disk.read_with_metadata(path)).at("open", path)? else {
        return Ok(bad(State::Missing, format!("Runtime store missing: {name}"), None));
    };
    let text = decode(bytes);
    if json::kind(&text) != Kind::Object {
        let fault = if json::validate(text.as_bytes()).is_err() { "invalid_json" } else { "invalid_envelope" };
        return Ok(failed(State::Quarantined, fault));
    }
    let Ok(object) = Object::parse(&text) else {
        return Ok(failed(State::Quarantined, "invalid_json"));
    };
    let Some(version) =
        object.get("schemaVersion").filter(|raw| json::kind(raw) == Kind::Number).and_then(json::integer)
    else {
        return Ok(failed(State::Quarantined, "invalid_envelope"));
    };
    if version > descriptor.schema_version {
        return Ok(failed(State::FutureSchema, "future_schema"));
    }
    let file = FileFacts {
        schema_version: version,
        content_hash: content_hash(text.as_bytes()),
        file_size: metadata.len() as f64,
        mtime_ms: metadata.modified().map_or(0.0, clock::millis_since_epoch),
    };
    let (state, message) = match entry {
        None => (State::UncommittedWrite, Some(format!("Runtime store has no manifest entry: {name}"))),
        Some(entry) if entry.content_hash.as_ref() != Some(&file.content_hash) => {
            (State::HashMismatch, Some(format!("Runtime store hash mismatch: {name}")))
        }
        Some(_) => (State::Healthy, None),
    };
    Ok(Inspection { state, message, fault: None, file: Some(file) })
}

impl Inspection {
    /// Returns the entry that describes what is on disk, as JSON text: a copy of the manifest's with the new state, or the
    /// facts of the file with the identity that the manifest knows.
    #[must_use]
    pub fn entry_text(&self, descriptor: &Descriptor, entry: Option<&Entry>) -> Option<String> {
        let Some(file) = &self.file else {
            let object = Object::parse(&entry?.raw).ok()?;
            let text = object.members().iter().fold(ObjectText::new(), |text, member| match member.key.as_ref() {
                "state" => text.string("state", self.state.as_str()),
                key => text.raw(key, member.raw),
            });
            return Some(text.finish());
        };
        let identity = entry.map(|entry| entry.identity.clone()).unwrap_or_default();
        Some(
            ObjectText::new()
                .string("schemaName", &descriptor.schema_name)
                .number("schemaVersion", file.schema_version)
                .string("relativePath", &descriptor.relative_path)
                .string("contentHash", &file.content_hash)
                .number("fileSize", file.file_size)
                .number("mtimeMs", file.mtime_ms)
                .nullable("runId", identity.run_id.as_deref())
                .nullable("capabilitySnapshotId", identity.capability_snapshot_id.as_deref())
                .nullable("behaviorFingerprint", identity.behavior_fingerprint.as_deref())
                .nullable("lastWriteReceiptId", entry.and_then(|entry| entry.last_write_receipt_id.as_deref()))
                .string("state", self.state.as_str())
                .finish(),
        )
    }
}
