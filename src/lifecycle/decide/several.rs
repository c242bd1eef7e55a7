//! Several pull requests of one session: which of them counts, and which wait for another one.

use std::collections::HashSet;

use super::reaction::{has_conflicts, has_failing_ci, has_review_feedback, is_ready};
use crate::lifecycle::model::{PrFacts, PrRow};
use crate::lifecycle::words::{Mergeability, ReviewDecision, SeveralPrs};

/// A pull request, and where it comes from and goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branched {
    /// What is known of it.
    pub facts: PrFacts,
    /// Its branch; empty = unknown.
    pub head: String,
    /// The branch that it goes to; empty = unknown.
    pub base: String,
}

impl Branched {
    /// What counts of `pr`.
    #[must_use]
    pub fn of(pr: PrRow, review_comments: bool) -> Self {
        Self { facts: PrFacts::of(&pr, review_comments), head: pr.head_branch, base: pr.base_branch }
    }
}

/// The pull requests of a session, as far as they count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// The one that its status and its reactions follow.
    pub first: PrFacts,
    /// All whose checks and reviews are told to the agent, `first` among them.
    pub all: Vec<PrFacts>,
}

impl Counted {
    /// One, that stands for all of them.
    #[must_use]
    pub fn one(first: PrFacts) -> Self {
        Self { all: vec![first.clone()], first }
    }

    /// Those of `open`, newest first, of which there is at least one; `None` of none.
    #[must_use]
    pub fn of(several: SeveralPrs, mut open: Vec<Branched>) -> Option<Self> {
        mark_stacked(&mut open);
        let all: Vec<PrFacts> = open.into_iter().map(|pr| pr.facts).collect();
        match several {
            SeveralPrs::Newest => all.into_iter().next().map(Self::one),
            // Of those that are equally bad the first: the newest.
            SeveralPrs::Worst => all.iter().min_by_key(|pr| rank(pr)).cloned().map(|first| Self { first, all }),
        }
    }
}

/// Marks those that go to the branch of another one: that one is to be merged before them.
fn mark_stacked(open: &mut [Branched]) {
    let stacked: Vec<bool> = (0..open.len()).map(|at| is_stacked(open, at)).collect();
    for (pr, stacked) in open.iter_mut().zip(stacked) {
        pr.facts.stacked = stacked;
    }
}

/// Of a circle none is stacked: no merge would begin it, and each would wait for the others for ever.
fn is_stacked(open: &[Branched], at: usize) -> bool {
    let Some(pr) = open.get(at).filter(|pr| !pr.base.is_empty()) else { return false };
    // One that goes to a branch of its own name, as from a fork, holds nobody up.
    let others = |branch: &str| {
        let branch = branch.to_owned();
        let found = open.iter().enumerate();
        found.filter(move |(other, parent)| *other != at && parent.head == branch && parent.head != parent.base)
    };
    let mut seen: HashSet<&str> = HashSet::new();
    let mut next = vec![pr.base.as_str()];
    while let Some(branch) = next.pop() {
        if branch == pr.head {
            return false;
        }
        if !branch.is_empty() && seen.insert(branch) {
            next.extend(others(branch).map(|(_, parent)| parent.base.as_str()));
        }
    }
    others(&pr.base).next().is_some()
}

/// How far from being merged an open one is: 0 is worst. Two of the same rank call for the same reaction, so that it does not matter
/// which of them was written last.
fn rank(pr: &PrFacts) -> u8 {
    if has_failing_ci(pr) {
        0
    } else if has_review_feedback(pr) {
        1
    } else if has_conflicts(pr) {
        2
    } else if pr.stacked {
        // It waits for another one, which counts instead.
        9
    } else {
        match (is_ready(pr), pr.draft) {
            (false, true) => 3,
            (false, false) if pr.review != ReviewDecision::ReviewRequired => 4,
            (false, false) => 5,
            (true, true) => 6,
            (true, false) if pr.mergeability != Mergeability::Mergeable => 7,
            (true, false) => 8,
        }
    }
}

#[cfg(test)]
#[path = "several_tests.rs"]
mod tests;
