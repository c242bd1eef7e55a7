//! An open folder: calls relative to it, which is what makes thousands of links cheap.
//!
//! On Unix every call is one system call against a file descriptor. Elsewhere paths are joined.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::durable::{Disk, Op};

/// What matters of a file's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) is_file: bool,
    pub(super) is_dir: bool,
    pub(super) size: u64,
    /// Permission bits; on Windows what [`Folder::create`] would have been given.
    pub(super) mode: u32,
    /// Nanoseconds since the epoch at which the content changed last.
    pub(super) modified_ns: i128,
    /// Device and inode, zero where there are none.
    pub(super) id: (u64, u64),
    /// How many names the file has.
    pub(super) links: u64,
}

/// An open folder. Names given to its methods may have several parts, joined with `/`; the last one is never followed if it is
/// a link.
#[derive(Debug)]
pub(super) struct Folder {
    #[cfg(unix)]
    handle: std::os::fd::OwnedFd,
    path: PathBuf,
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn watched<T>(
        &self,
        disk: &Disk,
        name: &str,
        op: impl for<'a> FnOnce(&'a Path) -> Op<'a>,
        real: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        // The full path is only made for those who look.
        if disk.is_watched() { disk.run(op(&self.path.join(name)), real) } else { real() }
    }
}

#[cfg(unix)]
impl Folder {
    /// Opens a folder; one that is a link itself is refused.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let handle = rustix::fs::open(path, Self::flags(), rustix::fs::Mode::empty())?;
        Ok(Self { handle, path: path.to_owned() })
    }

    fn flags() -> rustix::fs::OFlags {
        use rustix::fs::OFlags;
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
    }

    pub(super) fn make(&self, disk: &Disk, name: &str) -> io::Result<()> {
        let mode = rustix::fs::Mode::from_raw_mode(0o755);
        self.watched(disk, name, |path| Op::CreateDir(path), || Ok(rustix::fs::mkdirat(&self.handle, name, mode)?))
    }

    pub(super) fn status(&self, name: &str) -> io::Result<Status> {
        let stat = rustix::fs::statat(&self.handle, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Status::of(&stat))
    }

    /// Gives the file `source_name` of `source` a second name here.
    pub(super) fn link(&self, disk: &Disk, name: &str, source: &Folder, source_name: &str) -> io::Result<()> {
        let real = || {
            let flags = rustix::fs::AtFlags::empty();
            Ok(rustix::fs::linkat(&source.handle, source_name, &self.handle, name, flags)?)
        };
        if disk.is_watched() {
            disk.run(Op::Link(&source.path.join(source_name), &self.path.join(name)), real)
        } else {
            real()
        }
    }

    pub(super) fn symlink(&self, disk: &Disk, name: &str, target: &str) -> io::Result<()> {
        self.watched(disk, name, |path| Op::Create(path), || Ok(rustix::fs::symlinkat(target, &self.handle, name)?))
    }

    /// Creates a file that must not exist.
    pub(super) fn create(&self, disk: &Disk, name: &str, mode: u32) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.watched(
            disk,
            name,
            |path| Op::Create(path),
            || {
                // Cannot truncate where `mode_t` has 16 bits: modes have twelve.
                #[allow(clippy::cast_possible_truncation, reason = "modes have twelve bits")]
                let bits = Mode::from_raw_mode(mode as rustix::fs::RawMode);
                let file = File::from(rustix::fs::openat(&self.handle, name, flags, bits)?);
                rustix::fs::fchmod(&file, bits)?;
                Ok(file)
            },
        )?;
        Ok(file)
    }

    pub(super) fn read(&self, name: &str) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.handle, name, flags, Mode::empty())?))
    }

    pub(super) fn read_link(&self, name: &str) -> io::Result<String> {
        let text = rustix::fs::readlinkat(&self.handle, name, Vec::new())?;
        text.into_string().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the link is not UTF-8"))
    }
}

#[cfg(unix)]
impl Status {
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        clippy::cast_lossless,
        reason = "the widths of these fields differ between systems"
    )]
    fn of(stat: &rustix::fs::Stat) -> Self {
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        Self {
            is_file: kind == rustix::fs::FileType::RegularFile,
            is_dir: kind == rustix::fs::FileType::Directory,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: u32::from(stat.st_mode) & 0o7777,
            modified_ns: i128::from(stat.st_mtime as i64) * 1_000_000_000 + stat.st_mtime_nsec as i128,
            id: (stat.st_dev as u64, stat.st_ino as u64),
            links: stat.st_nlink as u64,
        }
    }
}

#[cfg(not(unix))]
impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        if metadata.is_dir() {
            return Ok(Self { path: path.to_owned() });
        }
        Err(io::Error::from(io::ErrorKind::NotADirectory))
    }

    pub(super) fn make(&self, disk: &Disk, name: &str) -> io::Result<()> {
        disk.create_dir(&self.path.join(name))
    }

    pub(super) fn status(&self, name: &str) -> io::Result<Status> {
        let metadata = std::fs::symlink_metadata(self.path.join(name))?;
        let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Status {
            is_file: metadata.is_file(),
            is_dir: metadata.is_dir(),
            size: metadata.len(),
            mode: 0o644,
            modified_ns: i128::try_from(modified.as_nanos()).unwrap_or(0),
            id: (0, 0),
            links: 1,
        })
    }

    pub(super) fn link(&self, disk: &Disk, name: &str, source: &Folder, source_name: &str) -> io::Result<()> {
        disk.hard_link(&source.path.join(source_name), &self.path.join(name))
    }

    pub(super) fn symlink(&self, _disk: &Disk, _name: &str, _target: &str) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    pub(super) fn create(&self, disk: &Disk, name: &str, mode: u32) -> io::Result<File> {
        disk.create(&self.path.join(name), Some(mode)).map(|out| out.file)
    }

    pub(super) fn read(&self, name: &str) -> io::Result<File> {
        File::open(self.path.join(name))
    }

    pub(super) fn read_link(&self, name: &str) -> io::Result<String> {
        let text = std::fs::read_link(self.path.join(name))?;
        Ok(text.to_string_lossy().into_owned())
    }
}

/// Returns every file below a folder as `/`-joined relative paths, and every folder, both sorted bytewise. Links are listed as
/// files, never followed.
pub(super) fn walk(root: &Path) -> io::Result<(Vec<String>, Vec<String>)> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    let mut left = vec![String::new()];
    while let Some(prefix) = left.pop() {
        for child in std::fs::read_dir(root.join(&prefix))? {
            let child = child?;
            let name = child.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("the name {} is not UTF-8", name.display()))
            })?;
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if child.file_type()?.is_dir() {
                left.push(path.clone());
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    folders.sort_unstable();
    Ok((files, folders))
}
