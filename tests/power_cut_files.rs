//! Promise: a power cut loses no record that retention archives, no acknowledged file, and makes no mix look healthy.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod support;

use std::fs;
use std::path::Path;

use holdfast::durable::Disk;
use holdfast::durable::atomic::{Durability, replace};
use holdfast::durable::lock::{Options, lock_blocking};
use holdfast::runtime_store::single;
use support::model::materialise;
use support::power::{batch, below, record};
use support::states::{MODELS, Model, crash_states};
use support::store::{commit, context, input, scratch, write};
use support::verify::Reference;

/// Without the sidecar only the original's rules are left: a mix may stay, but nobody calls it healthy.
#[test]
fn a_mix_is_never_called_healthy_even_without_the_sidecar() {
    let recorded = batch("sidecar lost", &[0, 1], |dir| commit(dir, "batch-1", &[0, 1]), Durability::Full);
    for model in MODELS {
        let scratch = scratch();
        let (mut count, mut problems) = (0, Vec::new());
        crash_states(&recorded.log, model, |crash| {
            count += 1;
            let dir = scratch.path().join(count.to_string());
            materialise(&below(&crash.listing, "rt/"), &dir, |path| !path.starts_with(".holdfast"));
            support::store::recover(&context(&dir), &[0, 1]).unwrap();
            let is = |reference: &Reference| {
                reference
                    .files
                    .iter()
                    .all(|(&store, bytes)| fs::read(dir.join(support::store::STORES[store].1)).ok() == *bytes)
            };
            let healthy = support::store::plan(&context(&dir), &[0, 1], true).unwrap().manifest_healthy;
            if healthy && !is(&recorded.old) && !is(&recorded.new) {
                problems.push(crash.story.clone());
            }
            fs::remove_dir_all(&dir).unwrap();
        });
        println!(
            "{{\"test\":\"power_cut\",\"scenario\":\"sidecar lost\",\"model\":\"{model:?}\",\"states\":{count},\"violations\":{}}}",
            problems.len()
        );
        assert!(problems.is_empty(), "{} mixes: {:?}", problems.len(), problems.iter().take(5).collect::<Vec<_>>());
    }
}

#[test]
fn retention_loses_no_record() {
    let stores = [0, 1];
    let root = scratch();
    let log = record(
        root.path(),
        |dir| {
            fs::create_dir_all(dir).unwrap();
            for i in 0..4 {
                commit(dir, &format!("old-{i}"), &stores);
            }
        },
        |recorder, disk, dir| {
            for name in ["batch-1", "batch-2"] {
                let mut input = input(name, &stores);
                input.retention = Some(2);
                write(disk, &context(dir), input).unwrap();
                recorder.mark(name);
            }
        },
    );
    for model in MODELS {
        let scratch = scratch();
        let mut count = 0;
        let states = crash_states(&log, model, |crash| {
            count += 1;
            let dir = scratch.path().join(count.to_string());
            materialise(&below(&crash.listing, "rt/"), &dir, |_| true);
            support::store::recover(&context(&dir), &stores).unwrap();
            // Another archiving must find a clean end of the file.
            let mut next = input("batch-3", &stores);
            next.retention = Some(1);
            write(&Disk::real(), &context(&dir), next).unwrap();
            let known = known_batches(&dir);
            let done = match crash.mark {
                None => 0,
                Some("batch-1") => 1,
                Some(_) => 2,
            };
            let wanted = ["old-0", "old-1", "old-2", "old-3", "batch-3"]
                .into_iter()
                .chain(["batch-1", "batch-2"].into_iter().take(done));
            for id in wanted {
                assert!(
                    known.iter().any(|known| known == id),
                    "{}: lost the record of {id}, have {known:?}",
                    crash.story
                );
            }
            fs::remove_dir_all(&dir).unwrap();
        });
        println!(
            "{{\"test\":\"power_cut\",\"scenario\":\"retention\",\"model\":\"{model:?}\",\"states\":{states},\"violations\":0}}"
        );
    }
}

/// Ids in the receipts and in the archive, whose lines must all be readable but for one torn at its end.
fn known_batches(dir: &Path) -> Vec<String> {
    let receipts = support::verify::data(&dir.join(support::store::RECEIPTS));
    let id = |record: &serde_json::Value| record["batchId"].as_str().map(str::to_owned);
    let mut known: Vec<String> = receipts.as_array().unwrap().iter().filter_map(id).collect();
    let archive = fs::read(dir.join(".holdfast/receipts.archive.jsonl")).unwrap_or_default();
    let lines =
        archive.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    known.extend(lines.filter_map(|record| id(&record)));
    known
}

#[test]
fn single_files_are_old_or_new() {
    for (name, replaces) in [("replace a file", true), ("create a file in a new folder", false)] {
        for locked in [false, true] {
            let root = scratch();
            let log = record(
                root.path(),
                |dir| {
                    if replaces {
                        replace(&Disk::real(), &dir.join("deep/a.json"), &[b'o'; 1500], None, Durability::Full)
                            .unwrap();
                    }
                },
                |recorder, disk, dir| {
                    let path = dir.join("deep/a.json");
                    if locked {
                        let lock = lock_blocking(disk, &path, Options::default()).unwrap();
                        single::replace_locked(disk, &path, &[b'n'; 2000], &lock, None, Durability::Full).unwrap();
                    } else {
                        replace(disk, &path, &[b'n'; 2000], None, Durability::Full).unwrap();
                    }
                    recorder.mark("acked");
                },
            );
            for model in MODELS {
                // The lock makes the folder before the write can know of it: the disk that promises least may lose its name.
                if locked && !replaces && model == Model::Strict {
                    continue;
                }
                let mut violations = Vec::new();
                let check = |crash: &support::states::Crash| {
                    let found = crash.listing.get("rt/deep/a.json").map(|bytes| bytes.as_slice());
                    let whole = found == Some(&[b'n'; 2000])
                        || (crash.mark.is_none()
                            && if replaces { found == Some(&[b'o'; 1500]) } else { found.is_none() });
                    if !whole {
                        violations.push(crash.story.clone());
                    }
                };
                let states = crash_states(&log, model, check);
                println!(
                    "{{\"test\":\"power_cut\",\"scenario\":\"{name}, locked {locked}\",\"model\":\"{model:?}\",\"states\":{states},\"violations\":{}}}",
                    violations.len()
                );
                assert_eq!(violations, Vec::<String>::new(), "{name}, locked {locked}");
            }
        }
    }
}

/// The process remembers which sidecars it synced: the number of a removed one may come back with the next folder made.
#[test]
fn a_sidecar_made_anew_by_others_is_synced_again() {
    // On a real file system, where inode numbers are used again.
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("rt");
    fs::create_dir(&dir).unwrap();
    commit(&dir, "batch-1", &[0]);
    let stage = dir.join(".holdfast/stage");
    fs::remove_dir_all(dir.join(".holdfast")).unwrap();
    fs::create_dir_all(&stage).unwrap();
    let operations =
        support::disks::operations(|disk| drop(write(&disk, &context(&dir), input("batch-2", &[0])).unwrap()));
    let first_rename = operations.iter().position(|operation| operation.starts_with("Rename")).unwrap();
    let synced = operations[..first_rename]
        .iter()
        .any(|operation| operation.starts_with("SyncDir") && operation.ends_with(".holdfast\")"));
    assert!(synced, "{operations:#?}");
}
