//! A machine with Termina's kernel whose console is a shell, with the daemon of its root disk.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use spec::device::{BlockFormat, BlockSpec, DeviceSpec};
use spec::fd::InheritedFd;
use spec::units::Mib;
use spec::vm::Function;

use crate::daemon::Daemon;
use crate::engine::{Engine, Plan};
use crate::place;

/// What the machine makes of a disk's daemon.
pub const DISK: Function = Function::Block { queues: 1 };

/// Returns a machine with Termina's kernel and nothing to start.
///
/// # Panics
/// When there is no kernel.
#[must_use]
pub fn bare(line: &str) -> Plan {
    let kernel = File::open(place::image("vmlinux")).unwrap();
    let line = line.to_owned();
    Plan::new(kernel).with(|spec| {
        spec.memory = Mib(512);
        spec.kernel.cmdline = line;
    })
}

/// Starts a daemon that serves `image` as a disk.
#[must_use]
pub fn disk(image: File, read_only: bool) -> (Daemon, UnixStream) {
    let image = OwnedFd::from(image);
    let block = BlockSpec {
        image: InheritedFd(image.as_raw_fd()),
        format: BlockFormat::Raw,
        backing: Vec::new(),
        read_only,
        serial: "lab".to_owned(),
        queues: 1,
    };
    Daemon::start(DeviceSpec::Block(block), vec![image])
}

/// Returns an empty disk of 64 MiB.
///
/// # Panics
/// When the host has no room.
#[must_use]
pub fn scratch() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(64 << 20).unwrap();
    file
}

/// Returns the same file once more.
///
/// # Panics
/// When the host has no descriptors left.
#[must_use]
pub fn again(file: &File) -> File {
    file.try_clone().unwrap()
}

/// The machine.
pub struct Guest {
    /// What runs it.
    pub engine: Engine,
    root: Daemon,
}

impl Guest {
    /// Starts the machine with what `change` adds to it.
    ///
    /// # Panics
    /// When there is no shell.
    #[must_use]
    pub fn start(change: impl FnOnce(Plan) -> Plan) -> Self {
        let mut guest = Self::launch(change);
        guest.engine.expect("# ");
        for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")] {
            guest.does(&format!("mount -t {kind} {kind} {place}"));
        }
        guest
    }

    /// Starts the machine and waits for nothing.
    ///
    /// # Panics
    /// When there is no image.
    #[must_use]
    pub fn launch(change: impl FnOnce(Plan) -> Plan) -> Self {
        let (root, socket) = disk(File::open(place::image("root.erofs")).unwrap(), true);
        let plan = bare("quiet root=/dev/vda ro rootfstype=erofs init=/bin/sh");
        let engine = change(plan.device("root", DISK, socket)).start();
        Self { engine, root }
    }

    /// Returns the daemon of the root disk.
    #[must_use]
    pub fn root(&self) -> &Daemon {
        &self.root
    }

    /// Has the shell do `command` and returns what it printed.
    ///
    /// # Panics
    /// When the command fails.
    pub fn does(&mut self, command: &str) -> String {
        let before = self.engine.console().len();
        self.engine.type_line(&format!("{command}; echo DONE $?"));
        self.engine.expect_after(before, "DONE 0");
        self.engine.console()[before..].to_owned()
    }

    /// Returns the hash of what `command` prints, by the guest's own program.
    ///
    /// # Panics
    /// When there is none.
    pub fn hash_of(&mut self, command: &str) -> String {
        let printed = self.does(&format!("{command} | sha256sum"));
        let hash = printed.split_whitespace().find(|word| word.len() == 64);
        hash.unwrap_or_else(|| panic!("no hash in {printed}"))
            .to_owned()
    }
}
