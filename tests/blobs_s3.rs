//! Promise: blobs in S3 are whole and the first of a key wins, also where the service knows no conditional writes, and where
//! the network fails; errors tell no keys. Against a real server (see `support/s3.rs`).
#![cfg(feature = "s3")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/s3.rs"]
mod server;
#[path = "support/blobs.rs"]
mod support;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use holdfast::blobs::{BlobStore, Gate, S3Blobs, S3Options};
use holdfast::error::Code;
use server::{Deed, Server, options, proxy, start};
use support::{bytes, closes, contract, delete, get, has, keeps, list, put, race};

fn store(options: &S3Options) -> S3Blobs {
    S3Blobs::new(options).unwrap()
}

/// A store behind a proxy that judges.
fn behind(server: &Server, bucket: &str, judge: impl Fn(&str, usize) -> Deed + Send + Sync + 'static) -> S3Blobs {
    let options = server.bucket(bucket);
    let port = proxy(server.port(), Arc::new(judge));
    store(&S3Options { endpoint: Some(format!("http://127.0.0.1:{port}")), ..options })
}

#[test]
fn a_service_that_keeps_silent_does_not_hold_the_end() {
    // Connections are taken by the system, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = Gate::new(store(&S3Options {
        bucket: "b".into(),
        access_key_id: "AKID".into(),
        secret_access_key: "hunter2".into(),
        region: None,
        endpoint: Some(format!("http://{}", silent.local_addr().unwrap())),
        force_path_style: true,
        prefix: None,
    }));
    let (sender, receiver) = mpsc::channel();
    let put = sender.clone();
    store.get("k".into(), Box::new(move |end| sender.send(end.map(drop)).unwrap()));
    store.put("k".into(), vec![1], Box::new(move |end| put.send(end).unwrap()));
    let begun = Instant::now();
    support::close(&store).unwrap();
    for end in [receiver.recv().unwrap(), receiver.recv().unwrap()] {
        assert_eq!(end.unwrap_err().code(), Code::Closed);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
}

#[test]
fn a_bucket_keeps_the_contract() {
    let Some(server) = start(false) else { return };
    let options = server.bucket("contract");
    contract(&store(&options));
    contract(&store(&S3Options { prefix: Some(String::new()), ..options.clone() }));
    contract(&store(&S3Options { prefix: Some("my blobs-".into()), ..options.clone() }));
    closes(&store(&options));
    let stores: Vec<Arc<dyn BlobStore>> =
        (0..3).map(|_| Arc::new(store(&server.bucket("race"))) as Arc<dyn BlobStore>).collect();
    // The server itself looks and writes in two steps, so the winner may change until all have answered.
    race(&stores, 4, false);
}

#[test]
fn objects_have_the_names_of_the_format_and_others_are_not_listed() {
    let Some(server) = start(false) else { return };
    let options = server.bucket("names");
    let store = store(&options);
    put(&store, "sha-a", b"1").unwrap();
    assert_eq!(server.request("HEAD", "/names/script-packages/blobs/7368612d61", b""), 200);
    for name in ["7368612d6", "7368612D62", "zz", "7368612d62/7368612d63", "", "deep/er/aa"] {
        let status = server.request("PUT", &format!("/names/script-packages/blobs/{name}"), b"2");
        assert_eq!(status, 200, "{name}");
    }
    assert_eq!(server.request("PUT", "/names/script-packages/blobsx", b"2"), 200);
    assert_eq!(list(&store).unwrap(), ["sha-a"]);
    assert_eq!(get(&store, "sha-a").unwrap(), Some(b"1".into()));
    // What the service could not name is not there, and is told when it is put.
    let long = "x".repeat(502);
    assert!(!has(&store, &long).unwrap() && get(&store, &long).unwrap().is_none());
    delete(&store, &long).unwrap();
    assert_eq!(put(&store, &long, b"1").unwrap_err().code(), Code::InvalidArgument);
    put(&store, &long[..501], b"1").unwrap();
    assert_eq!(list(&store).unwrap().len(), 2);
    // A list that may lack something is no list.
    assert_eq!(server.request("PUT", "/names/script-packages/blobs/../7368612d64", b"2"), 200);
    let error = list(&store).unwrap_err();
    assert!(error.code() == Code::Io && error.message().contains("`..`"), "{error}");
}

#[test]
fn lists_of_several_pages() {
    let Some(server) = start(false) else { return };
    let pages = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pages);
    let store = Arc::new(behind(&server, "pages", move |head, _| {
        counted.fetch_add(usize::from(head.contains("list-type=2")), Ordering::SeqCst);
        Deed::Pass
    }));
    let direct = Arc::new(self::store(&options(server.port(), "pages")));
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let direct = Arc::clone(&direct);
            std::thread::spawn(move || (0..130).for_each(|n| put(&*direct, &format!("k{thread}-{n}"), b"1").unwrap()))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let found = list(&*store).unwrap();
    assert_eq!(found.len(), 8 * 130);
    assert!(found.is_sorted());
    assert_eq!(pages.load(Ordering::SeqCst), 2);
}

#[test]
fn a_put_that_took_long_and_lost_succeeds() {
    let Some(server) = start(false) else { return };
    let other = Arc::new(self::store(&server.bucket("late")));
    let between = Arc::clone(&other);
    // As with a large blob: the answer that somebody else was first comes after more time than retrying may take.
    let store = behind(&server, "late", move |head, _| {
        if head.starts_with("put") {
            put(&*between, "k", b"theirs").unwrap();
            return Deed::Late("412 Precondition Failed", Duration::from_secs(11));
        }
        Deed::Pass
    });
    put(&store, "k", b"ours").unwrap();
    assert_eq!(get(&*other, "k").unwrap(), Some(b"theirs".into()));
}

