//! What stands in the place of a folder, or of a file, of the store.

use std::fs;
use std::path::Path;

use super::Store;
use super::paths::Paths;
use crate::error::HfError;

impl Store {
    /// Adds to an error what stands in the way, if that is why the system refused: a file where the root or one of its folders
    /// must be, a link to nowhere, a folder where the lock must be. Others pass unchanged.
    #[must_use]
    pub fn explain(&self, error: HfError) -> HfError {
        explain(self.paths(), error)
    }
}

pub(super) fn explain(paths: &Paths, error: HfError) -> HfError {
    // What systems answer to somebody who takes one kind for another.
    if !matches!(error.node_code(), Some("ENOTDIR" | "EEXIST" | "EISDIR" | "ENOENT" | "ELOOP")) {
        return error;
    }
    match obstacle(paths) {
        Some(advice) => error.with_advice(&advice),
        None => error,
    }
}

/// Finds the first thing of the store that is of the wrong kind, and says what to do about it.
fn obstacle(paths: &Paths) -> Option<String> {
    let mut above: Vec<&Path> = paths.root.ancestors().collect();
    above.reverse();
    let around = above.into_iter().find_map(|path| no_folder(path).map(|kind| (path.display().to_string(), kind)));
    if let Some((path, kind)) = around {
        let root = paths.root.display();
        return Some(format!(
            "{path} is {kind}, but the store root {root} needs a folder there: move it away, or name another root"
        ));
    }
    let folders = [
        paths.private(),
        paths.index(),
        paths.staging(),
        paths.trash(),
        paths.pins(),
        paths.cache.clone(),
        paths.markers(),
        paths.trees.clone(),
    ];
    for path in &folders {
        if let Some(kind) = no_folder(path) {
            let path = path.display();
            return Some(format!(
                "{path} is {kind}, but must be a folder of the store: move it away, the folder is made anew"
            ));
        }
    }
    let lock = paths.lock();
    let is_folder = fs::metadata(&lock).is_ok_and(|found| found.is_dir());
    is_folder.then(|| format!("{} is a folder, but must be a file: remove it, the file is made anew", lock.display()))
}

/// Says what is at `path`, if it is neither a folder, nor a link to one, nor nothing.
fn no_folder(path: &Path) -> Option<&'static str> {
    let found = fs::symlink_metadata(path).ok()?;
    match fs::metadata(path) {
        Ok(target) if target.is_dir() => None,
        Ok(_) if found.is_symlink() => Some("a link to a file"),
        Ok(_) => Some("a file"),
        Err(_) if found.is_symlink() => Some("a link that leads nowhere"),
        Err(_) => None,
    }
}

#[cfg(test)]
#[cfg(unix)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use std::io;

    use super::*;

    fn explained(paths: &Paths, errno: i32) -> String {
        explain(paths, HfError::io("mkdir", &paths.cache, &io::Error::from_raw_os_error(errno))).message().to_owned()
    }

    #[test]
    fn the_first_thing_of_a_wrong_kind_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(&dir.path().join("root"));
        let ends_with = |errno: i32, end: &str| {
            let text = explained(&paths, errno);
            assert!(text.ends_with(end), "{text}");
        };
        let as_it_was = explained(&paths, 20);
        assert!(as_it_was.ends_with("root/cache"), "nothing is there yet: {as_it_was}");
        fs::create_dir_all(&paths.root).unwrap();
        fs::create_dir_all(paths.lock()).unwrap();
        ends_with(21, "/root/.hf/lock is a folder, but must be a file: remove it, the file is made anew");
        std::os::unix::fs::symlink("nowhere", &paths.cache).unwrap();
        ends_with(
            20,
            "/cache is a link that leads nowhere, but must be a folder of the store: move it away, the folder is made anew",
        );
        fs::remove_file(&paths.cache).unwrap();
        fs::write(&paths.cache, "").unwrap();
        ends_with(17, "/cache is a file, but must be a folder of the store: move it away, the folder is made anew");
        assert_eq!(explained(&paths, 28).matches("/cache").count(), 1, "a full disk has another reason");
        fs::remove_dir_all(&paths.root).unwrap();
        fs::write(&paths.root, "").unwrap();
        let root = paths.root.display();
        ends_with(
            20,
            &format!(
                "{root} is a file, but the store root {root} needs a folder there: move it away, or name another root"
            ),
        );
    }
}
