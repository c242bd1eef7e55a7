//! Promise: a session store keeps what it is told, refuses what breaks a rule and then changes nothing, and its change log tells
//! every visible change in the order of the commits; the same in a file, in memory, and in PostgreSQL.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

#[path = "support/lifecycle.rs"]
mod lifecycle;
#[path = "support/postgres.rs"]
mod server;

use holdfast::error::Code;
use lifecycle::{T, Waited, field};
use serde_json::{Value, json};

/// Runs `test` on a store of every kind.
fn everywhere(name: &str, test: impl Fn(&Waited)) {
    let folder = tempfile::tempdir().unwrap();
    let file = Waited::file(&folder.path().join("data/sessions.db"));
    test(&file);
    file.close();
    let memory = Waited::open(&json!({ "target": "sqlite" })).unwrap();
    test(&memory);
    memory.close();
    if let Some(server) = server::shared() {
        let store = Waited::open(&postgres(server, name)).unwrap();
        test(&store);
        store.close();
    }
}

fn postgres(server: &server::Server, schema: &str) -> Value {
    let config = server.config();
    json!({ "target": "postgres", "schema": format!("It's \"{schema}\""), "connection": {
        "connectionString": config.connection_string, "host": config.host, "port": config.port, "user": config.user,
        "password": config.password, "database": config.database } })
}

#[test]
fn projects_are_replaced_and_archived() {
    everywhere("projects", |store| {
        store.project("b");
        store.project("a");
        store.write(json!({ "do": "archiveProject", "id": "b", "at": T + 5 }));
        let active = store.read(json!({ "do": "projects" }));
        assert_eq!(active.as_array().unwrap().len(), 1);
        assert_eq!(store.read(json!({ "do": "project", "id": "b" }))["archivedAt"], T + 5);
        store.write(json!({ "do": "upsertProject", "now": T + 9, "project": { "id": "b", "path": "/new" } }));
        let again = store.read(json!({ "do": "project", "id": "b" }));
        assert_eq!(
            (&again["archivedAt"], &again["registeredAt"], &again["path"]),
            (&Value::Null, &json!(T), &json!("/new"))
        );
        assert_eq!(store.read(json!({ "do": "project", "id": "c" })), Value::Null);
        assert_eq!(store.head(), 0, "projects are not in the log");
    });
}

