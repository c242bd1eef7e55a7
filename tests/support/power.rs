//! Runs a scenario under the recorder, opens every state that a power cut may leave, and counts what is wrong.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use holdfast::durable::Disk;
use holdfast::durable::atomic::Durability;

use super::model::{Event, Listing, Log, Recorder, materialise};
use super::states::{Crash, MODELS, Model, crash_states};
use super::store::{context, input, scratch, write};
use super::verify::{self, Expect, Reference, Side};

/// A recorded scenario.
pub struct Recorded {
    pub name: &'static str,
    pub log: Log,
    pub stores: Vec<usize>,
    pub old: Reference,
    pub new: Reference,
    /// What each mark promises from then on.
    pub promises: Vec<(&'static str, Side)>,
    /// States before this mark are of no interest.
    pub from: Option<&'static str>,
}

/// Records `run` over what `setup` made in `<root>/rt`.
pub fn record(root: &Path, setup: impl FnOnce(&Path), run: impl FnOnce(&Arc<Recorder>, &Disk, &Path)) -> Log {
    let dir = root.join("rt");
    setup(&dir);
    let recorder = Recorder::new(root);
    run(&recorder, &Disk::intercepted(Arc::clone(&recorder) as _), &dir);
    recorder.log()
}

/// Records a batch over what `setup` left, to its acknowledgement.
pub fn batch(name: &'static str, stores: &[usize], setup: impl Fn(&Path), durability: Durability) -> Recorded {
    let root = scratch();
    let dir = root.path().join("rt");
    let mut old = None;
    let log = record(
        root.path(),
        |dir| {
            fs::create_dir_all(dir).unwrap();
            setup(dir);
            old = Some(Reference::of(dir, stores));
        },
        |recorder, disk, dir| {
            let mut context = context(dir);
            context.durability = durability;
            write(disk, &context, input("batch-2", stores)).unwrap();
            recorder.mark("acked");
        },
    );
    let new = Reference::of(&dir, stores);
    Recorded {
        name,
        log,
        stores: stores.to_vec(),
        old: old.unwrap(),
        new,
        promises: vec![("acked", Side::New)],
        from: None,
    }
}

#[derive(Debug, Default)]
pub struct Tally {
    pub states: usize,
    pub violations: Vec<String>,
    pub old: usize,
    pub new: usize,
}

/// Opens every state under `model` and runs the verifier in it.
pub fn open_all(recorded: &Recorded, log: &Log, model: Model) -> Tally {
    let scratch = scratch();
    let mut tally = Tally::default();
    let mut count = 0;
    crash_states(log, model, |crash| {
        if recorded.from.is_some() && crash.mark.is_none() {
            return;
        }
        count += 1;
        let root = scratch.path().join(count.to_string());
        match open_one(recorded, crash, &root) {
            Ok(Side::Old) => tally.old += 1,
            Ok(Side::New) => tally.new += 1,
            Err(problem) => {
                tally.violations.push(format!("{} ({}): {problem}", crash.story, crash.mark.unwrap_or("in flight")))
            }
        }
        fs::remove_dir_all(&root).unwrap();
    });
    tally.states = count;
    tally
}

fn open_one(recorded: &Recorded, crash: &Crash, root: &Path) -> Result<Side, String> {
    let must = recorded.promises.iter().find(|(mark, _)| Some(*mark) == crash.mark).map(|(_, side)| *side);
    let expect = Expect { stores: &recorded.stores, old: &recorded.old, new: &recorded.new, must };
    let dir = root.join("rt");
    let hidden = |path: &str| path.starts_with("rt/.holdfast");
    materialise(&crash.listing, root, |path| !hidden(path));
    fs::create_dir_all(&dir).unwrap();
    verify::never_a_healthy_mix(&dir, &expect)?;
    materialise(&crash.listing, root, hidden);
    verify::recover_and_check(&dir, &expect)
}

/// Opens all states under both models, prints the figures and fails on any violation.
pub fn prove(recorded: &Recorded) {
    for model in MODELS {
        let started = Instant::now();
        let tally = open_all(recorded, &recorded.log, model);
        report(recorded, model, &tally, started);
        assert!(
            tally.violations.is_empty(),
            "{}: {}",
            recorded.name,
            tally.violations.iter().take(5).cloned().collect::<Vec<_>>().join("\n")
        );
        assert!(tally.states > 10, "{}: only {} states", recorded.name, tally.states);
    }
}

pub fn report(recorded: &Recorded, model: Model, tally: &Tally, started: Instant) {
    println!(
        "{{\"test\":\"power_cut\",\"scenario\":\"{}\",\"model\":\"{model:?}\",\"changes\":{},\"states\":{},\"old\":{},\"new\":{},\"violations\":{},\"seconds\":{:.2}}}",
        recorded.name,
        recorded.log.changes(),
        tally.states,
        tally.old,
        tally.new,
        tally.violations.len(),
        started.elapsed().as_secs_f64()
    );
}

/// The log without the events that `drop` picks: a known bug, planted.
pub fn without(log: &Log, drop: impl Fn(&Event) -> bool) -> Log {
    Log { base: log.base.clone(), events: log.events.iter().filter(|event| !drop(event)).cloned().collect() }
}

/// Returns a listing of one folder of a state, for scenarios with a verifier of their own.
pub fn below(listing: &Listing, folder: &str) -> Listing {
    let inside = |path: &str| path.strip_prefix(folder).filter(|rest| !rest.is_empty()).map(str::to_owned);
    listing.iter().filter_map(|(path, bytes)| Some((inside(path)?, Arc::clone(bytes)))).collect()
}
