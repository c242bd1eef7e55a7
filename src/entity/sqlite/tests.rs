//! The log by itself: what a change costs, and what is not there twice. Everything else is tested through the package.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::entity::model::Op;

struct Bench {
    log: Arc<SqliteLog>,
    kind: Arc<Kind>,
}

/// Calls, and waits for the answer.
fn wait<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T> {
    let (tell, told) = channel();
    call(Box::new(move |outcome| drop(tell.send(outcome))));
    told.recv_timeout(Duration::from_secs(10)).expect("never answered")
}

fn state(status: usize, filler: usize) -> String {
    format!(r#"{{"status":"s{status}","text":"{}"}}"#, "x".repeat(filler))
}

fn plain(change_id: &str, index: usize, to_value: &str) -> PlainRow {
    PlainRow {
        kind: "k".into(),
        entity_id: "e".into(),
        field: "status".into(),
        from_value: None,
        to_value: to_value.into(),
        index,
        change_id: change_id.into(),
        masked: false,
    }
}

impl Bench {
    fn open(path: &Path) -> Self {
        let options = Options::new(APPLICATION_ID, MIGRATIONS);
        let log = SqliteLog::new(Target::File(path.to_owned()), options, Durability::Journal);
        wait(|done| log.open(done)).unwrap();
        Self { log, kind: Arc::new(Kind { name: "k".into(), known: None }) }
    }

    fn staged(&self, change: usize, filler: usize) -> Arc<Staged> {
        Arc::new(Staged {
            change_id: format!("change-{change}"),
            kind: Arc::clone(&self.kind),
            id: "e".into(),
            op: Op::Mutate,
            prev: (change > 0).then(|| state(change - 1, filler)),
            actor: "null".into(),
            run_id: None,
            secrets: None,
            mask_all_changed: false,
            marks: None,
            has_intent: true,
            orphaned_at: None,
            began_ms: 1000.0,
        })
    }

    fn outcome(change: usize, filler: usize, again: bool) -> Outcome {
        let next = Some(state(change, filler));
        Outcome { next, occurred_at: String::new(), now_ms: 1000.0, derived: None, again }
    }

    fn change(&self, change: usize, filler: usize) {
        let staged = self.staged(change, filler);
        wait(|done| self.log.begin(Arc::clone(&staged), done)).unwrap();
        wait(|done| self.log.append(Arc::clone(&staged), Self::outcome(change, filler, false), done)).unwrap().unwrap();
        self.log.delivered(vec![staged.change_id.clone()]);
    }

    fn rows(&self) -> Vec<HistoryRow> {
        let all = HistoryQuery {
            kind: "k".into(),
            entity_id: "e".into(),
            field: Some("status".into()),
            from_ms: None,
            to_ms: None,
            limit: 1000,
            after: None,
            ascending: true,
        };
        wait(|done| self.log.history(all, done)).unwrap()
    }

    fn since(&self, value: &str) -> Option<i64> {
        let question = Question { kind: "k".into(), entity_id: "e".into(), field: "status".into() };
        Here::in_state_since(&*self.log, &question, value).unwrap()
    }
}

#[test]
fn a_change_touches_few_pages() {
    for (filler, most) in [(200, 7), (2000, 10)] {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::open(&folder.path().join("e.db"));
        let pages = || std::fs::metadata(folder.path().join("e.db-wal")).unwrap().len() as usize / 4096;
        (0..10).for_each(|change| bench.change(change, filler));
        let before = pages();
        (10..60).for_each(|change| bench.change(change, filler));
        let each = (pages() - before) as f64 / 50.0;
        // A page that is full is split now and then, and a slow machine stamps events by themselves.
        assert!(each < most as f64 + 1.0, "{each} pages per change of {filler} bytes");
        wait(|done| bench.log.close(done)).unwrap();
    }
}

#[test]
fn a_change_is_recorded_once_however_often_it_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder.path().join("e.db"));
    let staged = bench.staged(0, 0);
    wait(|done| bench.log.begin(Arc::clone(&staged), done)).unwrap();
    assert_eq!(wait(|done| bench.log.stats(done)).unwrap().intents, 1);
    for _ in 0..2 {
        let outcome = Bench::outcome(0, 0, true);
        assert_eq!(wait(|done| bench.log.append(Arc::clone(&staged), outcome, done)).unwrap().unwrap().count, 2);
    }
    let ids = || bench.rows().into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(), ["change-0.0"]);
    let stats = wait(|done| bench.log.stats(done)).unwrap();
    assert_eq!((stats.undelivered, stats.intents), (1, 0));
    for count in [2, 3] {
        let rows = (0..count).map(|index| plain("plain", index, &format!("p{index}"))).collect();
        wait(|done| bench.log.append_rows(rows, 2000.0, done)).unwrap();
    }
    assert_eq!(ids(), ["change-0.0", "plain.0", "plain.1", "plain.2"]);
    wait(|done| bench.log.close(done)).unwrap();
}

#[test]
fn since_when_finds_the_latest_and_earlier_values_however_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder.path().join("e.db"));
    assert_eq!(bench.since("\"s0\""), None, "no history");
    (0..3).for_each(|change| bench.change(change, 0));
    let times = || bench.rows().iter().map(|row| Some(row.at_us)).collect::<Vec<_>>();
    let found = ["\"\\u00730\"", "\"s1\"", "\"s2\""].map(|value| bench.since(value));
    assert_eq!(found.to_vec(), times());
    assert_eq!(bench.since("\"s9\""), None);
    for text in ["42", "s1"] {
        wait(|done| bench.log.append_rows(vec![plain(text, 0, text)], 1000.0, done)).unwrap();
    }
    let found = ["\"s0\"", "\"s2\"", "42", "\"s1\""].map(|value| bench.since(value));
    let mut wanted = times();
    wanted.remove(1);
    assert_eq!(found.to_vec(), wanted);
    assert_eq!(bench.since("\"42\""), bench.since("42"));
    wait(|done| bench.log.close(done)).unwrap();
}
