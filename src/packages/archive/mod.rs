//! Package archives: gzip tars of one folder, made deterministically and unpacked without trust.
//!
//! [`check`] reads the whole archive and judges every entry before anything is written; [`unpack`] then writes what the
//! [`Plan`] says and parses nothing a second time, so that the two cannot disagree. Small archives stay inflated in the
//! plan, and one bigger one at a time; others are inflated once more while they are written, so that memory is bounded by a
//! constant.

mod check;
mod confined;
mod deflate;
mod headers;
mod inflate;
mod names;
mod pack;
mod plan;
mod sync;
mod write;

#[cfg(test)]
mod tests;

pub use check::{check, check_for};
pub use confined::folds_case;
pub use pack::pack;
pub use plan::{Entry, Kind, Plan};
pub use write::{Extracted, UnpackOptions, unpack};

use crate::error::{Code, HfError};

/// Bounds of what an archive may hold. They are enforced while it is inflated, on what really comes out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most entries, default 100,000. Folders that no entry names, but that files need, have the same bound of their own.
    pub max_entries: u64,
    /// Most bytes of all files together, default 1 GiB. Metadata records and padding count too.
    pub max_total_bytes: u64,
    /// Most bytes of one file, default 512 MiB.
    pub max_entry_bytes: u64,
    /// Most bytes of one path, default 4,096.
    pub max_path_bytes: u64,
    /// Most components of one path, default 64.
    pub max_depth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_entries: 100_000,
            max_total_bytes: 1 << 30,
            max_entry_bytes: 512 << 20,
            max_path_bytes: 4096,
            max_depth: 64,
        }
    }
}

/// Longest part of a hostile name that an error message shows.
const SHOWN_CHARS: usize = 300;

/// Makes a name fit for a message: control characters escaped, the length bounded.
fn shown(name: &str) -> String {
    let mut text = String::new();
    for (count, c) in name.chars().enumerate() {
        if count == SHOWN_CHARS {
            text.push('…');
            break;
        }
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

/// The refusal of an entry that must not be unpacked.
fn unsafe_entry(what: impl std::fmt::Display, path: &str) -> HfError {
    HfError::new(Code::PkgUnsafeEntry, format!("refusing to extract unsafe archive entry: {what}"))
        .with_field("entry", shown(path))
}

/// The refusal of an entry beyond a limit.
fn over_limit(which: &str, path: &str) -> HfError {
    unsafe_entry(format_args!("limit {which} exceeded at \"{}\"", shown(path)), path).with_field("limit", which)
}

/// The refusal of an archive that is damaged, or is none.
fn corrupt(detail: impl std::fmt::Display) -> HfError {
    HfError::new(Code::PkgArchive, format!("tar extract failed: {detail}"))
}
