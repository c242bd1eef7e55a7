//! Bringing a blob into the cache: verify, unpack, publish.

use std::collections::HashMap;
use std::path::Path;

use super::index::IndexRecord;
use super::leftovers::Staging;
use super::publish::{self, Prepared};
use super::rows::Row;
use super::{Context, Store};
use crate::durable::sync::{self, Target};
use crate::durable::{Disk, IoContext, OutFile};
use crate::error::{Code, HfError, Result};
use crate::hash::sha256_hex;
use crate::packages::archive::{self, Extracted, Kind, Plan, UnpackOptions};
use crate::packages::lockfile::Entry;
use crate::packages::names::{self, CacheName, Match};

/// What seeding an entry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeded {
    /// The entry was unpacked and published.
    Unpacked,
    /// It was there already, undamaged and of the same files.
    Present,
}

impl Store {
    /// Verifies a blob, unpacks it and publishes it in the cache: the entry's folder, its index record, then its marker. Once
    /// this returns the entry survives a power cut (with [`super::Options::durability_full`]); when it fails the cache is as
    /// before. `force` replaces an entry even if it looks sound.
    ///
    /// `bytes` must not change meanwhile: what is hashed is what is unpacked.
    ///
    /// # Errors
    /// [`Code::PkgIntegrity`], [`Code::PkgArchive`], [`Code::PkgUnsafeEntry`], [`Code::PkgLayout`], [`Code::PkgBadName`], the
    /// caller's abort, [`Code::PkgLockTimeout`], any I/O failure.
    pub fn seed(&self, entry: &Entry, bytes: &[u8], force: bool, context: &Context<'_>) -> Result<Seeded> {
        names::check_name(&entry.name)?;
        names::check_version(&entry.name, &entry.version)?;
        let blob_sha256 = self.verify(entry, bytes)?;
        (context.cancel)()?;
        let shared = self.shared()?;
        let folds_case = match shared.folds_case.get() {
            Some(known) => *known,
            None => *shared.folds_case.get_or_init(|| archive::folds_case(&self.paths().private()).unwrap_or(false)),
        };
        let plan = archive::check(bytes, &self.options().limits, folds_case)?;
        let place = Place::of(entry, &plan)?;
        if !force && self.has(entry, &plan, &place) {
            return Ok(Seeded::Present);
        }
        let staging = Staging::create(self.disk(), self.paths()).at("mkdir", &self.paths().staging())?;
        let options = UnpackOptions {
            durability_full: self.options().durability_full,
            hash: true,
            cancel: context.cancel,
            progress: &|_| {},
        };
        let extracted = archive::unpack(bytes, &plan, staging.path(), &options)?;
        drop(plan);
        let folder = staging.path().join(&place.root);
        if place.unsure && !names::has_version(&folder, &entry.version) {
            let what = format!("its package.json is not of version {}", entry.version);
            return Err(layout(entry, &what));
        }
        let files = rows(extracted, &place.root);
        let record = IndexRecord {
            v: 1,
            integrity: entry.integrity.clone(),
            name: entry.name.clone(),
            version: entry.version.clone(),
            dir: place.dir.clone(),
            blob_sha256,
            files,
        };
        let prepared = self.prepare(staging, &folder, record, force)?;
        publish::publish(self, prepared, context)?;
        Ok(Seeded::Unpacked)
    }

    /// Returns the blob's SHA-256.
    fn verify(&self, entry: &Entry, bytes: &[u8]) -> Result<String> {
        let actual = sha256_hex(bytes);
        let expected = match &entry.blob_sha256 {
            Some(expected) if expected.eq_ignore_ascii_case(&actual) => return Ok(actual),
            Some(expected) => expected.as_str(),
            None if self.options().require_blob_sha256 => "(none in the manifest, but requireBlobSha256 is set)",
            None => return Ok(actual),
        };
        let Entry { name, version, integrity, .. } = entry;
        let message = format!(
            "Blob integrity check failed for {name}@{version} ({integrity}): expected sha256 {expected}, got {actual}. Refusing to seed."
        );
        Err(HfError::new(Code::PkgIntegrity, message)
            .with_field("integrity", integrity.as_str())
            .with_field("expected", expected)
            .with_field("actual", actual))
    }

    /// Tells whether the cache has the entry already, with the archive's files.
    fn has(&self, entry: &Entry, plan: &Plan, place: &Place) -> bool {
        let Ok(super::index::Found::Record(dated)) = super::index::read(self.disk(), self.paths(), &entry.integrity)
        else {
            return false;
        };
        let known: HashMap<&str, (u64, u32)> =
            dated.record.files.iter().map(|row| (row.path.as_str(), (row.size, row.mode))).collect();
        let prefix = format!("{}/", place.root);
        let mut files = plan.entries().iter().filter(|found| found.kind == Kind::File);
        let same = files.clone().count() == known.len()
            && files.all(|file| {
                let mode = if file.exec { 0o755 } else { 0o644 };
                file.path.strip_prefix(&prefix).and_then(|path| known.get(path)) == Some(&(file.size, mode))
            });
        same && publish::is_present(self, &entry.integrity, &place.dir, &dated.record.files)
            && dated.record.name == entry.name
            && dated.record.version == entry.version
    }

