//! Promise: whatever a killed process was told of is there, and no turn is there in part: its node, its checkpoint, its usage, and the
//! work that it completed. What is told has been synced before.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

#[path = "support/sqlite.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use holdfast::session_graph::backend::{Config, Reply, Store, Synchronous};
use serde_json::{Value, json};
use support::{Random, Said, WAIT, order, shim, start};

const OPS: &str = "HOLDFAST_SHIM_OPS";
const END: &str = "HOLDFAST_SHIM_END";
const NTH: &str = "HOLDFAST_SHIM_NTH";
const ACTION: &str = "HOLDFAST_SHIM_ACTION";
const COUNT: &str = "HOLDFAST_SHIM_COUNT";

fn open(path: &Path, synchronous: Synchronous) -> Store {
    Store::open(&Config { path: Some(path.to_owned()), synchronous, ..Config::default() }).unwrap()
}

/// Hands a command in; its answer comes later.
fn hand_in(store: &Store, command: &Value, bytes: &[&[u8]]) -> Receiver<Result<String, String>> {
    let (tell, told) = channel();
    let bytes = bytes.iter().map(|bytes| bytes.to_vec()).collect();
    let done = move |outcome: holdfast::error::Result<String>| {
        let _ = tell.send(outcome.map_err(|error| error.code().as_str().to_owned()));
    };
    store.write(command.to_string(), bytes, Box::new(done));
    told
}

fn write(store: &Store, command: &Value, bytes: &[&[u8]]) -> Value {
    serde_json::from_str(&hand_in(store, command, bytes).recv_timeout(WAIT).unwrap().unwrap()).unwrap()
}

fn read(store: &Store, command: &Value) -> Reply {
    let (tell, told) = channel();
    store.read(command.to_string(), Box::new(move |outcome| drop(tell.send(outcome))));
    told.recv_timeout(WAIT).unwrap().unwrap()
}

fn close(store: &Store) {
    let (tell, told) = channel();
    store.close(Box::new(move |outcome| drop(tell.send(outcome))));
    told.recv_timeout(WAIT).unwrap().unwrap();
}

fn work(n: i64) -> Value {
    json!({ "do": "enqueue", "sessionId": "s", "payloads": [n], "sourceKey": format!("w{n}"), "deliveryPolicy": "earliestSafeBoundary",
            "slotPolicy": "join", "mergeKey": "never", "availableAtMs": 0 })
}

/// Turn `n`: node, checkpoint with VM memory, usage, stamp, and the work that it completes.
fn turn(n: i64, completions: &Value) -> Value {
    let parent = if n > 1 { json!(format!("n{}", n - 1)) } else { Value::Null };
    let tokens = json!({ "inputTokens": 1, "outputTokens": 0, "cachedInputTokens": 0, "reasoningTokens": 0 });
    json!({
        "do": "commit", "sessionId": "s", "config": {}, "agentFrames": [], "currentAgentFrameId": "", "delta": "append",
        "nodes": [{ "nodeId": format!("n{n}"), "parentNodeId": parent, "timestamp": "t", "payload": n }],
        "leafNodeId": format!("n{n}"),
        "checkpoint": { "turnState": n, "toolState": { "turn": n, "text": "tools ".repeat(1000) } },
        "turn": { "sessionId": "s", "turnId": format!("t{n}"), "hash": format!("h{n}") },
        "usage": [{ "source": "turn", "model": "m", "usage": tokens }],
        "completions": completions,
    })
}

/// Takes the work of turn `n`, with a lease that lapses at once, so that whoever comes after a kill has it, too.
fn claim(store: &Store, n: i64) -> Value {
    let request = json!({ "sessionId": "s", "ownerId": "o", "leaseTtlMs": 0, "boundary": "idle" });
    let claim = write(store, &json!({ "do": "claim", "request": request, "maxBatches": 1, "batchIds": null }), &[]);
    let batch = &claim["batches"][0];
    assert_eq!(batch["items"][0]["payload"], n, "what was done comes again, or what was to be done is gone");
    json!([{ "sessionId": "s", "claimId": claim["claimId"], "leaseToken": claim["leaseToken"], "batchIds": [batch["batchId"]] }])
}

