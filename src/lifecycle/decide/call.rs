//! The pure functions as JavaScript calls them: JSON in, JSON out.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::evidence::hash_evidence;
use super::probe::{Limits, ProbeInput, create_detecting, resolve};
use super::reaction::reaction_for;
use super::status::{NO_SIGNAL_AFTER_MS, Silence, derive_status, derive_status_at};
use crate::error::{Code, HfError, Result};
use crate::lifecycle::check::argument;
use crate::lifecycle::model::{Activity, Detecting, Lifecycle, Millis, PrFacts};
use crate::lifecycle::words::{
    CiState, Mergeability, ProcessLiveness, ReviewDecision, SessionState, TerminationReason, Word,
};

/// Runs the function `name` on `input`.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` for an unknown name, and for an input that is not of the function's shape or holds an unknown word.
pub fn call(name: &str, input: &str) -> Result<String> {
    match name {
        "resolveProbeDecision" => print(&resolve(&from_text::<Probe>(name, input)?.input()?, Limits::default())),
        "createDetectingDecision" => {
            let input: Unclear = from_text(name, input)?;
            print(&create_detecting(input.evidence, input.prior.as_ref(), input.now, Limits::default()))
        }
        "hashEvidence" => print(&hash_evidence(&from_text::<String>(name, input)?)),
        "deriveStatus" => {
            let about: About = from_text(name, input)?;
            let (lifecycle, pr) = (about.lifecycle.read()?, about.pr.read()?);
            print(&match about.silence {
                None => derive_status(&lifecycle, &pr),
                Some(silence) => derive_status_at(&lifecycle, &pr, silence.read()),
            })
        }
        "reactionFor" => {
            let about: About = from_text(name, input)?;
            print(&reaction_for(&about.lifecycle.read()?, &about.pr.read()?))
        }
        _ => Err(HfError::new(Code::InvalidArgument, format!("there is no pure function {name:?}"))),
    }
}

/// What is wrong with an input, without the values that are in it: they may be secret.
fn refused(name: &str, error: &serde_json::Error) -> HfError {
    let text = error.to_string();
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
    let expected = text.split_once(", expected ").map(|(_, rest)| rest.split(" at line ").next().unwrap_or_default());
    let what = match (missing, expected) {
        (Some((field, _)), _) => format!("`{field}` is missing"),
        (None, Some(expected)) => format!("a value has the wrong type, expected {expected}"),
        (None, None) => "the input cannot be read".to_owned(),
    };
    HfError::new(Code::InvalidArgument, format!("{name}: {what}"))
}

fn print(answer: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(answer).map_err(|error| HfError::new(Code::InvalidArgument, error.to_string()))
}

/// As the spec's `ProbeInput`; what is missing is false, indeterminate or nothing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    runtime_alive: Option<bool>,
    runtime_failed: Option<bool>,
    process: Option<String>,
    process_failed: Option<bool>,
    recent_activity: Option<bool>,
    kill_requested: Option<bool>,
    kill_reason: Option<String>,
    prior: Option<Detecting>,
    now: Millis,
}

impl Probe {
    fn input(self) -> Result<ProbeInput> {
        Ok(ProbeInput {
            runtime_alive: self.runtime_alive.unwrap_or_default(),
            runtime_failed: self.runtime_failed.unwrap_or_default(),
            process: match &self.process {
                Some(text) => argument("process", text)?,
                None => ProcessLiveness::Indeterminate,
            },
            process_failed: self.process_failed.unwrap_or_default(),
            recent_activity: self.recent_activity.unwrap_or_default(),
            kill_requested: self.kill_requested.unwrap_or_default(),
            kill_reason: argument("killReason", self.kill_reason.as_deref().unwrap_or_default())?,
            prior: self.prior,
            now: self.now,
        })
    }
}

#[derive(Deserialize)]
struct Unclear {
    evidence: String,
    prior: Option<Detecting>,
    now: Millis,
}

#[derive(Deserialize)]
struct About {
    lifecycle: LifecycleText,
    pr: PrText,
    silence: Option<SilenceText>,
}

/// Missing = 90 s.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SilenceText {
    launched_at: Option<Millis>,
    now: Millis,
    no_signal_after_ms: Option<Millis>,
}