    /// Writes the index record and the marker beside the entry, both synced.
    fn prepare(&self, staging: Staging, folder: &Path, record: IndexRecord, force: bool) -> Result<Prepared> {
        let (index_record, marker) = (staging.path().join("index.json"), staging.path().join("marker"));
        // An entry of that name would stand in the way; an entry's own folder always holds an `@`.
        let text = serde_json::to_vec(&record)
            .map_err(|error| HfError::new(Code::Panic, format!("an index record is no JSON: {error}")))?;
        let write = |path: &Path, bytes: &[u8]| -> Result<OutFile> {
            self.disk().create_with(path, bytes, Some(0o644)).at("write", path)
        };
        let files = vec![write(&index_record, &text)?, write(&marker, record.integrity.as_bytes())?];
        if self.options().durability_full {
            sync::barrier(self.disk(), files.into_iter().map(Target::File).collect())?;
        }
        Ok(Prepared {
            folder: folder.to_owned(),
            dir: record.dir,
            integrity: record.integrity,
            files: record.files,
            staging,
            index_record,
            marker,
            force,
        })
    }
}

/// Where an archive's folder goes.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// The folder in the archive, with the scope's if it has one.
    root: String,
    /// The folder in the cache.
    dir: String,
    /// The name holds a hash instead of the version: `package.json` must confirm it.
    unsure: bool,
}

impl Place {
    fn of(entry: &Entry, plan: &Plan) -> Result<Self> {
        let root = plan.single_root().map_err(|error| layout(entry, error.message()))?;
        Self::new(entry, root)
    }

    fn new(entry: &Entry, root: &str) -> Result<Self> {
        let scope = names::scope(&entry.name);
        let (folder, archive_scope) = match root.split_once('/') {
            Some((scope, folder)) => (folder, Some(scope)),
            None => (root, None),
        };
        if archive_scope.is_some() && archive_scope != scope {
            return Err(layout(entry, &format!("its folder is \"{root}\"")));
        }
        let matched = CacheName::parse(folder).map_or(Match::No, |parsed| parsed.matches(&entry.name, &entry.version));
        if matched == Match::No {
            return Err(layout(entry, &format!("its folder is \"{root}\"")));
        }
        // The original packed scoped packages without their scope.
        let dir = scope.map_or_else(|| folder.to_owned(), |scope| format!("{scope}/{folder}"));
        Ok(Self { root: root.to_owned(), dir, unsure: matched == Match::IfVersion })
    }
}

fn layout(entry: &Entry, what: &str) -> HfError {
    let Entry { name, version, integrity, .. } = entry;
    HfError::new(Code::PkgLayout, format!("Blob for {name}@{version} has an unexpected layout: {what}"))
        .with_field("integrity", integrity.as_str())
}

/// Makes the rows of an entry, relative to its folder, sorted.
fn rows(extracted: Vec<Extracted>, root: &str) -> Vec<Row> {
    let prefix = format!("{root}/");
    let mut rows: Vec<Row> = extracted
        .into_iter()
        .filter_map(|file| {
            let path = file.path.strip_prefix(&prefix)?.to_owned();
            Some(Row { path, size: file.size, mode: file.mode, hash: blake3::Hash::from_bytes(file.blake3?) })
        })
        .collect();
    rows.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    rows
}

/// Reads a whole file of the cache, for those that need its text.
pub(super) fn read_small(disk: &Disk, path: &Path) -> Result<Option<Vec<u8>>> {
    crate::durable::optional(disk.read(path)).at("read", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, version: &str) -> Entry {
        Entry { name: name.into(), version: version.into(), integrity: "sha-x".into(), blob_sha256: None }
    }

    #[test]
    fn an_archive_may_only_be_its_own_package() {
        for (name, version, root, dir) in [
            ("a", "1.0.0", "a@1.0.0", "a@1.0.0"),
            ("a", "1.0.0", "a@1.0.0@@@1", "a@1.0.0@@@1"),
            ("@s/a", "1.0.0", "@s/a@1.0.0@@@1", "@s/a@1.0.0@@@1"),
            ("@s/a", "1.0.0", "a@1.0.0@@@1", "@s/a@1.0.0@@@1"),
        ] {
            let place = Place::new(&entry(name, version), root).unwrap();
            assert_eq!((place.dir.as_str(), place.unsure), (dir, false), "{root}");
        }
        assert!(Place::new(&entry("ms", "3.0.0-canary.1"), "ms@3.0.0-684001923c4f8651@@@1").unwrap().unsure);
        for (name, root) in [
            ("a", "lodash@4.17.21@@@1"),
            ("a", ".cs-integrity"),
            ("a", "a@2.0.0"),
            ("a", "@s/a@1.0.0"),
            ("@s/a", "@t/a@1.0.0"),
            ("a", "a"),
        ] {
            let error = Place::new(&entry(name, "1.0.0"), root).unwrap_err();
            assert_eq!(error.code(), Code::PkgLayout);
            assert!(
                error.message().starts_with(&format!("Blob for {name}@1.0.0 has an unexpected layout: ")),
                "{error}"
            );
        }
    }
}
