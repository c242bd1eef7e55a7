//! What waits to be written, and which of it may be written side by side.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use super::batch::{Job, Later};
use crate::entity::model::{Appended, Done};

/// Takes what became of a job.
pub type Finish = Done<Option<Appended>>;

/// The queue of a log.
#[derive(Default)]
pub struct Queue {
    pub jobs: VecDeque<(Job, Finish)>,
    pub later: Later,
    /// Somebody sees to it that `later` is written.
    pub timed: bool,
    /// Writers that run.
    pub writers: usize,
    /// The entities of the batches that are being written.
    pub busy: HashSet<u64>,
    pub closed: bool,
}

/// Jobs that go out together.
pub struct Batch {
    pub jobs: Vec<Job>,
    pub finishes: Vec<Finish>,
    pub entities: Vec<u64>,
    pub later: Later,
}

impl Queue {
    /// Takes what can be written now: jobs of an entity are written one after the other, in their order.
    pub fn take(&mut self, max_batch: usize) -> Option<Batch> {
        let (mut jobs, mut finishes, mut entities, mut weight) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut waiting = VecDeque::new();
        let mut blocked: HashSet<u64> = HashSet::new();
        while weight < max_batch
            && let Some((job, finish)) = self.jobs.pop_front()
        {
            let touched = job.entities();
            if touched.iter().any(|entity| self.busy.contains(entity) || blocked.contains(entity)) {
                blocked.extend(touched);
                waiting.push_back((job, finish));
                continue;
            }
            weight += job.weight();
            jobs.push(job);
            finishes.push(finish);
            entities.extend(touched);
        }
        waiting.append(&mut self.jobs);
        self.jobs = waiting;
        if jobs.is_empty() {
            return None;
        }
        let later = self.take_later(&mut entities);
        self.busy.extend(&entities);
        Some(Batch { jobs, finishes, entities, later })
    }

    /// Takes what nobody waits for, and adds its entities to `entities`: a change that came to nothing is ended before, or together with,
    /// the beginning of the next one of its entity. Otherwise a crash in between would leave both, to be completed from one write.
    pub fn take_later(&mut self, entities: &mut Vec<u64>) -> Later {
        let mut later = std::mem::take(&mut self.later);
        let (forgotten, waiting): (Vec<_>, Vec<_>) =
            later.forgotten.into_iter().partition(|(entity, _)| !self.busy.contains(entity));
        if !waiting.is_empty() {
            self.later = Later { forgotten: waiting, delivered: Vec::new(), since: Some(Instant::now()) };
        }
        entities.extend(forgotten.iter().map(|(entity, _)| *entity));
        later.forgotten = forgotten;
        later
    }

    /// The writing of these entities has ended.
    pub fn release(&mut self, entities: &[u64]) {
        for entity in entities {
            self.busy.remove(entity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::model::PlainRow;

    fn rows(entities: &[&str]) -> (Job, Finish) {
        let row = |entity: &&str| PlainRow {
            kind: "k".into(),
            entity_id: (*entity).into(),
            field: "f".into(),
            from_value: None,
            to_value: "v".into(),
            index: 0,
            change_id: String::new(),
            masked: false,
        };
        (Job::Rows { rows: entities.iter().map(row).collect() }, Box::new(|_| {}))
    }

    fn names(batch: Option<&Batch>) -> Vec<Vec<&str>> {
        let of = |job: &'_ Job| match job {
            Job::Rows { rows } => rows.iter().map(|row| row.entity_id.clone().leak() as &str).collect(),
            _ => Vec::new(),
        };
        batch.map(|batch| batch.jobs.iter().map(of).collect()).unwrap_or_default()
    }

    fn queue(jobs: &[&[&str]]) -> Queue {
        Queue { jobs: jobs.iter().map(|entities| rows(entities)).collect(), ..Queue::default() }
    }

    #[test]
    fn jobs_of_an_entity_keep_their_order_and_others_overtake() {
        let mut queue = queue(&[&["a"], &["b"], &["a", "c"], &["c"], &["d"]]);
        let first = queue.take(2).unwrap();
        assert_eq!(names(Some(&first)), [["a"], ["b"]]);
        // "c" waits behind the one that waits for "a".
        let second = queue.take(10).unwrap();
        assert_eq!(names(Some(&second)), [["d"]]);
        assert!(queue.take(10).is_none());
        queue.release(&second.entities);
        assert!(queue.take(10).is_none(), "the others are still blocked");
        queue.release(&first.entities);
        assert_eq!(names(queue.take(10).as_ref()), [vec!["a", "c"], vec!["c"]]);
    }

    #[test]
    fn the_end_of_an_intent_goes_with_its_entity_and_stamps_go_with_the_next() {
        let entity = |id| super::super::batch::entity_of("k", id);
        let mut queue = queue(&[&["a"]]);
        let first = queue.take(10).unwrap();
        queue.later.forgotten = vec![(entity("a"), "of a".into()), (entity("b"), "of b".into())];
        queue.later.delivered = vec!["x".into()];
        queue.jobs.push_back(rows(&["c"]));
        let second = queue.take(10).unwrap();
        assert_eq!(second.later.ended(), ["of b"]);
        assert_eq!(second.later.delivered, ["x"]);
        // Nobody may begin a change of it before the end of the last one is written.
        queue.jobs.push_back(rows(&["b"]));
        assert!(queue.take(10).is_none());
        assert!(queue.later.since.is_some(), "it is not forgotten");
        queue.release(&first.entities);
        queue.release(&second.entities);
        let third = queue.take(10).unwrap();
        assert_eq!((names(Some(&third)), third.later.ended()), (vec![vec!["b"]], vec!["of a".to_owned()]));
    }
}
