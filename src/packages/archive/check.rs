//! Judging a whole archive before anything of it is written.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;

use super::confined::Folder;
use super::headers::{Raw, Reader};
use super::inflate::{self, Inflated};
use super::plan::{Entry, Kind, Plan};
use super::{Limits, corrupt, names, over_limit, shown, unsafe_entry};
use crate::durable::{Disk, IoContext};
use crate::error::Result;

/// Reads the archive in `bytes`, a gzip tar, and returns what unpacking it will write. `fold_case` says that the target takes
/// names for one that differ only in case or composition, see [`super::folds_case`].
///
/// # Errors
/// `HF_PKG_UNSAFE_ENTRY` for an entry that must not be unpacked or is beyond a limit, `HF_PKG_ARCHIVE` for an archive that is
/// damaged, truncated, ambiguous or none.
pub fn check(bytes: &[u8], limits: &Limits, fold_case: bool) -> Result<Plan> {
    let mut tree = Tree::new(limits, fold_case);
    let inflated = match inflate::begin(bytes)? {
        Inflated::Whole(data) => {
            tree.read(Reader::new(data.bytes(), limits))?;
            Some(data)
        }
        Inflated::Stream(source) => {
            tree.read(Reader::new(source, limits))?;
            None
        }
    };
    Ok(Plan { entries: tree.entries, dirs: tree.dirs, inflated })
}

/// As [`check`], for unpacking to `target`, which need not exist: whether case is folded there is tried only where it matters,
/// in the target itself, which is made for that. A refused archive leaves no new target.
///
/// # Errors
/// As [`check`]; any failure to make the target.
pub fn check_for(bytes: &[u8], limits: &Limits, target: &Path) -> Result<Plan> {
    check_where(bytes, limits, target, &|dir| super::folds_case(dir))
}

fn check_where(bytes: &[u8], limits: &Limits, target: &Path, folds: &dyn Fn(&Path) -> Result<bool>) -> Result<Plan> {
    let plan = check(bytes, limits, false)?;
    if !plan.collides_when_folded() {
        return Ok(plan);
    }
    let disk = Disk::real();
    let made = disk.create_dirs(target).at("mkdir", target)?.len();
    // A folder that cannot be probed cannot be written to either; that error is the better one.
    let checked = if folds(target).unwrap_or(false) { check(bytes, limits, true) } else { Ok(plan) };
    if checked.is_err() {
        // Only those that are empty go.
        target.ancestors().take(made).take_while(|folder| disk.remove_dir(folder).is_ok()).count();
    }
    checked
}

/// Most bytes that all paths may have together: they are held until the archive is written, and many long names make a small archive.
const PATHS_MAX: usize = 16 << 20;

/// What stands under a name: a folder or a file, by its index.
#[derive(Clone, Copy)]
enum Node {
    Dir(usize),
    File(usize),
}

/// The entries so far, as the tree that they make.
struct Tree<'l> {
    limits: &'l Limits,
    fold_case: bool,
    entries: Vec<Entry>,
    dirs: Vec<Folder>,
    /// Whether an entry named the folder.
    named: Vec<bool>,
    nodes: HashMap<(usize, Box<str>), Node>,
    /// Bytes of all paths so far.
    paths: usize,
    /// The folder of the last file, and how it was spelled: most files stand beside the one before.
    last: (String, usize),
}

impl<'l> Tree<'l> {
    fn new(limits: &'l Limits, fold_case: bool) -> Self {
        Self {
            limits,
            fold_case,
            entries: Vec::new(),
            dirs: vec![Folder::root()],
            named: vec![true],
            nodes: HashMap::new(),
            paths: 0,
            last: (String::new(), 0),
        }
    }

    fn read(&mut self, mut reader: Reader<'_, impl BufRead>) -> Result<()> {
        while let Some(raw) = reader.next()? {
            let (size, offset) = (raw.size, reader.position);
            self.add(&raw, offset)?;
            reader.skip(size)?;
        }
        Ok(())
    }

    fn add(&mut self, raw: &Raw, offset: u64) -> Result<()> {
        let path = names::checked(&raw.name, cfg!(windows))?;
        match kind_of(raw, path)? {
            Kind::Dir if raw.size > 0 => Err(corrupt(format_args!("the folder \"{}\" has content", shown(path)))),
            Kind::Dir => self.add_dir(path),
            Kind::File => self.add_file(path, raw, offset),
        }
    }

    fn add_dir(&mut self, path: &str) -> Result<()> {
        let mut dir = 0;
        for component in names::components(path) {
            dir = self.enter(dir, component, path)?;
        }
        let Some(named) = self.named.get_mut(dir) else { return Ok(()) };
        if !std::mem::replace(named, true) {
            let path = self.dirs.get(dir).map(|dir| dir.path.clone()).unwrap_or_default();
            self.entries.push(Entry { path, kind: Kind::Dir, size: 0, exec: false, offset: 0, dir });
        }
        Ok(())
    }

