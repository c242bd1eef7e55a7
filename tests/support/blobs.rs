//! What every blob store must do, whatever it keeps its blobs in.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use holdfast::blobs::{BlobStore, Done};
use holdfast::error::{Code, HfError, Result};

/// Calls and waits.
pub fn call<T: Send + 'static>(begin: impl FnOnce(Done<T>)) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    begin(Box::new(move |result| drop(sender.send(result))));
    receiver.recv_timeout(Duration::from_secs(60)).expect("the store calls back")
}

pub fn put(store: &dyn BlobStore, integrity: &str, bytes: &[u8]) -> Result<()> {
    call(|done| store.put(integrity.into(), bytes.into(), done))
}

pub fn get(store: &dyn BlobStore, integrity: &str) -> Result<Option<Vec<u8>>> {
    call(|done| store.get(integrity.into(), done))
}

pub fn has(store: &dyn BlobStore, integrity: &str) -> Result<bool> {
    call(|done| store.has(integrity.into(), done))
}

pub fn delete(store: &dyn BlobStore, integrity: &str) -> Result<()> {
    call(|done| store.delete(integrity.into(), done))
}

pub fn list(store: &dyn BlobStore) -> Result<Vec<String>> {
    call(|done| store.list(done))
}

pub fn close(store: &dyn BlobStore) -> Result<()> {
    call(|done| store.close(done))
}

/// Nothing of `error` tells the secret.
pub fn keeps(secret: &str, error: &HfError) {
    let all = format!("{error:?} {error} {:?}", error.fields());
    assert!(!all.contains(secret), "{all}");
}

/// Bytes that tell `seed` from others at every place.
pub fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|place| (place as u64).wrapping_mul(0x9e37_79b9).to_le_bytes()[1] ^ seed).collect()
}

/// Keys that are hard to store.
pub fn hard_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "sha-a",
        "sha512-/+/+aB==",
        "..",
        "../../etc/passwd",
        "a/b/../c",
        "%2e%2e%2f",
        "C:\\evil",
        "con",
        " ",
        "'; DROP TABLE blobs; --",
        "sha512-ä 日本 \u{1f600}",
        "b3-0000000000000000000000000000000000000000000000000000000000000000.key",
        ".tmp.1",
        "7368612d61",
        "A",
        "a",
    ]
    .map(str::to_owned)
    .into();
    keys.push(format!("sha512-{}==", "a+/".repeat(97)));
    assert_eq!(keys.last().unwrap().len(), 300);
    keys.push(format!("sha512-{}==", "b+/".repeat(97)));
    keys
}

/// The contract of one store that is empty.
pub fn contract(store: &dyn BlobStore) {
    assert_eq!(list(store).unwrap(), Vec::<String>::new());
    let mut keys = hard_keys();
    for (seed, key) in (0u8..).zip(&keys) {
        assert!(!has(store, key).unwrap());
        assert_eq!(get(store, key).unwrap(), None);
        delete(store, key).unwrap();
        put(store, key, &bytes(seed, 1000)).unwrap();
    }
    for (seed, key) in (0u8..).zip(&keys) {
        assert!(has(store, key).unwrap(), "{key}");
        assert_eq!(get(store, key).unwrap(), Some(bytes(seed, 1000)), "{key}");
        // The first wins.
        put(store, key, b"other").unwrap();
        put(store, key, &bytes(seed, 1000)).unwrap();
        assert_eq!(get(store, key).unwrap(), Some(bytes(seed, 1000)), "{key}");
    }
    keys.sort_unstable();
    assert_eq!(list(store).unwrap(), keys);
    for key in &keys {
        delete(store, key).unwrap();
        delete(store, key).unwrap();
        assert!(!has(store, key).unwrap(), "{key}");
        assert_eq!(get(store, key).unwrap(), None, "{key}");
    }
    assert_eq!(list(store).unwrap(), Vec::<String>::new());

    // After a delete the next one is the first.
    put(store, "again", b"1").unwrap();
    delete(store, "again").unwrap();
    put(store, "again", b"2").unwrap();
    assert_eq!(get(store, "again").unwrap(), Some(b"2".into()));
    delete(store, "again").unwrap();

    // No bytes are bytes too, and so are many.
    let large = bytes(7, 9_000_001);
    put(store, "empty", b"").unwrap();
    put(store, "large", &large).unwrap();
    assert_eq!(get(store, "empty").unwrap(), Some(Vec::new()));
    assert!(get(store, "large").unwrap() == Some(large), "the large blob changed");
    delete(store, "empty").unwrap();
    delete(store, "large").unwrap();

    for error in [
        put(store, "", b"1").unwrap_err(),
        get(store, "").unwrap_err(),
        has(store, "").unwrap_err(),
        delete(store, "").unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
}

/// Eight threads put one key with different bytes, each through a store of its own (`stores` may repeat one): all succeed,
/// and one blob is there, whole. Where `at_once`, what anybody reads in between is that blob already.
pub fn race(stores: &[Arc<dyn BlobStore>], rounds: u32, at_once: bool) {
    for round in 0..rounds {
        let key = format!("{}{round}", "race/".repeat(if round % 2 == 0 { 1 } else { 50 }));
        let barrier = Arc::new(Barrier::new(8));
        let threads: Vec<_> = (0..8u8)
            .map(|seed| {
                let (store, barrier, key) =
                    (Arc::clone(&stores[usize::from(seed) % stores.len()]), Arc::clone(&barrier), key.clone());
                thread::spawn(move || {
                    let own = bytes(seed, 200_000 + usize::from(seed));
                    barrier.wait();
                    if seed % 2 == 1 {
                        // Readers meanwhile see nothing or all of it.
                        if let Some(read) = get(&*store, &key).unwrap() {
                            assert!((0..8u8).any(|seed| read == bytes(seed, 200_000 + usize::from(seed))), "in part");
                        }
                    }
                    put(&*store, &key, &own).unwrap();
                    get(&*store, &key).unwrap().expect("it is there after the put")
                })
            })
            .collect();
        let read: Vec<Vec<u8>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let winner = get(&*stores[0], &key).unwrap().unwrap();
        assert!((0..8u8).any(|seed| winner == bytes(seed, 200_000 + usize::from(seed))), "no whole blob");
        if at_once {
            assert!(read.iter().all(|read| *read == winner), "the winner changed");
        }
        assert_eq!(list(&*stores[0]).unwrap(), [key.as_str()]);
        delete(&*stores[0], &key).unwrap();
    }
}

/// After `close` every call says so, and closing again is fine.
pub fn closes(store: &dyn BlobStore) {
    put(store, "k", b"1").unwrap();
    close(store).unwrap();
    close(store).unwrap();
    assert_eq!(put(store, "k", b"1").unwrap_err().code(), Code::Closed);
    assert_eq!(get(store, "k").unwrap_err().code(), Code::Closed);
    assert_eq!(has(store, "k").unwrap_err().code(), Code::Closed);
    assert_eq!(delete(store, "k").unwrap_err().code(), Code::Closed);
    assert_eq!(list(store).unwrap_err().code(), Code::Closed);
}
