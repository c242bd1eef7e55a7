//! Promise: blobs in PostgreSQL are whole, durable, and the first of a key wins, in holdfast's table and in the original's;
//! the table is made once, by whoever comes first; errors tell no secrets.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/postgres.rs"]
mod server;
#[path = "support/blobs.rs"]
mod support;

use std::net::TcpListener;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use holdfast::blobs::{BlobStore, Encoding, Gate, PostgresBlobs, PostgresOptions};
use holdfast::error::Code;
use holdfast::postgres::{Config, Postgres};
use server::{Server, number, run};
use support::{bytes, closes, contract, delete, get, has, keeps, list, put, race};

fn options(server: &Server, table: &str, encoding: Encoding) -> PostgresOptions {
    PostgresOptions { config: server.config(), table: Some(table.into()), encoding }
}

fn store(server: &Server, table: &str, encoding: Encoding) -> PostgresBlobs {
    PostgresBlobs::new(options(server, table, encoding)).unwrap()
}

fn script(postgres: &Postgres, sql: &str) {
    let (pg, sql) = (postgres.clone(), sql.to_owned());
    run(postgres, async move { pg.client().await.unwrap().script("preparing", &sql).await.unwrap() });
}

fn ask(postgres: &Postgres, sql: &str) -> i64 {
    let (pg, sql) = (postgres.clone(), sql.to_owned());
    run(postgres, async move { number(&pg.client().await.unwrap(), &sql).await })
}

#[test]
fn a_server_that_keeps_silent_does_not_hold_the_end() {
    // Connections are taken by the system, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection_string =
        Some(format!("postgres://user:hunter2@{}/db?sslmode=disable", silent.local_addr().unwrap()));
    let config = Config { connection_string, ..Config::default() };
    let store = Gate::new(PostgresBlobs::new(PostgresOptions { config, ..PostgresOptions::default() }).unwrap());
    let (sender, receiver) = mpsc::channel();
    for number in 0..40 {
        let sender = sender.clone();
        store.get(format!("k{number}"), Box::new(move |end| sender.send(end).unwrap()));
    }
    let begun = Instant::now();
    support::close(&store).unwrap();
    for _ in 0..40 {
        assert_eq!(receiver.recv().unwrap().unwrap_err().code(), Code::Closed);
    }
    assert!(begun.elapsed() < Duration::from_secs(9), "it took {:?}", begun.elapsed());
}

