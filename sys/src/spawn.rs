//! Gives a child process exactly the descriptors it may have, and ties its life to its parent's, on the host.

#![expect(unsafe_code, reason = "UNSAFETY: code runs between fork and exec")]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes the child that `command` will start keep `descriptors` open, each under the number it has here, and be
/// killed when its parent dies. Everything else this process has open was opened close-on-exec and stays here.
///
/// The kernel counts the death of the *thread* that starts the child as the parent's, so `spawn` must be called
/// on a thread that lives as long as the process: the main one. The descriptors are closed here when `command`
/// is dropped.
pub fn tie(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let parent = getpid();
    // SAFETY: `prepare` makes only plain system calls (fcntl, prctl, getppid): it allocates nothing, takes no
    // lock and cannot panic, as code between fork and exec must not.
    unsafe {
        command.pre_exec(move || prepare(parent, &descriptors));
    }
}

fn prepare(parent: Pid, descriptors: &[OwnedFd]) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that died before the line above sends no signal any more.
    if getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    for descriptor in descriptors {
        fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Debian's `sh` understands no descriptor of two digits.
    const SHELL: &str = "bash";

    #[test]
    fn a_child_has_the_descriptors_it_was_given_and_no_other() {
        let (given, mut ours) = UnixStream::pair().unwrap();
        let (kept, _other) = UnixStream::pair().unwrap();
        let script = format!(
            "echo hello >&{}; : 2>/dev/null >&{}",
            given.as_raw_fd(),
            kept.as_raw_fd()
        );
        let mut command = Command::new(SHELL);
        command
            .args(["-c", &script])
            .stderr(std::process::Stdio::null());
        tie(&mut command, vec![given.into()]);
        let status = command.status().unwrap();
        drop(command);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello\n");
        assert!(!status.success(), "a descriptor that was not given is open");
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let number = theirs.as_raw_fd();
        std::thread::spawn(move || {
            let mut command = Command::new(SHELL);
            command.args([
                "-c",
                &format!("echo up >&{number}; read -r _ <&{number}; echo alive >&{number}"),
            ]);
            tie(&mut command, vec![theirs.into()]);
            let child = command.spawn().unwrap();
            // So that a child that fails is seen to have, not waited for.
            drop(command);
            let mut up = [0; 3];
            ours.read_exact(&mut up).unwrap();
            (ours, child)
        })
        .join()
        .map(|(mut ours, mut child)| {
            // The answer can only come from a child that outlived the thread.
            let _gone = ours.write_all(b"go\n");
            let mut rest = String::new();
            ours.read_to_string(&mut rest).unwrap_or_default();
            assert_eq!(rest, "");
            assert!(!child.wait().unwrap().success());
        })
        .unwrap();
    }
}
