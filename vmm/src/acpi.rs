//! The ACPI tables that tell the guest what machine it is in: written once by the host into guest memory.
//!
//! The machine is hardware-reduced (ACPI 6.5 §4.1): no legacy timer, interrupt controller or fixed event.
//! The guest finds one PCI root whose configuration space is mapped memory, a generic event device with the only
//! wired interrupt, and the power button that it reports.

mod dsdt;

use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, sdt::Sdt};
use vm_memory::{Bytes, GuestAddress};

use crate::ioapic::IOAPIC_ID;
use crate::memory::GuestMemory;
use crate::memory::layout::{ACPI_END, ACPI_START, ECAM_START, IOAPIC_START, LOCAL_APIC_START};
use crate::power::{RESET_PORT, RESET_VALUE, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT};

const OEM: [u8; 6] = *b"TSTUDO";
const OEM_TABLE: [u8; 8] = *b"TERMINA ";
const OEM_REVISION: u32 = 1;

/// FADT boot architecture flags (ACPI 6.5 §5.2.9.3): no VGA, no CMOS clock; by their absence no 8042 and no
/// legacy devices.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// Tables start on addresses that are multiples of this.
const ALIGNMENT: usize = 16;

/// Writes the tables; the root pointer is at [`ACPI_START`].
///
/// # Errors
/// Guest memory does not reach that far.
pub(crate) fn write(memory: &GuestMemory, vcpus: u16) -> Result<(), vm_memory::GuestMemoryError> {
    memory.write_slice(&tables(vcpus), GuestAddress(ACPI_START))
}

/// Returns all tables as they lie in memory.
fn tables(vcpus: u16) -> Vec<u8> {
    let mut image = vec![0; Rsdp::len().next_multiple_of(ALIGNMENT)];
    let mut place = |table: &dyn Aml| {
        let at = image.len();
        table.to_aml_bytes(&mut image);
        image.resize(image.len().next_multiple_of(ALIGNMENT), 0);
        ACPI_START + at as u64
    };
    let dsdt = place(&dsdt_table());
    let entries = [place(&fadt(dsdt)), place(&madt(vcpus)), place(&mcfg())];
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    entries.into_iter().for_each(|entry| xsdt.add_entry(entry));
    let xsdt = place(&xsdt);
    let mut root = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut root);
    image[..root.len()].copy_from_slice(&root);
    assert!(
        ACPI_START + image.len() as u64 <= ACPI_END,
        "tables for the most vCPUs fit"
    );
    image
}

fn dsdt_table() -> Sdt {
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&dsdt::namespace());
    table
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let port = |port: u16| {
        GAS::new(
            AddressSpace::SystemIo,
            8,
            0,
            AccessSize::ByteAccess,
            u64::from(port),
        )
    };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::Desktop)
        .flag(Flags::Wbinvd)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = port(RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(SLEEP_STATUS_PORT);
    fadt.finalize()
}

fn madt(vcpus: u16) -> MADT {
    let local = LocalInterruptController::Address(LOCAL_APIC_START);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
    for vcpu in 0..vcpus {
        let id = u8::try_from(vcpu).expect("at most 64 vCPUs");
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    let start = u32::try_from(IOAPIC_START).expect("below 4 GiB");
    madt.add_structure(IoApic::new(IOAPIC_ID, start, 0));
    madt
}

fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(ECAM_START, 0, 0, 0);
    mcfg
}

#[cfg(test)]
mod tests;
