//! What the text behind a dependency asks for.

use super::range::Range;
use super::version::Version;
use crate::packages::names::is_name;

/// What a dependency asks for, as far as a manifest can answer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish<'a> {
    /// The package's own name, which differs from the key of the dependency where the text is `npm:real@range`.
    pub name: &'a str,
    /// The versions that do.
    pub versions: Versions,
}

/// A set of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versions {
    /// Any version, also one that is no semver: the text is a tag, a URL, a path, a workspace …
    Any,
    /// Those in an npm range.
    In(Range),
}

impl<'a> Wish<'a> {
    /// Reads the text `spec` of the dependency `key`.
    #[must_use]
    pub fn parse(key: &'a str, spec: &'a str) -> Self {
        let Some(alias) = spec.trim().strip_prefix("npm:") else {
            return Self { name: key, versions: Versions::parse(spec) };
        };
        match alias.rsplit_once('@') {
            Some((name, range)) if !name.is_empty() => Self { name, versions: Versions::parse(range) },
            _ if is_name(alias) && Range::parse(alias).is_none() => Self { name: alias, versions: Versions::Any },
            // `npm:^1.0.0` is the key's own name.
            _ => Self { name: key, versions: Versions::parse(alias) },
        }
    }
}

impl Versions {
    /// Reads a range; a text that is none means any version.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Range::parse(text).map_or(Versions::Any, Versions::In)
    }

    /// Tells whether `version` is in the set; `None` is a version that is no semver.
    #[must_use]
    pub fn contain(&self, version: Option<&Version>) -> bool {
        match (self, version) {
            (Versions::Any, _) => true,
            (Versions::In(range), Some(version)) => range.contains(version),
            (Versions::In(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of npm's own `semver`: `[range, version, satisfies]`, `null` where the text is no range to npm.
    #[test]
    fn answers_as_npm_does() {
        let stored = concat!(env!("CARGO_MANIFEST_DIR"), "/__test__/packages/fixtures/semver.jsonl");
        // Another file of the same shape can be checked, for example one with other seeds.
        let file = std::env::var("HOLDFAST_SEMVER_PAIRS").unwrap_or_else(|_| stored.to_owned());
        let text = std::fs::read_to_string(file).expect("the fixture");
        let mut wrong = Vec::new();
        for line in text.lines() {
            let (range, version, expected): (String, String, Option<bool>) = serde_json::from_str(line).expect("a row");
            let answer = match Versions::parse(&range) {
                Versions::Any => None,
                versions => Some(versions.contain(Version::parse(&version).as_ref())),
            };
            if answer != expected {
                wrong.push(format!("{range:?} {version}: npm {expected:?}, here {answer:?}"));
            }
        }
        assert!(text.lines().count() > 1000);
        assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
    }

    #[test]
    fn aliases_and_what_is_no_range() {
        let read = |key: &'static str, spec: &'static str| Wish::parse(key, spec);
        assert_eq!(read("a", "^1.0.0").name, "a");
        assert_eq!(read("a", "npm:b@^1.0.0"), Wish { name: "b", versions: Versions::parse("^1.0.0") });
        assert_eq!(read("a", "npm:@s/b@2"), Wish { name: "@s/b", versions: Versions::parse("2") });
        assert_eq!(read("a", "npm:@s/b"), Wish { name: "@s/b", versions: Versions::Any });
        assert_eq!(read("a", "npm:b"), Wish { name: "b", versions: Versions::Any });
        assert_eq!(read("a", "npm:^1"), Wish { name: "a", versions: Versions::parse("^1") });
        for spec in [
            "latest",
            "workspace:*",
            "git+https://h/x.git",
            "file:../x",
            "u/r#semver:^1",
            "https://h/x.tgz",
            "catalog:",
        ] {
            assert_eq!(read("a", spec), Wish { name: "a", versions: Versions::Any }, "{spec}");
        }
        assert!(Versions::Any.contain(None));
        assert!(!Versions::parse("*").contain(None));
    }
}
