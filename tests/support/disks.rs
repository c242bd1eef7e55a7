//! Disks that fail: gates for the recorder or for a plain intercepted disk.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use holdfast::durable::{Disk, Interceptor, Op};

use super::model::Gate;

pub const EIO: i32 = 5;
pub const EACCES: i32 = 13;
pub const ENOSPC: i32 = 28;

struct Gated(Mutex<Gate>);

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gated")
    }
}

impl Interceptor for Gated {
    fn before(&self, op: &Op<'_>) -> io::Result<()> {
        (self.0.lock().unwrap())(op)
    }
}

pub fn gated(gate: Gate) -> Disk {
    Disk::intercepted(Arc::new(Gated(Mutex::new(gate))))
}

fn refused(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// From the `nth` pass (from 1) of a named point on nothing works any more: the process is as good as dead.
pub fn freeze_at(point: &'static str, nth: u32) -> Gate {
    let mut passed = 0;
    Box::new(move |op| {
        if matches!(op, Op::Point(name) if *name == point) {
            passed += 1;
        }
        if passed >= nth { Err(refused(EIO)) } else { Ok(()) }
    })
}

/// The `nth` operation (from 0) fails, and with `lasting` all later ones. Named points are not counted.
pub fn fail_nth(nth: usize, errno: i32, lasting: bool) -> Gate {
    let mut passed = 0;
    Box::new(move |op| {
        if matches!(op, Op::Point(_)) {
            return Ok(());
        }
        let hit = passed == nth || (lasting && passed > nth);
        passed += 1;
        if hit { Err(refused(errno)) } else { Ok(()) }
    })
}

/// The `nth` operation (from 1) of a kind fails, on a path that ends with `end`; with `lasting` the later ones too.
pub fn fail_kind(kind: &'static str, end: &'static str, nth: u32, lasting: bool) -> Gate {
    let mut passed = 0;
    Box::new(move |op| {
        let path = match op {
            Op::Rename(_, path)
            | Op::Link(_, path)
            | Op::SyncDir(path)
            | Op::SyncFile(path)
            | Op::Remove(path)
            | Op::Create(path) => *path,
            _ => return Ok(()),
        };
        if op.kind() == kind && path.to_string_lossy().ends_with(end) {
            passed += 1;
            if passed == nth || (lasting && passed > nth) {
                return Err(refused(EIO));
            }
        }
        Ok(())
    })
}

/// Runs `work` with a disk that logs its operations, and returns them as text.
pub fn operations(work: impl FnOnce(Disk)) -> Vec<String> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    work(gated(Box::new(move |op| {
        if !matches!(op, Op::Point(_)) {
            log.lock().unwrap().push(describe(op));
        }
        Ok(())
    })));
    let seen = seen.lock().unwrap();
    seen.clone()
}

pub fn describe(op: &Op<'_>) -> String {
    match op {
        Op::Write { path, offset, bytes } => format!("write {} @{offset}+{}", path.display(), bytes.len()),
        other => format!("{other:?}"),
    }
}
