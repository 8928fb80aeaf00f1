//! How an engine process ends: the exit codes concierge reads, stable across versions.

/// Why `crosvm run` ended, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EngineEnd {
    /// The guest powered itself off, or the machine was killed by request.
    PowerOff = 0,
    /// A failure that none of the codes below names.
    Internal = 1,
    /// The guest asked for a restart; whoever wants the machine again starts it again.
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
    /// The machine cannot go on from the snapshot.
    Snapshot = 26,
    /// The process could not shut itself into its jail.
    Jail = 27,
}

impl EngineEnd {
    /// Every way to end.
    pub const ALL: [Self; 13] = [
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
        Self::Snapshot,
        Self::Jail,
    ];

    /// Returns the process exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Returns what happened, in words for users.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::PowerOff => "the guest powered itself off",
            Self::Internal => "the engine failed",
            Self::Reset => "the guest asked for a restart",
            Self::Panic => "the guest's kernel panicked",
            Self::Crash => "the guest crashed",
            Self::Spec => "the engine does not understand what it was told",
            Self::Descriptor => "the engine was handed a wrong descriptor",
            Self::Kvm => "the engine cannot use KVM",
            Self::Memory => "there is no memory for the guest",
            Self::Kernel => "the guest's kernel cannot be loaded",
            Self::Device => "a device's daemon cannot be attached",
            Self::Snapshot => "the machine cannot go on from its snapshot",
            Self::Jail => "the engine cannot enter its jail",
        }
    }

    /// Returns whether the guest may have run: what it was to go on from has been used then.
    #[must_use]
    pub fn ran(self) -> bool {
        matches!(
            self,
            Self::PowerOff | Self::Internal | Self::Reset | Self::Panic | Self::Crash
        )
    }

    /// Returns what a user can do about it, where it is not in what the guest printed.
    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::Kvm => Some(
                "see `testudo doctor`, or start with the other engine: vmc start --engine qemu",
            ),
            Self::Memory => Some("give the VM less, such as: vmc set termina memory=1G"),
            Self::Kernel => {
                Some("install the image again: cargo xtask image, or the distribution's package")
            }
            Self::Spec => Some("programs of two versions are installed: install Testudo again"),
            Self::Jail => Some("see `testudo doctor`"),
            _ => None,
        }
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
    fn each_end_has_its_own_words() {
        let words: std::collections::BTreeSet<_> =
            EngineEnd::ALL.iter().map(|end| end.meaning()).collect();
        assert_eq!(words.len(), EngineEnd::ALL.len());
    }

    #[test]
    fn a_foreign_code_is_none() {
        assert_eq!(EngineEnd::from_code(139), None);
    }
}
