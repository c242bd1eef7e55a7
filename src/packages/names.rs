//! What may name a package, a tree and a cache entry.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Code, HfError, Result};

/// Longest package name, in characters.
pub const NAME_MAX: usize = 214;
/// Longest version, in characters.
pub const VERSION_MAX: usize = 64;
/// Longest lockfile hash, in characters.
pub const HASH_MAX: usize = 128;

/// Checks a package name: `name` or `@scope/name` as npm has it, old names with capitals included.
///
/// A name that passes is a relative path of one component, or of two for a scoped one, that stays where it is joined.
///
/// # Errors
/// [`Code::PkgBadName`].
pub fn check_name(name: &str) -> Result<()> {
    if is_name(name) { Ok(()) } else { Err(bad_name(name)) }
}

/// The error of a name that is none.
#[must_use]
pub fn bad_name(name: &str) -> HfError {
    HfError::new(Code::PkgBadName, format!("Invalid package name \"{}\"", shown(name))).with_field("name", shown(name))
}

/// Tells whether [`check_name`] accepts `name`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    if name.len() > NAME_MAX {
        return false;
    }
    match name.strip_prefix('@') {
        // npm itself asks nothing more of a scope; the dot would make `@..`.
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, bare)| {
            is_component(scope) && !scope.starts_with('.') && is_component(bare) && !bare.starts_with('.')
        }),
        None => {
            is_component(name)
                && !name.starts_with(['.', '_'])
                && !name.eq_ignore_ascii_case("node_modules")
                && !name.eq_ignore_ascii_case("favicon.ico")
        }
    }
}

/// The characters that a URL takes unescaped, which is npm's rule, are also harmless in a path.
fn is_component(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~!'()*".contains(&byte))
}

/// Checks the version of a manifest entry: at most [`VERSION_MAX`] visible ASCII characters, none of which means something in
/// a path. That it is semver is not asked; one that is not satisfies no range.
///
/// # Errors
/// [`Code::PkgBadName`].
pub fn check_version(name: &str, version: &str) -> Result<()> {
    let harmless = |byte: u8| byte.is_ascii_graphic() && !b"/\\:*?\"<>|".contains(&byte);
    if !version.is_empty() && version.len() <= VERSION_MAX && version.bytes().all(harmless) && !version.starts_with('.')
    {
        return Ok(());
    }
    let message = format!("Invalid version \"{}\" of package \"{}\"", shown(version), shown(name));
    Err(HfError::new(Code::PkgBadName, message).with_field("name", shown(name)).with_field("version", shown(version)))
}

/// Checks a lockfile hash, which names a folder: a letter or digit, then up to 127 letters, digits, `.`, `_` and `-`.
///
/// # Errors
/// [`Code::PkgBadHash`].
pub fn check_hash(hash: &str) -> Result<()> {
    let mut bytes = hash.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts && hash.len() <= HASH_MAX && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Ok(());
    }
    let message = format!("Invalid lockfile hash \"{}\"", shown(hash));
    Err(HfError::new(Code::PkgBadHash, message).with_field("lockfileHash", shown(hash)))
}

/// The start of a text from outside, so that no message grows without bound.
fn shown(text: &str) -> String {
    text.chars().take(2 * NAME_MAX).collect()
}

/// Returns the name without its scope.
#[must_use]
pub fn bare_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Returns `@scope` of a scoped name.
#[must_use]
pub fn scope(name: &str) -> Option<&str> {
    name.split_once('/').map(|(scope, _)| scope).filter(|scope| scope.starts_with('@'))
}

/// The name of a cache entry's folder, without the scope's: `lodash@4.17.21@@@1`, as Bun makes them, or `lodash@4.17.21`.
///
/// Bun puts 16 hex digits in place of a prerelease (lower case) and of build metadata (upper case), and names a registry that
/// is not the default one: `ms@3.0.0-684001923c4f8651@@@1`, `x@1.0.2+9DA996C7494E08F5@@@1`,
/// `x@1.0.0@@npm.example.com__0123456789abcdef@@@1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheName {
    /// Package name without the scope.
    pub bare: String,
    /// The version, possibly with hashes in it.
    pub version: String,
    /// `host__hash` of a registry that is not the default one.
    pub registry: Option<String>,
    /// The number behind `@@@`; `None` for the plain form.
    pub number: Option<u64>,
}

