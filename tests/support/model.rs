//! A directory tree with inodes, and a recorder that logs what a [`Disk`](holdfast::durable::Disk) does to it.
//!
//! Lock files (`*.lock`, `.holdfast/lock`) are no durable state and do not go through the seam: the tree ignores them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast::durable::{Interceptor, Op};

pub type Ino = usize;
/// What a directory holds: path from the root → bytes; a folder ends with `/` and has none.
pub type Listing = BTreeMap<String, Arc<Vec<u8>>>;

#[derive(Debug, Clone)]
pub enum Node {
    File(Arc<Vec<u8>>),
    Dir(BTreeMap<String, Ino>),
}

/// Inodes; number 0 is the root.
#[derive(Debug, Clone)]
pub struct Tree {
    pub nodes: Vec<Node>,
}

/// One change of the tree.
#[derive(Debug, Clone)]
pub enum Change {
    /// `create`, `link` or `mkdir`.
    Name { dir: Ino, name: String, ino: Ino },
    /// `unlink` or `rmdir`.
    Unname { dir: Ino, name: String },
    Move { from: (Ino, String), to: (Ino, String), ino: Ino },
    Write { ino: Ino, offset: usize, bytes: Arc<Vec<u8>> },
}

impl Change {
    pub fn is_data(&self) -> bool {
        matches!(self, Change::Write { .. })
    }
}

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

pub fn is_ignored(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "lock") || path.ends_with(".holdfast/lock")
}

impl Tree {
    /// Reads a real directory.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self { nodes: vec![Node::Dir(BTreeMap::new())] };
        tree.read_into(root, 0);
        tree
    }

    fn read_into(&mut self, folder: &Path, dir: Ino) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if is_ignored(&path) {
                continue;
            }
            let is_dir = fs::symlink_metadata(&path).unwrap().is_dir();
            let node = if is_dir { Node::Dir(BTreeMap::new()) } else { Node::File(Arc::new(fs::read(&path).unwrap())) };
            let ino = self.add(node);
            self.dir(dir).insert(path.file_name().unwrap().to_str().unwrap().to_owned(), ino);
            if is_dir {
                self.read_into(&path, ino);
            }
        }
    }

    pub fn add(&mut self, node: Node) -> Ino {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn dir(&mut self, ino: Ino) -> &mut BTreeMap<String, Ino> {
        match &mut self.nodes[ino] {
            Node::Dir(entries) => entries,
            Node::File(_) => panic!("inode {ino} is no folder"),
        }
    }

    fn lookup(&self, relative: &Path) -> Option<Ino> {
        relative.components().try_fold(0, |ino, part| match &self.nodes[ino] {
            Node::Dir(entries) => entries.get(part.as_os_str().to_str()?).copied(),
            Node::File(_) => None,
        })
    }

    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Name { dir, name, ino } => {
                self.dir(*dir).insert(name.clone(), *ino);
            }
            Change::Unname { dir, name } => {
                self.dir(*dir).remove(name);
            }
            Change::Move { from, to, ino } => {
                if self.dir(from.0).get(&from.1) == Some(ino) {
                    self.dir(from.0).remove(&from.1);
                }
                self.dir(to.0).insert(to.1.clone(), *ino);
            }
            Change::Write { ino, offset, bytes } => {
                let Node::File(data) = &mut self.nodes[*ino] else { panic!("inode {ino} is no file") };
                let data = Arc::make_mut(data);
                data.resize(data.len().max(offset + bytes.len()), 0);
                data[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    pub fn listing(&self) -> Listing {
        let mut listing = Listing::new();
        self.list_into(0, "", &mut listing);
        listing
    }

    fn list_into(&self, ino: Ino, prefix: &str, listing: &mut Listing) {
        let Node::Dir(entries) = &self.nodes[ino] else { return };
        for (name, &child) in entries {
            match &self.nodes[child] {
                Node::File(data) => {
                    listing.insert(format!("{prefix}{name}"), Arc::clone(data));
                }
                Node::Dir(_) => {
                    let path = format!("{prefix}{name}/");
                    listing.insert(path.clone(), Arc::default());
                    self.list_into(child, &path, listing);
                }
            }
        }
    }
}

/// Makes the files of `listing` that `wanted` picks below `root`.
pub fn materialise(listing: &Listing, root: &Path, wanted: impl Fn(&str) -> bool) {
    fs::create_dir_all(root).unwrap();
    for (path, bytes) in listing.iter().filter(|(path, _)| wanted(path)) {
        let target = root.join(path);
        if path.ends_with('/') {
            fs::create_dir_all(target).unwrap();
        } else {
            fs::File::create(target).unwrap().write_all(bytes).unwrap();
        }
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
                let node = if matches!(op, Op::Create(_)) { Node::File(Arc::default()) } else { Node::Dir(BTreeMap::new()) };
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
                let (Some(from), Some(to)) = (inside(from), inside(to)) else { return };
                let ino = state.live.lookup(&from).expect("linked a known file");
                state.name(&to, ino);
            }
            Op::Rename(from, to) => {
                let (Some(from), Some(to)) = (inside(from), inside(to)) else { return };
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
                state.events.push(if matches!(op, Op::SyncFile(_)) { Event::SyncFile(ino) } else { Event::SyncDir(ino) });
            }
            _ => {}
        }
    }
}
