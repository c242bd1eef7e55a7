//! The transition log in PostgreSQL: holdfast's own tables, or an application's table of the original seven columns.

mod batch;
mod layout;
mod locks;
mod owner;
mod prune;
mod query;
mod queue;
mod swift;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::batch::{Job, Later};
use self::layout::Layout;
use self::locks::Locks;
use self::owner::Presence;
use self::queue::{Batch, Finish, Queue};
use self::swift::Swift;
use self::watch::Watch;
use super::clock::Clock;
use super::log::{Heard, Log, Question, Unlock};
use super::model::{
    Appended, Done, Durability, HistoryQuery, HistoryRow, Kind, Orphans, Outcome, PlainRow, Retention, Staged, Stats,
};
use crate::error::{Code, HfError, Result};
use crate::postgres::{Config, Migrate, Migration, Needs, Postgres, is_transient};
use crate::{clock, ids};

/// The versions of the tables.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "transition_log",
    sql: include_str!("../../../migrations/postgres/entity/0001_transition_log.sql"),
}];

const NEEDS: &[Needs] = &[
    Needs {
        table: "entity_transitions",
        columns: &[
            "id",
            "kind",
            "entity_id",
            "field",
            "from_value",
            "to_value",
            "transitioned_at",
            "to_key",
            "masked",
            "change_id",
            "ordinal",
            "seq",
        ],
    },
    Needs {
        table: "entity_changes",
        columns: &[
            "seq",
            "change_id",
            "kind",
            "entity_id",
            "op",
            "actor",
            "payload",
            "owner",
            "created_at",
            "delivered_at",
            "held",
        ],
    },
    Needs {
        table: "entity_intents",
        columns: &["change_id", "kind", "entity_id", "op", "prev", "marks", "actor", "run_id", "owner", "created_at"],
    },
];

/// How long a batch is tried again while the server is away, before its jobs fail.
const RETRY: Duration = Duration::from_secs(5);
/// How often a log looks whether it still counts as alive; less than the grace after a restart of the server.
const PRESENT_EVERY: Duration = Duration::from_secs(1);
/// How long writes that nobody waits for may wait for company.
const LATER: Duration = Duration::from_millis(20);
/// States of so many bytes, before and after together, are compared on the engine's threads.
const SMALL: usize = 32_768;
/// Most batches that are written at a time.
const WRITERS: usize = 2;
/// So many jobs must wait before another writer begins beside one that runs: batches that are too small cost more than they save.
const COMPANY: usize = 8;
/// What suits statements that look rows up: a plan is kept, also one that was made when the tables were empty.
const SESSION: &str = "SET enable_seqscan = off; SET jit = off";
/// Change ids in one notification, which must stay below 8000 bytes.
const PER_NOTICE: usize = 200;

/// Where the log is, and what may be done to it.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to connect.
    pub config: Config,
    /// The schema of the tables; `None` = the first of the search path.
    pub schema: Option<String>,
    /// `auto`, `check` or `off`.
    pub migrate: String,
    /// What is on disk before whom.
    pub durability: Durability,
    /// Most rows in one transaction.
    pub max_batch: usize,
}

/// A log in a PostgreSQL database; connects on first use.
pub struct PgLog(Arc<Inner>);

struct Inner {
    options: Options,
    postgres: Postgres,
    shared: Arc<Shared>,
    presence: Presence,
    layout: Mutex<Option<Layout>>,
    queue: Mutex<Queue>,
    counters: Counters,
    skew_ms: Mutex<Option<f64>>,
    watch: Watch,
    locks: Arc<Locks>,
    /// Ends what runs in the background.
    closing: Arc<tokio::sync::Notify>,
}

