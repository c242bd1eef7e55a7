//! Promise: native code accepts and refuses exactly what the JavaScript validators do, with the same messages.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::path::Path;

use holdfast::runtime_store::manifest::Manifest;
use holdfast::runtime_store::receipts::Batches;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Vector<'a> {
    name: String,
    kind: String,
    #[serde(borrow)]
    value: &'a RawValue,
    ok: bool,
    message: Option<String>,
}

#[test]
fn vectors_agree() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("__test__/vectors/runtime-store-validation.json");
    let text = std::fs::read_to_string(path).unwrap();
    let vectors: Vec<Vector<'_>> = serde_json::from_str(&text).unwrap();
    let mut checked = 0;
    let mut differences = Vec::new();
    for vector in &vectors {
        let found = match vector.kind.as_str() {
            "manifest" => Manifest::parse(vector.value.get(), &[]).map(|_| ()),
            "batches" | "receipts" => Batches::parse(vector.value.get(), &[]).map(|_| ()),
            _ => continue,
        };
        checked += 1;
        if found.is_ok() != vector.ok || found.as_ref().err() != vector.message.as_ref() {
            differences
                .push(format!("{} {}: {found:?}, wanted {} {:?}", vector.kind, vector.name, vector.ok, vector.message));
        }
    }
    println!("{{\"test\":\"validation_vectors\",\"vectors\":{checked},\"violations\":{}}}", differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(checked > 50, "only {checked} of {} vectors", vectors.len());
}
