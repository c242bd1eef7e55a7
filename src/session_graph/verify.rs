//! Is what is stored sound?

use std::collections::BTreeSet;

use super::error::missing_blob;
use super::graph;
use super::load::{checked_json, is_about_a_row, problem};
use super::manifest::Manifest;
use super::queue;
use super::sql::{Sql, all, first};
use super::tables::{blobs, gc, head, info, pins, usage};
use crate::error::{Code, HfError, Result};
use crate::json;

/// Everything that is wrong, as JSON objects. `deep` compares each blob with its hash and looks at each node.
pub(crate) fn problems(sql: &mut dyn Sql, deep: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    counters(sql, &mut found)?;
    roots(sql, &mut found)?;
    blocks(sql, deep, &mut found)?;
    for id in graph::circles(sql)? {
        found.push(problem("node", &id, "it is its own ancestor"));
    }
    graph::full(sql, &mut |seq, text| {
        let wrong = match text {
            Ok(Some(text)) if deep && json::validate(text.as_bytes()).is_err() => "it is no JSON",
            Ok(Some(_)) => return Ok(()),
            Ok(None) => "its contents are missing",
            Err(_) => "its contents are no text",
        };
        found.push(problem("node", &seq.to_string(), wrong));
        Ok(())
    })?;
    for (id, why) in queue::problems(sql)? {
        found.push(problem("queue", &id, &why));
    }
    if let Err(error) = usage::ledger(sql) {
        if !is_about_a_row(&error) {
            return Err(error);
        }
        found.push(problem("usage", "usage_totals", error.message()));
    }
    if deep {
        for hash in all(sql, "list blobs", "SELECT hash FROM blobs ORDER BY hash", &[], |row| row.string(0))? {
            match blobs::get(sql, &hash, "verify") {
                Err(error) if is_about_a_row(&error) => found.push(problem("blob", &hash, error.message())),
                other => drop(other?),
            }
        }
    }
    Ok(found)
}

fn counters(sql: &mut dyn Sql, found: &mut Vec<String>) -> Result<()> {
    let counted = info::get(sql)?;
    let nodes = "SELECT CAST(COALESCE(sum(1 - tombstoned), 0) AS BIGINT), CAST(COALESCE(sum(tombstoned), 0) AS BIGINT)
                 FROM graph_nodes";
    let (live, hidden) =
        first(sql, "count nodes", nodes, &[], |row| Ok((row.int(0)?, row.int(1)?)))?.unwrap_or_default();
    let bytes = "SELECT CAST(COALESCE(sum(length(content)), 0) AS BIGINT) FROM blobs";
    let bytes = first(sql, "count bytes", bytes, &[], |row| row.int(0))?.unwrap_or_default();
    for (name, counted, actual) in [
        ("live_nodes", counted.live_nodes, live),
        ("tombstoned_nodes", counted.tombstoned_nodes, hidden),
        ("blob_bytes", counted.blob_bytes, bytes),
    ] {
        if counted != actual {
            found.push(problem("head", name, &format!("it says {counted}, and there are {actual}")));
        }
    }
    Ok(())
}

/// What is there, and what it says cannot be used: a root that is said to be a manifest and is none ends every collection, and a state that
/// is no JSON (`deep`) every load. What is missing or damaged is told elsewhere.
fn blocks(sql: &mut dyn Sql, deep: bool, found: &mut Vec<String>) -> Result<()> {
    let known = |error: &HfError| match error.code() {
        Code::GraphMissingBlob => true,
        Code::GraphBlobCorrupt => deep,
        _ => false,
    };
    let (mut kept, mut checkpoints) = (BTreeSet::new(), BTreeSet::new());
    if let Some(head) = told(head::get(sql))?.flatten() {
        kept.extend(told(head.contents())?.map(|contents| contents.retained_blob_refs).unwrap_or_default());
        checkpoints.insert(head.checkpoint_ref);
    }
    for pin in told(pins::every(sql))?.unwrap_or_default() {
        kept.extend(told(pin.retained())?.unwrap_or_default());
        checkpoints.insert(pin.checkpoint_ref);
    }
    let names = all(sql, "list names", "SELECT blob_ref FROM artifact_refs", &[], |row| Ok(row.string(0).ok()))?;
    kept.extend(names.into_iter().flatten());
    for reference in &kept {
        // Those that are checkpoints, too, are told as such.
        match gc::expand(sql, reference, false) {
            Err(error) if known(&error) || checkpoints.contains(reference) => {}
            Err(error) if is_about_a_row(&error) => found.push(problem("manifest", reference, error.message())),
            other => drop(other?),
        }
    }
    let mut looked = BTreeSet::new();
    for reference in checkpoints.iter().filter(|_| deep) {
        let manifest = told(gc::expand(sql, reference, true))?.flatten();
        for (name, part) in manifest.iter().flat_map(Manifest::components) {
            if name == "executionState" || !looked.insert(part.to_owned()) {
                continue;
            }
            let Some(bytes) = told(blobs::get(sql, part, name))?.flatten() else { continue };
            if let Err(error) = checked_json(name, part, bytes) {
                found.push(problem("blob", part, error.message()));
            }
        }
    }
    Ok(())
}

/// Leaves out what is told elsewhere.
fn told<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Err(error) if is_about_a_row(&error) => Ok(None),
        other => other.map(Some),
    }
}

fn roots(sql: &mut dyn Sql, found: &mut Vec<String>) -> Result<()> {
    let Some(head) = head::get(sql)? else { return Ok(()) };
    let mut references = Vec::new();
    match head.contents() {
        Ok(contents) => references.extend(contents.retained_blob_refs),
        Err(error) => found.push(problem("head", "1", error.message())),
    }
    // The leaf need not be stored: a commit takes only one that is, but `vacuum` removes a hidden leaf like any hidden node, and the
    // head still says it. Its path is empty then, and the store is sound.
    let manifest = match blobs::get(sql, &head.checkpoint_ref, "checkpoint") {
        Ok(Some(bytes)) => Manifest::decode(&head.checkpoint_ref, &bytes),
        Ok(None) => Err(missing_blob(&head.checkpoint_ref, "checkpoint")),
        Err(error) => Err(error),
    };
    match manifest {
        Ok(manifest) => references.extend(manifest.components().map(|(_, part)| part.to_owned())),
        Err(error) if is_about_a_row(&error) => {
            found.push(problem("manifest", &head.checkpoint_ref, error.message()));
        }
        Err(error) => return Err(error),
    }
    references.extend(all(sql, "list names", "SELECT blob_ref FROM artifact_refs", &[], |row| row.string(0))?);
    for pin in pins::every(sql)? {
        match pin.retained() {
            Ok(retained) => references.extend(retained),
            Err(error) => found.push(problem("head", &pin.name, error.message())),
        }
        match gc::expand(sql, &pin.checkpoint_ref, true) {
            Ok(manifest) => {
                references.extend(manifest.iter().flat_map(Manifest::components).map(|(_, part)| part.to_owned()))
            }
            Err(error) if is_about_a_row(&error) => {
                found.push(problem("manifest", &pin.checkpoint_ref, error.message()));
            }
            Err(error) => return Err(error),
        }
    }
    for reference in references {
        match blobs::require(sql, &reference, "reference") {
            Err(error) if is_about_a_row(&error) => found.push(problem("blob", &reference, error.message())),
            other => other?,
        }
    }
    Ok(())
}
