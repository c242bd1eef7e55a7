//! What can go wrong with a session, in the words of its users.

use crate::error::{Code, HfError};

/// The file belongs to another session.
pub(crate) fn binding_mismatch(bound: &str, attempted: &str) -> HfError {
    HfError::new(
        Code::GraphSessionBindingMismatch,
        format!("store is already bound to session `{bound}` and cannot be reused for `{attempted}`"),
    )
    .with_field("boundSessionId", bound)
    .with_field("attemptedSessionId", attempted)
}

/// Somebody else committed first.
pub(crate) fn head_conflict(expected: i64, actual: i64) -> HfError {
    HfError::new(
        Code::GraphHeadRevisionConflict,
        format!("store head revision conflict: expected {expected}, actual {actual}"),
    )
    .with_field("expected", expected)
    .with_field("actual", actual)
}

/// The turn was committed, with other contents.
pub(crate) fn turn_conflict(session_id: &str, turn_id: &str) -> HfError {
    HfError::new(
        Code::GraphRuntimeTurnCommitConflict,
        format!(
            "runtime turn `{turn_id}` for session `{session_id}` was already committed with a different commit hash"
        ),
    )
    .with_field("sessionId", session_id)
    .with_field("turnId", turn_id)
}

/// The claim is no longer the owner of its batches.
pub(crate) fn claim_expired(session_id: &str, claim_id: &str) -> HfError {
    HfError::new(
        Code::GraphQueuedWorkClaimExpired,
        format!("queued work claim `{claim_id}` for session `{session_id}` is missing or expired"),
    )
    .with_field("sessionId", session_id)
    .with_field("claimId", claim_id)
}

/// A stored record has a format that this version does not know.
pub(crate) fn record_version(kind: &str, actual: i64, expected: i64) -> HfError {
    HfError::new(
        Code::GraphUnsupportedRecordSchemaVersion,
        format!("{kind} schema_version {actual} is not supported by this binary (expected {expected})"),
    )
    .with_field("recordKind", kind)
    .with_field("actual", actual)
    .with_field("expected", expected)
}

/// A node of that id is stored already, or comes twice.
pub(crate) fn node_collision(node_id: &str) -> HfError {
    HfError::new(
        Code::GraphNodeIdCollision,
        format!(
            "node `{node_id}` is stored already, or comes twice; nothing was written: give every node an id of its own"
        ),
    )
    .with_field("nodeId", node_id)
}

/// The leaf is no stored node.
pub(crate) fn unknown_leaf(node_id: &str) -> HfError {
    HfError::new(
        Code::GraphUnknownLeaf,
        format!("leaf `{node_id}` is no stored node; nothing was written: append it in the same commit, or before"),
    )
    .with_field("nodeId", node_id)
}

/// The leaf is stored, and hidden.
pub(crate) fn hidden_leaf(node_id: &str) -> HfError {
    HfError::new(
        Code::GraphUnknownLeaf,
        format!("leaf `{node_id}` is hidden by tombstoneNodes; nothing was written: choose a node that is not"),
    )
    .with_field("nodeId", node_id)
}

/// The delta would make a node its own ancestor.
pub(crate) fn cycle(node_id: &str) -> HfError {
    HfError::new(
        Code::GraphCycle,
        format!("node `{node_id}` would be its own ancestor; nothing was written: a graph of parents has no circles"),
    )
    .with_field("nodeId", node_id)
}

/// The stored links go round in a circle, or lead to a row without contents.
pub(crate) fn graph_corrupt(node_id: &str, what: &str) -> HfError {
    HfError::new(
        Code::GraphCorrupt,
        format!("node `{node_id}` {what}; keep a copy of the file, look at verify(), and put back a backup"),
    )
    .with_field("nodeId", node_id)
}

/// A reference leads to no stored blob.
pub(crate) fn missing_blob(reference: &str, component: &str) -> HfError {
    HfError::new(
        Code::GraphMissingBlob,
        format!("{component}: blob {reference} is not stored; put it first, or leave the reference out"),
    )
    .with_field("ref", reference)
    .with_field("component", component)
}

/// A blob is not what its name says.
pub(crate) fn blob_corrupt(reference: &str, component: &str) -> HfError {
    HfError::new(
        Code::GraphBlobCorrupt,
        format!("{component}: blob {reference} is damaged; what else is stored can be read with `tolerant`, the blob comes back from a backup"),
    )
    .with_field("ref", reference)
    .with_field("component", component)
}

/// A row cannot be understood.
pub(crate) fn record_decode(table: &str, key: &str, why: &str) -> HfError {
    HfError::new(
        Code::GraphRecordDecode,
        format!("the row `{key}` of {table} cannot be read: {why}; read with `tolerant`, or put back a backup"),
    )
    .with_field("table", table)
    .with_field("key", key)
}

/// A row of a store beside the sessions cannot be understood.
pub(crate) fn row_damaged(table: &str, key: &str, why: &str) -> HfError {
    HfError::new(
        Code::GraphRecordDecode,
        format!("the row `{key}` of {table} cannot be read: {why}; put back a backup"),
    )
    .with_field("table", table)
    .with_field("key", key)
}

/// A queued batch cannot be understood.
pub(crate) fn queue_corrupt(batch_id: &str, why: &str) -> HfError {
    HfError::new(
        Code::GraphQueueRowCorrupt,
        format!("queued batch `{batch_id}` is damaged: {why}; cancel it, then enqueue its work anew"),
    )
    .with_field("batchId", batch_id)
}

/// A bug of ours, not the caller's.
pub(crate) fn bug(what: &str) -> HfError {
    HfError::new(Code::Panic, format!("{what}; please report it"))
}