/// One turn after the other, each together with the work of the next and with a blob that nobody keeps.
fn turns(store: &Store, from: i64, count: i64) {
    let said = |word: &str, n: i64, answer: &Receiver<Result<String, String>>| {
        answer.recv_timeout(WAIT).unwrap().unwrap();
        println!("{word} {n}");
    };
    for n in from..from + count {
        said("queued", n, &hand_in(store, &work(n), &[]));
        let commit = hand_in(store, &turn(n, &claim(store, n)), &[&n.to_le_bytes()]);
        let next = hand_in(store, &work(n + 1), &[]);
        let orphan = json!({ "do": "putBlob", "kind": null, "compressible": false });
        let orphan = hand_in(store, &orphan, &[format!("orphan {n}").as_bytes()]);
        let gc = (n % 4 == 0).then(|| hand_in(store, &json!({ "do": "gc", "minBlobAgeMs": 0 }), &[]));
        said("ack", n, &commit);
        said("queued", n + 1, &next);
        said("put", n, &orphan);
        if let Some(gc) = gc {
            said("collected", n, &gc);
        }
    }
}

#[test]
fn child() {
    let Some(order) = order() else { return };
    let path = Path::new(&order[1]);
    let synchronous = if order[2] == "full" { Synchronous::Full } else { Synchronous::Normal };
    let store = open(path, synchronous);
    println!("ready");
    match order[0].as_str() {
        "turns" => turns(&store, order[3].parse().unwrap(), 1_000_000),
        "script" => {
            turns(&store, 1, 8);
            // What is written beside commits: nodes that go, and pages that are given back.
            let graph = json!({ "do": "tombstone", "ids": ["n3"] });
            write(&store, &graph, &[]);
            write(&store, &json!({ "do": "vacuum", "reclaimSpace": true }), &[]);
            turns(&store, 9, 4);
            close(&store);
            println!("closed");
        }
        "trace" => trace(&store, Path::new(&order[3])),
        "arm" => {
            turns(&store, 1, 2);
            std::fs::write(&order[3], "").unwrap();
            // Several in one transaction.
            let handed: Vec<_> = (3..9).map(|n| (n, hand_in(&store, &turn(n, &json!([])), &[]))).collect();
            for (n, answer) in handed {
                match answer.recv_timeout(WAIT).unwrap() {
                    Ok(_) => println!("ack {n}"),
                    Err(code) => println!("fail {n} {code}"),
                }
            }
        }
        other => panic!("{other}"),
    }
}

/// Says how many syncs there were before each commit was handed in, and when it was told.
fn trace(store: &Store, counter: &Path) {
    let count = || std::fs::read_to_string(counter).map_or(0, |text| text.trim().parse::<i64>().unwrap());
    for n in 1..=20 {
        let before = count();
        hand_in(store, &turn(n, &json!([])), &[]).recv_timeout(WAIT).unwrap().unwrap();
        println!("synced {n} {}", count() - before);
    }
}

