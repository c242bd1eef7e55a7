//! One store root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{LimitsIn, check, now, shared, text_of};
use crate::binding::cancel::{Cancel, CancelToken};
use crate::binding::durable::message;
use crate::binding::resources;
use crate::binding::{failure, settle};
use crate::durable::Disk;
use crate::error::Result;
use crate::packages::lockfile::Entry;
use crate::packages::store::pins::Pin;
use crate::packages::store::resolve::{self, SnapshotRoot};
use crate::packages::store::{
    Context, LOCKED, Level, LinkMode, Materialized, Materializer, Options, Progress, RepairReport, Store, entry_missing,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OptionsIn {
    #[serde(default)]
    link_mode: Option<String>,
    #[serde(default)]
    bun: bool,
    #[serde(default)]
    bun_path: Option<PathBuf>,
    #[serde(default)]
    roots: BTreeMap<String, String>,
    #[serde(default)]
    require_blob_sha256: bool,
    #[serde(default)]
    verify_lockfile_hash: bool,
    #[serde(default)]
    verify_full: bool,
    #[serde(default)]
    durability_none: bool,
    #[serde(default)]
    limits: LimitsIn,
    #[serde(default)]
    lock_timeout_ms: Option<f64>,
    #[serde(default)]
    tree_gc_grace_ms: Option<f64>,
}

impl OptionsIn {
    fn options(self) -> Options {
        let usual = Options::default();
        Options {
            link_mode: match self.link_mode.as_deref() {
                Some("reflink") => LinkMode::Reflink,
                Some("hardlink") => LinkMode::Hardlink,
                Some("copy") => LinkMode::Copy,
                _ => LinkMode::Auto,
            },
            materializer: if self.bun { Materializer::Bun { path: self.bun_path } } else { Materializer::Native },
            roots: self.roots,
            require_blob_sha256: self.require_blob_sha256,
            verify_lockfile_hash: self.verify_lockfile_hash,
            verify_full: self.verify_full,
            durability_full: !self.durability_none,
            limits: self.limits.limits(),
            // A month is longer than anybody waits, and keeps deadlines within the range of the clock.
            lock_timeout: self
                .lock_timeout_ms
                .map_or(usual.lock_timeout, |ms| Duration::from_secs_f64((ms / 1000.0).clamp(0.0, 2_592_000.0))),
            tree_gc_grace_ms: self.tree_gc_grace_ms.unwrap_or(usual.tree_gc_grace_ms),
        }
    }
}

/// What calls tell while they run; the facade looks from time to time, and once at their end.
#[derive(Default)]
struct Told {
    lines: Vec<(Level, String)>,
    progress: Option<Progress>,
}

/// A store root.
#[napi]
pub struct PackagesStore {
    store: Store,
    told: Arc<Mutex<Told>>,
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    // Nothing that can panic runs under this lock.
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

#[napi]
impl PackagesStore {
    /// Describes a store; nothing is made on the disk.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, root: String, options: String) -> napi::Result<Self> {
        failure::sync(env, || {
            let options = message::<OptionsIn>(&options)?.options();
            Ok(Self { store: Store::open(Path::new(&root), options), told: Arc::default() })
        })
    }

    /// The log lines since the last call (level and text in turn), then the progress of a build, if there was any: JSON.
    #[napi(catch_unwind)]
    pub fn told(&self, env: &Env) -> napi::Result<Option<String>> {
        failure::sync(env, || {
            let mut told = lock(&self.told);
            if told.lines.is_empty() && told.progress.is_none() {
                return Ok(None);
            }
            let (lines, progress) = (std::mem::take(&mut told.lines), told.progress.take());
            drop(told);
            let lines: Vec<_> = lines
                .into_iter()
                .map(|(level, text)| (if level == Level::Error { "error" } else { "debug" }, text))
                .collect();
            let progress = progress.map(|at| {
                json!({
                    "packages": at.packages, "packagesTotal": at.packages_total,
                    "files": at.files, "filesTotal": at.files_total,
                    "bytes": at.bytes, "bytesTotal": at.bytes_total,
                })
            });
            text_of(&json!({ "lines": lines, "progress": progress })).map(Some)
        })
    }

    /// The integrities in the cache.
    #[napi(ts_return_type = "Promise<string[]>")]
    pub fn local_integrities<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, Vec<String>>> {
        let store = self.store.clone();
        settle::run(env, move || store.local_integrities().map_err(|error| store.explain(error)))
    }

    /// The hash of the tree in use, or null. Three system calls, on this thread.
    #[napi(catch_unwind)]
    pub fn current_lockfile_hash(&self) -> Option<String> {
        self.store.current_lockfile_hash()
    }

    /// Verifies a blob and publishes it in the cache.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn seed<'e>(
        &self,
        env: &'e Env,
        entry: String,
        bytes: &[u8],
        force: bool,
        token: Option<&CancelToken>,
    ) -> napi::Result<PromiseRaw<'e, ()>> {
        let bytes = bytes.to_vec();
        self.run_locked(env, token, move |store, context| {
            store.seed(&message::<Entry>(&entry)?, &bytes, force, context).map(drop)
        })
    }

    /// Builds a tree and makes it the one in use. Resolves to the positions of entries that must be seeded first; empty = done.
    /// With `last` they are an error.
    #[napi(ts_return_type = "Promise<number[]>")]
    pub fn materialize<'e>(
        &self,
        env: &'e Env,
        hash: String,
        manifest: String,
        last: bool,
        token: Option<&CancelToken>,
    ) -> napi::Result<PromiseRaw<'e, Vec<u32>>> {
        self.run_locked(env, token, move |store, context| {
            let manifest: Vec<Entry> = message(&manifest)?;
            match store.materialize_and_flip(&hash, &manifest, context)? {
                Materialized::Flipped { .. } => Ok(Vec::new()),
                Materialized::Missing(missing) => {
                    match missing.first().and_then(|index| manifest.get(*index)).filter(|_| last) {
                        Some(entry) => Err(entry_missing(entry)),
                        None => Ok(missing.into_iter().map(|index| index as u32).collect()),
                    }
                }
            }
        })
    }

    /// Sweeps retired trees: JSON.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn sweep_trees<'e>(
        &self,
        env: &'e Env,
        grace_ms: f64,
        now_ms: Option<f64>,
    ) -> napi::Result<PromiseRaw<'e, String>> {
        self.run_locked(env, None, move |store, context| {
            let swept = store.sweep_tree_gc(grace_ms, now(now_ms), context)?;
            let mut text = json!({ "deleted": swept.deleted, "keptWithinGrace": swept.kept_within_grace });
            if let (Some(hash), Some(object)) = (swept.current_hash, text.as_object_mut()) {
                object.insert("currentHash".to_owned(), hash.into());
            }
            text_of(&text)
        })
    }

    /// Sweeps the cache: JSON. `keep` is the text of an array of manifests.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn sweep_cache<'e>(
        &self,
        env: &'e Env,
        keep: String,
        grace_ms: f64,
        now_ms: Option<f64>,
    ) -> napi::Result<PromiseRaw<'e, String>> {
        self.run_locked(env, None, move |store, context| {
            let swept = store.sweep_cache_gc(&message::<Vec<Vec<Entry>>>(&keep)?, grace_ms, now(now_ms), context)?;
            let mut text = json!({
                "ran": swept.ran, "deleted": swept.deleted, "keptWithinGrace": swept.kept_within_grace,
                "bytesReclaimed": swept.bytes_reclaimed,
            });
            if let (Some(reason), Some(object)) = (swept.reason, text.as_object_mut()) {
                object.insert("reason".to_owned(), reason.into());
            }
            text_of(&text)
        })
    }

    /// Makes a tree that is still there the one in use.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn rollback<'e>(&self, env: &'e Env, hash: String) -> napi::Result<PromiseRaw<'e, ()>> {
        self.run_locked(env, None, move |store, context| store.rollback_to(&hash, context))
    }

    /// Compares a tree with its record: JSON.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn verify<'e>(
        &self,
        env: &'e Env,
        hash: String,
        token: Option<&CancelToken>,
    ) -> napi::Result<PromiseRaw<'e, String>> {
        self.run(env, token, move |store, context| {
            let report = store.verify_tree(&hash, context)?;
            text_of(&json!({
                "sound": report.is_sound(), "hasRecord": report.has_record, "checked": report.checked,
                "damaged": report.damaged, "missing": report.missing, "unexpected": report.unexpected,
            }))
        })
    }

    /// Repairs a tree: JSON, `{"rebuilt": …}` or `{"missing": entries}` to be seeded first.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn repair<'e>(
        &self,
        env: &'e Env,
        hash: String,
        token: Option<&CancelToken>,
    ) -> napi::Result<PromiseRaw<'e, String>> {
        self.run_locked(env, token, move |store, context| {
            text_of(&match store.repair_tree(&hash, context)? {
                RepairReport::Sound { rebuilt } => json!({ "rebuilt": rebuilt }),
                RepairReport::Missing(entries) => json!({ "missing": entries }),
            })
        })
    }

    /// What a tree of a manifest would be: JSON.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn plan<'e>(&self, env: &'e Env, manifest: String) -> napi::Result<PromiseRaw<'e, String>> {
        self.run(env, None, move |store, context| {
            let plan = store.plan_tree(&message::<Vec<Entry>>(&manifest)?, context)?;
            let placed: Vec<Value> =
                plan.placed.into_iter().map(|(path, entry)| json!({ "path": path, "entry": entry })).collect();
            let warnings: Vec<String> = plan.findings.into_iter().map(|finding| finding.message).collect();
            text_of(&json!({ "placements": placed, "missing": plan.missing, "warnings": warnings }))
        })
    }

    /// Measures the store: JSON.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn stats<'e>(&self, env: &'e Env) -> napi::Result<PromiseRaw<'e, String>> {
        self.run(env, None, |store, context| {
            let stats = store.stats(context)?;
            let trees: Vec<Value> = stats
                .trees
                .into_iter()
                .map(|tree| {
                    json!({
                        "lockfileHash": tree.lockfile_hash, "bytes": tree.bytes, "ownBytes": tree.own_bytes,
                        "files": tree.files, "current": tree.current,
                    })
                })
                .collect();
            text_of(&json!({
                "cacheBytes": stats.cache_bytes, "cacheEntries": stats.cache_entries, "trees": trees,
                "totalBytes": stats.total_bytes,
            }))
        })
    }

    fn run<'e, T: napi::bindgen_prelude::ToNapiValue + Send + 'static>(
        &self,
        env: &'e Env,
        token: Option<&CancelToken>,
        work: impl FnOnce(&Store, &Context<'_>) -> Result<T> + Send + 'static,
    ) -> napi::Result<PromiseRaw<'e, T>> {
        let (store, told, cancel) = (self.store.clone(), Arc::clone(&self.told), shared(token));
        settle::run(env, move || in_context(&store, &told, &cancel, work))
    }

    /// As `run`, for what takes the root's lock, and so may wait for another process for as long as the lock's timeout says.
    fn run_locked<'e, T: napi::bindgen_prelude::ToNapiValue + Send + 'static>(
        &self,
        env: &'e Env,
        token: Option<&CancelToken>,
        work: impl FnOnce(&Store, &Context<'_>) -> Result<T> + Send + 'static,
    ) -> napi::Result<PromiseRaw<'e, T>> {
        let (store, told, cancel) = (self.store.clone(), Arc::clone(&self.told), shared(token));
        settle::run_on(&LOCKED, env, move || in_context(&store, &told, &cancel, work))
    }
}