#[test]
fn puts_are_conditional_where_the_service_can() {
    let Some(server) = start(false) else { return };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let diary = Arc::clone(&seen);
    let other = Arc::new(self::store(&server.bucket("condition")));
    let first = AtomicBool::new(true);
    let between = Arc::clone(&other);
    // Somebody else puts between our look and our PUT.
    let store = behind(&server, "condition", move |head, _| {
        let method = head.split(' ').next().unwrap().to_owned();
        if method == "put" && first.swap(false, Ordering::SeqCst) {
            put(&*between, "k", b"theirs").unwrap();
        }
        diary.lock().unwrap().push((method, head.contains("\r\nif-none-match: *\r\n")));
        Deed::Pass
    });
    put(&store, "k", b"ours").unwrap();
    assert_eq!(get(&*other, "k").unwrap(), Some(b"theirs".into()));
    let seen = seen.lock().unwrap();
    let step = |method: &str, conditional| (method.to_owned(), conditional);
    assert_eq!(*seen, [step("head", false), step("put", true), step("head", false)]);
}

#[test]
fn a_service_without_conditional_writes_gets_plain_ones() {
    let Some(server) = start(false) else { return };
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let store = behind(&server, "plain", move |head, _| {
        if head.contains("\r\nif-none-match: ") {
            count.fetch_add(1, Ordering::SeqCst);
            return Deed::Answer("501 Not Implemented");
        }
        Deed::Pass
    });
    put(&store, "k", b"1").unwrap();
    let before = refused.load(Ordering::SeqCst);
    assert!(before > 0);
    put(&store, "k", b"2").unwrap();
    put(&store, "l", b"3").unwrap();
    assert_eq!(get(&store, "k").unwrap(), Some(b"1".into()));
    assert_eq!(list(&store).unwrap(), ["k", "l"]);
    assert_eq!(refused.load(Ordering::SeqCst), before, "asked once only");
}

#[test]
fn lost_answers_and_conflicts_do_no_harm() {
    let Some(server) = start(false) else { return };
    // Somebody else is writing it now, says the service; no answer comes; its end does not come.
    for bucket in ["conflict", "lost", "torn"] {
        let deed = move || match bucket {
            "conflict" => Deed::Answer("409 Conflict"),
            "lost" => Deed::Lose,
            _ => Deed::Cut(3),
        };
        let first = AtomicBool::new(true);
        let store = behind(&server, bucket, move |head, _| {
            if head.starts_with("put ") && first.swap(false, Ordering::SeqCst) { deed() } else { Deed::Pass }
        });
        put(&store, "k", b"1").unwrap();
        assert_eq!(get(&store, "k").unwrap(), Some(b"1".into()), "{bucket}");
    }
}

#[test]
fn a_put_whose_answers_are_all_lost_looks_again() {
    let Some(server) = start(false) else { return };
    let puts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&puts);
    // The client gives up; the object is there since its first try.
    let store = behind(&server, "silent", move |head, _| {
        if head.starts_with("put ") {
            count.fetch_add(1, Ordering::SeqCst);
            return Deed::Lose;
        }
        Deed::Pass
    });
    put(&store, "k", b"1").unwrap();
    assert!(puts.load(Ordering::SeqCst) >= 1);
    assert_eq!(get(&store, "k").unwrap(), Some(b"1".into()));
}

#[test]
fn a_body_that_breaks_off_is_never_taken_for_the_blob() {
    let Some(server) = start(false) else { return };
    let blob = bytes(3, 300_000);
    for (times, bucket) in [(1, "cut-once"), (usize::MAX, "cut-always")] {
        let left = AtomicUsize::new(times);
        let store = behind(&server, bucket, move |head, _| {
            let cut = head.starts_with("get ")
                && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if cut { Deed::Cut(1) } else { Deed::Pass }
        });
        put(&store, "k", &blob).unwrap();
        match get(&store, "k") {
            Ok(found) => assert!(times == 1 && found == Some(blob.clone()), "in part"),
            Err(error) => assert!(times > 1 && error.code() == Code::Unavailable, "{error}"),
        }
    }
}

#[test]
fn errors_say_what_is_wrong_and_no_secret() {
    let Some(server) = start(true) else { return };
    let allowed = server.bucket("first");
    let refused = store(&allowed);
    for error in [
        put(&refused, "k", b"1").unwrap_err(),
        get(&refused, "k").unwrap_err(),
        has(&refused, "k").unwrap_err(),
        delete(&refused, "k").unwrap_err(),
        list(&refused).unwrap_err(),
    ] {
        assert_eq!((error.code(), &error.fields()["status"]), (Code::Io, &403.into()), "{error}");
        assert!(error.message().contains("the bucket first at 127.0.0.1"), "{error}");
        keeps("hunter2", &error);
        keeps("AKIATESTER", &error);
    }

    let Some(server) = start(false) else { return };
    let nowhere = store(&options(server.port(), "missing"));
    for error in [
        put(&nowhere, "k", b"1").unwrap_err(),
        get(&nowhere, "k").unwrap_err(),
        delete(&nowhere, "k").unwrap_err(),
        list(&nowhere).unwrap_err(),
    ] {
        assert_eq!((error.code(), &error.fields()["s3Code"]), (Code::Io, &"NoSuchBucket".into()), "{error}");
        keeps("hunter2", &error);
    }

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = get(&store(&options(port, "gone")), "k").unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("onnection refused"), "{error}");
    keeps("hunter2", &error);
    keeps("AKIATESTER", &error);
}
