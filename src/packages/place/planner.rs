//! The planner itself.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::findings::{Finding, FindingKind};
use super::host::Host;
use super::package_json::{Kind, PackageJson};
use super::semver::{Versions, Wish};
use super::version::Version;
use super::{Placed, Placement, Roots};
use crate::error::{Code, HfError, Result};
use crate::packages::lockfile::Entry;
use crate::packages::names::{bad_name, check_name, check_version, is_name};

/// The most copies in one layout. Real ones have a few per entry; packages made for it could ask for an endless number.
pub const PLACED_MAX: usize = 200_000;

/// How often one entry may stand on the way from the root to a package. Once is normal; twice happens where a package is nested in
/// a newer version of itself; more means that the nesting repeats itself.
const REPEATED_MAX: usize = 2;

/// Lays out a manifest.
///
/// `packages` reads the `package.json` of an entry, `None` if it has none; it is asked once per entry that can be used, in the
/// order of the manifest. `roots` picks versions for the root where the manifest has them; otherwise it is the first entry of
/// each name. Of entries with the same name and version the first counts.
///
/// A version that a package sees counts only if nothing in the manifest satisfies better: else the highest one that satisfies is
/// nested. That is what Bun does, which resolves each range by itself before it knows what would be visible.
///
/// # Errors
/// [`Code::PkgDepMissing`] when a required dependency has no entry at all, [`Code::PkgBadName`] for a name or version that cannot
/// be a folder, [`Code::PkgLayout`] beyond [`PLACED_MAX`] copies, and whatever `packages` fails with.
pub fn plan(
    entries: &[Entry],
    packages: &dyn Fn(&Entry) -> Result<Option<PackageJson>>,
    roots: &Roots,
    host: &Host,
) -> Result<Placement> {
    let mut read = Vec::with_capacity(entries.len());
    let mut seen = HashSet::new();
    let mut names: BTreeMap<&str, Candidates> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        check_name(&entry.name)?;
        check_version(&entry.name, &entry.version)?;
        if !seen.insert((&entry.name, &entry.version)) {
            read.push(None);
            continue;
        }
        let package = packages(entry)?;
        let candidates = names.entry(&entry.name).or_default();
        let fits = package.as_ref().is_none_or(|package| host.accepts(package));
        if fits {
            candidates.usable.push(index)
        } else {
            candidates.foreign.push(index)
        }
        read.push(package);
    }
    let versions: Vec<Option<Version>> = entries.iter().map(|entry| Version::parse(&entry.version)).collect();
    for candidates in names.values_mut() {
        // Stable: of equal versions the first entry stays in front.
        candidates.highest_first.clone_from(&candidates.usable);
        candidates.highest_first.sort_by(|&a, &b| versions.get(b).cmp(&versions.get(a)));
    }
    let mut root = BTreeMap::new();
    for (&name, candidates) in &names {
        let pinned = |list: &[usize]| {
            let wanted = roots.get(name)?;
            list.iter().copied().find(|&index| entries.get(index).is_some_and(|entry| entry.version == *wanted))
        };
        let usable = pinned(&candidates.usable).or_else(|| candidates.usable.first().copied());
        let chosen = usable.or_else(|| pinned(&candidates.foreign)).or_else(|| candidates.foreign.first().copied());
        if let Some(index) = chosen {
            root.insert(name.to_owned(), (index, usable.is_some()));
        }
    }
    let wishes: Vec<Vec<Wish>> = read
        .iter()
        .map(|package| {
            let dependencies = package.iter().flat_map(|package| &package.dependencies);
            dependencies.map(|(key, one)| Wish::parse(key, &one.spec)).collect()
        })
        .collect();
    let mut planner = Planner {
        entries,
        versions: &versions,
        names: &names,
        placed: Vec::new(),
        visible: HashMap::new(),
        findings: Vec::new(),
    };
    for (name, &(index, usable)) in &root {
        if usable {
            planner.place(None, name, index)?;
        }
    }
    let mut next = 0;
    while let Some(one) = planner.placed.get(next) {
        if let (Some(Some(package)), Some(wishes)) = (read.get(one.entry), wishes.get(one.entry)) {
            for ((key, dependency), wish) in package.dependencies.iter().zip(wishes) {
                if package.brought.contains(key) {
                    continue;
                }
                planner.resolve(&Edge { from: next, key, spec: &dependency.spec, kind: dependency.kind, wish })?;
            }
        }
        next += 1;
    }
    let Planner { placed, findings, .. } = planner;
    let root = root.into_iter().map(|(name, (index, _))| (name, index)).collect();
    Ok(Placement { placed, findings, root, packages: read })
}

