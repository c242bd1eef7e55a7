use proptest::prelude::*;

use super::*;
use crate::lifecycle::decide::reaction::reaction_for;
use crate::lifecycle::model::{Activity, Lifecycle};
use crate::lifecycle::words::{CiState, SessionState, TerminationReason};

/// An open pull request `<head>` that goes to `base`.
fn pr(head: &str, base: &str) -> Branched {
    let facts = PrFacts { exists: true, url: head.to_owned(), ..PrFacts::default() };
    Branched { facts, head: head.to_owned(), base: base.to_owned() }
}

fn stacked(prs: &[(&str, &str)]) -> Vec<String> {
    let open = prs.iter().map(|(head, base)| pr(head, base)).collect();
    let counted = Counted::of(SeveralPrs::Worst, open).unwrap();
    counted.all.into_iter().filter(|pr| pr.stacked).map(|pr| pr.url).collect()
}

#[test]
fn what_goes_to_the_branch_of_another_is_stacked() {
    assert_eq!(stacked(&[("a", "main"), ("b", "a"), ("c", "b"), ("d", "main"), ("e", "")]), ["b", "c"]);
    // Nothing is known of the parent, or it is not open.
    assert!(stacked(&[("b", "a")]).is_empty());
    assert!(stacked(&[("", ""), ("", ""), ("", "main")]).is_empty());
}

#[test]
fn a_circle_waits_for_nobody_but_what_stands_on_it_does() {
    assert!(stacked(&[("a", "b"), ("b", "a")]).is_empty());
    assert!(stacked(&[("a", "b"), ("b", "c"), ("c", "a")]).is_empty());
    assert_eq!(stacked(&[("a", "b"), ("b", "a"), ("c", "a")]), ["c"]);
    // One of a fork that is called as the branch that it goes to.
    assert!(stacked(&[("main", "main"), ("a", "main")]).is_empty());
    // Two of the same branch, to two others.
    assert_eq!(stacked(&[("a", "main"), ("a", "release"), ("b", "a")]), ["b"]);
}

fn with(url: &str, change: impl FnOnce(&mut PrFacts)) -> Branched {
    let mut made = pr(url, "main");
    change(&mut made.facts);
    made
}

#[test]
fn the_worst_counts_and_of_equals_the_newest() {
    let ladder = [
        with("failing", |pr| pr.ci = CiState::Failing),
        with("asked", |pr| pr.review = ReviewDecision::ChangesRequested),
        with("conflicting", |pr| pr.mergeability = Mergeability::Conflicting),
        with("draft", |pr| pr.draft = true),
        with("open", |_| ()),
        with("reviewed", |pr| pr.review = ReviewDecision::ReviewRequired),
        with("ready draft", |pr| (pr.draft, pr.review) = (true, ReviewDecision::Approved)),
        with("approved", |pr| pr.review = ReviewDecision::Approved),
        with("mergeable", |pr| pr.mergeability = Mergeability::Mergeable),
    ];
    for at in 0..ladder.len() {
        let best_first: Vec<Branched> = ladder[at..].iter().rev().cloned().collect();
        let counted = Counted::of(SeveralPrs::Worst, best_first.clone()).unwrap();
        assert_eq!((counted.first.url, counted.all.len()), (ladder[at].facts.url.clone(), ladder.len() - at));
        let newest = Counted::of(SeveralPrs::Newest, best_first).unwrap();
        assert_eq!((newest.first.url.as_str(), newest.all.len()), ("mergeable", 1));
    }
    let twins = ["new", "old"].map(|url| with(url, |pr| pr.ci = CiState::Failing));
    assert_eq!(Counted::of(SeveralPrs::Worst, twins.to_vec()).unwrap().first.url, "new");
    // What waits for another one counts only if there is something to do about it.
    let parent = with("parent", |pr| pr.mergeability = Mergeability::Mergeable);
    let mut child = with("child", |pr| pr.mergeability = Mergeability::Conflicting);
    child.base = "parent".into();
    let first =
        |child: &Branched| Counted::of(SeveralPrs::Worst, vec![child.clone(), parent.clone()]).unwrap().first.url;
    assert_eq!(first(&child), "parent");
    child.facts.ci = CiState::Failing;
    assert_eq!(first(&child), "child");
    assert_eq!(Counted::of(SeveralPrs::Worst, Vec::new()), None);
}

proptest! {
    /// Which of two equally bad ones was written last changes nothing about what is to be done.
    #[test]
    fn equal_ranks_call_for_equal_reactions(
        a in facts(), b in facts(), state in prop::sample::select(vec![SessionState::Working, SessionState::Idle]),
    ) {
        let lifecycle = Lifecycle {
            state,
            termination_reason: TerminationReason::None,
            is_alive: true,
            harness: String::new(),
            activity: Activity::default(),
            detecting: None,
        };
        if rank(&a) == rank(&b) && rank(&a) != 9 {
            prop_assert_eq!(reaction_for(&lifecycle, &a), reaction_for(&lifecycle, &b));
        }
    }
}

fn facts() -> impl Strategy<Value = PrFacts> {
    fn any_of<T: crate::lifecycle::words::Word + std::fmt::Debug>() -> impl Strategy<Value = T> {
        (0..T::ALL.len()).prop_map(|at| T::ALL[at].0)
    }
    let words = (any_of::<CiState>(), any_of::<ReviewDecision>(), any_of::<Mergeability>());
    (words, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |((ci, review, mergeability), draft, review_comments, stacked)| PrFacts {
            exists: true,
            draft,
            ci,
            review,
            mergeability,
            review_comments,
            stacked,
            ..PrFacts::default()
        },
    )
}
