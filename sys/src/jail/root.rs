//! Replaces the file system a process sees by nothing, or by one directory of sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::Root;

/// Goes to the directory that will be the root, while descriptors and mounts still belong together.
pub(super) fn stand_in(root: &Root) -> io::Result<()> {
    match root {
        Root::Empty => Ok(()),
        Root::Sockets(directory) => Ok(fchdir(directory)?),
    }
}

/// Makes `root` the root of this mount namespace and lets go of everything else.
///
/// The directory's descriptor is closed on the way: it belongs to the host's mount namespace, and `..` from it
/// would lead out.
pub(super) fn enter(root: Root) -> io::Result<()> {
    // Mount events must not travel back to the host's namespace.
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?;
    let tree = match &root {
        Root::Empty => empty_tree()?,
        Root::Sockets(_) => open_tree(CWD, ".", OpenTreeFlags::OPEN_TREE_CLONE)?,
    };
    move_mount(
        tree.as_fd(),
        "",
        CWD,
        "/",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    fchdir(&tree)?;
    if matches!(root, Root::Sockets(_)) {
        restrict_mount()?;
    }
    // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one and is taken off.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    drop(root);
    Ok(chdir("/")?)
}

/// Returns a read-only file system with nothing in it, not yet mounted anywhere.
fn empty_tree() -> io::Result<OwnedFd> {
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // One inode, the root directory itself.
    fsconfig_set_string(tmpfs.as_fd(), "nr_inodes", "1")?;
    fsconfig_set_string(tmpfs.as_fd(), "mode", "0500")?;
    fsconfig_create(tmpfs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(
        tmpfs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Makes the mount at the current directory one on which only sockets are of use.
fn restrict_mount() -> io::Result<()> {
    let flags = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC;
    mount_remount(".", flags, "")?;
    // Linux 5.10 and later; before, a symbolic link only leads to what is below this root anyway.
    match mount_remount(
        ".",
        flags | MountFlags::from_bits_retain(libc::MS_NOSYMFOLLOW as u32),
        "",
    ) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
