//! Promise: one owner at a time, among threads, processes and programs that know only the two lines; a dead owner never
//! blocks, a living one is never robbed.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a test")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast::clock;
use holdfast::durable::Disk;
use holdfast::durable::lock::{FileLock, Options, is_free, lock, lock_blocking, lock_path_of};
use holdfast::error::Result;
use support::store::scratch;

fn options(acquire_ms: u64, stale_ms: u64) -> Options {
    let ms = Duration::from_millis;
    Options {
        acquire_timeout: ms(acquire_ms),
        stale_timeout: ms(stale_ms),
        retry_interval: ms(20),
        ..Options::default()
    }
}

/// Takes a lock as a thread of its own would.
fn take(target: &Path, options: Options) -> Result<FileLock> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let owner = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    lock_blocking(&Disk::real(), target, Options { owner, ..options })
}

fn two_lines(path: &Path, pid: u32, stamp_ms: u64) {
    fs::File::create(path).unwrap().write_all(format!("{pid}\n{stamp_ms}\n").as_bytes()).unwrap();
}

/// Starts this test binary as another process. `order` is `<what> <target>`.
fn process(order: &str) -> Child {
    let exe = std::env::current_exe().unwrap();
    Command::new(exe)
        .args(["child", "--exact", "--nocapture"])
        .env("HOLDFAST_TEST_CHILD", order)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn child() {
    let Ok(order) = std::env::var("HOLDFAST_TEST_CHILD") else {
        return;
    };
    let (what, target) = order.split_once(' ').unwrap();
    let target = Path::new(target);
    match what {
        "contend" => contend(target),
        "hold" => {
            let _held = take(target, options(5000, 30_000)).unwrap();
            fs::File::create(target.with_extension("held")).unwrap();
            std::thread::sleep(Duration::from_secs(60));
        }
        "try" => {
            let got = take(target, options(900, 100));
            assert!(got.is_err(), "robbed a living owner");
        }
        _ => panic!("unknown order {what}"),
    }
}

const ROUNDS: usize = 150;

/// Enters and leaves; now and then a dead owner of the original takes the lock first.
fn contend(target: &Path) {
    let inside = target.with_extension("inside");
    let corpse = target.with_extension(format!("corpse-{}", std::process::id()));
    two_lines(&corpse, 9_999_999, clock::epoch_ms());
    let mut dead = 0;
    for round in 0..ROUNDS {
        if round % 2 == 0 && fs::hard_link(&corpse, lock_path_of(target)).is_ok() {
            dead += 1;
        }
        let held = take(target, options(30_000, 30_000)).unwrap();
        fs::File::create_new(&inside).expect("two are inside");
        std::thread::sleep(Duration::from_micros(100));
        fs::remove_file(&inside).unwrap();
        assert!(held.is_owned());
    }
    println!("dead owners: {dead}");
}

#[test]
fn six_processes_and_many_dead_owners() {
    let scratch = scratch();
    let target = scratch.path().join("a.json");
    let children: Vec<Child> = (0..6).map(|_| process(&format!("contend {}", target.display()))).collect();
    let mut dead = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        dead += text.lines().find_map(|line| line.split("dead owners: ").nth(1)?.parse::<usize>().ok()).unwrap_or(0);
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert!(!lock_path_of(&target).exists());
    println!("{{\"test\":\"locks\",\"critical sections\":{},\"dead owners\":{dead},\"overlaps\":0}}", 6 * ROUNDS);
    assert!(dead > 0);
}

#[test]
fn six_threads() {
    let scratch = scratch();
    let target = scratch.path().join("a.json");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| contend(&target));
        }
    });
    assert!(!lock_path_of(&target).exists());
}

