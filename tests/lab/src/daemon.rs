//! One `crosvm device` under test, on the host side.

use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use spec::device::{DeviceMessage, DeviceSpec, VhostSocket};
use spec::fd::InheritedFd;

use crate::place;

/// A device daemon.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts a daemon that works on `descriptors`, which `device` names by number. Returns it with the socket for the
    /// machine.
    ///
    /// # Panics
    /// When `crosvm` cannot be started at all.
    #[must_use]
    pub fn start(device: DeviceSpec, mut descriptors: Vec<OwnedFd>) -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let vhost = VhostSocket::Connected(InheritedFd(theirs.as_raw_fd()));
        let mut command = Command::new(place::program("crosvm"));
        command.args([
            "device",
            device.kind(),
            "--spec-fd",
            &reader.as_raw_fd().to_string(),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        descriptors.extend([OwnedFd::from(theirs), reader.into()]);
        sys::spawn::tie(&mut command, descriptors);
        let child = command.spawn().unwrap();
        drop(command);
        writer
            .write_all(&serde_json::to_vec(&DeviceMessage { vhost, device }).unwrap())
            .unwrap();
        (Self { child }, ours)
    }

    /// Returns the number of the process that was started, which keeps the daemon.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Kills the daemon, as a crash would.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn kill(&mut self) {
        let _ended_already = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}
