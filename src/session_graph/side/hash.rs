//! Hashes over what JSON says, not over how it is written.

use crate::error::{Code, HfError, Result};
use crate::json;

/// Stands first in what is hashed.
const VERSION: u32 = 1;

/// The blake3 of the canonical form (RFC 8785) of a JSON text, in hex.
pub(super) fn canonical_hash(text: &str) -> Result<String> {
    let canonical = json::canonical(text).map_err(|error| {
        HfError::new(Code::InvalidArgument, format!("the arguments are no JSON that can be hashed: {error}"))
    })?;
    Ok(blake3::hash(format!("{VERSION}:{canonical}").as_bytes()).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_data_has_equal_hashes() {
        let hash = |text: &str| canonical_hash(text).unwrap();
        assert_eq!(hash(r#"{"a":1.0,"b":["\u0041"]}"#), hash(r#" {"b":["A"], "a":1}"#));
        assert_ne!(hash(r#"["a",1]"#), hash(r#"[1,"a"]"#));
        assert_ne!(hash(r#"{"timestamp":1}"#), hash(r#"{"timestamp":2}"#));
        assert_eq!(hash("[1]").len(), 64);
        // Formats are pinned: what is stored is compared with what later versions compute.
        assert_eq!(hash("null"), blake3::hash(b"1:null").to_hex().to_string());
    }
}
