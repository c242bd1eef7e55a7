//! What only this side can stage: panics in the middle, slices, and random operations against a plain model.

use std::sync::mpsc;
use std::time::Duration;

use super::{Config, GcPolicy, Reply, Store};
use crate::error::{Code, HfError, Result};

const SOON: Duration = Duration::from_secs(10);

fn open(config: &Config) -> Store {
    Store::open(config).unwrap()
}

fn write_with(store: &Store, command: &str, bytes: Vec<Vec<u8>>) -> Result<String> {
    let (tell, told) = mpsc::channel();
    store.write(command.to_owned(), bytes, Box::new(move |outcome| tell.send(outcome).unwrap()));
    told.recv().unwrap()
}

fn write(store: &Store, command: &str) -> Result<String> {
    write_with(store, command, Vec::new())
}

fn read(store: &Store, command: &str) -> Result<Reply> {
    let (tell, told) = mpsc::channel();
    store.read(command.to_owned(), Box::new(move |outcome| tell.send(outcome).unwrap()));
    told.recv().unwrap()
}

fn close(store: &Store) {
    let (tell, told) = mpsc::channel();
    store.close(Box::new(move |outcome| tell.send(outcome).unwrap()));
    told.recv().unwrap().unwrap();
}

fn node(id: &str, parent: Option<&str>) -> String {
    let parent = parent.map_or_else(|| "null".to_owned(), |parent| format!("\"{parent}\""));
    format!("{{\"nodeId\":\"{id}\",\"parentNodeId\":{parent},\"timestamp\":\"t\",\"payload\":{{\"of\":\"{id}\"}}}}")
}

fn commit(delta: &str, nodes: &[String], leaf: Option<&str>) -> String {
    let leaf = leaf.map_or_else(|| "null".to_owned(), |leaf| format!("\"{leaf}\""));
    format!(
        "{{\"do\":\"commit\",\"sessionId\":\"s\",\"config\":{{}},\"agentFrames\":[],\"currentAgentFrameId\":\"\",\
         \"delta\":\"{delta}\",\"nodes\":[{}],\"leafNodeId\":{leaf},\"checkpoint\":{{\"turnState\":{{}}}}}}",
        nodes.join(",")
    )
}

/// The ids of the nodes that a load returns.
fn ids(store: &Store, path: bool, leaf: Option<&str>) -> Result<Vec<String>> {
    let leaf = leaf.map_or_else(|| "null".to_owned(), |leaf| format!("\"{leaf}\""));
    let text = format!("{{\"do\":\"load\",\"path\":{path},\"leafNodeId\":{leaf},\"tolerant\":false,\"checked\":true}}");
    let reply = read(store, &text)?;
    if reply.text == "null" {
        return Ok(Vec::new());
    }
    let header: serde_json::Value = serde_json::from_str(&reply.text).unwrap();
    let (mut at, mut out) = (0, Vec::new());
    let slab = reply.parts.last().unwrap();
    for length in header["slabs"].as_array().unwrap() {
        let end = at + usize::try_from(length.as_u64().unwrap()).unwrap();
        let nodes: Vec<serde_json::Value> = serde_json::from_slice(&slab[at..end]).unwrap();
        out.extend(nodes.iter().map(|node| node["nodeId"].as_str().unwrap().to_owned()));
        at = end;
    }
    assert_eq!(at, slab.len());
    Ok(out)
}

fn problems(store: &Store) -> String {
    read(store, "{\"do\":\"verify\",\"deep\":true}").unwrap().text
}

fn code<T: std::fmt::Debug>(outcome: Result<T>) -> Code {
    outcome.map_err(|error: HfError| error.code()).unwrap_err()
}

/// A store in memory, and one in a file.
fn both(test: impl Fn(&Store)) {
    let folder = tempfile::tempdir().unwrap();
    for path in [None, Some(folder.path().join("s.db"))] {
        let store = open(&Config { path, ..Config::default() });
        test(&store);
        assert_eq!(problems(&store), "[]");
        close(&store);
    }
}

#[test]
fn check_10_a_panic_inside_a_commit_ends_that_call_alone() {
    both(|store| {
        write(store, &commit("append", &[node("a", None)], Some("a"))).unwrap();
        let bad = commit("append", &[node("b", Some("a")), node("panic after insert", Some("b"))], Some("b"));
        assert_eq!(code(write(store, &bad)), Code::Panic);
        assert_eq!(ids(store, false, None).unwrap(), ["a"]);
        write(store, &commit("append", &[node("c", Some("a"))], Some("c"))).unwrap();
        assert_eq!(ids(store, true, None).unwrap(), ["a", "c"]);
    });
}

