//! Gzip, read to its very end.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;
use memmap2::MmapMut;

use super::corrupt;
use crate::error::{Code, HfError, Result};

/// Archives up to this size are inflated once and kept.
pub const KEPT_BYTES_MAX: usize = 8 << 20;

/// One archive at a time may be kept up to this size: the memory of the process stays bounded however many are unpacked at once.
pub const LARGE_BYTES_MAX: usize = 64 << 20;

static LARGE: AtomicBool = AtomicBool::new(false);

/// The right to keep a large archive, which ends with the value.
#[derive(Debug)]
struct Large;

impl Large {
    fn take() -> Option<Self> {
        (!LARGE.swap(true, Ordering::AcqRel)).then_some(Self)
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        LARGE.store(false, Ordering::Release);
    }
}

/// Buffers from this size on are mapped: the system has them back as soon as they are dropped, whatever the allocator does.
const MAPPED_FROM: usize = 256 << 10;

/// Bytes that are zero at first.
#[derive(Debug)]
pub enum Buffer {
    Small(Vec<u8>),
    Mapped(MmapMut),
}

impl Buffer {
    fn new(size: usize) -> Result<Self> {
        if size < MAPPED_FROM {
            return Ok(Self::Small(vec![0; size]));
        }
        let no_memory = |error| HfError::new(Code::Io, format!("no memory for an archive of {size} bytes: {error}"));
        MmapMut::map_anon(size).map(Self::Mapped).map_err(no_memory)
    }

    /// The same bytes with room for more.
    fn grown(&self, size: usize) -> Result<Self> {
        let mut new = Self::new(size)?;
        if let Some(beginning) = new.get_mut(..self.len()) {
            beginning.copy_from_slice(self);
        }
        Ok(new)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

/// The beginning of a buffer, which is what was filled of it.
#[derive(Debug)]
pub struct Filled {
    buffer: Buffer,
    length: usize,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

/// An archive that is kept in memory.
#[derive(Debug)]
pub struct Kept {
    filled: Filled,
    _large: Option<Large>,
}

impl Kept {
    /// The inflated bytes.
    pub fn bytes(&self) -> &[u8] {
        self.filled.as_ref()
    }
}

/// Bytes that are inflated at a time where an archive is not kept.
const CHUNK: usize = 256 << 10;

/// What is inflated as it is read, behind what was inflated already.
pub type Stream<'a> = Chain<Cursor<Filled>, BufReader<MultiGzDecoder<&'a [u8]>>>;

/// An inflated archive, or the way to it.
pub enum Inflated<'a> {
    /// All of it.
    Whole(Kept),
    /// Its beginning, and the rest as it comes.
    Stream(Box<Stream<'a>>),
}

/// Inflates `bytes` as far as they are kept.
///
/// # Errors
/// `HF_PKG_ARCHIVE` when they are no gzip stream, or a damaged one.
pub fn begin(bytes: &[u8]) -> Result<Inflated<'_>> {
    if bytes.is_empty() {
        return Err(corrupt("the archive is empty"));
    }
    // The last four bytes claim the size; the claim only saves growing.
    let claim = bytes.last_chunk::<4>().map_or(0, |last| u32::from_le_bytes(*last) as usize);
    let mut decoder = MultiGzDecoder::new(bytes);
    let (mut limit, mut large) = (KEPT_BYTES_MAX, None);
    let mut data = Buffer::new(claim.clamp(1 << 10, KEPT_BYTES_MAX) + 1)?;
    let mut filled = 0;
    loop {
        let Some(room) = data.get_mut(filled..).filter(|room| !room.is_empty()) else {
            if filled > LARGE_BYTES_MAX {
                // It claimed to be shorter. What was inflated goes with the right to keep it.
                (data, decoder) = (Buffer::new(0)?, again(bytes));
                filled = 0;
            } else if filled > limit && claim <= LARGE_BYTES_MAX {
                large = Large::take();
                limit = if large.is_some() { LARGE_BYTES_MAX } else { limit };
            }
            if filled > limit || data.is_empty() {
                let beginning = Cursor::new(Filled { buffer: data, length: filled });
                let rest = BufReader::with_capacity(CHUNK, decoder);
                return Ok(Inflated::Stream(Box::new(beginning.chain(rest))));
            }
            // One byte more than allowed shows that there is more.
            let wanted = if claim > filled { claim + 1 } else { filled * 2 };
            data = data.grown(wanted.min(limit + 1))?;
            continue;
        };
        match read(&mut decoder, room)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(Inflated::Whole(Kept { filled: Filled { buffer: data, length: filled }, _large: large }))
}

/// Inflates `bytes`, which were found sound, once more.
pub fn again(bytes: &[u8]) -> MultiGzDecoder<&[u8]> {
    MultiGzDecoder::new(bytes)
}

/// Reads some bytes.
///
/// # Errors
/// `HF_PKG_ARCHIVE` when the stream is damaged.
pub fn read(source: &mut impl Read, room: &mut [u8]) -> Result<usize> {
    loop {
        match source.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(|error| damaged(&error)),
        }
    }
}

/// Shows the next bytes without taking them; none at the end.
///
/// # Errors
/// `HF_PKG_ARCHIVE` when the stream is damaged.
pub fn peek(source: &mut impl BufRead) -> Result<&[u8]> {
    source.fill_buf().map_err(|error| damaged(&error))
}

fn damaged(error: &io::Error) -> crate::error::HfError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        corrupt("the gzip stream ends too early")
    } else {
        corrupt(format_args!("the gzip stream is damaged: {error}"))
    }
}
