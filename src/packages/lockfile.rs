//! A manifest: its entries, their order, its hash, and what it is made from.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Code, HfError, Result};
use crate::hash::sha256_hex;

/// One package of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// npm name, possibly `@scope/name`.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// SRI of the npm tarball: an opaque key here, that of the blob.
    pub integrity: String,
    /// Hash of the blob's bytes; entries published before the field existed lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_sha256: Option<String>,
}

/// A package that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSpec {
    /// npm name.
    pub name: String,
    /// Version or range.
    pub version: String,
    /// Whether it is wanted; absent means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Printable ASCII in the order of the root collation; capitals are folded away before the look-up.
const ALPHABET: &[u8] = b" _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz";

/// Compares as `Intl.Collator('en')` does on printable ASCII, whatever the locale of the process: capitals count only between
/// texts that are equal without them, and come last. Other characters come after these, by code point.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let folded = a.chars().map(rank).cmp(b.chars().map(rank));
    // Equal so far means equal length, and in ASCII a capital is less than its small letter.
    folded.then_with(|| b.cmp(a))
}

fn rank(character: char) -> u32 {
    let position = |byte: u8| ALPHABET.iter().position(|&known| known == byte.to_ascii_lowercase());
    let known = u8::try_from(character).ok().and_then(position).and_then(|index| u32::try_from(index).ok());
    // Code points stay below 0x110000.
    known.unwrap_or(0x80 + u32::from(character))
}

/// Compares two entries: by name, by version as text (`10.0.0` before `9.0.0`), by integrity.
#[must_use]
pub fn compare_entries(a: &Entry, b: &Entry) -> Ordering {
    compare(&a.name, &b.name)
        .then_with(|| compare(&a.version, &b.version))
        .then_with(|| a.integrity.as_bytes().cmp(b.integrity.as_bytes()))
}

/// Returns the positions of the entries in their sorted order; equal ones keep their order.
#[must_use]
pub fn sort_order(entries: &[Entry]) -> Vec<usize> {
    let mut order: Vec<(usize, &Entry)> = entries.iter().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| compare_entries(a, b));
    order.into_iter().map(|(index, _)| index).collect()
}

/// Returns the hash of a manifest: SHA-256, in hex, over `name NUL version NUL integrity LF` of each entry in sorted order.
/// It does not depend on the order of the entries, nor on the blobs' bytes.
#[must_use]
pub fn lockfile_hash(entries: &[Entry]) -> String {
    let mut text = String::new();
    for index in sort_order(entries) {
        if let Some(entry) = entries.get(index) {
            for part in [&entry.name, "\0", &entry.version, "\0", &entry.integrity, "\n"] {
                text.push_str(part);
            }
        }
    }
    sha256_hex(text.as_bytes())
}

/// Returns the dependencies that the packages ask for, as `(name, version)` in sorted order: those that are disabled are left
/// out, of two with one name the last counts.
#[must_use]
pub fn build_dependencies(packages: &[PackageSpec]) -> Vec<(String, String)> {
    let mut last: HashMap<&str, &str> = HashMap::new();
    for package in packages.iter().filter(|package| package.enabled != Some(false)) {
        last.insert(&package.name, &package.version);
    }
    let mut found: Vec<_> = last.into_iter().map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
    found.sort_by(|a, b| compare(&a.0, &b.0));
    found
}

/// Returns the text of a `package.json` with that name and those dependencies, in the order given.
#[must_use]
pub fn store_package_json(name: &str, dependencies: &[(String, String)]) -> String {
    let dependencies: Map<String, Value> =
        dependencies.iter().map(|(name, version)| (name.clone(), Value::from(version.as_str()))).collect();
    let json = serde_json::json!({ "name": name, "private": true, "dependencies": dependencies });
    // The alternate form of a JSON value is its two-space one, as JSON.stringify has it.
    format!("{json:#}\n")
}

/// The `bunfig.toml` of a tree: keeps Bun from installing what it misses when a program there imports something.
pub const BUNFIG: &str = "[install]\nauto = \"disable\"\n";

