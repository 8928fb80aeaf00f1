//! PID 1 in the VM: mounts what every program expects, keeps the agent running, reaps, and ends the machine.
//!
//! Nothing else happens here, so nothing here can fail later. The agent says by its exit code how the machine
//! is to end; any other end of it, also by SIGKILL, starts it again.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait};
use rustix::system::{RebootCommand, reboot};
use sys::process::{Forked, fork};

use crate::{agent, boot, disk};

/// The agent's exit code for "switch the machine off".
pub(crate) const POWER_OFF: u8 = 64;

/// A new agent is started this long after one that did not live longer than this.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Processes that survive SIGTERM at the very end are killed after this long. The agent has stopped the
/// containers by then; what is left are shells.
const TERMINATE_WAIT: Duration = Duration::from_millis(300);

/// What is mounted, in order: type, target, flags, options.
const MOUNTS: [(&str, &str, MountFlags, &str); 10] = [
    ("proc", "/proc", FIXED, ""),
    ("sysfs", "/sys", FIXED, ""),
    (
        "cgroup2",
        "/sys/fs/cgroup",
        FIXED,
        "nsdelegate,memory_recursiveprot",
    ),
    ("devtmpfs", "/dev", MountFlags::NOSUID, "mode=755"),
    ("devpts", "/dev/pts", SAFE, "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", PLAIN, "mode=1777"),
    ("tmpfs", "/run", PLAIN, "mode=755"),
    ("tmpfs", "/tmp", PLAIN, "mode=1777"),
    ("tmpfs", "/var", PLAIN, "mode=755"),
    ("tmpfs", "/root", PLAIN, "mode=700"),
];
const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
const FIXED: MountFlags = SAFE.union(MountFlags::NODEV);

/// Directories made on the new tmpfs; the image holds no state.
const DIRECTORIES: [&str; 6] = [
    "/run/testudo",
    "/run/lock",
    "/var/lib",
    "/var/log",
    "/var/cache",
    "/var/tmp",
];

pub(crate) fn run() -> ExitCode {
    let boot = boot::Times::at_init();
    prepare();
    loop {
        let started = Instant::now();
        let ending = match fork() {
            Ok(Forked::Child) => return agent::run(boot),
            Ok(Forked::Parent(agent)) => reap_until(agent),
            Err(error) => {
                complain("start the agent", &error);
                None
            }
        };
        if ending == Some(i32::from(POWER_OFF)) {
            power_off();
        }
        if started.elapsed() < RESTART_PAUSE {
            std::thread::sleep(RESTART_PAUSE);
        }
    }
}

/// Mounts and makes directories. A failure is said on the console and lived with: the agent may still be able
/// to tell the host what is wrong.
fn prepare() {
    for (kind, target, flags, options) in MOUNTS {
        if target.starts_with("/dev/")
            && let Err(error) = std::fs::create_dir_all(target)
        {
            complain(target, &error);
        }
        let options = std::ffi::CString::new(options).expect("the table has no zero bytes");
        match mount(kind, target, kind, flags, options.as_c_str()) {
            // The kernel has mounted devtmpfs itself.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => complain(target, &error.into()),
        }
    }
    for directory in DIRECTORIES {
        if let Err(error) = std::fs::create_dir_all(directory) {
            complain(directory, &error);
        }
    }
    let controllers = "+cpuset +cpu +io +memory +pids";
    if let Err(error) = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", controllers) {
        complain("delegate cgroup controllers", &error);
    }
}

/// Waits for children until `agent` is gone; returns its exit code, `None` when a signal ended it.
fn reap_until(agent: Pid) -> Option<i32> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == agent => return WaitStatus::exit_status(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Ends every process, writes everything to the disk and switches the machine off.
fn power_off() -> ! {
    // Process group 1 in kill(2) means everyone but PID 1 itself.
    let everyone = Pid::INIT;
    let _ = kill_process_group(everyone, Signal::TERM);
    std::thread::sleep(TERMINATE_WAIT);
    let _ = kill_process_group(everyone, Signal::KILL);
    while wait(WaitOptions::empty()).is_ok() {}
    rustix::fs::sync();
    if unmount(disk::MOUNT, UnmountFlags::empty()).is_err() {
        let _ = mount_remount(disk::MOUNT, MountFlags::RDONLY, "");
    }
    // Without ACPI there is no way to switch off; the engine ends when the machine resets.
    let command = if Path::new("/sys/firmware/acpi").exists() {
        RebootCommand::PowerOff
    } else {
        RebootCommand::Restart
    };
    loop {
        if let Err(error) = reboot(command) {
            complain("power off", &error.into());
        }
        std::thread::sleep(RESTART_PAUSE);
    }
}

#[expect(clippy::print_stderr, reason = "the console is PID 1's only log")]
fn complain(act: &str, error: &std::io::Error) {
    eprintln!("maitred: {act}: {error}");
}
