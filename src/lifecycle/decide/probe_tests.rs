use proptest::prelude::*;

use super::*;
use crate::lifecycle::words::ActivitySource;

const NOW: Millis = 1_780_000_000_000;
const WAYS: [ProbeResult; 4] = [ProbeResult::Alive, ProbeResult::Dead, ProbeResult::Failed, ProbeResult::Unknown];

fn decide(runtime: ProbeResult, process: ProbeResult, recent: bool, prior: Option<Detecting>, now: Millis) -> Decision {
    resolve(&ProbeInput::of(runtime, process, recent, prior, now), Limits::default())
}

/// What the table says of every pair: W works, T ends, the rest is quarantine with that evidence.
fn expected(runtime: ProbeResult, process: ProbeResult, recent: bool) -> (SessionState, String) {
    use ProbeResult::{Alive, Dead, Failed, Unknown};
    let quarantine = |text: String| (SessionState::Detecting, text);
    let failed = |runtime_failed: bool, process: &str, process_failed: bool| {
        quarantine(format!(
            "probe_failed runtimeFailed={runtime_failed} process={process} processFailed={process_failed}"
        ))
    };
    match (runtime, process) {
        (Alive, Alive) => (SessionState::Working, "alive runtime=alive process=alive".into()),
        (Alive, Unknown) => (SessionState::Working, "alive runtime=alive process=indeterminate".into()),
        (Alive, Dead) => quarantine(format!("disagree runtime=alive process=dead recentActivity={recent}")),
        (Alive | Dead, Failed) => failed(false, "indeterminate", true),
        (Dead, Alive) => quarantine(format!("disagree runtime=down process=alive recentActivity={recent}")),
        (Dead, Dead) if recent => quarantine("disagree runtime=down process=dead recentActivity=true".into()),
        (Dead, Dead) => (SessionState::Terminated, "dead runtime=down process=dead recentActivity=false".into()),
        (Dead, Unknown) if recent => {
            quarantine("disagree runtime=down process=indeterminate recentActivity=true".into())
        }
        (Dead, Unknown) => quarantine("runtime_lost runtime=down process=indeterminate recentActivity=false".into()),
        (Failed | Unknown, Alive) => failed(true, "alive", false),
        (Failed | Unknown, Dead) => failed(true, "dead", false),
        (Failed | Unknown, Failed) => failed(true, "indeterminate", true),
        (Failed | Unknown, Unknown) => failed(true, "indeterminate", false),
    }
}

#[test]
fn the_whole_truth_table() {
    let (mut seen, mut deaths) = (0, 0);
    for runtime in WAYS {
        for process in WAYS {
            for recent in [false, true] {
                let decision = decide(runtime, process, recent, None, NOW);
                let (state, evidence) = expected(runtime, process, recent);
                assert_eq!((decision.state, decision.evidence.as_str()), (state, evidence.as_str()));
                let is_dead = state == SessionState::Terminated;
                assert_eq!(decision.is_alive, !is_dead);
                let reason = if is_dead { TerminationReason::RuntimeLost } else { TerminationReason::None };
                assert_eq!(decision.termination_reason, reason);
                let memory = Detecting { attempts: 1, started_at: NOW, evidence_hash: hash_evidence(&evidence) };
                assert_eq!(decision.detecting, (state == SessionState::Detecting).then_some(memory));
                seen += 1;
                deaths += i32::from(is_dead);
            }
        }
    }
    assert_eq!((seen, deaths), (32, 1));
}

#[test]
fn a_kill_comes_before_everything() {
    let mut input = ProbeInput::of(ProbeResult::Failed, ProbeResult::Alive, true, None, NOW);
    input.kill_requested = true;
    let by_hand = resolve(&input, Limits::default());
    assert_eq!(by_hand.termination_reason, TerminationReason::ManuallyKilled);
    assert_eq!((by_hand.state, by_hand.is_alive), (SessionState::Terminated, false));
    assert_eq!(by_hand.evidence, "manual kill requested");
    input.kill_reason = TerminationReason::AutoCleanup;
    assert_eq!(resolve(&input, Limits::default()).termination_reason, TerminationReason::AutoCleanup);
}

