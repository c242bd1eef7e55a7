//! Gzip: short archives at once, long ones in blocks on several cores, with the same bytes on any number of them.

use std::io::{self, Read};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use libdeflater::{CompressionLvl, Compressor};

use crate::durable::pool;

/// Archives up to this size are compressed as one buffer, by libdeflate, which cannot do it piece by piece.
const WHOLE_MAX: usize = 64 << 20;

/// Of libdeflate: smaller than what gzip makes at its usual 6, in less time.
const LEVEL_WHOLE: i32 = 7;

/// Of zlib-rs: at 7 it compresses long archives better than gzip at its usual 6 does, and at 6 worse.
const LEVEL: u32 = 7;

/// Bytes that are compressed by themselves. Each block knows the end of the one before, so splitting costs a few bytes only.
const BLOCK: usize = 512 << 10;

/// How far back deflate refers.
const WINDOW: usize = 32 << 10;

/// Blocks that are compressed side by side, which bounds the memory.
const BLOCKS_AT_ONCE: usize = 8;

/// No time, no name, no system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A gzip stream in the making.
pub struct Gzip {
    /// What came so far, until it is too long to be compressed at once.
    whole: Option<Vec<u8>>,
    whole_max: usize,
    out: Vec<u8>,
    full: Vec<Vec<u8>>,
    current: Vec<u8>,
    window: Vec<u8>,
    crc: Crc,
}

impl Gzip {
    pub fn new() -> Self {
        Self::with(WHOLE_MAX)
    }

    /// Begins a stream that is compressed at once if it has at most `whole_max` bytes.
    fn with(whole_max: usize) -> Self {
        Self {
            whole: Some(Vec::new()),
            whole_max,
            out: HEADER.to_vec(),
            full: Vec::new(),
            current: Vec::new(),
            window: Vec::new(),
            crc: Crc::new(),
        }
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    /// When the compressor fails, which would be a bug.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.whole {
            Some(whole) if whole.len() + bytes.len() <= self.whole_max => {
                whole.extend_from_slice(bytes);
                Ok(())
            }
            whole => {
                let before = whole.take().unwrap_or_default();
                self.add(&before)?;
                self.add(bytes)
            }
        }
    }

    fn add(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.current.len()));
            self.current.extend_from_slice(now);
            bytes = rest;
            self.pass_on()?;
        }
        Ok(())
    }

    /// Adds `size` bytes from `source`.
    ///
    /// # Errors
    /// Any I/O failure; `UnexpectedEof` when there are fewer.
    pub fn read_from(&mut self, source: &mut impl Read, size: u64) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let fits = self.whole.as_ref().is_some_and(|whole| whole.len() as u64 + left <= self.whole_max as u64);
            if !fits && let Some(before) = self.whole.take() {
                self.add(&before)?;
            }
            let (to, room) = match &mut self.whole {
                Some(whole) => (whole, left),
                None => {
                    let room = ((BLOCK - self.current.len()) as u64).min(left);
                    (&mut self.current, room)
                }
            };
            let start = to.len();
            let count = source.by_ref().take(room).read_to_end(to)? as u64;
            if count < room {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= count;
            if self.whole.is_none() {
                self.crc.update(self.current.get(start..).unwrap_or_default());
                self.pass_on()?;
            }
        }
        Ok(())
    }

    /// Returns the whole stream.
    ///
    /// # Errors
    /// As [`Gzip::write`].
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        if let Some(whole) = self.whole {
            return at_once(&whole);
        }
        self.full.push(std::mem::take(&mut self.current));
        self.compress_full(true)?;
        self.out.extend_from_slice(&self.crc.sum().to_le_bytes());
        self.out.extend_from_slice(&self.crc.amount().to_le_bytes());
        Ok(self.out)
    }

    fn pass_on(&mut self) -> io::Result<()> {
        if self.current.len() < BLOCK {
            return Ok(());
        }
        self.full.push(std::mem::replace(&mut self.current, Vec::with_capacity(BLOCK)));
        if self.full.len() < BLOCKS_AT_ONCE { Ok(()) } else { self.compress_full(false) }
    }

    fn compress_full(&mut self, last: bool) -> io::Result<()> {
        let blocks = std::mem::take(&mut self.full);
        let count = blocks.len();
        let mut jobs: Vec<pool::Task<io::Result<Vec<u8>>>> = Vec::with_capacity(count);
        for (index, block) in blocks.into_iter().enumerate() {
            let tail = block.get(block.len().saturating_sub(WINDOW)..).unwrap_or_default().to_vec();
            let window = std::mem::replace(&mut self.window, tail);
            let last = last && index + 1 == count;
            jobs.push(Box::new(move || compress(&block, &window, last)));
        }
        for part in pool::parallel(BLOCKS_AT_ONCE, jobs) {
            self.out.extend_from_slice(&part.unwrap_or_else(|| Err(io::Error::other("the compressor panicked")))?);
        }
        Ok(())
    }
}

fn at_once(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let level = CompressionLvl::new(LEVEL_WHOLE).map_err(|_| io::Error::other("no such level"))?;
    let mut compressor = Compressor::new(level);
    let mut out = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let size = compressor.gzip_compress(bytes, &mut out).map_err(io::Error::other)?;
    out.truncate(size);
    out.shrink_to_fit();
    Ok(out)
}

/// Compresses one block, ended at a byte so that the next can follow.
fn compress(block: &[u8], window: &[u8], last: bool) -> io::Result<Vec<u8>> {
    let mut stream = Compress::new(Compression::new(LEVEL), false);
    if !window.is_empty() {
        stream.set_dictionary(window).map_err(io::Error::other)?;
    }
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut out = Vec::with_capacity(block.len() / 3 + 1024);
    loop {
        let read = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
        let status = stream.compress_vec(block.get(read..).unwrap_or_default(), &mut out, flush)?;
        // Room left over means that nothing was held back.
        let done = if last { status == Status::StreamEnd } else { out.len() < out.capacity() };
        if done {
            return Ok(out);
        }
        out.reserve(out.capacity() / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_written_is_inflated_again() {
        // Repeats itself within a window and across blocks, and not for ever.
        let text: Vec<u8> = (0..9 * BLOCK as u32).map(|i| ((i / 7).wrapping_mul(2_654_435_761) >> 29) as u8).collect();
        let sizes = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 8 * BLOCK - 1, 8 * BLOCK, 8 * BLOCK + 1, 9 * BLOCK];
        for size in sizes {
            let bytes = text.get(..size).unwrap();
            let mut made = Vec::new();
            for whole_max in [0, BLOCK + 1, WHOLE_MAX] {
                for stride in [100_000, BLOCK, usize::MAX] {
                    let (mut written, mut read) = (Gzip::with(whole_max), Gzip::with(whole_max));
                    for part in bytes.chunks(stride) {
                        written.write(part).unwrap();
                        read.read_from(&mut &*part, part.len() as u64).unwrap();
                    }
                    let gzip = written.finish().unwrap();
                    assert_eq!(gzip, read.finish().unwrap(), "{size} {whole_max} {stride}");
                    let mut back = Vec::new();
                    flate2::read::GzDecoder::new(gzip.as_slice()).read_to_end(&mut back).unwrap();
                    assert!(back == bytes, "{size} {whole_max} {stride}");
                    made.push(gzip);
                }
                // However it came, the bytes are the same.
                assert!(made.windows(2).all(|two| two[0] == two[1]), "{size} {whole_max}");
                made.clear();
            }
        }
        let short = Gzip::new().read_from(&mut &b"short"[..], 6).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
