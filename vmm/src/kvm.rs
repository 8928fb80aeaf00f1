//! Opens KVM on the host and checks, before anything is built, that it can do what this machine needs.

use std::io;

use kvm_ioctls::{Cap, Kvm, VmFd};
use thiserror::Error;

/// The only version of the KVM interface there ever was.
const API_VERSION: i32 = 12;

/// What the machine is built on, with the reason it cannot do without.
const NEEDED: [(Cap, &str); 13] = [
    (
        Cap::UserMemory,
        "KVM_CAP_USER_MEMORY: guest memory comes from this process",
    ),
    (
        Cap::ReadonlyMem,
        "KVM_CAP_READONLY_MEM: the guest reads PCI configuration without an exit",
    ),
    (
        Cap::ExtCpuid,
        "KVM_CAP_EXT_CPUID: the guest's processor is described by this process",
    ),
    (
        Cap::SplitIrqchip,
        "KVM_CAP_SPLIT_IRQCHIP: no legacy interrupt controller exists",
    ),
    (
        Cap::IrqRouting,
        "KVM_CAP_IRQ_ROUTING: interrupts are messages",
    ),
    (
        Cap::Irqfd,
        "KVM_CAP_IRQFD: device daemons interrupt the guest directly",
    ),
    (
        Cap::Ioeventfd,
        "KVM_CAP_IOEVENTFD: the guest notifies device daemons directly",
    ),
    (
        Cap::IoeventfdNoLength,
        "KVM_CAP_IOEVENTFD_NO_LENGTH: notifications of any width are alike",
    ),
    (
        Cap::TscDeadlineTimer,
        "KVM_CAP_TSC_DEADLINE_TIMER: no other timer exists",
    ),
    (
        Cap::ImmediateExit,
        "KVM_CAP_IMMEDIATE_EXIT: vCPUs can be stopped without a race",
    ),
    (
        Cap::MpState,
        "KVM_CAP_MP_STATE: vCPUs can wait for the first one",
    ),
    (
        Cap::SetTssAddr,
        "KVM_CAP_SET_TSS_ADDR: older Intel processors start vCPUs with it",
    ),
    (
        Cap::AdjustClock,
        "KVM_CAP_ADJUST_CLOCK: the guest's clock goes on after a restore",
    ),
];

/// Where KVM on Intel keeps three pages for itself: below the end of 4 GiB, outside memory and devices.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// One more page of that kind, just before.
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

/// Why KVM cannot carry the machine.
#[derive(Debug, Error)]
pub(crate) enum KvmError {
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    #[error("/dev/kvm speaks version {0} of its interface instead of {API_VERSION}")]
    Version(i32),
    #[error("this KVM lacks {0}")]
    Lacks(&'static str),
    #[error("the machine has {wanted} vCPUs, this KVM carries at most {most}")]
    TooManyVcpus { wanted: u16, most: usize },
    #[error("cannot {act} in KVM")]
    Call {
        act: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Opens `/dev/kvm` and checks that a machine with `vcpus` vCPUs can run on it.
///
/// # Errors
/// It cannot be opened, or the first thing it lacks.
pub(crate) fn open(vcpus: u16) -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| KvmError::Open(error.into()))?;
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return Err(KvmError::Version(version));
    }
    if let Some(lack) = first_lack(|capability| kvm.check_extension(capability)) {
        return Err(KvmError::Lacks(lack));
    }
    let most = kvm.get_max_vcpus();
    if usize::from(vcpus) > most {
        return Err(KvmError::TooManyVcpus {
            wanted: vcpus,
            most,
        });
    }
    Ok(kvm)
}

/// Creates the machine in KVM; must be called in the process that runs it.
///
/// # Errors
/// KVM refused a step.
pub(crate) fn create_machine(kvm: &Kvm) -> Result<VmFd, KvmError> {
    let call = |act| {
        move |error: kvm_ioctls::Error| KvmError::Call {
            act,
            source: error.into(),
        }
    };
    let vm = kvm.create_vm().map_err(call("create a machine"))?;
    vm.set_identity_map_address(IDENTITY_MAP_ADDRESS)
        .map_err(call("place the identity map"))?;
    vm.set_tss_address(TSS_ADDRESS)
        .map_err(call("place the task state"))?;
    // No pin of a local or I/O APIC is reserved: this process's I/O APIC is edge triggered only, so KVM
    // never has to report the end of an interrupt.
    let split = kvm_bindings::kvm_enable_cap {
        cap: kvm_bindings::KVM_CAP_SPLIT_IRQCHIP,
        ..Default::default()
    };
    vm.enable_cap(&split)
        .map_err(call("create the local interrupt controllers"))?;
    Ok(vm)
}

/// Returns the nanoseconds on the guest's clock.
///
/// # Errors
/// KVM refused.
pub(crate) fn clock(vm: &VmFd) -> Result<u64, KvmError> {
    let clock = vm.get_clock().map_err(|error| KvmError::Call {
        act: "read the clock",
        source: error.into(),
    })?;
    Ok(clock.clock)
}

/// Lets the guest's clock go on from `nanoseconds`. It does not jump over the time in which there was no machine: the
/// guest's timers and watchdogs go by it, and its wall clock is set by whoever knows the time.
///
/// # Errors
/// KVM refused.
pub(crate) fn set_clock(vm: &VmFd, nanoseconds: u64) -> Result<(), KvmError> {
    let clock = kvm_bindings::kvm_clock_data {
        clock: nanoseconds,
        ..Default::default()
    };
    vm.set_clock(&clock).map_err(|error| KvmError::Call {
        act: "set the clock",
        source: error.into(),
    })
}

fn first_lack(has: impl Fn(Cap) -> bool) -> Option<&'static str> {
    NEEDED
        .into_iter()
        .find(|(capability, _)| !has(*capability))
        .map(|(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use kvm_ioctls::Cap;

    use super::first_lack;

    #[test]
    fn the_missing_capability_is_named() {
        let lack = first_lack(|capability| !matches!(capability, Cap::SplitIrqchip));
        assert!(lack.unwrap().starts_with("KVM_CAP_SPLIT_IRQCHIP"));
    }

    #[test]
    fn a_whole_kvm_lacks_nothing() {
        assert_eq!(first_lack(|_| true), None);
    }
}