#[test]
fn both_encodings_keep_the_contract() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    contract(&store(server, "contract_bytea", Encoding::Bytea));
    contract(&store(server, "contract_text", Encoding::Base64Text));
    script(&postgres, "DROP SCHEMA IF EXISTS \"Some$chema\" CASCADE; CREATE SCHEMA \"Some$chema\"");
    contract(&store(server, "Some$chema.Blobs", Encoding::Bytea));
    assert_eq!(ask(&postgres, "SELECT count(*) FROM \"Some$chema\".\"Blobs\""), 0);
    let config = Config { statement_cache: false, ..server.config() };
    let table = Some("contract_uncached".into());
    contract(&PostgresBlobs::new(PostgresOptions { config, table, encoding: Encoding::Bytea }).unwrap());
    closes(&store(server, "contract_closes", Encoding::Bytea));
    for encoding in [Encoding::Bytea, Encoding::Base64Text] {
        let table = if encoding == Encoding::Bytea { "race_bytea" } else { "race_text" };
        let stores: Vec<Arc<dyn BlobStore>> =
            (0..3).map(|_| Arc::new(store(server, table, encoding)) as Arc<dyn BlobStore>).collect();
        race(&stores, 6, true);
    }
    // A text of the server cannot hold this key: it is not there, and a put says why.
    let store = store(server, "contract_bytea", Encoding::Bytea);
    assert!(!has(&store, "a\0b").unwrap() && get(&store, "a\0b").unwrap().is_none());
    delete(&store, "a\0b").unwrap();
    assert_eq!(put(&store, "a\0b", b"1").unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn the_table_is_made_by_the_first_put_of_many() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    for round in 0..5 {
        let table = format!("made_{round}");
        let barrier = Arc::new(Barrier::new(8));
        let stores: Vec<Arc<PostgresBlobs>> =
            (0..8).map(|_| Arc::new(store(server, &table, Encoding::Bytea))).collect();
        // Reading makes nothing.
        assert_eq!(get(&*stores[0], "k").unwrap(), None);
        assert_eq!(list(&*stores[1]).unwrap(), Vec::<String>::new());
        assert!(!has(&*stores[2], "k").unwrap());
        delete(&*stores[3], "k").unwrap();
        assert_eq!(ask(&postgres, &format!("SELECT count(*) FROM pg_tables WHERE tablename = '{table}'")), 0);
        let threads: Vec<_> = (0u8..)
            .zip(&stores)
            .map(|(seed, store)| {
                let (store, barrier) = (Arc::clone(store), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    put(&*store, "k", &[seed]).unwrap();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(ask(&postgres, &format!("SELECT count(*) FROM {table}")), 1);
    }
    // Dropped behind our back: told once, then made anew.
    let store = store(server, "made_0", Encoding::Bytea);
    put(&store, "l", b"1").unwrap();
    script(&postgres, "DROP TABLE made_0");
    assert_eq!(put(&store, "m", b"1").unwrap_err().code(), Code::Database);
    put(&store, "m", b"1").unwrap();
    assert_eq!(list(&store).unwrap(), ["m"]);
}

#[test]
fn one_connection_is_enough_for_many_calls_at_once() {
    let Some(server) = server::shared() else { return };
    let config = Config { pool_size: 1, acquire_timeout: Some(Duration::from_secs(10)), ..server.config() };
    let table = Some("narrow".into());
    let store = PostgresBlobs::new(PostgresOptions { config, table, encoding: Encoding::Bytea }).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    for n in 0..24 {
        let sender = sender.clone();
        match n % 3 {
            0 => store.put(format!("k{n}"), vec![1], Box::new(move |end| drop(sender.send(end)))),
            1 => store.has("k".into(), Box::new(move |end| drop(sender.send(end.map(drop))))),
            _ => store.list(Box::new(move |end| drop(sender.send(end.map(drop))))),
        }
    }
    (0..24).for_each(|_| receiver.recv_timeout(Duration::from_secs(30)).unwrap().unwrap());
    assert_eq!(list(&store).unwrap().len(), 8);
}

#[test]
fn the_tables_have_the_columns_of_the_format() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    for table in ["holdfast_blobs", "script_package_blob_data"] {
        script(&postgres, &format!("DROP TABLE IF EXISTS {table}"));
    }
    let own = PostgresBlobs::new(PostgresOptions { config: server.config(), ..PostgresOptions::default() }).unwrap();
    put(&own, "k", b"123").unwrap();
    let sha256 = holdfast::hash::sha256_hex(b"123");
    let row = format!(
        "SELECT count(*) FROM holdfast_blobs WHERE integrity = 'k' AND data = '123'::bytea AND sha256 = '{sha256}' \
         AND size_bytes = 3 AND created_at > now() - interval '1 minute' AND pg_typeof(created_at) = 'timestamptz'::regtype"
    );
    assert_eq!(ask(&postgres, &row), 1);

    // The original's table, made by it, with its rows; perhaps no default for the time.
    script(
        &postgres,
        "CREATE TABLE script_package_blob_data (integrity text PRIMARY KEY, data text NOT NULL, size_bytes bigint NOT NULL, \
         created_at timestamp NOT NULL); INSERT INTO script_package_blob_data VALUES ('theirs', 'aGVsbG8=', 5, now())",
    );
    let encoding = Encoding::Base64Text;
    let theirs = PostgresBlobs::new(PostgresOptions { config: server.config(), table: None, encoding }).unwrap();
    assert_eq!(get(&theirs, "theirs").unwrap(), Some(b"hello".into()));
    let blob = bytes(1, 1000);
    put(&theirs, "ours", &blob).unwrap();
    put(&theirs, "theirs", b"other").unwrap();
    assert_eq!(get(&theirs, "ours").unwrap(), Some(blob));
    // In one line, as the original writes it.
    let lines = "SELECT count(*) FROM script_package_blob_data WHERE data !~ '\\s' AND length(data) % 4 = 0";
    assert_eq!(ask(&postgres, lines), 2);
    assert_eq!(list(&theirs).unwrap(), ["ours", "theirs"]);
    script(&postgres, "UPDATE script_package_blob_data SET data = 'aGV*sbG8=' WHERE integrity = 'theirs'");
    assert_eq!(get(&theirs, "theirs").unwrap_err().code(), Code::Corrupt);

    // The wrong encoding is refused, with the way out.
    let wrong = store(server, "script_package_blob_data", Encoding::Bytea);
    for error in [put(&wrong, "k", b"1").unwrap_err(), get(&wrong, "k").unwrap_err()] {
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("base64-text"), "{error}");
    }
    script(&postgres, "DROP TABLE IF EXISTS no_blobs; CREATE TABLE no_blobs (a int)");
    assert_eq!(list(&store(server, "no_blobs", Encoding::Bytea)).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn lists_of_several_pages() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    let store = store(server, "pages", Encoding::Bytea);
    put(&store, "k", b"1").unwrap();
    script(&postgres, "INSERT INTO pages SELECT 'sha-' || n, '', NULL, 0 FROM generate_series(1, 2999) n");
    let keys = list(&store).unwrap();
    assert_eq!(keys.len(), 3000);
    assert!(keys.is_sorted());
}

#[test]
fn a_damaged_row_is_an_error_and_not_an_answer() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    let store = store(server, "damaged", Encoding::Bytea);
    put(&store, "k", b"12345").unwrap();
    script(&postgres, "UPDATE damaged SET data = substr(data, 1, 4)");
    let error = get(&store, "k").unwrap_err();
    assert_eq!(error.code(), Code::Corrupt);
    assert!(error.message().contains("the table damaged"), "{error}");
    delete(&store, "k").unwrap();
    put(&store, "k", b"1").unwrap();
    assert_eq!(get(&store, "k").unwrap(), Some(b"1".into()));
}

#[test]
fn puts_are_durable_whatever_the_role_prefers() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    put(&store(server, "durable", Encoding::Bytea), "first", b"1").unwrap();
    script(&postgres, "ALTER TABLE durable ADD COLUMN how text DEFAULT current_setting('synchronous_commit')");
    for (preferred, used) in [("off", "on"), ("local", "local"), ("on", "on")] {
        let config = Config { options: Some(format!("-c synchronous_commit={preferred}")), ..server.config() };
        let table = Some("durable".into());
        let store = PostgresBlobs::new(PostgresOptions { config, table, encoding: Encoding::Bytea }).unwrap();
        put(&store, preferred, b"1").unwrap();
        let row = format!("SELECT count(*) FROM durable WHERE integrity = '{preferred}' AND how = '{used}'");
        assert_eq!(ask(&postgres, &row), 1, "{preferred}");
    }
}