#[test]
fn sessions_are_numbered_written_patched_and_deleted() {
    everywhere("sessions", |store| {
        store.project("mer");
        let made = store.write(json!({ "do": "createSession", "session": { "projectId": "mer" }, "now": T }));
        let expected = json!({ "id": "mer-1", "projectId": "mer", "num": 1, "issueId": "", "kind": "worker",
            "lifecycle": { "state": "not_started", "terminationReason": "", "isAlive": false, "harness": "",
                "activity": { "state": "idle", "lastActivityAt": null, "source": "none" }, "detecting": null },
            "metadata": { "branch": "", "workspacePath": "", "runtimeHandleId": "", "runtimeName": "", "agentSessionId": "",
                "prompt": "" },
            "revision": 0, "createdAt": T, "updatedAt": T });
        assert_eq!(made, expected);
        assert_eq!(store.read(json!({ "do": "session", "id": "mer-1" })), expected);
        let patched = store.write(json!({ "do": "patchMetadata", "id": "mer-1", "now": T + 1,
            "patch": { "branch": "b", "prompt": "p\u{0}é\"" } }));
        assert_eq!(patched["revision"], 1);
        let again =
            store.write(json!({ "do": "patchMetadata", "id": "mer-1", "now": T + 2, "patch": { "branch": "" } }));
        assert_eq!(
            (&again["metadata"]["branch"], &again["revision"], &again["updatedAt"]),
            (&json!("b"), &json!(1), &json!(T + 1))
        );
        assert_eq!(store.head(), 1, "handles are not in the log");
        // A full update, memory of the quarantine included.
        let mut record = again.clone();
        record["lifecycle"]["state"] = json!("detecting");
        record["lifecycle"]["detecting"] = json!({ "attempts": 2, "startedAt": T - 1, "evidenceHash": "h" });
        record["issueId"] = json!("i");
        record["updatedAt"] = json!(T + 7);
        record["createdAt"] = json!(1);
        store.write(json!({ "do": "updateSession", "session": record, "expectedRevision": 1, "now": T + 3 }));
        let read = store.read(json!({ "do": "session", "id": "mer-1" }));
        record["revision"] = json!(2);
        record["createdAt"] = json!(T);
        if read["metadata"]["prompt"] == "p\u{fffd}é\"" {
            record["metadata"]["prompt"] = read["metadata"]["prompt"].clone();
        }
        assert_eq!(read, record);
        let stale = store.refused(json!({ "do": "updateSession", "session": record, "expectedRevision": 1, "now": T }));
        assert_eq!(stale.code(), Code::LifecycleStaleRecord);
        assert_eq!((field(&stale, "expected"), field(&stale, "actual")), ("1".into(), "2".into()));
        record["id"] = json!("mer-77");
        let unknown = store.refused(json!({ "do": "updateSession", "session": record, "now": T }));
        assert_eq!(unknown.code(), Code::LifecycleSessionNotFound);
        // Numbers are not used again, and a deleted session stays in the log.
        assert_eq!(store.session("mer"), "mer-2");
        assert_eq!(store.write(json!({ "do": "deleteSession", "id": "mer-2" })), true);
        assert_eq!(store.write(json!({ "do": "deleteSession", "id": "mer-2" })), false);
        assert_eq!(store.session("mer"), "mer-3");
        let types: Vec<Value> = store.log(0).iter().map(|change| change["type"].clone()).collect();
        assert_eq!(
            types,
            ["session_created", "session_updated", "session_created", "session_deleted", "session_created"]
        );
        assert_eq!(store.read(json!({ "do": "timeline", "id": "mer-2" })).as_array().unwrap().len(), 2);
        // The same key, the same session.
        let keyed = json!({ "do": "createSession", "session": { "projectId": "mer" }, "now": T, "key": "k" });
        let first = store.write(keyed.clone());
        assert_eq!(store.write(keyed), first);
        let begun = store
            .write(json!({ "do": "createSession", "session": { "projectId": "mer" }, "now": T, "operation": true }));
        assert!(begun["operationToken"].is_string());
        assert_eq!(store.read(json!({ "do": "sessions", "projectId": "mer" })).as_array().unwrap().len(), 4);
        assert_eq!(store.read(json!({ "do": "running" })).as_array().unwrap().len(), 4);
    });
}

