//! What is on disk: names, envelopes, and the JSON text that is written. `docs/formats.md` has the whole of it.

use std::path::{Path, PathBuf};

use super::error::FileFault;
use crate::durable::atomic::{Durability, replace};
use crate::durable::{Disk, IoContext, optional};
use crate::error::Result;
use crate::json::{self, Kind, Object};

/// The sidecar folder beside the manifest.
pub const SIDECAR: &str = ".holdfast";
/// Redo folders of open batches, inside the sidecar.
pub const STAGE: &str = "stage";
/// The lock of the whole runtime directory, inside the sidecar.
pub const LOCK: &str = "lock";
/// Receipts that retention took out of the receipts file, one per line, inside the sidecar.
pub const ARCHIVE: &str = "receipts.archive.jsonl";
/// The manifest before the newest batch, inside the sidecar.
pub const MANIFEST_PREVIOUS: &str = "manifest.prev.json";
/// Redo folders that a later write by somebody else made pointless, inside the sidecar.
pub const SUPERSEDED: &str = "superseded";
/// Version of manifest and receipts, envelope and data.
pub const CONTROL_VERSION: f64 = 1.0;

/// The built-in schema names, in byte order.
pub const SCHEMA_NAMES: &[&str] = &[
    "opencode.compatibilitySnapshot",
    "opencode.deliveryJournal",
    "opencode.e2eEvidence",
    "opencode.hostLeases",
    "opencode.launchState",
    "opencode.launchTransaction",
    "opencode.permissionRequests",
    "opencode.promptDeliveryLedger",
    "opencode.runtimeDiagnostics",
    "opencode.runtimeRevision",
    "opencode.sessionStore",
];

/// Legal reasons of a batch.
pub const REASONS: &[&str] = &[
    "launch_checkpoint",
    "permission_reconcile",
    "delivery_commit",
    "host_lease_update",
    "compatibility_discovery",
    "stop_tombstone",
    "migration",
    "recovery",
];

/// Tells whether `name` may stand in a manifest, given the names that the caller registered.
#[must_use]
pub fn is_schema_name(name: &str, extra: &[String]) -> bool {
    SCHEMA_NAMES.contains(&name) || extra.iter().any(|own| own == name)
}

/// Tells whether JavaScript's `trim()` would leave nothing.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|c| (c.is_whitespace() && c != '\u{85}') || c == '\u{feff}')
}

/// Builds a compact JSON object, member by member.
#[derive(Debug)]
pub struct ObjectText(String);

impl ObjectText {
    /// Starts an object.
    #[must_use]
    pub fn new() -> Self {
        Self(String::from("{"))
    }

    /// Adds a member whose value is JSON text already.
    #[must_use]
    pub fn raw(mut self, key: &str, raw: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        json::quote_into(key, &mut self.0);
        self.0.push(':');
        self.0.push_str(raw);
        self
    }

    /// Adds a string.
    #[must_use]
    pub fn string(self, key: &str, value: &str) -> Self {
        self.raw(key, &json::quote(value))
    }

    /// Adds a string or `null`.
    #[must_use]
    pub fn nullable(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(text) => self.string(key, text),
            None => self.raw(key, "null"),
        }
    }

    /// Adds a number, printed as JavaScript prints it.
    #[must_use]
    pub fn number(self, key: &str, value: f64) -> Self {
        self.raw(key, &json::number_text(value))
    }

    /// Ends the object.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

impl Default for ObjectText {
    fn default() -> Self {
        Self::new()
    }
}

/// Joins JSON texts to a compact array.
#[must_use]
pub fn array_text<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::from("[");
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(item);
    }
    text.push(']');
    text
}

fn envelope_head(schema_version: f64, updated_at: &str) -> String {
    format!(
        "{{\n  \"schemaVersion\": {},\n  \"updatedAt\": {}",
        json::number_text(schema_version),
        json::quote(updated_at)
    )
}

/// Returns the text of a versioned file: two-space indent, one final newline. Without `data` the key is left out.
#[must_use]
pub fn envelope(schema_version: f64, updated_at: &str, data: Option<&str>) -> String {
    let mut text = envelope_head(schema_version, updated_at);
    if let Some(data) = data {
        text.reserve(data.len() * 2);
        text.push_str(",\n  \"data\": ");
        json::pretty(data, 1, &mut text);
    }
    text.push_str("\n}\n");
    text
}

/// Returns the text of a versioned file whose data is an array of `records`, each copied as it stands.
#[must_use]
pub fn envelope_of_records<'a>(
    schema_version: f64,
    updated_at: &str,
    records: impl IntoIterator<Item = &'a str>,
) -> String {
    let mut text = envelope_head(schema_version, updated_at);
    text.push_str(",\n  \"data\": [");
    let mut any = false;
    for record in records {
        text.push_str(if any { ",\n    " } else { "\n    " });
        text.push_str(record);
        any = true;
    }
    text.push_str(if any { "\n  ]\n}\n" } else { "]\n}\n" });
    text
}

/// A versioned file that passed the checks of its envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<'a> {
    /// The version found in the file.
    pub schema_version: f64,
    /// When it was written, as text.
    pub updated_at: String,
    /// The raw text of `data`.
    pub data: &'a str,
}

