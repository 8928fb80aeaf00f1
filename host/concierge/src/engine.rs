//! The programs that can run a virtual machine, behind one seam, and the choice between them. Host side.
//!
//! Above the seam there is one [`spec::vm::VmSpec`]; below it, each engine turns that into its own invocation.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;

use link::config::EngineChoice;
use spec::end::EngineEnd;
use spec::fd::InheritedFd;
use spec::vm::{Function, VmSpec};
use tokio::net::UnixStream;
use wire::{Bytes, Fault};

use crate::log::Log;

mod crosvm;
pub(crate) mod qemu;
mod qmp;

/// One program that runs virtual machines.
pub(crate) trait Engine: fmt::Debug + Send + Sync {
    /// Returns its name as users see it.
    fn name(&self) -> &'static str;

    /// Makes the two ends of a device's vhost-user socket. `path` is free and in a folder of this VM's own, for
    /// an engine that needs one.
    ///
    /// # Errors
    /// When sockets cannot be made.
    fn plug(&self, function: &Function, path: &Path) -> io::Result<Plug>;

    /// Returns whether it serves disks that may grow itself, because it cannot be told by a daemon that one has
    /// (ADR 17).
    fn serves_growing_disks(&self) -> bool;

    /// Returns how the program is started for `spec`, with the disks that it serves itself after all others.
    ///
    /// # Errors
    /// When the specification cannot be handed over.
    fn invocation(&self, spec: &VmSpec, own_disks: &[OwnDisk]) -> io::Result<Invocation>;

    /// Returns whether it can go on with other daemons than those that it began with: after the death of one, or in
    /// another process from a file.
    fn takes_new_daemons(&self) -> bool;

    /// Returns why the program ended with this status, if that is one of its own.
    fn end(&self, status: ExitStatus) -> Option<EngineEnd>;

    /// Takes the other end of [`VmSpec::control`].
    fn control(&self, stream: UnixStream, log: Log) -> Box<dyn Control>;
}

/// What a running engine can be asked.
pub(crate) trait Control: fmt::Debug + Send + Sync {
    /// Presses the power button; a guest without one does not notice.
    fn power_button(&self);

    /// Says in the log what the engine has done so far, if it counts that.
    fn log_figures(&self);

    /// Lets the guest see that the file of disk `name` has `size` bytes now.
    fn disk_grew(&self, name: &str, size: Bytes) -> Answer;

    /// Goes on with a new daemon, at the other end of `socket`, for a device whose old one is gone.
    fn reattach(&self, device: &str, socket: OwnedFd) -> Answer;

    /// Writes the whole machine into the empty `file`. It stands still then, unless that fails.
    fn save(&self, file: OwnedFd) -> Answer;
}

/// What comes of a request to an engine.
pub(crate) type Answer = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A disk that an engine serves itself.
#[derive(Debug)]
pub(crate) struct OwnDisk {
    /// Its name and serial number.
    pub(crate) name: &'static str,
    /// The raw image, open for reading and writing.
    pub(crate) image: InheritedFd,
}

/// The two ends of a device's vhost-user socket.
#[derive(Debug)]
pub(crate) struct Plug {
    /// For [`spec::vm::Device::socket`].
    pub(crate) engine: OwnedFd,
    /// For the daemon.
    pub(crate) daemon: OwnedFd,
    /// The daemon's end listens; otherwise it is connected.
    pub(crate) listening: bool,
}

/// A program with its arguments.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// The executable.
    pub(crate) program: PathBuf,
    /// What follows it.
    pub(crate) arguments: Vec<String>,
    /// Descriptors it needs beside those in the specification.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// The engine for new starts and why it is that one.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// The engine.
    pub(crate) engine: Arc<dyn Engine>,
    /// In words, for the user.
    pub(crate) reason: String,
}

/// What this machine offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hardware {
    /// `/dev/kvm` opens and the processor virtualises.
    Usable,
    /// `/dev/kvm` opens, but what answers is software that cannot boot Linux.
    Software,
    /// `/dev/kvm` is there and may not be opened.
    Denied,
    /// There is no `/dev/kvm`.
    None,
}

impl Hardware {
    fn of_machine() -> Self {
        match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            Ok(_) if virtualises(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()) => {
                Self::Usable
            }
            Ok(_) => Self::Software,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Self::Denied,
            Err(_) => Self::None,
        }
    }
}

/// Returns the engine for this machine and the user's choice, which is what was `asked` for this start, or else
/// `configured`; `crosvm` is where our own lies.
///
/// # Errors
/// When the chosen one is not installed.
pub(crate) fn choose(
    asked: Option<EngineChoice>,
    configured: EngineChoice,
    crosvm: &Path,
) -> Result<Chosen, Fault> {
    let (choice, source) = match asked {
        Some(choice) => (choice, "asked for with --engine"),
        None => (configured, "chosen in config.toml"),
    };
    let (ours, reason) = decide(choice, source, Hardware::of_machine());
    let engine: Arc<dyn Engine> = if ours {
        Arc::new(crosvm::Crosvm {
            program: crosvm.to_owned(),
        })
    } else {
        Arc::new(qemu::Qemu::find()?)
    };
    Ok(Chosen {
        engine,
        reason: reason.to_owned(),
    })
}

/// Returns whether it is our own engine, and why.
fn decide(choice: EngineChoice, source: &'static str, hardware: Hardware) -> (bool, &'static str) {
    match (choice, hardware) {
        (EngineChoice::Crosvm, _) => (true, source),
        (EngineChoice::Qemu, _) => (false, source),
        (EngineChoice::Auto, Hardware::Usable) => (true, "the processor virtualises"),
        (EngineChoice::Auto, Hardware::Software) => (
            false,
            "QEMU emulates the processor: /dev/kvm is there, but the processor has neither vmx nor svm",
        ),
        (EngineChoice::Auto, Hardware::Denied) => (
            false,
            "QEMU emulates the processor: this user may not open /dev/kvm",
        ),
        (EngineChoice::Auto, Hardware::None) => {
            (false, "QEMU emulates the processor: there is no /dev/kvm")
        }
    }
}

/// Returns whether the processor described by `cpuinfo` has hardware virtualisation.
fn virtualises(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_flags_count() {
        assert!(virtualises("model name : svm\nflags\t\t: fpu svm sse\n"));
        assert!(virtualises("flags : vmx\n"));
        assert!(!virtualises("flags : fpu svm_lock vmxnet\nbugs : vmx\n"));
    }

    #[test]
    fn our_engine_needs_hardware_or_the_users_word() {
        use Hardware::{Denied, None, Software, Usable};
        for hardware in [Usable, Software, Denied, None] {
            let (ours, reason) = decide(EngineChoice::Auto, "said", hardware);
            assert_eq!(ours, hardware == Usable);
            assert_ne!(reason, "said");
            assert_eq!(
                decide(EngineChoice::Crosvm, "said", hardware),
                (true, "said")
            );
            assert_eq!(
                decide(EngineChoice::Qemu, "said", hardware),
                (false, "said")
            );
        }
    }
}
