//! The transition log in PostgreSQL: holdfast's own tables, or an application's table of the original seven columns.

mod batch;
mod layout;
mod locks;
mod look;
mod owner;
mod prune;
mod query;
mod queue;
mod swift;
mod watch;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::batch::Job;
use self::layout::Layout;
use self::locks::Locks;
use self::queue::Queue;
use self::watch::Watch;
use super::clock::Clock;
use super::log::{Heard, Log, Question, Unlock};
use super::model::{
    Appended, Done, Durability, HistoryQuery, HistoryRow, Kind, Orphans, Outcome, PlainRow, Retention, Staged, Stats,
};
use crate::error::{Code, HfError, Result};
use crate::postgres::{Config, Migrate, Migration, Needs, Postgres, Presence};
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
/// How long a server may take to answer what is under way when the log is closed.
const CLOSE: Duration = Duration::from_secs(5);
/// How often a log looks whether it still counts as alive; less than the grace after a restart of the server.
const PRESENT_EVERY: Duration = Duration::from_secs(1);
/// States of so many bytes, before and after together, are compared on the engine's threads.
const SMALL: usize = 32_768;
/// What suits statements that look rows up: a plan is kept, also one that was made when the tables were empty.
const SESSION: &str = "SET enable_seqscan = off; SET jit = off";
/// An entry of an index has 2704 bytes at most; kind and id leave room for a field's name and the rest.
const NAME_BYTES: usize = 2000;
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
    pub fn new(mut options: Options) -> Result<Self> {
        options.config.close_timeout.get_or_insert(CLOSE);
        let owner = ids::uuid();
        let shared =
            Shared { durability: options.durability, clock: Clock::default(), owner, emptied: Mutex::default() };
        Ok(Self(Arc::new(Inner {
            postgres: Postgres::new(Config { session: Some(SESSION.to_owned()), ..options.config.clone() })?,
            presence: Presence::new(&options.config, &owner::mark_of(&shared.owner))?,
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
}

impl Log for PgLog {
    fn open(&self, done: Done<()>) {
        self.run(done, |inner: Arc<Inner>| async move { inner.open().await });
    }

    fn accepts(&self, kind: &str, entity_id: &str) -> Result<()> {
        let bytes = kind.len() + entity_id.len();
        // A table of the application has the indexes that the application wants.
        if bytes > NAME_BYTES && self.0.layout().is_ok_and(|layout| layout.own) {
            let message = format!(
                "PostgreSQL has room for {NAME_BYTES} bytes of kind and id in an index, these have {bytes}; use shorter ids"
            );
            return Err(HfError::new(Code::InvalidArgument, message).with_field("kind", kind));
        }
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

    fn forget(&self, staged: Arc<Staged>) {
        let entity = batch::entity_of(&staged.kind.name, &staged.id);
        self.0.push_later(|later| later.forgotten.push((entity, staged.change_id.clone())));
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
