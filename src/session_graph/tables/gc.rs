//! Which blobs somebody can still reach, and the removal of the others, slice by slice.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::blobs::{self, Listed};
use super::{head, info, pins};
use crate::error::{Code, HfError, Result};
use crate::json;
use crate::session_graph::blob::{GENERIC, MANIFEST, RAW};
use crate::session_graph::error::missing_blob;
use crate::session_graph::manifest::{BEGINNING, Manifest};
use crate::session_graph::sql::{Sql, all};

/// Blobs that one slice looks at,
const LOOKED_AT_MAX: usize = 600;
/// and those that it removes.
const REMOVED_MAX: usize = 500;
/// How long one slice keeps other writers of a file from writing, before its sync.
const TIME_MAX: Duration = Duration::from_millis(5);
/// So many are removed before somebody looks at the clock.
const LOOK_EVERY: usize = 16;
/// A blob without a description that is not larger is read, whatever it begins with.
const SMALL: i64 = 64 * 1024;

/// What roots name, by their references and whether they are known to be manifests. The content of a reference never changes, so it
/// is read once, also if the slice that read it was undone.
type Known = Arc<Mutex<HashMap<(String, bool), Vec<String>>>>;

/// How far a collection has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// Where the next slice begins: the last blob that was looked at.
    after: Listed,
    known: Known,
    roots: usize,
    retained: usize,
    removed: i64,
    freed: i64,
    aborted: Option<(String, Option<String>)>,
    over: bool,
}

impl Progress {
    /// Whether nothing is left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// As JSON. From the moment it could not be told what is alive nothing was removed; what earlier slices removed is counted.
    pub(crate) fn report(&self) -> String {
        let (aborted, counts) = match &self.aborted {
            None => (String::new(), (self.roots, self.retained, self.removed, self.freed)),
            Some((reason, reference)) => {
                let reference = reference.as_ref().map_or_else(String::new, |r| format!(",\"ref\":{}", json::quote(r)));
                let aborted = format!(",\"aborted\":{{\"reason\":{}{reference}}}", json::quote(reason));
                (aborted, (0, 0, self.removed, self.freed))
            }
        };
        format!(
            "{{\"rootCount\":{},\"retainedBlobCount\":{},\"deletedBlobCount\":{},\"freedBytes\":{}{aborted}}}",
            counts.0, counts.1, counts.2, counts.3
        )
    }
}

/// Why it cannot be told what is alive.
struct Unproven {
    reason: String,
    reference: Option<String>,
}

/// What can be reached.
struct Marked {
    roots: usize,
    live: HashSet<String>,
    /// Whether some roots were not read yet, since others wait.
    is_unfinished: bool,
}

/// Removes one slice of what nobody can reach and what is older than `age_ms`.
pub(crate) fn slice(sql: &mut dyn Sql, age_ms: i64, mut progress: Progress) -> Result<Progress> {
    let marked = match mark(sql, &progress.known)? {
        Ok(marked) => marked,
        Err(unproven) => {
            progress.aborted = Some((unproven.reason, unproven.reference));
            progress.over = true;
            return Ok(progress);
        }
    };
    if marked.is_unfinished {
        return Ok(progress);
    }
    let youngest = sql.now()?.saturating_sub(age_ms);
    let others_wait = sql.is_embedded();
    let found = blobs::behind(sql, &progress.after, LOOKED_AT_MAX as i64)?;
    let begun = Instant::now();
    // Elsewhere nobody waits for a slice, and the time is that of the way to the server.
    let is_late =
        |removed: usize| others_wait && removed > 0 && removed.is_multiple_of(LOOK_EVERY) && begun.elapsed() > TIME_MAX;
    let (mut removed, mut freed_here) = (0, 0);
    progress.over = found.len() < LOOKED_AT_MAX;
    for blob in &found {
        if removed == REMOVED_MAX || is_late(removed) {
            progress.over = false;
            break;
        }
        progress.after.clone_from(blob);
        if blob.created_at_ms > youngest || marked.live.contains(&blob.hash) {
            continue;
        }
        if blobs::remove(sql, blob)? {
            progress.removed += 1;
            freed_here += blob.bytes;
        }
        removed += 1;
    }
    if freed_here > 0 {
        progress.freed += freed_here;
        info::add_bytes(sql, -freed_here)?;
    }
    progress.roots = marked.roots;
    progress.retained = marked.live.len();
    Ok(progress)
}