/// Whether a cache entry holds some version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// It does not.
    No,
    /// It does.
    Yes,
    /// It does if the `version` in its `package.json` is that version: the name holds a hash only.
    IfVersion,
}

impl CacheName {
    /// Takes the name of a folder apart; `None` for anything else than the forms above.
    #[must_use]
    pub fn parse(folder: &str) -> Option<Self> {
        let (head, number) = match folder.rsplit_once("@@@") {
            Some((head, number)) => {
                let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
                (head, Some(digits.then(|| number.parse().ok()).flatten()?))
            }
            None => (folder, None),
        };
        let (head, registry) = match head.split_once("@@") {
            Some((head, registry)) => {
                let (host, hash) = registry.rsplit_once("__")?;
                if number.is_none()
                    || host.is_empty()
                    || hash.len() != 16
                    || !hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                {
                    return None;
                }
                (head, Some(registry.to_owned()))
            }
            None => (head, None),
        };
        let (bare, version) = head.split_once('@')?;
        if bare.is_empty() || version.is_empty() || version.contains('@') {
            return None;
        }
        Some(Self { bare: bare.to_owned(), version: version.to_owned(), registry, number })
    }

    /// Tells whether this is the folder of `version` of the package `name` (whose scope is the folder around it).
    #[must_use]
    pub fn matches(&self, name: &str, version: &str) -> Match {
        if self.bare != bare_name(name) {
            return Match::No;
        }
        if self.version == version {
            return Match::Yes;
        }
        let (ours, wanted) = (Parts::of(&self.version), Parts::of(version));
        let prerelease =
            Part::compare(ours.prerelease, wanted.prerelease, |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let build = Part::compare(ours.build, wanted.build, |byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
        match (ours.core == wanted.core, prerelease, build) {
            (false, ..) | (_, Part::Differs, _) | (.., Part::Differs) => Match::No,
            _ => Match::IfVersion,
        }
    }
}

/// `core[-prerelease][+build]` of a version.
struct Parts<'a> {
    core: &'a str,
    prerelease: Option<&'a str>,
    build: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(version: &'a str) -> Self {
        let (rest, build) = split_optional(version, '+');
        let (core, prerelease) = split_optional(rest, '-');
        Self { core, prerelease, build }
    }
}

fn split_optional(text: &str, separator: char) -> (&str, Option<&str>) {
    text.split_once(separator).map_or((text, None), |(head, tail)| (head, Some(tail)))
}

/// How one part of a folder's version relates to that part of a version.
enum Part {
    Same,
    MayBeHash,
    Differs,
}

impl Part {
    fn compare(ours: Option<&str>, wanted: Option<&str>, digit: impl Fn(u8) -> bool) -> Self {
        match (ours, wanted) {
            (ours, wanted) if ours == wanted => Part::Same,
            (Some(ours), Some(_)) if ours.len() == 16 && ours.bytes().all(digit) => Part::MayBeHash,
            _ => Part::Differs,
        }
    }
}

/// Finds the folder of a package in a cache, as `(parent, entry name relative to it)`; a scoped name stays whole
/// (`@scope/x@1.0.0@@@1`, relative to the cache).
///
/// Of several, the one of the default registry goes first, then the highest number, then the smallest name by bytes. A folder
/// that cannot be read counts as empty.
#[must_use]
pub fn find_cache_entry(cache_dir: &Path, name: &str, version: &str) -> Option<(PathBuf, String)> {
    if !is_name(name) {
        return None;
    }
    let scope = scope(name);
    let folder = scope.map_or_else(|| cache_dir.to_path_buf(), |scope| cache_dir.join(scope));
    let mut found = Vec::new();
    for item in fs::read_dir(&folder).ok()?.flatten() {
        let Ok(entry_name) = item.file_name().into_string() else { continue };
        let Some(parsed) = CacheName::parse(&entry_name) else { continue };
        let matched = parsed.matches(name, version);
        if matched != Match::No && item.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push((parsed.registry.is_some(), Reverse(parsed.number), entry_name, matched));
        }
    }
    found.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    let (.., entry_name, _) = found
        .into_iter()
        .find(|(.., entry_name, matched)| *matched == Match::Yes || has_version(&folder.join(entry_name), version))?;
    Some((cache_dir.to_path_buf(), scope.map_or_else(|| entry_name.clone(), |scope| format!("{scope}/{entry_name}"))))
}

