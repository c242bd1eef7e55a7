//! What becomes of jobs.

use std::sync::{Arc, Mutex};

use super::*;
use crate::error::{Code, HfError};

#[test]
fn one_bad_job_among_good_ones_fails_alone() {
    both(|database| {
        let told = Told::new();
        let release = hold(database, &told);
        database.write(told.insert("one"));
        database.write(told.insert("one"));
        database.write(told.job("half", |db| {
            insert(db, "half")?;
            Err(HfError::new(Code::InvalidArgument, "no"))
        }));
        database.write(told.job("panics", |db| {
            insert(db, "panics")?;
            panic!("on purpose")
        }));
        database.write(told.insert("two"));
        drop(release);
        let outcomes: Vec<(String, Option<Code>)> = (0..6)
            .map(|_| told.next())
            .map(|(name, outcome)| (name, outcome.err().map(|error| error.code())))
            .collect();
        let wanted = [
            ("held", None),
            ("one", None),
            ("one", Some(Code::Database)),
            ("half", Some(Code::InvalidArgument)),
            ("panics", Some(Code::Panic)),
            ("two", None),
        ];
        assert_eq!(outcomes, wanted.map(|(name, code)| (name.to_owned(), code)), "in the order of the calls");
        assert_eq!(names(database), ["one", "two"]);
        let stats = database.stats();
        assert_eq!((stats.jobs, stats.batches, stats.commits, stats.largest_batch, stats.retried), (6, 2, 2, 5, 0));
    });
}

#[test]
fn a_commit_that_is_refused_is_tried_job_by_job() {
    both(|database| {
        let told = Told::new();
        let release = hold(database, &told);
        database.write(told.insert("good"));
        database.write(told.job("dangling", |db| execute(db, "INSERT INTO parts VALUES (77)")));
        database.write(told.insert("also good"));
        drop(release);
        let failed: Vec<String> =
            (0..4).map(|_| told.next()).filter_map(|(name, outcome)| outcome.is_err().then_some(name)).collect();
        assert_eq!(failed, ["dangling"]);
        assert_eq!(names(database), ["good", "also good"]);
        assert_eq!(database.stats().retried, 3);
        assert!(!database.is_poisoned());
    });
}

#[test]
fn a_job_that_ends_the_transaction_takes_nobody_along() {
    both(|database| {
        let told = Told::new();
        let release = hold(database, &told);
        database.write(told.insert("before"));
        database.write(told.job("rolls back", |db| execute(db, "ROLLBACK")));
        database.write(told.insert("after"));
        drop(release);
        let failed: Vec<(String, Code)> =
            (0..4).map(|_| told.next()).filter_map(|(name, outcome)| Some((name, outcome.err()?.code()))).collect();
        assert_eq!(failed, [("rolls back".to_owned(), Code::Panic)]);
        assert_eq!(names(database), ["before", "after"]);
    });
}

#[test]
fn jobs_of_many_threads_keep_the_order_of_each() {
    both(|database| {
        let told = Told::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (database, tell, order) = (database.clone(), told.tell.clone(), Arc::clone(&order));
                std::thread::spawn(move || {
                    for i in 0..200 {
                        let order = Arc::clone(&order);
                        let run = move |_: &Connection| {
                            order.lock().unwrap().push((thread, i));
                            Ok(())
                        };
                        database.write(Box::new(Job { run: Box::new(run), tell: tell.clone(), name: String::new() }));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        (0..800).for_each(|_| told.next().1.unwrap());
        let order = order.lock().unwrap();
        for thread in 0..4 {
            let own: Vec<_> = order.iter().filter(|(t, _)| *t == thread).map(|(_, i)| *i).collect();
            assert_eq!(own, (0..200).collect::<Vec<_>>());
        }
    });
}
