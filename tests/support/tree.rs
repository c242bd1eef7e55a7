//! A directory tree with inodes, in memory.
//!
//! Lock files (`*.lock`, `.holdfast/lock`) are no durable state and do not go through the seam: the tree ignores them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

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
    Name {
        dir: Ino,
        name: String,
        ino: Ino,
    },
    /// `unlink` or `rmdir`.
    Unname {
        dir: Ino,
        name: String,
    },
    Move {
        from: (Ino, String),
        to: (Ino, String),
        ino: Ino,
    },
    Write {
        ino: Ino,
        offset: usize,
        bytes: Arc<Vec<u8>>,
    },
}

impl Change {
    pub fn is_data(&self) -> bool {
        matches!(self, Change::Write { .. })
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

    pub fn lookup(&self, relative: &Path) -> Option<Ino> {
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
