//! What a processor knows, read from KVM on the host while it stands still and given to its successor in another
//! process.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: KVM reads the extended registers from a structure of ours"
)]

use kvm_bindings::{
    Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};
use serde::{Deserialize, Serialize};

use super::{CpuError, calling};

/// The time stamp counter and the moment at which it interrupts (Intel SDM volume 4).
const TSC: u32 = 0x10;
const TSC_DEADLINE: u32 = 0x6e0;

/// Everything a processor knows.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    description: Vec<kvm_cpuid_entry2>,
    tsc_khz: u32,
    waiting: kvm_mp_state,
    registers: kvm_regs,
    special: kvm_sregs,
    extended: kvm_xsave,
    extended_control: kvm_xcrs,
    debug: kvm_debugregs,
    local_apic: kvm_lapic_state,
    model_specific: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

impl State {
    /// Reads what processor `number` knows, which must stand still. What may change other parts when it is read comes
    /// first.
    ///
    /// # Errors
    /// KVM refused a step.
    pub(crate) fn read(kvm: &Kvm, number: u16, vcpu: &VcpuFd) -> Result<Self, CpuError> {
        let call = calling(number);
        let waiting = vcpu
            .get_mp_state()
            .map_err(call("read the waiting state"))?;
        let description = vcpu
            .get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(call("read the description"))?;
        Ok(Self {
            waiting,
            description: description.as_slice().to_vec(),
            tsc_khz: vcpu.get_tsc_khz().map_err(call("read the frequency"))?,
            registers: vcpu.get_regs().map_err(call("read the registers"))?,
            special: vcpu
                .get_sregs()
                .map_err(call("read the special registers"))?,
            extended: vcpu
                .get_xsave()
                .map_err(call("read the extended registers"))?,
            extended_control: vcpu
                .get_xcrs()
                .map_err(call("read the extended control registers"))?,
            debug: vcpu
                .get_debug_regs()
                .map_err(call("read the debug registers"))?,
            local_apic: vcpu
                .get_lapic()
                .map_err(call("read the interrupt controller"))?,
            model_specific: read_model_specific(kvm, number, vcpu)?,
            events: vcpu
                .get_vcpu_events()
                .map_err(call("read the pending events"))?,
        })
    }

    /// Makes processor `number` know this. The order is KVM's: what a part is checked against comes before it.
    ///
    /// # Errors
    /// The processor is of another kind, or KVM refused a step.
    pub(crate) fn write(&self, number: u16, vcpu: &VcpuFd) -> Result<(), CpuError> {
        let call = calling(number);
        let own = vcpu
            .get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(call("read the description"))?;
        let tsc_khz = vcpu.get_tsc_khz().map_err(call("read the frequency"))?;
        if own.as_slice() != self.description || tsc_khz != self.tsc_khz {
            return Err(CpuError::OtherProcessor);
        }
        vcpu.set_mp_state(self.waiting)
            .map_err(call("set the waiting state"))?;
        vcpu.set_regs(&self.registers)
            .map_err(call("set the registers"))?;
        vcpu.set_sregs(&self.special)
            .map_err(call("set the special registers"))?;
        // SAFETY: the structure has room for every register a guest has without features that a process must first
        // ask the kernel for (AMX), and this one asks for none.
        let extended = unsafe { vcpu.set_xsave(&self.extended) };
        extended.map_err(call("set the extended registers"))?;
        // A processor without extended states has no such registers, and KVM then refuses to set none.
        if self.extended_control.nr_xcrs > 0 {
            vcpu.set_xcrs(&self.extended_control)
                .map_err(call("set the extended control registers"))?;
        }
        vcpu.set_debug_regs(&self.debug)
            .map_err(call("set the debug registers"))?;
        vcpu.set_lapic(&self.local_apic)
            .map_err(call("set the interrupt controller"))?;
        write_model_specific(number, vcpu, &self.model_specific)?;
        vcpu.set_vcpu_events(&self.events)
            .map_err(call("set the pending events"))
    }
}

/// Reads every model-specific register that KVM lists; it lists some that this host's processor does not have.
fn read_model_specific(
    kvm: &Kvm,
    number: u16,
    vcpu: &VcpuFd,
) -> Result<Vec<kvm_msr_entry>, CpuError> {
    let call = calling(number);
    let listed = kvm
        .get_msr_index_list()
        .map_err(call("list the model-specific registers"))?;
    let wanted = listed.as_slice().iter().map(|index| kvm_msr_entry {
        index: *index,
        ..kvm_msr_entry::default()
    });
    let mut wanted: Vec<_> = wanted.collect();
    let mut read = Vec::with_capacity(wanted.len());
    while !wanted.is_empty() {
        let mut batch = Msrs::from_entries(&wanted).expect("KVM listed no more than it takes");
        let count = vcpu
            .get_msrs(&mut batch)
            .map_err(call("read the model-specific registers"))?;
        read.extend_from_slice(&batch.as_slice()[..count]);
        // KVM stops in front of one that it cannot read.
        wanted.drain(..wanted.len().min(count + 1));
    }
    order(&mut read);
    Ok(read)
}

/// The timer's deadline comes last: it is compared with the counter when it is set.
///
/// A deadline that passed while the processor stood still reads as none, and its interrupt may be lost; so one that
/// is none becomes now, which interrupts a guest once more than it asked for.
fn order(registers: &mut Vec<kvm_msr_entry>) {
    let value = |registers: &[kvm_msr_entry], index| {
        let found = registers.iter().find(|entry| entry.index == index);
        found.map_or(0, |entry| entry.data)
    };
    let now = value(registers, TSC);
    let deadline = registers
        .iter()
        .position(|entry| entry.index == TSC_DEADLINE);
    if let Some(position) = deadline {
        let mut deadline = registers.remove(position);
        if deadline.data == 0 {
            deadline.data = now;
        }
        registers.push(deadline);
    }
}

/// Writes the registers; one that cannot be written matters only if it is not zero.
fn write_model_specific(
    number: u16,
    vcpu: &VcpuFd,
    registers: &[kvm_msr_entry],
) -> Result<(), CpuError> {
    let call = calling(number);
    let mut left = registers;
    while !left.is_empty() {
        let batch = Msrs::from_entries(left).map_err(|_| CpuError::OtherProcessor)?;
        let count = vcpu
            .set_msrs(&batch)
            .map_err(call("set the model-specific registers"))?;
        left = left.get(count..).unwrap_or_default();
        match left {
            [] => {}
            [refused, rest @ ..] if refused.data == 0 => left = rest,
            [refused, ..] => return Err(CpuError::Register(refused.index)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(index: u32, data: u64) -> kvm_msr_entry {
        kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        }
    }

    fn ordered(registers: &[kvm_msr_entry]) -> Vec<(u32, u64)> {
        let mut registers = registers.to_vec();
        order(&mut registers);
        registers
            .iter()
            .map(|entry| (entry.index, entry.data))
            .collect()
    }

    #[test]
    fn the_deadline_comes_last() {
        let registers = [register(TSC_DEADLINE, 9), register(TSC, 5), register(1, 2)];
        assert_eq!(ordered(&registers), [(TSC, 5), (1, 2), (TSC_DEADLINE, 9)]);
    }

    #[test]
    fn a_deadline_that_may_have_passed_is_now() {
        let registers = [register(TSC, 5), register(TSC_DEADLINE, 0)];
        assert_eq!(ordered(&registers), [(TSC, 5), (TSC_DEADLINE, 5)]);
    }
}
