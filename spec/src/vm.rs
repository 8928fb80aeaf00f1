//! One virtual machine as data: what concierge writes and an engine reads, on the host.
//!
//! The same [`VmSpec`] goes to `crosvm run` as JSON on an inherited descriptor and becomes an argument
//! vector for QEMU, so nothing in it belongs to one engine. Everything the machine may touch is here, as a
//! descriptor that concierge opened: an engine opens no path.

use std::collections::BTreeSet;
use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::device::MacAddress;
use crate::fd::InheritedFd;
use crate::units::Mib;

/// The version of [`VmSpec`] this build writes and reads.
pub const VM_SPEC_VERSION: u32 = 1;

/// No specification is larger: 28 devices need about 6 KiB, and the reader must not be fed without end.
pub const MAX_SPEC_BYTES: u64 = 64 * 1024;

/// Termina does not reach its init with less.
pub const MIN_MEMORY: Mib = Mib(64);

/// 1 TiB: the lowest physical address width that KVM machines of the last ten years report is 40 bits.
pub const MAX_MEMORY: Mib = Mib(1024 * 1024);

/// The local APIC identifiers 0 to 253 fit in the MADT's short entry; 64 is more than any desktop has.
pub const MAX_VCPUS: u16 = 64;

/// Linux refuses a longer command line on x86 (`COMMAND_LINE_SIZE` is 2048 with its closing NUL).
pub const MAX_CMDLINE_BYTES: usize = 2047;

/// One PCI bus has 32 slots; the engine keeps four for the host bridge, console, balloon and one spare.
pub const MAX_DEVICES: usize = 28;

/// One MSI-X vector and one thread a queue: more than this serves no desktop.
pub const MAX_QUEUES: u16 = 16;

/// The virtio split ring's limit (virtio 1.3 §2.7).
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// The field in the file system device's configuration space (virtio 1.3 §5.11.4).
pub const MAX_FS_TAG_BYTES: usize = 36;

/// What a virtual machine consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// [`VM_SPEC_VERSION`] of the writer.
    pub version: u32,
    /// Names the machine in logs, thread names and memory mappings; lower-case letters, digits and `-`.
    pub name: String,
    /// Guest memory.
    pub memory: Mib,
    /// Virtual processors.
    pub vcpus: u16,
    /// What runs first.
    pub kernel: Kernel,
    /// A snapshot of a machine with this memory and these processors and devices, open for reading, to go on with; the
    /// kernel is not started then. Only our own engine can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<InheritedFd>,
    /// Where the first console (`hvc0`) ends.
    pub console: Console,
    /// A connected Unix stream socket that carries [`crate::control`] requests to the engine.
    ///
    /// QEMU speaks QMP on it instead.
    pub control: InheritedFd,
    /// The vhost-user devices, in slot order: the first block device is `vda`.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// What may differ without changing what the guest finds.
    #[serde(default)]
    pub options: Options,
}

/// The guest kernel and what it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// An uncompressed 64-bit ELF `vmlinux` with a PVH note, open for reading.
    pub image: InheritedFd,
    /// The command line, without what the engine adds for its own machine.
    pub cmdline: String,
    /// An initial RAM file system, open for reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<InheritedFd>,
}

/// The two ends of `hvc0`; one descriptor may serve as both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// Gets every byte the guest prints: a file, pipe, socket or terminal open for writing.
    pub output: InheritedFd,
    /// Gives the bytes the guest reads; without it the guest's console never has input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InheritedFd>,
}

/// One virtio device whose work is done by a vhost-user daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Names the device in logs and control requests; unique in the machine, same alphabet as the machine's.
    pub name: String,
    /// A connected Unix stream socket; the daemon has the other end and speaks vhost-user on it.
    pub socket: InheritedFd,
    /// What the guest sees.
    pub function: Function,
    /// Descriptors in each ring; a power of two.
    #[serde(default = "default_queue_size")]
    pub queue_size: u16,
}

/// What a device does, with what its front end must know beyond the daemon's own answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Function {
    /// A disk (virtio 1.3 §5.2); capacity and geometry come from the daemon.
    Block {
        /// Request queues.
        queues: u16,
    },
    /// A network card (virtio 1.3 §5.1).
    Net {
        /// Pairs of receive and transmit queues.
        queue_pairs: u16,
        /// The card's address.
        mac: MacAddress,
    },
    /// Stream sockets to the guest (virtio 1.3 §5.10); the context identifier comes from the daemon.
    Vsock {},
    /// A shared folder (virtio 1.3 §5.11).
    Fs {
        /// What the guest mounts by; at most [`MAX_FS_TAG_BYTES`] bytes.
        tag: String,
        /// Request queues beside the high-priority queue.
        queues: u16,
    },
    /// Entropy (virtio 1.3 §5.4).
    Rng {},
    /// Sound (virtio 1.3 §5.14).
    Sound {},
    /// Graphics (virtio 1.3 §5.7).
    Gpu {},
    /// Keyboard, pointer or touch (virtio 1.3 §5.8).
    Input {},
}

