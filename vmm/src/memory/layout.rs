//! Which guest physical address is what: memory, devices and what the kernel finds when it starts.
//!
//! ```text
//!          0  page tables, boot parameters, command line          (low memory)
//!    0xe0000  ACPI tables                                         (reserved)
//!  0x1000000  the kernel, where it was linked to
//!      3 GiB  device registers: one 32 KiB window a device        (the hole)
//! 0xe0000000  PCI configuration space of bus 0, 1 MiB
//! 0xfec00000  I/O APIC     0xfee00000 local APIC
//!      4 GiB  the rest of memory
//! ```

use spec::units::Mib;

/// Memory below the hole ends here at the latest.
pub(crate) const HOLE_START: u64 = 3 << 30;
/// Memory above the hole starts here.
pub(crate) const HOLE_END: u64 = 4 << 30;

/// Device registers start here.
pub(crate) const BAR_START: u64 = HOLE_START;
/// Device registers end here.
pub(crate) const BAR_END: u64 = ECAM_START;

/// PCI configuration space (PCI Express 6.0 §7.2.2): 4 KiB for each function of bus 0.
pub(crate) const ECAM_START: u64 = 0xe000_0000;
/// One bus of 32 devices with 8 functions.
pub(crate) const ECAM_SIZE: u64 = 1 << 20;

/// The I/O APIC's registers, where every PC has them.
pub(crate) const IOAPIC_START: u64 = 0xfec0_0000;
/// The registers fit in one page.
pub(crate) const IOAPIC_SIZE: u64 = 0x1000;
/// The local APICs' registers, where every PC has them.
pub(crate) const LOCAL_APIC_START: u32 = 0xfee0_0000;

/// The descriptor table the first vCPU starts with.
pub(crate) const GDT: u64 = 0x500;
/// The first kernel structure (`struct boot_params`).
pub(crate) const BOOT_PARAMS: u64 = 0x7000;
/// The stack the kernel may use before it has its own; grows down from here.
pub(crate) const BOOT_STACK: u64 = 0x8ff0;
/// Three pages that map the first GiB to itself.
pub(crate) const PAGE_TABLES: u64 = 0x9000;
/// The kernel command line.
pub(crate) const CMDLINE: u64 = 0x2_0000;
/// The random seed for the kernel (`SETUP_RNG_SEED`).
pub(crate) const SETUP_DATA: u64 = 0x2_2000;
/// The end of memory that the kernel may use below 1 MiB.
pub(crate) const LOW_END: u64 = 0x9_fc00;
/// The ACPI tables, with the root pointer first.
pub(crate) const ACPI_START: u64 = 0xe_0000;
/// The end of the ACPI tables.
pub(crate) const ACPI_END: u64 = 0x10_0000;
/// A kernel must be linked to this or above.
pub(crate) const KERNEL_FLOOR: u64 = 0x10_0000;

/// A stretch of guest memory and where it is in the backing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ram {
    /// Guest physical address.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// Offset in the backing file; congruent to `start` modulo 2 MiB, so that huge pages fit both.
    pub(crate) file_offset: u64,
}

impl Ram {
    /// Returns the guest physical address behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// Returns where memory of `size` lies, lowest first.
pub(crate) fn ram_regions(size: Mib) -> Vec<Ram> {
    let bytes = size.bytes();
    let low = bytes.min(HOLE_START);
    let mut regions = vec![Ram {
        start: 0,
        size: low,
        file_offset: 0,
    }];
    if bytes > low {
        regions.push(Ram {
            start: HOLE_END,
            size: bytes - low,
            file_offset: low,
        });
    }
    regions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_up_to_the_hole_is_one_piece() {
        let regions = ram_regions(Mib(3072));
        assert_eq!(
            regions,
            [Ram {
                start: 0,
                size: 3 << 30,
                file_offset: 0
            }]
        );
    }

    #[test]
    fn the_rest_lies_above_the_hole() {
        let regions = ram_regions(Mib(3073));
        assert_eq!(
            regions[1],
            Ram {
                start: 4 << 30,
                size: 1 << 20,
                file_offset: 3 << 30
            }
        );
    }

    proptest! {
        #[test]
        fn all_memory_is_somewhere_once_and_never_in_the_hole(size in 64_u32..=1 << 20) {
            let regions = ram_regions(Mib(size));
            prop_assert_eq!(regions.iter().map(|ram| ram.size).sum::<u64>(), Mib(size).bytes());
            let mut file_end = 0;
            for ram in regions {
                prop_assert_eq!(ram.file_offset, file_end);
                prop_assert_eq!(ram.file_offset % (2 << 20), ram.start % (2 << 20));
                prop_assert!(ram.end() <= HOLE_START || ram.start >= HOLE_END);
                file_end += ram.size;
            }
        }
    }
}
