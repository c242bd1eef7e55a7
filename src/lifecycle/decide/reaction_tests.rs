use proptest::prelude::*;

use super::*;
use crate::lifecycle::decide::test_support::{closed, lifecycle, open};

#[test]
fn the_table_word_by_word() {
    use Audience::{Agent, Human};
    use Priority::{Action, Info, Urgent};
    let table = [
        ("ci-failed", Agent, Action, "CI is failing on your PR. Review the output below and push a fix."),
        ("review-comments", Agent, Action, "A reviewer left feedback on your PR. Address it and push."),
        (
            "merge-conflicts",
            Agent,
            Action,
            "Your PR has merge conflicts. Rebase onto the base branch and resolve them.",
        ),
        ("agent-idle", Agent, Info, "You appear idle. Continue the task or say what is blocking you."),
        ("approved-and-green", Human, Action, "PR is approved and green \u{2014} ready to merge."),
        ("agent-stuck", Human, Urgent, "Agent is stuck and needs attention."),
        ("agent-needs-input", Human, Urgent, "Agent needs input to continue."),
        ("agent-exited", Human, Urgent, "Agent process exited unexpectedly."),
        ("pr-closed", Human, Action, "PR was closed without merging."),
        ("pr-merged", Human, Info, "PR merged \u{2014} work complete."),
    ];
    assert_eq!(table.len(), ReactionKey::ALL.len());
    for (key, to, priority, message) in table {
        let row = reaction(ReactionKey::parse(key).unwrap());
        assert_eq!((row.to, row.priority, row.message), (to, priority, message));
        assert_eq!(row.by_time, matches!(key, "merge-conflicts" | "agent-idle"));
    }
    assert_eq!(event_type(ReactionKey::CiFailed), "reaction.ci-failed");
    assert_eq!(
        escalation(ReactionKey::AgentIdle),
        "Automatic handling of \"agent-idle\" is exhausted \u{2014} needs a human."
    );
    assert_eq!(serde_json::to_string(&(Human, Urgent)).unwrap(), r#"["human","urgent"]"#);
}

#[test]
fn the_first_match_decides() {
    use SessionState as S;
    let none = PrFacts::default();
    let conflicting = PrFacts { mergeability: Mergeability::Conflicting, ..open() };
    let green = PrFacts { mergeability: Mergeability::Mergeable, ..open() };
    let approved = PrFacts { review: ReviewDecision::Approved, ..open() };
    let failing = PrFacts { ci: CiState::Failing, ..conflicting.clone() };
    let asked = PrFacts { review: ReviewDecision::ChangesRequested, ..green.clone() };
    let commented = PrFacts { review_comments: true, ..approved.clone() };
    let merged = PrFacts { merged: true, ..conflicting.clone() };
    let all_at_once = PrFacts { closed: true, ..failing.clone() };
    for (pr, working, idle) in [
        (&none, None, Some(ReactionKey::AgentIdle)),
        (&open(), None, Some(ReactionKey::AgentIdle)),
        (&closed(), Some(ReactionKey::PrClosed), Some(ReactionKey::PrClosed)),
        (&all_at_once, Some(ReactionKey::PrClosed), Some(ReactionKey::PrClosed)),
        (&merged, None, None),
        (&failing, None, None),
        (&asked, None, None),
        (&commented, None, None),
        (&conflicting, Some(ReactionKey::MergeConflicts), Some(ReactionKey::MergeConflicts)),
        (&green, Some(ReactionKey::ApprovedAndGreen), Some(ReactionKey::ApprovedAndGreen)),
        (&approved, Some(ReactionKey::ApprovedAndGreen), Some(ReactionKey::ApprovedAndGreen)),
    ] {
        for state in [S::NotStarted, S::Working, S::Detecting] {
            assert_eq!(reaction_for(&lifecycle(state), pr), working);
        }
        assert_eq!(reaction_for(&lifecycle(S::Idle), pr), idle);
        assert_eq!(reaction_for(&lifecycle(S::Stuck), pr), Some(ReactionKey::AgentStuck));
        assert_eq!(reaction_for(&lifecycle(S::NeedsInput), pr), Some(ReactionKey::AgentNeedsInput));
    }
}

#[test]
fn who_takes_feedback() {
    use SessionState as S;
    for state in [S::NotStarted, S::Working, S::Idle, S::Detecting] {
        assert!(takes_feedback(state, &open()));
        assert!(takes_feedback(state, &PrFacts { draft: true, ..open() }));
        for gone in [PrFacts::default(), closed(), PrFacts { merged: true, ..open() }] {
            assert!(!takes_feedback(state, &gone));
        }
    }
    for state in [S::Stuck, S::NeedsInput, S::Done, S::Terminated] {
        assert!(!takes_feedback(state, &open()));
    }
}

fn facts() -> impl Strategy<Value = PrFacts> {
    fn any_of<T: crate::lifecycle::words::Word + std::fmt::Debug>() -> impl Strategy<Value = T> {
        (0..T::ALL.len()).prop_map(|at| T::ALL[at].0)
    }
    (any::<bool>(), 0..4, any_of(), any_of(), any_of(), any::<bool>()).prop_map(
        |(exists, state, ci, review, mergeability, review_comments)| PrFacts {
            exists,
            draft: state == 1,
            merged: state == 2,
            closed: state == 3,
            ci,
            review,
            mergeability,
            review_comments,
            ..PrFacts::default()
        },
    )
}

proptest! {
    /// An entry reaction never speaks where feedback does, and facts of no pull request say nothing.
    #[test]
    fn entry_and_feedback_never_meet(pr in facts(), at in 0..SessionState::ALL.len()) {
        let state = SessionState::ALL[at].0;
        let entry = reaction_for(&lifecycle(state), &pr);
        if takes_feedback(state, &pr) && (has_failing_ci(&pr) || has_review_feedback(&pr)) {
            prop_assert_eq!(entry, None);
        }
        prop_assert!(!entry.is_some_and(is_terminal_notice));
        if !pr.exists {
            prop_assert_eq!(entry, reaction_for(&lifecycle(state), &PrFacts::default()));
        }
    }
}
