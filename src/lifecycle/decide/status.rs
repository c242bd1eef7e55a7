//! What a person is shown of a session: derived whenever it is read, never stored.

use crate::lifecycle::model::{Lifecycle, Millis, PrFacts};
use crate::lifecycle::words::{CiState, Mergeability, ReviewDecision, SessionState, SessionStatus, TerminationReason};

/// For how long an agent may be silent after the start of its runtime: 90 s.
pub const NO_SIGNAL_AFTER_MS: Millis = 90_000;

/// What tells whether an agent has been silent since the start of its runtime for too long.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    /// When the runtime came up; `None` = it has not.
    pub launched_at: Option<Millis>,
    /// The time.
    pub now: Millis,
    /// How long it may be silent.
    pub after_ms: Millis,
}

/// As [`derive_status`], but calls an agent that was never heard since its start silent, where it would say that all is well. A start
/// resets what was heard, so that anything heard counts, whatever its time: clocks that are set back make nobody silent.
#[must_use]
pub fn derive_status_at(lifecycle: &Lifecycle, pr: &PrFacts, silence: Silence) -> SessionStatus {
    let status = derive_status(lifecycle, pr);
    let looks_well = matches!(status, SessionStatus::Spawning | SessionStatus::Working | SessionStatus::Idle);
    let is_unheard = lifecycle.is_alive && lifecycle.activity.last_activity_at.is_none();
    match silence.launched_at {
        Some(at) if looks_well && is_unheard && silence.now.saturating_sub(at) >= silence.after_ms => {
            SessionStatus::NoSignal
        }
        _ => status,
    }
}

/// Derives the status of a session from its own state, its end, and the pull request that counts; in this order.
#[must_use]
pub fn derive_status(lifecycle: &Lifecycle, pr: &PrFacts) -> SessionStatus {
    match lifecycle.state {
        SessionState::Done => SessionStatus::Done,
        SessionState::NeedsInput => SessionStatus::NeedsInput,
        SessionState::Stuck => SessionStatus::Stuck,
        SessionState::Detecting => SessionStatus::Detecting,
        SessionState::NotStarted => SessionStatus::Spawning,
        SessionState::Terminated => of_end(lifecycle.termination_reason),
        SessionState::Idle | SessionState::Working if pr.exists && pr.merged => SessionStatus::Merged,
        SessionState::Idle | SessionState::Working if pr.is_open() => of_open(pr),
        SessionState::Idle => SessionStatus::Idle,
        SessionState::Working => SessionStatus::Working,
    }
}

fn of_end(reason: TerminationReason) -> SessionStatus {
    match reason {
        TerminationReason::ManuallyKilled | TerminationReason::RuntimeLost | TerminationReason::AgentProcessExited => {
            SessionStatus::Killed
        }
        TerminationReason::AutoCleanup | TerminationReason::PrMerged => SessionStatus::Cleanup,
        TerminationReason::ErrorInProcess | TerminationReason::ProbeFailure => SessionStatus::Errored,
        TerminationReason::None => SessionStatus::Terminated,
    }
}

