//! What a caller may have otherwise: which reactions there are, what they say, and how patient they are.

use std::collections::HashMap;

use serde::Deserialize;

use crate::lifecycle::decide::probe::{DETECTING_MAX_ATTEMPTS, DETECTING_MAX_DURATION_MS, Limits};
use crate::lifecycle::decide::reaction::{CI_BRAKE_RUNS, ESCALATE_AFTER_MS, REVIEW_MAX_NUDGES, reaction};
use crate::lifecycle::model::Millis;
use crate::lifecycle::words::ReactionKey;

/// Which merged pull request ends its session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MergeEnds {
    /// Each of them.
    #[default]
    Any,
    /// One that leaves none open.
    Last,
}

/// How the engine reacts. What is left out is as it always was.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Policy {
    /// Reactions that do not happen. Default: none.
    pub off: Vec<ReactionKey>,
    /// Other texts. Feedback still adds its details.
    pub messages: HashMap<ReactionKey, String>,
    /// Milliseconds from a nudge to the call for a person. Default: 900 000.
    pub escalate_after_ms: Millis,
    /// Failed runs of a check in a row that end the nudges about it. Default: 3.
    pub ci_brake_runs: i64,
    /// Nudges about reviews before a person is called. Default: 3.
    pub review_max_nudges: i64,
    /// Equal unclear probes that make a session stuck. Default: 3.
    pub detecting_max_attempts: i64,
    /// Milliseconds in quarantine that make a session stuck. Default: 300 000.
    pub detecting_max_duration_ms: Millis,
    /// Tell of all failed checks in one message, not of the first alone. Default: no.
    pub all_failed_checks: bool,
    /// Which merge ends a session. Default: each.
    pub merge_ends: MergeEnds,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            off: Vec::new(),
            messages: HashMap::new(),
            escalate_after_ms: ESCALATE_AFTER_MS,
            ci_brake_runs: CI_BRAKE_RUNS,
            review_max_nudges: REVIEW_MAX_NUDGES,
            detecting_max_attempts: DETECTING_MAX_ATTEMPTS,
            detecting_max_duration_ms: DETECTING_MAX_DURATION_MS,
            all_failed_checks: false,
            merge_ends: MergeEnds::Any,
        }
    }
}

impl Policy {
    /// Whether `key` happens at all.
    #[must_use]
    pub fn is_on(&self, key: ReactionKey) -> bool {
        !self.off.contains(&key)
    }

    /// What `key` says, without details.
    #[must_use]
    pub fn message(&self, key: ReactionKey) -> &str {
        self.messages.get(&key).map_or(reaction(key).message, String::as_str)
    }

    /// How long a quarantine lasts.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { attempts: self.detecting_max_attempts, duration_ms: self.detecting_max_duration_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_default() {
        let policy: Policy =
            serde_json::from_str(r#"{"off":["agent-idle"],"messages":{"ci-failed":"Oh no."},"mergeEnds":"last"}"#)
                .unwrap();
        assert!(!policy.is_on(ReactionKey::AgentIdle) && policy.is_on(ReactionKey::CiFailed));
        assert_eq!(policy.message(ReactionKey::CiFailed), "Oh no.");
        assert_eq!(policy.message(ReactionKey::PrMerged), "PR merged — work complete.");
        assert_eq!((policy.escalate_after_ms, policy.merge_ends), (900_000, MergeEnds::Last));
        assert_eq!(policy.limits(), Limits::default());
        assert!(serde_json::from_str::<Policy>(r#"{"of":[]}"#).is_err());
        assert!(serde_json::from_str::<Policy>(r#"{"off":["agent-asleep"]}"#).is_err());
    }
}
