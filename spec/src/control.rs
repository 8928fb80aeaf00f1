//! What concierge asks of a running `crosvm run` and what comes back, as JSON lines on the control socket.
//!
//! One request is one line and gets one [`Reply`] line with its `id`; [`Event`] lines come between them
//! unasked. A descriptor that a request needs travels beside the first byte of its line (`SCM_RIGHTS`).

use serde::{Deserialize, Serialize};

use crate::units::Mib;
use crate::vm::Device;

/// No line is longer in either direction; the longest, `add-device`, needs about 300 bytes.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// One request with the number its reply will carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Chosen by the caller.
    pub id: u64,
    /// What to do.
    pub request: Request,
}

/// What a running machine can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Press the ACPI power button; the guest decides what follows.
    PowerButton {},
    /// End the machine at once, as if power were cut.
    Kill {},
    /// Stop all vCPUs; devices stay attached.
    Suspend {},
    /// Let the vCPUs go on after a suspend.
    Resume {},
    /// Write the whole machine into the empty file that comes along; it stands still from then on, until a resume or a
    /// kill.
    Snapshot {},
    /// Ask the guest to leave this much of its memory to the host.
    Balloon {
        /// Memory the guest gives up; zero gives everything back.
        size: Mib,
    },
    /// Tell the guest that a device's configuration changed, such as a disk's capacity.
    ConfigChanged {
        /// [`Device::name`].
        device: String,
    },
    /// Go on with a new daemon for a device whose old one is gone; its connected socket comes along.
    Reattach {
        /// [`Device::name`].
        device: String,
    },
    /// Plug in a device; its connected socket comes along and `device.socket` is ignored.
    AddDevice {
        /// What to plug in.
        device: Device,
    },
    /// Ask the guest to let go of a device and unplug it.
    RemoveDevice {
        /// [`Device::name`].
        device: String,
    },
    /// Report state and counters.
    Info {},
}

impl Request {
    /// Returns whether a descriptor comes along.
    #[must_use]
    pub fn needs_descriptor(&self) -> bool {
        matches!(
            self,
            Self::Snapshot {} | Self::Reattach { .. } | Self::AddDevice { .. }
        )
    }
}

/// A line from the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Line {
    /// The answer to one call.
    Reply {
        /// [`Call::id`].
        id: u64,
        /// What came of it.
        reply: Reply,
    },
    /// Something happened.
    Event {
        /// What.
        event: Event,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// It is done.
    Done {},
    /// The answer to [`Request::Info`].
    Info {
        /// State and counters.
        info: Info,
    },
    /// It could not be done; nothing changed.
    Failed {
        /// The act that failed.
        message: String,
        /// Why, nearest cause first.
        causes: Vec<String>,
    },
}

/// What an engine tells unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The first vCPU is about to run its first instruction.
    Running {},
    /// A device's daemon closed its socket; `reattach` brings the device back.
    DeviceLost {
        /// [`Device::name`].
        device: String,
    },
    /// The guest kernel says it panicked.
    Panicked {},
}

/// What `info` reports: numbers that do not depend on how fast the machine is, for tests and benchmarks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
    /// True between suspend and resume.
    pub suspended: bool,
    /// Memory the guest has, without what the balloon holds.
    pub memory: Mib,
    /// Memory in the balloon.
    pub ballooned: Mib,
    /// Bytes given back to the host by free page reporting since the start.
    pub given_back_bytes: u64,
    /// Exits to this process, by cause.
    pub exits: Exits,
    /// Microseconds of CPU this process used before the first guest instruction.
    pub start_cpu_us: u64,
    /// Microseconds from this process's start to the first guest instruction.
    pub start_wall_us: u64,
    /// Page faults of this process so far, minor and major.
    pub page_faults: u64,
}

/// Exits from guest to `crosvm` since power-on, summed over vCPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exits {
    /// Reads and writes of I/O ports.
    pub port: u64,
    /// Reads and writes of PCI configuration space.
    pub pci_config: u64,
    /// Other reads and writes of device memory.
    pub mmio: u64,
    /// Ends of interrupt, interruptions by signals and all else.
    pub other: u64,
}

impl Exits {
    /// Returns all exits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.port + self.pci_config + self.mmio + self.other
    }
}
