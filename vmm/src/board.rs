//! Where an exit goes, on the host: from an address or port to the device behind it, and a count of each kind.

use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spec::control::Exits;

use crate::console::output::has_room;
use crate::ioapic::IoApic;
use crate::memory::layout::{IOAPIC_SIZE, IOAPIC_START};
use crate::pci::bus::{Bus, config_offset, lock};
use crate::power::{Power, PowerChange};

/// Ports of the first serial line, which exists only as far as a kernel's `earlyprintk=serial` needs it: bytes
/// go out, and there is always room for more.
const SERIAL_DATA: u16 = 0x3f8;
const SERIAL_STATUS: u16 = 0x3fd;
/// Transmitter and its holding register are empty.
const SERIAL_EMPTY: u8 = 0x60;

/// Nothing answers there.
const NOBODY: u8 = 0xff;

/// Everything a vCPU can reach by leaving the guest.
pub(crate) struct Board {
    /// The PCI bus.
    pub(crate) bus: Mutex<Bus>,
    /// The I/O APIC.
    pub(crate) ioapic: Mutex<IoApic>,
    /// Power.
    pub(crate) power: Power,
    /// Where early output goes; only with `earlyprintk=serial`.
    pub(crate) early_output: Option<Arc<File>>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    port: AtomicU64,
    pci_config: AtomicU64,
    mmio: AtomicU64,
    other: AtomicU64,
}

impl Board {
    /// Joins the parts.
    pub(crate) fn new(
        bus: Bus,
        ioapic: IoApic,
        power: Power,
        early_output: Option<Arc<File>>,
    ) -> Self {
        let (bus, ioapic) = (Mutex::new(bus), Mutex::new(ioapic));
        Self {
            bus,
            ioapic,
            power,
            early_output,
            counts: Counts::default(),
        }
    }

    /// Answers a read of I/O port `port`.
    pub(crate) fn read_port(&self, port: u16, data: &mut [u8]) {
        count(&self.counts.port);
        data.fill(NOBODY);
        let value = match port {
            SERIAL_STATUS if self.early_output.is_some() => Some(SERIAL_EMPTY),
            _ => self.power.read(port),
        };
        if let (Some(value), [first, rest @ ..]) = (value, data) {
            *first = value;
            rest.fill(0);
        }
    }

    /// Takes a write to I/O port `port`.
    pub(crate) fn write_port(&self, port: u16, data: &[u8]) -> PowerChange {
        count(&self.counts.port);
        match (port, &self.early_output, data) {
            (SERIAL_DATA, Some(output), text) => {
                // A processor does not wait for a reader; what was meant for it is only a help in need.
                if has_room(output, None, Duration::ZERO).is_ok_and(|room| room) {
                    let _nobody_to_tell = output.as_ref().write_all(text);
                }
                PowerChange::Nothing
            }
            (_, _, [value, ..]) => self.power.write(port, *value),
            _ => PowerChange::Nothing,
        }
    }

    /// Answers a read of device memory.
    pub(crate) fn read_memory(&self, address: u64, data: &mut [u8]) {
        count(&self.counts.mmio);
        if let Some(offset) = ioapic_offset(address) {
            return lock(&self.ioapic).read(offset, data);
        }
        let found = lock(&self.bus).find(address);
        match found {
            Some((function, offset)) => lock(&function).read_bar(offset, data),
            None => data.fill(NOBODY),
        }
    }

    /// Takes a write to device memory.
    pub(crate) fn write_memory(&self, address: u64, data: &[u8]) {
        if let Some(offset) = config_offset(address) {
            count(&self.counts.pci_config);
            return lock(&self.bus).write_config(offset, data);
        }
        count(&self.counts.mmio);
        if let Some(offset) = ioapic_offset(address) {
            return lock(&self.ioapic).write(offset, data);
        }
        let found = lock(&self.bus).find(address);
        if let Some((function, offset)) = found {
            lock(&function).write_bar(offset, data);
        }
    }

    /// Counts an exit that reaches no device.
    pub(crate) fn count_other(&self) {
        count(&self.counts.other);
    }

    /// Returns the counts.
    pub(crate) fn exits(&self) -> Exits {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Exits {
            port: get(&self.counts.port),
            pci_config: get(&self.counts.pci_config),
            mmio: get(&self.counts.mmio),
            other: get(&self.counts.other),
        }
    }
}

fn ioapic_offset(address: u64) -> Option<u64> {
    address
        .checked_sub(IOAPIC_START)
        .filter(|offset| *offset < IOAPIC_SIZE)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
