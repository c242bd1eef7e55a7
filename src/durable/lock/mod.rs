//! Cross-process file locks that interoperate with the original `.lock` protocol.
//!
//! A lock on `file` is the existence of `file.lock`, holding `<pid>\n<epoch ms>\n`. holdfast adds a third line and holds an
//! OS lock (flock, LockFileEx) on the file's inode for as long as it owns it: a dead owner is known at once, whatever its
//! pid, and a living one is never robbed by another holdfast, whatever its age. For programs that know only the two lines
//! the time in line 2 is refreshed while the lock is held.
//!
//! Inside a process waiters queue in order of arrival ([`registry`]); between processes the owner is found out by trying.

mod content;
mod file;
mod registry;
mod set;

pub use file::{is_free, lock_path_of};
pub use registry::{Continuation, FileLock, Options, lock, lock_blocking, timeout_error};
pub use set::{LockSet, SetRequest, lock_set};
