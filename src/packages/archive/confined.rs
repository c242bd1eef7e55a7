//! Folders reached by handle, one component after another, never through a link.

use std::io;
use std::path::Path;

use cap_fs_ext::{DirExt as _, FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, OpenOptions};

use crate::durable::IoContext;
use crate::error::Result;

/// Whoever plants names faster than they are removed is given up on.
const ATTEMPTS: usize = 8;

/// Opens the folder that everything below is confined to. The path itself is the caller's, links included.
pub fn open_root(path: &Path) -> io::Result<Dir> {
    #[cfg(unix)]
    {
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), DIRECTORY);
        options.open(path).map(Dir::from_std_file)
    }
    #[cfg(not(unix))]
    Dir::open_ambient_dir(path, cap_std::ambient_authority())
}

/// Opens folders only. Handles come from here and not from cap-std's own functions for folders, because those can neither be
/// synced nor have their mode set.
#[cfg(unix)]
const DIRECTORY: i32 = rustix::fs::OFlags::DIRECTORY.bits() as i32;

/// Opens the folder `name` in `parent`, without following a link.
pub fn open_dir(parent: &Dir, name: &str) -> io::Result<Dir> {
    #[cfg(unix)]
    {
        use cap_std::fs::OpenOptionsExt;
        let mut options = OpenOptions::new();
        options.read(true).follow(FollowSymlinks::No).custom_flags(DIRECTORY);
        parent.open_with(name, &options).map(|file| Dir::from_std_file(file.into_std()))
    }
    #[cfg(not(unix))]
    parent.open_dir_nofollow(name)
}

/// Opens the folder `name` in `parent`, made where there is none; what stands there and is no folder is removed.
pub fn make_dir(parent: &Dir, name: &str) -> io::Result<Dir> {
    let mut attempts = 0;
    loop {
        match parent.create_dir(name) {
            Ok(()) => {
                let dir = open_dir(parent, name)?;
                #[cfg(unix)]
                set_mode(&dir, 0o755)?;
                return Ok(dir);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempts < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
        // A link to a folder does not open as one here.
        match open_dir(parent, name) {
            Ok(dir) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => remove(parent, name)?,
        }
        attempts += 1;
    }
}

/// Creates the file `name` in `parent`, with exactly `mode`. What stands there is removed first, never written to: other names
/// may lead to it.
pub fn create_file(parent: &Dir, name: &str, mode: u32) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).follow(FollowSymlinks::No);
    #[cfg(unix)]
    cap_std::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut attempts = 0;
    loop {
        match parent.open_with(name, &options) {
            Ok(file) => {
                let file = file.into_std();
                #[cfg(unix)]
                set_mode(&file, mode)?;
                #[cfg(not(unix))]
                let _ = mode;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempts < ATTEMPTS => remove(parent, name)?,
            Err(error) => return Err(error),
        }
        attempts += 1;
    }
}

/// Sets the permission bits, whatever the umask made of them.
#[cfg(unix)]
fn set_mode(file: &impl std::os::fd::AsFd, mode: u32) -> io::Result<()> {
    rustix::fs::fchmod(file, rustix::fs::Mode::from_bits_truncate(mode)).map_err(io::Error::from)
}

fn remove(parent: &Dir, name: &str) -> io::Result<()> {
    match parent.remove_file_or_symlink(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A way through folders that stand in a table, with the folders from the root down to the one in use open: whoever visits
/// names in the order of a walk mostly needs no more than the last component.
pub struct Walk {
    root: Dir,
    open: Vec<(usize, Dir)>,
}

impl Walk {
    pub fn new(root: Dir) -> Self {
        Self { root, open: Vec::new() }
    }

    /// Returns the root.
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// Returns the folder in use.
    pub fn here(&self) -> &Dir {
        self.open.last().map_or(&self.root, |(_, dir)| dir)
    }

    /// Makes the folder `index` of `table` the one in use. `open` opens one by its parent's handle and its index.
    ///
    /// # Errors
    /// What `open` returns.
    pub fn enter(
        &mut self,
        table: &[Folder],
        index: usize,
        open: &mut dyn FnMut(&Dir, usize, &Folder) -> Result<Dir>,
    ) -> Result<()> {
        let mut missing = Vec::new();
        let mut at = index;
        let keep = loop {
            let Some(folder) = table.get(at).filter(|folder| folder.depth > 0) else { break 0 };
            let level = folder.depth;
            if self.open.get(level - 1).is_some_and(|(index, _)| *index == at) {
                break level;
            }
            missing.push((at, folder));
            at = folder.parent;
        };
        self.open.truncate(keep);
        for (index, folder) in missing.into_iter().rev() {
            let opened = open(self.here(), index, folder)?;
            self.open.push((index, opened));
        }
        Ok(())
    }
}

/// A folder in a table. The first of the table is the root.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Index of the folder that it is in.
    pub parent: usize,
    /// 0 for the root.
    pub depth: usize,
    /// Path below the root, with `/`.
    pub path: String,
}

impl Folder {
    /// Returns the table's first.
    pub fn root() -> Self {
        Self { parent: 0, depth: 0, path: String::new() }
    }

    /// Returns the path of `name` in it.
    pub fn join(&self, name: &str) -> String {
        if self.depth == 0 { name.to_owned() } else { format!("{}/{name}", self.path) }
    }

    /// Returns its own name.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// Tells whether `dir` takes names for one that differ only in case. Creates a file with an unlikely name for a moment.
///
/// # Errors
/// Any I/O failure.
pub fn folds_case(dir: &Path) -> Result<bool> {
    let root = open_root(dir).at("open", dir)?;
    let name = format!(".hf-probe-{}-a", uuid::Uuid::new_v4().simple());
    create_file(&root, &name, 0o600).at("open", &dir.join(&name))?;
    let found = root.symlink_metadata(name.to_uppercase()).is_ok();
    remove(&root, &name).at("unlink", &dir.join(&name))?;
    Ok(found)
}
