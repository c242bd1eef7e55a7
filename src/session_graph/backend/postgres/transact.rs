//! Transactions: what goes into one, when it is run again, and what became of one whose commit was not answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Inner;
use super::line::Entry;
use crate::error::{Code, HfError, Result};
use crate::postgres::is_transient;
use crate::postgres::types::Type;
use crate::session_graph::backend::{Done, Reply};
use crate::session_graph::command::{Answer, Read, Write, arguments, name_of};
use crate::session_graph::error::bug;
use crate::session_graph::queue;
use crate::session_graph::sql::postgres::{Pg, wait};
use crate::session_graph::tables::gc::{self, Progress};

/// How long a command is tried again, and how long the fate of a commit is asked after.
const RETRY: Duration = Duration::from_secs(5);
/// Most commands of one transaction,
const TOGETHER: usize = 32;
/// and how long their texts may be, all together: who holds a lock must not take long.
const TOGETHER_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gc {
    min_blob_age_ms: Option<i64>,
}

/// What goes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Holds the row of the store.
    Session,
    /// Holds what it changes.
    Work,
}

/// A write, with all done that needs no database.
struct Job {
    kind: Kind,
    size: usize,
    since: Instant,
    command: Write,
    done: Done<String>,
}

/// What comes out of the line.
enum Next {
    Job(Job),
    Collect(i64, Instant, Done<String>),
}

fn kind_of(command: &Write) -> Kind {
    match command {
        Write::Enqueue(_)
        | Write::Claim(_)
        | Write::Renew(_)
        | Write::Abandon(_)
        | Write::Cancel(_)
        | Write::Requeue(_)
        | Write::RecordIntent(_)
        | Write::CommitRefs(_)
        | Write::Forget(_) => Kind::Work,
        _ => Kind::Session,
    }
}

/// Runs one command in a transaction.
fn run(command: &Write, pg: &mut Pg<'_>) -> Result<Answer> {
    let text = match command {
        Write::Enqueue(draft) => {
            let mut texts = queue::postgres::enqueue(pg, &[draft])?;
            texts.pop().unwrap_or_else(|| Err(bug("a batch was enqueued without an answer")))?
        }
        Write::Claim(claim) => {
            let mut damaged = Vec::new();
            loop {
                pg.savepoint();
                match queue::postgres::claim(pg, claim, &damaged)? {
                    Ok(text) => break text,
                    Err(more) => damaged.extend(more),
                }
                pg.undo()?;
            }
        }
        Write::Renew(renewal) => queue::postgres::renew(pg, renewal)?,
        other => return other.run(pg),
    };
    Ok(Answer { text, is_commit: false })
}

/// As [`run`]. Refusals are told in the order of the statements, also of those that were still waiting to be sent.
fn run_caught(command: &Write, pg: &mut Pg<'_>) -> Result<Answer> {
    let ran = catch_unwind(AssertUnwindSafe(|| run(command, pg)));
    let ran = ran.unwrap_or_else(|_| Err(bug("a command panicked")));
    ran.or_else(|error| pg.flush().and(Err(error)))
}

/// Whether an error is about the connection or the whole transaction, not about one command.
fn is_fatal(error: &HfError) -> bool {
    is_transient(error) || is_unknown(error) || matches!(error.code(), Code::Closed)
}

fn is_unknown(error: &HfError) -> bool {
    error.fields().get("outcomeUnknown").is_some_and(|unknown| unknown == true)
}

/// Says it in our words, where it is a lock that somebody kept for too long.
fn told(error: HfError) -> HfError {
    if error.fields().get("sqlState").is_none_or(|state| state != "55P03") {
        return error;
    }
    let text = "the session is busy: somebody kept its lock for longer than busyTimeoutMs (another process that stands still, or a \
                transaction that was left open); nothing was changed. Try again, or end that transaction";
    error
        .fields()
        .iter()
        .fold(HfError::new(Code::Busy, text), |made, (name, value)| made.with_field(name, value.clone()))
}

/// How a transaction ended whose COMMIT was not answered.
enum Fate {
    Committed,
    Undone,
    Unknown,
}

