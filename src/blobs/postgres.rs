//! Blobs in a PostgreSQL table.

mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use self::table::{Name, Table};
use super::{BlobStore, Done, closed, damaged, key};
use crate::durable::pool;
use crate::error::{Code, HfError, Result};
use crate::hash;
use crate::postgres::types::Type;
use crate::postgres::{Client, Config, Param, Postgres, Row, Step};

/// How long a call is tried again while the server is away.
const RETRY: Duration = Duration::from_secs(5);
/// Keys that are fetched at once.
const PAGE: i64 = 1000;
/// The server holds less than 1 GiB in one value.
const SIZE_MAX: usize = (1 << 30) - (1 << 16);

/// Makes sure that an answered commit is on the server's disk, where the role or the database says otherwise. What is
/// stricter (`remote_apply`) stays.
const DURABLE: &str =
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";

/// How a blob stands in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `bytea`, and its hash beside it.
    #[default]
    Bytea,
    /// Base64 in a `text`, as the original stores it: a third larger. The server translates, the wire carries bytes.
    Base64Text,
}

/// Where the table is.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// How to connect.
    pub config: Config,
    /// `table` or `schema.table`, taken literally (no folding to lower case); letters, digits, `_` and `$`, at most 63 each.
    /// Without a schema it is looked for along the search path, and made in its first schema. Default `holdfast_blobs`, with
    /// [`Encoding::Base64Text`] the original's `script_package_blob_data`.
    pub table: Option<String>,
    /// Must fit the type of the column `data`.
    pub encoding: Encoding,
}

/// Blobs in a table, which the first put makes if it is missing. Connects on first use.
pub struct PostgresBlobs(Arc<Inner>);

struct Inner {
    postgres: Postgres,
    name: Name,
    encoding: Encoding,
    table: Mutex<Option<Arc<Table>>>,
    /// Turns true once; calls that wait for the server end then.
    closed: watch::Sender<bool>,
}

impl PostgresBlobs {
    /// Checks `options`; connects to nothing yet.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for a bad table name or configuration, [`Code::Io`] where threads cannot be started.
    pub fn new(options: PostgresOptions) -> Result<Self> {
        let default = match options.encoding {
            Encoding::Bytea => "holdfast_blobs",
            Encoding::Base64Text => "script_package_blob_data",
        };
        let name = Name::parse(options.table.as_deref().unwrap_or(default))?;
        let postgres = Postgres::new(options.config)?;
        Ok(Self(Arc::new(Inner {
            postgres,
            name,
            encoding: options.encoding,
            table: Mutex::default(),
            closed: watch::Sender::new(false),
        })))
    }

    /// Runs `work` on the engine's threads, again while the server is away: all calls may be repeated.
    fn run<T, F>(&self, integrity: Option<&str>, done: Done<T>, work: impl Fn(Arc<Inner>) -> F + Send + Sync + 'static)
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        if let Err(error) = integrity.map_or(Ok(()), key::check) {
            pool::spawn(move || done(Err(error)));
            return;
        }
        let inner = Arc::clone(&self.0);
        let mut end = inner.closed.subscribe();
        self.0.postgres.spawn(async move {
            let attempt = || work(Arc::clone(&inner));
            let result = tokio::select! {
                biased;
                _ = end.wait_for(|closed| *closed) => Err(closed(&inner.place())),
                result = inner.postgres.retry_idempotent(RETRY, attempt) => result,
            };
            if let Err(error) = &result
                && error.fields().get("sqlState").is_some_and(|state| state == "42P01")
            {
                // Dropped behind our back: the next call looks again.
                *inner.table() = None;
            }
            done(result);
        });
    }
}

impl Inner {
    fn place(&self) -> String {
        format!("the table {}", self.name)
    }

