//! Is what is stored sound?

use std::collections::BTreeSet;

use super::error::missing_blob;
use super::graph;
use super::load::{checked_json, is_about_a_row, problem};
use super::manifest::Manifest;
use super::queue;
use super::sql::{Sql, all, first};
use super::tables::head::{self, Head};
use super::tables::{blobs, gc, info, pins, usage};
use crate::error::{Code, HfError, Result};
use crate::json;

/// Everything that is wrong, as JSON objects. `deep` compares each blob with its hash and looks at each node.
pub(crate) fn problems(sql: &mut dyn Sql, deep: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    counters(sql, &mut found)?;
    roots(sql, &mut found)?;
    blocks(sql, deep, &mut found)?;
    for (hash, why) in blobs::misplaced(sql)? {
        found.push(problem("blob", &hash, why));
    }
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
    let mut references = Vec::new();
    if let Some(head) = sound(head::get(sql), ("head", "1"), found)?.flatten() {
        of_head(sql, &head, &mut references, found)?;
    }
    let names = "SELECT artifact_ref, blob_ref FROM artifact_refs ORDER BY artifact_ref";
    let names = all(sql, "list names", names, &[], |row| Ok((row.string(0), row.string(1))))?;
    for (name, reference) in names {
        let name = name.unwrap_or_default();
        references.extend(sound(reference, ("blob", &name), found)?);
    }
    for (name, pin) in pins::readable(sql)? {
        let Some(pin) = sound(pin, ("head", &name), found)? else { continue };
        references.extend(sound(pin.retained(), ("head", &name), found)?.into_iter().flatten());
        let manifest = gc::expand(sql, &pin.checkpoint_ref, true);
        let manifest = sound(manifest, ("manifest", &pin.checkpoint_ref), found)?.flatten();
        references.extend(manifest.iter().flat_map(Manifest::components).map(|(_, part)| part.to_owned()));
    }
    for reference in references {
        sound(blobs::require(sql, &reference, "reference"), ("blob", &reference), found)?;
    }
    Ok(())
}

/// What the head keeps, and what is wrong with it.
fn of_head(sql: &mut dyn Sql, head: &Head, references: &mut Vec<String>, found: &mut Vec<String>) -> Result<()> {
    let contents = sound(head.contents(), ("head", "1"), found)?;
    references.extend(contents.into_iter().flat_map(|contents| contents.retained_blob_refs));
    // The leaf need not be stored: a commit takes only one that is, but `vacuum` removes a hidden leaf like any hidden node, and the
    // head still says it. Its path is empty then, and the store is sound.
    let manifest = match blobs::get(sql, &head.checkpoint_ref, "checkpoint") {
        Ok(Some(bytes)) => Manifest::decode(&head.checkpoint_ref, &bytes),
        Ok(None) => Err(missing_blob(&head.checkpoint_ref, "checkpoint")),
        Err(error) => Err(error),
    };
    let manifest = sound(manifest, ("manifest", &head.checkpoint_ref), found)?;
    references.extend(manifest.iter().flat_map(Manifest::components).map(|(_, part)| part.to_owned()));
    Ok(())
}

/// Notes an error about what is stored, under the kind and the key of what it is about; any other passes.
fn sound<T>(outcome: Result<T>, (kind, key): (&str, &str), found: &mut Vec<String>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_about_a_row(&error) => {
            found.push(problem(kind, key, error.message()));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::session_graph::blob::{self, Profile};
    use crate::session_graph::sql::sqlite::Sqlite;
    use crate::session_graph::tables::artifacts;

    /// A store whose tables take anything.
    fn store() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        let text = include_str!("../../migrations/sqlite/session_graph/0003_session.sql");
        db.execute_batch(&text.replace(") STRICT", ")").replace("), WITHOUT ROWID", ")")).unwrap();
        db
    }

    fn found(db: &Connection) -> Vec<(String, String)> {
        let problems = problems(&mut Sqlite(db), true).unwrap();
        let parsed = problems.iter().map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
        parsed.map(|one| (one["kind"].as_str().unwrap().to_owned(), one["key"].as_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn names_and_pins_are_looked_at_without_a_head_and_behind_damaged_rows() {
        let db = store();
        assert_eq!(found(&db), []);
        db.execute_batch(
            "INSERT INTO session_head VALUES (1, 's', 1, NULL, x'00', '{}');
             INSERT INTO artifact_refs VALUES ('a', x'00'), ('b', 'nothing');
             INSERT INTO checkpoint_pins VALUES ('p', x'00', NULL, NULL, 1, '[]', NULL), ('q', 'none', NULL, NULL, 1, '{', NULL)",
        )
        .unwrap();
        let pair = |(kind, key): (&str, &str)| (kind.to_owned(), key.to_owned());
        let pins = [("blob", "a"), ("head", "p"), ("head", "q"), ("manifest", "none"), ("blob", "nothing")].map(pair);
        let mut all = vec![pair(("head", "1"))];
        all.extend(pins.clone());
        assert_eq!(found(&db), all);
        db.execute_batch("DELETE FROM session_head").unwrap();
        assert_eq!(found(&db), pins);
    }

    #[test]
    fn blobs_that_nobody_finds_or_that_are_there_twice_are_told() {
        let db = store();
        let packed = |text: &str| blob::pack(Profile::LowLatency, blob::GENERIC, false, text.as_bytes().to_vec());
        let (hidden, twice) = (packed("hidden"), packed("twice"));
        for blob in [&hidden, &twice] {
            artifacts::put(&mut Sqlite(&db), &blob.hash, blob).unwrap();
        }
        assert_eq!(found(&db), []);
        db.execute("UPDATE blobs SET prefix = 0 WHERE hash = ?1", [&hidden.hash]).unwrap();
        let again = "INSERT INTO blobs (prefix, hash, kind, codec, raw_len, created_at_ms, content)
                     SELECT prefix, hash, kind, codec, raw_len, created_at_ms, x'' FROM blobs WHERE hash = ?1";
        db.execute(again, [&twice.hash]).unwrap();
        let blob = |hash: &str| ("blob".to_owned(), hash.to_owned());
        // The name of the hidden one leads nowhere, too.
        assert_eq!(found(&db), [blob(&hidden.hash), blob(&hidden.hash), blob(&twice.hash)]);
    }
}