/// What is wrong with what a process left, given what it had said; returns the last turn. `gone`: a node that was removed.
fn check(path: &Path, said: &Said, gone: Option<&str>) -> i64 {
    let numbers = |word: &str| -> BTreeSet<i64> {
        said.other.iter().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok()).collect()
    };
    let store = open(path, Synchronous::Full);
    let load = |path: bool| {
        let command = json!({ "do": "load", "path": path, "leafNodeId": null, "tolerant": false, "checked": true });
        let reply = read(&store, &command);
        (serde_json::from_str::<Value>(&reply.text).unwrap(), reply.parts)
    };
    let (head, parts) = load(false);
    let last = head["headRevision"].as_i64().unwrap_or(0);
    assert!(said.acks.iter().all(|n| *n <= last), "told ok and lost: {:?}, there are {last}", said.acks);
    if last > 0 {
        let slabs = head["slabs"].as_array().unwrap().iter().map(|length| length.as_u64().unwrap() as usize);
        let (mut at, mut nodes) = (0, Vec::new());
        for length in slabs {
            let slab: Vec<Value> = serde_json::from_slice(&parts.last().unwrap()[at..at + length]).unwrap();
            nodes.extend(slab.iter().map(|node| node["nodeId"].as_str().unwrap().to_owned()));
            at += length;
        }
        let mut wanted: Vec<String> = (1..=last).map(|n| format!("n{n}")).collect();
        if gone.is_some_and(|gone| !nodes.iter().any(|node| node == gone)) {
            wanted.retain(|node| Some(node.as_str()) != gone);
        }
        assert_eq!(nodes, wanted);
        assert_eq!(head["tokenLedger"][0]["usage"]["inputTokens"], last);
        assert_eq!(head["manifest"]["turnState"], last);
        assert_eq!(head["components"], json!(["toolState", "executionState"]));
        assert_eq!(serde_json::from_slice::<Value>(&parts[0]).unwrap()["turn"], last);
        assert_eq!(parts[1], last.to_le_bytes());
    }
    let list = read(&store, &json!({ "do": "queue", "sessionId": "s", "pending": false })).text;
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    let waiting: BTreeSet<i64> = list.iter().map(|batch| batch["items"][0]["payload"].as_i64().unwrap()).collect();
    assert_eq!(list.len(), waiting.len(), "work is there twice");
    assert!(waiting.iter().all(|n| *n == last + 1), "{waiting:?} waits after turn {last}");
    let lost: Vec<_> = numbers("queued").into_iter().filter(|n| *n > last && !waiting.contains(n)).collect();
    assert!(lost.is_empty(), "work was told ok and lost: {lost:?}");
    assert_eq!(read(&store, &json!({ "do": "verify", "deep": true })).text, "[]");
    if last > 0 {
        // Who does not know whether it landed sends it again, with whatever claim it holds by then.
        let held = json!([{ "sessionId": "s", "claimId": "c", "leaseToken": "t", "batchIds": ["b"] }]);
        assert_eq!(write(&store, &turn(last, &held), &[&[]])["headRevision"], last);
        assert_eq!(read(&store, &json!({ "do": "ledger" })).text, head["tokenLedger"].to_string());
    }
    close(&store);
    last
}

#[test]
fn check_37_killed_a_hundred_times() {
    let mut random = Random::new("session_graph_kills");
    let scratch = tempfile::tempdir().unwrap();
    let (mut told, mut busy) = (0, 0);
    for mode in ["full", "normal"] {
        let path = scratch.path().join(format!("{mode}.db"));
        let mut last = 0;
        for kill in 0..50 {
            let mut process = start(&["turns", path.to_str().unwrap(), mode, &i64::to_string(&(last + 1))], &[]);
            // Some die while they open, or recover what the one before left; some in a turn that is counted by what they said, as on
            // a busy machine little is done in a while.
            let turns = if kill % 8 == 7 { 0 } else { random.below(5) as i64 };
            if turns > 0 {
                process.expect(&format!("ack {}", last + turns));
            }
            std::thread::sleep(Duration::from_micros(random.below(if turns > 0 { 6_000 } else { 25_000 })));
            process.kill();
            let mut said = process.rest();
            said.acks.extend(last + 1..=last + turns);
            assert!(said.killed, "{said:?}");
            told += said.acks.len();
            busy += usize::from(!said.acks.is_empty());
            last = check(&path, &said, None);
        }
    }
    println!("{{\"test\":\"session_graph_kills\",\"kills\":100,\"acked\":{told},\"violations\":0}}");
    assert!(told > 120 && busy > 40, "{told} turns in {busy} rounds: the loop shows nothing");
}