/// The entries of one name.
#[derive(Default)]
struct Candidates {
    /// Those for this host, in the order of the manifest.
    usable: Vec<usize>,
    /// The same, highest version first; what is no semver comes last.
    highest_first: Vec<usize>,
    /// Those for other hosts.
    foreign: Vec<usize>,
}

struct Planner<'a> {
    entries: &'a [Entry],
    versions: &'a [Option<Version>],
    names: &'a BTreeMap<&'a str, Candidates>,
    placed: Vec<Placed>,
    /// Which package stands in whose `node_modules`: first by key, because most keys are at the root only.
    visible: HashMap<String, HashMap<Option<usize>, usize>>,
    findings: Vec<Finding>,
}

impl<'a> Planner<'a> {
    /// Puts an entry into the `node_modules` of `parent`, where the key is free.
    fn place(&mut self, parent: Option<usize>, key: &str, entry: usize) -> Result<()> {
        if self.placed.len() >= PLACED_MAX {
            let message = format!(
                "The manifest cannot be laid out: its packages ask for more than {PLACED_MAX} copies of each other; align the \
                 versions that they need"
            );
            return Err(HfError::new(Code::PkgLayout, message));
        }
        let folder =
            parent.and_then(|parent| self.placed.get(parent)).map_or(String::new(), |one| format!("{}/", one.path));
        self.visible.entry(key.to_owned()).or_default().insert(parent, self.placed.len());
        self.placed.push(Placed { path: format!("{folder}node_modules/{key}"), entry, parent, key: key.to_owned() });
        Ok(())
    }

    /// What `require(key)` finds from the package at `from`, as a position in `placed`.
    fn find(&self, from: usize, key: &str) -> Option<usize> {
        let holders = self.visible.get(key)?;
        let mut at = Some(from);
        loop {
            if let Some(&found) = holders.get(&at) {
                return Some(found);
            }
            at = self.placed.get(at?)?.parent;
        }
    }

    /// Sees to it that a dependency finds what it asks for, as far as the manifest has it.
    fn resolve(&mut self, edge: &Edge) -> Result<()> {
        if !is_name(edge.key) {
            if edge.kind == Kind::Required {
                return Err(self.bad_key(edge));
            }
            self.report(edge, FindingKind::BadKey, "cannot name a folder; skipped");
            return Ok(());
        }
        let found = self.find(edge.from, edge.key);
        let visible = found.and_then(|found| self.placed.get(found)).map(|one| one.entry);
        if let Some(visible) = visible {
            let satisfied = self.satisfies(visible, edge.wish);
            if edge.kind == Kind::Peer && !satisfied {
                self.report(edge, FindingKind::PeerMismatch, &format!("kept {}", self.label(visible)));
            }
            if edge.kind == Kind::Peer || (satisfied && self.is_best(visible, edge)) {
                return Ok(());
            }
        }
        let Some(candidates) = self.names.get(edge.wish.name) else {
            match edge.kind {
                Kind::Required => return Err(self.missing(edge)),
                Kind::Peer => self.report(edge, FindingKind::PeerMissing, "it is not in the manifest"),
                Kind::Optional => {}
            }
            return Ok(());
        };
        let chosen = match self.best(edge) {
            Some(chosen) => chosen,
            // What would satisfy is for other hosts.
            None if candidates.foreign.iter().any(|&index| self.satisfies(index, edge.wish)) => return Ok(()),
            None => {
                let kept = visible.filter(|&visible| self.name(visible) == edge.wish.name);
                let Some(stand_in) = kept.or_else(|| candidates.usable.first().copied()) else { return Ok(()) };
                let done = format!("no version in the manifest satisfies, took {}", self.label(stand_in));
                self.report(edge, FindingKind::Unsatisfied, &done);
                if kept.is_some() {
                    return Ok(());
                }
                stand_in
            }
        };
        let parent = found.map(|_| edge.from);
        if parent.is_some() && self.repeats(edge.from, chosen) {
            let done = format!("nesting {} here would go on for ever, left it out", self.label(chosen));
            self.report(edge, FindingKind::Cycle, &done);
            return Ok(());
        }
        self.place(parent, edge.key, chosen)
    }

