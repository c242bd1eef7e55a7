use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::lifecycle::check::CommentInput;
use crate::lifecycle::decide::reaction::ESCALATED_TYPE;
use crate::lifecycle::decide::several::Branched;
use crate::lifecycle::model::{Activity, Lifecycle, Metadata, PrCheck};
use crate::lifecycle::words::{
    CheckStatus, CiState, Mergeability, ReviewDecision, SessionKind, SessionState, TerminationReason, Word as _,
};

fn session(state: SessionState) -> SessionRecord {
    SessionRecord {
        id: "mer-1".into(),
        project_id: "mer".into(),
        num: 1,
        issue_id: String::new(),
        kind: SessionKind::Worker,
        lifecycle: Lifecycle {
            state,
            termination_reason: TerminationReason::None,
            is_alive: true,
            harness: String::new(),
            activity: Activity::default(),
            detecting: None,
        },
        metadata: Metadata::default(),
        revision: 0,
        created_at: 0,
        updated_at: 0,
        display_name: String::new(),
        pinned: false,
        launch_id: String::new(),
        launched_at: None,
        runtime_freed: false,
        stopped: false,
    }
}

/// A state of the world, and what is seen of it.
#[derive(Debug, Clone)]
struct Step {
    state: SessionState,
    facts: PrFacts,
    commit: Option<String>,
    comments: Vec<String>,
    is_poll: bool,
    is_down: bool,
    wait: Millis,
}

fn any_of<T: crate::lifecycle::words::Word + std::fmt::Debug>() -> impl Strategy<Value = T> {
    (0..T::ALL.len()).prop_map(|at| T::ALL[at].0)
}

fn step() -> impl Strategy<Value = Step> {
    let live = prop::sample::select(vec![
        SessionState::NotStarted,
        SessionState::Working,
        SessionState::Idle,
        SessionState::NeedsInput,
        SessionState::Stuck,
        SessionState::Detecting,
    ]);
    let pr = (0..4u8, any_of::<CiState>(), any_of::<ReviewDecision>(), any_of::<Mergeability>());
    let seen = (prop::option::of("c[1-4]"), prop::collection::vec("[ab]", 0..2));
    (live, pr, seen, any::<bool>(), any::<bool>(), 0..2_000_000i64).prop_map(
        |(state, (kind, ci, review, mergeability), (commit, comments), is_poll, is_down, wait)| Step {
            state,
            facts: PrFacts {
                exists: kind > 0,
                url: "u".into(),
                closed: kind == 3,
                draft: kind == 2,
                ci,
                review,
                mergeability,
                review_comments: !comments.is_empty(),
                ..PrFacts::default()
            },
            commit,
            comments,
            is_poll,
            is_down,
            wait,
        },
    )
}