fn mark(sql: &mut dyn Sql, known: &Known) -> Result<std::result::Result<Marked, Unproven>> {
    let mut live = HashSet::new();
    let mut roots: Vec<(String, bool)> = Vec::new();
    let head = match head::get(sql) {
        Ok(head) => head,
        Err(error) if is_undecodable(&error) => return Ok(Err(unproven(&error, None))),
        Err(error) => return Err(error),
    };
    if let Some(head) = &head {
        match head.contents() {
            Ok(contents) => {
                roots.push((head.checkpoint_ref.clone(), true));
                roots.extend(contents.retained_blob_refs.into_iter().map(|reference| (reference, false)));
            }
            Err(error) => return Ok(Err(unproven(&error, None))),
        }
    }
    let named = all(sql, "look for names", "SELECT DISTINCT blob_ref FROM artifact_refs", &[], |row| {
        Ok((row.string(0)?, false))
    });
    match named {
        Ok(named) => roots.extend(named),
        Err(error) if is_undecodable(&error) => return Ok(Err(unproven(&error, None))),
        Err(error) => return Err(error),
    }
    let pinned = pins::every(sql).and_then(|pins| {
        pins.into_iter().map(|pin| Ok((pin.retained()?, pin.checkpoint_ref))).collect::<Result<Vec<_>>>()
    });
    match pinned {
        Ok(pinned) => {
            for (retained, checkpoint) in pinned {
                roots.push((checkpoint, true));
                roots.extend(retained.into_iter().map(|reference| (reference, false)));
            }
        }
        Err(error) if is_undecodable(&error) => return Ok(Err(unproven(&error, None))),
        Err(error) => return Err(error),
    }
    let mut seen = HashSet::new();
    roots.retain(|(reference, _)| seen.insert(reference.clone()));
    // Nothing that can panic leaves it half changed.
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let others_wait = sql.is_embedded();
    let mut begun = None;
    for (reference, is_manifest) in &roots {
        live.insert(reference.clone());
        let root = (reference.clone(), *is_manifest);
        if let Some(parts) = known.get(&root) {
            live.extend(parts.iter().cloned());
            continue;
        }
        if others_wait && begun.get_or_insert_with(Instant::now).elapsed() > TIME_MAX {
            return Ok(Ok(Marked { roots: roots.len(), live, is_unfinished: true }));
        }
        match expand(sql, reference, *is_manifest) {
            Ok(manifest) => {
                let parts = manifest.iter().flat_map(Manifest::components).map(|(_, part)| part.to_owned());
                let parts: Vec<String> = parts.collect();
                live.extend(parts.iter().cloned());
                known.insert(root, parts);
            }
            Err(error) if is_undecodable(&error) => return Ok(Err(unproven(&error, Some(reference)))),
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(Marked { roots: roots.len(), live, is_unfinished: false }))
}

/// Reads the manifest that a root is, if it is one.
pub(crate) fn expand(sql: &mut dyn Sql, reference: &str, is_manifest: bool) -> Result<Option<Manifest>> {
    let sketch = blobs::sketch(sql, reference)?.ok_or_else(|| missing_blob(reference, "root"))?;
    if is_manifest || sketch.kind == MANIFEST {
        let bytes = blobs::get(sql, reference, "root")?;
        return bytes.map(|bytes| Manifest::decode(reference, &bytes)).transpose();
    }
    if sketch.kind != GENERIC {
        return Ok(None);
    }
    // A manifest that was first stored as a blob without a description keeps what it names all the same. A large artifact is not read
    // to learn that it is none; how a compressed one begins is not known before it is read.
    if sketch.codec == RAW
        && sketch.raw_len > SMALL
        && !Manifest::may_begin(&blobs::beginning(sql, reference, &sketch, BEGINNING)?)
    {
        return Ok(None);
    }
    // A damaged one may be a manifest, so it is an error.
    let bytes = blobs::get(sql, reference, "root")?;
    Ok(bytes.and_then(|bytes| Manifest::decode(reference, &bytes).ok()))
}

/// An error about what is stored, not about the database.
fn is_undecodable(error: &HfError) -> bool {
    let about_a_row = matches!(
        error.code(),
        Code::GraphMissingBlob
            | Code::GraphBlobCorrupt
            | Code::GraphRecordDecode
            | Code::GraphUnsupportedRecordSchemaVersion
    );
    about_a_row || (error.code() == Code::Corrupt && !error.fields().contains_key("sqliteCode"))
}

fn unproven(error: &HfError, reference: Option<&str>) -> Unproven {
    Unproven { reason: error.message().to_owned(), reference: reference.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::session_graph::blob::{Packed, Profile, pack};
    use crate::session_graph::sql::sqlite::Sqlite;
    use crate::session_graph::tables::artifacts;

    fn generic(content: Vec<u8>) -> Packed {
        pack(Profile::LowLatency, GENERIC, false, content)
    }

    fn store() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("../../../migrations/sqlite/session_graph/0003_session.sql")).unwrap();
        db
    }

    fn damage(db: &Connection, reference: &str, content: &[u8]) {
        let changed = db.execute("UPDATE blobs SET content = ?2 WHERE hash = ?1", (reference, content)).unwrap();
        assert_eq!(changed, 1);
    }

    #[test]
    fn a_damaged_root_ends_it_and_what_is_no_manifest_for_sure_is_not_read() {
        let (db, large) = (store(), vec![b'x'; 100_000]);
        let (small, large) = (generic(b"{}".to_vec()), generic(large));
        artifacts::put(&mut Sqlite(&db), "large", &large).unwrap();
        damage(&db, &large.hash, &[b'y'; 100_000]);
        assert!(slice(&mut Sqlite(&db), 0, Progress::default()).unwrap().aborted.is_none());
        artifacts::put(&mut Sqlite(&db), "small", &small).unwrap();
        assert!(slice(&mut Sqlite(&db), 0, Progress::default()).unwrap().aborted.is_none());
        damage(&db, &small.hash, b"{ ");
        let (_, reference) = slice(&mut Sqlite(&db), 0, Progress::default()).unwrap().aborted.unwrap();
        assert_eq!(reference, Some(small.hash));
    }

    #[test]
    fn a_named_manifest_of_any_size_keeps_what_it_names() {
        for length in [10, 100_000] {
            let db = store();
            let part = generic(vec![b'p'; 70_000]);
            let text =
                format!("{{\"toolStateRef\":\"{}\",\"turnState\":\"{}\",\"v\":1}}", part.hash, "t".repeat(length));
            artifacts::put(&mut Sqlite(&db), "manifest", &generic(text.into_bytes())).unwrap();
            blobs::put(&mut Sqlite(&db), &part, 0).unwrap();
            let over = slice(&mut Sqlite(&db), 0, Progress::default()).unwrap();
            assert_eq!((over.roots, over.retained, over.removed), (1, 2, 0));
        }
    }

    #[test]
    fn each_root_is_read_once() {
        let db = store();
        let root = generic(b"root".to_vec());
        artifacts::put(&mut Sqlite(&db), "root", &root).unwrap();
        for number in 0..2 * LOOKED_AT_MAX {
            blobs::put(&mut Sqlite(&db), &generic(number.to_le_bytes().to_vec()), 0).unwrap();
        }
        let first = slice(&mut Sqlite(&db), 0, Progress::default()).unwrap();
        assert!(!first.is_over());
        damage(&db, &root.hash, b"toor");
        assert!(slice(&mut Sqlite(&db), 0, first).unwrap().aborted.is_none());
    }
}