impl Inner {
    /// Runs what waits, until nothing does.
    pub(super) fn work(&self) {
        let mut kept = None;
        loop {
            let first = match kept.take() {
                Some(next) => next,
                None => match self.line.next_or_end() {
                    Some(entry) => match self.prepare(entry) {
                        Some(next) => next,
                        None => continue,
                    },
                    None => return,
                },
            };
            let ran = catch_unwind(AssertUnwindSafe(|| match first {
                Next::Collect(age_ms, since, done) => {
                    done(self.collect(age_ms, since).map(|progress| progress.report()))
                }
                Next::Job(job) => {
                    let (jobs, next) = self.gather(job);
                    kept = next;
                    self.run_jobs(jobs);
                }
            }));
            // Whoever was to be told is gone with it.
            drop(ran);
        }
    }

    fn prepare(&self, Entry { command, bytes, since, done }: Entry) -> Option<Next> {
        let size = command.len() + bytes.iter().map(Vec::len).sum::<usize>();
        let prepared = name_of(&command).and_then(|name| {
            if name == "gc" {
                let gc: Gc = arguments(&command, "gc")?;
                return Ok(Err(gc.min_blob_age_ms.unwrap_or(self.gc.min_blob_age_ms)));
            }
            Write::prepare(&command, bytes, self.profile).map(Ok)
        });
        match prepared {
            Ok(Ok(command)) => Some(Next::Job(Job { kind: kind_of(&command), size, since, command, done })),
            Ok(Err(age_ms)) => Some(Next::Collect(age_ms, since, done)),
            Err(error) => {
                done(Err(error));
                None
            }
        }
    }

    /// What waits behind `first` and goes with it, and what came next and does not.
    fn gather(&self, first: Job) -> (Vec<Job>, Option<Next>) {
        let (kind, mut size) = (first.kind, first.size);
        let mut jobs = vec![first];
        while jobs.len() < TOGETHER && size < TOGETHER_BYTES {
            let Some(entry) = self.line.next() else { break };
            match self.prepare(entry) {
                None => {}
                Some(Next::Job(job)) if job.kind == kind => {
                    size += job.size;
                    jobs.push(job);
                }
                Some(other) => return (jobs, Some(other)),
            }
        }
        (jobs, None)
    }

    fn run_jobs(&self, jobs: Vec<Job>) {
        let commands: Vec<&Write> = jobs.iter().map(|job| &job.command).collect();
        let (begin, since) = match jobs.last() {
            Some(job) => (self.begin_of(job.kind), job.since),
            None => return,
        };
        let answers: Vec<Result<Answer>> = if let [command] = commands.as_slice() {
            vec![self.transaction(begin, since, |pg| run_caught(command, pg))]
        } else {
            match self.transaction(begin, since, |pg| run_together(&commands, pg)) {
                Ok(answers) => answers,
                // The server is away, or locked by somebody: that is so for each of them.
                Err(error) if is_fatal(&error) || error.code() == Code::Busy => {
                    commands.iter().map(|_| Err(error.clone())).collect()
                }
                Err(_) => {
                    let alone = |command: &&Write| self.transaction(begin, since, |pg| run_caught(command, pg));
                    commands.iter().map(alone).collect()
                }
            }
        };
        if answers.iter().any(Result::is_ok) {
            self.signal.tell();
        }
        for (job, answer) in jobs.into_iter().zip(answers) {
            if answer.as_ref().is_ok_and(|answer| answer.is_commit) {
                let commits = self.line.count_commit();
                if self.gc.every_commits.is_some_and(|every| every > 0 && commits.is_multiple_of(every)) {
                    // What the collection says does not matter: the commit is done.
                    let _ = self.collect(self.gc.min_blob_age_ms, Instant::now());
                }
            }
            (job.done)(answer.map(|answer| answer.text));
        }
    }

    fn begin_of(&self, kind: Kind) -> &str {
        match kind {
            Kind::Session => &self.begin,
            Kind::Work => &self.begin_working,
        }
    }

    /// Slice after slice: others may write in between.
    fn collect(&self, age_ms: i64, since: Instant) -> Result<Progress> {
        let mut progress = Progress::default();
        while !progress.is_over() {
            progress = self.transaction(&self.begin, since, |pg| gc::slice(pg, age_ms, progress.clone()))?;
        }
        Ok(progress)
    }

    pub(super) fn read(&self, command: &str) -> Result<Reply> {
        let command = Read::parse(command)?;
        self.snapshot(&mut |pg| command.run(pg))
    }

