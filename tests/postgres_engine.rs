//! Promise: connecting, the pool, statements and transactions of the PostgreSQL engine do what they say against a real
//! server, and their errors tell no values.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/postgres.rs"]
mod server;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use holdfast::error::Code;
use holdfast::postgres::types::Type;
use holdfast::postgres::{Config, Param, Postgres, Step, is_transient};
use server::{PASSWORD, USER, close, number, outcome_unknown, run};

const SECRET: &str = "hunter2";

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

async fn setting(postgres: Postgres, name: &'static str) -> String {
    let client = postgres.client().await.unwrap();
    client.fetch("asking", "SELECT current_setting($1)", &[(&name, Type::TEXT)]).await.unwrap()[0].get(0)
}

#[test]
fn connects_in_every_form() {
    let Some(server) = server::shared().filter(|server| server.is_local()) else { return };
    let (port, home) = (server.port(), server.home().display());
    let password = PASSWORD.replace(' ', "%20").replace('@', "%40").replace('/', "%2F");
    let forms = [
        format!(
            "postgres://{USER}:{password}@localhost:{port}/postgres?application_name=form&options=-c+work_mem%3D5MB"
        ),
        format!(
            "postgresql://127.0.0.1:1,127.0.0.1:{port}/postgres?user={USER}&password={password}&application_name=form&options=-c%20work_mem=5MB"
        ),
        format!(
            "host=127.0.0.1 port={port} user={USER} password='{PASSWORD}' dbname=postgres application_name=form options='-c work_mem=5MB'"
        ),
        format!(
            "postgres:///postgres?host={home}&port={port}&user={USER}&application_name=form&options=-c%20work_mem%3D5MB"
        ),
        format!("socket:{home}?db=postgres&port={port}&user={USER}&application_name=form&options=-c+work_mem%3D5MB"),
    ];
    for form in forms {
        let postgres = Postgres::new(Config { connection_string: Some(form.clone()), ..Config::default() }).unwrap();
        assert_eq!(run(&postgres, setting(postgres.clone(), "application_name")), "form", "{form}");
        assert_eq!(run(&postgres, setting(postgres.clone(), "work_mem")), "5MB", "{form}");
        close(&postgres).unwrap();
    }
    let source: holdfast::postgres::PasswordSource = Arc::new(|| Box::pin(async { Ok(PASSWORD.to_owned()) }));
    let wrong = Some("not it".to_owned());
    let postgres = Postgres::new(Config { password: wrong, password_source: Some(source), ..server.config() }).unwrap();
    assert_eq!(run(&postgres, setting(postgres.clone(), "application_name")), "holdfast");
}

#[test]
fn failing_to_connect_tells_no_secret_and_takes_no_longer_than_allowed() {
    let Some(server) = server::shared().filter(|server| server.is_local()) else { return };
    let fails = |config: Config| {
        let postgres = Postgres::new(config).unwrap();
        let pg = postgres.clone();
        run(&postgres, async move { pg.client().await.err().unwrap() })
    };
    let error = fails(Config { password: Some(SECRET.into()), ..server.config() });
    assert_eq!((error.code(), error.fields()["sqlState"].as_str()), (Code::Database, Some("28P01")));
    assert!(!error.message().contains(SECRET) && !is_transient(&error), "{error}");

    let string = format!("postgres://u:{SECRET}@127.0.0.1:1/d");
    let error = fails(Config { connection_string: Some(string), ..Config::default() });
    assert_eq!(error.code(), Code::Unavailable);
    assert!(!error.message().contains(SECRET) && error.message().contains("127.0.0.1:1"), "{error}");
    assert!(is_transient(&error) && !outcome_unknown(&error));

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = Instant::now();
    let error = fails(Config {
        port: Some(silent.local_addr().unwrap().port()),
        connect_timeout: Some(ms(200)),
        ..server.config()
    });
    assert_eq!(error.code(), Code::Unavailable);
    assert!(start.elapsed() >= ms(200) && start.elapsed() < ms(2000), "{:?}", start.elapsed());
}

