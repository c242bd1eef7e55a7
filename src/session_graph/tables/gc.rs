//! Which blobs somebody can still reach, and the removal of the others, slice by slice.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::blobs::{self, Listed};
use super::{head, info, pins};
use crate::error::{Code, HfError, Result};
use crate::json;
use crate::session_graph::blob::{GENERIC, MANIFEST};
use crate::session_graph::manifest::Manifest;
use crate::session_graph::sql::{Sql, all};

/// Blobs that one slice looks at,
const LOOKED_AT_MAX: usize = 600;
/// and those that it removes.
const REMOVED_MAX: usize = 500;
/// How long one slice keeps other writers of a file from writing, before its sync.
const TIME_MAX: Duration = Duration::from_millis(5);
/// So many are removed before somebody looks at the clock.
const LOOK_EVERY: usize = 16;

/// How far a collection has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// Where the next slice begins: the last blob that was looked at.
    after: Listed,
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

    /// As JSON. One that could not prove what is alive has removed nothing, in any slice.
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
}

/// Removes one slice of what nobody can reach and what is older than `age_ms`.
pub(crate) fn slice(sql: &mut dyn Sql, age_ms: i64, mut progress: Progress) -> Result<Progress> {
    let marked = match mark(sql)? {
        Ok(marked) => marked,
        Err(unproven) => {
            progress.aborted = Some((unproven.reason, unproven.reference));
            progress.over = true;
            return Ok(progress);
        }
    };
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

fn mark(sql: &mut dyn Sql) -> Result<std::result::Result<Marked, Unproven>> {
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
    for (reference, is_manifest) in &roots {
        live.insert(reference.clone());
        match expand(sql, reference, *is_manifest) {
            Ok(Some(manifest)) => live.extend(manifest.components().map(|(_, part)| part.to_owned())),
            Ok(None) => {}
            Err(error) if is_undecodable(&error) => return Ok(Err(unproven(&error, Some(reference)))),
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(Marked { roots: roots.len(), live }))
}

/// Reads the manifest that a root is, if it is one.
pub(crate) fn expand(sql: &mut dyn Sql, reference: &str, is_manifest: bool) -> Result<Option<Manifest>> {
    let Some(kind) = blobs::kind(sql, reference)? else {
        return Err(crate::session_graph::error::missing_blob(reference, "root"));
    };
    if is_manifest || kind == MANIFEST {
        let bytes = blobs::get(sql, reference, "root")?;
        return bytes.map(|bytes| Manifest::decode(reference, &bytes)).transpose();
    }
    // A manifest that was first stored as a blob without a description keeps what it names all the same.
    if kind == GENERIC {
        let bytes = blobs::get(sql, reference, "root").ok().flatten();
        return Ok(bytes.and_then(|bytes| Manifest::decode(reference, &bytes).ok()));
    }
    Ok(None)
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