fn in_context<T>(
    store: &Store,
    told: &Mutex<Told>,
    cancel: &Cancel,
    work: impl FnOnce(&Store, &Context<'_>) -> Result<T>,
) -> Result<T> {
    let context = Context {
        cancel: &|| check(cancel),
        progress: &|progress| lock(told).progress = Some(progress),
        log: &|level, text| lock(told).lines.push((level, text.to_owned())),
    };
    work(store, &context).map_err(|error| store.explain(error))
}

/// A pinned tree.
struct Pinned(#[expect(dead_code, reason = "held for its drop")] Pin);

/// Pins the tree in use: JSON with `mode`, and for `ready` with `root`, `lockfileHash`, and `guard` for `packagesUnpin`.
#[napi(ts_return_type = "Promise<string>")]
pub fn packages_snapshot<'e>(
    env: &'e Env,
    root: String,
    wanted: String,
    host_label: Option<String>,
) -> napi::Result<PromiseRaw<'e, SnapshotText>> {
    settle::run(env, move || {
        let wanted: Value = message(&wanted)?;
        let desired = wanted.get("desired").map(Value::as_str);
        let found = resolve::snapshot_resolution_root(&Disk::real(), Path::new(&root), desired, host_label.as_deref())?;
        Ok(SnapshotText(found))
    })
}

/// Gives up a pin.
#[napi(catch_unwind)]
pub fn packages_unpin(env: &Env, guard: u32) {
    drop(resources::take::<Pinned>(env, guard));
}

/// A snapshot on its way to JavaScript, where its pin is kept.
pub struct SnapshotText(SnapshotRoot);

impl napi::bindgen_prelude::ToNapiValue for SnapshotText {
    // SAFETY: the contract is the trait's: `env` is a live environment on its own thread.
    unsafe fn to_napi_value(env: napi::sys::napi_env, found: Self) -> napi::Result<napi::sys::napi_value> {
        let text = match found.0 {
            SnapshotRoot::None => json!({ "mode": "none" }),
            SnapshotRoot::NotReady { reason } => json!({ "mode": "notReady", "reason": reason }),
            SnapshotRoot::Ready(snapshot) => {
                let guard = resources::keep(&Env::from_raw(env), Pinned(snapshot.pin))?;
                json!({
                    "mode": "ready", "root": snapshot.root.to_string_lossy(), "lockfileHash": snapshot.lockfile_hash,
                    "guard": guard,
                })
            }
        };
        // SAFETY: `env` is passed on unchanged.
        unsafe { String::to_napi_value(env, text.to_string()) }
    }
}
