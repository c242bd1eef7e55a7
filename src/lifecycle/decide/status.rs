//! What a person is shown of a session: derived whenever it is read, never stored.

use crate::lifecycle::model::{Lifecycle, PrFacts};
use crate::lifecycle::words::{CiState, Mergeability, ReviewDecision, SessionState, SessionStatus, TerminationReason};

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
