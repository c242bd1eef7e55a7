//! Taking cache entries away that no tree and no manifest needs.

use std::collections::{HashMap, HashSet};

use super::index::{self, Found};
use super::materialize::tree_hashes;
use super::retire::Now;
use super::{Context, Level, Store, markers};
use crate::clock;
use crate::durable::{IoContext, optional};
use crate::error::{HfError, Result};
use crate::ids;
use crate::packages::lockfile::Entry;
use crate::packages::names::find_cache_entry;

/// What a sweep of the cache did. Integrities are in byte order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheGcResult {
    /// False if nothing could be decided, see `reason`.
    pub ran: bool,
    /// Why it did not run.
    pub reason: Option<String>,
    /// Integrities taken away.
    pub deleted: Vec<String>,
    /// Integrities that nobody needs, seeded less than the grace ago.
    pub kept_within_grace: Vec<String>,
    /// Bytes of the entries taken away. Files that trees share with the cache stay on the disk for as long as those trees.
    pub bytes_reclaimed: u64,
}

/// Default grace: a day. What was seeded for a manifest that is not built yet must stay.
pub const DEFAULT_CACHE_GC_GRACE_MS: f64 = 86_400_000.0;

impl Store {
    /// Takes away cache entries that are in none of `keep` and in no tree's manifest, and were seeded longer than `grace_ms` ago.
    /// An entry without index record (the original's) is never touched.
    ///
    /// # Errors
    /// The root's lock was not obtained, the caller's abort, or an I/O failure on the markers. Failures of single entries are
    /// logged.
    pub fn sweep_cache_gc(
        &self,
        keep: &[Vec<Entry>],
        grace_ms: f64,
        now: Now,
        context: &Context<'_>,
    ) -> Result<CacheGcResult> {
        if !self.paths().markers().is_dir() {
            return Ok(CacheGcResult { ran: true, ..CacheGcResult::default() });
        }
        let mut lock = self.lock(context)?;
        let mut needed: HashMap<String, Entry> =
            keep.iter().flatten().map(|entry| (entry.integrity.clone(), entry.clone())).collect();
        for hash in tree_hashes(self.paths()) {
            match self.manifest_of(&hash)? {
                Some(manifest) => needed.extend(manifest.into_iter().map(|entry| (entry.integrity.clone(), entry))),
                None => {
                    let reason = format!("The tree {hash} keeps no manifest, so what it needs is not known.");
                    return Ok(CacheGcResult { reason: Some(reason), ..CacheGcResult::default() });
                }
            }
        }
        let mut result = CacheGcResult { ran: true, ..CacheGcResult::default() };
        // Two integrities of one package in one version have one folder: it goes with the last of them.
        let (mut old, mut used) = (Vec::new(), HashSet::new());
        for integrity in markers::local_integrities(self.disk(), self.paths())? {
            (context.cancel)()?;
            let needed = needed.get(&integrity);
            match self.judge_entry(&integrity, grace_ms, now) {
                Ok(Age::Old(_)) if needed.is_none() => old.push(integrity),
                Ok(Age::Old(dir)) => drop(used.insert(dir)),
                Ok(Age::Young(dir)) => {
                    used.insert(dir);
                    if needed.is_none() {
                        result.kept_within_grace.push(integrity);
                    }
                }
                Ok(Age::Unknown) => used.extend(needed.and_then(|entry| {
                    let (_, dir) = find_cache_entry(&self.paths().cache, &entry.name, &entry.version)?;
                    Some(dir)
                })),
                // What uses which folder must be known before one goes.
                Err(error) if needed.is_some() => return Err(error),
                Err(error) => told(context, &integrity, &error),
            }
        }
        for integrity in old {
            (context.cancel)()?;
            match self.drop_entry(&integrity, &used, &mut lock) {
                Ok(bytes) => {
                    result.bytes_reclaimed += bytes;
                    result.deleted.push(integrity);
                }
                Err(error) => told(context, &integrity, &error),
            }
        }
        Ok(result)
    }

    fn judge_entry(&self, integrity: &str, grace_ms: f64, now: Now) -> Result<Age> {
        let (disk, paths) = (self.disk(), self.paths());
        let (marker, record) = (paths.marker(integrity), paths.index_record(integrity));
        let Found::Record(dir) = index::read_dir(disk, paths, integrity).at("read", &record)? else {
            return Ok(Age::Unknown);
        };
        let seeded = disk.metadata(&marker).and_then(|metadata| metadata.modified()).at("stat", &marker)?;
        let young = now.epoch_ms() - clock::millis_since_epoch(seeded) < grace_ms;
        Ok(if young { Age::Young(dir) } else { Age::Old(dir) })
    }

    /// Removes the marker first: from then on the entry is not there, whatever a kill leaves. A folder that is in `used` stays.
    fn drop_entry(&self, integrity: &str, used: &HashSet<String>, lock: &mut super::lock::RootLock) -> Result<u64> {
        let (disk, paths) = (self.disk(), self.paths());
        let (marker, record) = (paths.marker(integrity), paths.index_record(integrity));
        let Found::Record(dated) = index::read(disk, paths, integrity).at("read", &record)? else { return Ok(0) };
        disk.remove_file(&marker).at("unlink", &marker)?;
        disk.remove_file(&record).at("unlink", &record)?;
        if used.contains(&dated.record.dir) {
            return Ok(0);
        }
        let (trash, entry) = (paths.trash(), paths.cache.join(&dated.record.dir));
        disk.create_dirs(&trash).at("mkdir", &trash)?;
        let aside = trash.join(ids::uuid());
        if optional(disk.rename(&entry, &aside)).at("rename", &entry)?.is_none() {
            return Ok(0);
        }
        lock.remove_later(aside);
        Ok(dated.record.files.iter().map(|row| row.size).sum())
    }
}

fn told(context: &Context<'_>, integrity: &str, error: &HfError) {
    let message = format!("Cache entry {integrity} could not be deleted: {}", error.message());
    (context.log)(Level::Error, &message);
}

/// How long ago an entry was seeded, and its folder in the cache.
enum Age {
    /// Longer than the grace.
    Old(String),
    Young(String),
    /// It has no record that can be trusted.
    Unknown,
}
