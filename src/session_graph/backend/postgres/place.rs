//! A schema of a server, and the connections to it: shared by all stores of this process that are in it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::error::{Code, HfError, Result};
use crate::network;
use crate::postgres::types::Type;
use crate::postgres::{Migrate, Migration, Postgres, quote_ident};
use crate::session_graph::backend::Done;
use crate::session_graph::backend::config::PostgresConfig;

/// The versions of the tables.
const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "sessions",
    sql: include_str!("../../../../migrations/postgres/session_graph/0001_sessions.sql"),
}];

/// How long the server waits for the next statement of a transaction. A process that stands still holds up others no longer; one that goes
/// on after that runs its command again.
const STANDSTILL_MS: u64 = 10_000;

/// By what they were opened with: the place, and how many stores use it.
type Open = HashMap<String, (Arc<Place>, usize)>;

static OPEN: LazyLock<Mutex<Open>> = LazyLock::new(Mutex::default);

fn open() -> MutexGuard<'static, Open> {
    // Nothing that can panic runs under this lock.
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A schema of a server.
pub(super) struct Place {
    pub(super) postgres: Postgres,
    pub(super) runtime: Handle,
    schema: String,
    key: String,
}

impl Place {
    /// Returns the place that another store uses already, or connects. [`leave`](Self::leave) must follow.
    pub(super) fn at(config: &PostgresConfig) -> Result<Arc<Self>> {
        let key = format!("{}\n{}", config.schema, config.connection_key);
        let mut open = open();
        if let Some((place, users)) = open.get_mut(&key) {
            *users += 1;
            return Ok(Arc::clone(place));
        }
        let mut connection = config.connection.clone();
        // The server takes some of these statements for expensive ones, and compiles them for longer than they run.
        connection.session.get_or_insert_with(|| "SET jit = off".to_owned());
        let place = Arc::new(Self {
            postgres: Postgres::new(connection)?,
            runtime: network::handle()?,
            schema: config.schema.clone(),
            key: key.clone(),
        });
        open.insert(key, (Arc::clone(&place), 1));
        Ok(place)
    }

    /// Finds or makes the store of a key, and the tables.
    pub(super) fn store(&self, key: &str, migrates: bool) -> Result<i64> {
        self.runtime.block_on(async {
            let migrate = if migrates { Migrate::Auto } else { Migrate::Check { missing: Code::Database, needs: &[] } };
            self.postgres.migrate(&self.schema, true, "session_graph", MIGRATIONS, migrate).await?;
            let client = self.postgres.client().await?;
            let schema = quote_ident(&self.schema);
            let find = format!("SELECT store_no FROM {schema}.stores WHERE store_key = $1");
            let found = client.fetch("opening the session store", &find, &[(&key, Type::TEXT)]).await?;
            if let Some(row) = found.first() {
                return Ok(row.get(0));
            }
            // Both rows or none; who comes second finds those of the first.
            let make = format!(
                "WITH made AS (
                   INSERT INTO {schema}.stores (store_key, created_at_ms)
                   VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
                   ON CONFLICT DO NOTHING RETURNING store_no)
                 INSERT INTO {schema}.all_store_info (store_no, singleton) SELECT store_no, 1 FROM made"
            );
            client.run("making the session store", &make, &[(&key, Type::TEXT)]).await?;
            let found = client.fetch("opening the session store", &find, &[(&key, Type::TEXT)]).await?;
            let missing = || HfError::new(Code::Panic, "a store was made and is not there; please report it");
            found.first().map(|row| row.get(0)).ok_or_else(missing)
        })
    }

    /// What holds for a transaction of a store.
    pub(super) fn settings(&self, number: i64, busy_timeout_ms: u64) -> String {
        format!(
            "SET LOCAL lock_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {STANDSTILL_MS}; \
             SET LOCAL search_path TO {}; SET LOCAL holdfast.store = '{number}'",
            // 0 would be for ever.
            busy_timeout_ms.clamp(1, i32::MAX as u64),
            quote_ident(&self.schema)
        )
    }

    /// Closes the connections with the last store, waiting for what they do for at most `limit`, and tells.
    pub(super) fn leave(&self, limit: Duration, done: Done<()>) {
        let is_last = {
            let mut open = open();
            let left = open.get_mut(&self.key).map_or(0, |(_, users)| {
                *users -= 1;
                *users
            });
            if left == 0 {
                open.remove(&self.key);
            }
            left == 0
        };
        if is_last { self.postgres.close_within(limit, Box::new(done)) } else { done(Ok(())) }
    }
}
