//! The manifest: which bytes are the committed ones.

use super::format::{self, CONTROL_VERSION, ObjectText, is_blank, is_schema_name};
use crate::json::{self, Kind, Object};

/// Run, capability snapshot and behaviour fingerprint, each maybe unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// `runId`
    pub run_id: Option<String>,
    /// `capabilitySnapshotId`
    pub capability_snapshot_id: Option<String>,
    /// `behaviorFingerprint`
    pub behavior_fingerprint: Option<String>,
}

/// One store in the manifest. The raw text is what is written again, unknown keys and number texts included.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The entry as it stands in the file.
    pub raw: String,
    /// Which store.
    pub schema_name: String,
    /// Hash of the committed bytes.
    pub content_hash: Option<String>,
    /// The receipt that wrote them.
    pub last_write_receipt_id: Option<String>,
    /// Identity at that time.
    pub identity: Identity,
}

/// A valid manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Owner of the directory.
    pub team_name: String,
    /// The active ids.
    pub active: Identity,
    /// Batches applied so far.
    pub high_watermark: f64,
    /// The newest applied batch.
    pub last_committed_batch_id: Option<String>,
    /// A batch that began and, in the original format, may not have ended.
    pub last_preparing_batch_id: Option<String>,
    /// One per store, in byte order of the schema names.
    pub entries: Vec<Entry>,
    /// The last plan that was marked.
    pub last_recovery_plan_id: Option<String>,
    /// When it was changed.
    pub updated_at: String,
}

/// Reads a member that must be a string or null.
pub(super) fn nullable(object: &Object<'_>, key: &str) -> Option<Option<String>> {
    let raw = object.get(key)?;
    match json::kind(raw) {
        Kind::Null => Some(None),
        Kind::String => Some(json::string(raw)),
        _ => None,
    }
}

/// Reads a member that must be a string which is not blank.
pub(super) fn text(object: &Object<'_>, key: &str) -> Option<String> {
    object.get(key).filter(|raw| json::kind(raw) == Kind::String).and_then(json::string).filter(|text| !is_blank(text))
}

/// Reads a member that must be a finite number.
pub(super) fn number(object: &Object<'_>, key: &str) -> Option<f64> {
    object
        .get(key)
        .filter(|raw| json::kind(raw) == Kind::Number)
        .and_then(json::number)
        .filter(|value| value.is_finite())
}

/// Reads a member that must be an integer of at least `least`.
pub(super) fn integer(object: &Object<'_>, key: &str, least: f64) -> Option<f64> {
    number(object, key).filter(|value| value.fract() == 0.0 && *value >= least)
}

/// Reads the three ids.
pub(super) fn identity(object: &Object<'_>) -> Option<Identity> {
    Some(Identity {
        run_id: nullable(object, "runId")?,
        capability_snapshot_id: nullable(object, "capabilitySnapshotId")?,
        behavior_fingerprint: nullable(object, "behaviorFingerprint")?,
    })
}

const ENTRY_STATES: &[&str] = &[
    "healthy",
    "missing",
    "quarantined",
    "future_schema",
    "hash_mismatch",
    "stale_run",
    "rebuild_required",
    "uncommitted_write",
];

impl Entry {
    fn parse(raw: &str, extra: &[String]) -> Option<Self> {
        let object = Object::parse(raw).ok()?;
        let schema_name = text(&object, "schemaName").filter(|name| is_schema_name(name, extra))?;
        integer(&object, "schemaVersion", 1.0)?;
        text(&object, "relativePath")?;
        let content_hash = nullable(&object, "contentHash")?;
        for key in ["fileSize", "mtimeMs"] {
            if object.get(key).map(json::kind)? != Kind::Null {
                number(&object, key)?;
            }
        }
        let last_write_receipt_id = nullable(&object, "lastWriteReceiptId")?;
        text(&object, "state").filter(|state| ENTRY_STATES.contains(&state.as_str()))?;
        Some(Self {
            raw: raw.to_owned(),
            schema_name,
            content_hash,
            last_write_receipt_id,
            identity: identity(&object)?,
        })
    }
}

/// What an entry is made of, when it is made anew.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryParts<'a> {
    /// Which store.
    pub schema_name: &'a str,
    /// Version of its file.
    pub schema_version: f64,
    /// Where it stands.
    pub relative_path: &'a str,
    /// Hash of its bytes.
    pub content_hash: &'a str,
    /// Their number.
    pub file_size: f64,
    /// Modification time in milliseconds.
    pub mtime_ms: f64,
    /// Identity of the batch.
    pub identity: &'a Identity,
    /// The receipt, if one stands for it.
    pub receipt_id: Option<&'a str>,
}

