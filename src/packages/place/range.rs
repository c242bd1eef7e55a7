//! npm's version ranges, with its rule for prereleases.
//!
//! Follows `new Range(text, { loose: true })` of npm's `semver`, which is how npm reads the dependencies of packages, in its odd
//! answers too: what it cannot read inside of a range is dropped, and only a range that has nothing left is no range.

use super::version::{NoVersion, Partial, Version};

/// A set of versions: those that fulfil all comparators of at least one alternative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range(Vec<Vec<Comparator>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparator {
    operator: Operator,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    Equal,
    AtLeast,
    Greater,
}

impl Range {
    /// Reads a range; `None` when the text is none, such as a tag or a URL.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut alternatives = Vec::new();
        for alternative in text.split("||") {
            if let Some(comparators) = comparators(alternative).ok()? {
                alternatives.push(comparators);
            }
        }
        // `* || ^1.0.0-rc` is `*` to npm, which has no prereleases in it.
        if let Some(any) = alternatives.iter().position(Vec::is_empty) {
            alternatives.swap(0, any);
            alternatives.truncate(1);
        }
        (!alternatives.is_empty()).then_some(Self(alternatives))
    }

    /// Tells whether `version` is in the range: a prerelease only if an alternative that it fulfils names one of the same
    /// major.minor.patch.
    #[must_use]
    pub fn contains(&self, version: &Version) -> bool {
        self.0.iter().any(|comparators| {
            comparators.iter().all(|comparator| comparator.holds(version))
                && (!version.is_prerelease()
                    || comparators.iter().any(|one| one.version.is_prerelease() && one.version.core == version.core))
        })
    }
}

impl Comparator {
    fn holds(&self, version: &Version) -> bool {
        match self.operator {
            Operator::Less => *version < self.version,
            Operator::AtMost => *version <= self.version,
            Operator::Equal => *version == self.version,
            Operator::AtLeast => *version >= self.version,
            Operator::Greater => *version > self.version,
        }
    }
}

/// Reads what stands between two `||`; no comparator at all means any release, `None` that nothing of it could be read.
fn comparators(text: &str) -> Result<Option<Vec<Comparator>>, NoVersion> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        return Ok(Some(Vec::new()));
    }
    if let [from, "-", to] = words.as_slice()
        && let (Ok(from), Ok(to)) = (bound(from), bound(to))
    {
        return Ok(Some(hyphen(from, to)));
    }
    let mut words = words.into_iter().peekable();
    let mut read = false;
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        // An operator may stand apart from its version.
        let joined = match words.peek() {
            Some(next) if matches!(word, "<" | "<=" | ">" | ">=" | "=" | "~" | "~>" | "^") => {
                let joined = format!("{word}{next}");
                words.next();
                joined
            }
            _ => word.to_owned(),
        };
        match comparator(&joined) {
            Ok(mut some) => {
                read = true;
                found.append(&mut some);
            }
            Err(NoVersion::Shape) => {}
            Err(NoVersion::Number) => return Err(NoVersion::Number),
        }
    }
    // npm takes this one out, so that it does not keep an alternative from meaning "any".
    found.retain(|one| one.operator != Operator::AtLeast || one.version != Version::release([0, 0, 0]));
    Ok(read.then_some(found))
}

/// Reads one end of a hyphen range.
fn bound(text: &str) -> Result<Partial, NoVersion> {
    Partial::parse(text)
}

fn hyphen(from: Partial, to: Partial) -> Vec<Comparator> {
    let lower = match from.core {
        [None, ..] => None,
        [major, minor, patch] => {
            let core = [major.unwrap_or(0), minor.unwrap_or(0), patch.unwrap_or(0)];
            Some(Version { core, prerelease: from.prerelease })
        }
    };
    let upper = match to.core {
        [None, ..] => None,
        [Some(major), None, _] => Some((Operator::Less, Version::least([major + 1, 0, 0]))),
        [Some(major), Some(minor), None] => Some((Operator::Less, Version::least([major, minor + 1, 0]))),
        [Some(major), Some(minor), Some(patch)] => {
            Some((Operator::AtMost, Version { core: [major, minor, patch], prerelease: to.prerelease }))
        }
    };
    let lower = lower.map(|version| Comparator { operator: Operator::AtLeast, version });
    lower.into_iter().chain(upper.map(|(operator, version)| Comparator { operator, version })).collect()
}

/// Reads `^1.2`, `~1`, `>=1.2.3`, `1.x` …
fn comparator(text: &str) -> Result<Vec<Comparator>, NoVersion> {
    if let Some(rest) = text.strip_prefix('^') {
        return Ok(caret(Partial::parse(rest)?));
    }
    if let Some(rest) = text.strip_prefix('~') {
        return Ok(tilde(Partial::parse(rest.strip_prefix('>').unwrap_or(rest))?));
    }
    let (operator, rest) = [
        ("<=", Operator::AtMost),
        (">=", Operator::AtLeast),
        ("<", Operator::Less),
        (">", Operator::Greater),
        ("=", Operator::Equal),
    ]
    .into_iter()
    .find_map(|(sign, operator)| text.strip_prefix(sign).map(|rest| (operator, rest)))
    .unwrap_or((Operator::Equal, text));
    Ok(plain(operator, Partial::parse(rest)?))
}

fn between(from: Version, below: [u64; 3]) -> Vec<Comparator> {
    let lower = Comparator { operator: Operator::AtLeast, version: from };
    vec![lower, Comparator { operator: Operator::Less, version: Version::least(below) }]
}

fn caret(partial: Partial) -> Vec<Comparator> {
    let [major, minor, patch] = partial.core;
    let Some(major) = major else { return Vec::new() };
    let below = match (major, minor, patch) {
        (1.., ..) | (0, None, _) => [major + 1, 0, 0],
        (0, Some(0), Some(patch)) => [0, 0, patch + 1],
        (0, Some(minor), _) => [0, minor + 1, 0],
    };
    between(Version { core: [major, minor.unwrap_or(0), patch.unwrap_or(0)], prerelease: partial.prerelease }, below)
}

fn tilde(partial: Partial) -> Vec<Comparator> {
    let [major, minor, patch] = partial.core;
    let Some(major) = major else { return Vec::new() };
    let below = minor.map_or([major + 1, 0, 0], |minor| [major, minor + 1, 0]);
    between(Version { core: [major, minor.unwrap_or(0), patch.unwrap_or(0)], prerelease: partial.prerelease }, below)
}

fn plain(operator: Operator, partial: Partial) -> Vec<Comparator> {
    let one = |operator, version| vec![Comparator { operator, version }];
    let (first, next) = match partial.core {
        // Nothing is greater or less than any version.
        [None, ..] if matches!(operator, Operator::Less | Operator::Greater) => {
            return one(Operator::Less, Version::least([0, 0, 0]));
        }
        [None, ..] => return Vec::new(),
        [Some(major), None, _] => ([major, 0, 0], [major + 1, 0, 0]),
        [Some(major), Some(minor), None] => ([major, minor, 0], [major, minor + 1, 0]),
        [Some(major), Some(minor), Some(patch)] => {
            return one(operator, Version { core: [major, minor, patch], prerelease: partial.prerelease });
        }
    };
    match operator {
        Operator::Equal => between(Version::release(first), next),
        Operator::AtLeast => one(Operator::AtLeast, Version::release(first)),
        Operator::Greater => one(Operator::AtLeast, Version::release(next)),
        Operator::Less => one(Operator::Less, Version::least(first)),
        Operator::AtMost => one(Operator::Less, Version::least(next)),
    }
}
