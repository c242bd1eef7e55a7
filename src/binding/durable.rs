//! Lock files, atomic files and plain reads for the facade.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::{Buffer, PromiseRaw, ToNapiValue};
use napi::sys;
use napi_derive::napi;
use serde::Deserialize;

use super::resources::{self, Kept};
use super::{failure, settle};
use crate::durable::atomic::{Durability, Temp, folder_of, retry_delay};
use crate::durable::fault::{FaultPlan, Rule};
use crate::durable::lock::{self, FileLock, Options};
use crate::durable::{Disk, IoContext, files, optional, pool, sync};
use crate::error::{Code, HfError, Result};
use crate::runtime_store::group::{self, Turn, WriteOptions};
use crate::runtime_store::{format, recovery};
use crate::{hash, json};

/// Lock options as the facade sends them: milliseconds, checked there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LockOptions {
    acquire_timeout_ms: Option<f64>,
    stale_timeout_ms: Option<f64>,
    retry_interval_ms: Option<f64>,
    shared_volume: bool,
}

impl LockOptions {
    pub(super) fn for_env(&self, env: &Env) -> Options {
        let defaults = Options::default();
        // A day is longer than anybody waits, and keeps deadlines within the range of the clock.
        let ms = |value: Option<f64>, default: Duration| {
            value.map_or(default, |ms| Duration::from_secs_f64((ms / 1000.0).clamp(0.0, 86_400.0)))
        };
        Options {
            acquire_timeout: ms(self.acquire_timeout_ms, defaults.acquire_timeout),
            stale_timeout: ms(self.stale_timeout_ms, defaults.stale_timeout),
            retry_interval: ms(self.retry_interval_ms, defaults.retry_interval),
            shared_volume: self.shared_volume,
            owner: env.raw() as u64,
        }
    }
}

/// Parses a message of the facade. It is made by our own code, so a failure is a bug there.
pub(super) fn message<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| HfError::new(Code::InvalidArgument, format!("an option has the wrong type: {error}")))
}

/// Returns the disk that an operation goes through: behind fault rules, if the caller gave any.
pub(super) fn disk(faults: Option<&str>) -> Result<Disk> {
    match faults {
        None => Ok(Disk::real()),
        Some(text) => {
            let rules: Vec<Rule> = message(text)?;
            Ok(Disk::intercepted(Arc::new(FaultPlan::new(rules))))
        }
    }
}

/// Fault rules with their counters, shared by all operations of one handle.
#[napi]
pub struct Faults {
    disk: Disk,
}

#[napi]
impl Faults {
    /// Makes the rules from their JSON text.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, rules: String) -> napi::Result<Self> {
        failure::sync(env, || Ok(Self { disk: disk(Some(&rules))? }))
    }
}

pub(super) fn disk_of(faults: Option<&Faults>) -> Disk {
    faults.map_or_else(Disk::real, |faults| faults.disk.clone())
}

/// Returns `sha256:` and the hex of the hash of a text.
#[napi(catch_unwind)]
pub fn content_hash(text: String) -> String {
    hash::content_hash(text.as_bytes())
}

/// Compares two JSON texts as data: key order does not matter.
#[napi(catch_unwind)]
pub fn json_equal_sync(a: String, b: String) -> bool {
    json::equal(&a, &b).unwrap_or(false)
}

/// As `jsonEqualSync`, off the JavaScript thread.
#[napi]
pub fn json_equal(env: &Env, a: String, b: String) -> napi::Result<PromiseRaw<'_, bool>> {
    settle::run(env, move || Ok(json::equal(&a, &b).unwrap_or(false)))
}

/// Takes the lock of a file and returns the number of its guard.
#[napi(ts_return_type = "Promise<number>")]
pub fn lock_file(env: &Env, path: String, options: String) -> napi::Result<PromiseRaw<'_, Kept<FileLock>>> {
    let (promise, ticket) = settle::promise(env)?;
    match message::<LockOptions>(&options) {
        Ok(options) => {
            let options = options.for_env(env);
            pool::spawn_in_order(move || {
                recovery::lock_file(
                    Disk::real(),
                    path.into(),
                    options,
                    Box::new(move |lock| ticket.settle(lock.map(Kept))),
                )
            });
        }
        Err(error) => ticket.settle(Err(error)),
    }
    Ok(promise)
}

/// As `lockFile`, but blocks the thread.
#[napi(catch_unwind)]
pub fn lock_file_sync(env: &Env, path: String, options: String) -> napi::Result<u32> {
    let lock = failure::sync(env, || {
        let options = message::<LockOptions>(&options)?.for_env(env);
        lock::lock_blocking(&Disk::real(), Path::new(&path), options)
    })?;
    resources::keep(env, lock)
}

/// Gives a lock back. An unknown number is one that was given back already.
#[napi(catch_unwind)]
pub fn unlock(env: &Env, guard: u32) {
    drop(resources::take::<FileLock>(env, guard));
}

/// A turn at a file, and the text that it starts from.
pub struct TurnWithText {
    turn: Turn,
    text: Option<String>,
}

