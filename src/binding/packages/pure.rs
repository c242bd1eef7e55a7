//! Functions of the packages module that need no store.

use std::path::{Path, PathBuf};

use napi::Env;
use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi_derive::napi;
use serde_json::json;

use super::{LimitsIn, check, now, shared, text_of};
use crate::binding::cancel::CancelToken;
use crate::binding::durable::message;
use crate::binding::{failure, settle};
use crate::durable::Disk;
use crate::hash::sha256_hex;
use crate::packages::archive::{self, UnpackOptions};
use crate::packages::lockfile::{self, Entry};
use crate::packages::names;
use crate::packages::store::{link, paths, resolve, retire};

/// The order of a manifest: positions in `entries` (JSON).
#[napi(catch_unwind)]
pub fn packages_sort_order(env: &Env, entries: String) -> napi::Result<Vec<u32>> {
    failure::sync(env, || {
        let order = lockfile::sort_order(&message::<Vec<Entry>>(&entries)?);
        Ok(order.into_iter().map(|index| index as u32).collect())
    })
}

/// The hash of a manifest (JSON).
#[napi(catch_unwind)]
pub fn packages_lockfile_hash(env: &Env, entries: String) -> napi::Result<String> {
    failure::sync(env, || Ok(lockfile::lockfile_hash(&message::<Vec<Entry>>(&entries)?)))
}

/// The dependencies of specs (JSON), as the text of an array of pairs.
#[napi(catch_unwind)]
pub fn packages_build_dependencies(env: &Env, packages: String) -> napi::Result<String> {
    failure::sync(env, || text_of(&lockfile::build_dependencies(&message::<Vec<lockfile::PackageSpec>>(&packages)?)))
}

/// The text of a `package.json` over dependencies (the text of an array of pairs).
#[napi(catch_unwind)]
pub fn packages_store_package_json(env: &Env, name: String, dependencies: String) -> napi::Result<String> {
    failure::sync(env, || Ok(lockfile::store_package_json(&name, &message::<Vec<(String, String)>>(&dependencies)?)))
}

/// The manifest of a `bun.lock`, as JSON.
#[napi(catch_unwind)]
pub fn packages_parse_bun_lock(env: &Env, text: String) -> napi::Result<String> {
    failure::sync(env, || text_of(&lockfile::parse_bun_lock(&text)?))
}

/// SHA-256 in lower-case hex.
#[napi(catch_unwind)]
pub fn packages_blob_sha256(bytes: &[u8]) -> String {
    sha256_hex(bytes)
}

/// Packs a folder.
#[napi(ts_return_type = "Promise<Uint8Array>")]
pub fn packages_pack<'e>(
    env: &'e Env,
    parent: String,
    entry_name: String,
    reject_links: bool,
) -> napi::Result<PromiseRaw<'e, Uint8Array>> {
    settle::run(env, move || {
        archive::pack(Path::new(&parent), &entry_name, reject_links, &|| Ok(())).map(Uint8Array::new)
    })
}

/// Unpacks an archive.
#[napi(ts_return_type = "Promise<void>")]
pub fn packages_unpack<'e>(
    env: &'e Env,
    target: String,
    bytes: &[u8],
    limits: String,
    token: Option<&CancelToken>,
) -> napi::Result<PromiseRaw<'e, ()>> {
    let (bytes, cancel) = (bytes.to_vec(), shared(token));
    settle::run(env, move || {
        let limits = message::<LimitsIn>(&limits)?.limits();
        let target = PathBuf::from(target);
        let plan = archive::check_for(&bytes, &limits, &target)?;
        let options =
            UnpackOptions { durability_full: true, hash: false, cancel: &|| check(&cancel), progress: &|_| {} };
        archive::unpack(&bytes, &plan, &target, &options).map(drop)
    })
}

