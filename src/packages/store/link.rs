//! The link to the tree in use, and its atomic replacement.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::paths::{CURRENT, Paths, TREES, last_component};
use super::record::{self, RecordState};
use super::retire::{self, Now};
use crate::durable::atomic::folder_of;
use crate::durable::{Disk, IoContext};
use crate::error::{HfError, Result};
use crate::ids;

/// Returns the text of a link; `None` on any failure. On Windows, where a junction's text is absolute, a target inside of the
/// link's own folder is told relative to it, with `/`.
#[must_use]
pub fn read_current_target(link: &Path) -> Option<String> {
    let text = platform::read(link).ok()?;
    Some(if cfg!(windows) { relative_text(folder_of(link), &text) } else { text.to_str()?.to_owned() })
}

/// Returns the text of `target` relative to `folder`, with `/`, or as it is when it is somewhere else.
fn relative_text(folder: &Path, target: &Path) -> String {
    let plain = |path: &Path| path.to_string_lossy().trim_start_matches(r"\\?\").replace('\\', "/");
    let (folder, target) = (plain(folder), plain(target));
    match target.strip_prefix(&folder).and_then(|rest| rest.strip_prefix('/')) {
        Some(rest) if !rest.is_empty() => rest.trim_end_matches('/').to_owned(),
        _ => target,
    }
}

/// Points `link` to `target`, verbatim, in one step: readers see the old link or the new one, never none. The tree of the old
/// target gets its retirement marker before, the new one loses a stale marker. With `full` the link survives a power cut once
/// this returns.
///
/// # Errors
/// Any I/O failure, `EISDIR` if a real folder stands at `link`. Before the rename nothing has changed; a failed sync of the
/// folder (marked as such) comes after it.
pub fn atomic_symlink_swap(disk: &Disk, link: &Path, target: &str, now: Now, full: bool) -> Result<()> {
    let folder = folder_of(link);
    if let Some(old) = read_current_target(link).filter(|old| old != target) {
        retire::mark(disk, &folder.join(old), now);
    }
    retire::unmark(disk, &folder.join(target));
    let temp = folder.join(format!(".current-{}", ids::uuid()));
    platform::create(disk, target, &temp).at("symlink", &temp)?;
    if let Err(error) = platform::replace(disk, &temp, link) {
        let _ = platform::remove(disk, &temp);
        let refused = HfError::io("rename", link, &error);
        let is_folder = fs::symlink_metadata(link).is_ok_and(|found| found.is_dir());
        return Err(if is_folder {
            refused.with_advice("a folder stands where the link must be: move it away")
        } else {
            refused
        });
    }
    if full {
        disk.sync_dir(folder).at("fsync", folder).map_err(HfError::sync_failed)?;
    }
    Ok(())
}

/// Makes the tree `hash` the one in use. The caller holds the root's lock.
pub(super) fn flip(disk: &Disk, paths: &Paths, hash: &str, now: Now, full: bool) -> Result<()> {
    let target = format!("{TREES}/{hash}");
    if cfg!(windows) {
        // A junction holds an absolute path; this is what it is made from again when the root has moved.
        let durability =
            if full { crate::durable::atomic::Durability::Full } else { crate::durable::atomic::Durability::Process };
        crate::durable::atomic::replace(disk, &paths.current_text(), target.as_bytes(), None, durability)?;
    }
    atomic_symlink_swap(disk, &paths.current, &target, now, full)
}

/// Returns the hash of the tree in use; `None` unless that tree exists with its `node_modules` and, if it has a completeness
/// record, a valid one. This is the whole cost of a reconcile that has nothing to do: one link, one folder, one small file.
#[must_use]
pub(super) fn current_hash(paths: &Paths) -> Option<String> {
    let hash = last_component(&target_of(paths)?)?;
    let sound = record::has_modules(&paths.current) && record::read(&paths.current, &hash) != RecordState::Invalid;
    sound.then_some(hash)
}

/// As [`read_current_target`] for a root's link. On Windows a junction that is missing for a moment, while it is replaced, is
/// asked for again, and one that points to where the root once was is made anew.
#[must_use]
pub(super) fn target_of(paths: &Paths) -> Option<String> {
    if !cfg!(windows) {
        return read_current_target(&paths.current);
    }
    for attempt in 0..5 {
        match read_current_target(&paths.current) {
            Some(text) if fs::metadata(&paths.current).is_ok() => return Some(text),
            found => {
                if let Some(text) = mend(paths) {
                    return Some(text);
                }
                if attempt == 4 {
                    return found;
                }
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    None
}

/// Makes a junction that leads nowhere anew from the text beside it, if the tree that it names is here.
fn mend(paths: &Paths) -> Option<String> {
    let text = fs::read_to_string(paths.current_text()).ok()?;
    let hash = text.strip_prefix(TREES)?.strip_prefix('/')?;
    crate::packages::names::check_hash(hash).ok()?;
    let dangling = platform::read(&paths.current).is_ok() && record::has_modules(&paths.tree(hash));
    if !dangling {
        return None;
    }
    let disk = Disk::real();
    let temp = paths.root.join(format!(".{CURRENT}-{}", ids::uuid()));
    platform::create(&disk, &text, &temp).and_then(|()| platform::replace(&disk, &temp, &paths.current)).ok()?;
    Some(text)
}

#[cfg(unix)]
mod platform {
    use super::{Disk, Path, PathBuf, fs, io};
    use crate::durable::Op;

    pub fn read(link: &Path) -> io::Result<PathBuf> {
        fs::read_link(link)
    }

    pub fn create(disk: &Disk, target: &str, link: &Path) -> io::Result<()> {
        disk.run(Op::Create(link), || std::os::unix::fs::symlink(target, link))
    }

    pub fn replace(disk: &Disk, temp: &Path, link: &Path) -> io::Result<()> {
        disk.rename(temp, link)
    }

    pub fn remove(disk: &Disk, link: &Path) -> io::Result<()> {
        disk.remove_file(link)
    }
}

#[cfg(windows)]
mod platform {
    //! Junctions: links to folders that need no privilege. Their targets are absolute.

    use std::time::Duration;

    use super::{Disk, Path, PathBuf, folder_of, fs, ids, io};
    use crate::durable::Op;

    pub fn read(link: &Path) -> io::Result<PathBuf> {
        fs::read_link(link)
    }

    pub fn create(disk: &Disk, target: &str, link: &Path) -> io::Result<()> {
        // Made absolute by text: the target may dangle.
        let target = std::path::absolute(folder_of(link).join(target.replace('/', "\\")))?;
        disk.run(Op::Create(link), || junction(&target, link))
    }

    /// `mklink /J` is the system's own way to make a junction; the call behind it is not in the standard library and would
    /// need `unsafe`.
    fn junction(target: &Path, link: &Path) -> io::Result<()> {
        use std::os::windows::process::CommandExt;
        // Quoted for `cmd`, in which a file name can hold no quote; percent signs are doubled by nothing and so refused.
        let (link, target) = (link.to_string_lossy(), target.to_string_lossy());
        if [&link, &target].iter().any(|path| path.contains(['"', '%'])) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a junction's path may not hold a percent sign"));
        }
        let line = format!("/d /c mklink /J \"{link}\" \"{target}\"");
        const NO_WINDOW: u32 = 0x0800_0000;
        let done = std::process::Command::new("cmd.exe").raw_arg(line).creation_flags(NO_WINDOW).output()?;
        if done.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
    }

    /// The rename of std has POSIX semantics on current Windows 10 and later. Where a junction still cannot be replaced, the
    /// old one steps aside and comes back if the new one cannot take its place.
    pub fn replace(disk: &Disk, temp: &Path, link: &Path) -> io::Result<()> {
        let Err(first) = disk.rename(temp, link) else { return Ok(()) };
        if fs::symlink_metadata(link).is_ok_and(|found| found.is_dir() && !found.file_type().is_symlink()) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let aside = folder_of(link).join(format!(".current-{}", ids::uuid()));
        retrying(|| disk.rename(link, &aside)).map_err(|_| first)?;
        if let Err(error) = retrying(|| disk.rename(temp, link)) {
            retrying(|| disk.rename(&aside, link))?;
            return Err(error);
        }
        let _ = remove(disk, &aside);
        Ok(())
    }

    /// Virus scanners and indexers hold folders for moments.
    fn retrying(rename: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut waited = Duration::ZERO;
        loop {
            match rename() {
                Err(error) if matches!(error.raw_os_error(), Some(5 | 32 | 33)) && waited < Duration::from_secs(2) => {
                    std::thread::sleep(Duration::from_millis(50));
                    waited += Duration::from_millis(50);
                }
                result => return result,
            }
        }
    }

    pub fn remove(disk: &Disk, link: &Path) -> io::Result<()> {
        // Of a junction this removes the junction, not what it leads to.
        disk.remove_dir(link)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn junction_texts_are_told_relative() {
        let folder = Path::new(r"C:\data\root");
        for (target, told) in [
            (r"C:\data\root\trees\h1", "trees/h1"),
            (r"\\?\C:\data\root\trees\h1\", "trees/h1"),
            (r"D:\elsewhere\h1", "D:/elsewhere/h1"),
            (r"C:\data\rooted\h1", "C:/data/rooted/h1"),
        ] {
            assert_eq!(relative_text(folder, Path::new(target)), told);
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_old_tree_is_retired_and_the_new_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let (disk, link) = (Disk::real(), root.path().join("current"));
        for tree in ["trees/a", "trees/b"] {
            fs::create_dir_all(root.path().join(tree)).unwrap();
        }
        let (a, b) = (root.path().join("trees/a"), root.path().join("trees/b"));
        atomic_symlink_swap(&disk, &link, "trees/a", Now::Given(1.0), true).unwrap();
        assert_eq!(read_current_target(&link).as_deref(), Some("trees/a"));
        atomic_symlink_swap(&disk, &link, "trees/b", Now::Given(2.0), true).unwrap();
        assert_eq!(retire::read(&a).unwrap().at_ms, 2.0);
        // Back again: the stale marker must not make it look old when it goes out of use the next time.
        atomic_symlink_swap(&disk, &link, "trees/a", Now::Given(3.0), false).unwrap();
        assert!(!retire::has_marker(&a) && retire::has_marker(&b));
        // The same target again retires nothing; a dangling one is allowed.
        atomic_symlink_swap(&disk, &link, "trees/a", Now::Given(4.0), false).unwrap();
        assert!(!retire::has_marker(&a));
        atomic_symlink_swap(&disk, &link, "trees/none", Now::Given(5.0), false).unwrap();
        assert_eq!(read_current_target(&link).as_deref(), Some("trees/none"));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn a_real_folder_is_never_replaced() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("current");
        fs::create_dir(&link).unwrap();
        let error = atomic_symlink_swap(&Disk::real(), &link, "trees/a", Now::Clock, true).unwrap_err();
        assert_eq!(error.node_code(), Some("EISDIR"));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no temporary link stays");
        assert_eq!(read_current_target(&link), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_current_hash_needs_a_tree() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        assert_eq!(current_hash(&paths), None);
        std::os::unix::fs::symlink("trees/h1", &paths.current).unwrap();
        assert_eq!(current_hash(&paths), None, "dangling");
        fs::create_dir_all(paths.tree("h1")).unwrap();
        assert_eq!(current_hash(&paths), None, "without node_modules");
        fs::create_dir_all(paths.tree("h1").join("node_modules")).unwrap();
        assert_eq!(current_hash(&paths).as_deref(), Some("h1"), "made by the original");
        fs::write(paths.tree("h1").join(".hf-tree.json"), "{}").unwrap();
        assert_eq!(current_hash(&paths), None, "a damaged record");
    }
}