impl SilenceText {
    fn read(&self) -> Silence {
        let after_ms = self.no_signal_after_ms.unwrap_or(NO_SIGNAL_AFTER_MS);
        Silence { launched_at: self.launched_at, now: self.now, after_ms }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ActivityText {
    last_activity_at: Option<Millis>,
}

/// The part of a lifecycle that is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LifecycleText {
    state: String,
    termination_reason: Option<String>,
    #[serde(default)]
    is_alive: bool,
    #[serde(default)]
    activity: ActivityText,
}

impl LifecycleText {
    fn read(&self) -> Result<Lifecycle> {
        Ok(Lifecycle {
            state: argument::<SessionState>("lifecycle.state", &self.state)?,
            // A reason that only a later version knows is still an end.
            termination_reason: TerminationReason::parse(self.termination_reason.as_deref().unwrap_or_default())
                .unwrap_or(TerminationReason::None),
            is_alive: self.is_alive,
            harness: String::new(),
            activity: Activity { last_activity_at: self.activity.last_activity_at, ..Activity::default() },
            detecting: None,
        })
    }
}

/// Facts of a pull request; what is missing is false or unknown.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrText {
    exists: bool,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    merged: bool,
    #[serde(default)]
    closed: bool,
    ci: Option<String>,
    review: Option<String>,
    mergeability: Option<String>,
    #[serde(default)]
    review_comments: bool,
    #[serde(default)]
    stacked: bool,
}

impl PrText {
    fn read(&self) -> Result<PrFacts> {
        Ok(PrFacts {
            exists: self.exists,
            url: String::new(),
            number: 0,
            draft: self.draft,
            merged: self.merged,
            closed: self.closed,
            ci: or_default::<CiState>("pr.ci", self.ci.as_deref())?,
            review: or_default::<ReviewDecision>("pr.review", self.review.as_deref())?,
            mergeability: or_default::<Mergeability>("pr.mergeability", self.mergeability.as_deref())?,
            review_comments: self.review_comments,
            stacked: self.stacked,
        })
    }
}

/// Reads a word for which missing and empty mean its default.
fn or_default<T: Word + Default>(name: &str, text: Option<&str>) -> Result<T> {
    match text {
        None | Some("") => Ok(T::default()),
        Some(text) => argument(name, text),
    }
}

/// Reads an input; `name` stands for it in messages.
///
/// # Errors
/// `HF_INVALID_ARGUMENT` naming what is wrong.
pub fn from_text<T: DeserializeOwned>(name: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| refused(name, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_the_words_of_the_format() {
        assert_eq!(
            call("resolveProbeDecision", r#"{"runtimeAlive":true,"now":5}"#).unwrap(),
            r#"{"state":"working","terminationReason":"","isAlive":true,"detecting":null,"evidence":"alive runtime=alive process=indeterminate"}"#
        );
        let killed =
            call("resolveProbeDecision", r#"{"killRequested":true,"killReason":"auto_cleanup","prior":null,"now":5}"#);
        assert!(
            killed.unwrap().starts_with(r#"{"state":"terminated","terminationReason":"auto_cleanup","isAlive":false"#)
        );
        let unclear = r#"{"evidence":"e","prior":{"attempts":1,"startedAt":3,"evidenceHash":"x"},"now":5}"#;
        let answer: serde_json::Value =
            serde_json::from_str(&call("createDetectingDecision", unclear).unwrap()).unwrap();
        assert_eq!(answer["detecting"]["startedAt"], 3);
        assert_eq!(answer["detecting"]["attempts"], 1);
        assert_eq!(call("hashEvidence", "\"\"").unwrap().len(), 66);
        let about = |lifecycle: &str, pr: &str| format!(r#"{{"lifecycle":{lifecycle},"pr":{pr}}}"#);
        let idle = about(r#"{"state":"idle"}"#, r#"{"exists":false}"#);
        assert_eq!(call("deriveStatus", &idle).unwrap(), "\"idle\"");
        assert_eq!(call("reactionFor", &idle).unwrap(), "\"agent-idle\"");
        let later = about(r#"{"state":"terminated","terminationReason":"eaten"}"#, r#"{"exists":false}"#);
        assert_eq!(call("deriveStatus", &later).unwrap(), "\"terminated\"");
        assert_eq!(call("reactionFor", &later).unwrap(), "null");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (name, input) in [
            ("resolveProbeDecision", r#"{"process":"zombie","now":5}"#),
            ("resolveProbeDecision", r#"{"killReason":"why","now":5}"#),
            ("resolveProbeDecision", r#"{"runtimeAlive":1,"now":5}"#),
            ("resolveProbeDecision", "{}"),
            ("createDetectingDecision", r#"{"now":5}"#),
            ("hashEvidence", "5"),
            ("deriveStatus", r#"{"lifecycle":{"state":"asleep"},"pr":{"exists":false}}"#),
            ("deriveStatus", r#"{"lifecycle":{"state":"idle"},"pr":{"exists":true,"ci":"green"}}"#),
            ("guess", "{}"),
        ] {
            assert_eq!(call(name, input).unwrap_err().code(), Code::InvalidArgument, "{name} {input}");
        }
        let error = call("createDetectingDecision", r#"{"evidence":"e","now":"s3cret"}"#).unwrap_err();
        assert_eq!(error.message(), "createDetectingDecision: a value has the wrong type, expected i64");
        let error = from_text::<Unclear>("it", r#"{"evidence":"e"}"#).err().unwrap();
        assert_eq!(error.message(), "it: `now` is missing");
    }
}
