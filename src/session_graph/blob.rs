//! Blobs as values: their references, and the form in which they are stored.

use std::fmt::Write as _;

use libdeflater::{CompressionLvl, Compressor, Decompressor};
use serde::Deserialize;

use super::error::blob_corrupt;
use crate::error::Result;

/// Stored as it is.
pub(crate) const RAW: i64 = 0;
/// Stored as its zlib stream.
pub(crate) const ZLIB: i64 = 1;
/// The kind of a manifest of a checkpoint.
pub(crate) const MANIFEST: &str = "checkpointManifest";
/// The kind of a blob that nobody described.
pub(crate) const GENERIC: &str = "genericBlob";

/// Which blobs are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Profile {
    /// None.
    LowLatency,
    /// Those that may be compressed and have 4096 bytes or more.
    #[default]
    Balanced,
    /// Those that may be compressed and have 1024 bytes or more.
    Compact,
}

impl Profile {
    fn compresses(self, length: usize) -> bool {
        match self {
            Self::LowLatency => false,
            Self::Balanced => length >= 4096,
            Self::Compact => length >= 1024,
        }
    }
}

/// The name of `bytes`: `blake3:` and the hash in hex.
pub(crate) fn reference(bytes: &[u8]) -> String {
    format!("blake3:{}", blake3::hash(bytes).to_hex())
}

/// The first 16 hex digits of the hash of `text`.
pub(crate) fn short_hash(text: &str) -> String {
    let hash = blake3::hash(text.as_bytes());
    let mut short = String::with_capacity(16);
    for byte in hash.as_bytes().iter().take(8) {
        // Writing to a String cannot fail.
        let _ = write!(short, "{byte:02x}");
    }
    short
}

/// A blob in the form in which it is stored.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) hash: String,
    pub(crate) kind: String,
    pub(crate) codec: i64,
    pub(crate) raw_len: i64,
    pub(crate) content: Vec<u8>,
}

/// Makes the stored form of `content`.
pub(crate) fn pack(profile: Profile, kind: &str, compressible: bool, content: Vec<u8>) -> Packed {
    let hash = reference(&content);
    let raw_len = i64::try_from(content.len()).unwrap_or(i64::MAX);
    let smaller = if compressible && profile.compresses(content.len()) { deflate(&content) } else { None };
    let (codec, content) = smaller.map_or((RAW, content), |smaller| (ZLIB, smaller));
    Packed { hash, kind: kind.to_owned(), codec, raw_len, content }
}

/// The zlib stream, where it is smaller.
fn deflate(content: &[u8]) -> Option<Vec<u8>> {
    let mut compressor = Compressor::new(CompressionLvl::new(4).ok()?);
    // Room for one byte less: what does not fit is not smaller.
    let mut out = vec![0; content.len().saturating_sub(1)];
    let length = compressor.zlib_compress(content, &mut out).ok()?;
    out.truncate(length);
    out.shrink_to_fit();
    Some(out)
}

/// Returns the bytes of a stored blob, after comparing their hash with its name. `component` says what it was read for.
pub(crate) fn unpack(hash: &str, component: &str, codec: i64, raw_len: i64, content: &[u8]) -> Result<Vec<u8>> {
    let damaged = || blob_corrupt(hash, component);
    let bytes = match codec {
        RAW => content.to_vec(),
        ZLIB => {
            let length = usize::try_from(raw_len).map_err(|_| damaged())?;
            // No stream grows by more than that; a damaged length must not cost memory.
            if length > content.len().saturating_mul(1040).saturating_add(64) {
                return Err(damaged());
            }
            let mut out = vec![0; length];
            let found = Decompressor::new().zlib_decompress(content, &mut out).map_err(|_| damaged())?;
            if found != length {
                return Err(damaged());
            }
            out
        }
        _ => return Err(damaged()),
    };
    if reference(&bytes) == hash { Ok(bytes) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Code;

    #[test]
    fn only_what_gets_smaller_is_compressed() {
        let text = "all work and no play ".repeat(300).into_bytes();
        let packed = pack(Profile::Balanced, "toolState", true, text.clone());
        assert_eq!(packed.codec, ZLIB);
        assert!(packed.content.len() < text.len() / 10);
        assert_eq!(unpack(&packed.hash, "x", ZLIB, packed.raw_len, &packed.content).unwrap(), text);
        for (profile, compressible) in [(Profile::LowLatency, true), (Profile::Compact, false)] {
            assert_eq!(pack(profile, "toolState", compressible, text.clone()).codec, RAW);
        }
        let short = text[..2000].to_vec();
        assert_eq!(pack(Profile::Balanced, "k", true, short.clone()).codec, RAW);
        assert_eq!(pack(Profile::Compact, "k", true, short).codec, ZLIB);
        let noise: Vec<u8> = (0..5000_u32).flat_map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect();
        assert_eq!(pack(Profile::Compact, "k", true, noise).codec, RAW);
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back_and_a_flipped_bit_does_not(
            bytes in proptest::collection::vec(0_u8..8, 0..6000), at in any::<usize>(), bit in 0_u8..8
        ) {
            let packed = pack(Profile::Compact, "k", true, bytes.clone());
            prop_assert_eq!(&unpack(&packed.hash, "c", packed.codec, packed.raw_len, &packed.content).unwrap(), &bytes);
            if !packed.content.is_empty() {
                let mut damaged = packed.content.clone();
                let index = at % damaged.len();
                damaged[index] ^= 1 << bit;
                if let Err(error) = unpack(&packed.hash, "c", packed.codec, packed.raw_len, &damaged) {
                    prop_assert_eq!(error.code(), Code::GraphBlobCorrupt);
                } else {
                    // Bits of a zlib header that mean nothing to the decoder: what comes out is still what the name says.
                    prop_assert_eq!(packed.codec, ZLIB);
                }
            }
        }
    }

    #[test]
    fn a_damaged_length_costs_no_memory() {
        let packed = pack(Profile::Compact, "k", true, vec![7; 4096]);
        let error = unpack(&packed.hash, "c", ZLIB, i64::MAX, &packed.content).unwrap_err();
        assert_eq!(error.code(), Code::GraphBlobCorrupt);
    }
}