    /// The highest version for this host that satisfies.
    fn best(&self, edge: &Edge) -> Option<usize> {
        let candidates = self.names.get(edge.wish.name)?;
        candidates.highest_first.iter().copied().find(|&index| self.satisfies(index, edge.wish))
    }

    /// Whether no version in the manifest would satisfy better than this one. Bun resolved each range by itself, to the highest
    /// version, before it knew what would be visible: a manifest that holds two versions which satisfy holds the higher one
    /// for the package that asked for it.
    fn is_best(&self, entry: usize, edge: &Edge) -> bool {
        edge.wish.versions == Versions::Any
            || self.best(edge).is_none_or(|best| self.versions.get(best) == self.versions.get(entry))
    }

    /// Whether the package at `from` has the entry above it so often that nesting it once more would not be the last time.
    fn repeats(&self, from: usize, entry: usize) -> bool {
        let above = std::iter::successors(self.placed.get(from), |one| self.placed.get(one.parent?));
        above.filter(|one| one.entry == entry).count() >= REPEATED_MAX
    }

    fn satisfies(&self, entry: usize, wish: &Wish) -> bool {
        let version = || self.versions.get(entry).and_then(Option::as_ref);
        self.name(entry) == wish.name && (wish.versions == Versions::Any || wish.versions.contain(version()))
    }

    fn name(&self, entry: usize) -> &'a str {
        self.entries.get(entry).map_or("", |entry| &entry.name)
    }

    fn label(&self, entry: usize) -> String {
        self.entries.get(entry).map_or(String::new(), |entry| format!("{}@{}", entry.name, entry.version))
    }

    fn report(&mut self, edge: &Edge, kind: FindingKind, done: &str) {
        let Some(from) = self.placed.get(edge.from) else { return };
        let (path, dependent) = (from.path.clone(), self.label(from.entry));
        let peer = if edge.kind == Kind::Peer { "peer " } else { "" };
        let message = format!("{dependent} in {path} asks for {peer}{}@{}: {done}", edge.key, edge.spec);
        self.findings.push(Finding { kind, path, key: edge.key.to_owned(), spec: edge.spec.to_owned(), message });
    }

    fn dependent(&self, edge: &Edge) -> String {
        self.placed.get(edge.from).map_or(String::new(), |one| self.label(one.entry))
    }

    fn bad_key(&self, edge: &Edge) -> HfError {
        let dependent = self.dependent(edge);
        let why = format!(
            "the package.json of {dependent} requires it; publish that package anew without it, or take it out of the manifest"
        );
        bad_name(edge.key).with_advice(&why).with_field("dependent", dependent)
    }

    fn missing(&self, edge: &Edge) -> HfError {
        let dependent = self.dependent(edge);
        let range = edge
            .spec
            .trim()
            .strip_prefix("npm:")
            .and_then(|alias| alias.rsplit_once('@'))
            .map_or(edge.spec, |(_, range)| range);
        let message = format!("{dependent} requires {}@{range}, which is not in the manifest", edge.wish.name);
        HfError::new(Code::PkgDepMissing, message)
            .with_field("dependent", dependent)
            .with_field("name", edge.wish.name)
            .with_field("range", range)
    }
}

/// One dependency of one placed package.
struct Edge<'e> {
    from: usize,
    key: &'e str,
    spec: &'e str,
    kind: Kind,
    wish: &'e Wish<'e>,
}
