//! The writers of a log: what waits goes out together, and is tried again while the server is away.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::batch::{self, Job, Later};
use super::layout::Layout;
use super::look;
use super::queue::{Batch, Finish};
use super::swift::{self, Swift};
use super::{Inner, RETRY, closed, lock};
use crate::entity::model::Appended;
use crate::error::{Code, Result};
use crate::postgres::is_transient;

/// How long writes that nobody waits for may wait for company.
const LATER: Duration = Duration::from_millis(20);
/// Most batches that are written at a time.
const WRITERS: usize = 2;
/// So many jobs must wait before another writer begins beside one that runs: batches that are too small cost more than they save.
const COMPANY: usize = 8;

impl Inner {
    /// Queues a job; `true` if the caller must see to a writer.
    pub(super) fn enqueue(&self, job: Job, finish: Finish) -> bool {
        let mut queue = lock(&self.queue);
        if queue.closed {
            drop(queue);
            finish(Err(closed()));
            return false;
        }
        queue.jobs.push_back((job, finish));
        let wanted = queue.writers == 0 || (queue.writers < WRITERS && queue.jobs.len() >= COMPANY);
        queue.writers += usize::from(wanted);
        wanted
    }

    pub(super) fn push(self: &Arc<Self>, job: Job, finish: Finish) {
        if self.enqueue(job, finish) {
            let inner = Arc::clone(self);
            self.postgres.spawn(async move { inner.write().await });
        }
    }

    pub(super) fn push_later(self: &Arc<Self>, add: impl FnOnce(&mut Later)) {
        {
            let mut queue = lock(&self.queue);
            if queue.closed {
                return;
            }
            add(&mut queue.later);
            queue.later.since.get_or_insert_with(Instant::now);
            if std::mem::replace(&mut queue.timed, true) {
                return;
            }
        }
        let inner = Arc::clone(self);
        self.postgres.spawn(async move { inner.write_later().await });
    }

    /// Writes what nobody waits for when no batch took it along for [`LATER`].
    async fn write_later(self: &Arc<Self>) {
        loop {
            let due = {
                let mut queue = lock(&self.queue);
                let Some(since) = queue.later.since else {
                    queue.timed = false;
                    return;
                };
                LATER.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
            };
            match due {
                Some(left) => tokio::time::sleep(left).await,
                None => {
                    let mut entities = Vec::new();
                    let later = {
                        let mut queue = lock(&self.queue);
                        let later = queue.take_later(&mut entities);
                        queue.busy.extend(&entities);
                        queue.writers += 1;
                        later
                    };
                    self.write_kept(&later).await;
                    lock(&self.queue).release(&entities);
                    // A writer like the others now: there may be jobs that waited for these entities.
                    self.write().await;
                    self.empty_in_time(&later).await;
                }
            }
        }
    }

    /// A writer: everything that waits goes out together, until nothing waits.
    pub(super) async fn write(self: &Arc<Self>) {
        loop {
            let Some(batch) = ({
                let mut queue = lock(&self.queue);
                let batch = queue.take(self.options.max_batch);
                // What is left belongs to entities of other writers, who will look again.
                queue.writers -= usize::from(batch.is_none());
                batch
            }) else {
                return;
            };
            self.write_batch(batch).await;
        }
    }

    async fn write_batch(self: &Arc<Self>, batch: Batch) {
        // What jobs answer to is not Sync; it waits apart from them.
        let finishes = Mutex::new(batch.finishes);
        let jobs: Vec<&Job> = batch.jobs.iter().collect();
        let outcomes = self.outcomes(&jobs, &batch.later).await;
        lock(&self.queue).release(&batch.entities);
        let finishes = finishes.into_inner().unwrap_or_else(PoisonError::into_inner);
        for ((job, finish), outcome) in batch.jobs.iter().zip(finishes).zip(outcomes) {
            finish(outcome.map(|result| self.counted(job, result)));
        }
        self.empty_in_time(&batch.later).await;
    }

    /// Once a minute, where there are deliveries.
    async fn empty_in_time(&self, later: &Later) {
        if !later.delivered.is_empty() && self.shared.is_time_to_empty() {
            // What fails now is done the next time.
            let _ = self.empty().await;
        }
    }

    async fn empty(&self) -> Result<()> {
        batch::empty(&self.postgres.client().await?, &self.layout()?).await
    }

    /// What becomes of each job.
    async fn outcomes(self: &Arc<Self>, jobs: &[&Job], later: &Later) -> Vec<Result<Option<Appended>>> {
        let error = match self.commit(jobs, later, true).await {
            Ok(results) => return self.left_out(jobs, results).await,
            Err(error) => error,
        };
        let away = is_transient(&error);
        if !later.is_empty() && (away || jobs.len() == 1) {
            self.keep_later(later);
        }
        if jobs.len() < 2 || away || error.code() == Code::Closed {
            return jobs.iter().map(|_| Err(error.clone())).collect();
        }
        // One of them is bad: each on its own, so that only that one fails.
        self.write_kept(later).await;
        self.one_by_one(jobs).await
    }