    /// Runs `work` on one snapshot.
    pub(super) fn snapshot<T>(&self, work: &mut dyn FnMut(&mut Pg<'_>) -> Result<T>) -> Result<T> {
        self.transaction(&self.begin_reading, Instant::now(), |pg| {
            pg.only_read();
            work(pg)
        })
    }

    /// Runs `work` in a transaction, again where that can help and harms nobody: once, and until [`RETRY`] after `since`, when it was
    /// called. So a server that is away is waited for no longer, however many calls are in the line.
    fn transaction<T>(&self, begin: &str, since: Instant, mut work: impl FnMut(&mut Pg<'_>) -> Result<T>) -> Result<T> {
        let mut pause = Duration::from_millis(5);
        loop {
            let error = match self.attempt(begin, &mut work) {
                Ok(value) => return Ok(value),
                Err(error) => told(error),
            };
            if is_unknown(&error) || !is_transient(&error) || since.elapsed() > RETRY || *self.cut.borrow() {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    fn attempt<T>(&self, begin: &str, work: &mut impl FnMut(&mut Pg<'_>) -> Result<T>) -> Result<T> {
        let runtime = &self.place.runtime;
        let transaction = wait(runtime, self.cut.subscribe(), self.place.postgres.unbegun())??;
        let mut pg = Pg::new(runtime.clone(), self.cut.subscribe(), &transaction, begin);
        let ended = work(&mut pg).and_then(|value| {
            if pg.is_idle() {
                return Ok((value, false));
            }
            match pg.commit() {
                Ok(()) => Ok((value, true)),
                Err(error) if is_unknown(&error) => match pg.xid().map_or(Fate::Undone, |xid| self.fate(xid)) {
                    Fate::Committed => Ok((value, true)),
                    // Nothing happened, or there was nothing to do: it can be run again.
                    Fate::Undone => Err(HfError::new(Code::Unavailable, error.message())),
                    Fate::Unknown => Err(error),
                },
                Err(error) => Err(error),
            }
        });
        drop(pg);
        match ended {
            Ok((value, true)) => Ok(value),
            Ok((value, false)) => {
                let _ = wait(runtime, self.cut.subscribe(), transaction.rollback());
                Ok(value)
            }
            Err(error) => {
                // What failed is what the caller must know; a rollback that fails too means that the connection is gone.
                if !is_fatal(&error) {
                    let _ = wait(runtime, self.cut.subscribe(), transaction.rollback());
                }
                Err(error)
            }
        }
    }

    /// Asks what became of a transaction, also of a server that was started again.
    fn fate(&self, xid: i64) -> Fate {
        let start = Instant::now();
        let mut pause = Duration::from_millis(5);
        while start.elapsed() < RETRY {
            let asked = wait(&self.place.runtime, self.cut.subscribe(), async {
                let client = self.place.postgres.client().await?;
                client.fetch("asking after a commit", "SELECT txid_status($1)", &[(&xid, Type::INT8)]).await
            });
            let Ok(asked) = asked else { return Fate::Unknown };
            match asked {
                Ok(rows) => match rows.first().and_then(|row| row.try_get::<_, Option<String>>(0).ok().flatten()) {
                    Some(status) if status == "committed" => return Fate::Committed,
                    Some(status) if status == "aborted" => return Fate::Undone,
                    // The session of the lost connection is still at it.
                    Some(_) => {}
                    None => return Fate::Unknown,
                },
                Err(error) if is_transient(&error) => {}
                Err(_) => return Fate::Unknown,
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(200));
        }
        Fate::Unknown
    }
}

/// Runs commands in one transaction, each of which is undone alone if it fails.
fn run_together(commands: &[&Write], pg: &mut Pg<'_>) -> Result<Vec<Result<Answer>>> {
    let mut answers = Vec::with_capacity(commands.len());
    while let Some(command) = commands.get(answers.len()) {
        pg.forget();
        let drafts = commands.iter().skip(answers.len()).map_while(|command| match command {
            Write::Enqueue(draft) => Some(draft),
            _ => None,
        });
        let drafts: Vec<_> = drafts.collect();
        if !drafts.is_empty() {
            let texts = queue::postgres::enqueue(pg, &drafts)?;
            answers.extend(texts.into_iter().map(|text| text.map(|text| Answer { text, is_commit: false })));
            continue;
        }
        pg.savepoint();
        let ran = run_caught(command, pg).and_then(|answer| pg.flush().map(|()| answer));
        answers.push(match ran {
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => {
                pg.undo()?;
                Err(told(error))
            }
            done => done,
        });
    }
    Ok(answers)
}
