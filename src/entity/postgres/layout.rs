//! Which table the log is in, and how its times are written and read.

use crate::error::{Code, HfError, Result};
use crate::postgres::types::Type;
use crate::postgres::{Client, quote_ident};

/// A table that is known to be there.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The quoted schema.
    pub schema: String,
    /// The table with its schema, quoted.
    pub transitions: String,
    /// Whether the table has holdfast's own columns (`to_key`, `masked`, `change_id`, `ordinal`, `seq`).
    pub own: bool,
    zoned: bool,
}

impl Layout {
    /// Looks at the table in `schema`.
    ///
    /// # Errors
    /// `HF_ENTITY_TABLE_MISSING` where there is none.
    pub async fn find(client: &Client, schema: &str) -> Result<Self> {
        let rows = client
            .fetch(
                "looking for the table of entity transitions",
                "SELECT a.attname::text, a.atttypid = 'timestamptz'::regtype FROM pg_attribute a \
                 JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = 'entity_transitions' AND a.attnum > 0 AND NOT a.attisdropped",
                &[(&schema, Type::TEXT)],
            )
            .await?;
        let columns: Vec<(String, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let column = |name: &str| columns.iter().find(|(column, _)| column == name);
        let quoted = quote_ident(schema);
        let Some((_, zoned)) = column("transitioned_at") else {
            return Err(HfError::new(
                Code::EntityTableMissing,
                format!(
                    "relation \"entity_transitions\" does not exist in schema {quoted}; run the application's migrations, or \
                     use migrate: \"auto\""
                ),
            )
            .with_field("sqlState", "42P01"));
        };
        let own = ["to_key", "masked", "change_id", "ordinal", "seq"].iter().all(|name| column(name).is_some());
        Ok(Self { transitions: format!("{quoted}.entity_transitions"), schema: quoted, own, zoned: *zoned })
    }

    /// The channel on which logs of this schema tell each other of changes. Its name has a bounded length, whatever the schema's is.
    pub fn channel(&self) -> String {
        let hash = blake3::hash(self.schema.as_bytes()).to_hex();
        format!("holdfast_entity_{}", hash.get(..16).unwrap_or_default())
    }

    /// SQL of a time given in microseconds since the epoch, of the column's type.
    pub fn time(&self, micros: &str) -> String {
        let zoned = format!(
            "(CASE WHEN {micros} <= -9000000000000000 THEN '-infinity'::timestamptz \
             ELSE 'epoch'::timestamptz + {micros} * interval '1 microsecond' END)"
        );
        if self.zoned { zoned } else { format!("({zoned} AT TIME ZONE 'UTC')") }
    }

    /// SQL of the microseconds since the epoch of a value of the column's type; a time without a zone is UTC.
    pub fn micros(&self, time: &str) -> String {
        micros(&self.zoned(time))
    }

    /// SQL of a value of the column's type as `timestamptz`.
    pub fn zoned(&self, time: &str) -> String {
        if self.zoned { time.to_owned() } else { format!("({time} AT TIME ZONE 'UTC')") }
    }

    /// SQL of a `timestamptz` as a value of the column's type.
    pub fn unzoned(&self, time: &str) -> String {
        // The same conversion, the other way round.
        self.zoned(time)
    }

    /// SQL of the server's clock, of the column's type.
    pub fn now(&self) -> &'static str {
        if self.zoned { "clock_timestamp()" } else { "(clock_timestamp() AT TIME ZONE 'UTC')" }
    }
}

/// SQL of the microseconds since the epoch of a `timestamptz`.
pub fn micros(time: &str) -> String {
    format!("round(extract(epoch FROM {time}) * 1000000)::bigint")
}

/// What PostgreSQL can hold of a text: everything but U+0000, which becomes U+FFFD.
pub fn storable(text: &str) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() }
}