    /// Writes what nobody waits for, or keeps it while the server is away.
    async fn write_kept(self: &Arc<Self>, later: &Later) {
        if !later.is_empty()
            && let Err(error) = self.commit(&[], later, false).await
            && is_transient(&error)
        {
            self.keep_later(later);
        }
    }

    /// Puts writes that nobody waits for back, because the server was away: an event that was taken would be sent again.
    fn keep_later(self: &Arc<Self>, later: &Later) {
        self.push_later(|queued| {
            queued.forgotten.extend_from_slice(&later.forgotten);
            queued.delivered.extend_from_slice(&later.delivered);
        });
    }

    async fn one_by_one(&self, jobs: &[&Job]) -> Vec<Result<Option<Appended>>> {
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            let one = self.commit(std::slice::from_ref(job), &Later::default(), false).await;
            outcomes.push(one.map(|mut results| results.pop().flatten().flatten()));
        }
        outcomes
    }

    /// Does what a batch left out, the long way.
    async fn left_out(&self, jobs: &[&Job], results: Swift) -> Vec<Result<Option<Appended>>> {
        let left: Vec<&Job> =
            jobs.iter().zip(&results).filter(|(_, result)| result.is_none()).map(|(job, _)| *job).collect();
        let mut rest = if left.is_empty() {
            Vec::new()
        } else {
            match self.commit(&left, &Later::default(), false).await {
                Ok(done) => done.into_iter().map(|result| Ok(result.flatten())).collect(),
                Err(error) if left.len() < 2 || is_transient(&error) => {
                    left.iter().map(|_| Err(error.clone())).collect()
                }
                Err(_) => self.one_by_one(&left).await,
            }
        }
        .into_iter();
        results.into_iter().filter_map(|result| result.map(Ok).or_else(|| rest.next())).collect()
    }

    /// Commits a batch, again and again while the server is away: doing it twice does no harm. With `swift` it may leave jobs out.
    pub(super) async fn commit(&self, jobs: &[&Job], later: &Later, swift: bool) -> Result<Swift> {
        let layout = self.layout()?;
        let started = Instant::now();
        let mut wait = Duration::from_millis(20);
        let mut again = jobs.iter().any(|job| matches!(job, Job::Append { outcome, .. } if outcome.again));
        let mut swift = swift && swift::suits(&layout, jobs);
        loop {
            let outcome = self.attempt(&layout, jobs, later, again, swift).await;
            let Err(error) = outcome else {
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                return outcome;
            };
            // Somebody else took the next position of a field: ask again where the history ends.
            let raced = error.fields().get("constraint").is_some_and(|name| name == "entity_transitions_ordinal_idx");
            if !(raced || is_transient(&error)) || started.elapsed() > RETRY {
                return Err(error);
            }
            again |= !raced;
            // Perhaps rows of this very batch are in each other's way, which only the long way sees.
            swift &= !raced;
            if !raced {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(1));
            }
        }
    }

    async fn attempt(&self, layout: &Layout, jobs: &[&Job], later: &Later, again: bool, swift: bool) -> Result<Swift> {
        if self.keeps_events() && !jobs.is_empty() {
            self.presence.ensure().await?;
        }
        let client = self.postgres.client().await?;
        let mut results = if swift && !again {
            swift::commit(&self.shared, &client, layout, jobs, later).await?
        } else {
            let results = batch::commit(&self.shared, &client, layout, jobs, later, again).await?;
            results.into_iter().map(Some).collect()
        };
        for (job, result) in jobs.iter().zip(&mut results) {
            if let (Job::Append { staged, .. }, Some(Some(result))) = (job, result)
                && !result.gaps.is_empty()
                // It is committed; a gap too many is told rather than the change failed.
                && let Ok(gaps) = look::true_gaps(&client, layout, staged, &result.gaps).await
            {
                result.gaps = gaps;
            }
        }
        Ok(results)
    }

    fn counted(&self, job: &Job, result: Option<Appended>) -> Option<Appended> {
        let counters = &self.counters;
        match (job, result) {
            (Job::Append { staged, outcome, derived: Some(derived) }, Some(result)) => {
                counters.changes.fetch_add(1, Ordering::Relaxed);
                counters.rows.fetch_add(derived.rows.len() as u64, Ordering::Relaxed);
                counters.gaps.fetch_add(u64::from(!result.gaps.is_empty()), Ordering::Relaxed);
                Some(batch::trimmed(result, staged, outcome))
            }
            (Job::Rows { rows }, _) => {
                counters.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
                None
            }
            _ => None,
        }
    }
}