impl ToNapiValue for TurnWithText {
    // SAFETY: the contract is the trait's: `env` is a live environment on its own thread.
    unsafe fn to_napi_value(env: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
        let number = resources::keep(&Env::from_raw(env), value.turn)?;
        // SAFETY: `env` is passed on unchanged.
        unsafe { <(u32, Option<String>)>::to_napi_value(env, (number, value.text)) }
    }
}

/// Takes a turn at a versioned file, under its lock and after settling an interrupted batch that names it:
/// `[turn, text or null]`.
#[napi(ts_return_type = "Promise<[number, string | null]>")]
pub fn take_turn<'e>(
    env: &'e Env,
    path: String,
    options: String,
    faults: Option<&Faults>,
) -> napi::Result<PromiseRaw<'e, TurnWithText>> {
    let (promise, ticket) = settle::promise(env)?;
    let disk = disk_of(faults);
    match message::<LockOptions>(&options) {
        Ok(options) => {
            let options = options.for_env(env);
            pool::spawn_in_order(move || {
                let done = Box::new(move |taken: Result<(Turn, Option<String>)>| {
                    ticket.settle(taken.map(|(turn, text)| TurnWithText { turn, text }));
                });
                group::take_turn(disk, Path::new(&path), options, done);
            });
        }
        Err(error) => ticket.settle(Err(error)),
    }
    Ok(promise)
}

/// What `writeTurn` writes, apart from the data.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TurnWrite {
    schema_version: f64,
    updated_at: String,
    #[serde(default)]
    max_file_bytes: Option<u64>,
    #[serde(default)]
    process_only: bool,
    /// The file is a manifest: its sidecar keeps a copy.
    #[serde(default)]
    copy_to: Option<PathBuf>,
}

/// Ends a turn with new data (JSON text; without it the key is left out). Resolves when it is durable.
#[napi(ts_return_type = "Promise<void>")]
pub fn write_turn<'e>(
    env: &'e Env,
    turn: u32,
    order: String,
    data: Option<String>,
    faults: Option<&Faults>,
) -> napi::Result<PromiseRaw<'e, ()>> {
    let (promise, ticket) = settle::promise(env)?;
    let disk = disk_of(faults);
    match (resources::take::<Turn>(env, turn), message::<TurnWrite>(&order)) {
        (Some(turn), Ok(order)) => pool::spawn(move || {
            let text = format::envelope(order.schema_version, &order.updated_at, data.as_deref());
            let durability = if order.process_only { Durability::Process } else { Durability::Full };
            let options = WriteOptions { max_file_bytes: order.max_file_bytes, durability, copy_to: order.copy_to };
            turn.write(disk, text, options, Box::new(move |written| ticket.settle(written)));
        }),
        (None, _) => ticket.settle(Err(HfError::new(Code::InvalidArgument, "the turn was given back already"))),
        (_, Err(error)) => ticket.settle(Err(error)),
    }
    Ok(promise)
}

/// Ends a turn that changed nothing. Resolves when everything that it saw is durable.
#[napi(ts_return_type = "Promise<void>")]
pub fn keep_turn(env: &Env, turn: u32) -> napi::Result<PromiseRaw<'_, ()>> {
    let (promise, ticket) = settle::promise(env)?;
    match resources::take::<Turn>(env, turn) {
        Some(turn) => turn.keep(Box::new(move |kept| ticket.settle(kept))),
        None => ticket.settle(Ok(())),
    }
    Ok(promise)
}

/// Gives a turn back without waiting. An unknown number is one that was given back already.
#[napi(catch_unwind)]
pub fn drop_turn(env: &Env, turn: u32) {
    drop(resources::take::<Turn>(env, turn));
}

/// Reads a text file; `null` when there is none. What is not UTF-8 becomes U+FFFD.
#[napi]
pub fn read_text(env: &Env, path: String) -> napi::Result<PromiseRaw<'_, Option<String>>> {
    settle::run(env, move || {
        let path = PathBuf::from(path);
        Ok(optional(Disk::real().read(&path)).at("open", &path)?.map(format::decode))
    })
}

/// Copies the raw bytes of a bad file to its quarantine name and returns the name; `null` when that was not possible.
#[napi]
pub fn quarantine_copy(
    env: &Env,
    path: String,
    reason: String,
    stamp: String,
    folder: String,
) -> napi::Result<PromiseRaw<'_, Option<String>>> {
    settle::run(env, move || {
        let (disk, path) = (Disk::real(), PathBuf::from(path));
        let copy = disk
            .read(&path)
            .at("open", &path)
            .and_then(|bytes| format::quarantine_copy(&disk, &path, &bytes, &reason, &stamp, Path::new(&folder)));
        Ok(copy.ok().map(|copy| copy.to_string_lossy().into_owned()))
    })
}