impl EntryParts<'_> {
    /// Makes a healthy entry.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let compact = ObjectText::new()
            .string("schemaName", self.schema_name)
            .number("schemaVersion", self.schema_version)
            .string("relativePath", self.relative_path)
            .string("contentHash", self.content_hash)
            .number("fileSize", self.file_size)
            .number("mtimeMs", self.mtime_ms)
            .nullable("runId", self.identity.run_id.as_deref())
            .nullable("capabilitySnapshotId", self.identity.capability_snapshot_id.as_deref())
            .nullable("behaviorFingerprint", self.identity.behavior_fingerprint.as_deref())
            .nullable("lastWriteReceiptId", self.receipt_id)
            .string("state", "healthy")
            .finish();
        Entry {
            raw: compact,
            schema_name: self.schema_name.to_owned(),
            content_hash: Some(self.content_hash.to_owned()),
            last_write_receipt_id: self.receipt_id.map(str::to_owned),
            identity: self.identity.clone(),
        }
    }
}

impl Manifest {
    /// Returns the manifest of a directory that has none.
    #[must_use]
    pub fn empty(team_name: &str, updated_at: &str) -> Self {
        Self {
            team_name: team_name.to_owned(),
            active: Identity::default(),
            high_watermark: 0.0,
            last_committed_batch_id: None,
            last_preparing_batch_id: None,
            entries: Vec::new(),
            last_recovery_plan_id: None,
            updated_at: updated_at.to_owned(),
        }
    }

    /// Parses and checks the `data` of a manifest file.
    ///
    /// # Errors
    /// The message that the validator gives.
    pub fn parse(raw: &str, extra: &[String]) -> Result<Self, String> {
        if json::kind(raw) != Kind::Object {
            return Err("Runtime store manifest must be an object".into());
        }
        let object = Object::parse(raw).map_err(|error| error.to_string())?;
        if object.get("schemaVersion").filter(|raw| json::kind(raw) == Kind::Number).and_then(json::number)
            != Some(CONTROL_VERSION)
        {
            return Err("Runtime store manifest has unsupported schemaVersion".into());
        }
        let fields = || -> Option<Self> {
            Some(Self {
                team_name: text(&object, "teamName")?,
                active: Identity {
                    run_id: nullable(&object, "activeRunId")?,
                    capability_snapshot_id: nullable(&object, "activeCapabilitySnapshotId")?,
                    behavior_fingerprint: nullable(&object, "activeBehaviorFingerprint")?,
                },
                high_watermark: integer(&object, "highWatermark", 0.0)?,
                last_committed_batch_id: nullable(&object, "lastCommittedBatchId")?,
                last_preparing_batch_id: nullable(&object, "lastPreparingBatchId")?,
                entries: Vec::new(),
                last_recovery_plan_id: nullable(&object, "lastRecoveryPlanId")?,
                updated_at: text(&object, "updatedAt")?,
            })
        };
        let invalid = || "Runtime store manifest envelope is invalid".to_owned();
        let mut manifest = fields().ok_or_else(invalid)?;
        let entries = object.get("entries").filter(|raw| json::kind(raw) == Kind::Array).ok_or_else(invalid)?;
        for (i, raw) in json::array(entries).map_err(|error| error.to_string())?.into_iter().enumerate() {
            let entry =
                Entry::parse(raw, extra).ok_or_else(|| format!("Invalid runtime store manifest entry at index {i}"))?;
            if manifest.entry(&entry.schema_name).is_some() {
                return Err(format!("Duplicate runtime store manifest entry: {}", entry.schema_name));
            }
            manifest.entries.push(entry);
        }
        Ok(manifest)
    }

    /// Returns the entry of a store.
    #[must_use]
    pub fn entry(&self, schema_name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.schema_name == schema_name)
    }

    /// Puts an entry in its place.
    pub fn set_entry(&mut self, entry: Entry) {
        self.entries.retain(|old| old.schema_name != entry.schema_name);
        self.entries.push(entry);
        self.entries.sort_by(|a, b| a.schema_name.cmp(&b.schema_name));
    }

    /// Returns the data as compact JSON, keys in the order of the format.
    #[must_use]
    pub fn data(&self) -> String {
        ObjectText::new()
            .number("schemaVersion", CONTROL_VERSION)
            .string("teamName", &self.team_name)
            .nullable("activeRunId", self.active.run_id.as_deref())
            .nullable("activeCapabilitySnapshotId", self.active.capability_snapshot_id.as_deref())
            .nullable("activeBehaviorFingerprint", self.active.behavior_fingerprint.as_deref())
            .number("highWatermark", self.high_watermark)
            .nullable("lastCommittedBatchId", self.last_committed_batch_id.as_deref())
            .nullable("lastPreparingBatchId", self.last_preparing_batch_id.as_deref())
            .raw("entries", &format::array_text(self.entries.iter().map(|entry| entry.raw.as_str())))
            .nullable("lastRecoveryPlanId", self.last_recovery_plan_id.as_deref())
            .string("updatedAt", &self.updated_at)
            .finish()
    }

    /// Returns the text of the manifest file.
    #[must_use]
    pub fn file_text(&self, envelope_updated_at: &str) -> String {
        format::envelope(CONTROL_VERSION, envelope_updated_at, Some(&self.data()))
    }
}
