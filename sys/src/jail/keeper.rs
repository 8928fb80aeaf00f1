//! The process that stays outside a jail: waits for the daemon inside and ends as it ended.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: closing descriptors the caller still owns, then _exit"
)]

use std::io::Write;

use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use super::privileges;
use super::seccomp::{self, Allowed};

/// The lowest number that is not a standard stream.
const FIRST_INHERITED: libc::c_uint = 3;

/// A shell's convention: 128 and the signal's number.
const KILLED: i32 = 128;

/// What waiting and a last line in the log need.
const ALLOWED: &[Allowed] = &[
    Allowed::call(libc::SYS_exit_group),
    Allowed::call(libc::SYS_munmap),
    Allowed::call(libc::SYS_restart_syscall),
    Allowed::call(libc::SYS_wait4),
    Allowed::call(libc::SYS_write),
];

/// Waits for `child` and ends this process with the same status; a signal becomes 128 and its number.
pub(super) fn keep(child: libc::pid_t) -> ! {
    // The daemon's sockets must be closed when the daemon closes them, not when the keeper does.
    // SAFETY: owners of these numbers exist in frames that never run again, because this function ends in _exit.
    unsafe { libc::close_range(FIRST_INHERITED, libc::c_uint::MAX, 0) };
    // Waiting needs no privilege. A wall that cannot be raised is no reason to leave the daemon without a keeper.
    let _ = privileges::give_up().and_then(|()| seccomp::allow_only(&[ALLOWED]));
    let code = match Pid::from_raw(child).map(wait) {
        Some(Ok(status)) => status_to_code(status),
        // Nobody else reaps, so wait cannot fail; if it does, the daemon's end cannot be told.
        Some(Err(_)) | None => 1,
    };
    // SAFETY: ends the process without running destructors, which would close numbers closed above.
    unsafe { libc::_exit(code) }
}

/// Waits until `child` has ended.
fn wait(child: Pid) -> rustix::io::Result<WaitStatus> {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) if status.exited() || status.signaled() => return Ok(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Says in the log what a killed daemon could not.
fn status_to_code(status: WaitStatus) -> i32 {
    let Some(signal) = status.terminating_signal() else {
        return status.exit_status().unwrap_or(1);
    };
    let why = if signal == libc::SIGSYS {
        ": a system call outside its list"
    } else {
        ""
    };
    // One write, so that the line is not torn; a broken log pipe leaves nobody to tell.
    let line = format!("error: the daemon was killed by signal {signal}{why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    KILLED + signal
}
