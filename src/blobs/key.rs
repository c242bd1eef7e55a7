//! Keys as names of files and objects.

use crate::error::{Code, HfError, Result};

/// Characters of a key that an error message shows.
const SHOWN: usize = 100;

/// Refuses what can be no key.
pub(super) fn check(integrity: &str) -> Result<()> {
    if integrity.is_empty() {
        return Err(HfError::new(
            Code::InvalidArgument,
            "the integrity of a blob is empty; give the SRI string of its package",
        ));
    }
    Ok(())
}

/// A key in a message: whole, or its beginning.
pub(super) fn shown(integrity: &str) -> String {
    match integrity.char_indices().nth(SHOWN) {
        None => integrity.to_owned(),
        Some((end, _)) => format!("{}…", integrity.get(..end).unwrap_or_default()),
    }
}

/// The lower-case hex of the key's UTF-8.
pub(super) fn to_hex(integrity: &str) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(integrity.len() * 2);
    for byte in integrity.bytes() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// The key whose hex this is; `None` unless it is lower-case, of even length and UTF-8, and not empty.
pub(super) fn from_hex(hex: &str) -> Option<String> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? * 16 + digit(*low)?)).collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn matches_the_vector_of_the_format() {
        assert_eq!(to_hex("sha-a"), "7368612d61");
        for not_hex in ["", "7", "736", "7A", "zz", "ff", ".tmp.1"] {
            assert_eq!(from_hex(not_hex), None, "{not_hex}");
        }
        assert!(check("").is_err() && check(" ").is_ok());
        assert_eq!(shown(&"ä".repeat(101)), format!("{}…", "ä".repeat(100)));
    }

    proptest! {
        #[test]
        fn any_key_comes_back(key in "\\PC{1,50}") {
            prop_assert_eq!(from_hex(&to_hex(&key)), Some(key));
        }
    }
}
