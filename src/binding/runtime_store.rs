//! The runtime store for the facade: JSON texts in, JSON texts out.

use std::path::{Path, PathBuf};

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;
use serde::Deserialize;

use super::durable::{Faults, LockOptions, disk_of, message};
use super::resources::{self, Kept};
use super::settle::{self, Ticket};
use crate::durable::atomic::{Durability, folder_of};
use crate::durable::{Disk, pool};
use crate::error::{Code, HfError};
use crate::runtime_store::batch::{self, Input};
use crate::runtime_store::executor::{self, Orders};
use crate::runtime_store::format::ObjectText;
use crate::runtime_store::inspector::{self, Descriptor};
use crate::runtime_store::manifest::Manifest;
use crate::runtime_store::paths::Fence;
use crate::runtime_store::planner::{self, Request};
use crate::runtime_store::recovery::{self, Locked};
use crate::runtime_store::{Context, doctor};

/// Where a store is and how it is treated, as the facade sends it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    dir: PathBuf,
    manifest: PathBuf,
    receipts: PathBuf,
    #[serde(default)]
    extra_names: Vec<String>,
    #[serde(default)]
    process_only: bool,
    #[serde(default)]
    lock: LockOptions,
    /// Files whose locks the calling async context holds.
    #[serde(default)]
    held: Vec<PathBuf>,
}

impl Place {
    fn context(&self, env: &Env) -> Context {
        Context {
            dir: self.dir.clone(),
            manifest: self.manifest.clone(),
            receipts: self.receipts.clone(),
            extra_names: self.extra_names.clone(),
            durability: if self.process_only { Durability::Process } else { Durability::Full },
            lock_options: self.lock.for_env(env),
        }
    }

    fn held_keys(&self) -> Vec<PathBuf> {
        let key = |path: &PathBuf| Some(std::fs::canonicalize(folder_of(path)).ok()?.join(path.file_name()?));
        self.held.iter().filter_map(key).collect()
    }
}

/// Parses the two messages of a call and starts `work` on the pool, in order of arrival: it must queue for locks or pass on
/// what takes longer. Whatever fails settles the promise.
fn start<'e, M, T>(
    env: &'e Env,
    place: &str,
    order: &str,
    work: impl FnOnce(Context, Vec<PathBuf>, M, Ticket<T>) + Send + 'static,
) -> napi::Result<PromiseRaw<'e, T>>
where
    M: for<'a> Deserialize<'a> + Send + 'static,
    T: napi::bindgen_prelude::ToNapiValue + Send + 'static,
{
    let (promise, ticket) = settle::promise(env)?;
    let parsed = message::<Place>(place).and_then(|place| Ok((place, message::<M>(order)?)));
    match parsed {
        Ok((place, order)) => {
            let context = place.context(env);
            pool::spawn_in_order(move || work(context, place.held_keys(), order, ticket));
        }
        Err(error) => ticket.settle(Err(error)),
    }
    Ok(promise)
}

/// Writes a batch and returns its record. `data[i]` is the JSON text of write i. With `locked` the locks are held already.
#[napi]
pub fn write_batch<'e>(
    env: &'e Env,
    place: String,
    input: String,
    data: Vec<Option<String>>,
    locked: Option<u32>,
    faults: Option<&Faults>,
) -> napi::Result<PromiseRaw<'e, String>> {
    let disk = disk_of(faults);
    let locked = locked.map(|number| resources::take::<Locked>(env, number));
    start(env, &place, &input, move |context, held, mut input: Input, ticket| {
        for (write, data) in input.writes.iter_mut().zip(data) {
            write.data = data;
        }
        match locked {
            None => batch::write(disk, context, input, held, Box::new(move |record| ticket.settle(record))),
            Some(None) => ticket.settle(Err(HfError::new(Code::InvalidArgument, "the locks were given back already"))),
            Some(Some(locked)) => {
                pool::off_intake(move || {
                    let paths = batch::check_paths(&context, &input);
                    ticket.settle(paths.and_then(|paths| batch::commit(&disk, &context, &input, &paths, locked)));
                });
            }
        }
    })
}

/// Takes the locks that a batch over `paths` needs, and returns the number of their guard.
#[napi(ts_return_type = "Promise<number>")]
pub fn lock_batch<'e>(
    env: &'e Env,
    place: String,
    paths: String,
    faults: Option<&Faults>,
) -> napi::Result<PromiseRaw<'e, Kept<Locked>>> {
    let disk = disk_of(faults);
    start(env, &place, &paths, move |context, held, paths: Vec<PathBuf>, ticket| {
        recovery::lock_and_recover(disk, context, paths, held, Box::new(move |locked| ticket.settle(locked.map(Kept))));
    })
}

