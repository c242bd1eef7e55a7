//! What can go wrong with host events, in the words of their users.

use crate::error::{Code, HfError};

/// The key has an occurrence with other contents.
pub(super) fn idempotency_conflict(key: &str) -> HfError {
    HfError::new(Code::GraphHostEvent, format!("host event occurrence idempotency conflict for `{key}`"))
        .with_field("idempotencyKey", key)
}

/// There is no such occurrence.
pub(super) fn unknown_occurrence(id: &str) -> HfError {
    HfError::new(Code::GraphHostEvent, format!("unknown host event occurrence `{id}`")).with_field("occurrenceId", id)
}

/// There is no delivery of that process.
pub(super) fn unknown_delivery(process_id: &str) -> HfError {
    HfError::new(Code::GraphHostEvent, format!("unknown host event delivery of process `{process_id}`"))
        .with_field("processId", process_id)
}
