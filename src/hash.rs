//! Content hashes.

use sha2::{Digest, Sha256};

/// Returns `sha256:` followed by the lower-case hex of SHA-256 over `bytes`.
#[must_use]
pub fn content_hash(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256_hex(bytes))
}

/// Returns the lower-case hex of SHA-256 over `bytes`.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(bytes);
    let mut text = String::with_capacity(64);
    for byte in digest.iter() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::content_hash;

    #[test]
    fn matches_the_vector_of_the_format() {
        let text = "{\n  \"schemaVersion\": 1,\n  \"updatedAt\": \"2026-04-21T12:00:00.000Z\",\n  \"data\": {\n    \"v\": 1\n  }\n}\n";
        assert_eq!(text.len(), 96);
        assert_eq!(
            content_hash(text.as_bytes()),
            "sha256:10693281d5ac682b3b4876998a4d8d0f4cbed78c9242cb81d658673b4000826a"
        );
    }
}
