//! Making archives: the same bytes for the same content, wherever and whenever.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, OpenOptions};
use tar::{EntryType, Header};

use super::confined::{self, Folder, Walk};
use super::deflate::Gzip;
use super::headers::BLOCK;
use super::{names, shown};
use crate::error::{Code, HfError, Result};

/// Time of every entry, in seconds: the one that npm writes.
const MTIME: u64 = 499_162_500;

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;

/// Packs the folder `entry_name` of `parent` and everything below it as a gzip tar, and returns the bytes. The name may hold
/// one `/` (`@scope/name@1.0.0`). Equal content gives equal bytes: entries are sorted, times, owners and all mode bits but
/// execution are left out. A symbolic link is stored as one, which [`super::check`] will refuse; with `reject_links` packing
/// fails. `cancel` is asked between files; its error ends the work.
///
/// # Errors
/// `HF_PKG_PACK` for special files, for names that could not be unpacked, and for any I/O failure.
pub fn pack(parent: &Path, entry_name: &str, reject_links: bool, cancel: &dyn Fn() -> Result<()>) -> Result<Vec<u8>> {
    let parts: Vec<&str> = entry_name.split('/').collect();
    let plain = names::checked(entry_name.as_bytes(), cfg!(windows)).is_ok();
    if !plain || parts.len() > 2 || names::components(entry_name).count() != parts.len() {
        return Err(failed(format_args!("\"{}\" does not name a folder to pack", shown(entry_name))));
    }
    let root = confined::open_root(parent).map_err(|e| io_failed("open", parent, &e))?;
    let mut packer = Packer { parent, walk: Walk::new(root), folders: vec![Folder::root()], items: Vec::new() };
    for (index, part) in parts.iter().enumerate() {
        let path = packer.folders.last().map_or_else(String::new, |above| above.join(part));
        packer.folders.push(Folder { parent: index, depth: index + 1, path });
    }
    let top = parts.len();
    packer.items.push(Item { path: entry_name.to_owned(), kind: Kind::Dir, folder: top });
    packer.list(top, reject_links, cancel)?;
    packer.items.sort_unstable_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    packer.write(cancel)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dir,
    File,
    Link,
}

struct Item {
    path: String,
    kind: Kind,
    /// The folder itself, or that of the file.
    folder: usize,
}

struct Packer<'a> {
    parent: &'a Path,
    walk: Walk,
    folders: Vec<Folder>,
    items: Vec<Item>,
}

impl Packer<'_> {
    /// Lists everything below the folder `top`.
    fn list(&mut self, top: usize, reject_links: bool, cancel: &dyn Fn() -> Result<()>) -> Result<()> {
        let mut next = top;
        while next < self.folders.len() {
            cancel()?;
            self.enter(next)?;
            let Some(folder) = self.folders.get(next).cloned() else { break };
            let here = self.parent.join(&folder.path);
            let found = |error: &io::Error| io_failed("readdir", &here, error);
            for entry in self.walk.here().entries().map_err(|e| found(&e))? {
                let entry = entry.map_err(|e| found(&e))?;
                let name = entry.file_name();
                let path = folder.join(checked_name(&name)?);
                if names::checked(path.as_bytes(), cfg!(windows)).is_err() {
                    return Err(failed(format_args!("\"{}\" could not be unpacked again", shown(&path))));
                }
                let kind = entry.file_type().map_err(|e| found(&e))?;
                if kind.is_dir() {
                    self.items.push(Item { path: path.clone(), kind: Kind::Dir, folder: self.folders.len() });
                    self.folders.push(Folder { parent: next, depth: folder.depth + 1, path });
                } else if kind.is_file() {
                    self.items.push(Item { path, kind: Kind::File, folder: next });
                } else if kind.is_symlink() && !reject_links {
                    self.items.push(Item { path, kind: Kind::Link, folder: next });
                } else {
                    let what = if kind.is_symlink() { "a symbolic link" } else { "neither a file nor a folder" };
                    return Err(failed(format_args!("\"{}\" is {what}; remove it and pack again", shown(&path))));
                }
            }
            next += 1;
        }
        Ok(())
    }

    fn write(mut self, cancel: &dyn Fn() -> Result<()>) -> Result<Vec<u8>> {
        let mut gzip = Gzip::new();
        for item in std::mem::take(&mut self.items) {
            cancel()?;
            if item.kind == Kind::Dir {
                let headers = headers(&format!("{}/", item.path), "", EntryType::Directory, 0o755, 0)?;
                gzip.write(&headers).map_err(|e| io_failed("deflate", self.parent, &e))?;
            } else {
                self.enter(item.folder)?;
                let path = self.parent.join(&item.path);
                self.write_one(&item, &path, &mut gzip)?;
            }
        }
        gzip.write(&[0; 2 * BLOCK]).and_then(|()| gzip.finish()).map_err(|e| io_failed("deflate", self.parent, &e))
    }

    fn write_one(&self, item: &Item, path: &Path, gzip: &mut Gzip) -> Result<()> {
        let name = item.path.rsplit('/').next().unwrap_or_default();
        let at = |operation: &'static str| move |error: io::Error| io_failed(operation, path, &error);
        if item.kind == Kind::Link {
            let target = self.walk.here().read_link_contents(name).map_err(at("readlink"))?;
            let target = checked_name(target.as_os_str())?;
            return gzip.write(&headers(&item.path, target, EntryType::Symlink, 0o777, 0)?).map_err(at("deflate"));
        }
        let mut file = open_file(self.walk.here(), name).map_err(at("open"))?;
        let metadata = file.metadata().map_err(at("stat"))?;
        if !metadata.is_file() {
            return Err(changed(&item.path));
        }
        let size = metadata.len();
        let mode = if executable(&metadata) { 0o755 } else { 0o644 };
        gzip.write(&headers(&item.path, "", EntryType::Regular, mode, size)?).map_err(at("deflate"))?;
        gzip.read_from(&mut file, size).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => changed(&item.path),
            _ => io_failed("read", path, &error),
        })?;
        if io::Read::read(&mut file, &mut [0]).map_err(at("read"))? > 0 {
            return Err(changed(&item.path));
        }
        let padding = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or_default();
        gzip.write([0; BLOCK].get(..padding).unwrap_or_default()).map_err(at("deflate"))
    }

    fn enter(&mut self, folder: usize) -> Result<()> {
        let parent = self.parent;
        self.walk.enter(&self.folders, folder, &mut |above, _, folder| {
            confined::open_dir(above, folder.name()).map_err(|e| io_failed("open", &parent.join(&folder.path), &e))
        })
    }
}