#[test]
fn check_24_a_leaf_that_was_removed_leaves_a_sound_store_that_goes_on() {
    both(|store| {
        write(store, &commit("append", &[node("a", None), node("c", Some("a"))], Some("c"))).unwrap();
        write(store, "{\"do\":\"tombstone\",\"ids\":[\"c\"]}").unwrap();
        write(store, "{\"do\":\"vacuum\",\"reclaimSpace\":false}").unwrap();
        assert_eq!(problems(store), "[]");
        write(store, &commit("unchanged", &[], Some("c"))).unwrap();
        // An appended node makes no difference: that leaf would be new.
        assert_eq!(code(write(store, &commit("append", &[node("d", None)], Some("c")))), Code::GraphUnknownLeaf);
        write(store, &commit("unchanged", &[], Some("a"))).unwrap();
        assert_eq!(code(write(store, &commit("unchanged", &[], Some("c")))), Code::GraphUnknownLeaf);
    });
}

#[test]
fn what_keeps_a_load_or_a_collection_from_working_is_told() {
    let store = open(&Config::default());
    let put = |kind: &str, text: &[u8]| {
        let command = format!("{{\"do\":\"putBlob\",\"kind\":{kind},\"compressible\":false}}");
        let answer = write_with(&store, &command, vec![text.to_vec()]).unwrap();
        answer.trim_matches('"').to_owned()
    };
    let told = |deep: bool| read(&store, &format!("{{\"do\":\"verify\",\"deep\":{deep}}}")).unwrap().text;
    let text = put("null", b"no JSON");
    let plain = commit("unchanged", &[], None);
    let state = format!("\"turnState\":{{}},\"toolStateRef\":\"{text}\"");
    write(&store, &plain.replace("\"turnState\":{}", &state)).unwrap();
    assert_eq!(code(ids(&store, false, None)), Code::GraphRecordDecode);
    assert!(told(true).starts_with(&format!("[{{\"kind\":\"blob\",\"key\":\"{text}\"")), "{}", told(true));
    let none = put("\"checkpointManifest\"", b"no manifest");
    let retaining = format!("\"retained\":[\"{none}\"],\"checkpoint\":");
    write(&store, &plain.replace("\"checkpoint\":", &retaining)).unwrap();
    let collected = write(&store, "{\"do\":\"gc\",\"minBlobAgeMs\":0}").unwrap();
    assert!(collected.contains("aborted"), "{collected}");
    for deep in [false, true] {
        assert_eq!(
            told(deep).matches(&format!("{{\"kind\":\"manifest\",\"key\":\"{none}\"")).count(),
            1,
            "{}",
            told(deep)
        );
    }
    close(&store);
}

#[test]
fn check_13_a_turn_that_retains_another_blob_is_another_turn() {
    let plain = commit("append", &[node("a", None)], Some("a"));
    let hash = |retained: &str| {
        let text = plain.replace("\"checkpoint\":", &format!("\"retained\":[{retained}],\"checkpoint\":"));
        crate::session_graph::turn_commit_hash(&text, None).unwrap()
    };
    assert_eq!(hash("\"x\",\"y\""), hash("\"y\",\"x\""));
    assert_ne!(hash(""), hash("\"x\""));
    assert_ne!(hash("\"y\""), hash("\"x\""));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "what another process left")]
fn a_file_whose_first_opening_was_cut_short_is_empty_and_opens() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.db");
    let other = open(&Config { path: Some(whole.clone()), ..Config::default() });
    let header = std::fs::read(&whole).unwrap()[..4096].to_vec();
    close(&other);
    let journal = |pages: u8| {
        let mut text = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        text.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, pages, 0, 0, 2, 0, 0, 0, 16, 0]);
        text.resize(512, 0);
        text
    };
    for pages in [None, Some(0), Some(1)] {
        let path = folder.path().join(format!("{pages:?}.db"));
        std::fs::write(&path, &header).unwrap();
        if let Some(pages) = pages {
            std::fs::write(folder.path().join(format!("{}-journal", path.display())), journal(pages)).unwrap();
        }
        for peeks in [false, true] {
            let config = Config { path: Some(path.clone()), read_only: true, peeks, ..Config::default() };
            let error = Store::open(&config).unwrap_err();
            let (code, reason) = match pages {
                Some(1) => (Code::Io, "unfinished"),
                _ => (Code::GraphUnsupportedSchema, "empty"),
            };
            assert_eq!((error.code(), error.fields()["reason"].as_str()), (code, Some(reason)), "{pages:?}: {error}");
            assert!(error.message().contains("open"), "{error}");
        }
        let store = open(&Config { path: Some(path), ..Config::default() });
        assert_eq!(problems(&store), "[]");
        close(&store);
    }
}

