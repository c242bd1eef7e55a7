//! Hearing of the changes of other processes: a notification names them, the change log has them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use super::{Inner, lock};
use crate::entity::log::Heard;
use crate::entity::model::Done;
use crate::error::Result;
use crate::postgres::types::{ToSql, Type};
use crate::postgres::{Listener, Notice};

/// Changes that were told are remembered, so that looking again after a broken connection tells none twice.
const REMEMBERED: usize = 20_000;

/// The listening of one log.
#[derive(Default)]
pub struct Watch {
    listener: Mutex<Option<Listener>>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    ids: HashSet<String>,
    order: VecDeque<String>,
    /// Whether listening was in force before: the first time there is nothing to catch up with.
    before: bool,
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
        let done = Mutex::new(Some(done));
        let log = Arc::downgrade(inner);
        let heard: Arc<Heard> = Arc::new(heard);
        let listener = inner.postgres.listen(channel, move |notice| {
            let Some(inner) = Weak::upgrade(&log) else { return };
            let heard = Arc::clone(&heard);
            match notice {
                Notice::Message(payload) => {
                    let Some((origin, ids)) = payload.split_once(':') else { return };
                    if origin == inner.shared.owner {
                        return;
                    }
                    let ids: Vec<String> = ids.split(',').map(str::to_owned).collect();
                    let postgres = inner.postgres.clone();
                    postgres.spawn(async move { tell(&inner, &heard, Some(ids)).await });
                }
                Notice::Reconnected => {
                    if let Some(done) = lock(&done).take() {
                        done(Ok(()));
                    }
                    if std::mem::replace(&mut lock(&inner.watch.told).before, true) {
                        let postgres = inner.postgres.clone();
                        postgres.spawn(async move { tell(&inner, &heard, None).await });
                    }
                }
                Notice::Lost(error) => {
                    // Attempts go on; who waits for the first one is told why it takes so long.
                    if let Some(done) = lock(&done).take() {
                        done(Err(error));
                    }
                }
            }
        });
        *lock(&self.listener) = Some(listener);
    }

    /// Ends the listening.
    pub(super) fn stop(&self) {
        let listener = lock(&self.listener).take();
        drop(listener);
    }
}

/// Reads changes, those of `ids` or all recent ones, and tells those that were not told.
async fn tell(inner: &Inner, heard: &Heard, ids: Option<Vec<String>>) {
    let read = async || read(inner, ids.as_deref()).await;
    // Where the server stays away, the next reconnection looks again.
    let Ok(found) = inner.postgres.retry_idempotent(super::RETRY, read).await else { return };
    let fresh: Vec<String> = {
        let mut told = lock(&inner.watch.told);
        found.into_iter().filter(|(id, _)| told.add(id)).map(|(_, payload)| payload).collect()
    };
    if !fresh.is_empty() {
        heard(fresh);
    }
}

async fn read(inner: &Inner, ids: Option<&[String]>) -> Result<Vec<(String, String)>> {
    let layout = inner.layout()?;
    let client = inner.postgres.client().await?;
    let wanted = match ids {
        Some(_) => "change_id = ANY($1)",
        None => "$1::text[] IS NULL AND created_at > clock_timestamp() - interval '5 minutes'",
    };
    let sql = format!(
        "SELECT change_id, payload::text FROM {}.entity_changes WHERE held AND owner <> $2 AND {wanted} ORDER BY seq",
        layout.schema
    );
    let owner = inner.shared.owner.as_str();
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&ids, Type::TEXT_ARRAY), (&owner, Type::TEXT)];
    let rows = client.fetch("reading changes of other processes", &sql, &params).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
