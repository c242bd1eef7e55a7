//! Promise: when the disk fails, nobody is told "ok" about what is not there. A failed sync or write poisons the handle and a
//! new opening works; a full disk only fails the jobs concerned, and the same handle works again when there is room.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

#[path = "support/sqlite.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast::error::Code;
use holdfast::sqlite::{Database, Synchronous, Target};
use support::{Said, close, load, open, options, order, present, shim, start, write};

#[test]
fn child() {
    let Some(order) = order() else { return };
    let target = Target::File(PathBuf::from(&order[1]));
    let synchronous = if order[2] == "full" { Synchronous::Full } else { Synchronous::Normal };
    let say = |what: &str, error: Option<holdfast::error::HfError>| {
        let sync = error.as_ref().is_some_and(holdfast::error::HfError::is_sync_failure);
        println!("{what} {} {sync}", error.map_or("ok", |error| error.code().as_str()));
    };
    match Database::open(&target, options(synchronous)) {
        Err(error) => say("open", Some(error)),
        Ok(database) => {
            fs::write(&order[3], "").unwrap();
            load(&database, 1, 3, 0, 48, order[4].parse().unwrap());
            println!("poisoned {}", database.is_poisoned());
            say("close", close(&database).err());
        }
    }
    let _ = fs::remove_file(&order[3]);
    // The fault has passed: a new opening must work, whatever state the first was in.
    let database = Database::open(&target, options(synchronous)).unwrap();
    write(&database, 2, 0, 10).unwrap();
    close(&database).unwrap();
    println!("again ok");
}

struct Lab {
    scratch: tempfile::TempDir,
    shim: PathBuf,
}

struct Outcome {
    said: Said,
    count: usize,
    path: PathBuf,
}

impl Lab {
    fn new() -> Option<Self> {
        let scratch = tempfile::tempdir().unwrap();
        let shim = shim(scratch.path())?;
        Some(Self { scratch, shim })
    }

    /// Runs the child on a new file; `fault` are further settings of the shim.
    fn run(&self, name: &str, mode: &str, fault: &[(&str, &str)]) -> Outcome {
        let folder = self.scratch.path().join(name);
        fs::create_dir(&folder).unwrap();
        let (path, counter, armed) = (folder.join("db.sqlite"), folder.join("count"), folder.join("opened"));
        let mut environment =
            vec![("LD_PRELOAD", self.shim.to_str().unwrap()), ("HOLDFAST_SHIM_COUNT", counter.to_str().unwrap())];
        if !fault.iter().any(|(key, _)| *key == "FROM_THE_START") {
            environment.push(("HOLDFAST_SHIM_ARM", armed.to_str().unwrap()));
        }
        environment.extend(fault);
        // For checkpoints more than the log may hold, so that it is written back on the way.
        let bytes = if name.starts_with("checkpoint") { "120000" } else { "30000" };
        let said = start(&["run", path.to_str().unwrap(), mode, armed.to_str().unwrap(), bytes], &environment).rest();
        let count = fs::read_to_string(&counter).map_or(0, |count| count.trim().parse().unwrap());
        Outcome { said, count, path }
    }
}

impl Outcome {
    fn heard(&self, line: &str) -> bool {
        self.said.other.iter().any(|said| said == line)
    }

    /// What must hold whatever happened.
    fn check(&self, story: &str) {
        let there = present(&self.path, 1);
        let lost: Vec<_> = self.said.acks.difference(&there).collect();
        assert!(lost.is_empty(), "{story}: told ok and lost {lost:?}");
        let opened = !self.said.other.iter().any(|line| line.starts_with("open "));
        assert_eq!(
            self.said.acks.len() + self.said.fails.len(),
            if opened { 48 } else { 0 },
            "{story}: {:?}",
            self.said
        );
        assert!(self.heard("again ok"), "{story}: cannot be opened again: {:?}", self.said);
        assert!(present(&self.path, 2).contains(&0), "{story}");
    }

    /// Somebody was told.
    fn noticed(&self) -> bool {
        !self.said.fails.is_empty()
            || self.heard("poisoned true")
            || self
                .said
                .other
                .iter()
                .any(|line| (line.starts_with("close ") || line.starts_with("open ")) && !line.contains(" ok "))
    }
}