#[test]
fn a_failing_commit_in_a_group_undoes_itself_alone() {
    both(|store| {
        let (tell, told) = mpsc::channel();
        let good = |id: &str| commit("append", &[node(id, None)], Some(id));
        // The second fails after its first insert, the third panics there, and all of them may share one transaction.
        let twice = commit("append", &[node("x", None), node("x", None)], Some("x"));
        let panics = commit("append", &[node("panic after insert", None)], None);
        for (index, text) in [good("a"), twice, panics, good("b"), good("c")].into_iter().enumerate() {
            let tell = tell.clone();
            store.write(text, Vec::new(), Box::new(move |outcome| tell.send((index, outcome)).unwrap()));
        }
        let mut outcomes: Vec<_> = told.iter().take(5).collect();
        outcomes.sort_by_key(|(index, _)| *index);
        let codes: Vec<_> = outcomes.iter().map(|(_, outcome)| outcome.as_ref().err().map(HfError::code)).collect();
        assert_eq!(codes, [None, Some(Code::GraphNodeIdCollision), Some(Code::Panic), None, None]);
        assert_eq!(ids(store, false, None).unwrap(), ["a", "b", "c"]);
    });
}

const ENQUEUE: &str = "{\"do\":\"enqueue\",\"sessionId\":\"s\",\"payloads\":[1],\"sourceKey\":null,\
     \"deliveryPolicy\":\"earliestSafeBoundary\",\"slotPolicy\":\"join\",\"mergeKey\":\"never\",\"availableAtMs\":0}";
const CLAIM: &str = "{\"do\":\"claim\",\"request\":{\"sessionId\":\"s\",\"ownerId\":\"o\",\"leaseTtlMs\":60000,\
     \"boundary\":\"idle\"},\"maxBatches\":1,\"batchIds\":null}";

#[test]
fn writes_keep_their_order_around_a_claim_whether_it_looks_first_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = Config { path: Some(folder.path().join("s.db")), ..Config::default() };
    let (first, second, memory) = (open(&file), open(&file), open(&Config::default()));
    // Of what another store enqueued this one knows nothing yet: its claim looks first.
    for (store, from) in [(&first, &second), (&first, &first), (&memory, &memory)] {
        for _ in 0..50 {
            let batch: serde_json::Value = serde_json::from_str(&write(from, ENQUEUE).unwrap()).unwrap();
            let cancel = format!("{{\"do\":\"cancel\",\"sessionId\":\"s\",\"batchId\":{}}}", batch["batchId"]);
            let (tell, told) = mpsc::channel();
            for command in [CLAIM, cancel.as_str(), CLAIM] {
                let tell = tell.clone();
                store.write(command.to_owned(), Vec::new(), Box::new(move |outcome| tell.send(outcome).unwrap()));
            }
            let answers: Vec<String> = told.iter().take(3).map(|answer| answer.unwrap()).collect();
            // The claim came first, so it has the batch, and there was nothing left to be cancelled.
            assert!(answers.iter().any(|answer| answer.contains("claimId")), "{answers:?}");
            assert_eq!(answers.iter().filter(|answer| *answer == "null").count(), 2, "{answers:?}");
        }
    }
    [first, second, memory].iter().for_each(close);
}

