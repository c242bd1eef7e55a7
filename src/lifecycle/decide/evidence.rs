//! What makes two pieces of evidence the same: their text without the times in it.

use crate::hash::sha256_hex;

/// Returns the hash of `evidence`, 64 lower-case hex digits. Times of day, dates with times, and epoch numbers (10 to 13
/// digits standing alone) do not count, nor does the amount of white space.
#[must_use]
pub fn hash_evidence(evidence: &str) -> String {
    let mut text = evidence.to_owned();
    for find in [date_time, clock_time, epoch_number] {
        text = without(&text, find);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    sha256_hex(words.join(" ").as_bytes())
}

/// Finds the length of a match that begins at an offset.
type Find = fn(&[u8], usize) -> Option<usize>;

/// Returns `text` without the leftmost matches of `find`. They are ASCII, so what stays is whole characters.
fn without(text: &str, find: Find) -> String {
    let bytes = text.as_bytes();
    let mut kept = String::with_capacity(text.len());
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        match find(bytes, at) {
            Some(length) => {
                kept.push_str(text.get(from..at).unwrap_or_default());
                at += length;
                from = at;
            }
            None => at += 1,
        }
    }
    kept.push_str(text.get(from..).unwrap_or_default());
    kept
}

/// `YYYY-MM-DD`, `T` or a space, a clock time, and optionally `Z`, `±HH:MM` or `±HHMM`.
fn date_time(bytes: &[u8], at: usize) -> Option<usize> {
    if !like(bytes, at, "0000-00-00") || !matches!(bytes.get(at + 10), Some(b'T' | b' ')) {
        return None;
    }
    let length = 11 + clock_time(bytes, at + 11)?;
    let zone = at + length;
    let zone_length = match bytes.get(zone) {
        Some(b'Z') => 1,
        Some(b'+' | b'-') if like(bytes, zone + 1, "00:00") => 6,
        Some(b'+' | b'-') if like(bytes, zone + 1, "0000") => 5,
        _ => 0,
    };
    Some(length + zone_length)
}

/// `HH:MM:SS` and optionally `.digits`.
fn clock_time(bytes: &[u8], at: usize) -> Option<usize> {
    if !like(bytes, at, "00:00:00") {
        return None;
    }
    let fraction = if bytes.get(at + 8) == Some(&b'.') { digits(bytes, at + 9) } else { 0 };
    Some(8 + if fraction > 0 { 1 + fraction } else { 0 })
}

/// 10 to 13 digits that are a word of their own.
fn epoch_number(bytes: &[u8], at: usize) -> Option<usize> {
    let is_word = |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if at.checked_sub(1).is_some_and(is_word) {
        return None;
    }
    let length = digits(bytes, at);
    ((10..=13).contains(&length) && !is_word(at + length)).then_some(length)
}

/// How many digits stand at `at`.
fn digits(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count()
}

/// Whether the bytes at `at` look like `shape`, in which `0` stands for any digit.
fn like(bytes: &[u8], at: usize, shape: &str) -> bool {
    bytes.get(at..at + shape.len()).is_some_and(|found| {
        found.iter().zip(shape.bytes()).all(|(b, s)| if s == b'0' { b.is_ascii_digit() } else { *b == s })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const DOWN: &str = "dd787ebdad25feb51327cc1b669a4206f8c48c62c41f077a53d762329729f7dc";

    #[test]
    fn hashes_the_vectors_of_the_format() {
        assert_eq!(hash_evidence(""), EMPTY);
        assert_eq!(hash_evidence("2026-05-31T12:00:00"), EMPTY);
        assert_eq!(hash_evidence("runtime down at 2026-05-31T12:00:00Z"), DOWN);
        assert_eq!(hash_evidence("runtime down at 2026-05-31 13:30:45.123+02:00"), DOWN);
        assert_eq!(
            hash_evidence("epoch 1717156800 and 1717156800123 x 123456789 y 17171568001234"),
            sha256_hex(b"epoch and x 123456789 y 17171568001234")
        );
        assert!(hash_evidence("id1717156800").starts_with("ac50ac65ae75"));
        assert_eq!(
            hash_evidence("probe_failed runtimeFailed=true process=indeterminate processFailed=true"),
            "bfc0756271d94f5500fb6962bae744ab2cc5babf903a67887e3b375611a957fd"
        );
    }

    #[test]
    fn takes_out_times_and_nothing_else() {
        for (evidence, left) in [
            ("a 2026-05-31T12:00:00+0200 b", "a b"),
            ("a 2026-05-31T12:00:00+02 b", "a +02 b"),
            ("a 2026-05-31T12:00:00. b", "a . b"),
            ("a 2026-05-31  12:00:00 b", "a 2026-05-31 b"),
            ("a12:00:00.5b", "ab"),
            ("12:00:0", "12:00:0"),
            ("1717156800_ x1717156800 1717156800x", "1717156800_ x1717156800 1717156800x"),
            ("é1717156800é", "éé"),
            ("(1717156800)", "()"),
            ("12026-05-31T12:00:00Z", "1"),
            // The first pass joins what the second then finds, and the other way round never.
            ("12:002026-05-31T12:00:00Z:00", ""),
            ("a\u{a0}b\u{85}\tc\n", "a b c"),
            ("\u{661}717156800", "\u{661}717156800"),
        ] {
            assert_eq!(hash_evidence(evidence), sha256_hex(left.as_bytes()), "{evidence}");
        }
    }

    proptest! {
        #[test]
        fn times_never_matter(before in "[a-z =]{0,12}", after in "[a-z =]{0,12}", ms in 1_000_000_000_000u64..2_000_000_000_000) {
            let text = |stamp: &str| hash_evidence(&format!("{before} {stamp} {after}"));
            let expected = text("");
            prop_assert_eq!(text(&ms.to_string()), expected.clone());
            prop_assert_eq!(text(&(ms / 1000).to_string()), expected.clone());
            prop_assert_eq!(text(&crate::clock::iso_now()), expected.clone());
        }

        #[test]
        fn any_text_has_a_hash_that_white_space_does_not_change(text in "\\PC{0,40}") {
            prop_assert_eq!(hash_evidence(&text).len(), 64);
            prop_assert_eq!(hash_evidence(&format!(" {text}\t")), hash_evidence(&text));
        }
    }
}
