//! The tests of the tests: planted bugs must be caught, and every single sync of a batch must carry weight.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod support;

use std::path::Path;
use std::time::Instant;

use holdfast::durable::atomic::Durability;
use support::model::Event;
use support::power::{Recorded, batch, open_all, report, without};
use support::states::{MODELS, Model};
use support::store::commit;

/// The net itself: planted bugs must be caught (T16).
#[test]
fn planted_bugs_are_caught() {
    let healthy = |dir: &Path| commit(dir, "batch-1", &[0, 1]);
    let sound = batch("sound", &[0, 1], healthy, Durability::Full);
    let unsynced = batch("no barriers at all", &[0, 1], healthy, Durability::Process);
    let ack_at = |log: &support::model::Log| {
        let mut early = without(log, |event| matches!(event, Event::Mark(_)));
        let second = early.events.iter().position(|event| matches!(event, Event::SyncDir(_))).unwrap();
        early.events.insert(second, Event::Mark("acked"));
        early
    };
    let planted = [
        ("no barriers at all", unsynced.log.clone(), &unsynced),
        ("no folder is synced", without(&sound.log, |event| matches!(event, Event::SyncDir(_))), &sound),
        ("no file is synced", without(&sound.log, |event| matches!(event, Event::SyncFile(_))), &sound),
        ("acknowledged before the second barrier", ack_at(&sound.log), &sound),
    ];
    for (name, log, recorded) in planted {
        let mut caught = 0;
        for model in MODELS {
            let started = Instant::now();
            let tally = open_all(recorded, &log, model);
            report(&Recorded { name, log: log.clone(), ..copy(recorded) }, model, &tally, started);
            caught += tally.violations.len();
            if name == "no barriers at all" {
                assert!(!tally.violations.is_empty(), "{name} under {model:?}");
            }
        }
        assert!(caught > 0, "{name}: nobody noticed");
    }
    // Which syncs carry weight: without any one of the folders' or files' syncs something must break under the strict model.
    let small = batch("one store", &[0], |dir| commit(dir, "batch-1", &[0]), Durability::Full);
    let syncs: Vec<usize> = (0..small.log.events.len())
        .filter(|&i| matches!(small.log.events[i], Event::SyncDir(_) | Event::SyncFile(_)))
        .collect();
    let mut idle = Vec::new();
    for &i in &syncs {
        let mut log = small.log.clone();
        let dropped = log.events.remove(i);
        if open_all(&small, &log, Model::Strict).violations.is_empty() {
            idle.push(dropped);
        }
    }
    println!(
        "{{\"test\":\"power_cut\",\"scenario\":\"single syncs left out\",\"syncs\":{},\"missed\":\"{idle:?}\"}}",
        syncs.len()
    );
    assert!(idle.is_empty(), "{} of {} syncs could go unnoticed: {idle:?}", idle.len(), syncs.len());
}

fn copy(recorded: &Recorded) -> Recorded {
    Recorded {
        name: recorded.name,
        log: recorded.log.clone(),
        stores: recorded.stores.clone(),
        old: recorded.old.clone(),
        new: recorded.new.clone(),
        promises: recorded.promises.clone(),
        from: recorded.from,
    }
}
