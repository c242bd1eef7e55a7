//! How bytes become durable.
//!
//! Every file operation that matters for recovery goes through [`Disk`], so that a test can fail it, cut it short, record
//! it, or kill the process at a named point. On top of it: atomic files ([`atomic`]), parallel syncs ([`sync`]), lock
//! files that also honour the original protocol ([`lock`]), a thread pool ([`pool`]) and timers ([`timer`]). The model of power
//! cuts that all this is proved with lives beside the tests, in `tests/support`.

pub mod atomic;
mod disk;
pub mod fault;
pub mod files;
pub mod lock;
pub mod pool;
pub mod sync;
pub mod timer;
pub mod turns;

pub use disk::{Disk, Interceptor, Op, OutFile};

use std::io;
use std::path::Path;

use crate::error::{HfError, Result};

/// Adds operation and path to an I/O error.
pub trait IoContext<T> {
    /// Turns an [`io::Error`] into the error of `operation` on `path`.
    ///
    /// # Errors
    /// The wrapped error, if there was one.
    fn at(self, operation: &str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, operation: &str, path: &Path) -> Result<T> {
        self.map_err(|source| HfError::io(operation, path, &source))
    }
}

/// Turns "there is no such file" into `None`.
///
/// # Errors
/// Every other failure.
pub fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