#[test]
fn the_pool_is_bounded_and_waiting_ends() {
    let Some(server) = server::shared() else { return };
    let config = Config {
        pool_size: 2,
        acquire_timeout: Some(ms(400)),
        application_name: Some("bounded".into()),
        ..server.config()
    };
    let postgres = Postgres::new(config).unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let used = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    for _ in 0..12 {
        let (pg, most, used, done) = (postgres.clone(), Arc::clone(&most), Arc::clone(&used), Arc::clone(&done));
        postgres.spawn(async move {
            let client = pg.client().await.unwrap();
            most.fetch_max(used.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            client.fetch("sleeping", "SELECT 1 FROM pg_sleep(0.02)", &[]).await.unwrap();
            used.fetch_sub(1, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    let start = Instant::now();
    while done.load(Ordering::SeqCst) < 12 && start.elapsed() < ms(5000) {
        sleep(ms(5));
    }
    assert_eq!((done.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (12, 2));
    assert_eq!(postgres.stats().opened, 2);

    let pg = postgres.clone();
    run(&postgres, async move {
        let (_a, _b) = (pg.client().await.unwrap(), pg.client().await.unwrap());
        let error = pg.client().await.err().unwrap();
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.message().contains("acquireTimeoutMs"), "{error}");
    });
}

#[test]
fn transactions_are_all_or_nothing() {
    let Some(server) = server::shared() else { return };
    let postgres = Postgres::new(Config { pool_size: 1, ..server.config() }).unwrap();
    let pg = postgres.clone();
    run(&postgres, async move {
        pg.client().await.unwrap().script("making", "CREATE TABLE tx (a int PRIMARY KEY)").await.unwrap();
        let values = vec![1, 2];
        let sum = pg
            .transaction(async |tx| {
                for value in &values {
                    tx.run("inserting", "INSERT INTO tx VALUES ($1)", &[(value, Type::INT4)]).await?;
                }
                Ok(values.iter().sum::<i32>())
            })
            .await;
        assert_eq!(sum.unwrap(), 3);

        // Its own error.
        let insert = "INSERT INTO tx VALUES ($1)";
        let result = pg
            .transaction(async |tx| {
                tx.run("inserting", insert, &[(&3, Type::INT4)]).await?;
                tx.run("inserting", insert, &[(&3, Type::INT4)]).await
            })
            .await;
        assert_eq!(result.unwrap_err().fields()["sqlState"], "23505");

        // An error that nobody looked at: the server would answer COMMIT with success.
        let result = pg
            .transaction(async |tx| {
                tx.run("inserting", insert, &[(&4, Type::INT4)]).await?;
                let _ = tx.run("inserting", insert, &[(&4, Type::INT4)]).await;
                Ok(())
            })
            .await;
        assert_eq!(result.unwrap_err().fields()["sqlState"], "25P02");

        // Dropped half way.
        let tx = pg.begin().await.unwrap();
        tx.run("inserting", insert, &[(&5, Type::INT4)]).await.unwrap();
        drop(tx);

        let client = pg.client().await.unwrap();
        assert_eq!(number(&client, "SELECT count(*) FROM tx").await, 2);
        assert_eq!(pg.stats().opened, 1);
    });
}

#[test]
fn a_pipelined_transaction_is_all_or_nothing() {
    let Some(server) = server::shared() else { return };
    for cache in [true, false] {
        let postgres = Postgres::new(Config { pool_size: 1, statement_cache: cache, ..server.config() }).unwrap();
        let pg = postgres.clone();
        run(&postgres, async move {
            let client = pg.client().await.unwrap();
            let table = format!("pipe_{cache}");
            let script = format!(
                "CREATE TABLE {table} (a int PRIMARY KEY, b text NOT NULL); CREATE TABLE {table}_late \
                 (a int REFERENCES {table} DEFERRABLE INITIALLY DEFERRED)"
            );
            client.script("making", &script).await.unwrap();
            let insert = format!("INSERT INTO {table} SELECT * FROM unnest($1, $2)");
            let late = format!("INSERT INTO {table}_late VALUES ($1)");
            let count = format!("SELECT count(*) FROM {table}");
            let (ids, texts) = (vec![1, 2, 3], vec!["a", "b", "c"]);
            let good = [(&ids as _, Type::INT4_ARRAY), (&texts as _, Type::TEXT_ARRAY)];
            let refers = [(&1i32 as _, Type::INT4)];
            let steps = [Step { sql: &insert, params: &good }, Step { sql: &late, params: &refers }];
            assert_eq!(client.pipelined_transaction("appending", &steps).await.unwrap(), [3, 1]);

            // A step that the server refuses.
            let (new, same) = ([(&vec![9] as _, Type::INT4_ARRAY), (&vec!["x"] as _, Type::TEXT_ARRAY)], good.clone());
            let steps = [Step { sql: &insert, params: &new }, Step { sql: &insert, params: &same }];
            let error = client.pipelined_transaction("appending", &steps).await.unwrap_err();
            assert_eq!((&error.fields()["sqlState"], &error.fields()["step"]), (&"23505".into(), &1.into()));
            assert!(!outcome_unknown(&error));
            assert_eq!(number(&client, &count).await, 3);

            // A value that cannot even be sent: the text does not fit the type.
            let unfit: [Param<'_>; 2] = [(&vec![8] as _, Type::INT4_ARRAY), (&vec![7] as _, Type::TEXT_ARRAY)];
            let steps = [Step { sql: &insert, params: &new }, Step { sql: &insert, params: &unfit }];
            let error = client.pipelined_transaction("appending", &steps).await.unwrap_err();
            assert_eq!(error.fields()["step"], 1);
            assert_eq!(number(&client, &count).await, 3);

            // A constraint that is looked at by COMMIT.
            let nobody = [(&77i32 as _, Type::INT4)];
            let steps = [Step { sql: &insert, params: &new }, Step { sql: &late, params: &nobody }];
            let error = client.pipelined_transaction("appending", &steps).await.unwrap_err();
            assert_eq!(error.fields()["sqlState"], "23503");
            assert!(!outcome_unknown(&error));
            assert_eq!(number(&client, &count).await, 3);
            drop(client);

            // Within another one its COMMIT would commit both.
            let tx = pg.begin().await.unwrap();
            tx.run("inserting", &insert, &new).await.unwrap();
            let error = tx.pipelined_transaction("appending", &[]).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            tx.rollback().await.unwrap();
            assert_eq!(number(&pg.client().await.unwrap(), &count).await, 3);
            assert_eq!(pg.stats().opened, 1);
        });
    }
}

#[test]
fn many_rows_go_as_arrays() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    let pg = postgres.clone();
    run(&postgres, async move {
        let client = pg.client().await.unwrap();
        client.script("making", "CREATE TABLE many (a int, b text, c text)").await.unwrap();
        let ids: Vec<i32> = (0..100_000).collect();
        let texts: Vec<Option<String>> = ids.iter().map(|id| (id % 2 == 0).then(|| id.to_string())).collect();
        let params = [(&ids as _, Type::INT4_ARRAY), (&texts as _, Type::TEXT_ARRAY), (&texts as _, Type::TEXT_ARRAY)];
        let sql = "INSERT INTO many SELECT * FROM unnest($1, $2, $3)";
        assert_eq!(client.run("appending", sql, &params).await.unwrap(), 100_000);
        assert_eq!(number(&client, "SELECT count(b) FROM many").await, 50_000);
    });
}

#[test]
fn errors_tell_names_and_no_values() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    let pg = postgres.clone();
    run(&postgres, async move {
        let client = pg.client().await.unwrap();
        let script = "CREATE TABLE told (a text PRIMARY KEY CHECK (length(a) < 20), n int); \
             CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN \
             IF NEW.n = 13 THEN RAISE EXCEPTION 'bad row %', NEW.a USING ERRCODE = '23514'; END IF; RETURN NEW; END $f$; \
             CREATE TRIGGER tell BEFORE INSERT ON told FOR EACH ROW EXECUTE FUNCTION tell(); \
             INSERT INTO told VALUES ('hunter2', 1)";
        client.script("making", script).await.unwrap();
        let long = SECRET.repeat(9);
        let insert = "INSERT INTO told VALUES ($1, $2)";
        let cast = "SELECT $1::text::int";
        let cases: [(&str, &[Param<'_>], &str); 7] = [
            (insert, &[(&SECRET, Type::TEXT), (&1, Type::INT4)], "23505"),
            (insert, &[(&long, Type::TEXT), (&1, Type::INT4)], "23514"),
            (insert, &[(&SECRET, Type::TEXT), (&13, Type::INT4)], "23514"),
            (insert, &[(&"hunter2\0", Type::TEXT), (&1, Type::INT4)], "22021"),
            (cast, &[(&SECRET, Type::TEXT)], "22P02"),
            ("SELECT * FROM nowhere.told WHERE a = $1", &[(&SECRET, Type::TEXT)], "42P01"),
            ("SELECT $1::text::jsonb", &[(&SECRET, Type::TEXT)], "22P02"),
        ];
        for (sql, params, state) in cases {
            let error = client.run("telling", sql, params).await.unwrap_err();
            assert_eq!((error.code(), &error.fields()["sqlState"]), (Code::Database, &state.into()), "{sql}: {error}");
            let all = format!("{error:?} {error} {:?}", error.fields());
            assert!(!all.contains(SECRET), "{all}");
            assert!(error.message().starts_with("telling failed"), "{error}");
            assert!(!outcome_unknown(&error));
        }
        let error = client.run("telling", insert, &[(&SECRET, Type::TEXT), (&1, Type::INT4)]).await.unwrap_err();
        assert_eq!((&error.fields()["table"], &error.fields()["constraint"]), (&"told".into(), &"told_pkey".into()));
        // A value of the wrong type is refused before it is sent.
        let error = client.run("telling", cast, &[(&SECRET, Type::INT4)]).await.unwrap_err();
        assert!(!error.message().contains(SECRET), "{error}");
    });
}

#[test]
fn statements_are_prepared_once_or_never() {
    let Some(server) = server::shared() else { return };
    for (cache, prepared) in [(true, 2), (false, 0)] {
        let postgres = Postgres::new(Config { pool_size: 1, statement_cache: cache, ..server.config() }).unwrap();
        let pg = postgres.clone();
        run(&postgres, async move {
            for turn in 0..5i32 {
                let client = pg.client().await.unwrap();
                let rows = client.fetch("asking", "SELECT $1 * 2", &[(&turn, Type::INT4)]).await.unwrap();
                assert_eq!(rows[0].get::<_, i32>(0), turn * 2);
            }
            let client = pg.client().await.unwrap();
            assert_eq!(number(&client, "SELECT count(*) FROM pg_prepared_statements").await, prepared);
        });
    }
}

#[test]
fn a_table_that_changed_under_a_statement_is_no_error() {
    let Some(server) = server::shared() else { return };
    let postgres = Postgres::new(Config { pool_size: 1, ..server.config() }).unwrap();
    let pg = postgres.clone();
    run(&postgres, async move {
        let client = pg.client().await.unwrap();
        client.script("making", "CREATE TABLE moving (a int); INSERT INTO moving VALUES (1)").await.unwrap();
        let read = "SELECT * FROM moving";
        assert_eq!(client.fetch("reading", read, &[]).await.unwrap()[0].len(), 1);
        client.script("changing", "ALTER TABLE moving ADD COLUMN b int").await.unwrap();
        assert_eq!(client.fetch("reading", read, &[]).await.unwrap()[0].len(), 2);
        client.script("forgetting", "DISCARD ALL").await.unwrap();
        assert_eq!(client.fetch("reading", read, &[]).await.unwrap()[0].len(), 2);
        // In a pipeline too: nothing was committed, so it goes out again as a whole.
        let insert = "INSERT INTO moving SELECT * FROM moving RETURNING *";
        let step = Step { sql: insert, params: &[] };
        client.pipelined_transaction("appending", &[step]).await.unwrap();
        client.script("changing", "ALTER TABLE moving ADD COLUMN c int").await.unwrap();
        assert_eq!(client.pipelined_transaction("appending", &[step]).await.unwrap(), [2]);
        assert_eq!(number(&client, "SELECT count(*) FROM moving").await, 4);
    });
}

#[test]
fn an_abandoned_call_does_not_delay_the_next() {
    let Some(server) = server::shared() else { return };
    let postgres = Postgres::new(Config { pool_size: 1, ..server.config() }).unwrap();
    let pg = postgres.clone();
    run(&postgres, async move {
        let client = pg.client().await.unwrap();
        let sleeping = client.fetch("sleeping", "SELECT 1 FROM pg_sleep(19)", &[]);
        assert!(tokio::time::timeout(ms(50), sleeping).await.is_err());
        drop(client);
        let start = Instant::now();
        let client = pg.client().await.unwrap();
        assert_eq!(number(&client, "SELECT 1::bigint").await, 1);
        assert!(start.elapsed() < ms(5000));
        assert_eq!(pg.stats().opened, 2);
        // The server does not go on with it either.
        let still =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(19)%' AND pid <> pg_backend_pid()";
        while number(&client, still).await > 0 {
            assert!(start.elapsed() < ms(5000));
            tokio::time::sleep(ms(10)).await;
        }
    });
}

async fn sessions(postgres: &Postgres, name: &'static str) -> i64 {
    let client = postgres.client().await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    client.fetch("counting", sql, &[(&name, Type::TEXT)]).await.unwrap()[0].get(0)
}

#[test]
fn idle_connections_are_closed() {
    let Some(server) = server::shared() else { return };
    let config = Config { idle_timeout: Some(ms(1000)), application_name: Some("idler".into()), ..server.config() };
    let (idler, watcher) = (Postgres::new(config).unwrap(), server.connect());
    let (pg, watching) = (idler.clone(), watcher.clone());
    run(&watcher, async move {
        let (a, b) = (pg.client().await.unwrap(), pg.client().await.unwrap());
        drop((a, b));
        // What is used stays.
        for _ in 0..15 {
            tokio::time::sleep(ms(100)).await;
            drop(pg.client().await.unwrap());
        }
        assert_eq!((pg.stats().connections, pg.stats().opened), (1, 2));
        let start = Instant::now();
        while pg.stats().connections > 0 || sessions(&watching, "idler").await > 0 {
            assert!(start.elapsed() < ms(5000));
            tokio::time::sleep(ms(20)).await;
        }
        assert!(start.elapsed() > ms(800), "not before its time");
    });
}

#[test]
fn close_waits_for_running_work_and_refuses_new() {
    let Some(server) = server::shared() else { return };
    let config = Config { application_name: Some("closing".into()), ..server.config() };
    let (postgres, watcher) = (Postgres::new(config).unwrap(), server.connect());
    let finished = Arc::new(AtomicBool::new(false));
    let (pg, done) = (postgres.clone(), Arc::clone(&finished));
    postgres.spawn(async move {
        pg.client().await.unwrap().fetch("sleeping", "SELECT 1 FROM pg_sleep(0.3)", &[]).await.unwrap();
        // Begun before the close: it may still take a connection.
        pg.client().await.unwrap().fetch("asking", "SELECT 1", &[]).await.unwrap();
        done.store(true, Ordering::SeqCst);
    });
    sleep(ms(100));
    let late = std::thread::spawn({
        let postgres = postgres.clone();
        move || {
            sleep(ms(50));
            let pg = postgres.clone();
            run(&postgres, async move { pg.client().await.err().map(|error| error.code()) })
        }
    });
    close(&postgres).unwrap();
    assert!(finished.load(Ordering::SeqCst));
    assert_eq!(late.join().unwrap(), Some(Code::Closed));
    close(&postgres).unwrap();
    let watching = watcher.clone();
    assert_eq!(run(&watcher, async move { sessions(&watching, "closing").await }), 0);
}

#[test]
fn close_does_not_wait_for_ever() {
    let Some(server) = server::shared() else { return };
    let (watcher, postgres) =
        (server.connect(), Postgres::new(Config { close_timeout: Some(ms(200)), ..server.config() }).unwrap());
    let pg = postgres.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    postgres.spawn(async move {
        let client = pg.client().await.unwrap();
        client.script("making", "CREATE TABLE cut_off (a int)").await.unwrap();
        let insert = "INSERT INTO cut_off SELECT 1 FROM pg_sleep(18)";
        let _ = sender.send(client.run("inserting", insert, &[]).await);
    });
    let watching = watcher.clone();
    run(&watcher, async move {
        let client = watching.client().await.unwrap();
        let running =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(18)' AND wait_event = 'PgSleep'";
        while number(&client, running).await == 0 {
            tokio::time::sleep(ms(10)).await;
        }
    });
    let start = Instant::now();
    assert_eq!(close(&postgres).unwrap_err().code(), Code::Unavailable);
    assert!(start.elapsed() < ms(3000));
    let error = receiver.recv_timeout(ms(3000)).unwrap().unwrap_err();
    assert!(error.code() == Code::Unavailable && outcome_unknown(&error), "{error}");
}

/// `cargo test --release --no-default-features --test postgres_engine figures -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn figures() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    let pg = postgres.clone();
    run(&postgres, async move {
        let median = |mut all: Vec<Duration>| {
            all.sort_unstable();
            all[all.len() / 2]
        };
        let mut connects = Vec::new();
        for _ in 0..20 {
            let fresh = Postgres::new(server.config()).unwrap();
            let start = Instant::now();
            drop(fresh.client().await.unwrap());
            connects.push(start.elapsed());
        }
        println!("connect: median {:?}", median(connects));
        let client = pg.client().await.unwrap();
        client.script("making", "CREATE TABLE figures (id bigint, a text, b text)").await.unwrap();
        let insert = "INSERT INTO figures SELECT * FROM unnest($1, $2, $3)";
        for rows in [1usize, 10, 100, 1000] {
            let ids: Vec<i64> = (0..1i64 << 40).take(rows).collect();
            let texts = vec!["some text of an ordinary length"; rows];
            let params: [Param<'_>; 3] =
                [(&ids, Type::INT8_ARRAY), (&texts, Type::TEXT_ARRAY), (&texts, Type::TEXT_ARRAY)];
            let step = Step { sql: insert, params: &params };
            let (mut trips, mut alone, mut piped, mut held) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for _ in 0..500 {
                let start = Instant::now();
                client.fetch("asking", "SELECT $1 + 1", &[(&1i32, Type::INT4)]).await.unwrap();
                trips.push(start.elapsed());
                let start = Instant::now();
                client.run("inserting", insert, &params).await.unwrap();
                alone.push(start.elapsed());
                let start = Instant::now();
                client.pipelined_transaction("inserting", &[step, step]).await.unwrap();
                piped.push(start.elapsed());
                let start = Instant::now();
                client.script("beginning", "BEGIN").await.unwrap();
                client.run("inserting", insert, &params).await.unwrap();
                client.run("inserting", insert, &params).await.unwrap();
                client.script("committing", "COMMIT").await.unwrap();
                held.push(start.elapsed());
            }
            println!(
                "{rows} rows: round trip {:?}, insert alone {:?}, pipelined transaction of two {:?}, one by one {:?}",
                median(trips),
                median(alone),
                median(piped),
                median(held)
            );
        }
    });
}
