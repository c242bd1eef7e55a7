//! Which sidecar folders are known to be on the disk, so that only the first batch of a process syncs their names.

use std::sync::Mutex;
use std::time::SystemTime;

use super::Context;
use super::format::STAGE;
use crate::durable::Disk;

/// Device, inode and birth of a folder: the number alone may be given to the next folder made.
type FolderId = (u64, u64, Option<SystemTime>);

/// Sidecar folders whose names this process has synced.
static SYNCED_SIDECARS: Mutex<Vec<FolderId>> = Mutex::new(Vec::new());

fn sidecar_id(disk: &Disk, context: &Context) -> Option<FolderId> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        disk.metadata(&context.sidecar().join(STAGE))
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino(), metadata.created().ok()))
    }
    #[cfg(not(unix))]
    {
        let _ = (disk, context);
        None
    }
}

/// Tells whether this process has synced the names of the sidecar and its folders.
pub(super) fn knows_sidecar(disk: &Disk, context: &Context) -> bool {
    sidecar_id(disk, context).is_some_and(|id| SYNCED_SIDECARS.lock().is_ok_and(|known| known.contains(&id)))
}

/// Notes that it has.
pub(super) fn remember_sidecar(disk: &Disk, context: &Context) {
    if let (Some(id), Ok(mut known)) = (sidecar_id(disk, context), SYNCED_SIDECARS.lock())
        && !known.contains(&id)
    {
        if known.len() >= 64 {
            known.remove(0);
        }
        known.push(id);
    }
}
