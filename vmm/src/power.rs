//! Power and panic on the host side: the few ports through which the guest ends itself, and the registers that
//! say why the ACPI interrupt came.
//!
//! ```text
//! 0x505  panic (the pvpanic device)         0x601  sleep control    0x604  ACPI events, read to clear
//! 0x600  reset                              0x602  sleep status
//! ```

use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use spec::end::EngineEnd;
use vmm_sys_util::eventfd::EventFd;

use crate::pci::bus::lock;

/// The guest kernel writes here when it panics (QEMU's pvpanic specification).
pub(crate) const PANIC_PORT: u16 = 0x505;
/// A write of [`RESET_VALUE`] restarts the machine (ACPI 6.5 §4.8.3.6).
pub(crate) const RESET_PORT: u16 = 0x600;
/// What to write there.
pub(crate) const RESET_VALUE: u8 = 1;
/// ACPI 6.5 §4.8.3.7.
pub(crate) const SLEEP_CONTROL_PORT: u16 = 0x601;
/// ACPI 6.5 §4.8.3.7.
pub(crate) const SLEEP_STATUS_PORT: u16 = 0x602;
/// Our own: the generic event device's method reads it.
pub(crate) const EVENT_PORT: u16 = 0x604;
/// The first and number of ports that ACPI must know are taken.
pub(crate) const PORTS: (u16, u8) = (RESET_PORT, 8);

/// Bit of [`EVENT_PORT`]: the power button was pressed.
pub(crate) const EVENT_POWER_BUTTON: u8 = 1;
/// Bit of [`EVENT_PORT`]: the PCI bus has other devices than before.
pub(crate) const EVENT_BUS_CHANGED: u8 = 2;

/// The type of sleep that is soft off, as the DSDT tells the guest.
pub(crate) const SLEEP_TYPE_OFF: u8 = 5;
/// Sleep control: bits 2 to 4 are the type, bit 5 goes to sleep.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;

/// The guest's panic port says what it can take: a panic.
const PANIC_EVENT: u8 = 1;

/// What a write to a port comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerChange {
    /// The machine goes on.
    Nothing,
    /// The guest kernel panicked; it will restart or hang next.
    Panicked,
    /// The machine ends.
    End(EngineEnd),
}

/// The registers.
pub(crate) struct Power {
    state: Mutex<State>,
    interrupt: EventFd,
}

/// What the registers hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    events: u8,
    panicked: bool,
}

impl Power {
    /// `interrupt` raises the ACPI event device's interrupt.
    pub(crate) fn new(interrupt: EventFd) -> Self {
        Self {
            state: Mutex::default(),
            interrupt,
        }
    }

    /// Returns what the registers hold.
    pub(crate) fn save(&self) -> State {
        lock(&self.state).clone()
    }

    /// Goes on with what the registers held before; an event that the guest has not read is told again.
    pub(crate) fn restore(&self, state: State) {
        let events = state.events;
        *lock(&self.state) = state;
        self.tell(events);
    }

    /// Tells the guest about `event`, one of the bits above.
    pub(crate) fn tell(&self, event: u8) {
        lock(&self.state).events |= event;
        let _full_counter_is_an_interrupt_too = self.interrupt.write(1);
    }

    /// Answers a read of `port`, if it is one of these.
    pub(crate) fn read(&self, port: u16) -> Option<u8> {
        match port {
            PANIC_PORT => Some(PANIC_EVENT),
            EVENT_PORT => Some(std::mem::take(&mut lock(&self.state).events)),
            RESET_PORT | SLEEP_CONTROL_PORT | SLEEP_STATUS_PORT => Some(0),
            _ => None,
        }
    }

    /// Takes a write to `port`.
    pub(crate) fn write(&self, port: u16, value: u8) -> PowerChange {
        let mut state = lock(&self.state);
        let off = SLEEP_ENABLE | (SLEEP_TYPE_OFF << SLEEP_TYPE_SHIFT);
        match port {
            PANIC_PORT if value & PANIC_EVENT != 0 => {
                state.panicked = true;
                PowerChange::Panicked
            }
            // A kernel that panicked restarts the machine only because nobody else would.
            RESET_PORT if value == RESET_VALUE && state.panicked => {
                PowerChange::End(EngineEnd::Panic)
            }
            RESET_PORT if value == RESET_VALUE => PowerChange::End(EngineEnd::Reset),
            SLEEP_CONTROL_PORT if value & off == off => PowerChange::End(EngineEnd::PowerOff),
            _ => PowerChange::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    fn power() -> (EventFd, Power) {
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        (interrupt.try_clone().unwrap(), Power::new(interrupt))
    }

    #[test]
    fn soft_off_ends_the_machine_and_other_sleep_does_not() {
        let (_, power) = power();
        assert_eq!(
            power.write(SLEEP_CONTROL_PORT, 0x34),
            PowerChange::End(EngineEnd::PowerOff)
        );
        assert_eq!(power.write(SLEEP_CONTROL_PORT, 0x24), PowerChange::Nothing);
        assert_eq!(power.write(SLEEP_CONTROL_PORT, 0x14), PowerChange::Nothing);
    }

    #[test]
    fn a_reset_after_a_panic_is_a_panic() {
        let (_, power) = power();
        assert_eq!(
            power.write(RESET_PORT, 1),
            PowerChange::End(EngineEnd::Reset)
        );
        assert_eq!(power.write(PANIC_PORT, 1), PowerChange::Panicked);
        assert_eq!(
            power.write(RESET_PORT, 1),
            PowerChange::End(EngineEnd::Panic)
        );
    }

    #[test]
    fn an_event_interrupts_and_is_read_once() {
        let (interrupt, power) = power();
        power.tell(EVENT_POWER_BUTTON);
        power.tell(EVENT_BUS_CHANGED);
        assert_eq!(interrupt.read().unwrap(), 2);
        assert_eq!(power.read(EVENT_PORT), Some(3));
        assert_eq!(power.read(EVENT_PORT), Some(0));
        assert_eq!(power.read(0x70), None);
    }
}
