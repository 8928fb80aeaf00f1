//! A container that runs: found from LXC's pid file and the kernel, and from nothing that we remember.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::home::Home;

const CGROUPS: &str = "/sys/fs/cgroup";

/// LXC moves its watching process here, and the container beside it (cgfsng.c: `lxc.monitor.` and
/// `lxc.payload.`, with a number behind when the name was taken).
const MONITOR: &str = "lxc.monitor.";
const PAYLOAD: &str = "lxc.payload.";

const ESRCH: i32 = 3;
const KILL: i32 = 9;

/// A running container.
#[derive(Debug)]
pub(crate) struct Live {
    /// LXC's watching process, which tidies up after the container.
    monitor: OwnedFd,
    /// The container's PID 1, held so that its number cannot come to mean another process.
    init: OwnedFd,
    init_pid: Pid,
    /// The container's own control group.
    cgroup: PathBuf,
}

impl Live {
    /// Finds the container, `None` when it does not run.
    pub(crate) fn find(home: &Home) -> Option<Self> {
        let monitor_pid = pid(&fs::read_to_string(home.pid_file()).ok()?)?;
        let monitor = pidfd_open(monitor_pid, PidfdFlags::empty()).ok()?;
        // The number may have been used again since LXC wrote it.
        cgroup_of(monitor_pid)?
            .strip_prefix('/')?
            .strip_prefix(MONITOR)?;
        let number = monitor_pid.as_raw_pid();
        let children = fs::read_to_string(format!("/proc/{number}/task/{number}/children")).ok()?;
        children.split_ascii_whitespace().find_map(|child| {
            let init_pid = pid(child)?;
            let init = pidfd_open(init_pid, PidfdFlags::empty()).ok()?;
            let cgroup = payload(&cgroup_of(init_pid)?)?;
            let monitor = monitor.try_clone().ok()?;
            Some(Self {
                monitor,
                init,
                init_pid,
                cgroup,
            })
        })
    }

    /// Returns the container's PID 1, for entering its namespaces.
    pub(crate) fn init(&self) -> &OwnedFd {
        &self.init
    }

    /// Returns the directory that is the container's `/` to its PID 1.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init_pid.as_raw_pid()))
    }

    /// Returns the container's control group.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Sends signal `number` to its PID 1; nothing happens when it has gone meanwhile.
    pub(super) fn signal(&self, number: i32) -> io::Result<()> {
        match sys::process::signal(&self.init, number) {
            Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Kills every process of it at once.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.signal(KILL)?;
        match fs::write(self.cgroup.join("cgroup.kill"), "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until LXC has tidied up behind it; `false` when it has not in `timeout`.
    pub(super) async fn ended(&self, timeout: Duration) -> io::Result<bool> {
        let monitor = self.monitor.try_clone()?;
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let wait = move || poll(&mut [PollFd::new(&monitor, PollFlags::IN)], Some(&timeout));
        Ok(tokio::task::spawn_blocking(wait).await?? > 0)
    }
}

fn pid(text: &str) -> Option<Pid> {
    let number = text.trim().parse().ok().filter(|number| *number > 0)?;
    Pid::from_raw(number)
}

/// Returns the process's place in the unified hierarchy.
fn cgroup_of(pid: Pid) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_pid())).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

/// Cuts a place inside a container down to the container itself.
fn payload(place: &str) -> Option<PathBuf> {
    let first = place.strip_prefix('/')?.split('/').next()?;
    first
        .starts_with(PAYLOAD)
        .then(|| Path::new(CGROUPS).join(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_the_first_part_of_its_processes_place() {
        let expected = Some(PathBuf::from("/sys/fs/cgroup/lxc.payload.penguin"));
        assert_eq!(payload("/lxc.payload.penguin"), expected);
        assert_eq!(payload("/lxc.payload.penguin/init.scope"), expected);
        assert_eq!(payload("/lxc.monitor.penguin"), None);
        assert_eq!(payload("/"), None);
    }

    #[test]
    fn a_pid_file_that_names_another_process_finds_nothing() {
        assert_eq!(pid("12\n").map(Pid::as_raw_pid), Some(12));
        assert_eq!(pid("-1"), None);
        assert_eq!(pid("0"), None);
        assert_eq!(pid(""), None);
        let own = cgroup_of(rustix::process::getpid()).unwrap_or_default();
        assert!(!own.starts_with("/lxc.monitor."));
    }
}
