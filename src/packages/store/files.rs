//! Bringing one file from the cache into a tree: clone, link or copy.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::LinkMode;
use super::folder::Folder;
use super::leftovers::Staging;
use super::lock::guard;
use super::rows::Row;
use crate::durable::sync::{self, Target};
use crate::durable::{Disk, OutFile};
use crate::error::{HfError, Result};

/// Longest first line that is looked at: what the kernel reads of a script's first line is shorter.
const SHEBANG_BYTES_MAX: usize = 4096;

/// Most files that are open and not synced, between them and their sync.
const UNSYNCED_MAX: usize = 64;

/// How a file came into a tree, the cheapest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Copied = 1,
    Linked = 2,
    Cloned = 3,
}

/// Places files the way that works on this file system.
#[derive(Debug)]
pub(super) struct Placer<'a> {
    disk: &'a Disk,
    mode: LinkMode,
    may_clone: bool,
    full: bool,
    /// The cheapest way used so far.
    best: AtomicU8,
    /// Hard links do not work here at all.
    no_links: AtomicBool,
    /// Files whose bytes are new and not synced yet.
    unsynced: Mutex<Vec<Target>>,
    failure: Mutex<Option<HfError>>,
}

impl<'a> Placer<'a> {
    /// Makes a placer. Whether files can be cloned is tried once for each root, in `staging`; `no_clones` remembers a failure.
    pub(super) fn new(disk: &'a Disk, mode: LinkMode, full: bool, staging: &Staging, no_clones: &AtomicBool) -> Self {
        let wanted = matches!(mode, LinkMode::Auto | LinkMode::Reflink);
        let may_clone = wanted && !no_clones.load(Ordering::Relaxed) && {
            let works = can_clone(staging.path());
            no_clones.store(!works, Ordering::Relaxed);
            works
        };
        Self {
            disk,
            mode,
            may_clone,
            full,
            best: AtomicU8::new(0),
            no_links: AtomicBool::new(false),
            unsynced: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Returns the name of the cheapest way that was used for a file.
    pub(super) fn best(&self) -> &'static str {
        match (self.best.load(Ordering::Relaxed), self.mode, self.may_clone) {
            (3, ..) | (0, _, true) => "reflink",
            (2, ..) | (0, LinkMode::Auto | LinkMode::Hardlink, _) => "hardlink",
            _ => "copy",
        }
    }

    fn used(&self, way: Way) {
        self.best.fetch_max(way as u8, Ordering::Relaxed);
    }

    /// Gives the cache's file `source_name` the name `name` in `target`. New bytes are on the disk after [`Placer::finish`]; those
    /// of a hard link were when the cache was filled.
    ///
    /// # Errors
    /// Any I/O failure that no other way gets around.
    pub(super) fn place(
        &self,
        target: &Folder,
        name: &str,
        source: &Folder,
        source_name: &str,
        row: &Row,
    ) -> io::Result<()> {
        if self.may_clone && self.clone_file(target, name, source, source_name, row)? {
            return Ok(());
        }
        let links = matches!(self.mode, LinkMode::Auto | LinkMode::Hardlink)
            && !row.has_special_bits()
            && !self.no_links.load(Ordering::Relaxed);
        if links {
            match target.link(self.disk, name, source, source_name) {
                Ok(()) => {
                    self.used(Way::Linked);
                    return Ok(());
                }
                Err(error) if is_refusal(&error) => {
                    // Too many links is a matter of one file, everything else of the file system.
                    if error.kind() != io::ErrorKind::TooManyLinks {
                        self.no_links.store(true, Ordering::Relaxed);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let mut from = source.read(source_name)?;
        let file = target.create(self.disk, name, row.mode & 0o777)?;
        self.used(Way::Copied);
        if self.disk.is_watched() {
            let mut content = Vec::new();
            from.read_to_end(&mut content)?;
            return self.write_to(file, target, name, &content);
        }
        // The kernel copies by itself where it can.
        io::copy(&mut from, &mut &file)?;
        self.sync_soon(file, target, name)
    }

    /// Writes a file with `content`.
    ///
    /// # Errors
    /// Any I/O failure.
    pub(super) fn write(&self, target: &Folder, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let file = target.create(self.disk, name, mode)?;
        self.write_to(file, target, name, content)
    }

    fn write_to(&self, file: File, target: &Folder, name: &str, content: &[u8]) -> io::Result<()> {
        let mut out = OutFile { file, path: target.path().join(name) };
        self.disk.write_all(&mut out, content)?;
        if self.full {
            self.enqueue(out);
        }
        Ok(())
    }

    /// Has a file synced before [`Placer::finish`] returns.
    fn sync_soon(&self, file: File, target: &Folder, name: &str) -> io::Result<()> {
        if self.full {
            self.enqueue(OutFile { file, path: target.path().join(name) });
        }
        Ok(())
    }

    fn enqueue(&self, out: OutFile) {
        let mut unsynced = guard(&self.unsynced);
        unsynced.push(Target::File(out));
        if unsynced.len() >= UNSYNCED_MAX {
            let batch = std::mem::take(&mut *unsynced);
            drop(unsynced);
            // Many at once share the disk's work. A failure is told at the end: nothing is published before.
            if let Err(error) = sync::barrier(self.disk, batch) {
                guard(&self.failure).get_or_insert(error);
            }
        }
    }

    /// Waits until every file is on the disk whose bytes are new.
    ///
    /// # Errors
    /// The first failed sync.
    pub(super) fn finish(&self) -> Result<()> {
        let batch = std::mem::take(&mut *guard(&self.unsynced));
        sync::barrier(self.disk, batch)?;
        guard(&self.failure).take().map_or(Ok(()), Err)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn clone_file(
        &self,
        target: &Folder,
        name: &str,
        source: &Folder,
        source_name: &str,
        row: &Row,
    ) -> io::Result<bool> {
        let from = source.read(source_name)?;
        let file = target.create(self.disk, name, row.mode & 0o777)?;
        if rustix::fs::ioctl_ficlone(&file, &from).is_err() {
            drop(file);
            self.disk.remove_file(&target.path().join(name))?;
            return Ok(false);
        }
        self.sync_soon(file, target, name)?;
        self.used(Way::Cloned);
        Ok(true)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn clone_file(
        &self,
        target: &Folder,
        name: &str,
        source: &Folder,
        source_name: &str,
        _row: &Row,
    ) -> io::Result<bool> {
        let (from, to) = (source.path().join(source_name), target.path().join(name));
        if reflink_copy::reflink(&from, &to).is_err() {
            // What a failed attempt left must not stand in the way of the next one.
            crate::durable::optional(self.disk.remove_file(&to))?;
            return Ok(false);
        }
        if self.full {
            self.sync_soon(File::options().read(true).write(cfg!(windows)).open(&to)?, target, name)?;
        }
        self.used(Way::Cloned);
        Ok(true)
    }
}

/// Errors that say "not this file" or "not here", rather than "the disk is broken".
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
        // Windows has its own numbers for "too many links" and "not this function".
        || (cfg!(windows) && matches!(error.raw_os_error(), Some(1 | 50 | 1142)))
}

/// Tries to clone a file of a few bytes.
fn can_clone(staging: &Path) -> bool {
    let (from, to) = (staging.join("probe-a"), staging.join("probe-b"));
    let disk = Disk::real();
    let works = disk.create_with(&from, &[7; 4096], None).is_ok() && reflink_copy::reflink(&from, &to).is_ok();
    for path in [from, to] {
        let _ = disk.remove_file(&path);
    }
    works
}

/// What the target of a bin must be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BinContent {
    /// As it is, if its mode allows execution.
    Same,
    /// Rewritten: its first line ended with CRLF, which the kernel takes for part of the interpreter's name.
    Rewritten(Vec<u8>),
}

/// Looks at the first line of a bin's target.
///
/// # Errors
/// Any failure to read.
pub(super) fn bin_content(source: &Folder, name: &str) -> io::Result<BinContent> {
    let mut file = source.read(name)?;
    let mut head = Vec::with_capacity(SHEBANG_BYTES_MAX);
    file.by_ref().take(SHEBANG_BYTES_MAX as u64).read_to_end(&mut head)?;
    let end = head.iter().position(|byte| *byte == b'\n');
    let Some(end) = end.filter(|end| head.starts_with(b"#!") && *end > 0 && head.get(end - 1) == Some(&b'\r')) else {
        return Ok(BinContent::Same);
    };
    head.remove(end - 1);
    file.read_to_end(&mut head)?;
    Ok(BinContent::Rewritten(head))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use std::fs;

    use super::*;
    use crate::packages::store::paths::Paths;

    #[test]
    fn only_a_first_line_with_crlf_is_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        for (text, wanted) in [
            ("#!/usr/bin/env node\r\nx\r\n", Some("#!/usr/bin/env node\nx\r\n")),
            ("#!/usr/bin/env node\nx\r\n", None),
            ("x\r\n#!y\r\n", None),
            ("#!\r", None),
            ("", None),
        ] {
            fs::write(dir.path().join("f"), text).unwrap();
            let wanted = wanted.map_or(BinContent::Same, |text| BinContent::Rewritten(text.into()));
            assert_eq!(bin_content(&folder, "f").unwrap(), wanted, "{text:?}");
        }
    }

    #[test]
    fn every_mode_gives_the_same_bytes_and_only_links_share_them() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, no_clones) = (Disk::real(), AtomicBool::new(false));
        let staging = Staging::create(&disk, &Paths::new(dir.path())).unwrap();
        fs::create_dir_all(dir.path().join("from")).unwrap();
        fs::write(dir.path().join("from/a"), "text").unwrap();
        let source = Folder::open(&dir.path().join("from")).unwrap();
        let row = Row::file("a".into(), b"text", 0o755);
        for (mode, name) in [
            (LinkMode::Auto, "auto"),
            (LinkMode::Reflink, "reflink"),
            (LinkMode::Hardlink, "hard"),
            (LinkMode::Copy, "copy"),
        ] {
            let to = dir.path().join(name);
            fs::create_dir(&to).unwrap();
            let target = Folder::open(&to).unwrap();
            let placer = Placer::new(&disk, mode, true, &staging, &no_clones);
            placer.place(&target, "b", &source, "a", &row).unwrap();
            assert_eq!(fs::read(to.join("b")).unwrap(), b"text");
            let shares = target.status("b").unwrap().id == source.status("a").unwrap().id;
            assert_eq!(shares && cfg!(unix), placer.best() == "hardlink" && cfg!(unix), "{mode:?}");
            if mode == LinkMode::Copy {
                assert_eq!(placer.best(), "copy");
                assert_eq!(target.status("b").unwrap().mode, if cfg!(unix) { 0o755 } else { 0o644 });
            }
        }
        assert!(fs::read_dir(staging.path()).unwrap().next().is_none(), "no probe stays");
    }

    #[cfg(unix)]
    #[test]
    fn refusals_lead_to_a_copy_and_other_errors_do_not() {
        for (errno, refusal) in [(18, true), (31, true), (1, true), (95, true), (28, false), (5, false), (2, false)] {
            assert_eq!(is_refusal(&io::Error::from_raw_os_error(errno)), refusal, "{errno}");
        }
    }
}