#[test]
fn a_reader_needs_no_right_to_create() {
    let Some(server) = server::shared().filter(|server| server.is_local()) else { return };
    let postgres = server.connect();
    script(
        &postgres,
        "CREATE ROLE blob_reader LOGIN PASSWORD 'hunter2'; REVOKE CREATE ON SCHEMA public FROM PUBLIC, blob_reader",
    );
    put(&store(server, "readable", Encoding::Bytea), "k", b"1").unwrap();
    script(&postgres, "GRANT SELECT ON readable TO blob_reader");
    let config = Config { user: Some("blob_reader".into()), password: Some("hunter2".into()), ..server.config() };
    let reader = |table: &str| {
        let table = Some(table.into());
        PostgresBlobs::new(PostgresOptions { config: config.clone(), table, encoding: Encoding::Bytea }).unwrap()
    };
    assert_eq!(get(&reader("readable"), "k").unwrap(), Some(b"1".into()));
    assert_eq!(get(&reader("unmade"), "k").unwrap(), None);
    for error in [put(&reader("unmade"), "k", b"1").unwrap_err(), put(&reader("readable"), "l", b"1").unwrap_err()] {
        assert_eq!((error.code(), &error.fields()["sqlState"]), (Code::Database, &"42501".into()), "{error}");
        keeps("hunter2", &error);
    }
}

#[test]
fn errors_tell_no_secrets() {
    let connection_string = Some("postgres://u:hunter2@127.0.0.1:1/d".to_owned());
    let config = Config { connection_string, ..Config::default() };
    let store = PostgresBlobs::new(PostgresOptions { config, ..PostgresOptions::default() }).unwrap();
    let error = get(&store, "k").unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    keeps("hunter2", &error);
    for config in [
        Config { connection_string: Some("mysql://u:hunter2@h".into()), ..Config::default() },
        Config { connection_string: Some("hunter2".into()), ..Config::default() },
    ] {
        let error = PostgresBlobs::new(PostgresOptions { config, ..PostgresOptions::default() }).err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument);
        keeps("hunter2", &error);
    }
    let table = Some("a\"; DROP TABLE b".to_owned());
    let error = PostgresBlobs::new(PostgresOptions { table, ..PostgresOptions::default() }).err().unwrap();
    assert_eq!(error.code(), Code::InvalidArgument);
}
