//! Keeps paths that come from data inside the runtime directory.

use std::path::{Component, Path, PathBuf};

use super::error::path_escapes;
use super::format::SIDECAR;
use crate::durable::atomic::folder_of;
use crate::error::Result;

/// Joins `relative` to `dir` and refuses whatever would leave it or name a file that is not a store: control files, locks,
/// temporary and quarantine files, the sidecar. A leading slash still means "inside".
///
/// # Errors
/// `RuntimeStorePathError`.
pub fn confine(dir: &Path, relative: &str, control_files: &[&Path]) -> Result<PathBuf> {
    let refused = || path_escapes(relative);
    if relative.contains('\0') {
        return Err(refused());
    }
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(relative).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(refused)?),
            Component::ParentDir => {
                parts.pop().ok_or_else(refused)?;
            }
            Component::CurDir | Component::RootDir => {}
            Component::Prefix(_) => return Err(refused()),
        }
    }
    let name = parts.last().ok_or_else(refused)?.to_ascii_lowercase();
    let reserved = name.ends_with(".lock") || name.ends_with(".quarantine") || name.starts_with(".tmp.") || name.starts_with(".review-create.");
    if reserved || parts.iter().any(|part| part.eq_ignore_ascii_case(SIDECAR)) {
        return Err(refused());
    }
    let path = dir.join(parts.iter().collect::<PathBuf>());
    if control_files.iter().any(|control| same_file(control, &path)) || leads_out(dir, &path) {
        return Err(refused());
    }
    Ok(path)
}

/// Tells whether two names mean the same file now, or differ only in case (on some file systems the same).
fn same_file(a: &Path, b: &Path) -> bool {
    if a == b || (folder_of(a) == folder_of(b) && a.file_name().map(|n| n.to_ascii_lowercase()) == b.file_name().map(|n| n.to_ascii_lowercase())) {
        return true;
    }
    let resolved = |path: &Path| {
        std::fs::canonicalize(path).or_else(|_| std::fs::canonicalize(folder_of(path)).map(|folder| folder.join(path.file_name().unwrap_or_default())))
    };
    matches!((resolved(a), resolved(b)), (Ok(a), Ok(b)) if a == b)
}

/// Tells whether a symlink on the way takes `path` out of `dir`.
fn leads_out(dir: &Path, path: &Path) -> bool {
    let Ok(root) = std::fs::canonicalize(dir) else { return false };
    let mut current = path;
    loop {
        match std::fs::canonicalize(current) {
            Ok(real) => return !real.starts_with(&root) || (current == path && real == root),
            // A symlink that leads nowhere yet may lead anywhere tomorrow.
            Err(_) if std::fs::symlink_metadata(current).is_ok_and(|metadata| metadata.file_type().is_symlink()) => return true,
            Err(_) => match current.parent() {
                Some(parent) if current != dir => current = parent,
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("manifest.json");
        let check = |relative: &str| confine(dir.path(), relative, &[&manifest]);
        for bad in [
            "", ".", "/", "../x.json", "a/../../x.json", "manifest.json", "MANIFEST.json", "a/../manifest.json", "x.json.lock", ".tmp.1", ".review-create.1.tmp",
            ".holdfast/x.json", "a/.Holdfast/x", "x.quarantine", "a\0b",
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
        assert!(confine(dir.path(), "out/x.json", &[]).is_err());
        assert!(confine(dir.path(), "dangling.json", &[]).is_err());
        assert!(confine(dir.path(), "in/x.json", &[]).is_ok());
    }
}
