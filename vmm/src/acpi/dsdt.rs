//! The devices of the machine in ACPI's own language (AML, ACPI 6.5 §19), as the guest finds them.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Device, EISAName, Field, FieldAccessType, FieldEntry,
    FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method, Name, Notify,
    ONE, OpRegion, OpRegionSpace, Package, Path, ResourceTemplate, Scope, Store, ZERO,
};

use crate::ioapic::ACPI_EVENT_PIN;
use crate::memory::layout::{BAR_END, BAR_START, ECAM_SIZE, ECAM_START};
use crate::pci::bus::SLOTS;
use crate::power::{
    EVENT_BUS_CHANGED, EVENT_PORT, EVENT_POWER_BUTTON, PANIC_PORT, PORTS, SLEEP_TYPE_OFF,
};

/// The notification that a power button was pressed (ACPI 6.5 §5.6.6).
const BUTTON_PRESSED: u8 = 0x80;
/// The notification to look at a bus again.
const BUS_CHECK: u8 = 0x00;

/// Returns everything in the root namespace.
pub(super) fn namespace() -> Vec<u8> {
    let mut bytes = Vec::new();
    pci_root(&mut bytes);
    board(&mut bytes);
    power_button(&mut bytes);
    events(&mut bytes);
    panic_port(&mut bytes);
    Name::new(
        "_S5_".into(),
        &Package::new(vec![&SLEEP_TYPE_OFF, &ZERO, &ZERO, &ZERO]),
    )
    .to_aml_bytes(&mut bytes);
    bytes
}

/// The PCI root: one bus, registers below 4 GiB, no ports, no wired interrupts.
fn pci_root(bytes: &mut Vec<u8>) {
    let (first, last) = (low(BAR_START), low(BAR_END) - 1);
    let registers =
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None);
    let buses = AddressSpace::new_bus_number(0_u16, 0_u16);
    let resources = ResourceTemplate::new(vec![&buses, &registers]);
    let names = [
        Name::new("_HID".into(), &EISAName::new("PNP0A08")),
        Name::new("_CID".into(), &EISAName::new("PNP0A03")),
        Name::new("_UID".into(), &ZERO),
        Name::new("_SEG".into(), &ZERO),
        Name::new("_CCA".into(), &ONE),
        Name::new("_CRS".into(), &resources),
    ];
    let slots: Vec<_> = (1..SLOTS).map(slot_names).collect();
    let slots: Vec<_> = (1..SLOTS)
        .zip(&slots)
        .map(|(number, names)| slot(number, names))
        .collect();
    let mut children: Vec<&dyn Aml> = names.iter().map(|name| name as &dyn Aml).collect();
    children.extend(slots.iter().map(|slot| slot as &dyn Aml));
    in_system_bus("PCI0", children, bytes);
}

/// A guest told to check the bus looks only into slots that ACPI names.
fn slot(number: usize, names: &[Name; 2]) -> Device<'_> {
    Device::new(
        format!("S{number:02X}_").as_str().into(),
        vec![&names[0], &names[1]],
    )
}

/// Returns a slot's address, the device number in its upper half, and the number that people see.
fn slot_names(number: usize) -> [Name; 2] {
    let number = u32::try_from(number).expect("32 slots");
    [
        Name::new("_ADR".into(), &(number << 16)),
        Name::new("_SUN".into(), &number),
    ]
}

/// What nobody else may use: configuration space, without which the guest would not trust it, and our ports.
fn board(bytes: &mut Vec<u8>) {
    let ports = IO::new(PORTS.0, PORTS.0, 1, PORTS.1);
    let space = Memory32Fixed::new(true, low(ECAM_START), low(ECAM_SIZE));
    in_system_bus(
        "MBRD",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&space, &ports])),
        ],
        bytes,
    );
}

fn power_button(bytes: &mut Vec<u8>) {
    in_system_bus(
        "PWRB",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C0C")),
            &Name::new("_UID".into(), &ZERO),
        ],
        bytes,
    );
}

/// The generic event device (ACPI 6.5 §5.6.9): its interrupt runs `_EVT`, which asks our register what happened.
fn events(bytes: &mut Vec<u8>) {
    let interrupt = Interrupt::new(true, true, false, false, u32::from(ACPI_EVENT_PIN));
    let region = OpRegion::new("EVTR".into(), OpRegionSpace::SystemIO, &EVENT_PORT, &ONE);
    let field = Field::new(
        "EVTR".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        vec![FieldEntry::Named(*b"EVTS", 8)],
    );
    // Reading clears, so the register is read once and looked at twice.
    let (register, happened) = (Path::new("EVTS"), Local(0));
    let read = Store::new(&happened, &register);
    let (button, bus) = (Path::new("\\_SB_.PWRB"), Path::new("\\_SB_.PCI0"));
    let pressed = Notify::new(&button, &BUTTON_PRESSED);
    let changed = Notify::new(&bus, &BUS_CHECK);
    let is_pressed = And::new(&ZERO, &happened, &EVENT_POWER_BUTTON);
    let is_changed = And::new(&ZERO, &happened, &EVENT_BUS_CHANGED);
    let if_pressed = If::new(&is_pressed, vec![&pressed]);
    let if_changed = If::new(&is_changed, vec![&changed]);
    let method = Method::new(
        "_EVT".into(),
        1,
        true,
        vec![&read, &if_pressed, &if_changed],
    );
    in_system_bus(
        "GED_",
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&interrupt])),
            &region,
            &field,
            &method,
        ],
        bytes,
    );
}

/// The port to which a panicking kernel writes, as QEMU describes it.
fn panic_port(bytes: &mut Vec<u8>) {
    let ports = IO::new(PANIC_PORT, PANIC_PORT, 1, 1);
    in_system_bus(
        "PEVT",
        vec![
            &Name::new("_HID".into(), &"QEMU0001"),
            &Name::new("_STA".into(), &0x0f_u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports])),
        ],
        bytes,
    );
}

fn in_system_bus(name: &str, children: Vec<&dyn Aml>, bytes: &mut Vec<u8>) {
    let device = Device::new(name.into(), children);
    Scope::new("\\_SB_".into(), vec![&device]).to_aml_bytes(bytes);
}

fn low(address: u64) -> u32 {
    u32::try_from(address).expect("the hole is below 4 GiB")
}