    /// Never held while waiting for a connection: who has one may be waiting for this.
    fn table(&self) -> MutexGuard<'_, Option<Arc<Table>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, table: Table) -> Arc<Table> {
        Arc::clone(self.table().insert(Arc::new(table)))
    }

    /// The table; `None` where there is none yet.
    async fn found(&self, client: &Client) -> Result<Option<Arc<Table>>> {
        let known = self.table().clone();
        match known {
            Some(table) => Ok(Some(table)),
            None => Ok(Table::find(client, &self.name, self.encoding).await?.map(|table| self.keep(table))),
        }
    }

    /// The table, made if there is none.
    async fn made(&self) -> Result<Arc<Table>> {
        let client = self.postgres.client().await?;
        let found = self.found(&client).await?;
        drop(client);
        match found {
            Some(table) => Ok(table),
            None => Ok(self.keep(Table::create(&self.postgres, &self.name, self.encoding).await?)),
        }
    }

    async fn has(&self, client: &Client, table: &Table, integrity: &str) -> Result<bool> {
        let sql = format!("SELECT 1 FROM {} WHERE integrity = $1", table.quoted);
        let rows = client.fetch("looking for a blob", &sql, &[(&integrity, Type::TEXT)]).await?;
        Ok(!rows.is_empty())
    }

    async fn put(&self, integrity: &str, bytes: &[u8], sha256: &str) -> Result<()> {
        let table = self.made().await?;
        let client = self.postgres.client().await?;
        // Sending a large blob for nothing costs more than asking.
        if self.has(&client, &table, integrity).await? {
            return Ok(());
        }
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let values: [Param<'_>; 4] =
            [(&integrity, Type::TEXT), (&bytes, Type::BYTEA), (&size, Type::INT8), (&sha256, Type::TEXT)];
        let params = if table.has_sha256 { values.as_slice() } else { values.get(..3).unwrap_or_default() };
        let insert = table.insert(self.encoding);
        let steps = [Step { sql: DURABLE, params: &[] }, Step { sql: &insert, params }];
        client.pipelined_transaction("storing a blob", &steps).await.map(drop)
    }

    async fn get(&self, integrity: &str) -> Result<Option<(Vec<u8>, Option<String>)>> {
        const DOING: &str = "reading a blob";
        let client = self.postgres.client().await?;
        let Some(table) = self.found(&client).await? else { return Ok(None) };
        let rows = client.fetch(DOING, &table.select(self.encoding), &[(&integrity, Type::TEXT)]).await;
        let rows = rows.map_err(|error| {
            let not_base64 = error.fields().get("sqlState").is_some_and(|state| state == "22023");
            if not_base64 { damaged(integrity, &self.name.to_string()) } else { error }
        })?;
        let values = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.first().map(values).transpose().map_err(|error| crate::postgres::pg_error(DOING, &error))
    }

    async fn list(&self) -> Result<Vec<String>> {
        let client = self.postgres.client().await?;
        let mut keys: Vec<String> = Vec::new();
        let Some(table) = self.found(&client).await? else { return Ok(keys) };
        let first = format!("SELECT integrity::text FROM {} ORDER BY integrity LIMIT $1", table.quoted);
        let next =
            format!("SELECT integrity::text FROM {} WHERE integrity > $2 ORDER BY integrity LIMIT $1", table.quoted);
        loop {
            let rows = match keys.last() {
                None => client.fetch("listing the blobs", &first, &[(&PAGE, Type::INT8)]).await?,
                Some(last) => {
                    let params: [Param<'_>; 2] = [(&PAGE, Type::INT8), (last, Type::TEXT)];
                    client.fetch("listing the blobs", &next, &params).await?
                }
            };
            let full = rows.len() == PAGE as usize;
            keys.extend(rows.iter().filter_map(|row| row.try_get::<_, String>(0).ok()));
            if !full {
                break;
            }
        }
        // The database sorts by its collation.
        keys.sort_unstable();
        Ok(keys)
    }
}

/// The server's texts cannot hold U+0000, so such a key is not there.
fn impossible(integrity: &str) -> bool {
    integrity.contains('\0')
}

impl BlobStore for PostgresBlobs {
    fn put(&self, integrity: String, bytes: Vec<u8>, done: Done<()>) {
        let refused = if impossible(&integrity) {
            Some("its key holds U+0000, which PostgreSQL cannot store".to_owned())
        } else if bytes.len() > SIZE_MAX {
            Some(format!("it has {} bytes, PostgreSQL stores less than {SIZE_MAX} in one value", bytes.len()))
        } else {
            None
        };
        let shared = Self(Arc::clone(&self.0));
        // Hashing takes its time, and the engine's threads must not wait.
        pool::spawn(move || {
            if let Some(why) = refused {
                let text =
                    format!("the blob {} cannot be stored: {why}; use another blob store", key::shown(&integrity));
                return done(Err(HfError::new(Code::InvalidArgument, text)));
            }
            let sha256 = hash::sha256_hex(&bytes);
            let blob = Arc::new((integrity, bytes, sha256));
            let sent = Arc::clone(&blob);
            shared.run(Some(&blob.0), done, move |inner| {
                let blob = Arc::clone(&sent);
                async move { inner.put(&blob.0, &blob.1, &blob.2).await }
            });
        });
    }

    fn get(&self, integrity: String, done: Done<Option<Vec<u8>>>) {
        let inner = Arc::clone(&self.0);
        let key: Arc<str> = Arc::from(integrity.as_str());
        let verified: Done<Option<(Vec<u8>, Option<String>)>> = Box::new(move |found| {
            pool::spawn(move || {
                done(found.and_then(|found| match found {
                    Some((bytes, Some(sha256))) if hash::sha256_hex(&bytes) != sha256 => {
                        Err(damaged(&integrity, &inner.name.to_string()))
                    }
                    Some((bytes, _)) => Ok(Some(bytes)),
                    None => Ok(None),
                }));
            });
        });
        let asked = Arc::clone(&key);
        self.run(Some(&key), verified, move |inner| {
            let key = Arc::clone(&asked);
            async move { if impossible(&key) { Ok(None) } else { inner.get(&key).await } }
        });
    }

    fn has(&self, integrity: String, done: Done<bool>) {
        let key: Arc<str> = Arc::from(integrity);
        let asked = Arc::clone(&key);
        self.run(Some(&key), done, move |inner| {
            let key = Arc::clone(&asked);
            async move {
                let client = inner.postgres.client().await?;
                match inner.found(&client).await? {
                    Some(table) if !impossible(&key) => inner.has(&client, &table, &key).await,
                    _ => Ok(false),
                }
            }
        });
    }

    fn delete(&self, integrity: String, done: Done<()>) {
        let key: Arc<str> = Arc::from(integrity);
        let asked = Arc::clone(&key);
        self.run(Some(&key), done, move |inner| {
            let key = Arc::clone(&asked);
            async move {
                let client = inner.postgres.client().await?;
                let Some(table) = inner.found(&client).await?.filter(|_| !impossible(&key)) else { return Ok(()) };
                let sql = format!("DELETE FROM {} WHERE integrity = $1", table.quoted);
                client.run("deleting a blob", &sql, &[(&&*key, Type::TEXT)]).await.map(drop)
            }
        });
    }

    fn list(&self, done: Done<Vec<String>>) {
        self.run(None, done, |inner| async move { inner.list().await });
    }

    fn place(&self) -> String {
        self.0.place()
    }

    fn close(&self, done: Done<()>) {
        // A server that keeps silent must not hold the end.
        self.0.closed.send_replace(true);
        self.0.postgres.close(done);
    }
}
