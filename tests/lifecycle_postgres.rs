//! Promise: with PostgreSQL the numbers of changes come in the order of the commits, however many write at once; stores that open at
//! the same time, hear of each other, and take over from the dead; a commit whose answer was lost is not repeated.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/lifecycle.rs"]
mod lifecycle;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/postgres.rs"]
mod server;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lifecycle::{T, Waited, field};
use proxy::Proxy;
use serde_json::{Value, json};
use server::Server;

fn config(server: &Server, schema: &str, pool: usize) -> Value {
    let config = server.config();
    json!({ "target": "postgres", "schema": schema, "connection": { "connectionString": config.connection_string,
        "host": config.host, "port": config.port, "user": config.user, "password": config.password,
        "database": config.database, "poolSize": pool } })
}

#[test]
fn whoever_has_seen_a_number_never_finds_a_smaller_one_later() {
    let Some(server) = server::shared() else { return };
    let config = config(server, "order", 8);
    let store = Waited::open(&config).unwrap();
    let ids: Vec<String> = (0..8)
        .map(|index| {
            let project = format!("p{index}");
            store.project(&project);
            store.session(&project)
        })
        .collect();
    let ended = Arc::new(AtomicBool::new(false));
    let (reading, stop) = (store.clone(), Arc::clone(&ended));
    let reader = thread::spawn(move || {
        let (mut last, mut seen) = (0, Vec::new());
        loop {
            let finished = stop.load(Ordering::SeqCst);
            let fresh = reading.log(last);
            for change in &fresh {
                let seq = change["seq"].as_i64().unwrap();
                assert!(seq > last, "{seq} after {last}");
                last = seq;
                seen.push(seq);
            }
            if finished && fresh.is_empty() {
                return seen;
            }
        }
    });
    let others: Vec<Waited> = (0..2).map(|_| Waited::open(&config).unwrap()).collect();
    let writers: Vec<_> = (0..32_i64)
        .map(|writer| {
            let store = if writer % 2 == 0 { store.clone() } else { others[writer as usize / 2 % 2].clone() };
            let id = ids[writer as usize % 8].clone();
            thread::spawn(move || {
                for index in 0..12 {
                    // Transactions of several changes, of different length.
                    let checks: Vec<Value> = (0..writer % 4)
                        .map(|check| {
                            json!({ "name": format!("c{check}"),
                        "commitHash": index.to_string() })
                        })
                        .collect();
                    store.write(
                        json!({ "do": "writePrObservation", "now": T + index, "comments": [], "checks": checks,
                        "pr": { "url": format!("u{writer}"), "sessionId": id, "number": index,
                            "state": if index % 2 == 0 { "open" } else { "draft" } } }),
                    );
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    ended.store(true, Ordering::SeqCst);
    let seen = reader.join().unwrap();
    // Nothing was passed over: what is there now is what was seen, one by one.
    let all: Vec<i64> = store.log(0).iter().map(|change| change["seq"].as_i64().unwrap()).collect();
    assert_eq!(seen, all);
    assert_eq!(all.len(), 8 + 32 * 12 + (0..32).map(|writer| writer % 4 * 12).sum::<usize>());
}

#[test]
fn eight_open_an_empty_schema_at_once_and_make_sessions() {
    let Some(server) = server::shared() else { return };
    let config = config(server, "together", 2);
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let config = config.clone();
            thread::spawn(move || {
                let store = Waited::open(&config).unwrap();
                store.project("p");
                let ids: Vec<String> = (0..10).map(|_| store.session("p")).collect();
                let key = json!({ "do": "createSession", "session": { "projectId": "p" }, "now": T, "key": "one" });
                let keyed = store.write(key)["id"].as_str().unwrap().to_owned();
                store.close();
                (ids, keyed)
            })
        })
        .collect();
    let made: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    let ids: HashSet<&String> = made.iter().flat_map(|(ids, _)| ids).collect();
    assert_eq!(ids.len(), 80);
    let keyed: HashSet<&String> = made.iter().map(|(_, keyed)| keyed).collect();
    assert_eq!(keyed.len(), 1, "one key, one session");
    let store = Waited::open(&config).unwrap();
    assert_eq!(store.read(json!({ "do": "sessions", "projectId": "p" })).as_array().unwrap().len(), 81);
    assert_eq!(store.log(0).len(), 81);
}

#[test]
fn commits_of_others_are_told_soon() {
    let Some(server) = server::shared() else { return };
    let config = config(server, "hints", 2);
    let (here, there) = (Waited::open(&config).unwrap(), Waited::open(&config).unwrap());
    there.project("p");
    let (sender, hints) = mpsc::channel();
    let watch = here.0.watch(move || _ = sender.send(Instant::now())).unwrap();
    hints.recv_timeout(Duration::from_secs(5)).expect("listening is in force");
    for _ in 0..10 {
        there.session("p");
        let committed = Instant::now();
        let told = hints.recv_timeout(Duration::from_secs(3)).expect("a commit of another store is told");
        assert!(told.saturating_duration_since(committed) < Duration::from_millis(500));
    }
    drop(watch);
    let _ = hints.try_iter().count();
    there.session("p");
    assert!(hints.recv_timeout(Duration::from_millis(200)).is_err(), "it was ended");
}

#[test]
fn a_rolled_back_write_leaves_no_change_and_no_hint() {
    let Some(server) = server::shared() else { return };
    let store = Waited::open(&config(server, "rolled", 2)).unwrap();
    store.project("p");
    let id = store.session("p");
    let head = store.head();
    let postgres = server.connect();
    let direct = postgres.clone();
    server::run(&postgres, async move {
        let client = direct.client().await.unwrap();
        client
            .batch_execute(
                "BEGIN; SET LOCAL search_path TO rolled; UPDATE sessions SET is_alive = 1; \
                 SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK",
            )
            .await
            .unwrap();
    });
    assert_eq!(store.head(), head);
    assert_eq!(store.read(json!({ "do": "session", "id": id }))["lifecycle"]["isAlive"], false);
}

#[test]
fn a_store_that_is_gone_leaves_its_operations_to_others() {
    let Some(server) = server::shared() else { return };
    let config = config(server, "owners", 2);
    let (one, two) = (Waited::open(&config).unwrap(), Waited::open(&config).unwrap());
    one.project("p");
    let id = one.session("p");
    one.write(json!({ "do": "begin", "id": id, "kind": "restore", "now": T }));
    assert_eq!(two.write(json!({ "do": "abandoned", "now": T })), json!([]));
    let busy = two.refused(json!({ "do": "begin", "id": id, "kind": "restore", "now": T }));
    assert_eq!(busy.code().as_str(), "HF_LIFECYCLE_SESSION_BUSY");
    one.close();
    let found = two.write(json!({ "do": "abandoned", "now": T }));
    assert_eq!((&found[0]["sessionId"], &found[0]["kind"]), (&json!(id), &json!("restore")));
    assert_eq!(two.write(json!({ "do": "abandoned", "now": T })), json!([]), "it is ours now");
}

#[test]
fn a_lost_answer_to_a_commit_is_told_and_not_repeated() {
    let Some(server) = server::own() else { return };
    let proxy = Proxy::start(server.port());
    let direct = Waited::open(&config(&server, "lost", 2)).unwrap();
    direct.project("p");
    let mut through = config(&server, "lost", 1);
    through["connection"]["port"] = json!(proxy.port);
    let store = Waited::open(&through).unwrap();
    let first = store.session("p");
    // The answer that is lost is that to the COMMIT: a lock keeps the transaction from committing until the proxy is set.
    let (sender, outcome) = mpsc::channel();
    let postgres = server.connect();
    let (hold, held) = mpsc::channel::<()>();
    let (ready, locked) = mpsc::channel();
    let holding = postgres.clone();
    postgres.spawn(async move {
        let transaction = holding.begin().await.unwrap();
        let key = "SELECT pg_advisory_xact_lock(hashtextextended('holdfast change log of lost', 7465746))";
        transaction.batch_execute(key).await.unwrap();
        ready.send(()).unwrap();
        while held.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        transaction.rollback().await.unwrap();
    });
    locked.recv_timeout(Duration::from_secs(10)).unwrap();
    let command = json!({ "do": "createSession", "session": { "projectId": "p" }, "now": T }).to_string();
    store.0.write(command, Box::new(move |result| _ = sender.send(result)));
    thread::sleep(Duration::from_millis(700));
    proxy.lose_answers(true);
    hold.send(()).unwrap();
    let error = outcome.recv_timeout(Duration::from_secs(30)).unwrap().unwrap_err();
    assert_eq!(field(&error, "outcomeUnknown"), "true", "{error}");
    assert!(error.message().contains("nobody knows"), "{error}");
    proxy.lose_answers(false);
    thread::sleep(Duration::from_millis(300));
    let sessions = direct.read(json!({ "do": "sessions", "projectId": "p" }));
    assert_eq!(sessions.as_array().unwrap().len(), 2, "{first} and the one whose answer was lost, not a third");
}

/// Runs statements in a transaction of somebody else, which is committed when the returned sender says so, or is gone.
fn elsewhere(server: &Server, statements: String) -> mpsc::Sender<()> {
    let (hold, held) = mpsc::channel::<()>();
    let (ready, done) = mpsc::channel();
    let postgres = server.connect();
    let holding = postgres.clone();
    postgres.spawn(async move {
        let transaction = holding.begin().await.unwrap();
        transaction.batch_execute(&statements).await.unwrap();
        ready.send(()).unwrap();
        while matches!(held.try_recv(), Err(mpsc::TryRecvError::Empty)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        transaction.commit().await.unwrap();
    });
    done.recv_timeout(Duration::from_secs(10)).unwrap();
    hold
}

/// Waits until so many statements wait for a lock, or `or` is true.
fn until_blocked(server: &Server, count: i64, or: impl Fn() -> bool) {
    let postgres = server.connect();
    let end = Instant::now() + Duration::from_secs(20);
    while !or() {
        let asking = postgres.clone();
        let waiting: i64 = server::run(&postgres, async move {
            let client = asking.client().await.unwrap();
            let rows = client.fetch("ask", "SELECT count(*) FROM pg_locks WHERE NOT granted", &[]).await.unwrap();
            rows[0].get(0)
        });
        if waiting >= count {
            return;
        }
        assert!(Instant::now() < end, "{waiting} statements wait");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn of_two_sets_of_comments_one_stays() {
    let Some(server) = server::own() else { return };
    let config = config(&server, "comments", 2);
    let (one, two) = (Waited::open(&config).unwrap(), Waited::open(&config).unwrap());
    one.project("p");
    let id = one.session("p");
    one.write(json!({ "do": "upsertPr", "now": T, "pr": { "url": "u", "sessionId": id } }));
    // Readers see an empty table, and nobody can write to it yet.
    let hold = elsewhere(&server, "LOCK TABLE comments.pr_comment IN SHARE MODE".to_owned());
    let writers: Vec<_> = [(one.clone(), "a"), (two, "b")]
        .map(|(store, name)| {
            let comments = [1, 2].map(|index| json!({ "commentId": format!("{name}{index}"), "author": name }));
            let command = json!({ "do": "replacePrComments", "prUrl": "u", "comments": comments, "now": T });
            thread::spawn(move || store.write(command))
        })
        .into();
    until_blocked(&server, 2, || false);
    hold.send(()).unwrap();
    writers.into_iter().for_each(|writer| drop(writer.join().unwrap()));
    let stored = one.read(json!({ "do": "comments", "url": "u" }));
    let ids: Vec<&str> =
        stored.as_array().unwrap().iter().map(|comment| comment["commentId"].as_str().unwrap()).collect();
    assert!(ids == ["a1", "a2"] || ids == ["b1", "b2"], "{ids:?}");
}

#[test]
fn retention_does_not_pass_a_consumer_that_comes_meanwhile() {
    let Some(server) = server::own() else { return };
    let config = config(&server, "meanwhile", 2);
    let (one, two) = (Waited::open(&config).unwrap(), Waited::open(&config).unwrap());
    one.project("p");
    let id = one.session("p");
    one.changes(&id, 9);
    let hold = elsewhere(&server, "LOCK TABLE meanwhile.change_log IN SHARE MODE".to_owned());
    let pruning = one.clone();
    let pruner = thread::spawn(move || pruning.write(json!({ "do": "prune", "maxRows": 0, "now": T })));
    until_blocked(&server, 1, || false);
    let consume = json!({ "do": "consume", "consumer": "c", "limit": 100 });
    let (asking, question) = (two.clone(), consume.clone());
    let consumer = thread::spawn(move || asking.read(question));
    until_blocked(&server, 2, || consumer.is_finished());
    hold.send(()).unwrap();
    assert_eq!(pruner.join().unwrap(), 10);
    assert_eq!(consumer.join().unwrap(), json!([]), "it came after the retention");
    one.session("p");
    assert_eq!(two.read(consume).as_array().unwrap().len(), 1, "from then on everything is kept for it");
}

#[test]
fn retention_tells_what_it_removed_and_not_what_it_saw() {
    let Some(server) = server::own() else { return };
    let store = Waited::open(&config(&server, "removed", 2)).unwrap();
    store.project("p");
    let id = store.session("p");
    store.changes(&id, 9);
    let statements = "LOCK TABLE removed.change_log IN SHARE MODE; DELETE FROM removed.change_log WHERE seq <= 4";
    let hold = elsewhere(&server, statements.to_owned());
    let pruning = store.clone();
    let pruner = thread::spawn(move || pruning.write(json!({ "do": "prune", "maxRows": 0, "now": T })));
    until_blocked(&server, 1, || false);
    hold.send(()).unwrap();
    assert_eq!(pruner.join().unwrap(), 6);
}
