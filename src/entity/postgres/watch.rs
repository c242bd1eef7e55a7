//! Hearing of the changes of other processes: a notification names them, the change log has them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use super::layout::micros;
use super::{Inner, lock};
use crate::entity::log::Heard;
use crate::entity::model::Done;
use crate::error::Result;
use crate::postgres::types::{ToSql, Type};
use crate::postgres::{Listener, Notice};

/// Changes that were told are remembered, so that looking again after a broken connection tells none twice.
const REMEMBERED: usize = 20_000;
/// How long after a failed reading the next is tried.
const AGAIN: Duration = Duration::from_millis(200);

/// The listening of one log.
#[derive(Default)]
pub struct Watch {
    listener: Mutex<Option<Listener>>,
    /// Who waits for the listening to be in force.
    starting: Mutex<Option<Done<()>>>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    ids: HashSet<String>,
    order: VecDeque<String>,
    /// When listening was in force for the first time, in microseconds by the server's clock: nothing from before is caught up with.
    since: Option<i64>,
}

impl Told {
    /// Remembers a change; `false` if it was told already.
    fn add(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

impl Watch {
    /// Begins to listen; `heard` gets the payloads of changes of other processes that are committed after `done`.
    pub(super) fn start(&self, inner: &Arc<Inner>, channel: &str, heard: Heard, done: Done<()>) {
        *lock(&self.starting) = Some(done);
        // One reader, so that changes are told in the order in which they were recorded.
        let (ask, asked) = mpsc::unbounded_channel();
        inner.postgres.spawn(tell_in_order(Arc::downgrade(inner), heard, asked));
        let log = Arc::downgrade(inner);
        let listener = inner.postgres.listen(channel, move |notice| {
            let Some(inner) = Weak::upgrade(&log) else { return };
            // Where nobody reads any more, the log is being closed.
            let ask = |wanted| _ = ask.send(wanted);
            match notice {
                Notice::Message(payload) => match payload.split_once(':') {
                    Some((origin, ids)) if origin != inner.shared.owner => {
                        ask(Wanted { ids: ids.split(',').map(str::to_owned).collect(), recent: false });
                    }
                    _ => {}
                },
                Notice::Reconnected => {
                    inner.watch.started(Ok(()));
                    ask(Wanted { ids: Vec::new(), recent: true });
                }
                // Attempts go on; who waits for the first one is told why it takes so long.
                Notice::Lost(error) => inner.watch.started(Err(error)),
            }
        });
        *lock(&self.listener) = Some(listener);
    }

    fn started(&self, outcome: Result<()>) {
        let starting = lock(&self.starting).take();
        if let Some(done) = starting {
            done(outcome);
        }
    }

    /// Ends the listening.
    pub(super) fn stop(&self) {
        let listener = lock(&self.listener).take();
        drop(listener);
        self.started(Err(super::closed()));
    }
}

/// What is to be read.
#[derive(Default)]
struct Wanted {
    /// Changes that were announced.
    ids: Vec<String>,
    /// All of the last minutes, since listening began: some announcements may have been missed.
    recent: bool,
}

/// Reads what was announced, everything that waits at a time, and tells it; until the listening ends.
async fn tell_in_order(log: Weak<Inner>, heard: Heard, mut asked: mpsc::UnboundedReceiver<Wanted>) {
    while let Some(mut wanted) = asked.recv().await {
        while let Ok(more) = asked.try_recv() {
            wanted.ids.extend(more.ids);
            wanted.recent |= more.recent;
        }
        loop {
            let Some(inner) = log.upgrade().filter(|inner| !lock(&inner.queue).closed) else { return };
            if let Ok(found) = read(&inner, &wanted).await {
                tell(&inner, &heard, found);
                break;
            }
            drop(inner);
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Tells what was not told yet.
fn tell(inner: &Inner, heard: &Heard, found: Vec<(String, String)>) {
    let fresh: Vec<String> = {
        let mut told = lock(&inner.watch.told);
        found.into_iter().filter(|(id, _)| told.add(id)).map(|(_, payload)| payload).collect()
    };
    if !fresh.is_empty() {
        heard(fresh);
    }
}

async fn read(inner: &Inner, wanted: &Wanted) -> Result<Vec<(String, String)>> {
    let layout = inner.layout()?;
    let client = inner.postgres.client().await?;
    let known = lock(&inner.watch.told).since;
    let since = match known {
        Some(since) => since,
        None => {
            let now = format!("SELECT {}", micros("clock_timestamp()"));
            let rows = client.fetch("reading changes of other processes", &now, &[]).await?;
            let now = rows.first().map_or(i64::MIN, |row| row.get(0));
            *lock(&inner.watch.told).since.get_or_insert(now)
        }
    };
    // Two statements: announced changes are looked up, whatever there is besides.
    let which = if wanted.recent {
        format!("OR (created_at > clock_timestamp() - interval '5 minutes' AND {} > $3)", micros("created_at"))
    } else {
        "AND $3::int8 IS NOT NULL".to_owned()
    };
    let sql = format!(
        "SELECT change_id, payload::text FROM {}.entity_changes WHERE held AND owner <> $2 AND (change_id = ANY($1) {which}) \
         ORDER BY seq",
        layout.schema,
    );
    let owner = inner.shared.owner.as_str();
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&wanted.ids, Type::TEXT_ARRAY), (&owner, Type::TEXT), (&since, Type::INT8)];
    let rows = client.fetch("reading changes of other processes", &sql, &params).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
