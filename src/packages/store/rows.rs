//! What is known about one file: the row that index records and tree records share.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeTuple, Serializer};

/// The file type bits of a symbolic link, as `stat` has them. A row with this mode is a link: its size and hash are those of
/// the link's text.
pub const LINK_MODE: u32 = 0o120_777;

/// One file. In JSON: `["package.json",412,420,"<blake3>"]`, that is path, size in bytes, permission bits as a decimal
/// number, content hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// Relative to the entry or the tree, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Permission bits, or [`LINK_MODE`].
    pub mode: u32,
    /// BLAKE3 of the content.
    pub hash: blake3::Hash,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:o} {}", self.path, self.size, self.mode, self.hash.to_hex())
    }
}

impl Row {
    /// Returns the row of a symbolic link with the text `target`.
    #[must_use]
    pub fn link(path: String, target: &str) -> Self {
        Self { path, size: target.len() as u64, mode: LINK_MODE, hash: blake3::hash(target.as_bytes()) }
    }

    /// Returns the row of a file with `content`.
    #[must_use]
    pub fn file(path: String, content: &[u8], mode: u32) -> Self {
        Self { path, size: content.len() as u64, mode, hash: blake3::hash(content) }
    }

    /// Tells whether it is a symbolic link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.mode == LINK_MODE
    }

    /// Tells whether it was found set-user-ID, set-group-ID or sticky, which no file in a tree is.
    #[must_use]
    pub(super) fn has_special_bits(&self) -> bool {
        !self.is_link() && self.mode & 0o7000 != 0
    }

    /// Returns the same file as it is in a tree: without special bits.
    #[must_use]
    pub(super) fn plain(&self) -> Self {
        Self { mode: if self.has_special_bits() { self.mode & 0o777 } else { self.mode }, ..self.clone() }
    }

    /// Tells whether the path stays below where it starts: no empty, `.` or `..` part, not absolute. A backslash separates on
    /// Windows only; elsewhere it is a letter like any other.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        let leads_out = |part: &str| {
            matches!(part, "" | "." | "..") || part.contains('\0') || (cfg!(windows) && part.contains('\\'))
        };
        !self.path.split('/').any(leads_out)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(4)?;
        tuple.serialize_element(&self.path)?;
        tuple.serialize_element(&self.size)?;
        tuple.serialize_element(&self.mode)?;
        tuple.serialize_element(self.hash.to_hex().as_str())?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (path, size, mode, hash) = <(String, u64, u32, String)>::deserialize(deserializer)?;
        let hash = blake3::Hash::from_hex(hash).map_err(D::Error::custom)?;
        let row = Self { path, size, mode, hash };
        // A record that was tampered with must not lead out of its folder.
        if row.is_inside() { Ok(row) } else { Err(D::Error::custom("a path that leaves its folder")) }
    }
}

/// Returns rows as lines of JSON, in the order given.
#[must_use]
pub fn to_lines(rows: &[Row]) -> Vec<u8> {
    let mut text = Vec::with_capacity(rows.iter().map(|row| row.path.len() + 96).sum());
    for row in rows {
        // Writing to memory cannot fail, and a row holds nothing that JSON cannot.
        let _ = serde_json::to_writer(&mut text, row);
        text.push(b'\n');
    }
    text
}

/// Reads what [`to_lines`] wrote.
///
/// # Errors
/// A line that is no row.
pub fn from_lines(text: &[u8]) -> serde_json::Result<Vec<Row>> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice).collect()
}

/// Hashes an open file from where it stands, in pieces of 64 KiB.
///
/// # Errors
/// Any failure to read.
pub fn hash_file(file: &mut File) -> io::Result<(u64, blake3::Hash)> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        let got = match file.read(&mut piece) {
            Ok(0) => return Ok((size, hasher.finalize())),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(piece.get(..got).unwrap_or_default());
        size += got as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_their_text() {
        let rows = vec![
            Row::file("a \"quoted\" näme/x.js".into(), b"hello", 0o755),
            Row::link("node_modules/.bin/x".into(), "../x/cli.js"),
        ];
        let text = to_lines(&rows);
        assert_eq!(from_lines(&text).unwrap(), rows);
        let first = text.split(|b| *b == b'\n').next().unwrap();
        assert_eq!(
            std::str::from_utf8(first).unwrap(),
            "[\"a \\\"quoted\\\" näme/x.js\",5,493,\"ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f\"]"
        );
    }

    #[test]
    fn rows_that_lead_out_are_refused() {
        let hash = blake3::hash(b"").to_hex();
        for path in ["../x", "/x", "a/../../x", "a//b", ".", "", "a/./b", "a\\u0000b"] {
            let text = format!("[\"{path}\",0,420,\"{hash}\"]");
            assert!(serde_json::from_str::<Row>(&text).is_err(), "{path}");
        }
        let backslash = serde_json::from_str::<Row>(&format!("[\"a\\\\b\",0,420,\"{hash}\"]"));
        assert_eq!(backslash.is_err(), cfg!(windows));
    }
}