/// Lets each operation of a kind fail once, or a sample of them.
fn each(lab: &Lab, story: &str, mode: &str, fault: &[(&str, &str)], most: usize, check: impl Fn(&str, &Outcome)) {
    let count = lab.run(&format!("{story}-count"), mode, fault).count;
    assert!(count > 0, "{story}: the shim sees nothing");
    let stride = count.div_ceil(most);
    let mut runs = 0;
    for nth in (1..=count).step_by(stride) {
        let text = nth.to_string();
        let fault: Vec<_> = fault.iter().copied().chain([("HOLDFAST_SHIM_NTH", text.as_str())]).collect();
        let name = format!("{story}-{nth}");
        let outcome = lab.run(&name, mode, &fault);
        if outcome.count >= nth {
            runs += 1;
            outcome.check(&name);
            check(&name, &outcome);
        }
    }
    println!(
        "{{\"test\":\"sqlite_faults\",\"story\":\"{story}\",\"operations\":{count},\"runs\":{runs},\"violations\":0}}"
    );
    assert!(runs > 0, "{story}");
}

const ACTION: &str = "HOLDFAST_SHIM_ACTION";
const OPS: &str = "HOLDFAST_SHIM_OPS";
const END: &str = "HOLDFAST_SHIM_END";

#[test]
fn a_failed_sync_of_the_log_poisons() {
    let Some(lab) = Lab::new() else { return };
    for (errno, name) in [("5", "sync-log-eio"), ("28", "sync-log-enospc")] {
        let fault = [(OPS, "sync"), (END, ".sqlite-wal"), (ACTION, errno)];
        each(&lab, name, "full", &fault, 12, |story, outcome| {
            assert!(outcome.noticed(), "{story}: a failed sync was swallowed: {:?}", outcome.said);
            if let Some((_, first)) = outcome.said.fails.first_key_value() {
                // The failure itself, or, if it came in a checkpoint, what follows from it.
                assert!([Code::Io, Code::Poisoned].map(Code::as_str).contains(&first.as_str()), "{story}: {first}");
                assert!(outcome.heard("poisoned true"), "{story}: {:?}", outcome.said);
            }
        });
    }
}

#[test]
fn a_failed_sync_in_a_checkpoint_poisons() {
    let Some(lab) = Lab::new() else { return };
    for (mode, end) in [("full", ".sqlite"), ("normal", ".sqlite"), ("normal", ".sqlite-wal")] {
        let fault = [(OPS, "sync"), (END, end), (ACTION, "5")];
        each(&lab, &format!("checkpoint-{mode}{end}"), mode, &fault, 8, |story, outcome| {
            assert!(outcome.noticed(), "{story}: a failed sync was swallowed: {:?}", outcome.said);
        });
    }
}

#[test]
fn failed_and_short_writes() {
    let Some(lab) = Lab::new() else { return };
    let eio = [(OPS, "write,truncate"), (END, ".sqlite-wal"), (ACTION, "5")];
    each(&lab, "write-eio", "full", &eio, 12, |story, outcome| {
        assert!(outcome.noticed(), "{story}: {:?}", outcome.said);
    });
    let full = [(OPS, "write"), (END, ".sqlite-wal"), (ACTION, "28")];
    each(&lab, "write-enospc", "full", &full, 12, |story, outcome| {
        assert!(outcome.heard("poisoned false"), "{story}: {:?}", outcome.said);
        assert!(outcome.said.fails.values().all(|code| code == Code::DiskFull.as_str()), "{story}: {:?}", outcome.said);
    });
    let short = [(OPS, "write"), (END, ".sqlite-wal"), (ACTION, "short")];
    each(&lab, "write-short", "full", &short, 6, |story, outcome| {
        assert_eq!(outcome.said.acks.len(), 48, "{story}: {:?}", outcome.said);
    });
}

