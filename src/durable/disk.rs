//! The one door to the file system, and the seam at which tests stand.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One operation, as an [`Interceptor`] sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Op<'a> {
    /// Reads a whole file.
    Read(&'a Path),
    /// Asks for the metadata of a path.
    Stat(&'a Path),
    /// Lists a folder.
    List(&'a Path),
    /// Creates a file that must not exist.
    Create(&'a Path),
    /// Writes `bytes` at `offset`.
    Write {
        /// The file.
        path: &'a Path,
        /// Where the bytes begin.
        offset: u64,
        /// What is written.
        bytes: &'a [u8],
    },
    /// Forces the bytes of a file to the disk.
    SyncFile(&'a Path),
    /// Forces the names of a folder to the disk.
    SyncDir(&'a Path),
    /// Renames, replacing what stood there.
    Rename(&'a Path, &'a Path),
    /// Gives an existing file a second name.
    Link(&'a Path, &'a Path),
    /// Removes a name.
    Remove(&'a Path),
    /// Creates a folder.
    CreateDir(&'a Path),
    /// Removes an empty folder.
    RemoveDir(&'a Path),
    /// Not an operation: a named step of a protocol was reached.
    Point(&'static str),
}

impl Op<'_> {
    /// Returns the name by which fault rules speak of the operation.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Read(_) => "read",
            Op::Stat(_) => "stat",
            Op::List(_) => "list",
            Op::Create(_) => "create",
            Op::Write { .. } => "write",
            Op::SyncFile(_) => "syncFile",
            Op::SyncDir(_) => "syncDir",
            Op::Rename(..) => "rename",
            Op::Link(..) => "link",
            Op::Remove(_) => "remove",
            Op::CreateDir(_) => "createDir",
            Op::RemoveDir(_) => "removeDir",
            Op::Point(_) => "point",
        }
    }
}

/// Watches or disturbs the operations of a [`Disk`].
pub trait Interceptor: Send + Sync + fmt::Debug {
    /// Runs before the operation; an error takes its place.
    ///
    /// # Errors
    /// The failure to inject.
    fn before(&self, op: &Op<'_>) -> io::Result<()>;

    /// Runs after an operation that succeeded.
    fn after(&self, _op: &Op<'_>) {}

    /// Returns how many of the `wanted` bytes one write call may take: a smaller number is a short write.
    fn write_limit(&self, _path: &Path, wanted: usize) -> usize {
        wanted
    }
}

/// Opens for reading. Never waits: opening a FIFO that nobody writes would, for ever.
pub(super) fn open_without_waiting(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits() as i32);
    options.open(path)
}

fn read_plain(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let mut file = open_without_waiting(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file but a FIFO, socket or device"));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    file.read_to_end(&mut bytes)?;
    Ok((bytes, metadata))
}

/// A file that was created and is still open for its sync.
#[derive(Debug)]
pub struct OutFile {
    /// The open handle; the same one that wrote is synced.
    pub file: File,
    /// Where it stands.
    pub path: PathBuf,
}

/// The file system, with an optional [`Interceptor`]. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    interceptor: Option<Arc<dyn Interceptor>>,
}

impl Disk {
    /// Returns the real file system.
    #[must_use]
    pub fn real() -> Self {
        Self::default()
    }

    /// Returns the real file system behind `interceptor`.
    #[must_use]
    pub fn intercepted(interceptor: Arc<dyn Interceptor>) -> Self {
        Self { interceptor: Some(interceptor) }
    }

    /// Tells whether an [`Interceptor`] stands before the file system.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.interceptor.is_some()
    }

    /// Runs `real` as the operation `op`: for engines whose own calls do what no method here does.
    ///
    /// # Errors
    /// What `real` returns, or what the interceptor injects.
    pub fn run<T>(&self, op: Op<'_>, real: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &self.interceptor {
            None => real(),
            Some(interceptor) => {
                interceptor.before(&op)?;
                let value = real()?;
                interceptor.after(&op);
                Ok(value)
            }
        }
    }

    /// Passes a named step; does nothing unless a test waits for it.
    ///
    /// # Errors
    /// What the interceptor injects.
    pub fn point(&self, name: &'static str) -> io::Result<()> {
        self.run(Op::Point(name), || Ok(()))
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// As [`std::fs::read`].
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.run(Op::Read(path), || {
            let (bytes, _) = read_plain(path)?;
            Ok(bytes)
        })
    }

    /// Reads a whole file together with its metadata at the time of opening.
    ///
    /// # Errors
    /// As [`std::fs::read`].
    pub fn read_with_metadata(&self, path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
        self.run(Op::Read(path), || read_plain(path))
    }

    /// Returns the metadata of what `path` names, following symlinks.
    ///
    /// # Errors
    /// As [`std::fs::metadata`].
    pub fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.run(Op::Stat(path), || fs::metadata(path))
    }

    /// Returns the metadata of `path` itself.
    ///
    /// # Errors
    /// As [`std::fs::symlink_metadata`].
    pub fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.run(Op::Stat(path), || fs::symlink_metadata(path))
    }

    /// Returns the names in a folder, in byte order.
    ///
    /// # Errors
    /// As [`std::fs::read_dir`].
    pub fn list(&self, path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        self.run(Op::List(path), || {
            let mut names =
                fs::read_dir(path)?.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        })
    }

    /// Creates a file that must not exist yet, with `mode` (permission bits, before the umask).
    ///
    /// # Errors
    /// `AlreadyExists`, or any other I/O failure.
    pub fn create(&self, path: &Path, mode: Option<u32>) -> io::Result<OutFile> {
        self.run(Op::Create(path), || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            if let Some(mode) = mode {
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
            }
            #[cfg(not(unix))]
            let _ = mode;
            Ok(OutFile { file: options.open(path)?, path: path.to_owned() })
        })
    }

    /// Writes all of `bytes` behind what was written so far. A short write of the system is continued, never ignored.
    ///
    /// # Errors
    /// Any I/O failure; some of the bytes may then be in the file.
    pub fn write_all(&self, out: &mut OutFile, bytes: &[u8]) -> io::Result<()> {
        if self.interceptor.is_none() {
            return out.file.write_all(bytes);
        }
        let mut done = 0;
        while done < bytes.len() {
            let rest = bytes.get(done..).unwrap_or_default();
            let limit = self.interceptor.as_ref().map_or(rest.len(), |i| i.write_limit(&out.path, rest.len())).max(1);
            let part = rest.get(..limit.min(rest.len())).unwrap_or_default();
            let op = Op::Write { path: &out.path, offset: done as u64, bytes: part };
            self.run(op, || (&out.file).write_all(part))?;
            done += part.len();
        }
        Ok(())
    }

    /// Creates a file with `bytes` and leaves it open for its sync. A file that could not be written is removed.
    ///
    /// # Errors
    /// Any I/O failure.
    pub fn create_with(&self, path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<OutFile> {
        let mut out = self.create(path, mode)?;
        match self.write_all(&mut out, bytes) {
            Ok(()) => Ok(out),
            Err(error) => {
                let _ = self.remove_file(path);
                Err(error)
            }
        }
    }

    /// Appends to a file, creating it when missing, and leaves it open for its sync.
    ///
    /// # Errors
    /// Any I/O failure; some of the bytes may then be in the file.
    pub fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<OutFile> {
        let file = self.run(Op::Stat(path), || OpenOptions::new().append(true).create(true).open(path))?;
        let out = OutFile { file, path: path.to_owned() };
        let offset = out.file.metadata()?.len();
        self.run(Op::Write { path, offset, bytes }, || (&out.file).write_all(bytes))?;
        Ok(out)
    }

    /// Opens a file that somebody else wrote, to sync it.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn reopen(&self, path: &Path) -> io::Result<OutFile> {
        // Windows flushes only through handles that may write.
        let file = self.run(Op::Stat(path), || OpenOptions::new().read(true).write(cfg!(windows)).open(path))?;
        Ok(OutFile { file, path: path.to_owned() })
    }

    /// Forces the bytes of `out` to the disk.
    ///
    /// # Errors
    /// Any I/O failure. Never call it again on the same handle after one: the system has forgotten the pages.
    pub fn sync_file(&self, out: &OutFile) -> io::Result<()> {
        self.run(Op::SyncFile(&out.path), || out.file.sync_all())
    }

    /// Forces the names in a folder to the disk. Where the system cannot sync folders this succeeds.
    ///
    /// # Errors
    /// Any other I/O failure.
    pub fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.run(Op::SyncDir(path), || {
            if cfg!(windows) {
                // NTFS journals names by itself; std cannot open a folder for writing there.
                return Ok(());
            }
            match File::open(path)?.sync_all() {
                Err(error)
                    if error.kind() == io::ErrorKind::InvalidInput || error.kind() == io::ErrorKind::Unsupported =>
                {
                    Ok(())
                }
                result => result,
            }
        })
    }

    /// Renames, replacing what stands at `to`.
    ///
    /// # Errors
    /// As [`std::fs::rename`].
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "this is their home")]
        self.run(Op::Rename(from, to), || fs::rename(from, to))
    }

    /// Gives `from` a second name `to`, which must not exist.
    ///
    /// # Errors
    /// As [`std::fs::hard_link`].
    pub fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "this is their home")]
        self.run(Op::Link(from, to), || fs::hard_link(from, to))
    }

    /// Removes a name.
    ///
    /// # Errors
    /// As [`std::fs::remove_file`].
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "this is their home")]
        self.run(Op::Remove(path), || fs::remove_file(path))
    }

    /// Opens a file only to keep its inode while its last name is removed, see [`super::pool::close_later`]. `None` when that
    /// does not work here; then the removal costs what it costs.
    #[must_use]
    pub fn keep_inode(&self, path: &Path) -> Option<File> {
        // Windows does not let others remove or replace an open file.
        if cfg!(unix) { open_without_waiting(path).ok() } else { None }
    }

    /// Creates one folder.
    ///
    /// # Errors
    /// As [`std::fs::create_dir`].
    pub fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.run(Op::CreateDir(path), || fs::create_dir(path))
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    /// As [`std::fs::remove_dir`].
    pub fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.run(Op::RemoveDir(path), || fs::remove_dir(path))
    }

    /// Creates `path` and the folders above it. Returns the folders whose names must be synced for the new ones to
    /// survive a power cut: the parents of what was created, top down.
    ///
    /// # Errors
    /// Any I/O failure.
    pub fn create_dirs(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        if self.metadata(path).is_ok_and(|m| m.is_dir()) {
            return Ok(Vec::new());
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let mut changed = match parent {
            Some(parent) => self.create_dirs(parent)?,
            None => Vec::new(),
        };
        match self.create_dir(path) {
            Ok(()) => changed.push(parent.unwrap_or_else(|| Path::new(".")).to_owned()),
            // Another process was faster. It may not have synced yet, so this one does too.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                changed.push(parent.unwrap_or_else(|| Path::new(".")).to_owned());
            }
            Err(error) => return Err(error),
        }
        Ok(changed)
    }
}
