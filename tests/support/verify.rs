//! What must be true after a crash and a recovery: looked at with `std::fs` and a JSON parser, not with the code under test
//! (except for the plan, which is compared with the plans of directories that never crashed).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use holdfast::runtime_store::planner::Plan;
use serde_json::Value;

use super::store::{self, MANIFEST, RECEIPTS, STORES};

/// A directory that never crashed.
#[derive(Debug, Clone)]
pub struct Reference {
    pub files: BTreeMap<usize, Option<Vec<u8>>>,
    pub manifest: Value,
    pub receipts: Value,
    pub plan: Plan,
}

impl Reference {
    pub fn of(dir: &Path, stores: &[usize]) -> Self {
        Self {
            files: stores.iter().map(|&store| (store, fs::read(dir.join(STORES[store].1)).ok())).collect(),
            manifest: without_times(data(&dir.join(MANIFEST))),
            receipts: without_times(data(&dir.join(RECEIPTS))),
            plan: store::plan(&store::context(dir), stores, true).unwrap(),
        }
    }
}

/// The `data` of a versioned file; `null` when there is none.
pub fn data(path: &Path) -> Value {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice::<Value>(&bytes)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))["data"]
            .clone(),
        Err(_) => Value::Null,
    }
}

/// Modification times are recorded, never compared.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            object.remove("mtimeMs");
            object.values_mut().for_each(|member| *member = without_times(member.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_times(item.take())),
        _ => {}
    }
    value
}

/// Which of two directories a recovered one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

/// What the test knows.
#[derive(Debug)]
pub struct Expect<'a> {
    pub stores: &'a [usize],
    pub old: &'a Reference,
    pub new: &'a Reference,
    /// If only one of them may be.
    pub must: Option<Side>,
}

/// Never healthy with mixed data, by the rules of the original alone. Call it on a directory without its sidecar.
pub fn never_a_healthy_mix(dir: &Path, expect: &Expect<'_>) -> Result<(), String> {
    // An unreadable control file means no plan, so nobody calls it healthy.
    let Ok(plan) = store::plan(&store::context(dir), expect.stores, false) else {
        return Ok(());
    };
    if plan.manifest_healthy && side_of_stores(dir, expect).is_none() {
        return Err("the original would call a mix healthy".into());
    }
    Ok(())
}

fn side_of_stores(dir: &Path, expect: &Expect<'_>) -> Option<Side> {
    let is = |reference: &Reference| {
        reference.files.iter().all(|(&store, bytes)| fs::read(dir.join(STORES[store].1)).ok() == *bytes)
    };
    if is(expect.new) { Some(Side::New) } else { is(expect.old).then_some(Side::Old) }
}

/// Recovers `dir` and checks everything. Returns what it was found to be.
pub fn recover_and_check(dir: &Path, expect: &Expect<'_>) -> Result<Side, String> {
    let context = store::context(dir);
    let steps = store::recover(&context, expect.stores).map_err(|error| format!("recovery failed: {error}"))?;
    let side = check(dir, expect).map_err(|problem| format!("{problem}; steps {steps:?}"))?;
    let again = store::recover(&context, expect.stores).map_err(|error| format!("second recovery failed: {error}"))?;
    if !again.is_empty() {
        return Err(format!("the second recovery still did something: {again:?}"));
    }
    Ok(side)
}

/// Checks a recovered directory.
pub fn check(dir: &Path, expect: &Expect<'_>) -> Result<Side, String> {
    let Some(side) = side_of_stores(dir, expect) else {
        let heads = expect.stores.iter().map(|&store| {
            fs::read(dir.join(STORES[store].1))
                .map(|bytes| String::from_utf8_lossy(&bytes).chars().take(110).collect::<String>())
        });
        return Err(format!("neither all old nor all new: {:?}", heads.collect::<Vec<_>>()));
    };
    if expect.must.is_some_and(|must| must != side) {
        return Err(format!("must be {:?}, is {side:?}", expect.must));
    }
    let reference = if side == Side::New { expect.new } else { expect.old };
    let manifest = without_times(data(&dir.join(MANIFEST)));
    if manifest != reference.manifest {
        return Err(format!("{side:?}, but the manifest is {manifest}"));
    }
    let receipts = without_times(data(&dir.join(RECEIPTS)));
    if receipts != reference.receipts && !(receipts == Value::Array(Vec::new()) && reference.receipts.is_null()) {
        return Err(format!("{side:?}, but the receipts are {receipts}"));
    }
    let plan = store::plan(&store::context(dir), expect.stores, true).map_err(|error| format!("no plan: {error}"))?;
    if plan != reference.plan {
        return Err(format!("{side:?}, but the plan is {plan:?}"));
    }
    no_leftovers(dir)?;
    Ok(side)
}

pub fn no_leftovers(dir: &Path) -> Result<(), String> {
    for path in walk(dir) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let in_stage = path.parent().is_some_and(|parent| parent.ends_with(".holdfast/stage"));
        if name.starts_with(".tmp.")
            || in_stage
            || name.ends_with(".quarantine")
            || path.ends_with(".holdfast/superseded")
        {
            return Err(format!("left over: {}", path.display()));
        }
    }
    Ok(())
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}