/// Splits `name@version` at the last `@`; `None` if one half is empty.
#[must_use]
pub fn split_spec(spec: &str) -> Option<(&str, &str)> {
    spec.rsplit_once('@').filter(|(name, version)| !name.is_empty() && !version.is_empty())
}

/// Reads the packages of a `bun.lock`, in its order and each integrity once. Packages that are bundled in another one are left
/// out, with those that only they need: they travel with it.
///
/// # Errors
/// [`Code::PkgLockfile`] when the text is no lockfile.
pub fn parse_bun_lock(text: &str) -> Result<Vec<Entry>> {
    let invalid = || HfError::new(Code::PkgLockfile, "Failed to parse bun.lock: invalid lockfile format");
    let json: Value = serde_json::from_str(&without_trailing_commas(text)).map_err(|_| invalid())?;
    let packages = json.get("packages").and_then(Value::as_object).ok_or_else(invalid)?;
    let brought = brought_along(packages);
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for (key, package) in packages {
        let Some(package) = package.as_array().filter(|_| !brought.contains(key.as_str())) else { continue };
        let (Some(spec), Some(integrity)) =
            (package.first().and_then(Value::as_str), package.last().and_then(Value::as_str))
        else {
            continue;
        };
        if let Some((name, version)) = split_spec(spec)
            && integrity.contains('-')
            && seen.insert(integrity)
        {
            entries.push(Entry {
                name: name.to_owned(),
                version: version.to_owned(),
                integrity: integrity.to_owned(),
                blob_sha256: None,
            });
        }
    }
    Ok(entries)
}

/// Returns the keys of packages that are inside of another package's archive.
///
/// Bun marks only those that the other package names itself. What they need in turn it resolves anew, into the same folder and
/// without a mark, though the archive holds it already: everything in that folder that is needed by marked packages alone.
fn brought_along(packages: &Map<String, Value>) -> HashSet<&str> {
    let is_marked = |package: &Value| {
        package.as_array().is_some_and(|parts| parts.iter().any(|part| part.get("bundled") == Some(&Value::Bool(true))))
    };
    let mut brought: HashSet<&str> =
        packages.iter().filter(|(_, package)| is_marked(package)).map(|(key, _)| key.as_str()).collect();
    let bringers: HashSet<&str> = brought.iter().filter_map(|key| parent_key(key)).collect();
    if bringers.is_empty() {
        return brought;
    }
    let inside =
        |key: &str| std::iter::successors(parent_key(key), |key| parent_key(key)).any(|above| bringers.contains(above));
    let mut kept: HashSet<&str> =
        packages.keys().map(String::as_str).filter(|key| !inside(key) && !brought.contains(key)).collect();
    let mut queue: Vec<&str> = kept.iter().copied().collect();
    while let Some(key) = queue.pop() {
        for name in needed(packages.get(key)) {
            let above = std::iter::successors(Some(key), |key| parent_key(key)).map(|key| format!("{key}/{name}"));
            let found = above.chain([name.to_owned()]).find_map(|candidate| packages.get_key_value(&candidate));
            if let Some((found, _)) = found
                && !brought.contains(found.as_str())
                && kept.insert(found)
            {
                queue.push(found);
            }
        }
    }
    brought.extend(packages.keys().map(String::as_str).filter(|key| !kept.contains(key)));
    brought
}

/// The names that a package of a lock needs.
fn needed(package: Option<&Value>) -> impl Iterator<Item = &str> {
    let parts = package.and_then(Value::as_array).into_iter().flatten();
    let fields = parts
        .flat_map(|part| ["dependencies", "optionalDependencies", "peerDependencies"].map(|field| part.get(field)));
    fields.flatten().filter_map(Value::as_object).flat_map(|names| names.keys().map(String::as_str))
}

/// `a` of `a/b` and of `a/@s/b`; `None` at the root.
fn parent_key(key: &str) -> Option<&str> {
    let (head, _) = key.rsplit_once('/')?;
    let last = head.rsplit_once('/').map_or(head, |(_, last)| last);
    if last.starts_with('@') { head.rsplit_once('/').map(|(head, _)| head) } else { Some(head) }
}

