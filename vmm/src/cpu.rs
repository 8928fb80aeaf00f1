//! Virtual processors on the host: what they are, how the first one starts, and the thread that runs each.

pub(crate) mod cpuid;
pub(crate) mod entry;
pub(crate) mod run;
pub(crate) mod state;

use std::io;

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use thiserror::Error;

use crate::memory::GuestMemory;

/// Model-specific registers that firmware would have set (Intel SDM volume 4).
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);
/// Memory types are enabled and memory is write-back by default.
const MTRR_DEFAULT: (u32, u64) = (0x2ff, (1 << 11) | 6);

/// Why the processors cannot be made.
#[derive(Debug, Error)]
pub(crate) enum CpuError {
    #[error("cannot {act} of vCPU {vcpu}")]
    Call {
        act: &'static str,
        vcpu: u16,
        #[source]
        source: io::Error,
    },
    #[error("cannot ask KVM which processors it can be")]
    Supported(#[source] io::Error),
    #[error("cannot write the first vCPU's page tables")]
    Tables(#[source] vm_memory::GuestMemoryError),
    #[error("the snapshot was taken on another kind of processor, or by another KVM")]
    OtherProcessor,
    #[error("this processor refuses what the snapshot has for its register {0:#x}")]
    Register(u32),
}

/// Makes `count` processors. The first enters the kernel at `entry`; the others wait until it calls them.
///
/// # Errors
/// KVM refused a step.
pub(crate) fn create(kvm: &Kvm, vm: &VmFd, count: u16) -> Result<Vec<VcpuFd>, CpuError> {
    let supported = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(|error| CpuError::Supported(error.into()))?;
    (0..count)
        .map(|vcpu| {
            let call = calling(vcpu);
            let fd = vm
                .create_vcpu(vcpu.into())
                .map_err(call("make the thread state"))?;
            let cpuid = cpuid::describe(&supported, vcpu, count);
            fd.set_cpuid2(&cpuid).map_err(call("set the description"))?;
            Ok(fd)
        })
        .collect()
}

/// Sets the processors up to start a kernel at `entry`.
///
/// # Errors
/// KVM refused a step.
pub(crate) fn prepare(vcpus: &[VcpuFd], memory: &GuestMemory, entry: u64) -> Result<(), CpuError> {
    entry::write_tables(memory).map_err(CpuError::Tables)?;
    for (number, vcpu) in (0..).zip(vcpus) {
        let call = calling(number);
        let registers = [MISC_ENABLE, MTRR_DEFAULT].map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        });
        let registers = Msrs::from_entries(&registers).expect("two entries fit");
        vcpu.set_msrs(&registers)
            .map_err(call("set the model-specific registers"))?;
        vcpu.set_fpu(&entry::floating_point())
            .map_err(call("set the floating point state"))?;
        if number == 0 {
            let special = vcpu
                .get_sregs()
                .map_err(call("read the special registers"))?;
            vcpu.set_sregs(&entry::special_registers(special))
                .map_err(call("set the special registers"))?;
            vcpu.set_regs(&entry::registers(entry))
                .map_err(call("set the registers"))?;
        }
    }
    Ok(())
}

/// Makes the processors go on as others did.
///
/// # Errors
/// They are of another kind, or KVM refused a step.
pub(crate) fn restore(vcpus: &[VcpuFd], states: &[state::State]) -> Result<(), CpuError> {
    for (number, (vcpu, state)) in (0..).zip(vcpus.iter().zip(states)) {
        state.write(number, vcpu)?;
    }
    Ok(())
}

fn calling(vcpu: u16) -> impl Fn(&'static str) -> CallError {
    move |act| {
        Box::new(move |error| CpuError::Call {
            act,
            vcpu,
            source: error.into(),
        })
    }
}

type CallError = Box<dyn FnOnce(kvm_ioctls::Error) -> CpuError>;
