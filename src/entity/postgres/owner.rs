//! Who is alive: each open log has a mark of its presence, named after itself, and what dead ones left is taken over.

use std::time::Duration;

use super::layout::{Layout, micros, storable};
use crate::entity::model::{OrphanIntent, Orphans};
use crate::error::Result;
use crate::postgres::types::{ToSql, Type};
use crate::postgres::{Postgres, Presence};

/// After a restart of the server nobody holds a lock until he has connected again.
const GRACE: Duration = Duration::from_secs(5);
/// Who lost his connection alone takes his lock again at once, and looks every second whether he holds it.
const SECOND_LOOK: Duration = Duration::from_millis(1500);

/// The mark of an owner's presence.
pub fn mark_of(owner: &str) -> String {
    format!("holdfast entity owner {owner}")
}

/// The advisory lock of an owner.
fn key_of(owner: &str) -> i64 {
    Presence::key(&mark_of(owner))
}

/// Finds the owners of intents and events whose lock nobody holds right now. Also tells how long the server has been up.
async fn dead_owners(postgres: &Postgres, layout: &Layout, kind: &str, me: &str) -> Result<(Vec<String>, Duration)> {
    let s = &layout.schema;
    let mine: [(&(dyn ToSql + Sync), Type); 2] = [(&kind, Type::TEXT), (&me, Type::TEXT)];
    let sql = format!(
        "SELECT owner, extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 FROM \
         (SELECT owner FROM {s}.entity_intents WHERE kind = $1 AND owner <> $2 \
          UNION SELECT owner FROM {s}.entity_changes WHERE kind = $1 AND owner <> $2 AND delivered_at IS NULL) AS o ORDER BY owner"
    );
    postgres
        .transaction(async |db| {
            let (mut dead, mut up) = (Vec::new(), Duration::ZERO);
            for row in db.fetch("looking for orphans", &sql, &mine).await? {
                let owner: String = row.get(0);
                up = Duration::try_from_secs_f64(row.get(1)).unwrap_or_default();
                let key = key_of(&owner);
                let asked: [(&(dyn ToSql + Sync), Type); 1] = [(&key, Type::INT8)];
                let free = "SELECT pg_try_advisory_xact_lock($1)";
                if db.fetch("asking whether an owner is alive", free, &asked).await?.iter().any(|row| row.get(0)) {
                    dead.push(owner);
                }
            }
            Ok((dead, up))
        })
        .await
}

/// Takes over what dead owners left of a kind; takes some seconds where there are any.
///
/// # Errors
/// Nothing is taken over then.
pub async fn claim(postgres: &Postgres, layout: &Layout, kind: &str, me: &str) -> Result<Orphans> {
    let kind = storable(kind);
    let s = &layout.schema;
    let (dead, since_start) = dead_owners(postgres, layout, &kind, me).await?;
    if dead.is_empty() {
        return Ok(Orphans::default());
    }
    tokio::time::sleep(SECOND_LOOK.max(GRACE.saturating_sub(since_start))).await;
    postgres
        .transaction(async |db| {
            let mut orphans = Orphans::default();
            for owner in &dead {
                let key = key_of(owner);
                let asked: [(&(dyn ToSql + Sync), Type); 1] = [(&key, Type::INT8)];
                // Held until the end of the transaction, so that of two who look only one takes over.
                let free = "SELECT pg_try_advisory_xact_lock($1)";
                if !db.fetch("asking whether an owner is alive", free, &asked).await?.iter().any(|row| row.get(0)) {
                    continue;
                }
                let theirs: [(&(dyn ToSql + Sync), Type); 2] = [(&kind, Type::TEXT), (&owner, Type::TEXT)];
                let intents = format!(
                    "SELECT change_id, entity_id, op, prev::text, marks, actor::text, run_id, {} FROM {s}.entity_intents \
                     WHERE kind = $1 AND owner = $2 ORDER BY created_at, change_id",
                    micros("created_at")
                );
                for row in db.fetch("reading orphaned intents", &intents, &theirs).await? {
                    orphans.intents.push(OrphanIntent {
                        change_id: row.get(0),
                        entity_id: row.get(1),
                        op: row.get(2),
                        prev: row.get(3),
                        marks: row.get(4),
                        actor: row.get(5),
                        run_id: row.get(6),
                        created_us: row.get(7),
                    });
                }
                let events = format!(
                    "SELECT payload::text FROM {s}.entity_changes WHERE kind = $1 AND owner = $2 AND delivered_at IS NULL \
                     ORDER BY seq"
                );
                for row in db.fetch("reading orphaned events", &events, &theirs).await? {
                    orphans.events.push(row.get(0));
                }
                let taken: [(&(dyn ToSql + Sync), Type); 3] =
                    [(&kind, Type::TEXT), (&owner, Type::TEXT), (&me, Type::TEXT)];
                for sql in [
                    format!("UPDATE {s}.entity_intents SET owner = $3 WHERE kind = $1 AND owner = $2"),
                    format!(
                        "UPDATE {s}.entity_changes SET owner = $3 WHERE kind = $1 AND owner = $2 AND delivered_at IS NULL"
                    ),
                ] {
                    db.run("taking over from a dead owner", &sql, &taken).await?;
                }
            }
            Ok(orphans)
        })
        .await
}
