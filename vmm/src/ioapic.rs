//! The smallest I/O APIC on the host side: it exists so that ACPI has an interrupt for the power button.
//!
//! All its pins are edge triggered, so it never has to hear that the guest has handled one, and each is a
//! [`Line`]. Registers as in the 82093AA data sheet §3.

use std::io;

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

use crate::interrupt::{Line, Lines, Message};

/// The guest reads two registers and masks each pin when it starts, so there are no more than needed.
pub(crate) const PINS: usize = 2;
/// The pin of the ACPI event device, and its global system interrupt number.
pub(crate) const ACPI_EVENT_PIN: u8 = 1;

/// The identity in the MADT and in the register.
pub(crate) const IOAPIC_ID: u8 = 0;
const VERSION: u32 = 0x20;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

/// Delivery status and remote IRR are the controller's own bits.
const WRITABLE: u64 = 0xff00_0000_0001_afff;
const MASKED: u64 = 1 << 16;

/// The registers and pins.
pub(crate) struct IoApic {
    state: State,
    pins: Vec<Line>,
}

/// What the guest wrote into the registers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    selected: u32,
    entries: [u64; PINS],
}

impl IoApic {
    /// All pins are masked.
    ///
    /// # Errors
    /// The interrupts are used up.
    pub(crate) fn new(lines: &Lines) -> io::Result<Self> {
        Ok(Self {
            state: State {
                selected: 0,
                entries: [MASKED; PINS],
            },
            pins: lines.make(PINS)?,
        })
    }

    /// Returns what the guest wrote.
    pub(crate) fn save(&self) -> State {
        self.state.clone()
    }

    /// Goes on with what a guest wrote before.
    pub(crate) fn restore(&mut self, state: State) {
        self.state = state;
        self.state.entries = self.state.entries.map(|entry| entry & WRITABLE);
        (0..PINS).for_each(|pin| self.route(pin));
    }

    /// Returns what raises `pin` when written.
    pub(crate) fn pin(&self, pin: u8) -> &EventFd {
        self.pins[usize::from(pin)].event()
    }

    /// Answers the guest's read at `offset` into the registers.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            SELECT => self.state.selected,
            WINDOW => self.read_selected(),
            _ => 0,
        };
        for (to, from) in data
            .iter_mut()
            .zip(value.to_le_bytes().into_iter().chain([0; 4]))
        {
            *to = from;
        }
    }

    /// Takes the guest's write at `offset` into the registers.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return;
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            SELECT => self.state.selected = value & 0xff,
            WINDOW => self.write_selected(value),
            _ => {}
        }
    }

    fn read_selected(&self) -> u32 {
        match self.state.selected {
            0x00 | 0x02 => u32::from(IOAPIC_ID) << 24,
            0x01 => VERSION | ((u32::try_from(PINS).expect("few pins") - 1) << 16),
            _ => match self.selected_entry() {
                Some((pin, shift)) => {
                    u32::try_from((self.state.entries[pin] >> shift) & 0xffff_ffff)
                        .expect("32 bits")
                }
                None => 0,
            },
        }
    }

    fn write_selected(&mut self, value: u32) {
        let Some((pin, shift)) = self.selected_entry() else {
            return;
        };
        let half = 0xffff_ffff_u64 << shift;
        let written = (self.state.entries[pin] & !half) | (u64::from(value) << shift);
        self.state.entries[pin] = written & WRITABLE;
        self.route(pin);
    }

    /// Returns the pin whose entry is selected and how far its selected half is shifted.
    fn selected_entry(&self) -> Option<(usize, u32)> {
        let index = self.state.selected.checked_sub(0x10)?;
        let pin = usize::try_from(index / 2).ok().filter(|pin| *pin < PINS)?;
        Some((pin, (index % 2) * 32))
    }

    fn route(&mut self, pin: usize) {
        let entry = self.state.entries[pin];
        let message = (entry & MASKED == 0).then(|| message(entry));
        self.pins[pin].set(message);
    }
}

/// Translates a redirection entry into the message it sends: the fields are the same in other places.
fn message(entry: u64) -> Message {
    let destination = entry >> 56;
    let logical = (entry >> 11) & 1;
    let vector_and_mode = u32::try_from(entry & 0x7ff).expect("11 bits");
    Message {
        address: 0xfee0_0000 | (destination << 12) | (logical << 2),
        data: vector_and_mode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::recorder::Recorder;

    fn write(apic: &mut IoApic, register: u32, value: u32) {
        apic.write(SELECT, &register.to_le_bytes());
        apic.write(WINDOW, &value.to_le_bytes());
    }

    fn read(apic: &mut IoApic, register: u32) -> u32 {
        apic.write(SELECT, &register.to_le_bytes());
        let mut data = [0; 4];
        apic.read(WINDOW, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn the_version_tells_the_number_of_pins() {
        let (_recorder, lines) = Recorder::with_lines();
        let mut apic = IoApic::new(&lines).unwrap();
        assert_eq!(read(&mut apic, 1), 0x0001_0020);
    }

    #[test]
    fn an_unmasked_pin_sends_its_entry_as_a_message() {
        let (recorder, lines) = Recorder::with_lines();
        let mut apic = IoApic::new(&lines).unwrap();
        write(&mut apic, 0x13, 3 << 24);
        write(&mut apic, 0x12, 0x0000_0841);
        let sent = Message {
            address: 0xfee0_3004,
            data: 0x41,
        };
        assert_eq!(recorder.connected.lock().unwrap().get(&1), Some(&sent));
        write(&mut apic, 0x12, 0x0001_0841);
        assert!(recorder.connected.lock().unwrap().is_empty());
    }

    #[test]
    fn registers_that_do_not_exist_are_zero() {
        let (_recorder, lines) = Recorder::with_lines();
        let mut apic = IoApic::new(&lines).unwrap();
        write(&mut apic, 0x14, u32::MAX);
        assert_eq!(read(&mut apic, 0x14), 0);
        apic.write(WINDOW, &[1; 8]);
        let mut wide = [0xff; 8];
        apic.read(0x40, &mut wide);
        assert_eq!(wide, [0; 8]);
    }
}