#[test]
fn who_asks_for_work_where_there_is_none_waits_for_no_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let store = open(&Config { path: Some(path.clone()), ..Config::default() });
    let writer = rusqlite::Connection::open(&path).unwrap();
    for _ in 0..2 {
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let begun = std::time::Instant::now();
        assert_eq!(write(&store, CLAIM).unwrap(), "null");
        assert!(begun.elapsed() < std::time::Duration::from_secs(5));
        writer.execute_batch("ROLLBACK").unwrap();
        // Where there was work a claim expects some, once more than there is.
        write(&store, ENQUEUE).unwrap();
        assert!(write(&store, CLAIM).unwrap().contains("claimId"));
        assert_eq!(write(&store, CLAIM).unwrap(), "null");
    }
    drop(writer);
    close(&store);
}

#[test]
fn long_reads_hold_up_neither_claims_nor_what_comes_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    // All turns of the handle, and all threads of the pool.
    for max_readers in [1, crate::durable::pool::THREADS_MAX] {
        let path = Some(folder.path().join(format!("{max_readers}.db")));
        let store = open(&Config { path, max_readers, ..Config::default() });
        let (begun, reading) = mpsc::channel();
        let ends: Vec<_> = (0..max_readers)
            .map(|_| {
                let ((end, ended), begun) = (mpsc::channel::<()>(), begun.clone());
                let long = move |reply: Result<Reply>| {
                    begun.send(reply.map(drop)).unwrap();
                    let _ = ended.recv();
                };
                store.read("{\"do\":\"pulse\"}".to_owned(), Box::new(long));
                end
            })
            .collect();
        reading.iter().take(max_readers).for_each(|reply| reply.unwrap());
        let (tell, told) = mpsc::channel();
        for command in [CLAIM, ENQUEUE, CLAIM] {
            let tell = tell.clone();
            store.write(command.to_owned(), Vec::new(), Box::new(move |outcome| tell.send(outcome).unwrap()));
        }
        for wanted in ["null", "batchId", "claimId"] {
            let answer = told.recv_timeout(SOON).expect("it waited for a read").unwrap();
            assert!(answer.contains(wanted), "{answer}");
        }
        drop(ends);
        close(&store);
    }
}

#[test]
fn collects_in_slices_and_keeps_what_is_named() {
    both(|store| {
        write(store, &commit("append", &[], None)).unwrap();
        let (tell, told) = mpsc::channel();
        for index in 0..1300_u32 {
            let tell = tell.clone();
            let command = "{\"do\":\"putBlob\",\"kind\":null,\"compressible\":false}".to_owned();
            let done = Box::new(move |outcome: Result<String>| tell.send(outcome.map(drop)).unwrap());
            store.write(command, vec![index.to_le_bytes().to_vec()], done);
        }
        told.iter().take(1300).for_each(|outcome| outcome.unwrap());
        write_with(store, "{\"do\":\"putArtifact\",\"name\":\"m\"}", vec![7_u32.to_le_bytes().to_vec()]).unwrap();
        let report = write(store, "{\"do\":\"gc\",\"minBlobAgeMs\":0}").unwrap();
        let wanted = "{\"rootCount\":2,\"retainedBlobCount\":2,\"deletedBlobCount\":1299,\"freedBytes\":5196}";
        assert_eq!(report, wanted);
        let kept = read(store, "{\"do\":\"artifact\",\"key\":\"m\"}").unwrap();
        assert_eq!(kept.parts, [7_u32.to_le_bytes()]);
        assert_eq!(write(store, "{\"do\":\"vacuum\",\"reclaimSpace\":true}").unwrap(), "0");
    });
}

#[test]
fn an_old_collection_spares_young_blobs_and_the_policy_counts_commits_only() {
    let store = open(&Config { gc: GcPolicy { every_commits: Some(2), min_blob_age_ms: 0 }, ..Config::default() });
    let put = |text: &str| {
        let command = "{\"do\":\"putBlob\",\"kind\":null,\"compressible\":false}";
        write_with(&store, command, vec![text.as_bytes().to_vec()]).unwrap()
    };
    let there = |quoted: &str| {
        let key: String = serde_json::from_str(quoted).unwrap();
        !read(&store, &format!("{{\"do\":\"blob\",\"key\":\"{key}\"}}")).unwrap().parts.is_empty()
    };
    let orphan = put("orphan");
    write(&store, "{\"do\":\"gc\",\"minBlobAgeMs\":60000}").unwrap();
    assert!(there(&orphan));
    write(&store, &commit("append", &[], None)).unwrap();
    put("other");
    assert!(there(&orphan));
    write(&store, &commit("append", &[], None)).unwrap();
    assert!(!there(&orphan));
    close(&store);
}

