//! What waits to be written, and which of it may be written side by side.

use std::collections::{HashSet, VecDeque};

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
        self.busy.extend(&entities);
        Some(Batch { jobs, finishes, entities, later: std::mem::take(&mut self.later) })
    }
}
