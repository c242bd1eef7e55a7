//! Archives made by hand, entry by entry, as no honest program would.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

/// A tar in the making.
#[derive(Default, Clone)]
pub struct Made(pub Vec<u8>);

impl Made {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block of any name, type and stated size, with `content` behind it.
    pub fn raw(mut self, name: &[u8], kind: u8, mode: u32, size: u64, link: &[u8], content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(12345);
        header.set_gid(12345);
        header.set_mtime(1);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.raw(name.as_bytes(), b'0', 0o644, content.len() as u64, b"", content)
    }

    pub fn typed(self, name: &str, kind: u8) -> Self {
        self.raw(name.as_bytes(), kind, 0o755, 0, b"target", b"")
    }

    pub fn dir(self, name: &str) -> Self {
        self.raw(name.as_bytes(), b'5', 0o755, 0, b"", b"")
    }

    /// Adds a metadata record: `x`, `g`, `L` or `K`.
    pub fn record(self, kind: u8, content: &[u8]) -> Self {
        self.raw(b"record", kind, 0o644, content.len() as u64, b"", content)
    }

    pub fn pax(self, key: &str, value: &[u8]) -> Self {
        self.record(b'x', &pax(key, value))
    }

    /// The end mark and the padding that tar programs write.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize((self.0.len() + 1024).next_multiple_of(10_240), 0);
        self.0
    }

    pub fn gz(self) -> Vec<u8> {
        gzip(&self.end())
    }
}

pub fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
