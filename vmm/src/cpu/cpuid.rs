//! How a virtual processor describes itself to the guest (the CPUID instruction), on the host side.
//!
//! It is what the host's processor and KVM can do, less what a guest of this machine has no use for, with the
//! topology of one socket of single-threaded cores.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// Leaf 1, ECX.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
const VMX: u32 = 1 << 5;
/// Leaf 0x8000_0001, ECX.
const SVM: u32 = 1 << 2;

/// Kinds of level in leaves 0xB and 0x1F.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// Returns the description of processor `vcpu` of `count`.
pub(crate) fn describe(supported: &CpuId, vcpu: u16, count: u16) -> CpuId {
    let mut entries: Vec<_> = supported.as_slice().to_vec();
    for entry in &mut entries {
        adjust(entry, vcpu.into(), count.into());
    }
    CpuId::from_entries(&entries).expect("there are as many entries as KVM gave")
}

fn adjust(entry: &mut kvm_cpuid_entry2, vcpu: u32, count: u32) {
    match entry.function {
        0x1 => {
            entry.ebx = (entry.ebx & 0x0000_ffff) | (vcpu << 24) | (count << 16);
            entry.ecx = (entry.ecx | TSC_DEADLINE | HYPERVISOR) & !VMX;
        }
        // Caches: KVM reports the host's sharing; here every core has its own up to the last level.
        0x4 => {
            let shared = if (entry.eax >> 5) & 7 >= 3 {
                count - 1
            } else {
                0
            };
            entry.eax = (entry.eax & 0x0000_3fff) | (shared << 14) | ((count - 1) << 26);
        }
        // Performance counters cost exits and leak what other machines do.
        0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        0xb | 0x1f => {
            entry.edx = vcpu;
            (entry.eax, entry.ebx, entry.ecx) = match entry.index {
                0 => (0, 1, LEVEL_THREAD << 8),
                1 => (apic_bits(count), count, (LEVEL_CORE << 8) | 1),
                index => (0, 0, index),
            };
        }
        0x8000_0001 => entry.ecx &= !SVM,
        0x8000_0008 => entry.ecx = (entry.ecx & !0xf0ff) | (apic_bits(count) << 12) | (count - 1),
        0x8000_001e => {
            entry.eax = vcpu;
            entry.ebx = (entry.ebx & !0xffff) | vcpu;
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Returns how many low bits of an APIC identifier number the cores of the socket.
fn apic_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported(functions: &[(u32, u32)]) -> CpuId {
        let entries: Vec<_> = functions
            .iter()
            .map(|(function, index)| kvm_cpuid_entry2 {
                function: *function,
                index: *index,
                ebx: 0x00ff_1234,
                ecx: VMX | SVM,
                ..Default::default()
            })
            .collect();
        CpuId::from_entries(&entries).unwrap()
    }

    #[test]
    fn a_processor_knows_its_number_and_its_timer() {
        let described = describe(&supported(&[(1, 0)]), 2, 4);
        let leaf = described.as_slice()[0];
        assert_eq!(leaf.ebx, 0x0204_1234);
        assert_eq!(
            leaf.ecx & (TSC_DEADLINE | HYPERVISOR | VMX),
            TSC_DEADLINE | HYPERVISOR
        );
    }

    #[test]
    fn the_topology_is_one_socket_of_cores() {
        let described = describe(&supported(&[(0xb, 0), (0xb, 1), (0xb, 2)]), 2, 3);
        let levels: Vec<_> = described
            .as_slice()
            .iter()
            .map(|leaf| (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx))
            .collect();
        assert_eq!(levels, [(0, 1, 0x100, 2), (2, 3, 0x201, 2), (0, 0, 2, 2)]);
    }

    #[test]
    fn guests_cannot_nest() {
        let described = describe(&supported(&[(0x8000_0001, 0)]), 0, 1);
        assert_eq!(described.as_slice()[0].ecx & SVM, 0);
    }
}
