//! A batch, and which ones go together.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json;

/// What a batch joins.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum MergeKey {
    Never,
    PayloadDefault,
    Group(String),
}

impl MergeKey {
    /// The text that is stored.
    pub(crate) fn stored(&self) -> String {
        match self {
            Self::Never => "\"never\"".to_owned(),
            Self::PayloadDefault => "\"payload_default\"".to_owned(),
            Self::Group(name) => format!("{{\"group\":{}}}", json::quote(name)),
        }
    }

    /// Reads the text that is stored.
    pub(crate) fn read(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Group {
            group: String,
        }
        match text {
            "\"never\"" => Some(Self::Never),
            "\"payload_default\"" => Some(Self::PayloadDefault),
            _ => serde_json::from_str::<Group>(text).ok().map(|group| Self::Group(group.group)),
        }
    }

    fn public(&self) -> String {
        match self {
            Self::PayloadDefault => "\"payloadDefault\"".to_owned(),
            other => other.stored(),
        }
    }
}

/// When a batch is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Delivery {
    EarliestSafeBoundary,
    AfterCurrentTurnCommit,
}

impl Delivery {
    pub(crate) fn stored(self) -> &'static str {
        match self {
            Self::EarliestSafeBoundary => "earliest_safe_boundary",
            Self::AfterCurrentTurnCommit => "after_current_turn_commit",
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        [Self::EarliestSafeBoundary, Self::AfterCurrentTurnCommit].into_iter().find(|one| one.stored() == text)
    }

    fn public(self) -> &'static str {
        match self {
            Self::EarliestSafeBoundary => "earliestSafeBoundary",
            Self::AfterCurrentTurnCommit => "afterCurrentTurnCommit",
        }
    }
}

/// Whether a batch may share a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Slot {
    Join,
    Exclusive,
}

impl Slot {
    pub(crate) fn stored(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Exclusive => "exclusive",
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        [Self::Join, Self::Exclusive].into_iter().find(|one| one.stored() == text)
    }
}

/// What is to be enqueued.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Draft {
    pub(crate) session_id: String,
    pub(crate) payloads: Vec<Box<RawValue>>,
    pub(crate) source_key: Option<String>,
    pub(crate) delivery_policy: Delivery,
    pub(crate) slot_policy: Slot,
    pub(crate) merge_key: MergeKey,
    pub(crate) available_at_ms: i64,
    pub(crate) max_attempts: Option<i64>,
    /// Its end is remembered for so long, and whose end is remembered is not enqueued again.
    pub(crate) retain_ms: Option<i64>,
}

/// A stored batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) seq: i64,
    pub(crate) id: String,
    pub(crate) session_id: String,
    pub(crate) source_key: Option<String>,
    pub(crate) delivery: Delivery,
    pub(crate) slot: Slot,
    pub(crate) merge_key: MergeKey,
    pub(crate) available_at_ms: i64,
    pub(crate) enqueued_at_ms: i64,
    /// Claims so far.
    pub(crate) attempts: i64,
    /// How many there may be; `None` = any number.
    pub(crate) max_attempts: Option<i64>,
    /// Ids and payloads.
    pub(crate) items: Vec<(String, String)>,
}

impl Batch {
    /// As JSON.
    pub(crate) fn text(&self) -> String {
        let items: Vec<String> = self
            .items
            .iter()
            .map(|(id, payload)| format!("{{\"itemId\":{},\"payload\":{payload}}}", json::quote(id)))
            .collect();
        // Who sets no limit sees no counts.
        let attempts = self
            .max_attempts
            .map_or_else(String::new, |max| format!("\"maxAttempts\":{max},\"attempts\":{},", self.attempts));
        format!(
            "{{\"batchId\":{},\"sessionId\":{},\"sourceKey\":{},\"deliveryPolicy\":\"{}\",\"slotPolicy\":\"{}\",\
             \"mergeKey\":{},\"availableAtMs\":{},\"enqueueSeq\":{},\"enqueuedAtMs\":{},{attempts}\"items\":[{}]}}",
            json::quote(&self.id),
            json::quote(&self.session_id),
            self.source_key.as_deref().map_or_else(|| "null".to_owned(), json::quote),
            self.delivery.public(),
            self.slot.stored(),
            self.merge_key.public(),
            self.available_at_ms,
            self.seq,
            self.enqueued_at_ms,
            items.join(",")
        )
    }

    /// Whether others may follow this one into a claim.
    pub(crate) fn takes_others(&self) -> bool {
        self.slot == Slot::Join && self.merge_key != MergeKey::Never
    }

    /// Whether this one may follow `head` into a claim.
    pub(crate) fn follows(&self, head: &Self) -> bool {
        head.takes_others() && self.takes_others() && self.delivery == head.delivery && self.merge_key == head.merge_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_keys_keep_their_texts() {
        for (key, text) in [
            (MergeKey::Never, "\"never\""),
            (MergeKey::PayloadDefault, "\"payload_default\""),
            (MergeKey::Group("a\"b".into()), "{\"group\":\"a\\\"b\"}"),
        ] {
            assert_eq!(key.stored(), text);
            assert_eq!(MergeKey::read(text), Some(key));
        }
        for damaged in ["never", "\"always\"", "{\"group\":1}", "{\"group\":\"a\",\"b\":1}", ""] {
            assert_eq!(MergeKey::read(damaged), None, "{damaged}");
        }
    }
}