/// What hinders most comes first.
fn of_open(pr: &PrFacts) -> SessionStatus {
    if pr.ci == CiState::Failing {
        SessionStatus::CiFailed
    } else if pr.draft {
        SessionStatus::Draft
    } else if pr.review == ReviewDecision::ChangesRequested || pr.review_comments {
        SessionStatus::ChangesRequested
    } else if pr.mergeability == Mergeability::Mergeable {
        SessionStatus::Mergeable
    } else if pr.review == ReviewDecision::Approved {
        SessionStatus::Approved
    } else if pr.review == ReviewDecision::ReviewRequired {
        SessionStatus::ReviewPending
    } else {
        SessionStatus::PrOpen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::decide::test_support::{closed, lifecycle, open};

    #[test]
    fn every_row_of_the_ladder() {
        use SessionState as S;
        use TerminationReason as T;
        let failing = PrFacts { ci: CiState::Failing, ..open() };
        for (state, status) in [
            (S::Done, SessionStatus::Done),
            (S::NeedsInput, SessionStatus::NeedsInput),
            (S::Stuck, SessionStatus::Stuck),
            (S::Detecting, SessionStatus::Detecting),
            (S::NotStarted, SessionStatus::Spawning),
        ] {
            for pr in [PrFacts::default(), failing.clone(), PrFacts { merged: true, ..open() }] {
                assert_eq!(derive_status(&lifecycle(state), &pr), status);
            }
        }
        for (reason, status) in [
            (T::ManuallyKilled, SessionStatus::Killed),
            (T::RuntimeLost, SessionStatus::Killed),
            (T::AgentProcessExited, SessionStatus::Killed),
            (T::AutoCleanup, SessionStatus::Cleanup),
            (T::PrMerged, SessionStatus::Cleanup),
            (T::ErrorInProcess, SessionStatus::Errored),
            (T::ProbeFailure, SessionStatus::Errored),
            (T::None, SessionStatus::Terminated),
        ] {
            let ended = Lifecycle { termination_reason: reason, ..lifecycle(S::Terminated) };
            assert_eq!(derive_status(&ended, &failing), status);
        }
        for (state, bare) in [(S::Idle, SessionStatus::Idle), (S::Working, SessionStatus::Working)] {
            let of = |pr: &PrFacts| derive_status(&lifecycle(state), pr);
            assert_eq!(of(&PrFacts::default()), bare);
            assert_eq!(of(&PrFacts { ci: CiState::Failing, ..closed() }), bare);
            // Facts of nothing say nothing.
            assert_eq!(of(&PrFacts { exists: false, merged: true, ..failing.clone() }), bare);
            assert_eq!(of(&PrFacts { merged: true, ..failing.clone() }), SessionStatus::Merged);
        }
    }

    #[test]
    fn only_who_looks_well_and_was_never_heard_is_silent() {
        use SessionState as S;
        let at = |lifecycle: &Lifecycle, pr: &PrFacts, launched_at, now| {
            derive_status_at(lifecycle, pr, Silence { launched_at, now, after_ms: NO_SIGNAL_AFTER_MS })
        };
        let none = PrFacts::default();
        for (state, otherwise) in [
            (S::NotStarted, SessionStatus::Spawning),
            (S::Working, SessionStatus::Working),
            (S::Idle, SessionStatus::Idle),
        ] {
            let mut unheard = Lifecycle { is_alive: true, ..lifecycle(state) };
            unheard.activity.last_activity_at = None;
            assert_eq!(at(&unheard, &none, Some(1000), 90_999), otherwise);
            assert_eq!(at(&unheard, &none, Some(1000), 91_000), SessionStatus::NoSignal);
            assert_eq!(at(&unheard, &none, Some(1000), 0), otherwise, "a clock that was set back");
            assert_eq!(at(&unheard, &none, Some(Millis::MAX), Millis::MIN), otherwise);
            assert_eq!(at(&unheard, &none, None, 91_000), otherwise, "not up yet");
            assert_eq!(at(&Lifecycle { is_alive: false, ..unheard.clone() }, &none, Some(1000), 91_000), otherwise);
            let mut heard = unheard.clone();
            heard.activity.last_activity_at = Some(500);
            assert_eq!(at(&heard, &none, Some(1000), Millis::MAX), otherwise, "heard before the clock was set back");
            if state != S::NotStarted {
                assert_eq!(at(&unheard, &open(), Some(1000), 91_000), SessionStatus::PrOpen);
            }
        }
        for state in [S::NeedsInput, S::Stuck, S::Detecting, S::Done, S::Terminated] {
            let mut unheard = Lifecycle { is_alive: true, ..lifecycle(state) };
            unheard.activity.last_activity_at = None;
            assert_eq!(at(&unheard, &none, Some(0), Millis::MAX), derive_status(&unheard, &none));
        }
    }

    #[test]
    fn what_hinders_more_wins_over_all_below_it() {
        // Each step adds what hinders more, and keeps everything before.
        let mut pr = open();
        let mut expect = |change: &dyn Fn(&mut PrFacts), status| {
            change(&mut pr);
            assert_eq!(derive_status(&lifecycle(SessionState::Idle), &pr), status);
        };
        expect(&|_| (), SessionStatus::PrOpen);
        expect(&|pr| pr.mergeability = Mergeability::Conflicting, SessionStatus::PrOpen);
        expect(&|pr| pr.review = ReviewDecision::ReviewRequired, SessionStatus::ReviewPending);
        expect(&|pr| pr.review = ReviewDecision::Approved, SessionStatus::Approved);
        expect(&|pr| pr.mergeability = Mergeability::Mergeable, SessionStatus::Mergeable);
        expect(&|pr| pr.review_comments = true, SessionStatus::ChangesRequested);
        expect(&|pr| pr.draft = true, SessionStatus::Draft);
        expect(&|pr| pr.ci = CiState::Failing, SessionStatus::CiFailed);
        let asked =
            PrFacts { review: ReviewDecision::ChangesRequested, mergeability: Mergeability::Mergeable, ..open() };
        assert_eq!(derive_status(&lifecycle(SessionState::Working), &asked), SessionStatus::ChangesRequested);
    }
}
