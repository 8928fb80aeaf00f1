//! Moves the process into new namespaces; the caller goes on as pid 1 in them.

#![expect(unsafe_code, reason = "UNSAFETY: unshare and fork")]

use std::fs;
use std::io;

use rustix::process::{Signal, getgid, getuid, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{JailError, Root, keeper, root};

/// The name that `uname` gives inside: the host's own would tell a captured daemon where it is.
const HOST_NAME: &[u8] = b"jail";

/// Enters new namespaces and `new_root`; returns why not if the kernel forbids user namespaces here.
///
/// # Errors
/// A later step failed, so that the process is neither outside nor properly inside.
pub(super) fn enter(new_root: Root) -> Result<Option<io::Error>, JailError> {
    let step = |act| move |source: io::Error| JailError::Build { act, source };
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    // The mount namespace translates the current directory, but no other descriptor, so the directory that
    // is to be the root travels as the current one.
    root::stand_in(&new_root).map_err(step("change to the new root"))?;
    if let Err(refusal) = leave() {
        return Ok(Some(refusal));
    }
    map_identity(uid, gid).map_err(step("map the user"))?;
    // SAFETY: leave() succeeded, and unshare(CLONE_NEWUSER) only does in a process with a single thread, so the
    // child's copy of every lock and allocator is consistent.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(step("fork")(io::Error::last_os_error())),
        0 => {
            set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(|errno| step("tie the daemon to its keeper")(errno.into()))?;
            rustix::system::sethostname(HOST_NAME)
                .map_err(|errno| step("forget the host's name")(errno.into()))?;
            root::enter(new_root).map_err(step("enter the new root"))?;
            Ok(None)
        }
        pid => keeper::keep(pid),
    }
}

/// Leaves every namespace of the host.
///
/// Some distributions grant a user namespace and then no capability in it (AppArmor's restriction), so the
/// second call can be refused too.
fn leave() -> io::Result<()> {
    // SAFETY: no file descriptor table is unshared, so no owned descriptor loses its meaning.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER)? };
    let rest = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    // SAFETY: as above.
    unsafe { unshare_unsafe(rest)? };
    Ok(())
}

/// Keeps the process's own user and group in the new namespace, and no others.
fn map_identity(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}