#[test]
fn what_breaks_a_rule_is_refused_by_name_and_changes_nothing() {
    everywhere("rules", |store| {
        store.project("mer");
        let id = store.session("mer");
        store.write(json!({ "do": "upsertPr", "now": T, "pr": { "url": "u", "sessionId": id } }));
        let head = store.head();
        let session = |lifecycle: Value| {
            json!({ "do": "createSession", "now": T, "session": { "projectId": "mer",
            "lifecycle": lifecycle } })
        };
        for (command, table, column, rule) in [
            (
                json!({ "do": "createSession", "now": T, "session": { "projectId": "x" } }),
                "sessions",
                "project_id",
                "foreign_key",
            ),
            (session(json!({ "state": "gone" })), "sessions", "session_state", "check"),
            (session(json!({ "terminationReason": "bored" })), "sessions", "termination_reason", "check"),
            (session(json!({ "terminationReason": "pr_merged" })), "sessions", "termination_reason", "check"),
            (session(json!({ "harness": "mine" })), "sessions", "harness", "check"),
            (session(json!({ "activity": { "state": "x" } })), "sessions", "activity_state", "check"),
            (session(json!({ "activity": { "source": "x" } })), "sessions", "activity_source", "check"),
            (
                session(json!({ "detecting": { "attempts": 1, "startedAt": 0, "evidenceHash": "" } })),
                "sessions",
                "detecting_attempts",
                "check",
            ),
            (
                json!({ "do": "upsertPr", "now": T, "pr": { "url": "v", "sessionId": "nobody" } }),
                "pr",
                "session_id",
                "foreign_key",
            ),
            (
                json!({ "do": "upsertPr", "now": T, "pr": { "url": "v", "sessionId": id, "state": "x" } }),
                "pr",
                "pr_state",
                "check",
            ),
            (
                json!({ "do": "upsertPr", "now": T, "pr": { "url": "v", "sessionId": id, "ciState": "x" } }),
                "pr",
                "ci_state",
                "check",
            ),
            (
                json!({ "do": "recordCheck", "now": T, "check": { "prUrl": "nope", "name": "n", "commitHash": "c" } }),
                "pr_checks",
                "pr_url",
                "foreign_key",
            ),
            (
                json!({ "do": "replacePrComments", "now": T, "prUrl": "nope", "comments": [{ "commentId": "1" }] }),
                "pr_comment",
                "pr_url",
                "foreign_key",
            ),
            // The second check is wrong: nothing of the whole observation stays, its events neither.
            (
                json!({ "do": "writePrObservation", "now": T, "pr": { "url": "w", "sessionId": id },
                "checks": [{ "name": "a", "commitHash": "c" }, { "name": "b", "commitHash": "c", "status": "red" }],
                "comments": [{ "commentId": "1" }] }),
                "pr_checks",
                "status",
                "check",
            ),
        ] {
            let error = store.refused(command.clone());
            assert_eq!(error.code(), Code::LifecycleConstraint, "{command}: {error}");
            assert_eq!(
                (field(&error, "table"), field(&error, "column"), field(&error, "constraint")),
                (table.to_owned(), column.to_owned(), rule.to_owned()),
                "{command}"
            );
            assert!(error.message().contains(column), "{error}");
        }
        for command in [
            json!({ "do": "createSession", "session": { "projectId": "mer" } }),
            json!({ "do": "createSession", "session": { "projectId": "mer" }, "now": 9e15 as i64 }),
            json!({ "do": "createSession", "session": { "projectId": "mer" }, "now": "secret" }),
            json!({ "do": "nothing of ours" }),
            json!({ "do": "prune", "maxRows": -1, "now": T }),
            json!({ "do": "ack", "consumer": "c", "seq": 1_000_000, "now": T }),
            json!({ "do": "upsertProject", "project": { "id": "", "path": "" }, "now": T }),
        ] {
            let error = store.refused(command.clone());
            assert_eq!(error.code(), Code::InvalidArgument, "{command}: {error}");
            assert!(!error.message().contains("secret"), "{error}");
        }
        assert_eq!(store.head(), head);
        assert_eq!(store.read(json!({ "do": "pr", "url": "w" })), Value::Null);
        assert_eq!(store.session("mer"), "mer-2", "refused ones take no number");
    });
}

