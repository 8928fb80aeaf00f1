//! Copies the calling process, for programs that must run code between `fork` and `exec` (PID 1, and the step
//! into a container's namespaces), and sends signals by any number, real-time ones too, and says what becomes of them.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: fork needs a single thread; signal numbers are not rustix's"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::process::Pid;

/// Which side of [`fork`] the caller is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, with the new one's number.
    Parent(Pid),
}

/// Copies this process.
///
/// # Errors
/// `InvalidInput` when other threads run: their locks would stay locked in the copy for ever. Otherwise what
/// the kernel said, such as a limit on processes.
pub fn fork() -> io::Result<Forked> {
    only_thread()?;
    // SAFETY: this is the only thread (checked above), so the copy has no lock that nobody releases and may
    // go on as an ordinary program.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent(
            Pid::from_raw(child).expect("fork returns a positive number to the parent"),
        )),
    }
}

/// Gives this process mounts of its own: what it mounts from now on, others do not see.
///
/// # Errors
/// When the caller is not root.
pub fn own_mounts() -> io::Result<()> {
    // SAFETY: a mount namespace belongs to files and paths only; no memory or descriptor changes.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())
}

/// Sends signal `number` to the process behind `pidfd`.
///
/// # Errors
/// `ESRCH` when it has ended, `EINVAL` when there is no such signal.
pub fn signal(pidfd: impl AsFd, number: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is borrowed for the call; without a siginfo the kernel reads no memory.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, nothing, 0) })
}

/// Sends signal `number` to every process of `group`.
///
/// # Errors
/// `ESRCH` when the group is empty, `EINVAL` when there is no such signal.
pub fn signal_group(group: Pid, number: i32) -> io::Result<()> {
    // SAFETY: kill(2) reads no memory.
    check(unsafe { libc::kill(-group.as_raw_pid(), number) }.into())
}

/// Returns whether this process ignores signal `number`, as it does when its parent did (`nohup`, `&` in a script).
#[must_use]
pub fn ignores(number: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only writes the old one, into memory that is there for it.
    let asked = unsafe { libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the call has succeeded, so the action is written.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Gives every signal its default effect, as a new session's first program expects it: what is ignored stays ignored
/// through `exec`, and a shell cannot trap it.
pub fn reset_signals() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: the default effect runs no code of ours. Numbers whose effect is fixed are refused.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

fn check(returned: libc::c_long) -> io::Result<()> {
    if returned == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Fails unless the process has one thread. The kernel refuses to unshare a thread group that has others, and
/// does nothing when there is none (unshare(2)); unlike /proc this needs no mount.
fn only_thread() -> io::Result<()> {
    // SAFETY: with this flag the call changes nothing; it succeeds or fails.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(if error.raw_os_error() == Some(libc::EINVAL) {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "a process with several threads cannot be copied",
        )
    } else {
        error
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_time_signals_reach_a_process_and_a_group() {
        use std::os::unix::process::{CommandExt, ExitStatusExt};
        let start = || {
            std::process::Command::new("sleep")
                .arg("60")
                .process_group(0)
                .spawn()
                .unwrap()
        };
        let (mut one, mut two) = (start(), start());
        let pid = |child: &std::process::Child| Pid::from_child(child);
        assert_eq!(
            signal_group(pid(&two), 99).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
        let pidfd = rustix::process::pidfd_open(pid(&one), rustix::process::PidfdFlags::empty());
        signal(pidfd.unwrap(), 37).unwrap();
        signal_group(pid(&two), 38).unwrap();
        assert_eq!(one.wait().unwrap().signal(), Some(37));
        assert_eq!(two.wait().unwrap().signal(), Some(38));
    }

    #[test]
    fn what_a_parent_ignored_is_known() {
        // The runtime of Rust ignores it in every program.
        assert!(ignores(libc::SIGPIPE));
        assert!(!ignores(libc::SIGUSR2));
        assert!(!ignores(0));
    }

    #[test]
    fn a_process_with_threads_is_not_copied() {
        // The test runner itself has threads.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(fork().unwrap_err().kind(), io::ErrorKind::InvalidInput);
            });
        });
    }
}