/// Whether the `package.json` in `folder` has that version; a leading `v` or `=` of it does not count, as npm has it.
pub(super) fn has_version(folder: &Path, version: &str) -> bool {
    let Ok(bytes) = fs::read(folder.join("package.json")) else { return false };
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(text) else { return false };
    let found = json.get("version").and_then(serde_json::Value::as_str).unwrap_or_default();
    found.trim().trim_start_matches(['=', 'v', ' ']) == version
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_as_npm_has_them() {
        for name in
            ["a", "JSONStream", "lodash.merge", "@a/b", "@types/node", "@_/_x", "a~b", "x(y)", "1", &"a".repeat(214)]
        {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".bin",
            "_a",
            "a/b",
            "@a",
            "@a/",
            "@/b",
            "@../b",
            "@a/..",
            "@a/.bin",
            "@a/b/c",
            "a\\b",
            "a b",
            "a\0",
            "é",
            "node_modules",
            "Node_Modules",
            "favicon.ico",
            "C:x",
            "a@1",
            "@a/b@1",
            &"a".repeat(215),
        ] {
            assert!(!is_name(name), "{name}");
            assert_eq!(check_name(name).expect_err("a bad name").code(), Code::PkgBadName);
        }
        assert_eq!(check_name("../x").expect_err("a bad name").message(), "Invalid package name \"../x\"");
    }

    #[test]
    fn hashes_name_one_folder() {
        for hash in ["a", "convergehash", "h1.2_3-x", &"0".repeat(128)] {
            check_hash(hash).expect("a good hash");
        }
        for hash in ["", ".", "..", "../../x", "a/b", "a\\b", "-a", "_a", "a b", "a\n", "é", &"0".repeat(129)] {
            assert_eq!(check_hash(hash).expect_err("a bad hash").code(), Code::PkgBadHash, "{hash}");
        }
    }

    #[test]
    fn versions_stay_in_their_folder() {
        for version in ["1.0.0", "1.0.0-canary.1+build.5", "v1", &"1".repeat(64)] {
            check_version("a", version).expect("a good version");
        }
        for version in ["", "..", "1/2", "1\\2", "1 2", "1\0", "é", &"1".repeat(65)] {
            assert_eq!(check_version("a", version).expect_err("a bad version").code(), Code::PkgBadName, "{version}");
        }
    }

    #[test]
    fn cache_names_in_all_their_forms() {
        let cases = [
            ("lodash@4.17.21@@@1", "lodash", "4.17.21", Match::Yes),
            ("lodash@4.17.21", "lodash", "4.17.21", Match::Yes),
            ("x@1.0.0@@@1", "@a/x", "1.0.0", Match::Yes),
            ("lodash@4.17.2@@@1", "lodash", "4.17.21", Match::No),
            ("lodash@4.17.21@@@1", "lodash.merge", "4.17.21", Match::No),
            ("ms@3.0.0-684001923c4f8651@@@1", "ms", "3.0.0-canary.1", Match::IfVersion),
            ("ms@3.0.0-684001923c4f8651@@@1", "ms", "3.0.0", Match::No),
            ("ms@3.0.0-684001923C4F8651@@@1", "ms", "3.0.0-canary.1", Match::No),
            ("ms@3.0.0-684001923c4f865@@@1", "ms", "3.0.0-canary.1", Match::No),
            ("ms@3.0.1-684001923c4f8651@@@1", "ms", "3.0.0-canary.1", Match::No),
            ("ms@3.0.0-canary.1@@@1", "ms", "3.0.0-canary.1", Match::Yes),
            ("x@1.0.2+9DA996C7494E08F5@@@1", "x", "1.0.2+build.5", Match::IfVersion),
            ("x@1.0.2+9da996c7494e08f5@@@1", "x", "1.0.2+build.5", Match::No),
            ("x@1.0.2@@@1", "x", "1.0.2+build.5", Match::No),
            ("x@1.0.2-684001923c4f8651+9DA996C7494E08F5@@@1", "x", "1.0.2-rc.1+build.5", Match::IfVersion),
            ("x@1.0.2-684001923c4f8651@@npm.example.com__0123456789abcdef@@@2", "x", "1.0.2-rc.1", Match::IfVersion),
            ("x@1.0.2@@localhost__0123456789abcdef@@@2", "x", "1.0.2", Match::Yes),
        ];
        for (folder, name, version, expected) in cases {
            let parsed = CacheName::parse(folder).unwrap_or_else(|| panic!("{folder}"));
            assert_eq!(parsed.matches(name, version), expected, "{folder} {name}@{version}");
        }
        for folder in [
            "",
            "a",
            "a@",
            "@1",
            "a@1@@@",
            "a@1@@@x",
            "a@1@@@1_patch_hash=0",
            "a@1@2",
            "a@1@@host@@@1",
            "a@1@@host__1@@@1",
            ".cs-integrity",
        ] {
            assert_eq!(CacheName::parse(folder), None, "{folder}");
        }
    }

    fn entry(cache: &Path, folder: &str, version: &str) {
        fs::create_dir_all(cache.join(folder)).expect("mkdir");
        #[allow(clippy::disallowed_methods, reason = "a fixture")]
        fs::write(cache.join(folder).join("package.json"), format!("{{\"version\":\"{version}\"}}")).expect("write");
    }

    #[test]
    fn finds_the_best_folder() {
        let cache = tempfile::tempdir().expect("tempdir");
        let dir = cache.path();
        let find = |name: &str, version: &str| find_cache_entry(dir, name, version).map(|(_, entry_name)| entry_name);
        assert_eq!(find("a", "1.0.0"), None);
        entry(dir, "a@1.0.0@@registry__0123456789abcdef@@@9", "1.0.0");
        assert_eq!(find("a", "1.0.0").as_deref(), Some("a@1.0.0@@registry__0123456789abcdef@@@9"));
        entry(dir, "a@1.0.0", "1.0.0");
        assert_eq!(find("a", "1.0.0").as_deref(), Some("a@1.0.0"));
        entry(dir, "a@1.0.0@@@2", "1.0.0");
        entry(dir, "a@1.0.0@@@10", "1.0.0");
        assert_eq!(find("a", "1.0.0").as_deref(), Some("a@1.0.0@@@10"));
        entry(dir, "ms@3.0.0-0000000000000001@@@1", "3.0.0-canary.2");
        entry(dir, "ms@3.0.0-0000000000000002@@@1", "v3.0.0-canary.1");
        assert_eq!(find("ms", "3.0.0-canary.1").as_deref(), Some("ms@3.0.0-0000000000000002@@@1"));
        entry(dir, "@s/x@1.0.0@@@1", "1.0.0");
        assert_eq!(find("@s/x", "1.0.0").as_deref(), Some("@s/x@1.0.0@@@1"));
        assert_eq!(find_cache_entry(dir, "@s/x", "1.0.0").map(|(parent, _)| parent).as_deref(), Some(dir));
        assert_eq!(find("@t/x", "1.0.0"), None);
        assert_eq!(find("..", "1.0.0"), None);
        #[allow(clippy::disallowed_methods, reason = "a fixture")]
        fs::write(dir.join("file@1.0.0"), "").expect("write");
        assert_eq!(find("file", "1.0.0"), None, "not a folder");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,40}", name in "\\PC{0,10}", version in "\\PC{0,10}") {
            if let Some(parsed) = CacheName::parse(&text).filter(|parsed| !parsed.bare.contains("/")) {
                prop_assert_eq!(parsed.matches(&parsed.bare, &parsed.version), Match::Yes);
                let _ = parsed.matches(&name, &version);
            }
        }

        #[test]
        fn a_good_name_stays_below(name in "[@a-zA-Z0-9._~/\\\\:-]{1,12}") {
            if is_name(&name) {
                let depth = Path::new(&name).components().filter(|part| matches!(part, std::path::Component::Normal(_))).count();
                prop_assert_eq!(depth, Path::new(&name).components().count());
                prop_assert_eq!(depth, if name.starts_with('@') { 2 } else { 1 });
            }
        }
    }
}