#[test]
fn killed_at_writes_syncs_truncations_and_removals() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(shim) = shim(scratch.path()) else { return };
    let counter = scratch.path().join("count");
    let place = |name: &str| -> PathBuf { scratch.path().join(format!("graph-{name}.db")) };
    let run = |path: &Path, nth: &str| {
        let environment = [
            ("LD_PRELOAD", shim.to_str().unwrap()),
            (OPS, "write,sync,truncate,unlink"),
            ("HOLDFAST_SHIM_PATH", path.file_stem().unwrap().to_str().unwrap()),
            (NTH, nth),
            (ACTION, "kill"),
            (COUNT, counter.to_str().unwrap()),
        ];
        start(&["script", path.to_str().unwrap(), "full"], &environment).rest()
    };
    let said = run(&place("count"), "0");
    assert!(said.other.contains(&"closed".to_owned()) && said.acks.len() == 12, "{said:?}");
    let count: usize = std::fs::read_to_string(&counter).unwrap().trim().parse().unwrap();
    assert!(count > 60, "{count}: the shim sees nothing");
    // A sample, shifted each time.
    let stride = (count / 24).max(1);
    let first = 1 + Random::new("session_graph_points").below(stride as u64) as usize;
    let points: Vec<usize> = (first..=count).step_by(stride).collect();
    let mut killed = 0;
    for nth in &points {
        let path = place(&nth.to_string());
        let said = run(&path, &nth.to_string());
        killed += usize::from(said.killed);
        check(&path, &said, Some("n3"));
    }
    println!(
        "{{\"test\":\"session_graph_kills\",\"operations\":{count},\"points\":{},\"killed\":{killed}}}",
        points.len()
    );
    assert!(killed * 10 >= points.len() * 7, "{killed} of {} were killed", points.len());
}

/// Runs the child under the shim, which counts the syncs of the log; `fault` are further settings.
fn under_shim(shim: &Path, folder: &Path, order: &str, mode: &str, fault: &[(&str, &str)]) -> (PathBuf, Said) {
    let path = folder.join(format!("{order}-{mode}.db"));
    let (counter, arm) = (folder.join(format!("{order}-{mode}.count")), folder.join(format!("{order}-{mode}.arm")));
    let (counter, arm) = (counter.to_str().unwrap(), arm.to_str().unwrap());
    let mut environment =
        vec![("LD_PRELOAD", shim.to_str().unwrap()), (OPS, "sync"), (END, ".db-wal"), (COUNT, counter)];
    environment.extend(fault);
    let mut told = counter;
    if !fault.is_empty() {
        environment.push(("HOLDFAST_SHIM_ARM", arm));
        told = arm;
    }
    let said = start(&[order, path.to_str().unwrap(), mode, told], &environment).rest();
    (path, said)
}

#[test]
fn check_37_nothing_is_told_before_it_is_synced() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(shim) = shim(scratch.path()) else { return };
    for mode in ["full", "normal"] {
        let (_, said) = under_shim(&shim, scratch.path(), "trace", mode, &[]);
        let synced: Vec<i64> = said
            .other
            .iter()
            .filter_map(|line| line.strip_prefix("synced ")?.split(' ').nth(1)?.parse().ok())
            .collect();
        assert_eq!(synced.len(), 20, "{said:?}");
        // The other mode shows that the shim would see it if there was none.
        assert!(synced.iter().all(|count| (*count > 0) == (mode == "full")), "{mode}: {synced:?}");
    }
    // A sync that comes after the answer would be counted above, now and then. Where syncs fail, nobody may be told "ok".
    for mode in ["full", "normal"] {
        let fault = [(NTH, "1"), ("HOLDFAST_SHIM_LASTING", "1"), (ACTION, "5")];
        let (path, said) = under_shim(&shim, scratch.path(), "arm", mode, &fault);
        let wanted: BTreeSet<i64> = if mode == "full" { (1..=2).collect() } else { (1..=8).collect() };
        assert_eq!(said.acks, wanted, "{mode}: {said:?}");
        assert_eq!(said.fails.len(), if mode == "full" { 6 } else { 0 }, "{mode}: {said:?}");
        let sound = Said { acks: said.acks, ..Said::default() };
        let last = read(&open(&path, Synchronous::Full), &json!({ "do": "stats" })).text;
        let last: Value = serde_json::from_str(&last).unwrap();
        assert!(sound.acks.iter().all(|n| *n <= last["headRevision"].as_i64().unwrap()), "{last}");
    }
}
