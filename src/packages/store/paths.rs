//! Where everything stands below a store root.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Name of the link to the tree in use.
pub const CURRENT: &str = "current";
/// Name of the folder of trees, also the first part of the link's text.
pub const TREES: &str = "trees";
/// Name of a tree's completeness record.
pub const RECORD: &str = ".hf-tree.json";
/// Name of the list of a tree's files.
pub const RECORD_FILES: &str = ".hf-tree.files";
/// Name of the manifest that a tree was built from, a JSON array. Sweeps of the cache and repairs need it.
pub const MANIFEST: &str = ".hf-tree.manifest";
/// Name of the folder that makes a tree a tree.
pub const NODE_MODULES: &str = "node_modules";
/// Longest hex name of a marker; longer integrities are named by their hash.
const MARKER_HEX_MAX: usize = 240;

/// The paths of one store root. Nothing here touches the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The root itself.
    pub root: PathBuf,
    /// Unpacked packages, `cache/`.
    pub cache: PathBuf,
    /// Trees by lockfile hash, `trees/`.
    pub trees: PathBuf,
    /// The link to the tree in use, `current`.
    pub current: PathBuf,
    /// Scratch space of callers, `.runs/`. holdfast never looks into it.
    pub runs: PathBuf,
}

impl Paths {
    /// Returns the paths below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            cache: root.join("cache"),
            trees: root.join(TREES),
            current: root.join(CURRENT),
            runs: root.join(".runs"),
        }
    }

    /// Returns the folder of one tree.
    #[must_use]
    pub fn tree(&self, hash: &str) -> PathBuf {
        self.trees.join(hash)
    }

    /// Returns holdfast's private folder, on the same file system as everything else so that renames work.
    #[must_use]
    pub fn private(&self) -> PathBuf {
        self.root.join(".hf")
    }

    /// Returns the file whose kernel lock makes its holder the only writer.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.private().join("lock")
    }

    /// Returns the folder of index records.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.private().join("index")
    }

    /// Returns the index record of an integrity.
    #[must_use]
    pub fn index_record(&self, integrity: &str) -> PathBuf {
        self.index().join(format!("{}.json", blake3::hash(integrity.as_bytes()).to_hex()))
    }

    /// Returns the folder of half-made things.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.private().join("staging")
    }

    /// Returns the folder of what is on its way out.
    #[must_use]
    pub fn trash(&self) -> PathBuf {
        self.private().join("trash")
    }

    /// Returns the folder of pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.private().join("pins")
    }

    /// Returns the file that repeats the link's text, from which a junction is made anew after the root has moved (Windows).
    #[must_use]
    pub fn current_text(&self) -> PathBuf {
        self.private().join("current.txt")
    }

    /// Returns the folder of markers, one for each integrity that is in the cache.
    #[must_use]
    pub fn markers(&self) -> PathBuf {
        self.cache.join(".cs-integrity")
    }

    /// Returns the marker of an integrity.
    #[must_use]
    pub fn marker(&self, integrity: &str) -> PathBuf {
        self.markers().join(marker_name(integrity))
    }
}

/// Returns the name of an integrity's marker: the hex of its bytes, or `b3-` and a hash where that would be too long for a
/// file name.
#[must_use]
pub fn marker_name(integrity: &str) -> String {
    let hex = to_hex(integrity.as_bytes());
    if hex.len() > MARKER_HEX_MAX { format!("b3-{}", blake3::hash(integrity.as_bytes()).to_hex()) } else { hex }
}

/// Returns `bytes` in lower-case hex.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns the data folder of an environment: `HOLDFAST_DATA_DIR`, else `CHECKSTACK_DATA_DIR`, made absolute against
/// `working_dir`; blank values count as absent. Default: `<working_dir>/.data`.
#[must_use]
pub fn resolve_data_dir(env: &dyn Fn(&str) -> Option<String>, working_dir: &Path) -> PathBuf {
    let named = ["HOLDFAST_DATA_DIR", "CHECKSTACK_DATA_DIR"]
        .iter()
        .find_map(|name| env(name).filter(|value| !value.trim().is_empty()))
        .unwrap_or_else(|| ".data".to_owned());
    normalized(&working_dir.join(named))
}

/// Takes `.` and `..` out of an absolute path by text alone, as Node's `path.resolve` does.
fn normalized(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// Returns the last component of a link's text, which is the hash of the tree.
#[must_use]
pub fn last_component(target: &str) -> Option<String> {
    Path::new(target).file_name().and_then(OsStr::to_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_integrities_get_short_names() {
        assert_eq!(marker_name("sha-a"), "7368612d61");
        assert_eq!(marker_name(&"x".repeat(120)).len(), 240);
        let long = marker_name(&"x".repeat(121));
        assert!(long.starts_with("b3-") && long.len() == 67, "{long}");
    }

    #[test]
    fn the_data_dir_follows_the_environment() {
        let cwd = Path::new("/work");
        let with = |own: Option<&'static str>, other: Option<&'static str>| {
            move |name: &str| if name.starts_with("HOLDFAST") { own } else { other }.map(str::to_owned)
        };
        assert_eq!(resolve_data_dir(&with(None, None), cwd), Path::new("/work/.data"));
        assert_eq!(resolve_data_dir(&with(Some("  "), None), cwd), Path::new("/work/.data"));
        assert_eq!(resolve_data_dir(&with(Some("/a"), Some("/b")), cwd), Path::new("/a"));
        assert_eq!(resolve_data_dir(&with(None, Some("./x/../b")), cwd), Path::new("/work/b"));
    }

    #[test]
    fn the_hash_is_the_last_part_of_the_link() {
        assert_eq!(last_component("trees/h1").as_deref(), Some("h1"));
        assert_eq!(last_component("/abs/trees/h1").as_deref(), Some("h1"));
        assert_eq!(last_component("..").as_deref(), None);
    }
}