proptest! {
    /// Whatever happens: an entry speaks once per stay, feedback once per signature and stay, nobody who waits for a person is
    /// typed at, an escalation is the last word of its stay, and what goes wrong is said again as long as it holds.
    #[test]
    fn every_sequence_keeps_the_promises(steps in prop::collection::vec(step(), 1..25)) {
        let policy = Policy::default();
        let mut memory = Memory::default();
        let mut now = 1_000_000;
        let mut told: HashMap<ReactionKey, Vec<(String, String)>> = HashMap::new();
        for step in steps {
            now += step.wait;
            let session = session(step.state);
            let counted = Counted::one(step.facts.clone());
            let run = Run { session: &session, counted: &counted, policy: &policy, now };
            let checks: Vec<PrCheck> = step.commit.iter().map(|commit| PrCheck {
                pr_url: "u".into(), name: "n".into(), commit_hash: commit.clone(), status: CheckStatus::Failed,
                url: String::new(), log_tail: commit.clone(), created_at: now,
            }).collect();
            let comments: Vec<CommentInput> = step.comments.iter().map(|id| CommentInput {
                comment_id: id.clone(), body: id.clone(), ..CommentInput::default()
            }).collect();
            let feedback = Feedback { url: "u", checks: &checks, comments: &comments };
            run.decide(&mut memory, step.is_poll.then_some(&feedback), &mut |_, _, _| Ok(vec![CheckStatus::Passed])).unwrap();
            // What ended its stay may speak anew.
            told.retain(|key, _| memory.get(*key).is_some());
            let deliveries = hand_out(&mut memory, &session, &step.facts, now);
            let ranks: Vec<_> = deliveries.iter().map(|one| ReactionKey::ALL.iter().position(|(key, _)| *key == one.reaction)).collect();
            prop_assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]), "order of {deliveries:?}");
            for one in &deliveries {
                let is_feedback = matches!(one.reaction, ReactionKey::CiFailed | ReactionKey::ReviewComments);
                if one.to == Audience::Agent {
                    prop_assert!(!matches!(step.state, SessionState::NeedsInput | SessionState::Stuck), "typed at: {one:?}");
                    prop_assert!(!is_feedback || step.facts.is_open());
                }
                if !is_feedback {
                    prop_assert_eq!(reaction_for(&session.lifecycle, &step.facts), Some(one.reaction));
                }
                let before = told.entry(one.reaction).or_default();
                prop_assert!(before.iter().all(|(kind, _)| kind != ESCALATED_TYPE), "spoke after its escalation: {one:?}");
                let signature = memory.get(one.reaction).and_then(|row| row.last_signature.clone()).unwrap_or_default();
                let said = (one.event_type.clone(), signature);
                prop_assert!(before.last() != Some(&said), "said twice: {one:?}");
                // What did not arrive is no longer what was said last.
                before.push(if step.is_down { (String::new(), String::new()) } else { said });
            }
            for row in memory.rows_mut() {
                if deliveries.iter().any(|one| one.reaction == row.reaction) {
                    row.lease_until = None;
                    if !step.is_down {
                        row.pending = Pending::None;
                    }
                }
                let waits = row.pending != Pending::None && !step.is_down;
                let held = matches!(row.reaction, ReactionKey::CiFailed | ReactionKey::ReviewComments)
                    && !takes_feedback(step.state, &step.facts);
                prop_assert!(!waits || held, "left undelivered: {row:?}");
            }
            prop_assert!(memory.rows_mut().filter(|row| row.is_current).count() <= 1);
        }
    }
}

/// A look at one of three pull requests, or a change of the session's state alone.
#[derive(Debug, Clone)]
struct Look {
    state: SessionState,
    at: Option<usize>,
    kind: u8,
    ci: CiState,
    mergeability: Mergeability,
    commit: String,
    comments: Vec<String>,
    base: &'static str,
}

fn look() -> impl Strategy<Value = Look> {
    let state = prop::sample::select(vec![SessionState::Working, SessionState::Idle, SessionState::NeedsInput]);
    let ci = prop::sample::select(vec![CiState::Failing, CiState::Passing]);
    let mergeability = prop::sample::select(vec![Mergeability::Conflicting, Mergeability::Mergeable]);
    let base = prop::sample::select(vec!["main", "h0", "h1", "h2"]);
    let said = ("c[12]", prop::collection::vec("[ab]", 0..2));
    (state, prop::option::weighted(0.8, 0..3usize), 0..4u8, ci, mergeability, said, base).prop_map(
        |(state, at, kind, ci, mergeability, (commit, comments), base)| Look {
            state,
            at,
            kind,
            ci,
            mergeability,
            commit,
            comments,
            base,
        },
    )
}