#[test]
fn what_one_observation_tells_twice_ends_as_it_was_told_last() {
    everywhere("twice", |store| {
        store.project("mer");
        let id = store.session("mer");
        let see = |seen: &[(&str, &str)]| {
            let checks: Vec<Value> = seen
                .iter()
                .map(|(name, status)| json!({ "name": name, "commitHash": "c", "status": status }))
                .collect();
            let head = store.head();
            store.write(json!({ "do": "observePr", "id": id, "now": T,
                "observation": { "fetched": true, "url": "u", "number": 1, "checks": checks } }));
            let told = store.log(head);
            told.iter()
                .filter(|event| event["type"] == "pr_check_recorded")
                .map(|event| event["payload"]["status"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(see(&[("build", "failed")]), ["failed"]);
        // The last one is what is stored already; between them stands another.
        assert_eq!(
            see(&[("build", "passed"), ("lint", "queued"), ("build", "failed")]),
            ["passed", "queued", "failed"]
        );
        assert_eq!(see(&[("build", "failed"), ("build", "failed")]), Vec::<Value>::new());
        let many: Vec<String> = (0..70).map(|n| format!("check-{n}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "passed")).collect();
        assert_eq!(see(&many).len(), 70, "more than go out together");
        assert_eq!(see(&many), Vec::<Value>::new());
        let stored = store.read(json!({ "do": "checks", "url": "u" }));
        assert_eq!(stored.as_array().unwrap().len(), 72);
        assert_eq!(stored[0]["status"], "failed");
    });
}

#[test]
fn pull_requests_their_checks_and_comments() {
    everywhere("prs", |store| {
        store.project("mer");
        let (one, two) = (store.session("mer"), store.session("mer"));
        let pr = |url: &str, number: i64, state: &str, at: i64| {
            json!({ "do": "upsertPr", "now": T, "pr": { "url": url,
            "sessionId": one, "number": number, "state": state, "updatedAt": at } })
        };
        store.write(pr("u1", 1, "open", T));
        store.write(pr("u2", 2, "merged", T + 9));
        store.write(pr("u3", 3, "closed", T + 9));
        let urls: Vec<Value> = store
            .read(json!({ "do": "prsOfSession", "id": one }))
            .as_array()
            .unwrap()
            .iter()
            .map(|pr| pr["url"].clone())
            .collect();
        assert_eq!(urls, ["u3", "u2", "u1"]);
        let facts = store.read(json!({ "do": "prFacts", "id": one }));
        assert_eq!((&facts["url"], &facts["exists"], &facts["merged"]), (&json!("u1"), &json!(true), &json!(false)));
        assert_eq!(store.read(json!({ "do": "prFacts", "id": two }))["exists"], false);
        // A run that is seen again is the same run; a new commit is a new one.
        let check = |commit: &str, status: &str, now: i64| {
            json!({ "do": "recordCheck", "now": now,
            "check": { "prUrl": "u1", "name": "build", "commitHash": commit, "status": status } })
        };
        let head = store.head();
        store.write(check("c1", "in_progress", T));
        store.write(check("c1", "failed", T + 1));
        store.write(check("c1", "failed", T + 2));
        store.write(check("c0", "passed", T));
        let events = store.log(head);
        assert_eq!(events.len(), 3, "{events:?}");
        assert_eq!((&events[0]["createdAt"], &events[1]["createdAt"]), (&json!(T), &json!(T + 1)));
        let recent = store.read(json!({ "do": "recentChecks", "url": "u1", "name": "build", "limit": 2 }));
        assert_eq!(recent, json!(["passed", "failed"]), "of two of the same time the later insertion is first");
        assert_eq!(store.read(json!({ "do": "recentChecks", "url": "u1", "name": "build", "limit": 0 })), json!([]));
        assert_eq!(store.read(json!({ "do": "checks", "url": "u1" }))[0]["createdAt"], T);
        // Comments are a set; their times stay.
        let comments = |ids: &[&str], now: i64| {
            json!({ "do": "replacePrComments", "prUrl": "u1", "now": now,
            "comments": ids.iter().map(|id| json!({ "commentId": id, "body": "b", "resolved": false })).collect::<Vec<_>>() })
        };
        let head = store.head();
        store.write(comments(&["a", "b"], T));
        store.write(comments(&["b", "c"], T + 5));
        let set = store.read(json!({ "do": "comments", "url": "u1" }));
        let seen: Vec<_> =
            set.as_array().unwrap().iter().map(|c| (c["commentId"].clone(), c["createdAt"].clone())).collect();
        assert_eq!(seen, [(json!("b"), json!(T)), (json!("c"), json!(T + 5))]);
        assert_eq!(store.read(json!({ "do": "prFacts", "id": one }))["reviewComments"], true);
        store.write(comments(&[], T));
        assert_eq!(store.read(json!({ "do": "comments", "url": "u1" })), json!([]));
        assert_eq!(store.head(), head, "comments are not in the log");
        // Views: the same facts, for all sessions at once.
        let views = store.read(json!({ "do": "views", "projectId": "mer" }));
        assert_eq!(views.as_array().unwrap().len(), 2);
        assert_eq!(views[0], store.read(json!({ "do": "view", "id": one })));
        assert_eq!(views[0]["status"], "spawning");
        // A moved one takes its events along; a deleted one all that belongs to it.
        let mut moved = pr("u1", 1, "open", T);
        moved["pr"]["sessionId"] = json!(two);
        let head = store.head();
        store.write(moved);
        let events = store.log(head);
        assert_eq!((&events[0]["type"], &events[0]["sessionId"]), (&json!("pr_updated"), &json!(two)));
        assert_eq!(store.write(json!({ "do": "deletePr", "url": "u1" })), true);
        assert_eq!(store.write(json!({ "do": "deletePr", "url": "u1" })), false);
        assert_eq!(store.read(json!({ "do": "checks", "url": "u1" })), json!([]));
        assert_eq!(store.log(head).len(), 1);
    });
}

/// Section 4.6, row by row: what is written, and what each row then says, to the letter.
#[test]
fn every_trigger_tells_what_it_must_and_nothing_else() {
    everywhere("triggers", |store| {
        store.project("mer");
        let mut seen = 0;
        let mut told = |store: &Waited| {
            let fresh = store.log(seen);
            seen = store.head();
            fresh
                .iter()
                .map(|c| {
                    (
                        c["type"].as_str().unwrap().to_owned(),
                        c["payload"].to_string(),
                        c["createdAt"].as_i64().unwrap(),
                        c["projectId"].as_str().unwrap().to_owned(),
                        c["sessionId"].as_str().unwrap().to_owned(),
                    )
                })
                .collect::<Vec<_>>()
        };
        let event = |kind: &str, payload: &str, at: i64| {
            vec![(kind.to_owned(), payload.to_owned(), at, "mer".to_owned(), "mer-1".to_owned())]
        };
        store.session("mer");
        assert_eq!(
            told(store),
            event(
                "session_created",
                r#"{"id":"mer-1","state":"not_started","terminationReason":"","isAlive":0,"activity":"idle"}"#,
                T
            )
        );
        let record = store.read(json!({ "do": "session", "id": "mer-1" }));
        // What counts, one at a time.
        let mut changed = record.clone();
        changed["lifecycle"]["isAlive"] = json!(true);
        for (path, value, payload) in [
            (
                ("isAlive", ""),
                json!(true),
                r#""state":"not_started","terminationReason":"","isAlive":1,"activity":"idle""#,
            ),
            (
                ("state", ""),
                json!("terminated"),
                r#""state":"terminated","terminationReason":"","isAlive":1,"activity":"idle""#,
            ),
            (
                ("terminationReason", ""),
                json!("pr_merged"),
                r#""state":"terminated","terminationReason":"pr_merged","isAlive":1,"activity":"idle""#,
            ),
            (
                ("activity", "state"),
                json!("exited"),
                r#""state":"terminated","terminationReason":"pr_merged","isAlive":1,"activity":"exited""#,
            ),
        ] {
            let place = &mut changed["lifecycle"][path.0];
            *(if path.1.is_empty() { place } else { &mut place[path.1] }) = value;
            changed["updatedAt"] = json!(T + 1);
            store.write(json!({ "do": "updateSession", "session": changed, "now": T }));
            assert_eq!(told(store), event("session_updated", &format!(r#"{{"id":"mer-1",{payload}}}"#), T + 1));
        }
        // What does not.
        changed["issueId"] = json!("i");
        changed["kind"] = json!("orchestrator");
        changed["lifecycle"]["harness"] = json!("codex");
        changed["lifecycle"]["activity"]["lastActivityAt"] = json!(T);
        changed["lifecycle"]["activity"]["source"] = json!("hook");
        changed["metadata"]["prompt"] = json!("p");
        changed["updatedAt"] = json!(T + 2);
        store.write(json!({ "do": "updateSession", "session": changed, "now": T }));
        assert_eq!(told(store), []);
        // Pull requests.
        let pr = |more: Value| {
            let mut pr =
                json!({ "url": "https://x/\"1\"\u{e9}", "sessionId": "mer-1", "number": 4, "updatedAt": T + 3 });
            pr.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "do": "upsertPr", "pr": pr, "now": T })
        };
        let payload = |state: &str, ci: &str, review: &str, mergeability: &str| {
            format!(
                r#"{{"url":"https://x/\"1\"{}","session":"mer-1","state":"{state}","ci":"{ci}","review":"{review}","mergeability":"{mergeability}"}}"#,
                '\u{e9}'
            )
        };
        store.write(pr(json!({})));
        assert_eq!(told(store), event("pr_created", &payload("open", "unknown", "none", "unknown"), T + 3));
        store.write(pr(json!({ "number": 5 })));
        assert_eq!(told(store), [], "the number does not count");
        store.write(pr(json!({ "state": "draft" })));
        assert_eq!(told(store), event("pr_updated", &payload("draft", "unknown", "none", "unknown"), T + 3));
        store.write(pr(json!({ "state": "draft", "ciState": "failing" })));
        assert_eq!(told(store), event("pr_updated", &payload("draft", "failing", "none", "unknown"), T + 3));
        store.write(pr(json!({ "state": "draft", "ciState": "failing", "reviewDecision": "approved" })));
        assert_eq!(told(store), event("pr_updated", &payload("draft", "failing", "approved", "unknown"), T + 3));
        store.write(pr(
            json!({ "state": "draft", "ciState": "failing", "reviewDecision": "approved", "mergeability": "blocked" }),
        ));
        assert_eq!(told(store), event("pr_updated", &payload("draft", "failing", "approved", "blocked"), T + 3));
        // Checks.
        let check = |status: &str, log: &str, now: i64| {
            json!({ "do": "recordCheck", "now": now, "check": {
            "prUrl": "https://x/\"1\"\u{e9}", "name": "n\n", "commitHash": "c", "status": status, "logTail": log, "createdAt": 1 } })
        };
        let payload = |status: &str| {
            format!(r#"{{"pr":"https://x/\"1\"{}","name":"n\n","commit":"c","status":"{status}"}}"#, '\u{e9}')
        };
        store.write(check("queued", "", T + 4));
        assert_eq!(told(store), event("pr_check_recorded", &payload("queued"), T + 4));
        store.write(check("queued", "more", T + 5));
        assert_eq!(told(store), [], "the log does not count");
        store.write(check("failed", "more", T + 6));
        assert_eq!(told(store), event("pr_check_recorded", &payload("failed"), T + 6));
        // The end: one event, with the database's clock.
        store.write(json!({ "do": "deleteSession", "id": "mer-1" }));
        let last = told(store);
        assert_eq!(last.len(), 1, "{last:?}");
        assert_eq!((last[0].0.as_str(), last[0].1.as_str()), ("session_deleted", r#"{"id":"mer-1"}"#));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        assert!((last[0].2 - now).abs() < 60_000);
    });
}

#[test]
fn the_log_is_read_by_number_and_project() {
    everywhere("reading", |store| {
        store.project("a");
        store.project("b");
        for project in ["a", "b", "a", "b"] {
            store.session(project);
        }
        let all = store.log(0);
        let numbers: Vec<i64> = all.iter().map(|c| c["seq"].as_i64().unwrap()).collect();
        assert!(numbers.is_sorted() && numbers.len() == 4, "{numbers:?}");
        assert_eq!(store.read(json!({ "do": "changes", "after": numbers[1], "limit": 1 }))[0]["seq"], numbers[2]);
        assert_eq!(store.read(json!({ "do": "changes", "after": 0, "limit": 0 })), json!([]));
        let of_b = store.read(json!({ "do": "changes", "after": 0, "projectId": "b" }));
        assert!(of_b.as_array().unwrap().iter().all(|c| c["projectId"] == "b") && of_b.as_array().unwrap().len() == 2);
        assert_eq!(
            store.try_read(&json!({ "do": "changes", "after": 0, "limit": -1 })).unwrap_err().code(),
            Code::InvalidArgument
        );
        assert_eq!(store.read(json!({ "do": "oldest" })).as_i64().unwrap(), numbers[0]);
        assert_eq!(store.head(), numbers[3]);
    });
}

#[test]
fn retention_waits_for_consumers_and_tells_what_they_lost() {
    everywhere("retention", |store| {
        store.project("p");
        let id = store.session("p");
        store.changes(&id, 1300);
        let head = store.head();
        assert_eq!(store.read(json!({ "do": "consume", "consumer": "slow", "limit": 3 })).as_array().unwrap().len(), 3);
        let first = store.read(json!({ "do": "oldest" })).as_i64().unwrap();
        // Known since it has read, although it has confirmed nothing.
        assert_eq!(store.write(json!({ "do": "prune", "maxRows": 100, "now": T })), 0);
        store.write(json!({ "do": "ack", "consumer": "slow", "seq": first + 9, "now": T }));
        store.write(json!({ "do": "ack", "consumer": "slow", "seq": first + 5, "now": T }));
        assert_eq!(
            store.read(json!({ "do": "offset", "consumer": "slow" })).as_i64().unwrap(),
            first + 9,
            "it never goes back"
        );
        assert_eq!(store.write(json!({ "maxRows": 100, "now": T, "do": "prune" })), 10);
        assert_eq!(store.read(json!({ "do": "oldest" })).as_i64().unwrap(), first + 10);
        assert_eq!(store.read(json!({ "do": "consume", "consumer": "slow" }))[0]["seq"], first + 10);
        // A hard cap goes over it, and says so.
        let removed = store.write(json!({ "do": "prune", "maxRows": 100, "hard": true, "now": T })).as_i64().unwrap();
        assert_eq!(removed, head - 100 - (first + 9));
        assert_eq!(store.head(), head);
        let lost = store.try_read(&json!({ "do": "consume", "consumer": "slow" })).unwrap_err();
        assert_eq!(lost.code(), Code::LifecycleChangeLogTruncated);
        assert_eq!(
            (field(&lost, "lostFrom"), field(&lost, "lostTo"), field(&lost, "oldestSeq")),
            ((first + 10).to_string(), (head - 100).to_string(), (head - 99).to_string())
        );
        let old = store.try_read(&json!({ "do": "changes", "after": first })).unwrap_err();
        assert_eq!(old.code(), Code::LifecycleChangeLogTruncated);
        assert_eq!(store.log(head - 100).len(), 100, "right behind what was removed nothing is missing");
        assert_eq!(store.log(0).len(), 100, "from the beginning means: what there is");
        // Who comes new begins with what there is; the one that lost goes on when it has said so.
        assert_eq!(store.read(json!({ "do": "consume", "consumer": "new", "limit": 1 }))[0]["seq"], head - 99);
        store.write(json!({ "do": "ack", "consumer": "slow", "seq": head - 100, "now": T }));
        assert_eq!(store.read(json!({ "do": "consume", "consumer": "slow", "limit": 1 }))[0]["seq"], head - 99);
        // All of it: the head stays, and an old place is still told.
        store.write(json!({ "do": "deleteConsumer", "consumer": "slow" }));
        store.write(json!({ "do": "deleteConsumer", "consumer": "new" }));
        store.write(json!({ "do": "prune", "maxAgeMs": 0, "now": T + 1_000_000 }));
        assert_eq!((store.head(), store.read(json!({ "do": "oldest" })).as_i64().unwrap()), (head, 0));
        assert_eq!(
            store.try_read(&json!({ "do": "changes", "after": head - 1 })).unwrap_err().code(),
            Code::LifecycleChangeLogTruncated
        );
        assert_eq!(store.read(json!({ "do": "changes", "after": head })), json!([]));
        store.session("p");
        assert!(store.head() > head, "no number is used again");
        assert_eq!(store.log(head).len(), 1);
        let stats = store.read(json!({ "do": "stats" }));
        assert_eq!((&stats["projects"], &stats["sessions"], &stats["changes"]), (&json!(1), &json!(2), &json!(1)));
        assert_eq!(store.read(json!({ "do": "check" })), json!([]));
    });
}