#[test]
fn opening_on_a_failing_disk_says_so_and_can_be_repeated() {
    let Some(lab) = Lab::new() else { return };
    let fault =
        [(OPS, "sync,write,truncate"), ("FROM_THE_START", "1"), ("HOLDFAST_SHIM_PATH", "db.sqlite"), (ACTION, "5")];
    let mut refused = 0;
    for nth in 1..=40 {
        let text = nth.to_string();
        let fault: Vec<_> = fault.iter().copied().chain([("HOLDFAST_SHIM_NTH", text.as_str())]).collect();
        let outcome = lab.run(&format!("open-{nth}"), "full", &fault);
        outcome.check(&format!("open-{nth}"));
        refused += usize::from(outcome.said.other.iter().any(|line| line.starts_with("open HF_IO")));
    }
    // The folder's own sync, which SQLite does not look at and we do.
    let folder = [
        (OPS, "sync"),
        ("FROM_THE_START", "1"),
        (END, "/open-folder"),
        (ACTION, "5"),
        ("HOLDFAST_SHIM_NTH", "1"),
        ("HOLDFAST_SHIM_LASTING", "1"),
    ];
    let outcome = lab.run("open-folder", "full", &folder);
    assert!(outcome.heard("open HF_IO true"), "{:?}", outcome.said);
    println!("{{\"test\":\"sqlite_faults\",\"story\":\"open\",\"runs\":40,\"refused\":{refused},\"violations\":0}}");
    assert!(refused > 3, "{refused} refused");
}

#[test]
fn a_quota_that_is_used_up_is_a_full_disk() {
    let Some(lab) = Lab::new() else { return };
    // EDQUOT for the log and for everything else that is written beside it, some twenty times.
    let fault = [(OPS, "write"), ("HOLDFAST_SHIM_PATH", "/quota/"), (ACTION, "122"), ("HOLDFAST_SHIM_NTH", "30")];
    let lasting: Vec<_> = fault.iter().copied().chain([("HOLDFAST_SHIM_LASTING", "1")]).collect();
    let outcome = lab.run("quota", "full", &lasting);
    assert!(outcome.heard("poisoned false"), "{:?}", outcome.said);
    assert!(outcome.said.fails.len() > 10, "{:?}", outcome.said);
    assert!(outcome.said.fails.values().all(|code| code == Code::DiskFull.as_str()), "{:?}", outcome.said);
}

/// A small file system of its own, unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, bytes: usize) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            Some(Self(at.to_owned()))
        } else {
            println!("SKIPPED: needs to mount a tmpfs");
            None
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_fails_what_does_not_fit_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(&scratch.path().join("small"), 4 << 20) else { return };
    let path = small.0.join("db.sqlite");
    let ballast = small.0.join("ballast");
    let mut full = 0;
    // From nothing to 40 blocks left.
    for blocks in 0..=40_usize {
        let database = open(&path);
        let first = blocks as i64 * 1_000;
        write(&database, 1, first, 1_000).unwrap();
        let free = rustix::fs::statvfs(&small.0).map(|stat| stat.f_bavail * stat.f_frsize).unwrap() as usize;
        fs::write(&ballast, vec![0; free - blocks * 4096]).unwrap();
        // Until it is full.
        let mut refused = None;
        for n in 1..=200 {
            match write(&database, 1, first + n, 3_000) {
                Ok(()) => assert!(refused.is_none(), "room came from nowhere"),
                Err(error) => {
                    assert_eq!(error.code(), Code::DiskFull, "{blocks} blocks: {error}");
                    refused = Some(n);
                    break;
                }
            }
        }
        full += usize::from(refused.is_some());
        assert!(!database.is_poisoned());
        let before =
            database.read(|db| Ok(db.query_row("SELECT count(*) FROM parts", [], |row| row.get::<_, i64>(0)).unwrap()));
        assert_eq!(before.unwrap() % 3, 0);
        fs::remove_file(&ballast).unwrap();
        // The same handle, once there is room.
        write(&database, 1, first + 900, 3_000).unwrap();
        assert!(database.check().unwrap().is_empty());
        close(&database).unwrap();
        let there = present(&path, 1);
        let refused = refused.unwrap_or(201);
        assert!(
            (first..first + refused).all(|n| there.contains(&n)) && there.contains(&(first + 900)),
            "{blocks} blocks"
        );
        assert!(!there.contains(&(first + refused)), "{blocks} blocks: it was refused");
        let left: Vec<_> = fs::read_dir(&small.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["db.sqlite"]);
        // Room for the next round.
        rusqlite::Connection::open(&path).unwrap().execute_batch("DELETE FROM parts; VACUUM").unwrap();
    }
    println!("{{\"test\":\"sqlite_faults\",\"story\":\"full disk\",\"sizes\":41,\"full\":{full},\"violations\":0}}");
    assert!(full >= 40, "{full} of 41 were full");
}