    fn add_file(&mut self, path: &str, raw: &Raw, offset: u64) -> Result<()> {
        if names::names_a_folder(path) {
            return Err(unsafe_entry(format_args!("invalid name \"{}\"", shown(path)), path));
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        if self.last.0 != above {
            let mut dir = 0;
            for component in names::components(above) {
                dir = self.enter(dir, component, path)?;
            }
            self.last = (above.to_owned(), dir);
        }
        let dir = self.last.1;
        let full = self.join(dir, name);
        self.hold(&full)?;
        if let Some(&node) = self.nodes.get(&self.key(dir, name)) {
            return Err(self.clash(&full, node));
        }
        self.nodes.insert(self.key(dir, name), Node::File(self.entries.len()));
        self.entries.push(Entry { path: full, kind: Kind::File, size: raw.size, exec: raw.exec, offset, dir });
        Ok(())
    }

    /// Returns the folder `name` in `parent`, made where there is none yet.
    fn enter(&mut self, parent: usize, name: &str, path: &str) -> Result<usize> {
        match self.nodes.get(&self.key(parent, name)) {
            Some(Node::Dir(dir)) => return Ok(*dir),
            Some(&file) => return Err(self.clash(&self.join(parent, name), file)),
            None => {}
        }
        // Folders that no entry names cost nothing in the archive but much on the disk.
        let dir = self.dirs.len();
        if dir as u64 > self.limits.max_entries.saturating_mul(2) {
            return Err(over_limit("maxEntries", path));
        }
        let depth = self.dirs.get(parent).map_or(0, |parent| parent.depth) + 1;
        let full = self.join(parent, name);
        self.hold(&full)?;
        self.nodes.insert(self.key(parent, name), Node::Dir(dir));
        self.dirs.push(Folder { parent, depth, path: full });
        self.named.push(false);
        Ok(dir)
    }

    fn hold(&mut self, path: &str) -> Result<()> {
        self.paths += path.len();
        if self.paths > PATHS_MAX { Err(over_limit("16 MiB of paths", path)) } else { Ok(()) }
    }

    fn key(&self, parent: usize, name: &str) -> (usize, Box<str>) {
        (parent, if self.fold_case { names::folded(name).as_ref().into() } else { name.into() })
    }

    fn join(&self, parent: usize, name: &str) -> String {
        self.dirs.get(parent).map_or_else(|| name.to_owned(), |dir| dir.join(name))
    }

    fn clash(&self, path: &str, node: Node) -> crate::error::HfError {
        let other = match node {
            Node::Dir(dir) => self.dirs.get(dir).map(|dir| dir.path.as_str()),
            Node::File(entry) => self.entries.get(entry).map(|entry| entry.path.as_str()),
        };
        match other.filter(|other| *other != path) {
            Some(other) => {
                unsafe_entry(format_args!("case collision \"{}\" / \"{}\"", shown(path), shown(other)), path)
            }
            None => unsafe_entry(format_args!("duplicate path \"{}\"", shown(path)), path),
        }
    }
}

fn kind_of(raw: &Raw, path: &str) -> Result<Kind> {
    let letter = match raw.kind {
        b'5' => return Ok(Kind::Dir),
        // A plain file whose name ends in a slash is how the oldest tars wrote folders.
        b'0' | 0 if path.ends_with('/') && raw.size == 0 => return Ok(Kind::Dir),
        b'0' | 0 => return Ok(Kind::File),
        b'1' | b'2' => {
            let letter = if raw.kind == b'1' { 'h' } else { 'l' };
            let target = shown(&String::from_utf8_lossy(&raw.link));
            return Err(unsafe_entry(
                format_args!("link entry (type \"{letter}\") in \"{} -> {target}\"", shown(path)),
                path,
            ));
        }
        b'3' => 'c',
        b'4' => 'b',
        b'6' => 'p',
        b'7' => 'C',
        other => char::from(other),
    };
    let letter = shown(&letter.to_string());
    Err(unsafe_entry(format_args!("non-regular entry (type \"{letter}\") in \"{}\"", shown(path)), path))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::packages::archive::tests::made::Made;

    #[test]
    fn a_target_is_probed_only_where_it_matters() {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("a/target");
        let never = |_: &Path| -> Result<bool> { panic!("probed") };
        let check = |bytes: &[u8], folds: &dyn Fn(&Path) -> Result<bool>| {
            check_where(bytes, &Limits::default(), &target, folds)
        };
        // Neither for an archive that is none nor for one whose names differ anyway is anything written.
        assert_eq!(check(b"no archive", &never).unwrap_err().code(), Code::PkgArchive);
        check(&Made::new().file("lib/a", b"1").file("lib/b", b"2").gz(), &never).unwrap();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
        let two = Made::new().file("lib/a", b"1").file("LIB/A", b"2").gz();
        let folds = |dir: &Path| -> Result<bool> {
            assert!(dir == target && dir.is_dir());
            Ok(true)
        };
        assert_eq!(check(&two, &folds).unwrap_err().code(), Code::PkgUnsafeEntry);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
        assert_eq!(check(&two, &|_: &Path| Ok(false)).unwrap().entries().len(), 2);
        assert!(target.is_dir());
    }
}