#[test]
fn a_killed_process_does_not_block() {
    let scratch = scratch();
    let target = scratch.path().join("a.json");
    let mut owner = process(&format!("hold {}", target.display()));
    wait_for(&target.with_extension("held"));
    assert!(take(&target, options(50, 30_000)).is_err());
    assert!(!is_free(&lock_path_of(&target)));
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(lock_path_of(&target).exists() && is_free(&lock_path_of(&target)));
    let started = Instant::now();
    take(&target, options(5000, 30_000)).unwrap();
    assert!(started.elapsed() < Duration::from_millis(100));
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} did not appear", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_living_owner_is_never_robbed_and_looks_fresh_to_others() {
    let scratch = scratch();
    let target = scratch.path().join("a.json");
    // (Long enough that a busy machine keeps up with it.)
    let held = take(&target, options(5000, 1000)).unwrap();
    let other = process(&format!("try {}", target.display()));
    for _ in 0..60 {
        let text = fs::read_to_string(lock_path_of(&target)).unwrap();
        let stamp: u64 = text.lines().nth(1).unwrap().parse().unwrap();
        assert!(clock::epoch_ms().saturating_sub(stamp) < 1000, "the original would break it: {text}");
        std::thread::sleep(Duration::from_millis(40));
    }
    assert!(held.is_owned());
    assert!(other.wait_with_output().unwrap().status.success());
    drop(held);
    assert!(!lock_path_of(&target).exists());
}

#[test]
fn what_the_original_leaves() {
    let scratch = scratch();
    let target = scratch.path().join("a.json");
    let lock_path = lock_path_of(&target);
    // A dead pid, fresh: at once.
    two_lines(&lock_path, 9_999_999, clock::epoch_ms());
    let started = Instant::now();
    take(&target, options(5000, 30_000)).unwrap();
    assert!(started.elapsed() < Duration::from_millis(100));
    // A living one: after the time, with the text that callers match.
    two_lines(&lock_path, std::process::id(), clock::epoch_ms());
    let started = Instant::now();
    let error = take(&target, options(200, 30_000)).unwrap_err();
    assert_eq!(error.message(), format!("File lock timeout: {}", target.display()));
    assert!((200..1000).contains(&started.elapsed().as_millis()));
    // Alive but too old.
    two_lines(&lock_path, std::process::id(), clock::epoch_ms() - 40_000);
    take(&target, options(5000, 30_000)).unwrap();
    // A folder in its place, older than the limit.
    fs::create_dir(&lock_path).unwrap();
    fs::File::create(lock_path.join("x")).unwrap();
    std::thread::sleep(Duration::from_millis(60));
    take(&target, options(5000, 20)).unwrap();
    assert!(!lock_path.exists());
}

#[test]
fn four_hundred_waiters_enter_in_order() {
    let scratch = scratch();
    let target = scratch.path().join("a.json");
    let (sender, receiver) = mpsc::channel();
    let first = take(&target, options(5000, 30_000)).unwrap();
    for i in 0..400 {
        let sender = sender.clone();
        lock(
            &Disk::real(),
            &target,
            options(15_000, 30_000),
            Box::new(move |lock| sender.send((i, lock.is_ok())).unwrap()),
        );
    }
    drop(first);
    let order: Vec<(i32, bool)> = (0..400).map(|_| receiver.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
    assert_eq!(order, (0..400).map(|i| (i, true)).collect::<Vec<_>>());
}

#[test]
fn the_same_thread_is_told_at_once() {
    let scratch = scratch();
    let target = scratch.path().join("a.json");
    let own = Options { owner: 77, ..options(5000, 30_000) };
    let _held = lock_blocking(&Disk::real(), &target, own.clone()).unwrap();
    let started = Instant::now();
    let error = lock_blocking(&Disk::real(), &target, own).unwrap_err();
    assert!(error.message().starts_with("File lock timeout:") && started.elapsed() < Duration::from_millis(100));
}

#[test]
fn a_broken_lock_is_noticed_and_the_breakers_file_stays() {
    let scratch = scratch();
    let target: PathBuf = scratch.path().join("a.json");
    let lock_path = lock_path_of(&target);
    let held = take(&target, options(5000, 30_000)).unwrap();
    fs::remove_file(&lock_path).unwrap();
    assert!(!held.is_owned());
    two_lines(&lock_path, std::process::id(), clock::epoch_ms());
    assert!(!held.is_owned());
    drop(held);
    assert!(lock_path.exists(), "the release removed another owner's lock");
}
