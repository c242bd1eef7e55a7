//! What a caller may have otherwise: which reactions there are, what they say, and how patient they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::{Code, HfError, Result};
use crate::lifecycle::decide::probe::{DETECTING_MAX_ATTEMPTS, DETECTING_MAX_DURATION_MS, Limits};
use crate::lifecycle::decide::reaction::{CI_BRAKE_RUNS, ESCALATE_AFTER_MS, REVIEW_MAX_NUDGES, reaction};
use crate::lifecycle::model::Millis;
use crate::lifecycle::words::{MergeEnds, ReactionKey, SeveralPrs, Word as _};

/// How the engine reacts.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Reactions that do not happen. Default: none.
    pub off: Vec<ReactionKey>,
    /// Other texts. Feedback still adds its details.
    pub messages: BTreeMap<ReactionKey, String>,
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
    /// Which of several open pull requests counts. Default: the newest.
    pub several_prs: SeveralPrs,
}

/// What somebody wants otherwise; what is left out is as whoever is less near to the session wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Policy`")]
pub struct PolicyInput {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off: Option<Vec<ReactionKey>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub messages: BTreeMap<ReactionKey, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalate_after_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci_brake_runs: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review_max_nudges: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detecting_max_attempts: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detecting_max_duration_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_failed_checks: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_ends: Option<MergeEnds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub several_prs: Option<SeveralPrs>,
}

impl PolicyInput {
    /// Reads what a project has stored. What this version does not understand (a newer one wrote it, or somebody by hand) is
    /// left out: it must not keep the engine from reacting.
    #[must_use]
    pub fn stored(text: &str) -> Self {
        let Ok(Json::Object(mut fields)) = serde_json::from_str(text) else { return Self::default() };
        let is_key = |text: &str| ReactionKey::parse(text).is_some();
        if let Some(Json::Array(off)) = fields.get_mut("off") {
            off.retain(|key| key.as_str().is_some_and(is_key));
        }
        if let Some(Json::Object(messages)) = fields.get_mut("messages") {
            messages.retain(|key, text| is_key(key) && text.is_string());
        }
        fields.retain(|name, value| {
            let alone = Json::Object([(name.clone(), value.clone())].into_iter().collect());
            serde_json::from_value::<Self>(alone).is_ok_and(|field| field.out_of_range().is_none())
        });
        serde_json::from_value(Json::Object(fields)).unwrap_or_default()
    }

    /// Requires numbers that mean something.
    ///
    /// # Errors
    /// `HF_INVALID_ARGUMENT`
    pub fn check(&self) -> Result<()> {
        match self.out_of_range() {
            None => Ok(()),
            Some((field, least)) => {
                let message = format!("policy.{field} must be {least} or more");
                Err(HfError::new(Code::InvalidArgument, message).with_field("field", format!("policy.{field}")))
            }
        }
    }

    /// The first number that is smaller than it may be, and what it may be.
    fn out_of_range(&self) -> Option<(&'static str, i64)> {
        [
            ("escalateAfterMs", self.escalate_after_ms, 0),
            ("detectingMaxDurationMs", self.detecting_max_duration_ms, 0),
            ("ciBrakeRuns", self.ci_brake_runs, 1),
            ("reviewMaxNudges", self.review_max_nudges, 1),
            ("detectingMaxAttempts", self.detecting_max_attempts, 1),
        ]
        .into_iter()
        .find_map(|(name, value, least)| value.filter(|value| *value < least).map(|_| (name, least)))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            off: Vec::new(),
            messages: BTreeMap::new(),
            escalate_after_ms: ESCALATE_AFTER_MS,
            ci_brake_runs: CI_BRAKE_RUNS,
            review_max_nudges: REVIEW_MAX_NUDGES,
            detecting_max_attempts: DETECTING_MAX_ATTEMPTS,
            detecting_max_duration_ms: DETECTING_MAX_DURATION_MS,
            all_failed_checks: false,
            merge_ends: MergeEnds::default(),
            several_prs: SeveralPrs::default(),
        }
    }
}

