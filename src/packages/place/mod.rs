//! Where in `node_modules` each package of a manifest goes: a hoisted layout, the one that Bun makes.
//!
//! [`plan`] is pure: from entries and their `package.json` to a [`Placement`]. One name goes to the root in the version of its
//! first entry, everything else is nested into the package that needs it. The order of the entries decides, nothing else.

mod bins;
mod findings;
mod host;
mod package_json;
mod planner;
mod range;
mod semver;
mod version;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tables;

use std::collections::BTreeMap;

pub use bins::{Bin, Files};
pub use findings::{Finding, FindingKind};
pub use host::Host;
pub use package_json::{Commands, Dependency, Kind, PackageJson};
pub use planner::{PLACED_MAX, plan};
pub use semver::{Versions, Wish};
pub use version::Version;

/// Names of packages and the versions to put at the root.
pub type Roots = BTreeMap<String, String>;

/// A layout of `node_modules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Every copy of every package. A package comes before those nested in it.
    pub placed: Vec<Placed>,
    /// What a person may want to know about the layout, in the order in which it was found.
    pub findings: Vec<Finding>,
    /// The entry that stands for each distinct name, by name: what the root's `package.json` pins. An entry that is not for this
    /// host is here too, and not in `placed`.
    pub root: BTreeMap<String, usize>,
    /// What was read of each entry, by its position; `None` where it has no `package.json`.
    pub packages: Vec<Option<PackageJson>>,
}

/// One copy of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// `node_modules/a` or `node_modules/a/node_modules/@b/c`: with `/`, relative to the tree.
    pub path: String,
    /// Position of its entry in the manifest.
    pub entry: usize,
    /// Position in `placed` of the package that it is nested in; `None` at the root.
    pub parent: Option<usize>,
    /// The last name in `path`: the package's own, unless it is there under an alias.
    pub key: String,
}