/// Opens a file for reading, never through a link, and never waiting for the other end of a pipe.
fn open_file(parent: &Dir, name: &str) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.read(true).follow(FollowSymlinks::No);
    #[cfg(unix)]
    cap_std::fs::OpenOptionsExt::custom_flags(
        &mut options,
        i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default(),
    );
    parent.open_with(name, &options).map(cap_std::fs::File::into_std)
}

#[cfg(unix)]
fn executable(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o111 != 0
}

#[cfg(not(unix))]
fn executable(_: &std::fs::Metadata) -> bool {
    false
}

/// Makes the header of an entry, after a PAX record where a name does not fit into it.
fn headers(path: &str, link: &str, kind: EntryType, mode: u32, size: u64) -> Result<Vec<u8>> {
    let mut records = Vec::new();
    let (prefix, name) = match split(path) {
        Some(fits) => fits,
        None => {
            records.extend(record("path", path));
            ("", cut(path))
        }
    };
    if link.len() > NAME_BYTES {
        records.extend(record("linkpath", link));
    }
    let mut out = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        out.extend_from_slice(&header("", "PaxHeader", "", EntryType::XHeader, 0o644, records.len() as u64)?);
        records.resize(records.len().next_multiple_of(BLOCK), 0);
        out.append(&mut records);
    }
    out.extend_from_slice(&header(prefix, name, cut(link), kind, mode, size)?);
    Ok(out)
}

fn header(prefix: &str, name: &str, link: &str, kind: EntryType, mode: u32, size: u64) -> Result<[u8; BLOCK]> {
    let mut header = Header::new_ustar();
    let Some(fields) = header.as_ustar_mut() else { return Err(failed("no ustar header")) };
    copy(&mut fields.name, name);
    copy(&mut fields.prefix, prefix);
    copy(&mut fields.linkname, link);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(size);
    header.set_cksum();
    Ok(*header.as_bytes())
}

fn copy(field: &mut [u8], text: &str) {
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

/// Splits a path into the two fields of a ustar header.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= NAME_BYTES {
        return Some(("", path));
    }
    path.match_indices('/')
        .map(|(at, _)| (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()))
        .find(|(prefix, name)| !name.is_empty() && name.len() <= NAME_BYTES && prefix.len() <= PREFIX_BYTES)
}

/// The beginning of a name that stands whole in a PAX record.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(NAME_BYTES)).unwrap_or_default()
}

/// Makes a PAX record, whose length counts its own digits.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n").into_bytes()
}

fn checked_name(name: &OsStr) -> Result<&str> {
    name.to_str().ok_or_else(|| failed(format_args!("the name \"{}\" is not UTF-8", shown(&name.to_string_lossy()))))
}

fn changed(path: &str) -> HfError {
    failed(format_args!("\"{}\" changed while it was packed; try again when nothing writes there", shown(path)))
}

fn failed(detail: impl std::fmt::Display) -> HfError {
    HfError::new(Code::PkgPack, format!("tar failed: {detail}"))
}

fn io_failed(operation: &str, path: &Path, error: &io::Error) -> HfError {
    failed(HfError::io(operation, path, error).message()).with_field("path", path.to_string_lossy())
}