/// What batches need besides a connection.
pub(super) struct Shared {
    durability: Durability,
    owner: String,
    clock: Clock,
    emptied: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Counters {
    rows: AtomicU64,
    changes: AtomicU64,
    batches: AtomicU64,
    gaps: AtomicU64,
    pruned: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The notifications that name `change_ids`: each begins with who wrote them, and stays below the server's 8000 bytes.
    fn notices(&self, change_ids: &[String]) -> Vec<String> {
        change_ids.chunks(PER_NOTICE).map(|ids| format!("{}:{}", self.owner, ids.join(","))).collect()
    }

    /// Once a minute.
    fn is_time_to_empty(&self) -> bool {
        let mut last = lock(&self.emptied);
        let due = last.is_none_or(|at| at.elapsed() > Duration::from_secs(60));
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

impl PgLog {
    /// Describes a log; nothing is connected yet.
    ///
    /// # Errors
    /// As [`Postgres::new`].
    pub fn new(options: Options) -> Result<Self> {
        let owner = ids::uuid();
        let shared =
            Shared { durability: options.durability, clock: Clock::default(), owner, emptied: Mutex::default() };
        Ok(Self(Arc::new(Inner {
            postgres: Postgres::new(Config { session: Some(SESSION.to_owned()), ..options.config.clone() })?,
            presence: Presence::new(&options.config, &shared.owner)?,
            shared: Arc::new(shared),
            layout: Mutex::default(),
            queue: Mutex::default(),
            counters: Counters::default(),
            skew_ms: Mutex::default(),
            watch: Watch::default(),
            closing: Arc::default(),
            locks: Arc::new(Locks::new(&options.config)?),
            options,
        })))
    }

    fn run<T: Send + 'static>(&self, done: Done<T>, work: impl AsyncFnOnceSend<T>) {
        let inner = Arc::clone(&self.0);
        if lock(&inner.queue).closed {
            return done(Err(closed()));
        }
        let postgres = inner.postgres.clone();
        postgres.spawn(async move { done(work.call(inner).await) });
    }
}

fn closed() -> HfError {
    HfError::new(Code::Closed, "entity store is closed")
}

/// An async closure whose future may move between threads.
trait AsyncFnOnceSend<T>: Send + 'static {
    fn call(self, inner: Arc<Inner>) -> impl Future<Output = Result<T>> + Send;
}

impl<T, F, R> AsyncFnOnceSend<T> for F
where
    F: FnOnce(Arc<Inner>) -> R + Send + 'static,
    R: Future<Output = Result<T>> + Send,
{
    fn call(self, inner: Arc<Inner>) -> impl Future<Output = Result<T>> + Send {
        self(inner)
    }
}

impl Inner {
    fn layout(&self) -> Result<Layout> {
        lock(&self.layout)
            .clone()
            .ok_or_else(|| HfError::new(Code::Busy, "the entity store is not open yet; await ready() first"))
    }

    fn keeps_events(&self) -> bool {
        self.options.durability != Durability::AfterCommit
    }

    async fn open(self: &Arc<Self>) -> Result<()> {
        if lock(&self.layout).is_some() {
            return Ok(());
        }
        let client = self.postgres.client().await?;
        let before = clock::epoch_ms() as f64;
        let asked = client
            .fetch(
                "connecting",
                "SELECT current_schema()::text, (extract(epoch FROM clock_timestamp()) * 1000)::float8",
                &[],
            )
            .await?;
        let after = clock::epoch_ms() as f64;
        let (current, server): (Option<String>, f64) = match asked.first() {
            Some(row) => (row.get(0), row.get(1)),
            None => (None, after),
        };
        *lock(&self.skew_ms) = Some(server - f64::midpoint(before, after));
        let schema = self.options.schema.clone().or(current).ok_or_else(|| {
            HfError::new(
                Code::InvalidArgument,
                "the connection has no schema in its search path; name one with `schema`",
            )
        })?;
        drop(client);
        let create = self.options.schema.is_some();
        match self.options.migrate.as_str() {
            "off" => {}
            "check" => {
                let mode = Migrate::Check { missing: Code::EntityTableMissing, needs: NEEDS };
                self.postgres.migrate(&schema, false, "entity", MIGRATIONS, mode).await?;
            }
            _ => self.postgres.migrate(&schema, create, "entity", MIGRATIONS, Migrate::Auto).await?,
        }
        let client = self.postgres.client().await?;
        let layout = Layout::find(&client, &schema).await?;
        if self.keeps_events() {
            if !layout.own {
                return Err(HfError::new(
                    Code::EntityTableMissing,
                    "durability \"outbox\" and \"journal\" need the tables of holdfast; see the exports of holdfast/drizzle",
                ));
            }
            self.presence.ensure().await?;
            self.postgres.spawn(Self::stay_present(Arc::downgrade(self), Arc::clone(&self.closing)));
        }
        *lock(&self.layout) = Some(layout);
        Ok(())
    }

