//! Numbered changes of a schema, each applied once, by whoever comes first.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::client::Client;
use super::transaction::Transaction;
use super::{Postgres, is_transient, quote_ident};
use crate::error::{Code, HfError, Result};

const TABLE: &str = "holdfast_migrations";
/// Longest wait for another process that migrates, or for a table that is in use.
const LOCK_TIMEOUT: &str = "60s";

/// SQLSTATE of a lock that was not free in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// One change of a module's tables.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Ascending, from 1.
    pub version: i32,
    /// Shown in errors and kept in the table.
    pub name: &'static str,
    /// Statements separated by semicolons, run in one transaction; `{schema}` stands for the quoted schema, wherever an
    /// identifier may stand.
    pub sql: &'static str,
}

/// A table that a module needs, for [`Migrate::Check`].
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Its name, without the schema.
    pub table: &'static str,
    /// Columns that must be there.
    pub columns: &'static [&'static str],
}

/// What to do about missing changes.
#[derive(Debug, Clone, Copy)]
pub enum Migrate<'a> {
    /// Applies them.
    Auto,
    /// Changes nothing. What is missing of `needs` becomes an error with code `missing` that lists it; it does not matter who
    /// made the tables. With no `needs`, the versions that are recorded must be complete.
    Check {
        /// Code of that error.
        missing: Code,
        /// Tables and columns to look for.
        needs: &'a [Needs],
    },
}

impl Postgres {
    /// Brings the tables of `module` in `schema` to the newest of `migrations`, or checks them.
    ///
    /// All missing ones are applied in one transaction under an advisory lock, so of several processes one applies them and
    /// the others find them done. Which are applied is recorded in the table `holdfast_migrations` of the same schema. The
    /// schema itself is created only with `create_schema`.
    ///
    /// # Errors
    /// `HF_FORMAT_TOO_NEW` when a newer version was applied, `HF_MIGRATION_FAILED` when a step failed; nothing is changed then. `HF_LOCK_TIMEOUT` when another session
    /// held a needed lock for 60 s. Otherwise as [`Client::fetch`].
    pub async fn migrate(
        &self,
        schema: &str,
        create_schema: bool,
        module: &str,
        migrations: &[Migration],
        mode: Migrate<'_>,
    ) -> Result<()> {
        let plan = Plan { schema, module, migrations, newest: migrations.iter().map(|m| m.version).max().unwrap_or(0) };
        let client = self.client().await?;
        let applied = plan.applied(&client).await?;
        if let Migrate::Check { missing, needs } = mode {
            return plan.check(&client, applied, missing, needs).await;
        }
        if applied == Some(plan.newest) {
            return Ok(());
        }
        plan.apply(client, create_schema).await.map_err(|error| plan.explained(error))
    }
}

struct Plan<'a> {
    schema: &'a str,
    module: &'a str,
    migrations: &'a [Migration],
    newest: i32,
}

