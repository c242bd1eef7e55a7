//! Writing what a plan says, confined to the target.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::confined::Walk;
use super::plan::{Entry, Kind, Plan};
use super::{confined, corrupt, inflate, sync};
use crate::durable::{Disk, IoContext};
use crate::error::{HfError, Result};

/// How to unpack.
#[derive(Clone, Copy)]
pub struct UnpackOptions<'a> {
    /// Whether every file and folder is on the disk when the call returns, names included.
    pub durability_full: bool,
    /// Whether to compute the blake3 of every file.
    pub hash: bool,
    /// Asked between files, and within big ones; its error ends the work.
    pub cancel: &'a dyn Fn() -> Result<()>,
    /// Told how many bytes were written since it was last told.
    pub progress: &'a dyn Fn(u64),
}

impl std::fmt::Debug for UnpackOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnpackOptions")
            .field("durability_full", &self.durability_full)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// Path below the target, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Permission bits: `0o644` or `0o755`.
    pub mode: u32,
    /// Hash of the bytes, where it was asked for.
    pub blake3: Option<[u8; 32]>,
}

/// Bytes that are written at a time: whoever cancels waits no longer than that.
const CHUNK: usize = 256 << 10;

/// Writes the entries of `plan`, which [`super::check`] made from the same `bytes`, to `target`, and returns the files in the
/// order of the archive. The target is created where it is missing. Existing folders are merged into, existing files are
/// replaced by new ones; links on the way are removed, not followed. Modes become 0755 or 0644; owner and times are those of
/// the process.
///
/// A failure leaves nothing of a target that this call made, and in one that was there what was written until then: a caller that
/// needs all or nothing unpacks to a new folder.
///
/// # Errors
/// Any I/O failure, and what `cancel` returns.
pub fn unpack(bytes: &[u8], plan: &Plan, target: &Path, options: &UnpackOptions<'_>) -> Result<Vec<Extracted>> {
    (options.cancel)()?;
    let disk = Disk::real();
    let above = disk.create_dirs(target).at("mkdir", target)?;
    let made = above.len();
    let done = write(bytes, plan, target, options, above);
    if done.is_err()
        && made > 0
        && disk.run(crate::durable::Op::RemoveDir(target), || std::fs::remove_dir_all(target)).is_ok()
    {
        // Those above that this call made, too; only the empty ones go.
        target.ancestors().skip(1).take(made - 1).take_while(|folder| disk.remove_dir(folder).is_ok()).count();
    }
    done
}

fn write(
    bytes: &[u8],
    plan: &Plan,
    target: &Path,
    options: &UnpackOptions<'_>,
    above: Vec<PathBuf>,
) -> Result<Vec<Extracted>> {
    let root = confined::open_root(target).at("open", target)?;
    let mut writer = Writer {
        plan,
        target,
        walk: Walk::new(root),
        made: vec![false; plan.dirs.len()],
        options,
        unsynced: Vec::new(),
    };
    let extracted = match &plan.inflated {
        Some(kept) => writer.write_all(&mut Memory { data: kept.bytes(), bytes: &[] })?,
        None => {
            writer.write_all(&mut Streamed { source: inflate::again(bytes), position: 0, chunk: vec![0; CHUNK] })?
        }
    };
    if options.durability_full {
        writer.sync_rest()?;
        crate::durable::sync::dirs(&Disk::real(), above)?;
    }
    Ok(extracted)
}

/// Where the bytes of files come from, in the order of the archive.
trait Source {
    /// Goes to the bytes of an entry.
    fn seek(&mut self, entry: &Entry) -> Result<()>;
    /// Returns the next of its bytes, at most `left` of them.
    fn next(&mut self, left: u64) -> Result<&[u8]>;
}

struct Memory<'a> {
    data: &'a [u8],
    bytes: &'a [u8],
}

impl Source for Memory<'_> {
    fn seek(&mut self, entry: &Entry) -> Result<()> {
        let start = usize::try_from(entry.offset).unwrap_or(usize::MAX);
        self.bytes = self.data.get(start..).ok_or_else(strange)?;
        Ok(())
    }

    fn next(&mut self, left: u64) -> Result<&[u8]> {
        let (now, rest) = usize::try_from(left.min(CHUNK as u64))
            .ok()
            .and_then(|count| self.bytes.split_at_checked(count))
            .ok_or_else(strange)?;
        self.bytes = rest;
        Ok(now)
    }
}

