//! The process's one runtime for network work.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Code, HfError, Result};

const THREADS: usize = 2;
/// For name look-ups and certificate files.
const BLOCKING_THREADS: usize = 4;
const BLOCKING_IDLE: Duration = Duration::from_secs(10);

/// Never dropped: its threads end with the process and do not hold it.
static RUNTIME: Mutex<Option<&'static Runtime>> = Mutex::new(None);

/// Returns the runtime, starting it on first use.
///
/// # Errors
/// `HF_IO` when no thread can be started; a later call tries again.
pub(crate) fn handle() -> Result<Handle> {
    let mut slot = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = *slot {
        return Ok(runtime.handle().clone());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_IDLE)
        .thread_name("holdfast-net")
        .enable_all()
        .build()
        .map_err(|error| {
            HfError::new(Code::Io, format!("cannot start the threads for the network: {error}; too many are running"))
        })?;
    let runtime: &'static Runtime = Box::leak(Box::new(runtime));
    *slot = Some(runtime);
    Ok(runtime.handle().clone())
}