impl Policy {
    /// How to react in a transaction of a manager that wants `own`, to a session whose project has stored `stored`.
    #[must_use]
    pub fn of(own: Option<&PolicyInput>, stored: Option<&str>) -> Self {
        let mut policy = Self::default();
        if let Some(own) = own {
            policy.take(own.clone());
        }
        if let Some(stored) = stored {
            policy.take(PolicyInput::stored(stored));
        }
        policy
    }

    /// Takes over what `wanted` says: field by field, texts key by key.
    fn take(&mut self, wanted: PolicyInput) {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        self.messages.extend(wanted.messages);
        set(&mut self.off, wanted.off);
        set(&mut self.escalate_after_ms, wanted.escalate_after_ms);
        set(&mut self.ci_brake_runs, wanted.ci_brake_runs);
        set(&mut self.review_max_nudges, wanted.review_max_nudges);
        set(&mut self.detecting_max_attempts, wanted.detecting_max_attempts);
        set(&mut self.detecting_max_duration_ms, wanted.detecting_max_duration_ms);
        set(&mut self.all_failed_checks, wanted.all_failed_checks);
        set(&mut self.merge_ends, wanted.merge_ends);
        set(&mut self.several_prs, wanted.several_prs);
    }

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
        let own: PolicyInput =
            serde_json::from_str(r#"{"off":["agent-idle"],"messages":{"ci-failed":"Oh no."},"mergeEnds":"last"}"#)
                .unwrap();
        let policy = Policy::of(Some(&own), None);
        assert!(!policy.is_on(ReactionKey::AgentIdle) && policy.is_on(ReactionKey::CiFailed));
        assert_eq!(policy.message(ReactionKey::CiFailed), "Oh no.");
        assert_eq!(policy.message(ReactionKey::PrMerged), "PR merged — work complete.");
        assert_eq!((policy.escalate_after_ms, policy.merge_ends), (900_000, MergeEnds::Last));
        assert_eq!(policy.limits(), Limits::default());
        assert!(serde_json::from_str::<PolicyInput>(r#"{"of":[]}"#).is_err());
        assert!(serde_json::from_str::<PolicyInput>(r#"{"off":["agent-asleep"]}"#).is_err());
    }

    #[test]
    fn a_project_beats_the_manager_field_by_field_and_text_by_text() {
        let own: PolicyInput = serde_json::from_str(
            r#"{"off":["agent-idle"],"messages":{"ci-failed":"A","pr-closed":"B"},"escalateAfterMs":1,"ciBrakeRuns":2}"#,
        )
        .unwrap();
        let stored = r#"{"off":[],"messages":{"ci-failed":"C","agent-idle":"D"},"escalateAfterMs":7}"#;
        let policy = Policy::of(Some(&own), Some(stored));
        assert!(policy.is_on(ReactionKey::AgentIdle));
        let texts =
            [ReactionKey::CiFailed, ReactionKey::PrClosed, ReactionKey::AgentIdle].map(|key| policy.message(key));
        assert_eq!(texts, ["C", "B", "D"]);
        assert_eq!((policy.escalate_after_ms, policy.ci_brake_runs, policy.review_max_nudges), (7, 2, 3));
    }

    #[test]
    fn of_a_stored_policy_only_what_is_understood_counts() {
        let stored = r#"{"off":["agent-asleep","agent-idle",3],"messages":{"agent-asleep":"x","pr-closed":1,"ci-failed":"y"},
          "mood":"mild","mergeEnds":"sometimes","escalateAfterMs":-1,"ciBrakeRuns":"many","reviewMaxNudges":0,
          "detectingMaxAttempts":9}"#;
        let expected = PolicyInput {
            off: Some(vec![ReactionKey::AgentIdle]),
            messages: [(ReactionKey::CiFailed, "y".to_owned())].into(),
            detecting_max_attempts: Some(9),
            ..PolicyInput::default()
        };
        assert_eq!(PolicyInput::stored(stored), expected);
        for odd in ["", "[]", "3", "null", r#"{"off":{}}"#, r#"{"messages":[1]}"#, "{"] {
            assert_eq!(PolicyInput::stored(odd), PolicyInput::default(), "{odd}");
        }
    }
}
