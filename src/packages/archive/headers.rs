//! Tar headers, with the records that lengthen their names.
//!
//! Readers of tar differ where an archive is ambiguous, and that is how names are smuggled past a check. What other readers
//! could understand differently is refused here: global paths, sizes that disagree, folders with content, records nobody uses.

use std::io::BufRead;

use tar::Header;

use super::names::number;
use super::{Limits, corrupt, inflate, over_limit};
use crate::error::Result;

pub const BLOCK: usize = 512;

/// Most bytes of one metadata record.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// One entry as the archive describes it, with its effective name.
pub struct Raw {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    /// The type byte; `S` also for files that a PAX record makes sparse.
    pub kind: u8,
    pub size: u64,
    pub exec: bool,
}

/// What metadata records say about the entry that follows them.
#[derive(Default)]
struct Pending {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

/// Reads headers from an inflated archive and keeps count of what came out of it.
pub struct Reader<'l, R> {
    source: R,
    limits: &'l Limits,
    /// Bytes read so far, which is also where the next ones stand.
    pub position: u64,
    /// Bytes of files, records and padding so far.
    spent: u64,
    headers: u64,
}

impl<'l, R: BufRead> Reader<'l, R> {
    pub fn new(source: R, limits: &'l Limits) -> Self {
        Self { source, limits, position: 0, spent: 0, headers: 0 }
    }

    /// Returns the next entry; its bytes follow. `None` at the end, when nothing but zeros came after the last entry and the
    /// gzip stream is sound.
    ///
    /// # Errors
    /// `HF_PKG_ARCHIVE` when the archive is damaged or ambiguous, `HF_PKG_UNSAFE_ENTRY` beyond a limit.
    pub fn next(&mut self) -> Result<Option<Raw>> {
        let mut pending = Pending::default();
        loop {
            let block = self.block()?;
            if block.iter().all(|&byte| byte == 0) {
                if pending.long_name.is_some() || pending.long_link.is_some() || pending.pax.is_some() {
                    return Err(corrupt("a metadata record without an entry"));
                }
                self.finish()?;
                return Ok(None);
            }
            verify_checksum(&block)?;
            let header = Header::from_byte_slice(&block);
            let size = number(&header.as_old().size, "size")?;
            let kind = header.entry_type().as_byte();
            match kind {
                b'L' => set_once(&mut pending.long_name, self.gnu_record(size)?, "long name")?,
                b'K' => set_once(&mut pending.long_link, self.gnu_record(size)?, "long link")?,
                b'x' => {
                    let record = self.record(size)?;
                    set_once(&mut pending.pax, pax(&record)?, "PAX record")?;
                }
                b'g' => {
                    self.count("")?;
                    let record = self.record(size)?;
                    let global = pax(&record)?;
                    if global.path.is_some() || global.link.is_some() || global.size.is_some() || global.sparse {
                        return Err(corrupt("a global PAX record that renames or resizes entries"));
                    }
                }
                _ => return self.entry(header, kind, size, pending).map(Some),
            }
        }
    }

    /// Passes over the bytes of an entry.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn skip(&mut self, size: u64) -> Result<()> {
        let short = || corrupt("the archive ends within an entry");
        let mut left = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(short)?;
        while left > 0 {
            let available = inflate::peek(&mut self.source)?.len();
            if available == 0 {
                return Err(short());
            }
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(available);
            self.source.consume(step);
            left -= step as u64;
            self.position += step as u64;
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header, kind: u8, size: u64, pending: Pending) -> Result<Raw> {
        let pax = pending.pax.unwrap_or_default();
        let name = pax.path.or(pending.long_name).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax.link.or(pending.long_link);
        let link = link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let shown = || String::from_utf8_lossy(&name).into_owned();
        self.count(&shown())?;
        super::names::within(&name, self.limits)?;
        let size = match pax.size {
            // The header holds sizes below 8 GiB; where it says something else, readers would part ways.
            Some(stated) if stated != size && stated < 8 << 30 => {
                return Err(corrupt("the sizes of an entry in its header and in its PAX record differ"));
            }
            Some(stated) => stated,
            None => size,
        };
        if size > self.limits.max_entry_bytes {
            return Err(over_limit("maxEntryBytes", &shown()));
        }
        self.spend(size, &shown)?;
        // Execute bits are all that is taken from the mode, so a senseless one does no harm.
        let exec = header.mode().is_ok_and(|mode| mode & 0o111 != 0);
        Ok(Raw { name, link, kind: if pax.sparse { b'S' } else { kind }, size, exec })
    }

