//! Content by its hash.
//!
//! In SQLite the rows stand in the order in which they came, so that what a commit stores is written next to each other, and an index
//! over a number, the *prefix* of the hash, finds them: it is a seventh of one over the hashes, so that new hashes, which fall anywhere,
//! touch few of its pages and hardly ever split one.

use super::info;
use crate::error::Result;
use crate::session_graph::blob::{self, Packed};
use crate::session_graph::error::missing_blob;
use crate::session_graph::sql::{Row, Sql, Value, all, first};

/// Hex digits of a hash that make its prefix.
const DIGITS: usize = 15;

/// What the index of SQLite finds a blob by. Others may have it too.
fn prefix(reference: &str) -> i64 {
    let digits = reference.strip_prefix("blake3:").and_then(|hex| hex.get(..DIGITS));
    digits.and_then(|digits| i64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// One question about one blob, by its prefix, and where there is none.
struct Question {
    by_prefix: &'static str,
    by_hash: &'static str,
}

macro_rules! question {
    ($begin:literal) => {
        Question {
            by_prefix: concat!($begin, " WHERE prefix = ?2 AND hash = ?1"),
            by_hash: concat!($begin, " WHERE hash = ?1"),
        }
    };
}

const CONTENT: Question = question!("SELECT codec, raw_len, content FROM blobs");
const KIND: Question = question!("SELECT kind FROM blobs");
const STORED: Question = question!("SELECT kind, codec, raw_len, content FROM blobs");

impl Question {
    fn first<T>(
        &self,
        sql: &mut dyn Sql,
        doing: &'static str,
        reference: &str,
        read: impl Fn(&dyn Row) -> Result<T>,
    ) -> Result<Option<T>> {
        let hash = Value::Text(reference);
        if sql.is_embedded() {
            first(sql, doing, self.by_prefix, &[hash, Value::Int(prefix(reference))], read)
        } else {
            first(sql, doing, self.by_hash, &[hash], read)
        }
    }
}

/// A blob as it is stored, compared with nothing.
pub(crate) fn stored(sql: &mut dyn Sql, reference: &str) -> Result<Option<Packed>> {
    STORED.first(sql, "read a blob", reference, |row| {
        Ok(Packed {
            hash: reference.to_owned(),
            kind: row.string(0)?,
            codec: row.int(1)?,
            raw_len: row.int(2)?,
            content: row.bytes(3)?.to_vec(),
        })
    })
}

/// Stores a blob, and counts its bytes.
pub(crate) fn put(sql: &mut dyn Sql, packed: &Packed, now: i64) -> Result<()> {
    let added = add(sql, packed, now)?;
    if added > 0 { info::add_bytes(sql, added) } else { Ok(()) }
}

/// Stores a blob; returns the bytes that are to be counted: none where the same statement counts them. Of one that is stored already only
/// the age begins anew.
pub(crate) fn add(sql: &mut dyn Sql, packed: &Packed, now: i64) -> Result<i64> {
    let bytes = i64::try_from(packed.content.len()).unwrap_or(i64::MAX);
    let values = [
        Value::Text(&packed.hash),
        Value::Text(&packed.kind),
        Value::Int(packed.codec),
        Value::Int(packed.raw_len),
        Value::Int(now),
        Value::Bytes(&packed.content),
        Value::Int(bytes),
    ];
    if !sql.is_embedded() {
        sql.post(
            "store a blob",
            "WITH added AS (
               INSERT INTO blobs (hash, kind, codec, raw_len, created_at_ms, content) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT DO NOTHING RETURNING 1),
             aged AS (
               UPDATE blobs SET created_at_ms = ?5
               WHERE hash = ?1 AND created_at_ms <> ?5 AND NOT EXISTS (SELECT FROM added))
             UPDATE store_info SET blob_bytes = blob_bytes + ?7 WHERE EXISTS (SELECT FROM added)",
            &values,
        )?;
        return Ok(0);
    }
    let prefix = Value::Int(prefix(&packed.hash));
    let [hash, kind, codec, raw_len, now, content, _] = values;
    let added = sql.run(
        "store a blob",
        "INSERT INTO blobs (prefix, hash, kind, codec, raw_len, created_at_ms, content)
         SELECT ?2, ?1, ?3, ?4, ?5, ?6, ?7 WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE prefix = ?2 AND hash = ?1)",
        &[hash, prefix, kind, codec, raw_len, now, content],
    )?;
    if added > 0 {
        return Ok(bytes);
    }
    sql.run(
        "store a blob",
        "UPDATE blobs SET created_at_ms = ?3 WHERE prefix = ?2 AND hash = ?1 AND created_at_ms <> ?3",
        &[hash, prefix, now],
    )?;
    Ok(0)
}

