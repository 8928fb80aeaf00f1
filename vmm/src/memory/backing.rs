//! The file behind guest memory on the host: huge pages without root where the kernel allows it, else a sealed
//! memory file.
//!
//! Shared memory gets huge pages only as the mount it lives in says, and the host's own mounts usually say
//! never. A process that owns a user and mount namespace may mount a tmpfs of its own, so this one does, and
//! keeps nothing of it but one open, nameless file. Such a file cannot be sealed; the device daemons' list of
//! system calls has no `ftruncate` instead.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: unshare changes what the whole process sees"
)]

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use rustix::thread::UnshareFlags;
use spec::units::Mib;

use super::MemoryError;

/// Returns a file that can hold `size` of guest memory; nothing is allocated yet.
///
/// With `huge`, the process leaves its user and mount namespaces and must still have one thread.
///
/// # Errors
/// The host has less memory than that, or refuses to make the file.
pub(crate) fn reserve(size: Mib, huge: bool) -> Result<File, MemoryError> {
    let has = host_memory();
    if size > has {
        return Err(MemoryError::MoreThanHost { wanted: size, has });
    }
    if huge {
        match huge_tmpfs(size) {
            Ok(file) => return Ok(file),
            Err(error) => tracing::info!(%error, "guest memory has no huge pages"),
        }
    }
    sealed(size).map_err(|error| MemoryError::Reserve(size, error))
}

/// Returns a memory file of fixed size.
pub(super) fn sealed(size: Mib) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("guest-memory", flags)?);
    file.set_len(size.bytes())?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// Returns a nameless file in a tmpfs that nobody else can see.
fn huge_tmpfs(size: Mib) -> io::Result<File> {
    own_namespaces()?;
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // `within_size` gives a huge page wherever it does not reach beyond the end of the file.
    fsconfig_set_string(&tmpfs, "huge", "within_size")?;
    fsconfig_set_string(&tmpfs, "size", format!("{}m", size.0))?;
    fsconfig_create(&tmpfs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mount = fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(
        &mount,
        ".",
        flags,
        Mode::RUSR | Mode::WUSR,
    )?);
    file.set_len(size.bytes())?;
    Ok(file)
}

/// Enters a user namespace in which this user is mapped to itself, and a mount namespace it owns.
fn own_namespaces() -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    // SAFETY: `start` calls this before it makes the first thread, and nothing in this process relies on
    // the host's mounts or capabilities later: everything it works on is already open.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Returns all memory of the host, with its swap.
fn host_memory() -> Mib {
    let info = rustix::system::sysinfo();
    let units = info.totalram.saturating_add(info.totalswap);
    let bytes = units.saturating_mul(u64::from(info.mem_unit));
    Mib(u32::try_from(bytes >> 20).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_host_has_is_refused_with_both_figures() {
        let error = reserve(Mib(u32::MAX), false).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the machine wants 4294967295 MiB, this host has")
        );
    }

    #[test]
    fn the_fallback_cannot_change_its_size() {
        let file = reserve(Mib(64), false).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 64 << 20);
        file.set_len(0).unwrap_err();
    }
}
