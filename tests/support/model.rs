//! A recorder that logs what a [`Disk`](holdfast::durable::Disk) does to a directory.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast::durable::{Interceptor, Op};

pub use super::tree::{Change, Ino, Listing, Node, Tree, materialise};

#[derive(Debug, Clone)]
pub enum Event {
    Change(Change),
    SyncFile(Ino),
    SyncDir(Ino),
    /// The test says something: "acked" …
    Mark(&'static str),
}

/// A recorded run: where it began, and what happened.
#[derive(Debug, Clone)]
pub struct Log {
    /// The tree at the beginning, with all inodes that will be created as nameless empty ones.
    pub base: Tree,
    pub events: Vec<Event>,
}

impl Log {
    pub fn changes(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Change(_))).count()
    }
}

/// Decides whether an operation may run.
pub type Gate = Box<dyn FnMut(&Op<'_>) -> io::Result<()> + Send>;

struct State {
    live: Tree,
    base: Tree,
    events: Vec<Event>,
    gate: Option<Gate>,
}

/// Logs every change and sync below a root, and lets a gate refuse operations.
pub struct Recorder {
    root: PathBuf,
    state: Mutex<State>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Recorder {
    pub fn new(root: &Path) -> Arc<Self> {
        let base = Tree::read(root);
        let state = State { live: base.clone(), base, events: Vec::new(), gate: None };
        Arc::new(Self { root: root.to_owned(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_gate(&self, gate: Option<Gate>) {
        self.state().gate = gate;
    }

    pub fn mark(&self, what: &'static str) {
        self.state().events.push(Event::Mark(what));
    }

    /// Returns the log. Fails when the directory differs from what the log says: then something went around the seam.
    pub fn log(&self) -> Log {
        let state = self.state();
        let real = Tree::read(&self.root).listing();
        let recorded = state.live.listing();
        if real != recorded {
            let names = |listing: &Listing| listing.keys().cloned().collect::<Vec<_>>();
            panic!("something bypassed the seam:\n real {:?}\n recorded {:?}", names(&real), names(&recorded));
        }
        Log { base: state.base.clone(), events: state.events.clone() }
    }
}

impl State {
    fn new_inode(&mut self, node: &Node) -> Ino {
        self.base.add(node.clone());
        self.live.add(node.clone())
    }

    fn change(&mut self, change: Change) {
        self.live.apply(&change);
        self.events.push(Event::Change(change));
    }

    fn parent(&self, relative: &Path) -> (Ino, String) {
        let folder = relative.parent().unwrap();
        let dir = self.live.lookup(folder).unwrap_or_else(|| panic!("unknown folder {}", folder.display()));
        (dir, relative.file_name().unwrap().to_str().unwrap().to_owned())
    }

    fn name(&mut self, relative: &Path, ino: Ino) {
        let (dir, name) = self.parent(relative);
        self.change(Change::Name { dir, name, ino });
    }
}

impl Interceptor for Recorder {
    fn before(&self, op: &Op<'_>) -> io::Result<()> {
        match &mut self.state().gate {
            Some(gate) => gate(op),
            None => Ok(()),
        }
    }

    fn after(&self, op: &Op<'_>) {
        let inside = |path: &Path| path.strip_prefix(&self.root).ok().map(Path::to_owned);
        let mut state = self.state();
        match op {
            Op::Create(path) | Op::CreateDir(path) => {
                let Some(path) = inside(path) else { return };
                let node =
                    if matches!(op, Op::Create(_)) { Node::File(Arc::default()) } else { Node::Dir(BTreeMap::new()) };
                let ino = state.new_inode(&node);
                state.name(&path, ino);
            }
            Op::Write { path, offset, bytes } => {
                let Some(path) = inside(path) else { return };
                // An append may have created the file.
                let ino = state.live.lookup(&path).unwrap_or_else(|| {
                    let ino = state.new_inode(&Node::File(Arc::default()));
                    state.name(&path, ino);
                    ino
                });
                state.change(Change::Write { ino, offset: *offset as usize, bytes: Arc::new(bytes.to_vec()) });
            }
            Op::Link(from, to) => {
                let (Some(from), Some(to)) = (inside(from), inside(to)) else {
                    return;
                };
                let ino = state.live.lookup(&from).expect("linked a known file");
                state.name(&to, ino);
            }
            Op::Rename(from, to) => {
                let (Some(from), Some(to)) = (inside(from), inside(to)) else {
                    return;
                };
                let ino = state.live.lookup(&from).expect("renamed a known file");
                let (from, to) = (state.parent(&from), state.parent(&to));
                state.change(Change::Move { from, to, ino });
            }
            Op::Remove(path) | Op::RemoveDir(path) => {
                let Some(path) = inside(path) else { return };
                let (dir, name) = state.parent(&path);
                state.change(Change::Unname { dir, name });
            }
            Op::SyncFile(path) | Op::SyncDir(path) => {
                let Some(path) = inside(path) else { return };
                let ino = state.live.lookup(&path).unwrap_or_else(|| panic!("synced the unknown {}", path.display()));
                state.events.push(if matches!(op, Op::SyncFile(_)) {
                    Event::SyncFile(ino)
                } else {
                    Event::SyncDir(ino)
                });
            }
            _ => {}
        }
    }
}
