//! What a power cut can leave: from a log to the directories that may be found afterwards.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::model::{Change, Event, Ino, Listing, Log, Tree};

/// What a file system promises about operations that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Names change in order, and any sync carries all earlier names. Bytes are carried by a sync of their file alone.
    Ext4,
    /// Any subset of what was not synced: bytes by a sync of the file, names by a sync of their folder.
    Strict,
}

pub const MODELS: [Model; 2] = [Model::Ext4, Model::Strict];

/// A directory that a power cut may leave.
#[derive(Debug)]
pub struct Crash {
    pub listing: Listing,
    /// Events before the cut.
    pub position: usize,
    /// The last mark before the cut.
    pub mark: Option<&'static str>,
    /// How it came about, for a failing test.
    pub story: String,
}

struct Pending<'a> {
    index: usize,
    change: &'a Change,
}

/// Calls `open` with every distinct directory. Returns how many there were.
pub fn crash_states(log: &Log, model: Model, mut open: impl FnMut(&Crash)) -> usize {
    let mut seen = HashSet::new();
    for position in 0..=log.events.len() {
        let events = &log.events[..position];
        let mark = events.iter().rev().find_map(|event| if let Event::Mark(mark) = event { Some(*mark) } else { None });
        let (sure, unsure) = split(events, model);
        let mut tree = log.base.clone();
        for change in sure {
            tree.apply(change);
        }
        let mut emit = |tree: &Tree, story: &str| {
            let listing = tree.listing();
            let mut hasher = DefaultHasher::new();
            (mark, &listing).hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                open(&Crash {
                    listing,
                    position,
                    mark,
                    story: format!("{model:?}, cut after event {position}: {story}"),
                });
            }
        };
        for kept in subsets(&unsure, model) {
            let mut tree = tree.clone();
            for (pending, kept) in unsure.iter().zip(&kept) {
                if *kept {
                    tree.apply(pending.change);
                }
            }
            let lost: Vec<usize> =
                unsure.iter().zip(&kept).filter(|(_, kept)| !**kept).map(|(pending, _)| pending.index).collect();
            emit(&tree, &format!("lost {lost:?} of {}", unsure.len()));
        }
        for (at, pending) in unsure.iter().enumerate() {
            let Change::Write { ino, offset, bytes } = pending.change else {
                continue;
            };
            let is_last = !unsure[at + 1..].iter().any(|later| later.change.is_data());
            for torn in torn(*ino, *offset, bytes, is_last) {
                let mut tree = tree.clone();
                for (i, other) in unsure.iter().enumerate() {
                    tree.apply(if i == at { &torn } else { other.change });
                }
                emit(&tree, &format!("write {} torn", pending.index));
            }
        }
    }
    seen.len()
}

/// The write with its bytes as zeros and, for the last one, cut at steps of 512 bytes (at most 8).
fn torn(ino: Ino, offset: usize, bytes: &Arc<Vec<u8>>, is_last: bool) -> Vec<Change> {
    let write = |bytes: Vec<u8>| Change::Write { ino, offset, bytes: Arc::new(bytes) };
    let mut all = vec![write(vec![0; bytes.len()])];
    if is_last {
        let steps: Vec<usize> =
            (512..bytes.len()).step_by(512).chain([bytes.len() / 2, bytes.len().saturating_sub(1)]).take(8).collect();
        all.extend(steps.into_iter().map(|length| write(bytes[..length].to_vec())));
    }
    all
}

/// Splits changes into those that a sync carried and those that may be lost, both in order.
fn split(events: &[Event], model: Model) -> (Vec<&Change>, Vec<Pending<'_>>) {
    let synced_later = |at: usize, wanted: &dyn Fn(&Event) -> bool| events[at + 1..].iter().any(wanted);
    let (mut sure, mut unsure) = (Vec::new(), Vec::new());
    for (index, event) in events.iter().enumerate() {
        let Event::Change(change) = event else { continue };
        let dir_synced =
            |dir: Ino| synced_later(index, &|event| matches!(event, Event::SyncDir(synced) if *synced == dir));
        let carried = match (change, model) {
            (Change::Write { ino, .. }, _) => {
                synced_later(index, &|event| matches!(event, Event::SyncFile(synced) if synced == ino))
            }
            (_, Model::Ext4) => synced_later(index, &|event| matches!(event, Event::SyncFile(_) | Event::SyncDir(_))),
            (Change::Name { dir, .. } | Change::Unname { dir, .. }, Model::Strict) => dir_synced(*dir),
            // Between folders: one step, sure when both know of it.
            (Change::Move { from, to, .. }, Model::Strict) => dir_synced(from.0) && dir_synced(to.0),
        };
        if carried { sure.push(change) } else { unsure.push(Pending { index, change }) }
    }
    (sure, unsure)
}

/// None, all, all but one, only one; for ext4 every prefix of the names with each of these choices of the bytes.
fn subsets(unsure: &[Pending<'_>], model: Model) -> Vec<Vec<bool>> {
    match model {
        Model::Strict => choices(unsure.len()),
        Model::Ext4 => {
            let data: Vec<usize> = (0..unsure.len()).filter(|&i| unsure[i].change.is_data()).collect();
            let names: Vec<usize> = (0..unsure.len()).filter(|&i| !unsure[i].change.is_data()).collect();
            let mut all = Vec::new();
            for prefix in 0..=names.len() {
                for choice in choices(data.len()) {
                    let mut kept = vec![false; unsure.len()];
                    names[..prefix].iter().for_each(|&i| kept[i] = true);
                    data.iter().zip(choice).for_each(|(&i, keep)| kept[i] = keep);
                    all.push(kept);
                }
            }
            all
        }
    }
}

fn choices(count: usize) -> Vec<Vec<bool>> {
    let mut all = vec![vec![false; count], vec![true; count]];
    for i in 0..count {
        all.push((0..count).map(|k| k != i).collect());
        all.push((0..count).map(|k| k == i).collect());
    }
    if std::env::var_os("HOLDFAST_DEEP").is_some() {
        for i in 0..count {
            for j in 0..i {
                all.push((0..count).map(|k| k != i && k != j).collect());
                all.push((0..count).map(|k| k == i || k == j).collect());
            }
        }
    }
    all
}
