//! The receipts: which batch wrote what, and which batches never ended.

use std::collections::HashSet;

use super::format::{self, CONTROL_VERSION, REASONS, is_schema_name};
use super::manifest::{EntryParts, Identity, Manifest, identity, integer, nullable, number, text};
use crate::json::{self, Kind, Object};

/// One file written by a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// Its id.
    pub receipt_id: String,
    /// Which store.
    pub schema_name: String,
    /// Version of the file.
    pub schema_version: f64,
    /// Where it was written.
    pub relative_path: String,
    /// Hash of its bytes.
    pub content_hash: String,
    /// Their number.
    pub file_size: f64,
    /// Modification time in milliseconds.
    pub mtime_ms: f64,
    /// Identity of the batch.
    pub identity: Identity,
}

impl Receipt {
    /// Returns what the manifest says of this write.
    #[must_use]
    pub fn entry_parts(&self) -> EntryParts<'_> {
        EntryParts {
            schema_name: &self.schema_name,
            schema_version: self.schema_version,
            relative_path: &self.relative_path,
            content_hash: &self.content_hash,
            file_size: self.file_size,
            mtime_ms: self.mtime_ms,
            identity: &self.identity,
            receipt_id: Some(&self.receipt_id),
        }
    }
}

/// One batch. The raw text is what is written again, unknown keys and number texts included.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The record as it stands in the file.
    pub raw: String,
    /// Its id.
    pub batch_id: String,
    /// Whose it is.
    pub team_name: String,
    /// `preparing`, `committing`, `committed` or `failed`.
    pub state: String,
    /// When it began, as text.
    pub started_at: String,
    /// What it wrote.
    pub receipts: Vec<Receipt>,
    /// Identity of the batch.
    pub identity: Identity,
    /// `hfResolution`: how recovery settled a batch that did not end by itself.
    pub resolution: Option<String>,
    /// Whether holdfast wrote something of its own into the record.
    pub marked: bool,
}

const STATES: &[&str] = &["preparing", "committing", "committed", "failed"];

impl Batch {
    /// Tells whether the batch is committed.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.state == "committed"
    }

    /// Tells whether the batch never ended and nobody settled it.
    #[must_use]
    pub fn is_unresolved(&self) -> bool {
        !self.is_committed() && self.resolution.is_none()
    }

    /// Parses and checks one record.
    #[must_use]
    pub fn parse(raw: &str, extra: &[String]) -> Option<Self> {
        let object = Object::parse(raw).ok()?;
        text(&object, "reason").filter(|reason| REASONS.contains(&reason.as_str()))?;
        nullable(&object, "completedAt")?;
        nullable(&object, "lastError")?;
        let receipts = object.get("receipts").filter(|raw| json::kind(raw) == Kind::Array)?;
        Some(Self {
            batch_id: text(&object, "batchId")?,
            team_name: text(&object, "teamName")?,
            state: text(&object, "state").filter(|state| STATES.contains(&state.as_str()))?,
            started_at: text(&object, "startedAt")?,
            receipts: json::array(receipts)
                .ok()?
                .into_iter()
                .map(|raw| Self::receipt(raw, extra))
                .collect::<Option<_>>()?,
            identity: identity(&object)?,
            resolution: object.get("hfResolution").and_then(json::string),
            marked: object.members().iter().any(|member| member.key.starts_with("hf")),
            raw: raw.to_owned(),
        })
    }

    fn receipt(raw: &str, extra: &[String]) -> Option<Receipt> {
        let object = Object::parse(raw).ok()?;
        text(&object, "batchId")?;
        text(&object, "teamName")?;
        text(&object, "writtenAt")?;
        Some(Receipt {
            receipt_id: text(&object, "receiptId")?,
            schema_name: text(&object, "schemaName").filter(|name| is_schema_name(name, extra))?,
            schema_version: integer(&object, "schemaVersion", 1.0)?,
            relative_path: text(&object, "relativePath")?,
            content_hash: text(&object, "contentHash")?,
            file_size: number(&object, "fileSize")?,
            mtime_ms: number(&object, "mtimeMs")?,
            identity: identity(&object)?,
        })
    }
}

/// The records of a receipts file, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batches {
    /// In file order.
    pub records: Vec<Batch>,
}

impl Batches {
    /// Parses and checks the `data` of a receipts file. One bad record makes the whole unreadable.
    ///
    /// # Errors
    /// The message that the validator gives.
    pub fn parse(raw: &str, extra: &[String]) -> Result<Self, String> {
        if json::kind(raw) != Kind::Array {
            return Err("Runtime store write batches must be an array".into());
        }
        let mut seen = HashSet::new();
        let mut records = Vec::new();
        for (i, raw) in json::array(raw).map_err(|error| error.to_string())?.into_iter().enumerate() {
            let batch =
                Batch::parse(raw, extra).ok_or_else(|| format!("Invalid runtime store write batch at index {i}"))?;
            if !seen.insert(batch.batch_id.clone()) {
                return Err(format!("Duplicate runtime store write batch: {}", batch.batch_id));
            }
            records.push(batch);
        }
        Ok(Self { records })
    }

    /// Finds a batch.
    #[must_use]
    pub fn get(&self, batch_id: &str) -> Option<&Batch> {
        self.records.iter().find(|batch| batch.batch_id == batch_id)
    }

    /// Returns the position behind the batch that owns the manifest entry of `schema_name`: 0 if there is no entry, the end
    /// if the owner is not here (then nothing is known to be later than it).
    #[must_use]
    pub fn after_owner(&self, manifest: &Manifest, schema_name: &str) -> usize {
        let Some(entry) = manifest.entry(schema_name) else {
            return 0;
        };
        let owner = entry.last_write_receipt_id.as_deref().and_then(|receipt_id| {
            self.records.iter().rposition(|batch| batch.receipts.iter().any(|receipt| receipt.receipt_id == receipt_id))
        });
        owner.map_or(self.records.len(), |index| index + 1)
    }

    /// Splits off what retention takes out: settled records, and committed ones beyond the newest `keep` that own no entry
    /// of `manifest`. `keep` of `None` keeps every committed batch.
    #[must_use]
    pub fn prune(self, manifest: &Manifest, keep: Option<usize>) -> (Self, Vec<Batch>) {
        let owners: HashSet<&str> =
            manifest.entries.iter().filter_map(|entry| entry.last_write_receipt_id.as_deref()).collect();
        let committed = self.records.iter().filter(|batch| batch.is_committed()).count();
        let surplus = keep.map_or(0, |keep| committed.saturating_sub(keep));
        let mut passed = 0;
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for batch in self.records {
            let goes = if batch.is_committed() {
                passed += 1;
                passed <= surplus && !batch.receipts.iter().any(|receipt| owners.contains(receipt.receipt_id.as_str()))
            } else {
                batch.resolution.is_some()
            };
            if goes { dropped.push(batch) } else { kept.push(batch) }
        }
        (Self { records: kept }, dropped)
    }

    /// Returns the text of the receipts file; every record is copied as it stands.
    #[must_use]
    pub fn file_text(&self, envelope_updated_at: &str) -> String {
        format::envelope_of_records(
            CONTROL_VERSION,
            envelope_updated_at,
            self.records.iter().map(|batch| batch.raw.as_str()),
        )
    }
}
