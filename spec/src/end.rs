//! How an engine process ends: the exit codes concierge reads, stable across versions.

/// Why `crosvm run` ended, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EngineEnd {
    /// The guest powered itself off, or the machine was killed by request.
    PowerOff = 0,
    /// A failure that none of the codes below names.
    Internal = 1,
    /// The guest asked for a restart; concierge starts a new engine.
    Reset = 10,
    /// The guest kernel panicked and stopped.
    Panic = 11,
    /// The guest ended in a state no vCPU can leave (triple fault, entry failure).
    Crash = 12,
    /// The specification could not be read, parsed or is contradictory.
    Spec = 20,
    /// A descriptor is not open or not what the specification says.
    Descriptor = 21,
    /// `/dev/kvm` cannot be used, or lacks something this machine needs.
    Kvm = 22,
    /// Guest memory cannot be had.
    Memory = 23,
    /// The kernel image cannot be loaded.
    Kernel = 24,
    /// A device's daemon could not be attached.
    Device = 25,
    /// The process could not shut itself into its jail.
    Jail = 27,
}

impl EngineEnd {
    /// Every way to end.
    pub const ALL: [Self; 12] = [
        Self::PowerOff,
        Self::Internal,
        Self::Reset,
        Self::Panic,
        Self::Crash,
        Self::Spec,
        Self::Descriptor,
        Self::Kvm,
        Self::Memory,
        Self::Kernel,
        Self::Device,
        Self::Jail,
    ];

    /// Returns the process exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Returns the end with this exit code, if it is one of ours.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|end| i32::from(end.code()) == code)
    }
}

#[cfg(test)]
mod tests {
    use super::EngineEnd;

    #[test]
    fn every_code_reads_back() {
        for end in EngineEnd::ALL {
            assert_eq!(EngineEnd::from_code(i32::from(end.code())), Some(end));
        }
    }

    #[test]
    fn a_foreign_code_is_none() {
        assert_eq!(EngineEnd::from_code(139), None);
    }
}
