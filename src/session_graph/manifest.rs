//! The manifest of a checkpoint: what belongs to it, by reference. Stored as a blob, so equal checkpoints have equal references.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{record_decode, record_version};
use crate::error::{Code, HfError, Result};
use crate::json;

/// The version that is written.
const VERSION: i64 = 1;
/// How a stored manifest that names something begins: with the first of its members.
const BEGINNINGS: [&[u8]; 4] =
    [b"{\"executionStateRef\":", b"{\"pluginSnapshotRef\":", b"{\"pluginSnapshotRevision\":", b"{\"toolStateRef\":"];
/// So many bytes tell how it begins.
pub(crate) const BEGINNING: usize = 32;

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Canonical JSON.
    pub(crate) turn_state: String,
    pub(crate) tool_state_ref: Option<String>,
    pub(crate) plugin_snapshot_ref: Option<String>,
    pub(crate) plugin_snapshot_revision: Option<i64>,
    pub(crate) execution_state_ref: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'a> {
    v: i64,
    #[serde(borrow)]
    turn_state: &'a RawValue,
    tool_state_ref: Option<String>,
    plugin_snapshot_ref: Option<String>,
    plugin_snapshot_revision: Option<i64>,
    execution_state_ref: Option<String>,
}

impl Manifest {
    /// The parts by name, as far as they are there.
    pub(crate) fn components(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("toolState", &self.tool_state_ref),
            ("pluginSnapshot", &self.plugin_snapshot_ref),
            ("executionState", &self.execution_state_ref),
        ]
        .into_iter()
        .filter_map(|(name, reference)| reference.as_deref().map(|reference| (name, reference)))
    }

    /// Whether what begins like this may be a manifest that this module stored and that names something.
    pub(crate) fn may_begin(bytes: &[u8]) -> bool {
        BEGINNINGS.iter().any(|beginning| bytes.starts_with(beginning))
    }

    /// The members, in the order of their names, without the version.
    fn members(&self) -> String {
        let mut out = String::from("{");
        for (name, reference) in
            [("executionStateRef", &self.execution_state_ref), ("pluginSnapshotRef", &self.plugin_snapshot_ref)]
        {
            if let Some(reference) = reference {
                out.push_str(&format!("\"{name}\":{},", json::quote(reference)));
            }
        }
        if let Some(revision) = self.plugin_snapshot_revision {
            out.push_str(&format!("\"pluginSnapshotRevision\":{revision},"));
        }
        if let Some(reference) = &self.tool_state_ref {
            out.push_str(&format!("\"toolStateRef\":{},", json::quote(reference)));
        }
        out.push_str("\"turnState\":");
        out.push_str(&self.turn_state);
        out
    }

    /// The text that is stored: canonical JSON with `"v":1`.
    pub(crate) fn stored(&self) -> String {
        format!("{},\"v\":{VERSION}}}", self.members())
    }

    /// The text that callers get.
    pub(crate) fn public(&self) -> String {
        format!("{}}}", self.members())
    }

    /// Reads what is stored under `reference`, whose hash was compared before.
    pub(crate) fn decode(reference: &str, bytes: &[u8]) -> Result<Self> {
        let bad = |why: &str| record_decode("blobs", reference, why);
        let text = std::str::from_utf8(bytes).map_err(|_| bad("a manifest that is not UTF-8"))?;
        let stored: Stored<'_> =
            serde_json::from_str(text).map_err(|_| bad("it does not hold the manifest of a checkpoint"))?;
        if stored.v != VERSION {
            return Err(record_version("checkpoint manifest", stored.v, VERSION));
        }
        Ok(Self {
            turn_state: stored.turn_state.get().to_owned(),
            tool_state_ref: stored.tool_state_ref,
            plugin_snapshot_ref: stored.plugin_snapshot_ref,
            plugin_snapshot_revision: stored.plugin_snapshot_revision,
            execution_state_ref: stored.execution_state_ref,
        })
    }
}

/// The canonical text of a value that came from the facade.
pub(crate) fn canonical(argument: &str, text: &str) -> Result<String> {
    json::canonical(text).map_err(|error| {
        HfError::new(Code::InvalidArgument, format!("{argument} is no JSON that can be stored: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            turn_state: "{\"turnIndex\":1}".into(),
            tool_state_ref: Some("blake3:a1".into()),
            plugin_snapshot_ref: None,
            plugin_snapshot_revision: Some(5),
            execution_state_ref: Some("blake3:0c".into()),
        }
    }

    #[test]
    fn has_the_text_of_the_format() {
        let text = manifest().stored();
        let wanted = r#"{"executionStateRef":"blake3:0c","pluginSnapshotRevision":5,"toolStateRef":"blake3:a1","turnState":{"turnIndex":1},"v":1}"#;
        assert_eq!(text, wanted);
        assert_eq!(json::canonical(&text).unwrap(), text);
        assert_eq!(Manifest::decode("r", text.as_bytes()).unwrap(), manifest());
        let mut part = manifest();
        for taken in 0..3 {
            assert!(Manifest::may_begin(part.stored().as_bytes().get(..BEGINNING).unwrap()), "{taken}");
            match taken {
                0 => part.execution_state_ref = None,
                1 => part.plugin_snapshot_revision = None,
                _ => part.plugin_snapshot_ref = part.tool_state_ref.take(),
            }
        }
        assert!(Manifest::may_begin(part.stored().as_bytes()));
        assert_eq!(
            manifest().components().collect::<Vec<_>>(),
            [("toolState", "blake3:a1"), ("executionState", "blake3:0c")]
        );
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for text in ["{}", "[]", "{\"v\":1}", "{\"turnState\":1}", "\u{0}"] {
            assert_eq!(Manifest::decode("r", text.as_bytes()).unwrap_err().code(), Code::GraphRecordDecode, "{text}");
        }
        let newer = Manifest::decode("r", b"{\"v\":2,\"turnState\":1}").unwrap_err();
        assert_eq!(
            newer.message(),
            "checkpoint manifest schema_version 2 is not supported by this binary (expected 1)"
        );
    }
}