impl Plan<'_> {
    /// Returns the newest version that is recorded, `None` without any record.
    async fn applied(&self, client: &Client) -> Result<Option<i32>> {
        const DOING: &str = "reading the version of the tables";
        if !exists(client, self.schema, TABLE).await? {
            return Ok(None);
        }
        let sql = format!("SELECT max(version) FROM {}.{TABLE} WHERE module = $1", quote_ident(self.schema));
        let rows = client.fetch(DOING, &sql, &[(&self.module, Type::TEXT)]).await?;
        let applied: Option<i32> = rows.first().and_then(|row| row.try_get(0).ok().flatten());
        match applied {
            Some(version) if version > self.newest => Err(HfError::new(
                Code::FormatTooNew,
                format!(
                    "the {} tables in schema {} have version {version}, written by a newer holdfast; this one knows up to {}. \
                     Nothing was changed; upgrade this program",
                    self.module,
                    quote_ident(self.schema),
                    self.newest
                ),
            )
            .with_field("found", version)
            .with_field("expected", self.newest)),
            applied => Ok(applied),
        }
    }

    async fn apply(&self, client: Client, create_schema: bool) -> Result<()> {
        const DOING: &str = "migrating tables";
        let transaction = Transaction::begin(client).await?;
        transaction.script(DOING, &format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")).await?;
        // Statements of one schema wait for each other, whatever their module: they share the schema and the record.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7465746))";
        transaction.fetch(DOING, lock, &[(&format!("holdfast migrations of {}", self.schema), Type::TEXT)]).await?;
        let schema = quote_ident(self.schema);
        // IF NOT EXISTS asks for the right to create even where there is nothing to create.
        let there = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1";
        if create_schema && transaction.fetch(DOING, there, &[(&self.schema, Type::TEXT)]).await?.is_empty() {
            transaction.script(DOING, &format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
        }
        if !exists(&transaction, self.schema, TABLE).await? {
            let create = format!(
                "CREATE TABLE {schema}.{TABLE} (module text NOT NULL, version integer NOT NULL, name text NOT NULL, \
                 applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (module, version))"
            );
            transaction.script(DOING, &create).await?;
        }
        let applied = self.applied(&transaction).await?.unwrap_or(0);
        for migration in self.migrations.iter().filter(|migration| migration.version > applied) {
            let doing = format!("migrating the {} tables to version {}", self.module, migration.version);
            let ran = transaction.script(&doing, &migration.sql.replace("{schema}", &schema)).await;
            ran.map_err(|error| self.failed(error, migration, applied))?;
            let record = format!("INSERT INTO {schema}.{TABLE} (module, version, name) VALUES ($1, $2, $3)");
            let values = [
                (&self.module as _, Type::TEXT),
                (&migration.version as _, Type::INT4),
                (&migration.name as _, Type::TEXT),
            ];
            transaction.run(&doing, &record, &values).await?;
        }
        transaction.commit().await
    }

    /// Says which step failed, and what there is now. A connection that broke, or others that were in the way, are not its fault.
    fn failed(&self, error: HfError, step: &Migration, applied: i32) -> HfError {
        let in_the_way = error.fields().get("sqlState").is_some_and(|state| state == LOCK_NOT_AVAILABLE);
        if error.code() != Code::Database || in_the_way || is_transient(&error) {
            return error;
        }
        error
            .with_code(Code::MigrationFailed)
            .with_advice(&format!("the tables stay as they were, of version {applied}"))
            .with_field("schema", self.schema)
            .with_field("found", applied)
            .with_field("expected", self.newest)
            .with_field("step", format!("{:04} {}", step.version, step.name))
    }

    fn explained(&self, error: HfError) -> HfError {
        if error.fields().get("sqlState").is_some_and(|state| state == LOCK_NOT_AVAILABLE) {
            let text = format!(
                "migrating the {} tables: another session held a lock for {LOCK_TIMEOUT}; end long transactions, then try again",
                self.module
            );
            return HfError::new(Code::LockTimeout, text).with_field("sqlState", LOCK_NOT_AVAILABLE);
        }
        error
    }

    async fn check(&self, client: &Client, applied: Option<i32>, code: Code, needs: &[Needs]) -> Result<()> {
        let missing = if needs.is_empty() {
            let applied = applied.unwrap_or(0);
            let open = self.migrations.iter().filter(|migration| migration.version > applied);
            open.map(|migration| format!("migration {} ({})", migration.version, migration.name)).collect()
        } else {
            self.missing(client, needs).await?
        };
        if missing.is_empty() {
            return Ok(());
        }
        let text = format!(
            "schema {} lacks what the {} module needs: {}; apply its migrations, or let it migrate by itself",
            quote_ident(self.schema),
            self.module,
            missing.join(", ")
        );
        Err(HfError::new(code, text).with_field("missing", missing))
    }

    async fn missing(&self, client: &Client, needs: &[Needs]) -> Result<Vec<String>> {
        let tables: Vec<&str> = needs.iter().map(|need| need.table).collect();
        let sql = "SELECT c.relname::text, a.attname::text FROM pg_catalog.pg_class c \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                   WHERE n.nspname = $1 AND c.relname = ANY($2) AND c.relkind IN ('r', 'p', 'v', 'f')";
        let params = [(&self.schema as _, Type::TEXT), (&tables as _, Type::TEXT_ARRAY)];
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in client.fetch("checking tables", sql, &params).await? {
            if let (Ok(table), Ok(column)) = (row.try_get(0), row.try_get(1)) {
                found.entry(table).or_default().push(column);
            }
        }
        let mut missing = Vec::new();
        for need in needs {
            match found.get(need.table) {
                None => missing.push(format!("table {}", need.table)),
                Some(columns) => missing.extend(
                    need.columns
                        .iter()
                        .filter(|column| !columns.iter().any(|found| found == *column))
                        .map(|column| format!("column {}.{column}", need.table)),
                ),
            }
        }
        Ok(missing)
    }
}

async fn exists(client: &Client, schema: &str, table: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relname = $2";
    let rows = client.fetch("looking for a table", sql, &[(&schema, Type::TEXT), (&table, Type::TEXT)]).await?;
    Ok(!rows.is_empty())
}