    /// Queues a job; `true` if the caller must see to a writer.
    fn enqueue(&self, job: Job, finish: Finish) -> bool {
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

    fn push(self: &Arc<Self>, job: Job, finish: Finish) {
        if self.enqueue(job, finish) {
            let inner = Arc::clone(self);
            self.postgres.spawn(async move { inner.write().await });
        }
    }

    fn push_later(self: &Arc<Self>, add: impl FnOnce(&mut Later)) {
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
                    let later = std::mem::take(&mut lock(&self.queue).later);
                    self.write_kept(&later).await;
                    self.empty_in_time(&later).await;
                }
            }
        }
    }

    /// A writer: everything that waits goes out together, until nothing waits.
    async fn write(self: &Arc<Self>) {
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
        {
            let mut queue = lock(&self.queue);
            batch.entities.iter().for_each(|entity| _ = queue.busy.remove(entity));
        }
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
        if away || jobs.len() == 1 {
            self.keep_later(later);
        }
        if jobs.len() < 2 || away || error.code() == Code::Closed {
            return jobs.iter().map(|_| Err(error.clone())).collect();
        }
        // One of them is bad: each on its own, so that only that one fails.
        let outcomes = self.one_by_one(jobs).await;
        self.write_kept(later).await;
        outcomes
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

    /// Sees to it that others know this log for alive, also while it has nothing to write.
    async fn stay_present(log: std::sync::Weak<Self>, closing: Arc<tokio::sync::Notify>) {
        let looking = async {
            loop {
                tokio::time::sleep(PRESENT_EVERY).await;
                let Some(inner) = log.upgrade() else { return };
                // Where the server is away the next round tries again, well before it would count this log as dead.
                let _ = inner.presence.ensure().await;
            }
        };
        tokio::select! {
            () = looking => {}
            () = closing.notified() => {}
        }
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
    async fn commit(&self, jobs: &[&Job], later: &Later, swift: bool) -> Result<Swift> {
        let layout = self.layout()?;
        let started = Instant::now();
        let mut wait = Duration::from_millis(20);
        let mut again = jobs.iter().any(|job| matches!(job, Job::Append { outcome, .. } if outcome.again));
        let swift = swift && swift::suits(&layout, jobs);
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
        if swift && !again {
            return swift::commit(&self.shared, &client, layout, jobs, later).await;
        }
        let results = batch::commit(&self.shared, &client, layout, jobs, later, again).await?;
        Ok(results.into_iter().map(Some).collect())
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

impl Log for PgLog {
    fn open(&self, done: Done<()>) {
        self.run(done, |inner: Arc<Inner>| async move { inner.open().await });
    }

    fn usable(&self) -> Result<()> {
        if lock(&self.0.queue).closed { Err(closed()) } else { Ok(()) }
    }

    fn begin(&self, staged: Arc<Staged>, done: Done<()>) {
        self.0.push(Job::Begin { staged }, Box::new(move |outcome| done(outcome.map(drop))));
    }

    fn append(&self, staged: Arc<Staged>, outcome: Outcome, done: Done<Option<Appended>>) {
        // Off the caller's thread; the engine's threads are for waiting, and for work that is shorter than the way to another thread.
        let inner = Arc::clone(&self.0);
        let size = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        if size(&staged.prev) + size(&outcome.next) > SMALL {
            return crate::durable::pool::spawn(move || match staged.derive(&outcome) {
                Ok(derived) => inner.push(Job::Append { staged, outcome, derived }, done),
                Err(error) => done(Err(error)),
            });
        }
        self.0.postgres.spawn(async move {
            let queued = match staged.derive(&outcome) {
                Ok(derived) => inner.enqueue(Job::Append { staged, outcome, derived }, done),
                Err(error) => {
                    done(Err(error));
                    false
                }
            };
            if queued {
                inner.write().await;
            }
        });
    }

    fn forget(&self, change_id: String) {
        self.0.push_later(|later| later.forgotten.push(change_id));
    }

    fn delivered(&self, change_ids: Vec<String>) {
        self.0.push_later(|later| later.delivered.extend(change_ids));
    }

    fn append_rows(&self, rows: Vec<PlainRow>, _now_ms: f64, done: Done<()>) {
        self.0.push(Job::Rows { rows }, Box::new(move |outcome| done(outcome.map(drop))));
    }

    fn claim(&self, kind: Arc<Kind>, done: Done<Orphans>) {
        self.run(done, |inner: Arc<Inner>| async move {
            owner::claim(&inner.postgres, &inner.layout()?, &kind.name, &inner.shared.owner).await
        });
    }

    fn in_state_since(&self, question: Question, value: String, done: Done<Option<i64>>) {
        self.run(done, |inner: Arc<Inner>| async move {
            let layout = inner.layout()?;
            let ask = async || query::in_state_since(&inner.postgres.client().await?, &layout, &question, &value).await;
            inner.postgres.retry_idempotent(RETRY, ask).await
        });
    }

    fn transition_count(&self, question: Question, since_us: i64, done: Done<i64>) {
        self.run(done, move |inner: Arc<Inner>| async move {
            let layout = inner.layout()?;
            let ask =
                async || query::transition_count(&inner.postgres.client().await?, &layout, &question, since_us).await;
            inner.postgres.retry_idempotent(RETRY, ask).await
        });
    }

    fn history(&self, query: HistoryQuery, done: Done<Vec<HistoryRow>>) {
        self.run(done, |inner: Arc<Inner>| async move {
            query::history(&inner.postgres.client().await?, &inner.layout()?, &query).await
        });
    }

    fn prune(&self, retention: Retention, now_ms: f64, done: Done<u64>) {
        self.run(done, move |inner: Arc<Inner>| async move {
            let deleted = prune::prune(&inner.postgres, &inner.layout()?, retention, now_ms).await?;
            inner.counters.pruned.fetch_add(deleted, Ordering::Relaxed);
            Ok(deleted)
        });
    }

    fn stats(&self, done: Done<Stats>) {
        self.run(done, |inner: Arc<Inner>| async move {
            let waiting =
                query::waiting(&inner.postgres.client().await?, &inner.layout()?, inner.keeps_events()).await?;
            let counters = &inner.counters;
            Ok(Stats {
                rows: counters.rows.load(Ordering::Relaxed),
                changes: counters.changes.load(Ordering::Relaxed),
                batches: counters.batches.load(Ordering::Relaxed),
                gaps: counters.gaps.load(Ordering::Relaxed),
                pruned: counters.pruned.load(Ordering::Relaxed),
                clock_skew_ms: *lock(&inner.skew_ms),
                ..waiting
            })
        });
    }

    fn lock_entity(&self, kind: String, entity_id: String, done: Done<Unlock>) {
        self.run(done, |inner: Arc<Inner>| async move {
            inner.locks.take(&inner.layout()?.schema, &kind, &entity_id).await
        });
    }

    fn probe(&self, sql: String, done: Done<String>) {
        self.run(done, |inner: Arc<Inner>| async move {
            let rows = inner.postgres.client().await?.fetch("asking where this is", &sql, &[]).await?;
            let text = rows.first().and_then(|row| row.try_get(0).ok());
            text.ok_or_else(|| HfError::new(Code::Database, "the server gave no answer to a question about itself"))
        });
    }

    fn watch(&self, heard: Heard, done: Done<()>) {
        match self.0.layout() {
            Ok(layout) => self.0.watch.start(&self.0, &layout.channel(), heard, done),
            Err(error) => done(Err(error)),
        }
    }

    fn close(&self, done: Done<()>) {
        let inner = Arc::clone(&self.0);
        lock(&inner.queue).closed = true;
        inner.watch.stop();
        inner.closing.notify_one();
        let postgres = inner.postgres.clone();
        let last = Arc::clone(&inner);
        inner.postgres.spawn(async move {
            // What was queued before is written; a last round for what nobody waits for.
            while lock(&last.queue).writers > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let later = std::mem::take(&mut lock(&last.queue).later);
            if !later.is_empty() {
                let _ = last.commit(&[], &later, false).await;
            }
        });
        postgres.close(Box::new(move |outcome| {
            let last = Arc::clone(&inner);
            inner.presence.end(Box::new(move |ended| {
                last.locks.end(Box::new(move |unlocked| done(outcome.and(ended).and(unlocked))));
            }));
        }));
    }
}