/// Takes out the commas before `}` and `]`, which JSON does not have; commas inside of strings stay.
fn without_trailing_commas(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    // Where the last comma stands, while nothing but whitespace has followed it.
    let mut comma = None;
    let mut in_string = false;
    let mut escaped = false;
    for character in text.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if matches!(character, '}' | ']')
            && let Some(position) = comma.take()
        {
            cleaned.remove(position);
        } else if character == ',' {
            comma = Some(cleaned.len());
        } else if !character.is_ascii_whitespace() {
            comma = None;
            in_string = character == '"';
        }
        cleaned.push(character);
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, version: &str, integrity: &str) -> Entry {
        Entry { name: name.into(), version: version.into(), integrity: integrity.into(), blob_sha256: None }
    }

    #[test]
    fn the_hash_of_the_format() {
        let (a, b) = (entry("a", "1.0.0", "sha-a"), entry("b", "2.0.0", "sha-b"));
        let expected = "224c4499329406a91ee025138c695f24a298c2012193b127af8284e33c18910b";
        assert_eq!(lockfile_hash(&[a.clone(), b.clone()]), expected);
        assert_eq!(lockfile_hash(&[b.clone(), a.clone()]), expected);
        assert_eq!(lockfile_hash(&[b.clone(), Entry { blob_sha256: Some("0".repeat(64)), ..a.clone() }]), expected);
        assert_eq!(lockfile_hash(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_ne!(lockfile_hash(&[Entry { version: "1.0.1".into(), ..a.clone() }, b.clone()]), expected);
        assert_ne!(lockfile_hash(&[Entry { integrity: "sha-c".into(), ..a }, b]), expected);
    }

    /// `[a, b, sign]` as `Intl.Collator('en').compare` of Node answers.
    #[test]
    fn compares_as_the_collator_does() {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/__test__/packages/fixtures/collation.jsonl"));
        let mut pairs = 0;
        for line in text.lines() {
            let (a, b, sign): (String, String, i8) = serde_json::from_str(line).expect("a row");
            assert_eq!(compare(&a, &b) as i8, sign, "{a:?} {b:?}");
            pairs += 1;
        }
        assert!(pairs >= 2000);
    }

    #[test]
    fn sorts_names_and_versions_as_texts() {
        let names = ["_a", "-a", ".a", "@a/b", "0", "1", "a", "A", "a-b", "a.b", "a/b", "ab", "aB", "b"];
        let mut sorted = names;
        sorted.sort_by(|a, b| compare(a, b));
        assert_eq!(sorted, names);
        let entries = [entry("b", "9.0.0", "x"), entry("b", "10.0.0", "x"), entry("a", "1", "y"), entry("a", "1", "x")];
        assert_eq!(sort_order(&entries), [3, 2, 1, 0]);
        let same = [entry("a", "1", "x"), entry("a", "1", "x")];
        assert_eq!(sort_order(&same), [0, 1]);
    }

    #[test]
    fn dependencies_and_their_package_json() {
        let spec =
            |name: &str, version: &str, enabled| PackageSpec { name: name.into(), version: version.into(), enabled };
        let found = build_dependencies(&[
            spec("zod", "1.0.0", None),
            spec("b", "1.0.0", Some(false)),
            spec("@a/x", "2.0.0", Some(true)),
            spec("zod", "3.0.0", None),
        ]);
        let text = store_package_json("store", &found);
        let expected = "{\n  \"name\": \"store\",\n  \"private\": true,\n  \"dependencies\": {\n    \"@a/x\": \"2.0.0\",\n    \"zod\": \"3.0.0\"\n  }\n}\n";
        assert_eq!(text, expected);
        assert_eq!(
            store_package_json("s", &[]),
            "{\n  \"name\": \"s\",\n  \"private\": true,\n  \"dependencies\": {}\n}\n"
        );
    }

    #[test]
    fn splits_specs() {
        assert_eq!(split_spec("a@1.0.0"), Some(("a", "1.0.0")));
        assert_eq!(split_spec("@a/b@1.0.0"), Some(("@a/b", "1.0.0")));
        assert_eq!(split_spec("@a/b@c@1"), Some(("@a/b@c", "1")));
        for spec in ["", "a", "@a/b", "a@", "@1"] {
            assert_eq!(split_spec(spec), None, "{spec}");
        }
    }

    #[test]
    fn reads_a_bun_lock() {
        let text = r#"{
          "lockfileVersion": 1,
          "packages": {
            "b": ["b@2.0.0", "", { "dependencies": { "x": "1, ]", }, }, "sha512-b,}", ],
            "@a/a": ["@a/a@1.0.0", "", {}, "sha512-a"],
            "c/b": ["b@2.0.0", "", {}, "sha512-b,}"],
            "d": ["d@1.0.0", "", { "bundled": true }, "sha512-d"],
            "local": ["local@workspace:packages/local"],
            "git": ["git@github:u/r#0", {}, "0123"],
            "odd": [1, "sha512-x"], "text": "x",
          },
        }"#;
        assert_eq!(
            parse_bun_lock(text).expect("a lock"),
            [entry("b", "2.0.0", "sha512-b,}"), entry("@a/a", "1.0.0", "sha512-a")]
        );
        let text = r#"{"packages": {
            "npm": ["npm@1.0.0", "", { "dependencies": { "@s/x": "1", "own": "1" }, "bundleDependencies": ["@s/x"] }, "s-npm"],
            "shared": ["shared@1.0.0", "", {}, "s-shared"],
            "npm/@s/x": ["@s/x@1.0.0", "", { "dependencies": { "deep": "1", "own": "1" }, "bundled": true }, "s-x"],
            "npm/deep": ["deep@1.0.0", "", { "dependencies": { "shared": "1" } }, "s-deep"],
            "npm/own": ["own@1.0.0", "", { "peerDependencies": { "peer": "1" } }, "s-own"],
            "npm/own/peer": ["peer@1.0.0", "", {}, "s-peer"]
        }}"#;
        let names: Vec<_> = parse_bun_lock(text).expect("a lock").into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["npm", "shared", "own", "peer"], "what only bundled packages need comes with them");
        assert_eq!(parse_bun_lock("{\"packages\":{}}").expect("a lock"), []);
        for text in ["", "x", "[]", "{}", "{\"packages\":[]}", "{\"packages\":{},,}"] {
            let error = parse_bun_lock(text).expect_err("no lock");
            assert_eq!(
                (error.code(), error.message()),
                (Code::PkgLockfile, "Failed to parse bun.lock: invalid lockfile format"),
                "{text}"
            );
        }
    }

    #[test]
    fn entries_in_json() {
        let json = r#"{"name":"a","version":"1","integrity":"i","blobSha256":"h"}"#;
        let entry: Entry = serde_json::from_str(json).expect("an entry");
        assert_eq!(entry.blob_sha256.as_deref(), Some("h"));
        assert_eq!(serde_json::to_string(&entry).expect("text"), json);
    }

    proptest! {
        #[test]
        fn a_total_order(a in "\\PC{0,6}", b in "\\PC{0,6}", c in "\\PC{0,6}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &b) == Ordering::Equal, a == b);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn the_order_of_the_entries_does_not_matter(mut rows in prop::collection::vec(("[ab@/]{1,3}", "[0-9.]{1,3}", "[xy]{1,2}"), 0..8), seed in any::<u64>()) {
            let before: Vec<_> = rows.iter().map(|(n, v, i)| entry(n, v, i)).collect();
            let len = rows.len().max(1);
            rows.rotate_left(seed as usize % len);
            let after: Vec<_> = rows.iter().map(|(n, v, i)| entry(n, v, i)).collect();
            prop_assert_eq!(lockfile_hash(&before), lockfile_hash(&after));
        }

        #[test]
        fn json_without_trailing_commas_is_left_alone(text in "[\\\\\",\\]}{ a:]{0,20}") {
            let quoted = Value::from(text).to_string();
            prop_assert_eq!(&without_trailing_commas(&quoted), &quoted);
            let array = format!("[{quoted} , ]");
            prop_assert_eq!(without_trailing_commas(&array), format!("[{quoted}  ]"));
        }

        #[test]
        fn any_text_is_answered(text in "[{}\\[\\]\",:a ]{0,20}") {
            let _ = parse_bun_lock(&text);
        }
    }
}
