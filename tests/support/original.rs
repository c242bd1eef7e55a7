//! A writer of the original format: four control-file writes, one after the other, no sidecar. By hand, so that it shares
//! nothing with the code under test.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::store::{MANIFEST, NOW, RECEIPTS, STORES};
use super::verify::data;

/// After which step the writer is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    Begun,
    Marked,
    FirstFile,
    SecondFile,
    ReceiptsCommitted,
    Applied,
}

pub const STEPS: [Until; 6] =
    [Until::Begun, Until::Marked, Until::FirstFile, Until::SecondFile, Until::ReceiptsCommitted, Until::Applied];

pub fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Replaces a file as an atomic write does.
pub fn replace(path: &Path, bytes: &[u8]) {
    let temp = path.with_extension("original-temp");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::File::create(&temp).unwrap().write_all(bytes).unwrap();
    #[expect(clippy::disallowed_methods, reason = "another program is played here")]
    fs::rename(temp, path).unwrap();
}

pub fn envelope(data: &Value) -> Vec<u8> {
    let mut text =
        serde_json::to_string_pretty(&json!({ "schemaVersion": 1, "updatedAt": NOW, "data": data })).unwrap();
    text.push('\n');
    text.into_bytes()
}

pub fn put(path: &Path, data: &Value) {
    replace(path, &envelope(data));
}

pub fn manifest(dir: &Path) -> Value {
    match data(&dir.join(MANIFEST)) {
        Value::Null => serde_json::from_str(&super::store::default_manifest()).unwrap(),
        found => found,
    }
}

pub fn receipts(dir: &Path) -> Value {
    match data(&dir.join(RECEIPTS)) {
        Value::Null => json!([]),
        found => found,
    }
}

pub fn store_bytes(batch_id: &str, store: usize) -> Vec<u8> {
    envelope(&json!({ "original": batch_id, "store": store }))
}

/// Writes a batch up to a step.
pub fn batch(dir: &Path, batch_id: &str, stores: &[usize], until: Until) {
    let ids = json!({ "teamName": "team-a", "runId": "run-1", "capabilitySnapshotId": "cap-1", "behaviorFingerprint": "behavior-1" });
    let mut record = json!({ "batchId": batch_id });
    merge(&mut record, &ids);
    merge(
        &mut record,
        &json!({ "reason": "launch_checkpoint", "startedAt": NOW, "completedAt": null, "state": "preparing", "receipts": [], "lastError": null }),
    );
    let mut all = receipts(dir);
    all.as_array_mut().unwrap().push(record.clone());
    put(&dir.join(RECEIPTS), &all);
    if until == Until::Begun {
        return;
    }
    let mut marked = manifest(dir);
    marked["lastPreparingBatchId"] = json!(batch_id);
    put(&dir.join(MANIFEST), &marked);
    if until == Until::Marked {
        return;
    }
    let mut written = Vec::new();
    for (i, &store) in stores.iter().enumerate() {
        let bytes = store_bytes(batch_id, store);
        replace(&dir.join(STORES[store].1), &bytes);
        let mut receipt = json!({ "receiptId": format!("{batch_id}-receipt-{store}"), "batchId": batch_id, "schemaName": STORES[store].0 });
        merge(&mut receipt, &ids);
        merge(
            &mut receipt,
            &json!({ "schemaVersion": 1, "relativePath": STORES[store].1, "contentHash": hash(&bytes), "fileSize": bytes.len(), "mtimeMs": 1_795_226_252_503.878, "writtenAt": NOW }),
        );
        written.push(receipt);
        if i == 0 && until == Until::FirstFile {
            return;
        }
    }
    if until == Until::SecondFile {
        return;
    }
    let last = all.as_array_mut().unwrap().last_mut().unwrap();
    merge(last, &json!({ "completedAt": NOW, "state": "committed", "receipts": written }));
    put(&dir.join(RECEIPTS), &all);
    if until == Until::ReceiptsCommitted {
        return;
    }
    apply(dir, batch_id, &written);
}

fn apply(dir: &Path, batch_id: &str, written: &[Value]) {
    let mut manifest = manifest(dir);
    let mut entries = manifest["entries"].as_array().unwrap().clone();
    for receipt in written {
        entries.retain(|entry| entry["schemaName"] != receipt["schemaName"]);
        let mut entry = json!({});
        for key in [
            "schemaName",
            "schemaVersion",
            "relativePath",
            "contentHash",
            "fileSize",
            "mtimeMs",
            "runId",
            "capabilitySnapshotId",
            "behaviorFingerprint",
        ] {
            entry[key] = receipt[key].clone();
        }
        entry["lastWriteReceiptId"] = receipt["receiptId"].clone();
        entry["state"] = json!("healthy");
        entries.push(entry);
    }
    entries.sort_by_key(|entry| entry["schemaName"].as_str().unwrap().to_owned());
    manifest["entries"] = json!(entries);
    for (key, value) in
        [("activeRunId", "run-1"), ("activeCapabilitySnapshotId", "cap-1"), ("activeBehaviorFingerprint", "behavior-1")]
    {
        manifest[key] = json!(value);
    }
    manifest["highWatermark"] = json!(manifest["highWatermark"].as_u64().unwrap() + 1);
    manifest["lastCommittedBatchId"] = json!(batch_id);
    manifest["lastPreparingBatchId"] = Value::Null;
    put(&dir.join(MANIFEST), &manifest);
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}
