//! Finds out which walls of a jail this kernel offers, without entering one.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: tries unshare in a child that never runs a program"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::thread::UnshareFlags;

/// The walls of a jail that stand on this machine.
#[derive(Debug)]
pub struct Support {
    /// Why an unprivileged process cannot have namespaces of its own; nothing if it can.
    pub namespaces_refused: Option<io::Error>,
    /// The version of Landlock's interface; 0 without Landlock.
    pub landlock_abi: u32,
}

impl Support {
    /// Returns whether every wall stands.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.namespaces_refused.is_none() && self.landlock_abi > 0
    }
}

/// Tries what [`super::Jail::isolate`] needs; safe to call from a process with threads.
#[must_use]
pub fn support() -> Support {
    Support {
        namespaces_refused: try_namespaces().err(),
        landlock_abi: landlock_abi(),
    }
}

/// Enters namespaces in a child, which then ends instead of running a program.
fn try_namespaces() -> io::Result<()> {
    let mut child = Command::new("/proc/self/exe");
    child
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let probe = || {
        // SAFETY: the child is about to end; nothing in it depends on what it leaves.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER)? };
        // SAFETY: as above.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWPID)? };
        // A failure of the closure keeps the program from running, so this one means success.
        Err(io::Error::from_raw_os_error(libc::ECANCELED))
    };
    // SAFETY: the closure makes system calls only and allocates nothing, as a forked child of threads must.
    let refused = unsafe { child.pre_exec(probe) }.spawn();
    match refused {
        Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(()),
        Err(error) => Err(error),
        // The closure never lets the program run.
        Ok(_) => Err(io::ErrorKind::Other.into()),
    }
}

/// Asks for the version of Landlock's interface.
fn landlock_abi() -> u32 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) only returns a number.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(abi).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_leaves_no_child_and_no_namespace() {
        let before = std::fs::read_link("/proc/self/ns/user").unwrap();
        let found = support();
        assert_eq!(std::fs::read_link("/proc/self/ns/user").unwrap(), before);
        assert_eq!(
            found.is_complete(),
            found.namespaces_refused.is_none() && found.landlock_abi > 0
        );
        let children = format!("/proc/self/task/{}/children", std::process::id());
        assert_eq!(std::fs::read_to_string(children).unwrap_or_default(), "");
    }
}
