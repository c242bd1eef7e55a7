//! Promise: a recovery that is killed, or loses power, at any moment is simply run again, with the same result.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use support::disks::{fail_nth, gated, operations};
use support::model::{Listing, Tree, materialise};
use support::original::{self, Until};
use support::power::{below, record};
use support::states::{MODELS, crash_states};
use support::store::{MANIFEST, RECEIPTS, STORES, commit, context, recover, recover_on, scratch};

const BOTH: [usize; 2] = [0, 1];

struct Case {
    name: &'static str,
    set_up: fn(&Path),
}

fn cases() -> Vec<Case> {
    let case = |name, set_up| Case { name, set_up };
    vec![
        case("a committed batch of the original that was not applied", |dir| {
            original::batch(dir, "batch-1", &BOTH, Until::Applied);
            original::batch(dir, "batch-2", &BOTH, Until::ReceiptsCommitted);
        }),
        case("an abandoned batch of the original", |dir| {
            original::batch(dir, "batch-1", &BOTH, Until::Applied);
            original::batch(dir, "batch-2", &BOTH, Until::Marked);
        }),
        case("half a batch of the original", |dir| {
            original::batch(dir, "batch-1", &BOTH, Until::Applied);
            original::batch(dir, "batch-2", &BOTH, Until::FirstFile);
        }),
        case("an unreadable manifest", |dir| {
            for i in 0..5 {
                commit(dir, &format!("batch-{i}"), &BOTH);
            }
            // Receipts that were pruned: only the copy in the sidecar knows how many there were.
            let mut receipts = original::receipts(dir);
            receipts.as_array_mut().unwrap().drain(..3);
            original::put(&dir.join(RECEIPTS), &receipts);
            original::replace(&dir.join(MANIFEST), b"{torn");
        }),
        case("unreadable receipts", |dir| {
            commit(dir, "batch-1", &BOTH);
            original::replace(&dir.join(RECEIPTS), b"{torn");
        }),
        case("both unreadable, and a bad store", |dir| {
            commit(dir, "batch-1", &BOTH);
            commit(dir, "batch-2", &BOTH);
            for path in [RECEIPTS, MANIFEST, STORES[0].1] {
                original::replace(&dir.join(path), b"");
            }
        }),
    ]
}

/// All files but temporary ones; of the archive which lines it has, of quarantine which bytes: a copy that was torn stays
/// beside the one that was finished.
fn essence(dir: &Path) -> (Listing, BTreeSet<String>) {
    let mut listing = Tree::read(dir).listing();
    let archive = listing.remove(".holdfast/receipts.archive.jsonl").unwrap_or_default();
    let lines = String::from_utf8_lossy(&archive)
        .lines()
        .filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let quarantined = listing
        .iter()
        .filter(|(path, _)| path.ends_with(".quarantine"))
        .map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned());
    let kept = lines.into_iter().chain(quarantined).collect();
    listing.retain(|path, _| !path.contains(".tmp.") && !path.ends_with(".quarantine"));
    (listing, kept)
}

fn same(dir: &Path, wanted: &(Listing, BTreeSet<String>)) -> Result<(), String> {
    recover(&context(dir), &BOTH).map_err(|error| error.to_string())?;
    let found = essence(dir);
    if found.0 != wanted.0 || !found.1.is_superset(&wanted.1) {
        let text = |listing: &Listing| {
            listing
                .iter()
                .map(|(path, bytes)| format!("{path}: {}\n", String::from_utf8_lossy(bytes)))
                .collect::<String>()
        };
        let differs: Vec<String> = wanted
            .0
            .iter()
            .filter(|(path, bytes)| found.0.get(*path) != Some(bytes))
            .map(|(path, _)| path.clone())
            .collect();
        return Err(format!(
            "differs in {differs:?}, kept {} vs {}\nfound\n{}wanted\n{}",
            found.1.len(),
            wanted.1.len(),
            text(&found.0),
            text(&wanted.0)
        ));
    }
    let again = recover(&context(dir), &BOTH).map_err(|error| error.to_string())?;
    if again.is_empty() { Ok(()) } else { Err(format!("one more recovery did {again:?}")) }
}

#[test]
fn killed_at_every_operation() {
    let mut runs = 0;
    for case in cases() {
        let scratch = scratch();
        let template = scratch.path().join("template");
        fs::create_dir_all(&template).unwrap();
        (case.set_up)(&template);
        let listing = Tree::read(&template).listing();
        let fresh = |name: &str| {
            let dir = scratch.path().join(name);
            materialise(&listing, &dir, |_| true);
            dir
        };
        let clean = fresh("clean");
        let count = operations(|disk| drop(recover_on(&disk, &context(&clean), &BOTH).unwrap())).len();
        let wanted = essence(&clean);
        for nth in 0..count {
            for lasting in [true, false] {
                let dir = fresh(&format!("{nth}-{lasting}"));
                let _ = recover_on(&gated(fail_nth(nth, 5, lasting)), &context(&dir), &BOTH);
                same(&dir, &wanted).unwrap_or_else(|problem| {
                    panic!("{}, failed at {nth} of {count} (lasting {lasting}): {problem}", case.name)
                });
                fs::remove_dir_all(&dir).unwrap();
                runs += 1;
            }
        }
    }
    println!("{{\"test\":\"recovery_restart\",\"kills and errors\":{runs},\"violations\":0}}");
}

#[test]
fn power_cut_at_every_moment() {
    for case in cases() {
        let root = scratch();
        let log = record(
            root.path(),
            |dir| {
                fs::create_dir_all(dir).unwrap();
                (case.set_up)(dir);
            },
            |recorder, disk, dir| {
                recover_on(disk, &context(dir), &BOTH).unwrap();
                recorder.mark("recovered");
            },
        );
        let wanted = essence(&root.path().join("rt"));
        for model in MODELS {
            let scratch = scratch();
            let (mut count, mut problems) = (0, Vec::new());
            crash_states(&log, model, |crash| {
                count += 1;
                let dir = scratch.path().join(count.to_string());
                materialise(&below(&crash.listing, "rt/"), &dir, |_| true);
                if let Err(problem) = same(&dir, &wanted) {
                    problems.push(format!("{} ({:?}): {problem}", crash.story, crash.mark));
                }
                fs::remove_dir_all(&dir).unwrap();
            });
            println!(
                "{{\"test\":\"recovery_restart\",\"scenario\":\"{}\",\"model\":\"{model:?}\",\"states\":{count},\"violations\":{}}}",
                case.name,
                problems.len()
            );
            assert!(
                problems.is_empty(),
                "{}: {}",
                case.name,
                problems.iter().take(2).cloned().collect::<Vec<_>>().join("\n")
            );
        }
    }
}
