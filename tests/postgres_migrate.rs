//! Promise: migrations are applied once, all or none, whoever comes at the same time, and a newer schema is left alone.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/postgres.rs"]
mod server;

use std::sync::mpsc;
use std::time::Duration;

use holdfast::error::Code;
use holdfast::postgres::{Config, Migrate, Migration, Needs, Postgres, quote_ident};
use server::{number, run};

const FIRST: Migration = Migration {
    version: 1,
    name: "first",
    sql: "CREATE TABLE {schema}.item (id text PRIMARY KEY); CREATE INDEX item_id ON {schema}.item (id)",
};
const SECOND: Migration =
    Migration { version: 2, name: "second", sql: "ALTER TABLE {schema}.item ADD COLUMN note text" };
const BROKEN: Migration =
    Migration { version: 3, name: "broken", sql: "CREATE TABLE {schema}.more (a int); SELECT 1/0" };

/// Everything that the schema holds, to see that nothing changed.
async fn shape(postgres: &Postgres, schema: &str) -> i64 {
    let client = postgres.client().await.unwrap();
    let sql = format!(
        "SELECT coalesce(sum(hashtext(c.relname || a.attname)::bigint), 0)::bigint FROM pg_class c JOIN pg_namespace n ON \
         n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid WHERE n.nspname = '{schema}'"
    );
    number(&client, &sql).await
}

#[test]
fn eight_at_once() {
    let Some(server) = server::shared() else { return };
    // A name that only works quoted.
    let schema = "It's a \"schema\"";
    let (sender, receiver) = mpsc::channel();
    let all: Vec<Postgres> = (0..8).map(|_| server.connect()).collect();
    for postgres in &all {
        let (pg, sender) = (postgres.clone(), sender.clone());
        postgres.spawn(async move {
            let _ = sender.send(pg.migrate(schema, true, "test", &[FIRST, SECOND], Migrate::Auto).await);
        });
    }
    for _ in &all {
        receiver.recv_timeout(Duration::from_secs(30)).unwrap().unwrap();
    }
    let pg = all[0].clone();
    run(&all[0], async move {
        let client = pg.client().await.unwrap();
        let records = format!("SELECT count(*) FROM {}.holdfast_migrations WHERE module = 'test'", quote_ident(schema));
        assert_eq!(number(&client, &records).await, 2);
        client
            .run("inserting", &format!("INSERT INTO {}.item VALUES ('a', 'b')", quote_ident(schema)), &[])
            .await
            .unwrap();
        drop(client);
        // Again, and a second module beside it.
        pg.migrate(schema, true, "test", &[FIRST, SECOND], Migrate::Auto).await.unwrap();
        let other = Migration { sql: "CREATE TABLE {schema}.other (a int)", ..FIRST };
        pg.migrate(schema, true, "other", &[other], Migrate::Auto).await.unwrap();
    });
}

#[test]
fn a_failing_migration_leaves_nothing() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    let pg = postgres.clone();
    run(&postgres, async move {
        let error = pg.migrate("broken", true, "test", &[FIRST, SECOND, BROKEN], Migrate::Auto).await.unwrap_err();
        assert_eq!(error.code(), Code::MigrationFailed);
        assert!(error.message().contains("version 3"), "{error}");
        let said = ["found", "expected", "step", "schema"].map(|name| error.fields()[name].clone());
        assert_eq!(serde_json::Value::from(said.to_vec()), serde_json::json!([0, 3, "0003 broken", "broken"]));
        assert_eq!(error.fields()["sqlState"], "22012");
        assert_eq!(shape(&pg, "broken").await, 0);
        // Without the permission to make it, a schema that is not there is an error.
        let error = pg.migrate("broken", false, "test", &[FIRST], Migrate::Auto).await.unwrap_err();
        assert_eq!(error.fields()["sqlState"], "3F000");
        pg.migrate("broken", true, "test", &[FIRST, SECOND], Migrate::Auto).await.unwrap();
    });
}

#[test]
fn a_newer_schema_is_left_alone() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    let pg = postgres.clone();
    run(&postgres, async move {
        pg.migrate("newer", true, "test", &[FIRST, SECOND], Migrate::Auto).await.unwrap();
        let before = shape(&pg, "newer").await;
        let check = Migrate::Check { missing: Code::EntityTableMissing, needs: &[] };
        for mode in [Migrate::Auto, check] {
            let error = pg.migrate("newer", true, "test", &[FIRST], mode).await.unwrap_err();
            assert_eq!((error.code(), &error.fields()["found"]), (Code::FormatTooNew, &2.into()));
        }
        assert_eq!(shape(&pg, "newer").await, before);
    });
}

#[test]
fn check_lists_what_is_missing_and_changes_nothing() {
    let Some(server) = server::shared() else { return };
    let postgres = server.connect();
    let pg = postgres.clone();
    run(&postgres, async move {
        let needs = [Needs { table: "item", columns: &["id", "note"] }, Needs { table: "absent", columns: &["a"] }];
        let check = Migrate::Check { missing: Code::EntityTableMissing, needs: &needs };
        let versions = Migrate::Check { missing: Code::EntityTableMissing, needs: &[] };
        let all = [FIRST, SECOND];
        let error = pg.migrate("checked", true, "test", &all, check).await.unwrap_err();
        assert_eq!(error.fields()["missing"], serde_json::json!(["table item", "table absent"]));
        assert_eq!(shape(&pg, "checked").await, 0);
        pg.migrate("checked", true, "test", &[FIRST], Migrate::Auto).await.unwrap();
        let error = pg.migrate("checked", false, "test", &all, check).await.unwrap_err();
        assert_eq!(error.code(), Code::EntityTableMissing);
        assert_eq!(error.fields()["missing"], serde_json::json!(["column item.note", "table absent"]));
        let error = pg.migrate("checked", false, "test", &all, versions).await.unwrap_err();
        assert_eq!(error.fields()["missing"], serde_json::json!(["migration 2 (second)"]));
        pg.migrate("checked", false, "test", &all, Migrate::Auto).await.unwrap();
        pg.migrate("checked", false, "test", &all, versions).await.unwrap();
        let needs = [Needs { table: "item", columns: &["id", "note"] }];
        let check = Migrate::Check { missing: Code::EntityTableMissing, needs: &needs };
        pg.migrate("checked", false, "test", &all, check).await.unwrap();
    });
}

#[test]
fn a_role_without_the_right_to_create_may_use_what_is_there() {
    let Some(server) = server::shared().filter(|server| server.is_local()) else { return };
    let postgres = server.connect();
    let pg = postgres.clone();
    run(&postgres, async move {
        pg.migrate("granted", true, "test", &[FIRST, SECOND], Migrate::Auto).await.unwrap();
        let script = "CREATE ROLE reader LOGIN PASSWORD 'r'; GRANT USAGE ON SCHEMA granted TO reader; \
                      GRANT SELECT ON ALL TABLES IN SCHEMA granted TO reader";
        pg.client().await.unwrap().script("granting", script).await.unwrap();
    });
    let config = Config { user: Some("reader".into()), password: Some("r".into()), ..server.config() };
    let reader = Postgres::new(config).unwrap();
    let pg = reader.clone();
    run(&reader, async move {
        pg.migrate("granted", true, "test", &[FIRST, SECOND], Migrate::Auto).await.unwrap();
        let error = pg.migrate("forbidden", true, "test", &[FIRST], Migrate::Auto).await.unwrap_err();
        assert_eq!(error.fields()["sqlState"], "42501");
    });
}
