//! The data disk: found by its serial, mounted, grown to its device, asked for its health.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use rustix::mount::{MountFlags, mount};
use tokio::sync::OnceCell;
use wire::proto::DiskFigures;
use wire::{Fault, Kind};

use crate::container;
use crate::fault::OrFault;

/// Where the data disk is mounted.
pub(crate) const MOUNT: &str = "/data";

/// The serial that the host gives the data disk (virtio 1.3 §5.2.6, VIRTIO_BLK_T_GET_ID).
const SERIAL: &str = "data";

/// zstd at its fastest level costs less than the writing that it saves; discard gives freed space back to the
/// host's file.
const OPTIONS: &str = "compress=zstd:1,discard=async,space_cache=v2,user_subvol_rm_allowed";

/// Directories that everything else expects on the disk.
const DIRECTORIES: [&str; 3] = ["containers", "extras", "incus"];

/// The mount, made once; a failure is told to everyone who needs the disk, and tried again then.
#[derive(Debug, Default)]
pub(crate) struct Disk(OnceCell<()>);

impl Disk {
    /// Returns when the disk is mounted.
    pub(crate) async fn mounted(&self) -> Result<(), Fault> {
        let attempt = || async {
            tokio::task::spawn_blocking(attach)
                .await
                .or_fault("E-DISK", || "cannot mount the data disk".to_owned())?
        };
        self.0.get_or_try_init(attempt).await.map(drop)
    }
}

/// Makes the disk ready for this agent.
fn attach() -> Result<(), Fault> {
    let message = || "cannot mount the data disk".to_owned();
    if !is_mounted().or_fault("E-DISK", message)? {
        attach_new()?;
    }
    let containers = Path::new(MOUNT).join("containers");
    if let Err(error) = container::sweep(&containers) {
        tracing::warn!("cannot remove what is half-made: {error}");
    }
    Ok(())
}

/// Mounts the disk, for the first agent of this boot.
fn attach_new() -> Result<(), Fault> {
    let message = || "cannot mount the data disk".to_owned();
    let device = find(Path::new("/sys/block"))
        .ok_or_else(|| Fault::new(Kind::NotFound, "E-DISK-MISSING", "the VM has no data disk"))?;
    let options = std::ffi::CString::new(OPTIONS).expect("no zero byte in it");
    // Containers inherit flags: sudo in them needs set-user-ID, Incus device nodes.
    mount(
        &device,
        MOUNT,
        "btrfs",
        MountFlags::NOATIME,
        options.as_c_str(),
    )
    .or_fault("E-DISK", message)?;
    let root = File::open(MOUNT).or_fault("E-DISK", message)?;
    if let Err(error) = sys::btrfs::grow(&root) {
        tracing::warn!("cannot grow the data disk's file system: {error}");
    }
    if let Err(error) = sys::btrfs::enable_accounting(&root) {
        tracing::warn!("space is not accounted by container: {error}");
    }
    for directory in DIRECTORIES {
        let path = Path::new(MOUNT).join(directory);
        std::fs::create_dir_all(&path).or_fault("E-DISK", message)?;
    }
    Ok(())
}

/// A mount point lies on another device than its parent.
fn is_mounted() -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(MOUNT)?.dev() != std::fs::metadata("/")?.dev())
}

/// Returns the device node of the block device whose serial is ours.
fn find(blocks: &Path) -> Option<PathBuf> {
    std::fs::read_dir(blocks).ok()?.flatten().find_map(|entry| {
        let serial = std::fs::read_to_string(entry.path().join("serial")).ok()?;
        (serial.trim() == SERIAL).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

/// Lets the file system use a device that has grown.
pub(crate) fn grow() -> Result<DiskFigures, Fault> {
    let message = || "cannot grow the data disk's file system".to_owned();
    let root = File::open(MOUNT).or_fault("E-DISK-GROW", message)?;
    sys::btrfs::grow(&root).or_fault("E-DISK-GROW", message)?;
    figures()
}

/// Returns sizes and errors of the mounted disk.
pub(crate) fn figures() -> Result<DiskFigures, Fault> {
    let message = || "cannot read the data disk's figures".to_owned();
    let sizes = statvfs(MOUNT).or_fault("E-DISK", message)?;
    let root = File::open(MOUNT).or_fault("E-DISK", message)?;
    Ok(DiskFigures {
        total_bytes: sizes.f_blocks * sizes.f_frsize,
        used_bytes: sizes.f_blocks.saturating_sub(sizes.f_bfree) * sizes.f_frsize,
        available_bytes: sizes.f_bavail * sizes.f_frsize,
        device_errors: sys::btrfs::device_errors(&root).or_fault("E-DISK", message)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_found_by_serial_whatever_its_letter() {
        let folder = tempfile::tempdir().unwrap();
        for (name, serial) in [("vda", "root"), ("vdc", "data\n"), ("loop0", "")] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("serial"), serial).unwrap();
        }
        assert_eq!(find(folder.path()), Some(PathBuf::from("/dev/vdc")));
        std::fs::remove_dir_all(folder.path().join("vdc")).unwrap();
        assert_eq!(find(folder.path()), None);
    }
}
