//! What becomes of handles: order, closing, dropping, reading.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use super::*;
use crate::error::Code;

#[test]
fn done_is_called_after_the_commit_and_may_panic_or_read() {
    both(|database| {
        struct Reads(Database, Sender<Vec<String>>);
        impl WriteJob for Reads {
            fn prepare(&mut self) {
                assert!(self.0.read(|db| Ok(db.is_autocommit())).unwrap(), "outside of the transaction");
            }
            fn run(&mut self, db: &Connection) -> Result<()> {
                insert(db, "mine")
            }
            fn done(self: Box<Self>, outcome: Result<()>) {
                outcome.unwrap();
                self.1.send(names(&self.0)).unwrap();
                panic!("on purpose");
            }
        }
        let (tell, told) = channel();
        database.write(Box::new(Reads(database.clone(), tell)));
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), ["mine"]);
        let told = Told::new();
        database.write(told.insert("next"));
        told.next().1.unwrap();
    });
}

#[test]
fn jobs_that_nobody_waits_for_join_or_go_alone() {
    both(|database| {
        let told = Told::new();
        let begun = Instant::now();
        database.write_later(told.insert("alone"));
        assert_eq!(told.next().0, "alone");
        assert!(begun.elapsed() >= queue::LATER, "{:?}", begun.elapsed());
        let before = database.stats().commits;
        database.write_later(told.insert("joins"));
        database.write(told.insert("takes along"));
        assert_eq!([told.next().0, told.next().0], ["joins", "takes along"], "in order");
        assert_eq!(database.stats().commits, before + 1, "in one transaction");
        database.write_later(told.insert("flushed"));
        close(database).unwrap();
        let (name, outcome) = told.next();
        assert!(name == "flushed" && outcome.is_ok());
    });
}

/// A job that leaves those behind that nobody waits for.
struct Hurried(Box<Job>);

impl WriteJob for Hurried {
    fn takes_along(&self) -> bool {
        false
    }
    fn run(&mut self, db: &Connection) -> Result<()> {
        self.0.run(db)
    }
    fn done(self: Box<Self>, outcome: Result<()>) {
        self.0.done(outcome);
    }
}

#[test]
fn jobs_that_nobody_waits_for_stay_behind_where_they_are_not_taken_along_but_not_for_long() {
    both(|database| {
        let told = Told::new();
        let before = database.stats().commits;
        database.write_later(told.insert("first later"));
        database.write(Box::new(Hurried(told.insert("hurried"))));
        assert_eq!(told.next().0, "hurried");
        database.write(told.insert("takes along"));
        assert_eq!([told.next().0, told.next().0], ["first later", "takes along"]);
        assert_eq!(database.stats().commits, before + 2);
        let begun = Instant::now();
        database.write_later(told.insert("second later"));
        let mut hurried = 0;
        loop {
            database.write(Box::new(Hurried(told.insert(&format!("{hurried}")))));
            if told.next().0 == "second later" {
                break;
            }
            hurried += 1;
        }
        assert!(begun.elapsed() >= queue::LATER, "{:?}", begun.elapsed());
        assert!(hurried > 0 && told.next().0 == hurried.to_string(), "it went with one of them in the end");
    });
}

#[test]
fn closing_runs_what_is_queued_and_refuses_the_rest() {
    both(|database| {
        let told = Told::new();
        let release = hold(database, &told);
        for i in 0..600 {
            database.write(told.insert(&i.to_string()));
        }
        let (tell, closed) = channel();
        for _ in 0..2 {
            let tell = tell.clone();
            database.close(Box::new(move |result| drop(tell.send(result))));
        }
        database.write(told.insert("late"));
        assert_eq!(told.next().1.unwrap_err().code(), Code::Closed);
        assert_eq!(database.read(|_| Ok(())).unwrap_err().code(), Code::Closed);
        drop(release);
        for _ in 0..601 {
            told.next().1.unwrap();
        }
        for _ in 0..2 {
            closed.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        }
        close(database).unwrap();
        if let Some(path) = database.path() {
            let folder: Vec<_> =
                std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(folder, ["test.db"], "log written back and removed");
            let again = Database::open(&Target::File(path.into()), options()).unwrap();
            assert_eq!(names(&again).len(), 600);
        }
    });
}

fn writer_threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter(|task| {
            std::fs::read_to_string(task.as_ref().unwrap().path().join("comm"))
                .is_ok_and(|c| c.starts_with("holdfast-sqlit"))
        })
        .count()
}

#[test]
#[cfg(target_os = "linux")]
fn dropping_the_last_handle_flushes_and_ends_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let told = Told::new();
    let before = writer_threads();
    let database = Database::open(&Target::File(path.clone()), options()).unwrap();
    let other = database.clone();
    let release = hold(&database, &told);
    database.write(told.insert("one"));
    database.write_later(told.insert("two"));
    drop(database);
    drop(other);
    drop(release);
    assert_eq!([told.next().0, told.next().0, told.next().0], ["held", "one", "two"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    // Other tests of this binary have writers too, if it runs as one process; they end as well.
    while writer_threads() > before || path.with_extension("db-wal").exists() {
        assert!(Instant::now() < deadline, "{} writers, before {before}", writer_threads());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(names(&Database::open(&Target::File(path), options()).unwrap()), ["one", "two"]);
}

#[test]
fn reads_cannot_write_and_leave_no_transaction_behind() {
    both(|database| {
        let error = database.read(|db| insert(db, "sneaked in")).unwrap_err();
        assert!(matches!(error.code(), Code::Io | Code::Database), "{error}");
        database.read(|db| execute(db, "BEGIN; SELECT count(*) FROM items")).unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| database.read::<()>(|_| panic!("no"))));
        assert!(panicked.is_err());
        let told = Told::new();
        database.write(told.insert("visible"));
        told.next().1.unwrap();
        assert_eq!(names(database), ["visible"], "no reader sits on an old snapshot");
        close(database).unwrap();
    });
}

#[test]
fn idle_readers_are_few() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&Target::File(dir.path().join("test.db")), options()).unwrap();
    let barrier = Arc::new(std::sync::Barrier::new(10));
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let (database, barrier) = (database.clone(), Arc::clone(&barrier));
            std::thread::spawn(move || {
                database.read(|_| {
                    barrier.wait();
                    Ok(())
                })
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    assert_eq!(database.stats().readers_idle, 4);
}
