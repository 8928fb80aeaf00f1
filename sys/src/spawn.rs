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
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};

    use super::*;

    /// Returns a command that carries `script` out. Not sh: the one of Debian takes numbers of one digit for descriptors only.
    fn bash(script: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .args(["-c", script])
            .stderr(std::process::Stdio::null());
        command
    }

    #[test]
    fn a_child_has_the_descriptors_it_was_given_and_no_other() {
        let (given, mut ours) = UnixStream::pair().unwrap();
        let (kept, _other) = UnixStream::pair().unwrap();
        let script = format!(
            "echo hello >&{} && ! : >&{}",
            given.as_raw_fd(),
            kept.as_raw_fd()
        );
        let mut command = bash(&script);
        tie(&mut command, vec![given.into()]);
        let status = command.status().unwrap();
        drop(command);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello\n");
        assert!(status.success(), "a descriptor that was not given is open");
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        /// The thread is joined a moment before its children are told.
        const PATIENCE: Duration = Duration::from_secs(60);
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let number = theirs.as_raw_fd();
        let script = format!("echo up >&{number}; read -r _ <&{number}");
        let started = std::thread::spawn(move || {
            let mut command = bash(&script);
            tie(&mut command, vec![theirs.into()]);
            let child = command.spawn().unwrap();
            // A child that could not speak is then noticed.
            drop(command);
            let mut up = [0; 3];
            ours.read_exact(&mut up).unwrap();
            (ours, child)
        });
        // As long as this is kept, the child has a reason to live.
        let (_ours, mut child) = started.join().unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it outlives its thread");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }
}
