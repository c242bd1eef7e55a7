//! Promise: whatever becomes of server and network, a commit that was answered is there, one that failed is not, and one
//! whose answer was lost says so; connections and listeners come back by themselves.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/postgres.rs"]
mod server;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};

use holdfast::error::{Code, Result};
use holdfast::postgres::types::Type;
use holdfast::postgres::{Config, Notice, Postgres, Step};
use proxy::Proxy;
use server::{Server, close, number, outcome_unknown, run};

const INSERT: &str = "INSERT INTO public.effects VALUES ($1)";

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn script(postgres: &Postgres, sql: &'static str) {
    let pg = postgres.clone();
    run(postgres, async move { pg.client().await.unwrap().script("preparing", sql).await.unwrap() });
}

fn count(postgres: &Postgres, sql: &'static str) -> i64 {
    let pg = postgres.clone();
    run(postgres, async move { number(&pg.client().await.unwrap(), sql).await })
}

fn through(server: &Server, proxy: &Proxy) -> Postgres {
    Postgres::new(Config { port: Some(proxy.port), pool_size: 1, ..server.config() }).unwrap()
}

#[test]
fn a_pipelined_transaction_takes_one_round_trip() {
    let Some(server) = server::shared().filter(|server| server.is_local()) else { return };
    let proxy = Proxy::start(server.port());
    for cache in [true, false] {
        let config = Config { port: Some(proxy.port), pool_size: 1, statement_cache: cache, ..server.config() };
        let postgres = Postgres::new(config).unwrap();
        proxy.delay(0);
        let pg = postgres.clone();
        let proxy = &proxy;
        let (ready, delayed) = (mpsc::channel(), mpsc::channel());
        let (tell, wait) = (ready.0, delayed.1);
        let measured = std::thread::scope(|scope| {
            let running = scope.spawn(move || {
                run(&postgres, async move {
                    let client = pg.client().await.unwrap();
                    client.script("making", "CREATE TEMP TABLE t (a int)").await.unwrap();
                    let one = [(&1i32 as _, Type::INT4)];
                    let steps = [Step { sql: "INSERT INTO t VALUES ($1)", params: &one }; 3];
                    client.pipelined_transaction("warming up", &steps).await.unwrap();
                    tell.send(()).unwrap();
                    wait.recv().unwrap();
                    let start = Instant::now();
                    client.pipelined_transaction("appending", &steps).await.unwrap();
                    let pipelined = start.elapsed();
                    let start = Instant::now();
                    pg_one_by_one(&client, &steps).await;
                    (pipelined, start.elapsed())
                })
            });
            ready.1.recv().unwrap();
            proxy.delay(100);
            delayed.0.send(()).unwrap();
            running.join().unwrap()
        });
        println!("cache {cache}: pipelined {:?}, one by one {:?}", measured.0, measured.1);
        assert!(measured.0 >= ms(100) && measured.0 * 2 < measured.1, "{measured:?}");
        assert!(measured.1 >= ms(500), "{measured:?}");
    }
}