/// Finds a package in a cache: folder and name below it, or null.
#[napi(ts_return_type = "Promise<[string, string] | null>")]
pub fn packages_find_cache_entry<'e>(
    env: &'e Env,
    cache: String,
    name: String,
    version: String,
) -> napi::Result<PromiseRaw<'e, Option<Vec<String>>>> {
    settle::run(env, move || {
        let found = names::find_cache_entry(Path::new(&cache), &name, &version);
        Ok(found.map(|(parent, entry)| vec![parent.to_string_lossy().into_owned(), entry]))
    })
}

/// Replaces a link.
#[napi(ts_return_type = "Promise<void>")]
pub fn packages_swap_link<'e>(
    env: &'e Env,
    link: String,
    target: String,
    now_ms: Option<f64>,
) -> napi::Result<PromiseRaw<'e, ()>> {
    settle::run(env, move || link::atomic_symlink_swap(&Disk::real(), Path::new(&link), &target, now(now_ms), true))
}

/// The text of a link, or null.
#[napi(ts_return_type = "Promise<string | null>")]
pub fn packages_read_link<'e>(env: &'e Env, link: String) -> napi::Result<PromiseRaw<'e, Option<String>>> {
    settle::run(env, move || Ok(link::read_current_target(Path::new(&link))))
}

/// Marks a tree as retired.
#[napi(ts_return_type = "Promise<void>")]
pub fn packages_mark_retired<'e>(env: &'e Env, tree: String, at_ms: f64) -> napi::Result<PromiseRaw<'e, ()>> {
    settle::run(env, move || {
        retire::mark(&Disk::real(), Path::new(&tree), retire::Now::Given(at_ms));
        Ok(())
    })
}

/// When a tree was retired, or null.
#[napi(ts_return_type = "Promise<number | null>")]
pub fn packages_retired_at<'e>(env: &'e Env, tree: String) -> napi::Result<PromiseRaw<'e, Option<f64>>> {
    settle::run(env, move || Ok(retire::read(Path::new(&tree)).map(|retired| retired.at_ms)))
}

/// Whether a tree has a marker.
#[napi(ts_return_type = "Promise<boolean>")]
pub fn packages_has_retirement_marker<'e>(env: &'e Env, tree: String) -> napi::Result<PromiseRaw<'e, bool>> {
    settle::run(env, move || Ok(retire::has_marker(Path::new(&tree))))
}

/// What `wanted` says of a store, as JSON: `{"mode":…}`. `wanted` is the text of `{}` or of `{"desired": hash or null}`.
#[napi(ts_return_type = "Promise<string>")]
pub fn packages_resolve_root<'e>(
    env: &'e Env,
    root: String,
    wanted: String,
    host_label: Option<String>,
) -> napi::Result<PromiseRaw<'e, String>> {
    settle::run(env, move || {
        let wanted: serde_json::Value = message(&wanted)?;
        let status = match wanted.get("desired") {
            None => resolve::resolve_resolution_root_from_store(Path::new(&root)),
            Some(desired) => {
                resolve::resolve_resolution_root(Path::new(&root), desired.as_str(), host_label.as_deref())
            }
        };
        text_of(&match status {
            resolve::ResolutionRoot::None => json!({ "mode": "none" }),
            resolve::ResolutionRoot::Ready(root) => json!({ "mode": "ready", "root": root.to_string_lossy() }),
            resolve::ResolutionRoot::NotReady { reason } => json!({ "mode": "notReady", "reason": reason }),
        })
    })
}

/// The data folder of an environment (JSON object of strings).
#[napi(catch_unwind)]
pub fn packages_data_dir(env: &Env, variables: String, working_dir: String) -> napi::Result<String> {
    failure::sync(env, || {
        let variables: std::collections::HashMap<String, String> = message(&variables)?;
        let found = paths::resolve_data_dir(&|name| variables.get(name).cloned(), Path::new(&working_dir));
        Ok(found.to_string_lossy().into_owned())
    })
}