/// Reads a blob and compares it with its name; `None` if there is none. `component` says what it is read for.
pub(crate) fn get(sql: &mut dyn Sql, reference: &str, component: &str) -> Result<Option<Vec<u8>>> {
    let found = CONTENT.first(sql, "read a blob", reference, |row| {
        Ok(blob::unpack(reference, component, row.int(0)?, row.int(1)?, row.bytes(2)?))
    })?;
    found.transpose()
}

/// What is said to be in a blob; `None` if there is none.
pub(crate) fn kind(sql: &mut dyn Sql, reference: &str) -> Result<Option<String>> {
    KIND.first(sql, "look for a blob", reference, |row| row.string(0))
}

/// Requires that a blob is stored.
pub(crate) fn require(sql: &mut dyn Sql, reference: &str, component: &str) -> Result<()> {
    match KIND.first(sql, "look for a blob", reference, |_| Ok(()))? {
        Some(()) => Ok(()),
        None => Err(missing_blob(reference, component)),
    }
}

/// A blob in a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listed {
    /// Where SQLite has it.
    seq: i64,
    pub(crate) hash: String,
    pub(crate) created_at_ms: i64,
    pub(crate) bytes: i64,
}

/// The blobs behind `after`, at most `limit`, in an order of which only this is promised: it stays.
pub(crate) fn behind(sql: &mut dyn Sql, after: &Listed, limit: i64) -> Result<Vec<Listed>> {
    let by_seq = "SELECT seq, hash, created_at_ms, length(content) FROM blobs WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    let by_hash = "SELECT 0, hash, created_at_ms, length(content) FROM blobs WHERE hash > ?1 ORDER BY hash LIMIT ?2";
    let (text, after) =
        if sql.is_embedded() { (by_seq, Value::Int(after.seq)) } else { (by_hash, Value::Text(&after.hash)) };
    all(sql, "look for old blobs", text, &[after, Value::Int(limit)], |row| {
        Ok(Listed { seq: row.int(0)?, hash: row.string(1)?, created_at_ms: row.int(2)?, bytes: row.int(3)? })
    })
}

/// Removes a blob; tells whether it was there. Counts nothing.
pub(crate) fn remove(sql: &mut dyn Sql, blob: &Listed) -> Result<bool> {
    let doing = "remove a blob";
    let removed = if sql.is_embedded() {
        sql.run(doing, "DELETE FROM blobs WHERE seq = ?1", &[Value::Int(blob.seq)])?
    } else {
        sql.run(doing, "DELETE FROM blobs WHERE hash = ?1", &[Value::Text(&blob.hash)])?
    };
    Ok(removed > 0)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::session_graph::blob::{Profile, pack};
    use crate::session_graph::sql::sqlite::Sqlite;

    #[test]
    fn hashes_that_begin_alike_are_two_blobs() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("../../../migrations/sqlite/session_graph/0003_session.sql")).unwrap();
        let sql = &mut Sqlite(&db);
        let packed = |end: char, content: &[u8]| {
            let mut packed = pack(Profile::Balanced, "toolState", false, content.to_vec());
            packed.hash = format!("blake3:{}{}", "f".repeat(63), end);
            packed
        };
        let (a, b) = (packed('a', b"one"), packed('b', b"another"));
        assert_eq!(prefix(&a.hash), prefix(&b.hash));
        assert_eq!(prefix(&a.hash), (1 << 60) - 1);
        for (blob, bytes) in [(&a, 3), (&b, 7), (&a, 0), (&b, 0)] {
            assert_eq!(add(sql, blob, 5).unwrap(), bytes);
        }
        let listed = behind(sql, &Listed::default(), 10).unwrap();
        assert_eq!(listed.iter().map(|blob| blob.hash.as_str()).collect::<Vec<_>>(), [&a.hash, &b.hash]);
        assert!(behind(sql, &listed[1], 10).unwrap().is_empty());
        assert!(remove(sql, &listed[0]).unwrap());
        assert_eq!(kind(sql, &a.hash).unwrap(), None);
        assert!(require(sql, &a.hash, "toolState").is_err());
        assert_eq!(kind(sql, &b.hash).unwrap().as_deref(), Some("toolState"));
        // Ages begin anew.
        add(sql, &b, 9).unwrap();
        assert_eq!(behind(sql, &Listed::default(), 10).unwrap()[0].created_at_ms, 9);
    }

    #[test]
    fn any_text_has_a_prefix() {
        for text in ["", "blake3:", "blake3:xyz", "no reference", "blake3:日本語日本語日本語", "blake3:0123456789abcd"]
        {
            assert_eq!(prefix(text), 0, "{text}");
        }
        assert_eq!(prefix("blake3:00000000000000ff"), 0xf);
    }
}
