//! The table of blobs: its name, its columns, its making.

use std::fmt;

use super::Encoding;
use crate::error::{Code, HfError, Result};
use crate::postgres::types::Type;
use crate::postgres::{Client, Postgres, quote_ident};

/// Longest identifier of the server; it would cut a longer one off in silence.
const IDENTIFIER_MAX: usize = 63;

/// A table's name that is safe in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    schema: Option<String>,
    table: String,
}

impl Name {
    /// Takes `table` or `schema.table`.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`].
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, text),
        };
        let fits = |part: &str| {
            part.len() <= IDENTIFIER_MAX
                && part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
        };
        if !schema.into_iter().chain([table]).all(fits) {
            let text = "the table of a Postgres blob store must be `table` or `schema.table`, each of at most 63 letters, digits, \
                        `_` and `$`, and not beginning with a digit";
            return Err(HfError::new(Code::InvalidArgument, text));
        }
        Ok(Self { schema: schema.map(str::to_owned), table: table.to_owned() })
    }

    fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quote_ident(schema), quote_ident(&self.table)),
            None => quote_ident(&self.table),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "the table {schema}.{}", self.table),
            None => write!(f, "the table {}", self.table),
        }
    }
}

/// A table that is there.
#[derive(Debug)]
pub(super) struct Table {
    /// With its schema: the search path may change, the table not.
    pub(super) quoted: String,
    pub(super) has_sha256: bool,
    has_created_at: bool,
}

impl Table {
    /// Looks for the table, and whether its columns fit.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] where they do not; else as [`Client::fetch`].
    pub(super) async fn find(client: &Client, name: &Name, encoding: Encoding) -> Result<Option<Self>> {
        let sql = "SELECT n.nspname::text, a.attname::text, a.atttypid::regtype::text FROM pg_catalog.pg_class c \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                   WHERE c.oid = to_regclass($1)";
        let rows = client.fetch("looking for the table of blobs", sql, &[(&name.quoted(), Type::TEXT)]).await?;
        let text = |row: &crate::postgres::Row, column: usize| row.try_get::<_, String>(column).unwrap_or_default();
        let Some(schema) = rows.first().map(|row| text(row, 0)) else { return Ok(None) };
        let columns: Vec<(String, String)> = rows.iter().map(|row| (text(row, 1), text(row, 2))).collect();
        let type_of = |name: &str| columns.iter().find(|(column, _)| column == name).map(|(_, of)| of.as_str());
        for column in ["integrity", "data", "size_bytes"] {
            if type_of(column).is_none() {
                let text = format!("{name} has no column {column}, so it is no table of blobs; name another one");
                return Err(HfError::new(Code::InvalidArgument, text));
            }
        }
        let found = type_of("data").unwrap_or_default();
        let (fits, other) = match encoding {
            Encoding::Bytea => (found == "bytea", "base64-text"),
            Encoding::Base64Text => (found == "text" || found == "character varying", "bytea"),
        };
        if !fits {
            let text = format!(
                "the column data of {name} has the type {found}, which does not fit the encoding of this blob store; use \
                 encoding \"{other}\", or another table"
            );
            return Err(HfError::new(Code::InvalidArgument, text));
        }
        Ok(Some(Self {
            quoted: format!("{}.{}", quote_ident(&schema), quote_ident(&name.table)),
            has_sha256: type_of("sha256").is_some(),
            has_created_at: type_of("created_at").is_some(),
        }))
    }

    /// Makes the table, unless somebody was faster.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] where no schema is on the search path; else those of the transaction.
    pub(super) async fn create(postgres: &Postgres, name: &Name, encoding: Encoding) -> Result<Self> {
        const DOING: &str = "creating the table of blobs";
        let transaction = postgres.begin().await?;
        transaction.script(DOING, "SET LOCAL lock_timeout = '60s'").await?;
        // IF NOT EXISTS alone fails when two create at once.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7465746))";
        transaction.fetch(DOING, lock, &[(&format!("holdfast blobs in {}", name.quoted()), Type::TEXT)]).await?;
        if let Some(table) = Self::find(&transaction, name, encoding).await? {
            transaction.rollback().await?;
            return Ok(table);
        }
        let rows = transaction.fetch(DOING, "SELECT current_schema()::text", &[]).await?;
        let current = rows.first().and_then(|row| row.try_get::<_, Option<String>>(0).ok().flatten());
        let Some(schema) = name.schema.clone().or(current) else {
            let text = format!(
                "{name} does not exist, and the search path has no schema to make it in; name one: schema.table"
            );
            return Err(HfError::new(Code::InvalidArgument, text));
        };
        let quoted = format!("{}.{}", quote_ident(&schema), quote_ident(&name.table));
        let columns = match encoding {
            Encoding::Bytea => {
                "integrity text PRIMARY KEY, data bytea NOT NULL, sha256 text, size_bytes bigint NOT NULL, \
                 created_at timestamptz NOT NULL DEFAULT now()"
            }
            // The original's columns.
            Encoding::Base64Text => {
                "integrity text PRIMARY KEY, data text NOT NULL, size_bytes bigint NOT NULL, \
                 created_at timestamp NOT NULL DEFAULT now()"
            }
        };
        transaction.script(DOING, &format!("CREATE TABLE IF NOT EXISTS {quoted} ({columns})")).await?;
        if encoding == Encoding::Bytea {
            // Packages are compressed already; trying again only costs time.
            let plain = format!("ALTER TABLE {quoted} ALTER COLUMN data SET STORAGE EXTERNAL");
            transaction.script(DOING, &plain).await?;
        }
        transaction.commit().await?;
        Ok(Self { quoted, has_sha256: encoding == Encoding::Bytea, has_created_at: true })
    }

    /// `$1` key, `$2` bytes, `$3` their number, `$4` their hash if the table has a column for it.
    pub(super) fn insert(&self, encoding: Encoding) -> String {
        let data = match encoding {
            Encoding::Bytea => "$2",
            // The server breaks lines, the original does not.
            Encoding::Base64Text => "replace(encode($2, 'base64'), E'\\n', '')",
        };
        let (sha256, value) = if self.has_sha256 { (", sha256", ", $4") } else { ("", "") };
        // The column may have no default.
        let (created_at, now) = if self.has_created_at { (", created_at", ", now()") } else { ("", "") };
        format!(
            "INSERT INTO {} (integrity, data, size_bytes{sha256}{created_at}) VALUES ($1, {data}, $3{value}{now}) \
             ON CONFLICT (integrity) DO NOTHING",
            self.quoted
        )
    }

    /// `$1` key; gives bytes and hash.
    pub(super) fn select(&self, encoding: Encoding) -> String {
        let data = match encoding {
            Encoding::Bytea => "data",
            Encoding::Base64Text => "decode(data, 'base64')",
        };
        let sha256 = if self.has_sha256 { "sha256::text" } else { "NULL::text" };
        format!("SELECT {data}, {sha256} FROM {} WHERE integrity = $1", self.quoted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_quoted() {
        assert_eq!(Name::parse("holdfast_blobs").unwrap().quoted(), "\"holdfast_blobs\"");
        assert_eq!(Name::parse("My$.T_1").unwrap().quoted(), "\"My$\".\"T_1\"");
        for bad in ["", ".", "a.", ".a", "a.b.c", "1a", "a b", "a\"b", "a;b", "a-b", "ä", &"a".repeat(64)] {
            assert_eq!(Name::parse(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
        assert!(Name::parse(&"a".repeat(63)).is_ok());
    }
}