fn fork(store: &Store, to: &std::path::Path, what: &str) -> Result<String> {
    let (tell, told) = mpsc::channel();
    let command = format!("{{\"do\":\"fork\",\"ledger\":true,\"createdAt\":\"t\",{what}}}");
    store.fork(to.to_owned(), command, Box::new(move |outcome| tell.send(outcome).unwrap()));
    told.recv().unwrap()
}

#[test]
fn a_fork_of_a_pin_keeps_what_was_pinned_with_it() {
    let folder = tempfile::tempdir().unwrap();
    both(|store| {
        let to = folder.path().join(if store.path().is_some() { "file.db" } else { "memory.db" });
        let command = "{\"do\":\"putBlob\",\"kind\":null,\"compressible\":false}";
        let kept = write_with(store, command, vec![b"kept".to_vec()]).unwrap();
        write(store, &commit("append", &[node("a", None)], Some("a"))).unwrap();
        write(store, &format!("{{\"do\":\"pin\",\"name\":\"p\",\"retained\":[{kept}]}}")).unwrap();
        fork(store, &to, "\"pin\":\"p\"").unwrap();
        let forked = open(&Config { path: Some(to), ..Config::default() });
        let there = || read(&forked, &format!("{{\"do\":\"blob\",\"key\":{kept}}}")).unwrap().parts;
        assert_eq!(there(), [b"kept"]);
        write(&forked, "{\"do\":\"gc\",\"minBlobAgeMs\":0}").unwrap();
        assert_eq!(there(), [b"kept"]);
        close(&forked);
    });
}

#[test]
fn a_fork_says_that_a_leaf_is_hidden() {
    let folder = tempfile::tempdir().unwrap();
    both(|store| {
        write(store, &commit("append", &[node("a", None), node("b", Some("a"))], Some("a"))).unwrap();
        write(store, "{\"do\":\"tombstone\",\"ids\":[\"b\"]}").unwrap();
        for (leaf, why) in [("b", "is hidden"), ("c", "is no stored node")] {
            let error = fork(store, &folder.path().join("f.db"), &format!("\"leafNodeId\":\"{leaf}\"")).unwrap_err();
            assert!(error.code() == Code::GraphUnknownLeaf && error.message().contains(why), "{error}");
        }
    });
}