#[test]
fn equal_evidence_climbs_to_stuck() {
    let first = decide(ProbeResult::Failed, ProbeResult::Failed, false, None, NOW);
    let second = decide(ProbeResult::Failed, ProbeResult::Failed, false, first.detecting.clone(), NOW + 5000);
    let memory = second.detecting.clone().unwrap();
    assert_eq!((memory.attempts, memory.started_at), (2, NOW));
    let third = decide(ProbeResult::Failed, ProbeResult::Failed, false, second.detecting, NOW + 10_000);
    assert_eq!((third.state, third.detecting, third.is_alive), (SessionState::Stuck, None, true));
}

#[test]
fn other_evidence_starts_again_but_the_clock_runs_on() {
    let mut prior = None;
    for tick in 0.. {
        let process = if tick % 2 == 0 { ProbeResult::Failed } else { ProbeResult::Alive };
        let now = NOW + tick * 10_000;
        let decision = decide(ProbeResult::Failed, process, false, prior, now);
        let is_over = now >= NOW + DETECTING_MAX_DURATION_MS;
        assert_eq!(decision.state, if is_over { SessionState::Stuck } else { SessionState::Detecting }, "tick {tick}");
        if is_over {
            assert_eq!(now, NOW + DETECTING_MAX_DURATION_MS);
            break;
        }
        let memory = decision.detecting.clone().unwrap();
        assert_eq!((memory.attempts, memory.started_at), (1, NOW));
        prior = decision.detecting;
    }
}

#[test]
fn what_counts_as_recent() {
    let of = |state, at: Option<Millis>| {
        is_recent(
            &Activity { state, last_activity_at: at, source: ActivitySource::Hook },
            NOW,
            RECENT_ACTIVITY_WINDOW_MS,
        )
    };
    assert!(!of(ActivityState::Exited, Some(NOW)));
    for sticky in [ActivityState::WaitingInput, ActivityState::Blocked] {
        assert!(of(sticky, None) && of(sticky, Some(NOW - 10_000_000)));
    }
    for plain in [ActivityState::Active, ActivityState::Ready, ActivityState::Idle] {
        assert!(!of(plain, None));
        assert!(of(plain, Some(NOW - 60_000)) && !of(plain, Some(NOW - 60_001)));
        assert!(of(plain, Some(NOW + 5_000_000)));
    }
}

fn prior() -> impl Strategy<Value = Option<Detecting>> {
    let hashes = prop_oneof![
        Just(hash_evidence("disagree runtime=alive process=dead recentActivity=true")),
        Just(hash_evidence("probe_failed runtimeFailed=true process=alive processFailed=false")),
    ];
    prop::option::of((0..i64::MAX, any::<i64>(), hashes).prop_map(|(attempts, started_at, evidence_hash)| Detecting {
        attempts,
        started_at,
        evidence_hash,
    }))
}

proptest! {
    /// Death needs both probes to say so, and nothing to speak against it; memory is kept in quarantine only.
    #[test]
    fn one_failed_probe_is_never_death(
        runtime in 0..4usize, process in 0..4usize, recent: bool, prior in prior(), now: i64,
    ) {
        let decision = decide(WAYS[runtime], WAYS[process], recent, prior.clone(), now);
        let both_dead = WAYS[runtime] == ProbeResult::Dead && WAYS[process] == ProbeResult::Dead;
        prop_assert_eq!(decision.state == SessionState::Terminated, both_dead && !recent);
        prop_assert_eq!(decision.is_alive, decision.state != SessionState::Terminated);
        prop_assert_eq!(decision.detecting.is_some(), decision.state == SessionState::Detecting);
        if let Some(memory) = decision.detecting {
            prop_assert_eq!(memory.started_at, prior.map_or(now, |prior| prior.started_at));
            prop_assert!(memory.attempts < DETECTING_MAX_ATTEMPTS);
        }
    }
}
