//! Blobs: immutable bytes under a key, in a folder, a SQLite file, a PostgreSQL table or an S3 bucket.
//!
//! A key is any UTF-8 text that is not empty; packages use the integrity of their tarball. What every [`BlobStore`] promises:
//!
//! - **put** is durable when it was answered, and whole or not there: a killed process, a power cut or a broken connection
//!   never leaves a part of a blob under its key. Of several puts of one key, also at the same time and with different bytes,
//!   the first wins and all succeed. The exceptions are named at [`FileBlobs`] (file systems without hard links) and
//!   [`S3Blobs`] (services without conditional writes).
//! - **get** returns what was put, or nothing. Where the store keeps a hash (SQLite, PostgreSQL), bytes that changed since are
//!   an error ([`Code::Corrupt`]), never an answer.
//! - **delete** of a blob that is not there succeeds. Puts and deletes of one key have one order.
//! - **list** pages by itself and is sorted bytewise.
//! - Errors name keys, paths, hosts, buckets and tables, never bytes, passwords, access keys or connection strings.
//!
//! Every call may be repeated after any error.

mod file;
mod gate;
mod key;
mod postgres;
#[cfg(feature = "s3")]
mod s3;
mod sqlite;

pub use file::FileBlobs;
pub use gate::Gate;
pub use postgres::{Encoding, PostgresBlobs, PostgresOptions};
#[cfg(feature = "s3")]
pub use s3::{DEFAULT_PREFIX, S3Blobs, S3Options};
pub use sqlite::{APPLICATION_ID, MIGRATIONS, SqliteBlobs};

use crate::error::{Code, HfError, Result};

/// Called once with the outcome, on a thread of the pool, of a database engine or of the network; at the end of a store also on
/// the caller's.
pub type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// Where blobs are kept. Calls return at once; opening, connecting and creating tables happens on first use, and is tried
/// again by the next call if it failed.
pub trait BlobStore: Send + Sync {
    /// Keeps `bytes` under `integrity`, unless something is there already.
    fn put(&self, integrity: String, bytes: Vec<u8>, done: Done<()>);

    /// Gives the whole blob, `None` if there is none.
    fn get(&self, integrity: String, done: Done<Option<Vec<u8>>>);

    /// Tells whether there is a blob, without reading it.
    fn has(&self, integrity: String, done: Done<bool>);

    /// Removes a blob, if there is one.
    fn delete(&self, integrity: String, done: Done<()>);

    /// Gives all keys, sorted bytewise.
    fn list(&self, done: Done<Vec<String>>);

    /// Where the blobs are, for messages.
    fn place(&self) -> String;

    /// Lets go of files and connections. Later calls, and earlier ones that have not begun, fail with [`Code::Closed`];
    /// [`Gate`] lets the earlier ones end first. Idempotent.
    fn close(&self, done: Done<()>);
}

/// The error of a blob whose bytes are not those that were put.
fn damaged(integrity: &str, place: &str) -> HfError {
    HfError::new(
        Code::Corrupt,
        format!(
            "the blob {} in {place} is damaged: its bytes do not match the hash that was stored with them; delete it and put \
             it again",
            key::shown(integrity)
        ),
    )
    .with_field("integrity", integrity)
}

/// The error of a call after `close`.
fn closed(place: &str) -> HfError {
    HfError::new(Code::Closed, format!("the blob store in {place} is closed; create it again"))
}
