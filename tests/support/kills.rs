//! Batches that die at a named step.

use std::fs;
use std::path::Path;

use super::disks::{fail_kind, freeze_at, gated};
use super::model::{Gate, Listing, Tree};
use super::store::{commit, context, input, scratch, write};
use super::verify::{Reference, Side};

pub const OURS: [usize; 2] = [0, 1];

/// A step to be killed at, and what the directory must then become; `None`: all old or all new.
pub struct Kill {
    pub point: &'static str,
    pub nth: u32,
    pub undoing: bool,
    pub becomes: Option<Side>,
}

pub fn kills() -> Vec<Kill> {
    let kill = |point, nth, becomes| Kill { point, nth, undoing: point == "in_undo", becomes };
    vec![
        kill("after_lock", 1, Some(Side::Old)),
        // Complete in memory, although not on the disk: a kill may be finished, a power cut may not.
        kill("after_stage_files", 1, None),
        kill("after_commit_point", 1, Some(Side::New)),
        kill("between_publish", 1, Some(Side::New)),
        kill("between_publish", 2, Some(Side::New)),
        kill("between_publish", 3, Some(Side::New)),
        kill("between_publish", 4, Some(Side::New)),
        kill("after_publish", 1, Some(Side::New)),
        kill("before_cleanup", 1, Some(Side::New)),
        kill("in_undo", 1, Some(Side::Old)),
    ]
}

pub fn set_up(dir: &Path, healthy: bool) {
    fs::create_dir_all(dir).unwrap();
    if healthy {
        commit(dir, "batch-1", &OURS);
    }
}

pub fn references(healthy: bool) -> (Reference, Reference) {
    let scratch = scratch();
    let dir = scratch.path().join("rt");
    set_up(&dir, healthy);
    let old = Reference::of(&dir, &OURS);
    commit(&dir, "batch-2", &OURS);
    (old, Reference::of(&dir, &OURS))
}

/// A disk that dies at the step; for the undo, after a rename that fails.
pub fn dying(kill: &Kill) -> Gate {
    let mut freeze = freeze_at(kill.point, kill.nth);
    let mut fail = fail_kind("rename", "opencode-sessions.json", 1, false);
    let undoing = kill.undoing;
    Box::new(move |op| if undoing { fail(op).and(freeze(op)) } else { freeze(op) })
}

/// What `.holdfast` and the rest hold after a batch that died there.
pub fn killed(kill: &Kill, healthy: bool) -> Listing {
    let scratch = scratch();
    let dir = scratch.path().join("rt");
    set_up(&dir, healthy);
    let result = write(&gated(dying(kill)), &context(&dir), input("batch-2", &OURS));
    assert_eq!(result.is_ok(), kill.point == "before_cleanup", "{} {}", kill.point, kill.nth);
    Tree::read(&dir).listing()
}

pub fn must(kill: &Kill) -> String {
    format!("killed at {} {}", kill.point, kill.nth)
}