proptest! {
    /// Where the worst counts: each commit, each set of comments and each conflict of each pull request is told exactly once as long as
    /// it lasts, in whatever order they are looked at.
    #[test]
    fn several_are_told_of_once_each(looks in prop::collection::vec(look(), 1..40)) {
        let policy = Policy { several_prs: SeveralPrs::Worst, review_max_nudges: 1000, ..Policy::default() };
        let mut memory = Memory::default();
        // The last looked at comes first, as the store has them.
        let mut open: Vec<Branched> = Vec::new();
        let mut told: HashMap<(ReactionKey, String), String> = HashMap::new();
        for (now, look) in (1..).zip(looks) {
            let session = session(look.state);
            let url = look.at.map(|at| format!("u{at}")).unwrap_or_default();
            let mut comments = look.comments.clone();
            comments.dedup();
            if let Some(at) = look.at {
                open.retain(|pr| pr.facts.url != url);
                let facts = PrFacts {
                    exists: true,
                    url: url.clone(),
                    draft: look.kind == 1,
                    ci: look.ci,
                    mergeability: look.mergeability,
                    review_comments: !comments.is_empty(),
                    ..PrFacts::default()
                };
                if look.kind > 0 {
                    open.insert(0, Branched { facts, head: format!("h{at}"), base: look.base.into() });
                }
            }
            let counted = Counted::of(SeveralPrs::Worst, open.clone()).unwrap_or_default();
            let run = Run { session: &session, counted: &counted, policy: &policy, now };
            let checks = [PrCheck {
                pr_url: url.clone(), name: "n".into(), commit_hash: look.commit.clone(), status: CheckStatus::Failed,
                url: String::new(), log_tail: String::new(), created_at: now,
            }];
            let inputs: Vec<CommentInput> = comments.iter().map(|id| CommentInput {
                comment_id: id.clone(), ..CommentInput::default()
            }).collect();
            let feedback = Feedback { url: &url, checks: &checks, comments: &inputs };
            run.decide(&mut memory, look.at.map(|_| &feedback), &mut |_, _, _| Ok(vec![CheckStatus::Passed])).unwrap();
            let deliveries = hand_out(&mut memory, &session, &counted.first, now);

            let entry = reaction_for(&session.lifecycle, &counted.first);
            let of = |url: &str| counted.all.iter().find(|pr| pr.url == url);
            told.retain(|(key, url), _| of(url).is_some_and(|pr| match key {
                ReactionKey::CiFailed => has_failing_ci(pr),
                ReactionKey::ReviewComments => has_review_feedback(pr),
                _ => has_conflicts(pr) && entry == Some(ReactionKey::MergeConflicts),
            }));
            let mut expected: Vec<(ReactionKey, Vec<String>)> = Vec::new();
            let mut tell = |key, urls: Vec<String>, said: &str| {
                let news: Vec<String> = urls.into_iter().filter(|url| {
                    told.insert((key, url.clone()), said.to_owned()).as_deref() != Some(said)
                }).collect();
                if !news.is_empty() {
                    expected.push((key, news));
                }
            };
            if let Some(pr) = of(&url).filter(|pr| takes_feedback(look.state, pr)) {
                if has_failing_ci(pr) {
                    tell(ReactionKey::CiFailed, vec![url.clone()], &look.commit);
                }
                if has_review_feedback(pr) {
                    tell(ReactionKey::ReviewComments, vec![url.clone()], &comments.join(","));
                }
            }
            if entry == Some(ReactionKey::MergeConflicts) {
                let urls = counted.all.iter().filter(|pr| has_conflicts(pr)).map(|pr| pr.url.clone()).collect();
                tell(ReactionKey::MergeConflicts, urls, "");
            }
            let heard: Vec<_> = deliveries.iter().filter(|one| {
                matches!(one.reaction, ReactionKey::CiFailed | ReactionKey::ReviewComments | ReactionKey::MergeConflicts)
            }).collect();
            prop_assert_eq!(heard.iter().map(|one| one.reaction).collect::<Vec<_>>(), expected.iter().map(|(key, _)| *key).collect::<Vec<_>>());
            for (one, (_, urls)) in heard.iter().zip(&expected).filter(|_| counted.all.len() > 1) {
                for pr in &counted.all {
                    let names = one.message.contains(&format!("Pull request: {}", pr.url));
                    prop_assert_eq!(names, urls.contains(&pr.url), "{:?}", one);
                }
            }
            for row in memory.rows_mut() {
                (row.lease_until, row.pending) = (None, Pending::None);
            }
        }
    }
}