mod model {
    //! Random operations on a store and on a list of nodes.

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Append(Vec<(u8, Option<u8>)>, Option<u8>),
        Replace(Vec<(u8, Option<u8>)>, Option<u8>),
        /// Keeps so many of the nodes that are there.
        Rewrite(usize, Vec<(u8, Option<u8>)>, Option<u8>),
        Tombstone(Vec<u8>),
        Vacuum,
        Reopen,
    }

    fn op() -> impl Strategy<Value = Op> {
        let nodes = || proptest::collection::vec((0..12_u8, proptest::option::of(0..12_u8)), 0..5);
        let leaf = || proptest::option::of(0..12_u8);
        prop_oneof![
            4 => (nodes(), leaf()).prop_map(|(nodes, leaf)| Op::Append(nodes, leaf)),
            1 => (nodes(), leaf()).prop_map(|(nodes, leaf)| Op::Replace(nodes, leaf)),
            4 => (0..6_usize, nodes(), leaf()).prop_map(|(kept, nodes, leaf)| Op::Rewrite(kept, nodes, leaf)),
            2 => proptest::collection::vec(0..12_u8, 0..3).prop_map(Op::Tombstone),
            1 => Just(Op::Vacuum),
            1 => Just(Op::Reopen),
        ]
    }

    #[derive(Debug, Clone, Default)]
    struct Model {
        /// Id, parent, hidden.
        nodes: Vec<(u8, Option<u8>, bool)>,
        leaf: Option<u8>,
        revision: u64,
    }

    impl Model {
        fn find(&self, id: u8) -> Option<&(u8, Option<u8>, bool)> {
            self.nodes.iter().find(|node| node.0 == id)
        }

        /// Stores nodes, or says what is wrong with them.
        fn apply(&self, nodes: &[(u8, Option<u8>)], leaf: Option<u8>) -> std::result::Result<Self, ()> {
            let mut next = self.clone();
            for (id, parent) in nodes {
                if next.find(*id).is_some() {
                    return Err(());
                }
                next.nodes.push((*id, *parent, false));
            }
            for (id, ..) in &next.nodes {
                let (mut at, mut steps) = (Some(*id), 0);
                while let Some(node) = at.and_then(|id| next.find(id)) {
                    at = node.1;
                    steps += 1;
                    if steps > next.nodes.len() {
                        return Err(());
                    }
                }
            }
            if leaf.is_some_and(|leaf| next.find(leaf).is_none()) {
                return Err(());
            }
            next.leaf = leaf;
            next.revision += 1;
            Ok(next)
        }

        fn path(&self, leaf: u8) -> Vec<String> {
            let (mut path, mut at) = (Vec::new(), Some(leaf));
            while let Some(node) = at.and_then(|id| self.find(id)).filter(|node| !node.2) {
                path.push(node.0.to_string());
                at = node.1;
            }
            path.reverse();
            path
        }
    }

    fn texts(nodes: &[(u8, Option<u8>)]) -> Vec<String> {
        nodes.iter().map(|(id, parent)| node(&id.to_string(), parent.map(|p| p.to_string()).as_deref())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() })]
        #[test]
        fn a_store_does_what_a_list_does(ops in proptest::collection::vec(op(), 1..25)) {
            let folder = tempfile::tempdir().unwrap();
            let config = Config {
                path: Some(folder.path().join("s.db")),
                synchronous: super::super::Synchronous::Normal,
                ..Config::default()
            };
            let mut store = open(&config);
            let mut model = Model::default();
            for op in ops {
                let op = match op {
                    Op::Rewrite(kept, nodes, leaf) => {
                        let old = model.nodes.iter().take(kept).map(|node| (node.0, node.1));
                        Op::Replace(old.chain(nodes).collect(), leaf)
                    }
                    other => other,
                };
                match &op {
                    Op::Append(nodes, leaf) | Op::Replace(nodes, leaf) => {
                        let replaces = matches!(op, Op::Replace(..));
                        let base = if replaces { Model { revision: model.revision, ..Model::default() } } else { model.clone() };
                        let delta = if replaces { "replaceFull" } else { "append" };
                        let leaf_text = leaf.map(|leaf| leaf.to_string());
                        let outcome = write(&store, &commit(delta, &texts(nodes), leaf_text.as_deref()));
                        match base.apply(nodes, *leaf) {
                            Ok(next) => {
                                let wanted = format!("{{\"headRevision\":{},", next.revision);
                                prop_assert!(outcome.as_ref().is_ok_and(|text| text.starts_with(&wanted)), "{:?}", outcome);
                                model = next;
                            }
                            Err(()) => prop_assert!(outcome.is_err(), "{:?}", outcome),
                        }
                    }
                    Op::Tombstone(hidden) => {
                        let quoted: Vec<String> = hidden.iter().map(|id| format!("\"{id}\"")).collect();
                        write(&store, &format!("{{\"do\":\"tombstone\",\"ids\":[{}]}}", quoted.join(","))).unwrap();
                        for node in model.nodes.iter_mut().filter(|node| hidden.contains(&node.0)) {
                            node.2 = true;
                        }
                    }
                    Op::Vacuum => {
                        let removed = write(&store, "{\"do\":\"vacuum\",\"reclaimSpace\":false}").unwrap();
                        let before = model.nodes.len();
                        model.nodes.retain(|node| !node.2);
                        prop_assert_eq!(removed, (before - model.nodes.len()).to_string());
                    }
                    Op::Reopen => {
                        close(&store);
                        store = open(&config);
                    }
                    Op::Rewrite(..) => unreachable!("it became a replacement"),
                }
                let shown = |nodes: &[(u8, Option<u8>, bool)]| -> Vec<String> {
                    nodes.iter().filter(|node| !node.2).map(|node| node.0.to_string()).collect()
                };
                if model.revision > 0 {
                    prop_assert_eq!(ids(&store, false, None).unwrap(), shown(&model.nodes));
                    for leaf in 0..12_u8 {
                        prop_assert_eq!(ids(&store, true, Some(&leaf.to_string())).unwrap(), model.path(leaf));
                    }
                    let of_head = model.leaf.map_or_else(Vec::new, |leaf| model.path(leaf));
                    prop_assert_eq!(ids(&store, true, None).unwrap(), of_head);
                }
            }
            prop_assert_eq!(problems(&store), "[]");
            close(&store);
        }
    }
}
