//! Which names an archive may use, and when two names are one.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc_quick};

use super::{corrupt, over_limit, shown, unsafe_entry};
use crate::error::Result;

/// Longest name of one file or folder that the usual file systems take.
const COMPONENT_BYTES_MAX: usize = 255;

/// Returns `raw` as text if it is a path that may be unpacked on a system that is Windows or not.
///
/// # Errors
/// `HF_PKG_UNSAFE_ENTRY` says what is wrong with it.
pub fn checked(raw: &[u8], windows: bool) -> Result<&str> {
    let lossy = || shown(&String::from_utf8_lossy(raw));
    let refuse = |what: &str| Err(unsafe_entry(format_args!("{what} \"{}\"", lossy()), &lossy()));
    let Ok(path) = std::str::from_utf8(raw) else { return refuse("invalid name") };
    if path.contains('\0') {
        return refuse("invalid name");
    }
    // The original trims; a name that is harmful either way is refused either way.
    for form in [path, path.trim()] {
        if form.is_empty() {
            return refuse("invalid name");
        }
        if form.starts_with(['/', '\\']) {
            return refuse("absolute path");
        }
        let mut start = form.chars();
        if start.next().is_some_and(|c| c.is_ascii_alphabetic()) && start.next() == Some(':') {
            return refuse("absolute path");
        }
        if form.split(['/', '\\']).any(|component| component == "..") {
            return refuse("parent-directory traversal in");
        }
    }
    let long = |component: &str| component.len() > COMPONENT_BYTES_MAX;
    if components(path).any(|component| long(component) || (windows && !fits_windows(component))) {
        return refuse("invalid name");
    }
    Ok(path)
}

/// Refuses a path that is too long or too deep.
///
/// # Errors
/// `HF_PKG_UNSAFE_ENTRY` names the limit.
pub fn within(raw: &[u8], limits: &super::Limits) -> Result<()> {
    if raw.len() as u64 > limits.max_path_bytes {
        return Err(over_limit("maxPathBytes", &String::from_utf8_lossy(raw)));
    }
    let depth = raw.split(|&byte| byte == b'/').filter(|part| !matches!(part, [] | [b'.'])).count();
    if depth as u64 > limits.max_depth {
        return Err(over_limit("maxDepth", &String::from_utf8_lossy(raw)));
    }
    Ok(())
}

/// Splits a path into what counts: empty components and `.` name nothing.
pub fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|component| !component.is_empty() && *component != ".")
}

/// Tells whether `path` can only mean a folder.
pub fn names_a_folder(path: &str) -> bool {
    path.ends_with('/') || path == "." || path.ends_with("/.")
}

/// The form in which two names are equal where the file system folds case: composed, then case-folded.
pub fn folded(name: &str) -> Cow<'_, str> {
    if name.is_ascii() {
        return if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
    }
    let composed: Cow<'_, str> = if is_nfc_quick(name.chars()) == unicode_normalization::IsNormalized::Yes {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.nfc().collect())
    };
    // Folding may take a composed text apart, so it is composed once more.
    Cow::Owned(caseless::default_case_fold_str(&composed).nfc().collect())
}

fn fits_windows(component: &str) -> bool {
    let forbidden = |c: char| matches!(c, '\\' | ':' | '<' | '>' | '"' | '|' | '?' | '*') || u32::from(c) < 32;
    if component.chars().any(forbidden) || component.ends_with(['.', ' ']) {
        return false;
    }
    let stem = component.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$");
    let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    let numbered = port.is_some_and(|rest| {
        let mut chars = rest.chars();
        chars.next().is_some_and(|c| c.is_ascii_digit() || matches!(c, '¹' | '²' | '³')) && chars.next().is_none()
    });
    !(device || numbered)
}

/// Reads a number of a tar header: octal text, or the binary form of big ones.
///
/// # Errors
/// `HF_PKG_ARCHIVE` for anything that readers could understand differently.
pub fn number(field: &[u8], what: &str) -> Result<u64> {
    let bad = || corrupt(format_args!("malformed {what} in a header"));
    if let [0x80, rest @ ..] = field {
        let (high, low) = rest.split_at_checked(rest.len().saturating_sub(8)).ok_or_else(bad)?;
        if high.iter().any(|&byte| byte != 0) {
            return Err(bad());
        }
        return Ok(low.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)));
    }
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(|byte| (b'0'..=b'7').contains(byte)) || text.len() > 21 {
        return Err(bad());
    }
    Ok(text.iter().fold(0, |value, &byte| value << 3 | u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_refuses_what_it_would_take_for_something_else() {
        for name in
            ["a/nul", "a/NUL.txt", "com1", "LPT9.log", "x ", "x.", "a:b", "a\\b", "con .txt", "a?b", "COM²", "q/\u{1}"]
        {
            assert!(checked(name.as_bytes(), true).is_err(), "{name}");
            assert!(name == "a:b" || checked(name.as_bytes(), false).is_ok(), "{name}");
        }
        for name in ["a/null", "com10", "com", "x.y", "console.js", "a/./b", "LPT0x"] {
            assert!(checked(name.as_bytes(), true).is_ok(), "{name}");
        }
    }

    #[test]
    fn folding_joins_forms_and_cases() {
        for (a, b) in [("README", "readme"), ("É", "e\u{301}"), ("straße", "STRASSE"), ("Ǆ", "ǆ"), ("\u{212a}", "k")]
        {
            assert_eq!(folded(a), folded(b), "{a} {b}");
        }
        assert_ne!(folded("e"), folded("é"));
        assert_eq!(folded("plain.js"), Cow::Borrowed("plain.js"));
    }

    #[test]
    fn numbers_that_readers_take_differently_are_refused() {
        assert_eq!(number(b"0000644\0", "x").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0", "x").unwrap(), 0o644);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1], "x").unwrap(), (2 << 32) + 1);
        for bad in [
            &b"+644\0"[..],
            b"-1\0",
            b"\0",
            b"",
            b"9",
            b"6 4",
            b"0x10",
            &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xff; 12],
        ] {
            assert!(number(bad, "x").is_err(), "{bad:?}");
        }
    }
}
