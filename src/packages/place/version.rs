//! Versions, as npm's `semver` reads and orders them.

use std::cmp::Ordering;

/// A version. Build metadata is no part of it: npm neither compares nor matches by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// major, minor, patch
    pub core: [u64; 3],
    /// Identifiers of the prerelease; none for a release, which is greater than its prereleases.
    pub prerelease: Prerelease,
}

/// What stands between `-` and `+`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prerelease(pub Vec<Identifier>);

/// One part of a prerelease. Numbers are smaller than words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identifier {
    /// Digits only.
    Number(u64),
    /// Anything else, compared by bytes.
    Word(String),
}

impl PartialOrd for Prerelease {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Prerelease {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.is_empty().cmp(&other.0.is_empty()).then_with(|| self.0.cmp(&other.0))
    }
}

/// The largest number that JavaScript has exactly; npm refuses versions beyond.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Why a text is not used as a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoVersion {
    /// It does not look like one.
    Shape,
    /// A number of it is greater than [`NUMBER_MAX`].
    Number,
}

/// A version of which trailing numbers may be absent, or `x`, `X`, `*`: `1.2`, `1.x`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// major, minor, patch; `None` from the first free one on.
    pub core: [Option<u64>; 3],
    /// Empty unless all of `core` is there.
    pub prerelease: Prerelease,
}

impl Version {
    /// Reads a version as loosely as npm reads that of a package: `v` and `=` in front, leading zeros, no hyphen.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Partial::parse(text).ok()?.full()
    }

    /// A release.
    #[must_use]
    pub fn release(core: [u64; 3]) -> Self {
        Self { core, prerelease: Prerelease::default() }
    }

    /// `core-0`, the smallest of its prereleases.
    #[must_use]
    pub fn least(core: [u64; 3]) -> Self {
        Self { core, prerelease: Prerelease(vec![Identifier::Number(0)]) }
    }

    /// Whether it has a prerelease.
    #[must_use]
    pub fn is_prerelease(&self) -> bool {
        !self.prerelease.0.is_empty()
    }
}

impl Partial {
    /// Reads `[v=]*major[.minor[.patch[[-]prerelease][+build]]]`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self, NoVersion> {
        let mut rest = text.trim().trim_start_matches(|c: char| c == 'v' || c == '=' || c.is_ascii_whitespace());
        let mut core = [None; 3];
        let mut free = false;
        for (index, slot) in core.iter_mut().enumerate() {
            if index > 0 {
                match rest.strip_prefix('.') {
                    Some(after) => rest = after,
                    None if rest.is_empty() => break,
                    None => return Err(NoVersion::Shape),
                }
            }
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            if digits > 0 {
                let number = number.parse().ok().filter(|&number| number <= NUMBER_MAX).ok_or(NoVersion::Number)?;
                *slot = (!free).then_some(number);
                rest = after;
            } else {
                rest = rest.strip_prefix(['x', 'X', '*']).ok_or(NoVersion::Shape)?;
                free = true;
            }
            if index == 2 {
                let prerelease = prerelease(rest)?;
                return Ok(Self { core, prerelease: if free { Prerelease::default() } else { prerelease } });
            }
        }
        if rest.is_empty() { Ok(Self { core, prerelease: Prerelease::default() }) } else { Err(NoVersion::Shape) }
    }

    /// The version, if all of it is there.
    #[must_use]
    pub fn full(self) -> Option<Version> {
        match self.core {
            [Some(major), Some(minor), Some(patch)] => {
                Some(Version { core: [major, minor, patch], prerelease: self.prerelease })
            }
            _ => None,
        }
    }
}

/// Reads `[[-]prerelease][+build]`.
fn prerelease(text: &str) -> Result<Prerelease, NoVersion> {
    let allowed =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let text = match text.split_once('+') {
        Some((head, build)) if build.split('.').all(allowed) => head,
        Some(_) => return Err(NoVersion::Shape),
        None => text,
    };
    if text.is_empty() {
        return Ok(Prerelease::default());
    }
    // The hyphen may be missing (`1.2.3beta`); one that nothing follows is itself the identifier.
    let body = text.strip_prefix('-').filter(|body| !body.is_empty()).unwrap_or(text);
    let parts = body.split('.').map(|part| match part {
        part if !allowed(part) => Err(NoVersion::Shape),
        part if part.bytes().all(|byte| byte.is_ascii_digit()) => {
            // npm keeps digits beyond its numbers as a word.
            let number = part.parse().ok().filter(|&number| number < NUMBER_MAX);
            Ok(number.map_or_else(|| Identifier::Word(part.to_owned()), Identifier::Number))
        }
        part => Ok(Identifier::Word(part.to_owned())),
    });
    parts.collect::<Result<_, _>>().map(Prerelease)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_standard() {
        let ascending = [
            "0.0.0-0",
            "0.0.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0",
        ];
        let versions: Vec<_> = ascending.iter().map(|text| Version::parse(text).expect("a version")).collect();
        for (index, version) in versions.iter().enumerate() {
            for (other_index, other) in versions.iter().enumerate() {
                assert_eq!(version.cmp(other), index.cmp(&other_index), "{version:?} {other:?}");
            }
        }
    }

    #[test]
    fn reads_what_npm_reads() {
        assert_eq!(Version::parse(" v1.02.3 "), Some(Version::release([1, 2, 3])));
        assert_eq!(Version::parse("1.2.3+build.5"), Some(Version::release([1, 2, 3])));
        assert_eq!(Version::parse("1.2.3beta"), Version::parse("1.2.3-beta"));
        for text in
            ["", "1", "1.2", "1.2.x", "1.2.3.4", "1.2.3-a..b", "1.2.3+", "latest", "9007199254740992.0.0", "1.2.3 4"]
        {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