struct Streamed<R> {
    source: R,
    position: u64,
    chunk: Vec<u8>,
}

impl<R: Read> Source for Streamed<R> {
    fn seek(&mut self, entry: &Entry) -> Result<()> {
        while self.position < entry.offset {
            self.next(entry.offset - self.position)?;
        }
        Ok(())
    }

    fn next(&mut self, left: u64) -> Result<&[u8]> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.chunk.len());
        let room = self.chunk.get_mut(..most).unwrap_or_default();
        let count = inflate::read(&mut self.source, room)?;
        if count == 0 {
            return Err(strange());
        }
        self.position += count as u64;
        Ok(self.chunk.get(..count).unwrap_or_default())
    }
}

/// The bytes are not those that the plan was made from.
fn strange() -> HfError {
    corrupt("the archive changed after it was checked")
}

struct Writer<'a> {
    plan: &'a Plan,
    target: &'a Path,
    walk: Walk,
    /// Which folders stand already.
    made: Vec<bool>,
    options: &'a UnpackOptions<'a>,
    unsynced: Vec<(std::fs::File, PathBuf)>,
}

impl Writer<'_> {
    fn write_all(&mut self, source: &mut impl Source) -> Result<Vec<Extracted>> {
        let mut extracted = Vec::with_capacity(self.plan.entries.len());
        for entry in &self.plan.entries {
            (self.options.cancel)()?;
            self.enter(entry.dir)?;
            if entry.kind == Kind::File {
                source.seek(entry)?;
                extracted.push(self.write_file(entry, source)?);
            }
        }
        Ok(extracted)
    }

    fn write_file(&mut self, entry: &Entry, source: &mut impl Source) -> Result<Extracted> {
        let mode = if entry.exec { 0o755 } else { 0o644 };
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        let path = || self.target.join(&entry.path);
        let mut file =
            confined::create_file(self.walk.here(), name, mode).map_err(|e| HfError::io("open", &path(), &e))?;
        let mut hasher = self.options.hash.then(blake3::Hasher::new);
        let mut left = entry.size;
        while left > 0 {
            let bytes = source.next(left)?;
            left -= bytes.len() as u64;
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
            file.write_all(bytes).map_err(|e| HfError::io("write", &path(), &e))?;
            (self.options.progress)(bytes.len() as u64);
            if left > 0 {
                (self.options.cancel)()?;
            }
        }
        if self.options.durability_full {
            let path = path();
            self.later(file, path)?;
        }
        let blake3 = hasher.map(|hasher| *hasher.finalize().as_bytes());
        Ok(Extracted { path: entry.path.clone(), size: entry.size, mode, blake3 })
    }

    /// Makes the folder `dir` the one in use.
    fn enter(&mut self, dir: usize) -> Result<()> {
        let (target, made) = (self.target, &mut self.made);
        self.walk.enter(&self.plan.dirs, dir, &mut |parent, index, folder| {
            let seen = made.get_mut(index).is_some_and(|made| std::mem::replace(made, true));
            let opened = if seen {
                confined::open_dir(parent, folder.name())
            } else {
                confined::make_dir(parent, folder.name())
            };
            opened.map_err(|e| HfError::io("mkdir", &target.join(&folder.path), &e))
        })
    }

    fn later(&mut self, file: std::fs::File, path: PathBuf) -> Result<()> {
        self.unsynced.push((file, path));
        if self.unsynced.len() >= sync::ROUND { sync::all(std::mem::take(&mut self.unsynced)) } else { Ok(()) }
    }

    /// Syncs the last files, and then the names of everything.
    fn sync_rest(&mut self) -> Result<()> {
        sync::all(std::mem::take(&mut self.unsynced))?;
        if cfg!(windows) {
            // NTFS journals names by itself.
            return Ok(());
        }
        for index in 0..self.made.len() {
            if self.made.get(index) == Some(&true) {
                self.enter(index)?;
                let path = self.plan.dirs.get(index).map(|dir| self.target.join(&dir.path));
                let handle = self.walk.here().try_clone().at("open", self.target)?.into_std_file();
                self.later(handle, path.unwrap_or_default())?;
            }
        }
        let root = self.walk.root().try_clone().at("open", self.target)?.into_std_file();
        self.later(root, self.target.to_owned())?;
        sync::all(std::mem::take(&mut self.unsynced))
    }
}