/// What an engine may do to serve the machine better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Back guest memory with huge pages where the host allows it.
    pub huge_pages: bool,
    /// Give free guest pages back to the host by themselves (virtio balloon, free page reporting).
    pub give_back: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            huge_pages: true,
            give_back: true,
        }
    }
}

fn default_queue_size() -> u16 {
    256
}

/// Why bytes on a descriptor are not a specification.
#[derive(Debug, thiserror::Error)]
pub enum ReadVmSpecError {
    /// The descriptor could not be read to its end.
    #[error("cannot read the VM specification")]
    Read(#[source] std::io::Error),
    /// There are more than [`MAX_SPEC_BYTES`].
    #[error("the VM specification is longer than {MAX_SPEC_BYTES} bytes")]
    TooLong,
    /// It is not JSON of the right shape, or has a field this build does not know.
    #[error("cannot parse the VM specification")]
    Parse(#[source] serde_json::Error),
    /// It contradicts itself.
    #[error("the VM specification contradicts itself")]
    Contradiction(#[source] VmSpecError),
}

/// One contradiction in a specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmSpecError {
    /// Written by another generation of this software.
    #[error("version is {found}, this build reads {VM_SPEC_VERSION}")]
    Version {
        /// What the writer put.
        found: u32,
    },
    /// A machine or device name is empty, too long, has foreign characters or is taken.
    #[error("name {name:?} {problem}")]
    Name {
        /// The name as written.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Less than [`MIN_MEMORY`] or more than [`MAX_MEMORY`].
    #[error("memory is {found}, it must be between {MIN_MEMORY} and {MAX_MEMORY}")]
    Memory {
        /// What was asked for.
        found: Mib,
    },
    /// None or more than [`MAX_VCPUS`].
    #[error("vcpus is {found}, it must be between 1 and {MAX_VCPUS}")]
    Vcpus {
        /// What was asked for.
        found: u16,
    },
    /// The kernel would not get the command line as it is written.
    #[error("kernel command line {problem}")]
    Cmdline {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More than [`MAX_DEVICES`].
    #[error("{found} devices, at most {MAX_DEVICES} fit")]
    TooManyDevices {
        /// How many there are.
        found: usize,
    },
    /// A device's queues do not fit the device or the engine.
    #[error("device {device}: {problem}")]
    Device {
        /// The device's name.
        device: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two parts of the machine name the same descriptor.
    #[error("descriptor {fd} is given twice, the second time as {second}")]
    SharedFd {
        /// The number.
        fd: InheritedFd,
        /// The field that came second.
        second: String,
    },
    /// A descriptor that cannot be handed over: negative, or a standard stream where none makes sense.
    #[error("descriptor {fd} cannot be {field}")]
    WrongFd {
        /// The number.
        fd: InheritedFd,
        /// The field that holds it.
        field: String,
    },
}

impl VmSpec {
    /// Reads and validates a specification; `source` must end after it.
    ///
    /// # Errors
    /// When the bytes cannot be read, are no specification, or contradict themselves.
    pub fn read(source: impl Read) -> Result<Self, ReadVmSpecError> {
        let mut text = Vec::new();
        source
            .take(MAX_SPEC_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(ReadVmSpecError::Read)?;
        if text.len() as u64 > MAX_SPEC_BYTES {
            return Err(ReadVmSpecError::TooLong);
        }
        let spec: Self = serde_json::from_slice(&text).map_err(ReadVmSpecError::Parse)?;
        spec.validate().map_err(ReadVmSpecError::Contradiction)?;
        Ok(spec)
    }

    /// Checks everything that can be known without asking the machine it will run on.
    ///
    /// # Errors
    /// The first contradiction found, in the order of the fields.
    pub fn validate(&self) -> Result<(), VmSpecError> {
        if self.version != VM_SPEC_VERSION {
            return Err(VmSpecError::Version {
                found: self.version,
            });
        }
        check_name(&self.name)?;
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&self.memory) {
            return Err(VmSpecError::Memory { found: self.memory });
        }
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(VmSpecError::Vcpus { found: self.vcpus });
        }
        check_cmdline(&self.kernel.cmdline)?;
        if self.devices.len() > MAX_DEVICES {
            return Err(VmSpecError::TooManyDevices {
                found: self.devices.len(),
            });
        }
        let mut names = BTreeSet::new();
        for device in &self.devices {
            if !names.insert(device.name.as_str()) {
                return Err(name_error(&device.name, "is given to two devices"));
            }
            device.validate()?;
        }
        self.check_unique_functions()?;
        self.check_fds()
    }

    /// A guest can tell two folders apart only by tag, and has one vsock address.
    fn check_unique_functions(&self) -> Result<(), VmSpecError> {
        let mut tags = BTreeSet::new();
        let mut has_vsock = false;
        for device in &self.devices {
            let problem = match &device.function {
                Function::Fs { tag, .. } if !tags.insert(tag) => "its tag is already taken",
                Function::Vsock {} if has_vsock => "a machine has at most one vsock device",
                Function::Vsock {} => {
                    has_vsock = true;
                    continue;
                }
                _ => continue,
            };
            return Err(device.error(problem));
        }
        Ok(())
    }

    /// Every descriptor is owned by exactly one part, except the console's two ends.
    fn check_fds(&self) -> Result<(), VmSpecError> {
        let mut seen = BTreeSet::new();
        let mut check = |fd: InheritedFd, field: &str, may_be_standard: bool| {
            if fd.0 < 0 || (fd.is_standard() && !may_be_standard) {
                return Err(VmSpecError::WrongFd {
                    fd,
                    field: field.to_owned(),
                });
            }
            if !seen.insert(fd) {
                return Err(VmSpecError::SharedFd {
                    fd,
                    second: field.to_owned(),
                });
            }
            Ok(())
        };
        check(self.kernel.image, "kernel.image", false)?;
        if let Some(initramfs) = self.kernel.initramfs {
            check(initramfs, "kernel.initramfs", false)?;
        }
        if let Some(snapshot) = self.snapshot {
            check(snapshot, "snapshot", false)?;
        }
        check(self.console.output, "console.output", true)?;
        if let Some(input) = self
            .console
            .input
            .filter(|input| *input != self.console.output)
        {
            check(input, "console.input", true)?;
        }
        check(self.control, "control", false)?;
        for device in &self.devices {
            check(
                device.socket,
                &format!("the socket of device {}", device.name),
                false,
            )?;
        }
        Ok(())
    }
}

impl Device {
    /// Checks one device by itself; a device added to a running machine passes here too.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn validate(&self) -> Result<(), VmSpecError> {
        check_name(&self.name)?;
        if !self.queue_size.is_power_of_two() || self.queue_size > MAX_QUEUE_SIZE {
            return Err(self.error("queue_size must be a power of two of at most 1024"));
        }
        let queues = match &self.function {
            Function::Block { queues } => *queues,
            Function::Fs { tag, queues } => {
                if tag.is_empty() || tag.len() > MAX_FS_TAG_BYTES || tag.contains('\0') {
                    return Err(self.error("tag must have 1 to 36 bytes and no NUL"));
                }
                *queues
            }
            Function::Net { queue_pairs, .. } => *queue_pairs,
            Function::Vsock {}
            | Function::Rng {}
            | Function::Sound {}
            | Function::Gpu {}
            | Function::Input {} => 1,
        };
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(self.error("it must have between 1 and 16 queues"));
        }
        Ok(())
    }

    fn error(&self, problem: &'static str) -> VmSpecError {
        VmSpecError::Device {
            device: self.name.clone(),
            problem,
        }
    }
}

fn check_cmdline(cmdline: &str) -> Result<(), VmSpecError> {
    let problem = if cmdline.len() > MAX_CMDLINE_BYTES {
        "is longer than 2047 bytes"
    } else if cmdline.chars().any(char::is_control) {
        "has a control character"
    } else {
        return Ok(());
    };
    Err(VmSpecError::Cmdline { problem })
}

/// Names end in thread names and mapping names, so they are short and plain.
fn check_name(name: &str) -> Result<(), VmSpecError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 63 {
        return Err(name_error(name, "must have 1 to 63 characters"));
    }
    if !name.bytes().all(plain) || name.starts_with('-') {
        return Err(name_error(
            name,
            "may hold only a-z, 0-9 and -, and not start with -",
        ));
    }
    Ok(())
}

fn name_error(name: &str, problem: &'static str) -> VmSpecError {
    VmSpecError::Name {
        name: name.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests;