/// Gives the locks of `lockBatch` back.
#[napi(catch_unwind)]
pub fn unlock_batch(env: &Env, guard: u32) {
    drop(resources::take::<Locked>(env, guard));
}

/// Checks the paths of a batch without touching the disk's content. Throws `RuntimeStorePathError`.
#[napi(catch_unwind)]
pub fn check_paths(env: &Env, dir: String, control: Vec<String>, relative: Vec<String>) -> napi::Result<Vec<String>> {
    super::failure::sync(env, || {
        let control: Vec<PathBuf> = control.into_iter().map(PathBuf::from).collect();
        let control: Vec<&Path> = control.iter().map(PathBuf::as_path).collect();
        let fence = Fence::around(Path::new(&dir), &control);
        relative.iter().map(|relative| Ok(fence.confine(relative)?.to_string_lossy().into_owned())).collect()
    })
}

/// Builds a recovery plan and returns it as JSON text.
#[napi]
pub fn build_plan<'e>(
    env: &'e Env,
    place: String,
    request: String,
    faults: Option<&Faults>,
) -> napi::Result<PromiseRaw<'e, String>> {
    let disk = disk_of(faults);
    start(env, &place, &request, move |context, _, request: Request, ticket| {
        pool::off_intake(move || {
            let built = planner::build(&disk, &context, &request);
            ticket.settle(built.map(|built| serde_json::to_string(&built.plan).unwrap_or_default()));
        });
    })
}

/// Says what a state means for a store with this rebuild strategy.
#[napi(catch_unwind)]
pub fn recovery_action_kind(state: String, strategy: String) -> &'static str {
    planner::action_kind(&state, &strategy)
}

/// Inspects one store file; returns `{state, message, entry}` as JSON text. `manifest` is the manifest's data as JSON text.
#[napi]
pub fn inspect_store(
    env: &Env,
    dir: String,
    descriptor: String,
    manifest: String,
    names: Vec<String>,
) -> napi::Result<PromiseRaw<'_, String>> {
    settle::run(env, move || {
        let descriptor: Descriptor = message(&descriptor)?;
        let manifest =
            Manifest::parse(&manifest, &names).map_err(|text| HfError::new(Code::RuntimeInvalidManifest, text))?;
        let path = Fence::around(Path::new(&dir), &[]).confine(&descriptor.relative_path)?;
        let entry = manifest.entry(&descriptor.schema_name);
        let found = inspector::inspect(&Disk::real(), &path, &descriptor, entry)?;
        let text =
            ObjectText::new().string("state", found.state.as_str()).nullable("message", found.message.as_deref());
        Ok(text.raw("entry", found.entry_text(&descriptor, entry).as_deref().unwrap_or("null")).finish())
    })
}

/// Runs the first half of a recovery; returns `{steps, rebuilds}` as JSON text.
#[napi]
pub fn begin_recovery<'e>(
    env: &'e Env,
    place: String,
    orders: String,
    faults: Option<&Faults>,
) -> napi::Result<PromiseRaw<'e, String>> {
    let disk = disk_of(faults);
    start(env, &place, &orders, move |context, _, orders: Orders, ticket| {
        executor::begin(
            disk,
            context,
            orders,
            Box::new(move |begun| ticket.settle(begun.map(|begun| serde_json::to_string(&begun).unwrap_or_default()))),
        );
    })
}

/// Runs the last part of a recovery; returns its steps as JSON text.
#[napi]
pub fn finish_recovery<'e>(
    env: &'e Env,
    place: String,
    orders: String,
    faults: Option<&Faults>,
) -> napi::Result<PromiseRaw<'e, String>> {
    let disk = disk_of(faults);
    start(env, &place, &orders, move |context, _, orders: Orders, ticket| {
        executor::finish(
            disk,
            context,
            orders,
            Box::new(move |steps| ticket.settle(steps.map(|steps| serde_json::to_string(&steps).unwrap_or_default()))),
        );
    })
}

/// Examines a runtime directory without changing it; returns the report as JSON text.
#[napi]
pub fn examine_store(env: &Env, place: String) -> napi::Result<PromiseRaw<'_, String>> {
    start(env, &place, "null", move |context, _, (): (), ticket| {
        pool::off_intake(move || {
            let report = doctor::examine(&Disk::real(), &context);
            ticket.settle(report.map(|report| serde_json::to_string(&report).unwrap_or_default()));
        });
    })
}
