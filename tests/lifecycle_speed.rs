//! Measurements of the session store below the binding: `cargo test --release --test lifecycle_speed -- --ignored --nocapture`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/lifecycle.rs"]
mod lifecycle;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use lifecycle::{T, Waited, wait};
use serde_json::{Value, json};

/// Keeps so many commands under way; returns commands per second.
fn rate(store: &Waited, width: usize, commands: Vec<String>) -> f64 {
    let (sender, receiver) = mpsc::channel();
    let total = commands.len();
    let begun = Instant::now();
    let mut waiting = commands.into_iter();
    let hand_in = |command: String| {
        let sender = sender.clone();
        store.0.write(command, Box::new(move |outcome| _ = sender.send(outcome.map(drop))));
    };
    waiting.by_ref().take(width).for_each(&hand_in);
    for _ in 0..total {
        receiver.recv_timeout(Duration::from_secs(30)).unwrap().unwrap();
        if let Some(next) = waiting.next() {
            hand_in(next);
        }
    }
    total as f64 / begun.elapsed().as_secs_f64()
}

fn observation(session: usize, round: usize, checks: usize, comments: usize, changed: usize) -> String {
    let check = |index: usize| {
        let status = if index < changed && round % 2 == 1 { "in_progress" } else { "passed" };
        json!({ "name": format!("check-{index}"), "commitHash": "c0ffee", "status": status, "url": "https://ci/x",
            "logTail": "a line of output\n".repeat(20) })
    };
    let comment = |index: usize| {
        json!({ "commentId": format!("{index}"), "author": "a", "file": "src/x.rs", "line": index,
        "body": format!("please change this {}", if changed > 1 { round } else { 0 }), "resolved": true })
    };
    json!({ "do": "observePr", "id": format!("p-{}", session + 1), "now": T + round as i64, "observation": {
        "fetched": true, "url": format!("https://x/pull/{session}"), "number": session, "ci": if changed > 1 && round % 2 == 1 { "pending" } else { "passing" },
        "checks": (0..checks).map(check).collect::<Vec<_>>(), "comments": (0..comments).map(comment).collect::<Vec<_>>() } })
    .to_string()
}

#[test]
#[ignore = "a measurement"]
fn observations() {
    let folder = tempfile::tempdir().unwrap();
    let store = Waited::file(&folder.path().join("sessions.db"));
    store.project("p");
    for _ in 0..64 {
        store.session("p");
    }
    let round = |round: usize, checks, comments, changed| -> Vec<String> {
        (0..64).map(|session| observation(session, round, checks, comments, changed)).collect()
    };
    rate(&store, 64, round(0, 8, 6, 8));
    for (name, checks, comments, changed, rounds) in
        [("one changed check", 1, 0, 1, 200), ("everything changed", 8, 6, 8, 60), ("nothing changed", 8, 6, 0, 100)]
    {
        rate(&store, 64, round(0, checks, comments, 0));
        let commands = (1..rounds).flat_map(|index| round(index, checks, comments, changed)).collect();
        println!("{name}: {:.0}/s at 64", rate(&store, 64, commands));
    }
    for (name, changed) in [("one changed check", 1), ("nothing changed", 0)] {
        rate(&store, 1, vec![observation(0, 0, 1, 0, 0)]);
        let commands: Vec<String> = (1..1000).map(|index| observation(0, index, 1, 0, changed)).collect();
        println!("{name}: {:.3} ms alone", 1000.0 / rate(&store, 1, commands));
    }
    let spawn: Vec<String> = (0..1000)
        .map(|_| json!({ "do": "createSession", "session": { "projectId": "p" }, "now": T }).to_string())
        .collect();
    println!("createSession: {:.3} ms alone", 1000.0 / rate(&store, 1, spawn.clone()));
    println!("createSession: {:.0}/s at 64", rate(&store, 64, spawn));
}

#[test]
#[ignore = "a measurement"]
fn a_long_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    let config = json!({ "target": "sqlite", "path": path, "retention": false });
    let store = Waited::open(&config).unwrap();
    store.project("p");
    let prompt = "x".repeat(2000);
    let sessions: Vec<String> = (0..10_000)
        .map(|index| {
            let state = if index % 100 == 0 { "working" } else { "terminated" };
            json!({ "do": "createSession", "now": T, "session": { "projectId": "p", "lifecycle": { "state": state },
                "metadata": { "prompt": prompt } } })
            .to_string()
        })
        .collect();
    rate(&store, 256, sessions);
    store.close();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) \
         INSERT INTO change_log (project_id, session_id, event_type, payload, created_at) \
         SELECT 'p', 'p-' || (1 + i % 10000), 'session_updated', json_object('id', 'p-' || (1 + i % 10000), 'state', 'working', \
         'terminationReason', '', 'isAlive', 1, 'activity', 'active'), '2026-05-31T12:00:00.000Z' FROM n",
    )
    .unwrap();
    drop(db);
    let begun = Instant::now();
    let store = Waited::open(&config).unwrap();
    println!("open: {:?}", begun.elapsed());
    let timed = |name: &str, command: Value| {
        let command = command.to_string();
        wait(|done| store.0.read(command.clone(), done)).unwrap();
        let begun = Instant::now();
        let text = wait(|done| store.0.read(command.clone(), done)).unwrap();
        println!("{name}: {:?}, {} bytes", begun.elapsed(), text.len());
    };
    timed("view", json!({ "do": "view", "id": "p-77" }));
    timed("running", json!({ "do": "running" }));
    timed("views", json!({ "do": "views", "projectId": "p" }));
    timed("head", json!({ "do": "head" }));
    store.write(json!({ "do": "ack", "consumer": "c", "seq": 600_000, "now": T }));
    timed("resume a consumer", json!({ "do": "consume", "consumer": "c", "limit": 512 }));
    for limit in [512, 10_000] {
        let (begun, mut after, mut rows) = (Instant::now(), 0, 0);
        while rows < 500_000 {
            let command = json!({ "do": "changes", "after": after, "limit": limit }).to_string();
            let text = wait(|done| store.0.read(command, done)).unwrap();
            assert!(text.len() > 2);
            after += limit;
            rows += limit;
        }
        println!("drain by {limit}: {:.0} rows/s", rows as f64 / begun.elapsed().as_secs_f64());
    }
    let begun = Instant::now();
    let removed = store.write(json!({ "do": "prune", "maxRows": 500_000, "now": T }));
    println!("prune {removed}: {:?}", begun.elapsed());
}