    fn count(&mut self, name: &str) -> Result<()> {
        self.headers += 1;
        if self.headers > self.limits.max_entries { Err(over_limit("maxEntries", name)) } else { Ok(()) }
    }

    fn spend(&mut self, bytes: u64, name: &dyn Fn() -> String) -> Result<()> {
        self.spent = self.spent.saturating_add(bytes);
        if self.spent > self.limits.max_total_bytes { Err(over_limit("maxTotalBytes", &name())) } else { Ok(()) }
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn fill(&mut self, mut room: &mut [u8]) -> Result<()> {
        while !room.is_empty() {
            let count = inflate::read(&mut self.source, room)?;
            if count == 0 {
                return Err(corrupt("the archive ends too early"));
            }
            self.position += count as u64;
            room = room.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }

    fn record(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > RECORD_BYTES_MAX {
            return Err(corrupt(format_args!("a metadata record of {size} bytes")));
        }
        self.spend(size, &|| "metadata record".to_owned())?;
        let mut padded = vec![0; usize::try_from(size).unwrap_or_default().next_multiple_of(BLOCK)];
        self.fill(&mut padded)?;
        padded.truncate(usize::try_from(size).unwrap_or_default());
        Ok(padded)
    }

    fn gnu_record(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut name = self.record(size)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        if name.is_empty() || name.contains(&0) {
            return Err(corrupt("a GNU long name that holds NUL, or nothing"));
        }
        Ok(name)
    }

    /// Reads what follows the end mark, which must be zeros: a tar padded to its record size. This is also what makes the
    /// decoder compare checksum and length, since it stops at the last byte that it is asked for.
    fn finish(&mut self) -> Result<()> {
        loop {
            let rest = inflate::peek(&mut self.source)?;
            let count = rest.len();
            if count == 0 {
                return Ok(());
            }
            if rest.iter().any(|&byte| byte != 0) {
                return Err(corrupt("trailing data after the end of the archive"));
            }
            self.source.consume(count);
            self.spend(count as u64, &|| "padding".to_owned())?;
        }
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<()> {
    if slot.replace(value).is_some() { Err(corrupt(format_args!("two {what}s for one entry"))) } else { Ok(()) }
}

fn verify_checksum(block: &[u8; BLOCK]) -> Result<()> {
    let field = 148..156;
    let stated = number(block.get(field.clone()).unwrap_or_default(), "checksum")?;
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(index, &byte)| u64::from(if field.contains(&index) { b' ' } else { byte }))
        .sum();
    if sum == stated { Ok(()) } else { Err(corrupt("the checksum of a header is wrong")) }
}

/// Parses PAX records: `<length> <key>=<value>\n`, the length counting itself. The `tar` crate splits at line feeds instead,
/// and stops without a word at an empty line.
fn pax(mut data: &[u8]) -> Result<Pax> {
    let bad = || corrupt("a malformed PAX record");
    let mut found = Pax::default();
    while !data.is_empty() {
        let space = data.iter().position(|&byte| byte == b' ').ok_or_else(bad)?;
        let digits = data.get(..space).unwrap_or_default();
        let length = decimal(digits).and_then(|length| usize::try_from(length).ok()).ok_or_else(bad)?;
        let (record, rest) = data.split_at_checked(length).ok_or_else(bad)?;
        data = rest;
        let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n")).ok_or_else(bad)?;
        let equals = body.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
        let (key, value) = (body.get(..equals).unwrap_or_default(), body.get(equals + 1..).unwrap_or_default());
        match key {
            b"path" => set_once(&mut found.path, value.to_vec(), "PAX path")?,
            b"linkpath" => set_once(&mut found.link, value.to_vec(), "PAX linkpath")?,
            b"size" => set_once(&mut found.size, decimal(value).ok_or_else(bad)?, "PAX size")?,
            key if key.starts_with(b"GNU.sparse.") => found.sparse = true,
            _ => {}
        }
    }
    Ok(found)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, &byte| value * 10 + u64::from(byte - b'0')))
}