/// The same without pipelining, to see that the measurement can tell.
async fn pg_one_by_one(client: &holdfast::postgres::Client, steps: &[Step<'_>]) {
    client.script("beginning", "BEGIN").await.unwrap();
    for step in steps {
        client.run("appending", step.sql, step.params).await.unwrap();
    }
    client.script("committing", "COMMIT").await.unwrap();
}

#[test]
fn a_lost_answer_to_commit_is_told_and_a_retry_does_no_harm() {
    let Some(server) = server::own() else { return };
    let proxy = Arc::new(Proxy::start(server.port()));
    let (direct, postgres) = (server.connect(), through(&server, &proxy));
    script(&direct, "CREATE TABLE public.effects (id bigint PRIMARY KEY)");
    let (pg, cut) = (postgres.clone(), Arc::clone(&proxy));
    run(&postgres, async move {
        // Held open, then committed.
        let tx = pg.begin().await.unwrap();
        tx.run("inserting", INSERT, &[(&1i64, Type::INT8)]).await.unwrap();
        cut.lose_answers(true);
        let error = tx.commit().await.unwrap_err();
        assert!(error.code() == Code::Unavailable && outcome_unknown(&error), "{error}");
        cut.lose_answers(false);

        // With the goodbye of a session that was ended after it had committed, before it had answered.
        let tx = pg.begin().await.unwrap();
        tx.run("inserting", INSERT, &[(&11i64, Type::INT8)]).await.unwrap();
        cut.terminate(true);
        let error = tx.commit().await.unwrap_err();
        assert_eq!(error.fields()["sqlState"], "57P01");
        assert!(error.code() == Code::Unavailable && outcome_unknown(&error), "{error}");
        cut.terminate(false);

        // In one round trip.
        let client = pg.client().await.unwrap();
        let two = [(&2i64 as _, Type::INT8)];
        client.prepare_typed_cached(INSERT, &[Type::INT8]).await.unwrap();
        cut.lose_answers(true);
        let step = Step { sql: INSERT, params: &two };
        let error = client.pipelined_transaction("appending", &[step]).await.unwrap_err();
        assert!(error.code() == Code::Unavailable && outcome_unknown(&error), "{error}");
        drop(client);
        cut.lose_answers(false);

        // Without a transaction.
        let client = pg.client().await.unwrap();
        client.prepare_typed_cached(INSERT, &[Type::INT8]).await.unwrap();
        cut.lose_answers(true);
        let error = client.run("inserting", INSERT, &[(&3i64, Type::INT8)]).await.unwrap_err();
        assert!(outcome_unknown(&error), "{error}");
        drop(client);
        cut.lose_answers(false);

        // Before COMMIT was sent, nothing is unknown.
        let tx = pg.begin().await.unwrap();
        cut.lose_answers(true);
        let error = tx.run("inserting", INSERT, &[(&4i64, Type::INT8)]).await.unwrap_err();
        assert!(error.code() == Code::Unavailable && !outcome_unknown(&error), "{error}");
        drop(tx);

        // What may be done twice is tried again until the network is back.
        let back = Arc::clone(&cut);
        tokio::spawn(async move {
            tokio::time::sleep(ms(300)).await;
            back.lose_answers(false);
        });
        let sql = "INSERT INTO public.effects VALUES ($1) ON CONFLICT DO NOTHING";
        let attempt = async || -> Result<()> {
            pg.client().await?.run("inserting", sql, &[(&5i64, Type::INT8)]).await?;
            Ok(())
        };
        pg.retry_idempotent(ms(10_000), attempt).await.unwrap();
        cut.lose_answers(true);
        let start = Instant::now();
        let error = pg.retry_idempotent(ms(300), attempt).await.unwrap_err();
        assert!(error.code() == Code::Unavailable && start.elapsed() < ms(3000), "{error}");
    });
    assert_eq!(count(&direct, "SELECT count(*) FROM public.effects WHERE id IN (1, 2, 3, 5, 11)"), 5);
    assert_eq!(count(&direct, "SELECT count(*) FROM public.effects WHERE id = 4"), 0);
}

/// What became of each insert under load.
#[derive(Default)]
struct Outcomes {
    done: HashSet<i64>,
    refused: HashSet<i64>,
    unknown: HashSet<i64>,
    slowest: Duration,
}

/// Four writers that use transactions of both kinds and repeat nothing, while `disturb` runs.
fn under_load(postgres: &Postgres, disturb: impl FnOnce()) -> Outcomes {
    let stop = Arc::new(AtomicBool::new(false));
    let outcomes = Arc::new(Mutex::new(Outcomes::default()));
    let next = Arc::new(AtomicI64::new(0));
    let (sender, receiver) = mpsc::channel();
    for writer in 0..4 {
        let (pg, stop, outcomes) = (postgres.clone(), Arc::clone(&stop), Arc::clone(&outcomes));
        let (next, sender) = (Arc::clone(&next), sender.clone());
        postgres.spawn(async move {
            let mut last = Instant::now();
            while !stop.load(Ordering::SeqCst) {
                let id = next.fetch_add(1, Ordering::SeqCst);
                let value = [(&id as _, Type::INT8)];
                let result = if writer % 2 == 0 {
                    let held = async |tx: &holdfast::postgres::Transaction| tx.run("inserting", INSERT, &value).await;
                    pg.transaction(held).await.map(drop)
                } else {
                    match pg.client().await {
                        Ok(client) => {
                            let step = Step { sql: INSERT, params: &value };
                            client.pipelined_transaction("inserting", &[step]).await.map(drop)
                        }
                        Err(error) => Err(error),
                    }
                };
                let refused = result.as_ref().is_err_and(|error| !outcome_unknown(error));
                {
                    let mut outcomes = outcomes.lock().unwrap();
                    match result {
                        Ok(()) => {
                            outcomes.slowest = outcomes.slowest.max(last.elapsed());
                            last = Instant::now();
                            outcomes.done.insert(id);
                        }
                        Err(error) => {
                            assert_eq!(error.code(), Code::Unavailable, "{error}");
                            if refused {
                                outcomes.refused.insert(id)
                            } else {
                                outcomes.unknown.insert(id)
                            };
                        }
                    }
                }
                if refused {
                    tokio::time::sleep(ms(5)).await;
                }
            }
            let _ = sender.send(());
        });
    }
    drop(sender);
    sleep(ms(300));
    disturb();
    sleep(ms(500));
    stop.store(true, Ordering::SeqCst);
    for _ in 0..4 {
        receiver.recv_timeout(ms(30_000)).expect("no writer panicked or hangs");
    }
    std::mem::take(&mut *outcomes.lock().unwrap())
}

fn judge(direct: &Postgres, outcomes: &Outcomes, what: &str) {
    let pg = direct.clone();
    let found: Vec<i64> = run(direct, async move {
        let client = pg.client().await.unwrap();
        let rows = client.fetch("reading", "SELECT id FROM public.effects", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    });
    let there: HashSet<i64> = found.iter().copied().collect();
    println!(
        "{what}: {} done, {} refused, {} unknown ({} of them there), longest pause {:?}",
        outcomes.done.len(),
        outcomes.refused.len(),
        outcomes.unknown.len(),
        outcomes.unknown.intersection(&there).count(),
        outcomes.slowest
    );
    assert_eq!(found.len(), there.len(), "double effects");
    assert_eq!(outcomes.done.difference(&there).count(), 0, "lost acks");
    assert_eq!(outcomes.refused.intersection(&there).count(), 0, "refused, and there all the same");
    assert!(there.iter().all(|id| outcomes.done.contains(id) || outcomes.unknown.contains(id)), "from nowhere");
    assert!(outcomes.done.len() > 100, "hardly any load");
}

#[test]
fn terminated_sessions_lose_nothing() {
    let Some(server) = server::own() else { return };
    let (direct, postgres) = (
        server.connect(),
        Postgres::new(Config { application_name: Some("victim".into()), ..server.config() }).unwrap(),
    );
    // No key: a double effect must be able to show.
    script(&direct, "CREATE TABLE public.effects (id bigint)");
    let mut killed = 0;
    let outcomes = under_load(&postgres, || {
        for _ in 0..60 {
            killed += count(
                &direct,
                "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                 WHERE application_name = 'victim' ORDER BY random() LIMIT 1) one",
            );
            sleep(ms(15));
        }
    });
    judge(&direct, &outcomes, &format!("{killed} sessions terminated"));
    assert!(killed > 30 && outcomes.refused.len() + outcomes.unknown.len() > 5);
    assert!(outcomes.slowest < ms(10_000), "{:?}", outcomes.slowest);
}

#[test]
fn a_killed_server_loses_nothing_and_is_found_again() {
    let Some(mut server) = server::own() else { return };
    let (direct, postgres) = (server.connect(), server.connect());
    script(&direct, "CREATE TABLE public.effects (id bigint)");
    let mut back = Duration::ZERO;
    let outcomes = under_load(&postgres, || {
        for _ in 0..2 {
            server.kill();
            sleep(ms(200));
            let start = Instant::now();
            server.start_again(&[]);
            back = back.max(start.elapsed());
            sleep(ms(300));
        }
    });
    judge(&direct, &outcomes, &format!("2 kills, server back after {back:?}"));
    assert!(outcomes.slowest < back + ms(10_000), "{:?}", outcomes.slowest);

    // Idle connections that broke meanwhile are replaced without anybody noticing.
    server.stop();
    server.start_again(&[]);
    assert!(count(&postgres, "SELECT count(*) FROM public.effects") > 0);
    close(&postgres).unwrap();
}

#[test]
fn listening_goes_on_after_the_connection_broke() {
    let Some(server) = server::own() else { return };
    let postgres = server.connect();
    let (sender, receiver) = mpsc::channel();
    let listener = postgres.listen("my \"channel\"", move |notice| drop(sender.send(notice)));
    let next = || receiver.recv_timeout(ms(10_000)).expect("a notice");
    let notify = "SELECT count(pg_notify('my \"channel\"', 'hello')::text)";
    assert!(matches!(next(), Notice::Reconnected));
    count(&postgres, notify);
    assert!(matches!(next(), Notice::Message(payload) if payload == "hello"));
    for _ in 0..3 {
        let start = Instant::now();
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
        assert_eq!(count(&postgres, kill), 1);
        let lost = next();
        assert!(matches!(&lost, Notice::Lost(error) if error.code() == Code::Unavailable), "{lost:?}");
        assert!(matches!(next(), Notice::Reconnected));
        println!("listening again after {:?}", start.elapsed());
        assert!(start.elapsed() < ms(3000));
        count(&postgres, notify);
        assert!(matches!(next(), Notice::Message(_)));
    }
    drop(listener);
    let listeners = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    let start = Instant::now();
    while count(&postgres, listeners) > 0 {
        assert!(start.elapsed() < ms(5000), "dropping it ends the session");
        sleep(ms(10));
    }
    count(&postgres, notify);
    assert!(receiver.recv_timeout(ms(200)).is_err());
}

#[test]
fn listening_ends_with_the_handle_and_tells_what_is_wrong_with_a_name() {
    let Some(server) = server::shared() else { return };
    let (postgres, watcher) = (server.connect(), server.connect());
    let (sender, receiver) = mpsc::channel();
    let bad = sender.clone();
    let _bad = postgres.listen(&"x".repeat(64), move |notice| drop(bad.send(notice)));
    let notice = receiver.recv_timeout(ms(5000)).unwrap();
    assert!(matches!(&notice, Notice::Lost(error) if error.code() == Code::InvalidArgument), "{notice:?}");
    let _good = postgres.listen("closing_channel", move |notice| drop(sender.send(notice)));
    assert!(matches!(receiver.recv_timeout(ms(5000)).unwrap(), Notice::Reconnected));
    close(&postgres).unwrap();
    let start = Instant::now();
    while count(&watcher, "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN \"closing_channel\"'") > 0 {
        assert!(start.elapsed() < ms(5000));
        sleep(ms(10));
    }
}