/// Decodes the bytes of a text file the way Node does: what is not UTF-8 becomes U+FFFD.
#[must_use]
pub fn decode(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Checks the envelope of `text`, in the order of the rules.
///
/// # Errors
/// The first check that fails.
pub fn open_envelope<'a>(text: &'a str, path: &Path, supported: f64) -> std::result::Result<Envelope<'a>, FileFault> {
    let shown = path.display();
    let fault =
        |what: &str| FileFault { reason: "invalid_envelope", message: format!("Versioned store {shown} {what}") };
    let invalid_json = |error| FileFault {
        reason: "invalid_json",
        message: format!("Invalid JSON in versioned store {shown}: {error}"),
    };
    if json::kind(text) != Kind::Object {
        json::validate(text.as_bytes()).map_err(invalid_json)?;
        return Err(fault("must contain a JSON object"));
    }
    let object = Object::parse(text).map_err(invalid_json)?;
    let schema_version = object.get("schemaVersion").and_then(json::integer).filter(|&version| version >= 1.0);
    let Some(schema_version) = schema_version else {
        return Err(fault("has invalid schemaVersion"));
    };
    let updated_at = object.get("updatedAt").and_then(json::string).filter(|text| !is_blank(text));
    let Some(updated_at) = updated_at else {
        return Err(fault("has invalid updatedAt"));
    };
    let Some(data) = object.get("data") else {
        return Err(fault("is missing data"));
    };
    if schema_version > supported {
        let message = format!(
            "Future schema {} in {shown}; supported {}",
            json::number_text(schema_version),
            json::number_text(supported)
        );
        return Err(FileFault { reason: "future_schema", message });
    }
    Ok(Envelope { schema_version, updated_at, data })
}

/// Copies the raw bytes of a bad file to its quarantine name and returns that name. An identical copy that exists is used
/// again. `stamp` is an ISO time.
///
/// # Errors
/// Any I/O failure.
pub fn quarantine_copy(
    disk: &Disk,
    path: &Path,
    bytes: &[u8],
    reason: &str,
    stamp: &str,
    folder: &Path,
) -> Result<PathBuf> {
    let base = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{base}.{reason}.");
    let names = optional(disk.list(folder)).at("scandir", folder)?;
    for name in names.into_iter().flatten() {
        let text = name.to_string_lossy();
        if text.starts_with(&prefix) && text.ends_with(".quarantine") {
            let copy = folder.join(&name);
            let same_size = disk.metadata(&copy).is_ok_and(|metadata| metadata.len() == bytes.len() as u64);
            if same_size && disk.read(&copy).is_ok_and(|existing| existing == bytes) {
                return Ok(copy);
            }
        }
    }
    let target = free_quarantine_name(disk, path, reason, stamp, folder);
    replace(disk, &target, bytes, Some(0o600), Durability::Full)?;
    Ok(target)
}

/// Returns a quarantine name that is not taken.
#[must_use]
pub fn free_quarantine_name(disk: &Disk, path: &Path, reason: &str, stamp: &str, folder: &Path) -> PathBuf {
    let base = path.file_name().unwrap_or_default().to_string_lossy();
    let stamp = stamp.replace([':', '.'], "-");
    let mut target = folder.join(format!("{base}.{reason}.{stamp}.quarantine"));
    let mut count = 1;
    while disk.symlink_metadata(&target).is_ok() {
        count += 1;
        target = folder.join(format!("{base}.{reason}.{stamp}-{count}.quarantine"));
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_vector_of_the_format() {
        let text = envelope(1.0, "2026-04-21T12:00:00.000Z", Some("{\"v\":1}"));
        assert_eq!(
            crate::hash::content_hash(text.as_bytes()),
            "sha256:10693281d5ac682b3b4876998a4d8d0f4cbed78c9242cb81d658673b4000826a"
        );
        assert_eq!(envelope(1.0, "t", None), "{\n  \"schemaVersion\": 1,\n  \"updatedAt\": \"t\"\n}\n");
        assert_eq!(envelope_of_records(1.0, "t", []), envelope(1.0, "t", Some("[]")));
        assert_eq!(envelope_of_records(1.0, "t", ["1", "2"]), envelope(1.0, "t", Some("[1,2]")));
    }

    #[test]
    fn checks_envelopes_in_order() {
        fn reason(text: &str) -> std::result::Result<String, (&'static str, String)> {
            let opened = open_envelope(text, Path::new("/x"), 1.0);
            opened
                .map(|envelope| envelope.data.to_owned())
                .map_err(|fault| (fault.reason, fault.message.replace("Versioned store /x ", "")))
        }
        assert_eq!(reason("[]").unwrap_err().1, "must contain a JSON object");
        assert_eq!(reason("{\"schemaVersion\":0}").unwrap_err().1, "has invalid schemaVersion");
        assert_eq!(reason("{\"schemaVersion\":99,\"updatedAt\":\" \"}").unwrap_err().1, "has invalid updatedAt");
        assert_eq!(
            reason("{\"schemaVersion\":99,\"updatedAt\":\"t\"}").unwrap_err(),
            ("invalid_envelope", "is missing data".into())
        );
        assert_eq!(
            reason("{\"schemaVersion\":99,\"updatedAt\":\"t\",\"data\":null}").unwrap_err(),
            ("future_schema", "Future schema 99 in /x; supported 1".into())
        );
        assert_eq!(reason("{bad").unwrap_err().0, "invalid_json");
        assert_eq!(reason("{\"schemaVersion\":1.0,\"updatedAt\":\"t\",\"data\":null}").unwrap(), "null");
    }
}
