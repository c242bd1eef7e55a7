//! File systems that a database must not lie on.
//!
//! The write-ahead log needs memory that all processes share. Over a network each host has its own, and locks that may not hold: two
//! hosts that write then destroy the file, without an error. One host alone may be fine, which is why it can be allowed.

use std::path::Path;

use crate::error::{Code, HfError, Result};

/// Kernel's numbers of file systems that other hosts may have mounted, too. Not 9p: sandboxes (gVisor) and virtual machines have
/// their own root on it.
#[cfg(target_os = "linux")]
const NETWORKED: &[(u32, &str)] = &[
    (0x0000_6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0000_517b, "smb"),
    (0x0000_564c, "ncp"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "afs"),
    (0x7375_7245, "coda"),
    (0x00c3_6400, "ceph"),
    (0x0bd0_0bd0, "lustre"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0xaad7_aaea, "panfs"),
    (0x786f_4256, "vboxsf"),
];

/// Beginnings of the names of such file systems that run as programs; others of that kind (NTFS, archives, encryption, folders
/// shared with a container) are on this host.
#[cfg(target_os = "linux")]
const NETWORKED_FUSE: &[&str] = &[
    "sshfs",
    "s3fs",
    "rclone",
    "gcsfuse",
    "gluster",
    "ceph",
    "juicefs",
    "blobfuse",
    "mount-s3",
    "mountpoint-s3",
    "seaweedfs",
    "mfs",
    "smbnetfs",
    "gvfsd",
    "goofys",
    "davfs",
    "curlftpfs",
    "nfs",
    "cifs",
    "afs",
];

#[cfg(target_os = "linux")]
const FUSE: u32 = 0x6573_5546;

/// Refuses a `path` that lies on such a file system. Touches nothing.
///
/// # Errors
/// [`Code::InvalidArgument`], with the fields `path` and `fileSystem`.
pub fn refuse_network(path: &Path) -> Result<()> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // What is missing will be made where the nearest folder is that exists.
    let Some(kind) = absolute.ancestors().find(|place| place.exists()).and_then(kind_of) else { return Ok(()) };
    Err(HfError::new(
        Code::InvalidArgument,
        format!(
            "{} is on a file system of a network ({kind}), where several hosts would destroy a SQLite database; use a local disk, or \
             PostgreSQL for several hosts. If no other host ever opens the file, networkFileSystem: 'allow' takes it",
            path.display()
        ),
    )
    .with_field("path", path.to_string_lossy())
    .with_field("fileSystem", kind))
}

/// The name of the network file system that an existing `place` is on.
#[cfg(target_os = "linux")]
fn kind_of(place: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    // The number has 32 bits, in a field that is wider on some machines.
    let number = rustix::fs::statfs(place).ok()?.f_type as u32;
    if number != FUSE {
        return named(number).map(str::to_owned);
    }
    let device = std::fs::metadata(place).ok()?.dev();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    fuse_named(&mounts, &format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))).map(str::to_owned)
}

#[cfg(target_os = "linux")]
fn named(number: u32) -> Option<&'static str> {
    NETWORKED.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// The name of the network file system that is mounted as `device` (`major:minor`) and runs as a program.
#[cfg(target_os = "linux")]
fn fuse_named<'a>(mounts: &'a str, device: &str) -> Option<&'a str> {
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    let kind = mount.split_once(" - ")?.1.split(' ').next()?;
    let program = kind.strip_prefix("fuse.")?;
    NETWORKED_FUSE.iter().any(|known| program.starts_with(known)).then_some(kind)
}

#[cfg(target_os = "macos")]
fn kind_of(place: &Path) -> Option<String> {
    const MNT_LOCAL: u32 = 0x1000;
    let found = rustix::fs::statfs(place).ok()?;
    (found.f_flags & MNT_LOCAL == 0).then(|| "not local".to_owned())
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn kind_of(_place: &Path) -> Option<String> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn networks_are_known_by_number_and_local_disks_pass() {
        let networks = [(0x6969, "nfs"), (0xff53_4d42, "cifs"), (0xfe53_4d42, "smb2"), (0x00c3_6400, "ceph")];
        for (number, name) in networks {
            assert_eq!(named(number), Some(name));
        }
        // ext4, tmpfs, xfs, btrfs, overlayfs, zfs, f2fs, 9p, virtiofs and other programs.
        for number in
            [0xef53, 0x0102_1994, 0x5846_5342, 0x9123_683e, 0x794c_7630, 0x2fc1_2fc1, 0xf2f5_2010, 0x0102_1997, FUSE]
        {
            assert_eq!(named(number), None, "{number:#x}");
        }
    }

    #[test]
    fn programs_are_known_by_the_name_of_their_mount() {
        let mounts = "22 1 0:20 / / rw shared:1 - ext4 /dev/vda rw\n\
                      36 22 0:45 / /home/me/far rw,nosuid shared:7 master:2 - fuse.sshfs me@host:/x rw,user_id=0\n\
                      37 22 0:46 / /ntfs rw - fuseblk /dev/sdb1 rw\n\
                      38 22 0:47 / /shared rw - virtiofs share rw\n\
                      39 22 0:48 / /secret rw - fuse.gocryptfs x rw\n\
                      40 22 0:49 / /bucket rw - fuse.s3fs s3fs rw\n";
        let found = ["0:20", "0:45", "0:46", "0:47", "0:48", "0:49", "0:50"].map(|device| fuse_named(mounts, device));
        assert_eq!(found, [None, Some("fuse.sshfs"), None, None, None, Some("fuse.s3fs"), None]);
    }

    #[test]
    fn what_is_mounted_here_passes_also_where_nothing_exists_yet() {
        let folder = tempfile::tempdir().unwrap();
        for place in [folder.path(), Path::new("/dev/shm"), Path::new("/")] {
            refuse_network(&place.join("holdfast-not/made/x.db")).unwrap();
        }
        assert!(!folder.path().join("holdfast-not").exists());
    }
}