/// Writes a temporary file beside its target: the first half of an atomic write. `insist` is `best-effort` or `strict`.
#[napi(ts_return_type = "Promise<number>")]
pub fn temp_create(
    env: &Env,
    target: String,
    data: Buffer,
    mode: Option<u32>,
    insist: String,
) -> napi::Result<PromiseRaw<'_, Kept<Temp>>> {
    let data = data.to_vec();
    settle::run(env, move || {
        let (disk, target) = (Disk::real(), PathBuf::from(target));
        let made = disk.create_dirs(folder_of(&target)).at("mkdir", folder_of(&target))?;
        if insist == "strict" {
            sync::dirs(&disk, made)?;
        }
        let temp = Temp::create(&disk, &target, &data, mode)?;
        match temp.sync() {
            Err(error) if insist == "strict" => Err(error),
            _ => Ok(Kept(temp)),
        }
    })
}

/// Outcome of one try to publish: done, or try again after so many milliseconds.
pub struct Published(Option<(Temp, f64)>);

impl ToNapiValue for Published {
    // SAFETY: the contract is the trait's: `env` is a live environment on its own thread.
    unsafe fn to_napi_value(env: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
        let again = match value.0 {
            Some((temp, delay)) => Some((resources::keep(&Env::from_raw(env), temp)?, delay)),
            None => None,
        };
        // SAFETY: `env` is passed on unchanged.
        unsafe { <Option<(u32, f64)>>::to_napi_value(env, again) }
    }
}

/// Tries once to publish a temporary file. `null` when done, else `[number, milliseconds to wait]`. `sync_folder` syncs the
/// folder of the new name afterwards; a failure of that counts only if `strict`.
#[napi(ts_return_type = "Promise<[number, number] | null>")]
pub fn temp_publish(
    env: &Env,
    temp: u32,
    attempt: u32,
    sync_folder: bool,
    strict: bool,
) -> napi::Result<PromiseRaw<'_, Published>> {
    let temp = resources::take::<Temp>(env, temp);
    settle::run(env, move || {
        let mut temp = temp.ok_or_else(|| HfError::new(Code::InvalidArgument, "the temporary file is gone"))?;
        match temp.publish_once() {
            Ok(()) => {
                let folder = folder_of(temp.target());
                if sync_folder {
                    let synced = Disk::real().sync_dir(folder).at("fsync", folder).map_err(HfError::sync_failed);
                    if strict {
                        synced?;
                    }
                }
                Ok(Published(None))
            }
            Err(error) => match retry_delay(&error, u64::from(attempt)) {
                Some(delay) => Ok(Published(Some((temp, delay.as_secs_f64() * 1000.0)))),
                None => Err(error).at("rename", temp.target()),
            },
        }
    })
}

/// Removes a temporary file that will not be published.
#[napi(catch_unwind)]
pub fn temp_discard(env: &Env, temp: u32) {
    drop(resources::take::<Temp>(env, temp));
}

/// Writes a file atomically on the calling thread, synced, without syncing the folder.
#[napi(catch_unwind)]
pub fn atomic_write_sync(env: &Env, target: String, data: Buffer, mode: Option<u32>) -> napi::Result<()> {
    failure::sync(env, || files::write_sync(&Disk::real(), Path::new(&target), &data, mode))
}

/// Creates a file that must not exist, durably; returns `[dev, ino]`.
#[napi(ts_return_type = "Promise<[number, number]>")]
pub fn atomic_create(
    env: &Env,
    target: String,
    data: Buffer,
    mode: Option<u32>,
) -> napi::Result<PromiseRaw<'_, (f64, f64)>> {
    let data = data.to_vec();
    settle::run(env, move || files::create(&Disk::real(), Path::new(&target), &data, mode))
}

/// Renames with retries, then syncs the folders if asked: destination first.
#[napi(ts_return_type = "Promise<void>")]
pub fn rename_with_retry(
    env: &Env,
    from: String,
    to: String,
    sync_directories: bool,
    strict: bool,
) -> napi::Result<PromiseRaw<'_, ()>> {
    settle::run(env, move || files::rename(&Disk::real(), Path::new(&from), Path::new(&to), sync_directories, strict))
}

/// Renames with retries on the calling thread.
#[napi(catch_unwind)]
pub fn rename_with_retry_sync(env: &Env, from: String, to: String) -> napi::Result<()> {
    failure::sync(env, || files::rename(&Disk::real(), Path::new(&from), Path::new(&to), false, false))
}

/// Syncs a folder.
#[napi(ts_return_type = "Promise<void>")]
pub fn sync_directory(env: &Env, path: String) -> napi::Result<PromiseRaw<'_, ()>> {
    settle::run(env, move || {
        Disk::real().sync_dir(Path::new(&path)).at("fsync", Path::new(&path)).map_err(HfError::sync_failed)
    })
}

/// Removes a file and syncs its folder.
#[napi(ts_return_type = "Promise<void>")]
pub fn unlink_durably(env: &Env, path: String) -> napi::Result<PromiseRaw<'_, ()>> {
    settle::run(env, move || files::unlink(&Disk::real(), Path::new(&path)))
}

/// Removes leftover links of `atomicCreate`.
#[napi(ts_return_type = "Promise<void>")]
pub fn cleanup_create_links(env: &Env, target: String) -> napi::Result<PromiseRaw<'_, ()>> {
    settle::run(env, move || files::cleanup_create_links(&Disk::real(), Path::new(&target)))
}
