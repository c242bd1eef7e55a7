//! Keeps paths that come from data inside the runtime directory.

use std::path::{Component, Path, PathBuf};

use super::error::path_escapes;
use super::format::SIDECAR;
use crate::durable::atomic::folder_of;
use crate::error::Result;

/// The border of a runtime directory.
#[derive(Debug)]
pub struct Fence {
    dir: PathBuf,
    /// The directory without symlinks; `None` while it does not exist.
    root: Option<PathBuf>,
    /// The control files, as named and without symlinks.
    control: Vec<PathBuf>,
}

impl Fence {
    /// Looks at the directory and its control files once.
    #[must_use]
    pub fn around(dir: &Path, control_files: &[&Path]) -> Self {
        let root = std::fs::canonicalize(dir).ok();
        let control = control_files.iter().flat_map(|path| {
            let real = std::fs::canonicalize(path).or_else(|_| {
                std::fs::canonicalize(folder_of(path)).map(|folder| folder.join(path.file_name().unwrap_or_default()))
            });
            [Some(path.to_path_buf()), real.ok()]
        });
        Self { dir: dir.to_owned(), root, control: control.flatten().collect() }
    }

    /// Joins `relative` to the directory and refuses whatever would leave it or name a file that is not a store: control
    /// files, locks, temporary and quarantine files, the sidecar. A leading slash still means "inside".
    ///
    /// # Errors
    /// `RuntimeStorePathError`.
    pub fn confine(&self, relative: &str) -> Result<PathBuf> {
        let refused = || path_escapes(relative);
        let parts = normal_parts(relative).ok_or_else(refused)?;
        let name = parts.last().ok_or_else(refused)?.to_ascii_lowercase();
        let temporary = name.starts_with(".tmp.") || name.starts_with(".review-create.");
        let reserved = temporary || name.ends_with(".lock") || name.ends_with(".quarantine");
        if reserved || parts.iter().any(|part| part.eq_ignore_ascii_case(SIDECAR)) {
            return Err(refused());
        }
        let path = self.dir.join(parts.iter().collect::<PathBuf>());
        if self.is_control(&path) {
            return Err(refused());
        }
        let Some(root) = &self.root else { return Ok(path) };
        match real_path(root, &self.dir, &path) {
            Some(real) if real != *root && real.starts_with(root) && !self.is_control(&real) => Ok(path),
            _ => Err(refused()),
        }
    }

    /// Tells whether `path` is a control file, or differs from one only in case: on some file systems that is the same.
    fn is_control(&self, path: &Path) -> bool {
        let lower = |path: &Path| path.file_name().map(|name| name.to_ascii_lowercase());
        self.control.iter().any(|control| folder_of(control) == folder_of(path) && lower(control) == lower(path))
    }
}

/// Splits a relative path into plain names; `None` if it climbs out or is no path at all.
fn normal_parts(relative: &str) -> Option<Vec<&str>> {
    if relative.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(relative).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir | Component::RootDir => {}
            Component::Prefix(_) => return None,
        }
    }
    Some(parts)
}

/// Returns `path` (inside of `dir`, whose real path is `root`) without symlinks, as far as it exists. `None` for a symlink
/// that leads nowhere: tomorrow it may lead anywhere.
fn real_path(root: &Path, dir: &Path, path: &Path) -> Option<PathBuf> {
    let mut missing = Vec::new();
    let mut current = path;
    while current != dir {
        match std::fs::symlink_metadata(current) {
            // The usual case: a plain file right in the directory.
            Ok(metadata) if !metadata.is_symlink() && current.parent() == Some(dir) => {
                missing.push(current.file_name()?);
                break;
            }
            Ok(_) => {
                let real = std::fs::canonicalize(current).ok()?;
                return Some(missing.iter().rev().fold(real, |real, name| real.join(name)));
            }
            Err(_) => {
                missing.push(current.file_name()?);
                current = current.parent()?;
            }
        }
    }
    Some(missing.iter().rev().fold(root.to_owned(), |real, name| real.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("manifest.json");
        let check = |relative: &str| Fence::around(dir.path(), &[&manifest]).confine(relative);
        for bad in [
            "",
            ".",
            "/",
            "../x.json",
            "a/../../x.json",
            "manifest.json",
            "MANIFEST.json",
            "a/../manifest.json",
            "x.json.lock",
            ".tmp.1",
            ".review-create.1.tmp",
            ".holdfast/x.json",
            "a/.Holdfast/x",
            "x.quarantine",
            "a\0b",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check("a.json").unwrap(), dir.path().join("a.json"));
        assert_eq!(check("/sub//./b.json").unwrap(), dir.path().join("sub/b.json"));
        assert_eq!(check("sub/../b.json").unwrap(), dir.path().join("b.json"));
    }

    #[cfg(unix)]
    #[test]
    fn refuses_symlinks_that_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("/nowhere/yet", dir.path().join("dangling.json")).unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("in")).unwrap();
        let fence = Fence::around(dir.path(), &[]);
        assert!(fence.confine("out/x.json").is_err());
        assert!(fence.confine("dangling.json").is_err());
        assert!(fence.confine("in/x.json").is_ok());
    }
}
