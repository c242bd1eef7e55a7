//! What can go wrong with an effect. A message begins with the code's own word, and names scope and key.

use super::message::Key;
use crate::error::{Code, HfError};

fn told(code: Code, word: &str, text: &str, key: &Key) -> HfError {
    HfError::new(code, format!("effect_replay_{word}: effect `{}` of {} {text}", key.replay_key, key.scope.shown()))
        .with_field("scope", key.scope.text())
        .with_field("replayKey", key.replay_key.as_str())
}

/// A replay asks for what never happened.
pub(super) fn missing(key: &Key) -> HfError {
    let text = "is not in the history that is replayed; the code has changed, or the history was pruned";
    told(Code::GraphEffectReplayMissing, "missing", text, key)
}

/// Another effect has the key.
pub(super) fn hash_conflict(key: &Key) -> HfError {
    let text = "was recorded with another envelope; give another effect a replay key of its own";
    told(Code::GraphEffectReplayHashConflict, "hash_conflict", text, key)
}

/// Somebody else does it by now, or has done it.
pub(super) fn lease_lost(key: &Key) -> HfError {
    let text = "was taken over by somebody else; execute it again to get the recorded outcome";
    told(Code::GraphEffectReplayLeaseLost, "lease_lost", text, key)
}

/// The row does not hold what belongs there.
pub(super) fn corrupt_row(key: &Key, why: &str) -> HfError {
    let text = format!("cannot be read: {why}; keep a copy of the file, and put back a backup");
    told(Code::GraphEffectReplayCorruptRow, "corrupt_row", &text, key)
}
